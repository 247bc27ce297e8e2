/* The broker: see broker.h. What runs in it is between broker_main and the end of its section. */
#include "fs/broker.h"

#include "fs/fuse_kernel.h"
#include "fs/mount.h"
#include "fs/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_FD 8 /* descriptors of one message that are received, in order to be closed */

struct broker {
    pthread_mutex_t mu; /* one request at a time */
    int sock;
    pid_t pid;
};

/* --- in the broker ------------------------------------------------------------------------- */

struct broker_self {
    int sock, session_fd;
    const char *dir;
    dev_t dev;
    bool auto_unmount;
};

static int backing_open(const struct broker_self *s, int fd, int32_t *id)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode) || (flags & O_ACCMODE) != O_RDONLY || flags & O_PATH)
        return -EINVAL;
    struct fuse_backing_map_v1 map = {.fd = fd};
    int rc = ioctl(s->session_fd, FUSE_DEV_IOC_BACKING_OPEN, &map);
    if (rc < 0)
        return -errno;
    *id = rc;
    return 0;
}

static int backing_close(const struct broker_self *s, int32_t id)
{
    uint32_t v = (uint32_t)id;
    return ioctl(s->session_fd, FUSE_DEV_IOC_BACKING_CLOSE, &v) < 0 ? -errno : 0;
}

/* What the message asks for; value: the answer's. */
static int act(const struct broker_self *s, const struct broker_msg *m, const int *fd, int n_fd,
               int32_t *value)
{
    if (m->rc != 0 || n_fd != (m->op == BROKER_BACKING_OPEN))
        return -EBADMSG;
    switch (m->op) {
    case BROKER_BACKING_OPEN:
        return m->value == 0 ? backing_open(s, fd[0], value) : -EBADMSG;
    case BROKER_BACKING_CLOSE:
        return m->value > 0 ? backing_close(s, m->value) : -EBADMSG;
    case BROKER_DETACH:
        return m->value == 0 ? mount_detach(s->dir, s->dev, s->session_fd, NULL) : -EBADMSG;
    }
    return -EBADMSG;
}

/* Takes the descriptors out of a received message, whatever else it is. */
static int take_fds(struct msghdr *h, int fd[MAX_FD])
{
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len > CMSG_LEN(0))
            for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int) && n < MAX_FD; i++)
                memcpy(&fd[n++], CMSG_DATA(c) + i * sizeof(int), sizeof(int));
    return n;
}

/* One request and its answer; false: the daemon is gone. */
static bool serve_one(const struct broker_self *s)
{
    struct broker_msg m = {0};
    union {
        char buf[CMSG_SPACE(MAX_FD * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec v = {.iov_base = &m, .iov_len = sizeof m};
    struct msghdr h = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_control = control.buf,
                       .msg_controllen = sizeof control.buf};
    int fd[MAX_FD], rc = -EBADMSG;
    ssize_t n = recvmsg(s->sock, &h, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return errno == EINTR;
    int n_fd = take_fds(&h, fd);
    struct broker_msg answer = {.op = m.op};
    if (n == (ssize_t)sizeof m && !(h.msg_flags & (MSG_TRUNC | MSG_CTRUNC)))
        rc = act(s, &m, fd, n_fd, &answer.value);
    for (int i = 0; i < n_fd; i++)
        close(fd[i]);
    if (n == 0)
        return false;
    answer.rc = rc;
    return send(s->sock, &answer, sizeof answer, MSG_NOSIGNAL) == (ssize_t)sizeof answer;
}

/* Descriptors: 0 to 2 are /dev/null, 3 the socket, 4 the session; nothing else stays. */
static int keep_two(int *sock, int *session_fd)
{
    int a = fcntl(*sock, F_DUPFD_CLOEXEC, 5), b = fcntl(*session_fd, F_DUPFD_CLOEXEC, 5);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (a < 0 || b < 0 || null < 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    *sock = dup3(a, 3, O_CLOEXEC);
    *session_fd = dup3(b, 4, O_CLOEXEC);
    if (*sock != 3 || *session_fd != 4)
        return -EMFILE;
    closefrom(5); /* libc's, which knows a way where the kernel (before 5.9) has no close_range */
    return 0;
}

static void broker_main(struct broker_self s, pid_t parent)
{
    prctl(PR_SET_NAME, "aprfs-broker");
    setsid(); /* the daemon leaves its group later */
    /* With auto_unmount a daemon's death, however early, is the end of its socket and work to do. */
    if (!s.auto_unmount) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    if (keep_two(&s.sock, &s.session_fd) < 0)
        _exit(1);
    mount_keep_list();
    sandbox_enter_broker();
    while (serve_one(&s))
        ;
    close(s.session_fd); /* the last one: who still waits for an answer gets ENOTCONN */
    if (s.auto_unmount)
        mount_detach(s.dir, s.dev, -1, NULL);
    _exit(0);
}

/* --- in the daemon ------------------------------------------------------------------------- */

int broker_start(struct broker **out, int session_fd, const char *dir, dev_t dev, bool auto_unmount,
                 struct err *e)
{
    int sock[2];
    struct broker *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, -ENOMEM, "no memory for the broker");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sock) < 0) {
        free(b);
        return err_set(e, -errno, "broker: socketpair: %s", strerror(errno));
    }
    pid_t parent = getpid();
    b->pid = fork();
    if (b->pid == 0)
        broker_main((struct broker_self){sock[1], session_fd, dir, dev, auto_unmount}, parent);
    int rc = b->pid < 0 ? -errno : 0;
    close(sock[1]);
    if (rc < 0) {
        close(sock[0]);
        free(b);
        return err_set(e, rc, "broker: fork: %s", strerror(-rc));
    }
    pthread_mutex_init(&b->mu, NULL);
    b->sock = sock[0];
    *out = b;
    return 0;
}

static int ask(struct broker *b, uint32_t op, int32_t value, int fd, int32_t *answer)
{
    struct broker_msg m = {.op = op, .value = value};
    union {
        char buf[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec v = {.iov_base = &m, .iov_len = sizeof m};
    struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1};
    if (!b)
        return -EPERM;
    if (fd >= 0) {
        h.msg_control = control.buf;
        h.msg_controllen = sizeof control.buf;
        struct cmsghdr *c = CMSG_FIRSTHDR(&h);
        *c = (struct cmsghdr){CMSG_LEN(sizeof fd), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    pthread_mutex_lock(&b->mu);
    ssize_t n = sendmsg(b->sock, &h, MSG_NOSIGNAL);
    while (n > 0 && (n = recv(b->sock, &m, sizeof m, 0)) < 0 && errno == EINTR)
        n = 1;
    pthread_mutex_unlock(&b->mu);
    if (n != (ssize_t)sizeof m || m.op != op)
        return -EPIPE;
    if (m.rc == 0 && answer)
        *answer = m.value;
    return m.rc;
}

int broker_backing_open(struct broker *b, int fd, int32_t *id)
{
    return fd < 0 ? -EBADF : ask(b, BROKER_BACKING_OPEN, 0, fd, id);
}

int broker_backing_close(struct broker *b, int32_t id)
{
    return ask(b, BROKER_BACKING_CLOSE, id, -1, NULL);
}

int broker_detach(struct broker *b)
{
    return ask(b, BROKER_DETACH, 0, -1, NULL);
}

void broker_stop(struct broker *b)
{
    if (!b)
        return;
    close(b->sock);
    while (waitpid(b->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    pthread_mutex_destroy(&b->mu);
    free(b);
}

int broker_socket(const struct broker *b)
{
    return b->sock;
}

pid_t broker_pid(const struct broker *b)
{
    return b->pid;
}
