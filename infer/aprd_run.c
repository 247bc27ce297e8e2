/* aprd run: the continuation of a prompt. */
#include "infer/aprd.h"
#include "infer/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

static int put_stdout(void *ctx, const char *p, size_t n)
{
    (void)ctx;
    return cli_write(STDOUT_FILENO, p, n);
}

static int random_seed(uint64_t *seed, struct err *e)
{
    uint64_t v;
    if (getrandom(&v, sizeof v, 0) != sizeof v)
        return err_set(e, -EIO, "no random seed: %s", strerror(errno));
    *seed = v >> 11; /* 53 bits: exact in any JSON reader */
    return 0;
}

/* Flag, then the model's metadata, then the table of defaults. */
static int sampling_of(const struct aprd_args *a, const struct engine *g,
                       struct sampler_params *out, struct err *e)
{
    struct sampler_params p = sampler_defaults();
    int rc = sampler_params_from_meta(&p, apr_meta(model_file_apr(g->file)), e);
    if (rc < 0)
        return rc;
    const struct sampler_params *v = &a->given;
    p.temp = aprd_given(a, OPT_TEMP) ? v->temp : p.temp;
    p.top_k = aprd_given(a, OPT_TOP_K) ? v->top_k : p.top_k;
    p.top_p = aprd_given(a, OPT_TOP_P) ? v->top_p : p.top_p;
    p.min_p = aprd_given(a, OPT_MIN_P) ? v->min_p : p.min_p;
    p.repeat_penalty = aprd_given(a, OPT_REPEAT) ? v->repeat_penalty : p.repeat_penalty;
    p.repeat_last_n = aprd_given(a, OPT_REPEAT_N) ? v->repeat_last_n : p.repeat_last_n;
    p.presence_penalty = v->presence_penalty;
    p.frequency_penalty = v->frequency_penalty;
    p.seed = v->seed;
    if (a->random_seed)
        rc = random_seed(&p.seed, e);
    *out = p;
    return rc;
}

int aprd_run(const struct aprd_args *a)
{
    struct err err = {0}, *e = &err;
    struct engine_options eo = {.parts = ENGINE_TOKENIZER};
    struct engine g;
    int rc = engine_open(&g, a->path, &eo, e);
    if (rc < 0)
        return aprd_fail(e);
    struct engine_request req = {.prompt = a->prompt,
                                 .prompt_len = strlen(a->prompt),
                                 .n_predict = a->n_predict,
                                 .special = aprd_given(a, OPT_SPECIAL),
                                 .put = put_stdout};
    struct engine_result res = {0};
    rc = engine_positions(&g, req.prompt, req.prompt_len, a->n_predict, &eo.n_pos, e);
    if (rc == 0)
        rc = aprd_load(&g, &eo, a, e);
    if (rc == 0)
        rc = sampling_of(a, &g, &req.sampling, e);
    if (rc == 0 && aprd_given(a, 'v'))
        fprintf(stderr, "aprd: seed %" PRIu64 ", temperature %g\n", req.sampling.seed,
                req.sampling.temp);
    if (rc == 0)
        rc = engine_generate(&g, &req, &res, e);
    if (rc == 0 && aprd_given(a, 'v'))
        fprintf(stderr,
                "aprd: prompt %zu tokens, %.2f tokens/s; %zu written, %.2f tokens/s; %s%s\n",
                res.n_prompt, (double)res.n_prompt / res.prompt_ms * 1e3, res.n_gen,
                res.gen_ms > 0 ? (double)res.n_step / res.gen_ms * 1e3 : 0,
                res.end == ENGINE_END_TOKEN ? "end token" : "length",
                g.gate.state == GATE_UNVERIFIED ? "; unverified" : "");
    if (rc == 0 && res.end == ENGINE_END_CONTEXT)
        fprintf(stderr, "aprd: stopped: the context of %" PRIu32 " tokens is full\n", g.m->n_ctx);
    if (rc == 0)
        aprd_say_unverified(&g);
    engine_close(&g);
    return rc < 0 ? aprd_fail(e) : 0;
}
