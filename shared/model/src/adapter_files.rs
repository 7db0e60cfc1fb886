//! Adapters in files: the state that a run goes on from, and PEFT's directory. One text for every
//! device, so that a file does not tell where its factors were trained.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::weights::Slot;
use crate::{LoraConfig, ModelError};

/// The factors of an adapted matrix `[out, in]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// `[r, in]`
    A,
    /// `[out, r]`
    B,
}

impl Side {
    pub const BOTH: [Side; 2] = [Side::A, Side::B];

    fn letter(self) -> char {
        match self {
            Side::A => 'A',
            Side::B => 'B',
        }
    }

    pub fn shape(self, slot: &Slot, rank: usize) -> [usize; 2] {
        match self {
            Side::A => [rank, slot.shape[1]],
            Side::B => [slot.shape[0], rank],
        }
    }
}

/// What is kept of a factor: itself and AdamW's moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Weight,
    First,
    Second,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Weight, Kind::First, Kind::Second];

    fn prefix(self) -> &'static str {
        match self {
            Kind::Weight => "",
            Kind::First => "exp_avg.",
            Kind::Second => "exp_avg_sq.",
        }
    }
}

/// Factors wherever they are, as files see them: row-major `f32` of the shape that [`Side::shape`] gives.
pub(crate) trait Factors {
    fn config(&self) -> &LoraConfig;
    /// The adapted matrices; a part is an index into them.
    fn slots(&self) -> &[Slot];
    fn values(&self, part: usize, side: Side, kind: Kind) -> Result<Cow<'_, [f32]>, ModelError>;
    fn put(&mut self, part: usize, side: Side, kind: Kind, values: &[f32]) -> Result<(), ModelError>;
}

fn name(slot: &Slot, side: Side, kind: Kind) -> String {
    format!("{}{}.lora_{}", kind.prefix(), slot.name, side.letter())
}

/// Writes factors, moments and step count to `path`, durably. Atomicity is the caller's.
pub(crate) fn save(factors: &dyn Factors, steps: u64, path: &Path) -> Result<(), ModelError> {
    let kept = |slot: &Slot, side, kind| Some(name(slot, side, kind));
    write(path, factors, kept, HashMap::from([("steps".into(), steps.to_string())]))
}

/// Reads what [`save`] wrote; the step count.
pub(crate) fn open(factors: &mut dyn Factors, path: &Path) -> Result<u64, ModelError> {
    let bad = |reason: String| ModelError::Format { path: path.into(), reason };
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| bad(e.to_string()))?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| bad(e.to_string()))?;
    let steps = header.metadata().as_ref().and_then(|m| m.get("steps")?.parse().ok());
    let steps = steps.ok_or_else(|| bad("no step count: not a state of adapters".into()))?;
    let (slots, rank) = (factors.slots().to_vec(), factors.config().rank);
    for (part, slot) in slots.iter().enumerate() {
        for side in Side::BOTH {
            for kind in Kind::ALL {
                let name = name(slot, side, kind);
                let view = file.tensor(&name).map_err(|e| bad(format!("{name}: {e}")))?;
                let expected = side.shape(slot, rank).to_vec();
                if view.shape() != expected || view.dtype() != Dtype::F32 {
                    let found = view.shape().to_vec();
                    return Err(ModelError::Shape { path: path.into(), name, expected, found });
                }
                let values: Vec<f32> =
                    view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
                factors.put(part, side, kind, &values)?;
            }
        }
    }
    Ok(steps)
}

/// Writes `adapter_config.json` and `adapter_model.safetensors` in PEFT's layout into `dir`, which must
/// exist. `base` is recorded as the model that they belong to.
pub(crate) fn save_peft(factors: &dyn Factors, dir: &Path, base: &str) -> Result<(), ModelError> {
    let config = factors.config();
    let description = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "target_modules": config.targets,
    });
    let path = dir.join("adapter_config.json");
    std::fs::write(&path, format!("{description:#}\n")).map_err(ModelError::io(&path))?;
    let called = |slot: &Slot, side: Side, kind| {
        let module = slot.name.strip_suffix(".weight").unwrap_or(&slot.name);
        (kind == Kind::Weight).then(|| format!("base_model.model.{module}.lora_{}.weight", side.letter()))
    };
    let metadata = HashMap::from([("format".into(), "pt".into())]);
    write(&dir.join("adapter_model.safetensors"), factors, called, metadata)
}

/// Writes what `called` names.
fn write(
    path: &Path,
    factors: &dyn Factors,
    called: impl Fn(&Slot, Side, Kind) -> Option<String>,
    metadata: HashMap<String, String>,
) -> Result<(), ModelError> {
    let bad =
        |e: safetensors::SafeTensorError| ModelError::Format { path: path.into(), reason: e.to_string() };
    let mut owned = Vec::new();
    for (part, slot) in factors.slots().iter().enumerate() {
        for side in Side::BOTH {
            for kind in Kind::ALL {
                let Some(name) = called(slot, side, kind) else { continue };
                let values = factors.values(part, side, kind)?;
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                owned.push((name, side.shape(slot, factors.config().rank).to_vec(), bytes));
            }
        }
    }
    let views = owned.iter().map(|(name, shape, bytes)| {
        TensorView::new(Dtype::F32, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
    let bytes = safetensors::serialize(views, Some(metadata)).map_err(bad)?;
    std::fs::write(path, bytes).map_err(ModelError::io(path))?;
    std::fs::File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}
