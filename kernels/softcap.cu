/* Caps on logits: gpu_softcap. */
#include "kernels/common.cuh"

#define THREADS 256

static __global__ void __launch_bounds__(THREADS) softcap_kernel(float *y, uint64_t n, float c)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n)
        y[i] = (float)((double)c * tanh((double)y[i] / (double)c));
}

int gpu_softcap(struct gpu_stream *s, float *y, uint64_t n, float c)
{
    uint64_t blocks = (n + THREADS - 1) / THREADS;
    if (n == 0 || blocks > GPU_MAX_GRID_X || !(c > 0))
        return gpu_fail(-EINVAL, "softcap: %llu elements, cap %g", (unsigned long long)n, (double)c);
    cudaLaunchConfig_t cfg = gpu_shape(s, blocks, 1, THREADS);
    GPU_LAUNCH(&cfg, softcap_kernel, y, n, c);
    return gpu_launched("softcap");
}
