/* The emulation's side of ptx.cuh; included by it only. */
#ifndef APRFS_KERNELS_EMU_PTX_EMU_H
#define APRFS_KERNELS_EMU_PTX_EMU_H

/* Fails where the device would: a 16-byte load from an address that is no multiple of 16. */
void emu_check_aligned(const void *p, size_t n, const char *file, int line);

static inline uint4 ld_stream(const void *p, EMU_AT)
{
    emu_check_aligned(p, 16, file, line);
    return *static_cast<const uint4 *>(p);
}
static inline unsigned ld_acquire(const unsigned *p, EMU_AT)
{
    emu_meet(EMU_YIELD, 0, file, line);
    emu_atomic(const_cast<unsigned *>(p), sizeof *p);
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}
static inline void st_release(unsigned *p, unsigned v)
{
    emu_atomic(p, sizeof *p);
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}
void griddep_wait();
static inline void griddep_launch()
{
}

void emu_mma_u8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line);
void emu_mma_s8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line);
void emu_mma_f16_16816(float c[4], const unsigned a[4], const unsigned b[2], const char *file,
                       int line);
void emu_mma_bf16_16816(float c[4], const unsigned a[4], const unsigned b[2], const char *file,
                        int line);
static inline void mma_u8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], EMU_AT)
{
    emu_mma_u8s8_16832(c, a, b, file, line);
}
static inline void mma_s8s8_16832(int c[4], const unsigned a[4], const unsigned b[2], EMU_AT)
{
    emu_mma_s8s8_16832(c, a, b, file, line);
}
static inline void mma_f16_16816(float c[4], const unsigned a[4], const unsigned b[2], EMU_AT)
{
    emu_mma_f16_16816(c, a, b, file, line);
}
static inline void mma_bf16_16816(float c[4], const unsigned a[4], const unsigned b[2], EMU_AT)
{
    emu_mma_bf16_16816(c, a, b, file, line);
}

/* Binary16 to f32, exact; a NaN becomes quiet, as cvt makes it. */
static inline float half_to_float(unsigned h)
{
    unsigned sign = (h & 0x8000) << 16, exp = h >> 10 & 31, man = h & 0x3ff;
    if (exp == 31)
        return __uint_as_float(sign | 0x7f800000 | (man ? 0x400000 | man << 13 : 0));
    if (exp == 0)
        return (sign ? -1.0f : 1.0f) * (float)man * 0x1p-24f;
    return __uint_as_float(sign | (exp + 112) << 23 | man << 13);
}

#endif
