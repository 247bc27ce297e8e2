#include "infer/bind.h"

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
    free(x->used);
    free(x->range);
    free(x->item);
    free(x->matrix_at);
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

static const struct backend_matrix *shared(const struct bind *x, const struct apr_tensor *bytes)
{
    const struct model *m = x->m;
    for (size_t i = 0; i < m->n_matrix; i++)
        if (x->matrix_at[i].off == bytes->off && x->matrix_at[i].end == bytes->off + bytes->size &&
            m->matrix[i]->type == bytes->type && m->matrix[i]->n_out == bytes->dim[0] &&
            m->matrix[i]->n_in == bytes->dim[1])
            return m->matrix[i];
    return NULL;
}

static int new_matrix(struct bind *x, const struct apr_tensor *t, const struct apr_tensor *bytes,
                      struct backend_matrix **out, struct err *e)
{
    struct model *m = x->m;
    size_t cap = m->cap_matrix, cap2 = m->cap_matrix;
    void *p = m->matrix, *q = x->matrix_at, *r = x->item;
    struct backend_matrix *w = calloc(1, sizeof *w);
    if (w && grow(&p, m->n_matrix, &cap, sizeof *m->matrix))
        m->matrix = p;
    else
        goto no_memory;
    if (!grow(&q, m->n_matrix, &cap2, sizeof *x->matrix_at))
        goto no_memory;
    x->matrix_at = q;
    m->cap_matrix = cap;
    if (!grow(&r, x->n_item, &x->cap_item, sizeof *x->item))
        goto no_memory;
    x->item = r;
    const struct quant_type *qt = quant_type(bytes->type);
    *w = (struct backend_matrix){
        .type = bytes->type, .n_out = (uint32_t)bytes->dim[0], .n_in = (uint32_t)bytes->dim[1]};
    uint64_t total;
    if (!quant_row_bytes(qt, w->n_in, &w->row_bytes) ||
        __builtin_mul_overflow(w->row_bytes, (uint64_t)w->n_out, &total) || total != bytes->size) {
        free(w);
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes are not %" PRIu64 " rows of %" PRIu64
                       " in %s",
                       t->name, bytes->size, bytes->dim[0], bytes->dim[1], qt->name);
    }
    int rc = m->b->ops->alloc(m->b, &w->data, total, t->name);
    if (rc < 0) {
        free(w);
        return backend_fail(m->b, rc, e);
    }
    x->matrix_at[m->n_matrix] = (struct bind_range){bytes->off, bytes->off + bytes->size};
    m->matrix[m->n_matrix++] = w;
    x->item[x->n_item++] = (struct loader_item){bytes->off, total, w->data};
    *out = w;
    return 0;
no_memory:
    free(w);
    return err_set(e, -ENOMEM, "no memory to bind tensor '%s'", t->name);
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
    *out = shared(x, &bytes);
    if (*out)
        return 0;
    struct backend_matrix *w = NULL;
    rc = new_matrix(x, t, &bytes, &w, e);
    if (rc == 0)
        *out = w;
    return rc;
}

/* n f32 values of a small tensor. */
static int read_f32(const struct bind *x, const struct apr_tensor *t,
                    const struct apr_tensor *bytes, uint64_t n, float **out, struct err *e)
{
    const struct quant_type *qt = quant_type(bytes->type);
    uint64_t len;
    if (n > VECTOR_MAX || !quant_row_bytes(qt, n, &len) || len != bytes->size)
        return err_set(e, -EUCLEAN,
                       "tensor '%s': %" PRIu64 " bytes are not %" PRIu64 " elements of %s", t->name,
                       bytes->size, n, qt->name);
    void *raw = malloc(len ? len : 1);
    float *v = malloc((n ? n : 1) * sizeof *v);
    int rc = raw && v ? source_read(apr_source(x->apr), raw, bytes->off, (size_t)len, e)
                      : err_set(e, -ENOMEM, "no memory for tensor '%s'", t->name);
    if (rc == 0)
        qt->f32(v, raw, (size_t)(n / qt->block_len));
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
    *out = NULL;
    int rc = take(x, layer, stem, 1, &n, BIND_OPTIONAL, &bytes, &t, e);
    return rc < 0 || !t ? rc : read_f32(x, t, &bytes, n, out, e);
}

int bind_vector(struct bind *x, int layer, const char *stem, uint64_t n, enum bind_need need,
                float **out, struct err *e)
{
    struct model *m = x->m;
    const struct apr_tensor *t;
    struct apr_tensor bytes;
    float *host;
    *out = NULL;
    int rc = take(x, layer, stem, 1, &n, need, &bytes, &t, e);
    if (rc < 0 || !t)
        return rc;
    rc = read_f32(x, t, &bytes, n, &host, e);
    if (rc < 0)
        return rc;
    void *p = m->vec, *dev;
    if (!grow(&p, m->n_vec, &m->cap_vec, sizeof *m->vec)) {
        free(host);
        return err_set(e, -ENOMEM, "no memory for tensor '%s'", t->name);
    }
    m->vec = p;
    rc = m->b->ops->alloc(m->b, &dev, n * sizeof *host, t->name);
    if (rc == 0) {
        m->vec[m->n_vec++] = dev;
        rc = m->b->ops->upload(m->b, dev, 0, host, n * sizeof *host);
    }
    free(host);
    if (rc < 0)
        return backend_fail(m->b, rc, e);
    *out = dev;
    m->weight_bytes += bytes.size;
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
