//! What every tool of the suite does alike: help, man page and completions; inputs from pipes and by odd names;
//! `--keep-going`; messages that nobody can read; folders that are no output.

mod bench;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use bench::{Bench, run, sibling};

const TOOLS: [&str; 9] = ["synth", "mine", "judge", "mix", "train", "sample", "probe", "score", "check"];

/// Commands that read records of one type, which stands first.
#[rustfmt::skip]
const READERS: &[(&str, &str, &[&str])] = &[
    ("program", "mine", &["candidates", "{program}", "-o", "{out}/c.jsonl"]),
    ("program", "mine", &["groups", "{program}", "-o", "{out}/g.jsonl"]),
    ("program", "judge", &["--tests", "{problem}", "{program}", "-o", "{out}/j.jsonl"]),
    ("program", "mix", &["tokenizer", "{program}", "--problems", "{problem}", "--vocab", "300", "-o", "{out}/tokenizer"]),
    ("group", "mix", &["sft", "--groups", "{group}", "--problems", "{problem}", "--tokenizer", "{tokenizer}",
        "--languages", "python,ruby", "--tokens", "90", "--tolerance", "0.9", "--batch", "1", "-o", "{out}/mix"]),
    ("problem", "mix", &["prompts", "--problems", "{problem}", "--languages", "python", "--tokenizer", "{tokenizer}",
        "-o", "{out}/p.jsonl"]),
    ("packed", "train", &["lm", "--model", "{model}", "--data", "{packed}", "--steps", "1", "-o", "{out}/model"]),
    ("prompt", "sample", &["--model", "{model}", "--prompts", "{prompt}", "--max-tokens", "4", "-o", "{out}/r.jsonl"]),
    ("program", "probe", &["--model", "{model}", "--programs", "{program}", "-o", "{out}/m.jsonl"]),
    ("rollout", "score", &["pass", "{rollout}", "-o", "{out}/pass.md"]),
];

fn none(failures: &[String]) {
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn help_and_man_page_show_examples_and_completions_come_in_both_spellings() {
    let mut failures = Vec::new();
    for tool in TOOLS {
        let Some(binary) = sibling(tool) else { continue };
        let said = |arguments: &[&str]| {
            let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
            let out = run(&binary, &arguments, Stdio::piped());
            assert_eq!(out.code, Some(0), "cog-{tool} {arguments:?}: {}", out.stderr);
            String::from_utf8(out.stdout).unwrap()
        };
        let help = said(&["--help"]);
        if !help.starts_with("Examples:\n  cog-") || !help.contains("Exit status: 0 done") {
            failures.push(format!("cog-{tool} --help: {help}"));
        }
        // As `man` would print it.
        let man = said(&["--man"]).replace("\\-", "-").replace("\\e", "\\").replace("\n\\&", "\n");
        // Line by line: what --help had to wrap could not be copied from there.
        let shown = help.lines().skip(1).take_while(|l| !l.is_empty()).map(|l| format!("{}\n", &l[2..]));
        let examples: String = shown.collect();
        if !man.contains(&format!(".SH EXAMPLES\n.nf\n{examples}.fi\n"))
            || !man.contains("Exit status: 0 done")
        {
            failures.push(format!("cog-{tool} --man lacks {examples}"));
        }
        let completions = said(&["--completions", "bash"]);
        if !completions.contains(&format!("cog-{tool}")) || said(&["--completions=bash"]) != completions {
            failures.push(format!("cog-{tool} --completions=bash"));
        }
    }
    none(&failures);
}

#[test]
fn a_pipe_is_an_input_like_a_file() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    let check = ("program", "check", &["{program}"] as &[&str]);
    for (kind, tool, command) in READERS.iter().chain([&check]) {
        // Tests are read at random, and need a file.
        let Some(binary) = sibling(tool) else { continue };
        bench.fresh_out();
        let input = bench.path(&format!("{kind}.jsonl"));
        let (start, end): (Vec<&str>, Vec<&str>) = {
            let at = command.iter().position(|a| *a == format!("{{{kind}}}")).unwrap();
            (command[..at].to_vec(), command[at + 1..].to_vec())
        };
        let quoted = |part: &[&str]| bench.arguments(part, None).join("' '");
        let mut script = format!("'{}' '{}' <(cat '{}')", binary.display(), quoted(&start), input.display());
        if !end.is_empty() {
            script += &format!(" '{}'", quoted(&end));
        }
        let script = script.replace(" '' ", " ");
        let out = Command::new("bash").args(["-c", &script]).stdin(Stdio::null()).output().unwrap();
        if !out.status.success() {
            failures.push(format!(
                "{script}: {:?} {}",
                out.status.code(),
                String::from_utf8_lossy(&out.stderr)
            ));
        }
    }
    none(&failures);
}

#[test]
fn a_bad_record_among_good_ones_is_skipped_and_counted_where_asked() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for (kind, tool, command) in READERS {
        let Some(binary) = sibling(tool) else { continue };
        let good = fs::read_to_string(bench.path(&format!("{kind}.jsonl"))).unwrap();
        let (first, rest) = good.split_once('\n').unwrap();
        let path = bench.path("spoilt.jsonl");
        fs::write(&path, format!("{first}\nnot json\n{rest}")).unwrap();
        for (flag, code) in [("--json", 3), ("--keep-going", 0)] {
            bench.fresh_out();
            let mut arguments = bench.arguments(command, Some((kind, &path)));
            arguments.push(flag.to_owned());
            let out = run(&binary, &arguments, Stdio::piped());
            let said = flag == "--json" || out.stderr.contains("1 bad record skipped") || *tool == "judge";
            if out.code != Some(code) || !out.stderr.contains("spoilt.jsonl:2: ") || !said {
                failures.push(format!("cog-{tool} {command:?} {flag}: {:?} {}", out.code, out.stderr));
            }
        }
    }
    none(&failures);
}

#[test]
fn messages_that_nobody_can_read_stop_no_work() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for (_, tool, command) in READERS {
        let Some(binary) = sibling(tool) else { continue };
        bench.fresh_out();
        let status = Command::new(&binary)
            .args(bench.arguments(command, None))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::options().write(true).open("/dev/full").unwrap())
            .status()
            .unwrap();
        if !status.success() || bench.left().is_empty() {
            failures.push(format!("cog-{tool} {command:?}: {:?}, wrote {:?}", status.code(), bench.left()));
        }
    }
    none(&failures);
}

#[test]
fn a_name_that_is_no_text_is_a_name() {
    let bench = Bench::new();
    let odd = bench.path("").join(OsStr::from_bytes(b"\xff.jsonl"));
    fs::copy(bench.path("program.jsonl"), &odd).unwrap();
    let Some(mine) = sibling("mine") else { return };
    let out = Command::new(mine).args(["candidates", "-q"]).arg(&odd).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(out.stdout.iter().filter(|b| **b == b'\n').count(), 6);
}

#[test]
fn a_folder_of_other_things_is_replaced_by_no_output() {
    let bench = Bench::new();
    let mut failures = Vec::new();
    for (_, tool, command) in READERS {
        let Some(folder) = command.last().and_then(|to| to.strip_prefix("{out}/")) else { continue };
        if folder.contains('.') {
            continue;
        }
        let Some(binary) = sibling(tool) else { continue };
        let thesis = bench.fresh_out().join(folder).join("thesis.tex");
        fs::create_dir(thesis.parent().unwrap()).unwrap();
        fs::write(&thesis, "years").unwrap();
        let out = run(&binary, &bench.arguments(command, None), Stdio::piped());
        if out.code != Some(2) || !out.stderr.contains("thesis.tex") || !thesis.exists() {
            failures.push(format!("cog-{tool} {command:?}: {:?} {}", out.code, out.stderr));
        }
        fs::remove_file(&thesis).unwrap();
        for again in ["an empty folder", "an earlier output"] {
            let out = run(&binary, &bench.arguments(command, None), Stdio::piped());
            if out.code != Some(0) {
                failures.push(format!("cog-{tool}, {again}: {:?} {}", out.code, out.stderr));
            }
        }
    }
    none(&failures);
}

#[test]
fn judging_a_file_in_its_own_place_keeps_its_history() {
    let bench = Bench::new();
    let (Some(mine), Some(judge)) = (sibling("mine"), sibling("judge")) else { return };
    let path = bench.fresh_out().join("programs.jsonl");
    let name = path.to_str().unwrap();
    for (binary, command) in [
        (&mine, &["candidates", "{program}", "-o", name] as &[&str]),
        (&judge, &["--tests", "{problem}", name, "-o", name]),
    ] {
        let out = run(binary, &bench.arguments(command, None), Stdio::piped());
        assert_eq!(out.code, Some(0), "{}", out.stderr);
    }
    let history: serde_json::Value =
        serde_json::from_slice(&fs::read(bench.path("out/programs.jsonl.provenance.json")).unwrap()).unwrap();
    let tools: Vec<_> =
        history["steps"].as_array().unwrap().iter().map(|s| s["tool"].as_str().unwrap()).collect();
    assert_eq!(tools, ["cog-mine", "cog-judge"]);
}

#[test]
fn what_a_model_made_names_the_model() {
    let bench = Bench::new();
    let history = r#"{"steps":[{"tool":"cog-train","version":"0","arguments":[]}]}"#;
    fs::write(bench.path("model/provenance.json"), history).unwrap();
    for (tool, command, output) in [
        (
            "sample",
            &["--model", "{model}", "--prompts", "{prompt}", "--max-tokens", "4", "-o", "{out}/r.jsonl"]
                as &[&str],
            "r.jsonl",
        ),
        ("probe", &["--model", "{model}", "--programs", "{program}", "-o", "{out}/m.jsonl"], "m.jsonl"),
    ] {
        let Some(binary) = sibling(tool) else { continue };
        let mut hashes = std::collections::BTreeSet::new();
        // A file of a model in several, which is read by its index alone; here it stands for other weights.
        for weights in [b"a", b"b"] {
            fs::write(bench.path("model/more.safetensors"), weights).unwrap();
            bench.fresh_out();
            let out = run(&binary, &bench.arguments(command, None), Stdio::piped());
            assert_eq!(out.code, Some(0), "{}", out.stderr);
            let sidecar = fs::read(bench.path(&format!("out/{output}.provenance.json"))).unwrap();
            let found: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
            assert_eq!(found["steps"][0]["tool"], "cog-train", "cog-{tool}: {found}");
            let inputs = found["steps"][1]["inputs"].as_array().unwrap();
            let model = inputs.iter().find(|i| i["name"] == "model").unwrap();
            assert_eq!(model["from"], 0);
            hashes.insert(model["xxh3"].to_string());
        }
        assert_eq!(hashes.len(), 2, "cog-{tool}");
    }
}
