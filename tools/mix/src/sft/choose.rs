//! Chooses the documents of each arm.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use cognate_chat::Chat;
use cognate_cli::rejected;
use cognate_languages::Language;
use cognate_random::Key;
use rayon::prelude::*;

use crate::base::{self, kinds};
use crate::cli::{self, ParallelFormat};
use crate::corpus::{Corpus, Source};
use crate::document::{Document, Shared, answered, chat_error, generation};
use crate::fill::fill;
use crate::format::Format;
use crate::language_model::{Author, Shape};
use crate::sft::arms::{Arm, ArmKind, Matched};
use crate::sft::deal::deal;
use crate::sft::equal::slack;
use crate::sft::members::ByProblem;
use crate::sft::verification::Verification;

/// Generation documents of a problem by language, at most `--per-problem` each.
type ByLanguage = BTreeMap<String, Vec<Shared>>;

pub struct Builder<'a> {
    pub options: &'a cli::Sft,
    pub chat: &'a Chat,
    pub format: &'a Format,
    pub corpus: Corpus,
    pub key: Key,
    /// In the order in which problems are used, the same for all arms.
    pub problems: Vec<(String, ByLanguage)>,
    pub verification: Option<Verification>,
}

/// Documents of an arm, before replay and packing.
pub struct Chosen {
    pub documents: Vec<Shared>,
    /// Answer tokens of generation by language.
    pub tokens: BTreeMap<String, u64>,
    /// Verification pairs (a yes and a no) for each language.
    pub pairs: usize,
}

impl Builder<'_> {
    fn language(&self, name: &str) -> anyhow::Result<&Language> {
        self.corpus.languages.get(name).ok_or_else(|| rejected(anyhow::anyhow!("unknown language {name:?}")))
    }

    /// Tokenises the members and puts the problems in their order.
    pub fn write_generation(&mut self, members: ByProblem) -> anyhow::Result<()> {
        let key = self.key.with("member");
        let context = self.options.context;
        let written: Vec<anyhow::Result<(String, ByLanguage, u64)>> = members
            .into_par_iter()
            .map(|(problem, languages)| {
                let mut by_language = ByLanguage::new();
                let mut too_long = 0;
                let statement = self.corpus.problems.get(&problem).map_or("", |s| s.text.as_str());
                for (name, mut members) in languages {
                    members.sort_by_cached_key(|m| (key.with(&m.id).bits(0), m.id.clone()));
                    let language = self.language(&name)?;
                    let mut documents = Vec::new();
                    for m in &members {
                        let document = generation(
                            self.chat,
                            self.format,
                            statement,
                            &problem,
                            language,
                            (&m.id, &m.source),
                        )?;
                        if document.ids.len() > context {
                            too_long += 1;
                        } else if documents.len() < self.options.per_problem {
                            documents.push(Arc::new(document));
                        }
                    }
                    if !documents.is_empty() {
                        by_language.insert(name, documents);
                    }
                }
                Ok((problem, by_language, too_long))
            })
            .collect();
        for of in written {
            let (problem, by_language, too_long) = of?;
            self.corpus.dropped.too_long += too_long;
            self.problems.push((problem, by_language));
        }
        let key = self.key.with("problems");
        self.problems.sort_by_cached_key(|(id, _)| (key.with(id).bits(0), id.clone()));
        Ok(())
    }

    pub fn write_verification(&mut self, sources: &[Source]) -> anyhow::Result<()> {
        if self.options.verification <= 0.0 {
            return Ok(());
        }
        let of: Vec<&Source> = sources
            .iter()
            .filter(|s| {
                self.corpus.problems.get(&s.problem).is_some_and(|p| self.options.splits.contains(&p.split))
            })
            .collect();
        // Non-parallel arms deal the problems of the groups, so verification stays within those.
        let mut order: Vec<String> = self.problems.iter().map(|(id, _)| id.clone()).collect();
        let key = self.key.with("verification");
        order.sort_by_cached_key(|id| (key.with(id).bits(0), id.clone()));
        let mut too_long = 0;
        self.verification = Some(Verification::write(
            self.chat,
            self.format,
            &self.corpus,
            &of,
            order,
            self.options.context,
            &mut too_long,
        )?);
        self.corpus.dropped.too_long += too_long;
        Ok(())
    }

    /// The documents of every arm, in the order of the arms.
    pub fn choose(&self, arms: &[Arm]) -> anyhow::Result<Vec<Chosen>> {
        let mut chosen: Vec<Option<Chosen>> = arms.iter().map(|_| None).collect();
        let matched = |i: usize| arms[i].matched == Matched::Tokens;
        let parallel: Vec<usize> = (0..arms.len()).filter(|&i| arms[i].kind == ArmKind::Parallel).collect();
        // The first parallel arm gives the measure; further ones of other languages are filled to its total.
        let mut total = self.options.tokens;
        let mut exact = false;
        for &i in parallel.iter().filter(|&&i| matched(i)) {
            let of = self.parallel(&arms[i], Some(total), None)?;
            if !exact {
                total = of.tokens.values().sum();
                exact = true;
            }
            chosen[i] = Some(of);
        }
        for i in (0..arms.len()).filter(|&i| arms[i].kind != ArmKind::Parallel) {
            let same =
                |a: &Arm| a.languages.iter().collect::<BTreeSet<_>>() == arms[i].languages.iter().collect();
            let measure =
                parallel.iter().filter(|&&p| matched(p) && same(&arms[p])).find_map(|&p| chosen[p].as_ref());
            let pairs = chosen.iter().flatten().map(|c| c.pairs * c.tokens.len()).next();
            let budgets: Vec<u64> = match measure {
                Some(measure) => {
                    arms[i].languages.iter().map(|l| measure.tokens.get(l).copied().unwrap_or(0)).collect()
                }
                None => even_shares(total, arms[i].languages.len()),
            };
            chosen[i] = Some(self.single(&arms[i], &budgets, pairs)?);
        }
        let reference = [ArmKind::Nonparallel, ArmKind::Source]
            .iter()
            .find_map(|&kind| (0..arms.len()).find(|&i| arms[i].kind == kind))
            .and_then(|i| chosen[i].as_ref())
            .map(|c| problems_of(&c.documents).len());
        for &i in parallel.iter().filter(|&&i| !matched(i)) {
            let Some(problems) = reference else {
                let name = &arms[i].name;
                return Err(rejected(anyhow::anyhow!(
                    "arm {name:?}: matched in problems, but there is no nonparallel or source arm to count them in"
                )));
            };
            chosen[i] = Some(self.parallel(&arms[i], None, Some(problems))?);
        }
        Ok(chosen.into_iter().flatten().collect())
    }

    /// Every problem in all languages: up to a number of answer tokens, or a number of problems.
    fn parallel(&self, arm: &Arm, tokens: Option<u64>, problems: Option<usize>) -> anyhow::Result<Chosen> {
        let mut units: Vec<Vec<Shared>> = Vec::new();
        for round in 0..self.options.per_problem {
            for (problem, by_language) in &self.problems {
                let members: Vec<Shared> =
                    arm.languages.iter().filter_map(|l| by_language.get(l)?.get(round).cloned()).collect();
                if members.len() == arm.languages.len() {
                    units.extend(self.unit(problem, round, members)?);
                }
            }
        }
        let lengths: Vec<u64> =
            units.iter().map(|unit| unit.iter().map(|d| d.answer_tokens()).sum()).collect();
        let available: u64 = lengths.iter().sum();
        let short = |have: String, asked: String| {
            rejected(anyhow::anyhow!(
                "arm {:?}: {have} with a program in each of {}, {asked} asked; lower --tokens, raise --per-problem, or \
                 give more --groups (left out: {})",
                arm.name,
                arm.languages.join("+"),
                self.corpus.dropped,
            ))
        };
        let taken: Vec<usize> = match (tokens, problems) {
            (_, Some(problems)) => {
                if units.len() < problems {
                    return Err(short(format!("{} problems", units.len()), problems.to_string()));
                }
                (0..problems).collect()
            }
            (tokens, None) => {
                let tokens = tokens.unwrap_or(0);
                if available < tokens {
                    let have = format!("{available} answer tokens in {} problems", units.len());
                    return Err(short(have, tokens.to_string()));
                }
                let taken = fill(&lengths, tokens).chosen;
                if taken.is_empty() {
                    let least = lengths.iter().min().copied().unwrap_or(0);
                    return Err(short(
                        format!("the smallest group has {least} answer tokens"),
                        tokens.to_string(),
                    ));
                }
                taken
            }
        };
        let mut documents: Vec<Shared> = taken.iter().flat_map(|&u| units[u].iter().cloned()).collect();
        let pairs = self.pairs(taken.len());
        if let Some(verification) = &self.verification {
            documents.extend(verification.parallel(&arm.name, &arm.languages, pairs)?);
        }
        Ok(Chosen { tokens: answer_tokens(&documents), documents, pairs })
    }

    /// One document a member, or all members in one conversation. `None` where that is too long.
    fn unit(&self, problem: &str, round: usize, members: Vec<Shared>) -> anyhow::Result<Option<Vec<Shared>>> {
        if self.options.parallel_format == ParallelFormat::Members {
            return Ok(Some(members));
        }
        let mut members = members;
        let mut draws = self.key.with("turns").with(problem).with(round).stream();
        draws.shuffle(&mut members);
        let statement = self.corpus.problems.get(problem).map_or("", |s| s.text.as_str());
        let mut messages = Vec::new();
        let mut languages = Vec::new();
        for member in &members {
            let Some((name, _)) = member.answers.first() else { continue };
            let answer = self.chat.answer(&answer_ids(member));
            messages.extend(answered(self.format.generation(statement, self.language(name)?)?, answer));
            languages.push(name.as_str());
        }
        let masked = self.chat.conversation(&messages).map_err(chat_error)?;
        let id = format!("generation/{problem}/joint/{round}");
        let document = Document::conversation(id, problem, "generation", masked, &languages);
        Ok((document.ids.len() <= self.options.context).then(|| vec![Arc::new(document)]))
    }

    /// Each problem in one language (of one, or dealt among several), filled to the budgets.
    fn single(&self, arm: &Arm, budgets: &[u64], pairs_in_all: Option<usize>) -> anyhow::Result<Chosen> {
        let lengths: Vec<Vec<Option<u64>>> = self
            .problems
            .iter()
            .map(|(_, by_language)| {
                arm.languages
                    .iter()
                    .map(|l| by_language.get(l).map(|d| d.iter().map(|d| d.answer_tokens()).sum()))
                    .collect()
            })
            .collect();
        let dealt = deal(&lengths, budgets);
        let of: HashMap<&str, usize> =
            self.problems.iter().zip(&dealt).filter_map(|((id, _), l)| Some((id.as_str(), (*l)?))).collect();
        let mut documents: Vec<Shared> = Vec::new();
        let mut generated = Vec::new();
        for (l, (language, &budget)) in arm.languages.iter().zip(budgets).enumerate() {
            // Another program of a problem only after every problem gave one.
            let candidates: Vec<&Shared> = (0..self.options.per_problem)
                .flat_map(|round| {
                    let problems = self.problems.iter().filter(|(id, _)| of.get(id.as_str()) == Some(&l));
                    problems.filter_map(move |(_, by_language)| by_language.get(language)?.get(round))
                })
                .collect();
            let lengths: Vec<u64> = candidates.iter().map(|d| d.answer_tokens()).collect();
            let filled = fill(&lengths, budget);
            let missing = (budget - filled.total) as f64;
            if missing > slack(self.options.tolerance, budget, 1) {
                let available = lengths.iter().sum::<u64>();
                let hint = if available < budget {
                    "lower --tokens, raise --per-problem, or give more --groups".to_owned()
                } else {
                    format!(
                        "no choice of whole documents comes nearer than {}; raise --tolerance",
                        filled.total
                    )
                };
                return Err(rejected(anyhow::anyhow!(
                    "arm {:?}: {available} answer tokens of {language} in {} problems of its own, {budget} asked; \
                     {hint} (left out: {})",
                    arm.name,
                    of.values().filter(|&&x| x == l).count(),
                    self.corpus.dropped,
                )));
            }
            generated.push(filled.chosen.len());
            documents.extend(filled.chosen.iter().map(|&i| Arc::clone(candidates[i])));
        }
        let languages = arm.languages.len();
        let pairs = match pairs_in_all {
            Some(all) => all / languages,
            None => self.pairs(generated.iter().sum::<usize>() / languages),
        };
        if let Some(verification) = &self.verification {
            for (l, language) in arm.languages.iter().enumerate() {
                let allowed = |problem: &str| of.get(problem) == Some(&l);
                documents.extend(verification.single(&arm.name, language, pairs, allowed)?);
            }
        }
        Ok(Chosen { tokens: answer_tokens(&documents), documents, pairs })
    }

    /// Pairs of a yes and a no for so many generation documents.
    fn pairs(&self, generated: usize) -> usize {
        (self.options.verification * generated as f64 / 2.0).round() as usize
    }

    /// Base documents of so many tokens with loss as `--replay` says.
    pub fn replay(&self, arm: &Arm, measure: u64, sources: &[Source]) -> anyhow::Result<Vec<Shared>> {
        let tokens = (self.options.replay * measure as f64).round() as u64;
        if tokens == 0 {
            return Ok(Vec::new());
        }
        let sources: Vec<Source> = sources
            .iter()
            .filter(|s| {
                s.accepted
                    && self
                        .corpus
                        .problems
                        .get(&s.problem)
                        .is_some_and(|p| self.options.replay_splits.contains(&p.split))
            })
            .cloned()
            .collect();
        let mut languages: Vec<(&Language, f64)> = Vec::new();
        for name in &arm.replay_languages {
            if !sources.iter().any(|s| s.language == *name) {
                return Err(rejected(anyhow::anyhow!(
                    "arm {:?}: replay: no accepted program in {name} in --replay-splits {}",
                    arm.name,
                    self.options.replay_splits.join(",")
                )));
            }
            languages.push((self.language(name)?, 1.0));
        }
        languages.sort_by(|a, b| a.0.name.cmp(&b.0.name));
        let plan = base::Plan {
            languages,
            kinds: kinds("--replay-kinds", &self.options.replay_kinds)?,
            tokens,
            passes: 1,
            context: self.options.context,
            with_loss: true,
        };
        let shape = Shape { drop_clause: 0.0, keep_clause: 0.5, header: true, task: "replay" };
        let author = Author { chat: self.chat, format: self.format, shape, key: self.key.with("replay") };
        let mut too_long = 0;
        base::documents(&plan, &self.corpus, &sources, &author, &mut too_long)
            .map_err(|e| rejected(e.context(format!("arm {:?}: replay", arm.name))))
    }
}

/// Ids of a document's answers.
fn answer_ids(document: &Document) -> Vec<u32> {
    document.ids.iter().zip(&document.weights).filter(|(_, w)| **w > 0.0).map(|(id, _)| *id).collect()
}

fn answer_tokens(documents: &[Shared]) -> BTreeMap<String, u64> {
    let mut tokens = BTreeMap::new();
    for document in documents.iter().filter(|d| d.task == "generation") {
        for (language, n) in &document.answers {
            *tokens.entry(language.clone()).or_default() += n;
        }
    }
    tokens
}

fn problems_of(documents: &[Shared]) -> BTreeSet<&str> {
    documents.iter().filter(|d| d.task == "generation").map(|d| d.problem.as_str()).collect()
}

/// `total` in `n` shares that differ by 1 at most.
fn even_shares(total: u64, n: usize) -> Vec<u64> {
    let n = n as u64;
    (0..n).map(|i| total / n + u64::from(i < total % n)).collect()
}

/// What replay is a share of: the answer tokens of an arm matched in tokens.
pub fn measure(arms: &[Arm], chosen: &[Chosen]) -> u64 {
    let of = |matched| {
        arms.iter().zip(chosen).find(|(a, _)| a.matched == matched).map(|(_, c)| c.tokens.values().sum())
    };
    of(Matched::Tokens).or_else(|| of(Matched::Problems)).unwrap_or(0)
}
