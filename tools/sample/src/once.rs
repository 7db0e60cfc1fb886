//! Samples a file of prompts once.

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use cognate_chat::Chat;
use cognate_cli::rejected;
use cognate_model::cuda::Purpose;
use cognate_model::placed::{Model, Place, place};
use cognate_model::{LlamaConfig, ModelError};
use cognate_records::{Prompt, Rollout, SamplingParameters, Writer, WriterOptions};

use crate::cli::Cli;
use crate::prompts;
use crate::sampler::{Round, Sampler};

/// # Errors
/// Data errors of the model directory or the prompts, and failing outputs.
pub fn once(cli: &Cli) -> anyhow::Result<()> {
    cli.common.threads();
    let dir = cli.model.as_deref().context("--model is needed")?;
    let model = open_model(dir, &device(cli, dir)?)?;
    let chat = open_chat(cli.tokenizer.as_deref().unwrap_or(dir))?;
    let prompts = prompts::read(&cli.prompts, cli.limit, &chat, model.config(), &cli.common)?;
    let sampler = sampler(cli, &chat);
    let mut decoder = sampler.decoder(&model, &prompts)?;
    let provenance = cli.common.provenance("cog-sample", env!("CARGO_PKG_VERSION"));
    let inputs = [Some(&cli.prompts), cli.model.as_ref(), cli.tokenizer.as_ref()];
    let provenance = inputs.into_iter().flatten().try_fold(provenance, |p, path| p.input(path))?;
    let options = WriterOptions { provenance: Some(provenance), ..WriterOptions::default() };
    let mut writer = Writer::<Rollout>::create(&cli.output, options)?;
    let progress = cli.common.progress("sample", Some((prompts.len() * sampler.samples) as u64));
    let wanted: Vec<&Prompt> = prompts.iter().collect();
    let begun = Instant::now();
    let streams = cli.output.as_os_str() == "-";
    let round = Round { number: cli.round, version: None };
    let tokens = sampler.round(&model, &mut decoder, &wanted, round, Some(&progress), |rollout| {
        writer.write(rollout)?;
        if streams {
            writer.flush()?;
        }
        Ok(())
    })?;
    progress.finish();
    cli.common.note(format_args!(
        "sample: {tokens} tokens, {:.0}/s",
        tokens as f64 / begun.elapsed().as_secs_f64()
    ));
    Ok(writer.finish()?)
}

/// The device asked for, for the model in `dir`.
pub fn device(cli: &Cli, dir: &Path) -> anyhow::Result<Place> {
    let config = LlamaConfig::read(dir).map_err(fault)?;
    place(cli.device, &config, |why| cli.common.note(why)).map_err(fault)
}

/// Opens a model directory; what is wrong with its contents is a data error.
pub fn open_model(dir: &Path, place: &Place) -> anyhow::Result<Model> {
    Model::open(dir, place, Purpose::Inference).map_err(fault)
}

/// What is the data's fault, and what is not.
pub fn fault(e: ModelError) -> anyhow::Error {
    if e.is_data() { rejected(e) } else { e.into() }
}

pub fn open_chat(dir: &Path) -> anyhow::Result<Chat> {
    Chat::open(dir).map_err(|e| if e.is_data() { rejected(e) } else { e.into() })
}

pub fn sampler<'a>(cli: &Cli, chat: &'a Chat) -> Sampler<'a> {
    Sampler {
        chat,
        parameters: SamplingParameters {
            temperature: cli.temperature,
            top_p: (cli.top_p < 1.0).then_some(cli.top_p),
            top_k: (cli.top_k > 0).then_some(cli.top_k),
            max_tokens: cli.max_tokens,
            seed: cli.common.seed,
        },
        samples: cli.samples as usize,
        batch: cli.batch as usize,
        label: cli.label.clone(),
    }
}
