/* A .apr's metadata -> struct arch_config. Our own files say everything ("aprfs.config"), and
 * nothing is guessed. Files of the original writers say the canonical keys, or Hugging Face's
 * spelling of them; the rest is what the architecture's row says about a file without keys, and the
 * Rust table's theta, since their readers would take that. */
#include "format/apr_meta.h"
#include "format/apr_meta_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

uint32_t apr_meta_largest(const struct arch_config *c, enum arch_fid f)
{
    const uint32_t *a = *(uint32_t *const *)arch_field_at(c, f);
    uint32_t max = 0;
    for (uint32_t i = 0; a && i < c->n_layer; i++)
        max = a[i] > max ? a[i] : max;
    return max;
}

bool apr_meta_uniform(const struct arch_config *c, enum arch_fid f)
{
    const uint32_t *a = *(uint32_t *const *)arch_field_at(c, f);
    for (uint32_t i = 1; a && i < c->n_layer; i++)
        if (a[i] != a[0])
            return false;
    return true;
}

bool apr_meta_is_canonical(const struct arch_config *c, enum arch_fid f)
{
    const void *p = arch_field_at(c, f);
    if (!arch_fields[f].key)
        return false;
    switch (arch_fields[f].kind) {
    case ARCH_KIND_U32:
        return *(const uint32_t *)p != 0;
    case ARCH_KIND_U32S:
        return apr_meta_largest(c, f) != 0;
    case ARCH_KIND_I32:
        return *(const int32_t *)p >= 0;
    default:
        return true;
    }
}

bool apr_meta_in_config(const struct arch_config *c, enum arch_fid f)
{
    if (!apr_meta_is_canonical(c, f))
        return true;
    if (arch_fields[f].kind == ARCH_KIND_U32S)
        return !apr_meta_uniform(c, f);
    if (arch_fields[f].kind == ARCH_KIND_ROPE)
        return c->rope != ARCH_ROPE_NORM && c->rope != ARCH_ROPE_NEOX;
    return false;
}

/* Other spellings of the dimensions (apr-v2.md §3.1, §3.2). */
static const struct {
    enum arch_fid f;
    const char *name[5];
} aliases[] = {
    {ARCH_F_N_EMBD, {"hidden_dim", "d_model", "n_embd"}},
    {ARCH_F_N_LAYER, {"n_layers", "num_hidden_layers", "n_layer"}},
    {ARCH_F_N_HEAD, {"n_heads", "num_attention_heads", "n_head"}},
    {ARCH_F_N_HEAD_KV, {"n_kv_heads", "num_key_value_heads"}},
    {ARCH_F_N_VOCAB, {"n_vocab"}},
    {ARCH_F_N_FF, {"ffn_dim", "intermediate_dim", "n_inner"}},
    {ARCH_F_N_CTX, {"max_seq_len", "context_length", "n_ctx"}},
    {ARCH_F_NORM_EPS, {"layer_norm_eps", "norm_eps"}},
};

struct reader {
    const cJSON *meta, *config; /* config: "aprfs.config", NULL in others' files */
    struct arch_config *c;
    struct err *e;
};

/* A member that is there and not null. */
static const cJSON *member(const cJSON *obj, const char *key)
{
    const cJSON *v = json_get(obj, key);
    return v && !cJSON_IsNull(v) ? v : NULL;
}

/* The canonical key or one of its aliases; two that disagree are -EUCLEAN. */
static int find(struct reader *r, enum arch_fid f, const cJSON **out)
{
    const char *key = arch_fields[f].key;
    *out = key ? member(r->meta, key) : NULL;
    for (size_t i = 0; key && i < sizeof aliases / sizeof aliases[0]; i++) {
        if (aliases[i].f != f)
            continue;
        for (const char *const *n = aliases[i].name; *n; n++) {
            const cJSON *v = member(r->meta, *n);
            if (v && *out && !cJSON_Compare(v, *out, true))
                return err_set(r->e, -EUCLEAN, "metadata: %s and %s disagree", key, *n);
            if (v && !*out)
                *out = v;
        }
    }
    return 0;
}

static int bad(struct reader *r, const char *name, const char *want)
{
    return err_set(r->e, -EUCLEAN, "metadata: %s is no %s", name, want);
}

static int take_array(struct reader *r, enum arch_fid f, const char *name, const cJSON *v)
{
    struct arch_config *c = r->c;
    bool small = arch_fields[f].kind == ARCH_KIND_U8S;
    const cJSON *item = cJSON_IsArray(v) ? v->child : v;
    void *p = arch_field_at(c, f);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        uint64_t u;
        if (!item || !json_uint(item, &u) || u > (small ? 1 : UINT32_MAX))
            return bad(r, name, small ? "list of 0 and 1 for each layer" : "count for each layer");
        if (small)
            (*(uint8_t **)p)[i] = (uint8_t)u;
        else
            (*(uint32_t **)p)[i] = (uint32_t)u;
        if (cJSON_IsArray(v))
            item = item->next;
    }
    if (cJSON_IsArray(v) && item)
        return bad(r, name, "list of one value for each layer");
    return 0;
}

static int take_name(struct reader *r, enum arch_fid f, const char *name, const cJSON *v)
{
    enum arch_kind k = arch_fields[f].kind;
    int n = json_text(v) ? arch_enum_parse(k, json_text(v)) : -1;
    if (n < 0)
        return bad(r, name, "name we know");
    if (k == ARCH_KIND_NORM)
        r->c->norm = (enum arch_norm)n;
    else if (k == ARCH_KIND_ACT)
        r->c->act = (enum arch_act)n;
    else if (k == ARCH_KIND_ROPE)
        r->c->rope = (enum arch_rope)n;
    else
        r->c->scaling = (enum arch_scaling)n;
    return 0;
}

static int take(struct reader *r, enum arch_fid f, const char *name, const cJSON *v)
{
    void *p = arch_field_at(r->c, f);
    uint64_t u;
    int64_t i;
    double d;
    switch (arch_fields[f].kind) {
    case ARCH_KIND_U32:
        if (!json_uint(v, &u) || u > UINT32_MAX)
            return bad(r, name, "count");
        *(uint32_t *)p = (uint32_t)u;
        return 0;
    case ARCH_KIND_I32:
        if (!json_int(v, &i) || i < ARCH_NO_TOKEN || i > INT32_MAX)
            return bad(r, name, "token id");
        *(int32_t *)p = (int32_t)i;
        return 0;
    case ARCH_KIND_F32:
        if (!json_num(v, &d) || !isfinite((float)d))
            return bad(r, name, "number");
        *(float *)p = (float)d;
        return 0;
    case ARCH_KIND_BOOL:
        return json_bool(v, p) ? 0 : bad(r, name, "boolean");
    case ARCH_KIND_U32S:
    case ARCH_KIND_U8S:
        return !r->c->n_layer ? 0 : take_array(r, f, name, v);
    default:
        return take_name(r, f, name, v);
    }
}

static int read_architecture(struct reader *r)
{
    const char *s = json_text(json_get(r->meta, "architecture"));
    if (!s || !*s) {
        s = json_text(json_get(r->meta, "model_type"));
        if (!s || !arch_row_find(s))
            return err_set(r->e, -ENOENT, "metadata: architecture is missing");
    }
    if (strlen(s) >= ARCH_NAME_MAX)
        return bad(r, "architecture", "name of less than 64 bytes");
    memcpy(r->c->arch, s, strlen(s) + 1);
    r->c->known = arch_row_find(s) != NULL;
    return 0;
}

static int read_layers(struct reader *r)
{
    const cJSON *v;
    int rc = find(r, ARCH_F_N_LAYER, &v);
    if (!rc && !v && r->config)
        v = member(r->config, arch_fields[ARCH_F_N_LAYER].name);
    if (!rc && !v)
        rc = err_set(r->e, -ENOENT, "metadata: num_layers is missing");
    if (!rc)
        rc = take(r, ARCH_F_N_LAYER, "num_layers", v);
    if (!rc && r->c->n_layer > ARCH_MAX_LAYER)
        rc = err_set(r->e, -ERANGE,
                     "metadata: num_layers is %" PRIu32 ", at most %" PRIu32 " are supported",
                     r->c->n_layer, ARCH_MAX_LAYER);
    if (!rc && arch_config_alloc(r->c) < 0)
        rc = err_set(r->e, -ENOMEM, "no memory for %" PRIu32 " layers", r->c->n_layer);
    return rc;
}

static int read_rope_type(struct reader *r)
{
    const cJSON *v = member(r->meta, "rope_type");
    uint64_t u;
    if (!v)
        return 0;
    if (!json_uint(v, &u) || (u != 0 && u != 2))
        return bad(r, "rope_type", "pairing we know (0 or 2)");
    if (r->config || arch_rope_type(r->c->rope) != u)
        r->c->rope = u ? ARCH_ROPE_NEOX : ARCH_ROPE_NORM;
    return 0;
}

/* A canonical key beside a field of aprfs.config: only counts that differ by layer stand in both, and
 * then the key is the largest of them. */
static int check_twice(struct reader *r, enum arch_fid f)
{
    const cJSON *v = arch_fields[f].key ? member(r->meta, arch_fields[f].key) : NULL;
    uint64_t u;
    if (!v || arch_fields[f].kind == ARCH_KIND_ROPE)
        return 0;
    if (arch_fields[f].kind == ARCH_KIND_U32S && json_uint(v, &u) && u == apr_meta_largest(r->c, f))
        return 0;
    return err_set(r->e, -EUCLEAN, "metadata: %s and aprfs.config.%s disagree", arch_fields[f].key,
                   arch_fields[f].name);
}

/* A later builder may say what this reader would not obey. */
static int check_known(struct reader *r)
{
    for (const cJSON *m = r->config->child; m; m = m->next) {
        int f = 0;
        while (f < ARCH_N_FIELD && strcmp(m->string, arch_fields[f].name) != 0)
            f++;
        if (f == ARCH_N_FIELD)
            return err_set(r->e, -ENOTSUP, "metadata: aprfs.config.%s is not known", m->string);
    }
    return 0;
}

/* Ours: every field once, here or there. */
static int read_ours(struct reader *r)
{
    const cJSON *type = member(r->meta, "rope_type"), *rope = member(r->config, "rope");
    int known = check_known(r);
    if (known < 0)
        return known;
    if (!type && !rope)
        return err_set(r->e, -ENOENT, "metadata: rope_type is missing");
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        const char *name = arch_fields[f].name;
        const cJSON *v = member(r->config, name);
        int rc = 0;
        if (f == ARCH_F_N_LAYER) { /* read_layers took it */
            rc = v ? check_twice(r, f) : 0;
        } else if (f == ARCH_F_ROPE && !v) {
            rc = read_rope_type(r);
        } else if (v) {
            rc = take(r, f, name, v);
            rc = rc ? rc : check_twice(r, f);
        } else {
            rc = find(r, f, &v);
            if (!rc && !v && r->c->n_layer)
                rc = err_set(r->e, -ENOENT, "metadata: %s is missing",
                             arch_fields[f].key ? arch_fields[f].key : name);
            if (!rc && v)
                rc = take(r, f, arch_fields[f].key, v);
        }
        if (rc < 0)
            return rc;
    }
    uint64_t u;
    if (type && (!json_uint(type, &u) || u != arch_rope_type(r->c->rope)))
        return err_set(r->e, -EUCLEAN, "metadata: rope_type and aprfs.config.rope disagree");
    return 0;
}

static int required(struct reader *r, enum arch_fid f)
{
    const cJSON *v;
    int rc = find(r, f, &v);
    if (!rc && !v)
        rc = err_set(r->e, -ENOENT, "metadata: %s is missing", arch_fields[f].key);
    return rc ? rc : take(r, f, arch_fields[f].key, v);
}

static int optional(struct reader *r, enum arch_fid f)
{
    const cJSON *v;
    int rc = find(r, f, &v);
    return rc || !v ? rc : take(r, f, arch_fields[f].key, v);
}

/* The original writers': dimensions as they stand, then what the row says about a file without
 * keys, then the keys that are there. */
static int read_theirs(struct reader *r)
{
    struct arch_config *c = r->c;
    int rc = required(r, ARCH_F_N_EMBD);
    if (!rc)
        rc = required(r, ARCH_F_N_HEAD);
    if (!rc && c->n_layer) /* without layers the arrays are NULL */
        memcpy(c->n_head_kv, c->n_head, c->n_layer * sizeof *c->n_head_kv);
    if (!rc)
        rc = optional(r, ARCH_F_N_HEAD_KV);
    if (!rc)
        rc = required(r, ARCH_F_N_FF);
    if (!rc)
        rc = optional(r, ARCH_F_N_VOCAB);
    if (!rc)
        rc = optional(r, ARCH_F_N_CTX);
    if (!rc && c->n_layer && c->n_head[0])
        c->head_dim_k = c->n_embd / c->n_head[0];
    if (!rc)
        rc = optional(r, ARCH_F_HEAD_DIM_K);
    if (rc)
        return rc;
    c->head_dim_v = c->n_rot = c->head_dim_k;
    c->head_dim_k_swa = c->head_dim_v_swa = c->n_rot_swa = c->head_dim_k;
    rc = arch_values_from_row(c, r->e);
    if (rc < 0)
        return rc;
    c->rope_theta = arch_compat_theta(c->arch);
    static const enum arch_fid rest[] = {ARCH_F_NORM_EPS,      ARCH_F_ROPE_THETA, ARCH_F_N_EXPERT,
                                         ARCH_F_N_EXPERT_USED, ARCH_F_BOS,        ARCH_F_EOS,
                                         ARCH_F_PAD,           ARCH_F_ADD_BOS};
    for (size_t i = 0; !rc && i < sizeof rest / sizeof rest[0]; i++)
        rc = optional(r, rest[i]);
    if (!rc)
        rc = read_rope_type(r);
    const struct arch_row *row = arch_row_find(c->arch);
    bool local = false;
    for (uint32_t i = 0; i < c->n_layer; i++)
        local = local || c->layer_local[i];
    if (!local || row->swa_base_same)
        c->rope_theta_swa = c->rope_theta;
    const cJSON *tied = member(r->meta, "tied_embeddings");
    if (!rc && tied && !json_bool(tied, &c->tied_head))
        rc = bad(r, "tied_embeddings", "boolean");
    return rc;
}

int apr_meta_read(const cJSON *meta, struct arch_config *c, struct err *e)
{
    struct reader r = {.meta = meta, .config = member(meta, "aprfs.config"), .c = c, .e = e};
    arch_config_defaults(c);
    int rc = 0;
    if (r.config && !cJSON_IsObject(r.config))
        rc = bad(&r, "aprfs.config", "object");
    if (!rc)
        rc = read_architecture(&r);
    if (!rc)
        rc = read_layers(&r);
    if (!rc)
        rc = r.config ? read_ours(&r) : read_theirs(&r);
    if (!rc)
        rc = arch_config_check(c, r.config && !c->n_layer, "metadata", e);
    if (rc < 0)
        arch_config_release(c);
    return rc;
}
