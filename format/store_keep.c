/* What stays of the scan before where the next one met a network or a device that failed: "I cannot
 * read it now" is not "it is gone", and a tree that empties itself whenever a server restarts is no
 * tree to run a service from. Reading what stays is the reader's own risk: it gets its bytes or EIO. */
#include "format/store_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool store_passing(int rc)
{
    static const int all[] = {EIO,          ESTALE,     ETIMEDOUT,   ENOTCONN,   EHOSTDOWN,
                              EHOSTUNREACH, ENETDOWN,   ENETUNREACH, ENETRESET,  ECONNREFUSED,
                              ECONNABORTED, ECONNRESET, ESHUTDOWN,   EREMOTEIO,  ENOLINK,
                              ENODEV,       ENXIO,      ENOMEDIUM,   EKEYEXPIRED};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (rc == -all[i])
            return true;
    return false;
}

bool store_unread(const struct store *s)
{
    bool unread = s->n_kept > 0;
    for (size_t i = 0; !unread && i < s->n_problem; i++)
        unread = store_passing(s->problem[i].rc);
    for (size_t i = 0; !unread && i < s->n_entry; i++)
        unread = store_passing(s->entry[i].rc);
    return unread;
}

/* ---- copies ---- */

static int copy_aliases(struct store_entry *to, const struct store_entry *from)
{
    to->alias = calloc(from->n_alias + 1, sizeof *to->alias);
    if (!to->alias)
        return -ENOMEM;
    for (; to->n_alias < from->n_alias; to->n_alias++)
        if (!(to->alias[to->n_alias] = strdup(from->alias[to->n_alias])))
            return -ENOMEM;
    if (to->n_alias ==
        0) { /* joined to another, which took them; the one that is certain comes back */
        to->alias[0] = strdup(from->order);
        to->n_alias = to->alias[0] != NULL;
    }
    return to->n_alias ? 0 : -ENOMEM;
}

static int copy_parts(struct store_entry *to, const struct store_entry *from)
{
    to->part = calloc((size_t)from->n_part + 1, sizeof *to->part);
    if (!to->part)
        return -ENOMEM;
    for (; to->n_part < from->n_part; to->n_part++) {
        struct store_part *p = &to->part[to->n_part];
        *p = from->part[to->n_part];
        if (!(p->path = strdup(p->path)))
            return -ENOMEM;
    }
    return 0;
}

static int copy_learnt(struct store_entry *to, const struct store_entry *from)
{
    const struct store_learnt *l = from->learnt;
    to->learnt = calloc(1, sizeof *to->learnt);
    if (!to->learnt)
        return -ENOMEM;
    to->learnt->ino = l->ino;
    to->learnt->doubt = l->doubt;
    return l->n_crc ? store_learnt_set_crc(to->learnt, l->crc, l->n_crc) : 0;
}

/* *to is all that from says, of its own memory; to be released where it failed too. */
static int entry_copy(struct store_entry *to, const struct store_entry *from)
{
    struct store_entry lent = *from;
    char **a[STORE_N_TEXT], **b[STORE_N_TEXT];
    *to = lent;
    to->alias = NULL;
    to->part = NULL;
    to->learnt = NULL;
    to->n_alias = 0;
    to->n_part = 0;
    store_entry_texts(to, a);
    store_entry_texts(&lent, b);
    for (int i = 0; i < STORE_N_TEXT; i++)
        *a[i] = NULL;
    for (int i = 0; i < STORE_N_TEXT; i++)
        if (*b[i] && !(*a[i] = strdup(*b[i])))
            return -ENOMEM;
    return copy_aliases(to, from) < 0 || copy_parts(to, from) < 0 || copy_learnt(to, from) < 0
               ? -ENOMEM
               : 0;
}

static int copy_entries(struct store_entry **to, size_t *n, const struct store_entry *from,
                        size_t n_from)
{
    *to = calloc(n_from + 1, sizeof **to);
    int rc = *to ? 0 : -ENOMEM;
    for (size_t i = 0; rc == 0 && i < n_from; i++) {
        rc = entry_copy(&(*to)[i], &from[i]);
        *n = i + 1;
    }
    return rc;
}

static int copy_rest(struct store *to, const struct store *from)
{
    to->problem = calloc(from->n_problem + 1, sizeof *to->problem);
    to->dir = calloc(from->n_dir + 1, sizeof *to->dir);
    if (!to->problem || !to->dir)
        return -ENOMEM;
    for (size_t i = 0; i < from->n_problem; i++) {
        const struct store_problem *p = &from->problem[i];
        to->problem[to->n_problem++] =
            (struct store_problem){p->rc, strdup(p->path), strdup(p->dir), strdup(p->why)};
        p = &to->problem[i];
        if (!p->path || !p->dir || !p->why)
            return -ENOMEM;
    }
    for (size_t i = 0; i < from->n_dir; i++)
        if (!(to->dir[to->n_dir++] = strdup(from->dir[i])))
            return -ENOMEM;
    return 0;
}

struct store *store_copy(const struct store *s)
{
    struct store *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->kind = s->kind;
    c->opt = s->opt;
    c->root_rc = s->root_rc;
    c->n_kept = s->n_kept;
    c->n_parsed = s->n_parsed;
    c->root = strdup(s->root);
    if (c->root && copy_entries(&c->entry, &c->n_entry, s->entry, s->n_entry) == 0 &&
        copy_entries(&c->merged, &c->n_merged, s->merged, s->n_merged) == 0 && copy_rest(c, s) == 0)
        return c;
    store_free(c);
    return NULL;
}

/* ---- keeping ---- */

/* Ways below the root that could not be read for a reason that passes; sorted. */
struct broken {
    const char **path;
    size_t n;
};

static int cmp_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool has(const struct broken *br, const char *path)
{
    return br->n && bsearch(&path, br->path, br->n, sizeof *br->path, cmp_text);
}

/* Is way one of them, or below one? */
static bool is_broken(const struct broken *br, const char *way)
{
    char above[4096];
    if (has(br, "") || has(br, way))
        return true;
    size_t len = strlen(way);
    if (len >= sizeof above)
        return false;
    memcpy(above, way, len + 1);
    for (char *slash; (slash = strrchr(above, '/'));) {
        *slash = '\0';
        if (has(br, above))
            return true;
    }
    return false;
}

static bool lies_broken(const struct broken *br, const struct store *prev,
                        const struct store_entry *en)
{
    size_t root = strcmp(prev->root, "/") ? strlen(prev->root) : 0;
    bool yes = is_broken(br, en->order);
    for (int i = 0; i < en->n_part && !yes; i++)
        yes = is_broken(br, en->part[i].path + root + 1);
    return yes;
}

static int cmp_order(const void *pa, const void *pb)
{
    const struct store_entry *a = *(struct store_entry *const *)pa;
    const struct store_entry *b = *(struct store_entry *const *)pb;
    return strcmp(a->order, b->order);
}

/* Says that was stays for what now says. Not as was's own warning: that is a fact of the file, which
 * every later scan would take over with the rest. */
static int tell_kept(struct store_build *b, const struct store_entry *was,
                     const struct store_entry *now)
{
    char *why, dir[2 * NAME_SIZE + 1];
    snprintf(dir, sizeof dir, "%s/%s", was->publisher, was->model);
    if (asprintf(&why, "cannot be read now, shown as it was: %s", now->why) < 0)
        return -ENOMEM;
    int rc = store_problem_add(b, now->rc, was->order, dir, why);
    free(why);
    return rc;
}

/* was, an entry of the scan before, comes in the place of now (NULL: behind the others) if that is
 * what could not be read. */
static int keep_entry(struct store *s, struct store_build *b, const struct broken *br,
                      const struct store *prev, const struct store_entry *was,
                      struct store_entry *now)
{
    if (was->rc < 0 || (now && now->rc == 0))
        return 0;
    if (!(now && store_passing(now->rc)) && !lies_broken(br, prev, was))
        return 0;
    struct store_entry copy;
    int rc = entry_copy(&copy, was);
    if (rc == 0 && now) /* a folder's own line says it for those that have no entry now */
        rc = tell_kept(b, was, now);
    if (rc < 0) {
        store_entry_release(&copy);
        return rc;
    }
    if (now)
        store_entry_release(now);
    else
        now = &s->entry[s->n_entry++];
    *now = copy;
    s->n_kept++;
    return 0;
}

static int keep_dirs(struct store_build *b, const struct broken *br, const struct store *prev)
{
    int rc = 0;
    for (size_t i = 0; i < prev->n_dir && rc == 0; i++)
        if (is_broken(br, prev->dir[i]))
            rc = store_dir_add(b, prev->dir[i]);
    return rc;
}

static int keep_all(struct store *s, struct store_build *b, const struct broken *br,
                    const struct store *prev, struct store_entry **by, size_t n_by)
{
    int rc = keep_dirs(b, br, prev);
    for (size_t i = 0; i < prev->n_entry + prev->n_merged && rc == 0; i++) {
        const struct store_entry *was =
            i < prev->n_entry ? &prev->entry[i] : &prev->merged[i - prev->n_entry];
        struct store_entry **hit = n_by ? bsearch(&was, by, n_by, sizeof *by, cmp_order) : NULL;
        rc = keep_entry(s, b, br, prev, was, hit ? *hit : NULL);
    }
    return rc;
}

int store_keep(struct store *s, struct store_build *b, const struct store *prev)
{
    /* A link leads elsewhere now: what was there is not here, and its paths are no ways below this root. */
    if (strcmp(s->root, prev->root))
        return 0;
    struct broken br = {.path = calloc(b->n_problem + 1, sizeof *br.path)};
    struct store_entry **by = calloc(s->n_entry + 1, sizeof *by);
    int rc = br.path && by ? 0 : -ENOMEM;
    bool any = false;
    size_t n_by = s->n_entry;
    for (size_t i = 0; rc == 0 && i < b->n_problem; i++)
        if (store_passing(b->problem[i].rc))
            br.path[br.n++] = b->problem[i].path;
    for (size_t i = 0; rc == 0 && i < n_by; i++) {
        by[i] = &s->entry[i];
        any = any || store_passing(by[i]->rc);
    }
    if (rc == 0 && (br.n || any)) {
        if (br.n)
            qsort(br.path, br.n, sizeof *br.path, cmp_text);
        if (n_by)
            qsort(by, n_by, sizeof *by, cmp_order);
        rc = keep_all(s, b, &br, prev, by, n_by);
    }
    free(br.path);
    free(by);
    return rc;
}
