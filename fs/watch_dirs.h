/* Which folders inotify watches, and which sources it cannot tell about: those must be looked at again
 * by TTL. One thread's. */
#ifndef APRFS_FS_WATCH_DIRS_H
#define APRFS_FS_WATCH_DIRS_H

#include "format/err.h"
#include "format/store_set.h"

#include <stdbool.h>
#include <stddef.h>

struct watch_source {
    char why[128]; /* why inotify alone does not do; "": it does */
};

struct watch_dirs {
    int fd;  /* inotify; -1: there is none */
    int *wd; /* sorted, each once */
    size_t n;
    struct watch_source *source; /* as many as the mount has */
    size_t n_source;
};

int watch_dirs_init(struct watch_dirs *d, size_t n_source, struct err *e);
void watch_dirs_release(struct watch_dirs *d);

/* Watches what a scan said is worth it, on file systems that tell, and forgets what no longer is. A
 * source for which no watch is left gives up those that it has, and gets them with a later call. *fresh:
 * there was something that nobody watched while it was scanned, so what happened there since is not
 * known. Without memory (-ENOMEM) all stays as it was. */
int watch_dirs_renew(struct watch_dirs *d, const struct store_set *set, bool *fresh, struct err *e);

/* "inotify", "by ttl (FUSE)", "inotify; hf: by ttl (NFS)"; false: inotify does for all. */
bool watch_dirs_text(const struct watch_dirs *d, const struct store_set *set, char *dst,
                     size_t size);

#endif
