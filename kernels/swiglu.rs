//! SwiGLU (Shazeer 2020): `y = silu(gate) ⊙ up`, gate and up being the halves of one fused row.

use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::{LANES, dispatch, exp1, load, splat};
use crate::{Tensor, matmul};

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
        forward_rows(y, &gate_up[first * 2 * cols..], cols);
    });
}

/// `gate_up = x wᵀ` and [`forward`] of it in one pass: `x` `[T, C]`, `w` `[2F, C]`.
pub fn forward_product(y: &mut Tensor, gate_up: &mut Tensor, x: &Tensor, w: &Tensor) {
    let cols = y.cols();
    assert!(y.rows() == x.rows() && gate_up.cols() == 2 * cols, "shapes agree");
    let y = Shared::new(y.f32_mut());
    matmul::forward_then(gate_up, x, w, |row, gate_up| {
        // SAFETY: each row is given once.
        let y = unsafe { y.slice(row * cols, gate_up.len() / 2) };
        forward_rows(y, gate_up, cols);
    });
}

fn forward_rows(y: &mut [f32], gate_up: &[f32], cols: usize) {
    dispatch(
        #[inline(always)]
        || {
            for (y, row) in y.chunks_exact_mut(cols).zip(gate_up.chunks_exact(2 * cols)) {
                let (gate, up) = row.split_at(cols);
                for ((y, &g), &u) in y.iter_mut().zip(gate).zip(up) {
                    *y = g / (1.0 + exp1(-g)) * u;
                }
            }
        },
    );
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
        backward_rows(out, &dy[first * cols..][..n * cols], &gate_up[first * 2 * cols..], cols);
    });
}

/// `dy = dx w` and [`backward`] of it in one pass: `dx` `[T, C]`, `w` `[C, F]`; `dy` `[T, F]` is overwritten.
pub fn backward_product(dgate_up: &mut Tensor, dy: &mut Tensor, dx: &Tensor, w: &Tensor, gate_up: &Tensor) {
    let (rows, cols) = (dy.rows(), dy.cols());
    assert!(gate_up.rows() == rows && gate_up.cols() == 2 * cols, "shapes agree");
    assert!(dgate_up.rows() == rows && dgate_up.cols() == 2 * cols, "shapes agree");
    let gate_up = gate_up.f32();
    let out = Shared::new(dgate_up.f32_mut());
    matmul::backward_input_then(dy, dx, w, |row, dy| {
        // SAFETY: each row is given once.
        let out = unsafe { out.slice(row * 2 * cols, 2 * dy.len()) };
        backward_rows(out, dy, &gate_up[row * 2 * cols..], cols);
    });
}

fn backward_rows(out: &mut [f32], dy: &[f32], gate_up: &[f32], cols: usize) {
    dispatch(
        #[inline(always)]
        || {
            let rows = out.chunks_exact_mut(2 * cols).zip(gate_up.chunks_exact(2 * cols));
            for ((out, row), dy) in rows.zip(dy.chunks_exact(cols)) {
                let ((gate, up), (dgate, dup)) = (row.split_at(cols), out.split_at_mut(cols));
                let whole = cols - cols % LANES;
                // A vector at a time by hand: what the compiler unrolls leaves most of a narrow row to its last loop, which
                // takes one value at a time.
                for at in (0..whole).step_by(LANES) {
                    let lanes = at..at + LANES;
                    let (g, u, dy) =
                        (load(&gate[lanes.clone()]), load(&up[lanes.clone()]), load(&dy[lanes.clone()]));
                    let (mut dg, mut du) = (splat(0.0), splat(0.0));
                    for i in 0..LANES {
                        (dg[i], du[i]) = derivative(g[i], u[i], dy[i]);
                    }
                    dgate[lanes.clone()].copy_from_slice(&dg);
                    dup[lanes].copy_from_slice(&du);
                }
                for i in whole..cols {
                    (dgate[i], dup[i]) = derivative(gate[i], up[i], dy[i]);
                }
            }
        },
    );
}

/// Gradients of gate and up.
#[inline(always)]
fn derivative(gate: f32, up: f32, dy: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp1(-gate));
    let silu = gate * s;
    (dy * up * (s + silu * (1.0 - s)), dy * silu)
}
