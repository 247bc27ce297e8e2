/* One view of .apr and .gguf files, and their weights as numbers: see aprtool.h. */
#include "format/aprtool.h"

#include "format/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define READ_WEIGHTS 4096 /* a multiple of every block's weights */

int tool_file_open(struct tool_file *f, const char *path, const struct vapr_options *gguf_as_apr,
                   struct err *e)
{
    *f = (struct tool_file){.path = path};
    char magic[4] = {0};
    int rc = source_open(&f->src, path, e);
    if (rc == 0 && source_size(f->src) >= 4)
        rc = source_read(f->src, magic, 0, 4, e);
    else if (rc == 0)
        rc = err_set(e, -EUCLEAN, "%s: neither a .apr nor a .gguf: %" PRIu64 " bytes long", path,
                     source_size(f->src));
    if (rc < 0)
        goto out;
    if (memcmp(magic, "APR", 3) == 0) {
        rc = apr_open(&f->apr, f->src, e);
        goto wrap;
    }
    if (memcmp(magic, "GGUF", 4) != 0) {
        rc = err_set(e, -EUCLEAN, "neither a .apr nor a .gguf: begins with %02x %02x %02x %02x",
                     (uint8_t)magic[0], (uint8_t)magic[1], (uint8_t)magic[2], (uint8_t)magic[3]);
        goto wrap;
    }
    source_close(f->src);
    f->src = NULL;
    rc = gguf_open_path(&f->gguf, path, e);
    if (rc == 0 && gguf_as_apr) {
        rc = vapr_new(&f->vapr, f->gguf, gguf_as_apr, e);
        if (rc == 0)
            rc = vapr_source(&f->src, f->vapr, e);
        if (rc == 0)
            rc = apr_open(&f->apr, f->src, e);
    }
wrap:
    if (rc < 0 && !strstr(e->msg, path))
        err_wrap(e, "%s", path);
out:
    if (rc < 0)
        tool_file_close(f);
    return rc;
}

void tool_file_close(struct tool_file *f)
{
    apr_close(f->apr);
    source_close(f->src);
    vapr_free(f->vapr);
    gguf_close(f->gguf);
    free(f->order);
    *f = (struct tool_file){0};
}

size_t tool_n_tensor(const struct tool_file *f)
{
    return f->apr ? apr_n_tensor(f->apr) : gguf_n_tensor(f->gguf);
}

struct tool_tensor tool_tensor(const struct tool_file *f, size_t i)
{
    struct tool_tensor t = {0};
    if (f->apr) {
        const struct apr_tensor *a = apr_tensor(f->apr, i);
        t.name = (struct gguf_str){a->name, strlen(a->name)};
        t.type = a->type;
        t.n_dim = a->n_dim;
        memcpy(t.dim, a->dim, sizeof t.dim);
        t.off = a->off;
        t.size = a->size;
        t.src = apr_source(f->apr);
        return t;
    }
    const struct gguf_tensor *g = gguf_tensor(f->gguf, i);
    t.name = g->name;
    t.type = g->type;
    t.n_dim = g->n_dim;
    for (uint32_t d = 0; d < g->n_dim; d++)
        t.dim[d] = g->ne[g->n_dim - 1 - d];
    t.off = g->off;
    t.size = g->size;
    t.part = g->part;
    t.src = gguf_part(f->gguf, g->part);
    return t;
}

int tool_name_cmp(struct gguf_str a, struct gguf_str b)
{
    size_t n = a.len < b.len ? a.len : b.len;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : (a.len > b.len) - (a.len < b.len);
}

static int cmp_by_name(const void *a, const void *b, void *file)
{
    struct tool_tensor x = tool_tensor(file, *(const size_t *)a);
    struct tool_tensor y = tool_tensor(file, *(const size_t *)b);
    return tool_name_cmp(x.name, y.name);
}

const size_t *tool_file_sort(struct tool_file *f)
{
    size_t n = tool_n_tensor(f);
    if (!f->order && (f->order = calloc(n + 1, sizeof *f->order))) {
        for (size_t i = 0; i < n; i++)
            f->order[i] = i;
        qsort_r(f->order, n, sizeof *f->order, cmp_by_name, f);
    }
    return f->order;
}

bool tool_find_tensor(const struct tool_file *f, const char *name, struct tool_tensor *t)
{
    struct gguf_str want = {name, strlen(name)};
    for (size_t i = 0; i < tool_n_tensor(f); i++) {
        *t = tool_tensor(f, i);
        if (tool_name_cmp(t->name, want) == 0)
            return true;
    }
    return false;
}

const char *tool_type_name(uint32_t type)
{
    if (type == APR_TYPE_OWN_Q4)
        return "APR-Q4";
    if (type == APR_TYPE_OWN_Q8)
        return "APR-Q8";
    const struct quant_type *q = quant_type(type);
    return q ? q->name : "?";
}

uint64_t tool_n_weight(const struct tool_tensor *t)
{
    uint64_t n = 1;
    for (uint32_t d = 0; d < t->n_dim; d++)
        if (__builtin_mul_overflow(n, t->dim[d], &n))
            return 0; /* no open file has such a tensor: its size would not fit */
    return n;
}

/* APR's own Q4: f16 scale, then 16 bytes with the even weight in the low nibble (apr-v2.md 5). */
static void own_q4_f32(float *dst, const void *src, size_t n_block)
{
    const uint8_t *b = src;
    for (; n_block--; b += 18, dst += 32) {
        float d = f16_to_f32(load_u16(b));
        for (int i = 0; i < 32; i++)
            dst[i] = (float)((b[2 + i / 2] >> 4 * (i % 2) & 15) - 8) * d;
    }
}

/* Its Q8: one signed byte per weight; the tensor's scale is applied by the reader. */
static void own_q8_f32(float *dst, const void *src, size_t n_block)
{
    const int8_t *b = src;
    for (size_t i = 0; i < n_block; i++)
        dst[i] = (float)b[i];
}

int tool_reader_init(struct tool_reader *r, const struct tool_tensor *t, struct err *e)
{
    *r = (struct tool_reader){.t = *t,
                              .n_weight = tool_n_weight(t),
                              .block_len = 1,
                              .block_bytes = 1,
                              .scale = 1,
                              .data_off = t->off};
    const struct quant_type *q = quant_type(t->type);
    if (t->type == APR_TYPE_OWN_Q4) {
        r->f32 = own_q4_f32;
        r->block_len = 32;
        r->block_bytes = 18;
    } else if (t->type == APR_TYPE_OWN_Q8) {
        uint8_t scale[4];
        int rc = t->size < 4 ? err_set(e, -EUCLEAN, "no scale") : 0;
        if (rc == 0)
            rc = source_read(t->src, scale, t->off, 4, e);
        if (rc < 0)
            return rc;
        r->f32 = own_q8_f32;
        r->scale = load_f32(scale);
        r->data_off += 4;
    } else if (q) {
        r->f32 = q->f32;
        r->block_len = q->block_len;
        r->block_bytes = q->block_bytes;
    }
    r->buf = malloc((size_t)READ_WEIGHTS * 16); /* no type has more than 8 bytes a weight */
    return r->buf ? 0 : err_set(e, -ENOMEM, "no memory to read a tensor");
}

void tool_reader_release(struct tool_reader *r)
{
    free(r->buf);
    r->buf = NULL;
}

int tool_reader_f32(struct tool_reader *r, float *dst, size_t cap, size_t *n, struct err *e)
{
    if (!r->f32)
        return err_set(e, -ENOTSUP, "type %s: its numbers cannot be read here",
                       tool_type_name(r->t.type));
    *n = 0;
    while (r->at < r->n_weight && cap - *n >= READ_WEIGHTS) {
        uint64_t left = r->n_weight - r->at;
        size_t take = left < READ_WEIGHTS ? (size_t)left : READ_WEIGHTS;
        size_t n_block = (take + r->block_len - 1) / r->block_len; /* own Q4 may end in a part */
        uint64_t off = r->data_off + r->at / r->block_len * r->block_bytes;
        int rc = source_read(r->t.src, r->buf, off, n_block * r->block_bytes, e);
        if (rc < 0)
            return rc;
        r->f32(dst + *n, r->buf, n_block);
        for (size_t i = 0; r->scale != 1 && i < take; i++)
            dst[*n + i] *= r->scale;
        *n += take;
        r->at += take;
    }
    return 0;
}
