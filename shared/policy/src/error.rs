//! What can go wrong between trainer and sampler.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub type Result<T, E = PolicyError> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A file of the directory does not hold what it should.
    #[error("{}: {reason}", path.display())]
    Data { path: PathBuf, reason: String },
    #[error("{}: another trainer publishes here", path.display())]
    Busy { path: PathBuf },
    #[error("{}: no trainer appeared within {} s; is cog-train rl --policy running?", path.display(), waited.as_secs())]
    NoTrainer { path: PathBuf, waited: Duration },
    #[error("{}: the trainer ended while version {version} was awaited", path.display())]
    TrainerGone { path: PathBuf, version: u64 },
    #[error("{}: version {version} did not appear within {} s", path.display(), waited.as_secs())]
    Timeout { path: PathBuf, version: u64, waited: Duration },
    #[error("{}: version {version} is no longer kept (newest is {newest})", path.display())]
    Expired { path: PathBuf, version: u64, newest: u64 },
}

impl PolicyError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    /// True when the directory's contents are at fault, so that the exit code is 3.
    pub fn is_data(&self) -> bool {
        matches!(self, Self::Data { .. })
    }
}
