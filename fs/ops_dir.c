/* Directories: see ops.h.
 *
 * The kernel keeps a directory's listing as long as it keeps the names in it, so that who lists a tree
 * a second time asks only to open and close (tree.h, enum list_open). Whatever is read comes from the
 * current tree; a place in a listing is good in any tree, so a handle needs none of its own. */
#define FUSE_USE_VERSION 312
#include "fs/ops_internal.h"

#include "fs/clock.h"

#include <errno.h>
#include <stdlib.h>

#define COOKIE_DOT     1
#define COOKIE_DOT_DOT 2

void ops_dir_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    ops_count(req, COUNT_opendir);
    struct fs *fs = ops_fs(req);
    watch_touch(fs->watch);
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    if (n->kind != NODE_DIR) {
        nodes_put(fs->nodes, n);
        ops_reply_err(req, ENOTDIR);
        return;
    }
    struct handle *h = ops_handle_new(fs, n);
    if (!h) {
        ops_reply_err(req, ENOMEM);
        return;
    }
    fi->fh = (uintptr_t)h;
    enum list_open how =
        nodes_list_open(fs->nodes, n, clock_ms(), (uint64_t)(fs->entry_timeout_s * 1000));
    h->lists = how != LIST_NONE;
    fi->cache_readdir = how != LIST_NONE;
    fi->keep_cache = how == LIST_KEEP;
    if (fuse_reply_open(req, fi) < 0)
        ops_handle_free(fs, h);
}

void ops_dir_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    ops_count(req, COUNT_releasedir);
    ops_handle_free(ops_fs(req), ops_handle(fi));
    fuse_reply_err(req, 0);
}

/* Puts one entry, whose place is cookie, into buf; returns its bytes, > size if it does not fit. */
static size_t put_entry(fuse_req_t req, char *buf, size_t size, const char *name, struct node *n,
                        uint64_t cookie, bool plus)
{
    struct fs *fs = ops_fs(req);
    struct stat st;
    node_stat(n, &st);
    if (!plus)
        return fuse_add_direntry(req, buf, size, name, &st, (off_t)cookie);
    struct fuse_entry_param p = {.attr = st}; /* ino 0: a name alone, for the size is not known */
    bool counted = cookie >= TREE_COOKIE_MIN && n->kind != NODE_CTL &&
                   atomic_load(&n->size) != NODE_SIZE_UNKNOWN;
    if (counted)
        ops_set_entry(fs, n, &st, &p);
    size_t len = fuse_add_direntry_plus(req, buf, size, name, &p, (off_t)cookie);
    if (counted && len <= size)
        nodes_add_lookup(fs->nodes, n);
    return len;
}

/* What comes after a cookie in directory n, as much as fits. Returns its bytes. */
static size_t put_entries(fuse_req_t req, struct node *n, char *buf, size_t size, uint64_t after,
                          bool plus)
{
    struct nodes *ns = ops_fs(req)->nodes;
    size_t used = 0, len;
    if (after < COOKIE_DOT) {
        used = put_entry(req, buf, size, ".", n, COOKIE_DOT, plus);
        if (used > size)
            return 0;
    }
    if (after < COOKIE_DOT_DOT) {
        struct node *up = nodes_find(ns, n->parent);
        len = put_entry(req, buf + used, size - used, "..", up ? up : n, COOKIE_DOT_DOT, plus);
        nodes_put(ns, up);
        if (len > size - used)
            return used;
        used += len;
    }
    struct tree *t = nodes_tree(ns);
    const struct tree_dir *d = tree_find_dir(t, n->ino); /* NULL: it left the tree, and is empty */
    for (size_t i = d ? tree_listed_after(d, after) : 0; d && i < d->n; i++) {
        const struct tree_entry *en = d->listed[i];
        if (en->hidden)
            continue;
        len = put_entry(req, buf + used, size - used, en->name, en->node, en->cookie, plus);
        if (len > size - used)
            break;
        used += len;
    }
    tree_put(ns, t);
    return used;
}

static void read_dir(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    char *buf = malloc(size);
    if (!buf) {
        ops_reply_err(req, ENOMEM);
        return;
    }
    size_t used = put_entries(req, ops_handle(fi)->node, buf, size, (uint64_t)off, plus);
    fuse_reply_buf(req, buf, used);
    free(buf);
}

void ops_dir_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    ops_count(req, COUNT_readdir);
    (void)ino;
    read_dir(req, size, off, fi, false);
}

void ops_dir_read_plus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi)
{
    ops_count(req, COUNT_readdirplus);
    (void)ino;
    read_dir(req, size, off, fi, true);
}
