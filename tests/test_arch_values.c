/* The resolver: rotation, windows, scales. Expectations come from arch-resolver.md by section and from what
 * llama.cpp does (0c1e570), or are computed by hand beside the number. */
#include "format/arch_internal.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

/* --- rotation ----------------------------------------------------------------------------- */

static void arch_theta_default_is_ten_thousand(void **state)
{
    (void)state;
    /* §6: no architecture default in llama.cpp; §8.5: 1e6 for qwen2 in compat only. */
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.rope_theta = -1;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    struct arch_open a = arch_open_good(b);
    assert_true(a.c.rope_theta == 10000);
    assert_string_equal(arch_open_field(&a, "rope_theta")->compat, "1e+06");
    arch_open_release(&a);
    arch_open_build(&a, b, ARCH_VALUES_COMPAT);
    assert_int_equal(a.rc, 0);
    assert_true(a.c.rope_theta == 1e6F);
    arch_open_release(&a);
    gguf_build_f64(b, "qwen2.rope.freq_base", 123456);
    a = arch_open_good(b);
    assert_true(a.c.rope_theta == 123456);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_theta_refuses_zero_and_text(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    gguf_build_f32(b, "llama.rope.freq_base", 0);
    arch_refused(b, -ENOTSUP, "rope_theta");
    b = arch_model("llama");
    gguf_build_f32(b, "llama.rope.freq_base", INFINITY);
    arch_refused(b, -EUCLEAN, "freq_base");
    b = arch_model("llama");
    gguf_build_str(b, "llama.rope.freq_base", "10000");
    arch_refused(b, -EUCLEAN, "freq_base");
}

static void arch_scaling_keys(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("llama");
    gguf_build_f32(b, "llama.rope.scale_linear", 2); /* the old key, §10.2 of engine.md */
    struct arch_open a = arch_open_good(b);
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
    a = arch_open_good(b);
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
    a = arch_open_good(b);
    assert_int_equal(a.c.scaling, ARCH_SCALING_UNKNOWN);
    arch_open_release(&a);
    gguf_build_u32(b, "llama.rope.scaling.type", 1);
    arch_refused(b, -EUCLEAN, "rope.scaling.type");

    b = arch_model("mistral3"); /* reads all of YaRN's keys (src/models/mistral3.cpp) */
    gguf_build_str(b, "mistral3.rope.scaling.type", "yarn");
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_beta_fast", 7);
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_beta_slow", 3);
    gguf_build_f32(b, "mistral3.rope.scaling.yarn_log_multiplier", 0.5F);
    a = arch_open_good(b);
    assert_true(a.c.yarn_beta_fast == 7 && a.c.yarn_beta_slow == 3 && a.c.yarn_log_mul == 0.5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

static void arch_rotates_part_of_a_head(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("phi2");
    gguf_build_u32(b, "phi2.rope.dimension_count", 8); /* of 16 */
    struct arch_open a = arch_open_good(b);
    assert_int_equal(a.c.n_rot, 8);
    assert_int_equal(a.c.head_dim_k, 16);
    arch_open_release(&a);
    gguf_build_free(b);
    b = arch_model("llama"); /* llama.cpp throws for these four, src/llama-model.cpp */
    gguf_build_u32(b, "llama.rope.dimension_count", 8);
    arch_refused(b, -ENOTSUP, "rotates 8 of 16");
    b = arch_case(&(struct arch_line){.name = (char *)"step35",
                                      .rope = (char *)"NEOX",
                                      .eps = (char *)"layer_norm_rms_epsilon",
                                      .required = (char *)"attention.sliding_window,attention."
                                                          "sliding_window_pattern"});
    gguf_build_u32(b, "step35.rope.dimension_count", 16);
    a = arch_open_good(b);
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
    struct arch_open a = arch_open_good(b);
    check_layers(a.c.layer_local, "LLLLLGLLLLLGL");
    assert_int_equal(a.c.sliding_window, 512);
    assert_true(a.c.rope_theta == 1e6F && a.c.rope_theta_swa == 10000);
    assert_true(a.c.scaling_factor == 8 && a.c.scaling_factor_swa == 1);
    arch_open_release(&a);
    gguf_build_f32(b, "gemma3.rope.freq_base_swa", 5000);
    gguf_build_u32(b, "gemma3.attention.sliding_window_pattern", 3);
    a = arch_open_good(b);
    check_layers(a.c.layer_local, "LLGLLGLLGLLGL");
    assert_true(a.c.rope_theta_swa == 5000);
    arch_open_release(&a);
    static const uint8_t mask[13] = {0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
    gguf_build_array(b, "gemma3.attention.sliding_window_pattern", 7, mask, 13);
    a = arch_open_good(b);
    check_layers(a.c.layer_local, "GLLGGGGGGGGGL");
    arch_open_release(&a);
    gguf_build_u32(b, "gemma3.attention.sliding_window_pattern", 0); /* 0: every layer */
    a = arch_open_good(b);
    check_layers(a.c.layer_local, "LLLLLLLLLLLLL");
    arch_open_release(&a);
    gguf_build_u32(b, "gemma3.attention.sliding_window", 0); /* then there is no window */
    a = arch_open_good(b);
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
    struct arch_open a = arch_open_good(b);
    check_layers(a.c.layer_local, "LGLG");
    assert_int_equal(a.c.sliding_window, 4096);
    assert_true(a.c.rope_theta_swa == 20000);
    assert_true(a.c.attn_softcap == 50 && a.c.final_softcap == 30);
    arch_open_release(&a);
    gguf_build_f32(b, "gemma2.attn_logit_softcapping", 40);
    gguf_build_f32(b, "gemma2.final_logit_softcapping", 20);
    a = arch_open_good(b);
    assert_true(a.c.attn_softcap == 40 && a.c.final_softcap == 20);
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("phi3", 4, 2047); /* read, then switched off: changes nothing */
    a = arch_open_good(b);
    assert_int_equal(a.c.sliding_window, 0);
    check_layers(a.c.layer_local, "GGGG");
    assert_true(arch_open_noted(&a, "phi3.attention.sliding_window is not read"));
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("cohere2", 8, 64); /* 3:1, and global layers do not rotate */
    gguf_build_f32(b, "cohere2.logit_scale", 0.25F);
    a = arch_open_good(b);
    check_layers(a.c.layer_local, "LLLGLLLG");
    check_layers(a.c.layer_rope, "LLLGLLLG");
    assert_true(a.c.logit_scale == 0.25F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = layered("gpt-oss", 4, 0); /* the key is required: -EUCLEAN by name */
    arch_refused(b, -EUCLEAN, "gpt-oss.attention.sliding_window is missing");
    b = layered("mimo2", 2, 8);
    arch_refused(b, -EUCLEAN, "sliding_window_pattern");
}

static void arch_layers_without_rotation(void **state)
{
    (void)state;
    struct gguf_build *b = layered("smollm3", 8, 0); /* every fourth is left alone */
    struct arch_open a = arch_open_good(b);
    check_layers(a.c.layer_rope, "LLLGLLLG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("gpt2", 2, 0);
    a = arch_open_good(b);
    check_layers(a.c.layer_rope, "GG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("llama4", 4, 0); /* chunks of 8192 unless the window key says 0 */
    gguf_build_u32(b, "llama4.expert_feed_forward_length", 8);
    gguf_build_u32(b, "llama4.interleave_moe_layer_step", 1);
    a = arch_open_good(b);
    assert_int_equal(a.c.sliding_window, 8192);
    check_layers(a.c.layer_local, "LLLG");
    check_layers(a.c.layer_rope, "LLLG");
    arch_open_release(&a);
    gguf_build_free(b);
    b = layered("granite", 2, 0);
    gguf_build_f32(b, "granite.logit_scale", 8);
    gguf_build_bool(b, "granite.rope.scaling.finetuned", false);
    a = arch_open_good(b);
    check_layers(a.c.layer_rope, "GG");
    arch_open_release(&a);
    gguf_build_free(b);
}

/* --- scales ------------------------------------------------------------------------------- */

static void arch_scales(void **state)
{
    (void)state;
    struct gguf_build *b = arch_model("granite");
    arch_refused(b, -EUCLEAN, "logit_scale"); /* required, and divided by */
    b = arch_model("granite");
    gguf_build_f32(b, "granite.logit_scale", 8);
    gguf_build_f32(b, "granite.embedding_scale", 12);
    gguf_build_f32(b, "granite.residual_scale", 0.22F);
    gguf_build_f32(b, "granite.attention.scale", 0.015625F);
    struct arch_open a = arch_open_good(b);
    assert_true(a.c.logit_scale == 0.125F); /* logits are divided by the key */
    assert_true(a.c.embed_scale == 12 && a.c.residual_scale == 0.22F);
    assert_true(a.c.attn_scale == 0.015625F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = arch_model("llama"); /* none of these is llama's */
    gguf_build_f32(b, "llama.logit_scale", 8);
    gguf_build_f32(b, "llama.embedding_scale", 12);
    gguf_build_f32(b, "llama.residual_scale", 0.22F);
    gguf_build_f32(b, "llama.attention.scale", 2);
    gguf_build_f32(b, "llama.attn_logit_softcapping", 50);
    gguf_build_f32(b, "llama.final_logit_softcapping", 30);
    a = arch_open_good(b);
    assert_true(a.c.logit_scale == 1 && a.c.embed_scale == 1 && a.c.residual_scale == 1);
    assert_true(a.c.attn_softcap == 0 && a.c.final_softcap == 0);
    assert_true(a.c.attn_scale == 0.25F); /* 1/sqrt(16) */
    arch_open_release(&a);
    gguf_build_free(b);

    b = arch_model("minicpm"); /* src/models/minicpm.cpp: 12, 1.4/sqrt(n_layer), 256/n_embd */
    a = arch_open_good(b);
    assert_true(a.c.embed_scale == 12);
    assert_true(a.c.residual_scale == 1.4F / sqrtf(2));
    assert_true(a.c.logit_scale == 64.0F / 256.0F);
    arch_open_release(&a);
    gguf_build_free(b);

    b = arch_model("gemma");
    a = arch_open_good(b);
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
        struct arch_open a = arch_open_good(b);
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
    struct gguf_build *b = arch_model("deepseek2");
    gguf_build_u32(b, "deepseek2.attention.key_length_mla", 192);
    gguf_build_str(b, "deepseek2.rope.scaling.type", "yarn");
    gguf_build_f32(b, "deepseek2.rope.scaling.factor", 40);
    gguf_build_f32(b, "deepseek2.rope.scaling.yarn_log_multiplier", 0.0707F);
    struct arch_open a = arch_open_good(b);
    double m = 1 + 0.1 * 0.707 * log(40);
    assert_true(fabs((double)a.c.attn_scale - m * m / sqrt(192)) < 1e-6);
    assert_true(fabsf(a.c.yarn_log_mul - 0.707F) < 1e-5F);
    arch_open_release(&a);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
