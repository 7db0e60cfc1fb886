//! What was made: counts by split, language and claim, beside the options that made it.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::world::{Problem, World};
use cognate_records::Program;

#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize)]
pub struct Counts {
    pub accepted: u64,
    pub wrong: u64,
}

/// Mean length in words: runs of letters, digits and underscores, and single other characters; blanks do not count.
#[derive(Debug, Default, Clone, Serialize)]
pub struct Length {
    pub texts: u64,
    pub mean: f64,
    pub largest: u64,
    #[serde(skip)]
    total: u64,
}

#[derive(Debug, Default, Clone, Serialize)]
pub struct Manifest {
    pub seed: u64,
    pub options: BTreeMap<String, serde_json::Value>,
    /// Split → problems.
    pub problems: BTreeMap<String, u64>,
    /// Split → language → programs.
    pub programs: BTreeMap<String, BTreeMap<String, Counts>>,
    pub drawn: u64,
    /// Reason → drawn pipelines that did not become problems.
    pub rejected: BTreeMap<&'static str, u64>,
    /// `statement` or a language → words a text.
    pub words: BTreeMap<String, Length>,
    /// Mistake → wrong programs.
    pub mistakes: BTreeMap<String, u64>,
}

impl Manifest {
    pub fn new(seed: u64, options: BTreeMap<String, serde_json::Value>, world: &World) -> Self {
        let mut manifest =
            Self { seed, options, drawn: world.drawn, rejected: world.rejected.clone(), ..Self::default() };
        for problem in &world.problems {
            manifest.add_problem(problem);
        }
        manifest
    }

    fn add_problem(&mut self, problem: &Problem) {
        *self.problems.entry(problem.split.clone()).or_default() += 1;
        self.words.entry("statement".into()).or_default().add(&problem.statement);
    }

    pub fn add_program(&mut self, program: &Program) {
        let split = self.programs.entry(program.split.clone().unwrap_or_default()).or_default();
        let counts = split.entry(program.language.clone()).or_default();
        if program.claim.as_deref() == Some("wrong") {
            counts.wrong += 1;
        } else {
            counts.accepted += 1;
        }
        if let Some(mistake) = program.extra.get("mistake").and_then(|m| m.as_str()) {
            *self.mistakes.entry(mistake.to_owned()).or_default() += 1;
        }
        self.words.entry(program.language.clone()).or_default().add(&program.source);
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = format!("{:<10} {:>9}", "split", "problems");
        let languages: Vec<&String> = self.words.keys().filter(|k| *k != "statement").collect();
        for language in &languages {
            text.push_str(&format!(" {language:>14}"));
        }
        text.push('\n');
        for (split, problems) in &self.problems {
            text.push_str(&format!("{split:<10} {problems:>9}"));
            for language in &languages {
                let counts =
                    self.programs.get(split).and_then(|s| s.get(*language)).copied().unwrap_or_default();
                let cell = if counts.wrong == 0 {
                    counts.accepted.to_string()
                } else {
                    format!("{}+{} wrong", counts.accepted, counts.wrong)
                };
                text.push_str(&format!(" {cell:>14}"));
            }
            text.push('\n');
        }
        text.push_str(&format!(
            "{:<10} {:>9.1}",
            "words",
            self.words.get("statement").map_or(0.0, |l| l.mean)
        ));
        for language in &languages {
            text.push_str(&format!(" {:>14.1}", self.words[*language].mean));
        }
        let rejected: Vec<String> = self.rejected.iter().map(|(why, n)| format!("{n} {why}")).collect();
        text.push_str(&format!("\n{} drawn, rejected: {}\n", self.drawn, rejected.join(", ")));
        text
    }
}

impl Length {
    fn add(&mut self, text: &str) {
        let words = words(text);
        self.texts += 1;
        self.total += words;
        self.largest = self.largest.max(words);
        self.mean = self.total as f64 / self.texts as f64;
    }
}

fn words(text: &str) -> u64 {
    let mut count = 0;
    let mut inside = false;
    for c in text.chars() {
        let wordy = c.is_alphanumeric() || c == '_';
        count += u64::from(if wordy { !inside } else { !c.is_whitespace() });
        inside = wordy;
    }
    count
}
