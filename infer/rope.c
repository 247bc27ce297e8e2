#include "infer/rope.h"

#include <math.h>

struct rope_params rope_params_of(const struct arch_config *c, bool local)
{
    double factor = (double)(local ? c->scaling_factor_swa : c->scaling_factor);
    if (c->scaling == ARCH_SCALING_NONE)
        factor = 1;
    return (struct rope_params){
        .n_rot = local ? c->n_rot_swa : c->n_rot,
        .base = (double)(local ? c->rope_theta_swa : c->rope_theta),
        .scale = 1 / factor,
        .ext_factor = (double)c->yarn_ext_factor,
        .attn_factor = (double)c->scaling_attn_factor,
        .beta_fast = (double)c->yarn_beta_fast,
        .beta_slow = (double)c->yarn_beta_slow,
        .log_mul = (double)c->yarn_log_mul,
        .n_ctx_orig = c->scaling_orig_ctx,
    };
}

/* YaRN: the pair index whose wave makes beta turns within the original context. */
static double yarn_pair(const struct rope_params *p, double beta)
{
    return p->n_rot * log(p->n_ctx_orig / (beta * 2 * M_PI)) / (2 * log(p->base));
}

/* YaRN: the magnitude that belongs to a stretch by `factor`. */
static double yarn_magnitude(double factor, double mul)
{
    return factor <= 1 ? 1 : 0.1 * mul * log(factor) + 1;
}

void rope_table(const struct rope_params *p, float *omega, float *mu)
{
    double lo = 0, hi = 0;
    if (p->ext_factor != 0) {
        lo = fmax(0, floor(yarn_pair(p, p->beta_fast)));
        hi = fmin(p->n_rot - 1, ceil(yarn_pair(p, p->beta_slow)));
    }
    for (uint32_t i = 0; i < p->n_rot / 2; i++) {
        double f = pow(p->base, -2.0 * i / p->n_rot);
        if (p->factor)
            f /= (double)p->factor[i];
        double mix = 0; /* share of the unscaled frequency */
        if (p->ext_factor != 0) {
            double y = (i - lo) / fmax(0.001, hi - lo);
            mix = p->ext_factor * (1 - fmin(1, fmax(0, y)));
        }
        omega[i] = (float)(f * (p->scale * (1 - mix) + mix));
    }
    double m = p->attn_factor;
    if (p->ext_factor != 0) {
        m *= yarn_magnitude(1 / p->scale, 1);
        if (p->log_mul != 0)
            m /= yarn_magnitude(1 / p->scale, p->log_mul);
    }
    *mu = (float)m;
}
