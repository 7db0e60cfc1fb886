//! The one optimizer step of `lm`, `sft` and `rl`: accumulate gradients over micro-batches with global token
//! normalisation, clip, AdamW. What is trained on is data (see [`crate::micro_batch::Row`]).

use std::path::Path;

use anyhow::{Context, Result};
use cognate_model::placed::{Model, Trainer};
use cognate_model::{
    AdamW, AdamWConfig, Lora, LoraConfig, ModelError, Objective, Recompute, ShardedAdamW, StepReport,
    StepSums, ValueHead, cuda,
};

use crate::cli::{Optimisation, Recomputation};
use crate::micro_batch::{MicroBatch, Row, join};
use crate::ranks::{self, Ranks};
use crate::start::Origin;

/// A data fault of the model crate ends with exit code 3, any other with 1.
pub fn fault(error: ModelError) -> anyhow::Error {
    if error.is_data() { cognate_cli::rejected(error) } else { anyhow::Error::new(error) }
}

/// Model, gradients and moments.
pub struct Learner {
    pub model: Model,
    trainer: Trainer,
    optimizer: Optimizer,
    clip: Option<f32>,
    micro_tokens: u64,
    adamw: AdamWConfig,
    /// Learning rate of the value head, as a multiple of the model's.
    value_lr: f64,
}

enum Optimizer {
    Full(Box<AdamW>),
    /// Of a model on a GPU.
    Cuda(Box<cuda::AdamW>),
    Adapters(Box<Lora>),
    /// Of a model on a GPU.
    CudaAdapters(Box<cuda::Lora>),
    /// This rank's share of it.
    Sharded(Box<ShardedAdamW>),
    /// Of a model on a GPU.
    CudaSharded(Box<cuda::ShardedAdamW>),
}

/// A loss or a gradient that is no number: what, where, and which records were in it.
#[derive(Debug)]
pub struct NotFinite {
    pub what: String,
    /// Of the step; `None` where it shows only in their sum.
    pub micro_batch: Option<usize>,
    pub records: Vec<String>,
}

impl std::fmt::Display for NotFinite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let place = self.micro_batch.map_or_else(String::new, |index| format!(" in micro-batch {index}"));
        write!(f, "{}{place} (records {})", self.what, names(&self.records))
    }
}

impl std::error::Error for NotFinite {}

const OPTIMIZER: &str = "optimizer.safetensors";
const ADAPTERS: &str = "adapters.safetensors";
const VALUE_HEAD: &str = "value_head.safetensors";

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub sums: StepSums,
    /// Before clipping.
    pub gradient_norm: f64,
}

impl Learner {
    /// Begins at the model that `origin` gives, or goes on at what a checkpoint holds; with `ranks` as one of several
    /// processes.
    pub fn start(
        origin: &Origin,
        checkpoint: Option<&Path>,
        flags: &Optimisation,
        ranks: Option<&Ranks>,
    ) -> Result<Self> {
        if origin.place().is_some() {
            return Self::on_device(origin, checkpoint, flags, ranks);
        }
        let (model, optimizer) = match (checkpoint, lora(flags), ranks) {
            (None, Some(lora), _) => {
                let model = origin.model()?;
                let adapters = Lora::new(&model, lora, origin.seed()).map_err(fault)?;
                (model, Optimizer::Adapters(Box::new(adapters)))
            }
            (Some(dir), Some(lora), _) => {
                let mut model = origin.model()?;
                let adapters = Lora::open(&dir.join(ADAPTERS), &mut model, lora).map_err(fault)?;
                (model, Optimizer::Adapters(Box::new(adapters)))
            }
            (checkpoint, None, Some(ranks)) => {
                let (rank, size) = (ranks.rank(), ranks.size());
                let model = match checkpoint {
                    Some(dir) => cognate_model::Model::open(dir).map_err(fault)?,
                    None => origin.model()?,
                };
                let optimizer = match checkpoint {
                    Some(dir) => {
                        let path = dir.join(ranks::part(rank, size));
                        ShardedAdamW::open(&path, &model, adamw(flags), rank, size).map_err(fault)?
                    }
                    None => ShardedAdamW::new(&model, adamw(flags), rank, size),
                };
                (model, Optimizer::Sharded(Box::new(optimizer)))
            }
            (None, None, None) => {
                let model = origin.model()?;
                let optimizer = AdamW::new(&model, adamw(flags));
                (model, Optimizer::Full(Box::new(optimizer)))
            }
            (Some(dir), None, None) => {
                let model = cognate_model::Model::open(dir).map_err(fault)?;
                let optimizer = AdamW::open(&dir.join(OPTIMIZER), &model, adamw(flags)).map_err(fault)?;
                (model, Optimizer::Full(Box::new(optimizer)))
            }
        };
        let trainer = cognate_model::Trainer::with(&model, flags.micro_tokens as usize, recompute(flags));
        let (model, trainer) = (Model::Cpu(model), Trainer::Cpu(Box::new(trainer)));
        Self::with(model, trainer, optimizer, flags)
    }

    /// The same on a GPU.
    fn on_device(
        origin: &Origin,
        checkpoint: Option<&Path>,
        flags: &Optimisation,
        ranks: Option<&Ranks>,
    ) -> Result<Self> {
        let lora = lora(flags);
        let mut model = match checkpoint {
            // A checkpoint of adapters holds no model.
            Some(dir) if lora.is_none() => origin.open(dir, cuda::Purpose::Training)?,
            _ => origin.placed(cuda::Purpose::Training)?,
        };
        let Model::Cuda(on_device) = &mut model else { return Err(fault(elsewhere())) };
        let optimizer = match (lora, ranks) {
            (Some(lora), _) => {
                let adapters = match checkpoint {
                    Some(dir) => cuda::Lora::open(&dir.join(ADAPTERS), on_device, lora),
                    None => cuda::Lora::new(on_device, lora, origin.seed()),
                };
                Optimizer::CudaAdapters(Box::new(adapters.map_err(fault)?))
            }
            (None, Some(ranks)) => {
                let (rank, size) = (ranks.rank(), ranks.size());
                let optimizer = match checkpoint {
                    Some(dir) => {
                        let path = dir.join(ranks::part(rank, size));
                        cuda::ShardedAdamW::open(&path, on_device, adamw(flags), rank, size)
                    }
                    None => cuda::ShardedAdamW::new(on_device, adamw(flags), rank, size),
                };
                Optimizer::CudaSharded(Box::new(optimizer.map_err(fault)?))
            }
            (None, None) => {
                let optimizer = match checkpoint {
                    Some(dir) => cuda::AdamW::open(&dir.join(OPTIMIZER), on_device, adamw(flags)),
                    None => cuda::AdamW::new(on_device, adamw(flags)),
                };
                Optimizer::Cuda(Box::new(optimizer.map_err(fault)?))
            }
        };
        let trainer = Trainer::new(&model, flags.micro_tokens as usize).map_err(fault)?;
        Self::with(model, trainer, optimizer, flags)
    }

    /// Keeps what `flags` say is frozen.
    fn freeze(&mut self, flags: &Optimisation) -> Result<()> {
        let Some(names) = &flags.freeze else { return Ok(()) };
        let regex = regex::Regex::new(names).map_err(|e| cognate_cli::usage(format!("--freeze: {e}")))?;
        let matches = |name: &str| regex.is_match(name);
        let frozen = match (&mut self.optimizer, &self.model) {
            (Optimizer::Full(optimizer), Model::Cpu(model)) => optimizer.freeze(model, matches),
            (Optimizer::Sharded(optimizer), Model::Cpu(model)) => optimizer.freeze(model, matches),
            (Optimizer::Cuda(optimizer), Model::Cuda(model)) => optimizer.freeze(model, matches),
            (Optimizer::CudaSharded(optimizer), Model::Cuda(model)) => optimizer.freeze(model, matches),
            _ => return Ok(()),
        };
        if frozen == 0 || frozen == self.model.parameters() {
            let reason = if frozen == 0 { "matches no tensor" } else { "leaves nothing to train" };
            return Err(cognate_cli::usage(format!("--freeze {names}: {reason}")));
        }
        Ok(())
    }

    /// Writes the adapter, if that is what is trained, in PEFT's layout.
    pub fn save_adapter(&self, dir: &Path, base: &str) -> Result<()> {
        match &self.optimizer {
            Optimizer::Adapters(adapters) => adapters.save_adapter(dir, base).map_err(fault),
            Optimizer::CudaAdapters(adapters) => adapters.save_adapter(dir, base).map_err(fault),
            Optimizer::Full(_) | Optimizer::Cuda(_) | Optimizer::Sharded(_) | Optimizer::CudaSharded(_) => {
                Ok(())
            }
        }
    }

    fn with(model: Model, trainer: Trainer, optimizer: Optimizer, flags: &Optimisation) -> Result<Self> {
        let clip = (flags.clip > 0.0).then_some(flags.clip);
        let (micro_tokens, adamw) = (flags.micro_tokens, adamw(flags));
        let mut learner = Self { model, trainer, optimizer, clip, micro_tokens, adamw, value_lr: 1.0 };
        learner.freeze(flags)?;
        Ok(learner)
    }

    /// Trains a value head along: a fresh one, or the checkpoint's.
    pub fn add_value_head(&mut self, checkpoint: Option<&Path>, lr: f64) -> Result<()> {
        self.value_lr = lr;
        self.trainer.set_value_head(match checkpoint {
            Some(dir) => ValueHead::open(&dir.join(VALUE_HEAD), self.model.config()).map_err(fault)?,
            None => ValueHead::new(self.model.config()),
        });
        Ok(())
    }

    /// Writes this rank's part of the optimizer's state, where it is shared out.
    pub fn save_part(&self, path: &Path) -> Result<()> {
        match (&self.optimizer, &self.model) {
            (Optimizer::Sharded(optimizer), _) => optimizer.save(path).map_err(fault),
            (Optimizer::CudaSharded(optimizer), Model::Cuda(model)) => {
                optimizer.save(model, path).map_err(fault)
            }
            _ => Ok(()),
        }
    }

    /// Brings together what a save of the model needs of each rank: with all of them, before any saves.
    pub fn gather(&mut self, ranks: &mut Ranks) -> Result<()> {
        if let (Optimizer::CudaSharded(optimizer), Model::Cuda(model), Some(devices)) =
            (&self.optimizer, &mut self.model, ranks.planes().1)
        {
            optimizer.gather(model, devices).map_err(fault)?;
        }
        Ok(())
    }

    /// Writes what [`Self::start`] reads, in full precision; but for the parts of [`Self::save_part`].
    pub fn save(&self, dir: &Path) -> Result<()> {
        if let Some(head) = self.trainer.value_head() {
            head.save(&dir.join(VALUE_HEAD)).map_err(fault)?;
        }
        match &self.optimizer {
            Optimizer::Adapters(adapters) => return adapters.save(&dir.join(ADAPTERS)).map_err(fault),
            Optimizer::CudaAdapters(adapters) => return adapters.save(&dir.join(ADAPTERS)).map_err(fault),
            Optimizer::Full(_) | Optimizer::Cuda(_) | Optimizer::Sharded(_) | Optimizer::CudaSharded(_) => {}
        }
        self.model.save(dir, cognate_model::Dtype::F32).map_err(fault)?;
        let path = dir.join(OPTIMIZER);
        match (&self.optimizer, &self.model) {
            (Optimizer::Full(optimizer), Model::Cpu(model)) => optimizer.save(model, &path),
            (Optimizer::Cuda(optimizer), Model::Cuda(model)) => optimizer.save(model, &path),
            // Its parts are written by each rank.
            (Optimizer::Sharded(_) | Optimizer::CudaSharded(_), _) => Ok(()),
            _ => Err(elsewhere()),
        }
        .map_err(fault)
    }

    /// Micro-batches of the size that [`Self::step`] will use.
    pub fn join(&self, rows: &[Row]) -> Vec<MicroBatch> {
        join(rows, self.micro_tokens)
    }

    /// One step on `batches` at learning rate `lr`. `objective` holds the global counts of the whole step.
    ///
    /// # Errors
    /// When the loss or the gradient is not finite; the message names the records. The model must not be saved then.
    pub fn step(
        &mut self,
        batches: &[MicroBatch],
        objective: &Objective,
        lr: f64,
        mut ranks: Option<&mut Ranks>,
    ) -> Result<Outcome> {
        let mut sums = StepSums::default();
        for (index, micro) in batches.iter().enumerate() {
            let bounds = micro.bounds();
            let part = self
                .trainer
                .accumulate(&self.model, &micro.batch(&bounds), objective)
                .map_err(fault)
                .with_context(|| format!("micro-batch {index} ({})", names(&micro.ids)))?;
            if !part.loss.is_finite() {
                return Err(anyhow::Error::new(NotFinite {
                    what: format!("the loss is {}", part.loss),
                    micro_batch: Some(index),
                    records: micro.ids.clone(),
                }));
            }
            sums += part;
        }
        if let Some(ranks) = &mut ranks {
            ranks.add(&mut sums)?;
        }
        let report = self.update(lr as f32, ranks)?;
        if !report.gradient_norm.is_finite() {
            return Err(anyhow::Error::new(NotFinite {
                what: format!("the gradient norm is {}", report.gradient_norm),
                micro_batch: None,
                records: batches.iter().flat_map(|b| b.ids.iter().cloned()).collect(),
            }));
        }
        if let Some(head) = self.trainer.value_head_mut() {
            let norm = head.step(self.adamw, (lr * self.value_lr) as f32, self.clip);
            anyhow::ensure!(norm.is_finite(), "the gradient norm of the value head is {norm}");
        }
        Ok(Outcome { sums, gradient_norm: report.gradient_norm })
    }

    fn update(&mut self, lr: f32, ranks: Option<&mut Ranks>) -> Result<StepReport> {
        let clip = self.clip;
        match (&mut self.optimizer, &mut self.model, &mut self.trainer) {
            (Optimizer::Full(optimizer), Model::Cpu(model), Trainer::Cpu(trainer)) => {
                Ok(optimizer.step(model, trainer, lr, clip))
            }
            (Optimizer::Adapters(adapters), Model::Cpu(model), Trainer::Cpu(trainer)) => {
                Ok(adapters.step(model, trainer, self.adamw, lr, clip))
            }
            (Optimizer::Sharded(optimizer), Model::Cpu(model), Trainer::Cpu(trainer)) => {
                let Some(ranks) = ranks else { unreachable!("a sharded optimizer is made for ranks") };
                Ok(optimizer.step(model, trainer, ranks.planes().0, lr, clip)?)
            }
            (Optimizer::CudaSharded(optimizer), Model::Cuda(model), Trainer::Cuda(trainer)) => {
                let Some((host, Some(devices))) = ranks.map(Ranks::planes) else {
                    unreachable!("a sharded optimizer is made for ranks, which have joined their devices")
                };
                optimizer.step(model, trainer, host, devices, lr, clip).map_err(fault)
            }
            (Optimizer::Cuda(optimizer), Model::Cuda(model), Trainer::Cuda(trainer)) => {
                optimizer.step(model, trainer, lr, clip).map_err(fault)
            }
            (Optimizer::CudaAdapters(adapters), Model::Cuda(model), Trainer::Cuda(trainer)) => {
                adapters.step(model, trainer, self.adamw, lr, clip).map_err(fault)
            }
            _ => Err(fault(elsewhere())),
        }
    }

    /// Log-probability of every token of `micro` under `other`, or under the present weights; and the values of the
    /// states that they were drawn in, where there is a value head.
    pub fn score(
        &mut self,
        other: Option<&Model>,
        micro: &MicroBatch,
        temperature: f32,
    ) -> Result<(Vec<f32>, Vec<f32>)> {
        let model = other.unwrap_or(&self.model);
        self.trainer.score(model, micro.tokens(), &micro.bounds(), temperature).map_err(fault)?;
        Ok((self.trainer.logprobs().to_vec(), self.trainer.values().to_vec()))
    }
}

/// What the backward computes again.
pub fn recompute(flags: &Optimisation) -> Recompute {
    match flags.recompute {
        Recomputation::None => Recompute::None,
        Recomputation::FeedForward => Recompute::FeedForward,
        Recomputation::Block => Recompute::Block,
    }
}

/// The adapters that `flags` ask for.
pub fn lora(flags: &Optimisation) -> Option<LoraConfig> {
    (flags.lora_rank > 0).then(|| LoraConfig {
        rank: flags.lora_rank,
        alpha: flags.lora_alpha,
        targets: flags.lora_targets.clone(),
    })
}

/// Parts that are not where the model is.
fn elsewhere() -> ModelError {
    ModelError::Batch("the optimizer is on another device than the model".into())
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
