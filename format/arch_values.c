/* The numbers that shape a forward pass beyond its dimensions: norm, activation, rotation, windows,
 * scales, caps, and what presence in the file says. Reference = llama.cpp; where a file says
 * nothing and llama.cpp would refuse it (epsilon), arch-resolver.md §8.3. */
#include "format/arch_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RMS_KEY "attention.layer_norm_rms_epsilon"
#define LN_KEY  "attention.layer_norm_epsilon"

static const struct arch_row general_row = {.name = "(none)", .eps = ARCH_EPS_EITHER};

static const struct arch_row *row_of(const struct arch_ctx *x)
{
    return x->row ? x->row : &general_row;
}

static int resolve_eps(struct arch_ctx *x)
{
    const struct arch_row *r = row_of(x);
    struct arch_config *c = &x->c;
    c->norm = r->norm;
    const char *key = r->norm == ARCH_NORM_LAYER ? LN_KEY : RMS_KEY;
    if (r->eps == ARCH_EPS_RMS_IF_SET) {
        float v = 0;
        int rc = arch_key_f32(x, RMS_KEY, &v);
        if (rc < 0)
            return rc;
        c->norm = rc > 0 && v != 0 ? ARCH_NORM_RMS : ARCH_NORM_LAYER;
        key = c->norm == ARCH_NORM_RMS ? RMS_KEY : LN_KEY;
    } else if (r->eps == ARCH_EPS_RMS_ELSE_LN && !arch_key(x, RMS_KEY)) {
        key = LN_KEY;
    } else if (r->eps == ARCH_EPS_EITHER && !arch_key(x, RMS_KEY) && arch_key(x, LN_KEY)) {
        key = LN_KEY;
        c->norm = ARCH_NORM_LAYER;
    }
    arch_prov_set(x, ARCH_F_NORM, x->row ? ARCH_FROM_DEFAULT : ARCH_FROM_KEY, "row %s", r->name);
    c->norm_eps = r->eps_default > 0 ? r->eps_default : 1e-5F;
    arch_prov_set(x, ARCH_F_NORM_EPS, ARCH_FROM_DEFAULT, "row %s (arch-resolver 8.3)", r->name);
    int rc = arch_key_f32(x, key, &c->norm_eps);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_NORM_EPS, key);
    return rc < 0 ? rc : 0;
}

/* The gate is seen in the file; a file without a dense or expert FFN takes the row's word. */
static int resolve_act(struct arch_ctx *x)
{
    const struct arch_row *r = row_of(x);
    struct arch_config *c = &x->c;
    bool seen = false, gate = false;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const struct arch_layer_facts *l = &x->facts.layer[i];
        bool fused = l->up_out && !l->gate && l->down_in && l->up_out == 2 * (uint64_t)l->down_in;
        seen = seen || l->up_out || l->gate_exps || l->up_exps;
        gate = gate || l->gate || l->gate_exps || fused;
        c->fused_gate_up = c->fused_gate_up || fused;
    }
    c->ffn_gated = seen ? gate : !r->ungated;
    c->act = r->gated_gelu && c->ffn_gated ? ARCH_ACT_GELU : r->act;
    arch_prov_set(x, ARCH_F_FFN_GATED, seen ? ARCH_FROM_SHAPE : ARCH_FROM_DEFAULT, "%s%s",
                  seen ? "presence of blk.N.ffn_gate" : "row ", seen ? "" : r->name);
    arch_prov_set(x, ARCH_F_ACT, ARCH_FROM_DEFAULT, "row %s", r->name);
    arch_prov_set(x, ARCH_F_FUSED_GATE_UP, ARCH_FROM_SHAPE, "blk.N.ffn_up.weight ne[1]");
    if (seen && gate == r->ungated && x->row && !r->gated_gelu)
        arch_note(x, "the file %s an FFN gate, which is not usual for %s", gate ? "has" : "lacks",
                  r->name);
    struct gguf_str s;
    if (r->hidden_act && gguf_as_str(arch_key(x, "hidden_activation"), &s)) {
        if (gguf_str_eq(s, "gelu") || gguf_str_eq(s, "gelu_pytorch_tanh") ||
            gguf_str_eq(s, "geglu"))
            c->act = ARCH_ACT_GELU;
        else if (gguf_str_eq(s, "silu") || gguf_str_eq(s, "swish") || gguf_str_eq(s, "swiglu"))
            c->act = ARCH_ACT_SILU;
        else
            c->act = ARCH_ACT_OTHER;
        arch_prov_key(x, ARCH_F_ACT, "hidden_activation");
    }
    return 0;
}

static enum arch_rope pairing(struct arch_ctx *x, const struct arch_row *r)
{
    uint64_t s[4] = {0};
    const struct gguf_key *k = arch_key(x, "rope.dimension_sections");
    for (uint32_t i = 0; k && k->type == GGUF_ARRAY && i < 4 && i < k->n; i++)
        gguf_elem_u64(k, i, &s[i]);
    uint32_t hc = 0;
    if (r->rope_sections && s[0] && s[1])
        return ARCH_ROPE_MROPE;
    if (r->rope_dflash && (s[0] || s[1] || s[2] || s[3]))
        return ARCH_ROPE_MROPE;
    if (r->rope_dflash && arch_row_u32(x, "hyper_connection.count", UINT32_MAX, &hc) > 0 && hc)
        return ARCH_ROPE_NORM;
    return r->rope;
}

static int resolve_scaling(struct arch_ctx *x)
{
    static const enum arch_fid ids[] = {ARCH_F_SCALING, ARCH_F_SCALING_FACTOR,
                                        ARCH_F_SCALING_ATTN_FACTOR};
    struct arch_config *c = &x->c;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        arch_prov_set(x, ids[i], ARCH_FROM_DEFAULT, "llama.cpp's default");
    const struct gguf_key *k = arch_key(x, "rope.scaling.type");
    struct gguf_str s;
    if (k && !gguf_as_str(k, &s))
        return err_set(x->e, -EUCLEAN, "key %s.rope.scaling.type is no string", c->arch);
    if (k) {
        c->scaling = ARCH_SCALING_UNKNOWN;
        for (int i = 0; i < ARCH_SCALING_UNKNOWN; i++)
            if (gguf_str_eq(s, arch_enum_name(ARCH_KIND_SCALING, i)))
                c->scaling = (enum arch_scaling)i;
        arch_prov_key(x, ARCH_F_SCALING, "rope.scaling.type");
        if (c->scaling == ARCH_SCALING_UNKNOWN)
            arch_note(x, "rope scaling type \"%.*s\" is not known", (int)(s.len < 40 ? s.len : 40),
                      s.p);
    }
    float v = 0;
    const char *key = "rope.scaling.factor";
    int rc = arch_key_f32(x, key, &v);
    if (!rc)
        rc = arch_key_f32(x, key = "rope.scale_linear", &v);
    if (rc < 0)
        return rc;
    if (rc > 0 && v != 0) {
        c->scaling_factor = v;
        arch_prov_key(x, ARCH_F_SCALING_FACTOR, key);
    }
    rc = arch_key_f32(x, "rope.scaling.attn_factor", &c->scaling_attn_factor);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_SCALING_ATTN_FACTOR, "rope.scaling.attn_factor");
    return rc < 0 ? rc : 0;
}

static int row_f32_or(struct arch_ctx *x, enum arch_fid f, const char *key, float def,
                      const char *why)
{
    float *v = arch_field_at(&x->c, f);
    *v = def;
    arch_prov_set(x, f, ARCH_FROM_DEFAULT, "%s", why);
    int rc = arch_row_f32(x, key, v);
    if (rc > 0)
        arch_prov_key(x, f, key);
    return rc < 0 ? rc : 0;
}

static int resolve_yarn(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    const char *def = "llama.cpp's default";
    c->scaling_orig_ctx = c->n_ctx_train;
    arch_prov_set(x, ARCH_F_SCALING_ORIG_CTX, ARCH_FROM_DEFAULT, "context_length");
    uint32_t orig = 0;
    int rc = arch_key_u32(x, "rope.scaling.original_context_length", ARCH_MAX_CTX, &orig);
    if (rc < 0)
        return rc;
    if (rc > 0 && orig) {
        c->scaling_orig_ctx = orig;
        arch_prov_key(x, ARCH_F_SCALING_ORIG_CTX, "rope.scaling.original_context_length");
    }
    rc = row_f32_or(x, ARCH_F_YARN_BETA_FAST, "rope.scaling.yarn_beta_fast",
                    r->yarn_beta_fast > 0 ? r->yarn_beta_fast : 32, def);
    if (!rc)
        rc = row_f32_or(x, ARCH_F_YARN_BETA_SLOW, "rope.scaling.yarn_beta_slow", 1, def);
    if (!rc)
        rc = row_f32_or(x, ARCH_F_YARN_LOG_MUL, "rope.scaling.yarn_log_multiplier", 0, def);
    if (!rc)
        rc = row_f32_or(x, ARCH_F_YARN_EXT_FACTOR, "rope.scaling.yarn_ext_factor", -1, def);
    if (r->yarn_log_tenth)
        c->yarn_log_mul /= 0.1F;
    if (c->yarn_ext_factor < 0)
        c->yarn_ext_factor = c->scaling == ARCH_SCALING_YARN ? 1 : 0;
    return rc;
}

static int resolve_theta(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    c->rope_theta = 10000;
    arch_prov_set(x, ARCH_F_ROPE_THETA, ARCH_FROM_DEFAULT, "llama.cpp's default");
    int rc = arch_key_f32(x, "rope.freq_base", &c->rope_theta);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_ROPE_THETA, "rope.freq_base");
    float alpha = 0;
    if (rc >= 0 && r->rope_alpha) {
        int rc2 = arch_key_f32(x, "rope.scaling.alpha", &alpha);
        rc = rc2 < 0 ? rc2 : rc;
    }
    if (alpha > 0 && c->head_dim_k > 2) { /* NTK-aware stretch, in f32 as llama.cpp has it */
        float d = (float)c->head_dim_k;
        c->rope_theta *= powf(alpha, d / (float)(c->head_dim_k - 2));
        arch_prov_key(x, ARCH_F_ROPE_THETA, "rope.scaling.alpha");
    }
    return rc < 0 ? rc : 0;
}

/* Which layers are local: an array of the file, a period, or all. nextn blocks are global. */
static int local_layers(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    uint32_t n = c->n_layer - c->n_layer_nextn, period = r->swa_period;
    const struct gguf_key *k = arch_key(x, "attention.sliding_window_pattern");
    arch_prov_set(x, ARCH_F_LAYER_LOCAL, ARCH_FROM_DEFAULT, "row %s", r->name);
    if (r->swa_layers == ARCH_LOCAL_ALL || r->swa_layers == ARCH_LOCAL_ATTENDING) {
        for (uint32_t i = 0; i < c->n_layer; i++)
            c->layer_local[i] = r->swa_layers == ARCH_LOCAL_ALL || (i < n && c->n_head_kv[i]);
        return 0;
    }
    if (k && k->type == GGUF_ARRAY) {
        for (uint32_t i = 0; i < c->n_layer && i < k->n; i++) {
            int64_t v;
            bool b;
            if (gguf_elem_bool(k, i, &b))
                c->layer_local[i] = b;
            else if (gguf_elem_i64(k, i, &v))
                c->layer_local[i] = v != 0;
            else
                return err_set(x->e, -EUCLEAN,
                               "key %s.attention.sliding_window_pattern is no array of booleans",
                               c->arch);
        }
        if (k->n < c->n_layer)
            arch_note(x,
                      "sliding_window_pattern has %" PRIu64 " elements for %" PRIu32
                      " layers; the rest is global",
                      k->n, c->n_layer);
        arch_prov_key(x, ARCH_F_LAYER_LOCAL, "attention.sliding_window_pattern");
        return 0;
    }
    if (r->swa_layers == ARCH_LOCAL_ARRAY)
        return err_set(x->e, -EUCLEAN,
                       "key %s.attention.sliding_window_pattern is no array, which this "
                       "architecture needs",
                       c->arch);
    int rc = arch_key_u32(x, "attention.sliding_window_pattern", UINT32_MAX, &period);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_LAYER_LOCAL, "attention.sliding_window_pattern");
    for (uint32_t i = 0; rc >= 0 && i < n; i++)
        c->layer_local[i] =
            !period || (r->swa_dense_first ? i % period != 0 : i % period < period - 1);
    return rc < 0 ? rc : 0;
}

/* Whether the model has local layers at all, and the window. */
static int resolve_window(struct arch_ctx *x, const struct arch_row *r, bool *on)
{
    struct arch_config *c = &x->c;
    uint32_t w = r->swa_window, hc = 0;
    int rc =
        r->swa == ARCH_SWA_NONE ? 0 : arch_key_u32(x, "attention.sliding_window", ARCH_MAX_CTX, &w);
    if (rc < 0)
        return rc;
    bool found = rc > 0;
    switch (r->swa) {
    case ARCH_SWA_NONE:
        w = 0;
        break;
    case ARCH_SWA_DFLASH:
        if (arch_row_u32(x, "hyper_connection.count", UINT32_MAX, &hc) > 0 && hc)
            *on = true;
        /* fallthrough */
    case ARCH_SWA_KEY:
        *on = *on || (found && w);
        break;
    case ARCH_SWA_REQ:
        if (!found && x->facts.any)
            return err_set(x->e, -EUCLEAN, "key %s.attention.sliding_window is missing", c->arch);
        *on = found;
        break;
    case ARCH_SWA_DEFAULT:
        *on = true;
        break;
    case ARCH_SWA_LLAMA4:
        *on = !found || w;
        w = *on ? r->swa_window : 0;
        break;
    case ARCH_SWA_FIXED:
        *on = found && w;
        w = *on ? r->swa_window : 0;
        break;
    case ARCH_SWA_EXAONE4:
        *on = c->n_layer - c->n_layer_nextn == 64;
        if (!*on && !found)
            w = 0;
        break;
    }
    c->sliding_window = w;
    arch_prov_set(x, ARCH_F_SLIDING_WINDOW, ARCH_FROM_DEFAULT, "row %s", r->name);
    if (found && r->swa != ARCH_SWA_LLAMA4 && r->swa != ARCH_SWA_FIXED)
        arch_prov_key(x, ARCH_F_SLIDING_WINDOW, "attention.sliding_window");
    return 0;
}

static int resolve_swa(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    bool on = false;
    int rc = resolve_window(x, r, &on);
    if (rc < 0)
        return rc;
    c->rope_theta_swa = c->rope_theta;
    c->scaling_factor_swa = c->scaling_factor;
    arch_prov_set(x, ARCH_F_ROPE_THETA_SWA, ARCH_FROM_DEFAULT, "as in global layers");
    arch_prov_set(x, ARCH_F_SCALING_FACTOR_SWA, ARCH_FROM_DEFAULT, "as in global layers");
    arch_prov_set(x, ARCH_F_LAYER_LOCAL, ARCH_FROM_DEFAULT, "row %s", r->name);
    if (!on || !c->n_layer)
        return 0;
    rc = local_layers(x, r);
    if (rc < 0)
        return rc;
    if (!r->swa_base_same)
        c->rope_theta_swa = 10000;
    if (!r->swa_scale_same)
        c->scaling_factor_swa = 1;
    arch_prov_set(x, ARCH_F_ROPE_THETA_SWA, ARCH_FROM_DEFAULT, "row %s", r->name);
    arch_prov_set(x, ARCH_F_SCALING_FACTOR_SWA, ARCH_FROM_DEFAULT, "row %s", r->name);
    rc = arch_row_f32(x, "rope.freq_base_swa", &c->rope_theta_swa);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_ROPE_THETA_SWA, "rope.freq_base_swa");
    return rc < 0 ? rc : 0;
}

/* Which layers rotate at all. Source: the graphs of llama.cpp's src/models/. */
static int resolve_rope_layers(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    bool any_local = false, on = true;
    uint32_t lead = 0;
    int rc = 0;
    for (uint32_t i = 0; i < c->n_layer; i++)
        any_local = any_local || c->layer_local[i];
    arch_prov_set(x, ARCH_F_LAYER_ROPE, ARCH_FROM_DEFAULT, "row %s", r->name);
    if (r->rope_layers == ARCH_ROPE_LOCAL_OR_LEAD)
        rc = arch_row_u32(x, "leading_dense_block_count", UINT32_MAX, &lead);
    if (rc < 0)
        return rc;
    if (r->rope_layers == ARCH_ROPE_FINETUNED &&
        gguf_as_bool(arch_key(x, "rope.scaling.finetuned"), &on))
        arch_prov_key(x, ARCH_F_LAYER_ROPE, "rope.scaling.finetuned");
    const struct gguf_key *pat =
        r->rope_layers == ARCH_ROPE_BY_PATTERN ? arch_key(x, "attention.rope_pattern") : NULL;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        bool yes = true, b;
        int64_t v;
        switch (r->rope_layers) {
        case ARCH_ROPE_ALL_LAYERS:
            break;
        case ARCH_ROPE_NOT_EACH_4TH:
            yes = (i + 1) % 4 != 0;
            break;
        case ARCH_ROPE_NOT_EACH_4TH_SWA:
            yes = any_local ? (i + 1) % 4 != 0 : (i + 1) % c->n_layer != 0;
            break;
        case ARCH_ROPE_NOT_FIRST_OF_4:
            yes = !any_local || i % 4 != 0;
            break;
        case ARCH_ROPE_LOCAL:
            yes = c->layer_local[i];
            break;
        case ARCH_ROPE_LOCAL_IF_SWA:
            yes = !any_local || c->layer_local[i];
            break;
        case ARCH_ROPE_LOCAL_OR_LEAD:
            yes = c->layer_local[i] || i < lead;
            break;
        case ARCH_ROPE_FINETUNED:
            yes = on;
            break;
        case ARCH_ROPE_BY_PATTERN:
            if (pat && pat->type == GGUF_ARRAY && i < pat->n)
                yes = gguf_elem_bool(pat, i, &b) ? b : gguf_elem_i64(pat, i, &v) ? v != 0 : true;
            break;
        }
        c->layer_rope[i] = yes && c->rope != ARCH_ROPE_NONE;
    }
    if (pat && pat->type == GGUF_ARRAY)
        arch_prov_key(x, ARCH_F_LAYER_ROPE, "attention.rope_pattern");
    return 0;
}

static int resolve_rope(struct arch_ctx *x)
{
    const struct arch_row *r = row_of(x);
    struct arch_config *c = &x->c;
    c->rope = x->row ? pairing(x, r) : ARCH_ROPE_NORM;
    arch_prov_set(x, ARCH_F_ROPE, ARCH_FROM_DEFAULT, "row %s", r->name);
    if (c->rope != r->rope && x->row)
        arch_prov_key(x, ARCH_F_ROPE, "rope.dimension_sections");
    int rc = resolve_scaling(x);
    if (!rc)
        rc = resolve_yarn(x, r);
    if (!rc)
        rc = resolve_theta(x, r);
    if (!rc)
        rc = resolve_swa(x, r);
    return rc ? rc : resolve_rope_layers(x, r);
}

/* deepseek2: attention is scaled by the square of YaRN's magnitude, the adjustment of its
 * attention factor undone (the discussion is at ggml-org/llama.cpp#17945). */
static float mla_magnitude(const struct arch_config *c, bool same_mul)
{
    float f = c->scaling == ARCH_SCALING_NONE ? 1 : c->scaling_factor, lam = c->yarn_log_mul;
    float org = c->scaling_attn_factor;
    if (c->yarn_ext_factor != 0 && f > 1) {
        float m = same_mul && lam != 1 ? lam : 1;
        if (lam != 0)
            org *= (0.1F * m * logf(f) + 1) / (0.1F * lam * logf(f) + 1);
        else
            org *= 0.1F * logf(f) + 1;
    } else {
        org *= 1 + 0.1F * logf(f);
    }
    return org * (1 + 0.1F * lam * logf(f));
}

static int resolve_attn_scale(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    uint32_t dim = c->head_dim_k, mla = 0;
    float m = 1, v = 0;
    arch_prov_set(x, ARCH_F_ATTN_SCALE, ARCH_FROM_DEFAULT, "1/sqrt(head_dim)");
    if (r->attn == ARCH_ATTN_ONE || r->attn == ARCH_ATTN_GROK) {
        c->attn_scale = 1;
        arch_prov_set(x, ARCH_F_ATTN_SCALE, ARCH_FROM_DEFAULT, "row %s", r->name);
        return r->attn == ARCH_ATTN_ONE ? 0
                                        : row_f32_or(x, ARCH_F_ATTN_SCALE, "attention.output_scale",
                                                     0.08838834764831845F, "row grok");
    }
    if (r->attn == ARCH_ATTN_WIDE && c->n_layer - c->n_layer_nextn == r->attn_wide_layers &&
        c->n_head[0]) {
        dim = c->n_embd / c->n_head[0];
        arch_prov_set(x, ARCH_F_ATTN_SCALE, ARCH_FROM_DEFAULT,
                      "row %s: 1/sqrt(n_embd / n_head) at %" PRIu32 " layers", r->name,
                      r->attn_wide_layers);
    }
    if (r->attn == ARCH_ATTN_MLA || r->attn == ARCH_ATTN_MLA_YARN) {
        int rc = arch_row_u32(x, "attention.key_length_mla", ARCH_MAX_HEAD, &mla);
        if (rc < 0)
            return rc;
        if (mla) {
            dim = mla;
            arch_prov_key(x, ARCH_F_ATTN_SCALE, "attention.key_length_mla");
        }
        if (r->attn == ARCH_ATTN_MLA_YARN)
            m = mla_magnitude(c, strcmp(r->name, "deepseek2") == 0);
    }
    c->attn_scale = dim ? m * m / sqrtf((float)dim) : 0; /* 0: nothing attends */
    int rc = arch_row_f32(x, "attention.scale", &v);
    if (rc > 0 && v != 0) {
        c->attn_scale = v;
        arch_prov_key(x, ARCH_F_ATTN_SCALE, "attention.scale");
    }
    return rc < 0 ? rc : 0;
}

static int resolve_caps(struct arch_ctx *x, const struct arch_row *r)
{
    int rc = 0;
    arch_prov_set(x, ARCH_F_ATTN_SOFTCAP, ARCH_FROM_DEFAULT, "row %s", r->name);
    arch_prov_set(x, ARCH_F_FINAL_SOFTCAP, ARCH_FROM_DEFAULT, "row %s", r->name);
    char why[96];
    snprintf(why, sizeof why, "row %s", r->name);
    if (r->attn_cap)
        rc = row_f32_or(x, ARCH_F_ATTN_SOFTCAP, "attn_logit_softcapping", r->attn_cap_default, why);
    if (!rc && r->final_cap)
        rc = row_f32_or(x, ARCH_F_FINAL_SOFTCAP, "final_logit_softcapping", r->final_cap_default,
                        why);
    return rc;
}

/* Factors on embeddings, residuals and logits. A key of 0 is "none" to llama.cpp, but where it
 * divides by it. */
static int resolve_scales(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    char why[96];
    snprintf(why, sizeof why, "row %s", r->name);
    float res = r->residual_default, log = r->logit_default;
    if (r->minicpm) {
        uint32_t n = c->n_layer - c->n_layer_nextn;
        res = n ? 1.4F / sqrtf((float)n) : 0;
        log = c->n_embd ? 256.0F / (float)c->n_embd : 1;
    }
    int rc = row_f32_or(x, ARCH_F_EMBED_SCALE, "embedding_scale", r->embed_default, why);
    if (!rc)
        rc = row_f32_or(x, ARCH_F_RESIDUAL_SCALE, "residual_scale", res, why);
    if (!rc)
        rc = row_f32_or(x, ARCH_F_LOGIT_SCALE, "logit_scale", log, why);
    if (rc < 0)
        return rc;
    if (r->embed == ARCH_EMBED_SQRT) {
        c->embed_scale = sqrtf((float)c->n_embd);
        arch_prov_set(x, ARCH_F_EMBED_SCALE, ARCH_FROM_DEFAULT, "row %s: sqrt(n_embd)", r->name);
    }
    bool required = false;
    arch_row_reads(x->row, "logit_scale", 11, &required);
    if (c->logit_scale == 0 && r->logit_divides && required && x->facts.any)
        return err_set(x->e, -EUCLEAN, "key %s.logit_scale is missing or 0", c->arch);
    if (c->embed_scale == 0)
        c->embed_scale = r->embed == ARCH_EMBED_SQRT ? 0 : 1;
    if (c->residual_scale == 0)
        c->residual_scale = 1;
    if (c->logit_scale == 0)
        c->logit_scale = 1;
    else if (r->logit_divides)
        c->logit_scale = 1.0F / c->logit_scale;
    return 0;
}

static void resolve_presence(struct arch_ctx *x, const struct arch_row *r)
{
    struct arch_config *c = &x->c;
    const struct arch_tensor_facts *f = &x->facts;
    static const enum arch_fid ids[] = {ARCH_F_QKV_BIAS, ARCH_F_QK_NORM, ARCH_F_POST_NORMS,
                                        ARCH_F_FUSED_QKV, ARCH_F_TIED_HEAD};
    static const char *const names[] = {"blk.N.attn_q.bias", "blk.N.attn_q_norm.weight",
                                        "blk.N.post_ffw_norm.weight", "blk.N.attn_qkv.weight",
                                        "output.weight"};
    c->qkv_bias = f->qkv_bias;
    c->qk_norm = f->qk_norm;
    c->post_norms = f->post_norms;
    for (uint32_t i = 0; i < c->n_layer; i++)
        c->fused_qkv = c->fused_qkv || (f->layer[i].qkv_rows && !f->layer[i].q_rows);
    if (r->linear_qkv)
        c->fused_qkv = false;
    c->tied_head = f->has_embd && !f->has_output && r->head != ARCH_HEAD_NONE;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        arch_prov_set(x, ids[i], f->any ? ARCH_FROM_SHAPE : ARCH_UNKNOWN, "presence of %s",
                      names[i]);
    if (x->row && r->head == ARCH_HEAD_OWN && c->tied_head)
        arch_note(x, "there is no output.weight, which llama.cpp needs for %s", r->name);
    if (x->row && r->head == ARCH_HEAD_EMB && f->has_output)
        arch_note(x, "there is an output.weight, which llama.cpp does not read for %s", r->name);
}

int arch_values_resolve(struct arch_ctx *x)
{
    const struct arch_row *r = row_of(x);
    resolve_presence(x, r);
    int rc = resolve_eps(x);
    if (!rc)
        rc = resolve_act(x);
    if (!rc)
        rc = resolve_rope(x);
    if (!rc)
        rc = resolve_attn_scale(x, r);
    if (!rc)
        rc = resolve_caps(x, r);
    return rc ? rc : resolve_scales(x, r);
}

int arch_values_from_row(struct arch_config *c, struct err *e)
{
    static const uint8_t empty[24] = {'G', 'G', 'U', 'F', 3}; /* no keys, no tensors */
    struct source *src = NULL;
    struct gguf *g = NULL;
    struct arch_ctx *x = calloc(1, sizeof *x);
    int rc = x ? 0 : err_set(e, -ENOMEM, "no memory for the resolver");
    if (!rc)
        rc = source_from_mem(&src, empty, sizeof empty, "no keys", e);
    if (!rc)
        rc = gguf_open(&g, &src, 1, e);
    if (!rc && !(x->facts.layer = calloc(c->n_layer ? c->n_layer : 1, sizeof *x->facts.layer)))
        rc = err_set(e, -ENOMEM, "no memory for %" PRIu32 " layers", c->n_layer);
    if (!rc) {
        x->g = g;
        x->e = e;
        x->row = arch_row_find(c->arch);
        x->c = *c;
        rc = arch_values_resolve(x);
        *c = x->c;
    }
    if (x)
        arch_facts_release(&x->facts);
    free(x);
    gguf_close(g);
    source_close(src);
    return rc;
}
