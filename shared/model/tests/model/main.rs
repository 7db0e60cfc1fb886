//! The whole model against an independent forward in double precision and finite differences of
//! it; packing, decoding, threads and files.

mod decoding;
mod directories;
#[path = "../reference/mod.rs"]
mod reference;
mod training;

use cognate_model::{Architecture, LlamaConfig, Model, Objective};

/// Shapes that differ in everything that can: head ratio, tying, bias, odd vocabulary, head
/// dimension apart from hidden / heads. Weights are large, so that every term matters.
fn shapes() -> Vec<LlamaConfig> {
    let base = LlamaConfig {
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 10,
        rope_theta: 100.0,
        max_position_embeddings: 64,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    vec![
        base.clone(),
        LlamaConfig { tie_word_embeddings: false, num_key_value_heads: 1, ..base.clone() },
        LlamaConfig { architecture: Architecture::Qwen2, num_key_value_heads: 4, ..base },
    ]
}

/// A model whose norms and biases are not at their start values, where mistakes hide.
fn model(config: &LlamaConfig) -> Model {
    let mut model = Model::init(config, 7).unwrap();
    for (i, tensor) in model.weights_mut().tensors_mut().into_iter().enumerate() {
        if tensor.rows() == 1 {
            for (j, x) in tensor.f32_mut().iter_mut().enumerate() {
                *x += 0.4 * ((i * 31 + j * 7) as f32).sin();
            }
        }
    }
    model
}

fn documents(vocabulary: usize, lengths: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32];
    lengths.iter().for_each(|&n| starts.push(starts[starts.len() - 1] + n as u32));
    let total = starts[lengths.len()] as usize;
    ((0..total).map(|t| ((t * t * 7 + t * 13 + 5) % vocabulary) as u32).collect(), starts)
}

fn objective() -> Objective {
    Objective {
        cross_entropy_count: 11.0,
        policy_count: 5.0,
        kl_count: 3.0,
        clip_low: 0.9,
        clip_high: 50.0,
        importance_cap: Some(1.5),
        temperature: 0.8,
        ..Objective::default()
    }
}

fn in_pool<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
