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

/// Fills the cache from packed prompts: rows `starts[d]..starts[d + 1]` of `qkv` become positions
/// `0..` of the sequence with pages `tables[d]`. No page may stand in two tables.
pub fn fill(cache: &mut Cache, qkv: &Tensor, starts: &[u32], tables: &[Vec<u32>], heads: Heads) {
    assert_eq!(tables.len() + 1, starts.len(), "a table a document");
    let (row, stride) = (heads.row(), heads.key * heads.dim * PAGE);
    let qkv = qkv.f32();
    let (keys, values) = (Shared::new(cache.keys.f32_mut()), Shared::new(cache.values.f32_mut()));
    for_each(tables.len(), |d| {
        let rows = &qkv[starts[d] as usize * row..starts[d + 1] as usize * row];
        for (rows, &page) in rows.chunks(PAGE * row).zip(&tables[d]) {
            // SAFETY: pages do not overlap, and each stands in one table only.
            let (keys, values) = unsafe {
                (keys.slice(page as usize * stride, stride), values.slice(page as usize * stride, stride))
            };
            for (slot, row) in rows.chunks_exact(row).enumerate() {
                write(keys, values, row, slot, heads);
            }
        }
    });
}

/// Writes the keys and values of one row of `qkv` into a page.
#[inline(always)]
fn write(keys: &mut [f32], values: &mut [f32], row: &[f32], slot: usize, heads: Heads) {
    let dim = heads.dim;
    let (new_keys, new_values) = row[heads.out()..].split_at(heads.key * dim);
    for (line, k) in keys.chunks_exact_mut(PAGE).zip(new_keys) {
        line[slot] = *k;
    }
    for (g, v) in new_values.chunks_exact(dim).enumerate() {
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

/// One sequence's view of the cache: its pages, and its length with the new token.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    pub pages: &'a [u32],
    pub length: usize,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = RefCell::default();
}

/// Appends the keys and values of each row of `qkv` `[B, (H + 2G) D]` to its sequence, as position
/// `length − 1` of `span(b)`, and attends from its queries to all `length` positions: `out`
/// `[B, H D]`. The page written to must belong to that sequence alone.
pub fn forward<'a>(
    out: &mut Tensor,
    qkv: &Tensor,
    cache: &mut Cache,
    heads: Heads,
    span: impl Fn(usize) -> Span<'a> + Sync + Send,
) {
    let batch = qkv.rows();
    assert!(out.rows() == batch && out.cols() == heads.out() && qkv.cols() == heads.row(), "shapes agree");
    let qkv = qkv.f32();
    let out = Shared::new(out.f32_mut());
    let stride = heads.key * heads.dim * PAGE;
    let tables = (Shared::new(cache.keys.f32_mut()), Shared::new(cache.values.f32_mut()));
    const BLOCK: usize = 4;
    for_each(batch.div_ceil(BLOCK), |block| {
        for b in block * BLOCK..batch.min((block + 1) * BLOCK) {
            let span = span(b);
            assert!(span.length > 0 && span.length <= span.pages.len() * PAGE, "the new token has a page");
            let row = &qkv[b * heads.row()..][..heads.row()];
            let (last, slot) = (span.pages[(span.length - 1) / PAGE], (span.length - 1) % PAGE);
            // SAFETY: one row a sequence; the page written to is this sequence's own, and shared
            // pages are only read.
            let (out, page, values) = unsafe {
                (
                    out.slice(b * heads.out(), heads.out()),
                    tables.0.slice(last as usize * stride, stride),
                    tables.1.slice(last as usize * stride, stride),
                )
            };
            write(page, values, row, slot, heads);
            let query = &row[..heads.out()];
            SCRATCH.with_borrow_mut(|scratch| {
                dispatch(
                    #[inline(always)]
                    || sequence(out, query, tables, heads, span, scratch),
                );
            });
        }
    });
}

/// One sequence, page by page and all heads of a page together: what bounds this op is the flow of
/// pages from memory, so each is read once and in order.
#[inline(always)]
fn sequence(
    out: &mut [f32],
    query: &[f32],
    (keys, values): (Shared<f32>, Shared<f32>),
    heads: Heads,
    span: Span,
    scratch: &mut Vec<f32>,
) {
    let (dim, ratio, scale) = (heads.dim, heads.query / heads.key, heads.scale());
    let stride = heads.key * dim * PAGE;
    let pages = &span.pages[..span.length.div_ceil(PAGE)];
    // Scores `[H, positions]`, a row a head.
    let padded = pages.len() * PAGE;
    if scratch.len() < heads.query * padded {
        scratch.resize(heads.query * padded, 0.0);
    }
    let scores = &mut scratch[..heads.query * padded];
    for (i, &page) in pages.iter().enumerate() {
        // SAFETY: no task writes to a page of this sequence any more.
        let keys: &[f32] = unsafe { keys.slice(page as usize * stride, stride) };
        for (head, q) in query.chunks_exact(dim).enumerate() {
            let keys = &keys[head / ratio * dim * PAGE..][..dim * PAGE];
            let acc = page_scores(q, keys);
            for (s, a) in scores[head * padded + i * PAGE..][..PAGE].iter_mut().zip(acc) {
                *s = a * scale;
            }
        }
    }
    for scores in scores.chunks_exact_mut(padded) {
        scores[span.length..].fill(f32::NEG_INFINITY);
        let top = maximum(scores);
        let inverse = 1.0 / exp_shifted(scores, top);
        scores[..span.length].iter_mut().for_each(|s| *s *= inverse);
    }
    out.fill(0.0);
    for (i, &page) in pages.iter().enumerate() {
        // SAFETY: as above.
        let values: &[f32] = unsafe { values.slice(page as usize * stride, stride) };
        let live = PAGE.min(span.length - i * PAGE);
        for (head, out) in out.chunks_exact_mut(dim).enumerate() {
            let weights = &scores[head * padded + i * PAGE..][..live];
            add_values(out, weights, &values[head / ratio * dim * PAGE..][..dim * PAGE]);
        }
    }
}

/// `q · k` for the sixteen keys of a page `[D, 16]`; even and odd channels apart, so that two
/// chains of additions overlap.
#[inline(always)]
fn page_scores(q: &[f32], keys: &[f32]) -> V {
    let (mut even, mut odd) = (splat(0.0), splat(0.0));
    for (q, k) in q.chunks_exact(2).zip(keys.chunks_exact(2 * PAGE)) {
        even = fma(splat(q[0]), load(k), even);
        odd = fma(splat(q[1]), load(&k[PAGE..]), odd);
    }
    for i in 0..LANES {
        even[i] += odd[i];
    }
    even
}

/// `out += Σ_j p_j v_j` for the values of a page `[16, D]`, thirty-two channels at a time.
#[inline(always)]
fn add_values(out: &mut [f32], weights: &[f32], values: &[f32]) {
    let dim = out.len();
    let mut first = 0;
    while first + 2 * LANES <= dim {
        let (mut low, mut high) = (load(&out[first..]), load(&out[first + LANES..]));
        for (&p, v) in weights.iter().zip(values.chunks_exact(dim)) {
            low = fma(splat(p), load(&v[first..]), low);
            high = fma(splat(p), load(&v[first + LANES..]), high);
        }
        out[first..first + LANES].copy_from_slice(&low);
        out[first + LANES..first + 2 * LANES].copy_from_slice(&high);
        first += 2 * LANES;
    }
    if first < dim {
        for (&p, v) in weights.iter().zip(values.chunks_exact(dim)) {
            for (o, v) in out[first..].iter_mut().zip(&v[first..]) {
                *o = p.mul_add(*v, *o);
            }
        }
    }
}
