/* Moves tensor bytes from a model's file to where a backend keeps them: several readers, pread in
 * pieces, straight into place where the host can see it, through a buffer and upload() where not. */
#ifndef APRFS_INFER_LOADER_H
#define APRFS_INFER_LOADER_H

#include "format/source.h"
#include "infer/backend.h"

struct loader_item {
    uint64_t off, len; /* in the file */
    void *dst;         /* device, len bytes */
};

/* Reads all items (in file order; sorts them), then checks that the file still is the one that was
 * opened. n_thread readers, at least 1. */
int loader_read(struct backend *b, const struct source *src, struct loader_item *item,
                size_t n_item, int n_thread, struct err *e);

#endif
