//! Every program of testdata/hostile gets the verdict that its first line names, in both kinds of judge (root and
//! ordinary user), and nothing of it is left when the judge is done.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};

use common::{Case, JUDGE, can_judge, is_root, language_of, programs_in, records, sum_problem};
use serde_json::{Value, json};

fn hostile(case: &Case) -> Vec<Value> {
    let mut problem = sum_problem();
    problem["limits"] =
        json!({"cpu_ms": 800, "wall_ms": 2500, "memory_mb": 160, "output_kb": 1024, "file_mb": 16});
    case.lines("problems.jsonl", &[problem]);
    let files = programs_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/hostile"));
    assert!(files.len() > 20);
    files
        .iter()
        .map(|f| {
            let source = std::fs::read_to_string(f).unwrap();
            let want = source.split("verdict: ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
            let name = f.file_name().unwrap().to_string_lossy().into_owned();
            json!({"schema": "program/1", "id": name, "problem": "sum", "language": language_of(f), "source": source, "want": want})
        })
        .collect()
}

fn check(output: &[u8], count: usize) {
    let judged = records(output);
    assert_eq!(judged.len(), count);
    for record in judged {
        assert_eq!(record["verdict"]["status"], record["want"], "{}: {}", record["id"], record["verdict"]);
    }
}

/// Command lines of all processes of this machine.
fn running() -> String {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter_map(|e| std::fs::read(e.path().join("cmdline")).ok())
        .map(|c| String::from_utf8_lossy(&c).into_owned() + "\n")
        .collect()
}

#[test]
fn every_hostile_program_gets_its_verdict_and_leaves_nothing() {
    if !can_judge(&["python", "c", "ruby"]) {
        return;
    }
    let case = Case::new();
    let programs = hostile(&case);
    case.lines("programs.jsonl", &programs);
    let child = case.command(&["programs.jsonl", "--excerpts", "-j2"]).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    check(&output.stdout, programs.len());
    assert!(!running().contains("sleep\u{0}86399"), "a daemon lives on");
    let prefix = format!("cog-judge-{pid}-");
    for folder in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpuacct"] {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let left: Vec<_> =
            entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(&prefix)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn an_ordinary_user_gets_the_same_verdicts() {
    if !can_judge(&["python", "c", "ruby"]) {
        return;
    }
    if !is_root() {
        eprintln!("SKIPPED: not root, so the other test was the ordinary user's");
        return;
    }
    let case = Case::new();
    let programs = hostile(&case);
    case.lines("programs.jsonl", &programs);
    let copy = case.path("cog-judge");
    std::fs::copy(JUDGE, &copy).unwrap();
    for path in [case.dir.path(), &copy] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(&copy)
        .args(["--tests", "problems.jsonl", "programs.jsonl", "--excerpts", "-j2"])
        .current_dir(case.dir.path())
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else {
        eprintln!("SKIPPED: setpriv is not installed");
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("creating a user namespace") {
        eprintln!("SKIPPED: this machine denies user namespaces to ordinary users: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("no fork server"), "{said}");
    check(&output.stdout, programs.len());
}
