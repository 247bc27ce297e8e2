/* The table of GGML types, row sizing, and binary16: see quant.h. */
#include "format/quant.h"

#include "format/quant_internal.h"

#include <string.h>
#include <strings.h>

/* Source: llama.cpp's type table of 1 October 2026. Integer types are no weights, Q8_1 never stands
 * in a file, and the codebook types (IQ1, IQ2, IQ3) need grids that nothing here reads yet: raw. */
static const struct quant_type quant_types[] = {
    {QUANT_F32, "F32", 1, 4, false, quant_f32_f32},
    {QUANT_F16, "F16", 1, 2, false, quant_f16_f32},
    {QUANT_Q4_0, "Q4_0", 32, 18, true, quant_q4_0_f32},
    {QUANT_Q4_1, "Q4_1", 32, 20, true, quant_q4_1_f32},
    {QUANT_Q5_0, "Q5_0", 32, 22, true, quant_q5_0_f32},
    {QUANT_Q5_1, "Q5_1", 32, 24, true, quant_q5_1_f32},
    {QUANT_Q8_0, "Q8_0", 32, 34, true, quant_q8_0_f32},
    {QUANT_Q8_1, "Q8_1", 32, 36, true, NULL},
    {QUANT_Q2_K, "Q2_K", 256, 84, true, quant_q2_k_f32},
    {QUANT_Q3_K, "Q3_K", 256, 110, true, quant_q3_k_f32},
    {QUANT_Q4_K, "Q4_K", 256, 144, true, quant_q4_k_f32},
    {QUANT_Q5_K, "Q5_K", 256, 176, true, quant_q5_k_f32},
    {QUANT_Q6_K, "Q6_K", 256, 210, true, quant_q6_k_f32},
    {QUANT_Q8_K, "Q8_K", 256, 292, true, quant_q8_k_f32},
    {QUANT_IQ2_XXS, "IQ2_XXS", 256, 66, true, NULL},
    {QUANT_IQ2_XS, "IQ2_XS", 256, 74, true, NULL},
    {QUANT_IQ3_XXS, "IQ3_XXS", 256, 98, true, NULL},
    {QUANT_IQ1_S, "IQ1_S", 256, 50, true, NULL},
    {QUANT_IQ4_NL, "IQ4_NL", 32, 18, true, quant_iq4_nl_f32},
    {QUANT_IQ3_S, "IQ3_S", 256, 110, true, NULL},
    {QUANT_IQ2_S, "IQ2_S", 256, 82, true, NULL},
    {QUANT_IQ4_XS, "IQ4_XS", 256, 136, true, quant_iq4_xs_f32},
    {QUANT_I8, "I8", 1, 1, true, NULL},
    {QUANT_I16, "I16", 1, 2, true, NULL},
    {QUANT_I32, "I32", 1, 4, true, NULL},
    {QUANT_I64, "I64", 1, 8, true, NULL},
    {QUANT_F64, "F64", 1, 8, false, quant_f64_f32},
    {QUANT_IQ1_M, "IQ1_M", 256, 56, true, NULL},
    {QUANT_BF16, "BF16", 1, 2, false, quant_bf16_f32},
    {QUANT_TQ1_0, "TQ1_0", 256, 54, true, quant_tq1_0_f32},
    {QUANT_TQ2_0, "TQ2_0", 256, 66, true, quant_tq2_0_f32},
    {QUANT_MXFP4, "MXFP4", 32, 17, true, quant_mxfp4_f32},
    {QUANT_NVFP4, "NVFP4", 64, 36, true, quant_nvfp4_f32},
    {QUANT_Q1_0, "Q1_0", 128, 18, true, quant_q1_0_f32},
    {QUANT_Q2_0, "Q2_0", 64, 18, true, quant_q2_0_f32},
};

#define N_TYPE (sizeof quant_types / sizeof quant_types[0])

const struct quant_type *quant_type(uint32_t id)
{
    size_t lo = 0, hi = N_TYPE; /* the table is sorted by id */
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (quant_types[mid].id == id)
            return &quant_types[mid];
        if (quant_types[mid].id < id)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

const struct quant_type *quant_type_by_name(const char *name)
{
    for (size_t i = 0; i < N_TYPE; i++)
        if (strcasecmp(quant_types[i].name, name) == 0)
            return &quant_types[i];
    return NULL;
}

bool quant_row_bytes(const struct quant_type *t, uint64_t n, uint64_t *bytes)
{
    if (n % t->block_len != 0)
        return false;
    return !__builtin_mul_overflow(n / t->block_len, (uint64_t)t->block_bytes, bytes);
}

static float bits_f32(uint32_t u)
{
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Every value of binary16 is one of binary32, subnormals included. A NaN keeps its sign and payload
 * and becomes quiet, as the hardware conversions do. */
float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16;
    uint32_t exp = h >> 10 & 0x1f, man = h & 0x3ff;

    if (exp == 0x1f)
        return bits_f32(sign | 0x7f800000 | (man ? 0x400000 | man << 13 : 0));
    if (exp == 0) { /* man * 2^-24, exactly */
        float f = (float)man * 0x1p-24f;
        return sign ? -f : f;
    }
    return bits_f32(sign | (exp + 112) << 23 | man << 13);
}

uint16_t f32_to_f16(float f)
{
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    uint32_t a = u & 0x7fffffff;

    if (a > 0x7f800000) /* NaN: quiet, with what is left of the payload */
        return (uint16_t)(sign | 0x7e00 | (a >> 13 & 0x1ff));
    if (a >= 0x477ff000) /* 65520 and more round to infinity */
        return sign | 0x7c00;
    if (a < 0x33000001) /* up to 2^-25, half of the smallest subnormal: ties to even, zero */
        return sign;

    uint32_t man, shift;
    uint32_t base; /* the result's exponent, to which a carry out of the rounding may add */
    if (a < 0x38800000) {
        man = (a & 0x7fffff) | 0x800000;
        shift = 126 - (a >> 23); /* 14..24 */
        base = 0;
    } else {
        man = a & 0x7fffff;
        shift = 13;
        base = ((a >> 23) - 112) << 10;
    }
    uint32_t q = man >> shift, rest = man & ((UINT32_C(1) << shift) - 1);
    uint32_t half = UINT32_C(1) << (shift - 1);
    if (rest > half || (rest == half && (q & 1)))
        q++;
    return (uint16_t)(sign | (base + q));
}
