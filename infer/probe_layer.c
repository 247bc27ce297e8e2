/* Finds the first layer that a device computes differently: both models run again, and the
 * residuals after each layer are compared, at the position that was refused and at those of the
 * same step: one alone may hide a fault.
 *
 * Before a fault the residuals differ by rounding, in f32 about 1e-14 of NMSE an operation (through
 * the emulation: 0); behind it by the fault. A fault that moved logits by 1e-8 or more is beyond
 * PROBE_RESIDUAL_LIMIT sooner or later, but it may start lower and grow: so what counts is the
 * steepest rise up to there. A fault that in its own layer is no more than rounding is named where
 * it first is more (measured: Gemma 3 270M without epsilon, 2.7e-14 behind layer 0, 1.6e-9 behind
 * 1). */
#include "infer/probe_internal.h"

#include "infer/session.h"

#include <errno.h>
#include <stdlib.h>

struct look {
    struct backend *b;
    uint32_t n_embd, pos;
    uint32_t pos0, next; /* positions of the step under way */
    uint32_t n_layer;    /* seen, of the step that holds pos */
    uint32_t n_row;      /* of that step */
    float *x;            /* (layers, SESSION_STEP, n_embd) */
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
    float *to = l->x + (size_t)layer * SESSION_STEP * l->n_embd;
    int rc = l->b->ops->download(l->b, to, x, (size_t)n_tok * l->n_embd * sizeof *x);
    l->n_layer = layer + 1;
    l->n_row = n_tok;
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

/* Residuals of m in the step that holds pos, and how many rows it has; NULL: no memory, or the run
 * failed before. */
static float *residuals(const struct model *m, const int32_t *id, uint32_t n, uint32_t pos,
                        uint32_t *n_row)
{
    struct look l = {.b = m->b, .n_embd = m->c.n_embd, .pos = pos};
    const struct forward_tap tap = {keep_layer, &l};
    const struct session_options opt = {.n_pos = n};
    struct session *s = NULL;
    struct err e = {0};
    l.x = calloc((size_t)m->c.n_layer * SESSION_STEP * l.n_embd, sizeof *l.x);
    if (l.x && session_new(&s, m, &opt, &e) == 0) {
        session_tap(s, &tap);
        feed_to(s, id, n, pos, &e); /* -EIO for what is no number is what is looked for */
    }
    session_free(s);
    *n_row = l.n_row;
    if (l.n_layer < m->c.n_layer) {
        free(l.x);
        l.x = NULL;
    }
    return l.x;
}

/* The worst row of one layer. */
static double worst_row(const float *a, const float *r, uint32_t n_row, uint32_t n_embd)
{
    double worst = 0;
    for (uint32_t i = 0; i < n_row; i++) {
        double d = probe_nmse(a + (size_t)i * n_embd, r + (size_t)i * n_embd, n_embd);
        worst = d > worst ? d : worst;
    }
    return worst;
}

/* Where rises are measured from: below this, rounding. */
#define ROUNDING 1e-13

int32_t probe_first_bad(const double *nmse, uint32_t n_layer)
{
    int32_t steepest = PROBE_LAYER_NONE;
    double before = ROUNDING, most = 0;
    for (uint32_t i = 0; i < n_layer; i++) {
        double rise = nmse[i] / before;
        if (rise > most) {
            most = rise;
            steepest = (int32_t)i;
        }
        if (nmse[i] > PROBE_RESIDUAL_LIMIT)
            return steepest;
        before = nmse[i] > ROUNDING ? nmse[i] : ROUNDING;
    }
    return PROBE_LAYER_NONE;
}

void probe_find_layer(struct probe_result *r, const struct model *dut, const struct model *ref,
                      const int32_t *id, uint32_t pos)
{
    uint32_t n_a, n_b, n_embd = dut->c.n_embd, n_layer = dut->c.n_layer;
    float *a = residuals(dut, id, r->n, pos, &n_a), *b = residuals(ref, id, r->n, pos, &n_b);
    double *nmse = calloc(n_layer, sizeof *nmse);
    r->bad_layer = PROBE_LAYER_UNKNOWN;
    if (a && b && nmse && n_a == n_b) {
        for (uint32_t i = 0; i < n_layer; i++) {
            size_t at = (size_t)i * SESSION_STEP * n_embd;
            nmse[i] = worst_row(a + at, b + at, n_a, n_embd);
        }
        r->bad_layer = probe_first_bad(nmse, n_layer);
        r->bad_residual = r->bad_layer >= 0 ? nmse[r->bad_layer] : 0;
    }
    free(a);
    free(b);
    free(nmse);
}
