/* Types, row sizes, binary16 and the reference dequantisers. */
#include "format/bytes.h"
#include "format/quant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The GGML type table of 1 October 2026 (ids, names, block sizes), typed anew. */
static const struct {
    uint32_t id;
    const char *name;
    uint32_t len, bytes;
} type_table[] = {
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},
    {3, "Q4_1", 32, 20},      {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},      {10, "Q2_K", 256, 84},
    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66},
    {17, "IQ2_XS", 256, 74},  {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},
    {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},  {22, "IQ2_S", 256, 82},
    {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},
    {29, "IQ1_M", 256, 56},   {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},
    {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},    {40, "NVFP4", 64, 36},
    {41, "Q1_0", 128, 18},    {42, "Q2_0", 64, 18},
};
#define N_TYPE (sizeof type_table / sizeof type_table[0])

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static bool is_nan_bits(uint32_t u)
{
    return (u & 0x7fffffff) > 0x7f800000;
}

static void quant_type_knows_every_id(void **state)
{
    (void)state;
    size_t n = 0;
    for (uint32_t id = 0; id < 300; id++) {
        const struct quant_type *t = quant_type(id);
        if (n < N_TYPE && type_table[n].id == id) {
            assert_non_null(t);
            assert_int_equal(t->id, id);
            assert_string_equal(t->name, type_table[n].name);
            assert_int_equal(t->block_len, type_table[n].len);
            assert_int_equal(t->block_bytes, type_table[n].bytes);
            n++;
        } else {
            assert_null(t);
        }
    }
    assert_int_equal(n, N_TYPE);
    assert_null(quant_type(UINT32_MAX));
}

static void quant_type_by_name_ignores_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_TYPE; i++)
        assert_ptr_equal(quant_type_by_name(type_table[i].name), quant_type(type_table[i].id));
    assert_ptr_equal(quant_type_by_name("q4_k"), quant_type(QUANT_Q4_K));
    assert_ptr_equal(quant_type_by_name("bf16"), quant_type(QUANT_BF16));
    assert_null(quant_type_by_name("Q4_K_M"));
    assert_null(quant_type_by_name(""));
}

static void quant_row_bytes_counts_whole_blocks(void **state)
{
    (void)state;
    static const struct {
        uint32_t id;
        uint64_t n;
        bool ok;
        uint64_t bytes;
    } row[] = {
        {QUANT_F32, 7, true, 28},
        {QUANT_Q4_K, 0, true, 0},
        {QUANT_Q4_K, 256, true, 144},
        {QUANT_Q4_K, 1536, true, 6 * 144},
        {QUANT_Q4_K, 896, false, 0}, /* Qwen2.5-0.5B's rows: 3.5 blocks */
        {QUANT_Q8_0, 896, true, 28 * 34},
        {QUANT_Q8_0, 31, false, 0},
        {QUANT_NVFP4, 96, false, 0},
        {QUANT_I64, UINT64_MAX / 8, true, UINT64_MAX / 8 * 8},
        {QUANT_I64, UINT64_MAX / 8 + 1, false, 0},
        {QUANT_Q8_K, UINT64_MAX - 255, false,
         0}, /* 2^64 - 256 is whole blocks; the bytes overflow */
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        uint64_t bytes = 0;
        bool ok = quant_row_bytes(quant_type(row[i].id), row[i].n, &bytes);
        assert_int_equal(ok, row[i].ok);
        if (ok)
            assert_int_equal(bytes, row[i].bytes);
    }
}

/* IEEE 754-2019 by definition: sign, 2^(e-15) * (1 + m/1024), or m * 2^-24. */
static float f16_by_definition(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    float v = e == 31 ? (m ? float_of(0x7fc00000) : float_of(0x7f800000)) : (float)m;
    if (e < 31) {
        v = e ? (v + 1024) * 0x1p-10f : v * 0x1p-10f;
        for (int k = e ? e : 1; k < 15; k++)
            v *= 0.5f;
        for (int k = 15; k < e; k++)
            v *= 2;
    }
    return h & 0x8000 ? -v : v;
}

static void f16_to_f32_is_exact_for_all_65536(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t got = bits_of(f16_to_f32((uint16_t)h));
        uint32_t want = bits_of(f16_by_definition((uint16_t)h));
        if (is_nan_bits(want)) {
            assert_true(is_nan_bits(got));
            assert_true(got & 0x400000); /* quiet */
            assert_int_equal(got >> 31, h >> 15);
            assert_int_equal(got >> 13 & 0x1ff, h & 0x1ff); /* payload, as F16C keeps it */
        } else {
            assert_int_equal(got, want);
        }
#ifdef __FLT16_MAX__
        _Float16 c;
        uint16_t h16 = (uint16_t)h;
        memcpy(&c, &h16, sizeof c);
        assert_true(got == bits_of((float)c) || is_nan_bits(want));
#endif
    }
}

static void f32_to_f16_inverts_all_65536(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        bool nan = (h & 0x7fff) > 0x7c00;
        uint16_t want = (uint16_t)(nan ? h | 0x200 : h);
        assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)h)), want);
    }
}

static void f32_to_f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const struct {
        uint32_t f;
        uint16_t h;
    } named[] = {
        {0x477fe000, 0x7bff}, /* 65504, the largest */
        {0x477fefff, 0x7bff}, /* just below 65520 */
        {0x477ff000, 0x7c00}, /* 65520, half way to 65536: the even one is infinity */
        {0x7f7fffff, 0x7c00}, {0xff800000, 0xfc00},
        {0x33800000, 0x0001}, /* 2^-24, the smallest subnormal */
        {0x33000000, 0x0000}, /* 2^-25: a tie with zero */
        {0x33000001, 0x0001}, {0xb3000001, 0x8001},
        {0x00000001, 0x0000}, {0x387fc000, 0x03ff}, /* the largest subnormal */
        {0x387fe000, 0x0400},                       /* half way to the smallest normal */
        {0x38800000, 0x0400}, {0x7f800001, 0x7e00},
        {0xffc00000, 0xfe00},
    };
    for (size_t i = 0; i < sizeof named / sizeof named[0]; i++)
        assert_int_equal(f32_to_f16(float_of(named[i].f)), named[i].h);

    /* Between each two neighbours: the middle goes to the even one, its neighbours to either side.
     */
    for (uint32_t h = 0; h < 0x7bff; h++) {
        float mid = (f16_to_f32((uint16_t)h) + f16_to_f32((uint16_t)(h + 1))) / 2; /* exact */
        uint32_t u = bits_of(mid);
        uint16_t even = (uint16_t)(h + (h & 1));
        assert_int_equal(f32_to_f16(mid), even);
        assert_int_equal(f32_to_f16(-mid), even | 0x8000);
        assert_int_equal(f32_to_f16(float_of(u - 1)), h);
        assert_int_equal(f32_to_f16(float_of(u + 1)), h + 1);
    }
#ifdef __FLT16_MAX__
    /* Every 4093rd f32 (a prime, so that all low bits occur) against the compiler's conversion. */
    for (uint64_t u = 0; u < UINT64_C(1) << 32; u += 4093) {
        if (is_nan_bits((uint32_t)u))
            continue;
        _Float16 c = (_Float16)float_of((uint32_t)u);
        uint16_t want;
        memcpy(&want, &c, sizeof want);
        assert_int_equal(f32_to_f16(float_of((uint32_t)u)), want);
    }
#endif
}

static void quant_plain_numbers_widen(void **state)
{
    (void)state;
    static const uint8_t f64[] = {0,    0,    0,    0,    0,    0,    0xf8, 0xbf,  /* -1.5 */
                                  0x9a, 0x99, 0x99, 0x99, 0x99, 0x99, 0xb9, 0x3f}; /* 0.1 */
    static const uint8_t f32[] = {0, 0, 0xc0, 0xbf, 0x01, 0, 0, 0}; /* -1.5, 2^-149 */
    static const uint8_t f16[] = {0x00, 0xbe, 0x01, 0x00};          /* -1.5, 2^-24 */
    static const uint8_t bf16[] = {0xc0, 0xbf, 0x01, 0x00};         /* -1.5, 2^-133 */
    float y[2];
    quant_type(QUANT_F64)->f32(y, f64, 2);
    assert_true(y[0] == -1.5f && y[1] == 0.1f);
    quant_type(QUANT_F32)->f32(y, f32, 2);
    assert_true(y[0] == -1.5f && y[1] == 0x1p-149f);
    quant_type(QUANT_F16)->f32(y, f16, 2);
    assert_true(y[0] == -1.5f && y[1] == 0x1p-24f);
    quant_type(QUANT_BF16)->f32(y, bf16, 2);
    assert_true(y[0] == -1.5f && y[1] == 0x1p-133f);
}

/* Made by scripts/make_vectors.py from ggml's dequantize_row_*; the format is described there. */
static uint8_t *vectors_read(size_t *len)
{
    const char *path = "tests/data/quant_vectors.bin";
    FILE *f = fopen(path, "rb");
    if (!f)
        fail_msg("%s: cannot open (run from the repository's root)", path);
    uint8_t *p = malloc(1 << 20);
    *len = fread(p, 1, 1 << 20, f);
    fclose(f);
    return p;
}

/* One record; returns how many weights differ. */
static size_t vectors_check(const struct quant_type *t, struct cursor *c, uint32_t n_block)
{
    size_t n = (size_t)n_block * t->block_len, bad = 0;
    const uint8_t *blocks = cursor_take(c, (size_t)n_block * t->block_bytes);
    const uint8_t *want = cursor_take(c, n * 4);
    assert_non_null(want);

    /* Exactly as large as needed, so that ASan sees a read or write too far; odd address. */
    size_t len = (size_t)n_block * t->block_bytes;
    uint8_t *src = malloc(len + 1);
    float *y = malloc(n * sizeof *y);
    memcpy(src + 1, blocks, len);
    t->f32(y, src + 1, n_block);
    for (size_t i = 0; i < n; i++) {
        uint32_t w = load_u32(want + 4 * i), g = bits_of(y[i]);
        if (is_nan_bits(w) ? !is_nan_bits(g) : w != g) {
            if (!bad++)
                print_error("%s: weight %zu of block %zu: %08x, ggml has %08x\n", t->name,
                            i % t->block_len, i / t->block_len, g, w);
        }
    }
    free(src);
    free(y);
    return bad;
}

static void quant_dequantises_like_ggml(void **state)
{
    (void)state;
    size_t len, bad = 0, n_type = 0;
    uint8_t *p = vectors_read(&len);
    struct cursor c = cursor_over(p, len);
    while (cursor_left(&c) > 0) {
        uint32_t id = cursor_u32(&c), n_block = cursor_u32(&c);
        uint32_t weights = cursor_u32(&c), bytes = cursor_u32(&c);
        const struct quant_type *t = quant_type(id);
        assert_non_null(t);
        assert_int_equal(t->block_len, weights);
        assert_int_equal(t->block_bytes, bytes);
        assert_non_null(t->f32);
        assert_true(t->quantized);
        bad += vectors_check(t, &c, n_block);
        n_type++;
    }
    assert_false(c.bad);
    assert_int_equal(n_type, 19);
    assert_int_equal(bad, 0);
    free(p);
}

/* By hand from the layout table: d = 0.5 (0x3800), dmin = 0.25 (0x3400), scale and minimum of group
 * j set to j+1 and 8+j in six bits, every low nibble 5 and every high nibble 9. */
static void quant_q4_k_by_hand(void **state)
{
    (void)state;
    uint8_t b[144] = {0x00, 0x38, 0x00, 0x34};
    for (int j = 0; j < 4; j++) {
        b[4 + j] = (uint8_t)(j + 1); /* sc[j], high bits of sc[4+j] are 0 */
        b[8 + j] = (uint8_t)(8 + j); /* m[j], high bits of m[4+j] are 0 */
        b[12 + j] = (uint8_t)((j + 5) | ((12 + j) & 15) << 4); /* low halves of sc[4+j], m[4+j] */
    }
    memset(b + 16, 0x95, 128);
    float y[256];
    quant_type(QUANT_Q4_K)->f32(y, b, 1);
    for (int i = 0; i < 256; i++) {
        int j = i / 32, q = j % 2 ? 9 : 5;
        float want = 0.5f * (float)(j + 1) * (float)q - 0.25f * (float)(8 + j);
        assert_true(y[i] == want);
    }
}

static void quant_types_without_grids_are_raw(void **state)
{
    (void)state;
    static const uint32_t raw[] = {QUANT_Q8_1,  QUANT_IQ2_XXS, QUANT_IQ2_XS, QUANT_IQ3_XXS,
                                   QUANT_IQ1_S, QUANT_IQ3_S,   QUANT_IQ2_S,  QUANT_IQ1_M,
                                   QUANT_I8,    QUANT_I16,     QUANT_I32,    QUANT_I64};
    for (size_t i = 0; i < sizeof raw / sizeof raw[0]; i++)
        assert_null(quant_type(raw[i])->f32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quant_type_knows_every_id),
        cmocka_unit_test(quant_type_by_name_ignores_case),
        cmocka_unit_test(quant_row_bytes_counts_whole_blocks),
        cmocka_unit_test(f16_to_f32_is_exact_for_all_65536),
        cmocka_unit_test(f32_to_f16_inverts_all_65536),
        cmocka_unit_test(f32_to_f16_rounds_to_nearest_even),
        cmocka_unit_test(quant_plain_numbers_widen),
        cmocka_unit_test(quant_dequantises_like_ggml),
        cmocka_unit_test(quant_q4_k_by_hand),
        cmocka_unit_test(quant_types_without_grids_are_raw),
    };
    return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
