/* GGUFs that must open, and what is read from them. The expected numbers are what gguf_build was
 * told to write, or stand beside their computation. Bad files: test_gguf_bad.c; real ones:
 * test_gguf_real.c. */
#include "format/gguf.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>

/* Opens bytes as one source; the caller closes both. */
static struct gguf *open_bytes(const uint8_t *p, size_t len, struct source **s)
{
    struct gguf *g = NULL;
    struct err e = {0};
    *s = mem_source(p, len, "built");
    if (gguf_open(&g, s, 1, &e) < 0)
        fail_msg("%s", e.msg);
    return g;
}

static struct gguf *open_build(struct gguf_build *b, uint8_t **p, struct source **s)
{
    size_t len;
    *p = gguf_build_bytes(b, &len);
    return open_bytes(*p, len, s);
}

static void done(struct gguf *g, struct source *s, uint8_t *p, struct gguf_build *b)
{
    gguf_close(g);
    source_close(s);
    free(p);
    gguf_build_free(b);
}

static void gguf_opens_the_smallest_file(void **state)
{
    (void)state;
    uint8_t p[24] = "GGUF\x03";
    uint8_t *q = guard_new(p, sizeof p);
    struct source *s;
    struct gguf *g = open_bytes(q, sizeof p, &s);
    assert_int_equal(gguf_n_key(g), 0);
    assert_int_equal(gguf_n_tensor(g), 0);
    assert_int_equal(gguf_n_part(g), 1);
    assert_ptr_equal(gguf_part(g, 0), s);
    assert_null(gguf_find(g, "general.architecture"));
    assert_null(gguf_find_tensor(g, ""));
    assert_null(gguf_key(g, 0));
    assert_null(gguf_tensor(g, 0));
    assert_int_equal(gguf_alignment(g), 32);
    assert_int_equal(gguf_data_start(g, 0), 32); /* 24 rounded up, past this file */
    assert_int_equal(gguf_data_end(g, 0), 32);
    size_t len;
    assert_memory_equal(gguf_head(g, 0, &len), p, 24);
    assert_int_equal(len, 24);
    done(g, s, NULL, NULL);
    guard_free(q, sizeof p);
}

/* --- values ------------------------------------------------------------------------------ */

#define NO_U64 UINT64_C(0xdead)
#define NO_I64 INT64_C(-0xdead)

static void gguf_reads_every_scalar_type(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_u8(b, "u8", 200);
    gguf_build_i8(b, "i8", -100);
    gguf_build_u16(b, "u16", 60000);
    gguf_build_i16(b, "i16", -30000);
    gguf_build_u32(b, "u32", 4000000000u);
    gguf_build_i32(b, "i32", -2000000000);
    gguf_build_u64(b, "u64", UINT64_MAX);
    gguf_build_i64(b, "i64", INT64_MIN);
    gguf_build_i64(b, "i64+", INT64_MAX);
    gguf_build_f32(b, "f32", 7.5e-6f);
    gguf_build_f64(b, "f64", 7.5e-6);
    gguf_build_bool(b, "true", true);
    gguf_build_bool(b, "false", false);
    gguf_build_str(b, "str", "caf\xc3\xa9");
    gguf_build_str(b, "empty", "");
    gguf_build_array(b, "array", 4, (uint32_t[]){1}, 1);

    /* u, i: NO_* where the view must be refused; d: NAN likewise. */
    static const struct {
        const char *name;
        enum gguf_type type;
        uint64_t u;
        int64_t i;
        double d;
    } want[] = {
        {"u8", GGUF_U8, 200, 200, 200},
        {"i8", GGUF_I8, NO_U64, -100, -100},
        {"u16", GGUF_U16, 60000, 60000, 60000},
        {"i16", GGUF_I16, NO_U64, -30000, -30000},
        {"u32", GGUF_U32, 4000000000u, 4000000000, 4e9},
        {"i32", GGUF_I32, NO_U64, -2000000000, -2e9},
        {"u64", GGUF_U64, UINT64_MAX, NO_I64, 0x1p64},
        {"i64", GGUF_I64, NO_U64, INT64_MIN, -0x1p63},
        {"i64+", GGUF_I64, INT64_MAX, INT64_MAX, 0x1p63},
        {"f32", GGUF_F32, NO_U64, NO_I64, (double)7.5e-6f},
        {"f64", GGUF_F64, NO_U64, NO_I64, 7.5e-6},
        {"true", GGUF_BOOL, NO_U64, NO_I64, NAN},
        {"false", GGUF_BOOL, NO_U64, NO_I64, NAN},
        {"str", GGUF_STRING, NO_U64, NO_I64, NAN},
        {"empty", GGUF_STRING, NO_U64, NO_I64, NAN},
        {"array", GGUF_ARRAY, NO_U64, NO_I64, NAN},
    };
    uint8_t *p;
    struct source *s;
    struct gguf *g = open_build(b, &p, &s);
    assert_int_equal(gguf_n_key(g), sizeof want / sizeof *want);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct gguf_key *k = gguf_find(g, want[i].name);
        uint64_t u = NO_U64;
        int64_t n = NO_I64;
        double d = NAN;
        assert_ptr_equal(k, gguf_key(g, i)); /* file order */
        assert_int_equal(k->type, want[i].type);
        assert_int_equal(k->n, 1);
        assert_int_equal(gguf_as_u64(k, &u), want[i].u != NO_U64);
        assert_int_equal(gguf_as_i64(k, &n), want[i].i != NO_I64);
        assert_int_equal(gguf_as_f64(k, &d), !isnan(want[i].d));
        assert_true(u == want[i].u && n == want[i].i);
        assert_memory_equal(&d, &want[i].d, isnan(d) ? 0 : sizeof d);
    }
    bool v;
    struct gguf_str str;
    assert_true(gguf_as_bool(gguf_find(g, "true"), &v) && v);
    assert_true(gguf_as_bool(gguf_find(g, "false"), &v) && !v);
    assert_false(gguf_as_bool(gguf_find(g, "u8"), &v));
    assert_true(gguf_as_str(gguf_find(g, "str"), &str) && gguf_str_eq(str, "caf\xc3\xa9"));
    assert_true(gguf_as_str(gguf_find(g, "empty"), &str) && gguf_str_eq(str, ""));
    assert_false(gguf_as_str(gguf_find(g, "array"), &str));
    done(g, s, p, b);
}

static void gguf_views_of_absent_keys_are_false(void **state)
{
    (void)state;
    uint64_t u;
    int64_t i;
    double d;
    bool v;
    struct gguf_str s;
    struct gguf_key el;
    size_t pos = 0;
    assert_false(gguf_as_u64(NULL, &u) || gguf_as_i64(NULL, &i) || gguf_as_f64(NULL, &d) ||
                 gguf_as_bool(NULL, &v) || gguf_as_str(NULL, &s));
    assert_false(gguf_elem_u64(NULL, 0, &u) || gguf_elem_i64(NULL, 0, &i) ||
                 gguf_elem_f64(NULL, 0, &d) || gguf_elem_bool(NULL, 0, &v));
    assert_false(gguf_next_elem(NULL, &pos, &el));
}

static void gguf_str_eq_compares_whole_strings(void **state)
{
    (void)state;
    assert_true(gguf_str_eq((struct gguf_str){"abc", 3}, "abc"));
    assert_false(gguf_str_eq((struct gguf_str){"abc", 2}, "abc"));
    assert_false(gguf_str_eq((struct gguf_str){"abcd", 4}, "abc"));
    assert_false(gguf_str_eq((struct gguf_str){"ab\0", 3}, "ab")); /* a NUL inside is a byte */
    assert_true(gguf_str_eq((struct gguf_str){"", 0}, ""));
}

/* --- arrays ------------------------------------------------------------------------------ */

static void gguf_reads_array_elements_of_every_type(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_new(2, 1);
    gguf_build_array(b, "u8", 0, (uint8_t[]){0, 255}, 2);
    gguf_build_array(b, "i8", 1, (int8_t[]){-128, 127}, 2);
    gguf_build_array(b, "u16", 2, (uint16_t[]){1, 65535}, 2);
    gguf_build_array(b, "i16", 3, (int16_t[]){-32768, 2}, 2);
    gguf_build_array(b, "u32", 4, (uint32_t[]){3, UINT32_MAX}, 2);
    gguf_build_array(b, "i32", 5, (int32_t[]){INT32_MIN, 4}, 2);
    gguf_build_array(b, "f32", 6, (float[]){0.5f, -1.0f}, 2);
    gguf_build_array(b, "bool", 7, (uint8_t[]){1, 0}, 2);
    gguf_build_array(b, "u64", 10, (uint64_t[]){5, UINT64_MAX}, 2);
    gguf_build_array(b, "i64", 11, (int64_t[]){INT64_MIN, 6}, 2);
    gguf_build_array(b, "f64", 12, (double[]){0.25, -2.0}, 2);
    static const struct {
        const char *name;
        double d[2];
    } want[] = {
        {"u8", {0, 255}},     {"i8", {-128, 127}},       {"u16", {1, 65535}},
        {"i16", {-32768, 2}}, {"u32", {3, 4294967295.}}, {"i32", {-2147483648., 4}},
        {"f32", {0.5, -1}},   {"u64", {5, 0x1p64}},      {"i64", {-0x1p63, 6}},
        {"f64", {0.25, -2}},
    };
    uint8_t *p;
    struct source *s;
    struct gguf *g = open_build(b, &p, &s);
    assert_int_equal(gguf_version(g), 2);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        const struct gguf_key *k = gguf_find(g, want[i].name);
        double d;
        for (uint64_t j = 0; j < 2; j++) {
            assert_true(gguf_elem_f64(k, j, &d));
            assert_true(d == want[i].d[j]);
        }
        assert_false(gguf_elem_f64(k, 2, &d));
        assert_false(gguf_elem_f64(k, UINT64_MAX, &d));
        struct gguf_key el;
        size_t n = 0;
        for (size_t pos = 0; gguf_next_elem(k, &pos, &el); n++)
            assert_true(gguf_as_f64(&el, &d) && d == want[i].d[n]);
        assert_int_equal(n, 2);
    }
    uint64_t u;
    int64_t n;
    bool v;
    assert_true(gguf_elem_u64(gguf_find(g, "u64"), 1, &u) && u == UINT64_MAX);
    assert_false(gguf_elem_i64(gguf_find(g, "u64"), 1, &n));
    assert_true(gguf_elem_i64(gguf_find(g, "i64"), 0, &n) && n == INT64_MIN);
    assert_false(gguf_elem_u64(gguf_find(g, "i64"), 0, &u));
    assert_true(gguf_elem_bool(gguf_find(g, "bool"), 0, &v) && v);
    assert_true(gguf_elem_bool(gguf_find(g, "bool"), 1, &v) && !v);
    assert_false(gguf_elem_u64(gguf_find(g, "bool"), 0, &u));
    assert_false(gguf_elem_bool(gguf_find(g, "u8"), 0, &v));
    done(g, s, p, b);
}

static void gguf_walks_strings_and_empty_arrays(void **state)
{
    (void)state;
    static const char *const words[] = {"", "a", "bcd", ""};
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_array_str(b, "words", words, 4);
    gguf_build_array_str(b, "none", NULL, 0);
    gguf_build_array(b, "zero", 4, "", 0);
    uint8_t *p;
    struct source *s;
    struct gguf *g = open_build(b, &p, &s);
    const struct gguf_key *k = gguf_find(g, "words");
    assert_int_equal(k->n, 4);
    assert_int_equal(k->elem, GGUF_STRING);
    assert_int_equal(k->data_len, 4 * 8 + 4); /* four lengths, four characters */
    struct gguf_key el;
    struct gguf_str str;
    size_t n = 0, pos = 0;
    for (; gguf_next_elem(k, &pos, &el); n++)
        assert_true(gguf_as_str(&el, &str) && gguf_str_eq(str, words[n]));
    assert_int_equal(n, 4);
    assert_false(gguf_next_elem(k, &pos, &el)); /* the end stays the end */
    pos = SIZE_MAX;
    assert_false(gguf_next_elem(k, &pos, &el));
    uint64_t u;
    assert_false(gguf_elem_u64(k, 0, &u)); /* strings have no number */
    pos = 0;
    assert_int_equal(gguf_find(g, "none")->n, 0);
    assert_false(gguf_next_elem(gguf_find(g, "none"), &pos, &el));
    assert_false(gguf_next_elem(gguf_find(g, "zero"), &pos, &el));
    done(g, s, p, b);
}

static void put_list(struct buf *b, const uint32_t *v, uint64_t n)
{
    buf_u32(b, 4);
    buf_u64(b, n);
    for (uint64_t i = 0; i < n; i++)
        buf_u32(b, v[i]);
}

static void gguf_walks_nested_arrays(void **state)
{
    (void)state;
    struct buf v = {0}; /* [[1, 2], [], [3]] */
    buf_u32(&v, 9);
    buf_u64(&v, 3);
    put_list(&v, (uint32_t[]){1, 2}, 2);
    put_list(&v, NULL, 0);
    put_list(&v, (uint32_t[]){3}, 1);
    struct buf deep = {0}; /* eight levels, the limit */
    for (int i = 0; i < GGUF_MAX_NESTING - 1; i++) {
        buf_u32(&deep, 9);
        buf_u64(&deep, 1);
    }
    put_list(&deep, (uint32_t[]){7}, 1);
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_raw(b, "nest", 9, v.p, v.len);
    gguf_build_raw(b, "deep", 9, deep.p, deep.len);
    gguf_build_u32(b, "after", 11);
    uint8_t *p;
    struct source *s;
    struct gguf *g = open_build(b, &p, &s);
    static const uint64_t n_want[] = {2, 0, 1}, want[] = {1, 2, 3};
    const struct gguf_key *k = gguf_find(g, "nest");
    struct gguf_key sub;
    size_t n = 0, n_leaf = 0;
    uint64_t u;
    for (size_t pos = 0; gguf_next_elem(k, &pos, &sub); n++) {
        assert_int_equal(sub.type, GGUF_ARRAY);
        assert_int_equal(sub.elem, GGUF_U32);
        assert_int_equal(sub.n, n_want[n]);
        for (uint64_t i = 0; i < sub.n; i++)
            assert_true(gguf_elem_u64(&sub, i, &u) && u == want[n_leaf++]);
    }
    assert_int_equal(n, 3);
    struct gguf_key at = *gguf_find(g, "deep");
    for (int i = 0; i < GGUF_MAX_NESTING; i++) {
        size_t pos = 0;
        assert_true(gguf_next_elem(&at, &pos, &sub));
        assert_int_equal(pos, at.data_len);
        at = sub;
    }
    assert_true(gguf_as_u64(&at, &u) && u == 7);
    assert_true(gguf_as_u64(gguf_find(g, "after"), &u) && u == 11);
    buf_free(&v);
    buf_free(&deep);
    done(g, s, p, b);
}

/* --- tensors ----------------------------------------------------------------------------- */

/* Each tensor's place in the file holds the bytes that the builder put there. */
static void check_bytes(const struct gguf *g, const struct gguf_build *b)
{
    assert_int_equal(gguf_n_tensor(g), gguf_build_n_tensor(b));
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const char *name = gguf_build_tensor_name(b, i);
        const struct gguf_tensor *t = gguf_tensor(g, i);
        size_t len;
        const uint8_t *want = gguf_build_tensor_data(b, name, &len);
        assert_true(gguf_str_eq(t->name, name));
        assert_ptr_equal(gguf_find_tensor(g, name), t);
        if (t->size != len)
            fail_msg("%s: %" PRIu64 " bytes, expected %zu", name, t->size, len);
        assert_true(t->off >= gguf_data_start(g, t->part));
        assert_true(t->off + t->size <= gguf_data_end(g, t->part));
        uint8_t *got = malloc(len);
        assert_non_null(got);
        assert_int_equal(source_read(gguf_part(g, t->part), got, t->off, len, NULL), 0);
        assert_memory_equal(got, want, len);
        free(got);
    }
}

static void gguf_sizes_every_tensor_type(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_new(3, 1);
    const char *name;
    uint32_t len, bytes, n = 0;
    for (uint32_t id = 0; id < 64; id++)
        if (gguf_build_type(id, &name, &len, &bytes)) {
            gguf_build_tensor(b, name, id, 3, (uint64_t[]){2 * len, 3, 5}, NULL);
            n++;
        }
    assert_int_equal(n, 35); /* rows of ggml-types.tsv */
    uint8_t *p;
    struct source *s;
    struct gguf *g = open_build(b, &p, &s);
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        const struct gguf_tensor *t = gguf_tensor(g, i);
        assert_true(gguf_build_type(t->type, &name, &len, &bytes));
        assert_true(gguf_str_eq(t->name, name));
        assert_int_equal(t->n_dim, 3);
        assert_true(t->ne[0] == 2 * len && t->ne[1] == 3 && t->ne[2] == 5 && t->ne[3] == 1);
        assert_int_equal(t->size, 2 * 3 * 5 * bytes); /* 15 rows of two blocks */
    }
    check_bytes(g, b);
    done(g, s, p, b);
}

static void gguf_places_tensors_at_each_alignment(void **state)
{
    (void)state;
    static const uint32_t aligns[] = {0, 8, 16, 64, 8192, 65536};
    for (size_t i = 0; i < sizeof aligns / sizeof *aligns; i++) {
        uint32_t align = aligns[i] ? aligns[i] : 32;
        struct gguf_build *b = gguf_build_llama_like(
            "llama", &(struct gguf_build_opt){.alignment = aligns[i], .untied = true, .type = 8});
        gguf_build_gap(b, 3 * align, 5);
        uint8_t *p;
        struct source *s;
        struct gguf *g = open_build(b, &p, &s);
        size_t head_len;
        gguf_head(g, 0, &head_len);
        assert_int_equal(gguf_alignment(g), align);
        assert_int_equal(gguf_data_start(g, 0) % align, 0);
        assert_true(gguf_data_start(g, 0) - head_len < align);
        assert_int_equal(gguf_tensor(g, 0)->off, gguf_data_start(g, 0) + 3 * align);
        for (size_t j = 0; j < gguf_n_tensor(g); j++)
            assert_int_equal(gguf_tensor(g, j)->off % align, 0);
        const struct gguf_tensor *last = gguf_tensor(g, gguf_n_tensor(g) - 1);
        assert_int_equal(gguf_data_end(g, 0), last->off + last->size);
        check_bytes(g, b);
        done(g, s, p, b);
    }
}

/* What the corpus refuses one step further. */
static void gguf_accepts_values_at_their_limits(void **state)
{
    (void)state;
    struct buf b = {0};
    char *long_name = malloc(GGUF_MAX_NAME + 1);
    assert_non_null(long_name);
    memset(long_name, 'n', GGUF_MAX_NAME);
    long_name[GGUF_MAX_NAME] = 0;
    buf_put(&b, "GGUF", 4);
    buf_u32(&b, 3);
    buf_u64(&b, 2);
    buf_u64(&b, 2);
    buf_str(&b, long_name);
    buf_u32(&b, 4);
    buf_u32(&b, 5);
    buf_str(&b, "split.count"); /* some writers leave these in whole files */
    buf_u32(&b, 2);
    buf_u16(&b, 0);
    for (int i = 0; i < 2; i++) { /* two tensors that touch, out of order, the first at
                                     the very end of the file */
        buf_str(&b, i ? "b" : "a");
        buf_u32(&b, 4);
        for (int d = 0; d < 4; d++)
            buf_u64(&b, d == 3 ? 8 : 1);
        buf_u32(&b, 0);
        buf_u64(&b, i ? 0 : 32);
    }
    buf_pad(&b, 32);
    size_t start = b.len;
    for (int i = 0; i < 64; i++)
        buf_u8(&b, 0);
    uint8_t *p = guard_new(b.p, b.len);
    struct source *s;
    struct gguf *g = open_bytes(p, b.len, &s);
    assert_non_null(gguf_find(g, long_name));
    assert_int_equal(gguf_tensor(g, 0)->off, start + 32);
    assert_int_equal(gguf_tensor(g, 0)->size, 32);
    assert_int_equal(gguf_tensor(g, 1)->off, start);
    assert_int_equal(gguf_data_end(g, 0), start + 64);
    done(g, s, NULL, NULL);
    guard_free(p, b.len);
    buf_free(&b);
    free(long_name);
}

/* A head of several windows reads to its end and not much further. */
static void gguf_reads_large_heads_in_windows(void **state)
{
    (void)state;
    enum { N = 300000 };
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct buf v = {0};
    buf_u32(&v, 8);
    buf_u64(&v, N);
    for (uint32_t i = 0; i < N; i++) {
        char text[16];
        snprintf(text, sizeof text, "tok%u", i);
        buf_str(&v, text);
    }
    gguf_build_raw(b, "tokenizer.ggml.tokens", 9, v.p, v.len);
    size_t len;
    uint8_t *p = gguf_build_bytes(b, &len);
    struct faulty f = {.p = p, .len = len, .fail_at = -1};
    struct source *s = faulty_source(&f, UINT64_C(1) << 40, "large"); /* zeros follow */
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    size_t head_len;
    const uint8_t *head = gguf_head(g, 0, &head_len);
    assert_memory_equal(head, p, head_len);
    assert_true(f.bytes_read < 2 * head_len + (1 << 20));
    check_bytes(g, b);
    struct gguf_key el;
    struct gguf_str str;
    uint32_t n = 0;
    for (size_t pos = 0; gguf_next_elem(gguf_find(g, "tokenizer.ggml.tokens"), &pos, &el); n++) {
        char text[16];
        snprintf(text, sizeof text, "tok%u", n);
        assert_true(gguf_as_str(&el, &str) && gguf_str_eq(str, text));
    }
    assert_int_equal(n, N);
    buf_free(&v);
    done(g, s, p, b);
}

/* --- shards ------------------------------------------------------------------------------ */

static void gguf_tells_shard_names(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool is;
        uint32_t no, count;
        size_t prefix;
    } want[] = {
        {"m-00001-of-00003.gguf", true, 0, 3, 1},
        {"m-00002-of-00003.gguf", true, 1, 3, 1},
        {"m-00001-of-00001.gguf", true, 0, 1, 1},
        {"/a/b-c/m.Q4-00010-of-00012.gguf", true, 9, 12, 11},
        {"a-00001-of-00002.gguf/m-99999-of-99999.gguf", true, 99998, 99999, 23},
        {"m-00001-of-00002-00002-of-00003.gguf", true, 1, 3, 16},
        {"-00001-of-00003.gguf", false, 0, 0, 0}, /* no name before it */
        {"dir/-00001-of-00003.gguf", false, 0, 0, 0},
        {"m-00004-of-00003.gguf", false, 0, 0, 0}, /* past the end */
        {"m-00000-of-00003.gguf", false, 0, 0, 0}, /* counted from 1 */
        {"m-00000-of-00000.gguf", false, 0, 0, 0},
        {"m-0001-of-0003.gguf", false, 0, 0, 0},
        {"m-000001-of-000003.gguf", false, 0, 0, 0},
        {"m-00001-of-00003.GGUF", false, 0, 0, 0},
        {"m-00001-of-00003.gguf.part", false, 0, 0, 0},
        {"m-00001-of-00003.gguf/", false, 0, 0, 0},
        {"m-0000a-of-00003.gguf", false, 0, 0, 0},
        {"m-+0001-of-00003.gguf", false, 0, 0, 0},
        {"m-00001_of-00003.gguf", false, 0, 0, 0},
        {"m.gguf", false, 0, 0, 0},
        {"", false, 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        uint32_t no = 0, count = 0;
        size_t prefix = 0;
        bool is = gguf_shard_name(want[i].name, &no, &count, &prefix);
        if (is != want[i].is || no != want[i].no || count != want[i].count ||
            prefix != want[i].prefix)
            fail_msg("%s: %d, %u of %u, prefix %zu", want[i].name, is, no, count, prefix);
    }
}

static void gguf_joins_shards(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct gguf_build *b = gguf_build_llama_like(
        "llama", &(struct gguf_build_opt){.alignment = 64, .untied = true, .type = 2});
    for (int n = 1; n <= 5; n += 2) {
        gguf_build_files(b, dir, "m", n);
        for (int k = 1; k <= n; k++) { /* any shard's name opens all of them */
            char name[64];
            snprintf(name, sizeof name, "m-%05d-of-%05d.gguf", k, n);
            char *path = path_join(dir, name);
            struct gguf *g = NULL;
            struct err e = {0};
            if (gguf_open_path(&g, path, &e) < 0)
                fail_msg("%s", e.msg);
            assert_int_equal(gguf_n_part(g), n);
            check_bytes(g, b);
            for (int i = 0; i < n; i++) {
                size_t len;
                assert_memory_equal(gguf_head(g, i, &len), "GGUF\3", 5);
                assert_int_equal(gguf_data_start(g, i) % 64, 0);
            }
            /* the builder deals tensors in equal runs: the last part begins where it says */
            size_t first = gguf_n_tensor(g) * (size_t)(n - 1) / (size_t)n;
            assert_int_equal(gguf_tensor(g, first)->part, n - 1);
            assert_int_equal(gguf_tensor(g, first)->off, gguf_data_start(g, n - 1));
            if (n > 1)
                assert_int_equal(gguf_tensor(g, first - 1)->part, n - 2);
            struct gguf_str arch;
            assert_true(gguf_as_str(gguf_find(g, "general.architecture"), &arch));
            assert_true(gguf_str_eq(arch, "llama"));
            gguf_close(g);
            free(path);
        }
    }
    gguf_build_free(b);
    free(dir);
}

/* A shard may be empty: more parts than tensors. */
static void gguf_joins_shards_without_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_tensor_1d(b, "only", 0, 8);
    struct source *s[3];
    uint8_t *p[3];
    for (int i = 0; i < 3; i++) {
        size_t len;
        p[i] = gguf_build_shard(b, i, 3, &len);
        s[i] = mem_source(p[i], len, "shard");
    }
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, s, 3, NULL), 0);
    assert_int_equal(gguf_n_tensor(g), 1);
    assert_int_equal(gguf_tensor(g, 0)->part, 2);
    assert_int_equal(gguf_data_end(g, 0), gguf_data_start(g, 0));
    check_bytes(g, b);
    gguf_close(g);
    for (int i = 0; i < 3; i++) {
        source_close(s[i]);
        free(p[i]);
    }
    gguf_build_free(b);
}

/* --- whole models ------------------------------------------------------------------------ */

static void gguf_opens_built_models(void **state)
{
    (void)state;
    static const char *const archs[] = {"llama",  "qwen2", "qwen3", "gemma2",  "gemma3",    "phi3",
                                        "falcon", "phi2",  "gpt2",  "gptneox", "starcoder2"};
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        struct gguf_build *b = gguf_build_llama_like(archs[i], NULL);
        char key[64];
        snprintf(key, sizeof key, "%s.block_count", archs[i]);
        uint8_t *p;
        struct source *s;
        struct gguf *g = open_build(b, &p, &s);
        struct gguf_str arch;
        uint64_t n;
        assert_true(gguf_as_str(gguf_find(g, "general.architecture"), &arch));
        assert_true(gguf_str_eq(arch, archs[i]));
        assert_true(gguf_as_u64(gguf_find(g, key), &n) && n == 2);
        assert_non_null(gguf_find_tensor(g, "blk.1.ffn_down.weight"));
        assert_null(gguf_find_tensor(g, "blk.2.ffn_down.weight"));
        check_bytes(g, b);
        done(g, s, p, b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_opens_the_smallest_file),
        cmocka_unit_test(gguf_reads_every_scalar_type),
        cmocka_unit_test(gguf_views_of_absent_keys_are_false),
        cmocka_unit_test(gguf_str_eq_compares_whole_strings),
        cmocka_unit_test(gguf_reads_array_elements_of_every_type),
        cmocka_unit_test(gguf_walks_strings_and_empty_arrays),
        cmocka_unit_test(gguf_walks_nested_arrays),
        cmocka_unit_test(gguf_sizes_every_tensor_type),
        cmocka_unit_test(gguf_places_tensors_at_each_alignment),
        cmocka_unit_test(gguf_accepts_values_at_their_limits),
        cmocka_unit_test(gguf_reads_large_heads_in_windows),
        cmocka_unit_test(gguf_tells_shard_names),
        cmocka_unit_test(gguf_joins_shards),
        cmocka_unit_test(gguf_joins_shards_without_tensors),
        cmocka_unit_test(gguf_opens_built_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
