/* A small random generator, equal on every machine: xoshiro256** seeded by splitmix64 (Blackman and
 * Vigna, public domain). */
#ifndef APRFS_TESTS_RNG_H
#define APRFS_TESTS_RNG_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct rng {
    uint64_t s[4];
};

static inline void rng_init(struct rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = (seed += UINT64_C(0x9e3779b97f4a7c15));
        z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
        r->s[i] = z ^ (z >> 31);
    }
}

static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->s, m = s[1] * 5, t = s[1] << 17;
    uint64_t out = (m << 7 | m >> 57) * 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return out;
}

/* 0 .. n-1, n > 0; the bias of % does not matter to tests. */
static inline uint64_t rng_below(struct rng *r, uint64_t n)
{
    return rng_u64(r) % n;
}

/* Uniform in [-1, 1). */
static inline float rng_f32(struct rng *r)
{
    return (float)(rng_u64(r) >> 40) / (float)(1 << 23) - 1.0f;
}

static inline void rng_fill(struct rng *r, void *dst, size_t len)
{
    uint8_t *p = dst;
    while (len > 0) {
        uint64_t v = rng_u64(r);
        size_t n = len < 8 ? len : 8;
        memcpy(p, &v, n);
        p += n;
        len -= n;
    }
}

#endif
