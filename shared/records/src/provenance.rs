//! A file's history: which tools made it, from what, with which arguments (as the @PG lines of SAM do).
//!
//! It holds no time, host, thread count or absolute path, so that equal runs give equal bytes.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{Error, Result};

/// One run of one tool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub tool: String,
    pub version: String,
    pub arguments: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
}

/// A file that a step read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// File name without folders.
    pub name: String,
    /// XXH3, 128 bits, hexadecimal.
    pub xxh3: String,
    /// Index of the step that wrote it, where it carried a history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<usize>,
}

/// Steps in order; the last one wrote the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    pub steps: Vec<Step>,
    /// The step being recorded.
    #[serde(skip)]
    current: Step,
}

impl Provenance {
    /// Starts the history of a file that `tool` is about to write.
    pub fn step(tool: &str, version: &str, arguments: Vec<String>, seed: Option<u64>) -> Self {
        let current =
            Step { tool: tool.into(), version: version.into(), arguments, seed, inputs: Vec::new() };
        Self { steps: Vec::new(), current }
    }

    /// Adds an input file with its hash and its own history. `-` (stdin) or another stream adds nothing: a pipe has no
    /// history, and what it carried is gone.
    ///
    /// # Errors
    /// When the file cannot be read or its history is damaged.
    pub fn input(mut self, path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" || crate::is_stream(path) {
            return Ok(self);
        }
        let earlier = of_file(path)?;
        let mut from = None;
        if let Some(earlier) = earlier {
            let mut moved = Vec::with_capacity(earlier.steps.len());
            for mut step in earlier.steps {
                for input in &mut step.inputs {
                    input.from = input.from.and_then(|i| moved.get(i).copied());
                }
                let at = self.steps.iter().position(|s| *s == step).unwrap_or_else(|| {
                    self.steps.push(step);
                    self.steps.len() - 1
                });
                moved.push(at);
            }
            from = moved.last().copied();
        }
        let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        self.current.inputs.push(Input { name, xxh3: hash_file(path)?, from });
        Ok(self)
    }

    pub fn to_text(&self) -> String {
        let mut steps = self.steps.clone();
        if !self.current.tool.is_empty() {
            steps.push(self.current.clone());
        }
        serde_json::to_string(&Self { steps, current: Step::default() }).expect("plain data")
    }

    /// # Errors
    /// A reason without place.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        serde_json::from_str(text).map_err(|e| format!("provenance: {e}"))
    }

    fn sidecar(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".provenance.json");
        PathBuf::from(name)
    }

    /// The history in the sidecar `FILE.provenance.json`, if there is one.
    pub(crate) fn beside(path: &Path) -> Result<Option<Self>> {
        let sidecar = Self::sidecar(path);
        match std::fs::read_to_string(&sidecar) {
            Ok(text) => {
                Self::parse(&text).map(Some).map_err(|e| Error::data(sidecar.display().to_string(), e))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&sidecar, e)),
        }
    }

    /// Removes the sidecar of `path`, if there is one.
    pub(crate) fn remove_beside(path: &Path) -> Result<()> {
        let sidecar = Self::sidecar(path);
        match std::fs::remove_file(&sidecar) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io(&sidecar, e)),
            _ => Ok(()),
        }
    }

    /// Writes the sidecar of `path`; a stream has none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_beside(&self, path: &Path) -> Result<()> {
        if cognate_output::written_in_place(path) {
            return Ok(());
        }
        let sidecar = Self::sidecar(path);
        let text = self.to_text() + "\n";
        cognate_output::write_file(&sidecar, text.as_bytes()).map_err(|e| Error::io(&sidecar, e))
    }
}

/// The history that a file carries: Parquet footer or sidecar. A directory (a model, a tokenizer) carries it as
/// `provenance.json` inside.
fn of_file(path: &Path) -> Result<Option<Provenance>> {
    if path.is_dir() {
        let inside = path.join("provenance.json");
        return match std::fs::read_to_string(&inside) {
            Ok(text) => {
                Provenance::parse(&text).map(Some).map_err(|e| Error::data(inside.display().to_string(), e))
            }
            Err(_) => Ok(None),
        };
    }
    if crate::detect_format(path)? == crate::Format::Parquet {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let metadata = parquet::file::reader::SerializedFileReader::new(file).map_err(|e| {
            Error::data(path.display().to_string(), format!("truncated or damaged Parquet file: {e}"))
        })?;
        let metadata = parquet::file::reader::FileReader::metadata(&metadata).file_metadata();
        let text = metadata
            .key_value_metadata()
            .and_then(|pairs| pairs.iter().find(|p| p.key == crate::reader::PROVENANCE_KEY))
            .and_then(|p| p.value.clone());
        return match text {
            Some(text) => {
                Provenance::parse(&text).map(Some).map_err(|e| Error::data(path.display().to_string(), e))
            }
            None => Ok(None),
        };
    }
    Provenance::beside(path)
}

/// XXH3-128 of a file's bytes, or of a directory's `config.json`, `tokenizer.json` and weights, in the order of their names.
fn hash_file(path: &Path) -> Result<String> {
    let mut hash = Xxh3::new();
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
        let files = entries.flatten().map(|e| e.path());
        let mut weights: Vec<PathBuf> =
            files.filter(|f| f.extension().is_some_and(|e| e == "safetensors")).collect();
        weights.sort();
        let named = ["config.json", "tokenizer.json"].map(|name| path.join(name));
        for inside in named.into_iter().filter(|f| f.exists()).chain(weights) {
            hash_into(&inside, &mut hash)?;
        }
    } else {
        hash_into(path, &mut hash)?;
    }
    Ok(format!("{:032x}", hash.digest128()))
}

fn hash_into(path: &Path, hash: &mut Xxh3) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(()),
            n => hash.update(&buffer[..n]),
        }
    }
}
