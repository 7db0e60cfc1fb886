//! Everything that descends from this launcher, where no process namespace holds it together: the launcher is the reaper of
//! orphans (PR_SET_CHILD_SUBREAPER), so whatever a program starts stays below it in the tree, however often it forks.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long a program may keep ahead of its burial. Its processes are few (RLIMIT_NPROC).
const BURIAL: Duration = Duration::from_secs(20);

/// Makes this process the one that orphans below it come to.
pub fn adopt_orphans() {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// The processes below this one, each with its parent, parents first.
pub fn members() -> Vec<(u32, u32)> {
    members_below(std::process::id())
}

/// As [`members`], below any process.
pub fn members_below(ancestor: u32) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = Vec::new();
    let mut parents = vec![ancestor];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            found.push((child, parent));
            parents.push(child);
        }
    }
    found
}

/// Of all threads of a process (/proc/PID/task/TID/children, CONFIG_PROC_CHILDREN).
fn children(parent: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
    let mut all = Vec::new();
    for list in lists {
        match list {
            Ok(text) => all.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok())),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !has_lists() => return by_parent(parent),
            Err(_) => {}
        }
    }
    all
}

fn has_lists() -> bool {
    fs::exists("/proc/thread-self/children").unwrap_or(false)
}

fn by_parent(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(") ")?.1.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Kills and waits for everything below this process.
///
/// # Errors
/// When something forks faster than it is killed, for longer than any program of few processes can.
pub fn bury() -> Result<(), String> {
    let start = Instant::now();
    loop {
        for (pid, parent) in members() {
            kill(pid, parent);
        }
        loop {
            // SAFETY: no status is asked for.
            match unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } {
                0 => break,
                -1 if io::Error::last_os_error().raw_os_error() == Some(libc::ECHILD) => return Ok(()),
                _ => {}
            }
        }
        if start.elapsed() > BURIAL {
            return Err("processes are left that cannot be killed".into());
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Kills a process, if it is still who it was when it was found: by now its number may be anybody's.
fn kill(pid: u32, parent: u32) {
    // SAFETY: numbers only; the descriptor is ours alone, and without a structure the kernel makes its own.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
        if fd < 0 {
            return;
        }
        let process = OwnedFd::from_raw_fd(fd as i32);
        let now = parent_of(pid);
        if now == Some(parent) || now == Some(std::process::id()) {
            let none = std::ptr::null::<libc::siginfo_t>();
            libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, none, 0);
        }
    }
}

/// Processes and threads of this user on this machine, which RLIMIT_NPROC counts together.
pub fn tasks_of_user() -> u64 {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: only reads.
    let user = unsafe { libc::getuid() };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let own = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|n| n.starts_with(|c: char| c.is_ascii_digit()))
            && entry.metadata().is_ok_and(|data| data.uid() == user)
    });
    own.map(|entry| fs::read_dir(entry.path().join("task")).map_or(0, Iterator::count) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In a process of its own: burying would take the other tests' children too.
    #[test]
    fn deserters_and_orphans_are_found_and_buried() {
        // SAFETY: the child touches nothing that other threads may hold a lock of but the allocator, which fork takes
        // care of in the C library, and ends without running anything of the parent's.
        let status = unsafe {
            let pid = libc::fork();
            if pid == 0 {
                adopt_orphans();
                let script = "(setsid sleep 86396 &) ; (sleep 86396 & sleep 86396 &) ; sleep 86396 & exit 0";
                let ended = Command::new("sh").args(["-c", script]).status().is_ok_and(|s| s.success());
                let before = members().len();
                let buried = bury().is_ok() && members().is_empty();
                libc::_exit(if ended && before >= 4 && buried { 0 } else { 1 + before as i32 });
            }
            let mut status = 0;
            libc::waitpid(pid, &raw mut status, 0);
            libc::WEXITSTATUS(status)
        };
        assert_eq!(status, 0);
        assert!(tasks_of_user() > 0);
    }
}
