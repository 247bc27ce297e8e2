/* apr_read.h: files of both original writers, what a dtype byte means, and every malformed file by
 * name. Sources of expected numbers: the worked example of the APR v2 specification for tiny.apr
 * (64-byte header written by the original aprender writer), the output of the original Q4K
 * converter, block sizes of quant.h's table; the rest stands beside the file that the test builds.
 */
#include "format/apr_read.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/quant.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>
#include <inttypes.h>

/* --- files by hand --- */

struct entry {
    const char *name;
    uint8_t dtype;
    uint8_t n_dim;
    uint64_t dim[9];
    uint64_t off, size;
    uint16_t name_len; /* 0: strlen(name) */
};

struct file {
    const char *meta;
    size_t meta_len; /* 0: strlen(meta) */
    const struct entry *entry;
    uint32_t n_entry, claim; /* claim != 0: tensor_count says so */
    uint16_t flags;
    uint8_t major;        /* 0: 2 */
    uint64_t data_len;    /* zeros behind data_offset */
    uint64_t gap;         /* between index and data */
    const char *crc;      /* "zero", "bad": the header's checksum */
    uint64_t data_off;    /* != 0: the header says so */
    uint64_t meta_off;    /* the same */
    uint64_t index_off;   /* the same */
    uint32_t meta_size;   /* the same */
    const uint8_t *magic; /* the same */
};

static uint8_t *build(const struct file *f, size_t *len)
{
    struct buf b = {0};
    size_t meta_len = f->meta_len ? f->meta_len : strlen(f->meta);
    for (int i = 0; i < 64; i++)
        buf_u8(&b, 0);
    buf_put(&b, f->meta, meta_len);
    buf_pad(&b, 64);
    uint64_t index_off = b.len;
    for (uint32_t i = 0; i < f->n_entry; i++) {
        const struct entry *t = &f->entry[i];
        uint16_t n = t->name_len ? t->name_len : (uint16_t)strlen(t->name);
        buf_u16(&b, n);
        buf_put(&b, t->name, n);
        buf_u8(&b, t->dtype);
        buf_u8(&b, t->n_dim);
        for (int d = 0; d < t->n_dim && d < 9; d++)
            buf_u64(&b, t->dim[d]);
        buf_u64(&b, t->off);
        buf_u64(&b, t->size);
    }
    buf_pad(&b, 64);
    for (uint64_t i = 0; i < f->gap; i++)
        buf_u8(&b, 0);
    uint64_t data_off = b.len;
    for (uint64_t i = 0; i < f->data_len; i++)
        buf_u8(&b, (uint8_t)i);
    memcpy(b.p, f->magic ? f->magic : (const uint8_t *)"APR\0", 4);
    b.p[4] = f->major ? f->major : 2;
    store_u16(b.p + 6, f->flags);
    store_u32(b.p + 8, f->claim ? f->claim : f->n_entry);
    store_u64(b.p + 12, f->meta_off ? f->meta_off : 64);
    store_u32(b.p + 20, f->meta_size ? f->meta_size : (uint32_t)meta_len);
    store_u64(b.p + 24, f->index_off ? f->index_off : index_off);
    store_u64(b.p + 32, f->data_off ? f->data_off : data_off);
    uint32_t crc = crc32_apr_header(b.p);
    if (f->crc)
        crc = strcmp(f->crc, "zero") == 0 ? 0 : crc ^ 1;
    store_u32(b.p + 40, crc);
    *len = b.len;
    return b.p;
}

static struct apr *open_ok(struct source *s)
{
    struct apr *a = NULL;
    struct err e = {0};
    if (apr_open(&a, s, &e) < 0)
        fail_msg("%s", e.msg);
    return a;
}

static uint8_t *fixture(const char *name, size_t *len)
{
    char *path = path_join("tests/data", name);
    uint8_t *p = file_read(path, len);
    if (!p)
        fail_msg("%s cannot be read: run tests from the repository's root", path);
    free(path);
    return p;
}

/* --- the original writers' files --- */

static void apr_open_reads_tiny_of_aprender(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("tiny.apr", &len);
    struct source *s = mem_source(p, len, "tiny.apr");
    struct apr *a = open_ok(s);
    const struct apr_header *h = apr_header(a);
    assert_int_equal(len, 708);
    assert_int_equal(h->major, 2);
    assert_int_equal(h->minor, 0);
    assert_int_equal(h->flags, APR_FLAG_ROW_MAJOR);
    assert_int_equal(h->meta_off, 64);
    assert_int_equal(h->meta_size, 503);
    assert_int_equal(h->index_off, 0x240);
    assert_int_equal(h->data_off, 0x280);
    assert_int_equal(h->crc, 0x5e49b5de);
    assert_int_equal(h->crc_computed, 0x5e49b5de);
    assert_int_equal(apr_n_tensor(a), 1);
    const struct apr_tensor *t = apr_find(a, "w");
    assert_ptr_equal(t, apr_tensor(a, 0));
    assert_int_equal(t->type, QUANT_F32);
    assert_int_equal(t->n_dim, 2);
    assert_int_equal(t->dim[0], 2);
    assert_int_equal(t->dim[1], 2);
    assert_int_equal(t->off, 0x280);
    assert_int_equal(t->size, 16);
    float w[4];
    assert_int_equal(source_read(apr_source(a), w, t->off, sizeof w, NULL), 0);
    for (int i = 0; i < 4; i++)
        assert_true(w[i] == (float)(i + 1));
    assert_string_equal(json_text(json_get(apr_meta(a), "architecture")), "llama");
    assert_memory_equal(apr_meta_text(a), "{\"model_type\":\"x\"", 17);
    assert_null(apr_find(a, "v"));
    assert_null(apr_find(a, "x"));
    assert_null(apr_find(a, ""));
    struct apr_tensor raw;
    assert_false(apr_raw_twin(a, t, &raw));
    /* The footer: CRC-32 of bytes 0 to 0x2bf. */
    assert_int_equal(load_u32(p + 0x2c0), 0x67c3a8c6);
    assert_int_equal(crc32_update(0, p, 0x2c0), 0x67c3a8c6);
    apr_close(a);
    source_close(s);
    free(p);
}

static void apr_open_reads_llama_of_aprender(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("aprender-writer.apr", &len);
    struct source *s = mem_source(p, len, "aprender-writer.apr");
    struct apr *a = open_ok(s);
    assert_int_equal(apr_n_tensor(a), 12);
    const struct apr_tensor *t = apr_find(a, "lm_head.weight");
    assert_int_equal(t->type, QUANT_Q6_K);
    assert_int_equal(t->dim[0], 4);
    assert_int_equal(t->dim[1], 256);
    assert_int_equal(t->size, 4 * 210);
    t = apr_find(a, "model.layers.0.self_attn.k_proj.weight");
    assert_int_equal(t->type, QUANT_Q4_K);
    assert_int_equal(t->size, 128 * 144);
    double eps;
    assert_true(json_num(json_get(apr_meta(a), "rms_norm_eps"), &eps) && (float)eps == 1e-5f);
    apr_close(a);
    source_close(s);
    free(p);
}

/* Header and sizes as the specification's second vector gives them. */
static void apr_open_reads_file_of_converter(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("q4k-converter-output.apr", &len);
    struct source *s = mem_source(p, len, "q4k-converter-output.apr");
    struct apr *a = open_ok(s);
    const struct apr_header *h = apr_header(a);
    assert_int_equal(len, 347712);
    assert_int_equal(h->flags, APR_FLAG_QUANTIZED);
    assert_int_equal(h->n_tensor, 12);
    assert_int_equal(h->meta_size, 749);
    assert_int_equal(h->index_off, 0x340);
    assert_int_equal(h->data_off, 0x600);
    assert_int_equal(h->crc, 0x0b32ecf1);
    assert_int_equal(h->crc_computed, 0x0b32ecf1);
    const struct apr_tensor *t = apr_find(a, "blk.0.ffn_down.weight");
    assert_int_equal(t->type, QUANT_Q4_K);
    assert_int_equal(t->dim[0], 256);
    assert_int_equal(t->dim[1], 512);
    assert_int_equal(t->off, 0x600 + 111616);
    assert_int_equal(apr_find(a, "output.weight")->type, QUANT_Q6_K);
    assert_int_equal(apr_find(a, "token_embd.weight")->size, 32 * 144);
    apr_close(a);
    source_close(s);
    free(p);
}

static void apr_open_reads_no_byte_past_any_cut_of_tiny(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("tiny.apr", &len);
    for (size_t n = 0; n <= len; n++) {
        uint8_t *g = guard_new(p, n);
        struct source *s = mem_source(g, n, "cut");
        struct apr *a = NULL;
        struct err e = {0};
        int rc = apr_open(&a, s, &e);
        /* The tensor's 16 bytes at 0x280 are the last that the index speaks of; padding and footer
         * behind them are nobody's. */
        if (rc != (n < 0x290 ? -EUCLEAN : 0))
            fail_msg("cut at %zu: %d (%s)", n, rc, e.msg);
        assert_true(rc == 0 || strstr(e.msg, "cut: "));
        apr_close(a);
        source_close(s);
        guard_free(g, n);
    }
    free(p);
}

static void apr_open_hands_on_errors_of_the_source(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("q4k-converter-output.apr", &len);
    int n_read = 0;
    for (int fail_at = 0; fail_at <= n_read; fail_at++) {
        struct faulty f = {.p = p, .len = len, .fail_at = fail_at, .rc = -EIO};
        struct source *s = faulty_source(&f, len, "faulty");
        struct apr *a = NULL;
        struct err e = {0};
        int rc = apr_open(&a, s, &e);
        n_read = f.n_read;
        if (fail_at < n_read)
            assert_int_equal(rc, -EIO);
        else
            assert_int_equal(rc, 0); /* every read has failed once: the last run failed none */
        apr_close(a);
        source_close(s);
    }
    assert_int_equal(n_read, 3); /* header, metadata, index */
    free(p);
}

/* --- what a code means --- */

static void apr_open_tells_codes_apart_by_size(void **state)
{
    (void)state;
    /* 64 weights in one row. Bytes: 2 blocks of quant.h's sizes, or the plain types of the first
     * writer (code 2 BF16, 3 F64, 4 I32, 5 I64, 6 I8, 7 U8, 8 and 9 APR's Q4 and Q8). */
    static const struct {
        uint8_t dtype;
        uint64_t size;
        uint32_t type; /* 0xffff: -EUCLEAN */
        uint32_t ours; /* with aprfs.profile */
    } t[] = {
        {0, 256, QUANT_F32, QUANT_F32},
        {1, 128, QUANT_F16, QUANT_F16},
        {2, 36, QUANT_Q4_0, QUANT_Q4_0},
        {2, 128, QUANT_BF16, 0xffff},
        {3, 40, QUANT_Q4_1, QUANT_Q4_1},
        {3, 512, QUANT_F64, 0xffff},
        {4, 256, QUANT_I32, 0xfffe},
        {5, 512, QUANT_I64, 0xfffe},
        {6, 44, QUANT_Q5_0, QUANT_Q5_0},
        {6, 64, QUANT_I8, 0xffff},
        {7, 48, QUANT_Q5_1, QUANT_Q5_1},
        {7, 64, APR_TYPE_OWN_U8, 0xffff},
        {8, 68, QUANT_Q8_0, QUANT_Q8_0},
        {8, 36, APR_TYPE_OWN_Q4, 0xffff},
        {8, 64, 0xffff, 0xffff},
        {9, 72, QUANT_Q8_1, QUANT_Q8_1},
        {9, 68, APR_TYPE_OWN_Q8, 0xffff},
        {20, 36, QUANT_IQ4_NL, QUANT_IQ4_NL},
        {30, 128, QUANT_BF16, QUANT_BF16},
        {30, 256, 0xffff, 0xffff},
        {128, 36, APR_TYPE_OWN_Q4, 0xfffe},
        {129, 68, APR_TYPE_OWN_Q8, 0xfffe},
        {0, 128, 0xffff, 0xffff},
        {0, 0, 0xffff, 0xffff},
        {31, 64, 0xfffe, 0xfffe}, /* withdrawn */
        {43, 64, 0xfffe, 0xfffe},
        {255, 64, 0xfffe, 0xfffe},
    };
    for (size_t i = 0; i < 2 * (sizeof t / sizeof t[0]); i++) {
        bool ours = i & 1;
        struct entry en = {"w", t[i / 2].dtype, 1, {64}, 0, t[i / 2].size, 0};
        struct file f = {.meta = ours ? "{\"aprfs.profile\":\"native\"}" : "{}",
                         .entry = &en,
                         .n_entry = 1,
                         .data_len = 512};
        size_t len;
        uint8_t *p = build(&f, &len);
        struct source *s = mem_source(p, len, "codes");
        struct apr *a = NULL;
        struct err e = {0};
        uint32_t want = ours ? t[i / 2].ours : t[i / 2].type;
        int rc = apr_open(&a, s, &e);
        int want_rc = want == 0xffff ? -EUCLEAN : want == 0xfffe ? -ENOTSUP : 0;
        if (rc != want_rc)
            fail_msg("code %u, %" PRIu64 " bytes, ours %d: %d (%s)", en.dtype, en.size, ours, rc,
                     e.msg);
        if (rc == 0)
            assert_int_equal(apr_tensor(a, 0)->type, want);
        else
            assert_non_null(strstr(e.msg, "tensor 'w'"));
        apr_close(a);
        source_close(s);
        free(p);
    }
}

/* 32 weights, 36 bytes: Q8_1's one block and APR's Q8 (4 + 32) at once. */
static void apr_open_takes_code_9_of_32_weights_as_own_q8(void **state)
{
    (void)state;
    struct entry en = {"w", 9, 1, {32}, 0, 36, 0};
    struct file f = {.meta = "{}", .entry = &en, .n_entry = 1, .data_len = 64};
    for (int ours = 0; ours < 2; ours++) {
        f.meta = ours ? "{\"aprfs.profile\":\"native\"}" : "{}";
        size_t len;
        uint8_t *p = build(&f, &len);
        struct source *s = mem_source(p, len, "nine");
        struct apr *a = open_ok(s);
        assert_int_equal(apr_tensor(a, 0)->type, ours ? QUANT_Q8_1 : APR_TYPE_OWN_Q8);
        apr_close(a);
        source_close(s);
        free(p);
    }
}

/* --- twins --- */

static void apr_raw_twin_finds_original_bytes(void **state)
{
    (void)state;
    /* "a" of 2 x 32 as F32 at 128 with its Q8_0 bytes (2 rows of 34) at 0; "b" plain. */
    static const struct entry en[] = {
        {"a", 0, 2, {2, 32}, 128, 256, 0},
        {"b", 0, 1, {1}, 384, 4, 0},
    };
    struct file f = {.meta =
                         "{\"aprfs.profile\":\"engine\",\"aprfs.raw\":[{\"name\":\"a\",\"type\":8,"
                         "\"offset\":0,\"size\":68}]}",
                     .entry = en,
                     .n_entry = 2,
                     .data_len = 448};
    size_t len;
    uint8_t *p = build(&f, &len);
    struct source *s = mem_source(p, len, "twins");
    struct apr *a = open_ok(s);
    struct apr_tensor raw;
    assert_true(apr_raw_twin(a, apr_find(a, "a"), &raw));
    assert_string_equal(raw.name, "a");
    assert_int_equal(raw.type, QUANT_Q8_0);
    assert_int_equal(raw.n_dim, 2);
    assert_int_equal(raw.dim[0], 2);
    assert_int_equal(raw.off, apr_header(a)->data_off);
    assert_int_equal(raw.size, 68);
    assert_false(apr_raw_twin(a, apr_find(a, "b"), &raw));
    apr_close(a);
    source_close(s);
    free(p);
}

/* --- the rest of what is accepted --- */

static void apr_open_accepts_what_readers_accept(void **state)
{
    (void)state;
    /* Equal names (first wins), overlapping and non-monotonic offsets, a zero checksum (the F32
     * converter's), a gap before the data, blanks within metadata_size, an odd minor version. */
    static const struct entry en[] = {
        {"a", 0, 1, {4}, 64, 16, 0},
        {"w", 0, 2, {2, 2}, 0, 16, 0},
        {"w", 0, 1, {4}, 0, 16, 0},
        {"z", 0, 0, {0}, 60, 4, 0},
    };
    struct file f = {.meta = " {\"k\" : 1}   ",
                     .entry = en,
                     .n_entry = 4,
                     .data_len = 80,
                     .gap = 64 * 1000,
                     .crc = "zero"};
    size_t len;
    uint8_t *p = build(&f, &len);
    p[5] = 9;
    struct source *s = mem_source(p, len, "accepted");
    struct apr *a = open_ok(s);
    assert_int_equal(apr_header(a)->crc, 0);
    assert_int_not_equal(apr_header(a)->crc_computed, 0);
    assert_ptr_equal(apr_find(a, "w"), apr_tensor(a, 1));
    assert_int_equal(apr_find(a, "z")->n_dim, 0);
    apr_close(a);
    source_close(s);
    free(p);
}

/* --- the malformed --- */

static const struct entry one = {"w", 0, 1, {4}, 0, 16, 0};
static const struct entry unsorted[] = {{"b", 0, 1, {4}, 0, 16, 0}, {"a", 0, 1, {4}, 0, 16, 0}};
static const struct entry no_name = {"", 0, 1, {4}, 0, 16, 0};
static const struct entry nul_name = {"a\0b", 0, 1, {4}, 0, 16, 3};
static const struct entry bad_utf8 = {"a\xff", 0, 1, {4}, 0, 16, 0};
static const struct entry nine_dims = {"w", 0, 9, {1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 4, 0};
static const struct entry past_end = {"w", 0, 1, {16}, 16, 64, 0};
static const struct entry off_wraps = {"w", 0, 1, {4}, UINT64_MAX - 8, 16, 0};
static const struct entry size_wraps = {"w", 0, 1, {4}, 0, UINT64_MAX, 0};
static const struct entry shape_wraps = {"w", 0,  2, {UINT64_C(1) << 33, UINT64_C(1) << 33},
                                         0,   16, 0};
static const struct entry bytes_wrap = {"w", 0, 2, {4, (UINT64_C(1) << 62)}, 0, 16, 0};
static const struct entry half_block = {"w", 12, 1, {128}, 0, 72, 0};
static const char long_name[] =
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123"
    "4567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567"
    "890123456789012345678901234567890123456789012345678901234567890123456";
static const struct entry name_257 = {long_name, 0, 1, {4}, 0, 16, 257};
static const uint8_t magic_v1[4] = {'A', 'P', 'R', 'N'};
static const uint8_t magic_other[4] = {'G', 'G', 'U', 'F'};

#define RAW(list) "{\"aprfs.profile\":\"native\",\"aprfs.raw\":" list "}"

static const struct {
    const char *name;
    int rc;
    const char *says;
    struct file f;
} bad[] = {
    {"v1 magic", -ENOTSUP, "'APRN'", {.meta = "{}", .magic = magic_v1}},
    {"other magic", -EUCLEAN, "47 47 55 46", {.meta = "{}", .magic = magic_other}},
    {"version 3", -ENOTSUP, "version 3.0", {.meta = "{}", .major = 3}},
    {"checksum", -EUCLEAN, "checksum", {.meta = "{}", .crc = "bad"}},
    {"lz4", -ENOTSUP, "LZ4", {.meta = "{}", .flags = 0x0401}},
    {"zstd", -ENOTSUP, "zstd", {.meta = "{}", .flags = 0x0402}},
    {"encrypted", -ENOTSUP, "encrypted", {.meta = "{}", .flags = 0x0404}},
    {"column-major", -ENOTSUP, "column-major", {.meta = "{}", .flags = 0x0800}},
    {"metadata offset in header", -EUCLEAN, "metadata: ", {.meta = "{}", .meta_off = 63}},
    {"metadata offset past end", -EUCLEAN, "metadata: ", {.meta = "{}", .meta_off = 1 << 20}},
    {"metadata offset wraps", -EUCLEAN, "metadata: ", {.meta = "{}", .meta_off = UINT64_MAX - 1}},
    {"metadata size past end", -EUCLEAN, "metadata: ", {.meta = "{}", .meta_size = 1 << 20}},
    {"metadata size 4 GiB", -EUCLEAN, "metadata: ", {.meta = "{}", .meta_size = UINT32_MAX}},
    {"metadata empty", -EUCLEAN, "metadata: JSON", {.meta = " "}},
    {"metadata no object", -EUCLEAN, "no object", {.meta = "[1]"}},
    {"metadata bad JSON", -EUCLEAN, "metadata: JSON, byte 6", {.meta = "{\"a\":1"}},
    {"metadata with NUL", -EUCLEAN, "metadata: JSON", {.meta = "{}\0", .meta_len = 3}},
    {"metadata key twice", -EUCLEAN, "twice", {.meta = "{\"a\":1,\"a\":1}"}},
    {"profile no string", -EUCLEAN, "aprfs.profile", {.meta = "{\"aprfs.profile\":1}"}},
    {"profile unknown", -ENOTSUP, "'fast'", {.meta = "{\"aprfs.profile\":\"fast\"}"}},
    {"data offset past end", -EUCLEAN, "data at byte", {.meta = "{}", .data_off = 1 << 20}},
    {"index behind data",
     -EUCLEAN,
     "no room",
     {.meta = "{}", .entry = &one, .n_entry = 1, .data_len = 64, .index_off = 192}},
    {"index offset wraps",
     -EUCLEAN,
     "no room",
     {.meta = "{}", .entry = &one, .n_entry = 1, .data_len = 64, .index_off = UINT64_MAX}},
    {"index offset in header",
     -EUCLEAN,
     "no room",
     {.meta = "{}", .entry = &one, .n_entry = 1, .data_len = 64, .index_off = 8}},
    {"count 4 billion",
     -EUCLEAN,
     "no room",
     {.meta = "{}", .entry = &one, .n_entry = 1, .claim = UINT32_MAX, .data_len = 64}},
    {"count one too many",
     -EUCLEAN,
     "name of 0 bytes",
     {.meta = "{}", .entry = &one, .n_entry = 1, .claim = 2, .data_len = 64}},
    {"index unsorted",
     -EUCLEAN,
     "not sorted",
     {.meta = "{}", .entry = unsorted, .n_entry = 2, .data_len = 64}},
    {"name empty",
     -EUCLEAN,
     "name of 0 bytes",
     {.meta = "{}", .entry = &no_name, .n_entry = 1, .data_len = 64}},
    {"name of 257 bytes",
     -EUCLEAN,
     "name of 257 bytes",
     {.meta = "{}", .entry = &name_257, .n_entry = 1, .data_len = 64}},
    {"name with NUL",
     -EUCLEAN,
     "holds a NUL",
     {.meta = "{}", .entry = &nul_name, .n_entry = 1, .data_len = 64}},
    {"name not UTF-8",
     -EUCLEAN,
     "not UTF-8",
     {.meta = "{}", .entry = &bad_utf8, .n_entry = 1, .data_len = 64}},
    {"nine dimensions",
     -EUCLEAN,
     "9 dimensions",
     {.meta = "{}", .entry = &nine_dims, .n_entry = 1, .data_len = 64}},
    {"tensor past end",
     -EUCLEAN,
     "tensor 'w': 64 bytes at offset 16 end past",
     {.meta = "{}", .entry = &past_end, .n_entry = 1, .data_len = 64}},
    {"tensor offset wraps",
     -EUCLEAN,
     "end past",
     {.meta = "{}", .entry = &off_wraps, .n_entry = 1, .data_len = 64}},
    {"tensor size wraps",
     -EUCLEAN,
     "end past",
     {.meta = "{}", .entry = &size_wraps, .n_entry = 1, .data_len = 64}},
    {"shape wraps",
     -EUCLEAN,
     "overflows",
     {.meta = "{}", .entry = &shape_wraps, .n_entry = 1, .data_len = 64}},
    {"bytes wrap",
     -EUCLEAN,
     "overflows",
     {.meta = "{}", .entry = &bytes_wrap, .n_entry = 1, .data_len = 64}},
    {"half a block",
     -EUCLEAN,
     "fit no reading of dtype 12",
     {.meta = "{}", .entry = &half_block, .n_entry = 1, .data_len = 128}},
    {"raw no array",
     -EUCLEAN,
     "'aprfs.raw'",
     {.meta = RAW("{}"), .entry = &one, .n_entry = 1, .data_len = 64}},
    {"raw no object",
     -EUCLEAN,
     "'aprfs.raw'",
     {.meta = RAW("[3]"), .entry = &one, .n_entry = 1, .data_len = 64}},
    {"raw of nobody",
     -EUCLEAN,
     "'v' is no tensor",
     {.meta = RAW("[{\"name\":\"v\",\"type\":1,\"offset\":0,\"size\":8}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
    {"raw size wrong",
     -EUCLEAN,
     "do not fit its shape",
     {.meta = RAW("[{\"name\":\"w\",\"type\":1,\"offset\":0,\"size\":9}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
    {"raw past end",
     -EUCLEAN,
     "raw bytes end past",
     {.meta = RAW("[{\"name\":\"w\",\"type\":1,\"offset\":60,\"size\":8}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
    {"raw offset negative",
     -EUCLEAN,
     "no whole number",
     {.meta = RAW("[{\"name\":\"w\",\"type\":1,\"offset\":-1,\"size\":8}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
    {"raw type unknown",
     -ENOTSUP,
     "type 99",
     {.meta = RAW("[{\"name\":\"w\",\"type\":99,\"offset\":0,\"size\":8}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
    {"raw twice",
     -EUCLEAN,
     "stands twice",
     {.meta = RAW("[{\"name\":\"w\",\"type\":1,\"offset\":0,\"size\":8},"
                  "{\"name\":\"w\",\"type\":1,\"offset\":0,\"size\":8}]"),
      .entry = &one,
      .n_entry = 1,
      .data_len = 64}},
};

static void apr_open_refuses_malformed_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        size_t len;
        uint8_t *p = build(&bad[i].f, &len), *g = guard_new(p, len);
        struct source *s = mem_source(g, len, "bad");
        struct apr *a = NULL;
        struct err e = {0};
        int rc = apr_open(&a, s, &e);
        if (rc != bad[i].rc || e.code != rc || !strstr(e.msg, bad[i].says) || a)
            fail_msg("%s: got %d '%s', expected %d '...%s...'", bad[i].name, rc, e.msg, bad[i].rc,
                     bad[i].says);
        source_close(s);
        guard_free(g, len);
        free(p);
    }
}

/* A sparse file may claim an index of any size: nothing is allocated for what is over the limit. */
static void apr_open_limits_what_it_reads(void **state)
{
    (void)state;
    struct entry en = one;
    en.off = 0;
    struct file f = {.meta = "{}", .entry = &en, .n_entry = 1, .claim = 100u << 20};
    f.data_off = UINT64_C(1) << 40;
    size_t len;
    uint8_t *p = build(&f, &len);
    struct faulty src = {.p = p, .len = len, .fail_at = -1};
    struct source *s = faulty_source(&src, UINT64_C(1) << 41, "sparse");
    struct apr *a = NULL;
    struct err e = {0};
    assert_int_equal(apr_open(&a, s, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "tensor index"));
    source_close(s);
    free(p);
    f = (struct file){.meta = "{}", .meta_size = UINT32_MAX};
    p = build(&f, &len);
    src = (struct faulty){.p = p, .len = len, .fail_at = -1};
    s = faulty_source(&src, UINT64_C(1) << 41, "sparse");
    assert_int_equal(apr_open(&a, s, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "metadata"));
    source_close(s);
    free(p);
}

/* Any single byte changed: refused or read, never out of bounds (ASan, the guard page). */
static void apr_open_survives_every_changed_byte(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = fixture("tiny.apr", &len);
    static const uint8_t values[] = {0x00, 0xff, 0x80, 0x7f};
    for (size_t i = 0; i < len; i++) {
        for (size_t v = 0; v < sizeof values; v++) {
            uint8_t *q = malloc(len);
            memcpy(q, p, len);
            q[i] = values[v];
            store_u32(q + 40, crc32_apr_header(q)); /* or the checksum would hide the rest */
            uint8_t *g = guard_new(q, len);
            struct source *s = mem_source(g, len, "changed");
            struct apr *a = NULL;
            struct err e = {0};
            int rc = apr_open(&a, s, &e);
            assert_true(rc == 0 || (rc < 0 && e.msg[0] && !a));
            apr_close(a);
            source_close(s);
            guard_free(g, len);
            free(q);
        }
    }
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apr_open_reads_tiny_of_aprender),
        cmocka_unit_test(apr_open_reads_llama_of_aprender),
        cmocka_unit_test(apr_open_reads_file_of_converter),
        cmocka_unit_test(apr_open_reads_no_byte_past_any_cut_of_tiny),
        cmocka_unit_test(apr_open_hands_on_errors_of_the_source),
        cmocka_unit_test(apr_open_tells_codes_apart_by_size),
        cmocka_unit_test(apr_open_takes_code_9_of_32_weights_as_own_q8),
        cmocka_unit_test(apr_raw_twin_finds_original_bytes),
        cmocka_unit_test(apr_open_accepts_what_readers_accept),
        cmocka_unit_test(apr_open_refuses_malformed_by_name),
        cmocka_unit_test(apr_open_limits_what_it_reads),
        cmocka_unit_test(apr_open_survives_every_changed_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
