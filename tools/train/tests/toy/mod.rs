//! A world small enough to train in a test: a model of a few thousand parameters, sequences that count, and a sampler
//! with a judge whose reward is "the answer contains token 3".

use std::fs;
use std::path::{Path, PathBuf};

use cognate_model::{Decoder, LlamaConfig, Model, Request, SampleOptions};
use cognate_random::Key;
use cognate_records::{
    Finish, Packed, Record, Rollout, SamplingParameters, Status, StepEnd, Verdict, Writer, WriterOptions,
};

pub const VOCABULARY: usize = 16;
pub const ANSWER: usize = 4;
/// Prompts of a step and samples of a prompt.
pub const GROUPS: u64 = 6;
pub const SAMPLES: usize = 6;

pub fn shape() -> LlamaConfig {
    LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 32,
        initializer_range: 0.1,
        bos_token_id: None,
        eos_token_id: vec![0],
        pad_token_id: None,
        ..LlamaConfig::default()
    }
}

/// A tokenizer directory: 16 tokens, `t0` ends a text.
pub fn tokenizer(dir: &Path) -> PathBuf {
    let path = dir.join("tokenizer");
    fs::create_dir_all(&path).unwrap();
    let vocab: serde_json::Map<_, _> = (0..VOCABULARY).map(|i| (format!("t{i}"), i.into())).collect();
    let tokenizer = serde_json::json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t1"}});
    fs::write(path.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(path.join("tokenizer_config.json"), r#"{"eos_token":"t0","chat_template":"{{ messages }}"}"#)
        .unwrap();
    path
}

/// A config.json that leaves the vocabulary to the tokenizer.
pub fn config_file(dir: &Path) -> PathBuf {
    let mut fields = shape().to_json();
    fields.as_object_mut().unwrap().shift_remove("vocab_size");
    let path = dir.join("model.json");
    fs::write(&path, fields.to_string()).unwrap();
    path
}

/// Packed sequences of two documents that count upwards modulo ten, with loss on all that can be predicted.
pub fn counting(path: &Path, sequences: usize) {
    let mut out = Writer::<Packed>::create(path, WriterOptions::default()).unwrap();
    for i in 0..sequences {
        let document = |from: usize, len: usize| (0..len).map(move |k| ((from + k) % 10) as u32);
        let (first, second) = (6 + i % 5, 9);
        let ids: Vec<u32> = document(i * 7, first).chain(document(i * 3 + 1, second)).collect();
        let weights = (0..ids.len()).map(|t| f32::from(u8::from(t != 0 && t != first))).collect();
        out.write(&Packed {
            id: format!("s{i}"),
            ids,
            weights,
            starts: vec![0, first as u32],
            documents: vec![],
            ..Packed::default()
        })
        .unwrap();
    }
    out.finish().unwrap();
}

/// A model directory with random weights.
pub fn model(dir: &Path, seed: u64) -> PathBuf {
    let path = dir.join("initial");
    fs::create_dir_all(&path).unwrap();
    Model::init(&shape(), seed).unwrap().save(&path, cognate_model::Dtype::F32).unwrap();
    for entry in fs::read_dir(tokenizer(dir)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), path.join(entry.file_name())).unwrap();
    }
    path
}

/// Samples and judges step `step` with the model in `version_dir`: JSONL, `step_end` last. A pure function of the
/// weights and the step.
pub fn step(version_dir: &Path, version: u64, step: u64, prompts_done: u64) -> String {
    let model = Model::open(version_dir).unwrap();
    let mut text = String::new();
    for g in 0..GROUPS {
        let name = format!("p{:03}", (prompts_done + g) % 40);
        let prompt = [1 + (g % 8) as u32, 9];
        let mut decoder = Decoder::new(&model, SAMPLES, prompt.len() + ANSWER);
        decoder.start(&model, &[Request { prompt: &prompt, samples: SAMPLES }]).unwrap();
        let mut rollouts: Vec<Rollout> = (0..SAMPLES as u32)
            .map(|index| Rollout {
                prompt: name.clone(),
                index,
                round: Some(step),
                prompt_ids: prompt.to_vec(),
                finish: Some(Finish::Length),
                parameters: Some(SamplingParameters {
                    temperature: 1.0,
                    max_tokens: ANSWER as u32,
                    ..SamplingParameters::default()
                }),
                ..Rollout::default()
            })
            .collect();
        for position in 0..ANSWER {
            let uniforms: Vec<f32> = (0..SAMPLES)
                .map(|i| {
                    let key = Key::new(5).with(step).with(&name).with(i);
                    key.uniform(position as u64)
                })
                .collect();
            let options = SampleOptions { temperature: 1.0, top_k: 0, top_p: 1.0 };
            let sampled = decoder.sample(&[options], &uniforms).to_vec();
            for (rollout, s) in rollouts.iter_mut().zip(sampled) {
                rollout.ids.push(s.token);
                rollout.logprobs.push(s.logprob);
                rollout.sampling_logprobs.push(s.sampling_logprob);
                rollout.versions.push(version);
            }
            if position + 1 < ANSWER {
                decoder.step(&model).unwrap();
            }
        }
        for mut rollout in rollouts {
            let status = if rollout.ids.contains(&3) { Status::AC } else { Status::WA };
            rollout.verdict = Some(Verdict {
                status,
                reward: None,
                score: None,
                failure: None,
                passed: 0,
                run: 1,
                total: 1,
                tests: vec![],
                extraction: None,
                message: None,
                detected_language: None,
                measured: None,
            });
            text += &line(&rollout);
        }
    }
    text + &line(&StepEnd {
        step,
        version,
        groups: GROUPS,
        rollouts: GROUPS * SAMPLES as u64,
        ..StepEnd::default()
    })
}

fn line<T: Record>(record: &T) -> String {
    let mut value = serde_json::to_value(record).unwrap();
    value.as_object_mut().unwrap().insert("schema".into(), T::SCHEMA.into());
    value.to_string() + "\n"
}

/// Every file of a model directory by name, for comparison.
pub fn contents(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| {
            let e = e.unwrap();
            (e.file_name().into_string().unwrap(), fs::read(e.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

/// Values of one metric in step order.
pub fn series(metrics: &Path, name: &str) -> Vec<f64> {
    let read = cognate_records::Reader::<cognate_records::Metric>::open(metrics).unwrap();
    read.map(Result::unwrap).filter(|m| m.name == name).map(|m| m.value).collect()
}

/// The metrics that must not depend on time.
pub fn exact_metrics(metrics: &Path) -> Vec<String> {
    let text = fs::read_to_string(metrics).unwrap();
    text.lines().filter(|l| !l.contains("\"measured\"")).map(str::to_owned).collect()
}

/// Two logs say the same, but for what was measured.
pub fn same_metrics(a: &Path, b: &Path) {
    let (a, b) = (exact_metrics(a), exact_metrics(b));
    for (x, y) in a.iter().zip(&b) {
        assert_eq!(x, y);
    }
    assert_eq!(a.len(), b.len());
}

/// Every value of a safetensors file, tensors in name order.
pub fn tensors(bytes: &[u8]) -> Vec<f32> {
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let mut names = file.names();
    names.sort_unstable();
    let values = |n: &&str| {
        let data = file.tensor(n).unwrap().data().to_vec();
        data.chunks(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect::<Vec<_>>()
    };
    names.iter().flat_map(values).collect()
}

/// Waits until the run's log says something of step `step`.
pub fn wait_for_step(state: &Path, step: u64) {
    let log = state.join("metrics.jsonl");
    let mark = format!("\"step\":{step}");
    for _ in 0..20_000 {
        if fs::read_to_string(&log).is_ok_and(|t| t.contains(&mark)) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("step {step} never came");
}
