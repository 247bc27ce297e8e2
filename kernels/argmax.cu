/* The greedy token, without copying the logits out: gpu_argmax, gpu_advance. */
#include "kernels/common.cuh"

#define THREADS 256

/* The index of a candidate that is not finite: it wins over all, so that the row's answer is -1. */
#define BAD UINT32_MAX

/* Does (v, i) beat (best, at)? The larger the smaller, the lower index a tie. */
static __device__ __forceinline__ bool beats(float v, uint32_t i, float best, uint32_t at)
{
    if (i == BAD || at == BAD)
        return at != BAD;
    return v > best || (v == best && i < at);
}

/* i, or BAD if v is infinite or no number: then v - v is no number. */
static __device__ __forceinline__ uint32_t index_of(float v, uint32_t i)
{
    return v - v == 0.0f ? i : BAD;
}

static __global__ void __launch_bounds__(THREADS)
    argmax_kernel(int32_t *out, const float *x, uint32_t n)
{
    SHARED(float, best, [THREADS]);
    SHARED(uint32_t, at, [THREADS]);
    const float *row = x + (uint64_t)blockIdx.x * n;
    uint32_t tid = threadIdx.x, first = tid < n ? tid : 0;
    float v = row[first];
    uint32_t mine = index_of(v, first);
    for (uint64_t i = (uint64_t)tid + THREADS; i < n; i += THREADS) {
        float w = row[i];
        uint32_t at_w = index_of(w, (uint32_t)i);
        if (beats(w, at_w, v, mine)) {
            v = w;
            mine = at_w;
        }
    }
    best[tid] = v;
    at[tid] = mine;
    for (uint32_t half = THREADS / 2; half; half /= 2) {
        __syncthreads();
        if (tid < half && beats(best[tid + half], at[tid + half], best[tid], at[tid])) {
            best[tid] = best[tid + half];
            at[tid] = at[tid + half];
        }
    }
    if (tid == 0)
        out[blockIdx.x] = (int32_t)at[0]; /* BAD is -1 */
}

static __global__ void __launch_bounds__(1)
    advance_kernel(int32_t *id, int32_t *pos, const int32_t *best, int32_t *history,
                   uint32_t n_history)
{
    int32_t p = pos[0];
    if (p >= 0 && (uint32_t)p < n_history)
        history[p] = best[0];
    id[0] = best[0];
    pos[0] = p < INT32_MAX ? p + 1 : p;
}

int gpu_argmax(struct gpu_stream *s, int32_t *out, const float *x, uint32_t n_row, uint32_t n)
{
    if (n_row == 0 || n_row > GPU_MAX_GRID_X || n == 0 || n > GPU_MAX_ROW)
        return gpu_fail(-EINVAL, "argmax: %u rows of %u", n_row, n);
    cudaLaunchConfig_t cfg = gpu_shape(s, n_row, 1, THREADS);
    GPU_LAUNCH(&cfg, argmax_kernel, out, x, n);
    return gpu_launched("argmax");
}

int gpu_advance(struct gpu_stream *s, int32_t *id, int32_t *pos, const int32_t *best,
                int32_t *history, uint32_t n_history)
{
    if (n_history > 0 && !history)
        return gpu_fail(-EINVAL, "advance: room for %u tokens, at NULL", n_history);
    cudaLaunchConfig_t cfg = gpu_shape(s, 1, 1, 1);
    GPU_LAUNCH(&cfg, advance_kernel, id, pos, best, history, n_history);
    return gpu_launched("advance");
}
