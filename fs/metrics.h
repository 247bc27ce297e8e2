/* .aprfs/metrics: what the mount has done and holds, as Prometheus' text format 0.0.4. */
#ifndef APRFS_FS_METRICS_H
#define APRFS_FS_METRICS_H

#include "format/err.h"

#include <stddef.h>

struct fs;

/* The whole file; malloc'ed, the caller's to free. -ENOMEM. */
int metrics_text(struct fs *fs, char **out, size_t *len, struct err *e);

/* A figure of /proc/self/status in KiB, 0 if it is not there. */
unsigned long long metrics_proc_kib(const char *name);

#endif
