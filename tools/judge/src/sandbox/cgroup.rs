//! Control groups, where this machine gives them to us: one group a worker, in which its launcher lives, so that a run
//! costs no move between groups. Version 1 (or hybrid): controllers `cpuacct` and `memory`; version 2: one group.
//! Without them CPU and memory are watched through /proc.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::wire::CgroupFiles;

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "cog-judge-";

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

/// This process's path in the hierarchy of `controller` (empty: version 2).
fn own_path(controller: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/cgroup").ok()?;
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let found = if controller.is_empty() {
            controllers.is_empty()
        } else {
            controllers.split(',').any(|c| c == controller)
        };
        found.then(|| path.trim_start_matches('/').to_owned())
    })
}

/// A folder under the first base in which one can be made.
fn make(bases: &[PathBuf], name: &str, made: &mut Vec<PathBuf>) -> Option<PathBuf> {
    bases
        .iter()
        .map(|base| base.join(name))
        .find(|dir| fs::create_dir(dir).is_ok())
        .inspect(|dir| made.push(dir.clone()))
}

impl Group {
    /// The group of worker `index`, or `None` where this machine or this user has no control groups.
    pub fn create(index: usize) -> Option<Self> {
        let name = format!("{PREFIX}{}-{index}", std::process::id());
        Self::version_1(&name).or_else(|| Self::version_2(&name))
    }

    fn version_1(name: &str) -> Option<Self> {
        let mut group = Self {
            files: CgroupFiles { cpu: PathBuf::new(), memory: PathBuf::new(), unified: false },
            made: Vec::new(),
        };
        for (controller, file) in [("cpuacct", "cpuacct.usage"), ("memory", "memory.limit_in_bytes")] {
            let mount = Path::new(ROOT).join(controller);
            if !mount.join(file).exists() && !mount.join("cgroup.procs").exists() {
                return None;
            }
            sweep(&mount);
            let own = mount.join(own_path(controller).unwrap_or_default());
            sweep(&own);
            let dir = make(&[own, mount], name, &mut group.made)?;
            if !dir.join(file).exists() {
                return None;
            }
            if controller == "memory" {
                // Memory means memory: what is swapped out does not hide from the limit.
                let _ = fs::write(dir.join("memory.swappiness"), "0");
                group.files.memory = dir;
            } else {
                group.files.cpu = dir;
            }
        }
        Some(group)
    }

    fn version_2(name: &str) -> Option<Self> {
        let root = Path::new(ROOT);
        if !root.join("cgroup.controllers").exists() {
            return None;
        }
        // A group with processes of its own cannot hand controllers down; only the root is free of that rule, and a
        // parent that somebody has prepared for us.
        let own = root.join(own_path("").unwrap_or_default());
        let parent = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let mut group = Self {
            files: CgroupFiles { cpu: PathBuf::new(), memory: PathBuf::new(), unified: true },
            made: Vec::new(),
        };
        for base in [own, parent, root.to_path_buf()] {
            if !base.starts_with(root) {
                continue;
            }
            sweep(&base);
            let _ = fs::write(base.join("cgroup.subtree_control"), "+memory +cpu");
            let Some(dir) = make(&[base], name, &mut group.made) else { continue };
            if dir.join("memory.max").exists() && dir.join("cpu.stat").exists() {
                let _ = fs::write(dir.join("memory.swap.max"), "0");
                group.files.cpu.clone_from(&dir);
                group.files.memory = dir;
                return Some(group);
            }
            remove(&dir);
        }
        None
    }

    pub fn files(&self) -> &CgroupFiles {
        &self.files
    }

    /// # Errors
    /// When the kernel refuses.
    pub fn adopt(&self, pid: u32) -> io::Result<()> {
        fs::write(self.files.memory.join("cgroup.procs"), pid.to_string())?;
        if self.files.cpu != self.files.memory {
            fs::write(self.files.cpu.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }
}

/// Removes groups of judges that were killed before they could.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(PREFIX)).and_then(|n| n.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}
