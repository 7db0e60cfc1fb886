//! The trained tensors, fused as the products want them, and the Hugging Face name of every part.
//! Gradients and optimizer moments have the same shape.

use cognate_kernels::{Device, Tensor};
use cognate_random::Key;
use rayon::prelude::*;

use crate::LlamaConfig;

/// One tensor for each weight of the model; also its gradients. `T` is a matrix on a device where it
/// is no tensor of the CPU.
#[derive(Clone, Debug)]
pub struct Weights<T = Tensor> {
    /// `[V, C]`; the head too where it is tied.
    pub embedding: T,
    pub layers: Vec<LayerWeights<T>>,
    /// `[1, C]`
    pub norm: T,
    /// `[V, C]`, absent where tied.
    pub head: Option<T>,
}

/// Gradients have the shape of the weights.
pub type Gradients = Weights;

/// The weights of one layer.
#[derive(Clone, Debug)]
pub struct LayerWeights<T = Tensor> {
    /// `[1, C]`
    pub attention_norm: T,
    /// Queries, keys and values as one product, `[(H + 2G) D, C]`.
    pub qkv: T,
    /// `[1, (H + 2G) D]`
    pub qkv_bias: Option<T>,
    /// `[C, H D]`
    pub out: T,
    /// `[1, C]`
    pub mlp_norm: T,
    /// Gate above up, `[2F, C]`.
    pub gate_up: T,
    /// `[C, F]`
    pub down: T,
}

/// A tensor of a model file inside the fused ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Hugging Face name.
    pub name: String,
    /// Index into [`Weights::tensors`].
    pub tensor: usize,
    /// First value in that tensor, row-major.
    pub offset: usize,
    pub shape: Vec<usize>,
}

impl Slot {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<T> Weights<T> {
    /// One `make(rows, cols)` for each weight of a model of this shape.
    pub fn build(config: &LlamaConfig, mut make: impl FnMut(usize, usize) -> T) -> Self {
        let (c, f, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        Weights {
            embedding: make(config.vocab_size, c),
            layers: (0..config.num_hidden_layers)
                .map(|_| LayerWeights {
                    attention_norm: make(1, c),
                    qkv: make(heads.row(), c),
                    qkv_bias: config.has_bias().then(|| make(1, heads.row())),
                    out: make(c, heads.out()),
                    mlp_norm: make(1, c),
                    gate_up: make(2 * f, c),
                    down: make(c, f),
                })
                .collect(),
            norm: make(1, c),
            head: (!config.tie_word_embeddings).then(|| make(config.vocab_size, c)),
        }
    }

    /// All tensors, in the order of [`Slot::tensor`].
    pub fn tensors(&self) -> Vec<&T> {
        let mut all = vec![&self.embedding];
        for layer in &self.layers {
            all.extend([&layer.attention_norm, &layer.qkv]);
            all.extend(&layer.qkv_bias);
            all.extend([&layer.out, &layer.mlp_norm, &layer.gate_up, &layer.down]);
        }
        all.push(&self.norm);
        all.extend(&self.head);
        all
    }

    /// As [`Weights::tensors`], writable.
    pub fn tensors_mut(&mut self) -> Vec<&mut T> {
        let mut all = vec![&mut self.embedding];
        for layer in &mut self.layers {
            all.extend([&mut layer.attention_norm, &mut layer.qkv]);
            all.extend(&mut layer.qkv_bias);
            all.extend([&mut layer.out, &mut layer.mlp_norm, &mut layer.gate_up, &mut layer.down]);
        }
        all.push(&mut self.norm);
        all.extend(&mut self.head);
        all
    }

    /// Every tensor of a model file, by name, and where it stands in the fused ones.
    pub fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        Weights::<Tensor>::layout(config)
    }
}

impl Weights {
    /// As [`Weights::slots`], for weights that need not exist.
    pub fn layout(config: &LlamaConfig) -> Vec<Slot> {
        let (c, f, v, heads) =
            (config.hidden_size, config.intermediate_size, config.vocab_size, config.heads());
        let (q, k) = (heads.out(), heads.key * heads.dim);
        let mut list = Slots { slots: Vec::new(), tensor: 0, offset: 0 };
        list.part("model.embed_tokens.weight", &[v, c]);
        for l in 0..config.num_hidden_layers {
            let name = |rest: &str| format!("model.layers.{l}.{rest}");
            list.next(&name("input_layernorm.weight"), &[c]);
            list.next(&name("self_attn.q_proj.weight"), &[q, c]);
            list.part(&name("self_attn.k_proj.weight"), &[k, c]);
            list.part(&name("self_attn.v_proj.weight"), &[k, c]);
            if config.has_bias() {
                list.next(&name("self_attn.q_proj.bias"), &[q]);
                list.part(&name("self_attn.k_proj.bias"), &[k]);
                list.part(&name("self_attn.v_proj.bias"), &[k]);
            }
            list.next(&name("self_attn.o_proj.weight"), &[c, q]);
            list.next(&name("post_attention_layernorm.weight"), &[c]);
            list.next(&name("mlp.gate_proj.weight"), &[f, c]);
            list.part(&name("mlp.up_proj.weight"), &[f, c]);
            list.next(&name("mlp.down_proj.weight"), &[c, f]);
        }
        list.next("model.norm.weight", &[c]);
        if !config.tie_word_embeddings {
            list.next("lm_head.weight", &[v, c]);
        }
        list.slots
    }

    /// All zero.
    pub fn zeros(config: &LlamaConfig, device: Device) -> Self {
        Weights::build(config, |rows, cols| Tensor::zeros(device, rows, cols))
    }

    /// Fresh weights: normal with deviation `initializer_range`, the two projections into the
    /// residual stream divided by `sqrt(2 layers)` (Radford et al. 2019), norms 1, biases 0.
    /// Each tensor is keyed by its name, so that its values depend on nothing else.
    pub fn init(config: &LlamaConfig, device: Device, seed: u64) -> Self {
        let mut weights = Weights::zeros(config, device);
        let slots = weights.slots(config);
        let residual = 1.0 / (2.0 * config.num_hidden_layers as f64).sqrt();
        let values: Vec<Vec<f32>> = slots
            .par_iter()
            .map(|slot| {
                if slot.name.ends_with("norm.weight") {
                    return vec![1.0; slot.len()];
                }
                if slot.name.ends_with(".bias") {
                    return vec![0.0; slot.len()];
                }
                let into_residual =
                    slot.name.ends_with("o_proj.weight") || slot.name.ends_with("down_proj.weight");
                let deviation = config.initializer_range * if into_residual { residual } else { 1.0 };
                let mut stream = Key::new(seed).with("init").with(slot.name.as_str()).stream();
                (0..slot.len()).map(|_| (stream.normal() * deviation) as f32).collect()
            })
            .collect();
        let mut tensors = weights.tensors_mut();
        for (slot, values) in slots.iter().zip(values) {
            tensors[slot.tensor].f32_mut()[slot.offset..slot.offset + values.len()].copy_from_slice(&values);
        }
        weights
    }

    /// Sets every value to 0.
    pub fn zero(&mut self) {
        for tensor in self.tensors_mut() {
            tensor.f32_mut().fill(0.0);
        }
    }
}

struct Slots {
    slots: Vec<Slot>,
    tensor: usize,
    offset: usize,
}

impl Slots {
    /// The next part of the present tensor.
    fn part(&mut self, name: &str, shape: &[usize]) {
        self.slots.push(Slot {
            name: name.into(),
            tensor: self.tensor,
            offset: self.offset,
            shape: shape.into(),
        });
        self.offset += shape.iter().product::<usize>();
    }

    /// The first part of the next tensor.
    fn next(&mut self, name: &str, shape: &[usize]) {
        self.tensor += 1;
        self.offset = 0;
        self.part(name, shape);
    }
}
