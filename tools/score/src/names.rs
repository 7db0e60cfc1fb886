//! Arms and languages: their order and how they are called in print.

use std::collections::BTreeMap;
use std::path::Path;

use cognate_languages::{Error, Languages};

use crate::labels::natural;

/// Arms of the main experiment in reading order.
const KNOWN: [(&str, &str); 6] = [
    ("base", "base model"),
    ("source", "SFT, source language only"),
    ("nonparallel", "SFT, several languages, not parallel"),
    ("parallel", "Parallel-SFT, equal tokens"),
    ("parallel-problems", "Parallel-SFT, equal problems"),
    ("replay-targets", "replay with target languages"),
];

/// The arm that stands for the model before any SFT.
pub const BASE: &str = "base";

/// Display names.
#[derive(Debug)]
pub struct Names {
    given: BTreeMap<String, String>,
    languages: Languages,
}

impl Names {
    /// `given`: `arm=text`, one for each arm to be renamed.
    ///
    /// # Errors
    /// A reason for the command line.
    pub fn new(given: &[String], languages: Languages) -> Result<Self, String> {
        let mut names = BTreeMap::new();
        for item in given {
            let (arm, name) =
                item.split_once('=').ok_or_else(|| format!("--names: {item:?} is not ARM=TEXT"))?;
            names.insert(arm.trim().to_string(), name.trim().to_string());
        }
        Ok(Self { given: names, languages })
    }

    pub fn arm(&self, arm: &str) -> String {
        let known = || KNOWN.iter().find(|(a, _)| *a == arm).map(|(_, name)| (*name).to_string());
        self.given.get(arm).cloned().or_else(known).unwrap_or_else(|| arm.to_string())
    }

    pub fn language(&self, language: &str) -> String {
        self.languages.get(language).map_or_else(|| language.to_string(), |l| l.display.clone())
    }
}

/// The rows: the base model first, then the arms as asked, or all that were found, those of the main experiment in its
/// order. The second list holds what was found and not asked for.
pub fn order_arms(asked: &[String], found: &[String]) -> (Vec<String>, Vec<String>) {
    let known = |arm: &str| KNOWN.iter().position(|(a, _)| *a == arm).unwrap_or(KNOWN.len());
    let mut found: Vec<String> = found.to_vec();
    found.sort_by(|a, b| known(a).cmp(&known(b)).then_with(|| natural(a, b)));
    found.dedup();
    if asked.is_empty() {
        return (found, Vec::new());
    }
    let mut rows: Vec<String> = found.iter().filter(|a| *a == BASE).cloned().collect();
    for arm in asked {
        if !rows.contains(arm) {
            rows.push(arm.clone());
        }
    }
    let left_out = found.into_iter().filter(|a| !rows.contains(a)).collect();
    (rows, left_out)
}

/// The languages table, with a user's where one is given.
///
/// # Errors
/// When the user's cannot be read (exit code 1) or is wrong (3).
pub fn languages(user: Option<&Path>) -> anyhow::Result<Languages> {
    Languages::load(user).map_err(|e| match e {
        Error::Io { .. } => e.into(),
        Error::Table { .. } => cognate_cli::rejected(e),
    })
}

/// Comparisons `first:second`.
///
/// # Errors
/// A reason for the command line.
pub fn pairs(given: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |item: &String| match item.split_once(':') {
        Some((a, b)) if !a.is_empty() && !b.is_empty() && a != b => Ok((a.to_string(), b.to_string())),
        _ => Err(format!("--contrast: {item:?} is not ARM:ARM")),
    };
    given.iter().filter(|item| !item.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn arms_stand_in_the_order_asked_and_nothing_is_dropped_in_silence() {
        let found = owned(&["zebra", "parallel", "base", "source"]);
        assert_eq!(order_arms(&[], &found).0, ["base", "source", "parallel", "zebra"]);
        let (rows, left_out) = order_arms(&owned(&["parallel", "absent"]), &found);
        assert_eq!(rows, ["base", "parallel", "absent"]);
        assert_eq!(left_out, ["source", "zebra"]);
    }

    #[test]
    fn names_can_be_given() {
        let names = Names::new(&owned(&["parallel=Ours"]), Languages::builtin()).unwrap();
        assert_eq!((names.arm("parallel"), names.arm("x")), ("Ours".into(), "x".into()));
        assert_eq!((names.language("php"), names.language("kobol")), ("PHP".into(), "kobol".into()));
        assert!(Names::new(&owned(&["parallel"]), Languages::builtin()).is_err());
    }
}
