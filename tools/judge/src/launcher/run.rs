//! One run: a fresh process namespace and a fresh /tmp, the command inside, its output read, its limits watched; when
//! the main process ends, or a limit is passed, the whole namespace is killed.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::counters::{Counters, waited_us};
use super::fork_server::Servers;
use super::sys::{self, Step};
use super::{folder, namespaces};
use crate::protections::{Protection, Protections};
use crate::sandbox::wire::{Exceeded, Kind, Outcome, Run, RunLimits};

/// What stays the same from run to run.
pub struct Room {
    pub ids: Option<(u32, u32)>,
    pub counters: Counters,
    pub filter: seccompiler::BpfProgram,
    pub processors: u64,
    pub protections: Protections,
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

/// A record on the status pipe: kind, value, CPU µs, memory KiB, each an i64.
const RECORD: usize = 32;
const READY: i64 = 1;
const ENDED: i64 = 2;
const FAILED: i64 = 3;

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

fn write_record(pipe: &OwnedFd, kind: i64, value: i64, cpu_us: i64, memory_kb: i64) {
    let mut bytes = [0; RECORD];
    for (chunk, number) in bytes.chunks_exact_mut(8).zip([kind, value, cpu_us, memory_kb]) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    // SAFETY: the buffer has the given length. A launcher that is gone needs no word.
    unsafe { libc::write(pipe.as_raw_fd(), bytes.as_ptr().cast(), RECORD) };
}

fn read_record(pipe: &OwnedFd) -> io::Result<Option<[i64; 4]>> {
    let mut bytes = [0; RECORD];
    // SAFETY: the buffer has the given length.
    let n = sys::check(unsafe { libc::read(pipe.as_raw_fd(), bytes.as_mut_ptr().cast(), RECORD) } as i64)?;
    if n as usize != RECORD {
        return Ok(None);
    }
    let mut numbers = [0; 4];
    for (number, chunk) in numbers.iter_mut().zip(bytes.chunks_exact(8)) {
        *number = i64::from_le_bytes(chunk.try_into().expect("eight bytes"));
    }
    Ok(Some(numbers))
}

/// The three streams of a run; ours and the program's ends.
struct Streams {
    stdin: OwnedFd,
    out: [OwnedFd; 2],
    program: [OwnedFd; 2],
}

impl Streams {
    fn open(stdin: &[u8], ids: Option<(u32, u32)>) -> io::Result<Self> {
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
    fn join(
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
    let run = &Run { limits: protections.limits(run.limits), ..run.clone() };
    let files: u64 = with.files.iter().map(|f| f.1.len() as u64).sum();
    if protections.has(Protection::FreshTmp) {
        namespaces::fresh_tmp("/tmp", run.limits.file_bytes.saturating_add(files))?;
    }
    folder::fill(with.files, room.ids)?;
    match run.kind {
        Kind::Test => namespaces::writable("/box", !protections.has(Protection::FixedBox))?,
        Kind::Compile => open_box(room)?,
        Kind::Prepare => namespaces::writable("/cache", true)?,
    }
    let finished = contained(room, servers, run, stdin, with.ends);
    if run.kind == Kind::Prepare {
        namespaces::writable("/cache", false)?;
    }
    if run.kind != Kind::Test {
        room.counters.weigh().step(|| "reading the control group".into())?;
    }
    finished
}

fn open_box(room: &Room) -> Result<(), String> {
    namespaces::writable("/box", true)?;
    if let Some((uid, gid)) = room.ids {
        std::os::unix::fs::chown("/box", Some(uid), Some(gid)).step(|| "giving /box away".into())?;
    }
    Ok(())
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
    let (status, status_end) = sys::pipe().step(|| "opening a pipe".into())?;
    // The input lies in memory of the group, but is not the program's.
    let memory = run.limits.memory_bytes.saturating_add(stdin.len() as u64);
    room.counters.start(memory).step(|| "setting limits".into())?;
    let server = run.server.as_deref().filter(|name| servers.stands(name));
    let started = Instant::now();
    let space = if room.protections.has(Protection::Processes) { libc::CLONE_NEWPID as u64 } else { 0 };
    // SAFETY: the launcher has one thread.
    let forked = unsafe { sys::fork_into(space) }.step(|| "forking".into())?;
    let Some((pid, pidfd)) = forked else { first(room, run, &streams, &status_end, server.is_none()) };
    drop(status_end);
    let Streams { stdin, out, program } = streams;
    let mut watch =
        Watch { room, limits: run.limits, started, out, text: [Vec::new(), Vec::new()], pages: 0, cpu: 0 };
    let outcome = match server {
        None => {
            drop((stdin, program));
            watch.wait(&status)
        }
        Some(name) => {
            let name = name.to_owned();
            watch.through_server(&status, servers, &name, &pidfd, &stdin, program)
        }
    };
    let ended_us = sys::now_us();
    sys::kill(&pidfd);
    sys::reap(pid);
    drop(kept);
    if watch.room.protections.has(Protection::Processes) {
        let _ = sys::unmount("/proc");
    }
    if let Some(name) = server.map(str::to_owned) {
        // The server's own wait ends with the namespace; its word must not be taken for the next run's.
        if !matches!(outcome, Ok(Ended::Main(_))) {
            servers.settle(&name);
        }
    }
    watch.finish(outcome).map(|finished| (finished, ended_us))
}

/// Why the watch ended.
enum Ended {
    Main(End),
    Limit(Exceeded),
    /// The namespace went down without a word.
    Silent,
}

struct Watch<'a> {
    room: &'a mut Room,
    limits: RunLimits,
    started: Instant,
    out: [OwnedFd; 2],
    text: [Vec<u8>; 2],
    /// Highest resident bytes seen.
    pages: u64,
    /// Highest CPU seen.
    cpu: u64,
}

impl Watch<'_> {
    fn through_server(
        &mut self,
        status: &OwnedFd,
        servers: &mut Servers,
        name: &str,
        pidfd: &OwnedFd,
        stdin: &OwnedFd,
        program: [OwnedFd; 2],
    ) -> Result<Ended, String> {
        match read_record(status).step(|| "waiting for a namespace".into())? {
            Some([READY, ..]) => {}
            other => return Err(failure(other)),
        }
        read_record(status).step(|| "waiting for a namespace".into())?;
        let limits = rlimits(&self.limits, self.room.ids.is_some(), self.room.protections);
        servers.start(name, pidfd, [stdin, &program[0], &program[1]], &limits)?;
        drop(program);
        let ended = self.wait_on(servers.socket(name)?)?;
        match ended {
            None => servers.end(name).map(Ended::Main),
            Some(limit) => Ok(Ended::Limit(limit)),
        }
    }

    fn wait(&mut self, status: &OwnedFd) -> Result<Ended, String> {
        if let Some(limit) = self.wait_on(status.as_raw_fd())? {
            return Ok(Ended::Limit(limit));
        }
        match read_record(status).step(|| "reading the end".into())? {
            Some([ENDED, status, cpu, memory]) => {
                Ok(Ended::Main(End { status: status as i32, cpu_us: cpu as u64, memory_kb: memory as u64 }))
            }
            None => Ok(Ended::Silent),
            other => Err(failure(other)),
        }
    }

    /// Reads output and watches limits until `signal` can be read (`None`) or a limit is passed.
    fn wait_on(&mut self, signal: i32) -> Result<Option<Exceeded>, String> {
        let mut open = [true, true];
        let mut wall_us = self.limits.wall_us;
        loop {
            let elapsed = self.started.elapsed().as_micros() as u64;
            if elapsed >= wall_us {
                // On a busy machine a program waits for a processor; that is not its idling.
                let longer =
                    self.limits.wall_us.saturating_add(waited_us()).min(self.limits.wall_us * PATIENCE);
                if longer <= elapsed {
                    return Ok(Some(Exceeded::Wall));
                }
                wall_us = longer;
            }
            let used = if elapsed > 1000 {
                let reading = self.room.counters.read().step(|| "reading counters".into())?;
                self.cpu = self.cpu.max(reading.cpu_us);
                self.pages = self.pages.max(reading.memory);
                if reading.memory > self.limits.memory_bytes {
                    return Ok(Some(Exceeded::Memory));
                }
                if self.cpu > self.limits.cpu_us {
                    return Ok(Some(Exceeded::Cpu));
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
            ];
            // SAFETY: the array has three entries.
            let n = unsafe { libc::poll(fds.as_mut_ptr(), 3, sleep.div_ceil(1000) as i32) };
            if n < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return Err(format!("poll: {}", io::Error::last_os_error()));
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

    fn finish(mut self, ended: Result<Ended, String>) -> Result<Finished, String> {
        let wall_us = self.started.elapsed().as_micros() as u64;
        for i in 0..2 {
            self.read_output(i)?;
        }
        if let Ok(reading) = self.room.counters.read() {
            self.cpu = self.cpu.max(reading.cpu_us);
        }
        let for_memory = self.room.counters.killed_for_memory();
        let (mut exceeded, end) = match ended {
            Ok(Ended::Main(end)) => (None, Some(end)),
            Ok(Ended::Limit(limit)) => (Some(limit), None),
            Ok(Ended::Silent) | Err(_) if for_memory => (Some(Exceeded::Memory), None),
            Ok(Ended::Silent) => return Err("the namespace ended without a word".into()),
            Err(e) => return Err(e),
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

fn failure(record: Option<[i64; 4]>) -> String {
    match record {
        Some([FAILED, step, error, _]) => {
            let what = match step {
                1 => "mounting /proc",
                2 => "forking",
                3 => "entering the sandbox",
                4 => "starting the command",
                _ => "unknown step",
            };
            format!("{what}: {}", io::Error::from_raw_os_error(error as i32))
        }
        _ => "the namespace ended before the run began".into(),
    }
}

fn fail(status: &OwnedFd, step: i64) -> ! {
    let error = io::Error::last_os_error().raw_os_error().unwrap_or(0);
    write_record(status, FAILED, step, i64::from(error), 0);
    // SAFETY: ends this child without running anything of the launcher's.
    unsafe { libc::_exit(255) }
}

/// The first process of the namespace: mounts its /proc, starts the command (or lets the fork server put it here),
/// and reaps until the main process ends.
fn first(room: &Room, run: &Run, streams: &Streams, status: &OwnedFd, direct: bool) -> ! {
    // SAFETY: plain system calls; this process has one thread, and every path ends in _exit.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let closed = room.protections.has(Protection::ClosedFirst);
        let flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        let own = room.protections.has(Protection::OwnProc);
        let space = room.protections.has(Protection::Processes);
        if space && sys::mount("proc", "/proc", "proc", flags, if own { "subset=pid" } else { "" }).is_err() {
            fail(status, 1);
        }
        if !direct {
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            let kept = status.as_raw_fd() as u32;
            if closed {
                libc::close_range(0, kept - 1, 0);
                libc::close_range(kept + 1, u32::MAX, 0);
            }
            write_record(status, READY, 0, 0, 0);
            // The launcher waits for this end, and lets nothing in before.
            libc::close(status.as_raw_fd());
            loop {
                libc::pause();
            }
        }
        if closed {
            // As it may not be dumped, its /proc entries are root's: a program of the same user cannot list them. (A
            // fork server enters the namespace through this process, which needs it dumpable; so there it has nothing open.)
            libc::prctl(libc::PR_SET_DUMPABLE, 0);
        }
        let main = libc::fork();
        if main == -1 {
            fail(status, 2);
        }
        if main == 0 {
            if closed {
                libc::prctl(libc::PR_SET_DUMPABLE, 1);
            }
            if program(room, run, streams).is_err() {
                fail(status, 3);
            }
            exec(run);
            // A compiler made of this source what the kernel will not start: the program's fault, by the shells' number.
            if run.kind == Kind::Test && run.arguments.first().is_some_and(|a| a.starts_with("/box/")) {
                libc::_exit(126);
            }
            fail(status, 4);
        }
        loop {
            let mut code = 0;
            let pid = libc::waitpid(-1, &raw mut code, 0);
            if pid == main {
                let mut used: libc::rusage = std::mem::zeroed();
                libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut used);
                let time = |t: libc::timeval| t.tv_sec * 1_000_000 + t.tv_usec;
                write_record(
                    status,
                    ENDED,
                    i64::from(code),
                    time(used.ru_utime) + time(used.ru_stime),
                    used.ru_maxrss,
                );
                libc::_exit(0);
            }
        }
    }
}

/// Turns this process into the program's: streams, limits, ids, no capabilities, no new privileges, the filter.
fn program(room: &Room, run: &Run, streams: &Streams) -> io::Result<()> {
    if let Ok(mut file) = File::options().write(true).open("/proc/self/oom_score_adj") {
        let _ = io::Write::write_all(&mut file, b"1000");
    }
    if room.protections.has(Protection::OwnProc) {
        // Nothing in it is the program's to write: not that, nor maps, nor memory.
        sys::set_mount(None, "/proc", libc::MOUNT_ATTR_RDONLY, 0, false)?;
    }
    // SAFETY: plain system calls on numbers and on arrays that outlive them.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        for (i, fd) in [&streams.stdin, &streams.program[0], &streams.program[1]].iter().enumerate() {
            sys::check(libc::dup2(fd.as_raw_fd(), i as i32))?;
        }
        if room.protections.has(Protection::ClosedDescriptors) {
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
        } else {
            for fd in 3..64 {
                libc::fcntl(fd, libc::F_SETFD, 0);
            }
        }
        sys::check(libc::chdir(c"/tmp".as_ptr()))?;
        for (resource, soft, hard) in rlimits(&run.limits, room.ids.is_some(), room.protections) {
            if resource == u32::MAX {
                continue;
            }
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            sys::check(libc::setrlimit(resource, &raw const limit))?;
        }
        let has = |protection| room.protections.has(protection);
        if has(Protection::NoCapabilities) {
            sys::drop_bounding_set();
        }
        if let (Some((uid, gid)), true) = (room.ids, run.kind != Kind::Prepare) {
            sys::check(libc::setgroups(0, std::ptr::null()))?;
            sys::check(libc::setresgid(gid, gid, gid))?;
            sys::check(libc::setresuid(uid, uid, uid))?;
        }
        if has(Protection::NoCapabilities) {
            sys::drop_capabilities()?;
        }
        sys::check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    seccompiler::apply_filter(&room.filter).map_err(io::Error::other)
}

fn exec(run: &Run) {
    let arguments: Vec<_> = run.arguments.iter().map(|a| sys::c_string(a)).collect();
    let environment: Vec<_> = run.environment.iter().map(|e| sys::c_string(e)).collect();
    let pointers = |list: &[std::ffi::CString]| {
        list.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
    };
    let (argv, envp) = (pointers(&arguments), pointers(&environment));
    // SAFETY: both arrays end in null and their strings live until the process is replaced.
    unsafe { libc::execve(argv[0], argv.as_ptr(), envp.as_ptr()) };
}

/// Longest time between two looks at the counters, in microseconds.
const LOOK_US: u64 = 250_000;
/// How many times its wall limit a program may take because the machine is busy with others.
pub const PATIENCE: u64 = 20;
/// So that a wait is never longer than a test needs to notice a stuck server.
pub const SETTLE: Duration = Duration::from_secs(5);
