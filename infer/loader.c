#include "infer/loader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define PIECE      ((uint64_t)8 << 20)
#define MAX_READER 8

struct loader {
    struct backend *b;
    const struct source *src;
    const struct loader_item *item;
    size_t n_item;
    pthread_mutex_t lock; /* guards all below, and upload() */
    size_t at;
    uint64_t at_off;
    int rc;
    struct err e;
};

static int by_offset(const void *pa, const void *pb)
{
    const struct loader_item *a = pa, *b = pb;
    return a->off < b->off ? -1 : a->off > b->off;
}

/* The next piece, in file order; false at the end or after anybody's error. */
static bool next_piece(struct loader *l, const struct loader_item **it, uint64_t *off, size_t *len)
{
    pthread_mutex_lock(&l->lock);
    while (l->rc == 0 && l->at < l->n_item && l->at_off >= l->item[l->at].len) {
        l->at++;
        l->at_off = 0;
    }
    bool more = l->rc == 0 && l->at < l->n_item;
    if (more) {
        *it = &l->item[l->at];
        uint64_t left = (*it)->len - l->at_off;
        *off = l->at_off;
        *len = (size_t)(left < PIECE ? left : PIECE);
        l->at_off += *len;
    }
    pthread_mutex_unlock(&l->lock);
    return more;
}

static void fail(struct loader *l, int rc, const struct err *e)
{
    pthread_mutex_lock(&l->lock);
    if (l->rc == 0) {
        l->rc = rc;
        l->e = *e;
    }
    pthread_mutex_unlock(&l->lock);
}

static int read_piece(struct loader *l, const struct loader_item *it, uint64_t off, size_t len,
                      void **buf, struct err *e)
{
    unsigned char *view = l->b->ops->host_view(l->b, it->dst);
    if (view)
        return source_read(l->src, view + off, it->off + off, len, e);
    if (!*buf && !(*buf = malloc(PIECE)))
        return err_set(e, -ENOMEM, "no memory for a read buffer");
    int rc = source_read(l->src, *buf, it->off + off, len, e);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&l->lock);
    rc = l->b->ops->upload(l->b, it->dst, off, *buf, len);
    pthread_mutex_unlock(&l->lock);
    return rc < 0 ? backend_fail(l->b, rc, e) : 0;
}

static void *reader_main(void *arg)
{
    struct loader *l = arg;
    const struct loader_item *it;
    uint64_t off;
    size_t len;
    void *buf = NULL;
    while (next_piece(l, &it, &off, &len)) {
        struct err e = {0};
        int rc = read_piece(l, it, off, len, &buf, &e);
        if (rc < 0)
            fail(l, rc, &e);
    }
    free(buf);
    return NULL;
}

int loader_read(struct backend *b, const struct source *src, struct loader_item *item,
                size_t n_item, int n_thread, struct err *e)
{
    struct loader l = {.b = b, .src = src, .item = item, .n_item = n_item};
    pthread_t tid[MAX_READER];
    int n_started = 0;
    if (n_item > 1)
        qsort(item, n_item, sizeof *item, by_offset);
    if (n_thread > MAX_READER)
        n_thread = MAX_READER;
    pthread_mutex_init(&l.lock, NULL);
    while (n_started + 1 < n_thread && /* fewer readers only cost time */
           pthread_create(&tid[n_started], NULL, reader_main, &l) == 0)
        n_started++;
    reader_main(&l);
    for (int i = 0; i < n_started; i++)
        pthread_join(tid[i], NULL);
    pthread_mutex_destroy(&l.lock);
    if (l.rc < 0) {
        if (e)
            *e = l.e;
        return l.rc;
    }
    return source_check(src, e);
}
