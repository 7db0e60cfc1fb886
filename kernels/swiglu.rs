//! SwiGLU (Shazeer 2020): `y = silu(gate) ⊙ up`, gate and up being the halves of one fused row.

use crate::Tensor;
use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::{dispatch, exp1};

/// `y` `[T, F]` from `gate_up` `[T, 2F]`.
pub fn forward(y: &mut Tensor, gate_up: &Tensor) {
    let (rows, cols) = (y.rows(), y.cols());
    assert!(gate_up.rows() == rows && gate_up.cols() == 2 * cols, "shapes agree");
    let gate_up = gate_up.f32();
    let y = Shared::new(y.f32_mut());
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let y = unsafe { y.slice(first * cols, n * cols) };
        dispatch(
            #[inline(always)]
            || {
                for (y, row) in
                    y.chunks_exact_mut(cols).zip(gate_up[first * 2 * cols..].chunks_exact(2 * cols))
                {
                    let (gate, up) = row.split_at(cols);
                    for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                        *y = g / (1.0 + exp1(-g)) * u;
                    }
                }
            },
        );
    });
}

/// Gradient `dgate_up` `[T, 2F]` (overwritten) from `dy` `[T, F]`; `silu` is recomputed.
pub fn backward(dgate_up: &mut Tensor, dy: &Tensor, gate_up: &Tensor) {
    let (rows, cols) = (dy.rows(), dy.cols());
    assert!(gate_up.rows() == rows && gate_up.cols() == 2 * cols, "shapes agree");
    assert!(dgate_up.rows() == rows && dgate_up.cols() == 2 * cols, "shapes agree");
    let (dy, gate_up) = (dy.f32(), gate_up.f32());
    let out = Shared::new(dgate_up.f32_mut());
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let out = unsafe { out.slice(first * 2 * cols, n * 2 * cols) };
        dispatch(
            #[inline(always)]
            || {
                for (r, out) in out.chunks_exact_mut(2 * cols).enumerate() {
                    let row = &gate_up[(first + r) * 2 * cols..(first + r + 1) * 2 * cols];
                    let dy = &dy[(first + r) * cols..(first + r + 1) * cols];
                    let ((gate, up), (dgate, dup)) = (row.split_at(cols), out.split_at_mut(cols));
                    for ((((dg, du), &g), &u), &dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
                        let s = 1.0 / (1.0 + exp1(-g));
                        let silu = g * s;
                        *du = dy * silu;
                        *dg = dy * u * (s + silu * (1.0 - s));
                    }
                }
            },
        );
    });
}
