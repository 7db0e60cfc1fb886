//! Where every reader of a corpus delivers: normalises, refuses what is empty or too large, removes exact
//! duplicates, counts all of it, and writes problem/1 and program/1.
//!
//! Memory: 16 bytes of hash for each distinct program and 32 for each problem, whatever their size.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use cognate_languages::Languages;
use cognate_records::{Format, Origin, Problem, Program, Provenance, Writer, WriterOptions};
use serde::Serialize;

use crate::normalise::{key_hash, normalise, source_hash};

/// A program as a reader found it.
#[derive(Debug, Default)]
pub struct Found {
    /// Empty: made from problem, language and source.
    pub id: Option<String>,
    pub problem: String,
    /// As the corpus spells it.
    pub language: String,
    pub source: Option<String>,
    pub claim: Option<String>,
    /// The corpus' own word where `claim` is a translation of it.
    pub claim_spelling: Option<String>,
    pub split: Option<String>,
    pub origin: Option<Origin>,
    pub extra: cognate_records::Extra,
}

#[derive(Debug, Default, Serialize)]
pub struct LanguageCounts {
    pub read: u64,
    pub written: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<&'static str, u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub claims: BTreeMap<String, u64>,
}

/// What an import did, for `--report` and the table on stderr.
#[derive(Debug, Default, Serialize)]
pub struct ImportReport {
    pub problems: u64,
    /// The same problem again, word for word.
    pub problems_repeated: u64,
    /// The same id with other contents; the first one stands.
    pub problems_conflicting: u64,
    pub tests: u64,
    pub languages: BTreeMap<String, LanguageCounts>,
    /// Spellings that no language answers to.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_languages: BTreeMap<String, u64>,
    /// Programs in a language that was not asked for.
    #[serde(skip_serializing_if = "is_zero")]
    pub unasked: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl ImportReport {
    pub fn programs(&self) -> u64 {
        self.languages.values().map(|l| l.written).sum()
    }
}

#[derive(Debug, Clone)]
pub struct IntakeOptions {
    pub max_source: usize,
    /// Canonical names; empty means all.
    pub languages: Vec<String>,
    pub format: Format,
    pub provenance: Provenance,
}

pub struct Intake<'l> {
    table: &'l Languages,
    options: IntakeOptions,
    problems: Writer<Problem>,
    programs: Writer<Program>,
    seen_programs: HashSet<u128>,
    seen_problems: HashMap<u128, u128>,
    spellings: HashMap<String, Option<String>>,
    pub report: ImportReport,
}

/// The files of an import inside its output folder.
pub fn outputs(folder: &Path, format: Format) -> (PathBuf, PathBuf) {
    let programs = if format == Format::Parquet { "programs.parquet" } else { "programs.jsonl" };
    (folder.join("problems.jsonl"), folder.join(programs))
}

impl<'l> Intake<'l> {
    /// # Errors
    /// When the outputs cannot be created.
    pub fn create(folder: &Path, table: &'l Languages, options: IntakeOptions) -> anyhow::Result<Self> {
        let (problems, programs) = outputs(folder, options.format);
        let writer =
            |format| WriterOptions { format: Some(format), provenance: Some(options.provenance.clone()) };
        Ok(Self {
            table,
            problems: Writer::create(&problems, writer(Format::Jsonl))?,
            programs: Writer::create(&programs, writer(options.format))?,
            options,
            seen_programs: HashSet::new(),
            seen_problems: HashMap::new(),
            spellings: HashMap::new(),
            report: ImportReport::default(),
        })
    }

    /// # Errors
    /// When the problem is not valid (`place` says where it came from) or the output cannot be written.
    pub fn problem(&mut self, problem: &Problem, place: &str) -> anyhow::Result<()> {
        use cognate_records::Record;
        problem.validate().map_err(|reason| cognate_records::Error::data(place, reason))?;
        let content = key_hash(&[&serde_json::to_string(problem)?]);
        match self.seen_problems.insert(key_hash(&[&problem.id]), content) {
            None => {
                self.report.problems += 1;
                self.report.tests += problem.tests.len() as u64;
                self.problems.write(problem)?;
            }
            Some(earlier) if earlier == content => self.report.problems_repeated += 1,
            Some(earlier) => {
                self.seen_problems.insert(key_hash(&[&problem.id]), earlier);
                self.report.problems_conflicting += 1;
            }
        }
        Ok(())
    }

    /// The canonical name of a language as a corpus spells it.
    pub fn language(&mut self, spelling: &str) -> Option<String> {
        if let Some(known) = self.spellings.get(spelling) {
            return known.clone();
        }
        let found = self.table.by_spelling(spelling).map(|l| l.name.clone());
        self.spellings.insert(spelling.to_owned(), found.clone());
        found
    }

    /// Writes the program, or counts why not.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn program(&mut self, found: Found) -> anyhow::Result<()> {
        let Some(language) = self.language(&found.language) else {
            *self.report.unknown_languages.entry(found.language).or_default() += 1;
            return Ok(());
        };
        if !self.options.languages.is_empty() && !self.options.languages.contains(&language) {
            self.report.unasked += 1;
            return Ok(());
        }
        let counts = self.report.languages.entry(language.clone()).or_default();
        counts.read += 1;
        let mut reject = |reason| *counts.rejected.entry(reason).or_default() += 1;
        let Some(source) = found.source else {
            reject("no source");
            return Ok(());
        };
        if source.len() > self.options.max_source {
            reject("too large");
            return Ok(());
        }
        let source = normalise(&source);
        if source.is_empty() {
            reject("empty");
            return Ok(());
        }
        let hash = source_hash(&source);
        if !self.seen_programs.insert(key_hash(&[&found.problem, &language, &format!("{hash:032x}")])) {
            reject("duplicate");
            return Ok(());
        }
        counts.written += 1;
        if let Some(claim) = &found.claim {
            *counts.claims.entry(claim.clone()).or_default() += 1;
        }
        let short = format!("{hash:032x}");
        let id = found.id.unwrap_or_else(|| format!("{}.{language}.{}", found.problem, &short[..12]));
        let mut extra = found.extra;
        if let Some(spelling) = found.claim_spelling.filter(|s| Some(s) != found.claim.as_ref()) {
            extra.insert("claim_spelling".to_owned(), spelling.into());
        }
        let program = Program {
            id,
            problem: found.problem,
            language,
            source,
            claim: found.claim,
            split: found.split,
            origin: found.origin,
            verdict: None,
            extra,
        };
        Ok(self.programs.write(&program)?)
    }

    /// Puts both files into place; a file without records is not written.
    ///
    /// # Errors
    /// When nothing was found, or an output cannot be written.
    pub fn finish(self) -> anyhow::Result<ImportReport> {
        let report = self.report;
        if report.problems == 0 && report.programs() == 0 {
            return Err(cognate_cli::rejected(anyhow::anyhow!(nothing_found(&report))));
        }
        if report.problems > 0 {
            self.problems.finish()?;
        }
        if report.programs() > 0 {
            self.programs.finish()?;
        }
        Ok(report)
    }
}

fn nothing_found(report: &ImportReport) -> String {
    if let Some((spelling, n)) = report.unknown_languages.iter().max_by_key(|(_, n)| **n) {
        return format!(
            "no usable program: unknown language {spelling:?} ({n} times); see --languages-table"
        );
    }
    match report.languages.values().flat_map(|l| &l.rejected).max_by_key(|(_, n)| **n) {
        Some((reason, n)) => format!("no usable program: {reason} ({n} times)"),
        None => "the corpus is empty: neither a problem nor a program was found".to_owned(),
    }
}
