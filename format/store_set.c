/* Several stores: see store_set.h. */
#include "format/store_set.h"

#include "format/name.h"
#include "format/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void store_set_free(struct store_set *set)
{
    if (!set)
        return;
    for (size_t i = 0; i < set->n; i++) {
        store_free(set->store[i]);
        if (set->raw)
            store_free(set->raw[i]);
        free(set->label[i]);
    }
    free(set->raw);
    free(set->store);
    free(set->label);
    free(set);
}

static struct store_set *set_new(size_t n)
{
    struct store_set *set = calloc(1, sizeof *set);
    if (!set)
        return NULL;
    set->store = calloc(n ? n : 1, sizeof(struct store *));
    set->label = calloc(n ? n : 1, sizeof(char *));
    if (!set->store || !set->label) {
        store_set_free(set);
        return NULL;
    }
    return set;
}

/* What a store is called if no other is called so. */
static void label_wish(char dst[NAME_SIZE], const struct store *s)
{
    const char *last = strrchr(s->root, '/');
    last = last ? last + 1 : s->root;
    if (s->kind != STORE_PLAIN)
        last = store_kind_name(s->kind);
    else if (!*last)
        last = "root"; /* "/" itself */
    name_clean(dst, last, strlen(last), NULL);
}

static bool label_taken(const struct store_set *set, const char *label)
{
    for (size_t i = 0; i < set->n; i++)
        if (!strcasecmp(set->label[i], label))
            return true;
    return false;
}

/* A store, behind those that are there; label: what it was called before, NULL: it gets one. */
static int set_add(struct store_set *set, struct store *takes, const char *label)
{
    char wish[NAME_SIZE], fresh[NAME_SIZE + 24];
    if (!label) {
        label_wish(wish, takes);
        snprintf(fresh, sizeof fresh, "%s", wish);
        for (size_t k = 2; label_taken(set, fresh); k++)
            snprintf(fresh, sizeof fresh, "%s-%zu", wish, k);
        label = fresh;
    }
    set->label[set->n] = strdup(label);
    if (!set->label[set->n]) {
        store_free(takes);
        return -ENOMEM;
    }
    set->store[set->n++] = takes;
    return 0;
}

struct store_set *store_set_of(struct store *takes)
{
    struct store_set *set = set_new(1);
    if (!set)
        store_free(takes);
    else if (set_add(set, takes, NULL) < 0) {
        store_set_free(set);
        set = NULL;
    }
    return set;
}

static int scan_set(struct store_set **out, const struct store_source *src, size_t n,
                    const struct store_options *opt, const struct store_set *prev, bool again,
                    struct err *e)
{
    struct store_set *set = set_new(n);
    if (!set)
        return err_set(e, -ENOMEM, "no memory for %zu stores", n);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        struct store_options o = *opt;
        struct store *s;
        if (src[i].kind != STORE_AUTO)
            o.kind = src[i].kind;
        const struct store *known = prev && i < prev->n ? prev->store[i] : NULL, *was = NULL;
        if (again)
            was = prev->raw ? prev->raw[i] : prev->store[i];
        /* The scan itself takes nothing from a store with another root or other options. */
        rc = store_scan_again(&s, src[i].path, &o, known, was, e);
        if (rc == 0 && (rc = set_add(set, s, again ? prev->label[i] : NULL)) < 0)
            err_set(e, rc, "no memory for %zu stores", n);
    }
    if (rc < 0) {
        store_set_free(set);
        return rc;
    }
    *out = set;
    return 0;
}

int store_set_scan(struct store_set **out, const struct store_source *src, size_t n,
                   const struct store_options *opt, const struct store_set *prev, struct err *e)
{
    return scan_set(out, src, n, opt, prev, false, e);
}

int store_set_rescan(struct store_set **out, const struct store_source *src, size_t n,
                     const struct store_options *opt, const struct store_set *prev, struct err *e)
{
    return scan_set(out, src, n, opt, prev, true, e);
}

const char *store_set_top(const struct store_set *set, size_t i)
{
    return set->n == 1 || set->merged ? "" : set->label[i];
}

bool store_set_equal(const struct store_set *a, const struct store_set *b)
{
    if (a->n != b->n || a->merged != b->merged)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (strcmp(a->label[i], b->label[i]) || !store_equal(a->store[i], b->store[i]))
            return false;
    return true;
}

size_t store_set_n_entry(const struct store_set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++)
        n += set->store[i]->n_entry;
    return n;
}

size_t store_set_n_parsed(const struct store_set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++)
        n += set->store[i]->n_parsed;
    return n;
}
