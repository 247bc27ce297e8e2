/* model_file.h: one face over .apr and .gguf. */
#include "format/model_file.h"

#include "format/quant.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>

static struct model_file *open_ok(const char *path)
{
    struct model_file *m = NULL;
    struct err e = {0};
    if (model_file_open(&m, path, &e) < 0)
        fail_msg("%s", e.msg);
    return m;
}

static void expect_refusal(const char *path, int want, const char *says)
{
    struct model_file *m = NULL;
    struct err e = {0};
    int rc = model_file_open(&m, path, &e);
    if (rc != want || m || !strstr(e.msg, says) || !strstr(e.msg, path))
        fail_msg("%s: %d '%s', expected %d '...%s...'", path, rc, e.msg, want, says);
}

/* Every tensor of b, by name and byte for byte, in its own type: profile native. */
static void expect_tensors(const struct model_file *m, const struct gguf_build *b)
{
    struct apr *a = model_file_apr(m);
    for (size_t i = 0; i < gguf_build_n_tensor(b); i++) {
        const char *name = gguf_build_tensor_name(b, i);
        const struct apr_tensor *t = apr_find(a, name);
        size_t len;
        const uint8_t *want = gguf_build_tensor_data(b, name, &len);
        if (!t || t->size != len)
            fail_msg("%s is missing or has another size", name);
        uint8_t *got = malloc(len);
        assert_int_equal(source_read(apr_source(a), got, t->off, len, NULL), 0);
        assert_memory_equal(got, want, len);
        free(got);
    }
}

static void model_file_opens_apr(void **state)
{
    (void)state;
    const char *path = "tests/data/aprender-writer.apr";
    struct model_file *m = open_ok(path);
    assert_false(model_file_is_gguf(m));
    assert_string_equal(model_file_path(m), path);
    assert_int_equal(apr_n_tensor(model_file_apr(m)), 12);
    model_file_close(m);
}

static void model_file_opens_gguf_and_shards(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("qwen2");
    o.type = 8;
    struct gguf_build *b = gguf_build_llama_like("qwen2", &o);
    char *dir = temp_dir();
    gguf_build_files(b, dir, "one", 0);
    gguf_build_files(b, dir, "many", 3);
    static const char *const names[] = {"one.gguf", "many-00001-of-00003.gguf"};
    for (int i = 0; i < 2; i++) {
        char *path = path_join(dir, names[i]);
        struct model_file *m = open_ok(path);
        assert_true(model_file_is_gguf(m));
        assert_string_equal(model_file_path(m), path);
        assert_int_equal(apr_find(model_file_apr(m), "blk.0.attn_q.weight")->type, QUANT_Q8_0);
        assert_string_equal(json_text(json_get(apr_meta(model_file_apr(m)), "architecture")),
                            "qwen2");
        expect_tensors(m, b);
        model_file_close(m);
        free(path);
    }
    char *lost = path_join(dir, "many-00002-of-00003.gguf");
    char *first = path_join(dir, names[1]);
    assert_int_equal(remove(lost), 0);
    struct model_file *m = NULL;
    struct err e = {0};
    assert_int_equal(model_file_open(&m, first, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "many-00002-of-00003.gguf"));
    free(lost);
    free(first);
    free(dir);
    gguf_build_free(b);
}

/* A loader that checks its source after the last byte learns that a shard changed meanwhile. */
static void model_file_notices_changed_gguf(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    char *dir = temp_dir(), *last = path_join(dir, "m-00002-of-00002.gguf");
    char *first = path_join(dir, "m-00001-of-00002.gguf");
    gguf_build_files(b, dir, "m", 2);
    struct model_file *m = open_ok(first);
    struct source *s = apr_source(model_file_apr(m));
    struct err e = {0};
    assert_int_equal(source_check(s, &e), 0);
    FILE *f = fopen(last, "ab");
    assert_non_null(f);
    fputc(0, f);
    fclose(f);
    assert_int_equal(source_check(s, &e), -ESTALE);
    assert_non_null(strstr(e.msg, "m-00002-of-00002.gguf"));
    model_file_close(m);
    free(first);
    free(last);
    free(dir);
    gguf_build_free(b);
}

/* The magic decides: names may lie. */
static void model_file_looks_at_magic(void **state)
{
    (void)state;
    char *dir = temp_dir(), *gguf = path_join(dir, "really-a-gguf.apr");
    char *apr = path_join(dir, "really-an-apr.gguf");
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_file(b, gguf);
    struct model_file *m = open_ok(gguf);
    assert_true(model_file_is_gguf(m));
    expect_tensors(m, b);
    model_file_close(m);
    size_t len;
    uint8_t *p = file_read("tests/data/tiny.apr", &len);
    file_write(apr, p, len);
    m = open_ok(apr);
    assert_false(model_file_is_gguf(m));
    model_file_close(m);
    free(p);
    free(apr);
    free(gguf);
    free(dir);
    gguf_build_free(b);
}

static void model_file_refuses_by_name(void **state)
{
    (void)state;
    char *dir = temp_dir();
    static const struct {
        const char *name;
        const char *bytes;
        size_t len;
        int rc;
        const char *says;
    } t[] = {
        {"empty.apr", "", 0, -EUCLEAN, "0 bytes"},
        {"short.gguf", "GGU", 3, -EUCLEAN, "3 bytes"},
        {"zip.apr", "PK\3\4....", 8, -ENOTSUP, "50 4b 03 04"},
        {"v1.apr", "APRN............................................................", 64, -ENOTSUP,
         "'APRN'"},
        {"cut.apr", "APR\0", 4, -EUCLEAN, "header"},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        char *path = path_join(dir, t[i].name);
        file_write(path, t[i].bytes, t[i].len);
        expect_refusal(path, t[i].rc, t[i].says);
        free(path);
    }
    char *cut = path_join(dir, "cut.gguf");
    file_write(cut, "GGUF\3\0\0\0", 8);
    struct model_file *m = NULL;
    assert_true(model_file_open(&m, cut, NULL) < 0); /* e may be NULL */
    assert_null(m);
    expect_refusal(dir, -EINVAL, "not a regular file");
    char *none = path_join(dir, "none.apr");
    expect_refusal(none, -ENOENT, "No such file");
    model_file_close(NULL);
    free(none);
    free(cut);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_file_opens_apr),
        cmocka_unit_test(model_file_opens_gguf_and_shards),
        cmocka_unit_test(model_file_notices_changed_gguf),
        cmocka_unit_test(model_file_looks_at_magic),
        cmocka_unit_test(model_file_refuses_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
