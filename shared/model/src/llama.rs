//! The Llama forward and backward (Touvron et al. 2023), explicit and in order, over the ops of
//! `kernels/`. No tape: what the backward needs stands in [`Activations`], allocated once and
//! reused from step to step.
//!
//! `T` tokens, `C` hidden size, `H`/`G` query/key heads of `D` channels, `F` feed-forward size.

use cognate_kernels::rope::Table;
use cognate_kernels::{Device, Tensor, attention, bias, embedding, matmul, rmsnorm, rope, swiglu};

use crate::weights::{Gradients, LayerWeights};
use crate::{LlamaConfig, Model};

/// What is kept from the forward for the backward, and what is computed again instead. The same ops
/// run on the same values, so gradients are the same bits at every level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Recompute {
    /// Everything is kept.
    #[default]
    None,
    /// The feed-forward (norm, gate and up, SwiGLU) is computed again: one product more a layer.
    FeedForward,
    /// Only the residual stream before each layer is kept; the rest of the layer is computed again,
    /// all but the down product.
    Block,
}

/// What the attention half of one layer computes on the way forward.
pub(crate) struct Layer {
    /// `[1, T]` and `[T, C]`: the attention's RMSNorm.
    pub rstd1: Tensor,
    pub normed1: Tensor,
    /// `[T, (H + 2G) D]`, queries and keys rotated.
    pub qkv: Tensor,
    /// `[T, H D]` and `[T, H]`
    pub attention: Tensor,
    pub lse: Tensor,
}

/// What the feed-forward half computes.
struct FeedForward {
    /// `[1, T]` and `[T, C]`: the feed-forward's RMSNorm.
    rstd2: Tensor,
    normed2: Tensor,
    /// `[T, 2F]` and `[T, F]`
    gate_up: Tensor,
    act: Tensor,
}

/// The arena of the forward. Of what a backward will read there is one a layer, of the rest one for
/// all, so a list's length says how to index it.
pub(crate) struct Activations {
    layers: Vec<Layer>,
    feed_forwards: Vec<FeedForward>,
    /// The residual stream `[T, C]` before each layer and amid it (before the feed-forward).
    residuals: Vec<Tensor>,
    mids: Vec<Tensor>,
    /// What a branch adds to the stream `[T, C]`.
    branch: Tensor,
    /// The stream after the last layer `[T, C]`, its norm's `[1, T]`, and the normed result.
    last: Tensor,
    last_rstd: Tensor,
    pub normed: Tensor,
    /// Rotary angles.
    pub table: Table,
}

impl Activations {
    /// An arena for `tokens` tokens; it grows when a batch is larger. `keep`: for a backward, and how
    /// much of it.
    pub fn new(config: &LlamaConfig, device: Device, tokens: usize, keep: Option<Recompute>) -> Self {
        let (c, f, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let zeros = |cols| Tensor::zeros(device, tokens, cols);
        let count = |kept: bool| if kept { config.num_hidden_layers } else { 1 };
        let halves = count(matches!(keep, Some(Recompute::None | Recompute::FeedForward)));
        let layer = |_| Layer {
            rstd1: zeros(1),
            normed1: zeros(c),
            qkv: zeros(heads.row()),
            attention: zeros(heads.out()),
            lse: zeros(heads.query),
        };
        let feed_forward =
            |_| FeedForward { rstd2: zeros(1), normed2: zeros(c), gate_up: zeros(2 * f), act: zeros(f) };
        Activations {
            layers: (0..halves).map(layer).collect(),
            feed_forwards: (0..count(keep == Some(Recompute::None))).map(feed_forward).collect(),
            residuals: (0..count(keep.is_some())).map(|_| zeros(c)).collect(),
            mids: (0..halves).map(|_| zeros(c)).collect(),
            branch: zeros(c),
            last: zeros(c),
            last_rstd: zeros(1),
            normed: zeros(c),
            table: Table::new(device, config.head_dim, config.rope_theta, config.rope_scaling),
        }
    }

    fn tensors(&mut self) -> impl Iterator<Item = &mut Tensor> {
        let layers = self.layers.iter_mut();
        let feed_forwards = self.feed_forwards.iter_mut();
        layers
            .flat_map(|v| [&mut v.rstd1, &mut v.normed1, &mut v.qkv, &mut v.attention, &mut v.lse])
            .chain(feed_forwards.flat_map(|f| [&mut f.rstd2, &mut f.normed2, &mut f.gate_up, &mut f.act]))
            .chain(&mut self.residuals)
            .chain(&mut self.mids)
            .chain([&mut self.branch, &mut self.last, &mut self.last_rstd, &mut self.normed])
    }

    fn set_rows(&mut self, tokens: usize) {
        self.tensors().for_each(|tensor| tensor.set_rows(tokens));
    }

    /// Bytes held.
    pub fn bytes(&mut self) -> usize {
        self.tensors().map(|tensor| tensor.bytes()).sum()
    }
}

/// Runs the model on `tokens` at `positions` and leaves the final norm's output in
/// `activations.normed`. `attend(layer, values)` fills `values.attention` (and `lse`) from
/// `values.qkv`: over packed documents in training, over the cache in decoding. `visit(layer,
/// stream)` sees the residual stream before each layer.
pub(crate) fn forward(
    model: &Model,
    activations: &mut Activations,
    tokens: &[u32],
    positions: &[u32],
    mut attend: impl FnMut(usize, &mut Layer),
    mut visit: impl FnMut(usize, &Tensor),
) {
    let (config, weights) = (&model.config, &model.weights);
    let eps = config.rms_norm_eps;
    let a = activations;
    a.set_rows(tokens.len());
    a.table.reserve(positions.iter().max().map_or(0, |&p| p as usize + 1));
    embedding::forward(&mut a.residuals[0], &weights.embedding, tokens);
    visit(0, &a.residuals[0]);
    let first = &mut a.layers[0];
    let norm = &weights.layers[0].attention_norm;
    rmsnorm::forward(&mut first.normed1, &mut first.rstd1, &a.residuals[0], norm, eps);

    for (l, w) in weights.layers.iter().enumerate() {
        let (v, f) = (of(&mut a.layers, l), of(&mut a.feed_forwards, l));
        let (mid, residual) = (of(&mut a.mids, l), of(&mut a.residuals, l));
        project(config, w, v, positions, &a.table);
        attend(l, v);
        let (y, rstd, branch) = (&mut f.normed2, &mut f.rstd2, &mut a.branch);
        rmsnorm::forward_residual_product(
            mid,
            y,
            rstd,
            residual,
            branch,
            &v.attention,
            &w.out,
            &w.mlp_norm,
            eps,
        );
        feed_forward(w, f);
        // On to the next layer's norm, or the last one
        match weights.layers.get(l + 1) {
            Some(next) => {
                let stream = of(&mut a.residuals, l + 1);
                let v = of(&mut a.layers, l + 1);
                let norm = &next.attention_norm;
                let (y, rstd) = (&mut v.normed1, &mut v.rstd1);
                rmsnorm::forward_residual_product(stream, y, rstd, mid, branch, &f.act, &w.down, norm, eps);
                visit(l + 1, stream);
            }
            None => {
                let (y, rstd) = (&mut a.normed, &mut a.last_rstd);
                let (last, norm) = (&mut a.last, &weights.norm);
                rmsnorm::forward_residual_product(last, y, rstd, mid, branch, &f.act, &w.down, norm, eps);
            }
        }
    }
}

/// The values of layer `l`: its own where all are kept, those that all layers share otherwise.
fn of<T>(values: &mut [T], l: usize) -> &mut T {
    let kept = values.len();
    &mut values[l % kept]
}

/// Queries, keys and values of the normed stream, rotated.
fn project(config: &LlamaConfig, w: &LayerWeights, v: &mut Layer, positions: &[u32], table: &Table) {
    let heads = config.num_attention_heads + config.num_key_value_heads;
    let (qkv, bias) = (&mut v.qkv, w.qkv_bias.as_ref());
    rope::forward_product(qkv, &v.normed1, &w.qkv, bias, heads, positions, table);
}

/// Gate, up and their product of the normed stream.
fn feed_forward(w: &LayerWeights, f: &mut FeedForward) {
    swiglu::forward_product(&mut f.act, &mut f.gate_up, &f.normed2, &w.gate_up);
}

impl Activations {
    /// Computes again what the backward of layer `l` reads and the forward did not keep.
    fn restore(&mut self, model: &Model, l: usize, positions: &[u32], starts: &[u32]) {
        // What the last layer left still stands.
        if l + 1 == model.weights.layers.len() {
            return;
        }
        let (config, w) = (&model.config, &model.weights.layers[l]);
        let (heads, eps) = (config.heads(), config.rms_norm_eps);
        if self.layers.len() == 1 {
            let (v, f, mid) = (&mut self.layers[0], &mut self.feed_forwards[0], &mut self.mids[0]);
            let residual = &self.residuals[l];
            rmsnorm::forward(&mut v.normed1, &mut v.rstd1, residual, &w.attention_norm, eps);
            project(config, w, v, positions, &self.table);
            attention::forward(&mut v.attention, &mut v.lse, &v.qkv, starts, heads);
            let (y, rstd, branch) = (&mut f.normed2, &mut f.rstd2, &mut self.branch);
            rmsnorm::forward_residual_product(
                mid,
                y,
                rstd,
                residual,
                branch,
                &v.attention,
                &w.out,
                &w.mlp_norm,
                eps,
            );
            feed_forward(w, f);
        } else if self.feed_forwards.len() == 1 {
            let f = &mut self.feed_forwards[0];
            rmsnorm::forward(&mut f.normed2, &mut f.rstd2, &self.mids[l], &w.mlp_norm, eps);
            feed_forward(w, f);
        }
    }
}

/// The arena of the backward: gradients of one layer's values, whatever the number of layers.
pub(crate) struct Backward {
    /// Of the residual stream `[T, C]`.
    stream: Tensor,
    normed: Tensor,
    qkv: Tensor,
    attention: Tensor,
    gate_up: Tensor,
    act: Tensor,
    partial: Tensor,
}

impl Backward {
    pub fn new(config: &LlamaConfig, device: Device, tokens: usize) -> Self {
        let zeros = |cols| Tensor::zeros(device, tokens, cols);
        Backward {
            stream: zeros(config.hidden_size),
            normed: zeros(config.hidden_size),
            qkv: zeros(config.heads().row()),
            attention: zeros(config.heads().out()),
            gate_up: zeros(2 * config.intermediate_size),
            act: zeros(config.intermediate_size),
            partial: Tensor::zeros(device, 0, 1),
        }
    }

    fn set_rows(&mut self, tokens: usize) {
        for tensor in [
            &mut self.stream,
            &mut self.normed,
            &mut self.qkv,
            &mut self.attention,
            &mut self.gate_up,
            &mut self.act,
        ] {
            tensor.set_rows(tokens);
        }
    }
}

/// Adds the gradients of all weights but an untied head to `gradients`, from `dnormed` `[T, C]`,
/// the gradient of the final norm's output; `activations` as [`forward`] left them.
#[expect(clippy::too_many_arguments, reason = "a forward's operands and a backward's")]
pub(crate) fn backward(
    model: &Model,
    gradients: &mut Gradients,
    activations: &mut Activations,
    scratch: &mut Backward,
    dnormed: &Tensor,
    tokens: &[u32],
    positions: &[u32],
    starts: &[u32],
) {
    let (config, weights, a, d) = (&model.config, &model.weights, activations, scratch);
    let heads = config.heads();
    d.set_rows(tokens.len());

    d.stream.f32_mut().fill(0.0);
    let (dw, partial) = (&mut gradients.norm, &mut d.partial);
    rmsnorm::backward(&mut d.stream, dw, partial, dnormed, &a.last, &a.last_rstd, &weights.norm);

    for (l, w) in weights.layers.iter().enumerate().rev() {
        a.restore(model, l, positions, starts);
        let g = &mut gradients.layers[l];
        let (v, f) = (&*of(&mut a.layers, l), &*of(&mut a.feed_forwards, l));
        // Feed-forward
        matmul::backward_weight(&mut g.down, &d.stream, &f.act);
        swiglu::backward_product(&mut d.gate_up, &mut d.act, &d.stream, &w.down, &f.gate_up);
        matmul::backward_weight(&mut g.gate_up, &d.gate_up, &f.normed2);
        matmul::backward_input(&mut d.normed, &d.gate_up, &w.gate_up);
        let (dw, partial) = (&mut g.mlp_norm, &mut d.partial);
        rmsnorm::backward(&mut d.stream, dw, partial, &d.normed, of(&mut a.mids, l), &f.rstd2, &w.mlp_norm);
        // Attention
        matmul::backward_weight(&mut g.out, &d.stream, &v.attention);
        matmul::backward_input(&mut d.attention, &d.stream, &w.out);
        attention::backward(&mut d.qkv, &d.attention, &v.qkv, &v.attention, &v.lse, starts, heads);
        rope::backward(&mut d.qkv, heads.query + heads.key, positions, &a.table);
        if let Some(db) = &mut g.qkv_bias {
            bias::backward(db, &mut d.partial, &d.qkv);
        }
        matmul::backward_weight(&mut g.qkv, &d.qkv, &v.normed1);
        matmul::backward_input(&mut d.normed, &d.qkv, &w.qkv);
        let (dw, partial) = (&mut g.attention_norm, &mut d.partial);
        rmsnorm::backward(
            &mut d.stream,
            dw,
            partial,
            &d.normed,
            &a.residuals[l],
            &v.rstd1,
            &w.attention_norm,
        );
    }
    embedding::backward(&mut gradients.embedding, &d.stream, tokens);
}
