/* Built bytes: see vcache.h. One mutex over table and counts; a state per item, so that building
 * happens outside it. */
#include "fs/vcache.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N_BUCKET 256

struct vcache_item {
    struct vcache_key key;
    bool building, failed;
    bool dropped; /* no longer in the table */
    int refs;     /* users, the builder and those who wait included */
    uint8_t *p;   /* NULL while in the file */
    int fd;       /* -1 while in memory */
    size_t len;
    struct err err;                  /* of a failed build */
    struct vcache_item *chain;       /* bucket */
    struct vcache_item *prev, *next; /* by last use; only while refs is 0 */
};

struct vcache {
    pthread_mutex_t mu;
    pthread_cond_t built;
    size_t max_mem, spill_from, max_spill;
    int dir_fd; /* -1: no files */
    size_t mem, spilled;
    struct vcache_item *bucket[N_BUCKET];
    struct vcache_item *oldest, *newest;
};

int vcache_new(struct vcache **out, size_t max_mem, size_t spill_from, size_t max_spill,
               struct err *e)
{
    struct vcache *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, -ENOMEM, "no memory for a cache");
    pthread_mutex_init(&c->mu, NULL);
    pthread_cond_init(&c->built, NULL);
    c->max_mem = max_mem;
    c->spill_from = spill_from;
    c->max_spill = max_spill;
    c->dir_fd = -1;
    *out = c;
    return 0;
}

void vcache_spill_to(struct vcache *c, int dir_fd)
{
    c->dir_fd = dir_fd;
}

static struct vcache_item **bucket_of(struct vcache *c, const struct vcache_key *k)
{
    uint64_t h;
    memcpy(&h, k->id, sizeof h); /* a digest: any eight bytes are as good as a hash */
    h ^= k->unit * UINT64_C(0x9e3779b97f4a7c15);
    return &c->bucket[(h ^ h >> 32) % N_BUCKET];
}

static bool key_equal(const struct vcache_key *a, const struct vcache_key *b)
{
    return a->unit == b->unit && memcmp(a->id, b->id, sizeof a->id) == 0;
}

static void lru_unlink(struct vcache *c, struct vcache_item *it)
{
    *(it->prev ? &it->prev->next : &c->oldest) = it->next;
    *(it->next ? &it->next->prev : &c->newest) = it->prev;
    it->prev = it->next = NULL;
}

static void lru_append(struct vcache *c, struct vcache_item *it)
{
    it->prev = c->newest;
    it->next = NULL;
    *(c->newest ? &c->newest->next : &c->oldest) = it;
    c->newest = it;
}

static void table_remove(struct vcache *c, struct vcache_item *it)
{
    for (struct vcache_item **p = bucket_of(c, &it->key); *p; p = &(*p)->chain)
        if (*p == it) {
            *p = it->chain;
            break;
        }
    it->dropped = true;
}

static void item_free(struct vcache *c, struct vcache_item *it)
{
    if (it->p)
        c->mem -= it->len;
    if (it->fd >= 0) {
        c->spilled -= it->len;
        close(it->fd);
    }
    free(it->p);
    free(it);
}

/* Drops unused items, oldest first, of the kind that is over its limit. */
static void shrink(struct vcache *c)
{
    struct vcache_item *next;
    for (struct vcache_item *it = c->oldest; it; it = next) {
        next = it->next;
        if (it->fd >= 0 ? c->spilled <= c->max_spill : c->mem <= c->max_mem)
            continue;
        lru_unlink(c, it);
        table_remove(c, it);
        item_free(c, it);
    }
}

void vcache_free(struct vcache *c)
{
    if (!c)
        return;
    c->max_mem = c->max_spill = 0;
    while (c->oldest) {
        struct vcache_item *it = c->oldest;
        lru_unlink(c, it);
        table_remove(c, it);
        item_free(c, it);
    }
    if (c->dir_fd >= 0)
        close(c->dir_fd);
    pthread_cond_destroy(&c->built);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

static void put_locked(struct vcache *c, struct vcache_item *it)
{
    if (--it->refs > 0)
        return;
    if (it->dropped) {
        item_free(c, it);
        return;
    }
    lru_append(c, it);
    shrink(c);
}

void vcache_put(struct vcache *c, struct vcache_item *it)
{
    if (!it)
        return;
    pthread_mutex_lock(&c->mu);
    put_locked(c, it);
    pthread_mutex_unlock(&c->mu);
}

/* A new file without a name. Not every file system has these (NFS has none): there one with a name, for a
 * moment; a crash in it leaves an empty file. */
static int unnamed_file(int dir_fd)
{
    static atomic_uint n;
    char name[40];
    int fd = openat(dir_fd, ".", O_TMPFILE | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    snprintf(name, sizeof name, "text.%ld.%u", (long)getpid(), atomic_fetch_add(&n, 1));
    unlinkat(dir_fd, name, 0);
    fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd >= 0)
        unlinkat(dir_fd, name, 0);
    return fd;
}

/* An unlinked file with the bytes; -1 where there can be none. */
static int spill_file(int dir_fd, const uint8_t *p, size_t len)
{
    int fd = dir_fd < 0 ? -1 : unnamed_file(dir_fd);
    for (size_t off = 0; fd >= 0 && off < len;) {
        ssize_t n = pwrite(fd, p + off, len - off, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            close(fd);
            return -1;
        }
        off += (size_t)n;
    }
    return fd;
}

static void build(struct vcache *c, struct vcache_item *it, vcache_build_fn *fn, void *ctx)
{
    uint8_t *p = NULL;
    size_t len = 0;
    int fd = -1;
    int rc = fn(ctx, &p, &len, &it->err);
    if (rc == 0 && c->spill_from && len >= c->spill_from &&
        (fd = spill_file(c->dir_fd, p, len)) >= 0) {
        free(p);
        p = NULL;
    }
    pthread_mutex_lock(&c->mu);
    it->building = false;
    it->len = len;
    if (rc < 0) {
        it->failed = true;
        it->err.code = rc;
        if (!it->dropped)
            table_remove(c, it);
    } else if (fd >= 0) {
        it->fd = fd;
        c->spilled += len;
    } else {
        it->p = p;
        c->mem += len;
    }
    shrink(c);
    pthread_cond_broadcast(&c->built);
    pthread_mutex_unlock(&c->mu);
}

int vcache_get(struct vcache *c, const struct vcache_key *key, vcache_build_fn *fn, void *ctx,
               struct vcache_item **out, struct err *e)
{
    pthread_mutex_lock(&c->mu);
    struct vcache_item **b = bucket_of(c, key), *it = *b;
    while (it && !key_equal(&it->key, key))
        it = it->chain;
    if (it) {
        if (it->refs++ == 0)
            lru_unlink(c, it);
        while (it->building)
            pthread_cond_wait(&c->built, &c->mu);
        pthread_mutex_unlock(&c->mu);
    } else {
        it = calloc(1, sizeof *it);
        if (!it) {
            pthread_mutex_unlock(&c->mu);
            return err_set(e, -ENOMEM, "no memory for a cache item");
        }
        it->key = *key;
        it->fd = -1;
        it->refs = 1;
        it->building = true;
        it->chain = *b;
        *b = it;
        pthread_mutex_unlock(&c->mu);
        build(c, it, fn, ctx);
    }
    if (it->failed) {
        int rc = err_set(e, it->err.code, "%s", it->err.msg);
        vcache_put(c, it);
        return rc;
    }
    *out = it;
    return 0;
}

void vcache_drop(struct vcache *c, const uint8_t id[32])
{
    pthread_mutex_lock(&c->mu);
    for (size_t i = 0; i < N_BUCKET; i++) {
        struct vcache_item *next;
        for (struct vcache_item *it = c->bucket[i]; it; it = next) {
            next = it->chain;
            if (memcmp(it->key.id, id, sizeof it->key.id) != 0)
                continue;
            table_remove(c, it);
            if (it->refs == 0) {
                lru_unlink(c, it);
                item_free(c, it);
            }
        }
    }
    pthread_mutex_unlock(&c->mu);
}

size_t vcache_item_len(const struct vcache_item *it)
{
    return it->len;
}

int vcache_item_read(const struct vcache_item *it, void *dst, size_t off, size_t len, struct err *e)
{
    if (off > it->len || len > it->len - off)
        return err_set(e, -ERANGE, "bytes %zu+%zu wanted, the item has %zu", off, len, it->len);
    if (it->p) {
        memcpy(dst, it->p + off, len);
        return 0;
    }
    for (uint8_t *d = dst; len > 0;) {
        ssize_t n = pread(it->fd, d, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(e, -EIO, "file of a large text: %s",
                           n < 0 ? strerror(errno) : "ended early");
        d += n;
        off += (size_t)n;
        len -= (size_t)n;
    }
    return 0;
}

const uint8_t *vcache_item_mem(const struct vcache_item *it)
{
    return it->p;
}

size_t vcache_mem(struct vcache *c)
{
    pthread_mutex_lock(&c->mu);
    size_t n = c->mem;
    pthread_mutex_unlock(&c->mu);
    return n;
}

size_t vcache_spilled(struct vcache *c)
{
    pthread_mutex_lock(&c->mu);
    size_t n = c->spilled;
    pthread_mutex_unlock(&c->mu);
    return n;
}
