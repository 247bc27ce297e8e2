#include "infer/text/ids.h"

#include "infer/text/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WORTH 1024 /* bytes of text */

int ids_reserve(struct ids *l, size_t more, struct err *e)
{
    if (more <= l->cap - l->n)
        return 0;
    size_t cap = l->n + more + l->cap / 2 + 64;
    int32_t *p = realloc(l->p, cap * sizeof *p);
    if (!p)
        return err_set(e, -ENOMEM, "no memory for %zu token ids", cap);
    l->p = p;
    l->cap = cap;
    return 0;
}

int ids_cache_init(struct ids_cache *c, size_t text_len, struct err *e)
{
    c->entry = text_len < WORTH ? NULL : calloc(IDS_CACHE, sizeof *c->entry);
    return c->entry || text_len < WORTH ? 0 : err_set(e, -ENOMEM, "no memory to tokenize");
}

void ids_cache_release(struct ids_cache *c)
{
    free(c->entry);
    c->entry = NULL;
}

int ids_cache_get(struct ids_cache *c, const char *p, size_t len, struct ids *l,
                  struct ids_cached **slot, struct err *e)
{
    *slot = NULL;
    if (!c->entry || len == 0 || len > IDS_CACHE_KEY)
        return 0;
    struct ids_cached *s = &c->entry[vocab_hash(p, len) % IDS_CACHE];
    if (s->len != len || memcmp(s->key, p, len) != 0) {
        *slot = s;
        return 0;
    }
    int rc = ids_reserve(l, s->n, e);
    if (rc < 0)
        return rc;
    memcpy(l->p + l->n, s->id, s->n * sizeof *s->id);
    l->n += s->n;
    return 1;
}

void ids_cache_put(struct ids_cached *slot, const char *p, size_t len, const int32_t *id, size_t n)
{
    if (!slot || n > IDS_CACHE_IDS)
        return;
    slot->len = (uint8_t)len;
    slot->n = (uint8_t)n;
    memcpy(slot->key, p, len);
    memcpy(slot->id, id, n * sizeof *id);
}
