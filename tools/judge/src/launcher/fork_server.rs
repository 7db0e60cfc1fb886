//! Interpreters that are started once and forked for each test. The part inside the interpreter, and why a program
//! cannot reach its server, stand in `checkpoint/checkpoint.c`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::namespaces::CHECKPOINT;
use super::run::{End, Room, SETTLE};
use super::sys::{self, Step};
use crate::sandbox::wire::Server;

const MAX_FDS: usize = 16;
const MAX_FILTER: usize = 4096;
/// Longest wait for an interpreter to reach its checkpoint.
const START_MS: i32 = 20_000;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Inherited {
    fd: i32,
    kind: u32,
    flags: i32,
    pair: i32,
}
const FD_EVENT: u32 = 1;
const FD_PIPE_READ: u32 = 2;
const FD_PIPE_WRITE: u32 = 3;
const FD_SCRIPT: u32 = 4;

#[repr(C)]
struct Hello {
    uid: u32,
    gid: u32,
    set_ids: u32,
    fds: u32,
    filter: u32,
    pad: u32,
    fd: [Inherited; MAX_FDS],
    code: [u64; MAX_FILTER],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Limit {
    resource: u32,
    pad: u32,
    soft: u64,
    hard: u64,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Report {
    kind: u32,
    status: i32,
    cpu_us: i64,
    memory_kb: i64,
}
const REPORT_READY: u32 = 1;
const REPORT_EXIT: u32 = 2;

struct Standing {
    spec: Server,
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
}

impl Drop for Standing {
    fn drop(&mut self) {
        sys::kill(&self.pidfd);
        sys::reap(self.pid);
    }
}

/// The servers of this worker, by language.
#[derive(Default)]
pub struct Servers {
    standing: Vec<Standing>,
    /// Languages whose server did not start or did not answer rightly, with the reason.
    refused: Vec<(Server, String)>,
}

fn bytes_of<T>(value: &T) -> &[u8] {
    // SAFETY: used for repr(C) structs of integers only, whose every byte is initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

fn receive_report(socket: RawFd, timeout_ms: i32) -> io::Result<Report> {
    let mut poll = libc::pollfd { fd: socket, events: libc::POLLIN, revents: 0 };
    let mut report = Report::default();
    // SAFETY: both buffers outlive the calls and have the given sizes.
    unsafe {
        if sys::check(libc::poll(&raw mut poll, 1, timeout_ms))? == 0 {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let n = sys::check(libc::read(socket, (&raw mut report).cast(), size_of::<Report>()) as i64)?;
        if n as usize != size_of::<Report>() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(report)
}

impl Servers {
    pub fn stands(&self, name: &str) -> bool {
        self.standing.iter().any(|s| s.spec.name == name)
    }

    pub fn refusal(&self, spec: &Server) -> Option<&str> {
        self.refused.iter().find(|(s, _)| s == spec).map(|(_, reason)| reason.as_str())
    }

    /// True when the server has yet to be started.
    pub fn wants(&self, spec: &Server) -> bool {
        self.refusal(spec).is_none() && !self.standing.iter().any(|s| s.spec == *spec)
    }

    pub fn refuse(&mut self, spec: &Server, reason: String) {
        self.standing.retain(|s| s.spec.name != spec.name);
        self.refused.push((spec.clone(), reason));
    }

    fn find(&self, name: &str) -> Result<&Standing, String> {
        self.standing.iter().find(|s| s.spec.name == name).ok_or_else(|| format!("no server for {name}"))
    }

    pub fn socket(&self, name: &str) -> Result<RawFd, String> {
        Ok(self.find(name)?.socket.as_raw_fd())
    }

    /// Starts an interpreter and waits until it stands at its checkpoint. /box holds a placeholder program.
    ///
    /// # Errors
    /// Why it cannot serve; runs then start the interpreter each time.
    pub fn launch(&mut self, spec: &Server, room: &Room, host_proc: &OwnedFd) -> Result<(), String> {
        let mut ends = [0; 2];
        // SAFETY: `ends` has room for two descriptors, which are then owned.
        let (socket, theirs) = unsafe {
            sys::check(libc::socketpair(
                libc::AF_UNIX,
                libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC,
                0,
                ends.as_mut_ptr(),
            ))
            .step(|| "socketpair".into())?;
            (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        };
        // SAFETY: the launcher has one thread.
        let Some((pid, pidfd)) = unsafe { sys::fork_into(0) }.step(|| "forking".into())? else {
            become_interpreter(spec, &theirs)
        };
        drop(theirs);
        let standing = Standing { spec: spec.clone(), socket, pid, pidfd };
        let ready = receive_report(standing.socket.as_raw_fd(), START_MS)
            .step(|| "the interpreter never reached its program".into())?;
        if ready.kind != REPORT_READY {
            return Err("the interpreter's first word is not understood".into());
        }
        let hello = hello(room, host_proc, pid, ready.status)?;
        let bytes = bytes_of(&*hello);
        let socket = standing.socket.as_raw_fd();
        // SAFETY: the buffer has the given length.
        let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0) };
        sys::check(sent as i64).step(|| "greeting the interpreter".into())?;
        self.standing.retain(|s| s.spec.name != spec.name);
        self.standing.push(standing);
        Ok(())
    }

    /// Asks for a child in the namespace of `pidfd`, with the three streams.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn start(
        &self,
        name: &str,
        pidfd: &OwnedFd,
        streams: [&OwnedFd; 3],
        limits: &[(u32, u64, u64); 8],
    ) -> Result<(), String> {
        let standing = self.find(name)?;
        let request = limits.map(|(resource, soft, hard)| Limit { resource, pad: 0, soft, hard });
        let fds = [pidfd.as_raw_fd(), streams[0].as_raw_fd(), streams[1].as_raw_fd(), streams[2].as_raw_fd()];
        let mut space = [0u64; 8];
        let mut part =
            libc::iovec { iov_base: request.as_ptr().cast_mut().cast(), iov_len: size_of_val(&request) };
        // SAFETY: the message points to buffers that outlive the call; the control buffer is aligned and holds one
        // header with four descriptors (CMSG_SPACE(16) = 32 bytes).
        unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = &raw mut part;
            message.msg_iovlen = 1;
            message.msg_control = space.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_SPACE(size_of_val(&fds) as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = libc::SOL_SOCKET;
            (*header).cmsg_type = libc::SCM_RIGHTS;
            (*header).cmsg_len = libc::CMSG_LEN(size_of_val(&fds) as u32) as _;
            libc::CMSG_DATA(header).cast::<[i32; 4]>().write_unaligned(fds);
            sys::check(
                libc::sendmsg(standing.socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as i64
            )
            .step(|| format!("the {name} server is gone"))?;
        }
        Ok(())
    }

    /// The server's word on the child's end, which is there to be read.
    ///
    /// # Errors
    /// When the child could not be made, or the server is gone; then it is started anew for the next program.
    pub fn end(&mut self, name: &str) -> Result<End, String> {
        let socket = self.socket(name)?;
        match receive_report(socket, 0) {
            Ok(r) if r.kind == REPORT_EXIT => {
                Ok(End { status: r.status, cpu_us: r.cpu_us as u64, memory_kb: r.memory_kb as u64 })
            }
            Ok(r) => {
                self.standing.retain(|s| s.spec.name != name);
                let error = io::Error::from_raw_os_error(r.cpu_us as i32);
                Err(format!("the {name} server could not fork, step {}: {error}", r.status))
            }
            Err(e) => {
                self.standing.retain(|s| s.spec.name != name);
                Err(format!("the {name} server: {e}"))
            }
        }
    }

    /// Takes the word on a child that was killed with its namespace, and drops it.
    pub fn settle(&mut self, name: &str) {
        let Ok(socket) = self.socket(name) else { return };
        if !receive_report(socket, SETTLE.as_millis() as i32).is_ok_and(|r| r.kind == REPORT_EXIT) {
            self.standing.retain(|s| s.spec.name != name);
        }
    }
}

fn become_interpreter(spec: &Server, socket: &OwnedFd) -> ! {
    let source = format!("/box/{}", spec.source);
    let mut environment: Vec<_> = spec.environment.iter().map(|e| sys::c_string(e)).collect();
    environment.push(sys::c_string(&format!("LD_PRELOAD={CHECKPOINT}")));
    environment.push(sys::c_string(&format!("COGNATE_CHECKPOINT=200:{}:{source}", spec.mode)));
    let arguments: Vec<_> = spec.arguments.iter().map(|a| sys::c_string(a)).collect();
    let pointers = |list: &[std::ffi::CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: plain system calls; both arrays end in null and their strings live until the process is replaced.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        for fd in 0..3 {
            libc::dup2(null, fd);
        }
        libc::dup2(socket.as_raw_fd(), 200);
        libc::close_range(3, 199, 0);
        libc::close_range(201, u32::MAX, 0);
        libc::chdir(c"/tmp".as_ptr());
        libc::setsid();
        if sys::keep_capabilities().is_ok() {
            libc::execve(argv[0], argv.as_ptr(), envp.as_ptr());
        }
        libc::_exit(127)
    }
}

/// Looks at the waiting interpreter from outside and says what its children need; refuses what could carry something
/// from one child to the next.
fn hello(room: &Room, host_proc: &OwnedFd, pid: i32, script: i32) -> Result<Box<Hello>, String> {
    let dir = HostProc { fd: host_proc, pid };
    if dir.count("task")? != 1 {
        return Err("the interpreter has threads".into());
    }
    let maps = dir.read("maps")?;
    if let Some(line) =
        maps.lines().find(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with("rw") && p.ends_with('s')))
    {
        return Err(format!("the interpreter shares memory with its children: {line}"));
    }
    let mut hello = Box::new(Hello {
        uid: room.ids.map_or(0, |i| i.0),
        gid: room.ids.map_or(0, |i| i.1),
        set_ids: u32::from(room.ids.is_some()),
        fds: 0,
        filter: room.filter.len() as u32,
        pad: 0,
        fd: [Inherited::default(); MAX_FDS],
        code: [0; MAX_FILTER],
    });
    if room.filter.len() > MAX_FILTER {
        return Err("the filter is too long".into());
    }
    for (code, instruction) in hello.code.iter_mut().zip(&room.filter) {
        // SAFETY: both are eight bytes of plain integers.
        *code = unsafe { std::mem::transmute_copy(instruction) };
    }
    let mut found = Vec::new();
    for fd in dir.list("fd")? {
        if fd > 2 && fd != 200 {
            found.push((fd, dir.link(&format!("fd/{fd}"))?, dir.flags(fd)?));
        }
    }
    for (fd, target, flags) in &found {
        let mut inherited = Inherited { fd: *fd, kind: 0, flags: *flags, pair: -1 };
        if *fd == script {
            inherited.kind = FD_SCRIPT;
        } else if target == "anon_inode:[eventfd]" {
            inherited.kind = FD_EVENT;
        } else if target.starts_with("pipe:") {
            let other = found.iter().find(|(f, t, _)| f != fd && t == target);
            let Some((other, ..)) = other else { return Err("the interpreter holds half a pipe".into()) };
            let write = flags & libc::O_ACCMODE == libc::O_WRONLY;
            inherited.kind = if write { FD_PIPE_WRITE } else { FD_PIPE_READ };
            inherited.pair = *other;
        } else if target.starts_with('/') {
            continue; // a file; the child closes it
        } else {
            return Err(format!("the interpreter holds {target}"));
        }
        let at = hello.fds as usize;
        *hello.fd.get_mut(at).ok_or("the interpreter holds too many files")? = inherited;
        hello.fds += 1;
    }
    Ok(hello)
}

/// /proc/PID of the host, through a descriptor that was opened before the root changed.
struct HostProc<'a> {
    fd: &'a OwnedFd,
    pid: i32,
}

impl HostProc<'_> {
    fn open(&self, name: &str, flags: i32) -> Result<OwnedFd, String> {
        let path = sys::c_string(&format!("{}/{name}", self.pid));
        // SAFETY: the pointer is to a NUL-terminated string; the result is a descriptor of ours.
        unsafe {
            let fd = sys::check(libc::openat(self.fd.as_raw_fd(), path.as_ptr(), flags | libc::O_CLOEXEC))
                .step(|| format!("reading {name} of the interpreter"))?;
            Ok(OwnedFd::from_raw_fd(fd as RawFd))
        }
    }

    fn read(&self, name: &str) -> Result<String, String> {
        let file = fs::File::from(self.open(name, libc::O_RDONLY)?);
        io::read_to_string(file).step(|| format!("reading {name} of the interpreter"))
    }

    fn link(&self, name: &str) -> Result<String, String> {
        let path = sys::c_string(&format!("{}/{name}", self.pid));
        let mut buffer = [0u8; 512];
        // SAFETY: the buffer has the given length.
        let n = sys::check(unsafe {
            libc::readlinkat(self.fd.as_raw_fd(), path.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len())
        } as i64)
        .step(|| format!("reading {name} of the interpreter"))?;
        Ok(String::from_utf8_lossy(&buffer[..n as usize]).into_owned())
    }

    fn flags(&self, fd: i32) -> Result<i32, String> {
        let text = self.read(&format!("fdinfo/{fd}"))?;
        let octal = text.lines().find_map(|l| l.strip_prefix("flags:")).map(str::trim);
        octal.and_then(|o| i32::from_str_radix(o, 8).ok()).ok_or_else(|| format!("flags of descriptor {fd}"))
    }

    fn list(&self, name: &str) -> Result<Vec<i32>, String> {
        let dir = self.open(name, libc::O_RDONLY | libc::O_DIRECTORY)?;
        let mut names = Vec::new();
        let mut buffer = [0u8; 8192];
        loop {
            // SAFETY: the buffer has the given length.
            let n = sys::check(unsafe {
                libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buffer.as_mut_ptr(), buffer.len())
            })
            .step(|| format!("listing {name} of the interpreter"))? as usize;
            if n == 0 {
                return Ok(names);
            }
            let mut at = 0;
            while at + 19 < n {
                // struct linux_dirent64: inode, offset, then at 16 the record's length, at 19 the name.
                let length = usize::from(u16::from_ne_bytes([buffer[at + 16], buffer[at + 17]]));
                let name = buffer[at + 19..at + length].split(|&b| b == 0).next().unwrap_or_default();
                names.extend(std::str::from_utf8(name).ok().and_then(|n| n.parse::<i32>().ok()));
                at += length.max(1);
            }
        }
    }

    fn count(&self, name: &str) -> Result<usize, String> {
        Ok(self.list(name)?.len())
    }
}
