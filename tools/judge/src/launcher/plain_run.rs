//! One run without namespaces: the main process is a child of this launcher, which watches it as any other run, and buries
//! what descends from it. What `program.rs` does in the warden's memory is done here in the child's own, since the rules
//! are not whole before its number is known.

use std::fs::File;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use super::landlock::{self, Rules};
use super::run::{End, Ended, Finished, Room, Streams, Watch, rlimits};
use super::sys::{self, Step};
use super::{family, seccomp, warden};
use crate::protections::Protection;
use crate::sandbox::wire::{Kind, Run};

/// As `run::run_with`, from the streams on.
///
/// # Errors
/// When the sandbox fails; never for anything that the program does.
pub fn run(
    room: &mut Room,
    run: &Run,
    stdin: &[u8],
    ends: Option<[OwnedFd; 2]>,
) -> Result<(Finished, u64), String> {
    let mut streams = Streams::open(stdin, room.ids).step(|| "opening streams".into())?;
    let kept = streams.join(ends, room.ids).step(|| "joining programs".into())?;
    let rules = room.rules_for(run.kind)?.ok_or("no Landlock")?;
    // The kernel counts the user's other processes too, where programs have no user of their own.
    let others = if room.ids.is_none() { family::tasks_of_user() } else { 0 };
    let (failure, failure_end) = sys::pipe().step(|| "opening a pipe".into())?;
    let memory = run.limits.memory_bytes.saturating_add(stdin.len() as u64);
    room.counters.start(memory).step(|| "setting limits".into())?;
    let started = Instant::now();
    // SAFETY: the launcher has one thread.
    let forked = unsafe { sys::fork_into(0) }.step(|| "forking".into())?;
    let Some((pid, process)) = forked else { child(room, run, &streams, &rules, others, failure_end) };
    drop(failure_end);
    let Streams { stdin, out, program } = streams;
    drop((stdin, program));
    let mut watch = Watch::new(room, run.limits, started, out);
    watch.follow();
    let limit = watch.wait_on(process.as_raw_fd());
    let ended_us = sys::now_us();
    // While those who outlived the main process can still be counted.
    let looked = watch.look();
    sys::kill(&process);
    let (status, used) = wait(pid);
    family::bury()?;
    drop(kept);
    let outcome = match (limit?, failed(failure)) {
        (Some(limit), _) => Ended::Limit(limit),
        (None, Some((step, error))) => Ended::Failed(warden::failure(step, error)),
        (None, None) => {
            let time = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
            let cpu_us = time(used.ru_utime) + time(used.ru_stime);
            Ended::Main(End { status, cpu_us, memory_kb: used.ru_maxrss as u64 })
        }
    };
    looked?;
    watch.finish(Ok(outcome)).map(|finished| (finished, ended_us))
}

fn wait(pid: i32) -> (i32, libc::rusage) {
    let mut status = 0;
    // SAFETY: zero is a valid value of every field; both outlive the calls, which fill them.
    unsafe {
        let mut used: libc::rusage = MaybeUninit::zeroed().assume_init();
        while libc::wait4(pid, &raw mut status, 0, &raw mut used) == -1
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        (status, used)
    }
}

/// Step and error of a child that came to no exec; nothing was written by one that did.
fn failed(pipe: OwnedFd) -> Option<(i64, i64)> {
    let mut bytes = [0; 16];
    File::from(pipe).read_exact(&mut bytes).ok()?;
    let number = |at: usize| i64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Some((number(0), number(8)))
}

fn child(room: &Room, run: &Run, streams: &Streams, rules: &Rules, others: u64, failure: OwnedFd) -> ! {
    let mut step = 3_i64;
    if become_program(room, run, streams, rules, others).is_ok() {
        step = 4;
        sys::exec(&run.arguments, &run.environment);
        // A compiler made of this source what the kernel will not start: the program's fault, by the shells' number.
        let own = |a: &String| Path::new(a).starts_with(room.program_folder());
        if run.kind == Kind::Test && run.arguments.first().is_some_and(own) {
            // SAFETY: ends this child without running anything of the launcher's.
            unsafe { libc::_exit(126) };
        }
    }
    let error = i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    let _ = File::from(failure).write_all(&[step.to_le_bytes(), error.to_le_bytes()].concat());
    // SAFETY: as above.
    unsafe { libc::_exit(255) }
}

/// Streams, limits, ids, no capabilities, no new privileges, Landlock, the filter.
fn become_program(room: &Room, run: &Run, streams: &Streams, rules: &Rules, others: u64) -> io::Result<()> {
    let has = |protection| room.protections.has(protection);
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    // SAFETY: plain system calls on numbers and on arrays that outlive them; this process has one thread.
    unsafe {
        libc::setsid();
        libc::umask(0o022);
        for (at, fd) in [&streams.stdin, &streams.program[0], &streams.program[1]].iter().enumerate() {
            sys::check(libc::dup2(fd.as_raw_fd(), at as i32))?;
        }
        if has(Protection::ClosedDescriptors) {
            libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32);
        }
        sys::check(libc::chdir(sys::c_string(&room.working_folder().to_string_lossy()).as_ptr()))?;
        for (resource, soft, hard) in rlimits(&run.limits, room.ids.is_some(), room.protections) {
            if resource == u32::MAX {
                continue;
            }
            let more = if resource == libc::RLIMIT_NPROC { others } else { 0 };
            let limit = libc::rlimit { rlim_cur: soft + more, rlim_max: hard + more };
            sys::check(libc::setrlimit(resource, &raw const limit))?;
        }
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
        // Changing ids would have cleared it.
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        sys::check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
    }
    rules.allow("/proc/self", landlock::READ)?;
    rules.obey()?;
    let own;
    let filter = match &room.plain {
        // Linkers make what they write executable by its name.
        Some(plain) if run.kind != Kind::Test && has(Protection::Filter) => {
            let refusals = seccomp::Refusals { attributes: false, ..plain.refusals(room.ids.is_some()) };
            own = seccomp::filter(!room.counters.watches_memory(), refusals);
            &own
        }
        _ => &room.filter,
    };
    let filter = seccomp::of_process(filter, std::process::id());
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}
