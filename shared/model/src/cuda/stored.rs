//! Weights in device memory as files see them: `f32` values, slot by slot, so that the whole is never
//! in host memory.

use std::borrow::Cow;

use bytemuck::cast_slice;
use cognate_kernels::cuda::accelerator::{Accelerator, read, write};
use cognate_kernels::cuda::launch::Matrix;
use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::files::{Fill, Sink, Source};
use crate::weights::{Slot, Weights};
use crate::{LlamaConfig, ModelError};

/// The values of `slot`, as a row.
pub(crate) fn place(weights: &Weights<Matrix>, slot: &Slot) -> Matrix {
    weights.tensors()[slot.tensor].part(slot.offset, 1, slot.len())
}

/// bf16 weights, and where there are remainders, 16 bits more that make them exact: the weight is the
/// value rounded to nearest (ties away from zero), the remainder what is left of its bits.
pub(crate) struct Masters<'m> {
    pub on: &'m dyn Accelerator,
    pub weights: &'m Weights<Matrix>,
    pub remainders: Option<&'m Weights<Matrix>>,
}

fn split(value: f32) -> (u16, u16) {
    // The carry of the rounding goes into the exponent, as it should; only NaN and the largest values
    // would be spoilt, and no weight is one.
    let high = value.to_bits().wrapping_add(0x8000) >> 16;
    (high as u16, value.to_bits().wrapping_sub(high << 16) as u16)
}

fn join(high: u16, low: u16) -> f32 {
    f32::from_bits((u32::from(high) << 16).wrapping_add(i32::from(low as i16) as u32))
}

impl Sink for Masters<'_> {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        self.weights.slots(config)
    }

    fn put(&mut self, slot: &Slot, fill: Fill<'_>) -> Result<(), ModelError> {
        let mut values = vec![0.0; slot.len()];
        fill(&mut values)?;
        let (high, low): (Vec<u16>, Vec<u16>) = values.iter().map(|&x| split(x)).unzip();
        write(self.on, place(self.weights, slot), &high)?;
        if let Some(remainders) = self.remainders {
            write(self.on, place(remainders, slot), &low)?;
        }
        Ok(())
    }
}

impl Source for Masters<'_> {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        self.weights.slots(config)
    }

    fn values(&self, slot: &Slot) -> Result<Cow<'_, [f32]>, ModelError> {
        let high: Vec<u16> = read(self.on, place(self.weights, slot))?;
        let low: Vec<u16> = match self.remainders {
            Some(remainders) => read(self.on, place(remainders, slot))?,
            None => vec![0; high.len()],
        };
        Ok(Cow::Owned(high.iter().zip(&low).map(|(&h, &l)| join(h, l)).collect()))
    }
}

/// bf16 alone: gradients, and moments, whose files hold exactly what the device held.
pub(crate) struct Halves<'m> {
    pub on: &'m dyn Accelerator,
    pub weights: &'m Weights<Matrix>,
}

impl Sink for Halves<'_> {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        self.weights.slots(config)
    }

    fn put(&mut self, slot: &Slot, fill: Fill<'_>) -> Result<(), ModelError> {
        put_halves(self.on, place(self.weights, slot), fill)
    }
}

impl Source for Halves<'_> {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        self.weights.slots(config)
    }

    fn values(&self, slot: &Slot) -> Result<Cow<'_, [f32]>, ModelError> {
        Ok(Cow::Owned(halves(self.on, place(self.weights, slot))?))
    }
}

/// Fills a matrix of bf16.
pub(super) fn put_halves(on: &dyn Accelerator, to: Matrix, fill: Fill<'_>) -> Result<(), ModelError> {
    let mut values = vec![0.0; to.len()];
    fill(&mut values)?;
    let mut halves = vec![bf16::ZERO; values.len()];
    halves.convert_from_f32_slice(&values);
    Ok(write::<u16>(on, to, cast_slice(&halves))?)
}

/// The values of a matrix of bf16.
pub(super) fn halves(on: &dyn Accelerator, from: Matrix) -> Result<Vec<f32>, ModelError> {
    let halves: Vec<u16> = read(on, from)?;
    Ok(halves.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_is_exact_and_its_weight_nearest() {
        for bits in (0..0x7f7f_0000u32).step_by(99_991).chain([1, 0x7fff, 0x8000, 0x8001, 0x3f80_ffff]) {
            for sign in [0, 1 << 31] {
                let value = f32::from_bits(bits | sign);
                let (high, low) = split(value);
                assert_eq!(join(high, low).to_bits(), value.to_bits());
                let weight = f32::from_bits(u32::from(high) << 16);
                let step = f32::from_bits((bits & 0xff80_0000).max(0x0080_0000)) / 256.0;
                assert!((weight - value).abs() <= step, "{value:e} as {weight:e}");
            }
        }
    }
}
