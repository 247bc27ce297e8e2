/* The gate on the backend "gpu": four families pass it along prefill and graph; each mistake that a
 * device could make is refused, with the position and the layer it was made at. */
#include "infer/gate.h"
#include "tests/loaded.h"
#include "tests/mutant.h"
#include "tests/support.h"

#include <errno.h>

static char *dir; /* holds the tiny models */

static struct gate ask(const char *family, enum mutant which, uint32_t n_ctx, bool force,
                       struct err *e)
{
    struct loaded g;
    struct gate out;
    const struct gate_options opt = {.force = force, .n_thread = 2};
    loaded_open_tiny(&g, dir, family, "gpu", 2, n_ctx);
    mutant_begin(g.m, which);
    int rc = gate_check(&out, g.m, model_file_apr(g.file), NULL, &opt, e);
    mutant_end();
    assert_int_equal(rc, out.state == GATE_REFUSED ? -EDOM : 0);
    if (rc < 0)
        print_message("# %s: %s\n", family, e->msg);
    loaded_close(&g);
    return out;
}

/* 32 positions: 23, 6, and 3 steps, of which the last two are replays. tests/test_infer_probe.c has
 * more mistakes, at full length, without a device. */
static struct probe_result refused(const char *family, enum mutant which)
{
    struct err e = {0};
    struct gate out = ask(family, which, 32, true, &e);
    assert_int_equal(out.state, GATE_REFUSED);
    return out.probe;
}

static void gpu_gate_passes_the_four_families(void **state)
{
    NEED_GPU();
    for (int f = 0; f < 4; f++) {
        struct err e = {0};
        char line[512];
        uint32_t n =
            f == 0 ? 256 : 64; /* the emulation with its checks on takes a minute for 256 */
        struct gate out = ask(tiny_families[f], MUTANT_NONE, n, false, &e);
        assert_int_equal(out.state, GATE_PASSED);
        assert_int_equal(out.probe.n_done, n);
        assert_int_equal(out.note.code, 0);
        probe_line(&out.probe, PROBE_PARITY, line, sizeof line);
        print_message("# %s on %s: %s\n", tiny_families[f], out.device, line);
        /* Asked for: 1e-6. Measured on the emulation: 0. */
        assert_true(out.probe.metric[PROBE_NMSE].worst <= 1e-11);
        out = ask(tiny_families[f], MUTANT_NONE, n, false, &e);
        assert_int_equal(out.state, GATE_CACHED);
    }
}

static void gpu_gate_refuses_rope_pairs(void **state)
{
    NEED_GPU();
    struct probe_result r = refused("llama", MUTANT_ROPE_PAIRS);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_NMSE].first_bad, 1);
    assert_int_equal(r.bad_layer, 0);
}

static void gpu_gate_refuses_swapped_rows(void **state)
{
    NEED_GPU();
    struct probe_result r = refused("qwen3", MUTANT_SWAPPED_ROWS);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.bad_layer, 1);
}

static void gpu_gate_refuses_what_is_no_number(void **state)
{
    NEED_GPU();
    struct probe_result r = refused("qwen3", MUTANT_NAN);
    assert_int_equal(probe_refused(&r), PROBE_FINITE);
    assert_int_equal(r.metric[PROBE_FINITE].pos, MUTANT_NAN_POS);
    assert_int_equal(r.bad_layer, 1);
}

static void gpu_gate_refuses_a_wrong_choice(void **state)
{
    NEED_GPU();
    struct probe_result r = refused("llama", MUTANT_ARGMAX);
    assert_true(probe_gate_passed(&r, PROBE_PARITY));
    assert_int_equal(probe_refused(&r), PROBE_GREEDY);
    assert_int_equal(r.metric[PROBE_GREEDY].first_bad, 22);
}

/* The step at 29 is queued, the one at 30 recorded and replayed (forward.h). Op by op, all is well.
 */
static void gpu_gate_refuses_a_graph_that_does_nothing(void **state)
{
    NEED_GPU();
    struct probe_result r = refused("llama", MUTANT_STALE_GRAPH);
    assert_int_equal(probe_refused(&r), PROBE_NMSE);
    assert_int_equal(r.metric[PROBE_NMSE].first_bad, 30);
    assert_int_equal(r.bad_layer, -1);
    /* A short context has its graph judged too: steps at 13, 14 and 15. */
    struct err e = {0};
    struct gate out = ask("llama", MUTANT_STALE_GRAPH, 16, true, &e);
    assert_int_equal(out.state, GATE_REFUSED);
    assert_int_equal(out.probe.metric[PROBE_NMSE].first_bad, 14);
}

/* No part of a graph runs where the user asked for none. */
static void gpu_gate_without_graph_replays_nothing(void **state)
{
    NEED_GPU();
    struct loaded g;
    struct gate out;
    struct err e = {0};
    const struct gate_options opt = {.force = true, .no_graph = true};
    loaded_open_tiny(&g, dir, "llama", "gpu", 2, 32);
    mutant_begin(g.m, MUTANT_STALE_GRAPH);
    int rc = gate_check(&out, g.m, model_file_apr(g.file), NULL, &opt, &e);
    mutant_end();
    assert_int_equal(rc, 0);
    assert_int_equal(out.state, GATE_PASSED);
    loaded_close(&g);
}

static void gpu_identity_is_one_line(void **state)
{
    NEED_GPU();
    struct backend *b;
    char buf[384], cut[8];
    struct err e = {0};
    assert_int_equal(backend_open(&b, "gpu", NULL, &e), 0);
    assert_int_equal(b->ops->identity(b, buf, sizeof buf), 0);
    assert_null(strchr(buf, '\n'));
    assert_non_null(strstr(buf, ", sm_"));
    assert_non_null(strstr(buf, ", driver "));
    assert_int_equal(b->ops->identity(b, cut, sizeof cut), 0);
    assert_memory_equal(cut, buf, sizeof cut - 1);
    assert_int_equal(cut[sizeof cut - 1], 0);
    backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_gate_passes_the_four_families),
        cmocka_unit_test(gpu_gate_refuses_rope_pairs),
        cmocka_unit_test(gpu_gate_refuses_swapped_rows),
        cmocka_unit_test(gpu_gate_refuses_what_is_no_number),
        cmocka_unit_test(gpu_gate_refuses_a_wrong_choice),
        cmocka_unit_test(gpu_gate_refuses_a_graph_that_does_nothing),
        cmocka_unit_test(gpu_gate_without_graph_replays_nothing),
        cmocka_unit_test(gpu_identity_is_one_line),
    };
    dir = temp_dir();
    setenv("XDG_CACHE_HOME", dir, 1);
    unsetenv("SKIP_PARITY_GATE");
    int rc = cmocka_run_group_tests_name("gpu_gate", tests, NULL, NULL);
    free(dir);
    return rc;
}
