/* The reverse view of our own files: a .apr made of a GGUF gives that GGUF back, byte for byte. The
 * layout's rule is llama.cpp's (ggml/src/gguf.cpp): a tensor's offset is the sum of the padded sizes
 * before it. */
#include "tests/vgguf_support.h"

static void turn_made(struct turned *t, const struct gguf_build *b, int n_part,
                      enum vapr_profile profile)
{
    struct made m;
    struct err e = {0};
    if (made_open(&m, b, n_part, &e) < 0)
        fail_msg("%s", e.msg);
    struct vapr *v = vapr_ok(m.g, profile);
    uint8_t *apr = vapr_bytes(v);
    if (turn(t, apr, (size_t)vapr_size(v), &e) < 0)
        fail_msg("%s", e.msg);
    vapr_free(v);
    made_close(&m);
    check_plan(t);
}

static void same_as_made(const struct gguf_build *b, enum vapr_profile profile, const char *layout)
{
    struct turned t;
    size_t len;
    uint8_t *want = gguf_build_bytes(b, &len);
    turn_made(&t, b, 1, profile);
    assert_true(vgguf_same_head(t.v));
    assert_int_equal(t.len, len);
    assert_memory_equal(t.p, want, len);
    assert_int_equal(vgguf_n_note(t.v), 0);
    if (layout)
        assert_string_equal(vgguf_plan(t.v)->layout, layout);
    turned_free(&t);
    free(want);
}

/* --- our own files --- */

static void vgguf_gives_the_gguf_back(void **state)
{
    (void)state;
    static const char *const arch[] = {"llama", "qwen2", "qwen3", "gemma3", "phi3", "gemma2"};
    static const uint32_t align[] = {0, 8, 64, 4096};
    for (size_t i = 0; i < sizeof arch / sizeof arch[0]; i++)
        for (size_t k = 0; k < sizeof align / sizeof align[0]; k++)
            for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++) {
                struct gguf_build_opt o = gguf_build_defaults(arch[i]);
                o.version = k == 1 ? 2 : 3;
                o.alignment = align[k];
                o.type = k % 2 ? 8 : 2; /* Q8_0 and Q4_0: widened by engine or strict */
                o.norm_type = k == 2 ? 1 : 0;
                o.untied = k == 3;
                o.per_layer_arrays = k == 2;
                o.eps_f64 = k == 1;
                o.unread_keys = true;
                struct gguf_build *b = gguf_build_llama_like(arch[i], &o);
                same_as_made(b, (enum vapr_profile)p, p == VAPR_STRICT ? NULL : "congruent");
                gguf_build_free(b);
            }
}

/* What JSON cannot say, or says otherwise: every value must come back bit by bit. */
static void vgguf_gives_odd_keys_back(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct buf nested = {0};
    const float odd_f[] = {0.0F, -0.0F, 1e-45F, 3.4028235e38F, 0.1F, 16777217.0F};
    const float nan_f[] = {1.0F, __builtin_nanf("0x123"), -__builtin_inff()};
    const uint64_t odd_u[] = {0, 1, (UINT64_C(1) << 53) - 1, UINT64_C(1) << 53, UINT64_MAX};
    const int64_t odd_i[] = {INT64_MIN, -1, INT64_MAX};
    const double odd_d[] = {0.1, 1e308, 4.9e-324, -0.0};
    const char *const text[] = {"", "\xc3\xa9", "a\"b\\c\n\t\x01\x7f", "\xf0\x9f\x98\x80"};
    const char *const bad_text[] = {"ok", "\xff\xfe"};
    gguf_build_array(b, "x.f32", 6, odd_f, 6);
    gguf_build_array(b, "x.nan", 6, nan_f, 3);
    gguf_build_array(b, "x.u64", 10, odd_u, 5);
    gguf_build_array(b, "x.u64small", 10, odd_u, 3);
    gguf_build_array(b, "x.i64", 11, odd_i, 3);
    gguf_build_array(b, "x.f64", 12, odd_d, 4);
    gguf_build_array(b, "x.empty", 5, odd_i, 0);
    gguf_build_array(b, "x.bools", 7, "\0\1\1", 3);
    gguf_build_array_str(b, "x.text", text, 4);
    gguf_build_array_str(b, "x.bad_text", bad_text, 2);
    gguf_build_strn(b, "x.nul", "a\0b", 3);
    gguf_build_u8(b, "x.u8", 255);
    gguf_build_i8(b, "x.i8", -128);
    gguf_build_u16(b, "x.u16", 65535);
    gguf_build_i16(b, "x.i16", -32768);
    gguf_build_i32(b, "x.i32", INT32_MIN);
    gguf_build_u64(b, "x.max", UINT64_MAX);
    gguf_build_f64(b, "llama.rope.freq_base", 1000000.5); /* an f32 can hold it, its text cannot */
    gguf_build_str(b, "no_dot", "reserved among the .apr's own names");
    gguf_build_str(b, "aprfs.profile", "not ours");
    gguf_build_str(b, "bad\xffname", "v");
    gguf_build_f32(b, "bad\xffnumber", 0.3F);
    gguf_build_f64(b, "also_reserved", 0.1);
    buf_u32(&nested, 9); /* an array of two arrays of u8 */
    buf_u64(&nested, 2);
    for (int i = 0; i < 2; i++) {
        buf_u32(&nested, 0);
        buf_u64(&nested, 1);
        buf_u8(&nested, (uint8_t)(7 + i));
    }
    gguf_build_raw(b, "x.nested", 9, nested.p, nested.len);
    buf_free(&nested);
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        same_as_made(b, (enum vapr_profile)p, NULL);
    gguf_build_free(b);
}

/* A GGUF with more behind its last tensor, which no .apr keeps: told, not hidden. */
static void vgguf_tells_of_a_lost_end(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    size_t len;
    uint8_t *good = gguf_build_bytes(b, &len), *more = calloc(1, len + 1000);
    struct source *s;
    struct gguf *g;
    struct turned t;
    struct err e = {0};
    memcpy(more, good, len);
    assert_int_equal(source_from_mem(&s, more, len + 1000, "more.gguf", NULL), 0);
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    struct vapr *v = vapr_ok(g, VAPR_NATIVE);
    if (turn(&t, vapr_bytes(v), (size_t)vapr_size(v), &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(t.len, len);
    assert_memory_equal(t.p, good, len);
    assert_int_equal(vgguf_n_note(t.v), 1);
    assert_non_null(strstr(vgguf_note(t.v, 0), "1000 bytes more"));
    turned_free(&t);
    vapr_free(v);
    gguf_close(g);
    source_close(s);
    free(good);
    free(more);
    gguf_build_free(b);
}

/* Of several parts one file: split.* gone, all else in order, every tensor's bytes. */
static void vgguf_joins_parts(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.type = 12;
    o.n_embd = o.n_ff = 256;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    size_t len;
    uint8_t *whole = gguf_build_bytes(b, &len);
    struct source *s;
    struct gguf *g;
    assert_int_equal(source_from_mem(&s, whole, len, "whole.gguf", NULL), 0);
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    for (int n_part = 2; n_part <= 5; n_part++) {
        struct turned t;
        turn_made(&t, b, n_part, VAPR_NATIVE);
        const struct gguf *r = vgguf_gguf(t.v);
        assert_false(vgguf_same_head(t.v));
        assert_null(gguf_find(r, "split.count"));
        assert_int_equal(gguf_n_tensor(r), gguf_n_tensor(g));
        for (size_t i = 0; i < gguf_n_tensor(g); i++) {
            const struct gguf_tensor *x = gguf_tensor(g, i), *y = gguf_tensor(r, i);
            assert_int_equal(x->name.len, y->name.len);
            assert_memory_equal(x->name.p, y->name.p, x->name.len);
            assert_int_equal(x->type, y->type);
            assert_int_equal(x->n_dim, y->n_dim);
            assert_memory_equal(x->ne, y->ne, sizeof x->ne);
            assert_memory_equal(whole + x->off, t.p + y->off, x->size);
        }
        for (size_t i = 0; i < gguf_n_key(g); i++) {
            const struct gguf_key *x = gguf_key(g, i), *y = gguf_key(r, i);
            assert_memory_equal(x->name.p, y->name.p, x->name.len);
            assert_int_equal(x->type, y->type);
            assert_int_equal(x->data_len, y->data_len);
            assert_memory_equal(x->data, y->data, x->data_len);
        }
        /* The first extent at a shift of 64 KiB: what the padding key is for. */
        const struct vplan *p = vgguf_plan(t.v);
        const struct vseg *first = &p->seg[vplan_find_seg(p, gguf_data_start(r, 0))];
        assert_int_equal(first->kind, VSEG_FILE);
        assert_int_equal((first->off - first->src_off) % 65536, 0);
        turned_free(&t);
    }
    gguf_close(g);
    source_close(s);
    free(whole);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vgguf_gives_the_gguf_back),
        cmocka_unit_test(vgguf_gives_odd_keys_back),
        cmocka_unit_test(vgguf_tells_of_a_lost_end),
        cmocka_unit_test(vgguf_joins_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
