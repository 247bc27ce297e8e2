#include "infer/cpu/pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

#define POOL_MAX_THREAD 64

struct pool_worker {
    struct pool *p;
    uint32_t no;
    pthread_t tid;
};

struct pool {
    uint32_t n_thread; /* with the caller */
    uint32_t n_started;
    struct pool_worker worker[POOL_MAX_THREAD];

    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint64_t generation; /* of the job below; a worker runs each once */
    bool open;           /* it may still be joined: a worker that wakes too late does not */
    uint32_t n_joined;   /* workers inside it */
    bool stop;

    pool_fn *fn;
    void *ctx;
    uint64_t n, piece;
    atomic_uint_fast64_t next;
};

static void pool_take(struct pool *p, uint32_t no)
{
    for (;;) {
        uint64_t begin = atomic_fetch_add_explicit(&p->next, p->piece, memory_order_relaxed);
        if (begin >= p->n)
            return;
        uint64_t end = p->n - begin < p->piece ? p->n : begin + p->piece;
        p->fn(p->ctx, no, begin, end);
    }
}

static void *pool_main(void *arg)
{
    struct pool_worker *w = arg;
    struct pool *p = w->p;
    uint64_t seen = 0;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        while (!p->stop && (p->generation == seen || !p->open))
            pthread_cond_wait(&p->work, &p->lock);
        if (p->stop)
            break;
        seen = p->generation;
        p->n_joined++;
        pthread_mutex_unlock(&p->lock);
        pool_take(p, w->no);
        pthread_mutex_lock(&p->lock);
        if (--p->n_joined == 0)
            pthread_cond_signal(&p->done);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static int pool_default_threads(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) < 0)
        return 1;
    return CPU_COUNT(&set);
}

int pool_new(struct pool **out, int n_thread, struct err *e)
{
    if (n_thread == 0) {
        n_thread = pool_default_threads();
        if (n_thread > POOL_MAX_THREAD)
            n_thread = POOL_MAX_THREAD;
    }
    if (n_thread < 1 || n_thread > POOL_MAX_THREAD)
        return err_set(e, -EINVAL, "%d threads: from 1 to %d", n_thread, POOL_MAX_THREAD);
    struct pool *p = calloc(1, sizeof *p);
    if (!p)
        return err_set(e, -ENOMEM, "no memory for a thread pool");
    p->n_thread = (uint32_t)n_thread;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    for (uint32_t i = 1; i < p->n_thread; i++) {
        struct pool_worker *w = &p->worker[i];
        *w = (struct pool_worker){.p = p, .no = i};
        int rc = pthread_create(&w->tid, NULL, pool_main, w);
        if (rc) {
            pool_free(p);
            return err_set(e, -rc, "thread %u of %d cannot start", i + 1, n_thread);
        }
        p->n_started++;
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (uint32_t i = 1; i <= p->n_started; i++)
        pthread_join(p->worker[i].tid, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

uint32_t pool_n_thread(const struct pool *p)
{
    return p->n_thread;
}

void pool_run(struct pool *p, pool_fn *fn, void *ctx, uint64_t n, uint64_t grain)
{
    if (n == 0)
        return;
    if (grain == 0)
        grain = 1;
    if (p->n_started == 0 || n <= grain) {
        fn(ctx, 0, 0, n);
        return;
    }
    /* About eight pieces a thread: a thread that loses its CPU costs an eighth of its share. */
    uint64_t piece = n / ((uint64_t)p->n_thread * 8);
    pthread_mutex_lock(&p->lock);
    p->piece = piece < grain ? grain : piece;
    p->fn = fn;
    p->ctx = ctx;
    p->n = n;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    p->open = true;
    p->generation++;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    pool_take(p, 0);
    /* Every item is taken. Those inside finish theirs; nobody waits for one that still sleeps. */
    pthread_mutex_lock(&p->lock);
    p->open = false;
    while (p->n_joined)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}
