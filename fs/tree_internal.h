/* Between the files that make a tree: nodes.c (the table of all nodes), tree_items.c (from what a path
 * shall show to nodes and directories) and tree.c (what an entry of a store shows where). */
#ifndef APRFS_FS_TREE_INTERNAL_H
#define APRFS_FS_TREE_INTERNAL_H

#include "fs/tree.h"

#include <pthread.h>

#define N_BUCKET 8192
#define MAX_PATH 1200 /* ".aprfs/extents/", four names of up to 255 bytes, and separators */

struct nodes {
    pthread_mutex_t mu;
    struct tree *tree;
    struct node *root;
    struct node *bucket[N_BUCKET];
    size_t n;
};

/* --- nodes.c; the caller holds ns->mu ------------------------------------------------------ */
struct node **nodes_bucket(struct nodes *ns, uint64_t ino);
struct node *nodes_find_locked(struct nodes *ns, uint64_t ino);

/* --- tree_items.c -------------------------------------------------------------------------- */

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
    uint64_t ino;     /* the number it had; 0: by path and id */
    struct vfile *vf; /* shared by the nodes of one model */
    const char *target;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    int64_t mtime_ns;
    uint64_t size;
    bool hidden;
};

/* The number to begin the search for a free one with. */
uint64_t wish_ino(const struct wish *w, const char *path);
/* Does n show what w wishes for at that path? */
bool node_is(const struct node *n, const char *path, const struct wish *w);
void node_renew(struct node *n, const struct wish *w);
/* dir/name shall show w; b->rc says whether that went well. */
void tree_add(struct builder *b, const char *dir, const char *name, const struct wish *w);
/* Groups all that was added into the tree's directories. 0 or -ENOMEM. */
int tree_make_dirs(struct builder *b);

#endif
