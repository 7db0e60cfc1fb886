//! Attention of one new token a sequence over a paged cache of keys and values.
//!
//! A page holds sixteen positions of all key heads: keys as `[G, D, 16]`, so that the scores of
//! sixteen positions are one register, values as `[G, 16, D]`. A sequence is a table of pages, and
//! sequences that continue one prompt share its full pages.

use std::cell::RefCell;

use crate::Tensor;
use crate::attention::Heads;
use crate::parallel::{Shared, for_each};
use crate::vector::{LANES, V, dispatch, exp_shifted, fma, load, maximum, splat};

/// Positions a page holds.
pub const PAGE: usize = LANES;

/// Keys and values of one layer, both `[pages, 16 G D]`.
#[derive(Debug)]
pub struct Cache {
    pub keys: Tensor,
    pub values: Tensor,
}

/// Writes the keys and values of row `row` of `qkv` at `position` of the sequence whose pages are
/// given.
pub fn append(cache: &mut Cache, qkv: &Tensor, row: usize, pages: &[u32], position: usize, heads: Heads) {
    let page = pages[position / PAGE] as usize;
    let slot = position % PAGE;
    let row = qkv.row(row);
    let (dim, stride) = (heads.dim, heads.key * heads.dim * PAGE);
    let keys = &mut cache.keys.f32_mut()[page * stride..(page + 1) * stride];
    for (i, &k) in row[heads.out()..][..heads.key * dim].iter().enumerate() {
        keys[i * PAGE + slot] = k;
    }
    let values = &mut cache.values.f32_mut()[page * stride..(page + 1) * stride];
    for (g, v) in row[heads.out() + heads.key * dim..].chunks_exact(dim).enumerate() {
        values[(g * PAGE + slot) * dim..][..dim].copy_from_slice(v);
    }
}

/// Copies page `from` to page `to`.
pub fn copy_page(cache: &mut Cache, from: u32, to: u32) {
    for tensor in [&mut cache.keys, &mut cache.values] {
        let cols = tensor.cols();
        tensor.f32_mut().copy_within(from as usize * cols..(from as usize + 1) * cols, to as usize * cols);
    }
}

/// One sequence's view of the cache: its pages, and how many positions hold keys.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub pages: &'a [u32],
    pub length: usize,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = RefCell::default();
}

/// `out` `[B, H D]` from the queries of `qkv` `[B, (H + 2G) D]`, row `b` attending to all `length`
/// positions of `span(b)`, its own among them.
pub fn forward<'a>(
    out: &mut Tensor,
    qkv: &Tensor,
    cache: &Cache,
    heads: Heads,
    span: impl Fn(usize) -> Span<'a> + Sync + Send,
) {
    let batch = qkv.rows();
    assert!(out.rows() == batch && out.cols() == heads.out() && qkv.cols() == heads.row(), "shapes agree");
    let (qkv, keys, values) = (qkv.f32(), cache.keys.f32(), cache.values.f32());
    let out = Shared::new(out.f32_mut());
    const BLOCK: usize = 4;
    for_each(batch.div_ceil(BLOCK), |block| {
        for b in block * BLOCK..batch.min((block + 1) * BLOCK) {
            let span = span(b);
            let query = &qkv[b * heads.row()..][..heads.out()];
            // SAFETY: one row a sequence.
            let out = unsafe { out.slice(b * heads.out(), heads.out()) };
            SCRATCH.with_borrow_mut(|scratch| {
                dispatch(
                    #[inline(always)]
                    || sequence(out, query, keys, values, heads, span, scratch),
                );
            });
        }
    });
}

#[inline(always)]
fn sequence(
    out: &mut [f32],
    query: &[f32],
    keys: &[f32],
    values: &[f32],
    heads: Heads,
    span: Span,
    scratch: &mut Vec<f32>,
) {
    let (dim, ratio) = (heads.dim, heads.query / heads.key);
    let stride = heads.key * dim * PAGE;
    let pages = &span.pages[..span.length.div_ceil(PAGE)];
    let padded = pages.len() * PAGE;
    if scratch.len() < padded {
        scratch.resize(padded, 0.0);
    }
    for head in 0..heads.query {
        let group = head / ratio;
        let q = &query[head * dim..(head + 1) * dim];
        let scale = heads.scale();
        for (page, score) in pages.iter().zip(scratch.chunks_exact_mut(PAGE)) {
            let keys = &keys[*page as usize * stride + group * dim * PAGE..][..dim * PAGE];
            let mut acc: [V; 2] = [splat(0.0); 2];
            let mut rows = keys.chunks_exact(2 * PAGE);
            let mut pairs = q.chunks_exact(2);
            for (k, q) in (&mut rows).zip(&mut pairs) {
                acc[0] = fma(splat(q[0]), load(k), acc[0]);
                acc[1] = fma(splat(q[1]), load(&k[PAGE..]), acc[1]);
            }
            for (k, q) in rows.remainder().chunks_exact(PAGE).zip(pairs.remainder()) {
                acc[0] = fma(splat(*q), load(k), acc[0]);
            }
            for (i, s) in score.iter_mut().enumerate() {
                *s = (acc[0][i] + acc[1][i]) * scale;
            }
        }
        let score = &mut scratch[..span.length];
        let top = maximum(score);
        let total = exp_shifted(score, top);
        let out = &mut out[head * dim..(head + 1) * dim];
        gather_values(out, score, values, pages, stride, group, dim);
        let inverse = 1.0 / total;
        for o in out {
            *o *= inverse;
        }
    }
}

/// `out = Σ_j p_j v_j`, thirty-two channels at a time.
#[inline(always)]
fn gather_values(
    out: &mut [f32],
    score: &[f32],
    values: &[f32],
    pages: &[u32],
    stride: usize,
    group: usize,
    dim: usize,
) {
    let mut first = 0;
    while first + 2 * LANES <= dim {
        let mut acc: [V; 4] = [splat(0.0); 4];
        for (page, p) in pages.iter().zip(score.chunks(PAGE)) {
            let values = &values[*page as usize * stride + group * PAGE * dim..][..PAGE * dim];
            for (j, &p) in p.iter().enumerate() {
                let v = &values[j * dim + first..][..2 * LANES];
                let even = j % 2 * 2;
                acc[even] = fma(splat(p), load(v), acc[even]);
                acc[even + 1] = fma(splat(p), load(&v[LANES..]), acc[even + 1]);
            }
        }
        for i in 0..LANES {
            out[first + i] = acc[0][i] + acc[2][i];
            out[first + LANES + i] = acc[1][i] + acc[3][i];
        }
        first += 2 * LANES;
    }
    if first < dim {
        out[first..].fill(0.0);
        for (page, p) in pages.iter().zip(score.chunks(PAGE)) {
            let values = &values[*page as usize * stride + group * PAGE * dim..][..PAGE * dim];
            for (j, &p) in p.iter().enumerate() {
                for (o, v) in out[first..].iter_mut().zip(&values[j * dim + first..(j + 1) * dim]) {
                    *o = p.mul_add(*v, *o);
                }
            }
        }
    }
}
