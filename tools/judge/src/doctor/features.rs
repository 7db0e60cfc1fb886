//! What the kernel and the system give, one by one.

use super::Feature;
use super::advice::{self, Facts};
use crate::launcher::landlock;
use crate::sandbox::cgroup::Group;

/// What a group has of memory and CPU; the launcher itself is the process that is moved.
fn control_groups() -> Result<String, String> {
    // A child that can be moved: this process must stay where it is.
    let mut child = std::process::Command::new("sleep")
        .arg("60")
        .stdin(std::process::Stdio::null())
        .spawn()
        .map_err(|e| format!("sleep: {e}"))?;
    let group = Group::create(super::LOOK, child.id());
    let _ = child.kill();
    let _ = child.wait();
    let group = group?;
    let files = group.files();
    let version = if files.unified { "version 2" } else { "version 1" };
    Ok(format!("{version}, {}", files.memory.parent().unwrap_or(&files.memory).display()))
}

fn seccomp() -> Result<String, String> {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail")
        .map_err(|_| "the kernel lists no actions (CONFIG_SECCOMP_FILTER)".to_owned())?;
    let has = |action: &str| actions.split_ascii_whitespace().any(|a| a == action);
    match ["errno", "kill_process"].into_iter().find(|action| !has(action)) {
        Some(missing) => Err(format!("no action {missing}")),
        None => Ok("filters".into()),
    }
}

fn landlock() -> Result<String, String> {
    match landlock::version() {
        0 => Err("not in this kernel, or not switched on".into()),
        n if n < landlock::SCOPED => Ok(format!("version {n}: files{}", if n >= 4 { ", TCP" } else { "" })),
        n => Ok(format!("version {n}: files, TCP, abstract sockets, signals")),
    }
}

fn open_files() -> Result<String, String> {
    // SAFETY: zero is a valid value of every field, and the call fills the structure.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
        limit.rlim_max
    };
    if limit >= 1024 { Ok(format!("up to {limit}")) } else { Err(format!("only {limit}")) }
}

pub fn all(facts: &Facts) -> Vec<Feature> {
    let groups = control_groups();
    let landlock = landlock();
    vec![
        Feature {
            name: "user-namespaces",
            state: user_namespaces(),
            weaker: "no container",
            fix: user_namespaces().err().map(|reason| advice::namespaces(facts, &reason)),
        },
        Feature {
            name: "control-groups",
            fix: groups.as_ref().err().map(|reason| advice::control_groups(facts, reason)),
            state: groups,
            weaker: "memory and CPU are read from /proc every few milliseconds instead of being limited by the kernel: \
                     memory can pass its limit for that long, processes that live shorter hide CPU time up to the wall \
                     limit, and files in memory (memfd) are refused",
        },
        Feature {
            name: "own-user",
            state: own_user(facts),
            weaker: "programs run as the user of the judge, locked in by namespaces and filter alone",
            fix: (!facts.root)
                .then(|| "run the judge as root: programs then get an id that owns nothing".into()),
        },
        Feature {
            name: "seccomp",
            state: seccomp(),
            weaker: "no container: nothing would refuse the system calls that programs do not need",
            fix: seccomp().err().map(|_| "a kernel with CONFIG_SECCOMP_FILTER".into()),
        },
        Feature {
            name: "landlock",
            fix: landlock.as_ref().err().map(|_| advice::landlock(facts)),
            state: landlock,
            weaker: "the container has one layer less; --sandbox process cannot be had",
        },
        Feature {
            name: "open-files",
            fix: open_files().err().map(|_| "ulimit -Hn 4096".into()),
            state: open_files(),
            weaker: "few workers can stand",
        },
    ]
}

fn own_user(facts: &Facts) -> Result<String, String> {
    if facts.root {
        Ok("an id of no user of the host".into())
    } else {
        Err("only root can map a second id".into())
    }
}

/// Tries in a child, since a namespace cannot be left again.
fn user_namespaces() -> Result<String, String> {
    // SAFETY: the child makes two system calls and ends without running anything of the parent's.
    let status = unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let made = libc::unshare(libc::CLONE_NEWUSER) == 0;
            libc::_exit(if made { 0 } else { *libc::__errno_location() });
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, 0);
        libc::WEXITSTATUS(status)
    };
    match status {
        0 => Ok("can be created".into()),
        code => Err(format!("creating a user namespace: {}", std::io::Error::from_raw_os_error(code))),
    }
}
