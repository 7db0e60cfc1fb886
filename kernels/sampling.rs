//! Drawing the next token from a row of logits: temperature, then top-k, then top-p, by inverse
//! transform of a uniform number that the caller supplies, so that a draw depends on its key and
//! on nothing else.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::Tensor;
use crate::vector::{LANES, dispatch, exp_shifted, exp1, fold, map, maximum, splat, sum, update};

/// How a token is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// Logits are divided by it; 0 takes the likeliest token (the lowest id among equals).
    pub temperature: f32,
    /// Only the `k` likeliest tokens; 0: all.
    pub top_k: usize,
    /// Only the likeliest tokens whose probabilities reach `p` together (after temperature and
    /// top-k); 1: all.
    pub top_p: f32,
}

impl Default for SampleOptions {
    fn default() -> Self {
        SampleOptions { temperature: 1.0, top_k: 0, top_p: 1.0 }
    }
}

/// A drawn token.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Sampled {
    pub token: u32,
    /// Log-probability under the model: temperature 1, whole vocabulary.
    pub logprob: f32,
    /// Log-probability under the distribution drawn from: temperature, top-k and top-p applied and
    /// renormalised. 0 for the likeliest token at temperature 0.
    pub sampling_logprob: f32,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    order: Vec<u32>,
}

/// One token a row of `logits` `[R, V]`. `options` has one entry for all rows or one a row;
/// `uniforms` has one number in `[0, 1)` a row.
pub fn forward(out: &mut Vec<Sampled>, logits: &Tensor, options: &[SampleOptions], uniforms: &[f32]) {
    let (rows, vocabulary) = (logits.rows(), logits.cols());
    assert!(options.len() == 1 || options.len() == rows, "options for all rows or one a row");
    assert!(uniforms.len() == rows && vocabulary > 0, "one number a row");
    out.clear();
    out.resize(rows, Sampled::default());
    let logits = logits.f32();
    let draw = |(r, out): (usize, &mut Sampled)| {
        let options = if options.len() == 1 { &options[0] } else { &options[r] };
        *out = row(&logits[r * vocabulary..(r + 1) * vocabulary], options, uniforms[r]);
    };
    if rows * vocabulary < 1 << 13 {
        out.iter_mut().enumerate().for_each(draw);
    } else {
        out.par_iter_mut().with_min_len(8).enumerate().for_each(draw);
    }
}

/// Draws one token from one row of logits.
pub fn row(logits: &[f32], options: &SampleOptions, uniform: f32) -> Sampled {
    SCRATCH.with_borrow_mut(|scratch| {
        dispatch(
            #[inline(always)]
            || draw(logits, options, uniform, scratch),
        )
    })
}

#[inline(always)]
fn draw(logits: &[f32], options: &SampleOptions, uniform: f32, scratch: &mut Scratch) -> Sampled {
    let top = maximum(logits);
    let n = logits.len();
    let plain = options.temperature == 1.0 && whole(options, n);
    if options.temperature == 0.0 {
        let token = logits.iter().position(|&l| l >= top).unwrap_or(0);
        return Sampled {
            token: token as u32,
            logprob: logits[token] - top - log_total(logits, top),
            sampling_logprob: 0.0,
        };
    }
    let weights = &mut scratch.weights;
    weights.clear();
    weights.extend_from_slice(logits);
    let total = if options.temperature == 1.0 {
        exp_shifted(weights, top)
    } else {
        let inverse = 1.0 / options.temperature;
        update(
            weights,
            0.0,
            #[inline(always)]
            |v| {
                map(
                    v,
                    #[inline(always)]
                    |l| (l - top) * inverse,
                )
            },
        );
        exp_shifted(weights, 0.0)
    };
    let (token, kept) = if whole(options, n) {
        (pick(weights, total, uniform), total)
    } else {
        truncated(weights, &mut scratch.order, total, options, uniform)
    };
    let sampling_logprob = (weights[token] / kept).ln();
    let logprob = if plain { sampling_logprob } else { logits[token] - top - log_total(logits, top) };
    Sampled { token: token as u32, logprob, sampling_logprob }
}

/// Whether nothing is cut from the distribution.
#[inline(always)]
fn whole(options: &SampleOptions, n: usize) -> bool {
    (options.top_k == 0 || options.top_k >= n) && options.top_p >= 1.0
}

/// `ln Σ e^(l − top)`.
#[inline(always)]
fn log_total(logits: &[f32], top: f32) -> f32 {
    let total = fold(
        logits,
        splat(0.0),
        f32::NEG_INFINITY,
        #[inline(always)]
        |mut acc, v| {
            for i in 0..LANES {
                acc[i] += exp1(v[i] - top);
            }
            acc
        },
    );
    sum(total).ln()
}

/// The first id at which the running sum of weights exceeds `uniform * total`; sums of 64 first.
#[inline(always)]
fn pick(weights: &[f32], total: f32, uniform: f32) -> usize {
    let goal = f64::from(uniform) * f64::from(total);
    let mut before = 0.0f64;
    let mut last = 0;
    for (b, block) in weights.chunks(64).enumerate() {
        let mut acc = splat(0.0);
        for (i, w) in block.iter().enumerate() {
            acc[i % LANES] += w;
        }
        let mass = f64::from(sum(acc));
        if before + mass > goal {
            let mut running = before;
            for (i, &w) in block.iter().enumerate() {
                if w > 0.0 {
                    running += f64::from(w);
                    last = b * 64 + i;
                    if running > goal {
                        return last;
                    }
                }
            }
        } else if let Some(i) = block.iter().rposition(|&w| w > 0.0) {
            last = b * 64 + i;
        }
        before += mass;
    }
    // Rounding may leave the goal at or beyond the last sum: the last possible token.
    last
}

/// Draws among the likeliest tokens; returns the token and the weight kept.
#[inline(always)]
fn truncated(
    weights: &[f32],
    order: &mut Vec<u32>,
    total: f32,
    options: &SampleOptions,
    uniform: f32,
) -> (usize, f32) {
    order.clear();
    order.extend(0..weights.len() as u32);
    let likelier = |a: &u32, b: &u32| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b));
    let mut total = f64::from(total);
    if options.top_k > 0 && options.top_k < order.len() {
        order.select_nth_unstable_by(options.top_k - 1, likelier);
        order.truncate(options.top_k);
        order.sort_unstable_by(likelier);
        total = order.iter().map(|&i| f64::from(weights[i as usize])).sum();
    } else {
        order.sort_unstable_by(likelier);
    }
    let mut kept = 0.0f64;
    let mut count = 0;
    for &i in order.iter() {
        kept += f64::from(weights[i as usize]);
        count += 1;
        if kept >= f64::from(options.top_p) * total {
            break;
        }
    }
    order.truncate(count);
    let goal = f64::from(uniform) * kept;
    let mut running = 0.0f64;
    let mut token = order[0];
    for &i in order.iter() {
        if weights[i as usize] > 0.0 {
            token = i;
            running += f64::from(weights[i as usize]);
            if running > goal {
                break;
            }
        }
    }
    (token as usize, kept as f32)
}
