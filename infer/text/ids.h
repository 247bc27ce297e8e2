/* A growing list of token ids, and a small memory of pieces already cut in the same text. */
#ifndef APRFS_INFER_TEXT_IDS_H
#define APRFS_INFER_TEXT_IDS_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ids {
    int32_t *p;
    size_t n, cap;
};

int ids_reserve(struct ids *l, size_t more, struct err *e);

static inline int ids_add(struct ids *l, int32_t id, struct err *e)
{
    if (l->n == l->cap) {
        int rc = ids_reserve(l, 1, e);
        if (rc < 0)
            return rc;
    }
    l->p[l->n++] = id;
    return 0;
}

#define IDS_CACHE_KEY 23 /* bytes of a piece; longer ones are cut anew */
#define IDS_CACHE_IDS 10
#define IDS_CACHE     4096 /* entries; each new piece takes the place its hash says */

struct ids_cache {
    struct ids_cached {
        uint8_t len, n; /* len 0: empty */
        char key[IDS_CACHE_KEY];
        int32_t id[IDS_CACHE_IDS];
    } * entry; /* IDS_CACHE of them; NULL: the text is too short to be worth it */
};

int ids_cache_init(struct ids_cache *c, size_t text_len, struct err *e);
void ids_cache_release(struct ids_cache *c);

/* Appends the ids of p[0..len) and returns 1 if they are known; else 0 and *slot, which
 * ids_cache_put takes (NULL where the piece cannot be kept). */
int ids_cache_get(struct ids_cache *c, const char *p, size_t len, struct ids *l,
                  struct ids_cached **slot, struct err *e);
void ids_cache_put(struct ids_cached *slot, const char *p, size_t len, const int32_t *id, size_t n);

#endif
