/* Keys and values of a step into the cache: gpu_kv_append. */
#include "kernels/common.cuh"

#define THREADS 128

static __global__ void __launch_bounds__(THREADS)
    kv_append_kernel(struct gpu_kv kv, const float *k, const float *v, const int32_t *pos)
{
    int32_t p = pos[blockIdx.x];
    if (p < 0 || (uint32_t)p >= kv.n_ctx)
        return;
    uint64_t nk = (uint64_t)kv.n_head_kv * kv.head_dim_k, nv = (uint64_t)kv.n_head_kv * kv.head_dim_v;
    for (uint64_t i = threadIdx.x; i < nk; i += THREADS)
        kv.k[(uint64_t)p * nk + i] = k[blockIdx.x * nk + i];
    for (uint64_t i = threadIdx.x; i < nv; i += THREADS)
        kv.v[(uint64_t)p * nv + i] = v[blockIdx.x * nv + i];
}

int gpu_kv_append(struct gpu_stream *s, const struct gpu_kv *kv, const float *k, const float *v,
                  const int32_t *pos, uint32_t n_tok)
{
    if (n_tok == 0 || n_tok > kv->n_ctx || kv->n_ctx > GPU_MAX_GRID_X || kv->n_head_kv == 0 ||
        kv->head_dim_k == 0 || kv->head_dim_v == 0)
        return gpu_fail(-EINVAL, "kv_append: %u tokens into %u positions of %u heads of %u and %u",
                        n_tok, kv->n_ctx, kv->n_head_kv, kv->head_dim_k, kv->head_dim_v);
    cudaLaunchConfig_t cfg = gpu_shape(s, n_tok, 1, THREADS);
    GPU_LAUNCH(&cfg, kv_append_kernel, *kv, k, v, pos);
    return gpu_launched("kv_append");
}
