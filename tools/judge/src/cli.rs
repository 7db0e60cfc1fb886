//! The flags; their comments are the documentation.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use cognate_cli::Common;
use cognate_records::Limits;

use crate::sandbox::kinds::Choice;

/// Judge programs and rollouts: run them in sandboxes against their problems' tests and add a verdict to each record.
///
/// Reads program/1 and rollout/1 lines (or any JSON objects with `problem`, `language` and `source` or `text`) and
/// writes the same lines, in the same order, with the field `verdict`. Lines of other schemas pass through. A finished
/// record is written at once, so that the judge can stand in a pipe between a sampler and a trainer.
#[derive(Debug, Parser)]
#[command(
    name = "cog-judge",
    version,
    args_conflicts_with_subcommands = true,
    before_help = "Examples:\n  cog-judge --tests problems.jsonl programs.jsonl -o judged.jsonl\n  \
                   cog-sample … | cog-judge --tests problems.jsonl --first-failure - | cog-train rl …\n  cog-judge languages",
    after_help = "See also: cog-mine groups (makes parallel groups of accepted programs), cog-train rl, cog-score."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub filter: Filter,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show which languages this machine can judge, with their versions, and how to get the others.
    Languages {
        /// Languages table (TOML) merged over the built-in one.
        #[arg(long, value_name = "FILE")]
        languages: Option<PathBuf>,
        /// Print only the names of the usable ones.
        #[arg(long)]
        names: bool,
    },
}

#[derive(Debug, Args)]
pub struct Filter {
    /// Records to judge: JSONL files or Parquet files of programs; `-` is stdin.
    #[arg(value_name = "FILE", default_value = "-")]
    pub input: Vec<PathBuf>,
    /// Problems with their tests (problem/1, JSONL or Parquet); repeatable. Indexed on disk, not loaded.
    #[arg(long, value_name = "FILE")]
    pub tests: Vec<PathBuf>,
    /// Where to write (JSONL); `-` is stdout. A file appears whole or not at all.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
    /// Languages table (TOML) merged over the built-in one.
    #[arg(long, value_name = "FILE")]
    pub languages: Option<PathBuf>,
    /// Stop at a program's first failing test.
    #[arg(long)]
    pub first_failure: bool,
    /// Count only this share of each problem's tests, those with the smallest inputs (at least one).
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub coverage: f64,
    /// Tell wrong form (PE) from wrong content (WA): the right tokens with wrong white space, or a checker program's
    /// exit code 2.
    #[arg(long)]
    pub presentation: bool,
    /// Tell which language each program is in by its own syntax, in `verdict.detected_language`.
    #[arg(long)]
    pub drift: bool,
    /// Keep the beginning of each test's stdout and stderr in the verdict.
    #[arg(long)]
    pub excerpts: bool,
    /// Add measured times and memory in `verdict.measured`; without it equal inputs give equal bytes.
    #[arg(long)]
    pub measured: bool,
    #[command(flatten)]
    pub limits: LimitFlags,
    /// Judge identical programs again instead of repeating the verdict within a run.
    #[arg(long)]
    pub no_result_cache: bool,
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// Start the interpreter anew for every test instead of forking a waiting one.
    #[arg(long)]
    pub no_fork_server: bool,
}

/// Where programs run.
#[derive(Debug, Args)]
#[command(next_help_heading = "Sandbox")]
pub struct SandboxFlags {
    /// Kind of sandbox.
    #[arg(long = "sandbox", value_enum, value_name = "KIND", default_value_t)]
    pub kind: Choice,
}

/// Limits of one run, where neither the test nor the problem says otherwise. The languages table adds what the
/// toolchain itself needs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Default limits")]
pub struct LimitFlags {
    /// CPU time of all processes of a run, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    cpu_ms: u64,
    /// Wall time, in milliseconds; three times the CPU limit and a second when absent.
    #[arg(long, value_name = "MS")]
    wall_ms: Option<u64>,
    /// Memory, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 512)]
    memory_mb: u64,
    /// Processes and threads.
    #[arg(long, value_name = "N", default_value_t = 32)]
    processes: u64,
    /// Largest file, and all of the private /tmp together, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    file_mb: u64,
    /// Output on stdout, and on stderr, in KiB.
    #[arg(long, value_name = "KIB", default_value_t = 16 * 1024)]
    output_kb: u64,
}

impl LimitFlags {
    pub fn limits(&self) -> Limits {
        Limits {
            cpu_ms: Some(self.cpu_ms),
            wall_ms: self.wall_ms,
            memory_mb: Some(self.memory_mb),
            processes: Some(self.processes),
            file_mb: Some(self.file_mb),
            output_kb: Some(self.output_kb),
        }
    }
}
