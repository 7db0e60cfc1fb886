//! The paged cache, and attention of new tokens to it.

use super::{Done, check_heads, line, run};
use crate::attention::Heads;
use crate::cuda::decode_plan::Plan;
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};

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
