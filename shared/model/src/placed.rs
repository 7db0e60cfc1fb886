//! The model on whichever device was chosen, for tools that have a `--device`: one enum for each of
//! model, trainer, decoder and hidden states, the CPU's or a GPU's inside.

use std::path::Path;
use std::rc::Rc;

use cognate_kernels::Tensor;
use cognate_kernels::cuda::driver::devices;
use cognate_kernels::cuda::launch::CudaError;
use cognate_random::Key;

use crate::cuda::{self, Accelerator, Choice, Purpose};
use crate::{
    Batch, Dtype, LlamaConfig, ModelError, Objective, Request, SampleOptions, Sampled, SequenceId, StepSums,
    ValueHead,
};

/// A device; `None` is the CPU.
pub type Place = Option<Rc<dyn Accelerator>>;

/// Opens the device that `choice` names for a model of this shape. `auto` takes the CPU where there is no
/// GPU, or where its kernels cannot compute the shape, and `say`s why, once.
///
/// # Errors
/// A GPU asked for by number that is not there, or that fails.
pub fn place(choice: Choice, config: &LlamaConfig, say: impl Fn(&str)) -> Result<Place, ModelError> {
    let found = choice.open(&say)?;
    match cuda::unsupported(config) {
        Some(reason) if choice == Choice::Auto && found.is_some() => {
            say(&format!("{reason}: using the CPU"));
            Ok(None)
        }
        _ => Ok(found),
    }
}

/// As [`place`], for process `rank` of `size` on this machine: `cuda` is the GPU of that number, and `auto` too where
/// there is one for each process, or else the CPU for all.
///
/// # Errors
/// As of [`place`].
pub fn place_rank(
    choice: Choice,
    (rank, size): (usize, usize),
    config: &LlamaConfig,
    say: impl Fn(&str),
) -> Result<Place, ModelError> {
    let choice = match choice {
        _ if size == 1 => choice,
        Choice::Gpu => Choice::Cuda(rank),
        Choice::Auto => {
            let reason = match devices() {
                Ok(have) if have < size => Some(format!("fewer GPUs ({have}) than processes ({size})")),
                Ok(_) => cuda::unsupported(config),
                Err(error @ CudaError::Missing(_)) => Some(error.to_string()),
                Err(error) => return Err(error.into()),
            };
            if let Some(reason) = &reason {
                say(&format!("{reason}: using the CPU"));
            }
            if reason.is_some() { Choice::Cpu } else { Choice::Cuda(rank) }
        }
        Choice::Cpu | Choice::Cuda(_) => choice,
    };
    place(choice, config, say)
}

/// A model where it is.
pub enum Model {
    Cpu(crate::Model),
    Cuda(cuda::Model),
}

impl Model {
    /// Opens a directory; see [`crate::Model::open`].
    pub fn open(dir: &Path, place: &Place, purpose: Purpose) -> Result<Self, ModelError> {
        Ok(match place {
            None => Model::Cpu(crate::Model::open(dir)?),
            Some(on) => Model::Cuda(cuda::Model::open(dir, on, purpose)?),
        })
    }

    /// Brings a model of the CPU to its place.
    pub fn put(model: crate::Model, place: &Place, purpose: Purpose) -> Result<Self, ModelError> {
        Ok(match place {
            None => Model::Cpu(model),
            Some(on) => Model::Cuda(cuda::Model::of(&model, on, purpose)?),
        })
    }

    /// Takes over the weights of `dir`, which must have the same shape; on a device in the same memory.
    pub fn reload(&mut self, dir: &Path) -> Result<(), ModelError> {
        match self {
            Model::Cpu(model) => *model = crate::Model::open(dir)?,
            Model::Cuda(model) => model.reload(dir)?,
        }
        Ok(())
    }

    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), ModelError> {
        match self {
            Model::Cpu(model) => model.save(dir, dtype),
            Model::Cuda(model) => model.save(dir, dtype),
        }
    }

    pub fn config(&self) -> &LlamaConfig {
        match self {
            Model::Cpu(model) => model.config(),
            Model::Cuda(model) => model.config(),
        }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.config().parameters()
    }
}

/// Two parts of one program are where one model is.
fn apart() -> ModelError {
    ModelError::Capacity("model and buffers are on different devices".into())
}

/// Gradients and the buffers of a step, where the model is.
pub enum Trainer {
    Cpu(Box<crate::Trainer>),
    Cuda(Box<cuda::Trainer>),
}

impl Trainer {
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self, ModelError> {
        Ok(match model {
            Model::Cpu(model) => Trainer::Cpu(Box::new(crate::Trainer::new(model, max_tokens))),
            Model::Cuda(model) => Trainer::Cuda(Box::new(cuda::Trainer::new(model, max_tokens)?)),
        })
    }

    pub fn accumulate(
        &mut self,
        model: &Model,
        batch: &Batch<'_>,
        objective: &Objective,
    ) -> Result<StepSums, ModelError> {
        match (self, model) {
            (Trainer::Cpu(trainer), Model::Cpu(model)) => trainer.accumulate(model, batch, objective),
            (Trainer::Cuda(trainer), Model::Cuda(model)) => trainer.accumulate(model, batch, objective),
            _ => Err(apart()),
        }
    }

    pub fn score(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        temperature: f32,
    ) -> Result<(), ModelError> {
        match (self, model) {
            (Trainer::Cpu(trainer), Model::Cpu(model)) => trainer.score(model, tokens, starts, temperature),
            (Trainer::Cuda(trainer), Model::Cuda(model)) => trainer.score(model, tokens, starts, temperature),
            _ => Err(apart()),
        }
    }

    pub fn logprobs(&self) -> &[f32] {
        match self {
            Trainer::Cpu(trainer) => trainer.logprobs(),
            Trainer::Cuda(trainer) => trainer.logprobs(),
        }
    }

    pub fn values(&self) -> &[f32] {
        match self {
            Trainer::Cpu(trainer) => trainer.values(),
            Trainer::Cuda(trainer) => trainer.values(),
        }
    }

    pub fn set_value_head(&mut self, head: ValueHead) {
        match self {
            Trainer::Cpu(trainer) => trainer.set_value_head(head),
            Trainer::Cuda(trainer) => trainer.set_value_head(head),
        }
    }

    pub fn value_head(&self) -> Option<&ValueHead> {
        match self {
            Trainer::Cpu(trainer) => trainer.value_head(),
            Trainer::Cuda(trainer) => trainer.value_head(),
        }
    }

    pub fn value_head_mut(&mut self) -> Option<&mut ValueHead> {
        match self {
            Trainer::Cpu(trainer) => trainer.value_head_mut(),
            Trainer::Cuda(trainer) => trainer.value_head_mut(),
        }
    }
}

/// Sequences being decoded, where the model is.
pub enum Decoder {
    Cpu(Box<crate::Decoder>),
    Cuda(Box<cuda::Decoder>),
}

impl Decoder {
    pub fn new(model: &Model, max_sequences: usize, max_length: usize) -> Result<Self, ModelError> {
        Ok(match model {
            Model::Cpu(model) => {
                Decoder::Cpu(Box::new(crate::Decoder::new(model, max_sequences, max_length)))
            }
            Model::Cuda(model) => {
                Decoder::Cuda(Box::new(cuda::Decoder::new(model, max_sequences, max_length)?))
            }
        })
    }

    pub fn free(&self) -> usize {
        match self {
            Decoder::Cpu(decoder) => decoder.free(),
            Decoder::Cuda(decoder) => decoder.free(),
        }
    }

    pub fn live(&self) -> &[SequenceId] {
        match self {
            Decoder::Cpu(decoder) => decoder.live(),
            Decoder::Cuda(decoder) => decoder.live(),
        }
    }

    pub fn clear(&mut self) {
        match self {
            Decoder::Cpu(decoder) => decoder.clear(),
            Decoder::Cuda(decoder) => decoder.clear(),
        }
    }

    pub fn start(&mut self, model: &Model, requests: &[Request<'_>]) -> Result<Vec<SequenceId>, ModelError> {
        match (self, model) {
            (Decoder::Cpu(decoder), Model::Cpu(model)) => decoder.start(model, requests),
            (Decoder::Cuda(decoder), Model::Cuda(model)) => decoder.start(model, requests),
            _ => Err(apart()),
        }
    }

    /// Draws a token a live sequence, each by the random number that its key and counter name.
    pub fn sample(
        &mut self,
        model: &Model,
        options: &[SampleOptions],
        numbers: &[(Key, u64)],
    ) -> Result<&[Sampled], ModelError> {
        match (self, model) {
            (Decoder::Cpu(decoder), _) => {
                let uniforms: Vec<f32> = numbers.iter().map(|(key, n)| key.uniform(*n)).collect();
                Ok(decoder.sample(options, &uniforms))
            }
            (Decoder::Cuda(decoder), Model::Cuda(model)) => decoder.sample(model, options, numbers),
            _ => Err(apart()),
        }
    }

    pub fn finish(&mut self, model: &Model, ids: &[SequenceId]) -> Result<(), ModelError> {
        match (self, model) {
            (Decoder::Cpu(decoder), _) => {
                decoder.finish(ids);
                Ok(())
            }
            (Decoder::Cuda(decoder), Model::Cuda(model)) => decoder.finish(model, ids),
            _ => Err(apart()),
        }
    }

    pub fn step(&mut self, model: &Model) -> Result<(), ModelError> {
        match (self, model) {
            (Decoder::Cpu(decoder), Model::Cpu(model)) => decoder.step(model),
            (Decoder::Cuda(decoder), Model::Cuda(model)) => decoder.step(model),
            _ => Err(apart()),
        }
    }
}

/// Hidden states, where the model is; they are shown on the CPU.
pub enum Hidden {
    Cpu(Box<crate::Hidden>),
    Cuda(Box<cuda::Hidden>),
}

impl Hidden {
    pub fn new(model: &Model, max_tokens: usize) -> Result<Self, ModelError> {
        Ok(match model {
            Model::Cpu(model) => Hidden::Cpu(Box::new(crate::Hidden::new(model, max_tokens))),
            Model::Cuda(model) => Hidden::Cuda(Box::new(cuda::Hidden::new(model, max_tokens)?)),
        })
    }

    pub fn run(
        &mut self,
        model: &Model,
        tokens: &[u32],
        starts: &[u32],
        visit: impl FnMut(usize, &Tensor),
    ) -> Result<(), ModelError> {
        match (self, model) {
            (Hidden::Cpu(hidden), Model::Cpu(model)) => hidden.run(model, tokens, starts, visit),
            (Hidden::Cuda(hidden), Model::Cuda(model)) => hidden.run(model, tokens, starts, visit),
            _ => Err(apart()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn several_processes_without_a_gpu_each_take_the_cpu_unless_told_otherwise() {
        let size = match devices() {
            Ok(have) => have + 1,
            Err(_) => 2,
        };
        let said = RefCell::new(Vec::new());
        let place = |choice| {
            let say = |why: &str| said.borrow_mut().push(why.to_owned());
            place_rank(choice, (size - 1, size), &LlamaConfig::default(), say)
        };
        assert!(place(Choice::Auto).is_ok_and(|place| place.is_none()));
        assert!(place(Choice::Cpu).is_ok_and(|place| place.is_none()));
        assert!(said.take().iter().all(|why| why.ends_with(": using the CPU")));
        assert!(place(Choice::Gpu).is_err(), "no GPU has the last rank's number");
    }
}
