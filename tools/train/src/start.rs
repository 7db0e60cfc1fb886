//! Where a run begins: a model directory, or a shape and a seed; and what decides its result.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cognate_model::{LlamaConfig, Model};
use cognate_output::AtomicDir;
use cognate_records::Provenance;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::assets;
use crate::cli::{Optimisation, Start, WeightType};
use crate::optimise::fault;
use crate::schedule::Schedule;

/// The initial model, not yet opened.
pub struct Origin {
    pub config: LlamaConfig,
    /// The model's directory; `None` for random weights.
    directory: Option<PathBuf>,
    /// Directories whose tokenizer and templates go into every model written; later ones win.
    assets: Vec<PathBuf>,
    seed: u64,
}

impl Origin {
    pub fn new(flags: &Start, seed: u64) -> Result<Self> {
        let tokenizer = flags.tokenizer.as_deref();
        let config = match (&flags.model, &flags.init_config, tokenizer) {
            (Some(model), _, _) => LlamaConfig::read(model).map_err(fault)?,
            (None, Some(shape), Some(tokenizer)) => assets::shape(shape, tokenizer)?,
            _ => return Err(cognate_cli::usage("give --model, or --init-config with --tokenizer")),
        };
        let assets = flags.model.iter().chain(&flags.tokenizer).cloned().collect();
        Ok(Self { config, directory: flags.model.clone(), assets, seed })
    }

    pub fn of_model(model: &Path, seed: u64) -> Result<Self> {
        let flags = Start { model: Some(model.to_path_buf()), init_config: None, tokenizer: None };
        Self::new(&flags, seed)
    }

    /// Opens the model, or draws random weights from the seed.
    pub fn model(&self) -> Result<Model> {
        match &self.directory {
            Some(directory) => Model::open(directory).map_err(fault),
            None => Model::init(&self.config, self.seed).map_err(fault),
        }
    }

    /// What the run's result depends on through its beginning.
    pub fn identity(&self) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        map.insert("config".into(), self.config.to_json());
        map.insert("seed".into(), self.seed.into());
        if let Some(directory) = &self.directory {
            map.insert("weights".into(), hash_weights(directory)?.into());
        }
        Ok(map)
    }

    /// Writes a complete Hugging Face directory, except its history.
    pub fn write(&self, model: &Model, dtype: WeightType, to: &Path) -> Result<()> {
        let dtype = match dtype {
            WeightType::F32 => cognate_model::Dtype::F32,
            WeightType::Bf16 => cognate_model::Dtype::Bf16,
        };
        model.save(to, dtype).map_err(fault)?;
        // The weights' file is written readable by its owner alone; a model is for whoever may read its config.
        let mode = std::fs::metadata(to.join("config.json"))?.permissions();
        std::fs::set_permissions(to.join("model.safetensors"), mode)?;
        for from in &self.assets {
            assets::carry(from, to)?;
        }
        assets::generation_config(&self.config, to)
    }

    /// Writes the run's result, whole or not at all.
    pub fn deliver(
        &self,
        model: &Model,
        dtype: WeightType,
        history: &Provenance,
        summary: &Value,
        to: &Path,
    ) -> Result<()> {
        let place = || to.display().to_string();
        let dir = AtomicDir::create(to).with_context(place)?;
        self.write(model, dtype, dir.building())?;
        assets::provenance(history, dir.building())?;
        std::fs::write(dir.building().join("training.json"), serde_json::to_string_pretty(summary)? + "\n")
            .with_context(place)?;
        dir.commit().with_context(place)
    }

    /// The history of the output: this step, and that of every directory it began from.
    pub fn history(&self, common: &cognate_cli::Common) -> Result<Provenance> {
        let mut history = common.provenance("cog-train", env!("CARGO_PKG_VERSION"));
        for from in &self.assets {
            history = history.input(from)?;
        }
        Ok(history)
    }
}

/// The settings of the optimizer that decide a result.
pub fn optimisation_identity(flags: &Optimisation, schedule: &Schedule) -> Map<String, Value> {
    let mut fields = json!({
        "lr": flags.lr, "schedule": flags.schedule, "warmup": flags.warmup, "final-lr": flags.final_lr,
        "decay": flags.decay, "beta1": flags.beta1, "beta2": flags.beta2, "adam-eps": flags.adam_eps,
        "weight-decay": flags.weight_decay, "clip": flags.clip, "micro-tokens": flags.micro_tokens,
    });
    let mut map = fields.as_object_mut().map(std::mem::take).unwrap_or_default();
    // A constant rate leaves the number of steps open: such a run can be prolonged.
    if schedule.needs_total() {
        map.insert("steps".into(), schedule.total.into());
    }
    map
}

/// XXH3 of a model's weight files in name order.
fn hash_weights(directory: &Path) -> Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(&path).with_context(|| path.display().to_string())?;
        loop {
            match file.read(&mut buffer).with_context(|| path.display().to_string())? {
                0 => break,
                n => hash.update(&buffer[..n]),
            }
        }
    }
    Ok(format!("{:032x}", hash.digest128()))
}

/// Default place of a run's state: `OUTPUT.ckpt`.
pub fn state_path(output: &Path) -> PathBuf {
    let mut name = output.components().as_path().as_os_str().to_owned();
    name.push(".ckpt");
    PathBuf::from(name)
}

/// Ends the process after a signal for which the state was saved: 0 for SIGTERM (a scheduler's polite request, the
/// command is to be given again), 130 for SIGINT.
pub fn leave(signal: i32, state: &Path, step: u64, steps: u64) -> ! {
    eprintln!(
        "stopped by signal {signal} after step {step} of {steps}; the state is in {}; the same command goes on",
        state.display()
    );
    const SIGTERM: i32 = 15;
    std::process::exit(if signal == SIGTERM { 0 } else { 128 + signal })
}
