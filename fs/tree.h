/* The tree that the mount shows: made whole from a scan, never changed, replaced whole by the next.
 *
 *   [<top>/]<publisher>/<model>/<Stem>.apr      the virtual file
 *                      /<Stem>.gguf             link to the real file, or its bytes; one per shard
 *                      /<Stem>.tokenizer.json   virtual, where the tokenizer can be written
 *                      /tokenizer.json, config.json, generation_config.json (where it would say something)
 *                      /mmproj-<name>.gguf      the same of a projector
 *   .aprfs/             version index.json problems.txt stats.txt status.txt metrics, extents/<path>.tsv
 *                       (footer=crc: <path>.crc32 too); found by lookup, not listed
 *
 * Nodes outlive trees: the kernel and open handles count on them by number. struct nodes is the
 * table of all that live, in the current tree or only used; two trees that show the same thing at
 * the same path share its node. A node's number is 63 bits of SHA-256 over path and identity (the
 * generation for a .apr, the content for siblings), or, where another live node has that number,
 * the next free one, which the index remembers (tree_learn); the root's is 1. */
#ifndef APRFS_FS_TREE_H
#define APRFS_FS_TREE_H

#include "format/err.h"
#include "fs/options.h"
#include "fs/vfile.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define NODE_ROOT         UINT64_C(1)
#define NODE_SIZE_UNKNOWN UINT64_MAX
#define TREE_CTL_DIR      ".aprfs"

enum node_kind {
    NODE_DIR,
    NODE_APR,
    NODE_GGUF, /* a part as it stands (gguf=file) */
    NODE_LINK,
    NODE_TOKENIZER,
    NODE_CONFIG,
    NODE_GENERATION,
    NODE_EXTENTS,
    NODE_CRC32, /* -ENOENT until its checksums are known */
    NODE_CTL,
};

enum node_ctl {
    CTL_VERSION,
    CTL_INDEX,
    CTL_PROBLEMS,
    CTL_STATS,
    CTL_STATUS,
    CTL_METRICS,
    N_CTL,
};

struct node {
    uint64_t ino;
    atomic_uint_least64_t parent; /* 0 until it has a directory */
    enum node_kind kind;
    enum node_ctl ctl;
    char *path; /* below the mount; "" is the root */
    uint8_t id[32];
    char *target; /* NODE_LINK */
    /* Renewed when a later tree takes the node over. */
    atomic_uint mode, uid, gid;
    _Atomic int64_t mtime_ns;
    atomic_uint_least64_t size; /* or NODE_SIZE_UNKNOWN until the text was built once */
    struct vfile *vf;           /* by nodes_vfile only */
    uint64_t n_lookup;
    int refs;
    bool
        touched; /* shows other attributes than the kernel may know; who builds trees looks at it */
    uint64_t listed_until_ms; /* nodes_list_open */
    unsigned n_list_open;
    bool list_doubtful; /* some of these were open at a change */
    struct node *chain;
};

/* Does it have a vfile of its own to be read by? */
static inline bool node_is_file(const struct node *n)
{
    return n->kind == NODE_APR || n->kind == NODE_GGUF;
}

struct tree_entry {
    const char *name; /* the last part of node->path */
    struct node *node;
    uint64_t cookie; /* its place in a listing */
    bool hidden;     /* from readdir */
};

struct tree_dir {
    struct node *node;
    struct tree_entry *entry;   /* sorted by name */
    struct tree_entry **listed; /* sorted by cookie */
    size_t n;
};

struct tree_problem {
    size_t store, entry; /* of the scan: not shown, though the scan found it good */
    int rc;
    char *why;
    char *dir, *line; /* "[top/]publisher/model"; the line of problems.txt, with its newline */
};

struct tree {
    int refs; /* under the nodes' lock */
    struct scan *scan;
    uint64_t generation;  /* number of trees that differed from the one before */
    struct tree_dir *dir; /* sorted by ino */
    size_t n_dir;
    struct tree_problem *problem; /* what the mount itself found, beyond the scan's */
    size_t n_problem;
    size_t n_model;
};

struct tree_options {
    uid_t uid;
    gid_t gid;
    mode_t umask;
    enum option_gguf gguf;
    bool narrow; /* a source that others may not read is shown with its own owner and mode */
};

struct nodes;

int nodes_new(struct nodes **out, struct err *e);
void nodes_free(struct nodes *ns); /* every node, whoever still counts on it */

/* Builds the next tree over scan. Models that somebody is writing are left out, with a problem. */
int tree_new(struct tree **out, struct nodes *ns, struct vfile_env *env, struct scan *scan,
             const struct tree_options *opt, struct err *e);

/* t becomes the current tree (takes it); the former one's reference goes to the caller, NULL at
 * first. generation is set here: one more than before if the two differ, or nodes were touched. */
struct tree *nodes_swap(struct nodes *ns, struct tree *t);
struct tree *nodes_tree(struct nodes *ns); /* the current one, counted; NULL before the first */
void tree_put(struct nodes *ns, struct tree *t);

/* parent's child in the current tree, counted as one kernel lookup. -ENOENT. */
int nodes_lookup(struct nodes *ns, uint64_t parent, const char *name, struct node **out);
/* One more kernel lookup of a node in hand (readdirplus). */
void nodes_add_lookup(struct nodes *ns, struct node *n);
void nodes_forget(struct nodes *ns, uint64_t ino, uint64_t n);

/* A live node, counted; NULL: none. nodes_put ends that. */
struct node *nodes_find(struct nodes *ns, uint64_t ino);
void nodes_put(struct nodes *ns, struct node *n);
struct vfile *nodes_vfile(struct nodes *ns, struct node *n); /* counted; NULL: has none */

const struct tree_dir *tree_find_dir(const struct tree *t, uint64_t ino); /* NULL: none */
const struct tree_entry *tree_find_entry(const struct tree_dir *d, const char *name);

/* A place in a listing follows from the name alone (but for names whose hashes are equal), so that who
 * stopped in one tree goes on in another, and skips and repeats no name that is in both. Cookies are
 * TREE_COOKIE_MIN .. INT64_MAX. Returns the index in d->listed of the first entry past a cookie. */
#define TREE_COOKIE_MIN 3
size_t tree_listed_after(const struct tree_dir *d, uint64_t cookie);

/* A directory is opened (and, but for LIST_NONE, closed). What the kernel may do with its listing: */
enum list_open {
    LIST_NONE,  /* keep none, for another handle may still bring it names of before a change */
    LIST_BEGIN, /* keep what is read now: for keep_ms, or until a change */
    LIST_KEEP,  /* answer from what it has kept */
};
enum list_open nodes_list_open(struct nodes *ns, struct node *dir, uint64_t now_ms,
                               uint64_t keep_ms);
void nodes_list_close(struct nodes *ns, struct node *dir);
/* Said before the kernel is told of the change. */
void nodes_list_changed(struct nodes *ns, uint64_t dir);

void node_stat(const struct node *n, struct stat *st);

/* Every name whose node differs between a and b (name), in directories that are gone, too, and behind the
 * names of each directory itself (name NULL): telling the kernel of a name waits for who is reading the
 * directory, so what these still bring it of old names is there to be dropped. a may be NULL. Returns the
 * number of names. */
size_t tree_diff(const struct tree *a, const struct tree *b,
                 void (*changed)(void *ctx, uint64_t dir, const char *name), void *ctx);

/* What serving t taught about its models goes into the entries of its scan, for the next one. Only by who
 * scans. True: something new, worth to be kept on disk. */
bool tree_learn(struct nodes *ns, struct tree *t);

/* Every node that shows other attributes than when this was last asked (dir; name NULL). */
void nodes_touched(struct nodes *ns, void (*changed)(void *ctx, uint64_t dir, const char *name),
                   void *ctx);

/* All open .apr files' vfiles are asked to look at their sources. */
void nodes_check_open(struct nodes *ns);

size_t nodes_count(struct nodes *ns);

#endif
