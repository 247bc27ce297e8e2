/* Typed views of keys and array elements, and names looked up: see gguf.h. Everything here works on
 * keys that gguf_parse.c has checked, and checks lengths again only where a caller's number comes
 * in. */
#include "format/gguf_internal.h"

#include "format/bytes.h"

#include <stdlib.h>
#include <string.h>

/* --- scalars ----------------------------------------------------------------------------- */

/* An integer of any width as sign and bits; false for other types. */
static bool load_int(uint32_t type, const uint8_t *p, bool *negative, uint64_t *bits)
{
    int64_t v = 0;
    *negative = false;
    switch (type) {
    case GGUF_U8:
        *bits = *p;
        return true;
    case GGUF_U16:
        *bits = load_u16(p);
        return true;
    case GGUF_U32:
        *bits = load_u32(p);
        return true;
    case GGUF_U64:
        *bits = load_u64(p);
        return true;
    case GGUF_I8:
        v = (int8_t)*p;
        break;
    case GGUF_I16:
        v = (int16_t)load_u16(p);
        break;
    case GGUF_I32:
        v = (int32_t)load_u32(p);
        break;
    case GGUF_I64:
        v = (int64_t)load_u64(p);
        break;
    default:
        return false;
    }
    *negative = v < 0;
    *bits = (uint64_t)v;
    return true;
}

static bool scalar_u64(uint32_t type, const uint8_t *p, uint64_t *v)
{
    bool negative;
    uint64_t bits;
    if (!load_int(type, p, &negative, &bits) || negative)
        return false;
    *v = bits;
    return true;
}

static bool scalar_i64(uint32_t type, const uint8_t *p, int64_t *v)
{
    bool negative;
    uint64_t bits;
    if (!load_int(type, p, &negative, &bits) || (!negative && bits > INT64_MAX))
        return false;
    *v = (int64_t)bits;
    return true;
}

static bool scalar_f64(uint32_t type, const uint8_t *p, double *v)
{
    bool negative;
    uint64_t bits;
    if (type == GGUF_F32)
        *v = (double)load_f32(p);
    else if (type == GGUF_F64)
        *v = load_f64(p);
    else if (load_int(type, p, &negative, &bits))
        *v = negative ? (double)(int64_t)bits : (double)bits;
    else
        return false;
    return true;
}

static bool scalar_bool(uint32_t type, const uint8_t *p, bool *v)
{
    if (type != GGUF_BOOL)
        return false;
    *v = *p != 0;
    return true;
}

bool gguf_as_u64(const struct gguf_key *k, uint64_t *v)
{
    return k && scalar_u64(k->type, k->data, v);
}

bool gguf_as_i64(const struct gguf_key *k, int64_t *v)
{
    return k && scalar_i64(k->type, k->data, v);
}

bool gguf_as_f64(const struct gguf_key *k, double *v)
{
    return k && scalar_f64(k->type, k->data, v);
}

bool gguf_as_bool(const struct gguf_key *k, bool *v)
{
    return k && scalar_bool(k->type, k->data, v);
}

bool gguf_as_str(const struct gguf_key *k, struct gguf_str *v)
{
    if (!k || k->type != GGUF_STRING)
        return false;
    *v = (struct gguf_str){(const char *)k->data, k->data_len};
    return true;
}

/* --- arrays ------------------------------------------------------------------------------ */

/* Element i of an array of scalars, or NULL. */
static const uint8_t *elem_at(const struct gguf_key *k, uint64_t i)
{
    if (!k || k->type != GGUF_ARRAY || i >= k->n)
        return NULL;
    size_t size = gguf_scalar_size(k->elem);
    return size ? k->data + i * size : NULL;
}

bool gguf_elem_u64(const struct gguf_key *k, uint64_t i, uint64_t *v)
{
    const uint8_t *p = elem_at(k, i);
    return p && scalar_u64(k->elem, p, v);
}

bool gguf_elem_i64(const struct gguf_key *k, uint64_t i, int64_t *v)
{
    const uint8_t *p = elem_at(k, i);
    return p && scalar_i64(k->elem, p, v);
}

bool gguf_elem_f64(const struct gguf_key *k, uint64_t i, double *v)
{
    const uint8_t *p = elem_at(k, i);
    return p && scalar_f64(k->elem, p, v);
}

bool gguf_elem_bool(const struct gguf_key *k, uint64_t i, bool *v)
{
    const uint8_t *p = elem_at(k, i);
    return p && scalar_bool(k->elem, p, v);
}

/* Steps over the n elements of an array at the cursor. Depth was bounded when it was parsed. */
static void skip_elems(struct cursor *c, uint32_t elem, uint64_t n)
{
    size_t size = gguf_scalar_size(elem);
    if (size > 0) {
        cursor_take(c, n * size);
        return;
    }
    for (uint64_t i = 0; i < n && !c->bad; i++) {
        if (elem == GGUF_STRING) {
            cursor_take(c, cursor_u64(c));
        } else {
            uint32_t sub = cursor_u32(c);
            uint64_t sub_n = cursor_u64(c);
            skip_elems(c, sub, sub_n);
        }
    }
}

bool gguf_next_elem(const struct gguf_key *array, size_t *pos, struct gguf_key *elem)
{
    if (!array || array->type != GGUF_ARRAY || *pos >= array->data_len)
        return false;
    struct cursor c = cursor_over(array->data, array->data_len);
    c.pos = *pos;
    struct gguf_key k = {.name = {"", 0}, .type = array->elem, .n = 1};
    if (k.type == GGUF_ARRAY) {
        k.elem = (enum gguf_type)cursor_u32(&c);
        k.n = cursor_u64(&c);
    } else if (k.type == GGUF_STRING) {
        k.data_len = (size_t)cursor_u64(&c);
    } else {
        k.data_len = gguf_scalar_size(k.type);
    }
    k.data = c.p + c.pos;
    if (k.type == GGUF_ARRAY) {
        skip_elems(&c, k.elem, k.n);
        k.data_len = (size_t)(c.p + c.pos - k.data);
    } else {
        cursor_take(&c, k.data_len);
    }
    if (c.bad)
        return false;
    *pos = c.pos;
    *elem = k;
    return true;
}

bool gguf_str_eq(struct gguf_str s, const char *lit)
{
    size_t n = strlen(lit);
    return s.len == n && memcmp(s.p, lit, n) == 0;
}

/* --- names ------------------------------------------------------------------------------- */

static int compare(const struct gguf_str *a, const struct gguf_str *b)
{
    if (a->len != b->len)
        return a->len < b->len ? -1 : 1;
    return memcmp(a->p, b->p, a->len);
}

static int compare_entries(const void *a, const void *b)
{
    const struct gguf_str *const *x = a, *const *y = b;
    int d = compare(*x, *y);
    return d ? d : *x < *y ? -1 : *x > *y; /* of equals, the later in the file comes second */
}

static int compare_sought(const void *sought, const void *entry)
{
    const struct gguf_str *const *y = entry;
    return compare(sought, *y);
}

const struct gguf_str **gguf_index_new(const void *base, size_t n, size_t stride)
{
    const struct gguf_str **index = calloc(n ? n : 1, sizeof *index);
    if (!index)
        return NULL;
    for (size_t i = 0; i < n; i++)
        index[i] = (const struct gguf_str *)(const void *)((const char *)base + i * stride);
    qsort(index, n, sizeof *index, compare_entries);
    return index;
}

const struct gguf_str *gguf_index_find(const struct gguf_str *const *index, size_t n,
                                       const char *name)
{
    struct gguf_str s = {name, strlen(name)};
    const struct gguf_str *const *hit = bsearch(&s, index, n, sizeof *index, compare_sought);
    return hit ? *hit : NULL;
}

const struct gguf_str *gguf_index_twice(const struct gguf_str *const *index, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if (compare(index[i - 1], index[i]) == 0)
            return index[i];
    return NULL;
}

static const char *const type_names[] = {
    [GGUF_U8] = "u8",      [GGUF_I8] = "i8",     [GGUF_U16] = "u16", [GGUF_I16] = "i16",
    [GGUF_U32] = "u32",    [GGUF_I32] = "i32",   [GGUF_F32] = "f32", [GGUF_BOOL] = "bool",
    [GGUF_STRING] = "str", [GGUF_ARRAY] = "arr", [GGUF_U64] = "u64", [GGUF_I64] = "i64",
    [GGUF_F64] = "f64"};

const char *gguf_type_name(enum gguf_type t)
{
    return type_names[t];
}

int gguf_type_parse(const char *s)
{
    for (int t = GGUF_U8; t <= GGUF_F64; t++)
        if (strcmp(s, type_names[t]) == 0)
            return t;
    return -1;
}
