/* Sources: see source.h. */
#include "format/source.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct source {
    const struct source_ops *ops;
    void *ctx; /* memory: the bytes; file: unused */
    int fd;
    uint64_t size;
    struct source_id id;
    void (*before)(void *ctx, size_t len);
    void *before_ctx;
    char name[];
};

static int mem_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    (void)e;
    memcpy(dst, (const uint8_t *)ctx + off, len);
    return 0;
}

static const struct source_ops mem_ops = {.read = mem_read};

static struct source *source_alloc(const char *name, struct err *e)
{
    size_t n = strlen(name) + 1;
    struct source *s = calloc(1, sizeof *s + n);
    if (!s) {
        err_set(e, -ENOMEM, "%s: no memory for a source", name);
        return NULL;
    }
    memcpy(s->name, name, n);
    s->fd = -1;
    return s;
}

struct source_id source_id_of(const struct stat *st)
{
    return (struct source_id){
        .dev = st->st_dev,
        .ino = st->st_ino,
        .size = (uint64_t)st->st_size,
        .mtime_ns = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec,
        .ctime_ns = st->st_ctim.tv_sec * INT64_C(1000000000) + st->st_ctim.tv_nsec,
    };
}

int source_from_fd(struct source **out, int fd, const char *name, struct err *e)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        int rc = -errno;
        if (fd >= 0)
            close(fd);
        return err_set(e, rc, "%s: fstat: %s", name, strerror(-rc));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return err_set(e, -EINVAL, "%s: not a regular file", name);
    }
    struct source *s = source_alloc(name, e);
    if (!s) {
        close(fd);
        return -ENOMEM;
    }
    s->fd = fd;
    s->id = source_id_of(&st);
    s->size = s->id.size;
    *out = s;
    return 0;
}

int source_open(struct source **out, const char *path, struct err *e)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: %s", *path ? path : "''", strerror(-rc));
    }
    return source_from_fd(out, fd, path, e);
}

int source_from_ops(struct source **out, const struct source_ops *ops, void *ctx, uint64_t size,
                    const char *name, struct err *e)
{
    struct source *s = source_alloc(name, e);
    if (!s) {
        if (ops->release)
            ops->release(ctx);
        return -ENOMEM;
    }
    s->ops = ops;
    s->ctx = ctx;
    s->size = s->id.size = size;
    *out = s;
    return 0;
}

int source_from_mem(struct source **out, const void *p, size_t len, const char *name, struct err *e)
{
    return source_from_ops(out, &mem_ops, (void *)(uintptr_t)p, len, name, e);
}

void source_close(struct source *s)
{
    if (!s)
        return;
    if (s->fd >= 0)
        close(s->fd);
    if (s->ops && s->ops->release)
        s->ops->release(s->ctx);
    free(s);
}

uint64_t source_size(const struct source *s)
{
    return s->size;
}

const char *source_name(const struct source *s)
{
    return s->name;
}

int source_fd(const struct source *s)
{
    return s->fd;
}

struct source_id source_id(const struct source *s)
{
    return s->id;
}

bool source_id_equal(const struct source_id *a, const struct source_id *b)
{
    return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
           a->mtime_ns == b->mtime_ns && a->ctime_ns == b->ctime_ns;
}

static int fd_read(const struct source *s, uint8_t *dst, uint64_t off, size_t len, struct err *e)
{
    while (len > 0) {
        ssize_t n = pread(s->fd, dst, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            int rc = -errno;
            return err_set(e, rc == -ENOMEM ? rc : -EIO, "%s: read at byte %" PRIu64 ": %s",
                           s->name, off, strerror(-rc));
        }
        if (n == 0)
            return err_set(e, -EIO, "%s: ended at byte %" PRIu64 ", had %" PRIu64 " when opened",
                           s->name, off, s->size);
        dst += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

int source_read(const struct source *s, void *dst, uint64_t off, size_t len, struct err *e)
{
    if (off > s->size || len > s->size - off)
        return err_set(e, -ERANGE, "%s: bytes %" PRIu64 "+%zu wanted, file has %" PRIu64, s->name,
                       off, len, s->size);
    if (len == 0)
        return 0;
    if (s->before)
        s->before(s->before_ctx, len);
    if (s->ops)
        return s->ops->read(s->ctx, dst, off, len, e);
    return fd_read(s, dst, off, len, e);
}

void source_set_before(struct source *s, void (*before)(void *ctx, size_t len), void *ctx)
{
    s->before = before;
    s->before_ctx = ctx;
}

int source_check(const struct source *s, struct err *e)
{
    if (s->ops && s->ops->check)
        return s->ops->check(s->ctx, e);
    if (s->fd < 0)
        return 0;
    struct stat st;
    if (fstat(s->fd, &st) < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: fstat: %s", s->name, strerror(-rc));
    }
    struct source_id now = source_id_of(&st);
    if (source_id_equal(&now, &s->id))
        return 0;
    return err_set(e, -ESTALE,
                   "%s: changed since it was opened (was %" PRIu64 " bytes, is %" PRIu64 ")",
                   s->name, s->id.size, now.size);
}
