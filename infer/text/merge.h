/* Joining neighbours, best pair first, leftmost on a tie, until no pair joins: the core that
 * byte-level BPE (best = lowest rank) and SentencePiece (best = highest score) share. */
#ifndef APRFS_INFER_TEXT_MERGE_H
#define APRFS_INFER_TEXT_MERGE_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct merge_sym {
    uint32_t id;       /* the finder's own name for it */
    uint32_t off, len; /* bytes of the text */
};

/* Whether a and its right neighbour b join; if so *prio (lowest first) and the union's *id. */
typedef bool merge_find(const void *ctx, const struct merge_sym *a, const struct merge_sym *b,
                        uint32_t *prio, uint32_t *id);

/* Scratch; zeroed by the caller, reused from run to run. */
struct merge {
    struct merge_sym *sym; /* the caller fills n of them, merge_run leaves what remains */
    size_t n, cap;
    struct merge_pair *pair;
    size_t cap_pair;
    struct merge_link *link;
    size_t cap_link;
};

int merge_reserve(struct merge *m, size_t n, struct err *e); /* room for n symbols */

/* Time n log n, and n^2 only up to a few dozen symbols. */
int merge_run(struct merge *m, merge_find *find, const void *ctx, struct err *e);
void merge_release(struct merge *m);

#endif
