//! Measures whether programs lie by what they do or by their language in a model's hidden states.

mod cli;
mod cloud;
mod document;
mod embed;
mod measures;
mod probe;
mod report;
mod select;
mod stored;

use std::process::ExitCode;

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    match &cli.command {
        Some(cli::Command::Metrics(metrics)) => stored::measure(&cli.common, metrics),
        None => probe::probe(&cli.common, &cli.probe),
    }
}

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run)
}
