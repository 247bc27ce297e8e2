/* A .apr as it lies there, for rules about readers that open more than ours does. */
#include "format/readers_internal.h"

#include "format/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_READ ((uint64_t)256 << 20)

/* --- metadata --- */

struct walk {
    struct raw_apr *r;
    const char *p; /* in the text, which parsed; NUL-terminated */
    bool no_memory;
};

static const char *behind_string(const char *p)
{
    for (p++; *p != '"'; p++)
        p += *p == '\\';
    return p + 1;
}

static void add_real(struct walk *w, const cJSON *v)
{
    struct raw_apr *r = w->r;
    if (r->n_real == r->cap_real) {
        size_t cap = r->cap_real ? 2 * r->cap_real : 16;
        const cJSON **p = realloc(r->real, cap * sizeof *p);
        w->no_memory |= !p;
        if (!p)
            return;
        r->real = p;
        r->cap_real = cap;
    }
    r->real[r->n_real++] = v;
}

static void walk_number(struct walk *w, const cJSON *v, size_t n)
{
    bool whole = v->valuedouble == floor(v->valuedouble);
    bool literal = !memchr(w->p, '.', n) && !memchr(w->p, 'e', n) && !memchr(w->p, 'E', n) &&
                   !(n == 2 && memcmp(w->p, "-0", 2) == 0);
    if (v->string && whole && !literal)
        add_real(w, v);
}

/* Text and tree side by side, since the tree does not say how a number was written. As deep as the
 * parser allowed. */
static void walk_value(struct walk *w, const cJSON *v)
{
    static const char blank[] = " \t\r\n";
    w->p += strspn(w->p, blank);
    if (cJSON_IsString(v)) {
        w->p = behind_string(w->p);
    } else if (cJSON_IsObject(v) || cJSON_IsArray(v)) {
        w->p++;
        for (const cJSON *m = v->child; m; m = m->next) {
            w->p += strspn(w->p, " \t\r\n,");
            if (cJSON_IsObject(v)) {
                w->p = behind_string(w->p);
                w->p += strspn(w->p, " \t\r\n:");
            }
            walk_value(w, m);
        }
        w->p += strspn(w->p, blank) + 1;
    } else {
        size_t n = strcspn(w->p, ",]} \t\r\n");
        if (cJSON_IsNumber(v))
            walk_number(w, v, n);
        w->p += n;
    }
}

static int parse_meta(struct raw_apr *r, const char *text, struct err *e)
{
    int rc = json_parse_serde(&r->meta, text, r->meta_size, e);
    if (rc == -EUCLEAN)
        return 0;
    if (rc < 0 || !cJSON_IsObject(r->meta))
        return rc;
    r->not_json = false;
    struct walk w = {.r = r, .p = text};
    walk_value(&w, r->meta);
    return w.no_memory ? err_set(e, -ENOMEM, "no memory for the numbers of the metadata") : 0;
}

static int read_meta(struct raw_apr *r, struct source *src, struct err *e)
{
    r->meta_past_end = r->meta_off > r->size || r->meta_size > r->size - r->meta_off;
    if (r->meta_past_end)
        return 0;
    if (r->meta_size > MAX_READ)
        return err_set(e, -ERANGE, "%" PRIu32 " bytes, at most %" PRIu64 " are judged",
                       r->meta_size, MAX_READ);
    char *text = malloc((size_t)r->meta_size + 1);
    int rc = text ? source_read(src, text, r->meta_off, r->meta_size, e)
                  : err_set(e, -ENOMEM, "no memory for %" PRIu32 " bytes", r->meta_size);
    if (rc == 0) {
        text[r->meta_size] = 0;
        rc = parse_meta(r, text, e);
    }
    free(text);
    if (r->not_json) {
        cJSON_Delete(r->meta);
        r->meta = NULL;
    }
    return rc;
}

bool raw_uint(const struct raw_apr *r, const cJSON *m, uint64_t *out)
{
    double d;
    if (!json_num(m, &d) || d < 0 || d != floor(d) || d >= 0x1p64)
        return false;
    for (size_t i = 0; i < r->n_real; i++)
        if (r->real[i] == m)
            return false;
    *out = (uint64_t)d;
    return true;
}

bool raw_twice(const cJSON *obj, const char *key)
{
    int n = 0;
    for (const cJSON *m = cJSON_IsObject(obj) ? obj->child : NULL; m && n < 2; m = m->next)
        n += strcmp(m->string, key) == 0;
    return n > 1;
}

/* --- index --- */

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

/* Of equal names the first in the file, which their searches find. */
static int cmp_entries(const void *pa, const void *pb)
{
    const struct raw_tensor *a = *(const struct raw_tensor *const *)pa,
                            *b = *(const struct raw_tensor *const *)pb;
    int c = cmp_names(a, b->name, b->name_len);
    return c ? c : a < b ? -1 : a > b;
}

/* The entries within len bytes. */
static int read_entries(struct raw_apr *r, struct source *src, uint64_t len, size_t most,
                        struct err *e)
{
    free(r->index);
    r->n_all = 0;
    r->unsorted = false;
    r->index = malloc(len ? (size_t)len : 1);
    if (!r->index)
        return err_set(e, -ENOMEM, "no memory for %" PRIu64 " bytes of index", len);
    int rc = len ? source_read(src, r->index, r->index_off, (size_t)len, e) : 0;
    if (rc < 0)
        return rc;
    struct cursor c = cursor_over(r->index, (size_t)len);
    while (r->n_all < most && read_entry(&r->t[r->n_all], &c)) {
        const struct raw_tensor *t = &r->t[r->n_all];
        r->unsorted |= r->n_all > 0 && cmp_names(&t[-1], t->name, t->name_len) > 0;
        r->n_all++;
    }
    return 0;
}

static int read_index(struct raw_apr *r, struct source *src, struct err *e)
{
    uint64_t rest = r->index_off < r->size ? r->size - r->index_off : 0, len = rest;
    if (r->data_off > r->index_off && r->data_off - r->index_off < len)
        len = r->data_off - r->index_off;
    bool more = rest > MAX_READ;
    rest = more ? MAX_READ : rest;
    len = len > MAX_READ ? MAX_READ : len;
    uint64_t most = rest / 20 < r->n_tensor ? rest / 20 : r->n_tensor; /* names may be empty */
    r->t = calloc((size_t)most + 1, sizeof *r->t);
    if (!r->t)
        return err_set(e, -ENOMEM, "no memory for %" PRIu64 " entries", most);
    int rc = read_entries(r, src, len, (size_t)most, e);
    r->n_read = r->n_all;
    if (rc == 0 && r->n_read < r->n_tensor && len < rest)
        rc = read_entries(r, src, rest, (size_t)most, e);
    r->n_read = r->n_read < r->n_all ? r->n_read : r->n_all; /* the file may have changed since */
    r->clipped = more && r->n_all < r->n_tensor;
    r->by_name = calloc(r->n_read + 1, sizeof *r->by_name);
    if (rc == 0 && !r->by_name)
        return err_set(e, -ENOMEM, "no memory for %zu names", r->n_read);
    for (size_t i = 0; rc == 0 && i < r->n_read; i++)
        r->by_name[i] = &r->t[i];
    if (rc == 0 && r->unsorted) /* hostile files have many tensors and layers, in any order */
        qsort(r->by_name, r->n_read, sizeof *r->by_name, cmp_entries);
    return rc;
}

int raw_read(struct raw_apr *r, struct source *src, struct err *e)
{
    *r = (struct raw_apr){.size = source_size(src), .not_json = true};
    if (r->size < APR_HEADER_SIZE)
        return 0;
    int rc = source_read(src, r->head, 0, APR_HEADER_SIZE, e);
    if (rc < 0)
        return rc;
    r->flags = load_u16(r->head + 6);
    r->n_tensor = load_u32(r->head + 8);
    r->meta_off = load_u64(r->head + 12);
    r->meta_size = load_u32(r->head + 20);
    r->index_off = load_u64(r->head + 24);
    r->data_off = load_u64(r->head + 32);
    rc = read_meta(r, src, e);
    if (rc < 0)
        err_wrap(e, "metadata");
    return rc < 0 ? rc : read_index(r, src, e);
}

void raw_release(struct raw_apr *r)
{
    cJSON_Delete(r->meta);
    free(r->real);
    free(r->index);
    free(r->t);
    free(r->by_name);
}

bool raw_is(const struct raw_tensor *t, const char *name)
{
    return cmp_names(t, name, strlen(name)) == 0;
}

const struct raw_tensor *raw_find(const struct raw_apr *r, const char *fmt, ...)
{
    char name[APR_MAX_NAME];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    size_t len = strlen(name), lo = 0, hi = r->n_read;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (cmp_names(r->by_name[mid], name, len) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < r->n_read && cmp_names(r->by_name[lo], name, len) == 0 ? r->by_name[lo] : NULL;
}
