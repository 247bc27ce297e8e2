/* The SOURCEs of a mount: from the words of the command line to a list of folders. */
#ifndef APRFS_FS_SOURCES_H
#define APRFS_FS_SOURCES_H

#include "format/err.h"
#include "format/store_set.h"

#include <stddef.h>

struct sources {
    struct store_source *src; /* owned, with their paths */
    size_t n;
    char *text; /* the paths, joined by commas: for people, and what df shows */
};

/* word[0..n) in order; "auto" (a folder of that name: "./auto") becomes every known store of this user
 * that is there, each named in the log. -ENOENT: there is none; -ENOMEM. */
int sources_init(struct sources *s, const char *const *word, size_t n, struct err *e);
void sources_release(struct sources *s);

/* Makes text anew, after paths were replaced. -ENOMEM. */
int sources_describe(struct sources *s, struct err *e);

#endif
