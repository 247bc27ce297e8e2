/* A cache of built bytes, counted and bounded: heads, sibling texts, converted units. An item is
 * built once, by whoever asks first, while others who want the same one wait for it; building holds
 * no lock. Items in use are never dropped; the others go, oldest use first, once the limit is
 * passed. A large item may live in an unlinked temporary file instead of memory. */
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

/* max_mem: bytes kept in memory. Items of spill_from bytes and more go to a temporary file (0:
 * never; memory where no temporary file can be had), of which max_spill bytes are kept. */
int vcache_new(struct vcache **out, size_t max_mem, size_t spill_from, size_t max_spill,
               struct err *e);
void vcache_free(struct vcache *c); /* no item may be in use */

/* The item, counted; vcache_put ends that. A failed build is not remembered. */
int vcache_get(struct vcache *c, const struct vcache_key *key, vcache_build_fn *build, void *ctx,
               struct vcache_item **out, struct err *e);
void vcache_put(struct vcache *c, struct vcache_item *it);

/* Nobody gets an item of that id any more (those in use end with their users). */
void vcache_drop(struct vcache *c, const uint8_t id[32]);

size_t vcache_item_len(const struct vcache_item *it);
/* off + len <= vcache_item_len. -EIO if a temporary file fails. */
int vcache_item_read(const struct vcache_item *it, void *dst, size_t off, size_t len,
                     struct err *e);

/* Its bytes, while it is in use; NULL: in a temporary file. */
const uint8_t *vcache_item_mem(const struct vcache_item *it);

size_t vcache_mem(struct vcache *c);
size_t vcache_spilled(struct vcache *c);

/* The folders that a text too large for memory may be put into, as an unnamed file: those of three. */
void vcache_temp_dirs(const char *dir[3]);

#endif
