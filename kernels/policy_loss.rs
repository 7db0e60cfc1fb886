//! The loss contract: cross-entropy, clipped policy gradient and KL penalty from per-token data,
//! each divided by its own GLOBAL token count, so that accumulation over micro-batches is exact.
//!
//! SFT masks, GRPO (Shao et al. 2024), DAPO's asymmetric clip (Yu et al. 2025) and Dr.GRPO (Liu et
//! al. 2025) are then data: weights, advantages and counts.

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
}

/// Sums over tokens, to be added up over micro-batches. Loss terms are already divided by their
/// global counts; the others are plain sums and token counts.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
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
        let (value, slope) = match objective.kl {
            KlEstimator::K1 => (-delta, 1.0),
            KlEstimator::K2 => (0.5 * delta * delta, -delta),
            KlEstimator::K3 => (delta.exp_m1() - delta, -delta.exp_m1()),
        };
        sums.kl_tokens += 1.0;
        sums.kl += weight * value;
        sums.loss += weight * value;
        derivative += weight * slope;
    }
    derivative as f32
}

fn policy(sums: &mut StepSums, terms: &Terms, logp: f64, objective: &Objective) -> f64 {
    let old = terms.old.map_or(logp, f64::from);
    let (ratio, advantage) = ((logp - old).exp(), f64::from(terms.advantage));
    let mut weight = f64::from(terms.policy) / objective.policy_count;
    sums.policy_tokens += 1.0;
    if let Some(sampler) = terms.sampler {
        sums.abs_delta_sum += (old - f64::from(sampler)).abs();
        if let Some(cap) = objective.importance_cap {
            let importance = (old - f64::from(sampler)).exp();
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
