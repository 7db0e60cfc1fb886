//! What cog-check finds, beyond the damage that every tool must notice.

mod bench;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bench::{Bench, Outcome, good, lines, run};
use serde_json::{Value, json};

fn check(arguments: &[&str]) -> Outcome {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    run(Path::new(env!("CARGO_BIN_EXE_cog-check")), &arguments, Stdio::piped())
}

#[test]
fn faults_are_named_with_their_line() {
    let bench = Bench::new();
    type Spoil = fn(&mut Vec<Value>);
    let cases: &[(&str, Spoil, &str)] = &[
        ("program", |r| r[2]["id"] = r[0]["id"].clone(), ":3: p0-python is there twice"),
        (
            "program",
            |r| r[1]["split"] = json!("eval"),
            ":2: problem \"p0\" is in split \"eval\" and in \"sft\"",
        ),
        ("program", |r| r[0]["source"] = json!(" \n"), ":1: field source is empty"),
        (
            "program",
            |r| r[0]["problem"] = json!("elsewhere"),
            ":1: problem \"elsewhere\" is not in the problems file",
        ),
        ("program", |r| drop(r[3].as_object_mut().unwrap().remove("source")), ":4: missing field `source`"),
        (
            "problem",
            |r| {
                let test = |size: u64| json!({"input": "", "output": "", "size": size});
                r[1]["tests"] = json!([test(2), test(1)]);
            },
            ":2: tests are not ordered by size",
        ),
        ("group", |r| r[0]["members"].as_array_mut().unwrap().reverse(), ":1: members are not sorted"),
        (
            "group",
            |r| drop(r[2]["members"].as_array_mut().unwrap().pop()),
            ":3: all members are in one language",
        ),
        ("packed", |r| r[1]["weights"] = json!([0.0, 1.0]), ":2: 5 ids but 2 weights"),
        ("rollout", |r| r[0]["verdict"]["passed"] = json!(7), ":1: verdict: passed 7"),
    ];
    for (name, spoil, says) in cases {
        let path = bench.path("spoilt.jsonl");
        let mut records = good(name);
        spoil(&mut records);
        fs::write(&path, lines(&records)).unwrap();
        let problems = bench.path("problem.jsonl");
        let out = check(&["--problems", problems.to_str().unwrap(), path.to_str().unwrap()]);
        assert_eq!(out.code, Some(3), "{name} {says}");
        assert!(out.stderr.contains(&format!("spoilt.jsonl{says}")), "{name} {says}: {}", out.stderr);
    }
}

#[test]
fn counts_are_summed_up_and_faults_shown_up_to_the_bound() {
    let bench = Bench::new();
    let path = bench.path("many.jsonl");
    let mut records = good("program");
    records[0]["flavour"] = json!(1);
    let mut text = lines(&records);
    text += &"not json\n".repeat(50);
    fs::write(&path, text).unwrap();
    let out = check(&["--json", "--max-errors", "5", path.to_str().unwrap()]);
    assert_eq!(out.code, Some(3));
    assert_eq!(out.stderr.matches("not valid JSON").count(), 5);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["faults"], 50);
    assert_eq!(report["schemas"], json!({"program/1": 6}));
    assert_eq!(report["languages"], json!({"python": 3, "ruby": 3}));
    assert_eq!(report["verdicts"], json!({"AC": 6}));
    assert_eq!(report["unknown_fields"], json!({"flavour": 1}));
}

#[test]
fn mixed_streams_are_read_from_stdin_and_files_together_or_apart() {
    let bench = Bench::new();
    let mut records = good("rollout");
    records.push(json!({"schema": "step_end/1", "step": 1, "version": 0, "groups": 3, "rollouts": 3}));
    let path = bench.path("stream.jsonl");
    fs::write(&path, lines(&records)).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_cog-check"))
        .args(["--json", "-"])
        .stdin(fs::File::open(&path).unwrap())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(report["schemas"], json!({"rollout/1": 3, "step_end/1": 1}));

    let path = bench.path("program.jsonl");
    let path = path.to_str().unwrap();
    assert_eq!(check(&[path, path]).code, Some(0));
    assert_eq!(check(&["--together", path, path]).code, Some(3));
}

#[test]
fn a_record_without_schema_needs_its_type_named() {
    let bench = Bench::new();
    let path = bench.path("plain.jsonl");
    fs::write(&path, "{\"id\": \"a\", \"statement\": \"\"}\n").unwrap();
    let path = path.to_str().unwrap();
    let out = check(&[path]);
    assert!(out.code == Some(3) && out.stderr.contains("--schema"), "{}", out.stderr);
    assert_eq!(check(&["--schema", "problem/1", path]).code, Some(0));
    assert_eq!(check(&["--schema", "rollout/1", path]).code, Some(3));
    assert_eq!(check(&["--schema", "poem/1", path]).code, Some(3));
}

#[test]
fn a_line_without_end_is_a_truncation_even_where_the_record_is_whole() {
    let bench = Bench::new();
    let path = bench.path("cut.jsonl");
    fs::write(&path, lines(&good("metric")).trim_end()).unwrap();
    let out = check(&[path.to_str().unwrap()]);
    assert!(out.code == Some(3) && out.stderr.contains("cut.jsonl:3: truncated"), "{}", out.stderr);
}

#[test]
fn a_model_directory_is_held_to_its_configuration() {
    let bench = Bench::new();
    let model = bench.path("model");
    let out = check(&["--json", model.to_str().unwrap()]);
    assert_eq!(out.code, Some(0), "{}", out.stderr);
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert!(report["tensors"].as_u64().unwrap() >= 11, "{report}");
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    let mut wider: Value = serde_json::from_str(&config).unwrap();
    wider["intermediate_size"] = json!(24);
    fs::write(model.join("config.json"), wider.to_string()).unwrap();
    let out = check(&[model.to_str().unwrap()]);
    assert!(out.code == Some(3) && out.stderr.contains("has shape [16, 16]"), "{}", out.stderr);
    fs::remove_file(model.join("tokenizer.json")).unwrap();
    assert!(check(&[model.to_str().unwrap()]).stderr.contains("tokenizer.json"));
}
