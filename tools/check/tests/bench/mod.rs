//! A small, whole set of inputs for every tool of the suite, spoilt on demand, and a runner for the sibling binaries.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cognate_chat::{Chat, TokenizerRecipe};
use cognate_model::{Dtype, LlamaConfig, Model};
use cognate_records::{
    Group, Metric, Packed, Problem, Program, Prompt, Reader, Record, Rollout, Writer, WriterOptions,
};
use serde_json::{Value, json};

/// The record types that some tool reads, by the name that stands in a command as `{name}`.
pub const TYPES: [&str; 7] = ["problem", "program", "group", "packed", "prompt", "rollout", "metric"];

pub struct Bench {
    dir: tempfile::TempDir,
}

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

/// The binary of a tool beside cog-check's own; `None`, loudly, where it has not been built.
pub fn sibling(tool: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_cog-check")).with_file_name(format!("cog-{tool}"));
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: cog-{tool} is not built (cargo build --release -p cog-{tool})");
    None
}

pub fn lines(records: &[Value]) -> String {
    records.iter().map(|r| format!("{r}\n")).collect()
}

fn sources() -> [(&'static str, &'static str); 2] {
    [
        ("python", "a, b = map(int, input().split())\nprint(a {op} b)\n"),
        ("ruby", "a, b = gets.split.map(&:to_i)\nputs a {op} b\n"),
    ]
}

/// Good records of each type: three problems, solved in two languages.
pub fn good(name: &str) -> Vec<Value> {
    let mut records = Vec::new();
    for (p, (op, word, answer)) in
        [("+", "sum", 7), ("*", "product", 12), ("-", "difference", 1)].iter().enumerate()
    {
        let problem = format!("p{p}");
        let verdict = json!({"status": "AC", "reward": 1.0, "passed": 1, "run": 1, "total": 1});
        let member = |language: &str, source: &str| json!({"id": format!("{problem}-{language}"), "language": language, "source": source.replace("{op}", op)});
        match name {
            "problem" => records.push(json!({"schema": "problem/1", "id": problem, "split": "sft",
                "statement": format!("print the {word} of two numbers."),
                "tests": [{"kind": "stdio", "input": "4 3\n", "output": format!("{answer}\n")}]})),
            "program" => {
                for (language, source) in sources() {
                    let mut program = member(language, source);
                    let more = json!({"schema": "program/1", "problem": problem, "claim": "accepted", "split": "sft", "verdict": verdict});
                    program.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                    records.push(program);
                }
            }
            "group" => {
                let members = sources().map(|(language, source)| {
                    let mut member = member(language, source);
                    member["evidence"] = json!({"kind": "verdict", "status": "AC", "tests": 1});
                    member
                });
                records.push(json!({"schema": "group/1", "id": problem, "problem": problem, "split": "sft",
                    "statement": format!("print the {word} of two numbers."), "members": members}));
            }
            "packed" => records.push(json!({"schema": "packed/1", "id": format!("s{p}"),
                "ids": [70, 71, 72, 73, 1], "weights": [0.0, 1.0, 1.0, 1.0, 1.0], "starts": [0], "documents": ["d"]})),
            "prompt" => records.push(json!({"schema": "prompt/1", "id": format!("{problem}-python"), "problem": problem,
                "language": "python", "task": "generation", "text": format!("Python<code># the {word}\n"),
                "messages": [{"role": "system", "content": "Python"}, {"role": "user", "content": format!("# the {word}")}]})),
            "rollout" => records.push(json!({"schema": "rollout/1", "prompt": format!("{problem}-python"), "index": 0,
                "text": member("python", sources()[0].1)["source"], "problem": problem, "language": "python",
                "task": "generation", "model": "arm=base,stage=base,seed=0",
                "parameters": {"temperature": 0.0, "max_tokens": 9, "seed": 0}, "verdict": verdict})),
            "metric" => records.push(json!({"schema": "metric/1", "name": "retrieval@1", "value": 0.5, "count": 3,
                "labels": {"arm": "base", "layer": p.to_string(), "pooling": "mean", "query": "python", "key": "ruby"}})),
            _ => unreachable!("{name}"),
        }
    }
    records
}

fn halved<T: Record>(jsonl: &Path, parquet: &Path) {
    let mut writer = Writer::<T>::create(parquet, WriterOptions::default()).unwrap();
    for record in Reader::<T>::open(jsonl).unwrap() {
        writer.write(&record.unwrap()).unwrap();
    }
    writer.finish().unwrap();
    let bytes = fs::read(parquet).unwrap();
    fs::write(parquet, &bytes[..bytes.len() / 2]).unwrap();
}

impl Bench {
    pub fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        for name in TYPES {
            fs::write(bench.path(&format!("{name}.jsonl")), lines(&good(name))).unwrap();
        }
        let tokenizer = bench.path("tokenizer");
        fs::create_dir_all(&tokenizer).unwrap();
        TokenizerRecipe::bytes().write(&tokenizer).unwrap();
        let chat = Chat::open(&tokenizer).unwrap();
        let config = LlamaConfig {
            vocab_size: chat.vocab_size(),
            hidden_size: 16,
            intermediate_size: 16,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            head_dim: 8,
            max_position_embeddings: 256,
            ..LlamaConfig::default()
        };
        let model = bench.path("model");
        fs::create_dir_all(&model).unwrap();
        Model::init(&config, 0).unwrap().save(&model, Dtype::F32).unwrap();
        chat.copy_to(&model).unwrap();
        bench
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A spoilt version of a type's file, and what the complaint must mention; `None` where that kind of damage does
    /// not exist for the type.
    pub fn spoilt(&self, name: &str, damage: &str) -> Option<(PathBuf, &'static [&'static str])> {
        let text = lines(&good(name));
        let path = self.path(&format!("{damage}-{name}.jsonl"));
        let (text, says): (String, &[&str]) = match damage {
            "truncated" => (text[..text.len() - 25].to_owned(), &["truncated"]),
            "version" => (text.replacen(&format!("{name}/1"), &format!("{name}/9"), 1), &["/9"]),
            "kobol" if text.contains("\"language\":\"python\"") => {
                (text.replacen("\"language\":\"python\"", "\"language\":\"kobol\"", 1), &["kobol"])
            }
            "no-output" if name == "problem" => {
                let mut records = good(name);
                records[1]["tests"][0].as_object_mut().unwrap().remove("output");
                (lines(&records), &["output"])
            }
            "empty" => (String::new(), &["empty", "no ", "nothing", "needed", "unknown problem"]),
            "half" => {
                let path = path.with_extension("parquet");
                let jsonl = self.path(&format!("{name}.jsonl"));
                match name {
                    "problem" => halved::<Problem>(&jsonl, &path),
                    "program" => halved::<Program>(&jsonl, &path),
                    "group" => halved::<Group>(&jsonl, &path),
                    "packed" => halved::<Packed>(&jsonl, &path),
                    "prompt" => halved::<Prompt>(&jsonl, &path),
                    "rollout" => halved::<Rollout>(&jsonl, &path),
                    _ => halved::<Metric>(&jsonl, &path),
                }
                return Some((path, &["truncated", "damaged", "Parquet"]));
            }
            _ => return None,
        };
        fs::write(&path, text).unwrap();
        Some((path, says))
    }

    /// `{program}` becomes the good file of that type or `spoilt`; `{tokenizer}`, `{model}`, `{out}` are folders.
    pub fn arguments(&self, command: &[&str], spoilt: Option<(&str, &Path)>) -> Vec<String> {
        let fill = |argument: &&str| {
            let mut argument = (*argument).to_owned();
            if let Some((name, path)) = spoilt {
                argument = argument.replace(&format!("{{{name}}}"), path.to_str().unwrap());
            }
            for name in TYPES {
                argument = argument
                    .replace(&format!("{{{name}}}"), self.path(&format!("{name}.jsonl")).to_str().unwrap());
            }
            for folder in ["tokenizer", "model", "out"] {
                argument = argument.replace(&format!("{{{folder}}}"), self.path(folder).to_str().unwrap());
            }
            argument
        };
        command.iter().map(fill).collect()
    }

    /// An empty folder for outputs.
    pub fn fresh_out(&self) -> PathBuf {
        let out = self.path("out");
        let _ = fs::remove_dir_all(&out);
        fs::create_dir_all(&out).unwrap();
        out
    }

    /// Names in the folder for outputs, hidden ones included.
    pub fn left(&self) -> Vec<String> {
        let names = fs::read_dir(self.path("out")).unwrap().map(|e| e.unwrap().file_name());
        names.map(|n| n.to_string_lossy().into_owned()).collect()
    }
}

pub fn run(binary: &Path, arguments: &[String], stdout: Stdio) -> Outcome {
    let out = Command::new(binary)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .unwrap();
    Outcome {
        code: out.status.code(),
        stdout: out.stdout,
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}
