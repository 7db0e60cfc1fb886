//! A learned value of the state before each token, for PPO: one linear row on the final norm's output, trained along
//! with the model whose states it reads (as TRL's `AutoModelForCausalLMWithValueHead`).

use std::collections::HashMap;
use std::path::Path;

use cognate_kernels::{Device, Tensor, adamw};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::{AdamWConfig, LlamaConfig, ModelError};

/// `v = w · x + b`, with gradients and AdamW's moments. `C` weights, then the bias.
pub struct ValueHead {
    weights: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    steps: u64,
}

/// What the tensors of a state are called.
const NAMES: [&str; 3] = ["value_head", "exp_avg.value_head", "exp_avg_sq.value_head"];

impl ValueHead {
    /// A head that values every state 0.
    pub fn new(config: &LlamaConfig) -> Self {
        let zeros = || Tensor::zeros(Device::Cpu, 1, config.hidden_size + 1);
        ValueHead { weights: zeros(), gradient: zeros(), first: zeros(), second: zeros(), steps: 0 }
    }

    /// Weights and bias, `[1, C + 1]`.
    pub fn weights_mut(&mut self) -> &mut [f32] {
        self.weights.f32_mut()
    }

    /// Gradient of weights and bias, `[1, C + 1]`.
    pub fn gradient(&self) -> &[f32] {
        self.gradient.f32()
    }

    /// Values `[R]` of `states` `[R, C]`.
    pub(crate) fn forward(&self, values: &mut Vec<f32>, states: &Tensor) {
        let (bias, w) = self.split();
        values.clear();
        values.extend(states.f32().chunks_exact(w.len()).map(|x| {
            let sum: f64 = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w)).sum();
            (sum + f64::from(bias)) as f32
        }));
    }

    /// Adds to the head's gradient and to `dstates` `[R, C]`, from the derivative by each value.
    pub(crate) fn backward(&mut self, dstates: &mut Tensor, states: &Tensor, dvalues: &[f32]) {
        let c = self.weights.len() - 1;
        let (w, dw) = (&self.weights.f32()[..c], self.gradient.f32_mut());
        let (dw, db) = dw.split_at_mut(c);
        let rows = dstates.f32_mut().chunks_exact_mut(c).zip(states.f32().chunks_exact(c));
        for ((dx, x), dv) in rows.zip(dvalues).filter(|(_, dv)| **dv != 0.0) {
            for i in 0..c {
                dx[i] += dv * w[i];
                dw[i] += dv * x[i];
            }
            db[0] += dv;
        }
    }

    /// One step of AdamW without decay, the head's own gradient clipped to `max_norm`; zeroes the gradient. Returns
    /// the norm before clipping; where it is not finite nothing is changed.
    pub fn step(&mut self, config: AdamWConfig, lr: f32, max_norm: Option<f32>) -> f64 {
        let norm = self.gradient.f32().iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        if !norm.is_finite() {
            self.gradient.f32_mut().fill(0.0);
            return norm;
        }
        self.steps += 1;
        let limit = max_norm.map_or(f64::INFINITY, f64::from);
        let bias = |beta: f32| (1.0 - f64::from(beta).powf(self.steps as f64)) as f32;
        let update = adamw::Update {
            lr,
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.eps,
            weight_decay: 0.0,
            bias1: bias(config.beta1),
            bias2: bias(config.beta2),
            scale: if norm > limit { (limit / norm) as f32 } else { 1.0 },
        };
        adamw::forward(&mut self.weights, &mut self.gradient, &mut self.first, &mut self.second, update);
        norm
    }

    /// Writes weights, moments and step count to `path` (safetensors, F32). Atomicity is the caller's.
    pub fn save(&self, path: &Path) -> Result<(), ModelError> {
        let shape = vec![self.weights.len()];
        let tensors = [&self.weights, &self.first, &self.second];
        let views = NAMES.iter().zip(tensors).map(|(name, tensor)| {
            let bytes: &[u8] = bytemuck::cast_slice(tensor.f32());
            TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (*name, view))
        });
        let bad =
            |e: safetensors::SafeTensorError| ModelError::Format { path: path.into(), reason: e.to_string() };
        let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let metadata = HashMap::from([("steps".to_owned(), self.steps.to_string())]);
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(bad)?;
        std::fs::write(path, bytes).map_err(ModelError::io(path))?;
        std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
    }

    /// Reads what [`ValueHead::save`] wrote for a model of the same shape.
    pub fn open(path: &Path, config: &LlamaConfig) -> Result<Self, ModelError> {
        let bad = |reason: String| ModelError::Format { path: path.into(), reason };
        let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
        let steps = header.metadata().as_ref().and_then(|m| m.get("steps")?.parse().ok());
        let mut head = ValueHead::new(config);
        head.steps = steps.ok_or_else(|| bad("no step count: not a value head".into()))?;
        for (name, tensor) in NAMES.iter().zip([&mut head.weights, &mut head.first, &mut head.second]) {
            let view = file.tensor(name).map_err(|e| bad(e.to_string()))?;
            if view.shape() != [tensor.len()] || view.dtype() != Dtype::F32 {
                let reason =
                    format!("{name} has {:?} values, the model asks for {}", view.shape(), tensor.len());
                return Err(bad(reason));
            }
            for (to, from) in tensor.f32_mut().iter_mut().zip(view.data().as_chunks::<4>().0) {
                *to = f32::from_le_bytes(*from);
            }
        }
        Ok(head)
    }

    fn split(&self) -> (f32, &[f32]) {
        let (bias, w) = self.weights.f32().split_last().unwrap_or((&0.0, &[]));
        (*bias, w)
    }
}
