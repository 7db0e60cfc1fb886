//! The whole model against an independent forward in double precision and finite differences of
//! it; packing, decoding, threads and files.

mod reference;

use std::path::Path;

use cognate_model::{
    AdamW, AdamWConfig, Architecture, Batch, Decoder, Dtype, Hidden, LlamaConfig, Model, ModelError,
    Objective, PolicyTerms, Request, SampleOptions, Scaling, StepSums, Trainer,
};
use reference::{Named, forward, logprobs, named};

/// Shapes that differ in everything that can: head ratio, tying, bias, odd vocabulary, head
/// dimension apart from hidden / heads. Weights are large, so that every term matters.
fn shapes() -> Vec<LlamaConfig> {
    let base = LlamaConfig {
        vocab_size: 37,
        hidden_size: 24,
        intermediate_size: 40,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 10,
        rope_theta: 100.0,
        max_position_embeddings: 64,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    vec![
        base.clone(),
        LlamaConfig { tie_word_embeddings: false, num_key_value_heads: 1, ..base.clone() },
        LlamaConfig { architecture: Architecture::Qwen2, num_key_value_heads: 4, ..base },
    ]
}

/// A model whose norms and biases are not at their start values, where mistakes hide.
fn model(config: &LlamaConfig) -> Model {
    let mut model = Model::init(config, 7).unwrap();
    for (i, tensor) in model.weights_mut().tensors_mut().into_iter().enumerate() {
        if tensor.rows() == 1 {
            for (j, x) in tensor.f32_mut().iter_mut().enumerate() {
                *x += 0.4 * ((i * 31 + j * 7) as f32).sin();
            }
        }
    }
    model
}

fn documents(vocabulary: usize, lengths: &[usize]) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32];
    lengths.iter().for_each(|&n| starts.push(starts[starts.len() - 1] + n as u32));
    let total = starts[lengths.len()] as usize;
    ((0..total).map(|t| ((t * t * 7 + t * 13 + 5) % vocabulary) as u32).collect(), starts)
}

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

fn objective() -> Objective {
    Objective {
        cross_entropy_count: 11.0,
        policy_count: 5.0,
        kl_count: 3.0,
        clip_low: 0.9,
        clip_high: 50.0,
        importance_cap: Some(1.5),
        temperature: 0.8,
        ..Objective::default()
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

fn in_pool<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
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

/// Greedy and random continuations with their logits' bits, `prompts` decoded together.
fn decoded(
    model: &Model,
    prompts: &[(Vec<u32>, usize)],
    steps: usize,
    finish_early: bool,
) -> Vec<Vec<(u32, u32, u32)>> {
    let count: usize = prompts.iter().map(|p| p.1).sum();
    let mut decoder = Decoder::new(model, count, 64);
    let requests: Vec<Request> = prompts.iter().map(|(p, n)| Request { prompt: p, samples: *n }).collect();
    let ids = decoder.start(model, &requests).unwrap();
    let mut out = vec![Vec::new(); count];
    // A sequence's random numbers depend on its place within its own request.
    let places: Vec<usize> = prompts.iter().flat_map(|p| 0..p.1).collect();
    for step in 0..steps {
        let live: Vec<usize> =
            decoder.live().iter().map(|id| ids.iter().position(|i| i == id).unwrap()).collect();
        let uniforms: Vec<f32> =
            live.iter().map(|&i| ((places[i] * 37 + step * 11) as f32 * 0.618).fract()).collect();
        let first: Vec<u32> = (0..live.len()).map(|row| decoder.logits(row)[0].to_bits()).collect();
        let drawn =
            decoder.sample(&[SampleOptions { temperature: 1.3, ..Default::default() }], &uniforms).to_vec();
        let mut done = Vec::new();
        for ((&i, d), bits) in live.iter().zip(drawn).zip(first) {
            out[i].push((d.token, d.logprob.to_bits(), bits));
            if finish_early && out[i].len() >= 3 + i % 7 {
                done.push(ids[i]);
            }
        }
        decoder.finish(&done);
        decoder.step(model).unwrap();
    }
    out
}

fn prompts(vocabulary: usize, lengths: &[(usize, usize)]) -> Vec<(Vec<u32>, usize)> {
    lengths
        .iter()
        .enumerate()
        .map(|(i, &(n, samples))| {
            ((0..n).map(|t| ((t * t + 3 * i + t) % vocabulary) as u32).collect(), samples)
        })
        .collect()
}

#[test]
fn decoding_agrees_with_the_training_forward() {
    for config in shapes() {
        let model = model(&config);
        // Lengths around a page's border, shared and not.
        let prompts = prompts(config.vocab_size, &[(1, 1), (15, 3), (16, 2), (17, 4), (33, 1)]);
        let continuations = decoded(&model, &prompts, 20, false);
        let mut trainer = Trainer::new(&model, 64);
        let owners = prompts.iter().flat_map(|(p, n)| std::iter::repeat_n(p, *n));
        for (prompt, continuation) in owners.zip(&continuations) {
            let mut tokens = prompt.clone();
            tokens.extend(continuation.iter().map(|c| c.0));
            trainer.score(&model, &tokens, &[0, tokens.len() as u32], 1.0).unwrap();
            for (want, got) in trainer.logprobs()[prompt.len()..].iter().zip(continuation) {
                let got = f32::from_bits(got.1);
                assert!((got - want).abs() < 1e-4, "{got} against {want}");
            }
        }
    }
}

#[test]
fn a_sequence_does_not_depend_on_the_batch_or_the_threads() {
    let config = LlamaConfig { vocab_size: 301, initializer_range: 0.1, ..LlamaConfig::default() };
    let model = Model::init(&config, 5).unwrap();
    let many: Vec<(usize, usize)> = (0..14).map(|i| (1 + i * 3, 1 + i % 4)).collect();
    let prompts = prompts(config.vocab_size, &many);
    let together = decoded(&model, &prompts, 12, false);
    let mut at = 0;
    for (i, (prompt, samples)) in prompts.iter().enumerate() {
        let alone = decoded(&model, &[(prompt.clone(), *samples)], 12, false);
        assert!(alone == together[at..at + samples], "prompt {i}");
        at += samples;
    }
    assert!(in_pool(1, || decoded(&model, &prompts, 12, false)) == together, "one thread");
    assert!(in_pool(2, || decoded(&model, &prompts, 12, false)) == together, "two threads");
    // Those that leave early take nothing away from those that stay.
    for (short, long) in decoded(&model, &prompts, 12, true).iter().zip(&together) {
        assert!(short.len() < 12 && *short == long[..short.len()]);
    }
}

#[test]
fn sequences_may_start_while_others_run() {
    let config = &shapes()[0];
    let model = model(config);
    let prompts = prompts(config.vocab_size, &[(5, 1), (18, 1)]);
    let alone = decoded(&model, &prompts[1..], 6, false);
    let mut decoder = Decoder::new(&model, 2, 40);
    let greedy = [SampleOptions { temperature: 1.3, ..Default::default() }];
    decoder.start(&model, &[Request { prompt: &prompts[0].0, samples: 1 }]).unwrap();
    decoder.sample(&greedy, &[0.5]);
    // Between draw and step: the newcomer keeps its logits, the other is fed.
    let late = decoder.start(&model, &[Request { prompt: &prompts[1].0, samples: 1 }]).unwrap();
    decoder.step(&model).unwrap();
    assert_eq!((decoder.length(0), decoder.length(1)), (6, 18));
    for (step, want) in alone[0].iter().enumerate() {
        if step == 3 {
            decoder.finish(&[decoder.live()[0]]);
            assert_eq!(decoder.live(), late);
        }
        let row = decoder.live().len() - 1;
        let uniforms = vec![((step * 11) as f32 * 0.618).fract(); row + 1];
        assert_eq!(decoder.sample(&greedy, &uniforms)[row].token, want.0, "step {step}");
        decoder.step(&model).unwrap();
    }
    assert!(decoder.start(&model, &[Request { prompt: &[1], samples: 2 }]).is_err(), "one place only");
    decoder.clear();
    assert_eq!(decoder.free(), 2);
    // All pages came back.
    for _ in 0..3 {
        decoder.start(&model, &[Request { prompt: &prompts[1].0, samples: 2 }]).unwrap();
        decoder.clear();
    }
}

#[test]
fn directories_round_trip() {
    for (i, mut config) in shapes().into_iter().enumerate() {
        config.eos_token_id = (0..i as u32).collect();
        config.extra.insert("use_cache".into(), true.into());
        config.rope_scaling = [
            Scaling::None,
            Scaling::Linear { factor: 2.0 },
            Scaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position: 32.0,
            },
        ][i];
        let model = model(&config);
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), Dtype::F32).unwrap();
        let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
        let again = Model::open(dir.path()).unwrap();
        assert_eq!(again.config(), &config.clone());
        assert!(named(&again) == named(&model));
        let other = tempfile::tempdir().unwrap();
        again.save(other.path(), Dtype::F32).unwrap();
        assert!(std::fs::read(other.path().join("model.safetensors")).unwrap() == bytes, "same bytes");
        again.save(other.path(), Dtype::Bf16).unwrap();
        let half = Model::open(other.path()).unwrap();
        for (name, values) in named(&half) {
            for (a, b) in values.iter().zip(&named(&model)[&name]) {
                assert!((a - b).abs() <= b.abs() / 256.0, "{name}: {a} against {b}");
            }
        }
    }
}

/// Splits a saved model into two shards with an index, leaving out what `keep` refuses.
fn shard(dir: &Path, keep: impl Fn(&str) -> bool) {
    use safetensors::tensor::{SafeTensors, serialize_to_file};
    let bytes = std::fs::read(dir.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut map, mut shards) = (serde_json::Map::new(), [Vec::new(), Vec::new()]);
    for (i, (name, view)) in tensors.iter().filter(|(name, _)| keep(name)).enumerate() {
        map.insert(name.to_owned(), format!("model-{}.safetensors", i % 2).into());
        shards[i % 2].push((name.to_owned(), view));
    }
    for (i, shard) in shards.into_iter().enumerate() {
        serialize_to_file(shard, None, &dir.join(format!("model-{i}.safetensors"))).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map }).to_string();
    std::fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
}

#[test]
fn shards_are_read_and_faults_are_named() {
    let config = &shapes()[0];
    let model = model(config);
    let saved = || {
        let dir = tempfile::tempdir().unwrap();
        model.save(dir.path(), Dtype::F32).unwrap();
        dir
    };
    let dir = saved();
    shard(dir.path(), |_| true);
    assert!(named(&Model::open(dir.path()).unwrap()) == named(&model));

    let dir = saved();
    shard(dir.path(), |name| name != "model.layers.1.mlp.up_proj.weight");
    let error = Model::open(dir.path()).unwrap_err();
    assert!(
        matches!(&error, ModelError::MissingTensor { name, .. } if name == "model.layers.1.mlp.up_proj.weight")
    );
    assert!(error.is_data());

    // A config of another shape: the tensor and both shapes are named.
    let dir = saved();
    let other = LlamaConfig { intermediate_size: 48, ..config.clone() };
    std::fs::write(dir.path().join("config.json"), other.to_json().to_string()).unwrap();
    let error = Model::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("mlp.gate_proj.weight has shape [40, 24]") && error.contains("[48, 24]"),
        "{error}"
    );

    let dir = saved();
    let other = LlamaConfig { num_hidden_layers: 1, ..config.clone() };
    std::fs::write(dir.path().join("config.json"), other.to_json().to_string()).unwrap();
    assert!(matches!(Model::open(dir.path()).unwrap_err(), ModelError::ExtraTensor { .. }));

    let dir = saved();
    let path = dir.path().join("model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = Model::open(dir.path()).unwrap_err();
    assert!(matches!(error, ModelError::Format { .. }) && error.is_data());

    std::fs::remove_file(&path).unwrap();
    let error = Model::open(dir.path()).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn unsupported_configurations_are_refused_by_key() {
    let good = shapes()[0].to_json();
    let read = |key: &str, value: serde_json::Value| {
        let mut config = good.clone();
        config[key] = value;
        LlamaConfig::from_json(&config.to_string(), Path::new("config.json"))
    };
    assert!(read("use_cache", true.into()).is_ok());
    for (key, value) in [
        ("architectures", serde_json::json!(["GPT2LMHeadModel"])),
        ("attention_bias", true.into()),
        ("mlp_bias", true.into()),
        ("attention_dropout", 0.1.into()),
        ("partial_rotary_factor", 0.5.into()),
        ("pretraining_tp", 2.into()),
        ("layer_types", serde_json::json!(["full_attention", "sliding_attention"])),
        ("hidden_act", "gelu".into()),
        ("rope_scaling", serde_json::json!({"rope_type": "yarn", "factor": 4.0})),
        ("rope_scaling", serde_json::json!({"rope_type": "linear"})),
        ("quantization_config", serde_json::json!({})),
        ("num_key_value_heads", 3.into()),
        ("head_dim", 7.into()),
        ("vocab_size", "many".into()),
        ("hidden_size", serde_json::Value::Null),
    ] {
        let error = read(key, value).unwrap_err();
        assert!(
            error.is_data() && error.to_string().starts_with(&format!("config.json: {key}: ")),
            "{error}"
        );
    }
    let newer = r#"{"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2,
        "rope_parameters": {"rope_theta": 500000.0, "rope_type": "linear", "factor": 4.0}}"#;
    let config = LlamaConfig::from_json(newer, Path::new("x")).unwrap();
    assert_eq!((config.rope_theta, config.rope_scaling), (5e5, Scaling::Linear { factor: 4.0 }));
    assert_eq!((config.head_dim, config.num_key_value_heads), (4, 2));
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
