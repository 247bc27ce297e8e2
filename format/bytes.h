/* A bounded little-endian cursor, and arithmetic that reports overflow.
 *
 * Every parser reads through a cursor: it checks n > size - pos, loads by memcpy, and keeps its
 * first error with the byte offset. After an error every get returns 0 and moves nothing, so a
 * parser may check once at the end of a group of fields. */
#ifndef APRFS_FORMAT_BYTES_H
#define APRFS_FORMAT_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cursor {
    const uint8_t *p; /* lent for the cursor's life */
    size_t size, pos;
    bool bad;       /* a get asked for more than is left */
    size_t bad_pos; /* where it stood */
    size_t bad_need;
};

static inline struct cursor cursor_over(const void *p, size_t size)
{
    return (struct cursor){.p = p, .size = size};
}

static inline size_t cursor_left(const struct cursor *c)
{
    return c->size - c->pos;
}

/* n bytes in place, or NULL and bad. n may be 0. */
static inline const uint8_t *cursor_take(struct cursor *c, uint64_t n)
{
    if (c->bad)
        return NULL;
    if (n > cursor_left(c)) {
        c->bad = true;
        c->bad_pos = c->pos;
        c->bad_need = n > SIZE_MAX ? SIZE_MAX : (size_t)n;
        return NULL;
    }
    const uint8_t *p = c->p + c->pos;
    c->pos += (size_t)n;
    return p;
}

static inline uint16_t load_u16(const void *p)
{
    const uint8_t *b = p;
    return (uint16_t)(b[0] | b[1] << 8);
}

static inline uint32_t load_u32(const void *p)
{
    const uint8_t *b = p;
    return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t load_u64(const void *p)
{
    return load_u32(p) | (uint64_t)load_u32((const uint8_t *)p + 4) << 32;
}

static inline float load_f32(const void *p)
{
    uint32_t u = load_u32(p);
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline double load_f64(const void *p)
{
    uint64_t u = load_u64(p);
    double f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline void store_u16(void *p, uint16_t v)
{
    uint8_t *b = p;
    b[0] = (uint8_t)v;
    b[1] = (uint8_t)(v >> 8);
}

static inline void store_u32(void *p, uint32_t v)
{
    store_u16(p, (uint16_t)v);
    store_u16((uint8_t *)p + 2, (uint16_t)(v >> 16));
}

static inline void store_u64(void *p, uint64_t v)
{
    store_u32(p, (uint32_t)v);
    store_u32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

static inline uint8_t cursor_u8(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 1);
    return p ? *p : 0;
}

static inline uint16_t cursor_u16(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 2);
    return p ? load_u16(p) : 0;
}

static inline uint32_t cursor_u32(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 4);
    return p ? load_u32(p) : 0;
}

static inline uint64_t cursor_u64(struct cursor *c)
{
    const uint8_t *p = cursor_take(c, 8);
    return p ? load_u64(p) : 0;
}

/* false on overflow; *out is then unspecified. */
static inline bool add_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}

static inline bool mul_u64(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

/* x rounded up to a multiple of align (a power of two); false on overflow. */
static inline bool round_up_u64(uint64_t x, uint64_t align, uint64_t *out)
{
    if (!add_u64(x, align - 1, out))
        return false;
    *out &= ~(align - 1);
    return true;
}

/* FNV-1a, 64 bits, going on from h (FNV1A_START at first): to tell things apart that nobody forges. */
#define FNV1A_START UINT64_C(14695981039346656037)
static inline uint64_t fnv1a(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * UINT64_C(1099511628211);
    return h;
}

#endif
