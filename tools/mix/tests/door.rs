//! What must not be trained on stays out, and what makes no sense is refused with its reason.

mod world;

use std::fs;

use world::{World, unpack};

const BASE: &str = "base programs.jsonl --problems problems.jsonl --tokenizer tokenizer -o base.parquet";
const SFT: &str = "sft --groups groups.jsonl --programs programs.jsonl --problems problems.jsonl --tokenizer tokenizer -o mix";

#[test]
fn forbidden_splits_cannot_be_asked_for() {
    let world = World::new(60).with_tokenizer();
    for arguments in [
        format!("{BASE} --tokens 500 --splits base,rl"),
        format!("{SFT} --tokens 500 --splits eval"),
        format!("{SFT} --tokens 500 --replay 0.1 --replay-splits dev"),
        "tokenizer programs.jsonl --problems problems.jsonl --splits rl -o t".to_owned(),
    ] {
        let stderr = world.fails(&arguments, 3);
        assert!(stderr.contains("is forbidden for training"), "{stderr}");
    }
    assert!(!world.path("base.parquet").exists() && !world.path("mix").exists() && !world.path("t").exists());
    // The control: the user may say which splits are forbidden.
    world.must(&format!("{BASE} --tokens 500 --splits rl --forbid eval"));
}

#[test]
fn a_record_that_contradicts_its_problem_is_an_error() {
    let world = World::new(60).with_tokenizer();
    let groups = fs::read_to_string(world.path("groups.jsonl")).unwrap();
    // p0005 is of the split rl; its group now says sft.
    let lie =
        groups.replace("\"problem\":\"p0005\",\"split\":\"rl\"", "\"problem\":\"p0005\",\"split\":\"sft\"");
    assert_ne!(lie, groups);
    fs::write(world.path("groups.jsonl"), lie).unwrap();
    let stderr = world.fails(&format!("{SFT} --tokens 500 --batch 1"), 3);
    assert!(
        stderr.contains(
            "groups.jsonl: group \"g/p0005\": split \"sft\", but its problem \"p0005\" is in split \"rl\""
        ),
        "{stderr}"
    );

    let programs = fs::read_to_string(world.path("programs.jsonl")).unwrap();
    fs::write(
        world.path("programs.jsonl"),
        programs.replace("\"problem\":\"p0000\"", "\"problem\":\"p9999\""),
    )
    .unwrap();
    let stderr = world.fails(&format!("{BASE} --tokens 500"), 3);
    assert!(stderr.contains("problem \"p9999\" is not among the problems"), "{stderr}");
}

#[test]
fn the_text_of_a_forbidden_program_stays_out_under_any_name() {
    let world = World::new(60).with_tokenizer();
    let secret = &world.programs["p0005/python/0"].2;
    let leak = |line: &str, id: &str| {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        if record["id"] == id {
            record["source"] = secret.trim_end().replace('\n', "\r\n").into();
        }
        record.to_string()
    };
    let programs = fs::read_to_string(world.path("programs.jsonl")).unwrap();
    let leaked: Vec<String> = programs.lines().map(|line| leak(line, "p0000/python/0")).collect();
    fs::write(world.path("programs.jsonl"), leaked.join("\n")).unwrap();
    let report: serde_json::Value = serde_json::from_str(
        &world.must(&format!("{BASE} --json --languages python --kinds raw=1 --tokens 500")),
    )
    .unwrap();
    assert_eq!(report["dropped"]["contaminated"], 1);
    let ids: Vec<String> = unpack(&world.packed("base.parquet")).into_iter().map(|d| d.id).collect();
    assert!(!ids.contains(&"raw/p0000/python/0".to_owned()));

    // Statements likewise: a base problem with the words of an eval problem.
    let problems = fs::read_to_string(world.path("problems.jsonl")).unwrap();
    let eval = serde_json::to_string(&world.statements["p0009"]).unwrap();
    let base = serde_json::to_string(&world.statements["p0003"]).unwrap();
    fs::write(world.path("problems.jsonl"), problems.replace(&base, &eval)).unwrap();
    world.must(&format!("{BASE} --languages python --kinds raw=1 --tokens 400"));
    let ids: Vec<String> = unpack(&world.packed("base.parquet")).into_iter().map(|d| d.id).collect();
    assert!(!ids.is_empty() && ids.iter().all(|id| !id.contains("p0003")));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let world = World::new(60).with_tokenizer();
    for (arguments, code, reason) in [
        (format!("{BASE} --tokens 0"), 3, "--tokens 0"),
        (format!("{BASE} --tokens 500 --weights ruby=0"), 3, "weight 0 for ruby does nothing"),
        (format!("{BASE} --tokens 500 --weights ruby=-1"), 3, "does nothing"),
        (format!("{BASE} --tokens 500 --weights kobol=1"), 3, "unknown name \"kobol\""),
        (format!("{BASE} --tokens 500 --kinds raw=0"), 3, "weight 0 for raw does nothing"),
        (format!("{BASE} --tokens 500 --kinds prose=1"), 3, "unknown name \"prose\""),
        (format!("{BASE} --tokens 500 --languages kobol"), 3, "unknown language \"kobol\""),
        (format!("{BASE} --tokens 500 --languages python,go"), 3, "language go: no accepted program"),
        (format!("{BASE} --tokens 500 --splits nowhere"), 3, "no accepted program in --splits nowhere"),
        (format!("{BASE} --tokens 9000000"), 3, "asked; lower --tokens"),
        (format!("{BASE} --tokens 500 --drop-clause 2"), 2, "not a probability"),
        (format!("{SFT} --tokens 0"), 3, "--tokens 0"),
        (format!("{SFT} --tokens 900000"), 3, "900000 asked; lower --tokens"),
        (format!("{SFT} --tokens 500 --batch 400"), 3, "lower --batch"),
        (format!("{SFT} --tokens 3"), 3, "the smallest group has"),
        (
            format!("{SFT} --tokens 500 --verification 50 --batch 1"),
            3,
            "verification in python+javascript+perl+lua",
        ),
        (format!("{SFT} --tokens 500 --replay 90 --batch 1"), 3, "replay"),
        (format!("{SFT} --tokens 500 --replay nan"), 2, "--replay"),
        (
            format!("{SFT} --tokens 500 --splits base,nowhere --batch 1 --source kobol"),
            3,
            "unknown language \"kobol\"",
        ),
        (
            "prompts --problems problems.jsonl --languages python --split nowhere --tokenizer tokenizer"
                .into(),
            3,
            "no problem in split nowhere",
        ),
        (
            "prompts --problems problems.jsonl --languages kobol --tokenizer tokenizer".into(),
            3,
            "unknown language \"kobol\"",
        ),
        (
            "prompts --problems problems.jsonl --languages python --tokenizer nowhere".into(),
            1,
            "nowhere/tokenizer.json",
        ),
    ] {
        let stderr = world.fails(&arguments, code);
        assert!(stderr.contains(reason), "{arguments}: {stderr}");
    }
    assert!(!world.path("base.parquet").exists() && !world.path("mix").exists());
}

#[test]
fn empty_truncated_and_foreign_input_is_refused_with_its_place() {
    let world = World::new(60).with_tokenizer();
    fs::write(world.path("empty.jsonl"), "").unwrap();
    let stderr =
        world.fails(&BASE.replace("problems.jsonl", "empty.jsonl").replace(" -o", " --tokens 5 -o"), 3);
    assert!(stderr.contains("empty.jsonl: no problems"), "{stderr}");
    let stderr = world.fails(&format!("{} --tokens 5", BASE.replace("programs.jsonl", "empty.jsonl")), 3);
    assert!(stderr.contains("no accepted program"), "{stderr}");
    let stderr = world.fails(&format!("{} --tokens 5", SFT.replace("groups.jsonl", "empty.jsonl")), 3);
    assert!(stderr.contains("no groups in --splits sft"), "{stderr}");

    let programs = fs::read_to_string(world.path("programs.jsonl")).unwrap();
    fs::write(world.path("cut.jsonl"), &programs[..programs.len() / 2]).unwrap();
    let lines = programs[..programs.len() / 2].lines().count();
    let stderr = world.fails(&format!("{} --tokens 500", BASE.replace("programs.jsonl", "cut.jsonl")), 3);
    assert!(stderr.contains(&format!("cut.jsonl:{lines}: ")), "{stderr}");
    world.must(&format!("{} --tokens 500 --keep-going", BASE.replace("programs.jsonl", "cut.jsonl")));

    let foreign = programs.replacen("\"language\":\"python\"", "\"language\":\"kobol\"", 1);
    fs::write(world.path("foreign.jsonl"), foreign).unwrap();
    let stderr = world.fails(&format!("{} --tokens 500", BASE.replace("programs.jsonl", "foreign.jsonl")), 3);
    assert!(
        stderr.contains("foreign.jsonl: program \"p0000/python/0\": unknown language \"kobol\""),
        "{stderr}"
    );

    let future = programs.replacen("program/1", "program/9", 1);
    fs::write(world.path("future.jsonl"), future).unwrap();
    let stderr = world.fails(&format!("{} --tokens 500", BASE.replace("programs.jsonl", "future.jsonl")), 3);
    assert!(stderr.contains("future.jsonl:1: "), "{stderr}");
}

#[test]
fn members_without_a_verdict_need_leave() {
    let world = World::new(200).with_tokenizer();
    let groups = fs::read_to_string(world.path("groups.jsonl")).unwrap();
    let claims =
        groups.replace("{\"kind\":\"verdict\",\"status\":\"AC\",\"tests\":3}", "{\"kind\":\"claim\"}");
    assert_ne!(claims, groups);
    fs::write(world.path("groups.jsonl"), claims).unwrap();
    let stderr = world.fails(&format!("{SFT} --tokens 1000 --batch 1"), 3);
    assert!(stderr.contains("no usable member of a group") && stderr.contains("unverified"), "{stderr}");
    world.must(&format!("{SFT} --tokens 1000 --batch 1 --accept-claims"));
}
