/* The forward pass against llama.cpp's logits of the tiny models, and what must not depend on
 * anything: threads, step sizes, the file's form. */
#include "tests/loaded.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

static char *dir; /* holds the tiny models */

/* All rows of the tiny ids; steps as loaded_rows() takes them. */
static float *tiny_logits(const char *family, int n_thread, const int *step, size_t *n_vocab)
{
    struct loaded g;
    int32_t id[TINY_N_TOK];
    tiny_ids(id);
    loaded_open_tiny(&g, dir, family, "cpu", n_thread, 0);
    *n_vocab = g.m->c.n_vocab;
    float *rows = loaded_rows(&g, NULL, id, TINY_N_TOK, step);
    loaded_close(&g);
    return rows;
}

/* --- against llama.cpp --------------------------------------------------------------------- */

static void forward_family(const char *family, double gate)
{
    char path[128];
    size_t n_vocab, len;
    snprintf(path, sizeof path, "tests/data/tiny_%s.f32", family);
    uint8_t *raw = file_read(path, &len);
    if (!raw)
        fail_msg("%s cannot be read", path);
    float *got = tiny_logits(family, 2, NULL, &n_vocab), *want = malloc(len);
    assert_int_equal(len, TINY_N_TOK * n_vocab * sizeof(float));
    memcpy(want, raw, len);
    double d = nmse(got, want, TINY_N_TOK * n_vocab);
    print_message("# %s: NMSE %.3g\n", family, d);
    assert_true(d <= gate);
    free(raw);
    free(got);
    free(want);
}

/* Gates. Measured against llama.cpp 0c1e570: 3e-13 to 6e-13, and for gemma3, whose GELU there comes
 * from a 16-bit table, 6e-8. (Asked for: 1e-6, with GELU 1e-4.) */
static void forward_agrees_with_llama_cpp_on_llama(void **state)
{
    (void)state;
    forward_family("llama", 1e-11);
}

static void forward_agrees_with_llama_cpp_on_qwen2(void **state)
{
    (void)state;
    forward_family("qwen2", 1e-11);
}

static void forward_agrees_with_llama_cpp_on_qwen3(void **state)
{
    (void)state;
    forward_family("qwen3", 1e-11);
}

static void forward_agrees_with_llama_cpp_on_gemma3(void **state)
{
    (void)state;
    forward_family("gemma3", 2e-7);
}

/* --- what changes no bit ------------------------------------------------------------------- */

static void forward_is_bit_identical_over_threads_and_steps(void **state)
{
    (void)state;
    static const int one_by_one[] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
                                     1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0};
    static const int mixed[] = {5, 1, 11, 2, 0};
    for (size_t f = 0; f < 4; f++) {
        size_t n_vocab;
        float *want = tiny_logits(tiny_families[f], 1, NULL, &n_vocab);
        for (int n_thread = UNDER_TSAN && !long_run() ? 3 : 1; n_thread <= 3; n_thread++) {
            float *a = tiny_logits(tiny_families[f], n_thread, one_by_one, &n_vocab);
            float *b = tiny_logits(tiny_families[f], n_thread, mixed, &n_vocab);
            assert_memory_equal(a, want, TINY_N_TOK * n_vocab * sizeof *a);
            assert_memory_equal(b, want, TINY_N_TOK * n_vocab * sizeof *a);
            free(a);
            free(b);
        }
        free(want);
    }
}

/* The choice after several rows, after one token, and after a step without logits. */
static void forward_best_is_the_last_rows_highest(void **state)
{
    (void)state;
    struct loaded g;
    struct forward *f;
    struct err e;
    int32_t id[TINY_N_TOK], best;
    loaded_open_tiny(&g, dir, "qwen3", "cpu", 2, 0);
    tiny_ids(id);
    const struct forward_options opt = {.max_tok = TINY_N_TOK, .n_pos = TINY_N_TOK + 2};
    assert_int_equal(forward_new(&f, g.m, &opt, NULL), 0);
    assert_int_equal(forward_best(f, &best, &e), -EINVAL);
    assert_int_equal(forward_run(f, id, TINY_N_TOK, 0, 3, NULL), 0);
    assert_int_equal(forward_best(f, &best, NULL), 0);
    const float *row = forward_logits(f) + (size_t)2 * g.m->c.n_vocab;
    for (uint32_t i = 0; i < g.m->c.n_vocab; i++)
        assert_true(row[i] <= row[best]);
    assert_int_equal(forward_step(f, best, TINY_N_TOK, NULL), 0);
    assert_int_equal(forward_best(f, &best, NULL), 0);
    row = forward_logits(f);
    for (uint32_t i = 0; i < g.m->c.n_vocab; i++)
        assert_true(row[i] <= row[best]);
    assert_int_equal(forward_run(f, id, 1, TINY_N_TOK + 1, 0, NULL), 0);
    assert_int_equal(forward_best(f, &best, &e), -EINVAL);
    assert_int_equal(forward_step(f, 3, TINY_N_TOK + 2, &e), -ERANGE);
    assert_int_equal(forward_run(f, id, 2, TINY_N_TOK + 1, 0, &e), -ERANGE);
    assert_int_equal(forward_run(f, id, TINY_N_TOK + 1, 0, 1, &e), -EINVAL);
    assert_int_equal(forward_run(f, id, 0, 0, 0, &e), -EINVAL);
    forward_free(f);
    loaded_close(&g);
}

/* --- sessions ------------------------------------------------------------------------------ */

static void session_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct loaded g;
    struct session *s;
    struct err e = {0};
    int32_t id[TINY_N_TOK];
    char *path = loaded_tiny_path(dir, "llama");
    tiny_ids(id);
    loaded_open(&g, path, "cpu", 1, 10);
    assert_int_equal(session_new(&s, g.m, NULL, &e), 0);
    assert_int_equal(session_n_ctx(s), 10);
    assert_int_equal(session_eval(s, id, 11, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "11 tokens"));
    assert_non_null(strstr(e.msg, "10"));
    assert_int_equal(session_n_past(s), 0);
    assert_int_equal(session_eval(s, id, 9, &e), 0);
    assert_int_equal(session_eval(s, id, 2, &e), -ERANGE);
    assert_int_equal(session_eval(s, id, 1, &e), 0);
    assert_int_equal(session_eval(s, id, 1, &e), -ERANGE);
    session_free(s);
    loaded_close(&g);
    free(path);
}

static void session_refuses_ids_outside_the_vocabulary(void **state)
{
    (void)state;
    struct loaded g;
    struct session *s;
    struct err e = {0};
    loaded_open_tiny(&g, dir, "llama", "cpu", 1, 0);
    assert_int_equal(session_new(&s, g.m, NULL, &e), 0);
    int32_t bad[] = {3, (int32_t)g.m->c.n_vocab}, negative[] = {-1};
    assert_int_equal(session_eval(s, bad, 2, &e), -EINVAL);
    assert_int_equal(session_eval(s, negative, 1, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "-1"));
    assert_int_equal(session_n_past(s), 0);
    session_free(s);
    loaded_close(&g);
}

static void session_reports_logits_that_are_no_numbers(void **state)
{
    (void)state;
    struct gguf_build *b = tiny_model("llama");
    float norm[256];
    uint64_t ne = 256;
    for (int i = 0; i < 256; i++)
        norm[i] = NAN;
    gguf_build_tensor_remove(b, "output_norm.weight");
    gguf_build_tensor(b, "output_norm.weight", 0, 1, &ne, norm);
    char *path = path_join(dir, "nan.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct loaded g;
    struct session *s;
    struct err e = {0};
    loaded_open(&g, path, "cpu", 1, 0);
    assert_int_equal(session_new(&s, g.m, NULL, &e), 0);
    int32_t id = 5;
    assert_int_equal(session_eval(s, &id, 1, &e), -EIO);
    session_free(s);
    loaded_close(&g);
    free(path);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_agrees_with_llama_cpp_on_llama),
        cmocka_unit_test(forward_agrees_with_llama_cpp_on_qwen2),
        cmocka_unit_test(forward_agrees_with_llama_cpp_on_qwen3),
        cmocka_unit_test(forward_agrees_with_llama_cpp_on_gemma3),
        cmocka_unit_test(forward_is_bit_identical_over_threads_and_steps),
        cmocka_unit_test(forward_best_is_the_last_rows_highest),
        cmocka_unit_test(session_refuses_what_does_not_fit),
        cmocka_unit_test(session_refuses_ids_outside_the_vocabulary),
        cmocka_unit_test(session_reports_logits_that_are_no_numbers),
    };
    if (argc == 3 && strcmp(argv[1], "--write") == 0) { /* for scripts/make_tiny_vectors.py */
        dir = argv[2];
        for (size_t i = 0; i < 4; i++)
            free(loaded_tiny_path(dir, tiny_families[i]));
        return 0;
    }
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("forward", tests, NULL, NULL);
    free(dir);
    return rc;
}
