#include "infer/model.h"

#include "format/apr_meta.h"
#include "format/quant.h"
#include "infer/bind.h"
#include "infer/budget.h"
#include "infer/model_load.h"
#include "infer/rope.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the pass of a family may hold beyond the common dense transformer. A row is here once its
 * tiny model and, where one can be had, a real file agree with llama.cpp. Which optional tensors
 * count is the reference program's: its graphs read ffn scales in some families only, and put them
 * behind the bias there, but before it in the attention. */
struct family {
    const char *arch;
    bool qk_norm, post_norms; /* required; without: refused as a tensor without place */
    bool o_bias, ffn_bias, head_bias;
    bool ffn_scale;
    bool rope_freqs;
    bool cls; /* a ranking head may lie beside the language head; generation never reads it */
};

static const struct family family_table[] = {
    {.arch = "llama", .o_bias = true, .ffn_bias = true, .ffn_scale = true, .rope_freqs = true},
    {.arch = "qwen2", .head_bias = true},
    {.arch = "qwen3", .qk_norm = true, .ffn_scale = true, .cls = true},
    {.arch = "gemma3", .qk_norm = true, .post_norms = true},
};

static const struct family *family_find(const char *arch)
{
    for (size_t i = 0; i < sizeof family_table / sizeof family_table[0]; i++)
        if (strcmp(family_table[i].arch, arch) == 0)
            return &family_table[i];
    return NULL;
}

#define REFUSE(cond, ...)                                                                          \
    do {                                                                                           \
        if (cond)                                                                                  \
            return err_set(e, -ENOTSUP, __VA_ARGS__);                                              \
    } while (0)

/* Features by which a model of a known family would still compute something else. */
static int check_features(const struct arch_config *c, struct err *e)
{
    REFUSE(c->norm != ARCH_NORM_RMS, "%s with LayerNorm: not supported", c->arch);
    REFUSE(c->act != ARCH_ACT_SILU && c->act != ARCH_ACT_GELU,
           "%s with this activation function: not supported", c->arch);
    REFUSE(!c->ffn_gated, "%s with an ungated FFN: not supported", c->arch);
    REFUSE(c->n_expert, "%s with %" PRIu32 " experts (mixture of experts): not supported", c->arch,
           c->n_expert);
    REFUSE(c->n_layer_nextn, "%s with %" PRIu32 " next-token prediction layers: not supported",
           c->arch, c->n_layer_nextn);
    REFUSE(c->rope != ARCH_ROPE_NORM && c->rope != ARCH_ROPE_NEOX,
           "%s without plain rotary positions (none or multi-section): not supported", c->arch);
    REFUSE(c->scaling == ARCH_SCALING_UNKNOWN, "%s: unknown rope.scaling.type", c->arch);
    REFUSE(c->residual_scale != 1, "%s with residual scale %g: not supported", c->arch,
           (double)c->residual_scale);
    REFUSE(c->logit_scale != 1, "%s with logit scale %g: not supported", c->arch,
           (double)c->logit_scale);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        if (!c->layer_local[i])
            continue;
        REFUSE(!c->sliding_window, "layer %" PRIu32 " is local without a sliding window", i);
        REFUSE(c->head_dim_k_swa != c->head_dim_k || c->head_dim_v_swa != c->head_dim_v,
               "%s with another head size in local layers: not supported", c->arch);
        REFUSE(c->yarn_ext_factor != 0, "%s with local layers and YaRN: not supported", c->arch);
    }
    return 0;
}

/* Encoders of a known family (embedding models) say that every token sees every other. */
static int check_causal(const struct arch_config *c, const cJSON *meta, struct err *e)
{
    char key[ARCH_NAME_MAX + 32];
    bool causal = true;
    snprintf(key, sizeof key, "%s.attention.causal", c->arch);
    const cJSON *v = json_get(meta, key);
    if (v && !json_bool(v, &causal))
        return err_set(e, -EUCLEAN, "%s is neither true nor false", key);
    REFUSE(!causal, "%s is false: attention to later tokens is not supported", key);
    return 0;
}

static bool positive(float v)
{
    return isfinite(v) && v > 0;
}

#define BAD(cond, ...)                                                                             \
    do {                                                                                           \
        if (cond)                                                                                  \
            return err_set(e, -EUCLEAN, __VA_ARGS__);                                              \
    } while (0)

static int check_rope(const char *what, uint32_t n_rot, uint32_t head_dim, float theta,
                      float factor, struct err *e)
{
    BAD(n_rot == 0 || n_rot % 2 || n_rot > head_dim,
        "%s: %" PRIu32 " rotated dimensions of a head of %" PRIu32, what, n_rot, head_dim);
    BAD(!positive(theta), "%s: rope base %g", what, (double)theta);
    BAD(!positive(factor), "%s: rope scaling factor %g", what, (double)factor);
    return 0;
}

/* Numbers the pass divides by, takes roots of, or sizes memory with. */
static int check_numbers(const struct arch_config *c, struct err *e)
{
    BAD(!c->n_layer || c->n_layer > 4096, "%" PRIu32 " layers", c->n_layer);
    BAD(!c->n_embd || c->n_embd > 1 << 20, "embedding length %" PRIu32, c->n_embd);
    BAD(!c->n_vocab || c->n_vocab > 1 << 24, "vocabulary of %" PRIu32, c->n_vocab);
    BAD(!c->n_ctx_train || c->n_ctx_train > INT32_MAX, "context length %" PRIu32, c->n_ctx_train);
    BAD(!c->head_dim_k || c->head_dim_k > 1 << 16, "head size %" PRIu32, c->head_dim_k);
    BAD(!c->head_dim_v || c->head_dim_v > 1 << 16, "head size %" PRIu32 " of V", c->head_dim_v);
    BAD(!(c->norm_eps >= 0) || !isfinite(c->norm_eps), "norm epsilon %g", (double)c->norm_eps);
    BAD(!isfinite(c->attn_scale) || c->attn_scale == 0, "attention scale %g",
        (double)c->attn_scale);
    BAD(!positive(c->embed_scale), "embedding scale %g", (double)c->embed_scale);
    BAD(!(c->attn_softcap >= 0) || !(c->final_softcap >= 0), "softcap below zero");
    BAD(!positive(c->scaling_attn_factor), "rope attention factor %g",
        (double)c->scaling_attn_factor);
    BAD(c->yarn_ext_factor != 0 && (!c->scaling_orig_ctx || !positive(c->yarn_beta_fast) ||
                                    !positive(c->yarn_beta_slow) || !(c->rope_theta > 1)),
        "YaRN with original context %" PRIu32 ", betas %g and %g, base %g", c->scaling_orig_ctx,
        (double)c->yarn_beta_fast, (double)c->yarn_beta_slow, (double)c->rope_theta);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        BAD(!c->n_head[i] || !c->n_head_kv[i] || c->n_head[i] > 1 << 16 ||
                c->n_head_kv[i] > c->n_head[i] || c->n_head[i] % c->n_head_kv[i],
            "layer %" PRIu32 ": %" PRIu32 " heads over %" PRIu32 " KV heads", i, c->n_head[i],
            c->n_head_kv[i]);
        BAD(!c->n_ff[i] || c->n_ff[i] > 1 << 24, "layer %" PRIu32 ": FFN of %" PRIu32, i,
            c->n_ff[i]);
    }
    int rc = check_rope("rope", c->n_rot, c->head_dim_k, c->rope_theta, c->scaling_factor, e);
    bool local = c->sliding_window && memchr(c->layer_local, 1, c->n_layer);
    if (rc == 0 && local)
        rc = check_rope("rope of local layers", c->n_rot_swa, c->head_dim_k_swa, c->rope_theta_swa,
                        c->scaling_factor_swa, e);
    return rc;
}

/* A linear's weights with what may stand beside them: bias, scale, and the range of activations
 * that kernels which quantise those need; f32 activations need none. */
static int bind_linear(struct bind *x, int layer, const char *stem, uint64_t n_out, uint64_t n_in,
                       bool may_bias, bool may_scale, struct backend_linear *out, struct err *e)
{
    char name[64];
    *out = (struct backend_linear){.scale = 1};
    snprintf(name, sizeof name, "%s.weight", stem);
    int rc = bind_matrix(x, layer, name, n_out, n_in, BIND_REQUIRED, &out->w, e);
    if (rc == 0 && may_bias) {
        snprintf(name, sizeof name, "%s.bias", stem);
        rc = bind_vector(x, layer, name, n_out, BIND_OPTIONAL, &out->bias, e);
    }
    snprintf(name, sizeof name, "%s.scale", stem);
    if (rc == 0 && may_scale)
        rc = bind_scale(x, layer, name, &out->scale, e);
    else if (rc == 0 && out->w->type != QUANT_NVFP4) /* the reference reads and drops it there */
        bind_ignore(x, layer, name);
    snprintf(name, sizeof name, "%s.input_scale", stem);
    bind_ignore(x, layer, name);
    return rc;
}

static int bind_attention(struct bind *x, const struct family *f, int i, struct model_layer *l,
                          struct err *e)
{
    const struct arch_config *c = &x->m->c;
    uint64_t n_q = (uint64_t)l->n_head * l->head_dim_k,
             n_k = (uint64_t)l->n_head_kv * l->head_dim_k,
             n_v = (uint64_t)l->n_head_kv * l->head_dim_v,
             n_o = (uint64_t)l->n_head * l->head_dim_v;
    int rc = bind_vector(x, i, "attn_norm.weight", c->n_embd, BIND_REQUIRED, &l->attn_norm, e);
    if (rc == 0)
        rc = bind_linear(x, i, "attn_q", n_q, c->n_embd, true, true, &l->q, e);
    if (rc == 0)
        rc = bind_linear(x, i, "attn_k", n_k, c->n_embd, true, true, &l->k, e);
    if (rc == 0)
        rc = bind_linear(x, i, "attn_v", n_v, c->n_embd, true, true, &l->v, e);
    if (rc == 0)
        rc = bind_linear(x, i, "attn_output", c->n_embd, n_o, f->o_bias, true, &l->o, e);
    if (rc == 0 && f->qk_norm) {
        rc = bind_vector(x, i, "attn_q_norm.weight", l->head_dim_k, BIND_REQUIRED, &l->q_norm, e);
        if (rc == 0)
            rc = bind_vector(x, i, "attn_k_norm.weight", l->head_dim_k, BIND_REQUIRED, &l->k_norm,
                             e);
    }
    if (rc == 0 && f->post_norms)
        rc = bind_vector(x, i, "post_attention_norm.weight", c->n_embd, BIND_REQUIRED,
                         &l->post_attn_norm, e);
    return rc;
}

static int bind_ffn(struct bind *x, const struct family *f, int i, struct model_layer *l,
                    struct err *e)
{
    const struct arch_config *c = &x->m->c;
    int rc = bind_vector(x, i, "ffn_norm.weight", c->n_embd, BIND_REQUIRED, &l->ffn_norm, e);
    if (rc == 0)
        rc = bind_linear(x, i, "ffn_gate", l->n_ff, c->n_embd, f->ffn_bias, f->ffn_scale, &l->gate,
                         e);
    if (rc == 0)
        rc = bind_linear(x, i, "ffn_up", l->n_ff, c->n_embd, f->ffn_bias, f->ffn_scale, &l->up, e);
    if (rc == 0)
        rc = bind_linear(x, i, "ffn_down", c->n_embd, l->n_ff, f->ffn_bias, f->ffn_scale, &l->down,
                         e);
    l->gate.bias_first = l->up.bias_first = l->down.bias_first = true;
    if (rc == 0 && f->post_norms)
        rc = bind_vector(x, i, "post_ffw_norm.weight", c->n_embd, BIND_REQUIRED, &l->post_ffn_norm,
                         e);
    return rc;
}

/* The frequency divisors of the file, if it has any: rope_freqs (Llama 3.1 and later; read, never
 * recomputed), or for longrope the long or short ones, by the context allotted. */
static int bind_rope_factors(struct bind *x, const struct family *f, float **out, struct err *e)
{
    const struct model *m = x->m;
    const char *stem = "rope_freqs.weight", *other = NULL;
    *out = NULL;
    if (!f->rope_freqs)
        return 0;
    if (m->c.scaling == ARCH_SCALING_LONGROPE) {
        bool lengthen = m->n_ctx > m->c.scaling_orig_ctx;
        stem = lengthen ? "rope_factors_long.weight" : "rope_factors_short.weight";
        other = lengthen ? "rope_factors_short.weight" : "rope_factors_long.weight";
        bind_ignore(x, -1, other); /* the pair's other half, chosen against above */
    }
    int rc = bind_host(x, -1, stem, m->c.n_rot / 2, out, e);
    if (rc == 0 && !*out && other && apr_find(x->apr, other))
        rc = err_set(e, -ENOENT, "tensor '%s' is missing: a context of %" PRIu32 " needs it", stem,
                     m->n_ctx);
    for (uint32_t i = 0; rc == 0 && *out && i < m->c.n_rot / 2; i++)
        if (!isfinite((*out)[i]) || (*out)[i] == 0)
            rc = err_set(e, -EUCLEAN, "tensor '%s': element %" PRIu32 " is %g", stem, i,
                         (double)(*out)[i]);
    if (rc < 0) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

static int make_rope(struct bind *x, bool local, const float *factor, struct backend_rope *r,
                     struct err *e)
{
    const struct model *m = x->m;
    struct rope_params p = rope_params_of(&m->c, local);
    p.factor = factor;
    float *omega = malloc(p.n_rot / 2 * sizeof *omega);
    if (!omega)
        return err_set(e, -ENOMEM, "no memory for the rope table");
    *r = (struct backend_rope){.n_rot = p.n_rot, .neox = m->c.rope == ARCH_ROPE_NEOX};
    rope_table(&p, omega, &r->mu);
    return bind_table(x, "rope table", omega, p.n_rot / 2, &r->omega, e);
}

static int bind_all(struct bind *x, const struct family *f, struct err *e)
{
    struct model *m = x->m;
    const struct arch_config *c = &m->c;
    float *factor = NULL;
    int rc =
        bind_matrix(x, -1, "token_embd.weight", c->n_vocab, c->n_embd, BIND_REQUIRED, &m->embd, e);
    if (rc == 0)
        rc = bind_vector(x, -1, "output_norm.weight", c->n_embd, BIND_REQUIRED, &m->output_norm, e);
    if (rc == 0)
        rc = bind_matrix(x, -1, "output.weight", c->n_vocab, c->n_embd, BIND_OPTIONAL, &m->head.w,
                         e);
    m->head.scale = 1;
    if (rc == 0 && !m->head.w)
        m->head.w = m->embd; /* tied: the file has no head of its own */
    if (rc == 0 && f->head_bias)
        rc = bind_vector(x, -1, "output.bias", c->n_vocab, BIND_OPTIONAL, &m->head.bias, e);
    if (f->cls)
        bind_ignore(x, -1, "cls.output.weight");
    if (rc == 0)
        rc = bind_rope_factors(x, f, &factor, e);
    if (rc == 0)
        rc = make_rope(x, false, factor, &m->rope_global, e);
    free(factor);
    if (rc == 0 && c->sliding_window && memchr(c->layer_local, 1, c->n_layer))
        rc = make_rope(x, true, NULL, &m->rope_local, e);
    for (uint32_t i = 0; rc == 0 && i < c->n_layer; i++) {
        struct model_layer *l = &m->layer[i];
        bool local = c->layer_local[i];
        *l = (struct model_layer){
            .n_head = c->n_head[i],
            .n_head_kv = c->n_head_kv[i],
            .n_ff = c->n_ff[i],
            .head_dim_k = c->head_dim_k,
            .head_dim_v = c->head_dim_v,
            .window = local ? c->sliding_window : 0,
            .rope = !c->layer_rope[i] ? NULL
                    : local           ? &m->rope_local
                                      : &m->rope_global,
        };
        rc = bind_attention(x, f, (int)i, l, e);
        if (rc == 0)
            rc = bind_ffn(x, f, (int)i, l, e);
    }
    return rc == 0 ? bind_finish(x, e) : rc;
}

static int load(struct model *m, const struct apr *apr, const struct model_options *opt,
                struct err *e)
{
    const struct family *f = family_find(m->c.arch);
    if (!f)
        return err_set(
            e, -ENOTSUP,
            "architecture '%s' is not supported (supported: llama, qwen2, qwen3, gemma3)",
            m->c.arch);
    int rc = check_features(&m->c, e);
    if (rc == 0)
        rc = check_causal(&m->c, apr_meta(apr), e);
    if (rc == 0)
        rc = check_numbers(&m->c, e);
    if (rc < 0)
        return rc;
    m->n_ctx = opt->n_ctx ? opt->n_ctx : m->c.n_ctx_train;
    if (m->n_ctx > m->c.n_ctx_train)
        return err_set(e, -ERANGE,
                       "a context of %" PRIu32 " tokens: the model was trained for %" PRIu32,
                       m->n_ctx, m->c.n_ctx_train);
    m->act = m->c.act == ARCH_ACT_GELU ? BACKEND_GELU : BACKEND_SILU;
    m->layer = calloc(m->c.n_layer, sizeof *m->layer);
    if (!m->layer)
        return err_set(e, -ENOMEM, "no memory for %" PRIu32 " layers", m->c.n_layer);
    struct bind x;
    rc = bind_init(&x, m, apr, e);
    if (rc == 0)
        rc = bind_all(&x, f, e);
    if (rc == 0)
        rc = budget_check(m, &x, opt->n_pos, e);
    if (rc == 0)
        rc = model_load(m, &x, opt, e);
    bind_release(&x);
    return rc;
}

int model_open(struct model **out, const struct apr *apr, struct backend *b,
               const struct model_options *opt, struct err *e)
{
    static const struct model_options none;
    struct model *m = calloc(1, sizeof *m);
    if (!m)
        return err_set(e, -ENOMEM, "no memory for a model");
    m->b = b;
    int rc = apr_meta_read(apr_meta(apr), &m->c, e);
    if (rc == 0)
        rc = load(m, apr, opt ? opt : &none, e);
    if (rc < 0) {
        model_close(m);
        return rc;
    }
    *out = m;
    return 0;
}

void model_close(struct model *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_matrix; i++) {
        m->b->ops->release(m->b, m->matrix[i]->data);
        free(m->matrix[i]);
    }
    for (size_t i = 0; i < m->n_vec; i++)
        m->b->ops->release(m->b, m->vec[i]);
    free(m->matrix);
    free(m->vec);
    free(m->layer);
    arch_config_release(&m->c);
    free(m);
}
