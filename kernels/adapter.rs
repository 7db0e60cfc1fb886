//! What low-rank adapters (Hu et al. 2021) need besides matrix products.

use rayon::prelude::*;

use crate::vector::dispatch;

/// Values of a task.
const BLOCK: usize = 1 << 14;

/// `out = scale · x`: an operand of the products that give the factors' gradients.
pub fn operand(out: &mut [f32], x: &[f32], scale: f32) {
    assert_eq!(out.len(), x.len(), "shapes agree");
    let block = |(out, x): (&mut [f32], &[f32])| {
        dispatch(
            #[inline(always)]
            || out.iter_mut().zip(x).for_each(|(out, x)| *out = scale * x),
        );
    };
    out.par_chunks_mut(BLOCK).zip(x.par_chunks(BLOCK)).for_each(block);
}

/// `w = base + scale · delta`: what a product of factors makes of frozen weights.
pub fn merge(w: &mut [f32], base: &[f32], delta: &[f32], scale: f32) {
    assert!(base.len() == w.len() && delta.len() == w.len(), "shapes agree");
    let block = |((w, base), delta): ((&mut [f32], &[f32]), &[f32])| {
        dispatch(
            #[inline(always)]
            || {
                for ((w, base), delta) in w.iter_mut().zip(base).zip(delta) {
                    *w = base + scale * delta;
                }
            },
        );
    };
    w.par_chunks_mut(BLOCK).zip(base.par_chunks(BLOCK)).zip(delta.par_chunks(BLOCK)).for_each(block);
}
