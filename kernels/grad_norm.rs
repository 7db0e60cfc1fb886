//! The global norm of all gradients, in two stages of fixed order: partial sums of squares a
//! block of 4,096 values, in double precision, then the partial sums in order.

use rayon::prelude::*;

use crate::Tensor;
use crate::vector::{LANES, dispatch, load};

const BLOCK: usize = 4096;

/// `sqrt(Σ g²)` over all tensors. `partial` is scratch, kept by the caller to avoid allocation.
pub fn forward<'a>(gradients: impl Iterator<Item = &'a Tensor>, partial: &mut Vec<f64>) -> f64 {
    let mut total = 0.0;
    for g in gradients {
        let g = g.f32();
        partial.clear();
        partial.resize(g.len().div_ceil(BLOCK), 0.0);
        if g.len() <= 4 * BLOCK {
            g.chunks(BLOCK).zip(partial.iter_mut()).for_each(|(g, p)| *p = squares(g));
        } else {
            let blocks = g.par_chunks(BLOCK).zip(partial.par_iter_mut());
            blocks.with_min_len(4).for_each(|(g, p)| *p = squares(g));
        }
        total += partial.iter().sum::<f64>();
    }
    total.sqrt()
}

/// `Σ g²` of one block: sixteen lanes in single precision within a row of 256 values, then double.
fn squares(g: &[f32]) -> f64 {
    dispatch(
        #[inline(always)]
        || {
            let mut total = 0.0f64;
            for part in g.chunks(256) {
                let mut acc = [0.0f32; LANES];
                let chunks = part.chunks_exact(LANES);
                let tail = chunks.remainder();
                for chunk in chunks {
                    let v = load(chunk);
                    for l in 0..LANES {
                        acc[l] = v[l].mul_add(v[l], acc[l]);
                    }
                }
                for (l, v) in tail.iter().enumerate() {
                    acc[l] = v.mul_add(*v, acc[l]);
                }
                for a in acc {
                    total += f64::from(a);
                }
            }
            total
        },
    )
}
