/* The residual: gpu_add. */
#include "kernels/common.cuh"

#define THREADS 256

static __global__ void __launch_bounds__(THREADS) add_kernel(float *y, const float *x, uint64_t n)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < n)
        y[i] += x[i];
}

int gpu_add(struct gpu_stream *s, float *y, const float *x, uint64_t n)
{
    uint64_t blocks = (n + THREADS - 1) / THREADS;
    if (n == 0 || blocks > GPU_MAX_GRID_X)
        return gpu_fail(-EINVAL, "add: %llu elements", (unsigned long long)n);
    cudaLaunchConfig_t cfg = gpu_shape(s, blocks, 1, THREADS);
    GPU_LAUNCH(&cfg, add_kernel, y, x, n);
    return gpu_launched("add");
}
