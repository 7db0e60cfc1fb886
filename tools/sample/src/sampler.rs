//! One round of sampling: prompts and a model in, rollouts out, in the order of the prompts.

use std::sync::mpsc;

use anyhow::Context;
use cognate_chat::Chat;
use cognate_cli::{Progress, rejected};
use cognate_model::placed::{Decoder, Model};
use cognate_model::{ModelError, SampleOptions};
use cognate_random::Key;
use cognate_records::{Finish, Prompt, Rollout, SamplingParameters};

use crate::engine::{Job, Sample, Stopped, run};
use crate::order::Reorder;

/// What is the same for every rollout of a run.
pub struct Sampler<'a> {
    pub chat: &'a Chat,
    pub parameters: SamplingParameters,
    pub samples: usize,
    pub batch: usize,
    pub label: Option<String>,
}

/// What is the same for every rollout of a round.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Part of the randomness key.
    pub number: u64,
    /// Policy version, where there is one.
    pub version: Option<u64>,
}

impl Sampler<'_> {
    /// The model's end tokens and the tokenizer's.
    fn stops(&self, model: &Model) -> Vec<u32> {
        let mut stops = [self.chat.stop_ids(), &model.config().eos_token_id].concat();
        stops.sort_unstable();
        stops.dedup();
        stops
    }

    fn options(&self) -> SampleOptions {
        SampleOptions {
            temperature: self.parameters.temperature,
            top_k: self.parameters.top_k.unwrap_or(0) as usize,
            top_p: self.parameters.top_p.unwrap_or(1.0),
        }
    }

    /// Room for the longest of the prompts with its answer.
    ///
    /// # Errors
    /// A device with too little memory for it.
    pub fn decoder(&self, model: &Model, prompts: &[Prompt]) -> Result<Decoder, ModelError> {
        let longest = prompts.iter().map(|p| p.ids.len()).max().unwrap_or(0);
        let length =
            (longest + self.parameters.max_tokens as usize).min(model.config().max_position_embeddings);
        Decoder::new(model, self.batch.min(prompts.len() * self.samples).max(1), length)
    }

    /// Samples every prompt and gives the rollouts to `write` in order of prompt and index. Returns the number of
    /// tokens.
    ///
    /// `write` runs on a thread of its own, so that a slow reader downstream does not hold up the decoding.
    ///
    /// # Errors
    /// When the model fails, or whatever `write` returns.
    pub fn round(
        &self,
        model: &Model,
        decoder: &mut Decoder,
        prompts: &[&Prompt],
        round: Round,
        progress: Option<&Progress>,
        mut write: impl FnMut(&Rollout) -> anyhow::Result<()> + Send,
    ) -> anyhow::Result<u64> {
        let model_stops = self.stops(model);
        let stops: Vec<Vec<u32>> = prompts.iter().map(|p| [&model_stops[..], &p.stop_ids].concat()).collect();
        let key = Key::new(self.parameters.seed).with("sample").with(round.number);
        let jobs: Vec<Job> = prompts
            .iter()
            .zip(&stops)
            .map(|(prompt, stops)| Job {
                key: key.with(&prompt.id),
                prompt: &prompt.ids,
                stops,
                limit: (self.parameters.max_tokens as usize)
                    .min(model.config().max_position_embeddings - prompt.ids.len()),
                samples: self.samples,
            })
            .collect();
        let (sender, receiver) = mpsc::channel::<Sample>();
        std::thread::scope(|scope| {
            let writer = scope.spawn(move || {
                let mut order = Reorder::new(self.samples);
                for sample in receiver {
                    order.push(sample.job, sample.index, sample);
                    while let Some(sample) = order.pop() {
                        write(&self.rollout(prompts[sample.job], sample, round))?;
                        progress.inspect(|p| p.inc(1));
                    }
                }
                anyhow::Ok(())
            });
            let sampled = run(model, decoder, &jobs, self.options(), |sample| sender.send(sample).is_ok());
            drop(sender);
            // The writer's own error says why it went away.
            writer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            sampled.map_err(|e| match e {
                Stopped::Model(e) if e.is_data() => rejected(e),
                e => e.into(),
            })
        })
        .context("sampling")
    }

    fn rollout(&self, prompt: &Prompt, sample: Sample, round: Round) -> Rollout {
        let said = match sample.finish {
            Finish::Stop => &sample.ids[..sample.ids.len() - 1],
            Finish::Length => &sample.ids[..],
        };
        Rollout {
            prompt: prompt.id.clone(),
            index: sample.index as u32,
            text: self.chat.answer(said),
            problem: Some(prompt.problem.clone()),
            language: Some(prompt.language.clone()),
            task: Some(prompt.task.clone()),
            split: prompt.split.clone(),
            round: Some(round.number),
            prompt_ids: prompt.ids.clone(),
            versions: round.version.map_or_else(Vec::new, |v| vec![v; sample.ids.len()]),
            ids: sample.ids,
            logprobs: sample.logprobs,
            sampling_logprobs: sample.sampling_logprobs,
            parameters: Some(self.parameters.clone()),
            finish: Some(sample.finish),
            model: self.label.clone(),
            verdict: None,
            extra: prompt.extra.clone(),
        }
    }
}
