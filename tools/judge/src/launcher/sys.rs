//! System calls that neither the standard library nor the C library wraps, as safe functions where that is possible.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Turns -1 into the error that the call left.
pub fn check(result: impl Into<i64>) -> io::Result<i64> {
    match result.into() {
        -1 => Err(io::Error::last_os_error()),
        n => Ok(n),
    }
}

/// Names the step that failed.
pub trait Step<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, String>;
}

impl<T> Step<T> for io::Result<T> {
    fn step(self, what: impl FnOnce() -> String) -> Result<T, String> {
        self.map_err(|e| format!("{}: {e}", what()))
    }
}

/// The monotonic clock, which all processes of the machine share.
pub fn now_us() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is filled by the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

pub fn c_string(text: &str) -> CString {
    // A NUL cannot be part of a path or an argument; what follows one is dropped.
    CString::new(text.split('\0').next().unwrap_or_default()).unwrap_or_default()
}

pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::unshare(flags) }).map(drop)
}

pub fn mount(source: &str, target: &str, kind: &str, flags: u64, data: &str) -> io::Result<()> {
    let (source, target, kind, data) = (c_string(source), c_string(target), c_string(kind), c_string(data));
    // SAFETY: all pointers are to NUL-terminated strings that outlive the call.
    check(unsafe {
        libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

pub fn unmount(target: &str) -> io::Result<()> {
    let target = c_string(target);
    // SAFETY: the pointer is to a NUL-terminated string.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

pub fn pivot_root(new: &CStr, old: &CStr) -> io::Result<()> {
    // SAFETY: both pointers are to NUL-terminated strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) }).map(drop)
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds and removes `MOUNT_ATTR_*` flags of a mount; with a recursive clone, of all mounts below.
pub fn set_mount(
    dir: Option<BorrowedFd<'_>>,
    path: &str,
    set: u64,
    clear: u64,
    recursive: bool,
) -> io::Result<()> {
    let attributes = MountAttributes { set, clear, propagation: 0, user_namespace: 0 };
    let path_c = c_string(path);
    let mut flags = if path.is_empty() { libc::AT_EMPTY_PATH } else { 0 };
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: path and attributes outlive the call; the size is the struct's.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.map_or(libc::AT_FDCWD, |d| d.as_raw_fd()),
            path_c.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

const OPEN_TREE_CLONE: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;

/// A copy of what is mounted at `source`, attached nowhere yet.
pub fn clone_tree(source: &str) -> io::Result<OwnedFd> {
    let path = c_string(source);
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | libc::AT_RECURSIVE as u32;
    // SAFETY: the pointer is to a NUL-terminated string.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

pub fn attach(tree: &OwnedFd, target: &str) -> io::Result<()> {
    let target = c_string(target);
    // SAFETY: both strings are NUL-terminated.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Shows `source` at `target`, read-only unless `write`, without set-user-id and, unless `devices`, device files.
pub fn bind(source: &str, target: &str, write: bool, devices: bool) -> io::Result<()> {
    use std::os::fd::AsFd;
    let tree = clone_tree(source)?;
    let mut set = libc::MOUNT_ATTR_NOSUID;
    if !write {
        set |= libc::MOUNT_ATTR_RDONLY;
    }
    if !devices {
        set |= libc::MOUNT_ATTR_NODEV;
    }
    set_mount(Some(tree.as_fd()), "", set, 0, true)?;
    attach(&tree, target)
}

#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
}

/// As `fork`, into new namespaces, with a descriptor that names the child. `None` in the child.
///
/// # Safety
/// The process must have one thread only.
pub unsafe fn fork_into(namespaces: u64) -> io::Result<Option<(i32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    let arguments = CloneArguments {
        flags: namespaces | libc::CLONE_PIDFD as u64,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: without CLONE_VM the child has its own copy of memory, as after fork.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(Some((pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })))
}

pub fn kill(pidfd: &OwnedFd) {
    // SAFETY: no memory is involved. Failure means that the process is gone already.
    unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            libc::SIGKILL,
            std::ptr::null::<u8>(),
            0,
        );
    }
}

/// Waits for a child's end.
pub fn reap(pid: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    while unsafe { libc::waitpid(pid, &raw mut status, 0) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
    status
}

pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just given us both.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

pub fn open_at(dir: &OwnedFd, name: &str, flags: i32) -> io::Result<OwnedFd> {
    let name = c_string(name);
    // SAFETY: the pointer is to a NUL-terminated string; the result is a descriptor of ours.
    unsafe {
        let fd = check(libc::openat(dir.as_raw_fd(), name.as_ptr(), flags | libc::O_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Two ends of a socket that keeps messages whole.
pub fn socket_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors, which are then owned.
    unsafe {
        let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
        check(libc::socketpair(libc::AF_UNIX, kind, 0, ends.as_mut_ptr()))?;
        Ok((OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])))
    }
}

/// Most descriptors that a message carries.
const CARRIED: usize = 5;

/// A message's parts, and room for its descriptors' control message, aligned as the kernel wants it.
fn with_message<T>(parts: &mut [libc::iovec], act: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut space = [0_u64; 8];
    // SAFETY: zero is a valid value of every field.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = parts.as_mut_ptr();
    message.msg_iovlen = parts.len() as _;
    message.msg_control = space.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&space) as _;
    act(&mut message)
}

/// Sends a message of two parts with at most [`CARRIED`] descriptors.
///
/// # Errors
/// When the other side is gone.
pub fn send_with(socket: &OwnedFd, head: &[u8], rest: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    assert!(descriptors.len() <= CARRIED, "the control message has room for {CARRIED}");
    with_message(&mut [part(head), part(rest)], |message| {
        // SAFETY: the message points to buffers that outlive the call; the control buffer is large enough for one header
        // and the descriptors (CMSG_SPACE(20) is 40 bytes).
        unsafe {
            if descriptors.is_empty() {
                message.msg_controllen = 0;
            } else {
                let bytes = size_of_val(descriptors) as u32;
                message.msg_controllen = libc::CMSG_SPACE(bytes) as _;
                let header = libc::CMSG_FIRSTHDR(message);
                (*header).cmsg_level = libc::SOL_SOCKET;
                (*header).cmsg_type = libc::SCM_RIGHTS;
                (*header).cmsg_len = libc::CMSG_LEN(bytes) as _;
                let place = libc::CMSG_DATA(header).cast::<RawFd>();
                for (at, fd) in descriptors.iter().enumerate() {
                    place.add(at).write_unaligned(*fd);
                }
            }
            check(libc::sendmsg(socket.as_raw_fd(), message, libc::MSG_NOSIGNAL) as i64).map(drop)
        }
    })
}

/// Receives a message into `buffer`: its length, 0 at the end, and its descriptors.
///
/// # Errors
/// When the socket fails.
pub fn receive_with(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    with_message(&mut [part], |message| {
        // SAFETY: the message points to buffers that outlive the call; the descriptors that come are ours.
        unsafe {
            let flags = libc::MSG_CMSG_CLOEXEC;
            let length = check(libc::recvmsg(socket.as_raw_fd(), message, flags) as i64)? as usize;
            let mut descriptors = Vec::new();
            let header = libc::CMSG_FIRSTHDR(message);
            if !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let place = libc::CMSG_DATA(header).cast::<RawFd>();
                for at in 0..bytes / size_of::<RawFd>() {
                    descriptors.push(OwnedFd::from_raw_fd(place.add(at).read_unaligned()));
                }
            }
            Ok((length, descriptors))
        }
    })
}

/// A struct of integers as bytes.
pub fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: used for repr(C) structs of integers only, whose every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Closes every descriptor but `kept`, and puts /dev/null in the place of the three streams.
pub fn close_others(kept: &[RawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| *fd as u32).collect();
    kept.sort_unstable();
    // SAFETY: the path is NUL-terminated; the rest are numbers.
    unsafe {
        let null = check(libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC))? as i32;
        for fd in 0..3 {
            check(libc::dup2(null, fd))?;
        }
        let mut next = 3;
        for fd in kept {
            if fd > next {
                check(libc::close_range(next, fd - 1, 0))?;
            }
            next = fd + 1;
        }
        check(libc::close_range(next, u32::MAX, 0)).map(drop)
    }
}

pub fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) }).map(drop)
}

/// A file in memory that holds `bytes`, at its beginning.
pub fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    use std::io::{Seek, Write};
    // SAFETY: the name is NUL-terminated.
    let fd = check(unsafe { libc::memfd_create(c"stdin".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: the kernel has just given us this descriptor.
    let mut file = std::fs::File::from(unsafe { OwnedFd::from_raw_fd(fd as RawFd) });
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// So that no exec gives a capability back. Needs a capability itself, so it comes before the change of ids.
pub fn drop_bounding_set() {
    for capability in 0..64 {
        // SAFETY: numbers only. Numbers that the kernel does not know fail, and need nothing.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
}

/// Drops every capability for good.
pub fn drop_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let none = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3; prctl takes no memory here.
    unsafe {
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
        check(libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr())).map(drop)
    }
}

/// Keeps all capabilities over the next exec, whatever the user id.
pub fn keep_capabilities() -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: header and data have the layout of version 3.
    unsafe {
        check(libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()))?;
        for set in &mut sets {
            set[2] = set[1];
        }
        check(libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr()))?;
        for capability in 0..64 {
            libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, capability, 0, 0);
        }
    }
    Ok(())
}

/// Blocks SIGCHLD, and gives a descriptor that tells of dead children instead.
///
/// # Errors
/// When the kernel refuses.
pub fn deaths() -> io::Result<OwnedFd> {
    // SAFETY: the mask is initialised by the first call; the descriptor is ours.
    unsafe {
        let mut mask: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut mask);
        libc::sigaddset(&raw mut mask, libc::SIGCHLD);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const mask, std::ptr::null_mut()))?;
        let fd = check(libc::signalfd(-1, &raw const mask, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// Becomes another program; returns only when that fails, with the reason in errno.
pub fn exec(arguments: &[String], environment: &[String]) {
    let words = |list: &[String]| list.iter().map(|word| c_string(word)).collect::<Vec<_>>();
    let (arguments, environment) = (words(arguments), words(environment));
    let pointers =
        |list: &[CString]| list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end in null and their strings live until the process is replaced.
    unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
}
