//! Command-line manners that every tool shares: parsing with presets, exit codes, broken pipes, signals, progress,
//! man pages and completions. A tool's `main.rs` is one call of [`main`].

mod color;
mod common;
mod config;
mod exit;
mod generate;
mod progress;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

pub use common::Common;
pub use config::tables as config_tables;
pub use exit::{Rejected, Usage, output_folder, rejected, say, usage};
pub use progress::Progress;

/// Appended to every `--help`.
const EXIT_CODES: &str = "Exit status: 0 done, 1 failed, 2 usage, 3 data rejected, 130 interrupted. \
A reader that closes the pipe early ends the tool with 0.";

/// What a tool may ask of [`main_with`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Names of tables that `--config FILE` may hold beside flags, because the tool reads them itself.
    pub tables: &'static [&'static str],
}

/// Parses the command line (with `--config` presets expanded), runs the tool and turns its outcome into an exit code.
pub fn main<C: CommandFactory + FromArgMatches>(run: impl FnOnce(C) -> anyhow::Result<()>) -> ExitCode {
    main_with(Options::default(), run)
}

/// As [`main`], with options.
pub fn main_with<C: CommandFactory + FromArgMatches>(
    options: Options,
    run: impl FnOnce(C) -> anyhow::Result<()>,
) -> ExitCode {
    cognate_output::remove_on_signals();
    exit::no_panic_on_stdout();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = with_exit_codes(C::command()).color(color::chosen(&arguments));
    if let Some(code) = generate::requested(&command, &arguments) {
        return code;
    }
    if arguments.len() == 1 && std::io::stdin().is_terminal() {
        let mut command = command;
        let _ = command.print_help();
        return ExitCode::from(2);
    }
    let arguments = match config::expand(&command, arguments, options.tables) {
        Ok(arguments) => arguments,
        Err(e) => return exit::report(&e),
    };
    let matches = match command.try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let outcome = C::from_arg_matches(&matches).map_err(anyhow::Error::from).and_then(run);
    common::report_skipped();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => exit::report(&e),
    }
}

fn with_exit_codes(command: clap::Command) -> clap::Command {
    let tail = command.get_after_help().map_or_else(String::new, |text| format!("{text}\n\n"));
    let command = command.after_help(format!("{tail}{EXIT_CODES}"));
    let names: Vec<String> = command.get_subcommands().map(|c| c.get_name().to_string()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, with_exit_codes))
}
