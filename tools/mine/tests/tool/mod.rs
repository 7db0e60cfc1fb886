//! Runs cog-mine and looks at what it wrote.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

pub fn mine(arguments: &[&str]) -> Outcome {
    mine_with_input(arguments, "")
}

pub fn mine_with_input(arguments: &[&str], input: &str) -> Outcome {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_cog-mine"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A tool that refuses its arguments closes its input before it has read it.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let out = child.wait_with_output().unwrap();
    Outcome {
        code: out.status.code(),
        stdout: String::from_utf8(out.stdout).unwrap(),
        stderr: String::from_utf8(out.stderr).unwrap(),
    }
}

pub fn done(arguments: &[&str]) -> Outcome {
    let out = mine(arguments);
    assert_eq!(out.code, Some(0), "{arguments:?}: {}", out.stderr);
    out
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// The reference data, or `None` with a loud word.
pub fn reference(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("COGNATE_REFERENCE")
        .map_or_else(|| workspace().join("../shared/data"), PathBuf::from);
    let path = root.join(name);
    if !path.exists() {
        eprintln!("SKIPPED: no reference data at {}; set COGNATE_REFERENCE", path.display());
        return None;
    }
    Some(path)
}
