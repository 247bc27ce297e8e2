/* What one can ask a mount: the texts below .aprfs and the extended attributes. */
#ifndef APRFS_FS_CTL_H
#define APRFS_FS_CTL_H

#include "format/err.h"
#include "fs/fs.h"

#include <stddef.h>

/* The text of a control file as it is now; malloc'ed. */
int ctl_text(struct fs *fs, enum node_ctl which, char **out, size_t *len, struct err *e);

/* The value of an extended attribute; malloc'ed. -ENODATA: this node has none of that name. */
int ctl_xattr(struct fs *fs, struct node *n, const char *name, char **out, size_t *len,
              struct err *e);
/* The names of those that it has, each with its NUL; malloc'ed. */
int ctl_xattr_list(struct fs *fs, struct node *n, char **out, size_t *len, struct err *e);

#endif
