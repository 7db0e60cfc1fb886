//! Each algorithm against its paper's equations: rewards and log-probabilities in, loss out, evaluated here in double
//! precision by other code; and the gradient against differences of that loss.

use super::*;
use crate::cli::{Cli, Command};
use crate::micro_batch::{Row, join};
use crate::returns::estimate;
use crate::rollouts::{answer_tokens, policy_count, prepare};
use clap::Parser;
use cognate_model::{LlamaConfig, Model, StepSums, Trainer, ValueHead};

/// The recipe of a command line.
pub(crate) fn recipe(flags: &[&str]) -> Recipe {
    try_recipe(flags).unwrap()
}

fn try_recipe(flags: &[&str]) -> anyhow::Result<Recipe> {
    let line = ["cog-train", "rl", "--model", "m", "--policy", "p", "--steps", "1", "-o", "o"];
    let cli = Cli::try_parse_from(line.iter().chain(flags))?;
    let Command::Rl(flags) = &cli.command else { panic!("rl") };
    Recipe::of(flags)
}

/// Longest answer allowed.
const LIMIT: usize = 9;
/// Prompt and reward of each rollout; the middle prompt's rewards are equal, and so are the last one's, at 1.
const REWARDS: [(&str, f64); 11] = [
    ("a", 1.0),
    ("a", 0.0),
    ("a", 0.25),
    ("b", 0.0),
    ("b", 0.0),
    ("c", 0.0),
    ("c", 1.0),
    ("c", 1.0),
    ("c", 0.0),
    ("d", 1.0),
    ("d", 1.0),
];

fn length(i: usize) -> usize {
    1 + (i * 5) % LIMIT
}

/// A policy that is trained, the one before its inner epochs, and the reference; near one another.
struct World {
    now: Model,
    old: Model,
    reference: Model,
    head: Vec<f32>,
}

impl World {
    fn new() -> Self {
        let config = LlamaConfig {
            vocab_size: 23,
            hidden_size: 16,
            intermediate_size: 24,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 8,
            initializer_range: 0.3,
            ..LlamaConfig::default()
        };
        let model = |nudge: f32| {
            let mut model = Model::init(&config, 5).unwrap();
            for (k, tensor) in model.weights_mut().tensors_mut().into_iter().enumerate() {
                let values = tensor.f32_mut().iter_mut().enumerate();
                values.for_each(|(i, x)| *x += nudge * ((i * (k + 3)) as f32 * 0.7 + nudge).sin());
            }
            model
        };
        let head = (0..17).map(|i| 0.2 * (i as f32 * 1.3).sin()).collect();
        World { now: model(0.05), old: model(0.0), reference: model(-0.07), head }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (i, (prompt, reward)) in REWARDS.iter().enumerate() {
            let ids: Vec<usize> = (0..length(i)).map(|t| (i * 7 + t * 5 + 2) % 23).collect();
            let sampled: Vec<f64> = (0..length(i)).map(|t| -2.5 + 0.8 * ((i * 3 + t) as f64).sin()).collect();
            let index = REWARDS[..i].iter().filter(|r| r.0 == *prompt).count();
            lines.push(format!(
                r#"{{"prompt":"{prompt}","index":{index},"text":"","prompt_ids":[7,8,{i}],"ids":{ids:?},"sampling_logprobs":{sampled:?},"finish":"stop","parameters":{{"temperature":1.0,"max_tokens":{LIMIT},"seed":0}},"verdict":{{"status":"WA","passed":0,"run":1,"total":1,"reward":{reward}}}}}"#
            ));
        }
        lines.push(r#"{"schema":"step_end/1","step":1,"version":0,"groups":4,"rollouts":11}"#.into());
        lines
    }

    fn score(&self, model: &Model, row: &Row) -> (Vec<f32>, Vec<f32>) {
        let mut trainer = self.trainer(model);
        trainer.score(model, &row.tokens, &[0, row.tokens.len() as u32], 1.0).unwrap();
        (trainer.logprobs().to_vec(), trainer.values().to_vec())
    }

    fn trainer(&self, model: &Model) -> Trainer {
        let mut trainer = Trainer::new(model, 0);
        let mut head = ValueHead::new(model.config());
        head.weights_mut().copy_from_slice(&self.head);
        trainer.set_value_head(head);
        trainer
    }

    /// The tool's way from rollouts to the loss, over micro-batches of `micro` tokens.
    fn loss(&self, recipe: &Recipe, micro: u64) -> (StepSums, Trainer) {
        let batch = crate::intake::tests::batch(&(self.lines().join("\n") + "\n")).unwrap().unwrap();
        let mut prepared = prepare(&batch, recipe, self.now.config(), 0).unwrap();
        for row in prepared.groups.iter_mut().flatten() {
            let (old, values) = self.score(&self.old, row);
            row.policy.reference = self.score(&self.reference, row).0;
            (row.policy.old, row.policy.value_old) = (old, values);
        }
        estimate(&mut prepared.groups, recipe);
        let rows = prepared.groups.concat();
        let count = policy_count(rows.iter(), recipe.normalise, prepared.longest);
        let tokens = rows.iter().map(answer_tokens).sum();
        let objective = recipe.objective(count, tokens, prepared.temperature);
        let mut trainer = self.trainer(&self.now);
        let mut sums = StepSums::default();
        for micro in join(&rows, micro) {
            let bounds = micro.bounds();
            sums += trainer.accumulate(&self.now, &micro.batch(&bounds), &objective).unwrap();
        }
        (sums, trainer)
    }

    /// What the equations are given.
    fn samples(&self) -> Vec<Sample> {
        let batch = crate::intake::tests::batch(&(self.lines().join("\n") + "\n")).unwrap().unwrap();
        let sample = |(r, (_, reward)): (&cognate_records::Rollout, &(&str, f64))| {
            let tokens = [r.prompt_ids.as_slice(), &r.ids].concat();
            let row = Row { tokens, ..Row::default() };
            let from = r.prompt_ids.len();
            let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<f64>>();
            let answer = |x: Vec<f32>| wide(&x[from..]);
            let (now, old) = (self.score(&self.now, &row), self.score(&self.old, &row));
            Sample {
                group: r.prompt.clone(),
                reward: *reward,
                now: answer(now.0),
                value: answer(now.1),
                old: answer(old.0),
                value_old: answer(old.1),
                reference: answer(self.score(&self.reference, &row).0),
                sampler: wide(&r.sampling_logprobs),
            }
        };
        batch.rollouts.iter().zip(&REWARDS).map(sample).collect()
    }
}

struct Sample {
    group: String,
    reward: f64,
    now: Vec<f64>,
    value: Vec<f64>,
    old: Vec<f64>,
    value_old: Vec<f64>,
    reference: Vec<f64>,
    sampler: Vec<f64>,
}

impl Sample {
    fn n(&self) -> usize {
        self.now.len()
    }

    /// `min(r A, clip(r) A)` of token `t`, weighted by the truncated importance weight of cap 2.
    fn clipped(&self, t: usize, a: f64, low: f32, high: f32) -> f64 {
        let ratio = (self.now[t] - self.old[t]).exp();
        let within = ratio.max(1.0 - f64::from(low)).min(1.0 + f64::from(high));
        (self.old[t] - self.sampler[t]).exp().min(2.0) * (ratio * a).min(within * a)
    }
}

fn mean(x: impl Iterator<Item = f64>) -> f64 {
    let all: Vec<f64> = x.collect();
    all.iter().sum::<f64>() / all.len() as f64
}

fn group(all: &[Sample], i: usize) -> Vec<f64> {
    all.iter().filter(|s| s.group == all[i].group).map(|s| s.reward).collect()
}

/// `(r - mean) / std` of the group, the deviation that of a sample; 0 where all are equal.
fn standard(all: &[Sample], i: usize) -> f64 {
    let g = group(all, i);
    let m = mean(g.iter().copied());
    let variance = g.iter().map(|r| (r - m).powi(2)).sum::<f64>() / (g.len() as f64 - 1.0);
    if variance == 0.0 { 0.0 } else { (all[i].reward - m) / (variance.sqrt() + 1e-6) }
}

fn tokens(all: &[Sample], f: impl Fn(usize, usize) -> f64) -> f64 {
    all.iter().enumerate().map(|(i, s)| (0..s.n()).map(|t| f(i, t)).sum::<f64>()).sum()
}

/// Normalised over all tokens: `(a - mean) / (deviation + eps)`.
fn normalised(a: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let m = mean(a.iter().flatten().copied());
    let deviation = mean(a.iter().flatten().map(|x| (x - m).powi(2))).sqrt();
    a.iter().map(|row| row.iter().map(|x| (x - m) / (deviation + 1e-6)).collect()).collect()
}

/// Holds loss and gradient of `flags` to `formula`, whatever the micro-batches.
fn agrees(flags: &[&str], formula: impl Fn(&[Sample]) -> f64) -> StepSums {
    let mut world = World::new();
    let recipe = recipe(flags);
    let want = formula(&world.samples());
    let (sums, mut trainer) = world.loss(&recipe, 1 << 20);
    assert!((sums.loss - want).abs() < 2e-6 * (1.0 + want.abs()), "{flags:?}: {} against {want}", sums.loss);
    for micro in [1, 20] {
        let (parts, mut other) = world.loss(&recipe, micro);
        assert!((parts.loss - sums.loss).abs() < 1e-9, "{flags:?}: micro-batches of {micro}");
        let (a, b) = (trainer.gradient_norm(), other.gradient_norm());
        assert!((a - b).abs() < 1e-5 * a, "{flags:?}: gradient norm {a} {b}");
    }
    // Along one direction through all weights, scaled to the gradient so that it cannot be small by accident.
    let norm = trainer.gradient_norm();
    let gradients: Vec<Vec<f32>> = trainer.gradients().tensors().iter().map(|t| t.f32().to_vec()).collect();
    let mut along = 0.0;
    let wobble = |i: usize| (i as f64 * 0.37).cos();
    for g in &gradients {
        for (i, g) in g.iter().enumerate() {
            along += f64::from(*g) * (f64::from(*g) / norm + 0.01 * wobble(i));
        }
    }
    let start = world.now.clone();
    let mut at = |h: f64| {
        world.now = start.clone();
        for (tensor, g) in world.now.weights_mut().tensors_mut().into_iter().zip(&gradients) {
            for (i, (x, g)) in tensor.f32_mut().iter_mut().zip(g).enumerate() {
                *x += (h * (f64::from(*g) / norm + 0.01 * wobble(i))) as f32;
            }
        }
        formula(&world.samples())
    };
    let h = 2e-4;
    let slope = (at(h) - at(-h)) / (2.0 * h);
    assert!((slope - along).abs() < 5e-3 * along.abs(), "{flags:?}: slope {slope}, gradient {along}");
    sums
}

#[test]
fn dapo_is_the_mean_over_tokens_of_informative_groups() {
    // Yu et al. 2025, eq. 8: Σ over groups and tokens / Σ |o|, clipped at 1 - 0.2 and 1 + 0.28; eq. 11: groups that
    // are all right or all wrong are left out.
    let formula = |all: &[Sample]| {
        let used = |i: usize| standard(all, i) != 0.0;
        let n = tokens(all, |i, _| f64::from(u8::from(used(i))));
        -tokens(all, |i, t| if used(i) { all[i].clipped(t, standard(all, i), 0.2, 0.28) } else { 0.0 }) / n
    };
    let sums = agrees(&[], formula);
    assert!(sums.clipped_low > 0.0 && sums.clipped_high > 0.0, "both clips take part: {sums:?}");
    assert!(sums.importance_truncated > 0.0 && sums.importance_truncated < sums.policy_tokens);
    agrees(&["--algorithm", "dapo"], formula);
    // Overlong shaping, eq. 13, of the last 4 of 9 tokens.
    agrees(&["--overlong-buffer", "4", "--overlong-penalty", "0.5"], |all| {
        let shaped: Vec<Sample> = World::new()
            .samples()
            .into_iter()
            .zip(all)
            .map(|(mut s, now)| {
                let y = s.n() as f64;
                let soft = if y <= 5.0 { 0.0 } else { (5.0 - y) / 4.0 };
                s.reward += 0.5 * soft;
                s.now.clone_from(&now.now);
                s
            })
            .collect();
        let used = |i: usize| standard(all, i) != 0.0;
        let n = tokens(all, |i, _| f64::from(u8::from(used(i))));
        let term = |i: usize, t: usize| shaped[i].clipped(t, standard(&shaped, i), 0.2, 0.28);
        -tokens(all, |i, t| if used(i) { term(i, t) } else { 0.0 }) / n
    });
}

#[test]
fn grpo_is_the_mean_over_sequences_with_kl_in_the_loss() {
    // Shao et al. 2024, eq. 3 and 4: 1/G Σ 1/|o| Σ [min(…) − β (π_ref/π − log π_ref/π − 1)].
    for (name, beta) in [("k1", 0.0f32), ("k3", 0.04), ("k1", 0.3), ("k2", 0.3)] {
        let text = beta.to_string();
        agrees(&["--algorithm", "grpo", "--kl", &text, "--kl-estimator", name], |all| {
            -mean(all.iter().enumerate().map(|(i, s)| {
                mean((0..s.n()).map(|t| {
                    let x = s.reference[t] - s.now[t];
                    let kl = match name {
                        "k1" => -x,
                        "k2" => x * x / 2.0,
                        _ => x.exp() - x - 1.0,
                    };
                    s.clipped(t, standard(all, i), 0.2, 0.2) - f64::from(beta) * kl
                }))
            }))
        });
    }
}

#[test]
fn dr_grpo_divides_by_neither_length_nor_deviation() {
    // Liu et al. 2025, section 3.1: 1/G Σ Σ min(…), A = r - mean, over a constant, here the longest answer allowed.
    agrees(&["--algorithm", "dr-grpo"], |all| {
        let a = |i: usize| all[i].reward - mean(group(all, i).into_iter());
        -tokens(all, |i, t| all[i].clipped(t, a(i), 0.2, 0.2)) / (all.len() * LIMIT) as f64
    });
}

#[test]
fn gspo_clips_whole_sequences() {
    // Zheng et al. 2025, eq. 5 and 7: s = (π(y)/π_old(y))^(1/|y|), 1/G Σ min(s A, clip(s) A).
    let formula = |low: f64, high: f64| {
        move |all: &[Sample]| {
            -mean(all.iter().enumerate().map(|(i, s)| {
                let ratio = mean((0..s.n()).map(|t| s.now[t] - s.old[t])).exp();
                let importance = mean((0..s.n()).map(|t| s.old[t] - s.sampler[t])).exp().min(2.0);
                let a = standard(all, i);
                importance * (ratio * a).min(ratio.clamp(1.0 - low, 1.0 + high) * a)
            }))
        }
    };
    let f = |x: f32| f64::from(x);
    agrees(&["--algorithm", "gspo"], formula(f(3e-4), f(4e-4)));
    agrees(&["--algorithm", "gspo", "--clip-low", "0.1", "--clip-high", "0.3"], formula(f(0.1), f(0.3)));
}

#[test]
fn rloo_takes_the_mean_of_the_others() {
    // Ahmadian et al. 2024, eq. 8: 1/k Σ (R_i − mean of the others) ∇ log π(y_i), the reward being R = r − β KL
    // (eq. 1). Off policy here, so with ratio and clip in the place of the logarithm.
    for beta in ["0", "0.2"] {
        agrees(&["--algorithm", "rloo", "--kl", beta], |all| {
            let beta: f32 = beta.parse().unwrap();
            let penalised = |s: &Sample| {
                s.reward - f64::from(beta) * (0..s.n()).map(|t| s.old[t] - s.reference[t]).sum::<f64>()
            };
            let baseline = |i: usize| {
                let others = all.iter().enumerate().filter(|(j, s)| *j != i && s.group == all[i].group);
                mean(others.map(|(_, s)| penalised(s)))
            };
            let a = |i: usize| penalised(&all[i]) - baseline(i);
            -tokens(all, |i, t| all[i].clipped(t, a(i), 0.2, 0.2)) / all.len() as f64
        });
    }
}

#[test]
fn reinforce_plus_plus_normalises_over_the_step() {
    // Hu 2025, eq. 6–8: A_t = r − β Σ_{i ≥ t} KL(i), KL(i) = log π_old/π_ref, then normalised over the batch.
    for beta in ["0", "0.1"] {
        agrees(&["--algorithm", "reinforce++", "--kl", beta], |all| {
            let beta = f64::from(beta.parse::<f32>().unwrap());
            let raw: Vec<Vec<f64>> = all
                .iter()
                .map(|s| {
                    let kl = |t: usize| s.old[t] - s.reference[t];
                    (0..s.n()).map(|t| s.reward - beta * (t..s.n()).map(kl).sum::<f64>()).collect()
                })
                .collect();
            let a = normalised(&raw);
            -tokens(all, |i, t| all[i].clipped(t, a[i][t], 0.2, 0.2)) / tokens(all, |_, _| 1.0)
        });
    }
}

#[test]
fn ppo_has_a_value_head_and_gae() {
    // Schulman et al. 2016, eq. 16: A_t = Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ V_{t+1} − V_t; Schulman et al. 2017,
    // eq. 7 and 9, the value clipped as the policy is.
    for (flags, gamma, lambda, beta) in [
        (&[][..], 1.0, 0.95, 0.0),
        (&["--gamma", "0.9", "--gae-lambda", "0.5", "--kl", "0.1"][..], 0.9, 0.5, f64::from(0.1f32)),
        (&["--value-clip", "0.01", "--value-coefficient", "2"][..], 1.0, 0.95, 0.0),
    ] {
        let clip = if flags.contains(&"0.01") { f64::from(0.01f32) } else { f64::from(0.2f32) };
        let coefficient = if flags.contains(&"2") { 2.0 } else { 0.5 };
        let sums = agrees(&[&["--algorithm", "ppo"], flags].concat(), |all| {
            let raw: Vec<Vec<f64>> = all
                .iter()
                .map(|s| {
                    let n = s.n();
                    let v = |t: usize| if t < n { s.value_old[t] } else { 0.0 };
                    let reward = |t: usize| {
                        let last = if t + 1 == n { s.reward } else { 0.0 };
                        last - beta * (s.old[t] - s.reference[t])
                    };
                    let delta = |t: usize| reward(t) + gamma * v(t + 1) - v(t);
                    (0..n)
                        .map(|t| (t..n).map(|k| f64::powi(gamma * lambda, (k - t) as i32) * delta(k)).sum())
                        .collect()
                })
                .collect();
            let a = normalised(&raw);
            let n = tokens(all, |_, _| 1.0);
            let policy = -tokens(all, |i, t| all[i].clipped(t, a[i][t], 0.2, 0.2)) / n;
            let value = tokens(all, |i, t| {
                let (v, old) = (all[i].value[t], all[i].value_old[t]);
                let target = raw[i][t] + old;
                let kept = old + (v - old).clamp(-clip, clip);
                0.5 * (v - target).powi(2).max((kept - target).powi(2))
            });
            policy + coefficient * value / n
        });
        assert!(sums.value > 0.0 && sums.value_tokens == sums.policy_tokens);
        let share = sums.value_clipped / sums.value_tokens;
        assert!(share > 0.0 && (share > 0.2) == (clip < 0.1), "the clip takes part: {share}");
    }
}

#[test]
fn groups_are_kept_dropped_or_drawn() {
    let batch =
        |world: &World| crate::intake::tests::batch(&(world.lines().join("\n") + "\n")).unwrap().unwrap();
    let world = World::new();
    let names = |flags: &[&str], seed: u64| {
        let prepared = prepare(&batch(&world), &recipe(flags), world.now.config(), seed).unwrap();
        let first = |g: &Vec<Row>| g[0].id[..1].to_owned();
        (
            prepared.groups.iter().map(first).collect::<Vec<_>>(),
            prepared.report.equal,
            prepared.report.dropped,
        )
    };
    assert_eq!(names(&[], 0), (vec!["a".into(), "c".into()], 2, 2));
    assert_eq!(names(&["--equal-groups", "keep"], 0).0.len(), 4);
    let drawn = ["--groups", "1", "--sample-groups", "4"];
    let first = names(&drawn, 0);
    assert_eq!((first.0.len(), first.2), (1, 3));
    assert_eq!(names(&drawn, 0), first, "the same for the same seed");
    assert!((1..20).any(|seed| names(&drawn, seed).0 != first.0), "every group has its chance");
}

#[test]
fn settings_that_contradict_each_other_are_usage_errors() {
    for flags in [
        &["--groups", "8", "--sample-groups", "7"][..],
        &["--algorithm", "rloo", "--kl", "0.1", "--truncated", "mask"],
    ] {
        let error = try_recipe(flags).unwrap_err();
        assert!(error.downcast_ref::<cognate_cli::Usage>().is_some(), "{error}");
    }
}
