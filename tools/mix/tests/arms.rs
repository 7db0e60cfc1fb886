//! The arms of an experiment differ in nothing but what they are about.

mod world;

use std::collections::{BTreeMap, BTreeSet};

use world::{Unpacked, World, unpack};

const SFT: &str =
    "sft --groups groups.jsonl --programs programs.jsonl --problems problems.jsonl --tokenizer tokenizer";
const MULTI: [&str; 4] = ["javascript", "lua", "perl", "python"];

/// Documents of one task with their problem and language, from the ids that stand in the packed file.
fn documents<'a>(world: &'a World, all: &'a [Unpacked], task: &str) -> Vec<(&'a Unpacked, &'a str, &'a str)> {
    all.iter()
        .filter_map(|d| {
            let program = d.id.strip_prefix(task)?.strip_prefix('/')?;
            let (problem, language, _, _) = &world.programs[program];
            Some((d, problem.as_str(), language.as_str()))
        })
        .collect()
}

fn tokens_with_loss(d: &Unpacked) -> u64 {
    d.weights.iter().filter(|w| **w > 0.0).count() as u64
}

fn by_language(of: &[(&Unpacked, &str, &str)]) -> BTreeMap<String, u64> {
    let mut all = BTreeMap::new();
    for (d, _, language) in of {
        *all.entry((*language).to_owned()).or_default() += tokens_with_loss(d);
    }
    all
}

#[test]
fn arms_are_equal_in_what_they_must_be_equal_in() {
    let world = World::new(400).with_tokenizer();
    for (seed, rest) in [
        (0, "--tokens 2400 --verification 0.5 --replay 0.2 --batch 4 --per-problem 1"),
        (1, "--tokens 2800 --batch 8 --context 128 --per-problem 2"),
        (2, "--tokens 1700 --verification 0.25 --batch 3 --context 512"),
        (3, "--tokens 2000 --replay 0.5 --replay-languages ruby,php --batch 1"),
    ] {
        world.must(&format!("{SFT} --seed {seed} {rest} -o mix"));
        let manifest = world.manifest("mix");
        let arm = |name: &str| {
            manifest["arms"].as_array().unwrap().iter().find(|a| a["name"] == name).unwrap().clone()
        };
        let files = ["source", "nonparallel", "parallel", "parallel-problems"].map(|name| {
            let sequences = world.packed(&format!("mix/{name}.parquet"));
            assert_eq!(arm(name)["sequences"], sequences.len(), "{name}");
            let batch = manifest["batch"].as_u64().unwrap();
            assert_eq!(sequences.len() as u64 % batch, 0, "a multiple of the batch");
            assert_eq!(arm(name)["steps"], sequences.len() as u64 / batch);
            unpack(&sequences)
        });
        let [source, nonparallel, parallel, problems] = &files;

        // Recounted from the packed files, not from the manifest.
        let of = |file| by_language(&documents(&world, file, "generation"));
        let total: u64 = of(parallel).values().sum();
        assert_eq!(of(nonparallel), of(parallel), "the same in each language");
        assert_eq!(of(source), BTreeMap::from([("python".to_owned(), total)]), "the same in all");
        assert_eq!(arm("parallel")["answer_tokens"]["generation"], total);
        let asked = rest.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        assert!(total.abs_diff(asked) < 200, "near what was asked: {total}");
        for name in ["nonparallel", "parallel"] {
            assert_eq!(arm("source")["sequences"], arm(name)["sequences"], "the same optimizer steps");
        }

        let languages = |file| {
            let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            for task in ["generation", "verification"] {
                for (_, problem, language) in documents(&world, file, task) {
                    found.entry(format!("{task}/{problem}")).or_default().insert(language.into());
                }
            }
            found
        };
        let all: BTreeSet<String> = MULTI.iter().map(ToString::to_string).collect();
        for file in [parallel, problems] {
            assert!(languages(file).values().all(|l| *l == all), "each problem in all languages");
        }
        let mut one: BTreeMap<&str, &str> = BTreeMap::new();
        for task in ["generation", "verification"] {
            for (_, problem, language) in documents(&world, nonparallel, task) {
                assert_eq!(
                    *one.entry(problem).or_insert(language),
                    language,
                    "{problem} in one language, over all tasks"
                );
            }
        }
        let count =
            |file| documents(&world, file, "generation").iter().map(|d| d.1).collect::<BTreeSet<_>>().len();
        assert_eq!(count(problems), count(nonparallel), "matched in problems");
        assert!(count(problems) > 2 * count(parallel));

        let verdicts = |file| {
            let mut found: BTreeMap<bool, u64> = BTreeMap::new();
            for d in documents(&world, file, "verification") {
                let program = d.0.id.strip_prefix("verification/").unwrap();
                *found.entry(world.programs[program].3).or_default() += 1;
            }
            found
        };
        assert_eq!(verdicts(source), verdicts(parallel));
        assert_eq!(verdicts(nonparallel), verdicts(parallel));
        assert_eq!(verdicts(parallel).is_empty(), !rest.contains("--verification"));
        assert_eq!(verdicts(parallel).get(&true), verdicts(parallel).get(&false));

        let replay = |file: &[Unpacked]| -> BTreeSet<String> {
            file.iter().map(|d| d.id.clone()).filter(|id| id.starts_with("statement/")).collect()
        };
        for file in [source, nonparallel, problems] {
            assert_eq!(replay(file), replay(parallel), "the same replay in every arm");
        }
        assert_eq!(replay(parallel).is_empty(), !rest.contains("--replay"));

        for document in files.iter().flatten() {
            let program = document.id.split_once('/').unwrap().1;
            let split = &world.programs[program].0;
            let n: usize = split[1..].parse().unwrap();
            let base = document.id.starts_with("statement/");
            let allowed = if base { [0, 3].contains(&(n % 10)) } else { [1, 2, 4, 6, 8].contains(&(n % 10)) };
            assert!(allowed, "{} is of a split that must not be trained on", document.id);
        }
    }
}

#[test]
fn loss_is_on_answers_alone_and_replay_is_trained_whole() {
    let world = World::new(200).with_tokenizer();
    world.must(&format!("{SFT} --tokens 1200 --verification 0.5 --replay 0.3 --batch 2 -o mix"));
    let chat = world.chat();
    let all = unpack(&world.packed("mix/parallel.parquet"));
    let mut tasks = BTreeSet::new();
    for d in &all {
        let (task, program) = d.id.split_once('/').unwrap();
        tasks.insert(task);
        let (problem, language, source, accepted) = &world.programs[program];
        let trained: Vec<u32> =
            d.ids.iter().zip(&d.weights).filter(|(_, w)| **w > 0.0).map(|(id, _)| *id).collect();
        let asked = &d.ids[..d.ids.len() - trained.len()];
        let answer = match task {
            "generation" => source.trim_end(),
            "verification" if *accepted => "yes",
            "verification" => "no",
            _ => {
                assert_eq!(trained, d.ids[1..], "replay has loss on every token but the first");
                continue;
            }
        };
        assert_eq!(chat.decode(&trained), format!("{answer}<|end|>"));
        assert!(d.weights.iter().all(|w| *w == 0.0 || *w == 1.0));
        let display = if language == "javascript" { "JavaScript" } else { language };
        let asked = chat.decode(asked).to_lowercase();
        assert!(asked.starts_with(&format!("{}<code>", display.to_lowercase())), "{asked}");
        assert!(asked.contains(&world.statements[problem]), "{asked}");
    }
    assert_eq!(tasks, BTreeSet::from(["generation", "statement", "verification"]));
}

#[test]
fn special_token_strings_in_statements_stay_text() {
    let world = World::new(200).with_tokenizer();
    world.must(&format!("{SFT} --tokens 1000 --batch 1 -o mix"));
    let chat = world.chat();
    assert!(world.statements["p0001"].contains("<|end|>") && world.statements["p0001"].contains("<code>"));
    for d in unpack(&world.packed("mix/source.parquet")) {
        let special: Vec<u32> = d.ids.iter().copied().filter(|id| chat.special_ids().contains(id)).collect();
        assert_eq!(special, [2, 1], "the template's <code> and the answer's end, nothing else");
        assert_eq!(d.ids.last(), Some(&1));
    }
}

#[test]
fn joint_conversations_hold_every_language_once() {
    let world = World::new(100).with_tokenizer();
    world.must(&format!("{SFT} --tokens 600 --batch 1 --context 512 --parallel-format joint -o mix"));
    let chat = world.chat();
    let joint = unpack(&world.packed("mix/parallel.parquet"));
    assert!(!joint.is_empty());
    for d in &joint {
        assert_eq!(d.ids.iter().filter(|&&id| id == chat.end_id()).count(), 4, "{}", chat.decode(&d.ids));
    }
    let total: u64 = joint.iter().map(tokens_with_loss).sum();
    let source: u64 = unpack(&world.packed("mix/source.parquet")).iter().map(tokens_with_loss).sum();
    assert_eq!(total, source);
}

#[test]
fn arms_of_a_preset_and_their_own_replay() {
    let world = World::new(300).with_tokenizer();
    let preset = "tokens = 1500\nbatch = 2\nreplay = 0.2\n\n\
        [[arm]]\nname = \"lua-only\"\nkind = \"source\"\nlanguages = [\"lua\"]\n\n\
        [[arm]]\nname = \"pairs\"\nkind = \"parallel\"\nlanguages = [\"lua\", \"perl\"]\n\n\
        [[arm]]\nname = \"targets\"\nkind = \"parallel\"\nlanguages = [\"lua\", \"perl\"]\nreplay_languages = [\"lua\", \"ruby\"]\n";
    std::fs::write(world.path("mix.toml"), preset).unwrap();
    world.must(&format!("{SFT} --config mix.toml -o mix"));
    let replayed = |name: &str| {
        let all = unpack(&world.packed(&format!("mix/{name}.parquet")));
        by_language(&documents(&world, &all, "statement"))
    };
    assert_eq!(replayed("lua-only"), replayed("pairs"));
    assert!(!replayed("pairs").contains_key("ruby") && replayed("targets").contains_key("ruby"));
    let total = |name: &str| replayed(name).values().sum::<u64>();
    assert!(
        total("pairs").abs_diff(300) <= 2 && total("targets").abs_diff(300) <= 2,
        "a fifth of the answer tokens"
    );

    for (table, reason) in [
        ("name = \"a/b\"\nkind = \"source\"", "it names a file"),
        ("name = \"a\"\nkind = \"both\"", "unknown variant"),
        ("name = \"a\"\nkind = \"source\"\nratio = 0", "unknown field"),
        ("name = \"a\"\nkind = \"parallel\"\nlanguages = [\"lua\"]", "two languages at least"),
        ("name = \"a\"\nkind = \"parallel\"\nlanguages = [\"lua\", \"kobol\"]", "unknown language \"kobol\""),
        ("name = \"a\"\nkind = \"parallel\"\nmatched = \"problems\"", "no nonparallel or source arm"),
    ] {
        std::fs::write(world.path("bad.toml"), format!("[[arm]]\n{table}\n")).unwrap();
        let stderr = world.fails(&format!("{SFT} --tokens 500 --config bad.toml -o bad"), 3);
        assert!(stderr.contains(reason), "{table}: {stderr}");
        assert!(!world.path("bad").exists());
    }
}
