/* Versions: see compat.h. Built against libfuse 3.14 (Debian 12). */
#define FUSE_USE_VERSION 312
#include "fs/compat.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

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

const char *compat_remote_fs(unsigned f_type)
{
    static const struct {
        unsigned magic;
        const char *name;
    } remote[] = {
        {0x6969, "NFS"},    {0xfe534d42, "SMB"},  {0xff534d42, "CIFS"}, {0x65735546, "FUSE"},
        {0x01021997, "9p"}, {0x00c36400, "Ceph"}, {0x5346414f, "AFS"},  {0x0bd00bd0, "Lustre"},
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

void compat_negotiate(struct fuse_conn_info *conn)
{
    char text[sizeof described];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "libfuse %s, kernel FUSE %u.%u, granted:", fuse_pkgversion(),
                                conn->proto_major, conn->proto_minor);
    /* Nothing that libfuse wants by itself: no splice (slower at 1 MiB, and a truncated source
     * would end as a short success), no dropping of pages by a changed mtime. */
    conn->want = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++)
        if (conn->capable & wanted[i].bit) {
            conn->want |= wanted[i].bit;
            if (n < sizeof text)
                n += (size_t)snprintf(text + n, sizeof text - n, " %s", wanted[i].name);
        }
    conn->max_write = COMPAT_MAX_IO; /* libfuse derives the size of reads from it */
    conn->max_background = 64;
    conn->congestion_threshold = 48;
    conn->time_gran = 1;
    pthread_mutex_lock(&described_mu);
    snprintf(described, sizeof described, "%s", text);
    pthread_mutex_unlock(&described_mu);
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
