//! Every program that the synthetic world emits is accepted by the judge, and every wrong one is not: the world, the
//! sandbox and the languages table held against each other, on a world that no other test sees.

mod bench;

use std::collections::BTreeMap;
use std::process::Command;

use cognate_records::{Program, Reader, Status};

/// Compiled languages on few problems: a compilation costs as much as a hundred runs.
const WORLDS: [(&str, &str, &str); 2] =
    [("interpreted", "python,javascript,perl,lua,ruby,php", "10"), ("compiled", "cpp,go", "3")];

#[test]
fn the_judge_accepts_what_the_world_emits() {
    let (Some(synth), Some(judge)) = (bench::sibling("synth"), bench::sibling("judge")) else { return };
    for (name, languages, problems) in WORLDS {
        let dir = tempfile::tempdir().unwrap();
        let world = dir.path().join("world");
        let plan = |claims: &str| format!("--{claims}=base:all=1,sft:all=1,rl:all=1,dev:all=1,eval:all=1");
        let made = Command::new(&synth)
            .args(["--seed", "4711", "--problems", problems, "--languages", languages, "-q", "-o"])
            .arg(&world)
            .args([plan("programs"), plan("mutants")])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

        let names = Command::new(&judge).args(["languages", "--names"]).output().unwrap();
        let usable: Vec<String> =
            String::from_utf8_lossy(&names.stdout).split_whitespace().map(str::to_owned).collect();
        let programs: Vec<Program> =
            Reader::open(&world.join("programs.parquet")).unwrap().collect::<Result<_, _>>().unwrap();
        for language in languages.split(',').filter(|l| !usable.iter().any(|u| u == l)) {
            eprintln!("SKIPPED: no toolchain for {language}");
        }
        let here: Vec<&Program> = programs.iter().filter(|p| usable.contains(&p.language)).collect();
        let text: String = here.iter().map(|p| serde_json::to_string(p).unwrap() + "\n").collect();
        let (asked, judged) = (dir.path().join("asked.jsonl"), dir.path().join("judged.jsonl"));
        std::fs::write(&asked, text).unwrap();
        let outcome = Command::new(&judge)
            .args(["-q", "--first-failure", "--tests"])
            .arg(world.join("problems.jsonl"))
            .arg(&asked)
            .arg("-o")
            .arg(&judged)
            .output()
            .unwrap();
        assert!(outcome.status.success(), "{}", String::from_utf8_lossy(&outcome.stderr));

        let mut seen: BTreeMap<(String, bool), usize> = BTreeMap::new();
        for program in Reader::<Program>::open(&judged).unwrap() {
            let program = program.unwrap();
            let accepted = program.verdict.as_ref().unwrap().status == Status::AC;
            let claimed = program.claim.as_deref() == Some("accepted");
            assert_eq!(
                accepted, claimed,
                "{name}: {}: {:?}\n{}",
                program.id, program.verdict, program.source
            );
            *seen.entry((program.language, claimed)).or_default() += 1;
        }
        for language in languages.split(',').filter(|l| usable.iter().any(|u| u == l)) {
            for claimed in [true, false] {
                assert!(seen.contains_key(&(language.to_owned(), claimed)), "{language}: nothing judged");
            }
        }
    }
}
