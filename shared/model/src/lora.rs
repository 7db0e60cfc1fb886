//! Low-rank adapters (Hu et al. 2021, "LoRA"): `W = W0 + α/r B A` for chosen matrices, `W0` frozen.
//!
//! The model holds the merged `W`, so forward, sampling and publishing know nothing of adapters. The gradients of `A`
//! and `B` follow from that of `W`, exactly: `dA = α/r Bᵀ dW`, `dB = α/r dW Aᵀ`. This spares the optimizer's moments
//! and the checkpoint's size, not the gradient of `W`. Merging starts from `W0` every time, so nothing drifts.

use std::collections::HashMap;
use std::path::Path;

use cognate_kernels::{Device, Tensor, adamw, matmul};
use cognate_random::Key;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::weights::Slot;
use crate::{AdamWConfig, Model, ModelError, StepReport, Trainer};

/// Which matrices are adapted, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LoraConfig {
    pub rank: usize,
    pub alpha: f32,
    /// Names of modules as `q_proj`, `down_proj`.
    pub targets: Vec<String>,
}

impl LoraConfig {
    /// Whether `slot` is a matrix of the layers that one of the targets names.
    pub(crate) fn adapts(&self, slot: &Slot) -> bool {
        self.targets.iter().any(|target| named(slot, target))
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
    slot: Slot,
    /// `W0` `[out, in]`.
    base: Vec<f32>,
    /// `[r, in]` and `[out, r]`.
    a: Factor,
    b: Factor,
}

/// The adapters of a model.
pub struct Lora {
    config: LoraConfig,
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
        let bad = |key: &str, reason: String| {
            Err(ModelError::Config { path: "adapter".into(), key: key.into(), reason })
        };
        if config.rank == 0 {
            return bad("r", "must not be 0".into());
        }
        let slots = model.weights.slots(&model.config);
        for target in &config.targets {
            if !slots.iter().any(|slot| named(slot, target)) {
                return bad("target_modules", format!("no matrix of the layers is called {target:?}"));
            }
        }
        let tensors = model.weights.tensors();
        let parts = slots
            .into_iter()
            .filter(|slot| config.adapts(slot))
            .map(|slot| {
                let (rows, cols) = (slot.shape[0], slot.shape[1]);
                let mut a = Factor::new(model.device, config.rank, cols);
                let mut stream = Key::new(seed).with("lora").with(slot.name.as_str()).stream();
                let bound = 1.0 / (cols as f64).sqrt();
                let draw = |x: &mut f32| *x = ((2.0 * stream.uniform() - 1.0) * bound) as f32;
                a.weight.f32_mut().iter_mut().for_each(draw);
                let base = tensors[slot.tensor].f32()[slot.offset..slot.offset + slot.len()].to_vec();
                Adapted { a, b: Factor::new(model.device, rows, config.rank), base, slot }
            })
            .collect();
        Ok(Lora { config, parts, steps: 0 })
    }

    /// Values trained.
    pub fn parameters(&self) -> usize {
        self.parts.iter().map(|p| p.a.weight.len() + p.b.weight.len()).sum()
    }

    fn scale(&self) -> f32 {
        self.config.alpha / self.config.rank as f32
    }

    /// Writes `W0 + α/r B A` into the model.
    pub fn merge(&self, model: &mut Model) {
        let scale = self.scale();
        let mut tensors = model.weights.tensors_mut();
        for part in &self.parts {
            let mut product = Tensor::zeros(part.b.weight.device(), part.slot.shape[0], part.slot.shape[1]);
            matmul::backward_input(&mut product, &part.b.weight, &part.a.weight);
            let to = &mut tensors[part.slot.tensor].f32_mut()[part.slot.offset..][..part.slot.len()];
            for ((w, base), delta) in to.iter_mut().zip(&part.base).zip(product.f32()) {
                *w = base + scale * delta;
            }
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
        let scale = self.scale();
        let mut square = 0.0;
        for part in &mut self.parts {
            let (rows, cols) = (part.slot.shape[0], part.slot.shape[1]);
            let all = trainer.gradients().tensors();
            let dw = &all[part.slot.tensor].f32()[part.slot.offset..][..part.slot.len()];
            let mut scaled = Tensor::from_slice(part.a.weight.device(), rows, cols, dw);
            scaled.f32_mut().iter_mut().for_each(|x| *x *= scale);
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
        let config = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
            "r": self.config.rank,
            "lora_alpha": self.config.alpha,
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "target_modules": self.config.targets,
        });
        let path = dir.join("adapter_config.json");
        std::fs::write(&path, format!("{config:#}\n")).map_err(ModelError::io(&path))?;
        let called = |part: &Adapted, letter: char| {
            let module = part.slot.name.strip_suffix(".weight").unwrap_or(&part.slot.name);
            format!("base_model.model.{module}.lora_{letter}.weight")
        };
        let tensors: Vec<(String, &Tensor)> = self
            .parts
            .iter()
            .flat_map(|p| [(called(p, 'A'), &p.a.weight), (called(p, 'B'), &p.b.weight)])
            .collect();
        write(
            &dir.join("adapter_model.safetensors"),
            &tensors,
            HashMap::from([("format".into(), "pt".into())]),
        )
    }

    /// Writes adapters, moments and step count to `path`. Atomicity is the caller's.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let mut tensors = Vec::new();
        for part in &self.parts {
            for (letter, f) in [('A', &part.a), ('B', &part.b)] {
                for (kind, tensor) in [("", &f.weight), ("exp_avg.", &f.first), ("exp_avg_sq.", &f.second)] {
                    tensors.push((format!("{kind}{}.lora_{letter}", part.slot.name), tensor));
                }
            }
        }
        write(path, &tensors, HashMap::from([("steps".into(), self.steps.to_string())]))
    }

    /// Reads what [`Lora::save`] wrote; `model` holds `W0`, and is merged with what was read.
    pub fn open(path: &Path, model: &mut Model, config: LoraConfig) -> Result<Self, ModelError> {
        let bad = |reason: String| ModelError::Format { path: path.into(), reason };
        let mut lora = Lora::new(model, config, 0)?;
        let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let steps = header.metadata().as_ref().and_then(|m| m.get("steps")?.parse().ok());
        lora.steps = steps.ok_or_else(|| bad("no step count: not a state of adapters".into()))?;
        for part in &mut lora.parts {
            for (letter, f) in [('A', &mut part.a), ('B', &mut part.b)] {
                for (kind, tensor) in
                    [("", &mut f.weight), ("exp_avg.", &mut f.first), ("exp_avg_sq.", &mut f.second)]
                {
                    let name = format!("{kind}{}.lora_{letter}", part.slot.name);
                    let view = file.tensor(&name).map_err(|e| bad(format!("{name}: {e}")))?;
                    let expected = vec![tensor.rows(), tensor.cols()];
                    if view.shape() != expected || view.dtype() != Dtype::F32 {
                        let found = view.shape().to_vec();
                        return Err(ModelError::Shape { path: path.into(), name, expected, found });
                    }
                    for (to, from) in tensor.f32_mut().iter_mut().zip(view.data().as_chunks::<4>().0) {
                        *to = f32::from_le_bytes(*from);
                    }
                }
            }
        }
        lora.merge(model);
        Ok(lora)
    }
}

fn write(
    path: &Path,
    tensors: &[(String, &Tensor)],
    metadata: HashMap<String, String>,
) -> Result<(), ModelError> {
    let bad =
        |e: safetensors::SafeTensorError| ModelError::Format { path: path.into(), reason: e.to_string() };
    let view = |(name, tensor): &(String, &Tensor)| {
        let bytes: Vec<u8> = tensor.f32().iter().flat_map(|x| x.to_le_bytes()).collect();
        (name.clone(), vec![tensor.rows(), tensor.cols()], bytes)
    };
    let owned: Vec<_> = tensors.iter().map(view).collect();
    let views = owned.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(bad)?;
    std::fs::write(path, bytes).map_err(ModelError::io(path))?;
    std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}
