//! The hidden states of every layer, for probing, from a device.

use cognate_kernels::cuda::accelerator::read;
use cognate_kernels::cuda::arena::Arena;
use cognate_kernels::cuda::launch::{CudaError, Matrix};
use cognate_kernels::{Device, Tensor};
use half::bf16;

use super::Model;
use super::llama::{self, Activations, Angles, Packed};
use crate::ModelError;
use crate::packing::check;

/// A forward without classifier; see [`crate::Hidden`].
pub struct Hidden {
    tokens: usize,
    activations: Activations,
    packed: Packed,
    angles: Angles,
    _arena: Arena,
    positions: Vec<u32>,
}

impl Hidden {
    /// An arena for batches of `max_tokens` tokens; a larger batch gets a larger one.
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self, ModelError> {
        let (tokens, config) = (max_tokens.max(1), model.config());
        let (arena, (activations, packed)) = Arena::new(model.device(), "hidden states", |layout| {
            (Activations::lay(layout, config, tokens, false), Packed::lay(layout, tokens))
        })?;
        let (angles, positions) = (Angles::new(config), Vec::new());
        Ok(Hidden { tokens, activations, packed, angles, _arena: arena, positions })
    }

    /// Runs packed documents and shows `visit(layer, states)` the states `[T, C]` of each layer, copied
    /// to the CPU, as [`crate::Hidden::run`] counts them.
    pub fn run(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        mut visit: impl FnMut(usize, &Tensor),
    ) -> Result<(), ModelError> {
        check(model.config(), tokens, starts, &mut self.positions)?;
        if tokens.len() > self.tokens {
            *self = Hidden {
                positions: std::mem::take(&mut self.positions),
                ..Hidden::new(model, tokens.len())?
            };
        }
        let (on, heads) = (model.on(), model.config().heads());
        let longest = self.positions.iter().max().map_or(0, |&p| p as usize + 1);
        let angles = self.angles.reserve(model.device(), longest)?;
        let packed = self.packed.fill(on, (tokens, &self.positions, starts), false)?;
        let mut show = |layer: usize, states: Matrix| -> Result<(), CudaError> {
            let halves: Vec<u16> = read(on, states)?;
            let floats: Vec<f32> = halves.iter().map(|&bits| bf16::from_bits(bits).to_f32()).collect();
            visit(layer, &Tensor::from_slice(Device::Cpu, states.rows, states.cols, &floats));
            Ok(())
        };
        let attend = |_: usize, v: &llama::Layer| packed.attend(on, v, heads);
        llama::forward(model, &self.activations, packed.inputs(angles), attend, &mut show)?;
        show(model.config().num_hidden_layers, self.activations.output(tokens.len()))?;
        Ok(())
    }
}
