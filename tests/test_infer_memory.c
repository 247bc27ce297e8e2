/* What memory there is, read from made-up /proc and /sys trees; and that a model which needs more is
 * refused with every number before its weights are read. */
#include "infer/engine.h"
#include "infer/memory.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#define MIB (UINT64_C(1) << 20)

/* Writes root/path, with its folders. */
static void put_file(const char *root, const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s%s", root, path);
    for (char *s = full + strlen(root) + 1; (s = strchr(s, '/')); s++) {
        *s = 0;
        mkdir(full, 0700);
        *s = '/';
    }
    file_write(full, text, strlen(text));
}

static void memory_is_what_the_machine_has(void **state)
{
    (void)state;
    char *root = temp_dir();
    assert_true(memory_available(root) == UINT64_MAX);
    put_file(root, "/proc/meminfo",
             "MemTotal: 9000 kB\nMemFree: 10 kB\nMemAvailable:    8192 kB\nSwapFree: 77 kB\n");
    assert_true(memory_available(root) == 8 * MIB);
    free(root);
}

/* Hand-computed: limit - (usage - file cache), the smallest of the group and its parents. */
static void memory_is_what_the_cgroups_leave(void **state)
{
    (void)state;
    char *root = temp_dir();
    put_file(root, "/proc/meminfo", "MemAvailable: 8192 kB\n");
    put_file(root, "/proc/self/cgroup", "1:cpu:/\n0::/a/b\n");
    put_file(root, "/sys/fs/cgroup/a/b/memory.max", "max\n");
    put_file(root, "/sys/fs/cgroup/a/b/memory.current", "999999999\n");
    assert_true(memory_available(root) == 8 * MIB);
    put_file(root, "/sys/fs/cgroup/a/memory.max", "5000000\n");
    put_file(root, "/sys/fs/cgroup/a/memory.current", "3000000\n");
    put_file(root, "/sys/fs/cgroup/a/memory.stat",
             "anon 1\nfile 700000\ninactive_file 400000\nactive_file 200000\n");
    assert_true(memory_available(root) == 2600000);
    put_file(root, "/sys/fs/cgroup/a/memory.current", "7000000\n"); /* over its limit */
    assert_true(memory_available(root) == 0);
    put_file(root, "/proc/self/cgroup", "4:memory:/\n0::/\n"); /* v1, seen from inside */
    put_file(root, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n");
    put_file(root, "/sys/fs/cgroup/memory/memory.usage_in_bytes", "300000\n");
    put_file(root, "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\n");
    assert_true(memory_available(root) == 800000);
    free(root);
}

static void memory_too_small_is_refused_with_the_numbers(void **state)
{
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "m.gguf"), text[64];
    struct gguf_build *b = tiny_model("llama");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct engine g;
    struct err e = {0};
    struct engine_options opt = {
        .parts = ENGINE_WEIGHTS | ENGINE_TOKENIZER, .n_thread = 1, .mem_limit = 1000};
    assert_int_equal(engine_open(&g, path, &opt, &e), -ERANGE);
    assert_null(g.file);
    /* Every term is there, and they add up. */
    uint64_t term[6], need, have, sum = 0;
    unsigned n_pos;
    const char *at = strstr(e.msg, "weights ");
    assert_non_null(at);
    assert_int_equal(sscanf(at,
                            "weights %" SCNu64 " + vectors %" SCNu64 " + rope tables %" SCNu64
                            " + KV cache %" SCNu64 " (%u positions) + activations %" SCNu64
                            " + reserve %" SCNu64 " = %" SCNu64 " bytes, available are %" SCNu64,
                            &term[0], &term[1], &term[2], &term[3], &n_pos, &term[4], &term[5],
                            &need, &have),
                     9);
    for (int i = 0; i < 6; i++)
        sum += term[i];
    assert_true(sum == need);
    assert_int_equal(n_pos, 256); /* the model's whole context */
    assert_int_equal(have, 1000);
    assert_non_null(strstr(e.msg, "no context is short enough"));
    /* That much is enough, one byte less is not: in 12 of the positions less is. */
    opt.mem_limit = need;
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    assert_true(g.m->weight_bytes < need);
    engine_close(&g);
    opt.mem_limit--;
    assert_int_equal(engine_open(&g, path, &opt, &e), -ERANGE);
    snprintf(text, sizeof text, "available are %" PRIu64, opt.mem_limit);
    assert_non_null(strstr(e.msg, text));
    /* What is said to fit fits, and one position more does not. */
    at = strstr(e.msg, "--ctx-size ");
    assert_non_null(at);
    assert_int_equal(sscanf(at, "--ctx-size %u or less", &opt.n_ctx), 1);
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    engine_close(&g);
    opt.n_ctx++;
    assert_int_equal(engine_open(&g, path, &opt, &e), -ERANGE);
    opt.n_ctx = 0;
    opt.n_pos = 12;
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    engine_close(&g);
    free(path);
    free(dir);
}

static void memory_counts_the_prompt_and_what_follows(void **state)
{
    (void)state;
    char *dir = temp_dir(), *path = path_join(dir, "m.gguf");
    struct gguf_build *b = tiny_model("llama");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct engine g;
    struct err e = {0};
    const struct engine_options opt = {.parts = ENGINE_TOKENIZER};
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    int32_t *id;
    size_t n;
    uint32_t n_pos;
    assert_int_equal(tokenizer_encode(g.tok, "ab", 2, TOKENIZER_ADD_SPECIAL, &id, &n, &e), 0);
    free(id);
    assert_int_equal(engine_positions(&g, "ab", 2, 7, &n_pos, &e), 0);
    assert_int_equal(n_pos, n + 7);
    assert_int_equal(engine_positions(&g, "ab", 2, INT64_MAX, &n_pos, &e), 0);
    assert_int_equal(n_pos, UINT32_MAX);
    assert_int_equal(engine_positions(&g, "ab", 2, -1, &n_pos, &e), 0);
    assert_int_equal(n_pos, 0);
    engine_close(&g);
    free(path);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_what_the_machine_has),
        cmocka_unit_test(memory_is_what_the_cgroups_leave),
        cmocka_unit_test(memory_too_small_is_refused_with_the_numbers),
        cmocka_unit_test(memory_counts_the_prompt_and_what_follows),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
