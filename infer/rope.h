/* Rotary positions as one table per layer class (engine.md section 10.2): every variant is
 * linear in the position, so the loader computes omega in f64, stores f32, and kernels only do
 * cos(p * omega) and sin(p * omega). */
#ifndef APRFS_INFER_ROPE_H
#define APRFS_INFER_ROPE_H

#include "format/arch.h"

#include <stdbool.h>

struct rope_params {
    uint32_t n_rot;     /* even */
    double base;        /* rope.freq_base */
    double scale;       /* 1 / rope.scaling.factor; 1 where nothing stretches */
    double ext_factor;  /* 0: no YaRN mix */
    double attn_factor; /* rope.scaling.attn_factor */
    double beta_fast, beta_slow, log_mul;
    uint32_t n_ctx_orig;
    const float *factor; /* (n_rot / 2) divisors of the frequencies (rope_freqs), or NULL */
};

/* The parameters of c's global (local = false) or local layers; factor is NULL. */
struct rope_params rope_params_of(const struct arch_config *c, bool local);

/* omega: n_rot / 2 entries to fill; *mu: the factor on cos and sin. */
void rope_table(const struct rope_params *p, float *omega, float *mu);

#endif
