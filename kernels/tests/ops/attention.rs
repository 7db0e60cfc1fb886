//! Attention in training and in decoding.

use cognate_kernels::attention::{self, Heads};
use cognate_kernels::cuda::attention_attempts::{FORWARD, Forward};
use cognate_kernels::cuda::decode_plan::Plan;
use cognate_kernels::cuda::launch::{CudaError, Element, Engine, Matrix};
use cognate_kernels::cuda::ops::{self, AttentionInputs, PagedCache, PlanLists};
use cognate_kernels::decode_attention::{self, Cache, PAGE, Span};
use cognate_kernels::{Device, Tensor};

use super::machine::{Buffer, Draw, Machine};
use super::memory::documents;
use super::{close, close_as_a_whole};

const BF16: Element = Element::Bf16;
const F32: Element = Element::F32;

fn zeros(rows: usize, cols: usize) -> Tensor {
    Tensor::zeros(Device::Cpu, rows, cols)
}

/// Tiles as a `[n, 3]` list.
fn tile_list(on: &dyn Machine, tiles: Vec<u32>) -> Buffer<'_> {
    Buffer::raw(on, Element::U32, tiles.len() / 3, 3, &tiles)
}

/// Forward and backward, for any device.
pub fn check_attention(on: &dyn Machine, rows: usize, heads: Heads, seed: u64) {
    let mut draw = Draw::new(seed);
    let starts = documents(&mut draw, rows);
    let qkv = draw.tensor(BF16, rows, heads.row(), 1.0);
    let (mut out, mut lse) = (zeros(rows, heads.out()), zeros(rows, heads.query));
    attention::forward(&mut out, &mut lse, &qkv, &starts, heads);
    let dev_qkv = Buffer::of(on, BF16, &qkv);
    let dev_out = Buffer::poisoned(on, BF16, rows, heads.out());
    let dev_lse = Buffer::poisoned(on, F32, rows, heads.query);
    let queries = tile_list(on, ops::query_tiles(&starts));
    ops::attention_forward(on, dev_out.matrix, dev_lse.matrix, dev_qkv.matrix, queries.matrix, heads)
        .expect("launched");
    close("attention lse", &dev_lse.read(), lse.f32(), 2e-5);
    // P is rounded to bf16 before it meets the values.
    close("attention", &dev_out.read(), out.f32(), 1.2e-2);

    let dout = draw.tensor(BF16, rows, heads.out(), 1.0);
    let backward = Backward {
        launch: ops::attention_backward,
        queries: &queries,
        keys: &tile_list(on, ops::key_tiles(&starts)),
    };
    backward.check(on, &Given::new(qkv, dout, &starts, heads), &starts);
}

/// What a backward is given: `out` and `lse` are the CPU's.
struct Given {
    heads: Heads,
    qkv: Tensor,
    dout: Tensor,
    out: Tensor,
    lse: Tensor,
}

impl Given {
    fn new(qkv: Tensor, dout: Tensor, starts: &[u32], heads: Heads) -> Self {
        let (mut out, mut lse) = (zeros(qkv.rows(), heads.out()), zeros(qkv.rows(), heads.query));
        attention::forward(&mut out, &mut lse, &qkv, starts, heads);
        Given { heads, qkv, dout, out, lse }
    }
}

type LaunchBackward = fn(&dyn Engine, Matrix, Matrix, AttentionInputs, Heads) -> Result<(), CudaError>;

/// A launcher, and its tiles.
struct Backward<'b> {
    launch: LaunchBackward,
    queries: &'b Buffer<'b>,
    keys: &'b Buffer<'b>,
}

impl Backward<'_> {
    fn run(&self, on: &dyn Machine, given: &Given) -> Vec<f32> {
        let Given { heads, qkv, dout, out, lse } = given;
        let dqkv = Buffer::poisoned(on, BF16, qkv.rows(), heads.row());
        let delta = Buffer::poisoned(on, F32, qkv.rows(), heads.query);
        let [dev_qkv, dev_out, dev_dout] = [qkv, out, dout].map(|x| Buffer::of(on, BF16, x));
        let dev_lse = Buffer::of(on, F32, lse);
        let inputs = AttentionInputs {
            dout: dev_dout.matrix,
            qkv: dev_qkv.matrix,
            out: dev_out.matrix,
            lse: dev_lse.matrix,
            queries: self.queries.matrix,
            keys: self.keys.matrix,
        };
        (self.launch)(on, dqkv.matrix, delta.matrix, inputs, *heads).expect("launched");
        dqkv.read()
    }

    /// Against the CPU; gives `dqkv`.
    fn check(&self, on: &dyn Machine, given: &Given, starts: &[u32]) -> Vec<f32> {
        let Given { heads, qkv, dout, out, lse } = given;
        let mut dqkv = zeros(qkv.rows(), heads.row());
        attention::backward(&mut dqkv, dout, qkv, out, lse, starts, *heads);
        // Queries, keys and values apart: their sizes differ.
        let got = self.run(on, given);
        let parts = [0, heads.out(), heads.out() + heads.key * heads.dim, heads.row()];
        for (name, part) in ["dq", "dk", "dv"].iter().zip(parts.windows(2)) {
            let cut = |x: &[f32]| -> Vec<f32> {
                x.chunks_exact(heads.row()).flat_map(|row| row[part[0]..part[1]].to_vec()).collect()
            };
            close_as_a_whole(name, &cut(&got), &cut(dqkv.f32()));
        }
        got
    }
}

/// The backward for Hopper, and that what lies behind a document does not reach it.
pub fn check_backward_sm90a(on: &dyn Machine, rows: usize, heads: Heads, seed: u64) {
    let mut draw = Draw::new(seed);
    let starts = documents(&mut draw, rows);
    let qkv = draw.tensor(BF16, rows, heads.row(), 1.0);
    let dout = draw.tensor(BF16, rows, heads.out(), 1.0);
    let backward = Backward {
        launch: ops::attention_backward_sm90a,
        queries: &tile_list(on, ops::query_tiles_sm90a(&starts)),
        keys: &tile_list(on, ops::key_tiles_sm90a(&starts)),
    };
    let mut given = Given::new(qkv, dout, &starts, heads);
    let alone = backward.check(on, &given, &starts);
    let before = starts[starts.len() - 2] as usize;
    given.qkv.f32_mut()[before * heads.row()..].fill(f32::INFINITY);
    given.dout.f32_mut()[before * heads.out()..].fill(f32::INFINITY);
    let beside = backward.run(on, &given);
    let unchanged = before * heads.row();
    assert!(
        beside[..unchanged] == alone[..unchanged],
        "backward sm90a: a document reaches the one before it"
    );
}

/// The attempts at a forward for Hopper, the shipped one last.
pub fn check_attention_sm90a(on: &dyn Machine, rows: usize, heads: Heads, seed: u64) {
    let starts = documents(&mut Draw::new(seed), rows);
    for &attempt in FORWARD {
        check_forward_sm90a(on, attempt, &starts, heads, seed);
    }
}

/// One of them, and that what lies behind a document does not reach it.
pub fn check_forward_sm90a(
    on: &dyn Machine,
    (attempt, forward): (&str, Forward),
    starts: &[u32],
    heads: Heads,
    seed: u64,
) {
    let mut draw = Draw::new(seed);
    let rows = starts[starts.len() - 1] as usize;
    let mut qkv = draw.tensor(BF16, rows, heads.row(), 1.0);
    let (mut out, mut lse) = (zeros(rows, heads.out()), zeros(rows, heads.query));
    attention::forward(&mut out, &mut lse, &qkv, starts, heads);
    let tiles = tile_list(on, ops::query_tiles_sm90a(starts));
    let run = |qkv: &Tensor| -> (Vec<f32>, Vec<f32>) {
        let dev_out = Buffer::poisoned(on, BF16, rows, heads.out());
        let dev_lse = Buffer::poisoned(on, F32, rows, heads.query);
        let dev_qkv = Buffer::of(on, BF16, qkv);
        forward(on, dev_out.matrix, dev_lse.matrix, dev_qkv.matrix, tiles.matrix, heads).expect("launched");
        (dev_out.read(), dev_lse.read())
    };
    let (got, got_lse) = run(&qkv);
    close(&format!("attention sm90a {attempt} lse"), &got_lse, lse.f32(), 2e-5);
    close(&format!("attention sm90a {attempt}"), &got, out.f32(), 1.2e-2);

    let before = starts[starts.len() - 2] as usize;
    qkv.f32_mut()[before * heads.row()..].fill(f32::INFINITY);
    let (beside, _) = run(&qkv);
    let unchanged = before * heads.out();
    assert!(beside[..unchanged] == got[..unchanged], "{attempt}: a document reaches the one before it");
}

/// `sequences` that share a prompt of `prompt` pages, each with a few positions of its own.
pub fn check_decode(on: &dyn Machine, sequences: usize, prompt: usize, heads: Heads, seed: u64) {
    let mut draw = Draw::new(seed);
    let shared = draw.tensor(BF16, prompt * PAGE, heads.row(), 1.0);
    // Own positions, the new token among them; rows of all sequences one after another.
    let (mut starts, mut rows, mut lengths) = (vec![0], Vec::new(), Vec::new());
    let mut new_rows = Vec::new();
    for _ in 0..sequences {
        let count = 1 + draw.below(40) as usize;
        let own = draw.tensor(BF16, count, heads.row(), 1.0);
        rows.extend_from_slice(shared.f32());
        rows.extend_from_slice(&own.f32()[..own.len() - heads.row()]);
        new_rows.extend_from_slice(own.row(own.rows() - 1));
        starts.push((rows.len() / heads.row()) as u32);
        lengths.push(prompt * PAGE + own.rows());
    }
    let before = Tensor::from_slice(Device::Cpu, rows.len() / heads.row(), heads.row(), &rows);
    let new = Tensor::from_slice(Device::Cpu, sequences, heads.row(), &new_rows);

    // The CPU's pages: each sequence has its own.
    let mut pages = 0;
    let own_tables: Vec<Vec<u32>> = lengths
        .iter()
        .map(|length| {
            let first = pages;
            pages += length.div_ceil(PAGE) as u32;
            (first..pages).collect()
        })
        .collect();
    let width = heads.key * heads.dim * PAGE;
    let mut cache = Cache { keys: zeros(pages as usize, width), values: zeros(pages as usize, width) };
    decode_attention::fill(&mut cache, &before, &starts, &own_tables, heads);
    let mut want = zeros(sequences, heads.out());
    decode_attention::forward(&mut want, &new, &mut cache, heads, |b| Span {
        pages: &own_tables[b],
        length: lengths[b],
    });

    // The device's: the prompt's pages stand in every table.
    let tables: Vec<Vec<u32>> = own_tables
        .iter()
        .map(|own| own_tables[0][..prompt].iter().chain(&own[prompt..]).copied().collect())
        .collect();
    let keys = Buffer::poisoned(on, BF16, pages as usize, width);
    let values = Buffer::poisoned(on, BF16, pages as usize, width);
    let paged = PagedCache { keys: keys.matrix, values: values.matrix };
    let slot = |b: usize, p: usize| tables[b][p / PAGE] * PAGE as u32 + (p % PAGE) as u32;
    let slots: Vec<u32> = (0..sequences)
        .flat_map(|b| (0..lengths[b] - 1).map(move |p| (b, p)))
        .map(|(b, p)| if b > 0 && p < prompt * PAGE { u32::MAX } else { slot(b, p) })
        .collect();
    let dev_before = Buffer::of(on, BF16, &before);
    ops::cache_append(on, paged, dev_before.matrix, Buffer::list(on, &slots).matrix, heads)
        .expect("launched");
    let dev_new = Buffer::of(on, BF16, &new);
    let slots: Vec<u32> = (0..sequences).map(|b| slot(b, lengths[b] - 1)).collect();
    ops::cache_append(on, paged, dev_new.matrix, Buffer::list(on, &slots).matrix, heads).expect("launched");

    let spans: Vec<Span> = (0..sequences).map(|b| Span { pages: &tables[b], length: lengths[b] }).collect();
    let attend = |new: &Buffer, spans: &[Span], padding: usize| -> Vec<f32> {
        let mut plan = Plan::new(spans, heads.query / heads.key);
        plan.pad(plan.count() + padding);
        let items = Buffer::raw(on, Element::U32, plan.count(), 5, &plan.items);
        let lists = [&plan.pages, &plan.members, &plan.parts_first].map(|list| Buffer::list(on, list));
        let on_device = PlanLists {
            pages: lists[0].matrix,
            items: items.matrix,
            members: lists[1].matrix,
            parts_first: lists[2].matrix,
        };
        let out = Buffer::poisoned(on, BF16, spans.len(), heads.out());
        let partial = Buffer::poisoned(on, F32, plan.parts() * heads.query, heads.dim + 2);
        let pair = (out.matrix, partial.matrix);
        ops::decode_attention(on, pair, new.matrix, paged, &plan, on_device, heads).expect("launched");
        out.read()
    };
    let got = attend(&dev_new, &spans, 0);
    close("decode attention", &got, want.f32(), 1.2e-2);

    // Items of nobody change nothing, and a sequence has the same bits alone as among others.
    assert!(attend(&dev_new, &spans, 3) == got, "padding shows");
    let b = draw.below(sequences) as usize;
    let row = Tensor::from_slice(Device::Cpu, 1, heads.row(), new.row(b));
    let alone = attend(&Buffer::of(on, BF16, &row), &spans[b..=b], 0);
    assert!(alone == got[b * heads.out()..(b + 1) * heads.out()], "a sequence's result depends on its batch");
}
