/* Reference dequantisers of plain numbers and of blocks of 32, 64 and 128 weights.
 *
 * The order of float operations is llama.cpp's (ggml-quants.c), so that results are equal bit for
 * bit; written to be read, not to be fast. Layouts of the types that quant.h does not list:
 *
 *   type    weights bytes  fields: offset name (bytes)
 *   IQ4_NL    32     18    0 d, 2 qs(16)               w = d * quant_iq4_value[q]
 *   MXFP4     32     17    0 e(1, E8M0), 1 qs(16)      w = e2m1[q] * 2^(e-128)
 *   NVFP4     64     36    0 d(4, UE4M3), 4 qs(32)     w = e2m1[q] * d[i/16] / 2
 *   Q1_0     128     18    0 d, 2 bits(16)             w = bit ? d : -d, low bit first
 *   Q2_0      64     18    0 d, 2 qs(16)               w = d*(q-1), low pair of bits first
 * In a block of 32 nibbles, weight i and weight i+16 share byte i, the first in the low half; NVFP4
 * does the same in each run of 16 over 8 bytes. e2m1 holds doubled values, hence the halved scales.
 */
#include "format/quant_internal.h"

const int8_t quant_iq4_value[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

/* Twice the value of an E2M1 number (OCP Microscaling Formats 1.0, 5.3.3). */
static const int8_t quant_e2m1[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

void quant_f32_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_block; i++)
        dst[i] = load_f32(p + 4 * i);
}

/* Rounds to nearest: the one type here that f32 cannot hold. */
void quant_f64_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_block; i++)
        dst[i] = (float)load_f64(p + 8 * i);
}

void quant_f16_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_block; i++)
        dst[i] = load_f16(p + 2 * i);
}

void quant_bf16_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *p = src;
    for (size_t i = 0; i < n_block; i++)
        dst[i] = bf16_to_f32(load_u16(p + 2 * i));
}

void quant_q4_0_f32(float *restrict dst, const void *restrict src, size_t n_block)
{
    const uint8_t *restrict b = src;
    for (; n_block--; b += 18, dst += 32) {
        float d = load_f16(b);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)((b[2 + i] & 15) - 8) * d;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)((b[2 + i] >> 4) - 8) * d;
    }
}

void quant_q4_1_f32(float *restrict dst, const void *restrict src, size_t n_block)
{
    const uint8_t *restrict b = src;
    for (; n_block--; b += 20, dst += 32) {
        float d = load_f16(b), m = load_f16(b + 2);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)(b[4 + i] & 15) * d + m;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)(b[4 + i] >> 4) * d + m;
    }
}

/* Bit 4 of weight i of a Q5_0 or Q5_1 block. */
static int q5_high(uint32_t qh, int i)
{
    return (int)(qh >> i & 1) << 4;
}

void quant_q5_0_f32(float *restrict dst, const void *restrict src, size_t n_block)
{
    const uint8_t *restrict b = src;
    for (; n_block--; b += 22, dst += 32) {
        float d = load_f16(b);
        uint32_t qh = load_u32(b + 2);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)(((b[6 + i] & 15) | q5_high(qh, i)) - 16) * d;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)((b[6 + i] >> 4 | q5_high(qh, i + 16)) - 16) * d;
    }
}

void quant_q5_1_f32(float *restrict dst, const void *restrict src, size_t n_block)
{
    const uint8_t *restrict b = src;
    for (; n_block--; b += 24, dst += 32) {
        float d = load_f16(b), m = load_f16(b + 2);
        uint32_t qh = load_u32(b + 4);
        for (int i = 0; i < 16; i++)
            dst[i] = (float)((b[8 + i] & 15) | q5_high(qh, i)) * d + m;
        for (int i = 0; i < 16; i++)
            dst[i + 16] = (float)(b[8 + i] >> 4 | q5_high(qh, i + 16)) * d + m;
    }
}

void quant_q8_0_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 34, dst += 32) {
        float d = load_f16(b);
        for (int i = 0; i < 32; i++)
            dst[i] = (float)(int8_t)b[2 + i] * d;
    }
}

void quant_iq4_nl_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 18, dst += 32) {
        float d = load_f16(b);
        for (int i = 0; i < 16; i++) {
            dst[i] = d * (float)quant_iq4_value[b[2 + i] & 15];
            dst[i + 16] = d * (float)quant_iq4_value[b[2 + i] >> 4];
        }
    }
}

/* 2^(e-128) for every e. The standard calls 255 a NaN; llama.cpp computes on with 2^127, and so do
 * we, since the same file must mean the same weights. */
static float e8m0_half(uint8_t e)
{
    uint32_t u = e < 2 ? UINT32_C(0x200000) << e : (uint32_t)(e - 1) << 23;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

void quant_mxfp4_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 17, dst += 32) {
        float d = e8m0_half(b[0]);
        for (int i = 0; i < 16; i++) {
            dst[i] = (float)quant_e2m1[b[1 + i] & 15] * d;
            dst[i + 16] = (float)quant_e2m1[b[1 + i] >> 4] * d;
        }
    }
}

/* Half the value of an unsigned E4M3 number: 4 bits of exponent (bias 7), 3 of mantissa. 0x7f, a
 * NaN by the standard, is 0 in llama.cpp. Bit 7 is ignored: 0x80 to 0xff repeat 0 to 0x7f, except
 * that 0xff is not taken for NaN and 0x80 goes through the subnormals to 0. */
static float ue4m3_half(uint8_t x)
{
    if (x == 0 || x == 0x7f)
        return 0;
    int exp = x >> 3 & 15, man = x & 7;
    if (exp == 0)
        return (float)man * 0x1p-10f;
    uint32_t u = (uint32_t)(exp + 127 - 8) << 23 | (uint32_t)man << 20;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

void quant_nvfp4_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 36, dst += 64)
        for (int s = 0; s < 4; s++) {
            float d = ue4m3_half(b[s]);
            for (int i = 0; i < 8; i++) {
                uint8_t q = b[4 + 8 * s + i];
                dst[16 * s + i] = (float)quant_e2m1[q & 15] * d;
                dst[16 * s + i + 8] = (float)quant_e2m1[q >> 4] * d;
            }
        }
}

void quant_q1_0_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 18, dst += 128) {
        float d = load_f16(b);
        for (int i = 0; i < 128; i++)
            dst[i] = b[2 + i / 8] >> i % 8 & 1 ? d : -d;
    }
}

void quant_q2_0_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 18, dst += 64) {
        float d = load_f16(b);
        for (int i = 0; i < 64; i++)
            dst[i] = (float)((b[2 + i / 4] >> 2 * (i % 4) & 3) - 1) * d;
    }
}
