/* The index on disk: what scans of the sources knew, so that the next start parses nothing twice
 * (format/store_index.h says what is in it).
 *
 * One file per source, <first 16 hex digits of the SHA-256 of its path>.idx, 0600, in index=DIR; by
 * default $CACHE_DIRECTORY (a service's), else ${XDG_CACHE_HOME:-~/.cache}/aprfs. Replaced as a whole
 * (temporary name, fsync, rename) under a lock of the folder, at most once in 5 s and at the end. It
 * is a help and never a condition: a folder or file that others may write, or that cannot be written,
 * is not used; a file that is damaged, or of another version, is removed and made anew. Each is said
 * in one line of the log.
 *
 * Not for several threads: first who makes the first scan, then the watch thread; but for
 * index_describe(). */
#ifndef APRFS_FS_INDEX_H
#define APRFS_FS_INDEX_H

#include "fs/sources.h"

#include <stdbool.h>

struct index;

/* dir: index=DIR, "none", or NULL: the default. What cannot be had leaves an index that keeps nothing and
 * says so; NULL, without memory, does the same. */
struct index *index_new(const char *dir, const struct sources *sources);
void index_free(struct index *ix);

/* The folder that must stay writable: lent, or NULL where nothing is kept. */
const char *index_dir(const struct index *ix);

/* What was known when the program last ended, for store_set_scan: the caller's, store_set_free's to
 * free. NULL: nothing. */
struct store_set *index_read(struct index *ix, const struct sources *sources,
                             const struct store_options *opt);

/* Something was scanned; changed: other than what was scanned before it, or the first. */
void index_note(struct index *ix, const struct store_set *set, bool changed);
/* Something was learnt without a scan. */
void index_touch(struct index *ix);
/* Milliseconds until index_write() would write: 0 now, -1 there is nothing to be written. */
int index_due_in(const struct index *ix);
/* Writes set if something was noted since the last time. Not while another mount does: then the next
 * time, or, where there is none (last), after it, if that takes no second. */
void index_write(struct index *ix, const struct store_set *set, bool last);

/* What it is doing, as a line without its end. From any thread. */
void index_describe(struct index *ix, char *dst, size_t size);

#endif
