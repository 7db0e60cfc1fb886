//! Llama as an explicit forward and backward over the ops of `kernels/`: one file (`llama.rs`)
//! reads top to bottom, and training, sampling and probing all run it.
//!
//! - [`LlamaConfig`], [`Model`]: a Hugging Face directory, opened, made and saved.
//! - [`Trainer`], [`AdamW`]: packed batches in, gradients and per-token log-probabilities out.
//! - [`ShardedAdamW`]: the same between the processes of a data-parallel run.
//! - [`Decoder`]: many sequences at once over a paged key/value cache.
//! - [`Hidden`]: the hidden states of every layer.
//! - [`cuda`]: the same on a GPU, in 16 bits; [`placed`]: on whichever device was chosen.
//! - [`Plan`]: the memory and work of a training step, by arithmetic.
//!
//! Results are bitwise the same for any number of threads, and what is computed for a document or
//! a sequence does not depend on the others beside it.

mod adapter_files;
mod config;
pub mod cuda;
mod decode;
mod error;
mod files;
mod hidden;
mod llama;
mod lora;
mod model;
mod optimizer;
mod packing;
pub mod placed;
mod plan;
mod sharded;
mod train;
mod value;
mod weights;

pub use cognate_kernels::policy_loss::{KlEstimator, Objective, RatioLevel, StepSums};
pub use cognate_kernels::rope::Scaling;
pub use cognate_kernels::sampling::{SampleOptions, Sampled};
pub use cognate_kernels::{Device, Tensor};
pub use config::{Architecture, LlamaConfig};
pub use decode::{Decoder, Request, SequenceId};
pub use error::ModelError;
pub use files::Dtype;
pub use hidden::Hidden;
pub use llama::Recompute;
pub use lora::{Lora, LoraConfig};
pub use model::Model;
pub use optimizer::{AdamW, AdamWConfig, StepReport};
pub use plan::{Item, Plan, Setup, Target};
pub use sharded::ShardedAdamW;
pub use train::{Batch, PolicyTerms, Trainer};
pub use value::ValueHead;
pub use weights::{Gradients, LayerWeights, Slot, Weights};
