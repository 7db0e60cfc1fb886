//! The command as its users run it: files, counts, refusals, and the same bytes whatever the threads.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, Output};

use cognate_records::{Problem, Program, Reader};
use serde_json::Value;

fn synth(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_cog-synth")).args(arguments).output().expect("starts")
}

fn make(folder: &Path, more: &[&str]) -> Output {
    let output = folder.to_str().unwrap();
    let plan = "base:all=1.5,sft:all=1,eval:python+go=1@5";
    let mut arguments = vec!["-q", "-o", output, "--problems", "400", "--programs", plan];
    arguments.extend(["--mutants", "sft:python+lua=2"]);
    arguments.extend(more);
    let done = synth(&arguments);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap())
        })
        .collect()
}

#[test]
fn the_same_bytes_whatever_the_threads_and_others_for_another_seed() {
    let folder = tempfile::tempdir().unwrap();
    let [one, four, other] = ["1/world", "4/world", "other/world"].map(|name| folder.path().join(name));
    make(&one, &["-j", "1"]);
    make(&four, &["-j", "4"]);
    make(&other, &["--seed", "1"]);
    assert_eq!(files(&one), files(&four));
    let (one, other) = (files(&one), files(&other));
    assert_ne!(one["problems.jsonl"], other["problems.jsonl"]);
    assert_ne!(one["programs.parquet"], other["programs.parquet"]);
}

#[test]
fn the_manifest_counts_what_the_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    let printed = make(&world, &["--json"]).stdout;
    let manifest: Value = serde_json::from_slice(&files(&world)["manifest.json"]).unwrap();
    assert_eq!(manifest, serde_json::from_slice::<Value>(&printed).unwrap());

    let mut problems: BTreeMap<String, u64> = BTreeMap::new();
    let mut splits: BTreeMap<String, String> = BTreeMap::new();
    let (mut statements, mut behaviours) = (HashSet::new(), HashSet::new());
    for problem in Reader::<Problem>::open(&world.join("problems.jsonl")).unwrap() {
        let problem = problem.unwrap();
        let split = problem.split.clone().unwrap();
        *problems.entry(split.clone()).or_default() += 1;
        assert!(statements.insert(problem.statement.clone()), "{}", problem.statement);
        assert!(behaviours.insert(problem.extra["ir"].to_string()), "{}", problem.id);
        assert!(splits.insert(problem.id, split).is_none());
    }
    assert_eq!(manifest["problems"], serde_json::to_value(&problems).unwrap());
    assert_eq!(problems.values().sum::<u64>(), 400);

    let mut programs: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    let (mut ids, mut texts) = (HashSet::new(), HashSet::new());
    for program in Reader::<Program>::open(&world.join("programs.parquet")).unwrap() {
        let program = program.unwrap();
        assert_eq!(program.split.as_ref(), splits.get(&program.problem));
        assert!(
            texts.insert((program.problem.clone(), program.source.clone())),
            "{} stands twice",
            program.id
        );
        assert_eq!(program.extra.contains_key("mistake"), program.claim.as_deref() == Some("wrong"));
        let key = (program.split.unwrap(), program.language, program.claim.unwrap());
        *programs.entry(key).or_default() += 1;
        assert!(ids.insert(program.id));
    }
    let mut counted = 0;
    for (split, languages) in manifest["programs"].as_object().unwrap() {
        for (language, claims) in languages.as_object().unwrap() {
            for (claim, count) in claims.as_object().unwrap() {
                let key = (split.clone(), language.clone(), claim.clone());
                assert_eq!(count.as_u64(), Some(programs.get(&key).copied().unwrap_or(0)), "{key:?}");
                counted += count.as_u64().unwrap();
            }
        }
    }
    assert_eq!(counted as usize, ids.len());
    let count = |split: &str, language: &str, claim: &str| {
        programs.get(&(split.into(), language.into(), claim.into())).copied().unwrap_or(0)
    };
    // Of 1.5 programs a problem, half the problems get a second; of so short ones not all have a second text.
    let base = problems["base"];
    assert!((base * 12 / 10..=base * 17 / 10).contains(&count("base", "python", "accepted")));
    assert_eq!(count("eval", "go", "accepted"), 5);
    assert_eq!(count("eval", "ruby", "accepted"), 0);
    assert!(count("sft", "lua", "wrong") > problems["sft"]);
    assert_eq!(count("sft", "ruby", "wrong"), 0);
}

#[test]
fn a_dry_run_writes_nothing_and_counts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    let dry = make(&world, &["--dry-run", "--json"]).stdout;
    assert!(!world.exists());
    assert_eq!(dry, make(&world, &["--json"]).stdout);
}

#[test]
fn bad_requests_are_refused_without_output() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    let output = world.to_str().unwrap();
    let refusals: [(&[&str], &str); 12] = [
        (&["--programs", "base=1"], "is not of the form"),
        (&["--programs", "test:all=1"], "there is no split \"test\""),
        (&["--programs", "base:kobol=1"], "language \"kobol\""),
        (&["--languages", "kobol"], "no programs can be written in \"kobol\""),
        (&["--shares", "base=0"], "positive weight"),
        (&["--min-ops", "3", "--max-ops", "2"], "--min-ops"),
        (&["--problems", "200000", "--max-ops", "1"], "distinct problems were found"),
        (&["--problems", "0"], "must be at least 1"),
        (&["--paraphrases", "0"], "must be at least 1"),
        (&["--scalar-share", "7"], "not a share"),
        (&["--scalar-share", "nan"], "not a share"),
        (&["--languages", "python,lua,python"], "\"python\" is named twice"),
    ];
    for (arguments, message) in refusals {
        let all: Vec<&str> = ["-q", "-o", output].iter().chain(arguments).copied().collect();
        let done = synth(&all);
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(errors.contains(message), "{arguments:?}: {errors}");
        assert!(!world.exists());
    }
}

#[test]
fn an_earlier_world_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let world = folder.path().join("world");
    make(&world, &[]);
    let first = files(&world);
    make(&world, &["--seed", "1"]);
    assert_ne!(first, files(&world));
    std::fs::write(world.join("thesis.tex"), "years of work").unwrap();
    let before = files(&world);
    let done = synth(&["-q", "-o", world.to_str().unwrap(), "--problems", "20"]);
    assert_eq!(done.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&done.stderr).contains("thesis.tex"));
    assert_eq!(before, files(&world));
}

#[test]
fn a_preset_says_what_flags_say() {
    let folder = tempfile::tempdir().unwrap();
    let preset = folder.path().join("synth.toml");
    let text =
        "problems = 50\nlanguages = [\"python\", \"ruby\"]\nprograms = [\"base:all=1\", \"eval:ruby=1\"]\n";
    std::fs::write(&preset, text).unwrap();
    let by_preset = synth(&["-q", "-n", "--config", preset.to_str().unwrap()]).stdout;
    let flags = [
        "-q",
        "-n",
        "--problems",
        "50",
        "--languages",
        "python,ruby",
        "--programs",
        "base:all=1,eval:ruby=1",
    ];
    assert_eq!(by_preset, synth(&flags).stdout);
    assert!(!by_preset.is_empty());
}
