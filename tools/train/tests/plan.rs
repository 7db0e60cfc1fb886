//! `cog-train --plan` against the peak of memory that the kernel reports of the run that was planned, and for a model
//! that no test could load.

#[expect(dead_code, reason = "shared with the other tests")]
mod toy;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_model::LlamaConfig;
use cognate_records::{Packed, Writer, WriterOptions};
use serde_json::{Value, json};

fn train(dir: &Path, args: &[&str]) -> Output {
    let out = Command::new(env!("CARGO_BIN_EXE_cog-train")).current_dir(dir).args(args).output().unwrap();
    assert!(out.status.success(), "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    out
}

fn plan(dir: &Path, args: &[&str]) -> Value {
    serde_json::from_slice(&train(dir, &[args, &["--plan", "--json"]].concat()).stdout).unwrap()
}

/// `sequences` of `length` tokens, all of them weighted but the first.
fn data(path: &Path, vocabulary: usize, sequences: usize, length: usize) {
    let mut out = Writer::<Packed>::create(path, WriterOptions::default()).unwrap();
    for i in 0..sequences {
        out.write(&Packed {
            id: format!("s{i}"),
            ids: (0..length).map(|t| ((i * 31 + t * 7) % vocabulary) as u32).collect(),
            weights: (0..length).map(|t| f32::from(u8::from(t > 0))).collect(),
            starts: vec![0],
            ..Packed::default()
        })
        .unwrap();
    }
    out.finish().unwrap();
}

struct Case {
    name: &'static str,
    shape: LlamaConfig,
    sequences: usize,
    length: usize,
    flags: &'static [&'static str],
}

/// Plans and runs two steps of `case`; the ratio of what was planned to what the kernel says.
fn ratio(case: &Case) -> f64 {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    toy::tokenizer(dir);
    fs::write(dir.join("model.json"), case.shape.to_json().to_string()).unwrap();
    data(&dir.join("data.parquet"), case.shape.vocab_size, 2 * case.sequences, case.length);
    let (batch, tokens) = (case.sequences.to_string(), (case.sequences * case.length).to_string());
    let length = case.length.to_string();
    let shared = ["lm", "--init-config", "model.json", "--tokenizer", "tokenizer", "--batch", &batch];
    let shared = [&shared[..], &["--micro-tokens", &tokens, "-j", "2"], case.flags].concat();
    let planned = plan(dir, &[&shared[..], &["--plan-length", &length]].concat());
    let run = ["--data", "data.parquet", "-o", "out", "--metrics", "metrics.jsonl", "-v"];
    let said = train(dir, &[&shared[..], &run].concat()).stderr;
    assert!(String::from_utf8_lossy(&said).contains("classifier chunk"), "-v prints the arena");
    let peak = toy::series(&dir.join("metrics.jsonl"), "peak_memory");
    let (planned, peak) = (planned["bytes"].as_f64().unwrap(), peak[peak.len() - 1]);
    println!(
        "{:32} planned {:7.1} MB, peak {:7.1} MB, {:.3}",
        case.name,
        planned / 1e6,
        peak / 1e6,
        planned / peak
    );
    planned / peak
}

fn ten_million(layers: usize) -> LlamaConfig {
    LlamaConfig {
        vocab_size: 8192,
        hidden_size: 256,
        intermediate_size: 688,
        num_hidden_layers: layers,
        num_attention_heads: 8,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 2048,
        tie_word_embeddings: false,
        ..LlamaConfig::default()
    }
}

fn tiny() -> LlamaConfig {
    LlamaConfig {
        vocab_size: 1024,
        hidden_size: 128,
        intermediate_size: 352,
        num_hidden_layers: 4,
        num_attention_heads: 4,
        num_key_value_heads: 4,
        head_dim: 32,
        max_position_embeddings: 128,
        ..LlamaConfig::default()
    }
}

#[test]
fn the_plan_is_within_five_per_cent_of_the_kernels_peak() {
    if !Path::new("/proc/self/status").exists() {
        eprintln!("SKIPPED: this system does not report a peak of memory");
        return;
    }
    let mut cases = Vec::new();
    for (name, flags) in [
        ("10 M, 4 layers", &[][..]),
        ("10 M, 4 layers, feed-forward", &["--recompute", "feed-forward"][..]),
        ("10 M, 4 layers, block", &["--recompute", "block"]),
        ("10 M, 4 layers, adapters", &["--lora-rank", "8"]),
    ] {
        cases.push(Case { name, shape: ten_million(4), sequences: 2, length: 512, flags });
    }
    let wide = LlamaConfig { vocab_size: 32_000, ..ten_million(2) };
    cases.push(Case { name: "a large vocabulary", shape: wide, sequences: 1, length: 512, flags: &[] });
    cases.push(Case {
        name: "one long document",
        shape: tiny_long(),
        sequences: 1,
        length: 4096,
        flags: &[],
    });
    cases.push(Case { name: "tiny", shape: tiny(), sequences: 16, length: 128, flags: &[] });
    let ratios: Vec<_> = cases.iter().map(|case| (case.name, ratio(case))).collect();
    assert!(ratios.iter().all(|(_, r)| (0.95..1.05).contains(r)), "{ratios:?}");
}

fn tiny_long() -> LlamaConfig {
    LlamaConfig { max_position_embeddings: 4096, ..tiny() }
}

fn llama_8b(dir: &Path) -> PathBuf {
    let config = LlamaConfig {
        vocab_size: 128_256,
        hidden_size: 4096,
        intermediate_size: 14_336,
        num_hidden_layers: 32,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 128,
        max_position_embeddings: 131_072,
        tie_word_embeddings: false,
        ..LlamaConfig::default()
    };
    let path = dir.join("8b.json");
    fs::write(&path, config.to_json().to_string()).unwrap();
    path
}

#[test]
fn llama_8b_is_shown_to_fit_or_not_without_a_byte_of_it() {
    let temp = tempfile::tempdir().unwrap();
    llama_8b(temp.path());
    let told = |more: &[&str]| {
        let flags = ["sft", "--init-config", "8b.json", "--plan=cuda", "--plan-length", "4096"];
        let out = train(temp.path(), &[&flags[..], &["--plan-memory", "141", "--batch", "8"], more].concat());
        String::from_utf8(out.stdout).unwrap()
    };
    let small = told(&["--micro-tokens", "16384"]);
    assert!(
        small.contains("8.030 billion parameters on a GPU") && small.contains("it fits in 141 GB"),
        "{small}"
    );
    assert!(small.contains("moments") && small.contains("a step of 8 sequences"), "{small}");
    let large = told(&["--micro-tokens", "32768"]);
    assert!(large.contains("it does not fit in 141 GB"), "{large}");
    let again = told(&["--micro-tokens", "32768", "--recompute", "feed-forward", "--peak-flops", "9.9e14"]);
    assert!(again.contains("it fits in 141 GB") && again.contains("computed again"), "{again}");
    assert!(again.contains("at the stated peak"), "{again}");
    let adapted = told(&["--micro-tokens", "32768", "--lora-rank", "12"]);
    assert!(adapted.contains("frozen matrices") && !adapted.contains("moments"), "{adapted}");
}

#[test]
fn the_plan_of_reinforcement_learning_counts_the_reference() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("model");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), tiny().to_json().to_string()).unwrap();
    let memory = |more: &[&str]| plan(temp.path(), &[&["rl", "--model", "model"], more].concat());
    let (free, held) = (memory(&[]), memory(&["--kl", "0.1"]));
    assert_eq!(free["memory"]["reference model"], Value::Null);
    assert_eq!(held["memory"]["reference model"], held["memory"]["weights"]);
    let sum: f64 = held["memory"].as_object().unwrap().values().map(|b| b.as_f64().unwrap()).sum();
    assert_eq!(json!(sum), json!(held["bytes"].as_f64().unwrap()));
}
