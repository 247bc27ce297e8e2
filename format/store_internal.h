/* Between store.c, store_cand.c and the layouts. A layout walks its root and adds candidates: groups of files
 * that should be one model. All that follows (opening, facts, names, order) is the same for every
 * layout.
 */
#ifndef APRFS_FORMAT_STORE_INTERNAL_H
#define APRFS_FORMAT_STORE_INTERNAL_H

#include "format/store.h"

#include <dirent.h>
#include <errno.h>

/* Ours, not the store's: memory or descriptors ran out. Says nothing about any file, so it ends a
 * scan instead of hiding what is there. */
static inline bool store_starved(int rc)
{
    return rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE;
}

struct store_cand {
    enum store_kind kind;
    struct store_part *part; /* in shard order; paths absolute */
    int n_part, cap_part;
    char *order; /* way of the first part below the root, unique: who is first in a collision */
    char *dir;   /* directory below the root, "" = root: publisher and model by name_two_levels */
    char *file;  /* the name that people know, a last component; NULL: none, only a hash */
    /* What the store says where a path does not: raw bytes, cleaned later; NULL = nothing. With a
     * publisher and no model, the model is the stem. */
    char *publisher, *model, *tag;
    char **alias; /* as users type them; store_cand_add_alias() */
    size_t n_alias;
    char *revision, *params;   /* of struct store_entry */
    char at[9];                /* of a revision beside the main one: the model is "<model>@<at>" */
    enum store_role role_hint; /* what the store says of a file that says nothing itself: PROJECTOR
                                * or ADAPTER; MODEL = nothing */
    int rc;                    /* != 0: refused already by the layout, with why */
    char *why;
};

struct store_build {
    const struct store_options *opt;
    const struct store *prev; /* NULL, or a scan with equal options */
    const char *root;         /* real path */
    int root_fd;
    enum store_how how;   /* of the parts added from now on */
    enum store_kind kind; /* of the candidates added from now on */
    struct store_cand *cand;
    size_t n_cand, cap_cand;
    struct store_problem *problem;
    size_t n_problem, cap_problem;
    char **dir;
    size_t n_dir, cap_dir;
};

/* A new candidate, zeroed; NULL without memory. Valid until the next call. */
struct store_cand *store_cand_new(struct store_build *b);
/* A file of c: rel is its way below the root, copied. */
int store_cand_add_part(struct store_build *b, struct store_cand *c, const char *rel,
                        const struct source_id *id, const char *sha256);
int store_cand_add_alias(struct store_cand *c, const char *alias); /* copied; once each */
/* Keeps the first reason. */
int store_cand_refuse(struct store_cand *c, int rc, const char *why);
/* rel, dir and why are copied. */
int store_problem_add(struct store_build *b, int rc, const char *rel, const char *dir,
                      const char *why);
/* A folder to be watched, of struct store's dir; copied. store_folder_open() calls it. */
int store_dir_add(struct store_build *b, const char *rel);
void store_part_release(struct store_part *p);
/* Every text of en that is one string of its own: for all who free or copy them. */
#define STORE_N_TEXT 14
void store_entry_texts(struct store_entry *en, char **text[STORE_N_TEXT]);
void store_entry_release(struct store_entry *en); /* all zero afterwards */
/* Gives en the name that its claim got. 0 or -ENOMEM. */
int store_entry_rename(struct store_entry *en, const struct name_claim *c);
/* en, one of s, is another name of to, of any store: its aliases go there, the rest is kept for the next
 * scan of s. en is empty then. 0 or -ENOMEM. */
int store_entry_join(struct store *s, struct store_entry *to, struct store_entry *en);
bool store_entry_shown(const struct store_entry *en); /* a model or projector that is served */
/* The same files under two names in one directory become one entry with both as aliases; then each shown
 * entry gets a name of its own. 0 or -ENOMEM. */
int store_merge_same(struct store *s);
int store_settle_names(struct store *s, struct err *e);
void store_sort_entries(struct store *s); /* by what struct store says */
void store_problem_release(struct store_problem *p);
void store_build_release(struct store_build *b); /* and closes root_fd */

/* store_scan(); with was, the store that this mount shows of it now (before a merge), the layout stays
 * unless that was plain, what cannot be read for a reason that passes is as was had it, and a root that
 * cannot be read is no error but root_rc and a problem of the root: it fails only if store_starved. */
int store_scan_again(struct store **out, const char *root, const struct store_options *opt,
                     const struct store *prev, const struct store *was, struct err *e);

/* A failure of the network or a device: says nothing about what is there. */
bool store_passing(int rc);
/* Puts prev's entries among s's (with room for them all) where b's problems, or s's own entries, say that
 * their place cannot be read for such a reason; none where s is of another root. -ENOMEM. */
int store_keep(struct store *s, struct store_build *b, const struct store *prev);
struct store *store_copy(const struct store *s); /* NULL: no memory */

/* Opens a file below the root as §2.3 of the design says; takes nothing. dir_fd/name may be a
 * shortcut to the same file (-1: none). Returns a descriptor of a regular file and its id, or
 * -errno with a sentence about the file without its path. */
int store_open_file(int root_fd, enum store_how how, const char *rel, int dir_fd, const char *name,
                    struct source_id *id, struct err *e);

/* The same of a snapshot's file by STORE_HOW_HUB; sha256: the blob's name where that is one, else "". */
int store_open_hub(int root_fd, const char *rel, struct source_id *id, char sha256[65],
                   struct err *e);

/* "owned by NAME, mode 0600" of a path below dir_fd; "" if it cannot even be seen. */
void store_owner_text(char *dst, size_t cap, int dir_fd, const char *name);

/* Opens and parses the parts of en, fills facts, role, rc, why and plan. Returns < 0 only if
 * store_starved. Several threads may examine several entries of one store. */
int store_examine(struct store *s, struct store_entry *en, const struct store_cand *c,
                  struct err *e);

/* Two struct store_entry *, for qsort: by the first part's path, then by what they were called. The key
 * that a scan finds an earlier one's entry by; both have a part. */
int store_cmp_first_path(const void *pa, const void *pb);

/* One folder while it is scanned: store_folder.c. Its functions return 0 or -errno of store_starved;
 * what is wrong with a file is told as a candidate or a problem. */
struct store_folder {
    struct store_build *b;
    const char *rel; /* below the root, "" = the root; lent by who opened it */
    int depth;
    int fd;
    DIR *dir;    /* owns fd */
    char **name; /* sorted, without "." and ".." */
    size_t n_name, cap_name;
    struct store_file *file; /* what may be a model */
    size_t n_file, cap_file;
};
/* What a layout knows of a candidate that has its parts' names, order, dir and file. */
typedef int store_namer(struct store_cand *c, const void *arg);

/* Takes fd, reads the names. To be closed even where it failed. */
int store_folder_open(struct store_folder *d, struct store_build *b, int fd, const char *rel,
                      int depth);
void store_folder_close(struct store_folder *d);
/* Opens a folder of d: *fd (-1: a problem was told instead) and *rel are the caller's. */
int store_folder_enter(struct store_folder *d, const char *name, int *fd, char **rel);
/* Opens a file of d by b->how and looks whether it is, or ought to be, a model. */
int store_folder_look(struct store_folder *d, const char *name);
int store_folder_add(struct store_folder *d, const char *name, const struct source_id *id, int rc,
                     const char *why);
int store_folder_problem(const struct store_folder *d, const char *name, int rc, const char *why);
/* Candidates from the files: shards by prefix and count, the rest one by one. namer may be NULL. */
int store_folder_group(struct store_folder *d, store_namer *namer, const void *arg);

/* Does the name say that it is a model of that view, so that saying nothing about it would hide something? */
bool store_named_gguf(const char *name);
bool store_named_model(const struct store_build *b, const char *name);
char *store_join(const char *rel, const char *name); /* malloc'ed "rel/name", or name below "" */

/* Is there a name in the root that fits? For detect(); false where it cannot be read. */
bool store_any_name(int root_fd, bool (*fits)(int root_fd, const char *name));

int store_scan_plain(struct store_build *b, struct err *e);
/* One name of d as a plain folder takes it: a file looked at, a folder walked, a link followed. */
int store_plain_visit(struct store_folder *d, const char *name);

bool store_detect_hf(int root_fd, const char *root);
int store_scan_hf(struct store_build *b, struct err *e);
bool store_hub_is_repo(int root_fd, const char *name);   /* "models--..." with refs or snapshots */
bool store_hub_is_shared(int root_fd, const char *name); /* the cache's own store of blobs */
int store_hub_repo(struct store_folder *root, const char *name);

bool store_detect_llamacpp(int root_fd, const char *root);
int store_scan_llamacpp(struct store_build *b, struct err *e);
/* The root by visit, name by name, and then its own files as llama.cpp's cache named them. */
int store_scan_flat(struct store_build *b, int (*visit)(struct store_folder *d, const char *name),
                    struct err *e);

bool store_detect_ollama(int root_fd, const char *root);
int store_scan_ollama(struct store_build *b, struct err *e);

bool store_detect_lmstudio(int root_fd, const char *root);
int store_scan_lmstudio(struct store_build *b, struct err *e);

#endif
