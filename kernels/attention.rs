//! Causal attention over packed documents (varlen), with grouped query heads (GQA), in the manner
//! of FlashAttention (Dao 2023): the scores of a few queries at a time, never the whole matrix;
//! the backward recomputes them from the log-sum-exp.
//!
//! Rows of `qkv` are `[H query heads | G key heads | G value heads]`, `D` channels each; scores are
//! scaled by `1/sqrt(D)`. One task takes one document and one key head with all its query heads,
//! so gradients of keys and values are summed in one fixed order.

use std::cell::RefCell;

use pulp::{Arch, Simd, WithSimd};

use crate::Tensor;
use crate::parallel::{Shared, for_each};
use crate::tile::{COLUMNS, Left, ROWS, product};
use crate::vector::{dot, exp_shifted, exp1, maximum};

/// Heads of one attention layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heads {
    /// Query heads `H`.
    pub query: usize,
    /// Key and value heads `G`, a divisor of `H`.
    pub key: usize,
    /// Channels a head, `D`.
    pub dim: usize,
}

impl Heads {
    /// Columns of a fused `qkv` row, `(H + 2G) D`.
    pub fn row(&self) -> usize {
        (self.query + 2 * self.key) * self.dim
    }

    /// Columns of an output row, `H D`.
    pub fn out(&self) -> usize {
        self.query * self.dim
    }

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Queries of which the backward holds scores at a time: a gradient of a key is read and written once for so many.
const QUERIES: usize = 32;

thread_local! {
    /// One task's operands, reused from task to task.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    /// Keys and values transposed, `[D, n padded]`, and as they are, `[n padded, D padded]`.
    key_t: Vec<f32>,
    value_t: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// Eight query rows (in the backward 32): queries, output gradients, results `[8, D padded]`; scores `[8, n padded]`.
    query: Vec<f32>,
    dout: Vec<f32>,
    out: Vec<f32>,
    score: Vec<f32>,
    dscore: Vec<f32>,
    /// Gradients of the document's keys and values `[n padded, D padded]`.
    dkey: Vec<f32>,
    dvalue: Vec<f32>,
}

/// Bytes of one thread's scratch, forward and backward, for documents of `length` tokens.
pub fn scratch_bytes(heads: Heads, length: usize) -> usize {
    let (np, dp) = (length.next_multiple_of(COLUMNS), heads.dim.next_multiple_of(COLUMNS));
    4 * (2 * heads.dim * np + 4 * np * dp + 3 * QUERIES * dp + 2 * QUERIES * np)
}

/// Grows `buffer` to at least `n` values and gives the first `n`.
fn sized(buffer: &mut Vec<f32>, n: usize) -> &mut [f32] {
    if buffer.len() < n {
        buffer.resize(n, 0.0);
    }
    &mut buffer[..n]
}

/// The tensors one task reads: a document's rows of one key head.
#[derive(Clone, Copy)]
struct Part<'a> {
    qkv: &'a [f32],
    heads: Heads,
    first: usize,
    len: usize,
    group: usize,
}

impl Part<'_> {
    fn row(&self, t: usize, head: usize) -> &[f32] {
        let at = (self.first + t) * self.heads.row() + head * self.heads.dim;
        &self.qkv[at..at + self.heads.dim]
    }

    fn key(&self, t: usize) -> &[f32] {
        self.row(t, self.heads.query + self.group)
    }

    fn value(&self, t: usize) -> &[f32] {
        self.row(t, self.heads.query + self.heads.key + self.group)
    }

    /// The query heads of this key head.
    fn queries(&self) -> std::ops::Range<usize> {
        let ratio = self.heads.query / self.heads.key;
        self.group * ratio..(self.group + 1) * ratio
    }

    fn padded(&self) -> (usize, usize) {
        (self.len.next_multiple_of(COLUMNS), self.heads.dim.next_multiple_of(COLUMNS))
    }
}

/// `rows` (`[n, D]`, given one by one) transposed into `out` `[D, padded]`, zeros beyond `n`.
#[inline(always)]
fn transpose<'a>(out: &mut [f32], padded: usize, n: usize, row: impl Fn(usize) -> &'a [f32]) {
    let mut t = 0;
    while t + 4 <= n {
        let (a, b, c, d) = (row(t), row(t + 1), row(t + 2), row(t + 3));
        for (i, (((&a, &b), &c), &d)) in a.iter().zip(b).zip(c).zip(d).enumerate() {
            out[i * padded + t..i * padded + t + 4].copy_from_slice(&[a, b, c, d]);
        }
        t += 4;
    }
    for t in t..n {
        for (i, &x) in row(t).iter().enumerate() {
            out[i * padded + t] = x;
        }
    }
    for out in out.chunks_exact_mut(padded) {
        out[n..].fill(0.0);
    }
}

/// `rows` copied into `out` `[*, padded]`, zeros in the padding columns.
#[inline(always)]
fn copy_rows<'a>(out: &mut [f32], padded: usize, n: usize, row: impl Fn(usize) -> &'a [f32]) {
    for (t, out) in out.chunks_exact_mut(padded).enumerate() {
        if t < n {
            let row = row(t);
            out[..row.len()].copy_from_slice(row);
            out[row.len()..].fill(0.0);
        } else {
            out.fill(0.0);
        }
    }
}

fn check(qkv: &Tensor, starts: &[u32], heads: Heads) {
    assert!(
        heads.key > 0 && heads.query.is_multiple_of(heads.key),
        "query heads are a multiple of key heads"
    );
    assert_eq!(qkv.cols(), heads.row(), "a row holds all heads");
    assert!(starts.windows(2).all(|w| w[0] <= w[1]), "documents are in order");
    assert_eq!(starts.last().map_or(0, |&e| e as usize), qkv.rows(), "documents cover the rows");
}

/// `out` `[T, H D]` and the scores' log-sum-exp `lse` `[T, H]` from `qkv` `[T, (H + 2G) D]`.
pub fn forward(out: &mut Tensor, lse: &mut Tensor, qkv: &Tensor, starts: &[u32], heads: Heads) {
    check(qkv, starts, heads);
    assert!(out.rows() == qkv.rows() && out.cols() == heads.out(), "shapes agree");
    assert!(lse.rows() == qkv.rows() && lse.cols() == heads.query, "shapes agree");
    let documents = starts.len().saturating_sub(1);
    let (out, lse) = (Shared::new(out.f32_mut()), Shared::new(lse.f32_mut()));
    let qkv = qkv.f32();
    for_each(documents * heads.key, |task| {
        let (document, group) = (task / heads.key, task % heads.key);
        let first = starts[document] as usize;
        let len = starts[document + 1] as usize - first;
        if len > 0 {
            let part = Part { qkv, heads, first, len, group };
            SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(Forward { part, scratch, out, lse }));
        }
    });
}

struct Forward<'a> {
    part: Part<'a>,
    scratch: &'a mut Scratch,
    out: Shared<f32>,
    lse: Shared<f32>,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { part, scratch, out, lse } = self;
        let (n, dim) = (part.len, part.heads.dim);
        let (np, dp) = part.padded();
        let key_t = sized(&mut scratch.key_t, dim * np);
        transpose(key_t, np, n, |t| part.key(t));
        let value = sized(&mut scratch.value, np * dp);
        copy_rows(value, dp, n, |t| part.value(t));
        let query = sized(&mut scratch.query, ROWS * dp);
        let score = sized(&mut scratch.score, ROWS * np);
        let result = sized(&mut scratch.out, ROWS * dp);
        for head in part.queries() {
            for q in (0..n).step_by(ROWS) {
                let rows = ROWS.min(n - q);
                load_queries(query, dp, &part, head, q);
                // Keys that the last of these queries sees.
                let seen = (q + rows).next_multiple_of(COLUMNS);
                let left = Left { data: query, row: dp, col: 1 };
                product(simd, score, np, left, key_t, np, dim, seen, false);
                let mut scales = [0.0; ROWS];
                for (r, scale) in scales.iter_mut().enumerate().take(rows) {
                    // Masked scores become exactly 0; whole vectors are worked on.
                    let s = &mut score[r * np..r * np + seen];
                    s[q + r + 1..].fill(f32::NEG_INFINITY);
                    let top = maximum(s);
                    let total = exp_shifted(s, top);
                    *scale = 1.0 / total;
                    let at = (part.first + q + r) * part.heads.query + head;
                    // SAFETY: this task alone owns this document's entries of its heads.
                    unsafe { lse.slice(at, 1)[0] = top + total.ln() };
                }
                let left = Left { data: score, row: np, col: 1 };
                product(simd, result, dp, left, value, dp, q + rows, dp, false);
                for (r, scale) in scales.iter().enumerate().take(rows) {
                    let at = (part.first + q + r) * part.heads.out() + head * dim;
                    // SAFETY: as above.
                    let out = unsafe { out.slice(at, dim) };
                    for (o, x) in out.iter_mut().zip(&result[r * dp..]) {
                        *o = x * scale;
                    }
                }
            }
        }
    }
}

/// Eight queries from `q` on, scaled; zeros beyond the document.
#[inline(always)]
fn load_queries(query: &mut [f32], dp: usize, part: &Part, head: usize, q: usize) {
    let scale = part.heads.scale();
    for (r, row) in query.chunks_exact_mut(dp).enumerate() {
        if q + r < part.len {
            for (x, y) in row.iter_mut().zip(part.row(q + r, head)) {
                *x = y * scale;
            }
            row[part.heads.dim..].fill(0.0);
        } else {
            row.fill(0.0);
        }
    }
}

/// Gradient `dqkv` `[T, (H + 2G) D]` (overwritten) from `dout` `[T, H D]`, with `out` and `lse` as
/// [`forward`] left them.
///
/// `dV = Pᵀ dO`, `dP = dO Vᵀ`, `dS = P ⊙ (dP − rowsum(dO ⊙ O))`, `dQ = dS K / sqrt(D)`,
/// `dK = dSᵀ Q / sqrt(D)`.
pub fn backward(
    dqkv: &mut Tensor,
    dout: &Tensor,
    qkv: &Tensor,
    out: &Tensor,
    lse: &Tensor,
    starts: &[u32],
    heads: Heads,
) {
    check(qkv, starts, heads);
    let rows = qkv.rows();
    assert!(dqkv.rows() == rows && dqkv.cols() == heads.row() && lse.rows() == rows, "shapes agree");
    assert!(dout.rows() == rows && dout.cols() == heads.out() && lse.cols() == heads.query, "shapes agree");
    assert!(out.rows() == rows && out.cols() == heads.out(), "shapes agree");
    let documents = starts.len().saturating_sub(1);
    let (qkv, dout, out, lse) = (qkv.f32(), dout.f32(), out.f32(), lse.f32());
    let dqkv = Shared::new(dqkv.f32_mut());
    for_each(documents * heads.key, |task| {
        let (document, group) = (task / heads.key, task % heads.key);
        let first = starts[document] as usize;
        let len = starts[document + 1] as usize - first;
        if len > 0 {
            let part = Part { qkv, heads, first, len, group };
            SCRATCH.with_borrow_mut(|scratch| {
                Arch::new().dispatch(Backward { part, scratch, dout, out, lse, dqkv });
            });
        }
    });
}

struct Backward<'a> {
    part: Part<'a>,
    scratch: &'a mut Scratch,
    dout: &'a [f32],
    out: &'a [f32],
    lse: &'a [f32],
    dqkv: Shared<f32>,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { part, scratch, dout: dout_all, out: out_all, lse, dqkv } = self;
        let (n, heads) = (part.len, part.heads);
        let dim = heads.dim;
        let (np, dp) = part.padded();
        let key_t = sized(&mut scratch.key_t, dim * np);
        transpose(key_t, np, n, |t| part.key(t));
        let value_t = sized(&mut scratch.value_t, dim * np);
        transpose(value_t, np, n, |t| part.value(t));
        let key = sized(&mut scratch.key, np * dp);
        copy_rows(key, dp, n, |t| part.key(t));
        let dkey = sized(&mut scratch.dkey, np * dp);
        dkey.fill(0.0);
        let dvalue = sized(&mut scratch.dvalue, np * dp);
        dvalue.fill(0.0);
        let query = sized(&mut scratch.query, QUERIES * dp);
        let dout = sized(&mut scratch.dout, QUERIES * dp);
        let dquery = sized(&mut scratch.out, ROWS * dp);
        let score = sized(&mut scratch.score, QUERIES * np);
        let dscore = sized(&mut scratch.dscore, QUERIES * np);
        let scale = heads.scale();
        for head in part.queries() {
            for block in (0..n).step_by(QUERIES) {
                let count = QUERIES.min(n - block);
                let block_seen = (block + count).next_multiple_of(COLUMNS);
                let at = |t: usize| (part.first + t) * heads.out() + head * dim;
                load_queries(query, dp, &part, head, block);
                copy_rows(dout, dp, count, |r| &dout_all[at(block + r)..at(block + r) + dim]);
                for first in (0..count).step_by(ROWS) {
                    let q = block + first;
                    let rows = ROWS.min(n - q);
                    let seen = (q + rows).next_multiple_of(COLUMNS);
                    let (score, dscore) = (&mut score[first * np..], &mut dscore[first * np..]);
                    let left = Left { data: &query[first * dp..], row: dp, col: 1 };
                    product(simd, score, np, left, key_t, np, dim, seen, false);
                    let left = Left { data: &dout[first * dp..], row: dp, col: 1 };
                    product(simd, dscore, np, left, value_t, np, dim, seen, false);
                    for r in 0..ROWS {
                        let p = &mut score[r * np..r * np + block_seen];
                        let ds = &mut dscore[r * np..r * np + block_seen];
                        // What later queries of the block see and these do not is exactly 0.
                        p[seen..].fill(0.0);
                        ds[seen..].fill(0.0);
                        let (p, ds) = (&mut p[..seen], &mut ds[..seen]);
                        let visible = if r < rows { q + r + 1 } else { 0 };
                        p[visible..].fill(f32::NEG_INFINITY);
                        let (mut shift, mut through) = (0.0, 0.0);
                        if r < rows {
                            shift = lse[(part.first + q + r) * heads.query + head];
                            let span = at(q + r)..at(q + r) + dim;
                            through = dot(&dout_all[span.clone()], &out_all[span]);
                        }
                        for (p, ds) in p.iter_mut().zip(ds) {
                            *p = exp1(*p - shift);
                            *ds = *p * (*ds - through);
                        }
                    }
                    let left = Left { data: dscore, row: np, col: 1 };
                    product(simd, dquery, dp, left, key, dp, q + rows, dp, false);
                    for r in 0..rows {
                        let at = (part.first + q + r) * heads.row() + head * dim;
                        // SAFETY: this task alone owns this document's rows of its heads.
                        let dq = unsafe { dqkv.slice(at, dim) };
                        for (d, x) in dq.iter_mut().zip(&dquery[r * dp..]) {
                            *d = x * scale;
                        }
                    }
                }
                // The queries are scaled already, so their product with dS is the keys' gradient.
                let inner = count.next_multiple_of(ROWS);
                for j in (0..(block + count).next_multiple_of(ROWS)).step_by(ROWS) {
                    let left = Left { data: &score[j..], row: 1, col: np };
                    product(simd, &mut dvalue[j * dp..], dp, left, dout, dp, inner, dp, true);
                    let left = Left { data: &dscore[j..], row: 1, col: np };
                    product(simd, &mut dkey[j * dp..], dp, left, query, dp, inner, dp, true);
                }
            }
        }
        for t in 0..n {
            let at = (part.first + t) * heads.row();
            let (k, v) = ((heads.query + part.group) * dim, (heads.query + heads.key + part.group) * dim);
            // SAFETY: this task alone owns this document's rows of its key head.
            unsafe { dqkv.slice(at + k, dim) }.copy_from_slice(&dkey[t * dp..t * dp + dim]);
            // SAFETY: as above.
            unsafe { dqkv.slice(at + v, dim) }.copy_from_slice(&dvalue[t * dp..t * dp + dim]);
        }
    }
}
