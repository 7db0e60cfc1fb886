//! The CUDA side of the ops: the kernels' sources (`*.cu` beside the ops), what launches them, and
//! the machine they run on. Nothing here needs CUDA to build: the driver and NVRTC are opened when
//! they are first wanted, and the kernels' tests run the same launches on the CPU (`shim/`).

pub mod accelerator;
pub mod arena;
#[path = "lab/attention/attempts.rs"]
pub mod attention_attempts;
pub mod compile;
pub mod cublaslt;
pub mod decode_plan;
pub mod driver;
pub mod gpu;
pub mod launch;
pub mod ops;
pub mod source;
