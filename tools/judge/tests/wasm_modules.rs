//! Attacks on the WebAssembly engine itself: modules that no compiler of ours would make, brought in by a languages table
//! whose "compiler" is `base64 -d`. Whatever a module holds, the judge gives a verdict on its program, and goes on.

mod common;
mod modules;

use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use common::{Case, JUDGE, can_judge, program, records, sum_problem};
use modules::{Module, code, imported, leb, list, name, section};
use serde_json::Value;

const TABLE: &str = r#"
[forged]
display = "Forged"
spellings = ['forged']
extension = "b64"
line_comment = "//"
source = "main.b64"
run = ["true"]
version = ["true"]
[forged.wasm]
compile = ["sh", "-c", "base64 -d /box/main.b64 > /box/main.wasm"]
fuel_per_ms = 20_000_000
"#;

/// Statuses of modules, in order. The judge must neither fail nor start anything again.
fn judge(modules: &[Vec<u8>]) -> Option<Vec<Value>> {
    if !can_judge(&["bash"]) {
        return None; // no container that could hold a compiler
    }
    let case = Case::new();
    let table = case.text("forged.toml", TABLE);
    case.lines("problems.jsonl", &[sum_problem()]);
    let line = |bytes: &Vec<u8>| program("x", "forged", &BASE64_STANDARD.encode(bytes));
    case.lines("programs.jsonl", &modules.iter().map(line).collect::<Vec<_>>());
    let limits = ["--cpu-ms", "100", "--memory-mb", "64", "--output-kb", "64", "--first-failure"];
    let output = case
        .command(&["--sandbox", "wasm", "--languages", table.to_str().unwrap(), "programs.jsonl", "-j2"])
        .args(limits)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("judged again"), "{said}");
    Some(records(&output.stdout).into_iter().map(|r| r["verdict"].clone()).collect())
}

/// Each module gets one of the statuses named beside it.
fn check(modules: &[(&str, Vec<u8>, &str)]) {
    let bytes: Vec<Vec<u8>> = modules.iter().map(|(_, bytes, _)| bytes.clone()).collect();
    let Some(verdicts) = judge(&bytes) else { return };
    assert_eq!(verdicts.len(), modules.len());
    let wrong: Vec<String> = modules
        .iter()
        .zip(&verdicts)
        .filter(|((.., wanted), verdict)| !wanted.split(' ').any(|w| verdict["status"] == w))
        .map(|((what, _, wanted), verdict)| format!("{what}: wanted {wanted}: {verdict}"))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The base of most: two pages of memory, `_start`, and imports of fd_write, random_get, poll_oneoff, fd_read.
fn plain() -> Module {
    Module::default()
}

#[test]
fn what_is_no_program_is_a_compile_error() {
    let component = [b"\0asm".as_slice(), &[0x0d, 0, 1, 0]].concat();
    let long = [b"\0asm\x01\0\0\0".as_slice(), &section(0, &vec![b'x'; 25 << 20])].concat();
    check(&[
        ("nothing", Vec::new(), "CE"),
        ("text", b"#include <stdio.h>".to_vec(), "CE"),
        ("an ELF file", std::fs::read(JUDGE).unwrap()[..4096].to_vec(), "CE"),
        ("a component", component, "CE"),
        ("more than may be", long, "CE"),
        ("the end is missing", plain().code(&[]).bytes()[..60].to_vec(), "CE"),
        ("an unknown import", plain().import("env", "secret", 0).bytes(), "CE"),
        ("a guest's import", plain().import("cognate", "throw", 0).bytes(), "CE"),
        ("an import of another type", plain().import("wasi_snapshot_preview1", "fd_write", 0).bytes(), "CE"),
        ("a table that no instance could have", plain().table(1 << 30).bytes(), "CE"),
        ("two memories", plain().memory(&[0, 1]).memory(&[0, 1]).bytes(), "CE"),
        ("a memory of 64 bits", plain().memory(&[4, 1]).bytes(), "CE"),
        ("a shared memory", plain().memory(&[3, 1, 1]).bytes(), "CE"),
        ("a million locals", plain().locals(1_000_000).code(&[]).bytes(), "CE"),
        ("atomics", plain().code(&[0x41, 0, 0xfe, 0x10, 2, 0, 0x1a]).bytes(), "CE"),
        ("an ill-typed body", plain().code(&[0x42, 0, 0x41, 0, 0x6a, 0x1a]).bytes(), "CE"),
        ("a branch to nowhere", plain().code(&[0x0c, 77]).bytes(), "CE"),
    ]);
}

#[test]
fn instances_keep_to_their_limits() {
    let fill = [
        code::i32(0),
        code::i32(0),
        code::i32(120_000),
        vec![0xfc, 0x0b, 0], // memory.fill
    ];
    let forever = |body: &[u8]| code::forever(body);
    let call = |index: u8, arguments: &[i32]| {
        [arguments.iter().flat_map(|n| code::i32(*n)).collect(), vec![0x10, index, 0x1a]].concat()
    };
    check(&[
        ("no start", [b"\0asm\x01\0\0\0".as_slice()].concat(), "RE"),
        ("nothing done", plain().code(&[]).bytes(), "WA"),
        ("all of memory at once", plain().memory(&[0, 0x80, 0x80, 4]).bytes(), "MLE"),
        ("memory.grow for ever", plain().code(&forever(&[0x41, 1, 0x40, 0, 0x1a])).bytes(), "MLE"),
        ("memory.grow by everything", plain().code(&[0x41, 0xff, 0xff, 3, 0x40, 0, 0x1a]).bytes(), "MLE"),
        (
            "table.grow for ever",
            {
                let grow = [vec![0xd0, 0x70], code::i32(1 << 16), vec![0xfc, 0x0f, 0, 0x1a]].concat();
                plain().table(1).code(&forever(&grow)).bytes()
            },
            "TLE",
        ),
        ("a loop", plain().code(&forever(&[])).bytes(), "TLE"),
        ("a loop in the start function", plain().code(&forever(&[])).starting().bytes(), "TLE"),
        ("tail calls for ever", plain().code(&[0x12, 4]).bytes(), "TLE"),
        ("recursion", plain().code(&[0x10, 4]).bytes(), "RE"),
        (
            "recursion with wide frames",
            plain().locals(20_000).code(&[0x10, 4, 0x41, 0, 0x21, 0]).bytes(),
            "RE TLE",
        ),
        ("memory.fill for ever", plain().code(&forever(&fill.concat())).bytes(), "TLE"),
        ("random numbers for ever", plain().code(&forever(&call(1, &[0, 120_000]))).bytes(), "TLE"),
        ("calls for ever", plain().code(&forever(&call(1, &[0, 0]))).bytes(), "TLE"),
        ("reading for ever", plain().code(&forever(&call(3, &[0, 0, 0, 0]))).bytes(), "TLE"),
        ("waiting for ever", plain().code(&forever(&call(2, &[0, 1024, 1, 2048]))).bytes(), "TLE WA"),
        (
            "addresses beyond memory",
            {
                let ends = [i32::MAX, -1, -4, -8, i32::MIN, 131_071, 131_068];
                let calls = ends.map(|at| {
                    [
                        call(0, &[1, at, 1, at]),
                        call(1, &[at, -1]),
                        call(2, &[at, at, 1024, at]),
                        call(3, &[0, at, 1024, at]),
                    ]
                    .concat()
                });
                plain().code(&calls.concat()).bytes()
            },
            "WA",
        ),
        ("a memory that is not exported", plain().hidden().code(&call(1, &[0, 8])).bytes(), "WA"),
        ("data beyond memory", plain().data(131_070, b"abcd").bytes(), "RE"),
        (
            "floods",
            {
                let vector = [code::store(0, 64), code::store(4, 60_000)].concat();
                plain().code(&[vector, forever(&call(0, &[1, 0, 1, 16]))].concat()).bytes()
            },
            "OLE",
        ),
        ("a null reference is called", plain().table(4).code(&[0x41, 2, 0x11, 0, 0]).bytes(), "RE"),
        ("beyond the table", plain().table(4).code(&[0x41, 0xe4, 0, 0x11, 0, 0]).bytes(), "RE"),
    ]);
}

/// What takes Cranelift long, or much memory, or a deep stack. None may take more than the translator has.
#[test]
fn bombs_cost_their_translator_only() {
    let ladder = |depth: usize| [[0x02, 0x40].repeat(depth), vec![0x0b; depth]].concat();
    let choice = |targets: u64, times: usize| {
        let targets = [leb(targets), vec![0; targets as usize + 1]].concat();
        [vec![0x02, 0x40], [code::i32(1), vec![0x0e], targets].concat(), vec![0x0b]].concat().repeat(times)
    };
    // Every step reads what all before it wrote, in loops within loops: live ranges that meet everywhere.
    let web = |steps: usize| {
        let step = |i: usize| {
            let (a, b) = (leb((i * 7919 % 2000) as u64), leb((i * 104_729 % 2000) as u64));
            [
                vec![0x03, 0x40, 0x20],
                a.clone(),
                vec![0x20],
                b.clone(),
                vec![0x6a, 0x22],
                a,
                vec![0x0d, 0, 0x0b],
            ]
            .concat()
        };
        (0..steps).flat_map(step).collect::<Vec<u8>>()
    };
    let many = (0..300_000).fold(plain(), |module, _| module.function(&[]));
    check(&[
        ("nested blocks", plain().code(&ladder(200_000)).bytes(), "WA CE"),
        ("large choices", plain().code(&choice(60_000, 40)).bytes(), "WA CE"),
        ("functions", many.bytes(), "WA CE"),
        ("locals", plain().locals(50_000).code(&[0x20, 0, 0x1a]).bytes(), "WA CE"),
        ("a web of loops", plain().locals(2000).code(&web(400_000)).bytes(), "CE"),
        // And a translator stands again.
        ("nothing done", plain().code(&[]).bytes(), "WA"),
    ]);
}

/// One byte of a good module changed: every verdict is allowed but the judge's own failure.
#[test]
fn every_changed_byte_leaves_the_judge_whole() {
    let good = plain().table(4).data(8, b"text").code(&[code::store(0, 8), vec![0x10, 4]].concat()).bytes();
    let changed = |(at, mask): (usize, u8)| {
        let mut bytes = good.clone();
        bytes[at] ^= mask;
        bytes
    };
    let places = (8..good.len()).flat_map(|at| [(at, 0xff), (at, 1 << (at % 7))]);
    let Some(verdicts) = judge(&places.map(changed).collect::<Vec<_>>()) else { return };
    assert!(verdicts.iter().all(|v| v["status"] != "IE" && v["status"] != "AC"), "{verdicts:?}");
    let refused = verdicts.iter().filter(|v| v["status"] == "CE").count();
    assert!(refused > good.len() / 2 && refused < verdicts.len(), "{refused} of {} refused", verdicts.len());
}

#[test]
fn imports_are_those_of_the_base() {
    // What the tables above call by number.
    let names = imported().map(|(name, _)| name);
    assert_eq!(names, ["fd_write", "random_get", "poll_oneoff", "fd_read"]);
    assert_eq!(leb(300), [0xac, 2]);
    assert_eq!(list(&[name("a")]), [1, 1, b'a']);
    assert!(Command::new(JUDGE).arg("--help").output().unwrap().status.success());
}
