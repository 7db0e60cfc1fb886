//! The gradient norm.

use super::{Done, run};
use crate::cuda::launch::{Arguments, CudaError, Element, Engine, Matrix, Shape};

/// Values that one block of `grad_norm` sums.
pub const NORM_BLOCK: usize = 16384;

/// `out` `[1, 2]` fp32: the norm of all `gradients`, and the factor that clips it to `max_norm`.
/// `partial` is scratch of one fp64 a [`NORM_BLOCK`] values of each gradient.
pub fn grad_norm(
    on: &dyn Engine,
    out: Matrix,
    partial: Matrix,
    gradients: &[Matrix],
    max_norm: Option<f32>,
) -> Done {
    out.expect("out", Element::F32, 1, 2);
    let used = grad_squares(on, partial, gradients)?;
    let max_norm = max_norm.unwrap_or(f32::INFINITY);
    let arguments = Arguments::default().matrix(out).matrix(partial).size(used).value(max_norm);
    run(on, "grad_norm", "grad_norm_finish", Shape { grid: [1, 1, 1], block: 1024, shared: 0 }, arguments)
}

/// The first stage of [`grad_norm`]: one sum of squares a [`NORM_BLOCK`] values of each gradient, in `partial`;
/// returns how many.
pub fn grad_squares(on: &dyn Engine, partial: Matrix, gradients: &[Matrix]) -> Result<usize, CudaError> {
    let mut used = 0;
    for &g in gradients {
        assert!(g.len().is_multiple_of(g.element.pack()), "gradients are padded to 16 bytes");
        let blocks = g.len().div_ceil(NORM_BLOCK);
        partial.at_least("partial", Element::F64, used + blocks);
        let arguments = Arguments::default()
            .value(partial.address() + (used * Element::F64.size()) as u64)
            .matrix(g)
            .value(g.len() as u64);
        let shape = Shape { grid: [blocks as u32, 1, 1], block: 256, shared: 0 };
        run(on, "grad_norm", &format!("grad_norm_squares_{}", g.element.suffix()), shape, arguments)?;
        used += blocks;
    }
    Ok(used)
}
