#include "tests/mutant.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void (*mutant_logits)(float *row, uint32_t n);

static struct model *model;
static enum mutant which;
static const struct backend_ops *right; /* of the backend itself */
static struct backend_ops table;

static int rope(struct backend *b, float *x, const struct backend_rope *r,
                const struct backend_step *st, uint32_t n_head, uint32_t head_dim)
{
    struct backend_rope other = *r;
    other.neox = !r->neox;
    return right->rope(b, x, &other, st, n_head, head_dim);
}

static int rmsnorm(struct backend *b, float *y, const float *x, const float *w, uint32_t n_row,
                   uint32_t n, float eps)
{
    (void)eps;
    return right->rmsnorm(b, y, x, w, n_row, n, 0);
}

/* Rows of data that exchange places, put back afterwards: the weights are as they were. */
static int swap_rows(struct backend *b, const struct backend_matrix *w)
{
    size_t n = w->row_bytes;
    unsigned char *two = malloc(2 * n);
    int rc = two ? right->download(b, two, w->data, 2 * n) : -1;
    if (rc == 0)
        rc = right->upload(b, w->data, 0, two + n, n);
    if (rc == 0)
        rc = right->upload(b, w->data, n, two, n);
    free(two);
    return rc;
}

static int linear(struct backend *b, float *const *y, const struct backend_linear *const *lin,
                  uint32_t n_lin, const float *x, uint32_t n_tok)
{
    struct backend_linear changed[3];
    const struct backend_linear *use[3];
    if (n_lin > 3)
        abort();
    for (uint32_t i = 0; i < n_lin; i++) {
        changed[i] = *lin[i];
        use[i] = &changed[i];
        if (which == MUTANT_NO_BIAS && lin[i] == &model->layer[1].q)
            changed[i].bias = NULL;
    }
    int rc = right->linear(b, y, use, n_lin, x, n_tok);
    if (which == MUTANT_LOGITS && lin[0] == &model->head)
        for (uint32_t t = 0; rc == 0 && t < n_tok; t++)
            mutant_logits(y[0] + (size_t)t * model->c.n_vocab, model->c.n_vocab);
    return rc;
}

static int nan_row(struct backend *b, float *o, const struct backend_attn *a, uint32_t row)
{
    float bad = NAN;
    size_t at = (size_t)row * a->n_head * a->head_dim_v * sizeof bad;
    return right->upload(b, o, at, &bad, sizeof bad);
}

static int attention(struct backend *b, float *o, const float *q, struct backend_kv *kv,
                     uint32_t layer, const struct backend_attn *a, const struct backend_step *st)
{
    struct backend_attn use = *a;
    if (which == MUTANT_WIDE_WINDOW && a->window)
        use.window++;
    if (which == MUTANT_CHUNK_BORDER && st->pos0 >= 192 && st->n_tok > 1)
        use.window = 1;
    int rc = right->attention(b, o, q, kv, layer, &use, st);
    if (rc == 0 && which == MUTANT_NAN && layer == 1 && st->pos0 <= MUTANT_NAN_POS &&
        MUTANT_NAN_POS < st->pos0 + st->n_tok)
        rc = nan_row(b, o, a, MUTANT_NAN_POS - st->pos0);
    if (rc == 0 && which == MUTANT_NAN_LATE && layer == 0 && st->pos0 >= 240 && st->n_tok == 1)
        rc = nan_row(b, o, a, 0);
    return rc;
}

static int softcap(struct backend *b, float *y, uint64_t n, float c)
{
    (void)b, (void)y, (void)n, (void)c;
    return 0;
}

static int argmax(struct backend *b, int32_t *out, const float *x, uint32_t n_row, uint32_t n)
{
    if (n_row != 1)
        abort();
    return right->argmax(b, out, x + 1, 1, n - 1);
}

static int replay(struct backend *b, struct backend_graph *g)
{
    (void)b, (void)g;
    return 0;
}

void mutant_begin(struct model *m, enum mutant w)
{
    model = m;
    which = w;
    right = m->b->ops;
    table = *right;
    table.is_reference = false;
    if (w == MUTANT_ROPE_PAIRS)
        table.rope = rope;
    if (w == MUTANT_NO_EPS)
        table.rmsnorm = rmsnorm;
    if (w == MUTANT_NO_BIAS || w == MUTANT_LOGITS)
        table.linear = linear;
    if (w == MUTANT_WIDE_WINDOW || w == MUTANT_CHUNK_BORDER || w == MUTANT_NAN ||
        w == MUTANT_NAN_LATE)
        table.attention = attention;
    if (w == MUTANT_NO_SOFTCAP)
        table.softcap = softcap;
    if (w == MUTANT_ARGMAX)
        table.argmax = argmax;
    if (w == MUTANT_STALE_GRAPH)
        table.replay = replay;
    if (w == MUTANT_SWAPPED_ROWS && swap_rows(m->b, m->layer[1].down.w) < 0)
        abort();
    m->b->ops = &table;
}

void mutant_end(void)
{
    if (which == MUTANT_SWAPPED_ROWS && swap_rows(model->b, model->layer[1].down.w) < 0)
        abort();
    model->b->ops = right;
}
