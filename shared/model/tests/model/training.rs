//! Loss, gradients, hidden states, packing, threads, the optimizer; batches that are refused.

use cognate_model::{
    AdamW, AdamWConfig, Batch, Dtype, Hidden, LlamaConfig, Model, ModelError, Objective, PolicyTerms,
    StepSums, Trainer,
};

use crate::reference::{Named, forward, logprobs, named};
use crate::{documents, in_pool, model, objective, shapes};

/// Per-token data of every kind for `total` tokens; the first tokens of documents weigh nothing.
struct Data {
    arrays: [Vec<f32>; 7],
}

impl Data {
    fn new(total: usize, starts: &[u32]) -> Self {
        let array = |k: usize| (0..total).map(|t| ((t * (k + 3)) as f32 * 0.77 + k as f32).sin()).collect();
        let mut arrays: [Vec<f32>; 7] = std::array::from_fn(array);
        for k in [0, 1, 2] {
            arrays[k].iter_mut().for_each(|x| *x = x.abs());
            starts[..starts.len() - 1].iter().for_each(|&s| arrays[k][s as usize] = 0.0);
        }
        for k in [4, 5, 6] {
            arrays[k].iter_mut().for_each(|x| *x -= 3.0);
        }
        Data { arrays }
    }

    fn batch<'a>(&'a self, tokens: &'a [u32], starts: &'a [u32]) -> Batch<'a> {
        let [cross_entropy, weight, kl_weight, advantage, sampler, old, reference] = &self.arrays;
        let policy =
            PolicyTerms { weight, advantage, sampler, old, kl_weight, reference, ..Default::default() };
        Batch { tokens, starts, cross_entropy, policy: Some(policy) }
    }
}

/// The loss in double precision, from the reference's log-probabilities.
fn loss64(c: &LlamaConfig, w: &Named, data: &Data, tokens: &[u32], starts: &[u32]) -> f64 {
    let o = objective();
    let a = |k: usize, t: usize| f64::from(data.arrays[k][t]);
    let mut loss = 0.0;
    for span in starts.windows(2) {
        let (first, end) = (span[0] as usize, span[1] as usize);
        for (i, logp) in logprobs(c, w, &tokens[first..end], f64::from(o.temperature)).iter().enumerate() {
            let t = first + i;
            let ratio = (logp - a(5, t)).exp();
            let clipped = ratio.clamp(1.0 - f64::from(o.clip_low), 1.0 + f64::from(o.clip_high));
            let tis = (a(5, t) - a(4, t)).exp().min(1.5);
            let delta = a(6, t) - logp;
            loss -= a(0, t) * logp / o.cross_entropy_count;
            loss -= a(1, t) * tis * (ratio * a(3, t)).min(clipped * a(3, t)) / o.policy_count;
            loss += a(2, t) * (delta.exp() - delta - 1.0) / o.kl_count;
        }
    }
    loss
}

#[test]
fn loss_and_every_gradient_match_double_precision() {
    for config in shapes() {
        let model = model(&config);
        let (tokens, starts) = documents(config.vocab_size, &[9, 1, 5]);
        let data = Data::new(tokens.len(), &starts);
        let mut trainer = Trainer::new(&model, 4);
        let sums = trainer.accumulate(&model, &data.batch(&tokens, &starts), &objective()).unwrap();
        let mut weights = named(&model);
        let want = loss64(&config, &weights, &data, &tokens, &starts);
        assert!((sums.loss - want).abs() < 1e-5 * want.abs(), "loss {} against {want}", sums.loss);

        let gradients = trainer.gradients().tensors();
        for slot in model.weights().slots(&config) {
            let got = &gradients[slot.tensor].f32()[slot.offset..slot.offset + slot.len()];
            // A sample of single values, and one random direction through all of them.
            let stride = (got.len() / 12).max(1);
            let mut probes: Vec<Vec<(usize, f64)>> =
                (0..got.len()).step_by(stride).map(|i| vec![(i, 1.0)]).collect();
            probes.push((0..got.len()).map(|i| (i, ((i * i) as f64 * 0.61).sin())).collect());
            let (mut error, mut norm) = (0.0f64, 0.0f64);
            for probe in &probes {
                let mut value = |h: f64| {
                    let original = weights[&slot.name].clone();
                    let values = weights.get_mut(&slot.name).unwrap();
                    probe.iter().for_each(|&(i, d)| values[i] += h * d);
                    let loss = loss64(&config, &weights, &data, &tokens, &starts);
                    weights.insert(slot.name.clone(), original);
                    loss
                };
                let want = (value(1e-5) - value(-1e-5)) / 2e-5;
                let got: f64 = probe.iter().map(|&(i, d)| f64::from(got[i]) * d).sum();
                error += (got - want).powi(2);
                norm += want.powi(2);
            }
            assert!(norm > 0.0, "{}: the probe sees nothing", slot.name);
            assert!(
                error.sqrt() < 1e-4 * norm.sqrt(),
                "{}: error {:e} of {:e}",
                slot.name,
                error.sqrt(),
                norm.sqrt()
            );
        }
    }
}

#[test]
fn hidden_states_and_logprobs_match_double_precision() {
    for config in shapes() {
        let model = model(&config);
        let (tokens, starts) = documents(config.vocab_size, &[12, 1, 33]);
        let weights = named(&model);
        let mut want_states = Vec::new();
        let mut want = Vec::new();
        for span in starts.windows(2) {
            let document = &tokens[span[0] as usize..span[1] as usize];
            want_states.push(forward(&config, &weights, document).0);
            want.extend(logprobs(&config, &weights, document, 1.0));
        }
        let mut trainer = Trainer::new(&model, 100);
        trainer.score(&model, &tokens, &starts, 1.0).unwrap();
        for (got, want) in trainer.logprobs().iter().zip(&want) {
            assert!((f64::from(*got) - want).abs() < 2e-5 * (1.0 + want.abs()), "{got} against {want}");
        }
        let mut seen = Vec::new();
        Hidden::new(&model, 0)
            .run(&model, &tokens, &starts, |layer, states| {
                seen.push(layer);
                for (document, span) in want_states.iter().zip(starts.windows(2)) {
                    for (row, want) in (span[0] as usize..).zip(&document[layer]) {
                        for (got, want) in states.row(row).iter().zip(want) {
                            assert!(
                                (f64::from(*got) - want).abs() < 1e-4 * (1.0 + want.abs()),
                                "layer {layer}"
                            );
                        }
                    }
                }
            })
            .unwrap();
        assert_eq!(seen, [0, 1, 2]);
    }
}

#[test]
fn one_token_predicts_nothing_and_two_predict_one() {
    for config in shapes() {
        let model = model(&config);
        let mut trainer = Trainer::new(&model, 0);
        for (tokens, starts) in [(&[3u32][..], &[0u32, 1][..]), (&[3, 5], &[0, 1, 2]), (&[], &[0])] {
            let batch = Batch { tokens, starts, ..Batch::default() };
            let sums = trainer.accumulate(&model, &batch, &Objective::default()).unwrap();
            assert_eq!(sums, StepSums::default());
            trainer.score(&model, tokens, starts, 1.0).unwrap();
            assert_eq!(trainer.logprobs(), vec![0.0; tokens.len()]);
            assert!(trainer.gradients().tensors().iter().all(|g| g.f32().iter().all(|x| *x == 0.0)));
        }
        let batch =
            Batch { tokens: &[3, 5], starts: &[0, 2], cross_entropy: &[0.0, 1.0], ..Batch::default() };
        let sums = trainer.accumulate(&model, &batch, &Objective::default()).unwrap();
        let want = -logprobs(&config, &named(&model), &[3, 5], 1.0)[1];
        assert!((sums.loss - want).abs() < 1e-5 * want.abs(), "{} {want}", sums.loss);
        assert!(trainer.gradient_norm() > 0.0);
    }
}

#[test]
fn packed_equals_separate_and_accumulated() {
    let config = &shapes()[1];
    let model = model(config);
    let (tokens, starts) = documents(config.vocab_size, &[20, 3, 1, 41]);
    let data = Data::new(tokens.len(), &starts);
    let batch = data.batch(&tokens, &starts);
    let mut whole = Trainer::new(&model, 80);
    let sums = whole.accumulate(&model, &batch, &objective()).unwrap();
    let mut parts = Trainer::new(&model, 80);
    let mut total = StepSums::default();
    for span in starts.windows(2) {
        let span = span[0] as usize..span[1] as usize;
        let [cross_entropy, weight, kl_weight, advantage, sampler, old, reference] =
            data.arrays.each_ref().map(|a| &a[span.clone()]);
        let policy =
            PolicyTerms { weight, advantage, sampler, old, kl_weight, reference, ..Default::default() };
        let starts = [0, span.len() as u32];
        let batch =
            Batch { tokens: &tokens[span.clone()], starts: &starts, cross_entropy, policy: Some(policy) };
        total += parts.accumulate(&model, &batch, &objective()).unwrap();
        for (t, logprob) in span.zip(parts.logprobs()) {
            assert!((whole.logprobs()[t] - logprob).abs() < 1e-5);
        }
    }
    assert!((sums.loss - total.loss).abs() < 1e-6 * sums.loss.abs());
    assert_eq!(sums.tokens, total.tokens);
    for (a, b) in whole.gradients().tensors().iter().zip(parts.gradients().tensors()) {
        let error: f32 = a.f32().iter().zip(b.f32()).map(|(a, b)| (a - b).powi(2)).sum::<f32>().sqrt();
        let norm: f32 = a.f32().iter().map(|a| a * a).sum::<f32>().sqrt();
        assert!(error < 1e-5 * norm, "{error:e} of {norm:e}");
    }
}

/// Weights, log-probabilities and sums after a few steps of a model large enough to be shared out.
fn trained(threads: usize) -> (Vec<u32>, Vec<u32>, StepSums) {
    in_pool(threads, || {
        let config = LlamaConfig { vocab_size: 333, num_key_value_heads: 2, ..LlamaConfig::default() };
        let mut model = Model::init(&config, 3).unwrap();
        let (tokens, starts) = documents(config.vocab_size, &[90, 7, 130, 64, 33, 1, 80]);
        let data = Data::new(tokens.len(), &starts);
        let mut trainer = Trainer::new(&model, 0);
        let mut optimizer = AdamW::new(&model, AdamWConfig::default());
        let mut sums = StepSums::default();
        for _ in 0..3 {
            sums = trainer.accumulate(&model, &data.batch(&tokens, &starts), &objective()).unwrap();
            assert!(sums.loss.is_finite());
            optimizer.step(&mut model, &mut trainer, 1e-3, Some(1.0));
        }
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let weights = model.weights().tensors().iter().flat_map(|t| bits(t.f32())).collect();
        (weights, bits(trainer.logprobs()), sums)
    })
}

#[test]
fn training_is_bitwise_the_same_on_one_two_and_three_threads() {
    let one = trained(1);
    assert!(one == trained(1), "two runs");
    assert!(one == trained(2), "two threads");
    assert!(one == trained(3), "three threads");
}

#[test]
fn the_optimizer_resumes_bitwise() {
    let config = &shapes()[2];
    let (tokens, starts) = documents(config.vocab_size, &[20, 11]);
    let data = Data::new(tokens.len(), &starts);
    let mut one = model(config);
    let mut trainer = Trainer::new(&one, 31);
    let mut optimizer = AdamW::new(&one, AdamWConfig::default());
    let mut step = |model: &mut Model, optimizer: &mut AdamW| {
        trainer.accumulate(model, &data.batch(&tokens, &starts), &objective()).unwrap();
        optimizer.step(model, &mut trainer, 1e-2, Some(1.0))
    };
    step(&mut one, &mut optimizer);
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("optimizer.safetensors");
    one.save(dir.path(), Dtype::F32).unwrap();
    optimizer.save(&one, &state).unwrap();
    let mut two = Model::open(dir.path()).unwrap();
    let mut resumed = AdamW::open(&state, &two, AdamWConfig::default()).unwrap();
    assert_eq!(resumed.steps(), 1);
    for _ in 0..2 {
        let report = step(&mut one, &mut optimizer);
        assert!(report.clipped && report.gradient_norm > 1.0);
        assert_eq!(step(&mut two, &mut resumed), report);
    }
    assert!(named(&one) == named(&two));
    // Without the moments the paths part.
    let mut fresh = AdamW::new(&two, AdamWConfig::default());
    step(&mut one, &mut optimizer);
    step(&mut two, &mut fresh);
    assert!(named(&one) != named(&two));
}

#[test]
fn bad_batches_are_refused() {
    let config = &shapes()[0];
    let model = model(config);
    let mut trainer = Trainer::new(&model, 8);
    let mut run = |tokens: &[u32], starts: &[u32], weights: &[f32]| {
        let batch = Batch { tokens, starts, cross_entropy: weights, policy: None };
        trainer.accumulate(&model, &batch, &Objective::default()).map(|_| ())
    };
    assert!(run(&[1, 2, 3], &[0, 3], &[0.0, 1.0, 1.0]).is_ok());
    assert!(run(&[1, 2, 3], &[0, 3], &[]).is_ok(), "nothing to learn is no fault");
    assert!(matches!(
        run(&[1, 37, 3], &[0, 3], &[]),
        Err(ModelError::Token { index: 1, token: 37, vocabulary: 37 })
    ));
    assert!(matches!(run(&[1; 65], &[0, 65], &[]), Err(ModelError::TooLong { length: 65, context: 64, .. })));
    for (tokens, starts, weights) in [
        (&[1u32, 2, 3][..], &[0u32, 2][..], &[][..]),
        (&[1, 2, 3], &[1, 3], &[]),
        (&[1, 2, 3], &[0, 2, 1, 3], &[]),
        (&[1, 2, 3], &[0, 3], &[0.0, 1.0]),
        (&[1, 2, 3], &[0, 1, 3], &[0.0, 1.0, 1.0]),
    ] {
        assert!(matches!(run(tokens, starts, weights), Err(ModelError::Batch(_))), "{starts:?} {weights:?}");
    }
}
