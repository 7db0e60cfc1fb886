//! What the arms of an experiment are: tables `[[arm]]` of the preset, or the usual four.

use cognate_cli::rejected;
use serde::{Deserialize, Serialize};

use crate::cli;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArmKind {
    /// One language.
    Source,
    /// Several languages, each problem in ONE of them.
    Nonparallel,
    /// Several languages, each problem in ALL of them.
    Parallel,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matched {
    /// As many answer tokens as the other arms, in all and in each language, in as many sequences.
    #[default]
    Tokens,
    /// As many problems as the first non-parallel arm (or the first source arm), however many tokens that takes.
    Problems,
}

/// One arm, complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Arm {
    pub name: String,
    pub kind: ArmKind,
    pub matched: Matched,
    /// In the order given.
    pub languages: Vec<String>,
    pub replay_languages: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    name: String,
    kind: ArmKind,
    #[serde(default)]
    matched: Matched,
    languages: Option<Vec<String>>,
    replay_languages: Option<Vec<String>>,
}

/// The arms where a preset has none.
const DEFAULT: [(&str, ArmKind, Matched); 4] = [
    ("source", ArmKind::Source, Matched::Tokens),
    ("nonparallel", ArmKind::Nonparallel, Matched::Tokens),
    ("parallel", ArmKind::Parallel, Matched::Tokens),
    ("parallel-problems", ArmKind::Parallel, Matched::Problems),
];

/// Reads the `[[arm]]` tables, fills in what they leave to the flags, and refuses what makes no sense.
pub fn arms(tables: Option<toml::Value>, options: &cli::Sft) -> anyhow::Result<Vec<Arm>> {
    let given: Vec<Given> = match tables {
        Some(tables) => tables
            .try_into()
            .map_err(|e: toml::de::Error| rejected(anyhow::anyhow!("[[arm]]: {}", e.message())))?,
        None => DEFAULT
            .iter()
            .map(|&(name, kind, matched)| Given {
                name: name.into(),
                kind,
                matched,
                languages: None,
                replay_languages: None,
            })
            .collect(),
    };
    let replay =
        if options.replay_languages.is_empty() { &options.languages } else { &options.replay_languages };
    let mut arms: Vec<Arm> = Vec::new();
    for arm in given {
        let fail = |reason: String| rejected(anyhow::anyhow!("arm {:?}: {reason}", arm.name));
        let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if arm.name.is_empty() || arm.name.starts_with('.') || !arm.name.chars().all(sound) {
            return Err(fail("a name is made of letters, digits, - _ and ., for it names a file".into()));
        }
        if arms.iter().any(|a| a.name == arm.name) {
            return Err(fail("named twice".into()));
        }
        let languages = arm.languages.clone().unwrap_or_else(|| match arm.kind {
            ArmKind::Source => vec![options.source.clone()],
            _ => options.languages.clone(),
        });
        match arm.kind {
            ArmKind::Source if languages.len() != 1 => {
                return Err(fail(format!("kind source has one language, not {}", languages.len())));
            }
            ArmKind::Nonparallel | ArmKind::Parallel if languages.len() < 2 => {
                return Err(fail("needs two languages at least".into()));
            }
            _ => {}
        }
        if arm.matched == Matched::Problems && arm.kind != ArmKind::Parallel {
            return Err(fail("only a parallel arm can be matched in problems".into()));
        }
        let replay_languages = arm.replay_languages.clone().unwrap_or_else(|| replay.clone());
        if options.replay > 0.0 && replay_languages.is_empty() {
            return Err(fail("replays no language; set --replay 0 for all arms instead".into()));
        }
        arms.push(Arm { name: arm.name, kind: arm.kind, matched: arm.matched, languages, replay_languages });
    }
    if arms.is_empty() {
        return Err(rejected(anyhow::anyhow!("[[arm]]: no arm")));
    }
    Ok(arms)
}
