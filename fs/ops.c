/* FUSE operations: see ops.h. */
#define FUSE_USE_VERSION 312
#include "fs/ops.h"

#include "fs/compat.h"
#include "fs/ctl.h"
#include "fs/fs.h"
#include "fs/log.h"
#include "fs/ops_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>

#define RESCAN_WAIT_MS 1000 /* who met a changed source waits that long for its new name */
#define LOOKUP_POLL_MS 10

struct fs *ops_fs(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

void ops_count(fuse_req_t req, enum counters_op op)
{
    counters_op(&ops_fs(req)->count, op);
}

void ops_reply_err(fuse_req_t req, int error)
{
    counters_error(&ops_fs(req)->count, error);
    fuse_reply_err(req, error);
}

struct handle *ops_handle(const struct fuse_file_info *fi)
{
    return (struct handle *)(uintptr_t)fi->fh;
}

/* --- nodes -------------------------------------------------------------------------------- */

static enum vfile_text text_of(enum node_kind k)
{
    return k == NODE_TOKENIZER    ? VFILE_TOKENIZER
           : k == NODE_CONFIG     ? VFILE_CONFIG
           : k == NODE_GENERATION ? VFILE_GENERATION
           : k == NODE_CRC32      ? VFILE_CRC32
                                  : VFILE_EXTENTS;
}

static bool is_text(const struct node *n)
{
    return n->kind == NODE_TOKENIZER || n->kind == NODE_CONFIG || n->kind == NODE_GENERATION ||
           n->kind == NODE_EXTENTS || n->kind == NODE_CRC32;
}

static int item_get(struct fs *fs, struct node *n, struct vcache_item **out, struct err *e)
{
    struct vfile *vf = nodes_vfile(fs->nodes, n);
    int rc = vfile_text(vf, text_of(n->kind), n->id, out, e);
    vfile_put(vf);
    return rc;
}

/* The size must be true in the first stat: a text is made once to know it. */
static int settle_size(struct fs *fs, struct node *n, struct err *e)
{
    if (atomic_load(&n->size) != NODE_SIZE_UNKNOWN)
        return 0;
    if (is_text(n)) {
        struct vcache_item *it;
        int rc = item_get(fs, n, &it, e);
        if (rc < 0)
            return rc;
        atomic_store(&n->size, vcache_item_len(it));
        vcache_put(fs->env.texts, it);
    }
    return 0;
}

static int full_stat(struct fs *fs, struct node *n, struct stat *st, struct err *e)
{
    int rc = settle_size(fs, n, e);
    if (rc < 0)
        return rc;
    node_stat(n, st);
    if (n->kind == NODE_CTL) {
        char *text;
        size_t len;
        rc = ctl_text(fs, n->ctl, &text, &len, e);
        if (rc < 0)
            return rc;
        free(text);
        st->st_size = (off_t)len;
        st->st_blocks = (blkcnt_t)((len + 511) / 512);
    }
    return 0;
}

void ops_set_entry(struct fs *fs, const struct node *n, const struct stat *st,
                   struct fuse_entry_param *p)
{
    *p = (struct fuse_entry_param){.ino = n->ino, .generation = 1, .attr = *st};
    bool passing = n->kind == NODE_CTL || (node_is_file(n) && vfile_stale(n->vf));
    p->entry_timeout = passing ? 0 : fs->entry_timeout_s;
    p->attr_timeout = passing ? 0 : fs->attr_timeout_s;
}

static void reply_failed(fuse_req_t req, const struct node *n, const char *what, int rc,
                         const struct err *e)
{
    log_line(LOG_WARN, "%s: %s: %s", n->path, what, e->msg);
    ops_reply_err(req, -rc);
}

/* --- lookup and attributes ---------------------------------------------------------------- */

/* "." and ".." by number, which NFS asks for; the kernel's own walks never do. */
static struct node *lookup_dot(struct fs *fs, uint64_t ino, const char *name)
{
    struct node *n = nodes_find(fs->nodes, ino);
    if (n && name[1] == '.') {
        struct node *up = nodes_find(fs->nodes, n->parent);
        nodes_put(fs->nodes, n);
        n = up;
    }
    if (n)
        nodes_add_lookup(fs->nodes, n);
    return n;
}

/* The child and its attributes, counted as one lookup by the kernel; ENOENT leaves *n NULL. A sibling
 * cannot be made from a source that changed since the scan: the next tree's one is waited for. Not by
 * watch_rescan: the kernel holds the directory, which the watch thread may want to notify. */
static int find_child(struct fs *fs, fuse_ino_t parent, const char *name, struct node **n,
                      struct stat *st, struct err *e)
{
    for (unsigned ms = 0;; ms += LOOKUP_POLL_MS) {
        *n = NULL;
        if (nodes_lookup(fs->nodes, parent, name, n) < 0)
            return err_set(e, -ENOENT, "no such name");
        int rc = full_stat(fs, *n, st, e);
        if (rc != -ENODATA && (rc != -ESTALE || ms >= RESCAN_WAIT_MS))
            return rc;
        nodes_forget(fs->nodes, (*n)->ino, 1);
        nodes_put(fs->nodes, *n);
        *n = NULL;
        if (rc == -ENODATA) /* a text that there is not yet */
            return -ENOENT;
        if (ms == 0)
            watch_kick(fs->watch);
        nanosleep(&(struct timespec){.tv_nsec = LOOKUP_POLL_MS * 1000000L}, NULL);
    }
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    ops_count(req, COUNT_lookup);
    struct fs *fs = ops_fs(req);
    struct fuse_entry_param p = {.entry_timeout = FS_NEGATIVE_TIMEOUT_S};
    struct node *n;
    struct stat st;
    struct err e;
    int rc;
    watch_touch(fs->watch);
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        n = lookup_dot(fs, parent, name);
        rc = n ? full_stat(fs, n, &st, &e) : -ESTALE;
    } else {
        rc = find_child(fs, parent, name, &n, &st, &e);
    }
    if (!n && rc == -ENOENT) {
        counters_error(&fs->count, ENOENT);
        fuse_reply_entry(req, &p); /* ino 0: there is none, and that may be remembered */
    } else if (!n) {
        ops_reply_err(req, -rc);
    } else if (rc < 0) {
        nodes_forget(fs->nodes, n->ino, 1);
        reply_failed(req, n, "lookup", rc, &e);
    } else {
        ops_set_entry(fs, n, &st, &p);
        if (fuse_reply_entry(req, &p) < 0)
            nodes_forget(fs->nodes, n->ino, 1); /* interrupted: the kernel does not count it */
    }
    nodes_put(fs->nodes, n);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t nlookup)
{
    ops_count(req, COUNT_forget);
    nodes_forget(ops_fs(req)->nodes, ino, nlookup);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *f)
{
    ops_count(req, COUNT_forget);
    struct fs *fs = ops_fs(req);
    for (size_t i = 0; i < count; i++)
        nodes_forget(fs->nodes, f[i].ino, f[i].nlookup);
    fuse_reply_none(req);
}

struct node *ops_node(fuse_req_t req, fuse_ino_t ino)
{
    struct node *n = nodes_find(ops_fs(req)->nodes, ino);
    if (!n)
        ops_reply_err(req, ESTALE);
    return n;
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    ops_count(req, COUNT_getattr);
    (void)fi;
    struct fs *fs = ops_fs(req);
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    struct stat st;
    struct err e;
    int rc = full_stat(fs, n, &st, &e);
    if (rc < 0)
        reply_failed(req, n, "stat", rc, &e);
    else
        fuse_reply_attr(req, &st, n->kind == NODE_CTL ? 0 : fs->attr_timeout_s);
    nodes_put(fs->nodes, n);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    ops_count(req, COUNT_readlink);
    struct fs *fs = ops_fs(req); /* req is gone once it is answered */
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    if (n->kind == NODE_LINK)
        fuse_reply_readlink(req, n->target);
    else
        ops_reply_err(req, EINVAL);
    nodes_put(fs->nodes, n);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    ops_count(req, COUNT_statfs);
    (void)ino;
    /* No blocks: nothing is stored here. */
    struct statvfs st = {.f_bsize = 4096,
                         .f_frsize = 4096,
                         .f_files = nodes_count(ops_fs(req)->nodes),
                         .f_namemax = 255,
                         .f_flag = ST_RDONLY | ST_NOSUID | ST_NODEV};
    fuse_reply_statfs(req, &st);
}

/* --- open and read ------------------------------------------------------------------------ */

struct handle *ops_handle_new(struct fs *fs, struct node *node)
{
    struct handle *h = calloc(1, sizeof *h);
    if (!h) {
        nodes_put(fs->nodes, node);
        return NULL;
    }
    h->node = node;
    pthread_mutex_lock(&fs->handles_mu);
    h->next = fs->handles;
    if (h->next)
        h->next->prev = h;
    fs->handles = h;
    pthread_mutex_unlock(&fs->handles_mu);
    return h;
}

void ops_handle_free(struct fs *fs, struct handle *h)
{
    pthread_mutex_lock(&fs->handles_mu);
    *(h->prev ? &h->prev->next : &fs->handles) = h->next;
    if (h->next)
        h->next->prev = h->prev;
    pthread_mutex_unlock(&fs->handles_mu);
    tiers_close(fs->tiers, &h->tier);
    if (h->vf) {
        vfile_close(h->vf);
        vfile_put(h->vf);
    }
    vcache_put(fs->env.texts, h->item);
    free(h->text);
    if (h->lists)
        nodes_list_close(fs->nodes, h->node);
    nodes_put(fs->nodes, h->node);
    free(h);
}

void ops_close_all(struct fs *fs)
{
    while (fs->handles)
        ops_handle_free(fs, fs->handles);
}

static int open_apr(struct fs *fs, struct handle *h, pid_t pid, struct err *e)
{
    struct vfile *vf = nodes_vfile(fs->nodes, h->node);
    int rc = vfile_open(vf, e);
    if (rc < 0) {
        vfile_put(vf);
        return rc;
    }
    h->vf = vf;
    atomic_fetch_add(&fs->n_open_total, 1);
    rc = tiers_open(fs->tiers, vf, compat_granted(), pid, &h->tier, e);
    if (rc == 0 && h->tier.mode == TIER_1A) {
        /* What the kernel reads by itself needs neither the source's descriptors nor a lease on it,
         * which would hold up whoever changes the source. */
        h->vf = NULL;
        vfile_close(vf);
        vfile_put(vf);
    }
    return rc;
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    ops_count(req, COUNT_open);
    struct fs *fs = ops_fs(req);
    if ((fi->flags & O_ACCMODE) != O_RDONLY || (fi->flags & O_TRUNC)) {
        ops_reply_err(req, EROFS);
        return;
    }
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    struct err e;
    struct handle *h = ops_handle_new(fs, n);
    if (!h) {
        ops_reply_err(req, ENOMEM);
        return;
    }
    int rc = err_set(&e, -EISDIR, "not a file");
    if (node_is_file(n))
        rc = open_apr(fs, h, fuse_req_ctx(req)->pid, &e);
    else if (is_text(n))
        rc = item_get(fs, n, &h->item, &e);
    else if (n->kind == NODE_CTL)
        rc = ctl_text(fs, n->ctl, &h->text, &h->text_len, &e);
    /* Changed, or being written: the kernel looks the name up again on ESTALE, so the new tree shall
     * be there by then. */
    if (rc == -ESTALE || rc == -EAGAIN) {
        watch_rescan(fs->watch, RESCAN_WAIT_MS);
        rc = -ESTALE;
    }
    if (rc < 0) {
        if (rc != -ESTALE)
            log_line(LOG_WARN, "%s: open: %s", n->path, e.msg);
        ops_handle_free(fs, h);
        ops_reply_err(req, -rc);
        return;
    }
    fi->fh = (uintptr_t)h;
    fi->direct_io = n->kind == NODE_CTL || h->tier.mode == TIER_DIRECT;
    /* One inode is one content for ever, so what the kernel has cached of it stays true. */
    fi->keep_cache = !fi->direct_io && h->tier.mode != TIER_1A;
    fi->noflush = 1;
    if (compat_reply_open(req, fi, h->tier.backing_id) < 0)
        ops_handle_free(fs, h);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    ops_count(req, COUNT_release);
    (void)ino;
    ops_handle_free(ops_fs(req), ops_handle(fi));
    fuse_reply_err(req, 0);
}

/* One page-aligned buffer per worker, made at its first read and gone with the thread. */
static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void buffer_free(void *p)
{
    munmap(p, COMPAT_MAX_IO);
}

static void buffer_init(void)
{
    if (pthread_key_create(&buffer_key, buffer_free) != 0)
        abort();
}

static void *buffer_get(void)
{
    pthread_once(&buffer_once, buffer_init);
    void *p = pthread_getspecific(buffer_key);
    if (p)
        return p;
    p = mmap(NULL, COMPAT_MAX_IO, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (pthread_setspecific(buffer_key, p) != 0) {
        munmap(p, COMPAT_MAX_IO);
        return NULL;
    }
    return p;
}

static int read_handle(struct handle *h, void *dst, uint64_t off, size_t size, size_t *got,
                       struct err *e)
{
    if (h->vf)
        return vfile_read(h->vf, dst, off, size, got, e);
    if (h->tier.mode == TIER_1A)
        return err_set(e, -EIO, "a read of a file that the kernel reads by itself");
    size_t len = h->item ? vcache_item_len(h->item) : h->text_len;
    *got = off >= len ? 0 : len - off < size ? len - off : size;
    if (*got == 0)
        return 0;
    if (h->item)
        return vcache_item_read(h->item, dst, off, *got, e);
    memcpy(dst, h->text + off, *got);
    return 0;
}

/* A direct read is answered out of the mappings, if that can be done; false: not done. Once it is
 * answered the reader may close the file: h is not touched any more. */
static bool read_sent(fuse_req_t req, struct handle *h, void *buf, uint64_t off, size_t size)
{
    struct fs *fs = ops_fs(req);
    struct iovec iov[COMPAT_MAX_IOV];
    struct vfile *vf = h->vf;
    struct err e;
    int n;
    size_t got;
    if (!vf || h->tier.mode != TIER_DIRECT || !buf || size > COMPAT_MAX_IO)
        return false;
    bool follows = atomic_exchange(&h->next_off, off + size) == off;
    if (vfile_send(vf, off, size, follows, iov, COMPAT_MAX_IOV, &n, &got, buf, &e) <= 0)
        return false; /* what is wrong, the other way will say */
    int rc = compat_reply_iov(req, iov, n);
    if (rc == -EFAULT) { /* the kernel has told the reader EIO */
        counters_error(&fs->count, EIO);
        atomic_fetch_add(&fs->n_eio, 1);
        log_line(LOG_WARN, "source ended or failed under a read of %zu bytes at %" PRIu64, got,
                 off);
    }
    atomic_fetch_add_explicit(&fs->n_read, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&fs->n_read_bytes, rc < 0 ? 0 : got, memory_order_relaxed);
    counters_read(&fs->count, COUNT_READ_DIRECT, rc < 0 ? 0 : got);
    vfile_sent(vf, got);
    return true;
}

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                    struct fuse_file_info *fi)
{
    ops_count(req, COUNT_read);
    (void)ino;
    struct fs *fs = ops_fs(req);
    struct handle *h = ops_handle(fi);
    void *buf = buffer_get();
    struct err e;
    size_t got = 0;
    if (read_sent(req, h, buf, (uint64_t)off, size))
        return;
    /* The size was agreed on at INIT; a larger request would be the kernel's mistake. */
    int rc = !buf                   ? err_set(&e, -ENOMEM, "no memory for a buffer")
             : size > COMPAT_MAX_IO ? err_set(&e, -EINVAL, "read of %zu bytes", size)
                                    : read_handle(h, buf, (uint64_t)off, size, &got, &e);
    atomic_fetch_add_explicit(&fs->n_read, 1, memory_order_relaxed);
    if (rc < 0) {
        atomic_fetch_add(&fs->n_eio, 1);
        if (!h->vf || !vfile_stale(h->vf)) /* that was said once already */
            log_line(LOG_WARN, "%s: %s", h->node->path, e.msg);
        ops_reply_err(req, -rc);
        return;
    }
    atomic_fetch_add_explicit(&fs->n_read_bytes, got, memory_order_relaxed);
    counters_read(&fs->count,
                  !h->vf                        ? COUNT_READ_TEXT
                  : h->tier.mode == TIER_DIRECT ? COUNT_READ_DIRECT
                                                : COUNT_READ_CACHED,
                  got);
    fuse_reply_buf(req, buf, got);
}

/* --- extended attributes ------------------------------------------------------------------ */

static void reply_value(fuse_req_t req, const char *p, size_t len, size_t size)
{
    if (size == 0)
        fuse_reply_xattr(req, len);
    else if (len > size)
        ops_reply_err(req, ERANGE);
    else
        fuse_reply_buf(req, p, len);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    ops_count(req, COUNT_getxattr);
    struct fs *fs = ops_fs(req);
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    char *text = NULL;
    size_t len = 0;
    struct err e;
    int rc = ctl_xattr(fs, n, name, &text, &len, &e);
    if (rc == -ESTALE) /* as in op_open */
        watch_rescan(fs->watch, RESCAN_WAIT_MS);
    if (rc < 0)
        ops_reply_err(req, -rc);
    else
        reply_value(req, text, len, size);
    free(rc < 0 ? NULL : text);
    nodes_put(fs->nodes, n);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    ops_count(req, COUNT_listxattr);
    struct fs *fs = ops_fs(req);
    struct node *n = ops_node(req, ino);
    if (!n)
        return;
    char *text = NULL;
    size_t len = 0;
    struct err e;
    int rc = ctl_xattr_list(fs, n, &text, &len, &e);
    if (rc < 0)
        ops_reply_err(req, -rc);
    else
        reply_value(req, text, len, size);
    free(text);
    nodes_put(fs->nodes, n);
}

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    compat_negotiate(conn);
}

const struct fuse_lowlevel_ops ops_table = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .readlink = op_readlink,
    .statfs = op_statfs,
    .open = op_open,
    .read = op_read,
    .release = op_release,
    .opendir = ops_dir_open,
    .readdir = ops_dir_read,
    .readdirplus = ops_dir_read_plus,
    .releasedir = ops_dir_release,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .setattr = ops_refuse_setattr,
    .mknod = ops_refuse_mknod,
    .mkdir = ops_refuse_mkdir,
    .unlink = ops_refuse_unlink,
    .rmdir = ops_refuse_unlink,
    .symlink = ops_refuse_symlink,
    .rename = ops_refuse_rename,
    .link = ops_refuse_link,
    .write = ops_refuse_write,
    .create = ops_refuse_create,
    .setxattr = ops_refuse_setxattr,
    .removexattr = ops_refuse_removexattr,
    .fallocate = ops_refuse_fallocate,
    .copy_file_range = ops_refuse_copy_file_range,
};
