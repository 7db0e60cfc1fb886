//! What a training step takes, by arithmetic alone: nothing is allocated, a configuration suffices.
//! The program itself and what the products pack are not counted: at 10 M parameters and 2,048 tokens
//! the CPU's peak is 504 MB where 471 are planned (LOG.md).

use std::fmt;

use crate::train::chunk_rows;
use crate::{LlamaConfig, Recompute};

/// Which layout is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// What this crate allocates: everything in `f32`.
    Cpu,
    /// A GPU in bf16: weights with a 16-bit remainder (together an exact `f32`), gradients and moments
    /// in 16 bits; norms and SwiGLU always computed again; the head's gradient summed in `f32`.
    Cuda,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub name: &'static str,
    pub bytes: usize,
}

/// Memory by kind, and the work of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub items: Vec<Item>,
    /// Floating-point operations of forward and backward, without what is computed again.
    pub flops: f64,
}

impl Plan {
    /// A step over micro-batches of `tokens` tokens in documents of `length`, all of them predicting.
    pub fn new(
        config: &LlamaConfig,
        target: Target,
        tokens: usize,
        length: usize,
        recompute: Recompute,
    ) -> Self {
        let (c, f, v, heads) =
            (config.hidden_size, config.intermediate_size, config.vocab_size, config.heads());
        let (parameters, layers) = (config.parameters(), config.num_hidden_layers);
        let (row, out) = (heads.row(), heads.out());
        let item = |name, bytes| Item { name, bytes };
        let kept = |each: bool| if each { layers } else { 1 };
        let halves = kept(recompute != Recompute::Block);
        let feed_forwards = kept(recompute == Recompute::None);
        let chunk = chunk_rows(v).min(tokens);
        let (size, mut items) = match target {
            Target::Cpu => (4, vec![item("weights", 4 * parameters)]),
            Target::Cuda => {
                (2, vec![item("weights", 2 * parameters), item("weights' remainder", 2 * parameters)])
            }
        };
        items.push(item("gradients", size * parameters));
        items.push(item("moments", 2 * size * parameters));
        // Values of a token that a GPU computes again from what stands beside them.
        let spare = |values: usize| if target == Target::Cpu { values } else { 0 };
        let statistics = 4 * tokens * (halves * (1 + heads.query) + feed_forwards + 1);
        items.push(item("residual stream", size * tokens * c * (layers + halves + 2)));
        items.push(item("attention", size * tokens * halves * (row + out + spare(c))));
        items.push(item("feed-forward", size * tokens * feed_forwards * (2 * f + spare(c + f))));
        items.push(item("norms and log-sum-exps", statistics));
        items.push(item("final norm", size * tokens * c));
        items.push(item("backward of one layer", size * tokens * (2 * c + row + out + 3 * f)));
        let around = size * c * (3 * tokens + 2 * chunk);
        items.push(item("classifier chunk", size * chunk * v + around));
        if target == Target::Cuda {
            items.push(item("head's gradient in f32", 4 * v * c));
        }
        let angles = length.next_power_of_two() * config.head_dim;
        items.push(item("rotary angles", 4 * angles));
        // A token attends to half its document in the mean.
        Plan { items, flops: tokens as f64 * config.flops_per_token(length as f64 / 2.0) }
    }

    /// All of it.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        for item in &self.items {
            writeln!(f, "{:24} {:>12.1} MB", item.name, megabytes(item.bytes))?;
        }
        writeln!(f, "{:24} {:>12.1} MB", "in all", megabytes(self.bytes()))?;
        write!(f, "{:24} {:>12.3} TFLOP", "forward and backward", self.flops / 1e12)
    }
}
