/* What a mount says about a store: extended attributes, problems.txt, index.json, extents. Pure
 * functions to text; fs/ only serves the bytes. Every text is malloc'ed, the caller's to free,
 * NUL-terminated, and *len does not count the NUL. */
#ifndef APRFS_FORMAT_STORE_TEXT_H
#define APRFS_FORMAT_STORE_TEXT_H

#include "format/err.h"
#include "format/store.h"
#include "format/store_set.h"

#include <stddef.h>
#include <stdint.h>

#define STORE_TEXT_XATTR_MAX (64 << 10) /* the kernel's limit of a value */

/* The value of "user.aprfs.<...>" on the .apr of en. plan may be NULL: then .extents and .layout
 * are -ENODATA. No newline at the end. -ENODATA: no such name, or nothing to say; -E2BIG: over 64
 * KiB. Names: source extents sha256 head_sha256 store alias arch quant n_params n_ctx_train profile
 * layout part_generation. (.tier, .version and .generation are the mount's own.)
 *   source           paths of the parts, one a line, as name_escape() writes them
 *   extents          "aprfs-extents 1", then "part N dev ino size mtime_ns path" per part, then
 * "map virtual_offset length N|mem|zero source_offset" in virtual order, touching; mem and zero
 * have source_offset 0 part_generation  "dev:ino:size:mtime_ns:ctime_ns", one part a line */
int store_text_xattr(const struct store *s, const struct store_entry *en,
                     const struct store_plan *plan, const char *name, char **out, size_t *len,
                     struct err *e);

/* The names that store_text_xattr answers for en, each with its NUL, as listxattr(2) wants them. */
int store_text_xattr_list(const struct store *s, const struct store_entry *en,
                          const struct store_plan *plan, char **out, size_t *len, struct err *e);

/* The extents text whole, however long: .aprfs/extents/<path>.tsv. */
int store_text_extents(const struct store_entry *en, const struct store_plan *plan, char **out,
                       size_t *len, struct err *e);

/* errno name (or WARN), TAB, path, TAB, sentence, newline; dir = NULL: all, else only the lines of
 * that directory of the tree. A path is below its store's root, and, where the set has several
 * stores, behind the store's label. */
int store_text_problems(const struct store_set *set, const char *dir, char **out, size_t *len,
                        struct err *e);

/* {"schema":1,"generation":N,"entries":[{"path","aliases","role","status","why","store","arch",
 * "quant","n_params","n_ctx_train","size","parts":[{"path","size","sha256"}]}]} and a newline.
 * path is null for what the tree does not show; status "ok" or the errno's name; size is the
 * .apr's, null while it is not planned; sha256 null where the store does not say. parts: the tree shows
 * GGUF files (gguf=none: not), and so projectors; one of several files is its first. */
int store_text_index(const struct store_set *set, uint64_t generation, bool parts, char **out,
                     size_t *len, struct err *e);

#endif
