//! A model: its configuration and weights, opened from and saved to a Hugging Face directory.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use cognate_kernels::Device;

use crate::files::{Source, read_weights, write_weights};
use crate::{Dtype, LlamaConfig, ModelError, Weights};

/// A Llama-architecture model. Training and decoding borrow it; only the optimizer changes it.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) config: LlamaConfig,
    pub(crate) device: Device,
    pub(crate) weights: Weights,
}

impl Model {
    /// A fresh model on the CPU, the same for the same `seed`.
    pub fn init(config: &LlamaConfig, seed: u64) -> Result<Self, ModelError> {
        config.validate(Path::new("config.json"))?;
        let device = Device::Cpu;
        Ok(Model { config: config.clone(), device, weights: Weights::init(config, device, seed) })
    }

    /// Opens `dir`: `config.json` and `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` lists. A missing, misshaped or foreign tensor is an error
    /// that names tensor and file.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let config = LlamaConfig::read(dir)?;
        let device = Device::Cpu;
        let mut weights = Weights::zeros(&config, device);
        read_weights(&mut weights, &config, dir)?;
        Ok(Model { config, device, weights })
    }

    /// Writes `config.json` and `model.safetensors` into `dir`, which must exist, and makes both
    /// durable. Atomicity is the caller's: write to a fresh directory and rename it.
    pub fn save(&self, dir: &Path, dtype: Dtype) -> Result<(), ModelError> {
        save(&self.config, &self.weights, dir, dtype)
    }

    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// For whoever changes weights by hand (merging, tests).
    pub fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.config.parameters()
    }
}

/// Writes `config.json` and `model.safetensors`; see [`Model::save`].
pub(crate) fn save(
    config: &LlamaConfig,
    weights: &dyn Source,
    dir: &Path,
    dtype: Dtype,
) -> Result<(), ModelError> {
    let mut fields = config.to_json();
    fields["torch_dtype"] = dtype.name().into();
    let path = dir.join("config.json");
    let text = format!("{fields:#}\n");
    let mut file = std::fs::File::create(&path).map_err(ModelError::io(&path))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(ModelError::io(&path))?;
    // transformers refuses files that do not say for which framework they are.
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    let path = dir.join("model.safetensors");
    write_weights(&[("", weights)], config, &path, dtype, &metadata)
}
