//! The Llama forward and backward (Touvron et al. 2023), explicit and in order, over the ops of
//! `kernels/`. No tape: what the backward needs stands in [`Activations`], allocated once and
//! reused from step to step.
//!
//! `T` tokens, `C` hidden size, `H`/`G` query/key heads of `D` channels, `F` feed-forward size.

use cognate_kernels::rope::Table;
use cognate_kernels::{Device, Tensor, attention, bias, embedding, matmul, rmsnorm, rope, swiglu};

use crate::weights::Gradients;
use crate::{LlamaConfig, Model};

/// What one layer computes on the way forward.
pub(crate) struct Layer {
    /// `[1, T]` and `[T, C]`: the attention's RMSNorm.
    pub rstd1: Tensor,
    pub normed1: Tensor,
    /// `[T, (H + 2G) D]`, queries and keys rotated.
    pub qkv: Tensor,
    /// `[T, H D]` and `[T, H]`
    pub attention: Tensor,
    pub lse: Tensor,
    /// `[1, T]` and `[T, C]`: the feed-forward's RMSNorm.
    pub rstd2: Tensor,
    pub normed2: Tensor,
    /// `[T, 2F]` and `[T, F]`
    pub gate_up: Tensor,
    pub act: Tensor,
}

/// The arena of the forward: every layer's values when a backward follows, one layer's otherwise.
pub(crate) struct Activations {
    layers: Vec<Layer>,
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
    /// An arena for `tokens` tokens; it grows when a batch is larger. `keep`: for a backward.
    pub fn new(config: &LlamaConfig, device: Device, tokens: usize, keep: bool) -> Self {
        let (c, f, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let zeros = |cols| Tensor::zeros(device, tokens, cols);
        let count = if keep { config.num_hidden_layers } else { 1 };
        let layer = |_| Layer {
            rstd1: zeros(1),
            normed1: zeros(c),
            qkv: zeros(heads.row()),
            attention: zeros(heads.out()),
            lse: zeros(heads.query),
            rstd2: zeros(1),
            normed2: zeros(c),
            gate_up: zeros(2 * f),
            act: zeros(f),
        };
        Activations {
            layers: (0..count).map(layer).collect(),
            residuals: (0..count).map(|_| zeros(c)).collect(),
            mids: (0..count).map(|_| zeros(c)).collect(),
            branch: zeros(c),
            last: zeros(c),
            last_rstd: zeros(1),
            normed: zeros(c),
            table: Table::new(device, config.head_dim, config.rope_theta, config.rope_scaling),
        }
    }

    fn set_rows(&mut self, tokens: usize) {
        for layer in &mut self.layers {
            for tensor in [
                &mut layer.rstd1,
                &mut layer.normed1,
                &mut layer.qkv,
                &mut layer.attention,
                &mut layer.lse,
                &mut layer.rstd2,
                &mut layer.normed2,
                &mut layer.gate_up,
                &mut layer.act,
            ] {
                tensor.set_rows(tokens);
            }
        }
        for tensor in self.residuals.iter_mut().chain(&mut self.mids) {
            tensor.set_rows(tokens);
        }
        for tensor in [&mut self.branch, &mut self.last, &mut self.last_rstd, &mut self.normed] {
            tensor.set_rows(tokens);
        }
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
    // Without a backward all layers share one set of values.
    let kept = a.layers.len();
    let at = |l: usize| l % kept;

    embedding::forward(&mut a.residuals[0], &weights.embedding, tokens);
    visit(0, &a.residuals[0]);
    let first = &mut a.layers[0];
    let norm = &weights.layers[0].attention_norm;
    rmsnorm::forward(&mut first.normed1, &mut first.rstd1, &a.residuals[0], norm, eps);

    for (l, w) in weights.layers.iter().enumerate() {
        let v = &mut a.layers[at(l)];
        let mid = &mut a.mids[at(l)];
        // Attention
        matmul::forward(&mut v.qkv, &v.normed1, &w.qkv);
        if let Some(b) = &w.qkv_bias {
            bias::forward(&mut v.qkv, b);
        }
        rope::forward(
            &mut v.qkv,
            config.num_attention_heads + config.num_key_value_heads,
            positions,
            &a.table,
        );
        attend(l, v);
        matmul::forward(&mut a.branch, &v.attention, &w.out);
        // Feed-forward
        let residual = &a.residuals[at(l)];
        rmsnorm::forward_residual(mid, &mut v.normed2, &mut v.rstd2, residual, &a.branch, &w.mlp_norm, eps);
        matmul::forward(&mut v.gate_up, &v.normed2, &w.gate_up);
        swiglu::forward(&mut v.act, &v.gate_up);
        matmul::forward(&mut a.branch, &v.act, &w.down);
        // On to the next layer's norm, or the last one
        match weights.layers.get(l + 1) {
            Some(next) => {
                let stream = &mut a.residuals[at(l + 1)];
                let v = &mut a.layers[at(l + 1)];
                let norm = &next.attention_norm;
                rmsnorm::forward_residual(stream, &mut v.normed1, &mut v.rstd1, mid, &a.branch, norm, eps);
                visit(l + 1, stream);
            }
            None => {
                let (y, rstd) = (&mut a.normed, &mut a.last_rstd);
                rmsnorm::forward_residual(&mut a.last, y, rstd, mid, &a.branch, &weights.norm, eps);
            }
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
    activations: &Activations,
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
        let (v, g) = (&a.layers[l], &mut gradients.layers[l]);
        // Feed-forward
        matmul::backward_weight(&mut g.down, &d.stream, &v.act);
        matmul::backward_input(&mut d.act, &d.stream, &w.down);
        swiglu::backward(&mut d.gate_up, &d.act, &v.gate_up);
        matmul::backward_weight(&mut g.gate_up, &d.gate_up, &v.normed2);
        matmul::backward_input(&mut d.normed, &d.gate_up, &w.gate_up);
        let (dw, partial) = (&mut g.mlp_norm, &mut d.partial);
        rmsnorm::backward(&mut d.stream, dw, partial, &d.normed, &a.mids[l], &v.rstd2, &w.mlp_norm);
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
