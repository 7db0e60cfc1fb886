//! The launchers, one or two an op: they check shapes, choose the grid and name the kernel. What
//! each computes stands in the head of its `.cu`, and its CPU twin in the `.rs` of the same name.
//!
//! Matrices of tokens are `[T, C]`; lists (tokens, starts, targets, ...) are `[1, n]` of 32 bits.

use bytemuck::{NoUninit, Zeroable};

use super::decode_plan::Plan;
use super::launch::{Arguments, CudaError, Element, Engine, Matrix, Shape};
use crate::attention::Heads;
use crate::policy_loss::{KlEstimator, Objective, Terms};

pub(super) type Done = Result<(), CudaError>;

/// Rows of the first stage of sums over tokens (`dw` of the norms, gradients of biases): fixed, so
/// that the order of additions is. About two blocks a multiprocessor of the largest GPUs.
pub const PARTIAL_ROWS: usize = 256;
/// Positions of a tile of attention.
pub const ATTENTION_TILE: usize = 64;
/// The same on Hopper.
pub const ATTENTION_TILE_SM90A: usize = 128;
/// A producer's warp group and two consumers.
const HOPPER_THREADS: u32 = 384;
/// Bytes of shared memory beyond the tiles.
const HOPPER_BARRIERS: u32 = 128;
/// Values that one block of `grad_norm` sums.
pub const NORM_BLOCK: usize = 16384;

/// `threads` a block, as many blocks as `work` needs.
fn line(work: usize, threads: usize) -> Shape {
    Shape { grid: [work.div_ceil(threads) as u32, 1, 1], block: threads as u32, shared: 0 }
}

/// `x` blocks of 256 threads, each thread with one pack of `cols` values in y.
fn plane(x: usize, cols: usize, element: Element) -> Shape {
    let packs = cols / element.pack();
    let threads = packs.clamp(1, 256).next_multiple_of(32);
    Shape { grid: [x as u32, packs.div_ceil(threads) as u32, 1], block: threads as u32, shared: 0 }
}

fn packs(m: Matrix) -> usize {
    assert!(m.cols.is_multiple_of(m.element.pack()), "rows of {} values are not whole 16 bytes", m.cols);
    m.rows * m.cols / m.element.pack()
}

/// An empty grid is refused by the driver, and has nothing to do.
pub(super) fn run(
    on: &dyn Engine,
    source: &'static str,
    name: &str,
    shape: Shape,
    arguments: Arguments,
) -> Result<(), CudaError> {
    if shape.grid.contains(&0) {
        return Ok(());
    }
    on.launch(source, name, shape, arguments)
}

/// `y[t] = table[tokens[t]]`.
pub fn embedding_forward(on: &dyn Engine, y: Matrix, table: Matrix, tokens: Matrix) -> Done {
    let e = y.element;
    table.expect("table", e, table.rows, y.cols);
    tokens.expect("tokens", Element::U32, 1, y.rows);
    let arguments = Arguments::default().matrix(y).matrix(table).matrix(tokens).size(y.rows).size(y.cols);
    run(on, "embedding", &format!("embedding_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// Positions sorted by token, for [`embedding_backward`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Distinct tokens, ascending.
    pub ids: Vec<u32>,
    /// Where each token's positions begin in `order`, and their end.
    pub starts: Vec<u32>,
    /// Positions, ascending within a token.
    pub order: Vec<u32>,
}

impl Runs {
    pub fn new(tokens: &[u32]) -> Self {
        let mut order: Vec<u32> = (0..tokens.len() as u32).collect();
        order.sort_by_key(|&t| tokens[t as usize]);
        let mut runs = Runs { order, ..Runs::default() };
        for (i, &t) in runs.order.iter().enumerate() {
            if runs.ids.last() != Some(&tokens[t as usize]) {
                runs.ids.push(tokens[t as usize]);
                runs.starts.push(i as u32);
            }
        }
        runs.starts.push(tokens.len() as u32);
        runs
    }
}

/// `dtable[tokens[t]] += dy[t]`; `ids`, `starts`, `order` are [`Runs`] on the device.
pub fn embedding_backward(
    on: &dyn Engine,
    dtable: Matrix,
    dy: Matrix,
    ids: Matrix,
    starts: Matrix,
    order: Matrix,
) -> Done {
    let e = dy.element;
    dtable.expect("dtable", e, dtable.rows, dy.cols);
    order.expect("order", Element::U32, 1, dy.rows);
    starts.expect("starts", Element::U32, 1, ids.cols + 1);
    packs(dy);
    let arguments =
        Arguments::default().matrix(dtable).matrix(dy).matrix(ids).matrix(starts).matrix(order).size(dy.cols);
    let name = format!("embedding_backward_{}", e.suffix());
    run(on, "embedding", &name, plane(ids.cols, dy.cols, e), arguments)
}

/// `y[i] = x[rows[i]]`, zeros where `rows[i]` is `u32::MAX`: forward with the rows picked, backward
/// with their inverse.
pub fn gather(on: &dyn Engine, y: Matrix, x: Matrix, rows: Matrix) -> Done {
    let e = y.element;
    x.expect("x", e, x.rows, y.cols);
    rows.expect("rows", Element::U32, 1, y.rows);
    let arguments = Arguments::default().matrix(y).matrix(x).matrix(rows).size(y.rows).size(y.cols);
    run(on, "gather", &format!("gather_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// What [`pooling`] takes of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    Mean,
    Last,
}

/// One vector a document: `y` `[D, C]` fp32.
pub fn pooling(on: &dyn Engine, y: Matrix, x: Matrix, starts: Matrix, how: Pooling) -> Done {
    let e = x.element;
    y.expect("y", Element::F32, y.rows, x.cols);
    starts.expect("starts", Element::U32, 1, y.rows + 1);
    packs(x);
    let how = match how {
        Pooling::Mean => "mean",
        Pooling::Last => "last",
    };
    let arguments = Arguments::default().matrix(y).matrix(x).matrix(starts).size(x.cols);
    run(on, "pooling", &format!("pooling_{how}_{}", e.suffix()), plane(y.rows, x.cols, e), arguments)
}

/// `y += b`.
pub fn bias_forward(on: &dyn Engine, y: Matrix, b: Matrix) -> Done {
    let e = y.element;
    b.expect("b", e, 1, y.cols);
    let arguments = Arguments::default().matrix(y).matrix(b).size(y.rows).size(y.cols);
    run(on, "bias", &format!("bias_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// `db += Σ_t dy[t]`; `partial` is scratch of `PARTIAL_ROWS * N` fp32.
pub fn bias_backward(on: &dyn Engine, db: Matrix, partial: Matrix, dy: Matrix) -> Done {
    let (e, blocks) = (dy.element, PARTIAL_ROWS.min(dy.rows));
    db.expect("db", e, 1, dy.cols);
    partial.at_least("partial", Element::F32, blocks * dy.cols);
    packs(dy);
    let arguments = Arguments::default().matrix(partial).matrix(dy).size(dy.rows).size(dy.cols);
    run(on, "bias", &format!("bias_backward_{}", e.suffix()), plane(blocks, dy.cols, e), arguments)?;
    let arguments = Arguments::default().matrix(db).matrix(partial).size(blocks).size(dy.cols);
    run(on, "bias", &format!("bias_columns_{}", e.suffix()), line(dy.cols, 256), arguments)
}

/// The residual branch of a norm: `s = x + b` is written.
#[derive(Clone, Copy, Debug)]
pub struct Residual {
    pub s: Matrix,
    pub b: Matrix,
}

/// Threads, and packs a thread, for rows of one norm.
fn norm_shape(x: Matrix) -> (usize, usize) {
    let packs = packs(x) / x.rows.max(1);
    let each = packs.div_ceil(256).next_power_of_two();
    assert!(each <= 4, "rows of {} values are beyond what a block holds", x.cols);
    (packs.div_ceil(each).next_multiple_of(32), each)
}

/// `y = rmsnorm(x + b) ⊙ w`, `rstd` `[1, T]` fp32.
pub fn rmsnorm_forward(
    on: &dyn Engine,
    y: Matrix,
    rstd: Matrix,
    x: Matrix,
    residual: Option<Residual>,
    w: Matrix,
    eps: f32,
) -> Done {
    let e = x.element;
    y.expect("y", e, x.rows, x.cols);
    w.expect("w", e, 1, x.cols);
    rstd.at_least("rstd", Element::F32, x.rows);
    if let Some(r) = residual {
        r.s.expect("s", e, x.rows, x.cols);
        r.b.expect("b", e, x.rows, x.cols);
    }
    let (threads, each) = norm_shape(x);
    let arguments = Arguments::default()
        .optional(residual.map(|r| r.s))
        .matrix(y)
        .matrix(rstd)
        .matrix(x)
        .optional(residual.map(|r| r.b))
        .matrix(w)
        .size(x.cols)
        .value(eps);
    let shape = Shape { grid: [x.rows as u32, 1, 1], block: threads as u32, shared: 0 };
    run(on, "rmsnorm", &format!("rmsnorm_forward_{}_{each}", e.suffix()), shape, arguments)
}

/// What [`rmsnorm_backward`] reads.
#[derive(Clone, Copy, Debug)]
pub struct NormInputs {
    pub dy: Matrix,
    pub x: Matrix,
    pub rstd: Matrix,
    pub w: Matrix,
}

/// `dx += …`, `dw += …`; `partial` is scratch of `PARTIAL_ROWS * C` fp32.
pub fn rmsnorm_backward(
    on: &dyn Engine,
    dx: Matrix,
    dw: Matrix,
    partial: Matrix,
    inputs: NormInputs,
) -> Done {
    let NormInputs { dy, x, rstd, w } = inputs;
    let (e, blocks) = (x.element, PARTIAL_ROWS.min(x.rows));
    for (name, m) in [("dx", dx), ("dy", dy)] {
        m.expect(name, e, x.rows, x.cols);
    }
    for (name, m) in [("dw", dw), ("w", w)] {
        m.expect(name, e, 1, x.cols);
    }
    rstd.at_least("rstd", Element::F32, x.rows);
    partial.at_least("partial", Element::F32, blocks * x.cols);
    let (threads, each) = norm_shape(x);
    let arguments = Arguments::default()
        .matrix(dx)
        .matrix(partial)
        .matrix(dy)
        .matrix(x)
        .matrix(rstd)
        .matrix(w)
        .size(x.rows)
        .size(x.cols);
    let shape = Shape { grid: [blocks as u32, 1, 1], block: threads as u32, shared: 0 };
    run(on, "rmsnorm", &format!("rmsnorm_backward_{}_{each}", e.suffix()), shape, arguments)?;
    let arguments = Arguments::default().matrix(dw).matrix(partial).size(blocks).size(x.cols);
    run(on, "rmsnorm", &format!("rmsnorm_columns_{}", e.suffix()), line(x.cols, 256), arguments)
}

/// Which way [`rope`] turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    Forward,
    Backward,
}

/// Rotates the first `heads` heads of each row of `qkv` by `positions`; `cos`, `sin` `[P, D/2]` fp32.
pub fn rope(
    on: &dyn Engine,
    qkv: Matrix,
    heads: usize,
    positions: Matrix,
    (cos, sin): (Matrix, Matrix),
    rotation: Rotation,
) -> Done {
    let (e, dim) = (qkv.element, cos.cols * 2);
    assert!(cos.cols.is_multiple_of(e.pack()) && heads * dim <= qkv.cols, "heads lie within the row");
    cos.expect("cos", Element::F32, cos.rows, cos.cols);
    sin.expect("sin", Element::F32, cos.rows, cos.cols);
    positions.expect("positions", Element::U32, 1, qkv.rows);
    packs(qkv);
    let arguments = Arguments::default()
        .matrix(qkv)
        .matrix(positions)
        .matrix(cos)
        .matrix(sin)
        .size(qkv.rows)
        .size(qkv.cols)
        .size(heads)
        .size(dim)
        .value(if rotation == Rotation::Forward { 1.0f32 } else { -1.0 });
    let work = qkv.rows * heads * (dim / 2 / e.pack());
    run(on, "rope", &format!("rope_{}", e.suffix()), line(work, 256), arguments)
}

/// `y` `[T, F]` from `gate_up` `[T, 2F]`.
pub fn swiglu_forward(on: &dyn Engine, y: Matrix, gate_up: Matrix) -> Done {
    let e = y.element;
    gate_up.expect("gate_up", e, y.rows, 2 * y.cols);
    let arguments = Arguments::default().matrix(y).matrix(gate_up).size(y.rows).size(y.cols);
    run(on, "swiglu", &format!("swiglu_forward_{}", e.suffix()), line(packs(y), 256), arguments)
}

/// `dgate_up` (overwritten; may be `gate_up` itself) from `dy`.
pub fn swiglu_backward(on: &dyn Engine, dgate_up: Matrix, dy: Matrix, gate_up: Matrix) -> Done {
    let e = dy.element;
    gate_up.expect("gate_up", e, dy.rows, 2 * dy.cols);
    dgate_up.expect("dgate_up", e, dy.rows, 2 * dy.cols);
    let arguments =
        Arguments::default().matrix(dgate_up).matrix(dy).matrix(gate_up).size(dy.rows).size(dy.cols);
    run(on, "swiglu", &format!("swiglu_backward_{}", e.suffix()), line(packs(dy), 256), arguments)
}

/// `rows` `[R, 3]` fp32 (log-probability of the target, entropy, log-sum-exp) of `logits` `[R, *]`,
/// the first `vocabulary` of a row used.
pub fn classifier_forward(
    on: &dyn Engine,
    rows: Matrix,
    logits: Matrix,
    targets: Matrix,
    vocabulary: usize,
    temperature: f32,
) -> Done {
    let e = logits.element;
    rows.expect("rows", Element::F32, logits.rows, 3);
    targets.expect("targets", Element::U32, 1, logits.rows);
    packs(logits);
    assert!(vocabulary <= logits.cols, "the vocabulary lies within the row");
    let arguments = Arguments::default()
        .matrix(rows)
        .matrix(logits)
        .matrix(targets)
        .size(vocabulary)
        .size(logits.cols)
        .value(1.0 / temperature);
    let shape = Shape { grid: [logits.rows as u32, 1, 1], block: 512, shared: 0 };
    run(on, "classifier", &format!("classifier_forward_{}", e.suffix()), shape, arguments)
}

/// What [`classifier_backward`] reads beside the logits.
#[derive(Clone, Copy, Debug)]
pub struct ClassifierInputs {
    /// `[R, 3]` as the forward left them.
    pub rows: Matrix,
    /// `[1, R]` fp32: derivative of the loss by each target's log-probability.
    pub dlogp: Matrix,
    /// `[1, R]` fp32: by the log-sum-exp; absent: 0.
    pub dz: Option<Matrix>,
    pub targets: Matrix,
}

/// Turns `logits` in place into their gradient; beyond the vocabulary zeros.
pub fn classifier_backward(
    on: &dyn Engine,
    logits: Matrix,
    inputs: ClassifierInputs,
    vocabulary: usize,
    temperature: f32,
) -> Done {
    let ClassifierInputs { rows, dlogp, dz, targets } = inputs;
    let e = logits.element;
    rows.expect("rows", Element::F32, logits.rows, 3);
    for (name, m) in [("dlogp", Some(dlogp)), ("dz", dz)] {
        m.map(|m| m.expect(name, Element::F32, 1, logits.rows));
    }
    targets.expect("targets", Element::U32, 1, logits.rows);
    packs(logits);
    let arguments = Arguments::default()
        .matrix(logits)
        .matrix(rows)
        .matrix(dlogp)
        .optional(dz)
        .matrix(targets)
        .size(vocabulary)
        .size(logits.cols)
        .value(1.0 / temperature);
    let shape = plane(logits.rows, logits.cols, e);
    run(on, "classifier", &format!("classifier_backward_{}", e.suffix()), shape, arguments)
}

/// `g += sum`, `sum = 0`: the head's gradient, summed in fp32 over the chunks, joins the bf16 one.
pub fn classifier_fold(on: &dyn Engine, g: Matrix, sum: Matrix) -> Done {
    g.expect("g", Element::Bf16, sum.rows, sum.cols);
    sum.expect("sum", Element::F32, g.rows, g.cols);
    let arguments = Arguments::default().matrix(g).matrix(sum).value(g.len() as u64);
    run(on, "classifier", "classifier_fold", line(packs(g), 256), arguments)
}

/// [`Terms`] as the kernel reads them.
#[derive(Clone, Copy, Debug, PartialEq, Zeroable, NoUninit)]
#[repr(C)]
pub struct Token {
    pub weights: [f32; 3],
    pub advantage: f32,
    pub sampler: f32,
    pub old: f32,
    pub reference: f32,
    pub log_ratio: f32,
    pub log_importance: f32,
}

impl From<Terms> for Token {
    fn from(t: Terms) -> Self {
        Token {
            weights: [t.cross_entropy, t.policy, t.kl],
            advantage: t.advantage,
            sampler: t.sampler.unwrap_or(f32::NAN),
            old: t.old.unwrap_or(f32::NAN),
            reference: t.reference,
            log_ratio: t.sequence.map_or(f32::NAN, |means| means.log_ratio as f32),
            log_importance: t.sequence.map_or(f32::NAN, |means| means.log_importance as f32),
        }
    }
}

#[derive(Clone, Copy, Zeroable, NoUninit)]
#[repr(C)]
struct Goal {
    counts: [f64; 3],
    clip_low: f32,
    clip_high: f32,
    importance_cap: f32,
    kl: u32,
    z_loss: f32,
    padding: u32,
}

/// Sums that [`policy_loss`] makes: those of `StepSums` up to `z_loss`.
pub const LOSS_SUMS: usize = 17;

/// `dlogp` `[1, T]` of `terms` `[T, 9]` ([`Token`]) and the classifier's `rows`, and with a z-loss `dz`
/// `[1, T]`; adds to `sums` `[1, LOSS_SUMS]` fp64, in the order of `StepSums`. `partial` is scratch of
/// `LOSS_SUMS` fp64 a 256 tokens.
pub fn policy_loss(
    on: &dyn Engine,
    (dlogp, dz): (Matrix, Option<Matrix>),
    (sums, partial): (Matrix, Matrix),
    terms: Matrix,
    rows: Matrix,
    objective: &Objective,
) -> Done {
    assert_eq!(dz.is_some(), objective.z_loss != 0.0, "a z-loss has a derivative");
    let count = terms.rows;
    let blocks = count.div_ceil(256);
    terms.expect("terms", Element::F32, count, size_of::<Token>() / 4);
    rows.expect("rows", Element::F32, count, 3);
    for (name, m) in [("dlogp", Some(dlogp)), ("dz", dz)] {
        m.map(|m| m.expect(name, Element::F32, 1, count));
    }
    sums.expect("sums", Element::F64, 1, LOSS_SUMS);
    partial.at_least("partial", Element::F64, blocks * LOSS_SUMS);
    let goal = Goal {
        counts: [objective.cross_entropy_count, objective.policy_count, objective.kl_count],
        clip_low: objective.clip_low,
        clip_high: objective.clip_high,
        importance_cap: objective.importance_cap.unwrap_or(f32::NAN),
        kl: match objective.kl {
            KlEstimator::K1 => 1,
            KlEstimator::K2 => 2,
            KlEstimator::K3 => 3,
        },
        z_loss: objective.z_loss,
        padding: 0,
    };
    let arguments = Arguments::default()
        .matrix(dlogp)
        .optional(dz)
        .matrix(partial)
        .matrix(terms)
        .matrix(rows)
        .size(count)
        .value(goal);
    run(on, "policy_loss", "policy_loss_tokens", line(count, 256), arguments)?;
    let arguments = Arguments::default().matrix(sums).matrix(partial).size(blocks);
    run(on, "policy_loss", "policy_loss_sums", Shape { grid: [1, 1, 1], block: 32, shared: 0 }, arguments)
}

/// What one update of AdamW is about, as the kernel reads it; see `adamw::Update`.
#[derive(Clone, Copy, Debug, Zeroable, NoUninit)]
#[repr(C)]
pub struct Step {
    pub lr: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub weight_decay: f32,
    pub bias1: f32,
    pub bias2: f32,
    /// Counter of the random bits, with the place in the tensor.
    pub step: u32,
    /// Key of the random bits; give each tensor its own.
    pub seed: u64,
}

/// One tensor's state. Lengths agree and are whole 16 bytes, padded with zeros.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// bf16 or fp32.
    pub w: Matrix,
    /// 16 bits a weight, which make the bf16 weight an exact fp32 master; without them bf16 weights
    /// are rounded at random.
    pub remainder: Option<Matrix>,
    /// The gradient, in the weight's type; cleared.
    pub g: Matrix,
    /// Moments, bf16 or fp32.
    pub m: Matrix,
    pub v: Matrix,
}

/// Updates one tensor, the gradient times the clip factor that [`grad_norm`] left in `norm`.
pub fn adamw(on: &dyn Engine, state: State, norm: Matrix, step: Step) -> Done {
    let State { w, remainder, g, m, v } = state;
    let n = w.len();
    assert!(n.is_multiple_of(w.element.pack()), "tensors are padded to 16 bytes");
    g.expect("g", w.element, w.rows, w.cols);
    v.expect("v", m.element, w.rows, w.cols);
    m.expect("m", m.element, w.rows, w.cols);
    norm.expect("norm", Element::F32, 1, 2);
    if let Some(rest) = remainder {
        rest.expect("remainder", Element::U16, w.rows, w.cols);
    }
    let name = match (w.element, m.element, remainder) {
        (Element::F32, Element::F32, None) => "adamw_f32",
        (Element::Bf16, Element::Bf16, Some(_)) => "adamw_bf16",
        (Element::Bf16, Element::F32, Some(_)) => "adamw_bf16_f32",
        (Element::Bf16, Element::Bf16, None) => "adamw_bf16_stochastic",
        (w, m, _) => panic!("no AdamW for weights in {w:?} and moments in {m:?}"),
    };
    let mut arguments = Arguments::default().matrix(w);
    if let Some(rest) = remainder {
        arguments = arguments.matrix(rest);
    }
    let factor = norm.address() + Element::F32.size() as u64;
    let arguments = arguments.matrix(g).matrix(m).matrix(v).value(factor).value(n as u64).value(step);
    run(on, "adamw", name, line(n / w.element.pack(), 256), arguments)
}

/// `out` `[1, 2]` fp32: the norm of all `gradients`, and the factor that clips it to `max_norm`.
/// `partial` is scratch of one fp64 a [`NORM_BLOCK`] values of each gradient.
pub fn grad_norm(
    on: &dyn Engine,
    out: Matrix,
    partial: Matrix,
    gradients: &[Matrix],
    max_norm: Option<f32>,
) -> Done {
    out.expect("out", Element::F32, 1, 2);
    let mut used = 0;
    for &g in gradients {
        assert!(g.len().is_multiple_of(g.element.pack()), "gradients are padded to 16 bytes");
        let blocks = g.len().div_ceil(NORM_BLOCK);
        partial.at_least("partial", Element::F64, used + blocks);
        let arguments = Arguments::default()
            .value(partial.address() + (used * Element::F64.size()) as u64)
            .matrix(g)
            .value(g.len() as u64);
        let shape = Shape { grid: [blocks as u32, 1, 1], block: 256, shared: 0 };
        run(on, "grad_norm", &format!("grad_norm_squares_{}", g.element.suffix()), shape, arguments)?;
        used += blocks;
    }
    let max_norm = max_norm.unwrap_or(f32::INFINITY);
    let arguments = Arguments::default().matrix(out).matrix(partial).size(used).value(max_norm);
    run(on, "grad_norm", "grad_norm_finish", Shape { grid: [1, 1, 1], block: 1024, shared: 0 }, arguments)
}

/// `out` `[R, 3]` of 32 bits (token, and two fp32: log-probability under the model, and under the
/// distribution drawn from) for `logits` `[R, *]`. `options` `[1 or R, 3]` of 32 bits: temperature
/// fp32, top-k, top-p fp32. `keys` and `counters` `[1, R]`: each row's random number.
pub fn sample(
    on: &dyn Engine,
    out: Matrix,
    logits: Matrix,
    options: Matrix,
    (keys, counters): (Matrix, Matrix),
    vocabulary: usize,
) -> Done {
    let e = logits.element;
    out.expect("out", Element::U32, logits.rows, 3);
    assert!(options.rows == 1 || options.rows == logits.rows, "options for all rows or one a row");
    options.expect("options", Element::U32, options.rows, 3);
    keys.expect("keys", Element::U64, 1, logits.rows);
    counters.expect("counters", Element::U64, 1, logits.rows);
    packs(logits);
    assert!(vocabulary > 0 && vocabulary <= logits.cols, "the vocabulary lies within the row");
    let arguments = Arguments::default()
        .matrix(out)
        .matrix(logits)
        .matrix(options)
        .size(usize::from(options.rows > 1))
        .matrix(keys)
        .matrix(counters)
        .size(vocabulary)
        .size(logits.cols);
    let shape = Shape { grid: [logits.rows as u32, 1, 1], block: 512, shared: 0 };
    run(on, "sampling", &format!("sampling_{}", e.suffix()), shape, arguments)
}

/// Tiles `[n, 3]` of packed documents for [`attention_forward`] and the queries' gradients: those
/// that see most keys first.
pub fn query_tiles(starts: &[u32]) -> Vec<u32> {
    tiles(starts, ATTENTION_TILE, |_, start| std::cmp::Reverse(start))
}

/// The same for [`attention_forward_sm90a`].
pub fn query_tiles_sm90a(starts: &[u32]) -> Vec<u32> {
    tiles(starts, ATTENTION_TILE_SM90A, |_, start| std::cmp::Reverse(start))
}

/// The same for the gradients of keys: those that most queries see first.
pub fn key_tiles(starts: &[u32]) -> Vec<u32> {
    tiles(starts, ATTENTION_TILE, |length, start| std::cmp::Reverse(length - start))
}

/// The same for [`attention_backward_sm90a`].
pub fn key_tiles_sm90a(starts: &[u32]) -> Vec<u32> {
    tiles(starts, ATTENTION_TILE_SM90A, |length, start| std::cmp::Reverse(length - start))
}

fn tiles<K: Ord>(starts: &[u32], size: usize, key: impl Fn(u32, u32) -> K) -> Vec<u32> {
    let mut all = Vec::new();
    for span in starts.windows(2) {
        let length = span[1] - span[0];
        all.extend((0..length).step_by(size).map(|start| [span[0], length, start]));
    }
    all.sort_by_key(|&[_, length, start]| key(length, start));
    all.concat()
}

fn check_heads(heads: Heads) {
    assert!(heads.dim == 64 || heads.dim == 128, "kernels stand for heads of 64 and 128 channels");
    assert!(heads.key > 0 && heads.query.is_multiple_of(heads.key), "query heads share key heads evenly");
}

/// `out` `[T, H D]`, `lse` `[T, H]` fp32 of `qkv` `[T, (H + 2G) D]` in bf16; `tiles` from
/// [`query_tiles`].
pub fn attention_forward(
    on: &dyn Engine,
    out: Matrix,
    lse: Matrix,
    qkv: Matrix,
    tiles: Matrix,
    heads: Heads,
) -> Done {
    // Queries, and two stages of keys and values.
    let shape = attention_shape(tiles, heads, 128, 5 * ATTENTION_TILE);
    let arguments = attention_arguments(out, lse, qkv, tiles, heads);
    run(on, "attention", &format!("attention_forward_{}", heads.dim), shape, arguments)
}

/// [`attention_forward`] for compute capability 9.0 alone; `tiles` from [`query_tiles_sm90a`].
pub fn attention_forward_sm90a(
    on: &dyn Engine,
    out: Matrix,
    lse: Matrix,
    qkv: Matrix,
    tiles: Matrix,
    heads: Heads,
) -> Done {
    check_attention(out, lse, qkv, tiles, heads);
    let mut shape = attention_shape(tiles, heads, HOPPER_THREADS, 5 * ATTENTION_TILE_SM90A);
    shape.shared += HOPPER_BARRIERS;
    let arguments = Arguments::default()
        .matrix(out)
        .matrix(lse)
        .value(on.tensor_map(qkv)?)
        .matrix(tiles)
        .size(heads.query)
        .size(heads.key)
        .value(heads.scale());
    run(on, "attention_sm90a", &format!("attention_sm90a_forward_{}", heads.dim), shape, arguments)
}

/// A block a tile and query head, with `rows` rows of bf16 in shared memory.
pub(super) fn attention_shape(tiles: Matrix, heads: Heads, threads: u32, rows: usize) -> Shape {
    let grid = [tiles.rows as u32, heads.query as u32, 1];
    Shape { grid, block: threads, shared: (rows * heads.dim * 2) as u32 }
}

fn check_attention(out: Matrix, lse: Matrix, qkv: Matrix, tiles: Matrix, heads: Heads) {
    check_heads(heads);
    qkv.expect("qkv", Element::Bf16, qkv.rows, heads.row());
    out.expect("out", Element::Bf16, qkv.rows, heads.out());
    lse.expect("lse", Element::F32, qkv.rows, heads.query);
    tiles.expect("tiles", Element::U32, tiles.rows, 3);
}

pub(super) fn attention_arguments(
    out: Matrix,
    lse: Matrix,
    qkv: Matrix,
    tiles: Matrix,
    heads: Heads,
) -> Arguments {
    check_attention(out, lse, qkv, tiles, heads);
    Arguments::default()
        .matrix(out)
        .matrix(lse)
        .matrix(qkv)
        .matrix(tiles)
        .size(heads.query)
        .size(heads.key)
        .value(heads.scale())
}

/// What [`attention_backward`] reads.
#[derive(Clone, Copy, Debug)]
pub struct AttentionInputs {
    pub dout: Matrix,
    pub qkv: Matrix,
    pub out: Matrix,
    pub lse: Matrix,
    /// From [`query_tiles`], or [`query_tiles_sm90a`].
    pub queries: Matrix,
    /// From [`key_tiles`], or [`key_tiles_sm90a`].
    pub keys: Matrix,
}

/// `dqkv` (overwritten); `delta` `[T, H]` fp32 is scratch.
pub fn attention_backward(
    on: &dyn Engine,
    dqkv: Matrix,
    delta: Matrix,
    inputs: AttentionInputs,
    heads: Heads,
) -> Done {
    attention_delta(on, dqkv, delta, inputs, heads)?;
    let AttentionInputs { dout, qkv, lse, queries, keys, .. } = inputs;
    let dim = heads.dim;
    // Two tiles, two stages of two half tiles, and two stages of two floats a row of a half tile.
    let shared = (4 * ATTENTION_TILE * dim * 2 + 2 * ATTENTION_TILE * 4) as u32;
    for (name, tiles, blocks) in [("keys", keys, heads.key), ("queries", queries, heads.query)] {
        tiles.expect(name, Element::U32, tiles.rows, 3);
        let arguments = Arguments::default().matrix(dqkv).matrix(dout).matrix(qkv);
        let arguments = backward_arguments(arguments, lse, delta, tiles, heads);
        let shape = Shape { grid: [tiles.rows as u32, blocks as u32, 1], block: 128, shared };
        run(on, "attention", &format!("attention_backward_{name}_{dim}"), shape, arguments)?;
    }
    Ok(())
}

/// [`attention_backward`] for compute capability 9.0 alone; tiles from [`query_tiles_sm90a`] and
/// [`key_tiles_sm90a`].
pub fn attention_backward_sm90a(
    on: &dyn Engine,
    dqkv: Matrix,
    delta: Matrix,
    inputs: AttentionInputs,
    heads: Heads,
) -> Done {
    attention_delta(on, dqkv, delta, inputs, heads)?;
    let AttentionInputs { dout, qkv, lse, queries, keys, .. } = inputs;
    let dim = heads.dim;
    // Two tiles, two stages of two half tiles, and two stages of two floats a row of a half tile.
    let tile = ATTENTION_TILE_SM90A;
    let shared = (4 * tile * dim * 2 + 2 * tile * 4) as u32 + HOPPER_BARRIERS;
    for (name, tiles, blocks) in [("keys", keys, heads.key), ("queries", queries, heads.query)] {
        tiles.expect(name, Element::U32, tiles.rows, 3);
        let maps = (on.tensor_map(dout)?, on.tensor_map(qkv)?);
        let arguments = Arguments::default().matrix(dqkv).value(maps.0).value(maps.1);
        let arguments = backward_arguments(arguments, lse, delta, tiles, heads);
        let shape = Shape { grid: [tiles.rows as u32, blocks as u32, 1], block: HOPPER_THREADS, shared };
        let name = format!("attention_backward_sm90a_{name}_{dim}");
        run(on, "attention_backward_sm90a", &name, shape, arguments)?;
    }
    Ok(())
}

fn backward_arguments(
    first: Arguments,
    lse: Matrix,
    delta: Matrix,
    tiles: Matrix,
    heads: Heads,
) -> Arguments {
    first.matrix(lse).matrix(delta).matrix(tiles).size(heads.query).size(heads.key).value(heads.scale())
}

/// Checks what a backward is given, and `delta = rowsum(dout out)`.
fn attention_delta(
    on: &dyn Engine,
    dqkv: Matrix,
    delta: Matrix,
    inputs: AttentionInputs,
    heads: Heads,
) -> Done {
    check_heads(heads);
    let AttentionInputs { dout, qkv, out, lse, .. } = inputs;
    let (rows, dim) = (qkv.rows, heads.dim);
    qkv.expect("qkv", Element::Bf16, rows, heads.row());
    dqkv.expect("dqkv", Element::Bf16, rows, heads.row());
    dout.expect("dout", Element::Bf16, rows, heads.out());
    out.expect("out", Element::Bf16, rows, heads.out());
    lse.expect("lse", Element::F32, rows, heads.query);
    delta.expect("delta", Element::F32, rows, heads.query);
    let count = rows * heads.query;
    let arguments = Arguments::default().matrix(delta).matrix(dout).matrix(out).size(count);
    run(on, "attention", &format!("attention_delta_{dim}"), line(count * 32, 256), arguments)
}

/// Keys and values of one layer, both `[pages, G 16 D]` in bf16, a page holding `[G, 16, D]`.
#[derive(Clone, Copy, Debug)]
pub struct PagedCache {
    pub keys: Matrix,
    pub values: Matrix,
}

impl PagedCache {
    fn check(self, heads: Heads) {
        let cols = heads.key * heads.dim * 16;
        self.keys.expect("keys", Element::Bf16, self.keys.rows, cols);
        self.values.expect("values", Element::Bf16, self.keys.rows, cols);
    }
}

/// Copies keys and values of the rows of `qkv` to `slots` `[1, rows]`: 16 page + position in the
/// page, `u32::MAX` for nowhere.
pub fn cache_append(on: &dyn Engine, cache: PagedCache, qkv: Matrix, slots: Matrix, heads: Heads) -> Done {
    check_heads(heads);
    cache.check(heads);
    qkv.expect("qkv", Element::Bf16, qkv.rows, heads.row());
    slots.expect("slots", Element::U32, 1, qkv.rows);
    let arguments = Arguments::default()
        .matrix(cache.keys)
        .matrix(cache.values)
        .matrix(qkv)
        .matrix(slots)
        .size(qkv.rows)
        .size(heads.query)
        .size(heads.key)
        .size(heads.dim);
    run(on, "decode_attention", "cache_append", line(qkv.rows * heads.key * heads.dim / 8, 256), arguments)
}

/// A [`Plan`]'s lists on the device, each `[1, n]` but the items, `[n, 5]`.
#[derive(Clone, Copy, Debug)]
pub struct PlanLists {
    pub pages: Matrix,
    pub items: Matrix,
    pub members: Matrix,
    pub parts_first: Matrix,
}

/// `out` `[B, H D]`: each row of `qkv` attends to its sequence, whose newest position
/// [`cache_append`] has already written. `partial` is scratch of `plan.parts() * H * (D + 2)` fp32.
pub fn decode_attention(
    on: &dyn Engine,
    (out, partial): (Matrix, Matrix),
    qkv: Matrix,
    cache: PagedCache,
    plan: &Plan,
    lists: PlanLists,
    heads: Heads,
) -> Done {
    check_heads(heads);
    assert!(heads.query / heads.key <= 16, "at most 16 query heads share a key head");
    cache.check(heads);
    qkv.expect("qkv", Element::Bf16, qkv.rows, heads.row());
    out.expect("out", Element::Bf16, qkv.rows, heads.out());
    partial.at_least("partial", Element::F32, plan.parts() * heads.query * (heads.dim + 2));
    lists.items.expect("items", Element::U32, plan.count(), 5);
    lists.parts_first.expect("parts_first", Element::U32, 1, qkv.rows + 1);
    let arguments = Arguments::default()
        .matrix(partial)
        .matrix(qkv)
        .matrix(cache.keys)
        .matrix(cache.values)
        .matrix(lists.pages)
        .matrix(lists.items)
        .matrix(lists.members)
        .matrix(lists.parts_first)
        .size(heads.query)
        .size(heads.key)
        .value(heads.scale());
    // 16 queries and, for four warps, two stages of a page of keys and of values.
    let shared = (17 * 16 * heads.dim * 2) as u32;
    let shape = Shape { grid: [plan.count() as u32, heads.key as u32, 1], block: 128, shared };
    run(on, "decode_attention", &format!("decode_attention_{}", heads.dim), shape, arguments)?;
    let arguments =
        Arguments::default().matrix(out).matrix(partial).matrix(lists.parts_first).size(heads.query);
    let grid = [qkv.rows as u32, heads.query as u32, 1];
    let shape = Shape { grid, block: heads.dim as u32, shared: 0 };
    run(on, "decode_attention", &format!("decode_attention_join_{}", heads.dim), shape, arguments)
}
