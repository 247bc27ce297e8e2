/* FUSE requests -> tree, files, texts. Each is answered exactly once, at its end; a read's answer is
 * complete or an error. What would change anything is EROFS. */
#ifndef APRFS_FS_OPS_H
#define APRFS_FS_OPS_H

struct fs;
struct fuse_lowlevel_ops;

/* The table; the session's userdata is a struct fs. */
extern const struct fuse_lowlevel_ops ops_table;

/* Closes what is still open once the session has ended: the kernel does not release the handles of a
 * connection that it drops. */
void ops_close_all(struct fs *fs);

#endif
