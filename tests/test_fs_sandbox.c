/* What a process may and may not do once it has entered the sandbox. Each case runs in a process of its
 * own, whose exit status says which step was not as expected. */
#include "fs/log.h"
#include "fs/sandbox.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STATUS_NO_LANDLOCK 77

static char *writable, *outside, *store, *temporary; /* folders */

/* In the child: the step's line on failure. */
#define STEP(cond)                                                                                 \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return __LINE__;                                                                       \
    } while (0)

static struct sandbox enter(bool read_anywhere)
{
    struct sandbox s = {.on = true, .read_anywhere = read_anywhere};
    struct err e;
    for (int i = 0; i < 40; i++) /* as with many SOURCEs */
        if (sandbox_allow(&s, SANDBOX_READ, store) < 0)
            _exit(254);
    if (sandbox_allow(&s, SANDBOX_WRITE, writable) < 0 ||
        sandbox_allow(&s, SANDBOX_READ, store) < 0 ||
        sandbox_allow(&s, SANDBOX_TEMP, temporary) < 0 ||
        sandbox_allow(&s, SANDBOX_READ, "/does/not/exist") < 0 || sandbox_enter(&s, &e) < 0)
        _exit(255);
    return s;
}

static bool has_landlock(const struct sandbox *s)
{
    return strstr(s->text, "Landlock ABI") != NULL;
}

/* Runs fn in a process; fails with the line (modulo 254) of the step that went wrong. */
static void in_child(int (*fn)(void))
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        int line = fn();
        _exit(line == 0 || line == STATUS_NO_LANDLOCK ? line : 128 + line % 127);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == STATUS_NO_LANDLOCK)
        skip_because("no Landlock in this kernel");
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("status 0x%x: the step's line, modulo 127, is %d", status,
                 WEXITSTATUS(status) - 128);
}

static int open_in(const char *dir, const char *name, int flags)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return open(path, flags | O_CLOEXEC, 0600);
}

static bool refused(long rc)
{
    return rc < 0 && errno == EPERM;
}

static void *thread_main(void *ctx)
{
    return ctx;
}

static int no_programs_no_sockets(void)
{
    char *const argv[] = {(char *)"/bin/true", NULL};
    enter(true);
    STEP(refused(execve(argv[0], argv, argv + 1)));
    STEP(refused(syscall(SYS_execveat, AT_FDCWD, argv[0], argv, argv + 1, 0)));
    STEP(refused(socket(AF_UNIX, SOCK_STREAM, 0)));
    STEP(refused(socket(AF_INET, SOCK_STREAM, 0)));
    STEP(refused(socket(AF_INET6, SOCK_DGRAM, 0)));
    STEP(refused(mount("none", "/mnt", "tmpfs", 0, NULL)));
    STEP(refused(umount2("/", MNT_DETACH)));
    STEP(refused(chmod("/", 0777)));
    STEP(refused(chown("/", 1, 1)));
    STEP(refused(syscall(SYS_bpf, 0, NULL, 0)));
    STEP(refused(syscall(SYS_io_uring_setup, 1, NULL)));
    STEP(refused(syscall(SYS_unshare, 0)));
    STEP(refused(syscall(SYS_setns, 0, 0)));
    STEP(refused(setuid(0)));
    STEP(refused(syscall(SYS_init_module, NULL, 0, "")));
    STEP(refused(symlink("a", "b")));
    STEP(refused(syscall(SYS_open_by_handle_at, 0, NULL, 0)));
    return 0;
}

/* What a sanitizer itself needs is open under it. */
static int no_processes_no_new_code(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    enter(true);
    STEP(refused(fork()));
    STEP(refused(vfork()));
    struct clone_args fork_by_clone3 = {.exit_signal = SIGCHLD};
    STEP(syscall(SYS_clone3, &fork_by_clone3, sizeof fork_by_clone3) < 0 && errno == ENOSYS);
    STEP(refused(ptrace(PTRACE_TRACEME, 0, NULL, NULL)));
    STEP(refused(kill(getppid(), SIGTERM)));
    STEP(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED);
    STEP(errno == EPERM);
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    STEP(p != MAP_FAILED);
    STEP(refused(mprotect(p, 4096, PROT_READ | PROT_EXEC)));
    struct rlimit r = {100, 100};
    STEP(refused(setrlimit(RLIMIT_NOFILE, &r)));
#endif
    return 0;
}

static int work_goes_on(void)
{
    pthread_t t;
    void *ret = NULL;
    int sv[2];
    char c;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sv) < 0)
        return __LINE__;
    enter(true);
    STEP(pthread_create(&t, NULL, thread_main, sv) == 0);
    STEP(pthread_join(t, &ret) == 0 && ret == sv);
    STEP(send(sv[0], "x", 1, MSG_NOSIGNAL) == 1 && recv(sv[1], &c, 1, 0) == 1);
    STEP(open_in(store, "f", O_RDONLY) >= 0);
    STEP(open_in(outside, "f", O_RDONLY) >= 0); /* links may lead anywhere */
    int fd = open_in(writable, "new", O_RDWR | O_CREAT | O_EXCL);
    STEP(fd >= 0 && write(fd, "abc", 3) == 3 && fsync(fd) == 0 && ftruncate(fd, 1) == 0);
    int unnamed = open_in(writable, "", O_TMPFILE | O_RDWR);
    STEP(unnamed >= 0 || errno == EOPNOTSUPP);
    char a[4096], b[4096];
    snprintf(a, sizeof a, "%s/new", writable);
    snprintf(b, sizeof b, "%s/renamed", writable);
    STEP(rename(a, b) == 0 && unlink(b) == 0);
    STEP(pthread_create(&t, NULL, thread_main, NULL) == 0);
    STEP(pthread_cancel(t) == 0 || 1); /* loads libgcc_s, which is there already */
    STEP(pthread_join(t, NULL) == 0);
    struct rlimit r;
    STEP(getrlimit(RLIMIT_NOFILE, &r) == 0);
    return 0;
}

static int no_writing_outside(void)
{
    struct sandbox s = enter(true);
    if (!has_landlock(&s))
        return STATUS_NO_LANDLOCK;
    STEP(open_in(outside, "f", O_WRONLY) < 0 && errno == EACCES);
    STEP(open_in(outside, "f", O_RDWR) < 0 && errno == EACCES);
    STEP(open_in(outside, "f", O_RDONLY | O_TRUNC) < 0 && errno == EACCES);
    STEP(open_in(outside, "new", O_WRONLY | O_CREAT) < 0 && errno == EACCES);
    STEP(open_in(store, "f", O_WRONLY) < 0 && errno == EACCES); /* a store is read, never written */
    STEP(open_in(store, "", O_TMPFILE | O_RDWR) < 0 && errno == EACCES);
    /* Unnamed files are made, named ones are not; docs/semantics.md says what is possible besides. */
    int unnamed = open_in(temporary, "", O_TMPFILE | O_RDWR);
    STEP(unnamed >= 0 ? write(unnamed, "x", 1) == 1 : errno == EOPNOTSUPP);
    STEP(open_in(temporary, "new", O_WRONLY | O_CREAT) < 0 && errno == EACCES);
    STEP(open_in(temporary, "f", O_WRONLY) >= 0);
    char a[4096], b[4096];
    snprintf(a, sizeof a, "%s/f", temporary);
    STEP(unlink(a) < 0 && errno == EACCES);
    snprintf(b, sizeof b, "%s/g", temporary);
    STEP(rename(a, b) < 0 && errno == EACCES);
    snprintf(a, sizeof a, "%s/f", store);
    STEP(unlink(a) < 0 && errno == EACCES);
    snprintf(b, sizeof b, "%s/sub", store);
    STEP(mkdir(b, 0700) < 0 && errno == EACCES);
    STEP(rename(a, b) < 0 && errno == EACCES);
    snprintf(b, sizeof b, "%s/f", writable);
    STEP(rename(a, b) < 0 && (errno == EACCES || errno == EXDEV));
    return 0;
}

static int no_reading_outside(void)
{
    struct sandbox s = enter(false);
    if (!has_landlock(&s))
        return STATUS_NO_LANDLOCK;
    STEP(open_in(store, "f", O_RDONLY) >= 0);
    STEP(open(store, O_RDONLY | O_DIRECTORY) >= 0);
    STEP(open("/proc/self/status", O_RDONLY) >= 0);
    STEP(open_in(outside, "f", O_RDONLY) < 0 && errno == EACCES);
    STEP(open(outside, O_RDONLY | O_DIRECTORY) < 0 && errno == EACCES);
    return 0;
}

static int privileges_are_gone(void)
{
    struct err e;
    bool root = sandbox_has_cap(CAP_SYS_ADMIN) && sandbox_has_cap(CAP_LEASE);
    STEP(sandbox_keep_caps(1ULL << CAP_SYS_ADMIN | 1ULL << CAP_LEASE, false, &e) == 0);
    STEP(!sandbox_has_cap(CAP_DAC_OVERRIDE) && !sandbox_has_cap(CAP_CHOWN));
    STEP(sandbox_has_cap(CAP_LEASE) == root);
    /* Not for good yet: they can be raised again. */
    STEP(sandbox_keep_caps(1ULL << CAP_SYS_ADMIN | 1ULL << CAP_CHOWN, false, &e) == 0);
    STEP(sandbox_has_cap(CAP_CHOWN) == root);
    struct sandbox s = {.on = true, .read_anywhere = true, .keep = 1ULL << CAP_LEASE};
    STEP(sandbox_enter(&s, &e) == 0);
    STEP(strstr(s.text, root ? "capabilities: CAP_LEASE" : "capabilities: none"));
    STEP(!sandbox_has_cap(CAP_SYS_ADMIN) && sandbox_has_cap(CAP_LEASE) == root);
    char line[256];
    int n_seen = 0;
    FILE *f = fopen("/proc/self/status", "re");
    STEP(f != NULL);
    unsigned long long v;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "CapPrm: %llx", &v) == 1 || sscanf(line, "CapEff: %llx", &v) == 1) {
            STEP(v == (root ? 1ULL << CAP_LEASE : 0));
            n_seen++;
        }
        if (sscanf(line, "NoNewPrivs: %llu", &v) == 1) {
            STEP(v == 1);
            n_seen++;
        }
    }
    STEP(n_seen == 3);
    return 0;
}

/* Signals to other processes of the same user, by the one call that its own threads need; and by a
 * descriptor that has an owner, as leases have. */
static int no_signals_to_others(void)
{
    int fd[2];
    struct f_owner_ex other = {.type = F_OWNER_PID, .pid = getppid()};
    if (pipe(fd) < 0)
        return __LINE__;
    enter(true);
    STEP(syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), 0) == 0);
    STEP(fcntl(fd[0], F_SETOWN, (long)getpid()) == 0 && fcntl(fd[0], F_SETSIG, SIGUSR1) == 0);
    STEP(refused(fcntl(fd[0], F_SETOWN, (long)getppid())));
    STEP(refused(fcntl(fd[0], F_SETOWN, -(long)getpgrp())));
    STEP(refused(fcntl(fd[0], F_SETOWN_EX, &other)));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    STEP(refused(syscall(SYS_tgkill, getppid(), getppid(), 0)));
#endif
    return 0;
}

/* A kernel without seccomp: prctl(2) answers EINVAL, seccomp(2) ENOSYS. */
static int goes_on_without_seccomp(void)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_seccomp, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog p = {sizeof f / sizeof *f, f};
    struct sandbox s = {.on = true, .read_anywhere = true};
    struct err e;
    STEP(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    STEP(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) == 0);
    STEP(sandbox_enter(&s, &e) == 0);
    STEP(strstr(s.text, "no seccomp in this kernel") && strstr(s.text, "no_new_privs"));
    return 0;
}

static int a_refusal_is_logged_once(void)
{
    int fd[2];
    if (pipe(fd) < 0 || dup2(fd[1], STDERR_FILENO) < 0)
        return __LINE__;
    enter(true);
    for (int i = 0; i < 3; i++)
        STEP(refused(socket(AF_UNIX, SOCK_STREAM, 0)));
    close(fd[1]);
    close(STDERR_FILENO);
    char got[512] = "", want[64];
    ssize_t n = read(fd[0], got, sizeof got - 1);
    snprintf(want, sizeof want, "aprfs: sandbox: refused system call %04d\n", (int)SYS_socket);
    STEP(n == (ssize_t)strlen(want) && strcmp(got, want) == 0);
    return 0;
}

static int switched_off_is_said(void)
{
    struct sandbox s = {.on = false};
    struct err e;
    STEP(sandbox_enter(&s, &e) == 0);
    STEP(strstr(s.text, "switched off") && strstr(s.text, "capabilities: none"));
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    STEP(fd >= 0);
    return 0;
}

#define NEEDS_SECCOMP()                                                                            \
    if (!seccomp_built_in())                                                                       \
    skip_because("built without libseccomp")

static void sandbox_refuses_programs_and_sockets(void **state)
{
    (void)state;
    NEEDS_SECCOMP();
#ifdef __SANITIZE_THREAD__
    skip_because("TSan blocks signals around execve, and a blocked SIGSYS kills");
#endif
    in_child(no_programs_no_sockets);
}

static void sandbox_refuses_processes_and_new_code(void **state)
{
    (void)state;
    NEEDS_SECCOMP();
    in_child(no_processes_no_new_code);
}

static void sandbox_lets_the_work_go_on(void **state)
{
    (void)state;
    in_child(work_goes_on);
}

static void sandbox_bounds_writing(void **state)
{
    (void)state;
    in_child(no_writing_outside);
}

static void sandbox_bounds_reading_where_links_may_not_lead_out(void **state)
{
    (void)state;
    in_child(no_reading_outside);
}

static void sandbox_drops_capabilities(void **state)
{
    (void)state;
    in_child(privileges_are_gone);
}

static void sandbox_refuses_signals_to_others(void **state)
{
    (void)state;
    NEEDS_SECCOMP();
    in_child(no_signals_to_others);
}

static void sandbox_goes_on_where_the_kernel_has_no_seccomp(void **state)
{
    (void)state;
    NEEDS_SECCOMP();
    in_child(goes_on_without_seccomp);
}

static void sandbox_logs_a_refusal_once(void **state)
{
    (void)state;
    NEEDS_SECCOMP();
    in_child(a_refusal_is_logged_once);
}

static void sandbox_off_is_said(void **state)
{
    (void)state;
    in_child(switched_off_is_said);
}

static int folders(void **state)
{
    (void)state;
    writable = temp_dir();
    outside = temp_dir();
    store = temp_dir();
    temporary = temp_dir();
    char *a = path_join(outside, "f"), *b = path_join(store, "f"), *c = path_join(temporary, "f");
    file_write(a, "x", 1);
    file_write(b, "x", 1);
    file_write(c, "x", 1);
    free(c);
    free(a);
    free(b);
    return 0;
}

static int folders_away(void **state)
{
    (void)state;
    free(writable);
    free(outside);
    free(store);
    free(temporary);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sandbox_refuses_programs_and_sockets),
        cmocka_unit_test(sandbox_refuses_processes_and_new_code),
        cmocka_unit_test(sandbox_lets_the_work_go_on),
        cmocka_unit_test(sandbox_bounds_writing),
        cmocka_unit_test(sandbox_bounds_reading_where_links_may_not_lead_out),
        cmocka_unit_test(sandbox_drops_capabilities),
        cmocka_unit_test(sandbox_refuses_signals_to_others),
        cmocka_unit_test(sandbox_goes_on_where_the_kernel_has_no_seccomp),
        cmocka_unit_test(sandbox_logs_a_refusal_once),
        cmocka_unit_test(sandbox_off_is_said),
    };
    return cmocka_run_group_tests(tests, folders, folders_away);
}
