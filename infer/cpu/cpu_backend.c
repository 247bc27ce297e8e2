/* Fills the op table from cpu/ops: splits rows, tokens and heads over the pool. Memory is the
 * host's own; ops are done when they return. */
#include "infer/cpu/cpu_backend.h"

#include "infer/cpu/ops.h"
#include "infer/cpu/pool.h"
#include "infer/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct kv_layer {
    struct backend_kv_layer dim;
    float *k, *v; /* (n_ctx, n_head_kv, head_dim) */
};

struct backend_kv {
    uint32_t n_pos, n_layer;
    struct kv_layer layer[];
};

/* Anonymous memory: zeros that cost nothing until touched, which a long context never may be. */
struct block {
    uint64_t n;
    unsigned char pad[56]; /* keeps what follows at a multiple of 64 */
    unsigned char bytes[];
};

struct cpu_backend {
    struct backend b;
    struct pool *pool;
    uint32_t n_thread;
    uint64_t mem_limit; /* 0: what the machine has */
    void **row;         /* [n_thread] f32 scratch for one dequantised row */
    void **score;       /* [n_thread] f32, for one head's scores */
    void **mix;         /* [n_thread] f64, for one head's output */
    uint32_t row_cap, score_cap, mix_cap;
};

static struct cpu_backend *cpu(struct backend *b)
{
    return (struct cpu_backend *)b;
}

static int cpu_identity(struct backend *b, char *buf, size_t n)
{
    (void)b;
    snprintf(buf, n, "cpu");
    return 0;
}

static int cpu_alloc(struct backend *b, void **p, uint64_t n, const char *what)
{
    uint64_t len = n + sizeof(struct block);
    if (len < n || len > SIZE_MAX / 2)
        return err_set(&b->e, -ERANGE, "%s: %" PRIu64 " bytes are more than memory can name", what,
                       n);
    int prot = PROT_READ | PROT_WRITE;
    void *blk_mem = mmap(NULL, len, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (blk_mem == MAP_FAILED)
        return err_set(&b->e, -ENOMEM, "%s: no memory for %" PRIu64 " bytes", what, n);
    struct block *blk = blk_mem;
    if (len >= UINT64_C(4) << 20)
        madvise(blk, (size_t)len, MADV_HUGEPAGE); /* a wish; refused on some kernels, harmless */
    blk->n = len;
    *p = blk->bytes;
    return 0;
}

static void cpu_release(struct backend *b, void *p)
{
    (void)b;
    if (!p)
        return;
    struct block *blk = (struct block *)(void *)((unsigned char *)p - sizeof(struct block));
    munmap(blk, (size_t)blk->n);
}

static void *cpu_host_view(struct backend *b, void *p)
{
    (void)b;
    return p;
}

static int cpu_upload(struct backend *b, void *dst, uint64_t off, const void *src, size_t n)
{
    (void)b;
    memcpy((unsigned char *)dst + off, src, n);
    return 0;
}

static int cpu_download(struct backend *b, void *dst, const void *src, size_t n)
{
    (void)b;
    memcpy(dst, src, n);
    return 0;
}

static int cpu_sync(struct backend *b)
{
    (void)b;
    return 0;
}

static bool cpu_takes_type(struct backend *b, uint32_t type)
{
    (void)b;
    const struct quant_type *qt = quant_type(type);
    return qt && qt->f32;
}

/* Per-thread scratch of at least n elements; kept, and only ever grown outside of ops. */
static int cpu_scratch(struct cpu_backend *c, void **slot, uint32_t *cap, uint64_t n, size_t size)
{
    if (n <= *cap)
        return 0;
    if (n > UINT32_MAX)
        return err_set(&c->b.e, -ERANGE, "scratch of %" PRIu64 " elements", n);
    for (uint32_t i = 0; i < c->n_thread; i++) {
        cpu_release(&c->b, slot[i]);
        slot[i] = NULL;
    }
    *cap = 0;
    for (uint32_t i = 0; i < c->n_thread; i++) {
        int rc = cpu_alloc(&c->b, &slot[i], n * size, "scratch");
        if (rc < 0)
            return rc;
    }
    *cap = (uint32_t)n;
    return 0;
}

static int cpu_matrix_ready(struct backend *b, struct backend_matrix *m)
{
    struct cpu_backend *c = cpu(b);
    return cpu_scratch(c, c->row, &c->row_cap, m->n_in, sizeof(float));
}

static uint64_t cpu_memory(struct backend *b, uint64_t *reserve)
{
    uint64_t limit = cpu(b)->mem_limit;
    *reserve = 0;
    return limit ? limit : memory_available("");
}

/* Whole pages, with the block's own head. */
static uint64_t cpu_alloc_bytes(struct backend *b, uint64_t n)
{
    (void)b;
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), more = sizeof(struct block) + page - 1;
    return n > UINT64_MAX - more ? UINT64_MAX : (n + more) / page * page;
}

/* In whole pages. */
static bool kv_half_bytes(uint64_t row, uint32_t n_pos, uint64_t *sum)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    uint64_t n;
    if (__builtin_mul_overflow(row, (uint64_t)n_pos, &n) || n > UINT64_MAX / 2)
        return false;
    return !__builtin_add_overflow(*sum, (n + page - 1) / page * page, sum);
}

static uint64_t cpu_kv_bytes(struct backend *b, const struct backend_kv_layer *layer,
                             uint32_t n_layer, uint32_t n_pos)
{
    uint64_t sum = (uint64_t)cpu(b)->n_thread * n_pos * sizeof(float); /* scores */
    for (uint32_t i = 0; i < n_layer; i++) {
        uint64_t head = layer[i].n_head_kv * (uint64_t)sizeof(float);
        if (!kv_half_bytes(head * layer[i].head_dim_k, n_pos, &sum) ||
            !kv_half_bytes(head * layer[i].head_dim_v, n_pos, &sum))
            return UINT64_MAX;
    }
    return sum;
}

static void cpu_kv_free(struct backend *b, struct backend_kv *kv)
{
    if (!kv)
        return;
    for (uint32_t i = 0; i < kv->n_layer; i++) {
        cpu_release(b, kv->layer[i].k);
        cpu_release(b, kv->layer[i].v);
    }
    free(kv);
}

static int kv_alloc_half(struct backend *b, float **p, uint32_t n_pos, uint32_t n_head,
                         uint32_t dim)
{
    uint64_t row = (uint64_t)n_head * dim * sizeof(float), n;
    if (row > UINT32_MAX || __builtin_mul_overflow(row, (uint64_t)n_pos, &n))
        return err_set(&b->e, -ERANGE, "KV cache: %u heads of %u for %u positions", n_head, dim,
                       n_pos);
    void *mem;
    int rc = cpu_alloc(b, &mem, n, "KV cache");
    if (rc < 0)
        return rc;
    /* Small pages: most of a long context is never touched, and a huge page would be for each half
     * of each layer from the first token on: 126 MB for 30 layers. */
    struct block *blk = (struct block *)(void *)((unsigned char *)mem - sizeof(struct block));
    madvise(blk, (size_t)blk->n, MADV_NOHUGEPAGE);
    *p = mem;
    return 0;
}

static int cpu_kv_new(struct backend *b, struct backend_kv **out,
                      const struct backend_kv_layer *layer, uint32_t n_layer, uint32_t n_pos)
{
    struct cpu_backend *c = cpu(b);
    struct backend_kv *kv = calloc(1, sizeof *kv + (size_t)n_layer * sizeof kv->layer[0]);
    if (!kv)
        return err_set(&b->e, -ENOMEM, "no memory for a KV cache of %u layers", n_layer);
    kv->n_pos = n_pos;
    kv->n_layer = n_layer;
    int rc = cpu_scratch(c, c->score, &c->score_cap, n_pos, sizeof(float));
    for (uint32_t i = 0; rc == 0 && i < n_layer; i++) {
        kv->layer[i].dim = layer[i];
        rc = kv_alloc_half(b, &kv->layer[i].k, n_pos, layer[i].n_head_kv, layer[i].head_dim_k);
        if (rc == 0)
            rc = kv_alloc_half(b, &kv->layer[i].v, n_pos, layer[i].n_head_kv, layer[i].head_dim_v);
        if (rc == 0)
            rc = cpu_scratch(c, c->mix, &c->mix_cap, layer[i].head_dim_v, sizeof(double));
    }
    if (rc < 0) {
        cpu_kv_free(b, kv);
        return rc;
    }
    *out = kv;
    return 0;
}

struct embed_job {
    float *y;
    const struct backend_matrix *w;
    const struct quant_type *qt;
    const int32_t *id;
    float scale;
};

static void embed_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    (void)thread;
    const struct embed_job *j = ctx;
    for (uint64_t t = begin; t < end; t++)
        cpu_embed_row(j->y + t * j->w->n_in, j->w, j->qt, (uint32_t)j->id[t], j->scale);
}

static int cpu_embed(struct backend *b, float *y, const struct backend_matrix *w,
                     const struct backend_step *st, float scale)
{
    struct embed_job j = {y, w, quant_type(w->type), st->id, scale};
    pool_run(cpu(b)->pool, embed_run, &j, st->n_tok, 4);
    return 0;
}

struct rmsnorm_job {
    float *y;
    const float *x, *w;
    uint32_t n;
    float eps;
};

static void rmsnorm_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    (void)thread;
    const struct rmsnorm_job *j = ctx;
    for (uint64_t r = begin; r < end; r++)
        cpu_rmsnorm_row(j->y + r * j->n, j->x + r * j->n, j->w, j->n, j->eps);
}

static int cpu_rmsnorm(struct backend *b, float *y, const float *x, const float *w, uint32_t n_row,
                       uint32_t n, float eps)
{
    struct rmsnorm_job j = {y, x, w, n, eps};
    pool_run(cpu(b)->pool, rmsnorm_run, &j, n_row, 1 + 16384 / n);
    return 0;
}

#define LINEAR_MAX 4

/* Several matrices over one input are one list of rows. */
struct linear_job {
    struct cpu_backend *c;
    float *const *y;
    const struct backend_linear *const *lin;
    const struct quant_type *qt[LINEAR_MAX];
    uint64_t start[LINEAR_MAX + 1];
    uint32_t n_lin, n_tok;
    const float *x;
};

static void linear_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    const struct linear_job *j = ctx;
    for (uint32_t i = 0; i < j->n_lin; i++) {
        uint64_t from = begin > j->start[i] ? begin : j->start[i];
        uint64_t to = end < j->start[i + 1] ? end : j->start[i + 1];
        if (from < to)
            cpu_linear_rows(j->y[i], j->lin[i], j->qt[i], j->x, j->n_tok,
                            (uint32_t)(from - j->start[i]), (uint32_t)(to - j->start[i]),
                            j->c->row[thread]);
    }
}

static int cpu_linear(struct backend *b, float *const *y, const struct backend_linear *const *lin,
                      uint32_t n_lin, const float *x, uint32_t n_tok)
{
    struct linear_job j = {.c = cpu(b), .y = y, .lin = lin, .n_lin = n_lin, .n_tok = n_tok, .x = x};
    if (n_lin > LINEAR_MAX)
        return err_set(&b->e, -EINVAL, "linear: %u matrices in one call", n_lin);
    for (uint32_t i = 0; i < n_lin; i++) {
        j.qt[i] = quant_type(lin[i]->w->type);
        j.start[i + 1] = j.start[i] + lin[i]->w->n_out;
        if (lin[i]->w->n_in > j.c->row_cap)
            return err_set(&b->e, -EINVAL, "linear: matrix_ready() was not called");
    }
    pool_run(j.c->pool, linear_run, &j, j.start[n_lin], 8);
    return 0;
}

struct rope_job {
    float *x;
    const struct backend_rope *r;
    const int32_t *pos;
    uint32_t n_head, head_dim;
};

static void rope_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    (void)thread;
    const struct rope_job *j = ctx;
    for (uint64_t t = begin; t < end; t++)
        cpu_rope_token(j->x + t * j->n_head * j->head_dim, j->r, j->pos[t], j->n_head, j->head_dim);
}

static int cpu_rope(struct backend *b, float *x, const struct backend_rope *r,
                    const struct backend_step *st, uint32_t n_head, uint32_t head_dim)
{
    struct rope_job j = {x, r, st->pos, n_head, head_dim};
    pool_run(cpu(b)->pool, rope_run, &j, st->n_tok, 4);
    return 0;
}

static int cpu_kv_append(struct backend *b, struct backend_kv *kv, uint32_t layer, const float *k,
                         const float *v, const struct backend_step *st)
{
    const struct kv_layer *l = &kv->layer[layer];
    size_t nk = (size_t)l->dim.n_head_kv * l->dim.head_dim_k;
    size_t nv = (size_t)l->dim.n_head_kv * l->dim.head_dim_v;
    for (uint32_t t = 0; t < st->n_tok; t++) {
        uint32_t pos = (uint32_t)st->pos[t];
        if (pos >= kv->n_pos)
            return err_set(&b->e, -ERANGE, "position %u of a KV cache for %u", pos, kv->n_pos);
        memcpy(l->k + pos * nk, k + t * nk, nk * sizeof(float));
        memcpy(l->v + pos * nv, v + t * nv, nv * sizeof(float));
    }
    return 0;
}

struct attention_job {
    struct cpu_backend *c;
    float *o;
    const float *q;
    const struct kv_layer *l;
    const struct backend_attn *a;
    const int32_t *pos;
};

static void attention_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    const struct attention_job *j = ctx;
    const struct backend_attn *a = j->a;
    size_t nk = (size_t)a->n_head_kv * a->head_dim_k, nv = (size_t)a->n_head_kv * a->head_dim_v;
    for (uint64_t i = begin; i < end; i++) { /* (token, q head) */
        uint64_t t = i / a->n_head, h = i % a->n_head;
        uint64_t g = h * a->n_head_kv / a->n_head;
        cpu_attention_head(j->o + i * a->head_dim_v, j->q + i * a->head_dim_k,
                           j->l->k + g * a->head_dim_k, nk, j->l->v + g * a->head_dim_v, nv, a,
                           j->pos[t], j->c->score[thread], j->c->mix[thread]);
    }
}

static int cpu_attention(struct backend *b, float *o, const float *q, struct backend_kv *kv,
                         uint32_t layer, const struct backend_attn *a,
                         const struct backend_step *st)
{
    struct attention_job j = {cpu(b), o, q, &kv->layer[layer], a, st->pos};
    pool_run(j.c->pool, attention_run, &j, (uint64_t)st->n_tok * a->n_head, 1);
    return 0;
}

struct map_job {
    float *y;
    const float *x, *up;
    float c;
    enum backend_act act;
};

static void act_mul_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    (void)thread;
    const struct map_job *j = ctx;
    cpu_act_mul(j->y + begin, j->x + begin, j->up + begin, end - begin, j->act);
}

static int cpu_act_mul_op(struct backend *b, float *y, const float *gate, const float *up,
                          uint64_t n, enum backend_act act)
{
    struct map_job j = {.y = y, .x = gate, .up = up, .act = act};
    pool_run(cpu(b)->pool, act_mul_run, &j, n, 1024);
    return 0;
}

static int cpu_add_op(struct backend *b, float *y, const float *x, uint64_t n)
{
    (void)b;
    cpu_add(y, x, n);
    return 0;
}

static void softcap_run(void *ctx, uint32_t thread, uint64_t begin, uint64_t end)
{
    (void)thread;
    const struct map_job *j = ctx;
    cpu_softcap(j->y + begin, end - begin, j->c);
}

static int cpu_softcap_op(struct backend *b, float *y, uint64_t n, float c)
{
    struct map_job j = {.y = y, .c = c};
    pool_run(cpu(b)->pool, softcap_run, &j, n, 4096);
    return 0;
}

static int cpu_argmax_op(struct backend *b, int32_t *out, const float *x, uint32_t n_row,
                         uint32_t n)
{
    (void)b;
    for (uint32_t r = 0; r < n_row; r++)
        out[r] = cpu_argmax(x + (size_t)r * n, n);
    return 0;
}

static int cpu_advance_op(struct backend *b, int32_t *id, int32_t *pos, const int32_t *best,
                          int32_t *history, uint32_t n_history)
{
    (void)b;
    cpu_advance(id, pos, best, history, n_history);
    return 0;
}

static void cpu_close(struct backend *b)
{
    struct cpu_backend *c = cpu(b);
    for (uint32_t i = 0; i < c->n_thread; i++) {
        if (c->row)
            cpu_release(b, c->row[i]);
        if (c->score)
            cpu_release(b, c->score[i]);
        if (c->mix)
            cpu_release(b, c->mix[i]);
    }
    free(c->row);
    free(c->score);
    free(c->mix);
    pool_free(c->pool);
    free(c);
}

static const struct backend_ops cpu_ops = {
    .name = "cpu",
    .is_reference = true,
    .close = cpu_close,
    .identity = cpu_identity,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .host_view = cpu_host_view,
    .upload = cpu_upload,
    .download = cpu_download,
    .sync = cpu_sync,
    .takes_type = cpu_takes_type,
    .matrix_ready = cpu_matrix_ready,
    .memory = cpu_memory,
    .alloc_bytes = cpu_alloc_bytes,
    .kv_bytes = cpu_kv_bytes,
    .kv_new = cpu_kv_new,
    .kv_free = cpu_kv_free,
    .embed = cpu_embed,
    .rmsnorm = cpu_rmsnorm,
    .linear = cpu_linear,
    .rope = cpu_rope,
    .kv_append = cpu_kv_append,
    .attention = cpu_attention,
    .act_mul = cpu_act_mul_op,
    .add = cpu_add_op,
    .softcap = cpu_softcap_op,
    .argmax = cpu_argmax_op,
    .advance = cpu_advance_op,
};

int cpu_backend_open(struct backend **out, const struct backend_options *opt, struct err *e)
{
    struct cpu_backend *c = calloc(1, sizeof *c);
    if (!c)
        return err_set(e, -ENOMEM, "no memory for the CPU backend");
    c->b.ops = &cpu_ops;
    c->mem_limit = opt ? opt->mem_limit : 0;
    int rc = pool_new(&c->pool, opt ? opt->n_thread : 0, e);
    if (rc == 0) {
        c->n_thread = pool_n_thread(c->pool);
        c->row = calloc(c->n_thread, sizeof *c->row);
        c->score = calloc(c->n_thread, sizeof *c->score);
        c->mix = calloc(c->n_thread, sizeof *c->mix);
        if (!c->row || !c->score || !c->mix)
            rc = err_set(e, -ENOMEM, "no memory for %u threads' scratch", c->n_thread);
    }
    if (rc < 0) {
        cpu_close(&c->b);
        return rc;
    }
    *out = &c->b;
    return 0;
}
