//! One training step's forward and backward over a packed batch, gradients accumulated.

use cognate_kernels::policy_loss::{self, Objective, RatioLevel, SequenceMeans, StepSums, Terms};
use cognate_kernels::{Tensor, attention, classifier, gather, grad_norm, matmul};

use crate::llama::{self, Activations, Backward, Recompute};
use crate::packing::check;
use crate::{Gradients, Model, ModelError, ValueHead, Weights};

/// Packed documents and what their tokens weigh in the loss.
///
/// Every per-token slice is aligned with the token that is *predicted*: entry `t` speaks of
/// `log p(tokens[t] | the tokens of its document before t)`. Nothing predicts the first token of
/// a document, so its weights must be 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// Token ids of all documents, `[T]`.
    pub tokens: &'a [u32],
    /// `[0, len0, len0 + len1, …, T]`.
    pub starts: &'a [u32],
    /// Weight of each token's cross-entropy, `[T]`; empty: all 0.
    pub cross_entropy: &'a [f32],
    /// Policy gradient and KL terms.
    pub policy: Option<PolicyTerms<'a>>,
}

/// Reinforcement learning's per-token data, each `[T]`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PolicyTerms<'a> {
    /// Weight of the policy term: 1 on generated tokens, as a rule; 0 elsewhere.
    pub weight: &'a [f32],
    pub advantage: &'a [f32],
    /// Log-probabilities under the sampler; empty: unknown, no importance correction.
    pub sampler: &'a [f32],
    /// Log-probabilities under the policy before the inner epochs; empty: the present policy, so
    /// that every ratio is exactly 1.
    pub old: &'a [f32],
    /// Weight of the KL term; empty: all 0.
    pub kl_weight: &'a [f32],
    /// Log-probabilities under the reference policy; needed where `kl_weight` is not 0.
    pub reference: &'a [f32],
    /// Weight of the value term, on the head of [`Trainer::set_value_head`]; empty: all 0.
    pub value_weight: &'a [f32],
    /// Values before the inner epochs, and the returns they should have had.
    pub value_old: &'a [f32],
    pub value_target: &'a [f32],
}

impl Batch<'_> {
    /// The terms of token `t`.
    pub(crate) fn terms(&self, t: usize) -> Terms {
        let pick = |slice: &[f32]| slice.get(t).copied();
        let mut terms = Terms { cross_entropy: pick(self.cross_entropy).unwrap_or(0.0), ..Terms::default() };
        if let Some(p) = &self.policy {
            terms.policy = pick(p.weight).unwrap_or(0.0);
            terms.advantage = pick(p.advantage).unwrap_or(0.0);
            terms.sampler = pick(p.sampler);
            terms.old = pick(p.old);
            terms.kl = pick(p.kl_weight).unwrap_or(0.0);
            terms.reference = pick(p.reference).unwrap_or(0.0);
        }
        terms
    }

    /// Weight of the value term of token `t`.
    pub(crate) fn value_weight(&self, t: usize) -> f32 {
        self.policy.and_then(|p| p.value_weight.get(t).copied()).unwrap_or(0.0)
    }

    /// What [`RatioLevel::Sequence`] puts in the place of each token's own ratio, `[T]`, from the
    /// present log-probabilities; empty where there is nothing to compare them with.
    pub(crate) fn sequence_means(&self, logprobs: &[f32]) -> Vec<SequenceMeans> {
        let Some(p) = &self.policy else { return Vec::new() };
        let mut means = vec![SequenceMeans::default(); self.tokens.len()];
        for span in self.starts.windows(2) {
            let span = span[0] as usize..span[1] as usize;
            let (mut ratio, mut importance, mut n) = (0.0, 0.0, 0.0);
            for t in span.clone().filter(|&t| p.weight.get(t).is_some_and(|w| *w != 0.0)) {
                let old = p.old.get(t).copied().unwrap_or(logprobs[t]);
                ratio += f64::from(logprobs[t]) - f64::from(old);
                importance += p.sampler.get(t).map_or(0.0, |s| f64::from(old) - f64::from(*s));
                n += 1.0;
            }
            if n > 0.0 {
                means[span].fill(SequenceMeans { log_ratio: ratio / n, log_importance: importance / n });
            }
        }
        means
    }

    /// Fills `rows` with the rows that predict a token of some weight, ascending.
    pub(crate) fn predicting(
        &self,
        positions: &[u32],
        values: bool,
        rows: &mut Vec<u32>,
    ) -> Result<(), ModelError> {
        rows.clear();
        for (t, &position) in positions.iter().enumerate() {
            let terms = self.terms(t);
            let weights = [terms.cross_entropy, terms.policy, terms.kl, self.value_weight(t)];
            if weights == [0.0; 4] {
                continue;
            }
            if position == 0 {
                let reason = format!("token {t} opens a document and has a weight, but nothing predicts it");
                return Err(ModelError::Batch(reason));
            }
            if weights[3] != 0.0 && !values {
                return Err(ModelError::Batch(format!("the value of token {t} has a weight, but no head")));
            }
            rows.push(t as u32 - 1);
        }
        Ok(())
    }

    pub(crate) fn check(&self) -> Result<(), ModelError> {
        let n = self.tokens.len();
        let length = |name: &str, slice: &[f32], optional: bool| {
            if slice.len() == n || (optional && slice.is_empty()) {
                return Ok(());
            }
            Err(ModelError::Batch(format!("{name} has {} entries for {n} tokens", slice.len())))
        };
        length("cross_entropy", self.cross_entropy, true)?;
        if let Some(p) = &self.policy {
            length("policy weight", p.weight, p.advantage.is_empty())?;
            length("advantage", p.advantage, p.weight.is_empty())?;
            length("sampler logprobs", p.sampler, true)?;
            length("old logprobs", p.old, true)?;
            length("kl weight", p.kl_weight, true)?;
            length("reference logprobs", p.reference, p.kl_weight.is_empty())?;
            length("value weight", p.value_weight, true)?;
            length("old values", p.value_old, p.value_weight.is_empty())?;
            length("value targets", p.value_target, p.value_weight.is_empty())?;
        }
        Ok(())
    }
}

/// Gradients, and the arena in which a step is computed; reused from step to step.
pub struct Trainer {
    gradients: Gradients,
    values: Option<ValueHead>,
    work: Work,
}

/// Everything but the gradients.
struct Work {
    activations: Activations,
    backward: Backward,
    positions: Vec<u32>,
    /// Predicting rows and what they predict: row `rows[i]` predicts `targets[i]`, token
    /// `rows[i] + 1`.
    rows: Vec<u32>,
    targets: Vec<u32>,
    /// `[R, C]`, `[chunk, C]`, `[chunk, V]`
    picked: Tensor,
    dpicked: Tensor,
    dnormed: Tensor,
    chunk: Tensor,
    dchunk: Tensor,
    logits: Tensor,
    stats: Vec<classifier::Row>,
    dlogp: Vec<f32>,
    /// Target logits, then derivatives by log Z, of a chunk; empty without z-loss.
    z: Vec<f32>,
    logprobs: Vec<f32>,
    entropies: Vec<f32>,
    /// Values `[T]` and those of the rows `[R]`, with their gradient; empty without a head.
    values: Vec<f32>,
    row_values: Vec<f32>,
    dvalues: Vec<f32>,
    /// `[T]` with [`RatioLevel::Sequence`], else empty.
    means: Vec<SequenceMeans>,
    partial: Vec<f64>,
}

/// Rows of a chunk of logits: 2 MiB of them stay in the second-level cache, but below 512 rows the
/// products suffer; 64 MiB at most.
pub(crate) fn chunk_rows(vocabulary: usize) -> usize {
    ((1 << 19) / vocabulary).max(512).min(((1 << 24) / vocabulary).max(16))
}

impl Trainer {
    /// Gradients (zero) and an arena for batches of `max_tokens` tokens; it grows when a batch is
    /// larger.
    pub fn new(model: &Model, max_tokens: usize) -> Self {
        Self::with(model, max_tokens, Recompute::None)
    }

    /// As [`Trainer::new`], keeping less for the backward where `recompute` says so.
    pub fn with(model: &Model, max_tokens: usize, recompute: Recompute) -> Self {
        let (config, device) = (&model.config, model.device);
        let c = config.hidden_size;
        let zeros = |rows, cols| Tensor::zeros(device, rows, cols);
        let chunk = chunk_rows(config.vocab_size).min(max_tokens);
        Trainer {
            gradients: Weights::zeros(config, device),
            values: None,
            work: Work {
                activations: Activations::new(config, device, max_tokens, Some(recompute)),
                backward: Backward::new(config, device, max_tokens),
                positions: Vec::with_capacity(max_tokens),
                rows: Vec::with_capacity(max_tokens),
                targets: Vec::with_capacity(max_tokens),
                picked: zeros(max_tokens, c),
                dpicked: zeros(max_tokens, c),
                dnormed: zeros(max_tokens, c),
                chunk: zeros(chunk, c),
                dchunk: zeros(chunk, c),
                logits: zeros(chunk, config.vocab_size),
                stats: Vec::new(),
                dlogp: Vec::new(),
                z: Vec::new(),
                logprobs: Vec::with_capacity(max_tokens),
                entropies: Vec::with_capacity(max_tokens),
                values: Vec::new(),
                row_values: Vec::new(),
                dvalues: Vec::new(),
                means: Vec::new(),
                partial: Vec::new(),
            },
        }
    }

    /// Forward and backward of one micro-batch: *adds* to the gradients, leaves the
    /// log-probabilities and entropies of the tokens with a weight, and returns the loss sums.
    ///
    /// Logits are computed for the positions that predict a weighted token only.
    ///
    /// # Errors
    /// A batch that contradicts itself or the model. A loss that is not finite is no error here:
    /// the caller sees it in the sums and must not step.
    pub fn accumulate(
        &mut self,
        model: &Model,
        batch: &Batch<'_>,
        objective: &Objective,
    ) -> Result<StepSums, ModelError> {
        batch.check()?;
        let work = &mut self.work;
        check(&model.config, batch.tokens, batch.starts, &mut work.positions)?;
        batch.predicting(&work.positions, self.values.is_some(), &mut work.rows)?;
        let mut sums = StepSums::default();
        work.means.clear();
        if objective.ratio == RatioLevel::Sequence {
            // The ratio of a sequence is known after its last token: one forward more.
            work.classify(model, batch, objective, None, None);
            work.means = batch.sequence_means(&work.logprobs);
        }
        let values = self.values.as_mut();
        work.classify(model, batch, objective, values, Some((&mut self.gradients, &mut sums)));
        if !work.rows.is_empty() {
            work.backward(model, batch, &mut self.gradients);
        }
        Ok(sums)
    }

    /// Forward only: the log-probabilities and entropies of every token that has a predecessor, at
    /// `temperature`; for old and reference policies and for evaluation.
    pub fn score(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        temperature: f32,
    ) -> Result<(), ModelError> {
        let work = &mut self.work;
        check(&model.config, tokens, starts, &mut work.positions)?;
        work.rows.clear();
        work.rows.extend((0..tokens.len() as u32).filter(|&t| work.positions[t as usize] > 0).map(|t| t - 1));
        let batch = Batch { tokens, starts, ..Batch::default() };
        let objective = Objective { temperature, ..Objective::default() };
        work.means.clear();
        work.classify(model, &batch, &objective, self.values.as_mut(), None);
        Ok(())
    }

    /// Trains `head` along with the model from now on, where batches weigh values.
    pub fn set_value_head(&mut self, head: ValueHead) {
        self.values = Some(head);
    }

    pub fn value_head(&self) -> Option<&ValueHead> {
        self.values.as_ref()
    }

    pub fn value_head_mut(&mut self) -> Option<&mut ValueHead> {
        self.values.as_mut()
    }

    /// Value of the state that each token of the last batch was drawn in, `[T]`; 0 likewise, and
    /// empty without a head.
    pub fn values(&self) -> &[f32] {
        &self.work.values
    }

    /// Log-probability in nats of each token of the last batch, `[T]`; 0 where none was computed.
    pub fn logprobs(&self) -> &[f32] {
        &self.work.logprobs
    }

    /// Entropy in nats of the distribution that each token was drawn from, `[T]`; 0 likewise.
    pub fn entropies(&self) -> &[f32] {
        &self.work.entropies
    }

    /// Bytes of the values kept from the forward for the backward, at the largest batch so far.
    pub fn activation_bytes(&mut self) -> usize {
        self.work.activations.bytes()
    }

    pub fn gradients(&self) -> &Gradients {
        &self.gradients
    }

    pub fn gradients_mut(&mut self) -> &mut Gradients {
        &mut self.gradients
    }

    /// Sets all gradients to 0 (the optimizer's step does so itself).
    pub fn zero_gradients(&mut self) {
        self.gradients.zero();
    }

    /// Euclidean norm of all gradients together.
    pub fn gradient_norm(&mut self) -> f64 {
        grad_norm::forward(self.gradients.tensors().into_iter(), &mut self.work.partial)
    }
}

impl Work {
    /// The forward, then the classifier chunk by chunk over `rows`; with `learn`, gradients of the
    /// head and of the rows' normed states (left in `dpicked`).
    fn classify(
        &mut self,
        model: &Model,
        batch: &Batch<'_>,
        objective: &Objective,
        mut value_head: Option<&mut ValueHead>,
        mut learn: Option<(&mut Gradients, &mut StepSums)>,
    ) {
        let heads = model.config.heads();
        let n = batch.tokens.len();
        for per_token in [&mut self.logprobs, &mut self.entropies] {
            per_token.clear();
            per_token.resize(n, 0.0);
        }
        self.values.clear();
        self.values.resize(if value_head.is_some() { n } else { 0 }, 0.0);
        if self.rows.is_empty() {
            return;
        }
        llama::forward(
            model,
            &mut self.activations,
            batch.tokens,
            &self.positions,
            |_, v| attention::forward(&mut v.attention, &mut v.lse, &v.qkv, batch.starts, heads),
            |_, _| {},
        );
        let (count, vocabulary, c) = (self.rows.len(), model.config.vocab_size, model.config.hidden_size);
        self.picked.set_rows(count);
        gather::forward(&mut self.picked, &self.activations.normed, &self.rows);
        self.dpicked.set_rows(count);
        self.targets.clear();
        self.targets.extend(self.rows.iter().map(|&r| batch.tokens[r as usize + 1]));
        let head = model.weights.head.as_ref().unwrap_or(&model.weights.embedding);
        let chunk = chunk_rows(vocabulary);
        let mut first = 0;
        while first < count {
            let span = first..count.min(first + chunk);
            let targets = &self.targets[span.clone()];
            self.chunk.set_rows(span.len());
            self.chunk.f32_mut().copy_from_slice(&self.picked.f32()[span.start * c..span.end * c]);
            self.logits.set_rows(span.len());
            matmul::forward(&mut self.logits, &self.chunk, head);
            self.stats.resize(span.len(), [0.0; 3]);
            self.z.clear();
            if objective.z_loss != 0.0 && learn.is_some() {
                let logits = self.logits.f32().chunks_exact(vocabulary).zip(targets);
                self.z.extend(logits.map(|(row, &t)| row[t as usize] / objective.temperature));
            }
            classifier::forward(&mut self.logits, &mut self.stats, targets, objective.temperature);
            self.dlogp.clear();
            for (&row, &[logprob, entropy, _]) in self.rows[span.clone()].iter().zip(&self.stats) {
                let t = row as usize + 1;
                self.logprobs[t] = logprob;
                self.entropies[t] = entropy;
                if let Some((_, sums)) = &mut learn {
                    let sequence = self.means.get(t).copied();
                    let terms = Terms { sequence, ..batch.terms(t) };
                    let mut dlogp = policy_loss::forward(sums, &terms, logprob, entropy, objective);
                    if let Some(z) = self.z.get_mut(self.dlogp.len()) {
                        *z = policy_loss::z(sums, terms.cross_entropy, *z - logprob, objective);
                        dlogp -= *z;
                    }
                    self.dlogp.push(dlogp);
                }
            }
            if let Some((gradients, _)) = &mut learn {
                classifier::backward(
                    &mut self.logits,
                    &self.stats,
                    &self.dlogp,
                    targets,
                    objective.temperature,
                );
                // By a logit, log Z has the derivative p. The kernel gave -dz (1 - p) for it at the target and
                // dz p elsewhere; dz more at the target makes it dz p everywhere.
                let logits = self.logits.f32_mut().chunks_exact_mut(vocabulary).zip(targets);
                for ((row, &target), dz) in logits.zip(&self.z) {
                    row[target as usize] += dz / objective.temperature;
                }
                let dhead = gradients.head.as_mut().unwrap_or(&mut gradients.embedding);
                matmul::backward_weight(dhead, &self.logits, &self.chunk);
                self.dchunk.set_rows(span.len());
                matmul::backward_input(&mut self.dchunk, &self.logits, head);
                self.dpicked.f32_mut()[span.start * c..span.end * c].copy_from_slice(self.dchunk.f32());
            }
            first = span.end;
        }
        if let Some(head) = &mut value_head {
            head.forward(&mut self.row_values, &self.picked);
            self.rows.iter().zip(&self.row_values).for_each(|(&r, &v)| self.values[r as usize + 1] = v);
            if let (Some((_, sums)), Some(p)) = (&mut learn, &batch.policy) {
                self.dvalues.clear();
                for (&row, &v) in self.rows.iter().zip(&self.row_values) {
                    let t = row as usize + 1;
                    let weight = batch.value_weight(t);
                    self.dvalues.push(match weight {
                        0.0 => 0.0,
                        w => policy_loss::value(sums, w, p.value_old[t], p.value_target[t], v, objective),
                    });
                }
                head.backward(&mut self.dpicked, &self.picked, &self.dvalues);
            }
        }
    }

    fn backward(&mut self, model: &Model, batch: &Batch<'_>, gradients: &mut Gradients) {
        self.dnormed.set_rows(batch.tokens.len());
        gather::backward(&mut self.dnormed, &self.dpicked, &self.rows);
        llama::backward(
            model,
            gradients,
            &mut self.activations,
            &mut self.backward,
            &self.dnormed,
            batch.tokens,
            &self.positions,
            batch.starts,
        );
    }
}
