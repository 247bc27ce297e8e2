/* A prompt becomes a continuation: where it ends, what is put out, which errors it gives; and the
 * small input and output helpers of the program. */
#include "infer/cli.h"
#include "infer/engine.h"
#include "infer/session.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <unistd.h>

static char *dir;

struct text {
    char p[8192];
    size_t n;
    int n_put, fail_at;
};

static int put(void *ctx, const char *p, size_t n)
{
    struct text *t = ctx;
    if (++t->n_put == t->fail_at)
        return -ENOSPC;
    memcpy(t->p + t->n, p, n);
    t->n += n;
    return 0;
}

static void open_build(struct engine *g, struct gguf_build *b, uint32_t n_ctx)
{
    const struct engine_options opt = {
        .parts = ENGINE_WEIGHTS | ENGINE_TOKENIZER, .n_thread = 1, .n_ctx = n_ctx};
    struct err e = {0};
    char *path = path_join(dir, "engine.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    if (engine_open(g, path, &opt, &e) < 0)
        fail_msg("%s", e.msg);
    free(path);
}

static struct engine_request greedy(const char *prompt, int64_t n, struct text *t)
{
    struct engine_request r = {.prompt = prompt,
                               .prompt_len = strlen(prompt),
                               .n_predict = n,
                               .sampling = sampler_defaults(),
                               .put = put,
                               .ctx = t};
    r.sampling.temp = 0;
    return r;
}

/* qwen2's head may have a bias: this one makes `id` win at every position. */
static struct gguf_build *always(int32_t id)
{
    struct gguf_build *b = tiny_model("qwen2");
    float bias[270] = {0};
    uint64_t ne = 270; /* its vocabulary */
    bias[id] = 1000;
    gguf_build_tensor(b, "output.bias", 0, 1, &ne, bias);
    return b;
}

static void engine_writes_the_greedy_chain(void **state)
{
    (void)state;
    enum { N = 20 };
    for (size_t f = 0; f < 4; f++) {
        struct engine g;
        struct session *s;
        struct err e = {0};
        struct text t = {.n = 0};
        struct engine_result res;
        open_build(&g, tiny_model(tiny_families[f]), 0);
        const struct engine_request req = greedy("the and", N, &t);
        assert_int_equal(engine_generate(&g, &req, &res, &e), 0);

        int32_t *id;
        size_t n;
        char want[8192];
        size_t len = 0, n_gen = 0;
        bool ended = false;
        assert_int_equal(tokenizer_encode(g.tok, "the and", 7, TOKENIZER_ADD_SPECIAL, &id, &n, &e),
                         0);
        assert_int_equal(res.n_prompt, n);
        assert_int_equal(session_new(&s, g.m, NULL, &e), 0);
        assert_int_equal(session_eval(s, id, n, &e), 0);
        while (n_gen < N) {
            const float *l;
            assert_int_equal(session_logits(s, &l, &e), 0);
            int32_t best = 0;
            for (uint32_t i = 1; i < g.m->c.n_vocab; i++)
                if (l[i] > l[best])
                    best = (int32_t)i;
            ended = tokenizer_is_end(g.tok, best);
            if (ended)
                break;
            size_t k;
            const char *p = tokenizer_piece(g.tok, best, false, false, &k);
            memcpy(want + len, p, k);
            len += k;
            n_gen++;
            assert_int_equal(session_eval(s, &best, 1, &e), 0);
        }
        assert_int_equal(res.n_gen, n_gen);
        assert_int_equal(res.n_step, ended ? n_gen : n_gen - 1);
        assert_int_equal(res.end, ended ? ENGINE_END_TOKEN : ENGINE_END_LENGTH);
        assert_int_equal(t.n, len);
        assert_memory_equal(t.p, want, len);
        free(id);
        session_free(s);
        engine_close(&g);
    }
}

static void engine_stops_at_an_end_token_and_does_not_print_it(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct text t = {.n = 0};
    struct engine_result res;
    open_build(&g, always(269), 0); /* <|im_end|> */
    struct engine_request req = greedy("the", -1, &t);
    req.special = true;
    assert_int_equal(engine_generate(&g, &req, &res, &e), 0);
    assert_int_equal(res.end, ENGINE_END_TOKEN);
    assert_int_equal(res.n_gen, 0);
    assert_int_equal(t.n, 0);
    engine_close(&g);
}

static void engine_stops_when_the_context_is_full(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct text t = {.n = 0};
    struct engine_result res;
    open_build(&g, always('a'), 16); /* byte tokens are the first 256 */
    struct engine_request req = greedy("the in", -1, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), 0);
    assert_int_equal(res.end, ENGINE_END_CONTEXT);
    assert_int_equal(res.n_prompt + res.n_gen, 16);
    assert_int_equal(res.n_step, res.n_gen - 1);
    assert_int_equal(t.n, res.n_gen);
    for (size_t i = 0; i < t.n; i++)
        assert_int_equal(t.p[i], 'a');
    engine_close(&g);
}

static void engine_gives_half_characters_at_the_end_only(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct text t = {.n = 0};
    struct engine_result res;
    /* GPT-2's order of byte tokens here is that of the bytes: 0xE6 opens a character of three. */
    open_build(&g, always(0xE6), 0);
    struct engine_request req = greedy("the", 3, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), 0);
    assert_int_equal(t.n, 3); /* all bytes are there */
    assert_memory_equal(t.p, "\xE6\xE6\xE6", 3);
    assert_int_equal(t.n_put, 3); /* one waits for the next, the last for the end */
    engine_close(&g);
}

static void engine_refuses_prompts_that_do_not_fit(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct text t = {.n = 0};
    struct engine_result res;
    open_build(&g, tiny_model("llama"), 4);
    struct engine_request req = greedy("and and and and and and", -1, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), -ERANGE);
    assert_non_null(strstr(e.msg, "the context 4"));
    assert_int_equal(t.n_put, 0);
    engine_close(&g);
    open_build(&g, tiny_model("qwen2"), 0); /* no BOS: an empty prompt has no token */
    req = greedy("", -1, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), -EINVAL);
    assert_int_equal(t.n_put, 0);
    engine_close(&g);
    open_build(&g, tiny_model("llama"), 0); /* BOS alone is a prompt */
    req = greedy("", 2, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), 0);
    assert_int_equal(res.n_prompt, 1);
    engine_close(&g);
}

static void engine_passes_on_a_failed_write(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct text t = {.fail_at = 3};
    struct engine_result res;
    open_build(&g, always('a'), 0);
    struct engine_request req = greedy("the", -1, &t);
    assert_int_equal(engine_generate(&g, &req, &res, &e), -ENOSPC);
    assert_non_null(strstr(e.msg, "output"));
    assert_int_equal(t.n, 2);
    engine_close(&g);
}

static void engine_sampling_defaults_come_from_the_model(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct gguf_build *b = tiny_model("llama");
    gguf_build_f32(b, "general.sampling.temp", 0.25f);
    gguf_build_u32(b, "general.sampling.top_k", 7);
    open_build(&g, b, 0);
    struct sampler_params p = sampler_defaults();
    assert_int_equal(sampler_params_from_meta(&p, apr_meta(model_file_apr(g.file)), &e), 0);
    assert_true(p.temp == 0.25);
    assert_int_equal(p.top_k, 7);
    engine_close(&g);
}

/* This program is linked with gpu_none.c. */
static void engine_turns_to_the_cpu_only_when_asked(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct gguf_build *b = tiny_model("llama");
    char *path = path_join(dir, "device.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct engine_options opt = {.parts = ENGINE_WEIGHTS, .n_thread = 1, .device = ENGINE_GPU};
    assert_int_equal(engine_open(&g, path, &opt, &e), -ENODEV);
    assert_non_null(strstr(e.msg, "device.gguf: no GPU: this build has no GPU support"));
    assert_null(g.file);
    opt.device = ENGINE_AUTO;
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    assert_int_equal(g.device, ENGINE_CPU);
    assert_string_equal(g.b->ops->name, "cpu");
    assert_string_equal(g.no_gpu.msg, "no GPU: this build has no GPU support (make GPU=cuda)");
    engine_close(&g);
    opt.device = ENGINE_CPU;
    assert_int_equal(engine_open(&g, path, &opt, &e), 0);
    assert_int_equal(g.device, ENGINE_CPU);
    assert_string_equal(g.no_gpu.msg, "");
    engine_close(&g);
    free(path);
}

static void engine_opens_only_what_is_asked(void **state)
{
    (void)state;
    struct engine g;
    struct err e = {0};
    struct gguf_build *b = tiny_model("llama");
    gguf_build_tensor_remove(b, "blk.1.ffn_up.weight"); /* no model, but a tokenizer */
    char *path = path_join(dir, "half.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    struct engine_options opt = {.parts = ENGINE_WEIGHTS, .n_thread = 1};
    assert_true(engine_open(&g, path, &opt, &e) < 0);
    assert_non_null(strstr(e.msg, "blk.1.ffn_up.weight"));
    assert_null(g.file);
    free(path);
    path = path_join(dir, "absent.apr");
    assert_int_equal(engine_open(&g, path, &opt, &e), -ENOENT);
    assert_non_null(strstr(e.msg, "absent.apr"));
    free(path);
}

/* --- cli.h --------------------------------------------------------------------------------- */

static void cli_parses_ids_and_nothing_else(void **state)
{
    (void)state;
    int32_t *id;
    size_t n;
    struct err e;
    const char *good = " 0\t12\r\n2147483647  5 ";
    assert_int_equal(cli_parse_ids(good, strlen(good), &id, &n, &e), 0);
    assert_int_equal(n, 4);
    const int32_t want[] = {0, 12, 2147483647, 5};
    assert_memory_equal(id, want, sizeof want);
    free(id);
    assert_int_equal(cli_parse_ids("", 0, &id, &n, &e), 0);
    assert_int_equal(n, 0);
    free(id);
    static const char *const bad[] = {
        "1 x",   "1 -2", "1 2147483648", "1 0x5",
        "1 1e3", "1 +4", "1 5,6",        "1 99999999999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        if (cli_parse_ids(bad[i], strlen(bad[i]), &id, &n, &e) != -EINVAL)
            fail_msg("'%s' is taken", bad[i]);
        assert_non_null(strstr(e.msg, "byte 2"));
    }
    assert_int_equal(cli_parse_ids("1 \0003", 4, &id, &n, &e), -EINVAL);
}

static void cli_escapes_exactly(void **state)
{
    (void)state;
    char *out = NULL;
    size_t len;
    FILE *f = open_memstream(&out, &len);
    const char text[] = "a\\b\n\t\r\x01\x7F \xC3\xA9\xC3 \xE6\x97\xA5\xFF\xF0\x9F\x99\x82\0z";
    cli_put_escaped(f, text, sizeof text - 1);
    fclose(f);
    assert_string_equal(out, "a\\\\b\\n\\t\\r\\x01\\x7F \xC3\xA9\\xC3 \xE6\x97\xA5\\xFF\xF0\x9F\x99"
                             "\x82\\x00z");
    free(out);
}

static void cli_reads_and_writes_all_of_a_pipe(void **state)
{
    (void)state;
    int fd[2];
    char *got;
    size_t len;
    struct err e;
    assert_int_equal(pipe(fd), 0);
    char data[40000];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (char)(i * 7);
    assert_int_equal(cli_write(fd[1], data, sizeof data), 0);
    close(fd[1]);
    assert_int_equal(cli_read(fd[0], &got, &len, &e), 0);
    assert_int_equal(len, sizeof data);
    assert_memory_equal(got, data, len);
    free(got);
    close(fd[0]);
    assert_int_equal(cli_write(fd[1], data, 1), -EBADF);
    assert_int_equal(cli_read(fd[0], &got, &len, &e), -EBADF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(engine_writes_the_greedy_chain),
        cmocka_unit_test(engine_stops_at_an_end_token_and_does_not_print_it),
        cmocka_unit_test(engine_stops_when_the_context_is_full),
        cmocka_unit_test(engine_gives_half_characters_at_the_end_only),
        cmocka_unit_test(engine_refuses_prompts_that_do_not_fit),
        cmocka_unit_test(engine_passes_on_a_failed_write),
        cmocka_unit_test(engine_sampling_defaults_come_from_the_model),
        cmocka_unit_test(engine_turns_to_the_cpu_only_when_asked),
        cmocka_unit_test(engine_opens_only_what_is_asked),
        cmocka_unit_test(cli_parses_ids_and_nothing_else),
        cmocka_unit_test(cli_escapes_exactly),
        cmocka_unit_test(cli_reads_and_writes_all_of_a_pipe),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("engine", tests, NULL, NULL);
    free(dir);
    return rc;
}
