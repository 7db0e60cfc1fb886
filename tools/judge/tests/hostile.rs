//! Every program of testdata/hostile gets the verdict that suite.toml names, in every kind of judge (root and ordinary
//! user, interpreters forked and fresh), whatever runs beside and before it, and nothing is left when the judge is done.

mod common;
mod suite;

use std::collections::BTreeMap;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Case, can_judge, is_root, program, records, running};
use serde_json::Value;
use suite::{CPU_MS, Hostile, WALL_MS, problems, record, suite};

/// Programs in languages that this machine has, a case with their problems, and a server that none may reach.
fn set_up() -> (Vec<Hostile>, Case, TcpListener) {
    let mut usable: BTreeMap<&str, bool> = BTreeMap::new();
    let mut programs = suite();
    programs.retain(|p| *usable.entry(p.language).or_insert_with(|| can_judge(&[p.language])));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let case = Case::new();
    case.lines("problems.jsonl", &problems(server.local_addr().unwrap().port(), CPU_MS, WALL_MS));
    (programs, case, server)
}

fn statuses(output: &[u8]) -> BTreeMap<String, Value> {
    records(output)
        .into_iter()
        .map(|r| (r["id"].as_str().unwrap().to_owned(), r["verdict"].clone()))
        .collect()
}

fn check(programs: &[Hostile], output: &[u8], user: bool) {
    let verdicts = statuses(output);
    let wrong: Vec<String> = programs
        .iter()
        .filter_map(|p| {
            let wanted = p.row.user.as_ref().filter(|_| user).unwrap_or(&p.row.verdict);
            let verdict = &verdicts[&p.name];
            let holds = wanted.holds(verdict["status"].as_str().unwrap());
            (!holds).then(|| format!("{}: wanted {wanted:?}: {verdict}", p.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Control groups that a judge of this number made.
fn groups_of(judge: u32) -> Vec<String> {
    let mark = format!("cog-judge-{judge}-");
    let mut found = Vec::new();
    let mut folders = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(entry.file_name().to_str().filter(|n| n.starts_with(&mark)).map(str::to_owned));
                folders.push(entry.path());
            }
        }
    }
    found
}

#[test]
fn every_hostile_program_gets_its_verdict_and_leaves_nothing() {
    let (programs, case, _server) = set_up();
    case.lines("programs.jsonl", &programs.iter().map(record).collect::<Vec<_>>());
    let child = case
        .command(&["programs.jsonl", "--sandbox", "container", "--first-failure", "--excerpts", "-j2"])
        .env("COGNATE_SECRET", "COGNATE_SECRET")
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("judged again"), "a program made the sandbox fail: {said}");
    assert!(!said.contains("no fork server"), "{said}");
    check(&programs, &output.stdout, !is_root());
    assert!(!running().contains("sleep\u{0}86399"), "a daemon lives on");
    assert_eq!(groups_of(pid), Vec::<String>::new());
}

#[test]
fn an_ordinary_user_gets_the_same_verdicts() {
    if !is_root() {
        eprintln!("SKIPPED: not root, so the other test was the ordinary user's");
        return;
    }
    let (programs, case, _server) = set_up();
    case.lines("programs.jsonl", &programs.iter().map(record).collect::<Vec<_>>());
    let arguments = ["programs.jsonl", "--sandbox", "container", "--first-failure", "--excerpts", "-j2"];
    let Some(output) = case.judge_as(65_534, &arguments) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && said.contains("creating a user namespace") {
        eprintln!("SKIPPED: this machine denies user namespaces to ordinary users: {said}");
        return;
    }
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("judged again"), "a program made the sandbox fail: {said}");
    assert!(!said.contains("no fork server"), "{said}");
    check(&programs, &output.stdout, true);
}

/// Innocent programs of one right and several wrong kinds, that look for what a neighbour or predecessor could change.
fn innocents() -> Vec<Value> {
    let sources = [
        ("python", "a, b = map(int, input().split())\nprint(a + b)\n"),
        (
            "python",
            "import os\na, b = map(int, input().split())\nprint(a + b if not os.listdir('/tmp') else 0)\n",
        ),
        ("python", "print(3)\n"),
        ("python", "1 / 0\n"),
        ("perl", "my ($a, $b) = split ' ', <STDIN>; print $a + $b;\n"),
        ("lua", "print(io.read('n') + io.read('n'))\n"),
        ("ruby", "puts gets.split.sum(&:to_i)\n"),
        ("bash", "read a b; echo $((a + b))\n"),
        (
            "c",
            "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }\n",
        ),
        ("c", "int main(void) { return 7; }\n"),
    ];
    let usable = sources.iter().filter(|(language, _)| can_judge(&[language]));
    usable
        .enumerate()
        .map(|(i, (language, source))| program(&format!("innocent {i}"), language, source))
        .collect()
}

/// Programs whose way to their end is short; those that go to a limit are in the tests above.
fn brief(program: &Hostile) -> bool {
    let slow = ["go", "java", "javascript", "cpp"].contains(&program.language);
    let heavy =
        ["inode_flood.c", "memory_in_page_tables.c", "count_threads.py"].contains(&program.name.as_str());
    !slow && !heavy && !program.row.verdict.holds("TLE") && !program.row.verdict.holds("CE")
}

#[test]
fn a_verdict_depends_on_no_neighbour_no_predecessor_and_no_worker() {
    let (mut programs, case, server) = set_up();
    programs.retain(brief);
    // None of these goes to a limit on time: where it stands must not matter on a machine as busy as it may be.
    case.lines("problems.jsonl", &problems(server.local_addr().unwrap().port(), 8000, 60_000));
    let mut lines: Vec<Value> = programs.iter().map(record).collect();
    for _ in 0..2 {
        lines.extend(innocents());
    }
    let mut expected: Option<BTreeMap<String, Value>> = None;
    let runs: [&[&str]; 4] = [&["-j1"], &["-j4"], &["-j1"], &["-j4", "--no-fork-server"]];
    for (seed, flags) in runs.iter().enumerate() {
        shuffle(&mut lines, seed as u64);
        case.lines("programs.jsonl", &lines);
        let flags =
            [&["programs.jsonl", "--sandbox", "container", "--no-result-cache", "-q"], *flags].concat();
        let output = case.judge(&flags, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // The same program stands in the stream several times: each time the same verdict.
        let mut verdicts: BTreeMap<String, Value> = BTreeMap::new();
        for record in records(&output.stdout) {
            let (id, verdict) = (record["id"].as_str().unwrap().to_owned(), record["verdict"].clone());
            if let Some(before) = verdicts.insert(id.clone(), verdict.clone()) {
                assert_eq!(before, verdict, "{id} in one run, order {seed}, {flags:?}");
            }
        }
        assert!(verdicts.len() > 30 && verdicts.values().any(|v| v["status"] == "AC"));
        match &expected {
            None => expected = Some(verdicts),
            Some(expected) => {
                for (id, verdict) in &verdicts {
                    assert_eq!(verdict, &expected[id], "{id}, order {seed}, {flags:?}");
                }
            }
        }
    }
}

/// Fisher-Yates over a linear congruential generator (Knuth, MMIX): the orders are the same in every run of the test.
fn shuffle(lines: &mut [Value], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for i in (1..lines.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        lines.swap(i, ((state >> 33) % (i as u64 + 1)) as usize);
    }
}

#[test]
fn a_busy_machine_changes_no_verdict() {
    let (_, case, _server) = set_up();
    if !can_judge(&["python", "c", "lua"]) {
        return;
    }
    // Close to the limit on CPU time, well below and above it, and idle for most of the wall's.
    let busy = |ms: u32| {
        format!(
            "import time\na, b = map(int, input().split())\nwhile time.process_time() < {ms} / 1000: pass\nprint(a + b)\n"
        )
    };
    let mut lines = innocents();
    for i in 0..4 {
        lines.push(program(&format!("below {i}"), "python", &(busy(300) + &format!("# {i}\n"))));
        lines.push(program(&format!("above {i}"), "python", &(busy(900) + &format!("# {i}\n"))));
        let idle =
            format!("import time\na, b = map(int, input().split())\ntime.sleep(0.7)\nprint(a + b)\n# {i}\n");
        lines.push(program(&format!("idle {i}"), "python", &idle));
    }
    case.lines("programs.jsonl", &lines);
    let judge = |workers: &str| {
        let flags = ["programs.jsonl", "--sandbox", "container", "--first-failure", "-q", workers];
        let output = case.judge(&flags, "");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        statuses(&output.stdout)
    };
    let alone = judge("-j1");
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    // As many more processes that do nothing but compute.
    let mut load: Vec<_> = (0..processors * 2)
        .map(|_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
        .collect();
    let loaded =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| judge(&format!("-j{}", processors * 2))));
    for process in &mut load {
        let _ = process.kill();
        let _ = process.wait();
    }
    let loaded = loaded.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    assert_eq!(alone, loaded);
    for i in 0..4 {
        let status = |kind: &str| loaded[&format!("{kind} {i}")]["status"].clone();
        assert_eq!([status("below"), status("above"), status("idle")], ["AC", "TLE", "AC"]);
    }
}

/// Number of `kind` lines in /proc/PID/status, in KiB.
fn kilobytes(pid: u32, kind: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find(|l| l.starts_with(kind)).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

#[test]
fn the_judges_own_memory_stays_flat_under_floods() {
    let (mut programs, case, _server) = set_up();
    programs.retain(|p| p.row.verdict.holds("OLE") && p.language != "javascript");
    assert!(programs.len() > 3);
    let lines = |times: usize| {
        let floods = programs.iter().map(record).cycle().take(programs.len() * times);
        floods.map(|r| format!("{r}\n")).collect::<String>()
    };
    let mut child = case
        .command(&["-", "--sandbox", "container", "--no-result-cache", "--excerpts", "-j2", "-q"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let mut input = child.stdin.take().unwrap();
    let mut output = child.stdout.take().unwrap();
    let mut read = move |count: usize| {
        let (mut seen, mut byte) = (0, [0; 4096]);
        while seen < count {
            let n = output.read(&mut byte).unwrap();
            assert!(n > 0, "the judge ended early");
            seen += byte[..n].iter().filter(|&&b| b == b'\n').count();
        }
    };
    use std::io::Write;
    input.write_all(lines(2).as_bytes()).unwrap();
    read(programs.len() * 2);
    let warm = kilobytes(pid, "VmHWM:");
    input.write_all(lines(8).as_bytes()).unwrap();
    read(programs.len() * 8);
    let high = kilobytes(pid, "VmHWM:");
    drop(input);
    assert!(child.wait().unwrap().success());
    assert!(warm > 0 && high < warm + 24 * 1024, "the judge's memory grew from {warm} to {high} KiB");
}
