//! What an output is made of, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::corpus::Dropped;
use crate::document::Document;
use crate::language_model::Kind;
use crate::sft::arms::{ArmKind, Matched};

/// Tokens with loss and documents by language and task (base documents: by kind).
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Shares(pub BTreeMap<String, BTreeMap<String, Share>>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    pub documents: u64,
    /// Tokens with loss.
    pub tokens: u64,
}

impl Shares {
    /// With `kinds`, base documents are told apart by the kind that their id begins with.
    pub fn of<'a>(documents: impl Iterator<Item = &'a Document>, kinds: Option<&[(Kind, f64)]>) -> Self {
        let mut all = Self::default();
        for document in documents {
            let task = match kinds {
                Some(_) => document.id.split('/').next().unwrap_or(document.task),
                None => document.task,
            };
            for (language, tokens) in &document.answers {
                let share = all.0.entry(language.clone()).or_default().entry(task.to_owned()).or_default();
                share.documents += 1;
                share.tokens += tokens;
            }
        }
        all
    }

    pub fn tokens(&self, language: &str, task: &str) -> u64 {
        self.0.get(language).and_then(|tasks| tasks.get(task)).map_or(0, |s| s.tokens)
    }

    pub fn task_tokens(&self, task: &str) -> u64 {
        self.0.values().filter_map(|tasks| tasks.get(task)).map(|s| s.tokens).sum()
    }
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (language, tasks)) in self.0.iter().enumerate() {
            write!(f, "{}  {language:<12}", if i > 0 { "\n" } else { "" })?;
            for (task, share) in tasks {
                write!(f, " {task} {} tokens in {} documents;", share.tokens, share.documents)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} contaminated, {} duplicate, {} unverified, {} too long",
            self.contaminated, self.duplicate, self.unverified, self.too_long
        )
    }
}

/// One arm of the experiment, as it was built.
#[derive(Debug, Clone, Serialize)]
pub struct ArmReport {
    pub name: String,
    pub kind: ArmKind,
    pub matched: Matched,
    pub languages: Vec<String>,
    pub replay_languages: Vec<String>,
    /// Packed sequences; one epoch.
    pub sequences: u64,
    /// Optimizer steps of one epoch.
    pub steps: u64,
    pub documents: u64,
    /// Distinct problems of generation documents.
    pub problems: u64,
    /// All tokens, prompts included.
    pub tokens: u64,
    /// Tokens with loss in generation, verification and replay.
    pub answer_tokens: BTreeMap<String, u64>,
    /// Most generation documents of one problem in one language.
    pub per_problem: u64,
    pub shares: Shares,
}

#[derive(Debug, Serialize)]
pub struct Manifest {
    pub schema: &'static str,
    pub seed: u64,
    /// The tokenizer's fingerprint.
    pub tokenizer: String,
    pub format: String,
    pub context: usize,
    pub batch: usize,
    pub arms: Vec<ArmReport>,
    pub dropped: Dropped,
    pub provenance: serde_json::Value,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<18} {:>9} {:>6} {:>9} {:>9} {:>9} {:>8} {:>9}",
            "arm", "sequences", "steps", "problems", "answer", "verify", "replay", "tokens"
        )?;
        for arm in &self.arms {
            let of = |task: &str| arm.answer_tokens.get(task).copied().unwrap_or(0);
            write!(
                f,
                "\n{:<18} {:>9} {:>6} {:>9} {:>9} {:>9} {:>8} {:>9}",
                arm.name,
                arm.sequences,
                arm.steps,
                arm.problems,
                of("generation"),
                of("verification"),
                of("replay"),
                arm.tokens
            )?;
        }
        write!(f, "\nleft out: {}", self.dropped)
    }
}
