//! Groups of judges that were killed before they could remove them.

use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{PREFIX, processes};
use crate::owner::{Owner, State};

/// A judge puts its launcher into a group as soon as it has made it: one that is empty for longer is nobody's.
const EMPTY: Duration = Duration::from_secs(60);
/// How long the kernel may take to bury what was killed.
const BURIAL: Duration = Duration::from_secs(5);

/// The groups below `root` whose judge is dead, innermost first.
pub fn dead(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue; // links lead to the same hierarchies
            }
            let name = entry.file_name();
            let ours = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
            match ours.and_then(Owner::parse) {
                Some((owner, _)) if is_dead(owner, &entry.path()) => found.push(entry.path()),
                Some(_) => {}
                None => folders.push(entry.path()),
            }
        }
    }
    found
}

fn is_dead(owner: Owner, dir: &Path) -> bool {
    match owner.state() {
        State::Living => false,
        State::Dead => true,
        State::Elsewhere => {
            // The kernel shows processes of other namespaces as 0; they count.
            let empty = fs::read_to_string(dir.join("cgroup.procs")).is_ok_and(|text| text.is_empty());
            let made = fs::metadata(dir).and_then(|data| data.modified());
            let old = made.is_ok_and(|t| SystemTime::now().duration_since(t).is_ok_and(|age| age > EMPTY));
            empty && old
        }
    }
}

/// Kills what is in a dead judge's group and removes it with the groups in it. False when it stays.
pub fn bury(dir: &Path) -> bool {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            bury(&entry.path());
        }
    }
    let until = SystemTime::now() + BURIAL;
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return true,
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && SystemTime::now() < until => {
                kill_all(dir);
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(_) => return false,
        }
    }
}

fn kill_all(dir: &Path) {
    if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
        return; // version 2, since Linux 5.14: the whole group at once
    }
    for pid in processes(dir).unwrap_or_default() {
        // A descriptor first, then a second look: the number may be another process's by now.
        let Some(process) = open(pid) else { continue };
        if processes(dir).is_ok_and(|members| members.contains(&pid)) {
            kill(&process);
        }
    }
}

/// A descriptor that names the process, whatever becomes of its number.
pub fn open(pid: u32) -> Option<OwnedFd> {
    // SAFETY: numbers only; the descriptor is ours alone.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        (fd >= 0).then(|| OwnedFd::from_raw_fd(fd as i32))
    }
}

/// False when this user may not, or it is gone.
pub fn kill(process: &OwnedFd) -> bool {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: without a structure the kernel makes its own.
    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, none, 0) == 0 }
}
