//! Every program of testdata/hostile whose language has a route through WebAssembly here gets the verdict that suite.toml
//! names for it there, whoever runs beside it; nothing makes the judge fail, hang or grow.

mod common;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Command;

use common::{Case, JUDGE, records};
use serde_json::Value;
use suite::{CPU_MS, Hostile, WALL_MS, problems, record, suite};

/// Programs in languages with a guest or a compiler here; the others are named.
fn programs() -> Vec<Hostile> {
    let output = Command::new(JUDGE).args(["languages", "--json"]).output().unwrap();
    let table: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let mut programs = suite();
    let languages: BTreeSet<&str> = programs.iter().map(|p| p.language).collect();
    for language in languages {
        let row = table.iter().find(|l| l["name"] == language).unwrap();
        let missing = row["wasm_missing"].as_str().unwrap_or_default();
        if row["wasm"] == true {
            continue;
        }
        let count = programs.iter().filter(|p| p.language == language).count();
        programs.retain(|p| p.language != language);
        if !missing.contains("no WebAssembly route") {
            eprintln!("SKIPPED: {count} hostile programs in {language}: {missing}");
        }
    }
    // gcc gives up on it at once; clang takes all the time that a compiler may.
    if std::env::var_os("COGNATE_LONG_TESTS").is_none() {
        programs.retain(|p| p.name != "constant_bomb.c");
        eprintln!("SKIPPED: constant_bomb.c, a minute of clang; COGNATE_LONG_TESTS=1 judges it");
    }
    programs
}

/// A case with the suite's problems, and a server that none may reach.
fn case(cpu_ms: u64, wall_ms: u64) -> (Case, TcpListener) {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let case = Case::new();
    case.lines("problems.jsonl", &problems(server.local_addr().unwrap().port(), cpu_ms, wall_ms));
    (case, server)
}

fn wanted(program: &Hostile) -> &suite::Wanted {
    program.row.wasm.as_ref().unwrap_or(&program.row.verdict)
}

fn judge(case: &Case, lines: &[Value], more: &[&str]) -> Vec<Value> {
    case.lines("programs.jsonl", lines);
    let output = case
        .command(&["programs.jsonl", "--sandbox", "wasm", "--excerpts"])
        .args(more)
        .env("COGNATE_SECRET", "COGNATE_SECRET")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("judged again"), "a program made the sandbox fail: {said}");
    records(&output.stdout)
}

#[test]
fn every_hostile_program_gets_its_verdict_in_webassembly() {
    let programs = programs();
    if programs.is_empty() {
        eprintln!("SKIPPED: no language of the suite has a route through WebAssembly here");
        return;
    }
    let (case, _server) = case(CPU_MS, WALL_MS);
    let judged = judge(&case, &programs.iter().map(record).collect::<Vec<_>>(), &["--first-failure", "-j2"]);
    assert_eq!(judged.len(), programs.len());
    let wrong: Vec<String> = programs
        .iter()
        .zip(&judged)
        .filter(|(p, r)| !wanted(p).holds(r["verdict"]["status"].as_str().unwrap()))
        .map(|(p, r)| format!("{}: wanted {:?}: {}", p.name, wanted(p), r["verdict"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Programs whose run is short, whatever their verdict: a run is a function of program and input, so that these are
/// equal to the last byte of stdout, in any order and number of workers.
#[test]
fn no_run_depends_on_its_neighbours_or_predecessors() {
    let (case, _server) = case(CPU_MS, WALL_MS);
    let mut lines: Vec<Value> = programs()
        .iter()
        .filter(|p| p.language == "lua" || (p.language == "c" && wanted(p).holds("AC")))
        .map(record)
        .collect();
    let by_id = |records: Vec<Value>| -> BTreeMap<String, Value> {
        records.into_iter().map(|r| (r["id"].as_str().unwrap().to_owned(), r["verdict"].clone())).collect()
    };
    if lines.is_empty() {
        eprintln!("SKIPPED: neither Lua nor C in WebAssembly here");
        return;
    }
    let first = by_id(judge(&case, &lines, &["-j1"]));
    lines.reverse();
    assert_eq!(first, by_id(judge(&case, &lines, &["-j4"])));
}

/// Number of a line of /proc/PID/status, in KiB.
fn kilobytes(pid: u32, kind: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(kind)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Descriptors and mappings of a process.
fn held(pid: u32) -> (usize, usize) {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines().count();
    (descriptors, maps)
}

/// Floods, deep recursion, memory to the limit and modules that come and go: what they take is given back.
#[test]
fn the_judge_stays_as_large_as_it_was() {
    use std::io::{Read, Write};
    let (case, _server) = case(100, WALL_MS);
    let mut programs = programs();
    programs.retain(|p| {
        let brief = ["MLE", "OLE", "RE"].iter().any(|v| wanted(p).holds(v));
        p.language == "lua" || (p.language == "c" && brief)
    });
    if programs.is_empty() {
        eprintln!("SKIPPED: neither Lua nor C in WebAssembly here");
        return;
    }
    let mut child = case
        .command(&["-", "--sandbox", "wasm", "--no-result-cache", "--excerpts", "-j2", "-q"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let lines: String = programs.iter().map(|p| format!("{}\n", record(p))).collect();
    let mut round = move || {
        input.write_all(lines.as_bytes()).unwrap();
        let (mut seen, mut bytes) = (0, [0; 4096]);
        while seen < programs.len() {
            let n = output.read(&mut bytes).unwrap();
            assert!(n > 0, "the judge ended early");
            seen += bytes[..n].iter().filter(|&&b| b == b'\n').count();
        }
        (kilobytes(pid, "VmRSS:"), held(pid))
    };
    round();
    let (warm, (descriptors, maps)) = round();
    round();
    let last = round();
    drop(round);
    assert!(child.wait().unwrap().success());
    let (late, (open, mapped)) = last;
    // Two workers' places, used and free, are four, and each keeps up to 8 MiB of what a flood touched there.
    assert!(warm > 0 && late < warm + 32 * 1024, "resident memory grew from {warm} to {late} KiB");
    assert!(open <= descriptors + 8, "descriptors grew from {descriptors} to {open}");
    assert!(mapped <= maps + 64, "mappings grew from {maps} to {mapped}");
}
