//! AdamW over a model's weights, with global-norm clipping and an exact checkpoint of its state.

use std::collections::BTreeMap;
use std::path::Path;

use cognate_kernels::adamw;

use crate::files::{Sink, Source, read_sets, write_weights};
use crate::weights::Slot;
use crate::{Dtype, Model, ModelError, Trainer, Weights};

/// AdamW's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    /// Decoupled decay of matrices; norms and biases do not decay.
    pub weight_decay: f32,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 }
    }
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Norm of all gradients before clipping.
    pub gradient_norm: f64,
    pub clipped: bool,
}

/// First and second moments, and the number of steps taken.
pub struct AdamW {
    config: AdamWConfig,
    first: Weights,
    second: Weights,
    steps: u64,
    /// Parts of tensors that stay as they are.
    frozen: Vec<Slot>,
}

impl AdamW {
    pub fn new(model: &Model, config: AdamWConfig) -> Self {
        let zeros = || Weights::zeros(&model.config, model.device);
        AdamW { config, first: zeros(), second: zeros(), steps: 0, frozen: Vec::new() }
    }

    /// Keeps the tensors whose Hugging Face name `matches` as they are, out of the gradient's norm too; returns how many
    /// values those are. A tied head goes by the name of the embedding. Not a part of the saved state.
    pub fn freeze(&mut self, model: &Model, matches: impl Fn(&str) -> bool) -> usize {
        self.frozen = model.weights.slots(&model.config);
        self.frozen.retain(|slot| matches(&slot.name));
        self.frozen.iter().map(Slot::len).sum()
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Clips the gradients' global norm to `max_norm` (if given), updates `model` with learning
    /// rate `lr` and zeroes the gradients. When the norm is not finite nothing is changed but the
    /// gradients, which are zeroed; the caller sees it in the report.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        lr: f32,
        max_norm: Option<f32>,
    ) -> StepReport {
        let mut gradients = trainer.gradients_mut().tensors_mut();
        for slot in &self.frozen {
            gradients[slot.tensor].f32_mut()[slot.offset..][..slot.len()].fill(0.0);
        }
        let norm = trainer.gradient_norm();
        if !norm.is_finite() {
            trainer.zero_gradients();
            return StepReport { gradient_norm: norm, clipped: false };
        }
        self.steps += 1;
        let limit = max_norm.map_or(f64::INFINITY, f64::from);
        let clipped = norm > limit;
        let bias = |beta: f32| 1.0 - f64::from(beta).powf(self.steps as f64);
        let update = adamw::Update {
            lr,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: 0.0,
            bias1: bias(self.config.beta1) as f32,
            bias2: bias(self.config.beta2) as f32,
            scale: if clipped { (limit / norm) as f32 } else { 1.0 },
        };
        // Without a gradient only decay moves a weight.
        let kept: Vec<Vec<f32>> = match self.config.weight_decay {
            0.0 => Vec::new(),
            _ => {
                let all = model.weights.tensors();
                let values = |s: &Slot| all[s.tensor].f32()[s.offset..][..s.len()].to_vec();
                self.frozen.iter().map(values).collect()
            }
        };
        let weights = model.weights.tensors_mut().into_iter();
        let gradients = trainer.gradients_mut().tensors_mut();
        let moments = self.first.tensors_mut().into_iter().zip(self.second.tensors_mut());
        for ((w, g), (m, v)) in weights.zip(gradients).zip(moments) {
            // Vectors (norms, biases) are the tensors of one row.
            let weight_decay = if w.rows() == 1 { 0.0 } else { self.config.weight_decay };
            adamw::forward(w, g, m, v, adamw::Update { weight_decay, ..update });
        }
        let mut weights = model.weights.tensors_mut();
        for (slot, values) in self.frozen.iter().zip(kept) {
            weights[slot.tensor].f32_mut()[slot.offset..][..slot.len()].copy_from_slice(&values);
        }
        StepReport { gradient_norm: norm, clipped }
    }

    /// Writes moments and step count to `path` (safetensors, F32), durably. Atomicity is the
    /// caller's.
    pub fn save(&self, model: &Model, path: &Path) -> Result<(), ModelError> {
        let sets: [(_, &dyn Source); 2] = [("exp_avg.", &self.first), ("exp_avg_sq.", &self.second)];
        let metadata = BTreeMap::from([("steps".to_owned(), self.steps.to_string())]);
        write_weights(&sets, &model.config, path, Dtype::F32, &metadata)
    }

    /// Reads what [`AdamW::save`] wrote for a model of the same shape; `config` is not stored.
    pub fn open(path: &Path, model: &Model, config: AdamWConfig) -> Result<Self, ModelError> {
        let mut state = AdamW::new(model, config);
        let mut sets: [(_, &mut dyn Sink); 2] =
            [("exp_avg.", &mut state.first), ("exp_avg_sq.", &mut state.second)];
        let metadata = read_sets(&mut sets, &model.config, path)?;
        let steps = metadata.get("steps").and_then(|s| s.parse().ok());
        state.steps = steps.ok_or_else(|| ModelError::Format {
            path: path.into(),
            reason: "no step count: not an optimizer state".into(),
        })?;
        Ok(state)
    }
}
