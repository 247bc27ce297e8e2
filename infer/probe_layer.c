/* Finds the first layer that a device computes differently: both models run again, and the residual
 * after each layer is compared at the position that was refused.
 *
 * Before a fault the residuals differ by rounding, behind it by the fault. Rounding in f32 is about
 * 1e-14 of NMSE an operation (through the emulation: 0), a fault that moved logits by 1e-6 or more
 * starts well above PROBE_RESIDUAL_LIMIT: the limit stands three orders from either. */
#include "infer/probe_internal.h"

#include "infer/session.h"

#include <errno.h>
#include <stdlib.h>

struct look {
    struct backend *b;
    uint32_t n_embd, pos;
    uint32_t pos0, next; /* positions of the step under way */
    uint32_t n_layer;    /* seen */
    float *x;            /* (layers, n_embd) at pos */
};

static int keep_layer(void *ctx, uint32_t layer, const float *x, uint32_t n_tok, struct err *e)
{
    struct look *l = ctx;
    if (layer == 0) {
        l->pos0 = l->next;
        l->next += n_tok;
    }
    if (l->pos < l->pos0 || l->pos >= l->next)
        return 0;
    int rc = l->b->ops->download(l->b, l->x + (size_t)layer * l->n_embd,
                                 x + (size_t)(l->pos - l->pos0) * l->n_embd, l->n_embd * sizeof *x);
    l->n_layer = layer + 1;
    return rc < 0 ? backend_fail(l->b, rc, e) : 0;
}

/* The steps of probe_run, up to the one that holds pos. */
static int feed_to(struct session *s, const int32_t *id, uint32_t n, uint32_t pos, struct err *e)
{
    struct probe_split split = probe_split(n);
    uint32_t at = 0;
    int rc = 0;
    for (int i = 0; rc == 0 && i < 2 && at <= pos; at += split.chunk[i++]) {
        uint32_t len = split.chunk[i],
                 need = (pos - at) / SESSION_STEP * SESSION_STEP + SESSION_STEP;
        if (len)
            rc = session_eval(s, id + at, len < need ? len : need, e);
    }
    for (; rc == 0 && at <= pos; at++)
        rc = session_eval(s, id + at, 1, e);
    return rc;
}

/* Residuals (layers, n_embd) of m at pos; NULL: no memory, or the run failed before. */
static float *residuals(const struct model *m, const int32_t *id, uint32_t n, uint32_t pos)
{
    struct look l = {.b = m->b, .n_embd = m->c.n_embd, .pos = pos};
    const struct forward_tap tap = {keep_layer, &l};
    const struct session_options opt = {.n_pos = n};
    struct session *s = NULL;
    struct err e = {0};
    l.x = calloc((size_t)m->c.n_layer * l.n_embd, sizeof *l.x);
    if (l.x && session_new(&s, m, &opt, &e) == 0) {
        session_tap(s, &tap);
        feed_to(s, id, n, pos, &e); /* -EIO for what is no number is what is looked for */
    }
    session_free(s);
    if (l.n_layer < m->c.n_layer) {
        free(l.x);
        l.x = NULL;
    }
    return l.x;
}

void probe_find_layer(struct probe_result *r, const struct model *dut, const struct model *ref,
                      const int32_t *id, uint32_t pos)
{
    float *a = residuals(dut, id, r->n, pos), *b = residuals(ref, id, r->n, pos);
    r->bad_layer = a && b ? PROBE_LAYER_NONE : PROBE_LAYER_UNKNOWN;
    for (uint32_t i = 0; a && b && i < dut->c.n_layer && r->bad_layer < 0; i++) {
        size_t at = (size_t)i * dut->c.n_embd;
        double d = probe_nmse(a + at, b + at, dut->c.n_embd);
        if (d > PROBE_RESIDUAL_LIMIT) {
            r->bad_layer = (int32_t)i;
            r->bad_residual = d;
        }
    }
    free(a);
    free(b);
}
