//! Cranelift in a process of its own, one a worker, that turns modules made of foreign sources into machine code.
//!
//! What a compiler made is as hostile as its source: functions on which the register allocator takes minutes or
//! gigabytes, nesting that ends a stack, perhaps a bug that panics. Here each costs one process, within limits that the
//! kernel keeps, and the program a compile error; in the judge it would cost the judge. The process is this same binary
//! under another name; its stdin is the socket to the judge.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::engine;
use crate::sandbox::Fault;
use crate::sandbox::wire;

/// `argv[0]` of a translator.
pub const NAME: &str = "cog-judge-translator";
/// CPU time of one translation, in seconds. The largest program of the real corpora takes three.
const CPU_S: u64 = 20;
/// Address space, in bytes.
const MEMORY: u64 = 2 << 30;
/// Machine code of one module, in bytes.
const MAX_CODE: usize = 256 << 20;
/// A process that translated a larger module, in bytes, is not kept: it may hold on to the memory.
const LARGE: usize = 1 << 20;
/// How long a translator may take by the wall: only a machine that gives it no processor gets there.
const PATIENCE: Duration = Duration::from_secs(CPU_S * 20);

/// Blob: the machine code.
#[derive(Serialize, Deserialize)]
enum Answer {
    Code,
    Refused(String),
}

/// Serves until the judge goes away.
pub fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE, // the judge is gone, or sees it by the status
    }
}

fn serve() -> io::Result<()> {
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_AS, MEMORY)?;
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let engine = engine::compiler().map_err(io::Error::other)?;
    loop {
        // The end of the stream is the judge's end, and ours.
        let Ok(((), blobs)) = wire::receive(&mut socket) else { return Ok(()) };
        limit(libc::RLIMIT_CPU, own_cpu_s() + CPU_S)?;
        let code = engine.precompile_module(blobs.first().map_or(&[][..], Vec::as_slice));
        match code {
            Ok(code) if code.len() > MAX_CODE => {
                let text = format!("{} bytes of machine code", code.len());
                wire::send(&mut socket, &Answer::Refused(text), &[])?;
            }
            Ok(code) => wire::send(&mut socket, &Answer::Code, &[&code])?,
            Err(error) => wire::send(&mut socket, &Answer::Refused(format!("{error:#}")), &[])?,
        }
    }
}

/// Sets the soft limit, at which the kernel ends this process or refuses memory.
fn limit(resource: libc::__rlimit_resource_t, to: u64) -> io::Result<()> {
    let mut both = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointers are to a structure of ours.
    let outcome = unsafe {
        match libc::getrlimit(resource, &raw mut both) {
            0 => {
                both.rlim_cur = to.min(both.rlim_max);
                libc::setrlimit(resource, &raw const both)
            }
            failed => failed,
        }
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// CPU time that this process has used, in whole seconds, rounded up.
fn own_cpu_s() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 + 1
}

/// The judge's side: a process that is started when it is first needed, and again after one that died.
#[derive(Default)]
pub struct Translator {
    standing: Option<Process>,
}

struct Process {
    child: Child,
    socket: UnixStream,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fault(what: &str) -> impl FnOnce(io::Error) -> Fault + '_ {
    move |e| Fault(format!("{what}: {e}"))
}

impl Process {
    fn start() -> Result<Self, Fault> {
        let (socket, theirs) = UnixStream::pair().map_err(fault("socketpair"))?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(fault("setting a timeout"))?;
        let child = Command::new("/proc/self/exe")
            .arg0(NAME)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(fault("starting a translator"))?;
        Ok(Self { child, socket })
    }
}

impl Translator {
    /// Machine code of a module, or why there is none, which is the module's fault.
    ///
    /// # Errors
    /// When the translator cannot be started, or was ended by somebody else.
    pub fn translate(&mut self, module: &[u8]) -> Result<Result<Vec<u8>, String>, Fault> {
        let mut process = match self.standing.take() {
            Some(process) => process,
            None => Process::start()?,
        };
        let answer = wire::send(&mut process.socket, &(), &[module])
            .and_then(|()| wire::receive::<Answer>(&mut process.socket));
        let code = match answer {
            Ok((Answer::Code, mut blobs)) => Ok(blobs.pop().unwrap_or_default()),
            Ok((Answer::Refused(reason), _)) => Err(reason),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(Fault("the translator to machine code does not answer".into()));
            }
            Err(_) => {
                let _ = process.child.kill(); // what it died of stays
                let status = process.child.wait().map_err(fault("waiting for a translator"))?;
                return cause_of_death(status).map(Err);
            }
        };
        if module.len() <= LARGE {
            self.standing = Some(process);
        }
        Ok(code)
    }
}

/// What the module did to the translator, where it was the module.
fn cause_of_death(status: ExitStatus) -> Result<String, Fault> {
    match (status.signal(), status.code()) {
        (Some(libc::SIGXCPU), _) => Ok(format!("more than {CPU_S} s of translation to machine code")),
        // Rust aborts where memory cannot be had, and after the end of a stack.
        (Some(libc::SIGABRT | libc::SIGSEGV | libc::SIGBUS), _) => {
            Ok(format!("translation to machine code needs more than {} MiB", MEMORY >> 20))
        }
        (_, Some(101)) => Ok("the translator to machine code fails on it".into()),
        _ => Err(Fault(format!("the translator to machine code ended: {status}"))),
    }
}
