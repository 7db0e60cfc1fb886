//! AdamW with decoupled weight decay (Loshchilov and Hutter 2019), one tensor at a time.

use rayon::prelude::*;

use crate::Tensor;
use crate::vector::dispatch;

/// The numbers of one update. `bias1 = 1 − β1^t`, `bias2 = 1 − β2^t` with `t` counted from 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Update {
    /// Learning rate of this step.
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Weight decay of this tensor: 0 for norms and biases.
    pub weight_decay: f32,
    pub bias1: f32,
    pub bias2: f32,
    /// Factor on the gradient: 1, or less where the global norm is clipped.
    pub scale: f32,
}

/// Values of a task.
const BLOCK: usize = 1 << 14;

/// `m = β1 m + (1−β1) g`, `v = β2 v + (1−β2) g²`,
/// `w ← w (1 − lr·decay) − lr (m/bias1) / (sqrt(v/bias2) + eps)`; then the gradient is zeroed.
pub fn forward(w: &mut Tensor, g: &mut Tensor, m: &mut Tensor, v: &mut Tensor, update: Update) {
    let n = w.len();
    assert!(g.len() == n && m.len() == n && v.len() == n, "shapes agree");
    slices(w.f32_mut(), g.f32_mut(), m.f32_mut(), v.f32_mut(), update);
}

/// [`forward`] of a part of a tensor in host memory: a rank's share.
pub fn slices(w: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], update: Update) {
    let n = w.len();
    assert!(g.len() == n && m.len() == n && v.len() == n, "shapes agree");
    if n <= 2 * BLOCK {
        block(w, g, m, v, update);
    } else {
        w.par_chunks_mut(BLOCK)
            .zip(g.par_chunks_mut(BLOCK))
            .zip(m.par_chunks_mut(BLOCK))
            .zip(v.par_chunks_mut(BLOCK))
            .for_each(|(((w, g), m), v)| block(w, g, m, v, update));
    }
}

fn block(w: &mut [f32], g: &mut [f32], m: &mut [f32], v: &mut [f32], u: Update) {
    dispatch(
        #[inline(always)]
        || {
            let keep = 1.0 - u.lr * u.weight_decay;
            let (step, unbias) = (u.lr / u.bias1, 1.0 / u.bias2);
            for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                let grad = *g * u.scale;
                *m = u.beta1 * *m + (1.0 - u.beta1) * grad;
                *v = u.beta2 * *v + (1.0 - u.beta2) * grad * grad;
                *w = *w * keep - step * *m / ((*v * unbias).sqrt() + u.eps);
                *g = 0.0;
            }
        },
    );
}
