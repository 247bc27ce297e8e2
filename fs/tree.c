/* The tree and its nodes: see tree.h. */
#include "fs/tree.h"

#include "format/name.h"
#include "fs/log.h"
#include "fs/pinned.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N_BUCKET 8192
#define MAX_PATH 1200 /* ".aprfs/extents/", four names of up to 255 bytes, and separators */

struct nodes {
    pthread_mutex_t mu;
    struct tree *tree;
    struct node *root;
    struct node *bucket[N_BUCKET];
    size_t n;
};

/* --- the table ---------------------------------------------------------------------------- */

static struct node **bucket_of(struct nodes *ns, uint64_t ino)
{
    return &ns->bucket[ino % N_BUCKET];
}

static struct node *find_locked(struct nodes *ns, uint64_t ino)
{
    struct node *n = *bucket_of(ns, ino);
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
    struct node **p = bucket_of(ns, n->ino);
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
    struct node *n = find_locked(ns, ino);
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
    struct node *nd = find_locked(ns, ino);
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
    root->ino = root->parent = NODE_ROOT;
    root->kind = NODE_DIR;
    root->path = path;
    root->refs = 1;
    *bucket_of(ns, NODE_ROOT) = root;
    ns->root = root;
    ns->n = 1;
    *out = ns;
    return 0;
}

/* --- trees -------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct tree_entry *)a)->name, ((const struct tree_entry *)b)->name);
}

static int by_ino(const void *a, const void *b)
{
    uint64_t x = ((const struct tree_dir *)a)->node->ino,
             y = ((const struct tree_dir *)b)->node->ino;
    return x < y ? -1 : x > y;
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

/* Under the lock, or for a tree nobody else knows; the nodes' references go back. */
static void tree_free_locked(struct nodes *ns, struct tree *t)
{
    for (size_t i = 0; i < t->n_dir; i++) {
        for (size_t k = 0; k < t->dir[i].n; k++)
            put_locked(ns, t->dir[i].entry[k].node);
        free(t->dir[i].entry);
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
    t->generation = old ? old->generation + (tree_diff(old, t, no_change, NULL) > 0) : 1;
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
            if (nd->kind != NODE_APR || vfile_stale(nd->vf))
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

size_t tree_diff(const struct tree *a, const struct tree *b,
                 void (*changed)(void *ctx, uint64_t dir, const char *name), void *ctx)
{
    size_t n = 0;
    static const struct tree_dir none;
    for (size_t i = 0; i < b->n_dir; i++) {
        const struct tree_dir *y = &b->dir[i];
        const struct tree_dir *x = a ? tree_find_dir(a, y->node->ino) : NULL;
        if (!x)
            x = &none;
        size_t before = n;
        for (size_t p = 0, q = 0; p < x->n || q < y->n;) {
            int c = p == x->n ? 1 : q == y->n ? -1 : strcmp(x->entry[p].name, y->entry[q].name);
            bool differs = c != 0 || x->entry[p].node != y->entry[q].node;
            if (differs) {
                changed(ctx, y->node->ino, c <= 0 ? x->entry[p].name : y->entry[q].name);
                n++;
            }
            p += c <= 0;
            q += c >= 0;
        }
        if (n > before)
            changed(ctx, y->node->ino, NULL);
    }
    return n;
}

/* --- building ----------------------------------------------------------------------------- */

/* What one path shall show, before it is a node. */
struct item {
    char *dir, *path; /* "a/b", "a/b/c" */
    struct node *node;
    bool hidden;
};

struct builder {
    struct nodes *ns;
    struct vfile_env *env;
    struct scan *scan;
    const struct tree_options *opt;
    size_t which; /* the store whose entries are being added, and what of the set belongs to it */
    const struct store *store;
    const char *top;
    struct tree *tree;
    struct item *item;
    size_t n, cap;
    struct err *e;
    int rc;
};

/* One wish: where, what, with which identity and attributes. */
struct wish {
    enum node_kind kind;
    enum node_ctl ctl;
    const uint8_t *id;
    struct vfile *vf; /* shared by the nodes of one model */
    const char *target;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    int64_t mtime_ns;
    uint64_t size;
    bool hidden;
};

static const uint8_t no_id[32];

static bool same_node(const struct node *n, const char *path, const struct wish *w)
{
    return n->kind == w->kind && strcmp(n->path, path) == 0 &&
           memcmp(n->id, w->id ? w->id : no_id, sizeof n->id) == 0 &&
           (!w->target || strcmp(n->target, w->target) == 0) &&
           (n->kind != NODE_APR || !vfile_stale(n->vf));
}

static void node_renew(struct node *n, const struct wish *w)
{
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
    uint64_t ino = name_inode(path, w->id);
    struct node *fresh = NULL;
    pthread_mutex_lock(&b->ns->mu);
    struct node *n;
    /* A number in use by another node is a collision (or a stale generation of the same content):
     * the next free one is taken. */
    while ((n = find_locked(b->ns, ino)) && !same_node(n, path, w))
        ino = ino == INT64_MAX ? 2 : ino + 1;
    if (!n) {
        n = fresh = node_new(path, w);
        if (!n)
            goto out;
        n->ino = ino;
        n->chain = *bucket_of(b->ns, ino);
        *bucket_of(b->ns, ino) = n;
        b->ns->n++;
    }
    n->refs++;
    node_renew(n, w);
    if (w->vf && n->vf != w->vf) {
        vfile_put(n->vf);
        n->vf = vfile_get(w->vf);
    }
out:
    pthread_mutex_unlock(&b->ns->mu);
    if (fresh && w->kind == NODE_APR)
        vfile_set_ino(w->vf, ino);
    return n;
}

static void add(struct builder *b, const char *dir, const char *name, const struct wish *w)
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

static struct wish wish_dir(const struct builder *b, bool hidden)
{
    return (struct wish){.kind = NODE_DIR,
                         .mode = S_IFDIR | (0777 & ~(b->opt->umask | 0222)),
                         .uid = b->opt->uid,
                         .gid = b->opt->gid,
                         .hidden = hidden};
}

/* Where the files of an entry are, below the mount. */
static void dir_of(const struct builder *b, const struct store_entry *en, char dir[MAX_PATH])
{
    snprintf(dir, MAX_PATH, "%s%s%s/%s", b->top, *b->top ? "/" : "", en->publisher, en->model);
}

/* Every directory on the way to below/path; below itself is there. */
static void add_dirs(struct builder *b, const char *below, const char *path)
{
    struct wish w = wish_dir(b, false);
    char dir[MAX_PATH], name[NAME_SIZE + 32];
    snprintf(dir, sizeof dir, "%s", below);
    for (size_t n; *path; path += n + (path[n] == '/')) {
        n = strcspn(path, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        add(b, dir, name, &w);
        size_t at = strlen(dir);
        snprintf(dir + at, sizeof dir - at, "%s%s", at ? "/" : "", name);
    }
}

static void add_problem(struct builder *b, const struct store_entry *en, int rc, const char *why)
{
    struct tree *t = b->tree;
    struct tree_problem *more = realloc(t->problem, (t->n_problem + 1) * sizeof *more);
    if (more)
        t->problem = more;
    struct tree_problem p = {
        .store = b->which, .entry = (size_t)(en - b->store->entry), .rc = rc, .why = strdup(why)};
    const char *root = b->store->root, *below = en->part[0].path;
    size_t n = strlen(root);
    if (strncmp(below, root, n) == 0 && below[n] == '/')
        below += n + 1;
    char *path = name_escape(below), dir[MAX_PATH];
    bool several = b->scan->set->n > 1;
    dir_of(b, en, dir);
    p.dir = strdup(dir);
    bool ok =
        more && path && p.why && p.dir &&
        asprintf(&p.line, "%s\t%s%s%s\t%s\n", err_name(rc),
                 several ? b->scan->set->label[b->which] : "", several ? "/" : "", path, why) >= 0;
    free(path);
    if (!ok) {
        free(p.line);
        free(p.dir);
        free(p.why);
        b->rc = err_set(b->e, -ENOMEM, "no memory for a problem's line");
        return;
    }
    t->problem[t->n_problem++] = p;
}

/* 0, or why a model that the scan found good is not to be shown now. */
static int ask_writers(struct builder *b, const struct store_entry *en)
{
    for (int i = 0; i < en->n_part; i++) {
        struct source *s;
        struct err e;
        int rc = store_part_open(&s, b->store, &en->part[i], &e);
        if (rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE) { /* ours, not the file's */
            b->rc = err_set(b->e, rc, "%s", e.msg);
            return rc;
        }
        if (rc < 0) {
            add_problem(b, en, rc, e.msg);
            return rc;
        }
        bool writer = pinned_has_writer(source_fd(s));
        source_close(s);
        if (writer) {
            add_problem(b, en, -EAGAIN,
                        "still being written: another process has it open for writing");
            return -EAGAIN;
        }
    }
    return 0;
}

/* May others go all the way to a file? Below the store's root they may, since somebody chose to mount
 * it; a link may lead elsewhere, and anybody who can write into the store can plant one. */
static bool others_reach(const char *root, const char *path)
{
    char *real = realpath(path, NULL);
    size_t n = strlen(root);
    bool yes = real && (strcmp(root, "/") == 0 || (strncmp(real, root, n) == 0 && real[n] == '/'));
    struct stat st;
    while (real && !yes) {
        char *slash = strrchr(real, '/');
        yes = slash == real; /* come to the top */
        *slash = '\0';
        if (!yes && (stat(real, &st) < 0 || !(st.st_mode & S_IXOTH)))
            break;
    }
    free(real);
    return yes;
}

/* A part that others may not read narrows w to its own owner and mode; what two parts' owners do not
 * agree on, and a path that leads to another file by now, to nobody's. */
static void narrow_to_part(const struct builder *b, const struct store_part *p, struct wish *w,
                           bool *narrowed)
{
    struct stat st;
    if (stat(p->path, &st) < 0 || st.st_dev != p->id.dev || st.st_ino != p->id.ino) {
        w->mode = 0;
        return;
    }
    mode_t mode = others_reach(b->store->root, p->path) ? st.st_mode : st.st_mode & 0700;
    if (mode & S_IROTH)
        return;
    w->mode &= mode;
    if (*narrowed && w->uid != st.st_uid)
        w->mode &= ~(mode_t)S_IRUSR;
    if (*narrowed && w->gid != st.st_gid)
        w->mode &= ~(mode_t)S_IRGRP;
    w->uid = st.st_uid;
    w->gid = st.st_gid;
    *narrowed = true;
}

/* Owner and mode: the mount's, or the source's own where the mount must not widen access. */
static void set_owner(const struct builder *b, const struct store_entry *en, struct wish *w)
{
    bool narrowed = false;
    w->uid = b->opt->uid;
    w->gid = b->opt->gid;
    w->mode = 0666 & ~(b->opt->umask | 0222);
    for (int i = 0; b->opt->narrow && i < en->n_part; i++)
        narrow_to_part(b, &en->part[i], w, &narrowed);
}

static void add_links(struct builder *b, const struct store_entry *en, const char *dir,
                      struct wish w)
{
    w.kind = NODE_LINK;
    w.mode = S_IFLNK | 0777;
    w.vf = NULL;
    for (int i = 0; i < en->n_part && b->opt->links; i++) {
        char name[300];
        if (en->n_part == 1)
            snprintf(name, sizeof name, "%s.gguf", en->stem);
        else
            snprintf(name, sizeof name, "%s-%05d-of-%05d.gguf", en->stem, i + 1, en->n_part);
        uint8_t id[32];
        w.target = en->part[i].path;
        if (EVP_Digest(w.target, strlen(w.target), id, NULL, EVP_sha256(), NULL) != 1)
            abort();
        w.id = id;
        w.size = strlen(w.target);
        add(b, dir, name, &w);
    }
}

static void add_siblings(struct builder *b, const struct store_entry *en, const char *dir,
                         struct wish w, bool first)
{
    char name[300];
    w.mode |= S_IFREG;
    w.size = NODE_SIZE_UNKNOWN;
    w.id = en->sibling_sha256;
    w.kind = NODE_TOKENIZER;
    if (en->tokenizer_rc == 0) {
        snprintf(name, sizeof name, "%s.tokenizer.json", en->stem);
        add(b, dir, name, &w);
    }
    if (en->tokenizer_rc == 0 && first)
        add(b, dir, "tokenizer.json", &w);
    w.kind = NODE_CONFIG;
    if (first)
        add(b, dir, "config.json", &w);
}

static void add_extents(struct builder *b, const struct store_entry *en, struct wish w)
{
    static const char top[] = TREE_CTL_DIR "/extents";
    char below[MAX_PATH], dir[MAX_PATH + sizeof top], name[300];
    dir_of(b, en, below);
    add_dirs(b, top, below);
    snprintf(dir, sizeof dir, "%s/%s", top, below);
    snprintf(name, sizeof name, "%s.tsv", en->stem);
    uint8_t place[32];
    vfile_place(place, w.id, en);
    w.id = place;
    w.kind = NODE_EXTENTS;
    w.mode |= S_IFREG;
    w.size = NODE_SIZE_UNKNOWN;
    add(b, dir, name, &w);
}

/* The living file of that generation, counted, or NULL. */
static struct vfile *living_vfile(struct builder *b, const char *path, const uint8_t gen[32])
{
    struct wish w = {.kind = NODE_APR, .id = gen};
    struct vfile *vf = NULL;
    uint64_t ino = name_inode(path, gen);
    struct node *n;
    pthread_mutex_lock(&b->ns->mu);
    while ((n = find_locked(b->ns, ino)) && !same_node(n, path, &w))
        ino = ino == INT64_MAX ? 2 : ino + 1;
    if (n)
        vf = vfile_get(n->vf);
    pthread_mutex_unlock(&b->ns->mu);
    return vf;
}

static void add_model(struct builder *b, size_t i, bool first)
{
    const struct store_entry *en = &b->store->entry[i];
    char dir[MAX_PATH], name[300], path[MAX_PATH + 300];
    uint8_t gen[32];
    dir_of(b, en, dir);
    snprintf(name, sizeof name, "%s.apr", en->stem);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    vfile_generation(gen, b->store, en);
    struct vfile *vf = living_vfile(b, path, gen);
    if (vf)
        vfile_rebind(vf, b->scan, b->which, i);
    else if (ask_writers(b, en) < 0)
        return;
    else if ((b->rc = vfile_new(&vf, b->env, b->scan, b->which, i, b->e)) < 0)
        return;
    struct wish w = {.kind = NODE_APR,
                     .id = gen,
                     .vf = vf,
                     .size = en->size,
                     .mtime_ns = store_entry_mtime_ns(en)};
    set_owner(b, en, &w);
    add_dirs(b, "", dir);
    struct wish file = w;
    file.mode |= S_IFREG;
    add(b, dir, name, &file);
    add_links(b, en, dir, w);
    add_siblings(b, en, dir, w, first);
    add_extents(b, en, w);
    b->tree->n_model++;
    vfile_put(vf);
}

static void add_projector(struct builder *b, const struct store_entry *en)
{
    char dir[MAX_PATH];
    struct wish w = {.mtime_ns = store_entry_mtime_ns(en)};
    dir_of(b, en, dir);
    set_owner(b, en, &w);
    if (!b->opt->links)
        return;
    add_dirs(b, "", dir);
    add_links(b, en, dir, w);
}

static void add_ctl(struct builder *b)
{
    static const char *const name[N_CTL] = {[CTL_VERSION] = "version",
                                            [CTL_INDEX] = "index.json",
                                            [CTL_PROBLEMS] = "problems.txt",
                                            [CTL_STATS] = "stats.txt",
                                            [CTL_STATUS] = "status.txt"};
    struct wish w = wish_dir(b, true);
    add(b, "", TREE_CTL_DIR, &w);
    w.hidden = false;
    add(b, TREE_CTL_DIR, "extents", &w);
    struct wish f = {.kind = NODE_CTL,
                     .mode = S_IFREG | (0666 & ~(b->opt->umask | 0222)),
                     .uid = b->opt->uid,
                     .gid = b->opt->gid,
                     .size = NODE_SIZE_UNKNOWN};
    for (int i = 0; i < N_CTL; i++) {
        f.ctl = (enum node_ctl)i;
        add(b, TREE_CTL_DIR, name[i], &f);
    }
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
        if (n->parent != node->ino)
            n->parent = node->ino; /* only ever a new node: nobody reads it yet */
        d->entry[d->n++] =
            (struct tree_entry){.name = last_part(n->path), .node = n, .hidden = it->hidden};
        int64_t m = atomic_load(&n->mtime_ns);
        newest = m > newest ? m : newest;
    }
    atomic_store(&node->mtime_ns, newest);
    return 0;
}

static int cmp_item_dir(const void *key, const void *item)
{
    return strcmp(key, ((const struct item *)item)->dir);
}

/* Groups the sorted items into directories; deeper ones first, so that times rise. */
static int make_dirs(struct builder *b)
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

static bool same_directory(const struct store_entry *a, const struct store_entry *b)
{
    return strcmp(a->publisher, b->publisher) == 0 && strcmp(a->model, b->model) == 0;
}

static void add_store(struct builder *b, size_t which)
{
    const struct store_entry *before = NULL; /* the last model shown */
    b->which = which;
    b->store = b->scan->set->store[which];
    b->top = store_set_top(b->scan->set, which);
    if (*b->top)
        add_dirs(b, "", b->top); /* also where the store shows nothing: it is a source */
    for (size_t i = 0; i < b->store->n_entry && b->rc == 0; i++) {
        const struct store_entry *en = &b->store->entry[i];
        if (en->rc < 0 || en->n_part == 0)
            continue;
        size_t shown = b->tree->n_model;
        if (en->role == STORE_MODEL)
            add_model(b, i, !before || !same_directory(before, en));
        else if (en->role == STORE_PROJECTOR)
            add_projector(b, en);
        if (b->tree->n_model > shown)
            before = en;
    }
}

int tree_new(struct tree **out, struct nodes *ns, struct vfile_env *env, struct scan *scan,
             const struct tree_options *opt, struct err *e)
{
    struct tree *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, -ENOMEM, "no memory for a tree");
    t->refs = 1;
    t->scan = scan_get(scan);
    struct builder b = {.ns = ns, .env = env, .scan = scan, .opt = opt, .tree = t, .e = e};
    struct wish root = wish_dir(&b, false);
    node_renew(ns->root, &root);
    add_ctl(&b);
    for (size_t i = 0; i < scan->set->n && b.rc == 0; i++)
        add_store(&b, i);
    if (b.rc == 0)
        b.rc = make_dirs(&b);
    for (size_t i = 0; i < b.n; i++) {
        nodes_put(ns, b.item[i].node); /* those that no directory took */
        free(b.item[i].dir);
        free(b.item[i].path);
    }
    free(b.item);
    if (b.rc < 0) {
        tree_put(ns, t);
        return b.rc;
    }
    *out = t;
    return 0;
}
