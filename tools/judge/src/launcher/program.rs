//! A main process between its start and its exec. It shares the warden's memory, which waits meanwhile: copying a
//! process's memory, only to replace it, costs as much as a short program's whole run. So it allocates nothing, and what
//! it changes are things that are each process's own: descriptors, limits, ids, capabilities, the filter.

use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::RawFd;

use super::landlock;
use super::run::Room;
use super::sys;
use super::warden::Order;
use crate::protections::Protection;

/// Bytes of stack that such a process has.
const STACK: usize = 1 << 17;

pub struct Stack(Vec<u128>);

impl Stack {
    pub fn new() -> Self {
        Self(vec![0; STACK / size_of::<u128>()])
    }
}

/// All that it needs.
pub struct Program<'a> {
    pub room: &'a Room,
    pub order: Order,
    /// Both end in null.
    pub arguments: Vec<*const c_char>,
    pub environment: Vec<*const c_char>,
    /// stdin, stdout, stderr, under numbers above those.
    pub streams: [RawFd; 3],
    /// Rules of Landlock.
    pub layer: Option<RawFd>,
    /// Step and error number, where it came to no exec.
    pub failed: (i64, i64),
}

extern "C" fn enter(program: *mut c_void) -> c_int {
    // SAFETY: `start` passes a program that nobody else touches until this process execs or ends.
    let program = unsafe { &mut *program.cast::<Program>() };
    let step = match program.become_program() {
        Ok(()) => {
            // SAFETY: both arrays end in null and their strings live until the process is replaced.
            unsafe {
                libc::execve(program.arguments[0], program.arguments.as_ptr(), program.environment.as_ptr())
            };
            // A compiler made of this source what the kernel will not start: the program's fault, by the shells' number.
            if program.order.own_fault != 0 {
                // SAFETY: ends this process, and nothing of the memory that it shares.
                unsafe { libc::_exit(126) };
            }
            4
        }
        Err(()) => 3,
    };
    program.failed = (step, i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(0)));
    // SAFETY: as above.
    unsafe { libc::_exit(255) }
}

impl Program<'_> {
    /// Starts it, and waits until it has become its command, or failed to.
    ///
    /// # Errors
    /// When no process can be made.
    pub fn start(&mut self, stack: &mut Stack) -> io::Result<i32> {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
        // SAFETY: the stack is larger than what `enter` needs and is used by one process at a time, as this one waits;
        // its end is aligned as the processor wants it. `self` outlives the wait.
        let pid = unsafe {
            let top = stack.0.as_mut_ptr_range().end;
            libc::clone(enter, top.cast(), flags, std::ptr::from_mut(self).cast())
        };
        sys::check(pid).map(|pid| pid as i32)
    }

    /// Streams, limits, ids, no capabilities, no new privileges, Landlock, the filter. Errors stand in errno.
    fn become_program(&self) -> Result<(), ()> {
        let done = |result: i64| if result < 0 { Err(()) } else { Ok(()) };
        let has = |protection| self.room.protections.has(protection);
        // SAFETY: plain system calls on numbers and on arrays that outlive them. Those that change ids are called
        // directly, as the C library would first look for threads.
        unsafe {
            libc::setsid();
            libc::umask(0o022);
            for (at, fd) in self.streams.iter().enumerate() {
                done(libc::dup2(*fd, at as c_int).into())?;
            }
            if has(Protection::ClosedDescriptors) {
                libc::close_range(3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as c_int);
            } else {
                for fd in 3..64 {
                    libc::fcntl(fd, libc::F_SETFD, 0);
                }
            }
            done(libc::chdir(c"/tmp".as_ptr()).into())?;
            for [resource, soft, hard] in self.order.limits {
                if resource == u64::from(u32::MAX) {
                    continue;
                }
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                done(libc::setrlimit(resource as u32, &raw const limit).into())?;
            }
            if let (Some((uid, gid)), true) = (self.room.ids, self.order.set_ids != 0) {
                done(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>()))?;
                done(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
                done(libc::syscall(libc::SYS_setresuid, uid, uid, uid))?;
            }
            if has(Protection::NoCapabilities) {
                sys::drop_capabilities().map_err(drop)?;
            }
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into())?;
            if let Some(rules) = self.layer {
                let flags = landlock::flags(self.room.landlock);
                done(libc::syscall(libc::SYS_landlock_restrict_self, rules, flags))?;
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
            let filter = libc::sock_fprog {
                len: self.room.filter.len() as u16,
                filter: self.room.filter.as_ptr().cast_mut().cast(),
            };
            done(libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter))
        }
    }
}
