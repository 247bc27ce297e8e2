#include "infer/forward.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Where the last step left its greedy choice. */
enum chosen {
    CHOSEN_NONE,    /* it had no logits */
    CHOSEN_BEST,    /* best[0] */
    CHOSEN_HISTORY, /* history[at_pos - 1]; id[0] is the same on the device */
};

struct forward {
    const struct model *m;
    struct backend *b;
    struct forward_options opt;
    struct forward_tap tap; /* .layer NULL: none */
    struct err *tap_err;    /* where its story goes during a step */
    bool tap_failed;        /* that is the step's error, not one of the backend */
    struct backend_kv *kv;
    int32_t *id, *pos; /* device (max_tok): the rows of a step; one token: id[0] at pos[0] */
    int32_t *best;     /* device (1) */
    int32_t *history;  /* device (n_pos): the token chosen at each position by forward_step */
    int32_t *host;     /* ids, then positions: what the next forward_run uploads */
    /* device f32: residual, normed, projections, FFN, logits */
    float *x, *h, *q, *k, *v, *o, *y, *gate, *up, *logits;

    /* What the host knows of id[0] and pos[0]; -1: nothing. */
    int32_t at_id, at_pos;
    enum chosen chosen;
    bool warm;                   /* forward_step's ops ran once */
    struct backend_graph *graph; /* forward_step's ops, or NULL: not recorded yet */
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_rc = (call);                                                                       \
        if (try_rc < 0)                                                                            \
            return try_rc;                                                                         \
    } while (0)

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
    *n = m->b->ops->kv_bytes(m->b, dim, m->c.n_layer, n_pos);
    free(dim);
    return 0;
}

static int kv_new(struct forward *f, struct err *e)
{
    const struct model *m = f->m;
    struct backend_kv_layer *dim = kv_layers(m, e);
    if (!dim)
        return -ENOMEM;
    int rc = f->b->ops->kv_new(f->b, &f->kv, dim, m->c.n_layer, f->opt.n_pos);
    free(dim);
    return rc < 0 ? backend_fail(f->b, rc, e) : 0;
}

/* Everything on the device but the KV cache: one list for what is counted, allocated and released. */
enum { N_BUFFER = 14 };
struct buffer {
    size_t at;  /* of its pointer in struct forward */
    uint64_t n; /* bytes */
};

static void buffers_of(struct buffer out[N_BUFFER], const struct model *m, uint32_t max_tok,
                       uint32_t n_pos)
{
    const struct widths w = widths_of(m);
    const uint64_t row = max_tok * sizeof(float), embd = m->c.n_embd;
    const struct buffer b[N_BUFFER] = {
        {offsetof(struct forward, x), embd * row},
        {offsetof(struct forward, h), embd * row},
        {offsetof(struct forward, q), w.q * row},
        {offsetof(struct forward, k), w.k * row},
        {offsetof(struct forward, v), w.v * row},
        {offsetof(struct forward, o), w.o * row},
        {offsetof(struct forward, y), embd * row},
        {offsetof(struct forward, gate), w.ff * row},
        {offsetof(struct forward, up), w.ff * row},
        {offsetof(struct forward, logits), m->c.n_vocab * row},
        {offsetof(struct forward, id), max_tok * sizeof(int32_t)},
        {offsetof(struct forward, pos), max_tok * sizeof(int32_t)},
        {offsetof(struct forward, best), sizeof(int32_t)},
        {offsetof(struct forward, history), n_pos * sizeof(int32_t)},
    };
    memcpy(out, b, sizeof b);
}

uint64_t forward_bytes(const struct model *m, uint32_t max_tok, uint32_t n_pos)
{
    struct buffer buf[N_BUFFER];
    uint64_t sum = 0;
    buffers_of(buf, m, max_tok, n_pos);
    for (int i = 0; i < N_BUFFER; i++)
        if (__builtin_add_overflow(sum, m->b->ops->alloc_bytes(m->b, buf[i].n), &sum))
            return UINT64_MAX;
    return sum;
}

static int alloc_all(struct forward *f, struct err *e)
{
    struct buffer buf[N_BUFFER];
    buffers_of(buf, f->m, f->opt.max_tok, f->opt.n_pos);
    for (int i = 0; i < N_BUFFER; i++) {
        void *p;
        int rc = f->b->ops->alloc(f->b, &p, buf[i].n, "activations");
        if (rc < 0)
            return backend_fail(f->b, rc, e);
        memcpy((unsigned char *)f + buf[i].at, &p, sizeof p);
    }
    f->host = calloc(2 * (size_t)f->opt.max_tok, sizeof *f->host);
    return f->host ? 0 : err_set(e, -ENOMEM, "no memory for activations");
}

int forward_new(struct forward **out, const struct model *m, const struct forward_options *opt,
                struct err *e)
{
    struct forward *f = calloc(1, sizeof *f);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for activations");
    *f = (struct forward){.m = m, .b = m->b, .opt = *opt, .at_id = -1, .at_pos = -1};
    int rc = alloc_all(f, e);
    if (rc == 0)
        rc = kv_new(f, e);
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
    if (f->graph)
        f->b->ops->graph_free(f->b, f->graph);
    f->b->ops->kv_free(f->b, f->kv);
    struct buffer buf[N_BUFFER];
    buffers_of(buf, f->m, 0, 0);
    for (int i = 0; i < N_BUFFER; i++) {
        void *p;
        memcpy(&p, (const unsigned char *)f + buf[i].at, sizeof p);
        f->b->ops->release(f->b, p);
    }
    free(f->host);
    free(f);
}

void forward_set_tap(struct forward *f, const struct forward_tap *tap)
{
    f->tap = tap ? *tap : (struct forward_tap){0};
}

const float *forward_logits(const struct forward *f)
{
    return f->logits;
}

/* x += attn(rms(x)) */
static int attention_block(struct forward *f, const struct model_layer *l, uint32_t layer,
                           const struct backend_step *st)
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
    TRY(op->kv_append(b, f->kv, layer, f->k, f->v, st));
    TRY(op->attention(b, f->o, f->q, f->kv, layer, &a, st));
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

static int show(struct forward *f, uint32_t layer, uint32_t n_tok)
{
    int rc = f->tap.layer(f->tap.ctx, layer, f->x, n_tok, f->tap_err);
    f->tap_failed = rc < 0;
    return rc < 0 ? rc : 0;
}

/* Embedding to logits: what can be recorded. Everything it reads of the step is on the device. */
static int pass(struct forward *f, const struct backend_step *st, uint32_t n_out)
{
    const struct model *m = f->m;
    TRY(f->b->ops->embed(f->b, f->x, m->embd, st, m->c.embed_scale));
    for (uint32_t i = 0; i < m->c.n_layer; i++) {
        TRY(attention_block(f, &m->layer[i], i, st));
        TRY(ffn_block(f, &m->layer[i], st->n_tok));
        if (f->tap.layer)
            TRY(show(f, i, st->n_tok));
    }
    return n_out ? head_block(f, st->n_tok, n_out) : 0;
}

/* The greedy choice from the last of n_out rows of logits. */
static int choose(struct forward *f, uint32_t n_out)
{
    uint32_t n = f->m->c.n_vocab;
    return f->b->ops->argmax(f->b, f->best, f->logits + (size_t)(n_out - 1) * n, 1, n);
}

static int run(struct forward *f, const int32_t *id, uint32_t n_tok, uint32_t pos0, uint32_t n_out)
{
    struct backend *b = f->b;
    const struct backend_step st = {.n_tok = n_tok, .id = f->id, .pos = f->pos, .pos0 = pos0};
    int32_t *host_pos = f->host + f->opt.max_tok;
    for (uint32_t t = 0; t < n_tok; t++) {
        f->host[t] = id[t];
        host_pos[t] = (int32_t)(pos0 + t);
    }
    f->at_id = f->at_pos = -1;
    TRY(b->ops->upload(b, f->id, 0, f->host, n_tok * sizeof *f->host));
    TRY(b->ops->upload(b, f->pos, 0, host_pos, n_tok * sizeof *f->host));
    TRY(pass(f, &st, n_out));
    if (n_out == 0)
        return 0;
    TRY(choose(f, n_out));
    f->chosen = CHOSEN_BEST;
    return 0;
}

/* Do n_tok more positions from pos0 on fit? */
static int check_positions(const struct forward *f, uint32_t n_tok, uint32_t pos0, struct err *e)
{
    if (n_tok <= f->opt.n_pos && pos0 <= f->opt.n_pos - n_tok)
        return 0;
    return err_set(e, -ERANGE,
                   "%" PRIu32 " tokens from position %" PRIu32 " on, in room for %" PRIu32, n_tok,
                   pos0, f->opt.n_pos);
}

static void step_begin(struct forward *f, struct err *e)
{
    f->chosen = CHOSEN_NONE;
    f->tap_err = e;
    f->tap_failed = false;
}

static int step_end(struct forward *f, int rc, struct err *e)
{
    f->tap_err = NULL;
    return rc < 0 && !f->tap_failed ? backend_fail(f->b, rc, e) : rc;
}

int forward_run(struct forward *f, const int32_t *id, uint32_t n_tok, uint32_t pos0, uint32_t n_out,
                struct err *e)
{
    if (n_tok == 0 || n_tok > f->opt.max_tok || n_out > n_tok)
        return err_set(e, -EINVAL,
                       "a step of %" PRIu32 " tokens, %" PRIu32
                       " with logits, in room for %" PRIu32,
                       n_tok, n_out, f->opt.max_tok);
    int rc = check_positions(f, n_tok, pos0, e);
    if (rc < 0)
        return rc;
    step_begin(f, e);
    return step_end(f, run(f, id, n_tok, pos0, n_out), e);
}

/* One token, from id[0] and pos[0] to the next one's id[0] and pos[0]. */
static int token_ops(struct forward *f, uint32_t pos)
{
    const struct backend_step st = {.n_tok = 1, .id = f->id, .pos = f->pos, .pos0 = pos};
    TRY(pass(f, &st, 1));
    TRY(choose(f, 1));
    return f->b->ops->advance(f->b, f->id, f->pos, f->best, f->history, f->opt.n_pos);
}

/* A recording that failed half way is ended all the same: the stream is of no use before. */
static int record(struct forward *f, uint32_t pos)
{
    struct backend *b = f->b;
    struct backend_graph *g = NULL;
    TRY(b->ops->record_begin(b));
    int rc = token_ops(f, pos);
    const struct err first = b->e;
    int end_rc = b->ops->record_end(b, &g);
    if (rc == 0)
        rc = end_rc;
    else
        b->e = first;
    if (rc < 0) {
        b->ops->graph_free(b, g);
        return rc;
    }
    f->graph = g;
    return 0;
}

static int step(struct forward *f, int32_t id, int32_t pos)
{
    struct backend *b = f->b;
    bool same_id = id == f->at_id, same_pos = pos == f->at_pos;
    f->at_id = f->at_pos = -1;
    if (!same_id)
        TRY(b->ops->upload(b, f->id, 0, &id, sizeof id));
    if (!same_pos)
        TRY(b->ops->upload(b, f->pos, 0, &pos, sizeof pos));
    bool direct = !b->ops->record_begin || f->opt.no_graph || f->tap.layer || !f->warm;
    if (direct) {
        TRY(token_ops(f, (uint32_t)pos));
        f->warm = true;
    } else {
        if (!f->graph)
            TRY(record(f, (uint32_t)pos));
        TRY(b->ops->replay(b, f->graph));
    }
    f->at_pos = pos + 1;
    f->chosen = CHOSEN_HISTORY;
    return 0;
}

int forward_step(struct forward *f, int32_t id, uint32_t pos, struct err *e)
{
    int rc = check_positions(f, 1, pos, e);
    if (rc < 0)
        return rc;
    step_begin(f, e);
    return step_end(f, step(f, id, (int32_t)pos), e);
}

int forward_best(struct forward *f, int32_t *best, struct err *e)
{
    if (f->chosen == CHOSEN_NONE)
        return err_set(e, -EINVAL, "the last step chose no token");
    bool stepped = f->chosen == CHOSEN_HISTORY;
    const int32_t *at = stepped ? f->history + f->at_pos - 1 : f->best;
    int rc = f->b->ops->download(f->b, best, at, sizeof *best);
    if (rc < 0)
        return backend_fail(f->b, rc, e);
    if (stepped)
        f->at_id = *best;
    return 0;
}
