/* Collisions: name_settle of name.h. Works in rounds on sorted orders, so that the result depends
 * on the claims and never on the order in which they were found. */
#include "format/name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a claim wanted before anything was appended. */
struct wish {
    struct name_claim *c;
    char model[NAME_SIZE], stem[NAME_SIZE];
};

static int cmp_publisher(const void *pa, const void *pb)
{
    const struct wish *a = *(struct wish *const *)pa, *b = *(struct wish *const *)pb;
    int r = strcasecmp(a->c->publisher, b->c->publisher);
    return r ? r : strcmp(a->c->publisher, b->c->publisher);
}

static int cmp_model(const void *pa, const void *pb)
{
    const struct wish *a = *(struct wish *const *)pa, *b = *(struct wish *const *)pb;
    int r = strcmp(a->c->publisher, b->c->publisher);
    r = r ? r : strcasecmp(a->c->model, b->c->model);
    return r ? r : strcmp(a->c->model, b->c->model);
}

/* Inside a directory, by what the stems were at first: a suffix must not change who stays. */
static int cmp_sibling(const void *pa, const void *pb)
{
    const struct wish *a = *(struct wish *const *)pa, *b = *(struct wish *const *)pb;
    int r = strcmp(a->c->publisher, b->c->publisher);
    r = r ? r : strcmp(a->c->model, b->c->model);
    r = r ? r : (a->c->moved > b->c->moved) - (a->c->moved < b->c->moved);
    r = r ? r : strcmp(a->stem, b->stem);
    return r ? r : strcmp(a->c->order, b->c->order);
}

static int cmp_stem(const void *pa, const void *pb)
{
    const struct wish *a = *(struct wish *const *)pa, *b = *(struct wish *const *)pb;
    int r = strcmp(a->c->publisher, b->c->publisher);
    r = r ? r : strcmp(a->c->model, b->c->model);
    r = r ? r : strcasecmp(a->c->stem, b->c->stem);
    r = r ? r : (a->c->n_suffix > b->c->n_suffix) - (a->c->n_suffix < b->c->n_suffix);
    return r ? r : strcmp(a->c->order, b->c->order);
}

static bool same_dir(const struct wish *a, const struct wish *b)
{
    return !strcmp(a->c->publisher, b->c->publisher) && !strcmp(a->c->model, b->c->model);
}

/* Directories that differ only in case become one. */
static void fold_dirs(struct wish **w, size_t n)
{
    qsort(w, n, sizeof *w, cmp_publisher);
    for (size_t i = 1; i < n; i++)
        if (!strcasecmp(w[i]->c->publisher, w[i - 1]->c->publisher))
            strcpy(w[i]->c->publisher, w[i - 1]->c->publisher);
    qsort(w, n, sizeof *w, cmp_model);
    for (size_t i = 1; i < n; i++)
        if (!strcmp(w[i]->c->publisher, w[i - 1]->c->publisher) &&
            !strcasecmp(w[i]->c->model, w[i - 1]->c->model))
            strcpy(w[i]->c->model, w[i - 1]->c->model);
}

/* Whoever would share tokenizer.json or config.json with another text moves away. */
static bool part_siblings(struct wish **w, size_t n)
{
    bool any = false;
    qsort(w, n, sizeof *w, cmp_sibling);
    for (size_t i = 0; i < n;) {
        size_t end = i;
        const uint8_t *stays = NULL;
        while (end < n && same_dir(w[i], w[end])) {
            if (!stays)
                stays = w[end]->c->sibling;
            end++;
        }
        /* Only now rename: same_dir() above looks at the first of the group. */
        for (; i < end; i++) {
            struct name_claim *c = w[i]->c;
            if (!c->sibling || !memcmp(c->sibling, stays, NAME_ID_SIZE))
                continue;
            strcpy(c->model, w[i]->model);
            name_add_digest(c->model, c->sibling, ++c->moved);
            any = true;
        }
    }
    return any;
}

static bool part_stems(struct wish **w, size_t n)
{
    bool any = false;
    qsort(w, n, sizeof *w, cmp_stem);
    const char *kept = NULL; /* the stem that the ones after it are compared with */
    for (size_t i = 0; i < n; i++) {
        struct name_claim *c = w[i]->c;
        if (i > 0 && same_dir(w[i], w[i - 1]) && kept && !strcasecmp(c->stem, kept)) {
            strcpy(c->stem, w[i]->stem);
            name_add_digest(c->stem, c->id, ++c->n_suffix);
            any = true;
        } else {
            kept = c->stem;
        }
    }
    return any;
}

int name_settle(struct name_claim *c, size_t n, struct err *e)
{
    if (n == 0)
        return 0;
    struct wish *wish = calloc(n, sizeof *wish);
    struct wish **w = calloc(n, sizeof *w);
    int rc = 0;
    if (!wish || !w) {
        rc = err_set(e, -ENOMEM, "no memory to settle %zu names", n);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        c[i].n_suffix = c[i].moved = 0;
        wish[i].c = &c[i];
        strcpy(wish[i].stem, c[i].stem);
        w[i] = &wish[i];
    }
    fold_dirs(w, n);
    for (size_t i = 0; i < n; i++)
        strcpy(wish[i].model, c[i].model);
    /* Each round appends a higher number to whatever still collides, so both loops end. */
    while (part_siblings(w, n))
        fold_dirs(w, n);
    while (part_stems(w, n))
        ;
out:
    free(wish);
    free(w);
    return rc;
}
