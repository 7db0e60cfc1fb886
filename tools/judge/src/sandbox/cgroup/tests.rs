//! Groups are made where a kernel would let them be made: an imitation of its folder tree with the rules that matter.
//! No version 2 memory controller was met by this code yet but here.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::Group;
use super::tree::Tree;

/// A tree under a temporary folder. Folders that are not listed as `writable` belong to somebody else.
struct Fake {
    dir: tempfile::TempDir,
    own: String,
    writable: Vec<PathBuf>,
    /// What was written, relative to the root.
    written: RefCell<Vec<(String, String)>>,
    /// Whether the kernel accounts swap.
    swap: bool,
}

impl Fake {
    fn new(own: &str) -> Self {
        let (dir, written) = (tempfile::tempdir().unwrap(), RefCell::default());
        Self { dir, own: own.into(), writable: Vec::new(), written, swap: true }
    }

    /// A group of version 2 with these controllers, which hands `down` on, and with processes or without.
    fn group(mut self, path: &str, controllers: &str, down: &str, procs: &str, writable: bool) -> Self {
        let dir = self.dir.path().join(path);
        fs::create_dir_all(&dir).unwrap();
        let files =
            [("cgroup.controllers", controllers), ("cgroup.subtree_control", down), ("cgroup.procs", procs)];
        for (name, text) in files {
            fs::write(dir.join(name), text).unwrap();
        }
        if writable {
            self.writable.push(dir);
        }
        self
    }

    fn relative(&self, path: &Path) -> String {
        path.strip_prefix(self.dir.path()).unwrap().display().to_string()
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.dir.path().join(path)).unwrap()
    }

    fn check_writable(&self, dir: &Path) -> io::Result<()> {
        let allowed = self.writable.iter().any(|w| dir.parent() == Some(w) || dir == w);
        if allowed { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EACCES)) }
    }
}

impl Tree for Fake {
    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn own(&self) -> String {
        self.own.clone()
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        self.check_writable(dir)?;
        let parent = dir.parent().unwrap();
        fs::create_dir(dir)?;
        let down = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        fs::write(dir.join("cgroup.procs"), "")?;
        fs::write(dir.join("cgroup.controllers"), &down)?;
        fs::write(dir.join("cpu.stat"), "usage_usec 0\n")?;
        if down.split(' ').any(|c| c == "memory") {
            fs::write(dir.join("memory.max"), "max\n")?;
            fs::write(dir.join("memory.events"), "oom_kill 0\n")?;
            if self.swap {
                fs::write(dir.join("memory.swap.max"), "max\n")?;
            }
        }
        Ok(())
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let dir = file.parent().unwrap();
        self.check_writable(dir)?;
        if !file.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        if file.ends_with("cgroup.subtree_control") {
            let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
            // No internal processes, but in the root of the hierarchy.
            if !read("cgroup.procs").is_empty() && dir != self.root() {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
            for controller in text.split(' ').map(|c| c.trim_start_matches('+')) {
                if !read("cgroup.controllers").split(' ').any(|c| c == controller) {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                }
                fs::write(file, format!("{} {controller}", read("cgroup.subtree_control")).trim())?;
            }
            return Ok(());
        }
        self.written.borrow_mut().push((self.relative(file), text.into()));
        fs::write(file, text)
    }
}

fn make(fake: &Fake) -> Result<String, String> {
    let group = Group::create_in(fake, "cog-judge-t", 7)?;
    assert_eq!(group.files.cpu, group.files.memory);
    assert!(group.files.unified);
    let place = fake.relative(&group.files.memory);
    assert_eq!(fake.read(&format!("{place}/cgroup.procs")), "7");
    Ok(place)
}

#[test]
fn root_of_the_hierarchy_hands_down_although_it_has_processes() {
    let fake = Fake::new("0::/\n").group("", "cpu memory pids", "cpu", "1\n2\n", true);
    assert_eq!(make(&fake).unwrap(), "cog-judge-t");
    assert_eq!(fake.read("cgroup.subtree_control"), "cpu memory");
    assert_eq!(fake.read("cog-judge-t/memory.swap.max"), "0");
}

#[test]
fn a_users_group_stands_beside_the_judges_own_scope() {
    let slice = "user.slice/user-1000.slice/user@1000.service/app.slice";
    let own = format!("{slice}/run-1.scope");
    let fake = Fake::new(&format!("0::/{own}\n"))
        .group("", "cpu memory pids", "cpu memory pids", "", false)
        .group("user.slice", "cpu memory pids", "cpu memory pids", "", false)
        .group(slice, "memory pids", "", "", true)
        .group(&own, "memory pids", "", "4242\n", true);
    // The judge lives in its own scope, which therefore hands nothing down.
    assert_eq!(make(&fake).unwrap(), format!("{slice}/cog-judge-t"));
    assert_eq!(fake.read(&format!("{slice}/cgroup.subtree_control")), "memory");
    assert_eq!(fake.read(&format!("{own}/cgroup.subtree_control")), "");
}

#[test]
fn a_scope_that_nobody_delegated_gives_the_reasons() {
    let fake = Fake::new("0::/user.slice/session-3.scope\n")
        .group("", "cpu memory", "cpu memory", "", false)
        .group("user.slice", "cpu memory", "cpu memory", "", false)
        .group("user.slice/session-3.scope", "cpu memory", "", "4242\n", false);
    let reason = make(&fake).unwrap_err();
    for part in ["version 1: no controller cpuacct", "session-3.scope: ", "Permission denied"] {
        assert!(reason.contains(part), "{reason}");
    }
}

#[test]
fn without_the_memory_controller_there_is_no_group() {
    let fake = Fake::new("0::/\n").group("", "cpu pids", "cpu pids", "", true);
    assert!(make(&fake).unwrap_err().contains("no memory controller"));
    assert!(make(&Fake::new("0::/\n")).unwrap_err().contains("version 2: not mounted"));
    // The root of a control group namespace is the root of no hierarchy: with processes in it, it hands nothing down.
    let fake = Fake::new("0::/\n").group("unified", "memory", "", "1\n", true);
    assert!(make(&fake).unwrap_err().contains("has processes of its own"));
}

#[test]
fn swap_that_is_not_accounted_is_no_hindrance_and_paths_outside_are_not_taken() {
    let mut fake = Fake::new("0::/../../elsewhere\n").group("", "memory", "memory", "", true);
    fake.swap = false;
    assert_eq!(make(&fake).unwrap(), "cog-judge-t");
    assert_eq!(fake.written.borrow().len(), 1, "only the launcher's number");
    // Hybrid, with the memory controller in version 2.
    let fake = Fake::new("1:cpuacct:/\n0::/a\n")
        .group("cpuacct", "", "", "", true)
        .group("unified", "memory", "memory", "", true)
        .group("unified/a", "memory", "", "9\n", true);
    assert_eq!(make(&fake).unwrap(), "unified/cog-judge-t");
}
