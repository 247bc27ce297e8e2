/* Tokens against llama.cpp's: its own vocabulary vectors, and random lines under every known
 * pre-tokenizer (tests/data/README.md says how both came about). */
#include "format/bytes.h"
#include "format/model_file.h"
#include "format/pretok.h"
#include "infer/text/tokenizer.h"
#include "tests/support.h"
#include "tests/token_fixture.h"

/* name may be asked for many times in a row: its metadata is read once. NULL forgets it. */
static struct tokenizer *fixture(const char *name, const char *pre)
{
    static cJSON *meta;
    static char held[256];
    if (!name || strcmp(held, name) != 0) {
        cJSON_Delete(meta);
        meta = name ? fixture_meta(name) : NULL;
        snprintf(held, sizeof held, "%s", name ? name : "");
    }
    if (!name)
        return NULL;
    struct tokenizer *t = NULL;
    struct err e = {0};
    if (tokenizer_new(&t, meta, pre, &e) < 0)
        fail_msg("%s: %s", name, e.msg);
    return t;
}

static void check(const struct tokenizer *t, const char *what, const char *text, size_t len,
                  unsigned flags, const int32_t *want, size_t n_want)
{
    uint8_t *guarded = guard_new(text, len);
    int32_t *ids;
    size_t n;
    struct err e = {0};
    if (tokenizer_encode(t, (char *)guarded, len, flags, &ids, &n, &e) < 0)
        fail_msg("%s: '%.*s': %s", what, (int)len, text, e.msg);
    guard_free(guarded, len);
    size_t i = 0;
    while (i < n && i < n_want && ids[i] == want[i])
        i++;
    if (i < n || i < n_want)
        fail_msg("%s, flags %u: '%.*s': id %zu is %d of %zu, want %d of %zu", what, flags, (int)len,
                 text, i, i < n ? ids[i] : -1, n, i < n_want ? want[i] : -1, n_want);
    free(ids);
}

/* <name>.out: a line of ids for each text of ggml-vocab.inp (llama.cpp, models/). */
static void check_reference_file(const char *name)
{
    char path[128];
    snprintf(path, sizeof path, "tests/data/%s.out", name);
    size_t len;
    char *out = gunzip_file(path, &len), *in = gunzip_file("tests/data/ggml-vocab.inp", &len);
    struct tokenizer *t = fixture(name, NULL);
    static const char sep[] = "\n__ggml_vocab_test__\n";
    size_t n_text = 0;
    char *line = out;
    for (char *text = in, *end; (end = strstr(text, sep)); text = end + sizeof sep - 1) {
        int32_t want[512];
        size_t n = 0;
        char *nl = strchr(line, '\n');
        *nl = 0;
        for (char *p = line, *q; n < 512; p = q) {
            long id = strtol(p, &q, 10);
            if (q == p)
                break;
            want[n++] = (int32_t)id;
        }
        check(t, name, text, (size_t)(end - text), 0, want, n);
        line = nl + 1;
        n_text++;
    }
    assert_true(n_text >= 45); /* ggml-vocab.inp has 47 texts, the last without a separator */
    tokenizer_free(t);
    fixture(NULL, NULL);
    free(in);
    free(out);
}

static void tokenizer_encode_gpt2_vocab(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    check_reference_file("ggml-vocab-gpt-2.gguf");
}

static void tokenizer_encode_llama_spm_vocab(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    check_reference_file("ggml-vocab-llama-spm.gguf");
}

static void tokenizer_encode_phi3_vocab(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    check_reference_file("ggml-vocab-phi-3.gguf");
}

static void tokenizer_encode_every_pretokenizer(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    size_t len;
    char *p = gunzip_file("tests/data/token_vectors.gz", &len);
    struct cursor c = cursor_over(p, len);
    unsigned n_pre = 0, n_line = 0;
    while (cursor_left(&c) > 0 && !c.bad) {
        char name[256] = "", pre[256] = "", what[600];
        uint8_t k = cursor_u8(&c);
        memcpy(name, cursor_take(&c, k), k);
        k = cursor_u8(&c);
        memcpy(pre, cursor_take(&c, k), k);
        unsigned flags = cursor_u8(&c), lines = cursor_u16(&c);
        snprintf(what, sizeof what, "%s %s", name, pre);
        struct tokenizer *t = fixture(name, *pre ? pre : NULL);
        n_pre += *pre != 0;
        for (unsigned i = 0; i < lines && !c.bad; i++, n_line++) {
            int32_t want[4096];
            uint16_t n_text = cursor_u16(&c);
            const char *text = (const char *)cursor_take(&c, n_text);
            uint16_t n = cursor_u16(&c);
            assert_true(n <= 4096);
            for (uint16_t q = 0; q < n; q++)
                want[q] = cursor_u16(&c);
            check(t, what, text, n_text, flags, want, n);
        }
        tokenizer_free(t);
    }
    assert_false(c.bad);
    unsigned known = 0;
    while (pretok_at(known))
        known++;
    assert_int_equal(n_pre, known); /* no name without its vectors */
    assert_true(n_line >= 4000);
    fixture(NULL, NULL);
    free(p);
}

/* Ids: llama_tokenize on the same file, October 2026 (scripts/check_tokens does 10,000 lines). The
 * way here is the product's: file, virtual APR, metadata, tokenizer. */
static const struct real {
    const char *file, *text;
    unsigned flags;
    int32_t want[24];
    int32_t ends[8]; /* llama_vocab_is_eog is true for these alone; -1 ends the list */
} reals[] = {
#include "tests/token_reals.h"
};

static void tokenizer_encode_real_models(void **state)
{
    (void)state;
    skip_under_tsan("starts no thread");
    const char *open = "";
    unsigned n_file = 0;
    struct tokenizer *t = NULL;
    for (size_t i = 0; i < sizeof reals / sizeof *reals; i++) {
        const struct real *r = &reals[i];
        char *path = real_model(r->file);
        if (path && strcmp(open, r->file) != 0) {
            struct model_file *m = NULL;
            struct err e = {0};
            tokenizer_free(t);
            t = NULL;
            if (model_file_open(&m, path, &e) < 0 ||
                tokenizer_new(&t, apr_meta(model_file_apr(m)), NULL, &e) < 0)
                fail_msg("%s: %s", path, e.msg);
            model_file_close(m);
            open = r->file;
            n_file++;
            for (uint32_t id = 0; id < tokenizer_n_vocab(t); id++) {
                bool want = false;
                for (int k = 0; r->ends[k] >= 0; k++)
                    want |= r->ends[k] == (int32_t)id;
                if (tokenizer_is_end(t, (int32_t)id) != want)
                    fail_msg("%s: token %u ends: %d", r->file, id, !want);
            }
        }
        free(path);
        if (!path)
            continue;
        size_t n = 0;
        while (n < 24 && r->want[n] >= 0)
            n++;
        check(t, r->file, r->text, strlen(r->text), r->flags, r->want, n);
    }
    tokenizer_free(t);
    if (n_file == 0)
        skip_because("no real model in the folder of APRFS_MODELS");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizer_encode_gpt2_vocab),
        cmocka_unit_test(tokenizer_encode_llama_spm_vocab),
        cmocka_unit_test(tokenizer_encode_phi3_vocab),
        cmocka_unit_test(tokenizer_encode_every_pretokenizer),
        cmocka_unit_test(tokenizer_encode_real_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
