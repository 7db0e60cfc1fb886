//! The system calls that a program may make. All others fail with ENOSYS, as on a kernel that lacks them, so that C
//! libraries fall back (clone3 to clone) and calls that future kernels add are closed.
//!
//! The filter is a binary search over ranges of numbers. When a filter is installed the kernel runs it once for every
//! call that there is; over a linear chain of comparisons that alone cost half a millisecond a test.

use seccompiler::{BpfProgram, sock_filter};

/// What `clone` must not do: namespaces; and a sibling in place of a child, which the fork server would have to bury, as
/// a process namespace does not end before the last of its dead is waited for.
pub const NO_CLONE: i32 = libc::CLONE_PARENT
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | 0x80; // CLONE_NEWTIME

/// A call's name in the C library's headers (SYS_name) and its number.
type Call = (&'static str, libc::c_long);

macro_rules! calls {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), libc::$name)),*] };
}

/// What compilers, interpreters and their programs use: files, memory, time, threads, signals, processes, pipes.
/// Left out on purpose: mount, namespaces, ptrace and other processes' memory, keyrings, bpf, perf, io_uring,
/// userfaultfd, modules, kexec, System V and POSIX message queues and semaphores (they would outlive a test), network,
/// inotify (it tells when a neighbour reads a file of the host), vmsplice and tee (nobody needs them, and they have a past).
const ALLOWED: &[Call] = calls![
    SYS_brk,
    SYS_capget,
    SYS_chdir,
    SYS_clock_getres,
    SYS_clock_gettime,
    SYS_clock_nanosleep,
    SYS_close,
    SYS_close_range,
    SYS_copy_file_range,
    SYS_dup,
    SYS_dup3,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_execve,
    SYS_execveat,
    SYS_exit,
    SYS_exit_group,
    SYS_faccessat,
    SYS_faccessat2,
    SYS_fadvise64,
    SYS_fallocate,
    SYS_fchdir,
    SYS_fchmod,
    SYS_fchmodat,
    SYS_fchown,
    SYS_fchownat,
    SYS_fcntl,
    SYS_fdatasync,
    SYS_fgetxattr,
    SYS_flistxattr,
    SYS_flock,
    SYS_fstat,
    SYS_fstatfs,
    SYS_fsync,
    SYS_ftruncate,
    SYS_futex,
    SYS_get_mempolicy,
    SYS_get_robust_list,
    SYS_getcpu,
    SYS_getcwd,
    SYS_getdents64,
    SYS_getegid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getgroups,
    SYS_getitimer,
    SYS_getpeername,
    SYS_getpgid,
    SYS_getpid,
    SYS_getppid,
    SYS_getpriority,
    SYS_getrandom,
    SYS_getresgid,
    SYS_getresuid,
    SYS_getrlimit,
    SYS_getrusage,
    SYS_getsid,
    SYS_getsockname,
    SYS_getsockopt,
    SYS_gettid,
    SYS_gettimeofday,
    SYS_getuid,
    SYS_getxattr,
    SYS_ioprio_get,
    SYS_kill,
    SYS_lgetxattr,
    SYS_linkat,
    SYS_listxattr,
    SYS_llistxattr,
    SYS_lseek,
    SYS_madvise,
    SYS_membarrier,
    SYS_mincore,
    SYS_mkdirat,
    SYS_mlock,
    SYS_mlock2,
    SYS_mprotect,
    SYS_mremap,
    SYS_msync,
    SYS_munlock,
    SYS_munmap,
    SYS_nanosleep,
    SYS_newfstatat,
    SYS_openat,
    SYS_openat2,
    SYS_pidfd_open,
    SYS_pidfd_send_signal,
    SYS_pipe2,
    SYS_pkey_alloc,
    SYS_pkey_free,
    SYS_pkey_mprotect,
    SYS_ppoll,
    SYS_prctl,
    SYS_pread64,
    SYS_preadv,
    SYS_preadv2,
    SYS_pselect6,
    SYS_pwrite64,
    SYS_pwritev,
    SYS_pwritev2,
    SYS_read,
    SYS_readahead,
    SYS_readlinkat,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_renameat,
    SYS_renameat2,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigpending,
    SYS_rt_sigprocmask,
    SYS_rt_sigqueueinfo,
    SYS_rt_sigreturn,
    SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait,
    SYS_rt_tgsigqueueinfo,
    SYS_sched_get_priority_max,
    SYS_sched_get_priority_min,
    SYS_sched_getaffinity,
    SYS_sched_getattr,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_sched_rr_get_interval,
    SYS_sched_setaffinity,
    SYS_sched_yield,
    SYS_seccomp,
    SYS_sendfile,
    SYS_sendmsg,
    SYS_sendto,
    SYS_set_robust_list,
    SYS_set_tid_address,
    SYS_setitimer,
    SYS_setpgid,
    SYS_setpriority,
    SYS_setsid,
    SYS_setsockopt,
    SYS_shutdown,
    SYS_sigaltstack,
    SYS_signalfd4,
    SYS_socketpair,
    SYS_splice,
    SYS_statfs,
    SYS_statx,
    SYS_symlinkat,
    SYS_sync_file_range,
    SYS_sysinfo,
    SYS_tgkill,
    SYS_timer_create,
    SYS_timer_delete,
    SYS_timer_getoverrun,
    SYS_timer_gettime,
    SYS_timer_settime,
    SYS_timerfd_create,
    SYS_timerfd_gettime,
    SYS_timerfd_settime,
    SYS_times,
    SYS_tkill,
    SYS_truncate,
    SYS_umask,
    SYS_uname,
    SYS_unlinkat,
    SYS_utimensat,
    SYS_wait4,
    SYS_waitid,
    SYS_write,
    SYS_writev,
];

/// Calls that newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[Call] = calls![
    SYS_access,
    SYS_alarm,
    SYS_arch_prctl,
    SYS_chmod,
    SYS_chown,
    SYS_creat,
    SYS_dup2,
    SYS_epoll_create,
    SYS_epoll_wait,
    SYS_eventfd,
    SYS_fork,
    SYS_futimesat,
    SYS_getdents,
    SYS_getpgrp,
    SYS_lchown,
    SYS_link,
    SYS_lstat,
    SYS_mkdir,
    SYS_open,
    SYS_pause,
    SYS_pipe,
    SYS_poll,
    SYS_readlink,
    SYS_rename,
    SYS_rmdir,
    SYS_select,
    SYS_signalfd,
    SYS_stat,
    SYS_symlink,
    SYS_time,
    SYS_unlink,
    SYS_utime,
    SYS_utimes,
    SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[Call] = &[];

#[cfg(target_arch = "x86_64")]
pub const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
pub const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in struct seccomp_data (linux/seccomp.h); arguments are read by their low halves (little endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

pub const ALLOW: sock_filter = instruction(RETURN, 0x7fff_0000, 0, 0);
const REFUSE: sock_filter = instruction(RETURN, 0x0005_0000 | libc::ENOSYS as u32, 0, 0);
const KILL: sock_filter = instruction(RETURN, 0x8000_0000, 0, 0);

const fn instruction(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// What is refused beside that, where no mounts stand in the way (`plain.rs`).
#[derive(Debug, Clone, Copy, Default)]
pub struct Refusals {
    /// Truncating a file by its name.
    pub truncate: bool,
    /// Changing a file's mode, owner or times by its name; an open file's stay the program's.
    pub attributes: bool,
    /// Signals to others than the process for which the filter is made ([`of_process`]).
    pub signals: bool,
}

/// Stands in a filter for the number of the process that it will be installed in.
const PROCESS: u32 = 0xffff_fffe;

/// The filter for the process of this number.
pub fn of_process(filter: &BpfProgram, pid: u32) -> BpfProgram {
    let own = |i: &sock_filter| {
        if i.code == EQUAL && i.k == PROCESS { instruction(EQUAL, pid, i.jt, i.jf) } else { i.clone() }
    };
    filter.iter().map(own).collect()
}

impl Refusals {
    /// What happens to a call because of them.
    fn verdict(self, call: i64) -> Option<Vec<sock_filter>> {
        let argument = |n: u32, half: u32| instruction(LOAD, ARGUMENTS + 8 * n + 4 * half, 0, 0);
        let by_name = [
            libc::SYS_fchmodat,
            libc::SYS_fchownat,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chmod,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_chown,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_lchown,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_utime,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_utimes,
            #[cfg(target_arch = "x86_64")]
            libc::SYS_futimesat,
        ];
        let signals =
            [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];
        match call {
            libc::SYS_truncate if self.truncate => Some(vec![REFUSE]),
            call if self.attributes && by_name.contains(&call) => Some(vec![REFUSE]),
            // Without a name it is the descriptor's file.
            libc::SYS_utimensat if self.attributes => Some(vec![
                argument(1, 0),
                instruction(EQUAL, 0, 1, 0),
                REFUSE,
                argument(1, 1),
                instruction(EQUAL, 0, 1, 0),
                REFUSE,
                ALLOW,
            ]),
            call if self.signals && signals.contains(&call) => {
                Some(vec![argument(0, 0), instruction(EQUAL, PROCESS, 0, 1), ALLOW, REFUSE])
            }
            libc::SYS_tkill | libc::SYS_pidfd_send_signal if self.signals => Some(vec![REFUSE]),
            _ => None,
        }
    }
}

/// What happens to a call, as instructions that end the filter.
fn verdict(call: i64) -> Vec<sock_filter> {
    let argument = |n: u32| instruction(LOAD, ARGUMENTS + 8 * n, 0, 0);
    let without = |n: u32, flags: u32| {
        vec![argument(n), instruction(AND, flags, 0, 0), instruction(EQUAL, 0, 0, 1), ALLOW, REFUSE]
    };
    match call {
        // Processes and threads, but no namespaces.
        libc::SYS_clone => without(0, NO_CLONE as u32),
        // Huge pages are a store of the host's that no memory limit counts.
        libc::SYS_mmap => without(3, libc::MAP_HUGETLB as u32),
        libc::SYS_memfd_create => without(1, libc::MFD_HUGETLB),
        // The limit on core dumps stays at 1: at 0 the kernel would still hand them to a collector of the host's.
        libc::SYS_setrlimit => {
            vec![argument(0), instruction(EQUAL, libc::RLIMIT_CORE, 0, 1), REFUSE, ALLOW]
        }
        // Of the calling process only: the namespace's first process must stay as it is. As above; but it may be read.
        libc::SYS_prlimit64 => vec![
            argument(0),
            instruction(EQUAL, 0, 1, 0),
            REFUSE,
            argument(1),
            instruction(EQUAL, libc::RLIMIT_CORE, 1, 0),
            ALLOW,
            argument(2),
            instruction(EQUAL, 0, 1, 0),
            REFUSE,
            instruction(LOAD, ARGUMENTS + 8 * 2 + 4, 0, 0),
            instruction(EQUAL, 0, 1, 0),
            REFUSE,
            ALLOW,
        ],
        // Only to ask, or to set the default.
        libc::SYS_personality => {
            vec![argument(0), instruction(EQUAL, u32::MAX, 1, 0), instruction(EQUAL, 0, 0, 1), ALLOW, REFUSE]
        }
        // No typing into a terminal, should one ever be reachable.
        libc::SYS_ioctl => vec![
            argument(1),
            instruction(EQUAL, libc::TIOCSTI as u32, 2, 0),
            instruction(EQUAL, libc::TIOCLINUX as u32, 1, 0),
            ALLOW,
            REFUSE,
        ],
        call if listed().any(|(_, number)| number == call) => vec![ALLOW],
        _ => vec![REFUSE],
    }
}

/// The calls that pass whatever their arguments are, by name and number. Those that [`verdict`] looks into are others.
pub fn listed() -> impl Iterator<Item = Call> {
    ALLOWED.iter().chain(LEGACY).copied().map(|(name, number)| (name.trim_start_matches("SYS_"), number))
}

/// A filter that lets everything pass.
pub fn open() -> BpfProgram {
    vec![ALLOW]
}

/// The filter as the kernel takes it. Files in memory only where a control group counts them: no process's size shows one
/// that is not mapped.
pub fn filter(memory_files: bool, refusals: Refusals) -> BpfProgram {
    let last = listed().map(|(_, number)| number).max().unwrap_or(0) + 1;
    // Where the treatment changes, from 0 upwards; the last piece has no end, and is refused.
    let mut pieces: Vec<(u32, Vec<sock_filter>)> = Vec::new();
    for call in 0..=last {
        let code = match refusals.verdict(call) {
            Some(code) => code,
            None if call == libc::SYS_memfd_create && !memory_files => vec![REFUSE],
            None => verdict(call),
        };
        if pieces.last().is_none_or(|(_, before)| *before != code || code.len() > 1) {
            pieces.push((call as u32, code));
        }
    }
    let mut program = vec![
        instruction(LOAD, ARCH, 0, 0),
        instruction(EQUAL, ARCHITECTURE, 1, 0),
        KILL,
        instruction(LOAD, NUMBER, 0, 0),
    ];
    search(&pieces, &mut program);
    program
}

fn search(pieces: &[(u32, Vec<sock_filter>)], program: &mut BpfProgram) {
    if let [(_, code)] = pieces {
        program.extend(code.iter().cloned());
        return;
    }
    let (low, high) = pieces.split_at(pieces.len() / 2);
    let at = program.len();
    program.push(REFUSE);
    search(low, program);
    let skip = u8::try_from(program.len() - at - 1).expect("half of the table is under 256 instructions");
    program[at] = instruction(AT_LEAST, high[0].0, skip, 0);
    search(high, program);
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Runs the filter as the kernel would, for the instructions that it uses.
    pub fn decide(program: &BpfProgram, arch: u32, number: u32, arguments: [u32; 4]) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let i = &program[at];
            at += 1;
            let jump = |taken: bool| usize::from(if taken { i.jt } else { i.jf });
            match i.code {
                LOAD => {
                    value = match i.k {
                        NUMBER => number,
                        ARCH => arch,
                        k if k % 8 == 4 => 0,
                        k => arguments[(k - ARGUMENTS) as usize / 8],
                    }
                }
                AND => value &= i.k,
                EQUAL => at += jump(value == i.k),
                AT_LEAST => at += jump(value >= i.k),
                RETURN => return i.k,
                code => panic!("unknown instruction {code}"),
            }
        }
    }

    #[test]
    fn only_what_is_listed_passes() {
        let program = filter(true, Refusals::default());
        let (allow, refuse) = (ALLOW.k, REFUSE.k);
        for number in 0..2000 {
            let call = i64::from(number);
            let by_argument = [
                libc::SYS_clone,
                libc::SYS_personality,
                libc::SYS_ioctl,
                libc::SYS_mmap,
                libc::SYS_memfd_create,
                libc::SYS_setrlimit,
                libc::SYS_prlimit64,
            ];
            if by_argument.contains(&call) {
                continue;
            }
            let want = if listed().any(|(_, number)| number == call) { allow } else { refuse };
            assert_eq!(decide(&program, ARCHITECTURE, number, [0; 4]), want, "{number}");
        }
        for call in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_ptrace,
            libc::SYS_bpf,
            libc::SYS_keyctl,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_perf_event_open,
            libc::SYS_kexec_load,
            libc::SYS_init_module,
            libc::SYS_clone3,
            libc::SYS_socket,
            libc::SYS_process_vm_readv,
            libc::SYS_shmget,
            libc::SYS_mq_open,
        ] {
            assert_eq!(decide(&program, ARCHITECTURE, call as u32, [0; 4]), refuse, "{call}");
        }
        let of = |call: i64, [a, b]: [u32; 2]| decide(&program, ARCHITECTURE, call as u32, [a, b, 7, 7]);
        let (core, files) = (libc::RLIMIT_CORE, libc::RLIMIT_NOFILE);
        let prlimit = |pid, resource, new| {
            decide(&program, ARCHITECTURE, libc::SYS_prlimit64 as u32, [pid, resource, new, 0])
        };
        assert_eq!(
            [prlimit(0, files, 7), prlimit(0, core, 0), prlimit(0, core, 7), prlimit(1, files, 0)],
            [allow, allow, refuse, refuse]
        );
        assert_eq!(
            [of(libc::SYS_setrlimit, [files, 7]), of(libc::SYS_setrlimit, [core, 7])],
            [allow, refuse]
        );
        let mmap = |flags| decide(&program, ARCHITECTURE, libc::SYS_mmap as u32, [0, 0, 0, flags]);
        assert_eq!([mmap(libc::MAP_SHARED as u32), mmap(libc::MAP_HUGETLB as u32)], [allow, refuse]);
        assert_eq!(of(libc::SYS_memfd_create, [0, libc::MFD_HUGETLB]), refuse);
        assert_eq!(of(libc::SYS_clone, [libc::CLONE_PARENT as u32, 0]), refuse);
        assert_eq!(of(libc::SYS_clone, [libc::SIGCHLD as u32, 0]), allow);
        assert_eq!(of(libc::SYS_clone, [libc::CLONE_NEWUSER as u32, 0]), refuse);
        assert_eq!(of(libc::SYS_ioctl, [0, libc::TCGETS as u32]), allow);
        assert_eq!(of(libc::SYS_ioctl, [0, libc::TIOCSTI as u32]), refuse);
        assert_eq!(of(libc::SYS_personality, [u32::MAX, 0]), allow);
        assert_eq!(of(libc::SYS_personality, [libc::ADDR_NO_RANDOMIZE as u32, 0]), refuse);
        // The other numbering of this processor, and 64-bit numbers with the x32 bit.
        assert_eq!(decide(&program, 0x4000_0003, libc::SYS_read as u32, [0; 4]), KILL.k);
        assert_eq!(decide(&program, ARCHITECTURE, 0x4000_0000, [0; 4]), refuse);
    }

    #[test]
    fn what_landlock_does_not_know_is_refused_where_it_stands_alone() {
        let refusals = Refusals { truncate: true, attributes: true, signals: true };
        let program = of_process(&filter(true, refusals), 77);
        let of = |call: i64, arguments| decide(&program, ARCHITECTURE, call as u32, arguments) == ALLOW.k;
        assert!(of(libc::SYS_kill, [77, 9, 0, 0]) && of(libc::SYS_tgkill, [77, 77, 6, 0]));
        assert!(![78, 1, u32::MAX, 0].into_iter().any(|pid| of(libc::SYS_kill, [pid, 9, 0, 0])));
        assert!(!of(libc::SYS_pidfd_send_signal, [77, 9, 0, 0]) && !of(libc::SYS_tkill, [77, 9, 0, 0]));
        assert!(!of(libc::SYS_truncate, [7; 4]) && of(libc::SYS_ftruncate, [7; 4]));
        assert!(
            !of(libc::SYS_fchmodat, [7; 4])
                && !of(libc::SYS_fchownat, [7; 4])
                && of(libc::SYS_fchmod, [7; 4])
        );
        assert!(of(libc::SYS_utimensat, [7, 0, 7, 7]) && !of(libc::SYS_utimensat, [7, 7, 7, 7]));
        // Without them all of these pass.
        let program = filter(true, Refusals::default());
        for call in [libc::SYS_kill, libc::SYS_truncate, libc::SYS_fchmodat, libc::SYS_utimensat] {
            assert_eq!(decide(&program, ARCHITECTURE, call as u32, [7; 4]), ALLOW.k);
        }
    }
}
