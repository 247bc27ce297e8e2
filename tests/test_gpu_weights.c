/* kernels/: weights of all types, embed and linear, against their CPU twins (infer/cpu/ops.h), bit for bit,
 * in odd shapes; and what they refuse. */
#include "infer/cpu/ops.h"
#include "kernels/gpu_ops.h"
#include "tests/gpu_arrays.h"

#include <math.h>

/* Calls f for every type that the CPU reference multiplies by; returns how many. */
static int each_type(void (*f)(uint32_t type, uint32_t len))
{
    int n = 0;
    for (uint32_t type = 0; type <= QUANT_ID_MAX; type++) {
        const struct quant_type *qt = quant_type(type);
        bool has = qt && qt->f32;
        assert_int_equal(gpu_takes_type(type), has);
        if (has) {
            f(type, qt->block_len);
            n++;
        }
    }
    assert_false(gpu_takes_type(QUANT_ID_MAX + 1));
    return n;
}

static void embed_type(uint32_t type, uint32_t len)
{
    enum { ROWS = 5, TOK = 4 };
    static const int32_t id[TOK] = {4, 0, 4, 2};
    uint32_t n_in = len == 1 ? 37 : 3 * len;
    float scale = type % 2 ? 1.0f : 1.7f;
    struct weights w;
    weights_new(&w, type, ROWS, n_in, type + 1);
    float *want = malloc(TOK * n_in * sizeof *want), *y = dev_f32(NULL, (size_t)TOK * n_in);
    int32_t *did = dev_new(id, sizeof id);
    for (int t = 0; t < TOK; t++)
        cpu_embed_row(want + (size_t)t * n_in, &w.host, w.qt, (uint32_t)id[t], scale);
    must(gpu_embed(stream, y, &w.dev, did, TOK, scale));
    float *got = dev_take(y, TOK * n_in * sizeof *got);
    same_bits(w.qt->name, got, want, (size_t)TOK * n_in);
    gpu_free(did);
    free(got);
    free(want);
    weights_free(&w);
}

static void embed_equals_twin_in_every_type(void **state)
{
    NEED_STREAM();
    assert_int_equal(each_type(embed_type), 23);
}

/* Bits equal, or both NaN: which NaN an operation gives is the machine's affair. */
static void same_numbers(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!(isnan(got[i]) && isnan(want[i])))
            same_bits(what, got + i, want + i, 1);
}

/* Scales that random blocks never have: every byte of MXFP4 and NVFP4, every number of 16 bits. */
static void embed_equals_twin_at_every_scale(void **state)
{
    NEED_STREAM();
    static const struct {
        uint32_t type, n_out, n_in,
            n_scale; /* n_scale bytes in front of a block are the row's number */
    } c[] = {{QUANT_MXFP4, 256, 32, 1},
             {QUANT_NVFP4, 256, 64, 4},
             {QUANT_F16, 1, 65536, 0},
             {QUANT_BF16, 1, 65536, 0}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        struct weights w;
        size_t n = (size_t)c[i].n_out * c[i].n_in;
        weights_new(&w, c[i].type, c[i].n_out, c[i].n_in, 5);
        uint8_t *data = w.host.data;
        int32_t *id = calloc(c[i].n_out, sizeof *id);
        for (uint32_t r = 0; r < c[i].n_out; r++) {
            id[r] = (int32_t)r;
            memset(data + r * w.host.row_bytes, (int)r, c[i].n_scale);
        }
        for (uint32_t k = 0; c[i].n_scale == 0 && k < 65536; k++) {
            data[2 * k] = (uint8_t)k;
            data[2 * k + 1] = (uint8_t)(k >> 8);
        }
        must(gpu_upload(stream, (void *)(uintptr_t)w.dev.data, data,
                        (size_t)w.host.row_bytes * c[i].n_out));
        int32_t *did = dev_new(id, c[i].n_out * sizeof *id);
        float *y = dev_f32(NULL, n), *want = malloc(n * sizeof *want);
        for (uint32_t r = 0; r < c[i].n_out; r++)
            cpu_embed_row(want + (size_t)r * c[i].n_in, &w.host, w.qt, r, 1);
        must(gpu_embed(stream, y, &w.dev, did, c[i].n_out, 1));
        float *got = dev_take(y, n * sizeof *got);
        same_numbers(w.qt->name, got, want, n);
        gpu_free(did);
        free(id);
        free(got);
        free(want);
        weights_free(&w);
    }
}

static void embed_of_unknown_id_is_nan(void **state)
{
    NEED_STREAM();
    static const int32_t id[3] = {5, -1, 1};
    struct weights w;
    weights_new(&w, QUANT_Q4_K, 5, 256, 3);
    float *y = dev_f32(NULL, 3 * 256);
    int32_t *did = dev_new(id, sizeof id);
    must(gpu_embed(stream, y, &w.dev, did, 3, 1));
    float *got = dev_take(y, 3 * 256 * sizeof *got);
    for (int i = 0; i < 512; i++)
        assert_true(isnan(got[i]));
    for (int i = 512; i < 768; i++)
        assert_false(isnan(got[i]));
    gpu_free(did);
    free(got);
    weights_free(&w);
}

struct linear_case {
    uint32_t type, n_out, n_in, n_tok;
    float scale;
    int bias;  /* 0 none, 1 behind the scale, 2 before it */
    bool wide; /* columns over 80 binary orders */
};

static void linear_check(const struct linear_case *c)
{
    struct rng r;
    rng_init(&r, c->type * 1000 + c->n_in + c->n_tok);
    struct weights w;
    weights_new(&w, c->type, c->n_out, c->n_in, rng_u64(&r));
    size_t nx = (size_t)c->n_tok * c->n_in, ny = (size_t)c->n_tok * c->n_out;
    float *x = random_f32(&r, nx, 2), *bias = random_f32(&r, c->n_out, 1);
    for (size_t i = 0; c->wide && i < nx; i++)
        x[i] = ldexpf(x[i], (int)rng_below(&r, 80) - 40);
    float *dx = dev_f32(x, nx), *dbias = dev_f32(bias, c->n_out), *y = dev_f32(NULL, ny);
    float *want = malloc(ny * sizeof *want), *row = malloc(c->n_in * sizeof *row);
    struct backend_linear lin = {&w.host, c->bias ? bias : NULL, c->scale, c->bias == 2};
    cpu_linear_rows(want, &lin, w.qt, x, c->n_tok, 0, c->n_out, row);
    must(gpu_linear(stream, y, &w.dev, c->bias ? dbias : NULL, c->scale, c->bias == 2, dx,
                    c->n_tok));
    float *got = dev_take(y, ny * sizeof *got);
    char what[96];
    snprintf(what, sizeof what, "%s (%u, %u) x %u", w.qt->name, c->n_out, c->n_in, c->n_tok);
    same_bits(what, got, want, ny);
    free(got);
    free(want);
    free(row);
    free(x);
    free(bias);
    gpu_free(dx);
    gpu_free(dbias);
    weights_free(&w);
}

static void linear_type(uint32_t type, uint32_t len)
{
    uint32_t n_in = len == 1 ? 275 : len < 256 ? 5 * len : 3 * len;
    linear_check(&(struct linear_case){type, 5, n_in, 2, 1, 0, false});
}

static void linear_equals_twin_in_every_type(void **state)
{
    NEED_STREAM();
    assert_int_equal(each_type(linear_type), 23);
}

static void linear_equals_twin_in_odd_shapes(void **state)
{
    NEED_STREAM();
    static const struct linear_case c[] = {
        {QUANT_F32, 1, 1, 1, 1, 0, false},     {QUANT_F32, 3, 15, 3, 1, 1, false},
        {QUANT_F32, 4, 17, 1, 0.5f, 2, false}, {QUANT_F16, 2, 255, 1, 1, 0, false},
        {QUANT_F32, 2, 257, 1, 1, 0, false},   {QUANT_F32, 2, 511, 1, 1, 0, false},
        {QUANT_F32, 2, 513, 1, 1, 0, false},   {QUANT_BF16, 3, 700, 2, 1, 0, false},
        {QUANT_Q4_0, 9, 32, 7, 1, 0, false},   {QUANT_Q8_0, 8, 288, 8, 1, 1, false},
        {QUANT_Q4_K, 1, 256, 9, 1, 2, false},  {QUANT_Q6_K, 7, 768, 17, 0.25f, 1, false},
        {QUANT_Q5_0, 130, 64, 1, 3, 2, false}, {QUANT_F32, 40, 1000, 3, 1, 0, true},
        {QUANT_Q8_0, 40, 1312, 2, 1, 1, true},
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        linear_check(&c[i]);
}

/* Sums of f64 whose order shows: 2^60 swallows a 1 that meets it before -2^60 does. Lane 3 of runs
 * 0, 2, 3; then lanes 0, 8, 1 of one run. In the order of cpu_dot() both columns give 1. */
static void linear_adds_in_the_twins_order(void **state)
{
    NEED_STREAM();
    enum { N = 1024 };
    float one[N], x[2 * N] = {0}, *got;
    for (int i = 0; i < N; i++)
        one[i] = 1;
    x[3] = 0x1p60f;
    x[512 + 3] = -0x1p60f;
    x[768 + 3] = 1;
    x[N] = 0x1p60f;
    x[N + 8] = -0x1p60f;
    x[N + 1] = 1;
    assert_true(cpu_dot(one, x, N) == 1 && cpu_dot(one, x + N, N) == 1);
    struct gpu_matrix w = {QUANT_F32, 1, N, dev_f32(one, N)};
    float *dx = dev_f32(x, 2 * N), *y = dev_f32(NULL, 2);
    must(gpu_linear(stream, y, &w, NULL, 1, false, dx, 2));
    got = dev_take(y, 2 * sizeof *got);
    assert_true(got[0] == 1 && got[1] == 1);
    free(got);
    gpu_free(dx);
    gpu_free((void *)(uintptr_t)w.data);
}

/* A column's bits are the same whatever stands beside it: 1, 2, ... 11 columns. */
static void linear_column_knows_no_other(void **state)
{
    NEED_STREAM();
    enum { N_OUT = 6, N_IN = 512, COLS = 11 };
    struct rng r;
    rng_init(&r, 5);
    struct weights w;
    weights_new(&w, QUANT_Q5_K, N_OUT, N_IN, 6);
    float *x = random_f32(&r, COLS * N_IN, 1), *dx = dev_f32(x, COLS * N_IN), *want = NULL;
    for (uint32_t n = COLS; n > 0; n--) {
        float *y = dev_f32(NULL, n * N_OUT);
        must(gpu_linear(stream, y, &w.dev, NULL, 1, false, dx, n));
        float *got = dev_take(y, n * N_OUT * sizeof *got);
        if (!want) {
            want = got;
            continue;
        }
        same_bits("columns", got, want, n * N_OUT);
        free(got);
    }
    free(want);
    free(x);
    gpu_free(dx);
    weights_free(&w);
}

static void linear_refuses_bad_shapes(void **state)
{
    NEED_STREAM();
    struct weights w;
    weights_new(&w, QUANT_Q4_K, 2, 256, 1);
    float *x = dev_f32(NULL, 512), *y = dev_f32(NULL, 512);
    int32_t *id = dev_new(NULL, 4);
    struct gpu_matrix m[6];
    for (int i = 0; i < 6; i++)
        m[i] = w.dev;
    m[0].n_out = 0;
    m[1].n_in = 0;
    m[2].n_in = 255;
    m[3].type = QUANT_IQ1_S; /* no dequantiser */
    m[4].type = 4;           /* no type */
    m[5] = (struct gpu_matrix){QUANT_F32, 2, 8, (const uint8_t *)w.dev.data + 2};
    for (int i = 0; i < 6; i++) {
        refused(gpu_linear(stream, y, &m[i], NULL, 1, false, x, 1));
        refused(gpu_embed(stream, y, &m[i], id, 1, 1));
    }
    refused(gpu_linear(stream, y, &w.dev, NULL, 1, false, x, 0));
    assert_non_null(strstr(gpu_last_error(), "0 columns"));
    refused(gpu_embed(stream, y, &w.dev, id, 0, 1));
    gpu_free(x);
    gpu_free(y);
    gpu_free(id);
    weights_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_equals_twin_in_every_type),
        cmocka_unit_test(embed_equals_twin_at_every_scale),
        cmocka_unit_test(embed_of_unknown_id_is_nan),
        cmocka_unit_test(linear_equals_twin_in_every_type),
        cmocka_unit_test(linear_equals_twin_in_odd_shapes),
        cmocka_unit_test(linear_adds_in_the_twins_order),
        cmocka_unit_test(linear_column_knows_no_other),
        cmocka_unit_test(linear_refuses_bad_shapes),
    };
    return cmocka_run_group_tests_name("gpu_weights", tests, stream_open, stream_close);
}
