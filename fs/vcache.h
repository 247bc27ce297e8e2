/* A cache of built bytes, counted and bounded: heads, sibling texts, converted units. An item is
 * built once, by whoever asks first, while others who want the same one wait for it; building holds
 * no lock. Items in use are never dropped; the others go, oldest use first, once the limit is
 * passed. A large item may live in an unlinked file instead of memory. */
#ifndef APRFS_FS_VCACHE_H
#define APRFS_FS_VCACHE_H

#include "format/err.h"

#include <stddef.h>
#include <stdint.h>

struct vcache;
struct vcache_item;

struct vcache_key {
    uint8_t id[32]; /* a generation, or a content */
    uint64_t unit;  /* which piece of it */
};

/* Gives malloc'ed bytes. */
typedef int vcache_build_fn(void *ctx, uint8_t **p, size_t *len, struct err *e);

/* max_mem: bytes kept in memory. Items of spill_from bytes and more go to an unlinked file (0: never;
 * memory where none can be had), of which max_spill bytes are kept. */
int vcache_new(struct vcache **out, size_t max_mem, size_t spill_from, size_t max_spill,
               struct err *e);
/* Takes dir_fd, the folder of those files: nobody else may write there. Before the first item; else, and
 * with -1, all stays in memory. */
void vcache_spill_to(struct vcache *c, int dir_fd);
void vcache_free(struct vcache *c); /* no item may be in use */

/* The item, counted; vcache_put ends that. A failed build is not remembered. */
int vcache_get(struct vcache *c, const struct vcache_key *key, vcache_build_fn *build, void *ctx,
               struct vcache_item **out, struct err *e);
void vcache_put(struct vcache *c, struct vcache_item *it);

/* Nobody gets an item of that id any more (those in use end with their users). */
void vcache_drop(struct vcache *c, const uint8_t id[32]);

size_t vcache_item_len(const struct vcache_item *it);
/* off + len <= vcache_item_len. -EIO if its file fails. */
int vcache_item_read(const struct vcache_item *it, void *dst, size_t off, size_t len,
                     struct err *e);

/* Its bytes, while it is in use; NULL: in a file. */
const uint8_t *vcache_item_mem(const struct vcache_item *it);

size_t vcache_mem(struct vcache *c);
size_t vcache_spilled(struct vcache *c);

#endif
