//! Exit codes: 0 done, 1 failed, 2 usage, 3 data rejected. A closed pipe downstream is 0.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

/// Marks an error as the input's fault: exit code 3.
#[derive(Debug)]
pub struct Rejected(anyhow::Error);

/// Marks an error as the command line's fault: exit code 2.
#[derive(Debug)]
pub struct Usage(String);

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Rejected {}
impl std::error::Error for Usage {}

/// The input is at fault.
pub fn rejected(error: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Rejected(error.into()))
}

/// The command line is at fault in a way that its grammar cannot say.
pub fn usage(reason: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(reason.into()))
}

/// A folder that the tool will write may stand in the place of what is there; said before the work, not after it.
///
/// # Errors
/// A usage error that names what would be lost.
pub fn output_folder(path: &std::path::Path) -> anyhow::Result<()> {
    cognate_output::replaceable(path).map_err(|e| usage(e.to_string()))
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io_kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        let record_kind = match cause.downcast_ref::<cognate_records::Error>() {
            Some(cognate_records::Error::Io { source, .. }) => Some(source.kind()),
            _ => None,
        };
        io_kind.or(record_kind) == Some(io::ErrorKind::BrokenPipe)
    })
}

fn code_of(error: &anyhow::Error) -> u8 {
    let found = error.chain().find_map(|cause| {
        if cause.is::<Usage>() {
            Some(2)
        } else if cause.is::<Rejected>() {
            Some(3)
        } else {
            cause.downcast_ref::<cognate_records::Error>().map(|e| if e.is_data() { 3 } else { 1 })
        }
    });
    found.unwrap_or(1)
}

/// Prints the error with its causes to stderr and gives the exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let label = if crate::color::on_stderr() { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
    let _ = writeln!(io::stderr(), "{label}: {}", harmless(&message(error)));
    ExitCode::from(code_of(error))
}

/// Control characters as escapes: names out of the data reach messages, and must not drive the terminal.
pub(crate) fn harmless(text: &str) -> String {
    let escape = |c: char| match c {
        '\n' | '\t' => c.to_string(),
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Causes joined by colons; one that only repeats the end of the one before is left out.
fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string();
        if text.ends_with(&part) {
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}

/// A line on stderr. Where nobody can be told any more (a closed pipe, a full disk) the work goes on: `eprintln!` would
/// panic.
pub fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{}", harmless(&text.to_string()));
}

/// `println!` panics when stdout cannot be written. A closed pipe is no fault of the tool; a full disk is a failure like
/// any other.
pub(crate) fn no_panic_on_stdout() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let text = info.payload().downcast_ref::<String>().map_or("", String::as_str);
        let Some(reason) = text.strip_prefix("failed printing to ").filter(|t| t.starts_with("stdout"))
        else {
            return default(info);
        };
        if reason.contains("Broken pipe") {
            std::process::exit(0);
        }
        say(format_args!("error: {reason}"));
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn codes_follow_the_cause_however_deep() {
        let data = cognate_records::Error::data("a.jsonl:3", "bad");
        assert_eq!(code_of(&anyhow::Error::new(data).context("reading")), 3);
        let io = cognate_records::Error::io("x".as_ref(), io::Error::other("disk"));
        assert_eq!(code_of(&io.into()), 1);
        assert_eq!(code_of(&rejected(anyhow::anyhow!("model.safetensors: no tensor"))), 3);
        assert_eq!(code_of(&usage("-n needs a model")), 2);
        assert_eq!(code_of(&anyhow::anyhow!("anything")), 1);
    }

    #[test]
    fn a_closed_pipe_is_found_under_context() {
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_broken_pipe(&Err::<(), _>(closed()).context("writing").unwrap_err()));
        assert!(is_broken_pipe(&cognate_records::Error::io("stdout".as_ref(), closed()).into()));
        assert!(!is_broken_pipe(&io::Error::other("x").into()));
    }

    #[test]
    fn messages_cannot_drive_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jé\n\u{9b}\u{7}"), "a\\u{1b}[2Jé\n\\u{9b}\\u{7}");
    }

    #[test]
    fn repeated_causes_are_said_once() {
        let e = anyhow::Error::new(cognate_records::Error::io("a".as_ref(), io::Error::other("full")));
        assert_eq!(message(&e.context("writing groups")), "writing groups: a: full");
    }
}
