//! The loss of the contract, token by token.

use bytemuck::{NoUninit, Zeroable};

use super::{Done, line, run};
use crate::cuda::launch::{Arguments, Element, Engine, Matrix, Shape};
use crate::policy_loss::{KlEstimator, Objective, Terms};

/// [`Terms`] as the kernel reads them.
#[derive(Clone, Copy, Debug, PartialEq, Zeroable, NoUninit)]
#[repr(C)]
pub struct Token {
    pub weights: [f32; 3],
    pub advantage: f32,
    pub sampler: f32,
    pub old: f32,
    pub reference: f32,
    pub log_ratio: f32,
    pub log_importance: f32,
}

impl From<Terms> for Token {
    fn from(t: Terms) -> Self {
        Token {
            weights: [t.cross_entropy, t.policy, t.kl],
            advantage: t.advantage,
            sampler: t.sampler.unwrap_or(f32::NAN),
            old: t.old.unwrap_or(f32::NAN),
            reference: t.reference,
            log_ratio: t.sequence.map_or(f32::NAN, |means| means.log_ratio as f32),
            log_importance: t.sequence.map_or(f32::NAN, |means| means.log_importance as f32),
        }
    }
}

#[derive(Clone, Copy, Zeroable, NoUninit)]
#[repr(C)]
struct Goal {
    counts: [f64; 3],
    clip_low: f32,
    clip_high: f32,
    importance_cap: f32,
    kl: u32,
    z_loss: f32,
    padding: u32,
}

/// Sums that [`policy_loss`] makes: those of `StepSums` up to `z_loss`.
pub const LOSS_SUMS: usize = 17;

/// `dlogp` `[1, T]` of `terms` `[T, 9]` ([`Token`]) and the classifier's `rows`, and with a z-loss `dz`
/// `[1, T]`; adds to `sums` `[1, LOSS_SUMS]` fp64, in the order of `StepSums`. `partial` is scratch of
/// `LOSS_SUMS` fp64 a 256 tokens.
pub fn policy_loss(
    on: &dyn Engine,
    (dlogp, dz): (Matrix, Option<Matrix>),
    (sums, partial): (Matrix, Matrix),
    terms: Matrix,
    rows: Matrix,
    objective: &Objective,
) -> Done {
    assert_eq!(dz.is_some(), objective.z_loss != 0.0, "a z-loss has a derivative");
    let count = terms.rows;
    let blocks = count.div_ceil(256);
    terms.expect("terms", Element::F32, count, size_of::<Token>() / 4);
    rows.expect("rows", Element::F32, count, 3);
    for (name, m) in [("dlogp", Some(dlogp)), ("dz", dz)] {
        m.map(|m| m.expect(name, Element::F32, 1, count));
    }
    sums.expect("sums", Element::F64, 1, LOSS_SUMS);
    partial.at_least("partial", Element::F64, blocks * LOSS_SUMS);
    let goal = Goal {
        counts: [objective.cross_entropy_count, objective.policy_count, objective.kl_count],
        clip_low: objective.clip_low,
        clip_high: objective.clip_high,
        importance_cap: objective.importance_cap.unwrap_or(f32::NAN),
        kl: match objective.kl {
            KlEstimator::K1 => 1,
            KlEstimator::K2 => 2,
            KlEstimator::K3 => 3,
        },
        z_loss: objective.z_loss,
        padding: 0,
    };
    let arguments = Arguments::default()
        .matrix(dlogp)
        .optional(dz)
        .matrix(partial)
        .matrix(terms)
        .matrix(rows)
        .size(count)
        .value(goal);
    run(on, "policy_loss", "policy_loss_tokens", line(count, 256), arguments)?;
    let arguments = Arguments::default().matrix(sums).matrix(partial).size(blocks);
    run(on, "policy_loss", "policy_loss_sums", Shape { grid: [1, 1, 1], block: 32, shared: 0 }, arguments)
}
