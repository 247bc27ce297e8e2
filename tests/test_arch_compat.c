/* The resolver: where the original readers' values are not llama.cpp's: epsilon, the observed cases of
 * arch-resolver.md §3, the Rust table. */
#include "format/arch_internal.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

static struct gguf_build *model_eps(const char *arch, enum gguf_build_norm key, double eps)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.eps_key = key;
    o.eps = eps;
    return gguf_build_llama_like(arch, &o);
}

/* --- epsilon ------------------------------------------------------------------------------ */

static void check_eps(struct gguf_build *b, float want)
{
    struct arch_open a = arch_open_good(b);
    if (a.c.norm_eps != want)
        fail_msg("%s: eps %.9g, expected %.9g", a.c.arch, (double)a.c.norm_eps, (double)want);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* FALSIFY-APR-IMPORT-EPS-001 (arch-resolver.md §3): qwen2 without a key -> 1e-6. */
static void arch_eps_001_qwen2_without_key(void **state)
{
    (void)state;
    check_eps(model_eps("qwen2", GGUF_BUILD_EPS_NONE, 0), 1e-6F);
}

/* FALSIFY-APR-IMPORT-EPS-002: qwen3 without a key -> 1e-6. */
static void arch_eps_002_qwen3_without_key(void **state)
{
    (void)state;
    check_eps(model_eps("qwen3", GGUF_BUILD_EPS_NONE, 0), 1e-6F);
}

/* FALSIFY-APR-IMPORT-EPS-003: llama without a key -> 1e-5. */
static void arch_eps_003_llama_without_key(void **state)
{
    (void)state;
    check_eps(model_eps("llama", GGUF_BUILD_EPS_NONE, 0), 1e-5F);
}

/* FALSIFY-APR-IMPORT-EPS-004: qwen2 with an explicit 7.5e-6 -> verbatim. */
static void arch_eps_004_explicit_verbatim(void **state)
{
    (void)state;
    check_eps(model_eps("qwen2", GGUF_BUILD_EPS_RMS, 7.5e-6), 7.5e-6F);
}

static void arch_eps_defaults_follow_section_8_3(void **state)
{
    (void)state;
    /* arch-resolver.md §8.3 */
    static const struct {
        const char *arch;
        float eps;
    } t[] = {{"qwen2", 1e-6F},     {"qwen2moe", 1e-6F}, {"qwen3", 1e-6F},    {"qwen3moe", 1e-6F},
             {"gemma", 1e-6F},     {"deepseek", 1e-6F}, {"t5", 1e-6F},       {"openelm", 1e-6F},
             {"bert", 1e-12F},     {"llama", 1e-5F},    {"phi3", 1e-5F},     {"gpt2", 1e-5F},
             {"falcon", 1e-5F},    {"mamba", 1e-5F},    {"stablelm", 1e-5F}, {"neverheard", 1e-5F},
             {"granitemoe", 1e-5F}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = model_eps(t[i].arch, GGUF_BUILD_EPS_NONE, 0);
        gguf_build_f32(b, arch_name(t[i].arch, "logit_scale"), 1);
        struct arch_open a = arch_open_good(b);
        assert_int_equal(arch_open_field(&a, "rms_norm_eps")->origin, ARCH_FROM_DEFAULT);
        arch_open_release(&a);
        check_eps(b, t[i].eps);
    }
}

static void arch_eps_obeys_its_own_key_for_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    for (size_t i = 0; i < n; i++) {
        struct gguf_build *b = arch_case(&l[i]);
        const char *name = l[i].name;
        gguf_build_f32(b, arch_name(name, "attention.layer_norm_rms_epsilon"), 3e-5F);
        gguf_build_f32(b, arch_name(name, "attention.layer_norm_epsilon"), 4e-5F);
        gguf_build_f32(b, arch_name(name, "attention.group_norm_epsilon"), 5e-5F);
        struct arch_open a = arch_open_good(b);
        const struct arch_row *row = arch_row_find(name);
        /* Both keys: cohere2moe and nemotron_h take the RMS one (their files in src/models), the rwkv
         * families and glm5-next the one their graph's norm uses. */
        bool ln = strcmp(l[i].eps, "layer_norm_epsilon") == 0 && row->eps == ARCH_EPS_BY_NORM;
        if (strcmp(name, "rwkv6") == 0 || strcmp(name, "rwkv7") == 0 ||
            strcmp(name, "wavtokenizer-dec") == 0 || strcmp(l[i].eps, "-") == 0)
            ln = true;
        if (a.c.norm_eps != (ln ? 4e-5F : 3e-5F))
            fail_msg("%s takes epsilon %.9g", name, (double)a.c.norm_eps);
        assert_int_equal(a.c.norm, ln ? ARCH_NORM_LAYER : ARCH_NORM_RMS);
        if (row->eps == ARCH_EPS_BY_NORM)
            assert_true(arch_open_noted(&a, ln ? "layer_norm_rms_epsilon is not read"
                                               : "layer_norm_epsilon is not read"));
        arch_open_release(&a);
        gguf_build_free(b);
    }
    arch_lines_free(l, n);
}

static void arch_eps_of_cohere2moe_and_nemotron_h(void **state)
{
    (void)state;
    /* cohere2moe: RMSNorm only if its key is there and not 0 (src/models/cohere2moe.cpp). */
    struct gguf_build *b = model_eps("cohere2moe", GGUF_BUILD_EPS_LN, 4e-5);
    gguf_build_u32(b, "cohere2moe.attention.sliding_window", 8);
    gguf_build_f32(b, "cohere2moe.attention.layer_norm_rms_epsilon", 0);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.norm, ARCH_NORM_LAYER);
    assert_true(a.c.norm_eps == 4e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
    /* nemotron_h: the RMS key, else the LayerNorm key, RMSNorm either way. */
    b = model_eps("nemotron_h", GGUF_BUILD_EPS_LN, 4e-5);
    a = arch_open_good(b);
    assert_int_equal(a.c.norm, ARCH_NORM_RMS);
    assert_true(a.c.norm_eps == 4e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_eps_of_unknown_architecture(void **state)
{
    (void)state;
    /* §8.3: RMS key, else LN key. */
    struct gguf_build *b = model_eps("neverheard", GGUF_BUILD_EPS_LN, 2e-5);
    struct arch_open a = arch_open_good(b);
    assert_false(a.c.known);
    assert_int_equal(a.c.norm, ARCH_NORM_LAYER);
    assert_true(a.c.norm_eps == 2e-5F);
    assert_true(arch_open_noted(&a, "has no row"));
    arch_open_release(&a);
    gguf_build_f32(b, "neverheard.attention.layer_norm_rms_epsilon", 3e-5F);
    a = arch_open_good(b);
    assert_int_equal(a.c.norm, ARCH_NORM_RMS);
    assert_true(a.c.norm_eps == 3e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_eps_takes_f64(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.eps = 3e-6;
    o.eps_f64 = true;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    struct arch_open a = arch_open_good(b);
    assert_true(a.c.norm_eps == 3e-6F);
    /* from_gguf takes f32 only (§2) and falls back to its table. */
    assert_string_equal(arch_open_field(&a, "rms_norm_eps")->compat, "1e-06");
    assert_true(arch_open_field(&a, "rms_norm_eps")->differs);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_eps_refuses_what_cannot_be(void **state)
{
    (void)state;
    /* §8.3: outside 1e-10..0.01. */
    static const double bad[] = {0, 9e-11, 0.0101, -1e-5, 1};
    struct gguf_build *b;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        b = arch_model("llama");
        gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", (float)bad[i]);
        arch_refused(b, -ENOTSUP, "epsilon");
    }
    b = arch_model("llama");
    gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", NAN);
    arch_refused(b, -EUCLEAN, "no finite number");
    b = arch_model("llama");
    gguf_build_str(b, "llama.attention.layer_norm_rms_epsilon", "1e-5");
    arch_refused(b, -EUCLEAN, "layer_norm_rms_epsilon");
    check_eps(model_eps("llama", GGUF_BUILD_EPS_RMS, 1e-10), 1e-10F);
    check_eps(model_eps("llama", GGUF_BUILD_EPS_RMS, 0.01), 0.01F);
    check_eps(model_eps("bert", GGUF_BUILD_EPS_LN, 1e-12), 1e-12F); /* every real BERT */
    arch_refused(model_eps("gpt2", GGUF_BUILD_EPS_LN, 1e-12), -ENOTSUP, "epsilon");
}

/* --- arch-resolver.md §3, the table of observed cases -------------------------------------- */

static void arch_section_3_cases(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen3");
    o.eps_key = GGUF_BUILD_EPS_NONE;
    o.n_head = 4;
    o.n_head_kv = 2;
    o.n_embd = 256; /* hidden/heads = 64, head_dim = 128 */
    o.head_dim = 128;
    struct gguf_build *b = gguf_build_llama_like("qwen3", &o);
    struct arch_open a = arch_open_good(b);
    assert_true(a.c.norm_eps == 1e-6F);
    assert_int_equal(a.c.head_dim_k, 128);
    assert_int_equal(a.c.head_dim_v, 128);
    arch_open_release(&a);
    gguf_build_remove(b, "qwen3.attention.key_length"); /* then K's shape tells: 256 rows / 2 */
    gguf_build_remove(b, "qwen3.attention.value_length");
    a = arch_open_good(b);
    assert_int_equal(a.c.head_dim_k, 128);
    assert_int_equal(arch_open_field(&a, "head_dim")->origin, ARCH_FROM_SHAPE);
    arch_open_release(&a);
    gguf_build_free(b);

    check_eps(model_eps("gemma", GGUF_BUILD_EPS_NONE, 0), 1e-6F);
    check_eps(model_eps("qwen3moe", GGUF_BUILD_EPS_NONE, 0), 1e-6F);

    /* llama, scaling yarn: both original routes say 2; the truth is NORM. */
    b = arch_model("llama");
    gguf_build_str(b, "llama.rope.scaling.type", "yarn");
    gguf_build_f32(b, "llama.rope.scaling.factor", 4);
    a = arch_open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NORM);
    assert_int_equal(a.c.scaling, ARCH_SCALING_YARN);
    assert_true(a.c.scaling_factor == 4);
    const struct arch_field *f = arch_open_field(&a, "rope_type");
    assert_string_equal(f->reference, "0");
    assert_string_equal(f->compat, "2");
    assert_true(f->differs);
    arch_open_release(&a);
    gguf_build_free(b);

    /* qwen2, scaling linear: Rust says 0, the truth is NEOX. */
    b = arch_model("qwen2");
    gguf_build_str(b, "qwen2.rope.scaling.type", "linear");
    a = arch_open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NEOX);
    assert_string_equal(arch_open_field(&a, "rope_type")->compat, "0");
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- the Rust table ------------------------------------------------------------------------- */

static void arch_compat_table(void **state)
{
    (void)state;
    /* arch-resolver.md §1 with its footnotes; rope by §1.1 */
    static const struct {
        const char *arch;
        float eps, theta;
        uint32_t rope;
        int32_t bos, eos;
        bool bias, qk, tied, ln;
    } t[] = {
        {"llama", 1e-5F, 1e4F, 0, 128000, 128001, false, false, false, false},
        {"mistral", 1e-5F, 1e4F, 0, 1, 2, false, false, false, false},
        {"qwen2", 1e-6F, 1e6F, 2, 151643, 151645, true, false, false, false},
        {"qwen2.5", 1e-6F, 1e4F, 2, -1, -1, true, false, false, false},
        {"qwen", 1e-6F, 1e4F, 2, -1, -1, true, false, false, false},
        {"qwen3", 1e-6F, 1e6F, 2, 151643, 151645, false, true, false, false},
        {"qwen3moe", 1e-6F, 1e4F, 2, 151643, 151645, false, true, false, false},
        {"phi2", 1e-5F, 1e4F, 2, -1, 50256, true, false, false, true},
        {"phi3", 1e-5F, 1e4F, 2, 1, 32000, true, false, false, true},
        {"gemma", 1e-6F, 1e4F, 2, 2, 1, false, false, true, false},
        {"deepseek2", 1e-6F, 1e4F, 2, 0, 1, false, false, false, false},
        {"gpt2", 1e-5F, 1e4F, 0, -1, 50256, true, false, true, true},
        {"bert", 1e-12F, 1e4F, 2, -1, -1, true, false, true, true},
        {"internlm2", 1e-5F, 1e4F, 2, -1, -1, true, false, false, false},
        {"falcon", 1e-5F, 1e4F, 2, -1, -1, true, false, false, true},
        {"grok", 1e-5F, 1e4F, 0, -1, -1, false, false, false, false}, /* default row */
        {"gpt-oss", 1e-5F, 1e4F, 0, -1, -1, false, false, false, false},
        {"olmo2", 1e-5F, 1e4F, 2, -1, -1, false, false, false, false},
        {"Qwen2", 1e-5F, 1e4F, 2, -1, -1, false, false, false, false}, /* case: row, not rope */
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        const struct arch_compat_row *r = arch_compat_find(t[i].arch);
        if (r->eps != t[i].eps || r->bos != t[i].bos || r->eos != t[i].eos ||
            r->bias != t[i].bias || r->qk_norm != t[i].qk || r->tied != t[i].tied ||
            (r->norm == ARCH_NORM_LAYER) != t[i].ln)
            fail_msg("row of %s", t[i].arch);
        if (arch_compat_theta(t[i].arch) != t[i].theta)
            fail_msg("theta of %s", t[i].arch);
        if (arch_compat_rope_type(t[i].arch) != t[i].rope)
            fail_msg("rope of %s", t[i].arch);
    }
}

static void arch_compat_stamps_the_rust_values(void **state)
{
    (void)state;
    struct gguf_build *b = model_eps("internlm2", GGUF_BUILD_EPS_NONE, 0);
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NORM); /* §7.1 */
    arch_open_release(&a);
    arch_open_build(&a, b, ARCH_VALUES_COMPAT);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.c.rope, ARCH_ROPE_NEOX);
    assert_string_equal(arch_open_field(&a, "rope_type")->stamped, "2");
    assert_string_equal(arch_open_field(&a, "rope_type")->reference, "0");
    assert_false(a.c.qkv_bias); /* what no canonical key carries stays true to the file */
    arch_open_release(&a);
    gguf_build_free(b);

    /* §2: integers only as u32. A u64 head_count is hidden/64 to from_gguf. */
    b = arch_model("llama");
    gguf_build_u64(b, "llama.attention.head_count", 4);
    a = arch_open_good(b);
    assert_int_equal(a.c.n_head[0], 4);
    assert_string_equal(arch_open_field(&a, "num_heads")->compat, "1");
    arch_open_release(&a);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arch_eps_001_qwen2_without_key),
        cmocka_unit_test(arch_eps_002_qwen3_without_key),
        cmocka_unit_test(arch_eps_003_llama_without_key),
        cmocka_unit_test(arch_eps_004_explicit_verbatim),
        cmocka_unit_test(arch_eps_defaults_follow_section_8_3),
        cmocka_unit_test(arch_eps_obeys_its_own_key_for_every_architecture),
        cmocka_unit_test(arch_eps_of_cohere2moe_and_nemotron_h),
        cmocka_unit_test(arch_eps_of_unknown_architecture),
        cmocka_unit_test(arch_eps_takes_f64),
        cmocka_unit_test(arch_eps_refuses_what_cannot_be),
        cmocka_unit_test(arch_section_3_cases),
        cmocka_unit_test(arch_compat_table),
        cmocka_unit_test(arch_compat_stamps_the_rust_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
