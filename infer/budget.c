#include "infer/budget.h"

#include "infer/forward.h"
#include "infer/probe.h"
#include "infer/session.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static void add(uint64_t *sum, uint64_t n)
{
    if (__builtin_add_overflow(*sum, n, sum))
        *sum = UINT64_MAX;
}

static uint64_t *term_of(struct budget *g, enum bind_kind kind)
{
    switch (kind) {
    case BIND_MATRIX:
        return &g->weights;
    case BIND_VECTOR:
        return &g->vectors;
    case BIND_TABLE:
        return &g->tables;
    case BIND_HOST:
        break;
    }
    return NULL;
}

int budget_count(struct budget *out, const struct model *m, const struct bind *x, uint32_t n_pos,
                 struct err *e)
{
    const struct backend_ops *ops = m->b->ops;
    struct budget g = {0};
    g.have = ops->memory(m->b, &g.reserve);
    for (size_t i = 0; i < x->n_item; i++) {
        uint64_t *term = term_of(&g, x->item[i].kind);
        if (term)
            add(term, ops->alloc_bytes(m->b, x->item[i].len));
    }
    if (!ops->is_reference && n_pos && n_pos < PROBE_N_TOK)
        n_pos = PROBE_N_TOK; /* the gate's session, which is freed before the user's */
    g.n_pos = n_pos == 0 || n_pos > m->n_ctx ? m->n_ctx : n_pos;
    g.work = forward_bytes(m, SESSION_STEP, g.n_pos);
    int rc = forward_kv_bytes(m, g.n_pos, &g.kv, e);
    const uint64_t term[] = {g.weights, g.vectors, g.tables, g.kv, g.work, g.reserve};
    for (size_t i = 0; i < sizeof term / sizeof term[0]; i++)
        add(&g.need, term[i]);
    *out = g;
    return rc;
}

/* The longest context whose session fits beside what does not depend on it; 0: none. */
static uint32_t longest_that_fits(const struct budget *g, const struct model *m)
{
    uint64_t rest = g->reserve;
    add(&rest, g->weights);
    add(&rest, g->vectors);
    add(&rest, g->tables);
    uint32_t fits = 0, not_so = g->n_pos; /* of which it is known */
    while (not_so - fits > 1) {
        uint32_t n = fits + (not_so - fits) / 2;
        uint64_t need = rest, kv;
        if (forward_kv_bytes(m, n, &kv, NULL) < 0)
            return 0;
        add(&need, kv);
        add(&need, forward_bytes(m, SESSION_STEP, n));
        if (need <= g->have)
            fits = n;
        else
            not_so = n;
    }
    return fits;
}

int budget_check(const struct model *m, const struct bind *x, uint32_t n_pos, struct err *e)
{
    struct budget g;
    int rc = budget_count(&g, m, x, n_pos, e);
    if (rc < 0 || g.need <= g.have)
        return rc;
    char way[96];
    uint32_t fits = longest_that_fits(&g, m);
    if (fits)
        snprintf(way, sizeof way, "--ctx-size %" PRIu32 " or less would fit", fits);
    else
        snprintf(way, sizeof way, "no context is short enough (--ctx-size)");
    return err_set(e, -ERANGE,
                   "not enough memory for backend %s: weights %" PRIu64 " + vectors %" PRIu64
                   " + rope tables %" PRIu64 " + KV cache %" PRIu64 " (%" PRIu32
                   " positions) + activations %" PRIu64 " + reserve %" PRIu64 " = %" PRIu64
                   " bytes, available are %" PRIu64 "; %s%s",
                   m->b->ops->name, g.weights, g.vectors, g.tables, g.kv, g.n_pos, g.work,
                   g.reserve, g.need, g.have, way,
                   m->b->ops->is_reference ? "" : "; --device cpu takes the host's memory instead");
}
