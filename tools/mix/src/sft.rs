//! `cog-mix sft`: the arms of an experiment at equal budgets.
//!
//! Arms can be compared only if they differ in nothing but what they are about. Those matched in tokens have, by
//! construction, the same answer tokens of generation (in all, and in each language between arms of the same
//! languages), the same number of verification documents of either answer, the same replay, and the same number of
//! packed sequences, so that a trainer that takes so many sequences a step makes the same number of steps. The first
//! parallel arm is the measure, because its documents come in sets; the others are filled to its figures exactly. The
//! result is counted again from what was packed before anything is put into place.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use cognate_chat::Chat;
use cognate_cli::{Common, config_tables, rejected};
use cognate_languages::Language;
use cognate_random::Key;
use cognate_records::{Group, Member, Provenance};
use rayon::prelude::*;

use crate::arms::{Arm, ArmKind, Matched, arms};
use crate::base::{self, kinds};
use crate::cli::{self, ParallelFormat};
use crate::corpus::{Corpus, Source, data, named, read};
use crate::deal::deal;
use crate::document::{Document, Shared, answered, chat_error, generation};
use crate::fill::fill;
use crate::format::Format;
use crate::language_model::{Author, Shape};
use crate::manifest::{ArmReport, Manifest, Shares};
use crate::pack;
use crate::verification::Verification;

/// Generation documents of a problem by language, at most `--per-problem` each.
type ByLanguage = BTreeMap<String, Vec<Shared>>;

struct Builder<'a> {
    options: &'a cli::Sft,
    chat: &'a Chat,
    format: &'a Format,
    corpus: Corpus,
    key: Key,
    /// In the order in which problems are used, the same for all arms.
    problems: Vec<(String, ByLanguage)>,
    verification: Option<Verification>,
}

/// Documents of an arm, before replay and packing.
struct Chosen {
    documents: Vec<Shared>,
    /// Answer tokens of generation by language.
    tokens: BTreeMap<String, u64>,
    /// Verification pairs (a yes and a no) for each language.
    pairs: usize,
}

pub fn run(common: &Common, options: &cli::Sft) -> anyhow::Result<()> {
    common.threads();
    check(options)?;
    let arms = arms(config_tables(&common.config, "arm")?, options)?;
    let mut corpus = Corpus::open(common, &options.corpus)?;
    corpus.check_splits("--splits", &options.splits)?;
    corpus.check_splits("--replay-splits", &options.replay_splits)?;
    let used = used_languages(&corpus, &arms, options)?;
    let chat = Chat::open(&options.tokenizer).map_err(chat_error)?;
    let format = Format::open(&options.format)?;
    let key = Key::new(common.seed).with("mix sft");

    let names: Vec<&str> = used.iter().map(String::as_str).collect();
    let splits: Vec<String> = options.splits.iter().chain(&options.replay_splits).cloned().collect();
    let sources = corpus.programs(common, &options.programs, &splits, &names)?;
    let members = members(common, options, &mut corpus, &names)?;
    let mut builder = Builder {
        options,
        chat: &chat,
        format: &format,
        corpus,
        key,
        problems: Vec::new(),
        verification: None,
    };
    builder.write_generation(members)?;
    builder.write_verification(&sources)?;

    let chosen = builder.choose(&arms)?;
    let measure = measure(&arms, &chosen);
    let mut replays: HashMap<BTreeSet<&String>, Vec<Shared>> = HashMap::new();
    for arm in &arms {
        let languages: BTreeSet<&String> = arm.replay_languages.iter().collect();
        if !replays.contains_key(&languages) {
            let documents = builder.replay(arm, measure, &sources)?;
            replays.insert(languages, documents);
        }
    }
    let full: Vec<Vec<Shared>> = arms
        .iter()
        .zip(chosen)
        .map(|(arm, mut chosen)| {
            let languages: BTreeSet<&String> = arm.replay_languages.iter().collect();
            chosen.documents.extend(replays.get(&languages).into_iter().flatten().cloned());
            chosen.documents
        })
        .collect();
    let sequences = builder.sequences(&arms, &full)?;

    let reports: Vec<ArmReport> = arms
        .iter()
        .zip(&full)
        .zip(&sequences)
        .map(|((arm, documents), sequences)| report(arm, documents, sequences, options.batch))
        .collect();
    check_equal(&reports, options.tolerance)?;
    builder.save(common, &full, &sequences, reports)
}

fn check(options: &cli::Sft) -> anyhow::Result<()> {
    let share = |flag: &str, x: f64| {
        if x >= 0.0 && x.is_finite() {
            Ok(())
        } else {
            Err(cognate_cli::usage(format!("{flag} {x}: not a share")))
        }
    };
    share("--verification", options.verification)?;
    share("--replay", options.replay)?;
    share("--tolerance", options.tolerance)?;
    for (flag, n) in [
        ("--tokens", options.tokens),
        ("--batch", options.batch as u64),
        ("--per-problem", options.per_problem as u64),
    ] {
        if n == 0 {
            return Err(rejected(anyhow::anyhow!("{flag} 0: nothing to train on")));
        }
    }
    if (options.verification > 0.0 || options.replay > 0.0) && options.programs.is_empty() {
        return Err(cognate_cli::usage("--verification and --replay need --programs"));
    }
    Ok(())
}

/// Every language that an arm trains on or replays.
fn used_languages(corpus: &Corpus, arms: &[Arm], options: &cli::Sft) -> anyhow::Result<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    for arm in arms {
        let mut asked = vec![&arm.languages];
        if options.replay > 0.0 {
            asked.push(&arm.replay_languages);
        }
        for names in asked {
            for language in named(&corpus.languages, names)
                .map_err(|e| rejected(e.context(format!("arm {:?}", arm.name))))?
            {
                used.insert(language.name.clone());
            }
        }
    }
    Ok(used)
}

/// Members of the groups of the asked splits, by problem and language, exact duplicates dropped.
fn members(
    common: &Common,
    options: &cli::Sft,
    corpus: &mut Corpus,
    languages: &[&str],
) -> anyhow::Result<BTreeMap<String, BTreeMap<String, Vec<Member>>>> {
    let mut found: BTreeMap<String, BTreeMap<String, Vec<Member>>> = BTreeMap::new();
    let mut groups = 0u64;
    let mut dropped = corpus.dropped.clone();
    read::<Group>(common, &options.groups, |path, group| {
        groups += 1;
        let what = format!("group {:?}", group.id);
        let split = match corpus.split(path, &what, &group.problem, group.split.as_deref()) {
            Ok(split) => split.to_owned(),
            Err(error) => return common.skip(error),
        };
        for member in group.members {
            if corpus.languages.get(&member.language).is_none() {
                let reason =
                    format!("{what}: member {:?}: unknown language {:?}", member.id, member.language);
                return common.skip(data(path, reason));
            }
            if corpus.is_forbidden(&split) {
                corpus.forbid_program(&member.language, &member.source);
            } else if options.splits.contains(&split) && languages.contains(&member.language.as_str()) {
                if member.evidence.kind != "verdict" && !options.accept_claims {
                    dropped.unverified += 1;
                    continue;
                }
                let of = found
                    .entry(group.problem.clone())
                    .or_default()
                    .entry(member.language.clone())
                    .or_default();
                if of.iter().any(|m| m.source.trim_end() == member.source.trim_end()) {
                    dropped.duplicate += 1;
                } else {
                    of.push(member);
                }
            }
        }
        Ok(())
    })?;
    // Only now is every forbidden text known.
    let mut seen: HashSet<(String, String)> = HashSet::new();
    for (problem, languages) in &mut found {
        let leaks = corpus.statement_leaks(problem);
        for (language, members) in languages {
            members.retain(|m| {
                if leaks || corpus.program_leaks(language, &m.source) {
                    dropped.contaminated += 1;
                    return false;
                }
                // The same text for two problems would be trained twice.
                let new = seen.insert((language.clone(), m.source.trim_end().to_owned()));
                dropped.duplicate += u64::from(!new);
                new
            });
        }
    }
    corpus.dropped = dropped;
    if found.values().all(|of| of.values().all(Vec::is_empty)) {
        let reason = if groups == 0 { "no groups" } else { "no usable member of a group" };
        return Err(rejected(anyhow::anyhow!(
            "{reason} in --splits {} ({groups} groups read; left out: {})",
            options.splits.join(","),
            corpus.dropped
        )));
    }
    Ok(found)
}

impl Builder<'_> {
    fn language(&self, name: &str) -> anyhow::Result<&Language> {
        self.corpus.languages.get(name).ok_or_else(|| rejected(anyhow::anyhow!("unknown language {name:?}")))
    }

    /// Tokenises the members and puts the problems in their order.
    fn write_generation(
        &mut self,
        members: BTreeMap<String, BTreeMap<String, Vec<Member>>>,
    ) -> anyhow::Result<()> {
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

    fn write_verification(&mut self, sources: &[Source]) -> anyhow::Result<()> {
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
        let problems: Vec<String> = self.problems.iter().map(|(id, _)| id.clone()).collect();
        let mut too_long = 0;
        self.verification = Some(Verification::write(
            self.chat,
            self.format,
            &self.corpus,
            &of,
            &problems,
            self.key.with("verification"),
            self.options.context,
            &mut too_long,
        )?);
        self.corpus.dropped.too_long += too_long;
        Ok(())
    }

    /// The documents of every arm, in the order of the arms.
    fn choose(&self, arms: &[Arm]) -> anyhow::Result<Vec<Chosen>> {
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
            if missing > self.options.tolerance * budget as f64 {
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
    fn replay(&self, arm: &Arm, measure: u64, sources: &[Source]) -> anyhow::Result<Vec<Shared>> {
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
        };
        let shape = Shape { drop_clause: 0.0, keep_clause: 0.5, header: true, task: "replay" };
        let author = Author { chat: self.chat, format: self.format, shape, key: self.key.with("replay") };
        let mut too_long = 0;
        base::documents(&plan, &self.corpus, &sources, &author, &mut too_long)
            .map_err(|e| rejected(e.context(format!("arm {:?}: replay", arm.name))))
    }

    /// Packs every arm: those matched in tokens into the same number of sequences, each other into as many as it
    /// needs, always a multiple of the batch.
    fn sequences(&self, arms: &[Arm], full: &[Vec<Shared>]) -> anyhow::Result<Vec<Vec<Vec<usize>>>> {
        let (batch, context) = (self.options.batch, self.options.context);
        let orders: Vec<Vec<usize>> =
            full.iter().map(|d| pack::shuffled(d, self.key.with("order"))).collect();
        let mut packed: Vec<Option<Vec<Vec<usize>>>> = vec![None; arms.len()];
        let together: Vec<usize> = (0..arms.len()).filter(|&i| arms[i].matched == Matched::Tokens).collect();
        let apart = (0..arms.len()).filter(|&i| arms[i].matched != Matched::Tokens).map(|i| vec![i]);
        for arms_of in std::iter::once(together).chain(apart).filter(|arms| !arms.is_empty()) {
            let tokens = |i: usize| full[i].iter().map(|d| d.ids.len()).sum::<usize>();
            let least = arms_of.iter().map(|&i| tokens(i).div_ceil(context)).max().unwrap_or(1).max(1);
            let most = arms_of.iter().map(|&i| full[i].len()).min().unwrap_or(0);
            let found = (least.next_multiple_of(batch)..=most).step_by(batch).find_map(|count| {
                arms_of
                    .iter()
                    .map(|&i| pack::even(&orders[i], |d| full[i][d].ids.len(), context, count))
                    .collect::<Option<Vec<_>>>()
            });
            let Some(found) = found else {
                let names: Vec<&str> = arms_of.iter().map(|&i| arms[i].name.as_str()).collect();
                return Err(rejected(anyhow::anyhow!(
                    "{}: {most} documents do not fill sequences by {batch}; lower --batch or raise --tokens or --context",
                    names.join(", ")
                )));
            };
            for (&i, sequences) in arms_of.iter().zip(found) {
                packed[i] = Some(sequences);
            }
        }
        Ok(packed.into_iter().flatten().collect())
    }

    fn save(
        self,
        common: &Common,
        full: &[Vec<Shared>],
        sequences: &[Vec<Vec<usize>>],
        arms: Vec<ArmReport>,
    ) -> anyhow::Result<()> {
        let options = self.options;
        let mut provenance = common.provenance("cog-mix", env!("CARGO_PKG_VERSION"));
        let inputs = options.groups.iter().chain(&options.programs).chain(&options.corpus.problems);
        for path in inputs.chain([&options.tokenizer]).chain(&common.config) {
            provenance = provenance.input(path)?;
        }
        let out = cognate_output::AtomicDir::create(&options.out)?;
        for ((arm, documents), sequences) in arms.iter().zip(full).zip(sequences) {
            let path = out.building().join(format!("{}.parquet", arm.name));
            pack::write(&path, &arm.name, sequences, documents, Provenance::clone(&provenance))?;
        }
        let manifest = Manifest {
            schema: "mix_manifest/1",
            seed: common.seed,
            tokenizer: self.chat.fingerprint(),
            format: options.format.format.rsplit('/').next().unwrap_or_default().to_owned(),
            context: options.context,
            batch: options.batch,
            arms,
            dropped: self.corpus.dropped,
            provenance: serde_json::from_str(&provenance.to_text())?,
        };
        let text = format!("{:#}\n", serde_json::to_value(&manifest)?);
        cognate_output::write_file(&out.building().join("manifest.json"), text.as_bytes())?;
        out.commit()?;
        if common.json {
            print!("{text}");
        }
        common.note(&manifest);
        Ok(())
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
fn measure(arms: &[Arm], chosen: &[Chosen]) -> u64 {
    let of = |matched| {
        arms.iter().zip(chosen).find(|(a, _)| a.matched == matched).map(|(_, c)| c.tokens.values().sum())
    };
    of(Matched::Tokens).or_else(|| of(Matched::Problems)).unwrap_or(0)
}

fn report(arm: &Arm, documents: &[Shared], sequences: &[Vec<usize>], batch: usize) -> ArmReport {
    // Counted from what was packed, not from what was planned.
    let packed: Vec<&Document> = sequences.iter().flatten().map(|&i| &*documents[i]).collect();
    let shares = Shares::of(packed.iter().copied(), None);
    let mut repeated: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for document in packed.iter().filter(|d| d.task == "generation") {
        for (language, _) in &document.answers {
            *repeated.entry((&document.problem, language)).or_default() += 1;
        }
    }
    let problems: BTreeSet<&str> = repeated.keys().map(|(problem, _)| *problem).collect();
    ArmReport {
        name: arm.name.clone(),
        kind: arm.kind,
        matched: arm.matched,
        languages: arm.languages.clone(),
        replay_languages: arm.replay_languages.clone(),
        sequences: sequences.len() as u64,
        steps: (sequences.len() / batch) as u64,
        documents: packed.len() as u64,
        problems: problems.len() as u64,
        tokens: packed.iter().map(|d| d.ids.len() as u64).sum(),
        answer_tokens: ["generation", "verification", "replay"]
            .map(|task| (task.to_owned(), shares.task_tokens(task)))
            .into(),
        per_problem: repeated.values().max().copied().unwrap_or(0),
        shares,
    }
}

/// The last word before anything is written: arms matched in tokens are equal in what they must be equal in.
fn check_equal(arms: &[ArmReport], tolerance: f64) -> anyhow::Result<()> {
    let matched: Vec<&ArmReport> = arms.iter().filter(|a| a.matched == Matched::Tokens).collect();
    let Some(first) = matched.first() else { return Ok(()) };
    let differ = |a: u64, b: u64| a.abs_diff(b) as f64 > tolerance * a.max(b) as f64;
    for arm in &matched {
        let fail = |what: &str, of: u64, must: u64, than: &str| {
            rejected(anyhow::anyhow!(
                "arm {:?}: {of} {what}, but {must} in arm {than:?} (--tolerance {tolerance})",
                arm.name
            ))
        };
        if arm.sequences != first.sequences {
            return Err(fail("sequences", arm.sequences, first.sequences, &first.name));
        }
        for task in ["generation", "verification", "replay"] {
            let (of, must) = (arm.shares.task_tokens(task), first.shares.task_tokens(task));
            if differ(of, must) {
                return Err(fail(&format!("answer tokens of {task}"), of, must, &first.name));
            }
        }
        let same = matched.iter().find(|a| {
            a.kind != ArmKind::Source
                && a.languages.iter().collect::<BTreeSet<_>>()
                    == arm.languages.iter().collect::<BTreeSet<_>>()
        });
        if let Some(same) = same {
            for language in &arm.languages {
                for task in ["generation", "verification"] {
                    let (of, must) = (arm.shares.tokens(language, task), same.shares.tokens(language, task));
                    if differ(of, must) {
                        return Err(fail(
                            &format!("{language} answer tokens of {task}"),
                            of,
                            must,
                            &same.name,
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Share;

    fn reported(name: &str, kind: ArmKind, tokens: [u64; 2], sequences: u64) -> ArmReport {
        let mut shares = Shares::default();
        for (language, tokens) in ["lua", "python"].iter().zip(tokens) {
            let share = Share { documents: 1, tokens };
            shares.0.entry((*language).into()).or_default().insert("generation".into(), share);
        }
        ArmReport {
            name: name.into(),
            kind,
            matched: Matched::Tokens,
            languages: vec!["lua".into(), "python".into()],
            replay_languages: Vec::new(),
            sequences,
            steps: 1,
            documents: 2,
            problems: 2,
            tokens: 100,
            answer_tokens: BTreeMap::new(),
            per_problem: 1,
            shares,
        }
    }

    /// The last word before writing must be able to say no.
    #[test]
    fn unequal_arms_are_refused() {
        let parallel = reported("parallel", ArmKind::Parallel, [50, 50], 8);
        let check = |tokens, sequences| {
            let other = reported("nonparallel", ArmKind::Nonparallel, tokens, sequences);
            check_equal(&[parallel.clone(), other], 0.005).map_err(|e| e.to_string())
        };
        assert!(check([50, 50], 8).is_ok());
        assert!(check([50, 50], 16).unwrap_err().contains("16 sequences, but 8 in arm \"parallel\""));
        assert!(check([50, 48], 8).unwrap_err().contains("98 answer tokens of generation, but 100"));
        assert!(check([40, 60], 8).unwrap_err().contains("40 lua answer tokens of generation, but 50"));
    }
}
