/* The backend "gpu" end to end: tiny models of all families, loaded and run through it, against the CPU
 * reference; and what a build without a GPU says. */
#include "kernels/gpu.h"
#include "tests/loaded.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

static char *dir; /* holds the tiny models */

/* Rows of the tiny ids: the first n in one step, the rest one by one. */
static float *tiny_logits(const char *family, const char *backend, int n, size_t *n_vocab)
{
    struct loaded g;
    int32_t id[TINY_N_TOK];
    int step[TINY_N_TOK + 1] = {n};
    tiny_ids(id);
    for (int i = 1; i <= TINY_N_TOK - n; i++)
        step[i] = 1;
    loaded_open_tiny(&g, dir, family, backend, 2, 64);
    *n_vocab = g.m->c.n_vocab;
    float *rows = loaded_rows(&g, NULL, id, TINY_N_TOK, step);
    loaded_close(&g);
    return rows;
}

/* Asked for: NMSE 1e-6 over all positions. Measured on the emulation: 0, every bit equal. And no
 * bit depends on how the tokens were cut into steps. */
static void gpu_forward_agrees_with_the_reference(const char *family)
{
    size_t n_vocab;
    float *want = tiny_logits(family, "cpu", TINY_N_TOK, &n_vocab);
    float *got = tiny_logits(family, "gpu", TINY_N_TOK, &n_vocab);
    float *steps = tiny_logits(family, "gpu", TINY_N_TOK - 3, &n_vocab);
    double d = nmse(got, want, TINY_N_TOK * n_vocab);
    print_message("# %s: NMSE %.3g\n", family, d);
    assert_true(d <= 1e-11);
    assert_memory_equal(steps, got, TINY_N_TOK * n_vocab * sizeof *got);
    free(want);
    free(got);
    free(steps);
}

static void gpu_forward_agrees_with_the_reference_on_llama(void **state)
{
    NEED_GPU();
    gpu_forward_agrees_with_the_reference("llama");
}

static void gpu_forward_agrees_with_the_reference_on_qwen2(void **state)
{
    NEED_GPU();
    gpu_forward_agrees_with_the_reference("qwen2");
}

static void gpu_forward_agrees_with_the_reference_on_qwen3(void **state)
{
    NEED_GPU();
    gpu_forward_agrees_with_the_reference("qwen3");
}

static void gpu_forward_agrees_with_the_reference_on_gemma3(void **state)
{
    NEED_GPU();
    gpu_forward_agrees_with_the_reference("gemma3");
}

static void gpu_kv_refuses_positions_behind_the_context(void **state)
{
    NEED_GPU();
    struct loaded g;
    struct backend_kv *kv;
    loaded_open_tiny(&g, dir, "llama", "gpu", 1, 64);
    const struct backend_ops *op = g.b->ops;
    const struct backend_kv_layer dim = {1, 8, 8, 0};
    void *k;
    assert_int_equal(op->kv_new(g.b, &kv, &dim, 1, 10), 0);
    assert_int_equal(op->alloc(g.b, &k, 64 * sizeof(float), "k"), 0);
    struct backend_step st = {.n_tok = 2, .id = k, .pos = k, .pos0 = 9};
    assert_int_equal(op->kv_append(g.b, kv, 0, k, k, &st), -ERANGE);
    assert_non_null(strstr(g.b->e.msg, "10"));
    op->release(g.b, k);
    op->kv_free(g.b, kv);
    loaded_close(&g);
}

static void gpu_backend_without_device_is_enodev(void **state)
{
    (void)state;
    struct backend *b = NULL;
    struct gpu_info info;
    struct err e = {0};
    int rc = backend_open(&b, "gpu", NULL, &e);
    assert_int_equal(rc, gpu_device_info(&info) == 0 ? 0 : -ENODEV);
    if (rc < 0) {
        assert_null(b);
        assert_ptr_equal(strstr(e.msg, "no GPU: "), e.msg);
    }
    backend_close(b);
    assert_int_equal(backend_open(&b, "npu", NULL, &e), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_forward_agrees_with_the_reference_on_llama),
        cmocka_unit_test(gpu_forward_agrees_with_the_reference_on_qwen2),
        cmocka_unit_test(gpu_forward_agrees_with_the_reference_on_qwen3),
        cmocka_unit_test(gpu_forward_agrees_with_the_reference_on_gemma3),
        cmocka_unit_test(gpu_kv_refuses_positions_behind_the_context),
        cmocka_unit_test(gpu_backend_without_device_is_enodev),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("gpu_forward", tests, NULL, NULL);
    free(dir);
    return rc;
}
