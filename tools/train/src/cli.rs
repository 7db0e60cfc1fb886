//! The flags. Their comments are the help text, the man page and the completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Train Llama models: from packed sequences (lm, sft) or from scored rollouts (rl).
///
/// All three run the same step: forward, backward, global token normalisation, clipping, AdamW. A run keeps its
/// state in a directory beside the output (--checkpoint); the same command given again after a kill goes on where
/// it was and ends with the same bytes. SIGTERM saves the state and exits 0, SIGINT saves it and exits 130; the
/// output appears only when the run is complete.
#[derive(Debug, Parser)]
#[command(
    name = "cog-train",
    version,
    after_help = "\
Examples:
  cog-train lm  --init-config model.json --tokenizer tok/ --data base.parquet --epochs 2 --lr 2e-3 -o base/
  cog-train sft --model base/ --data mix/parallel.parquet -o sft/
  cog-sample --follow rl/policy --prompts p.jsonl --steps 90 | cog-judge --tests problems.jsonl - \\
    | cog-train rl --model sft/ --policy rl/policy --steps 90 -o rl/model

See also: cog-mix (makes packed sequences), cog-sample, cog-judge, cog-probe"
)]
pub struct Cli {
    #[command(flatten)]
    pub common: cognate_cli::Common,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train on packed sequences, from random weights or from a model
    Lm(Supervised),
    /// Fine-tune a model on packed sequences (the same step; loss where the data's weights say)
    Sft(Supervised),
    /// GRPO on scored rollouts read from stdin, as the end of the pipe cog-sample | cog-judge | cog-train rl
    Rl(Reinforce),
}

#[derive(Debug, Args)]
pub struct Supervised {
    #[command(flatten)]
    pub start: Start,
    /// Packed sequences (packed/1, Parquet or JSONL); several files are one data set
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// Packed sequences in one optimizer step
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub batch: u64,
    /// Passes over the data; each has its own order, drawn from (seed, epoch)
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub epochs: f64,
    /// Stop after this many optimizer steps (before --tokens and --epochs)
    #[arg(long, value_name = "N")]
    pub steps: Option<u64>,
    /// Stop after the step that reaches this many tokens (before --epochs)
    #[arg(long, value_name = "N")]
    pub tokens: Option<u64>,
    #[command(flatten)]
    pub optimisation: Optimisation,
    #[command(flatten)]
    pub keeping: Keeping,
}

#[derive(Debug, Args)]
pub struct Reinforce {
    /// Model to start from: a Hugging Face directory; it becomes version 0 of the policy
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// Scored rollouts (rollout/1 with verdict, step_end/1 after each step)
    #[arg(default_value = "-", value_name = "ROLLOUTS")]
    pub input: PathBuf,
    /// Policy directory, shared with cog-sample --follow
    #[arg(long, value_name = "DIR")]
    pub policy: PathBuf,
    /// Steps: batches of rollouts to train on
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: u64,
    /// Prompts asked for in each step
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub groups: u64,
    /// Versions kept in the policy directory
    #[arg(long, default_value_t = 4, value_name = "K")]
    pub keep_versions: usize,
    /// Type of the published weights
    #[arg(long, value_enum, default_value_t = WeightType::F32, value_name = "TYPE")]
    pub policy_dtype: WeightType,
    /// Refuse rollouts that are older than this many optimizer steps
    #[arg(long, value_name = "N")]
    pub max_staleness: Option<u64>,
    /// How rewards become advantages: std: (r - mean) / (std + eps), as GRPO; mean: r - mean, as Dr. GRPO
    #[arg(long, value_enum, default_value_t = AdvantageRule::Std, value_name = "RULE")]
    pub advantage: AdvantageRule,
    /// The eps of --advantage std
    #[arg(long, default_value_t = 1e-6, value_name = "X")]
    pub advantage_eps: f64,
    /// What the loss is divided by: tokens of the step (DAPO), sequences with the mean over each (GRPO as
    /// published), or constant: sequences times the longest answer allowed (Dr. GRPO)
    #[arg(long, value_enum, default_value_t = Normalisation::Tokens, value_name = "RULE")]
    pub normalise: Normalisation,
    /// Answers cut off by length: keep (reward as judged), zero (reward 0), mask (in the group's mean, not in the loss)
    #[arg(long, value_enum, default_value_t = Truncated::Keep, value_name = "RULE")]
    pub truncated: Truncated,
    /// Lower clip: the ratio counts down to 1 - X
    #[arg(long, default_value_t = 0.2, value_name = "X")]
    pub clip_low: f32,
    /// Upper clip: the ratio counts up to 1 + X
    #[arg(long, default_value_t = 0.28, value_name = "X")]
    pub clip_high: f32,
    /// Cap of the importance weight between sampler and trainer (0 switches the correction off)
    #[arg(long, default_value_t = 2.0, value_name = "X")]
    pub importance_cap: f32,
    /// Coefficient of the KL term to the reference model
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub kl: f32,
    /// Estimator of the KL term (Schulman, "Approximating KL divergence", 2020)
    #[arg(long, value_enum, default_value_t = Kl::K3, value_name = "NAME")]
    pub kl_estimator: Kl,
    /// Reference model of the KL term [default: the initial model]
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// Optimizer steps made of one step's groups
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub minibatches: u64,
    /// Passes over one step's groups
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub inner_epochs: u64,
    #[command(flatten)]
    pub optimisation: Optimisation,
    #[command(flatten)]
    pub keeping: Keeping,
}

#[derive(Debug, Args)]
pub struct Start {
    /// Model to start from: a Hugging Face directory
    #[arg(long, value_name = "DIR", required_unless_present = "init_config")]
    pub model: Option<PathBuf>,
    /// Start from random weights of this shape: a config.json; vocab_size and the special tokens' ids come from the
    /// tokenizer where they are absent
    #[arg(long, value_name = "FILE", conflicts_with = "model", requires = "tokenizer")]
    pub init_config: Option<PathBuf>,
    /// Tokenizer directory, carried into the output [default: the model's own]
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Optimisation {
    /// Peak learning rate
    #[arg(long, default_value_t = 1e-3, value_name = "X")]
    pub lr: f64,
    /// Learning rate after the warm-up
    #[arg(long, value_enum, default_value_t = Shape::Constant, value_name = "SHAPE")]
    pub schedule: Shape,
    /// Steps over which the learning rate rises linearly to its peak
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub warmup: u64,
    /// Where the schedule ends, as a fraction of the peak
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub final_lr: f64,
    /// Fraction of the steps in which wsd decays
    #[arg(long, default_value_t = 0.2, value_name = "X")]
    pub decay: f64,
    /// AdamW: decay rate of the first moment
    #[arg(long, default_value_t = 0.9, value_name = "X")]
    pub beta1: f32,
    /// AdamW: decay rate of the second moment
    #[arg(long, default_value_t = 0.95, value_name = "X")]
    pub beta2: f32,
    /// AdamW: added to the root of the second moment
    #[arg(long, default_value_t = 1e-8, value_name = "X")]
    pub adam_eps: f32,
    /// AdamW: decoupled weight decay (matrices only)
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub weight_decay: f32,
    /// Clip the gradient to this global norm (0: never)
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub clip: f32,
    /// Tokens in one forward and backward; a step's gradient is accumulated over as many as it takes
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub micro_tokens: u64,
}

#[derive(Debug, Args)]
pub struct Keeping {
    /// Model directory to write (Hugging Face layout)
    #[arg(short, long, value_name = "DIR")]
    pub output: PathBuf,
    /// Type of the weights in the output
    #[arg(long, value_enum, default_value_t = WeightType::F32, value_name = "TYPE")]
    pub dtype: WeightType,
    /// State of the run: checkpoints, metrics, journal. Removed when the output is complete [default: OUTPUT.ckpt]
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Steps from one checkpoint to the next (0: only on SIGTERM) [default: 200; rl: 10]
    #[arg(long, value_name = "N")]
    pub checkpoint_every: Option<u64>,
    /// Checkpoints kept
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub keep: u64,
    /// Throw away the state of an earlier run instead of going on with it
    #[arg(long)]
    pub restart: bool,
    /// Write metric/1 records here when the run is complete (until then they grow in CHECKPOINT/metrics.jsonl)
    #[arg(long, value_name = "FILE")]
    pub metrics: Option<PathBuf>,
    /// Label of the run in its metrics
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    Constant,
    Linear,
    Cosine,
    /// Warm-up, stable, decay
    Wsd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    F32,
    Bf16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AdvantageRule {
    Std,
    Mean,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalisation {
    Tokens,
    Sequences,
    Constant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Truncated {
    Keep,
    Zero,
    Mask,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kl {
    K1,
    K2,
    K3,
}
