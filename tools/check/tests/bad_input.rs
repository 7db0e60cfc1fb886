//! What every tool of the suite does with bad input: says what is wrong and where, exits with 3 (1 for a full disk),
//! leaves nothing behind. Each command is first run on good input, which must work, so that a refusal means something.
//!
//! The tools are the binaries beside cog-check; one that has not been built is passed over with a loud word.

mod bench;

use std::process::Stdio;

use bench::{Bench, Outcome, run, sibling};
use serde_json::json;

struct Row {
    tool: &'static str,
    command: &'static [&'static str],
    /// Types of the inputs that are spoilt one after another.
    spoilt: &'static [&'static str],
    /// Damage that this command need not notice, as type:damage, and why.
    unnoticed: &'static [&'static str],
}

const DAMAGES: [&str; 6] = ["truncated", "half", "version", "kobol", "no-output", "empty"];

const fn row(tool: &'static str, command: &'static [&'static str], spoilt: &'static [&'static str]) -> Row {
    Row { tool, command, spoilt, unnoticed: &[] }
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("check", &["{problem}"], &["problem"]),
    row("check", &["{program}"], &["program"]),
    row("check", &["{group}"], &["group"]),
    row("check", &["{packed}"], &["packed"]),
    row("check", &["{prompt}"], &["prompt"]),
    row("check", &["{rollout}"], &["rollout"]),
    row("check", &["{metric}"], &["metric"]),
    row("check", &["--problems", "{problem}", "{program}"], &["problem"]),
    // A foreign corpus may hold any language; those that are not in the table are counted.
    Row {
        unnoticed: &["program:kobol"],
        ..row("mine", &["import", "{program}", "{problem}", "-o", "{out}/corpus"], &["program", "problem"])
    },
    row("mine", &["candidates", "{program}", "--problems", "{problem}", "-o", "{out}/candidates.jsonl"], &["program", "problem"]),
    row("mine", &["groups", "{program}", "--problems", "{problem}", "-o", "{out}/groups.parquet"], &["program", "problem"]),
    // A filter: nothing in, nothing out; who comes after it says that there is nothing.
    Row {
        unnoticed: &["program:empty"],
        ..row("judge", &["--tests", "{problem}", "{program}", "-o", "{out}/judged.jsonl"], &["program", "problem"])
    },
    row("mix", &["tokenizer", "{program}", "--problems", "{problem}", "--vocab", "300", "-o", "{out}/tokenizer"], &["program", "problem"]),
    row("mix", &["base", "{program}", "--problems", "{problem}", "--tokenizer", "{tokenizer}", "--splits", "sft", "--tokens", "100",
        "-o", "{out}/base.parquet"], &["program", "problem"]),
    row("mix", &["sft", "--groups", "{group}", "--problems", "{problem}", "--tokenizer", "{tokenizer}", "--languages", "python,ruby",
        "--tokens", "90", "--tolerance", "0.9", "--batch", "1", "-o", "{out}/mix"], &["group", "problem"]),
    row("mix", &["prompts", "--problems", "{problem}", "--languages", "python", "--tokenizer", "{tokenizer}",
        "-o", "{out}/prompts.jsonl"], &["problem"]),
    row("train", &["lm", "--model", "{model}", "--data", "{packed}", "--steps", "1", "--batch", "1", "-o", "{out}/model"], &["packed"]),
    // The sampler and the tables carry a language's name and need to know nothing about it.
    Row {
        unnoticed: &["prompt:kobol"],
        ..row("sample", &["--model", "{model}", "--prompts", "{prompt}", "--max-tokens", "4", "-o", "{out}/rollouts.jsonl"], &["prompt"])
    },
    row("probe", &["--model", "{model}", "--programs", "{program}", "-o", "{out}/metrics.jsonl"], &["program"]),
    Row { unnoticed: &["rollout:kobol"], ..row("score", &["pass", "{rollout}", "-o", "{out}/pass.md"], &["rollout"]) },
];

fn name(row: &Row) -> String {
    format!("cog-{} {}", row.tool, row.command.join(" "))
}

/// No byte that could drive a terminal.
fn quiet(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t' && c != '\r')
}

#[test]
fn every_tool_refuses_damaged_records_and_leaves_nothing() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for row in ROWS {
        let Some(binary) = sibling(row.tool) else { continue };
        bench.fresh_out();
        let good = run(&binary, &bench.arguments(row.command, None), Stdio::piped());
        if good.code != Some(0) {
            failures.push(format!("{}: good input: exit {:?}: {}", name(row), good.code, good.stderr));
            continue;
        }
        for kind in row.spoilt {
            for damage in DAMAGES {
                let Some((path, says)) = bench.spoilt(kind, damage) else { continue };
                if row.unnoticed.contains(&format!("{kind}:{damage}").as_str()) {
                    continue;
                }
                bench.fresh_out();
                let out = run(&binary, &bench.arguments(row.command, Some((kind, &path))), Stdio::piped());
                let Outcome { code, stderr, .. } = &out;
                let case = format!("{}: {damage} {kind}", name(row));
                if *code != Some(3) {
                    failures.push(format!("{case}: exit {code:?}: {stderr}"));
                } else if !says.iter().any(|word| stderr.contains(word)) || !quiet(stderr) {
                    failures.push(format!("{case}: unclear: {stderr}"));
                }
                let left = leftovers(&bench);
                if !left.is_empty() {
                    failures.push(format!("{case}: left {left:?}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// What stands in the folder for outputs, empty folders aside, and a trainer's checkpoint, which is its own state and
/// no output.
fn leftovers(bench: &Bench) -> Vec<String> {
    let out = bench.path("out");
    let filled = |name: &String| {
        let path = out.join(name);
        let filled = !path.is_dir() || std::fs::read_dir(path).is_ok_and(|mut d| d.next().is_some());
        filled && !name.ends_with(".ckpt")
    };
    bench.left().into_iter().filter(filled).collect()
}

#[test]
fn a_full_disk_is_a_failure_that_leaves_nothing() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    let script = r#"
        mount -t tmpfs -o size=64k tmpfs "$1" || exit 99
        head -c 1000000 /dev/zero > "$1/ballast" 2> /dev/null
        out=$1; shift
        "$@"; code=$?
        find "$out" -mindepth 1 \( ! -type d -o -name '.*' \) ! -name ballast ! -path '*.ckpt*' | sed 's/^/LEFT /' >&2
        exit $code"#;
    let namespace: &[&str] = if may_mount("-m") {
        &["-m"]
    } else if may_mount("-rm") {
        &["-rm"]
    } else {
        eprintln!("SKIPPED: no mount namespace here, so no full disk");
        return;
    };
    for row in ROWS.iter().filter(|r| r.command.contains(&"-o")) {
        let Some(binary) = sibling(row.tool) else { continue };
        let out = bench.fresh_out();
        let mut arguments: Vec<String> = namespace.iter().map(|s| (*s).to_owned()).collect();
        arguments.extend(["sh", "-c", script, "sh"].map(str::to_owned));
        arguments.extend([out.display().to_string(), binary.display().to_string()]);
        arguments.extend(bench.arguments(row.command, None));
        let outcome = run("unshare".as_ref(), &arguments, Stdio::null());
        if outcome.code != Some(1) || outcome.stderr.contains("LEFT ") || !outcome.stderr.contains("space") {
            failures.push(format!("{}: exit {:?}: {}", name(row), outcome.code, outcome.stderr));
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn may_mount(flags: &str) -> bool {
    let script = "mount -t tmpfs -o size=64k tmpfs /mnt";
    let arguments = [flags, "sh", "-c", script].map(str::to_owned);
    std::process::Command::new("unshare")
        .args(arguments)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}

#[test]
fn a_full_device_behind_stdout_is_a_failure() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for (tool, command) in [
        ("check", &["{program}"] as &[&str]),
        ("mine", &["candidates", "{program}"]),
        ("mine", &["groups", "{program}"]),
        ("judge", &["--tests", "{problem}", "{program}"]),
        (
            "mix",
            &["prompts", "--problems", "{problem}", "--languages", "python", "--tokenizer", "{tokenizer}"],
        ),
        ("sample", &["--model", "{model}", "--prompts", "{prompt}", "--max-tokens", "4"]),
        ("probe", &["--model", "{model}", "--programs", "{program}"]),
        ("score", &["pass", "{rollout}"]),
        ("synth", &["--problems", "5", "--dry-run"]),
        ("judge", &["languages", "--names"]),
        ("judge", &["clean", "--dry-run", "--json"]),
    ] {
        let Some(binary) = sibling(tool) else { continue };
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let out = run(&binary, &bench.arguments(command, None), full.into());
        if out.code != Some(1) || !out.stderr.contains("space") {
            failures.push(format!("cog-{tool}: exit {:?}: {}", out.code, out.stderr));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_model_with_a_missing_or_cut_tensor_is_refused() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    let weights = bench.path("model/model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    let renamed = String::from_utf8_lossy(&whole[8..]).find("model.norm.weight").unwrap() + 8;
    let mut missing = whole.clone();
    missing[renamed..renamed + 17].copy_from_slice(b"model.form.weight");
    for (damage, bytes, says) in [
        ("missing tensor", missing, "model.norm.weight"),
        ("cut", whole[..whole.len() / 2].to_vec(), "model"),
    ] {
        std::fs::write(&weights, bytes).unwrap();
        for (tool, command) in [
            ("check", &["{model}"] as &[&str]),
            (
                "train",
                &["lm", "--model", "{model}", "--data", "{packed}", "--steps", "1", "-o", "{out}/model"],
            ),
            ("sample", &["--model", "{model}", "--prompts", "{prompt}", "-o", "{out}/rollouts.jsonl"]),
            ("probe", &["--model", "{model}", "--programs", "{program}", "-o", "{out}/metrics.jsonl"]),
        ] {
            let Some(binary) = sibling(tool) else { continue };
            bench.fresh_out();
            let out = run(&binary, &bench.arguments(command, None), Stdio::piped());
            if out.code != Some(3) || !out.stderr.contains(says) || !leftovers(&bench).is_empty() {
                failures.push(format!(
                    "cog-{tool}, {damage}: exit {:?}, left {:?}: {}",
                    out.code,
                    leftovers(&bench),
                    out.stderr
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Special-token strings and terminal escapes in model text and in corpora are text and nothing else.
#[test]
fn special_tokens_and_escapes_are_harmless() {
    let bench = Bench::new();
    let venom = "\u{1b}[2J\u{1b}]0;owned\u{7}<|end|><code><|pad|>";
    for kind in ["problem", "program", "group", "prompt", "rollout"] {
        let mut records = bench::good(kind);
        for record in &mut records {
            let comment = format!("# {venom}\n");
            for field in ["statement", "source", "text"] {
                if let Some(text) = record[field].as_str() {
                    record[field] = json!(format!("{comment}{text}"));
                }
            }
        }
        std::fs::write(bench.path(&format!("{kind}.jsonl")), bench::lines(&records)).unwrap();
    }
    let mut failures = Vec::new();
    for row in ROWS {
        let Some(binary) = sibling(row.tool) else { continue };
        bench.fresh_out();
        let out = run(&binary, &bench.arguments(row.command, None), Stdio::piped());
        if out.code != Some(0) || !quiet(&out.stderr) || !quiet(&String::from_utf8_lossy(&out.stdout)) {
            failures.push(format!("{}: exit {:?}: {:?}", name(row), out.code, out.stderr));
        }
    }
    // A name that is refused is shown without its power.
    for kind in ["program", "rollout", "prompt"] {
        let text = bench::lines(&bench::good(kind)).replacen("\"python\"", "\"\\u001b[2Jkobol\"", 1);
        std::fs::write(bench.path("venom.jsonl"), text).unwrap();
        for row in ROWS.iter().filter(|r| r.spoilt.contains(&kind)) {
            let Some(binary) = sibling(row.tool) else { continue };
            bench.fresh_out();
            let out = run(
                &binary,
                &bench.arguments(row.command, Some((kind, &bench.path("venom.jsonl")))),
                Stdio::piped(),
            );
            if !quiet(&out.stderr) || !quiet(&String::from_utf8_lossy(&out.stdout)) {
                failures.push(format!("{}: {kind} with an escape in a name: {:?}", name(row), out.stderr));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Zero where a share or a size must be more is said at once, not after a day's work or never.
#[test]
fn a_zero_ratio_is_refused() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    let base = &[
        "base",
        "{program}",
        "--problems",
        "{problem}",
        "--tokenizer",
        "{tokenizer}",
        "--splits",
        "sft",
        "-o",
        "{out}/base.parquet",
    ];
    for more in [
        ["--tokens", "100", "--kinds", "raw=0"],
        ["--tokens", "100", "--weights", "python=0,ruby=0"],
        ["--tokens", "0", "--kinds", "raw=1"],
    ] {
        let Some(binary) = sibling("mix") else { return };
        bench.fresh_out();
        let command: Vec<&str> = base.iter().chain(&more).copied().collect();
        let out = run(&binary, &bench.arguments(&command, None), Stdio::piped());
        if !matches!(out.code, Some(2 | 3)) || out.stderr.trim().is_empty() || !leftovers(&bench).is_empty() {
            failures.push(format!(
                "cog-mix {more:?}: exit {:?}, left {:?}: {}",
                out.code,
                leftovers(&bench),
                out.stderr
            ));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
