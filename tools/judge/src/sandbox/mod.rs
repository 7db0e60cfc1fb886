//! Where foreign code runs. The judge knows a sandbox only by this trait, so that another kind can stand in.

pub mod cgroup;
pub mod container;
pub mod kinds;
pub mod wire;

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

/// A place for one program at a time. Nothing that a run does is seen by the next, but for what a compilation writes
/// to /box.
pub trait Sandbox {
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
}
