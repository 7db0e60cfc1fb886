//! Draws on the device are the CPU's, with the same keys.

use cognate_kernels::cuda::launch::Element;
use cognate_kernels::cuda::ops;
use cognate_kernels::sampling::{self, SampleOptions};
use cognate_random::Key;

use super::machine::{Buffer, Draw, Machine};

/// One row with each of several options.
pub fn check_sampling(on: &dyn Machine, e: Element, vocabulary: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let plain = SampleOptions::default();
    let some = 1 + draw.below(vocabulary) as usize;
    let kinds = [
        plain,
        SampleOptions { temperature: 0.0, ..plain },
        SampleOptions { temperature: 0.6, ..plain },
        SampleOptions { top_k: 1, ..plain },
        SampleOptions { top_k: some, ..plain },
        SampleOptions { top_p: 0.9, ..plain },
        SampleOptions { top_p: 1e-6, ..plain },
        SampleOptions { temperature: 1.4, top_k: some, top_p: 0.5 + 0.5 * draw.uniform() },
    ];
    let rows = 2 * kinds.len();
    let stride = vocabulary.next_multiple_of(e.pack());
    // Few distinct values, so that equals occur, and some tokens that cannot be drawn.
    let mut logits = draw.tensor(Element::Bf16, rows, stride, 2.0);
    for l in logits.f32_mut() {
        *l = if draw.below(20) == 0 { f32::NEG_INFINITY } else { (*l * 8.0).round() / 8.0 };
    }
    for row in logits.f32_mut().chunks_exact_mut(stride) {
        row[0] = 0.5;
        row[vocabulary..].fill(f32::NAN);
    }
    let (mut options, mut keys, mut counters, mut uniforms) = (vec![], vec![], vec![], vec![]);
    for r in 0..rows {
        let o = &kinds[r % kinds.len()];
        options.extend([o.temperature.to_bits(), o.top_k as u32, o.top_p.to_bits()]);
        let (key, counter) = (Key::new(seed).with("row").with(r), draw.bits() >> (r % 40));
        keys.push(key.raw());
        counters.push(counter);
        uniforms.push(key.uniform(counter));
    }
    let out = Buffer::poisoned(on, Element::U32, rows, 3);
    let dev_logits = Buffer::of(on, e, &logits);
    let dev_options = Buffer::raw(on, Element::U32, rows, 3, &options);
    let dev_keys = Buffer::raw(on, Element::U64, 1, rows, &keys);
    let dev_counters = Buffer::raw(on, Element::U64, 1, rows, &counters);
    let random = (dev_keys.matrix, dev_counters.matrix);
    ops::sample(on, out.matrix, dev_logits.matrix, dev_options.matrix, random, vocabulary).expect("launched");
    for (r, got) in out.read_bytes().chunks_exact(12).enumerate() {
        let word = |i: usize| u32::from_le_bytes(got[4 * i..4 * i + 4].try_into().expect("four bytes"));
        let (options, row) = (&kinds[r % kinds.len()], &logits.row(r)[..vocabulary]);
        // A number within rounding of a boundary may fall on either side.
        let shifted = [0.0, 3e-6, -3e-6].map(|d| {
            [0.0, 3e-6, -3e-6].map(|p| {
                let options = SampleOptions {
                    top_p: if options.top_p < 1.0 { options.top_p + p } else { 1.0 },
                    ..*options
                };
                sampling::row(row, &options, (uniforms[r] + d).clamp(0.0, 1.0 - f32::EPSILON))
            })
        });
        let want = shifted.concat().into_iter().find(|s| s.token == word(0));
        let want = want.unwrap_or_else(|| {
            panic!("row {r}, {options:?}: token {}, the CPU draws {:?}", word(0), shifted[0][0])
        });
        for (name, got, want) in [
            ("logprob", f32::from_bits(word(1)), want.logprob),
            ("sampling logprob", f32::from_bits(word(2)), want.sampling_logprob),
        ] {
            assert!((got - want).abs() < 2e-5, "row {r}, {options:?}: {name} is {got}, the CPU says {want}");
        }
    }
}
