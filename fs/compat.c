/* Versions: see compat.h. Built against libfuse 3.14 (Debian 12), or 3.17 and newer, which know
 * passthrough and shared maps of direct opens themselves. */
#define FUSE_USE_VERSION 312
#include "fs/compat.h"

#include "fs/fuse_kernel.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define KNOWS_PASSTHROUGH (FUSE_VERSION >= FUSE_MAKE_VERSION(3, 17))

#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x00000080
#endif

#define N_PLAIN 16 /* file systems remembered as not knowing RWF_DONTCACHE; more are asked again */

static _Atomic uint64_t plain_dev[N_PLAIN]; /* dev + 1; 0 = free */

static bool dev_is_plain(uint64_t dev)
{
    for (int i = 0; i < N_PLAIN; i++)
        if (atomic_load_explicit(&plain_dev[i], memory_order_relaxed) == dev + 1)
            return true;
    return false;
}

static void dev_set_plain(uint64_t dev)
{
    for (int i = 0; i < N_PLAIN; i++) {
        uint64_t free_slot = 0;
        if (atomic_compare_exchange_strong(&plain_dev[i], &free_slot, dev + 1) ||
            free_slot == dev + 1)
            return;
    }
}

ssize_t compat_pread_once(int fd, uint64_t dev, void *dst, size_t len, uint64_t off)
{
    if (!dev_is_plain(dev)) {
        struct iovec v = {.iov_base = dst, .iov_len = len};
        ssize_t n = preadv2(fd, &v, 1, (off_t)off, RWF_DONTCACHE);
        if (n >= 0 || errno != EOPNOTSUPP)
            return n;
        dev_set_plain(dev);
    }
    return pread(fd, dst, len, (off_t)off);
}

/* More than the kernel takes at once, or it takes this for one read of many that have nothing to do with
 * each other: small pages, and no mark in them where the next ones are to be begun. */
#define AHEAD ((size_t)8 << 20)

/* What is missing is begun, and its first page waited for (on older kernels the first that is not there yet
 * among the next few); of what is there, the kernel goes on reading ahead at the mark; then it fails to copy
 * to address 0. (RWF_NOWAIT would not wait, but reads nothing ahead before Linux 6.12.
 * posix_fadvise(WILLNEED) takes single pages, which cost twice the time to map.) */
void compat_read_ahead(int fd, uint64_t off)
{
    struct iovec nowhere = {.iov_base = NULL, .iov_len = AHEAD};
    int e = errno;
    (void)!preadv(fd, &nowhere, 1, (off_t)off);
    errno = e;
}

const char *compat_remote_fs(unsigned f_type)
{
    static const struct {
        unsigned magic;
        const char *name;
    } remote[] = {
        {0x6969, "NFS"},        {0xfe534d42, "SMB"},
        {0xff534d42, "CIFS"},   {0x65735546, "FUSE"},
        {0x01021997, "9p"},     {0x00c36400, "Ceph"},
        {0x5346414f, "AFS"},    {0x0bd00bd0, "Lustre"},
        {0x6b414653, "AFS"},    {0x73757245, "Coda"},
        {0x517b, "SMB"},        {0x7461636f, "OCFS2"},
        {0x01161970, "GFS2"},   {0x47504653, "GPFS"},
        {0x19830326, "BeeGFS"}, {0x786f4256, "VirtualBox"},
        {0xbacbacbc, "VMware"},
    };
    for (size_t i = 0; i < sizeof remote / sizeof *remote; i++)
        if (remote[i].magic == f_type)
            return remote[i].name;
    return NULL;
}

static pthread_mutex_t described_mu = PTHREAD_MUTEX_INITIALIZER;
static char described[256] = "not connected yet";

static const struct {
    unsigned bit;
    const char *name;
} wanted[] = {
    {FUSE_CAP_ASYNC_READ, "async_read"},
    {FUSE_CAP_ASYNC_DIO, "async_dio"},
    {FUSE_CAP_PARALLEL_DIROPS, "parallel_dirops"},
    {FUSE_CAP_READDIRPLUS, "readdirplus"},
    {FUSE_CAP_READDIRPLUS_AUTO, "readdirplus_auto"},
    {FUSE_CAP_CACHE_SYMLINKS, "cache_symlinks"},
    {FUSE_CAP_EXPORT_SUPPORT, "export_support"},
#ifdef FUSE_CAP_EXPLICIT_INVAL_DATA
    {FUSE_CAP_EXPLICIT_INVAL_DATA, "explicit_inval_data"},
#endif
};

static atomic_uint attach_want, attach_granted;

unsigned compat_granted(void)
{
    return atomic_load(&attach_granted);
}

static const char *const granted_name[] = {"", " direct_io_allow_mmap", " passthrough",
                                           " direct_io_allow_mmap passthrough"};

static void describe_granted(unsigned granted)
{
    pthread_mutex_lock(&described_mu);
    size_t n = strlen(described);
    snprintf(described + n, sizeof described - n, "%s", granted_name[granted & 3]);
    pthread_mutex_unlock(&described_mu);
    atomic_store(&attach_granted, granted);
}

/* Takes what libfuse wants by itself away: no splice (slower at 1 MiB, and a truncated source would
 * end as a short success), no dropping of pages by a changed mtime. */
static void want_nothing(struct fuse_conn_info *conn)
{
#if KNOWS_PASSTHROUGH
    conn->want_ext = 0; /* conn->want unchanged: libfuse then takes this one */
#else
    conn->want = 0;
#endif
}

static bool want_bit(struct fuse_conn_info *conn, unsigned bit)
{
#if KNOWS_PASSTHROUGH
    return fuse_set_feature_flag(conn, bit);
#else
    conn->want |= conn->capable & bit;
    return conn->capable & bit;
#endif
}

void compat_negotiate(struct fuse_conn_info *conn)
{
    char text[sizeof described];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "libfuse %s, kernel FUSE %u.%u, granted:", fuse_pkgversion(),
                                conn->proto_major, conn->proto_minor);
    want_nothing(conn);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (want_bit(conn, wanted[i].bit) && n < sizeof text)
            n += (size_t)snprintf(text + n, sizeof text - n, " %s", wanted[i].name);
    conn->max_write = COMPAT_MAX_IO; /* libfuse derives the size of reads from it */
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
    pthread_mutex_lock(&described_mu);
    snprintf(described, sizeof described, "%s", text);
    pthread_mutex_unlock(&described_mu);
#if KNOWS_PASSTHROUGH
    unsigned want = atomic_load(&attach_want), granted = 0;
    if (want & COMPAT_MMAP_DIRECT && want_bit(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP))
        granted |= COMPAT_MMAP_DIRECT;
    if (want & COMPAT_PASSTHROUGH && want_bit(conn, FUSE_CAP_PASSTHROUGH)) {
        granted |= COMPAT_PASSTHROUGH;
        conn->max_backing_stack_depth = 1;
    }
    describe_granted(granted);
#endif
}

/* --- INIT, as libfuse before 3.17 does not speak it --------------------------------------- */

bool compat_offer_read(struct compat_offer *o, const void *msg, size_t len)
{
    struct fuse_kernel_in_header h;
    struct fuse_kernel_init_in in;
    if (len < sizeof h + sizeof in)
        return false;
    memcpy(&h, msg, sizeof h);
    memcpy(&in, (const char *)msg + sizeof h, sizeof in);
    if (h.opcode != FUSE_KERNEL_OP_INIT || h.len != len || in.major != FUSE_KERNEL_MAJOR ||
        !(in.flags & FUSE_KERNEL_INIT_EXT))
        return false;
    *o = (struct compat_offer){.unique = h.unique, .flags = in.flags, .flags2 = in.flags2};
    return true;
}

unsigned compat_answer_patch(const struct compat_offer *o, const struct iovec *iov, int n,
                             unsigned want, unsigned char msg[80])
{
    struct fuse_kernel_out_header h;
    struct fuse_kernel_init_out out;
    unsigned granted = 0;
    if (n != 2 || iov[0].iov_len != sizeof h || iov[1].iov_len != sizeof out)
        return 0;
    memcpy(&h, iov[0].iov_base, sizeof h);
    memcpy(&out, iov[1].iov_base, sizeof out);
    if (h.len != sizeof h + sizeof out || h.error != 0 || h.unique != o->unique ||
        out.major != FUSE_KERNEL_MAJOR)
        return 0;
    if (want & COMPAT_MMAP_DIRECT && o->flags2 & FUSE_KERNEL_DIRECT_IO_ALLOW_MMAP2) {
        out.flags2 |= FUSE_KERNEL_DIRECT_IO_ALLOW_MMAP2;
        granted |= COMPAT_MMAP_DIRECT;
    }
    if (want & COMPAT_PASSTHROUGH && o->flags2 & FUSE_KERNEL_PASSTHROUGH2) {
        out.flags2 |= FUSE_KERNEL_PASSTHROUGH2;
        out.max_stack_depth = 1; /* the backing file is on a file system that is on no other */
        granted |= COMPAT_PASSTHROUGH;
    }
    out.flags |= granted ? FUSE_KERNEL_INIT_EXT : 0;
    memcpy(msg, &h, sizeof h);
    memcpy(msg + sizeof h, &out, sizeof out);
    return granted;
}

#if !KNOWS_PASSTHROUGH
enum { INIT_AWAITED, INIT_ASKED, INIT_DONE };
static atomic_int init_state;
static struct compat_offer
    offer; /* INIT is alone: the kernel sends nothing else before its answer */
static __thread int write_error;

static ssize_t io_read(int fd, void *buf, size_t len, void *userdata)
{
    (void)userdata;
    ssize_t n = read(fd, buf, len);
    if (n > 0 && atomic_load_explicit(&init_state, memory_order_relaxed) == INIT_AWAITED)
        atomic_store(&init_state,
                     compat_offer_read(&offer, buf, (size_t)n) ? INIT_ASKED : INIT_DONE);
    return n;
}

static ssize_t io_writev(int fd, struct iovec *iov, int n, void *userdata)
{
    unsigned char msg[80];
    unsigned granted = 0;
    (void)userdata;
    if (atomic_load_explicit(&init_state, memory_order_relaxed) == INIT_ASKED) {
        atomic_store(&init_state, INIT_DONE);
        granted = compat_answer_patch(&offer, iov, n, atomic_load(&attach_want), msg);
        describe_granted(granted); /* before the first open */
    }
    ssize_t rc = granted ? write(fd, msg, sizeof msg) : writev(fd, iov, n);
    write_error = rc < 0 ? errno : 0;
    if (write_error == EFAULT)
        errno = ENOENT; /* as an interrupted request: libfuse else prints a line of its own */
    return rc;
}

static int attach(struct fuse_session *se)
{
    static const struct fuse_custom_io io = {.read = io_read, .writev = io_writev};
    return fuse_session_custom_io(se, &io, fuse_session_fd(se));
}
#endif

int compat_attach(struct fuse_session *se, unsigned want)
{
    atomic_store(&attach_want, want);
#if KNOWS_PASSTHROUGH
    (void)se;
    return 0;
#else
    return attach(se);
#endif
}

int compat_reply_open(fuse_req_t req, const struct fuse_file_info *fi, int32_t backing_id)
{
    if (backing_id <= 0)
        return fuse_reply_open(req, fi);
    assert(!fi->direct_io && !fi->keep_cache);
#if KNOWS_PASSTHROUGH
    struct fuse_file_info f = *fi;
    f.backing_id = backing_id;
    f.noflush = 0; /* the kernel takes few flags beside this one */
    return fuse_reply_open(req, &f);
#else
    const struct fuse_kernel_open_out out = {
        .fh = fi->fh, .open_flags = FUSE_KERNEL_FOPEN_PASSTHROUGH, .backing_id = backing_id};
    return fuse_reply_buf(req, (const char *)&out, sizeof out);
#endif
}

int compat_reply_iov(fuse_req_t req, const struct iovec *iov, int n)
{
    int rc = fuse_reply_iov(req, iov, n);
#if !KNOWS_PASSTHROUGH
    if (rc < 0 && write_error == EFAULT)
        rc = -EFAULT;
#endif
    return rc;
}

void compat_describe(char *dst, size_t size)
{
    pthread_mutex_lock(&described_mu);
    snprintf(dst, size, "%s", described);
    pthread_mutex_unlock(&described_mu);
}

unsigned compat_n_threads(void)
{
    long n = 2 * sysconf(_SC_NPROCESSORS_ONLN);
    return n < 4 ? 4 : n > 16 ? 16 : (unsigned)n;
}

int compat_loop(struct fuse_session *se, bool single)
{
    int rc;
    if (single) {
        rc = fuse_session_loop(se);
    } else {
        struct fuse_loop_config *cfg = fuse_loop_cfg_create();
        if (!cfg)
            return -ENOMEM;
        fuse_loop_cfg_set_clone_fd(cfg, 1);
        fuse_loop_cfg_set_max_threads(cfg, compat_n_threads());
        fuse_loop_cfg_set_idle_threads(cfg, compat_n_threads());
        rc = fuse_session_loop_mt(se, cfg);
        fuse_loop_cfg_destroy(cfg);
        if (rc == -1) /* its word for a first thread that could not be made, and no errno */
            rc = -EAGAIN;
    }
    /* > 0: ended by a signal, not ours; -ENODEV: the connection went away, which is an end too. */
    return rc > 0 || rc == -ENODEV ? 0 : rc;
}

int compat_open_readahead(dev_t dev)
{
    char path[80];
    snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(dev), minor(dev));
    return open(path, O_WRONLY | O_CLOEXEC);
}

bool compat_set_readahead(int fd, unsigned kb)
{
    return fd >= 0 && dprintf(fd, "%u\n", kb) > 0;
}
