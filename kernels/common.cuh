/* What every .cu of ours shares: the stream's CUDA handle, refusals and launch checks, reductions in a
 * fixed order. */
#ifndef APRFS_KERNELS_COMMON_CUH
#define APRFS_KERNELS_COMMON_CUH

#include "kernels/gpu_ops.h"
#include "kernels/ptx.cuh"

#include <errno.h>

struct gpu_stream {
    cudaStream_t cuda;
};

/* Keeps the text for gpu_last_error(); returns rc. */
int gpu_fail(int rc, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The end of a launcher: 0, or -EIO with what CUDA said. */
int gpu_launched(const char *op);

/* A launch of `blocks` (x, y) times `threads` on s. */
static inline cudaLaunchConfig_t gpu_shape(const struct gpu_stream *s, uint64_t blocks_x,
                                           unsigned blocks_y, unsigned threads)
{
    cudaLaunchConfig_t cfg = {};
    cfg.gridDim = dim3((unsigned)blocks_x, blocks_y);
    cfg.blockDim = dim3(threads);
    cfg.stream = s->cuda;
    return cfg;
}

/* CUDA's limits on a grid. */
#define GPU_MAX_GRID_X UINT64_C(0x7fffffff)
#define GPU_MAX_GRID_Y 65535u
/* The longest row: a thread's index may step past its end and still fits 32 bits. */
#define GPU_MAX_ROW 0x7fffffffu

/* Sum over the block's n_warp * 32 threads, in an order that only the number of threads decides: lanes
 * by halves, then warps in rising order. part: n_warp doubles of shared memory, free again at once.
 * Every thread gets the sum. Two barriers. */
static __device__ __forceinline__ double gpu_block_sum(double v, double *part, unsigned n_warp)
{
    for (unsigned half = 16; half; half /= 2)
        v += __shfl_xor_sync(0xffffffffu, v, (int)half);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    double sum = 0;
    for (unsigned i = 0; i < n_warp; i++)
        sum += part[i];
    __syncthreads();
    return sum;
}

#endif
