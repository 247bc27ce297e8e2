/* kernels/: the ops but embed and linear (test_gpu_weights.c) against their CPU twins (infer/cpu/ops.h) in
 * odd shapes, refusals, streams and graphs. Runs on whatever stands behind gpu.h: a device, the
 * emulation, or nothing, in which case the one thing tested is that it says so. Shapes are small:
 * the emulation computes a few million weights a second. */
#include "infer/cpu/ops.h"
#include "kernels/gpu_ops.h"
#include "tests/gpu_arrays.h"

#include <errno.h>
#include <math.h>

/* The issue asks for 1e-7, and 1e-6 in attention. Measured: 0 to 2e-16; a device's exp, cos and
 * tanh in f64 are within 2 ulp, which after rounding to f32 is the same. */
#define GATE 1e-12

static void near(const char *what, const float *got, const float *want, size_t n)
{
    double d = nmse(got, want, n);
    if (!(d <= GATE))
        fail_msg("%s: NMSE %.3g over %zu elements", what, d, n);
}

/* --- without a GPU ------------------------------------------------------------------------- */

static void gpu_without_device_is_enodev(void **state)
{
    (void)state;
    struct gpu_info info;
    struct gpu_stream *s = NULL;
    if (stream) {
        must(gpu_device_info(&info));
        assert_true(info.name[0] && info.n_sm > 0 && info.mem_total >= info.mem_free);
        print_message("# %s, compute capability %d.%d, %d multiprocessors%s\n", info.name,
                      info.cc_major, info.cc_minor, info.n_sm, info.emulated ? ", emulated" : "");
        return;
    }
    assert_int_equal(gpu_device_info(&info), -ENODEV);
    assert_int_equal(gpu_stream_new(&s), -ENODEV);
    assert_null(s);
    assert_true(strlen(gpu_last_error()) > 0);
}

/* --- norm ---------------------------------------------------------------------------------- */

static void rmsnorm_agrees_with_twin(void **state)
{
    NEED_STREAM();
    static const struct {
        uint32_t n_row, n;
        float size;
    } c[] = {{1, 1, 1},     {3, 7, 1},   {2, 31, 1e-6f}, {5, 64, 1},
             {1, 255, 100}, {2, 256, 1}, {2, 901, 1}};
    struct rng r;
    rng_init(&r, 11);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        size_t n = (size_t)c[i].n_row * c[i].n;
        float *x = random_f32(&r, n, c[i].size), *w = random_f32(&r, c[i].n, 2);
        float *want = malloc(n * sizeof *want);
        for (uint32_t t = 0; t < c[i].n_row; t++)
            cpu_rmsnorm_row(want + t * c[i].n, x + t * c[i].n, w, c[i].n, 1e-6f);
        float *dx = dev_f32(x, n), *dw = dev_f32(w, c[i].n), *y = dev_f32(NULL, n);
        must(gpu_rmsnorm(stream, y, dx, dw, c[i].n_row, c[i].n, 1e-6f));
        must(gpu_rmsnorm(stream, dx, dx, dw, c[i].n_row, c[i].n, 1e-6f)); /* in place */
        float *got = dev_take(y, n * sizeof *got), *in_place = dev_take(dx, n * sizeof *got);
        near("rmsnorm", got, want, n);
        same_bits("rmsnorm in place", in_place, got, n);
        gpu_free(dw);
        free(x);
        free(w);
        free(want);
        free(got);
        free(in_place);
    }
    float *p = dev_f32(NULL, 8);
    refused(gpu_rmsnorm(stream, p, p, p, 0, 8, 1e-6f));
    refused(gpu_rmsnorm(stream, p, p, p, 1, 0, 1e-6f));
    gpu_free(p);
}

/* --- rope ---------------------------------------------------------------------------------- */

static void rope_agrees_with_twin(void **state)
{
    NEED_STREAM();
    static const struct {
        uint32_t n_head, head_dim, n_rot;
        bool neox;
        float mu;
    } c[] = {{1, 2, 2, true, 1},    {3, 64, 64, false, 1},   {3, 64, 64, true, 1},
             {2, 80, 32, false, 1}, {5, 80, 32, true, 1.2f}, {1, 200, 198, true, 1}};
    static const int32_t pos[3] = {0, 7, 100000};
    struct rng r;
    rng_init(&r, 12);
    int32_t *dpos = dev_new(pos, sizeof pos);
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        size_t row = (size_t)c[i].n_head * c[i].head_dim, half = c[i].n_rot / 2;
        float *x = random_f32(&r, 3 * row, 1), *omega = malloc(half * sizeof *omega);
        for (size_t k = 0; k < half; k++)
            omega[k] = (float)pow(10000, -2.0 * (double)k / c[i].n_rot);
        float *dx = dev_f32(x, 3 * row), *domega = dev_f32(omega, half);
        struct backend_rope br = {omega, c[i].mu, c[i].n_rot, c[i].neox};
        for (int t = 0; t < 3; t++)
            cpu_rope_token(x + t * row, &br, pos[t], c[i].n_head, c[i].head_dim);
        must(gpu_rope(stream, dx, domega, c[i].mu, c[i].n_rot, c[i].neox, dpos, 3, c[i].n_head,
                      c[i].head_dim));
        float *got = dev_take(dx, 3 * row * sizeof *got);
        near("rope", got, x, 3 * row);
        for (size_t k = c[i].n_rot; k < c[i].head_dim; k++) /* what is not turned */
            assert_true(got[k] == x[k]);
        gpu_free(domega);
        free(got);
        free(x);
        free(omega);
    }
    float *p = dev_f32(NULL, 64);
    refused(gpu_rope(stream, p, p, 1, 8, true, dpos, 0, 1, 8));
    refused(gpu_rope(stream, p, p, 1, 8, true, dpos, 1, 0, 8));
    refused(gpu_rope(stream, p, p, 1, 0, true, dpos, 1, 1, 8));
    refused(gpu_rope(stream, p, p, 1, 7, true, dpos, 1, 1, 8));
    refused(gpu_rope(stream, p, p, 1, 10, true, dpos, 1, 1, 8));
    gpu_free(p);
    gpu_free(dpos);
}

static void rope_of_negative_position_is_nan(void **state)
{
    NEED_STREAM();
    static const int32_t pos = -1;
    static const float x[4] = {1, 2, 3, 4}, omega[2] = {1, 0.1f};
    int32_t *dpos = dev_new(&pos, sizeof pos);
    float *dx = dev_f32(x, 4), *domega = dev_f32(omega, 2);
    must(gpu_rope(stream, dx, domega, 1, 4, true, dpos, 1, 1, 4));
    float *got = dev_take(dx, sizeof x);
    for (int i = 0; i < 4; i++)
        assert_true(isnan(got[i]));
    free(got);
    gpu_free(domega);
    gpu_free(dpos);
}

/* --- cache and attention ------------------------------------------------------------------- */

struct cache {
    struct gpu_kv kv;
    float *k, *v; /* host */
    size_t nk, nv;
};

/* A cache of n_ctx random rows. */
static void cache_new(struct cache *c, struct rng *r, uint32_t n_ctx, uint32_t n_head_kv,
                      uint32_t dk, uint32_t dv)
{
    c->nk = (size_t)n_head_kv * dk;
    c->nv = (size_t)n_head_kv * dv;
    c->k = random_f32(r, n_ctx * c->nk, 1);
    c->v = random_f32(r, n_ctx * c->nv, 1);
    c->kv = (struct gpu_kv){
        dev_f32(c->k, n_ctx * c->nk), dev_f32(c->v, n_ctx * c->nv), n_ctx, n_head_kv, dk, dv};
}

static void cache_free(struct cache *c)
{
    gpu_free(c->kv.k);
    gpu_free(c->kv.v);
    free(c->k);
    free(c->v);
}

static void kv_append_stores_rows(void **state)
{
    NEED_STREAM();
    enum { CTX = 9, TOK = 4 };
    static const int32_t pos[TOK] = {3, 8, 9, -1}; /* the last two have no place */
    struct rng r;
    struct cache c;
    rng_init(&r, 21);
    cache_new(&c, &r, CTX, 3, 50, 7);
    float *k = random_f32(&r, TOK * c.nk, 1), *v = random_f32(&r, TOK * c.nv, 1);
    float *dk = dev_f32(k, TOK * c.nk), *dv = dev_f32(v, TOK * c.nv);
    int32_t *dpos = dev_new(pos, sizeof pos);
    must(gpu_kv_append(stream, &c.kv, dk, dv, dpos, TOK));
    for (int t = 0; t < 2; t++) {
        memcpy(c.k + (size_t)pos[t] * c.nk, k + t * c.nk, c.nk * sizeof *k);
        memcpy(c.v + (size_t)pos[t] * c.nv, v + t * c.nv, c.nv * sizeof *v);
    }
    float *got_k = dev_take(c.kv.k, CTX * c.nk * sizeof *k);
    float *got_v = dev_take(c.kv.v, CTX * c.nv * sizeof *v);
    c.kv.k = c.kv.v = NULL;
    same_bits("keys", got_k, c.k, CTX * c.nk);
    same_bits("values", got_v, c.v, CTX * c.nv);
    refused(gpu_kv_append(stream, &c.kv, dk, dv, dpos, 0));
    refused(gpu_kv_append(stream, &c.kv, dk, dv, dpos, CTX + 1));
    c.kv.head_dim_v = 0;
    refused(gpu_kv_append(stream, &c.kv, dk, dv, dpos, 1));
    gpu_free(dk);
    gpu_free(dv);
    gpu_free(dpos);
    free(k);
    free(v);
    free(got_k);
    free(got_v);
    cache_free(&c);
}

struct attention_case {
    uint32_t n_head, n_head_kv, dk, dv, window;
    float softcap;
};

static void attention_check(const struct attention_case *c)
{
    enum { CTX = 300, TOK = 5 };
    static const int32_t pos[TOK] = {0, 1, 127, 128, 299}; /* chunks are 128 keys */
    struct rng r;
    struct cache kv;
    rng_init(&r, c->n_head * 1000 + c->dk + c->window);
    cache_new(&kv, &r, CTX, c->n_head_kv, c->dk, c->dv);
    struct backend_attn ba = {c->n_head,  c->n_head_kv, c->dk, c->dv, 3 / sqrtf((float)c->dk),
                              c->softcap, c->window};
    struct gpu_attn ga = {c->n_head, ba.scale, c->softcap, c->window};
    size_t nq = (size_t)c->n_head * c->dk, no = (size_t)c->n_head * c->dv;
    float *q = random_f32(&r, TOK * nq, 2), *want = malloc(TOK * no * sizeof *want);
    float score[CTX];
    double *mix = malloc(c->dv * sizeof *mix);
    for (uint32_t t = 0; t < TOK; t++)
        for (uint32_t h = 0; h < c->n_head; h++) {
            uint32_t g = h * c->n_head_kv / c->n_head;
            cpu_attention_head(want + t * no + h * c->dv, q + t * nq + h * c->dk, kv.k + g * c->dk,
                               kv.nk, kv.v + g * c->dv, kv.nv, &ba, pos[t], score, mix);
        }
    int32_t *dpos = dev_new(pos, sizeof pos);
    float *dq = dev_f32(q, TOK * nq), *o = dev_f32(NULL, TOK * no), *one = dev_f32(NULL, no);
    must(gpu_attention(stream, o, dq, &kv.kv, &ga, dpos, TOK));
    must(gpu_attention(stream, one, dq + 4 * nq, &kv.kv, &ga, dpos + 4, 1)); /* the last, alone */
    float *got = dev_take(o, TOK * no * sizeof *got), *alone = dev_take(one, no * sizeof *got);
    near("attention", got, want, TOK * no);
    same_bits("a token alone", alone, got + 4 * no, no);
    gpu_free(dq);
    gpu_free(dpos);
    free(q);
    free(want);
    free(mix);
    free(got);
    free(alone);
    cache_free(&kv);
}

static void attention_agrees_with_twin(void **state)
{
    NEED_STREAM();
    static const struct attention_case c[] = {
        {1, 1, 1, 1, 0, 0},     {2, 2, 64, 64, 0, 0},  {6, 2, 17, 33, 0, 0},
        {3, 1, 64, 64, 1, 0},   {4, 2, 48, 48, 50, 0}, {2, 1, 80, 80, 128, 0},
        {2, 1, 80, 80, 129, 0}, {2, 2, 40, 40, 0, 5},  {4, 1, 260, 130, 200, 2}};
    for (size_t i = 0; i < sizeof c / sizeof *c; i++)
        attention_check(&c[i]);
}

static void attention_refuses_bad_shapes(void **state)
{
    NEED_STREAM();
    struct rng r;
    struct cache c;
    rng_init(&r, 1);
    cache_new(&c, &r, 4, 2, 8, 8);
    static const int32_t pos[3] = {4, -1, 3};
    int32_t *dpos = dev_new(pos, sizeof pos);
    static const float zero[3 * 4 * 8];
    float *q = dev_f32(zero, 3 * 4 * 8), *o = dev_f32(NULL, 3 * 4 * 8);
    struct gpu_attn a = {4, 1, 0, 0}, bad = a;
    refused(gpu_attention(stream, o, q, &c.kv, &a, dpos, 0));
    bad.n_head = 0;
    refused(gpu_attention(stream, o, q, &c.kv, &bad, dpos, 1));
    bad.n_head = 1; /* fewer than the cache has */
    refused(gpu_attention(stream, o, q, &c.kv, &bad, dpos, 1));
    bad = a;
    bad.softcap = -1;
    refused(gpu_attention(stream, o, q, &c.kv, &bad, dpos, 1));
    struct gpu_kv kv = c.kv;
    kv.head_dim_v = 4097;
    refused(gpu_attention(stream, o, q, &kv, &a, dpos, 1));
    kv = c.kv;
    kv.head_dim_k = 0;
    refused(gpu_attention(stream, o, q, &kv, &a, dpos, 1));
    kv = c.kv;
    kv.n_ctx = 0;
    refused(gpu_attention(stream, o, q, &kv, &a, dpos, 1));
    /* positions out of the cache: NaN, not what lies behind it */
    must(gpu_attention(stream, o, q, &c.kv, &a, dpos, 3));
    float *got = dev_take(o, 3 * 4 * 8 * sizeof *got);
    for (int i = 0; i < 96; i++)
        assert_int_equal(isnan(got[i]) != 0, i < 64);
    free(got);
    gpu_free(q);
    gpu_free(dpos);
    cache_free(&c);
}

/* --- element by element -------------------------------------------------------------------- */

static void act_mul_agrees_with_twin(void **state)
{
    NEED_STREAM();
    static const size_t n_of[] = {1, 255, 256, 257, 1000};
    struct rng r;
    rng_init(&r, 31);
    for (int i = 0; i < 10; i++) {
        size_t n = n_of[i / 2];
        bool gelu = i % 2;
        float *gate = random_f32(&r, n, 8), *up = random_f32(&r, n, 2), *want = malloc(n * 4);
        cpu_act_mul(want, gate, up, n, gelu ? BACKEND_GELU : BACKEND_SILU);
        float *dg = dev_f32(gate, n), *du = dev_f32(up, n);
        must(gpu_act_mul(stream, dg, dg, du, n, gelu ? GPU_GELU : GPU_SILU));
        float *got = dev_take(dg, n * sizeof *got);
        near(gelu ? "geglu" : "swiglu", got, want, n);
        gpu_free(du);
        free(gate);
        free(up);
        free(want);
        free(got);
    }
    float *p = dev_f32(NULL, 4);
    refused(gpu_act_mul(stream, p, p, p, 0, GPU_SILU));
    refused(gpu_act_mul(stream, p, p, p, 4, (enum gpu_act)7));
    gpu_free(p);
}

static void add_and_softcap_agree_with_twins(void **state)
{
    NEED_STREAM();
    static const size_t n_of[] = {1, 255, 256, 257, 1000};
    struct rng r;
    rng_init(&r, 32);
    for (int i = 0; i < 5; i++) {
        size_t n = n_of[i];
        float *x = random_f32(&r, n, 1e-3f), *y = random_f32(&r, n, 60);
        float *dx = dev_f32(x, n), *sum = dev_f32(y, n), *cap = dev_f32(y, n);
        must(gpu_add(stream, sum, dx, n));
        must(gpu_softcap(stream, cap, n, 30));
        float *got_sum = dev_take(sum, n * sizeof *x), *got_cap = dev_take(cap, n * sizeof *x);
        float *want = malloc(n * sizeof *want);
        memcpy(want, y, n * sizeof *want);
        cpu_add(want, x, n);
        same_bits("add", got_sum, want, n);
        memcpy(want, y, n * sizeof *want);
        cpu_softcap(want, n, 30);
        near("softcap", got_cap, want, n);
        gpu_free(dx);
        free(x);
        free(y);
        free(want);
        free(got_sum);
        free(got_cap);
    }
    float *p = dev_f32(NULL, 4);
    refused(gpu_add(stream, p, p, 0));
    refused(gpu_softcap(stream, p, 0, 1));
    refused(gpu_softcap(stream, p, 4, 0));
    refused(gpu_softcap(stream, p, 4, NAN));
    gpu_free(p);
}

static void argmax_equals_twin(void **state)
{
    NEED_STREAM();
    static const uint32_t n_of[] = {1, 2, 31, 255, 256, 257, 1500};
    enum { ROWS = 8 };
    struct rng r;
    rng_init(&r, 33);
    for (size_t i = 0; i < sizeof n_of / sizeof *n_of; i++) {
        uint32_t n = n_of[i];
        float *x = random_f32(&r, (size_t)ROWS * n, 1);
        x[n - 1] = 2; /* row 0: the last */
        for (uint32_t k = 0; k < n; k++) {
            x[n + k] = k % 7 == 3 ? 5.0f : x[n + k]; /* row 1: ties */
            x[2 * n + k] = k % 2 ? 0.0f : -0.0f;     /* row 2: all equal */
            x[3 * n + k] = k == n / 2 ? -9 : NAN;    /* row 3: one number */
        }
        x[4 * n] = NAN; /* rows 4 to 7: one that is none */
        x[5 * n + n - 1] = INFINITY;
        x[6 * n + n / 2] = -INFINITY;
        x[7 * n + n - 1] = -NAN;
        float *dx = dev_f32(x, (size_t)ROWS * n);
        int32_t *out = dev_new(NULL, ROWS * sizeof *out);
        must(gpu_argmax(stream, out, dx, ROWS, n));
        int32_t *got = dev_take(out, ROWS * sizeof *out);
        for (int k = 0; k < ROWS; k++)
            assert_int_equal(got[k], cpu_argmax(x + (size_t)k * n, n));
        assert_int_equal(got[0], n - 1);
        assert_int_equal(got[2], 0);
        for (int k = n > 1 ? 3 : 4; k < ROWS; k++)
            assert_int_equal(got[k], -1);
        gpu_free(dx);
        free(got);
        free(x);
    }
    float *p = dev_f32(NULL, 4);
    int32_t *out = dev_new(NULL, 4);
    refused(gpu_argmax(stream, out, p, 0, 4));
    refused(gpu_argmax(stream, out, p, 1, 0));
    gpu_free(p);
    gpu_free(out);
}

/* --- streams and graphs -------------------------------------------------------------------- */

/* One recorded step, replayed: embed by the id on the device, norm, head, argmax, advance. Nothing
 * comes from the host between steps; the tokens must be those of the CPU's twins. */
static void graph_replays_a_greedy_step(void **state)
{
    NEED_STREAM();
    enum { VOCAB = 40, EMBD = 64, STEPS = 12 };
    struct weights w;
    struct rng r;
    rng_init(&r, 41);
    weights_new(&w, QUANT_Q8_0, VOCAB, EMBD, 9);
    float *norm = random_f32(&r, EMBD, 1), *head_f = random_f32(&r, VOCAB * EMBD, 1);
    struct gpu_matrix head = {QUANT_F32, VOCAB, EMBD, dev_f32(head_f, VOCAB * EMBD)};
    int32_t start[2] = {7, 0}, want[STEPS], id = 7;
    int32_t *st = dev_new(start, sizeof start), *best = dev_new(NULL, 4);
    int32_t *history = dev_new(NULL, sizeof want);
    float *dnorm = dev_f32(norm, EMBD), *x = dev_f32(NULL, EMBD), *logits = dev_f32(NULL, VOCAB);
    struct gpu_graph *g = NULL;
    must(gpu_graph_begin(stream));
    must(gpu_embed(stream, x, &w.dev, st, 1, 1));
    must(gpu_rmsnorm(stream, x, x, dnorm, 1, EMBD, 1e-5f));
    must(gpu_linear(stream, logits, &head, NULL, 1, false, x, 1));
    must(gpu_argmax(stream, best, logits, 1, VOCAB));
    must(gpu_advance(stream, st, st + 1, best, history, STEPS));
    must(gpu_graph_end(stream, &g));
    for (int i = 0; i < STEPS; i++)
        must(gpu_graph_launch(g, stream));
    for (int i = 0; i < STEPS; i++) {
        float row[EMBD], y[VOCAB];
        cpu_embed_row(row, &w.host, w.qt, (uint32_t)id, 1);
        cpu_rmsnorm_row(row, row, norm, EMBD, 1e-5f);
        for (int k = 0; k < VOCAB; k++)
            y[k] = (float)cpu_dot(head_f + k * EMBD, row, EMBD);
        want[i] = id = cpu_argmax(y, VOCAB);
    }
    int32_t *got = dev_take(history, sizeof want), *end = dev_take(st, sizeof start);
    for (int i = 0; i < STEPS; i++)
        assert_in_range(want[i], 0, VOCAB - 1);
    assert_memory_equal(got, want, sizeof want);
    assert_int_equal(end[0], id);
    assert_int_equal(end[1], STEPS);
    gpu_graph_free(g);
    gpu_free((void *)(uintptr_t)head.data);
    gpu_free(best);
    gpu_free(dnorm);
    gpu_free(x);
    gpu_free(logits);
    free(norm);
    free(head_f);
    free(got);
    free(end);
    weights_free(&w);
}

static void graph_with_allocation_fails(void **state)
{
    NEED_STREAM();
    void *p = NULL;
    struct gpu_graph *g = NULL;
    float *x = dev_f32(NULL, 4);
    must(gpu_graph_begin(stream));
    int rc = gpu_stream_sync(stream); /* no waiting while recording */
    assert_int_equal(rc, -EIO);
    assert_int_equal(gpu_graph_end(stream, &g), -EIO);
    assert_null(g);
    must(gpu_alloc(&p, 16)); /* and all is well again */
    must(gpu_zero(stream, x, 16));
    float *got = dev_take(x, 16);
    assert_true(got[0] == 0 && got[3] == 0);
    free(got);
    gpu_free(p);
}

static void event_orders_two_streams(void **state)
{
    NEED_STREAM();
    enum { N = 1000 };
    struct gpu_stream *second;
    struct gpu_event *ready;
    struct rng r;
    rng_init(&r, 43);
    float *x = random_f32(&r, N, 1), *dx = dev_f32(x, N), *y = dev_f32(NULL, N);
    void *pinned;
    must(gpu_host_alloc(&pinned, N * sizeof *x));
    must(gpu_stream_new(&second));
    must(gpu_event_new(&ready));
    must(gpu_zero(stream, y, N * sizeof *y));
    must(gpu_add(stream, y, dx, N));
    must(gpu_event_record(ready, stream));
    must(gpu_event_wait(second, ready));
    must(gpu_add(second, y, dx, N));
    must(gpu_download(second, pinned, y, N * sizeof *y));
    must(gpu_event_record(ready, second));
    must(gpu_event_sync(ready));
    const float *got = pinned;
    for (int i = 0; i < N; i++)
        assert_true(got[i] == x[i] + x[i]);
    gpu_event_free(ready);
    gpu_stream_free(second);
    gpu_host_free(pinned);
    gpu_free(dx);
    gpu_free(y);
    free(x);
}

static void memory_refuses_what_cannot_be(void **state)
{
    NEED_STREAM();
    void *p = NULL;
    struct gpu_info info;
    refused(gpu_alloc(&p, 0));
    refused(gpu_alloc(&p, UINT64_MAX));
    refused(gpu_host_alloc(&p, 0));
    must(gpu_device_info(&info));
    assert_int_equal(gpu_alloc(&p, info.mem_total + 1), -ENOMEM);
    char total[32]; /* the message has the numbers */
    snprintf(total, sizeof total, "%llu", (unsigned long long)info.mem_total + 1);
    assert_non_null(strstr(gpu_last_error(), total));
    assert_null(p);
    gpu_free(NULL);
    gpu_host_free(NULL);
    gpu_stream_free(NULL);
    gpu_event_free(NULL);
    gpu_graph_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_without_device_is_enodev),
        cmocka_unit_test(rmsnorm_agrees_with_twin),
        cmocka_unit_test(rope_agrees_with_twin),
        cmocka_unit_test(rope_of_negative_position_is_nan),
        cmocka_unit_test(kv_append_stores_rows),
        cmocka_unit_test(attention_agrees_with_twin),
        cmocka_unit_test(attention_refuses_bad_shapes),
        cmocka_unit_test(act_mul_agrees_with_twin),
        cmocka_unit_test(add_and_softcap_agree_with_twins),
        cmocka_unit_test(argmax_equals_twin),
        cmocka_unit_test(graph_replays_a_greedy_step),
        cmocka_unit_test(graph_with_allocation_fails),
        cmocka_unit_test(event_orders_two_streams),
        cmocka_unit_test(memory_refuses_what_cannot_be),
    };
    return cmocka_run_group_tests_name("gpu_ops", tests, stream_open, stream_close);
}
