//! A tiny random model, prompts for it, and the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_chat::{Chat, TokenizerRecipe};
use cognate_model::{Decoder, Dtype, LlamaConfig, Model, Request, Trainer};
use cognate_records::{Lines, Message, Prompt, Rollout};

pub const VOCABULARY: usize = 259;
pub const CONTEXT: usize = 96;

pub fn config() -> LlamaConfig {
    LlamaConfig {
        vocab_size: VOCABULARY,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 16,
        max_position_embeddings: CONTEXT,
        // Far from uniform, so that temperature, top-k and top-p have something to cut.
        initializer_range: 0.3,
        ..LlamaConfig::default()
    }
}

/// Writes a model that the seed decides, with a byte tokenizer.
pub fn write_model(dir: &Path, seed: u64) {
    std::fs::create_dir_all(dir).unwrap();
    Model::init(&config(), seed).unwrap().save(dir, Dtype::F32).unwrap();
    TokenizerRecipe::bytes().write(dir).unwrap();
}

/// Prompts of many lengths.
pub fn prompts(dir: &Path, count: usize) -> Vec<Prompt> {
    let chat = Chat::open(dir).unwrap();
    (0..count)
        .map(|i| {
            let message = |role: &str, content: String| Message { role: role.into(), content };
            let messages = vec![
                message("system", "Python".into()),
                message("user", format!("# {}{i}", "print it ".repeat(i % 5))),
            ];
            let rendered = chat.prompt(&messages).unwrap();
            Prompt {
                id: format!("p{i}"),
                problem: format!("q{i}"),
                language: "python".into(),
                task: "generation".into(),
                messages,
                text: rendered.text,
                ids: rendered.ids,
                ..Prompt::default()
            }
        })
        .collect()
}

pub fn write_prompts(path: &Path, prompts: &[Prompt]) {
    let lines: String = prompts.iter().map(|p| serde_json::to_string(p).unwrap() + "\n").collect();
    std::fs::write(path, lines).unwrap();
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub model: PathBuf,
    pub file: PathBuf,
    pub prompts: Vec<Prompt>,
}

pub fn world(count: usize) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (dir.path().join("model"), dir.path().join("prompts.jsonl"));
    write_model(&model, 7);
    let prompts = prompts(&model, count);
    write_prompts(&file, &prompts);
    World { dir, model, file, prompts }
}

pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cog-sample"));
    command.arg("--quiet");
    command
}

impl World {
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = command();
        command.arg("--model").arg(&self.model).arg("--prompts").arg(&self.file).args(arguments);
        command.output().unwrap()
    }

    /// The bytes of stdout of a run that must succeed.
    pub fn sample(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn rollouts(&self, arguments: &[&str]) -> Vec<Rollout> {
        decode(&self.sample(arguments))
    }
}

pub fn decode(text: &str) -> Vec<Rollout> {
    let bytes = std::io::Cursor::new(text.as_bytes().to_vec());
    Lines::new("stdout", bytes).map(|line| line.unwrap().decode().unwrap()).collect()
}

/// Logits for the token after `ids`, by prefill alone.
pub fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut decoder = Decoder::new(model, 1, CONTEXT + 1);
    decoder.start(model, &[Request { prompt: ids, samples: 1 }]).unwrap();
    decoder.logits(0).to_vec()
}

/// Log-probabilities that training computes for the sampled tokens.
pub fn trained_logprobs(model: &Model, rollout: &Rollout) -> Vec<f32> {
    let tokens = [&rollout.prompt_ids[..], &rollout.ids].concat();
    let mut trainer = Trainer::new(model, tokens.len());
    trainer.score(model, &tokens, &[0, tokens.len() as u32], 1.0).unwrap();
    trainer.logprobs()[rollout.prompt_ids.len()..].to_vec()
}

/// The distribution that a token is to be drawn from: softmax of the logits over the temperature, cut to the `top_k`
/// most probable, then to the fewest whose probabilities sum to `top_p`, scaled to sum 1.
pub fn distribution(logits: &[f32], temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut p: Vec<f64> = logits.iter().map(|l| (f64::from(l - top) / temperature).exp()).collect();
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[b].total_cmp(&p[a]).then(a.cmp(&b)));
    if top_k > 0 {
        order[top_k.min(p.len())..].iter().for_each(|&i| p[i] = 0.0);
    }
    let total: f64 = p.iter().sum();
    p.iter_mut().for_each(|x| *x /= total);
    let mut sum = 0.0;
    for &i in &order {
        if sum >= top_p {
            p[i] = 0.0;
        }
        sum += p[i];
    }
    let total: f64 = p.iter().sum();
    p.iter().map(|x| x / total).collect()
}
