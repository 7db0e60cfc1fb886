//! How often the language of a real program is told from its text: Rosetta Code snippets, many of them fragments.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cognate_languages::{Languages, identify};

#[test]
fn real_snippets_are_told_apart() {
    let reference = std::env::var_os("COGNATE_REFERENCE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
        PathBuf::from,
    );
    let Ok(text) = std::fs::read_to_string(reference.join("rosetta/rosetta.jsonl")) else {
        eprintln!("SKIPPED: no rosetta/rosetta.jsonl under COGNATE_REFERENCE");
        return;
    };
    let languages = Languages::builtin();
    let mut counts: BTreeMap<String, BTreeMap<String, u32>> = BTreeMap::new();
    // Every fifth task: enough to tell, and quick.
    for line in text.lines().step_by(5) {
        let task: serde_json::Value = serde_json::from_str(line).unwrap();
        for snippet in task["solutions"].as_array().unwrap() {
            let code = snippet["code"].as_str().unwrap();
            let Some(language) = languages.by_spelling(snippet["lang"].as_str().unwrap()) else { continue };
            if code.len() < 60 {
                continue;
            }
            let found = identify(&languages, code).map_or("none", |l| l.name.as_str());
            *counts.entry(language.name.clone()).or_default().entry(found.to_owned()).or_default() += 1;
        }
    }
    let (mut right, mut all) = (0, 0);
    for (language, found) in &counts {
        let total: u32 = found.values().sum();
        let hits = found.get(language).copied().unwrap_or(0);
        eprintln!("{language:<11} {hits}/{total} {found:?}");
        right += hits;
        all += total;
    }
    eprintln!("all {right}/{all}");
    assert!(all > 1000 && f64::from(right) > 0.9 * f64::from(all), "{right} of {all}");
}
