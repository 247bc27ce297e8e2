/* tokenizer.json and config.json: their structure here; that tokenizers and transformers read them
 * as meant is scripts/check_sibling's, run from the last test where an oracle is installed. Values
 * come from the keys the test wrote; the shape of tokenizer.json from what the package tokenizers
 * 0.23 writes for such a tokenizer. */
#include "format/sibling.h"

#include "format/json.h"
#include "format/pretok.h"
#include "tests/vapr_support.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

static cJSON *parsed(char *text, size_t len)
{
    cJSON *v = NULL;
    struct err e;
    if (json_parse(&v, text, len, &e) < 0)
        fail_msg("%s", e.msg);
    free(text);
    return v;
}

static cJSON *tokenizer_of(const struct gguf_build *b)
{
    struct made o;
    made_open_ok(&o, b);
    char *text = NULL;
    size_t len = 0;
    struct err e;
    assert_int_equal(sibling_has_tokenizer(o.g, &e), 0);
    if (sibling_tokenizer(o.g, &text, &len, &e) < 0)
        fail_msg("%s", e.msg);
    made_close(&o);
    return parsed(text, len);
}

static cJSON *config_of(const struct gguf_build *b)
{
    struct made o;
    made_open_ok(&o, b);
    char *text = NULL;
    size_t len = 0;
    struct err e;
    if (sibling_config(o.g, ARCH_VALUES_REFERENCE, &text, &len, &e) < 0)
        fail_msg("%s", e.msg);
    made_close(&o);
    return parsed(text, len);
}

/* The member at a path like "model/vocab/ab"; fails if there is none. */
static const cJSON *at(const cJSON *v, const char *path)
{
    char name[64];
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        v = cJSON_IsArray(v) ? cJSON_GetArrayItem(v, atoi(name)) : json_get(v, name);
        if (!v)
            fail_msg("no %s", path);
        p += n + (p[n] == '/');
    }
    return v;
}

static int64_t int_at(const cJSON *v, const char *path)
{
    int64_t n = -999;
    assert_true(json_int(at(v, path), &n));
    return n;
}

static double num_at(const cJSON *v, const char *path)
{
    double n = -999;
    assert_true(json_num(at(v, path), &n));
    return n;
}

static bool bool_at(const cJSON *v, const char *path)
{
    bool b = false;
    assert_true(json_bool(at(v, path), &b));
    return b;
}

#define assert_text_at(v, path, text) assert_string_equal(json_text(at(v, path)), text)

/* Four tokens and one merge, of which every bad case changes one thing. */
static struct gguf_build *tiny_bpe(void)
{
    static const char *const token[] = {"a", "b", "ab", "<s>"};
    static const char *const merge[] = {"a b"};
    static const int32_t type[] = {1, 1, 1, 3};
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "tokenizer.ggml.model", "gpt2");
    gguf_build_str(b, "tokenizer.ggml.pre", "gpt-2");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", token, 4);
    gguf_build_array_str(b, "tokenizer.ggml.merges", merge, 1);
    gguf_build_array(b, "tokenizer.ggml.token_type", 5, type, 4);
    return b;
}

static void sibling_tokenizer_is_whole(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("qwen2", NULL);
    cJSON *t = tokenizer_of(b);
    gguf_build_free(b);
    assert_text_at(t, "version", "1.0");
    assert_text_at(t, "model/type", "BPE");
    /* 256 bytes, 12 merges, 2 control tokens: tests/gguf_build_model.c */
    assert_int_equal(cJSON_GetArraySize(at(t, "model/vocab")), 270);
    assert_int_equal(int_at(t, "model/vocab/the"), 257);
    assert_int_equal(int_at(t, "model/vocab/<|endoftext|>"), 268);
    assert_int_equal(cJSON_GetArraySize(at(t, "model/merges")), 12);
    assert_text_at(t, "model/merges/1", "th e");
    assert_false(bool_at(t, "model/ignore_merges"));
    assert_int_equal(cJSON_GetArraySize(at(t, "added_tokens")), 2);
    assert_int_equal(int_at(t, "added_tokens/1/id"), 269);
    assert_text_at(t, "added_tokens/1/content", "<|im_end|>");
    assert_true(bool_at(t, "added_tokens/1/special"));
    assert_false(bool_at(t, "added_tokens/1/normalized"));
    assert_text_at(t, "decoder/type", "ByteLevel");
    assert_text_at(t, "post_processor/type", "ByteLevel"); /* add_bos_token is false */
    assert_true(cJSON_IsNull(at(t, "normalizer")));
    cJSON_Delete(t);
}

static void sibling_tokenizer_splits_as_pretok(void **state)
{
    (void)state;
    static const char *const pre[] = {"gpt-2", "smollm", "qwen2", "llama-bpe", "deepseek-v3"};
    for (size_t i = 0; i < sizeof pre / sizeof *pre; i++) {
        struct gguf_build *b = tiny_bpe();
        gguf_build_str(b, "tokenizer.ggml.pre", pre[i]);
        gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 3);
        cJSON *t = tokenizer_of(b);
        gguf_build_free(b);
        const struct pretok *p = pretok_find(pre[i]);
        const cJSON *list = at(t, "pre_tokenizer/pretokenizers");
        int n = 0;
        for (; p->split[n].regex; n++) {
            const cJSON *s = cJSON_GetArrayItem(list, n);
            assert_text_at(s, "type", "Split");
            assert_text_at(s, "pattern/Regex", p->split[n].regex);
            assert_text_at(s, "behavior", "Isolated");
            assert_false(bool_at(s, "invert"));
        }
        assert_true(n > 0);
        const cJSON *last = cJSON_GetArrayItem(list, n);
        assert_text_at(last, "type", "ByteLevel");
        assert_false(bool_at(last, "use_regex"));
        assert_false(bool_at(last, "add_prefix_space"));
        assert_int_equal(cJSON_GetArraySize(list), n + 1);
        /* llama-bpe takes a piece that is a token as it is: llama-vocab.cpp. */
        assert_int_equal(bool_at(t, "model/ignore_merges"), !strcmp(pre[i], "llama-bpe"));
        cJSON_Delete(t);
    }
}

static void sibling_tokenizer_adds_bos_and_eos(void **state)
{
    (void)state;
    struct gguf_build *b = tiny_bpe();
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 3);
    gguf_build_u32(b, "tokenizer.ggml.eos_token_id", 0);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
    gguf_build_bool(b, "tokenizer.ggml.add_eos_token", true);
    cJSON *t = tokenizer_of(b);
    assert_text_at(t, "post_processor/type", "TemplateProcessing");
    assert_text_at(t, "post_processor/single/0/SpecialToken/id", "<s>");
    assert_text_at(t, "post_processor/single/1/Sequence/id", "A");
    assert_text_at(t, "post_processor/single/2/SpecialToken/id", "a");
    assert_int_equal(cJSON_GetArraySize(at(t, "post_processor/pair")), 6);
    assert_int_equal(int_at(t, "post_processor/special_tokens/<s>/ids/0"), 3);
    assert_int_equal(int_at(t, "post_processor/special_tokens/a/ids/0"), 0);
    cJSON_Delete(t);
    /* Without the key the pre-tokenizer's name decides: llama-bpe wants BOS, gpt-2 does not. */
    gguf_build_remove(b, "tokenizer.ggml.add_bos_token");
    gguf_build_remove(b, "tokenizer.ggml.add_eos_token");
    t = tokenizer_of(b);
    assert_text_at(t, "post_processor/type", "ByteLevel");
    cJSON_Delete(t);
    gguf_build_str(b, "tokenizer.ggml.pre", "llama-bpe");
    t = tokenizer_of(b);
    assert_int_equal(cJSON_GetArraySize(at(t, "post_processor/single")), 2);
    assert_text_at(t, "post_processor/single/0/SpecialToken/id", "<s>");
    cJSON_Delete(t);
    gguf_build_free(b);
}

static void sibling_tokenizer_marks_token_types(void **state)
{
    (void)state;
    /* normal 1, unknown 2, control 3, user-defined 4, unused 5, byte 6: llama.h */
    static const char *const token[] = {"a", "b", "ab", "u", "c", "d", "e", "f", ""};
    static const int32_t type[] = {1, 1, 1, 2, 3, 4, 5, 6, 3};
    struct gguf_build *b = tiny_bpe();
    gguf_build_array_str(b, "tokenizer.ggml.tokens", token, 9);
    gguf_build_array(b, "tokenizer.ggml.token_type", 5, type, 9);
    cJSON *t = tokenizer_of(b);
    gguf_build_free(b);
    assert_int_equal(cJSON_GetArraySize(at(t, "added_tokens")), 4);
    assert_text_at(t, "added_tokens/0/content", "u");
    assert_true(bool_at(t, "added_tokens/0/special"));
    assert_true(bool_at(t, "added_tokens/1/special"));
    assert_text_at(t, "added_tokens/2/content", "d");
    assert_false(bool_at(t, "added_tokens/2/special"));       /* matched in any text */
    assert_text_at(t, "added_tokens/3/content", "[EMPTY_8]"); /* llama.cpp's name for it */
    assert_int_equal(int_at(t, "model/vocab/[EMPTY_8]"), 8);
    cJSON_Delete(t);
}

static void sibling_tokenizer_writes_merges_with_blanks_as_pairs(void **state)
{
    (void)state;
    static const char *const token[] = {"a", "b c", "ab c", "<s>"};
    static const char *const merge[] = {"a b c"};
    struct gguf_build *b = tiny_bpe();
    gguf_build_array_str(b, "tokenizer.ggml.tokens", token, 4);
    gguf_build_array_str(b, "tokenizer.ggml.merges", merge, 1);
    cJSON *t = tokenizer_of(b);
    gguf_build_free(b);
    assert_text_at(t, "model/merges/0/0", "a");
    assert_text_at(t, "model/merges/0/1", "b c");
    cJSON_Delete(t);
}

static void expect_no_tokenizer(struct gguf_build *b, const char *why)
{
    struct made o;
    made_open_ok(&o, b);
    struct err e = {0}, e2 = {0};
    char *text = NULL;
    size_t len = 0;
    assert_int_equal(sibling_has_tokenizer(o.g, &e), -ENOENT);
    assert_int_equal(sibling_tokenizer(o.g, &text, &len, &e2), -ENOENT);
    assert_null(text);
    assert_string_equal(e.msg, e2.msg);
    assert_non_null(strstr(e.msg, "no tokenizer.json: "));
    if (!strstr(e.msg, why))
        fail_msg("'%s' does not say '%s'", e.msg, why);
    made_close(&o);
    gguf_build_free(b);
}

static void sibling_tokenizer_refuses_by_name(void **state)
{
    (void)state;
    struct gguf_build *b = tiny_bpe();
    gguf_build_str(b, "tokenizer.ggml.model", "bert");
    expect_no_tokenizer(b, "type 'bert', only for 'gpt2', 'llama'");
    b = tiny_bpe();
    gguf_build_remove(b, "tokenizer.ggml.model");
    expect_no_tokenizer(b, "the file has no tokenizer");
    b = tiny_bpe();
    gguf_build_remove(b, "tokenizer.ggml.merges");
    expect_no_tokenizer(b, ".merges is absent");
    b = tiny_bpe();
    gguf_build_str(b, "tokenizer.ggml.pre", "no-such");
    expect_no_tokenizer(b, "pre-tokenizer 'no-such' is not known");
    b = tiny_bpe();
    static const char *const twice[] = {"a", "b", "ab", "a"};
    gguf_build_array_str(b, "tokenizer.ggml.tokens", twice, 4);
    expect_no_tokenizer(b, "tokens 0 and 3 have the same text");
    b = tiny_bpe();
    static const char *const latin1[] = {"a", "b", "ab", "\xe9"};
    gguf_build_array_str(b, "tokenizer.ggml.tokens", latin1, 4);
    expect_no_tokenizer(b, "token 3 is not UTF-8");
    b = tiny_bpe();
    static const int32_t three[] = {1, 1, 1};
    gguf_build_array(b, "tokenizer.ggml.token_type", 5, three, 3);
    expect_no_tokenizer(b, "token_type has 3 elements, there are 4 tokens");
    static const char *const bad_merge[][2] = {
        {"a <s>", "merge 0 names a text that is no token"}, /* "a<s>" is none */
        {"a x", "merge 0 names a text that is no token"},
        {"ab", "merge 0 is not two texts"},
        {"a ", "merge 0 is not two texts"},
        {" b", "merge 0 is not two texts"},
    };
    for (size_t i = 0; i < sizeof bad_merge / sizeof *bad_merge; i++) {
        b = tiny_bpe();
        gguf_build_array_str(b, "tokenizer.ggml.merges", bad_merge[i], 1);
        expect_no_tokenizer(b, bad_merge[i][1]);
    }
    b = tiny_bpe();
    static const char *const again[] = {"a b", "a b"};
    gguf_build_array_str(b, "tokenizer.ggml.merges", again, 2);
    expect_no_tokenizer(b, "merge 1 stands twice");
    b = tiny_bpe();
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", true);
    gguf_build_u32(b, "tokenizer.ggml.bos_token_id", 4);
    expect_no_tokenizer(b, "add_bos_token is set, but there is no such token");
}

static void sibling_texts_are_equal_twice(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("qwen2", NULL);
    struct made o;
    made_open_ok(&o, b);
    char *one = NULL, *two = NULL;
    size_t n1 = 0, n2 = 0;
    assert_int_equal(sibling_tokenizer(o.g, &one, &n1, NULL), 0);
    assert_int_equal(sibling_tokenizer(o.g, &two, &n2, NULL), 0);
    assert_int_equal(n1, n2);
    assert_memory_equal(one, two, n1);
    free(one);
    free(two);
    made_close(&o);
    gguf_build_free(b);
}

static void sibling_config_has_the_resolved_values(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.eps = 3e-6;
    o.rope_theta = 1000000;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    cJSON *c = config_of(b);
    gguf_build_free(b);
    assert_text_at(c, "architectures/0", "Qwen2ForCausalLM");
    assert_text_at(c, "model_type", "qwen2");
    assert_int_equal(int_at(c, "hidden_size"), 64);
    assert_int_equal(int_at(c, "num_hidden_layers"), 2);
    assert_int_equal(int_at(c, "num_attention_heads"), 4);
    assert_int_equal(int_at(c, "num_key_value_heads"), 2);
    assert_int_equal(int_at(c, "head_dim"), 16);
    assert_int_equal(int_at(c, "intermediate_size"), 128);
    assert_int_equal(int_at(c, "vocab_size"), 270);
    assert_int_equal(int_at(c, "max_position_embeddings"), 256);
    assert_true(num_at(c, "rms_norm_eps") == 3e-6); /* shortest text of the f32 */
    assert_true(num_at(c, "rope_theta") == 1e6);
    assert_text_at(c, "hidden_act", "silu");
    assert_false(bool_at(c, "tie_word_embeddings"));
    assert_true(bool_at(c, "attention_bias"));
    assert_true(cJSON_IsNull(at(c, "sliding_window")));
    assert_int_equal(int_at(c, "bos_token_id"), 268);
    assert_int_equal(int_at(c, "eos_token_id"), 269);
    cJSON_Delete(c);
}

static void sibling_config_of_gemma3(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("gemma3");
    o.n_layer = 7;
    o.head_dim = 32;
    struct gguf_build *b = gguf_build_llama_like("gemma3", &o);
    cJSON *c = config_of(b);
    gguf_build_free(b);
    assert_text_at(c, "architectures/0", "Gemma3ForCausalLM");
    assert_text_at(c, "model_type", "gemma3_text");
    assert_int_equal(int_at(c, "sliding_window"), 64);
    /* five local layers, then one global: llama.cpp, gemma3 (pattern of 6) */
    assert_int_equal(cJSON_GetArraySize(at(c, "layer_types")), 7);
    assert_text_at(c, "layer_types/4", "sliding_attention");
    assert_text_at(c, "layer_types/5", "full_attention");
    assert_text_at(c, "layer_types/6", "sliding_attention");
    assert_int_equal(int_at(c, "query_pre_attn_scalar"), 32);
    assert_int_equal(int_at(c, "head_dim"), 32);
    assert_text_at(c, "hidden_act", "gelu_pytorch_tanh");
    assert_true(bool_at(c, "tie_word_embeddings"));
    cJSON_Delete(c);
}

/* transformers checks types: a float must look like one. */
static void sibling_config_floats_have_a_point(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.rope_theta = 10000;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    struct made f;
    made_open_ok(&f, b);
    char *text = NULL;
    size_t len;
    assert_int_equal(sibling_config(f.g, ARCH_VALUES_REFERENCE, &text, &len, NULL), 0);
    assert_non_null(memmem(text, len, "\"rope_theta\":10000.0,", 21));
    free(text);
    made_close(&f);
    gguf_build_free(b);
}

static void sibling_config_lists_what_differs_by_layer(void **state)
{
    (void)state;
    static const uint32_t heads[] = {4, 4}, kv[] = {2, 4};
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_array(b, "llama.attention.head_count", 4, heads, 2);
    gguf_build_array(b, "llama.attention.head_count_kv", 4, kv, 2);
    gguf_build_tensor_remove(b, "blk.1.attn_k.weight");
    gguf_build_tensor_remove(b, "blk.1.attn_v.weight");
    gguf_build_tensor_2d(b, "blk.1.attn_k.weight", 0, 64, 64);
    gguf_build_tensor_2d(b, "blk.1.attn_v.weight", 0, 64, 64);
    cJSON *c = config_of(b);
    gguf_build_free(b);
    assert_int_equal(int_at(c, "num_attention_heads"), 4);
    assert_int_equal(int_at(c, "num_key_value_heads/0"), 2);
    assert_int_equal(int_at(c, "num_key_value_heads/1"), 4);
    cJSON_Delete(c);
}

static void digest_of(struct gguf_build *b, uint8_t out[32])
{
    struct made o;
    made_open_ok(&o, b);
    assert_int_equal(sibling_digest(o.g, ARCH_VALUES_REFERENCE, NULL, out, NULL), 0);
    made_close(&o);
}

static void sibling_digest_tells_what_the_texts_hold(void **state)
{
    (void)state;
    uint8_t base[32], other[32];
    struct gguf_build_opt opt = gguf_build_defaults("qwen2");
    struct gguf_build *b = gguf_build_llama_like("qwen2", &opt);
    digest_of(b, base);
    /* What neither text holds. */
    gguf_build_str(b, "general.name", "another");
    gguf_build_str(b, "tokenizer.chat_template", "{{ messages }}");
    gguf_build_u32(b, "general.file_type", 7);
    digest_of(b, other);
    assert_memory_equal(base, other, 32);
    /* The same keys in another order. */
    gguf_build_remove(b, "tokenizer.ggml.pre");
    gguf_build_str(b, "tokenizer.ggml.pre", "qwen2");
    digest_of(b, other);
    assert_memory_equal(base, other, 32);
    /* What they hold. */
    gguf_build_u32(b, "qwen2.context_length", 257);
    digest_of(b, other);
    assert_memory_not_equal(base, other, 32);
    gguf_build_u32(b, "qwen2.context_length", 256);
    gguf_build_str(b, "tokenizer.ggml.pre", "llama-bpe");
    digest_of(b, other);
    assert_memory_not_equal(base, other, 32);
    gguf_build_free(b);
    opt.seed = 99; /* other weights */
    b = gguf_build_llama_like("qwen2", &opt);
    digest_of(b, other);
    assert_memory_equal(base, other, 32);
    gguf_build_free(b);
}

/* Real models, real readers: ids of tokenizers against llama.cpp's, AutoConfig against the file. */
static void sibling_tokenizer_agrees(void **state)
{
    (void)state;
    const char *python = getenv("ORACLE_PYTHON");
    if (!python || !*python)
        skip_because("no ORACLE_PYTHON (scripts/oracle)");
    if (access("scripts/check_sibling", X_OK) < 0 || access("build/debug/tests/tool_sibling", X_OK))
        skip_because("not in the repository's root, or tests/tool_sibling is not built");
    static const char *const file[] = {REAL_SMOLLM2, REAL_QWEN25, REAL_GEMMA3};
    int n = 0;
    for (size_t i = 0; i < 3; i++) {
        char *path = real_model(file[i]), *cmd = NULL;
        if (!path)
            continue;
        assert_true(asprintf(&cmd, "scripts/check_sibling --lines 500 '%s'", path) > 0);
        assert_int_equal(system(cmd), 0);
        free(cmd);
        free(path);
        n++;
    }
    if (n == 0)
        skip_because("no real model (APRFS_MODELS)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sibling_tokenizer_is_whole),
        cmocka_unit_test(sibling_tokenizer_splits_as_pretok),
        cmocka_unit_test(sibling_tokenizer_adds_bos_and_eos),
        cmocka_unit_test(sibling_tokenizer_marks_token_types),
        cmocka_unit_test(sibling_tokenizer_writes_merges_with_blanks_as_pairs),
        cmocka_unit_test(sibling_tokenizer_refuses_by_name),
        cmocka_unit_test(sibling_texts_are_equal_twice),
        cmocka_unit_test(sibling_config_has_the_resolved_values),
        cmocka_unit_test(sibling_config_of_gemma3),
        cmocka_unit_test(sibling_config_floats_have_a_point),
        cmocka_unit_test(sibling_config_lists_what_differs_by_layer),
        cmocka_unit_test(sibling_digest_tells_what_the_texts_hold),
        cmocka_unit_test(sibling_tokenizer_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
