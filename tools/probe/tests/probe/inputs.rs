//! Bad input: what is wrong and where, the exit code, and no half-written output.

use std::fs;

use crate::world::{World, command, identical, program, world, write_programs};

fn expect(w: &World, arguments: &[&str], code: i32, parts: &[&str]) {
    let (out, vectors) = (w.path("out.jsonl"), w.path("vectors.parquet"));
    let output = w.run(&[arguments, &["-o", &out, "--embeddings", &vectors]].concat());
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    for entry in fs::read_dir(w.dir.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(!name.contains("out.jsonl") && !name.contains("vectors"), "{name} is left");
    }
}

#[test]
fn programs() {
    let w = world(&identical(4));
    expect(&w, &["--languages", "python,lua"], 3, &["lua"]);
    expect(&w, &["--split", "dev"], 3, &["two languages"]);
    let whole = fs::read_to_string(&w.programs).unwrap();
    fs::write(&w.programs, &whole[..whole.len() - 30]).unwrap();
    expect(&w, &[], 3, &["programs.jsonl:12", "truncated"]);
    fs::write(&w.programs, "").unwrap();
    expect(&w, &[], 3, &["two languages"]);
    let kobol = ["python", "kobol"].map(|l| program(0, l, "x".into()));
    write_programs(&w.programs, &kobol);
    expect(&w, &[], 3, &["q0/kobol", "unknown language"]);
    let mut long = identical(2);
    long[0].source = "x".repeat(100);
    write_programs(&w.programs, &long);
    let kept = w.embeddings(&["--pooling", "mean", "--layers", "1"]);
    assert_eq!(kept.len(), 3, "the problem with the long program is left out in every language");
    long[3].source = "x".repeat(100);
    write_programs(&w.programs, &long);
    expect(&w, &[], 3, &["no problem's programs fit", "64 tokens"]);
}

#[test]
fn models() {
    let w = world(&identical(2));
    let weights = w.model.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    expect(&w, &[], 3, &["model.safetensors"]);
}

#[test]
fn command_lines() {
    let w = world(&identical(2));
    expect(&w, &["--layers", "3"], 2, &["0 to 2"]);
    expect(&w, &["--document", "statement"], 2, &["--problems"]);
    expect(&w, &["--pooling", "median"], 2, &["median"]);
    assert_eq!(command(&["--programs", "x"]).status.code(), Some(2));
}

#[test]
fn embeddings() {
    let w = world(&identical(4));
    let file = w.path("e.parquet");
    w.probe(&["--embeddings", &file]);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    let output = command(&["metrics", &file]);
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let file = w.path("e.jsonl");
    w.probe(&["--embeddings", &file]);
    let output = command(&["metrics", &file, &file]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("record 1: ") && message.contains("given twice"), "{message}");
    let text = fs::read_to_string(&file).unwrap().replacen("\"vector\":[", "\"vector\":[0.5,", 1);
    fs::write(&file, text).unwrap();
    let output = command(&["metrics", &file]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("among vectors of"), "{message}");
}
