/* Read-at over a file descriptor, over memory, or over functions: the seam where parsers meet bytes
 * and where tests inject faults. A source is immutable and may be read from several threads. */
#ifndef APRFS_FORMAT_SOURCE_H
#define APRFS_FORMAT_SOURCE_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct source;

/* What a file was when it was opened; equal records mean "the same bytes" as far as the kernel
 * tells. */
struct source_id {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};

struct stat;

/* The record of a file that stat() or fstat() described: the one definition of its generation. */
struct source_id source_id_of(const struct stat *st);

struct source_ops {
    /* Fills dst with all of len bytes from off, or returns a negative errno. off + len <= size. */
    int (*read)(void *ctx, void *dst, uint64_t off, size_t len, struct err *e);
    int (*check)(void *ctx, struct err *e); /* what source_check() asks; NULL: never changes */
    void (*release)(void *ctx);             /* may be NULL */
};

/* Opens a regular file read-only (O_NONBLOCK, so that a pipe cannot hang us; anything but a regular
 * file is -EINVAL). The name in messages is the path. */
int source_open(struct source **out, const char *path, struct err *e);

/* Over a descriptor of a regular file; takes fd, also on failure. name is copied. */
int source_from_fd(struct source **out, int fd, const char *name, struct err *e);

/* Over memory, lent until source_close. */
int source_from_mem(struct source **out, const void *p, size_t len, const char *name,
                    struct err *e);

/* Over functions; takes ctx (released by ops->release at close). ops is lent. */
int source_from_ops(struct source **out, const struct source_ops *ops, void *ctx, uint64_t size,
                    const char *name, struct err *e);

void source_close(struct source *s);

/* before(ctx, len) is called in front of every read of len > 0 bytes, in the reader's thread; it may wait.
 * Set while nobody reads. */
void source_set_before(struct source *s, void (*before)(void *ctx, size_t len), void *ctx);

uint64_t source_size(const struct source *s); /* fixed when it was opened */
const char *source_name(const struct source *s);
int source_fd(const struct source *s); /* lent; -1 where there is none */

/* All of len bytes from off into dst, or an error: -ERANGE past the size known at open, -EIO when
 * the file ended early (it was truncated since) or the device failed. Never a short read. */
int source_read(const struct source *s, void *dst, uint64_t off, size_t len, struct err *e);

/* The file's identity when it was opened (zeros, but for the size, where there is no file). */
struct source_id source_id(const struct source *s);

/* 0 if the file still is what it was when opened; -ESTALE, named, if not. A view over files (vapr)
 * asks them. */
int source_check(const struct source *s, struct err *e);

bool source_id_equal(const struct source_id *a, const struct source_id *b);

#endif
