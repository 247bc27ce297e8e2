/* Between ops.c (the table, and what reads) and ops_refuse.c (what would change something). */
#ifndef APRFS_FS_OPS_INTERNAL_H
#define APRFS_FS_OPS_INTERNAL_H

#ifndef FUSE_USE_VERSION
#define FUSE_USE_VERSION 312
#endif
#include <fuse_lowlevel.h>

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
