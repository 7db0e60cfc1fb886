//! Token embedding: rows of a table, and the gradient that adds back to them.

use crate::Tensor;
use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::dispatch;

/// `y[t] = table[tokens[t]]`: `y` `[T, C]`, `table` `[V, C]`. Tokens must be below `V`.
pub fn forward(y: &mut Tensor, table: &Tensor, tokens: &[u32]) {
    let (rows, cols) = (y.rows(), y.cols());
    assert!(tokens.len() == rows && table.cols() == cols, "shapes agree");
    let table = table.f32();
    let y = Shared::new(y.f32_mut());
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let y = unsafe { y.slice(first * cols, n * cols) };
        for (y, &token) in y.chunks_exact_mut(cols).zip(&tokens[first..]) {
            y.copy_from_slice(&table[token as usize * cols..][..cols]);
        }
    });
}

/// `dtable[tokens[t]] += dy[t]`. Tasks own blocks of channels and walk the tokens in order, so
/// the sum's order is the tokens' own.
pub fn backward(dtable: &mut Tensor, dy: &Tensor, tokens: &[u32]) {
    let (rows, cols, vocabulary) = (dy.rows(), dy.cols(), dtable.rows());
    assert!(tokens.len() == rows && dtable.cols() == cols, "shapes agree");
    assert!(tokens.iter().all(|&t| (t as usize) < vocabulary), "tokens lie in the vocabulary");
    const BLOCK: usize = 64;
    let dy = dy.f32();
    let dtable = Shared::new(dtable.f32_mut());
    for_each(cols.div_ceil(BLOCK), |b| {
        let first = b * BLOCK;
        let n = BLOCK.min(cols - first);
        dispatch(
            #[inline(always)]
            || {
                for (t, &token) in tokens.iter().enumerate() {
                    // SAFETY: blocks of channels do not overlap.
                    let row = unsafe { dtable.slice(token as usize * cols + first, n) };
                    for (d, g) in row.iter_mut().zip(&dy[t * cols + first..][..n]) {
                        *d += g;
                    }
                }
            },
        );
    });
}
