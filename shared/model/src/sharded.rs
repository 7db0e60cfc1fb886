//! AdamW of a data-parallel run: each rank adds up the gradients of its share of every tensor, holds
//! the moments of that share alone, updates it and gives it to the others (Rajbhandari et al. 2020,
//! "ZeRO", stage 1). With the sums in the order of the ranks a run is the same bits each time.

use std::collections::HashMap;
use std::path::Path;

use cognate_collective::{Collective, CollectiveError, SharedMemory, share};
use cognate_kernels::adamw;

use crate::files::{read_parts, write_parts};
use crate::weights::Slot;
use crate::{AdamWConfig, Model, ModelError, StepReport, Trainer};

/// First and second moments of this rank's share of each tensor, and the number of steps taken.
pub struct ShardedAdamW {
    config: AdamWConfig,
    first: Vec<Vec<f32>>,
    second: Vec<Vec<f32>>,
    steps: u64,
    /// Parts of tensors that stay as they are.
    frozen: Vec<Slot>,
}

impl ShardedAdamW {
    /// For rank `rank` of `size`.
    pub fn new(model: &Model, config: AdamWConfig, rank: usize, size: usize) -> Self {
        let tensors = model.weights.tensors();
        let zeros = || tensors.iter().map(|t| vec![0.0; share(t.len(), rank, size).len()]).collect();
        ShardedAdamW { config, first: zeros(), second: zeros(), steps: 0, frozen: Vec::new() }
    }

    /// As [`crate::AdamW::freeze`].
    pub fn freeze(&mut self, model: &Model, matches: impl Fn(&str) -> bool) -> usize {
        self.frozen = model.weights.slots(&model.config);
        self.frozen.retain(|slot| matches(&slot.name));
        self.frozen.iter().map(Slot::len).sum()
    }

    /// Steps taken so far.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// As [`crate::AdamW::step`], on the sum of all ranks' gradients. Every rank's model is the same after it.
    ///
    /// # Errors
    /// When another rank has ended.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        ranks: &mut SharedMemory,
        lr: f32,
        max_norm: Option<f32>,
    ) -> Result<StepReport, CollectiveError> {
        let (rank, size) = (ranks.rank(), ranks.size());
        let mut gradients = trainer.gradients_mut().tensors_mut();
        for slot in &self.frozen {
            gradients[slot.tensor].f32_mut()[slot.offset..][..slot.len()].fill(0.0);
        }
        let mut square = 0.0;
        for gradient in &mut gradients {
            ranks.reduce_scatter(gradient.f32_mut())?;
            let own = &gradient.f32()[share(gradient.len(), rank, size)];
            square += own.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
        }
        let mut total = [square];
        ranks.all_reduce_f64(&mut total)?;
        let norm = total[0].sqrt();
        if !norm.is_finite() {
            trainer.zero_gradients();
            return Ok(StepReport { gradient_norm: norm, clipped: false });
        }
        self.steps += 1;
        let limit = max_norm.map_or(f64::INFINITY, f64::from);
        let clipped = norm > limit;
        let bias = |beta: f32| (1.0 - f64::from(beta).powf(self.steps as f64)) as f32;
        let update = adamw::Update {
            lr,
            beta1: self.config.beta1,
            beta2: self.config.beta2,
            eps: self.config.eps,
            weight_decay: 0.0,
            bias1: bias(self.config.beta1),
            bias2: bias(self.config.beta2),
            scale: if clipped { (limit / norm) as f32 } else { 1.0 },
        };
        let weights = model.weights.tensors_mut().into_iter();
        let moments = self.first.iter_mut().zip(&mut self.second);
        for (tensor, ((w, g), (m, v))) in weights.zip(gradients).zip(moments).enumerate() {
            let own = share(w.len(), rank, size);
            // Vectors (norms, biases) are the tensors of one row.
            let weight_decay = if w.rows() == 1 { 0.0 } else { self.config.weight_decay };
            // Without a gradient only decay moves a weight.
            let frozen = self.frozen.iter().filter(|slot| slot.tensor == tensor && weight_decay != 0.0);
            let kept: Vec<(usize, Vec<f32>)> = frozen
                .map(|slot| (slot.offset, w.f32()[slot.offset..slot.offset + slot.len()].to_vec()))
                .collect();
            let update = adamw::Update { weight_decay, ..update };
            adamw::slices(&mut w.f32_mut()[own.clone()], &mut g.f32_mut()[own], m, v, update);
            for (offset, values) in kept {
                w.f32_mut()[offset..offset + values.len()].copy_from_slice(&values);
            }
            ranks.all_gather(w.f32_mut())?;
        }
        trainer.zero_gradients();
        Ok(StepReport { gradient_norm: norm, clipped })
    }

    /// Writes this rank's moments and the step count to `path` (safetensors, F32), durably. Atomicity is the
    /// caller's.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let kinds = [("exp_avg", &self.first), ("exp_avg_sq", &self.second)];
        let parts: Vec<(String, &[f32])> = kinds
            .into_iter()
            .flat_map(|(kind, all)| {
                all.iter().enumerate().map(move |(i, part)| (format!("{kind}.{i}"), part.as_slice()))
            })
            .collect();
        write_parts(path, &parts, HashMap::from([("steps".into(), self.steps.to_string())]))
    }

    /// Reads what [`ShardedAdamW::save`] wrote for the same model, rank and size.
    pub fn open(
        path: &Path,
        model: &Model,
        config: AdamWConfig,
        rank: usize,
        size: usize,
    ) -> Result<Self, ModelError> {
        let mut state = ShardedAdamW::new(model, config, rank, size);
        let kinds = [("exp_avg", &mut state.first), ("exp_avg_sq", &mut state.second)];
        let parts = kinds.into_iter().flat_map(|(kind, all)| {
            all.iter_mut().enumerate().map(move |(i, part)| (format!("{kind}.{i}"), part.as_mut_slice()))
        });
        let metadata = read_parts(path, parts)?;
        let steps = metadata.get("steps").and_then(|s| s.parse().ok());
        state.steps = steps.ok_or_else(|| ModelError::Format {
            path: path.into(),
            reason: "no step count: not an optimizer state".into(),
        })?;
        Ok(state)
    }
}
