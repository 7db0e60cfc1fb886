//! `--sandbox process`: Landlock, seccomp and limits without namespaces. Honest programs get the verdicts of the container;
//! of the hostile ones suite.toml says what holds here; the host's files are out of reach; a killed judge's launcher
//! takes its programs with it.

mod common;
mod suite;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use common::{
    Case, JUDGE, can_judge, is_root, language_of, program, programs_in, records, running, wait_until,
};
use serde_json::{Value, json};
use suite::{CPU_MS, WALL_MS, problems, record, suite};

/// False, loudly, where this kernel has no Landlock: then there is no such sandbox, and the judge says so.
fn has_landlock() -> bool {
    let output = Command::new(JUDGE).args(["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let features = report["features"].as_array().unwrap();
    let there = features.iter().any(|f| f["name"] == "landlock" && f["there"] == true);
    if !there {
        eprintln!("SKIPPED: this kernel has no Landlock");
    }
    there
}

fn sum() -> Value {
    json!({"id": "sum", "statement": "", "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "30 4\n", "output": "34\n"}]})
}

fn statuses(output: &Output) -> BTreeMap<String, String> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains("judged again"), "a program made the sandbox fail: {said}");
    let of = |r: &Value, field: &str| r[field].as_str().unwrap().to_owned();
    records(&output.stdout).iter().map(|r| (of(r, "id"), of(&r["verdict"], "status"))).collect()
}

#[test]
fn honest_programs_get_the_containers_verdicts_and_the_weakness_is_said() {
    if !has_landlock() || !can_judge(&["python", "c"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let mut lines = Vec::new();
    for path in programs_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd")) {
        let language = language_of(&path).unwrap();
        if can_judge(&[language]) {
            let source = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            // Those that look at their places see that these are others.
            if ["/tmp", "/box", "/dev", "/proc"].iter().any(|place| source.contains(place)) {
                continue;
            }
            lines.push(program(path.file_name().unwrap().to_str().unwrap(), language, &source));
        }
    }
    let sums = [
        (
            "c",
            "#include <stdio.h>\nint main(void) { long a, b; scanf(\"%ld %ld\", &a, &b); printf(\"%ld\\n\", a + b); }\n",
        ),
        (
            "cpp",
            "#include <bits/stdc++.h>\nint main() { long a, b; std::cin >> a >> b; std::cout << a + b; }\n",
        ),
        (
            "python",
            "import tempfile\nf = tempfile.TemporaryFile('w+')\nf.write(input())\nf.seek(0)\nprint(sum(map(int, f.read().split())))\n",
        ),
        (
            "python",
            "import subprocess\na, b = input().split()\nprint(subprocess.run(['expr', a, '+', b], capture_output=True, text=True).stdout)\n",
        ),
        (
            "java",
            "import java.util.*;\npublic class Sum { public static void main(String[] x) { Scanner s = new Scanner(System.in); System.out.println(s.nextInt() + s.nextInt()); } }\n",
        ),
        (
            "javascript",
            "console.log(require('fs').readFileSync(0, 'utf8').split(' ').map(Number).reduce((a, b) => a + b))\n",
        ),
        (
            "go",
            "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tvar a, b int\n\tfmt.Scan(&a, &b)\n\tfmt.Println(a + b)\n}\n",
        ),
        ("c", "int main(void) { return x; }\n"),
    ];
    for (i, (language, source)) in sums.into_iter().enumerate().filter(|(_, (l, _))| can_judge(&[l])) {
        lines.push(program(&format!("sum {i}"), language, source));
    }
    assert!(lines.len() > 20);
    case.lines("programs.jsonl", &lines);
    let of =
        |sandbox: &str| case.judge(&["programs.jsonl", "-j2", "--cpu-ms", "8000", "--sandbox", sandbox], "");
    let (container, process) = (of("container"), of("process"));
    assert_eq!(statuses(&container), statuses(&process));
    let said = String::from_utf8_lossy(&process.stderr);
    assert_eq!(said.matches("warning: --sandbox process").count(), 1, "{said}");
    assert!(statuses(&process).values().any(|status| status == "AC"));
}

fn hostile(user: bool) {
    let case = Case::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut usable: BTreeMap<&str, bool> = BTreeMap::new();
    let mut programs = suite();
    programs.retain(|p| *usable.entry(p.language).or_insert_with(|| can_judge(&[p.language])));
    case.lines("problems.jsonl", &problems(server.local_addr().unwrap().port(), CPU_MS, WALL_MS));
    case.lines("programs.jsonl", &programs.iter().map(record).collect::<Vec<_>>());
    // An ordinary user's programs share the kernel's count of the user's processes (SECURITY.md): a fork bomb beside a
    // program leaves that none.
    let workers = if user { "-j1" } else { "-j2" };
    let arguments = ["programs.jsonl", "--first-failure", workers, "-q"];
    let output = if user {
        match case.judge_as(65_531, &[&arguments[..], &["--sandbox", "process"]].concat()) {
            Some(output) => output,
            None => return,
        }
    } else {
        case.command(&[&arguments[..], &["--sandbox", "process"]].concat())
            .env("COGNATE_SECRET", "COGNATE_SECRET")
            .output()
            .unwrap()
    };
    let found = statuses(&output);
    let wrong: Vec<String> = programs
        .iter()
        .filter_map(|p| {
            let user = p.row.user.as_ref().filter(|_| user);
            let wanted = p.row.process.as_ref().or(user).unwrap_or(&p.row.verdict);
            (!wanted.holds(&found[&p.name]))
                .then(|| format!("{}: wanted {wanted:?}: {}", p.name, found[&p.name]))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!running().contains("sleep\u{0}86399"), "a daemon lives on");
}

#[test]
fn hostile_programs_get_what_must_hold_here() {
    if has_landlock() {
        hostile(!is_root());
    }
}

#[test]
fn hostile_programs_of_an_ordinary_users_judge_too() {
    if !is_root() {
        eprintln!("SKIPPED: not root, so the other test was the ordinary user's");
    } else if has_landlock() {
        hostile(true);
    }
}

#[test]
fn the_users_own_files_are_out_of_reach() {
    if !has_landlock() || !can_judge(&["python"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let secret = case.text("secret", "the secret\n");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o666)).unwrap();
    let attack = format!(
        r#"
import os, glob
path, done = {:?}, []
def attempt(name, act):
    try:
        act()
        done.append(name)
    except OSError:
        pass
attempt("read", lambda: open(path).read())
attempt("write", lambda: open(path, "a").write("x"))
attempt("truncate", lambda: os.truncate(path, 0))
attempt("remove", lambda: os.remove(path))
attempt("rename", lambda: os.rename(path, path + "x"))
attempt("link", lambda: os.link(path, "mine"))
attempt("chmod", lambda: os.chmod(path, 0))
attempt("times", lambda: os.utime(path, (1, 1)))
attempt("list", lambda: os.listdir(os.path.dirname(path)))
attempt("make", lambda: open("/tmp/cognate-mark", "w"))
attempt("environment", lambda: open("/proc/%d/environ" % os.getppid()).read())
attempt("others", lambda: [open(p).read() for p in glob.glob("/proc/[0-9]*/cmdline")] or open("/nothing"))
attempt("descriptors", lambda: os.listdir("/proc/%d/fd" % os.getppid()))
a, b = map(int, input().split())
print(done or a + b)
"#,
        secret.display().to_string()
    );
    case.lines("programs.jsonl", &[program("attack", "python", &attack)]);
    let arguments = ["programs.jsonl", "-j1", "-q", "--excerpts", "--sandbox", "process"];
    let mut outputs = vec![case.judge(&arguments, "")];
    if is_root() {
        outputs.extend(case.judge_as(65_532, &arguments));
    }
    for output in outputs {
        assert_eq!(statuses(&output)["attack"], "AC", "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(std::fs::read(&secret).unwrap(), b"the secret\n");
    }
}

#[test]
fn the_launcher_of_a_killed_judge_takes_its_programs_and_its_folder_with_it() {
    if !has_landlock() || !can_judge(&["bash"]) {
        return;
    }
    let case = Case::new();
    case.lines("problems.jsonl", &[sum()]);
    let source = "(setsid sleep 86394 &)\nsleep 86394 &\nsleep 86394\n";
    case.lines("programs.jsonl", &[program("daemon", "bash", source)]);
    let scratch = case.scratch();
    let mut judge = case
        .command(&["programs.jsonl", "-j1", "-q", "--sandbox", "process", "--cpu-ms", "60000"])
        .env("TMPDIR", &scratch)
        .spawn()
        .unwrap();
    wait_until("the program started", &|| running().matches("sleep\u{0}86394").count() == 3);
    judge.kill().unwrap();
    judge.wait().unwrap();
    wait_until("its processes went", &|| !running().contains("sleep\u{0}86394"));
    wait_until("its folder went", &|| std::fs::read_dir(&scratch).unwrap().next().is_none());
}
