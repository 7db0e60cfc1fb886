//! Forward and backward, in the order of the CPU's `llama.rs`, as launches.
//!
//! `T` tokens, `C` hidden size, `H`/`G` query/key heads of `D` channels, `F` feed-forward size. Kept a
//! token and layer for the backward: `2C` of the stream, `(H + 2G) D + H D` of attention, `2F` of gate
//! and up, in bf16. Norms and SwiGLU are computed again: the same bits from the same values.

use std::rc::Rc;

use cognate_kernels::attention::Heads;
use cognate_kernels::cuda::accelerator::{Accelerator, clear, write};
use cognate_kernels::cuda::arena::{Arena, Layout};
use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::launch::{CudaError, Element, Matrix};
use cognate_kernels::cuda::ops::{self, AttentionInputs, NormInputs, PARTIAL_ROWS, Residual, Rotation, Runs};
use cognate_kernels::rope::Table;

use super::{Done, Model};
use crate::LlamaConfig;
use crate::weights::Weights;

const BF16: Element = Element::Bf16;
const F32: Element = Element::F32;
const U32: Element = Element::U32;

/// What one layer leaves for the backward.
#[derive(Clone)]
pub(super) struct Layer {
    /// `[1, T]`: of the norm before attention, and before the feed-forward.
    rstd1: Matrix,
    rstd2: Matrix,
    /// `[T, (H + 2G) D]`, queries and keys rotated.
    pub qkv: Matrix,
    /// `[T, H D]` and `[T, H]`
    pub attention: Matrix,
    pub lse: Matrix,
    /// `[T, 2F]`; the backward puts its gradient there.
    gate_up: Matrix,
}

/// The buffers of the forward. Of what a backward reads there is one a layer, otherwise one for all.
pub(super) struct Activations {
    layers: Vec<Layer>,
    /// The residual stream `[T, C]` before each layer and amid it.
    residuals: Vec<Matrix>,
    mids: Vec<Matrix>,
    /// `[T, C]`: a norm's output; what a branch adds to the stream.
    normed: Matrix,
    branch: Matrix,
    /// `[T, F]`
    act: Matrix,
    /// The stream after the last layer and its norm's `[1, T]`.
    last: Matrix,
    last_rstd: Matrix,
}

/// The values of layer `l`: its own where all are kept, those that all layers share otherwise.
fn of<T>(values: &[T], l: usize) -> &T {
    &values[l % values.len()]
}

impl Activations {
    pub fn lay(layout: &mut Layout, config: &LlamaConfig, tokens: usize, keep: bool) -> Self {
        let (c, f, heads) = (config.hidden_size, config.intermediate_size, config.heads());
        let count = if keep { config.num_hidden_layers } else { 1 };
        let mut take = |element, cols| layout.take(element, tokens, cols);
        Activations {
            layers: (0..count)
                .map(|_| Layer {
                    rstd1: take(F32, 1),
                    rstd2: take(F32, 1),
                    qkv: take(BF16, heads.row()),
                    attention: take(BF16, heads.out()),
                    lse: take(F32, heads.query),
                    gate_up: take(BF16, 2 * f),
                })
                .collect(),
            residuals: (0..count).map(|_| take(BF16, c)).collect(),
            mids: (0..count).map(|_| take(BF16, c)).collect(),
            normed: take(BF16, c),
            branch: take(BF16, c),
            act: take(BF16, f),
            last: take(BF16, c),
            last_rstd: take(F32, 1),
        }
    }

    /// The same buffers for a batch of `tokens` tokens.
    fn top(&self, tokens: usize) -> Self {
        let all = |list: &[Matrix]| list.iter().map(|m| m.top(tokens)).collect();
        Activations {
            layers: self
                .layers
                .iter()
                .map(|v| Layer {
                    qkv: v.qkv.top(tokens),
                    attention: v.attention.top(tokens),
                    lse: v.lse.top(tokens),
                    gate_up: v.gate_up.top(tokens),
                    ..v.clone()
                })
                .collect(),
            residuals: all(&self.residuals),
            mids: all(&self.mids),
            normed: self.normed.top(tokens),
            branch: self.branch.top(tokens),
            act: self.act.top(tokens),
            last: self.last.top(tokens),
            last_rstd: self.last_rstd,
        }
    }

    /// The final norm's output `[T, C]` of the last forward.
    pub fn output(&self, tokens: usize) -> Matrix {
        self.normed.top(tokens)
    }
}

/// Cosines and sines on the device, grown to the longest document seen.
pub(super) struct Angles {
    table: Table,
    stored: Option<(Arena, Matrix, Matrix)>,
}

impl Angles {
    pub fn new(config: &LlamaConfig) -> Self {
        let cpu = cognate_kernels::Device::Cpu;
        let table = Table::new(cpu, config.head_dim, config.rope_theta, config.rope_scaling);
        Angles { table, stored: None }
    }

    /// Tables `[P, D/2]` of at least `positions` positions. Addresses change when they grow.
    pub fn reserve(
        &mut self,
        on: &Rc<dyn Accelerator>,
        positions: usize,
    ) -> Result<(Matrix, Matrix), CudaError> {
        self.table.reserve(positions);
        let (rows, (cos, sin)) = (self.table.positions(), self.table.values());
        if let Some((_, c, s)) = self.stored.as_ref().filter(|(_, c, _)| c.rows >= rows) {
            return Ok((*c, *s));
        }
        self.stored = None;
        let lay = |layout: &mut Layout| [(); 2].map(|()| layout.take(F32, rows, cos.cols()));
        let (arena, [c, s]) = Arena::new(on, "rotary angles", lay)?;
        write(&**on, c, cos.f32())?;
        write(&**on, s, sin.f32())?;
        self.stored = Some((arena, c, s));
        Ok((c, s))
    }
}

/// What the forward reads beside weights, on the device.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    /// `[1, T]` each.
    pub tokens: Matrix,
    pub positions: Matrix,
    pub angles: (Matrix, Matrix),
}

/// Runs the model and leaves the final norm's output in [`Activations::output`]. `attend(layer,
/// values)` fills `values.attention` (and `lse`) from `values.qkv`; `visit(layer, stream)` sees the
/// residual stream before each layer.
pub(super) fn forward(
    model: &Model,
    activations: &Activations,
    inputs: Inputs,
    mut attend: impl FnMut(usize, &Layer) -> Done,
    mut visit: impl FnMut(usize, Matrix) -> Done,
) -> Done {
    let (config, weights, on) = (model.config(), &model.weights, model.on());
    let (eps, heads) = (config.rms_norm_eps, config.heads());
    let a = activations.top(inputs.tokens.cols);
    let forward = |y, x, w, bias| on.product(Product::Forward, y, (x, w), false, bias);
    ops::embedding_forward(on, a.residuals[0], weights.embedding, inputs.tokens)?;
    visit(0, a.residuals[0])?;
    let norm = weights.layers[0].attention_norm;
    ops::rmsnorm_forward(on, a.normed, a.layers[0].rstd1, a.residuals[0], None, norm, eps)?;

    for (l, w) in weights.layers.iter().enumerate() {
        let (v, mid, stream) = (of(&a.layers, l), *of(&a.mids, l), *of(&a.residuals, l));
        forward(v.qkv, a.normed, w.qkv, w.qkv_bias)?;
        let turned = heads.query + heads.key;
        ops::rope(on, v.qkv, turned, inputs.positions, inputs.angles, Rotation::Forward)?;
        attend(l, v)?;
        forward(a.branch, v.attention, w.out, None)?;
        let residual = Some(Residual { s: mid, b: a.branch });
        ops::rmsnorm_forward(on, a.normed, v.rstd2, stream, residual, w.mlp_norm, eps)?;
        forward(v.gate_up, a.normed, w.gate_up, None)?;
        ops::swiglu_forward(on, a.act, v.gate_up)?;
        forward(a.branch, a.act, w.down, None)?;
        // On to the next layer's norm, or the last one
        let (s, rstd, norm) = match weights.layers.get(l + 1) {
            Some(next) => (*of(&a.residuals, l + 1), of(&a.layers, l + 1).rstd1, next.attention_norm),
            None => (a.last, a.last_rstd, weights.norm),
        };
        let residual = Some(Residual { s, b: a.branch });
        ops::rmsnorm_forward(on, a.normed, rstd, mid, residual, norm, eps)?;
        if l + 1 < weights.layers.len() {
            visit(l + 1, s)?;
        }
    }
    Ok(())
}

/// Lists that packed documents need on the device, at the front of buffers for a batch of any size up
/// to the arena's.
pub(super) struct Packed {
    tokens: Matrix,
    positions: Matrix,
    /// `[n, 3]`: tiles of queries and of keys; Hopper's are larger.
    queries: Matrix,
    keys: Matrix,
    /// Runs of equal tokens.
    ids: Matrix,
    starts: Matrix,
    order: Matrix,
}

/// `data` at the front of `buffer`, as rows of `cols` values.
pub(super) fn put<T: bytemuck::NoUninit>(
    on: &dyn Accelerator,
    buffer: Matrix,
    cols: usize,
    data: &[T],
) -> Result<Matrix, CudaError> {
    let values = size_of_val(data) / buffer.element.size();
    let matrix = buffer.part(0, values / cols.max(1), cols);
    write(on, matrix, data)?;
    Ok(matrix)
}

impl Packed {
    pub fn lay(layout: &mut Layout, tokens: usize) -> Self {
        let mut list = |n| layout.take(U32, 1, n);
        Packed {
            tokens: list(tokens),
            positions: list(tokens),
            queries: list(3 * tokens),
            keys: list(3 * tokens),
            ids: list(tokens),
            starts: list(tokens + 1),
            order: list(tokens),
        }
    }

    /// The lists of a batch; those of the backward too where `learn`.
    pub fn fill(
        &self,
        on: &dyn Accelerator,
        (tokens, positions, starts): (&[u32], &[u32], &[u32]),
        learn: bool,
    ) -> Result<Packed, CudaError> {
        let list = |to, data: &[u32]| put(on, to, data.len(), data);
        let (tokens_at, positions_at) = (list(self.tokens, tokens)?, list(self.positions, positions)?);
        let mut filled = Packed { tokens: tokens_at, positions: positions_at, ..*self };
        let queries = if on.hopper() { ops::query_tiles_sm90a } else { ops::query_tiles };
        let keys = if on.hopper() { ops::key_tiles_sm90a } else { ops::key_tiles };
        filled.queries = put(on, self.queries, 3, &queries(starts))?;
        if learn {
            let runs = Runs::new(tokens);
            filled.keys = put(on, self.keys, 3, &keys(starts))?;
            filled.ids = list(self.ids, &runs.ids)?;
            filled.starts = list(self.starts, &runs.starts)?;
            filled.order = list(self.order, &runs.order)?;
        }
        Ok(filled)
    }

    pub fn inputs(&self, angles: (Matrix, Matrix)) -> Inputs {
        Inputs { tokens: self.tokens, positions: self.positions, angles }
    }

    /// Attention within each document.
    pub fn attend(&self, on: &dyn Accelerator, v: &Layer, heads: Heads) -> Done {
        if on.hopper() {
            ops::attention_forward_sm90a(on, v.attention, v.lse, v.qkv, self.queries, heads)
        } else {
            ops::attention_forward(on, v.attention, v.lse, v.qkv, self.queries, heads)
        }
    }
}

/// The buffers of the backward: gradients of one layer's values, whatever the number of layers.
pub(super) struct Backward {
    /// Of the residual stream `[T, C]`.
    stream: Matrix,
    normed: Matrix,
    qkv: Matrix,
    attention: Matrix,
    act: Matrix,
    delta: Matrix,
    /// First stage of sums over tokens.
    partial: Matrix,
}

impl Backward {
    pub fn lay(layout: &mut Layout, config: &LlamaConfig, tokens: usize) -> Self {
        let (c, heads) = (config.hidden_size, config.heads());
        let mut take = |element, cols| layout.take(element, tokens, cols);
        Backward {
            stream: take(BF16, c),
            normed: take(BF16, c),
            qkv: take(BF16, heads.row()),
            attention: take(BF16, heads.out()),
            act: take(BF16, config.intermediate_size),
            delta: take(F32, heads.query),
            partial: layout.take(F32, PARTIAL_ROWS, c.max(heads.row())),
        }
    }

    fn top(&self, tokens: usize) -> Self {
        Backward {
            stream: self.stream.top(tokens),
            normed: self.normed.top(tokens),
            qkv: self.qkv.top(tokens),
            attention: self.attention.top(tokens),
            act: self.act.top(tokens),
            delta: self.delta.top(tokens),
            partial: self.partial,
        }
    }
}

/// Adds the gradients of all weights but the head's product to `gradients`, from `dnormed` `[T, C]`,
/// the gradient of the final norm's output; `activations` as [`forward`] left them. Gate and up are
/// overwritten.
pub(super) fn backward(
    model: &Model,
    gradients: &Weights<Matrix>,
    activations: &Activations,
    scratch: &Backward,
    dnormed: Matrix,
    packed: &Packed,
    angles: (Matrix, Matrix),
) -> Done {
    let (config, weights, on) = (model.config(), &model.weights, model.on());
    let (eps, heads) = (config.rms_norm_eps, config.heads());
    let (a, d) = (activations.top(dnormed.rows), scratch.top(dnormed.rows));
    let weight = |dw, dy, x| on.product(Product::Weight, dw, (dy, x), true, None);
    let input = |dx, dy, w| on.product(Product::Input, dx, (dy, w), false, None);
    let norm = |dw, dy, x, rstd, w| {
        ops::rmsnorm_backward(on, d.stream, dw, d.partial, NormInputs { dy, x, rstd, w })
    };

    clear(on, d.stream)?;
    norm(gradients.norm, dnormed, a.last, a.last_rstd, weights.norm)?;

    for (l, w) in weights.layers.iter().enumerate().rev() {
        let (v, mid, stream, g) = (&a.layers[l], a.mids[l], a.residuals[l], &gradients.layers[l]);
        // Feed-forward
        ops::swiglu_forward(on, a.act, v.gate_up)?;
        weight(g.down, d.stream, a.act)?;
        input(d.act, d.stream, w.down)?;
        ops::swiglu_backward(on, v.gate_up, d.act, v.gate_up)?;
        ops::rmsnorm_forward(on, a.normed, v.rstd2, mid, None, w.mlp_norm, eps)?;
        weight(g.gate_up, v.gate_up, a.normed)?;
        input(d.normed, v.gate_up, w.gate_up)?;
        norm(g.mlp_norm, d.normed, mid, v.rstd2, w.mlp_norm)?;
        // Attention
        weight(g.out, d.stream, v.attention)?;
        input(d.attention, d.stream, w.out)?;
        let inputs = AttentionInputs {
            dout: d.attention,
            qkv: v.qkv,
            out: v.attention,
            lse: v.lse,
            queries: packed.queries,
            keys: packed.keys,
        };
        if on.hopper() {
            ops::attention_backward_sm90a(on, d.qkv, d.delta, inputs, heads)?;
        } else {
            ops::attention_backward(on, d.qkv, d.delta, inputs, heads)?;
        }
        let turned = heads.query + heads.key;
        ops::rope(on, d.qkv, turned, packed.positions, angles, Rotation::Backward)?;
        if let Some(db) = g.qkv_bias {
            ops::bias_backward(on, db, d.partial, d.qkv)?;
        }
        ops::rmsnorm_forward(on, a.normed, v.rstd1, stream, None, w.attention_norm, eps)?;
        weight(g.qkv, d.qkv, a.normed)?;
        input(d.normed, d.qkv, w.qkv)?;
        norm(g.attention_norm, d.normed, stream, v.rstd1, w.attention_norm)?;
    }
    ops::embedding_backward(on, gradients.embedding, d.stream, packed.ids, packed.starts, packed.order)
}
