#include "infer/gate.h"

#include "infer/build_id.h"
#include "infer/memory.h"
#include "infer/verdict.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *gate_state_text(enum gate_state s)
{
    switch (s) {
    case GATE_REFERENCE:
        return "is the reference";
    case GATE_PASSED:
        return "passed";
    case GATE_CACHED:
        return "passed (cached)";
    case GATE_UNVERIFIED:
        return "unverified (SKIP_PARITY_GATE=1)";
    case GATE_REFUSED:
        return "refused";
    case GATE_NONE:
        break;
    }
    return "not asked";
}

struct check {
    struct gate *out;
    const struct model *m;
    const struct apr *apr;
    const struct gate_options *opt;
    uint32_t n;
    int32_t id[PROBE_N_TOK];
    struct verdict_key key;
    uint8_t build[BUILD_ID_MAX];
    char route[160];
};

/* SKIP_PARITY_GATE: 1 = skip, 0 or nothing = do not; anything else is not guessed at. */
static int skip_wanted(bool *skip, struct err *e)
{
    const char *v = getenv("SKIP_PARITY_GATE");
    *skip = v && strcmp(v, "1") == 0;
    if (v && v[0] && !*skip && strcmp(v, "0") != 0)
        return err_set(e, -EINVAL, "SKIP_PARITY_GATE=%s: expected 0 or 1", v);
    return 0;
}

static int identify(struct check *c, struct err *e)
{
    struct backend *b = c->m->b;
    int rc = b->ops->identity(b, c->out->device, sizeof c->out->device);
    return rc < 0 ? backend_fail(b, rc, e) : 0;
}

/* The tokens to compare. Whoever asks, and with or without a tokenizer at hand, they are the same
 * for the same file: a verdict is found again. */
static int choose_ids(struct check *c, const struct tokenizer *tok, struct err *e)
{
    struct tokenizer *own = NULL;
    struct err why = {0};
    int rc = tok ? 0 : tokenizer_new(&own, apr_meta(c->apr), NULL, &why);
    if (rc == -ENOMEM)
        return err_set(e, rc, "%s", why.msg);
    c->n = c->m->n_ctx < PROBE_N_TOK ? c->m->n_ctx : PROBE_N_TOK;
    rc = probe_ids(c->id, c->n, tok ? tok : own, c->m->c.n_vocab, &c->out->from_text, e);
    tokenizer_free(own);
    return rc;
}

static int make_key(struct check *c, struct err *e)
{
    uint8_t le[4 * PROBE_N_TOK], sum[EVP_MAX_MD_SIZE];
    for (uint32_t i = 0; i < c->n; i++)
        for (int j = 0; j < 4; j++)
            le[4 * i + (uint32_t)j] = (uint8_t)((uint32_t)c->id[i] >> 8 * j);
    if (EVP_Digest(le, 4 * (size_t)c->n, sum, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, -EIO, "SHA-256 failed");
    snprintf(c->route, sizeof c->route, "backend %s, activations f32, KV f32, %s",
             c->m->b->ops->name, c->opt->no_graph ? "op by op" : "graph");
    c->key = (struct verdict_key){.device = c->out->device,
                                  .route = c->route,
                                  .n_pos = c->n,
                                  .build = c->build,
                                  .build_len = build_id(c->build)};
    memcpy(c->key.model, c->m->digest, sizeof c->key.model);
    memcpy(c->key.probe, sum, sizeof c->key.probe);
    return 0;
}

static bool found_verdict(struct check *c)
{
    int rc = verdict_load(&c->key, &c->out->probe, &c->out->note);
    if (rc == -ENOENT)
        c->out->note = (struct err){0};
    else if (rc < 0)
        err_wrap(&c->out->note, "no verdict found");
    return rc == 0;
}

static void keep_verdict(struct check *c)
{
    struct err e = {0};
    if (verdict_store(&c->key, &c->out->probe, &e) < 0) {
        err_wrap(&e, "verdict not kept");
        c->out->note = e;
    }
}

/* The reference, with room left for the rows to compare: the model's own check of memory then
 * counts everything. */
static int open_reference(struct check *c, struct backend **b, struct model **ref, struct err *e)
{
    uint64_t have = c->opt->mem_limit ? c->opt->mem_limit : memory_available("");
    uint64_t rows = probe_bytes(c->m);
    struct backend_options bo = {.n_thread = c->opt->n_thread,
                                 .mem_limit = have > rows ? have - rows : 1};
    const struct model_options mo = {.n_ctx = c->m->n_ctx, .n_pos = c->n};
    if (c->opt->progress)
        c->opt->progress(c->opt->ctx, "reference", 0, 0);
    int rc = backend_open(b, "cpu", &bo, e);
    if (rc == 0)
        rc = model_open(ref, c->apr, *b, &mo, e);
    if (rc == -ERANGE)
        err_wrap(e,
                 "the gate's CPU reference (beside %" PRIu64 " bytes for logits; "
                 "SKIP_PARITY_GATE=1 runs unverified)",
                 rows);
    else if (rc < 0)
        err_wrap(e, "the gate's CPU reference");
    if (rc == 0 && memcmp((*ref)->digest, c->m->digest, sizeof c->m->digest) != 0)
        rc = err_set(e, -EUCLEAN, "the file changed while the gate read it again");
    return rc;
}

static void tell_positions(void *ctx, uint32_t done, uint32_t total)
{
    const struct check *c = ctx;
    if (c->opt->progress)
        c->opt->progress(c->opt->ctx, "gate", done, total);
}

static int measure(struct check *c, struct err *e)
{
    struct backend *b = NULL;
    struct model *ref = NULL;
    const struct probe_options po = {
        .no_graph = c->opt->no_graph, .progress = tell_positions, .ctx = c};
    int rc = open_reference(c, &b, &ref, e);
    if (rc == 0) {
        rc = probe_run(&c->out->probe, c->m, ref, c->id, c->n, &po, e);
        if (rc < 0)
            err_wrap(e, "gate");
    }
    model_close(ref);
    backend_close(b);
    return rc;
}

/* An earlier pass under the same key speaks for this device no more. */
static void forget_verdict(struct check *c)
{
    struct err e = {0};
    if (verdict_drop(&c->key, &e) < 0)
        err_wrap(&e, "an earlier pass is still kept");
    c->out->note = e;
}

static int refuse(struct check *c, struct err *e)
{
    struct gate *out = c->out;
    const struct probe_result *r = &out->probe;
    char line[ERR_MSG_MAX];
    forget_verdict(c);
    probe_line(r, probe_gate_passed(r, PROBE_PARITY) ? PROBE_F2 : PROBE_PARITY, line, sizeof line);
    out->state = GATE_REFUSED;
    return err_set(e, -EDOM, "%s. %s does not compute what the CPU does; --device cpu runs there",
                   line, out->device);
}

int gate_check(struct gate *out, const struct model *m, const struct apr *apr,
               const struct tokenizer *tok, const struct gate_options *opt, struct err *e)
{
    static const struct gate_options defaults;
    struct check c = {.out = out, .m = m, .apr = apr, .opt = opt ? opt : &defaults};
    bool skip;
    *out = (struct gate){0};
    int rc = skip_wanted(&skip, e);
    if (rc == 0)
        rc = identify(&c, e);
    if (rc < 0)
        return rc;
    if (m->b->ops->is_reference) {
        out->state = GATE_REFERENCE;
        return 0;
    }
    if (skip && c.opt->force)
        return err_set(e, -EINVAL, "SKIP_PARITY_GATE=1 and a wish to verify: unset one");
    if (skip) {
        out->state = GATE_UNVERIFIED;
        return 0;
    }
    rc = choose_ids(&c, tok, e);
    if (rc == 0)
        rc = make_key(&c, e);
    if (rc < 0)
        return rc;
    if (!c.opt->force && found_verdict(&c)) {
        out->state = GATE_CACHED;
        return 0;
    }
    rc = measure(&c, e);
    if (rc < 0)
        return rc;
    if (!probe_gate_passed(&out->probe, PROBE_PARITY) || !probe_gate_passed(&out->probe, PROBE_F2))
        return refuse(&c, e);
    out->state = GATE_PASSED;
    keep_verdict(&c);
    return 0;
}
