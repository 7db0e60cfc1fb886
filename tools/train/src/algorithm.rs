//! The algorithms of `rl`, as settings of one loss: how rewards become advantages, what the ratio is taken over,
//! what the sum is divided by, and where it is clipped. Each setting can be given by itself as well.
//!
//! | `--algorithm` | advantage | ratio | divided by | clip | equal groups | source |
//! |---|---|---|---|---|---|---|
//! | `dapo` | std | token | tokens | 0.2, 0.28 | dropped | Yu et al. 2025, eq. 8, 11 |
//! | `grpo` | std | token | sequences | 0.2, 0.2 | kept | Shao et al. 2024, eq. 3 |
//! | `dr-grpo` | mean | token | constant | 0.2, 0.2 | kept | Liu et al. 2025, section 3.1 |
//! | `gspo` | std | sequence | sequences | 3e-4, 4e-4 | kept | Zheng et al. 2025, eq. 5, 7 |
//! | `rloo` | leave-one-out | token | samples | 0.2, 0.2 | kept | Ahmadian et al. 2024, eq. 8 |
//! | `reinforce++` | batch | token | tokens | 0.2, 0.2 | kept | Hu 2025, eq. 6–8 |
//! | `ppo` | gae | token | tokens | 0.2, 0.2 | kept | Schulman et al. 2017, eq. 7, 11; Schulman et al. 2016, eq. 16 |
//!
//! None has a KL term unless `--kl` gives it a coefficient.

use serde_json::{Map, Value, json};

use crate::cli::{
    AdvantageRule, Algorithm, EqualGroups, Kl, KlPlace, Normalisation, Ratio, Reinforce, Truncated,
};
use cognate_model::{KlEstimator, Objective, RatioLevel};

/// Every choice that turns rewards into a loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    pub advantage: AdvantageRule,
    /// The eps of `std` and `batch`.
    pub eps: f64,
    pub ratio: Ratio,
    pub normalise: Normalisation,
    pub truncated: Truncated,
    pub equal_groups: EqualGroups,
    pub clip_low: f32,
    pub clip_high: f32,
    /// Cap of the importance weight; 0 for no correction.
    pub importance_cap: f32,
    /// Coefficient of the KL term; 0 for none.
    pub kl: f32,
    pub kl_place: KlPlace,
    pub kl_estimator: Kl,
    /// DAPO's soft penalty of long answers: over how many last tokens it rises, and how far.
    pub overlong_buffer: u32,
    pub overlong_penalty: f64,
    /// Groups trained on at most, where more are asked for; 0 for all.
    pub most_groups: usize,
    pub gamma: f64,
    pub lambda: f64,
    pub value_coefficient: f32,
    pub value_clip: f32,
}

impl Recipe {
    /// The algorithm's settings, and in their place those that were given.
    ///
    /// # Errors
    /// Settings that contradict each other (exit code 2).
    pub fn of(flags: &Reinforce) -> anyhow::Result<Self> {
        use Algorithm::{Dapo, DrGrpo, Gspo, Ppo, ReinforcePlusPlus, Rloo};
        let name = flags.algorithm;
        let kl_place = flags.kl_in.unwrap_or(match name {
            Rloo | ReinforcePlusPlus | Ppo => KlPlace::Reward,
            _ => KlPlace::Loss,
        });
        let clip = match name {
            Dapo => (0.2, 0.28),
            Gspo => (3e-4, 4e-4),
            _ => (0.2, 0.2),
        };
        let recipe = Self {
            advantage: flags.advantage.unwrap_or(match name {
                DrGrpo => AdvantageRule::Mean,
                Rloo => AdvantageRule::LeaveOneOut,
                ReinforcePlusPlus => AdvantageRule::Batch,
                Ppo => AdvantageRule::Gae,
                _ => AdvantageRule::Std,
            }),
            eps: flags.advantage_eps,
            ratio: flags.ratio.unwrap_or(if name == Gspo { Ratio::Sequence } else { Ratio::Token }),
            normalise: flags.normalise.unwrap_or(match name {
                Dapo | ReinforcePlusPlus | Ppo => Normalisation::Tokens,
                DrGrpo => Normalisation::Constant,
                Rloo => Normalisation::Samples,
                _ => Normalisation::Sequences,
            }),
            truncated: flags.truncated,
            equal_groups: flags.equal_groups.unwrap_or(match name {
                Dapo => EqualGroups::Drop,
                _ => EqualGroups::Keep,
            }),
            clip_low: flags.clip_low.unwrap_or(clip.0),
            clip_high: flags.clip_high.unwrap_or(clip.1),
            importance_cap: flags.importance_cap,
            kl: flags.kl,
            kl_place,
            kl_estimator: flags.kl_estimator.unwrap_or(match kl_place {
                KlPlace::Loss => Kl::K3,
                KlPlace::Reward => Kl::K1,
            }),
            overlong_buffer: flags.overlong_buffer,
            overlong_penalty: flags.overlong_penalty,
            most_groups: flags.sample_groups.map_or(0, |_| flags.groups as usize),
            gamma: flags.gamma,
            lambda: flags.gae_lambda,
            value_coefficient: flags.value_coefficient,
            value_clip: flags.value_clip,
        };
        if recipe.kl_in_reward() && recipe.truncated == Truncated::Mask && !recipe.over_tokens() {
            let reason =
                "--kl-in reward needs every answer's tokens for its group's mean: not with --truncated mask";
            return Err(cognate_cli::usage(reason));
        }
        if flags.sample_groups.is_some_and(|asked| asked < flags.groups) {
            return Err(cognate_cli::usage("--sample-groups: fewer than --groups"));
        }
        Ok(recipe)
    }

    /// Whether advantages are token by token, over the whole batch, rather than one a group's sample.
    pub fn over_tokens(&self) -> bool {
        matches!(self.advantage, AdvantageRule::Batch | AdvantageRule::Gae)
    }

    pub fn values(&self) -> bool {
        self.advantage == AdvantageRule::Gae
    }

    pub fn kl_in_reward(&self) -> bool {
        self.kl > 0.0 && self.kl_place == KlPlace::Reward
    }

    pub fn kl_in_loss(&self) -> bool {
        self.kl > 0.0 && self.kl_place == KlPlace::Loss
    }

    pub fn estimator(&self) -> KlEstimator {
        match self.kl_estimator {
            Kl::K1 => KlEstimator::K1,
            Kl::K2 => KlEstimator::K2,
            Kl::K3 => KlEstimator::K3,
        }
    }

    /// The loss over rows whose divisors these are: of policy and KL term, and their answers' tokens.
    pub fn objective(&self, policy_count: f64, tokens: usize, temperature: f32) -> Objective {
        Objective {
            policy_count: policy_count.max(1.0),
            kl_count: policy_count.max(1.0),
            value_count: tokens.max(1) as f64,
            clip_low: self.clip_low,
            clip_high: self.clip_high,
            importance_cap: (self.importance_cap > 0.0).then_some(self.importance_cap),
            kl: self.estimator(),
            ratio: match self.ratio {
                Ratio::Token => RatioLevel::Token,
                Ratio::Sequence => RatioLevel::Sequence,
            },
            value_clip: (self.value_clip > 0.0).then_some(self.value_clip),
            temperature,
            ..Objective::default()
        }
    }

    /// What of it decides the result of a run.
    pub fn identity(&self) -> Map<String, Value> {
        let mut fields = json!({
            "advantage": self.advantage, "advantage-eps": self.eps, "normalise": self.normalise,
            "truncated": self.truncated, "clip-low": self.clip_low, "clip-high": self.clip_high,
            "importance-cap": self.importance_cap, "kl": self.kl, "kl-estimator": self.kl_estimator,
            "ratio": self.ratio, "equal-groups": self.equal_groups, "kl-in": self.kl_place,
            "overlong-buffer": self.overlong_buffer, "overlong-penalty": self.overlong_penalty,
            "most-groups": self.most_groups, "gamma": self.gamma, "gae-lambda": self.lambda,
            "value-coefficient": self.value_coefficient, "value-clip": self.value_clip,
        });
        fields.as_object_mut().map(std::mem::take).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "algorithm_tests.rs"]
pub(crate) mod tests;
