//! The loss contract: cross-entropy, clipped policy gradient, KL penalty and value loss from
//! per-token data, each divided by its own GLOBAL count, so that accumulation over micro-batches
//! is exact.
//!
//! SFT masks, GRPO (Shao et al. 2024), DAPO's asymmetric clip (Yu et al. 2025), Dr.GRPO (Liu et
//! al. 2025), RLOO (Ahmadian et al. 2024) and REINFORCE++ (Hu 2025) are then data: weights,
//! advantages and counts. GSPO (Zheng et al. 2025) needs one reduction a sequence
//! ([`SequenceMeans`]), PPO (Schulman et al. 2017) a value head ([`value`]).

/// Schulman's estimators of `KL(π ‖ ref)` from `Δ = log ref − log π` of a sampled token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum KlEstimator {
    /// `−Δ`: unbiased as a value, of high variance.
    K1,
    /// `Δ²/2`: biased as a value; its gradient is that of the KL on policy.
    K2,
    /// `e^Δ − Δ − 1`: unbiased, never negative; GRPO's choice.
    #[default]
    K3,
}

impl KlEstimator {
    /// The estimate, and its derivative by `log π`, from `Δ = log ref − log π`.
    pub fn value_and_slope(self, delta: f64) -> (f64, f64) {
        match self {
            KlEstimator::K1 => (-delta, 1.0),
            KlEstimator::K2 => (0.5 * delta * delta, -delta),
            KlEstimator::K3 => (delta.exp_m1() - delta, -delta.exp_m1()),
        }
    }
}

/// What the ratio of new to old policy is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RatioLevel {
    #[default]
    Token,
    /// GSPO (Zheng et al. 2025, eq. 7): the geometric mean over the sequence's policy tokens.
    Sequence,
}

/// How the terms of the loss are formed and divided.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Divisor of the cross-entropy term: tokens over all micro-batches and ranks of the step.
    pub cross_entropy_count: f64,
    /// Divisor of the policy term, likewise.
    pub policy_count: f64,
    /// Divisor of the KL term, likewise.
    pub kl_count: f64,
    /// The ratio is clipped to `[1 − clip_low, 1 + clip_high]`.
    pub clip_low: f32,
    pub clip_high: f32,
    /// Truncated importance sampling: the policy term is weighted by
    /// `min(π_old / π_sampler, cap)`, without gradient. `None`: no correction.
    pub importance_cap: Option<f32>,
    pub kl: KlEstimator,
    /// Logits are divided by it before the softmax: the sampler's temperature.
    pub temperature: f32,
    pub ratio: RatioLevel,
    /// Divisor of the value term: tokens over all micro-batches and ranks of the step.
    pub value_count: f64,
    /// A value counts as moved from its old one by at most this (PPO's value clip).
    pub value_clip: Option<f32>,
    /// Coefficient of `log² Z` a token, weighted and divided as its cross-entropy (Chowdhery et
    /// al. 2022, "PaLM", section 5); 0: none.
    pub z_loss: f32,
}

impl Default for Objective {
    fn default() -> Self {
        Objective {
            cross_entropy_count: 1.0,
            policy_count: 1.0,
            kl_count: 1.0,
            clip_low: 0.2,
            clip_high: 0.2,
            importance_cap: None,
            kl: KlEstimator::K3,
            temperature: 1.0,
            ratio: RatioLevel::Token,
            value_count: 1.0,
            value_clip: None,
            z_loss: 0.0,
        }
    }
}

/// What one token carries. Log-probabilities are of the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Terms {
    pub cross_entropy: f32,
    pub policy: f32,
    pub kl: f32,
    pub advantage: f32,
    /// Under the sampler that drew the token.
    pub sampler: Option<f32>,
    /// Under the policy before the inner epochs; `None`: the present one (ratio exactly 1).
    pub old: Option<f32>,
    /// Under the reference policy; needed where `kl` is not 0.
    pub reference: f32,
    /// Takes the place of the token's own ratio and importance weight.
    pub sequence: Option<SequenceMeans>,
}

/// Means over a sequence's policy tokens, in nats.
///
/// A sequence's weights must be equal for the gradient to be that of its loss: each token then
/// carries `1/n` of it, and `d log_ratio / d logprob` is `1/n`.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct SequenceMeans {
    /// Of `log π − log π_old`.
    pub log_ratio: f64,
    /// Of `log π_old − log π_sampler`; 0 where the sampler's are unknown.
    pub log_importance: f64,
}

/// Sums over tokens, to be added up over micro-batches. Loss terms are already divided by their
/// global counts; the others are plain sums and token counts.
#[derive(Clone, Copy, Debug, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct StepSums {
    /// `cross_entropy + policy + kl`.
    pub loss: f64,
    pub cross_entropy: f64,
    pub policy: f64,
    pub kl: f64,
    /// Tokens with a weight of that kind.
    pub cross_entropy_tokens: f64,
    pub policy_tokens: f64,
    pub kl_tokens: f64,
    /// Tokens with any weight, and the sums of their entropies and log-probabilities (nats).
    pub tokens: f64,
    pub entropy_sum: f64,
    pub logprob_sum: f64,
    /// Policy tokens whose gradient the lower (upper) clip stopped.
    pub clipped_low: f64,
    pub clipped_high: f64,
    /// Over policy tokens: `Σ π/π_old`, and `Σ k3` of old against present.
    pub ratio_sum: f64,
    pub approx_kl_sum: f64,
    /// Over policy tokens with a sampler log-probability: `Σ |log π_old − log π_sampler|`.
    pub abs_delta_sum: f64,
    /// Policy tokens whose importance weight was cut at the cap.
    pub importance_truncated: f64,
    /// `Σ` of the z-loss term, a part of `loss`.
    pub z_loss: f64,
    /// The value term, a part of `loss`; its tokens; those whose gradient the value clip stopped.
    pub value: f64,
    pub value_tokens: f64,
    pub value_clipped: f64,
}

impl StepSums {
    /// All of them, for whoever adds up several processes' sums.
    pub fn values_mut(&mut self) -> &mut [f64] {
        bytemuck::cast_slice_mut(std::slice::from_mut(self))
    }
}

impl std::ops::AddAssign for StepSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.cross_entropy += other.cross_entropy;
        self.policy += other.policy;
        self.kl += other.kl;
        self.cross_entropy_tokens += other.cross_entropy_tokens;
        self.policy_tokens += other.policy_tokens;
        self.kl_tokens += other.kl_tokens;
        self.tokens += other.tokens;
        self.entropy_sum += other.entropy_sum;
        self.logprob_sum += other.logprob_sum;
        self.clipped_low += other.clipped_low;
        self.clipped_high += other.clipped_high;
        self.ratio_sum += other.ratio_sum;
        self.approx_kl_sum += other.approx_kl_sum;
        self.abs_delta_sum += other.abs_delta_sum;
        self.importance_truncated += other.importance_truncated;
        self.z_loss += other.z_loss;
        self.value += other.value;
        self.value_tokens += other.value_tokens;
        self.value_clipped += other.value_clipped;
    }
}

/// Adds one token's terms to `sums` and returns the derivative of the loss by `logprob`.
///
/// With `r = π/π_old`, `c` the importance weight, `w` the token's policy weight and `A` its
/// advantage, the policy term is `−w c min(r A, clip(r, 1 − lo, 1 + hi) A) / count`
/// (Schulman et al. 2017, eq. 7).
pub fn forward(sums: &mut StepSums, terms: &Terms, logprob: f32, entropy: f32, objective: &Objective) -> f32 {
    if terms.cross_entropy == 0.0 && terms.policy == 0.0 && terms.kl == 0.0 {
        return 0.0;
    }
    let logp = f64::from(logprob);
    sums.tokens += 1.0;
    sums.entropy_sum += f64::from(entropy);
    sums.logprob_sum += logp;
    let mut derivative = 0.0;
    if terms.cross_entropy != 0.0 {
        let weight = f64::from(terms.cross_entropy) / objective.cross_entropy_count;
        let loss = -weight * logp;
        sums.cross_entropy_tokens += 1.0;
        sums.cross_entropy += loss;
        sums.loss += loss;
        derivative -= weight;
    }
    if terms.policy != 0.0 {
        derivative += policy(sums, terms, logp, objective);
    }
    if terms.kl != 0.0 {
        let weight = f64::from(terms.kl) / objective.kl_count;
        let delta = f64::from(terms.reference) - logp;
        let (value, slope) = objective.kl.value_and_slope(delta);
        sums.kl_tokens += 1.0;
        sums.kl += weight * value;
        sums.loss += weight * value;
        derivative += weight * slope;
    }
    derivative as f32
}

fn policy(sums: &mut StepSums, terms: &Terms, logp: f64, objective: &Objective) -> f64 {
    let old = terms.old.map_or(logp, f64::from);
    let log_ratio = terms.sequence.map_or(logp - old, |means| means.log_ratio);
    let (ratio, advantage) = (log_ratio.exp(), f64::from(terms.advantage));
    let mut weight = f64::from(terms.policy) / objective.policy_count;
    sums.policy_tokens += 1.0;
    if let Some(sampler) = terms.sampler {
        sums.abs_delta_sum += (old - f64::from(sampler)).abs();
        if let Some(cap) = objective.importance_cap {
            let log_importance =
                terms.sequence.map_or(old - f64::from(sampler), |means| means.log_importance);
            let importance = log_importance.exp();
            sums.importance_truncated += f64::from(u8::from(importance > f64::from(cap)));
            weight *= importance.min(f64::from(cap));
        }
    }
    let clipped = ratio.clamp(1.0 - f64::from(objective.clip_low), 1.0 + f64::from(objective.clip_high));
    let stopped = clipped * advantage < ratio * advantage;
    sums.clipped_low += f64::from(u8::from(stopped && ratio < clipped));
    sums.clipped_high += f64::from(u8::from(stopped && ratio > clipped));
    sums.ratio_sum += ratio;
    sums.approx_kl_sum += (logp - old).exp_m1() - (logp - old);
    let loss = -weight * (ratio * advantage).min(clipped * advantage);
    sums.policy += loss;
    sums.loss += loss;
    if stopped { 0.0 } else { -weight * ratio * advantage }
}

/// Adds one token's value term `w/2 max((v − R)², (v' − R)²) / count` to `sums` and returns its
/// derivative by `v`; `v'` is `v` kept within the clip around the old value `v_old` (the clipped
/// value loss of PPO's reference implementation; Huang et al. 2022, "The 37 implementation details
/// of PPO", detail 9). `target` is the return `R`.
pub fn value(sums: &mut StepSums, weight: f32, old: f32, target: f32, v: f32, objective: &Objective) -> f32 {
    let weight = f64::from(weight) / objective.value_count;
    let (v, old, target) = (f64::from(v), f64::from(old), f64::from(target));
    let reach = objective.value_clip.map_or(f64::INFINITY, f64::from);
    let kept = old + (v - old).clamp(-reach, reach);
    let (free, held) = ((v - target).powi(2), (kept - target).powi(2));
    let stopped = held > free;
    let loss = 0.5 * weight * free.max(held);
    sums.value += loss;
    sums.loss += loss;
    sums.value_tokens += 1.0;
    sums.value_clipped += f64::from(u8::from(stopped));
    if stopped { 0.0 } else { (weight * (v - target)) as f32 }
}

/// Adds one token's z-loss `w c z² / count` to `sums`, `z` being `log Z` of its logits and `w` its
/// cross-entropy weight, and returns the derivative by `z`.
pub fn z(sums: &mut StepSums, weight: f32, z: f32, objective: &Objective) -> f32 {
    let weight = f64::from(weight) * f64::from(objective.z_loss) / objective.cross_entropy_count;
    let z = f64::from(z);
    sums.z_loss += weight * z * z;
    sums.loss += weight * z * z;
    (2.0 * weight * z) as f32
}
