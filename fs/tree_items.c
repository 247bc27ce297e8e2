/* From what each path shall show to nodes and directories: see tree_internal.h. */
#include "fs/tree_internal.h"

#include "format/bytes.h"
#include "format/name.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const uint8_t no_id[32];

bool node_is(const struct node *n, const char *path, const struct wish *w)
{
    return n->kind == w->kind && strcmp(n->path, path) == 0 &&
           memcmp(n->id, w->id ? w->id : no_id, sizeof n->id) == 0 &&
           (!w->target || strcmp(n->target, w->target) == 0) &&
           (!node_is_file(n) || !vfile_stale(n->vf));
}

uint64_t wish_ino(const struct wish *w, const char *path)
{
    return w->ino ? w->ino : name_inode(path, w->id);
}

void node_renew(struct node *n, const struct wish *w)
{
    n->touched = n->touched || atomic_load(&n->mode) != w->mode || atomic_load(&n->uid) != w->uid ||
                 atomic_load(&n->gid) != w->gid;
    atomic_store(&n->mode, w->mode);
    atomic_store(&n->uid, w->uid);
    atomic_store(&n->gid, w->gid);
    if (w->kind != NODE_DIR) /* its newest child's, once all are known: readers look meanwhile */
        atomic_store(&n->mtime_ns, w->mtime_ns);
}

static struct node *node_new(const char *path, const struct wish *w)
{
    struct node *n = calloc(1, sizeof *n);
    char *p = strdup(path), *t = w->target ? strdup(w->target) : NULL;
    if (!n || !p || (w->target && !t)) {
        free(n);
        free(p);
        free(t);
        return NULL;
    }
    n->kind = w->kind;
    n->ctl = w->ctl;
    n->path = p;
    n->target = t;
    if (w->id)
        memcpy(n->id, w->id, sizeof n->id);
    atomic_init(&n->size, w->size);
    return n;
}

/* The node for a wish: the living one that shows the same, else a new one. Counted once. */
static struct node *node_for(struct builder *b, const char *path, const struct wish *w)
{
    uint64_t ino = wish_ino(w, path);
    struct node *fresh = NULL;
    pthread_mutex_lock(&b->ns->mu);
    struct node *n;
    /* A number in use by another node is a collision (or a stale generation of the same content):
     * the next free one is taken. */
    while ((n = nodes_find_locked(b->ns, ino)) && !node_is(n, path, w))
        ino = ino == INT64_MAX ? 2 : ino + 1;
    if (!n) {
        n = fresh = node_new(path, w);
        if (!n)
            goto out;
        n->ino = ino;
        n->chain = *nodes_bucket(b->ns, ino);
        *nodes_bucket(b->ns, ino) = n;
        b->ns->n++;
    }
    n->refs++;
    node_renew(n, w);
    if (fresh)
        n->touched = false;
    if (w->vf && n->vf != w->vf) {
        vfile_put(n->vf);
        n->vf = vfile_get(w->vf);
    }
out:
    pthread_mutex_unlock(&b->ns->mu);
    if (fresh && node_is_file(n))
        vfile_set_ino(w->vf, ino);
    return n;
}

void tree_add(struct builder *b, const char *dir, const char *name, const struct wish *w)
{
    if (b->rc < 0)
        return;
    if (b->n == b->cap) {
        size_t cap = b->cap ? 2 * b->cap : 64;
        struct item *more = realloc(b->item, cap * sizeof *more);
        if (!more) {
            b->rc = err_set(b->e, -ENOMEM, "no memory for a tree");
            return;
        }
        b->item = more;
        b->cap = cap;
    }
    struct item it = {.dir = strdup(dir), .hidden = w->hidden};
    if (!it.dir || asprintf(&it.path, "%s%s%s", dir, *dir ? "/" : "", name) < 0 ||
        !(it.node = node_for(b, it.path, w))) {
        free(it.dir);
        free(it.path);
        b->rc = err_set(b->e, -ENOMEM, "no memory for a tree");
        return;
    }
    b->item[b->n++] = it;
}

/* --- directories --------------------------------------------------------------------------- */

static int by_ino(const void *a, const void *b)
{
    uint64_t x = ((const struct tree_dir *)a)->node->ino,
             y = ((const struct tree_dir *)b)->node->ino;
    return x < y ? -1 : x > y;
}

static int by_dir_then_path(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int c = strcmp(x->dir, y->dir);
    return c ? c : strcmp(x->path, y->path);
}

static const char *last_part(const char *path)
{
    const char *s = strrchr(path, '/');
    return s ? s + 1 : path;
}

static int by_cookie(const void *a, const void *b)
{
    const struct tree_entry *x = *(struct tree_entry *const *)a,
                            *y = *(struct tree_entry *const *)b;
    return x->cookie < y->cookie ? -1 : x->cookie > y->cookie ? 1 : strcmp(x->name, y->name);
}

/* Gives every entry its place. Names with one hash have places side by side, in byte order. */
static int list_dir(struct tree_dir *d, struct err *e)
{
    d->listed = calloc(d->n ? d->n : 1, sizeof *d->listed);
    if (!d->listed)
        return err_set(e, -ENOMEM, "no memory for a directory");
    for (size_t i = 0; i < d->n; i++) {
        struct tree_entry *en = &d->entry[i];
        en->cookie = TREE_COOKIE_MIN + (fnv1a(FNV1A_START, en->name, strlen(en->name)) >> 2);
        d->listed[i] = en;
    }
    qsort(d->listed, d->n, sizeof *d->listed, by_cookie);
    for (size_t i = 1; i < d->n; i++)
        if (d->listed[i]->cookie <= d->listed[i - 1]->cookie)
            d->listed[i]->cookie = d->listed[i - 1]->cookie + 1;
    return 0;
}

/* The items of one directory, sorted; a directory wished for twice is one, any other double name
 * stays with its first. */
static int make_dir(struct builder *b, struct node *node, size_t lo, size_t hi)
{
    struct tree_dir *d = &b->tree->dir[b->tree->n_dir];
    d->node = node;
    d->entry = calloc(hi - lo ? hi - lo : 1, sizeof *d->entry);
    if (!d->entry)
        return err_set(b->e, -ENOMEM, "no memory for a directory");
    b->tree->n_dir++;
    int64_t newest = 0;
    for (size_t i = lo; i < hi; i++) {
        struct item *it = &b->item[i];
        struct node *n = it->node;
        it->node = NULL;
        if (d->n > 0 && strcmp(d->entry[d->n - 1].node->path, it->path) == 0) {
            nodes_put(b->ns, n);
            continue;
        }
        atomic_store(&n->parent, node->ino);
        d->entry[d->n++] =
            (struct tree_entry){.name = last_part(n->path), .node = n, .hidden = it->hidden};
        int64_t m = atomic_load(&n->mtime_ns);
        newest = m > newest ? m : newest;
    }
    node->touched = node->touched || atomic_load(&node->mtime_ns) != newest;
    atomic_store(&node->mtime_ns, newest);
    return list_dir(d, b->e);
}

static int cmp_item_dir(const void *key, const void *item)
{
    return strcmp(key, ((const struct item *)item)->dir);
}

/* Groups the sorted items into directories; deeper ones first, so that times rise. */
int tree_make_dirs(struct builder *b)
{
    qsort(b->item, b->n, sizeof *b->item, by_dir_then_path);
    size_t n_dir = 1;
    for (size_t i = 0; i < b->n; i++)
        n_dir += b->item[i].node->kind == NODE_DIR;
    struct node **dir = calloc(n_dir, sizeof *dir);
    b->tree->dir = calloc(n_dir, sizeof *b->tree->dir);
    if (!dir || !b->tree->dir) {
        free(dir);
        return err_set(b->e, -ENOMEM, "no memory for %zu directories", n_dir);
    }
    size_t n = 0;
    dir[n++] = b->ns->root;
    for (size_t i = 0; i < b->n; i++)
        if (b->item[i].node->kind == NODE_DIR &&
            (n < 2 || strcmp(dir[n - 1]->path, b->item[i].path) != 0))
            dir[n++] = b->item[i].node;
    /* Parents stand before children in byte order of their paths' depth: the root, then those whose
     * dir is "", then deeper ones only where dir sorts later; so walk from the back by depth. */
    int rc = 0;
    for (int depth = 8; depth >= 0 && rc == 0; depth--)
        for (size_t i = 0; i < n && rc == 0; i++) {
            int at = *dir[i]->path != '\0';
            for (const char *p = dir[i]->path; *p; p++)
                at += *p == '/';
            if (at != depth)
                continue;
            const struct item *hit =
                bsearch(dir[i]->path, b->item, b->n, sizeof *b->item, cmp_item_dir);
            size_t lo = hit ? (size_t)(hit - b->item) : 0, hi = lo;
            while (hit && lo > 0 && strcmp(b->item[lo - 1].dir, dir[i]->path) == 0)
                lo--;
            while (hit && hi < b->n && strcmp(b->item[hi].dir, dir[i]->path) == 0)
                hi++;
            rc = make_dir(b, dir[i], lo, hi);
        }
    free(dir);
    qsort(b->tree->dir, b->tree->n_dir, sizeof *b->tree->dir, by_ino);
    return rc;
}
