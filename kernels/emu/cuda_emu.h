/* CUDA on the CPU, for our own kernels: what `#include <cuda_runtime.h>` gives g++ when a .cu file is
 * compiled against the emulation. Keywords, vector types, indices, intrinsics and the runtime API as
 * far as kernels/ uses them; nothing more.
 *
 * A thread is a fiber; a block runs on one OS thread; a fiber gives way only at barriers and warp
 * operations. Streams are queues that run when the host synchronises. What is wrong is reported as
 * one line "emu: <kind>: ..." on stderr, and the process ends with EMU_EXIT. Environment:
 *   EMU_SEED=n       random order of threads, warps and blocks (default: in order)
 *   EMU_SMS=n        multiprocessors that the device properties claim (default 6)
 *   EMU_CC=n         compute capability they claim, ten times (default 90)
 *   EMU_DEVICES=0    no device is there (default: one); EMU_DEVICES=broken: one that fails
 *   EMU_MEM=n        bytes of device memory (default 16 GiB)
 *   EMU_BAD_COPY=n   copies of n bytes or more reach the device with one bit wrong
 *   EMU_HOST_GUARD=1 device memory is unreadable while host code runs
 *   EMU_THREADS=n    OS threads that blocks are dealt to (default 1; with EMU_SEED, hooks or
 *                    ASan: always 1) */
#ifndef APRFS_KERNELS_EMU_CUDA_EMU_H
#define APRFS_KERNELS_EMU_CUDA_EMU_H

#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <functional>
#include <memory>
#include <tuple>
#include <utility>

#define EMU_EXIT 86

/* What gcc says by a macro, clang says by a feature. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) && !defined(__SANITIZE_ADDRESS__)
#define __SANITIZE_ADDRESS__ 1
#endif
#if __has_feature(thread_sanitizer) && !defined(__SANITIZE_THREAD__)
#define __SANITIZE_THREAD__ 1
#endif
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

/* --- vector types ------------------------------------------------------------------------ */

#define EMU_VEC2(T, name, al)                                                                      \
    struct __attribute__((aligned(al))) name {                                                     \
        T x, y;                                                                                    \
    };                                                                                             \
    static inline name make_##name(T x, T y)                                                       \
    {                                                                                              \
        return name{x, y};                                                                         \
    }
#define EMU_VEC4(T, name, al)                                                                      \
    struct __attribute__((aligned(al))) name {                                                     \
        T x, y, z, w;                                                                              \
    };                                                                                             \
    static inline name make_##name(T x, T y, T z, T w)                                             \
    {                                                                                              \
        return name{x, y, z, w};                                                                   \
    }
EMU_VEC2(float, float2, 8)
EMU_VEC4(float, float4, 16)
EMU_VEC2(int, int2, 8)
EMU_VEC4(int, int4, 16)
EMU_VEC2(unsigned, uint2, 8)
EMU_VEC4(unsigned, uint4, 16)
EMU_VEC4(unsigned char, uchar4, 4)
EMU_VEC4(signed char, char4, 4)
#undef EMU_VEC2
#undef EMU_VEC4

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
    {
    }
};

/* --- indices ----------------------------------------------------------------------------- */

enum { EMU_THREAD_IDX, EMU_BLOCK_IDX, EMU_BLOCK_DIM, EMU_GRID_DIM };

/* Constant within a thread, so the compiler may keep it across switches of fibers. */
unsigned emu_index(int which, int axis) __attribute__((const));

template <int Which, int Axis> struct emu_axis {
    operator unsigned() const
    {
        return emu_index(Which, Axis);
    }
};
template <int Which> struct emu_idx {
    emu_axis<Which, 0> x;
    emu_axis<Which, 1> y;
    emu_axis<Which, 2> z;
};
static const emu_idx<EMU_THREAD_IDX> threadIdx{};
static const emu_idx<EMU_BLOCK_IDX> blockIdx{};
static const emu_idx<EMU_BLOCK_DIM> blockDim{};
static const emu_idx<EMU_GRID_DIM> gridDim{};
enum { warpSize = 32 };

/* --- shared memory, barriers, warp operations -------------------------------------------- */

void *emu_shared(size_t size, size_t align, const char *name, const char *file, int line);
void *emu_shared_dyn();

enum emu_op {
    EMU_BARRIER, /* of the block */
    EMU_YIELD,   /* hands over to other fibers: inside a spin */
    /* Warp operations: every lane of mask comes, and brings what it brings. */
    EMU_SYNCWARP,
    EMU_SHFL,
    EMU_BALLOT,
    EMU_REDUCE_ADD,
    EMU_REDUCE_MAX,
    EMU_COLLECTIVE, /* mma and the like: a callback over all 32 lanes' arguments */
};
/* Waits for the block's other threads, or for the other lanes of mask. The only place where a thread
 * gives way. */
extern "C" void emu_meet(int op, unsigned mask, const char *file, int line);
/* What this lane brings to the warp operation that follows, and the lane it reads; then what it got. */
void emu_bring(uint64_t value, int src);
uint64_t emu_got();
void emu_bring_call(void (*f)(void *const *arg), void *arg);
/* In the kernel itself: a function between it and emu_meet() would return where the processor does not
 * expect it. */
static __forceinline__ uint64_t emu_warp(enum emu_op op, unsigned mask, uint64_t value, int src,
                                         const char *file, int line)
{
    emu_bring(value, src);
    emu_meet(op, mask, file, line);
    return emu_got();
}
/* All 32 lanes meet; the last to come runs f(args of lanes 0..31), once. */
static __forceinline__ void emu_collective(void (*f)(void *const *arg), void *arg, const char *file,
                                           int line)
{
    emu_bring_call(f, arg);
    emu_meet(EMU_COLLECTIVE, 0xffffffffu, file, line);
}
unsigned emu_lane();

#define EMU_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(EMU_AT)
{
    emu_meet(EMU_BARRIER, 0, file, line);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, EMU_AT)
{
    emu_meet(EMU_SYNCWARP, mask, file, line);
}
static inline void __threadfence() /* other blocks may run on other OS threads */
{
    __sync_synchronize();
}
static inline void __threadfence_block()
{
}
static inline void __threadfence_system()
{
    __sync_synchronize();
}

template <typename T> static inline uint64_t emu_to_bits(T v)
{
    static_assert(sizeof(T) <= 8, "a shuffled value has at most 8 bytes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    return u;
}
template <typename T> static inline T emu_from_bits(uint64_t u)
{
    T v;
    memcpy(&v, &u, sizeof v);
    return v;
}

template <typename T>
static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32, EMU_AT)
{
    int lane = (int)emu_lane(), base = lane & ~(width - 1);
    return emu_from_bits<T>(
        emu_warp(EMU_SHFL, mask, emu_to_bits(v), base + (src & (width - 1)), file, line));
}
template <typename T>
static inline T __shfl_xor_sync(unsigned mask, T v, int x, int width = 32, EMU_AT)
{
    int lane = (int)emu_lane(), src = lane ^ x;
    if ((src & ~(width - 1)) > (lane & ~(width - 1)))
        src = lane;
    return emu_from_bits<T>(emu_warp(EMU_SHFL, mask, emu_to_bits(v), src, file, line));
}
template <typename T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned d, int width = 32, EMU_AT)
{
    int lane = (int)emu_lane(), src = lane + (int)d;
    if (src >= (lane & ~(width - 1)) + width)
        src = lane;
    return emu_from_bits<T>(emu_warp(EMU_SHFL, mask, emu_to_bits(v), src, file, line));
}
template <typename T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned d, int width = 32, EMU_AT)
{
    int lane = (int)emu_lane(), src = lane - (int)d;
    if (src < (lane & ~(width - 1)))
        src = lane;
    return emu_from_bits<T>(emu_warp(EMU_SHFL, mask, emu_to_bits(v), src, file, line));
}
static inline unsigned __ballot_sync(unsigned mask, int pred, EMU_AT)
{
    return (unsigned)emu_warp(EMU_BALLOT, mask, pred != 0, 0, file, line);
}
static inline int __any_sync(unsigned mask, int pred, EMU_AT)
{
    return __ballot_sync(mask, pred, file, line) != 0;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v, EMU_AT)
{
    return (unsigned)emu_warp(EMU_REDUCE_ADD, mask, v, 0, file, line);
}
static inline int __reduce_add_sync(unsigned mask, int v, EMU_AT)
{
    return (int)(unsigned)emu_warp(EMU_REDUCE_ADD, mask, (unsigned)v, 0, file, line);
}
static inline int __reduce_max_sync(unsigned mask, int v, EMU_AT)
{
    return (int)emu_warp(EMU_REDUCE_MAX, mask, (uint64_t)(int64_t)v, 0, file, line);
}

/* --- arithmetic -------------------------------------------------------------------------- */

static inline int __dp4a(int a, int b, int c)
{
    for (int i = 0; i < 4; i++)
        c = (int)((unsigned)c + (unsigned)((int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i)));
    return c;
}
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned s)
{
    uint64_t both = (uint64_t)y << 32 | x;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        unsigned sel = s >> 4 * i & 15;
        unsigned byte = (unsigned)(both >> 8 * (sel & 7)) & 0xff;
        if (sel & 8)
            byte = byte & 0x80 ? 0xff : 0;
        r |= byte << 8 * i;
    }
    return r;
}
static inline int __clz(int v)
{
    return v ? __builtin_clz((unsigned)v) : 32;
}
static inline int __ffs(int v)
{
    return __builtin_ffs(v);
}
static inline int __popc(unsigned v)
{
    return __builtin_popcount(v);
}
static inline unsigned __umulhi(unsigned a, unsigned b)
{
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline float __uint_as_float(unsigned u)
{
    return emu_from_bits<float>(u);
}
static inline float __int_as_float(int i)
{
    return emu_from_bits<float>((unsigned)i);
}
static inline unsigned __float_as_uint(float f)
{
    return (unsigned)emu_to_bits(f);
}
static inline int __float_as_int(float f)
{
    return (int)(unsigned)emu_to_bits(f);
}
static inline unsigned min(unsigned a, unsigned b)
{
    return a < b ? a : b;
}
static inline unsigned max(unsigned a, unsigned b)
{
    return a > b ? a : b;
}
static inline int min(int a, int b)
{
    return a < b ? a : b;
}
static inline int max(int a, int b)
{
    return a > b ? a : b;
}

/* Atomics; the hooks build is told (emu_atomic) so that they count as such. */
void emu_atomic(void *p, size_t n);
template <typename T> static inline T emu_fetch_add(T *p, T v)
{
    emu_atomic(p, sizeof *p);
    T old, sum;
    __atomic_load(p, &old, __ATOMIC_SEQ_CST);
    do
        sum = old + v;
    while (!__atomic_compare_exchange(p, &old, &sum, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return old;
}
static inline int atomicAdd(int *p, int v)
{
    return emu_fetch_add(p, v);
}
static inline unsigned atomicAdd(unsigned *p, unsigned v)
{
    return emu_fetch_add(p, v);
}
static inline unsigned long long atomicAdd(unsigned long long *p, unsigned long long v)
{
    return emu_fetch_add(p, v);
}
static inline float atomicAdd(float *p, float v)
{
    return emu_fetch_add(p, v);
}
template <typename T> static inline T emu_fetch_max(T *p, T v)
{
    emu_atomic(p, sizeof *p);
    T old = __atomic_load_n(p, __ATOMIC_SEQ_CST);
    while (old < v &&
           !__atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        ;
    return old;
}
static inline unsigned atomicMax(unsigned *p, unsigned v)
{
    return emu_fetch_max(p, v);
}
static inline unsigned long long atomicMax(unsigned long long *p, unsigned long long v)
{
    return emu_fetch_max(p, v);
}

#include "kernels/emu/cuda_emu_runtime.h"

#endif
