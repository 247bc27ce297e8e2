/* GGUFs that must be refused: the malformed corpus by name, every truncation, every failing read. */
#include "format/gguf.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <errno.h>
#include <inttypes.h>

/* Every accessor over a handle that opened: with ASan and guard pages, a read too far is a crash. */
static uint64_t touch(const struct gguf *g)
{
    uint64_t sum = gguf_version(g);
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        const struct gguf_key *k = gguf_key(g, i);
        for (size_t j = 0; j < k->data_len; j++)
            sum += k->data[j];
        struct gguf_key el;
        for (size_t pos = 0; gguf_next_elem(k, &pos, &el);)
            sum += el.data_len + el.n;
    }
    for (size_t i = 0; i < gguf_n_tensor(g); i++)
        sum += gguf_tensor(g, i)->name.len + gguf_tensor(g, i)->size;
    return sum;
}

/* Opens the case's parts, each a buffer that ends at an unmapped page with zeros after it. */
static int open_bad(const struct gguf_bad *bad, struct err *e, uint64_t *bytes_read)
{
    struct faulty f[4];
    struct source *src[4];
    struct buf b[4];
    int n = bad->n_part ? bad->n_part : 1;
    for (int i = 0; i < n; i++) {
        char name[32];
        uint64_t size = 0;
        b[i] = (struct buf){0};
        bad->build(&b[i], i, &size);
        f[i] = (struct faulty){.p = guard_new(b[i].p, b[i].len), .len = b[i].len, .fail_at = -1};
        snprintf(name, sizeof name, "part%d", i);
        src[i] = faulty_source(&f[i], size ? size : b[i].len, name);
    }
    struct gguf *g = NULL;
    int rc = gguf_open(&g, src, n, e);
    assert_true(rc < 0 ? g == NULL : g != NULL);
    gguf_close(g);
    *bytes_read = 0;
    for (int i = 0; i < n; i++) {
        source_close(src[i]);
        guard_free((uint8_t *)(uintptr_t)f[i].p, b[i].len);
        *bytes_read += f[i].bytes_read;
        buf_free(&b[i]);
    }
    return rc;
}

static void gguf_rejects_each_malformed_file_by_name(void **state)
{
    (void)state;
    double worst = 0;
    const char *slowest = "";
    for (size_t i = 0; i < gguf_n_bad_cases; i++) {
        const struct gguf_bad *bad = &gguf_bad_cases[i];
        struct err e = {0};
        uint64_t n;
        double t = now_ms();
        int rc = open_bad(bad, &e, &n);
        t = now_ms() - t;
        if (t > worst) {
            worst = t;
            slowest = bad->name;
        }
        if (rc != bad->rc || e.code != rc || !strstr(e.msg, bad->says) ||
            strncmp(e.msg, "part", 4) != 0)
            fail_msg("%s: %s '%s'; expected %s '%s'", bad->name, err_name(rc), e.msg,
                     err_name(bad->rc), bad->says);
        if (n > 4 << 20) /* refused from its first bytes, whatever it claims of itself */
            fail_msg("%s: %" PRIu64 " bytes were read", bad->name, n);
    }
    printf("# %zu malformed files, slowest %.2f ms (%s)\n", gguf_n_bad_cases, worst, slowest);
}

/* A small file of every value type, nested arrays and two tensors. */
static uint8_t *small_file(size_t *len)
{
    struct gguf_build *b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    gguf_build_bool(b, "llama.flag", true);
    gguf_build_array(b, "llama.list", 4, (uint32_t[]){1, 2, 3}, 3);
    gguf_build_array_str(b, "llama.words", (const char *const[]){"a", "", "ccc"}, 3);
    struct buf nest = {0};
    buf_u32(&nest, 9);
    buf_u64(&nest, 2);
    for (int i = 0; i < 2; i++) {
        buf_u32(&nest, 8);
        buf_u64(&nest, 1);
        buf_str(&nest, "in");
    }
    gguf_build_raw(b, "llama.nest", 9, nest.p, nest.len);
    buf_free(&nest);
    gguf_build_f64(b, "llama.number", 0.5);
    gguf_build_tensor_1d(b, "a", 0, 3);
    gguf_build_tensor_2d(b, "b", 2, 32, 2);
    uint8_t *p = gguf_build_bytes(b, len);
    gguf_build_free(b);
    return p;
}

static void gguf_rejects_a_file_cut_at_every_byte(void **state)
{
    (void)state;
    size_t len;
    uint8_t *p = small_file(&len);
    /* The last tensor's 36 bytes (two Q4_0 blocks of 18) are padded to 64: the last 28 are not
     * needed. */
    for (size_t cut = 0; cut <= len; cut++) {
        uint8_t *q = guard_new(p, cut);
        struct source *s = mem_source(q, cut, "cut");
        struct gguf *g = NULL;
        struct err e = {0};
        int rc = gguf_open(&g, &s, 1, &e);
        int expected = cut < len - 28 ? -EAGAIN : 0;
        if (rc != expected)
            fail_msg("cut at %zu of %zu: %s '%s'", cut, len, err_name(rc), e.msg);
        if (rc < 0) {
            char has[64];
            snprintf(has, sizeof has, "has %zu", cut);
            assert_non_null(strstr(e.msg, has));
        } else {
            touch(g);
        }
        gguf_close(g);
        source_close(s);
        guard_free(q, cut);
    }
    free(p);
}

/* Each byte of the head set to each of some values: any answer but a crash, and what opens can be
 * walked. */
static void gguf_survives_every_changed_byte(void **state)
{
    (void)state;
    static const uint8_t values[] = {0x00, 0x01, 0x09, 0x7f, 0x80, 0xff};
    size_t len, opened = 0, refused = 0;
    uint8_t *p = small_file(&len);
    for (size_t at = 0; at < len; at++) {
        for (size_t v = 0; v < sizeof values; v++) {
            uint8_t old = p[at];
            p[at] = values[v];
            uint8_t *q = guard_new(p, len);
            p[at] = old;
            struct source *s = mem_source(q, len, "changed");
            struct gguf *g = NULL;
            struct err e = {0};
            int rc = gguf_open(&g, &s, 1, &e);
            if (rc == 0) {
                touch(g);
                opened++;
            } else {
                assert_true(rc == -EUCLEAN || rc == -ENOTSUP || rc == -ERANGE || rc == -EAGAIN);
                assert_int_equal(e.code, rc);
                assert_non_null(strstr(e.msg, "changed: "));
                refused++;
            }
            gguf_close(g);
            source_close(s);
            guard_free(q, len);
        }
    }
    assert_true(opened > 0 && refused > 0);
    free(p);
}

static void gguf_reports_the_failing_read(void **state)
{
    (void)state;
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    struct buf pad = {0}; /* 5 MiB of one key: windows of 1, then what that key needs, ... */
    for (int i = 0; i < 5 << 18; i++)
        buf_u32(&pad, (uint32_t)i);
    gguf_build_array(b, "llama.pad", 0, pad.p, pad.len);
    buf_free(&pad);
    size_t len;
    uint8_t *p = gguf_build_bytes(b, &len);
    gguf_build_free(b);

    struct faulty f = {.p = p, .len = len, .fail_at = -1};
    struct source *s = faulty_source(&f, len, "whole");
    struct gguf *g = NULL;
    assert_int_equal(gguf_open(&g, &s, 1, NULL), 0);
    gguf_close(g);
    source_close(s);
    int n_read = f.n_read;
    assert_true(n_read >= 2);
    static const int codes[] = {-EIO, -ENOMEM, -ESTALE};
    for (int i = 0; i < n_read; i++) {
        for (size_t c = 0; c < sizeof codes / sizeof *codes; c++) {
            f = (struct faulty){.p = p, .len = len, .fail_at = i, .rc = codes[c]};
            s = faulty_source(&f, len, "faulty");
            struct err e = {0};
            g = NULL;
            assert_int_equal(gguf_open(&g, &s, 1, &e), codes[c]);
            assert_null(g);
            assert_int_equal(f.n_read, i + 1); /* and nothing is read after it */
            assert_non_null(strstr(e.msg, "injected fault"));
            source_close(s);
        }
    }
    free(p);
}

static void gguf_open_path_names_the_missing_shard(void **state)
{
    (void)state;
    char *dir = temp_dir();
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_files(b, dir, "m", 3);
    gguf_build_free(b);
    char *second = path_join(dir, "m-00002-of-00003.gguf");
    char *third = path_join(dir, "m-00003-of-00003.gguf");
    remove(third);
    struct gguf *g = NULL;
    struct err e = {0};
    assert_int_equal(gguf_open_path(&g, second, &e), -ENOENT);
    assert_null(g);
    assert_non_null(strstr(e.msg, third));
    /* a shard under a name that does not say so */
    char *alone = path_join(dir, "alone.gguf");
    assert_int_equal(rename(second, alone), 0);
    assert_int_equal(gguf_open_path(&g, alone, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "alone.gguf: split.count is 3, 1 given: shard 00001-of-00003"));
    assert_int_equal(gguf_open_path(&g, dir, &e), -EINVAL);
    free(alone);
    free(third);
    free(second);
    free(dir);
}

static void gguf_open_refuses_absurd_part_counts(void **state)
{
    (void)state;
    struct source *s = mem_source("GGUF", 4, "x");
    struct gguf *g = NULL;
    struct err e = {0};
    assert_int_equal(gguf_open(&g, &s, 0, &e), -EINVAL);
    assert_int_equal(gguf_open(&g, &s, -1, &e), -EINVAL);
    assert_int_equal(gguf_open(&g, &s, GGUF_MAX_PARTS + 1, &e), -ERANGE);
    assert_int_equal(gguf_open_path(&g, "/nowhere/m-00001-of-99999.gguf", &e), -ERANGE);
    assert_null(g);
    source_close(s);
}

/* Every head is under the limit, but not all together: sparse files cost their maker nothing. The
 * fourth is not even looked at. */
static void gguf_open_bounds_the_heads_of_all_parts(void **state)
{
    (void)state;
    enum { N = 4 };
    struct buf b = {0};
    buf_put(&b, "GGUF", 4);
    buf_u32(&b, 3);
    buf_u64(&b, 0);
    buf_u64(&b, 1);
    buf_str(&b, "x");
    buf_u32(&b, GGUF_ARRAY);
    buf_u32(&b, GGUF_U8);
    buf_u64(&b, GGUF_MAX_HEAD / 5 * 2);
    struct faulty f[N];
    struct source *src[N];
    for (int i = 0; i < N; i++) {
        f[i] = (struct faulty){.p = b.p, .len = b.len, .fail_at = -1};
        src[i] = faulty_source(&f[i], GGUF_MAX_HEAD / 2, "part");
    }
    struct gguf *g = NULL;
    struct err e = {0};
    assert_int_equal(gguf_open(&g, src, N, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "heads of 3 parts"));
    assert_null(g);
    assert_int_equal(f[3].bytes_read, 0);
    for (int i = 0; i < N; i++)
        source_close(src[i]);
    buf_free(&b);
}

/* The limit is inclusive, the order of keys is free, and 65,536 long names that differ in their last
 * bytes take no quadratic time (the malformed corpus has the case of one more). */
static void gguf_opens_as_many_keys_as_the_limit(void **state)
{
    (void)state;
    struct buf b = {0};
    buf_put(&b, "GGUF", 4);
    buf_u32(&b, 3);
    buf_u64(&b, 0);
    buf_u64(&b, GGUF_MAX_KEYS);
    char name[101];
    memset(name, 'k', sizeof name);
    for (uint32_t i = 0; i < GGUF_MAX_KEYS; i++) {
        snprintf(name + 90, sizeof name - 90, "%09u", i ^ 0x5555u);
        buf_str(&b, name);
        buf_u32(&b, 4);
        buf_u32(&b, i);
    }
    struct source *s = mem_source(b.p, b.len, "keys");
    struct gguf *g = NULL;
    struct err e = {0};
    double t = now_ms();
    assert_int_equal(gguf_open(&g, &s, 1, &e), 0);
    printf("# %d keys opened in %.1f ms\n", GGUF_MAX_KEYS, now_ms() - t);
    for (uint32_t i = 0; i < GGUF_MAX_KEYS; i += 977) {
        uint64_t v;
        snprintf(name + 90, sizeof name - 90, "%09u", i ^ 0x5555u);
        assert_true(gguf_as_u64(gguf_find(g, name), &v));
        assert_int_equal(v, i);
    }
    gguf_close(g);
    source_close(s);
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_rejects_each_malformed_file_by_name),
        cmocka_unit_test(gguf_rejects_a_file_cut_at_every_byte),
        cmocka_unit_test(gguf_survives_every_changed_byte),
        cmocka_unit_test(gguf_reports_the_failing_read),
        cmocka_unit_test(gguf_open_path_names_the_missing_shard),
        cmocka_unit_test(gguf_open_refuses_absurd_part_counts),
        cmocka_unit_test(gguf_open_bounds_the_heads_of_all_parts),
        cmocka_unit_test(gguf_opens_as_many_keys_as_the_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
