/* Merging: the stores of a set show themselves in one tree, so their names are settled together. */
#include "format/store_internal.h"
#include "format/store_set.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* One entry of one of the stores. */
struct mine {
    size_t store;
    struct store_entry *en;
    char *order; /* unique in the set: the sources' order first, then the store's */
    bool gone;   /* it was another one's double */
};

static int same_name(const struct store_entry *a, const struct store_entry *b)
{
    int r = strcasecmp(a->publisher, b->publisher);
    r = r ? r : strcasecmp(a->model, b->model);
    return r ? r : strcasecmp(a->wish, b->wish);
}

static int cmp_mine(const void *pa, const void *pb)
{
    const struct mine *a = pa, *b = pb;
    int r = same_name(a->en, b->en);
    return r ? r : strcmp(a->order, b->order);
}

/* The same bytes: the same files, or such as both stores know the hash of. */
static bool same_content(const struct store_entry *a, const struct store_entry *b)
{
    if (a->n_part != b->n_part || strcmp(a->params, b->params))
        return false; /* what a tag sets besides is shown too */
    for (int i = 0; i < a->n_part; i++) {
        const struct store_part *p = &a->part[i], *q = &b->part[i];
        bool file = p->id.dev == q->id.dev && p->id.ino == q->id.ino;
        if (!file && (!*p->sha256 || strcmp(p->sha256, q->sha256)))
            return false;
    }
    return true;
}

/* Of entries with one name and the same content the first stays, with the aliases of all. */
static int join_doubles(struct store_set *set, struct mine *m, size_t n)
{
    for (size_t i = 0, group = 0; i < n; i++) {
        if (same_name(m[group].en, m[i].en))
            group = i;
        for (size_t k = group; k < i && !m[i].gone; k++) {
            if (m[k].gone || m[k].store == m[i].store || !same_content(m[k].en, m[i].en))
                continue;
            if (store_entry_join(set->store[m[i].store], m[k].en, m[i].en) < 0)
                return -ENOMEM;
            m[i].gone = true;
        }
    }
    return 0;
}

static int settle(struct mine *m, size_t n, struct err *e)
{
    struct name_claim *claim = calloc(n + 1, sizeof *claim);
    if (!claim)
        return err_set(e, -ENOMEM, "no memory to name %zu entries", n);
    size_t n_claim = 0;
    for (size_t i = 0; i < n; i++) {
        const struct store_entry *en = m[i].en;
        if (m[i].gone)
            continue;
        struct name_claim *c = &claim[n_claim++];
        snprintf(c->publisher, sizeof c->publisher, "%s", en->publisher);
        snprintf(c->model, sizeof c->model, "%s", en->model);
        snprintf(c->stem, sizeof c->stem, "%s", en->wish);
        c->order = m[i].order;
        c->id = en->head_sha256;
        c->sibling = en->role == STORE_MODEL ? en->sibling_sha256 : NULL;
    }
    int rc = name_settle(claim, n_claim, e);
    for (size_t i = 0, k = 0; rc == 0 && i < n; i++)
        if (!m[i].gone)
            rc = store_entry_rename(m[i].en, &claim[k++]);
    free(claim);
    return rc < 0 ? err_set(e, rc, "names of several stores: %s", strerror(-rc)) : 0;
}

static int cmp_order(const void *pa, const void *pb)
{
    return strcmp((*(struct store_entry *const *)pa)->order,
                  (*(struct store_entry *const *)pb)->order);
}

/* A problem's path is the order of the entry that it is about; its directory goes where that went. */
static int follow_problems(struct store *s)
{
    struct store_entry **by = calloc(s->n_entry + 1, sizeof(struct store_entry *));
    int rc = by ? 0 : -ENOMEM;
    for (size_t i = 0; by && i < s->n_entry; i++)
        by[i] = &s->entry[i];
    if (by && s->n_entry)
        qsort(by, s->n_entry, sizeof *by, cmp_order);
    for (size_t i = 0; rc == 0 && s->n_entry && i < s->n_problem; i++) {
        struct store_problem *p = &s->problem[i];
        struct store_entry key = {.order = p->path}, *kp = &key;
        struct store_entry **hit = bsearch(&kp, by, s->n_entry, sizeof *by, cmp_order);
        char *dir;
        if (!hit || !*p->dir)
            continue;
        if (asprintf(&dir, "%s/%s", (*hit)->publisher, (*hit)->model) < 0) {
            rc = -ENOMEM;
            break;
        }
        free(p->dir);
        p->dir = dir;
    }
    free(by);
    return rc;
}

/* Where doubles were, there is nothing now. */
static void close_gaps(struct store *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->n_entry; i++)
        if (s->entry[i].order)
            s->entry[n++] = s->entry[i];
    s->n_entry = n;
}

/* The stores as they are, for the next scan: what is one entry now may be two then. */
static int keep_raw(struct store_set *set)
{
    set->raw = calloc(set->n + 1, sizeof(struct store *));
    for (size_t i = 0; set->raw && i < set->n; i++)
        if (!(set->raw[i] = store_copy(set->store[i])))
            return -ENOMEM;
    return set->raw ? 0 : -ENOMEM;
}

int store_set_merge(struct store_set *set, struct err *e)
{
    if (keep_raw(set) < 0)
        return err_set(e, -ENOMEM, "no memory to merge the stores");
    struct mine *m = calloc(store_set_n_entry(set) + 1, sizeof *m);
    int rc = m ? 0 : -ENOMEM;
    size_t n = 0;
    for (size_t i = 0; m && i < set->n; i++)
        for (size_t k = 0; rc == 0 && k < set->store[i]->n_entry; k++) {
            struct store_entry *en = &set->store[i]->entry[k];
            if (!store_entry_shown(en))
                continue;
            m[n].store = i;
            m[n].en = en;
            if (asprintf(&m[n].order, "%06zu/%s", i, en->order) < 0) {
                m[n].order = NULL;
                rc = -ENOMEM;
            }
            n++;
        }
    if (rc == 0 && n)
        qsort(m, n, sizeof *m, cmp_mine);
    if (rc == 0)
        rc = join_doubles(set, m, n);
    rc = rc < 0 ? err_set(e, rc, "no memory to merge the stores") : settle(m, n, e);
    for (size_t i = 0; i < n; i++)
        free(m[i].order);
    free(m);
    for (size_t i = 0; rc == 0 && i < set->n; i++) {
        close_gaps(set->store[i]);
        store_sort_entries(set->store[i]);
        if (follow_problems(set->store[i]) < 0)
            rc = err_set(e, -ENOMEM, "no memory to merge the stores");
    }
    set->merged = rc == 0;
    return rc;
}
