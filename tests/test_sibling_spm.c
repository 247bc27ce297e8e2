/* tokenizer.json of SentencePiece models: the merges that their scores stand for, and what is refused
 * because no list of merges stands for it. That tokenizers then gives llama.cpp's ids is what
 * scripts/check_sibling tells, of llama-spm and Gemma 3 (the last test of test_sibling.c runs it). */
#include "format/sibling.h"

#include "format/json.h"
#include "tests/vapr_support.h"

#include <errno.h>
#include <string.h>

#define MAX_PIECE 32

struct piece {
    const char *text;
    float score;
    int32_t type;
};

/* <unk>, <s>, </s>, the 256 bytes, then p. n_byte < 256: the last bytes are missing. */
static struct gguf_build *spm_build(const struct piece *p, size_t n, int n_byte)
{
    static char bytes[256][8];
    const char *text[3 + 256 + MAX_PIECE] = {"<unk>", "<s>", "</s>"};
    float score[3 + 256 + MAX_PIECE] = {0};
    int32_t type[3 + 256 + MAX_PIECE] = {2, 3, 3};
    size_t k = 3;
    for (int i = 0; i < n_byte; i++, k++) {
        snprintf(bytes[i], sizeof bytes[i], "<0x%02X>", (unsigned)i & 255);
        text[k] = bytes[i];
        type[k] = 6;
    }
    for (size_t i = 0; i < n; i++, k++) {
        text[k] = p[i].text;
        score[k] = p[i].score;
        type[k] = p[i].type;
    }
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_str(b, "general.name", "pieces");
    gguf_build_str(b, "tokenizer.ggml.model", "llama");
    gguf_build_array_str(b, "tokenizer.ggml.tokens", text, k);
    gguf_build_array(b, "tokenizer.ggml.scores", 6, score, k);
    gguf_build_array(b, "tokenizer.ggml.token_type", 5, type, k);
    return b;
}

static int written(struct gguf_build *b, cJSON **v, struct err *e)
{
    size_t len;
    struct made m;
    char *text = NULL;
    made_open_ok(&m, b);
    int rc = sibling_tokenizer(m.g, &text, &len, e);
    assert_int_equal(sibling_has_tokenizer(m.g, NULL), rc);
    if (rc == 0)
        assert_int_equal(json_parse(v, text, len, e), 0);
    free(text);
    made_close(&m);
    gguf_build_free(b);
    return rc;
}

/* "l r|l r|..." */
static void expect_merges(struct gguf_build *b, const char *want)
{
    cJSON *v = NULL;
    const cJSON *m;
    struct err e = {0};
    char all[4096] = "";
    if (written(b, &v, &e) < 0)
        fail_msg("%s", e.msg);
    cJSON_ArrayForEach(m, json_get(json_get(v, "model"), "merges"))
    {
        strcat(all, *all ? "|" : "");
        strcat(all, json_text(m));
    }
    assert_string_equal(all, want);
    cJSON_Delete(v);
}

static void expect_refused(struct gguf_build *b, const char *why)
{
    cJSON *v = NULL;
    struct err e = {0};
    assert_int_equal(written(b, &v, &e), -ENOENT);
    if (!strstr(e.msg, why))
        fail_msg("'%s' does not say '%s'", e.msg, why);
}

static void sibling_spm_orders_merges_by_score(void **state)
{
    (void)state;
    static const struct piece p[] = {{"a", -9, 1},  {"b", -9, 1},   {"c", -9, 1},
                                     {"ab", -2, 1}, {"abc", -3, 1}, {"bc", -1, 1}};
    /* bc is joined first; abc can be made in two ways, the longer left part first. */
    expect_merges(spm_build(p, 6, 256), "b c|a b|ab c|a bc");
}

/* Gemma's runs of blanks have one score: they grow from the left. */
static void sibling_spm_lets_runs_grow(void **state)
{
    (void)state;
    static const struct piece p[] = {
        {"▁", -9, 1}, {"▁▁", -1000, 4}, {"▁▁▁", -1000, 4}, {"▁▁▁▁", -1000, 4}};
    expect_merges(spm_build(p, 4, 256), "▁▁▁ ▁|▁▁ ▁|▁ ▁");
}

/* Text of special tokens is taken out before anything is merged, unless a blank has to become U+2581. */
static void sibling_spm_leaves_special_tokens_out(void **state)
{
    (void)state;
    static const struct piece p[] = {{"a", -9, 1},  {"b", -9, 1}, {"ab", -5, 3},
                                     {"ba", -5, 4}, {"▁", -9, 1}, {"▁a", -6, 3}};
    expect_merges(spm_build(p, 6, 256), "▁ a");
}

static void sibling_spm_refuses_what_no_merges_say(void **state)
{
    (void)state;
    static const struct piece same[] = {{"a", -9, 1}, {"b", -9, 1}, {"ab", -2, 1}, {"ba", -2, 1}};
    expect_refused(spm_build(same, 4, 256), "tokens 261 and 262 have the same score");
    static const struct piece gaps[] = {
        {"a", -9, 1}, {"aa", -2, 1}, {"aaa", -2, 1}, {"aaaaa", -2, 1}, {"aaaaaa", -2, 1}};
    expect_refused(spm_build(gaps, 5, 256), "have the same score and gaps");
    static const struct piece missing[] = {{"a", -9, 1}, {"ab", -2, 1}};
    expect_refused(spm_build(missing, 2, 256), "token 260 is made of a character that is no token");
    expect_refused(spm_build(same, 2, 255), "there is no token <0xFF>");
    struct gguf_build *b = spm_build(same, 3, 256);
    gguf_build_remove(b, "tokenizer.ggml.scores");
    expect_refused(b, "tokenizer.ggml.scores is absent");
    b = spm_build(same, 3, 256);
    gguf_build_str(b, "general.name", "Phi-3 mini");
    expect_refused(b, "special tokens of a Phi-3");
}

static void sibling_spm_says_how_blanks_are_read(void **state)
{
    (void)state;
    static const struct piece p[] = {{"a", -9, 1}};
    cJSON *v = NULL;
    struct err e = {0};
    assert_int_equal(written(spm_build(p, 1, 256), &v, &e), 0);
    const cJSON *n = json_get(json_get(v, "normalizer"), "normalizers");
    assert_int_equal(cJSON_GetArraySize(n), 2);
    assert_string_equal(json_text(json_get(cJSON_GetArrayItem(n, 0), "prepend")), "▁");
    assert_true(cJSON_IsNull(json_get(v, "pre_tokenizer")));
    assert_true(cJSON_IsTrue(json_get(json_get(v, "model"), "byte_fallback")));
    /* BOS by default, as llama.cpp does. */
    assert_string_equal(json_text(json_get(json_get(v, "post_processor"), "type")),
                        "TemplateProcessing");
    cJSON_Delete(v);
    struct gguf_build *b = spm_build(p, 1, 256);
    gguf_build_bool(b, "tokenizer.ggml.add_space_prefix", false);
    gguf_build_bool(b, "tokenizer.ggml.add_bos_token", false);
    assert_int_equal(written(b, &v, &e), 0);
    assert_int_equal(cJSON_GetArraySize(json_get(json_get(v, "normalizer"), "normalizers")), 1);
    assert_true(cJSON_IsNull(json_get(v, "post_processor")));
    cJSON_Delete(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sibling_spm_orders_merges_by_score),
        cmocka_unit_test(sibling_spm_lets_runs_grow),
        cmocka_unit_test(sibling_spm_leaves_special_tokens_out),
        cmocka_unit_test(sibling_spm_refuses_what_no_merges_say),
        cmocka_unit_test(sibling_spm_says_how_blanks_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
