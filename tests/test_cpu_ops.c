/* infer/cpu: the reference ops against naive f64 code, and the backend's promise that no result
 * depends on threads, on how rows are split, or on the columns beside it. */
#include "infer/cpu/ops.h"
#include "infer/cpu/pool.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>
#include <stdatomic.h>

static float *random_floats(size_t n, float sigma, uint64_t seed)
{
    struct rng r;
    rng_init(&r, seed);
    float *p = malloc((n ? n : 1) * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = ((float)(rng_u64(&r) >> 40) * 0x1p-23f - 1) * sigma;
    return p;
}

/* --- dot ----------------------------------------------------------------------------------- */

/* The definition of ops.h, word for word. */
static double dot_by_definition(const float *w, const float *x, uint32_t n)
{
    double sum[16] = {0};
    for (uint32_t run = 0; run < n; run += 256) {
        float lane[16] = {0};
        for (uint32_t i = 0; i < 256 && run + i < n; i++) {
            volatile float product = w[run + i] * x[run + i];
            lane[i % 16] += product;
        }
        for (int j = 0; j < 16; j++)
            sum[j] += (double)lane[j];
    }
    for (int j = 0; j < 8; j++)
        sum[j] += sum[j + 8];
    for (int j = 0; j < 4; j++)
        sum[j] += sum[j + 4];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

static void dot_is_its_definition(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 800; n += n < 40 ? 1 : 37) {
        float *w = random_floats(n, 2, test_seed() + n), *x = random_floats(n, 3, n);
        double want = dot_by_definition(w, x, n), naive = 0, size = 0;
        for (uint32_t i = 0; i < n; i++) {
            naive += (double)w[i] * (double)x[i];
            size += fabs((double)w[i] * (double)x[i]);
        }
        assert_true(cpu_dot(w, x, n) == want);
        assert_true(fabs(want - naive) <= 1e-6 * size); /* 16 products per f32 lane */
        free(w);
        free(x);
    }
}

static void dot_reads_no_further_than_n(void **state)
{
    (void)state;
    for (uint32_t n = 1; n < 70; n++) {
        float *v = random_floats(n, 1, n);
        float *w = (float *)(void *)guard_new(v, n * sizeof *v);
        assert_true(cpu_dot(w, w, n) > 0);
        guard_free((uint8_t *)w, n * sizeof *v);
        free(v);
    }
}

/* --- norms, activations, small ones -------------------------------------------------------- */

static void rmsnorm_divides_by_root_mean_square(void **state)
{
    (void)state;
    /* By hand: x = (3, 4), mean of squares 12.5; eps 0.5 -> sqrt 13; w = (1, 2). */
    float x[] = {3, 4}, w[] = {1, 2}, y[2];
    cpu_rmsnorm_row(y, x, w, 2, 0.5f);
    assert_true(fabsf(y[0] - 0.83205029f) < 1e-7f);
    assert_true(fabsf(y[1] - 2.21880078f) < 3e-7f);
    cpu_rmsnorm_row(x, x, w, 2, 0.5f); /* in place */
    assert_memory_equal(x, y, sizeof y);
}

static void act_gives_silu_and_tanh_gelu(void **state)
{
    (void)state;
    /* silu(u) = u / (1 + e^-u); gelu's tanh form: 0.8411919906 at 1, -0.1588080094 at -1 (the
     * error-function form would give 0.8413447461). Computed with Python's math module. */
    float u[] = {0, 1, -1, 20, -100}, up[] = {1, 1, 2, 1, 1}, y[5];
    const float silu[] = {0, 0.7310585786f, -0.5378828428f, 19.9999999588f, 0};
    const float gelu[] = {0, 0.8411919906f, -0.3176160189f, 20, 0};
    cpu_act_mul(y, u, up, 5, BACKEND_SILU);
    for (int i = 0; i < 5; i++)
        assert_true(fabsf(y[i] - silu[i]) <= 1e-7f);
    cpu_act_mul(y, u, up, 5, BACKEND_GELU);
    for (int i = 0; i < 5; i++)
        assert_true(fabsf(y[i] - gelu[i]) <= 1e-7f);
}

static void softcap_bends_towards_the_cap(void **state)
{
    (void)state;
    float y[] = {0, 30, -3000}; /* 30 tanh(1) = 22.84782469 */
    cpu_softcap(y, 3, 30);
    assert_true(y[0] == 0);
    assert_true(fabsf(y[1] - 22.84782469f) < 1e-5f);
    assert_true(y[2] == -30);
}

static void argmax_takes_lowest_index_on_tie(void **state)
{
    (void)state;
    const float x[] = {-1, 5, 2, 5, 5}, low[] = {-3, -2}, zeros[] = {-0.0f, 0};
    assert_int_equal(cpu_argmax(x, 5), 1);
    assert_int_equal(cpu_argmax(low, 2), 1);
    assert_int_equal(cpu_argmax(zeros, 2), 0); /* -0 and 0 are a tie */
}

static void argmax_of_what_is_no_number_is_minus_one(void **state)
{
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 4; i++)
        for (size_t at = 0; at < 3; at++) {
            float x[] = {1, 3, 2};
            x[at] = bad[i];
            assert_int_equal(cpu_argmax(x, 3), -1);
        }
}

static void advance_makes_the_next_steps_inputs(void **state)
{
    (void)state;
    int32_t id = 7, pos = 1, best = 42, history[3] = {-5, -5, -5};
    cpu_advance(&id, &pos, &best, history, 3);
    assert_int_equal(id, 42);
    assert_int_equal(pos, 2);
    assert_int_equal(history[0], -5);
    assert_int_equal(history[1], 42);
    assert_int_equal(history[2], -5);
    pos = 2; /* past the room: nothing is stored, the rest goes on */
    cpu_advance(&id, &pos, &best, history, 2);
    assert_int_equal(pos, 3);
    assert_int_equal(history[2], -5);
}

/* --- linear -------------------------------------------------------------------------------- */

static void naive_linear(double *y, const struct backend_linear *l, const struct quant_type *qt,
                         const float *x, uint32_t n_tok)
{
    const struct backend_matrix *w = l->w;
    float *row = malloc(w->n_in * sizeof *row);
    for (uint32_t r = 0; r < w->n_out; r++) {
        qt->f32(row, (const uint8_t *)w->data + r * w->row_bytes, w->n_in / qt->block_len);
        double bias = l->bias ? (double)l->bias[r] : 0;
        for (uint32_t t = 0; t < n_tok; t++) {
            double d = 0;
            for (uint32_t i = 0; i < w->n_in; i++)
                d += (double)row[i] * (double)x[t * w->n_in + i];
            d = l->bias_first ? (d + bias) * (double)l->scale : d * (double)l->scale + bias;
            y[t * w->n_out + r] = d;
        }
    }
    free(row);
}

static void linear_agrees_with_f64_for_every_type(void **state)
{
    (void)state;
    enum { N_IN = 768, N_OUT = 24, N_TOK = 3 };
    int n_type = 0;
    for (uint32_t id = 0; id <= QUANT_ID_MAX; id++) {
        const struct quant_type *qt = quant_type(id);
        uint64_t row_bytes;
        if (!qt || !qt->f32)
            continue;
        n_type++;
        assert_true(quant_row_bytes(qt, N_IN, &row_bytes));
        void *data = malloc(N_OUT * row_bytes);
        gguf_build_random_blocks(data, id, N_OUT * (N_IN / qt->block_len), 0.5f, 7 + id);
        float *x = random_floats(N_IN * N_TOK, 1, id), *bias = random_floats(N_OUT, 1, 99);
        struct backend_matrix m = {id, N_OUT, N_IN, row_bytes, data};
        float y[N_TOK * N_OUT], row[N_IN];
        double want[N_TOK * N_OUT];
        for (int form = 0; form < 3; form++) {
            struct backend_linear l = {.w = &m,
                                       .bias = form ? bias : NULL,
                                       .scale = form ? -0.37f : 1,
                                       .bias_first = form == 2};
            cpu_linear_rows(y, &l, qt, x, N_TOK, 0, N_OUT, row);
            naive_linear(want, &l, qt, x, N_TOK);
            double err = 0, size = 0;
            for (int i = 0; i < N_TOK * N_OUT; i++) {
                err += ((double)y[i] - want[i]) * ((double)y[i] - want[i]);
                size += want[i] * want[i];
            }
            if (err > 1e-13 * size)
                fail_msg("%s form %d: NMSE %g", qt->name, form, err / size);
        }
        free(data);
        free(x);
        free(bias);
    }
    assert_true(n_type >= 11); /* engine.md section 2, F32, F16, BF16 */
}

static void linear_bits_depend_on_neither_split_nor_columns(void **state)
{
    (void)state;
    enum { N_IN = 288, N_OUT = 40, N_TOK = 5 };
    const struct quant_type *qt = quant_type(QUANT_Q4_1);
    uint64_t row_bytes;
    assert_true(quant_row_bytes(qt, N_IN, &row_bytes));
    void *data = malloc(N_OUT * row_bytes);
    gguf_build_random_blocks(data, QUANT_Q4_1, N_OUT * N_IN / 32, 0.5f, 3);
    float *x = random_floats(N_IN * N_TOK, 1, 5), row[N_IN];
    float whole[N_TOK * N_OUT], split[N_TOK * N_OUT], one[N_OUT];
    struct backend_matrix m = {QUANT_Q4_1, N_OUT, N_IN, row_bytes, data};
    struct backend_linear l = {.w = &m, .scale = 1};
    cpu_linear_rows(whole, &l, qt, x, N_TOK, 0, N_OUT, row);
    for (uint32_t r = 0; r < N_OUT; r += 7)
        cpu_linear_rows(split, &l, qt, x, N_TOK, r, r + 7 < N_OUT ? r + 7 : N_OUT, row);
    assert_memory_equal(whole, split, sizeof whole);
    for (uint32_t t = 0; t < N_TOK; t++) {
        cpu_linear_rows(one, &l, qt, x + t * N_IN, 1, 0, N_OUT, row);
        assert_memory_equal(one, whole + t * N_OUT, sizeof one);
    }
    free(data);
    free(x);
}

/* --- rope ---------------------------------------------------------------------------------- */

static void rope_turns_pairs_as_each_pairing_says(void **state)
{
    (void)state;
    /* omega = (1, 0.5), p = 3, mu = 2: angles 3 and 1.5. The fifth dimension is not rotated. */
    const float omega[] = {1, 0.5f};
    double c0 = 2 * cos(3), s0 = 2 * sin(3), c1 = 2 * cos(1.5), s1 = 2 * sin(1.5);
    struct backend_rope r = {.omega = omega, .mu = 2, .n_rot = 4};
    float x[] = {1, 2, 3, 4, 5};
    cpu_rope_token(x, &r, 3, 1, 5);
    const double norm[] = {1 * c0 - 2 * s0, 1 * s0 + 2 * c0, 3 * c1 - 4 * s1, 3 * s1 + 4 * c1, 5};
    for (int i = 0; i < 5; i++)
        assert_true(fabs((double)x[i] - norm[i]) < 1e-5);
    float y[] = {1, 2, 3, 4, 5};
    r.neox = true;
    cpu_rope_token(y, &r, 3, 1, 5);
    const double neox[] = {1 * c0 - 3 * s0, 2 * c1 - 4 * s1, 1 * s0 + 3 * c0, 2 * s1 + 4 * c1, 5};
    for (int i = 0; i < 5; i++)
        assert_true(fabs((double)y[i] - neox[i]) < 1e-5);
}

static void rope_leaves_scores_to_the_distance_alone(void **state)
{
    (void)state;
    enum { DIM = 64 };
    float omega[DIM / 2], *q = random_floats(DIM, 1, 1), *k = random_floats(DIM, 1, 2);
    for (int i = 0; i < DIM / 2; i++)
        omega[i] = powf(10000, -2.0f * (float)i / DIM);
    struct backend_rope r = {.omega = omega, .mu = 1, .n_rot = DIM, .neox = true};
    double first = 0;
    for (int at = 0; at < 3000; at += 700) {
        float a[DIM], b[DIM];
        memcpy(a, q, sizeof a);
        memcpy(b, k, sizeof b);
        cpu_rope_token(a, &r, at + 11, 1, DIM);
        cpu_rope_token(b, &r, at, 1, DIM);
        double d = cpu_dot(a, b, DIM);
        if (at == 0)
            first = d;
        assert_true(fabs(d - first) < 1e-4);
    }
    free(q);
    free(k);
}

/* --- attention ----------------------------------------------------------------------------- */

static void naive_attention(double *o, const float *q, const float *k, size_t ks, const float *v,
                            size_t vs, const struct backend_attn *a, int pos)
{
    double s[64], max = -HUGE_VAL, sum = 0;
    int first = a->window && pos + 1 > (int)a->window ? pos + 1 - (int)a->window : 0;
    for (int j = first; j <= pos; j++) {
        s[j] = 0;
        for (uint32_t d = 0; d < a->head_dim_k; d++)
            s[j] += (double)q[d] * (double)k[(size_t)j * ks + d];
        s[j] *= (double)a->scale;
        if (a->softcap > 0)
            s[j] = (double)a->softcap * tanh(s[j] / (double)a->softcap);
        max = fmax(max, s[j]);
    }
    for (int j = first; j <= pos; j++)
        sum += exp(s[j] - max);
    for (uint32_t d = 0; d < a->head_dim_v; d++) {
        o[d] = 0;
        for (int j = first; j <= pos; j++)
            o[d] += exp(s[j] - max) / sum * (double)v[(size_t)j * vs + d];
    }
}

static void attention_agrees_with_f64(void **state)
{
    (void)state;
    enum { DK = 24, DV = 40, N = 33, KS = 2 * DK, VS = 2 * DV };
    float *q = random_floats(DK, 3, 1), *k = random_floats(N * KS, 2, 2),
          *v = random_floats(N * VS, 1, 3), o[DV], score[N];
    double mix[DV], want[DV];
    const struct backend_attn form[] = {
        {1, 1, DK, DV, 0.2f, 0, 0},
        {1, 1, DK, DV, 0.2f, 0, 7},
        {1, 1, DK, DV, 0.2f, 5, 0},
        {1, 1, DK, DV, 0.2f, 5, 1}, /* a window of one: the value itself */
    };
    for (size_t f = 0; f < sizeof form / sizeof form[0]; f++)
        for (int pos = 0; pos < N; pos++) {
            cpu_attention_head(o, q, k, KS, v, VS, &form[f], pos, score, mix);
            naive_attention(want, q, k, KS, v, VS, &form[f], pos);
            for (int d = 0; d < DV; d++)
                assert_true(fabs((double)o[d] - want[d]) < 1e-6);
            if (form[f].window == 1)
                assert_memory_equal(o, v + (size_t)pos * VS, sizeof o);
        }
    free(q);
    free(k);
    free(v);
}

/* --- pool ---------------------------------------------------------------------------------- */

struct count_job {
    atomic_uint seen[1000];
    atomic_uint bad_thread;
    uint32_t n_thread;
};

static void count_items(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    struct count_job *j = ctx;
    if (thread >= j->n_thread)
        atomic_fetch_add(&j->bad_thread, 1);
    for (uint64_t i = begin; i < end; i++)
        atomic_fetch_add(&j->seen[i], 1);
}

static void pool_runs_every_item_once(void **state)
{
    (void)state;
    for (int n_thread = 1; n_thread <= 5; n_thread += 2) {
        struct pool *p;
        assert_int_equal(pool_new(&p, n_thread, NULL), 0);
        assert_int_equal(pool_n_thread(p), n_thread);
        for (uint64_t n = 0; n <= 1000; n += 125)
            for (int round = 0; round < 20; round++) {
                struct count_job *j = calloc(1, sizeof *j);
                j->n_thread = (uint32_t)n_thread;
                pool_run(p, count_items, j, n, 3);
                for (uint64_t i = 0; i < 1000; i++)
                    assert_int_equal(atomic_load(&j->seen[i]), i < n);
                assert_int_equal(atomic_load(&j->bad_thread), 0);
                free(j);
            }
        pool_free(p);
    }
}

static void pool_refuses_absurd_counts(void **state)
{
    (void)state;
    struct pool *p = NULL;
    struct err e;
    assert_int_equal(pool_new(&p, -1, &e), -EINVAL);
    assert_int_equal(pool_new(&p, 65, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "65"));
    assert_null(p);
}

/* --- the table ----------------------------------------------------------------------------- */

enum { T_TOK = 9, T_EMBD = 96, T_HEAD = 6, T_KV = 2, T_DIM = 16, T_VOCAB = 50 };

/* Every op once, on the same inputs; all outputs into one buffer. */
static void run_ops(struct backend *b, float *out, size_t n_out)
{
    const struct backend_ops *op = b->ops;
    const struct quant_type *qt = quant_type(QUANT_Q8_0);
    int32_t id[T_TOK], pos[T_TOK], best[T_TOK];
    struct backend_matrix w = {.type = QUANT_Q8_0, .n_out = T_VOCAB, .n_in = T_EMBD};
    assert_true(quant_row_bytes(qt, T_EMBD, &w.row_bytes));
    assert_int_equal(op->alloc(b, &w.data, T_VOCAB * w.row_bytes, "w"), 0);
    gguf_build_random_blocks(op->host_view(b, w.data), QUANT_Q8_0, T_VOCAB * T_EMBD / 32, 0.5f, 1);
    assert_int_equal(op->matrix_ready(b, &w), 0);
    for (int t = 0; t < T_TOK; t++) {
        id[t] = (t * 17) % T_VOCAB;
        pos[t] = t;
    }
    const struct backend_step st = {T_TOK, id, pos, 0};
    float *norm = random_floats(T_EMBD, 1, 2), omega[T_DIM / 2];
    for (int i = 0; i < T_DIM / 2; i++)
        omega[i] = 1.0f / (float)(1 + i);
    float *x = out, *h = x + T_TOK * T_EMBD, *logits = h + T_TOK * T_EMBD,
          *o = logits + T_TOK * T_VOCAB, *m = o + T_TOK * T_EMBD;
    assert_true((size_t)(m + T_TOK * T_EMBD - out) + T_TOK <= n_out);
    const struct backend_linear head = {.w = &w, .scale = 1}, *lin = &head;
    const struct backend_rope r = {omega, 1, T_DIM, true};
    const struct backend_attn a = {T_HEAD, T_KV, T_DIM, T_DIM, 0.25f, 0, 4};
    const struct backend_kv_layer dim = {T_KV, T_DIM, T_DIM, 4};
    struct backend_kv *kv;
    assert_int_equal(op->embed(b, x, &w, &st, 3), 0);
    assert_int_equal(op->rmsnorm(b, h, x, norm, T_TOK, T_EMBD, 1e-5f), 0);
    assert_int_equal(op->linear(b, &logits, &lin, 1, h, T_TOK), 0);
    assert_int_equal(op->kv_new(b, &kv, &dim, 1, 16), 0);
    assert_int_equal(op->rope(b, h, &r, &st, T_HEAD, T_DIM), 0);
    assert_int_equal(op->kv_append(b, kv, 0, x, h, &st), 0);
    assert_int_equal(op->attention(b, o, h, kv, 0, &a, &st), 0);
    assert_int_equal(op->act_mul(b, m, x, h, T_TOK * T_EMBD, BACKEND_GELU), 0);
    assert_int_equal(op->add(b, m, o, T_TOK * T_EMBD), 0);
    assert_int_equal(op->softcap(b, m, T_TOK * T_EMBD, 2), 0);
    assert_int_equal(op->argmax(b, best, logits, T_TOK, T_VOCAB), 0);
    assert_int_equal(op->sync(b), 0);
    for (int t = 0; t < T_TOK; t++)
        m[T_TOK * T_EMBD + t] = (float)best[t];
    op->kv_free(b, kv);
    op->release(b, w.data);
    free(norm);
}

static void backend_gives_the_same_bits_for_any_thread_count(void **state)
{
    (void)state;
    enum { N = 4 * T_TOK * T_EMBD + T_TOK * T_VOCAB + T_TOK };
    static float first[N], again[N];
    for (int n_thread = 1; n_thread <= 7; n_thread++) {
        struct backend *b;
        const struct backend_options opt = {.n_thread = n_thread};
        assert_int_equal(backend_open(&b, "cpu", &opt, NULL), 0);
        float *out = n_thread == 1 ? first : again;
        run_ops(b, out, N);
        if (n_thread > 1)
            assert_memory_equal(first, again, sizeof first);
        backend_close(b);
    }
}

static void backend_says_no_by_name(void **state)
{
    (void)state;
    struct backend *b = NULL;
    struct err e = {0};
    assert_int_equal(backend_open(&b, "tpu", NULL, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "tpu"));
    assert_int_equal(backend_open(&b, "cpu", NULL, &e), 0);
    void *p;
    assert_int_equal(b->ops->alloc(b, &p, UINT64_MAX - 8, "weights"), -ERANGE);
    assert_int_equal(backend_fail(b, -ERANGE, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "weights"));
    assert_true(b->ops->takes_type(b, QUANT_Q6_K));
    assert_false(b->ops->takes_type(b, 4));      /* withdrawn */
    assert_false(b->ops->takes_type(b, 0x1000)); /* APR's own */
    const struct backend_kv_layer big = {1 << 16, 1 << 16, 8, 0}, small = {1, 4, 4, 0};
    struct backend_kv *kv = NULL;
    assert_int_equal(b->ops->kv_new(b, &kv, &big, 1, 100), -ERANGE);
    assert_int_equal(b->ops->kv_new(b, &kv, &small, 1, 2), 0);
    int32_t pos = 2;
    float row[4] = {0};
    const struct backend_step st = {.n_tok = 1, .pos = &pos, .pos0 = 2};
    assert_int_equal(b->ops->kv_append(b, kv, 0, row, row, &st), -ERANGE);
    b->ops->kv_free(b, kv);
    backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot_is_its_definition),
        cmocka_unit_test(dot_reads_no_further_than_n),
        cmocka_unit_test(rmsnorm_divides_by_root_mean_square),
        cmocka_unit_test(act_gives_silu_and_tanh_gelu),
        cmocka_unit_test(softcap_bends_towards_the_cap),
        cmocka_unit_test(argmax_takes_lowest_index_on_tie),
        cmocka_unit_test(argmax_of_what_is_no_number_is_minus_one),
        cmocka_unit_test(advance_makes_the_next_steps_inputs),
        cmocka_unit_test(linear_agrees_with_f64_for_every_type),
        cmocka_unit_test(linear_bits_depend_on_neither_split_nor_columns),
        cmocka_unit_test(rope_turns_pairs_as_each_pairing_says),
        cmocka_unit_test(rope_leaves_scores_to_the_distance_alone),
        cmocka_unit_test(attention_agrees_with_f64),
        cmocka_unit_test(pool_runs_every_item_once),
        cmocka_unit_test(pool_refuses_absurd_counts),
        cmocka_unit_test(backend_gives_the_same_bits_for_any_thread_count),
        cmocka_unit_test(backend_says_no_by_name),
    };
    return cmocka_run_group_tests_name("cpu_ops", tests, NULL, NULL);
}
