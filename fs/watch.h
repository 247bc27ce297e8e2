/* Decides when to scan again, scans, swaps the tree, and tells the kernel which names changed.
 *
 * One thread. inotify on every directory of the store and on those that links lead to; a scan
 * starts after a short quiet (20 ms while one name is concerned, else 250 ms), at the latest 2 s
 * after the first event. A source that inotify cannot tell about (network file systems, no watches
 * left) makes a lookup past the TTL start one; the others' changes still show at once. Nothing here
 * is called with a lock held that a FUSE request may want: invalidation waits for requests in
 * flight. */
#ifndef APRFS_FS_WATCH_H
#define APRFS_FS_WATCH_H

#include "format/err.h"

#include <stdbool.h>
#include <stdint.h>

struct fs;
struct watch;

/* The first scan, in the caller's thread: fs->nodes has its tree when this returns. Every scan sets
 * fs->entry_timeout_s and attr_timeout_s. */
int watch_new(struct watch **out, struct fs *fs, struct err *e);

/* Starts the thread; from then on the kernel may be notified through fs->se. */
int watch_start(struct watch *w, struct err *e);
/* No notification after this returns (a mount that drains must not be told anything). */
void watch_disarm(struct watch *w);
/* Asks the thread to end and waits ms; false: it is still scanning. */
bool watch_stop(struct watch *w, unsigned ms);
void watch_free(struct watch *w); /* once the thread is stopped, or never was started */

void watch_kick(struct watch *w);                /* scan now */
void watch_touch(struct watch *w);               /* a name was asked for: scan if the TTL is over */
void watch_stale(struct watch *w, uint64_t ino); /* its cached pages are to go; and scan */

/* Something was learnt that tree_learn() passes on, and that the index shall keep. */
void watch_learnt(struct watch *w);

/* Starts a scan and waits until one that began after this call has been swapped in, or ms are over;
 * false: it took longer. */
bool watch_rescan(struct watch *w, unsigned ms);

struct watch_stats {
    uint64_t n_scan, n_event, n_overflow, n_parsed;
    double last_scan_ms;
    unsigned n_dir;
    char how[512]; /* watch_dirs_text() */
};
void watch_get_stats(struct watch *w, struct watch_stats *out);

#endif
