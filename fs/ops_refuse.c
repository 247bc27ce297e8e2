/* Operations that would change something: each is EROFS, and counted. */
#include "fs/ops_internal.h"

#include "fs/fs.h"

#include <errno.h>

static void refuse_change(fuse_req_t req)
{
    struct fs *fs = fuse_req_userdata(req);
    counters_op(&fs->count, COUNT_modify);
    counters_error(&fs->count, EROFS); /* before it is answered: req is gone afterwards */
    fuse_reply_err(req, EROFS);
}

void ops_refuse_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set,
                        struct fuse_file_info *fi)
{
    (void)ino, (void)attr, (void)to_set, (void)fi;
    refuse_change(req);
}

void ops_refuse_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    (void)parent, (void)name, (void)mode, (void)rdev;
    refuse_change(req);
}

void ops_refuse_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    (void)parent, (void)name, (void)mode;
    refuse_change(req);
}

void ops_refuse_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    (void)parent, (void)name;
    refuse_change(req);
}

void ops_refuse_symlink(fuse_req_t req, const char *link, fuse_ino_t parent, const char *name)
{
    (void)link, (void)parent, (void)name;
    refuse_change(req);
}

void ops_refuse_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t newparent,
                       const char *newname, unsigned int flags)
{
    (void)parent, (void)name, (void)newparent, (void)newname, (void)flags;
    refuse_change(req);
}

void ops_refuse_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t newparent, const char *newname)
{
    (void)ino, (void)newparent, (void)newname;
    refuse_change(req);
}

void ops_refuse_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off,
                      struct fuse_file_info *fi)
{
    (void)ino, (void)buf, (void)size, (void)off, (void)fi;
    refuse_change(req);
}

void ops_refuse_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
                       struct fuse_file_info *fi)
{
    (void)parent, (void)name, (void)mode, (void)fi;
    refuse_change(req);
}

void ops_refuse_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value,
                         size_t size, int flags)
{
    (void)ino, (void)name, (void)value, (void)size, (void)flags;
    refuse_change(req);
}

void ops_refuse_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name)
{
    (void)ino, (void)name;
    refuse_change(req);
}

void ops_refuse_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len,
                          struct fuse_file_info *fi)
{
    (void)ino, (void)mode, (void)off, (void)len, (void)fi;
    refuse_change(req);
}

void ops_refuse_copy_file_range(fuse_req_t req, fuse_ino_t in, off_t off_in,
                                struct fuse_file_info *fi_in, fuse_ino_t out, off_t off_out,
                                struct fuse_file_info *fi_out, size_t len, int flags)
{
    (void)in, (void)off_in, (void)fi_in, (void)out, (void)off_out, (void)fi_out, (void)len;
    (void)flags;
    refuse_change(req);
}
