//! Matrix products in the three orientations of a linear layer `y = x wᵀ`, by crate `gemm`, which
//! reaches 95 % of what one core's multipliers can do. The sharing out over threads is ours: each
//! takes a block of the result, since the crate packs one operand on a single thread.
//!
//! Weights stand as Hugging Face stores them, `[N, K]` row-major. An element's sum runs in an
//! order that depends on the inner size alone: the crate blocks it at 512, as [`product`] does
//! already, and leaves its usual path for products of very few elements only, which
//! [`forward`] avoids by adding rows.

use gemm::Parallelism;

use crate::Tensor;
use crate::parallel::{Shared, for_each};

/// Multiply-adds that are worth a second thread.
const PARALLEL_WORK: usize = 1 << 19;
/// Inner size of one call of the crate.
const DEPTH: usize = 512;
/// Blocks of the result are multiples of the crate's register tile.
const GRAIN: usize = 48;

/// A row-major or transposed operand.
#[derive(Clone, Copy)]
struct Operand<'a> {
    data: &'a [f32],
    row: usize,
    col: usize,
}

/// `y = x wᵀ`: `y` `[T, N]`, `x` `[T, K]`, `w` `[N, K]`. A row of `y` is the same bits whatever
/// rows stand beside it.
pub fn forward(y: &mut Tensor, x: &Tensor, w: &Tensor) {
    let (m, k, n) = (x.rows(), x.cols(), w.rows());
    assert!(y.rows() == m && y.cols() == n && w.cols() == k, "shapes agree");
    // The crate has other paths, with sums in another order, for one row and for at most 256
    // elements: few rows are computed among rows of zeros.
    let least = (256 / n.max(1) + 1).max(2);
    let right = Operand { data: w.f32(), row: 1, col: k };
    if m > 0 && m < least {
        let mut padded_x = vec![0.0; least * k];
        padded_x[..m * k].copy_from_slice(x.f32());
        let mut padded_y = vec![0.0; least * n];
        let left = Operand { data: &padded_x, row: k, col: 1 };
        product(&mut padded_y, left, right, (least, n, k), false);
        y.f32_mut().copy_from_slice(&padded_y[..m * n]);
        return;
    }
    product(y.f32_mut(), Operand { data: x.f32(), row: k, col: 1 }, right, (m, n, k), false);
}

/// `dx = dy w`: `dx` `[T, K]`, `dy` `[T, N]`, `w` `[N, K]`.
pub fn backward_input(dx: &mut Tensor, dy: &Tensor, w: &Tensor) {
    let (m, n, k) = (dy.rows(), dy.cols(), w.cols());
    assert!(dx.rows() == m && dx.cols() == k && w.rows() == n, "shapes agree");
    let (left, right) =
        (Operand { data: dy.f32(), row: n, col: 1 }, Operand { data: w.f32(), row: k, col: 1 });
    product(dx.f32_mut(), left, right, (m, k, n), false);
}

/// `dw += dyᵀ x`: `dw` `[N, K]`, `dy` `[T, N]`, `x` `[T, K]`.
pub fn backward_weight(dw: &mut Tensor, dy: &Tensor, x: &Tensor) {
    let (m, n, k) = (dy.rows(), dy.cols(), x.cols());
    assert!(x.rows() == m && dw.rows() == n && dw.cols() == k, "shapes agree");
    let (left, right) =
        (Operand { data: dy.f32(), row: 1, col: n }, Operand { data: x.f32(), row: k, col: 1 });
    product(dw.f32_mut(), left, right, (n, k, m), true);
}

/// `c (+)= a b` for `c` `[m, n]` row-major, shared out in blocks of rows or, where there are few,
/// of columns.
fn product(c: &mut [f32], a: Operand, b: Operand, (m, n, k): (usize, usize, usize), accumulate: bool) {
    assert_eq!(c.len(), m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col);
    assert!(b.data.len() > (k - 1) * b.row + (n - 1) * b.col);
    let threads = if m * n * k < PARALLEL_WORK { 1 } else { rayon::current_num_threads() };
    // The bounds of the blocks touch no sum, so the number of threads may set them.
    let by_rows = m >= n || m >= 2 * GRAIN * threads;
    let long = if by_rows { m } else { n };
    let block = long.div_ceil(threads).next_multiple_of(GRAIN);
    let shared = Shared::new(c);
    for_each(long.div_ceil(block), |share| {
        let first = share * block;
        let count = block.min(long - first);
        let (row, col, m, n_block) = if by_rows { (first, 0, count, n) } else { (0, first, m, count) };
        for depth in (0..k).step_by(DEPTH) {
            // SAFETY: operands reach as far as the lengths asserted above; blocks do not overlap.
            unsafe {
                gemm::gemm(
                    m,
                    n_block,
                    DEPTH.min(k - depth),
                    shared.pointer().add(row * n + col),
                    1,
                    n as isize,
                    accumulate || depth > 0,
                    a.data.as_ptr().add(row * a.row + depth * a.col),
                    a.col as isize,
                    a.row as isize,
                    b.data.as_ptr().add(depth * b.row + col * b.col),
                    b.col as isize,
                    b.row as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
        }
    });
}
