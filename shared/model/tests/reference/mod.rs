//! An independent Llama forward in double precision, straight from the paper's formulas, over
//! tensors by their Hugging Face names.

use std::collections::HashMap;

use cognate_model::{LlamaConfig, Model};

/// Every tensor by name, in double precision.
pub type Named = HashMap<String, Vec<f64>>;

/// The weights of `model` by name.
pub fn named(model: &Model) -> Named {
    let tensors = model.weights().tensors();
    let slots = model.weights().slots(model.config());
    slots
        .iter()
        .map(|s| {
            let values = &tensors[s.tensor].f32()[s.offset..s.offset + s.len()];
            (s.name.clone(), values.iter().map(|&x| f64::from(x)).collect())
        })
        .collect()
}

fn linear(x: &[f64], w: &[f64]) -> Vec<f64> {
    w.chunks(x.len()).map(|w| w.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
}

fn norm(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
    x.iter().zip(w).map(|(x, w)| x * r * w).collect()
}

fn rotate(x: &mut [f64], dim: usize, position: usize, theta: f64) {
    for head in x.chunks_mut(dim) {
        for i in 0..dim / 2 {
            let angle = position as f64 * theta.powf(-2.0 * i as f64 / dim as f64);
            let (a, b) = (head[i], head[i + dim / 2]);
            head[i] = a * angle.cos() - b * angle.sin();
            head[i + dim / 2] = b * angle.cos() + a * angle.sin();
        }
    }
}

/// Hidden states after each layer (index 0: embeddings; the last one normed) and logits, both a
/// row a token, of one document.
pub fn forward(c: &LlamaConfig, w: &Named, tokens: &[u32]) -> (Vec<Vec<Vec<f64>>>, Vec<Vec<f64>>) {
    forward_masked(c, w, tokens, |t| t + 1)
}

/// As [`forward`], token `t` attending to the first `seen(t)` tokens: for the test that a missing mask is noticed.
pub fn forward_masked(
    c: &LlamaConfig,
    w: &Named,
    tokens: &[u32],
    seen: impl Fn(usize) -> usize,
) -> (Vec<Vec<Vec<f64>>>, Vec<Vec<f64>>) {
    let (h, d, eps) = (c.hidden_size, c.head_dim, f64::from(c.rms_norm_eps));
    let embedding = &w["model.embed_tokens.weight"];
    let mut x: Vec<Vec<f64>> = tokens.iter().map(|&t| embedding[t as usize * h..][..h].to_vec()).collect();
    let mut states = vec![x.clone()];
    for l in 0..c.num_hidden_layers {
        let get = |name: &str| &w[&format!("model.layers.{l}.{name}")];
        let project = |x: &[f64], name: &str| {
            let mut y = linear(x, get(&format!("self_attn.{name}_proj.weight")));
            if c.has_bias() {
                let b = get(&format!("self_attn.{name}_proj.bias"));
                y.iter_mut().zip(b).for_each(|(y, b)| *y += b);
            }
            y
        };
        let (mut keys, mut values): (Vec<Vec<f64>>, Vec<Vec<f64>>) = (Vec::new(), Vec::new());
        let normed: Vec<Vec<f64>> = x.iter().map(|x| norm(x, get("input_layernorm.weight"), eps)).collect();
        for (t, normed) in normed.iter().enumerate() {
            let mut k = project(normed, "k");
            rotate(&mut k, d, t, c.rope_theta);
            keys.push(k);
            values.push(project(normed, "v"));
        }
        for (t, x) in x.iter_mut().enumerate() {
            let mut q = project(&normed[t], "q");
            rotate(&mut q, d, t, c.rope_theta);
            let mut out = vec![0.0; c.num_attention_heads * d];
            for head in 0..c.num_attention_heads {
                let g = head / (c.num_attention_heads / c.num_key_value_heads) * d;
                let q = &q[head * d..][..d];
                let score = |k: &Vec<f64>| {
                    (q.iter().zip(&k[g..]).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()).exp()
                };
                let scores: Vec<f64> = keys[..seen(t)].iter().map(score).collect();
                let total: f64 = scores.iter().sum();
                for (s, v) in scores.iter().zip(&values) {
                    for i in 0..d {
                        out[head * d + i] += s / total * v[g + i];
                    }
                }
            }
            let out = linear(&out, get("self_attn.o_proj.weight"));
            x.iter_mut().zip(&out).for_each(|(x, o)| *x += o);
            let normed = norm(x, get("post_attention_layernorm.weight"), eps);
            let gate = linear(&normed, get("mlp.gate_proj.weight"));
            let up = linear(&normed, get("mlp.up_proj.weight"));
            let act: Vec<f64> = gate.iter().zip(&up).map(|(g, u)| g / (1.0 + (-g).exp()) * u).collect();
            let down = linear(&act, get("mlp.down_proj.weight"));
            x.iter_mut().zip(&down).for_each(|(x, o)| *x += o);
        }
        states.push(x.clone());
    }
    let normed: Vec<Vec<f64>> = x.iter().map(|x| norm(x, &w["model.norm.weight"], eps)).collect();
    states[c.num_hidden_layers] = normed.clone();
    let head = w.get("lm_head.weight").unwrap_or(embedding);
    let logits = normed.iter().map(|x| linear(x, head)).collect();
    (states, logits)
}

/// `log p(tokens[t] | before)` at `temperature` for each token, 0 for the first.
pub fn logprobs(c: &LlamaConfig, w: &Named, tokens: &[u32], temperature: f64) -> Vec<f64> {
    let (_, logits) = forward(c, w, tokens);
    let mut out = vec![0.0];
    for (l, &t) in logits.iter().zip(&tokens[1..]) {
        let total: f64 = l.iter().map(|x| (x / temperature).exp()).sum();
        out.push(l[t as usize] / temperature - total.ln());
    }
    out
}
