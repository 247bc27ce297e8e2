/* Row normalisation: gpu_rmsnorm. */
#include "kernels/common.cuh"

#define MAX_THREADS 256 /* a row is one block: rows are what there are many of */

static __global__ void __launch_bounds__(MAX_THREADS)
    rmsnorm_kernel(float *y, const float *x, const float *w, uint32_t n, float eps)
{
    SHARED(double, part, [MAX_THREADS / 32]);
    const float *in = x + (uint64_t)blockIdx.x * n;
    float *out = y + (uint64_t)blockIdx.x * n;
    double sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        sum += (double)in[i] * (double)in[i];
    sum = gpu_block_sum(sum, part, blockDim.x / 32);
    double inv = 1.0 / sqrt(sum / n + (double)eps);
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x)
        out[i] = (float)((double)in[i] * inv * (double)w[i]);
}

int gpu_rmsnorm(struct gpu_stream *s, float *y, const float *x, const float *w, uint32_t n_row,
                uint32_t n, float eps)
{
    if (n_row == 0 || n_row > GPU_MAX_GRID_X || n == 0 || n > GPU_MAX_ROW)
        return gpu_fail(-EINVAL, "rmsnorm: %u rows of %u", n_row, n);
    unsigned threads = n >= MAX_THREADS ? MAX_THREADS : (n + 31) / 32 * 32;
    cudaLaunchConfig_t cfg = gpu_shape(s, n_row, 1, threads);
    GPU_LAUNCH(&cfg, rmsnorm_kernel, y, x, w, n, eps);
    return gpu_launched("rmsnorm");
}
