//! Continuous batching: sequences that end leave the batch at once and waiting ones take their place. What a sequence
//! says depends on its prompt, the weights and its own random numbers only, never on its neighbours, so the batch size
//! is a matter of speed alone.

use std::collections::HashMap;

use cognate_model::placed::{Decoder, Model};
use cognate_model::{ModelError, Request, SampleOptions, SequenceId};
use cognate_random::Key;
use cognate_records::Finish;

/// Samples wanted of one prompt.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    /// Key of the prompt; a sample's is this with its index.
    pub key: Key,
    pub prompt: &'a [u32],
    /// Token ids that end a sample.
    pub stops: &'a [u32],
    /// Most new tokens: the asked number, or what the context leaves.
    pub limit: usize,
    pub samples: usize,
}

/// One finished sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Index of the job.
    pub job: usize,
    /// Which sample of the job.
    pub index: usize,
    /// The end token included, if one was sampled.
    pub ids: Vec<u32>,
    /// Natural logarithm, temperature 1, whole vocabulary.
    pub logprobs: Vec<f32>,
    /// The same under the distribution that was sampled from.
    pub sampling_logprobs: Vec<f32>,
    pub finish: Finish,
}

/// A sequence in the batch.
struct Live {
    sample: Sample,
    key: Key,
}

/// Why sampling ended early: the model failed, or whoever takes the samples has gone.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error(transparent)]
    Model(#[from] ModelError),
    #[error("nobody takes the samples any more")]
    Abandoned,
}

/// Runs all jobs through `decoder`, whose sequences are dropped first, and hands over each sample as it ends, in an
/// order that depends on the batch size. `take` returns false to stop. Returns the number of tokens sampled.
///
/// # Errors
/// When the model fails or `take` has returned false.
pub fn run(
    model: &Model,
    decoder: &mut Decoder,
    jobs: &[Job],
    options: SampleOptions,
    mut take: impl FnMut(Sample) -> bool,
) -> Result<u64, Stopped> {
    decoder.clear();
    let capacity = decoder.free();
    // Refilling one place at a time would run prefill, and its small products, after nearly every step.
    let refill = (capacity / 8).max(1);
    let mut queue = Queue { jobs, job: 0, sample: 0 };
    let mut live: HashMap<SequenceId, Live> = HashMap::with_capacity(capacity);
    let (mut numbers, mut ended, mut tokens) = (Vec::new(), Vec::new(), 0u64);
    loop {
        if live.is_empty() || decoder.free() >= refill {
            live.extend(queue.start(model, decoder)?);
        }
        if live.is_empty() {
            return Ok(tokens);
        }
        let rows = decoder.live().to_vec();
        numbers.clear();
        numbers.extend(rows.iter().map(|id| (live[id].key, live[id].sample.ids.len() as u64)));
        let sampled = decoder.sample(model, &[options], &numbers)?;
        tokens += rows.len() as u64;
        ended.clear();
        for (id, drawn) in rows.iter().zip(sampled) {
            let sample = &mut live.get_mut(id).expect("every row of the decoder was started here").sample;
            sample.ids.push(drawn.token);
            sample.logprobs.push(drawn.logprob);
            sample.sampling_logprobs.push(drawn.sampling_logprob);
            let job = &jobs[sample.job];
            if job.stops.contains(&drawn.token) {
                sample.finish = Finish::Stop;
                ended.push(*id);
            } else if sample.ids.len() >= job.limit {
                ended.push(*id);
            }
        }
        decoder.finish(model, &ended)?;
        for id in &ended {
            if let Some(sequence) = live.remove(id)
                && !take(sequence.sample)
            {
                return Err(Stopped::Abandoned);
            }
        }
        if !live.is_empty() {
            decoder.step(model)?;
        }
    }
}

/// What has not been started: from sample `sample` of job `job` on.
struct Queue<'a> {
    jobs: &'a [Job<'a>],
    job: usize,
    sample: usize,
}

impl Queue<'_> {
    /// Starts as many as fit. The samples of one prompt start together, so that it is read once, unless there are more
    /// of them than places in the whole batch.
    fn start(&mut self, model: &Model, decoder: &mut Decoder) -> Result<Vec<(SequenceId, Live)>, ModelError> {
        let (mut free, empty) = (decoder.free(), decoder.live().is_empty());
        let mut requests = Vec::new();
        let mut sequences = Vec::new();
        while let Some(job) = self.jobs.get(self.job) {
            let left = job.samples - self.sample;
            let alone = empty && requests.is_empty();
            if left > free && !alone {
                break;
            }
            let samples = left.min(free);
            requests.push(Request { prompt: job.prompt, samples });
            sequences.extend((self.sample..self.sample + samples).map(|index| Live {
                sample: Sample {
                    job: self.job,
                    index,
                    ids: Vec::new(),
                    logprobs: Vec::new(),
                    sampling_logprobs: Vec::new(),
                    finish: Finish::Length,
                },
                key: job.key.with(index),
            }));
            free -= samples;
            self.sample += samples;
            if self.sample < job.samples {
                break;
            }
            (self.job, self.sample) = (self.job + 1, 0);
        }
        let ids = decoder.start(model, &requests)?;
        Ok(ids.into_iter().zip(sequences).collect())
    }
}
