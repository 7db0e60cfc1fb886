//! Man pages and shell completions, made from the same definitions as `--help`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Answers `--man` and `--completions SHELL` before anything else is asked of the command line.
pub(crate) fn requested(command: &Command, arguments: &[OsString]) -> Option<ExitCode> {
    let at = arguments.iter().position(|a| a == "--man" || a == "--completions")?;
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_string();
    let written = if arguments[at] == "--man" {
        man(&command)
    } else {
        let shell = arguments.get(at + 1).and_then(|s| Shell::from_str(&s.to_string_lossy(), true).ok());
        let Some(shell) = shell else {
            eprintln!("error: --completions needs one of bash, zsh, fish, elvish, powershell");
            return Some(ExitCode::from(2));
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut text);
        io::stdout().write_all(&text)
    };
    Some(match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// One page: the tool, then each subcommand.
fn man(command: &Command) -> io::Result<()> {
    let mut text = Vec::new();
    clap_mangen::Man::new(command.clone()).render(&mut text)?;
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let title = format!("{} {}", command.get_name(), sub.get_name());
        let page = clap_mangen::Man::new(sub.clone().display_name(title.clone()).bin_name(title));
        page.render_synopsis_section(&mut text)?;
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
    }
    io::stdout().write_all(&text)
}
