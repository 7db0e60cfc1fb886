//! Judges programs and rollouts in sandboxes: the reward function of the suite.
//!
//! A library only so that `tests/weakened.rs` can be the same judge with a protection less.

mod alone;
mod assertions;
mod build;
mod checker;
mod clean;
mod cli;
mod desk;
mod doctor;
mod event;
mod extract;
mod filter;
mod helper;
mod image;
mod intake;
mod interactive;
mod inventory;
mod java;
mod judge;
mod key;
mod launcher;
mod lean;
mod limits;
mod owner;
mod problems;
mod protections;
mod record;
mod results;
mod sandbox;
mod serve;
mod sheet;
mod sink;
mod toolchain;
mod verification;
mod wipe;
mod workers;

use std::process::ExitCode;

pub use protections::{Protection, Protections};
use sandbox::oci::init;
use sandbox::wasm::translator;

/// The whole program: launcher, first process of a container, translator or judge, by its own name.
pub fn main(protections: Protections) -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if name == launcher::NAME {
        return launcher::main();
    }
    if name == init::NAME {
        return init::main();
    }
    if name == translator::NAME {
        return translator::main();
    }
    protections::choose(protections);
    cognate_cli::main::<cli::Cli>(|cli| match cli.command {
        Some(cli::Command::Languages { languages, names, rootfs }) => {
            inventory::show(&cli.common, languages.as_deref(), names, rootfs.as_deref())
        }
        Some(cli::Command::Clean { dry_run }) => clean::run(&cli.common, dry_run),
        Some(cli::Command::Doctor { rootfs }) => doctor::run(&cli.common, rootfs.as_deref()),
        Some(cli::Command::Serve(serve)) => serve::run(&cli.common, &serve),
        None => filter::run(&cli.common, &cli.filter),
    })
}
