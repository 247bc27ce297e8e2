#include "infer/engine.h"

#include "infer/session.h"
#include "infer/text/utf8_hold.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The ids of a prompt; at least one. */
static int encode_prompt(const struct engine *g, const char *p, size_t len, int32_t **id, size_t *n,
                         struct err *e)
{
    int rc =
        tokenizer_encode(g->tok, p, len, TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, id, n, e);
    if (rc == 0 && *n == 0) {
        free(*id);
        rc = err_set(e, -EINVAL, "the prompt is empty, and this model has no token to begin with");
    }
    return rc;
}

int engine_open(struct engine *g, const char *path, const struct engine_options *opt, struct err *e)
{
    *g = (struct engine){.path = path};
    int rc = model_file_open(&g->file, path, e);
    if (rc < 0)
        goto out;
    struct apr *apr = model_file_apr(g->file);
    if (opt->parts & ENGINE_TOKENIZER)
        rc = tokenizer_new(&g->tok, apr_meta(apr), NULL, e);
    if (rc < 0)
        err_wrap(e, "%s", path);
    else if (opt->parts & ENGINE_WEIGHTS)
        rc = engine_load(g, opt, e);
out:
    if (rc < 0)
        engine_close(g);
    return rc;
}

static int open_device(struct engine *g, const struct engine_options *opt, struct err *e)
{
    const struct backend_options bo = {.n_thread = opt->n_thread, .mem_limit = opt->mem_limit};
    if (opt->device != ENGINE_CPU) {
        g->device = ENGINE_GPU;
        int rc = backend_open(&g->b, "gpu", &bo, e);
        if (rc != -ENODEV || opt->device == ENGINE_GPU)
            return rc;
        g->no_gpu = *e;
    }
    g->device = ENGINE_CPU;
    return backend_open(&g->b, "cpu", &bo, e);
}

static void tell_load(void *ctx, const struct model_progress *m)
{
    const struct engine_options *opt = ctx;
    const struct engine_progress p = {.phase = m->phase,
                                      .unit = "bytes",
                                      .source = m->source,
                                      .done = m->bytes,
                                      .total = m->total,
                                      .seconds = m->seconds};
    if (opt->progress)
        opt->progress(opt->ctx, &p);
}

static void tell_gate(void *ctx, const char *phase, uint32_t done, uint32_t total)
{
    const struct engine_options *opt = ctx;
    const struct engine_progress p = {
        .phase = phase, .unit = "positions", .done = done, .total = total};
    if (opt->progress)
        opt->progress(opt->ctx, &p);
}

static int judge(struct engine *g, const struct engine_options *opt, struct err *e)
{
    const struct gate_options go = {.force = opt->force_gate,
                                    .no_graph = opt->no_graph,
                                    .n_thread = opt->n_thread,
                                    .progress = tell_gate,
                                    .ctx = (void *)opt};
    return gate_check(&g->gate, g->m, model_file_apr(g->file), g->tok, &go, e);
}

int engine_load(struct engine *g, const struct engine_options *opt, struct err *e)
{
    const struct model_options mo = {.n_ctx = opt->n_ctx,
                                     .n_pos = opt->n_pos,
                                     .progress = tell_load,
                                     .progress_ctx = (void *)opt};
    g->no_graph = opt->no_graph;
    int rc = open_device(g, opt, e);
    if (rc == 0)
        rc = model_open(&g->m, model_file_apr(g->file), g->b, &mo, e);
    if (rc == 0)
        rc = judge(g, opt, e);
    if (rc < 0)
        err_wrap(e, "%s", g->path);
    return rc;
}

int engine_positions(const struct engine *g, const char *prompt, size_t len, int64_t n_predict,
                     uint32_t *n_pos, struct err *e)
{
    int32_t *id;
    size_t n;
    *n_pos = 0;
    if (n_predict < 0)
        return 0;
    int rc = encode_prompt(g, prompt, len, &id, &n, e);
    if (rc < 0)
        return rc;
    free(id);
    uint64_t sum = n + (uint64_t)n_predict;
    *n_pos = sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
    return 0;
}

void engine_close(struct engine *g)
{
    model_close(g->m);
    backend_close(g->b);
    tokenizer_free(g->tok);
    model_file_close(g->file);
    *g = (struct engine){0};
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* One run's state. */
struct run {
    struct engine *g;
    const struct engine_request *req;
    struct engine_result *res;
    struct session *s;
    struct sampler *sampler;
    struct utf8_hold hold;
    int32_t *id; /* prompt, then continuation: as many as the session holds */
    size_t n;
};

static int put_token(struct run *r, int32_t id, struct err *e)
{
    size_t len;
    const char *p = tokenizer_piece(r->g->tok, id, r->req->special, false, &len);
    if (!p)
        return err_set(
            e, -EIO, "token %" PRId32 " has no text: the vocabulary is shorter than the head", id);
    int rc = utf8_hold_put(&r->hold, p, len, r->req->put, r->req->ctx);
    return rc < 0 ? err_set(e, rc, "output: %s", strerror(-rc)) : 0;
}

/* The next token: the device's own choice where the sampler would make the same from the row. */
static int next_token(struct run *r, int32_t *id, struct err *e)
{
    const float *logits;
    if (sampler_is_greedy(r->sampler)) {
        *id = session_best(r->s);
        return 0;
    }
    int rc = session_logits(r->s, &logits, e);
    if (rc == 0)
        *id = sampler_next(r->sampler, logits, r->n, r->id, r->n, r->res->n_prompt);
    return rc;
}

static int generate(struct run *r, struct err *e)
{
    uint32_t n_ctx = session_n_ctx(r->s);
    for (;;) {
        if (r->req->n_predict >= 0 && r->res->n_gen >= (uint64_t)r->req->n_predict) {
            r->res->end = ENGINE_END_LENGTH;
            return 0;
        }
        if (r->n >= n_ctx) {
            r->res->end = ENGINE_END_CONTEXT;
            return 0;
        }
        int32_t id;
        int rc = next_token(r, &id, e);
        if (rc < 0)
            return rc;
        if (tokenizer_is_end(r->g->tok, id)) {
            r->res->end = ENGINE_END_TOKEN;
            return 0;
        }
        rc = put_token(r, id, e);
        if (rc < 0)
            return rc;
        r->id[r->n++] = id;
        r->res->n_gen++;
        bool more = r->n < session_n_pos(r->s); /* n_predict is in it */
        if (more && (rc = session_eval(r->s, &id, 1, e)) < 0)
            return rc;
        r->res->n_step += more;
    }
}

/* A session for the prompt and what may follow it, no larger; the prompt's tokens in r->id. */
static int start(struct run *r, struct err *e)
{
    const struct engine_request *q = r->req;
    uint32_t n_ctx = r->g->m->n_ctx;
    int32_t *id = NULL;
    size_t n = 0;
    int rc = encode_prompt(r->g, q->prompt, q->prompt_len, &id, &n, e);
    if (rc < 0)
        return rc;
    if (n > n_ctx)
        rc = err_set(e, -ERANGE, "the prompt has %zu tokens, the context %" PRIu32, n, n_ctx);
    struct session_options so = {.n_pos = n_ctx, .no_graph = r->g->no_graph};
    if (rc == 0 && q->n_predict >= 0 && (uint64_t)q->n_predict < n_ctx - n)
        so.n_pos = (uint32_t)(n + (uint64_t)q->n_predict);
    if (rc == 0 && !(r->id = calloc(so.n_pos, sizeof *r->id)))
        rc = err_set(e, -ENOMEM, "no memory for %" PRIu32 " tokens", so.n_pos);
    if (rc == 0) {
        memcpy(r->id, id, n * sizeof *id);
        r->n = r->res->n_prompt = n;
        rc = session_new(&r->s, r->g->m, &so, e);
    }
    free(id);
    return rc;
}

int engine_generate(struct engine *g, const struct engine_request *req, struct engine_result *res,
                    struct err *e)
{
    struct run r = {.g = g, .req = req, .res = res};
    *res = (struct engine_result){0};
    int rc = sampler_new(&r.sampler, &req->sampling, g->m->c.n_vocab, e);
    if (rc == 0)
        rc = start(&r, e);
    double t0 = now_ms();
    if (rc == 0)
        rc = session_eval(r.s, r.id, r.n, e);
    double t1 = now_ms();
    res->prompt_ms = t1 - t0;
    if (rc == 0)
        rc = generate(&r, e);
    res->gen_ms = now_ms() - t1;
    /* What was held back goes out whatever happened: bytes are never lost. */
    int put_rc = utf8_hold_flush(&r.hold, req->put, req->ctx);
    if (rc == 0 && put_rc < 0)
        rc = err_set(e, put_rc, "output: %s", strerror(-put_rc));
    sampler_free(r.sampler);
    session_free(r.s);
    free(r.id);
    return rc;
}
