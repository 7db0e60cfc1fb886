//! Mines groups of parallel programs from corpora: import, candidates, groups.

mod candidates;
mod cli;
mod folder;
mod groups;
mod intake;
mod map;
mod mapped;
mod normalise;
mod programs;
mod rows;
mod run;
mod spill;
mod table;
mod value;

use std::process::ExitCode;

fn main() -> ExitCode {
    cognate_cli::main::<cli::Cli>(run::run)
}
