//! Safetensors in and out: weights by memory map from one file or from the shards that an index
//! lists; written as one file, the same bytes for the same weights.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::path::{Path, PathBuf};

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

/// Where weights come from when they are written: tensors of the CPU, or a device that is asked
/// for one slot after another.
pub(crate) trait Source {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot>;
    fn values(&self, slot: &Slot) -> Result<Cow<'_, [f32]>, ModelError>;
}

/// Where weights go when they are read: `read` fills the values of one slot.
pub(crate) trait Sink {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot>;
    fn put(&mut self, slot: &Slot, read: Fill<'_>) -> Result<(), ModelError>;
}

/// Fills as many values as a slot has.
pub(crate) type Fill<'f> = &'f mut dyn FnMut(&mut [f32]) -> Result<(), ModelError>;

impl Source for Weights {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        Weights::slots(self, config)
    }

    fn values(&self, slot: &Slot) -> Result<Cow<'_, [f32]>, ModelError> {
        Ok(Cow::Borrowed(&self.tensors()[slot.tensor].f32()[slot.offset..slot.offset + slot.len()]))
    }
}

impl Sink for Weights {
    fn slots(&self, config: &LlamaConfig) -> Vec<Slot> {
        Weights::slots(self, config)
    }

    fn put(&mut self, slot: &Slot, read: Fill<'_>) -> Result<(), ModelError> {
        read(&mut self.tensors_mut()[slot.tensor].f32_mut()[slot.offset..slot.offset + slot.len()])
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
    weights: &mut dyn Sink,
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
    for slot in &weights.slots(config) {
        let Some((f, view)) = found.remove(&slot.name) else {
            let path = if files.len() == 1 { files[0].path.clone() } else { dir.into() };
            return Err(ModelError::MissingTensor { path, name: slot.name.clone() });
        };
        weights.put(slot, &mut |out| read_slot(out, slot, &view, &files[f].path))?;
    }
    // Old files carry the rotary frequencies, and tied ones sometimes a copy of the embedding.
    let tied = |name: &str| config.tie_word_embeddings && name == "lm_head.weight";
    found.retain(|name, _| !name.ends_with("rotary_emb.inv_freq") && !tied(name));
    match found.into_iter().min_by(|a, b| a.0.cmp(&b.0)) {
        Some((name, (f, _))) => Err(ModelError::ExtraTensor { path: files[f].path.clone(), name }),
        None => Ok(()),
    }
}

fn read_slot(out: &mut [f32], slot: &Slot, view: &TensorView<'_>, path: &Path) -> Result<(), ModelError> {
    if view.shape() != slot.shape.as_slice() {
        return Err(ModelError::Shape {
            path: path.into(),
            name: slot.name.clone(),
            expected: slot.shape.clone(),
            found: view.shape().to_vec(),
        });
    }
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
    source: &'a dyn Source,
    slot: &'a Slot,
    dtype: Dtype,
    /// Why a device did not give its values; the writer has no way to say so.
    failed: &'a RefCell<Option<ModelError>>,
}

impl View for Part<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.slot.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.source.values(self.slot).unwrap_or_else(|error| {
            self.failed.borrow_mut().get_or_insert(error);
            Cow::Owned(vec![0.0; self.slot.len()])
        });
        match (self.dtype, values) {
            (Dtype::F32, Cow::Borrowed(values)) => bytes(values),
            (Dtype::F32, values) => Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect()),
            (Dtype::Bf16, values) => {
                let mut half = vec![bf16::ZERO; values.len()];
                half.convert_from_f32_slice(&values);
                Cow::Owned(half.iter().flat_map(|x| x.to_le_bytes()).collect())
            }
        }
    }

    fn data_len(&self) -> usize {
        let width = match self.dtype {
            Dtype::F32 => 4,
            Dtype::Bf16 => 2,
        };
        self.slot.len() * width
    }
}

/// Values as a file has them.
fn bytes(values: &[f32]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(values));
    }
    Cow::Owned(values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

/// Writes sets of weights under a prefix each (`""` for a model) to one file, and makes it
/// durable.
pub(crate) fn write_weights(
    sets: &[(&str, &dyn Source)],
    config: &LlamaConfig,
    path: &Path,
    dtype: Dtype,
    metadata: &BTreeMap<String, String>,
) -> Result<(), ModelError> {
    let mut slots = Vec::new();
    for &(prefix, source) in sets {
        for slot in source.slots(config) {
            slots.push((format!("{prefix}{}", slot.name), source, slot));
        }
    }
    let failed = RefCell::new(None);
    let parts = slots
        .iter()
        .map(|(name, source, slot)| (name.as_str(), Part { source: *source, slot, dtype, failed: &failed }));
    // One key at most, or the header's order would be that of a hash map.
    let metadata: HashMap<String, String> = metadata.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    safetensors::serialize_to_file(parts, Some(metadata), path).map_err(|e| match e {
        safetensors::SafeTensorError::IoError(source) => ModelError::Io { path: path.into(), source },
        other => ModelError::Format { path: path.into(), reason: other.to_string() },
    })?;
    if let Some(error) = failed.take() {
        return Err(error);
    }
    File::open(path).and_then(|f| f.sync_all()).map_err(ModelError::io(path))
}

/// Reads sets of weights written by [`write_weights`] and returns the file's metadata.
pub(crate) fn read_sets(
    sets: &mut [(&str, &mut dyn Sink)],
    config: &LlamaConfig,
    path: &Path,
) -> Result<HashMap<String, String>, ModelError> {
    let file = Mapped::open(path)?;
    let parsed = file.parse()?;
    for (prefix, weights) in sets {
        for slot in &weights.slots(config) {
            let name = format!("{prefix}{}", slot.name);
            let view =
                parsed.tensor(&name).map_err(|_| ModelError::MissingTensor { path: path.into(), name })?;
            weights.put(slot, &mut |out| read_slot(out, slot, &view, path))?;
        }
    }
    let (_, header) = SafeTensors::read_metadata(&file.map)
        .map_err(|e| ModelError::Format { path: path.into(), reason: e.to_string() })?;
    Ok(header.metadata().clone().unwrap_or_default())
}

/// `f32` values as one row, and their number.
struct Flat<'a>(&'a [f32], usize);

impl View for Flat<'_> {
    fn dtype(&self) -> safetensors::Dtype {
        safetensors::Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        std::slice::from_ref(&self.1)
    }

    fn data(&self) -> Cow<'_, [u8]> {
        bytes(self.0)
    }

    fn data_len(&self) -> usize {
        size_of_val(self.0)
    }
}

/// Writes flat parts under names to one file, and makes it durable.
pub(crate) fn write_parts(
    path: &Path,
    parts: &[(String, &[f32])],
    metadata: HashMap<String, String>,
) -> Result<(), ModelError> {
    let views = parts.iter().map(|(name, values)| (name.as_str(), Flat(values, values.len())));
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
