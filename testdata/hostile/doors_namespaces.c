// verdict: AC
// Calls that would open a way out. Each must fail.
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(void) {
    int a, b, ways = 0;
    scanf("%d %d", &a, &b);
    ways += mount("none", "/tmp", "tmpfs", 0, "") == 0;
    ways += umount("/proc") == 0;
    ways += unshare(CLONE_NEWUSER) == 0;
    ways += unshare(CLONE_NEWNS) == 0;
    ways += syscall(SYS_setns, 0, 0) == 0;
    ways += syscall(SYS_ptrace, 0, 0, 0, 0) == 0;
    ways += syscall(SYS_ptrace, 16, 1, 0, 0) == 0;
    ways += syscall(SYS_bpf, 0, 0, 0) >= 0;
    ways += syscall(SYS_perf_event_open, 0, 0, 0, 0, 0) >= 0;
    ways += syscall(SYS_userfaultfd, 0) >= 0;
    ways += syscall(SYS_io_uring_setup, 8, 0) >= 0;
    ways += syscall(SYS_add_key, "user", "a", "b", 1, -2) >= 0;
    ways += syscall(SYS_keyctl, 0, -3, 0) >= 0;
    ways += syscall(SYS_shmget, 1, 4096, 01666) >= 0;
    ways += syscall(SYS_msgget, 1, 01666) >= 0;
    ways += syscall(SYS_process_vm_readv, 1, 0, 0, 0, 0, 0) >= 0;
    ways += syscall(SYS_clone, CLONE_NEWUSER | 17, 0, 0, 0, 0) >= 0;
    ways += chroot("/tmp") == 0;
    ways += syscall(SYS_pivot_root, ".", ".") == 0;
    ways += setuid(0) == 0;
    ways += sethostname("x", 1) == 0;
    ways += syscall(SYS_open_by_handle_at, 0, 0, 0) >= 0;
    ways += syscall(SYS_kexec_load, 0, 0, 0, 0) == 0;
    ways += syscall(SYS_init_module, 0, 0, "") == 0;
    if (ways) printf("%d ways\n", ways); else printf("%d\n", a + b);
}
