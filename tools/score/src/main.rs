//! Prints the tables and figures of a run.

mod bootstrap;
mod cell;
mod cli;
mod curve;
mod figure;
mod intake;
mod labels;
mod latent;
mod markdown;
mod metrics;
mod names;
mod outputs;
mod pass;
mod pass_at_k;
mod transfer;

use std::process::ExitCode;

use cli::{Cli, Command};

fn main() -> ExitCode {
    cognate_cli::main::<Cli>(run)
}

fn run(cli: Cli) -> anyhow::Result<()> {
    cli.common.threads();
    match &cli.command {
        Command::Pass(pass) => pass::run(&cli.common, pass),
        Command::Transfer(transfer) => transfer::run(&cli.common, transfer),
        Command::Latent(latent) => latent::run(&cli.common, latent),
        Command::Curve(curve) => curve::run(&cli.common, curve),
    }
}
