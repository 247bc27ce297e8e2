/* config.json of models whose RoPE factors stand in tensors. The rule of Llama 3.1 is transformers'
 * (modeling_rope_utils.py, _compute_llama3_parameters), written down here once more; the numbers of
 * meta-llama's config.json: factor 32 (3.2) or 8 (3.1), 1, 4, 8192, theta 500000. */
#include "format/json.h"
#include "format/sibling.h"

#include "tests/vapr_support.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define DIM 64 /* Llama 3.2 1B's head */

static cJSON *config_of(const struct gguf_build *b)
{
    struct made m;
    struct err e = {0};
    char *text = NULL;
    size_t n = 0;
    cJSON *v = NULL;
    made_open_ok(&m, b);
    if (sibling_config(m.g, ARCH_VALUES_REFERENCE, &text, &n, &e) < 0 ||
        json_parse(&v, text, n, &e) < 0)
        fail_msg("%s", e.msg);
    free(text);
    made_close(&m);
    return v;
}

static struct gguf_build *model(const char *arch, float theta)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.n_embd = 2 * DIM;
    o.n_head = 2;
    o.n_head_kv = 1;
    o.head_dim = DIM;
    o.n_ff = 128;
    o.rope_theta = theta;
    return gguf_build_llama_like(arch, &o);
}

/* inv_freq / inv_freq_llama3, frequency by frequency. */
static void llama3(float v[DIM / 2], double theta, double factor, double ctx)
{
    for (int i = 0; i < DIM / 2; i++) {
        double inv = 1 / pow(theta, 2.0 * i / DIM), wave = 2 * M_PI / inv, made = inv;
        double smooth = (ctx / wave - 1) / (4 - 1);
        if (wave > ctx)
            made = inv / factor;
        else if (wave >= ctx / 4)
            made = (1 - smooth) * inv / factor + smooth * inv;
        v[i] = (float)(inv / made);
    }
}

static void put_factors(struct gguf_build *b, const char *name, const float *v, uint64_t n)
{
    gguf_build_tensor(b, name, 0, 1, &n, v);
}

static const char *rope_type(const cJSON *c)
{
    const cJSON *s = json_get(c, "rope_scaling");
    const char *t = json_text(json_get(s, "rope_type"));
    return t ? t : json_text(json_get(s, "type")) ? json_text(json_get(s, "type")) : "none";
}

static double num(const cJSON *v, const char *key)
{
    double n = -1;
    assert_true(json_num(json_get(v, key), &n));
    return n;
}

static void rope_of_llama_3_is_said(void **state)
{
    (void)state;
    static const struct {
        double factor, ctx;
    } cases[] = {{32, 8192}, {8, 8192}, {4, 16384}};
    for (size_t i = 0; i < 3; i++) {
        float v[DIM / 2];
        struct gguf_build *b = model("llama", 500000);
        llama3(v, 500000, cases[i].factor, cases[i].ctx);
        put_factors(b, "rope_freqs.weight", v, DIM / 2);
        cJSON *c = config_of(b);
        const cJSON *s = json_get(c, "rope_scaling");
        assert_string_equal(rope_type(c), "llama3");
        assert_non_null(json_get(c, "architectures"));
        assert_true(num(s, "factor") == cases[i].factor);
        assert_true(num(s, "low_freq_factor") == 1);
        assert_true(num(s, "high_freq_factor") == 4);
        assert_true(num(s, "original_max_position_embeddings") == cases[i].ctx);
        cJSON_Delete(c);
        gguf_build_free(b);
    }
}

/* A reader must not take what no rule says for plain RoPE. */
static void rope_of_other_factors_is_unknown(void **state)
{
    (void)state;
    float v[DIM / 2], one[DIM / 2];
    llama3(v, 500000, 8, 8192);
    for (int i = 0; i < DIM / 2; i++)
        one[i] = 1;
    struct gguf_build *b = model("llama", 500000);
    put_factors(b, "rope_freqs.weight", one, DIM / 2);
    cJSON *c = config_of(b);
    assert_string_equal(rope_type(c), "none");
    assert_non_null(json_get(c, "architectures"));
    cJSON_Delete(c);
    for (int bad = 0; bad < 5; bad++) {
        float w[DIM / 2];
        memcpy(w, v, sizeof w);
        w[DIM / 4] *= bad == 0 ? 1.01f : 1;
        w[1] = bad == 1 ? 0 : w[1];
        gguf_build_tensor_remove(b, "rope_freqs.weight");
        uint64_t n = bad == 2 ? DIM / 4 : DIM / 2;
        /* type 26, I32, has as many bytes and no factors */
        gguf_build_tensor(b, "rope_freqs.weight", bad == 3 ? 26 : 0, 1, &n, w);
        if (bad == 4) { /* two rules at once */
            gguf_build_str(b, "llama.rope.scaling.type", "linear");
            gguf_build_f32(b, "llama.rope.scaling.factor", 2);
        }
        c = config_of(b);
        assert_string_equal(rope_type(c), "unknown");
        assert_null(json_get(c, "architectures"));
        cJSON_Delete(c);
    }
    gguf_build_tensor_remove(b, "rope_freqs.weight");
    c = config_of(b);
    assert_string_equal(rope_type(c), "linear");
    cJSON_Delete(c);
    gguf_build_free(b);
}

/* Phi-3's: as they stand, by the names of its class. */
static void rope_of_phi_3_has_both_lists(void **state)
{
    (void)state;
    float lo[DIM / 2], hi[DIM / 2];
    for (int i = 0; i < DIM / 2; i++) {
        lo[i] = 1 + 0.25f * (float)i;
        hi[i] = 2 + (float)i;
    }
    struct gguf_build *b = model("phi3", 10000);
    gguf_build_u32(b, "phi3.rope.scaling.original_context_length", 128);
    put_factors(b, "rope_factors_short.weight", lo, DIM / 2);
    cJSON *c = config_of(b);
    assert_string_equal(rope_type(c), "unknown"); /* one of two */
    cJSON_Delete(c);
    put_factors(b, "rope_factors_long.weight", hi, DIM / 2);
    c = config_of(b);
    const cJSON *s = json_get(c, "rope_scaling");
    assert_string_equal(rope_type(c), "longrope");
    assert_true(num(c, "original_max_position_embeddings") == 128);
    assert_int_equal(cJSON_GetArraySize(json_get(s, "short_factor")), DIM / 2);
    assert_true(cJSON_GetArrayItem(json_get(s, "short_factor"), 1)->valuedouble == 1.25);
    assert_true(cJSON_GetArrayItem(json_get(s, "long_factor"), 31)->valuedouble == 33);
    assert_int_equal(cJSON_GetArraySize(s), 3); /* Phi3Config refuses a fourth key */
    cJSON_Delete(c);
    gguf_build_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rope_of_llama_3_is_said),
        cmocka_unit_test(rope_of_other_factors_is_unknown),
        cmocka_unit_test(rope_of_phi_3_has_both_lists),
    };
    return cmocka_run_group_tests_name("sibling_rope", tests, NULL, NULL);
}
