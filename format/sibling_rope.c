/* RoPE factors that stand in tensors, in config.json's words. llama.cpp divides each frequency by the
 * tensor's factor; Hugging Face has names for two rules that make such factors. What none of them makes is
 * said to be unknown: a reader that does not know it stops, and computes no wrong positions. */
#include "format/sibling_internal.h"

#include "format/bytes.h"
#include "format/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FACTORS 4096 /* half a head's dimensions: 64 to 256 */
#define LOW_FACTOR  1.0  /* of every Llama since 3.1: config.json of the published models */
#define HIGH_FACTOR 4.0
#define CLOSE       1e-4 /* float32 sums, and bases of 500,000 to the power of -1 */

/* The n numbers of a tensor of that many F32; NULL and 0: there is none. -ENOTSUP: of another form. */
static int load_factors(float **out, size_t *n, const struct gguf *g, const char *name,
                        struct err *e)
{
    const struct gguf_tensor *t = gguf_find_tensor(g, name);
    *out = NULL;
    *n = 0;
    if (!t)
        return 0;
    if (t->n_dim != 1 || t->ne[0] > MAX_FACTORS || t->type != QUANT_F32)
        return -ENOTSUP;
    uint8_t *raw = malloc((size_t)t->size);
    float *v = calloc((size_t)t->ne[0], sizeof *v);
    int rc = raw && v ? source_read(gguf_part(g, t->part), raw, t->off, (size_t)t->size, e)
                      : err_set(e, -ENOMEM, "no memory for %" PRIu64 " factors", t->ne[0]);
    for (size_t i = 0; rc == 0 && i < t->ne[0]; i++) {
        v[i] = load_f32(raw + 4 * i);
        rc = isfinite(v[i]) && v[i] > 0 ? 0 : -ENOTSUP;
    }
    free(raw);
    if (rc < 0) {
        free(v);
        return rc;
    }
    *out = v;
    *n = (size_t)t->ne[0];
    return 0;
}

/* Frequency i's factor by the rule of Llama 3.1 (transformers, modeling_rope_utils.py, "llama3"): none for
 * short waves, all for those longer than the original context, and a blend between. */
static double llama3_factor(double inv_freq, double factor, double orig_ctx)
{
    double wave = 2 * M_PI / inv_freq;
    if (wave < orig_ctx / HIGH_FACTOR)
        return 1;
    if (wave > orig_ctx / LOW_FACTOR)
        return factor;
    double smooth = (orig_ctx / wave - LOW_FACTOR) / (HIGH_FACTOR - LOW_FACTOR);
    return 1 / ((1 - smooth) / factor + smooth);
}

static bool is_llama3(const float *v, size_t n, double theta, double factor, double orig_ctx)
{
    for (size_t i = 0; i < n; i++) {
        double want = llama3_factor(pow(theta, -(double)i / (double)n), factor, orig_ctx);
        if (fabs(v[i] - want) > CLOSE * want)
            return false;
    }
    return true;
}

static void find_llama3(struct sibling_rope *r, const float *v, size_t n,
                        const struct arch_config *c)
{
    bool plain = true;
    for (size_t i = 0; i < n; i++)
        plain &= v[i] == 1;
    if (plain)
        return;
    r->words = SIBLING_ROPE_UNKNOWN;
    for (uint32_t ctx = 1024; ctx <= 65536 && 2 * n == c->n_rot; ctx *= 2)
        if (is_llama3(v, n, c->rope_theta, v[n - 1], ctx)) {
            r->words = SIBLING_ROPE_LLAMA3;
            r->factor = v[n - 1];
            r->orig_ctx = ctx;
            return;
        }
}

int sibling_rope_find(struct sibling_rope *r, const struct gguf *g, const struct arch_config *c,
                      struct err *e)
{
    float *freqs = NULL;
    size_t n = 0, n_long = 0;
    memset(r, 0, sizeof *r);
    int rc = load_factors(&freqs, &n, g, "rope_freqs.weight", e);
    if (rc == 0 && n)
        find_llama3(r, freqs, n, c);
    free(freqs);
    if (rc == 0)
        rc = load_factors(&r->short_factor, &r->n, g, "rope_factors_short.weight", e);
    if (rc == 0)
        rc = load_factors(&r->long_factor, &n_long, g, "rope_factors_long.weight", e);
    if (rc == 0 && (r->n || n_long)) {
        bool whole = r->n == n_long && 2 * n_long == c->n_rot && r->words == SIBLING_ROPE_PLAIN;
        r->words = whole ? SIBLING_ROPE_LONG : SIBLING_ROPE_UNKNOWN;
        r->orig_ctx = c->scaling_orig_ctx;
    }
    /* rope_scaling holds one rule. */
    bool other = c->scaling == ARCH_SCALING_YARN ||
                 (c->scaling == ARCH_SCALING_LINEAR && c->scaling_factor != 1.0f);
    if ((other && r->words != SIBLING_ROPE_PLAIN) || c->scaling == ARCH_SCALING_UNKNOWN)
        r->words = SIBLING_ROPE_UNKNOWN;
    if (rc == -ENOTSUP) {
        r->words = SIBLING_ROPE_UNKNOWN;
        rc = 0;
    }
    return rc;
}

void sibling_rope_release(struct sibling_rope *r)
{
    free(r->short_factor);
    free(r->long_factor);
}

static void put_list(struct json_out *o, const char *key, const float *v, size_t n)
{
    json_key(o, key);
    json_open(o, '[');
    for (size_t i = 0; i < n; i++)
        json_put_f32(o, v[i]);
    json_close(o, ']');
}

static void put_type(struct json_out *o, const char *key, const char *v)
{
    json_key(o, key);
    json_put_cstr(o, v);
}

static void put_context(struct json_out *o, uint32_t n)
{
    json_key(o, "original_max_position_embeddings");
    json_put_u64(o, n);
}

void sibling_rope_put(struct json_out *o, const struct sibling_rope *r)
{
    if (r->words == SIBLING_ROPE_LONG)
        put_context(o, r->orig_ctx); /* Phi-3's class has it there */
    json_key(o, "rope_scaling");
    json_open(o, '{');
    switch (r->words) {
    case SIBLING_ROPE_LLAMA3:
        put_type(o, "rope_type", "llama3");
        sibling_put_real(o, "factor", r->factor, true);
        sibling_put_real(o, "low_freq_factor", LOW_FACTOR, false);
        sibling_put_real(o, "high_freq_factor", HIGH_FACTOR, false);
        put_context(o, r->orig_ctx);
        break;
    case SIBLING_ROPE_LONG:
        put_type(o, "type", "longrope");
        put_list(o, "short_factor", r->short_factor, r->n);
        put_list(o, "long_factor", r->long_factor, r->n);
        break;
    case SIBLING_ROPE_UNKNOWN:
    case SIBLING_ROPE_PLAIN:
        put_type(o, "rope_type", "unknown");
        break;
    }
    json_close(o, '}');
}
