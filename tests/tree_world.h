/* A folder of models and the trees that are made of it, without a mount. */
#ifndef APRFS_TESTS_TREE_WORLD_H
#define APRFS_TESTS_TREE_WORLD_H

#include "fs/tree.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <stdlib.h>
#include <string.h>

struct world {
    char *root;
    struct nodes *ns;
    struct vfile_env env;
    struct tree_options opt;
    struct store_options store;
};

static inline struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    struct err e;
    w->root = temp_dir();
    w->opt = (struct tree_options){.uid = 1, .gid = 2, .umask = 0222};
    w->store = (struct store_options){.kind = STORE_PLAIN, .plan = true};
    w->env.lease = true;
    assert_int_equal(vcache_new(&w->env.texts, 16 << 20, 0, 0, &e), 0);
    assert_int_equal(vcache_new(&w->env.units, 16 << 20, 0, 0, &e), 0);
    assert_int_equal(nodes_new(&w->ns, &e), 0);
    return w;
}

static inline void world_free(struct world *w)
{
    nodes_free(w->ns);
    vcache_free(w->env.texts);
    vcache_free(w->env.units);
    free(w->root);
    free(w);
}

/* Scans and swaps; the tree before is the caller's to put. */
static inline struct tree *rescan(struct world *w)
{
    struct tree *cur = nodes_tree(w->ns), *next;
    struct store_set *set;
    struct err e = {0};
    struct store_source src = {.path = w->root};
    int rc = store_set_scan(&set, &src, 1, &w->store, cur ? cur->scan->set : NULL, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    struct scan *scan = scan_new(set);
    assert_non_null(scan);
    assert_int_equal(tree_new(&next, w->ns, &w->env, scan, &w->opt, &e), 0);
    scan_put(scan);
    tree_put(w->ns, cur);
    return nodes_swap(w->ns, next);
}

static inline void rescan_and_forget(struct world *w)
{
    tree_put(w->ns, rescan(w));
}

/* The node at a path, counted as a kernel lookup; NULL: none. */
static inline struct node *walk(struct world *w, const char *path)
{
    char part[256];
    struct node *n = nodes_find(w->ns, NODE_ROOT);
    while (n && *path) {
        size_t len = strcspn(path, "/");
        snprintf(part, sizeof part, "%.*s", (int)len, path);
        path += len + (path[len] == '/');
        struct node *sub = NULL;
        nodes_lookup(w->ns, n->ino, part, &sub);
        nodes_put(w->ns, n);
        n = sub;
    }
    nodes_put(w->ns, n); /* the lookup keeps it */
    return n;
}

#endif
