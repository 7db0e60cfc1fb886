//! A judge that is killed (SIGKILL) at any moment leaves nothing behind once the next one has started or `cog-judge clean`
//! has run: no process, no control group, no mount. What belongs to a judge that lives stays as it is.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{Case, JUDGE, can_judge, program, sum_problem};
use serde_json::Value;

/// Numbers of processes that belong to a judge: by name, or by the control group that they are in.
fn processes_of(judge: u32) -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let belongs = |pid: &u32| {
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default())
                .into_owned()
        };
        // The dead that nobody has waited for yet have no command line.
        read("cmdline").starts_with(&format!("cog-judge-launcher\0{judge}-"))
            || read("cgroup").contains(&format!("/cog-judge-{judge}-")) && !read("cmdline").is_empty()
    };
    pids.filter(belongs).collect()
}

fn groups_of(judge: u32) -> BTreeSet<String> {
    let mark = format!("cog-judge-{judge}-");
    let mut found = BTreeSet::new();
    let mut folders = vec![Path::new("/sys/fs/cgroup").to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(&mark) {
                    found.insert(entry.path().display().to_string());
                }
                folders.push(entry.path());
            }
        }
    }
    found
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

/// Programs that have something to leave: children of theirs, a long wait, a compiler, a loop.
const SOURCES: [(&str, &str); 4] = [
    (
        "python",
        "import os, time\nfor _ in range(3):\n    if os.fork() == 0:\n        os.setsid()\ntime.sleep(9)\n",
    ),
    ("python", "while True: pass\n"),
    ("bash", "sleep 86397 & sleep 86397\n"),
    ("c", "#include <unistd.h>\nint main(void) { while (fork() < 0) {} pause(); }\n"),
];

fn start(case: &Case) -> Child {
    case.command(&["-", "--sandbox", "container", "-j2", "-q"]).stdin(Stdio::piped()).spawn().unwrap()
}

fn feed(judge: &mut Child, usable: &[(&str, &str)], count: usize) {
    let mut input = judge.stdin.take().unwrap();
    for i in 0..count {
        let (language, source) = usable[i % usable.len()];
        let comment = if language == "c" { "//" } else { "#" };
        let _ = writeln!(input, "{}", program(&i.to_string(), language, &format!("{source}{comment} {i}\n")));
    }
    std::mem::forget(input); // the judge waits for more until it is killed
}

fn clean(flags: &[&str]) -> Value {
    let output = Command::new(JUDGE).args(["clean", "--json"]).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// How many control groups of this judge a report names. Other judges of this machine may have been killed as well.
fn count(report: &Value, judge: u32) -> usize {
    let mark = format!("/cog-judge-{judge}-");
    let groups = report["groups"].as_array().unwrap();
    groups.iter().filter(|g| g["path"].as_str().unwrap().contains(&mark)).count()
}

#[test]
fn nothing_of_a_killed_judge_is_left_and_nothing_of_a_living_one_is_touched() {
    if !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    let mounted = mounts();
    let usable: Vec<_> = SOURCES.into_iter().filter(|(language, _)| can_judge(&[language])).collect();

    let mut living = start(&case);
    let mut input = living.stdin.take().unwrap();
    let mut answers = BufReader::new(living.stdout.take().unwrap()).lines();
    let mut ask = |i: usize| {
        let source = format!("print(sum(map(int, input().split()))) # {i}\n");
        writeln!(input, "{}", program(&i.to_string(), "python", &source)).unwrap();
        let answer: Value = serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap();
        assert_eq!(answer["verdict"]["status"], "AC", "{answer}");
    };
    (0..4).for_each(&mut ask);
    let before = (processes_of(living.id()), groups_of(living.id()));
    assert!(!before.0.is_empty());

    let mut seen = 0;
    let mut killed = Vec::new();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..10 {
        let mut judge = start(&case);
        feed(&mut judge, &usable, 40);
        // Xorshift: at its very start, while namespaces are built, while programs are compiled and run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        std::thread::sleep(Duration::from_millis(random % [20, 100, 600][round % 3]));
        judge.kill().unwrap();
        if round % 4 == 0 {
            // Also before anybody has waited for it.
            seen += count(&clean(&["-n"]), judge.id());
        }
        judge.wait().unwrap();
        killed.push(judge.id());
        if round % 2 == 0 {
            seen += count(&clean(&[]), judge.id());
        } else {
            let line = format!("{}\n", program("next", "python", "print(0)\n"));
            let next = case.judge(&["-", "--sandbox", "container", "-j1", "-q"], &line);
            assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
        }
        // The kernel buries what has been killed in its own time, but soon.
        let left = || (processes_of(judge.id()), groups_of(judge.id()));
        for _ in 0..500 {
            if left().0.is_empty() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(left(), (BTreeSet::new(), BTreeSet::new()), "round {round}");
        ask(100 + round);
    }
    if groups_of(living.id()).is_empty() {
        eprintln!("SKIPPED: this machine gives no control groups, so it was not seen that one is removed");
    } else {
        assert!(seen > 0, "none of {killed:?} left anything, so nothing was shown");
    }
    // It may have started more since then, for languages and workers that it had not needed before.
    assert!(before.0.is_subset(&processes_of(living.id())), "processes of a living judge were touched");
    assert!(before.1.is_subset(&groups_of(living.id())), "groups of a living judge were touched");
    assert_eq!(mounted, mounts());
    drop(input);
    let output = living.wait_with_output().unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let last = clean(&["-n"]);
    assert!(killed.iter().all(|judge| count(&last, *judge) == 0), "{last}");
}

#[test]
fn the_socket_of_a_killed_server_is_removed() {
    let case = Case::new();
    let cache = case.path("cache");
    let serve = |name: &str| {
        let path = case.path(name);
        let child = Command::new(JUDGE)
            .args(["serve", "-q", "-j1", "--listen", &format!("unix:{}", path.display())])
            .env("COGNATE_CACHE", &cache)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..1000 {
            if std::os::unix::net::UnixStream::connect(&path).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(path.exists());
        (child, path)
    };
    let ((mut dead, old), (mut living, new)) = (serve("dead.sock"), serve("living.sock"));
    dead.kill().unwrap();
    dead.wait().unwrap();
    assert!(old.exists());
    let output = Command::new(JUDGE).arg("clean").env("COGNATE_CACHE", &cache).output().unwrap();
    let living_socket = new.exists();
    living.kill().unwrap();
    living.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!old.exists() && living_socket);
}
