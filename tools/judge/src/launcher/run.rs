//! One run: an empty process namespace and an empty /tmp, the command inside, its output read, its limits watched; when
//! the main process ends, or a limit is passed, everything in the namespace is killed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::counters::{Counters, waited_us};
use super::fork_server::Servers;
use super::plain::Plain;
use super::sys::{self, Step};
use super::warden::{self, Order, Warden, Word};
use super::{folder, plain_run};
use crate::limits;
use crate::protections::{Protection, Protections};
use crate::sandbox::wire::{Exceeded, Kind, Outcome, Run, RunLimits};

/// What stays the same from run to run.
pub struct Room {
    pub ids: Option<(u32, u32)>,
    pub counters: Counters,
    pub filter: seccompiler::BpfProgram,
    pub processors: u64,
    pub protections: Protections,
    /// The host's /proc.
    pub host_proc: OwnedFd,
    /// Where there are no namespaces.
    pub plain: Option<Plain>,
    /// Version of Landlock, 0 where there is none.
    pub landlock: i32,
    /// Who stands in the namespace between runs, where it may outlive one.
    pub warden: Option<Warden>,
}

impl Room {
    /// # Errors
    /// When there is no such file, or it may not be opened.
    pub fn open_host_proc(&self, name: &str, flags: i32) -> io::Result<OwnedFd> {
        sys::open_at(&self.host_proc, name, flags)
    }
}

/// A finished run with its stdout and stderr.
pub type Finished = (Outcome, Vec<u8>, Vec<u8>);

/// How the main process ended, as its parent tells it.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub status: i32,
    pub cpu_us: u64,
    pub memory_kb: u64,
}

/// `RLIMIT_*` with soft and hard limits.
///
/// A resource of `u32::MAX` is one that stays as it is.
pub fn rlimits(limits: &RunLimits, own_uid: bool, protections: Protections) -> [(u32, u64, u64); 8] {
    let seconds = limits.cpu_us.div_ceil(1_000_000) + 1;
    // Where no second id could be mapped, the launcher, its interpreters and the namespace's first process count too.
    let processes = limits.processes + if own_uid { 0 } else { 12 };
    let other = |resource| if protections.has(Protection::OtherLimits) { resource } else { u32::MAX };
    [
        (libc::RLIMIT_CPU, seconds, seconds + 1),
        (libc::RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (libc::RLIMIT_NPROC, processes, processes),
        (libc::RLIMIT_STACK, limits.memory_bytes, limits.memory_bytes),
        (if may_dump_core() { other(libc::RLIMIT_CORE) } else { u32::MAX }, 1, 1),
        (other(libc::RLIMIT_NOFILE), 1024, 1024),
        (other(libc::RLIMIT_MEMLOCK), 65_536, 65_536),
        (other(libc::RLIMIT_MSGQUEUE), 0, 0),
    ]
}

/// A limit of 1 keeps core dumps even from a collector of the host's, to which 0 means nothing (core(5)). Who starts us
/// with a hard limit of 0 has decided otherwise.
fn may_dump_core() -> bool {
    // SAFETY: the struct is plain numbers and outlives the call.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit) == 0 && limit.rlim_max >= 1
    }
}

/// The three streams of a run; ours and the program's ends.
pub struct Streams {
    pub stdin: OwnedFd,
    pub out: [OwnedFd; 2],
    pub program: [OwnedFd; 2],
}

impl Streams {
    /// # Errors
    /// When there are no descriptors left.
    pub fn open(stdin: &[u8], ids: Option<(u32, u32)>) -> io::Result<Self> {
        let (out, program_out) = sys::pipe()?;
        let (err, program_err) = sys::pipe()?;
        for fd in [&out, &err] {
            sys::set_nonblocking(fd)?;
        }
        if let Some((uid, gid)) = ids {
            // So that the program can open /dev/stdout again.
            for fd in [&program_out, &program_err] {
                // SAFETY: no memory is involved.
                sys::check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) })?;
            }
        }
        Ok(Self { stdin: sys::memory_file(stdin)?, out: [out, err], program: [program_out, program_err] })
    }
}

impl Streams {
    /// Puts the program's stdin and stdout in the place of ours; gives copies of them.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn join(
        &mut self,
        ends: Option<[OwnedFd; 2]>,
        ids: Option<(u32, u32)>,
    ) -> io::Result<Option<[OwnedFd; 2]>> {
        let Some([stdin, stdout]) = ends else { return Ok(None) };
        if let Some((uid, gid)) = ids {
            // So that the program can open /dev/stdin again; without that right it still has the descriptors.
            for fd in [&stdin, &stdout] {
                // SAFETY: no memory is involved.
                unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) };
            }
        }
        let kept = [stdin.try_clone()?, stdout.try_clone()?];
        self.stdin = stdin;
        self.program[0] = stdout;
        Ok(Some(kept))
    }
}

/// Runs a command.
///
/// # Errors
/// When the sandbox fails; never for anything that the program does.
pub fn run(room: &mut Room, servers: &mut Servers, run: &Run, stdin: &[u8]) -> Result<Finished, String> {
    run_with(room, servers, run, stdin, With::default()).map(|(finished, _)| finished)
}

/// What a run may have beside stdin and stdout.
#[derive(Default)]
pub struct With<'a> {
    pub files: &'a [(String, &'a [u8])],
    /// stdin and stdout that lead to another program.
    pub ends: Option<[OwnedFd; 2]>,
}

/// As [`run`]; beside it, when the main process was seen to have ended, in microseconds of the monotonic clock.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    room: &mut Room,
    servers: &mut Servers,
    run: &Run,
    stdin: &[u8],
    with: With<'_>,
) -> Result<(Finished, u64), String> {
    let protections = room.protections;
    let run = &Run { limits: limits::under(protections, run.limits), ..room.command(run) };
    let files: u64 = with.files.iter().map(|f| f.1.len() as u64).sum();
    if protections.has(Protection::FreshTmp) {
        room.fresh_tmp(run.kind, run.limits.file_bytes.saturating_add(files))?;
    }
    folder::fill(&room.working_folder(), with.files, room.ids)?;
    room.open_for(run.kind)?;
    let finished = match room.plain {
        Some(_) => plain_run::run(room, run, stdin, with.ends),
        None => contained(room, servers, run, stdin, with.ends),
    };
    room.close_after(run.kind)?;
    if run.kind != Kind::Test {
        room.counters.weigh().step(|| "reading the control group".into())?;
    }
    finished
}

fn contained(
    room: &mut Room,
    servers: &mut Servers,
    run: &Run,
    stdin: &[u8],
    ends: Option<[OwnedFd; 2]>,
) -> Result<(Finished, u64), String> {
    let mut streams = Streams::open(stdin, room.ids).step(|| "opening streams".into())?;
    // Kept until the end of the run is noted: so the other side cannot react to it, and end, before that.
    let kept = streams.join(ends, room.ids).step(|| "joining programs".into())?;
    let warden = match room.warden.take() {
        Some(warden) => warden,
        None => Warden::start(room)?,
    };
    // The input lies in memory of the group, but is not the program's.
    let memory = run.limits.memory_bytes.saturating_add(stdin.len() as u64);
    room.counters.start(memory).step(|| "setting limits".into())?;
    let server = run.server.as_deref().filter(|name| servers.stands(name)).map(str::to_owned);
    let started = Instant::now();
    let Streams { stdin, out, program } = streams;
    let ours = [&stdin, &program[0], &program[1]];
    let layer = room.rules_for(run.kind)?;
    let limits = rlimits(&run.limits, room.ids.is_some(), room.protections);
    match &server {
        None => {
            let in_box = run.arguments.first().is_some_and(|a| a.starts_with("/box/"));
            let order = Order::start(run.kind != Kind::Prepare, run.kind == Kind::Test && in_box, &limits);
            warden.spawn(order, &run.arguments, &run.environment, ours, layer.as_ref())?;
        }
        Some(name) => servers.start(name, warden.space()?, ours, layer.as_ref(), &limits)?,
    }
    drop((stdin, program));
    let mut watch = Watch::new(room, run.limits, started, out);
    let outcome = watch.wait(&warden, servers, server.as_deref());
    let ended_us = sys::now_us();
    let swept = sweep(&warden, servers, server.as_deref(), &outcome);
    drop(kept);
    // One that failed takes its namespace along, and whatever is left in it.
    let lasting = warden.lasting && swept.is_ok();
    let outcome = match (outcome, swept) {
        (Ok(Ended::Main(end)), Ok(orphans)) => {
            Ok(Ended::Main(End { cpu_us: end.cpu_us + orphans.cpu_us, ..end }))
        }
        (outcome, _) => outcome,
    };
    if lasting {
        watch.room.warden = Some(warden);
    } else {
        drop(warden);
    }
    watch.finish(outcome).map(|finished| (finished, ended_us))
}

/// Kills whatever is left of a run, and says what its orphans had used.
fn sweep(
    warden: &Warden,
    servers: &mut Servers,
    server: Option<&str>,
    outcome: &Result<Ended, String>,
) -> Result<End, String> {
    let has_ended = matches!(outcome, Ok(Ended::Main(_) | Ended::Failed(_)));
    let Some(name) = server else { return warden.sweep(!has_ended) };
    let swept = warden.sweep(true)?;
    if has_ended {
        return Ok(swept);
    }
    // The server's word on the killed process must not be taken for the next run's; and the children of that process
    // pass to the warden only once the server has buried it.
    if !servers.settle(name) {
        return Err(format!("the {name} server did not answer"));
    }
    warden.sweep(true)
}

/// Why the watch ended.
pub enum Ended {
    Main(End),
    Limit(Exceeded),
    /// It could not be started.
    Failed(String),
    /// The namespace went down without a word.
    Silent,
}

pub struct Watch<'a> {
    room: &'a mut Room,
    limits: RunLimits,
    started: Instant,
    out: [OwnedFd; 2],
    text: [Vec<u8>; 2],
    /// Highest resident bytes seen.
    pages: u64,
    /// Highest CPU seen.
    cpu: u64,
    /// Whose descendants are what runs, where /proc shows others too.
    ancestor: Option<u32>,
    /// Whether stdin is the socket to the judge, whose end ends the run.
    lifeline: bool,
}

impl<'a> Watch<'a> {
    pub fn new(room: &'a mut Room, limits: RunLimits, started: Instant, out: [OwnedFd; 2]) -> Self {
        let text = [Vec::new(), Vec::new()];
        Self { room, limits, started, out, text, pages: 0, cpu: 0, ancestor: None, lifeline: false }
    }

    /// /proc shows the host: what runs descends from this launcher, which sees the judge's end and ends the run.
    pub fn follow(&mut self) {
        (self.ancestor, self.lifeline) = (Some(std::process::id()), true);
    }

    /// /proc shows the host: what runs descends from this process.
    pub fn follow_below(&mut self, ancestor: u32) {
        self.ancestor = Some(ancestor);
    }

    /// Reads the counters; gives the memory of this moment.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn look(&mut self) -> Result<u64, String> {
        let reading = self.room.counters.read(self.ancestor).step(|| "reading counters".into())?;
        self.cpu = self.cpu.max(reading.cpu_us);
        self.pages = self.pages.max(reading.memory);
        Ok(reading.memory)
    }

    /// Waits for the end of the main process, which the fork server tells, where one has started it, or the warden.
    fn wait(
        &mut self,
        warden: &Warden,
        servers: &mut Servers,
        server: Option<&str>,
    ) -> Result<Ended, String> {
        let signal = server.map_or(Ok(warden.status()), |name| servers.socket(name))?;
        if let Some(limit) = self.wait_on(signal)? {
            return Ok(Ended::Limit(limit));
        }
        if let Some(name) = server {
            return servers.end(name).map(Ended::Main);
        }
        match warden.hear()? {
            Some(Word::Ended(end)) => Ok(Ended::Main(end)),
            Some(Word::Failed(step, error)) => Ok(Ended::Failed(warden::failure(step, error))),
            Some(word) => Err(format!("the namespace's first process said {word:?}")),
            None => Ok(Ended::Silent),
        }
    }

    /// Reads output and watches limits until `signal` can be read (`None`) or a limit is passed.
    ///
    /// # Errors
    /// When something cannot be read, or the judge is gone.
    pub fn wait_on(&mut self, signal: i32) -> Result<Option<Exceeded>, String> {
        let mut open = [true, true];
        let mut wall_us = self.limits.wall_us;
        loop {
            let elapsed = self.started.elapsed().as_micros() as u64;
            if elapsed >= wall_us {
                // On a busy machine a program waits for a processor; that is not its idling.
                let longer = self
                    .limits
                    .wall_us
                    .saturating_add(waited_us(self.ancestor))
                    .min(self.limits.wall_us * PATIENCE);
                if longer <= elapsed {
                    return Ok(Some(Exceeded::Wall));
                }
                wall_us = longer;
            }
            let used = if elapsed > 1000 {
                let memory = self.look()?;
                if memory > self.limits.memory_bytes {
                    return Ok(Some(Exceeded::Memory));
                }
                if self.cpu > self.limits.cpu_us {
                    return Ok(Some(Exceeded::Cpu));
                }
                if self.room.plain.as_mut().is_some_and(Plain::overflows) {
                    return Ok(Some(Exceeded::Output));
                }
                // The kernel killed one process of several; the others may wait for it until the wall.
                if self.room.counters.killed_for_memory() {
                    return Ok(Some(Exceeded::Memory));
                }
                self.cpu
            } else {
                0
            };
            // CPU time cannot grow faster than the processors' number times the wall's.
            let soonest = (self.limits.cpu_us.saturating_sub(used) / self.room.processors).max(1000);
            let mut sleep = soonest.min(wall_us - elapsed).min(LOOK_US);
            if self.room.counters.watches_memory() {
                sleep = sleep.min(if elapsed < 20_000 { 4_000 } else { 10_000 });
            }
            let mut fds = [
                libc::pollfd { fd: signal, events: libc::POLLIN, revents: 0 },
                libc::pollfd {
                    fd: if open[0] { self.out[0].as_raw_fd() } else { -1 },
                    events: libc::POLLIN,
                    revents: 0,
                },
                libc::pollfd {
                    fd: if open[1] { self.out[1].as_raw_fd() } else { -1 },
                    events: libc::POLLIN,
                    revents: 0,
                },
                // The socket to the judge: only its end matters, and only where it does not end this process at once.
                libc::pollfd { fd: if self.lifeline { 0 } else { -1 }, events: 0, revents: 0 },
            ];
            // SAFETY: the array has four entries.
            let n = unsafe { libc::poll(fds.as_mut_ptr(), 4, sleep.div_ceil(1000) as i32) };
            if n < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(format!("poll: {}", io::Error::last_os_error()));
            }
            if fds[3].revents & libc::POLLHUP != 0 {
                return Err("the judge is gone".into());
            }
            for i in 0..2 {
                if fds[i + 1].revents != 0 {
                    open[i] = self.read_output(i)?;
                    if self.text[i].len() as u64 > self.limits.output_bytes {
                        return Ok(Some(Exceeded::Output));
                    }
                }
            }
            if fds[0].revents != 0 {
                return Ok(None);
            }
        }
    }

    /// Reads what is there, up to one byte over the limit. False when nobody can write any more.
    fn read_output(&mut self, which: usize) -> Result<bool, String> {
        let room = (self.limits.output_bytes + 1).saturating_sub(self.text[which].len() as u64);
        let file = self.out[which].try_clone().map(File::from).step(|| "reading output".into())?;
        match file.take(room).read_to_end(&mut self.text[which]) {
            Ok(_) => Ok(false),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(e) => Err(format!("reading output: {e}")),
        }
    }

    /// What the run comes to.
    ///
    /// # Errors
    /// When the sandbox failed.
    pub fn finish(mut self, ended: Result<Ended, String>) -> Result<Finished, String> {
        let wall_us = self.started.elapsed().as_micros() as u64;
        for i in 0..2 {
            self.read_output(i)?;
        }
        if let Ok(reading) = self.room.counters.read(self.ancestor) {
            self.cpu = self.cpu.max(reading.cpu_us);
        }
        let for_memory = self.room.counters.killed_for_memory();
        let (mut exceeded, end) = match ended {
            Ok(Ended::Main(end)) => (None, Some(end)),
            Ok(Ended::Limit(limit)) => (Some(limit), None),
            Ok(Ended::Silent | Ended::Failed(_)) | Err(_) if for_memory => (Some(Exceeded::Memory), None),
            Ok(Ended::Silent) => return Err("the namespace ended without a word".into()),
            Ok(Ended::Failed(e)) | Err(e) => return Err(e),
        };
        let cpu_us = end.map_or(self.cpu, |e| self.cpu.max(e.cpu_us));
        let memory_kb = end.map_or(0, |e| e.memory_kb).max(self.pages / 1024);
        let too_large = self.room.counters.watches_memory() && memory_kb > self.limits.memory_bytes / 1024;
        if self.text.iter().any(|t| t.len() as u64 > self.limits.output_bytes) {
            exceeded = Some(Exceeded::Output);
        } else if for_memory || too_large {
            exceeded = Some(Exceeded::Memory);
        } else if end.is_some() && cpu_us > self.limits.cpu_us {
            exceeded = Some(Exceeded::Cpu);
        }
        let (mut exit, mut signal) = (None, None);
        if let Some(end) = end {
            if libc::WIFEXITED(end.status) {
                exit = Some(libc::WEXITSTATUS(end.status));
            } else if libc::WIFSIGNALED(end.status) {
                signal = Some(libc::WTERMSIG(end.status));
            }
        }
        let [stdout, stderr] = self.text;
        Ok((Outcome { exit, signal, exceeded, cpu_us, wall_us, memory_kb }, stdout, stderr))
    }
}

/// Longest time between two looks at the counters, in microseconds.
const LOOK_US: u64 = 250_000;
/// How many times its wall limit a program may take because the machine is busy with others.
pub const PATIENCE: u64 = 20;
/// So that a wait is never longer than a test needs to notice a stuck server.
pub const SETTLE: Duration = Duration::from_secs(5);
