#include "infer/loader.h"

#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define MAX_READER  12
#define PROGRESS_NS INT64_C(50000000)

struct piece {
    const struct loader_item *it;
    uint64_t off; /* in the item */
    uint32_t len, crc;
};

/* A slot goes round: free, read into, full, being uploaded, free. */
struct slot {
    unsigned char *mem;
    struct backend_mark *mark; /* behind its last upload */
    size_t piece;
};

/* Slots in order of arrival. */
struct fifo {
    uint32_t at[LOADER_SLOT], first, n;
};

struct loader {
    struct backend *b;
    const struct source *src;
    const struct loader_options *opt;
    struct piece *piece;
    size_t n_piece;
    struct slot slot[LOADER_SLOT];
    uint32_t n_slot; /* 0: the host sees where the bytes belong */
    int64_t told_ns; /* when progress was told last */

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t room;  /* a slot is free, or it is over */
    pthread_cond_t news;  /* a piece is there, or it is over */
    size_t next;          /* piece to be read */
    size_t n_there;       /* pieces that are where they belong */
    uint64_t bytes;       /* of these */
    struct fifo free, full;
    int rc;
    struct err e;
};

static void fifo_put(struct fifo *f, uint32_t v)
{
    f->at[(f->first + f->n++) % LOADER_SLOT] = v;
}

static uint32_t fifo_take(struct fifo *f)
{
    uint32_t v = f->at[f->first];
    f->first = (f->first + 1) % LOADER_SLOT;
    f->n--;
    return v;
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

/* Keeps the first failure and ends everybody's work. */
static void fail(struct loader *l, int rc, const struct err *e)
{
    pthread_mutex_lock(&l->lock);
    if (l->rc == 0) {
        l->rc = rc;
        l->e = *e;
    }
    pthread_cond_broadcast(&l->room);
    pthread_cond_broadcast(&l->news);
    pthread_mutex_unlock(&l->lock);
}

/* --- readers ------------------------------------------------------------------------------- */

/* The next piece and, with a ring, a slot for it; false at the end or after anybody's failure. */
static bool next_piece(struct loader *l, size_t *piece, uint32_t *slot)
{
    pthread_mutex_lock(&l->lock);
    while (l->rc == 0 && l->next < l->n_piece && l->n_slot && l->free.n == 0)
        pthread_cond_wait(&l->room, &l->lock);
    bool more = l->rc == 0 && l->next < l->n_piece;
    if (more) {
        *piece = l->next++;
        *slot = l->n_slot ? fifo_take(&l->free) : 0;
    }
    pthread_mutex_unlock(&l->lock);
    return more;
}

static void piece_read(struct loader *l, size_t piece, uint32_t slot)
{
    pthread_mutex_lock(&l->lock);
    if (l->n_slot) {
        l->slot[slot].piece = piece;
        fifo_put(&l->full, slot);
    } else {
        l->n_there++;
        l->bytes += l->piece[piece].len;
    }
    pthread_cond_signal(&l->news);
    pthread_mutex_unlock(&l->lock);
}

static void *reader_main(void *arg)
{
    struct loader *l = arg;
    size_t i;
    uint32_t slot;
    while (next_piece(l, &i, &slot)) {
        struct piece *p = &l->piece[i];
        struct err e = {0};
        unsigned char *dst = l->n_slot
                                 ? l->slot[slot].mem
                                 : (unsigned char *)l->b->ops->host_view(l->b, p->it->dst) + p->off;
        int rc = source_read(l->src, dst, p->it->off + p->off, p->len, &e);
        if (rc < 0) {
            fail(l, rc, &e);
            break;
        }
        p->crc = crc32_update(0, dst, p->len);
        piece_read(l, i, slot);
    }
    return NULL;
}

/* --- the driver ---------------------------------------------------------------------------- */

static void tell(struct loader *l, uint64_t bytes, bool last)
{
    if (!l->opt->progress)
        return;
    int64_t now = now_ns();
    if (!last && now - l->told_ns < PROGRESS_NS)
        return;
    l->told_ns = now;
    l->opt->progress(l->opt->ctx, bytes);
}

/* Queues what a full slot holds, and a mark behind it. */
static int send(struct loader *l, uint32_t i)
{
    const struct backend_ops *ops = l->b->ops;
    struct slot *s = &l->slot[i];
    const struct piece *p = &l->piece[s->piece];
    int rc = ops->upload_queue(l->b, p->it->dst, p->off, s->mem, p->len);
    return rc < 0 ? rc : ops->mark_set(l->b, s->mark);
}

/* A slot is free again only once the device has passed its mark: before, its bytes are being read. */
static int drive_ring(struct loader *l)
{
    struct fifo busy = {0};
    for (;;) {
        pthread_mutex_lock(&l->lock);
        while (l->rc == 0 && l->full.n == 0 && busy.n == 0 && l->n_there < l->n_piece)
            pthread_cond_wait(&l->news, &l->lock);
        bool over = l->rc < 0 || l->n_there == l->n_piece, full = !over && l->full.n > 0;
        uint32_t i = full ? fifo_take(&l->full) : 0;
        uint64_t bytes = l->bytes;
        pthread_mutex_unlock(&l->lock);
        if (over)
            return 0;
        tell(l, bytes, false);
        if (full) {
            int rc = send(l, i);
            if (rc < 0)
                return rc;
            fifo_put(&busy, i);
            continue;
        }
        i = fifo_take(&busy);
        int rc = l->b->ops->mark_wait(l->b, l->slot[i].mark);
        if (rc < 0)
            return rc;
        pthread_mutex_lock(&l->lock);
        l->n_there++;
        l->bytes += l->piece[l->slot[i].piece].len;
        fifo_put(&l->free, i);
        pthread_cond_broadcast(&l->room);
        pthread_mutex_unlock(&l->lock);
    }
}

/* Readers do it all; this thread only tells. */
static void watch_readers(struct loader *l)
{
    for (bool over = false; !over;) {
        pthread_mutex_lock(&l->lock);
        size_t seen = l->n_there;
        while (l->rc == 0 && l->n_there == seen && l->n_there < l->n_piece)
            pthread_cond_wait(&l->news, &l->lock);
        over = l->rc < 0 || l->n_there == l->n_piece;
        uint64_t bytes = l->bytes;
        pthread_mutex_unlock(&l->lock);
        if (!over)
            tell(l, bytes, false);
    }
}

/* --- set up -------------------------------------------------------------------------------- */

static int by_offset(const void *pa, const void *pb)
{
    const struct loader_item *a = pa, *b = pb;
    return a->off < b->off ? -1 : a->off > b->off;
}

static int cut(struct loader *l, const struct loader_item *item, size_t n_item, struct err *e)
{
    uint64_t n = 0;
    for (size_t i = 0; i < n_item; i++)
        n += (item[i].len + LOADER_PIECE - 1) / LOADER_PIECE;
    l->piece = calloc(n + 1, sizeof *l->piece);
    if (!l->piece)
        return err_set(e, -ENOMEM, "no memory for a list of %" PRIu64 " pieces", n);
    for (size_t i = 0; i < n_item; i++)
        for (uint64_t at = 0; at < item[i].len; at += LOADER_PIECE) {
            uint64_t left = item[i].len - at;
            uint32_t len = (uint32_t)(left < LOADER_PIECE ? left : LOADER_PIECE);
            l->piece[l->n_piece++] = (struct piece){&item[i], at, len, 0};
        }
    return 0;
}

/* As many slots as there are pieces, each as long as the longest, within the ring's limits. */
static int ring_new(struct loader *l, struct err *e)
{
    const struct backend_ops *ops = l->b->ops;
    uint32_t longest = 0, want = l->n_piece < LOADER_SLOT ? (uint32_t)l->n_piece : LOADER_SLOT;
    if (l->n_piece == 0 || ops->host_view(l->b, l->piece[0].it->dst))
        return 0;
    for (size_t i = 0; i < l->n_piece; i++)
        longest = l->piece[i].len > longest ? l->piece[i].len : longest;
    while (l->n_slot < want) {
        struct slot *s = &l->slot[l->n_slot];
        void *mem;
        int rc = ops->stage_alloc(l->b, &mem, longest);
        if (rc < 0)
            return backend_fail(l->b, rc, e);
        s->mem = mem;
        fifo_put(&l->free, l->n_slot++); /* from here on ring_free() has it */
        rc = ops->mark_new(l->b, &s->mark);
        if (rc < 0)
            return backend_fail(l->b, rc, e);
    }
    return 0;
}

static void ring_free(struct loader *l)
{
    for (uint32_t i = 0; i < l->n_slot; i++) {
        l->b->ops->mark_free(l->b, l->slot[i].mark);
        l->b->ops->stage_free(l->b, l->slot[i].mem);
    }
}

static int n_reader(const struct loader *l)
{
    cpu_set_t set;
    int n = l->opt->n_reader;
    if (n <= 0)
        n = sched_getaffinity(0, sizeof set, &set) < 0 ? 1 : CPU_COUNT(&set) * 3 / 4;
    n = n > MAX_READER ? MAX_READER : n;
    n = (size_t)n > l->n_piece ? (int)l->n_piece : n;
    return n < 1 ? 1 : n;
}

static int read_all(struct loader *l, struct err *e)
{
    pthread_t tid[MAX_READER];
    int n = 0, want = n_reader(l), rc = 0;
    while (n < want && pthread_create(&tid[n], NULL, reader_main, l) == 0)
        n++; /* fewer readers only cost time */
    if (n == 0)
        return err_set(e, -EAGAIN, "no thread to read with");
    if (l->n_slot)
        rc = drive_ring(l);
    else
        watch_readers(l);
    if (rc < 0) {
        struct err device;
        backend_fail(l->b, rc, &device);
        fail(l, rc, &device);
    }
    for (int i = 0; i < n; i++)
        pthread_join(tid[i], NULL);
    int late = l->b->ops->sync(l->b); /* whatever happened: the ring is in use until then */
    if (l->rc < 0) {
        if (e)
            *e = l->e;
        return l->rc;
    }
    return late < 0 ? backend_fail(l->b, late, e) : 0;
}

int loader_read(struct backend *b, const struct source *src, struct loader_item *item,
                size_t n_item, const struct loader_options *opt, struct err *e)
{
    static const struct loader_options none;
    struct loader l = {.b = b, .src = src, .opt = opt ? opt : &none, .told_ns = now_ns()};
    if (n_item > 1)
        qsort(item, n_item, sizeof *item, by_offset);
    pthread_mutex_init(&l.lock, NULL);
    pthread_cond_init(&l.room, NULL);
    pthread_cond_init(&l.news, NULL);
    int rc = cut(&l, item, n_item, e);
    if (rc == 0)
        rc = ring_new(&l, e);
    if (rc == 0 && l.n_piece)
        rc = read_all(&l, e);
    for (size_t i = 0; i < n_item; i++)
        *item[i].crc = 0;
    for (size_t i = 0; rc == 0 && i < l.n_piece; i++) {
        const struct piece *p = &l.piece[i];
        *p->it->crc = crc32_join(*p->it->crc, p->crc, p->len);
    }
    if (rc == 0)
        tell(&l, l.bytes, true);
    ring_free(&l);
    free(l.piece);
    pthread_cond_destroy(&l.news);
    pthread_cond_destroy(&l.room);
    pthread_mutex_destroy(&l.lock);
    return rc;
}
