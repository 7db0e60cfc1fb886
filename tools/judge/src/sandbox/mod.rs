//! Where foreign code runs. The judge knows a sandbox only by this trait, so that another kind can stand in.

pub mod cgroup;
pub mod container;
pub mod descriptors;
pub mod kinds;
pub mod oci;
pub mod wasm;
pub mod wire;

use std::os::fd::OwnedFd;

use wire::{Outcome, Run, Server};

/// The sandbox failed, not the program.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub String);

/// One command's end.
#[derive(Debug, Clone)]
pub struct Finished {
    pub outcome: Outcome,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// What a run may have beside stdin and stdout.
#[derive(Default)]
pub struct Extras<'a> {
    /// Put into the working folder before the run; names may have folders.
    pub files: Vec<(&'a str, &'a [u8])>,
    /// Read back after it: plain files, at most the output limit of all together.
    pub fetch: Vec<&'a str>,
    /// stdin and stdout, in place of the given bytes and the kept output.
    pub ends: Option<[OwnedFd; 2]>,
}

/// The end of a run with [`Extras`].
pub struct Detailed {
    pub finished: Finished,
    /// One for each file asked for; `None` where no plain file is there.
    pub fetched: Vec<Option<Vec<u8>>>,
    /// When the main process was seen to have ended, on the monotonic clock.
    pub ended_us: u64,
}

/// A place for one program at a time. Nothing that a run does is seen by the next, but for what a compilation writes
/// to /box.
pub trait Sandbox: Send {
    /// Puts files into an empty /box. With `server`, tests may be forked from a waiting interpreter; the answer says
    /// why not, where it does not stand.
    ///
    /// # Errors
    /// When the sandbox fails.
    fn place(&mut self, files: &[(&str, &[u8])], server: Option<&Server>) -> Result<Option<String>, Fault>;

    /// Runs a command on `stdin`.
    ///
    /// # Errors
    /// When the sandbox fails.
    fn run(&mut self, run: &Run, stdin: &[u8]) -> Result<Finished, Fault>;

    /// True when [`Sandbox::run_with`] works.
    fn has_extras(&self) -> bool {
        false
    }

    /// Runs a command with files and joined streams. The other side of a pipe sees its end only after this run's end
    /// has been noted in `ended_us`.
    ///
    /// # Errors
    /// When the sandbox fails or has no extras.
    fn run_with(&mut self, _run: &Run, _stdin: &[u8], _extras: Extras<'_>) -> Result<Detailed, Fault> {
        Err(Fault("this kind of sandbox has neither files nor joined programs".into()))
    }
}
