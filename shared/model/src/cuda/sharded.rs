//! AdamW of a data-parallel run of devices, as [`crate::ShardedAdamW`] is of processes on the CPU: each rank adds up the
//! gradients of its share of every tensor, holds the moments of that share alone, updates it and gives the
//! weights to the others. What is computed of a share is what [`super::AdamW`] computes of it, random rounding
//! included.
//!
//! Gradients and weights go from device to device in 16 bits; the norm and whatever the ranks agree on go through the
//! host, where the sums are in the order of the ranks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use cognate_collective::{self as collective, Collective, DeviceSlice, SharedMemory};
use cognate_kernels::cuda::accelerator::{Accelerator, clear, read, write};
use cognate_kernels::cuda::arena::Arena;
use cognate_kernels::cuda::launch::{Element, Matrix};
use cognate_kernels::cuda::ops::{self, NORM_BLOCK, State, Step};

use super::optimizer::{Span, split, step, steps_of};
use super::stored::{halves, place, put_halves};
use super::{Model, Trainer};
use crate::files::{Fill, Sink, Source, read_sets, write_weights};
use crate::weights::{Slot, Weights};
use crate::{AdamWConfig, Dtype, LlamaConfig, ModelError, StepReport};

/// Collectives between devices.
pub type Devices = dyn Collective<Values = DeviceSlice>;

/// First and second moments of this rank's share of each tensor, and the number of steps taken.
pub struct ShardedAdamW {
    config: AdamWConfig,
    rank: usize,
    size: usize,
    /// This rank's share of each tensor, in values: whole 16 bytes.
    shares: Vec<Range<usize>>,
    /// `[1, share]` bf16 a tensor.
    first: Vec<Matrix>,
    second: Vec<Matrix>,
    /// `[1, 2]`: norm and clip factor; first stage of the norm.
    norm: Matrix,
    partial: Matrix,
    arena: Arena,
    steps: u64,
    moving: Vec<Span>,
    frozen: Vec<Slot>,
}

impl ShardedAdamW {
    /// Zero moments for rank `rank` of `size`, of `model`, which is for training.
    ///
    /// # Errors
    /// Too little device memory; the message says how much is wanted.
    pub fn new(model: &Model, config: AdamWConfig, rank: usize, size: usize) -> Result<Self, ModelError> {
        let weights = model.weights.tensors();
        let share = |w: &&Matrix| DeviceSlice::share(w.len(), collective::Element::Bf16, rank, size);
        let shares: Vec<Range<usize>> = weights.iter().map(share).collect();
        let blocks = shares.iter().map(|own| own.len().div_ceil(NORM_BLOCK)).sum();
        let (arena, (first, second, norm, partial)) =
            Arena::new(model.device(), "optimizer state", |layout| {
                let mut set = || -> Vec<Matrix> {
                    shares.iter().map(|own| layout.take(Element::Bf16, 1, own.len())).collect()
                };
                let (first, second) = (set(), set());
                (first, second, layout.take(Element::F32, 1, 2), layout.take(Element::F64, 1, blocks))
            })?;
        for &moments in first.iter().chain(&second) {
            clear(model.on(), moments)?;
        }
        let moving = weights.iter().enumerate().map(|(i, w)| (i, 0, w.len())).collect();
        let frozen = Vec::new();
        let steps = 0;
        Ok(ShardedAdamW {
            config,
            rank,
            size,
            shares,
            first,
            second,
            norm,
            partial,
            arena,
            steps,
            moving,
            frozen,
        })
    }

    /// As [`super::AdamW::freeze`]; every rank freezes the same.
    pub fn freeze(&mut self, model: &Model, matches: impl Fn(&str) -> bool) -> usize {
        (self.frozen, self.moving) = split(model, matches);
        self.frozen.iter().map(Slot::len).sum()
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    /// As [`super::AdamW::step`], on the sum of all ranks' gradients. Every rank's weights are the same after it; their
    /// remainders are right for the rank's own share until [`Self::gather`].
    ///
    /// # Errors
    /// When another rank has ended, or the device fails.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        host: &mut SharedMemory,
        devices: &mut Devices,
        lr: f32,
        max_norm: Option<f32>,
    ) -> Result<StepReport, ModelError> {
        for (rank, size) in [(host.rank(), host.size()), (devices.rank(), devices.size())] {
            assert_eq!((rank, size), (self.rank, self.size), "a state belongs to its rank");
        }
        let on = model.on();
        let gradients = trainer.gradients();
        for slot in &self.frozen {
            clear(on, place(gradients, slot))?;
        }
        let all: Vec<Matrix> = gradients.tensors().into_iter().copied().collect();
        on.synchronize()?;
        for &gradient in &all {
            // SAFETY: what was launched has ended, and nothing is until the call returns.
            devices.reduce_scatter(&mut unsafe { slice(gradient) })?;
        }
        let own: Vec<Matrix> =
            all.iter().zip(&self.shares).map(|(g, own)| g.part(own.start, 1, own.len())).collect();
        let sums = ops::grad_squares(on, self.partial, &own)?;
        let squares: Vec<f64> = read(on, self.partial.part(0, 1, sums))?;
        let mut total = [squares.iter().sum()];
        host.all_reduce_f64(&mut total)?;
        let norm = total[0].sqrt();
        if !norm.is_finite() {
            trainer.zero_gradients(model)?;
            return Ok(StepReport { gradient_norm: norm, clipped: false });
        }
        let limit = max_norm.map_or(f64::INFINITY, f64::from);
        let clipped = norm > limit;
        let factor = if clipped { (limit / norm) as f32 } else { 1.0 };
        write(on, self.norm, &[norm as f32, factor])?;
        self.steps += 1;
        model.scattered = self.size > 1;
        self.update(model, &own, lr)?;
        let on = model.on();
        on.synchronize()?;
        for &weights in &model.weights.tensors() {
            // SAFETY: as above.
            devices.all_gather(&mut unsafe { slice(*weights) })?;
        }
        trainer.zero_gradients(model)?;
        Ok(StepReport { gradient_norm: norm, clipped })
    }

    /// Updates this rank's shares by their gradients `own`, times the factor on the device.
    fn update(&self, model: &Model, own: &[Matrix], lr: f32) -> Result<(), ModelError> {
        let weights = model.weights.tensors();
        let remainders = model.remainders.as_ref().map(Weights::tensors);
        for &(tensor, offset, len) in &self.moving {
            let share = &self.shares[tensor];
            let (start, end) = (offset.max(share.start), (offset + len).min(share.end));
            if start >= end {
                continue;
            }
            let of_tensor = |m: &Matrix| m.part(start, 1, end - start);
            let of_share = |m: &Matrix| m.part(start - share.start, 1, end - start);
            let state = State {
                w: of_tensor(weights[tensor]),
                remainder: remainders.as_ref().map(|r| of_tensor(r[tensor])),
                g: of_share(&own[tensor]),
                m: of_share(&self.first[tensor]),
                v: of_share(&self.second[tensor]),
            };
            // Random bits by the place in the whole, so that they are those of a run of one rank.
            let first = ((start - offset) / Element::Bf16.pack()) as u64;
            let whole = step(self.config, lr, self.steps, weights[tensor].rows, (tensor, offset));
            ops::adamw(model.on(), state, self.norm, Step { first, ..whole })?;
        }
        Ok(())
    }

    /// Brings every rank's masters to all the others; all take part. To be called before a model is read or saved.
    ///
    /// # Errors
    /// When another rank has ended, or the device fails.
    pub fn gather(&self, model: &mut Model, devices: &mut Devices) -> Result<(), ModelError> {
        if !model.scattered {
            return Ok(());
        }
        model.on().synchronize()?;
        for &remainders in model.remainders.iter().flat_map(Weights::tensors) {
            // SAFETY: what was launched has ended, and nothing is until the call returns.
            devices.all_gather(&mut unsafe { slice(remainders) })?;
        }
        model.scattered = false;
        Ok(())
    }

    /// Writes this rank's moments and the step count to `path`, as [`crate::ShardedAdamW::save`] does: as F32, which
    /// holds bf16 exactly. Atomicity is the caller's.
    pub fn save(&self, model: &Model, path: &Path) -> Result<(), ModelError> {
        let [first, second] = self.parts(model);
        let sets: [(_, &dyn Source); 2] = [("exp_avg.", &first), ("exp_avg_sq.", &second)];
        let metadata = BTreeMap::from([("steps".to_owned(), self.steps.to_string())]);
        write_weights(&sets, model.config(), path, Dtype::F32, &metadata)
    }

    /// Reads what [`ShardedAdamW::save`] wrote for a model of the same shape, the same rank and size.
    pub fn open(
        path: &Path,
        model: &Model,
        config: AdamWConfig,
        rank: usize,
        size: usize,
    ) -> Result<Self, ModelError> {
        let mut state = ShardedAdamW::new(model, config, rank, size)?;
        let [mut first, mut second] = state.parts(model);
        let mut sets: [(_, &mut dyn Sink); 2] = [("exp_avg.", &mut first), ("exp_avg_sq.", &mut second)];
        state.steps = steps_of(&read_sets(&mut sets, model.config(), path)?, path)?;
        Ok(state)
    }

    fn parts<'m>(&'m self, model: &'m Model) -> [Parts<'m>; 2] {
        [&self.first, &self.second].map(|parts| Parts { on: model.on(), parts })
    }
}

/// A matrix of 16-bit values as collectives see it.
///
/// # Safety
/// As of [`DeviceSlice::new`].
unsafe fn slice(matrix: Matrix) -> DeviceSlice {
    let element = match matrix.element {
        Element::Bf16 => collective::Element::Bf16,
        Element::U16 => collective::Element::Bits16,
        other => panic!("ranks do not exchange {other:?}"),
    };
    // SAFETY: a matrix is where its maker promised; the rest is the caller's promise.
    unsafe { DeviceSlice::new(matrix.address(), matrix.len(), element) }
}

/// Moments of one share a tensor, which files call by its number.
struct Parts<'m> {
    on: &'m dyn Accelerator,
    parts: &'m [Matrix],
}

impl Parts<'_> {
    fn list(&self) -> Vec<Slot> {
        let slot = |(tensor, part): (usize, &Matrix)| Slot {
            name: tensor.to_string(),
            tensor,
            offset: 0,
            shape: vec![part.len()],
        };
        self.parts.iter().enumerate().map(slot).collect()
    }
}

impl Sink for Parts<'_> {
    fn slots(&self, _config: &LlamaConfig) -> Vec<Slot> {
        self.list()
    }

    fn put(&mut self, slot: &Slot, fill: Fill<'_>) -> Result<(), ModelError> {
        put_halves(self.on, self.parts[slot.tensor], fill)
    }
}

impl Source for Parts<'_> {
    fn slots(&self, _config: &LlamaConfig) -> Vec<Slot> {
        self.list()
    }

    fn values(&self, slot: &Slot) -> Result<Cow<'_, [f32]>, ModelError> {
        Ok(Cow::Owned(halves(self.on, self.parts[slot.tensor])?))
    }
}
