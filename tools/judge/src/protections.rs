//! What stands between a program and everything else, by name, so that a test can take one away and see the attack
//! that it stops succeed.
//!
//! `cog-judge` hands [`Protections::ALL`] to [`crate::main`], and nothing in it makes any other value: no flag, no
//! variable, no file. `tests/weakened.rs` is a judge of its own, built by tests only, that does.

use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// Names are those of SECURITY.md and testdata/hostile/suite.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u32)]
pub enum Protection {
    /// System calls that are not needed are refused.
    Filter,
    /// A process namespace of one run at a time, in which nothing outlives it.
    Processes,
    /// A second layer in the kernel's own access checks: files, TCP, signals.
    Landlock,
    NetworkNamespace,
    IpcNamespace,
    /// A user id of its own, which owns nothing.
    OwnUser,
    /// The first process of a run's namespace shows nothing of itself, not even how many files it has open.
    ClosedFirst,
    /// No capability, not even over the sandbox's own namespaces.
    NoCapabilities,
    /// Only some of the host's /etc is shown.
    OwnEtc,
    /// /proc shows processes only, is the run's own, and cannot be written.
    OwnProc,
    /// The host's devices cannot be changed, only used.
    FixedDevices,
    /// An empty /tmp for each run.
    FreshTmp,
    /// /box cannot be written while a test runs.
    FixedBox,
    /// Descriptors other than the three streams are closed.
    ClosedDescriptors,
    CpuLimit,
    WallLimit,
    MemoryLimit,
    OutputLimit,
    /// Bytes of a file, and bytes and inodes of /tmp.
    FileLimit,
    ProcessLimit,
    /// Open files, locked memory, core dumps, message queues.
    OtherLimits,
}

/// Those that are in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protections {
    off: u32,
}

impl Protections {
    pub const ALL: Self = Self { off: 0 };

    #[must_use]
    pub fn without(self, protection: Protection) -> Self {
        Self { off: self.off | 1 << protection as u32 }
    }

    #[must_use]
    pub fn has(self, protection: Protection) -> bool {
        self.off & 1 << protection as u32 == 0
    }
}

static CHOSEN: OnceLock<Protections> = OnceLock::new();

pub(crate) fn choose(protections: Protections) {
    let _ = CHOSEN.set(protections);
}

/// What this process was started with.
pub(crate) fn chosen() -> Protections {
    CHOSEN.get().copied().unwrap_or(Protections::ALL)
}
