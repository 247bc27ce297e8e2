/* struct arch_config field by field: names, canonical keys, text, comparison, copies, limits. */
#include "format/arch_internal.h"
#include "format/json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F(id, member, k, ap)                                                                       \
    [ARCH_F_##id] = {#member, ap, ARCH_KIND_##k, offsetof(struct arch_config, member)}

const struct arch_field_desc arch_fields[ARCH_N_FIELD] = {
    F(N_LAYER, n_layer, U32, "num_layers"),
    F(N_LAYER_NEXTN, n_layer_nextn, U32, NULL),
    F(N_EMBD, n_embd, U32, "hidden_size"),
    F(N_VOCAB, n_vocab, U32, "vocab_size"),
    F(N_CTX, n_ctx_train, U32, "max_position_embeddings"),
    F(N_HEAD, n_head, U32S, "num_heads"),
    F(N_HEAD_KV, n_head_kv, U32S, "num_kv_heads"),
    F(N_FF, n_ff, U32S, "intermediate_size"),
    F(HEAD_DIM_K, head_dim_k, U32, "head_dim"),
    F(HEAD_DIM_V, head_dim_v, U32, NULL),
    F(N_ROT, n_rot, U32, NULL),
    F(HEAD_DIM_K_SWA, head_dim_k_swa, U32, NULL),
    F(HEAD_DIM_V_SWA, head_dim_v_swa, U32, NULL),
    F(N_ROT_SWA, n_rot_swa, U32, NULL),
    F(NORM, norm, NORM, NULL),
    F(NORM_EPS, norm_eps, F32, "rms_norm_eps"),
    F(ACT, act, ACT, NULL),
    F(FFN_GATED, ffn_gated, BOOL, NULL),
    F(ROPE, rope, ROPE, "rope_type"),
    F(ROPE_THETA, rope_theta, F32, "rope_theta"),
    F(ROPE_THETA_SWA, rope_theta_swa, F32, NULL),
    F(SCALING, scaling, SCALING, NULL),
    F(SCALING_FACTOR, scaling_factor, F32, NULL),
    F(SCALING_FACTOR_SWA, scaling_factor_swa, F32, NULL),
    F(SCALING_ORIG_CTX, scaling_orig_ctx, U32, NULL),
    F(SCALING_ATTN_FACTOR, scaling_attn_factor, F32, NULL),
    F(YARN_BETA_FAST, yarn_beta_fast, F32, NULL),
    F(YARN_BETA_SLOW, yarn_beta_slow, F32, NULL),
    F(YARN_LOG_MUL, yarn_log_mul, F32, NULL),
    F(YARN_EXT_FACTOR, yarn_ext_factor, F32, NULL),
    F(SLIDING_WINDOW, sliding_window, U32, NULL),
    F(LAYER_LOCAL, layer_local, U8S, NULL),
    F(LAYER_ROPE, layer_rope, U8S, NULL),
    F(ATTN_SCALE, attn_scale, F32, NULL),
    F(ATTN_SOFTCAP, attn_softcap, F32, NULL),
    F(FINAL_SOFTCAP, final_softcap, F32, NULL),
    F(EMBED_SCALE, embed_scale, F32, NULL),
    F(RESIDUAL_SCALE, residual_scale, F32, NULL),
    F(LOGIT_SCALE, logit_scale, F32, NULL),
    F(N_EXPERT, n_expert, U32, "num_experts"),
    F(N_EXPERT_USED, n_expert_used, U32, "num_experts_per_tok"),
    F(TIED_HEAD, tied_head, BOOL, NULL),
    F(QKV_BIAS, qkv_bias, BOOL, NULL),
    F(QK_NORM, qk_norm, BOOL, NULL),
    F(POST_NORMS, post_norms, BOOL, NULL),
    F(FUSED_QKV, fused_qkv, BOOL, NULL),
    F(FUSED_GATE_UP, fused_gate_up, BOOL, NULL),
    F(BOS, bos, I32, "tokenizer.bos_token_id"),
    F(EOS, eos, I32, "tokenizer.eos_token_id"),
    F(EOT, eot, I32, NULL),
    F(EOM, eom, I32, NULL),
    F(UNK, unk, I32, NULL),
    F(PAD, pad, I32, "tokenizer.padding_token_id"),
    F(ADD_BOS, add_bos, BOOL, "tokenizer.add_bos_token"),
    F(ADD_EOS, add_eos, BOOL, NULL),
    F(ADD_SPACE_PREFIX, add_space_prefix, BOOL, NULL),
};

static const char *const norm_names[] = {"rms", "layer", NULL};
static const char *const act_names[] = {"silu", "gelu", "relu", "relu_sqr", "other", NULL};
static const char *const rope_names[] = {"none", "norm", "neox", "mrope", "imrope", NULL};
static const char *const scaling_names[] = {"none", "linear", "yarn", "longrope", "unknown", NULL};

static const char *const *enum_names(enum arch_kind kind)
{
    switch (kind) {
    case ARCH_KIND_NORM:
        return norm_names;
    case ARCH_KIND_ACT:
        return act_names;
    case ARCH_KIND_ROPE:
        return rope_names;
    case ARCH_KIND_SCALING:
        return scaling_names;
    default:
        return NULL;
    }
}

const char *arch_enum_name(enum arch_kind kind, int v)
{
    const char *const *n = enum_names(kind);
    for (int i = 0; n && n[i]; i++)
        if (i == v)
            return n[i];
    return "?";
}

int arch_enum_parse(enum arch_kind kind, const char *s)
{
    const char *const *n = enum_names(kind);
    for (int i = 0; n && n[i]; i++)
        if (strcmp(n[i], s) == 0)
            return i;
    return -1;
}

const char *arch_origin_name(enum arch_origin o)
{
    static const char *const names[] = {"key", "shape", "default", "unknown"};
    return (unsigned)o < 4 ? names[o] : "unknown";
}

uint32_t arch_rope_type(enum arch_rope r)
{
    return r == ARCH_ROPE_NONE || r == ARCH_ROPE_NORM ? 0 : 2;
}

void arch_config_defaults(struct arch_config *c)
{
    *c = (struct arch_config){
        .norm_eps = 1e-5F,
        .ffn_gated = true,
        .rope = ARCH_ROPE_NORM,
        .rope_theta = 10000,
        .rope_theta_swa = 10000,
        .scaling = ARCH_SCALING_LINEAR,
        .scaling_factor = 1,
        .scaling_factor_swa = 1,
        .scaling_attn_factor = 1,
        .yarn_beta_fast = 32,
        .yarn_beta_slow = 1,
        .embed_scale = 1,
        .residual_scale = 1,
        .logit_scale = 1,
        .bos = ARCH_NO_TOKEN,
        .eos = ARCH_NO_TOKEN,
        .eot = ARCH_NO_TOKEN,
        .eom = ARCH_NO_TOKEN,
        .unk = ARCH_NO_TOKEN,
        .pad = ARCH_NO_TOKEN,
    };
}

void arch_config_release(struct arch_config *c)
{
    if (!c)
        return;
    free(c->n_head);
    free(c->n_head_kv);
    free(c->n_ff);
    free(c->layer_local);
    free(c->layer_rope);
    arch_config_defaults(c);
}

int arch_config_alloc(struct arch_config *c)
{
    size_t n = c->n_layer;
    if (!n)
        return 0;
    c->n_head = calloc(n, sizeof *c->n_head);
    c->n_head_kv = calloc(n, sizeof *c->n_head_kv);
    c->n_ff = calloc(n, sizeof *c->n_ff);
    c->layer_local = calloc(n, 1);
    c->layer_rope = malloc(n);
    if (!c->n_head || !c->n_head_kv || !c->n_ff || !c->layer_local || !c->layer_rope)
        return -ENOMEM;
    memset(c->layer_rope, 1, n);
    return 0;
}

static size_t kind_size(enum arch_kind k)
{
    switch (k) {
    case ARCH_KIND_F32:
        return sizeof(float);
    case ARCH_KIND_BOOL:
        return sizeof(bool);
    case ARCH_KIND_NORM:
        return sizeof(enum arch_norm);
    case ARCH_KIND_ACT:
        return sizeof(enum arch_act);
    case ARCH_KIND_ROPE:
        return sizeof(enum arch_rope);
    case ARCH_KIND_SCALING:
        return sizeof(enum arch_scaling);
    default:
        return sizeof(uint32_t);
    }
}

int arch_field_copy(struct arch_config *dst, const struct arch_config *src, enum arch_fid f)
{
    enum arch_kind k = arch_fields[f].kind;
    void *to = arch_field_at(dst, f);
    const void *from = arch_field_at(src, f);
    if (k != ARCH_KIND_U32S && k != ARCH_KIND_U8S) {
        memcpy(to, from, kind_size(k));
        return 0;
    }
    void *have; /* either pointer type */
    memcpy(&have, from, sizeof have);
    size_t n = src->n_layer * (k == ARCH_KIND_U32S ? sizeof(uint32_t) : 1);
    void *p = NULL;
    if (have && !(p = malloc(n)))
        return -ENOMEM;
    if (p)
        memcpy(p, have, n);
    memcpy(to, &p, sizeof p);
    return 0;
}

int arch_config_copy(struct arch_config *dst, const struct arch_config *src)
{
    *dst = *src;
    dst->n_head = dst->n_head_kv = dst->n_ff = NULL;
    dst->layer_local = dst->layer_rope = NULL;
    for (int f = 0; f < ARCH_N_FIELD; f++)
        if (arch_field_copy(dst, src, f) < 0) {
            arch_config_release(dst);
            return -ENOMEM;
        }
    return 0;
}

static uint32_t elem(const struct arch_config *c, enum arch_fid f, uint32_t i)
{
    if (arch_fields[f].kind == ARCH_KIND_U8S)
        return (*(uint8_t *const *)arch_field_at(c, f))[i];
    return (*(uint32_t *const *)arch_field_at(c, f))[i];
}

static bool has_array(const struct arch_config *c, enum arch_fid f)
{
    if (arch_fields[f].kind == ARCH_KIND_U8S)
        return *(uint8_t *const *)arch_field_at(c, f) != NULL;
    return *(uint32_t *const *)arch_field_at(c, f) != NULL;
}

static void put_array(struct json_out *o, const struct arch_config *c, enum arch_fid f)
{
    if (!has_array(c, f) || !c->n_layer) {
        json_put_null(o);
        return;
    }
    bool same = true;
    for (uint32_t i = 1; i < c->n_layer; i++)
        same = same && elem(c, f, i) == elem(c, f, 0);
    if (same) {
        json_put_u64(o, elem(c, f, 0));
        return;
    }
    json_open(o, '[');
    for (uint32_t i = 0; i < c->n_layer; i++)
        json_put_u64(o, elem(c, f, i));
    json_close(o, ']');
}

void arch_field_put(struct json_out *o, const struct arch_config *c, enum arch_fid f)
{
    const void *p = arch_field_at(c, f);
    switch (arch_fields[f].kind) {
    case ARCH_KIND_U32:
        json_put_u64(o, *(const uint32_t *)p);
        break;
    case ARCH_KIND_I32:
        json_put_i64(o, *(const int32_t *)p);
        break;
    case ARCH_KIND_F32:
        json_put_f32(o, *(const float *)p);
        break;
    case ARCH_KIND_BOOL:
        json_put_bool(o, *(const bool *)p);
        break;
    case ARCH_KIND_U32S:
    case ARCH_KIND_U8S:
        put_array(o, c, f);
        break;
    case ARCH_KIND_NORM:
        json_put_cstr(o, arch_enum_name(ARCH_KIND_NORM, *(const enum arch_norm *)p));
        break;
    case ARCH_KIND_ACT:
        json_put_cstr(o, arch_enum_name(ARCH_KIND_ACT, *(const enum arch_act *)p));
        break;
    case ARCH_KIND_ROPE:
        json_put_cstr(o, arch_enum_name(ARCH_KIND_ROPE, *(const enum arch_rope *)p));
        break;
    case ARCH_KIND_SCALING:
        json_put_cstr(o, arch_enum_name(ARCH_KIND_SCALING, *(const enum arch_scaling *)p));
        break;
    }
}

char *arch_field_text(const struct arch_config *c, enum arch_fid f)
{
    struct json_out o;
    json_out_init(&o);
    arch_field_put(&o, c, f);
    char *s = o.rc < 0 ? NULL : strndup(o.p ? o.p : "", o.len);
    json_out_release(&o);
    return s;
}

bool arch_field_equal(const struct arch_config *a, const struct arch_config *b, enum arch_fid f)
{
    enum arch_kind k = arch_fields[f].kind;
    if (k != ARCH_KIND_U32S && k != ARCH_KIND_U8S)
        return memcmp(arch_field_at(a, f), arch_field_at(b, f), kind_size(k)) == 0;
    if (a->n_layer != b->n_layer || has_array(a, f) != has_array(b, f))
        return false;
    for (uint32_t i = 0; has_array(a, f) && i < a->n_layer; i++)
        if (elem(a, f, i) != elem(b, f, i))
            return false;
    return true;
}

int arch_config_diff(const struct arch_config *a, const struct arch_config *b,
                     void (*differs)(void *ctx, const char *field, const char *va, const char *vb),
                     void *ctx)
{
    int n = 0;
    if (strcmp(a->arch, b->arch) != 0) {
        n++;
        if (differs)
            differs(ctx, "arch", a->arch, b->arch);
    }
    if (a->known != b->known) {
        n++;
        if (differs)
            differs(ctx, "known", a->known ? "true" : "false", b->known ? "true" : "false");
    }
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        if (arch_field_equal(a, b, f))
            continue;
        n++;
        if (!differs)
            continue;
        char *va = arch_field_text(a, f), *vb = arch_field_text(b, f);
        differs(ctx, arch_fields[f].name, va ? va : "?", vb ? vb : "?");
        free(va);
        free(vb);
    }
    return n;
}

static int check_u32(const char *who, const char *name, uint32_t v, uint32_t max, bool may_zero,
                     struct err *e)
{
    if (v > max)
        return err_set(e, -ERANGE, "%s: %s is %" PRIu32 ", at most %" PRIu32 " is supported", who,
                       name, v, max);
    if (!v && !may_zero)
        return err_set(e, -EUCLEAN, "%s: %s is 0", who, name);
    return 0;
}

/* Epsilon: arch-resolver.md §8.3 says 1e-10..0.01; the BERT family's own 1e-12 must pass. */
static int check_eps(const struct arch_config *c, const char *who, struct err *e)
{
    const struct arch_row *row = arch_row_find(c->arch);
    float low = 1e-10F;
    if (row && row->eps_default > 0 && row->eps_default < low)
        low = row->eps_default;
    if (!(c->norm_eps >= low && c->norm_eps <= 0.01F))
        return err_set(e, -ENOTSUP, "%s: norm epsilon is %.9g, expected %.6g to 0.01", who,
                       (double)c->norm_eps, (double)low);
    return 0;
}

static int check_floats(const struct arch_config *c, const char *who, struct err *e)
{
    static const enum arch_fid positive[] = {ARCH_F_ROPE_THETA,     ARCH_F_ROPE_THETA_SWA,
                                             ARCH_F_SCALING_FACTOR, ARCH_F_SCALING_FACTOR_SWA,
                                             ARCH_F_YARN_BETA_FAST, ARCH_F_YARN_BETA_SLOW};
    static const enum arch_fid finite[] = {
        ARCH_F_SCALING_ATTN_FACTOR, ARCH_F_YARN_LOG_MUL,   ARCH_F_YARN_EXT_FACTOR,
        ARCH_F_ATTN_SCALE,          ARCH_F_ATTN_SOFTCAP,   ARCH_F_FINAL_SOFTCAP,
        ARCH_F_EMBED_SCALE,         ARCH_F_RESIDUAL_SCALE, ARCH_F_LOGIT_SCALE};
    for (size_t i = 0; i < sizeof positive / sizeof positive[0]; i++) {
        float v = *(float *)arch_field_at(c, positive[i]);
        if (!(v > 0) || !isfinite(v))
            return err_set(e, -ENOTSUP, "%s: %s is %.9g, expected a positive number", who,
                           arch_fields[positive[i]].name, (double)v);
    }
    for (size_t i = 0; i < sizeof finite / sizeof finite[0]; i++) {
        float v = *(float *)arch_field_at(c, finite[i]);
        if (!isfinite(v))
            return err_set(e, -ENOTSUP, "%s: %s is not a finite number", who,
                           arch_fields[finite[i]].name);
    }
    return check_eps(c, who, e);
}

static int check_layers(const struct arch_config *c, const char *who, struct err *e)
{
    for (uint32_t i = 0; i < c->n_layer; i++) {
        uint32_t h = c->n_head[i], kv = c->n_head_kv[i];
        if (h > ARCH_MAX_HEAD || kv > ARCH_MAX_HEAD)
            return err_set(e, -ERANGE,
                           "%s: layer %" PRIu32 " has %" PRIu32 " heads, at most %" PRIu32
                           " are supported",
                           who, i, h > kv ? h : kv, ARCH_MAX_HEAD);
        if (c->n_ff[i] > ARCH_MAX_DIM)
            return err_set(e, -ERANGE,
                           "%s: layer %" PRIu32 " has a feed-forward length of %" PRIu32
                           ", at most %" PRIu32 " is supported",
                           who, i, c->n_ff[i], ARCH_MAX_DIM);
        if (h && kv && h % kv != 0)
            return err_set(e, -EUCLEAN,
                           "%s: layer %" PRIu32 " has %" PRIu32 " heads over %" PRIu32
                           " key/value heads",
                           who, i, h, kv);
    }
    return 0;
}

int arch_config_check(const struct arch_config *c, bool no_tensors, const char *who, struct err *e)
{
    const struct arch_row *row = arch_row_find(c->arch);
    bool z = no_tensors;
    int rc = check_u32(who, "block_count", c->n_layer, ARCH_MAX_LAYER, z, e);
    if (!rc)
        rc = check_u32(who, "embedding_length", c->n_embd, ARCH_MAX_DIM, z, e);
    if (!rc)
        rc = check_u32(who, "vocabulary size", c->n_vocab, ARCH_MAX_DIM, true, e);
    if (!rc)
        rc = check_u32(who, "context_length", c->n_ctx_train, ARCH_MAX_CTX, true, e);
    static const enum arch_fid dims[] = {
        ARCH_F_HEAD_DIM_K,     ARCH_F_HEAD_DIM_V, ARCH_F_N_ROT,    ARCH_F_HEAD_DIM_K_SWA,
        ARCH_F_HEAD_DIM_V_SWA, ARCH_F_N_ROT_SWA,  ARCH_F_N_EXPERT, ARCH_F_N_EXPERT_USED};
    for (size_t i = 0; !rc && i < sizeof dims / sizeof dims[0]; i++)
        rc = check_u32(who, arch_fields[dims[i]].name, *(uint32_t *)arch_field_at(c, dims[i]),
                       ARCH_MAX_HEAD, true, e);
    if (!rc && c->n_layer_nextn > c->n_layer)
        rc = err_set(e, -EUCLEAN,
                     "%s: %" PRIu32 " of %" PRIu32 " blocks are said to predict further "
                     "tokens",
                     who, c->n_layer_nextn, c->n_layer);
    if (!rc && c->n_expert_used > c->n_expert)
        rc = err_set(e, -EUCLEAN, "%s: %" PRIu32 " experts used of %" PRIu32, who, c->n_expert_used,
                     c->n_expert);
    if (!rc && c->n_layer)
        rc = check_layers(c, who, e);
    if (!rc && row && row->rot_is_head && c->n_rot != c->head_dim_k)
        rc = err_set(e, -ENOTSUP,
                     "%s: rotates %" PRIu32 " of %" PRIu32 " dimensions, which %s cannot", who,
                     c->n_rot, c->head_dim_k, row->name);
    return rc ? rc : check_floats(c, who, e);
}
