//! Where ranks find each other: a folder with one locked file a rank, and rank 0's word on where to
//! meet. A lock goes with its process, however that ends, so it says who lives.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::CollectiveError;

/// This process among those that meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The folder in which they meet; made where it is missing.
    pub folder: PathBuf,
    pub rank: usize,
    pub size: usize,
    /// How long to wait for the others to come.
    pub patience: Duration,
}

/// A place taken among the ranks, as long as this is held.
#[derive(Debug)]
pub struct Rendezvous {
    member: Member,
    _lock: File,
}

impl Rendezvous {
    /// Takes the place.
    ///
    /// # Errors
    /// When another process has it, or there is no such rank.
    pub fn take(member: &Member) -> Result<Self, CollectiveError> {
        let Member { folder, rank, size, .. } = member;
        if rank >= size {
            return Err(CollectiveError::Rank { rank: *rank, size: *size });
        }
        fs::create_dir_all(folder).map_err(CollectiveError::io(folder))?;
        let path = place(folder, *rank);
        let open = || File::options().write(true).create(true).truncate(false).open(&path);
        let lock = open().map_err(CollectiveError::io(&path))?;
        // Whoever asks whether this rank lives holds its lock for a moment.
        for attempt in 0.. {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if attempt < 20 => std::thread::sleep(Duration::from_millis(5)),
                Err(TryLockError::WouldBlock) => {
                    return Err(CollectiveError::Taken { path: folder.clone(), rank: *rank });
                }
                Err(TryLockError::Error(source)) => return Err(CollectiveError::Io { path, source }),
            }
        }
        if *rank == 0 {
            // What an earlier run's rank 0 has left leads nowhere.
            match fs::remove_file(word(folder)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CollectiveError::Io { path: word(folder), source: e });
                }
                _ => {}
            }
        }
        Ok(Self { member: member.clone(), _lock: lock })
    }

    pub fn member(&self) -> &Member {
        &self.member
    }

    /// Rank 0 tells the others something: whole or not at all.
    pub(crate) fn tell(&self, text: &str) -> Result<(), CollectiveError> {
        let path = word(&self.member.folder);
        let draft = path.with_extension("tmp");
        fs::write(&draft, text).and_then(|()| fs::rename(&draft, &path)).map_err(CollectiveError::io(path))
    }

    /// What rank 0 has told, if it has.
    pub(crate) fn told(&self) -> Option<String> {
        fs::read_to_string(word(&self.member.folder)).ok()
    }

    /// Calls `attempt` until it gives something, for as long as patience lasts; `rank` is whom it waits for.
    pub(crate) fn patiently<T>(
        &self,
        rank: usize,
        mut attempt: impl FnMut() -> Result<Option<T>, CollectiveError>,
    ) -> Result<T, CollectiveError> {
        let begun = Instant::now();
        loop {
            if let Some(found) = attempt()? {
                return Ok(found);
            }
            if begun.elapsed() > self.member.patience {
                let seconds = self.member.patience.as_secs();
                return Err(CollectiveError::Absent { path: self.member.folder.clone(), rank, seconds });
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Whether the process of `rank` is there.
    pub(crate) fn lives(&self, rank: usize) -> bool {
        let Ok(file) = File::options().write(true).open(place(&self.member.folder, rank)) else {
            return false;
        };
        // Shared, so that two who ask do not take each other for the one they ask for.
        !matches!(file.try_lock_shared(), Ok(()))
    }
}

fn place(folder: &Path, rank: usize) -> PathBuf {
    folder.join(format!("rank-{rank}"))
}

fn word(folder: &Path) -> PathBuf {
    folder.join("meeting")
}
