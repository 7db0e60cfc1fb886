//! Where a run begins: a model directory, or a shape and a seed; and what decides its result.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use cognate_model::cuda::Purpose;
use cognate_model::placed::{self, Place};
use cognate_model::{LlamaConfig, Model};
use cognate_output::AtomicDir;
use cognate_records::Provenance;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::Xxh3;

use crate::assets;
use crate::cli::{Keeping, Optimisation, PlanDevice, Start, WeightType};
use crate::optimise::{Learner, fault};
use crate::schedule::Schedule;

/// The initial model, not yet opened.
pub struct Origin {
    pub config: LlamaConfig,
    /// The model's directory; `None` for random weights.
    directory: Option<PathBuf>,
    /// Directories whose tokenizer and templates go into every model written; later ones win.
    assets: Vec<PathBuf>,
    seed: u64,
    /// Where it is computed; `None`: on the CPU.
    place: Place,
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
        Ok(Self { config, directory: flags.model.clone(), assets, seed, place: None })
    }

    pub fn of_model(model: &Path, seed: u64) -> Result<Self> {
        let flags = Start { model: Some(model.to_path_buf()), init_config: None, tokenizer: None };
        Self::new(&flags, seed)
    }

    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Computes on the device that `flags` name from now on.
    pub fn on(self, common: &cognate_cli::Common, flags: &Optimisation) -> Result<Self> {
        self.on_rank(common, flags, (0, 1))
    }

    /// The same as process `rank` of `size`.
    pub fn on_rank(
        mut self,
        common: &cognate_cli::Common,
        flags: &Optimisation,
        (rank, size): (u64, u64),
    ) -> Result<Self> {
        let rank = (rank as usize, size as usize);
        // All would say the same.
        let say = |why: &str| {
            if rank.0 == 0 {
                common.note(why)
            }
        };
        self.place = placed::place_rank(flags.device, rank, &self.config, say).map_err(fault)?;
        Ok(self)
    }

    /// What the run's memory is planned for.
    pub fn plan_device(&self) -> PlanDevice {
        if self.place.is_some() { PlanDevice::Cuda } else { PlanDevice::Cpu }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Opens a model directory where this run computes.
    pub fn open(&self, directory: &Path, purpose: Purpose) -> Result<placed::Model> {
        placed::Model::open(directory, &self.place, purpose).map_err(fault)
    }

    /// [`Self::model`] where this run computes.
    pub fn placed(&self, purpose: Purpose) -> Result<placed::Model> {
        match &self.directory {
            Some(directory) => self.open(directory, purpose),
            None => placed::Model::put(self.model()?, &self.place, purpose).map_err(fault),
        }
    }

    /// Opens the model on the CPU, or draws random weights from the seed.
    pub fn model(&self) -> Result<Model> {
        match &self.directory {
            Some(directory) => Model::open(directory).map_err(fault),
            None => Model::init(&self.config, self.seed).map_err(fault),
        }
    }

    /// What adapters name as the model that they belong to.
    pub fn name(&self) -> String {
        self.directory.as_deref().map_or_else(String::new, |path| path.display().to_string())
    }

    /// What the run's result depends on through its beginning.
    pub fn identity(&self) -> Result<Map<String, Value>> {
        let mut map = Map::new();
        map.insert("config".into(), self.config.to_json());
        map.insert("seed".into(), self.seed.into());
        if let Some(directory) = &self.directory {
            map.insert("weights".into(), hash_weights(directory)?.into());
        }
        if self.place.is_some() {
            map.insert("device".into(), "cuda".into());
        }
        Ok(map)
    }

    /// Writes a complete Hugging Face directory, except its history.
    pub fn write(&self, model: &placed::Model, dtype: WeightType, to: &Path) -> Result<()> {
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

    /// Writes the run's adapter, whole or not at all, where one was trained and asked for.
    pub fn deliver_adapter(&self, learner: &Learner, keeping: &Keeping) -> Result<()> {
        let Some(to) = &keeping.adapter else { return Ok(()) };
        let place = || to.display().to_string();
        let dir = AtomicDir::create(to).with_context(place)?;
        learner.save_adapter(dir.building(), &self.name())?;
        dir.commit().with_context(place)
    }

    /// Writes the run's result, whole or not at all.
    pub fn deliver(
        &self,
        model: &placed::Model,
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
    map.extend(flags.freeze.as_ref().map(|names| ("freeze".to_owned(), names.as_str().into())));
    if flags.lora_rank > 0 {
        let lora = json!({"rank": flags.lora_rank, "alpha": flags.lora_alpha, "targets": flags.lora_targets});
        map.insert("lora".into(), lora);
    }
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

/// Why a run stops before its end.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    Signal(i32),
    /// `--max-time` is over.
    Time,
    /// Another rank stops.
    Rank,
}

/// Whether a run that began at `begun` is to stop now.
pub fn stop(flags: &Keeping, begun: Instant) -> Option<Stop> {
    let late = flags.max_time.is_some_and(|limit| begun.elapsed().as_secs_f64() >= limit);
    cognate_output::signal().map(Stop::Signal).or(late.then_some(Stop::Time))
}

/// Ends the process, whose state was saved: 0 for SIGTERM (a scheduler's polite request, the command is to be given
/// again) and at the end of the time, 130 for SIGINT.
pub fn leave(why: Stop, state: &Path, step: u64, steps: u64) -> ! {
    const SIGTERM: i32 = 15;
    let (cause, code) = match why {
        Stop::Signal(SIGTERM) => (format!("signal {SIGTERM}"), 0),
        Stop::Signal(signal) => (format!("signal {signal}"), 128 + signal),
        Stop::Time => ("--max-time".to_owned(), 0),
        Stop::Rank => ("another rank".to_owned(), 0),
    };
    let state = state.display();
    cognate_cli::say(format_args!(
        "stopped by {cause} after step {step} of {steps}; the state is in {state}; the same command goes on"
    ));
    std::process::exit(code)
}
