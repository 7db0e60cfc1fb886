//! The sandbox of an OCI runtime (runc, crun, youki), for those who must use one: each run is a container of a bundle of
//! ours. It is made, and taken down, by the runtime; what runs in it is watched as in the container.

mod bundle;
pub mod init;
mod place;
mod policy;
mod runtime;

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use self::bundle::{Bundle, Ids};
use self::init::{Order, Word};
use self::place::Place;
pub use self::runtime::NO_RUNTIME;
use self::runtime::{PATIENCE, Runtime, words};
use super::cgroup::{self, PREFIX, sweep};
use super::container::{Host, second_ids};
use super::wire::{self, CgroupFiles, Exceeded, Kind, Run, RunLimits, Server};
use super::{Detailed, Extras, Fault, Finished, Sandbox};
use crate::launcher::counters::Counters;
use crate::launcher::run::{End, Ended, Room, Streams, Watch, rlimits};
use crate::launcher::{family, folder, sys};
use crate::limits;
use crate::owner::Owner;
use crate::protections;

/// The id inside, where a second one can be mapped.
const INSIDE: u32 = 1000;

/// What all workers know of the runtime.
#[derive(Debug)]
pub struct Oci {
    runtime: Runtime,
}

impl Oci {
    /// Finds the runtime, or takes the one that is given, and starts a container with it, to see whether that can be.
    ///
    /// # Errors
    /// When there is none, or it cannot start containers here, in its own words.
    pub fn open(given: Option<&Path>, host: &Host, index: usize) -> Result<Arc<Self>, Fault> {
        let runtime = Runtime::find(given)?;
        // A container's first process is to come to this process when the runtime is done, which then waits for it.
        family::adopt_orphans();
        let with = |runtime: Runtime| {
            let shared = Arc::new(Self { runtime });
            OciBox::new(shared.clone(), host.clone(), index)?.try_out().map(|()| shared)
        };
        // SAFETY: only reads.
        let root = unsafe { libc::geteuid() } == 0;
        // Groups of an ordinary user are the business of systemd, which a runtime would have to be told.
        if !root {
            return with(runtime.without_groups());
        }
        with(runtime.clone()).or_else(|first| {
            with(runtime.without_groups())
                .map_err(|second| Fault(format!("{first}; without control groups: {second}")))
        })
    }

    /// In words, for `doctor`.
    pub fn describe(&self) -> String {
        let version = self.runtime.version().unwrap_or_else(|| "of unknown version".into());
        let groups = if self.runtime.has_groups() { "" } else { ", without control groups" };
        format!("{version} at {}{groups}", self.runtime.path().display())
    }
}

/// One worker's.
pub struct OciBox {
    shared: Arc<Oci>,
    host: Host,
    place: Place,
    bundle: Bundle,
    /// Ids of programs on this machine; `None`: the judge's own.
    ids: Option<(u32, u32)>,
    name: String,
    runs: u64,
}

impl OciBox {
    /// # Errors
    /// When its folder or bundle cannot be made.
    pub fn new(shared: Arc<Oci>, host: Host, index: usize) -> Result<Self, Fault> {
        let place = Place::new(index)?;
        let outside = second_ids(index);
        let ids = Ids { inside: if outside.is_some() { INSIDE } else { 0 }, outside };
        let bundle = place.inside(|| Bundle::build(&host, &place, ids))?;
        let name = format!("{PREFIX}{}-{index}", Owner::this());
        Ok(Self { shared, host, place, bundle, ids: outside, name, runs: 0 })
    }

    /// Runs what must succeed.
    fn try_out(&mut self) -> Result<(), Fault> {
        let limits = RunLimits {
            cpu_us: 5_000_000,
            wall_us: 30_000_000,
            memory_bytes: 256 << 20,
            processes: 8,
            file_bytes: 1 << 20,
            output_bytes: 1 << 16,
        };
        let arguments = ["/bin/sh", "-c", "echo stands"].map(str::to_owned).to_vec();
        let run = Run { arguments, environment: Vec::new(), limits, kind: Kind::Test, server: None };
        let finished = self.run(&run, b"")?;
        if finished.stdout == b"stands\n" {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&finished.stderr).into_owned();
        Err(Fault(format!("a first container did not work: {:?} {}", finished.outcome, said.trim())))
    }

    fn execute(&mut self, run: &Run, stdin: &[u8], extras: Extras<'_>) -> Result<Detailed, Fault> {
        let run = &Run { limits: limits::under(protections::chosen(), run.limits), ..run.clone() };
        self.runs += 1;
        let id = format!("{}-{}", self.name, self.runs);
        let this = &*self;
        this.place.inside(|| this.execute_inside(run, stdin, extras, &id))
    }

    fn execute_inside(
        &self,
        run: &Run,
        stdin: &[u8],
        extras: Extras<'_>,
        id: &str,
    ) -> Result<Detailed, Fault> {
        let Extras { files, fetch, ends } = extras;
        if self.place.is_private() {
            let bytes: u64 = files.iter().map(|f| f.1.len() as u64).sum();
            self.place.fresh_tmp(run.limits.file_bytes.saturating_add(bytes))?;
            let files: Vec<(String, &[u8])> =
                files.iter().map(|(name, b)| ((*name).to_owned(), *b)).collect();
            folder::fill(&self.place.at("tmp"), &files, self.ids).map_err(Fault)?;
        }
        if let (Kind::Compile, Some((uid, gid))) = (run.kind, self.ids) {
            std::os::unix::fs::chown(self.place.at("box"), Some(uid), Some(gid))
                .map_err(|e| Fault(format!("giving /box away: {e}")))?;
        }
        let group = self.shared.runtime.has_groups().then_some(id);
        self.bundle.configure(&self.host, &self.place, run.kind, &run.limits, group)?;
        let (finished, ended_us) = self.watch(run, stdin, ends, id)?;
        let mut finished = finished;
        let names: Vec<String> = fetch.iter().map(|name| (*name).to_owned()).collect();
        let bytes = run.limits.output_bytes;
        let fetched = folder::collect(&self.place.at("tmp"), &names, bytes).unwrap_or_else(|()| {
            finished.outcome.exceeded.get_or_insert(Exceeded::Output);
            vec![None; names.len()]
        });
        Ok(Detailed { finished, fetched, ended_us })
    }

    /// From the container's start to its end.
    fn watch(
        &self,
        run: &Run,
        stdin: &[u8],
        ends: Option<[OwnedFd; 2]>,
        id: &str,
    ) -> Result<(Finished, u64), Fault> {
        let fault = |what: &'static str| move |e: std::io::Error| Fault(format!("{what}: {e}"));
        let mut streams = Streams::open(stdin, self.ids).map_err(fault("opening streams"))?;
        let kept = streams.join(ends, self.ids).map_err(fault("joining programs"))?;
        let Streams { stdin, out, program } = streams;
        let mut container = Standing::start(self, id, [&stdin, &program[0], &program[1]])?;
        drop((stdin, program));
        let mut room = self.room(&container)?;
        // The runtime has worked in the group too: what stands there now is not the program's.
        room.counters.weigh().map_err(fault("reading the control group"))?;
        room.counters.start(run.limits.memory_bytes).map_err(fault("setting limits"))?;
        let started = Instant::now();
        wire::send(&mut container.socket, &self.order(run), &[])
            .map_err(fault("talking to the container"))?;
        let mut watch = Watch::new(&mut room, run.limits, started, out);
        watch.follow_below(container.pid);
        let limit = watch.wait_on(container.socket.as_raw_fd());
        let ended_us = sys::now_us();
        // While those who outlived the main process can still be counted.
        let looked = watch.look();
        let word = match &limit {
            Ok(None) => wire::receive::<Word>(&mut container.socket).ok().map(|(word, _)| word),
            _ => None,
        };
        // Its groups stay until all is read from them.
        container.kill()?;
        drop(kept);
        let ended = match (limit.map_err(Fault)?, word) {
            (Some(limit), _) => Ended::Limit(limit),
            (None, Some(Word::Ended { status, cpu_us, memory_kb })) => {
                looked.map_err(Fault)?;
                Ended::Main(End { status, cpu_us, memory_kb })
            }
            (None, Some(Word::Failed(why))) => Ended::Failed(why),
            (None, Some(Word::Ready) | None) => Ended::Silent,
        };
        let (outcome, stdout, stderr) = watch.finish(Ok(ended)).map_err(Fault)?;
        Ok((Finished { outcome, stdout, stderr }, ended_us))
    }

    fn room(&self, container: &Standing<'_>) -> Result<Room, Fault> {
        let files = container.groups();
        if self.shared.runtime.has_groups() && files.is_none() {
            return Err(Fault("the runtime made no control group".into()));
        }
        let host_proc = File::open("/proc").map_err(|e| Fault(format!("opening /proc: {e}")))?;
        Ok(Room {
            ids: self.ids,
            counters: Counters::open(files.as_ref()).map_err(Fault)?,
            filter: Vec::new(),
            processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            protections: protections::chosen(),
            host_proc: host_proc.into(),
            plain: None,
            landlock: 0,
            warden: None,
        })
    }

    fn order(&self, run: &Run) -> Order {
        let limits = rlimits(&run.limits, self.ids.is_some(), protections::chosen());
        let limits = limits.into_iter().filter(|l| ![libc::RLIMIT_CORE, u32::MAX].contains(&l.0));
        // The container's first process has the program's user.
        let with_first = |(resource, soft, hard)| {
            let more = u64::from(resource == libc::RLIMIT_NPROC);
            (resource, soft + more, hard + more)
        };
        Order {
            arguments: run.arguments.clone(),
            environment: run.environment.clone(),
            limits: limits.map(with_first).collect(),
            own_fault: run.kind == Kind::Test
                && run.arguments.first().is_some_and(|a| Path::new(a).starts_with("/box")),
        }
    }
}

/// A container that stands; taken down when dropped.
struct Standing<'a> {
    owner: &'a OciBox,
    id: &'a str,
    pid: u32,
    process: Option<OwnedFd>,
    socket: UnixStream,
    groups: Option<CgroupFiles>,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let _ = self.kill();
        self.owner.shared.runtime.remove(&self.owner.place, self.id);
    }
}

impl<'a> Standing<'a> {
    /// Starts it, and waits until its first process has asked what to do.
    fn start(owner: &'a OciBox, id: &'a str, streams: [&OwnedFd; 3]) -> Result<Self, Fault> {
        let (socket, theirs) = UnixStream::pair().map_err(|e| Fault(format!("socketpair: {e}")))?;
        let _ = socket.set_read_timeout(Some(PATIENCE));
        let handed =
            [theirs.as_raw_fd(), streams[0].as_raw_fd(), streams[1].as_raw_fd(), streams[2].as_raw_fd()];
        let runtime = &owner.shared.runtime;
        let started = runtime.start(&owner.place, id, handed);
        drop(theirs);
        let pid = started.inspect_err(|_| runtime.remove(&owner.place, id))?;
        let process = sweep::open(pid);
        let mut container = Self { owner, id, pid, process, socket, groups: None };
        match wire::receive::<Word>(&mut container.socket) {
            Ok((Word::Ready, _)) => {}
            _ => return Err(Fault(format!("the container's first process: {}", words(&owner.place)))),
        }
        container.groups = groups_of(pid, id);
        Ok(container)
    }

    fn groups(&self) -> Option<CgroupFiles> {
        self.groups.clone()
    }

    /// Kills everything in it, and waits until all is gone.
    fn kill(&mut self) -> Result<(), Fault> {
        let Some(process) = self.process.take() else { return Ok(()) };
        sys::kill(&process);
        // The first process of a namespace ends after all others of it.
        let mut fds = [libc::pollfd { fd: process.as_raw_fd(), events: libc::POLLIN, revents: 0 }];
        // SAFETY: the array has one entry.
        let gone = unsafe { libc::poll(fds.as_mut_ptr(), 1, PATIENCE.as_millis() as i32) } == 1;
        // SAFETY: no status is asked for. It is our child since the runtime's end; if not, somebody else's to bury.
        unsafe { libc::waitpid(self.pid as i32, std::ptr::null_mut(), libc::WNOHANG) };
        if gone { Ok(()) } else { Err(Fault("a container's processes cannot be killed".into())) }
    }
}

/// The groups of process `pid` that belong to container `id`.
fn groups_of(pid: u32, id: &str) -> Option<CgroupFiles> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let root = Path::new(cgroup::ROOT);
    let find = |controller: &str| -> Option<PathBuf> {
        text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
            if !controllers.split(',').any(|c| c == controller) || !path.split('/').any(|part| part == id) {
                return None;
            }
            let names = if controller.is_empty() { ["", "unified"] } else { [controllers, controller] };
            names.iter().map(|name| root.join(name).join(path)).find(|dir| dir.is_dir())
        })
    };
    if let (Some(cpu), Some(memory)) = (find("cpuacct"), find("memory")) {
        // Memory means memory: what is swapped out does not hide from the limit.
        let _ = fs::write(memory.join("memory.swappiness"), "0");
        return Some(CgroupFiles { cpu, memory, unified: false });
    }
    let dir = find("").filter(|dir| dir.join("memory.max").exists())?;
    let _ = fs::write(dir.join("memory.swap.max"), "0");
    Some(CgroupFiles { cpu: dir.clone(), memory: dir, unified: true })
}

impl Sandbox for OciBox {
    fn place(&mut self, files: &[(&str, &[u8])], _server: Option<&Server>) -> Result<Option<String>, Fault> {
        let place = &self.place;
        place.inside(|| {
            place.fresh_box()?;
            for (name, bytes) in files {
                if name.is_empty() || name.contains('/') || *name == ".." {
                    return Err(Fault(format!("bad file name {name:?}")));
                }
                let path = place.at("box").join(name);
                // Whatever this process's umask is, the program reads it.
                fs::write(&path, bytes)
                    .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
                    .map_err(|e| Fault(format!("writing {name}: {e}")))?;
            }
            Ok(None)
        })
    }

    fn run(&mut self, run: &Run, stdin: &[u8]) -> Result<Finished, Fault> {
        self.execute(run, stdin, Extras::default()).map(|detailed| detailed.finished)
    }

    fn has_extras(&self) -> bool {
        self.place.is_private()
    }

    fn run_with(&mut self, run: &Run, stdin: &[u8], extras: Extras<'_>) -> Result<Detailed, Fault> {
        self.execute(run, stdin, extras)
    }
}
