/* What depends on the versions of libfuse and of the kernel; no #if about them elsewhere. */
#ifndef APRFS_FS_COMPAT_H
#define APRFS_FS_COMPAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct fuse_conn_info;
struct fuse_file_info;
struct fuse_req;
struct fuse_session;
struct iovec;

#define COMPAT_MAX_IO ((size_t)1 << 20) /* the largest read the kernel sends */

/* One read that uses the source's cached pages where there are any and leaves none behind
 * (RWF_DONTCACHE, Linux 6.14); a plain pread where the file system of dev does not know it, which
 * is remembered. As pread(2). */
ssize_t compat_pread_once(int fd, uint64_t dev, void *dst, size_t len, uint64_t off);

/* What a large read at off would make the kernel read ahead, without the read: nothing is copied, and no more
 * waited for than a page. For who goes on to touch these bytes in a mapping of fd, where the kernel by
 * itself reads no more at once than read_ahead_kb (128, mostly), and begins later. */
void compat_read_ahead(int fd, uint64_t off);

/* The name of a file system whose files others may change without this kernel knowing, by the
 * f_type of statfs(2); NULL: a local one. There inotify sees nothing, and a lease is refused with
 * EAGAIN for other reasons than a writer. */
const char *compat_remote_fs(unsigned f_type);

/* What libfuse before 3.17 cannot ask the kernel for. */
#define COMPAT_MMAP_DIRECT 1u /* shared maps of direct opens: Linux 6.6 */
#define COMPAT_PASSTHROUGH 2u /* files that the kernel reads from another file: Linux 6.9 */

/* After the session is mounted and before it is served: asks for these too, if the kernel offers
 * them. A libfuse without them is served by our own read and write, which add the bits to the answer
 * of INIT; whatever is not as expected there is sent as it is. 0 or a negative errno. */
int compat_attach(struct fuse_session *se, unsigned want);
unsigned compat_granted(void); /* 0 until INIT was answered */

/* Inside INIT: what we want of the kernel. Kept as text for status.txt. */
void compat_negotiate(struct fuse_conn_info *conn);
void compat_describe(char *dst, size_t size); /* "libfuse 3.14.0, kernel FUSE 7.45, granted: ..." */

/* fuse_reply_open; backing_id > 0: the kernel reads that file (fi->direct_io and fi->keep_cache are
 * then not allowed), for this open and for all others of the inode. */
int compat_reply_open(struct fuse_req *req, const struct fuse_file_info *fi, int32_t backing_id);
/* fuse_reply_iov; -EFAULT where the kernel found no bytes behind an address: the reader got EIO. */
int compat_reply_iov(struct fuse_req *req, const struct iovec *iov, int n);
#define COMPAT_MAX_IOV 1023 /* of one reply, beside its header */

/* For tests of compat_attach: INIT as the kernel asks (opcode 26 in front), and the answer to it.
 * compat_offer_read: whether msg is that request. compat_answer_patch: the bits granted, with the 80
 * bytes to send in out; 0: iov is to be sent as it is. */
struct compat_offer {
    uint64_t unique;
    uint32_t flags, flags2;
};
bool compat_offer_read(struct compat_offer *o, const void *msg, size_t len);
unsigned compat_answer_patch(const struct compat_offer *o, const struct iovec *iov, int n,
                             unsigned want, unsigned char out[80]);

/* Serves until the session ends: one thread, or several with a descriptor each. 0, or a negative
 * errno. */
int compat_loop(struct fuse_session *se, bool single);
unsigned compat_n_threads(void); /* that compat_loop may use */

/* /sys/class/bdi/<dev>/read_ahead_kb, opened while that is allowed (else < 0), written once INIT was
 * answered, which sets it too; false where that is not permitted. */
int compat_open_readahead(dev_t dev);
bool compat_set_readahead(int fd, unsigned kb);

#endif
