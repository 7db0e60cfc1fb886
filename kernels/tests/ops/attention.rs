//! Attention in training and in decoding.

use cognate_kernels::attention::{self, Heads};
use cognate_kernels::cuda::decode_plan::Plan;
use cognate_kernels::cuda::launch::Element;
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

pub fn check_attention(on: &dyn Machine, rows: usize, heads: Heads, seed: u64) {
    let mut draw = Draw::new(seed);
    let starts = documents(&mut draw, rows);
    let qkv = draw.tensor(BF16, rows, heads.row(), 1.0);
    let dout = draw.tensor(BF16, rows, heads.out(), 1.0);
    let (mut out, mut lse) = (zeros(rows, heads.out()), zeros(rows, heads.query));
    attention::forward(&mut out, &mut lse, &qkv, &starts, heads);
    let mut dqkv = zeros(rows, heads.row());
    attention::backward(&mut dqkv, &dout, &qkv, &out, &lse, &starts, heads);

    let dev_qkv = Buffer::of(on, BF16, &qkv);
    let dev_out = Buffer::poisoned(on, BF16, rows, heads.out());
    let dev_lse = Buffer::poisoned(on, F32, rows, heads.query);
    let queries = tile_list(on, ops::query_tiles(&starts));
    let keys = tile_list(on, ops::key_tiles(&starts));
    ops::attention_forward(on, dev_out.matrix, dev_lse.matrix, dev_qkv.matrix, queries.matrix, heads)
        .expect("launched");
    close("attention lse", &dev_lse.read(), lse.f32(), 2e-5);
    // P is rounded to bf16 before it meets the values.
    close("attention", &dev_out.read(), out.f32(), 1.2e-2);

    let dev_dqkv = Buffer::poisoned(on, BF16, rows, heads.row());
    let delta = Buffer::poisoned(on, F32, rows, heads.query);
    let dev_dout = Buffer::of(on, BF16, &dout);
    let inputs = AttentionInputs {
        dout: dev_dout.matrix,
        qkv: dev_qkv.matrix,
        out: dev_out.matrix,
        lse: dev_lse.matrix,
        queries: queries.matrix,
        keys: keys.matrix,
    };
    ops::attention_backward(on, dev_dqkv.matrix, delta.matrix, inputs, heads).expect("launched");
    // Queries, keys and values apart: their sizes differ.
    let got = dev_dqkv.read();
    let parts = [0, heads.out(), heads.out() + heads.key * heads.dim, heads.row()];
    for (name, part) in ["dq", "dk", "dv"].iter().zip(parts.windows(2)) {
        let cut = |x: &[f32]| -> Vec<f32> {
            x.chunks_exact(heads.row()).flat_map(|row| row[part[0]..part[1]].to_vec()).collect()
        };
        close_as_a_whole(name, &cut(&got), &cut(dqkv.f32()));
    }
}

/// The forward for Hopper.
pub fn check_attention_sm90a(on: &dyn Machine, rows: usize, heads: Heads, seed: u64) {
    let mut draw = Draw::new(seed);
    let starts = documents(&mut draw, rows);
    let qkv = draw.tensor(BF16, rows, heads.row(), 1.0);
    let (mut out, mut lse) = (zeros(rows, heads.out()), zeros(rows, heads.query));
    attention::forward(&mut out, &mut lse, &qkv, &starts, heads);
    let dev_out = Buffer::poisoned(on, BF16, rows, heads.out());
    let dev_lse = Buffer::poisoned(on, F32, rows, heads.query);
    let tiles = tile_list(on, ops::query_tiles_sm90a(&starts));
    let dev_qkv = Buffer::of(on, BF16, &qkv);
    ops::attention_forward_sm90a(on, dev_out.matrix, dev_lse.matrix, dev_qkv.matrix, tiles.matrix, heads)
        .expect("launched");
    close("attention sm90a lse", &dev_lse.read(), lse.f32(), 2e-5);
    close("attention sm90a", &dev_out.read(), out.f32(), 1.2e-2);
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
    let attend = |new: &Buffer, spans: &[Span]| -> Vec<f32> {
        let plan = Plan::new(spans, heads.query / heads.key);
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
    let got = attend(&dev_new, &spans);
    close("decode attention", &got, want.f32(), 1.2e-2);

    // The same bits alone as among others.
    let b = draw.below(sequences) as usize;
    let row = Tensor::from_slice(Device::Cpu, 1, heads.row(), new.row(b));
    let alone = attend(&Buffer::of(on, BF16, &row), &spans[b..=b]);
    assert!(alone == got[b * heads.out()..(b + 1) * heads.out()], "a sequence's result depends on its batch");
}
