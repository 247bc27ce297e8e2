/* Every operation that needs inline PTX, as one small device function: PTX under nvcc, a call into the
 * emulation otherwise. Fragments are those of the PTX manual (ISA 9.0, "Matrix fragments for
 * mma.m16n8k32" and "...k16"): of lane l, g = l/4 and t = l%4.
 *   m16n8k32, 8-bit   A a0 (g, 4t..) a1 (g+8, 4t..) a2 (g, 16+4t..) a3 (g+8, 16+4t..), 4 bytes each
 *                     B b0 (4t.., g) b1 (16+4t.., g)     C c0 (g, 2t) c1 (g, 2t+1) c2, c3 rows g+8
 *   m16n8k16, 16-bit  A a0 (g, 2t..) a1 (g+8, 2t..) a2 (g, 8+2t..) a3 (g+8, 8+2t..), 2 values each
 *                     B b0 (2t.., g) b1 (8+2t.., g)      C as above
 * Until a GPU has run tests/ptx_conf.cu, layouts are derived from the manual, not confirmed. */
#ifndef APRFS_KERNELS_PTX_CUH
#define APRFS_KERNELS_PTX_CUH

#include "kernels/dialect.cuh"

#ifdef __CUDACC__

/* 16 bytes of weights, read once: kept out of the read-only path, which ptxas moves below a
 * dependency wait, and first to leave the cache. */
static __device__ __forceinline__ uint4 ld_stream(const void *p)
{
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
static __device__ __forceinline__ unsigned ld_acquire(const unsigned *p)
{
    unsigned v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}
static __device__ __forceinline__ void st_release(unsigned *p, unsigned v)
{
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(v) : "memory");
}
/* Programmatic dependent launch: before sm_90 there is none, and launches are ordered anyway. */
static __device__ __forceinline__ void griddep_wait()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
static __device__ __forceinline__ void griddep_launch()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
#define PTX_MMA(name, shape, types, n_a, n_b)                                                      \
    static __device__ __forceinline__ void name(int c[4], const unsigned a[4],                     \
                                                const unsigned b[2])                               \
    {                                                                                              \
        asm volatile("mma.sync.aligned." shape ".row.col." types                                   \
                     " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                      \
                     : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));          \
    }
PTX_MMA(mma_u8s8_16832, "m16n8k32", "s32.u8.s8.s32", 4, 2)
PTX_MMA(mma_s8s8_16832, "m16n8k32", "s32.s8.s8.s32", 4, 2)
#undef PTX_MMA
#define PTX_MMA_F(name, types)                                                                     \
    static __device__ __forceinline__ void name(float c[4], const unsigned a[4],                   \
                                                const unsigned b[2])                               \
    {                                                                                              \
        asm volatile("mma.sync.aligned.m16n8k16.row.col." types                                    \
                     " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                      \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));          \
    }
PTX_MMA_F(mma_f16_16816, "f32.f16.f16.f32")
PTX_MMA_F(mma_bf16_16816, "f32.bf16.bf16.f32")
#undef PTX_MMA_F

/* IEEE binary16 bits to f32: exact. */
static __device__ __forceinline__ float half_to_float(unsigned h)
{
    float f;
    asm("{.reg .b16 x; mov.b16 x, %1; cvt.f32.f16 %0, x;}" : "=f"(f) : "h"((unsigned short)h));
    return f;
}

#else

#include "kernels/emu/ptx_emu.h"

#endif
#endif
