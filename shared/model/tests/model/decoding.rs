//! Decoding against the training forward, alone and in company.

use cognate_model::{Decoder, LlamaConfig, Model, Request, SampleOptions, Trainer};

use crate::{in_pool, model, shapes};

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
