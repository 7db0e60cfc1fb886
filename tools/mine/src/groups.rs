//! Groups of parallel programs out of judged programs, with the evidence for every member.
//!
//! A program is in if the judge accepted it (or, with claims as evidence, if the corpus says so). Memory: about 100
//! bytes an accepted program and the statements of the problems that have a group; sources wait in an unnamed
//! temporary file.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use cognate_random::Key;
use cognate_records::{Evidence, Group, Member, Problem, Program, Reader, Status};
use serde::Serialize;

use crate::normalise::{key_hash, normalise, source_hash};
use crate::spill::{Place, Spill};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EvidenceKind {
    /// The judge accepted it.
    Verdict,
    /// The corpus says that it was accepted.
    Claim,
}

#[derive(Debug, Clone)]
pub struct GroupOptions {
    pub evidence: EvidenceKind,
    pub min_languages: usize,
    pub min_tests: u32,
    pub per_language: usize,
    /// Canonical names; empty means all.
    pub languages: Vec<String>,
    pub seed: u64,
}

#[derive(Debug, Default, Serialize)]
pub struct Yield {
    pub candidates: u64,
    /// By status of the verdict; `none` for a program that was not judged.
    pub verdicts: BTreeMap<String, u64>,
    /// Accepted, but not counted as evidence or the same source again.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub passed_over: BTreeMap<&'static str, u64>,
    pub members: u64,
    /// What the corpus says, against the verdict.
    pub claims: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, Default, Serialize)]
pub struct GroupReport {
    pub languages: BTreeMap<String, Yield>,
    pub problems: u64,
    pub problems_with_an_accepted_program: u64,
    pub groups: u64,
    pub members: u64,
    /// Number of groups by their number of languages.
    pub groups_by_languages: BTreeMap<usize, u64>,
}

impl GroupReport {
    /// A line a language: candidates, accepted, other verdicts, members.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let mut rows =
            vec![["language", "candidates", "AC", "members", "not accepted"].map(str::to_owned).to_vec()];
        for (language, counts) in &self.languages {
            let others = counts.verdicts.iter().filter(|(status, _)| *status != "AC");
            rows.push(vec![
                language.clone(),
                counts.candidates.to_string(),
                counts.verdicts.get("AC").unwrap_or(&0).to_string(),
                counts.members.to_string(),
                crate::table::tally(others),
            ]);
        }
        rows
    }
}

struct Entry {
    problem: u32,
    rank: u64,
    language: String,
    id: String,
    place: Place,
}

/// What waits in the temporary file.
#[derive(Serialize, serde::Deserialize)]
struct Accepted {
    member: Member,
    split: Option<String>,
}

pub struct Grouper {
    options: GroupOptions,
    spill: Spill,
    entries: Vec<Entry>,
    problems: HashMap<String, u32>,
    read: HashSet<u128>,
    seen: HashSet<u128>,
    report: GroupReport,
}

fn status_name(status: Status) -> String {
    format!("{status:?}")
}

impl Grouper {
    pub fn new(options: GroupOptions, spill: Spill) -> Self {
        Self {
            options,
            spill,
            entries: Vec::new(),
            problems: HashMap::new(),
            read: HashSet::new(),
            seen: HashSet::new(),
            report: GroupReport::default(),
        }
    }

    /// # Errors
    /// A reason, when verdicts are asked for and the program has none.
    fn evidence(&self, program: &Program) -> Result<Option<Evidence>, String> {
        match self.options.evidence {
            EvidenceKind::Claim => Ok((program.claim.as_deref() == Some("accepted")).then(|| Evidence {
                kind: "claim".to_owned(),
                status: None,
                tests: 0,
            })),
            EvidenceKind::Verdict => {
                let verdict = program.verdict.as_ref().ok_or_else(|| {
                    format!(
                        "program {:?} has no verdict; pass it through cog-judge, or use --evidence claim",
                        program.id
                    )
                })?;
                Ok((verdict.status == Status::AC).then(|| Evidence {
                    kind: "verdict".to_owned(),
                    status: Some(verdict.status),
                    tests: verdict.passed,
                }))
            }
        }
    }

    /// # Errors
    /// When the program has no verdict and verdicts are asked for (`place` says where), or the temporary file cannot
    /// be written.
    pub fn add(&mut self, place: &str, program: Program) -> anyhow::Result<()> {
        let o = &self.options;
        if !o.languages.is_empty() && !o.languages.contains(&program.language) {
            return Ok(());
        }
        let evidence =
            self.evidence(&program).map_err(|reason| cognate_records::Error::data(place, reason))?;
        self.read.insert(key_hash(&[&program.problem]));
        let status = program.verdict.as_ref().map_or_else(|| "none".to_owned(), |v| status_name(v.status));
        let counts = self.report.languages.entry(program.language.clone()).or_default();
        counts.candidates += 1;
        *counts.verdicts.entry(status.clone()).or_default() += 1;
        let spelled = program.extra.get("claim_spelling").and_then(|v| v.as_str());
        if let Some(claim) = spelled.or(program.claim.as_deref()) {
            *counts.claims.entry(claim.to_owned()).or_default().entry(status).or_default() += 1;
        }
        let Some(evidence) = evidence else { return Ok(()) };
        if evidence.kind == "verdict" && evidence.tests < o.min_tests {
            *counts.passed_over.entry("too few tests").or_default() += 1;
            return Ok(());
        }
        let hash = source_hash(&normalise(&program.source)).to_string();
        if !self.seen.insert(key_hash(&[&program.problem, &program.language, &hash])) {
            *counts.passed_over.entry("duplicate").or_default() += 1;
            return Ok(());
        }
        let next = self.problems.len() as u32;
        let problem = *self.problems.entry(program.problem).or_insert(next);
        let rank = Key::new(o.seed).with("member").with(&program.id).bits(0);
        let (id, language) = (program.id.clone(), program.language.clone());
        let member = Member {
            id: program.id,
            language: program.language,
            source: program.source,
            origin: program.origin,
            evidence,
        };
        let place = self.spill.push(&Accepted { member, split: program.split })?;
        self.entries.push(Entry { problem, rank, language, id, place });
        Ok(())
    }

    /// Hands the groups to `emit`, sorted by problem; members sorted by language, then id. A group's statement, and
    /// its split where the programs carry none, come from `problems`.
    ///
    /// # Errors
    /// When there is none, a problem is missing from `problems`, or `emit` fails.
    pub fn finish(
        mut self,
        problems: Option<&Path>,
        mut emit: impl FnMut(&Group) -> anyhow::Result<()>,
    ) -> anyhow::Result<GroupReport> {
        self.report.problems = self.read.len() as u64;
        self.report.problems_with_an_accepted_program = self.problems.len() as u64;
        let mut chosen = self.choose();
        if chosen.is_empty() {
            return Err(cognate_cli::rejected(anyhow::anyhow!(self.why_nothing())));
        }
        let mut texts = problems.map(|path| statements(path, &chosen)).transpose()?;
        for (problem, entries) in &mut chosen {
            entries.sort_by(|a, b| (&a.language, &a.id).cmp(&(&b.language, &b.id)));
            let mut group = Group { id: problem.clone(), problem: problem.clone(), ..Group::default() };
            for entry in entries {
                let accepted: Accepted = self.spill.get(entry.place)?;
                group.split = group.split.or(accepted.split);
                self.report.languages.entry(entry.language.clone()).or_default().members += 1;
                group.members.push(accepted.member);
            }
            if let (Some(texts), Some(path)) = (&mut texts, problems) {
                let (statement, split) = texts.remove(problem).ok_or_else(|| {
                    cognate_records::Error::data(
                        path.display().to_string(),
                        format!("problem {problem:?} is missing"),
                    )
                })?;
                group.statement = Some(statement);
                group.split = group.split.or(split);
            }
            let languages: BTreeSet<&str> = group.members.iter().map(|m| m.language.as_str()).collect();
            *self.report.groups_by_languages.entry(languages.len()).or_default() += 1;
            self.report.groups += 1;
            self.report.members += group.members.len() as u64;
            emit(&group)?;
        }
        Ok(self.report)
    }

    /// Of each problem at most `per_language` programs a language; problems with too few languages are left out.
    fn choose(&mut self) -> BTreeMap<String, Vec<Entry>> {
        let mut names = vec![String::new(); self.problems.len()];
        for (name, number) in self.problems.drain() {
            names[number as usize] = name;
        }
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_by(|a, b| (&a.language, a.rank, &a.id).cmp(&(&b.language, b.rank, &b.id)));
        let mut chosen: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for entry in entries {
            let group = chosen.entry(names[entry.problem as usize].clone()).or_default();
            let same = group.iter().rev().take_while(|e| e.language == entry.language).count();
            if same < self.options.per_language {
                group.push(entry);
            }
        }
        chosen.retain(|_, entries| {
            entries.iter().map(|e| &e.language).collect::<BTreeSet<_>>().len() >= self.options.min_languages
        });
        chosen
    }

    fn why_nothing(&self) -> String {
        let read: u64 = self.report.languages.values().map(|y| y.candidates).sum();
        if read == 0 {
            return "no program in the input".to_owned();
        }
        format!(
            "no group: {read} programs of {} problems were read, {} problems have an accepted one, none in {} languages",
            self.report.problems, self.report.problems_with_an_accepted_program, self.options.min_languages
        )
    }
}

/// Statement and split of the problems that have a group.
fn statements(
    path: &Path,
    wanted: &BTreeMap<String, Vec<Entry>>,
) -> anyhow::Result<HashMap<String, (String, Option<String>)>> {
    let mut found = HashMap::new();
    for problem in Reader::<Problem>::open(path)? {
        let p = problem?;
        if wanted.contains_key(&p.id) {
            found.insert(p.id, (p.statement, p.split));
        }
    }
    Ok(found)
}
