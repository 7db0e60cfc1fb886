//! One vector a document from the hidden states of its tokens, for the prober.

use crate::Tensor;
use crate::vector::dispatch;

/// `y[d] = mean over the document's tokens of x`: `y` `[docs, C]` (resized), `x` `[T, C]`.
/// An empty document gives zeros.
pub fn mean(y: &mut Tensor, x: &Tensor, starts: &[u32]) {
    let cols = x.cols();
    y.reshape(starts.len().saturating_sub(1), cols);
    let x = x.f32();
    for (y, span) in y.f32_mut().chunks_exact_mut(cols).zip(starts.windows(2)) {
        let (first, end) = (span[0] as usize, span[1] as usize);
        dispatch(
            #[inline(always)]
            || {
                y.fill(0.0);
                for x in x[first * cols..end * cols].chunks_exact(cols) {
                    for (y, x) in y.iter_mut().zip(x) {
                        *y += x;
                    }
                }
                let scale = 1.0 / (end - first).max(1) as f32;
                for y in y {
                    *y *= scale;
                }
            },
        );
    }
}

/// `y[d] = x` of the document's last token: `y` `[docs, C]` (resized). An empty document gives
/// zeros.
pub fn last(y: &mut Tensor, x: &Tensor, starts: &[u32]) {
    let cols = x.cols();
    y.reshape(starts.len().saturating_sub(1), cols);
    for (d, span) in starts.windows(2).enumerate() {
        let row = &mut y.f32_mut()[d * cols..(d + 1) * cols];
        if span[0] == span[1] {
            row.fill(0.0);
        } else {
            row.copy_from_slice(x.row(span[1] as usize - 1));
        }
    }
}
