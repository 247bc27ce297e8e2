/* Several stores shown by one mount: one per SOURCE, in the order of the command line.
 *
 * Each has a label, unique without case: its layout's name ("ollama", "hf", "lmstudio", "llamacpp"),
 * or a plain folder's own last component, cleaned; the second and later of one word get "-2", "-3" in
 * the sources' order. With several sources a label is the first directory of all that the store
 * shows (its top); a single source, and sources that were merged, show themselves at the root. */
#ifndef APRFS_FORMAT_STORE_SET_H
#define APRFS_FORMAT_STORE_SET_H

#include "format/err.h"
#include "format/store.h"

#include <stdbool.h>
#include <stddef.h>

struct store_source {
    char *path;           /* as given, or its real path */
    enum store_kind kind; /* STORE_AUTO: as the options say */
};

struct store_set {
    struct store **store; /* in the sources' order; none is NULL */
    char **label;
    size_t n;
    bool merged;
    struct store **raw; /* of a merged set: the stores before, for the next scan; else NULL */
};

/* Scans every source. prev (may be NULL) is an earlier set: each store in it helps the scan of the
 * source that has its root. Fails where store_scan fails for any of them, naming it. *out is the
 * caller's, store_set_free's to free. */
int store_set_scan(struct store_set **out, const struct store_source *src, size_t n,
                   const struct store_options *opt, const struct store_set *prev, struct err *e);
/* The next scan of a mount that runs, prev being what it shows now, of the same sources. Labels stay, and
 * layouts that are not plain. A source that cannot be read does not keep the others back: it is a
 * store with root_rc and a problem, empty if its root is gone or closed; where the network or a device
 * failed (also below the root) what prev knew stays. Fails without memory or descriptors. */
int store_set_rescan(struct store_set **out, const struct store_source *src, size_t n,
                     const struct store_options *opt, const struct store_set *prev, struct err *e);
/* Settles the names of all stores together, so that they can stand in one tree: of equal names in one
 * directory the later (by the sources' order) gets a suffix, and what is the same file, or has the
 * SHA-256 that both stores tell, is one entry with the aliases of both. 0 or -ENOMEM. */
int store_set_merge(struct store_set *set, struct err *e);
/* A set of one store, which it takes (and frees where there is no memory); NULL: no memory. */
struct store_set *store_set_of(struct store *takes);
void store_set_free(struct store_set *set);

/* The directory of the tree that holds what store i shows; "" = the root. */
const char *store_set_top(const struct store_set *set, size_t i);

bool store_set_equal(const struct store_set *a, const struct store_set *b);
size_t store_set_n_entry(const struct store_set *set);
size_t store_set_n_parsed(const struct store_set *set);

#endif
