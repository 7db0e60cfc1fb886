//! From the command line to the subcommand.

use crate::cli::{Cli, Command};
use crate::{curve, latent, pass, transfer};

/// # Errors
/// When the input is at fault or a result cannot be written.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    cli.common.threads();
    match &cli.command {
        Command::Pass(pass) => pass::run(&cli.common, pass),
        Command::Transfer(transfer) => transfer::run(&cli.common, transfer),
        Command::Latent(latent) => latent::run(&cli.common, latent),
        Command::Curve(curve) => curve::run(&cli.common, curve),
    }
}
