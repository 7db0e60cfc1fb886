//! Rows (one sequence with its loss terms) joined into micro-batches for one forward and backward.

use cognate_model::{Batch, PolicyTerms};

/// One packed sequence, or one rollout, with what the loss contract says of each token.
///
/// All arrays are aligned with the token that is predicted, and have as many entries as `tokens` or none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Row {
    /// Name of the record, for messages.
    pub id: String,
    pub tokens: Vec<u32>,
    /// Where each document starts; the first is 0.
    pub starts: Vec<u32>,
    pub cross_entropy: Vec<f32>,
    pub policy: Policy,
}

/// The policy terms of the loss contract; empty where there is no policy loss.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Policy {
    pub weight: Vec<f32>,
    pub advantage: Vec<f32>,
    pub sampler: Vec<f32>,
    pub old: Vec<f32>,
    pub kl_weight: Vec<f32>,
    pub reference: Vec<f32>,
    pub value_weight: Vec<f32>,
    pub value_old: Vec<f32>,
    pub value_target: Vec<f32>,
    /// Of the whole answer, as shaped; advantages come of it.
    pub reward: f64,
}

/// Rows one after another without padding.
#[derive(Debug, Clone, Default)]
pub struct MicroBatch {
    joined: Row,
    /// Names of the rows.
    pub ids: Vec<String>,
}

impl MicroBatch {
    pub fn push(&mut self, row: &Row) {
        let offset = self.joined.tokens.len() as u32;
        let j = &mut self.joined;
        j.tokens.extend_from_slice(&row.tokens);
        j.starts.extend(row.starts.iter().map(|s| s + offset));
        j.cross_entropy.extend_from_slice(&row.cross_entropy);
        let (to, from) = (&mut j.policy, &row.policy);
        for (to, from) in [
            (&mut to.weight, &from.weight),
            (&mut to.advantage, &from.advantage),
            (&mut to.sampler, &from.sampler),
            (&mut to.old, &from.old),
            (&mut to.kl_weight, &from.kl_weight),
            (&mut to.reference, &from.reference),
            (&mut to.value_weight, &from.value_weight),
            (&mut to.value_old, &from.value_old),
            (&mut to.value_target, &from.value_target),
        ] {
            to.extend_from_slice(from);
        }
        self.ids.push(row.id.clone());
    }

    /// cu_seqlens: the starts and the end.
    pub fn bounds(&self) -> Vec<u32> {
        let mut bounds = self.joined.starts.clone();
        bounds.push(self.joined.tokens.len() as u32);
        bounds
    }

    pub fn tokens(&self) -> &[u32] {
        &self.joined.tokens
    }

    /// The batch as the model takes it; `bounds` is [`Self::bounds`].
    pub fn batch<'a>(&'a self, bounds: &'a [u32]) -> Batch<'a> {
        let p = &self.joined.policy;
        Batch {
            tokens: &self.joined.tokens,
            starts: bounds,
            cross_entropy: &self.joined.cross_entropy,
            policy: (!p.weight.is_empty()).then_some(PolicyTerms {
                weight: &p.weight,
                advantage: &p.advantage,
                sampler: &p.sampler,
                old: &p.old,
                kl_weight: &p.kl_weight,
                reference: &p.reference,
                value_weight: &p.value_weight,
                value_old: &p.value_old,
                value_target: &p.value_target,
            }),
        }
    }
}

/// Joins rows in order, as many as fit `limit` tokens, at least one. Depends on the rows and the limit alone.
pub fn join(rows: &[Row], limit: u64) -> Vec<MicroBatch> {
    let mut batches: Vec<MicroBatch> = Vec::new();
    for row in rows {
        let fits = batches.last().is_some_and(|b| (b.tokens().len() + row.tokens.len()) as u64 <= limit);
        if !fits {
            batches.push(MicroBatch::default());
        }
        if let Some(last) = batches.last_mut() {
            last.push(row);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(n: usize) -> Row {
        Row {
            id: n.to_string(),
            tokens: vec![1; n],
            starts: vec![0, 1],
            cross_entropy: vec![1.0; n],
            policy: Policy::default(),
        }
    }

    #[test]
    fn rows_are_joined_up_to_the_limit_and_documents_keep_their_bounds() {
        let batches = join(&[row(3), row(4), row(9), row(2)], 8);
        assert_eq!(batches.iter().map(|b| b.tokens().len()).collect::<Vec<_>>(), [7, 9, 2]);
        assert_eq!(batches[0].bounds(), [0, 1, 3, 4, 7]);
        assert_eq!(batches[0].ids, ["3", "4"]);
        assert!(batches[0].batch(&[0]).policy.is_none());
    }
}
