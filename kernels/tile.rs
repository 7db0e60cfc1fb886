//! The inner product tile that attention is made of: a few rows of `A` against a few registers'
//! width of `B`, the sums held in registers. Each element is summed over `k` in ascending order by
//! fused multiply-adds, so it never depends on its neighbours.

use pulp::Simd;

/// Columns of one call of [`product`]: operands are padded to a multiple of it.
pub(crate) const COLUMNS: usize = 32;
/// Rows of one call of [`product`].
pub(crate) const ROWS: usize = 8;

/// A left operand `[ROWS, k]` read through strides, so that a transpose costs nothing.
#[derive(Clone, Copy)]
pub(crate) struct Left<'a> {
    pub data: &'a [f32],
    pub row: usize,
    pub col: usize,
}

/// `c (+)= a · b` for `c` `[8, n]` with row stride `ldc`, `a` `[8, k]`, `b` `[k, n]` with row
/// stride `ldb`; `n` is a multiple of [`COLUMNS`].
#[expect(clippy::too_many_arguments, reason = "the operands of a matrix product")]
#[inline(always)]
pub(crate) fn product<S: Simd>(
    simd: S,
    c: &mut [f32],
    ldc: usize,
    a: Left,
    b: &[f32],
    ldb: usize,
    k: usize,
    n: usize,
    accumulate: bool,
) {
    assert!(n.is_multiple_of(COLUMNS) && n <= ldc && n <= ldb && c.len() >= 7 * ldc + n);
    assert!(k > 0 && b.len() >= (k - 1) * ldb + n && a.data.len() > 7 * a.row + (k - 1) * a.col);
    // SAFETY: the assertions above bound every access of the tiles below.
    unsafe {
        let (c, a, b) = (c.as_mut_ptr(), (a.data.as_ptr(), a.row, a.col), b.as_ptr());
        if S::F32_LANES == 16 {
            for j in (0..n).step_by(32) {
                tile::<S, 8, 2>(simd, c.add(j), ldc, a, b.add(j), ldb, k, accumulate);
            }
        } else {
            for i in [0, 4] {
                let step = 2 * S::F32_LANES;
                for j in (0..n).step_by(step) {
                    let a = (a.0.add(i * a.1), a.1, a.2);
                    tile::<S, 4, 2>(simd, c.add(i * ldc + j), ldc, a, b.add(j), ldb, k, accumulate);
                }
            }
        }
    }
}

/// # Safety
/// `R` rows and `N` registers of `c`, `R × k` of `a` and `k` rows of `N` registers of `b` are in
/// bounds.
#[expect(clippy::too_many_arguments, reason = "the operands of a matrix product")]
#[inline(always)]
unsafe fn tile<S: Simd, const R: usize, const N: usize>(
    simd: S,
    c: *mut f32,
    ldc: usize,
    a: (*const f32, usize, usize),
    b: *const f32,
    ldb: usize,
    k: usize,
    accumulate: bool,
) {
    let mut acc = [[simd.splat_f32s(0.0); N]; R];
    // SAFETY: by the caller's promise.
    unsafe {
        if accumulate {
            for (r, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = c.add(r * ldc + j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
                }
            }
        }
        for p in 0..k {
            let mut row = [simd.splat_f32s(0.0); N];
            for (j, row) in row.iter_mut().enumerate() {
                *row = b.add(p * ldb + j * S::F32_LANES).cast::<S::f32s>().read_unaligned();
            }
            for (r, acc) in acc.iter_mut().enumerate() {
                let x = simd.splat_f32s(*a.0.add(r * a.1 + p * a.2));
                for (acc, row) in acc.iter_mut().zip(row) {
                    *acc = simd.mul_add_f32s(x, row, *acc);
                }
            }
        }
        for (r, acc) in acc.iter().enumerate() {
            for (j, acc) in acc.iter().enumerate() {
                c.add(r * ldc + j * S::F32_LANES).cast::<S::f32s>().write_unaligned(*acc);
            }
        }
    }
}
