//! The numbered attempts at the Hopper forward, all with one signature: each is held to the CPU op by
//! the shim's tests and `gpu-check`, and timed by `gpu-bench`. The last is the shipped kernel.

use super::launch::{Engine, Matrix};
use super::ops::{self, ATTENTION_TILE_SM90A, Done};
use crate::attention::Heads;

/// As [`ops::attention_forward_sm90a`].
pub type Forward = fn(&dyn Engine, Matrix, Matrix, Matrix, Matrix, Heads) -> Done;

/// What an attempt is about, and its launcher.
pub const FORWARD: &[(&str, Forward)] =
    &[("1: wgmma, cp.async", first), ("2: TMA, warp specialisation", ops::attention_forward_sm90a)];

fn first(on: &dyn Engine, out: Matrix, lse: Matrix, qkv: Matrix, tiles: Matrix, heads: Heads) -> Done {
    let shape = ops::attention_shape(tiles, heads, 256, 5 * ATTENTION_TILE_SM90A);
    let arguments = ops::attention_arguments(out, lse, qkv, tiles, heads);
    ops::run(on, "attention_1_sm90a", &format!("attention_1_sm90a_forward_{}", heads.dim), shape, arguments)
}
