//! Rotary position embedding (Su et al. 2021) in the Hugging Face layout: channel `i` of a head is
//! paired with channel `i + D/2`. Queries and keys are rotated in place inside the fused
//! `[q heads | k heads | v heads]` rows; the backward is the rotation by the opposite angle.

use crate::parallel::{Shared, block_rows, for_each};
use crate::vector::dispatch;
use crate::{Device, Tensor, matmul};

/// How the frequencies are stretched beyond the length a model was first trained on.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub enum Scaling {
    /// As trained.
    #[default]
    None,
    /// Every position divided by `factor` (Chen et al. 2023).
    Linear { factor: f64 },
    /// Dynamic NTK: sets in beyond the longest position, which no caller here goes; as trained up to there.
    Dynamic { factor: f64 },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position: f64 },
}

/// Cosines and sines by position, `[positions, D/2]` each; grown on demand by [`Table::reserve`].
#[derive(Clone, Debug)]
pub struct Table {
    cos: Tensor,
    sin: Tensor,
    frequencies: Vec<f32>,
}

impl Table {
    /// A table without positions for heads of `head_dim` channels (even) and base `theta`.
    pub fn new(device: Device, head_dim: usize, theta: f64, scaling: Scaling) -> Self {
        let half = head_dim / 2;
        // Single precision for frequency and angle, as transformers computes them: at position
        // 100,000 the difference to double precision is visible.
        let frequencies =
            (0..half).map(|i| scale(1.0 / theta.powf(i as f64 / half as f64), scaling) as f32).collect();
        Table { cos: Tensor::zeros(device, 0, half), sin: Tensor::zeros(device, 0, half), frequencies }
    }

    /// Makes positions `0..positions` available.
    pub fn reserve(&mut self, positions: usize) {
        let (have, half) = (self.cos.rows(), self.frequencies.len());
        if positions <= have {
            return;
        }
        let positions = positions.next_power_of_two();
        self.cos.set_rows(positions);
        self.sin.set_rows(positions);
        let (cos, sin) = (self.cos.f32_mut(), self.sin.f32_mut());
        for p in have..positions {
            for (i, f) in self.frequencies.iter().enumerate() {
                let angle = f64::from(p as f32 * f);
                cos[p * half + i] = angle.cos() as f32;
                sin[p * half + i] = angle.sin() as f32;
            }
        }
    }

    /// Positions available so far.
    pub fn positions(&self) -> usize {
        self.cos.rows()
    }

    /// Cosines and sines, `[positions, D/2]` each: for devices, which keep a copy.
    pub fn values(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}

fn scale(frequency: f64, scaling: Scaling) -> f64 {
    match scaling {
        Scaling::None | Scaling::Dynamic { .. } => frequency,
        Scaling::Linear { factor } => frequency / factor,
        Scaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
            let wavelength = 2.0 * std::f64::consts::PI / frequency;
            if wavelength < original_max_position / high_freq_factor {
                frequency
            } else if wavelength > original_max_position / low_freq_factor {
                frequency / factor
            } else {
                let smooth = (original_max_position / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                (1.0 - smooth) * frequency / factor + smooth * frequency
            }
        }
    }
}

/// Rotates the first `heads` heads (queries and keys) of each row of `qkv` `[T, *]` by the angles
/// of `positions` `[T]`.
pub fn forward(qkv: &mut Tensor, heads: usize, positions: &[u32], table: &Table) {
    rotate(qkv, heads, positions, table, 1.0);
}

/// Rotates gradients back: the transpose of [`forward`].
pub fn backward(dqkv: &mut Tensor, heads: usize, positions: &[u32], table: &Table) {
    rotate(dqkv, heads, positions, table, -1.0);
}

/// `qkv = x wᵀ (+ b)`, then [`forward`] of it in one pass: `x` `[T, C]`, `w` `[*, C]`, `b` `[1, *]`.
pub fn forward_product(
    qkv: &mut Tensor,
    x: &Tensor,
    w: &Tensor,
    b: Option<&Tensor>,
    heads: usize,
    positions: &[u32],
    table: &Table,
) {
    let cols = qkv.cols();
    assert!(positions.len() == x.rows() && heads * 2 * table.cos.cols() <= cols, "shapes agree");
    assert!(b.is_none_or(|b| b.len() == cols), "shapes agree");
    matmul::forward_then(qkv, x, w, |row, rows| {
        if let Some(b) = b {
            for y in rows.chunks_exact_mut(cols) {
                y.iter_mut().zip(b.f32()).for_each(|(y, b)| *y += b);
            }
        }
        rotate_rows(rows, cols, heads, &positions[row..], table, 1.0);
    });
}

fn rotate(qkv: &mut Tensor, heads: usize, positions: &[u32], table: &Table, sign: f32) {
    let (rows, cols, half) = (qkv.rows(), qkv.cols(), table.cos.cols());
    assert!(positions.len() == rows && heads * 2 * half <= cols, "shapes agree");
    let qkv = Shared::new(qkv.f32_mut());
    let block = block_rows(cols);
    for_each(rows.div_ceil(block), |b| {
        let first = b * block;
        let n = block.min(rows - first);
        // SAFETY: blocks of rows do not overlap.
        let qkv = unsafe { qkv.slice(first * cols, n * cols) };
        rotate_rows(qkv, cols, heads, &positions[first..], table, sign);
    });
}

fn rotate_rows(qkv: &mut [f32], cols: usize, heads: usize, positions: &[u32], table: &Table, sign: f32) {
    let (cos, sin, half) = (table.cos.f32(), table.sin.f32(), table.cos.cols());
    dispatch(
        #[inline(always)]
        || {
            for (row, &p) in qkv.chunks_exact_mut(cols).zip(positions) {
                let at = p as usize * half;
                let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
                for head in row[..heads * 2 * half].chunks_exact_mut(2 * half) {
                    let (lo, hi) = head.split_at_mut(half);
                    for (((lo, hi), cos), sin) in lo.iter_mut().zip(hi).zip(cos).zip(sin) {
                        let (a, b, sin) = (*lo, *hi, sin * sign);
                        *lo = a * cos - b * sin;
                        *hi = b * cos + a * sin;
                    }
                }
            }
        },
    );
}
