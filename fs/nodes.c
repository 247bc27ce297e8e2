/* The table of nodes and the life of trees: see tree.h. */
#include "fs/tree_internal.h"

#include "format/name.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* --- the table ---------------------------------------------------------------------------- */

struct node **nodes_bucket(struct nodes *ns, uint64_t ino)
{
    return &ns->bucket[ino % N_BUCKET];
}

struct node *nodes_find_locked(struct nodes *ns, uint64_t ino)
{
    struct node *n = *nodes_bucket(ns, ino);
    while (n && n->ino != ino)
        n = n->chain;
    return n;
}

static void node_free(struct node *n)
{
    if (!n)
        return;
    vfile_put(n->vf);
    free(n->target);
    free(n->path);
    free(n);
}

static void put_locked(struct nodes *ns, struct node *n)
{
    if (--n->refs > 0)
        return;
    struct node **p = nodes_bucket(ns, n->ino);
    while (*p != n)
        p = &(*p)->chain;
    *p = n->chain;
    ns->n--;
    node_free(n);
}

void nodes_put(struct nodes *ns, struct node *n)
{
    if (!n)
        return;
    pthread_mutex_lock(&ns->mu);
    put_locked(ns, n);
    pthread_mutex_unlock(&ns->mu);
}

struct node *nodes_find(struct nodes *ns, uint64_t ino)
{
    pthread_mutex_lock(&ns->mu);
    struct node *n = nodes_find_locked(ns, ino);
    if (n)
        n->refs++;
    pthread_mutex_unlock(&ns->mu);
    return n;
}

struct vfile *nodes_vfile(struct nodes *ns, struct node *n)
{
    pthread_mutex_lock(&ns->mu);
    struct vfile *vf = n->vf ? vfile_get(n->vf) : NULL;
    pthread_mutex_unlock(&ns->mu);
    return vf;
}

static void add_lookup_locked(struct node *n)
{
    if (n->n_lookup++ == 0)
        n->refs++;
}

void nodes_add_lookup(struct nodes *ns, struct node *n)
{
    pthread_mutex_lock(&ns->mu);
    add_lookup_locked(n);
    pthread_mutex_unlock(&ns->mu);
}

void nodes_forget(struct nodes *ns, uint64_t ino, uint64_t n)
{
    pthread_mutex_lock(&ns->mu);
    struct node *nd = nodes_find_locked(ns, ino);
    if (nd && nd->n_lookup > 0) {
        nd->n_lookup -= n < nd->n_lookup ? n : nd->n_lookup;
        if (nd->n_lookup == 0)
            put_locked(ns, nd);
    }
    pthread_mutex_unlock(&ns->mu);
}

size_t nodes_count(struct nodes *ns)
{
    pthread_mutex_lock(&ns->mu);
    size_t n = ns->n;
    pthread_mutex_unlock(&ns->mu);
    return n;
}

int nodes_new(struct nodes **out, struct err *e)
{
    struct nodes *ns = calloc(1, sizeof *ns);
    struct node *root = calloc(1, sizeof *root);
    char *path = strdup("");
    if (!ns || !root || !path) {
        free(ns);
        free(root);
        free(path);
        return err_set(e, -ENOMEM, "no memory for the node table");
    }
    pthread_mutex_init(&ns->mu, NULL);
    root->ino = NODE_ROOT;
    atomic_init(&root->parent, NODE_ROOT);
    root->kind = NODE_DIR;
    root->path = path;
    root->refs = 1;
    *nodes_bucket(ns, NODE_ROOT) = root;
    ns->root = root;
    ns->n = 1;
    *out = ns;
    return 0;
}

enum list_open nodes_list_open(struct nodes *ns, struct node *dir, uint64_t now_ms,
                               uint64_t keep_ms)
{
    pthread_mutex_lock(&ns->mu);
    enum list_open how = now_ms < dir->listed_until_ms ? LIST_KEEP : LIST_BEGIN;
    if (dir->n_list_open == 0)
        dir->list_doubtful = false;
    if (how == LIST_BEGIN && dir->list_doubtful)
        how = LIST_NONE;
    if (how == LIST_BEGIN)
        dir->listed_until_ms = now_ms + keep_ms;
    if (how != LIST_NONE)
        dir->n_list_open++;
    pthread_mutex_unlock(&ns->mu);
    return how;
}

void nodes_list_close(struct nodes *ns, struct node *dir)
{
    pthread_mutex_lock(&ns->mu);
    dir->n_list_open--;
    pthread_mutex_unlock(&ns->mu);
}

void nodes_list_changed(struct nodes *ns, uint64_t dir)
{
    pthread_mutex_lock(&ns->mu);
    struct node *n = nodes_find_locked(ns, dir);
    if (n) {
        n->listed_until_ms = 0;
        n->list_doubtful = n->n_list_open > 0;
    }
    pthread_mutex_unlock(&ns->mu);
}

/* --- trees -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tree_entry *)a)->name, ((const struct tree_entry *)b)->name);
}

const struct tree_dir *tree_find_dir(const struct tree *t, uint64_t ino)
{
    size_t lo = 0, hi = t->n_dir;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (t->dir[mid].node->ino == ino)
            return &t->dir[mid];
        if (t->dir[mid].node->ino < ino)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const struct tree_entry *tree_find_entry(const struct tree_dir *d, const char *name)
{
    struct tree_entry key = {.name = name};
    return d->n ? bsearch(&key, d->entry, d->n, sizeof key, by_name) : NULL;
}

size_t tree_listed_after(const struct tree_dir *d, uint64_t cookie)
{
    size_t lo = 0, hi = d->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (d->listed[mid]->cookie <= cookie)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

/* Under the lock, or for a tree nobody else knows; the nodes' references go back. */
static void tree_free_locked(struct nodes *ns, struct tree *t)
{
    for (size_t i = 0; i < t->n_dir; i++) {
        for (size_t k = 0; k < t->dir[i].n; k++)
            put_locked(ns, t->dir[i].entry[k].node);
        free(t->dir[i].entry);
        free(t->dir[i].listed);
    }
    free(t->dir);
    for (size_t i = 0; i < t->n_problem; i++) {
        free(t->problem[i].why);
        free(t->problem[i].dir);
        free(t->problem[i].line);
    }
    free(t->problem);
    scan_put(t->scan);
    free(t);
}

void tree_put(struct nodes *ns, struct tree *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&ns->mu);
    if (--t->refs == 0)
        tree_free_locked(ns, t);
    pthread_mutex_unlock(&ns->mu);
}

struct tree *nodes_tree(struct nodes *ns)
{
    pthread_mutex_lock(&ns->mu);
    struct tree *t = ns->tree;
    if (t)
        t->refs++;
    pthread_mutex_unlock(&ns->mu);
    return t;
}

/* The numbers of all touched nodes, which are so no longer; *n of them, malloc'ed. NULL: none, or no
 * memory: then they stay touched, and are told the next time. Locked. */
static uint64_t *take_touched(struct nodes *ns, size_t *n)
{
    uint64_t *ino = NULL;
    *n = 0;
    for (size_t i = 0; i < N_BUCKET; i++)
        for (struct node *nd = ns->bucket[i]; nd; nd = nd->chain)
            *n += nd->touched;
    if (*n == 0 || !(ino = malloc(*n * sizeof *ino)))
        return NULL;
    *n = 0;
    for (size_t i = 0; i < N_BUCKET; i++)
        for (struct node *nd = ns->bucket[i]; nd; nd = nd->chain) {
            if (nd->touched)
                ino[(*n)++] = nd->ino;
            nd->touched = false;
        }
    return ino;
}

void nodes_touched(struct nodes *ns, void (*changed)(void *ctx, uint64_t dir, const char *name),
                   void *ctx)
{
    size_t n;
    pthread_mutex_lock(&ns->mu);
    uint64_t *ino = take_touched(ns, &n);
    pthread_mutex_unlock(&ns->mu);
    for (size_t i = 0; ino && i < n; i++)
        changed(ctx, ino[i], NULL);
    free(ino);
}

static bool any_touched(const struct nodes *ns)
{
    for (size_t i = 0; i < N_BUCKET; i++)
        for (struct node *nd = ns->bucket[i]; nd; nd = nd->chain)
            if (nd->touched)
                return true;
    return false;
}

static void no_change(void *ctx, uint64_t dir, const char *name)
{
    (void)ctx;
    (void)dir;
    (void)name;
}

struct tree *nodes_swap(struct nodes *ns, struct tree *t)
{
    pthread_mutex_lock(&ns->mu);
    struct tree *old = ns->tree;
    bool differs = !old || tree_diff(old, t, no_change, NULL) > 0 || any_touched(ns);
    t->generation = (old ? old->generation : 0) + differs;
    size_t n;
    if (!old)
        free(take_touched(ns, &n)); /* nobody knows them yet */
    ns->tree = t;
    pthread_mutex_unlock(&ns->mu);
    return old;
}

void nodes_free(struct nodes *ns)
{
    if (!ns)
        return;
    tree_put(ns, ns->tree);
    for (size_t i = 0; i < N_BUCKET; i++)
        while (ns->bucket[i]) {
            struct node *n = ns->bucket[i];
            ns->bucket[i] = n->chain;
            node_free(n);
        }
    pthread_mutex_destroy(&ns->mu);
    free(ns);
}

bool tree_learn(struct nodes *ns, struct tree *t)
{
    bool news = false;
    for (size_t i = 0; i < t->n_dir; i++)
        for (size_t k = 0; k < t->dir[i].n; k++) {
            struct node *n = t->dir[i].entry[k].node;
            if (n->kind != NODE_APR)
                continue;
            struct vfile *vf = nodes_vfile(ns, n);
            news =
                vfile_teach(vf, t->scan, n->ino == name_inode(n->path, n->id) ? 0 : n->ino) || news;
            vfile_put(vf);
        }
    return news;
}

int nodes_lookup(struct nodes *ns, uint64_t parent, const char *name, struct node **out)
{
    int rc = -ENOENT;
    pthread_mutex_lock(&ns->mu);
    const struct tree_dir *d = ns->tree ? tree_find_dir(ns->tree, parent) : NULL;
    const struct tree_entry *en = d ? tree_find_entry(d, name) : NULL;
    if (en) {
        add_lookup_locked(en->node);
        en->node->refs++; /* the caller's own, besides the kernel's */
        *out = en->node;
        rc = 0;
    }
    pthread_mutex_unlock(&ns->mu);
    return rc;
}

void nodes_check_open(struct nodes *ns)
{
    size_t n = 0, cap = 0;
    struct vfile **vf = NULL;
    pthread_mutex_lock(&ns->mu);
    for (size_t i = 0; i < N_BUCKET; i++)
        for (struct node *nd = ns->bucket[i]; nd; nd = nd->chain) {
            if (!node_is_file(nd) || vfile_stale(nd->vf))
                continue;
            if (n == cap) {
                struct vfile **more = realloc(vf, (cap = cap ? 2 * cap : 64) * sizeof *vf);
                if (!more)
                    goto enough; /* the read path looks by itself, too */
                vf = more;
            }
            vf[n++] = vfile_get(nd->vf);
        }
enough:
    pthread_mutex_unlock(&ns->mu);
    for (size_t i = 0; i < n; i++) {
        vfile_check(vf[i]);
        vfile_put(vf[i]);
    }
    free(vf);
}

void node_stat(const struct node *n, struct stat *st)
{
    *st = (struct stat){
        .st_ino = n->ino,
        .st_mode = atomic_load(&n->mode),
        .st_nlink = 1,
        .st_uid = atomic_load(&n->uid),
        .st_gid = atomic_load(&n->gid),
        .st_blksize = 1 << 20, /* cp(1) reads in such pieces */
    };
    int64_t t = atomic_load(&n->mtime_ns);
    st->st_mtim.tv_sec = t / 1000000000;
    st->st_mtim.tv_nsec = t % 1000000000;
    st->st_atim = st->st_ctim = st->st_mtim;
    uint64_t size = atomic_load(&n->size);
    st->st_size = size == NODE_SIZE_UNKNOWN ? 0 : (off_t)size;
    st->st_blocks = (blkcnt_t)((size == NODE_SIZE_UNKNOWN ? 0 : size) / 512 + (size % 512 != 0));
}

/* The names that differ between x and y, as tree_diff() tells them. */
static size_t dir_diff(const struct tree_dir *x, const struct tree_dir *y,
                       void (*changed)(void *ctx, uint64_t dir, const char *name), void *ctx)
{
    size_t n = 0;
    for (size_t p = 0, q = 0; p < x->n || q < y->n;) {
        int c = p == x->n ? 1 : q == y->n ? -1 : strcmp(x->entry[p].name, y->entry[q].name);
        if (c != 0 || x->entry[p].node != y->entry[q].node) {
            changed(ctx, y->node->ino, c <= 0 ? x->entry[p].name : y->entry[q].name);
            n++;
        }
        p += c <= 0;
        q += c >= 0;
    }
    if (n > 0)
        changed(ctx, y->node->ino, NULL);
    return n;
}

size_t tree_diff(const struct tree *a, const struct tree *b,
                 void (*changed)(void *ctx, uint64_t dir, const char *name), void *ctx)
{
    size_t n = 0;
    static const struct tree_dir none;
    for (size_t i = 0; i < b->n_dir; i++) {
        const struct tree_dir *x = a ? tree_find_dir(a, b->dir[i].node->ino) : NULL;
        n += dir_diff(x ? x : &none, &b->dir[i], changed, ctx);
    }
    for (size_t i = 0; a && i < a->n_dir; i++) {
        const struct tree_dir gone = {.node = a->dir[i].node};
        if (!tree_find_dir(b, gone.node->ino))
            n += dir_diff(&a->dir[i], &gone, changed, ctx);
    }
    return n;
}
