/* The op table: the forward pass (forward.c) is written once over it, and a backend fills it, from
 * cpu/ops (the reference) or from gpu_ops.
 *
 * Memory. Tensors, activations and the KV cache live wherever the backend has them. Every pointer
 * in this header marked "device" is an address there: it may be offset by whole elements, and only
 * the backend dereferences it. host_view() says whether the host may too (the CPU: yes).
 *
 * Order. Ops are queued: each sees the results of those before it, none is finished before
 * download() or sync() returns. An op returns 0, or a negative errno with the story in backend->e
 * (a device's late errors come from download and sync). One thread drives a backend.
 *
 * Shapes are row-major. n_tok = rows in this step (prefill: many; decode: one per sequence). What a
 * row gets never depends on which rows stand beside it, nor on the number of threads. */
#ifndef APRFS_INFER_BACKEND_H
#define APRFS_INFER_BACKEND_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Weights (n_out, n_in), quantised as in the file; rows back to back. The backend owns data (and
 * may have rearranged it in matrix_ready). */
struct backend_matrix {
    uint32_t type; /* GGML id (format/quant.h) */
    uint32_t n_out, n_in;
    uint64_t row_bytes;
    void *data; /* device */
};

/* y = (W x) * scale + bias, or, bias_first, (W x + bias) * scale. Per-tensor scales come with some
 * formats ("blk.N.attn_q.scale"); where the reference program applies them before and where after
 * the bias is the model's affair (model.c). */
struct backend_linear {
    const struct backend_matrix *w;
    const float *bias; /* device (n_out), or NULL */
    float scale;       /* 1: none */
    bool bias_first;
};

/* Rotary positions as one table: pair i at position p turns by the angle p * omega[i], so that
 * (u, v) becomes mu * (u cos - v sin, u sin + v cos). Pairs are (i, i + n_rot/2) if neox, else
 * (2i, 2i+1); dimensions from n_rot on pass unchanged. */
struct backend_rope {
    const float *omega; /* device (n_rot / 2) */
    float mu;
    uint32_t n_rot;
    bool neox;
};

enum backend_act {
    BACKEND_SILU, /* u / (1 + e^-u) */
    BACKEND_GELU, /* u/2 * (1 + tanh(sqrt(2/pi) * (u + 0.044715 u^3))) */
};

struct backend_attn {
    uint32_t n_head, n_head_kv; /* q head i reads kv head i * n_head_kv / n_head */
    uint32_t head_dim_k, head_dim_v;
    float scale;     /* on q.k */
    float softcap;   /* 0: none; else s -> softcap * tanh(s / softcap) */
    uint32_t window; /* 0: all keys j <= p; else only those with p - j < window */
};

/* One layer's share of a KV cache. */
struct backend_kv_layer {
    uint32_t n_head_kv, head_dim_k, head_dim_v;
    uint32_t window; /* 0: every position is kept; else a backend may keep only the last ones */
};

struct backend_kv;    /* keys and values of one sequence; opaque */
struct backend_graph; /* recorded ops; opaque */
struct backend_mark;  /* a place in the order of what is queued; opaque */

/* The rows of one step. Arrays are device addresses of n_tok entries. Sequences and pages join here
 * when there is more than one timeline; no op's signature changes. */
struct backend_step {
    uint32_t n_tok;
    const int32_t *id;  /* token ids, < n_vocab (the caller checked) */
    const int32_t *pos; /* positions, rising by one from pos[0] */
    uint32_t pos0; /* pos[0], for the host's bookkeeping; in a recording: pos[0] while recorded */
};

struct backend;

struct backend_ops {
    const char *name;
    bool is_reference; /* what the others are judged by */
    void (*close)(struct backend *b);

    /* What computes, in one line: a device's name, capability and driver; "cpu". Another text where
     * results may differ. Cut to n bytes. */
    int (*identity)(struct backend *b, char *buf, size_t n);

    /* n bytes of zeros; `what` names them in an error. -ENOMEM, -ERANGE. */
    int (*alloc)(struct backend *b, void **p, uint64_t n, const char *what);
    void (*release)(struct backend *b, void *p); /* NULL is fine */
    /* The same bytes for the host to fill and read, or NULL where upload() must be used. */
    void *(*host_view)(struct backend *b, void *p);
    int (*upload)(struct backend *b, void *dst, uint64_t off, const void *src, size_t n);
    int (*download)(struct backend *b, void *dst, const void *src, size_t n); /* waits */
    int (*sync)(struct backend *b);

    /* Loading without waiting for each piece; all NULL where host_view() never is. Staging memory is
     * the host's, and uploads need no copy of it; upload_queue()'s src is such memory, and in use
     * until a mark set behind it has been waited for. A mark may be set again and again: what is
     * waited for is its last place. */
    int (*stage_alloc)(struct backend *b, void **p, uint64_t n);
    void (*stage_free)(struct backend *b, void *p); /* NULL is fine; nothing may be using it */
    int (*upload_queue)(struct backend *b, void *dst, uint64_t off, const void *src, size_t n);
    int (*mark_new)(struct backend *b, struct backend_mark **m);
    void (*mark_free)(struct backend *b, struct backend_mark *m); /* NULL is fine */
    int (*mark_set)(struct backend *b, struct backend_mark *m);
    int (*mark_wait)(struct backend *b, struct backend_mark *m);

    /* Can this backend multiply by the type at all? Asked before anything is loaded. */
    bool (*takes_type)(struct backend *b, uint32_t type);
    /* All of m's bytes are in data: the moment to rearrange them. */
    int (*matrix_ready)(struct backend *b, struct backend_matrix *m);

    /* Bytes that may still be allocated and touched here; UINT64_MAX: nobody knows. *reserve of them
     * are for what no op allocates: the driver's own, launches. */
    uint64_t (*memory)(struct backend *b, uint64_t *reserve);
    /* What alloc() of n bytes takes of it, padding included; UINT64_MAX: more than can be counted. */
    uint64_t (*alloc_bytes)(struct backend *b, uint64_t n);
    /* The same of kv_new's cache once all its n_pos positions are written. */
    uint64_t (*kv_bytes)(struct backend *b, const struct backend_kv_layer *layer, uint32_t n_layer,
                         uint32_t n_pos);
    /* Room for n_pos positions; on a device all of it is taken at once. */
    int (*kv_new)(struct backend *b, struct backend_kv **kv, const struct backend_kv_layer *layer,
                  uint32_t n_layer, uint32_t n_pos);
    void (*kv_free)(struct backend *b, struct backend_kv *kv);

    /* Recordings; all four NULL where a backend makes none. Between begin and end ops are recorded
     * and not run; only the ops below may stand there. Addresses and numbers are kept as they were
     * given; what lies at the addresses is read at every replay. Where
     * an op in between fails, record_end is still called, and its graph, if it gives one, thrown
     * away. graph_free: NULL is fine. */
    int (*record_begin)(struct backend *b);
    int (*record_end)(struct backend *b, struct backend_graph **g);
    int (*replay)(struct backend *b, struct backend_graph *g);
    void (*graph_free)(struct backend *b, struct backend_graph *g);

    /* y[t,:] = scale * W[id[t],:]          y (n_tok, n_in) */
    int (*embed)(struct backend *b, float *y, const struct backend_matrix *w,
                 const struct backend_step *st, float scale);
    /* y[r,:] = x[r,:] * w[:] / sqrt(mean(x[r,:]^2) + eps)      (n_row, n); y may be x. Heads are
     * rows: q/k norm is this with n = head_dim. */
    int (*rmsnorm)(struct backend *b, float *y, const float *x, const float *w, uint32_t n_row,
                   uint32_t n, float eps);
    /* For each of n_lin linears over the same x (n_tok, n_in): y[i] (n_tok, n_out of lin[i]).
     * Matrices that share an input go in one call (q, k, v; gate, up): one boundary, not three. */
    int (*linear)(struct backend *b, float *const *y, const struct backend_linear *const *lin,
                  uint32_t n_lin, const float *x, uint32_t n_tok);
    /* In place on x (n_tok, n_head, head_dim). */
    int (*rope)(struct backend *b, float *x, const struct backend_rope *r,
                const struct backend_step *st, uint32_t n_head, uint32_t head_dim);
    /* Stores k (n_tok, n_head_kv, head_dim_k) and v (n_tok, n_head_kv, head_dim_v) at pos[t]. */
    int (*kv_append)(struct backend *b, struct backend_kv *kv, uint32_t layer, const float *k,
                     const float *v, const struct backend_step *st);
    /* o (n_tok, n_head, head_dim_v) = softmax(scale * q.k) v over the keys j <= pos[t] in kv, which
     * already holds this step's. q (n_tok, n_head, head_dim_k). */
    int (*attention)(struct backend *b, float *o, const float *q, struct backend_kv *kv,
                     uint32_t layer, const struct backend_attn *a, const struct backend_step *st);
    /* y = act(gate) * up, n elements; y may be gate. */
    int (*act_mul)(struct backend *b, float *y, const float *gate, const float *up, uint64_t n,
                   enum backend_act act);
    int (*add)(struct backend *b, float *y, const float *x, uint64_t n); /* y += x */
    int (*softcap)(struct backend *b, float *y, uint64_t n, float c);    /* y = c tanh(y / c) */
    /* out[r] = index of the largest of x[r,:], the lowest on a tie, or -1 if anything in the row is
     * not finite; out (n_row) device. */
    int (*argmax)(struct backend *b, int32_t *out, const float *x, uint32_t n_row, uint32_t n);
    /* The end of a greedy step, which makes the next one's inputs: history[pos[0]] = best[0] (if
     * pos[0] < n_history), id[0] = best[0], pos[0] += 1. All device. */
    int (*advance)(struct backend *b, int32_t *id, int32_t *pos, const int32_t *best,
                   int32_t *history, uint32_t n_history);
};

struct backend {
    const struct backend_ops *ops;
    struct err e; /* of the last op that failed */
};

struct backend_options {
    int n_thread;       /* CPU: worker threads, 0 = the CPUs this process may run on */
    uint64_t mem_limit; /* bytes to be taken for all the memory there is; 0: what the machine has */
};

/* "cpu" is the f32 reference, "gpu" its twin on a device. -ENODEV: a known backend that this build
 * or machine lacks; -EINVAL: no such name. */
int backend_open(struct backend **out, const char *name, const struct backend_options *opt,
                 struct err *e);
void backend_close(struct backend *b); /* NULL is fine */

/* Copies the backend's last error to e; returns rc. */
int backend_fail(const struct backend *b, int rc, struct err *e);

#endif
