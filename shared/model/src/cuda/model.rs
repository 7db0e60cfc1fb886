//! A model in device memory.

use std::path::Path;
use std::rc::Rc;

use cognate_kernels::cuda::accelerator::{Accelerator, clear};
use cognate_kernels::cuda::arena::Arena;
use cognate_kernels::cuda::launch::{Element, Matrix};

use super::Done;
use super::stored::Masters;
use crate::files::{Sink, Source, read_weights};
use crate::weights::{Slot, Weights};
use crate::{Dtype, LlamaConfig, ModelError};

/// What a model on a device is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// bf16 weights with 16 bits more each: exact `f32` masters.
    Training,
    /// bf16 weights alone.
    Inference,
}

/// A Llama-architecture model on a device. The rows of embedding and head are padded with zeros to
/// a multiple of 8, so that rows of logits are whole 16 bytes.
pub struct Model {
    config: LlamaConfig,
    on: Rc<dyn Accelerator>,
    pub(super) weights: Weights<Matrix>,
    pub(super) remainders: Option<Weights<Matrix>>,
    /// Whether the remainders are up to date for a rank's share alone; see [`super::ShardedAdamW::gather`].
    pub(super) scattered: bool,
    arena: Arena,
}

/// `config` with the vocabulary that buffers on a device have.
pub(super) fn padded(config: &LlamaConfig) -> LlamaConfig {
    LlamaConfig { vocab_size: config.vocab_size.next_multiple_of(8), ..config.clone() }
}

/// Why the kernels cannot compute a model of this shape; `None` where they can.
pub fn unsupported(config: &LlamaConfig) -> Option<String> {
    let heads = config.heads();
    if heads.dim != 64 && heads.dim != 128 {
        return Some(format!("head_dim {}: the CUDA kernels stand for 64 and 128", heads.dim));
    }
    if heads.query / heads.key > 16 {
        return Some(format!(
            "{} heads to {} key heads: the CUDA kernels share one among 16 at most",
            heads.query, heads.key
        ));
    }
    for (name, size) in [("hidden_size", config.hidden_size), ("intermediate_size", config.intermediate_size)]
    {
        if !size.is_multiple_of(8) {
            return Some(format!("{name} {size}: rows of the CUDA kernels are multiples of 8"));
        }
    }
    if config.hidden_size > 8192 {
        return Some(format!("hidden_size {}: a norm's row is at most 8192", config.hidden_size));
    }
    None
}

impl Model {
    /// Memory for a model of this shape; its weights mean nothing yet.
    fn empty(config: &LlamaConfig, on: &Rc<dyn Accelerator>, purpose: Purpose) -> Result<Self, ModelError> {
        if let Some(reason) = unsupported(config) {
            let (path, key) = ("config.json".into(), "device".into());
            return Err(ModelError::Config { path, key, reason });
        }
        let shape = padded(config);
        let (arena, (weights, remainders)) = Arena::new(on, "weights", |layout| {
            let mut set = |element| Weights::build(&shape, |rows, cols| layout.take(element, rows, cols));
            (set(Element::Bf16), (purpose == Purpose::Training).then(|| set(Element::U16)))
        })?;
        let model =
            Model { config: config.clone(), on: Rc::clone(on), weights, remainders, scattered: false, arena };
        for set in [Some(&model.weights), model.remainders.as_ref()].into_iter().flatten() {
            // The padding.
            clear(model.on(), set.embedding)?;
            set.head.map_or(Ok(()), |head| clear(model.on(), head))?;
        }
        Ok(model)
    }

    /// Opens `dir` as [`crate::Model::open`] does, slot by slot into device memory.
    pub fn open(dir: &Path, on: &Rc<dyn Accelerator>, purpose: Purpose) -> Result<Self, ModelError> {
        let mut model = Self::empty(&LlamaConfig::read(dir)?, on, purpose)?;
        model.reload(dir)?;
        Ok(model)
    }

    /// Reads the weights of `dir`, of the same shape, into the same memory.
    pub fn reload(&mut self, dir: &Path) -> Result<(), ModelError> {
        let config = self.config.clone();
        self.scattered = false;
        read_weights(&mut self.masters(), &config, dir)
    }

    /// A copy of a model of the CPU.
    pub fn of(model: &crate::Model, on: &Rc<dyn Accelerator>, purpose: Purpose) -> Result<Self, ModelError> {
        let source = model.weights();
        Self::filled(model.config(), on, purpose, |slot, to| {
            to.copy_from_slice(&source.tensors()[slot.tensor].f32()[slot.offset..][..slot.len()]);
        })
    }

    /// A model whose values `fill(slot, values)` gives.
    pub fn filled(
        config: &LlamaConfig,
        on: &Rc<dyn Accelerator>,
        purpose: Purpose,
        mut fill: impl FnMut(&Slot, &mut [f32]),
    ) -> Result<Self, ModelError> {
        let model = Self::empty(config, on, purpose)?;
        for slot in model.weights.slots(config) {
            model.masters().put(&slot, &mut |values| {
                fill(&slot, values);
                Ok(())
            })?;
        }
        Ok(model)
    }

    /// Writes the directory that [`crate::Model::save`] writes. `F32` is exact where the model is for
    /// training.
    ///
    /// # Panics
    /// Where a rank's masters have not been gathered since its last step.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), ModelError> {
        crate::model::save(&self.config, &self.gathered(), dir, dtype)
    }

    /// The values of one slot, in full precision.
    ///
    /// # Panics
    /// As [`Self::save`].
    pub fn values(&self, slot: &Slot) -> Result<Vec<f32>, ModelError> {
        Ok(self.gathered().values(slot)?.into_owned())
    }

    /// Every tensor of a model file, by name.
    pub fn slots(&self) -> Vec<Slot> {
        self.weights.slots(&self.config)
    }

    /// The masters, to be read: they must be all there.
    fn gathered(&self) -> Masters<'_> {
        assert!(!self.scattered, "the masters of the other ranks' shares are gathered before they are read");
        self.masters()
    }

    fn masters(&self) -> Masters<'_> {
        Masters { on: self.on(), weights: &self.weights, remainders: self.remainders.as_ref() }
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.config.parameters()
    }

    /// Bytes of device memory.
    pub fn bytes(&self) -> usize {
        self.arena.bytes()
    }

    pub fn device(&self) -> &Rc<dyn Accelerator> {
        &self.on
    }

    pub(super) fn on(&self) -> &dyn Accelerator {
        &*self.on
    }

    /// The head, which is the embedding where they are tied.
    pub(super) fn head(&self) -> Matrix {
        self.weights.head.unwrap_or(self.weights.embedding)
    }

    /// Logits `[R, V padded]` of normed states `[R, C]`.
    pub(super) fn classify(&self, logits: Matrix, states: Matrix) -> Done {
        let product = cognate_kernels::cuda::cublaslt::Product::Forward;
        self.on().product(product, logits, (states, self.head()), false, None)
    }
}
