//! Batched decoding: many sequences at once over a paged key/value cache. A prompt is prefilled
//! once for all its samples, which share its full pages; a finished sequence leaves the batch, so
//! the cost follows the live ones.

use std::ops::Range;

use cognate_kernels::decode_attention::{self, Cache, PAGE, Span};
use cognate_kernels::sampling::{self, SampleOptions, Sampled};
use cognate_kernels::{Tensor, attention, gather, matmul};

use crate::llama::{self, Activations};
use crate::packing::check;
use crate::{Model, ModelError};

/// Names a sequence for as long as its decoder lives; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceId(pub u64);

/// A prompt and how many sequences continue it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// At least one token.
    pub prompt: &'a [u32],
    pub samples: usize,
}

pub(crate) struct Sequence {
    pub pages: Vec<u32>,
    /// Positions in the cache.
    pub length: usize,
    /// Drawn, not yet fed: its logits are spent.
    pub pending: Option<u32>,
}

/// The pages that are free, and how many sequences hold each of the others.
pub(crate) struct Pages {
    free: Vec<u32>,
    holders: Vec<u32>,
}

impl Pages {
    pub fn new(count: usize) -> Self {
        Pages { free: (0..count as u32).rev().collect(), holders: vec![0; count] }
    }

    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// One sequence more holds `page`.
    pub fn share(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }
}

/// Decodes up to a fixed number of sequences at once.
///
/// The loop: [`start`](Self::start), then again and again [`sample`](Self::sample),
/// [`finish`](Self::finish) those that ended, [`step`](Self::step); further requests may be
/// started between any two calls. What a sequence gives depends on its own tokens and numbers
/// only, bit for bit.
pub struct Decoder {
    max_sequences: usize,
    max_length: usize,
    next: u64,
    ids: Vec<SequenceId>,
    sequences: Vec<Sequence>,
    pages: Pages,
    caches: Vec<Cache>,
    activations: Activations,
    positions: Vec<u32>,
    tokens: Vec<u32>,
    rows: Vec<u32>,
    /// `[B, C]`, `[B, V]`: last positions of what was just computed, and their logits.
    picked: Tensor,
    fresh: Tensor,
    /// `[live, V]`
    logits: Tensor,
    drawn: Vec<Sampled>,
}

/// Tokens of prompts prefilled in one pass.
pub(crate) const PREFILL: usize = 4096;

impl Decoder {
    /// A decoder of at most `max_sequences` sequences of at most `max_length` tokens each (prompt
    /// and continuation). The cache takes `2 · layers · G · D` values a token, touched as used.
    pub fn new(model: &Model, max_sequences: usize, max_length: usize) -> Self {
        let (config, device) = (&model.config, model.device);
        let count = max_sequences * max_length.div_ceil(PAGE);
        let page = PAGE * config.num_key_value_heads * config.head_dim;
        let cache = |_| Cache {
            keys: Tensor::zeros(device, count, page),
            values: Tensor::zeros(device, count, page),
        };
        Decoder {
            max_sequences,
            max_length,
            next: 0,
            ids: Vec::with_capacity(max_sequences),
            sequences: Vec::with_capacity(max_sequences),
            pages: Pages::new(count),
            caches: (0..config.num_hidden_layers).map(cache).collect(),
            activations: Activations::new(config, device, max_sequences, None),
            positions: Vec::new(),
            tokens: Vec::new(),
            rows: Vec::new(),
            picked: Tensor::zeros(device, 0, config.hidden_size),
            fresh: Tensor::zeros(device, 0, config.vocab_size),
            logits: Tensor::zeros(device, 0, config.vocab_size),
            drawn: Vec::new(),
        }
    }

    /// Sequences that can be started besides the live ones.
    pub fn free(&self) -> usize {
        self.max_sequences - self.ids.len()
    }

    /// Live sequences; rows of every array of this type are in this order.
    pub fn live(&self) -> &[SequenceId] {
        &self.ids
    }

    /// Tokens in the cache of the sequence in `row`: prompt and what was fed.
    pub fn length(&self, row: usize) -> usize {
        self.sequences[row].length
    }

    /// Logits `[V]` of the next token of the sequence in `row`; stale between `sample` and `step`.
    pub fn logits(&self, row: usize) -> &[f32] {
        self.logits.row(row)
    }

    /// Drops all sequences: for new weights.
    pub fn clear(&mut self) {
        self.ids.clear();
        for sequence in self.sequences.drain(..) {
            sequence.pages.iter().for_each(|&page| self.pages.release(page));
        }
        self.logits.set_rows(0);
    }

    /// Prefills each prompt once and adds its samples to the batch; returns their names, samples
    /// of request 0 first.
    ///
    /// # Errors
    /// No room for so many sequences, an empty prompt, one that leaves no room for a token, or a
    /// token beyond the vocabulary; then nothing was started.
    pub fn start(&mut self, model: &Model, requests: &[Request<'_>]) -> Result<Vec<SequenceId>, ModelError> {
        let wanted: usize = requests.iter().map(|r| r.samples).sum();
        if wanted > self.free() {
            let (free, all) = (self.free(), self.max_sequences);
            return Err(ModelError::Capacity(format!("{wanted} sequences asked for, {free} of {all} free")));
        }
        let context = self.max_length.min(model.config.max_position_embeddings);
        for (document, request) in requests.iter().enumerate() {
            let length = request.prompt.len();
            if length == 0 {
                return Err(ModelError::Batch(format!("prompt {document} is empty")));
            }
            if length > context {
                return Err(ModelError::TooLong { document, length, context });
            }
            check(&model.config, request.prompt, &[0, length as u32], &mut self.positions)?;
        }
        let first = self.next;
        let mut rest = requests;
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|r| {
                tokens += r.prompt.len();
                tokens <= PREFILL
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.prefill(model, now)?;
            rest = later;
        }
        Ok((first..self.next).map(SequenceId).collect())
    }

    fn prefill(&mut self, model: &Model, requests: &[Request<'_>]) -> Result<(), ModelError> {
        let heads = model.config.heads();
        self.tokens.clear();
        self.rows.clear();
        let mut starts = vec![0u32];
        let mut tables: Vec<Vec<u32>> = Vec::new();
        for request in requests.iter().filter(|r| r.samples > 0) {
            self.tokens.extend_from_slice(request.prompt);
            starts.push(self.tokens.len() as u32);
            self.rows.push(self.tokens.len() as u32 - 1);
            let count = request.prompt.len().div_ceil(PAGE);
            tables.push((0..count).map(|_| self.pages.take()).collect::<Option<_>>().ok_or_else(no_page)?);
        }
        if tables.is_empty() {
            return Ok(());
        }
        check(&model.config, &self.tokens, &starts, &mut self.positions)?;
        let caches = &mut self.caches;
        llama::forward(
            model,
            &mut self.activations,
            &self.tokens,
            &self.positions,
            |l, v| {
                attention::forward(&mut v.attention, &mut v.lse, &v.qkv, &starts, heads);
                decode_attention::fill(&mut caches[l], &v.qkv, &starts, &tables, heads);
            },
            |_, _| {},
        );
        self.classify(model);
        // One sequence a sample: full pages shared, the last one copied where it is part full.
        let vocabulary = model.config.vocab_size;
        for ((document, request), pages) in requests.iter().filter(|r| r.samples > 0).enumerate().zip(tables)
        {
            let length = request.prompt.len();
            for sample in 0..request.samples {
                let mut own = pages.clone();
                if sample > 0 {
                    let shared = length / PAGE;
                    pages[..shared].iter().for_each(|&page| self.pages.share(page));
                    if shared < pages.len() {
                        let copy = self.pages.take().ok_or_else(no_page)?;
                        self.caches
                            .iter_mut()
                            .for_each(|c| decode_attention::copy_page(c, pages[shared], copy));
                        own[shared] = copy;
                    }
                }
                let row = self.ids.len();
                self.logits.set_rows(row + 1);
                self.logits.f32_mut()[row * vocabulary..].copy_from_slice(self.fresh.row(document));
                self.ids.push(SequenceId(self.next));
                self.next += 1;
                self.sequences.push(Sequence { pages: own, length, pending: None });
            }
        }
        Ok(())
    }

    /// Logits of the rows in `self.rows` of what was just computed, into `self.fresh`.
    fn classify(&mut self, model: &Model) {
        let head = model.weights.head.as_ref().unwrap_or(&model.weights.embedding);
        self.picked.set_rows(self.rows.len());
        gather::forward(&mut self.picked, &self.activations.normed, &self.rows);
        self.fresh.set_rows(self.rows.len());
        matmul::forward(&mut self.fresh, &self.picked, head);
    }

    /// Draws the next token of every live sequence. `options` has one entry for all rows or one a
    /// row, `uniforms` one number in `[0, 1)` a row. The tokens are fed by the next
    /// [`step`](Self::step), except to sequences finished before it.
    pub fn sample(&mut self, options: &[SampleOptions], uniforms: &[f32]) -> &[Sampled] {
        sampling::forward(&mut self.drawn, &self.logits, options, uniforms);
        for (sequence, drawn) in self.sequences.iter_mut().zip(&self.drawn) {
            sequence.pending = Some(drawn.token);
        }
        &self.drawn
    }

    /// Takes sequences out of the batch; the others keep their order. Unknown names are ignored.
    pub fn finish(&mut self, ids: &[SequenceId]) {
        let vocabulary = self.logits.cols();
        let mut kept = 0;
        for row in 0..self.ids.len() {
            if ids.contains(&self.ids[row]) {
                let pages = std::mem::take(&mut self.sequences[row].pages);
                pages.iter().for_each(|&page| self.pages.release(page));
                continue;
            }
            if kept < row {
                self.ids.swap(kept, row);
                self.sequences.swap(kept, row);
                let span = row * vocabulary..(row + 1) * vocabulary;
                // Spent logits need not move.
                if self.sequences[kept].pending.is_none() {
                    self.logits.f32_mut().copy_within(span, kept * vocabulary);
                }
            }
            kept += 1;
        }
        self.ids.truncate(kept);
        self.sequences.truncate(kept);
        self.logits.set_rows(kept);
    }

    /// Feeds the tokens drawn for the sequences that are still live and computes their next
    /// logits. A sequence started since the last draw waits: it has logits.
    ///
    /// # Errors
    /// A sequence that is as long as the decoder or the model allows.
    pub fn step(&mut self, model: &Model) -> Result<(), ModelError> {
        let heads = model.config.heads();
        let context = self.max_length.min(model.config.max_position_embeddings);
        self.tokens.clear();
        self.positions.clear();
        let mut fed: Vec<usize> = Vec::with_capacity(self.ids.len());
        for (row, sequence) in self.sequences.iter_mut().enumerate() {
            let Some(token) = sequence.pending else { continue };
            if sequence.length >= context {
                let (document, length) = (row, sequence.length + 1);
                return Err(ModelError::TooLong { document, length, context });
            }
            if sequence.length.is_multiple_of(PAGE) && sequence.pages.len() == sequence.length / PAGE {
                sequence.pages.push(self.pages.take().ok_or_else(no_page)?);
            }
            fed.push(row);
            self.tokens.push(token);
            self.positions.push(sequence.length as u32);
        }
        if fed.is_empty() {
            return Ok(());
        }
        let (sequences, caches) = (&self.sequences, &mut self.caches);
        llama::forward(
            model,
            &mut self.activations,
            &self.tokens,
            &self.positions,
            |l, v| {
                decode_attention::forward(&mut v.attention, &v.qkv, &mut caches[l], heads, |b| {
                    let s = &sequences[fed[b]];
                    Span { pages: &s.pages, length: s.length + 1 }
                });
            },
            |_, _| {},
        );
        self.rows.clear();
        self.rows.extend(0..fed.len() as u32);
        self.classify(model);
        let vocabulary = model.config.vocab_size;
        if fed.len() == self.ids.len() {
            std::mem::swap(&mut self.logits, &mut self.fresh);
        } else {
            for (b, &row) in fed.iter().enumerate() {
                let span: Range<usize> = row * vocabulary..(row + 1) * vocabulary;
                self.logits.f32_mut()[span].copy_from_slice(self.fresh.row(b));
            }
        }
        for row in fed {
            self.sequences[row].length += 1;
            self.sequences[row].pending = None;
        }
        Ok(())
    }
}

pub(crate) fn no_page() -> ModelError {
    ModelError::Capacity("no page of the cache is free".into())
}
