#include "infer/session.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct session {
    const struct model *m;
    struct forward *f;
    uint32_t n_pos, n_past;
    int32_t best;     /* of the last row; -1: there is none */
    uint32_t row;     /* the last row's place in the last step's logits */
    bool have_logits; /* logits holds that row */
    bool not_finite;  /* the last eval met a logit that is no number */
    float *logits;    /* (n_vocab) */
};

int session_new(struct session **out, const struct model *m, const struct session_options *opt,
                struct err *e)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, -ENOMEM, "no memory for a session");
    s->m = m;
    s->best = -1;
    s->n_pos = opt && opt->n_pos && opt->n_pos < m->n_ctx ? opt->n_pos : m->n_ctx;
    s->logits = calloc(m->c.n_vocab, sizeof *s->logits);
    const struct forward_options fo = {
        .max_tok = SESSION_STEP, .n_pos = s->n_pos, .no_graph = opt && opt->no_graph};
    int rc = s->logits ? forward_new(&s->f, m, &fo, e)
                       : err_set(e, -ENOMEM, "no memory for %" PRIu32 " logits", m->c.n_vocab);
    if (rc < 0) {
        session_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void session_free(struct session *s)
{
    if (!s)
        return;
    forward_free(s->f);
    free(s->logits);
    free(s);
}

uint32_t session_n_ctx(const struct session *s)
{
    return s->m->n_ctx;
}

uint32_t session_n_pos(const struct session *s)
{
    return s->n_pos;
}

uint32_t session_n_past(const struct session *s)
{
    return s->n_past;
}

void session_tap(struct session *s, const struct forward_tap *tap)
{
    forward_set_tap(s->f, tap);
}

bool session_not_finite(const struct session *s)
{
    return s->not_finite;
}

int32_t session_best(const struct session *s)
{
    return s->best;
}

/* Row i of the last step's logits, to the host, and fit to be shown. */
static int fetch(struct session *s, uint32_t i, struct err *e)
{
    uint32_t n = s->m->c.n_vocab;
    struct backend *b = s->m->b;
    int rc =
        b->ops->download(b, s->logits, forward_logits(s->f) + (size_t)i * n, n * sizeof *s->logits);
    if (rc < 0)
        return backend_fail(b, rc, e);
    for (uint32_t j = 0; j < n; j++)
        if (!isfinite(s->logits[j])) {
            s->not_finite = true;
            return err_set(e, -EIO,
                           "logit %" PRIu32 " is %f: the model's weights overflow or are damaged",
                           j, (double)s->logits[j]);
        }
    return 0;
}

int session_logits(struct session *s, const float **row, struct err *e)
{
    if (s->best < 0)
        return err_set(e, -EINVAL, "no logits: no token was evaluated, or the last one failed");
    if (!s->have_logits) {
        int rc = fetch(s, s->row, e);
        if (rc < 0)
            return rc;
        s->have_logits = true;
    }
    *row = s->logits;
    return 0;
}

static int check(const struct session *s, const int32_t *id, size_t n, struct err *e)
{
    if (n > s->n_pos - s->n_past) {
        if (s->n_pos == s->m->n_ctx)
            return err_set(e, -ERANGE,
                           "%zu tokens after %" PRIu32 " do not fit into the context of %" PRIu32,
                           n, s->n_past, s->m->n_ctx);
        return err_set(e, -ERANGE,
                       "%zu tokens after %" PRIu32 " do not fit into the %" PRIu32
                       " positions that this session holds (context %" PRIu32 ")",
                       n, s->n_past, s->n_pos, s->m->n_ctx);
    }
    for (size_t i = 0; i < n; i++)
        if (id[i] < 0 || (uint32_t)id[i] >= s->m->c.n_vocab)
            return err_set(e, -EINVAL, "token id %" PRId32 " is outside the vocabulary of %" PRIu32,
                           id[i], s->m->c.n_vocab);
    return 0;
}

/* The greedy token after the last row; the device's -1 is told by name, with the logit that is no
 * number. */
static int choose(struct session *s, uint32_t row, struct err *e)
{
    int32_t best;
    int rc = forward_best(s->f, &best, e);
    if (rc == 0 && best < 0) {
        rc = fetch(s, row, e);
        if (rc == 0)
            rc = err_set(e, -EIO, "the device saw a logit that is no number, the host sees none");
    }
    if (rc < 0)
        return rc;
    if ((uint32_t)best >= s->m->c.n_vocab)
        return err_set(e, -EIO, "the device chose token %" PRId32 " of a vocabulary of %" PRIu32,
                       best, s->m->c.n_vocab);
    s->row = row;
    s->best = best;
    return 0;
}

int session_eval_rows(struct session *s, const int32_t *id, size_t n,
                      int (*row)(void *ctx, const float *logits, uint32_t n_vocab, struct err *e),
                      void *ctx, struct err *e)
{
    int rc = check(s, id, n, e);
    if (rc < 0 || n == 0)
        return rc;
    s->best = -1;
    s->not_finite = false;
    for (size_t at = 0; rc == 0 && at < n;) {
        uint32_t step = n - at < SESSION_STEP ? (uint32_t)(n - at) : SESSION_STEP;
        bool last = at + step == n;
        uint32_t n_out = row ? step : last ? 1 : 0;
        rc = step == 1 ? forward_step(s->f, id[at], s->n_past, e)
                       : forward_run(s->f, id + at, step, s->n_past, n_out, e);
        if (rc < 0)
            break;
        s->n_past += step;
        at += step;
        for (uint32_t i = 0; rc == 0 && row && i < n_out; i++) {
            rc = fetch(s, i, e);
            if (rc == 0)
                rc = row(ctx, s->logits, s->m->c.n_vocab, e);
        }
        if (rc == 0 && last) {
            rc = choose(s, n_out - 1, e);
            s->have_logits = rc == 0 && row;
        }
    }
    return rc;
}

int session_eval(struct session *s, const int32_t *id, size_t n, struct err *e)
{
    return session_eval_rows(s, id, n, NULL, NULL, e);
}
