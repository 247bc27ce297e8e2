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
    if (!j->r->meta_past_end && j->r->size >= APR_HEADER_SIZE && j->r->not_json)
        judge_found(j, "metadata is no JSON object");
}

enum want {
    WANT_UINT,
    WANT_U32,
    WANT_FLOAT,
    WANT_TEXT,
    WANT_BOOL,
};

#define APRENDER (1U << READER_FEB | 1U << READER_MID)
#define REALIZAR                                                                                   \
    (1U << READER_V2MODEL | 1U << READER_MAPPED | 1U << READER_QUANTIZED |                         \
     1U << READER_SERVE_MID | 1U << READER_CUDA)
#define OF_MID (1U << READER_MID)

/* Fields with a type: to whom, and the names that realizar takes as well as the first. */
static const struct field {
    const char *key;
    enum want want;
    unsigned readers;
    bool no_null; /* to aprender: no option, only left out */
    const char *alias[4];
} field[] = {
    {"model_type", WANT_TEXT, APRENDER | REALIZAR, true, {0}},
    {"name", WANT_TEXT, APRENDER | REALIZAR, false, {0}},
    {"architecture", WANT_TEXT, APRENDER | REALIZAR, false, {0}},
    {"hidden_size", WANT_UINT, APRENDER | REALIZAR, false, {"hidden_dim", "d_model", "n_embd"}},
    {"num_layers",
     WANT_UINT,
     APRENDER | REALIZAR,
     false,
     {"n_layers", "num_hidden_layers", "n_layer"}},
    {"num_heads",
     WANT_UINT,
     APRENDER | REALIZAR,
     false,
     {"n_heads", "num_attention_heads", "n_head"}},
    {"num_kv_heads", WANT_UINT, APRENDER | REALIZAR, false, {"n_kv_heads", "num_key_value_heads"}},
    {"vocab_size", WANT_UINT, APRENDER | REALIZAR, false, {"n_vocab"}},
    {"intermediate_size",
     WANT_UINT,
     APRENDER | REALIZAR,
     false,
     {"ffn_dim", "intermediate_dim", "n_inner"}},
    {"max_position_embeddings",
     WANT_UINT,
     APRENDER | REALIZAR,
     false,
     {"max_seq_len", "context_length", "n_ctx"}},
    {"rope_theta", WANT_FLOAT, APRENDER | REALIZAR, false, {0}},
    {"rope_type", WANT_U32, APRENDER | REALIZAR, false, {0}},
    {"rms_norm_eps", WANT_FLOAT, APRENDER | REALIZAR, false, {"layer_norm_eps", "norm_eps"}},
    {"total_size", WANT_UINT, APRENDER, true, {0}},
    {"param_count", WANT_UINT, APRENDER, true, {0}},
    {"description", WANT_TEXT, APRENDER, false, {0}},
    {"author", WANT_TEXT, APRENDER, false, {0}},
    {"license", WANT_TEXT, APRENDER, false, {0}},
    {"version", WANT_TEXT, APRENDER, false, {0}},
    {"source", WANT_TEXT, APRENDER, false, {0}},
    {"original_format", WANT_TEXT, APRENDER, false, {0}},
    {"created_at", WANT_TEXT, APRENDER, false, {0}},
    {"chat_template", WANT_TEXT, APRENDER, false, {0}},
    {"chat_format", WANT_TEXT, APRENDER, false, {0}},
    {"data_source", WANT_TEXT, OF_MID, false, {0}},
    {"data_license", WANT_TEXT, OF_MID, false, {0}},
    {"head_dim", WANT_UINT, OF_MID, false, {0}},
    {"num_experts", WANT_UINT, OF_MID | 1U << READER_SERVE_MID, false, {0}},
    {"num_experts_per_tok", WANT_UINT, OF_MID | 1U << READER_SERVE_MID, false, {0}},
    {"moe_intermediate_size", WANT_UINT, OF_MID | 1U << READER_SERVE_MID, false, {0}},
    {"norm_topk_prob", WANT_BOOL, 1U << READER_SERVE_MID, false, {0}},
};
#define N_FIELD (sizeof field / sizeof field[0])

static bool fits(const struct raw_apr *r, const cJSON *m, enum want want)
{
    uint64_t u;
    double d;
    bool b;
    if (!m || cJSON_IsNull(m))
        return true;
    switch (want) {
    case WANT_UINT:
        return raw_uint(r, m, &u);
    case WANT_U32:
        return raw_uint(r, m, &u) && u <= UINT32_MAX;
    case WANT_FLOAT:
        return json_num(m, &d);
    case WANT_BOOL:
        return json_bool(m, &b);
    default:
        return json_text(m) != NULL;
    }
}

/* A key that is there twice is an error to those who read into their fields at once; aprender-mid
 * goes through a tree first, where the last one stays. */
static const cJSON *declared(const struct judge *j, const cJSON *obj, const char *key, bool *twice)
{
    const cJSON *found = json_get(obj, key);
    bool again = found && raw_twice(obj, key);
    *twice |= again && j->reader != READER_MID;
    for (const cJSON *m = again ? found->next : NULL; m && j->reader == READER_MID; m = m->next)
        found = strcmp(m->string, key) == 0 ? m : found;
    return found;
}

/* A member of one of the objects that aprender types. */
static bool bad_member(const struct judge *j, const cJSON *obj, const char *key, enum want want,
                       bool must)
{
    bool twice = false;
    const cJSON *m = declared(j, obj, key, &twice);
    return twice || (must && (!m || cJSON_IsNull(m))) || !fits(j->r, m, want);
}

/* Objects with members that must be there. */
static const char *bad_object(const struct judge *j)
{
    static const struct {
        const char *object, *key;
        enum want want;
        bool must;
    } member[] = {
        {"quantization", "quant_type", WANT_TEXT, true},
        {"quantization", "bits", WANT_UINT, true},
        {"quantization", "symmetric", WANT_BOOL, true},
        {"quantization", "block_size", WANT_UINT, false},
        {"sharding", "shard_count", WANT_UINT, true},
        {"sharding", "shard_index", WANT_UINT, true},
        {"sharding", "total_size", WANT_UINT, true},
        {"sharding", "pattern", WANT_TEXT, false},
        {"special_tokens", "bos_token", WANT_TEXT, false},
        {"special_tokens", "eos_token", WANT_TEXT, false},
        {"special_tokens", "unk_token", WANT_TEXT, false},
        {"special_tokens", "pad_token", WANT_TEXT, false},
        {"special_tokens", "im_start_token", WANT_TEXT, false},
        {"special_tokens", "im_end_token", WANT_TEXT, false},
    };
    for (size_t i = 0; i < sizeof member / sizeof member[0]; i++) {
        bool twice = false;
        const cJSON *o = declared(j, j->r->meta, member[i].object, &twice);
        if (twice)
            return member[i].object;
        uint64_t bits = 0;
        if (!o || cJSON_IsNull(o))
            continue;
        if (!cJSON_IsObject(o) || bad_member(j, o, member[i].key, member[i].want, member[i].must))
            return member[i].object;
        if (strcmp(member[i].key, "bits") == 0 && raw_uint(j->r, json_get(o, "bits"), &bits) &&
            bits > UINT8_MAX)
            return member[i].object;
    }
    return NULL;
}

void check_metadata_type(struct judge *j)
{
    const char *bad = NULL;
    for (size_t i = 0; j->r->meta && i < N_FIELD && !bad; i++) {
        const struct field *f = &field[i];
        bool twice = false;
        if (!(f->readers & 1U << j->reader))
            continue;
        const cJSON *m = declared(j, j->r->meta, f->key, &twice);
        if (twice) {
            judge_found(j, "metadata key '%s' stands there twice", f->key);
            return;
        }
        if (!fits(j->r, m, f->want) || (f->no_null && cJSON_IsNull(m)))
            bad = f->key;
    }
    if (j->r->meta && !bad)
        bad = bad_object(j);
    if (bad)
        judge_found(j, "metadata key '%s' has another type than it declares", bad);
}

const cJSON *metadata_value(const struct raw_apr *r, const char *key)
{
    const cJSON *m = json_get(r->meta, key);
    for (size_t i = 0; !m && i < N_FIELD; i++)
        for (int k = 0; !m && strcmp(field[i].key, key) == 0 && k < 4 && field[i].alias[k]; k++)
            m = json_get(r->meta, field[i].alias[k]);
    return m;
}

bool metadata_is_empty(const struct raw_apr *r, enum reader reader, char why[160])
{
    if (r->not_json) {
        snprintf(why, 160, "metadata is no JSON object");
        return true;
    }
    for (size_t i = 0; i < N_FIELD; i++) {
        const struct field *f = &field[i];
        if (!(f->readers & 1U << reader))
            continue;
        int n = 0;
        bool bad = false;
        for (int k = -1; k < 4 && (k < 0 || f->alias[k]); k++) {
            const char *key = k < 0 ? f->key : f->alias[k];
            const cJSON *m = json_get(r->meta, key);
            n += m != NULL;
            bad |= m && (!fits(r, m, f->want) || raw_twice(r->meta, key));
        }
        if (n > 1 || bad) {
            snprintf(why, 160,
                     n > 1 ? "two spellings of '%s'" : "'%s' is of another type or there twice",
                     f->key);
            return true;
        }
    }
    return false;
}

void check_metadata_empty(struct judge *j)
{
    char why[160];
    if (!j->r->meta_past_end && j->r->size >= APR_HEADER_SIZE &&
        metadata_is_empty(j->r, j->reader, why))
        judge_found(j, "takes the metadata for empty: %s", why);
}

/* aprender reads entries on into the data, realizar up to it. */
static size_t n_entry(const struct judge *j)
{
    return APRENDER & 1U << j->reader ? j->r->n_all : j->r->n_read;
}

void check_index_bounds(struct judge *j)
{
    const struct raw_apr *r = j->r;
    size_t n = n_entry(j);
    if (r->size < APR_HEADER_SIZE || n >= r->n_tensor)
        return;
    if (r->index_off > r->size)
        judge_found(j, j->reader == READER_FEB ? "panics: the index begins past the end of the file"
                                               : "the index begins past the end of the file");
    else
        judge_found(j, "only %zu entries of the index can be read%s, not %" PRIu32, n,
                    r->clipped && n == r->n_all ? " in its first 256 MiB" : "", r->n_tensor);
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
    /* Where entries are missing, those behind the last that realizar reads are no tensors. */
    size_t n = n_entry(j) < r->n_tensor ? r->n_read : n_entry(j);
    for (size_t i = 0; i < n; i++)
        if (r->t[i].off > room || r->t[i].size > room - r->t[i].off)
            judge_tensor(j, &r->t[i], "cannot reach '%.80s': it ends past the end of the file");
}
