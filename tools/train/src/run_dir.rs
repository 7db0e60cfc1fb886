//! The state of a run on disk, from which the same command goes on after a kill.
//!
//! ```text
//! run.json               what the run is: every setting and input that decides its result
//! step-000000000120/     checkpoint: model in full precision, optimizer.safetensors, state.json
//! journal/000000000121.jsonl   rl: the scored batch of a step, written before the step
//! metrics.jsonl          metric/1 records so far
//! lock                   held (flock) by the process that runs
//! ```
//!
//! Checkpoints and journal entries appear by rename after a sync, so whatever is there is whole.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cognate_output::AtomicDir;
use serde_json::Value;

use crate::optimise::NotFinite;

pub struct RunDir {
    path: PathBuf,
    keep: usize,
    /// Locked while it is open.
    _lock: File,
}

/// A checkpoint that can be opened.
pub struct Checkpoint {
    pub step: u64,
    pub path: PathBuf,
    pub state: Value,
}

impl RunDir {
    /// Opens or begins the state of a run that is `identity`: a flat JSON object.
    ///
    /// # Errors
    /// When another process runs here, the state belongs to another run (exit code 3), or the folder is none of ours.
    pub fn open(path: &Path, identity: &Value, restart: bool, keep: u64) -> Result<Self> {
        refuse_other_folders(path)?;
        let mut lock = lock(path)?;
        if restart {
            remove(path)?;
            lock = self::lock(path)?;
        }
        let file = path.join("run.json");
        match fs::read_to_string(&file) {
            Ok(text) => {
                let found: Value = serde_json::from_str(&text)
                    .map_err(|e| cognate_cli::rejected(anyhow::anyhow!("{}: {e}", file.display())))?;
                if let Some(difference) = difference(&found, identity) {
                    return Err(cognate_cli::rejected(anyhow::anyhow!(
                        "{}: this state belongs to another run: {difference}; remove it or give --restart",
                        path.display()
                    )));
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let text = serde_json::to_string_pretty(identity)? + "\n";
                cognate_output::write_file(&file, text.as_bytes())
                    .with_context(|| file.display().to_string())?;
            }
            Err(e) => return Err(e).with_context(|| file.display().to_string()),
        }
        let run = Self { path: path.to_path_buf(), keep: keep.max(1) as usize, _lock: lock };
        fs::create_dir_all(run.journal_dir()).with_context(|| path.display().to_string())?;
        remove_leftovers(path)?;
        remove_leftovers(&run.journal_dir())?;
        Ok(run)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn metrics_path(&self) -> PathBuf {
        self.path.join("metrics.jsonl")
    }

    /// The newest checkpoint.
    pub fn latest(&self) -> Result<Option<Checkpoint>> {
        let Some(step) = self.steps()?.pop() else { return Ok(None) };
        let path = self.checkpoint_path(step);
        let file = path.join("state.json");
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let state = serde_json::from_str(&text)
            .map_err(|e| cognate_cli::rejected(anyhow::anyhow!("{}: {e}", file.display())))?;
        Ok(Some(Checkpoint { step, path, state }))
    }

    /// Writes a checkpoint durably, then removes old ones and journal entries that it makes needless.
    pub fn save(&self, step: u64, state: &Value, build: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = self.checkpoint_path(step);
        if path.is_dir() {
            return Ok(());
        }
        let dir = AtomicDir::create(&path).with_context(|| path.display().to_string())?;
        build(dir.building())?;
        fs::write(dir.building().join("state.json"), serde_json::to_string(state)? + "\n")
            .with_context(|| path.display().to_string())?;
        dir.commit().with_context(|| path.display().to_string())?;
        let steps = self.steps()?;
        for old in &steps[..steps.len().saturating_sub(self.keep)] {
            let path = self.checkpoint_path(*old);
            fs::remove_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        for entry in self.journal()?.into_iter().filter(|s| *s <= step) {
            let path = self.journal_path(entry);
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
        Ok(())
    }

    /// As [`not_finite`], for this run.
    pub fn not_finite(&self, step: u64, lr: f64, error: anyhow::Error) -> anyhow::Error {
        not_finite(&self.path, 0, step, lr, error)
    }

    pub fn journal_path(&self, step: u64) -> PathBuf {
        self.journal_dir().join(format!("{step:012}.jsonl"))
    }

    /// Steps in the journal, ascending.
    pub fn journal(&self) -> Result<Vec<u64>> {
        numbers(&self.journal_dir(), |name| name.strip_suffix(".jsonl"))
    }

    /// Removes everything: the run is complete.
    pub fn finish(self) -> Result<()> {
        remove(&self.path)
    }

    fn journal_dir(&self) -> PathBuf {
        self.path.join("journal")
    }

    fn checkpoint_path(&self, step: u64) -> PathBuf {
        checkpoint_path(&self.path, step)
    }

    fn steps(&self) -> Result<Vec<u64>> {
        numbers(&self.path, |name| name.strip_prefix("step-"))
    }
}

/// Where the numbers ended: writes step, learning rate, micro-batch and records to `not-finite.json` in the run's `state`
/// (each rank to a file of its own) and returns an error that names it. Other errors pass.
pub fn not_finite(state: &Path, rank: usize, step: u64, lr: f64, error: anyhow::Error) -> anyhow::Error {
    let Some(fault) = error.downcast_ref::<NotFinite>() else { return error };
    let path = match rank {
        0 => state.join("not-finite.json"),
        rank => state.join(format!("not-finite.rank-{rank}.json")),
    };
    let report = serde_json::json!({"step": step, "learning_rate": lr, "what": fault.what,
        "micro_batch": fault.micro_batch, "records": fault.records});
    match cognate_output::write_file(&path, format!("{report:#}\n").as_bytes()) {
        Ok(()) => error.context(format!("step {step} (learning rate {lr:e}); records in {}", path.display())),
        Err(e) => error.context(format!("step {step} (learning rate {lr:e}); {}: {e}", path.display())),
    }
}

/// The checkpoint of step `step` in the run's `state`.
pub fn checkpoint_path(state: &Path, step: u64) -> PathBuf {
    state.join(format!("step-{step:012}"))
}

/// The state is removed when the run is complete, and nothing else may go with it.
fn refuse_other_folders(path: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(path) else { return Ok(()) };
    // A run that was killed as it began has a lock, perhaps a file under construction, and no run.json.
    let ours = |name: &std::ffi::OsStr| name == "lock" || name.to_string_lossy().starts_with(".run.json.");
    let other = entries.flatten().map(|e| e.file_name()).find(|name| !ours(name));
    match other {
        Some(name) if !path.join("run.json").exists() => Err(cognate_cli::usage(format!(
            "{} holds {name:?} and is no state of a run; it would be removed with the state",
            path.display()
        ))),
        _ => Ok(()),
    }
}

fn lock(path: &Path) -> Result<File> {
    fs::create_dir_all(path).with_context(|| path.display().to_string())?;
    let name = path.join("lock");
    let place = || name.display().to_string();
    let file = File::options().write(true).create(true).truncate(false).open(&name).with_context(place)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => bail!("{}: another process trains here", path.display()),
        Err(fs::TryLockError::Error(e)) => Err(e).with_context(place),
    }
}

/// Moved aside first, so that a kill leaves the state whole or not at all.
fn remove(path: &Path) -> Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".tmp");
    let aside = PathBuf::from(aside);
    let _ = fs::remove_dir_all(&aside);
    fs::rename(path, &aside)
        .and_then(|()| fs::remove_dir_all(&aside))
        .with_context(|| path.display().to_string())
}

/// Removes what a killed process left half-built, which may be as large as a checkpoint.
fn remove_leftovers(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') && name.ends_with(".tmp") {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}

/// The numbers in the names of a folder's entries, ascending.
fn numbers(dir: &Path, digits: impl Fn(&str) -> Option<&str>) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        if let Some(n) = entry?.file_name().to_str().and_then(&digits).and_then(|d| d.parse().ok()) {
            found.push(n);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// The first setting in which two runs differ.
fn difference(found: &Value, wanted: &Value) -> Option<String> {
    let (Value::Object(found), Value::Object(wanted)) = (found, wanted) else {
        return (found != wanted).then(|| "run.json is not an object".into());
    };
    let keys = wanted.keys().chain(found.keys().filter(|k| !wanted.contains_key(*k)));
    for key in keys {
        let (then, now) = (found.get(key), wanted.get(key));
        if then != now {
            let show = |v: Option<&Value>| v.map_or_else(|| "unset".into(), Value::to_string);
            return Some(format!("{key} was {}, is {}", show(then), show(now)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_folder_of_other_things_is_no_state() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.tex"), "years").unwrap();
        for restart in [false, true] {
            let refused = RunDir::open(temp.path(), &json!({}), restart, 1).err().unwrap().to_string();
            assert!(refused.contains("thesis.tex"), "{refused}");
        }
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        // What a kill at the beginning leaves is no obstacle.
        let begun = temp.path().join("begun");
        fs::create_dir(&begun).unwrap();
        fs::write(begun.join("lock"), "").unwrap();
        RunDir::open(&begun, &json!({}), false, 1).unwrap();
    }

    #[test]
    fn checkpoints_follow_one_another_and_journal_entries_go() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x.ckpt");
        let run = RunDir::open(&path, &json!({"lr": 1}), false, 1).unwrap();
        assert!(run.latest().unwrap().is_none());
        for step in [3u64, 4, 5] {
            cognate_output::write_file(&run.journal_path(step), b"{}\n").unwrap();
        }
        for step in [2u64, 4] {
            run.save(step, &json!({ "step": step }), |d| Ok(fs::write(d.join("model"), "w")?)).unwrap();
        }
        assert!(run.save(5, &json!({}), |_| bail!("disk full")).is_err());
        let latest = run.latest().unwrap().unwrap();
        assert_eq!((latest.step, latest.state["step"].as_u64()), (4, Some(4)));
        assert_eq!(run.journal().unwrap(), [5]);
        assert_eq!(run.steps().unwrap(), [4]);
        assert!(RunDir::open(&path, &json!({"lr": 1}), false, 1).is_err(), "two processes in one state");
        drop(run);
        // As a kill leaves them.
        let left = [".step-000000000005.a1b2c3.tmp", "journal/.000000000006.jsonl.a1b2c3.tmp"];
        fs::create_dir(path.join(left[0])).unwrap();
        fs::write(path.join(left[0]).join("model"), "half").unwrap();
        fs::write(path.join(left[1]), "half").unwrap();
        let run = RunDir::open(&path, &json!({"lr": 1}), false, 1).unwrap();
        assert!(left.iter().all(|name| !path.join(name).exists()));
        assert_eq!((run.steps().unwrap(), run.journal().unwrap()), (vec![4], vec![5]));
        drop(run);
        let refused = RunDir::open(&path, &json!({"lr": 2}), false, 1).err().unwrap().to_string();
        assert!(refused.contains("lr was 1, is 2"), "{refused}");
        let run = RunDir::open(&path, &json!({"lr": 2}), true, 1).unwrap();
        assert!(run.latest().unwrap().is_none());
        run.finish().unwrap();
        assert!(!path.exists());
    }
}
