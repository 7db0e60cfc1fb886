//! `cog-mix base`: language-model documents for a base model, in the asked shares, interleaved and packed.

use std::path::PathBuf;
use std::sync::Arc;

use cognate_chat::Chat;
use cognate_cli::{Common, rejected};
use cognate_languages::Language;
use cognate_random::Key;
use rayon::prelude::*;

use crate::cli;
use crate::corpus::{Corpus, Source, named, weights};
use crate::document::{Document, Shared, chat_error};
use crate::fill::fill;
use crate::format::Format;
use crate::language_model::{Author, KINDS, Kind, Shape};
use crate::manifest::Shares;
use crate::pack;

/// How many tokens of each language and kind, from what.
pub struct Plan<'a> {
    pub languages: Vec<(&'a Language, f64)>,
    pub kinds: Vec<(Kind, f64)>,
    pub tokens: u64,
    pub passes: u32,
    pub context: usize,
    /// Count tokens with loss instead of all tokens.
    pub with_loss: bool,
}

impl Plan<'_> {
    fn length(&self, document: &Document) -> u64 {
        if self.with_loss { document.answer_tokens() } else { document.ids.len() as u64 }
    }
}

pub fn run(common: &Common, options: &cli::Base) -> anyhow::Result<()> {
    common.threads();
    if options.tokens == 0 {
        return Err(rejected(anyhow::anyhow!("--tokens 0: nothing to write")));
    }
    let mut corpus = Corpus::open(common, &options.corpus)?;
    corpus.check_splits("--splits", &options.splits)?;
    let asked: Vec<String> =
        named(&corpus.languages, &options.languages)?.iter().map(|l| l.name.clone()).collect();
    let asked: Vec<&str> = asked.iter().map(String::as_str).collect();
    let mut sources = corpus.programs(common, &options.programs, &options.splits, &asked)?;
    sources.retain(|s| s.accepted);
    if sources.is_empty() {
        return Err(rejected(anyhow::anyhow!(
            "no accepted program in --splits {}",
            options.splits.join(",")
        )));
    }
    let present: Vec<&Language> =
        corpus.languages.iter().filter(|l| sources.iter().any(|s| s.language == l.name)).collect();
    if let Some(missing) = asked.iter().find(|name| !present.iter().any(|l| l.name == **name)) {
        return Err(rejected(anyhow::anyhow!(
            "language {missing}: no accepted program in --splits {}",
            options.splits.join(",")
        )));
    }
    let known: Vec<&str> = present.iter().map(|l| l.name.as_str()).collect();
    let shares = weights("--weights", &options.weights, Some(&known))?;
    let plan = Plan {
        languages: present.iter().map(|l| (*l, shares.get(&l.name).copied().unwrap_or(1.0))).collect(),
        kinds: kinds("--kinds", &options.kinds)?,
        tokens: options.tokens,
        passes: options.passes,
        context: options.packing.context,
        with_loss: false,
    };
    let chat = Chat::open(&options.tokenizer).map_err(chat_error)?;
    let format = Format::open(&options.format)?;
    let key = Key::new(common.seed).with("mix base");
    let author = Author {
        chat: &chat,
        format: &format,
        shape: Shape {
            drop_clause: probability("--drop-clause", options.drop_clause)?,
            keep_clause: probability("--keep-clause", options.keep_clause)?,
            header: !options.no_header,
            task: "text",
        },
        key,
    };
    let mut too_long = 0;
    let documents = documents(&plan, &corpus, &sources, &author, &mut too_long)?;
    corpus.dropped.too_long = too_long;

    let order = pack::shuffled(&documents, key.with("order"));
    let length = |i: usize| documents[i].ids.len();
    let sequences = pack::pack(&order, length, options.packing.context, options.packing.pack);
    let mut provenance = common.provenance("cog-mix", env!("CARGO_PKG_VERSION"));
    let inputs: Vec<&PathBuf> = options
        .programs
        .iter()
        .chain(&options.corpus.problems)
        .chain([&options.tokenizer])
        .chain(&common.config)
        .collect();
    for path in inputs {
        provenance = provenance.input(path)?;
    }
    pack::write(&options.out, "base", &sequences, &documents, provenance)?;

    let shares = Shares::of(documents.iter().map(AsRef::as_ref), Some(plan.kinds.as_slice()));
    let repeated = (1..options.passes).map(|n| format!("#{n}"));
    let repeated: usize = repeated.map(|end| documents.iter().filter(|d| d.id.ends_with(&end)).count()).sum();
    if common.json {
        println!(
            "{}",
            serde_json::json!({"documents": documents.len(), "repeated": repeated, "sequences": sequences.len(),
                "tokens": documents.iter().map(|d| d.ids.len()).sum::<usize>(), "shares": shares, "dropped": corpus.dropped})
        );
    }
    common.note(format_args!(
        "{}: {} tokens in {} documents ({repeated} of programs used before) in {} sequences of at most {}; left out: {}",
        options.out.display(),
        documents.iter().map(|d| d.ids.len()).sum::<usize>(),
        documents.len(),
        sequences.len(),
        options.packing.context,
        corpus.dropped,
    ));
    common.note(shares);
    Ok(())
}

pub fn kinds(flag: &str, given: &[String]) -> anyhow::Result<Vec<(Kind, f64)>> {
    let weights = weights(flag, given, Some(&KINDS))?;
    if weights.is_empty() {
        return Err(rejected(anyhow::anyhow!("{flag}: no kind of document is asked for")));
    }
    Ok(weights.iter().filter_map(|(name, &w)| Some((Kind::named(name)?, w))).collect())
}

pub fn probability(flag: &str, p: f64) -> anyhow::Result<f64> {
    if (0.0..=1.0).contains(&p) {
        Ok(p)
    } else {
        Err(cognate_cli::usage(format!("{flag} {p}: not a probability")))
    }
}

/// Chooses and writes documents: each language and kind gets its share of the tokens, exactly where lengths allow it;
/// what one is short of is added to the next. No program is used twice in one kind before all were used once.
pub fn documents(
    plan: &Plan,
    corpus: &Corpus,
    sources: &[Source],
    author: &Author,
    too_long: &mut u64,
) -> anyhow::Result<Vec<Shared>> {
    let all: f64 =
        plan.languages.iter().map(|(_, w)| w).sum::<f64>() * plan.kinds.iter().map(|(_, w)| w).sum::<f64>();
    let mut chosen: Vec<Shared> = Vec::new();
    let mut planned = 0.0;
    let mut written = 0u64;
    for (language, language_weight) in &plan.languages {
        let of: Vec<&Source> = sources.iter().filter(|s| s.language == language.name).collect();
        for (kind, kind_weight) in &plan.kinds {
            planned += plan.tokens as f64 * language_weight * kind_weight / all;
            // Rounded on the running sum, so that the shares add up to the whole.
            let budget = (planned.round() as u64).saturating_sub(written);
            let candidates = candidates(plan, corpus, &of, language, *kind, author, budget, too_long)?;
            let lengths: Vec<u64> = candidates.iter().map(|d| plan.length(d)).collect();
            let filled = fill(&lengths, budget);
            let longest = lengths.iter().copied().max().unwrap_or(0);
            if filled.total + longest < budget {
                return Err(rejected(anyhow::anyhow!(
                    "{}/{}: {} tokens in {} pass(es) over {} programs, {budget} asked; lower --tokens or its weight, \
                     or raise --passes",
                    language.name,
                    kind.name(),
                    lengths.iter().sum::<u64>(),
                    plan.passes,
                    of.len(),
                )));
            }
            written += filled.total;
            chosen.extend(filled.chosen.iter().map(|&i| Arc::clone(&candidates[i])));
        }
    }
    Ok(chosen)
}

/// Documents of one language and kind in a random order, somewhat more than the budget needs.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the plan")]
fn candidates(
    plan: &Plan,
    corpus: &Corpus,
    of: &[&Source],
    language: &Language,
    kind: Kind,
    author: &Author,
    budget: u64,
    too_long: &mut u64,
) -> anyhow::Result<Vec<Shared>> {
    let mut found: Vec<Shared> = Vec::new();
    let mut tokens = 0u64;
    for pass in 0..plan.passes {
        let key = author.key.with("candidates").with(kind.name()).with(u64::from(pass));
        let mut order: Vec<&Source> = of.to_vec();
        order.sort_by_cached_key(|s| (key.with(&s.id).bits(0), s.id.clone()));
        for chunk in order.chunks(1024) {
            if tokens > budget + budget / 20 + 600 * 64 {
                return Ok(found);
            }
            let written: Vec<anyhow::Result<Option<Shared>>> = chunk
                .par_iter()
                .map(|source| {
                    let Some(statement) = corpus.problems.get(&source.problem) else { return Ok(None) };
                    let document = author.write(kind, pass, source, &statement.text, language)?;
                    Ok(Some(Arc::new(document)))
                })
                .collect();
            for document in written {
                let Some(document) = document? else { continue };
                if document.ids.len() > plan.context {
                    *too_long += 1;
                } else {
                    tokens += plan.length(&document);
                    found.push(document);
                }
            }
        }
    }
    Ok(found)
}
