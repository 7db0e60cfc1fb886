//! How often the language of a real program is told from its text: Rosetta Code snippets, many of them fragments;
//! functions under comments (mbxp); whole programs (kattis).

use std::collections::BTreeMap;
use std::path::PathBuf;

use cognate_languages::{Languages, identify};
use serde_json::Value;

/// Lines of a reference corpus, where it is at hand.
fn rows(corpus: &str) -> Option<Vec<Value>> {
    let reference = std::env::var_os("COGNATE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(reference.join(format!("{corpus}/{corpus}.jsonl"))) else {
        eprintln!("SKIPPED: no {corpus}/{corpus}.jsonl under COGNATE_REFERENCE");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// Programs told right and all programs, by language, printed as a confusion table.
fn told(programs: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, (u32, u32)> {
    let languages = Languages::builtin();
    let mut counts: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    for (spelling, code) in programs {
        let Some(language) = languages.by_spelling(&spelling) else { continue };
        let found = identify(&languages, &code).map_or("none", |l| l.name.as_str());
        *counts.entry(language.name.clone()).or_default().entry(found.to_owned()).or_default() += 1;
    }
    let right = |(language, found): (String, BTreeMap<String, u32>)| {
        let hits = found.get(&language).copied().unwrap_or(0);
        let total = found.values().sum();
        eprintln!("{language:<11} {hits}/{total} {found:?}");
        (language, (hits, total))
    };
    counts.into_iter().map(right).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn real_snippets_are_told_apart() {
    let Some(tasks) = rows("rosetta") else { return };
    // Every fifth task: enough to tell, and quick.
    let solutions = tasks.iter().step_by(5).flat_map(|task| task["solutions"].as_array().unwrap());
    let snippets = solutions.map(|s| (text(&s["lang"]), text(&s["code"])));
    let counts = told(snippets.filter(|(_, code)| code.len() >= 60));
    let (right, all) = counts.values().fold((0, 0), |(r, a), (hits, total)| (r + hits, a + total));
    assert!(all > 1000 && f64::from(right) > 0.9 * f64::from(all), "{right} of {all}");
}

/// In every language, since a language that is told badly looks like drift, or hides it.
#[test]
fn real_programs_are_told_in_every_language() {
    let mut programs = Vec::new();
    for problem in rows("kattis").unwrap_or_default() {
        let solutions = problem["solutions"].as_array().unwrap().iter();
        let now = solutions.filter(|s| s["sample_status"] != "PY2");
        programs.extend(now.map(|s| (text(&s["lang"]), text(&s["code"]))));
    }
    for problem in rows("mbxp").unwrap_or_default() {
        for (language, p) in problem["languages"].as_object().unwrap() {
            programs.push((language.clone(), text(&p["prompt"]) + &text(&p["canonical_solution"])));
        }
    }
    for (language, (right, all)) in told(programs) {
        assert!(f64::from(right) >= 0.95 * f64::from(all), "{language}: {right} of {all}");
    }
}
