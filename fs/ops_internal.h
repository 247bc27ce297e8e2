/* Between ops.c (the table; names, files, attributes), ops_dir.c (directories) and ops_refuse.c (what
 * would change something). */
#ifndef APRFS_FS_OPS_INTERNAL_H
#define APRFS_FS_OPS_INTERNAL_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif
#include "fs/fs.h"

#include <fuse_lowlevel.h>

/* What an open file or directory holds; fi->fh. */
struct handle {
    struct node *node;
    struct vfile *vf; /* open, for a .apr */
    struct tier_open tier;
    atomic_uint_least64_t next_off; /* where a read would go on from the last one */
    struct vcache_item *item;       /* sibling or extents */
    char *text;                     /* control file */
    size_t text_len;
    bool lists;                 /* a directory's: by nodes_list_open */
    struct handle *prev, *next; /* in fs->handles */
};

/* --- ops.c -------------------------------------------------------------------------------- */

struct fs *ops_fs(fuse_req_t req);
struct handle *ops_handle(const struct fuse_file_info *fi);
void ops_count(fuse_req_t req, enum counters_op op);
/* Counted before it is answered: req is gone afterwards. */
void ops_reply_err(fuse_req_t req, int error);
/* The live node of that number, counted; NULL: none, and req is answered. */
struct node *ops_node(fuse_req_t req, fuse_ino_t ino);
/* A handle on node, which it takes over; NULL: no memory, and node is put. */
struct handle *ops_handle_new(struct fs *fs, struct node *node);
void ops_handle_free(struct fs *fs, struct handle *h);
void ops_set_entry(struct fs *fs, const struct node *n, const struct stat *st,
                   struct fuse_entry_param *p);

/* --- ops_dir.c ---------------------------------------------------------------------------- */

void ops_dir_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_dir_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void ops_dir_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                  struct fuse_file_info *fi);
void ops_dir_read_plus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                       struct fuse_file_info *fi);

/* --- ops_refuse.c ------------------------------------------------------------------------- */

void ops_refuse_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                        struct fuse_file_info *fi);
void ops_refuse_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void ops_refuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void ops_refuse_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void ops_refuse_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name);
void ops_refuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                       const char *newname, unsigned int flags);
void ops_refuse_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname);
void ops_refuse_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                      struct fuse_file_info *fi);
void ops_refuse_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                       struct fuse_file_info *fi);
void ops_refuse_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                         size_t size, int flags);
void ops_refuse_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name);
void ops_refuse_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                          struct fuse_file_info *fi);
void ops_refuse_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in,
                                struct fuse_file_info *fi_in, fuse_ino_t out, off_t off_out,
                                struct fuse_file_info *fi_out, size_t len, int flags);

#endif
