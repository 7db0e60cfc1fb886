//! The WebAssembly sandbox: every verdict, in Lua (whose guest is built in) and in C where this machine has a compiler
//! for it; runs are functions of program and input.

mod common;

use std::process::Command;

use common::{Case, JUDGE, program, records, sum_problem};
use serde_json::{Value, json};

/// False, loudly, where a language has no route here.
fn has(language: &str) -> bool {
    let output = Command::new(JUDGE).args(["languages", "--json"]).output().unwrap();
    let table: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let row = table.iter().find(|l| l["name"] == language).unwrap();
    if row["wasm"] != true {
        eprintln!("SKIPPED: no {language} in WebAssembly: {}", row["wasm_missing"]);
        return false;
    }
    true
}

fn judge(case: &Case, language: &str, sources: &[(&str, &str)], more: &[&str]) -> Vec<Value> {
    let lines: Vec<Value> = sources.iter().map(|(want, source)| program(want, language, source)).collect();
    case.lines("programs.jsonl", &lines);
    let arguments = [&["--sandbox", "wasm", "--excerpts", "programs.jsonl"], more].concat();
    let output = case.judge(&arguments, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    records(&output.stdout)
}

/// Each program gets the verdict that is its id.
fn check(case: &Case, language: &str, sources: &[(&str, &str)]) {
    for record in
        judge(case, language, sources, &["--cpu-ms", "100", "--memory-mb", "64", "--output-kb", "256"])
    {
        assert_eq!(record["verdict"]["status"], record["id"], "{record}");
    }
}

fn sum() -> Case {
    let case = Case::new();
    case.lines("problems.jsonl", &[sum_problem()]);
    case
}

const LUA: &[(&str, &str)] = &[
    ("AC", "print(math.tointeger(io.read('n') + io.read('n')))"),
    ("AC", "local a, b = io.read('a'):match('(%d+) (%d+)') print(a + b)"),
    ("AC", "for l in io.lines() do local a, b = l:match('(%d+) (%d+)') io.write(a + b, '\\n') end"),
    ("WA", "print(1)"),
    ("WA", ""),
    ("RE", "error('no')"),
    ("RE", "print(("),
    ("RE", "print(3) os.exit(3)"),
    ("RE", "print(3) error({})"),
    ("RE", "local function f(s) return (s:gsub('.', f)) end f('x')"),
    ("RE", "coroutine.wrap(function() error('inside') end)()"),
    ("TLE", "while true do end"),
    ("TLE", "while true do pcall(error, 'x') end"),
    ("TLE", "local function f() return f() end f()"),
    ("TLE", "repeat until os.clock() > 3600"),
    ("MLE", "local t = {} for i = 1, 1e9 do t[i] = i end"),
    ("MLE", "local s = 'x' while true do s = s .. s end"),
    // A program that catches the failed allocation is not asked.
    ("MLE", "pcall(string.rep, 'x', 200000000) print(3)"),
    ("OLE", "while true do print('yes') end"),
    ("OLE", "while true do io.stderr:write('yes') end"),
];

#[test]
fn lua_gets_every_verdict() {
    if has("lua") {
        check(&sum(), "lua", LUA);
    }
}

/// Each prints the sum only if what it tries is not to be had.
const LUA_ATTACKS: &[&str] = &[
    "assert(not io.open('/etc/passwd'))",
    "assert(not io.open('/proc/self/environ'))",
    "assert(not io.open('/box/../etc/passwd'))",
    "assert(not io.open('../../etc/passwd'))",
    "assert(not io.open('/box/problems.jsonl'))",
    "assert(not io.open('/box/main.lua', 'w'))",
    "assert(not io.open('/box/main.lua', 'a'))",
    "assert(not io.open('/box/new', 'w'))",
    "assert(not io.open('/tmp/state', 'w'))",
    "assert(not pcall(io.popen, 'id'))",
    "assert(os.execute() == false or not os.execute('true'))",
    "assert(not os.remove('/box/main.lua'))",
    "assert(not os.rename('/box/main.lua', '/box/x'))",
    "assert(not pcall(require, 'socket'))",
    "assert(not package.loadlib('/lib/x86_64-linux-gnu/libc.so.6', 'system'))",
    // Nothing of a run is there in the next: each program runs twice.
    "assert(_G.been == nil) _G.been = true string.been = true",
    "assert(string.been == nil)",
    // Errors through many protected calls, coroutines and finalisers.
    "for i = 1, 20000 do assert(not pcall(error, i)) end",
    "local n = 0 for i = 1, 100 do local c = coroutine.wrap(function() for j = 1, 10 do coroutine.yield(j) end end) n = n + c() end assert(n == 100)",
    "local ok, e = pcall(function() local x <close> = setmetatable({}, {__close = function() error('close') end}) error('body') end) assert(not ok and e:find('close'))",
    "local function deep(n) if n == 0 then error('bottom') end return pcall(deep, n - 1) end for i = 1, 100 do deep(150) end",
    // The day is always the same, and so is chance.
    "assert(os.time() == 1577836800 or os.time() == 1577836801)",
];

#[test]
fn lua_reaches_nothing_and_errors_unwind() {
    if !has("lua") {
        return;
    }
    let sources: Vec<String> = LUA_ATTACKS
        .iter()
        .map(|attack| format!("{attack}\nprint(math.tointeger(io.read('n') + io.read('n')))\n"))
        .collect();
    let pairs: Vec<(&str, &str)> = sources.iter().map(|s| ("AC", s.as_str())).collect();
    check(&sum(), "lua", &pairs);
}

#[test]
fn a_run_is_a_function_of_program_and_input() {
    if !has("lua") {
        return;
    }
    let source = "math.randomseed(os.time()) print(os.time(), os.clock(), math.random(), {}, io.read('n'))\n\
                  local n = 0 for i = 1, 300000 do n = n + i % 7 end print(os.clock(), n)";
    let case = sum();
    let said = |more: &[&str]| {
        let judged =
            judge(&case, "lua", &[("WA", source)], &[&["--measured", "--no-result-cache"], more].concat());
        let verdict = &judged[0]["verdict"];
        (
            verdict["tests"].clone(),
            verdict["measured"]["cpu_ms"].clone(),
            verdict["measured"]["memory_kb"].clone(),
        )
    };
    let first = said(&["-j1"]);
    assert!(first.1.as_f64().unwrap() > 0.1, "{first:?}");
    assert_eq!(first, said(&["-j4"]));

    // The limit is the same count in every run: just enough is enough, and a little less is not.
    let one =
        [("AC", "local a, b = io.read('n', 'n') for i = 1, 30000000 do end print(math.tointeger(a + b))")];
    let spent =
        judge(&case, "lua", &one, &["--measured"])[0]["verdict"]["measured"]["tests"][0][0].as_f64().unwrap();
    let at =
        |ms: f64| judge(&case, "lua", &one, &["--cpu-ms", &format!("{ms}")])[0]["verdict"]["status"].clone();
    for _ in 0..2 {
        assert_eq!(at((spent * 1.02).ceil()), "AC");
        assert_eq!(at((spent * 0.98).floor()), "TLE");
    }
}

#[test]
fn verdicts_do_not_depend_on_workers() {
    if !has("lua") {
        return;
    }
    let case = sum();
    let sources: Vec<(&str, &str)> = LUA.iter().chain(LUA).copied().collect();
    let with = |jobs: &str| {
        judge(&case, "lua", &sources, &["--no-result-cache", "--cpu-ms", "50", "--memory-mb", "64", jobs])
    };
    assert_eq!(with("-j1"), with("-j4"));
}

#[test]
fn a_language_without_a_route_is_refused() {
    let case = sum();
    case.lines("programs.jsonl", &[program("x", "ruby", "puts 1")]);
    let output = case.judge(&["--sandbox", "wasm", "programs.jsonl"], "");
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no WebAssembly route"));
}

const C: &[(&str, &str)] = &[
    (
        "AC",
        "#include <stdio.h>\nint main(void) { int a, b; scanf(\"%d %d\", &a, &b); printf(\"%d\\n\", a + b); }",
    ),
    ("WA", "int main(void) { return 0; }"),
    ("CE", "int main(void) { return"),
    (
        "CE",
        "__attribute__((import_module(\"env\"), import_name(\"secret\"))) int f(void);\nint main(void) { return f(); }",
    ),
    (
        "CE",
        "__attribute__((import_module(\"cognate\"), import_name(\"throw\"))) void f(void);\nint main(void) { f(); }",
    ),
    ("CE", "#include <stdio.h>\nint fork(void);\nint main(void) { return fork(); }"),
    ("RE", "int main(void) { return 1; }"),
    ("RE", "#include <stdlib.h>\nint main(void) { abort(); }"),
    ("RE", "int main(void) { volatile int n = 0, m = 7; return m / n; }"),
    ("RE", "int main(void) { *(volatile int *)-4 = 1; }"),
    ("RE", "int f(volatile int n) { return f(n + 1) + n; }\nint main(void) { return f(0); }"),
    ("RE", "int main(void) { ((void (*)(int))1234567)(1); }"),
    ("TLE", "int main(void) { for (volatile int i = 0;;) i++; }"),
    ("TLE", "#include <unistd.h>\nint main(void) { for (;;) sleep(1000); }"),
    (
        "MLE",
        "#include <stdlib.h>\n#include <string.h>\nchar *volatile p;\nint main(void) { for (;;) { p = malloc(1 << 20); memset(p, 1, 1 << 20); } }",
    ),
    (
        "MLE",
        "static volatile char x[300000000];\nint main(void) { for (int i = 0; i < 300000000; i += 4096) x[i] = 1; return 0; }",
    ),
    ("OLE", "#include <stdio.h>\nint main(void) { for (;;) puts(\"yes\"); }"),
    (
        "WA",
        "#include <stdio.h>\n#include <unistd.h>\nint main(void) { puts(\"3\"); fflush(stdout); close(1); puts(\"4\"); }",
    ),
    (
        "WA",
        "#include <stdio.h>\nint main(void) { return fopen(\"/etc/passwd\", \"r\") || fopen(\"/box/x\", \"w\"); }",
    ),
];

#[test]
fn c_gets_every_verdict() {
    if has("c") {
        check(&sum(), "c", C);
    }
}

/// Filling memory is one instruction, whatever its length: real CPU time ends it.
#[test]
fn work_that_fuel_does_not_see_ends() {
    let source = "static char x[60000000];\n__attribute__((target(\"bulk-memory\"))) int main(void) \
                  { for (volatile int i = 0;; i++) __builtin_memset(x, i, sizeof x); }";
    if has("c") {
        let judged = judge(&sum(), "c", &[("TLE", source)], &["--cpu-ms", "20", "--first-failure"]);
        assert_eq!(judged[0]["verdict"]["status"], "TLE", "{}", judged[0]);
    }
}

#[test]
fn assertion_programs_are_judged_too() {
    if !has("lua") {
        return;
    }
    let case = Case::new();
    let tests = json!([
        {"kind": "assert", "language": "lua", "code": "assert(f(2) == 4)"},
        {"kind": "assert", "language": "lua", "code": "assert(f(3) == 9)"},
    ]);
    case.lines(
        "problems.jsonl",
        &[json!({"schema": "problem/1", "id": "sum", "statement": "square", "tests": tests})],
    );
    let sources = [("AC", "function f(x) return x * x end"), ("RE", "function f(x) return x + x end")];
    let judged = judge(&case, "lua", &sources, &[]);
    assert_eq!(judged[0]["verdict"]["status"], "AC", "{}", judged[0]);
    assert_eq!(judged[1]["verdict"]["status"], "RE");
    assert_eq!(judged[1]["verdict"]["passed"], 1);
}

/// Where no namespace may be made (a pod, a hardened distribution) `--sandbox auto` says so once and uses WebAssembly.
#[test]
fn without_namespaces_the_sandbox_is_webassembly() {
    if !has("lua") {
        return;
    }
    let case = sum();
    case.lines(
        "programs.jsonl",
        &[program("AC", "lua", LUA[0].1), program("TLE", "lua", "while true do end")],
    );
    case.lines("ruby.jsonl", &[program("x", "ruby", "puts 1")]);
    // A user namespace of its own, in which no further one may be made.
    let within = |arguments: &[&str]| {
        let none = "echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"";
        Command::new("unshare")
            .args(["--user", "--map-root-user", "sh", "-c", none, "sh", JUDGE, "--tests", "problems.jsonl"])
            .args(["--cpu-ms", "100"])
            .args(arguments)
            .current_dir(case.dir.path())
            .output()
    };
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = match within(&["--sandbox", "container", "programs.jsonl"]) {
        Ok(output) if !said(&output).contains("max_user_namespaces: Permission denied") => output,
        other => {
            eprintln!("SKIPPED: no namespace here that could be without namespaces: {other:?}");
            return;
        }
    };
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(said(&refused).contains("no sandbox: "), "{refused:?}");

    let judged = within(&["--sandbox", "auto", "programs.jsonl"]).unwrap();
    assert!(judged.status.success(), "{judged:?}");
    for record in records(&judged.stdout) {
        assert_eq!(record["verdict"]["status"], record["id"], "{record}");
    }
    let notices = said(&judged).lines().filter(|l| l.contains("WebAssembly")).count();
    assert_eq!(notices, 1, "{}", said(&judged));
    assert!(within(&["-q", "programs.jsonl"]).unwrap().stderr.is_empty());

    let output = within(&["ruby.jsonl"]).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(said(&output).contains("no WebAssembly route"), "{output:?}");
}
