/* APR metadata read: what is missing, of another type or said twice is refused by name; the original
 * writers' files are in tests/data. Rules: apr-v2.md §3, arch-resolver.md §8. */
#include "format/apr_meta.h"
#include "format/apr_meta_internal.h"
#include "format/apr_read.h"
#include "format/vapr.h"
#include "tests/apr_meta_support.h"
#include "tests/arch_case.h"
#include "tests/support.h"

#include <errno.h>
#include <math.h>

/* --- reading --------------------------------------------------------------------------------- */

static cJSON *parse(const char *text)
{
    cJSON *v;
    struct err e = {0};
    if (json_parse(&v, text, strlen(text), &e) < 0)
        fail_msg("%s: %s", text, e.msg);
    return v;
}

static void read_refused(const char *text, int rc, const char *says)
{
    struct arch_config c;
    struct err e = {0};
    cJSON *v = parse(text);
    int got = apr_meta_read(v, &c, &e);
    if (got != rc || !strstr(e.msg, says))
        fail_msg("%s: expected %s \"%s\", got %d \"%s\"", text, err_name(rc), says, got, e.msg);
    assert_null(c.n_head);
    cJSON_Delete(v);
}

#define DIMS "\"hidden_size\":64,\"num_layers\":2,\"num_heads\":4,\"intermediate_size\":128"

static void apr_meta_read_names_what_is_missing(void **state)
{
    (void)state;
    read_refused("{}", -ENOENT, "architecture");
    read_refused("{\"architecture\":null," DIMS "}", -ENOENT, "architecture");
    read_refused("{\"architecture\":\"llama\"}", -ENOENT, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2}", -ENOENT, "hidden_size");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2,\"hidden_size\":64}", -ENOENT,
                 "num_heads");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2,\"hidden_size\":64,\"num_heads\":4}",
                 -ENOENT, "intermediate_size");
}

static void apr_meta_read_refuses_wrong_types(void **state)
{
    (void)state;
    /* apr-v2.md §3.1: types are strict */
    read_refused("{\"architecture\":\"llama\",\"num_layers\":2.5}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":\"2\"}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":-2}", -EUCLEAN, "num_layers");
    read_refused("{\"architecture\":\"llama\",\"num_layers\":5000}", -ERANGE, "num_layers");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rms_norm_eps\":\"x\"}", -EUCLEAN,
                 "rms_norm_eps");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rms_norm_eps\":1e-11}", -ENOTSUP,
                 "epsilon");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rope_theta\":0}", -ENOTSUP, "rope_theta");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"rope_type\":1}", -EUCLEAN, "rope_type");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"num_kv_heads\":3}", -EUCLEAN, "heads");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"hidden_dim\":65}", -EUCLEAN, "disagree");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"aprfs.config\":[]}", -EUCLEAN,
                 "aprfs.config");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"tokenizer.bos_token_id\":-2}", -EUCLEAN,
                 "bos_token_id");
    read_refused("{\"architecture\":\"llama\"," DIMS ",\"vocab_size\":4294967296}", -EUCLEAN,
                 "vocab_size");
    read_refused("{\"architecture\":\"llama\",\"hidden_size\":0,\"num_layers\":2,\"num_heads\":4,"
                 "\"intermediate_size\":128}",
                 -EUCLEAN, "embedding_length");
}

static void apr_meta_read_of_ours_needs_every_field(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct arch_open a;
    struct written w;
    open_write(&a, &w, b);
    cJSON *config = cJSON_GetObjectItemCaseSensitive(w.json, "aprfs.config");
    int n = cJSON_GetArraySize(config);
    assert_true(n > 30);
    for (int i = 0; i < n; i++) {
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        cJSON *cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
        char name[64];
        struct arch_config c;
        struct err e = {0};
        snprintf(name, sizeof name, "%s", cJSON_GetArrayItem(config, i)->string);
        cJSON_DeleteItemFromArray(cc, i);
        int rc = apr_meta_read(copy, &c, &e); /* what has a canonical key may stand there */
        if (rc != -ENOENT)
            fail_msg("without %s: %d %s", name, rc, e.msg);
        cJSON_AddStringToObject(cc, name, "?");
        rc = apr_meta_read(copy, &c, &e);
        if (rc != -EUCLEAN || !strstr(e.msg, name))
            fail_msg("%s = \"?\": %d %s", name, rc, e.msg);
        cJSON_Delete(copy);
    }
    static const char *const need[] = {"hidden_size", "num_layers", "rope_type", "rms_norm_eps",
                                       "rope_theta",  "head_dim",   "vocab_size"};
    for (size_t i = 0; i < sizeof need / sizeof need[0]; i++) {
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        struct arch_config c;
        struct err e = {0};
        cJSON_DeleteItemFromObjectCaseSensitive(copy, need[i]);
        assert_int_equal(apr_meta_read(copy, &c, &e), -ENOENT);
        assert_non_null(strstr(e.msg, need[i]));
        cJSON_Delete(copy);
    }
    static const char *const twice[] = {"n_layer", "n_embd", "norm_eps", "bos", "add_bos", "n_ff"};
    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++) { /* beside the canonical key */
        cJSON *copy = cJSON_Duplicate(w.json, 1);
        struct arch_config c;
        struct err e = {0};
        cJSON *cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
        if (strcmp(twice[i], "add_bos") == 0)
            cJSON_AddBoolToObject(cc, twice[i], true);
        else
            cJSON_AddNumberToObject(cc, twice[i], 1);
        assert_int_equal(apr_meta_read(copy, &c, &e), -EUCLEAN);
        assert_non_null(strstr(e.msg, twice[i]));
        cJSON_Delete(copy);
    }
    cJSON *copy = cJSON_Duplicate(w.json, 1), *cc;
    cc = cJSON_GetObjectItemCaseSensitive(copy, "aprfs.config");
    cJSON_AddNumberToObject(cc, "attn_temperature", 3.5); /* what some later builder may write */
    struct err later = {0};
    assert_int_equal(apr_meta_read(copy, &(struct arch_config){0}, &later), -ENOTSUP);
    assert_non_null(strstr(later.msg, "aprfs.config.attn_temperature"));
    cJSON_Delete(copy);
    cJSON_AddStringToObject(config, "rope", "neox"); /* beside rope_type 0 */
    struct arch_config c;
    struct err e = {0};
    assert_int_equal(apr_meta_read(w.json, &c, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "disagree"));
    written_free(&w);
    arch_open_release(&a);
    gguf_build_free(b);
}

static struct apr *open_fixture(const char *name, struct source **src)
{
    char *path = path_join("tests/data", name);
    struct apr *a;
    struct err e = {0};
    if (source_open(src, path, &e) < 0 || apr_open(&a, *src, &e) < 0)
        fail_msg("%s: %s", path, e.msg);
    free(path);
    return a;
}

static void apr_meta_reads_the_original_writers(void **state)
{
    (void)state;
    struct source *src;
    struct arch_config c;
    struct err e = {0};
    struct apr *a = open_fixture("aprender-writer.apr", &src);
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), 0);
    assert_string_equal(c.arch, "llama"); /* the numbers: its JSON, as it stands in the file */
    assert_int_equal(c.n_embd, 256);
    assert_int_equal(c.n_layer, 1);
    assert_int_equal(c.n_head[0], 4);
    assert_int_equal(c.n_head_kv[0], 2);
    assert_int_equal(c.n_vocab, 4);
    assert_int_equal(c.n_ff[0], 256);
    assert_int_equal(c.n_ctx_train, 64);
    assert_int_equal(c.head_dim_k, 64);
    assert_int_equal(c.rope, ARCH_ROPE_NORM);
    assert_true(c.rope_theta == 10000 && c.norm_eps == 1e-5F);
    assert_int_equal(c.bos, 1);
    assert_int_equal(c.eos, 2);
    arch_config_release(&c);
    apr_close(a);
    source_close(src);

    a = open_fixture("q4k-converter-output.apr", &src); /* Hugging Face's spellings */
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), 0);
    assert_int_equal(c.n_layer, 1);
    assert_int_equal(c.n_head[0], 4);
    assert_int_equal(c.n_head_kv[0], 2);
    /* The same GGUF through our resolver: what both carry is equal (arch-resolver.md §3). */
    struct arch_open o;
    arch_open_path(&o, "tests/data/q4k-converter-input.gguf");
    assert_int_equal(o.rc, 0);
    static const enum arch_fid same[] = {
        ARCH_F_N_EMBD,     ARCH_F_N_LAYER,    ARCH_F_N_HEAD, ARCH_F_N_HEAD_KV,  ARCH_F_N_VOCAB,
        ARCH_F_N_FF,       ARCH_F_HEAD_DIM_K, ARCH_F_ROPE,   ARCH_F_ROPE_THETA, ARCH_F_NORM_EPS,
        ARCH_F_ATTN_SCALE, ARCH_F_N_CTX,      ARCH_F_BOS,    ARCH_F_EOS};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        if (!arch_field_equal(&c, &o.c, same[i]))
            fail_msg("%s differs", arch_fields[same[i]].name);
    arch_open_release(&o);
    arch_config_release(&c);
    apr_close(a);
    source_close(src);

    a = open_fixture("tiny.apr", &src); /* all dimensions null */
    assert_int_equal(apr_meta_read(apr_meta(a), &c, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "num_layers"));
    apr_close(a);
    source_close(src);
}

static void apr_meta_fills_others_files_from_the_row(void **state)
{
    (void)state;
    struct arch_config c;
    struct err e = {0};
    cJSON *v = parse("{\"architecture\":\"gemma2\",\"num_hidden_layers\":2,\"d_model\":64,"
                     "\"n_head\":4,\"ffn_dim\":128,\"n_ctx\":100,\"head_dim\":32,\"n_vocab\":9}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_true(c.norm_eps == 1e-6F);                        /* §8.3 */
    assert_int_equal(c.rope, ARCH_ROPE_NEOX);                /* the row */
    assert_true(c.embed_scale == 8 && c.attn_softcap == 50); /* the row */
    assert_int_equal(c.n_head_kv[0], 4);                     /* as many as heads */
    assert_int_equal(c.head_dim_k, 32);                      /* not n_embd / n_head */
    assert_int_equal(c.act, ARCH_ACT_GELU);
    assert_int_equal(c.sliding_window, 4096);
    assert_int_equal(c.n_vocab, 9);
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"architecture\":\"qwen2\"," DIMS "}"); /* their readers take 1e6 (§1) */
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_true(c.rope_theta == 1e6F && c.rope_theta_swa == 1e6F && c.norm_eps == 1e-6F);
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"model_type\":\"llama\"," DIMS ",\"rope_type\":2}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_int_equal(c.rope, ARCH_ROPE_NEOX); /* the key, not the row */
    arch_config_release(&c);
    cJSON_Delete(v);
    v = parse("{\"architecture\":\"neverheard\"," DIMS "}");
    assert_int_equal(apr_meta_read(v, &c, &e), 0);
    assert_false(c.known);
    arch_config_release(&c);
    cJSON_Delete(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apr_meta_read_names_what_is_missing),
        cmocka_unit_test(apr_meta_read_refuses_wrong_types),
        cmocka_unit_test(apr_meta_read_of_ours_needs_every_field),
        cmocka_unit_test(apr_meta_reads_the_original_writers),
        cmocka_unit_test(apr_meta_fills_others_files_from_the_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
