/* The broker over its socketpair. The session's descriptor is /dev/null here, whose answer to both
 * ioctls is ENOTTY: it tells a request that was carried out from one that the broker refused. */
#include "fs/broker.h"
#include "fs/fuse_kernel.h"
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct broker *start(void)
{
    struct broker *b = NULL;
    struct err e;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    assert_int_equal(broker_start(&b, null, "/nowhere", 0, false, &e), 0);
    close(null);
    assert_int_equal(broker_backing_close(b, 1), -ENOTTY); /* it has tidied up and serves */
    return b;
}

static char *small_file(void)
{
    char *dir = temp_dir(), *path = path_join(dir, "f");
    file_write(path, "x", 1);
    free(dir);
    return path;
}

/* The broker's open descriptors. */
static int n_fd_of(pid_t pid)
{
    char path[64];
    int n = 0;
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *de; (de = readdir(d));)
        n += de->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Any bytes with any descriptors; the answer's rc. */
static int send_raw(struct broker *b, const void *p, size_t len, const int *fd, int n_fd)
{
    char control[CMSG_SPACE(64 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec v = {.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
    struct broker_msg answer;
    if (n_fd) {
        h.msg_control = control;
        h.msg_controllen = CMSG_SPACE((size_t)n_fd * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        *c = (struct cmsghdr){CMSG_LEN((size_t)n_fd * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(c), fd, (size_t)n_fd * sizeof(int));
    }
    assert_int_equal(sendmsg(broker_socket(b), &h, MSG_NOSIGNAL), len);
    assert_int_equal(recv(broker_socket(b), &answer, sizeof answer, 0), sizeof answer);
    return answer.rc;
}

static void broker_takes_regular_files_open_read_only(void **state)
{
    (void)state;
    struct broker *b = start();
    char *path = small_file(), *dir = temp_dir();
    int pipes[2];
    int32_t id = 0;
    assert_int_equal(pipe(pipes), 0);
    int ro = open(path, O_RDONLY), noatime = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
    assert_int_equal(broker_backing_open(b, ro, &id), -ENOTTY);
    if (noatime >= 0) /* not every file system takes O_DIRECT */
        assert_int_equal(broker_backing_open(b, noatime, &id), -ENOTTY);
    const struct {
        const char *what;
        int fd;
    } bad[] = {
        {"read and write", open(path, O_RDWR)},
        {"write", open(path, O_WRONLY)},
        {"append", open(path, O_WRONLY | O_APPEND)},
        {"neither (access mode 3)", open(path, O_ACCMODE)},
        {"a path only", open(path, O_PATH)},
        {"a folder", open(dir, O_RDONLY | O_DIRECTORY)},
        {"a device", open("/dev/zero", O_RDONLY)},
        {"a pipe", pipes[0]},
        {"a socket", socket(AF_UNIX, SOCK_STREAM, 0)},
        {"writable memory", memfd_create("m", 0)},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int rc = broker_backing_open(b, bad[i].fd, &id);
        if (rc != -EINVAL)
            fail_msg("%s: %d, expected %d", bad[i].what, rc, -EINVAL);
        close(bad[i].fd);
    }
    assert_int_equal(broker_backing_open(b, -1, &id), -EBADF);
    assert_int_equal(id, 0);
    close(ro);
    close(noatime);
    close(pipes[1]);
    broker_stop(b);
    free(path);
    free(dir);
}

static void broker_refuses_malformed_messages(void **state)
{
    (void)state;
    struct broker *b = start();
    char *path = small_file();
    int fd[64];
    for (int i = 0; i < 64; i++)
        fd[i] = open(path, O_RDONLY | O_CLOEXEC);
    int n_fd = n_fd_of(broker_pid(b));
    assert_int_equal(n_fd, 6); /* 0 to 2, the socket, the session, mountinfo */
    const struct {
        const char *what;
        struct broker_msg m;
        size_t len;
        int n_fd, rc;
    } row[] = {
        {"open, right", {BROKER_BACKING_OPEN, 0, 0}, sizeof(struct broker_msg), 1, -ENOTTY},
        {"open without a descriptor", {BROKER_BACKING_OPEN, 0, 0}, 12, 0, -EBADMSG},
        {"open with two", {BROKER_BACKING_OPEN, 0, 0}, 12, 2, -EBADMSG},
        {"open with as many as fit", {BROKER_BACKING_OPEN, 0, 0}, 12, 8, -EBADMSG},
        {"open with more than fit", {BROKER_BACKING_OPEN, 0, 0}, 12, 64, -EBADMSG},
        {"open with a value", {BROKER_BACKING_OPEN, 0, 1}, 12, 1, -EBADMSG},
        {"open as an answer", {BROKER_BACKING_OPEN, -1, 0}, 12, 1, -EBADMSG},
        {"close, right", {BROKER_BACKING_CLOSE, 0, 1}, 12, 0, -ENOTTY},
        {"close with a descriptor", {BROKER_BACKING_CLOSE, 0, 1}, 12, 1, -EBADMSG},
        {"close of 0", {BROKER_BACKING_CLOSE, 0, 0}, 12, 0, -EBADMSG},
        {"close of less", {BROKER_BACKING_CLOSE, 0, INT_MIN}, 12, 0, -EBADMSG},
        {"detach, right: no such mount", {BROKER_DETACH, 0, 0}, 12, 0, 0},
        {"detach with a descriptor", {BROKER_DETACH, 0, 0}, 12, 1, -EBADMSG},
        {"detach with a value", {BROKER_DETACH, 0, 1}, 12, 0, -EBADMSG},
        {"no operation", {0, 0, 0}, 12, 0, -EBADMSG},
        {"one too many", {BROKER_DETACH + 1, 0, 0}, 12, 0, -EBADMSG},
        {"the largest", {UINT_MAX, INT_MAX, INT_MAX}, 12, 1, -EBADMSG},
        {"one byte", {BROKER_DETACH, 0, 0}, 1, 0, -EBADMSG},
        {"a byte short", {BROKER_BACKING_OPEN, 0, 0}, 11, 1, -EBADMSG},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int rc = send_raw(b, &row[i].m, row[i].len, fd, row[i].n_fd);
        if (rc != row[i].rc)
            fail_msg("%s: %d, expected %d", row[i].what, rc, row[i].rc);
    }
    char big[4096] = {0};
    memcpy(big, &(struct broker_msg){BROKER_BACKING_OPEN, 0, 0}, sizeof(struct broker_msg));
    assert_int_equal(send_raw(b, big, sizeof(struct broker_msg) + 1, fd, 1), -EBADMSG);
    assert_int_equal(send_raw(b, big, sizeof big, fd, 3), -EBADMSG);
    assert_int_equal(n_fd_of(broker_pid(b)), n_fd); /* none of those descriptors stayed */
    for (int i = 0; i < 64; i++)
        close(fd[i]);
    broker_stop(b);
    free(path);
}

/* Linux before 5.9 has no close_range: all but the broker's own descriptors go all the same. */
static void broker_holds_no_more_on_an_old_kernel(void **state)
{
    (void)state;
    int status;
    fflush(NULL);
    pid_t pid = fork(); /* a filter is for good */
    if (pid == 0) {
        struct sock_filter f[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_close_range, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog p = {sizeof f / sizeof *f, f};
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) < 0)
            _exit(77);
        for (int i = 0; i < 40; i++)
            if (open("/dev/null", O_RDONLY | O_CLOEXEC) < 0)
                _exit(2);
        struct broker *b = start();
        _exit(n_fd_of(broker_pid(b)) == 6 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip_because("no seccomp in this kernel");
    assert_int_equal(status, 0);
}

static void broker_survives_random_messages(void **state)
{
    (void)state;
    struct broker *b = start();
    struct rng r;
    rng_init(&r, test_seed());
    char *path = small_file();
    int fd[3] = {open(path, O_RDONLY), open(path, O_RDWR), open("/dev/null", O_RDONLY)};
    for (int i = 0, n = long_run() ? 100000 : 3000; i < n; i++) {
        unsigned char p[32];
        for (size_t k = 0; k < sizeof p; k++)
            p[k] = (unsigned char)(rng_below(&r, 4) ? 0 : rng_below(&r, 256));
        if (rng_below(&r, 2))
            p[0] = (unsigned char)rng_below(&r, 5);
        int rc = send_raw(b, p, 1 + rng_below(&r, sizeof p), fd, (int)rng_below(&r, 4));
        if (rc != -EBADMSG && rc != -ENOTTY && rc != 0 && rc != -EINVAL)
            fail_msg("message %d: %d", i, rc);
    }
    assert_int_equal(n_fd_of(broker_pid(b)), 6);
    for (int i = 0; i < 3; i++)
        close(fd[i]);
    broker_stop(b);
    free(path);
}

static void *ask_many(void *ctx)
{
    struct broker *b = ctx;
    for (int i = 0; i < 200; i++)
        if (broker_backing_close(b, 1) != -ENOTTY)
            return ctx;
    return NULL;
}

static void broker_answers_many_threads(void **state)
{
    (void)state;
    struct broker *b = start();
    pthread_t t[4];
    void *bad;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, ask_many, b), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    broker_stop(b);
}

static void broker_is_missed_by_name_not_by_signal(void **state)
{
    (void)state;
    struct broker *b = start();
    char *path = small_file();
    int fd = open(path, O_RDONLY);
    int32_t id = 7;
    assert_int_equal(kill(broker_pid(b), SIGKILL), 0);
    assert_int_equal(broker_backing_open(b, fd, &id), -EPIPE);
    assert_int_equal(broker_detach(b), -EPIPE);
    assert_int_equal(broker_backing_open(NULL, fd, &id), -EPERM);
    assert_int_equal(broker_backing_close(NULL, 1), -EPERM);
    assert_int_equal(broker_detach(NULL), -EPERM);
    assert_int_equal(id, 7);
    close(fd);
    broker_stop(b);
    broker_stop(NULL);
    free(path);
}

/* A daemon that is killed takes its broker along, or the mount would outlive it. */
static void broker_dies_with_its_parent(void **state)
{
    (void)state;
    int tell[2];
    pid_t pid = 0;
    char c;
    assert_int_equal(pipe(tell), 0);
    pid_t daemon = fork();
    if (daemon == 0) {
        struct broker *b = NULL;
        close(tell[0]);
        if (broker_start(&b, STDIN_FILENO, "/nowhere", 0, false, NULL) < 0)
            _exit(1);
        pid = broker_pid(b);
        /* The broker has closed its copy of the pipe once it answers: the end below is its end. */
        int rc = broker_backing_close(b, 1);
        if (write(tell[1], &pid, sizeof pid) != sizeof pid || rc == -EPIPE)
            _exit(1);
        pause();
    }
    close(tell[1]);
    assert_int_equal(read(tell[0], &pid, sizeof pid), sizeof pid);
    char path[64];
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    int proc = open(path, O_RDONLY | O_DIRECTORY);
    assert_true(proc >= 0);
    kill(daemon, SIGKILL);
    assert_int_equal(waitpid(daemon, NULL, 0), daemon);
    assert_int_equal(read(tell[0], &c, 1), 0);
    for (int i = 0; i < 1000; i++) { /* gone, or waiting to be reaped by init: nothing is open */
        int fd = openat(proc, "fd/3", O_PATH);
        if (fd < 0)
            break;
        close(fd);
        assert_true(i < 999);
        usleep(10000);
    }
    close(proc);
    close(tell[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(broker_takes_regular_files_open_read_only),
        cmocka_unit_test(broker_refuses_malformed_messages),
        cmocka_unit_test(broker_holds_no_more_on_an_old_kernel),
        cmocka_unit_test(broker_survives_random_messages),
        cmocka_unit_test(broker_answers_many_threads),
        cmocka_unit_test(broker_is_missed_by_name_not_by_signal),
        cmocka_unit_test(broker_dies_with_its_parent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
