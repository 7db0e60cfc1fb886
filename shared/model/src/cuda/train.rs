//! One training step's forward and backward over a packed batch on a device, gradients accumulated:
//! the contract of the CPU's [`crate::Trainer`].

use std::rc::Rc;

use cognate_kernels::cuda::accelerator::{Accelerator, clear, read, write};
use cognate_kernels::cuda::arena::{Arena, Layout};
use cognate_kernels::cuda::cublaslt::Product;
use cognate_kernels::cuda::launch::{Element, Matrix};
use cognate_kernels::cuda::ops::{self, ClassifierInputs, LOSS_SUMS, Token};
use cognate_kernels::policy_loss::{self, Objective, RatioLevel, SequenceMeans, StepSums, Terms};
use cognate_kernels::{Device, Tensor};
use half::bf16;

use super::llama::{self, Activations, Angles, Backward, Inputs, Packed, put};
use super::model::padded;
use super::stored::Halves;
use super::{Done, Model};
use crate::files::Source;
use crate::packing::check;
use crate::weights::{Slot, Weights};
use crate::{Batch, LlamaConfig, ModelError, ValueHead};

const BF16: Element = Element::Bf16;
const F32: Element = Element::F32;
const U32: Element = Element::U32;

/// Values of a chunk of logits: 256 MiB.
const CHUNK: usize = 1 << 27;

/// Gradients, and the arena in which a step is computed; reused from step to step.
pub struct Trainer {
    gradients: Weights<Matrix>,
    /// `[V, C]` fp32: the gradient of the head's product, summed over the chunks of a micro-batch.
    head_sum: Matrix,
    /// Of the gradients.
    arena: Arena,
    /// Absent only while a larger one is made.
    work: Option<Work>,
    /// Rows of logits at a time, if not as many as fit [`CHUNK`].
    chunk: Option<usize>,
    angles: Angles,
    values: Option<ValueHead>,
    positions: Vec<u32>,
    rows: Vec<u32>,
    logprobs: Vec<f32>,
    entropies: Vec<f32>,
    state_values: Vec<f32>,
}

/// The buffers of one micro-batch.
struct Work {
    tokens: usize,
    parts: Parts,
    arena: Arena,
}

/// `R` predicting rows, in chunks of `chunk`.
struct Parts {
    activations: Activations,
    backward: Backward,
    packed: Packed,
    /// `[T, C]`
    dnormed: Matrix,
    /// `[R, C]`
    picked: Matrix,
    dpicked: Matrix,
    /// `[chunk, V padded]`
    logits: Matrix,
    /// `[R, 3]`, `[R, 9]` fp32
    stats: Matrix,
    terms: Matrix,
    /// `[1, chunk]` fp32
    dlogp: Matrix,
    dz: Matrix,
    /// `[1, 17]` and first stages, fp64
    sums: Matrix,
    partial: Matrix,
    /// `[1, R]` and, the inverse of the rows, `[1, T]`
    rows: Matrix,
    targets: Matrix,
    inverse: Matrix,
}

impl Parts {
    fn lay(layout: &mut Layout, config: &LlamaConfig, tokens: usize, chunk: usize) -> Self {
        let (c, v) = (config.hidden_size, padded(config).vocab_size);
        let activations = Activations::lay(layout, config, tokens, true);
        let backward = Backward::lay(layout, config, tokens);
        let packed = Packed::lay(layout, tokens);
        let mut take = |element, rows, cols| layout.take(element, rows, cols);
        Parts {
            activations,
            backward,
            packed,
            dnormed: take(BF16, tokens, c),
            picked: take(BF16, tokens, c),
            dpicked: take(BF16, tokens, c),
            logits: take(BF16, chunk, v),
            stats: take(F32, tokens, 3),
            terms: take(F32, tokens, size_of::<Token>() / 4),
            dlogp: take(F32, 1, chunk),
            dz: take(F32, 1, chunk),
            sums: take(Element::F64, 1, LOSS_SUMS),
            partial: take(Element::F64, chunk.div_ceil(256), LOSS_SUMS),
            rows: take(U32, 1, tokens),
            targets: take(U32, 1, tokens),
            inverse: take(U32, 1, tokens),
        }
    }
}

impl Work {
    fn new(
        on: &Rc<dyn Accelerator>,
        config: &LlamaConfig,
        tokens: usize,
        chunk: Option<usize>,
    ) -> Result<Self, ModelError> {
        let tokens = tokens.max(1);
        let fitting = chunk.unwrap_or((CHUNK / padded(config).vocab_size).clamp(256, 4096));
        // Parts of lists begin at whole 16 bytes.
        let chunk = fitting.min(tokens).next_multiple_of(8);
        let lay = |layout: &mut Layout| Parts::lay(layout, config, tokens, chunk);
        let (arena, parts) = Arena::new(on, "activations of a micro-batch", lay)?;
        Ok(Work { tokens, parts, arena })
    }
}

impl Trainer {
    /// Gradients (zero) and an arena for batches of `max_tokens` tokens; a larger batch gets a larger
    /// arena.
    ///
    /// # Errors
    /// Too little device memory; the message says how much is wanted.
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self, ModelError> {
        Self::with_chunk(model, max_tokens, None)
    }

    /// As [`Trainer::new`], with so many rows of logits at a time.
    pub fn with_chunk(model: &Model, max_tokens: usize, chunk: Option<usize>) -> Result<Self, ModelError> {
        let (config, on) = (model.config(), model.device());
        let shape = padded(config);
        let (arena, (gradients, head_sum)) = Arena::new(on, "gradients", |layout| {
            let gradients = Weights::build(&shape, |rows, cols| layout.take(BF16, rows, cols));
            (gradients, layout.take(F32, shape.vocab_size, config.hidden_size))
        })?;
        let mut trainer = Trainer {
            gradients,
            head_sum,
            arena,
            work: Some(Work::new(on, config, max_tokens, chunk)?),
            chunk,
            angles: Angles::new(config),
            values: None,
            positions: Vec::new(),
            rows: Vec::new(),
            logprobs: Vec::new(),
            entropies: Vec::new(),
            state_values: Vec::new(),
        };
        clear(model.on(), head_sum)?;
        trainer.zero_gradients(model)?;
        Ok(trainer)
    }

    /// Forward and backward of one micro-batch: *adds* to the gradients, leaves the log-probabilities
    /// and entropies of the tokens with a weight, and returns the loss sums.
    ///
    /// # Errors
    /// A batch that contradicts itself or the model, a device that fails. A loss that is not finite is
    /// no error here: the caller sees it in the sums and must not step.
    pub fn accumulate(
        &mut self,
        model: &Model,
        batch: &Batch<'_>,
        objective: &Objective,
    ) -> Result<StepSums, ModelError> {
        batch.check()?;
        check(model.config(), batch.tokens, batch.starts, &mut self.positions)?;
        batch.predicting(&self.positions, self.values.is_some(), &mut self.rows)?;
        let mut means = Vec::new();
        if objective.ratio == RatioLevel::Sequence {
            // The ratio of a sequence is known after its last token: one forward more.
            self.classify(model, batch, objective, None)?;
            means = batch.sequence_means(&self.logprobs);
        }
        self.classify(model, batch, objective, Some(&means))
    }

    /// Forward only: the log-probabilities and entropies of every token that has a predecessor, at
    /// `temperature`.
    pub fn score(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        temperature: f32,
    ) -> Result<(), ModelError> {
        check(model.config(), tokens, starts, &mut self.positions)?;
        self.rows.clear();
        let positions = &self.positions;
        self.rows.extend((0..tokens.len() as u32).filter(|&t| positions[t as usize] > 0).map(|t| t - 1));
        let batch = Batch { tokens, starts, ..Batch::default() };
        let objective = Objective { temperature, ..Objective::default() };
        self.classify(model, &batch, &objective, None).map(drop)
    }

    /// The forward, then the classifier chunk by chunk over `rows`; with `learn` (means of sequences),
    /// the backward.
    fn classify(
        &mut self,
        model: &Model,
        batch: &Batch<'_>,
        objective: &Objective,
        learn: Option<&[SequenceMeans]>,
    ) -> Result<StepSums, ModelError> {
        let n = batch.tokens.len();
        for per_token in [&mut self.logprobs, &mut self.entropies] {
            per_token.clear();
            per_token.resize(n, 0.0);
        }
        self.state_values.clear();
        self.state_values.resize(if self.values.is_some() { n } else { 0 }, 0.0);
        if self.rows.is_empty() {
            return Ok(StepSums::default());
        }
        let work = match self.work.take().filter(|work| work.tokens >= n) {
            Some(work) => work,
            None => Work::new(model.device(), model.config(), n, self.chunk)?,
        };
        let (on, p) = (model.on(), &self.work.insert(work).parts);
        let heads = model.config().heads();
        let longest = self.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let angles = self.angles.reserve(model.device(), longest)?;
        let lists = (batch.tokens, &self.positions[..], batch.starts);
        let packed = p.packed.fill(on, lists, learn.is_some())?;
        let inputs: Inputs = packed.inputs(angles);
        llama::forward(model, &p.activations, inputs, |_, v| packed.attend(on, v, heads), |_, _| Ok(()))?;

        let count = self.rows.len();
        let rows = put(on, p.rows, count, &self.rows)?;
        let targets: Vec<u32> = self.rows.iter().map(|&r| batch.tokens[r as usize + 1]).collect();
        let targets = put(on, p.targets, count, &targets)?;
        let (picked, dpicked) = (p.picked.top(count), p.dpicked.top(count));
        ops::gather(on, picked, p.activations.output(n), rows)?;
        let mut sums = StepSums::default();
        let valued = self.values.as_mut().map(|head| Valued { head, states: &mut self.state_values });
        let valued = match valued {
            Some(valued) => {
                let batch = learn.is_some().then_some(batch);
                valued.run(on, (picked, dpicked), &self.rows, (batch, objective, &mut sums))?;
                true
            }
            None => false,
        };
        if let Some(means) = learn {
            let terms = |&r: &u32| {
                let t = r as usize + 1;
                Token::from(Terms { sequence: means.get(t).copied(), ..batch.terms(t) })
            };
            let terms: Vec<Token> = self.rows.iter().map(terms).collect();
            put(on, p.terms, size_of::<Token>() / 4, &terms)?;
            clear(on, p.sums)?;
        }
        let chunk = p.logits.rows;
        for first in (0..count).step_by(chunk) {
            let now = chunk.min(count - first);
            let part = |m: Matrix| m.part(first * m.cols, now, m.cols);
            let list = |m: Matrix| m.part(first, 1, now);
            let (logits, states, stats) = (p.logits.top(now), part(picked), part(p.stats));
            model.classify(logits, states)?;
            let (vocabulary, temperature) = (model.config().vocab_size, objective.temperature);
            let targets = list(targets);
            ops::classifier_forward(on, stats, logits, targets, vocabulary, temperature)?;
            if learn.is_none() {
                continue;
            }
            let dlogp = p.dlogp.part(0, 1, now);
            let dz = (objective.z_loss != 0.0).then(|| p.dz.part(0, 1, now));
            ops::policy_loss(on, (dlogp, dz), (p.sums, p.partial), part(p.terms), stats, objective)?;
            let inputs = ClassifierInputs { rows: stats, dlogp, dz, targets };
            ops::classifier_backward(on, logits, inputs, vocabulary, temperature)?;
            on.product(Product::Weight, self.head_sum, (logits, states), true, None)?;
            on.product(Product::Input, part(dpicked), (logits, model.head()), valued, None)?;
        }
        if learn.is_some() {
            let dhead = self.gradients.head.unwrap_or(self.gradients.embedding);
            ops::classifier_fold(on, dhead, self.head_sum)?;
            let mut inverse = vec![u32::MAX; n];
            self.rows.iter().enumerate().for_each(|(i, &row)| inverse[row as usize] = i as u32);
            let inverse = put(on, p.inverse, n, &inverse)?;
            let dnormed = p.dnormed.top(n);
            ops::gather(on, dnormed, dpicked, inverse)?;
            let (a, d) = (&p.activations, &p.backward);
            llama::backward(model, &self.gradients, a, d, dnormed, &packed, angles)?;
            add(&mut sums, &read::<f64>(on, p.sums)?);
        }
        let stats: Vec<f32> = read(on, p.stats.top(count))?;
        for (&row, stats) in self.rows.iter().zip(stats.chunks_exact(3)) {
            self.logprobs[row as usize + 1] = stats[0];
            self.entropies[row as usize + 1] = stats[1];
        }
        Ok(sums)
    }

    /// Trains `head` along with the model from now on, where batches weigh values. It is computed on the
    /// CPU: one product of a vector a token.
    pub fn set_value_head(&mut self, head: ValueHead) {
        self.values = Some(head);
    }

    pub fn value_head(&self) -> Option<&ValueHead> {
        self.values.as_ref()
    }

    pub fn value_head_mut(&mut self) -> Option<&mut ValueHead> {
        self.values.as_mut()
    }

    /// Value of the state that each token of the last batch was drawn in, `[T]`; empty without a head.
    pub fn values(&self) -> &[f32] {
        &self.state_values
    }

    /// Log-probability in nats of each token of the last batch, `[T]`; 0 where none was computed.
    pub fn logprobs(&self) -> &[f32] {
        &self.logprobs
    }

    /// Entropy in nats of the distribution that each token was drawn from, `[T]`; 0 likewise.
    pub fn entropies(&self) -> &[f32] {
        &self.entropies
    }

    /// Bytes of device memory: gradients, and what a micro-batch takes.
    pub fn bytes(&self) -> (usize, usize) {
        (self.arena.bytes(), self.work.as_ref().map_or(0, |work| work.arena.bytes()))
    }

    /// The gradient of one slot.
    pub fn gradient(&self, model: &Model, slot: &Slot) -> Result<Vec<f32>, ModelError> {
        Ok(Halves { on: model.on(), weights: &self.gradients }.values(slot)?.into_owned())
    }

    pub(super) fn gradients(&self) -> &Weights<Matrix> {
        &self.gradients
    }

    /// Sets all gradients to 0 (the optimizer's step does so itself).
    pub fn zero_gradients(&mut self, model: &Model) -> Result<(), ModelError> {
        for gradient in self.gradients.tensors() {
            clear(model.on(), *gradient)?;
        }
        Ok(())
    }
}

/// A value head at its work.
struct Valued<'v> {
    head: &'v mut ValueHead,
    /// `[T]`
    states: &'v mut [f32],
}

impl Valued<'_> {
    /// Values the `picked` states, and with a batch leaves their gradients in `dpicked`.
    fn run(
        self,
        on: &dyn Accelerator,
        (picked, dpicked): (Matrix, Matrix),
        rows: &[u32],
        (batch, objective, sums): (Option<&Batch<'_>>, &Objective, &mut StepSums),
    ) -> Done {
        let halves: Vec<u16> = read(on, picked)?;
        let floats: Vec<f32> = halves.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect();
        let states = Tensor::from_slice(Device::Cpu, picked.rows, picked.cols, &floats);
        let mut values = Vec::new();
        self.head.forward(&mut values, &states);
        rows.iter().zip(&values).for_each(|(&r, &v)| self.states[r as usize + 1] = v);
        let Some(batch) = batch else { return Ok(()) };
        let mut dstates = Tensor::zeros(Device::Cpu, picked.rows, picked.cols);
        if let Some(p) = &batch.policy {
            let derivative = |(&row, &v): (&u32, &f32)| {
                let t = row as usize + 1;
                match batch.value_weight(t) {
                    0.0 => 0.0,
                    w => policy_loss::value(sums, w, p.value_old[t], p.value_target[t], v, objective),
                }
            };
            let dvalues: Vec<f32> = rows.iter().zip(&values).map(derivative).collect();
            self.head.backward(&mut dstates, &states, &dvalues);
        }
        let halves: Vec<u16> = dstates.f32().iter().map(|&x| bf16::from_f32(x).to_bits()).collect();
        write(on, dpicked, &halves)
    }
}

/// Adds what the kernel summed, in the order of `StepSums`.
fn add(sums: &mut StepSums, found: &[f64]) {
    let mut next = found.iter().copied();
    for sum in [
        &mut sums.loss,
        &mut sums.cross_entropy,
        &mut sums.policy,
        &mut sums.kl,
        &mut sums.cross_entropy_tokens,
        &mut sums.policy_tokens,
        &mut sums.kl_tokens,
        &mut sums.tokens,
        &mut sums.entropy_sum,
        &mut sums.logprob_sum,
        &mut sums.clipped_low,
        &mut sums.clipped_high,
        &mut sums.ratio_sum,
        &mut sums.approx_kl_sum,
        &mut sums.abs_delta_sum,
        &mut sums.importance_truncated,
        &mut sums.z_loss,
    ] {
        *sum += next.next().unwrap_or(f64::NAN);
    }
}
