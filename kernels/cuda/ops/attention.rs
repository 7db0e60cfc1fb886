//! Attention of packed documents, for every GPU and for Hopper.

use super::{Done, line, run};
use crate::attention::Heads;
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};

/// Positions of a tile of attention.
pub const ATTENTION_TILE: usize = 64;
/// The same on Hopper.
pub const ATTENTION_TILE_SM90A: usize = 128;
/// A producer's warp group and two consumers.
const HOPPER_THREADS: u32 = 384;
/// Bytes of shared memory beyond the tiles.
const HOPPER_BARRIERS: u32 = 128;

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

pub(super) fn check_heads(heads: Heads) {
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
pub(in crate::cuda) fn attention_shape(tiles: Matrix, heads: Heads, threads: u32, rows: usize) -> Shape {
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

pub(in crate::cuda) fn attention_arguments(
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
