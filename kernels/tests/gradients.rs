//! Every op against an independent evaluation in double precision: the forward directly, the
//! backward against central finite differences of the reference, over random shapes.

use cognate_kernels::attention::Heads;
use cognate_kernels::policy_loss::{KlEstimator, Objective, StepSums, Terms};
use cognate_kernels::rope::{Scaling, Table};
use cognate_kernels::{
    Device, Tensor, attention, bias, classifier, embedding, gather, matmul, policy_loss, pooling, rmsnorm,
    rope, swiglu,
};
use proptest::prelude::*;

/// Deterministic values in about ±1.5.
fn values(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            f64::from(((state >> 33) as f64 / f64::from(1u32 << 31) - 0.5) as f32) * 3.0
        })
        .collect()
}

fn tensor(rows: usize, cols: usize, x: &[f64]) -> Tensor {
    let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    Tensor::from_slice(Device::Cpu, rows, cols, &x)
}

fn zeros(rows: usize, cols: usize) -> Tensor {
    Tensor::zeros(Device::Cpu, rows, cols)
}

/// `‖got − want‖ ≤ tolerance · ‖want‖`, with a floor where differences of values near 1 cancel, as the log-probability
/// 0 of the one entry of a vocabulary of one.
fn close(name: &str, got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{name}: lengths");
    let error: f64 = got.iter().zip(want).map(|(&g, w)| (f64::from(g) - w).powi(2)).sum::<f64>().sqrt();
    let norm: f64 = want.iter().map(|w| w * w).sum::<f64>().sqrt();
    assert!(error <= tolerance * (norm + 0.05), "{name}: error {error:e} of norm {norm:e}");
}

/// Central differences of `Σ c ⊙ f(x)` by each value of `x`.
fn differences(x: &[f64], c: &[f64], f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
    const H: f64 = 1e-5;
    let value = |x: &[f64]| f(x).iter().zip(c).map(|(y, c)| y * c).sum::<f64>();
    let mut x = x.to_vec();
    (0..x.len())
        .map(|i| {
            let at = x[i];
            x[i] = at + H;
            let up = value(&x);
            x[i] = at - H;
            let down = value(&x);
            x[i] = at;
            (up - down) / (2.0 * H)
        })
        .collect()
}

fn rmsnorm64(x: &[f64], w: &[f64], eps: f64) -> Vec<f64> {
    x.chunks(w.len())
        .flat_map(|x| {
            let r = 1.0 / (x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64 + eps).sqrt();
            x.iter().zip(w).map(move |(x, w)| x * r * w).collect::<Vec<_>>()
        })
        .collect()
}

fn swiglu64(x: &[f64], f: usize) -> Vec<f64> {
    x.chunks(2 * f)
        .flat_map(|row| (0..f).map(|i| row[i] / (1.0 + (-row[i]).exp()) * row[f + i]).collect::<Vec<_>>())
        .collect()
}

fn attention64(qkv: &[f64], starts: &[u32], h: Heads) -> Vec<f64> {
    let (row, d) = (h.row(), h.dim);
    let mut out = vec![0.0; starts[starts.len() - 1] as usize * h.out()];
    for span in starts.windows(2) {
        for t in span[0] as usize..span[1] as usize {
            for head in 0..h.query {
                let g = head / (h.query / h.key);
                let q = &qkv[t * row + head * d..][..d];
                let keys = span[0] as usize..t + 1;
                let dot = |j: usize| {
                    let k = &qkv[j * row + (h.query + g) * d..][..d];
                    q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>() / (d as f64).sqrt()
                };
                let weights: Vec<f64> = keys.clone().map(|j| dot(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for (j, w) in keys.zip(weights) {
                    let v = &qkv[j * row + (h.query + h.key + g) * d..][..d];
                    for (i, v) in v.iter().enumerate() {
                        out[t * h.out() + head * d + i] += w / total * v;
                    }
                }
            }
        }
    }
    out
}

fn rope64(x: &[f64], row: usize, heads: usize, dim: usize, positions: &[u32], theta: f64) -> Vec<f64> {
    let mut y = x.to_vec();
    for (t, &p) in positions.iter().enumerate() {
        for h in 0..heads {
            for i in 0..dim / 2 {
                let angle = f64::from(p) * theta.powf(-2.0 * i as f64 / dim as f64);
                let (a, b) = (x[t * row + h * dim + i], x[t * row + h * dim + i + dim / 2]);
                y[t * row + h * dim + i] = a * angle.cos() - b * angle.sin();
                y[t * row + h * dim + i + dim / 2] = b * angle.cos() + a * angle.sin();
            }
        }
    }
    y
}

fn starts_of(lengths: &[usize]) -> Vec<u32> {
    let mut starts = vec![0u32];
    lengths.iter().for_each(|&n| starts.push(starts[starts.len() - 1] + n as u32));
    starts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rmsnorm_matches(rows in 1usize..40, cols in 1usize..70, seed in 1u64..1000) {
        let (x, b, w) = (values(rows * cols, seed), values(rows * cols, seed + 1), values(cols, seed + 2));
        let dy = values(rows * cols, seed + 3);
        let eps = 1e-3;
        let s: Vec<f64> = x.iter().zip(&b).map(|(x, b)| x + b).collect();
        let (mut stream, mut y, mut rstd) = (zeros(rows, cols), zeros(rows, cols), zeros(1, rows));
        let (wt, xt) = (tensor(1, cols, &w), tensor(rows, cols, &x));
        rmsnorm::forward_residual(&mut stream, &mut y, &mut rstd, &xt, &tensor(rows, cols, &b), &wt, eps as f32);
        close("sum", stream.f32(), &s, 1e-6);
        close("y", y.f32(), &rmsnorm64(&s, &w, eps), 1e-5);
        let mut again = zeros(rows, cols);
        rmsnorm::forward(&mut again, &mut rstd, &stream, &wt, eps as f32);
        prop_assert_eq!(again.f32(), y.f32());
        // What stands in the gradients already must stay: the backward adds.
        let (mut dx, mut dw) = (tensor(rows, cols, &b), tensor(1, cols, &w));
        rmsnorm::backward(&mut dx, &mut dw, &mut zeros(0, 1), &tensor(rows, cols, &dy), &stream, &rstd, &wt);
        let want_x = differences(&s, &dy, |s| rmsnorm64(s, &w, eps));
        let want_w = differences(&w, &dy, |w| rmsnorm64(&s, w, eps));
        close("dx", dx.f32(), &want_x.iter().zip(&b).map(|(d, b)| d + b).collect::<Vec<_>>(), 1e-4);
        close("dw", dw.f32(), &want_w.iter().zip(&w).map(|(d, w)| d + w).collect::<Vec<_>>(), 1e-4);
    }

    #[test]
    fn swiglu_matches(rows in 1usize..20, f in 1usize..60, seed in 1u64..1000) {
        let (x, dy) = (values(rows * 2 * f, seed), values(rows * f, seed + 1));
        let (mut y, mut dx) = (zeros(rows, f), zeros(rows, 2 * f));
        let xt = tensor(rows, 2 * f, &x);
        swiglu::forward(&mut y, &xt);
        close("y", y.f32(), &swiglu64(&x, f), 1e-5);
        swiglu::backward(&mut dx, &tensor(rows, f, &dy), &xt);
        close("dx", dx.f32(), &differences(&x, &dy, |x| swiglu64(x, f)), 1e-4);
    }

    #[test]
    fn matmul_matches(m in 1usize..70, n in 1usize..80, k in 1usize..90, seed in 1u64..1000) {
        let (x, w, dy) = (values(m * k, seed), values(n * k, seed + 1), values(m * n, seed + 2));
        let mut y = zeros(m, n);
        matmul::forward(&mut y, &tensor(m, k, &x), &tensor(n, k, &w));
        let want: Vec<f64> = (0..m * n).map(|i| (0..k).map(|p| x[i / n * k + p] * w[i % n * k + p]).sum()).collect();
        close("y", y.f32(), &want, 1e-5);
        let mut dx = zeros(m, k);
        matmul::backward_input(&mut dx, &tensor(m, n, &dy), &tensor(n, k, &w));
        let want: Vec<f64> = (0..m * k).map(|i| (0..n).map(|p| dy[i / k * n + p] * w[p * k + i % k]).sum()).collect();
        close("dx", dx.f32(), &want, 1e-5);
        let mut dw = tensor(n, k, &w);
        matmul::backward_weight(&mut dw, &tensor(m, n, &dy), &tensor(m, k, &x));
        let want: Vec<f64> =
            (0..n * k).map(|i| w[i] + (0..m).map(|p| dy[p * n + i / k] * x[p * k + i % k]).sum::<f64>()).collect();
        close("dw", dw.f32(), &want, 1e-5);
    }

    #[test]
    fn rope_matches(rows in 1usize..20, heads in 1usize..4, half in 1usize..20, seed in 1u64..1000) {
        let dim = 2 * half;
        // One head beyond the rotated ones, which must stay as it is.
        let row = (heads + 1) * dim;
        let (x, dy) = (values(rows * row, seed), values(rows * row, seed + 1));
        let positions: Vec<u32> = (0..rows as u32).map(|t| t * 7 % 50).collect();
        let mut table = Table::new(Device::Cpu, dim, 1000.0, Scaling::None);
        table.reserve(50);
        let mut y = tensor(rows, row, &x);
        rope::forward(&mut y, heads, &positions, &table);
        close("y", y.f32(), &rope64(&x, row, heads, dim, &positions, 1000.0), 1e-5);
        let mut dx = tensor(rows, row, &dy);
        rope::backward(&mut dx, heads, &positions, &table);
        let want = differences(&x, &dy, |x| rope64(x, row, heads, dim, &positions, 1000.0));
        close("dx", dx.f32(), &want, 1e-4);
    }

    #[test]
    fn attention_matches(
        lengths in prop::collection::vec(0usize..12, 1..4),
        key in 1usize..3, ratio in 1usize..4, half in 1usize..10, seed in 1u64..1000,
    ) {
        let heads = Heads { query: key * ratio, key, dim: 2 * half };
        let starts = starts_of(&lengths);
        let t = starts[lengths.len()] as usize;
        let (x, dy) = (values(t * heads.row(), seed), values(t * heads.out(), seed + 1));
        let (mut out, mut lse, mut dx) = (zeros(t, heads.out()), zeros(t, heads.query), zeros(t, heads.row()));
        let xt = tensor(t, heads.row(), &x);
        attention::forward(&mut out, &mut lse, &xt, &starts, heads);
        close("out", out.f32(), &attention64(&x, &starts, heads), 1e-5);
        attention::backward(&mut dx, &tensor(t, heads.out(), &dy), &xt, &out, &lse, &starts, heads);
        close("dqkv", dx.f32(), &differences(&x, &dy, |x| attention64(x, &starts, heads)), 1e-4);
    }

    #[test]
    fn embedding_and_bias_match(rows in 1usize..60, cols in 1usize..150, vocabulary in 1usize..12, seed in 1u64..1000) {
        let tokens: Vec<u32> = (0..rows).map(|t| (t * 5 % vocabulary) as u32).collect();
        let (table, dy, b) = (values(vocabulary * cols, seed), values(rows * cols, seed + 1), values(cols, seed + 2));
        let mut y = zeros(rows, cols);
        embedding::forward(&mut y, &tensor(vocabulary, cols, &table), &tokens);
        bias::forward(&mut y, &tensor(1, cols, &b));
        let want: Vec<f64> =
            (0..rows * cols).map(|i| table[tokens[i / cols] as usize * cols + i % cols] + b[i % cols]).collect();
        close("y", y.f32(), &want, 1e-6);
        let (mut dtable, mut db) = (tensor(vocabulary, cols, &table), tensor(1, cols, &b));
        embedding::backward(&mut dtable, &tensor(rows, cols, &dy), &tokens);
        bias::backward(&mut db, &mut zeros(0, 1), &tensor(rows, cols, &dy));
        let (mut want, mut want_b) = (table.clone(), b.clone());
        for i in 0..rows * cols {
            want[tokens[i / cols] as usize * cols + i % cols] += dy[i];
            want_b[i % cols] += dy[i];
        }
        close("dtable", dtable.f32(), &want, 1e-5);
        close("db", db.f32(), &want_b, 1e-5);
    }

    #[test]
    fn classifier_matches(rows in 1usize..20, vocabulary in 1usize..70, seed in 1u64..1000, warm in 1u32..4) {
        let tau = f64::from(warm) * 0.5;
        let (l, c) = (values(rows * vocabulary, seed), values(rows, seed + 1));
        let targets: Vec<u32> = (0..rows).map(|t| (t * 11 % vocabulary) as u32).collect();
        let logprobs = |l: &[f64]| -> Vec<f64> {
            l.chunks(vocabulary)
                .zip(&targets)
                .map(|(l, &t)| l[t as usize] / tau - l.iter().map(|x| (x / tau).exp()).sum::<f64>().ln())
                .collect()
        };
        let entropies: Vec<f64> = l
            .chunks(vocabulary)
            .map(|l| {
                let z: f64 = l.iter().map(|x| (x / tau).exp()).sum();
                l.iter().map(|x| (x / tau).exp() / z).map(|p| -p * p.ln()).sum()
            })
            .collect();
        let mut chunk = tensor(rows, vocabulary, &l);
        let mut stats = vec![[0.0f32; 3]; rows];
        classifier::forward(&mut chunk, &mut stats, &targets, tau as f32);
        close("logprob", &stats.iter().map(|s| s[0]).collect::<Vec<_>>(), &logprobs(&l), 1e-5);
        close("entropy", &stats.iter().map(|s| s[1]).collect::<Vec<_>>(), &entropies, 1e-5);
        let dlogp: Vec<f32> = c.iter().map(|&c| c as f32).collect();
        classifier::backward(&mut chunk, &stats, &dlogp, &targets, tau as f32);
        close("dlogits", chunk.f32(), &differences(&l, &c, logprobs), 1e-4);
    }

    #[test]
    fn policy_loss_matches(
        logp in -4.0f64..-0.01, old in -4.0f64..-0.01, sampler in -4.0f64..-0.01, reference in -4.0f64..-0.01,
        advantage in -2.0f64..2.0, weights in (0.0f64..2.0, 0.0f64..2.0, 0.0f64..2.0),
        kl in prop::sample::select(vec![KlEstimator::K1, KlEstimator::K2, KlEstimator::K3]),
        cap in prop::option::of(0.5f64..3.0), on_policy: bool,
    ) {
        let objective = Objective {
            cross_entropy_count: 3.0, policy_count: 5.0, kl_count: 7.0, clip_low: 0.2, clip_high: 0.3,
            importance_cap: cap.map(|c| c as f32), kl, ..Objective::default()
        };
        let terms = Terms {
            cross_entropy: weights.0 as f32, policy: weights.1 as f32, kl: weights.2 as f32,
            advantage: advantage as f32, sampler: Some(sampler as f32),
            old: (!on_policy).then_some(old as f32), reference: reference as f32,
            ..Terms::default()
        };
        let old = if on_policy { f64::from(logp as f32) } else { f64::from(old as f32) };
        let loss = |logp: f64| {
            let ratio = (logp - old).exp();
            let clipped = ratio.clamp(1.0 - f64::from(0.2f32), 1.0 + f64::from(0.3f32));
            let a = f64::from(advantage as f32);
            let tis = objective.importance_cap.map_or(1.0, |c| (old - f64::from(sampler as f32)).exp().min(f64::from(c)));
            let delta = f64::from(reference as f32) - logp;
            let k = match kl {
                KlEstimator::K1 => -delta,
                KlEstimator::K2 => delta * delta / 2.0,
                KlEstimator::K3 => delta.exp() - delta - 1.0,
            };
            -f64::from(weights.0 as f32) * logp / 3.0
                - f64::from(weights.1 as f32) * tis * (ratio * a).min(clipped * a) / 5.0
                + f64::from(weights.2 as f32) * k / 7.0
        };
        let mut sums = StepSums::default();
        let at = f64::from(logp as f32);
        let d = policy_loss::forward(&mut sums, &terms, logp as f32, 0.5, &objective);
        prop_assert!((sums.loss - loss(at)).abs() < 1e-9 * (1.0 + sums.loss.abs()));
        prop_assert!((sums.loss - sums.cross_entropy - sums.policy - sums.kl).abs() < 1e-9 * (1.0 + sums.loss.abs()));
        // The loss has a corner where the clip begins.
        let ratio = (at - old).exp();
        prop_assume!((ratio - 0.8).abs() > 1e-3 && (ratio - 1.3).abs() > 1e-3);
        let want = (loss(at + 1e-6) - loss(at - 1e-6)) / 2e-6;
        prop_assert!((f64::from(d) - want).abs() < 1e-5 * (1.0 + want.abs()), "{d} against {want}");
    }
}

#[test]
fn the_clip_stops_what_it_should_and_counts_it() {
    let objective = Objective { clip_high: 0.3, ..Objective::default() };
    let run = |ratio: f32, advantage: f32| {
        let mut sums = StepSums::default();
        let terms = Terms { policy: 1.0, advantage, old: Some(-2.0), ..Terms::default() };
        let d = policy_loss::forward(&mut sums, &terms, -2.0 + ratio.ln(), 0.0, &objective);
        (d, sums.clipped_low, sums.clipped_high)
    };
    assert_eq!(run(1.5, 1.0), (0.0, 0.0, 1.0));
    assert_eq!(run(0.5, -1.0), (0.0, 1.0, 0.0));
    assert!(run(1.25, 1.0).0 < 0.0, "inside the wider upper bound");
    assert!(run(1.5, -1.0).0 > 0.0, "pessimistic side is never clipped");
    assert!(run(0.5, 1.0).0 < 0.0);
}

#[test]
fn a_token_without_weight_counts_nowhere() {
    let mut sums = StepSums::default();
    let terms = Terms { advantage: 3.0, sampler: Some(-9.0), old: Some(-1.0), ..Terms::default() };
    assert_eq!(policy_loss::forward(&mut sums, &terms, f32::NAN, 1.0, &Objective::default()), 0.0);
    assert_eq!(sums, StepSums::default());
}

#[test]
fn long_documents_attend_to_all_and_only_their_own() {
    // Several score tiles, and a boundary inside one.
    let heads = Heads { query: 2, key: 1, dim: 6 };
    let starts = starts_of(&[71, 1, 40]);
    let x = values(112 * heads.row(), 3);
    let (mut out, mut lse) = (zeros(112, heads.out()), zeros(112, heads.query));
    attention::forward(&mut out, &mut lse, &tensor(112, heads.row(), &x), &starts, heads);
    close("out", out.f32(), &attention64(&x, &starts, heads), 1e-5);
    // A document alone gives the same bits as the document in a pack.
    let alone = tensor(40, heads.row(), &x[72 * heads.row()..]);
    let (mut one, mut lse) = (zeros(40, heads.out()), zeros(40, heads.query));
    attention::forward(&mut one, &mut lse, &alone, &[0, 40], heads);
    assert_eq!(one.f32(), &out.f32()[72 * heads.out()..]);
}

#[test]
fn large_scores_do_not_overflow() {
    let heads = Heads { query: 1, key: 1, dim: 4 };
    let x: Vec<f64> = values(9 * heads.row(), 5).iter().map(|x| x * 300.0).collect();
    let (mut out, mut lse, mut dx) = (zeros(9, 4), zeros(9, 1), zeros(9, 12));
    let xt = tensor(9, 12, &x);
    attention::forward(&mut out, &mut lse, &xt, &[0, 9], heads);
    attention::backward(&mut dx, &tensor(9, 4, &values(36, 6)), &xt, &out, &lse, &[0, 9], heads);
    assert!(out.f32().iter().chain(dx.f32()).all(|x| x.is_finite()));
    let mut logits = tensor(1, 3, &[3e4, -3e4, 2e4]);
    let mut stats = [[0.0; 3]];
    classifier::forward(&mut logits, &mut stats, &[1], 1.0);
    assert_eq!(stats[0][0], -6e4);
    assert_eq!(stats[0][1], 0.0);
}

#[test]
fn gather_puts_rows_back() {
    let x = tensor(4, 3, &values(12, 1));
    let mut y = zeros(2, 3);
    gather::forward(&mut y, &x, &[2, 0]);
    assert_eq!(y.row(0), x.row(2));
    assert_eq!(y.row(1), x.row(0));
    let mut back = tensor(4, 3, &values(12, 2));
    gather::backward(&mut back, &y, &[2, 0]);
    assert_eq!(back.row(2), x.row(2));
    assert_eq!(back.row(0), x.row(0));
    assert_eq!(back.row(1), [0.0; 3]);
    assert_eq!(back.row(3), [0.0; 3]);
}

#[test]
fn pooling_takes_the_mean_and_the_last() {
    let x = tensor(5, 2, &[1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 7.0, 8.0, 0.5, 0.25]);
    let mut y = zeros(0, 1);
    pooling::mean(&mut y, &x, &[0, 3, 3, 5]);
    assert_eq!(y.f32(), [3.0, 5.0, 0.0, 0.0, 3.75, 4.125]);
    pooling::last(&mut y, &x, &[0, 3, 3, 5]);
    assert_eq!(y.f32(), [5.0, 9.0, 0.0, 0.0, 0.5, 0.25]);
}

#[test]
fn llama3_scaling_stretches_low_frequencies_only() {
    let scaling = Scaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position: 8192.0,
    };
    let rotated = |scaling| {
        let mut table = Table::new(Device::Cpu, 128, 500_000.0, scaling);
        table.reserve(65);
        let mut x = tensor(1, 128, &[1.0; 128]);
        rope::forward(&mut x, 1, &[64], &table);
        x.f32().to_vec()
    };
    let (plain, scaled) = (rotated(Scaling::None), rotated(scaling));
    assert_eq!(plain[..29], scaled[..29], "wavelengths below 8192/4 stay");
    // The lowest frequency turns eight times slower.
    let angle = 64.0 * 500_000f64.powf(-63.0 / 64.0) / 8.0;
    assert!((f64::from(scaled[63]) - (angle.cos() - angle.sin())).abs() < 1e-6);
    let linear = rotated(Scaling::Linear { factor: 64.0 });
    let mut table = Table::new(Device::Cpu, 128, 500_000.0, Scaling::None);
    table.reserve(2);
    let mut x = tensor(1, 128, &[1.0; 128]);
    rope::forward(&mut x, 1, &[1], &table);
    close("linear", &linear, &x.f32().iter().map(|&x| f64::from(x)).collect::<Vec<_>>(), 1e-6);
}
