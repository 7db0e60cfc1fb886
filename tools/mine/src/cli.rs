//! The command line of cog-mine; the comments here are its help.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::groups::EvidenceKind;

/// Mines groups of parallel programs from corpora.
///
/// Three steps, with the judge between the last two: import a corpus into problems and programs, choose the programs
/// that could form groups, and make groups of those that the judge accepted.
#[derive(Debug, Parser)]
#[command(
    name = "cog-mine",
    version,
    before_help = "\
Examples:
  cog-mine import --map testdata/maps/kattis.toml kattis.jsonl -o corpus
  cog-mine import --map source=code,language=lang,problem=task submissions.parquet -o corpus
  cog-mine import my-problems/ -o corpus
  cog-mine candidates --problems corpus/problems.jsonl corpus/programs.jsonl |
    cog-judge --tests corpus/problems.jsonl - |
    cog-mine groups --problems corpus/problems.jsonl - -o groups.parquet",
    after_help = "Next: cog-mix sft builds the arms of an experiment out of the groups."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read corpora in their own layouts; write problems.jsonl and programs.jsonl
    Import(Import),
    /// Choose programs that could form groups, as input for cog-judge
    Candidates(Candidates),
    /// Make groups of the programs that were accepted
    Groups(Groups),
}

#[derive(Debug, Args)]
pub struct Import {
    /// Corpora: folders (a folder a problem), record files, or any JSONL or Parquet with --map
    #[arg(required = true, value_name = "CORPUS")]
    pub inputs: Vec<PathBuf>,
    /// Field map: a TOML file, or pairs such as source=code,language=lang,problem=task_id
    #[arg(long, value_name = "FILE|PAIRS")]
    pub map: Option<String>,
    /// Name of the corpus, noted in every record's origin; the map's or the folder's name by default
    #[arg(long, value_name = "NAME")]
    pub corpus: Option<String>,
    /// Folder for the outputs; files that it already holds under other names stay
    #[arg(short, long, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Format of the programs; problems are always JSONL, which the judge indexes on disk
    #[arg(long, value_enum, default_value_t = ProgramsFormat::Jsonl)]
    pub format: ProgramsFormat,
    #[command(flatten)]
    pub filter: Filter,
    /// Write the counts as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgramsFormat {
    Jsonl,
    Parquet,
}

/// Flags that several steps share.
#[derive(Debug, Args)]
pub struct Filter {
    /// Only these languages, by canonical name, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub languages: Vec<String>,
    /// A table of languages (TOML) merged into the built-in one
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,
    /// Leave out sources longer than this many bytes
    #[arg(long, default_value_t = 65536, value_name = "BYTES")]
    pub max_source: usize,
}

#[derive(Debug, Args)]
pub struct Candidates {
    /// program/1 files, JSONL or Parquet; - is stdin
    #[arg(required = true, value_name = "PROGRAMS")]
    pub inputs: Vec<PathBuf>,
    /// Leave out programs whose problem is not in this problem/1 file or has no tests there
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// Leave out problems with programs in fewer languages
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub min_languages: usize,
    /// At most this many programs of a problem in one language, chosen by the seed
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub per_language: usize,
    /// At most this many problems, chosen by the seed
    #[arg(long, value_name = "N")]
    pub max_problems: Option<usize>,
    /// Only these splits, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub splits: Vec<String>,
    /// Take programs with these claims, beside those without one; any takes all
    #[arg(long, value_delimiter = ',', default_value = "accepted", value_name = "NAMES")]
    pub claims: Vec<String>,
    #[command(flatten)]
    pub filter: Filter,
    /// Output, JSONL or Parquet by its extension
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Write the counts as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Groups {
    /// Judged program/1 files, JSONL or Parquet; - is stdin
    #[arg(required = true, value_name = "PROGRAMS")]
    pub inputs: Vec<PathBuf>,
    /// Take the groups' statements from this problem/1 file
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,
    /// What makes a program a member
    #[arg(long, value_enum, default_value_t = EvidenceKind::Verdict)]
    pub evidence: EvidenceKind,
    /// Leave out groups with fewer languages
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub min_languages: usize,
    /// Leave out programs that passed fewer tests, however accepted
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub min_tests: u32,
    /// At most this many members of one language in a group, chosen by the seed
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub per_language: usize,
    /// Only these languages, by canonical name, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub languages: Vec<String>,
    /// A table of languages (TOML) merged into the built-in one
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,
    /// Output, JSONL or Parquet by its extension
    #[arg(short, long, default_value = "-", value_name = "FILE")]
    pub output: PathBuf,
    /// Write the counts as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
}
