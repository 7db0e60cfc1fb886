//! The flags. Their comments are the help text, the man page and the completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use cognate_model::cuda::Choice;

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
    before_help = "\
Examples:
  cog-train lm  --init-config model.json --tokenizer tok/ --data base.parquet --epochs 2 -o base/
  cog-train sft --model base/ --data mix/parallel.parquet -o sft/
  cog-train sft --model Llama-3.1-8B/ --plan=cuda --micro-tokens 16384 --plan-memory 141
  cog-sample --follow rl/policy --prompts p.jsonl --steps 90 | cog-judge --tests problems.jsonl - \\
    | cog-train rl --model sft/ --policy rl/policy --steps 90 -o rl/model",
    after_help = "See also: cog-mix (makes packed sequences), cog-sample, cog-judge, cog-probe"
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
    /// Reinforcement learning (DAPO, GRPO, PPO …) on scored rollouts read from stdin, as the end of the pipe cog-sample | cog-judge | cog-train rl
    Rl(Reinforce),
}

#[derive(Debug, Args)]
pub struct Supervised {
    #[command(flatten)]
    pub start: Start,
    /// Packed sequences (packed/1, Parquet or JSONL); several files are one data set
    #[arg(long, required_unless_present = "plan", num_args = 1.., value_name = "FILE")]
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
    /// Add X log² Z a token to the loss, which keeps logits from drifting (0: not)
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub z_loss: f32,
    #[command(flatten)]
    pub optimisation: Optimisation,
    #[command(flatten)]
    pub keeping: Keeping,
    #[command(flatten)]
    pub parallel: Parallel,
    #[command(flatten)]
    pub planning: Planning,
}

#[derive(Debug, Args)]
pub struct Parallel {
    /// Processes that train together, each on its share of every step's sequences: the same command for each, with
    /// its own --rank. Gradients are added up in shared memory (of GPUs, one a process, by NCCL), each process holds a
    /// share of AdamW's moments, and all wait for each other in OUTPUT.ckpt.ranks
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=512))]
    pub world_size: u64,
    /// This process among them, from 0; rank 0 writes the output
    #[arg(long, default_value_t = 0, value_name = "R")]
    pub rank: u64,
    /// How long to wait for the others to come
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub rank_timeout: u64,
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
    #[arg(
        long,
        required_unless_present = "plan",
        default_value = ".",
        hide_default_value = true,
        value_name = "DIR"
    )]
    pub policy: PathBuf,
    /// Steps: batches of rollouts to train on
    #[arg(
        long,
        required_unless_present = "plan",
        default_value_t = 1,
        hide_default_value = true,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
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
    /// Settings of the loss by name; --advantage, --normalise, --ratio, --equal-groups, --kl-in and the clips change
    /// them one by one
    #[arg(long, value_enum, default_value_t = Algorithm::Dapo, value_name = "NAME")]
    pub algorithm: Algorithm,
    /// How rewards become advantages: std: (r - mean) / (std + eps) of the prompt's samples; mean: r - mean;
    /// leave-one-out: r - mean of the others; batch: the return from each token on, normalised over the step; gae:
    /// generalised advantage estimation with a learned value head, normalised likewise [default: the algorithm's]
    #[arg(long, value_enum, value_name = "RULE")]
    pub advantage: Option<AdvantageRule>,
    /// The eps of --advantage std, batch and gae
    #[arg(long, default_value_t = 1e-6, value_name = "X")]
    pub advantage_eps: f64,
    /// What the ratio of new to old policy is taken over [default: the algorithm's]
    #[arg(long, value_enum, value_name = "LEVEL")]
    pub ratio: Option<Ratio>,
    /// What the loss is divided by: tokens of the step; sequences, with the mean over each; constant: sequences
    /// times the longest answer allowed; samples: sequences, with the sum over each [default: the algorithm's]
    #[arg(long, value_enum, value_name = "RULE")]
    pub normalise: Option<Normalisation>,
    /// Prompts whose samples have equal rewards: drop, or keep them in the divisor [default: the algorithm's]
    #[arg(long, value_enum, value_name = "RULE")]
    pub equal_groups: Option<EqualGroups>,
    /// Ask for N prompts a step and train on at most --groups of those that are not dropped, drawn from the seed
    /// (dynamic sampling) [default: --groups]
    #[arg(long, value_name = "N")]
    pub sample_groups: Option<u64>,
    /// Penalise answers that reach into the last N tokens allowed, the more the further (0: not)
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub overlong_buffer: u32,
    /// What --overlong-buffer takes off the reward of an answer that reaches the limit
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub overlong_penalty: f64,
    /// Answers cut off by length: keep (reward as judged), zero (reward 0), mask (in the group's mean, not in the loss)
    #[arg(long, value_enum, default_value_t = Truncated::Keep, value_name = "RULE")]
    pub truncated: Truncated,
    /// Lower clip: the ratio counts down to 1 - X [default: the algorithm's]
    #[arg(long, value_name = "X")]
    pub clip_low: Option<f32>,
    /// Upper clip: the ratio counts up to 1 + X [default: the algorithm's]
    #[arg(long, value_name = "X")]
    pub clip_high: Option<f32>,
    /// Cap of the importance weight between sampler and trainer (0 switches the correction off)
    #[arg(long, default_value_t = 2.0, value_name = "X")]
    pub importance_cap: f32,
    /// Coefficient of the KL term to the reference model
    #[arg(long, default_value_t = 0.0, value_name = "X")]
    pub kl: f32,
    /// Where the KL term stands: in the loss, or taken off each token's reward [default: the algorithm's]
    #[arg(long, value_enum, value_name = "PLACE")]
    pub kl_in: Option<KlPlace>,
    /// Estimator of the KL term (Schulman, "Approximating KL divergence", 2020) [default: k3; in the reward: k1]
    #[arg(long, value_enum, value_name = "NAME")]
    pub kl_estimator: Option<Kl>,
    /// Reference model of the KL term [default: the initial model]
    #[arg(long, value_name = "DIR")]
    pub reference: Option<PathBuf>,
    /// gae: discount of later rewards
    #[arg(long, default_value_t = 1.0, value_name = "X")]
    pub gamma: f64,
    /// gae: 1 trusts the rewards alone, 0 the next value
    #[arg(long, default_value_t = 0.95, value_name = "X")]
    pub gae_lambda: f64,
    /// gae: coefficient of the value loss
    #[arg(long, default_value_t = 0.5, value_name = "X")]
    pub value_coefficient: f32,
    /// gae: a value counts as moved by at most X within a step (0: not clipped)
    #[arg(long, default_value_t = 0.2, value_name = "X")]
    pub value_clip: f32,
    /// gae: peak learning rate of the value head [default: --lr]
    #[arg(long, value_name = "X")]
    pub value_lr: Option<f64>,
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
    #[command(flatten)]
    pub planning: Planning,
}

#[derive(Debug, Args)]
pub struct Start {
    /// Model to start from: a Hugging Face directory
    #[arg(long, value_name = "DIR", required_unless_present = "init_config")]
    pub model: Option<PathBuf>,
    /// Start from random weights of this shape: a config.json; vocab_size and the special tokens' ids come from the
    /// tokenizer where they are absent
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub init_config: Option<PathBuf>,
    /// Tokenizer directory, carried into the output; needed with --init-config [default: the model's own]
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
    /// Keep the tensors as they are whose Hugging Face name matches REGEX, e.g. 'embed_tokens|layers\.[0-3]\.'
    #[arg(long, value_name = "REGEX", conflicts_with = "lora_rank")]
    pub freeze: Option<String>,
    /// Train low-rank adapters of this rank instead of the weights; the output is merged (0: no adapters)
    #[arg(long, default_value_t = 0, value_name = "R")]
    pub lora_rank: usize,
    /// Adapters count alpha / rank times
    #[arg(long, default_value_t = 16.0, value_name = "X")]
    pub lora_alpha: f32,
    /// Matrices that get an adapter
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        default_value = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
    )]
    pub lora_targets: Vec<String>,
    /// Where to compute: auto (a GPU, the CPU where there is none), cpu, cuda (the first GPU) or cuda:N. Process R of
    /// --world-size takes GPU R by cuda, and by auto too unless there are fewer GPUs than processes; of cuda:N each
    /// must be given its own. A GPU computes in bf16 with exact f32 masters and bf16 moments (adapters in f32); a run
    /// goes on where it began
    #[arg(long, value_name = "DEVICE", default_value_t = Choice::Auto)]
    pub device: Choice,
    /// Tokens in one forward and backward; a step's gradient is accumulated over as many as it takes
    #[arg(long, default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub micro_tokens: u64,
    /// What the backward computes again instead of keeping it: nothing, the feed-forward of each layer, or the whole
    /// layer. Less memory, more work, the same bits
    #[arg(long, value_enum, default_value_t = Recomputation::None, value_name = "LEVEL")]
    pub recompute: Recomputation,
}

#[derive(Debug, Args)]
pub struct Planning {
    /// Print the memory and the operations that a micro-batch takes, and do nothing: neither weights nor data are
    /// read, config.json suffices. cuda: the layout of a GPU in bf16 with a 16-bit remainder of the weights
    #[arg(
        long,
        value_enum,
        value_name = "DEVICE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "cpu"
    )]
    pub plan: Option<PlanDevice>,
    /// With --plan: tokens of a document [default: the context, at most --micro-tokens]
    #[arg(long, requires = "plan", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub plan_length: Option<u64>,
    /// With --plan: say whether that much memory suffices
    #[arg(long, requires = "plan", value_name = "GB")]
    pub plan_memory: Option<f64>,
}

#[derive(Debug, Args)]
pub struct Keeping {
    /// Model directory to write (Hugging Face layout)
    #[arg(
        short,
        long,
        required_unless_present = "plan",
        default_value = ".",
        hide_default_value = true,
        value_name = "DIR"
    )]
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
    /// With --lora-rank: also write the adapter, in PEFT's layout
    #[arg(long, value_name = "DIR", requires = "lora_rank")]
    pub adapter: Option<PathBuf>,
    /// Save the state and exit 0 after the step that ends past this many seconds; the same command goes on
    #[arg(long, value_name = "SECONDS")]
    pub max_time: Option<f64>,
    /// Write TensorBoard event files into this folder as well
    #[arg(long, value_name = "DIR")]
    pub tensorboard: Option<PathBuf>,
    /// Draw the metrics over the steps when the run is complete
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// What the machine could do at best, to measure the use made of it (metric mfu)
    #[arg(long, value_name = "FLOP/S")]
    pub peak_flops: Option<f64>,
    /// Label of the run in its metrics
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,
}

impl Keeping {
    /// # Errors
    /// A usage error when an output would take the place of what is no model.
    pub fn check(&self) -> anyhow::Result<()> {
        [Some(&self.output), self.adapter.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|to| cognate_cli::output_folder(to))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanDevice {
    Cpu,
    Cuda,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Recomputation {
    None,
    FeedForward,
    Block,
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
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Token-level loss, higher upper clip, equal groups dropped
    Dapo,
    /// As published: the mean over each answer
    Grpo,
    /// Neither deviation nor length divides
    DrGrpo,
    /// Ratio and clip of whole sequences
    Gspo,
    /// The mean of a prompt's other samples as baseline
    Rloo,
    /// No groups: returns normalised over the step
    #[value(name = "reinforce++")]
    #[serde(rename = "reinforce++")]
    ReinforcePlusPlus,
    /// A learned value head and generalised advantage estimation
    Ppo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageRule {
    Std,
    Mean,
    LeaveOneOut,
    Batch,
    Gae,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ratio {
    Token,
    Sequence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EqualGroups {
    Drop,
    Keep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KlPlace {
    Loss,
    Reward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalisation {
    Tokens,
    Sequences,
    Constant,
    Samples,
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
