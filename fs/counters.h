/* What a mount has done, counted: requests by kind, errors answered by errno, bytes read by the way
 * they took. Each is an atomic of its own; the sums that .aprfs/ shows are not one moment's. */
#ifndef APRFS_FS_COUNTERS_H
#define APRFS_FS_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#define COUNTERS_OPS(X)                                                                            \
    X(lookup)                                                                                      \
    X(forget)                                                                                      \
    X(getattr)                                                                                     \
    X(readlink)                                                                                    \
    X(statfs)                                                                                      \
    X(open)                                                                                        \
    X(read)                                                                                        \
    X(release)                                                                                     \
    X(opendir)                                                                                     \
    X(readdir)                                                                                     \
    X(readdirplus)                                                                                 \
    X(releasedir)                                                                                  \
    X(getxattr)                                                                                    \
    X(listxattr)                                                                                   \
    X(modify) /* every call that would change something: EROFS */

enum counters_op {
#define X(name) COUNT_##name,
    COUNTERS_OPS(X)
#undef X
        N_COUNT_OP,
};

#define COUNTERS_MAX_ERRNO 134 /* above Linux' largest */

enum counters_read {
    COUNT_READ_CACHED,
    COUNT_READ_DIRECT,
    COUNT_READ_TEXT, /* siblings, .aprfs */
    N_COUNT_READ,
};

struct counters {
    atomic_uint_least64_t op[N_COUNT_OP];
    atomic_uint_least64_t read_bytes[N_COUNT_READ];
    atomic_uint_least64_t error[COUNTERS_MAX_ERRNO]; /* by errno; [0] takes unknown ones */
};

static inline void counters_op(struct counters *c, enum counters_op op)
{
    atomic_fetch_add_explicit(&c->op[op], 1, memory_order_relaxed);
}

static inline void counters_read(struct counters *c, enum counters_read mode, uint64_t n)
{
    atomic_fetch_add_explicit(&c->read_bytes[mode], n, memory_order_relaxed);
}

/* An answer with that errno (positive). */
static inline void counters_error(struct counters *c, int error)
{
    unsigned i = error > 0 && error < COUNTERS_MAX_ERRNO ? (unsigned)error : 0;
    atomic_fetch_add_explicit(&c->error[i], 1, memory_order_relaxed);
}

#endif
