/* Tensors of an APR bound to their place in a model: by name, shape and type, each consumed at most
 * once by name; what nobody consumed is refused at the end.
 *
 * A transcoded tensor is bound to its raw twin, the original bytes. Two names for the same bytes (a
 * tied head) share one matrix. Entries whose bytes all belong to consumed tensors (aliases, the
 * fused original of split ones) need no consumer. */
#ifndef APRFS_INFER_BIND_H
#define APRFS_INFER_BIND_H

#include "infer/loader.h"
#include "infer/model.h"

enum bind_need {
    BIND_REQUIRED,
    BIND_OPTIONAL,
};

struct bind_range {
    uint64_t off, end;
};

struct bind {
    struct model *m;       /* lent; owns what is allocated */
    const struct apr *apr; /* lent */
    bool *used;            /* [apr_n_tensor] */
    struct bind_range *range;
    size_t n_range, cap_range;
    struct loader_item *item; /* one per matrix, to be read */
    size_t n_item, cap_item;
    struct bind_range *matrix_at; /* where matrix[i] of the model stands in the file */
};

int bind_init(struct bind *x, struct model *m, const struct apr *apr, struct err *e);
void bind_release(struct bind *x);

/* Names are "<stem>" or, layer >= 0, "blk.<layer>.<stem>". Absent and BIND_OPTIONAL: 0, *out NULL
 * (a scale: 1). */
int bind_matrix(struct bind *x, int layer, const char *stem, uint64_t n_out, uint64_t n_in,
                enum bind_need need, const struct backend_matrix **out, struct err *e);
/* Read at once, converted to f32 if it is not. */
int bind_vector(struct bind *x, int layer, const char *stem, uint64_t n, enum bind_need need,
                float **out, struct err *e);
int bind_scale(struct bind *x, int layer, const char *stem, float *out, struct err *e);
/* The f32 values of a small tensor for the host, malloc'ed; NULL if absent. */
int bind_host(struct bind *x, int layer, const char *stem, uint64_t n, float **out, struct err *e);
/* A tensor that needs no consumer, for a reason that stands beside the call. */
void bind_ignore(struct bind *x, int layer, const char *stem);

/* -ENOTSUP names the first tensor that nobody consumed. */
int bind_finish(struct bind *x, struct err *e);

#endif
