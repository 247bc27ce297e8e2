/* The op table over kernels/gpu_ops.h: every op is queued on one stream; upload and download wait for
 * it, so that the caller's memory is its own again when they return. What it computes is defined by
 * infer/cpu/ops.c and held to it by tests. */
#include "infer/gpu_backend.h"

#include "kernels/gpu_ops.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct backend_kv {
    uint32_t n_layer;
    struct gpu_kv layer[];
};

struct gpu_backend {
    struct backend b;
    struct gpu_stream *s;
    uint64_t mem_limit; /* 0: what the device has */
};

static struct gpu_stream *stream(struct backend *b)
{
    return ((struct gpu_backend *)b)->s;
}

/* rc of a call into kernels/, with its story kept for backend_fail(). */
static int told(struct backend *b, int rc)
{
    return rc < 0 ? err_set(&b->e, rc, "%s", gpu_last_error()) : 0;
}

static void gpu_close(struct backend *b)
{
    gpu_stream_free(stream(b));
    free(b);
}

/* The kernel module's version, "580.65.06": finer than the CUDA version that the driver tells, which
 * many releases share; "" where it cannot be read. */
static void module_version(char *buf, size_t n)
{
    FILE *f = fopen("/sys/module/nvidia/version", "re");
    buf[0] = 0;
    if (f && fgets(buf, (int)n, f))
        buf[strcspn(buf, "\n")] = 0;
    if (f)
        fclose(f);
}

static int gpu_identity(struct backend *b, char *buf, size_t n)
{
    struct gpu_info info;
    char version[64] = "";
    int rc = told(b, gpu_device_info(&info));
    if (rc < 0)
        return rc;
    if (!info.emulated)
        module_version(version, sizeof version);
    snprintf(buf, n, "%s, sm_%d%d, driver %d.%d%s%s%s%s", info.name, info.cc_major, info.cc_minor,
             info.driver / 1000, info.driver % 1000 / 10, version[0] ? " (" : "", version,
             version[0] ? ")" : "", info.emulated ? ", emulated" : "");
    for (char *p = buf; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?'; /* a line is a line */
    return 0;
}

static int gpu_alloc_op(struct backend *b, void **p, uint64_t n, const char *what)
{
    void *mem;
    uint64_t size = n ? n : 1;
    int rc = gpu_alloc(&mem, size);
    if (rc < 0)
        return err_set(&b->e, rc, "%s: %s", what, gpu_last_error());
    rc = told(b, gpu_zero(stream(b), mem, (size_t)size));
    if (rc < 0) {
        gpu_free(mem);
        return rc;
    }
    *p = mem;
    return 0;
}

static void gpu_release(struct backend *b, void *p)
{
    (void)b;
    gpu_free(p);
}

static void *gpu_host_view(struct backend *b, void *p)
{
    (void)b;
    (void)p;
    return NULL;
}

static int gpu_sync(struct backend *b)
{
    return told(b, gpu_stream_sync(stream(b)));
}

static int gpu_upload_op(struct backend *b, void *dst, uint64_t off, const void *src, size_t n)
{
    int rc = told(b, gpu_upload(stream(b), (unsigned char *)dst + off, src, n));
    return rc < 0 ? rc : gpu_sync(b);
}

static int gpu_download_op(struct backend *b, void *dst, const void *src, size_t n)
{
    int rc = told(b, gpu_download(stream(b), dst, src, n));
    return rc < 0 ? rc : gpu_sync(b);
}

/* --- staging ------------------------------------------------------------------------------- */

static int gpu_stage_alloc(struct backend *b, void **p, uint64_t n)
{
    return told(b, gpu_host_alloc(p, n));
}

static void gpu_stage_free(struct backend *b, void *p)
{
    (void)b;
    gpu_host_free(p);
}

static int gpu_upload_queue(struct backend *b, void *dst, uint64_t off, const void *src, size_t n)
{
    return told(b, gpu_upload(stream(b), (unsigned char *)dst + off, src, n));
}

/* A mark is an event of our one stream. */
static struct gpu_event *event(struct backend_mark *m)
{
    return (struct gpu_event *)(void *)m;
}

static int gpu_mark_new(struct backend *b, struct backend_mark **m)
{
    struct gpu_event *ev;
    int rc = told(b, gpu_event_new(&ev));
    if (rc == 0)
        *m = (struct backend_mark *)(void *)ev;
    return rc;
}

static void gpu_mark_free(struct backend *b, struct backend_mark *m)
{
    (void)b;
    gpu_event_free(event(m));
}

static int gpu_mark_set(struct backend *b, struct backend_mark *m)
{
    return told(b, gpu_event_record(event(m), stream(b)));
}

static int gpu_mark_wait(struct backend *b, struct backend_mark *m)
{
    return told(b, gpu_event_sync(event(m)));
}

static bool gpu_takes_type_op(struct backend *b, uint32_t type)
{
    (void)b;
    return gpu_takes_type(type);
}

static int gpu_matrix_ready(struct backend *b, struct backend_matrix *m)
{
    (void)b;
    (void)m; /* read as it stands in the file */
    return 0;
}

/* --- the cache ----------------------------------------------------------------------------- */

/* What the device has free now, and of it what the driver and our own launches want beside the
 * tensors. */
static uint64_t gpu_memory(struct backend *b, uint64_t *reserve)
{
    const struct gpu_backend *g = (const struct gpu_backend *)b;
    struct gpu_info info;
    *reserve = 0;
    if (g->mem_limit)
        return g->mem_limit;
    if (gpu_device_info(&info) < 0)
        return UINT64_MAX;
    *reserve = UINT64_C(256) << 20;
    return info.mem_free;
}

/* The driver maps device memory in pages of 2 MiB; what is smaller than half of one shares pages
 * with its like, at multiples of 512. The page that small ones may leave unfilled is the reserve's. */
static uint64_t gpu_alloc_bytes(struct backend *b, uint64_t n)
{
    (void)b;
    const uint64_t unit = n < UINT64_C(1) << 20 ? 512 : UINT64_C(2) << 20;
    n = n ? n : 1;
    return n > UINT64_MAX - unit ? UINT64_MAX : (n + unit - 1) / unit * unit;
}

static uint64_t gpu_kv_bytes(struct backend *b, const struct backend_kv_layer *layer,
                             uint32_t n_layer, uint32_t n_pos)
{
    uint64_t sum = 0, n;
    for (uint32_t i = 0; i < 2 * n_layer; i++) {
        const struct backend_kv_layer *l = &layer[i / 2];
        uint64_t dim = i % 2 ? l->head_dim_v : l->head_dim_k;
        if (__builtin_mul_overflow(l->n_head_kv * (uint64_t)sizeof(float), dim, &n) ||
            __builtin_mul_overflow(n, (uint64_t)n_pos, &n) ||
            __builtin_add_overflow(sum, gpu_alloc_bytes(b, n), &sum))
            return UINT64_MAX;
    }
    return sum;
}

static void gpu_kv_free(struct backend *b, struct backend_kv *kv)
{
    (void)b;
    if (!kv)
        return;
    for (uint32_t i = 0; i < kv->n_layer; i++) {
        gpu_free(kv->layer[i].k);
        gpu_free(kv->layer[i].v);
    }
    free(kv);
}

static int kv_half(struct backend *b, float **p, uint32_t n_pos, uint32_t n_head, uint32_t dim)
{
    uint64_t row = (uint64_t)n_head * dim * sizeof(float), n;
    if (row > UINT32_MAX || __builtin_mul_overflow(row, (uint64_t)n_pos, &n))
        return err_set(&b->e, -ERANGE, "KV cache: %u heads of %u for %u positions", n_head, dim,
                       n_pos);
    void *mem;
    int rc = gpu_alloc_op(b, &mem, n, "KV cache");
    if (rc == 0)
        *p = mem;
    return rc;
}

static int gpu_kv_new(struct backend *b, struct backend_kv **out,
                      const struct backend_kv_layer *layer, uint32_t n_layer, uint32_t n_pos)
{
    struct backend_kv *kv = calloc(1, sizeof *kv + (size_t)n_layer * sizeof kv->layer[0]);
    if (!kv)
        return err_set(&b->e, -ENOMEM, "no memory for a KV cache of %u layers", n_layer);
    kv->n_layer = n_layer;
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n_layer; i++) {
        const struct backend_kv_layer *l = &layer[i];
        kv->layer[i] = (struct gpu_kv){.n_ctx = n_pos,
                                       .n_head_kv = l->n_head_kv,
                                       .head_dim_k = l->head_dim_k,
                                       .head_dim_v = l->head_dim_v};
        rc = kv_half(b, &kv->layer[i].k, n_pos, l->n_head_kv, l->head_dim_k);
        if (rc == 0)
            rc = kv_half(b, &kv->layer[i].v, n_pos, l->n_head_kv, l->head_dim_v);
    }
    if (rc < 0) {
        gpu_kv_free(b, kv);
        return rc;
    }
    *out = kv;
    return 0;
}

static int gpu_kv_append_op(struct backend *b, struct backend_kv *kv, uint32_t layer,
                            const float *k, const float *v, const struct backend_step *st)
{
    const struct gpu_kv *l = &kv->layer[layer];
    if (st->n_tok > l->n_ctx || st->pos0 > l->n_ctx - st->n_tok)
        return err_set(&b->e, -ERANGE, "%u positions from %u on, of a KV cache for %u", st->n_tok,
                       st->pos0, l->n_ctx);
    return told(b, gpu_kv_append(stream(b), l, k, v, st->pos, st->n_tok));
}

/* --- ops ----------------------------------------------------------------------------------- */

static struct gpu_matrix matrix(const struct backend_matrix *w)
{
    return (struct gpu_matrix){w->type, w->n_out, w->n_in, w->data};
}

static int gpu_embed_op(struct backend *b, float *y, const struct backend_matrix *w,
                        const struct backend_step *st, float scale)
{
    struct gpu_matrix m = matrix(w);
    return told(b, gpu_embed(stream(b), y, &m, st->id, st->n_tok, scale));
}

static int gpu_rmsnorm_op(struct backend *b, float *y, const float *x, const float *w,
                          uint32_t n_row, uint32_t n, float eps)
{
    return told(b, gpu_rmsnorm(stream(b), y, x, w, n_row, n, eps));
}

static int gpu_linear_op(struct backend *b, float *const *y,
                         const struct backend_linear *const *lin, uint32_t n_lin, const float *x,
                         uint32_t n_tok)
{
    int rc = 0;
    for (uint32_t i = 0; rc == 0 && i < n_lin; i++) {
        struct gpu_matrix m = matrix(lin[i]->w);
        rc = told(b, gpu_linear(stream(b), y[i], &m, lin[i]->bias, lin[i]->scale,
                                lin[i]->bias_first, x, n_tok));
    }
    return rc;
}

static int gpu_rope_op(struct backend *b, float *x, const struct backend_rope *r,
                       const struct backend_step *st, uint32_t n_head, uint32_t head_dim)
{
    return told(b, gpu_rope(stream(b), x, r->omega, r->mu, r->n_rot, r->neox, st->pos, st->n_tok,
                            n_head, head_dim));
}

static int gpu_attention_op(struct backend *b, float *o, const float *q, struct backend_kv *kv,
                            uint32_t layer, const struct backend_attn *a,
                            const struct backend_step *st)
{
    const struct gpu_kv *l = &kv->layer[layer];
    if (a->n_head_kv != l->n_head_kv || a->head_dim_k != l->head_dim_k ||
        a->head_dim_v != l->head_dim_v)
        return err_set(&b->e, -EINVAL, "attention: layer %u's cache has other heads", layer);
    struct gpu_attn ga = {a->n_head, a->scale, a->softcap, a->window};
    return told(b, gpu_attention(stream(b), o, q, l, &ga, st->pos, st->n_tok));
}

static int gpu_act_mul_op(struct backend *b, float *y, const float *gate, const float *up,
                          uint64_t n, enum backend_act act)
{
    enum gpu_act ga = act == BACKEND_SILU ? GPU_SILU : GPU_GELU;
    return told(b, gpu_act_mul(stream(b), y, gate, up, n, ga));
}

static int gpu_add_op(struct backend *b, float *y, const float *x, uint64_t n)
{
    return told(b, gpu_add(stream(b), y, x, n));
}

static int gpu_softcap_op(struct backend *b, float *y, uint64_t n, float c)
{
    return told(b, gpu_softcap(stream(b), y, n, c));
}

static int gpu_argmax_op(struct backend *b, int32_t *out, const float *x, uint32_t n_row,
                         uint32_t n)
{
    return told(b, gpu_argmax(stream(b), out, x, n_row, n));
}

static int gpu_advance_op(struct backend *b, int32_t *id, int32_t *pos, const int32_t *best,
                          int32_t *history, uint32_t n_history)
{
    return told(b, gpu_advance(stream(b), id, pos, best, history, n_history));
}

/* --- recordings ---------------------------------------------------------------------------- */

/* struct backend_graph is gpu.h's under another name: nobody looks into it here. */

static int gpu_record_begin(struct backend *b)
{
    int rc = gpu_graph_begin(stream(b));
    return rc < 0 ? err_set(&b->e, rc, "%s; --no-graph does without", gpu_last_error()) : 0;
}

static int gpu_record_end(struct backend *b, struct backend_graph **out)
{
    struct gpu_graph *g;
    int rc = told(b, gpu_graph_end(stream(b), &g));
    if (rc == 0)
        *out = (struct backend_graph *)g;
    return rc;
}

static int gpu_replay(struct backend *b, struct backend_graph *g)
{
    return told(b, gpu_graph_launch((struct gpu_graph *)g, stream(b)));
}

static void gpu_graph_free_op(struct backend *b, struct backend_graph *g)
{
    (void)b;
    gpu_graph_free((struct gpu_graph *)g);
}

static const struct backend_ops gpu_ops = {
    .name = "gpu",
    .close = gpu_close,
    .identity = gpu_identity,
    .alloc = gpu_alloc_op,
    .release = gpu_release,
    .host_view = gpu_host_view,
    .upload = gpu_upload_op,
    .download = gpu_download_op,
    .sync = gpu_sync,
    .stage_alloc = gpu_stage_alloc,
    .stage_free = gpu_stage_free,
    .upload_queue = gpu_upload_queue,
    .mark_new = gpu_mark_new,
    .mark_free = gpu_mark_free,
    .mark_set = gpu_mark_set,
    .mark_wait = gpu_mark_wait,
    .takes_type = gpu_takes_type_op,
    .matrix_ready = gpu_matrix_ready,
    .memory = gpu_memory,
    .alloc_bytes = gpu_alloc_bytes,
    .kv_bytes = gpu_kv_bytes,
    .kv_new = gpu_kv_new,
    .kv_free = gpu_kv_free,
    .record_begin = gpu_record_begin,
    .record_end = gpu_record_end,
    .replay = gpu_replay,
    .graph_free = gpu_graph_free_op,
    .embed = gpu_embed_op,
    .rmsnorm = gpu_rmsnorm_op,
    .linear = gpu_linear_op,
    .rope = gpu_rope_op,
    .kv_append = gpu_kv_append_op,
    .attention = gpu_attention_op,
    .act_mul = gpu_act_mul_op,
    .add = gpu_add_op,
    .softcap = gpu_softcap_op,
    .argmax = gpu_argmax_op,
    .advance = gpu_advance_op,
};

int gpu_backend_open(struct backend **out, const struct backend_options *opt, struct err *e)
{
    struct gpu_backend *g = calloc(1, sizeof *g);
    if (!g)
        return err_set(e, -ENOMEM, "no memory for the GPU backend");
    g->b.ops = &gpu_ops;
    g->mem_limit = opt ? opt->mem_limit : 0;
    int rc = gpu_stream_new(&g->s);
    if (rc < 0) {
        free(g);
        return rc == -ENODEV
                   ? err_set(e, rc, "no GPU: %s", gpu_last_error())
                   : err_set(e, rc, "gpu: %s; --device cpu does without", gpu_last_error());
    }
    *out = &g->b;
    return 0;
}
