/* kernels/ at the far end: offsets that need 64 bits, the largest launches, and what is refused rather
 * than cut short. A buffer of a few rows stands for one of many gigabytes: its address is moved back,
 * so that only rows at the far end lie in it. A kernel that counts in 32 bits reads elsewhere. */
#include "kernels/gpu_ops.h"
#include "tests/gguf_build.h"
#include "tests/gpu_arrays.h"

#include <math.h>

/* The address at which row `row` of row_bytes each would be p. */
static void *moved(void *p, uint64_t row, uint64_t row_bytes)
{
    return (void *)((uintptr_t)p - row * row_bytes);
}

enum { LAST = INT32_MAX - 1 }; /* the highest position and row there can be */

static void kv_append_reaches_the_last_position(void **state)
{
    NEED_STREAM();
    static const float k[3] = {1, 2, 3}, v[5] = {4, 5, 6, 7, 8};
    static const int32_t pos = LAST;
    float *dk = dev_new(k, sizeof k), *dv = dev_new(v, sizeof v), got[8];
    float *far_k = dev_new(NULL, sizeof k), *far_v = dev_new(NULL, sizeof v);
    int32_t *dpos = dev_new(&pos, sizeof pos);
    struct gpu_kv kv = {
        moved(far_k, LAST, sizeof k), moved(far_v, LAST, sizeof v), INT32_MAX, 1, 3, 5};
    must(gpu_kv_append(stream, &kv, dk, dv, dpos, 1));
    dev_get(got, far_k, sizeof k);
    dev_get(got + 3, far_v, sizeof v);
    assert_memory_equal(got, k, sizeof k);
    assert_memory_equal(got + 3, v, sizeof v);
    void *const p[] = {dk, dv, far_k, far_v, dpos};
    for (int i = 0; i < 5; i++)
        gpu_free(p[i]);
}

/* A window of two keys at the last position is one of two keys at position 1. */
static void attention_reaches_the_last_position(void **state)
{
    NEED_STREAM();
    static const float q[4] = {1, -2, 0.5f, 3}, k[8] = {1, 0, 2, 1, -1, 1, 0.25f, 0.5f};
    static const float v[6] = {3, 5, 7, 11, 13, 17};
    static const int32_t pos[2] = {1, LAST};
    static const struct gpu_attn a = {.n_head = 1, .scale = 0.5f, .window = 2};
    float *dq = dev_new(q, sizeof q), *dk = dev_new(k, sizeof k), *dv = dev_new(v, sizeof v);
    float *o = dev_new(NULL, 6 * sizeof *o), got[6];
    int32_t *dpos = dev_new(pos, sizeof pos);
    struct gpu_kv near = {dk, dv, 2, 1, 4, 3}, far = near;
    far.k = moved(dk, LAST - 1, 4 * sizeof *k);
    far.v = moved(dv, LAST - 1, 3 * sizeof *v);
    far.n_ctx = INT32_MAX;
    must(gpu_attention(stream, o, dq, &near, &a, dpos, 1));
    must(gpu_attention(stream, o + 3, dq, &far, &a, dpos + 1, 1));
    dev_get(got, o, sizeof got);
    assert_memory_equal(got, got + 3, 3 * sizeof *got);
    /* scores 0.5 * (1 + 1 + 3) and 0.5 * (-1 - 2 + 0.125 + 1.5): softmax of 2.5 and -0.6875 */
    double w = 1 / (1 + exp(-3.1875));
    for (int d = 0; d < 3; d++)
        assert_true(fabs(got[d] - (w * (double)v[d] + (1 - w) * (double)v[3 + d])) < 1e-5);
    void *const p[] = {dq, dk, dv, o, dpos};
    for (int i = 0; i < 5; i++)
        gpu_free(p[i]);
}

static void attention_mixes_the_widest_head(void **state)
{
    NEED_STREAM();
    enum { DV = 4096 };
    static const float k = 1;
    static const int32_t pos = 0;
    static const struct gpu_attn a = {.n_head = 1, .scale = 1};
    float *v = malloc(DV * sizeof *v), *got = malloc(DV * sizeof *got);
    for (int i = 0; i < DV; i++)
        v[i] = (float)(i - 100);
    float *dk = dev_new(&k, sizeof k), *dv = dev_new(v, DV * sizeof *v);
    float *o = dev_new(NULL, DV * sizeof *o);
    int32_t *dpos = dev_new(&pos, sizeof pos);
    struct gpu_kv kv = {dk, dv, 1, 1, 1, DV};
    must(gpu_attention(stream, o, dk, &kv, &a, dpos, 1));
    dev_get(got, o, DV * sizeof *got);
    assert_memory_equal(got, v, DV * sizeof *v); /* one key: all the weight */
    void *const p[] = {dk, dv, o, dpos};
    for (int i = 0; i < 4; i++)
        gpu_free(p[i]);
    free(v);
    free(got);
}

static void embed_reaches_the_last_row(void **state)
{
    NEED_STREAM();
    enum { N = 32, ROW = 34 }; /* one block of Q8_0 */
    static const int32_t id[2] = {0, LAST};
    uint8_t block[ROW];
    gguf_build_random_blocks(block, 8, 1, 1, 3);
    uint8_t *w = dev_new(block, ROW);
    float *y = dev_new(NULL, 2 * N * sizeof *y), got[2 * N];
    int32_t *did = dev_new(id, sizeof id);
    struct gpu_matrix near = {8, 1, N, w}, far = {8, INT32_MAX, N, moved(w, LAST, ROW)};
    must(gpu_embed(stream, y, &near, did, 1, 1));
    must(gpu_embed(stream, y + N, &far, did + 1, 1, 1));
    dev_get(got, y, sizeof got);
    assert_memory_equal(got, got + N, N * sizeof *got);
    assert_true(got[0] != 0 || got[1] != 0);
    gpu_free(w);
    gpu_free(y);
    gpu_free(did);
}

/* Sizes whose loops would not end in 32 bits, and grids that CUDA has not. */
static void launches_refuse_what_does_not_fit(void **state)
{
    NEED_STREAM();
    const uint64_t blocks = UINT64_C(0x80000000); /* one more than a grid is wide */
    const uint32_t half = UINT32_C(0x80000000);
    float *p = dev_new(NULL, 64);
    int32_t *i = dev_new(NULL, 64);
    struct gpu_matrix w = {0, 1, 1, p};
    struct gpu_kv kv = {p, p, 1, 1, 1, 1};
    struct gpu_attn a = {.n_head = 1, .scale = 1};
    refused(gpu_add(stream, p, p, 256 * blocks));
    refused(gpu_softcap(stream, p, 256 * blocks, 1));
    refused(gpu_act_mul(stream, p, p, p, 256 * blocks, GPU_SILU));
    refused(gpu_rmsnorm(stream, p, p, p, half, 1, 1));
    refused(gpu_rmsnorm(stream, p, p, p, 1, half, 1));
    refused(gpu_argmax(stream, i, p, half, 1));
    refused(gpu_argmax(stream, i, p, 1, half));
    refused(gpu_linear(stream, p, &w, NULL, 1, false, p, 8 * 65535 + 1));
    refused(gpu_embed(stream, p, &w, i, half, 1));
    w.n_in = half;
    refused(gpu_linear(stream, p, &w, NULL, 1, false, p, 1));
    refused(gpu_embed(stream, p, &w, i, 1, 1));
    w = (struct gpu_matrix){0, half, 1, p};
    refused(gpu_linear(stream, p, &w, NULL, 1, false, p, 1));
    refused(gpu_rope(stream, p, p, 1, 128 * 65535 + 2, true, i, 1, 1, half));
    refused(gpu_rope(stream, p, p, 1, 2, true, i, half, 1, 2));
    kv.n_ctx = half;
    refused(gpu_kv_append(stream, &kv, p, p, i, 1));
    refused(gpu_attention(stream, p, p, &kv, &a, i, 1));
    kv.n_ctx = 1;
    a.n_head = 65536;
    refused(gpu_attention(stream, p, p, &kv, &a, i, 32768));
    a.n_head = 1;
    kv.head_dim_k = half;
    refused(gpu_attention(stream, p, p, &kv, &a, i, 1));
    gpu_free(p);
    gpu_free(i);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kv_append_reaches_the_last_position),
        cmocka_unit_test(attention_reaches_the_last_position),
        cmocka_unit_test(attention_mixes_the_widest_head),
        cmocka_unit_test(embed_reaches_the_last_row),
        cmocka_unit_test(launches_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests_name("gpu_limits", tests, stream_open, stream_close);
}
