//! The terms of the loss that reach beyond one token or beyond its log-probability: z-loss, the ratio of a whole
//! sequence, the value head. Each against its formula over an independent forward in double precision, and the
//! gradients against finite differences of that.

#[expect(dead_code, reason = "shared with the tests of the model")]
mod reference;

use cognate_model::{
    AdamWConfig, Batch, LlamaConfig, Model, ModelError, Objective, PolicyTerms, RatioLevel, Trainer,
    ValueHead,
};
use reference::{Named, forward, named};

const STARTS: [u32; 4] = [0, 9, 10, 17];

fn model() -> Model {
    let config = LlamaConfig {
        vocab_size: 29,
        hidden_size: 16,
        intermediate_size: 24,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 6,
        rope_theta: 100.0,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    Model::init(&config, 11).unwrap()
}

fn tokens() -> Vec<u32> {
    (0..17).map(|t| (t * t * 7 + t * 13 + 5) % 29).collect()
}

fn wave(k: f32) -> Vec<f32> {
    (0..17).map(|t| (t as f32 * 0.77 * k + k).sin()).collect()
}

/// 1 (or what is given) on the last tokens of the first and third document.
fn on_answers(value: impl Fn(usize) -> f32) -> Vec<f32> {
    (0..17).map(|t| if (4..9).contains(&t) || (12..17).contains(&t) { value(t) } else { 0.0 }).collect()
}

/// Per token: log-probability, log Z and the normed state it was drawn in; zeros for first tokens.
struct Seen {
    logp: Vec<f64>,
    z: Vec<f64>,
    state: Vec<Vec<f64>>,
}

fn seen(c: &LlamaConfig, w: &Named, temperature: f64) -> Seen {
    let tokens = tokens();
    let mut out = Seen { logp: vec![], z: vec![], state: vec![] };
    for span in STARTS.windows(2) {
        let document = &tokens[span[0] as usize..span[1] as usize];
        let (states, logits) = forward(c, w, document);
        for t in 0..document.len() {
            let Some(before) = t.checked_sub(1) else {
                out.logp.push(0.0);
                out.z.push(0.0);
                out.state.push(vec![0.0; c.hidden_size]);
                continue;
            };
            let z = logits[before].iter().map(|l| (l / temperature).exp()).sum::<f64>().ln();
            out.logp.push(logits[before][document[t] as usize] / temperature - z);
            out.z.push(z);
            out.state.push(states[c.num_hidden_layers][before].clone());
        }
    }
    out
}

/// Holds loss and gradients of every weight along a few directions to the formula.
fn agree(model: &Model, trainer: &Trainer, loss: f64, temperature: f64, formula: impl Fn(&Seen) -> f64) {
    let config = model.config();
    let mut weights = named(model);
    let want = formula(&seen(config, &weights, temperature));
    assert!((loss - want).abs() < 1e-5 * want.abs().max(0.1), "loss {loss} against {want}");
    let gradients = trainer.gradients().tensors();
    let mut seen_any = 0.0f64;
    for slot in model.weights().slots(config) {
        let got = &gradients[slot.tensor].f32()[slot.offset..slot.offset + slot.len()];
        let (mut error, mut norm) = (0.0f64, 0.0f64);
        for k in 0..4 {
            let direction: Vec<f64> =
                (0..got.len()).map(|i| ((i * i + k) as f64 * 0.61 + k as f64).sin()).collect();
            let original = weights[&slot.name].clone();
            let mut at = |h: f64| {
                let moved = original.iter().zip(&direction).map(|(w, d)| w + h * d).collect();
                weights.insert(slot.name.clone(), moved);
                formula(&seen(config, &weights, temperature))
            };
            let want = (at(1e-5) - at(-1e-5)) / 2e-5;
            weights.insert(slot.name.clone(), original);
            let got: f64 = got.iter().zip(&direction).map(|(g, d)| f64::from(*g) * d).sum();
            error += (got - want).powi(2);
            norm += want.powi(2);
        }
        assert!(
            error.sqrt() < 1e-4 * norm.sqrt() + 1e-7,
            "{}: {:e} of {:e}",
            slot.name,
            error.sqrt(),
            norm.sqrt()
        );
        seen_any += norm;
    }
    assert!(seen_any > 1e-4, "the gradient is too small to prove anything");
}

#[test]
fn z_loss_is_added_to_the_cross_entropy() {
    let model = model();
    let (tokens, weights) = (tokens(), on_answers(|t| 0.5 + t as f32 / 10.0));
    let batch = Batch { tokens: &tokens, starts: &STARTS, cross_entropy: &weights, policy: None };
    for temperature in [1.0f32, 0.7] {
        let objective =
            Objective { cross_entropy_count: 10.0, z_loss: 0.3, temperature, ..Objective::default() };
        let mut trainer = Trainer::new(&model, 0);
        let sums = trainer.accumulate(&model, &batch, &objective).unwrap();
        assert!((sums.loss - sums.cross_entropy - sums.z_loss).abs() < 1e-12 && sums.z_loss > 0.1);
        agree(&model, &trainer, sums.loss, f64::from(temperature), |s| {
            let term = |t: usize| f64::from(weights[t]) * (0.3f32 as f64 * s.z[t] * s.z[t] - s.logp[t]);
            (0..17).map(term).sum::<f64>() / 10.0
        });
        // Without the coefficient it is the plain cross-entropy, to the bit.
        let plain = Objective { z_loss: 0.0, ..objective };
        let without = Trainer::new(&model, 0).accumulate(&model, &batch, &plain).unwrap();
        assert_eq!((without.loss, without.z_loss), (sums.cross_entropy, 0.0));
    }
}

#[test]
fn a_sequence_is_clipped_and_weighted_as_one() {
    let model = model();
    let tokens = tokens();
    let now = seen(model.config(), &named(&model), 1.0).logp;
    let n = 5.0;
    // Equal weights in a sequence, other ones in the other.
    let weight = on_answers(|t| if t < 9 { 0.2 } else { 0.5 });
    let value = |t: usize| if t < 9 { 0.2f64 } else { 0.5 };
    for (shift, signs) in
        [(0.1f32, [1.0f32, -1.0]), (0.9, [1.0, -1.0]), (-0.9, [1.0, -1.0]), (0.9, [-1.0, 1.0])]
    {
        let wobble = wave(3.0);
        let old: Vec<f32> = now.iter().zip(&wobble).map(|(l, w)| *l as f32 - shift + 0.3 * w).collect();
        let sampler: Vec<f32> = old.iter().zip(&wave(5.0)).map(|(l, w)| l - 0.2 * w).collect();
        let advantage = on_answers(|t| if t < 9 { signs[0] } else { signs[1] });
        let policy = PolicyTerms {
            weight: &weight,
            advantage: &advantage,
            sampler: &sampler,
            old: &old,
            ..Default::default()
        };
        let batch = Batch { tokens: &tokens, starts: &STARTS, cross_entropy: &[], policy: Some(policy) };
        let objective = Objective {
            policy_count: 2.0,
            clip_low: 0.3,
            clip_high: 0.4,
            importance_cap: Some(1.02),
            ratio: RatioLevel::Sequence,
            ..Objective::default()
        };
        let mut trainer = Trainer::new(&model, 0);
        let sums = trainer.accumulate(&model, &batch, &objective).unwrap();
        let formula = |s: &Seen| {
            let mut loss = 0.0;
            for (span, a) in [(4..9, signs[0]), (12..17, signs[1])] {
                let mean = |f: &dyn Fn(usize) -> f64| span.clone().map(f).sum::<f64>() / n;
                let ratio = mean(&|t| s.logp[t] - f64::from(old[t])).exp();
                let importance =
                    mean(&|t| f64::from(old[t]) - f64::from(sampler[t])).exp().min(f64::from(1.02f32));
                let clipped = ratio.clamp(1.0 - f64::from(0.3f32), 1.0 + f64::from(0.4f32));
                let a = f64::from(a);
                loss -= n * value(span.start) * importance * (ratio * a).min(clipped * a) / 2.0;
            }
            loss
        };
        if shift.abs() < 0.5 {
            assert_eq!((sums.clipped_low, sums.clipped_high), (0.0, 0.0));
        } else {
            // One of the two sequences is stopped, all its tokens with it.
            assert_eq!(sums.clipped_low + sums.clipped_high, 5.0);
        }
        agree(&model, &trainer, sums.loss, 1.0, formula);
        // Token by token it is another loss.
        let tokenwise = Objective { ratio: RatioLevel::Token, ..objective };
        let other = Trainer::new(&model, 0).accumulate(&model, &batch, &tokenwise).unwrap();
        assert!((other.loss - sums.loss).abs() > 1e-3, "{} {}", other.loss, sums.loss);
    }
}

#[test]
fn the_value_head_learns_returns_within_its_clip() {
    let model = model();
    let tokens = tokens();
    let mut head = ValueHead::new(model.config());
    head.weights_mut().iter_mut().enumerate().for_each(|(i, w)| *w = 0.3 * (i as f32 * 1.7).sin());
    let w: Vec<f64> = head.weights_mut().iter().map(|w| f64::from(*w)).collect();
    let value = |x: &[f64]| x.iter().zip(&w).map(|(x, w)| x * w).sum::<f64>() + w[16];
    let weight = on_answers(|t| 0.1 * t as f32);
    let (old, target) = (wave(2.0), wave(4.0));
    let policy =
        PolicyTerms { value_weight: &weight, value_old: &old, value_target: &target, ..Default::default() };
    let batch = Batch { tokens: &tokens, starts: &STARTS, cross_entropy: &[], policy: Some(policy) };
    for clip in [None, Some(0.25f32)] {
        let objective = Objective { value_count: 10.0, value_clip: clip, ..Objective::default() };
        let mut trainer = Trainer::new(&model, 0);
        assert!(
            matches!(trainer.accumulate(&model, &batch, &objective), Err(ModelError::Batch(_))),
            "no head"
        );
        let mut head = ValueHead::new(model.config());
        head.weights_mut().iter_mut().zip(&w).for_each(|(to, from)| *to = *from as f32);
        trainer.set_value_head(head);
        let sums = trainer.accumulate(&model, &batch, &objective).unwrap();
        assert_eq!(sums.value_clipped > 0.0, clip.is_some(), "{}", sums.value_clipped);
        let of = |w: &[f64], s: &Seen| -> f64 {
            let value = |x: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>() + w[16];
            let term = |t: usize| {
                let (v, old, target) = (value(&s.state[t]), f64::from(old[t]), f64::from(target[t]));
                let reach = clip.map_or(f64::INFINITY, f64::from);
                let kept = v.clamp(old - reach, old + reach);
                f64::from(weight[t]) * 0.5 * (v - target).powi(2).max((kept - target).powi(2))
            };
            (0..17).map(term).sum::<f64>() / 10.0
        };
        agree(&model, &trainer, sums.loss, 1.0, |s| of(&w, s));
        let s = seen(model.config(), &named(&model), 1.0);
        for (t, got) in trainer.values().iter().enumerate().filter(|(t, _)| weight[*t] != 0.0) {
            assert!((f64::from(*got) - value(&s.state[t])).abs() < 1e-5);
        }
        for (i, got) in trainer.value_head().unwrap().gradient().iter().enumerate() {
            let at = |h: f64| {
                let mut w = w.clone();
                w[i] += h;
                of(&w, &s)
            };
            let want = (at(1e-6) - at(-1e-6)) / 2e-6;
            assert!((f64::from(*got) - want).abs() < 1e-5 * (1.0 + want.abs()), "{i}: {got} against {want}");
        }
    }
}

#[test]
fn a_value_head_resumes_bitwise() {
    let model = model();
    let tokens = tokens();
    let (weight, zeros, target) = (on_answers(|_| 1.0), vec![0.0; 17], wave(4.0));
    let policy =
        PolicyTerms { value_weight: &weight, value_old: &zeros, value_target: &target, ..Default::default() };
    let batch = Batch { tokens: &tokens, starts: &STARTS, cross_entropy: &[], policy: Some(policy) };
    let objective = Objective { value_count: 10.0, ..Objective::default() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("value_head.safetensors");
    // One that goes through a file after every step, and one that never does.
    let run = |through_file: bool| {
        let mut trainer = Trainer::new(&model, 0);
        trainer.set_value_head(ValueHead::new(model.config()));
        let mut losses = Vec::new();
        for _ in 0..30 {
            losses.push(trainer.accumulate(&model, &batch, &objective).unwrap().value);
            let head = trainer.value_head_mut().unwrap();
            head.step(AdamWConfig::default(), 1e-2, Some(1.0));
            if through_file {
                head.save(&path).unwrap();
                trainer.set_value_head(ValueHead::open(&path, model.config()).unwrap());
            }
        }
        losses
    };
    let losses = run(false);
    assert!(losses[29] < 0.7 * losses[0], "{losses:?}");
    assert_eq!(run(true), losses);
    std::fs::write(&path, b"no such thing").unwrap();
    assert!(ValueHead::open(&path, model.config()).is_err_and(|e| e.is_data()));
}
