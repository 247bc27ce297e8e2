/* Directories: see ops.h.
 *
 * The kernel keeps a directory's listing as long as it keeps the names in it, so that who lists a tree
 * a second time asks only to open and close. It fills that by what a handle reads from the start; such a
 * read therefore takes the current tree, not the one of the open: old names, read after the kernel was
 * told to drop them, would stay. A handle that the kernel answered in part goes on by cookie, whatever
 * tree that part came from. */
#define FUSE_USE_VERSION 312
#include "fs/ops_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#define COOKIE_DOT     1
#define COOKIE_DOT_DOT 2

static uint64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* The directory as the current tree has it. */
static void take_tree(struct fs *fs, struct handle *h)
{
    tree_put(fs->nodes, h->tree);
    h->tree = nodes_tree(fs->nodes);
    h->dir = tree_find_dir(h->tree, h->node->ino); /* NULL: it left the tree, and is empty */
}

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
    take_tree(fs, h);
    fi->fh = (uintptr_t)h;
    fi->cache_readdir = 1;
    fi->keep_cache =
        nodes_list_open(fs->nodes, n, clock_ms(), (uint64_t)(fs->entry_timeout_s * 1000));
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

/* What comes after a cookie, as much as fits. Returns its bytes. */
static size_t put_entries(fuse_req_t req, struct handle *h, char *buf, size_t size, uint64_t after,
                          bool plus)
{
    size_t used = 0, len;
    if (after < COOKIE_DOT) {
        used = put_entry(req, buf, size, ".", h->node, COOKIE_DOT, plus);
        if (used > size)
            return 0;
    }
    if (after < COOKIE_DOT_DOT) {
        struct nodes *ns = ops_fs(req)->nodes;
        struct node *up = nodes_find(ns, h->node->parent);
        len =
            put_entry(req, buf + used, size - used, "..", up ? up : h->node, COOKIE_DOT_DOT, plus);
        nodes_put(ns, up);
        if (len > size - used)
            return used;
        used += len;
    }
    for (size_t i = h->dir ? tree_listed_after(h->dir, after) : 0; h->dir && i < h->dir->n; i++) {
        const struct tree_entry *en = h->dir->listed[i];
        if (en->hidden)
            continue;
        len = put_entry(req, buf + used, size - used, en->name, en->node, en->cookie, plus);
        if (len > size - used)
            break;
        used += len;
    }
    return used;
}

static void read_dir(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    struct handle *h = ops_handle(fi);
    char *buf = malloc(size);
    if (!buf) {
        ops_reply_err(req, ENOMEM);
        return;
    }
    if (off == 0)
        take_tree(ops_fs(req), h);
    size_t used = put_entries(req, h, buf, size, (uint64_t)off, plus);
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
