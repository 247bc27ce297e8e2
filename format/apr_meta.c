/* struct arch_config and a GGUF's keys -> the members of a .apr's metadata object. Reading them
 * back is apr_meta_read.c.
 *
 * Three parts: the canonical keys that every reader knows; the GGUF's other keys under their own
 * names; "aprfs.config" with every resolved field that no canonical key carries. A name is written
 * once: GGUF names are unique, and those that are no valid text, or that would collide with a
 * canonical name, an alias of one, or ours, stand as "gguf.key.<number>" instead, with a note. */
#include "format/apr_meta.h"
#include "format/apr_meta_internal.h"

#include <errno.h>
#include <math.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTES_MAX 64

struct writer {
    struct json_out *o;
    const struct gguf *g;
    const struct arch_config *c;
    char *note[NOTES_MAX];
    size_t n_note, n_lost; /* lost: beyond NOTES_MAX */
    bool spelled;          /* the text being written held bytes that JSON cannot */
};

__attribute__((format(printf, 2, 3))) static void note(struct writer *w, const char *fmt, ...)
{
    if (w->n_note == NOTES_MAX) {
        w->n_lost++;
        return;
    }
    va_list ap;
    va_start(ap, fmt);
    char *s = NULL;
    if (vasprintf(&s, fmt, ap) >= 0)
        w->note[w->n_note++] = s;
    else
        w->o->rc = -ENOMEM;
    va_end(ap);
}

/* Text from the file: bytes that are no UTF-8, and NUL, which no JSON reader of C keeps, become
 * U+FFFD. */
static void put_text(struct writer *w, const char *p, size_t len)
{
    if (!len || !memchr(p, 0, len)) {
        w->spelled |= !json_put_str(w->o, p, len);
        return;
    }
    char *copy = malloc(3 * len);
    size_t n = 0;
    if (!copy) {
        w->o->rc = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        if (p[i]) {
            copy[n++] = p[i];
        } else {
            memcpy(copy + n, "\xef\xbf\xbd", 3);
            n += 3;
        }
    }
    json_put_str(w->o, copy, n);
    w->spelled = true;
    free(copy);
}

static void put_float(struct writer *w, double v, bool f32)
{
    if (!isfinite(v)) { /* JSON has no such number: as text, not as a wrong one */
        json_put_cstr(w->o, isnan(v) ? "nan" : v < 0 ? "-inf" : "inf");
        w->spelled = true;
    } else if (f32) {
        json_put_f32(w->o, (float)v);
    } else {
        json_put_f64(w->o, v);
    }
}

/* Recurses into nested arrays, of which the GGUF reader bounds the depth. */
static void put_value(struct writer *w, const struct gguf_key *k)
{
    uint64_t u;
    int64_t i;
    double d;
    bool b;
    switch (k->type) {
    case GGUF_BOOL:
        json_put_bool(w->o, gguf_as_bool(k, &b) && b);
        break;
    case GGUF_F32:
    case GGUF_F64:
        put_float(w, gguf_as_f64(k, &d) ? d : NAN, k->type == GGUF_F32);
        break;
    case GGUF_STRING:
        put_text(w, (const char *)k->data, k->data_len);
        break;
    case GGUF_ARRAY: {
        struct gguf_key elem;
        size_t pos = 0;
        json_open(w->o, '[');
        while (w->o->rc >= 0 && gguf_next_elem(k, &pos, &elem))
            put_value(w, &elem);
        json_close(w->o, ']');
        break;
    }
    default:
        if (gguf_as_u64(k, &u))
            json_put_u64(w->o, u);
        else if (gguf_as_i64(k, &i))
            json_put_i64(w->o, i);
        else
            json_put_null(w->o);
    }
}

static void put_key(struct writer *w, const char *name, const struct gguf_key *k)
{
    w->spelled = false;
    json_key(w->o, name);
    put_value(w, k);
    if (w->spelled)
        note(w, "%s: not every byte or number of the GGUF's value can stand in JSON", name);
}

/* GGUF keys that only move to another name, whatever their value says, if the type fits. */
static const struct {
    const char *from, *to, *also;
    enum gguf_type type, elem;
} moved[] = {
    {"general.name", "name", NULL, GGUF_STRING, 0},
    {"general.description", "description", NULL, GGUF_STRING, 0},
    {"general.author", "author", NULL, GGUF_STRING, 0},
    {"general.license", "license", NULL, GGUF_STRING, 0},
    {"general.version", "version", NULL, GGUF_STRING, 0},
    {"tokenizer.chat_template", "chat_template", NULL, GGUF_STRING, 0},
    {"tokenizer.ggml.model", "tokenizer.model", "tokenizer.model_type", GGUF_STRING, 0},
    {"tokenizer.ggml.pre", "tokenizer.pre_type", NULL, GGUF_STRING, 0},
    {"tokenizer.ggml.tokens", "tokenizer.vocabulary", NULL, GGUF_ARRAY, GGUF_STRING},
    {"tokenizer.ggml.merges", "tokenizer.merges", NULL, GGUF_ARRAY, GGUF_STRING},
    {"tokenizer.ggml.scores", "tokenizer.scores", NULL, GGUF_ARRAY, GGUF_F32},
    {"tokenizer.ggml.token_type", "tokenizer.token_type", NULL, GGUF_ARRAY, GGUF_I32},
};
#define N_MOVED (sizeof moved / sizeof moved[0])

static bool moves(const struct gguf_key *k, size_t i)
{
    return gguf_str_eq(k->name, moved[i].from) && k->type == moved[i].type &&
           (k->type != GGUF_ARRAY || k->elem == moved[i].elem);
}

/* GGUF keys whose resolved value has a canonical name: carried if they say the same. */
static const struct {
    const char *key; /* "." before it: under the architecture's name */
    enum arch_fid f;
} carried[] = {
    {".block_count", ARCH_F_N_LAYER},
    {".embedding_length", ARCH_F_N_EMBD},
    {".context_length", ARCH_F_N_CTX},
    {".vocab_size", ARCH_F_N_VOCAB},
    {".attention.head_count", ARCH_F_N_HEAD},
    {".attention.head_count_kv", ARCH_F_N_HEAD_KV},
    {".feed_forward_length", ARCH_F_N_FF},
    {".attention.key_length", ARCH_F_HEAD_DIM_K},
    {".rope.freq_base", ARCH_F_ROPE_THETA},
    {".expert_count", ARCH_F_N_EXPERT},
    {".expert_used_count", ARCH_F_N_EXPERT_USED},
    {"tokenizer.ggml.bos_token_id", ARCH_F_BOS},
    {"tokenizer.ggml.eos_token_id", ARCH_F_EOS},
    {"tokenizer.ggml.padding_token_id", ARCH_F_PAD},
    {"tokenizer.ggml.add_bos_token", ARCH_F_ADD_BOS},
    {"tokenizer.ggml.add_eos_token", ARCH_F_ADD_EOS},
    {"tokenizer.ggml.add_space_prefix", ARCH_F_ADD_SPACE_PREFIX},
};

static bool name_is(struct gguf_str name, const char *arch, const char *key)
{
    size_t n = strlen(arch);
    if (*key != '.')
        return gguf_str_eq(name, key);
    return name.len > n && memcmp(name.p, arch, n) == 0 &&
           gguf_str_eq((struct gguf_str){name.p + n, name.len - n}, key);
}

static bool says_same(const struct arch_config *c, enum arch_fid f, const struct gguf_key *k)
{
    const void *p = arch_field_at(c, f);
    int64_t v;
    double d;
    bool b;
    if (!apr_meta_is_canonical(c, f) && f != ARCH_F_ADD_EOS && f != ARCH_F_ADD_SPACE_PREFIX)
        return false;
    switch (arch_fields[f].kind) {
    case ARCH_KIND_U32:
        return gguf_as_i64(k, &v) && v == *(const uint32_t *)p;
    case ARCH_KIND_U32S:
        return gguf_as_i64(k, &v) && v == apr_meta_largest(c, f) && apr_meta_uniform(c, f);
    case ARCH_KIND_I32:
        return gguf_as_i64(k, &v) && v == *(const int32_t *)p;
    case ARCH_KIND_F32:
        return (k->type == GGUF_F32 || k->type == GGUF_F64) && gguf_as_f64(k, &d) &&
               (k->type == GGUF_F32 || d == (double)(float)d) && (float)d == *(const float *)p;
    case ARCH_KIND_BOOL:
        return gguf_as_bool(k, &b) && b == *(const bool *)p;
    default:
        return false;
    }
}

static const char *eps_key(const struct arch_config *c)
{
    return c->norm == ARCH_NORM_LAYER ? ".attention.layer_norm_epsilon"
                                      : ".attention.layer_norm_rms_epsilon";
}

/* The experts' feed-forward length where one number says it, else 0. */
static uint64_t moe_length(const struct writer *w)
{
    char name[ARCH_NAME_MAX + 40];
    uint64_t v;
    snprintf(name, sizeof name, "%s.expert_feed_forward_length", w->c->arch);
    if (!w->c->n_expert || !gguf_as_u64(gguf_find(w->g, name), &v) || v > UINT32_MAX)
        return 0;
    return v;
}

static bool is_carried(const struct writer *w, const struct gguf_key *k)
{
    if (gguf_str_eq(k->name, "general.architecture"))
        return true;
    for (size_t i = 0; i < N_MOVED; i++)
        if (moves(k, i))
            return true;
    for (size_t i = 0; i < sizeof carried / sizeof carried[0]; i++)
        if (name_is(k->name, w->c->arch, carried[i].key))
            return says_same(w->c, carried[i].f, k);
    if (name_is(k->name, w->c->arch, eps_key(w->c)))
        return says_same(w->c, ARCH_F_NORM_EPS, k);
    return name_is(k->name, w->c->arch, ".expert_feed_forward_length") && moe_length(w) != 0;
}

/* Names with a dot that mean something to some reader, beside the prefixes "aprfs." and "model."
 * (arch-resolver's and apr-v2's lists); every name without a dot is taken as reserved. */
static bool reserved(struct gguf_str s)
{
    static const char *const prefix[] = {"aprfs.", "gguf.key.", "model."};
    static const char *const name[] = {"tokenizer.vocabulary",       "tokenizer.merges",
                                       "tokenizer.scores",           "tokenizer.token_type",
                                       "tokenizer.vocab_size",       "tokenizer.bos_token_id",
                                       "tokenizer.eos_token_id",     "tokenizer.add_bos_token",
                                       "tokenizer.padding_token_id", "tokenizer.add_eos_token",
                                       "tokenizer.add_space_prefix", "tokenizer.pre_type",
                                       "tokenizer.model_type",       "tokenizer.model",
                                       "tokenizer.architecture",     "tokenizer.model_name",
                                       "tokenizer.chat_template",    "tokenizer.unknown_token_id",
                                       "tokenizer.eot_token_id",     "tokenizer.eom_token_id"};
    if (!memchr(s.p, '.', s.len))
        return true;
    for (size_t i = 0; i < sizeof prefix / sizeof prefix[0]; i++)
        if (s.len >= strlen(prefix[i]) && memcmp(s.p, prefix[i], strlen(prefix[i])) == 0)
            return true;
    for (size_t i = 0; i < sizeof name / sizeof name[0]; i++)
        if (gguf_str_eq(s, name[i]))
            return true;
    return false;
}

static bool name_taken(struct gguf_str s)
{
    return reserved(s) || memchr(s.p, 0, s.len) || !json_utf8_valid(s.p, s.len);
}

static int put_rest(struct writer *w, struct err *e)
{
    for (size_t i = 0; i < gguf_n_key(w->g) && w->o->rc >= 0; i++) {
        const struct gguf_key *k = gguf_key(w->g, i);
        char plain[32], *own = NULL;
        if (is_carried(w, k))
            continue;
        if (name_taken(k->name)) {
            snprintf(plain, sizeof plain, "gguf.key.%zu", i);
            note(w, "key %zu '%.*s' of the GGUF stands as %s: its name is taken or no text", i,
                 (int)(k->name.len < 64 ? k->name.len : 64), k->name.p, plain);
            put_key(w, plain, k);
        } else {
            own = strndup(k->name.p, k->name.len);
            if (!own)
                return err_set(e, -ENOMEM, "no memory for the name of key %zu", i);
            put_key(w, own, k);
            free(own);
        }
    }
    return 0;
}

static void put_moved(struct writer *w)
{
    const struct gguf_key *desc = gguf_find(w->g, "general.description");
    for (size_t i = 0; i < N_MOVED; i++) {
        const struct gguf_key *k = gguf_find(w->g, moved[i].from);
        if (!k || !moves(k, i))
            continue;
        put_key(w, moved[i].to, k);
        if (moved[i].also)
            put_key(w, moved[i].also, k);
        if (i == 0 && !(desc && desc->type == GGUF_STRING)) /* readers' lint asks for one */
            put_key(w, "description", k);
        if (strcmp(moved[i].to, "tokenizer.vocabulary") == 0) {
            json_add_u64(w->o, "tokenizer.vocab_size", k->n);
        }
    }
}

static void put_canonical(struct writer *w)
{
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        const struct arch_field_desc *d = &arch_fields[f];
        if (!d->key || !apr_meta_is_canonical(w->c, f))
            continue;
        json_key(w->o, d->key);
        if (d->kind == ARCH_KIND_ROPE)
            json_put_u64(w->o, arch_rope_type(w->c->rope));
        else if (d->kind == ARCH_KIND_U32S)
            json_put_u64(w->o, apr_meta_largest(w->c, f));
        else
            arch_field_put(w->o, w->c, f);
    }
    json_add_bool(w->o, "tokenizer.add_eos_token", w->c->add_eos);
    json_add_bool(w->o, "tokenizer.add_space_prefix", w->c->add_space_prefix);
}

/* Only where it is the whole truth in every profile: all quantised tensors of one type that no
 * profile transcodes. */
static void put_quantization(struct writer *w)
{
    uint32_t type = 0;
    uint64_t n_param = 0;
    bool one = true;
    for (size_t i = 0; i < gguf_n_tensor(w->g); i++) {
        const struct gguf_tensor *t = gguf_tensor(w->g, i);
        n_param += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3]; /* checked by the GGUF reader */
        if (quant_type(t->type)->block_len == 1)
            continue;
        one = one && (!type || type == t->type);
        type = t->type;
    }
    if (n_param && n_param < UINT64_C(1) << 53) {
        json_add_u64(w->o, "param_count", n_param);
    }
    if (!one || (type != QUANT_Q4_K && type != QUANT_Q6_K))
        return;
    json_key(w->o, "quantization");
    json_open(w->o, '{');
    json_add_cstr(w->o, "quant_type", quant_type(type)->name);
    json_add_u64(w->o, "bits", type == QUANT_Q4_K ? 4 : 6);
    json_add_bool(w->o, "symmetric", type == QUANT_Q6_K);
    json_close(w->o, '}');
}

static void list_str(struct writer *w, bool yes, const char *s)
{
    if (yes)
        json_put_cstr(w->o, s);
}

static bool any(const uint8_t *a, uint32_t n, uint8_t v)
{
    for (uint32_t i = 0; i < n; i++)
        if (a[i] == v)
            return true;
    return false;
}

/* Scalars that are 0, false or not finite switch nothing on. */
static bool is_on(const struct gguf_key *k)
{
    double d;
    bool b;
    if (gguf_as_bool(k, &b))
        return b;
    return !gguf_as_f64(k, &d) || (d != 0 && isfinite(d));
}

/* What the original readers ignore although the forward pass needs it (arch-resolver.md §7). */
static void put_unsupported(struct writer *w)
{
    const struct arch_config *c = w->c;
    const struct arch_row *row = arch_row_find(c->arch);
    const struct arch_compat_row *rust = arch_compat_find(c->arch);
    float plain = c->head_dim_k ? 1 / sqrtf((float)c->head_dim_k) : c->attn_scale;
    json_key(w->o, "aprfs.unsupported");
    json_open(w->o, '[');
    list_str(w, c->rope == ARCH_ROPE_NONE, "rope:none");
    list_str(w, c->rope == ARCH_ROPE_MROPE || c->rope == ARCH_ROPE_IMROPE, "rope:mrope");
    list_str(w, c->n_rot != c->head_dim_k && c->rope != ARCH_ROPE_NONE, "rope:partial");
    list_str(
        w, c->scaling_factor != 1 || c->scaling_attn_factor != 1 || c->scaling >= ARCH_SCALING_YARN,
        "rope:scaling");
    list_str(w,
             gguf_find_tensor(w->g, "rope_freqs.weight") ||
                 gguf_find_tensor(w->g, "rope_factors_long.weight"),
             "rope:factors");
    list_str(w, c->rope != ARCH_ROPE_NONE && any(c->layer_rope, c->n_layer, 0), "rope:some_layers");
    list_str(w, any(c->layer_local, c->n_layer, 1), "sliding_window");
    list_str(w, c->head_dim_v != c->head_dim_k, "head_dim_v");
    list_str(w,
             !apr_meta_uniform(c, ARCH_F_N_HEAD) || !apr_meta_uniform(c, ARCH_F_N_HEAD_KV) ||
                 !apr_meta_uniform(c, ARCH_F_N_FF),
             "per_layer_dimensions");
    list_str(w, c->attn_scale != plain, "attn_scale");
    list_str(w, c->attn_softcap != 0, "attn_softcap");
    list_str(w, c->final_softcap != 0, "final_softcap");
    list_str(w, c->embed_scale != 1, "embed_scale");
    list_str(w, c->residual_scale != 1, "residual_scale");
    list_str(w, c->logit_scale != 1, "logit_scale");
    list_str(w, c->post_norms, "post_norms");
    list_str(w, c->norm != rust->norm, "norm");
    list_str(w, c->act != rust->act || c->ffn_gated != rust->gated, "activation");
    list_str(w, c->qk_norm && !rust->qk_norm, "qk_norm");
    list_str(w, c->n_layer_nextn != 0, "nextn_blocks");
    size_t n = strlen(c->arch);
    for (size_t i = 0; i < gguf_n_key(w->g); i++) {
        const struct gguf_key *k = gguf_key(w->g, i);
        if (k->name.len <= n + 1 || memcmp(k->name.p, c->arch, n) != 0 || k->name.p[n] != '.' ||
            !arch_row_reads(row, k->name.p + n + 1, k->name.len - n - 1, NULL) || !is_on(k) ||
            is_carried(w, k))
            continue;
        put_text(w, k->name.p, k->name.len);
    }
    json_close(w->o, ']');
}

static void put_config(struct writer *w)
{
    json_key(w->o, "aprfs.config");
    json_open(w->o, '{');
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        if (!apr_meta_in_config(w->c, f))
            continue;
        json_key(w->o, arch_fields[f].name);
        arch_field_put(w->o, w->c, f);
    }
    json_close(w->o, '}');
}

static void put_notes(struct writer *w)
{
    char lost[48];
    if (!w->n_note)
        return;
    json_key(w->o, "aprfs.notes");
    json_open(w->o, '[');
    for (size_t i = 0; i < w->n_note; i++)
        json_put_cstr(w->o, w->note[i]);
    if (w->n_lost) {
        snprintf(lost, sizeof lost, "and %zu more notes", w->n_lost);
        json_put_cstr(w->o, lost);
    }
    json_close(w->o, ']');
}

static void put_moe(struct writer *w)
{
    if (!moe_length(w))
        return;
    json_add_u64(w->o, "moe_intermediate_size", moe_length(w));
}

/* --- the GGUF's own keys, for who wants them back --- */

static bool text_stands(const uint8_t *p, size_t len)
{
    return !(len && memchr(p, 0, len)) && json_utf8_valid((const char *)p, len);
}

/* True if the JSON value and the type give back the value's bytes. Integers: json_int()'s rule. */
static bool stands(const struct gguf_key *k)
{
    int64_t i;
    double d;
    bool b;
    switch (k->type) {
    case GGUF_STRING:
        return text_stands(k->data, k->data_len);
    case GGUF_BOOL:
        return gguf_as_bool(k, &b) && k->data[0] == (b ? 1 : 0);
    case GGUF_F32:
    case GGUF_F64:
        return gguf_as_f64(k, &d) && isfinite(d);
    case GGUF_ARRAY: {
        struct gguf_key elem;
        size_t pos = 0;
        if (k->elem == GGUF_ARRAY)
            return false;
        while (gguf_next_elem(k, &pos, &elem))
            if (!stands(&elem))
                return false;
        return true;
    }
    default:
        return gguf_as_i64(k, &i) && i < INT64_C(1) << 53 && i > -(INT64_C(1) << 53);
    }
}

/* Where apr_meta_write() put the value of key number i. */
static const char *home(const struct writer *w, const struct gguf_key *k, size_t i, char *plain,
                        size_t cap)
{
    if (gguf_str_eq(k->name, "general.architecture"))
        return "architecture";
    for (size_t m = 0; m < N_MOVED; m++)
        if (moves(k, m))
            return moved[m].to;
    if (is_carried(w, k)) {
        for (size_t m = 0; m < sizeof carried / sizeof carried[0]; m++)
            if (name_is(k->name, w->c->arch, carried[m].key)) {
                if (carried[m].f == ARCH_F_ADD_EOS)
                    return "tokenizer.add_eos_token";
                return carried[m].f == ARCH_F_ADD_SPACE_PREFIX ? "tokenizer.add_space_prefix"
                                                               : arch_fields[carried[m].f].key;
            }
        return name_is(k->name, w->c->arch, eps_key(w->c)) ? arch_fields[ARCH_F_NORM_EPS].key
                                                           : "moe_intermediate_size";
    }
    if (!name_taken(k->name))
        return NULL;
    snprintf(plain, cap, "gguf.key.%zu", i);
    return plain;
}

static void put_hex(struct writer *w, const uint8_t *p, size_t len)
{
    static const char digit[] = "0123456789abcdef";
    char *s = malloc(2 * len + 1);
    if (!s) {
        w->o->rc = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < len; i++) {
        s[2 * i] = digit[p[i] >> 4];
        s[2 * i + 1] = digit[p[i] & 15];
    }
    json_put_str(w->o, s, 2 * len);
    free(s);
}

/* The value as the GGUF encodes it: what stands in the file before k->data is fixed by the type. */
static void put_encoded(struct writer *w, const struct gguf_key *k)
{
    size_t before = k->type == GGUF_STRING ? 8 : k->type == GGUF_ARRAY ? 12 : 0;
    put_hex(w, k->data - before, k->data_len + before);
}

/* [name, type] and, where they are needed, the member that holds the value (null: its own name) and
 * the encoded value: see apr_meta.h. */
static void put_original(struct writer *w)
{
    json_key(w->o, "aprfs.gguf");
    json_open(w->o, '{');
    json_add_u64(w->o, "version", gguf_version(w->g));
    json_key(w->o, "keys");
    json_open(w->o, '[');
    for (size_t i = 0; i < gguf_n_key(w->g) && w->o->rc >= 0; i++) {
        const struct gguf_key *k = gguf_key(w->g, i);
        char plain[32], type[8];
        const char *at = home(w, k, i, plain, sizeof plain);
        bool array = k->type == GGUF_ARRAY, whole = stands(k);
        snprintf(type, sizeof type, "%s%s", array ? "[" : "",
                 gguf_type_name(array ? k->elem : k->type));
        json_open(w->o, '[');
        if (text_stands((const uint8_t *)k->name.p, k->name.len)) {
            json_put_str(w->o, k->name.p, k->name.len);
        } else { /* no JSON text: an array around the name's bytes */
            json_open(w->o, '[');
            put_hex(w, (const uint8_t *)k->name.p, k->name.len);
            json_close(w->o, ']');
        }
        json_put_cstr(w->o, type);
        if (at)
            json_put_cstr(w->o, at);
        else if (!whole)
            json_put_null(w->o);
        if (!whole)
            put_encoded(w, k);
        json_close(w->o, ']');
    }
    json_close(w->o, ']');
}

/* Size and head of a file of one part: who builds it again can tell whether it is the same. */
static int put_identity(struct writer *w, struct err *e)
{
    uint8_t sha[32];
    size_t len;
    const uint8_t *head = gguf_head(w->g, 0, &len);
    if (gguf_n_part(w->g) == 1) {
        if (EVP_Digest(head, len, sha, NULL, EVP_sha256(), NULL) != 1)
            return err_set(e, -ENOMEM, "no memory for a digest");
        json_add_u64(w->o, "size", source_size(gguf_part(w->g, 0)));
        json_key(w->o, "head_sha256");
        put_hex(w, sha, sizeof sha);
    }
    json_close(w->o, '}');
    return 0;
}

int apr_meta_write(struct json_out *o, const struct gguf *g, const struct arch_config *c,
                   struct err *e)
{
    struct writer w = {.o = o, .g = g, .c = c};
    json_add_cstr(o, "model_type", c->arch);
    json_add_cstr(o, "architecture", c->arch);
    json_add_cstr(o, "original_format", "gguf");
    put_quantization(&w);
    put_canonical(&w);
    put_moe(&w);
    put_moved(&w);
    int rc = put_rest(&w, e);
    put_unsupported(&w);
    put_config(&w);
    put_original(&w);
    if (!rc)
        rc = put_identity(&w, e);
    put_notes(&w);
    for (size_t i = 0; i < w.n_note; i++)
        free(w.note[i]);
    if (!rc && o->rc < 0)
        rc = err_set(e, o->rc, "metadata: %s", strerror(-o->rc));
    return rc;
}
