//! `cog-mix tokenizer`: learns a byte-level BPE from programs under their statements.

use std::collections::BTreeMap;

use anyhow::Context;
use cognate_chat::{Chat, TokenizerRecipe, byte_alphabet};
use cognate_cli::{Common, rejected};
use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::tokenizer::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use crate::cli;
use crate::corpus::{Corpus, Source, named};
use crate::document::chat_error;
use crate::format::comment;

pub fn run(common: &Common, options: &cli::Tokenizer) -> anyhow::Result<()> {
    common.threads();
    cognate_cli::output_folder(&options.out)?;
    let mut corpus = Corpus::open(common, &options.corpus)?;
    corpus.check_splits("--splits", &options.splits)?;
    let languages = named(&corpus.languages, &options.languages)?;
    let names: Vec<String> = languages.iter().map(|l| l.name.clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut sources = corpus.programs(common, &options.programs, &options.splits, &names)?;
    sources.retain(|s| s.accepted);
    if sources.is_empty() {
        return Err(rejected(anyhow::anyhow!(
            "no accepted program in --splits {}",
            options.splits.join(",")
        )));
    }
    let mut recipe = TokenizerRecipe { words: Some(options.words.clone()), ..TokenizerRecipe::bytes() };
    let fixed = recipe.vocabulary().len();
    if options.vocab < fixed {
        return Err(cognate_cli::usage(format!(
            "--vocab {}: the bytes and special tokens alone are {fixed}",
            options.vocab
        )));
    }

    let out =
        cognate_output::AtomicDir::create(&options.out).with_context(|| options.out.display().to_string())?;
    recipe.merges = learn(&recipe, &corpus, &sources, options, out.building())?;
    recipe.write(out.building()).map_err(chat_error)?;

    let mut provenance = common.provenance("cog-mix", env!("CARGO_PKG_VERSION"));
    for path in options.programs.iter().chain(&options.corpus.problems).chain(&common.config) {
        provenance = provenance.input(path)?;
    }
    let path = out.building().join("provenance.json");
    cognate_output::write_file(&path, format!("{}\n", provenance.to_text()).as_bytes())?;
    report(common, &Chat::open(out.building()).map_err(chat_error)?, options.vocab, &sources)?;
    out.commit()?;
    Ok(())
}

/// Merges for `options.vocab` ids in all, learnt from each program under its statement: what a base model reads.
///
/// A word that spells a special token teaches nothing, so that no merge makes one and no text can yield it.
fn learn(
    recipe: &TokenizerRecipe,
    corpus: &Corpus,
    sources: &[Source],
    options: &cli::Tokenizer,
    directory: &std::path::Path,
) -> anyhow::Result<Vec<(String, String)>> {
    // The tokenizer itself cuts the words, so that learning and applying agree.
    recipe.write(directory).map_err(chat_error)?;
    let bare = tokenizers::Tokenizer::from_file(directory.join("tokenizer.json"))
        .map_err(|e| rejected(anyhow::anyhow!("--words: {e}")))?;
    let cutter = bare.get_pre_tokenizer().ok_or_else(|| anyhow::anyhow!("the recipe has words"))?;
    let cut = |text: &str| -> tokenizers::Result<Vec<String>> {
        let mut string = PreTokenizedString::from(text);
        cutter.pre_tokenize(&mut string)?;
        let words = string.get_splits(OffsetReferential::Normalized, OffsetType::Byte);
        let taught = |word: &str| !recipe.specials.iter().any(|s| word.contains(&s.0));
        Ok(words.into_iter().map(|(word, _, _)| word.to_owned()).filter(|word| taught(word)).collect())
    };
    let texts = sources.iter().filter_map(|source| {
        let language = corpus.languages.get(&source.language)?;
        let statement = corpus.problems.get(&source.problem)?;
        let above = format!("{}\n", comment(&statement.text, language));
        Some([language.display.clone(), above, source.text.trim_end().to_owned()])
    });
    let alphabet = byte_alphabet();
    let mut trainer = BpeTrainer::builder()
        .vocab_size(options.vocab - recipe.vocabulary().len() + alphabet.len())
        .min_frequency(options.min_frequency)
        .initial_alphabet(alphabet.into_iter().collect())
        .show_progress(false)
        .build();
    let failed = |e: tokenizers::Error| anyhow::anyhow!("learning merges: {e}");
    trainer.feed(texts.flatten(), cut).map_err(failed)?;
    let mut model = BPE::default();
    trainer.train(&mut model).map_err(failed)?;
    // The model shows its merges, in their order, only as JSON.
    let mut shown = serde_json::to_value(&model)?;
    Ok(serde_json::from_value(shown["merges"].take())?)
}

fn report(common: &Common, chat: &Chat, asked: usize, sources: &[Source]) -> anyhow::Result<()> {
    let mut by_language: BTreeMap<&str, (u64, u64, u64)> = BTreeMap::new();
    let lengths: Vec<u64> = sources.par_iter().map(|s| chat.encode(s.text.trim_end()).len() as u64).collect();
    for (source, tokens) in sources.iter().zip(lengths) {
        let entry = by_language.entry(&source.language).or_default();
        *entry = (entry.0 + 1, entry.1 + tokens, entry.2 + source.text.trim_end().len() as u64);
    }
    if common.json {
        let rows: serde_json::Map<String, serde_json::Value> = by_language
            .iter()
            .map(|(language, (programs, tokens, bytes))| {
                (
                    (*language).to_owned(),
                    serde_json::json!({"programs": programs, "tokens": tokens, "bytes": bytes}),
                )
            })
            .collect();
        println!("{}", serde_json::json!({"vocabulary": chat.vocab_size(), "languages": rows}));
    }
    if chat.vocab_size() < asked {
        common.note(format_args!(
            "no further pair occurs often enough: {} ids instead of the {asked} asked for",
            chat.vocab_size()
        ));
    }
    common.note(format_args!("vocabulary {}; tokens a program:", chat.vocab_size()));
    for (language, (programs, tokens, bytes)) in by_language {
        common.note(format_args!(
            "  {language:<12} {:>6.1} ({:.2} bytes a token, {programs} programs)",
            tokens as f64 / programs as f64,
            bytes as f64 / tokens as f64,
        ));
    }
    Ok(())
}
