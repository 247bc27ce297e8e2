/* Sampling: the generator's known answers, greedy, each filter, the distribution, and that a token
 * depends on seed, position and logits alone. */
#include "infer/text/sampler.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

static struct sampler *make(const struct sampler_params *p, uint32_t n_vocab)
{
    struct sampler *s;
    struct err e = {0};
    if (sampler_new(&s, p, n_vocab, &e) < 0)
        fail_msg("%s", e.msg);
    return s;
}

static void philox_gives_random123s_known_answers(void **state)
{
    (void)state;
    /* Source: Random123, tests/kat_vectors, lines "philox4x32 10". */
    static const uint32_t kat[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d,
         0x41c83b0e, 0xa20bc7c6, 0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09,
         0x94fdcceb, 0x5001e420, 0x24126ea1},
    };
    for (int i = 0; i < 3; i++) {
        uint32_t out[4];
        sampler_philox(out, kat[i], kat[i] + 4);
        assert_memory_equal(out, kat[i] + 6, sizeof out);
    }
}

static void sampler_greedy_takes_highest_and_lowest_id_on_tie(void **state)
{
    (void)state;
    struct sampler_params p = sampler_defaults();
    p.temp = 0;
    p.top_k = 1; /* without effect on greedy */
    struct sampler *s = make(&p, 6);
    const float l[] = {1, -4, 7, 7, 6.999f, 0}, low[] = {-3, -2, -1, -9, -1, -5};
    assert_int_equal(sampler_next(s, l, 0, NULL, 0, 0), 2);
    assert_int_equal(sampler_next(s, low, 9, NULL, 0, 0), 2);
    sampler_free(s);
}

/* Where it says so, a row's highest logit is all it needs: by each parameter that says no. */
static void sampler_is_greedy_only_where_the_row_is_unchanged(void **state)
{
    (void)state;
    struct sampler_params g = sampler_defaults();
    g.temp = 0;
    struct {
        struct sampler_params p;
        bool greedy;
    } c[8];
    for (int i = 0; i < 8; i++)
        c[i].p = g;
    c[0].greedy = true;
    c[1].p.temp = 1e-9, c[1].greedy = false;
    c[2].p.repeat_penalty = 1.1, c[2].greedy = false;
    c[3].p.repeat_penalty = 1.1, c[3].p.repeat_last_n = 0, c[3].greedy = true; /* over no token */
    c[4].p.presence_penalty = 0.1, c[4].greedy = false;
    c[5].p.frequency_penalty = -0.1, c[5].greedy = false;
    c[6].p.top_k = 5, c[6].p.top_p = 0.5, c[6].p.min_p = 0.1, c[6].greedy = true; /* drawn from */
    c[7].p.repeat_penalty = 0.9, c[7].p.repeat_last_n = -1, c[7].greedy = false;
    for (int i = 0; i < 8; i++) {
        struct sampler *s = make(&c[i].p, 6);
        assert_int_equal(sampler_is_greedy(s), c[i].greedy);
        sampler_free(s);
    }
}

/* Pearson's statistic of n draws against softmax(l / temp) restricted to the ids of `kept`. */
static double chi_square(const struct sampler_params *p, const float *l, int n_vocab,
                         const bool *kept, int n_draw)
{
    struct sampler *s = make(p, (uint32_t)n_vocab);
    double prob[64], sum = 0, chi = 0;
    int count[64] = {0};
    for (int i = 0; i < n_vocab; i++)
        sum += prob[i] = kept[i] ? exp((double)l[i] / p->temp) : 0;
    for (int i = 0; i < n_draw; i++)
        count[sampler_next(s, l, (uint64_t)i, NULL, 0, 0)]++;
    for (int i = 0; i < n_vocab; i++) {
        double want = prob[i] / sum * n_draw;
        if (!kept[i])
            assert_int_equal(count[i], 0);
        else
            chi += (count[i] - want) * (count[i] - want) / want;
    }
    sampler_free(s);
    return chi;
}

/* 30,000 draws with a fixed seed. The 99.9 % point of chi-square with 7 degrees of freedom is 24.3,
 * with 3 it is 16.3, with 2 it is 13.8 (tables); the seed is fixed, so this passes always or never.
 */
static void sampler_draws_the_softmax(void **state)
{
    (void)state;
    const float l[8] = {0, 1, -1, 2, 0.5f, 1.5f, -2, 1};
    const bool all[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    struct sampler_params p = sampler_defaults();
    p.seed = 42;
    assert_true(chi_square(&p, l, 8, all, 30000) < 24.3);
    p.temp = 2.5;
    assert_true(chi_square(&p, l, 8, all, 30000) < 24.3);
}

static void sampler_top_k_keeps_the_k_highest(void **state)
{
    (void)state;
    const float l[8] = {0, 1, -1, 2, 0.5f, 1.5f, -2, 1};
    /* the four highest: 3, 5, then 1 and 7 tied; with three, id 1 comes before id 7 */
    const bool four[8] = {0, 1, 0, 1, 0, 1, 0, 1}, three[8] = {0, 1, 0, 1, 0, 1, 0, 0};
    struct sampler_params p = sampler_defaults();
    p.seed = 7;
    p.top_k = 4;
    assert_true(chi_square(&p, l, 8, four, 30000) < 16.3);
    p.top_k = 3;
    assert_true(chi_square(&p, l, 8, three, 30000) < 13.8);
}

static void sampler_top_p_keeps_the_shortest_run(void **state)
{
    (void)state;
    /* probabilities 0.5, 0.25, 0.125, 0.125 */
    const float l[4] = {logf(0.25f), logf(0.125f), logf(0.5f), logf(0.125f)};
    const bool one[4] = {0, 0, 1, 0}, two[4] = {1, 0, 1, 0}, three[4] = {1, 1, 1, 0};
    struct sampler_params p = sampler_defaults();
    p.top_p = 0; /* keeps one */
    assert_true(chi_square(&p, l, 4, one, 100) < 1e-9);
    p.top_p = 0.4;
    assert_true(chi_square(&p, l, 4, one, 100) < 1e-9);
    p.top_p = 0.6;
    assert_true(chi_square(&p, l, 4, two, 30000) < 10.8); /* 1 degree */
    p.top_p = 0.8;
    assert_true(chi_square(&p, l, 4, three, 30000) < 13.8);
}

static void sampler_min_p_is_relative_to_the_highest(void **state)
{
    (void)state;
    const float l[4] = {logf(0.25f), logf(0.125f), logf(0.5f), logf(0.125f)};
    const bool two[4] = {1, 0, 1, 0}, one[4] = {0, 0, 1, 0};
    struct sampler_params p = sampler_defaults();
    p.min_p = 0.4;
    assert_true(chi_square(&p, l, 4, two, 30000) < 10.8);
    p.min_p = 1;
    assert_true(chi_square(&p, l, 4, one, 100) < 1e-9);
    /* After top_p, over what that left: 0.5 and 0.25, as before. */
    p.min_p = 0.4;
    p.top_p = 0.76;
    assert_true(chi_square(&p, l, 4, two, 30000) < 10.8);
}

static void sampler_penalties_move_logits_as_said(void **state)
{
    (void)state;
    struct sampler_params p = sampler_defaults();
    p.temp = 0;
    const float l[4] = {2, 3, -1, 2.5f};
    const int32_t prev[] = {1, 1, 0, 1};
    p.repeat_penalty = 2; /* 3 / 2 = 1.5 once, however often: 3 wins */
    struct sampler *s = make(&p, 4);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 2), 3);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 2), 3); /* counts were cleared */
    sampler_free(s);
    p.repeat_last_n = 0; /* off */
    s = make(&p, 4);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 2), 1);
    sampler_free(s);
    p.repeat_last_n = -1;
    const float negative[4] = {-2, -1, -9, -1.5f}; /* -1 x 2 = -2: the penalty multiplies */
    s = make(&p, 4);
    assert_int_equal(sampler_next(s, negative, 4, prev, 4, 2), 3);
    sampler_free(s);
    /* Generated tokens are prev[2..4): id 1 once. Presence 0.6: 2.4 < 2.5. */
    p.repeat_penalty = 1;
    p.presence_penalty = 0.6;
    s = make(&p, 4);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 2), 3);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 4), 1); /* all of it was prompt */
    sampler_free(s);
    p.presence_penalty = 0;
    p.frequency_penalty = 0.2; /* id 1 three times: 2.4 */
    s = make(&p, 4);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 0), 3);
    assert_int_equal(sampler_next(s, l, 4, prev, 4, 2), 1);
    sampler_free(s);
}

/* A penalty near zero lifts a repeated token beyond all floats: it is taken, never the last of the
 * order, which NaN probabilities would leave. */
static void sampler_penalties_never_leave_the_floats(void **state)
{
    (void)state;
    struct sampler_params p = sampler_defaults();
    const float l[] = {5, 2, 3, -1};
    const int32_t prev[] = {1};
    p.repeat_penalty = 1e-300;
    struct sampler *s = make(&p, 4);
    for (uint64_t i = 0; i < 20; i++)
        assert_int_equal(sampler_next(s, l, i, prev, 1, 1), 1);
    sampler_free(s);
}

static void sampler_repeats_for_a_seed_and_differs_between_seeds(void **state)
{
    (void)state;
    enum { N = 5000 };
    float *l = malloc(N * sizeof *l);
    struct rng r;
    rng_init(&r, 3);
    for (int i = 0; i < N; i++)
        l[i] = (float)(rng_u64(&r) >> 40) * 0x1p-22f;
    struct sampler_params p = sampler_defaults();
    p.seed = UINT64_C(1) << 53;
    struct sampler *a = make(&p, N), *b = make(&p, N);
    p.seed = 5;
    struct sampler *c = make(&p, N);
    int same = 0;
    int32_t token[50];
    for (uint64_t i = 0; i < 50; i++) {
        token[i] = sampler_next(a, l, i, NULL, 0, 0);
        same += token[i] == sampler_next(c, l, i, NULL, 0, 0);
    }
    assert_true(same < 10);
    for (uint64_t i = 50; i-- > 0;) /* the order of calls plays no part */
        assert_int_equal(sampler_next(b, l, i, NULL, 0, 0), token[i]);
    sampler_free(a);
    sampler_free(b);
    sampler_free(c);
    free(l);
}

static void sampler_sorts_any_floats(void **state)
{
    (void)state;
    /* top_k 1 is the first of the sorted row: ties by id, -0 equal to 0, far exponents. */
    struct sampler_params p = sampler_defaults();
    p.top_k = 1;
    struct sampler *s = make(&p, 6);
    const float rows[][6] = {{-0.0f, 0, 0, -1e-45f, -1, -2},
                             {-1e30f, -1e-30f, -1e-30f, -3, -1e38f, -2},
                             {1e-45f, 0, -1e38f, 1e-45f, 0, 0},
                             {3, 1e38f, 1e37f, 1e38f, -1e38f, 0}};
    const int32_t first[] = {0, 1, 0, 1};
    for (int i = 0; i < 4; i++)
        assert_int_equal(sampler_next(s, rows[i], (uint64_t)i, NULL, 0, 0), first[i]);
    sampler_free(s);
}

static void sampler_params_out_of_range_are_named(void **state)
{
    (void)state;
    static const struct {
        size_t off;
        double v;
        const char *says;
    } bad[] = {
        {offsetof(struct sampler_params, temp), -0.1, "temperature"},
        {offsetof(struct sampler_params, temp), 101, "temperature"},
        {offsetof(struct sampler_params, temp), NAN, "temperature"},
        {offsetof(struct sampler_params, top_p), 1.01, "top_p"},
        {offsetof(struct sampler_params, min_p), -1, "min_p"},
        {offsetof(struct sampler_params, repeat_penalty), 0, "repeat penalty"},
        {offsetof(struct sampler_params, repeat_penalty), 2.1, "repeat penalty"},
        {offsetof(struct sampler_params, presence_penalty), 2.5, "presence"},
        {offsetof(struct sampler_params, frequency_penalty), -2.5, "frequency"},
    };
    struct sampler *s = NULL;
    struct err e;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct sampler_params p = sampler_defaults();
        memcpy((char *)&p + bad[i].off, &bad[i].v, sizeof(double));
        assert_int_equal(sampler_new(&s, &p, 10, &e), -EINVAL);
        assert_non_null(strstr(e.msg, bad[i].says));
    }
    struct sampler_params p = sampler_defaults();
    p.top_k = -2;
    assert_int_equal(sampler_params_check(&p, &e), -EINVAL);
    p.top_k = 0;
    p.seed = (UINT64_C(1) << 53) + 1;
    assert_int_equal(sampler_params_check(&p, &e), -EINVAL);
    assert_null(s);
}

static void sampler_takes_the_models_own_defaults(void **state)
{
    (void)state;
    const char *text = "{\"general.sampling.temp\":0.6,\"general.sampling.top_k\":20,"
                       "\"general.sampling.top_p\":0.95,\"general.sampling.min_p\":0.05,"
                       "\"general.sampling.penalty_repeat\":1.1,"
                       "\"general.sampling.penalty_last_n\":-1}";
    cJSON *meta;
    struct err e;
    assert_int_equal(json_parse(&meta, text, strlen(text), &e), 0);
    struct sampler_params p = sampler_defaults();
    assert_int_equal(sampler_params_from_meta(&p, meta, &e), 0);
    assert_true(p.temp == 0.6 && p.top_k == 20 && p.top_p == 0.95 && p.min_p == 0.05);
    assert_true(p.repeat_penalty == 1.1 && p.repeat_last_n == -1);
    cJSON_Delete(meta);
    static const char *const bad[] = {"{\"general.sampling.temp\":\"hot\"}",
                                      "{\"general.sampling.top_k\":1.5}",
                                      "{\"general.sampling.top_p\":3}"};
    for (int i = 0; i < 3; i++) {
        struct sampler_params q = sampler_defaults();
        assert_int_equal(json_parse(&meta, bad[i], strlen(bad[i]), &e), 0);
        assert_int_equal(sampler_params_from_meta(&q, meta, &e), -EUCLEAN);
        assert_non_null(strstr(e.msg, "general.sampling"));
        assert_true(q.temp == 1 && q.top_p == 1 && q.top_k == 0);
        cJSON_Delete(meta);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_random123s_known_answers),
        cmocka_unit_test(sampler_greedy_takes_highest_and_lowest_id_on_tie),
        cmocka_unit_test(sampler_is_greedy_only_where_the_row_is_unchanged),
        cmocka_unit_test(sampler_draws_the_softmax),
        cmocka_unit_test(sampler_top_k_keeps_the_k_highest),
        cmocka_unit_test(sampler_top_p_keeps_the_shortest_run),
        cmocka_unit_test(sampler_min_p_is_relative_to_the_highest),
        cmocka_unit_test(sampler_penalties_move_logits_as_said),
        cmocka_unit_test(sampler_penalties_never_leave_the_floats),
        cmocka_unit_test(sampler_repeats_for_a_seed_and_differs_between_seeds),
        cmocka_unit_test(sampler_sorts_any_floats),
        cmocka_unit_test(sampler_params_out_of_range_are_named),
        cmocka_unit_test(sampler_takes_the_models_own_defaults),
    };
    return cmocka_run_group_tests_name("sampler", tests, NULL, NULL);
}
