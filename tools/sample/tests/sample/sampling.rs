//! What is sampled, from what distribution, whatever the batch and the threads.

use crate::world::{CONTEXT, VOCABULARY, distribution, logits, trained_logprobs, world, write_prompts};
use cognate_model::Model;
use cognate_records::{Finish, Rollout};

#[test]
fn bytes_do_not_depend_on_batch_or_threads() {
    let w = world(13);
    let with = |batch: &str, threads: &str| {
        w.sample(&[
            "-s",
            "3",
            "--max-tokens",
            "20",
            "--seed",
            "5",
            "--top-p",
            "0.9",
            "--batch",
            batch,
            "-j",
            threads,
        ])
    };
    let whole = with("192", "2");
    assert_eq!(whole, with("192", "1"), "threads");
    assert_eq!(whole, with("7", "2"), "sequences that enter while others run");
    assert_eq!(whole, with("2", "1"), "fewer places than samples of a prompt");
    assert_eq!(whole, with("1", "2"), "one sequence at a time");
    let order: Vec<(String, u32)> =
        crate::world::decode(&whole).into_iter().map(|r| (r.prompt, r.index)).collect();
    let wanted: Vec<(String, u32)> =
        (0..13).flat_map(|p| (0..3).map(move |i| (format!("p{p}"), i))).collect();
    assert_eq!(order, wanted);
}

#[test]
fn seed_round_prompt_and_index_each_decide_the_samples() {
    let w = world(2);
    let ids = |arguments: &[&str]| -> Vec<Vec<u32>> {
        let fixed = ["-s", "2", "--max-tokens", "12"];
        w.rollouts(&[&fixed, arguments].concat()).into_iter().map(|r| r.ids).collect()
    };
    let first = ids(&["--seed", "1"]);
    assert_eq!(first, ids(&["--seed", "1", "--round", "0"]));
    assert_ne!(first, ids(&["--seed", "2"]));
    assert_ne!(first, ids(&["--seed", "1", "--round", "1"]));
    assert_ne!(first[0], first[1], "index");
    // The same question under another id.
    let mut renamed = w.prompts.clone();
    renamed[0].id = "other".into();
    write_prompts(&w.file, &renamed);
    let other = ids(&["--seed", "1"]);
    assert_ne!(first[0], other[0]);
    assert_eq!(first[2..], other[2..]);
}

#[test]
fn greedy_takes_the_most_probable_token() {
    let w = world(4);
    let model = Model::open(&w.model).unwrap();
    for rollout in w.rollouts(&["--temperature", "0", "--max-tokens", "16"]) {
        let mut ids = rollout.prompt_ids.clone();
        for (token, sampling) in rollout.ids.iter().zip(&rollout.sampling_logprobs) {
            let logits = logits(&model, &ids);
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(logits[*token as usize] >= best - 1e-4, "{} after {ids:?}", rollout.prompt);
            assert_eq!(*sampling, 0.0, "the distribution of greedy decoding is a point");
            ids.push(*token);
        }
        assert_eq!(rollout.ids.len(), 16);
        assert!(rollout.logprobs.iter().any(|l| *l < -0.1), "raw log-probabilities are the model's own");
    }
}

#[test]
fn logprobs_are_those_of_the_distribution_and_of_training() {
    let w = world(4);
    let model = Model::open(&w.model).unwrap();
    for (temperature, top_k, top_p) in [(1.0, 0, 1.0), (0.7, 0, 0.8), (1.5, 20, 1.0), (0.9, 30, 0.9)] {
        let arguments = [
            "--temperature".to_owned(),
            temperature.to_string(),
            "--top-k".into(),
            top_k.to_string(),
            "--top-p".into(),
            top_p.to_string(),
            "--max-tokens".into(),
            "16".into(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for rollout in w.rollouts(&arguments) {
            let mut ids = rollout.prompt_ids.clone();
            for (t, &token) in rollout.ids.iter().enumerate() {
                let logits = logits(&model, &ids);
                let raw = distribution(&logits, 1.0, 0, 1.0)[token as usize].ln();
                let drawn = distribution(&logits, temperature, top_k, top_p)[token as usize].ln();
                assert!((raw - f64::from(rollout.logprobs[t])).abs() < 1e-4, "{raw} {}", rollout.logprobs[t]);
                let given = f64::from(rollout.sampling_logprobs[t]);
                assert!((drawn - given).abs() < 1e-4, "T {temperature}, top-p {top_p}: {drawn} {given}");
                ids.push(token);
            }
            for (ours, theirs) in rollout.logprobs.iter().zip(trained_logprobs(&model, &rollout)) {
                assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
            }
        }
    }
}

/// 4,000 first tokens against the distribution that they should come from.
#[test]
fn tokens_are_as_frequent_as_they_should_be() {
    let w = world(1);
    let model = Model::open(&w.model).unwrap();
    let chi = |temperature: f64, top_p: f64, expected_temperature: f64| {
        let (t, p) = (temperature.to_string(), top_p.to_string());
        let rollouts = w.rollouts(&["-s", "4000", "--max-tokens", "1", "--temperature", &t, "--top-p", &p]);
        let mut counts = vec![0.0f64; VOCABULARY];
        rollouts.iter().for_each(|r| counts[r.ids[0] as usize] += 1.0);
        let expected = distribution(&logits(&model, &w.prompts[0].ids), expected_temperature, 0, top_p);
        // Cells with few expected counts are put together.
        let (mut statistic, mut cells, mut rest) = (0.0, 0.0, (0.0, 0.0));
        for (count, p) in counts.iter().zip(&expected) {
            let e = p * 4000.0;
            if e >= 8.0 {
                statistic += (count - e).powi(2) / e;
                cells += 1.0;
            } else {
                rest = (rest.0 + count, rest.1 + e);
            }
        }
        if rest.1 > 0.0 {
            statistic += (rest.0 - rest.1).powi(2) / rest.1;
            cells += 1.0;
        } else {
            assert_eq!(rest.0, 0.0, "tokens outside of the nucleus");
        }
        // Standard deviations above the mean of a chi-square with cells − 1 degrees of freedom.
        let freedom: f64 = cells - 1.0;
        (statistic - freedom) / (2.0 * freedom).sqrt()
    };
    assert!(chi(1.0, 1.0, 1.0) < 3.5);
    assert!(chi(0.6, 0.9, 0.6) < 3.5);
    assert!(chi(0.6, 1.0, 1.0) > 20.0, "the test notices a wrong temperature");
}

#[test]
fn samples_end_at_end_tokens_at_max_tokens_and_at_the_context() {
    let mut w = world(3);
    // Every fourth byte ends an answer to prompt 1.
    w.prompts[1].stop_ids = (3..VOCABULARY as u32).step_by(4).collect();
    // Prompt 2 nearly fills the context.
    let ids = w.prompts[2].ids.clone();
    w.prompts[2].ids = ids.iter().cycle().take(CONTEXT - 5).copied().collect();
    write_prompts(&w.file, &w.prompts);
    let of = |rollouts: &[Rollout], prompt: &str| -> Vec<Rollout> {
        rollouts.iter().filter(|r| r.prompt == prompt).cloned().collect()
    };
    let all = w.rollouts(&["-s", "40", "--max-tokens", "30"]);
    let stops = |r: &Rollout, token: u32| {
        token == 1 || (r.prompt == "p1" && token >= 3 && (token - 3).is_multiple_of(4))
    };
    for r in &all {
        let (last, before) = r.ids.split_last().unwrap();
        assert_eq!(r.finish == Some(Finish::Stop), stops(r, *last), "{r:?}");
        assert!(before.iter().all(|t| !stops(r, *t)));
        assert_eq!([r.logprobs.len(), r.sampling_logprobs.len()], [r.ids.len(); 2]);
        assert_eq!(r.parameters.as_ref().unwrap().max_tokens, 30);
    }
    let short = of(&all, "p1");
    assert!(short.iter().all(|r| r.finish == Some(Finish::Stop)));
    let chat = cognate_chat::Chat::open(&w.model).unwrap();
    for r in short {
        assert_eq!(r.text, chat.decode(&r.ids[..r.ids.len() - 1]), "the end token is not text");
    }
    assert!(of(&all, "p0").iter().any(|r| r.finish == Some(Finish::Length) && r.ids.len() == 30));
    assert!(of(&all, "p2").iter().any(|r| r.finish == Some(Finish::Length) && r.ids.len() == 5));
    assert!(of(&all, "p2").iter().all(|r| r.ids.len() <= 5));
}

#[test]
fn control_characters_in_model_text_reach_no_terminal() {
    let w = world(4);
    let text = w.sample(&["-s", "20", "--max-tokens", "40", "--temperature", "2"]);
    assert!(text.bytes().all(|b| b == b'\n' || b >= 0x20), "only escaped");
    let rollouts = crate::world::decode(&text);
    assert!(rollouts.iter().any(|r| r.text.contains('\u{1b}')), "there were some");
}

#[test]
fn prompts_without_ids_are_tokenised_as_the_chat_template_says() {
    let w = world(3);
    let with_ids = w.sample(&["--max-tokens", "8"]);
    let bare: Vec<_> = w
        .prompts
        .iter()
        .map(|p| cognate_records::Prompt { ids: vec![], text: String::new(), ..p.clone() })
        .collect();
    write_prompts(&w.file, &bare);
    assert_eq!(w.sample(&["--max-tokens", "8"]), with_ids);
    // Text alone: the marker in it is text.
    std::fs::write(
        &w.file,
        r#"{"schema":"prompt/1","id":"a","problem":"q","language":"python","task":"generation","text":"x<code>"}"#,
    )
    .unwrap();
    let rollouts = w.rollouts(&["--max-tokens", "2"]);
    assert_eq!(rollouts[0].prompt_ids.len(), "x<code>".len());
}
