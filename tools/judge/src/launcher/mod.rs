//! The launcher: one small single-threaded process a worker. It builds the namespaces once and then runs, for the judge
//! that started it, one command after the other. It never sees an expected output.
//!
//! It is this same binary under another name; its stdin is the socket to the judge.

pub mod counters;
pub mod family;
pub mod folder;
mod fork_server;
mod ground;
pub mod landlock;
pub mod namespaces;
mod plain;
mod plain_run;
mod program;
pub mod run;
pub mod seccomp;
pub mod sys;
mod warden;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::protections::Protection;
use crate::sandbox::descriptors;
use crate::sandbox::wire::{self, Exceeded, Kind, Reply, Request, Run, RunLimits, Server, Setup, Walls};
use crate::wipe;
use counters::Counters;
use fork_server::Servers;
use plain::Plain;
pub use run::PATIENCE;
use run::Room;
use sys::Step;
use warden::Warden;

/// `argv[0]` of a launcher.
pub const NAME: &str = "cog-judge-launcher";
/// Bound on /box: sources and what compilers make of them.
pub const BOX_BYTES: u64 = 512 << 20;

/// Second argument of a launcher that builds no namespaces.
pub const PLAIN: &str = "plain";

/// Serves until the judge goes away.
pub fn main() -> std::process::ExitCode {
    let socket = match io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => UnixStream::from(fd),
        Err(_) => return std::process::ExitCode::FAILURE,
    };
    match serve(&socket) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(reason) => {
            // The judge prints the reason, if it is still there.
            let _ = wire::send(&mut &socket, &Reply::Fault(reason), &[]);
            std::process::ExitCode::FAILURE
        }
    }
}

fn serve(socket: &UnixStream) -> Result<(), String> {
    let mut launcher = Launcher::build(socket)?;
    let outcome = serve_with(&mut launcher, socket);
    launcher.leave();
    outcome
}

fn serve_with(launcher: &mut Launcher, mut socket: &UnixStream) -> Result<(), String> {
    wire::send(&mut socket, &Reply::Ready, &[]).step(|| "answering".into())?;
    loop {
        // The end of the stream is the judge's end, and ours.
        let Ok((request, blobs)) = wire::receive::<Request>(&mut socket) else { return Ok(()) };
        let ends = match &request {
            Request::RunWith { joined: true, .. } => {
                Some(descriptors::receive(socket).step(|| "receiving pipes".into())?)
            }
            _ => None,
        };
        let (reply, out) = match launcher.handle(request, &blobs, ends) {
            Ok(answer) => answer,
            Err(reason) => (Reply::Fault(reason), Vec::new()),
        };
        let parts: Vec<&[u8]> = out.iter().map(Vec::as_slice).collect();
        wire::send(&mut socket, &reply, &parts).step(|| "answering".into())?;
    }
}

struct Launcher {
    room: Room,
    servers: Servers,
}

impl Launcher {
    fn build(mut socket: &UnixStream) -> Result<Self, String> {
        let is_plain = std::env::args().nth(2).as_deref() == Some(PLAIN);
        // SAFETY: all three take numbers only.
        unsafe {
            if is_plain {
                // Nothing but this process holds its programs together: it goes after them, when it sees the judge's end,
                // and no key at the judge's terminal ends it before.
                libc::setsid();
            } else {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
            libc::personality(libc::ADDR_NO_RANDOMIZE as u64);
            // What is written here is for programs to read, under ids of their own.
            libc::umask(0o022);
        }
        if !is_plain {
            namespaces::enter_user()?;
        }
        wire::send(&mut socket, &Reply::Namespace, &[]).step(|| "answering".into())?;
        let (setup, blobs) = wire::receive::<Setup>(&mut socket).step(|| "waiting for the judge".into())?;
        // SAFETY: numbers only. Ids were mapped by now; a user who may not drop groups has only their own.
        unsafe {
            // Changing ids cleared it.
            libc::setgroups(0, std::ptr::null());
            if !is_plain {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            }
        }
        let counters = Counters::open(setup.cgroup.as_ref())?;
        let host_proc = fs::File::open("/proc").step(|| "opening /proc".into())?.into();
        if setup.cgroup.is_some() {
            // The kernel's choice when memory runs out must not fall on the launcher.
            let _ = fs::write("/proc/self/oom_score_adj", "-1000");
        }
        let checkpoint = blobs.first().ok_or("the judge sent no checkpoint library")?;
        let plain = match &setup.walls {
            Walls::Namespaces => {
                namespaces::build(&setup, checkpoint)?;
                None
            }
            Walls::Landlock { folder } => Some(Plain::build(&setup, folder)?),
        };
        let processors = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
        let refusals = plain.as_ref().map(|plain| plain.refusals(setup.ids.is_some())).unwrap_or_default();
        let filter = if setup.protections.has(Protection::Filter) {
            seccomp::filter(!counters.watches_memory(), refusals)
        } else {
            seccomp::open()
        };
        let mut room = Room {
            ids: setup.ids.filter(|_| setup.protections.has(Protection::OwnUser)),
            counters,
            filter,
            processors,
            protections: setup.protections,
            host_proc,
            plain,
            landlock: if setup.protections.has(Protection::Landlock) { landlock::version() } else { 0 },
            warden: None,
        };
        // It stands before the group is weighed, as it will stand beside every program.
        if room.plain.is_none() {
            room.warden = Some(Warden::start(&room)?);
        }
        room.counters.weigh().step(|| "reading the control group".into())?;
        Ok(Self { room, servers: Servers::default() })
    }

    fn handle(
        &mut self,
        request: Request,
        blobs: &[Vec<u8>],
        ends: Option<[OwnedFd; 2]>,
    ) -> Result<(Reply, Vec<Vec<u8>>), String> {
        match request {
            Request::Place { names, server } => {
                if let Some(spec) = server.as_ref().filter(|s| self.servers.wants(s))
                    && let Err(reason) = self.raise(spec)
                {
                    self.servers.refuse(spec, reason);
                }
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                self.place(&names, &blobs.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
                self.room.counters.weigh().step(|| "reading the control group".into())?;
                let refusal = server.as_ref().and_then(|s| self.servers.refusal(s)).map(str::to_owned);
                Ok((Reply::Placed { server: refusal }, Vec::new()))
            }
            Request::Run(spec) => {
                let stdin = blobs.first().map_or(&[][..], Vec::as_slice);
                let (outcome, stdout, stderr) = run::run(&mut self.room, &mut self.servers, &spec, stdin)?;
                Ok((Reply::Ran(outcome), vec![stdout, stderr]))
            }
            Request::RunWith { run: spec, files, fetch, .. } => {
                let (stdin, contents) = blobs.split_first().ok_or("no stdin came")?;
                let files: Vec<_> = files.into_iter().zip(contents.iter().map(Vec::as_slice)).collect();
                let with = run::With { files: &files, ends };
                let ((mut outcome, stdout, stderr), ended_us) =
                    run::run_with(&mut self.room, &mut self.servers, &spec, stdin, with)?;
                let working = self.room.working_folder();
                let found =
                    folder::collect(&working, &fetch, spec.limits.output_bytes).unwrap_or_else(|()| {
                        outcome.exceeded.get_or_insert(Exceeded::Output);
                        vec![None; fetch.len()]
                    });
                let fetched = found.iter().map(Option::is_some).collect();
                let files = found.into_iter().map(Option::unwrap_or_default);
                let blobs = [stdout, stderr].into_iter().chain(files).collect();
                Ok((Reply::RanWith { outcome, fetched, ended_us }, blobs))
            }
        }
    }

    /// Starts a fork server and lets it run a program whose answer is known.
    fn raise(&mut self, spec: &Server) -> Result<(), String> {
        self.place(&[&spec.source], &[b"0\n"])?;
        self.servers.launch(spec, &self.room)?;
        for _ in 0..2 {
            self.place(&[&spec.source], &[spec.canary.as_bytes()])?;
            let canary = Run {
                arguments: spec.arguments.clone(),
                environment: spec.environment.clone(),
                limits: RunLimits {
                    cpu_us: 5_000_000,
                    wall_us: 20_000_000,
                    memory_bytes: 512 << 20,
                    processes: 32,
                    file_bytes: 1 << 20,
                    output_bytes: 1 << 16,
                },
                kind: Kind::Test,
                server: Some(spec.name.clone()),
            };
            let (outcome, stdout, stderr) = run::run(&mut self.room, &mut self.servers, &canary, b"")?;
            if outcome.exit != Some(0) || stdout != b"42\n" {
                // An interpreter that dies can dump its whole memory map: the first words tell why.
                let start =
                    |bytes: &[u8]| String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
                return Err(format!(
                    "its canary failed: {outcome:?} {:?} {:?}",
                    start(&stdout),
                    start(&stderr)
                ));
            }
        }
        Ok(())
    }

    fn place(&self, names: &[&str], contents: &[&[u8]]) -> Result<(), String> {
        self.room.fresh_box(BOX_BYTES)?;
        let folder = self.room.program_folder();
        for (name, bytes) in names.iter().zip(contents) {
            if name.is_empty() || name.contains('/') || *name == ".." {
                return Err(format!("bad file name {name:?}"));
            }
            fs::write(folder.join(name), bytes).step(|| format!("writing {name}"))?;
        }
        Ok(())
    }

    /// Takes down what does not go with this process.
    fn leave(&self) {
        if let Some(plain) = &self.room.plain {
            // Not while anything runs that could put links there.
            if family::bury().is_ok() {
                let _ = wipe::remove(plain.folder());
            }
        }
    }
}
