//! Low-rank adapters of a model in device memory, as [`crate::Lora`] trains them: the model holds the merged
//! `W = W0 + α/r B A` as exact masters, `W0` is kept beside it in the same form, factors and moments are `f32`.
//!
//! The factors' gradients are products with the gradient of `W`, which is bf16, and so are the scaled factors in
//! them. The product that is merged is `f32` throughout: its work is small beside a step's, and the model is what
//! PEFT makes of the files. Ranks are padded with zeros to a multiple of 8, so that rows of `B` are whole 16
//! bytes; what is padded has no gradient and stays zero, and files do not show it.

use std::borrow::Cow;
use std::path::Path;
use std::rc::Rc;

use cognate_kernels::cuda::accelerator::{Accelerator, clear, copy, read, write};
use cognate_kernels::cuda::arena::{Arena, Layout};
use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::launch::{Element, Matrix};
use cognate_kernels::cuda::ops::{self, Master, NORM_BLOCK, State, Step};

use super::{Done, Model, Trainer};
use crate::adapter_files::{self, Factors, Kind, Side};
use crate::weights::Slot;
use crate::{AdamWConfig, LoraConfig, ModelError, StepReport};

const F32: Element = Element::F32;

/// Columns of `B` and rows of `A` on the device.
pub(crate) fn padded(rank: usize) -> usize {
    rank.next_multiple_of(8)
}

/// The adapters of a model.
pub struct Lora {
    config: LoraConfig,
    slots: Vec<Slot>,
    on: Rc<dyn Accelerator>,
    buffers: Buffers,
    arena: Arena,
    steps: u64,
}

/// Device memory. The factors of all matrices stand one after another, `A` `[r padded, in]` before `B`
/// `[out, r padded]`, so that what is done to each value is one launch.
struct Buffers {
    /// `W0` a slot, `[out, in]`.
    frozen: Vec<Master>,
    /// First value of the factors of each slot.
    places: Vec<usize>,
    /// `[1, n]` fp32, the gradient and AdamW's moments alike.
    weight: Matrix,
    gradient: Matrix,
    first: Matrix,
    second: Matrix,
    /// `[1, n]` bf16: the factors times `α/r`.
    operand: Matrix,
    /// fp32 of the largest adapted matrix: a product on its way into the model.
    delta: Matrix,
    /// `[1, 2]`: norm and clip factor; first stage of the norm.
    norm: Matrix,
    partial: Matrix,
}

impl Buffers {
    fn lay(layout: &mut Layout, slots: &[Slot], rank: usize) -> Self {
        let mut frozen = |slot: &Slot| {
            let mut take = |element| layout.take(element, slot.shape[0], slot.shape[1]);
            Master { weight: take(Element::Bf16), remainder: take(Element::U16) }
        };
        let frozen = slots.iter().map(&mut frozen).collect();
        let mut values = 0;
        let place = |slot: &Slot| {
            let first = values;
            values += padded(rank) * slot.shape.iter().sum::<usize>();
            first
        };
        let places = slots.iter().map(place).collect();
        let largest = slots.iter().map(Slot::len).max().unwrap_or(0);
        let mut row = |element, n| layout.take(element, 1, n);
        Buffers {
            frozen,
            places,
            weight: row(F32, values),
            gradient: row(F32, values),
            first: row(F32, values),
            second: row(F32, values),
            operand: row(Element::Bf16, values),
            delta: row(F32, largest),
            norm: row(F32, 2),
            partial: row(Element::F64, values.div_ceil(NORM_BLOCK)),
        }
    }

    /// One factor in `all`, which is one of the rows of factors.
    fn factor(&self, all: Matrix, part: usize, slot: &Slot, side: Side, rank: usize) -> Matrix {
        let [rows, cols] = side.shape(slot, padded(rank));
        let before = match side {
            Side::A => 0,
            Side::B => padded(rank) * slot.shape[1],
        };
        all.part(self.places[part] + before, rows, cols)
    }

    fn kind(&self, kind: Kind) -> Matrix {
        match kind {
            Kind::Weight => self.weight,
            Kind::First => self.first,
            Kind::Second => self.second,
        }
    }
}

/// The merged matrix in `model`.
fn merged(model: &Model, slot: &Slot) -> Result<Master, ModelError> {
    let Some(remainders) = &model.remainders else {
        let reason =
            "adapters are merged into exact weights, which a model for inference does not have".into();
        return Err(ModelError::Config { path: "adapter".into(), key: "purpose".into(), reason });
    };
    let part = |m: &Matrix| m.part(slot.offset, slot.shape[0], slot.shape[1]);
    Ok(Master {
        weight: part(model.weights.tensors()[slot.tensor]),
        remainder: part(remainders.tensors()[slot.tensor]),
    })
}

impl Lora {
    /// Adapters for `model`, whose weights are taken as `W0`: the factors that [`crate::Lora::new`] draws.
    ///
    /// # Errors
    /// A rank of 0, a target that no matrix of the model is called, a model that is not for training; too little
    /// device memory.
    pub fn new(model: &Model, config: LoraConfig, seed: u64) -> Result<Self, ModelError> {
        let slots = config.slots(model.config())?;
        let (arena, buffers) =
            Arena::new(model.device(), "adapters", |layout| Buffers::lay(layout, &slots, config.rank))?;
        let on = Rc::clone(model.device());
        let mut lora = Lora { config, slots, on, buffers, arena, steps: 0 };
        let b = &lora.buffers;
        for all in [b.weight, b.gradient, b.first, b.second] {
            clear(model.on(), all)?;
        }
        for (slot, frozen) in lora.slots.iter().zip(&b.frozen) {
            let w = merged(model, slot)?;
            copy(model.on(), frozen.weight, w.weight)?;
            copy(model.on(), frozen.remainder, w.remainder)?;
        }
        for part in 0..lora.slots.len() {
            let drawn = lora.config.draw(&lora.slots[part], seed);
            lora.put(part, Side::A, Kind::Weight, &drawn)?;
        }
        Ok(lora)
    }

    /// Values trained.
    pub fn parameters(&self) -> usize {
        self.config.parameters(&self.slots)
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    fn factor(&self, all: Matrix, part: usize, side: Side) -> Matrix {
        self.buffers.factor(all, part, &self.slots[part], side, self.config.rank)
    }

    /// Writes `W0 + α/r B A` into the model.
    pub fn merge(&self, model: &mut Model) -> Result<(), ModelError> {
        let on = model.on();
        for (part, slot) in self.slots.iter().enumerate() {
            let delta = self.buffers.delta.part(0, slot.shape[0], slot.shape[1]);
            let [a, b] = Side::BOTH.map(|side| self.factor(self.buffers.weight, part, side));
            on.product(Product::Input, delta, (b, a), false, None)?;
            let w = merged(model, slot)?;
            ops::adapter_merge(on, w, self.buffers.frozen[part], delta, self.config.scale())?;
        }
        Ok(())
    }

    /// The factors' gradients from those of the matrices.
    fn gradients(&self, trainer: &Trainer) -> Done {
        let (on, b) = (&*self.on, &self.buffers);
        ops::adapter_operand(on, b.operand, b.weight, self.config.scale())?;
        let all = trainer.gradients().tensors();
        for (part, slot) in self.slots.iter().enumerate() {
            let dw = all[slot.tensor].part(slot.offset, slot.shape[0], slot.shape[1]);
            let [da, db] = Side::BOTH.map(|side| self.factor(b.gradient, part, side));
            let [a, b] = Side::BOTH.map(|side| self.factor(b.operand, part, side));
            on.product(Product::Weight, da, (b, dw), false, None)?;
            on.product(Product::Forward, db, (dw, a), false, None)?;
        }
        Ok(())
    }

    /// Turns the gradients of the trainer into those of the adapters, clips their global norm, takes one step of
    /// AdamW at learning rate `lr` and merges. The trainer's gradients are zeroed; nothing else is changed where
    /// the norm is not finite.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        config: AdamWConfig,
        lr: f32,
        max_norm: Option<f32>,
    ) -> Result<StepReport, ModelError> {
        self.gradients(trainer)?;
        trainer.zero_gradients(model)?;
        let (on, b) = (&*self.on, &self.buffers);
        ops::grad_norm(on, b.norm, b.partial, &[b.gradient], max_norm)?;
        let steps = self.steps + 1;
        let bias = |beta: f32| (1.0 - f64::from(beta).powf(steps as f64)) as f32;
        let step = Step {
            lr,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: config.weight_decay,
            bias1: bias(config.beta1),
            bias2: bias(config.beta2),
            step: steps as u32,
            // In fp32 nothing is rounded at random.
            seed: 0,
            first: 0,
        };
        let state = State { w: b.weight, remainder: None, g: b.gradient, m: b.first, v: b.second };
        ops::adamw(on, state, b.norm, step)?;
        // Of factors that a norm which is not finite has left as they were, the same bits.
        self.merge(model)?;
        let found: Vec<f32> = read(&*self.on, self.buffers.norm)?;
        let gradient_norm = f64::from(found[0]);
        if gradient_norm.is_finite() {
            self.steps = steps;
        }
        Ok(StepReport { gradient_norm, clipped: found[1] > 0.0 && found[1] < 1.0 })
    }

    /// Writes PEFT's directory; see [`crate::Lora::save_adapter`].
    pub fn save_adapter(&self, dir: &Path, base: &str) -> Result<(), ModelError> {
        adapter_files::save_peft(self, dir, base)
    }

    /// Writes adapters, moments and step count to `path`, as [`crate::Lora::save`] does.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        adapter_files::save(self, self.steps, path)
    }

    /// Reads what [`Lora::save`] wrote, here or on the CPU; `model` holds `W0`, and is merged with what was read.
    pub fn open(path: &Path, model: &mut Model, config: LoraConfig) -> Result<Self, ModelError> {
        let mut lora = Lora::new(model, config, 0)?;
        lora.steps = adapter_files::open(&mut lora, path)?;
        lora.merge(model)?;
        Ok(lora)
    }
}

impl Factors for Lora {
    fn config(&self) -> &LoraConfig {
        &self.config
    }

    fn slots(&self) -> &[Slot] {
        &self.slots
    }

    fn values(&self, part: usize, side: Side, kind: Kind) -> Result<Cow<'_, [f32]>, ModelError> {
        let [rows, cols] = side.shape(&self.slots[part], self.config.rank);
        let factor = self.factor(self.buffers.kind(kind), part, side);
        let values: Vec<f32> = read(&*self.on, factor)?;
        let kept = values.chunks_exact(factor.cols).take(rows).flat_map(|row| &row[..cols]);
        Ok(Cow::Owned(kept.copied().collect()))
    }

    fn put(&mut self, part: usize, side: Side, kind: Kind, values: &[f32]) -> Result<(), ModelError> {
        let [_, cols] = side.shape(&self.slots[part], self.config.rank);
        let factor = self.factor(self.buffers.kind(kind), part, side);
        let mut all = vec![0.0f32; factor.len()];
        for (to, from) in all.chunks_exact_mut(factor.cols).zip(values.chunks_exact(cols)) {
            to[..cols].copy_from_slice(from);
        }
        Ok(write(&*self.on, factor, &all)?)
    }
}
