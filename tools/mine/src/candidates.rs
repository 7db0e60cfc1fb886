//! Chooses programs that could form groups, before anything is spent on judging them: enough languages a problem, no
//! exact duplicates, at most so many a language.
//!
//! The choice among many is by a random number keyed by the program's own id, so that it does not depend on the order
//! of the input, and asking for more keeps what was chosen before. Memory: about 100 bytes a program; the sources
//! wait in an unnamed temporary file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use cognate_random::Key;
use cognate_records::{Error, Problem, Program, Reader};
use serde::Serialize;

use crate::normalise::{key_hash, normalise, source_hash};
use crate::spill::{Place, Spill};

#[derive(Debug, Clone)]
pub struct CandidateOptions {
    pub min_languages: usize,
    pub per_language: usize,
    pub max_problems: Option<usize>,
    /// Canonical names; empty means all.
    pub languages: Vec<String>,
    pub splits: Vec<String>,
    /// Claims that are taken, beside programs without one; `any` takes all.
    pub claims: Vec<String>,
    pub max_source: usize,
    pub seed: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Counts {
    pub read: u64,
    pub chosen: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub passed_over: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default, Serialize)]
pub struct CandidateReport {
    pub languages: BTreeMap<String, Counts>,
    pub problems_read: u64,
    pub problems_chosen: u64,
    pub programs_chosen: u64,
}

struct Entry {
    problem: u32,
    language: u32,
    rank: u64,
    place: Place,
}

/// What is known of a problem from `--problems`.
pub struct Known {
    split: Option<String>,
    tests: usize,
}

/// Ids, splits and numbers of tests of a problems file.
///
/// # Errors
/// When the file cannot be read.
pub fn known_problems(path: &Path) -> anyhow::Result<HashMap<String, Known>> {
    let mut known = HashMap::new();
    for problem in Reader::<Problem>::open(path)? {
        let p = problem?;
        known.insert(p.id, Known { split: p.split, tests: p.tests.len() });
    }
    if known.is_empty() {
        return Err(Error::data(path.display().to_string(), "no problem in the file").into());
    }
    Ok(known)
}

pub struct Chooser {
    options: CandidateOptions,
    known: Option<HashMap<String, Known>>,
    spill: Spill,
    entries: Vec<Entry>,
    problems: HashMap<String, u32>,
    names: Vec<String>,
    seen: HashSet<u128>,
    report: CandidateReport,
}

impl Chooser {
    pub fn new(options: CandidateOptions, known: Option<HashMap<String, Known>>, spill: Spill) -> Self {
        Self {
            options,
            known,
            spill,
            entries: Vec::new(),
            problems: HashMap::new(),
            names: Vec::new(),
            seen: HashSet::new(),
            report: CandidateReport::default(),
        }
    }

    /// Why a program is not even looked at.
    fn refusal(&mut self, program: &Program) -> Option<&'static str> {
        let o = &self.options;
        let allows = |list: &[String], value: &str| list.is_empty() || list.iter().any(|v| v == value);
        if !allows(&o.languages, &program.language) {
            return Some("language not asked for");
        }
        let known = self.known.as_ref().map(|k| k.get(&program.problem));
        if known.is_some_and(|k| k.is_none()) {
            return Some("problem unknown");
        }
        let known = known.flatten();
        if known.is_some_and(|k| k.tests == 0) {
            return Some("problem has no tests");
        }
        let split = program.split.as_deref().or_else(|| known.and_then(|k| k.split.as_deref()));
        if !allows(&o.splits, split.unwrap_or_default()) {
            return Some("split not asked for");
        }
        let taken = |claim: &String| o.claims.iter().any(|c| c == claim || c == "any");
        if !program.claim.as_ref().is_none_or(taken) {
            return Some("claim not asked for");
        }
        if program.source.len() > o.max_source {
            return Some("too large");
        }
        let source = normalise(&program.source);
        if source.is_empty() {
            return Some("empty");
        }
        let hash = source_hash(&source).to_string();
        (!self.seen.insert(key_hash(&[&program.problem, &program.language, &hash]))).then_some("duplicate")
    }

    /// # Errors
    /// When the temporary file cannot be written.
    pub fn add(&mut self, program: &Program) -> anyhow::Result<()> {
        self.report.languages.entry(program.language.clone()).or_default().read += 1;
        if let Some(reason) = self.refusal(program) {
            let counts = self.report.languages.entry(program.language.clone()).or_default();
            *counts.passed_over.entry(reason).or_default() += 1;
            return Ok(());
        }
        let next = self.problems.len() as u32;
        let problem = *self.problems.entry(program.problem.clone()).or_insert(next);
        let language = match self.names.iter().position(|n| *n == program.language) {
            Some(i) => i,
            None => {
                self.names.push(program.language.clone());
                self.names.len() - 1
            }
        };
        let rank = Key::new(self.options.seed).with("candidate").with(&program.id).bits(0);
        let place = self.spill.push(program)?;
        self.entries.push(Entry { problem, language: language as u32, rank, place });
        Ok(())
    }

    fn pass_over(report: &mut CandidateReport, names: &[String], entry: &Entry, reason: &'static str) {
        let counts = report.languages.entry(names[entry.language as usize].clone()).or_default();
        *counts.passed_over.entry(reason).or_default() += 1;
    }

    /// Hands the chosen programs to `emit`: by problem in order of first appearance, then in order of the input.
    ///
    /// # Errors
    /// When nothing could form a group, or `emit` fails.
    pub fn finish(
        mut self,
        mut emit: impl FnMut(&Program) -> anyhow::Result<()>,
    ) -> anyhow::Result<CandidateReport> {
        let mut languages: HashMap<u32, BTreeSet<u32>> = HashMap::new();
        for e in &self.entries {
            languages.entry(e.problem).or_default().insert(e.language);
        }
        self.report.problems_read = languages.len() as u64;
        languages.retain(|_, found| found.len() >= self.options.min_languages);
        let mut chosen: HashSet<u32> = languages.into_keys().collect();
        if let Some(most) = self.options.max_problems.filter(|most| chosen.len() > *most) {
            chosen = self.draw_problems(&chosen, most);
        }
        self.report.problems_chosen = chosen.len() as u64;

        // Position within its problem and language by rank decides who is under the cap.
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&i| (self.entries[i].problem, self.entries[i].language, self.entries[i].rank, i));
        let mut keep = vec![false; self.entries.len()];
        let mut run = (u32::MAX, u32::MAX, 0);
        for &i in &order {
            let e = &self.entries[i];
            run = if (run.0, run.1) == (e.problem, e.language) {
                (run.0, run.1, run.2 + 1)
            } else {
                (e.problem, e.language, 1)
            };
            if !chosen.contains(&e.problem) {
                Self::pass_over(&mut self.report, &self.names, e, "problem not chosen");
            } else if run.2 > self.options.per_language {
                Self::pass_over(&mut self.report, &self.names, e, "over the cap of its language");
            } else {
                keep[i] = true;
            }
        }
        order.retain(|&i| keep[i]);
        order.sort_by_key(|&i| (self.entries[i].problem, i));
        for i in order {
            let program: Program = self.spill.get(self.entries[i].place)?;
            self.report.programs_chosen += 1;
            self.report.languages.entry(program.language.clone()).or_default().chosen += 1;
            emit(&program)?;
        }
        if self.report.programs_chosen == 0 {
            return Err(cognate_cli::rejected(anyhow::anyhow!(self.why_nothing())));
        }
        Ok(self.report)
    }

    fn draw_problems(&self, eligible: &HashSet<u32>, most: usize) -> HashSet<u32> {
        let key = Key::new(self.options.seed).with("problem");
        let mut ranked: Vec<(u64, &String, u32)> = self
            .problems
            .iter()
            .filter(|(_, number)| eligible.contains(number))
            .map(|(id, number)| (key.with(id).bits(0), id, *number))
            .collect();
        ranked.sort();
        ranked.into_iter().take(most).map(|(_, _, number)| number).collect()
    }

    fn why_nothing(&self) -> String {
        let read: u64 = self.report.languages.values().map(|c| c.read).sum();
        if read == 0 {
            return "no program in the input".to_owned();
        }
        let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
        for (reason, n) in self.report.languages.values().flat_map(|c| &c.passed_over) {
            *reasons.entry(reason).or_default() += n;
        }
        let list: Vec<_> = reasons.iter().map(|(reason, n)| format!("{reason}: {n}")).collect();
        format!(
            "none of {read} programs is a candidate ({}); at least {} languages a problem are asked for",
            list.join(", "),
            self.options.min_languages
        )
    }
}
