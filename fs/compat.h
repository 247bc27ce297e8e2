/* What depends on the versions of libfuse and of the kernel; no #if about them elsewhere. */
#ifndef APRFS_FS_COMPAT_H
#define APRFS_FS_COMPAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fuse_conn_info;
struct fuse_session;

#define COMPAT_MAX_IO ((size_t)1 << 20) /* the largest read the kernel sends */

/* One read that uses the source's cached pages where there are any and leaves none behind
 * (RWF_DONTCACHE, Linux 6.14); a plain pread where the file system of dev does not know it, which
 * is remembered. As pread(2). */
ssize_t compat_pread_once(int fd, uint64_t dev, void *dst, size_t len, uint64_t off);

/* The name of a file system whose files others may change without this kernel knowing, by the
 * f_type of statfs(2); NULL: a local one. There inotify sees nothing, and a lease is refused with
 * EAGAIN for other reasons than a writer. */
const char *compat_remote_fs(unsigned f_type);

/* Inside INIT: what we want of the kernel. Kept as text for status.txt. */
void compat_negotiate(struct fuse_conn_info *conn);
void compat_describe(char *dst, size_t size); /* "libfuse 3.14.0, kernel FUSE 7.45, granted: ..." */

/* Serves until the session ends: one thread, or several with a descriptor each. 0, or a negative
 * errno. */
int compat_loop(struct fuse_session *se, bool single);
unsigned compat_n_threads(void); /* that compat_loop may use */

/* /sys/class/bdi/<dev>/read_ahead_kb, opened while that is allowed (else < 0), written once INIT was
 * answered, which sets it too; false where that is not permitted. */
int compat_open_readahead(dev_t dev);
bool compat_set_readahead(int fd, unsigned kb);

#endif
