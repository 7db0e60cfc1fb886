//! Makes a synthetic world of problems and parallel programs.

mod cli;
mod draw;
mod emit;
mod inputs;
mod interpret;
mod ir;
mod manifest;
mod mutate;
mod plan;
mod programs;
mod rivals;
mod run;
mod split;
mod statement;
mod world;

#[cfg(test)]
mod tests;

use std::process::ExitCode;

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run::run)
}
