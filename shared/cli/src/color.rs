//! `--color`, read before the command line is parsed, because the parser's own errors are coloured too.

use std::ffi::OsString;
use std::io::{IsTerminal, stderr};
use std::sync::OnceLock;

use clap::{ColorChoice, ValueEnum};

static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

/// The last `--color` before `--`, remembered for [`on_stderr`]. A value that is none is left to the parser to refuse.
pub(crate) fn chosen(arguments: &[OsString]) -> ColorChoice {
    let mut choice = ColorChoice::Auto;
    let texts: Vec<_> = arguments.iter().map(|a| a.to_string_lossy()).take_while(|a| a != "--").collect();
    for (i, text) in texts.iter().enumerate() {
        let value = match text.strip_prefix("--color") {
            Some("") => texts.get(i + 1).map(AsRef::as_ref),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        if let Some(given) = value.and_then(|v| ColorChoice::from_str(v, false).ok()) {
            choice = given;
        }
    }
    *CHOICE.get_or_init(|| choice)
}

/// Whether messages on stderr are coloured (<https://no-color.org>: set and not empty forbids it, a flag overrules it).
pub(crate) fn on_stderr() -> bool {
    match CHOICE.get().copied().unwrap_or(ColorChoice::Auto) {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto => {
            stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
        }
    }
}
