/* gpu.h and gpu_ops.h in a build without CUDA: everything answers -ENODEV. */
#include "kernels/gpu_ops.h"

#include <errno.h>

const char *gpu_last_error(void)
{
    return "this build has no GPU support (make GPU=cuda)";
}

void gpu_free(void *p)
{
    (void)p;
}

void gpu_host_free(void *p)
{
    (void)p;
}

void gpu_stream_free(struct gpu_stream *s)
{
    (void)s;
}

void gpu_event_free(struct gpu_event *e)
{
    (void)e;
}

void gpu_graph_free(struct gpu_graph *g)
{
    (void)g;
}

bool gpu_takes_type(uint32_t type)
{
    (void)type;
    return false;
}

#pragma GCC diagnostic ignored "-Wunused-parameter" /* they all are */

int gpu_device_info(struct gpu_info *out)
{
    return -ENODEV;
}

int gpu_alloc(void **p, uint64_t n)
{
    return -ENODEV;
}

int gpu_host_alloc(void **p, uint64_t n)
{
    return -ENODEV;
}

int gpu_stream_new(struct gpu_stream **out)
{
    return -ENODEV;
}

int gpu_stream_sync(struct gpu_stream *s)
{
    return -ENODEV;
}

int gpu_upload(struct gpu_stream *s, void *dst, const void *src, size_t n)
{
    return -ENODEV;
}

int gpu_download(struct gpu_stream *s, void *dst, const void *src, size_t n)
{
    return -ENODEV;
}

int gpu_zero(struct gpu_stream *s, void *p, size_t n)
{
    return -ENODEV;
}

int gpu_event_new(struct gpu_event **out)
{
    return -ENODEV;
}

int gpu_event_record(struct gpu_event *e, struct gpu_stream *s)
{
    return -ENODEV;
}

int gpu_event_wait(struct gpu_stream *s, struct gpu_event *e)
{
    return -ENODEV;
}

int gpu_event_sync(struct gpu_event *e)
{
    return -ENODEV;
}

int gpu_graph_begin(struct gpu_stream *s)
{
    return -ENODEV;
}

int gpu_graph_end(struct gpu_stream *s, struct gpu_graph **out)
{
    return -ENODEV;
}

int gpu_graph_launch(struct gpu_graph *g, struct gpu_stream *s)
{
    return -ENODEV;
}

int gpu_embed(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const int32_t *id,
              uint32_t n_tok, float scale)
{
    return -ENODEV;
}

int gpu_rmsnorm(struct gpu_stream *s, float *y, const float *x, const float *w, uint32_t n_row,
                uint32_t n, float eps)
{
    return -ENODEV;
}

int gpu_linear(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const float *bias,
               float scale, bool bias_first, const float *x, uint32_t n_tok)
{
    return -ENODEV;
}

int gpu_rope(struct gpu_stream *s, float *x, const float *omega, float mu, uint32_t n_rot,
             bool neox, const int32_t *pos, uint32_t n_tok, uint32_t n_head, uint32_t head_dim)
{
    return -ENODEV;
}

int gpu_kv_append(struct gpu_stream *s, const struct gpu_kv *kv, const float *k, const float *v,
                  const int32_t *pos, uint32_t n_tok)
{
    return -ENODEV;
}

int gpu_attention(struct gpu_stream *s, float *o, const float *q, const struct gpu_kv *kv,
                  const struct gpu_attn *a, const int32_t *pos, uint32_t n_tok)
{
    return -ENODEV;
}

int gpu_act_mul(struct gpu_stream *s, float *y, const float *gate, const float *up, uint64_t n,
                int act)
{
    return -ENODEV;
}

int gpu_add(struct gpu_stream *s, float *y, const float *x, uint64_t n)
{
    return -ENODEV;
}

int gpu_softcap(struct gpu_stream *s, float *y, uint64_t n, float c)
{
    return -ENODEV;
}

int gpu_argmax(struct gpu_stream *s, int32_t *out, const float *x, uint32_t n_row, uint32_t n)
{
    return -ENODEV;
}

int gpu_advance(struct gpu_stream *s, int32_t *id, int32_t *pos, const int32_t *best,
                int32_t *history, uint32_t n_history)
{
    return -ENODEV;
}
