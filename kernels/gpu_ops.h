/* One C function per op of the forward pass, on the device. Each is queued on s; its output is
 * ready after gpu_stream_sync(s), or for what is queued behind it. All pointers are device memory,
 * all arrays row-major and without gaps; n_tok are the rows of one step.
 *
 * Returns 0, -EINVAL (shape, type or alignment: nothing is queued), -EIO (launch) or -ENODEV (no
 * GPU in this build); gpu_last_error() says how.
 *
 * Twins. Each op computes what its twin in infer/cpu/ops.h computes, in the same order of sums
 * where that decides bits: embed, linear, add, kv_append, argmax are bit-identical; the others
 * differ by the device's exp, cos, sin, tanh, by the order of f64 sums, or both (NMSE <= 1e-12).
 * No result depends on the order of threads, on n_tok, or on the rows beside it.
 *
 * Token ids and positions are read from device memory, so that a recorded graph never changes from
 * step to step. An id or position that is out of range is the caller's slip which the host cannot
 * see in a graph: its rows become NaN, and nothing is written elsewhere. */
#ifndef APRFS_KERNELS_GPU_OPS_H
#define APRFS_KERNELS_GPU_OPS_H

#include "kernels/gpu.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Weights (n_out, n_in) of GGML type `type` (format/quant.h), quantised as in the file, rows back
 * to back. data is aligned to the size of a plain number (F32: 4); blocks lie anywhere, so a matrix
 * may start at any row of another. */
struct gpu_matrix {
    uint32_t type, n_out, n_in;
    const void *data;
};

/* Can embed and linear read this type? */
bool gpu_takes_type(uint32_t type);

/* y[t,:] = scale * W[id[t],:]
 *   y (n_tok, n_in) f32 written      id (n_tok) i32, < n_out      w (n_out, n_in)
 * Twin: cpu_embed_row(). */
int gpu_embed(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const int32_t *id,
              uint32_t n_tok, float scale);

/* y[r,:] = x[r,:] * w[:] / sqrt(mean(x[r,:]^2) + eps)
 *   x (n_row, n) f32      w (n) f32      y (n_row, n) f32 written; may be x
 * Heads are rows: q/k norm is this with n = head_dim. Sums in f64.
 * Source: Zhang & Sennrich 2019. Twin: cpu_rmsnorm_row(). */
int gpu_rmsnorm(struct gpu_stream *s, float *y, const float *x, const float *w, uint32_t n_row,
                uint32_t n, float eps);

/* y = (W x) * scale + bias, or, bias_first, (W x + bias) * scale
 *   x (n_tok, n_in) f32      bias (n_out) f32 or NULL      y (n_tok, n_out) f32 written
 * Twin: cpu_linear_rows(); the dot is that of cpu_dot(). */
int gpu_linear(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const float *bias,
               float scale, bool bias_first, const float *x, uint32_t n_tok);

/* Rotary positions in place: pair i of each head at position p = pos[t] turns by p * omega[i] and
 * is scaled by mu. Pairs are (i, i + n_rot/2) if neox, else (2i, 2i+1); dimensions from n_rot on
 * stay.
 *   x (n_tok, n_head, head_dim) f32      omega (n_rot / 2) f32      pos (n_tok) i32, >= 0
 *   n_rot even, <= head_dim
 * Twin: cpu_rope_token(). */
int gpu_rope(struct gpu_stream *s, float *x, const float *omega, float mu, uint32_t n_rot,
             bool neox, const int32_t *pos, uint32_t n_tok, uint32_t n_head, uint32_t head_dim);

/* One layer's keys and values of one sequence: k (n_ctx, n_head_kv, head_dim_k), v (n_ctx,
 * n_head_kv, head_dim_v) f32. */
struct gpu_kv {
    float *k, *v;
    uint32_t n_ctx, n_head_kv, head_dim_k, head_dim_v;
};

/* Stores k (n_tok, n_head_kv, head_dim_k) and v (n_tok, n_head_kv, head_dim_v) at pos[t]; the
 * positions of one call differ. One out of range is not stored. */
int gpu_kv_append(struct gpu_stream *s, const struct gpu_kv *kv, const float *k, const float *v,
                  const int32_t *pos, uint32_t n_tok);

struct gpu_attn {
    uint32_t n_head; /* q head i reads kv head i * n_head_kv / n_head */
    float scale;     /* on q.k */
    float softcap;   /* 0: none; else s -> softcap * tanh(s / softcap) */
    uint32_t window; /* 0: all keys j <= p; else only those with p - j < window */
};

/* o[t,h,:] = softmax(scale * q[t,h,:].K) V over the keys j <= pos[t], which kv holds already
 *   q (n_tok, n_head, head_dim_k) f32      o (n_tok, n_head, head_dim_v) f32 written, not q
 *   head_dim_v <= 4096
 * The length is read from pos; scores and mix over chunks of 128 keys with a running maximum (Milakov
 * & Gimelshein 2018), f64. Twin: cpu_attention_head(). */
int gpu_attention(struct gpu_stream *s, float *o, const float *q, const struct gpu_kv *kv,
                  const struct gpu_attn *a, const int32_t *pos, uint32_t n_tok);

enum gpu_act {
    GPU_SILU, /* u / (1 + e^-u) */
    GPU_GELU, /* u/2 * (1 + tanh(sqrt(2/pi) * (u + 0.044715 u^3))) */
};

/* y[i] = act(gate[i]) * up[i], i < n; y may be gate or up. act: enum gpu_act, an int here because C++
 * may take for granted that an enum holds nothing else, and the check with it. Twin: cpu_act_mul(). */
int gpu_act_mul(struct gpu_stream *s, float *y, const float *gate, const float *up, uint64_t n,
                int act);

/* y[i] += x[i]. Twin: cpu_add(). */
int gpu_add(struct gpu_stream *s, float *y, const float *x, uint64_t n);

/* y[i] = c * tanh(y[i] / c), c > 0. Twin: cpu_softcap(). */
int gpu_softcap(struct gpu_stream *s, float *y, uint64_t n, float c);

/* out[r] = index of the largest of x[r,:], the lowest on a tie; -1 if anything in the row is not
 * finite, so that a greedy choice never hides it.
 *   x (n_row, n) f32, n <= INT32_MAX      out (n_row) i32 written
 * Twin: cpu_argmax(). */
int gpu_argmax(struct gpu_stream *s, int32_t *out, const float *x, uint32_t n_row, uint32_t n);

/* The end of a greedy step, so that a recorded step can be launched again as it is: history[pos[0]]
 * = best[0] (if pos[0] < n_history), id[0] = best[0], pos[0] += 1. Each one i32.
 * Twin: cpu_advance(). */
int gpu_advance(struct gpu_stream *s, int32_t *id, int32_t *pos, const int32_t *best,
                int32_t *history, uint32_t n_history);

#ifdef __cplusplus
}
#endif
#endif
