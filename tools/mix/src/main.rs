//! cog-mix: builds tokenizers, base corpora, SFT arms at equal budgets, and prompts.

mod base;
mod clauses;
mod cli;
mod corpus;
mod document;
mod fill;
mod format;
mod language_model;
mod manifest;
mod pack;
mod prompts;
mod sft;
mod tokenizer;

use std::process::ExitCode;

use cli::{Cli, Command};

fn main() -> ExitCode {
    cognate_cli::main_with::<Cli>(cognate_cli::Options { tables: &["arm"] }, |cli| match &cli.command {
        Command::Tokenizer(options) => tokenizer::run(&cli.common, options),
        Command::Base(options) => base::run(&cli.common, options),
        Command::Sft(options) => sft::run(&cli.common, options),
        Command::Prompts(options) => prompts::run(&cli.common, options),
    })
}
