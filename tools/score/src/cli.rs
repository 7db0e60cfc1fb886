//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cell::Temperature;

/// Prints the tables and figures of a run
///
/// Reads judged rollouts (rollout/1 with a verdict) or metrics (metric/1) and writes Markdown, CSV, SVG and metric/1.
/// A rollout's field `model` carries labels, as arm=parallel,stage=rl,seed=0. Samples with verdict IE, the judge's own
/// fault, are left out and counted. Results do not depend on the order of files or lines.
#[derive(Debug, Parser)]
#[command(
    name = "cog-score",
    version,
    subcommand_required = true,
    before_help = "\
Examples:
  cog-score pass -k 1,10 judged.jsonl
  cog-score transfer --targets ruby,php eval/*.judged.jsonl -o transfer.md --svg transfer.svg
  cog-score latent probe/*.jsonl -o latent.md
  cog-score curve rl.metrics.jsonl --metric reward -o reward.svg"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Unbiased pass@k with intervals, and how samples fail, for each model, language and temperature
    ///
    /// `cog-score pass`.
    Pass(Pass),
    /// The transfer table: arms × languages, before and after RL
    ///
    /// pass@1 of every arm before and after RL on the source language, in the source and in languages that RL never saw.
    ///
    /// Rollouts need labels arm and stage (and seed) in their field `model`. What stands before RL is stage sft, or stage
    /// base for an arm without SFT; the row of arm base has stage base alone. Before and after are compared on the same
    /// problems and seeds.
    Transfer(Box<Transfer>),
    /// The latent table: retrieval, cosine and cluster distance by layer and arm
    ///
    /// Whether equivalent programs lie together whatever their language, by layer and arm. Layer 0, the embeddings, is the
    /// control: what stands there already is shared spelling.
    Latent(Latent),
    /// Training curves
    ///
    /// `cog-score curve`.
    Curve(Curve),
}

/// Where results go.
#[derive(Debug, Args)]
pub struct Outputs {
    /// Markdown; standard output if absent and nothing else goes there
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// CSV, one row a number, shares as fractions
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,

    /// Figure
    #[arg(long, value_name = "FILE")]
    pub svg: Option<PathBuf>,

    /// Metrics (metric/1); --json prints them on standard output instead of Markdown
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
}

/// How intervals are made.
#[derive(Debug, Args)]
pub struct Intervals {
    /// Resamples behind an interval
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    pub resamples: u64,

    /// Confidence of an interval, above 0 and below 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.95, value_parser = confidence)]
    pub confidence: f64,
}

fn confidence(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("a share above 0 and below 1 is needed".into()),
    }
}

/// Which rollouts count.
#[derive(Debug, Args)]
pub struct Which {
    /// Judged rollouts (rollout/1), JSONL or Parquet; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Splits to count; all if absent
    #[arg(long, value_name = "SPLITS", value_delimiter = ',')]
    pub split: Vec<String>,

    /// Languages of the user's own, merged over the built-in table (TOML, as for cog-judge)
    #[arg(long, value_name = "FILE")]
    pub languages_table: Option<PathBuf>,

    /// Temperature of rollouts that do not state theirs
    #[arg(long, value_name = "T")]
    pub temperature: Option<Temperature>,
}

/// `cog-score pass`.
#[derive(Debug, Args)]
#[command(after_help = "Next: cog-score transfer compares arms before and after RL.")]
pub struct Pass {
    #[command(flatten)]
    pub which: Which,

    /// Numbers of samples; a problem with fewer is left out of that column
    #[arg(short = 'k', value_name = "K", long = "k", value_delimiter = ',', default_value = "1",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub ks: Vec<u64>,

    /// Tasks to count (generation, verification); all if absent
    #[arg(long, value_name = "TASKS", value_delimiter = ',')]
    pub task: Vec<String>,

    #[command(flatten)]
    pub intervals: Intervals,

    #[command(flatten)]
    pub outputs: Outputs,
}

/// Arms of an experiment: order, names, comparisons.
#[derive(Debug, Args)]
pub struct Arms {
    /// Arms, in the order of the rows; all that are found if absent. The base model is always the first row
    #[arg(long, value_name = "ARMS", value_delimiter = ',')]
    pub arms: Vec<String>,

    /// Names of arms in print, ARM=TEXT
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub names: Vec<String>,

    /// Pairs of arms to compare, ARM:ARM, the first minus the second
    #[arg(
        long,
        value_name = "PAIRS",
        value_delimiter = ',',
        default_value = "parallel:nonparallel,parallel:source"
    )]
    pub contrast: Vec<String>,
}

/// What an interval speaks of where there are several seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Draws {
    /// Other problems, these very models
    Problems,
    /// Other problems and other training seeds (crossed bootstrap); as `problems` where there is one seed
    Crossed,
}

/// `cog-score transfer`.
#[derive(Debug, Args)]
#[command(after_help = "Next: LOG.md, with the command that made the table.")]
pub struct Transfer {
    #[command(flatten)]
    pub which: Which,

    /// Language that RL trains on
    #[arg(long, value_name = "LANGUAGE", default_value = "python")]
    pub source: String,

    /// Languages that RL never sees, in the order of the columns; all others that are found if absent
    #[arg(long, value_name = "LANGUAGES", value_delimiter = ',')]
    pub targets: Vec<String>,

    /// Temperatures, a block each; all that are found if absent
    #[arg(long, value_name = "TEMPERATURES", value_delimiter = ',')]
    pub temperatures: Vec<Temperature>,

    /// Task to count
    #[arg(long, value_name = "TASK", default_value = "generation")]
    pub task: String,

    /// Stages that may stand before RL; the first that an arm has is taken
    #[arg(long, value_name = "STAGES", value_delimiter = ',', default_value = "sft,base")]
    pub before: Vec<String>,

    /// Stage that stands after RL
    #[arg(long, value_name = "STAGE", default_value = "rl")]
    pub after: String,

    #[command(flatten)]
    pub arms: Arms,

    /// What intervals speak of where there are several seeds
    #[arg(long, value_enum, value_name = "DRAWS", default_value = "crossed")]
    pub interval: Draws,

    /// The manifest that cog-mix wrote, for what each arm was trained on
    #[arg(long, value_name = "FILE")]
    pub manifest: Option<PathBuf>,

    /// Title of table and figure
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    #[command(flatten)]
    pub intervals: Intervals,

    #[command(flatten)]
    pub outputs: Outputs,
}

/// `cog-score latent`.
#[derive(Debug, Args)]
#[command(after_help = "The metrics come from cog-probe; its --label gives arm=NAME,stage=sft,seed=0.")]
pub struct Latent {
    /// Metrics of cog-probe (metric/1), JSONL or Parquet; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub arms: Arms,

    /// Title of table and figure
    #[arg(long, value_name = "TEXT")]
    pub title: Option<String>,

    #[command(flatten)]
    pub outputs: Outputs,
}

/// `cog-score curve`.
#[derive(Debug, Args)]
pub struct Curve {
    /// Metrics (metric/1) with a step, JSONL or Parquet; - is standard input
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,

    /// Names of metrics, a panel each; all that have a step if absent
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub metric: Vec<String>,

    /// Steps that a plotted value is the mean of
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    pub smooth: u64,

    /// Title of the figure
    #[arg(long, value_name = "TEXT", default_value = "Training curves")]
    pub title: String,

    /// Figure; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,
}
