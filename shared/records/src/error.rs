//! Two kinds of failure: the data is wrong (exit code 3), or the system failed (exit code 1).

use std::path::{Path, PathBuf};

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `place` is `file:line` for JSONL, `file: row N` for Parquet, or a file name.
    #[error("{place}: {reason}")]
    Data { place: String, reason: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl Error {
    pub fn data(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Data { place: place.into(), reason: reason.into() }
    }

    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// True when the input is at fault, so that the exit code is 3.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Data { .. })
    }
}
