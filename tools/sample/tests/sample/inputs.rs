//! Bad input: what is wrong and where, exit code 3, and no half-written output.

use std::fs;

use crate::world::{World, world, write_prompts};

/// Exit code and message of a run that must fail, and leave nothing.
fn failure(w: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let out = w.dir.path().join("out.jsonl");
    let output = w.run(&[arguments, &["-o", out.to_str().unwrap()]].concat());
    let left: Vec<_> = fs::read_dir(w.dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("out.jsonl"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(output.stdout.is_empty());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

fn expect(w: &World, arguments: &[&str], code: i32, parts: &[&str]) {
    let (found, message) = failure(w, arguments);
    assert_eq!(found, Some(code), "{message}");
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn prompts() {
    let w = world(3);
    let whole = fs::read_to_string(&w.file).unwrap();
    fs::write(&w.file, &whole[..whole.len() - 40]).unwrap();
    expect(&w, &[], 3, &["prompts.jsonl:3", "truncated"]);
    fs::write(&w.file, whole.replacen("{", "{\"schema\":\"prompt/9\",", 1)).unwrap();
    expect(&w, &[], 3, &["prompts.jsonl:1", "prompt/9"]);
    fs::write(&w.file, "").unwrap();
    expect(&w, &[], 3, &["no prompts"]);
    let mut prompts = w.prompts.clone();
    prompts[1].ids = vec![5; crate::world::CONTEXT];
    write_prompts(&w.file, &prompts);
    expect(&w, &[], 3, &["\"p1\"", "context"]);
    prompts[1].ids = vec![crate::world::VOCABULARY as u32];
    write_prompts(&w.file, &prompts);
    expect(&w, &[], 3, &["\"p1\"", "vocabulary"]);
    prompts[1] = prompts[0].clone();
    write_prompts(&w.file, &prompts);
    expect(&w, &[], 3, &["\"p0\"", "before"]);
    prompts[1] = cognate_records::Prompt {
        id: "bare".into(),
        problem: "q".into(),
        language: "python".into(),
        ..Default::default()
    };
    write_prompts(&w.file, &prompts);
    expect(&w, &[], 3, &["\"bare\"", "neither"]);
    let kept = w.rollouts(&["--keep-going", "--max-tokens", "4"]);
    assert_eq!(kept.iter().map(|r| r.prompt.as_str()).collect::<Vec<_>>(), ["p0", "p2"]);
}

#[test]
fn models() {
    let w = world(1);
    let weights = w.model.join("model.safetensors");
    let bytes = fs::read(&weights).unwrap();
    let name = b"model.norm.weight";
    let at = bytes.windows(name.len()).position(|s| s == name).unwrap();
    let mut renamed = bytes.clone();
    renamed[at..at + name.len()].copy_from_slice(b"model.nurm.weight");
    fs::write(&weights, renamed).unwrap();
    expect(&w, &[], 3, &["model.safetensors", "model.n"]);
    fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    expect(&w, &[], 3, &["model.safetensors"]);
    fs::write(&weights, &bytes).unwrap();
    fs::remove_file(w.model.join("tokenizer.json")).unwrap();
    let (code, message) = failure(&w, &[]);
    assert_ne!(code, Some(0));
    assert!(message.contains("tokenizer.json"), "{message}");
}

#[test]
fn command_lines() {
    let w = world(1);
    for arguments in [
        &["--temperature", "-1"][..],
        &["--temperature", "nan"],
        &["--top-p", "0"],
        &["-s", "0"],
        &["--steps", "3"],
        &["--follow", "x", "--steps", "3"],
    ] {
        let (code, message) = failure(&w, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {message}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let w = world(2);
    let mut child = crate::world::command()
        .arg("--model")
        .arg(&w.model)
        .arg("--prompts")
        .arg(&w.file)
        .args(["-s", "500", "--max-tokens", "40"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_output_file_has_the_bytes_of_standard_output() {
    let w = world(3);
    let out = w.dir.path().join("out.jsonl");
    let text = w.sample(&["-s", "2", "--max-tokens", "6", "--label", "base"]);
    let output = w.run(&["-s", "2", "--max-tokens", "6", "--label", "base", "-o", out.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(fs::read_to_string(out).unwrap(), text);
    assert!(crate::world::decode(&text).iter().all(|r| r.model.as_deref() == Some("base")));
}

#[test]
fn a_device_that_is_not_there() {
    // A number that no machine has.
    let w = world(1);
    expect(&w, &["--device", "cuda:4095"], 3, &["CUDA"]);
    expect(&w, &["--device", "tpu"], 2, &["auto, cpu, cuda or cuda:N"]);
}
