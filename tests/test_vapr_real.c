/* The virtual APR of real models: every tensor that the reader finds in it, in every profile, holds
 * the bytes of the GGUF, and what is shown as F32 is the dequantisation of those bytes. Models that
 * are not in APRFS_MODELS are skipped by name; the larger ones run with LONG=1. */
#include "tests/vapr_support.h"

#include <errno.h>

#define CHUNK ((size_t)1 << 20) /* weights */

static void compare_f32(struct source *s, const struct apr_tensor *t, struct source *part,
                        const struct vapr_tensor *w)
{
    float *shown = malloc(CHUNK * 4), *want = malloc(CHUNK * 4);
    uint8_t *raw = malloc(CHUNK * 4);
    const struct quant_type *q = w->type;
    uint64_t n = t->size / 4;
    struct err e = {0};
    for (uint64_t at = 0; at < n; at += CHUNK) { /* a multiple of every block length */
        size_t k = n - at < CHUNK ? (size_t)(n - at) : CHUNK;
        size_t bytes = k / q->block_len * q->block_bytes;
        if (source_read(s, shown, t->off + at * 4, k * 4, &e) < 0 ||
            source_read(part, raw, w->src_off + at / q->block_len * q->block_bytes, bytes, &e) < 0)
            fail_msg("%s", e.msg);
        q->f32(want, raw, k / q->block_len);
        if (memcmp(want, shown, k * 4) != 0)
            fail_msg("%s: F32 differs behind weight %llu", t->name, (unsigned long long)at);
    }
    free(shown);
    free(want);
    free(raw);
}

static void compare_raw(struct source *s, const struct apr_tensor *t, struct source *part,
                        const struct vapr_tensor *w)
{
    uint8_t *p = malloc(t->size), *q = malloc(t->size);
    struct err e = {0};
    assert_int_equal(t->size, w->src_size);
    if (source_read(s, p, t->off, t->size, &e) < 0 ||
        source_read(part, q, w->src_off, t->size, &e) < 0)
        fail_msg("%s", e.msg);
    if (memcmp(p, q, t->size) != 0)
        fail_msg("%s: bytes differ", t->name);
    free(p);
    free(q);
}

static void compare_model(const char *path, enum vapr_profile profile)
{
    struct gguf *g = NULL;
    struct source *s = NULL;
    struct apr *a = NULL;
    struct err e = {0};
    if (gguf_open_path(&g, path, &e) < 0)
        fail_msg("%s", e.msg);
    double t0 = now_ms();
    struct vapr *v = vapr_ok(g, profile);
    double t1 = now_ms();
    if (vapr_source(&s, v, &e) < 0 || apr_open(&a, s, &e) < 0)
        fail_msg("%s", e.msg);
    double t2 = now_ms();
    size_t n_conv = 0;
    assert_true(apr_n_tensor(a) >= gguf_n_tensor(g));
    for (size_t i = 0; i < gguf_n_tensor(g); i++) {
        char name[APR_MAX_NAME + 1];
        const struct gguf_tensor *gt = gguf_tensor(g, i);
        snprintf(name, sizeof name, "%.*s", (int)gt->name.len, gt->name.p);
        const struct apr_tensor *t = apr_find(a, name);
        const struct vapr_tensor *w = t ? vapr_tensor(v, (size_t)(t - apr_tensor(a, 0))) : NULL;
        assert_non_null(t);
        assert_int_equal(w->src_off, gt->off);
        assert_int_equal(w->src_size, gt->size);
        struct source *part = gguf_part(g, gt->part);
        struct apr_tensor raw = *t;
        if (t->type != gt->type) {
            assert_true(t->type == QUANT_F32 && apr_raw_twin(a, t, &raw));
            compare_f32(s, t, part, w);
            n_conv++;
        }
        assert_int_equal(raw.type, gt->type);
        compare_raw(s, &raw, part, w);
    }
    print_message("# %s, %s: %zu tensors, %zu as F32; vapr_new %.1f ms, apr_open %.1f ms\n",
                  strrchr(path, '/') + 1, vapr_profile_name(profile), gguf_n_tensor(g), n_conv,
                  t1 - t0, t2 - t1);
    apr_close(a);
    source_close(s);
    vapr_free(v);
    gguf_close(g);
}

static void compare_all(const char *test, const char *file, bool longer)
{
    char *path = real_model(file);
    if (!path)
        skip_because_in(test, "%s is not there", file);
    if (longer && !long_run()) {
        free(path);
        skip_because_in(test, "%s runs with LONG=1", file);
    }
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        compare_model(path, (enum vapr_profile)p);
    free(path);
}

static void vapr_real_smollm2(void **state)
{
    (void)state;
    compare_all(__func__, REAL_SMOLLM2, false);
}

static void vapr_real_qwen25(void **state)
{
    (void)state;
    compare_all(__func__, REAL_QWEN25, true);
}

static void vapr_real_gemma3(void **state)
{
    (void)state;
    compare_all(__func__, REAL_GEMMA3, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vapr_real_smollm2),
        cmocka_unit_test(vapr_real_qwen25),
        cmocka_unit_test(vapr_real_gemma3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
