/* Which way the bytes of an open file go.
 *
 *   1a      the kernel reads a composed file itself (compose.h); no READ reaches us
 *   direct  every read comes to us, nothing is kept by the kernel; for programs that copy
 *   cached  the kernel keeps what was read; for all others, for mmap above all
 *
 * Chosen at the first open of an inode and kept until the last close: the kernel does not mix 1a with the
 * others on one inode. Whatever fails on the way to 1a is counted, said once per file system, and the
 * file is served by tier 2. An inode has one backing id, which outlives the last close by keep_s.
 *
 * A file system is tried once (by st_dev; again, if we were out of descriptors or memory). After
 * three failures in a row the tier is off, until tiers_rearm (SIGHUP) forgets all that. */
#ifndef APRFS_FS_TIER_H
#define APRFS_FS_TIER_H

#include "format/err.h"
#include "fs/compose.h"
#include "fs/options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct broker;
struct tiers;
struct vfile;

enum tier_mode { TIER_CACHED, TIER_DIRECT, TIER_1A, N_TIER_MODE };

struct tiers_options {
    enum option_cache cache;
    const char *direct_comms; /* names of programs, a:b:c; as /proc/<pid>/comm has them */
    bool compose;
    const char *dir; /* for composed files; TIERS_DIR_STORE: beside the source */
    unsigned keep_s;
    const char *why_not; /* no 1a on this mount, from the start; NULL: maybe */
    const struct compose_sys *sys;
    /* Registers a file with the kernel; NULL: the broker's. 0 or a negative errno. */
    int (*backing_open)(void *ctx, int fd, int32_t *id);
    int (*backing_close)(void *ctx, int32_t id);
    void *ctx;
};
#define TIERS_DIR_STORE "store"

/* opt's strings are lent. */
int tiers_new(struct tiers **out, const struct tiers_options *opt, struct err *e);
void tiers_set_broker(struct tiers *t, struct broker *b); /* before the first open */
void tiers_stop(struct tiers *t); /* no id is closed any more; before the broker goes */
void tiers_free(struct tiers *t);

/* What one open got; zeroed, it is none. */
struct tier_open {
    enum tier_mode mode;
    int32_t backing_id; /* 1a */
    uint64_t ino;       /* 0: none */
};

/* For an open vf. granted: compat_granted(). -ESTALE: its source changed meanwhile; no other error. */
int tiers_open(struct tiers *t, struct vfile *vf, unsigned granted, pid_t pid,
               struct tier_open *out, struct err *e);
void tiers_close(struct tiers *t, struct tier_open *o);

void tiers_rearm(struct tiers *t);

/* "1a", or "2" and why it is not 1a: of the file as it is open, else as it would be now. vfile_open's
 * errors. */
int tiers_text(struct tiers *t, struct vfile *vf, unsigned granted, char *dst, size_t size,
               struct err *e);
bool tiers_is_1a(struct tiers *t, uint64_t ino); /* open that way now */

/* Lines for status.txt: what is asked for, and each file system met. */
#define TIERS_DESCRIBE_MAX 16384 /* holds them all */
void tiers_describe(struct tiers *t, char *dst, size_t size);

struct tiers_stats {
    uint64_t open[N_TIER_MODE];   /* now */
    uint64_t opened[N_TIER_MODE]; /* so far */
    uint64_t composed;            /* files registered so far */
    uint64_t kept;                /* registered ids now */
    uint64_t
        fallback[134]; /* first opens that 1a could not serve, by errno; [0]: by their layout */
};
void tiers_get_stats(struct tiers *t, struct tiers_stats *st);

#endif
