/* What each original reader of APR v2 makes of a file: accepted or not, and which tensors it takes
 * for something they are not. From their sources, as apr-v2.md sections 3 to 9 record them; parsed
 * here by a laxer hand than apr_open's, since some of them open what we refuse.
 *
 *   aprender-feb   aprender core of February 2026        aprender-mid   aprender core since June 2026
 *   AprV2Model     the container reader of realizar and aprender-serve
 *   quantized      MappedAprModel + OwnedQuantizedModel::from_apr: apr run and serve
 *   f32-loader     AprTransformer::from_apr_bytes       aprd           ours */
#include "format/aprtool.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum reader {
    FEB,
    MID,
    V2MODEL,
    QUANTIZED,
    F32_LOADER,
    APRD,
};

#define TAKES_OTHER 0x2001
#define REFUSES     0x2002

#define MAX_READ    ((uint64_t)256 << 20)

struct raw_tensor {
    const char *name; /* in index, not terminated */
    size_t name_len;
    uint8_t dtype;
    uint64_t n; /* weights */
    uint64_t size;
};

/* The file as it lies there. */
struct raw_apr {
    uint64_t size;
    uint8_t head[APR_HEADER_SIZE];
    uint32_t n_tensor;
    uint16_t flags;
    uint64_t meta_off, index_off, data_off;
    uint32_t meta_size;
    bool meta_past_end, index_past_end, unsorted;
    char *meta_text;
    cJSON *meta;    /* by our rules; NULL: not even JSON, or a key twice */
    bool key_twice; /* JSON, but with one top-level key twice */
    uint8_t *index;
    struct raw_tensor *t; /* the entries that could be read */
    size_t n_read;
};

static void refuse(struct reader_verdict *v, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void refuse(struct reader_verdict *v, const char *fmt, ...)
{
    if (v->refused[0])
        return; /* the first reason is the one it would give */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(v->refused, sizeof v->refused, fmt, ap);
    va_end(ap);
}

static void raw_read_meta(struct raw_apr *r, struct source *src)
{
    r->meta_past_end = r->meta_off > r->size || r->meta_size > r->size - r->meta_off;
    if (r->meta_past_end || r->meta_size > MAX_READ)
        return;
    r->meta_text = malloc((size_t)r->meta_size + 1);
    if (!r->meta_text || source_read(src, r->meta_text, r->meta_off, r->meta_size, NULL) < 0)
        return;
    r->meta_text[r->meta_size] = 0;
    if (json_parse(&r->meta, r->meta_text, r->meta_size, NULL) == 0)
        return;
    cJSON *lax = cJSON_ParseWithLength(r->meta_text, r->meta_size);
    int n = cJSON_GetArraySize(lax);
    for (cJSON *a = lax && n < 4096 ? lax->child : NULL; a; a = a->next)
        for (cJSON *b = a->next; b; b = b->next)
            r->key_twice |= a->string && b->string && strcmp(a->string, b->string) == 0;
    cJSON_Delete(lax);
}

static bool raw_read_entry(struct raw_tensor *t, struct cursor *c)
{
    t->name_len = cursor_u16(c);
    t->name = (const char *)cursor_take(c, t->name_len);
    t->dtype = cursor_u8(c);
    unsigned n_dim = cursor_u8(c);
    t->n = 1;
    for (unsigned d = 0; d < n_dim && !c->bad; d++)
        if (__builtin_mul_overflow(t->n, cursor_u64(c), &t->n))
            t->n = UINT64_MAX;
    cursor_u64(c); /* offset */
    t->size = cursor_u64(c);
    return !c->bad;
}

static void raw_read_index(struct raw_apr *r, struct source *src)
{
    uint64_t len = r->index_off < r->size ? r->size - r->index_off : 0;
    if (r->data_off > r->index_off && r->data_off - r->index_off < len)
        len = r->data_off - r->index_off;
    if (len > MAX_READ)
        len = MAX_READ;
    if (r->n_tensor > len / 20) { /* not even empty names would fit */
        r->index_past_end = true;
        r->n_tensor = (uint32_t)(len / 20);
    }
    r->index = malloc(len ? (size_t)len : 1);
    r->t = calloc((size_t)r->n_tensor + 1, sizeof *r->t);
    if (!r->index || !r->t || source_read(src, r->index, r->index_off, (size_t)len, NULL) < 0) {
        r->index_past_end = true;
        return;
    }
    struct cursor c = cursor_over(r->index, (size_t)len);
    while (r->n_read < r->n_tensor && raw_read_entry(&r->t[r->n_read], &c)) {
        struct raw_tensor *t = &r->t[r->n_read];
        if (r->n_read > 0 && tool_name_cmp((struct gguf_str){t[-1].name, t[-1].name_len},
                                           (struct gguf_str){t->name, t->name_len}) > 0)
            r->unsorted = true;
        r->n_read++;
    }
    r->index_past_end |= r->n_read < r->n_tensor;
}

static void raw_read(struct raw_apr *r, struct source *src)
{
    *r = (struct raw_apr){.size = source_size(src)};
    if (r->size < APR_HEADER_SIZE || source_read(src, r->head, 0, APR_HEADER_SIZE, NULL) < 0)
        return;
    r->flags = load_u16(r->head + 6);
    r->n_tensor = load_u32(r->head + 8);
    r->meta_off = load_u64(r->head + 12);
    r->meta_size = load_u32(r->head + 20);
    r->index_off = load_u64(r->head + 24);
    r->data_off = load_u64(r->head + 32);
    raw_read_meta(r, src);
    raw_read_index(r, src);
}

static void raw_release(struct raw_apr *r)
{
    cJSON_Delete(r->meta);
    free(r->meta_text);
    free(r->index);
    free(r->t);
}

/* What reader takes dtype for (apr-v2.md 5). */
static uint32_t reading(enum reader reader, const struct raw_tensor *t)
{
    uint8_t d = t->dtype;
    if (d == 0 || d == 1 || d == 12 || d == 14)
        return d;
    if (reader == FEB || reader == MID) {
        if (d == 2)
            return reader == FEB ? QUANT_BF16 : REFUSES;
        if (d >= 3 && d <= 7)
            return d == 3   ? QUANT_F64
                   : d == 6 ? QUANT_I8
                   : d == 4 ? QUANT_I32
                   : d == 5 ? QUANT_I64
                            : TAKES_OTHER;
        if (d == 8)
            return APR_TYPE_OWN_Q4;
        if (d == 9)
            return APR_TYPE_OWN_Q8;
        if (reader == MID && (d == 30 || d == APR_DTYPE_Q4 || d == APR_DTYPE_Q8))
            return d == 30 ? QUANT_BF16 : d == APR_DTYPE_Q4 ? APR_TYPE_OWN_Q4 : APR_TYPE_OWN_Q8;
        return REFUSES;
    }
    if (d == 2 || d == 3 || d == 6 || d == 7 || d == 30)
        return d;
    if (reader == F32_LOADER) {
        if (d == 13)
            return QUANT_Q4_K;
        if (d == 8)
            return t->size == (t->n / 32 + (t->n % 32 != 0)) * 34 ? QUANT_Q8_0 : APR_TYPE_OWN_Q4;
        return d == 9 ? APR_TYPE_OWN_Q8 : QUANT_F32;
    }
    if (d == 10 || d == 11 || d == 13 || d == 16 || d == 17)
        return d;
    if (d == 8 || d == APR_DTYPE_Q4)
        return APR_TYPE_OWN_Q4;
    if (d == 9 || d == APR_DTYPE_Q8)
        return APR_TYPE_OWN_Q8;
    return QUANT_F32; /* with a warning */
}

static bool raw_is(const struct raw_tensor *t, const char *name)
{
    return t->name_len == strlen(name) && memcmp(t->name, name, t->name_len) == 0;
}

static bool raw_ends(const struct raw_tensor *t, const char *end)
{
    size_t n = strlen(end);
    return t->name_len >= n && memcmp(t->name + t->name_len - n, end, n) == 0;
}

/* The norms that from_apr reads as raw F32 whatever their dtype says (apr-v2.md 7). */
static bool is_norm(const struct raw_tensor *t)
{
    static const char *const end[] = {
        "norm.weight",
        "layernorm.weight",
    };
    for (size_t i = 0; i < sizeof end / sizeof end[0]; i++)
        if (raw_ends(t, end[i]))
            return true;
    return false;
}

static void add_wrong(struct reader_verdict *v, const struct raw_tensor *t)
{
    if (v->n_wrong == v->cap) {
        size_t cap = v->cap ? 2 * v->cap : 16;
        char **p = realloc(v->wrong, cap * sizeof *p);
        if (!p) {
            v->no_memory = true;
            return;
        }
        v->wrong = p;
        v->cap = cap;
    }
    char *name = tool_escape((struct gguf_str){t->name, t->name_len});
    v->no_memory |= !name;
    if (name)
        v->wrong[v->n_wrong++] = name;
}

/* Compares the reader's reading with what the bytes are, which only our own reader knows. */
static void judge_tensors(struct reader_verdict *v, enum reader reader, const struct raw_apr *r,
                          const struct apr *a)
{
    for (size_t i = 0; i < r->n_read; i++) {
        const struct raw_tensor *t = &r->t[i];
        uint32_t takes = reading(reader, t);
        if (takes == REFUSES) {
            char *name = tool_escape((struct gguf_str){t->name, t->name_len});
            refuse(v, "dtype %u of tensor '%.80s' is not one it knows", t->dtype, name ? name : "");
            free(name);
            continue;
        }
        if (!a)
            continue;
        /* apr_open keeps the index's order, so entry i is entry i; checked by name all the same */
        const struct apr_tensor *real = i < apr_n_tensor(a) ? apr_tensor(a, i) : NULL;
        if (!real || !raw_is(t, real->name))
            continue;
        if (takes != real->type || (reader == QUANTIZED && is_norm(t) && real->type != QUANT_F32))
            add_wrong(v, t);
    }
}

static const char *const want_int[] = {
    "total_size",
    "param_count",
    "hidden_size",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "vocab_size",
    "intermediate_size",
    "max_position_embeddings",
    "rope_type",
    "head_dim",
    "num_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
};
static const char *const want_text[] = {
    "name",       "description",   "author",      "license",      "version",         "source",
    "created_at", "chat_template", "chat_format", "architecture", "original_format",
};

/* aprender's typed metadata: the first key it would refuse, or NULL (apr-v2.md 3, 3.1). */
static const char *mistyped(const cJSON *meta)
{
    uint64_t u;
    double d;
    for (size_t i = 0; i < sizeof want_int / sizeof want_int[0]; i++) {
        const cJSON *m = json_get(meta, want_int[i]);
        if (m && !cJSON_IsNull(m) && !json_uint(m, &u))
            return want_int[i];
    }
    for (size_t i = 0; i < sizeof want_text / sizeof want_text[0]; i++) {
        const cJSON *m = json_get(meta, want_text[i]);
        if (m && !cJSON_IsNull(m) && !json_text(m))
            return want_text[i];
    }
    static const char *const num[] = {"rope_theta", "rms_norm_eps"};
    for (size_t i = 0; i < 2; i++) {
        const cJSON *m = json_get(meta, num[i]);
        if (m && !cJSON_IsNull(m) && !json_num(m, &d))
            return num[i];
    }
    const cJSON *mt = json_get(meta, "model_type");
    if (mt && !json_text(mt))
        return "model_type";
    const cJSON *q = json_get(meta, "quantization");
    bool b;
    if (q && !cJSON_IsNull(q) &&
        (!json_text(json_get(q, "quant_type")) || !json_uint(json_get(q, "bits"), &u) || u > 255 ||
         !json_bool(json_get(q, "symmetric"), &b)))
        return "quantization";
    return NULL;
}

static void judge_aprender(struct reader_verdict *v, enum reader reader, const struct raw_apr *r,
                           const struct apr *a)
{
    if (r->size < APR_HEADER_SIZE)
        refuse(v, "shorter than a header");
    else if (memcmp(r->head, APR_MAGIC, 4) != 0)
        refuse(v, "magic");
    else if (load_u32(r->head + 40) != crc32_apr_header(r->head))
        refuse(v, "header CRC");
    if (r->flags & APR_FLAG_COLUMN_MAJOR)
        refuse(v, "column-major flag");
    if (r->meta_past_end)
        refuse(v, "metadata past the end of the file");
    if (!r->meta && !(r->key_twice && reader == MID))
        refuse(v, r->key_twice ? "a metadata key twice" : "metadata is not JSON");
    if (r->meta && !cJSON_IsObject(r->meta))
        refuse(v, "metadata is no object");
    const char *bad = r->meta ? mistyped(r->meta) : NULL;
    if (bad)
        refuse(v, "metadata key '%s' has the wrong type", bad);
    if (r->index_past_end)
        refuse(v, "index ends early");
    if (r->unsorted)
        refuse(v, "index is not sorted");
    judge_tensors(v, reader, r, a);
}

/* Spellings of one value: exactly one may stand in the metadata, else it is all taken for empty. */
static const struct {
    const char *key;
    bool needed;
    const char *alias[4];
} model_key[] = {
    {"architecture", true, {NULL}},
    {"hidden_size", true, {"hidden_dim", "d_model", "n_embd"}},
    {"num_layers", true, {"n_layers", "num_hidden_layers", "n_layer"}},
    {"num_heads", true, {"n_heads", "num_attention_heads", "n_head"}},
    {"intermediate_size", true, {"ffn_dim", "intermediate_dim", "n_inner"}},
    {"num_kv_heads", false, {"n_kv_heads", "num_key_value_heads"}},
    {"vocab_size", false, {"n_vocab"}},
    {"max_position_embeddings", false, {"max_seq_len", "context_length", "n_ctx"}},
    {"rms_norm_eps", false, {"layer_norm_eps", "norm_eps"}},
};

static const cJSON *model_value(const cJSON *meta, size_t i, int *n_spelling)
{
    const cJSON *found = json_get(meta, model_key[i].key);
    *n_spelling = found != NULL;
    for (int k = 0; k < 4 && model_key[i].alias[k]; k++) {
        const cJSON *m = json_get(meta, model_key[i].alias[k]);
        *n_spelling += m != NULL;
        found = found ? found : m;
    }
    return found;
}

static bool has_tensor(const struct raw_apr *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static bool has_tensor(const struct raw_apr *r, const char *fmt, ...)
{
    char name[160];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    struct gguf_str want = {name, strlen(name)};
    size_t lo = 0, hi = r->n_read; /* by bisection: hostile files have many tensors and layers */
    while (!r->unsorted && lo < hi) {
        size_t mid = (lo + hi) / 2;
        int c = tool_name_cmp((struct gguf_str){r->t[mid].name, r->t[mid].name_len}, want);
        if (c == 0)
            return true;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (size_t i = 0; r->unsorted && i < r->n_read; i++)
        if (raw_is(&r->t[i], name))
            return true;
    return false;
}

static bool has_embedding(const struct raw_apr *r)
{
    static const char *const part[] = {"embed_tokens", "tok_embeddings", "token_embd"};
    for (size_t i = 0; i < r->n_read; i++)
        for (size_t k = 0; k < 3; k++)
            if (memmem(r->t[i].name, r->t[i].name_len, part[k], strlen(part[k])))
                return true;
    return false;
}

static void judge_layers(struct reader_verdict *v, const struct raw_apr *r, uint64_t n_layer)
{
    static const struct {
        const char *hf, *gguf;
    } role[] = {
        {"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
        {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
        {"self_attn.o_proj", "attn_output"}, {"mlp.up_proj", "ffn_up"},
        {"mlp.down_proj", "ffn_down"},
    };
    for (uint64_t l = 0; l < n_layer && l < r->n_read && !v->refused[0]; l++)
        for (size_t i = 0; i < sizeof role / sizeof role[0]; i++)
            if (!has_tensor(r, "model.layers.%" PRIu64 ".%s.weight", l, role[i].hf) &&
                !has_tensor(r, "blk.%" PRIu64 ".%s.weight", l, role[i].gguf))
                refuse(v, "tensor not found: blk.%" PRIu64 ".%s.weight", l, role[i].gguf);
}

/* from_apr: metadata C-01 and C-03, dimensions, then tensors by name (apr-v2.md 7 and 9.2). */
static void judge_model(struct reader_verdict *v, const struct raw_apr *r)
{
    uint64_t value[sizeof model_key / sizeof model_key[0]] = {0};
    if (!r->meta || !cJSON_IsObject(r->meta))
        refuse(v, "missing architecture (its parser takes this metadata for empty)");
    for (size_t i = 0; r->meta && i < sizeof model_key / sizeof model_key[0]; i++) {
        int n;
        const cJSON *m = model_value(r->meta, i, &n);
        if (n > 1)
            refuse(v, "two spellings of '%s': it takes the metadata for empty", model_key[i].key);
        if (model_key[i].needed && (!m || cJSON_IsNull(m)))
            refuse(v, "missing %s", model_key[i].key);
        json_uint(m, &value[i]);
    }
    uint64_t hidden = value[1], heads = value[3], kv = value[5] ? value[5] : heads;
    if (!hidden || !value[2] || !heads || !value[4])
        refuse(v, "a dimension is zero");
    else if (hidden % heads != 0 || kv > heads)
        refuse(v, "dimensions: hidden %" PRIu64 ", heads %" PRIu64 ", kv heads %" PRIu64, hidden,
               heads, kv);
    if (!has_embedding(r))
        refuse(v, "tensor not found: token_embd.weight");
    if (!has_tensor(r, "model.norm.weight") && !has_tensor(r, "output_norm.weight"))
        refuse(v, "tensor not found: output_norm.weight");
    if (!has_tensor(r, "lm_head.weight") && !has_tensor(r, "output.weight"))
        refuse(v, "tensor not found: output.weight");
    judge_layers(v, r, value[2]);
}

static void note(struct reader_verdict *v, const char *text)
{
    size_t at = strlen(v->note);
    snprintf(v->note + at, sizeof v->note - at, "%s%s", at ? "; " : "", text);
}

/* What a reader computes otherwise although it reads every byte right (apr-v2.md 3.2,
 * arch-resolver.md 2). */
static void judge_notes(struct reader_verdict *v, enum reader reader, const struct raw_apr *r)
{
    uint64_t rope = 0, hidden = 0, heads = 0, head_dim = 0;
    const char *arch = json_text(json_get(r->meta, "architecture"));
    if (reader == QUANTIZED && arch && strncmp(arch, "gemma3", 6) == 0)
        note(v, "aprender-serve's contract refuses gemma3");
    if (reader != F32_LOADER)
        return;
    if (!json_uint(json_get(r->meta, "rope_type"), &rope) || rope != 2)
        note(v, "rotates split halves whatever rope_type says");
    if (json_uint(json_get(r->meta, "hidden_size"), &hidden) &&
        json_uint(json_get(r->meta, "num_heads"), &heads) &&
        json_uint(json_get(r->meta, "head_dim"), &head_dim) && hidden != heads * head_dim)
        note(v, "takes hidden_size / num_heads for the head size");
    if (has_tensor(r, "blk.0.attn_q_norm.weight") ||
        has_tensor(r, "model.layers.0.self_attn.q_norm.weight"))
        note(v, "never loads q and k norms");
}

static void judge_realizar(struct reader_verdict *v, enum reader reader, const struct raw_apr *r,
                           const struct apr *a)
{
    if (r->size < APR_HEADER_SIZE)
        refuse(v, "shorter than a header");
    else if (memcmp(r->head, APR_MAGIC, 4) != 0 &&
             !(reader == V2MODEL && memcmp(r->head, "APR2", 4) == 0))
        refuse(v, "magic");
    if (reader == V2MODEL && r->flags & APR_FLAG_ENCRYPTED)
        refuse(v, "encrypted flag");
    if (reader == V2MODEL && r->flags & (APR_FLAG_LZ4 | APR_FLAG_ZSTD))
        refuse(v, "compression flag");
    if (r->meta_past_end)
        refuse(v, "metadata past the end of the file");
    if (r->data_off <= r->index_off || r->data_off > r->size)
        refuse(v, "no tensors: data does not follow the index inside the file");
    if (reader == QUANTIZED)
        judge_model(v, r);
    judge_tensors(v, reader, r, a);
    judge_notes(v, reader, r);
}

void readers_judge(struct reader_verdict *v, struct source *src, const struct apr *a,
                   const char *refused)
{
    static const char *const name[TOOL_N_READER] = {"aprender-feb", "aprender-mid", "AprV2Model",
                                                    "quantized",    "f32-loader",   "aprd"};
    struct raw_apr r;
    raw_read(&r, src);
    for (int i = 0; i < TOOL_N_READER; i++) {
        v[i] = (struct reader_verdict){.name = name[i]};
        if (i == FEB || i == MID)
            judge_aprender(&v[i], (enum reader)i, &r, a);
        else if (i != APRD)
            judge_realizar(&v[i], (enum reader)i, &r, a);
        else if (!a)
            refuse(&v[i], "%s", refused);
    }
    raw_release(&r);
}

void readers_release(struct reader_verdict *v)
{
    for (int i = 0; i < TOOL_N_READER; i++) {
        for (size_t k = 0; k < v[i].n_wrong; k++)
            free(v[i].wrong[k]);
        free(v[i].wrong);
        v[i] = (struct reader_verdict){0};
    }
}
