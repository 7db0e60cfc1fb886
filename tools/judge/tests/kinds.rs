//! Every kind of test and of checker, from the command line to the verdict.

mod common;

use common::{Case, can_judge, program, records};
use serde_json::{Value, json};

/// Statuses of programs `(language, source)` on one problem, with the whole verdicts.
fn verdicts(problem: &Value, programs: &[(&str, &str)], flags: &[&str]) -> Vec<Value> {
    let case = Case::new();
    let mut problem = problem.clone();
    problem["id"] = json!("sum");
    problem["statement"] = json!("");
    case.lines("problems.jsonl", &[problem]);
    let lines: Vec<Value> =
        programs.iter().enumerate().map(|(i, (l, s))| program(&i.to_string(), l, s)).collect();
    case.lines("programs.jsonl", &lines);
    let judge = |sandbox: &[&str]| -> Vec<Value> {
        let output = case.judge(&[&["programs.jsonl"], flags, sandbox].concat(), "");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        records(&output.stdout).into_iter().map(|mut r| r["verdict"].take()).collect()
    };
    let found = judge(&[]);
    if has_landlock() {
        // The same without namespaces, but for programs that know where they are.
        let plain = judge(&["--sandbox", "process"]);
        for ((found, plain), (_, source)) in found.iter().zip(&plain).zip(programs) {
            let of = |v: &Value| ["status", "score", "passed", "failure"].map(|field| v[field].clone());
            assert!(of(found) == of(plain) || source.contains("/box"), "{found} {plain} {source}");
        }
    }
    found
}

fn has_landlock() -> bool {
    static FOUND: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        let output = std::process::Command::new(common::JUDGE).args(["doctor", "--json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = report["features"]
            .as_array()
            .unwrap()
            .iter()
            .any(|f| f["name"] == "landlock" && f["there"] == true);
        if !found {
            eprintln!("SKIPPED: this kernel has no Landlock, so --sandbox process was not tried");
        }
        found
    })
}

fn statuses(verdicts: &[Value]) -> Vec<&str> {
    verdicts.iter().map(|v| v["status"].as_str().unwrap()).collect()
}

#[test]
fn input_files_are_there_and_output_files_are_read_back() {
    if !can_judge(&["python"]) {
        return;
    }
    let problem = json!({"tests": [{
        "kind": "files", "input": "2\n",
        "files": [{"name": "in.txt", "content": "20\n"}],
        "outputs": [{"name": "out.txt", "content": "40\n"}],
    }]});
    let write = "n = int(input()) * int(open('in.txt').read())\n";
    let programs = [
        ("python", &*format!("{write}open('out.txt', 'w').write(str(n))\n")),
        ("python", &*format!("{write}open('out.txt', 'w').write(str(n + 1))\n")),
        ("python", &*format!("{write}print(n)\n")),
        // What is no plain file is no output, and must not lead anywhere.
        ("python", "import os\nos.symlink('/box/main.py', 'out.txt')\n"),
        ("python", "import os\nos.mkdir('out.txt')\n"),
        ("python", "f = open('out.txt', 'w')\nf.truncate(1 << 25)\n"),
        ("python", "open('in.txt', 'a').write('mine to change')\nopen('out.txt', 'w').write('40')\n"),
        (
            "python",
            "import os\nprint(os.listdir('/box'), os.listdir('/tmp'))\nopen('out.txt','w').write('40')\n",
        ),
    ];
    let found = verdicts(&problem, &programs, &["--file-mb", "64", "--excerpts"]);
    assert_eq!(statuses(&found), ["AC", "WA", "WA", "WA", "WA", "OLE", "AC", "AC"]);
    // The expected output is nowhere.
    assert_eq!(found[7]["tests"][0]["stdout"], "['main.py'] ['in.txt']\n");
}

#[test]
fn test_code_may_stand_in_a_file_of_its_own() {
    if !can_judge(&["python", "ruby", "c"]) {
        return;
    }
    let test = |language: &str, file: &str, code: &str| json!({"kind": "assert", "language": language, "file": file, "code": code});
    let problem = json!({"tests": [
        test("python", "check.py", "from main import f\nassert f(2) == 4\n"),
        test("python", "check.py", "import main\nassert main.f(3) == 9\n"),
        test("ruby", "check.rb", "require_relative 'main'\nraise unless f(2) == 4\n"),
        test("c", "check.c", "#include \"main.c\"\nint main(void) { return f(2) == 4 ? 0 : 1; }\n"),
    ]});
    let found = verdicts(
        &problem,
        &[
            ("python", "def f(x):\n    return x * x\n"),
            ("python", "def f(x):\n    return x + x\n"),
            ("ruby", "def f(x) = x * x\n"),
            ("ruby", "def f(x) = x + 1\n"),
            ("c", "int f(int x) { return x * x; }\n"),
            ("c", "int f(int x) { return x; }\n"),
            ("c", "int f(int x) { return y; }\n"),
        ],
        &[],
    );
    assert_eq!(statuses(&found), ["AC", "RE", "AC", "RE", "AC", "RE", "CE"]);
    assert_eq!(found[1]["passed"], 1);
}

/// Accepts any two numbers with the right sum; says the points of near misses; fails on request.
const SUM_CHECKER: &str = r#"
import sys
files = [open(path).read().split() for path in sys.argv[1:4]]
numbers, answer = [int(w) for w in files[1]], int(files[2][0])
if len(numbers) != 2:
    sys.exit(2)
if numbers[0] == 666:
    sys.exit(3)
if sum(numbers) == answer and files[0] == ["7"]:
    sys.exit(0)
if abs(sum(numbers) - answer) == 1:
    sys.stderr.write("points 0.5 near\n")
    sys.exit(7)
sys.exit(1)
"#;

#[test]
fn a_checker_program_decides_in_a_sandbox_of_its_own() {
    if !can_judge(&["python", "c"]) {
        return;
    }
    let checker = json!({"kind": "program", "language": "python", "source": SUM_CHECKER});
    let problem = json!({
        "checker": checker,
        "groups": [{"name": "all", "points": 10}],
        "tests": [{"input": "7\n", "output": "10\n", "group": "all"}, {"input": "7\n", "output": "10\n", "group": "all"}],
    });
    let programs = [
        ("python", "print(3, 7)\n"),
        ("python", "print(5)\nprint(5)\n"),
        ("python", "print(3, 8)\n"),
        ("python", "print(1, 1)\n"),
        ("python", "print(10)\n"),
        ("python", "print(666, 1)\n"),
        // The checker, its arguments and the answer are nowhere to be found.
        (
            "python",
            "import glob\nassert not [f for d in ('/box', '/tmp', '/run', '/cache') for f in glob.glob(d + '/*') if 'answer' in f or 'check' in f and not f.startswith('/run/checkpoint')]\nprint(4, 6)\n",
        ),
        ("c", "#include <stdio.h>\nint main(void) { puts(\"4 6\"); return 0; }\n"),
    ];
    let found = verdicts(&problem, &programs, &["-j2"]);
    assert_eq!(statuses(&found), ["AC", "AC", "WA", "WA", "WA", "IE", "AC", "AC"]);
    assert_eq!(found[2]["tests"][0]["score"], 0.5);
    let scores: Vec<_> = found.iter().map(|v| v["score"].as_f64()).collect();
    let points = |x: f64| Some(x);
    assert_eq!(scores[..5], [points(10.0), points(10.0), points(5.0), points(0.0), points(0.0)]);
    assert!(found[5]["message"].as_str().unwrap().contains("the checker failed (exit Some(3)"));
    assert_eq!((&found[5]["reward"], &found[5]["failure"]), (&Value::Null, &Value::Null));
    let asked = verdicts(&problem, &programs[4..5], &["--presentation"]);
    assert_eq!(statuses(&asked), ["PE"]);
}

#[test]
fn a_compiled_checker_with_a_header_is_built_once_and_a_broken_one_is_no_programs_fault() {
    if !can_judge(&["python", "c"]) {
        return;
    }
    let source = "#include \"lib.h\"\nint main(int n, char **a) { return n == 4 ? CODE : 3; }\n";
    let with = |code: &str| {
        let checker = json!({"kind": "program", "language": "C", "source": source,
                             "files": [{"name": "lib.h", "content": format!("#define CODE {code}\n")}]});
        let problem = json!({"checker": checker, "tests": [{"output": ""}, {"output": ""}]});
        verdicts(&problem, &[("python", "print(1)\n"), ("python", "1 / 0\n")], &[])
    };
    assert_eq!(statuses(&with("0")), ["AC", "RE"]);
    assert_eq!(statuses(&with("1")), ["WA", "RE"]);
    let broken = with("oops");
    assert_eq!(statuses(&broken), ["IE", "RE"]);
    assert!(broken[0]["message"].as_str().unwrap().contains("the checker does not compile"));
}

/// Guess a number in seven questions. The interactor reads it from its input and says where the guess lies.
const GUESS: &str = r#"
import sys
secret = int(open(sys.argv[1]).read())
for _ in range(7):
    line = sys.stdin.readline()
    if not line:
        sys.exit(1)
    guess = int(line)
    if guess == secret:
        print("found", flush=True)
        sys.exit(0)
    print("higher" if guess < secret else "lower", flush=True)
print("lost", flush=True)
sys.exit(1)
"#;

#[test]
fn an_interactor_decides_and_the_first_to_fail_is_to_blame() {
    if !can_judge(&["python", "c"]) {
        return;
    }
    let checker = json!({"kind": "program", "language": "python", "source": GUESS});
    let problem = json!({"checker": checker, "limits": {"cpu_ms": 1000, "wall_ms": 2500}, "tests": [
        {"kind": "interactive", "input": "42\n"}, {"kind": "interactive", "input": "100\n"}]});
    let search = |end: &str| {
        format!(
            "lo, hi = 1, 100\nwhile True:\n    m = (lo + hi + 1) // 2\n    print(m, flush=True)\n    r = input()\n    \
             if r == 'found': {end}\n    if r == 'higher': lo = m + 1\n    else: hi = m - 1\n"
        )
    };
    let programs = [
        ("python", &*search("break")),
        ("python", &*search("raise SystemExit(5)")),
        // Too many questions: the interactor gives up, and the broken pipe that follows is no crash of its own.
        ("python", "for i in range(1, 101):\n    print(i, flush=True)\n    if input() == 'found': break\n"),
        ("python", "print(1, flush=True)\ninput()\n1 / 0\n"),
        ("python", "print(1)\n"),
        ("python", "input()\n"),
        (
            "c",
            "#include <stdio.h>\nint main(void) { int lo = 1, hi = 100; char r[9];\n for (;;) { int m = (lo + hi + 1) / 2; printf(\"%d\\n\", m); fflush(stdout); if (scanf(\"%8s\", r) != 1) return 1; if (*r == 'f') return 0; if (*r == 'h') lo = m + 1; else hi = m - 1; } }\n",
        ),
        ("python", "while True: pass\n"),
    ];
    let found = verdicts(&problem, &programs, &["-j2"]);
    assert_eq!(statuses(&found), ["AC", "RE", "WA", "RE", "WA", "TLE", "AC", "TLE"]);
    // The same when many run at once.
    assert_eq!(found, verdicts(&problem, &programs, &["-j4"]));
}

#[test]
fn failures_are_classed_and_groups_survive_a_first_failure() {
    if !can_judge(&["python"]) {
        return;
    }
    let test = |n: &str, group: &str| json!({"input": n, "output": n, "group": group});
    let problem = json!({
        "limits": {"cpu_ms": 300},
        "groups": [{"name": "small", "points": 40}, {"name": "large", "points": 60}],
        "tests": [test("1", "small"), test("2", "small"), test("3", "large"), test("4", "large")],
    });
    let slow_from = |n: u32| format!("n = int(input())\nwhile n >= {n}: pass\nprint(n)\n");
    let programs = [
        ("python", &*slow_from(9)),
        ("python", &*slow_from(4)),
        ("python", "n = int(input())\nprint(n if n != 1 else 0)\n"),
        ("python", "n = int(input())\nwhile n == 4: pass\nprint(n if n != 1 else 0)\n"),
    ];
    let of = |flags: &[&str]| -> Vec<Value> {
        let pick = |v: &Value| json!([v["status"], v["score"], v["failure"], v["run"]]);
        verdicts(&problem, &programs, flags).iter().map(pick).collect()
    };
    assert_eq!(
        of(&[]),
        [
            json!(["AC", 100.0, null, 4]),
            json!(["TLE", 40.0, "optimisation", 4]),
            json!(["WA", 60.0, "correctness", 4]),
            json!(["WA", 0.0, "correctness", 4]),
        ]
    );
    assert_eq!(of(&["--first-failure"])[2], json!(["WA", 60.0, "correctness", 3]));
}
