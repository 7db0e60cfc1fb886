//! The command line of cog-check; the comments here are its help.

use std::path::PathBuf;

use clap::Parser;

/// Validates record files and model directories.
///
/// Says `file:line: reason` on stderr for whatever is wrong (a cut file, invalid JSON, a missing field, an unknown
/// language or schema version, an id that is there twice, a problem in two splits) and a summary on stdout.
#[derive(Debug, Parser)]
#[command(
    name = "cog-check",
    version,
    before_help = "\
Examples:
  cog-check problems.jsonl programs.parquet
  cog-check --problems problems.jsonl judged.jsonl groups.parquet
  cog-check --json runs/tiny/base
  cog-sample … | cog-check -"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    /// Files of records (JSONL, Parquet; - is stdin) and model directories
    #[arg(required = true, value_name = "FILE")]
    pub inputs: Vec<PathBuf>,
    /// Type of records that carry no field schema, such as rollout/1
    #[arg(long, value_name = "TYPE")]
    pub schema: Option<String>,
    /// Every problem that a record refers to must be in this problem/1 file
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// Treat all files as one corpus: ids are unique, and a problem is in one split, across them
    #[arg(long)]
    pub together: bool,
    /// Accept files without a record
    #[arg(long)]
    pub allow_empty: bool,
    /// Print what the file says of its own history
    #[arg(long)]
    pub provenance: bool,
    /// Show at most this many problems of a file; all are counted
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub max_errors: u64,
    /// A table of languages (TOML) merged into the built-in one
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,
}
