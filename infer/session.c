#include "infer/session.h"

#include "infer/forward.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct session {
    const struct model *m;
    struct forward *f;
    struct backend_kv *kv;
    uint32_t n_past;
    float *logits; /* (n_vocab) */
};

int session_new(struct session **out, const struct model *m, struct err *e)
{
    struct session *s = calloc(1, sizeof *s);
    if (!s)
        return err_set(e, -ENOMEM, "no memory for a session");
    s->m = m;
    s->logits = calloc(m->c.n_vocab, sizeof *s->logits);
    int rc = s->logits ? forward_new(&s->f, m, SESSION_STEP, e)
                       : err_set(e, -ENOMEM, "no memory for %" PRIu32 " logits", m->c.n_vocab);
    if (rc == 0)
        rc = forward_kv_new(m, &s->kv, e);
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
    s->m->b->ops->kv_free(s->m->b, s->kv);
    forward_free(s->f);
    free(s->logits);
    free(s);
}

uint32_t session_n_ctx(const struct session *s)
{
    return s->m->n_ctx;
}

uint32_t session_n_past(const struct session *s)
{
    return s->n_past;
}

const float *session_logits(const struct session *s)
{
    return s->logits;
}

/* Row i of the last step's n_out, to the host, and fit to be shown. */
static int fetch(struct session *s, uint32_t i, struct err *e)
{
    uint32_t n = s->m->c.n_vocab;
    struct backend *b = s->m->b;
    int rc =
        b->ops->download(b, s->logits, forward_logits(s->f) + (size_t)i * n, n * sizeof *s->logits);
    if (rc < 0)
        return backend_fail(b, rc, e);
    for (uint32_t j = 0; j < n; j++)
        if (!isfinite(s->logits[j]))
            return err_set(e, -EIO,
                           "logit %" PRIu32 " is %f: the model's weights overflow or are damaged",
                           j, (double)s->logits[j]);
    return 0;
}

static int check(const struct session *s, const int32_t *id, size_t n, struct err *e)
{
    if (n > s->m->n_ctx - s->n_past)
        return err_set(e, -ERANGE,
                       "%zu tokens after %" PRIu32 " do not fit into the context of %" PRIu32, n,
                       s->n_past, s->m->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (id[i] < 0 || (uint32_t)id[i] >= s->m->c.n_vocab)
            return err_set(e, -EINVAL, "token id %" PRId32 " is outside the vocabulary of %" PRIu32,
                           id[i], s->m->c.n_vocab);
    return 0;
}

int session_eval_rows(struct session *s, const int32_t *id, size_t n,
                      int (*row)(void *ctx, const float *logits, uint32_t n_vocab, struct err *e),
                      void *ctx, struct err *e)
{
    int rc = check(s, id, n, e);
    for (size_t at = 0; rc == 0 && at < n;) {
        uint32_t step = n - at < SESSION_STEP ? (uint32_t)(n - at) : SESSION_STEP;
        bool last = at + step == n;
        uint32_t n_out = row ? step : last ? 1 : 0;
        rc = forward_run(s->f, s->kv, id + at, step, s->n_past, n_out, e);
        if (rc < 0)
            break;
        s->n_past += step;
        at += step;
        for (uint32_t i = 0; rc == 0 && i < n_out; i++) {
            rc = fetch(s, i, e);
            if (rc == 0 && row)
                rc = row(ctx, s->logits, s->m->c.n_vocab, e);
        }
    }
    return rc;
}

int session_eval(struct session *s, const int32_t *id, size_t n, struct err *e)
{
    return session_eval_rows(s, id, n, NULL, NULL, e);
}
