//! `--sandbox oci`: each run is a container of an OCI runtime. Programs get the verdicts of the container, hostile ones
//! those of suite.toml; nothing is kept between tests, and nothing is left after a run or a judge that was killed.

mod common;
mod suite;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::{Case, JUDGE, can_judge, is_root, program, records, running, wait_until};
use serde_json::{Value, json};
use suite::{CPU_MS, WALL_MS, problems, record, suite};

/// False, loudly, where this machine has no OCI runtime, or lets nobody make a container of any kind. A runtime that is
/// there and starts nothing where the container stands is a failure.
fn has_runtime() -> bool {
    let output = Command::new(JUDGE).args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let find =
        |name: &str| report["sandboxes"].as_array().unwrap().iter().find(|k| k["name"] == name).unwrap();
    let (oci, container) = (find("oci"), find("container"));
    if oci["there"] == true {
        return true;
    }
    let missing = oci["missing"].as_str().unwrap();
    let none = missing.starts_with("no OCI runtime");
    assert!(none || container["there"] == false, "there is a runtime, but no container of it: {missing}");
    assert!(!none || oci["fix"] == "apt install runc", "{oci}");
    eprintln!("SKIPPED: {missing}");
    false
}

fn sum() -> Value {
    json!({"id": "sum", "statement": "", "limits": {"cpu_ms": 800, "memory_mb": 160, "output_kb": 1024, "file_mb": 16},
           "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "30 4\n", "output": "34\n"}]})
}

/// The verdicts of programs `(id, language, source)` by id.
fn verdicts(case: &Case, programs: &[(&str, &str, &str)], flags: &[&str]) -> BTreeMap<String, Value> {
    let lines: Vec<Value> = programs.iter().map(|(id, l, s)| program(id, l, s)).collect();
    case.lines("programs.jsonl", &lines);
    by_id(&case.judge(&[&["programs.jsonl", "-q"], flags].concat(), ""))
}

fn by_id(output: &Output) -> BTreeMap<String, Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("judged again"), "a program made the sandbox fail: {said}");
    let of = |r: &Value| (r["id"].as_str().unwrap().to_owned(), r["verdict"].clone());
    records(&output.stdout).iter().map(of).collect()
}

const C_HEAD: &str = "#include <signal.h>\n#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <unistd.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b);\n";

#[test]
fn verdicts_exit_codes_and_signals_are_those_of_the_container() {
    if !has_runtime() || !can_judge(&["c", "python"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let c = |body: &str| format!("{C_HEAD}{body}\n}}\n");
    let programs = [
        ("right", "AC", c("printf(\"%d\\n\", a + b); return 0;")),
        ("wrong", "WA", c("puts(\"3\"); return 0;")),
        ("code", "RE", c("return 7;")),
        ("abort", "RE", c("abort();")),
        ("null", "RE", c("*(volatile int *)0 = 1; return 0;")),
        // What the first process of a namespace would not die of.
        ("term", "RE", c("kill(getpid(), SIGTERM); pause();")),
        ("alarm", "RE", c("alarm(1); pause();")),
        ("loop", "TLE", c("for (;;) {}")),
        ("sleep", "TLE", c("for (;;) sleep(9);")),
        ("memory", "MLE", c("for (;;) memset(malloc(1 << 20), 1, 1 << 20);")),
        ("output", "OLE", c("for (;;) puts(\"one more line\");")),
        ("compile", "CE", c("return x;")),
        // In a child, which the main process waits for.
        (
            "loop of a child",
            "TLE",
            c("if (!fork()) for (;;) {} wait(0); printf(\"%d\\n\", a + b);")
                .replace("<unistd.h>", "<unistd.h>\n#include <sys/wait.h>"),
        ),
    ];
    let python = "a, b = map(int, input().split())\nprint(a + b)\n";
    let mut all: Vec<(&str, &str, &str)> =
        programs.iter().map(|(id, _, source)| (*id, "c", &**source)).collect();
    all.push(("python", "python", python));
    all.push(("raise", "python", "raise SystemExit(3)\n"));
    let found = verdicts(&case, &all, &["--sandbox", "oci", "-j2"]);
    let container = verdicts(&case, &all, &["--sandbox", "container", "-j2"]);
    for (id, wanted, _) in &programs {
        assert_eq!(found[*id]["status"], *wanted, "{id}: {}", found[*id]);
    }
    assert_eq!(found["python"]["status"], "AC");
    assert_eq!(found["abort"]["tests"][0]["signal"], libc::SIGABRT);
    assert_eq!(found["null"]["tests"][0]["signal"], libc::SIGSEGV);
    assert_eq!(found["term"]["tests"][0]["signal"], libc::SIGTERM);
    for (id, verdict) in &found {
        let of = |v: &Value| ["status", "tests", "passed", "message"].map(|field| v[field].clone());
        assert_eq!(of(verdict), of(&container[id]), "{id}");
    }
}

#[test]
fn a_test_sees_nothing_of_the_machine_and_nothing_of_the_test_before() {
    if !has_runtime() || !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    case.lines("problems.jsonl", &[sum()]);
    let secret = case.text("secret", "the secret\n");
    let attack = format!(
        r#"
import os, socket
done = []
def attempt(name, act):
    try:
        act()
        done.append(name)
    except OSError:
        pass
def connect():
    socket.create_connection(("127.0.0.1", {port}), 2)
attempt("network", connect)
attempt("box", lambda: open("/box/mark", "w"))
attempt("source", lambda: open("/box/main.py", "a"))
attempt("root", lambda: open("/mark", "w"))
attempt("usr", lambda: open("/usr/mark", "w"))
attempt("cache", lambda: open("/cache/mark", "w"))
attempt("device", lambda: os.utime("/dev/null", (1, 1)))
attempt("secret", lambda: open({secret:?}))
attempt("shadow", lambda: open("/etc/shadow"))
attempt("kernel", lambda: open("/proc/kallsyms"))
attempt("first", lambda: open("/proc/1/mem"))
attempt("first's", lambda: os.listdir("/proc/1/fd"))
attempt("score", lambda: open("/proc/self/oom_score_adj", "w").write("0"))
attempt("user", lambda: os.setuid(0) if os.getuid() else open("/nothing"))
if os.listdir("/tmp"):
    done.append("tmp")
open("/tmp/mark", "w").write("x")
if [fd for fd in os.listdir("/proc/self/fd") if int(fd) > 3]:
    done.append("descriptors")
if len([p for p in os.listdir("/proc") if p.isdigit()]) > 2 or os.environ.get("COGNATE_SECRET"):
    done.append("processes or environment")
for line in open("/proc/self/status"):
    name, _, value = line.partition(":")
    if name.startswith("Cap") and int(value, 16) or name == "NoNewPrivs" and value.strip() != "1":
        done.append(line)
a, b = map(int, input().split())
print(done or a + b)
"#,
        secret = secret.display().to_string()
    );
    let found = verdicts(&case, &[("attack", "python", &attack)], &["--sandbox", "oci", "-j1", "--excerpts"]);
    assert_eq!(found["attack"]["status"], "AC", "{}", found["attack"]);
    // And it can fail: a program that succeeds at one is seen.
    let marked = attack.replace("open(\"/box/mark\", \"w\")", "open(\"/tmp/own\", \"w\")");
    let found = verdicts(&case, &[("attack", "python", &marked)], &["--sandbox", "oci", "-j1"]);
    assert_eq!(found["attack"]["status"], "WA");
}

#[test]
fn files_and_interactors_work_for_root_and_are_refused_otherwise() {
    if !has_runtime() || !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    let checker = json!({"kind": "program", "language": "python", "source":
        "import sys\nn = int(open(sys.argv[1]).read())\nprint(n, flush=True)\nsys.exit(0 if sys.stdin.readline() == f'{n * 2}\\n' else 1)\n"});
    case.lines(
        "problems.jsonl",
        &[
            json!({"id": "sum", "statement": "", "tests": [{
            "kind": "files", "input": "2\n", "files": [{"name": "in.txt", "content": "20\n"}],
            "outputs": [{"name": "out.txt", "content": "40\n"}]}]}),
            json!({"id": "talk", "statement": "", "checker": checker,
               "tests": [{"kind": "interactive", "input": "21\n"}, {"kind": "interactive", "input": "4\n"}]}),
        ],
    );
    let with = |id: &str, problem: &str, source: &str| {
        let mut line = program(id, "python", source);
        line["problem"] = json!(problem);
        line
    };
    let write = "n = int(input()) * int(open('in.txt').read())\nopen('out.txt', 'w').write(str(n))\n";
    let lines = [
        with("files", "sum", write),
        with("link", "sum", "import os\nos.symlink('/box/main.py', 'out.txt')\n"),
        with("talk", "talk", "print(int(input()) * 2)\n"),
        with("babble", "talk", "print(int(input()) * 3)\n"),
    ];
    case.lines("programs.jsonl", &lines);
    let output = case.judge(&["programs.jsonl", "-q", "--sandbox", "oci"], "");
    if !is_root() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{said}");
        assert!(said.contains("use --sandbox container"), "{said}");
        return;
    }
    let found = by_id(&output);
    let statuses = ["files", "link", "talk", "babble"].map(|id| found[id]["status"].clone());
    assert_eq!(statuses, ["AC", "WA", "AC", "WA"], "{found:?}");
}

#[test]
fn a_toolchain_is_prepared_into_the_cache_and_a_closed_umask_closes_nothing() {
    if !has_runtime() || !can_judge(&["cpp"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let source = "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b; }\n";
    case.lines("programs.jsonl", &[program("p", "cpp", source)]);
    for sandbox in ["oci", "container"] {
        let cache = case.path(sandbox);
        let script = "umask 077; exec \"$0\" --tests problems.jsonl programs.jsonl --sandbox $1 -q -j1";
        let output = Command::new("sh")
            .args(["-c", script, JUDGE, sandbox])
            .current_dir(case.dir.path())
            .env("COGNATE_CACHE", &cache)
            .output()
            .unwrap();
        let found = by_id(&output);
        assert_eq!(found["p"]["status"], "AC", "{found:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("preparing the toolchain failed"), "{said}");
        let prepared = std::fs::read_dir(cache.join("judge")).unwrap().flatten();
        let names: Vec<_> = prepared.map(|e| e.file_name().into_string().unwrap()).collect();
        assert!(
            matches!(&names[..], [name] if name.starts_with("cpp-") && !name.ends_with(".part")),
            "{names:?}"
        );
    }
}

/// Control groups with the name of this judge.
fn groups_of(judge: u32) -> Vec<PathBuf> {
    let mark = format!("cog-judge-{judge}-");
    let (mut found, mut folders) = (Vec::new(), vec![PathBuf::from("/sys/fs/cgroup")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                found.extend(
                    Some(entry.path()).filter(|_| entry.file_name().to_string_lossy().starts_with(&mark)),
                );
                folders.push(entry.path());
            }
        }
    }
    found
}

fn mounts() -> String {
    std::fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

const DAEMONS: &str =
    "(setsid sleep 86392 >/dev/null 2>&1 &)\nsleep 86392 >/dev/null 2>&1 &\nread a b\necho $((a + b))\n";

#[test]
fn nothing_is_left_after_a_run() {
    if !has_runtime() || !can_judge(&["bash", "c"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let scratch = case.scratch();
    let before = mounts();
    let bomb = format!("{C_HEAD} for (;;) fork(); }}\n");
    case.lines("programs.jsonl", &[program("daemon", "bash", DAEMONS), program("bomb", "c", &bomb)]);
    let mut command = case.command(&["programs.jsonl", "-q", "--sandbox", "oci", "-j2"]);
    let child = command.env("TMPDIR", &scratch).spawn().unwrap();
    let pid = child.id();
    let found = by_id(&child.wait_with_output().unwrap());
    assert_eq!(
        (&found["daemon"]["status"], &found["bomb"]["status"]),
        (&json!("AC"), &json!("TLE")),
        "{found:?}"
    );
    assert!(!running().contains("sleep\u{0}86392"), "a daemon lives on");
    assert!(!running().contains(&format!("/run/cog-judge-init\u{0}{pid}-")));
    assert_eq!(groups_of(pid), [] as [PathBuf; 0]);
    assert!(is_empty(&scratch));
    assert_eq!(before, mounts());
}

#[test]
fn nothing_is_left_of_a_judge_that_was_killed() {
    if !has_runtime() || !can_judge(&["bash"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let scratch = case.scratch();
    let before = mounts();
    let source = DAEMONS.replace("86392", "86391") + "sleep 86391\n";
    case.lines("programs.jsonl", &[program("daemon", "bash", &source)]);
    // At the end of its patience, while its program runs, and in the middle of the making of containers.
    for delay in [None, Some(60), Some(150)] {
        let mut judge = case
            .command(&["programs.jsonl", "-j1", "-q", "--sandbox", "oci", "--cpu-ms", "60000"])
            .env("TMPDIR", &scratch)
            .spawn()
            .unwrap();
        match delay {
            None => wait_until("the program started", &|| running().matches("sleep\u{0}86391").count() >= 3),
            Some(ms) => std::thread::sleep(Duration::from_millis(ms)),
        }
        judge.kill().unwrap();
        judge.wait().unwrap();
        let pid = judge.id();
        // By themselves, as the container's first process sees the judge's end.
        wait_until("its processes went", &|| {
            let running = running();
            !running.contains("sleep\u{0}86391") && !running.contains(&format!("cog-judge-init\u{0}{pid}-"))
        });
        // A runtime that it had started ends when its container has.
        wait_until("its runtime went", &|| !running().contains(&format!("cog-judge-{pid}-")));
        if delay.is_none() && is_root() {
            assert!(
                !groups_of(pid).is_empty() || !is_empty(&scratch),
                "nothing was left, so nothing is shown"
            );
        }
        let clean = Command::new(JUDGE).arg("clean").env("TMPDIR", &scratch).output().unwrap();
        assert!(clean.status.success(), "{}", String::from_utf8_lossy(&clean.stderr));
        assert_eq!(groups_of(pid), [] as [PathBuf; 0]);
        assert!(is_empty(&scratch));
        assert_eq!(before, mounts());
    }
}

#[test]
fn what_cannot_be_is_said() {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let root = case.path("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    let root = root.display().to_string();
    let cases: [(&[&str], &str); 4] = [
        (&["--sandbox", "oci", "--rootfs", &root], "--rootfs"),
        (&["--sandbox", "oci", "--oci-runtime", "/nowhere/runc"], "--oci-runtime /nowhere/runc: no program"),
        (&["--sandbox", "oci", "--oci-runtime", "/bin/false"], "false: it failed without a word"),
        (&["--sandbox", "container", "--oci-runtime", "/bin/true"], "--oci-runtime is for --sandbox oci"),
    ];
    let line = format!("{}\n", program("p", "bash", "echo 3\n"));
    for (flags, wanted) in cases {
        let output = case.judge(&[&["-", "-q"], flags].concat(), &line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(wanted), "{flags:?}: {said}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn hostile_programs_get_their_verdicts() {
    if !has_runtime() {
        return;
    }
    let mut usable: BTreeMap<&str, bool> = BTreeMap::new();
    let mut programs = suite();
    programs.retain(|p| *usable.entry(p.language).or_insert_with(|| can_judge(&[p.language])));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let case = Case::new();
    case.lines("problems.jsonl", &problems(server.local_addr().unwrap().port(), CPU_MS, WALL_MS));
    case.lines("programs.jsonl", &programs.iter().map(record).collect::<Vec<_>>());
    let child = case
        .command(&["programs.jsonl", "--sandbox", "oci", "--first-failure", "--excerpts", "-j2"])
        .env("COGNATE_SECRET", "COGNATE_SECRET")
        .spawn()
        .unwrap();
    let pid = child.id();
    let found = by_id(&child.wait_with_output().unwrap());
    let wrong: Vec<String> = programs
        .iter()
        .filter_map(|p| {
            let user = p.row.user.as_ref().filter(|_| !is_root());
            let wanted = p.row.oci.as_ref().or(user).unwrap_or(&p.row.verdict);
            let verdict = &found[&p.name];
            let holds = wanted.holds(verdict["status"].as_str().unwrap());
            (!holds).then(|| format!("{}: wanted {wanted:?}: {verdict}", p.name))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!running().contains("sleep\u{0}86399"), "a daemon lives on");
    assert_eq!(groups_of(pid), [] as [PathBuf; 0]);
}

#[test]
fn an_ordinary_users_judge_gets_the_same_verdicts() {
    if !is_root() {
        eprintln!("SKIPPED: not root, so the other tests were the ordinary user's");
        return;
    }
    if !has_runtime() || !can_judge(&["python", "c"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let c = |body: &str| format!("{C_HEAD}{body}\n}}\n");
    let memory = "a = []\nwhile True: a.append(bytearray(1 << 20))\n";
    let programs = [
        ("AC", "c", c("printf(\"%d\\n\", a + b);")),
        ("WA", "python", "import os\nopen('/tmp/x', 'w')\nprint(len(os.listdir('/tmp')))\n".into()),
        ("RE", "c", c("abort();")),
        ("TLE", "c", c("if (!fork()) for (;;) {} pause();")),
        ("MLE", "python", memory.into()),
        ("OLE", "python", "while True: print('one more line')\n".into()),
        ("CE", "c", c("return x;")),
    ];
    let lines: Vec<Value> = programs.iter().map(|(id, l, s)| program(id, l, s)).collect();
    case.lines("programs.jsonl", &lines);
    let Some(output) = case.judge_as(65_530, &["programs.jsonl", "--sandbox", "oci", "-q"]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && (said.contains("newuidmap") || said.contains("user namespace")) {
        eprintln!("SKIPPED: this machine denies containers to ordinary users: {said}");
        return;
    }
    for (id, verdict) in by_id(&output) {
        assert_eq!(verdict["status"], *id, "{verdict}");
    }
    let left: Vec<_> =
        std::fs::read_dir(case.path("home")).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("cog-judge-")), "{left:?}");
}
