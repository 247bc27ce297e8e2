#include "infer/bind.h"

#include "format/crc32.h"
#include "format/quant.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN (APR_MAX_NAME + 1)
#define VECTOR_MAX   (UINT64_C(1) << 24) /* elements; a head's bias is as long as the vocabulary */

int bind_init(struct bind *x, struct model *m, const struct apr *apr, struct err *e)
{
    *x = (struct bind){.m = m, .apr = apr};
    x->used = calloc(apr_n_tensor(apr) + 1, sizeof *x->used);
    return x->used ? 0 : err_set(e, -ENOMEM, "no memory to bind %zu tensors", apr_n_tensor(apr));
}

void bind_release(struct bind *x)
{
    for (size_t i = 0; i < x->n_item; i++)
        free(x->item[i].host);
    free(x->used);
    free(x->range);
    free(x->item);
    *x = (struct bind){0};
}

/* Room for one more in a growing array; false: no memory. */
static bool grow(void **p, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return true;
    size_t want = *cap ? *cap * 2 : 64;
    void *q = realloc(*p, want * size);
    if (!q)
        return false;
    *p = q;
    *cap = want;
    return true;
}

static void name_of(char name[NAME_MAX_LEN], int layer, const char *stem)
{
    if (layer < 0)
        snprintf(name, NAME_MAX_LEN, "%s", stem);
    else
        snprintf(name, NAME_MAX_LEN, "blk.%d.%s", layer, stem);
}

/* The entry of that name, or NULL. */
static const struct apr_tensor *find(const struct bind *x, int layer, const char *stem)
{
    char name[NAME_MAX_LEN];
    name_of(name, layer, stem);
    return apr_find(x->apr, name);
}

/* The index is in name order. */
static void mark_used(struct bind *x, const struct apr_tensor *t)
{
    size_t lo = 0, hi = apr_n_tensor(x->apr);
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = strcmp(apr_tensor(x->apr, mid)->name, t->name);
        if (c == 0) {
            x->used[mid] = true;
            return;
        }
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
}

static int add_range(struct bind *x, uint64_t off, uint64_t size, struct err *e)
{
    void *p = x->range;
    if (!grow(&p, x->n_range, &x->cap_range, sizeof *x->range))
        return err_set(e, -ENOMEM, "no memory to bind tensors");
    x->range = p;
    x->range[x->n_range++] = (struct bind_range){off, off + size};
    return 0;
}

/* Finds the tensor, checks its shape, and gives the entry whose bytes are to be read: the raw twin
 * where there is one. *t is NULL if it is absent and need not be there. */
static int take(struct bind *x, int layer, const char *stem, uint32_t n_dim, const uint64_t *dim,
                enum bind_need need, struct apr_tensor *bytes, const struct apr_tensor **t,
                struct err *e)
{
    *t = find(x, layer, stem);
    if (!*t) {
        char name[NAME_MAX_LEN];
        name_of(name, layer, stem);
        return need == BIND_OPTIONAL ? 0 : err_set(e, -ENOENT, "tensor '%s' is missing", name);
    }
    bool same = (*t)->n_dim == n_dim;
    for (uint32_t i = 0; same && i < n_dim; i++)
        same = (*t)->dim[i] == dim[i];
    if (!same) {
        char is[APR_MAX_DIMS * 24] = "", want[64] = "";
        for (uint32_t i = 0, at = 0; i < (*t)->n_dim; i++)
            at += (uint32_t)snprintf(is + at, sizeof is - at, "%s%" PRIu64, i ? ", " : "",
                                     (*t)->dim[i]);
        for (uint32_t i = 0, at = 0; i < n_dim; i++)
            at += (uint32_t)snprintf(want + at, sizeof want - at, "%s%" PRIu64, i ? ", " : "",
                                     dim[i]);
        return err_set(e, -EUCLEAN, "tensor '%s' is (%s), the metadata asks for (%s)", (*t)->name,
                       is, want);
    }
    *bytes = **t;
    apr_raw_twin(x->apr, *t, bytes);
    if (!x->m->b->ops->takes_type(x->m->b, bytes->type)) {
        const struct quant_type *qt = quant_type(bytes->type);
        return err_set(e, -ENOTSUP,
                       "tensor '%s' is of type %s (%" PRIu32
                       "), which backend %s cannot multiply by",
                       (*t)->name, qt ? qt->name : "?", bytes->type, x->m->b->ops->name);
    }
    mark_used(x, *t);
    return add_range(x, bytes->off, bytes->size, e);
}

/* One more item, zeros but for its name and place; NULL: no memory, said. */
static struct bind_item *add_item(struct bind *x, enum bind_kind kind, const char *name,
                                  const struct apr_tensor *t, const struct apr_tensor *bytes,
                                  struct err *e)
{
    void *p = x->item;
    if (!grow(&p, x->n_item, &x->cap_item, sizeof *x->item)) {
        err_set(e, -ENOMEM, "no memory to bind '%s'", name);
        return NULL;
    }
    x->item = p;
    struct bind_item *it = &x->item[x->n_item++];
    *it = (struct bind_item){.kind = kind, .name = name};
    if (t) {
        it->bytes = *bytes;
        it->published = bytes->off == t->off && bytes->size == t->size ? t->name : NULL;
    }
    return it;
}

/* A head that is the embedding under another name. Elsewhere every name has its own matrix: the
 * digest lists a matrix under one name, and must tell whose bytes each has. */
static const struct backend_matrix *shared(const struct bind *x, int layer,
                                           const struct apr_tensor *bytes)
{
    for (size_t i = 0; layer < 0 && i < x->n_item; i++) {
        const struct bind_item *it = &x->item[i];
        if (it->kind == BIND_MATRIX && it->bytes.off == bytes->off && it->len == bytes->size &&
            it->w->type == bytes->type && it->w->n_out == bytes->dim[0] &&
            it->w->n_in == bytes->dim[1])
            return it->w;
    }
    return NULL;
}

static int new_matrix(struct bind *x, const struct apr_tensor *t, const struct apr_tensor *bytes,
                      const struct backend_matrix **out, struct err *e)
{
    struct model *m = x->m;
    const struct quant_type *qt = quant_type(bytes->type);
    uint32_t n_out = (uint32_t)bytes->dim[0], n_in = (uint32_t)bytes->dim[1];
    uint64_t row, total;
    if (!quant_row_bytes(qt, n_in, &row) || __builtin_mul_overflow(row, (uint64_t)n_out, &total) ||
        total != bytes->size)
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes are not %" PRIu64 " rows of %" PRIu64
                       " in %s",
                       t->name, bytes->size, bytes->dim[0], bytes->dim[1], qt->name);
    void *p = m->matrix;
    struct backend_matrix *w = calloc(1, sizeof *w);
    if (!w || !grow(&p, m->n_matrix, &m->cap_matrix, sizeof *m->matrix)) {
        free(w);
        return err_set(e, -ENOMEM, "no memory to bind tensor '%s'", t->name);
    }
    m->matrix = p;
    m->matrix[m->n_matrix++] = w;
    struct bind_item *it = add_item(x, BIND_MATRIX, t->name, t, bytes, e);
    if (!it)
        return -ENOMEM;
    *w = (struct backend_matrix){
        .type = bytes->type, .n_out = n_out, .n_in = n_in, .row_bytes = row};
    it->w = w;
    it->len = total;
    *out = w;
    return 0;
}

int bind_matrix(struct bind *x, int layer, const char *stem, uint64_t n_out, uint64_t n_in,
                enum bind_need need, const struct backend_matrix **out, struct err *e)
{
    const struct apr_tensor *t;
    struct apr_tensor bytes;
    uint64_t dim[2] = {n_out, n_in};
    *out = NULL;
    int rc = take(x, layer, stem, 2, dim, need, &bytes, &t, e);
    if (rc < 0 || !t)
        return rc;
    if (n_out > INT32_MAX || n_in > INT32_MAX)
        return err_set(e, -ERANGE, "tensor '%s': (%" PRIu64 ", %" PRIu64 ") is too large", t->name,
                       n_out, n_in);
    *out = shared(x, layer, &bytes);
    return *out ? 0 : new_matrix(x, t, &bytes, out, e);
}

/* An item of n values; nothing of it is read yet. */
static int new_values(struct bind *x, enum bind_kind kind, const struct apr_tensor *t,
                      const struct apr_tensor *bytes, uint64_t n, struct bind_item **out,
                      struct err *e)
{
    const struct quant_type *qt = quant_type(bytes->type);
    uint64_t len;
    if (n > VECTOR_MAX || !quant_row_bytes(qt, n, &len) || len != bytes->size)
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes are not %" PRIu64 " elements of %s", t->name,
                       bytes->size, n, qt->name);
    *out = add_item(x, kind, t->name, t, bytes, e);
    if (!*out)
        return -ENOMEM;
    (*out)->n = n;
    return 0;
}

/* The values of it, malloc'ed, and both its checksums. */
static int read_f32(struct bind_item *it, const struct source *src, float **out, struct err *e)
{
    const struct quant_type *qt = quant_type(it->bytes.type);
    size_t len = (size_t)it->bytes.size;
    void *raw = malloc(len ? len : 1);
    float *v = malloc((it->n ? it->n : 1) * sizeof *v);
    int rc = raw && v ? source_read(src, raw, it->bytes.off, len, e)
                      : err_set(e, -ENOMEM, "no memory for tensor '%s'", it->name);
    if (rc == 0) {
        qt->f32(v, raw, (size_t)(it->n / qt->block_len));
        it->crc = crc32_update(0, raw, len);
        it->crc_f32 = crc32_update(0, v, (size_t)it->n * sizeof *v);
    }
    free(raw);
    if (rc < 0) {
        free(v);
        return rc;
    }
    *out = v;
    return 0;
}

int bind_host(struct bind *x, int layer, const char *stem, uint64_t n, float **out, struct err *e)
{
    const struct apr_tensor *t;
    struct apr_tensor bytes;
    struct bind_item *it;
    *out = NULL;
    int rc = take(x, layer, stem, 1, &n, BIND_OPTIONAL, &bytes, &t, e);
    if (rc == 0 && t)
        rc = new_values(x, BIND_HOST, t, &bytes, n, &it, e);
    return rc < 0 || !t ? rc : read_f32(it, apr_source(x->apr), out, e);
}

int bind_vector(struct bind *x, int layer, const char *stem, uint64_t n, enum bind_need need,
                const float **out, struct err *e)
{
    const struct apr_tensor *t;
    struct apr_tensor bytes;
    struct bind_item *it;
    *out = NULL;
    int rc = take(x, layer, stem, 1, &n, need, &bytes, &t, e);
    if (rc < 0 || !t)
        return rc;
    rc = new_values(x, BIND_VECTOR, t, &bytes, n, &it, e);
    if (rc < 0)
        return rc;
    it->len = n * sizeof(float);
    it->at = out;
    return 0;
}

int bind_table(struct bind *x, const char *what, float *host, uint64_t n, const float **out,
               struct err *e)
{
    struct bind_item *it = add_item(x, BIND_TABLE, what, NULL, NULL, e);
    if (!it) {
        free(host);
        return -ENOMEM;
    }
    it->host = host;
    it->n = n;
    it->len = n * sizeof *host;
    it->at = out;
    return 0;
}

int bind_scale(struct bind *x, int layer, const char *stem, float *out, struct err *e)
{
    float *v;
    *out = 1;
    int rc = bind_host(x, layer, stem, 1, &v, e);
    if (rc < 0 || !v)
        return rc;
    *out = v[0];
    free(v);
    if (!isfinite(*out))
        return err_set(e, -EUCLEAN, "tensor 'blk.%d.%s': the scale is not finite", layer, stem);
    return 0;
}

void bind_ignore(struct bind *x, int layer, const char *stem)
{
    const struct apr_tensor *t = find(x, layer, stem);
    if (t)
        mark_used(x, t);
}

static int range_by_off(const void *pa, const void *pb)
{
    const struct bind_range *a = pa, *b = pb;
    return a->off < b->off ? -1 : a->off > b->off;
}

/* Are all bytes of t among those of consumed tensors? range is sorted. */
static bool covered(const struct bind *x, const struct apr_tensor *t)
{
    struct apr_tensor bytes = *t;
    apr_raw_twin(x->apr, t, &bytes);
    uint64_t at = bytes.off, end = bytes.off + bytes.size;
    for (size_t i = 0; at < end && i < x->n_range && x->range[i].off <= at; i++)
        if (x->range[i].end > at)
            at = x->range[i].end;
    return at >= end && bytes.size > 0;
}

int bind_finish(struct bind *x, struct err *e)
{
    if (x->n_range > 1)
        qsort(x->range, x->n_range, sizeof *x->range, range_by_off);
    for (size_t i = 0; i < apr_n_tensor(x->apr); i++) {
        const struct apr_tensor *t = apr_tensor(x->apr, i);
        if (!x->used[i] && !covered(x, t))
            return err_set(e, -ENOTSUP,
                           "tensor '%s' has no place in the %s forward pass: the model needs a "
                           "feature this program lacks",
                           t->name, x->m->c.arch);
    }
    return 0;
}

int bind_alloc(struct bind *x, struct err *e)
{
    struct model *m = x->m;
    size_t n = 0;
    for (size_t i = 0; i < x->n_item; i++)
        n += x->item[i].kind == BIND_VECTOR || x->item[i].kind == BIND_TABLE;
    m->vec = calloc(n + 1, sizeof *m->vec);
    if (!m->vec)
        return err_set(e, -ENOMEM, "no memory for a list of %zu vectors", n);
    for (size_t i = 0; i < x->n_item; i++) {
        struct bind_item *it = &x->item[i];
        void *p;
        if (it->kind == BIND_HOST)
            continue;
        int rc = m->b->ops->alloc(m->b, &p, it->len, it->name);
        if (rc < 0)
            return backend_fail(m->b, rc, e);
        if (it->kind == BIND_MATRIX) {
            it->w->data = p;
        } else {
            m->vec[m->n_vec++] = p;
            *it->at = p;
        }
    }
    return 0;
}

static int fill(struct bind *x, struct bind_item *it, const float *host, struct err *e)
{
    struct backend *b = x->m->b;
    void *dst = (void *)(uintptr_t)*it->at; /* const to all but the one who fills it */
    int rc = b->ops->upload(b, dst, 0, host, (size_t)it->len);
    return rc < 0 ? backend_fail(b, rc, e) : 0;
}

int bind_fill(struct bind *x, const struct source *src, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < x->n_item; i++) {
        struct bind_item *it = &x->item[i];
        float *v = NULL;
        if (it->kind == BIND_TABLE)
            rc = fill(x, it, it->host, e);
        if (it->kind != BIND_VECTOR)
            continue;
        rc = read_f32(it, src, &v, e);
        if (rc == 0)
            rc = fill(x, it, v, e);
        free(v);
        x->m->weight_bytes += it->bytes.size;
    }
    return rc;
}
