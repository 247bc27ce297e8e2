/* vapr.h case by case: any range of a conversion, files beyond 4 GiB, errors of sources, the footer, readers
 * in threads. Sources of expectations stand beside them. */
#include "tests/vapr_support.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>

/* --- reading --- */

static struct gguf_build *with_conversions(void)
{
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.type = 8;
    o.norm_type = 1;
    o.n_layer = 1;
    return gguf_build_llama_like("llama", &o);
}

/* Every offset and length near both ends of a converted tensor, into every alignment. */
static void vapr_read_takes_any_range_of_conversions(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    uint8_t *whole = vapr_bytes(v), buf[600];
    const struct vapr_tensor *t = vapr_named(v, "blk.0.ffn_down.weight");
    size_t data_len, got;
    const uint8_t *data = gguf_build_tensor_data(b, t->name, &data_len);
    float *f = malloc(t->size);
    assert_true(t->conv);
    quant_type(8)->f32(f, data, data_len / 34);
    assert_memory_equal(whole + t->off, f, t->size);
    free(f);
    for (uint64_t at = t->off - 3; at < t->off + 140; at++)
        for (size_t len = 0; len < 300; len += 1 + len / 7) {
            size_t skew = (at + len) % 8;
            assert_int_equal(vapr_read(v, buf + skew, at, len, &got, NULL), 0);
            assert_int_equal(got, len);
            assert_memory_equal(buf + skew, whole + at, len);
            uint64_t back = t->off + t->size - (at - t->off + 3);
            assert_int_equal(vapr_read(v, buf + skew, back, len, &got, NULL), 0);
            assert_memory_equal(buf + skew, whole + back, got);
        }
    free(whole);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* What a conversion cache builds its units from. */
static void vapr_convert_gives_whole_blocks(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    const struct vapr_tensor *t = vapr_named(v, "blk.0.ffn_down.weight");
    const struct vseg *s = vapr_seg(v, vapr_find_seg(v, t->off));
    uint8_t *whole = vapr_bytes(v);
    float f[5 * 32];
    assert_int_equal(s->kind, VSEG_CONV);
    assert_int_equal(s->off, t->off);
    assert_int_equal(s->len, t->size);
    for (uint64_t at = 0; at + 5 <= t->size / 128; at += 7) {
        assert_int_equal(vapr_convert(v, s, at, 5, f, NULL), 0);
        assert_memory_equal(f, whole + t->off + at * 128, sizeof f);
    }
    free(whole);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* A source of any size whose byte at off is a function of off. */
struct endless {
    const uint8_t *p;
    uint64_t len;
};

static uint8_t endless_byte(uint64_t off)
{
    return (uint8_t)(off >> 32 ^ off >> 16 ^ off * 7);
}

static int endless_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    const struct endless *x = ctx;
    (void)e;
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)dst)[i] = off + i < x->len ? x->p[off + i] : endless_byte(off + i);
    return 0;
}

/* 1 TiB of Q4_K and as much I8 (raw in native alone): offsets beyond 32 bits everywhere. */
static void vapr_read_reaches_past_4_gib(void **state)
{
    (void)state;
    struct buf h = {0};
    static const uint64_t rows = UINT64_C(1) << 32, row = 144, i8 = UINT64_C(1) << 40;
    buf_put(&h, "GGUF", 4);
    buf_u32(&h, 3);
    static const char *const keys[] = {"nobody.block_count", "nobody.embedding_length",
                                       "nobody.attention.head_count", "nobody.feed_forward_length",
                                       "nobody.context_length"};
    buf_u64(&h, 2);
    buf_u64(&h, 6);
    buf_str(&h, "general.architecture");
    buf_u32(&h, 8);
    buf_str(&h, "nobody");
    for (int i = 0; i < 5; i++) {
        buf_str(&h, keys[i]);
        buf_u32(&h, 4);
        buf_u32(&h, 1);
    }
    buf_str(&h, "big.a");
    buf_u32(&h, 2);
    buf_u64(&h, 256);
    buf_u64(&h, rows);
    buf_u32(&h, 12);
    buf_u64(&h, 0);
    buf_str(&h, "big.b");
    buf_u32(&h, 1);
    buf_u64(&h, i8);
    buf_u32(&h, 24);
    buf_u64(&h, rows * row);
    buf_pad(&h, 32);
    struct endless x = {h.p, h.len};
    static const struct source_ops ops = {.read = endless_read};
    struct source *s = NULL, *view = NULL;
    struct gguf *g = NULL;
    struct apr *a = NULL;
    struct err e = {0};
    assert_int_equal(source_from_ops(&s, &ops, &x, h.len + rows * row + i8, "endless", &e), 0);
    if (gguf_open(&g, &s, 1, &e) < 0)
        fail_msg("%s", e.msg);
    struct vapr *v = vapr_ok(g, VAPR_NATIVE);
    if (vapr_source(&view, v, &e) < 0 || apr_open(&a, view, &e) < 0)
        fail_msg("%s", e.msg);
    static const char *const names[] = {"big.a", "big.b"};
    for (int i = 0; i < 2; i++) {
        const struct apr_tensor *t = apr_find(a, names[i]);
        const struct gguf_tensor *gt = gguf_find_tensor(g, names[i]);
        assert_int_equal(t->size, i ? i8 : rows * row);
        for (uint64_t at = 0; at < t->size; at += t->size / 50 | 1) {
            uint8_t byte;
            assert_int_equal(source_read(view, &byte, t->off + at, 1, NULL), 0);
            assert_int_equal(byte, endless_byte(gt->off + at));
        }
    }
    assert_int_equal(vapr_size(v), (vapr_data_offset(v) + rows * row + i8 + 63) / 64 * 64);
    apr_close(a);
    source_close(view);
    vapr_free(v);
    gguf_close(g);
    source_close(s);
    buf_free(&h);
}

static void vapr_read_ends_at_the_end(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    made_open_ok(&m, b);
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    uint64_t size = vapr_size(v);
    uint8_t buf[64];
    size_t got = 1;
    assert_int_equal(vapr_read(v, buf, size, 1, &got, NULL), 0);
    assert_int_equal(got, 0);
    assert_int_equal(vapr_read(v, buf, UINT64_MAX, sizeof buf, &got, NULL), 0);
    assert_int_equal(got, 0);
    assert_int_equal(vapr_read(v, buf, size - 5, sizeof buf, &got, NULL), 0);
    assert_int_equal(got, 5);
    assert_int_equal(vapr_read(v, buf, size - 1, SIZE_MAX, &got, NULL), 0);
    assert_int_equal(got, 1);
    assert_int_equal(vapr_read(v, buf, 0, 0, &got, NULL), 0);
    assert_int_equal(got, 0);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* Each read of the source failing in turn: always the error, never a part of the bytes. */
static void vapr_read_hands_on_errors_of_sources(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    made_open_ok(&m, b);
    struct vapr_options opt = {.profile = VAPR_ENGINE, .footer = VAPR_FOOTER_CRC};
    struct vapr *v = NULL;
    struct err e = {0};
    assert_int_equal(vapr_new(&v, m.g, &opt, &e), 0);
    size_t size = (size_t)vapr_size(v), got;
    uint8_t *buf = malloc(size);
    int fail_at = 0, failed = 0;
    for (;; fail_at++) {
        m.faulty[0].n_read = 0;
        m.faulty[0].fail_at = fail_at;
        got = 7;
        int rc = vapr_read(v, buf, 0, size, &got, &e);
        if (rc == 0)
            break;
        assert_int_equal(rc, -EIO);
        assert_int_equal(got, 0);
        failed++;
    }
    assert_int_equal(got, size);
    /* At least one for the extent, one for each conversion, and the same again for the footer. */
    assert_true(failed >= 2 * (1 + 9));
    free(buf);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* Planning reads no tensor data: the head is in memory already. */
static void vapr_new_reads_no_tensor_data(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    made_open_ok(&m, b);
    int before = m.faulty[0].n_read;
    struct vapr *v = vapr_ok(m.g, VAPR_ENGINE);
    assert_int_equal(m.faulty[0].n_read, before);
    vapr_free(v);
    made_close(&m);
    gguf_build_free(b);
}

/* --- footer --- */

static void vapr_footer_is_crc_of_all_before_it(void **state)
{
    (void)state;
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
        struct gguf_build *b = with_conversions();
        struct made m;
        made_open_ok(&m, b);
        struct vapr_options opt = {.profile = (enum vapr_profile)p, .footer = VAPR_FOOTER_CRC};
        struct vapr *v = NULL, *plain = vapr_ok(m.g, opt.profile);
        assert_int_equal(vapr_new(&v, m.g, &opt, NULL), 0);
        size_t size = (size_t)vapr_size(v), got;
        uint8_t tail[9];
        assert_int_equal(size, vapr_size(plain) + 4);
        /* The footer before anything else, cut in two; then all. */
        assert_int_equal(vapr_read(v, tail, size - 2, 9, &got, NULL), 0);
        assert_int_equal(got, 2);
        uint8_t *whole = vapr_bytes(v), *rest = vapr_bytes(plain);
        assert_memory_equal(tail, whole + size - 2, 2);
        assert_int_equal(load_u32(whole + size - 4), crc32_update(0, whole, size - 4));
        assert_memory_equal(whole, rest, size - 4);
        free(whole);
        free(rest);
        vapr_free(v);
        vapr_free(plain);
        made_close(&m);
        gguf_build_free(b);
    }
}

struct reader {
    const struct vapr *v;
    const uint8_t *whole;
    uint64_t seed;
    int bad;
};

static void *read_much(void *arg)
{
    struct reader *r = arg;
    struct rng g;
    uint8_t buf[5000];
    rng_init(&g, r->seed);
    for (int i = 0; i < 500; i++) {
        uint64_t off = rng_below(&g, vapr_size(r->v));
        size_t got;
        if (i % 50 == 0) /* the footer, which the first of them computes */
            off = vapr_size(r->v) - 4;
        if (vapr_read(r->v, buf, off, 1 + rng_below(&g, sizeof buf - 1), &got, NULL) < 0 ||
            memcmp(buf, r->whole + off, got) != 0)
            r->bad++;
    }
    return NULL;
}

static void vapr_read_serves_threads(void **state)
{
    (void)state;
    struct gguf_build *b = with_conversions();
    struct made m;
    uint8_t *p;
    size_t len;
    made_open_ok(&m, b);
    p = gguf_build_bytes(b, &len);
    /* faulty sources count their reads without a lock: a plain one for threads */
    struct source *s = mem_source(p, len, "threads");
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    struct vapr_options opt = {.profile = VAPR_ENGINE, .footer = VAPR_FOOTER_CRC};
    struct vapr *v = NULL, *first = NULL;
    assert_int_equal(vapr_new(&v, g, &opt, NULL), 0);
    assert_int_equal(vapr_new(&first, g, &opt, NULL), 0);
    uint8_t *whole = vapr_bytes(first);
    struct reader r[4];
    pthread_t th[4];
    for (int i = 0; i < 4; i++) {
        r[i] = (struct reader){v, whole, (uint64_t)i + 1, 0};
        assert_int_equal(pthread_create(&th[i], NULL, read_much, &r[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(th[i], NULL);
        assert_int_equal(r[i].bad, 0);
    }
    free(whole);
    vapr_free(v);
    vapr_free(first);
    gguf_close(g);
    source_close(s);
    free(p);
    made_close(&m);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vapr_read_takes_any_range_of_conversions),
        cmocka_unit_test(vapr_convert_gives_whole_blocks),
        cmocka_unit_test(vapr_read_reaches_past_4_gib),
        cmocka_unit_test(vapr_read_ends_at_the_end),
        cmocka_unit_test(vapr_read_hands_on_errors_of_sources),
        cmocka_unit_test(vapr_new_reads_no_tensor_data),
        cmocka_unit_test(vapr_footer_is_crc_of_all_before_it),
        cmocka_unit_test(vapr_read_serves_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
