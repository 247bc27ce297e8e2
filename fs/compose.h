/* Tier 1a's file: head, zeros and side area written into an unnamed file, the extents shared with the
 * source's blocks by FICLONERANGE. Made in milliseconds, takes no space but for the head, and does not
 * change when the source does. It is no copy of the source's page cache, and keeps the source's blocks
 * while it lives. */
#ifndef APRFS_FS_COMPOSE_H
#define APRFS_FS_COMPOSE_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct vfile;

#define COMPOSE_MAX_CONV (UINT64_C(16) << 20) /* converted bytes that are worth writing */

/* What the file system is asked for; a table, so that tests can fail each step. fd or 0, else a
 * negative errno. */
struct compose_sys {
    int (*tmpfile)(const char *dir); /* unnamed, 0400, open for reading and writing */
    int (*clone)(int to, uint64_t to_off, int from, uint64_t from_off, uint64_t len);
    int (*reopen)(int fd); /* the same file read-only */
};
extern const struct compose_sys compose_sys;

/* Whether an open vf can be composed at all; else why not, into why. Asks no file system. */
bool compose_fits(struct vfile *vf, char *why, size_t size);

/* The open vf as a file in dir; *fd read-only, the only descriptor of it. *step: what failed ("unnamed
 * file", "clone", "write", "reopen", "memory"). -ESTALE: the source is another generation by now. */
int compose_file(int *fd, struct vfile *vf, const char *dir, const struct compose_sys *sys,
                 const char **step, struct err *e);

/* Whether one block of vf's first extent can be cloned into dir; *fd as above, the file is of no use but
 * to try registering it. */
int compose_probe(int *fd, struct vfile *vf, const char *dir, const struct compose_sys *sys,
                  const char **step, struct err *e);

#endif
