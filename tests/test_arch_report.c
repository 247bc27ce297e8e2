/* The resolver: its report, the difference of two configurations, and what llama.cpp prints about the real
 * models. */
#include "format/arch_internal.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

/* --- the report, the difference, real models ------------------------------------------------- */

static void arch_report_is_complete(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("gemma3");
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.r.n_field, ARCH_N_FIELD + 1); /* rope stands twice */
    for (size_t i = 0; i < a.r.n_field; i++) {
        const struct arch_field *f = &a.r.field[i];
        if (f->origin == ARCH_UNKNOWN && strncmp(f->name, "eo", 2) && strcmp(f->name, "unk") &&
            !strstr(f->name, "token_id"))
            fail_msg("field %s has no provenance", f->name);
        assert_true(*f->reference && *f->stamped);
        assert_true(f->differs == (*f->compat && strcmp(f->compat, f->reference) != 0));
    }
    assert_string_equal(arch_open_field(&a, "rms_norm_eps")->source,
                        "gemma3.attention.layer_norm_rms_epsilon");
    assert_true(arch_open_field(&a, "rms_norm_eps")->mapped);
    assert_false(arch_open_field(&a, "sliding_window")->mapped);
    assert_string_equal(arch_origin_name(ARCH_FROM_SHAPE), "shape");
    arch_open_release(&a);
    struct arch_config c;
    struct source *src;
    struct gguf *g;
    size_t len;
    uint8_t *bytes = gguf_build_bytes(b, &len);
    src = mem_source(bytes, len, "no report");
    assert_int_equal(gguf_open(&g, &src, 1, NULL), 0);
    assert_int_equal(arch_resolve(g, ARCH_VALUES_REFERENCE, &c, NULL, NULL), 0);
    arch_config_release(&c);
    gguf_close(g);
    source_close(src);
    free(bytes);
    gguf_build_free(b);
}

static void remember(void *ctx, const char *field, const char *va, const char *vb)
{
    assert_string_not_equal(va, vb);
    snprintf(ctx, 64, "%s", field);
}

static void arch_diff_sees_every_field(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    struct arch_open a = arch_open_good(b);
    for (int f = 0; f < ARCH_N_FIELD; f++) {
        struct arch_config c;
        char seen[64] = "";
        if (f == ARCH_F_N_LAYER)
            continue; /* the arrays hang on it */
        assert_int_equal(arch_config_copy(&c, &a.c), 0);
        void *p = arch_field_at(&c, f);
        switch (arch_fields[f].kind) {
        case ARCH_KIND_U32S:
            (*(uint32_t **)p)[1]++;
            break;
        case ARCH_KIND_U8S:
            (*(uint8_t **)p)[1] ^= 1;
            break;
        case ARCH_KIND_F32:
            *(float *)p = nextafterf(*(float *)p, 1e30F); /* by one bit */
            break;
        case ARCH_KIND_BOOL:
            *(bool *)p = !*(bool *)p;
            break;
        default:
            *(uint32_t *)p ^= 1;
        }
        assert_int_equal(arch_config_diff(&a.c, &c, remember, seen), 1);
        assert_string_equal(seen, arch_fields[f].name);
        arch_config_release(&c);
    }
    assert_int_equal(arch_config_diff(&a.c, &a.c, NULL, NULL), 0);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_aliases_of_other_writers(void **state)
{
    (void)state;
    static const char *const t[][2] = {{"mistral", "llama"},      {"qwen2.5", "qwen2"},
                                       {"qwen3_moe", "qwen3moe"}, {"falcon_h1", "falcon-h1"},
                                       {"smollm", "llama"},       {"phi", "phi3"}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const struct arch_row *row = arch_row_find(t[i][0]);
        assert_non_null(row);
        assert_string_equal(row->name, t[i][1]);
    }
    assert_null(arch_row_find("Llama"));
    assert_null(arch_row_find(""));
}

/* What llama.cpp (0c1e570) prints about these files when it loads them; the Qwen file carries an
 * output.weight of its own. */
static const struct real {
    const char *file, *arch;
    uint32_t n_layer, n_embd, n_head, n_head_kv, head_dim, n_rot, n_ff, n_vocab, n_ctx, n_swa;
    float eps, theta, theta_swa;
    enum arch_rope rope;
    int32_t bos, eos;
    bool add_bos, tied, bias, qk;
} real[] = {
    {REAL_SMOLLM2, "llama",        30,    576,  9,     3,     64,
     64,           1536,           49152, 8192, 0,     1e-5F, 100000,
     100000,       ARCH_ROPE_NORM, 1,     2,    false, true,  false,
     false},
    {REAL_QWEN25, "qwen2", 24,    896,   14,    2,    64,   64,
     4864,        151936,  32768, 0,     1e-6F, 1e6F, 1e6F, ARCH_ROPE_NEOX,
     151643,      151645,  false, false, true,  false},
    {REAL_GEMMA3, "gemma3", 18,    640,  4,     1,    256,   256,
     2048,        262144,   32768, 512,  1e-6F, 1e6F, 10000, ARCH_ROPE_NEOX,
     2,           1,        true,  true, false, true},
};

static void check_real(const char *test, const struct real *r)
{
    char *path = real_model(r->file);
    if (!path)
        skip_because_in(test, "%s is not there", r->file);
    struct arch_open a;
    arch_open_path(&a, path);
    if (a.rc < 0)
        fail_msg("%s: %s", path, a.e.msg);
    const struct arch_config *c = &a.c;
    assert_string_equal(c->arch, r->arch);
    assert_int_equal(c->n_layer, r->n_layer);
    assert_int_equal(c->n_embd, r->n_embd);
    for (uint32_t i = 0; i < c->n_layer; i++) {
        assert_int_equal(c->n_head[i], r->n_head);
        assert_int_equal(c->n_head_kv[i], r->n_head_kv);
        assert_int_equal(c->n_ff[i], r->n_ff);
        assert_int_equal(c->layer_local[i], r->n_swa && i % 6 < 5);
    }
    assert_int_equal(c->head_dim_k, r->head_dim);
    assert_int_equal(c->n_rot, r->n_rot);
    assert_int_equal(c->n_vocab, r->n_vocab);
    assert_int_equal(c->n_ctx_train, r->n_ctx);
    assert_int_equal(c->sliding_window, r->n_swa);
    assert_true(c->norm_eps == r->eps);
    assert_true(c->rope_theta == r->theta);
    assert_true(c->rope_theta_swa == r->theta_swa);
    assert_int_equal(c->rope, r->rope);
    assert_int_equal(c->bos, r->bos);
    assert_int_equal(c->eos, r->eos);
    assert_int_equal(c->add_bos, r->add_bos);
    assert_int_equal(c->tied_head, r->tied);
    assert_int_equal(c->qkv_bias, r->bias);
    assert_int_equal(c->qk_norm, r->qk);
    arch_open_release(&a);
    free(path);
}

static void arch_real_smollm2(void **state)
{
    (void)state;
    check_real(__func__, &real[0]);
}

static void arch_real_qwen25(void **state)
{
    (void)state;
    check_real(__func__, &real[1]);
}

static void arch_real_gemma3(void **state)
{
    (void)state;
    check_real(__func__, &real[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arch_report_is_complete),
        cmocka_unit_test(arch_diff_sees_every_field),
        cmocka_unit_test(arch_aliases_of_other_writers),
        cmocka_unit_test(arch_real_smollm2),
        cmocka_unit_test(arch_real_qwen25),
        cmocka_unit_test(arch_real_gemma3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
