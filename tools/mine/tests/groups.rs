//! Candidates and groups: who is chosen, on what evidence, in what order.

mod tool;

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tool::{done, lines, mine, mine_with_input, text};

/// Programs of `problems` problems in Python, Ruby and Lua, four a language but Lua once in the first problem only.
fn programs(problems: usize) -> Vec<Value> {
    let mut all = Vec::new();
    for p in 0..problems {
        for (language, n) in [("python", 4), ("ruby", 4), ("lua", usize::from(p == 0))] {
            for i in 0..n {
                let verdict = json!({"status": if i == 3 { "WA" } else { "AC" }, "passed": if i == 3 { 1 } else { 5 }, "run": 5, "total": 5});
                all.push(json!({"schema": "program/1", "id": format!("{p}-{language}-{i}"), "problem": format!("p{p}"),
                    "language": language, "source": format!("{language} {i}\n"), "claim": if i == 2 { "wrong" } else { "accepted" },
                    "split": "sft", "verdict": verdict}));
            }
        }
    }
    all
}

fn write(path: &Path, records: &[Value]) {
    let text: String = records.iter().map(|r| format!("{r}\n")).collect();
    fs::write(path, text).unwrap();
}

fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().map(|r| r["id"].as_str().unwrap()).collect()
}

#[test]
fn candidates_are_capped_by_language_and_need_several_languages() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut all = programs(3);
    all.push(json!({"id": "lonely", "problem": "alone", "language": "python", "source": "x"}));
    all.push(json!({"id": "again", "problem": "p0", "language": "python", "source": "python 0  \r\n"}));
    write(&at("in.jsonl"), &all);
    let choose = |out: &str, more: &[&str]| {
        let path = at(out);
        let mut arguments = vec!["candidates", text(&dir.path().join("in.jsonl")).to_owned().leak(), "-o"];
        arguments.push(text(&path).to_owned().leak());
        arguments.extend(more);
        done(&arguments);
        lines(&path)
    };
    let every = choose("all.jsonl", &["--claims", "any", "--per-language", "9"]);
    assert_eq!(every.len(), 25, "{:?}", ids(&every));
    assert!(!ids(&every).contains(&"lonely") && !ids(&every).contains(&"again"));
    let accepted = choose("accepted.jsonl", &["--per-language", "9"]);
    assert_eq!(accepted.len(), 19);
    assert!(accepted.iter().all(|p| p["claim"] == "accepted"));

    let two = choose("two.jsonl", &["--per-language", "2", "--seed", "5"]);
    let one = choose("one.jsonl", &["--per-language", "1", "--seed", "5"]);
    let other = choose("other.jsonl", &["--per-language", "1", "--seed", "6"]);
    assert_eq!((one.len(), two.len()), (7, 13));
    let more: HashSet<_> = ids(&two).into_iter().collect();
    assert!(ids(&one).iter().all(|id| more.contains(id)), "asking for more keeps what was chosen");
    assert_ne!(ids(&one), ids(&other));

    let problem = choose("problem.jsonl", &["--max-problems", "1"]);
    assert_eq!(problem.iter().map(|p| &p["problem"]).collect::<HashSet<_>>().len(), 1);
    let three = choose("three.jsonl", &["--min-languages", "3"]);
    assert!(three.iter().all(|p| p["problem"] == "p0"));
    let ruby = choose("ruby.jsonl", &["--languages", "ruby", "--min-languages", "1"]);
    assert!(ruby.iter().all(|p| p["language"] == "ruby"));
}

#[test]
fn the_choice_depends_on_neither_threads_nor_the_order_of_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let mut all = programs(5);
    write(&at("in.jsonl"), &all);
    all.reverse();
    write(&at("reversed.jsonl"), &all);
    for (command, cap) in [("candidates", "2"), ("groups", "2")] {
        let run = |input: &str, threads: &str| {
            done(&[command, text(&at(input)), "--per-language", cap, "-j", threads]).stdout
        };
        let first = run("in.jsonl", "1");
        assert_eq!(first, run("in.jsonl", "4"), "{command}");
        let sorted = |text: &str| -> Vec<String> {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let reversed = run("reversed.jsonl", "1");
        assert_eq!(sorted(&first), sorted(&reversed), "{command}");
        if command == "groups" {
            assert_eq!(first, reversed);
        }
    }
}

#[test]
fn groups_hold_accepted_programs_with_their_evidence_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    write(&at("judged.jsonl"), &programs(2));
    write(
        &at("problems.jsonl"),
        &[
            json!({"id": "p1", "statement": "One.", "tests": []}),
            json!({"id": "p0", "statement": "Zero.", "tests": []}),
        ],
    );
    let (judged, problems, report) = (at("judged.jsonl"), at("problems.jsonl"), at("report.json"));
    let (judged, problems) = (text(&judged), text(&problems));
    done(&[
        "groups",
        judged,
        "--problems",
        problems,
        "-o",
        text(&at("g.parquet")),
        "--report",
        text(&report),
    ]);
    let jsonl = done(&["groups", judged, "--problems", problems]).stdout;
    let groups: Vec<Value> = jsonl.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(ids(&groups), ["p0", "p1"]);
    assert_eq!((&groups[0]["statement"], &groups[0]["split"]), (&json!("Zero."), &json!("sft")));
    let languages: Vec<_> = groups[0]["members"].as_array().unwrap().iter().map(|m| &m["language"]).collect();
    assert_eq!(json!(languages), json!(["lua", "python", "ruby"]));
    assert_eq!(groups[0]["members"][0]["evidence"], json!({"kind": "verdict", "status": "AC", "tests": 5}));
    assert!(!jsonl.contains("python-3"), "a wrong program is in no group");
    let counts: Value = serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
    assert_eq!(counts["groups_by_languages"], json!({"2": 1, "3": 1}));
    assert_eq!(counts["languages"]["ruby"]["verdicts"], json!({"AC": 6, "WA": 2}));
    assert_eq!(counts["languages"]["ruby"]["claims"]["wrong"], json!({"AC": 2}));

    let claimed = done(&["groups", judged, "--evidence", "claim", "--per-language", "9"]).stdout;
    let groups: Vec<Value> = claimed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let mut by_kind = BTreeMap::new();
    for member in groups.iter().flat_map(|g| g["members"].as_array().unwrap()) {
        *by_kind.entry(member["evidence"]["kind"].as_str().unwrap()).or_insert(0) += 1;
    }
    assert_eq!(by_kind, BTreeMap::from([("claim", 13)]));
}

#[test]
fn no_evidence_no_group() {
    let line = |verdict: &str| {
        let source = json!({"id": "a", "problem": "p", "language": "python", "source": "x"}).to_string();
        format!("{}{verdict}}}\n", source.trim_end_matches('}'))
    };
    let unjudged = mine_with_input(&["groups", "-"], &line(""));
    assert_eq!(unjudged.code, Some(3));
    assert!(unjudged.stderr.contains("stdin:1: program \"a\" has no verdict"), "{}", unjudged.stderr);
    // Accepted without any test is no evidence.
    let untested = mine_with_input(
        &["groups", "-", "--min-languages", "1"],
        &line(r#", "verdict": {"status": "AC", "passed": 0, "run": 0, "total": 0}"#),
    );
    assert_eq!(untested.code, Some(3), "{}", untested.stderr);
    assert!(untested.stdout.is_empty());
    let one = line(r#", "verdict": {"status": "AC", "passed": 1, "run": 1, "total": 1}"#);
    assert_eq!(mine_with_input(&["groups", "-", "--min-languages", "1"], &one).code, Some(0));
    assert_eq!(mine_with_input(&["groups", "-"], &one).code, Some(3));
}

#[test]
fn a_reader_that_stops_early_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in.jsonl");
    write(&input, &programs(400));
    let script = format!(
        "set -o pipefail; {} candidates -q {} | head -1 > /dev/null",
        env!("CARGO_BIN_EXE_cog-mine"),
        text(&input)
    );
    let status = std::process::Command::new("bash").args(["-c", &script]).status().unwrap();
    assert!(status.success());
    assert_eq!(mine(&["candidates"]).code, Some(2));
}
