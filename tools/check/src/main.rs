//! Validates record files and model directories.

mod cli;
mod facts;
mod model;
mod records;
mod report;
mod run;

use std::process::ExitCode;

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run::run)
}
