/* Rules about the file: header, metadata as JSON, index, dtype bytes. */
#include "format/readers_internal.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

void check_size(struct judge *j)
{
    if (j->r->size < APR_HEADER_SIZE)
        judge_found(j, "%" PRIu64 " bytes, a header has 64", j->r->size);
}

void check_magic(struct judge *j)
{
    const uint8_t *h = j->r->head;
    bool apr2 = (j->reader == READER_V2MODEL || j->reader == READER_CUDA) && !memcmp(h, "APR2", 4);
    if (j->r->size >= APR_HEADER_SIZE && memcmp(h, APR_MAGIC, 4) != 0 && !apr2)
        judge_found(j, "magic %02x %02x %02x %02x", h[0], h[1], h[2], h[3]);
}

void check_header_crc(struct judge *j)
{
    uint32_t has = load_u32(j->r->head + 40), want = crc32_apr_header(j->r->head);
    if (j->r->size >= APR_HEADER_SIZE && has != want)
        judge_found(j, "header CRC is %08" PRIx32 ", should be %08" PRIx32, has, want);
}

void check_column_major(struct judge *j)
{
    if (j->r->flags & APR_FLAG_COLUMN_MAJOR)
        judge_found(j, "the column-major flag is set");
}

void check_encrypted(struct judge *j)
{
    if (j->r->flags & APR_FLAG_ENCRYPTED)
        judge_found(j, "the encrypted flag is set");
}

void check_compressed(struct judge *j)
{
    if (j->r->flags & (APR_FLAG_LZ4 | APR_FLAG_ZSTD))
        judge_found(j, "a compression flag is set");
}

void check_metadata_bounds(struct judge *j)
{
    if (j->r->meta_past_end)
        judge_found(j, "metadata ends past the file's %" PRIu64 " bytes", j->r->size);
}

void check_metadata_json(struct judge *j)
{
    if (j->r->meta_past_end || j->r->size < APR_HEADER_SIZE)
        return;
    if (j->r->not_json)
        judge_found(j, "metadata is no JSON object");
    else if (j->r->twice[0] && j->reader == READER_FEB)
        judge_found(j, "metadata key '%.40s' stands there twice", j->r->twice);
}

enum want {
    WANT_UINT,
    WANT_FLOAT,
    WANT_TEXT,
};

/* Typed fields, and the names that realizar takes as well as the first. */
static const struct field {
    const char *key;
    enum want want;
    bool realizar; /* typed there, too */
    const char *alias[4];
} field[] = {
    {"name", WANT_TEXT, true, {0}},
    {"architecture", WANT_TEXT, true, {0}},
    {"hidden_size", WANT_UINT, true, {"hidden_dim", "d_model", "n_embd"}},
    {"num_layers", WANT_UINT, true, {"n_layers", "num_hidden_layers", "n_layer"}},
    {"num_heads", WANT_UINT, true, {"n_heads", "num_attention_heads", "n_head"}},
    {"num_kv_heads", WANT_UINT, true, {"n_kv_heads", "num_key_value_heads"}},
    {"vocab_size", WANT_UINT, true, {"n_vocab"}},
    {"intermediate_size", WANT_UINT, true, {"ffn_dim", "intermediate_dim", "n_inner"}},
    {"max_position_embeddings", WANT_UINT, true, {"max_seq_len", "context_length", "n_ctx"}},
    {"rope_theta", WANT_FLOAT, true, {0}},
    {"rope_type", WANT_UINT, true, {0}},
    {"rms_norm_eps", WANT_FLOAT, true, {"layer_norm_eps", "norm_eps"}},
    {"total_size", WANT_UINT, false, {0}},
    {"param_count", WANT_UINT, false, {0}},
    {"description", WANT_TEXT, false, {0}},
    {"author", WANT_TEXT, false, {0}},
    {"license", WANT_TEXT, false, {0}},
    {"version", WANT_TEXT, false, {0}},
    {"source", WANT_TEXT, false, {0}},
    {"original_format", WANT_TEXT, false, {0}},
    {"created_at", WANT_TEXT, false, {0}},
    {"chat_template", WANT_TEXT, false, {0}},
    {"chat_format", WANT_TEXT, false, {0}},
};
/* Of June 2026: further fields that aprender types. */
static const struct field field_mid[] = {
    {"data_source", WANT_TEXT, false, {0}},
    {"data_license", WANT_TEXT, false, {0}},
    {"head_dim", WANT_UINT, false, {0}},
    {"num_experts", WANT_UINT, false, {0}},
    {"num_experts_per_tok", WANT_UINT, false, {0}},
    {"moe_intermediate_size", WANT_UINT, false, {0}},
};
#define N_FIELD (sizeof field / sizeof field[0])

static bool fits(const cJSON *m, enum want want)
{
    uint64_t u;
    double d;
    return !m || cJSON_IsNull(m) ||
           (want == WANT_UINT    ? json_uint(m, &u)
            : want == WANT_FLOAT ? json_num(m, &d)
                                 : json_text(m) != NULL);
}

static bool is_uint(const cJSON *o, const char *key)
{
    uint64_t u;
    return json_uint(json_get(o, key), &u);
}

/* Optional objects with members that must be there. */
static const char *bad_object(const cJSON *meta)
{
    uint64_t u;
    bool b;
    const cJSON *q = json_get(meta, "quantization");
    if (q && !cJSON_IsNull(q) &&
        (!json_text(json_get(q, "quant_type")) || !json_uint(json_get(q, "bits"), &u) || u > 255 ||
         !json_bool(json_get(q, "symmetric"), &b) || !fits(json_get(q, "block_size"), WANT_UINT)))
        return "quantization";
    const cJSON *s = json_get(meta, "sharding");
    if (s && !cJSON_IsNull(s) &&
        (!is_uint(s, "shard_count") || !is_uint(s, "shard_index") || !is_uint(s, "total_size") ||
         !fits(json_get(s, "pattern"), WANT_TEXT)))
        return "sharding";
    static const char *const token[] = {"bos_token", "eos_token",      "unk_token",
                                        "pad_token", "im_start_token", "im_end_token"};
    const cJSON *t = json_get(meta, "special_tokens");
    if (t && !cJSON_IsNull(t)) {
        if (!cJSON_IsObject(t))
            return "special_tokens";
        for (size_t i = 0; i < sizeof token / sizeof token[0]; i++)
            if (!fits(json_get(t, token[i]), WANT_TEXT))
                return "special_tokens";
    }
    return NULL;
}

void check_metadata_type(struct judge *j)
{
    const cJSON *meta = j->r->meta;
    const char *bad = NULL;
    if (!meta)
        return;
    for (size_t i = 0; i < N_FIELD && !bad; i++)
        if (!fits(json_get(meta, field[i].key), field[i].want))
            bad = field[i].key;
    for (size_t i = 0;
         j->reader == READER_MID && i < sizeof field_mid / sizeof field_mid[0] && !bad; i++)
        if (!fits(json_get(meta, field_mid[i].key), field_mid[i].want))
            bad = field_mid[i].key;
    const cJSON *mt = json_get(meta, "model_type"); /* no option: null is an error, too */
    if (!bad && mt && !json_text(mt))
        bad = "model_type";
    if (!bad)
        bad = bad_object(meta);
    if (bad)
        judge_found(j, "metadata key '%s' has another type than it declares", bad);
}

const cJSON *metadata_value(const struct raw_apr *r, const char *key)
{
    for (size_t i = 0; i < N_FIELD; i++) {
        if (strcmp(field[i].key, key) != 0)
            continue;
        const cJSON *m = json_get(r->meta, key);
        for (int k = 0; !m && k < 4 && field[i].alias[k]; k++)
            m = json_get(r->meta, field[i].alias[k]);
        return m;
    }
    return json_get(r->meta, key);
}

bool metadata_is_empty(const struct raw_apr *r, char why[160])
{
    if (r->not_json) {
        snprintf(why, 160, "metadata is no JSON object");
        return true;
    }
    for (size_t i = 0; i < N_FIELD; i++) {
        const struct field *f = &field[i];
        if (!f->realizar)
            continue;
        const cJSON *m = json_get(r->meta, f->key);
        int n = m != NULL;
        bool bad = !fits(m, f->want) || !strcmp(r->twice, f->key);
        for (int k = 0; k < 4 && f->alias[k]; k++) {
            m = json_get(r->meta, f->alias[k]);
            n += m != NULL;
            bad = bad || !fits(m, f->want) || !strcmp(r->twice, f->alias[k]);
        }
        if (n > 1 || bad) {
            snprintf(why, 160,
                     n > 1 ? "two spellings of '%s'" : "'%s' is of another type or there twice",
                     f->key);
            return true;
        }
    }
    if (json_get(r->meta, "model_type") && !fits(json_get(r->meta, "model_type"), WANT_TEXT)) {
        snprintf(why, 160, "'model_type' is no text");
        return true;
    }
    return false;
}

void check_metadata_empty(struct judge *j)
{
    char why[160];
    if (!j->r->meta_past_end && j->r->size >= APR_HEADER_SIZE && metadata_is_empty(j->r, why))
        judge_found(j, "takes the metadata for empty: %s", why);
}

void check_index_bounds(struct judge *j)
{
    const struct raw_apr *r = j->r;
    bool aprender = j->reader == READER_FEB || j->reader == READER_MID;
    size_t n = aprender ? r->n_all : r->n_read;
    if (r->size < APR_HEADER_SIZE || n >= r->n_tensor)
        return;
    if (r->index_off > r->size)
        judge_found(j, j->reader == READER_FEB ? "panics: the index begins past the end of the file"
                                               : "the index begins past the end of the file");
    else
        judge_found(j, "only %zu entries of the index can be read, not %" PRIu32, n, r->n_tensor);
}

/* realizar's TensorEntry: two strings, a vector, two numbers. */
#define ENTRY_BYTES 88
#define MOST_MEMORY ((uint64_t)16 << 30)

void check_tensor_count(struct judge *j)
{
    uint64_t n = (uint64_t)j->r->n_tensor * ENTRY_BYTES;
    if (j->r->size >= APR_HEADER_SIZE && n > MOST_MEMORY)
        judge_found(j,
                    "asks for %" PRIu64 " GiB before it reads an entry: dies where there is less",
                    n >> 30);
}

void check_index_place(struct judge *j)
{
    if (j->r->size >= APR_HEADER_SIZE && j->r->n_tensor > 0 &&
        (j->r->data_off <= j->r->index_off || j->r->data_off > j->r->size))
        judge_found(j, "finds no tensor: the data does not follow the index inside the file");
}

void check_index_sorted(struct judge *j)
{
    if (j->r->unsorted)
        judge_found(j, "the index is not in byte order of names");
}

/* Its own enumeration, which grew: BF16 moved from 2 to 30, Q4 and Q8 also got 128 and 129. */
static uint32_t reading_aprender(enum reader reader, uint8_t d)
{
    bool mid = reader == READER_MID;
    if (d == 30)
        return mid ? QUANT_BF16 : READING_REFUSES;
    if (d == 2 ? mid : d > 9 && !mid)
        return READING_REFUSES;
    uint32_t own = apr_own_type(d);
    return own == UINT32_MAX ? READING_REFUSES : own;
}

uint32_t reading(enum reader reader, const struct raw_tensor *t)
{
    uint8_t d = t->dtype;
    if (d == 0 || d == 1 || d == 12 || d == 14)
        return d;
    if (reader == READER_FEB || reader == READER_MID)
        return reading_aprender(reader, d);
    if (d == 2 || d == 3 || d == 6 || d == 7 || d == 30)
        return d;
    if (reader == READER_F32) {
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

void check_dtype_known(struct judge *j)
{
    for (size_t i = 0; i < j->r->n_all; i++)
        if (reading(j->reader, &j->r->t[i]) == READING_REFUSES) {
            judge_tensor(j, &j->r->t[i], "does not know the dtype of tensor '%.80s'");
            return;
        }
}

/* Against what the bytes are, which only our own reader knows. */
void check_dtype_meaning(struct judge *j)
{
    for (size_t i = 0; j->a && i < j->r->n_read && i < apr_n_tensor(j->a); i++) {
        const struct raw_tensor *t = &j->r->t[i];
        /* apr_open keeps the index's order: entry i is entry i */
        const struct apr_tensor *real = apr_tensor(j->a, i);
        uint32_t takes = reading(j->reader, t);
        if (raw_is(t, real->name) && takes != READING_REFUSES && takes != real->type)
            judge_tensor(j, t, "takes '%.80s' for another type");
    }
}

void check_tensor_bounds(struct judge *j)
{
    const struct raw_apr *r = j->r;
    uint64_t room = r->data_off < r->size ? r->size - r->data_off : 0;
    for (size_t i = 0; i < r->n_read; i++)
        if (r->t[i].off > room || r->t[i].size > room - r->t[i].off)
            judge_tensor(j, &r->t[i], "cannot reach '%.80s': it ends past the end of the file");
}
