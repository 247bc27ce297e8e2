/* SwiGLU and GeGLU: gpu_act_mul. */
#include "kernels/common.cuh"

#define THREADS 256

static __global__ void __launch_bounds__(THREADS)
    act_mul_kernel(float *y, const float *gate, const float *up, uint64_t n, int act)
{
    uint64_t i = (uint64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= n)
        return;
    double u = (double)gate[i], f;
    if (act == GPU_SILU)
        f = u / (1.0 + exp(-u));
    else
        f = 0.5 * u * (1.0 + tanh(0.79788456080286535588 * (u + 0.044715 * u * u * u)));
    y[i] = (float)(f * (double)up[i]);
}

int gpu_act_mul(struct gpu_stream *s, float *y, const float *gate, const float *up, uint64_t n,
                int act)
{
    uint64_t blocks = (n + THREADS - 1) / THREADS;
    if (n == 0 || blocks > GPU_MAX_GRID_X || (act != GPU_SILU && act != GPU_GELU))
        return gpu_fail(-EINVAL, "act_mul: %llu elements, act %d", (unsigned long long)n, act);
    cudaLaunchConfig_t cfg = gpu_shape(s, blocks, 1, THREADS);
    GPU_LAUNCH(&cfg, act_mul_kernel, y, gate, up, n, act);
    return gpu_launched("act_mul");
}
