/* A small pool of threads that splits a range of independent items.
 *
 * Which thread takes which item is left to chance and load, so the work of one item must not depend
 * on it: then no result depends on the number of threads. Idle threads sleep (no spinning: the
 * reference path shares its machine). */
#ifndef APRFS_INFER_CPU_POOL_H
#define APRFS_INFER_CPU_POOL_H

#include "format/err.h"

#include <stdint.h>

struct pool;

/* Items [begin, end) by thread number `thread` (0 = the caller), for per-thread scratch. */
typedef void pool_fn(void *ctx, uint32_t thread, uint64_t begin, uint64_t end);

/* n_thread including the caller; 0 = the CPUs this process may run on, at most 64. */
int pool_new(struct pool **out, int n_thread, struct err *e);
void pool_free(struct pool *p);
uint32_t pool_n_thread(const struct pool *p);

/* Runs fn over [0, n) in pieces of at least `grain` items; returns when all are done. */
void pool_run(struct pool *p, pool_fn *fn, void *ctx, uint64_t n, uint64_t grain);

#endif
