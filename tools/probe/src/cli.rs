//! The flags.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cognate_model::cuda::Choice;

use crate::document::Form;
use crate::embed::Pooling;

/// Measures whether programs lie by what they do or by their language in a model's hidden states
///
/// Reads one accepted program for each problem and language, on problems that have one in every language, and writes
/// for each layer (0 is the embedding, the control), pooling and centring:
///
/// retrieval@1, for each ordered pair of languages: how often the nearest program by cosine, among all those of the
/// other language, solves the same problem; beside retrieval@1_chance, what guessing scores.
///
/// cosine_parallel, cosine_nonparallel, cosine_gap: mean cosine of two programs in two languages that solve the same
/// problem, or different ones, and the difference.
///
/// intra_cluster_distance: mean distance of programs to the centroid of their problem, divided by the mean distance of
/// all pairs of programs; language_cluster_distance: the same with the centroid of their language.
#[derive(Debug, Parser)]
#[command(
    name = "cog-probe",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    before_help = "\
Examples:
  cog-probe --model runs/sft --programs programs.parquet --languages python,ruby -o metrics.jsonl
  cog-probe --model runs/sft --programs programs.parquet --embeddings e.parquet -o metrics.jsonl
  cog-probe metrics e.parquet --centre none,language -o metrics.jsonl",
    after_help = "Next: cog-score latent turns the metrics of several models into a table."
)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub probe: Probe,
    #[command(flatten)]
    pub common: cognate_cli::Common,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measures stored embeddings (embedding/1), whoever made them
    Metrics(Metrics),
}

/// Vectors from a model.
#[derive(Debug, Args)]
pub struct Probe {
    /// Model directory in Hugging Face layout (config.json, safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR", required = true)]
    pub model: Option<PathBuf>,

    /// Programs (program/1); those that are not accepted, by verdict or else by claim, are passed over
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub programs: Vec<PathBuf>,

    /// Problems (problem/1), for the statements that --document statement needs
    #[arg(long, value_name = "FILE")]
    pub problems: Option<PathBuf>,

    /// Languages to compare, in the order of the report; all that the programs have if absent
    #[arg(long, value_name = "LANGUAGES", value_delimiter = ',')]
    pub languages: Vec<String>,

    /// Splits to take programs from; all if absent
    #[arg(long, value_name = "SPLITS", value_delimiter = ',')]
    pub split: Vec<String>,

    /// Claim of the corpus that counts as accepted where a program has no verdict
    #[arg(long, value_name = "CLAIM", default_value = "accepted")]
    pub claim: String,

    /// Most problems, drawn by the seed
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    /// What the model reads of a program; each one given is measured
    #[arg(long, value_enum, value_name = "FORMS", value_delimiter = ',', default_value = "source")]
    pub document: Vec<Form>,

    /// How a document becomes one vector
    #[arg(long, value_enum, value_name = "POOLINGS", value_delimiter = ',', default_value = "mean,last")]
    pub pooling: Vec<Pooling>,

    /// Layers to read, 0 being the embedding; all if absent
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    pub layers: Vec<usize>,

    /// Where to compute: auto (the first GPU, the CPU where there is none), cpu, cuda (the first GPU) or cuda:N; a GPU
    /// computes in bf16
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Auto)]
    pub device: Choice,

    #[command(flatten)]
    pub measures: Measures,

    /// Also writes the vectors (embedding/1, Parquet or JSONL by the extension)
    #[arg(long, value_name = "FILE")]
    pub embeddings: Option<PathBuf>,

    /// Name of the model in the output
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

/// Vectors from a file.
#[derive(Debug, Args)]
pub struct Metrics {
    /// Embeddings (embedding/1)
    #[arg(value_name = "FILE", required = true)]
    pub embeddings: Vec<PathBuf>,

    /// Languages to compare, in the order of the report; all in the file if absent
    #[arg(long, value_name = "LANGUAGES", value_delimiter = ',')]
    pub languages: Vec<String>,

    #[command(flatten)]
    pub measures: Measures,
}

/// What is done with the vectors.
#[derive(Debug, Args)]
pub struct Measures {
    /// What is subtracted from the vectors first; each one given is measured
    #[arg(long, value_enum, value_name = "CENTRES", value_delimiter = ',', default_value = "none")]
    pub centre: Vec<Centre>,

    /// Metrics (metric/1); standard output if absent
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Centre {
    /// Nothing
    None,
    /// The mean vector of the program's language, so that the language itself is gone
    Language,
}

impl Centre {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Language => "language",
        }
    }
}
