//! The classifier's head on a chunk of logits: log-probability and entropy a row, then the
//! gradient in place. The model calls it chunk by chunk, so the logits are never whole.
//!
//! Between the two calls the chunk holds `e^(l/τ − max)` instead of logits, so that each side is
//! one pass.

use crate::Tensor;
use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::{LANES, dispatch, exp1, maximum, splat, sum, update};

/// What [`forward`] leaves a row: `[log p(target), entropy in nats, 1 / Σ e^(l/τ − max)]`.
pub type Row = [f32; 3];

/// Turns `logits` `[R, V]` in place into `e^(l/τ − max)` and fills `rows` (one a row) for
/// `targets` (one a row, below `V`) at temperature `τ > 0`.
pub fn forward(logits: &mut Tensor, rows: &mut [Row], targets: &[u32], temperature: f32) {
    let (n, vocabulary) = (logits.rows(), logits.cols());
    assert!(rows.len() == n && targets.len() == n, "shapes agree");
    assert!(targets.iter().all(|&t| (t as usize) < vocabulary), "targets lie in the vocabulary");
    let inverse = 1.0 / temperature;
    let (logits, rows) = (Shared::new(logits.f32_mut()), Shared::new(rows));
    let block = block_rows(vocabulary);
    for_each(n.div_ceil(block), |b| {
        let first = b * block;
        let count = block.min(n - first);
        // SAFETY: blocks of rows do not overlap.
        let (logits, rows) =
            unsafe { (logits.slice(first * vocabulary, count * vocabulary), rows.slice(first, count)) };
        dispatch(
            #[inline(always)]
            || {
                for ((l, row), &target) in
                    logits.chunks_exact_mut(vocabulary).zip(rows).zip(&targets[first..])
                {
                    *row = row_forward(l, target as usize, inverse);
                }
            },
        );
    });
}

#[inline(always)]
fn row_forward(l: &mut [f32], target: usize, inverse: f32) -> Row {
    let top = maximum(l) * inverse;
    let at = l[target].mul_add(inverse, -top);
    // Σ e^x and Σ x e^x with x = l/τ − max.
    let (mut total, mut weighted) = (splat(0.0), splat(0.0));
    // The padding's exponential is 0; its x is finite, so that 0·x is 0.
    update(
        l,
        f32::MIN,
        #[inline(always)]
        |mut v| {
            for i in 0..LANES {
                let x = v[i].mul_add(inverse, -top).max(f32::MIN);
                v[i] = exp1(x);
                total[i] += v[i];
                weighted[i] = x.mul_add(v[i], weighted[i]);
            }
            v
        },
    );
    let (total, weighted) = (sum(total), sum(weighted));
    let log_total = total.ln();
    [at - log_total, log_total - weighted / total, 1.0 / total]
}

/// Turns what [`forward`] left into the gradient of the logits: `dl = (1[target] − p) dlogp / τ`,
/// `dlogp` being the derivative of the loss by the target's log-probability, one a row.
pub fn backward(logits: &mut Tensor, rows: &[Row], dlogp: &[f32], targets: &[u32], temperature: f32) {
    let (n, vocabulary) = (logits.rows(), logits.cols());
    assert!(rows.len() == n && targets.len() == n && dlogp.len() == n, "shapes agree");
    let inverse = 1.0 / temperature;
    let logits = Shared::new(logits.f32_mut());
    let block = block_rows(vocabulary);
    for_each(n.div_ceil(block), |b| {
        let first = b * block;
        let count = block.min(n - first);
        // SAFETY: blocks of rows do not overlap.
        let logits = unsafe { logits.slice(first * vocabulary, count * vocabulary) };
        dispatch(
            #[inline(always)]
            || {
                for (r, l) in logits.chunks_exact_mut(vocabulary).enumerate() {
                    let g = dlogp[first + r] * inverse;
                    let scale = -g * rows[first + r][2];
                    for l in l.iter_mut() {
                        *l *= scale;
                    }
                    l[targets[first + r] as usize] += g;
                }
            },
        );
    });
}
