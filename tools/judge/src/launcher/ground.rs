//! Where a run's folders are and what may be written there: mounts in the container, folders of the host where there are
//! none (`plain.rs`).

use std::path::PathBuf;

use super::landlock::{self, Rules};
use super::namespaces;
use super::run::Room;
use super::sys::Step;
use crate::protections::Protection;
use crate::sandbox::wire::{Kind, Run};

impl Room {
    /// The program's working folder, as the launcher sees it.
    pub fn working_folder(&self) -> PathBuf {
        self.plain.as_ref().map_or_else(|| "/tmp".into(), |plain| plain.working_folder())
    }

    pub fn program_folder(&self) -> PathBuf {
        self.plain.as_ref().map_or_else(|| "/box".into(), |plain| plain.program_folder())
    }

    /// The command as it is called here.
    pub fn command(&self, run: &Run) -> Run {
        self.plain.as_ref().map_or_else(|| run.clone(), |plain| plain.command(run))
    }

    /// An empty working folder for `bytes` of files of a run of this kind.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn fresh_tmp(&mut self, kind: Kind, bytes: u64) -> Result<(), String> {
        match &mut self.plain {
            // A toolchain is prepared under our own id, which fills the cache.
            Some(plain) => plain.fresh_tmp(bytes, self.ids.filter(|_| kind != Kind::Prepare)),
            None => namespaces::fresh_tmp("/tmp", bytes),
        }
    }

    /// An empty folder for the program, of at most `bytes` where it is a mount.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn fresh_box(&self, bytes: u64) -> Result<(), String> {
        match &self.plain {
            Some(plain) => plain.fresh_box(),
            None => namespaces::fresh_box("/box", bytes),
        }
    }

    /// Lets a run of this kind write what it may.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn open_for(&self, kind: Kind) -> Result<(), String> {
        let mounts = self.plain.is_none();
        match kind {
            Kind::Test if mounts => namespaces::writable("/box", !self.protections.has(Protection::FixedBox)),
            Kind::Prepare if mounts => namespaces::writable("/cache", true),
            Kind::Compile => {
                if mounts {
                    namespaces::writable("/box", true)?;
                }
                match self.ids {
                    Some((uid, gid)) => std::os::unix::fs::chown(self.program_folder(), Some(uid), Some(gid))
                        .step(|| "giving /box away".into()),
                    None => Ok(()),
                }
            }
            Kind::Test | Kind::Prepare => Ok(()),
        }
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn close_after(&self, kind: Kind) -> Result<(), String> {
        if kind == Kind::Prepare && self.plain.is_none() {
            namespaces::writable("/cache", false)?;
        }
        Ok(())
    }

    /// The Landlock rules of a run of this kind.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules_for(&self, kind: Kind) -> Result<Option<Rules>, String> {
        let rules = match &self.plain {
            Some(plain) => plain.rules(kind).map(Some),
            None => landlock::of_container(self.landlock, kind),
        };
        rules.step(|| "making Landlock rules".into())
    }
}
