//! The programs of a problem, correct and wrong, as records.

use cognate_random::Key;
use cognate_records::{Origin, Program};
use serde_json::Value;

use crate::emit::{Emitter, emit};
use crate::plan::Plan;
use crate::world::Problem;

/// Tries to find one more program text that differs from the earlier ones of the same problem and language.
const TRIES: u64 = 8;

/// Programs of the problem that is the `index`-th of its split: for each language the correct ones, then the wrong
/// ones, all different texts.
pub fn programs(
    problem: &Problem,
    index: usize,
    languages: &[&'static dyn Emitter],
    correct: &Plan,
    wrong: &Plan,
    seed: u64,
) -> Vec<Program> {
    let key = Key::new(seed).with("program").with(problem.id.as_str());
    let mut found: Vec<Program> = Vec::new();
    let mut mutants = problem.wrong();
    for e in languages {
        let language = e.language();
        let from = found.len();
        for variant in 0..correct.count(&problem.split, index, language, key.with("correct")) {
            let emitted = (0..TRIES)
                .map(|i| emit(*e, &problem.pipeline, key.with(variant).with(i)))
                .find(|new| found[from..].iter().all(|p| p.source != new.source));
            let Some(emitted) = emitted else { break };
            found.push(record(
                problem,
                language,
                format!("{}/{language}/{variant}", problem.id),
                emitted.source,
            ));
            let extra = &mut found.last_mut().expect("just pushed").extra;
            extra.insert("style".into(), Value::from(emitted.style.name()));
        }
        let count = wrong.count(&problem.split, index, language, key.with("wrong"));
        key.with("mutants").with(language).stream().shuffle(&mut mutants);
        for (i, mutant) in mutants.iter().take(count as usize).enumerate() {
            let emitted = emit(*e, &mutant.pipeline, key.with("wrong").with(i));
            let id = format!("{}/{language}/wrong-{i}", problem.id);
            let mut program = record(problem, language, id, emitted.source);
            program.claim = Some("wrong".into());
            program.extra.insert("style".into(), Value::from(emitted.style.name()));
            program.extra.insert("mistake".into(), Value::from(mutant.mistake));
            program.extra.insert("ir".into(), Value::from(mutant.pipeline.to_string()));
            found.push(program);
        }
    }
    found
}

fn record(problem: &Problem, language: &str, id: String, source: String) -> Program {
    Program {
        id,
        problem: problem.id.clone(),
        language: language.to_owned(),
        source,
        claim: Some("accepted".into()),
        split: Some(problem.split.clone()),
        origin: Some(Origin { corpus: Some("synth".into()), ..Origin::default() }),
        ..Program::default()
    }
}
