//! The sampler's side: waits for the versions that it needs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::{PolicyDir, PolicyError, Request, Result};

/// A version that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub number: u64,
    /// Its Hugging Face directory.
    pub path: PathBuf,
}

/// What a wait ended with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Sample the step with this version.
    Sample(Version),
    /// The trainer wants no more steps.
    Done,
}

/// Waits for policy versions. Waiting polls: every millisecond at first (a step of a tiny model takes less than a
/// second), then every 20.
#[derive(Debug, Clone)]
pub struct Follower {
    dir: PolicyDir,
    /// How many optimizer steps the version may lag behind the step that it samples for: 0 is strictly on-policy, 1
    /// overlaps sampling with training. The version used is exactly that old, never the newest that happens to be
    /// there, so that results do not depend on time.
    pub max_staleness: u64,
    /// How long to wait for a trainer to appear.
    pub start_timeout: Duration,
    /// How long to wait for one version while the trainer lives; `None` for ever.
    pub timeout: Option<Duration>,
    /// Session of a trainer that is known to be dead. The next one holds the lock a moment before it takes away what
    /// that one asked for.
    dead: Option<u64>,
}

impl Follower {
    /// Strictly on-policy; a trainer must appear within 20 seconds (taking the lock is the first thing it does), and
    /// then may take as long as it lives.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let dir = PolicyDir::new(path);
        // Read before the lock is looked at: a session that begins in between is not taken for the dead one.
        let session = dir.session();
        let dead = session.filter(|_| dir.trainer_lives() == Some(false));
        Self { dir, max_staleness: 0, start_timeout: Duration::from_secs(20), timeout: None, dead }
    }

    pub fn dir(&self) -> &PolicyDir {
        &self.dir
    }

    /// Waits for the trainer's first request, which says where to begin: `step`, `groups` prompts a step, and
    /// `prompts_done`. A request that an earlier, dead trainer left is not taken for it.
    ///
    /// # Errors
    /// [`PolicyError::NoTrainer`] after `start_timeout`, [`PolicyError::TrainerGone`] when it ends before it asks.
    pub fn first(&self) -> Result<Request> {
        let wait = Wait::begin();
        let mut seen = false;
        loop {
            let lives = self.dir.trainer_lives();
            // Without a lock file (a trainer that is not ours) a request speaks for itself.
            if lives != Some(false)
                && let Some(request) = self.dir.request()?
                && (request.session.is_none()
                    || (request.session == self.dir.session() && request.session != self.dead))
            {
                return Ok(request);
            }
            seen |= lives == Some(true);
            if seen && lives == Some(false) {
                return Err(self.gone(0));
            }
            if !seen && wait.elapsed() > self.start_timeout {
                return Err(PolicyError::NoTrainer {
                    path: self.dir.path().into(),
                    waited: self.start_timeout,
                });
            }
            wait.pause();
        }
    }

    /// Version that step `step` (from 1) is sampled with.
    pub fn version_for(&self, step: u64) -> u64 {
        step.saturating_sub(1 + self.max_staleness)
    }

    /// Waits until the version for `step` can be opened.
    ///
    /// Where that version is no longer kept (a trainer that resumed elsewhere publishes its newest only), the oldest
    /// one that is newer takes its place, as long as it is not newer than `step - 1`.
    ///
    /// # Errors
    /// [`PolicyError::TrainerGone`], [`PolicyError::Timeout`], [`PolicyError::Expired`].
    pub fn wait(&self, step: u64) -> Result<Next> {
        let wanted = self.version_for(step);
        let mut wait = Wait::begin();
        loop {
            let request = self.dir.request()?;
            if let Some(request) = &request {
                if request.done && request.step <= step {
                    return Ok(Next::Done);
                }
                if request.version >= wanted {
                    return self.open(wanted, step, request.version).map(Next::Sample);
                }
            }
            if wait.due() && self.dir.trainer_lives() == Some(false) {
                // It may have finished between the two looks.
                match self.dir.request()? {
                    Some(r) if r.done && r.step <= step => return Ok(Next::Done),
                    _ => return Err(self.gone(wanted)),
                }
            }
            if let Some(limit) = self.timeout
                && wait.elapsed() > limit
            {
                return Err(PolicyError::Timeout {
                    path: self.dir.path().into(),
                    version: wanted,
                    waited: limit,
                });
            }
            wait.pause();
        }
    }

    fn open(&self, wanted: u64, step: u64, newest: u64) -> Result<Version> {
        let path = self.dir.version_path(wanted);
        if path.is_dir() {
            return Ok(Version { number: wanted, path });
        }
        match self.dir.versions()?.into_iter().find(|&v| v >= wanted && v < step.max(1)) {
            Some(number) => Ok(Version { number, path: self.dir.version_path(number) }),
            None => Err(PolicyError::Expired { path: self.dir.path().into(), version: wanted, newest }),
        }
    }

    fn gone(&self, version: u64) -> PolicyError {
        PolicyError::TrainerGone { path: self.dir.path().into(), version }
    }
}

/// Pauses that grow from 1 to 20 ms, and a slower beat for what costs more to look at.
struct Wait {
    begun: Instant,
    looked: Instant,
}

impl Wait {
    fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, looked: now }
    }

    fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    fn due(&mut self) -> bool {
        let due = self.looked.elapsed() > Duration::from_millis(100);
        if due {
            self.looked = Instant::now();
        }
        due
    }

    fn pause(&self) {
        let pause = if self.elapsed() < Duration::from_secs(1) { 1 } else { 20 };
        std::thread::sleep(Duration::from_millis(pause));
    }
}
