//! The model on a GPU: forward, backward, optimizer and decoding over the CUDA kernels and an
//! [`Accelerator`], which is a GPU or, in tests, the CPU running the same kernels.
//!
//! This is a second text of `llama.rs` and not a second arm in each op, because on a device little of
//! the first one holds: weights are bf16 with a 16-bit remainder, gradients and moments bf16; what is
//! kept for the backward differs (norms and SwiGLU are always computed again, the gradient of gate and
//! up takes their place); lists of tokens, tiles and runs lie in device memory; every buffer comes from
//! an arena laid out in advance, at an address that recorded work may rely on; and every call can fail.
//! A tensor that knew all this would hide it. The two texts have the same order and names, and the
//! tests hold the one to the other.
//!
//! Two runs on one device give the same bits. They are not the CPU's bits, and products are the
//! vendor's: another device, or another number of sequences decoded at once, may round otherwise.

mod decode;
mod hidden;
mod llama;
mod lora;
mod model;
mod optimizer;
mod sharded;
mod stored;
mod train;

use cognate_kernels::cuda::launch::CudaError;

pub use cognate_kernels::cuda::accelerator::Accelerator;
pub use cognate_kernels::cuda::driver::Choice;
pub use decode::Decoder;
pub use hidden::Hidden;
pub use lora::Lora;
pub use model::{Model, Purpose, unsupported};
pub use optimizer::AdamW;
pub use sharded::{Devices, ShardedAdamW};
pub use train::Trainer;

pub(crate) use lora::padded as padded_rank;

/// Of a launch, or of several.
pub(crate) type Done = Result<(), CudaError>;
