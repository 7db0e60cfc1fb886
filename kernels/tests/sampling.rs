//! Draws follow the distribution they report.

use cognate_kernels::sampling::{SampleOptions, row};

const LOGITS: [f32; 7] = [0.3, 2.0, -1.0, 2.0, 0.9, -4.0, 1.1];

fn softmax(logits: &[f32], temperature: f64) -> Vec<f64> {
    let e: Vec<f64> = logits.iter().map(|&l| (f64::from(l) / temperature).exp()).collect();
    let z: f64 = e.iter().sum();
    e.iter().map(|e| e / z).collect()
}

/// Frequencies over an even grid of uniform numbers, and every report checked on the way.
fn frequencies(options: &SampleOptions, kept: &[f64]) -> Vec<f64> {
    const GRID: usize = 20_000;
    let raw = softmax(&LOGITS, 1.0);
    let mut counts = vec![0.0; LOGITS.len()];
    for i in 0..GRID {
        let drawn = row(&LOGITS, options, (i as f32 + 0.5) / GRID as f32);
        let t = drawn.token as usize;
        counts[t] += 1.0 / GRID as f64;
        assert!((f64::from(drawn.logprob) - raw[t].ln()).abs() < 1e-5);
        assert!((f64::from(drawn.sampling_logprob) - kept[t].ln()).abs() < 1e-5);
    }
    counts
}

fn expect(options: SampleOptions, kept: &[f64]) {
    for (got, want) in frequencies(&options, kept).iter().zip(kept) {
        assert!((got - want).abs() < 2e-4, "{options:?}: {got} against {want}");
    }
}

/// `p` cut down to the tokens that `keep` names and renormalised.
fn cut(p: &[f64], keep: &[usize]) -> Vec<f64> {
    let z: f64 = keep.iter().map(|&i| p[i]).sum();
    (0..p.len()).map(|i| if keep.contains(&i) { p[i] / z } else { 0.0 }).collect()
}

#[test]
fn temperature_top_k_and_top_p() {
    let plain = SampleOptions::default();
    let p = softmax(&LOGITS, 1.0);
    expect(plain, &p);
    expect(SampleOptions { temperature: 0.7, ..plain }, &softmax(&LOGITS, 0.7));
    expect(SampleOptions { temperature: 1.3, ..plain }, &softmax(&LOGITS, 1.3));
    // 1 and 3 tie: the lower id is kept first.
    expect(SampleOptions { top_k: 1, ..plain }, &cut(&p, &[1]));
    expect(SampleOptions { top_k: 3, ..plain }, &cut(&p, &[1, 3, 6]));
    expect(SampleOptions { top_k: 99, ..plain }, &p);
    expect(SampleOptions { top_p: (p[1] + 0.01) as f32, ..plain }, &cut(&p, &[1, 3]));
    expect(SampleOptions { top_p: (p[1] + p[3] + 0.01) as f32, ..plain }, &cut(&p, &[1, 3, 6]));
    expect(SampleOptions { top_p: 1e-6, ..plain }, &cut(&p, &[1]));
    // Top-p is taken of what temperature and top-k leave.
    let warm = softmax(&LOGITS, 2.0);
    let three = cut(&warm, &[1, 3, 6]);
    let options = SampleOptions { temperature: 2.0, top_k: 3, top_p: (three[1] + three[3] + 0.01) as f32 };
    expect(options, &three);
}

#[test]
fn greedy_takes_the_first_of_the_likeliest() {
    let drawn = row(&LOGITS, &SampleOptions { temperature: 0.0, ..SampleOptions::default() }, 0.99);
    assert_eq!((drawn.token, drawn.sampling_logprob), (1, 0.0));
    assert!((f64::from(drawn.logprob) - softmax(&LOGITS, 1.0)[1].ln()).abs() < 1e-5);
}

#[test]
fn the_ends_of_the_range_and_impossible_tokens() {
    let logits = [f32::NEG_INFINITY, 0.0, 1.0, f32::NEG_INFINITY];
    for options in [SampleOptions::default(), SampleOptions { top_p: 0.999, ..SampleOptions::default() }] {
        assert!([1, 2].contains(&row(&logits, &options, 0.0).token));
        assert!([1, 2].contains(&row(&logits, &options, 1.0 - f32::EPSILON / 2.0).token));
    }
    assert_eq!(row(&[5.0], &SampleOptions::default(), 0.5).token, 0);
    // A long row: blocks beyond the first.
    let logits: Vec<f32> = (0..1001).map(|i| if i == 777 { 9.0 } else { -30.0 }).collect();
    assert_eq!(row(&logits, &SampleOptions::default(), 0.5).token, 777);
}
