//! Problems and programs, and the door that keeps forbidden splits out.
//!
//! Nothing of a split that rewards or scores come from may be trained on: neither its records nor, by exact hash, the
//! text of its statements and programs under another name.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use cognate_cli::{Common, rejected};
use cognate_languages::{Language, Languages};
use cognate_records::{Problem, Program, Reader, Record, Status};
use xxhash_rust::xxh3::xxh3_64;

use crate::cli;

/// The name under which flags speak of records without a split.
pub const NO_SPLIT: &str = "none";

#[derive(Debug)]
pub struct Statement {
    pub text: String,
    pub split: String,
}

/// What was left out, and why; it stands in every report.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Dropped {
    /// The very text of a program or statement of a forbidden split.
    pub contaminated: u64,
    /// The same program again, in the same language.
    pub duplicate: u64,
    /// Members of groups that rest on a claim alone.
    pub unverified: u64,
    /// Longer than the context.
    pub too_long: u64,
}

pub struct Corpus {
    pub languages: Languages,
    /// By id.
    pub problems: HashMap<String, Statement>,
    /// Ids in the order of the files.
    pub order: Vec<String>,
    forbidden: BTreeSet<String>,
    forbidden_texts: HashSet<u64>,
    pub dropped: Dropped,
}

/// A program that may be used.
#[derive(Debug, Clone)]
pub struct Source {
    pub id: String,
    pub problem: String,
    pub language: String,
    pub text: String,
    pub accepted: bool,
}

/// Reads every record of every file; a bad one is skipped with --keep-going.
pub fn read<T: Record>(
    common: &Common,
    paths: &[PathBuf],
    mut take: impl FnMut(&Path, T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for path in paths {
        for record in Reader::<T>::open(path)? {
            match record {
                Ok(record) => take(path, record)?,
                Err(error) => common.skip(error)?,
            }
        }
    }
    Ok(())
}

pub fn data(place: &Path, reason: impl Into<String>) -> cognate_records::Error {
    cognate_records::Error::data(place.display().to_string(), reason)
}

pub fn load_languages(table: Option<&Path>) -> anyhow::Result<Languages> {
    Languages::load(table).map_err(|e| match e {
        cognate_languages::Error::Io { .. } => e.into(),
        other => rejected(other),
    })
}

/// The named languages of the table, each once.
pub fn named<'a>(languages: &'a Languages, names: &[String]) -> anyhow::Result<Vec<&'a Language>> {
    let mut found: Vec<&Language> = Vec::new();
    for name in names {
        let language = languages.get(name).ok_or_else(|| {
            rejected(anyhow::anyhow!("unknown language {name:?}; it is not in the languages table"))
        })?;
        if found.iter().any(|f| f.name == *name) {
            return Err(rejected(anyhow::anyhow!("language {name:?} is named twice")));
        }
        found.push(language);
    }
    Ok(found)
}

/// Line ends and runs of blanks do not make another text.
fn text_hash(kind: &str, text: &str) -> u64 {
    let mut normal = String::with_capacity(text.len() + kind.len() + 1);
    normal.push_str(kind);
    for word in text.split_whitespace() {
        normal.push('\n');
        normal.push_str(word);
    }
    xxh3_64(normal.as_bytes())
}

impl Corpus {
    pub fn open(common: &Common, options: &cli::Corpus) -> anyhow::Result<Self> {
        let mut corpus = Self {
            languages: load_languages(options.languages_table.as_deref())?,
            problems: HashMap::new(),
            order: Vec::new(),
            forbidden: options.forbid.iter().cloned().collect(),
            forbidden_texts: HashSet::new(),
            dropped: Dropped::default(),
        };
        read::<Problem>(common, &options.problems, |path, problem| {
            let split = problem.split.unwrap_or_else(|| NO_SPLIT.into());
            if corpus.forbidden.contains(&split) {
                corpus.forbidden_texts.insert(text_hash("statement", &problem.statement));
            }
            if corpus.problems.contains_key(&problem.id) {
                return common.skip(data(path, format!("problem {:?} stands twice", problem.id)));
            }
            corpus.order.push(problem.id.clone());
            corpus.problems.insert(problem.id, Statement { text: problem.statement, split });
            Ok(())
        })?;
        if corpus.problems.is_empty() {
            let names: Vec<String> = options.problems.iter().map(|p| p.display().to_string()).collect();
            return Err(rejected(anyhow::anyhow!("{}: no problems", names.join(", "))));
        }
        Ok(corpus)
    }

    /// Refuses splits that must never be trained on.
    pub fn check_splits(&self, flag: &str, splits: &[String]) -> anyhow::Result<()> {
        match splits.iter().find(|s| self.forbidden.contains(*s)) {
            Some(split) => Err(rejected(anyhow::anyhow!(
                "{flag} {split}: the split {split:?} is forbidden for training (--forbid)"
            ))),
            None => Ok(()),
        }
    }

    /// The split of a record of this problem. A record that says another split than its problem is an error: one of
    /// the two would let forbidden data in.
    pub fn split(
        &self,
        path: &Path,
        what: &str,
        problem: &str,
        own: Option<&str>,
    ) -> Result<&str, cognate_records::Error> {
        let Some(statement) = self.problems.get(problem) else {
            return Err(data(path, format!("{what}: problem {problem:?} is not among the problems")));
        };
        match own {
            Some(own) if own != statement.split => Err(data(
                path,
                format!(
                    "{what}: split {own:?}, but its problem {problem:?} is in split {:?}",
                    statement.split
                ),
            )),
            _ => Ok(&statement.split),
        }
    }

    pub fn is_forbidden(&self, split: &str) -> bool {
        self.forbidden.contains(split)
    }

    /// Remembers a program of a forbidden split, so that its text is kept out under other names too.
    pub fn forbid_program(&mut self, language: &str, text: &str) {
        self.forbidden_texts.insert(text_hash(language, text));
    }

    /// Whether the problem's statement is that of a forbidden problem.
    pub fn statement_leaks(&self, problem: &str) -> bool {
        self.problems
            .get(problem)
            .is_some_and(|s| self.forbidden_texts.contains(&text_hash("statement", &s.text)))
    }

    pub fn program_leaks(&self, language: &str, text: &str) -> bool {
        self.forbidden_texts.contains(&text_hash(language, text))
    }

    /// Reads programs: those of the given splits and languages (all languages if none are named) that pass the door,
    /// exact duplicates dropped, in the order of the files.
    pub fn programs(
        &mut self,
        common: &Common,
        paths: &[PathBuf],
        splits: &[String],
        languages: &[&str],
    ) -> anyhow::Result<Vec<Source>> {
        let mut found: Vec<Source> = Vec::new();
        read::<Program>(common, paths, |path, program| {
            let what = format!("program {:?}", program.id);
            if self.languages.get(&program.language).is_none() {
                return common.skip(data(path, format!("{what}: unknown language {:?}", program.language)));
            }
            let split = match self.split(path, &what, &program.problem, program.split.as_deref()) {
                Ok(split) => split,
                Err(error) => return common.skip(error),
            };
            if self.forbidden.contains(split) {
                self.forbid_program(&program.language, &program.source);
            } else if splits.iter().any(|s| s == split)
                && (languages.is_empty() || languages.contains(&program.language.as_str()))
                && let Some(accepted) = is_accepted(&program)
            {
                found.push(Source {
                    id: program.id,
                    problem: program.problem,
                    language: program.language,
                    text: program.source,
                    accepted,
                });
            }
            Ok(())
        })?;
        let mut seen = HashSet::new();
        let mut dropped = self.dropped.clone();
        found.retain(|source| {
            if self.statement_leaks(&source.problem) || self.program_leaks(&source.language, &source.text) {
                dropped.contaminated += 1;
                return false;
            }
            // One text may be wrong for many problems, and be asked about for each.
            let of = if source.accepted { "" } else { &source.problem };
            let new =
                seen.insert((source.accepted, text_hash(of, ""), text_hash(&source.language, &source.text)));
            dropped.duplicate += u64::from(!new);
            new
        });
        self.dropped = dropped;
        Ok(found)
    }
}

/// Accepted or wrong, by the verdict where there is one, else by the claim; `None` where neither tells.
pub fn is_accepted(program: &Program) -> Option<bool> {
    match (&program.verdict, program.claim.as_deref()) {
        (Some(verdict), _) => match verdict.status {
            Status::AC => Some(true),
            Status::IE => None,
            _ => Some(false),
        },
        (None, Some("accepted")) => Some(true),
        (None, Some("wrong")) => Some(false),
        (None, _) => None,
    }
}

/// Parses `name=weight` lists; every weight must be positive, every name one of `known` if that is given.
pub fn weights(
    flag: &str,
    given: &[String],
    known: Option<&[&str]>,
) -> anyhow::Result<BTreeMap<String, f64>> {
    let mut found = BTreeMap::new();
    for item in given {
        let fail = |reason: String| rejected(anyhow::anyhow!("{flag} {item:?}: {reason}"));
        let (name, number) =
            item.split_once('=').ok_or_else(|| fail("not of the form NAME=NUMBER".into()))?;
        let weight: f64 = number.trim().parse().map_err(|_| fail(format!("{number:?} is not a number")))?;
        if !(weight > 0.0 && weight.is_finite()) {
            return Err(fail(format!("weight {number} for {name} does nothing; leave {name} out instead")));
        }
        if let Some(known) = known
            && !known.contains(&name)
        {
            return Err(fail(format!("unknown name {name:?}; known here: {}", known.join(", "))));
        }
        if found.insert(name.to_owned(), weight).is_some() {
            return Err(fail(format!("{name} is named twice")));
        }
    }
    Ok(found)
}
