//! Records survive both formats, unknown fields included; damage is named with its place.

use std::fs;
use std::path::Path;

use cognate_records::{
    Checker, Error, Extra, Group, Lines, Metric, Packed, Problem, Program, Provenance, Reader, Record,
    Rollout, Test, Verdict, Writer, WriterOptions,
};
use proptest::prelude::*;
use serde_json::json;

fn write<T: Record>(path: &Path, records: &[T]) {
    let mut w = Writer::create(path, WriterOptions::default()).unwrap();
    for r in records {
        w.write(r).unwrap();
    }
    w.finish().unwrap();
}

fn read<T: Record>(path: &Path) -> Result<Vec<T>, Error> {
    Reader::open(path)?.collect()
}

fn problem() -> Problem {
    serde_json::from_value(json!({
        "id": "p1", "statement": "add \u{1b}[31m <|end|>\n\"two\" numbers", "split": "rl",
        "limits": {"cpu_ms": 1000}, "checker": {"kind": "float", "absolute": 1e-6, "relative": 0.0},
        "tests": [
            {"kind": "stdio", "input": "1 2\n", "output": "3\n", "visibility": "public", "size": 2},
            {"kind": "assert", "code": "assert f(1) == 2", "language": "python", "visibility": "hidden"}
        ],
        "tags": ["a", "b"], "rating": 1200, "nested": {"deep": [1, null, {"x": "y"}]}
    }))
    .unwrap()
}

fn rollout() -> Rollout {
    serde_json::from_value(json!({
        "prompt": "p1/python", "index": 3, "text": "print(1)", "ids": [1, 2], "logprobs": [-0.1, -2.5],
        "sampling_logprobs": [-0.1, -2.5], "versions": [4, 4], "finish": "stop",
        "parameters": {"temperature": 1.0, "max_tokens": 9, "seed": 7},
        "verdict": {"status": "WA", "reward": 0.0, "passed": 1, "run": 2, "total": 5,
                    "tests": [{"status": "AC", "exit": 0}, {"status": "WA", "exit": 0}],
                    "measured": {"cpu_ms": 1.5, "wall_ms": 2.0, "memory_kb": 800, "tests": [[1.0, 1.5, 800.0]]}},
        "mine": [1, 2]
    }))
    .unwrap()
}

fn metric() -> Metric {
    serde_json::from_value(
        json!({"name": "loss", "value": 0.25, "labels": {"arm": "parallel", "seed": "0"}, "step": 9}),
    )
    .unwrap()
}

fn both_formats<T: Record + PartialEq + std::fmt::Debug>(records: &[T]) {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.jsonl", "x.parquet"] {
        let path = dir.path().join(name);
        write(&path, records);
        assert_eq!(read::<T>(&path).unwrap(), records, "{name}");
    }
}

#[test]
fn nested_records_survive_both_formats_with_unknown_fields() {
    both_formats(&[problem()]);
    both_formats(&[rollout()]);
    both_formats(&[metric()]);
    both_formats(&[Program {
        id: "a".into(),
        problem: "p".into(),
        language: "c".into(),
        ..Program::default()
    }]);
    both_formats(&[Packed {
        id: "s".into(),
        ids: vec![1, 2, 3],
        weights: vec![0.0, 1.0, 0.0],
        starts: vec![0, 2],
        documents: vec!["d1".into(), "d2".into()],
        extra: Extra::new(),
    }]);
}

#[test]
fn many_rows_cross_batch_boundaries() {
    let rows: Vec<Problem> = (0..700).map(|i| Problem { id: format!("p{i}"), ..problem() }).collect();
    both_formats(&rows);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_text_survives(source in any::<String>(), id in "[a-z0-9/]{1,20}", key in "[a-z_]{1,8}x", value in any::<i64>()) {
        let mut p = Program { id, problem: "p".into(), language: "lua".into(), source, ..Program::default() };
        p.extra.insert(key, json!(value));
        both_formats(&[p]);
    }
}

proptest! {
    #[test]
    fn numbers_come_back_to_the_last_bit(value in any::<f64>().prop_filter("JSON", |x| x.is_finite()), n in any::<u64>()) {
        let metric = Metric {
            name: "m".into(),
            value,
            extra: json!({"x": value, "n": n}).as_object().unwrap().clone(),
            ..Metric::default()
        };
        both_formats(&[metric]);
    }
}

#[test]
fn a_damaged_footer_is_an_error_and_no_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write(&path, &[metric()]);
    let whole = fs::read(&path).unwrap();
    let mut refused = 0;
    // The footer is nearly all of so small a file.
    for at in 0..whole.len() {
        for bit in [0, 6, 7] {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << bit;
            fs::write(&path, damaged).unwrap();
            match std::panic::catch_unwind(|| read::<Metric>(&path)) {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => {
                    refused += 1;
                    assert!(error.is_data(), "byte {at}, bit {bit}: {error}");
                }
                Err(_) => panic!("byte {at}, bit {bit}: a panic"),
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

fn refused<T: Record + std::fmt::Debug>(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.jsonl");
    fs::write(&path, text).unwrap();
    let error = read::<T>(&path).unwrap_err();
    assert!(error.is_data());
    error.to_string().replace(&format!("{}/", dir.path().display()), "")
}

#[test]
fn bad_lines_are_named_with_place_and_cause() {
    let good =
        "{\"schema\":\"program/1\",\"id\":\"a\",\"problem\":\"p\",\"language\":\"c\",\"source\":\"\"}\n";
    let cases = [
        (format!("{good}{}", &good[..40]), "in.jsonl:2: truncated record"),
        (good.replace("program/1", "program/2"), "in.jsonl:1: schema \"program/2\" is not supported"),
        (good.replace("program/1", "rollout/1"), "in.jsonl:1: expected a \"program/1\" record"),
        (good.replace("\"id\":\"a\",", ""), "in.jsonl:1: missing field `id`"),
        (good.replace("\"p\"", "7"), "in.jsonl:1: invalid type: integer `7`"),
        (good.replace("\"c\"", "\"\""), "in.jsonl:1: field language is empty"),
        (format!("{good}nonsense\n"), "in.jsonl:2: not valid JSON"),
    ];
    for (text, expected) in cases {
        let message = refused::<Program>(&text);
        assert!(message.starts_with(expected), "{message} should start with {expected}");
    }
    let message = refused::<Problem>("{\"id\":\"p\",\"statement\":\"\",\"tests\":[{\"input\":\"1\"}]}\n");
    assert_eq!(message, "in.jsonl:1: test 0: field output is missing");
}

#[test]
fn a_bad_line_does_not_end_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("in.jsonl");
    fs::write(&path, "{\"id\":\"a\"}\n\n{\"name\":\"loss\",\"value\":1}\n").unwrap();
    let results: Vec<_> = Reader::<Metric>::open(&path).unwrap().collect();
    assert_eq!(results.len(), 2);
    assert!(results[0].is_err());
    assert_eq!(results[1].as_ref().unwrap().value, 1.0);
}

#[test]
fn half_a_parquet_file_and_a_foreign_schema_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("g.parquet");
    write(&path, &[problem()]);
    assert!(read::<Group>(&path).unwrap_err().to_string().contains("expected a \"group/1\" record"));
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = read::<Problem>(&path).unwrap_err();
    assert!(error.is_data() && error.to_string().contains("truncated or damaged Parquet"), "{error}");
}

#[test]
fn an_unfinished_writer_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["x.jsonl", "x.parquet"] {
        let mut w = Writer::create(&dir.path().join(name), WriterOptions::default()).unwrap();
        w.write(&problem()).unwrap();
        drop(w);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn provenance_chains_through_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second, third) =
        (dir.path().join("a.jsonl"), dir.path().join("b.parquet"), dir.path().join("c.jsonl"));
    let save = |path: &Path, p: Provenance| {
        let mut w =
            Writer::create(path, WriterOptions { provenance: Some(p), ..WriterOptions::default() }).unwrap();
        w.write(&metric()).unwrap();
        w.finish().unwrap();
    };
    save(&first, Provenance::step("one", "1", vec![], Some(3)));
    save(&second, Provenance::step("two", "1", vec!["--x".into()], None).input(&first).unwrap());
    save(&third, Provenance::step("three", "1", vec![], None).input(&first).unwrap().input(&second).unwrap());
    let p = Reader::<Metric>::open(&third).unwrap().provenance().unwrap().clone();
    let tools: Vec<_> = p.steps.iter().map(|s| s.tool.as_str()).collect();
    assert_eq!(tools, ["one", "two", "three"]);
    assert_eq!(p.steps[2].inputs.iter().map(|i| i.from).collect::<Vec<_>>(), [Some(0), Some(1)]);

    // A file written anew without a history must not stand beside the old one's.
    let mut w = Writer::create(&third, WriterOptions::default()).unwrap();
    w.write(&metric()).unwrap();
    w.finish().unwrap();
    assert!(Reader::<Metric>::open(&third).unwrap().provenance().is_none());
}

#[test]
fn mixed_lines_are_told_apart() {
    let text = "{\"schema\":\"rollout/1\",\"prompt\":\"a\",\"index\":0,\"text\":\"\"}\n{\"schema\":\"step_end/1\",\"step\":1,\"version\":0,\"groups\":1,\"rollouts\":1}\n";
    let lines: Vec<_> = Lines::new("pipe", std::io::Cursor::new(text)).collect::<Result<_, _>>().unwrap();
    assert_eq!(lines[0].schema(), Some("rollout/1"));
    assert_eq!(lines[0].decode::<Rollout>().unwrap().prompt, "a");
    assert!(lines[1].decode::<Rollout>().unwrap_err().to_string().starts_with("pipe:2: expected"));
}

#[test]
fn checkers_and_tests_read_as_their_spec_says() {
    let t: Test =
        serde_json::from_value(json!({"output": "1", "checker": {"kind": "unordered_lines"}})).unwrap();
    assert_eq!(t.checker, Some(Checker::UnorderedLines));
    let bad = json!({"status": "XX", "passed": 0, "run": 0, "total": 0});
    assert!(serde_json::from_value::<Verdict>(bad).is_err());
}
