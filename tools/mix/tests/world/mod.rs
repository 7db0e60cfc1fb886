//! A small world made by hand: problems with statements of several clauses, and programs of varied lengths in six
//! languages. Nothing runs these programs.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cognate_records::{Packed, Reader};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const LANGUAGES: [&str; 6] = ["python", "javascript", "perl", "lua", "ruby", "php"];

pub struct World {
    pub directory: TempDir,
    /// Program id to (problem, language, source, accepted).
    pub programs: BTreeMap<String, (String, String, String, bool)>,
    pub statements: BTreeMap<String, String>,
}

fn split_of(n: usize) -> &'static str {
    ["base", "sft", "sft", "base", "sft", "rl", "sft", "dev", "sft", "eval"][n % 10]
}

fn source(language: &str, n: usize, variant: usize) -> String {
    let terms: Vec<String> =
        (0..1 + (n * 7 + variant * 3) % 9).map(|t| (n * 13 + t * 5).to_string()).collect();
    let sum = terms.join(" + ");
    match language {
        "python" => format!("value_{variant} = {sum}\nprint(value_{variant})\n"),
        "javascript" => format!("const value{variant} = {sum};\nconsole.log(value{variant});\n"),
        "perl" => format!("my $value{variant} = {sum};\nprint \"$value{variant}\\n\";\n"),
        "lua" => format!("local value{variant} = {sum}\nprint(value{variant})\n"),
        "ruby" => format!("value{variant} = {sum}\nputs value{variant}\n"),
        _ => format!("<?php\n$value{variant} = {sum};\necho $value{variant}, \"\\n\";\n"),
    }
}

impl World {
    /// `problems` problems; each has two accepted programs and a wrong one in each language.
    pub fn new(problems: usize) -> Self {
        let mut world = Self {
            directory: tempfile::tempdir().unwrap(),
            programs: BTreeMap::new(),
            statements: BTreeMap::new(),
        };
        let (mut problem_lines, mut program_lines, mut group_lines) =
            (String::new(), String::new(), String::new());
        for n in 0..problems {
            let id = format!("p{n:04}");
            let split = split_of(n);
            let statement = format!(
                "you are given nothing. add number {n} and {} others. print <|end|> the sum of <code>.",
                n % 9
            );
            let problem =
                json!({"schema": "problem/1", "id": id, "statement": statement, "split": split, "tests": []});
            let _ = writeln!(problem_lines, "{problem}");
            world.statements.insert(id.clone(), statement);
            let mut members = Vec::new();
            for language in LANGUAGES {
                for variant in 0..3 {
                    let accepted = variant < 2;
                    let program = format!("{id}/{language}/{variant}");
                    let text = source(language, n, variant);
                    let claim = if accepted { "accepted" } else { "wrong" };
                    let record = json!({"schema": "program/1", "id": program, "problem": id, "language": language,
                        "source": text, "claim": claim, "split": split});
                    let _ = writeln!(program_lines, "{record}");
                    if accepted {
                        members.push(json!({"id": program, "language": language, "source": text,
                            "evidence": {"kind": "verdict", "status": "AC", "tests": 3}}));
                    }
                    world.programs.insert(program, (id.clone(), language.into(), text, accepted));
                }
            }
            members.sort_by_key(|m| (m["language"].to_string(), m["id"].to_string()));
            let group = json!({"schema": "group/1", "id": format!("g/{id}"), "problem": id, "split": split, "members": members});
            let _ = writeln!(group_lines, "{group}");
        }
        for (name, lines) in [
            ("problems.jsonl", problem_lines),
            ("programs.jsonl", program_lines),
            ("groups.jsonl", group_lines),
        ] {
            std::fs::write(world.path(name), lines).unwrap();
        }
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs the tool inside the world's directory.
    pub fn run(&self, arguments: &str) -> Output {
        Command::new(env!("CARGO_BIN_EXE_cog-mix"))
            .args(arguments.split_whitespace())
            .current_dir(self.directory.path())
            .output()
            .unwrap()
    }

    /// Runs the tool, which must succeed; returns its stdout.
    pub fn must(&self, arguments: &str) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the tool, which must end with `code`; returns its stderr.
    pub fn fails(&self, arguments: &str, code: i32) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments}: {stderr}");
        stderr
    }

    pub fn with_tokenizer(self) -> Self {
        self.must("tokenizer programs.jsonl --problems problems.jsonl --vocab 600 -o tokenizer");
        self
    }

    pub fn packed(&self, name: &str) -> Vec<Packed> {
        Reader::open(&self.path(name)).unwrap().collect::<Result<_, _>>().unwrap()
    }

    pub fn manifest(&self, out: &str) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.path(out).join("manifest.json")).unwrap()).unwrap()
    }

    pub fn chat(&self) -> cognate_chat::Chat {
        cognate_chat::Chat::open(&self.path("tokenizer")).unwrap()
    }
}

/// One document of a packed sequence.
pub struct Unpacked {
    pub id: String,
    pub ids: Vec<u32>,
    pub weights: Vec<f32>,
}

pub fn unpack(sequences: &[Packed]) -> Vec<Unpacked> {
    let mut all = Vec::new();
    for record in sequences {
        for (n, &start) in record.starts.iter().enumerate() {
            let end = record.starts.get(n + 1).map_or(record.ids.len(), |&e| e as usize);
            all.push(Unpacked {
                id: record.documents[n].clone(),
                ids: record.ids[start as usize..end].to_vec(),
                weights: record.weights[start as usize..end].to_vec(),
            });
        }
    }
    all
}

/// Every file below, by name, with its bytes.
pub fn bytes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    if path.is_file() {
        found.insert(String::new(), std::fs::read(path).unwrap());
        return found;
    }
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        found.insert(path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap());
    }
    found
}
