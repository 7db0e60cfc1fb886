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
mod run;
mod transfer;

use std::process::ExitCode;

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run::run)
}
