/* The probe on the CPU alone: a wrapped op table plays the device, computing right or making one
 * mistake, and the reference judges it. Four tiny models; 256 positions where it
 * takes them, else 64. */
#include "infer/probe_internal.h"
#include "tests/loaded.h"
#include "tests/mutant.h"
#include "tests/support.h"
#include "tests/token_fixture.h"

#include <errno.h>
#include <math.h>

static char *dir;

/* Two of the same model: the device under test and the reference. */
struct pair {
    struct loaded dut, ref;
    int32_t id[PROBE_N_TOK];
};

static void pair_open(struct pair *p, const char *family, uint32_t n_ctx)
{
    bool from_text;
    struct err e = {0};
    loaded_open_tiny(&p->dut, dir, family, "cpu", 2, n_ctx);
    loaded_open_tiny(&p->ref, dir, family, "cpu", 1, n_ctx);
    assert_int_equal(probe_ids(p->id, PROBE_N_TOK, NULL, p->dut.m->c.n_vocab, &from_text, &e), 0);
    assert_false(from_text);
}

static void pair_close(struct pair *p)
{
    loaded_close(&p->dut);
    loaded_close(&p->ref);
}

static struct probe_result run(struct pair *p, enum mutant which, uint32_t n)
{
    struct probe_result r;
    struct err e = {0};
    mutant_begin(p->dut.m, which);
    int rc = probe_run(&r, p->dut.m, p->ref.m, p->id, n, NULL, &e);
    mutant_end();
    if (rc < 0)
        fail_msg("%s", e.msg);
    return r;
}

static struct probe_result run_tiny(const char *family, enum mutant which, uint32_t n)
{
    struct pair p;
    char line[512];
    pair_open(&p, family, n);
    struct probe_result r = run(&p, which, n);
    pair_close(&p);
    probe_line(&r, PROBE_PARITY, line, sizeof line);
    print_message("# %s: %s\n", family, line);
    probe_line(&r, PROBE_F2, line, sizeof line);
    print_message("# %s: %s\n", family, line);
    return r;
}

/* --- what is fed --------------------------------------------------------------------------- */

/* engine.md, section 8: 192 + 48, then 16 steps; shorter contexts in proportion. */
static void probe_split_covers_all_of_it(void **state)
{
    (void)state;
    static const struct {
        uint32_t n, chunk[2], n_step;
    } known[] = {{256, {192, 48}, 16}, {128, {96, 24}, 8}, {64, {48, 12}, 4}, {32, {23, 6}, 3},
                 {16, {10, 3}, 3},     {2, {0, 0}, 2},     {1, {0, 0}, 1}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        struct probe_split s = probe_split(known[i].n);
        assert_int_equal(s.chunk[0], known[i].chunk[0]);
        assert_int_equal(s.chunk[1], known[i].chunk[1]);
        assert_int_equal(s.n_step, known[i].n_step);
    }
    for (uint32_t n = 1; n <= 256; n++) {
        struct probe_split s = probe_split(n);
        assert_int_equal(s.chunk[0] + s.chunk[1] + s.n_step, n);
        assert_true(s.n_step >= (n < 3 ? n : 3)); /* queued, recorded, gone on from a replay */
        assert_true(n < 5 || (s.chunk[0] > 0 && s.chunk[1] > 0));
    }
}

/* (i + 1) / golden ratio, modulo 1: 0.618, 0.236, 0.854, 0.472. */
static void probe_ids_without_tokenizer_are_fixed(void **state)
{
    (void)state;
    int32_t id[PROBE_N_TOK];
    bool from_text = true;
    struct err e = {0};
    assert_int_equal(probe_ids(id, PROBE_N_TOK, NULL, 1000, &from_text, &e), 0);
    assert_false(from_text);
    assert_int_equal(id[0], 618);
    assert_int_equal(id[1], 236);
    assert_int_equal(id[2], 854);
    assert_int_equal(id[3], 472);
    for (uint32_t n_vocab = 1; n_vocab < 40; n_vocab++) {
        assert_int_equal(probe_ids(id, PROBE_N_TOK, NULL, n_vocab, &from_text, &e), 0);
        for (int i = 0; i < PROBE_N_TOK; i++)
            assert_in_range(id[i], 0, n_vocab - 1);
    }
}

/* The ids as text again, without what the model puts around it. */
static char *decoded(const struct tokenizer *t, const int32_t *id, uint32_t n)
{
    char *s = calloc(1, 65536);
    size_t at = 0;
    for (uint32_t i = 0; i < n; i++) {
        size_t len;
        const char *p = tokenizer_piece(t, id[i], false, i == 0, &len);
        assert_non_null(p);
        assert_true(at + len < 65536);
        memcpy(s + at, p, len);
        at += len;
    }
    return s;
}

/* Prose and code must lie within the 256, whatever the vocabulary. */
static void probe_ids_of_text_hold_prose_and_code(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    static const char *const vocab[] = {"ggml-vocab-gpt-2.gguf", "ggml-vocab-llama-spm.gguf",
                                        "ggml-vocab-phi-3.gguf"};
    for (size_t v = 0; v < sizeof vocab / sizeof vocab[0]; v++) {
        struct tokenizer *t;
        struct err e = {0};
        int32_t id[PROBE_N_TOK], again[2000];
        bool from_text = false;
        cJSON *meta = fixture_meta(vocab[v]);
        if (tokenizer_new(&t, meta, NULL, &e) < 0)
            fail_msg("%s: %s", vocab[v], e.msg);
        uint32_t n_vocab = tokenizer_n_vocab(t);
        assert_int_equal(probe_ids(id, PROBE_N_TOK, t, n_vocab, &from_text, &e), 0);
        assert_true(from_text);
        char *s = decoded(t, id, PROBE_N_TOK);
        assert_non_null(strstr(s, "The ferry left"));
        assert_non_null(strstr(s, "static size_t count_lines("));
        assert_non_null(strstr(s, "the fog was gone"));
        free(s);
        if (tokenizer_adds_bos(t))
            assert_int_equal(id[0], tokenizer_bos(t));
        /* Longer than the text: from its start again. */
        assert_int_equal(probe_ids(again, 2000, t, n_vocab, &from_text, &e), 0);
        assert_memory_equal(again, id, sizeof id);
        uint32_t period = 1;
        while (period < 1000 && memcmp(again + period, id, sizeof id) != 0)
            period++;
        assert_in_range(period, PROBE_N_TOK, 999);
        /* A head smaller than the vocabulary: the text's ids would be outside. */
        assert_int_equal(probe_ids(id, PROBE_N_TOK, t, 100, &from_text, &e), 0);
        assert_false(from_text);
        for (int i = 0; i < PROBE_N_TOK; i++)
            assert_in_range(id[i], 0, 99);
        tokenizer_free(t);
        cJSON_Delete(meta);
    }
}

/* --- what is measured ---------------------------------------------------------------------- */

static float ref_logit[8], dut_logit[8]; /* the first logits of every row; the rest are 0 */

/* Both sides' logits as written above: heads whose product counts nothing, and a bias. */
static struct probe_result run_forged(uint32_t *n_vocab)
{
    struct pair p;
    struct probe_result r;
    struct err e = {0};
    pair_open(&p, "llama", 16);
    uint32_t n = *n_vocab = p.dut.m->c.n_vocab;
    float *ref = calloc(n, sizeof *ref), *dut = calloc(n, sizeof *dut);
    memcpy(ref, ref_logit, sizeof ref_logit);
    memcpy(dut, dut_logit, sizeof dut_logit);
    p.ref.m->head.scale = p.dut.m->head.scale = 0;
    p.ref.m->head.bias = ref;
    p.dut.m->head.bias = dut;
    int rc = probe_run(&r, p.dut.m, p.ref.m, p.id, 16, NULL, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    pair_close(&p);
    free(ref);
    free(dut);
    return r;
}

static void about(double got, double want, double rel)
{
    if (!(fabs(got - want) <= rel * fabs(want)))
        fail_msg("%.9g, expected %.9g", got, want);
}

/* r: ln(n - 1) at 0, so p = (1/2, then 1 / 2(n - 1)); a: ln 3(n - 1), so q = (3/4, 1 / 4(n - 1)).
 * KL = 1/2 ln(2/3) + 1/2 ln 2 = 1/2 ln(4/3). NMSE = (ln 3 / ln(n - 1))^2. Same direction. */
static void probe_measures_kl_and_nmse(void **state)
{
    (void)state;
    uint32_t n;
    struct pair p;
    pair_open(&p, "llama", 16);
    n = p.dut.m->c.n_vocab;
    pair_close(&p);
    memset(ref_logit, 0, sizeof ref_logit);
    memset(dut_logit, 0, sizeof dut_logit);
    ref_logit[0] = logf((float)n - 1);
    dut_logit[0] = logf(3 * ((float)n - 1));
    struct probe_result r = run_forged(&n);
    about(r.metric[PROBE_KL].worst, log(4.0 / 3) / 2, 1e-6);
    about(r.metric[PROBE_NMSE].worst, pow(log(3) / log(n - 1.0), 2), 1e-6);
    assert_true(r.metric[PROBE_COSINE].worst <= 1e-12);
    assert_int_equal(r.n_equal, 16);
    assert_int_equal(r.metric[PROBE_KL].n_bad, 16);
    assert_false(probe_gate_passed(&r, PROBE_PARITY));
    assert_true(probe_gate_passed(&r, PROBE_F2));
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.bad_layer, -1); /* the head alone differs */
}

/* r = (3, 4), a = (4, 3): cosine 24/25, NMSE 2/25. a takes 0, which r has 1 below its best; r's
 * spread over n logits: mean 7/n, variance 25/n - 49/n^2. */
static void probe_measures_cosine_and_lag(void **state)
{
    (void)state;
    uint32_t n;
    memset(ref_logit, 0, sizeof ref_logit);
    memset(dut_logit, 0, sizeof dut_logit);
    ref_logit[0] = dut_logit[1] = 3;
    ref_logit[1] = dut_logit[0] = 4;
    struct probe_result r = run_forged(&n);
    about(r.metric[PROBE_COSINE].worst, 1 - 24.0 / 25, 1e-6);
    about(r.metric[PROBE_NMSE].worst, 2.0 / 25, 1e-6);
    about(r.metric[PROBE_GREEDY].worst, 1 / sqrt(25.0 / n - 49.0 / n / n), 1e-6);
    assert_int_equal(r.n_equal, 0);
    assert_false(probe_gate_passed(&r, PROBE_F2));
}

/* Two logits 2^-20 apart change places: nothing that rounding could not do. Eight times the limit's
 * spread apart, it is. */
static void probe_lets_ties_turn(void **state)
{
    (void)state;
    uint32_t n;
    char line[512];
    memset(ref_logit, 0, sizeof ref_logit);
    memset(dut_logit, 0, sizeof dut_logit);
    ref_logit[0] = dut_logit[1] = 1;
    ref_logit[1] = dut_logit[0] = 1 - 0x1p-20f;
    struct probe_result r = run_forged(&n);
    assert_int_equal(r.n_equal, 0);
    assert_true(probe_gate_passed(&r, PROBE_PARITY));
    assert_true(probe_gate_passed(&r, PROBE_F2));
    probe_line(&r, PROBE_F2, line, sizeof line);
    assert_string_equal(line, "F2: passed: 0 of 16 greedy tokens equal, 16 ties within rounding");

    double spread = sqrt(2.0 / n); /* of (1, 1, 0, ...), nearly */
    ref_logit[1] = dut_logit[0] = (float)(1 - 8 * 2e-4 * spread);
    r = run_forged(&n);
    assert_false(probe_gate_passed(&r, PROBE_F2));
    assert_int_equal(r.metric[PROBE_GREEDY].n_bad, 16);
}

/* 1 + 2^-14 times every logit is NMSE 2^-28, under the limit of 1e-8; 1 + 2^-13 is 2^-26, over it. */
static void times_16384th(float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        row[i] *= 1 + 0x1p-14f;
}

static void times_8192nd(float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        row[i] *= 1 + 0x1p-13f;
}

static void probe_limits_nmse_at_1e_8(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, "llama", 16);
    mutant_logits = times_16384th;
    struct probe_result r = run(&p, MUTANT_LOGITS, 16);
    about(r.metric[PROBE_NMSE].worst, 0x1p-28, 1e-3);
    assert_int_equal(r.metric[PROBE_NMSE].n_bad, 0);
    mutant_logits = times_8192nd;
    r = run(&p, MUTANT_LOGITS, 16);
    about(r.metric[PROBE_NMSE].worst, 0x1p-26, 1e-3);
    assert_int_equal(r.metric[PROBE_NMSE].n_bad, 16);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_COSINE].n_bad, 0);
    pair_close(&p);
}

/* The same added to every logit changes no probability, but it changes the logits. */
static void one_more(float *row, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        row[i] += 1;
}

static void probe_kl_is_blind_to_a_common_shift_nmse_is_not(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p, "llama", 16);
    mutant_logits = one_more;
    struct probe_result r = run(&p, MUTANT_LOGITS, 16);
    assert_true(r.metric[PROBE_KL].worst < 1e-10);
    assert_int_equal(r.metric[PROBE_NMSE].n_bad, 16);
    pair_close(&p);
}

/* --- who passes ---------------------------------------------------------------------------- */

static void probe_passes_what_computes_right(void **state)
{
    (void)state;
    for (int f = 0; f < 4; f++) {
        const uint32_t n = UNDER_TSAN && !long_run() ? 64 : 256;
        struct probe_result r = run_tiny(tiny_families[f], MUTANT_NONE, n);
        assert_int_equal(r.n, n);
        assert_int_equal(r.n_done, n);
        assert_int_equal(r.n_equal, n);
        assert_int_equal(probe_refused(&r), PROBE_N_METRIC);
        assert_int_equal(r.bad_layer, -1);
        for (int m = 0; m < PROBE_N_METRIC; m++)
            assert_true(r.metric[m].worst == 0); /* the same code: the same bits */
        assert_true(probe_gate_passed(&r, PROBE_PARITY));
        assert_true(probe_gate_passed(&r, PROBE_F2));
    }
}

static void probe_of_a_short_context_is_shorter(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    static const uint32_t n[] = {1, 2, 3, 17, 64};
    for (size_t i = 0; i < sizeof n / sizeof n[0]; i++) {
        struct pair p;
        pair_open(&p, "qwen2", n[i]);
        struct probe_result r = run(&p, MUTANT_NONE, n[i]);
        assert_int_equal(r.n_done, n[i]);
        assert_int_equal(r.n_equal, n[i]);
        assert_true(probe_gate_passed(&r, PROBE_PARITY));
        struct err e = {0};
        assert_int_equal(probe_run(&r, p.dut.m, p.ref.m, p.id, n[i] + 1, NULL, &e), -EINVAL);
        assert_int_equal(probe_run(&r, p.dut.m, p.ref.m, p.id, 0, NULL, &e), -EINVAL);
        pair_close(&p);
    }
}

/* --- who does not -------------------------------------------------------------------------- */

/* Position 0 is the same however it is paired: rotation by 0. */
static void probe_refuses_rope_pairs(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    for (int f = 0; f < 4; f++) {
        struct probe_result r = run_tiny(tiny_families[f], MUTANT_ROPE_PAIRS, 64);
        assert_int_equal(probe_refused(&r), PROBE_NMSE);
        assert_int_equal(r.metric[PROBE_NMSE].first_bad, 1);
        assert_int_equal(r.bad_layer, 0);
        assert_int_equal(r.n_done, 64);
    }
}

static void probe_refuses_norms_without_epsilon(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("llama", MUTANT_NO_EPS, 64);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.bad_layer, 0);
}

static void probe_refuses_swapped_rows(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    for (int f = 0; f < 4; f++) {
        struct probe_result r = run_tiny(tiny_families[f], MUTANT_SWAPPED_ROWS, 64);
        assert_int_equal(probe_refused(&r), PROBE_NMSE);
        assert_int_equal(r.metric[PROBE_NMSE].first_bad, 0);
        assert_int_equal(r.bad_layer, 1);
    }
}

static void probe_refuses_a_lost_bias(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("qwen2", MUTANT_NO_BIAS, 64);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_NMSE].first_bad, 1); /* at 0 one key takes all, whatever q is */
    assert_int_equal(r.bad_layer, 1);
}

/* Layer 0 of the tiny gemma3 is local, its window 8: at position 8 the key of 0 is out of sight. */
static void probe_refuses_a_wide_window(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("gemma3", MUTANT_WIDE_WINDOW, 64);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_NMSE].first_bad, 8);
    assert_int_equal(r.bad_layer, 0);
}

static void probe_refuses_a_fault_behind_the_chunk_border(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("llama", MUTANT_CHUNK_BORDER, 256);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_NMSE].first_bad, 192);
    assert_int_equal(r.bad_layer, 0);
}

static void probe_refuses_what_is_no_number(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("qwen3", MUTANT_NAN, 64);
    assert_int_equal(probe_refused(&r), PROBE_FINITE);
    assert_int_equal(r.metric[PROBE_FINITE].pos, MUTANT_NAN_POS);
    assert_int_equal(r.n_done, MUTANT_NAN_POS);
    assert_int_equal(r.bad_layer, 1);
    assert_false(probe_gate_passed(&r, PROBE_PARITY));
    assert_false(probe_gate_passed(&r, PROBE_F2)); /* it did not come to its end */
    r = run_tiny("qwen3", MUTANT_NAN_LATE, 256);
    assert_int_equal(probe_refused(&r), PROBE_FINITE);
    assert_int_equal(r.metric[PROBE_FINITE].pos, 240);
    assert_int_equal(r.bad_layer, 0);
}

static void probe_finds_no_layer_where_the_head_is_wrong(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("gemma3", MUTANT_NO_SOFTCAP, 64);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.bad_layer, -1);
}

static void probe_names_the_layer_of_the_steepest_rise(void **state)
{
    (void)state;
    static const struct {
        double nmse[5];
        int32_t layer;
    } cases[] = {
        {{0, 0, 0, 0, 0}, -1},
        {{1e-14, 1e-13, 3e-13, 1e-12, 5e-12}, -1}, /* rounding, as it grows */
        {{1e-14, 1e-13, 3e-13, 1e-5, 1e-4}, 3},
        {{0.5, 0.5, 0.5, 0.5, 0.5}, 0},
        {{0, 0, 0, 0, 2e-9}, 4},
        {{1e-13, 2e-13, HUGE_VAL, HUGE_VAL, HUGE_VAL}, 2},
        {{1e-12, 1e-10, 1e-8, 1e-6, 1e-4}, 1}, /* a hundredfold from there on */
        {{1e-13, 1e-11, 2e-10, 3e-9, 0.5}, 1}, /* where it began, not where it shows most */
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(probe_first_bad(cases[i].nmse, 5), cases[i].layer);
}

/* Logits are right, the choice on the device is not: PARITY-GATE sees nothing, F2 does, wherever a
 * user's text would go on from it: behind each chunk and each step. */
static void probe_refuses_a_wrong_choice(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct probe_result r = run_tiny("llama", MUTANT_ARGMAX, 256);
    assert_true(probe_gate_passed(&r, PROBE_PARITY));
    assert_false(probe_gate_passed(&r, PROBE_F2));
    assert_int_equal(probe_refused(&r), PROBE_GREEDY);
    assert_int_equal(r.metric[PROBE_GREEDY].first_bad, 191);
    assert_int_equal(r.metric[PROBE_GREEDY].n_bad, 18); /* positions 191, 239, 240 .. 255 */
    assert_int_equal(r.n_equal, 256 - 18);
}

/* --- what goes wrong otherwise ------------------------------------------------------------- */

static const struct backend_ops *right;
static int n_embed;

static int embed_fails(struct backend *b, float *y, const struct backend_matrix *w,
                       const struct backend_step *st, float scale)
{
    if (++n_embed == 2)
        return err_set(&b->e, -EIO, "the card fell off the bus");
    return right->embed(b, y, w, st, scale);
}

/* Neither a pass nor a refusal: the device's own words. */
static void probe_of_a_failing_device_is_an_error(void **state)
{
    (void)state;
    skip_under_tsan("threads as in probe_passes_what_computes_right");
    struct pair p;
    struct probe_result r;
    struct err e = {0};
    pair_open(&p, "llama", 256);
    struct loaded *side[] = {&p.dut, &p.ref};
    for (int i = 0; i < 2; i++) {
        struct backend_ops failing = *side[i]->b->ops;
        right = side[i]->b->ops;
        failing.embed = embed_fails;
        n_embed = 0;
        side[i]->b->ops = &failing;
        assert_int_equal(probe_run(&r, p.dut.m, p.ref.m, p.id, 256, NULL, &e), -EIO);
        side[i]->b->ops = right;
        assert_non_null(strstr(e.msg, "fell off the bus"));
        assert_int_equal(strstr(e.msg, "reference") != NULL, i == 1);
        assert_int_equal(probe_refused(&r), PROBE_N_METRIC);
        assert_false(probe_gate_passed(&r, PROBE_PARITY));
        assert_false(probe_gate_passed(&r, PROBE_F2));
    }
    pair_close(&p);
}

/* Weights that overflow do so on the reference, too: then nothing is said about the device. */
static void probe_does_not_blame_the_device_for_the_weights(void **state)
{
    (void)state;
    struct pair p;
    struct probe_result r;
    struct err e = {0};
    pair_open(&p, "llama", 16);
    p.ref.m->head.scale = INFINITY;
    assert_int_equal(probe_run(&r, p.dut.m, p.ref.m, p.id, 16, NULL, &e), -EIO);
    assert_non_null(strstr(e.msg, "the CPU reference"));
    assert_int_equal(probe_refused(&r), PROBE_N_METRIC);
    pair_close(&p);
}

static void count_position(void *ctx, uint32_t done, uint32_t total)
{
    uint32_t *last = ctx;
    assert_int_equal(done, *last + 1);
    assert_int_equal(total, 16);
    *last = done;
}

static void probe_tells_its_progress(void **state)
{
    (void)state;
    struct pair p;
    struct probe_result r;
    struct err e = {0};
    uint32_t last = 0;
    const struct probe_options opt = {.progress = count_position, .ctx = &last};
    pair_open(&p, "llama", 16);
    assert_int_equal(probe_run(&r, p.dut.m, p.ref.m, p.id, 16, &opt, &e), 0);
    assert_int_equal(last, 16);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(probe_split_covers_all_of_it),
        cmocka_unit_test(probe_ids_without_tokenizer_are_fixed),
        cmocka_unit_test(probe_ids_of_text_hold_prose_and_code),
        cmocka_unit_test(probe_measures_kl_and_nmse),
        cmocka_unit_test(probe_measures_cosine_and_lag),
        cmocka_unit_test(probe_lets_ties_turn),
        cmocka_unit_test(probe_limits_nmse_at_1e_8),
        cmocka_unit_test(probe_kl_is_blind_to_a_common_shift_nmse_is_not),
        cmocka_unit_test(probe_passes_what_computes_right),
        cmocka_unit_test(probe_of_a_short_context_is_shorter),
        cmocka_unit_test(probe_refuses_rope_pairs),
        cmocka_unit_test(probe_refuses_norms_without_epsilon),
        cmocka_unit_test(probe_refuses_swapped_rows),
        cmocka_unit_test(probe_refuses_a_lost_bias),
        cmocka_unit_test(probe_refuses_a_wide_window),
        cmocka_unit_test(probe_refuses_a_fault_behind_the_chunk_border),
        cmocka_unit_test(probe_refuses_what_is_no_number),
        cmocka_unit_test(probe_finds_no_layer_where_the_head_is_wrong),
        cmocka_unit_test(probe_names_the_layer_of_the_steepest_rise),
        cmocka_unit_test(probe_refuses_a_wrong_choice),
        cmocka_unit_test(probe_of_a_failing_device_is_an_error),
        cmocka_unit_test(probe_does_not_blame_the_device_for_the_weights),
        cmocka_unit_test(probe_tells_its_progress),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("probe", tests, NULL, NULL);
    free(dir);
    return rc;
}
