//! Safetensors in and out: weights by memory map from one file or from the shards that an index
//! lists; written as one file, the same bytes for the same weights.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

use cognate_kernels::Tensor;
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{SafeTensors, TensorView, View};
use serde_json::Value;

use crate::weights::Slot;
use crate::{LlamaConfig, ModelError, Weights};

/// The type that weights are written as. Reading accepts F32, BF16 and F16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dtype {
    #[default]
    F32,
    Bf16,
}

impl Dtype {
    /// The name that `config.json` uses.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "float32",
            Dtype::Bf16 => "bfloat16",
        }
    }
}

/// A mapped safetensors file.
struct Mapped {
    path: PathBuf,
    map: Mmap,
}

impl Mapped {
    fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io(path))?;
        // SAFETY: the map is private to this process and read once, into tensors; a writer that
        // truncated the file meanwhile would kill us, as it would any reader of a mapped model.
        let map = unsafe { Mmap::map(&file) }.map_err(ModelError::io(path))?;
        Ok(Mapped { path: path.into(), map })
    }

    fn parse(&self) -> Result<SafeTensors<'_>, ModelError> {
        SafeTensors::deserialize(&self.map)
            .map_err(|e| ModelError::Format { path: self.path.clone(), reason: e.to_string() })
    }
}

/// The files of a model directory.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let single = dir.join("model.safetensors");
    let index = dir.join("model.safetensors.index.json");
    if single.exists() || !index.exists() {
        return Ok(vec![single]);
    }
    let text = std::fs::read_to_string(&index).map_err(ModelError::io(&index))?;
    let bad = |reason: String| ModelError::Format { path: index.clone(), reason };
    let value: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let map =
        value.get("weight_map").and_then(Value::as_object).ok_or_else(|| bad("no weight_map".into()))?;
    let mut names = std::collections::BTreeSet::new();
    for (tensor, file) in map {
        let file = file.as_str().filter(|f| !f.contains(['/', '\\']) && *f != "..");
        names.insert(file.ok_or_else(|| bad(format!("weight_map: {tensor}: not a file name")))?);
    }
    if names.is_empty() {
        return Err(bad("weight_map is empty".into()));
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Reads all weights of `config` from `dir`.
pub(crate) fn read_weights(
    weights: &mut Weights,
    config: &LlamaConfig,
    dir: &Path,
) -> Result<(), ModelError> {
    let files = weight_files(dir)?.iter().map(|path| Mapped::open(path)).collect::<Result<Vec<_>, _>>()?;
    let parsed = files.iter().map(Mapped::parse).collect::<Result<Vec<_>, _>>()?;
    let mut found: HashMap<String, (usize, TensorView<'_>)> = HashMap::new();
    for (f, tensors) in parsed.iter().enumerate() {
        for (name, view) in tensors.iter() {
            found.insert(name.to_owned(), (f, view));
        }
    }
    let slots = weights.slots(config);
    let mut tensors = weights.tensors_mut();
    for slot in &slots {
        let Some((f, view)) = found.remove(&slot.name) else {
            let path = if files.len() == 1 { files[0].path.clone() } else { dir.into() };
            return Err(ModelError::MissingTensor { path, name: slot.name.clone() });
        };
        read_slot(tensors[slot.tensor], slot, &view, &files[f].path)?;
    }
    // Old files carry the rotary frequencies, and tied ones sometimes a copy of the embedding.
    let tied = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    found.retain(|name, _| !name.ends_with("rotary_emb.inv_freq") && !tied(name));
    match found.into_iter().min_by(|a, b| a.0.cmp(&b.0)) {
        Some((name, (f, _))) => Err(ModelError::ExtraTensor { path: files[f].path.clone(), name }),
        None => Ok(()),
    }
}

fn read_slot(tensor: &mut Tensor, slot: &Slot, view: &TensorView<'_>, path: &Path) -> Result<(), ModelError> {
    if view.shape() != slot.shape.as_slice() {
        return Err(ModelError::Shape {
            path: path.into(),
            name: slot.name.clone(),
            expected: slot.shape.clone(),
            found: view.shape().to_vec(),
        });
    }
    let out = &mut tensor.f32_mut()[slot.offset..slot.offset + slot.len()];
    let bytes = view.data();
    // Bytes of a mapped file need not be aligned for their type.
    match view.dtype() {
        safetensors::Dtype::F32 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *x = f32::from_le_bytes(*b);
            }
        }
        safetensors::Dtype::BF16 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = bf16::from_le_bytes(*b).to_f32();
            }
        }
        safetensors::Dtype::F16 => {
            for (x, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *x = f16::from_le_bytes(*b).to_f32();
            }
        }
        other => {
            let dtype = format!("{other:?}");
            return Err(ModelError::TensorType { path: path.into(), name: slot.name.clone(), dtype });
        }
    }
    Ok(())
}

/// A part of a tensor as the writer sees it, converted when its turn comes.
struct Part<'a> {
    values: &'a [f32],
    shape: &'a [usize],
    dtype: Dtype,
}

impl View for Part<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.dtype {
            Dtype::F32 if cfg!(target_endian = "little") => Cow::Borrowed(bytemuck::cast_slice(self.values)),
            Dtype::F32 => Cow::Owned(self.values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            Dtype::Bf16 => {
                let mut half = vec![bf16::ZERO; self.values.len()];
                half.convert_from_f32_slice(self.values);
                Cow::Owned(half.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        }
    }

    fn data_len(&self) -> usize {
        let width = match self.dtype {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        };
        self.values.len() * width
    }
}

/// Writes sets of weights under a prefix each (`""` for a model) to one file, and makes it
/// durable.
pub(crate) fn write_weights(
    sets: &[(&str, &Weights)],
    config: &LlamaConfig,
    path: &Path,
    dtype: Dtype,
    metadata: &BTreeMap<String, String>,
) -> Result<(), ModelError> {
    let mut slots = Vec::new();
    for (prefix, weights) in sets {
        let tensors = weights.tensors();
        for slot in weights.slots(config) {
            slots.push((format!("{prefix}{}", slot.name), tensors[slot.tensor], slot));
        }
    }
    let parts = slots.iter().map(|(name, tensor, slot)| {
        let values = &tensor.f32()[slot.offset..slot.offset + slot.len()];
        (name.as_str(), Part { values, shape: &slot.shape, dtype })
    });
    // One key at most, or the header's order would be that of a hash map.
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    safetensors::serialize_to_file(parts, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => ModelError::Io { path: path.into(), source },
        other => ModelError::Format { path: path.into(), reason: other.to_string() },
    })?;
    File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}

/// Reads sets of weights written by [`write_weights`] and returns the file's metadata.
pub(crate) fn read_sets(
    sets: &mut [(&str, &mut Weights)],
    config: &LlamaConfig,
    path: &Path,
) -> Result<HashMap<String, String>, ModelError> {
    let file = Mapped::open(path)?;
    let parsed = file.parse()?;
    for (prefix, weights) in sets {
        let slots = weights.slots(config);
        let mut tensors = weights.tensors_mut();
        for slot in &slots {
            let name = format!("{prefix}{}", slot.name);
            let view =
                parsed.tensor(&name).map_err(|_| ModelError::MissingTensor { path: path.into(), name })?;
            read_slot(tensors[slot.tensor], slot, &view, path)?;
        }
    }
    let (_, header) = SafeTensors::read_metadata(&file.map)
        .map_err(|e| ModelError::Format { path: path.into(), reason: e.to_string() })?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// Writes flat parts under names to one file, and makes it durable.
pub(crate) fn write_parts(
    path: &Path,
    parts: &[(String, &[f32])],
    metadata: HashMap<String, String>,
) -> Result<(), ModelError> {
    let shapes: Vec<[usize; 1]> = parts.iter().map(|(_, values)| [values.len()]).collect();
    let views = parts.iter().zip(&shapes).map(|((name, values), shape)| {
        (name.as_str(), Part { values, shape: shape.as_slice(), dtype: Dtype::F32 })
    });
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => ModelError::Io { path: path.into(), source },
        other => ModelError::Format { path: path.into(), reason: other.to_string() },
    })?;
    File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}

/// Reads what [`write_parts`] wrote into places of the same lengths; returns the file's metadata.
pub(crate) fn read_parts<'a>(
    path: &Path,
    parts: impl Iterator<Item = (String, &'a mut [f32])>,
) -> Result<HashMap<String, String>, ModelError> {
    let file = Mapped::open(path)?;
    let parsed = file.parse()?;
    for (name, part) in parts {
        let Ok(view) = parsed.tensor(&name) else {
            return Err(ModelError::MissingTensor { path: path.into(), name });
        };
        if view.shape() != [part.len()] || view.dtype() != safetensors::Dtype::F32 {
            let (expected, found) = (vec![part.len()], view.shape().to_vec());
            return Err(ModelError::Shape { path: path.into(), name, expected, found });
        }
        for (to, from) in part.iter_mut().zip(view.data().as_chunks::<4>().0) {
            *to = f32::from_le_bytes(*from);
        }
    }
    let (_, header) = SafeTensors::read_metadata(&file.map)
        .map_err(|e| ModelError::Format { path: path.into(), reason: e.to_string() })?;
    Ok(header.metadata().clone().unwrap_or_default())
}
