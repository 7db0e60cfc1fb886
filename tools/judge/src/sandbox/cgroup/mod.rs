//! Control groups, where this machine gives them to us: one group a worker, in which its launcher lives, so that a run
//! costs no move between groups. Version 1 (or hybrid): controllers `cpuacct` and `memory`; version 2: one group.
//! Without them CPU and memory are watched through /proc.
//!
//! Version 2 (Documentation/admin-guide/cgroup-v2.rst): a group that holds processes hands no controller down ("no
//! internal processes"; the hierarchy's root is free of that), so the worker's group stands beside the judge's own, under
//! the nearest group above that has the memory controller and may be written: what systemd delegates to a user.
//! `memory.oom.group` stays 0: the launcher lives in the group, and one kill ends the run anyway. `cpu.stat` needs no
//! controller. Processes are bounded by RLIMIT_NPROC, since their ids are the worker's own.

pub mod sweep;
#[cfg(test)]
mod tests;
pub mod tree;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use self::tree::{Kernel, Tree};
use super::wire::CgroupFiles;
use crate::owner::Owner;

/// Where all hierarchies are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";
/// Every group of ours is named `cog-judge-OWNER-WORKER`.
pub const PREFIX: &str = "cog-judge-";

/// The group of one worker; removed when dropped.
#[derive(Debug)]
pub struct Group {
    files: CgroupFiles,
    /// All folders made, innermost first.
    made: Vec<PathBuf>,
}

impl Drop for Group {
    fn drop(&mut self) {
        for dir in &self.made {
            remove(dir);
        }
    }
}

/// A group is busy until the kernel has buried its last process.
fn remove(dir: &Path) {
    for _ in 0..200 {
        match fs::remove_dir(dir) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            _ => return,
        }
    }
}

impl Group {
    /// The group of worker `index`, with process `pid` in it.
    ///
    /// # Errors
    /// Why this machine or this user has none, one line.
    pub fn create(index: usize, pid: u32) -> Result<Self, String> {
        Self::create_in(&Kernel, &format!("{PREFIX}{}-{index}", Owner::this()), pid)
    }

    fn create_in(tree: &impl Tree, name: &str, pid: u32) -> Result<Self, String> {
        let first = Self::version_1(tree, name, pid);
        first.or_else(|one| Self::version_2(tree, name, pid).map_err(|two| format!("{one}; {two}")))
    }

    fn version_1(tree: &impl Tree, name: &str, pid: u32) -> Result<Self, String> {
        let mut group = Self::unmade(false);
        for (controller, file) in [("cpuacct", "cpuacct.usage"), ("memory", "memory.limit_in_bytes")] {
            let mount = tree.root().join(controller);
            if !mount.join("cgroup.procs").exists() {
                return Err(format!("version 1: no controller {controller}"));
            }
            let own = tree.own_path(controller).map(|path| mount.join(path));
            let mut reason = format!("version 1: {controller}: no group can be made");
            let dir = own.into_iter().chain([mount]).find_map(|base| {
                let dir = base.join(name);
                match tree.make(&dir) {
                    Ok(()) if dir.join(file).exists() => return Some(dir),
                    Ok(()) => reason = format!("version 1: {} lacks {file}", dir.display()),
                    Err(e) => reason = format!("version 1: {}: {e}", dir.display()),
                }
                let _ = fs::remove_dir(&dir);
                None
            });
            let dir = dir.ok_or(reason)?;
            group.made.push(dir.clone());
            if controller == "memory" {
                // Memory means memory: what is swapped out does not hide from the limit.
                let _ = tree.write(&dir.join("memory.swappiness"), "0");
                group.files.memory = dir;
            } else {
                group.files.cpu = dir;
            }
        }
        for dir in [&group.files.memory, &group.files.cpu] {
            let moved = tree.write(&dir.join("cgroup.procs"), &pid.to_string());
            moved.map_err(|e| format!("version 1: moving the launcher to {}: {e}", dir.display()))?;
        }
        Ok(group)
    }

    fn version_2(tree: &impl Tree, name: &str, pid: u32) -> Result<Self, String> {
        let unified = tree.root().join("unified");
        let mounts = [tree.root().to_path_buf(), unified];
        let mount = mounts.iter().find(|mount| mount.join("cgroup.controllers").exists());
        let mount = mount.ok_or("version 2: not mounted")?;
        let mut reasons = Vec::new();
        let own = mount.join(tree.own_path("").unwrap_or_default());
        for base in own.ancestors().take_while(|base| base.starts_with(mount)) {
            match Self::below(tree, base, name, pid) {
                Ok(group) => return Ok(group),
                Err(reason) => reasons.push(format!("{}: {reason}", base.display())),
            }
        }
        Err(format!("version 2: {}", reasons.join(", ")))
    }

    /// A group of version 2 in `base`.
    fn below(tree: &impl Tree, base: &Path, name: &str, pid: u32) -> Result<Self, String> {
        let lists = |file: &str| {
            let text = fs::read_to_string(base.join(file)).unwrap_or_default();
            text.split_ascii_whitespace().any(|controller| controller == "memory")
        };
        if !lists("cgroup.controllers") {
            return Err("no memory controller".into());
        }
        if !lists("cgroup.subtree_control") {
            // Each controller by itself: one that is missing would make the kernel refuse them all.
            tree.write(&base.join("cgroup.subtree_control"), "+memory").map_err(|e| {
                match e.raw_os_error() {
                    Some(libc::EBUSY) => "has processes of its own, so it hands no controller down".into(),
                    _ => format!("cgroup.subtree_control: {e}"),
                }
            })?;
        }
        let dir = base.join(name);
        tree.make(&dir).map_err(|e| e.to_string())?;
        let mut group = Self::unmade(true);
        group.made.push(dir.clone());
        if !dir.join("memory.max").exists() || !dir.join("cpu.stat").exists() {
            return Err("a new group there has no memory.max".into());
        }
        // Not there where the kernel accounts no swap.
        let _ = tree.write(&dir.join("memory.swap.max"), "0");
        let moved = tree.write(&dir.join("cgroup.procs"), &pid.to_string());
        moved.map_err(|e| format!("moving the launcher in: {e}"))?;
        group.files.cpu.clone_from(&dir);
        group.files.memory = dir;
        Ok(group)
    }

    fn unmade(unified: bool) -> Self {
        let files = CgroupFiles { cpu: PathBuf::new(), memory: PathBuf::new(), unified };
        Self { files, made: Vec::new() }
    }

    pub fn files(&self) -> &CgroupFiles {
        &self.files
    }
}

/// Numbers of the processes in a group; those of other process namespaces are left out, as the kernel shows them as 0.
///
/// # Errors
/// When it cannot be read.
fn processes(dir: &Path) -> io::Result<Vec<u32>> {
    let text = fs::read_to_string(dir.join("cgroup.procs"))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
}
