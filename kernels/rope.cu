/* Rotary positions from a table of frequencies, in place: gpu_rope. */
#include "kernels/common.cuh"

#define THREADS 64 /* one per pair of dimensions; each turns it in every head */

static __global__ void __launch_bounds__(THREADS)
    rope_kernel(float *x, const float *omega, float mu, uint32_t half, int neox, const int32_t *pos,
                uint32_t n_head, uint32_t head_dim)
{
    int32_t p = pos[blockIdx.x];
    uint32_t i = blockIdx.y * THREADS + threadIdx.x;
    if (i >= half)
        return;
    double angle = (double)p * (double)omega[i];
    float c = (float)((double)mu * cos(angle)), s = (float)((double)mu * sin(angle));
    if (p < 0)
        c = s = __int_as_float(0x7fc00000);
    uint32_t iu = neox ? i : 2 * i, iv = neox ? i + half : 2 * i + 1;
    float *row = x + (uint64_t)blockIdx.x * n_head * head_dim;
    for (uint32_t h = 0; h < n_head; h++, row += head_dim) {
        float u = row[iu], v = row[iv];
        row[iu] = u * c - v * s;
        row[iv] = u * s + v * c;
    }
}

int gpu_rope(struct gpu_stream *s, float *x, const float *omega, float mu, uint32_t n_rot, bool neox,
             const int32_t *pos, uint32_t n_tok, uint32_t n_head, uint32_t head_dim)
{
    uint32_t half = n_rot / 2;
    if (n_tok == 0 || n_tok > GPU_MAX_GRID_X || n_head == 0 || n_rot == 0 || n_rot % 2 != 0 ||
        n_rot > head_dim || half > THREADS * GPU_MAX_GRID_Y)
        return gpu_fail(-EINVAL, "rope: %u tokens, %u heads of %u, %u of them turned", n_tok, n_head,
                        head_dim, n_rot);
    cudaLaunchConfig_t cfg = gpu_shape(s, n_tok, (half + THREADS - 1) / THREADS, THREADS);
    GPU_LAUNCH(&cfg, rope_kernel, x, omega, mu, half, (int)neox, pos, n_head, head_dim);
    return gpu_launched("rope");
}
