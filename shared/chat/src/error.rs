//! What can be wrong with a tokenizer directory or with messages.

use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The files or the messages are at fault: exit code 3. `place` is a file, or says which messages.
    #[error("{place}: {reason}")]
    Data { place: String, reason: String },
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
}

impl ChatError {
    pub(crate) fn data(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Data { place: place.into(), reason: reason.into() }
    }

    pub(crate) fn file(path: &Path, reason: impl Into<String>) -> Self {
        Self::data(path.display().to_string(), reason)
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// True when the input is at fault, so that the exit code is 3.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Data { .. })
    }
}
