/* Device dequantisers: 16 weights of a row at a time, for every type that format/quant.c can
 * dequantise. Layouts are in format/quant.h, quant_small.c and quant_k.c; the order of float
 * operations is theirs, so results are equal bit for bit. In every block format 16 weights from a
 * multiple of 16 share their scale, hence the 16.
 *
 * Bytes are read one by one: blocks of 18, 22, 66, 110 or 210 bytes align to nothing. Tables are 64-bit
 * constants: the dialect has no device variables. */
#ifndef APRFS_KERNELS_DEQUANT_CUH
#define APRFS_KERNELS_DEQUANT_CUH

#include "kernels/common.cuh"

#include <stdbool.h>
extern "C" {
#include "format/quant.h"
}

static __device__ __forceinline__ unsigned dq_u16(const uint8_t *p)
{
    return p[0] | (unsigned)p[1] << 8;
}

static __device__ __forceinline__ unsigned dq_u32(const uint8_t *p)
{
    return dq_u16(p) | dq_u16(p + 2) << 16;
}

static __device__ __forceinline__ float dq_f16(const uint8_t *p)
{
    return half_to_float(dq_u16(p));
}

static __device__ __forceinline__ float dq_f32(const uint8_t *p)
{
    return __uint_as_float(dq_u32(p));
}

/* Signed byte i of the 8 that v holds, lowest first. */
static __device__ __forceinline__ int dq_byte(uint64_t v, unsigned i)
{
    return (int8_t)(v >> 8 * i);
}

/* quant_iq4_value[q]: -127 -104 -83 -65 -49 -35 -22 -10, 1 13 25 38 53 69 89 113 */
static __device__ __forceinline__ float dq_iq4(unsigned q)
{
    return (float)dq_byte(q < 8 ? UINT64_C(0xf6eaddcfbfad9881) : UINT64_C(0x7159453526190d01), q & 7);
}

/* Twice an E2M1 number: 0 1 2 3 4 6 8 12, bit 3 the sign; no negative zero. */
static __device__ __forceinline__ float dq_e2m1(unsigned q)
{
    int v = dq_byte(UINT64_C(0x0c08060403020100), q & 7);
    return (float)(q & 8 ? -v : v);
}

/* 2^(e-128) for every e. */
static __device__ __forceinline__ float dq_e8m0_half(unsigned e)
{
    return __uint_as_float(e < 2 ? 0x200000u << e : (e - 1) << 23);
}

/* Half of an unsigned E4M3 number; 0x7f is 0, bit 7 is ignored but for 0xff and 0x80 (quant_small.c). */
static __device__ __forceinline__ float dq_ue4m3_half(unsigned x)
{
    unsigned exp = x >> 3 & 15, man = x & 7;
    if (x == 0 || x == 0x7f)
        return 0;
    return exp == 0 ? (float)man * 0x1p-10f : __uint_as_float((exp + 119) << 23 | man << 20);
}

/* Scale and minimum j of 8 in the 12 bytes of Q4_K and Q5_K. */
static __device__ __forceinline__ void dq_k4(const uint8_t *b, unsigned j, float *sc, float *m)
{
    if (j < 4) {
        *sc = (float)(b[j] & 63);
        *m = (float)(b[j + 4] & 63);
    } else {
        *sc = (float)((b[j + 4] & 15) | b[j - 4] >> 6 << 4);
        *m = (float)(b[j + 4] >> 4 | b[j] >> 6 << 4);
    }
}

/* Digit n of five base-3 digits in a byte (trit() of quant_k.c). */
static __device__ __forceinline__ int dq_trit(unsigned byte, unsigned n)
{
    unsigned pow3 = (unsigned)dq_byte(UINT64_C(0x511b090301), n);
    return (int)((byte * pow3 & 0xff) * 3 >> 8);
}

/* w[l] = weight i + l of block b, l < 16; i a multiple of 16 within the block. */
template <uint32_t Type> struct dequant;

#define DEQUANT(type)                                                                              \
    template <> struct dequant<QUANT_##type> {                                                     \
        static __device__ __forceinline__ void run(float *w, const uint8_t *b, unsigned i);        \
    };                                                                                             \
    __device__ __forceinline__ void dequant<QUANT_##type>::run(float *w, const uint8_t *b, unsigned i)

DEQUANT(Q4_0)
{
    float d = dq_f16(b);
    unsigned shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = (float)((b[2 + l] >> shift & 15) - 8) * d;
}

DEQUANT(Q4_1)
{
    float d = dq_f16(b), m = dq_f16(b + 2);
    unsigned shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = (float)(b[4 + l] >> shift & 15) * d + m;
}

DEQUANT(Q5_0)
{
    float d = dq_f16(b);
    unsigned high = dq_u32(b + 2) >> i, shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = (float)((int)((b[6 + l] >> shift & 15) | (high >> l & 1) << 4) - 16) * d;
}

DEQUANT(Q5_1)
{
    float d = dq_f16(b), m = dq_f16(b + 2);
    unsigned high = dq_u32(b + 4) >> i, shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = (float)((b[8 + l] >> shift & 15) | (high >> l & 1) << 4) * d + m;
}

DEQUANT(Q8_0)
{
    float d = dq_f16(b);
    for (int l = 0; l < 16; l++)
        w[l] = (float)(int8_t)b[2 + i + l] * d;
}

DEQUANT(IQ4_NL)
{
    float d = dq_f16(b);
    unsigned shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = d * dq_iq4(b[2 + l] >> shift & 15);
}

DEQUANT(MXFP4)
{
    float d = dq_e8m0_half(b[0]);
    unsigned shift = i / 4;
    for (int l = 0; l < 16; l++)
        w[l] = dq_e2m1(b[1 + l] >> shift & 15) * d;
}

DEQUANT(NVFP4)
{
    float d = dq_ue4m3_half(b[i / 16]);
    const uint8_t *q = b + 4 + i / 2;
    for (int l = 0; l < 16; l++)
        w[l] = dq_e2m1(q[l % 8] >> 4 * (l / 8) & 15) * d;
}

DEQUANT(Q1_0)
{
    float d = dq_f16(b);
    unsigned bits = dq_u16(b + 2 + i / 8);
    for (int l = 0; l < 16; l++)
        w[l] = bits >> l & 1 ? d : -d;
}

DEQUANT(Q2_0)
{
    float d = dq_f16(b);
    unsigned bits = dq_u32(b + 2 + i / 4);
    for (int l = 0; l < 16; l++)
        w[l] = (float)((int)(bits >> 2 * l & 3) - 1) * d;
}

DEQUANT(Q2_K)
{
    float d = dq_f16(b + 80), dmin = dq_f16(b + 82);
    unsigned scale = b[i / 16];
    float dl = d * (float)(scale & 15), ml = dmin * (float)(scale >> 4);
    const uint8_t *q = b + 16 + 32 * (i / 128) + i % 32;
    unsigned shift = 2 * (i % 128 / 32);
    for (int l = 0; l < 16; l++)
        w[l] = dl * (float)(q[l] >> shift & 3) - ml;
}

DEQUANT(Q3_K)
{
    unsigned g = i / 16;
    const uint8_t *sc = b + 96;
    int low = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4;
    int scale = low | (sc[8 + g % 4] >> 2 * (g / 4) & 3) << 4;
    float dl = dq_f16(b + 108) * (float)(scale - 32);
    const uint8_t *q = b + 32 + 32 * (i / 128) + i % 32, *high = b + i % 32;
    unsigned shift = 2 * (i % 128 / 32), bit = i / 32;
    for (int l = 0; l < 16; l++)
        w[l] = dl * (float)((q[l] >> shift & 3) - (high[l] >> bit & 1 ? 0 : 4));
}

DEQUANT(Q4_K)
{
    float d = dq_f16(b), dmin = dq_f16(b + 2), sc, m;
    dq_k4(b + 4, i / 32, &sc, &m);
    float dl = d * sc, ml = dmin * m;
    const uint8_t *q = b + 16 + 32 * (i / 64) + i % 32;
    unsigned shift = 4 * (i / 32 % 2);
    for (int l = 0; l < 16; l++)
        w[l] = dl * (float)(q[l] >> shift & 15) - ml;
}

DEQUANT(Q5_K)
{
    float d = dq_f16(b), dmin = dq_f16(b + 2), sc, m;
    dq_k4(b + 4, i / 32, &sc, &m);
    float dl = d * sc, ml = dmin * m;
    const uint8_t *q = b + 48 + 32 * (i / 64) + i % 32, *qh = b + 16 + i % 32;
    unsigned shift = 4 * (i / 32 % 2), bit = i / 32;
    for (int l = 0; l < 16; l++)
        w[l] = dl * (float)((q[l] >> shift & 15) | (qh[l] >> bit & 1) << 4) - ml;
}

DEQUANT(Q6_K)
{
    unsigned quarter = i % 128 / 32;
    float dl = dq_f16(b + 208) * (float)(int8_t)b[192 + i / 16];
    const uint8_t *ql = b + 64 * (i / 128) + 32 * (quarter % 2) + i % 32;
    const uint8_t *qh = b + 128 + 32 * (i / 128) + i % 32;
    unsigned shift = 4 * (quarter / 2);
    for (int l = 0; l < 16; l++)
        w[l] = dl * (float)(((ql[l] >> shift & 15) | (qh[l] >> 2 * quarter & 3) << 4) - 32);
}

DEQUANT(Q8_K)
{
    float d = dq_f32(b);
    for (int l = 0; l < 16; l++)
        w[l] = d * (float)(int8_t)b[4 + i + l];
}

DEQUANT(IQ4_XS)
{
    unsigned j = i / 32;
    int scale = (int)((b[4 + j / 2] >> 4 * (j % 2) & 15) | (dq_u16(b + 2) >> 2 * j & 3) << 4);
    float dl = dq_f16(b) * (float)(scale - 32);
    const uint8_t *q = b + 8 + 16 * j;
    unsigned shift = i % 32 / 4;
    for (int l = 0; l < 16; l++)
        w[l] = dl * dq_iq4(q[l] >> shift & 15);
}

/* 32 bytes' first digits, second, ... fifth; then 16 bytes' five; then 4 bytes' four. */
DEQUANT(TQ1_0)
{
    float d = dq_f16(b + 52);
    for (unsigned l = 0; l < 16; l++) {
        unsigned at = i < 160 ? i % 32 + l : i < 240 ? 32 + l : 48 + l % 4;
        unsigned digit = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : l / 4;
        w[l] = (float)(dq_trit(b[at], digit) - 1) * d;
    }
}

DEQUANT(TQ2_0)
{
    float d = dq_f16(b + 64);
    const uint8_t *q = b + 32 * (i / 128) + i % 32;
    unsigned shift = 2 * (i % 128 / 32);
    for (int l = 0; l < 16; l++)
        w[l] = (float)((q[l] >> shift & 3) - 1) * d;
}
#undef DEQUANT

/* Plain numbers: weight number i of a row. */
template <uint32_t Type> static __device__ __forceinline__ float dequant_plain(const uint8_t *row, uint32_t i)
{
    if (Type == QUANT_F16)
        return dq_f16(row + 2 * (uint64_t)i);
    if (Type == QUANT_BF16)
        return __uint_as_float(dq_u16(row + 2 * (uint64_t)i) << 16);
    if (Type == QUANT_F64)
        return (float)reinterpret_cast<const double *>(row)[i];
    return reinterpret_cast<const float *>(row)[i];
}

/* Weights i .. i + 15 of a row of n, i a multiple of 16; n - i may be less than 16 (plain numbers
 * only): the rest of w is then left alone. */
template <uint32_t Type, uint32_t Len, uint32_t Bytes>
static __device__ __forceinline__ void dequant16(float *w, const uint8_t *row, uint32_t i, uint32_t n)
{
    if constexpr (Len == 1) {
        for (uint32_t l = 0; l < 16; l++)
            if (i + l < n)
                w[l] = dequant_plain<Type>(row, i + l);
    } else {
        dequant<Type>::run(w, row + (uint64_t)(i / Len) * Bytes, i % Len);
    }
}

/* X(type, weights per block, bytes per block): every type that has device code. */
#define DEQUANT_TYPES(X)                                                                           \
    X(F32, 1, 4) X(F64, 1, 8) X(F16, 1, 2) X(BF16, 1, 2)                                           \
    X(Q4_0, 32, 18) X(Q4_1, 32, 20) X(Q5_0, 32, 22) X(Q5_1, 32, 24) X(Q8_0, 32, 34)                \
    X(IQ4_NL, 32, 18) X(MXFP4, 32, 17) X(NVFP4, 64, 36) X(Q1_0, 128, 18) X(Q2_0, 64, 18)           \
    X(Q2_K, 256, 84) X(Q3_K, 256, 110) X(Q4_K, 256, 144) X(Q5_K, 256, 176) X(Q6_K, 256, 210)       \
    X(Q8_K, 256, 292) X(IQ4_XS, 256, 136) X(TQ1_0, 256, 54) X(TQ2_0, 256, 66)

/* A matrix that the launchers take: type with device code, whole blocks, aligned data. On success
 * *row_bytes is a row's size. */
static inline int dequant_check(const char *op, const struct gpu_matrix *w, uint64_t *row_bytes)
{
    uint32_t len = 0, bytes = 0;
    switch (w->type) {
#define X(type, l, b)                                                                              \
    case QUANT_##type:                                                                             \
        len = l;                                                                                   \
        bytes = b;                                                                                 \
        break;
        DEQUANT_TYPES(X)
#undef X
    default:
        return gpu_fail(-EINVAL, "%s: no device code for GGML type %u", op, w->type);
    }
    if (w->n_out == 0 || w->n_in == 0 || w->n_in % len != 0 || w->n_out > GPU_MAX_ROW ||
        w->n_in > GPU_MAX_ROW)
        return gpu_fail(-EINVAL, "%s: %u rows of %u weights, in blocks of %u", op, w->n_out, w->n_in,
                        len);
    uint32_t align = len == 1 ? bytes : 1; /* blocks are read byte by byte */
    if (!w->data || (uintptr_t)w->data % align != 0)
        return gpu_fail(-EINVAL, "%s: weights at %p, not a multiple of %u", op, w->data, align);
    *row_bytes = (uint64_t)(w->n_in / len) * bytes;
    return 0;
}

#endif
