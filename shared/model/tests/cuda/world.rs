//! Models and packed documents for checks on any device: tiny ones in tests, larger ones on a GPU.

use std::rc::Rc;

use cognate_model::cuda::{self, Accelerator, Purpose};
use cognate_model::{LlamaConfig, Model, Slot};

/// Three query heads to one key head; rows that are multiples of 8 and of nothing more, and a vocabulary
/// that is not even that.
pub fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 251,
        hidden_size: 72,
        intermediate_size: 104,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        head_dim: 64,
        rope_theta: 100.0,
        tie_word_embeddings: false,
        initializer_range: 0.1,
        ..LlamaConfig::default()
    }
}

/// A model of the CPU whose weights bf16 holds, so that both sides begin with the same.
pub fn model(config: &LlamaConfig, seed: u64) -> Model {
    let mut model = Model::init(config, seed).unwrap();
    for (i, tensor) in model.weights_mut().tensors_mut().into_iter().enumerate() {
        for (j, x) in tensor.f32_mut().iter_mut().enumerate() {
            // Norms of 1 and biases of 0 would hide that they are there.
            let noise = ((i * 31 + j * 7) as f32).sin() * if *x == 0.0 || *x == 1.0 { 0.3 } else { 0.0 };
            *x = half::bf16::from_f32(*x + noise).to_f32();
        }
    }
    model
}

pub fn on(model: &Model, device: &Rc<dyn Accelerator>, purpose: Purpose) -> cuda::Model {
    cuda::Model::of(model, device, purpose).unwrap()
}

/// The values of `slot` in a model of the CPU.
pub fn values<'m>(model: &'m Model, slot: &Slot) -> &'m [f32] {
    &model.weights().tensors()[slot.tensor].f32()[slot.offset..slot.offset + slot.len()]
}

/// `|got − want| / |want|`, Euclidean.
pub fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut got.iter().zip(want).map(|(g, w)| f64::from(*g) - f64::from(*w)));
    // A NaN must not pass for small.
    assert!(error.is_finite(), "values that are no numbers");
    error / norm(&mut want.iter().map(|&x| f64::from(x))).max(1e-12)
}

/// Packed documents whose lengths are 70, 1, 45 and 20 times `scale`: more than one tile of attention, and
/// almost none.
#[derive(Clone, Debug)]
pub struct Documents {
    pub starts: Vec<u32>,
    pub tokens: Vec<u32>,
}

pub fn documents(seed: u32, scale: u32) -> Documents {
    let starts = [0, 70, 71, 116, 136].map(|start| start * scale).to_vec();
    let token = |t: u32| (t % 1009 * (t % 997) * 7 + t * 13 + seed * 29 + t % 5 * 41) % 251;
    Documents { starts, tokens: (0..136 * scale).map(token).collect() }
}

impl Documents {
    /// A value for each token that has a predecessor and passes `keep`; 0 for the others.
    pub fn weights(&self, value: impl Fn(usize) -> f32, keep: impl Fn(usize) -> bool) -> Vec<f32> {
        let opens = |t: usize| self.starts.contains(&(t as u32));
        (0..self.tokens.len()).map(|t| if keep(t) && !opens(t) { value(t) } else { 0.0 }).collect()
    }
}
