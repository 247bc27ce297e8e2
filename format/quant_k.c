/* Reference dequantisers of the blocks of 256 weights.
 *
 * The order of float operations is llama.cpp's (ggml-quants.c), so that results are equal bit for
 * bit. Layouts of the types that quant.h does not list; H = i/128, Q = (i%128)/32, l = i%32:
 *
 *   type    bytes  fields: offset name (bytes)
 *   Q2_K      84   0 scales(16), 16 qs(64), 80 d, 82 dmin
 *                  q = qs[32H + l] >> 2Q & 3; scales[i/16]: low nibble scale, high nibble minimum;
 *                  w = d*sc*q - dmin*m
 *   Q3_K     110   0 hmask(32), 32 qs(64), 96 scales(12), 108 d
 *                  q = (qs[32H + l] >> 2Q & 3) - (bit 4H+Q of hmask[l] ? 0 : 4); six-bit scales, see
 *                  q3_scale(); w = d*(sc-32)*q
 *   Q8_K     292   0 d (f32), 4 qs(256, signed), 260 bsums(16 i16, not needed); w = d*q
 *   IQ4_XS   136   0 d, 2 scales_h(u16), 4 scales_l(4), 8 qs(128)
 *                  eight runs of 32, nibbles as in IQ4_NL; scale: low nibble from scales_l, two high
 *                  bits from scales_h; w = d*(sc-32) * quant_iq4_value[q]
 *   TQ1_0     54   0 qs(48), 48 qh(4), 52 d: ternary digits, five a byte in qs, four in qh, see
 *                  trit(); w = d*(q-1)
 *   TQ2_0     66   0 qs(64), 64 d; q = qs[32H + l] >> 2Q & 3; w = d*(q-1)
 */
#include "format/quant_internal.h"

void quant_q2_k_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 84, dst += 256) {
        const uint8_t *qs = b + 16;
        float d = load_f16(b + 80), dmin = load_f16(b + 82);
        for (int g = 0; g < 16; g++) { /* 16 weights of one scale */
            float dl = d * (float)(b[g] & 15), ml = dmin * (float)(b[g] >> 4);
            const uint8_t *q = qs + 32 * (g / 8) + 16 * (g % 2);
            int shift = 2 * (g % 8 / 2);
            for (int l = 0; l < 16; l++)
                dst[16 * g + l] = dl * (float)(q[l] >> shift & 3) - ml;
        }
    }
}

/* Scale g of 16: four low bits in bytes 0-7 (g < 8 low nibbles, then high), two high bits in bytes
 * 8-11 (scales g, g+4, g+8, g+12 share a byte, lowest first). */
static int q3_scale(const uint8_t *sc, int g)
{
    int low = g < 8 ? sc[g] & 15 : sc[g - 8] >> 4;
    return low | (sc[8 + g % 4] >> 2 * (g / 4) & 3) << 4;
}

void quant_q3_k_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 110, dst += 256) {
        float d = load_f16(b + 108);
        for (int g = 0; g < 16; g++) {
            float dl = d * (float)(q3_scale(b + 96, g) - 32);
            const uint8_t *q = b + 32 + 32 * (g / 8) + 16 * (g % 2);
            const uint8_t *high = b + 16 * (g % 2);
            int shift = 2 * (g % 8 / 2), bit = g / 2;
            for (int l = 0; l < 16; l++)
                dst[16 * g + l] = dl * (float)((q[l] >> shift & 3) - (high[l] >> bit & 1 ? 0 : 4));
        }
    }
}

/* Scale and minimum j of 8 from the 12 bytes of a Q4_K or Q5_K block: byte k has sc[k] and two high
 * bits of sc[4+k]; byte 4+k the same of m; byte 8+k four low bits of sc[4+k], then of m[4+k]. */
static void k4_scale(const uint8_t *b, int j, int *sc, int *m)
{
    if (j < 4) {
        *sc = b[j] & 63;
        *m = b[j + 4] & 63;
    } else {
        *sc = (b[j + 4] & 15) | b[j - 4] >> 6 << 4;
        *m = b[j + 4] >> 4 | b[j] >> 6 << 4;
    }
}

void quant_q4_k_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 144, dst += 256) {
        float d = load_f16(b), dmin = load_f16(b + 2);
        for (int j = 0; j < 8; j++) {
            int sc, m;
            k4_scale(b + 4, j, &sc, &m);
            float dl = d * (float)sc, ml = dmin * (float)m;
            const uint8_t *q = b + 16 + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int l = 0; l < 32; l++)
                dst[32 * j + l] = dl * (float)(q[l] >> shift & 15) - ml;
        }
    }
}

void quant_q5_k_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 176, dst += 256) {
        float d = load_f16(b), dmin = load_f16(b + 2);
        const uint8_t *qh = b + 16;
        for (int j = 0; j < 8; j++) {
            int sc, m;
            k4_scale(b + 4, j, &sc, &m);
            float dl = d * (float)sc, ml = dmin * (float)m;
            const uint8_t *q = b + 48 + 32 * (j / 2);
            int shift = 4 * (j % 2);
            for (int l = 0; l < 32; l++)
                dst[32 * j + l] = dl * (float)((q[l] >> shift & 15) | (qh[l] >> j & 1) << 4) - ml;
        }
    }
}

void quant_q6_k_f32(float *restrict dst, const void *restrict src, size_t n_block)
{
    const uint8_t *restrict b = src;
    for (; n_block--; b += 210, dst += 256) {
        float d = load_f16(b + 208);
        for (int j = 0; j < 16; j++) { /* runs of 16 share a scale */
            int half = j / 8, quarter = j % 8 / 2;
            const uint8_t *restrict ql = b + 64 * half + 32 * (quarter % 2) + 16 * (j % 2);
            const uint8_t *restrict qh = b + 128 + 32 * half + 16 * (j % 2);
            int shift = 4 * (quarter / 2);
            float dl = d * (float)(int8_t)b[192 + j];
            for (int l = 0; l < 16; l++) {
                int q = ((ql[l] >> shift & 15) | (qh[l] >> 2 * quarter & 3) << 4) - 32;
                dst[16 * j + l] = dl * (float)q;
            }
        }
    }
}

void quant_q8_k_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 292, dst += 256) {
        float d = load_f32(b);
        for (int i = 0; i < 256; i++)
            dst[i] = d * (float)(int8_t)b[4 + i];
    }
}

void quant_iq4_xs_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 136, dst += 256) {
        float d = load_f16(b);
        unsigned high = load_u16(b + 2);
        for (int j = 0; j < 8; j++) {
            int sc = (b[4 + j / 2] >> 4 * (j % 2) & 15) | (int)(high >> 2 * j & 3) << 4;
            float dl = d * (float)(sc - 32);
            const uint8_t *q = b + 8 + 16 * j;
            for (int i = 0; i < 16; i++) {
                dst[32 * j + i] = dl * (float)quant_iq4_value[q[i] & 15];
                dst[32 * j + i + 16] = dl * (float)quant_iq4_value[q[i] >> 4];
            }
        }
    }
}

/* Digit n of a byte that holds, as a fraction of 256 rounded up, a number of base-3 digits behind
 * the point: shift n digits out at the left (modulo 256), the next is what 3 times the rest
 * carries.
 */
static int trit(uint8_t byte, int n)
{
    static const uint8_t pow3[5] = {1, 3, 9, 27, 81};
    uint8_t rest = (uint8_t)(byte * pow3[n]);
    return rest * 3 >> 8;
}

void quant_tq1_0_f32(float *dst, const void *src, size_t n_block)
{
    /* Runs of bytes whose first digits come first, then their second digits, and so on. */
    static const struct {
        uint8_t off, len, digits;
    } run[3] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
    const uint8_t *b = src;
    for (; n_block--; b += 54) {
        float d = load_f16(b + 52);
        for (int r = 0; r < 3; r++)
            for (int n = 0; n < run[r].digits; n++)
                for (int i = 0; i < run[r].len; i++)
                    *dst++ = (float)(trit(b[run[r].off + i], n) - 1) * d;
    }
}

void quant_tq2_0_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 66, dst += 256) {
        float d = load_f16(b + 64);
        for (int i = 0; i < 256; i++)
            dst[i] = (float)((b[32 * (i / 128) + i % 32] >> 2 * (i % 128 / 32) & 3) - 1) * d;
    }
}
