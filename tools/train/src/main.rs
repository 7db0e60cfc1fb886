//! Trains Llama models: `lm` and `sft` on packed sequences, `rl` on scored rollouts.

mod advantage;
mod algorithm;
mod assets;
mod cli;
mod dataset;
mod intake;
mod metrics;
mod micro_batch;
mod optimise;
mod planning;
mod plot;
mod ranks;
mod reinforce;
mod returns;
mod rollouts;
mod run_dir;
mod schedule;
mod start;
mod supervised;
mod tensorboard;

use std::process::ExitCode;

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    match &cli.command {
        cli::Command::Lm(args) => supervised::run(&cli.common, "lm", args),
        cli::Command::Sft(args) => supervised::run(&cli.common, "sft", args),
        cli::Command::Rl(args) => reinforce::run(&cli.common, args),
    }
}

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run)
}
