//! Loss, gradient norm and update.

use cognate_kernels::adamw::{self, Update};
use cognate_kernels::adapter;
use cognate_kernels::cuda::launch::Element;
use cognate_kernels::cuda::ops::{self, LOSS_SUMS, Master, NORM_BLOCK, State, Step, Token};
use cognate_kernels::policy_loss::{
    self, KlEstimator, Objective, RatioLevel, SequenceMeans, StepSums, Terms,
};
use cognate_kernels::{Tensor, grad_norm};

use super::machine::{Buffer, Draw, Machine};
use super::{close, tolerance};

pub fn check_policy_loss(on: &dyn Machine, count: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let objective = Objective {
        cross_entropy_count: 7.0,
        policy_count: 3.0,
        kl_count: 11.0,
        clip_low: 0.2,
        clip_high: 0.28,
        importance_cap: [None, Some(1.1)][draw.below(2) as usize],
        kl: [KlEstimator::K1, KlEstimator::K2, KlEstimator::K3][draw.below(3) as usize],
        ratio: [RatioLevel::Token, RatioLevel::Sequence][draw.below(2) as usize],
        z_loss: [0.0, 0.01][draw.below(2) as usize],
        ..Objective::default()
    };
    let weight = |draw: &mut Draw| if draw.below(3) == 0 { 0.0 } else { draw.uniform() };
    let mut terms = Vec::new();
    let mut rows = Vec::new();
    for _ in 0..count {
        let logp = -3.0 * draw.uniform();
        let near = |draw: &mut Draw| logp + 0.6 * (draw.uniform() - 0.5);
        terms.push(Terms {
            cross_entropy: weight(&mut draw),
            policy: weight(&mut draw),
            kl: weight(&mut draw),
            advantage: 2.0 * draw.uniform() - 1.0,
            sampler: (draw.below(3) > 0).then(|| near(&mut draw)),
            old: (draw.below(3) > 0).then(|| near(&mut draw)),
            reference: near(&mut draw),
            sequence: (objective.ratio == RatioLevel::Sequence && draw.below(2) == 0).then(|| {
                SequenceMeans {
                    log_ratio: f64::from(0.4 * (draw.uniform() - 0.5)),
                    log_importance: f64::from(0.4 * (draw.uniform() - 0.5)),
                }
            }),
        });
        rows.extend([logp, draw.uniform(), 4.0 * draw.uniform()]);
    }
    let mut sums = StepSums::default();
    let want: Vec<f32> = terms
        .iter()
        .zip(rows.chunks_exact(3))
        .map(|(terms, row)| policy_loss::forward(&mut sums, terms, row[0], row[1], &objective))
        .collect();
    let z_loss = objective.z_loss != 0.0;
    let want_z: Vec<f32> = terms
        .iter()
        .zip(rows.chunks_exact(3))
        .filter(|_| z_loss)
        .map(|(terms, row)| policy_loss::z(&mut sums, terms.cross_entropy, row[2], &objective))
        .collect();
    let tokens: Vec<Token> = terms.iter().copied().map(Token::from).collect();
    let dev_terms = Buffer::raw(on, Element::F32, count, size_of::<Token>() / 4, &tokens);
    let dev_rows = Buffer::floats(on, Element::F32, count, 3, &rows);
    let dlogp = Buffer::poisoned(on, Element::F32, 1, count);
    let dz = z_loss.then(|| Buffer::poisoned(on, Element::F32, 1, count));
    let dev_sums = Buffer::raw(on, Element::F64, 1, LOSS_SUMS, &[1.0f64; LOSS_SUMS]);
    let partial = Buffer::poisoned(on, Element::F64, count.div_ceil(256), LOSS_SUMS);
    let pair = (dev_sums.matrix, partial.matrix);
    let out = (dlogp.matrix, dz.as_ref().map(|b| b.matrix));
    ops::policy_loss(on, out, pair, dev_terms.matrix, dev_rows.matrix, &objective).expect("launched");
    close("dlogp", &dlogp.read(), &want, 1e-6);
    if let Some(dz) = &dz {
        close("dz", &dz.read(), &want_z, 1e-6);
    }
    let s = sums;
    let want = [
        s.loss,
        s.cross_entropy,
        s.policy,
        s.kl,
        s.cross_entropy_tokens,
        s.policy_tokens,
        s.kl_tokens,
        s.tokens,
        s.entropy_sum,
        s.logprob_sum,
        s.clipped_low,
        s.clipped_high,
        s.ratio_sum,
        s.approx_kl_sum,
        s.abs_delta_sum,
        s.importance_truncated,
        s.z_loss,
    ];
    for (i, (got, want)) in dev_sums.read_bytes().chunks_exact(8).zip(want).enumerate() {
        let got = f64::from_le_bytes(got.try_into().expect("eight bytes")) - 1.0;
        assert!((got - want).abs() <= 1e-10 * (1.0 + want.abs()), "sum {i} is {got}, the CPU says {want}");
    }
}

/// Norm, clip factor and, with them, one AdamW update of two tensors.
pub fn check_update(on: &dyn Machine, n: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let e = Element::F32;
    let n = n.next_multiple_of(4);
    let gradients = [draw.tensor(e, 1, n, 1.0), draw.tensor(e, 3, 8, 1.0)];
    let dev = gradients.each_ref().map(|g| Buffer::of(on, e, g));
    let norm = grad_norm::forward(gradients.iter(), &mut Vec::new());
    let out = Buffer::poisoned(on, e, 1, 2);
    let partial = Buffer::poisoned(on, Element::F64, 1, n.div_ceil(NORM_BLOCK) + 1);
    let matrices = dev.each_ref().map(|b| b.matrix);
    ops::grad_norm(on, out.matrix, partial.matrix, &matrices, Some(0.5)).expect("launched");
    close("norm", &out.read()[..1], &[norm as f32], 1e-6);
    close("clip", &out.read()[1..], &[if norm > 0.5 { (0.5 / norm) as f32 } else { 1.0 }], 1e-6);
    ops::grad_norm(on, out.matrix, partial.matrix, &matrices, None).expect("launched");
    assert_eq!(out.read()[1], 1.0, "nothing to clip");

    let [mut g, _] = gradients;
    let scale = Buffer::floats(on, e, 1, 2, &[0.0, 0.75]);
    let (mut w, mut m, mut v) = state(&mut draw, n);
    let update = update(3);
    let state = [&w, &m, &v].map(|t| Buffer::of(on, e, t));
    let [dev_w, dev_m, dev_v] = state.each_ref().map(|b| b.matrix);
    let dev_g = dev[0].matrix;
    adamw::forward(&mut w, &mut g, &mut m, &mut v, update);
    let all = State { w: dev_w, remainder: None, g: dev_g, m: dev_m, v: dev_v };
    ops::adamw(on, all, scale.matrix, step(update, seed)).expect("launched");
    for (name, got, want) in [("w", &state[0], &w), ("m", &state[1], &m), ("v", &state[2], &v)] {
        close(name, &got.read(), want.f32(), 1e-6);
    }
    assert!(dev[0].read().iter().all(|&g| g == 0.0), "the gradient is cleared");
}

/// Weights, first and second moments.
fn state(draw: &mut Draw, n: usize) -> (Tensor, Tensor, Tensor) {
    let (w, m) = (draw.tensor(Element::F32, 1, n, 1.0), draw.tensor(Element::F32, 1, n, 0.1));
    let mut v = draw.tensor(Element::F32, 1, n, 0.1);
    v.f32_mut().iter_mut().for_each(|v| *v *= *v);
    (w, m, v)
}

fn update(t: i32) -> Update {
    let (beta1, beta2) = (0.9f32, 0.99f32);
    Update {
        lr: 0.01,
        beta1,
        beta2,
        eps: 1e-8,
        weight_decay: 0.1,
        bias1: 1.0 - beta1.powi(t),
        bias2: 1.0 - beta2.powi(t),
        scale: 0.75,
    }
}

fn step(u: Update, seed: u64) -> Step {
    Step {
        lr: u.lr,
        beta1: u.beta1,
        beta2: u.beta2,
        eps: u.eps,
        weight_decay: u.weight_decay,
        bias1: u.bias1,
        bias2: u.bias2,
        step: 3,
        seed,
        first: 0,
    }
}

/// bf16 weights with a remainder and fp32 moments are the fp32 update, and the split loses nothing.
pub fn check_master(on: &dyn Machine, n: usize, seed: u64) {
    let n = n.next_multiple_of(8);
    let mut draw = Draw::new(seed);
    let (mut w, mut m, mut v) = state(&mut draw, n);
    let mut g = draw.tensor(Element::Bf16, 1, n, 1.0);
    let (high, low) = split(w.f32());
    let dev_w = Buffer::raw(on, Element::Bf16, 1, n, &high);
    let rest = Buffer::raw(on, Element::U16, 1, n, &low);
    let dev_g = Buffer::of(on, Element::Bf16, &g);
    let (dev_m, dev_v) = (Buffer::of(on, Element::F32, &m), Buffer::of(on, Element::F32, &v));
    let scale = Buffer::floats(on, Element::F32, 1, 2, &[0.0, 0.75]);
    let all = State {
        w: dev_w.matrix,
        remainder: Some(rest.matrix),
        g: dev_g.matrix,
        m: dev_m.matrix,
        v: dev_v.matrix,
    };
    let update = update(3);
    ops::adamw(on, all, scale.matrix, step(update, seed)).expect("launched");
    adamw::forward(&mut w, &mut g, &mut m, &mut v, update);
    let (high, low) = (words(&dev_w), words(&rest));
    close("master", &join(&high, &low), w.f32(), 1e-6);
    close("m", &dev_m.read(), m.f32(), 1e-6);
    close("v", &dev_v.read(), v.f32(), 1e-6);
    // The weight alone is the master rounded to nearest.
    close("weight", &dev_w.read(), w.f32(), 4e-3);
    // A norm that was not finite: nothing moves.
    let skip = Buffer::floats(on, Element::F32, 1, 2, &[0.0, -1.0]);
    ops::adamw(on, all, skip.matrix, step(update, seed)).expect("launched");
    assert!(words(&dev_w) == high && words(&rest) == low, "a skipped step leaves the weights");
}

fn words(buffer: &Buffer) -> Vec<u16> {
    buffer.read_bytes().chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

/// A factor as an operand, and the merge of a product of factors into frozen masters.
pub fn check_adapter(on: &dyn Machine, n: usize, seed: u64) {
    let n = n.next_multiple_of(8);
    let mut draw = Draw::new(seed);
    let f32s = |x: &Tensor| Buffer::of(on, Element::F32, x);
    let scale = 4.0 * draw.uniform() + 0.1;
    let x = draw.tensor(Element::F32, 1, n, 0.1);
    let out = Buffer::poisoned(on, Element::Bf16, 1, n);
    ops::adapter_operand(on, out.matrix, f32s(&x).matrix, scale).expect("launched");
    let mut want = vec![0.0; n];
    adapter::operand(&mut want, x.f32(), scale);
    let rounded: Vec<f32> = want.iter().map(|&x| half::bf16::from_f32(x).to_f32()).collect();
    assert_eq!(out.read(), rounded, "an operand is the scaled factor, rounded to nearest");

    let (base, delta) = (draw.tensor(Element::F32, 1, n, 1.0), draw.tensor(Element::F32, 1, n, 0.01));
    let (high, low) = split(base.f32());
    let frozen = [(Element::Bf16, &high), (Element::U16, &low)].map(|(e, x)| Buffer::raw(on, e, 1, n, x));
    let merged = [Element::Bf16, Element::U16].map(|e| Buffer::poisoned(on, e, 1, n));
    let master = |pair: &[Buffer; 2]| Master { weight: pair[0].matrix, remainder: pair[1].matrix };
    let dev_delta = f32s(&delta);
    ops::adapter_merge(on, master(&merged), master(&frozen), dev_delta.matrix, scale).expect("launched");
    adapter::merge(&mut want, base.f32(), delta.f32(), scale);
    let found = merged.each_ref().map(words);
    // The sum is rounded once or twice, and then split without loss.
    close("merged", &join(&found[0], &found[1]), &want, 2e-7);
    let parts = split(&join(&found[0], &found[1]));
    assert!(parts == (found[0].clone(), found[1].clone()), "the weight is the master rounded to nearest");
    assert!(words(&frozen[0]) == high && words(&frozen[1]) == low, "what is frozen stays");
    // Nothing to add: the same bits.
    let zeros = Buffer::floats(on, Element::F32, 1, n, &vec![0.0; n]);
    ops::adapter_merge(on, master(&merged), master(&frozen), zeros.matrix, scale).expect("launched");
    assert!(words(&merged[0]) == high && words(&merged[1]) == low, "W0 + 0 is W0");
}

/// The weight, and what it leaves of the master.
fn split(masters: &[f32]) -> (Vec<u16>, Vec<u16>) {
    masters
        .iter()
        .map(|x| {
            let high = x.to_bits().wrapping_add(0x8000) >> 16;
            (high as u16, x.to_bits().wrapping_sub(high << 16) as u16)
        })
        .unzip()
}

fn join(high: &[u16], low: &[u16]) -> Vec<f32> {
    let value = |(&h, &l): (&u16, &u16)| {
        f32::from_bits((u32::from(h) << 16).wrapping_add(i32::from(l as i16) as u32))
    };
    high.iter().zip(low).map(value).collect()
}

/// Random rounding goes to one of the two neighbours, and its mean is the value: many copies of one
/// parameter are updated and averaged. The negative control is the spread: rounding to nearest
/// would give one value.
pub fn check_stochastic(on: &dyn Machine, n: usize, seed: u64) {
    let n = n.next_multiple_of(8);
    let mut draw = Draw::new(seed);
    let values = [1.0 + 0.5 * draw.uniform(), 0.3 * draw.uniform(), 0.01 * draw.uniform() + 1e-4, 1.0]
        .map(|x| half::bf16::from_f32(x).to_f32());
    let constant = |x: f32, n: usize| {
        let mut t = Tensor::zeros(cognate_kernels::Device::Cpu, 1, n);
        t.f32_mut().fill(x);
        t
    };
    let [mut w, mut m, mut v, mut g] = values.map(|x| constant(x, n));
    let dev = [&w, &m, &v, &g].map(|t| Buffer::of(on, Element::Bf16, t));
    let [dev_w, dev_m, dev_v, dev_g] = dev.each_ref().map(|b| b.matrix);
    let scale = Buffer::floats(on, Element::F32, 1, 2, &[0.0, 0.75]);
    let update = update(3);
    let all = State { w: dev_w, remainder: None, g: dev_g, m: dev_m, v: dev_v };
    let copies = [&w, &m, &v, &g].map(|t| Buffer::of(on, Element::Bf16, t));
    ops::adamw(on, all, scale.matrix, step(update, seed)).expect("launched");
    // In two launches the same bits, as each draws by the place in the whole.
    let cut = n / 16 * 8;
    for (first, len) in [(cut, n - cut), (0, cut)] {
        let [w, m, v, g] = copies.each_ref().map(|b| b.matrix.part(first, 1, len));
        let first = first as u64 / 8;
        let part = State { w, remainder: None, g, m, v };
        ops::adamw(on, part, scale.matrix, Step { first, ..step(update, seed) }).expect("launched");
    }
    for (whole, parts) in dev.iter().zip(&copies) {
        assert!(words(whole) == words(parts), "two launches differ from one");
    }
    adamw::forward(&mut w, &mut g, &mut m, &mut v, update);
    for (name, got, want) in [("w", &dev[0], &w), ("m", &dev[1], &m), ("v", &dev[2], &v)] {
        let (got, want) = (got.read(), want.f32()[0]);
        let step = want.abs() * 2f32.powi(-7);
        assert!(got.iter().all(|x| (x - want).abs() <= step), "{name} goes to a neighbour of {want}");
        let mean = got.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        let allowed = 4.0 * f64::from(step) / (n as f64).sqrt();
        assert!((mean - f64::from(want)).abs() <= allowed, "{name}: the mean {mean} is not {want}");
        let low = half::bf16::from_f32(want).to_f32();
        if (want - low).abs() > 0.05 * step {
            assert!(got.iter().any(|&x| x != got[0]), "{name} is rounded both ways");
        }
    }
}

/// The bound of [`close`] for sums of bf16 gradients.
pub fn check_norm_bf16(on: &dyn Machine, n: usize, seed: u64) {
    let mut draw = Draw::new(seed);
    let g = draw.tensor(Element::Bf16, 1, n.next_multiple_of(8), 1.0);
    let dev = Buffer::of(on, Element::Bf16, &g);
    let out = Buffer::poisoned(on, Element::F32, 1, 2);
    let partial = Buffer::poisoned(on, Element::F64, 1, n.div_ceil(NORM_BLOCK) + 1);
    ops::grad_norm(on, out.matrix, partial.matrix, &[dev.matrix], None).expect("launched");
    let want = grad_norm::forward(std::iter::once(&g), &mut Vec::new());
    close("norm", &out.read()[..1], &[want as f32], tolerance(Element::F32));
    // One value that is not finite is a step to skip.
    let mut broken = g.f32().to_vec();
    broken[draw.below(n) as usize] = f32::INFINITY;
    let dev = Buffer::floats(on, Element::Bf16, 1, broken.len(), &broken);
    ops::grad_norm(on, out.matrix, partial.matrix, &[dev.matrix], Some(1.0)).expect("launched");
    assert_eq!(out.read()[1], -1.0, "a norm that is not finite skips the step");
}
