/* Tensors of an APR bound to their place in a model: by name, shape and type, each consumed at most
 * once by name; what nobody consumed is refused at the end.
 *
 * In two phases. First all is bound: the list of items below is complete, every refusal has been
 * made, and the device has not been asked for a byte; what it will be asked for can be counted
 * (budget.h). Then bind_alloc() and the loader fill the places.
 *
 * A transcoded tensor is bound to its raw twin, the original bytes. A tied head, also one that the
 * index names, is the embedding's matrix. Entries whose bytes all belong to consumed tensors (aliases, the
 * fused original of split ones) need no consumer. */
#ifndef APRFS_INFER_BIND_H
#define APRFS_INFER_BIND_H

#include "infer/loader.h"
#include "infer/model.h"

enum bind_need {
    BIND_REQUIRED,
    BIND_OPTIONAL,
};

enum bind_kind {
    BIND_MATRIX, /* as it stands in the file */
    BIND_VECTOR, /* f32 on the device, converted if it is not in the file */
    BIND_TABLE,  /* f32 made by the host, not in the file */
    BIND_HOST,   /* f32 the host has read and used: nothing on the device */
};

struct bind_item {
    enum bind_kind kind;
    const char *name;         /* the first it was bound by; the apr's, or a literal */
    const char *published;    /* the name under which these bytes may have a published CRC; NULL: a
                               * raw twin, whose bytes have no name */
    struct apr_tensor bytes;  /* where they are in the file; not of a table */
    uint64_t n;               /* elements of all but a matrix */
    uint64_t len;             /* on the device */
    struct backend_matrix *w; /* of a matrix; the model's */
    const float **at;         /* of vectors and tables: where the address goes */
    float *host;              /* of a table, owned */
    uint32_t crc;             /* CRC-32 of the file's bytes, once read */
    uint32_t crc_f32;         /* of the values, little-endian; vectors and host values, once read */
};

struct bind {
    struct model *m;       /* lent; owns what is allocated */
    const struct apr *apr; /* lent */
    bool *used;            /* [apr_n_tensor] */
    struct bind_range {
        uint64_t off, end;
    } * range; /* of consumed tensors */
    size_t n_range, cap_range;
    struct bind_item *item;
    size_t n_item, cap_item;
};

int bind_init(struct bind *x, struct model *m, const struct apr *apr, struct err *e);
void bind_release(struct bind *x);

/* Names are "<stem>" or, layer >= 0, "blk.<layer>.<stem>". Absent and BIND_OPTIONAL: 0, *out NULL
 * (a scale: 1). *out of a vector is set by bind_alloc() and must stay where it is until then. */
int bind_matrix(struct bind *x, int layer, const char *stem, uint64_t n_out, uint64_t n_in,
                enum bind_need need, const struct backend_matrix **out, struct err *e);
int bind_vector(struct bind *x, int layer, const char *stem, uint64_t n, enum bind_need need,
                const float **out, struct err *e);
/* n f32 values that the host made; takes host, also on failure. */
int bind_table(struct bind *x, const char *what, float *host, uint64_t n, const float **out,
               struct err *e);
/* These two are read at once. */
int bind_scale(struct bind *x, int layer, const char *stem, float *out, struct err *e);
/* The f32 values of a small tensor for the host, malloc'ed; NULL if absent. */
int bind_host(struct bind *x, int layer, const char *stem, uint64_t n, float **out, struct err *e);
/* A tensor that needs no consumer, for a reason that stands beside the call. */
void bind_ignore(struct bind *x, int layer, const char *stem);

/* Ends the first phase. -ENOTSUP names the first tensor that nobody consumed. */
int bind_finish(struct bind *x, struct err *e);

/* Allocates every item on the device, zeros, and sets the addresses. */
int bind_alloc(struct bind *x, struct err *e);
/* Reads vectors from src, the apr's bytes, and uploads them and the tables. */
int bind_fill(struct bind *x, const struct source *src, struct err *e);

#endif
