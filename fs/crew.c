/* Threads for a scan: see crew.h. */
#include "fs/crew.h"

#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#define MAX_THREADS 8 /* a scan waits for disks, not for processors */
#define MAX_LARGE   2

struct work {
    atomic_size_t next;
    size_t n;
    void (*job)(void *arg, size_t i);
    void *arg;
};

static void *work_on(void *ctx)
{
    struct work *w = ctx;
    for (size_t i; (i = atomic_fetch_add(&w->next, 1)) < w->n;)
        w->job(w->arg, i);
    return NULL;
}

/* The caller works too; a thread that cannot be had is one less. */
static void crew_each(size_t n, void (*job)(void *arg, size_t i), void *arg)
{
    struct work w = {.n = n, .job = job, .arg = arg};
    pthread_t thread[MAX_THREADS - 1];
    size_t n_thread = 0;
    while (n_thread < MAX_THREADS - 1 && n_thread + 1 < n &&
           pthread_create(&thread[n_thread], NULL, work_on, &w) == 0)
        n_thread++;
    work_on(&w);
    while (n_thread > 0)
        pthread_join(thread[--n_thread], NULL);
}

static pthread_mutex_t large_mu = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t large_free = PTHREAD_COND_INITIALIZER;
static int n_large;

static void large_begin(void)
{
    pthread_mutex_lock(&large_mu);
    while (n_large == MAX_LARGE)
        pthread_cond_wait(&large_free, &large_mu);
    n_large++;
    pthread_mutex_unlock(&large_mu);
}

static void large_end(void)
{
    malloc_trim(0); /* not when all is done: the next one comes */
    pthread_mutex_lock(&large_mu);
    n_large--;
    pthread_cond_signal(&large_free);
    pthread_mutex_unlock(&large_mu);
}

const struct store_crew crew_threads = {
    .each = crew_each, .large_begin = large_begin, .large_end = large_end};
