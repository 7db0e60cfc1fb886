//! A bias row added to every row (the q/k/v bias of Qwen2), and its gradient.

use crate::Tensor;
use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::dispatch;

/// `y += b`: `y` `[T, N]`, `b` `[1, N]`.
pub fn forward(y: &mut Tensor, b: &Tensor) {
    let (rows, cols) = (y.rows(), y.cols());
    assert_eq!(b.len(), cols, "shapes agree");
    let b = b.f32();
    let y = Shared::new(y.f32_mut());
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |i| {
        let first = i * block;
        // SAFETY: blocks of rows do not overlap.
        let y = unsafe { y.slice(first * cols, block.min(rows - first) * cols) };
        for y in y.chunks_exact_mut(cols) {
            for (y, b) in y.iter_mut().zip(b) {
                *y += b;
            }
        }
    });
}

/// `db += Σ_t dy[t]`, block by block in order; `partial` is scratch, resized here.
pub fn backward(db: &mut Tensor, partial: &mut Tensor, dy: &Tensor) {
    let (rows, cols) = (dy.rows(), dy.cols());
    assert_eq!(db.len(), cols, "shapes agree");
    let block = block_rows(cols);
    let blocks = rows.div_ceil(block);
    partial.reshape(blocks, cols);
    let dy = dy.f32();
    let sums = Shared::new(partial.f32_mut());
    for_each(blocks, |b| {
        // SAFETY: one row of partial sums a block.
        let sums = unsafe { sums.slice(b * cols, cols) };
        dispatch(
            #[inline(always)]
            || {
                sums.fill(0.0);
                for dy in dy[b * block * cols..].chunks_exact(cols).take(block) {
                    for (s, d) in sums.iter_mut().zip(dy) {
                        *s += d;
                    }
                }
            },
        );
    });
    let db = db.f32_mut();
    for sums in partial.f32().chunks_exact(cols) {
        for (d, s) in db.iter_mut().zip(sums) {
            *d += s;
        }
    }
}
