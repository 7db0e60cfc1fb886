//! Names inside a policy directory, and reading them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::{PolicyError, Request, Result};

/// A policy directory, seen by a reader. Nothing is created.
#[derive(Debug, Clone)]
pub struct PolicyDir {
    path: PathBuf,
}

impl PolicyDir {
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the model of `version` stands, whether it exists or not.
    pub fn version_path(&self, version: u64) -> PathBuf {
        self.path.join(version.to_string())
    }

    pub(crate) fn lock_path(&self) -> PathBuf {
        self.path.join("trainer.lock")
    }

    pub(crate) fn request_path(&self) -> PathBuf {
        self.path.join("request.json")
    }

    /// Versions that can be read now, ascending.
    ///
    /// # Errors
    /// When the directory cannot be listed; a missing one holds no versions.
    pub fn versions(&self) -> Result<Vec<u64>> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(PolicyError::io(&self.path, e)),
        };
        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| PolicyError::io(&self.path, e))?;
            // Only a name that we would write ourselves counts: `017` or `+17` are somebody else's.
            if let Some(v) = entry.file_name().to_str().and_then(|n| n.parse::<u64>().ok())
                && entry.file_name().to_str() == Some(v.to_string().as_str())
            {
                versions.push(v);
            }
        }
        versions.sort_unstable();
        Ok(versions)
    }

    /// The version that `current` points to; `None` before the first one.
    ///
    /// # Errors
    /// When the link cannot be read or points elsewhere than to a version.
    pub fn current(&self) -> Result<Option<u64>> {
        let link = self.path.join("current");
        match fs::read_link(&link) {
            Ok(target) => {
                target.file_name().and_then(|n| n.to_str()).and_then(|n| n.parse().ok()).map(Some).ok_or_else(
                    || PolicyError::Data { path: link, reason: format!("points to {}", target.display()) },
                )
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PolicyError::io(&link, e)),
        }
    }

    /// What the trainer asks for; `None` before it asks for anything.
    ///
    /// # Errors
    /// When the file is unreadable or not a request.
    pub fn request(&self) -> Result<Option<Request>> {
        let path = self.request_path();
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| PolicyError::Data { path, reason: format!("not a request: {e}") }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(PolicyError::io(&path, e)),
        }
    }

    /// Whether a trainer of this suite holds the directory now; `None` when there is no lock file to tell by.
    pub fn trainer_lives(&self) -> Option<bool> {
        let file = fs::File::open(self.lock_path()).ok()?;
        // A shared lock that succeeds proves that nobody holds the exclusive one; closing the file gives it back.
        Some(matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock)))
    }

    /// Session number in the lock file.
    pub(crate) fn session(&self) -> Option<u64> {
        fs::read_to_string(self.lock_path()).ok()?.trim().parse().ok()
    }
}
