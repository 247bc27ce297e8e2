/* Block types and random bytes of them: see gguf_build_random_blocks. The table is a copy of
 * ggml-types.tsv's, on purpose: a second witness beside format/quant.c. */
#include "tests/gguf_build.h"

#include "tests/rng.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* d, d2: offsets of the f16 scales, -1: none. rms: the weights' size at d = 1 when the other bits
 * are random; dmin: what the second scale is in units of the first, so that weights centre on 0.
 * f16 scales of float types and integers have cases of their own. */
struct type {
    uint32_t id;
    const char *name;
    uint32_t len, bytes;
    int d, d2;
    float rms, dmin;
};

static const struct type types[] = {
    {0, "F32", 1, 4, -1, -1, 0, 0},           {1, "F16", 1, 2, -1, -1, 0, 0},
    {2, "Q4_0", 32, 18, 0, -1, 4.6f, 0},      {3, "Q4_1", 32, 20, 0, 2, 4.6f, -7.5f},
    {6, "Q5_0", 32, 22, 0, -1, 9.2f, 0},      {7, "Q5_1", 32, 24, 0, 2, 9.2f, -15.5f},
    {8, "Q8_0", 32, 34, 0, -1, 74, 0},        {9, "Q8_1", 32, 36, 0, 2, 74, 0},
    {10, "Q2_K", 256, 84, 80, 82, 13, 1.5f},  {11, "Q3_K", 256, 110, 108, -1, 43, 0},
    {12, "Q4_K", 256, 144, 0, 2, 255, 7.5f},  {13, "Q5_K", 256, 176, 0, 2, 520, 15.5f},
    {14, "Q6_K", 256, 210, 208, -1, 1370, 0}, {15, "Q8_K", 256, 292, -1, -1, 74, 0},
    {16, "IQ2_XXS", 256, 66, 0, -1, 44, 0},   {17, "IQ2_XS", 256, 74, 0, -1, 44, 0},
    {18, "IQ3_XXS", 256, 98, 0, -1, 110, 0},  {19, "IQ1_S", 256, 50, 0, -1, 7, 0},
    {20, "IQ4_NL", 32, 18, 0, -1, 70, 0},     {21, "IQ3_S", 256, 110, 0, -1, 140, 0},
    {22, "IQ2_S", 256, 82, 0, -1, 44, 0},     {23, "IQ4_XS", 256, 136, 0, -1, 1300, 0},
    {24, "I8", 1, 1, -1, -1, 0, 0},           {25, "I16", 1, 2, -1, -1, 0, 0},
    {26, "I32", 1, 4, -1, -1, 0, 0},          {27, "I64", 1, 8, -1, -1, 0, 0},
    {28, "F64", 1, 8, -1, -1, 0, 0},          {29, "IQ1_M", 256, 56, -1, -1, 7, 0},
    {30, "BF16", 1, 2, -1, -1, 0, 0},         {34, "TQ1_0", 256, 54, 52, -1, 0.8f, 0},
    {35, "TQ2_0", 256, 66, 64, -1, 1.2f, 0},  {39, "MXFP4", 32, 17, -1, -1, 6, 0},
    {40, "NVFP4", 64, 36, -1, -1, 6, 0},      {41, "Q1_0", 128, 18, 0, -1, 1, 0},
    {42, "Q2_0", 64, 18, 0, -1, 1.2f, 0},
};

static const struct type *type_of(uint32_t id)
{
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].id == id)
            return &types[i];
    return NULL;
}

bool gguf_build_type(uint32_t id, const char **name, uint32_t *block_len, uint32_t *block_bytes)
{
    const struct type *t = type_of(id);
    if (!t)
        return false;
    if (name)
        *name = t->name;
    if (block_len)
        *block_len = t->len;
    if (block_bytes)
        *block_bytes = t->bytes;
    return true;
}

/* f16 by truncation of the significand: the writer needs finite numbers, not the nearest. */
static uint16_t f16_trunc(float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
    int ex = (int)(u >> 23 & 0xff) - 127 + 15;
    if (ex <= 0) /* subnormal, in units of 2^-24 */
        return (uint16_t)(sign | (int)(fabsf(v) * 0x1p24f));
    if (ex >= 31)
        return (uint16_t)(sign | 0x7bff);
    return (uint16_t)(sign | ex << 10 | (u >> 13 & 0x3ff));
}

static void put_le(uint8_t *p, const void *v, size_t n)
{
    memcpy(p, v, n); /* the hosts we build for are little-endian */
}

static void put_f16(uint8_t *p, float v)
{
    uint16_t h = f16_trunc(v);
    put_le(p, &h, 2);
}

/* Scalar types: uniform floats of size about sigma, small integers. */
static void random_scalar(uint8_t *p, uint32_t id, float sigma, struct rng *r)
{
    float f = rng_f32(r) * sigma * 1.7f;
    int64_t n = (int64_t)rng_below(r, 101) - 50;
    double d = (double)f;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u >>= 16;
    switch (id) {
    case 0:
        put_le(p, &f, 4);
        break;
    case 1:
        put_f16(p, f);
        break;
    case 28:
        put_le(p, &d, 8);
        break;
    case 30:
        put_le(p, &u, 2);
        break;
    default: /* I8 .. I64 */
        put_le(p, &n, (size_t)1 << (id - 24));
    }
}

/* The scales that are no plain f16 at a fixed place. */
static void random_scales(uint8_t *p, uint32_t id, float d)
{
    uint16_t h = f16_trunc(d);
    switch (id) {
    case 15: /* Q8_K: f32 d; the sums of 16 at the end are left random: readers of weights skip them
              */
        put_le(p, &d, 4);
        break;
    case 29: /* IQ1_M: the f16's nibbles are the top ones of four u16 at 48 */
        for (int i = 0; i < 4; i++)
            p[49 + 2 * i] = (uint8_t)((p[49 + 2 * i] & 0x0f) | (h >> 4 * i & 15) << 4);
        break;
    case 39: { /* MXFP4: e with 2^(e-128) about d */
        int e = 128 + (int)lrintf(log2f(d));
        p[0] = (uint8_t)(e < 1 ? 1 : e > 200 ? 200 : e);
        break;
    }
    case 40: /* NVFP4: UE4M3 2^(e-7) * (1 + m/8), e in bits 6-3; /2 in the weight */
        for (int i = 0; i < 4; i++) {
            int e = 8 + (int)lrintf(log2f(d));
            p[i] = (uint8_t)((e < 1 ? 1 : e > 14 ? 14 : e) << 3 | (p[i] & 7));
        }
        break;
    }
}

void gguf_build_random_blocks(void *dst, uint32_t type, size_t n_block, float sigma, uint64_t seed)
{
    const struct type *t = type_of(type);
    if (!t)
        abort();
    struct rng r;
    rng_init(&r, seed);
    uint8_t *p = dst;
    if (t->len == 1) {
        for (size_t i = 0; i < n_block; i++, p += t->bytes)
            random_scalar(p, type, sigma, &r);
        return;
    }
    rng_fill(&r, p, n_block * t->bytes);
    for (size_t i = 0; i < n_block; i++, p += t->bytes) {
        float d = sigma / t->rms * (1 + 0.25f * rng_f32(&r));
        if (t->d >= 0)
            put_f16(p + t->d, d);
        if (t->d2 >= 0)
            put_f16(p + t->d2, d * t->dmin);
        random_scales(p, type, d);
    }
}
