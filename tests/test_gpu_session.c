/* Sessions on both backends: what they hold, what they hand out and refuse, what crosses to and from
 * the device; and on the device the recorded step: the same bits as op by op, recorded once. */
#include "infer/text/sampler.h"
#include "tests/loaded.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

static char *dir; /* holds the models */

/* One test body, a test on each backend. */
#define ON_BOTH(name)                                                                              \
    static void name##_on_cpu(void **state)                                                        \
    {                                                                                              \
        (void)state;                                                                               \
        name("cpu");                                                                               \
    }                                                                                              \
    static void name##_on_gpu(void **state)                                                        \
    {                                                                                              \
        NEED_GPU();                                                                                \
        name("gpu");                                                                               \
    }

/* --- an op table that counts, and fails where told ---------------------------------------- */

static struct {
    const struct backend_ops *under;
    struct backend_ops ops;
    int n_begin, n_end, n_replay;
    bool recording;
    int fail_add; /* the n-th add of a recording fails; 0: none */
    size_t up, down;
    uint32_t kv_pos;
} seen;

static int seen_begin(struct backend *b)
{
    seen.n_begin++;
    seen.recording = true;
    return seen.under->record_begin(b);
}

static int seen_end(struct backend *b, struct backend_graph **g)
{
    seen.n_end++;
    seen.recording = false;
    return seen.under->record_end(b, g);
}

static int seen_replay(struct backend *b, struct backend_graph *g)
{
    seen.n_replay++;
    return seen.under->replay(b, g);
}

static int seen_add(struct backend *b, float *y, const float *x, uint64_t n)
{
    if (seen.recording && seen.fail_add && --seen.fail_add == 0)
        return err_set(&b->e, -EIO, "add: refused by the test");
    return seen.under->add(b, y, x, n);
}

static int seen_upload(struct backend *b, void *dst, uint64_t off, const void *src, size_t n)
{
    seen.up += n;
    return seen.under->upload(b, dst, off, src, n);
}

static int seen_download(struct backend *b, void *dst, const void *src, size_t n)
{
    seen.down += n;
    return seen.under->download(b, dst, src, n);
}

static int seen_kv_new(struct backend *b, struct backend_kv **kv,
                       const struct backend_kv_layer *layer, uint32_t n_layer, uint32_t n_pos)
{
    seen.kv_pos = n_pos;
    return seen.under->kv_new(b, kv, layer, n_layer, n_pos);
}

static void watch(struct backend *b)
{
    memset(&seen, 0, sizeof seen);
    seen.under = b->ops;
    seen.ops = *b->ops;
    if (b->ops->record_begin) {
        seen.ops.record_begin = seen_begin;
        seen.ops.record_end = seen_end;
        seen.ops.replay = seen_replay;
    }
    seen.ops.add = seen_add;
    seen.ops.upload = seen_upload;
    seen.ops.download = seen_download;
    seen.ops.kv_new = seen_kv_new;
    b->ops = &seen.ops;
}

/* The tiny models' ids on smaller models: what is tested here is who runs what, and slow builds of the
 * emulation run it too. The tiny models step by step: test_gpu_forward. */
enum { EMBD = 64 }; /* gguf_build_defaults() */

static struct gguf_build *small_model(const char *family)
{
    struct gguf_build_opt o = gguf_build_defaults(family);
    o.seed = 41;
    o.n_ff = 64;
    o.type_embd = 7; /* Q5_1 */
    if (strcmp(family, "gemma3") == 0)
        o.sliding_window = 8;
    return gguf_build_llama_like(family, &o);
}

static void open_small(struct loaded *g, const char *family, const char *backend, int n_thread,
                       uint32_t n_ctx)
{
    char name[64];
    snprintf(name, sizeof name, "small-%s.gguf", family);
    char *path = path_join(dir, name);
    struct gguf_build *b = small_model(family);
    gguf_build_file(b, path);
    gguf_build_free(b);
    loaded_open(g, path, backend, n_thread, n_ctx);
    free(path);
}

static struct session *session(const struct loaded *g, const struct session_options *opt)
{
    struct session *s;
    struct err e = {0};
    if (session_new(&s, g->m, opt, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

static void eval(struct session *s, const int32_t *id, size_t n)
{
    struct err e = {0};
    if (session_eval(s, id, n, &e) < 0)
        fail_msg("%s", e.msg);
}

static const float *logits(struct session *s)
{
    const float *row = NULL;
    struct err e = {0};
    if (session_logits(s, &row, &e) < 0)
        fail_msg("%s", e.msg);
    return row;
}

/* --- the recorded step --------------------------------------------------------------------- */

/* A prompt, tokens one by one, more prompt, tokens one by one; longer than gemma3's window of 8. */
static const int mixed[] = {4, 1, 1, 1, 3, 1, 1, 0};
enum { MIXED = 12, MIXED_SINGLE = 5 };

static void graph_is_recorded_once_and_changes_no_bit(void **state)
{
    NEED_GPU();
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    for (size_t f = 0; f < 4; f++) {
        struct loaded cpu, g;
        open_small(&cpu, tiny_families[f], "cpu", 1, 64);
        open_small(&g, tiny_families[f], "gpu", 1, 64);
        size_t n = MIXED * g.m->c.n_vocab;
        float *want = loaded_rows(&cpu, NULL, id, MIXED, NULL);
        const struct session_options direct = {.no_graph = true};
        watch(g.b);
        float *op_by_op = loaded_rows(&g, &direct, id, MIXED, mixed);
        assert_int_equal(seen.n_begin, 0);
        assert_int_equal(seen.n_replay, 0);
        float *replayed = loaded_rows(&g, NULL, id, MIXED, mixed);
        assert_int_equal(seen.n_begin, 1);
        assert_int_equal(seen.n_end, 1);
        assert_int_equal(seen.n_replay, MIXED_SINGLE - 1); /* the first loads the kernels */
        assert_memory_equal(replayed, op_by_op, n * sizeof *want);
        assert_true(nmse(replayed, want, n) <= 1e-11);
        free(want);
        free(op_by_op);
        free(replayed);
        loaded_close(&cpu);
        loaded_close(&g);
    }
}

/* Two sessions of one model, step by step in turn: each has its own recording, cache and state. */
static void graphs_of_two_sessions_do_not_meet(void **state)
{
    NEED_GPU();
    enum { N = 4 };
    struct loaded g;
    int32_t id[2][TINY_N_TOK];
    tiny_ids(id[0]);
    for (int i = 0; i < TINY_N_TOK; i++)
        id[1][i] = id[0][TINY_N_TOK - 1 - i];
    open_small(&g, "llama", "gpu", 1, 64);
    size_t n = g.m->c.n_vocab, bytes = n * sizeof(float);
    struct session *s[2] = {session(&g, NULL), session(&g, NULL)};
    float *want[2];
    for (int k = 0; k < 2; k++)
        want[k] = loaded_rows(&g, &(struct session_options){.no_graph = true}, id[k], N, NULL);
    watch(g.b);
    for (int i = 0; i < N; i++)
        for (int k = 0; k < 2; k++) {
            eval(s[k], &id[k][i], 1);
            assert_memory_equal(logits(s[k]), want[k] + (size_t)i * n, bytes);
        }
    assert_int_equal(seen.n_begin, 2);
    for (int k = 0; k < 2; k++) {
        session_free(s[k]);
        free(want[k]);
    }
    loaded_close(&g);
}

/* A greedy run: nothing goes up, 4 bytes come down, and each token is the CPU's. */
static void greedy_run_moves_four_bytes_a_token(void **state)
{
    NEED_GPU();
    enum { PROMPT = 5, N = 4 };
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    for (size_t f = 0; f < 4; f++) {
        struct loaded cpu, gpu;
        open_small(&cpu, tiny_families[f], "cpu", 1, 64);
        open_small(&gpu, tiny_families[f], "gpu", 1, 64);
        struct session *a = session(&cpu, NULL), *b = session(&gpu, NULL);
        watch(gpu.b);
        eval(a, id, PROMPT);
        eval(b, id, PROMPT);
        for (int i = 0; i < N; i++) {
            int32_t best = session_best(b);
            assert_int_equal(best, session_best(a));
            seen.up = seen.down = 0;
            eval(a, &best, 1);
            eval(b, &best, 1);
            assert_int_equal(seen.up, i == 0 ? 8 : 0); /* id and position, after a prompt */
            assert_int_equal(seen.down, 4);
        }
        assert_int_equal(seen.n_begin, 1);
        assert_int_equal(seen.n_replay, N - 1);

        seen.up = seen.down = 0;
        int32_t other = (session_best(b) + 1) % (int32_t)gpu.m->c.n_vocab;
        eval(a, &other, 1);
        eval(b, &other, 1);
        assert_int_equal(seen.up, 4); /* the id alone */
        assert_int_equal(session_best(b), session_best(a));
        size_t bytes = gpu.m->c.n_vocab * sizeof(float);
        assert_true(nmse(logits(b), logits(a), gpu.m->c.n_vocab) <= 1e-11);
        logits(b);
        assert_int_equal(seen.down, 4 + bytes); /* once */
        session_free(a);
        session_free(b);
        loaded_close(&cpu);
        loaded_close(&gpu);
    }
}

/* A recording that breaks off is told with its reason, and the session goes on. */
static void graph_that_fails_while_recorded_can_be_tried_again(void **state)
{
    NEED_GPU();
    struct loaded g;
    int32_t id[TINY_N_TOK];
    struct err e = {0};
    tiny_ids(id);
    open_small(&g, "gemma3", "gpu", 1, 64);
    size_t n = g.m->c.n_vocab;
    float *want = loaded_rows(&g, &(struct session_options){.no_graph = true}, id, 8, NULL);
    watch(g.b);
    struct session *s = session(&g, NULL);
    eval(s, id, 3);
    eval(s, id + 3, 1);
    seen.fail_add = 2;
    assert_int_equal(session_eval(s, id + 4, 1, &e), -EIO);
    assert_non_null(strstr(e.msg, "refused by the test"));
    assert_int_equal(seen.n_begin, 1);
    assert_int_equal(seen.n_end, 1);
    assert_int_equal(session_n_past(s), 4);
    assert_int_equal(session_best(s), -1);
    const float *row;
    assert_int_equal(session_logits(s, &row, &e), -EINVAL);
    for (int i = 4; i < 8; i++) {
        eval(s, id + i, 1);
        assert_memory_equal(logits(s), want + (size_t)i * n, n * sizeof *want);
    }
    assert_int_equal(seen.n_begin, 2);
    assert_int_equal(seen.n_replay, 4);
    session_free(s);
    free(want);
    loaded_close(&g);
}

/* --- what a session holds ------------------------------------------------------------------ */

static void session_holds_the_positions_asked_for(const char *backend)
{
    struct loaded g;
    struct err e = {0};
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    open_small(&g, "llama", backend, 1, 64);
    watch(g.b);
    static const struct {
        uint32_t asked, held;
    } size[] = {{0, 64}, {1, 1}, {10, 10}, {64, 64}, {65, 64}, {UINT32_MAX, 64}};
    for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
        struct session *s = session(&g, &(struct session_options){.n_pos = size[i].asked});
        assert_int_equal(session_n_pos(s), size[i].held);
        assert_int_equal(session_n_ctx(s), 64);
        assert_int_equal(seen.kv_pos, size[i].held);
        session_free(s);
    }
    struct session *s = session(&g, &(struct session_options){.n_pos = 10});
    assert_int_equal(session_eval(s, id, 11, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "11 tokens after 0"));
    assert_non_null(strstr(e.msg, "the 10 positions"));
    assert_non_null(strstr(e.msg, "context 64"));
    assert_int_equal(session_n_past(s), 0);
    eval(s, id, 7);
    for (int i = 7; i < 10; i++)
        eval(s, id + i, 1);
    assert_int_equal(session_eval(s, id + 10, 1, &e), -ERANGE);
    assert_int_equal(session_n_past(s), 10);
    session_free(s);
    loaded_close(&g);
}
ON_BOTH(session_holds_the_positions_asked_for)

/* As many positions or few: the same bits. */
static void session_of_few_positions_changes_no_bit(const char *backend)
{
    struct loaded g;
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    open_small(&g, "gemma3", backend, 2, 0);
    float *all = loaded_rows(&g, NULL, id, MIXED, mixed);
    float *few = loaded_rows(&g, &(struct session_options){.n_pos = MIXED}, id, MIXED, mixed);
    assert_memory_equal(few, all, MIXED * g.m->c.n_vocab * sizeof *all);
    free(all);
    free(few);
    loaded_close(&g);
}
ON_BOTH(session_of_few_positions_changes_no_bit)

static void session_speaks_of_the_last_token_only(const char *backend)
{
    struct loaded g;
    struct err e = {0};
    int32_t id[TINY_N_TOK];
    const float *row;
    tiny_ids(id);
    open_small(&g, "qwen2", backend, 1, 64);
    struct session *s = session(&g, NULL);
    assert_int_equal(session_best(s), -1);
    assert_int_equal(session_logits(s, &row, &e), -EINVAL);
    size_t n = g.m->c.n_vocab;
    float *want = loaded_rows(&g, NULL, id, 8, NULL);
    eval(s, id, 7);
    assert_memory_equal(logits(s), want + 6 * n, n * sizeof *want);
    assert_int_equal(session_eval(s, id, 0, &e), 0); /* nothing: the row stays */
    assert_memory_equal(logits(s), want + 6 * n, n * sizeof *want);
    assert_int_equal(session_eval(s, &(int32_t){-1}, 1, &e), -EINVAL);
    assert_memory_equal(logits(s), want + 6 * n, n * sizeof *want);
    eval(s, id + 7, 1);
    assert_memory_equal(logits(s), want + 7 * n, n * sizeof *want);
    free(want);
    session_free(s);
    loaded_close(&g);
}
ON_BOTH(session_speaks_of_the_last_token_only)

/* --- greedy -------------------------------------------------------------------------------- */

/* The small model with a head of its own, the bytes of its embedding; then change(embd, head). */
static char *changed_model(const char *name, void (*change)(uint8_t *embd, uint8_t *head,
                                                            size_t row_bytes, size_t n_row))
{
    struct gguf_build *b = small_model("llama");
    size_t len;
    const uint8_t *bytes = gguf_build_tensor_data(b, "token_embd.weight", &len);
    const size_t row_bytes = EMBD / 32 * 24; /* Q5_1 */
    const uint64_t ne[2] = {EMBD, len / row_bytes};
    uint8_t *embd = malloc(len), *head = malloc(len);
    memcpy(embd, bytes, len);
    memcpy(head, bytes, len);
    change(embd, head, row_bytes, len / row_bytes);
    gguf_build_tensor_remove(b, "token_embd.weight");
    gguf_build_tensor(b, "token_embd.weight", 7 /* Q5_1 */, 2, ne, embd);
    gguf_build_tensor(b, "output.weight", 7, 2, ne, head);
    char *path = path_join(dir, name);
    gguf_build_file(b, path);
    gguf_build_free(b);
    free(embd);
    free(head);
    return path;
}

enum { PERIOD = 100 };

static void repeat_rows(uint8_t *embd, uint8_t *head, size_t row_bytes, size_t n_row)
{
    (void)embd;
    for (size_t i = PERIOD; i < n_row; i++)
        memcpy(head + i * row_bytes, head + (i - PERIOD) * row_bytes, row_bytes);
}

/* Every logit comes in threes, PERIOD apart: the lowest id wins, as the sampler has it. */
static void session_best_is_the_samplers_greedy_with_ties(const char *backend)
{
    char *path = changed_model("ties.gguf", repeat_rows);
    struct loaded g;
    struct sampler *sampler;
    struct sampler_params p = sampler_defaults();
    int32_t id[TINY_N_TOK];
    p.temp = 0;
    tiny_ids(id);
    loaded_open(&g, path, backend, 2, 64);
    assert_int_equal(sampler_new(&sampler, &p, g.m->c.n_vocab, NULL), 0);
    struct session *s = session(&g, NULL);
    eval(s, id, 4);
    for (int i = 4; i < 10; i++) {
        const float *row = logits(s);
        int32_t best = session_best(s);
        assert_in_range(best, 0, PERIOD - 1);
        assert_true(row[best] == row[best + PERIOD]);
        assert_int_equal(best, sampler_next(sampler, row, (uint64_t)i, id, (size_t)i, 4));
        eval(s, id + i, 1);
    }
    session_free(s);
    sampler_free(sampler);
    loaded_close(&g);
    free(path);
}
ON_BOTH(session_best_is_the_samplers_greedy_with_ties)

enum { POISON = 77 };

static void poison_row(uint8_t *embd, uint8_t *head, size_t row_bytes, size_t n_row)
{
    (void)head, (void)n_row;
    const uint8_t nan_f16[2] = {0x00, 0x7e};
    memcpy(embd + POISON * row_bytes, nan_f16, sizeof nan_f16);
}

/* One embedding is no number: in a prompt, and in a replayed step. Greedy never hides it. */
static void session_reports_what_is_no_number(const char *backend)
{
    char *path = changed_model("poison.gguf", poison_row);
    struct loaded g;
    struct err e = {0};
    const float *row;
    loaded_open(&g, path, backend, 1, 64);
    for (int n_before = 0; n_before < 3; n_before++) { /* op by op, recorded, replayed */
        struct session *s = session(&g, NULL);
        const int32_t fine[2] = {5, 6}, poison = POISON;
        eval(s, fine, 2);
        for (int i = 0; i < n_before; i++)
            eval(s, fine, 1);
        assert_int_equal(session_eval(s, &poison, 1, &e), -EIO);
        assert_non_null(strstr(e.msg, "logit 0 is "));
        assert_int_equal(session_best(s), -1);
        assert_int_equal(session_logits(s, &row, &e), -EINVAL);
        /* What follows attends to it. */
        assert_int_equal(session_eval(s, fine, 1, &e), -EIO);
        session_free(s);
    }
    struct session *s = session(&g, NULL);
    const int32_t prompt[3] = {5, POISON, 6};
    assert_int_equal(session_eval(s, prompt, 3, &e), -EIO);
    assert_non_null(strstr(e.msg, "logit 0 is "));
    session_free(s);
    loaded_close(&g);
    free(path);
}
ON_BOTH(session_reports_what_is_no_number)

/* --- the tap ------------------------------------------------------------------------------- */

struct tapped {
    struct backend *b;
    uint32_t n_embd, n_call, fail_at; /* fail_at: that call, from 1 on, fails */
    uint32_t layer[64], n_tok[64];
    float *x; /* (64, 16, n_embd) */
};

static int tap_layer(void *ctx, uint32_t layer, const float *x, uint32_t n_tok, struct err *e)
{
    struct tapped *t = ctx;
    assert_true(t->n_call < 64 && n_tok <= 16);
    t->layer[t->n_call] = layer;
    t->n_tok[t->n_call] = n_tok;
    float *to = t->x + (size_t)t->n_call * 16 * t->n_embd;
    int rc = t->b->ops->download(t->b, to, x, (size_t)n_tok * t->n_embd * sizeof *x);
    if (rc < 0)
        return backend_fail(t->b, rc, e);
    if (++t->n_call == t->fail_at)
        return err_set(e, -EUCLEAN, "layer %u is not as it was", layer);
    return 0;
}

static struct tapped tapped_new(const struct loaded *g)
{
    struct tapped t = {.b = g->b, .n_embd = g->m->c.n_embd};
    t.x = calloc((size_t)64 * 16 * t.n_embd, sizeof *t.x);
    return t;
}

/* Each layer once a step, in order, whatever the step; and the results are what they are without. */
static void tap_sees_each_layer_in_order(const char *backend)
{
    struct loaded g;
    struct err e = {0};
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    open_small(&g, "qwen3", backend, 2, 64);
    size_t n = g.m->c.n_vocab;
    uint32_t n_layer = g.m->c.n_layer;
    float *want = loaded_rows(&g, NULL, id, 12, NULL);
    struct tapped whole = tapped_new(&g), steps = tapped_new(&g);
    struct session *s = session(&g, NULL);
    session_tap(s, &(struct forward_tap){tap_layer, &whole});
    eval(s, id, 12);
    assert_int_equal(whole.n_call, n_layer);
    session_free(s);

    watch(g.b);
    s = session(&g, NULL);
    eval(s, id, 5);
    for (int i = 5; i < 8; i++)
        eval(s, id + i, 1);
    int n_begin = seen.n_begin, n_replay = seen.n_replay; /* 1 and 2, or 0 where nothing records */
    session_tap(s, &(struct forward_tap){tap_layer, &steps});
    for (int i = 8; i < 11; i++) {
        eval(s, id + i, 1);
        assert_memory_equal(logits(s), want + (size_t)i * n, n * sizeof *want);
    }
    assert_int_equal(seen.n_replay, n_replay);
    assert_int_equal(steps.n_call, 3 * n_layer);
    for (uint32_t i = 0; i < steps.n_call; i++) {
        assert_int_equal(steps.layer[i], i % n_layer);
        assert_int_equal(steps.n_tok[i], 1);
        const float *w = whole.x + ((size_t)(i % n_layer) * 16 + 8 + i / n_layer) * steps.n_embd;
        assert_memory_equal(steps.x + (size_t)i * 16 * steps.n_embd, w, steps.n_embd * sizeof *w);
    }
    session_tap(s, NULL);
    eval(s, id + 11, 1);
    assert_memory_equal(logits(s), want + 11 * n, n * sizeof *want);
    assert_int_equal(steps.n_call, 3 * n_layer);
    assert_int_equal(seen.n_begin, n_begin);
    assert_int_equal(seen.n_replay, n_begin ? n_replay + 1 : 0);

    steps.fail_at = steps.n_call + 2;
    session_tap(s, &(struct forward_tap){tap_layer, &steps});
    assert_int_equal(session_eval(s, id, 1, &e), -EUCLEAN);
    assert_string_equal(e.msg, "layer 1 is not as it was");
    session_free(s);
    free(whole.x);
    free(steps.x);
    free(want);
    loaded_close(&g);
}
ON_BOTH(tap_sees_each_layer_in_order)

#define BOTH(name) cmocka_unit_test(name##_on_cpu), cmocka_unit_test(name##_on_gpu)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(graph_is_recorded_once_and_changes_no_bit),
        cmocka_unit_test(graphs_of_two_sessions_do_not_meet),
        cmocka_unit_test(greedy_run_moves_four_bytes_a_token),
        cmocka_unit_test(graph_that_fails_while_recorded_can_be_tried_again),
        BOTH(session_holds_the_positions_asked_for),
        BOTH(session_of_few_positions_changes_no_bit),
        BOTH(session_speaks_of_the_last_token_only),
        BOTH(session_best_is_the_samplers_greedy_with_ties),
        BOTH(session_reports_what_is_no_number),
        BOTH(tap_sees_each_layer_in_order),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("gpu_session", tests, NULL, NULL);
    free(dir);
    return rc;
}
