//! Interpreters that are started once and forked for each test. The part inside the interpreter, and why a program
//! cannot reach its server, stand in `checkpoint/checkpoint.c`.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::landlock::{self, Rules};
use super::namespaces::CHECKPOINT;
use super::run::{End, Room, SETTLE};
use super::sys::{self, Step};
use crate::sandbox::wire::Server;

const MAX_FDS: usize = 16;
const MAX_FILTER: usize = 4096;
/// Numbers of a server's own descriptors: the socket to the launcher, its oom_score_adj.
const CONTROL: i32 = 200;
const SCORE: i32 = 201;
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
#[derive(Clone, Copy)]
struct Hello {
    uid: u32,
    gid: u32,
    set_ids: u32,
    fds: u32,
    filter: u32,
    /// Flags of `landlock_restrict_self`.
    landlock: u32,
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
    pub fn launch(&mut self, spec: &Server, room: &Room) -> Result<(), String> {
        let (socket, theirs) = sys::socket_pair().step(|| "socketpair".into())?;
        // SAFETY: the launcher has one thread.
        let Some((pid, pidfd)) = unsafe { sys::fork_into(0) }.step(|| "forking".into())? else {
            become_interpreter(spec, room, &theirs)
        };
        drop(theirs);
        let standing = Standing { spec: spec.clone(), socket, pid, pidfd };
        let ready = receive_report(standing.socket.as_raw_fd(), START_MS)
            .step(|| "the interpreter never reached its program".into())?;
        if ready.kind != REPORT_READY {
            return Err("the interpreter's first word is not understood".into());
        }
        let hello = hello(room, pid, ready.status)?;
        let bytes = sys::bytes_of(&*hello);
        let socket = standing.socket.as_raw_fd();
        // SAFETY: the buffer has the given length.
        let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), 0) };
        sys::check(sent as i64).step(|| "greeting the interpreter".into())?;
        self.standing.retain(|s| s.spec.name != spec.name);
        self.standing.push(standing);
        Ok(())
    }

    /// Asks for a child in a process namespace, with the three streams, under the rules of `layer`.
    ///
    /// # Errors
    /// When the server is gone.
    pub fn start(
        &self,
        name: &str,
        space: &OwnedFd,
        streams: [&OwnedFd; 3],
        layer: Option<&Rules>,
        limits: &[(u32, u64, u64); 8],
    ) -> Result<(), String> {
        let standing = self.find(name)?;
        let request = limits.map(|(resource, soft, hard)| Limit { resource, pad: 0, soft, hard });
        let fds: Vec<RawFd> =
            [space].into_iter().chain(streams).chain(layer.map(Rules::fd)).map(AsRawFd::as_raw_fd).collect();
        // SAFETY: an array of structs of integers is as many bytes of them.
        let bytes =
            unsafe { std::slice::from_raw_parts(request.as_ptr().cast::<u8>(), size_of_val(&request)) };
        sys::send_with(&standing.socket, bytes, &[], &fds).step(|| format!("the {name} server is gone"))?;
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

    /// Takes the word on a child that was killed, and drops it. False when there is none: then the server is dropped.
    pub fn settle(&mut self, name: &str) -> bool {
        let Ok(socket) = self.socket(name) else { return false };
        let is_there = receive_report(socket, SETTLE.as_millis() as i32).is_ok_and(|r| r.kind == REPORT_EXIT);
        if !is_there {
            self.standing.retain(|s| s.spec.name != name);
        }
        is_there
    }
}

fn become_interpreter(spec: &Server, room: &Room, socket: &OwnedFd) -> ! {
    let source = format!("/box/{}", spec.source);
    let mut environment: Vec<_> = spec.environment.iter().map(|e| sys::c_string(e)).collect();
    environment.push(sys::c_string(&format!("LD_PRELOAD={CHECKPOINT}")));
    environment.push(sys::c_string(&format!("COGNATE_CHECKPOINT={CONTROL}:{}:{source}", spec.mode)));
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
        libc::dup2(socket.as_raw_fd(), CONTROL);
        // Its children shall be the first to go when memory runs out, and /proc is not theirs to write.
        match room.open_host_proc("self/oom_score_adj", libc::O_RDWR) {
            Ok(score) => libc::dup2(score.as_raw_fd(), SCORE),
            Err(_) => libc::close(SCORE),
        };
        libc::close_range(3, CONTROL as u32 - 1, 0);
        libc::close_range(SCORE as u32 + 1, u32::MAX, 0);
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
fn hello(room: &Room, pid: i32, script: i32) -> Result<Box<Hello>, String> {
    let dir = HostProc { fd: &room.host_proc, pid };
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
        landlock: landlock::flags(room.landlock),
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
        if fd > 2 && fd != CONTROL && fd != SCORE {
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
        sys::open_at(self.fd, &format!("{}/{name}", self.pid), flags)
            .step(|| format!("reading {name} of the interpreter"))
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
