//! What a training step takes, by arithmetic alone: nothing is allocated, a configuration suffices.
//! On the CPU every line is what this crate allocates, so that their sum is the peak that the kernel
//! reports (`VmHWM`) within a few per cent; `cog-train`'s test `plan` holds it to that.

use std::fmt;

use cognate_collective::SharedMemory;
use cognate_kernels::{attention, matmul};

use crate::train::chunk_rows;
use crate::{LlamaConfig, LoraConfig, Recompute, Weights, cuda};

/// Which layout is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Target {
    /// What this crate allocates: everything in `f32`.
    #[default]
    Cpu,
    /// A GPU in bf16: weights with a 16-bit remainder (together an exact `f32`), gradients and moments
    /// in 16 bits, those of adapters in `f32`; norms and SwiGLU always computed again; the head's gradient
    /// summed in `f32`.
    Cuda,
}

/// What a step is made of.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    pub target: Target,
    /// Tokens of a micro-batch, all of them predicting, in documents of `length`.
    pub tokens: usize,
    pub length: usize,
    pub recompute: Recompute,
    /// Adapters are trained in the place of the weights.
    pub adapters: Option<LoraConfig>,
    /// A second model, of the same shape, gives the reference of a KL term.
    pub reference: bool,
    /// Threads of the CPU, each with its own scratch.
    pub threads: usize,
    /// Processes among which the moments are shared out; 0 is 1.
    pub ranks: usize,
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
    /// Floating-point operations that are done a second time to spare memory.
    pub recomputed: f64,
}

/// Pages of a `cog-train` at work that belong to none of the tables: its code, the allocator, threads.
const PROGRAM: usize = 11 << 20;

impl Plan {
    /// A forward and backward of one micro-batch, with all that stands in memory meanwhile.
    pub fn new(config: &LlamaConfig, setup: &Setup) -> Self {
        let &Setup { target, tokens, length, recompute, .. } = setup;
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
            Target::Cpu => (4, vec![item("program", PROGRAM), item("weights", 4 * parameters)]),
            Target::Cuda => {
                (2, vec![item("weights", 2 * parameters), item("weights' remainder", 2 * parameters)])
            }
        };
        items.push(item("gradients", size * parameters));
        match &setup.adapters {
            None => items.push(item("moments", 2 * size * parameters.div_ceil(setup.ranks.max(1)))),
            Some(adapters) => items.extend(adapted(config, adapters, target)),
        }
        if setup.reference {
            items.push(item("reference model", size * parameters));
        }
        // Values of a token that a GPU computes again from what stands beside them.
        let spare = |values: usize| if target == Target::Cpu { values } else { 0 };
        items.push(item("residual stream", size * tokens * c * (layers + halves + 2)));
        items.push(item("attention", size * tokens * halves * (row + out + spare(c))));
        items.push(item("feed-forward", size * tokens * feed_forwards * (2 * f + spare(c + f))));
        let statistics = 4 * tokens * (halves * (1 + heads.query) + feed_forwards + 1);
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
        if target == Target::Cpu {
            let products = [row, out, 2 * f, v].map(|n| matmul::scratch_bytes(tokens, n, c));
            let shared = products.iter().map(|p| p.0).max().unwrap_or(0);
            let each = attention::scratch_bytes(heads, length) + products[0].1;
            items.push(item("packed operands", shared + each * setup.threads.max(1)));
            if setup.ranks > 1 {
                items.push(item("memory of the ranks", setup.ranks * SharedMemory::REGION_BYTES));
            }
            // Ids, weights and bounds of the micro-batch and its rows; log-probabilities, entropies, places.
            items.push(item("the batch", tokens * 16 + tokens * 20));
        }
        // A token attends to half its document in the mean.
        let context = length as f64 / 2.0;
        let flops = tokens as f64 * config.flops_per_token(context);
        let again = match recompute {
            Recompute::None => 0.0,
            Recompute::FeedForward => (2 * f * c) as f64,
            Recompute::Block => (2 * f * c + c * row + c * out) as f64 + 2.0 * out as f64 * context,
        };
        // The last layer's values still stand.
        let recomputed = 2.0 * tokens as f64 * again * (layers - 1) as f64;
        Plan { items, flops, recomputed }
    }

    /// All of it.
    pub fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.bytes).sum()
    }
}

/// Adapters: `W0`, the factors with gradients and moments, and the products by which they are merged.
fn adapted(config: &LlamaConfig, adapters: &LoraConfig, target: Target) -> [Item; 3] {
    let slots = Weights::layout(config);
    let matrices = || slots.iter().filter(|slot| adapters.adapts(slot));
    // A GPU pads the rank, and has the factors once more as operands in bf16.
    let (rank, each) = match target {
        Target::Cpu => (adapters.rank, 4 * 4),
        Target::Cuda => (cuda::padded_rank(adapters.rank), 4 * 4 + 2),
    };
    let factors = matrices().map(|slot| rank * slot.shape.iter().sum::<usize>()).sum::<usize>();
    [
        Item { name: "frozen matrices", bytes: 4 * matrices().map(|slot| slot.len()).sum::<usize>() },
        Item { name: "adapters", bytes: each * factors },
        Item { name: "merging", bytes: 4 * matrices().map(|slot| slot.len()).max().unwrap_or(0) },
    ]
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: usize| bytes as f64 / 1e6;
        for item in &self.items {
            writeln!(f, "{:24} {:>12.1} MB", item.name, megabytes(item.bytes))?;
        }
        writeln!(f, "{:24} {:>12.1} MB", "in all", megabytes(self.bytes()))?;
        write!(f, "{:24} {:>12.3} TFLOP", "forward and backward", self.flops / 1e12)?;
        if self.recomputed > 0.0 {
            write!(f, "\n{:24} {:>12.3} TFLOP", "computed again", self.recomputed / 1e12)?;
        }
        Ok(())
    }
}
