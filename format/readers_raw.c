/* A .apr as it lies there, for rules about readers that open more than ours does. */
#include "format/readers_internal.h"

#include "format/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_READ ((uint64_t)256 << 20)

static int cmp_key(const void *pa, const void *pb)
{
    const cJSON *a = *(cJSON *const *)pa, *b = *(cJSON *const *)pb;
    return strcmp(a->string, b->string);
}

static void find_twice(struct raw_apr *r)
{
    int n = cJSON_GetArraySize(r->meta), i = 0;
    const cJSON **k = calloc((size_t)n + 1, sizeof *k);
    for (const cJSON *m = k ? r->meta->child : NULL; m; m = m->next)
        k[i++] = m;
    if (i > 1)
        qsort(k, (size_t)i, sizeof *k, cmp_key);
    for (int m = 1; m < i && !r->twice[0]; m++)
        if (strcmp(k[m - 1]->string, k[m]->string) == 0)
            snprintf(r->twice, sizeof r->twice, "%s", k[m]->string);
    free(k);
}

static void read_meta(struct raw_apr *r, struct source *src)
{
    r->meta_past_end = r->meta_off > r->size || r->meta_size > r->size - r->meta_off;
    char *text = r->meta_past_end || r->meta_size > MAX_READ ? NULL : malloc(r->meta_size + 1);
    if (text && source_read(src, text, r->meta_off, r->meta_size, NULL) == 0) {
        /* Our own parser, which takes no key twice; else a laxer one, to say which. */
        if (json_parse(&r->meta, text, r->meta_size, NULL) < 0) {
            r->meta = cJSON_ParseWithLength(text, r->meta_size);
            if (cJSON_IsObject(r->meta))
                find_twice(r);
            if (!r->twice[0]) { /* laxer than any of them: not what they would take */
                cJSON_Delete(r->meta);
                r->meta = NULL;
            }
        }
    }
    free(text);
    if (!cJSON_IsObject(r->meta)) {
        cJSON_Delete(r->meta);
        r->meta = NULL;
    }
    r->not_json = !r->meta;
}

static bool read_entry(struct raw_tensor *t, struct cursor *c)
{
    t->name_len = cursor_u16(c);
    t->name = (const char *)cursor_take(c, t->name_len);
    t->dtype = cursor_u8(c);
    t->n_dim = cursor_u8(c);
    t->n = 1;
    for (unsigned d = 0; d < t->n_dim && !c->bad; d++) {
        uint64_t dim = cursor_u64(c);
        if (d < APR_MAX_DIMS)
            t->dim[d] = dim;
        if (__builtin_mul_overflow(t->n, dim, &t->n))
            t->n = UINT64_MAX;
    }
    t->off = cursor_u64(c);
    t->size = cursor_u64(c);
    return !c->bad;
}

static int cmp_names(const struct raw_tensor *t, const char *name, size_t len)
{
    size_t n = t->name_len < len ? t->name_len : len;
    int c = n ? memcmp(t->name, name, n) : 0;
    return c ? c : t->name_len < len ? -1 : t->name_len > len;
}

/* The entries within len bytes; false: not even those bytes can be had. */
static bool read_entries(struct raw_apr *r, struct source *src, uint64_t len)
{
    free(r->index);
    r->n_all = 0;
    r->unsorted = false;
    r->index = malloc(len ? (size_t)len : 1);
    if (!r->index || source_read(src, r->index, r->index_off, (size_t)len, NULL) < 0)
        return false;
    struct cursor c = cursor_over(r->index, (size_t)len);
    while (r->n_all < r->n_tensor && read_entry(&r->t[r->n_all], &c)) {
        const struct raw_tensor *t = &r->t[r->n_all];
        r->unsorted |= r->n_all > 0 && cmp_names(&t[-1], t->name, t->name_len) > 0;
        r->n_all++;
    }
    return true;
}

static void read_index(struct raw_apr *r, struct source *src)
{
    uint64_t rest = r->index_off < r->size ? r->size - r->index_off : 0, len = rest;
    if (r->data_off > r->index_off && r->data_off - r->index_off < len)
        len = r->data_off - r->index_off;
    rest = rest > MAX_READ ? MAX_READ : rest;
    len = len > MAX_READ ? MAX_READ : len;
    uint64_t most = rest / 20 < r->n_tensor ? rest / 20 : r->n_tensor; /* names may be empty */
    r->t = calloc((size_t)most + 1, sizeof *r->t);
    uint32_t n_tensor = r->n_tensor;
    r->n_tensor = (uint32_t)most;
    if (r->t && read_entries(r, src, len)) {
        r->n_read = r->n_all;
        if (r->n_read < n_tensor && len < rest && !read_entries(r, src, rest))
            r->n_read = r->n_all = 0;
    }
    r->n_tensor = n_tensor;
}

void raw_read(struct raw_apr *r, struct source *src)
{
    *r = (struct raw_apr){.size = source_size(src), .not_json = true};
    if (r->size < APR_HEADER_SIZE || source_read(src, r->head, 0, APR_HEADER_SIZE, NULL) < 0)
        return;
    r->flags = load_u16(r->head + 6);
    r->n_tensor = load_u32(r->head + 8);
    r->meta_off = load_u64(r->head + 12);
    r->meta_size = load_u32(r->head + 20);
    r->index_off = load_u64(r->head + 24);
    r->data_off = load_u64(r->head + 32);
    read_meta(r, src);
    read_index(r, src);
}

void raw_release(struct raw_apr *r)
{
    cJSON_Delete(r->meta);
    free(r->index);
    free(r->t);
}

bool raw_is(const struct raw_tensor *t, const char *name)
{
    return cmp_names(t, name, strlen(name)) == 0;
}

bool raw_ends(const struct raw_tensor *t, const char *end)
{
    size_t n = strlen(end);
    return t->name_len >= n && memcmp(t->name + t->name_len - n, end, n) == 0;
}

/* By bisection where the index is sorted: hostile files have many tensors and layers. */
const struct raw_tensor *raw_find(const struct raw_apr *r, const char *fmt, ...)
{
    char name[APR_MAX_NAME];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    size_t len = strlen(name), lo = 0, hi = r->n_read;
    while (!r->unsorted && lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = cmp_names(&r->t[mid], name, len);
        if (c == 0)
            return &r->t[mid];
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    for (size_t i = 0; r->unsorted && i < r->n_read; i++)
        if (cmp_names(&r->t[i], name, len) == 0)
            return &r->t[i];
    return NULL;
}
