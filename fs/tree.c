/* What the entries of the stores show, and where: see tree.h. */
#include "fs/tree_internal.h"

#include "format/name.h"
#include "fs/log.h"
#include "fs/pinned.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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
        tree_add(b, dir, name, &w);
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
            const char *hint = rc == -EACCES ? b->store->opt.denied_hint : NULL;
            if (hint)
                snprintf(e.msg + strlen(e.msg), sizeof e.msg - strlen(e.msg), " (%s)", hint);
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

/* May others go all the way to a file? The store's root itself is not asked, since somebody chose to
 * mount it for them; a folder below it is, and so is every one on the way to what a link leads to:
 * anybody who can write into the store can plant one. */
static bool others_reach(const char *root, const char *path)
{
    char *real = realpath(path, NULL);
    bool yes = false;
    for (char *slash; real && !yes && (slash = strrchr(real, '/'));) {
        struct stat st;
        *slash = '\0';
        yes = slash == real || strcmp(real, root) == 0; /* come to the top, or to the root */
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
        tree_add(b, dir, name, &w);
    }
    if (en->tokenizer_rc == 0 && first)
        tree_add(b, dir, "tokenizer.json", &w);
    w.kind = NODE_CONFIG;
    if (first)
        tree_add(b, dir, "config.json", &w);
    w.kind = NODE_GENERATION;
    if (en->generation_rc == 0 && first)
        tree_add(b, dir, "generation_config.json", &w);
}

/* What is too long for an attribute, whole. */
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
    tree_add(b, dir, name, &w);
    if (b->store->opt.view != STORE_VIEW_APR || b->store->opt.vapr.footer != VAPR_FOOTER_CRC)
        return;
    w.kind = NODE_CRC32;
    w.hidden = true; /* it is not there until somebody read the footer */
    snprintf(name, sizeof name, "%s.crc32", en->stem);
    tree_add(b, dir, name, &w);
}

/* The living file of that generation, counted, or NULL. */
static struct vfile *living_vfile(struct builder *b, enum node_kind kind, const char *path,
                                  const uint8_t gen[32], uint64_t had_ino)
{
    struct wish w = {.kind = kind, .id = gen, .ino = had_ino};
    struct vfile *vf = NULL;
    uint64_t ino = wish_ino(&w, path);
    struct node *n;
    pthread_mutex_lock(&b->ns->mu);
    while ((n = nodes_find_locked(b->ns, ino)) && !node_is(n, path, &w))
        ino = ino == INT64_MAX ? 2 : ino + 1;
    if (n)
        vf = vfile_get(n->vf);
    pthread_mutex_unlock(&b->ns->mu);
    return vf;
}

/* A link to a part. */
static void add_link(struct builder *b, const struct store_part *p, const char *dir,
                     const char *name, struct wish w)
{
    uint8_t id[32];
    w.kind = NODE_LINK;
    w.mode = S_IFLNK | 0777;
    w.vf = NULL;
    w.target = p->path;
    if (EVP_Digest(w.target, strlen(w.target), id, NULL, EVP_sha256(), NULL) != 1)
        abort();
    w.id = id;
    w.size = strlen(w.target);
    tree_add(b, dir, name, &w);
}

/* A part as a file. */
static void add_part(struct builder *b, const struct store_entry *en, int i, const char *dir,
                     const char *name, struct wish w)
{
    uint8_t gen[32];
    char path[MAX_PATH + 300];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    vfile_part_generation(gen, b->store, en, i);
    struct vfile *vf = living_vfile(b, NODE_GGUF, path, gen, 0);
    size_t entry = (size_t)(en - b->store->entry);
    if (vf)
        vfile_rebind(vf, b->scan, b->which, entry);
    else if ((b->rc = vfile_new_part(&vf, b->env, b->scan, b->which, entry, i, b->e)) < 0)
        return;
    w.kind = NODE_GGUF;
    w.mode |= S_IFREG;
    w.id = gen;
    w.vf = vf;
    w.size = vfile_size(vf);
    w.mtime_ns = en->part[i].id.mtime_ns;
    tree_add(b, dir, name, &w);
    vfile_put(vf);
}

static void add_ggufs(struct builder *b, const struct store_entry *en, const char *dir,
                      struct wish w)
{
    for (int i = 0; i < en->n_part && b->opt->gguf != GGUF_NONE && b->rc == 0; i++) {
        char name[300];
        if (en->n_part == 1)
            snprintf(name, sizeof name, "%s.gguf", en->stem);
        else
            snprintf(name, sizeof name, "%s-%05d-of-%05d.gguf", en->stem, i + 1, en->n_part);
        if (b->opt->gguf == GGUF_LINK)
            add_link(b, &en->part[i], dir, name, w);
        else
            add_part(b, en, i, dir, name, w);
    }
}

static void add_model(struct builder *b, size_t i, bool first)
{
    const struct store_entry *en = &b->store->entry[i];
    char dir[MAX_PATH], name[300], path[MAX_PATH + 300];
    uint8_t gen[32];
    dir_of(b, en, dir);
    snprintf(name, sizeof name, "%s%s", en->stem, store_suffix(&b->store->opt));
    snprintf(path, sizeof path, "%s/%s", dir, name);
    vfile_generation(gen, b->store, en);
    struct vfile *vf = living_vfile(b, NODE_APR, path, gen, en->learnt->ino);
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
    file.ino = en->learnt->ino;
    tree_add(b, dir, name, &file);
    if (b->store->opt.view == STORE_VIEW_APR) {
        add_ggufs(b, en, dir, w);
        add_siblings(b, en, dir, w, first);
    }
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
    if (b->opt->gguf == GGUF_NONE || (b->opt->gguf == GGUF_FILE && ask_writers(b, en) < 0))
        return;
    add_dirs(b, "", dir);
    add_ggufs(b, en, dir, w);
}

static void add_ctl(struct builder *b)
{
    static const char *const name[N_CTL] = {
        [CTL_VERSION] = "version", [CTL_INDEX] = "index.json",  [CTL_PROBLEMS] = "problems.txt",
        [CTL_STATS] = "stats.txt", [CTL_STATUS] = "status.txt", [CTL_METRICS] = "metrics"};
    struct wish w = wish_dir(b, true);
    tree_add(b, "", TREE_CTL_DIR, &w);
    w.hidden = false;
    tree_add(b, TREE_CTL_DIR, "extents", &w);
    struct wish f = {.kind = NODE_CTL,
                     .mode = S_IFREG | (0666 & ~(b->opt->umask | 0222)),
                     .uid = b->opt->uid,
                     .gid = b->opt->gid,
                     .size = NODE_SIZE_UNKNOWN};
    for (int i = 0; i < N_CTL; i++) {
        f.ctl = (enum node_ctl)i;
        tree_add(b, TREE_CTL_DIR, name[i], &f);
    }
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
        b.rc = tree_make_dirs(&b);
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
