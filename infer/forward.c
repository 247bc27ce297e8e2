#include "infer/forward.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct forward {
    const struct model *m;
    struct backend *b;
    uint32_t max_tok;
    int32_t *id, *pos, *best; /* device (max_tok) */
    int32_t *host;            /* ids, then positions: what the next step uploads */
    /* device f32: residual, normed, projections, FFN, logits */
    float *x, *h, *q, *k, *v, *o, *y, *gate, *up, *logits;
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_rc = (call);                                                                       \
        if (try_rc < 0)                                                                            \
            return try_rc;                                                                         \
    } while (0)

static int dev_alloc(struct forward *f, void *pp, uint64_t n, size_t size, struct err *e)
{
    void *p;
    int rc = f->b->ops->alloc(f->b, &p, n * f->max_tok * size, "activations");
    if (rc < 0)
        return backend_fail(f->b, rc, e);
    memcpy(pp, &p, sizeof p);
    return 0;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* The widest rows of any layer. */
struct widths {
    uint64_t q, k, v, o, ff;
};

static struct widths widths_of(const struct model *m)
{
    struct widths w = {0};
    for (uint32_t i = 0; i < m->c.n_layer; i++) {
        const struct model_layer *l = &m->layer[i];
        w.q = larger(w.q, (uint64_t)l->n_head * l->head_dim_k);
        w.k = larger(w.k, (uint64_t)l->n_head_kv * l->head_dim_k);
        w.v = larger(w.v, (uint64_t)l->n_head_kv * l->head_dim_v);
        w.o = larger(w.o, (uint64_t)l->n_head * l->head_dim_v);
        w.ff = larger(w.ff, l->n_ff);
    }
    return w;
}

uint64_t forward_bytes(const struct model *m, uint32_t max_tok)
{
    struct widths w = widths_of(m);
    uint64_t row = 3 * (uint64_t)m->c.n_embd + w.q + w.k + w.v + w.o + 2 * w.ff + m->c.n_vocab;
    return row * max_tok * sizeof(float);
}

static int alloc_all(struct forward *f, struct err *e)
{
    const struct model *m = f->m;
    const struct widths w = widths_of(m);
    uint64_t embd = m->c.n_embd;
    struct {
        float **p;
        uint64_t n;
    } want[] = {
        {&f->x, embd}, {&f->h, embd}, {&f->q, w.q},     {&f->k, w.k},   {&f->v, w.v},
        {&f->o, w.o},  {&f->y, embd}, {&f->gate, w.ff}, {&f->up, w.ff}, {&f->logits, m->c.n_vocab}};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++)
        TRY(dev_alloc(f, want[i].p, want[i].n, sizeof(float), e));
    TRY(dev_alloc(f, &f->id, 1, sizeof(int32_t), e));
    TRY(dev_alloc(f, &f->pos, 1, sizeof(int32_t), e));
    TRY(dev_alloc(f, &f->best, 1, sizeof(int32_t), e));
    f->host = calloc(2 * (size_t)f->max_tok, sizeof *f->host);
    return f->host ? 0 : err_set(e, -ENOMEM, "no memory for activations");
}

int forward_new(struct forward **out, const struct model *m, uint32_t max_tok, struct err *e)
{
    struct forward *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for activations");
    *f = (struct forward){.m = m, .b = m->b, .max_tok = max_tok};
    int rc = alloc_all(f, e);
    if (rc < 0) {
        forward_free(f);
        return rc;
    }
    *out = f;
    return 0;
}

void forward_free(struct forward *f)
{
    if (!f)
        return;
    void *p[] = {f->x,    f->h,  f->q,      f->k,  f->v,   f->o,   f->y,
                 f->gate, f->up, f->logits, f->id, f->pos, f->best};
    for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
        f->b->ops->release(f->b, p[i]);
    free(f->host);
    free(f);
}

uint32_t forward_max_tok(const struct forward *f)
{
    return f->max_tok;
}

const float *forward_logits(const struct forward *f)
{
    return f->logits;
}

/* x += attn(rms(x)) */
static int attention_block(struct forward *f, const struct model_layer *l, uint32_t layer,
                           struct backend_kv *kv, const struct backend_step *st)
{
    const struct model *m = f->m;
    struct backend *b = f->b;
    const struct backend_ops *op = b->ops;
    uint32_t n = st->n_tok, n_embd = m->c.n_embd;
    float eps = m->c.norm_eps;
    const struct backend_linear *qkv[] = {&l->q, &l->k, &l->v}, *wo = &l->o;
    float *out[] = {f->q, f->k, f->v};
    const struct backend_attn a = {
        .n_head = l->n_head,
        .n_head_kv = l->n_head_kv,
        .head_dim_k = l->head_dim_k,
        .head_dim_v = l->head_dim_v,
        .scale = m->c.attn_scale,
        .softcap = m->c.attn_softcap,
        .window = l->window,
    };

    TRY(op->rmsnorm(b, f->h, f->x, l->attn_norm, n, n_embd, eps));
    TRY(op->linear(b, out, qkv, 3, f->h, n));
    if (l->q_norm)
        TRY(op->rmsnorm(b, f->q, f->q, l->q_norm, n * l->n_head, l->head_dim_k, eps));
    if (l->k_norm)
        TRY(op->rmsnorm(b, f->k, f->k, l->k_norm, n * l->n_head_kv, l->head_dim_k, eps));
    if (l->rope) {
        TRY(op->rope(b, f->q, l->rope, st, l->n_head, l->head_dim_k));
        TRY(op->rope(b, f->k, l->rope, st, l->n_head_kv, l->head_dim_k));
    }
    TRY(op->kv_append(b, kv, layer, f->k, f->v, st));
    TRY(op->attention(b, f->o, f->q, kv, layer, &a, st));
    TRY(op->linear(b, &f->y, &wo, 1, f->o, n));
    if (l->post_attn_norm)
        TRY(op->rmsnorm(b, f->y, f->y, l->post_attn_norm, n, n_embd, eps));
    return op->add(b, f->x, f->y, (uint64_t)n * n_embd);
}

/* x += ffn(rms(x)) */
static int ffn_block(struct forward *f, const struct model_layer *l, uint32_t n)
{
    const struct model *m = f->m;
    struct backend *b = f->b;
    const struct backend_ops *op = b->ops;
    uint32_t n_embd = m->c.n_embd;
    const struct backend_linear *gate_up[] = {&l->gate, &l->up}, *down = &l->down;
    float *out[] = {f->gate, f->up};

    TRY(op->rmsnorm(b, f->h, f->x, l->ffn_norm, n, n_embd, m->c.norm_eps));
    TRY(op->linear(b, out, gate_up, 2, f->h, n));
    TRY(op->act_mul(b, f->gate, f->gate, f->up, (uint64_t)n * l->n_ff, m->act));
    TRY(op->linear(b, &f->y, &down, 1, f->gate, n));
    if (l->post_ffn_norm)
        TRY(op->rmsnorm(b, f->y, f->y, l->post_ffn_norm, n, n_embd, m->c.norm_eps));
    return op->add(b, f->x, f->y, (uint64_t)n * n_embd);
}

static int head_block(struct forward *f, uint32_t n_tok, uint32_t n_out)
{
    const struct model *m = f->m;
    struct backend *b = f->b;
    const struct backend_linear *head = &m->head;
    const float *x = f->x + (size_t)(n_tok - n_out) * m->c.n_embd;
    TRY(b->ops->rmsnorm(b, f->h, x, m->output_norm, n_out, m->c.n_embd, m->c.norm_eps));
    TRY(b->ops->linear(b, &f->logits, &head, 1, f->h, n_out));
    if (m->c.final_softcap > 0)
        TRY(b->ops->softcap(b, f->logits, (uint64_t)n_out * m->c.n_vocab, m->c.final_softcap));
    return 0;
}

static int run(struct forward *f, struct backend_kv *kv, const int32_t *id, uint32_t n_tok,
               uint32_t pos0, uint32_t n_out)
{
    const struct model *m = f->m;
    struct backend *b = f->b;
    const struct backend_step st = {.n_tok = n_tok, .id = f->id, .pos = f->pos, .pos0 = pos0};
    for (uint32_t t = 0; t < n_tok; t++) {
        f->host[t] = id[t];
        f->host[f->max_tok + t] = (int32_t)(pos0 + t);
    }
    TRY(b->ops->upload(b, f->id, 0, f->host, n_tok * sizeof *f->host));
    TRY(b->ops->upload(b, f->pos, 0, f->host + f->max_tok, n_tok * sizeof *f->host));
    TRY(b->ops->embed(b, f->x, m->embd, &st, m->c.embed_scale));
    for (uint32_t i = 0; i < m->c.n_layer; i++) {
        TRY(attention_block(f, &m->layer[i], i, kv, &st));
        TRY(ffn_block(f, &m->layer[i], n_tok));
    }
    return n_out ? head_block(f, n_tok, n_out) : 0;
}

int forward_run(struct forward *f, struct backend_kv *kv, const int32_t *id, uint32_t n_tok,
                uint32_t pos0, uint32_t n_out, struct err *e)
{
    if (n_tok == 0 || n_tok > f->max_tok || n_out > n_tok)
        return err_set(e, -EINVAL,
                       "a step of %" PRIu32 " tokens, %" PRIu32
                       " with logits, in room for %" PRIu32,
                       n_tok, n_out, f->max_tok);
    int rc = run(f, kv, id, n_tok, pos0, n_out);
    return rc < 0 ? backend_fail(f->b, rc, e) : 0;
}

int forward_argmax(struct forward *f, int32_t *id, uint32_t n_out, struct err *e)
{
    int rc = f->b->ops->argmax(f->b, f->best, f->logits, n_out, f->m->c.n_vocab);
    if (rc == 0)
        rc = f->b->ops->download(f->b, id, f->best, n_out * sizeof *id);
    return rc < 0 ? backend_fail(f->b, rc, e) : 0;
}

static struct backend_kv_layer *kv_layers(const struct model *m, struct err *e)
{
    struct backend_kv_layer *dim = calloc(m->c.n_layer, sizeof *dim);
    if (!dim)
        err_set(e, -ENOMEM, "no memory for a KV cache");
    for (uint32_t i = 0; dim && i < m->c.n_layer; i++) {
        const struct model_layer *l = &m->layer[i];
        dim[i] = (struct backend_kv_layer){l->n_head_kv, l->head_dim_k, l->head_dim_v, l->window};
    }
    return dim;
}

int forward_kv_bytes(const struct model *m, uint32_t n_pos, uint64_t *n, struct err *e)
{
    struct backend_kv_layer *dim = kv_layers(m, e);
    if (!dim)
        return -ENOMEM;
    *n = m->b->ops->kv_bytes(m->b, dim, m->c.n_layer, m->n_ctx, n_pos);
    free(dim);
    return 0;
}

int forward_kv_new(const struct model *m, struct backend_kv **kv, struct err *e)
{
    struct backend_kv_layer *dim = kv_layers(m, e);
    if (!dim)
        return -ENOMEM;
    int rc = m->b->ops->kv_new(m->b, kv, dim, m->c.n_layer, m->n_ctx);
    free(dim);
    return rc < 0 ? backend_fail(m->b, rc, e) : 0;
}
