/* What running a model takes of the memory that a backend's tensors live in, counted before any of
 * it is allocated. Memory is handed out by the kernel as it is touched, and who touches too much is
 * killed; a device's may run out halfway through a load. So all of it is counted first. */
#ifndef APRFS_INFER_BUDGET_H
#define APRFS_INFER_BUDGET_H

#include "infer/bind.h"

/* Bytes, each allocation padded as the backend pads it. */
struct budget {
    uint64_t weights, vectors, tables;
    uint64_t kv; /* of a session with n_pos positions */
    uint32_t n_pos;
    uint64_t work; /* activations of that session */
    uint64_t reserve;
    uint64_t need; /* the sum; UINT64_MAX: more than can be counted */
    uint64_t have; /* UINT64_MAX: nobody knows */
};

/* All of x is bound. n_pos positions of m's context will be used (0 or more than there are: all);
 * where m's backend is judged by the reference, the judge's session counts if it is larger. */
int budget_count(struct budget *out, const struct model *m, const struct bind *x, uint32_t n_pos,
                 struct err *e);

/* -ERANGE with every term if need exceeds have, and what would fit. */
int budget_check(const struct model *m, const struct bind *x, uint32_t n_pos, struct err *e);

#endif
