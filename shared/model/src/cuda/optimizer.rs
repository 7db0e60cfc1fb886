//! AdamW over a model in device memory: bf16 moments rounded at random, exact masters. The gradient's
//! norm and the factor that clips it stay on the device; the host reads the norm when all is asked for.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use cognate_kernels::cuda::accelerator::{clear, read};
use cognate_kernels::cuda::arena::Arena;
use cognate_kernels::cuda::launch::{Element, Matrix};
use cognate_kernels::cuda::ops::{self, NORM_BLOCK, State, Step};
use cognate_random::Key;

use super::model::padded;
use super::stored::{Halves, place};
use super::{Model, Trainer};
use crate::files::{Sink, Source, read_sets, write_weights};
use crate::weights::{Slot, Weights};
use crate::{AdamWConfig, Dtype, ModelError, StepReport};

/// What is updated: tensor, first value, values.
pub(super) type Span = (usize, usize, usize);

/// The slots that stay as they are, and what moves.
pub(super) fn split(model: &Model, frozen: impl Fn(&str) -> bool) -> (Vec<Slot>, Vec<Span>) {
    let (frozen, moving): (Vec<Slot>, Vec<Slot>) =
        model.slots().into_iter().partition(|slot| frozen(&slot.name));
    (frozen, moving.iter().map(|slot| (slot.tensor, slot.offset, slot.len())).collect())
}

/// Step `steps` of what begins at value `offset` of `tensor`, a matrix of `rows` rows.
pub(super) fn step(
    config: AdamWConfig,
    lr: f32,
    steps: u64,
    rows: usize,
    (tensor, offset): (usize, usize),
) -> Step {
    let bias = |beta: f32| (1.0 - f64::from(beta).powf(steps as f64)) as f32;
    Step {
        lr,
        beta1: config.beta1,
        beta2: config.beta2,
        eps: config.eps,
        // Vectors (norms, biases) are the tensors of one row, and do not decay.
        weight_decay: if rows == 1 { 0.0 } else { config.weight_decay },
        bias1: bias(config.beta1),
        bias2: bias(config.beta2),
        step: steps as u32,
        seed: Key::new(0).with("rounding").with(tensor).with(offset).raw(),
        first: 0,
    }
}

/// The steps that a file of moments says were taken.
pub(super) fn steps_of(metadata: &HashMap<String, String>, path: &Path) -> Result<u64, ModelError> {
    let steps = metadata.get("steps").and_then(|s| s.parse().ok());
    steps.ok_or_else(|| ModelError::Format {
        path: path.into(),
        reason: "no step count: not an optimizer state".into(),
    })
}

/// Moments, and the number of steps taken.
pub struct AdamW {
    config: AdamWConfig,
    first: Weights<Matrix>,
    second: Weights<Matrix>,
    /// `[1, 2]`: norm and clip factor; first stage of the norm.
    norm: Matrix,
    partial: Matrix,
    arena: Arena,
    steps: u64,
    moving: Vec<Span>,
    frozen: Vec<Slot>,
}

impl AdamW {
    /// Zero moments for `model`, which is for training.
    pub fn new(model: &Model, config: AdamWConfig) -> Result<Self, ModelError> {
        let shape = padded(model.config());
        let blocks: usize = model.weights.tensors().iter().map(|w| w.len().div_ceil(NORM_BLOCK)).sum();
        let (arena, (first, second, norm, partial)) =
            Arena::new(model.device(), "optimizer state", |layout| {
                let mut set = || Weights::build(&shape, |rows, cols| layout.take(Element::Bf16, rows, cols));
                let (first, second) = (set(), set());
                (first, second, layout.take(Element::F32, 1, 2), layout.take(Element::F64, 1, blocks))
            })?;
        for moments in [&first, &second] {
            for tensor in moments.tensors() {
                clear(model.on(), *tensor)?;
            }
        }
        let moving = model.weights.tensors().iter().enumerate().map(|(i, w)| (i, 0, w.len())).collect();
        let frozen = Vec::new();
        Ok(AdamW { config, first, second, norm, partial, arena, steps: 0, moving, frozen })
    }

    /// Keeps the tensors whose Hugging Face name `matches` as they are; see [`crate::AdamW::freeze`].
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

    /// Clips the gradients' global norm to `max_norm` (if given), updates `model` with learning rate `lr`
    /// and zeroes the gradients. When the norm is not finite nothing is changed but the gradients.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        lr: f32,
        max_norm: Option<f32>,
    ) -> Result<StepReport, ModelError> {
        let on = model.on();
        let gradients = trainer.gradients();
        for slot in &self.frozen {
            clear(on, place(gradients, slot))?;
        }
        let all: Vec<Matrix> = gradients.tensors().into_iter().copied().collect();
        ops::grad_norm(on, self.norm, self.partial, &all, max_norm)?;
        let steps = self.steps + 1;
        let (weights, first, second) = (model.weights.tensors(), self.first.tensors(), self.second.tensors());
        let remainders = model.remainders.as_ref().map(Weights::tensors);
        for &(tensor, offset, len) in &self.moving {
            let part = |m: &Matrix| m.part(offset, 1, len);
            let state = State {
                w: part(weights[tensor]),
                remainder: remainders.as_ref().map(|r| part(r[tensor])),
                g: part(&all[tensor]),
                m: part(first[tensor]),
                v: part(second[tensor]),
            };
            let step = step(self.config, lr, steps, weights[tensor].rows, (tensor, offset));
            ops::adamw(on, state, self.norm, step)?;
        }
        let found: Vec<f32> = read(on, self.norm)?;
        let gradient_norm = f64::from(found[0]);
        if gradient_norm.is_finite() {
            self.steps = steps;
        }
        Ok(StepReport { gradient_norm, clipped: found[1] > 0.0 && found[1] < 1.0 })
    }

    /// Writes moments and step count to `path` as [`crate::AdamW::save`] does: as F32, which holds bf16
    /// exactly.
    pub fn save(&self, model: &Model, path: &Path) -> Result<(), ModelError> {
        let [first, second] = [&self.first, &self.second].map(|weights| Halves { on: model.on(), weights });
        let sets: [(_, &dyn Source); 2] = [("exp_avg.", &first), ("exp_avg_sq.", &second)];
        let metadata = BTreeMap::from([("steps".to_owned(), self.steps.to_string())]);
        write_weights(&sets, model.config(), path, Dtype::F32, &metadata)
    }

    /// Reads what [`AdamW::save`] wrote for a model of the same shape; `config` is not stored.
    pub fn open(path: &Path, model: &Model, config: AdamWConfig) -> Result<Self, ModelError> {
        let mut state = AdamW::new(model, config)?;
        let [mut first, mut second] =
            [&state.first, &state.second].map(|weights| Halves { on: model.on(), weights });
        let mut sets: [(_, &mut dyn Sink); 2] = [("exp_avg.", &mut first), ("exp_avg_sq.", &mut second)];
        state.steps = steps_of(&read_sets(&mut sets, model.config(), path)?, path)?;
        Ok(state)
    }
}
