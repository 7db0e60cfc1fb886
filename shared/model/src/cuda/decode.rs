//! Batched decoding on a device: the loop of the CPU's [`crate::Decoder`] over a paged key/value cache.
//! A prompt is prefilled once for all its samples, which share its full pages.
//!
//! A step is computed for a number of rows and of attention items rounded up, so that it has few
//! shapes: one seen before is recorded (a CUDA graph) and replayed. Rows beyond the live ones read the
//! first position of the first sequence and leave nothing.
//!
//! While the device computes logits and draws, the host lays out the step that follows if every sequence
//! goes on; then only the tokens are left to copy. Where one ends, the step is laid out anew.

use std::collections::HashMap;

use cognate_kernels::cuda::accelerator::{Replay, copy, read, write};
use cognate_kernels::cuda::arena::{Arena, Layout};
use cognate_kernels::cuda::decode_plan::{Plan, SPLIT};
use cognate_kernels::cuda::launch::{Element, Matrix};
use cognate_kernels::cuda::ops::{self, PagedCache, PlanLists};
use cognate_kernels::decode_attention::{PAGE, Span};
use cognate_kernels::sampling::{SampleOptions, Sampled};
use cognate_random::Key;
use half::bf16;

use super::llama::{self, Activations, Angles, Inputs, Packed, put};
use super::model::padded;
use super::{Done, Model};
use crate::decode::{PREFILL, Pages, Sequence, no_page};
use crate::packing::check;
use crate::{LlamaConfig, ModelError, Request, SequenceId};

const BF16: Element = Element::Bf16;
const F32: Element = Element::F32;
const U32: Element = Element::U32;

/// Decodes up to a fixed number of sequences at once on a device.
///
/// The loop: [`start`](Self::start), then again and again [`sample`](Self::sample),
/// [`finish`](Self::finish) those that ended, [`step`](Self::step). Further requests may be started
/// where all live sequences have logits: before `sample`.
pub struct Decoder {
    max_sequences: usize,
    max_length: usize,
    /// Tokens of prompts in one pass.
    prefill: usize,
    next: u64,
    ids: Vec<SequenceId>,
    sequences: Vec<Sequence>,
    pages: Pages,
    parts: Parts,
    angles: (Matrix, Matrix),
    positions: Vec<u32>,
    drawn: Vec<Sampled>,
    /// Of the live sequences: whoever changes them, or writes to its buffers, drops it.
    prepared: Option<Prepared>,
    /// Steps by weights, rows and items.
    recordings: HashMap<(u64, usize, usize), Recording>,
    _memory: (Arena, Angles),
}

/// A step of all live sequences as it lies on the device, but for their tokens.
struct Prepared {
    /// Live ones and padding.
    rows: usize,
    positions: Matrix,
    slots: Matrix,
    plan: Plan,
    lists: PlanLists,
}

/// How far a shape of step has come.
enum Recording {
    /// Run once: kernels are loaded, algorithms chosen.
    Warm,
    Recorded(Box<dyn Replay>),
    /// The device records nothing.
    Impossible,
}

/// Buffers of `B` sequences at addresses that stay.
struct Parts {
    caches: Vec<PagedCache>,
    activations: Activations,
    packed: Packed,
    /// `[prefill C]`: last positions; `[B, V padded]`: their logits, and those of the live sequences.
    picked: Matrix,
    fresh: Matrix,
    logits: Matrix,
    /// Places in the cache, of a pass over prompts once for each sample, or of a step.
    slots: Matrix,
    rows: Matrix,
    /// Of a step.
    tokens: Matrix,
    positions: Matrix,
    lists: PlanLists,
    partial: Matrix,
    /// Of a draw.
    options: Matrix,
    keys: Matrix,
    counters: Matrix,
    drawn: Matrix,
}

impl Parts {
    fn lay(layout: &mut Layout, config: &LlamaConfig, size: &Size) -> Self {
        let (c, v, heads) = (config.hidden_size, padded(config).vocab_size, config.heads());
        let (b, page) = (size.sequences, PAGE * heads.key * heads.dim);
        let tokens = size.prefill.max(b);
        let cache = |layout: &mut Layout| PagedCache {
            keys: layout.take(BF16, size.pages, page),
            values: layout.take(BF16, size.pages, page),
        };
        let caches = (0..config.num_hidden_layers).map(|_| cache(layout)).collect();
        let activations = Activations::lay(layout, config, tokens, false);
        let packed = Packed::lay(layout, tokens);
        let mut take = |element, rows, cols| layout.take(element, rows, cols);
        // Items of a step, padding among them.
        let parts = b * size.length.div_ceil(SPLIT);
        let items = parts.next_power_of_two();
        Parts {
            caches,
            activations,
            packed,
            picked: take(BF16, b, c),
            fresh: take(BF16, b, v),
            logits: take(BF16, b, v),
            slots: take(U32, b, tokens.next_multiple_of(4)),
            rows: take(U32, 1, b),
            tokens: take(U32, 1, b),
            positions: take(U32, 1, b),
            lists: PlanLists {
                pages: take(U32, 1, b * size.length.div_ceil(PAGE)),
                items: take(U32, items, 5),
                members: take(U32, 1, parts),
                parts_first: take(U32, 1, b + 1),
            },
            partial: take(F32, parts * heads.query, heads.dim + 2),
            options: take(U32, b, 3),
            keys: take(Element::U64, 1, b),
            counters: take(Element::U64, 1, b),
            drawn: take(U32, b, 3),
        }
    }
}

/// What the buffers are made for.
struct Size {
    sequences: usize,
    length: usize,
    pages: usize,
    prefill: usize,
}

impl Decoder {
    /// A decoder of at most `max_sequences` sequences of at most `max_length` tokens each (prompt and
    /// continuation).
    ///
    /// # Errors
    /// Too little device memory; the message says how much is wanted.
    pub fn new(model: &Model, max_sequences: usize, max_length: usize) -> Result<Self, ModelError> {
        let (config, max_sequences) = (model.config(), max_sequences.max(1));
        let max_length = max_length.min(config.max_position_embeddings);
        let pages = max_sequences * max_length.div_ceil(PAGE);
        let prefill = (max_sequences * max_length).min(PREFILL.max(max_length));
        let size = Size { sequences: max_sequences, length: max_length, pages, prefill };
        let (arena, parts) = Arena::new(model.device(), "cache and buffers of decoding", |layout| {
            Parts::lay(layout, config, &size)
        })?;
        let mut angles = Angles::new(config);
        let tables = angles.reserve(model.device(), max_length)?;
        Ok(Decoder {
            max_sequences,
            max_length,
            prefill,
            next: 0,
            ids: Vec::with_capacity(max_sequences),
            sequences: Vec::with_capacity(max_sequences),
            pages: Pages::new(pages),
            parts,
            angles: tables,
            positions: Vec::new(),
            drawn: Vec::new(),
            prepared: None,
            recordings: HashMap::new(),
            _memory: (arena, angles),
        })
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
    pub fn logits(&self, model: &Model, row: usize) -> Result<Vec<f32>, ModelError> {
        let stride = self.parts.logits.cols;
        let halves: Vec<u16> = read(model.on(), self.parts.logits.part(row * stride, 1, stride))?;
        let vocabulary = model.config().vocab_size;
        Ok(halves[..vocabulary].iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect())
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self._memory.0.bytes()
    }

    /// Drops all sequences: for new weights.
    pub fn clear(&mut self) {
        self.prepared = None;
        self.ids.clear();
        for sequence in self.sequences.drain(..) {
            sequence.pages.iter().for_each(|&page| self.pages.release(page));
        }
    }

    /// Prefills each prompt once and adds its samples to the batch; returns their names, samples of
    /// request 0 first.
    ///
    /// # Errors
    /// As [`crate::Decoder::start`]; then nothing was started. Also between `sample` and `step`.
    pub fn start(&mut self, model: &Model, requests: &[Request<'_>]) -> Result<Vec<SequenceId>, ModelError> {
        let wanted: usize = requests.iter().map(|r| r.samples).sum();
        if wanted > self.free() {
            let (free, all) = (self.free(), self.max_sequences);
            return Err(ModelError::Capacity(format!("{wanted} sequences asked for, {free} of {all} free")));
        }
        if self.sequences.iter().any(|s| s.pending.is_some()) {
            let reason = "sequences are started before a draw, not between it and its step";
            return Err(ModelError::Capacity(reason.into()));
        }
        for (document, request) in requests.iter().enumerate() {
            let (length, context) = (request.prompt.len(), self.max_length);
            if length == 0 {
                return Err(ModelError::Batch(format!("prompt {document} is empty")));
            }
            if length > context {
                return Err(ModelError::TooLong { document, length, context });
            }
            check(model.config(), request.prompt, &[0, length as u32], &mut self.positions)?;
        }
        let first = self.next;
        let asked: Vec<Request> = requests.iter().filter(|r| r.samples > 0).copied().collect();
        let mut rest = &asked[..];
        while !rest.is_empty() {
            let mut tokens = 0;
            let fits = rest.iter().take_while(|r| {
                tokens += r.prompt.len();
                tokens <= self.prefill
            });
            let (now, later) = rest.split_at(fits.count().max(1));
            self.fill(model, now)?;
            rest = later;
        }
        Ok((first..self.next).map(SequenceId).collect())
    }

    /// One pass over prompts.
    fn fill(&mut self, model: &Model, requests: &[Request<'_>]) -> Result<(), ModelError> {
        self.prepared = None;
        let (on, heads, p) = (model.on(), model.config().heads(), &self.parts);
        let tokens: Vec<u32> = requests.iter().flat_map(|r| r.prompt).copied().collect();
        let mut starts = vec![0u32];
        starts.extend(requests.iter().scan(0, |end, r| {
            *end += r.prompt.len() as u32;
            Some(*end)
        }));
        check(model.config(), &tokens, &starts, &mut self.positions)?;
        // Every sample's own table: full pages shared, the last one its own where it is part full.
        let mut tables: Vec<Vec<Vec<u32>>> = Vec::new();
        for request in requests {
            let (shared, count) = (request.prompt.len() / PAGE, request.prompt.len().div_ceil(PAGE));
            let first = (0..count).map(|_| self.pages.take()).collect::<Option<Vec<u32>>>();
            let mut samples = vec![first.ok_or_else(no_page)?];
            for _ in 1..request.samples {
                let mut own = samples[0].clone();
                own[..shared].iter().for_each(|&page| self.pages.share(page));
                if shared < count {
                    own[shared] = self.pages.take().ok_or_else(no_page)?;
                }
                samples.push(own);
            }
            tables.push(samples);
        }
        // Where each token's keys and values go: everywhere for the first sample, to the last page for
        // the others.
        let passes = requests.iter().map(|r| if r.prompt.len() % PAGE > 0 { r.samples } else { 1 });
        let passes = passes.max().unwrap_or(1);
        let mut slots = vec![u32::MAX; passes * tokens.len()];
        for (pass, slots) in slots.chunks_exact_mut(tokens.len()).enumerate() {
            for (samples, span) in tables.iter().zip(starts.windows(2)) {
                let Some(table) = samples.get(pass) else { continue };
                let length = (span[1] - span[0]) as usize;
                let first = if pass == 0 { 0 } else { length / PAGE * PAGE };
                for position in first..length {
                    let slot = table[position / PAGE] * PAGE as u32 + (position % PAGE) as u32;
                    slots[span[0] as usize + position] = slot;
                }
            }
        }
        let slots: Vec<Matrix> = slots
            .chunks_exact(tokens.len())
            .enumerate()
            .map(|(pass, slots)| {
                let at = p.slots.part(pass * p.slots.cols, 1, tokens.len());
                write(on, at, slots).map(|()| at)
            })
            .collect::<Result<_, _>>()?;
        let packed = p.packed.fill(on, (&tokens, &self.positions, &starts), false)?;
        let attend = |l: usize, v: &llama::Layer| {
            packed.attend(on, v, heads)?;
            slots.iter().try_for_each(|&slots| ops::cache_append(on, p.caches[l], v.qkv, slots, heads))
        };
        llama::forward(model, &p.activations, packed.inputs(self.angles), attend, |_, _| Ok(()))?;

        let last: Vec<u32> = starts[1..].iter().map(|end| end - 1).collect();
        let rows = put(on, p.rows, last.len(), &last)?;
        let (picked, fresh) = (p.picked.top(last.len()), p.fresh.top(last.len()));
        ops::gather(on, picked, p.activations.output(tokens.len()), rows)?;
        model.classify(fresh, picked)?;
        let from = tables.iter().enumerate().flat_map(|(i, samples)| samples.iter().map(move |_| i as u32));
        let from: Vec<u32> = from.collect();
        let rows = put(on, p.rows, from.len(), &from)?;
        let to = p.logits.part(self.ids.len() * p.logits.cols, from.len(), p.logits.cols);
        ops::gather(on, to, fresh, rows)?;
        for (samples, request) in tables.into_iter().zip(requests) {
            for pages in samples {
                self.ids.push(SequenceId(self.next));
                self.next += 1;
                self.sequences.push(Sequence { pages, length: request.prompt.len(), pending: None });
            }
        }
        Ok(())
    }

    /// Draws the next token of every live sequence. `options` has one entry for all rows or one a row,
    /// `numbers` a key and a counter a row, which name a random number. The tokens are fed by the next
    /// [`step`](Self::step), except to sequences finished before it. A sequence that is too long to be fed
    /// is no error here.
    pub fn sample(
        &mut self,
        model: &Model,
        options: &[SampleOptions],
        numbers: &[(Key, u64)],
    ) -> Result<&[Sampled], ModelError> {
        let (on, p, rows) = (model.on(), &self.parts, self.ids.len());
        assert!(options.len() == 1 || options.len() == rows, "options for all rows or one a row");
        assert_eq!(numbers.len(), rows, "one number a row");
        self.drawn.clear();
        self.prepared = None;
        if rows == 0 {
            return Ok(&self.drawn);
        }
        let words = options.iter().flat_map(|o| [o.temperature.to_bits(), o.top_k as u32, o.top_p.to_bits()]);
        let options = put(on, p.options, 3, &words.collect::<Vec<_>>())?;
        let keys: Vec<u64> = numbers.iter().map(|(key, _)| key.raw()).collect();
        let counters: Vec<u64> = numbers.iter().map(|(_, counter)| *counter).collect();
        let random = (put(on, p.keys, rows, &keys)?, put(on, p.counters, rows, &counters)?);
        let drawn = p.drawn.top(rows);
        ops::sample(on, drawn, p.logits.top(rows), options, random, model.config().vocab_size)?;
        // The device is busy, and what follows the draw is known but for the tokens.
        self.prepared = match self.prepare(model) {
            Ok(prepared) => Some(prepared),
            // The step says so, unless the sequence at fault is finished before.
            Err(ModelError::TooLong { .. } | ModelError::Capacity(_)) => None,
            Err(error) => return Err(error),
        };
        let words: Vec<u32> = read(on, drawn)?;
        self.drawn.extend(words.chunks_exact(3).map(|w| Sampled {
            token: w[0],
            logprob: f32::from_bits(w[1]),
            sampling_logprob: f32::from_bits(w[2]),
        }));
        for (sequence, drawn) in self.sequences.iter_mut().zip(&self.drawn) {
            sequence.pending = Some(drawn.token);
        }
        Ok(&self.drawn)
    }

    /// Takes sequences out of the batch; the others keep their order. Unknown names are ignored.
    pub fn finish(&mut self, model: &Model, ids: &[SequenceId]) -> Result<(), ModelError> {
        if ids.iter().any(|id| self.ids.contains(id)) {
            self.prepared = None;
        }
        let (logits, mut kept) = (self.parts.logits, 0);
        for row in 0..self.ids.len() {
            if ids.contains(&self.ids[row]) {
                let pages = std::mem::take(&mut self.sequences[row].pages);
                pages.iter().for_each(|&page| self.pages.release(page));
                continue;
            }
            if kept < row {
                self.ids.swap(kept, row);
                self.sequences.swap(kept, row);
                // Spent logits need not move.
                if self.sequences[kept].pending.is_none() {
                    let part = |row: usize| logits.part(row * logits.cols, 1, logits.cols);
                    copy(model.on(), part(kept), part(row))?;
                }
            }
            kept += 1;
        }
        self.ids.truncate(kept);
        self.sequences.truncate(kept);
        Ok(())
    }

    /// Lays the next step of the live sequences on the device, but for their tokens: a place in the cache for
    /// each, and the plan of attention. The buffers may still be read by the step before this one, recorded or
    /// not; that is safe because the copies come after it in the order of the stream, whatever the host does.
    ///
    /// # Errors
    /// A sequence that is as long as the decoder or the model allows; the sequences before it keep the pages
    /// that they were given.
    fn prepare(&mut self, model: &Model) -> Result<Prepared, ModelError> {
        let (live, context) = (self.sequences.len(), self.max_length);
        // Few shapes: powers of two, and the whole batch.
        let rows = live.next_power_of_two().min(self.max_sequences);
        let (mut positions, mut slots) = (vec![0; rows], vec![u32::MAX; rows]);
        for (row, sequence) in self.sequences.iter_mut().enumerate() {
            let length = sequence.length;
            if length >= context {
                return Err(ModelError::TooLong { document: row, length: length + 1, context });
            }
            if length.is_multiple_of(PAGE) && sequence.pages.len() == length / PAGE {
                sequence.pages.push(self.pages.take().ok_or_else(no_page)?);
            }
            positions[row] = length as u32;
            slots[row] = sequence.pages[length / PAGE] * PAGE as u32 + (length % PAGE) as u32;
        }
        let (heads, p) = (model.config().heads(), &self.parts);
        let mut spans: Vec<Span> =
            self.sequences.iter().map(|s| Span { pages: &s.pages, length: s.length + 1 }).collect();
        spans.resize(rows, Span { pages: &self.sequences[0].pages[..1], length: 1 });
        let mut plan = Plan::new(&spans, heads.query / heads.key);
        plan.pad(plan.count().next_power_of_two());
        let on = model.on();
        let list = |to, data: &[u32]| put(on, to, data.len(), data);
        Ok(Prepared {
            rows,
            positions: list(p.positions, &positions)?,
            slots: list(p.slots, &slots)?,
            lists: PlanLists {
                pages: list(p.lists.pages, &plan.pages)?,
                items: put(on, p.lists.items, 5, &plan.items)?,
                members: list(p.lists.members, &plan.members)?,
                parts_first: list(p.lists.parts_first, &plan.parts_first)?,
            },
            plan,
        })
    }

    /// Feeds the tokens drawn for the sequences that are still live and computes their next logits.
    ///
    /// # Errors
    /// A sequence that is as long as the decoder or the model allows, or without a draw.
    pub fn step(&mut self, model: &Model) -> Result<(), ModelError> {
        if self.sequences.is_empty() {
            return Ok(());
        }
        let undrawn = |row| ModelError::Capacity(format!("the sequence in row {row} has no draw to feed"));
        let drawn = self.sequences.iter().enumerate().map(|(row, s)| s.pending.ok_or_else(|| undrawn(row)));
        let mut tokens = drawn.collect::<Result<Vec<u32>, _>>()?;
        let Prepared { rows, positions, slots, plan, lists } = match self.prepared.take() {
            Some(prepared) => prepared,
            None => self.prepare(model)?,
        };
        tokens.resize(rows, 0);
        let (on, heads, p) = (model.on(), model.config().heads(), &self.parts);
        let inputs = Inputs { tokens: put(on, p.tokens, rows, &tokens)?, positions, angles: self.angles };
        let mut compute = || -> Done {
            let attend = |l: usize, v: &llama::Layer| {
                ops::cache_append(on, p.caches[l], v.qkv, slots, heads)?;
                let pair = (v.attention, p.partial);
                ops::decode_attention(on, pair, v.qkv, p.caches[l], &plan, lists, heads)
            };
            llama::forward(model, &p.activations, inputs, attend, |_, _| Ok(()))?;
            model.classify(p.logits.top(rows), p.activations.output(rows))
        };
        let shape = (model.weights.embedding.address(), rows, plan.count());
        match self.recordings.get(&shape) {
            Some(Recording::Recorded(recorded)) => recorded.replay()?,
            Some(Recording::Impossible) => compute()?,
            Some(Recording::Warm) => {
                let recorded = on.record(&mut compute)?;
                match &recorded {
                    Some(recorded) => recorded.replay()?,
                    None => compute()?,
                }
                let found = recorded.map_or(Recording::Impossible, Recording::Recorded);
                self.recordings.insert(shape, found);
            }
            None => {
                compute()?;
                self.recordings.insert(shape, Recording::Warm);
            }
        }
        for sequence in &mut self.sequences {
            sequence.length += 1;
            sequence.pending = None;
        }
        Ok(())
    }
}
