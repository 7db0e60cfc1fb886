//! The flags.

use std::path::PathBuf;

use clap::Parser;
use cognate_model::cuda::Choice;

/// Samples answers to prompts from a model
///
/// Decodes many sequences at a time with a key-value cache. Every token's randomness comes from the seed, the round, the
/// prompt's id, the sample's index and the token's position, so on the CPU the result does not depend on --batch or
/// --threads.
#[derive(Debug, Parser)]
#[command(
    name = "cog-sample",
    version,
    before_help = "\
Examples:
  cog-sample --model runs/model --prompts prompts.jsonl -s 8 -o rollouts.jsonl
  cog-sample --model model --prompts p.jsonl --temperature 0 | cog-judge --tests problems.jsonl -
  cog-sample --follow runs/policy --prompts prompts.jsonl --steps 60 --groups 24 -s 8 \\
    | cog-judge --tests problems.jsonl - \\
    | cog-train rl --model runs/sft --policy runs/policy --steps 60 -o runs/rl",
    after_help = "Next: cog-judge runs the programs in the rollouts; cog-score turns the verdicts into tables."
)]
pub struct Cli {
    /// Model directory in Hugging Face layout (config.json, safetensors, tokenizer.json)
    #[arg(long, value_name = "DIR", required_unless_present = "follow", conflicts_with = "follow")]
    pub model: Option<PathBuf>,

    /// Policy directory of a running cog-train rl: samples each optimizer step with the version that it needs
    #[arg(long, value_name = "DIR", requires = "steps")]
    pub follow: Option<PathBuf>,

    /// Prompts (prompt/1, JSONL or Parquet, - for stdin); those without token ids are tokenised with the model's chat
    /// template
    #[arg(long, value_name = "FILE")]
    pub prompts: PathBuf,

    /// Directory with the tokenizer, if the model's has none
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,

    /// Rollouts (rollout/1); standard output if absent
    #[arg(short, long, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub output: PathBuf,

    /// Samples of each prompt
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,

    /// Divides the logits; 0 takes the most probable token
    #[arg(long, value_name = "T", default_value_t = 1.0, value_parser = temperature)]
    pub temperature: f32,

    /// Samples from the fewest tokens whose probabilities sum to this
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = probability)]
    pub top_p: f32,

    /// Samples from the K most probable tokens; 0 from all
    #[arg(long, value_name = "K", default_value_t = 0)]
    pub top_k: u32,

    /// Most new tokens of a sample
    #[arg(long, value_name = "M", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,

    /// Sequences decoded at a time; a matter of speed and memory alone
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch: u32,

    /// Where to decode: auto (the first GPU, the CPU where there is none), cpu, cuda (the first GPU) or cuda:N. A GPU
    /// computes in bf16, and its samples are not the CPU's; there the last bits of a log-probability may depend on
    /// --batch
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Auto)]
    pub device: Choice,

    /// Uses the first N prompts only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// What the rollouts are labelled with (field model), for tables
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// Part of the randomness: another round gives other samples of the same prompts
    #[arg(long, value_name = "R", default_value_t = 0, conflicts_with = "follow")]
    pub round: u64,

    /// Number of optimizer steps to sample for, all in all (with --follow)
    #[arg(long, value_name = "N", conflicts_with = "model")]
    pub steps: Option<u64>,

    /// Prompts of a step; what the trainer asks for if absent (with --follow)
    #[arg(long, value_name = "G", conflicts_with = "model", value_parser = clap::value_parser!(u64).range(1..))]
    pub groups: Option<u64>,

    /// How many optimizer steps the policy may lag behind the step that it samples for: 0 is strictly on-policy, 1
    /// overlaps sampling with training (with --follow)
    #[arg(long, value_name = "S", default_value_t = 0, conflicts_with = "model")]
    pub max_staleness: u64,

    #[command(flatten)]
    pub common: cognate_cli::Common,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(t) if t.is_finite() && t >= 0.0 => Ok(t),
        _ => Err("expected a number of 0 or more".into()),
    }
}

fn probability(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(p) if p > 0.0 && p <= 1.0 => Ok(p),
        _ => Err("expected a number above 0 and at most 1".into()),
    }
}
