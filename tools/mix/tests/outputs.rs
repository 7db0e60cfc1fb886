//! The same bytes whatever the threads; base documents and prompts as they should read.

mod world;

use std::collections::BTreeMap;

use cognate_records::{Prompt, Reader};
use world::{World, bytes, unpack};

#[test]
fn bytes_do_not_depend_on_threads() {
    let world = World::new(120);
    let mut earlier: Option<BTreeMap<String, Vec<u8>>> = None;
    for threads in [1, 2, 5] {
        let j = format!("-j {threads} --seed 7");
        world.must(&format!(
            "tokenizer {j} programs.jsonl --problems problems.jsonl --vocab 500 -o tokenizer"
        ));
        world.must(&format!(
            "base {j} programs.jsonl --problems problems.jsonl --tokenizer tokenizer --tokens 4000 \
             --kinds raw=1,commented=1,statement=1,describe=1 -o base.parquet"
        ));
        world.must(&format!(
            "sft {j} --groups groups.jsonl --programs programs.jsonl --problems problems.jsonl --tokenizer tokenizer \
             --tokens 900 --verification 0.3 --replay 0.1 --batch 2 -o mix"
        ));
        world.must(&format!(
            "prompts {j} --problems problems.jsonl --programs programs.jsonl --split eval --languages python,ruby \
             --task generation,verification --limit 5 --tokenizer tokenizer -o prompts.jsonl"
        ));
        let mut all = BTreeMap::new();
        for name in ["tokenizer", "base.parquet", "mix", "prompts.jsonl", "prompts.jsonl.provenance.json"] {
            for (file, content) in bytes(&world.path(name)) {
                all.insert(format!("{name}/{file}"), content);
            }
        }
        assert!(all.len() >= 9, "{:?}", all.keys());
        if let Some(earlier) = &earlier {
            for (name, content) in &all {
                assert!(earlier.get(name) == Some(content), "{name} differs at -j {threads}");
            }
        }
        earlier = Some(all);
    }
    // The control: another seed gives another mixture.
    world.must(
        "sft --seed 8 --groups groups.jsonl --programs programs.jsonl --problems problems.jsonl --tokenizer tokenizer \
         --tokens 900 --verification 0.3 --replay 0.1 --batch 2 -o mix",
    );
    let other = bytes(&world.path("mix"));
    assert!(earlier.unwrap()["mix/parallel.parquet"] != other["parallel.parquet"]);
}

#[test]
fn base_documents_read_as_asked_and_keep_their_budget() {
    let world = World::new(200).with_tokenizer();
    world.must(
        "base programs.jsonl --problems problems.jsonl --tokenizer tokenizer --tokens 9000 --weights ruby=0.5,php=0.5 \
         --kinds raw=2,commented=1,statement=1,describe=1 --context 200 --pack sequential -o base.parquet",
    );
    let chat = world.chat();
    let sequences = world.packed("base.parquet");
    assert!(sequences.iter().all(|s| s.ids.len() <= 200));
    let all = unpack(&sequences);
    let mut tokens: BTreeMap<(String, String), f64> = BTreeMap::new();
    for d in &all {
        let (kind, program) = d.id.split_once('/').unwrap();
        let (problem, language, source, accepted) = &world.programs[program];
        assert!(accepted);
        assert!(
            d.weights[0] == 0.0 && d.weights[1..].iter().all(|w| *w == 1.0),
            "loss on every token but the first"
        );
        let text = chat.decode(&d.ids);
        let source = source.trim_end();
        let body = text.split_once("<code>").unwrap().1;
        let statement = &world.statements[problem];
        match kind {
            "raw" => assert_eq!(body, format!("{source}<|end|>")),
            "describe" => assert!(
                body.starts_with(source) && body.ends_with("<|end|>") && body.len() > source.len() + 9
            ),
            _ => {
                assert!(body.ends_with(&format!("\n{source}<|end|>")), "{text}");
                let comment = body.lines().next().unwrap();
                let clauses = comment.trim_start_matches(['#', '/', '-', ' ']);
                assert!(
                    !clauses.is_empty() && clauses.split_inclusive(". ").all(|c| statement.contains(c)),
                    "{comment}"
                );
            }
        }
        *tokens.entry((language.clone(), kind.to_owned())).or_default() += d.ids.len() as f64;
    }
    assert_eq!(all.iter().map(|d| d.ids.len()).sum::<usize>(), 9000, "the budget to the token");
    // Six languages of weights 1,1,1,1,0.5,0.5; kinds of weights 2,1,1,1.
    for ((language, kind), n) in tokens {
        let language_share = if ["ruby", "php"].contains(&language.as_str()) { 0.1 } else { 0.2 };
        let kind_share = if kind == "raw" { 0.4 } else { 0.2 };
        let asked = 9000.0 * language_share * kind_share;
        assert!((n - asked).abs() < 70.0, "{language}/{kind}: {n} of {asked}");
    }
}

#[test]
fn prompts_hold_text_and_ids_and_what_is_expected() {
    let world = World::new(100).with_tokenizer();
    let chat = world.chat();
    let read = |name: &str| -> Vec<Prompt> {
        Reader::open(&world.path(name)).unwrap().map(Result::unwrap).collect()
    };
    let base = "prompts --problems problems.jsonl --tokenizer tokenizer -o out.jsonl";

    world.must(&format!("{base} --split rl --languages python,php"));
    let prompts = read("out.jsonl");
    assert_eq!(prompts.len(), 20);
    let php = prompts.iter().find(|p| p.id == "p0005/php/generation").unwrap();
    assert_eq!(php.text, format!("PHP<code>// {}\n", world.statements["p0005"]));
    assert_eq!(chat.decode(&php.ids), php.text);
    assert_eq!(php.ids.iter().filter(|id| chat.special_ids().contains(id)).count(), 1);
    assert_eq!((php.split.as_deref(), php.stop_ids.as_slice()), (Some("rl"), [1].as_slice()));

    world.must(&format!("{base} --split rl --languages python,php --limit 4 --seed 3"));
    let some = read("out.jsonl");
    assert_eq!(some.len(), 8);
    assert!(some.iter().all(|p| prompts.contains(p)));
    world.must(&format!("{base} --split rl --languages python,php --limit 4 --seed 4"));
    assert_ne!(some, read("out.jsonl"));

    world.must(&format!("{base} --split eval --languages lua --task verification --programs programs.jsonl"));
    let checks = read("out.jsonl");
    assert_eq!(checks.len(), 30);
    for check in &checks {
        let (_, _, source, accepted) = &world.programs[check.extra["program"].as_str().unwrap()];
        assert_eq!(check.extra["label"], if *accepted { "yes" } else { "no" });
        assert!(check.text.ends_with(&format!("\n{}\n-- correct?\n", source.trim_end())), "{}", check.text);
    }

    world.must(&format!("{base} --split rl --languages python --format instruct"));
    assert!(read("out.jsonl")[0].messages[0].content.contains("in a ```python block"));
    std::fs::write(world.path("own.jinja"), "{{ display }}|{{ extension }}|{{ comment.upper() }}").unwrap();
    world.must(&format!("{base} --split rl --languages python --format own.jinja"));
    assert!(read("out.jsonl")[0].messages[0].content.starts_with("Python|py|# YOU ARE"));

    let stderr = world.fails(&format!("{base} --split rl --languages python --max-prompt 3"), 3);
    assert!(stderr.contains("10 are longer than --max-prompt"), "{stderr}");
}

#[test]
fn programs_are_repeated_only_where_that_was_allowed() {
    let world = World::new(40).with_tokenizer();
    let base = "base --json programs.jsonl --problems problems.jsonl --tokenizer tokenizer --languages lua --kinds raw=1 \
                --tokens 1000 -o base.parquet";
    let stderr = world.fails(base, 3);
    assert!(stderr.contains("lua/raw:") && stderr.contains("raise --passes"), "{stderr}");
    let report: serde_json::Value = serde_json::from_str(&world.must(&format!("{base} --passes 4"))).unwrap();
    let all = unpack(&world.packed("base.parquet"));
    let again = all.iter().filter(|d| d.id.contains('#')).count();
    assert!(again > 0);
    assert_eq!(report["repeated"], again);
    let once: BTreeMap<&str, ()> = all.iter().map(|d| (d.id.as_str(), ())).collect();
    assert_eq!(once.len(), all.len(), "each pass has its own ids");
}

#[test]
fn a_tokenizer_is_as_large_as_asked_and_opens_as_one() {
    let world = World::new(60);
    world.must("tokenizer programs.jsonl --problems problems.jsonl --vocab 330 -o small");
    let small = cognate_chat::Chat::open(&world.path("small")).unwrap();
    assert_eq!(small.vocab_size(), 330);
    world.must("tokenizer programs.jsonl --problems problems.jsonl --vocab 259 -o bytes");
    let bytes = cognate_chat::Chat::open(&world.path("bytes")).unwrap();
    let program = &world.programs["p0001/python/0"].2;
    assert_eq!(bytes.encode(program).len(), program.len());
    assert!(small.encode(program).len() * 5 < program.len() * 4);
    assert_eq!(small.decode(&small.encode(program)), *program);
    let stderr = world.fails("tokenizer programs.jsonl --problems problems.jsonl --vocab 100 -o none", 2);
    assert!(stderr.contains("the bytes and special tokens alone are 259"), "{stderr}");
    let stderr = world.fails("tokenizer programs.jsonl --problems problems.jsonl --words ( -o none", 3);
    assert!(stderr.contains("--words"), "{stderr}");
    assert!(!world.path("none").exists());
}
