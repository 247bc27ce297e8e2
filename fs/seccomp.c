/* System calls: see sandbox.h. Lists by name; one that this machine's architecture does not have is
 * passed over. */
#include "fs/log.h"
#include "fs/sandbox.h"

#include <errno.h>

#ifndef HAVE_SECCOMP

bool seccomp_built_in(void)
{
    return false;
}

int seccomp_enter(int *n)
{
    *n = 0;
    return -ENOTSUP;
}

int seccomp_enter_broker(void)
{
    return -ENOTSUP;
}

#else

#include "fs/fuse_kernel.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <termios.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* Serves both: what libc, threads and the end of a process take. */
static const char *const common[] = {
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "futex",
    "futex_time64",
    "exit",
    "exit_group",
    "rt_sigreturn",
    "sigreturn",
    "restart_syscall",
    "read",
    "write",
    "close",
    "fstat",
    "fstat64",
    "newfstatat",
    "fstatat64",
    "statx",
    "lseek",
    "_llseek",
    "getpid",
    "gettid",
    "getppid",
    "clock_gettime",
    "clock_gettime64",
    "gettimeofday",
    "time",
    "getrandom",
    "rt_sigaction",
    "rt_sigprocmask",
    "set_robust_list",
    "rseq",
    "sched_yield",
};

static const char *const daemon_only[] = {
    /* files: Landlock says which may be written */
    "open",
    "openat",
    "openat2",
    "pread64",
    "preadv",
    "preadv2",
    "readv",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "writev",
    "stat",
    "stat64",
    "lstat",
    "lstat64",
    "statfs",
    "statfs64",
    "fstatfs",
    "fstatfs64",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents",
    "getdents64",
    "flock",
    "dup",
    "dup2",
    "dup3",
    "pipe2",
    "getcwd",
    "close_range",
    "copy_file_range",
    "fadvise64",
    "fadvise64_64",
    "arm_fadvise64_64",
    "readahead",
    "cachestat",
    "mincore",
    "msync",
    "name_to_handle_at",
    /* caches: made, filled, renamed into place */
    "ftruncate",
    "ftruncate64",
    "fallocate",
    "fsync",
    "fdatasync",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "fchmod",
    "umask",
    "utimensat",
    "sync_file_range",
    /* waiting and being told */
    "poll",
    "ppoll",
    "ppoll_time64",
    "select",
    "pselect6",
    "pselect6_time64",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    "signalfd4",
    "eventfd2",
    "nanosleep",
    "clock_nanosleep",
    "clock_nanosleep_time64",
    "clock_getres",
    "rt_sigtimedwait",
    "rt_sigsuspend",
    "sigaltstack",
    "rt_sigpending",
    "timerfd_create",
    "timerfd_settime",
    /* the broker, the log, the service manager, over descriptors that are open already */
    "sendmsg",
    "recvmsg",
    "recvfrom",
    "shutdown",
    "wait4",
    "waitid",
    /* what it runs on */
    "getuid",
    "getuid32",
    "geteuid",
    "geteuid32",
    "getgid",
    "getgid32",
    "getegid",
    "getegid32",
    "uname",
    "sysinfo",
    "sched_getaffinity",
    "getrlimit",
    "getrusage",
    "get_robust_list",
    "membarrier",
    "getcpu",
    "times",
    "setsid",
    "capget",
};

#if SANITIZED /* reports, and the search for leaks, which stops all threads from a process of its own */
static const char *const sanitizer[] = {
    "clone",       "ptrace",    "kill",      "tkill",      "tgkill",
    "mprotect",    "mmap",      "prctl",     "arch_prctl", "socketpair",
    "personality", "setrlimit", "prlimit64", "getpgrp",    "process_vm_readv",
    "getsid",
};
#endif

static atomic_uchar told[1024]; /* by system call */

/* SIGSYS: says which call was refused, and makes it return EPERM. */
static void refused(int sig, siginfo_t *si, void *ctx)
{
    int saved = errno, nr = si->si_syscall;
    (void)sig;
    if (nr >= 0 && nr < (int)sizeof told && !atomic_exchange(&told[nr], 1)) {
        char line[] = "sandbox: refused system call 0000";
        for (int i = (int)sizeof line - 2, v = nr; i >= (int)sizeof line - 5; i--, v /= 10)
            line[i] = (char)('0' + v % 10);
        log_line_in_signal(line);
    }
    errno = saved;
    ucontext_t *u = ctx;
#if defined __x86_64__
    u->uc_mcontext.gregs[REG_RAX] = -EPERM;
#elif defined __aarch64__
    u->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#else
    (void)u;
#endif
}

/* Where the handler above cannot put an error into the registers, the kernel returns it, and logs. */
static uint32_t refusal(void)
{
#if defined __x86_64__ || defined __aarch64__
    return SCMP_ACT_TRAP;
#else
    return SCMP_ACT_ERRNO(EPERM);
#endif
}

static int allow(scmp_filter_ctx c, const char *const *name, size_t n, int *count)
{
    for (size_t i = 0; i < n; i++) {
        int nr = seccomp_syscall_resolve_name(name[i]);
        int rc = nr == __NR_SCMP_ERROR ? 0 : seccomp_rule_add(c, SCMP_ACT_ALLOW, nr, 0);
        if (rc < 0 && rc != -EDOM) /* of another architecture */
            return rc;
        *count += nr >= 0 && rc == 0;
    }
    return 0;
}
/* Signals to its own threads (abort, pthread_cancel), not to others of its user. */
static int allow_own_signals(scmp_filter_ctx c)
{
    return seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
                            SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

/* Whom a descriptor sends signals to: this process (the leases). F_SETOWN_EX is left out, since it says so
 * in memory, where a filter cannot look. */
static int allow_fcntl(scmp_filter_ctx c)
{
    static const int cmd[] = {F_DUPFD,  F_DUPFD_CLOEXEC, F_GETFD,     F_SETFD,
                              F_GETFL,  F_SETFL,         F_SETLEASE,  F_GETLEASE,
                              F_SETSIG, F_GETPIPE_SZ,    F_SETPIPE_SZ};
    static const char *const name[] = {"fcntl", "fcntl64"};
    for (size_t k = 0; k < 2; k++) {
        int nr = seccomp_syscall_resolve_name(name[k]), rc = 0;
        for (size_t i = 0; rc == 0 && i < sizeof cmd / sizeof *cmd; i++)
            rc = seccomp_rule_add(c, SCMP_ACT_ALLOW, nr, 1,
                                  SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)cmd[i]));
        if (rc == 0)
            rc = seccomp_rule_add(c, SCMP_ACT_ALLOW, nr, 2, SCMP_A1(SCMP_CMP_EQ, F_SETOWN),
                                  SCMP_A2(SCMP_CMP_MASKED_EQ, 0xffffffff, (scmp_datum_t)getpid()));
        if (rc < 0 && rc != -EDOM) /* of another architecture */
            return rc;
    }
    return 0;
}

#define ALLOW(c, list, count) allow(c, list, sizeof list / sizeof *list, count)

/* Those that are right with some arguments only. */
static int allow_some(scmp_filter_ctx c, int *count)
{
    const uint64_t cmd[] = {FICLONERANGE, FICLONE, 0x8004e500 /* FUSE_DEV_IOC_CLONE */, TCGETS,
                            FIONREAD};
    const uint32_t ok = SCMP_ACT_ALLOW;
    int rc = allow_own_signals(c);
    if (rc == 0)
        rc = allow_fcntl(c);
    for (size_t i = 0; rc == 0 && i < sizeof cmd / sizeof *cmd; i++)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, cmd[i]));
    /* Memory that can be executed is what is mapped already. */
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(mprotect), 1,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    /* Threads, not processes. clone3 is refuse_clone3()'s. */
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(clone), 1,
                              SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(clone3), 0);
    /* Without an address. (sendmsg's lies in memory; it carries the descriptors for the broker.) */
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(sendto), 1, SCMP_A4(SCMP_CMP_EQ, 0));
    /* Limits are asked, not set. */
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(prlimit64), 1, SCMP_A2(SCMP_CMP_EQ, 0));
    /* Names of threads and of memory. */
    if (rc == 0)
        rc = seccomp_rule_add(c, ok, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
    if (rc == 0)
        rc =
            seccomp_rule_add(c, ok, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, 0x53564d41 /* VMA */));
    *count += 8;
    return rc;
}

bool seccomp_built_in(void)
{
    return true;
}

/* clone3 hides its flags in memory: ENOSYS makes libc take clone. A filter of its own, since it happens with
 * every thread and is no line for the kernel's log. */
static int refuse_clone3(void)
{
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);
    int rc = c ? 0 : -ENOMEM;
    if (rc == 0)
        rc = seccomp_attr_set(c, SCMP_FLTATR_API_SYSRAWRC, 1);
    if (rc == 0)
        rc = seccomp_attr_set(c, SCMP_FLTATR_CTL_TSYNC, 1);
    if (rc == 0)
        rc = seccomp_rule_add(c, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    if (rc == 0)
        rc = seccomp_load(c);
    seccomp_release(c);
    return rc;
}

int seccomp_enter(int *n)
{
    struct sigaction sa = {.sa_sigaction = refused, .sa_flags = SA_SIGINFO | SA_NODEFER};
    scmp_filter_ctx c = seccomp_init(refusal());
    if (!c)
        return -ENOTSUP;
    /* pthread_cancel, with which libfuse ends its threads, loads it; later that would be refused. */
    dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_GLOBAL);
    *n = 0;
    seccomp_attr_set(c, SCMP_FLTATR_API_SYSRAWRC, 1); /* the kernel's errno, not ECANCELED */
    seccomp_attr_set(c, SCMP_FLTATR_CTL_LOG, 1);
    seccomp_attr_set(c, SCMP_FLTATR_CTL_TSYNC, 1);
    seccomp_attr_set(c, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree: the list is long */
    int rc = ALLOW(c, common, n);
    if (rc == 0)
        rc = ALLOW(c, daemon_only, n);
#if SANITIZED
    if (rc == 0)
        rc = ALLOW(c, sanitizer, n);
#endif
    if (rc == 0)
        rc = allow_some(c, n);
    if (rc == 0 && sigaction(SIGSYS, &sa, NULL) < 0)
        rc = -errno;
    if (rc == 0)
        rc = refuse_clone3();
    if (rc == 0)
        rc = seccomp_load(c);
    seccomp_release(c);
    return rc;
}

int seccomp_enter_broker(void)
{
    scmp_filter_ctx c = seccomp_init(SCMP_ACT_ERRNO(EPERM));
    static const char *const own[] = {"recvmsg", "sendmsg", "sendto", "umount2", "dup",     "fcntl",
                                      "fcntl64", "poll",    "ppoll",  "statfs",  "statfs64"};
    int n = 0, rc = c ? 0 : -ENOTSUP;
    if (rc < 0)
        return rc;
    seccomp_attr_set(c, SCMP_FLTATR_CTL_LOG, 1);
    rc = ALLOW(c, common, &n);
    if (rc == 0)
        rc = ALLOW(c, own, &n);
    if (rc == 0)
        rc = allow_own_signals(c);
    const uint64_t cmd[] = {FUSE_DEV_IOC_BACKING_OPEN, FUSE_DEV_IOC_BACKING_CLOSE};
    for (size_t i = 0; rc == 0 && i < 2; i++)
        rc = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_EQ, cmd[i]));
    if (rc == 0)
        rc = seccomp_rule_add(c, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
                              SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (rc == 0)
        rc = seccomp_load(c);
    seccomp_release(c);
    return rc;
}

#endif
