/* The small process that keeps what the mount needs of privilege after the daemon has dropped it.
 *
 * Registering a backing file of passthrough (FUSE_DEV_IOC_BACKING_OPEN) and unmounting ask for
 * CAP_SYS_ADMIN at every call, for an ordinary user the setuid fusermount3. The broker is forked
 * once the mount is there and before there are threads; it holds the session's descriptor and one
 * end of a socketpair, and closes everything else. It takes three fixed messages, reads no file but
 * /proc/self/mountinfo, accepts only regular files that are open read-only, and dies with its
 * parent: by PR_SET_PDEATHSIG and by the end of the socketpair.
 *
 * With auto_unmount the end of the socketpair alone ends it, and before that it takes the mount away.
 * (libfuse's way, a fusermount3 that waits, opens the dead mount as root first, is refused where it is an
 * ordinary user's, and leaves it: strace of 3.14.)
 *
 * One request is one SEQPACKET datagram of sizeof struct broker_msg; BACKING_OPEN carries one
 * descriptor by SCM_RIGHTS, the others none. Each gets one answer, malformed ones too. */
#ifndef APRFS_FS_BROKER_H
#define APRFS_FS_BROKER_H

#include "format/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;

enum broker_op {
    BROKER_BACKING_OPEN = 1, /* value: 0; answer: the id */
    BROKER_BACKING_CLOSE,    /* value: the id */
    BROKER_DETACH,           /* value: 0; the mount goes out of the tree, lazily */
};

struct broker_msg {
    uint32_t op; /* enum broker_op; in an answer the request's */
    int32_t rc;  /* 0; in an answer 0 or a negative errno */
    int32_t value;
};

/* Forks it. session_fd: the mount's /dev/fuse; dir, dev: where the mount is and its device, which is
 * looked at again before anything is detached; auto_unmount: it goes when the caller dies. Call it single-threaded and before capabilities go.
 * Forking and its like: a negative errno with a message. */
int broker_start(struct broker **out, int session_fd, const char *dir, dev_t dev, bool auto_unmount,
                 struct err *e);

/* Each from any thread; 0, a negative errno, -EPERM without a broker (NULL), -EPIPE once it has died.
 * open: fd, a regular file open read-only, stays the caller's; *id on success. Else -EINVAL, or what
 * the kernel says: -EPERM without CAP_SYS_ADMIN, -EOPNOTSUPP, -ELOOP on a stacked file system. */
int broker_backing_open(struct broker *b, int fd, int32_t *id);
int broker_backing_close(struct broker *b, int32_t id);
/* Takes the mount away from the tree if it still is the one of dev; open files go on. */
int broker_detach(struct broker *b);

/* Lets it end, and waits for that. NULL is fine. */
void broker_stop(struct broker *b);

/* For tests: the requests' end of the socketpair, and the process. */
int broker_socket(const struct broker *b);
pid_t broker_pid(const struct broker *b);

#endif
