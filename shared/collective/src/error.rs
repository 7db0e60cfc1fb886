//! What can go wrong between ranks.

use std::path::PathBuf;

/// An error of this crate. Texts are fragments that name the place and the cause.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectiveError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// A process that has ended while others waited for it.
    #[error("rank {rank} has ended while others waited for it ({during})")]
    Gone { rank: usize, during: &'static str },
    /// A process that has never begun.
    #[error("{}: rank {rank} has not come within {seconds} s", path.display())]
    Absent { path: PathBuf, rank: usize, seconds: u64 },
    /// Two processes of one rank.
    #[error("{}: another process is rank {rank} here", path.display())]
    Taken { path: PathBuf, rank: usize },
    /// Ranks that were started differently.
    #[error("{}: rank 0 was started for {theirs} ranks, this one for {ours}", path.display())]
    Size { path: PathBuf, theirs: usize, ours: usize },
    #[error("rank {rank} of {size}: ranks count from 0")]
    Rank { rank: usize, size: usize },
    /// A library that is not installed.
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("NCCL: {place}: {reason}")]
    Nccl { place: &'static str, reason: String },
}

impl CollectiveError {
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}
