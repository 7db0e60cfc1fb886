//! Flags. Their comments are the help text and the man page.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::draw::Level;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProgramsFormat {
    Parquet,
    Jsonl,
}

/// Makes a synthetic world: problems with tests, and programs in many languages that solve them.
///
/// A problem is a pipeline of a source, a few operations and a sink. From the pipeline come a statement in words,
/// tests with input and expected output, correct programs in every language, and wrong programs with one mistake
/// each. Problems with a superfluous operation are rejected, and no two problems do the same.
///
/// Writes problems.jsonl (problem/1), programs.parquet (program/1) and manifest.json into the folder given by -o.
#[derive(Debug, Parser)]
#[command(
    name = "cog-synth",
    version,
    before_help = "Examples:\n  cog-synth -o world --problems 1000\n  cog-synth --config synth.toml --dry-run --json",
    after_help = "See also: cog-judge (runs the programs), cog-mine (groups them), cog-check (validates the files)."
)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    /// Folder to write; it appears whole or not at all, and replaces an earlier one.
    #[arg(short, long, value_name = "DIR", required_unless_present = "dry_run")]
    pub output: Option<PathBuf>,
    /// Make everything, print the counts, write nothing.
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Format of the programs' file, programs.parquet or programs.jsonl.
    #[arg(long, value_enum, default_value_t = ProgramsFormat::Parquet)]
    pub format: ProgramsFormat,
    /// Number of distinct problems.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub problems: usize,
    /// How many concepts there are.
    #[arg(long, value_enum, default_value_t = Level::Tiny)]
    pub level: Level,
    /// Fewest operations of a problem.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub min_ops: usize,
    /// Most operations of a problem.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub max_ops: usize,
    /// Share of number-valued problems whose number is changed once more before it is printed.
    #[arg(long, default_value_t = 0.25, value_name = "SHARE")]
    pub scalar_share: f64,
    /// Paraphrases of each clause of a statement that are used.
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub paraphrases: usize,
    /// Public tests of a problem.
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub public: usize,
    /// Hidden tests of a problem.
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub hidden: usize,
    /// Splits with their shares, NAME=WEIGHT.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "base=55,sft=15,rl=15,dev=5,eval=10",
        value_name = "SHARES"
    )]
    pub shares: Vec<String>,
    /// Languages of the programs.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "python,javascript,perl,lua,ruby,php,cpp,go",
        value_name = "LANGUAGES"
    )]
    pub languages: Vec<String>,
    /// Correct programs a problem, SPLIT:LANGUAGES=COUNT[@FIRST], as in base:all=1.5 or eval:python+ruby=1@200: in
    /// those languages, for each problem of the split or its first ones; a fraction is a share of the problems.
    #[arg(long, value_delimiter = ',', default_value = "base:all=1,sft:all=1", value_name = "PLAN")]
    pub programs: Vec<String>,
    /// Wrong programs a problem, in the same form.
    #[arg(long, value_delimiter = ',', value_name = "PLAN")]
    pub mutants: Vec<String>,
}
