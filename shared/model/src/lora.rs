//! Low-rank adapters (Hu et al. 2021, "LoRA"): `W = W0 + α/r B A` for chosen matrices, `W0` frozen.
//!
//! The model holds the merged `W`, so forward, sampling and publishing know nothing of adapters. The gradients of `A`
//! and `B` follow from that of `W`, exactly: `dA = α/r Bᵀ dW`, `dB = α/r dW Aᵀ`. This spares the optimizer's moments
//! and the checkpoint's size, not the gradient of `W`. Merging starts from `W0` every time, so nothing drifts.

use std::borrow::Cow;
use std::path::Path;

use cognate_kernels::{Device, Tensor, adamw, adapter, matmul};
use cognate_random::Key;

use crate::adapter_files::{self, Factors, Kind, Side};
use crate::weights::Slot;
use crate::{AdamWConfig, LlamaConfig, Model, ModelError, StepReport, Trainer, Weights};

/// Which matrices are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f32,
    /// Names of modules as `q_proj`, `down_proj`.
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// The matrices that are adapted of a model of this shape.
    ///
    /// # Errors
    /// A rank of 0, or a target that no matrix of the layers is called.
    pub(crate) fn slots(&self, config: &LlamaConfig) -> Result<Vec<Slot>, ModelError> {
        let bad = |key: &str, reason: String| {
            Err(ModelError::Config { path: "adapter".into(), key: key.into(), reason })
        };
        if self.rank == 0 {
            return bad("r", "must not be 0".into());
        }
        let mut slots = Weights::layout(config);
        for target in &self.targets {
            if !slots.iter().any(|slot| named(slot, target)) {
                return bad("target_modules", format!("no matrix of the layers is called {target:?}"));
            }
        }
        slots.retain(|slot| self.adapts(slot));
        Ok(slots)
    }

    /// Whether `slot` is a matrix of the layers that one of the targets names.
    pub(crate) fn adapts(&self, slot: &Slot) -> bool {
        self.targets.iter().any(|target| named(slot, target))
    }

    /// `α/r`
    pub(crate) fn scale(&self) -> f32 {
        self.alpha / self.rank as f32
    }

    /// `A` `[r, in]` of `slot` at first: uniform within `1/sqrt(in)` as PEFT draws it, keyed by the name.
    pub(crate) fn draw(&self, slot: &Slot, seed: u64) -> Vec<f32> {
        let mut stream = Key::new(seed).with("lora").with(slot.name.as_str()).stream();
        let [rows, cols] = Side::A.shape(slot, self.rank);
        let bound = 1.0 / (cols as f64).sqrt();
        (0..rows * cols).map(|_| ((2.0 * stream.uniform() - 1.0) * bound) as f32).collect()
    }

    /// Values trained of `slots`.
    pub(crate) fn parameters(&self, slots: &[Slot]) -> usize {
        slots.iter().map(|slot| self.rank * slot.shape.iter().sum::<usize>()).sum()
    }
}

/// Whether `slot` is a matrix of the layers called `target`.
fn named(slot: &Slot, target: &str) -> bool {
    let module = slot.name.strip_suffix(".weight").and_then(|n| n.rsplit('.').next());
    slot.shape.len() == 2 && slot.name.contains(".layers.") && module == Some(target)
}

/// A trained matrix with its gradient and AdamW's moments.
struct Factor {
    weight: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
}

impl Factor {
    fn new(device: Device, rows: usize, cols: usize) -> Self {
        let zeros = || Tensor::zeros(device, rows, cols);
        Factor { weight: zeros(), gradient: zeros(), first: zeros(), second: zeros() }
    }
}

/// One adapted matrix.
struct Adapted {
    /// `W0` `[out, in]`.
    base: Vec<f32>,
    /// `[r, in]` and `[out, r]`.
    a: Factor,
    b: Factor,
}

/// The adapters of a model.
pub struct Lora {
    config: LoraConfig,
    slots: Vec<Slot>,
    /// One a slot.
    parts: Vec<Adapted>,
    steps: u64,
}

impl Lora {
    /// Adapters for `model`, whose weights are taken as `W0`. `A` is uniform within `1/sqrt(in)` as PEFT draws it, `B`
    /// is zero, so that the model is at first what it was. Each matrix is keyed by its name.
    ///
    /// # Errors
    /// A rank of 0, or a target that no matrix of the model is called.
    pub fn new(model: &Model, config: LoraConfig, seed: u64) -> Result<Self, ModelError> {
        let slots = config.slots(&model.config)?;
        let tensors = model.weights.tensors();
        let adapted = |slot: &Slot| {
            let factor = |side: Side| {
                let [rows, cols] = side.shape(slot, config.rank);
                Factor::new(model.device, rows, cols)
            };
            let (mut a, b) = (factor(Side::A), factor(Side::B));
            a.weight.f32_mut().copy_from_slice(&config.draw(slot, seed));
            let base = tensors[slot.tensor].f32()[slot.offset..slot.offset + slot.len()].to_vec();
            Adapted { base, a, b }
        };
        let parts = slots.iter().map(adapted).collect();
        Ok(Lora { config, slots, parts, steps: 0 })
    }

    /// Values trained.
    pub fn parameters(&self) -> usize {
        self.config.parameters(&self.slots)
    }

    /// Writes `W0 + α/r B A` into the model.
    pub fn merge(&self, model: &mut Model) {
        let mut tensors = model.weights.tensors_mut();
        for (slot, part) in self.slots.iter().zip(&self.parts) {
            let mut product = Tensor::zeros(part.b.weight.device(), slot.shape[0], slot.shape[1]);
            matmul::backward_input(&mut product, &part.b.weight, &part.a.weight);
            let to = &mut tensors[slot.tensor].f32_mut()[slot.offset..][..slot.len()];
            adapter::merge(to, &part.base, product.f32(), self.config.scale());
        }
    }

    /// Turns the gradients of the trainer into those of the adapters, clips their global norm, takes one step of AdamW
    /// and merges. The trainer's gradients are zeroed; nothing else is changed where the norm is not finite.
    pub fn step(
        &mut self,
        model: &mut Model,
        trainer: &mut Trainer,
        config: AdamWConfig,
        lr: f32,
        max_norm: Option<f32>,
    ) -> StepReport {
        let mut square = 0.0;
        for (slot, part) in self.slots.iter().zip(&mut self.parts) {
            let all = trainer.gradients().tensors();
            let dw = &all[slot.tensor].f32()[slot.offset..][..slot.len()];
            let mut scaled = Tensor::zeros(part.a.weight.device(), slot.shape[0], slot.shape[1]);
            adapter::operand(scaled.f32_mut(), dw, self.config.scale());
            part.a.gradient.f32_mut().fill(0.0);
            matmul::backward_weight(&mut part.a.gradient, &part.b.weight, &scaled);
            matmul::forward(&mut part.b.gradient, &scaled, &part.a.weight);
            for factor in [&part.a, &part.b] {
                square += factor.gradient.f32().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            }
        }
        trainer.zero_gradients();
        let norm = f64::sqrt(square);
        if !norm.is_finite() {
            return StepReport { gradient_norm: norm, clipped: false };
        }
        self.steps += 1;
        let limit = max_norm.map_or(f64::INFINITY, f64::from);
        let clipped = norm > limit;
        let bias = |beta: f32| (1.0 - f64::from(beta).powf(self.steps as f64)) as f32;
        let update = adamw::Update {
            lr,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: config.weight_decay,
            bias1: bias(config.beta1),
            bias2: bias(config.beta2),
            scale: if clipped { (limit / norm) as f32 } else { 1.0 },
        };
        for part in &mut self.parts {
            for f in [&mut part.a, &mut part.b] {
                adamw::forward(&mut f.weight, &mut f.gradient, &mut f.first, &mut f.second, update);
            }
        }
        self.merge(model);
        StepReport { gradient_norm: norm, clipped }
    }

    /// Writes `adapter_config.json` and `adapter_model.safetensors` in PEFT's layout into `dir`, which must exist.
    /// `base` is recorded as the model that they belong to.
    pub fn save_adapter(&self, dir: &Path, base: &str) -> Result<(), ModelError> {
        adapter_files::save_peft(self, dir, base)
    }

    /// Writes adapters, moments and step count to `path`. Atomicity is the caller's.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        adapter_files::save(self, self.steps, path)
    }

    /// Reads what [`Lora::save`] wrote, here or on a device; `model` holds `W0`, and is merged with what was read.
    pub fn open(path: &Path, model: &mut Model, config: LoraConfig) -> Result<Self, ModelError> {
        let mut lora = Lora::new(model, config, 0)?;
        lora.steps = adapter_files::open(&mut lora, path)?;
        lora.merge(model);
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
        let part = &self.parts[part];
        let factor = match side {
            Side::A => &part.a,
            Side::B => &part.b,
        };
        let tensor = match kind {
            Kind::Weight => &factor.weight,
            Kind::First => &factor.first,
            Kind::Second => &factor.second,
        };
        Ok(Cow::Borrowed(tensor.f32()))
    }

    fn put(&mut self, part: usize, side: Side, kind: Kind, values: &[f32]) -> Result<(), ModelError> {
        let part = &mut self.parts[part];
        let factor = match side {
            Side::A => &mut part.a,
            Side::B => &mut part.b,
        };
        let tensor = match kind {
            Kind::Weight => &mut factor.weight,
            Kind::First => &mut factor.first,
            Kind::Second => &mut factor.second,
        };
        tensor.f32_mut().copy_from_slice(values);
        Ok(())
    }
}
