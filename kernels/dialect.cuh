/* The dialect of our .cu files: three macros that read the same under nvcc and under the emulation
 * (kernels/emu), which compiles the same sources with g++. Nothing else may differ between the two
 * outside this file and ptx.cuh.
 *
 *   SHARED(float, part, [8][33])        an array in shared memory; in the emulation one that lies in
 *                                       guard zones and is refilled with 0xFF for each block
 *   SHARED_DYN(uint8_t, ring)           the launch's dynamic shared memory, as a pointer
 *   GPU_LAUNCH(&cfg, kernel, args...)   cudaLaunchKernelEx that also passes the kernel's name;
 *                                       template kernels in parentheses
 *
 * Rules for kernel sources (scripts/check_layers.sh greps the first four):
 *   no <<<>>>; no __shared__; no asm outside ptx.cuh, no cooperative groups, CUB, thrust, textures,
 *   managed memory, __device__ or __constant__ variables, device malloc; no __activemask().
 *   Barriers stand in block-uniform flow, one per source line, and no thread returns before the last
 *   one. Spin only through ld_acquire(). Arguments are plain values. Fused multiply-add is written
 *   fmaf; nvcc gets -fmad=false, so that integer and float results agree bit for bit with the C twin. */
#ifndef APRFS_KERNELS_DIALECT_CUH
#define APRFS_KERNELS_DIALECT_CUH

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __CUDACC__

#define SHARED(type, name, dims) __shared__ type name dims
#define SHARED_DYN(type, name)                                                                     \
    extern __shared__ __align__(16) unsigned char gpu_dyn_shared[];                                \
    type *name = reinterpret_cast<type *>(gpu_dyn_shared)
#define GPU_LAUNCH(cfg, kernel, ...) cudaLaunchKernelEx((cfg), kernel, ##__VA_ARGS__)

#else

/* `__shared__` is left undefined on purpose: a slip does not compile. */
#define SHARED(type, name, dims)                                                                   \
    typedef type name##_shared_t dims;                                                             \
    name##_shared_t &name = *static_cast<name##_shared_t *>(                                       \
        emu_shared(sizeof(name##_shared_t), alignof(name##_shared_t), #name, __FILE__, __LINE__))
#define SHARED_DYN(type, name)       type *name = static_cast<type *>(emu_shared_dyn())
#define GPU_LAUNCH(cfg, kernel, ...) emu_launch((cfg), #kernel, kernel, ##__VA_ARGS__)

#endif
#endif
