/* GGML tensor types: block layouts, sizes, and the reference dequantisers.
 *
 * A row is a whole number of blocks. d, m, dmin are IEEE binary16, little-endian. Weights of a
 * block, with q the stored integer of weight i (source: ggml-common.h and ggml-quants.c of
 * llama.cpp; the table of types is that of 1 October 2026):
 *
 *   type  weights bytes  fields: offset name (bytes)                                w[i]
 *   Q4_0    32     18    0 d, 2 qs(16)                                              d*(q-8)
 *   Q4_1    32     20    0 d, 2 m, 4 qs(16)                                         d*q + m
 *   Q5_0    32     22    0 d, 2 qh(4), 6 qs(16)                                     d*(q-16)
 *   Q5_1    32     24    0 d, 2 m, 4 qh(4), 8 qs(16)                                d*q + m
 *   Q8_0    32     34    0 d, 2 qs(32, signed)                                      d*q
 *   Q4_K   256    144    0 d, 2 dmin, 4 scales(12), 16 qs(128)                      d*sc*q - dmin*m
 *   Q5_K   256    176    0 d, 2 dmin, 4 scales(12), 16 qh(32), 48 qs(128)           d*sc*q - dmin*m
 *   Q6_K   256    210    0 ql(128), 128 qh(64), 192 scales(16, signed), 208 d       d*sc*(q-32)
 * The other types are described beside their code in quant.c. */
#ifndef APRFS_FORMAT_QUANT_H
#define APRFS_FORMAT_QUANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quant_id {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q5_0 = 6,
    QUANT_Q5_1 = 7,
    QUANT_Q8_0 = 8,
    QUANT_Q8_1 = 9,
    QUANT_Q2_K = 10,
    QUANT_Q3_K = 11,
    QUANT_Q4_K = 12,
    QUANT_Q5_K = 13,
    QUANT_Q6_K = 14,
    QUANT_Q8_K = 15,
    QUANT_IQ2_XXS = 16,
    QUANT_IQ2_XS = 17,
    QUANT_IQ3_XXS = 18,
    QUANT_IQ1_S = 19,
    QUANT_IQ4_NL = 20,
    QUANT_IQ3_S = 21,
    QUANT_IQ2_S = 22,
    QUANT_IQ4_XS = 23,
    QUANT_I8 = 24,
    QUANT_I16 = 25,
    QUANT_I32 = 26,
    QUANT_I64 = 27,
    QUANT_F64 = 28,
    QUANT_IQ1_M = 29,
    QUANT_BF16 = 30,
    QUANT_TQ1_0 = 34,
    QUANT_TQ2_0 = 35,
    QUANT_MXFP4 = 39,
    QUANT_NVFP4 = 40,
    QUANT_Q1_0 = 41,
    QUANT_Q2_0 = 42,
    QUANT_ID_MAX = 42,
};

/* n_block blocks from src (n_block * block_bytes) to dst (n_block * block_len f32). */
typedef void quant_dequant_fn(float *dst, const void *src, size_t n_block);

struct quant_type {
    uint32_t id;
    const char *name;     /* GGML's spelling: "Q4_K" */
    uint32_t block_len;   /* weights per block */
    uint32_t block_bytes; /* bytes per block */
    bool quantized;       /* a block format, or an integer type no reader takes for weights as is */
    quant_dequant_fn
        *f32; /* reference dequantiser; NULL: there is none, and the type is raw only */
};

/* The type of a GGUF id; NULL for ids that never were or were withdrawn (4, 5, 31-33, 36-38). */
const struct quant_type *quant_type(uint32_t id);

/* By GGML's spelling, any case; NULL if unknown. */
const struct quant_type *quant_type_by_name(const char *name);

/* Bytes of one row of n weights: false if n is no whole number of blocks or the size overflows. */
bool quant_row_bytes(const struct quant_type *t, uint64_t n, uint64_t *bytes);

float f16_to_f32(uint16_t h);
uint16_t f32_to_f16(float f); /* round to nearest, ties to even */

static inline float bf16_to_f32(uint16_t h)
{
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}

#endif
