//! The one optimizer step of `lm`, `sft` and `rl`: accumulate gradients over micro-batches with global token
//! normalisation, clip, AdamW. What is trained on is data (see [`crate::micro_batch::Row`]).

use std::path::Path;

use anyhow::{Context, Result};
use cognate_model::{AdamW, AdamWConfig, Model, ModelError, Objective, StepSums, Trainer};

use crate::cli::Optimisation;
use crate::micro_batch::{MicroBatch, Row, join};

/// A data fault of the model crate ends with exit code 3, any other with 1.
pub fn fault(error: ModelError) -> anyhow::Error {
    if error.is_data() { cognate_cli::rejected(error) } else { anyhow::Error::new(error) }
}

/// Model, gradients and moments.
pub struct Learner {
    pub model: Model,
    trainer: Trainer,
    optimizer: AdamW,
    clip: Option<f32>,
    micro_tokens: u64,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub sums: StepSums,
    /// Before clipping.
    pub gradient_norm: f64,
}

impl Learner {
    pub fn new(model: Model, flags: &Optimisation) -> Self {
        let optimizer = AdamW::new(&model, adamw(flags));
        Self::with(model, optimizer, flags)
    }

    /// Model and moments as a checkpoint holds them.
    pub fn open(dir: &Path, flags: &Optimisation) -> Result<Self> {
        let model = Model::open(dir).map_err(fault)?;
        let optimizer =
            AdamW::open(&dir.join("optimizer.safetensors"), &model, adamw(flags)).map_err(fault)?;
        Ok(Self::with(model, optimizer, flags))
    }

    fn with(model: Model, optimizer: AdamW, flags: &Optimisation) -> Self {
        let trainer = Trainer::new(&model, flags.micro_tokens as usize);
        let clip = (flags.clip > 0.0).then_some(flags.clip);
        Self { model, trainer, optimizer, clip, micro_tokens: flags.micro_tokens }
    }

    /// Writes what [`Self::open`] reads, in full precision.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.model.save(dir, cognate_model::Dtype::F32).map_err(fault)?;
        self.optimizer.save(&self.model, &dir.join("optimizer.safetensors")).map_err(fault)
    }

    /// Micro-batches of the size that [`Self::step`] will use.
    pub fn join(&self, rows: &[Row]) -> Vec<MicroBatch> {
        join(rows, self.micro_tokens)
    }

    /// One step on `batches` at learning rate `lr`. `objective` holds the global counts of the whole step.
    ///
    /// # Errors
    /// When the loss or the gradient is not finite; the message names the records. The model must not be saved then.
    pub fn step(&mut self, batches: &[MicroBatch], objective: &Objective, lr: f64) -> Result<Outcome> {
        let mut sums = StepSums::default();
        for (index, micro) in batches.iter().enumerate() {
            let bounds = micro.bounds();
            let part = self
                .trainer
                .accumulate(&self.model, &micro.batch(&bounds), objective)
                .map_err(fault)
                .with_context(|| format!("micro-batch {index} ({})", names(&micro.ids)))?;
            if !part.loss.is_finite() {
                anyhow::bail!(
                    "the loss is {} in micro-batch {index} (records {})",
                    part.loss,
                    names(&micro.ids)
                );
            }
            sums += part;
        }
        let report = self.optimizer.step(&mut self.model, &mut self.trainer, lr as f32, self.clip);
        if !report.gradient_norm.is_finite() {
            let ids: Vec<String> = batches.iter().flat_map(|b| b.ids.iter().cloned()).collect();
            anyhow::bail!("the gradient norm is {} (records {})", report.gradient_norm, names(&ids));
        }
        Ok(Outcome { sums, gradient_norm: report.gradient_norm })
    }

    /// Log-probability of every token of `micro` under `other`, or under the present weights.
    pub fn score(&mut self, other: Option<&Model>, micro: &MicroBatch, temperature: f32) -> Result<Vec<f32>> {
        let model = other.unwrap_or(&self.model);
        self.trainer.score(model, micro.tokens(), &micro.bounds(), temperature).map_err(fault)?;
        Ok(self.trainer.logprobs()[..micro.tokens().len()].to_vec())
    }
}

fn adamw(flags: &Optimisation) -> AdamWConfig {
    AdamWConfig {
        beta1: flags.beta1,
        beta2: flags.beta2,
        eps: flags.adam_eps,
        weight_decay: flags.weight_decay,
    }
}

/// The first names of a list, for messages.
fn names(ids: &[String]) -> String {
    const SHOWN: usize = 16;
    let mut text = ids.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if ids.len() > SHOWN {
        text += &format!(" and {} more", ids.len() - SHOWN);
    }
    text
}
