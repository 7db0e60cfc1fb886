//! Each protection is needed: a judge without it (in a process namespace that is thrown away, where that is it) lets
//! succeed the hostile programs that suite.toml says it stops. Where several would each do alone, none of them has to.
//!
//! This test is that judge, too: no binary that is installed can be made to leave out anything.

mod common;
mod suite;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Command, ExitCode};

use common::{Case, can_judge, is_root, records};
use serde_json::{Value, json};
use suite::{CPU_MS, Hostile, WALL_MS, problems, record, suite};

/// Tells this program to be a judge, and without what.
const WITHOUT: &str = "COGNATE_TEST_WITHOUT";
/// The first process of the throw-away namespace; afterwards it looks for the daemon that `daemon.py` starts.
const THROW_AWAY: &str =
    "\"$@\"; code=$?; grep -qs '8639[9]' /proc/[0-9]*/cmdline && echo 'a daemon is left' >&2; exit $code";

fn main() -> ExitCode {
    if std::env::args_os().next().is_some_and(|name| name == "cog-judge-launcher") {
        return cog_judge::main(cog_judge::Protections::ALL); // the judge tells its launcher what to leave out
    }
    if let Ok(names) = std::env::var(WITHOUT) {
        let names = names.split(',').filter(|n| !n.is_empty());
        let protections = names.map(|n| serde_json::from_value(json!(n)).expect("the name of a protection"));
        return cog_judge::main(
            protections.fold(cog_judge::Protections::ALL, cog_judge::Protections::without),
        );
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        println!("every_protection_is_needed: test");
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    if !filters.is_empty() && !filters.iter().any(|f| "every_protection_is_needed".contains(f.as_str())) {
        return ExitCode::SUCCESS;
    }
    every_protection_is_needed();
    println!("every_protection_is_needed: ok");
    ExitCode::SUCCESS
}

/// A program and what it must get.
type Wanted<'a> = (&'a Hostile, &'a str);

fn every_protection_is_needed() {
    if !is_root() {
        eprintln!("SKIPPED: not root; the protections of an ordinary user cannot be taken away one by one");
        return;
    }
    if Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .status()
        .is_ok_and(|s| !s.success())
    {
        eprintln!("SKIPPED: unshare cannot make a process namespace here");
        return;
    }
    let mut programs = suite();
    let mut usable: BTreeMap<&str, bool> = BTreeMap::new();
    programs.retain(|p| *usable.entry(p.language).or_insert_with(|| can_judge(&[p.language])));

    // By the set of protections that are gone; a judge that is killed judges nothing else.
    let mut sets: BTreeMap<(BTreeSet<&str>, usize), Vec<Wanted>> = BTreeMap::new();
    for (at, program) in programs.iter().enumerate() {
        let Some(then) = program.row.then.as_deref() else { continue };
        let gone: BTreeSet<&str> = program.row.stopped_by.iter().map(String::as_str).collect();
        let own = if ["dead", "left"].contains(&then) { at + 1 } else { 0 };
        sets.entry((gone.clone(), own)).or_default().push((program, then));
        let suite::Wanted::One(verdict) = &program.row.verdict else { continue };
        // Defence in depth: with one of several gone the others still stop it. Not for limits, where it takes long.
        for one in gone.iter().filter(|_| gone.len() > 1 && verdict != "TLE" && verdict != "OLE") {
            sets.entry((BTreeSet::from([*one]), 0)).or_default().push((program, verdict));
        }
    }
    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    for ((gone, _), wanted) in &sets {
        let gone: Vec<&str> = gone.iter().copied().collect();
        wrong.extend(run(&gone.join(","), wanted));
        shown.extend(gone);
    }
    // The negative control: with every protection in force none of it happens.
    let everything: Vec<Wanted> = sets
        .iter()
        .filter(|((gone, _), _)| !gone.contains("cpu-limit") && !gone.contains("wall-limit"))
        .flat_map(|(_, wanted)| wanted)
        .filter_map(|(program, _)| match &program.row.verdict {
            suite::Wanted::One(verdict) => Some((*program, verdict.as_str())),
            suite::Wanted::Any(_) => None,
        })
        .collect();
    wrong.extend(run("", &everything));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("shown to be needed: {}", shown.into_iter().collect::<Vec<_>>().join(", "));
}

/// What was not as it should be, when a judge without `gone` judged these programs.
fn run(gone: &str, wanted: &[Wanted]) -> Vec<String> {
    let case = Case::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    // Where time is not what is shown, a slow or busy machine gets more of it.
    let times = if gone.contains("cpu-limit") || gone.contains("wall-limit") { 1 } else { 4 };
    let port = server.local_addr().unwrap().port();
    case.lines("problems.jsonl", &problems(port, CPU_MS * times, WALL_MS * times));
    case.lines("programs.jsonl", &wanted.iter().map(|(program, _)| record(program)).collect::<Vec<_>>());
    // Only without namespaces of processes can anything reach beyond the judge's own.
    let mut command = match gone.contains("processes") {
        true => {
            let mut command = Command::new("unshare");
            command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", THROW_AWAY, "sh"]);
            command.arg(std::env::current_exe().unwrap());
            command
        }
        false => Command::new(std::env::current_exe().unwrap()),
    };
    let output = command
        .args(["--tests", "problems.jsonl", "programs.jsonl", "-q", "-j2", "--sandbox", "container"])
        .args(["--no-fork-server", "--no-result-cache", "--first-failure", "--measured"])
        .current_dir(case.dir.path())
        .env(WITHOUT, gone)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let verdicts = records(&output.stdout);
    let of =
        |program: &Hostile| verdicts.iter().find(|r| r["id"] == program.name.as_str()).map(|r| &r["verdict"]);
    let holds = |program: &Hostile, then: &str| match (then, of(program)) {
        // Killed with everybody else: no word from it.
        ("dead", verdict) => verdict.is_none() && !output.status.success(),
        ("left", _) => said.contains("a daemon is left"),
        // It ended only because the limits of such a judge are three times as high, not at infinity.
        ("late", Some(verdict)) => verdict["status"] == "TLE" && late(verdict),
        (then, Some(verdict)) => verdict["status"] == then,
        (_, None) => false,
    };
    wanted
        .iter()
        .filter(|(program, then)| !holds(program, then))
        .map(|(program, then)| {
            format!("{} without {gone:?}: wanted {then}, got {:?} {said}", program.name, of(program))
        })
        .collect()
}

fn late(verdict: &Value) -> bool {
    let most = |at: usize| {
        let tests = verdict["measured"]["tests"].as_array().into_iter().flatten();
        tests.filter_map(|t| t[at].as_f64()).fold(0.0, f64::max)
    };
    most(0) > 2.0 * CPU_MS as f64 || most(1) > 2.0 * WALL_MS as f64
}
