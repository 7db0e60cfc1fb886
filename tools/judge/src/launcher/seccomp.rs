//! The system calls that a program may make. All others fail with ENOSYS, as on a kernel that lacks them, so that C
//! libraries fall back (clone3 to clone) and calls that future kernels add are closed.
//!
//! The filter is a binary search over ranges of numbers. When a filter is installed the kernel runs it once for every
//! call that there is; over a linear chain of comparisons that alone cost half a millisecond a test.

use seccompiler::{BpfProgram, sock_filter};

/// What `clone` must not do: namespaces; and a sibling in place of a child, which the fork server would have to bury, as
/// a process namespace does not end before the last of its dead is waited for.
const NO_CLONE: i32 = libc::CLONE_PARENT
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | 0x80; // CLONE_NEWTIME

/// What compilers, interpreters and their programs use: files, memory, time, threads, signals, processes, pipes.
/// Left out on purpose: mount, namespaces, ptrace and other processes' memory, keyrings, bpf, perf, io_uring,
/// userfaultfd, modules, kexec, System V and POSIX message queues and semaphores (they would outlive a test), network,
/// inotify (it tells when a neighbour reads a file of the host), vmsplice and tee (nobody needs them, and they have a past).
const ALLOWED: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_capget,
    libc::SYS_chdir,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_close_range,
    libc::SYS_copy_file_range,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fadvise64,
    libc::SYS_fallocate,
    libc::SYS_fchdir,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fgetxattr,
    libc::SYS_flistxattr,
    libc::SYS_flock,
    libc::SYS_fstat,
    libc::SYS_fstatfs,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_futex,
    libc::SYS_get_mempolicy,
    libc::SYS_get_robust_list,
    libc::SYS_getcpu,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getgroups,
    libc::SYS_getitimer,
    libc::SYS_getpeername,
    libc::SYS_getpgid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getpriority,
    libc::SYS_getrandom,
    libc::SYS_getresgid,
    libc::SYS_getresuid,
    libc::SYS_getrlimit,
    libc::SYS_getrusage,
    libc::SYS_getsid,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_getxattr,
    libc::SYS_ioctl,
    libc::SYS_ioprio_get,
    libc::SYS_kill,
    libc::SYS_lgetxattr,
    libc::SYS_linkat,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mincore,
    libc::SYS_mkdirat,
    libc::SYS_mlock,
    libc::SYS_mlock2,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_msync,
    libc::SYS_munlock,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pipe2,
    libc::SYS_pkey_alloc,
    libc::SYS_pkey_free,
    libc::SYS_pkey_mprotect,
    libc::SYS_ppoll,
    libc::SYS_prctl,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_pselect6,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_read,
    libc::SYS_readahead,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigpending,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_sigreturn,
    libc::SYS_rt_sigsuspend,
    libc::SYS_rt_sigtimedwait,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getattr,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_rr_get_interval,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_yield,
    libc::SYS_seccomp,
    libc::SYS_sendfile,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_setitimer,
    libc::SYS_setpgid,
    libc::SYS_setpriority,
    libc::SYS_setsid,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_signalfd4,
    libc::SYS_socketpair,
    libc::SYS_splice,
    libc::SYS_statfs,
    libc::SYS_statx,
    libc::SYS_symlinkat,
    libc::SYS_sync_file_range,
    libc::SYS_sysinfo,
    libc::SYS_tgkill,
    libc::SYS_timer_create,
    libc::SYS_timer_delete,
    libc::SYS_timer_getoverrun,
    libc::SYS_timer_gettime,
    libc::SYS_timer_settime,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_gettime,
    libc::SYS_timerfd_settime,
    libc::SYS_times,
    libc::SYS_tkill,
    libc::SYS_truncate,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    libc::SYS_utimensat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Calls that newer architectures no longer have.
#[cfg(target_arch = "x86_64")]
const LEGACY: &[libc::c_long] = &[
    libc::SYS_access,
    libc::SYS_alarm,
    libc::SYS_arch_prctl,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_creat,
    libc::SYS_dup2,
    libc::SYS_epoll_create,
    libc::SYS_epoll_wait,
    libc::SYS_eventfd,
    libc::SYS_fork,
    libc::SYS_futimesat,
    libc::SYS_getdents,
    libc::SYS_getpgrp,
    libc::SYS_lchown,
    libc::SYS_link,
    libc::SYS_lstat,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_pause,
    libc::SYS_pipe,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_select,
    libc::SYS_signalfd,
    libc::SYS_stat,
    libc::SYS_symlink,
    libc::SYS_time,
    libc::SYS_unlink,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_vfork,
];
#[cfg(not(target_arch = "x86_64"))]
const LEGACY: &[libc::c_long] = &[];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

// Offsets in struct seccomp_data (linux/seccomp.h); arguments are read by their low halves (little endian).
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

const ALLOW: sock_filter = instruction(RETURN, 0x7fff_0000, 0, 0);
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
        call if ALLOWED.contains(&call) || LEGACY.contains(&call) => vec![ALLOW],
        _ => vec![REFUSE],
    }
}

/// A filter that lets everything pass.
pub fn open() -> BpfProgram {
    vec![ALLOW]
}

/// The filter as the kernel takes it. Files in memory only where a control group counts them: no process's size shows one
/// that is not mapped.
pub fn filter(memory_files: bool, refusals: Refusals) -> BpfProgram {
    let last = ALLOWED.iter().chain(LEGACY).copied().max().unwrap_or(0) + 1;
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
mod tests {
    use super::*;

    /// Runs the filter as the kernel would, for the instructions that it uses.
    fn decide(program: &BpfProgram, arch: u32, number: u32, arguments: [u32; 4]) -> u32 {
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
            let want = if ALLOWED.contains(&call) || LEGACY.contains(&call) { allow } else { refuse };
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
