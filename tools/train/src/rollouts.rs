//! From scored rollouts to the loss contract: groups, rewards, advantages and one row of token data per rollout.
//!
//! Token ids are the sampler's own, never the text tokenised again. A verdict IE is the judge's fault: such a rollout
//! is left out of its group altogether.

use anyhow::{Result, anyhow};
use cognate_model::LlamaConfig;
use cognate_random::Key;
use cognate_records::{Finish, Rollout, Status};

use crate::advantage::{advantages, deviation};
use crate::algorithm::Recipe;
use crate::cli::{EqualGroups, Normalisation, Truncated};
use crate::intake::StepBatch;
use crate::micro_batch::{Policy, Row};

/// A step's data, ready for the optimizer.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// Rows of each kept prompt.
    pub groups: Vec<Vec<Row>>,
    /// At which the rollouts were sampled.
    pub temperature: f32,
    /// Longest answer that was allowed, for the constant normalisation.
    pub longest: u32,
    pub report: Report,
}

/// What is said of a step's rollouts, kept or not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    pub rewards: Vec<f64>,
    pub prompts: usize,
    /// Prompts whose rewards were all equal, or that had fewer than two.
    pub equal: usize,
    /// Prompts that are not trained on: of the above, those the recipe drops; and those beyond its number of groups.
    pub dropped: usize,
    pub rollouts: usize,
    pub judge_errors: usize,
    pub truncated: usize,
    /// Sampled tokens of all rollouts.
    pub tokens: usize,
    /// Rollouts whose sampler log-probabilities are absent.
    pub without_logprobs: usize,
}

impl Report {
    pub fn reward_mean(&self) -> f64 {
        self.rewards.iter().sum::<f64>() / self.rewards.len().max(1) as f64
    }

    pub fn reward_deviation(&self) -> f64 {
        deviation(&self.rewards)
    }
}

/// Makes a step's rows.
///
/// # Errors
/// Naming the rollout (exit code 3) when it lacks what training needs, or does not fit the model.
pub fn prepare(batch: &StepBatch, recipe: &Recipe, config: &LlamaConfig, seed: u64) -> Result<Prepared> {
    let mut report = Report::default();
    let temperature = temperature(batch)?;
    let with_logprobs = batch.rollouts.iter().all(|r| sampler_logprobs(r, temperature).is_some());
    let mut groups = Vec::new();
    for group in batch.rollouts.chunk_by(|a, b| a.prompt == b.prompt) {
        let mut scored: Vec<(&Rollout, f64)> = Vec::new();
        report.prompts += 1;
        for r in group {
            check(r, config).map_err(|e| reject(batch.end.step, r, &e))?;
            report.rollouts += 1;
            report.tokens += r.ids.len();
            report.truncated += usize::from(r.finish == Some(Finish::Length));
            report.without_logprobs += usize::from(sampler_logprobs(r, temperature).is_none());
            match reward(r, recipe.truncated).map_err(|e| reject(batch.end.step, r, &e))? {
                Some(reward) => scored.push((r, reward)),
                None => report.judge_errors += 1,
            }
        }
        let rewards: Vec<f64> = scored.iter().map(|s| s.1).collect();
        report.rewards.extend(&rewards);
        let informative = advantages(&rewards, recipe.advantage, recipe.eps);
        report.equal += usize::from(informative.is_none());
        // What is compared over the batch needs no other sample of the prompt.
        let few = rewards.is_empty() || (rewards.len() < 2 && !recipe.over_tokens());
        if few || (informative.is_none() && recipe.equal_groups == EqualGroups::Drop) {
            report.dropped += 1;
            continue;
        }
        for (r, reward) in &mut scored {
            *reward -= overlong(r, recipe).map_err(|e| reject(batch.end.step, r, &e))?;
        }
        let shaped: Vec<f64> = scored.iter().map(|s| s.1).collect();
        let relative = advantages(&shaped, recipe.advantage, recipe.eps);
        let rows: Vec<Row> = scored
            .iter()
            .zip(relative.unwrap_or_else(|| vec![0.0; shaped.len()]))
            .filter(|((r, _), _)| recipe.truncated != Truncated::Mask || r.finish != Some(Finish::Length))
            .map(|((r, reward), advantage)| {
                let mut row = row(r, advantage, recipe, with_logprobs.then_some(temperature));
                row.policy.reward = *reward;
                row
            })
            .collect();
        if rows.is_empty() {
            report.dropped += 1;
        } else {
            groups.push(rows);
        }
    }
    report.dropped += keep_some(&mut groups, recipe.most_groups, seed, batch.end.step);
    let allowed = batch.rollouts.iter().filter_map(|r| r.parameters.as_ref()).map(|p| p.max_tokens).max();
    let longest = match (recipe.normalise, allowed) {
        (Normalisation::Constant, None) => {
            let reason = "--normalise constant needs parameters.max_tokens, which no rollout states";
            return Err(cognate_cli::rejected(anyhow!("step {}: {reason}", batch.end.step)));
        }
        (_, allowed) => allowed.unwrap_or(0),
    };
    Ok(Prepared { groups, temperature, longest, report })
}

/// Keeps `most` groups (0: all), drawn from (seed, step), in their order; returns how many were left out.
fn keep_some(groups: &mut Vec<Vec<Row>>, most: usize, seed: u64, step: u64) -> usize {
    let surplus = if most == 0 { 0 } else { groups.len().saturating_sub(most) };
    if surplus > 0 {
        let mut order: Vec<usize> = (0..groups.len()).collect();
        Key::new(seed).with("train").with("groups").with(step).stream().shuffle(&mut order);
        order.truncate(most);
        order.sort_unstable();
        *groups = order.into_iter().map(|g| std::mem::take(&mut groups[g])).collect();
    }
    surplus
}

/// DAPO's soft penalty of an answer near its limit (Yu et al. 2025, eq. 13): nothing up to the buffer before the
/// limit, then rising to the whole penalty at the limit itself.
fn overlong(r: &Rollout, recipe: &Recipe) -> Result<f64, String> {
    if recipe.overlong_buffer == 0 {
        return Ok(0.0);
    }
    let limit = r.parameters.as_ref().map(|p| f64::from(p.max_tokens));
    let limit = limit.ok_or("--overlong-buffer needs parameters.max_tokens")?;
    let buffer = f64::from(recipe.overlong_buffer);
    let over = r.ids.len() as f64 - (limit - buffer);
    Ok(recipe.overlong_penalty * (over / buffer).clamp(0.0, 1.0))
}

/// Divisor of the policy loss over `rows`: their tokens, or their number, or their number times the longest answer.
pub fn policy_count<'a>(rows: impl Iterator<Item = &'a Row>, rule: Normalisation, longest: u32) -> f64 {
    let each = |row: &Row| match rule {
        Normalisation::Tokens => answer_tokens(row) as f64,
        Normalisation::Sequences | Normalisation::Samples => 1.0,
        Normalisation::Constant => f64::from(longest),
    };
    rows.map(each).sum()
}

/// Tokens of the answer, which is what the policy loss is on.
pub fn answer_tokens(row: &Row) -> usize {
    row.policy.weight.iter().filter(|w| **w != 0.0).count()
}

/// One sampling temperature for the whole step, since the policy that is trained is the one that was sampled from.
fn temperature(batch: &StepBatch) -> Result<f32> {
    let mut found = None;
    for r in &batch.rollouts {
        let t = r.parameters.as_ref().map_or(1.0, |p| p.temperature);
        if t <= 0.0 {
            return Err(reject(batch.end.step, r, "sampled greedily: there is nothing to learn from"));
        }
        match found {
            None => found = Some(t),
            Some(earlier) if earlier != t => {
                return Err(reject(batch.end.step, r, &format!("temperature {t}, but {earlier} before it")));
            }
            Some(_) => {}
        }
    }
    Ok(found.unwrap_or(1.0))
}

/// Log-probabilities of the sampled tokens under the distribution that they were drawn from.
fn sampler_logprobs(r: &Rollout, temperature: f32) -> Option<&[f32]> {
    if r.sampling_logprobs.len() == r.ids.len() {
        Some(&r.sampling_logprobs)
    } else if r.logprobs.len() == r.ids.len() && temperature == 1.0 && !is_cut(r) {
        Some(&r.logprobs)
    } else {
        None
    }
}

/// Whether top-k or top-p left out a part of the vocabulary.
fn is_cut(r: &Rollout) -> bool {
    let cut = |p: &cognate_records::SamplingParameters| {
        p.top_p.is_some_and(|x| x < 1.0) || p.top_k.is_some_and(|k| k > 0)
    };
    r.parameters.as_ref().is_some_and(cut)
}

fn check(r: &Rollout, config: &LlamaConfig) -> Result<(), String> {
    if r.ids.is_empty() {
        return Err("no token ids; text tokenised again need not be what was sampled".into());
    }
    if r.prompt_ids.is_empty() {
        return Err("no prompt_ids".into());
    }
    let mut ids = r.prompt_ids.iter().chain(&r.ids);
    if let Some(id) = ids.find(|id| **id as usize >= config.vocab_size) {
        return Err(format!("token id {id} is beyond the vocabulary of {}", config.vocab_size));
    }
    let length = r.prompt_ids.len() + r.ids.len();
    if length > config.max_position_embeddings {
        let context = config.max_position_embeddings;
        return Err(format!("{length} tokens are longer than the context of {context}"));
    }
    Ok(())
}

/// `None` where the judge failed.
fn reward(r: &Rollout, truncated: Truncated) -> Result<Option<f64>, String> {
    let verdict = r.verdict.as_ref().ok_or("no verdict; does cog-judge stand in the pipe?")?;
    if verdict.status == Status::IE {
        return Ok(None);
    }
    if truncated == Truncated::Zero && r.finish == Some(Finish::Length) {
        return Ok(Some(0.0));
    }
    let judged = verdict.reward.map_or(f64::from(u8::from(verdict.status == Status::AC)), f64::from);
    if judged.is_finite() { Ok(Some(judged)) } else { Err(format!("reward {judged}")) }
}

/// Prompt and answer as one document; the loss is on the answer.
fn row(r: &Rollout, advantage: f64, recipe: &Recipe, temperature: Option<f32>) -> Row {
    let (before, n) = (r.prompt_ids.len(), r.ids.len());
    let on_answer = |value: f32| -> Vec<f32> {
        std::iter::repeat_n(0.0, before).chain(std::iter::repeat_n(value, n)).collect()
    };
    let weight = match recipe.normalise {
        Normalisation::Tokens | Normalisation::Constant | Normalisation::Samples => 1.0,
        Normalisation::Sequences => 1.0 / n as f32,
    };
    let sampler = temperature.and_then(|t| sampler_logprobs(r, t)).unwrap_or_default();
    Row {
        id: format!("{}#{}", r.prompt, r.index),
        tokens: [r.prompt_ids.as_slice(), &r.ids].concat(),
        starts: vec![0],
        cross_entropy: Vec::new(),
        policy: Policy {
            weight: on_answer(weight),
            advantage: on_answer(advantage as f32),
            sampler: match sampler {
                [] => Vec::new(),
                found => std::iter::repeat_n(0.0, before).chain(found.iter().copied()).collect(),
            },
            kl_weight: if recipe.kl_in_loss() { on_answer(recipe.kl * weight) } else { Vec::new() },
            ..Policy::default()
        },
    }
}

fn reject(step: u64, r: &Rollout, reason: &str) -> anyhow::Error {
    cognate_cli::rejected(anyhow!("step {step}: rollout {}#{}: {reason}", r.prompt, r.index))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings of `dapo`, without the eps.
    fn recipe() -> Recipe {
        crate::algorithm::tests::recipe(&["--advantage-eps", "0"])
    }

    fn line(prompt: &str, index: u32, ids: &[u32], status: &str, finish: &str) -> String {
        let logprobs: Vec<f32> = ids.iter().map(|_| -0.5).collect();
        format!(
            r#"{{"prompt":"{prompt}","index":{index},"text":"","prompt_ids":[7,8],"ids":{ids:?},"logprobs":{logprobs:?},"finish":"{finish}","parameters":{{"temperature":1.0,"max_tokens":5,"seed":0}},"verdict":{{"status":"{status}","passed":0,"run":1,"total":1}}}}"#
        )
    }

    fn batch(lines: &[String]) -> StepBatch {
        let groups =
            lines.iter().map(|l| l.split('"').nth(3)).collect::<std::collections::BTreeSet<_>>().len();
        let end = format!(
            r#"{{"schema":"step_end/1","step":1,"version":0,"groups":{groups},"rollouts":{}}}"#,
            lines.len()
        );
        crate::intake::tests::batch(&[lines, &[end]].concat().join("\n")).unwrap().unwrap()
    }

    fn prepared(lines: &[String], recipe: &Recipe) -> Prepared {
        prepare(&batch(lines), recipe, &LlamaConfig::default(), 0).unwrap()
    }

    fn mixed() -> Vec<String> {
        vec![
            line("a", 0, &[1, 2], "AC", "stop"),
            line("a", 1, &[3], "WA", "length"),
            line("a", 2, &[3, 4, 5], "IE", "stop"),
            line("b", 0, &[1], "WA", "stop"),
            line("b", 1, &[2], "WA", "stop"),
        ]
    }

    #[test]
    fn equal_groups_and_the_judges_faults_are_left_out() {
        let p = prepared(&mixed(), &recipe());
        assert_eq!(p.groups.len(), 1);
        let rows = &p.groups[0];
        assert_eq!(rows.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a#0", "a#1"]);
        assert_eq!(rows[0].tokens, [7, 8, 1, 2]);
        assert_eq!(rows[0].policy.weight, [0.0, 0.0, 1.0, 1.0]);
        assert_eq!(rows[0].policy.sampler, [0.0, 0.0, -0.5, -0.5]);
        // Rewards 1 and 0: mean 1/2, sample deviation 1/√2.
        let expected = 0.5_f32.sqrt();
        assert!((rows[0].policy.advantage[2] - expected).abs() < 1e-6);
        assert!((rows[1].policy.advantage[2] + expected).abs() < 1e-6);
        let r = &p.report;
        assert_eq!(
            (r.prompts, r.dropped, r.rollouts, r.judge_errors, r.truncated, r.tokens),
            (2, 1, 5, 1, 1, 8)
        );
        assert_eq!(r.rewards, [1.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn counts_follow_the_rule() {
        let rows = prepared(&mixed(), &recipe()).groups.concat();
        let count = |rule| policy_count(rows.iter(), rule, 5);
        assert_eq!(count(Normalisation::Tokens), 3.0);
        assert_eq!(count(Normalisation::Sequences), 2.0);
        assert_eq!(count(Normalisation::Constant), 10.0);
        let by_sequence =
            prepared(&mixed(), &Recipe { normalise: Normalisation::Sequences, ..recipe() }).groups.concat();
        assert_eq!(by_sequence[0].policy.weight, [0.0, 0.0, 0.5, 0.5]);
    }

    #[test]
    fn answers_cut_off_are_kept_zeroed_or_masked() {
        let lines = [line("a", 0, &[1], "AC", "length"), line("a", 1, &[2], "WA", "stop")];
        assert_eq!(prepared(&lines, &recipe()).report.rewards, [1.0, 0.0]);
        let zeroed = prepared(&lines, &Recipe { truncated: Truncated::Zero, ..recipe() });
        assert_eq!((zeroed.report.rewards.as_slice(), zeroed.groups.len()), (&[0.0, 0.0][..], 0));
        let masked = prepared(&lines, &Recipe { truncated: Truncated::Mask, ..recipe() });
        assert_eq!(masked.groups[0].len(), 1);
        assert!(masked.groups[0][0].policy.advantage[2] < 0.0);
    }

    #[test]
    fn what_cannot_be_trained_on_is_refused() {
        let good = line("a", 0, &[1, 2], "AC", "stop");
        let other = line("a", 1, &[1, 2], "WA", "stop");
        let refused = |bad: String| {
            let result = prepare(&batch(&[bad, other.clone()]), &recipe(), &LlamaConfig::default(), 0);
            result.unwrap_err().to_string()
        };
        for (bad, reason) in [
            (good.replace("\"prompt_ids\":[7,8],", ""), "no prompt_ids"),
            (good.replace("\"ids\":[1, 2],\"logprobs\":[-0.5, -0.5],", ""), "no token ids"),
            (good.replace("[7,8]", "[7,99999]"), "99999 is beyond the vocabulary"),
            (good.replace("\"temperature\":1.0", "\"temperature\":0.5"), "temperature"),
            (good.replace("\"temperature\":1.0", "\"temperature\":0.0"), "greedily"),
            (good[..good.find(",\"verdict\"").unwrap()].to_owned() + "}", "no verdict"),
        ] {
            let text = refused(bad);
            assert!(text.contains(reason), "{text}");
        }
    }
}
