/* The reference ops: one short C function each, f32, written to be read. They define what every
 * other path is measured against (engine.md section 9). No intrinsics, no threads inside;
 * the caller may split rows, tokens or heads among threads, which changes no result.
 *
 * Sums. cpu_dot() is the one dot product: products and short runs in f32, long sums in f64. Norms,
 * softmax sums and the mix over the values are f64, rounded to f32 once. exp, cos, sin, tanh are
 * libm's in f64, rounded to f32. */
#ifndef APRFS_INFER_CPU_OPS_H
#define APRFS_INFER_CPU_OPS_H

#include "format/quant.h"
#include "infer/backend.h"

/* sum of w[i] * x[i]. Defined as: runs of 256 elements (the last may be shorter); in a run, lane j
 * of 16 adds in f32, in rising i, the products with i % 16 = j; after each run the 16 lanes are
 * added to 16 f64 sums; at the end sum j takes sum j+8, then j+4, j+2, j+1. */
double cpu_dot(const float *w, const float *x, uint32_t n);

/* y (n_in) = scale * row id of w. */
void cpu_embed_row(float *y, const struct backend_matrix *w, const struct quant_type *qt,
                   uint32_t id, float scale);

/* y[:] = x[:] * w[:] / sqrt(mean(x^2) + eps), one row of n; y may be x. */
void cpu_rmsnorm_row(float *y, const float *x, const float *w, uint32_t n, float eps);

/* Rows [r0, r1) of lin for all n_tok columns: y (n_tok, n_out), x (n_tok, n_in). A row is
 * dequantised once, into row (n_in floats of scratch), and dotted with every column; a column's
 * bits do not depend on n_tok. */
void cpu_linear_rows(float *y, const struct backend_linear *lin, const struct quant_type *qt,
                     const float *x, uint32_t n_tok, uint32_t r0, uint32_t r1, float *row);

/* One token: x (n_head, head_dim) in place; angles and their cos and sin in f64. */
void cpu_rope_token(float *x, const struct backend_rope *r, int32_t pos, uint32_t n_head,
                    uint32_t head_dim);

/* One token and q head: o (head_dim_v) from q (head_dim_k), keys k + j * k_stride and values
 * v + j * v_stride for the positions a's window leaves of j <= pos. score: pos + 1 floats, mix:
 * head_dim_v doubles of scratch. */
void cpu_attention_head(float *o, const float *q, const float *k, size_t k_stride, const float *v,
                        size_t v_stride, const struct backend_attn *a, int32_t pos, float *score,
                        double *mix);

void cpu_act_mul(float *y, const float *gate, const float *up, uint64_t n, enum backend_act act);
void cpu_add(float *y, const float *x, uint64_t n);
void cpu_softcap(float *y, uint64_t n, float c);
/* The highest of x[0..n); the lowest index on a tie; -1: something in x is not finite. */
int32_t cpu_argmax(const float *x, uint32_t n);
void cpu_advance(int32_t *id, int32_t *pos, const int32_t *best, int32_t *history,
                 uint32_t n_history);

#endif
