//! The hidden states of every layer, for probing.

use cognate_kernels::{Tensor, attention};

use crate::llama::{self, Activations};
use crate::packing::check;
use crate::{Model, ModelError};

/// A forward without classifier, over an arena of one layer.
pub struct Hidden {
    activations: Activations,
    positions: Vec<u32>,
}

impl Hidden {
    /// An arena for batches of `max_tokens` tokens; it grows when a batch is larger.
    pub fn new(model: &Model, max_tokens: usize) -> Self {
        Hidden {
            activations: Activations::new(&model.config, model.device, max_tokens, None),
            positions: Vec::with_capacity(max_tokens),
        }
    }

    /// Runs packed documents and shows `visit(layer, states)` the states `[T, C]` of each layer as
    /// transformers' `output_hidden_states` counts them: 0 is the embedding, `l` the output of
    /// layer `l`, the last one after the final norm.
    pub fn run(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        mut visit: impl FnMut(usize, &Tensor),
    ) -> Result<(), ModelError> {
        check(&model.config, tokens, starts, &mut self.positions)?;
        let heads = model.config.heads();
        llama::forward(
            model,
            &mut self.activations,
            tokens,
            &self.positions,
            |_, v| attention::forward(&mut v.attention, &mut v.lse, &v.qkv, starts, heads),
            &mut visit,
        );
        visit(model.config.num_hidden_layers, &self.activations.normed);
        Ok(())
    }
}
