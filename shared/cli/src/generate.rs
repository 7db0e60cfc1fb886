//! Man pages and shell completions, made from the same definitions as `--help`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Command, ValueEnum};
use clap_complete::Shell;

/// Answers `--man` and `--completions SHELL` before anything else is asked of the command line.
pub(crate) fn requested(command: &Command, arguments: &[OsString]) -> Option<ExitCode> {
    let wanted = wanted(arguments)?;
    let mut command = command.clone();
    command.build();
    let name = command.get_name().to_string();
    let written = if let Wanted::Completions(shell) = wanted {
        let Ok(shell) = Shell::from_str(&shell, true) else {
            crate::say("error: --completions needs one of bash, zsh, fish, elvish, powershell");
            return Some(ExitCode::from(2));
        };
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, name, &mut text);
        io::stdout().write_all(&text)
    } else {
        man(&command)
    };
    Some(match written {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Man,
    /// For the shell of this name.
    Completions(String),
}

/// The first of the two flags before `--`.
fn wanted(arguments: &[OsString]) -> Option<Wanted> {
    let texts: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).take_while(|a| a != "--").collect();
    texts.iter().enumerate().find_map(|(i, text)| match text.strip_prefix("--completions") {
        Some("") => Some(Wanted::Completions(texts.get(i + 1).map_or_else(String::new, ToString::to_string))),
        Some(rest) => rest.strip_prefix('=').map(|shell| Wanted::Completions(shell.to_owned())),
        None => (text == "--man").then_some(Wanted::Man),
    })
}

/// The examples of `--help` as a section: lines that are neither filled nor read as requests.
fn examples(help: &str) -> String {
    let mut text = ".SH EXAMPLES\n.nf\n".to_owned();
    for line in help.lines().filter(|l| l.trim() != "Examples:") {
        let line = line.strip_prefix("  ").unwrap_or(line).replace('\\', "\\e").replace('-', "\\-");
        text += &format!("\\&{line}\n");
    }
    text + ".fi\n"
}

/// One page: the tool, then each subcommand.
fn man(command: &Command) -> io::Result<()> {
    let mut text = Vec::new();
    let page = clap_mangen::Man::new(command.clone());
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    if let Some(help) = command.get_before_help() {
        text.extend(examples(&help.to_string()).bytes());
    }
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    page.render_extra_section(&mut text)?;
    page.render_version_section(&mut text)?;
    for sub in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let title = format!("{} {}", command.get_name(), sub.get_name());
        let page = clap_mangen::Man::new(sub.clone().display_name(title.clone()).bin_name(title));
        page.render_synopsis_section(&mut text)?;
        page.render_description_section(&mut text)?;
        page.render_options_section(&mut text)?;
    }
    io::stdout().write_all(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_found_and_nothing_behind_two_dashes() {
        let of = |line: &str| wanted(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        assert_eq!(of("cog-x --completions bash a"), Some(Wanted::Completions("bash".into())));
        assert_eq!(of("cog-x a --completions=zsh"), Some(Wanted::Completions("zsh".into())));
        assert_eq!(of("cog-x --completions"), Some(Wanted::Completions(String::new())));
        assert_eq!(of("cog-x a --man"), Some(Wanted::Man));
        assert_eq!(of("cog-x -- --man"), None);
        assert_eq!(of("cog-x --completionsbash"), None);
    }

    #[test]
    fn examples_stay_as_they_are() {
        let text = examples("Examples:\n  cog-x -o a | \\\n    cog-y -");
        assert_eq!(text, ".SH EXAMPLES\n.nf\n\\&cog\\-x \\-o a | \\e\n\\&  cog\\-y \\-\n.fi\n");
    }
}
