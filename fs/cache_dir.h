/* The cache folder: where a mount keeps what it can lose. The index (index.h) and composed files
 * (compose.h) are there unless an option names another folder; large texts (vcache.h) always are. */
#ifndef APRFS_FS_CACHE_DIR_H
#define APRFS_FS_CACHE_DIR_H

#include "format/err.h"

#include <sys/stat.h>

/* $CACHE_DIRECTORY (a service's), else ${XDG_CACHE_HOME:-~/.cache}/aprfs: absolute, malloc'ed, perhaps
 * not there yet. NULL: none is known. */
char *cache_dir_path(void);

/* A descriptor of dir, made with what is missing above it. A negative errno with a message that names dir;
 * -EPERM: it belongs to another user, or others may write to it. */
int cache_dir_open(const char *dir, struct err *e);

/* Why others than we may have written what this folder or file holds; NULL: nobody else. */
const char *cache_dir_not_ours(const struct stat *st);

#endif
