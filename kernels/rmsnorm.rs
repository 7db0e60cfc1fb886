//! RMSNorm (Zhang and Sennrich 2019), fused with the addition of the residual branch:
//! `s = x + b`, `y = s / sqrt(mean(s²) + eps) ⊙ w`.

use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::{LANES, dispatch, dot, load, splat, sum};
use crate::{Tensor, matmul};

/// `y = rmsnorm(x) ⊙ w`, `[T, C]`; `rstd` `[1, T]` keeps `1 / sqrt(mean(x²) + eps)` for the backward.
pub fn forward(y: &mut Tensor, rstd: &mut Tensor, x: &Tensor, w: &Tensor, eps: f32) {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(y.rows() == rows && y.cols() == cols && w.len() == cols && rstd.len() >= rows, "shapes agree");
    let (x, w) = (x.f32(), w.f32());
    let (y, rstd) = (Shared::new(y.f32_mut()), Shared::new(rstd.f32_mut()));
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let (y, rstd) = unsafe { (y.slice(first * cols, n * cols), rstd.slice(first, n)) };
        dispatch(
            #[inline(always)]
            || {
                for ((x, y), rstd) in
                    x[first * cols..].chunks_exact(cols).zip(y.chunks_exact_mut(cols)).zip(rstd)
                {
                    normalize(y, rstd, x, w, eps);
                }
            },
        );
    });
}

/// `s = x + b`, then [`forward`] of `s`: the residual stream goes on in `s` `[T, C]`.
pub fn forward_residual(
    s: &mut Tensor,
    y: &mut Tensor,
    rstd: &mut Tensor,
    x: &Tensor,
    b: &Tensor,
    w: &Tensor,
    eps: f32,
) {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(b.rows() == rows && b.cols() == cols && s.rows() == rows && s.cols() == cols, "shapes agree");
    assert!(y.rows() == rows && y.cols() == cols && w.len() == cols && rstd.len() >= rows, "shapes agree");
    let (x, b, w) = (x.f32(), b.f32(), w.f32());
    let (s, y, rstd) = (Shared::new(s.f32_mut()), Shared::new(y.f32_mut()), Shared::new(rstd.f32_mut()));
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |i| {
        let first = i * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let (s, y, rstd) = unsafe {
            (s.slice(first * cols, n * cols), y.slice(first * cols, n * cols), rstd.slice(first, n))
        };
        let span = first * cols..(first + n) * cols;
        add_and_normalize(s, y, rstd, &x[span.clone()], &b[span], w, eps);
    });
}

/// `b = z wᵀ`, then [`forward_residual`] of it in one pass: `z` `[T, K]`, `projection` `[C, K]`; `b` is overwritten.
#[expect(clippy::too_many_arguments, reason = "a product's operands and a norm's")]
pub fn forward_residual_product(
    s: &mut Tensor,
    y: &mut Tensor,
    rstd: &mut Tensor,
    x: &Tensor,
    b: &mut Tensor,
    z: &Tensor,
    projection: &Tensor,
    w: &Tensor,
    eps: f32,
) {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(b.rows() == rows && b.cols() == cols && s.rows() == rows && s.cols() == cols, "shapes agree");
    assert!(y.rows() == rows && y.cols() == cols && w.len() == cols && rstd.len() >= rows, "shapes agree");
    let (x, w) = (x.f32(), w.f32());
    let (s, y, rstd) = (Shared::new(s.f32_mut()), Shared::new(y.f32_mut()), Shared::new(rstd.f32_mut()));
    matmul::forward_then(b, z, projection, |first, b| {
        let n = b.len() / cols;
        // SAFETY: each row is given once.
        let (s, y, rstd) = unsafe {
            (s.slice(first * cols, n * cols), y.slice(first * cols, n * cols), rstd.slice(first, n))
        };
        add_and_normalize(s, y, rstd, &x[first * cols..][..n * cols], b, w, eps);
    });
}

fn add_and_normalize(
    s: &mut [f32],
    y: &mut [f32],
    rstd: &mut [f32],
    x: &[f32],
    b: &[f32],
    w: &[f32],
    eps: f32,
) {
    let cols = w.len();
    dispatch(
        #[inline(always)]
        || {
            for (r, rstd) in rstd.iter_mut().enumerate() {
                let row = r * cols..(r + 1) * cols;
                let s = &mut s[row.clone()];
                for ((s, x), b) in s.iter_mut().zip(&x[row.clone()]).zip(&b[row.clone()]) {
                    *s = x + b;
                }
                normalize(&mut y[row], rstd, s, w, eps);
            }
        },
    );
}

#[inline(always)]
fn normalize(y: &mut [f32], rstd: &mut f32, x: &[f32], w: &[f32], eps: f32) {
    let scale = 1.0 / (dot(x, x) / x.len() as f32 + eps).sqrt();
    *rstd = scale;
    for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
        *y = x * scale * w;
    }
}

/// Backward of [`forward`]: *adds* the gradient of `x` to `dx` `[T, C]` (which so carries the
/// residual branch along) and that of the weight to `dw` `[1, C]`.
///
/// With `x̂ = x·rstd`: `dx += rstd (w⊙dy − x̂ mean(x̂⊙w⊙dy))`, `dw += Σ_t x̂⊙dy`, the sum taken block
/// by block in order. `partial` is scratch, resized here.
pub fn backward(
    dx: &mut Tensor,
    dw: &mut Tensor,
    partial: &mut Tensor,
    dy: &Tensor,
    x: &Tensor,
    rstd: &Tensor,
    w: &Tensor,
) {
    let (rows, cols) = (x.rows(), x.cols());
    assert!(dx.rows() == rows && dx.cols() == cols && dy.rows() == rows && dy.cols() == cols, "shapes agree");
    assert!(w.len() == cols && dw.len() == cols && rstd.len() >= rows, "shapes agree");
    let block = block_rows(cols);
    let blocks = rows.div_ceil(block);
    partial.reshape(blocks, cols);
    let (dy, x, rstd, w) = (dy.f32(), x.f32(), rstd.f32(), w.f32());
    let (dx, sums) = (Shared::new(dx.f32_mut()), Shared::new(partial.f32_mut()));
    for_each(blocks, |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap, nor do their partial sums.
        let (dx, sums) = unsafe { (dx.slice(first * cols, n * cols), sums.slice(b * cols, cols)) };
        dispatch(
            #[inline(always)]
            || {
                sums.fill(0.0);
                for (r, dx) in dx.chunks_exact_mut(cols).enumerate() {
                    let row = (first + r) * cols..(first + r + 1) * cols;
                    row_backward(dx, sums, &dy[row.clone()], &x[row], rstd[first + r], w);
                }
            },
        );
    });
    let dw = dw.f32_mut();
    for sums in partial.f32().chunks_exact(cols) {
        for (d, s) in dw.iter_mut().zip(sums) {
            *d += s;
        }
    }
}

#[inline(always)]
fn row_backward(dx: &mut [f32], sums: &mut [f32], dy: &[f32], x: &[f32], rstd: f32, w: &[f32]) {
    let cols = x.len();
    // mean(x̂ ⊙ w ⊙ dy), as x·(w⊙dy) scaled once.
    let mut acc = splat(0.0);
    let whole = cols / LANES * LANES;
    let mut i = 0;
    while i < whole {
        let (a, b, c) = (load(&x[i..]), load(&w[i..]), load(&dy[i..]));
        for l in 0..LANES {
            acc[l] = (a[l] * b[l]).mul_add(c[l], acc[l]);
        }
        i += LANES;
    }
    let mut total = sum(acc);
    while i < cols {
        total += x[i] * w[i] * dy[i];
        i += 1;
    }
    let mean = total * rstd / cols as f32;
    for i in 0..cols {
        let hat = x[i] * rstd;
        dx[i] += rstd * (w[i] * dy[i] - hat * mean);
        sums[i] += hat * dy[i];
    }
}
