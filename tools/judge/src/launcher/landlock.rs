//! Landlock: a second layer under the mounts, in the kernel's access checks themselves. A program under it can write below
//! the folders that it is given and nowhere else, has no TCP, and reaches with signals, abstract sockets and ptrace only
//! what it started itself. It needs no privilege, so it is the first layer where namespaces are denied (`plain.rs`).
//!
//! A domain is a set of rules that a process takes on for good. Rules name folders as they are now, and /tmp is another one
//! for each run, so a set is made for each run (what that costs was not measured).
//! (Documentation/userspace-api/landlock.rst, linux/landlock.h)

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::sys;
use crate::sandbox::wire::Kind;

// LANDLOCK_ACCESS_FS_*
pub const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
const READ_FILE: u64 = 1 << 2;
const READ_DIR: u64 = 1 << 3;
/// Removing and making entries of every kind.
const ENTRIES: u64 = (1 << 13) - (1 << 4);
/// Moving between folders; without it denied altogether.
const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;

pub const READ: u64 = EXECUTE | READ_FILE | READ_DIR;
/// What a device or another file may be used for.
pub const USE: u64 = READ_FILE | WRITE_FILE | TRUNCATE;
pub const WRITE: u64 = WRITE_FILE | ENTRIES | REFER | TRUNCATE;
/// What the kernel knows of a path that is no folder.
const OF_FILES: u64 = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE;

/// LANDLOCK_ACCESS_NET_*: to bind and to connect over TCP.
const TCP: u64 = 3;
/// LANDLOCK_SCOPE_*: abstract sockets and signals.
const SCOPES: u64 = 3;
const CREATE_RULESET_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
/// Denials are a hostile program's daily bread and nothing for the host's audit log.
const RESTRICT_SELF_LOG_SAME_EXEC_OFF: u32 = 1;

/// The first version in which files can be moved between folders.
pub const MOVES: i32 = 2;
/// The first in which a path can be kept from being truncated.
pub const TRUNCATES: i32 = 3;
/// The first that keeps signals in.
pub const SCOPED: i32 = 6;

/// The kernel's version of Landlock; 0 where it has none or it is not switched on.
pub fn version() -> i32 {
    // SAFETY: with this flag the call takes no structure.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0, CREATE_RULESET_VERSION)
    };
    i32::try_from(version).unwrap_or(0).max(0)
}

#[repr(C)]
struct Attributes {
    files: u64,
    network: u64,
    scopes: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Rules under way.
#[derive(Debug)]
pub struct Rules {
    fd: OwnedFd,
    handled: u64,
    version: i32,
}

impl Rules {
    /// Denies writing everywhere, and with `reads` reading too, as far as this version can.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn new(version: i32, reads: bool) -> io::Result<Self> {
        let mut handled = WRITE_FILE | ENTRIES | if reads { READ } else { 0 };
        handled |= if version >= MOVES { REFER } else { 0 };
        handled |= if version >= TRUNCATES { TRUNCATE } else { 0 };
        let attributes = Attributes {
            files: handled,
            network: if version >= 4 { TCP } else { 0 },
            scopes: if version >= SCOPED { SCOPES } else { 0 },
        };
        // SAFETY: the structure outlives the call and has the given size; what an older kernel does not know is zero.
        let fd = sys::check(unsafe {
            libc::syscall(
                libc::SYS_landlock_create_ruleset,
                &raw const attributes,
                size_of::<Attributes>(),
                0,
            )
        })?;
        // SAFETY: the kernel has just given us this descriptor, which is close-on-exec.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        Ok(Self { fd, handled, version })
    }

    /// Allows `access` below a path, or to it where it is no folder. A path that is not there needs no rule.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn allow(&self, path: &str, access: u64) -> io::Result<()> {
        let name = sys::c_string(path);
        // SAFETY: the name is NUL-terminated.
        let fd = unsafe { libc::open(name.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
        if fd == -1 {
            let error = io::Error::last_os_error();
            let absent = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::EACCES));
            return if absent { Ok(()) } else { Err(error) };
        }
        // SAFETY: the descriptor is ours alone.
        let place = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut access = access & self.handled;
        // SAFETY: zero is a valid value of every field, and the call fills the structure.
        unsafe {
            let mut data: libc::stat = std::mem::zeroed();
            sys::check(libc::fstat(fd, &raw mut data))?;
            if data.st_mode & libc::S_IFMT != libc::S_IFDIR {
                access &= OF_FILES;
            }
        }
        let rule = PathBeneath { allowed: access, parent: place.as_raw_fd() };
        // SAFETY: the rule outlives the call.
        sys::check(unsafe {
            libc::syscall(
                libc::SYS_landlock_add_rule,
                self.fd.as_raw_fd(),
                RULE_PATH_BENEATH,
                &raw const rule,
                0,
            )
        })
        .map(drop)
    }

    /// Puts this process under the rules for good. It must have no_new_privs.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn obey(&self) -> io::Result<()> {
        // SAFETY: numbers only.
        sys::check(unsafe {
            libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), flags(self.version))
        })
        .map(drop)
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }
}

/// Flags of `landlock_restrict_self`.
pub fn flags(version: i32) -> u32 {
    if version >= 7 { RESTRICT_SELF_LOG_SAME_EXEC_OFF } else { 0 }
}

/// The layer under the container's mounts. Before version 2 no file could be moved between folders under it, which
/// compilers do: then there is none.
///
/// # Errors
/// When the kernel refuses.
pub fn of_container(version: i32, kind: Kind) -> io::Result<Option<Rules>> {
    if version < MOVES {
        return Ok(None);
    }
    let rules = Rules::new(version, false)?;
    rules.allow("/dev", USE)?;
    let write: &[&str] = match kind {
        Kind::Test => &["/tmp"],
        Kind::Compile => &["/tmp", "/box"],
        Kind::Prepare => &["/tmp", "/box", "/cache"],
    };
    write.iter().try_for_each(|path| rules.allow(path, WRITE))?;
    Ok(Some(rules))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// What a child under `rules` finds: the bits of the checks that succeed.
    fn under(rules: &Rules, checks: &[&dyn Fn() -> bool]) -> i32 {
        // SAFETY: the child calls nothing that other threads could hold a lock of but the allocator, which fork takes
        // care of in the C library, and ends without running anything of the parent's.
        unsafe {
            let pid = libc::fork();
            if pid == 0 {
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                if rules.obey().is_err() {
                    libc::_exit(128);
                }
                let bits =
                    checks.iter().enumerate().fold(0, |bits, (i, check)| bits | i32::from(check()) << i);
                libc::_exit(bits);
            }
            libc::WEXITSTATUS(sys::reap(pid))
        }
    }

    #[test]
    fn what_has_no_rule_is_denied_and_what_has_one_is_not() {
        let version = version();
        if version < MOVES {
            eprintln!("SKIPPED: this kernel has Landlock {version}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for folder in ["in/deep", "out"] {
            std::fs::create_dir_all(path(folder)).unwrap();
        }
        std::fs::write(path("out/file"), "x").unwrap();
        let write = |name: &'static str| {
            let path = path(name);
            move || std::fs::write(&path, "y").is_ok()
        };
        let (inside, outside, old) = (write("in/new"), write("out/new"), write("out/file"));
        let from = (path("in/new"), path("in/deep/new"), path("out/file"));
        let moves = || std::fs::rename(&from.0, &from.1).is_ok();
        let reads = || std::fs::read(&from.2).is_ok();
        let device = || std::fs::write("/dev/null", "y").is_ok();
        let parent = std::process::id() as i32;
        // SAFETY: signal 0 only asks.
        let signals = || unsafe { libc::kill(parent, 0) == 0 };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let connects = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let checks: [&dyn Fn() -> bool; 8] =
            [&inside, &moves, &device, &reads, &outside, &old, &signals, &connects];

        let rules = |reads| {
            let rules = Rules::new(version, reads).unwrap();
            rules.allow(&path("in"), READ | WRITE).unwrap();
            rules.allow("/dev/null", USE).unwrap();
            rules.allow(&path("nothing"), READ).unwrap();
            rules
        };
        let mut free = 0b1111;
        free |= if version >= SCOPED { 0 } else { 1 << 6 };
        free |= if version >= 4 { 0 } else { 1 << 7 };
        assert_eq!(under(&rules(false), &checks), free);
        assert!(Path::new(&from.1).exists());
        // Where reading is denied too.
        assert_eq!(under(&rules(true), &checks), free & !0b1000);
        // The negative control: a rule for everything.
        let open = Rules::new(version, false).unwrap();
        open.allow("/", WRITE).unwrap();
        assert_eq!(under(&open, &checks) & 0b11_1111, 0b11_1111);
    }
}
