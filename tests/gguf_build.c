/* The writer behind gguf_build.h: keys and tensors in, file bytes out. The model builder is
 * gguf_build_model.c, bytes of types
 * gguf_build_blocks.c, the malformed corpus gguf_build_bad.c. */
#include "tests/gguf_build.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *must(void *p)
{
    if (!p) {
        fputs("gguf_build: no memory\n", stderr);
        abort();
    }
    return p;
}

/* --- bytes ------------------------------------------------------------------------------- */

void buf_put(struct buf *b, const void *p, size_t n)
{
    if (n > b->cap - b->len) {
        size_t cap = b->cap ? b->cap : 256;
        while (cap - b->len < n)
            cap *= 2;
        b->p = must(realloc(b->p, cap));
        b->cap = cap;
    }
    if (n > 0)
        memcpy(b->p + b->len, p, n);
    b->len += n;
}

void buf_u8(struct buf *b, uint8_t v)
{
    buf_put(b, &v, 1);
}

void buf_u16(struct buf *b, uint16_t v)
{
    buf_put(b, (uint8_t[]){(uint8_t)v, (uint8_t)(v >> 8)}, 2);
}

void buf_u32(struct buf *b, uint32_t v)
{
    buf_u16(b, (uint16_t)v);
    buf_u16(b, (uint16_t)(v >> 16));
}

void buf_u64(struct buf *b, uint64_t v)
{
    buf_u32(b, (uint32_t)v);
    buf_u32(b, (uint32_t)(v >> 32));
}

void buf_f32(struct buf *b, float v)
{
    uint32_t u;
    memcpy(&u, &v, sizeof u);
    buf_u32(b, u);
}

void buf_f64(struct buf *b, double v)
{
    uint64_t u;
    memcpy(&u, &v, sizeof u);
    buf_u64(b, u);
}

static void buf_strn(struct buf *b, const void *p, size_t n)
{
    buf_u64(b, n);
    buf_put(b, p, n);
}

void buf_str(struct buf *b, const char *s)
{
    buf_strn(b, s, strlen(s));
}

void buf_pad(struct buf *b, size_t align)
{
    while (b->len % align)
        buf_u8(b, 0);
}

void buf_free(struct buf *b)
{
    free(b->p);
    *b = (struct buf){0};
}

/* --- keys -------------------------------------------------------------------------------- */

struct key {
    char *name;
    uint32_t type;
    struct buf value;
};

struct tensor {
    char *name;
    uint32_t type, n_dim;
    uint64_t ne[8];
    uint8_t *data;
    size_t len;
};

struct gguf_build {
    uint32_t version, align;
    uint64_t seed, gap, tail;
    struct key *key;
    size_t n_key;
    struct tensor *tensor;
    size_t n_tensor;
};

struct gguf_build *gguf_build_new(uint32_t version, uint64_t seed)
{
    struct gguf_build *b = must(calloc(1, sizeof *b));
    b->version = version;
    b->seed = seed;
    b->align = 32;
    return b;
}

void gguf_build_free(struct gguf_build *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->n_key; i++) {
        free(b->key[i].name);
        buf_free(&b->key[i].value);
    }
    for (size_t i = 0; i < b->n_tensor; i++) {
        free(b->tensor[i].name);
        free(b->tensor[i].data);
    }
    free(b->key);
    free(b->tensor);
    free(b);
}

static struct key *find_key(const struct gguf_build *b, const char *name)
{
    for (size_t i = 0; i < b->n_key; i++)
        if (strcmp(b->key[i].name, name) == 0)
            return &b->key[i];
    return NULL;
}

/* The emptied value of a key, new or old. */
static struct buf *set_key(struct gguf_build *b, const char *name, uint32_t type)
{
    struct key *k = find_key(b, name);
    if (!k) {
        b->key = must(realloc(b->key, (b->n_key + 1) * sizeof *b->key));
        k = &b->key[b->n_key++];
        *k = (struct key){.name = must(strdup(name))};
    }
    k->type = type;
    k->value.len = 0;
    return &k->value;
}

void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *p, size_t len)
{
    buf_put(set_key(b, key, type), p, len);
}

void gguf_build_u8(struct gguf_build *b, const char *key, uint8_t v)
{
    gguf_build_raw(b, key, 0, &v, sizeof v);
}

void gguf_build_i8(struct gguf_build *b, const char *key, int8_t v)
{
    gguf_build_raw(b, key, 1, &v, sizeof v);
}

void gguf_build_u16(struct gguf_build *b, const char *key, uint16_t v)
{
    buf_u16(set_key(b, key, 2), v);
}

void gguf_build_i16(struct gguf_build *b, const char *key, int16_t v)
{
    buf_u16(set_key(b, key, 3), (uint16_t)v);
}

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v)
{
    buf_u32(set_key(b, key, 4), v);
}

void gguf_build_i32(struct gguf_build *b, const char *key, int32_t v)
{
    buf_u32(set_key(b, key, 5), (uint32_t)v);
}

void gguf_build_f32(struct gguf_build *b, const char *key, float v)
{
    buf_f32(set_key(b, key, 6), v);
}

void gguf_build_bool(struct gguf_build *b, const char *key, bool v)
{
    buf_u8(set_key(b, key, 7), v);
}

void gguf_build_strn(struct gguf_build *b, const char *key, const void *p, size_t len)
{
    buf_strn(set_key(b, key, 8), p, len);
}

void gguf_build_str(struct gguf_build *b, const char *key, const char *v)
{
    gguf_build_strn(b, key, v, strlen(v));
}

void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t v)
{
    buf_u64(set_key(b, key, 10), v);
}

void gguf_build_i64(struct gguf_build *b, const char *key, int64_t v)
{
    buf_u64(set_key(b, key, 11), (uint64_t)v);
}

void gguf_build_f64(struct gguf_build *b, const char *key, double v)
{
    buf_f64(set_key(b, key, 12), v);
}

void gguf_build_array(struct gguf_build *b, const char *key, uint32_t elem, const void *v, size_t n)
{
    static const uint8_t size[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    struct buf *out = set_key(b, key, 9);
    buf_u32(out, elem);
    buf_u64(out, n);
    buf_put(out, v, n * size[elem]);
}

void gguf_build_array_str(struct gguf_build *b, const char *key, const char *const *v, size_t n)
{
    struct buf *out = set_key(b, key, 9);
    buf_u32(out, 8);
    buf_u64(out, n);
    for (size_t i = 0; i < n; i++)
        buf_str(out, v[i]);
}

void gguf_build_remove(struct gguf_build *b, const char *key)
{
    struct key *k = find_key(b, key);
    if (!k)
        return;
    free(k->name);
    buf_free(&k->value);
    size_t i = (size_t)(k - b->key);
    memmove(k, k + 1, (--b->n_key - i) * sizeof *k);
}

/* --- tensors ----------------------------------------------------------------------------- */

static struct tensor *find_tensor(const struct gguf_build *b, const char *name)
{
    for (size_t i = 0; i < b->n_tensor; i++)
        if (strcmp(b->tensor[i].name, name) == 0)
            return &b->tensor[i];
    return NULL;
}

/* Equal names give equal bytes, whatever stands around them. */
static uint64_t seed_of(uint64_t seed, const char *name)
{
    for (; *name; name++)
        seed = (seed ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return seed;
}

static void fill_random(const struct gguf_build *b, struct tensor *t)
{
    const char *type_name;
    uint32_t block_len, block_bytes;
    if (!gguf_build_type(t->type, &type_name, &block_len, &block_bytes))
        abort();
    uint64_t n = 1;
    for (uint32_t i = 0; i < t->n_dim; i++)
        n *= t->ne[i];
    if (t->ne[0] % block_len != 0) {
        fprintf(stderr, "gguf_build: '%s': row of %llu is no whole number of %s blocks\n", t->name,
                (unsigned long long)t->ne[0], type_name);
        abort();
    }
    t->len = n / block_len * block_bytes;
    free(t->data);
    t->data = must(malloc(t->len ? t->len : 1));
    bool norm = strstr(t->name, "norm") || strstr(t->name, "rope_f");
    float sigma = strstr(t->name, ".bias") ? 0.05f
                  : norm                   ? 0.1f
                                           : 1 / sqrtf((float)(t->ne[0] ? t->ne[0] : 1));
    gguf_build_random_blocks(t->data, t->type, n / block_len, sigma, seed_of(b->seed, t->name));
    if (!norm || strstr(t->name, ".bias"))
        return;
    for (uint64_t i = 0; i < n; i++) { /* norm weights stand about 1 */
        float f = 1;
        uint8_t *p = t->data + i * block_bytes;
        if (t->type == 0) {
            memcpy(&f, p, 4);
            f += 1;
            memcpy(p, &f, 4);
        } else if (t->type == 1) {
            memcpy(p, (uint8_t[]){p[0], 0x3c}, 2); /* 1 .. 1.25 */
        } else if (t->type == 30) {
            memcpy(p, (uint8_t[]){(uint8_t)(0x80 + p[0] % 16), 0x3f}, 2);
        }
    }
}

void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dim,
                       const uint64_t *ne, const void *data)
{
    gguf_build_tensor_remove(b, name);
    b->tensor = must(realloc(b->tensor, (b->n_tensor + 1) * sizeof *b->tensor));
    struct tensor *t = &b->tensor[b->n_tensor++];
    *t = (struct tensor){.name = must(strdup(name)), .type = type, .n_dim = n_dim};
    memcpy(t->ne, ne, n_dim * sizeof *ne);
    fill_random(b, t);
    if (data)
        memcpy(t->data, data, t->len);
}

void gguf_build_tensor_1d(struct gguf_build *b, const char *name, uint32_t type, uint64_t ne0)
{
    gguf_build_tensor(b, name, type, 1, &ne0, NULL);
}

void gguf_build_tensor_2d(struct gguf_build *b, const char *name, uint32_t type, uint64_t ne0,
                          uint64_t ne1)
{
    gguf_build_tensor(b, name, type, 2, (uint64_t[]){ne0, ne1}, NULL);
}

void gguf_build_tensor_remove(struct gguf_build *b, const char *name)
{
    struct tensor *t = find_tensor(b, name);
    if (!t)
        return;
    free(t->name);
    free(t->data);
    size_t i = (size_t)(t - b->tensor);
    memmove(t, t + 1, (--b->n_tensor - i) * sizeof *t);
}

void gguf_build_tensor_retype(struct gguf_build *b, const char *name, uint32_t type)
{
    struct tensor *t = must(find_tensor(b, name));
    t->type = type;
    fill_random(b, t);
}

size_t gguf_build_n_tensor(const struct gguf_build *b)
{
    return b->n_tensor;
}

const char *gguf_build_tensor_name(const struct gguf_build *b, size_t i)
{
    return i < b->n_tensor ? b->tensor[i].name : NULL;
}

const uint8_t *gguf_build_tensor_data(const struct gguf_build *b, const char *name, size_t *len)
{
    const struct tensor *t = find_tensor(b, name);
    if (t)
        *len = t->len;
    return t ? t->data : NULL;
}

void gguf_build_align(struct gguf_build *b, uint32_t align)
{
    b->align = align;
    gguf_build_u32(b, "general.alignment", align);
}

void gguf_build_gap(struct gguf_build *b, uint64_t first, uint64_t tail)
{
    b->gap = first;
    b->tail = tail;
}

/* --- files ------------------------------------------------------------------------------- */

static void put_key(struct buf *out, const struct key *k)
{
    buf_str(out, k->name);
    buf_u32(out, k->type);
    buf_put(out, k->value.p, k->value.len);
}

static uint64_t round_up(uint64_t x, uint64_t a)
{
    return (x + a - 1) / a * a;
}

static void put_tensors(struct buf *out, const struct gguf_build *b, size_t from, size_t to)
{
    uint64_t off = b->gap;
    for (size_t i = from; i < to; i++) {
        const struct tensor *t = &b->tensor[i];
        buf_str(out, t->name);
        buf_u32(out, t->n_dim);
        for (uint32_t d = 0; d < t->n_dim; d++)
            buf_u64(out, t->ne[d]);
        buf_u32(out, t->type);
        buf_u64(out, off);
        off = round_up(off + t->len, b->align);
    }
    buf_pad(out, b->align);
    static const uint8_t zero[4096];
    for (uint64_t left = b->gap; left > 0;) {
        size_t n = left < sizeof zero ? (size_t)left : sizeof zero;
        buf_put(out, zero, n);
        left -= n;
    }
    for (size_t i = from; i < to; i++) {
        buf_put(out, b->tensor[i].data, b->tensor[i].len);
        buf_pad(out, b->align);
    }
    for (uint64_t i = 0; i < b->tail; i++)
        buf_u8(out, 0xee);
}

static void put_magic(struct buf *out, const struct gguf_build *b, size_t n_tensor, size_t n_key)
{
    buf_put(out, "GGUF", 4);
    buf_u32(out, b->version);
    buf_u64(out, n_tensor);
    buf_u64(out, n_key);
}

uint8_t *gguf_build_bytes(const struct gguf_build *b, size_t *len)
{
    struct buf out = {0};
    put_magic(&out, b, b->n_tensor, b->n_key);
    for (size_t i = 0; i < b->n_key; i++)
        put_key(&out, &b->key[i]);
    put_tensors(&out, b, 0, b->n_tensor);
    *len = out.len;
    return out.p;
}

uint8_t *gguf_build_shard(const struct gguf_build *b, int part, int n_part, size_t *len)
{
    struct buf out = {0};
    size_t from = b->n_tensor * (size_t)part / (size_t)n_part;
    size_t to = b->n_tensor * ((size_t)part + 1) / (size_t)n_part;
    const struct key *align = find_key(b, "general.alignment");
    size_t n_key = part == 0 ? b->n_key : align ? 1 : 0;
    put_magic(&out, b, to - from, n_key + 3);
    if (part == 0)
        for (size_t i = 0; i < b->n_key; i++)
            put_key(&out, &b->key[i]);
    else if (align)
        put_key(&out, align);
    buf_str(&out, "split.no");
    buf_u32(&out, 2);
    buf_u16(&out, (uint16_t)part);
    buf_str(&out, "split.count");
    buf_u32(&out, 2);
    buf_u16(&out, (uint16_t)n_part);
    buf_str(&out, "split.tensors.count");
    buf_u32(&out, 5);
    buf_u32(&out, (uint32_t)b->n_tensor);
    put_tensors(&out, b, from, to);
    *len = out.len;
    return out.p;
}

static void write_file(const char *path, const uint8_t *p, size_t len)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(p, 1, len, f) != len || fclose(f) != 0) {
        perror(path);
        abort();
    }
}

void gguf_build_file(const struct gguf_build *b, const char *path)
{
    size_t len;
    uint8_t *p = gguf_build_bytes(b, &len);
    write_file(path, p, len);
    free(p);
}

void gguf_build_files(const struct gguf_build *b, const char *dir, const char *prefix, int n_part)
{
    char path[4096];
    if (n_part == 0) {
        snprintf(path, sizeof path, "%s/%s.gguf", dir, prefix);
        gguf_build_file(b, path);
    }
    for (int i = 0; i < n_part; i++) {
        size_t len;
        uint8_t *p = gguf_build_shard(b, i, n_part, &len);
        snprintf(path, sizeof path, "%s/%s-%05d-of-%05d.gguf", dir, prefix, i + 1, n_part);
        write_file(path, p, len);
        free(p);
    }
}
