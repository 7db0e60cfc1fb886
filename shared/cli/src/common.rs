//! The options that mean the same in every tool.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use cognate_records::Provenance;

use crate::Progress;

/// Set on each option, not on the struct: there it would also claim the flags that a tool lists after it.
const HEADING: &str = "Common options";

/// Records that `--keep-going` passed over, for the line at the end.
static SKIPPED: AtomicU64 = AtomicU64::new(0);

/// Says how many records were skipped, if any.
pub(crate) fn report_skipped() {
    match SKIPPED.load(Ordering::Relaxed) {
        0 => {}
        1 => crate::say("1 bad record skipped"),
        n => crate::say(format_args!("{n} bad records skipped")),
    }
}

/// Options shared by every tool.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Worker threads; 0 is one a processor. Results do not depend on it.
    #[arg(short = 'j', long, default_value_t = 0, value_name = "N", global = true, help_heading = HEADING)]
    threads: usize,
    /// Seed of every random choice.
    #[arg(long, default_value_t = 0, value_name = "N", global = true, help_heading = HEADING)]
    pub seed: u64,
    /// Read flags from a TOML file whose keys are long flags; the command line wins. Repeatable, later files win.
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    pub config: Vec<PathBuf>,
    /// Report and count bad records instead of stopping at the first.
    #[arg(long, global = true, help_heading = HEADING)]
    pub keep_going: bool,
    /// Print reports as JSON.
    #[arg(long, global = true, help_heading = HEADING)]
    pub json: bool,
    /// Say nothing but errors.
    #[arg(short, long, global = true, help_heading = HEADING)]
    pub quiet: bool,
    /// Say more; repeat for still more.
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = HEADING)]
    pub verbose: u8,
    /// Colours in help and errors; by itself only on a terminal, and never where NO_COLOR is set.
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true, help_heading = HEADING)]
    color: clap::ColorChoice,
    /// Print the man page (roff) and exit.
    #[arg(long, global = true, help_heading = HEADING)]
    man: bool,
    /// Print completions for a shell (bash, zsh, fish, elvish, powershell) and exit.
    #[arg(long, value_name = "SHELL", global = true, help_heading = HEADING)]
    completions: Option<String>,
}

impl Common {
    /// The number of worker threads; the first call also sizes the global pool.
    pub fn threads(&self) -> usize {
        let threads = match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        // A second call finds the pool built, with the same size.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
        threads
    }

    /// Progress on stderr: a bar on a terminal, sparse lines elsewhere, nothing with `--quiet`.
    pub fn progress(&self, label: &str, total: Option<u64>) -> Progress {
        Progress::new(label, total, self.quiet)
    }

    /// With `--keep-going` reports and counts the error, otherwise gives it back. System failures are never skipped.
    ///
    /// # Errors
    /// The error itself, where it must not be skipped.
    pub fn skip(&self, error: cognate_records::Error) -> anyhow::Result<()> {
        if self.keep_going && error.is_data() {
            SKIPPED.fetch_add(1, Ordering::Relaxed);
            crate::say(format_args!("skipped: {error}"));
            return Ok(());
        }
        Err(error.into())
    }

    /// One line on stderr, unless `--quiet`.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            crate::say(text);
        }
    }

    /// Starts the history of an output: this tool with its arguments, without what cannot change the result (thread
    /// count, verbosity) or would differ between machines (folders).
    pub fn provenance(&self, tool: &str, version: &str) -> Provenance {
        Provenance::step(
            tool,
            version,
            arguments(std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned())),
            Some(self.seed),
        )
    }
}

fn arguments(given: impl Iterator<Item = String>) -> Vec<String> {
    let mut kept = Vec::new();
    let mut given = given;
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "-j" | "--threads" | "--color" => drop(given.next()),
            "-q" | "--quiet" | "-v" | "--verbose" | "--json" => {}
            a if a.starts_with("-j") || a.starts_with("--threads=") || a.starts_with("--color=") => {}
            a => kept.push(without_folders(a)),
        }
    }
    kept
}

/// `--tests=/a/b/c.jsonl` → `--tests=c.jsonl`.
fn without_folders(argument: &str) -> String {
    let (flag, value) = match argument.split_once('=') {
        Some((flag, value)) if flag.starts_with('-') => (format!("{flag}="), value),
        _ => (String::new(), argument),
    };
    let name = value.trim_end_matches('/').rsplit('/').next().unwrap_or(value);
    format!("{flag}{}", if value.contains('/') { name } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_arguments_hold_nothing_of_the_machine() {
        let given = [
            "sft",
            "-j",
            "2",
            "--data",
            "/home/x/a.parquet",
            "--out=/tmp/m/",
            "-q",
            "--threads=4",
            "--color",
            "never",
            "--color=always",
            "--lr=1/2",
        ];
        let kept = arguments(given.iter().map(ToString::to_string));
        assert_eq!(kept, ["sft", "--data", "a.parquet", "--out=m", "--lr=2"]);
    }
}
