/* The gate: what it lets through, remembers, skips and refuses. The device is the CPU behind a
 * wrapped op table (tests/mutant.h), so all of it runs without a GPU; tests/test_gpu_gate.c has the
 * rest. */
#include "infer/gate.h"
#include "tests/loaded.h"
#include "tests/mutant.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static char *dir;

/* A fresh cache of verdicts, and no variable set. */
static char *fresh(void)
{
    char *cache = temp_dir();
    setenv("XDG_CACHE_HOME", cache, 1);
    unsetenv("SKIP_PARITY_GATE");
    return cache;
}

struct told {
    int n_reference, n_position;
};

static void progress(void *ctx, const char *phase, uint32_t done, uint32_t total)
{
    struct told *t = ctx;
    assert_true(done <= total);
    if (strcmp(phase, "reference") == 0)
        t->n_reference++;
    else if (strcmp(phase, "gate") == 0)
        t->n_position++;
    else
        fail_msg("phase '%s'", phase);
}

struct asked {
    struct gate gate;
    struct err e;
    struct told told;
    int rc;
};

static struct asked ask_with(struct loaded *g, enum mutant which, struct gate_options opt)
{
    struct asked a = {0};
    opt.n_thread = 1;
    opt.progress = progress;
    opt.ctx = &a.told;
    mutant_begin(g->m, which);
    a.rc = gate_check(&a.gate, g->m, model_file_apr(g->file), NULL, &opt, &a.e);
    mutant_end();
    return a;
}

static struct asked ask(struct loaded *g, enum mutant which)
{
    return ask_with(g, which, (struct gate_options){0});
}

/* A short context keeps the tests short: 32 positions. */
static void open_tiny(struct loaded *g, const char *family)
{
    loaded_open_tiny(g, dir, family, "cpu", 2, 32);
}

static void gate_of_the_cpu_is_the_reference(void **state)
{
    (void)state;
    char *cache = fresh();
    struct loaded g;
    struct gate out;
    struct err e = {0};
    open_tiny(&g, "llama");
    assert_int_equal(gate_check(&out, g.m, model_file_apr(g.file), NULL, NULL, &e), 0);
    assert_int_equal(out.state, GATE_REFERENCE);
    assert_string_equal(out.device, "cpu");
    loaded_close(&g);
    free(cache);
}

static void gate_passes_and_remembers(void **state)
{
    (void)state;
    for (int f = 0; f < 4; f++) {
        char *cache = fresh();
        struct loaded g;
        open_tiny(&g, tiny_families[f]);
        struct asked a = ask(&g, MUTANT_NONE);
        assert_int_equal(a.rc, 0);
        assert_int_equal(a.gate.state, GATE_PASSED);
        assert_int_equal(a.gate.note.code, 0);
        assert_int_equal(a.told.n_reference, 1);
        assert_int_equal(a.told.n_position, 32);
        assert_true(a.gate.from_text);
        assert_int_equal(a.gate.probe.n_equal, 32);
        a = ask(&g, MUTANT_NONE);
        assert_int_equal(a.rc, 0);
        assert_int_equal(a.gate.state, GATE_CACHED);
        assert_int_equal(a.told.n_position + a.told.n_reference, 0);
        assert_int_equal(a.gate.probe.n, 32);
        assert_int_equal(a.gate.probe.n_equal, 32);
        loaded_close(&g);
        free(cache);
    }
}

/* Another route, another context, another model: nothing that was measured speaks for them. */
static void gate_asks_again_where_anything_differs(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh();
    struct loaded g, other;
    open_tiny(&g, "llama");
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_PASSED);
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_CACHED);
    struct gate_options opt = {.no_graph = true};
    assert_int_equal(ask_with(&g, MUTANT_NONE, opt).gate.state, GATE_PASSED);
    assert_int_equal(ask_with(&g, MUTANT_NONE, opt).gate.state, GATE_CACHED);
    loaded_close(&g);
    loaded_open_tiny(&other, dir, "llama", "cpu", 2, 48);
    assert_int_equal(ask(&other, MUTANT_NONE).gate.state, GATE_PASSED);
    loaded_close(&other);
    open_tiny(&other, "qwen2");
    assert_int_equal(ask(&other, MUTANT_NONE).gate.state, GATE_PASSED);
    loaded_close(&other);
    open_tiny(&g, "llama"); /* opened anew: the same model */
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_CACHED);
    loaded_close(&g);
    free(cache);
}

/* A model that differs in one weight alone, of the same shapes and the same tokenizer, on the same
 * device: the verdict of the first says nothing about it, not even copied under its name. */
static void gate_does_not_take_the_verdict_of_another_model(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh(), *path = path_join(dir, "other-llama.gguf");
    struct loaded g, other;
    struct gguf_build *b = tiny_model("llama");
    size_t len;
    uint8_t *norm = (uint8_t *)(uintptr_t)gguf_build_tensor_data(b, "output_norm.weight", &len);
    norm[3] ^= 0x01; /* one weight times 2 or 1/2 or so */
    gguf_build_file(b, path);
    gguf_build_free(b);
    open_tiny(&g, "llama");
    loaded_open(&other, path, "cpu", 2, 32);
    assert_memory_not_equal(g.m->digest, other.m->digest, sizeof g.m->digest);
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_PASSED);
    struct asked a = ask(&other, MUTANT_NONE);
    assert_int_equal(a.gate.state, GATE_PASSED);
    assert_int_equal(a.told.n_position, 32);
    loaded_close(&g);
    loaded_close(&other);
    free(path);
    free(cache);
}

static void gate_measures_when_forced(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh();
    struct loaded g;
    open_tiny(&g, "qwen3");
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_PASSED);
    struct asked a = ask_with(&g, MUTANT_NONE, (struct gate_options){.force = true});
    assert_int_equal(a.gate.state, GATE_PASSED);
    assert_int_equal(a.told.n_position, 32);
    loaded_close(&g);
    free(cache);
}

static void gate_refuses_by_name(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh();
    struct loaded g;
    open_tiny(&g, "llama");
    for (int i = 0; i < 2; i++) { /* and keeps nothing of it */
        struct asked a = ask(&g, MUTANT_SWAPPED_ROWS);
        assert_int_equal(a.rc, -EDOM);
        assert_int_equal(a.gate.state, GATE_REFUSED);
        assert_int_equal(a.told.n_position, 32);
        print_message("# %s\n", a.e.msg);
        assert_int_equal(strncmp(a.e.msg, "PARITY-GATE: refused: NMSE ", 27), 0);
        assert_non_null(strstr(a.e.msg, " at position "));
        assert_non_null(strstr(a.e.msg, "(limit 1e-08"));
        assert_non_null(strstr(a.e.msg, "first bad layer 1"));
        assert_non_null(strstr(a.e.msg, "--device cpu"));
        assert_true(strlen(a.e.msg) < ERR_MSG_MAX - 1); /* not cut */
        assert_int_equal(probe_refused(&a.gate.probe), PROBE_NMSE);
    }
    struct asked a = ask(&g, MUTANT_ARGMAX);
    assert_int_equal(a.rc, -EDOM);
    assert_int_equal(strncmp(a.e.msg, "F2: refused: ", 13), 0);
    assert_true(strlen(a.e.msg) < ERR_MSG_MAX - 1);
    a = ask(&g, MUTANT_NAN);
    assert_int_equal(a.rc, -EDOM);
    assert_non_null(strstr(a.e.msg, "PARITY-GATE: refused: a logit at position 20 is no number; "
                                    "first bad layer 1"));
    loaded_close(&g);
    free(cache);
}

/* A model whose own weights are no numbers is no fault of the device, and the CPU is no way on. */
static void gate_blames_no_device_for_the_model(void **state)
{
    (void)state;
    char *cache = fresh(), *path = path_join(dir, "nan-llama.gguf");
    struct loaded g;
    struct gguf_build *b = tiny_model("llama");
    size_t len;
    const float nan_weight = NAN;
    memcpy((void *)(uintptr_t)gguf_build_tensor_data(b, "output_norm.weight", &len), &nan_weight,
           sizeof nan_weight);
    gguf_build_file(b, path);
    gguf_build_free(b);
    loaded_open(&g, path, "cpu", 2, 32);
    struct asked a = ask(&g, MUTANT_NONE);
    assert_int_equal(a.rc, -EIO);
    assert_int_equal(a.gate.state, GATE_NONE);
    print_message("# %s\n", a.e.msg);
    assert_non_null(strstr(a.e.msg, "the CPU reference: logit 0 is nan"));
    assert_null(strstr(a.e.msg, "--device cpu"));
    loaded_close(&g);
    free(path);
    free(cache);
}

/* What passed once is not measured again, as long as the key is the same; verify does. */
static void gate_forced_refuses_in_spite_of_a_kept_pass(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh();
    struct loaded g;
    open_tiny(&g, "llama");
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_PASSED);
    assert_int_equal(ask(&g, MUTANT_NONE).gate.state, GATE_CACHED);
    struct asked a = ask_with(&g, MUTANT_ROPE_PAIRS, (struct gate_options){.force = true});
    assert_int_equal(a.rc, -EDOM);
    assert_int_equal(a.gate.note.code, 0);
    a = ask(&g, MUTANT_ROPE_PAIRS); /* and the pass is forgotten */
    assert_int_equal(a.rc, -EDOM);
    loaded_close(&g);
    free(cache);
}

static void gate_skips_when_told(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh();
    struct loaded g;
    struct gate out;
    struct err e = {0};
    open_tiny(&g, "llama");
    setenv("SKIP_PARITY_GATE", "1", 1);
    struct asked a = ask(&g, MUTANT_ROPE_PAIRS);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.gate.state, GATE_UNVERIFIED);
    assert_int_equal(a.told.n_position + a.told.n_reference, 0);
    assert_non_null(strstr(gate_state_text(a.gate.state), "unverified"));
    /* There is nothing to skip on the reference itself. */
    assert_int_equal(gate_check(&out, g.m, model_file_apr(g.file), NULL, NULL, &e), 0);
    assert_int_equal(out.state, GATE_REFERENCE);
    /* Nothing was kept by it. */
    static const char *const no_skip[] = {"", "0"};
    for (int i = 0; i < 2; i++) {
        setenv("SKIP_PARITY_GATE", no_skip[i], 1);
        assert_int_equal(ask(&g, MUTANT_ROPE_PAIRS).rc, -EDOM);
    }
    static const char *const bad[] = {"yes", "true", "2", "01", " 1", "1 "};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        setenv("SKIP_PARITY_GATE", bad[i], 1);
        a = ask(&g, MUTANT_NONE);
        assert_int_equal(a.rc, -EINVAL);
        assert_int_equal(a.gate.state, GATE_NONE);
        assert_non_null(strstr(a.e.msg, "SKIP_PARITY_GATE"));
        assert_non_null(strstr(a.e.msg, bad[i]));
    }
    setenv("SKIP_PARITY_GATE", "1", 1);
    a = ask_with(&g, MUTANT_NONE, (struct gate_options){.force = true});
    assert_int_equal(a.rc, -EINVAL); /* to verify and to skip */
    unsetenv("SKIP_PARITY_GATE");
    loaded_close(&g);
    free(cache);
}

/* A place that verdicts cannot be kept in costs time, never the answer. */
static void gate_measures_where_nothing_can_be_kept(void **state)
{
    (void)state;
    skip_under_tsan("threads as in gate_passes_and_remembers");
    char *cache = fresh(), *file = path_join(cache, "file");
    struct loaded g;
    file_write(file, "x", 1);
    setenv("XDG_CACHE_HOME", file, 1);
    open_tiny(&g, "llama");
    for (int i = 0; i < 2; i++) {
        struct asked a = ask(&g, MUTANT_NONE);
        assert_int_equal(a.rc, 0);
        assert_int_equal(a.gate.state, GATE_PASSED);
        assert_int_equal(a.told.n_position, 32);
        assert_int_equal(a.gate.note.code, -ENOTDIR);
        assert_non_null(strstr(a.gate.note.msg, "verdict not kept"));
    }
    setenv("XDG_CACHE_HOME", cache, 1);
    char *aprd = path_join(cache, "aprd");
    assert_int_equal(mkdir(aprd, 0700), 0);
    assert_int_equal(chmod(aprd, 0777), 0);
    struct asked a = ask(&g, MUTANT_NONE);
    assert_int_equal(a.gate.state, GATE_PASSED);
    assert_int_equal(a.gate.note.code, -EPERM);
    loaded_close(&g);
    free(aprd);
    free(file);
    free(cache);
}

static void gate_names_the_memory_that_is_lacking(void **state)
{
    (void)state;
    char *cache = fresh();
    struct loaded g;
    open_tiny(&g, "llama");
    struct asked a = ask_with(&g, MUTANT_NONE, (struct gate_options){.mem_limit = 1 << 20});
    assert_int_equal(a.rc, -ERANGE);
    print_message("# %s\n", a.e.msg);
    assert_non_null(strstr(a.e.msg, "the gate's CPU reference"));
    assert_non_null(strstr(a.e.msg, "SKIP_PARITY_GATE=1"));
    assert_int_equal(a.told.n_position, 0);
    loaded_close(&g);
    free(cache);
}

/* The reference reads the file again: another file is no reference. */
static void gate_notices_a_file_that_changed(void **state)
{
    (void)state;
    char *cache = fresh();
    struct loaded g, other;
    open_tiny(&g, "llama");
    open_tiny(&other, "qwen2");
    struct gate out;
    struct err e = {0};
    mutant_begin(g.m, MUTANT_NONE);
    int rc = gate_check(&out, g.m, model_file_apr(other.file), NULL, NULL, &e);
    mutant_end();
    assert_int_equal(rc, -EUCLEAN);
    assert_non_null(strstr(e.msg, "changed"));
    loaded_close(&g);
    loaded_close(&other);
    free(cache);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gate_of_the_cpu_is_the_reference),
        cmocka_unit_test(gate_passes_and_remembers),
        cmocka_unit_test(gate_asks_again_where_anything_differs),
        cmocka_unit_test(gate_does_not_take_the_verdict_of_another_model),
        cmocka_unit_test(gate_measures_when_forced),
        cmocka_unit_test(gate_refuses_by_name),
        cmocka_unit_test(gate_blames_no_device_for_the_model),
        cmocka_unit_test(gate_forced_refuses_in_spite_of_a_kept_pass),
        cmocka_unit_test(gate_skips_when_told),
        cmocka_unit_test(gate_measures_where_nothing_can_be_kept),
        cmocka_unit_test(gate_names_the_memory_that_is_lacking),
        cmocka_unit_test(gate_notices_a_file_that_changed),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("gate", tests, NULL, NULL);
    free(dir);
    return rc;
}
