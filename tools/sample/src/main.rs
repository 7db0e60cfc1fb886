//! Samples rollouts from a model, or from a policy while it is being trained.

mod cli;
mod engine;
mod follow;
mod once;
mod order;
mod prompts;
mod sampler;
mod schedule;

use std::process::ExitCode;

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    match &cli.follow {
        Some(policy) => follow::follow(&cli, policy),
        None => once::once(&cli),
    }
}

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run)
}
