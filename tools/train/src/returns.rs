//! Advantages that need more than a group's rewards: token by token, from log-probabilities, a reference or values.
//!
//! - REINFORCE++ (Hu 2025, eq. 6–8): the return from each token on, less the KL so far to come, normalised over all
//!   tokens of the step.
//! - PPO: generalised advantage estimation (Schulman et al. 2016, eq. 16), normalised likewise; the value's target is
//!   the unnormalised advantage plus the value.
//! - A KL penalty in the reward of group-relative rules (RLOO; Ahmadian et al. 2024, eq. 1): the sequence's reward
//!   less its summed KL, before the group is compared.

use crate::advantage::advantages;
use crate::algorithm::Recipe;
use crate::cli::AdvantageRule;
use crate::micro_batch::Row;

/// Fills in what `prepare` left open. Rows carry their reward, and as the recipe needs them the policy's and the
/// reference's log-probabilities and the values.
pub fn estimate(groups: &mut [Vec<Row>], recipe: &Recipe) {
    if recipe.over_tokens() {
        for row in groups.iter_mut().flatten() {
            let rewards = token_rewards(row, recipe);
            match recipe.advantage {
                AdvantageRule::Gae => generalised(row, &rewards, recipe),
                _ => to_go(row, &rewards),
            }
        }
        whiten(groups, recipe.eps);
    } else if recipe.kl_in_reward() {
        for group in groups {
            let rewards: Vec<f64> = group.iter().map(|r| token_rewards(r, recipe).iter().sum()).collect();
            let found = advantages(&rewards, recipe.advantage, recipe.eps);
            for (row, a) in group.iter_mut().zip(found.unwrap_or_else(|| vec![0.0; rewards.len()])) {
                let p = &mut row.policy;
                p.advantage
                    .iter_mut()
                    .zip(&p.weight)
                    .for_each(|(to, w)| *to = if *w == 0.0 { 0.0 } else { a as f32 });
            }
        }
    }
}

/// Mean over all answers' tokens of what the recipe's estimator takes for the KL to the reference.
pub fn mean_kl(groups: &[Vec<Row>], recipe: &Recipe) -> f64 {
    let (mut sum, mut n) = (0.0, 0.0);
    for row in groups.iter().flatten() {
        for t in answer(row) {
            let delta = f64::from(row.policy.reference[t]) - f64::from(row.policy.old[t]);
            sum += recipe.estimator().value_and_slope(delta).0;
            n += 1.0;
        }
    }
    sum / f64::max(n, 1.0)
}

/// Places of the answer's tokens.
fn answer(row: &Row) -> Vec<usize> {
    (0..row.tokens.len()).filter(|&t| row.policy.weight[t] != 0.0).collect()
}

/// The reward of each of the answer's tokens: the judged one at the last, less the coefficient times the KL's
/// estimate at each.
fn token_rewards(row: &Row, recipe: &Recipe) -> Vec<f64> {
    let p = &row.policy;
    let mut rewards: Vec<f64> = answer(row)
        .into_iter()
        .map(|t| match recipe.kl_in_reward() {
            true => {
                let delta = f64::from(p.reference[t]) - f64::from(p.old[t]);
                -f64::from(recipe.kl) * recipe.estimator().value_and_slope(delta).0
            }
            false => 0.0,
        })
        .collect();
    if let Some(last) = rewards.last_mut() {
        *last += p.reward;
    }
    rewards
}

fn to_go(row: &mut Row, rewards: &[f64]) {
    let mut rest = 0.0;
    for (t, reward) in answer(row).into_iter().zip(rewards).rev() {
        rest += reward;
        row.policy.advantage[t] = rest as f32;
    }
}

/// The end of an answer, cut off or not, is worth nothing further.
fn generalised(row: &mut Row, rewards: &[f64], recipe: &Recipe) {
    let (mut next_value, mut advantage) = (0.0, 0.0);
    let p = &mut row.policy;
    p.value_target = vec![0.0; p.weight.len()];
    p.value_weight = vec![0.0; p.weight.len()];
    let places = (0..p.weight.len()).filter(|&t| p.weight[t] != 0.0).collect::<Vec<_>>();
    for (t, reward) in places.into_iter().zip(rewards).rev() {
        let value = f64::from(p.value_old[t]);
        let surprise = reward + recipe.gamma * next_value - value;
        advantage = surprise + recipe.gamma * recipe.lambda * advantage;
        next_value = value;
        p.advantage[t] = advantage as f32;
        p.value_target[t] = (advantage + value) as f32;
        p.value_weight[t] = recipe.value_coefficient;
    }
}

/// `(A - mean) / (deviation + eps)` over all answers' tokens of the step (the deviation of the whole, as in OpenRLHF).
fn whiten(groups: &mut [Vec<Row>], eps: f64) {
    let all = |f: &dyn Fn(f64) -> f64, groups: &[Vec<Row>]| {
        let (mut sum, mut n) = (0.0, 0.0);
        for row in groups.iter().flatten() {
            for t in answer(row) {
                sum += f(f64::from(row.policy.advantage[t]));
                n += 1.0;
            }
        }
        sum / f64::max(n, 1.0)
    };
    let mean = all(&|a| a, groups);
    let deviation = all(&|a| (a - mean).powi(2), groups).sqrt();
    for row in groups.iter_mut().flatten() {
        for t in answer(row) {
            let a = &mut row.policy.advantage[t];
            // All equal and no eps: nothing to learn, not 0/0.
            *a = match deviation + eps {
                0.0 => 0.0,
                scale => ((f64::from(*a) - mean) / scale) as f32,
            };
        }
    }
}
