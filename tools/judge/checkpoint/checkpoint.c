// A fork server inside an unmodified interpreter.
//
// Preloaded into `python3 /box/main.py` (or php, perl, lua, ruby), this stops the interpreter on its way to the program:
// where it first looks at the program's path (mode "open"), or where the file /run/checkpoint.rb, which `-r` makes it
// load, calls fork (mode "require": Ruby opens the program and reads its first byte, to look for #!, before it loads its
// own libraries; that byte is exchanged in its buffer. And Ruby must know that it forks). There the interpreter serves:
// for each test it forks, and the child drops every privilege and simply goes on, opening the test's own program. So a
// program runs in an interpreter that differs in nothing from a fresh one except in being warm.
//
// The server never sees a program or an input. A child cannot reach it: it is forked into a pid namespace of its own,
// in a session of its own, with its own descriptors, without capabilities, under the seccomp filter. Signals are blocked
// in the server, so that not even the death of a child leaves a trace in the interpreter's memory.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif

// Both sides are built together: see fork_server.rs for the Rust twins of these structs.
enum { MAX_FDS = 16, MAX_FILTER = 4096, RLIMITS = 8, FDS_LEAST = 4, FDS_MOST = 5 };
enum { FD_EVENT = 1, FD_PIPE_READ = 2, FD_PIPE_WRITE = 3, FD_SCRIPT = 4 };
struct inherited { int32_t fd; uint32_t kind; int32_t flags; int32_t pair; };
struct hello { uint32_t uid, gid, set_ids, fds, filter, landlock; struct inherited fd[MAX_FDS]; struct sock_filter code[MAX_FILTER]; };
struct request { struct { uint32_t resource, pad; uint64_t soft, hard; } limit[RLIMITS]; };
struct report { uint32_t kind; int32_t status; int64_t cpu_us, memory_kb; };
enum { REPORT_READY = 1, REPORT_EXIT = 2, REPORT_FAULT = 3 };

static int armed, control = -1, require_mode, script = -1;
static char path[256];
static char *first_byte;
static struct hello hello;
// The server's own oom_score_adj. /proc is not for children to write, so they inherit the highest, and it takes its own
// back: the interpreter that all tests are forked from is not what should go when memory runs out.
enum { SCORE = 201 };
static char score[16];
static void set_score(const char *text) { (void)!pwrite(SCORE, text, strlen(text), 0); }

__attribute__((constructor)) static void arm(void) {
    const char *spec = getenv("COGNATE_CHECKPOINT"); // FD:MODE:PATH
    if (!spec) return;
    char mode[16];
    if (sscanf(spec, "%d:%15[a-z]:%255s", &control, mode, path) == 3) {
        require_mode = strcmp(mode, "require") == 0;
        armed = 1;
    }
    unsetenv("COGNATE_CHECKPOINT");
    unsetenv("LD_PRELOAD");
}

static void fault(int stage) {
    struct report r = {REPORT_FAULT, stage, errno, 0};
    (void)!write(control, &r, sizeof r);
    _exit(255);
}

// Gives the child descriptors of its own under the numbers that the interpreter knows, and closes all others.
static void own_descriptors(void) {
    int keep[MAX_FDS], kept = 0;
    for (unsigned i = 0; i < hello.fds; i++) {
        struct inherited *f = &hello.fd[i];
        int fresh = -1;
        if (f->kind == FD_EVENT) {
            fresh = eventfd(0, 0);
        } else if (f->kind == FD_PIPE_READ) {
            int ends[2];
            if (pipe(ends) < 0 || dup2(ends[1], f->pair) < 0) fault(1);
            fcntl(f->pair, F_SETFL, f->flags & O_NONBLOCK);
            fcntl(f->pair, F_SETFD, FD_CLOEXEC);
            close(ends[1]);
            fresh = ends[0];
        } else if (f->kind == FD_SCRIPT) {
            static int (*real)(const char *, int, ...);
            if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
            fresh = real(path, O_RDONLY);
            // The interpreter holds the placeholder's first byte in its buffer; it becomes the program's.
            if (fresh >= 0 && read(fresh, first_byte, 1) == 0) *first_byte = '\n';
        } else if (f->kind == FD_PIPE_WRITE) {
            keep[kept++] = f->fd; // made with its other end
            continue;
        }
        if (fresh < 0 || dup2(fresh, f->fd) < 0) fault(2);
        close(fresh);
        fcntl(f->fd, F_SETFL, f->flags & O_NONBLOCK);
        fcntl(f->fd, F_SETFD, FD_CLOEXEC);
        keep[kept++] = f->fd;
    }
    int next = 3;
    for (;;) {
        int lowest = 1 << 30;
        for (int i = 0; i < kept; i++)
            if (keep[i] >= next && keep[i] < lowest) lowest = keep[i];
        if (lowest == 1 << 30) break;
        if (lowest > next) syscall(SYS_close_range, next, lowest - 1, 0);
        next = lowest + 1;
    }
    control = -1;
    syscall(SYS_close_range, next, ~0U, 0);
}

// Descriptors of a request: the namespace, three streams, and rules of Landlock where the kernel has it.
static void become_program(const struct request *request, const int *fds, int count) {
    if (setsid() < 0 || chdir("/tmp") < 0) fault(3);
    umask(022);
    for (int i = 0; i < RLIMITS; i++) {
        if (request->limit[i].resource == ~0U) continue;
        struct rlimit l = {request->limit[i].soft, request->limit[i].hard};
        if (setrlimit(request->limit[i].resource, &l) < 0) fault(4);
    }
    for (int i = 0; i < 3; i++)
        if (dup2(fds[i + 1], i) < 0) fault(5);
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (hello.set_ids) {
        if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, hello.gid, hello.gid, hello.gid) < 0 ||
            syscall(SYS_setresuid, hello.uid, hello.uid, hello.uid) < 0)
            fault(6);
    }
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct none[2] = {{0}};
    if (syscall(SYS_capset, &header, none) < 0) fault(7);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fault(8);
    if (count == FDS_MOST && syscall(SYS_landlock_restrict_self, fds[4], hello.landlock) < 0) fault(11);
    own_descriptors();
    // The change of ids has closed its /proc entries to its own user; those of a fresh interpreter are open.
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    struct sock_fprog filter = {hello.filter, hello.code};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter) < 0) _exit(255);
}

static pid_t real_fork(void) {
    static pid_t (*real)(void);
    if (!real) real = (pid_t (*)(void))dlsym(RTLD_NEXT, "fork");
    return real();
}

#include "php_end.h"
#include "python_end.h"
#include "ruby_end.h"

// CPython's collector walks every object when a program ends, and so copies every page of the warm interpreter.
// What stands before the program begins cannot become garbage: it is taken out of the walk (gc.freeze, made for this).
// How a program's end is made cheap as well stands in python_end.h.
static void settle_python(void) {
    int (*enter)(void) = (int (*)(void))dlsym(RTLD_DEFAULT, "PyGILState_Ensure");
    int (*run)(const char *) = (int (*)(const char *))dlsym(RTLD_DEFAULT, "PyRun_SimpleString");
    void (*leave)(int) = (void (*)(int))dlsym(RTLD_DEFAULT, "PyGILState_Release");
    if (!enter || !run || !leave) return;
    int state = enter();
    py_prepare();
    run("__import__('gc').collect(); __import__('gc').freeze(); __import__('sys').modules.pop('gc', None)");
    leave(state);
}

// What the interpreter freed on its way here lies about in pieces. The first large request puts them together and in order,
// and so writes to the pages that they lie on: better once here than in each child.
static void settle_heap(void) {
    void *parts[4];
    for (int i = 0; i < 4; i++) parts[i] = malloc(100 << 10);
    for (int i = 0; i < 4; i++) free(parts[i]);
}

// Returns in each child, in the place where the interpreter was stopped.
static void serve(void) {
    armed = 0;
    settle_python();
    settle_ruby();
    settle_heap();
    if (settle_php()) return;
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    if (pread(SCORE, score, sizeof score - 1, 0) <= 0) score[0] = 0;
    struct report ready = {REPORT_READY, script, 0, 0};
    if (write(control, &ready, sizeof ready) < 0 || read(control, &hello, sizeof hello) <= 0) _exit(0);
    // So that no exec gives a child a capability back. This process keeps those that it has: it executes nothing more.
    for (int cap = 0; cap <= 63; cap++) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
    for (;;) {
        struct request request;
        char space[CMSG_SPACE(FDS_MOST * sizeof(int))];
        struct iovec part = {&request, sizeof request};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
        ssize_t n = recvmsg(control, &message, MSG_CMSG_CLOEXEC);
        struct cmsghdr *c = CMSG_FIRSTHDR(&message);
        if (n != sizeof request || !c) _exit(0);
        int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        if (count != FDS_LEAST && count != FDS_MOST) _exit(0);
        int fds[FDS_MOST];
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
        struct report report = {REPORT_FAULT, 9, 0, 0};
        pid_t child = -1;
        if (setns(fds[0], CLONE_NEWPID) == 0) {
            set_score("1000");
            child = real_fork();
            if (child == 0) {
                become_program(&request, fds, count);
                sigprocmask(SIG_SETMASK, &before, NULL);
                py_left = 0;
                return;
            }
            int error = errno;
            set_score(score);
            errno = error;
        }
        report.cpu_us = errno;
        for (int i = 0; i < count; i++) close(fds[i]);
        if (child > 0) {
            struct rusage used;
            int status;
            while (wait4(child, &status, 0, &used) < 0 && errno == EINTR) {}
            report.kind = REPORT_EXIT;
            report.status = status;
            report.cpu_us = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000LL + used.ru_utime.tv_usec + used.ru_stime.tv_usec;
            report.memory_kb = used.ru_maxrss;
        }
        if (write(control, &report, sizeof report) < 0) _exit(0);
    }
}

static int at_checkpoint(const char *name) {
    if (!armed || !name) return 0;
    return !require_mode && strcmp(name, path) == 0;
}

static int is_probed(const char *name) { return php.script >= 0 && name && strcmp(name, path) == 0; }

static int is_script(const char *name) { return armed && require_mode && script < 0 && name && strcmp(name, path) == 0; }

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define MODE(last) \
    mode_t mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list a; va_start(a, last); mode = va_arg(a, mode_t); va_end(a); }

#define OPEN(name) \
    int name(const char *file, int flags, ...) { \
        MODE(flags) REAL(name); \
        if (at_checkpoint(file)) serve(); \
        if (is_probed(file)) return dup(php.script); \
        int fd = real(file, flags, mode); \
        if (is_script(file)) script = fd; \
        return fd; \
    }
#define OPENAT(name) \
    int name(int dir, const char *file, int flags, ...) { \
        MODE(flags) REAL(name); \
        if (at_checkpoint(file)) serve(); \
        return real(dir, file, flags, mode); \
    }
#define FOPEN(name) \
    FILE *name(const char *file, const char *how) { \
        REAL(name); \
        if (at_checkpoint(file)) serve(); \
        return is_probed(file) ? fdopen(dup(php.script), how) : real(file, how); \
    }
#define STAT(name, type) \
    int name(const char *file, struct type *out) { REAL(name); if (at_checkpoint(file)) serve(); return real(file, out); }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)
STAT(stat, stat)
STAT(lstat, stat)
STAT(stat64, stat64)
STAT(lstat64, stat64)

int fstatat(int dir, const char *file, struct stat *out, int flags) {
    REAL(fstatat);
    if (at_checkpoint(file)) serve();
    return real(dir, file, out, flags);
}

// CPython's first step on the way out by SystemExit.
int fflush(FILE *file) {
    REAL(fflush);
    if (file == stdout) py_left = 1;
    return real(file);
}

int access(const char *file, int how) {
    REAL(access);
    if (at_checkpoint(file)) serve();
    return real(file, how);
}

ssize_t readlink(const char *file, char *out, size_t size) {
    REAL(readlink);
    if (at_checkpoint(file)) serve();
    return real(file, out, size);
}

ssize_t read(int fd, void *out, size_t size) {
    REAL(read);
    // The placeholder's first byte, alone in the interpreter's buffer.
    if (armed && require_mode && script >= 0 && fd == script && !first_byte && size > 0) {
        ssize_t n = real(fd, out, 1);
        if (n == 1) first_byte = out;
        return n;
    }
    return real(fd, out, size);
}

// The server stays in here; each child returns as from the one call that the interpreter made.
pid_t fork(void) {
    if (!armed || !require_mode || !first_byte) return real_fork();
    serve();
    return 0;
}
