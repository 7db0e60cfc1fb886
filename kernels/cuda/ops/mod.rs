//! The launchers, one or two an op: they check shapes, choose the grid and name the kernel. What
//! each computes stands in the head of its `.cu`, and its CPU twin in the `.rs` of the same name.
//!
//! Matrices of tokens are `[T, C]`; lists (tokens, starts, targets, ...) are `[1, n]` of 32 bits.

mod adamw;
mod adapter;
mod attention;
mod bias;
mod classifier;
mod decode_attention;
mod embedding;
mod gather;
mod grad_norm;
mod policy_loss;
mod pooling;
mod rmsnorm;
mod rope;
mod sampling;
mod swiglu;

pub use adamw::*;
pub use adapter::*;
pub use attention::*;
pub use bias::*;
pub use classifier::*;
pub use decode_attention::*;
pub use embedding::*;
pub use gather::*;
pub use grad_norm::*;
pub use policy_loss::*;
pub use pooling::*;
pub use rmsnorm::*;
pub use rope::*;
pub use sampling::*;
pub use swiglu::*;

use super::launch::{Arguments, CudaError, Element, Engine, Matrix, Shape};

pub(in crate::cuda) type Done = Result<(), CudaError>;

/// Rows of the first stage of sums over tokens (`dw` of the norms, gradients of biases): fixed, so
/// that the order of additions is. About two blocks a multiprocessor of the largest GPUs.
pub const PARTIAL_ROWS: usize = 256;

/// `threads` a block, as many blocks as `work` needs.
fn line(work: usize, threads: usize) -> Shape {
    Shape { grid: [work.div_ceil(threads) as u32, 1, 1], block: threads as u32, shared: 0 }
}

/// `x` blocks of 256 threads, each thread with one pack of `cols` values in y.
fn plane(x: usize, cols: usize, element: Element) -> Shape {
    let packs = cols / element.pack();
    let threads = packs.clamp(1, 256).next_multiple_of(32);
    Shape { grid: [x as u32, packs.div_ceil(threads) as u32, 1], block: threads as u32, shared: 0 }
}

fn packs(m: Matrix) -> usize {
    assert!(m.cols.is_multiple_of(m.element.pack()), "rows of {} values are not whole 16 bytes", m.cols);
    m.rows * m.cols / m.element.pack()
}

/// An empty grid is refused by the driver, and has nothing to do.
pub(in crate::cuda) fn run(
    on: &dyn Engine,
    source: &'static str,
    name: &str,
    shape: Shape,
    arguments: Arguments,
) -> Result<(), CudaError> {
    if shape.grid.contains(&0) {
        return Ok(());
    }
    on.launch(source, name, shape, arguments)
}
