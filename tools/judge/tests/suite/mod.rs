//! The table of hostile programs (testdata/hostile/suite.toml) and the problem that they are judged on.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

/// Limits of every run: small, since most of these programs go to one.
pub const CPU_MS: u64 = 800;
pub const WALL_MS: u64 = 2000;

const VERDICTS: [&str; 7] = ["AC", "WA", "RE", "TLE", "MLE", "OLE", "CE"];

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Wanted {
    One(String),
    Any(Vec<String>),
}

impl Wanted {
    pub fn holds(&self, status: &str) -> bool {
        match self {
            Self::One(wanted) => wanted == status,
            Self::Any(wanted) => wanted.iter().any(|w| w == status),
        }
    }
}

/// A table of suite.toml; its head comment explains the fields.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub verdict: Wanted,
    pub user: Option<Wanted>,
    pub process: Option<Wanted>,
    pub wasm: Option<Wanted>,
    pub oci: Option<Wanted>,
    #[serde(default)]
    pub stopped_by: Vec<String>,
    pub then: Option<String>,
    pub by_design: Option<String>,
    pub problem: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Hostile {
    pub name: String,
    pub language: &'static str,
    pub source: String,
    pub row: Row,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/hostile")
}

fn language_of(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("py") => "python",
        Some("rb") => "ruby",
        Some("php") => "php",
        Some("pl") => "perl",
        Some("lua") => "lua",
        Some("sh") => "bash",
        Some("c") => "c",
        Some("cpp") => "cpp",
        Some("go") => "go",
        Some("java") => "java",
        Some("js") => "javascript",
        _ => panic!("{name}: no language ends so"),
    }
}

/// Every program, in order of name. The table and the folder name the same ones.
pub fn suite() -> Vec<Hostile> {
    let text = std::fs::read_to_string(folder().join("suite.toml")).unwrap();
    let table: BTreeMap<String, Row> = toml::from_str(&text).unwrap();
    let names = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|n| n != "README.md" && n != "suite.toml").collect();
    names.sort();
    assert_eq!(names, table.keys().cloned().collect::<Vec<_>>(), "folder and suite.toml differ");
    let programs = table.into_iter().map(|(name, row)| {
        let known = |w: &Wanted| VERDICTS.iter().any(|v| w.holds(v));
        let others = [&row.user, &row.process, &row.wasm, &row.oci].into_iter().flatten();
        assert!(std::iter::once(&row.verdict).chain(others).all(known), "{name}: unknown verdict");
        assert_eq!(row.stopped_by.is_empty(), row.then.is_none(), "{name}: stopped_by goes with then");
        assert_ne!(row.stopped_by.is_empty(), row.by_design.is_none(), "{name}: stopped_by or by_design");
        let source = std::fs::read_to_string(folder().join(&name)).unwrap();
        Hostile { language: language_of(&name), name, source, row }
    });
    programs.collect()
}

/// The sum of two numbers; what comes after them is the port of a server on this machine's loopback address.
pub fn problems(port: u16, cpu_ms: u64, wall_ms: u64) -> Vec<Value> {
    let limits =
        json!({"cpu_ms": cpu_ms, "wall_ms": wall_ms, "memory_mb": 160, "output_kb": 1024, "file_mb": 16});
    let long = format!("1 2\n{}", "input that nobody reads\n".repeat(350_000));
    vec![
        json!({"schema": "problem/1", "id": "sum", "statement": "the sum of two numbers", "limits": limits, "tests": [
            {"input": format!("1 2\n{port}\n"), "output": "3\n"},
            {"input": format!("1000000000 9\n{port}\n"), "output": "1000000009\n"}]}),
        json!({"schema": "problem/1", "id": "long-input", "statement": "", "limits": limits, "tests": [
            {"input": "1 2\n", "output": "3\n"}, {"input": long, "output": "3\n"}]}),
    ]
}

pub fn record(program: &Hostile) -> Value {
    json!({"schema": "program/1", "id": program.name, "language": program.language, "source": program.source,
           "problem": program.row.problem.as_deref().unwrap_or("sum")})
}
