//! Judges programs and rollouts in sandboxes: the reward function of the suite.

mod checker;
mod cli;
mod extract;
mod filter;
mod inventory;
mod java;
mod judge;
mod launcher;
mod problems;
mod record;
mod sandbox;
mod toolchain;
mod verification;
mod workers;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == launcher::NAME) {
        return launcher::main();
    }
    cognate_cli::main::<cli::Cli>(|cli| match cli.command {
        Some(cli::Command::Languages { languages, names }) => {
            inventory::show(&cli.common, languages.as_deref(), names)
        }
        None => filter::run(&cli.common, &cli.filter),
    })
}
