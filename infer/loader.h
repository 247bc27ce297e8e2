/* Moves tensor bytes from a model's file to where a backend keeps them, in pieces and in file order:
 * several readers pread, one thread (the caller's) drives the backend. Where the host sees the
 * destination the readers fill it; else they fill a ring of staging memory (pinned, on a device),
 * whose slots are uploaded while others fill. No mmap, no copy in between. CRCs are computed in
 * passing. */
#ifndef APRFS_INFER_LOADER_H
#define APRFS_INFER_LOADER_H

#include "format/source.h"
#include "infer/backend.h"

struct loader_item {
    uint64_t off, len; /* in the file */
    void *dst;         /* device, len bytes */
    uint32_t *crc;     /* set to the CRC-32 of those bytes */
};

struct loader_options {
    int n_reader; /* 0: three quarters of the CPUs this process may run on, 1 to 12 */
    /* Called from the caller's thread, a few times a second and at the end. May be NULL. */
    void (*progress)(void *ctx, uint64_t bytes);
    void *ctx;
};

#define LOADER_PIECE ((uint64_t)4 << 20)
#define LOADER_SLOT  24

/* Reads all items (sorts them by offset) and waits until they are where they belong. opt may be
 * NULL. The first failure ends it: of src as it says, of the backend as it says; -ENOMEM. Whether
 * src still is what it was is the caller's to check. */
int loader_read(struct backend *b, const struct source *src, struct loader_item *item,
                size_t n_item, const struct loader_options *opt, struct err *e);

#endif
