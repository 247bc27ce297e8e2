/* The reference backend: cpu/ops over a small thread pool. */
#ifndef APRFS_INFER_CPU_CPU_BACKEND_H
#define APRFS_INFER_CPU_CPU_BACKEND_H

#include "infer/backend.h"

int cpu_backend_open(struct backend **out, const struct backend_options *opt, struct err *e);

#endif
