//! The ops of training, sampling and probing, one a file: an explicit forward and, where there is
//! one, an explicit backward. Everything is `f32` on the CPU here; a tensor says where it lives,
//! so an op gains a device by gaining an arm.
//!
//! Invariants, held by tests: a result does not depend on the number of threads, bit for bit;
//! what is computed for one document or sequence does not depend on the others in the batch,
//! bit for bit; gradients are *added* to what the gradient tensor holds.
//!
//! Shapes: `T` tokens packed without padding, `C` channels of the residual stream, `H` query
//! heads, `G` key/value heads, `D` channels a head, `F` channels of the feed-forward, `V` tokens
//! of the vocabulary. Documents are given by `starts` (`cu_seqlens`): `[0, len0, len0 + len1, …,
//! T]`, one entry more than documents.

pub mod adamw;
pub mod adapter;
pub mod attention;
pub mod bias;
pub mod classifier;
pub mod cuda;
pub mod decode_attention;
pub mod embedding;
pub mod gather;
pub mod grad_norm;
pub mod matmul;
mod parallel;
pub mod policy_loss;
pub mod pooling;
mod product;
pub mod rmsnorm;
pub mod rope;
pub mod sampling;
pub mod swiglu;
mod tensor;
mod tile;
mod vector;

pub use tensor::{Device, Tensor};
