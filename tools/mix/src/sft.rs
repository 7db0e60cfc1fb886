//! `cog-mix sft`: the arms of an experiment at equal budgets.
//!
//! Arms can be compared only if they differ in nothing but what they are about. Those matched in tokens have, by
//! construction, the same answer tokens of generation (in all, and in each language between arms of the same
//! languages), the same number of verification documents of either answer, the same replay, and the same number of
//! packed sequences, so that a trainer that takes so many sequences a step makes the same number of steps. The first
//! parallel arm is the measure, because its documents come in sets; the others are filled to its figures exactly. The
//! result is counted again from what was packed before anything is put into place.

pub mod arms;
mod choose;
mod deal;
mod equal;
mod members;
mod verification;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use cognate_chat::Chat;
use cognate_cli::{Common, config_tables, rejected};
use cognate_random::Key;
use cognate_records::Provenance;

use crate::cli;
use crate::corpus::{Corpus, named};
use crate::document::{Document, Shared, chat_error};
use crate::format::Format;
use crate::manifest::{ArmReport, Manifest, Shares};
use crate::pack;
use arms::{Arm, Matched, arms};
use choose::{Builder, measure};
use equal::check_equal;
use members::members;

pub fn run(common: &Common, options: &cli::Sft) -> anyhow::Result<()> {
    common.threads();
    check(options)?;
    cognate_cli::output_folder(&options.out)?;
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
        if let Entry::Vacant(place) = replays.entry(languages) {
            place.insert(builder.replay(arm, measure, &sources)?);
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

impl Builder<'_> {
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
        let out = cognate_output::AtomicDir::create(&options.out)
            .with_context(|| options.out.display().to_string())?;
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
