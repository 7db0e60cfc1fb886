//! The first process of a container of ours: this same binary under another name. The kernel spares the first process of
//! a namespace most signals, its own among them (kill(2), pid_namespaces(7)), so a program in its place would not die of
//! abort() or of a limit. It starts the program, buries orphans and tells the judge the program's end; with it ends the
//! namespace.
//!
//! It runs as the program's user, under the program's filter, and cannot be dumped, so that the program reaches neither
//! its memory nor its descriptors.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use crate::launcher::sys;
use crate::sandbox::wire;

/// `argv[0]`, which for an OCI runtime is also the path.
pub const NAME: &str = "/run/cog-judge-init";
/// Descriptors that the runtime hands on, from 3: the socket to the judge, then the program's three streams.
pub const HANDED: [RawFd; 4] = [3, 4, 5, 6];

/// What to start.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    /// Resource, soft, hard.
    pub limits: Vec<(u32, u64, u64)>,
    /// Whether a failing exec is the program's own fault.
    pub own_fault: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// Waits for an order.
    Ready,
    /// The main process's status, the CPU time of it and of all that ended with it, its memory.
    Ended { status: i32, cpu_us: u64, memory_kb: u64 },
    /// It could not be started.
    Failed(String),
}

pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            // The runtime's stderr, which the judge reads when no word came.
            eprintln!("the container's first process: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    // SAFETY: the descriptors are the runtime's to hand on and nobody else's here; the rest are numbers.
    let (mut socket, streams, failure_pipe) = unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0);
        sys::check(libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32))?;
        let streams = [HANDED[1], HANDED[2], HANDED[3]].map(|fd| OwnedFd::from_raw_fd(fd));
        (UnixStream::from_raw_fd(HANDED[0]), streams, sys::pipe()?)
    };
    let signals = sys::deaths()?;
    wire::send(&mut socket, &Word::Ready, &[])?;
    let (order, _) = wire::receive::<Order>(&mut socket)?;
    let (failure, failure_end) = failure_pipe;
    // SAFETY: this process has one thread.
    let main = sys::check(unsafe { libc::fork() })? as i32;
    if main == 0 {
        become_program(&order, &streams, failure_end);
    }
    drop((streams, failure_end));
    let mut told = false;
    loop {
        let mut fds = [socket.as_raw_fd(), signals.as_raw_fd()].map(|fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        });
        // SAFETY: the array has two entries.
        unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
        if fds[0].revents != 0 {
            // The judge says nothing more: this is its end, and so everything's.
            return Ok(());
        }
        let mut signal = [0_u8; size_of::<libc::signalfd_siginfo>()];
        // SAFETY: the buffer has the given length.
        unsafe { libc::read(signals.as_raw_fd(), signal.as_mut_ptr().cast(), signal.len()) };
        while let Some((pid, status)) = bury() {
            if pid == main && !told {
                told = true;
                wire::send(&mut socket, &end(status, &failure), &[])?;
            }
        }
    }
}

/// Takes one dead child out of the way.
fn bury() -> Option<(i32, i32)> {
    let mut status = 0;
    // SAFETY: `status` outlives the call.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// The main process is gone: what it and all that were waited for have used, or why it was never there.
fn end(status: i32, failure: &OwnedFd) -> Word {
    let mut text = String::new();
    // Closed by its exec or its end, so nobody holds the other side any more.
    if let Ok(mut pipe) = failure.try_clone().map(File::from) {
        let _ = pipe.read_to_string(&mut text);
    }
    if !text.is_empty() {
        return Word::Failed(text);
    }
    // SAFETY: zero is a valid value of every field, and the call fills the structure.
    let used = unsafe {
        let mut used: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
        used
    };
    let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    Word::Ended {
        status,
        cpu_us: time(used.ru_utime) + time(used.ru_stime),
        memory_kb: used.ru_maxrss as u64,
    }
}

/// In the child: streams, limits, the command.
fn become_program(order: &Order, streams: &[OwnedFd; 3], failure: OwnedFd) -> ! {
    let step = match prepare(order, streams) {
        Ok(()) => {
            sys::exec(&order.arguments, &order.environment);
            // A compiler made of this source what the kernel will not start: the program's fault, by the shells' number.
            if order.own_fault {
                // SAFETY: ends this child without running anything more.
                unsafe { libc::_exit(126) };
            }
            "starting the command"
        }
        Err(()) => "entering the sandbox",
    };
    let _ = write!(File::from(failure), "{step}: {}", io::Error::last_os_error());
    // SAFETY: as above.
    unsafe { libc::_exit(255) }
}

/// Errors stand in errno.
fn prepare(order: &Order, streams: &[OwnedFd; 3]) -> Result<(), ()> {
    let done = |result: i32| if result < 0 { Err(()) } else { Ok(()) };
    // SAFETY: plain system calls on numbers and on structures that outlive them; this process has one thread. What is
    // above the streams closes itself at the exec.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        for (at, fd) in streams.iter().enumerate() {
            done(libc::dup2(fd.as_raw_fd(), at as i32))?;
        }
        done(libc::chdir(c"/tmp".as_ptr()))?;
        for (resource, soft, hard) in &order.limits {
            let limit = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
            done(libc::setrlimit(*resource, &raw const limit))?;
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        done(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()))
    }
}
