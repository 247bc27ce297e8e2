/* What gguf.c (files, shards, look-up) and gguf_parse.c (one head) share. */
#ifndef APRFS_FORMAT_GGUF_INTERNAL_H
#define APRFS_FORMAT_GGUF_INTERNAL_H

#include "format/gguf.h"

/* One file's head, parsed. keys and tensors point into head. */
struct gguf_file {
    uint8_t *head; /* owned, head_len bytes */
    size_t head_len;
    uint32_t version, align;
    uint64_t data_start, data_end; /* absolute */
    struct gguf_key *key;          /* owned */
    size_t n_key;
    struct gguf_tensor *tensor; /* owned; off absolute, part 0 */
    size_t n_tensor;
};

/* Reads and checks a whole head, but for what needs other files (split.*) and unique tensors.
 * Messages begin with the source's name. *f is overwritten; on failure it is released. */
int gguf_file_parse(struct gguf_file *f, const struct source *src, struct err *e);
void gguf_file_release(struct gguf_file *f);

/* Bytes of a scalar; 0 for strings, arrays and unknown types. */
size_t gguf_scalar_size(uint32_t type);

/* An index over n names, each at the start of an element of stride bytes, sorted by (length, bytes).
 * Names are compared O(n log n) times whatever they are. NULL: no memory. */
const struct gguf_str **gguf_index_new(const void *base, size_t n, size_t stride);
const struct gguf_str *gguf_index_find(const struct gguf_str *const *index, size_t n,
                                       const char *name);
/* The second of a pair of equal names, or NULL. */
const struct gguf_str *gguf_index_twice(const struct gguf_str *const *index, size_t n);

/* For messages: a name cut to 80 bytes, as printf's %.*s wants it. */
#define GGUF_NAME(s) (int)((s).len < 80 ? (s).len : 80), (s).p

#endif
