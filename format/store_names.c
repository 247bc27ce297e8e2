/* What the entries of one store are called: one name for one file, and no name twice. */
#include "format/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

bool store_entry_shown(const struct store_entry *en)
{
    return en->rc == 0 && (en->role == STORE_MODEL || en->role == STORE_PROJECTOR);
}

/* The same file under two names in one directory (links): one entry. The same header is not enough:
 * two fine-tunes may differ in weights alone. */
static bool same_files(const struct store_entry *a, const struct store_entry *b)
{
    if (a->n_part != b->n_part || !store_entry_shown(a) || !store_entry_shown(b) ||
        strcmp(a->params, b->params))
        return false; /* what a tag sets besides is shown too */
    for (int i = 0; i < a->n_part; i++)
        if (a->part[i].id.dev != b->part[i].id.dev || a->part[i].id.ino != b->part[i].id.ino)
            return false;
    return true;
}

static int cmp_wish(const void *pa, const void *pb)
{
    const struct store_entry *a = pa, *b = pb;
    int r = strcasecmp(a->publisher, b->publisher);
    r = r ? r : strcasecmp(a->model, b->model);
    r = r ? r : strcasecmp(a->wish, b->wish);
    return r ? r : strcmp(a->order, b->order);
}

static bool has_alias(const struct store_entry *en, const char *alias)
{
    for (size_t i = 0; i < en->n_alias; i++)
        if (!strcmp(en->alias[i], alias))
            return true;
    return false;
}

int store_entry_join(struct store *s, struct store_entry *to, struct store_entry *en)
{
    char **p = realloc(to->alias, (to->n_alias + en->n_alias + 1) * sizeof *p);
    if (!p)
        return -ENOMEM;
    to->alias = p;
    for (size_t i = 0; i < en->n_alias; i++)
        if (has_alias(to, en->alias[i]))
            free(en->alias[i]);
        else
            p[to->n_alias++] = en->alias[i];
    en->n_alias = 0;
    s->merged[s->n_merged++] = *en;
    memset(en, 0, sizeof *en);
    return 0;
}

int store_merge_same(struct store *s)
{
    s->merged = calloc(s->n_entry + 1, sizeof *s->merged);
    if (!s->merged)
        return -ENOMEM;
    if (s->n_entry)
        qsort(s->entry, s->n_entry, sizeof *s->entry, cmp_wish);
    size_t n = 0, group = 0; /* kept so far; the first kept one of this name */
    for (size_t i = 0; i < s->n_entry; i++) {
        struct store_entry *en = &s->entry[i];
        if (n == 0 || strcasecmp(s->entry[group].publisher, en->publisher) ||
            strcasecmp(s->entry[group].model, en->model) ||
            strcasecmp(s->entry[group].wish, en->wish))
            group = n;
        size_t k = group;
        while (k < n && !same_files(&s->entry[k], en))
            k++;
        if (k < n) {
            int rc = store_entry_join(s, &s->entry[k], en);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n != i) {
            s->entry[n] = *en;
            memset(en, 0, sizeof *en);
        }
        n++;
    }
    s->n_entry = n;
    return 0;
}

int store_settle_names(struct store *s, struct err *e)
{
    struct name_claim *claim = calloc(s->n_entry + 1, sizeof *claim);
    if (!claim)
        return err_set(e, -ENOMEM, "no memory to name %zu entries", s->n_entry);
    size_t n = 0;
    for (size_t i = 0; i < s->n_entry; i++) {
        struct store_entry *en = &s->entry[i];
        if (!store_entry_shown(en))
            continue;
        struct name_claim *c = &claim[n++];
        snprintf(c->publisher, sizeof c->publisher, "%s", en->publisher);
        snprintf(c->model, sizeof c->model, "%s", en->model);
        snprintf(c->stem, sizeof c->stem, "%s", en->wish);
        c->order = en->order;
        c->id = en->head_sha256;
        c->sibling = en->role == STORE_MODEL ? en->sibling_sha256 : NULL;
    }
    int rc = name_settle(claim, n, e);
    for (size_t i = 0, k = 0; rc == 0 && i < s->n_entry; i++) {
        struct store_entry *en = &s->entry[i];
        if (!store_entry_shown(en))
            continue;
        rc = store_entry_rename(en, &claim[k]);
        k++;
    }
    free(claim);
    return rc < 0 ? err_set(e, rc, "names: %s", strerror(-rc)) : 0;
}
