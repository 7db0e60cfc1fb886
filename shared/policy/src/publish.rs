//! The trainer's side: publishes versions and asks for rollouts.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{PolicyDir, PolicyError, Request, Result};

/// The one writer of a policy directory. Nothing here is synced to disk: the directory is a channel that the trainer
/// can write again from its checkpoint and journal, and on one machine it lives in shared memory.
#[derive(Debug)]
pub struct Publisher {
    dir: PolicyDir,
    lock: File,
    session: u64,
    keep: usize,
    asked: Option<Request>,
}

impl Publisher {
    /// Takes the directory (created if missing) and withdraws the request of an earlier trainer. The newest `keep`
    /// versions (at least 2) will be kept.
    ///
    /// # Errors
    /// [`PolicyError::Busy`] when another trainer holds it.
    pub fn open(path: impl Into<PathBuf>, keep: usize) -> Result<Self> {
        let dir = PolicyDir::new(path);
        fs::create_dir_all(dir.path()).map_err(|e| PolicyError::io(dir.path(), e))?;
        let lock_path = dir.lock_path();
        let io = |e| PolicyError::io(&lock_path, e);
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&lock_path)
            .map_err(io)?;
        // Readers take a shared lock for an instant to see whether we live, so one refusal means nothing.
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(fs::TryLockError::WouldBlock) if begun.elapsed() < Duration::from_secs(2) => {
                    std::thread::sleep(Duration::from_millis(7));
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(PolicyError::Busy { path: dir.path().to_path_buf() });
                }
                Err(fs::TryLockError::Error(e)) => return Err(io(e)),
            }
        }
        // The old request goes before the new session number comes: no reader can take the one for the other.
        remove_if_there(&dir.request_path())?;
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(io)?;
        let session = text.trim().parse::<u64>().unwrap_or(0) + 1;
        lock.set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| writeln!(lock, "{session}"))
            .map_err(io)?;
        let publisher = Self { dir, lock, session, keep: keep.max(2), asked: None };
        publisher.remove_leftovers()?;
        Ok(publisher)
    }

    pub fn dir(&self) -> &PolicyDir {
        &self.dir
    }

    /// Removes the versions of every run but `run`, any text that names it: one that goes on trusts those it finds.
    ///
    /// # Errors
    /// When one cannot be removed, or the name not be read or written.
    pub fn belong_to(&mut self, run: &str) -> Result<()> {
        let path = self.dir.path().join("run");
        match fs::read(&path) {
            Ok(found) if found == run.as_bytes() => return Ok(()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(PolicyError::io(&path, e)),
            _ => {}
        }
        // In this order: a kill in between leaves nothing under a name that is not its own.
        self.clear()?;
        let temporary = self.dir.path().join(".run.tmp");
        fs::write(&temporary, run).map_err(|e| PolicyError::io(&temporary, e))?;
        fs::rename(&temporary, &path).map_err(|e| PolicyError::io(&path, e))
    }

    /// Removes every version: a new run begins.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn clear(&mut self) -> Result<()> {
        remove_if_there(&self.dir.path().join("current"))?;
        for version in self.dir.versions()? {
            self.remove(version)?;
        }
        Ok(())
    }

    /// Publishes a version: `build` writes the Hugging Face directory into the path that it is given, which then
    /// appears under its name in one step, and `current` points to it. Then versions beyond the newest `keep` go,
    /// except the one that the present request names. A version that exists already (a trainer that resumes
    /// publishes its newest again) is replaced; do so before the first [`Publisher::request`].
    ///
    /// # Errors
    /// Whatever `build` returns, or a failed write.
    pub fn publish<E: From<PolicyError>>(
        &mut self,
        version: u64,
        build: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<PathBuf, E> {
        let building = self.dir.path().join(format!(".{version}.tmp"));
        remove_if_there(&building)?;
        fs::create_dir(&building).map_err(|e| PolicyError::io(&building, e))?;
        if let Err(e) = build(&building) {
            let _ = fs::remove_dir_all(&building);
            return Err(e);
        }
        let path = self.dir.version_path(version);
        remove_if_there(&path)?;
        fs::rename(&building, &path).map_err(|e| PolicyError::io(&path, e))?;
        self.point_current(version)?;
        self.prune(version)?;
        Ok(path)
    }

    /// Asks the sampler for the rollouts of a step, or tells it that the run is done. `session` is filled in.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn request(&mut self, mut request: Request) -> Result<()> {
        request.session = Some(self.session);
        let path = self.dir.request_path();
        let temporary = self.dir.path().join(".request.tmp");
        let text = serde_json::to_string(&request).expect("plain data") + "\n";
        fs::write(&temporary, text).map_err(|e| PolicyError::io(&temporary, e))?;
        fs::rename(&temporary, &path).map_err(|e| PolicyError::io(&path, e))?;
        self.asked = Some(request);
        Ok(())
    }

    fn point_current(&self, version: u64) -> Result<()> {
        let link = self.dir.path().join("current");
        let temporary = self.dir.path().join(".current.tmp");
        remove_if_there(&temporary)?;
        std::os::unix::fs::symlink(version.to_string(), &temporary)
            .map_err(|e| PolicyError::io(&temporary, e))?;
        fs::rename(&temporary, &link).map_err(|e| PolicyError::io(&link, e))
    }

    fn prune(&self, newest: u64) -> Result<()> {
        let versions = self.dir.versions()?;
        let excess = versions.len().saturating_sub(self.keep);
        for &version in &versions[..excess] {
            if version != newest && self.asked.as_ref().is_none_or(|r| r.version != version) {
                self.remove(version)?;
            }
        }
        Ok(())
    }

    /// Moved aside first, so that a reader sees the version whole or not at all.
    fn remove(&self, version: u64) -> Result<()> {
        let path = self.dir.version_path(version);
        let aside = self.dir.path().join(format!(".{version}.old.tmp"));
        remove_if_there(&aside)?;
        fs::rename(&path, &aside).map_err(|e| PolicyError::io(&path, e))?;
        remove_if_there(&aside)
    }

    /// What a killed trainer left half-built.
    fn remove_leftovers(&self) -> Result<()> {
        let path = self.dir.path();
        for entry in fs::read_dir(path).map_err(|e| PolicyError::io(path, e))? {
            let name = entry.map_err(|e| PolicyError::io(path, e))?.file_name();
            if name.to_str().is_some_and(|n| n.starts_with('.') && n.ends_with(".tmp")) {
                remove_if_there(&path.join(name))?;
            }
        }
        Ok(())
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.lock.unlock();
    }
}

fn remove_if_there(path: &Path) -> Result<()> {
    let outcome = match fs::symlink_metadata(path) {
        Ok(m) if m.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(e) => Err(e),
    };
    match outcome {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(PolicyError::io(path, e)),
        _ => Ok(()),
    }
}
