//! A tiny random model, programs for it, and the command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_chat::TokenizerRecipe;
use cognate_model::{Dtype, LlamaConfig, Model};
use cognate_records::{Embedding, Metric, Program, Reader};

pub struct World {
    pub dir: tempfile::TempDir,
    pub model: PathBuf,
    pub programs: PathBuf,
}

pub const LANGUAGES: [&str; 3] = ["python", "ruby", "php"];

pub fn program(problem: usize, language: &str, source: String) -> Program {
    Program {
        id: format!("q{problem}/{language}"),
        problem: format!("q{problem}"),
        language: language.into(),
        source,
        claim: Some("accepted".into()),
        split: Some("eval".into()),
        ..Program::default()
    }
}

/// The same text in every language: what is parallel is identical.
pub fn identical(problems: usize) -> Vec<Program> {
    (0..problems)
        .flat_map(|p| LANGUAGES.map(|l| program(p, l, format!("print({p} * {})\n", p * 37 % 101))))
        .collect()
}

pub fn write_programs(path: &Path, programs: &[Program]) {
    let lines: String = programs.iter().map(|p| serde_json::to_string(p).unwrap() + "\n").collect();
    std::fs::write(path, lines).unwrap();
}

pub fn world(programs: &[Program]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let (model, file) = (dir.path().join("model"), dir.path().join("programs.jsonl"));
    std::fs::create_dir(&model).unwrap();
    let config = LlamaConfig {
        vocab_size: 259,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 64,
        initializer_range: 0.3,
        ..LlamaConfig::default()
    };
    Model::init(&config, 3).unwrap().save(&model, Dtype::F32).unwrap();
    TokenizerRecipe::bytes().write(&model).unwrap();
    write_programs(&file, programs);
    World { dir, model, programs: file }
}

pub fn command(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cog-probe")).args(arguments).output().unwrap()
}

pub fn stdout(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn decode(text: &str) -> Vec<Metric> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The average (no language pair) of a measure.
pub fn average(metrics: &[Metric], name: &str, layer: &str, pooling: &str) -> f64 {
    let of = |m: &&Metric| {
        m.name == name
            && m.labels["layer"] == layer
            && m.labels["pooling"] == pooling
            && m.labels["centre"] == "none"
            && !m.labels.contains_key("source")
    };
    metrics.iter().find(of).unwrap_or_else(|| panic!("no {name} of layer {layer}")).value
}

impl World {
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        let fixed =
            ["-q", "--model", self.model.to_str().unwrap(), "--programs", self.programs.to_str().unwrap()];
        command(&[&fixed, arguments].concat())
    }

    pub fn probe(&self, arguments: &[&str]) -> String {
        stdout(self.run(arguments))
    }

    pub fn embeddings(&self, arguments: &[&str]) -> Vec<Embedding> {
        let file = self.path("read.parquet");
        self.probe(&[arguments, &["--embeddings", &file]].concat());
        Reader::open(Path::new(&file)).unwrap().map(Result::unwrap).collect()
    }
}
