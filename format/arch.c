/* The resolver: GGUF keys and tensor shapes -> struct arch_config, by the rules of the
 * architecture's row (arch_table.c). This file: keys, dimensions, and the order of it all;
 * arch_values.c: the numbers that shape the forward pass; arch_token.c: token ids;
 * arch_report.c: provenance, both value sets, notes. */
#include "format/arch_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct gguf_key *arch_key(const struct arch_ctx *x, const char *key)
{
    char name[ARCH_NAME_MAX + 96];
    snprintf(name, sizeof name, "%s.%s", x->c.arch, key);
    return gguf_find(x->g, name);
}

int arch_key_u32(struct arch_ctx *x, const char *key, uint32_t max, uint32_t *v)
{
    const struct gguf_key *k = arch_key(x, key);
    uint64_t u;
    if (!k)
        return 0;
    if (!gguf_as_u64(k, &u))
        return err_set(x->e, -EUCLEAN, "key %s.%s is no integer >= 0", x->c.arch, key);
    if (u > max)
        return err_set(x->e, -ERANGE, "key %s.%s is %" PRIu64 ", at most %" PRIu32 " is supported",
                       x->c.arch, key, u, max);
    *v = (uint32_t)u;
    return 1;
}

int arch_key_f32(struct arch_ctx *x, const char *key, float *v)
{
    const struct gguf_key *k = arch_key(x, key);
    double d;
    if (!k)
        return 0;
    if (!gguf_as_f64(k, &d) || !isfinite((float)d))
        return err_set(x->e, -EUCLEAN, "key %s.%s is no finite number", x->c.arch, key);
    *v = (float)d;
    return 1;
}

int arch_row_u32(struct arch_ctx *x, const char *key, uint32_t max, uint32_t *v)
{
    return arch_row_reads(x->row, key, strlen(key), NULL) ? arch_key_u32(x, key, max, v) : 0;
}

int arch_row_f32(struct arch_ctx *x, const char *key, float *v)
{
    return arch_row_reads(x->row, key, strlen(key), NULL) ? arch_key_f32(x, key, v) : 0;
}

/* One integer for all layers, or an array of exactly n_layer. */
static int key_layers(struct arch_ctx *x, const char *key, uint32_t max, uint32_t *a)
{
    const struct gguf_key *k = arch_key(x, key);
    uint32_t n = x->c.n_layer, v = 0;
    if (!k)
        return 0;
    if (k->type != GGUF_ARRAY) {
        int rc = arch_key_u32(x, key, max, &v);
        for (uint32_t i = 0; rc > 0 && i < n; i++)
            a[i] = v;
        return rc;
    }
    if (k->n != n)
        return err_set(x->e, -EUCLEAN, "key %s.%s has %" PRIu64 " elements for %" PRIu32 " layers",
                       x->c.arch, key, k->n, n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t u;
        if (!gguf_elem_u64(k, i, &u))
            return err_set(x->e, -EUCLEAN, "key %s.%s[%" PRIu32 "] is no integer >= 0", x->c.arch,
                           key, i);
        if (u > max)
            return err_set(x->e, -ERANGE,
                           "key %s.%s[%" PRIu32 "] is %" PRIu64 ", at most %" PRIu32
                           " is supported",
                           x->c.arch, key, i, u, max);
        a[i] = (uint32_t)u;
    }
    return 1;
}

static int resolve_name(struct arch_ctx *x)
{
    struct gguf_str s;
    const struct gguf_key *k = gguf_find(x->g, "general.architecture");
    if (!k)
        return err_set(x->e, -EUCLEAN, "key general.architecture is missing");
    if (!gguf_as_str(k, &s) || !s.len || s.len >= ARCH_NAME_MAX)
        return err_set(x->e, -EUCLEAN, "key general.architecture is no name of 1 to %d bytes",
                       ARCH_NAME_MAX - 1);
    for (size_t i = 0; i < s.len; i++)
        if (s.p[i] <= 0x20 || s.p[i] >= 0x7f || s.p[i] == '"' || s.p[i] == '\\')
            return err_set(x->e, -EUCLEAN, "key general.architecture is no plain name");
    memcpy(x->c.arch, s.p, s.len);
    x->c.arch[s.len] = 0;
    x->row = arch_row_find(x->c.arch);
    x->c.known = x->row != NULL;
    if (!x->row)
        arch_note(x, "architecture %s has no row: llama.cpp's general rules are taken", x->c.arch);
    else if (strcmp(x->row->name, x->c.arch) != 0)
        arch_note(x, "architecture %s is taken as %s", x->c.arch, x->row->name);
    return 0;
}

/* A dimension that must be said, but where there are no tensors at all. */
static int required_u32(struct arch_ctx *x, enum arch_fid f, const char *key, uint32_t max)
{
    int rc = arch_key_u32(x, key, max, arch_field_at(&x->c, f));
    if (rc > 0)
        arch_prov_key(x, f, key);
    if (rc == 0 && gguf_n_tensor(x->g) && (!x->row || strcmp(x->row->name, "clip") == 0))
        return err_set(x->e, -ENOTSUP, "%s is no language model we know: there is no key %s.%s",
                       x->c.arch, x->c.arch, key);
    if (rc == 0 && gguf_n_tensor(x->g))
        return err_set(x->e, -EUCLEAN, "key %s.%s is missing", x->c.arch, key);
    return rc < 0 ? rc : 0;
}

static const char *width_key(const struct arch_ctx *x)
{
    return x->row && x->row->features ? "features_length" : "embedding_length";
}

/* A file without tensors that does not say its width either is a vocabulary: blocks of nothing are
 * no blocks, or the .apr could not be told from a broken one. */
static bool is_vocabulary(const struct arch_ctx *x)
{
    uint64_t width;
    return !gguf_n_tensor(x->g) && (!gguf_as_u64(arch_key(x, width_key(x)), &width) || !width);
}

static int resolve_layers(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    int rc = is_vocabulary(x) ? 0 : required_u32(x, ARCH_F_N_LAYER, "block_count", ARCH_MAX_LAYER);
    if (!rc)
        rc = arch_facts_read(&x->facts, x->g, c->n_layer, x->e);
    if (!rc && arch_config_alloc(c) < 0)
        rc = err_set(x->e, -ENOMEM, "no memory for %" PRIu32 " layers", c->n_layer);
    if (!rc && x->facts.n_layer > c->n_layer && c->n_layer)
        arch_note(x, "tensors name block %" PRIu32 ", but block_count is %" PRIu32,
                  x->facts.n_layer - 1, c->n_layer);
    if (rc < 0)
        return rc;
    rc = arch_key_u32(x, "nextn_predict_layers", c->n_layer, &c->n_layer_nextn);
    if (rc < 0)
        return rc;
    arch_prov_set(x, ARCH_F_N_LAYER_NEXTN, ARCH_FROM_DEFAULT, "none unless said");
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_LAYER_NEXTN, "nextn_predict_layers");
    if (x->row && x->row->nextn_probe && c->n_layer_nextn) {
        char name[64];
        snprintf(name, sizeof name, "blk.%" PRIu32 ".nextn.eh_proj.weight",
                 c->n_layer - c->n_layer_nextn);
        if (!gguf_find_tensor(x->g, name)) {
            c->n_layer_nextn = 0;
            arch_prov_set(x, ARCH_F_N_LAYER_NEXTN, ARCH_FROM_SHAPE, "%s is absent", name);
        }
    }
    return 0;
}

static int resolve_width(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    const struct arch_tensor_facts *f = &x->facts;
    int rc = required_u32(x, ARCH_F_N_EMBD, width_key(x), ARCH_MAX_DIM);
    if (rc < 0)
        return rc;
    if (f->has_embd && f->embd_width != c->n_embd)
        return err_set(x->e, -EUCLEAN,
                       "tensor token_embd.weight has rows of %" PRIu64
                       ", embedding_length is %" PRIu32,
                       f->embd_width, c->n_embd);
    rc = arch_key_u32(x, "context_length", ARCH_MAX_CTX, &c->n_ctx_train);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_CTX, "context_length");
    else if (!rc && f->any)
        arch_note(x, "key %s.context_length is missing: llama.cpp refuses this file", c->arch);
    return rc < 0 ? rc : 0;
}

static int resolve_vocab(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    const struct gguf_key *tok = gguf_find(x->g, "tokenizer.ggml.tokens");
    uint64_t n_tok = tok && tok->type == GGUF_ARRAY ? tok->n : 0, n = 0;
    uint32_t said = 0;
    int rc = arch_key_u32(x, "vocab_size", ARCH_MAX_DIM, &said);
    if (rc < 0)
        return rc;
    if (x->facts.has_embd) {
        n = x->facts.embd_rows;
        arch_prov_set(x, ARCH_F_N_VOCAB, ARCH_FROM_SHAPE, "token_embd.weight ne[1]");
    } else if (n_tok) {
        n = n_tok;
        arch_prov_set(x, ARCH_F_N_VOCAB, ARCH_FROM_KEY, "tokenizer.ggml.tokens");
    } else if (rc > 0) {
        n = said;
        arch_prov_key(x, ARCH_F_N_VOCAB, "vocab_size");
    }
    if (n > ARCH_MAX_DIM)
        return err_set(x->e, -ERANGE,
                       "the vocabulary has %" PRIu64 " tokens, at most %" PRIu32 " are supported",
                       n, ARCH_MAX_DIM);
    c->n_vocab = (uint32_t)n;
    if (rc > 0 && said != n)
        arch_note(x, "key %s.vocab_size is %" PRIu32 ", the vocabulary has %" PRIu64, c->arch, said,
                  n);
    if (n_tok && n_tok != n)
        arch_note(x,
                  "the vocabulary lists %" PRIu64 " tokens, token_embd.weight has %" PRIu64 " rows",
                  n_tok, n);
    return 0;
}

/* Layers that attend must have heads. Zeros in an array that is not all zero mark the recurrent
 * layers of a hybrid, which may carry tensors of the same names. */
static int check_heads(struct arch_ctx *x)
{
    const struct arch_config *c = &x->c;
    uint64_t heads = 0, kv = 0;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        heads += c->n_head[i];
        kv += c->n_head_kv[i];
    }
    for (uint32_t i = 0; i < c->n_layer; i++) {
        const struct arch_layer_facts *l = &x->facts.layer[i];
        if (l->q_rows && !heads)
            return err_set(x->e, -EUCLEAN, "layer %" PRIu32 " has attn_q.weight and no heads", i);
        if (l->q_rows && l->k_rows && !kv)
            return err_set(x->e, -EUCLEAN,
                           "layer %" PRIu32 " has attn_k.weight and no key/value heads", i);
    }
    return 0;
}

static int resolve_heads(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    int rc = key_layers(x, "attention.head_count", ARCH_MAX_HEAD, c->n_head);
    if (rc < 0)
        return rc;
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_HEAD, "attention.head_count");
    else if (x->facts.any && x->row && !x->row->recurrent)
        return err_set(x->e, -EUCLEAN, "key %s.attention.head_count is missing", c->arch);
    if (c->n_layer)
        memcpy(c->n_head_kv, c->n_head, c->n_layer * sizeof *c->n_head);
    rc = key_layers(x, "attention.head_count_kv", ARCH_MAX_HEAD, c->n_head_kv);
    if (rc < 0)
        return rc;
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_HEAD_KV, "attention.head_count_kv");
    else if (x->prov[ARCH_F_N_HEAD].origin != ARCH_UNKNOWN)
        arch_prov_set(x, ARCH_F_N_HEAD_KV, ARCH_FROM_DEFAULT, "as many as heads");
    return check_heads(x);
}

/* The feed-forward length: ffn_down's input where the layer has that tensor, else the key. */
static int resolve_ffn(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    int rc = key_layers(x, "feed_forward_length", ARCH_MAX_DIM, c->n_ff);
    if (rc < 0)
        return rc;
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_FF, "feed_forward_length");
    bool noted = false;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        uint32_t in = x->facts.layer[i].down_in;
        if (!in)
            continue;
        if (in > ARCH_MAX_DIM)
            return err_set(x->e, -ERANGE,
                           "tensor blk.%" PRIu32 ".ffn_down.weight has rows of %" PRIu32, i, in);
        if (rc > 0 && in != c->n_ff[i] && !noted) {
            arch_note(x,
                      "blk.%" PRIu32 ".ffn_down.weight has rows of %" PRIu32
                      ", feed_forward_length is %" PRIu32,
                      i, in, c->n_ff[i]);
            noted = true;
        }
        c->n_ff[i] = in;
        arch_prov_set(x, ARCH_F_N_FF, ARCH_FROM_SHAPE, "blk.N.ffn_down.weight ne[0]");
    }
    if (!rc && x->prov[ARCH_F_N_FF].origin == ARCH_UNKNOWN && x->facts.any)
        arch_prov_set(x, ARCH_F_N_FF, ARCH_FROM_DEFAULT, "0: no dense feed-forward");
    return 0;
}

/* rows / heads of the first layer that has both, where every such layer agrees; else 0. */
static uint32_t head_rows(const struct arch_ctx *x, bool value)
{
    uint32_t dim = 0;
    for (uint32_t i = 0; i < x->c.n_layer; i++) {
        const struct arch_layer_facts *l = &x->facts.layer[i];
        uint32_t rows = value ? l->v_rows : l->k_rows, n = x->c.n_head_kv[i];
        if (!rows || !n)
            continue;
        if (rows % n || (dim && rows / n != dim))
            return 0;
        dim = rows / n;
    }
    return dim;
}

static int head_dim(struct arch_ctx *x, enum arch_fid f, const char *key, bool value)
{
    struct arch_config *c = &x->c;
    uint32_t *dim = arch_field_at(c, f);
    int rc = arch_key_u32(x, key, ARCH_MAX_HEAD, dim);
    if (rc < 0)
        return rc;
    if (rc > 0) {
        arch_prov_key(x, f, key);
        return 0;
    }
    *dim = head_rows(x, value);
    if (*dim > ARCH_MAX_HEAD)
        return err_set(x->e, -ERANGE, "attention heads of %" PRIu32 " dimensions", *dim);
    if (*dim) {
        arch_prov_set(x, f, ARCH_FROM_SHAPE, "blk.N.attn_%c.weight ne[1] / n_head_kv",
                      value ? 'v' : 'k');
        return 0;
    }
    *dim = c->n_embd / c->n_head[0];
    arch_prov_set(x, f, ARCH_FROM_DEFAULT, "n_embd / n_head");
    return 0;
}

/* Keys and shapes that cannot both be: K's rows are n_head_kv heads of the global or local size. */
static int check_kv_shape(struct arch_ctx *x)
{
    const struct arch_config *c = &x->c;
    for (uint32_t i = 0; i < c->n_layer; i++) {
        uint64_t rows = x->facts.layer[i].k_rows, n = c->n_head_kv[i];
        if (x->row && rows && n && rows != n * c->head_dim_k && rows != n * c->head_dim_k_swa)
            return err_set(x->e, -EUCLEAN,
                           "tensor blk.%" PRIu32 ".attn_k.weight has %" PRIu64
                           " rows, expected %" PRIu64 " heads of %" PRIu32,
                           i, rows, n, c->head_dim_k);
    }
    return 0;
}

static int key_or(struct arch_ctx *x, enum arch_fid f, const char *key, uint32_t def,
                  const char *why)
{
    uint32_t *v = arch_field_at(&x->c, f);
    *v = def;
    int rc = arch_key_u32(x, key, ARCH_MAX_HEAD, v);
    if (rc > 0)
        arch_prov_key(x, f, key);
    else
        arch_prov_set(x, f, ARCH_FROM_DEFAULT, "%s", why);
    return rc < 0 ? rc : 0;
}

static int resolve_head_dims(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    if (!c->n_layer || !c->n_head[0]) {
        static const enum arch_fid none[] = {ARCH_F_HEAD_DIM_K,     ARCH_F_HEAD_DIM_V,
                                             ARCH_F_N_ROT,          ARCH_F_HEAD_DIM_K_SWA,
                                             ARCH_F_HEAD_DIM_V_SWA, ARCH_F_N_ROT_SWA};
        for (size_t i = 0; i < sizeof none / sizeof none[0] && x->facts.any; i++)
            arch_prov_set(x, none[i], ARCH_FROM_DEFAULT, "no attention heads in layer 0");
        return 0;
    }
    int rc = head_dim(x, ARCH_F_HEAD_DIM_K, "attention.key_length", false);
    if (!rc)
        rc = head_dim(x, ARCH_F_HEAD_DIM_V, "attention.value_length", true);
    if (!rc)
        rc = key_or(x, ARCH_F_N_ROT, "rope.dimension_count", c->head_dim_k, "the head size");
    if (!rc)
        rc = key_or(x, ARCH_F_HEAD_DIM_K_SWA, "attention.key_length_swa", c->head_dim_k,
                    "as in global layers");
    if (!rc)
        rc = key_or(x, ARCH_F_HEAD_DIM_V_SWA, "attention.value_length_swa", c->head_dim_v,
                    "as in global layers");
    if (!rc)
        rc = key_or(x, ARCH_F_N_ROT_SWA, "rope.dimension_count_swa", c->n_rot,
                    "as in global layers");
    if (!rc)
        rc = check_kv_shape(x);
    if (rc < 0)
        return rc;
    if (x->row && x->row->rot_halved) {
        c->n_rot /= 2;
        arch_prov_set(x, ARCH_F_N_ROT, ARCH_FROM_DEFAULT, "row %s: half of rope.dimension_count",
                      x->row->name);
    }
    if (x->row && x->row->head_v_lora &&
        arch_row_u32(x, "attention.kv_lora_rank", ARCH_MAX_HEAD, &c->head_dim_v) > 0)
        arch_prov_key(x, ARCH_F_HEAD_DIM_V, "attention.kv_lora_rank");
    return 0;
}

static int resolve_experts(struct arch_ctx *x)
{
    struct arch_config *c = &x->c;
    int rc = key_or(x, ARCH_F_N_EXPERT, "expert_count", 0, "dense");
    if (rc < 0)
        return rc;
    arch_prov_set(x, ARCH_F_N_EXPERT_USED, ARCH_FROM_DEFAULT, "dense");
    uint32_t *used = calloc(c->n_layer ? c->n_layer : 1, sizeof *used);
    if (!used)
        return err_set(x->e, -ENOMEM, "no memory for %" PRIu32 " layers", c->n_layer);
    rc = key_layers(x, "expert_used_count", ARCH_MAX_HEAD, used);
    if (rc > 0)
        arch_prov_key(x, ARCH_F_N_EXPERT_USED, "expert_used_count");
    for (uint32_t i = 0; i < c->n_layer; i++) {
        if (i && used[i] != used[i - 1])
            arch_note(x, "layer %" PRIu32 " uses %" PRIu32 " experts, the one before %" PRIu32, i,
                      used[i], used[i - 1]);
        c->n_expert_used = used[i] > c->n_expert_used ? used[i] : c->n_expert_used;
    }
    free(used);
    if (rc >= 0 && x->row && x->row->no_experts_if_one && c->n_expert <= 1)
        c->n_expert = c->n_expert_used = 0;
    return rc < 0 ? rc : 0;
}

static int resolve_reference(struct arch_ctx *x)
{
    int rc = resolve_name(x);
    if (!rc)
        rc = resolve_layers(x);
    if (!rc)
        rc = resolve_width(x);
    if (!rc)
        rc = resolve_vocab(x);
    if (!rc)
        rc = resolve_heads(x);
    if (!rc)
        rc = resolve_ffn(x);
    if (!rc)
        rc = resolve_head_dims(x);
    if (!rc)
        rc = resolve_experts(x);
    if (!rc)
        rc = arch_values_resolve(x);
    if (!rc && (rc = arch_tokens_resolve(x)) < 0)
        err_set(x->e, rc, "no memory for notes");
    if (!rc)
        rc = arch_config_check(&x->c, !x->facts.any, x->c.arch, x->e);
    return rc;
}

/* The stamped set: the reference values, and for compat the Rust table's wherever the APR has a
 * canonical key. Token ids beyond the vocabulary are never stamped. */
static int stamp(struct arch_config *out, const struct arch_ctx *x,
                 const struct arch_config *compat, const bool *has)
{
    int rc = arch_config_copy(out, &x->c);
    for (int f = 0; !rc && f < ARCH_N_FIELD; f++) {
        if (!has[f] || !arch_fields[f].key)
            continue;
        if (arch_fields[f].kind == ARCH_KIND_I32 &&
            *(int32_t *)arch_field_at(compat, f) >= (int64_t)x->c.n_vocab)
            continue;
        if (arch_fields[f].kind == ARCH_KIND_ROPE &&
            arch_rope_type(compat->rope) == arch_rope_type(x->c.rope))
            continue;
        void **p = arch_field_at(out, f);
        if (arch_fields[f].kind == ARCH_KIND_U32S)
            free(*p);
        rc = arch_field_copy(out, compat, f);
        if (rc < 0 && arch_fields[f].kind == ARCH_KIND_U32S)
            *p = NULL;
    }
    return rc;
}

int arch_resolve(const struct gguf *g, enum arch_values values, struct arch_config *c,
                 struct arch_report *report, struct err *e)
{
    struct arch_ctx *x = calloc(1, sizeof *x);
    struct arch_config compat;
    bool has[ARCH_N_FIELD] = {0};
    arch_config_defaults(c);
    arch_config_defaults(&compat);
    if (report)
        *report = (struct arch_report){0};
    if (!x)
        return err_set(e, -ENOMEM, "no memory for the resolver");
    *x = (struct arch_ctx){.g = g, .report = report, .e = e};
    arch_config_defaults(&x->c);
    for (int f = 0; f < ARCH_N_FIELD; f++)
        x->prov[f].origin = ARCH_UNKNOWN;
    int rc = resolve_reference(x);
    if (!rc && arch_config_copy(&compat, &x->c) < 0)
        rc = err_set(e, -ENOMEM, "no memory for the compat values");
    if (!rc)
        rc = arch_compat_resolve(g, &x->facts, &compat, has);
    if (!rc) {
        static const bool nothing[ARCH_N_FIELD];
        rc = stamp(c, x, &compat, values == ARCH_VALUES_COMPAT ? has : nothing);
        if (!rc && values == ARCH_VALUES_COMPAT)
            rc = arch_config_check(c, !x->facts.any, c->arch, e);
        else if (rc < 0)
            err_set(e, rc, "no memory for the stamped values");
    }
    if (!rc && report) {
        arch_notes_keys(x);
        arch_notes_gate(x, c);
        rc = arch_report_build(x, &compat, has, c);
        if (rc < 0)
            err_set(e, rc, "no memory for the report");
    }
    arch_config_release(&compat);
    arch_config_release(&x->c);
    arch_facts_release(&x->facts);
    free(x);
    if (rc < 0)
        arch_config_release(c);
    return rc;
}
