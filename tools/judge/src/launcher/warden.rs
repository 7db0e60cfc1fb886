//! The first process of the namespace in which runs take place: it starts their main processes, buries orphans, and
//! after each run kills whatever is left, to the last process, before the next may begin.
//!
//! It outlives runs, because making a process namespace, a /proc and two copies of the launcher's memory is most of what
//! a short run costs. What makes a kept namespace as good as a new one: a signal to all of it is atomic against forks (a
//! process that is being made while its maker is killed never comes to be), it waits until it has no descendant, the
//! count of process numbers is set back, /proc cannot be written, and the program's user cannot touch the warden. Where
//! one of these cannot be had (no second user id, no CONFIG_CHECKPOINT_RESTORE) the warden serves one run only.

use std::ffi::c_char;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;

use super::landlock::Rules;
use super::program::{self, Program};
use super::run::{End, Room};
use super::sys::{self, Step};
use crate::protections::Protection;

/// A record on the status pipe: kind, value, CPU µs, memory KiB, each an i64.
const RECORD: usize = 32;
const READY: i64 = 1;
const ENDED: i64 = 2;
const FAILED: i64 = 3;
/// Value: 1 when asked for. CPU and memory: of the orphans.
const SWEPT: i64 = 4;

/// Longest command with its environment, in bytes.
const COMMAND: usize = 1 << 16;

/// How to start a main process; its strings follow, each ended by NUL, arguments first.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Order {
    /// 0: only sweep.
    pub start: u32,
    pub set_ids: u32,
    /// Whether a failing exec is the program's own fault.
    pub own_fault: u32,
    pub arguments: u32,
    pub environment: u32,
    pad: u32,
    /// Resource, soft, hard.
    pub limits: [[u64; 3]; 8],
}

impl Order {
    const SWEEP: Self = Self {
        start: 0,
        set_ids: 0,
        own_fault: 0,
        arguments: 0,
        environment: 0,
        pad: 0,
        limits: [[0; 3]; 8],
    };

    pub fn start(set_ids: bool, own_fault: bool, limits: &[(u32, u64, u64); 8]) -> Self {
        let limits = limits.map(|(resource, soft, hard)| [u64::from(resource), soft, hard]);
        Self { start: 1, set_ids: set_ids.into(), own_fault: own_fault.into(), limits, ..Self::SWEEP }
    }
}

/// What a warden says.
#[derive(Debug, Clone, Copy)]
pub enum Word {
    Ready {
        lasting: bool,
    },
    Ended(End),
    /// A start failed: its step and the error's number.
    Failed(i64, i64),
    Swept {
        asked: bool,
        end: End,
    },
}

/// The launcher's side.
pub struct Warden {
    socket: OwnedFd,
    status: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    space: Option<OwnedFd>,
    has_proc: bool,
    /// Whether it can serve more than one run.
    pub lasting: bool,
}

impl Drop for Warden {
    fn drop(&mut self) {
        sys::kill(&self.pidfd);
        sys::reap(self.pid);
        if self.has_proc {
            let _ = sys::unmount("/proc");
        }
    }
}

impl Warden {
    /// # Errors
    /// When the namespace cannot be made.
    pub fn start(room: &Room) -> Result<Self, String> {
        let (socket, theirs) = sys::socket_pair().step(|| "socketpair".into())?;
        let (status, status_end) = sys::pipe().step(|| "opening a pipe".into())?;
        let has_proc = room.protections.has(Protection::Processes);
        let space = if has_proc { libc::CLONE_NEWPID as u64 } else { 0 };
        // SAFETY: the launcher has one thread.
        let forked = unsafe { sys::fork_into(space) }.step(|| "forking".into())?;
        let Some((pid, pidfd)) = forked else { serve(room, theirs, status_end) };
        let mut warden = Self { socket, status, pid, pidfd, space: None, has_proc, lasting: false };
        // Until it has word it can be dumped, and so entered.
        let space = room.open_host_proc(&format!("{pid}/ns/pid"), libc::O_RDONLY);
        warden.space = Some(space.step(|| "opening a process namespace".into())?);
        // Should it be gone already, it has said why.
        let _ = sys::send_with(&warden.socket, sys::bytes_of(&Order::SWEEP), &[], &[]);
        match warden.hear()? {
            Some(Word::Ready { lasting }) => warden.lasting = lasting && room.ids.is_some(),
            Some(Word::Failed(step, error)) => return Err(failure(step, error)),
            _ => return Err("the namespace ended before the run began".into()),
        }
        Ok(warden)
    }

    /// Its process namespace, for fork servers to enter.
    ///
    /// # Errors
    /// When it does not stand.
    pub fn space(&self) -> Result<&OwnedFd, String> {
        self.space.as_ref().ok_or_else(|| "the process namespace does not stand".into())
    }

    /// What can be read when it has something to say.
    pub fn status(&self) -> RawFd {
        self.status.as_raw_fd()
    }

    /// Starts a main process, under the rules of `layer`.
    ///
    /// # Errors
    /// When the warden is gone, or the command is too long.
    pub fn spawn(
        &self,
        mut order: Order,
        arguments: &[String],
        environment: &[String],
        streams: [&OwnedFd; 3],
        layer: Option<&Rules>,
    ) -> Result<(), String> {
        order.arguments = arguments.len() as u32;
        order.environment = environment.len() as u32;
        let mut text = Vec::with_capacity(1024);
        for word in arguments.iter().chain(environment) {
            text.extend(sys::c_string(word).as_bytes_with_nul());
        }
        if text.len() > COMMAND {
            return Err(format!("a command of {} bytes is too long", text.len()));
        }
        let fds: Vec<RawFd> =
            streams.into_iter().chain(layer.map(Rules::fd)).map(AsRawFd::as_raw_fd).collect();
        sys::send_with(&self.socket, sys::bytes_of(&order), &text, &fds)
            .step(|| "the namespace's first process is gone".into())
    }

    /// Its next word; `None` when it is gone.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn hear(&self) -> Result<Option<Word>, String> {
        let record = read_record(&self.status).step(|| "reading the namespace's state".into())?;
        Ok(record.map(|[kind, value, cpu, memory]| {
            let end = End { status: value as i32, cpu_us: cpu as u64, memory_kb: memory as u64 };
            match kind {
                READY => Word::Ready { lasting: value == 1 },
                ENDED => Word::Ended(end),
                SWEPT => Word::Swept { asked: value == 1, end },
                _ => Word::Failed(value, cpu),
            }
        }))
    }

    /// Kills everything in the namespace, and says what the orphans among it have used. With `asked` false the main
    /// process has ended, upon which the warden does it by itself.
    ///
    /// # Errors
    /// When the warden is gone: then so is everything, but it serves no more.
    pub fn sweep(&self, asked: bool) -> Result<End, String> {
        if asked {
            sys::send_with(&self.socket, sys::bytes_of(&Order::SWEEP), &[], &[])
                .step(|| "the namespace's first process is gone".into())?;
        }
        loop {
            match self.hear()? {
                Some(Word::Swept { asked: found, end }) if found == asked => return Ok(end),
                Some(_) => {}
                None => return Err("the namespace's first process is gone".into()),
            }
        }
    }
}

/// In words.
pub fn failure(step: i64, error: i64) -> String {
    let what = match step {
        1 => "mounting /proc",
        2 => "forking",
        3 => "entering the sandbox",
        4 => "starting the command",
        _ => "unknown step",
    };
    format!("{what}: {}", io::Error::from_raw_os_error(error as i32))
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

/// The warden's own side, in the process that it is.
struct Post<'a> {
    room: &'a Room,
    socket: OwnedFd,
    status: OwnedFd,
    /// Its own oom_score_adj and what stands there: a program starts with the highest instead.
    oom: Option<(File, String)>,
    /// The namespace's last given process number.
    last_pid: Option<File>,
    /// Whether the namespace is its own.
    space: bool,
    main: Option<i32>,
    /// Sums over the orphans of this run.
    orphans: End,
    stack: program::Stack,
}

const NOTHING: End = End { status: 0, cpu_us: 0, memory_kb: 0 };

fn end() -> ! {
    // SAFETY: ends this child without running anything of the launcher's.
    unsafe { libc::_exit(255) }
}

/// Everything that the warden does.
fn serve(room: &Room, socket: OwnedFd, status: OwnedFd) -> ! {
    // SAFETY: numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let oom = room.open_host_proc("self/oom_score_adj", libc::O_RDWR).ok().map(File::from);
    let space = room.protections.has(Protection::Processes);
    let last_pid = room.open_host_proc("sys/kernel/ns_last_pid", libc::O_WRONLY).ok().map(File::from);
    let mut post = Post {
        room,
        socket,
        status,
        oom: oom
            .and_then(|file| Some((io::read_to_string(&file).ok()?, file)))
            .map(|(text, file)| (file, text)),
        last_pid,
        space,
        main: None,
        orphans: NOTHING,
        stack: program::Stack::new(),
    };
    match post.settle() {
        Ok(signals) => {
            // The launcher has what it needs of this process; from here on nobody looks into it, not even a program of
            // the same user.
            let mut order = [0; size_of::<Order>()];
            if !matches!(sys::receive_with(&post.socket, &mut order), Ok((length, _)) if length == order.len())
            {
                end();
            }
            if room.protections.has(Protection::ClosedFirst) {
                // SAFETY: numbers only.
                unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) };
            }
            let lasting = !space || post.reset_numbers();
            post.say(&[[READY, lasting.into(), 0, 0]]);
            post.work(&signals)
        }
        Err(error) => {
            post.say(&[[FAILED, 1, i64::from(error.raw_os_error().unwrap_or(0)), 0]]);
            end()
        }
    }
}

impl Post<'_> {
    /// Mounts /proc, gives up what is the launcher's; a descriptor that tells of dead children.
    fn settle(&self) -> io::Result<OwnedFd> {
        if self.space {
            let has = |protection| self.room.protections.has(protection);
            let mut flags = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            // Nothing in it is a program's to write: not oom_score_adj, nor maps, nor memory.
            flags |= if has(Protection::OwnProc) { libc::MS_RDONLY } else { 0 };
            // And nobody sees a process that they could not trace, this one least of all.
            let options = match (has(Protection::OwnProc), has(Protection::ClosedFirst)) {
                (true, true) => "subset=pid,hidepid=ptraceable",
                (true, false) => "subset=pid",
                (false, true) => "hidepid=ptraceable",
                (false, false) => "",
            };
            sys::mount("proc", "/proc", "proc", flags, options)?;
        }
        let files = [self.oom.as_ref().map(|(file, _)| file), self.last_pid.as_ref()];
        let mut kept: Vec<RawFd> = files.iter().flatten().map(|file| file.as_raw_fd()).collect();
        kept.extend([self.socket.as_raw_fd(), self.status.as_raw_fd()]);
        sys::close_others(&kept)?;
        if self.room.protections.has(Protection::NoCapabilities) {
            // Its children inherit the empty set; what the warden has it keeps until it executes something: never.
            sys::drop_bounding_set();
        }
        sys::deaths()
    }

    fn say(&self, records: &[[i64; 4]]) {
        let bytes: Vec<u8> = records.iter().flatten().flat_map(|n| n.to_le_bytes()).collect();
        // SAFETY: the buffer has the given length. A launcher that is gone needs no word.
        unsafe { libc::write(self.status.as_raw_fd(), bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Makes the next process the namespace's second. False where the kernel cannot.
    fn reset_numbers(&self) -> bool {
        self.last_pid.as_ref().is_some_and(|file| file.write_at(b"1", 0).is_ok())
    }

    fn work(&mut self, signals: &OwnedFd) -> ! {
        let mut buffer = vec![0; size_of::<Order>() + COMMAND];
        loop {
            let mut fds = [self.socket.as_raw_fd(), signals.as_raw_fd()].map(|fd| libc::pollfd {
                fd,
                events: libc::POLLIN,
                revents: 0,
            });
            // SAFETY: the array has two entries.
            unsafe { libc::poll(fds.as_mut_ptr(), 2, -1) };
            if fds[1].revents != 0 {
                let mut signal = [0_u8; size_of::<libc::signalfd_siginfo>()];
                // SAFETY: the buffer has the given length.
                unsafe { libc::read(signals.as_raw_fd(), signal.as_mut_ptr().cast(), signal.len()) };
                while self.bury(libc::WNOHANG) {}
            }
            if fds[0].revents != 0 {
                match sys::receive_with(&self.socket, &mut buffer) {
                    Ok((length, streams)) if length >= size_of::<Order>() => {
                        self.obey(&buffer[..length], streams)
                    }
                    // The launcher's end, and so everything's.
                    _ => end(),
                }
            }
        }
    }

    /// Takes one dead child out of the way. False when there is none (yet).
    fn bury(&mut self, options: i32) -> bool {
        let mut status = 0;
        // SAFETY: both outlive the call, which fills them.
        let (pid, used) = unsafe {
            let mut used: libc::rusage = std::mem::zeroed();
            (libc::wait4(-1, &raw mut status, options, &raw mut used), used)
        };
        if pid <= 0 {
            return pid < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted;
        }
        let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
        let (cpu_us, memory_kb) = (time(used.ru_utime) + time(used.ru_stime), used.ru_maxrss as u64);
        if self.main == Some(pid) {
            self.main = None;
            // Orphans that died before it count as they would had it waited for them.
            let before = std::mem::replace(&mut self.orphans, NOTHING);
            let (cpu_us, memory_kb) = (cpu_us + before.cpu_us, memory_kb.max(before.memory_kb));
            self.conclude([ENDED, status.into(), cpu_us as i64, memory_kb as i64]);
        } else {
            self.orphans.cpu_us += cpu_us;
            self.orphans.memory_kb = self.orphans.memory_kb.max(memory_kb);
        }
        true
    }

    fn obey(&mut self, message: &[u8], mut streams: Vec<OwnedFd>) {
        // SAFETY: the message is that long, and every bit pattern is an order.
        let order: Order = unsafe { message.as_ptr().cast::<Order>().read_unaligned() };
        if order.start == 0 {
            self.sweep(true);
            return;
        }
        // Rules of Landlock follow the streams; they are closed when this is done.
        let rules = (streams.len() > 3).then(|| streams.pop()).flatten();
        let Ok(streams) = <[OwnedFd; 3]>::try_from(streams) else { end() };
        let words: Vec<*const c_char> =
            message[size_of::<Order>()..].split_inclusive(|b| *b == 0).map(|w| w.as_ptr().cast()).collect();
        let list = |from: usize, count: u32| {
            let some = words.iter().skip(from).take(count as usize).copied();
            some.chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let mut program = Program {
            room: self.room,
            order,
            arguments: list(0, order.arguments),
            environment: list(order.arguments as usize, order.environment),
            streams: streams.map(IntoRawFd::into_raw_fd),
            layer: rules.as_ref().map(AsRawFd::as_raw_fd),
            failed: (0, 0),
        };
        self.orphans = NOTHING;
        self.score("1000");
        let started = program.start(&mut self.stack);
        let own = self.oom.as_ref().map_or(String::new(), |(_, text)| text.clone());
        self.score(&own);
        for fd in program.streams {
            // SAFETY: the three are ours, and nobody else has their numbers.
            unsafe { libc::close(fd) };
        }
        match started {
            Err(e) => self.conclude([FAILED, 2, e.raw_os_error().unwrap_or(0).into(), 0]),
            Ok(pid) if program.failed.0 != 0 => {
                sys::reap(pid);
                self.conclude([FAILED, program.failed.0, program.failed.1, 0]);
            }
            Ok(pid) => self.main = Some(pid),
        }
    }

    fn score(&self, text: &str) {
        if let Some((file, _)) = &self.oom {
            let _ = file.write_at(text.trim_end().as_bytes(), 0);
        }
    }

    /// The main process is gone: says so, and kills the rest.
    fn conclude(&mut self, record: [i64; 4]) {
        // SAFETY: no memory is involved.
        let alone = self.space && unsafe { libc::kill(-1, libc::SIGKILL) } != 0;
        if alone {
            self.reset_numbers();
            self.say(&[record, [SWEPT, 0, 0, 0]]);
        } else {
            self.say(&[record]);
            self.sweep(false);
        }
    }

    /// Kills all processes but this one and waits for the last of them.
    fn sweep(&mut self, asked: bool) {
        let main = self.main.take();
        // Without a namespace of its own a signal to all would go too far.
        match (self.space, main) {
            (true, _) => {
                // SAFETY: no memory is involved.
                unsafe { libc::kill(-1, libc::SIGKILL) };
                while self.bury(0) {}
            }
            (false, Some(pid)) => {
                // SAFETY: as above.
                unsafe { libc::kill(pid, libc::SIGKILL) };
                sys::reap(pid);
            }
            (false, None) => {}
        }
        self.reset_numbers();
        let End { cpu_us, memory_kb, .. } = std::mem::replace(&mut self.orphans, NOTHING);
        self.say(&[[SWEPT, asked.into(), cpu_us as i64, memory_kb as i64]]);
    }
}
