/* The resolver: values per architecture, provenance, refusals. Expectations come from
 * tests/data/arch-table.tsv (facts of llama.cpp 0c1e570), from arch-resolver.md by section, from
 * what llama.cpp prints about the real models, or are computed by hand beside the number. */
#include "format/arch_internal.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

static struct arch_open open_reference(const struct gguf_build *b)
{
    struct arch_open a;
    arch_open_build(&a, b, ARCH_VALUES_REFERENCE);
    return a;
}

static struct arch_open open_good(const struct gguf_build *b)
{
    struct arch_open a = open_reference(b);
    if (a.rc < 0)
        fail_msg("refused: %s", a.e.msg);
    return a;
}

/* Resolves and expects a refusal whose message holds the text. */
static void refused(struct gguf_build *b, int rc, const char *says)
{
    struct arch_open a = open_reference(b);
    if (a.rc != rc || !strstr(a.e.msg, says))
        fail_msg("expected %s with \"%s\", got %d: %s", err_name(rc), says, a.rc, a.e.msg);
    arch_open_release(&a);
    gguf_build_free(b);
}

static struct gguf_build *model(const char *arch)
{
    return gguf_build_llama_like(arch, NULL);
}

static struct gguf_build *model_eps(const char *arch, enum gguf_build_norm key, double eps)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.eps_key = key;
    o.eps = eps;
    return gguf_build_llama_like(arch, &o);
}

/* --- the table ---------------------------------------------------------------------------- */

static void arch_table_has_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    assert_int_equal(n, 153);
    assert_int_equal(arch_n_row, 153);
    for (size_t i = 0; i < n; i++) {
        const struct arch_row *row = arch_row_find(l[i].name);
        if (!row || strcmp(row->name, l[i].name) != 0)
            fail_msg("no row %s", l[i].name);
    }
    for (size_t i = 1; i < arch_n_row; i++) /* the lookup bisects */
        assert_true(strcmp(arch_rows[i - 1].name, arch_rows[i].name) < 0);
    arch_lines_free(l, n);
}

static void arch_table_lists_the_keys_of_every_architecture(void **state)
{
    (void)state;
    size_t n;
    struct arch_line *l = arch_lines(&n);
    for (size_t i = 0; i < n; i++) {
        const struct arch_row *row = arch_row_find(l[i].name);
        char *list;
        assert_true(asprintf(&list, "%s,%s", l[i].required, l[i].optional) > 0);
        for (char *save, *k = strtok_r(list, ",", &save); k; k = strtok_r(NULL, ",", &save)) {
            bool phi3 = strcmp(l[i].name, "phi3") == 0; /* reads the window, then switches it off */
            if (strcmp(k, "-") != 0 && !phi3 && !arch_general_key(k, strlen(k)) &&
                !arch_row_reads(row, k, strlen(k), NULL) && strcmp(l[i].name, "ernie4_5") != 0 &&
                strcmp(l[i].name, "paddleocr") != 0)
                fail_msg("row %s does not know key %s", l[i].name, k);
        }
        free(list);
    }
    arch_lines_free(l, n);
}

/* A name of this pairing in the table's words, by what decides it in the file (sections: "4,4"). */
static const char *expected_rope(const struct arch_line *l, bool sections)
{
    if (!strchr(l->rope, '|'))
        return l->rope;
    if (sections)
        return "MROPE";
    return arch_list_has(l->rope, "NEOX") ? "NEOX" : "NORM"; /* dflash: NEOX without hc */
}

static const char *rope_word(enum arch_rope r)
{
    static const char *const words[] = {"NONE", "NORM", "NEOX", "MROPE", "IMROPE"};
    return words[r];
}

static void arch_pairs_as_reference_for_every_architecture(void **state)
{
    (void)state;
    static const int32_t sections[4] = {4, 4, 0, 0};
    static const char *const scalings[] = {"linear", "yarn", "none", "neox"};
    size_t n;
    struct arch_line *l = arch_lines(&n);
    for (size_t i = 0; i < n; i++)
        for (int with = 0; with < 2; with++) {
            struct gguf_build *b = arch_case(&l[i]);
            if (with)
                gguf_build_array(b, arch_name(l[i].name, "rope.dimension_sections"), 5, sections,
                                 4);
            else if (strchr(l[i].rope, '|'))
                gguf_build_remove(b, arch_name(l[i].name, "rope.dimension_sections"));
            if (strcmp(l[i].name, "dflash") == 0)
                gguf_build_remove(b, arch_name(l[i].name, "hyper_connection.count"));
            gguf_build_str(b, arch_name(l[i].name, "rope.scaling.type"), scalings[i % 4]);
            struct arch_open a = open_good(b);
            if (strcmp(rope_word(a.c.rope), expected_rope(&l[i], with)) != 0)
                fail_msg("%s pairs %s, expected %s", l[i].name, rope_word(a.c.rope),
                         expected_rope(&l[i], with));
            assert_true(a.c.known);
            bool split = a.c.rope != ARCH_ROPE_NORM && a.c.rope != ARCH_ROPE_NONE;
            assert_string_equal(arch_open_field(&a, "rope_type")->stamped, split ? "2" : "0");
            arch_open_release(&a);
            gguf_build_free(b);
        }
    arch_lines_free(l, n);
}

static void arch_rope_dflash_follows_hyper_connections(void **state)
{
    (void)state;
    struct gguf_build *b = model("dflash");
    gguf_build_u32(b, "dflash.hyper_connection.count", 4);
    gguf_build_u32(b, "dflash.attention.sliding_window", 8);
    gguf_build_array(b, "dflash.attention.sliding_window_pattern", 7, "\1\0", 2);
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NORM); /* llama_model_rope_type(), case LLM_ARCH_DFLASH */
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- epsilon ------------------------------------------------------------------------------ */

static void check_eps(struct gguf_build *b, float want)
{
    struct arch_open a = open_good(b);
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
        struct arch_open a = open_good(b);
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
        struct arch_open a = open_good(b);
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
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.norm, ARCH_NORM_LAYER);
    assert_true(a.c.norm_eps == 4e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
    /* nemotron_h: the RMS key, else the LayerNorm key, RMSNorm either way. */
    b = model_eps("nemotron_h", GGUF_BUILD_EPS_LN, 4e-5);
    a = open_good(b);
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
    struct arch_open a = open_good(b);
    assert_false(a.c.known);
    assert_int_equal(a.c.norm, ARCH_NORM_LAYER);
    assert_true(a.c.norm_eps == 2e-5F);
    assert_true(arch_open_noted(&a, "has no row"));
    arch_open_release(&a);
    gguf_build_f32(b, "neverheard.attention.layer_norm_rms_epsilon", 3e-5F);
    a = open_good(b);
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
    struct arch_open a = open_good(b);
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
        b = model("llama");
        gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", (float)bad[i]);
        refused(b, -ENOTSUP, "epsilon");
    }
    b = model("llama");
    gguf_build_f32(b, "llama.attention.layer_norm_rms_epsilon", NAN);
    refused(b, -EUCLEAN, "no finite number");
    b = model("llama");
    gguf_build_str(b, "llama.attention.layer_norm_rms_epsilon", "1e-5");
    refused(b, -EUCLEAN, "layer_norm_rms_epsilon");
    check_eps(model_eps("llama", GGUF_BUILD_EPS_RMS, 1e-10), 1e-10F);
    check_eps(model_eps("llama", GGUF_BUILD_EPS_RMS, 0.01), 0.01F);
    check_eps(model_eps("bert", GGUF_BUILD_EPS_LN, 1e-12), 1e-12F); /* every real BERT */
    refused(model_eps("gpt2", GGUF_BUILD_EPS_LN, 1e-12), -ENOTSUP, "epsilon");
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
    struct arch_open a = open_good(b);
    assert_true(a.c.norm_eps == 1e-6F);
    assert_int_equal(a.c.head_dim_k, 128);
    assert_int_equal(a.c.head_dim_v, 128);
    arch_open_release(&a);
    gguf_build_remove(b, "qwen3.attention.key_length"); /* then K's shape tells: 256 rows / 2 */
    gguf_build_remove(b, "qwen3.attention.value_length");
    a = open_good(b);
    assert_int_equal(a.c.head_dim_k, 128);
    assert_int_equal(arch_open_field(&a, "head_dim")->origin, ARCH_FROM_SHAPE);
    arch_open_release(&a);
    gguf_build_free(b);

    check_eps(model_eps("gemma", GGUF_BUILD_EPS_NONE, 0), 1e-6F);
    check_eps(model_eps("qwen3moe", GGUF_BUILD_EPS_NONE, 0), 1e-6F);

    /* llama, scaling yarn: both original routes say 2; the truth is NORM. */
    b = model("llama");
    gguf_build_str(b, "llama.rope.scaling.type", "yarn");
    gguf_build_f32(b, "llama.rope.scaling.factor", 4);
    a = open_good(b);
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
    b = model("qwen2");
    gguf_build_str(b, "qwen2.rope.scaling.type", "linear");
    a = open_good(b);
    assert_int_equal(a.c.rope, ARCH_ROPE_NEOX);
    assert_string_equal(arch_open_field(&a, "rope_type")->compat, "0");
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- rotation ----------------------------------------------------------------------------- */

static void arch_theta_default_is_ten_thousand(void **state)
{
    (void)state;
    /* §6: no architecture default in llama.cpp; §8.5: 1e6 for qwen2 in compat only. */
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.rope_theta = -1;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    struct arch_open a = open_good(b);
    assert_true(a.c.rope_theta == 10000);
    assert_string_equal(arch_open_field(&a, "rope_theta")->compat, "1e+06");
    arch_open_release(&a);
    arch_open_build(&a, b, ARCH_VALUES_COMPAT);
    assert_int_equal(a.rc, 0);
    assert_true(a.c.rope_theta == 1e6F);
    arch_open_release(&a);
    gguf_build_f64(b, "qwen2.rope.freq_base", 123456);
    a = open_good(b);
    assert_true(a.c.rope_theta == 123456);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_theta_refuses_zero_and_text(void **state)
{
    (void)state;
    struct gguf_build *b = model("llama");
    gguf_build_f32(b, "llama.rope.freq_base", 0);
    refused(b, -ENOTSUP, "rope_theta");
    b = model("llama");
    gguf_build_f32(b, "llama.rope.freq_base", INFINITY);
    refused(b, -EUCLEAN, "freq_base");
    b = model("llama");
    gguf_build_str(b, "llama.rope.freq_base", "10000");
    refused(b, -EUCLEAN, "freq_base");
}

static void arch_scaling_keys(void **state)
{
    (void)state;
    struct gguf_build *b = model("llama");
    gguf_build_f32(b, "llama.rope.scale_linear", 2); /* the old key, §10.2 of engine.md */
    struct arch_open a = open_good(b);
    assert_true(a.c.scaling_factor == 2);
    assert_int_equal(a.c.scaling, ARCH_SCALING_LINEAR); /* llama.cpp's default */
    assert_int_equal(a.c.scaling_orig_ctx, a.c.n_ctx_train);
    assert_true(a.c.yarn_ext_factor == 0);
    arch_open_release(&a);
    gguf_build_f32(b, "llama.rope.scaling.factor", 8); /* the new one wins */
    gguf_build_str(b, "llama.rope.scaling.type", "yarn");
    gguf_build_u32(b, "llama.rope.scaling.original_context_length", 64);
    gguf_build_f32(b, "llama.rope.scaling.attn_factor", 1.25F);
    gguf_build_f32(b, "llama.rope.scaling.yarn_beta_fast", 7); /* llama does not read these */
    gguf_build_f32(b, "llama.rope.scaling.yarn_log_multiplier", 0.5F);
    a = open_good(b);
    assert_true(a.c.scaling_factor == 8);
    assert_int_equal(a.c.scaling_orig_ctx, 64);
    assert_true(a.c.scaling_attn_factor == 1.25F);
    assert_true(a.c.yarn_ext_factor == 1);
    assert_true(a.c.yarn_beta_fast == 32);
    assert_true(a.c.yarn_beta_slow == 1);
    assert_true(a.c.yarn_log_mul == 0);
    assert_true(arch_open_noted(&a, "yarn_beta_fast is not read"));
    arch_open_release(&a);
    gguf_build_str(b, "llama.rope.scaling.type", "dynamic");
    a = open_good(b);
    assert_int_equal(a.c.scaling, ARCH_SCALING_UNKNOWN);
    arch_open_release(&a);
    gguf_build_u32(b, "llama.rope.scaling.type", 1);
    refused(b, -EUCLEAN, "rope.scaling.type");

    b = model("mistral3"); /* reads all of YaRN's keys (src/models/mistral3.cpp) */
    gguf_build_str(b, "mistral3.rope.scaling.type", "yarn");
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_beta_fast", 7);
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_beta_slow", 3);
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_log_multiplier", 0.5F);
    a = open_good(b);
    assert_true(a.c.yarn_beta_fast == 7 && a.c.yarn_beta_slow == 3 && a.c.yarn_log_mul == 0.5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_rotates_part_of_a_head(void **state)
{
    (void)state;
    struct gguf_build *b = model("phi2");
    gguf_build_u32(b, "phi2.rope.dimension_count", 8); /* of 16 */
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.n_rot, 8);
    assert_int_equal(a.c.head_dim_k, 16);
    arch_open_release(&a);
    gguf_build_free(b);
    b = model("llama"); /* llama.cpp throws for these four, src/llama-model.cpp */
    gguf_build_u32(b, "llama.rope.dimension_count", 8);
    refused(b, -ENOTSUP, "rotates 8 of 16");
    b = arch_case(&(struct arch_line){.name = (char *)"step35",
                                      .rope = (char *)"NEOX",
                                      .eps = (char *)"layer_norm_rms_epsilon",
                                      .required = (char *)"attention.sliding_window,attention."
                                                          "sliding_window_pattern"});
    gguf_build_u32(b, "step35.rope.dimension_count", 16);
    a = open_good(b);
    assert_int_equal(a.c.n_rot, 8); /* src/models/step35.cpp: half of it on global layers */
    assert_int_equal(a.c.n_rot_swa, 16);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- windows ------------------------------------------------------------------------------ */

static struct gguf_build *layered(const char *arch, uint32_t n_layer, uint32_t window)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.n_layer = n_layer;
    o.sliding_window = window;
    return gguf_build_llama_like(arch, &o);
}

static void check_layers(const uint8_t *a, const char *want)
{
    for (size_t i = 0; want[i]; i++)
        if (a[i] != (want[i] == 'L'))
            fail_msg("layer %zu of %s", i, want);
}

static void arch_window_gemma3(void **state)
{
    (void)state;
    /* local if l%6 < 5; local base 1e4, not stretched (engine.md §10.1) */
    struct gguf_build *b = layered("gemma3", 13, 512);
    gguf_build_f32(b, "gemma3.rope.freq_base", 1e6F);
    gguf_build_f32(b, "gemma3.rope.scaling.factor", 8);
    struct arch_open a = open_good(b);
    check_layers(a.c.layer_local, "LLLLLGLLLLLGL");
    assert_int_equal(a.c.sliding_window, 512);
    assert_true(a.c.rope_theta == 1e6F && a.c.rope_theta_swa == 10000);
    assert_true(a.c.scaling_factor == 8 && a.c.scaling_factor_swa == 1);
    arch_open_release(&a);
    gguf_build_f32(b, "gemma3.rope.freq_base_swa", 5000);
    gguf_build_u32(b, "gemma3.attention.sliding_window_pattern", 3);
    a = open_good(b);
    check_layers(a.c.layer_local, "LLGLLGLLGLLGL");
    assert_true(a.c.rope_theta_swa == 5000);
    arch_open_release(&a);
    static const uint8_t mask[13] = {0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    gguf_build_array(b, "gemma3.attention.sliding_window_pattern", 7, mask, 13);
    a = open_good(b);
    check_layers(a.c.layer_local, "GLLGGGGGGGGGL");
    arch_open_release(&a);
    gguf_build_u32(b, "gemma3.attention.sliding_window_pattern", 0); /* 0: every layer */
    a = open_good(b);
    check_layers(a.c.layer_local, "LLLLLLLLLLLLL");
    arch_open_release(&a);
    gguf_build_u32(b, "gemma3.attention.sliding_window", 0); /* then there is no window */
    a = open_good(b);
    check_layers(a.c.layer_local, "GGGGGGGGGGGGG");
    assert_true(a.c.rope_theta_swa == a.c.rope_theta);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_window_gemma2_and_others(void **state)
{
    (void)state;
    /* gemma2: 4096 unless said, local if l%2 = 0, caps 50 and 30, one base (engine.md §10.1) */
    struct gguf_build *b = layered("gemma2", 4, 0);
    gguf_build_f32(b, "gemma2.rope.freq_base", 20000);
    struct arch_open a = open_good(b);
    check_layers(a.c.layer_local, "LGLG");
    assert_int_equal(a.c.sliding_window, 4096);
    assert_true(a.c.rope_theta_swa == 20000);
    assert_true(a.c.attn_softcap == 50 && a.c.final_softcap == 30);
    arch_open_release(&a);
    gguf_build_f32(b, "gemma2.attn_logit_softcapping", 40);
    gguf_build_f32(b, "gemma2.final_logit_softcapping", 20);
    a = open_good(b);
    assert_true(a.c.attn_softcap == 40 && a.c.final_softcap == 20);
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("phi3", 4, 2047); /* read, then switched off: changes nothing */
    a = open_good(b);
    assert_int_equal(a.c.sliding_window, 0);
    check_layers(a.c.layer_local, "GGGG");
    assert_true(arch_open_noted(&a, "phi3.attention.sliding_window is not read"));
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("cohere2", 8, 64); /* 3:1, and global layers do not rotate */
    gguf_build_f32(b, "cohere2.logit_scale", 0.25F);
    a = open_good(b);
    check_layers(a.c.layer_local, "LLLGLLLG");
    check_layers(a.c.layer_rope, "LLLGLLLG");
    assert_true(a.c.logit_scale == 0.25F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("gpt-oss", 4, 0); /* the key is required: -EUCLEAN by name */
    refused(b, -EUCLEAN, "gpt-oss.attention.sliding_window is missing");
    b = layered("mimo2", 2, 8);
    refused(b, -EUCLEAN, "sliding_window_pattern");
}

static void arch_layers_without_rotation(void **state)
{
    (void)state;
    struct gguf_build *b = layered("smollm3", 8, 0); /* every fourth is left alone */
    struct arch_open a = open_good(b);
    check_layers(a.c.layer_rope, "LLLGLLLG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("gpt2", 2, 0);
    a = open_good(b);
    check_layers(a.c.layer_rope, "GG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("llama4", 4, 0); /* chunks of 8192 unless the window key says 0 */
    gguf_build_u32(b, "llama4.expert_feed_forward_length", 8);
    gguf_build_u32(b, "llama4.interleave_moe_layer_step", 1);
    a = open_good(b);
    assert_int_equal(a.c.sliding_window, 8192);
    check_layers(a.c.layer_local, "LLLG");
    check_layers(a.c.layer_rope, "LLLG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("granite", 2, 0);
    gguf_build_f32(b, "granite.logit_scale", 8);
    gguf_build_bool(b, "granite.rope.scaling.finetuned", false);
    a = open_good(b);
    check_layers(a.c.layer_rope, "GG");
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- scales ------------------------------------------------------------------------------- */

static void arch_scales(void **state)
{
    (void)state;
    struct gguf_build *b = model("granite");
    refused(b, -EUCLEAN, "logit_scale"); /* required, and divided by */
    b = model("granite");
    gguf_build_f32(b, "granite.logit_scale", 8);
    gguf_build_f32(b, "granite.embedding_scale", 12);
    gguf_build_f32(b, "granite.residual_scale", 0.22F);
    gguf_build_f32(b, "granite.attention.scale", 0.015625F);
    struct arch_open a = open_good(b);
    assert_true(a.c.logit_scale == 0.125F); /* logits are divided by the key */
    assert_true(a.c.embed_scale == 12 && a.c.residual_scale == 0.22F);
    assert_true(a.c.attn_scale == 0.015625F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = model("llama"); /* none of these is llama's */
    gguf_build_f32(b, "llama.logit_scale", 8);
    gguf_build_f32(b, "llama.embedding_scale", 12);
    gguf_build_f32(b, "llama.residual_scale", 0.22F);
    gguf_build_f32(b, "llama.attention.scale", 2);
    gguf_build_f32(b, "llama.attn_logit_softcapping", 50);
    gguf_build_f32(b, "llama.final_logit_softcapping", 30);
    a = open_good(b);
    assert_true(a.c.logit_scale == 1 && a.c.embed_scale == 1 && a.c.residual_scale == 1);
    assert_true(a.c.attn_softcap == 0 && a.c.final_softcap == 0);
    assert_true(a.c.attn_scale == 0.25F); /* 1/sqrt(16) */
    arch_open_release(&a);
    gguf_build_free(b);

    b = model("minicpm"); /* src/models/minicpm.cpp: 12, 1.4/sqrt(n_layer), 256/n_embd */
    a = open_good(b);
    assert_true(a.c.embed_scale == 12);
    assert_true(a.c.residual_scale == 1.4F / sqrtf(2));
    assert_true(a.c.logit_scale == 64.0F / 256.0F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = model("gemma");
    a = open_good(b);
    assert_true(a.c.embed_scale == 8); /* sqrt(64) */
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_attention_scale_of_the_27b_models(void **state)
{
    (void)state;
    /* engine.md §10.1: gemma2 with 46 layers and gemma3 with 62: 1/sqrt(n_embd/n_head) */
    static const struct {
        const char *arch;
        uint32_t n_layer;
        float scale;
    } t[] = {{"gemma2", 46, 0.25F},
             {"gemma2", 45, 0.17677669F},
             {"gemma3", 62, 0.25F},
             {"gemma3", 61, 0.17677669F}};
    for (size_t i = 0; i < 4; i++) {
        struct gguf_build_opt o = gguf_build_defaults(t[i].arch);
        o.n_layer = t[i].n_layer;
        o.n_embd = 64;
        o.n_head = 4;
        o.head_dim = 32; /* 1/sqrt(32) = 0.17677669, 1/sqrt(64/4) = 0.25 */
        struct gguf_build *b = gguf_build_llama_like(t[i].arch, &o);
        struct arch_open a = open_good(b);
        assert_true(fabsf(a.c.attn_scale - t[i].scale) < 1e-7F);
        arch_open_release(&a);
        gguf_build_free(b);
    }
}

static void arch_attention_scale_of_deepseek2(void **state)
{
    (void)state;
    /* DeepSeek-V2-Lite's numbers: factor 40, mscale_all_dim 0.707 stored as 0.0707; HF's
     * modeling_deepseek: softmax_scale = 192^-0.5 * (0.1*0.707*ln(40)+1)^2 = 0.11472. */
    struct gguf_build *b = model("deepseek2");
    gguf_build_u32(b, "deepseek2.attention.key_length_mla", 192);
    gguf_build_str(b, "deepseek2.rope.scaling.type", "yarn");
    gguf_build_f32(b, "deepseek2.rope.scaling.factor", 40);
    gguf_build_f32(b, "deepseek2.rope.scaling.yarn_log_multiplier", 0.0707F);
    struct arch_open a = open_good(b);
    double m = 1 + 0.1 * 0.707 * log(40);
    assert_true(fabs((double)a.c.attn_scale - m * m / sqrt(192)) < 1e-6);
    assert_true(fabsf(a.c.yarn_log_mul - 0.707F) < 1e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- dimensions ---------------------------------------------------------------------------- */

static void arch_takes_every_integer_type(void **state)
{
    (void)state;
    struct gguf_build *b = model("llama");
    gguf_build_u8(b, "llama.block_count", 2);
    gguf_build_i16(b, "llama.embedding_length", 64);
    gguf_build_u64(b, "llama.attention.head_count", 4);
    gguf_build_i64(b, "llama.attention.head_count_kv", 2);
    gguf_build_i8(b, "llama.context_length", 100);
    gguf_build_u16(b, "llama.feed_forward_length", 128);
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.n_layer, 2);
    assert_int_equal(a.c.n_embd, 64);
    assert_int_equal(a.c.n_head[1], 4);
    assert_int_equal(a.c.n_head_kv[1], 2);
    assert_int_equal(a.c.n_ctx_train, 100);
    arch_open_release(&a);
    gguf_build_i32(b, "llama.attention.head_count", -4);
    refused(b, -EUCLEAN, "llama.attention.head_count");
    b = model("llama");
    gguf_build_f32(b, "llama.block_count", 2);
    refused(b, -EUCLEAN, "llama.block_count is no integer");
}

static void arch_takes_per_layer_arrays(void **state)
{
    (void)state;
    struct gguf_build *b = model("openelm");
    static const uint32_t heads[2] = {4, 8}, kv[2] = {2, 4}, ff[2] = {128, 128};
    gguf_build_array(b, "openelm.attention.head_count", 4, heads, 2);
    gguf_build_array(b, "openelm.attention.head_count_kv", 4, kv, 2);
    gguf_build_array(b, "openelm.feed_forward_length", 4, ff, 2);
    gguf_build_u32(b, "openelm.attention.key_length", 16);
    gguf_build_u32(b, "openelm.attention.value_length", 16);
    gguf_build_tensor_remove(b, "blk.1.attn_k.weight");
    gguf_build_tensor_2d(b, "blk.1.attn_k.weight", 0, 64, 64);
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.n_head[0], 4);
    assert_int_equal(a.c.n_head[1], 8);
    assert_int_equal(a.c.n_head_kv[1], 4);
    assert_string_equal(arch_open_field(&a, "num_heads")->stamped, "[4,8]");
    arch_open_release(&a);
    gguf_build_array(b, "openelm.attention.head_count", 4, heads, 1);
    refused(b, -EUCLEAN, "1 elements for 2 layers");
}

static void arch_dimensions_must_fit_the_tensors(void **state)
{
    (void)state;
    struct gguf_build *b = model("llama");
    gguf_build_u32(b, "llama.embedding_length", 65);
    refused(b, -EUCLEAN, "token_embd.weight");
    b = model("llama");
    gguf_build_u32(b, "llama.attention.key_length", 17);
    refused(b, -EUCLEAN, "attn_k.weight");
    b = model("llama");
    gguf_build_u32(b, "llama.feed_forward_length", 100); /* the shape is taken, and said */
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.n_ff[0], 128);
    assert_true(arch_open_noted(&a, "feed_forward_length is 100"));
    arch_open_release(&a);
    gguf_build_u32(b, "llama.vocab_size", 7); /* the embedding's rows are authoritative (§8.9) */
    a = open_good(b);
    assert_true(a.c.n_vocab > 7);
    assert_true(arch_open_noted(&a, "vocab_size is 7"));
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_refuses_missing_and_zero_dimensions(void **state)
{
    (void)state;
    static const char *const need[] = {"block_count", "embedding_length", "attention.head_count"};
    for (size_t i = 0; i < 3; i++) {
        struct gguf_build *b = model("qwen3");
        gguf_build_remove(b, arch_name("qwen3", need[i]));
        refused(b, -EUCLEAN, need[i]);
        b = model("qwen3");
        gguf_build_u32(b, arch_name("qwen3", need[i]), 0);
        refused(b, -EUCLEAN, i == 2 ? "no heads" : i == 1 ? "token_embd" : "block_count");
    }
    struct gguf_build *b = model("llama");
    gguf_build_remove(b, "general.architecture");
    refused(b, -EUCLEAN, "general.architecture is missing");
    b = model("llama");
    gguf_build_u32(b, "general.architecture", 1);
    refused(b, -EUCLEAN, "general.architecture");
    b = model("llama");
    gguf_build_str(b, "general.architecture", "");
    refused(b, -EUCLEAN, "general.architecture");
    b = model("llama");
    gguf_build_str(b, "general.architecture", "lla\nma");
    refused(b, -EUCLEAN, "general.architecture");
    b = model("llama");
    gguf_build_str(b, "general.architecture",
                   "a-name-of-sixty-four-bytes-which-is-one-more-than-what-we-accept");
    refused(b, -EUCLEAN, "general.architecture");
}

/* Files of other kinds, and architectures newer than the table. */
static void arch_without_a_row_is_taken_or_refused_by_name(void **state)
{
    (void)state;
    static const char *const other[] = {"flux", "clip"};
    for (size_t i = 0; i < 2; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", other[i]);
        gguf_build_tensor_1d(b, "some.weight", 0, 32);
        refused(b, -ENOTSUP, "no language model we know");
    }
    struct gguf_build *b = model("neverheard");
    gguf_build_u32(b, "neverheard.attention.key_length", 17); /* its own idea of a head */
    struct arch_open a = open_good(b);
    assert_false(a.c.known);
    assert_int_equal(a.c.head_dim_k, 17);
    arch_open_release(&a);
    gguf_build_remove(b, "neverheard.attention.head_count");
    gguf_build_remove(b, "neverheard.attention.head_count_kv");
    refused(b, -EUCLEAN, "no heads");
}

static void arch_refuses_what_is_over_the_limits(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint64_t v;
    } t[] = {{"block_count", 4097},
             {"block_count", UINT64_C(1) << 40},
             {"embedding_length", 16777217},
             {"attention.head_count", 65537},
             {"attention.head_count_kv", 65537},
             {"feed_forward_length", 16777217},
             {"attention.key_length", 65537},
             {"attention.value_length", 65537},
             {"rope.dimension_count", 65537},
             {"context_length", UINT64_C(1) << 31},
             {"expert_count", 65537},
             {"rope.scaling.original_context_length", UINT64_C(1) << 31}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = model("llama");
        gguf_build_u64(b, arch_name("llama", t[i].key), t[i].v);
        refused(b, -ERANGE, t[i].key);
    }
    struct gguf_build *b = model("llama");
    gguf_build_u32(b, "llama.attention.head_count", 3); /* 3 heads over 2 */
    refused(b, -EUCLEAN, "over 2 key/value heads");
    b = model("llama");
    gguf_build_u32(b, "llama.expert_count", 4);
    gguf_build_u32(b, "llama.expert_used_count", 5);
    refused(b, -EUCLEAN, "5 experts used of 4");
    b = model("llama");
    gguf_build_u32(b, "llama.nextn_predict_layers", 3);
    refused(b, -ERANGE, "nextn_predict_layers");
}

static void arch_notes_what_the_rust_gates_refuse(void **state)
{
    (void)state;
    /* arch-resolver.md §4: hidden 65536, layers 256, heads 256, vocab 1e6, ffn 262144, context
     * 2097152, theta 1..1e8; hidden divisible by heads. At the bound: no note. */
    static const struct {
        const char *key, *name;
        uint32_t at, over;
    } t[] = {{"embedding_length", "hidden_size 65537", 65536, 65537},
             {"block_count", "num_layers 257", 256, 257},
             {"attention.head_count", "num_heads 512", 256, 512},
             {"vocab_size", "vocab_size 1000001", 1000000, 1000001},
             {"feed_forward_length", "intermediate_size 262145", 262144, 262145},
             {"context_length", "max_position_embeddings 2097153", 2097152, 2097153},
             {"rope.freq_base", "rope_theta 200000000", 100000000, 200000000}};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++)
        for (int over = 0; over < 2; over++) {
            struct gguf_build *b = gguf_build_new(3, 1); /* no tensors: any numbers fit */
            gguf_build_str(b, "general.architecture", "llama");
            gguf_build_u32(b, "llama.embedding_length", 512);
            gguf_build_u32(b, "llama.block_count", 2);
            gguf_build_u32(b, "llama.attention.head_count", 4);
            gguf_build_u32(b, "llama.attention.key_length", 16);
            gguf_build_u32(b, "llama.attention.value_length", 16);
            gguf_build_u32(b, arch_name("llama", t[i].key), over ? t[i].over : t[i].at);
            struct arch_open a = open_good(b);
            if (arch_open_noted(&a, t[i].name) != over)
                fail_msg("%s, %s the bound", t[i].name, over ? "over" : "at");
            arch_open_release(&a);
            gguf_build_free(b);
        }
    struct gguf_build_opt o = gguf_build_defaults("qwen3");
    o.n_head = 6;
    o.n_head_kv = 2;
    o.head_dim = 16;
    struct gguf_build *b = gguf_build_llama_like("qwen3", &o); /* 64 wide */
    struct arch_open a = open_good(b);
    assert_true(arch_open_noted(&a, "no multiple of 6 heads"));
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- presence, tokens, unread keys ---------------------------------------------------------- */

static void arch_presence_decides(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.untied = true;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    struct arch_open a = open_good(b);
    assert_false(a.c.tied_head);
    assert_true(a.c.qkv_bias);
    assert_false(a.c.qk_norm || a.c.post_norms || a.c.fused_qkv || a.c.fused_gate_up);
    assert_true(a.c.ffn_gated);
    arch_open_release(&a);
    gguf_build_tensor_remove(b, "output.weight");
    a = open_good(b);
    assert_true(a.c.tied_head);
    /* §7.9: the Rust table says untied for every qwen2. */
    assert_string_equal(arch_open_field(&a, "tied_head")->compat, "false");
    assert_true(arch_open_field(&a, "tied_head")->differs);
    arch_open_release(&a);
    gguf_build_free(b);

    b = model("phi3");
    a = open_good(b);
    assert_true(a.c.fused_qkv && a.c.fused_gate_up && a.c.ffn_gated);
    assert_int_equal(a.c.n_ff[0], 128);
    assert_int_equal(a.c.norm, ARCH_NORM_RMS); /* §7.5: Rust says LayerNorm */
    assert_string_equal(arch_open_field(&a, "norm")->compat, "\"layer\"");
    arch_open_release(&a);
    gguf_build_free(b);

    o = gguf_build_defaults("starcoder2");
    o.no_gate = true;
    b = gguf_build_llama_like("starcoder2", &o);
    a = open_good(b);
    assert_false(a.c.ffn_gated);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    arch_open_release(&a);
    gguf_build_free(b);
    o = gguf_build_defaults("t5"); /* ReLU; gated GELU if the gate is there (§6) */
    b = gguf_build_llama_like("t5", &o);
    a = open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    assert_true(a.c.attn_scale == 1); /* T5 does not scale */
    arch_open_release(&a);
    gguf_build_free(b);
    b = gguf_build_new(3, 1); /* by the names T5 really has */
    gguf_build_str(b, "general.architecture", "t5");
    gguf_build_u32(b, "t5.embedding_length", 32);
    gguf_build_u32(b, "t5.block_count", 1);
    gguf_build_u32(b, "t5.attention.head_count", 2);
    gguf_build_u32(b, "t5.feed_forward_length", 64);
    gguf_build_tensor_2d(b, "enc.blk.0.ffn_up.weight", 0, 32, 64);
    gguf_build_tensor_2d(b, "dec.blk.1.ffn_up.weight", 0, 32, 64); /* a longer decoder */
    a = open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_RELU);
    assert_false(a.c.ffn_gated);
    arch_open_release(&a);
    gguf_build_tensor_2d(b, "enc.blk.0.ffn_gate.weight", 0, 32, 64);
    a = open_good(b);
    assert_int_equal(a.c.act, ARCH_ACT_GELU);
    assert_true(a.c.ffn_gated);
    assert_false(arch_open_noted(&a, "tensors name block"));
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_ignores_keys_it_does_not_read(void **state)
{
    (void)state;
    struct gguf_build *b = model("llama");
    struct arch_open plain = open_good(b), odd;
    /* Keys of other architectures, and of other norms, with values that would change everything. */
    static const uint8_t mask[2] = {1, 1};
    gguf_build_f32(b, "llama.attention.layer_norm_epsilon", 0.009F);
    gguf_build_u32(b, "llama.attention.sliding_window", 4);
    gguf_build_array(b, "llama.attention.sliding_window_pattern", 7, mask, 2);
    gguf_build_f32(b, "llama.rope.freq_base_swa", 77);
    gguf_build_f32(b, "llama.attention.scale", 77);
    gguf_build_f32(b, "llama.attention.output_scale", 77);
    gguf_build_u32(b, "llama.attention.key_length_mla", 77);
    gguf_build_str(b, "llama.hidden_activation", "relu");
    gguf_build_bool(b, "llama.use_parallel_residual", true);
    gguf_build_f32(b, "llama.rope.scaling.yarn_ext_factor", 1);
    gguf_build_f32(b, "llama.rope.scaling.alpha", 50);
    gguf_build_array(b, "llama.attention.rope_pattern", 7, "\0\0", 2);
    gguf_build_u32(b, "llama.rope.dimension_sections", 5);
    gguf_build_f32(b, "qwen2.attention.layer_norm_rms_epsilon", 0.009F);
    gguf_build_u32(b, "qwen2.block_count", 99);
    gguf_build_bool(b, "llama.rope.scaling.finetuned", false);
    odd = open_good(b);
    assert_int_equal(arch_config_diff(&plain.c, &odd.c, NULL, NULL), 0);
    static const char *const noted[] = {
        "layer_norm_epsilon", "sliding_window",    "freq_base_swa",         "attention.scale",
        "key_length_mla",     "hidden_activation", "use_parallel_residual", "yarn_ext_factor"};
    for (size_t i = 0; i < sizeof noted / sizeof noted[0]; i++) {
        char text[96];
        snprintf(text, sizeof text, "%s is not read", noted[i]);
        if (!arch_open_noted(&odd, text))
            fail_msg("no note on %s", noted[i]);
    }
    assert_int_equal(plain.r.n_note, 0);
    arch_open_release(&plain);
    arch_open_release(&odd);
    gguf_build_free(b);
}

static void arch_tokens(void **state)
{
    (void)state;
    struct gguf_build *b = model("qwen2");
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 5);
    gguf_build_i32(b, "tokenizer.ggml.eos_token_id", 6);
    gguf_build_u64(b, "tokenizer.ggml.padding_token_id", 7);
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.bos, 5);
    assert_int_equal(a.c.eos, 6);
    assert_int_equal(a.c.pad, 7);
    arch_open_release(&a);
    /* Out of the vocabulary: not obeyed, said, and nothing out of range comes instead (§8.8). */
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 4000000000U);
    gguf_build_i32(b, "tokenizer.ggml.padding_token_id", -1);
    a = open_good(b);
    assert_int_equal(a.c.bos, ARCH_NO_TOKEN);
    assert_int_equal(a.c.pad, ARCH_NO_TOKEN);
    assert_true(arch_open_noted(&a, "bos_token_id names no token"));
    arch_open_release(&a);
    gguf_build_free(b);

    /* No ids: the spellings of the vocabulary. */
    static const char *const words[] = {"a", "<|im_end|>", "<s>", "</s>", "<|eom_id|>", "b"};
    b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 6);
    a = open_good(b);
    assert_int_equal(a.c.bos, 2);
    assert_int_equal(a.c.eos, 3);
    assert_int_equal(a.c.eot, 1);
    assert_int_equal(a.c.eom, 4);
    assert_int_equal(a.c.n_vocab, 6);
    /* §7.10: the Rust table's 128000 for every "llama" is reported, never stamped here. */
    assert_string_equal(arch_open_field(&a, "tokenizer.bos_token_id")->compat, "128000");
    assert_string_equal(arch_open_field(&a, "tokenizer.bos_token_id")->stamped, "2");
    arch_open_release(&a);
    arch_open_build(&a, b, ARCH_VALUES_COMPAT);
    assert_int_equal(a.rc, 0);
    assert_int_equal(a.c.bos, 2);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_flags_follow_the_tokenizer_type(void **state)
{
    (void)state;
    /* llama.cpp's src/llama-vocab.cpp: SPM and WPM begin with BOS, T5 ends with EOS, BPE by
     * pre-tokenizer. */
    static const struct {
        const char *model, *pre;
        bool bos, eos, space;
    } t[] = {{"llama", NULL, true, false, true},     {"bert", NULL, true, false, false},
             {"t5", NULL, false, true, false},       {"gpt2", NULL, false, false, false},
             {"gpt2", "qwen2", false, false, false}, {"gpt2", "llama-bpe", true, false, false},
             {"gpt2", "tekken", true, false, false}, {"gpt2", "smollm", false, false, false},
             {"rwkv", NULL, false, false, false},    {"gemma4", NULL, true, false, false}};
    static const char *const words[] = {"a", "b", "c"};
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", "llama");
        gguf_build_str(b, "tokenizer.ggml.model", t[i].model);
        if (t[i].pre)
            gguf_build_str(b, "tokenizer.ggml.pre", t[i].pre);
        gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 3);
        struct arch_open a = open_good(b);
        if (a.c.add_bos != t[i].bos || a.c.add_eos != t[i].eos ||
            a.c.add_space_prefix != t[i].space)
            fail_msg("%s %s: %d %d %d", t[i].model, t[i].pre ? t[i].pre : "", a.c.add_bos,
                     a.c.add_eos, a.c.add_space_prefix);
        arch_open_release(&a);
        gguf_build_bool(b, "tokenizer.ggml.add_bos_token", !t[i].bos);
        a = open_good(b);
        assert_true(a.c.add_bos == (!t[i].bos || strcmp(t[i].model, "gemma4") == 0));
        arch_open_release(&a);
        gguf_build_free(b);
    }
}

static void arch_vocabulary_without_tensors_resolves(void **state)
{
    (void)state;
    static const char *const words[] = {"<unk>", "<s>", "</s>"};
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "falcon");
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", words, 3);
    struct arch_open a = open_good(b);
    assert_int_equal(a.c.n_layer, 0);
    assert_int_equal(a.c.n_vocab, 3);
    assert_null(a.c.n_head);
    assert_int_equal(a.c.bos, 1);
    assert_string_equal(arch_open_field(&a, "hidden_size")->reference, "null");
    assert_int_equal(arch_open_field(&a, "hidden_size")->origin, ARCH_UNKNOWN);
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
    struct arch_open a = open_good(b);
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
    b = model("llama");
    gguf_build_u64(b, "llama.attention.head_count", 4);
    a = open_good(b);
    assert_int_equal(a.c.n_head[0], 4);
    assert_string_equal(arch_open_field(&a, "num_heads")->compat, "1");
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- the report, the difference, real models ------------------------------------------------- */

static void arch_report_is_complete(void **state)
{
    (void)state;
    struct gguf_build *b = model("gemma3");
    struct arch_open a = open_good(b);
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
    struct gguf_build *b = model("llama");
    struct arch_open a = open_good(b);
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
        cmocka_unit_test(arch_table_has_every_architecture),
        cmocka_unit_test(arch_table_lists_the_keys_of_every_architecture),
        cmocka_unit_test(arch_pairs_as_reference_for_every_architecture),
        cmocka_unit_test(arch_rope_dflash_follows_hyper_connections),
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
        cmocka_unit_test(arch_theta_default_is_ten_thousand),
        cmocka_unit_test(arch_theta_refuses_zero_and_text),
        cmocka_unit_test(arch_scaling_keys),
        cmocka_unit_test(arch_rotates_part_of_a_head),
        cmocka_unit_test(arch_window_gemma3),
        cmocka_unit_test(arch_window_gemma2_and_others),
        cmocka_unit_test(arch_layers_without_rotation),
        cmocka_unit_test(arch_scales),
        cmocka_unit_test(arch_attention_scale_of_the_27b_models),
        cmocka_unit_test(arch_attention_scale_of_deepseek2),
        cmocka_unit_test(arch_takes_every_integer_type),
        cmocka_unit_test(arch_takes_per_layer_arrays),
        cmocka_unit_test(arch_dimensions_must_fit_the_tensors),
        cmocka_unit_test(arch_refuses_missing_and_zero_dimensions),
        cmocka_unit_test(arch_without_a_row_is_taken_or_refused_by_name),
        cmocka_unit_test(arch_refuses_what_is_over_the_limits),
        cmocka_unit_test(arch_notes_what_the_rust_gates_refuse),
        cmocka_unit_test(arch_presence_decides),
        cmocka_unit_test(arch_ignores_keys_it_does_not_read),
        cmocka_unit_test(arch_tokens),
        cmocka_unit_test(arch_flags_follow_the_tokenizer_type),
        cmocka_unit_test(arch_vocabulary_without_tensors_resolves),
        cmocka_unit_test(arch_compat_table),
        cmocka_unit_test(arch_compat_stamps_the_rust_values),
        cmocka_unit_test(arch_report_is_complete),
        cmocka_unit_test(arch_diff_sees_every_field),
        cmocka_unit_test(arch_aliases_of_other_writers),
        cmocka_unit_test(arch_real_smollm2),
        cmocka_unit_test(arch_real_qwen25),
        cmocka_unit_test(arch_real_gemma3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
