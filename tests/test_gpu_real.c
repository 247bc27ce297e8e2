/* The backend "gpu" on a real model, against the CPU reference: the same greedy tokens, the same logits.
 * On the emulation a step of SmolLM2-135M takes seconds; slower builds run without the file. */
#include "format/model_file.h"
#include "infer/session.h"
#include "tests/support.h"

#include <errno.h>

enum { N_PROMPT = 5, N_GEN = 8 };

/* "The capital of France is", by llama.cpp's tokenizer of this file. */
static const int32_t prompt[N_PROMPT] = {504, 3575, 282, 4649, 314};

struct told {
    float *logits; /* (N_GEN, n_vocab) */
    int32_t id[N_GEN];
    uint32_t n_vocab;
};

static int32_t highest(const float *x, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}

static int keep_last(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    (void)e;
    memcpy(ctx, logits, n_vocab * sizeof *logits);
    return 0;
}

static void generate(struct told *t, const char *path, struct backend *b)
{
    struct model_file *file;
    struct model *m;
    struct session *s;
    struct err e = {0};
    const struct model_options mo = {.n_ctx = 32};
    if (model_file_open(&file, path, &e) < 0 ||
        model_open(&m, model_file_apr(file), b, &mo, &e) < 0 || session_new(&s, m, NULL, &e) < 0)
        fail_msg("%s: %s", path, e.msg);
    t->n_vocab = m->c.n_vocab;
    t->logits = calloc((size_t)N_GEN * t->n_vocab, sizeof(float));
    for (int i = 0; i < N_GEN; i++) {
        float *row = t->logits + (size_t)i * t->n_vocab;
        if (session_eval_rows(s, i ? &t->id[i - 1] : prompt, i ? 1 : N_PROMPT, keep_last, row, &e) <
            0)
            fail_msg("%s: %s", path, e.msg);
        t->id[i] = highest(row, t->n_vocab);
    }
    session_free(s);
    model_close(m);
    model_file_close(file);
}

static void gpu_real_smollm2_says_what_the_cpu_says(void **state)
{
    (void)state;
    struct backend *cpu, *gpu;
    struct err e = {0};
    if (backend_open(&gpu, "gpu", NULL, &e) < 0)
        skip_because("%s", e.msg);
    char *path = real_model(REAL_SMOLLM2);
    if (!path) {
        backend_close(gpu);
        skip_because("%s is not in APRFS_MODELS", REAL_SMOLLM2);
    }
    struct told a, b;
    assert_int_equal(backend_open(&cpu, "cpu", NULL, &e), 0);
    double t0 = now_ms();
    generate(&a, path, cpu);
    double t1 = now_ms();
    generate(&b, path, gpu);
    print_message("# 5 + 8 tokens with loading: cpu %.0f ms, gpu %.0f ms\n", t1 - t0,
                  now_ms() - t1);
    double d = nmse(b.logits, a.logits, (size_t)N_GEN * a.n_vocab);
    print_message("# NMSE %.3g, tokens %d %d %d %d ...\n", d, a.id[0], a.id[1], a.id[2], a.id[3]);
    assert_memory_equal(a.id, b.id, sizeof a.id);
    assert_true(d <= 1e-11); /* asked for: 1e-6; measured on the emulation: 0 */
    backend_close(cpu);
    backend_close(gpu);
    free(a.logits);
    free(b.logits);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_real_smollm2_says_what_the_cpu_says),
    };
    return cmocka_run_group_tests_name("gpu_real", tests, NULL, NULL);
}
