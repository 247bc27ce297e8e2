/* Hyperparameters and weights of one model, bound by name, type and shape to what the forward pass
 * will do with them, and loaded into a backend.
 *
 * Every number comes from the file's metadata through apr_meta_read(); no default of a family is
 * invented here. A model that cannot be run right is refused by name before any weight is read:
 * families without a proven pass, features the pass lacks, shapes that contradict the metadata, and
 * any tensor the pass would not consume. */
#ifndef APRFS_INFER_MODEL_H
#define APRFS_INFER_MODEL_H

#include "format/apr_read.h"
#include "format/arch.h"
#include "infer/backend.h"
#include "infer/extent.h"

/* How a load stands. */
struct model_progress {
    const char *phase;     /* "loading" */
    const char *source;    /* where the bytes come from: "file", "mount", "extents" */
    uint64_t bytes, total; /* of tensors */
    double seconds;        /* since the first of them was asked for */
};

struct model_layer {
    uint32_t n_head, n_head_kv, n_ff;
    uint32_t head_dim_k, head_dim_v;
    uint32_t window;                 /* 0: attends to everything before it */
    const struct backend_rope *rope; /* NULL: not rotated */

    /* All f32 device vectors; NULL: absent. */
    const float *attn_norm, *ffn_norm;           /* (n_embd) */
    const float *q_norm, *k_norm;                /* (head_dim_k) */
    const float *post_attn_norm, *post_ffn_norm; /* (n_embd) */
    struct backend_linear q, k, v, o, gate, up, down;
};

struct model {
    struct backend *b; /* lent */
    struct arch_config c;
    uint32_t n_ctx; /* allotted to one sequence */
    enum backend_act act;
    struct model_layer *layer; /* [c.n_layer] */
    struct backend_rope rope_global, rope_local;
    const struct backend_matrix *embd; /* (n_vocab, n_embd) */
    const float *output_norm;          /* (n_embd) */
    struct backend_linear head;        /* (n_vocab, n_embd) */

    uint64_t weight_bytes;        /* read from the file */
    struct model_progress loaded; /* as it was at the end */
    char not_extents[EXTENT_WHY]; /* of source "mount": why not "extents" */
    uint8_t digest[32];           /* what the model is, whatever file it came from (digest.h) */
    /* What to release: every matrix once, every vector. */
    struct backend_matrix **matrix;
    size_t n_matrix, cap_matrix;
    void **vec;
    size_t n_vec;
};

struct model_options {
    uint32_t n_ctx; /* 0: as the model was trained */
    int n_reader;   /* threads that read the file; 0: as many as pay (loader.h) */
    uint32_t n_pos; /* positions that sessions will hold, for the memory check; 0: all of n_ctx */
    /* Called from model_open's thread, a few times a second and at the end. May be NULL. */
    void (*progress)(void *ctx, const struct model_progress *p);
    void *progress_ctx;
};

/* Reads the tensors of a mounted apr from the files behind it where it can (extent.h). apr is needed
 * for this call only; b is lent for the model's life. -ENOTSUP names the feature or tensor; -EUCLEAN
 * what contradicts what, or bytes that are not those of a published checksum (published.h, footer.h);
 * -ENOENT a missing tensor or key; -ESTALE a file that changed meanwhile; -ERANGE n_ctx beyond the
 * model's, or, with every number, beyond the memory there is (budget.h): nothing has been allocated
 * on the device then, and no tensor read. */
int model_open(struct model **out, const struct apr *apr, struct backend *b,
               const struct model_options *opt, struct err *e);
void model_close(struct model *m); /* NULL is fine */

#endif
