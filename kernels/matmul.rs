//! Matrix products in the three orientations of a linear layer `y = x wᵀ`: by our own
//! [`crate::product`] where there are rows enough to be worth the packing of the right operand, by
//! crate `gemm` where there are few, as in decoding. The sharing out of the latter over threads is
//! ours: each takes a block of the result, since the crate packs one operand on a single thread.
//!
//! Weights stand as Hugging Face stores them, `[N, K]` row-major. An element's sum runs in an
//! order that depends on the inner size alone, the same in both: ascending, in blocks of 512. The
//! crate leaves it for products of very few elements only, which [`forward`] avoids by adding rows.

use gemm::Parallelism;

use crate::Tensor;
use crate::parallel::{Shared, block_rows, for_each};
use crate::product::{self, Operand};

/// Multiply-adds that are worth a second thread.
const PARALLEL_WORK: usize = 1 << 19;
/// Rows from which on packing pays.
const MANY: usize = 96;
/// Elements of a result up to which the crate has another path, with sums in another order, as it has for one row.
const FEW: usize = 256;
/// Blocks of the result are multiples of the crate's register tile.
const GRAIN: usize = 48;

/// `y = x wᵀ`: `y` `[T, N]`, `x` `[T, K]`, `w` `[N, K]`. A row of `y` is the same bits whatever
/// rows stand beside it.
pub fn forward(y: &mut Tensor, x: &Tensor, w: &Tensor) {
    forward_then(y, x, w, |_, _| {});
}

/// [`forward`], then `after(row, rows)` for every few rows of `y` from `row` on, while they are in the cache: what
/// is done to each row by itself is best done there.
pub(crate) fn forward_then(
    y: &mut Tensor,
    x: &Tensor,
    w: &Tensor,
    after: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let (m, k, n) = (x.rows(), x.cols(), w.rows());
    assert!(y.rows() == m && y.cols() == n && w.cols() == k, "shapes agree");
    // Few rows are computed among rows of zeros.
    let least = (FEW / n.max(1) + 1).max(2);
    let right = Operand { data: w.f32(), row: 1, col: k };
    if m > 0 && m < least {
        let mut padded_x = vec![0.0; least * k];
        padded_x[..m * k].copy_from_slice(x.f32());
        let mut padded_y = vec![0.0; least * n];
        let left = Operand { data: &padded_x, row: k, col: 1 };
        product(&mut padded_y, left, right, (least, n, k), false, |_, _| {});
        y.f32_mut().copy_from_slice(&padded_y[..m * n]);
        after(0, y.f32_mut());
        return;
    }
    product(y.f32_mut(), Operand { data: x.f32(), row: k, col: 1 }, right, (m, n, k), false, after);
}

/// `dx = dy w`: `dx` `[T, K]`, `dy` `[T, N]`, `w` `[N, K]`.
pub fn backward_input(dx: &mut Tensor, dy: &Tensor, w: &Tensor) {
    backward_input_then(dx, dy, w, |_, _| {});
}

/// [`backward_input`] with an `after` as [`forward_then`] has it.
pub(crate) fn backward_input_then(
    dx: &mut Tensor,
    dy: &Tensor,
    w: &Tensor,
    after: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    let (m, n, k) = (dy.rows(), dy.cols(), w.cols());
    assert!(dx.rows() == m && dx.cols() == k && w.rows() == n, "shapes agree");
    let (left, right) =
        (Operand { data: dy.f32(), row: n, col: 1 }, Operand { data: w.f32(), row: k, col: 1 });
    product(dx.f32_mut(), left, right, (m, k, n), false, after);
}

/// `dw += dyᵀ x`: `dw` `[N, K]`, `dy` `[T, N]`, `x` `[T, K]`.
pub fn backward_weight(dw: &mut Tensor, dy: &Tensor, x: &Tensor) {
    let (m, n, k) = (dy.rows(), dy.cols(), x.cols());
    assert!(x.rows() == m && dw.rows() == n && dw.cols() == k, "shapes agree");
    let (left, right) =
        (Operand { data: dy.f32(), row: 1, col: n }, Operand { data: x.f32(), row: k, col: 1 });
    product(dw.f32_mut(), left, right, (n, k, m), true, |_, _| {});
}

/// Bytes of the packed operands of a forward and backward through a layer `[n, k]` over `rows` rows:
/// shared by all threads, and of each.
pub fn scratch_bytes(rows: usize, n: usize, k: usize) -> (usize, usize) {
    let products = [(n, k), (k, n), (k, rows)].map(|(n, k)| product::scratch_bytes(n, k));
    products.into_iter().fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)))
}

/// `c (+)= a b` for `c` `[m, n]` row-major, shared out in blocks of rows or, where there are few,
/// of columns.
fn product(
    c: &mut [f32],
    a: Operand,
    b: Operand,
    (m, n, k): (usize, usize, usize),
    accumulate: bool,
    after: impl Fn(usize, &mut [f32]) + Sync + Send,
) {
    assert_eq!(c.len(), m * n);
    if m == 0 || n == 0 {
        return;
    }
    if k > 0 && m >= MANY {
        product::product(c, a, b, (m, n, k), accumulate, after);
        return;
    }
    match (k, accumulate) {
        (0, false) => c.fill(0.0),
        (0, true) => {}
        _ => few(c, a, b, (m, n, k), accumulate),
    }
    let c = Shared::new(c);
    let block = block_rows(n);
    for_each(m.div_ceil(block), |task| {
        let row = task * block;
        // SAFETY: rows do not overlap.
        after(row, unsafe { c.slice(row * n, block.min(m - row) * n) });
    });
}

/// [`product`] by the crate.
fn few(c: &mut [f32], a: Operand, b: Operand, (m, n, k): (usize, usize, usize), accumulate: bool) {
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col);
    assert!(b.data.len() > (k - 1) * b.row + (n - 1) * b.col);
    let threads = if m * n * k < PARALLEL_WORK { 1 } else { rayon::current_num_threads() };
    let by_rows = m >= n || m >= 2 * GRAIN * threads;
    let (long, short) = if by_rows { (m, n) } else { (n, m) };
    // The bounds of the blocks touch no sum, so the number of threads may set them, as long as no block is so small
    // that the crate takes another path.
    let least = (FEW / short + 1).max(2);
    let block = long.div_ceil(threads).max(least).next_multiple_of(GRAIN);
    let shares = (long / block + usize::from(long % block >= least)).max(1);
    let shared = Shared::new(c);
    for_each(shares, |share| {
        let first = share * block;
        let count = if share + 1 == shares { long - first } else { block };
        let (row, col, m, n_block) = if by_rows { (first, 0, count, n) } else { (0, first, m, count) };
        for (depth, inner) in product::blocks(k) {
            // SAFETY: operands reach as far as the lengths asserted above; blocks do not overlap.
            unsafe {
                gemm::gemm(
                    m,
                    n_block,
                    inner,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * i * 31 + i * 7 + seed) as f32 * 0.173).sin()).collect()
    }

    /// Sixteen lanes on any machine, as AVX-512 has them.
    #[derive(Clone, Copy)]
    struct Sixteen;

    impl product::Registers for Sixteen {
        fn run<J: pulp::WithSimd>(self, job: J) -> J::Output {
            job.with_simd(pulp::Scalar512b)
        }
    }

    /// Both ways give every element the same bits, so that a row does not depend on how many there are.
    #[test]
    fn many_rows_and_few_rows_have_the_same_bits() {
        for (m, n, k) in [
            (96, 64, 512),
            (97, 33, 513),
            (49, 40, 700),
            (99, 130, 514),
            (131, 1, 40),
            (100, 300, 1030),
            (96, 17, 1),
            (13, 5, 3),
        ] {
            let (row_major, transposed) = (|cols| (cols, 1), |rows| (1, rows));
            for (left, right) in [(true, true), (true, false), (false, true), (false, false)] {
                let (a, b) = (values(m * k, 1), values(k * n, 2));
                let (row, col) = if left { row_major(k) } else { transposed(m) };
                let a = Operand { data: &a, row, col };
                let (row, col) = if right { row_major(n) } else { transposed(k) };
                let b = Operand { data: &b, row, col };
                for accumulate in [false, true] {
                    let mut one = values(m * n, 3);
                    let mut other = one.clone();
                    let mut wide = one.clone();
                    product::product(&mut one, a, b, (m, n, k), accumulate, |_, _| {});
                    product::product_with(Sixteen, &mut wide, a, b, (m, n, k), accumulate, |_, _| {});
                    let bits = |c: &[f32]| c.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                    assert!(bits(&one) == bits(&wide), "sixteen lanes: {m} {n} {k} {left} {right}");
                    if n * m > 256 && n > 1 && k > 2 {
                        few(&mut other, a, b, (m, n, k), accumulate);
                        assert!(bits(&one) == bits(&other), "{m} {n} {k} {left} {right} {accumulate}");
                        continue;
                    }
                    for (i, (got, start)) in one.iter().zip(&other).enumerate() {
                        let at = |x: Operand, i: usize, j: usize| f64::from(x.data[i * x.row + j * x.col]);
                        let sum: f64 = (0..k).map(|p| at(a, i / n, p) * at(b, p, i % n)).sum();
                        let want = sum + if accumulate { f64::from(*start) } else { 0.0 };
                        assert!((f64::from(*got) - want).abs() < 1e-4, "{m} {n} {k}: {got} {want}");
                    }
                }
            }
        }
    }
}
