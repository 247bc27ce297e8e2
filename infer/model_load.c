#include "infer/model_load.h"

#include "infer/digest.h"
#include "infer/extent.h"
#include "infer/footer.h"
#include "infer/published.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

struct load {
    struct model *m;
    struct bind *x;
    const struct model_options *opt;
    struct timespec start;
};

static void told(struct load *l, uint64_t bytes)
{
    struct model_progress *p = &l->m->loaded;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    p->bytes = bytes;
    p->seconds =
        (double)(now.tv_sec - l->start.tv_sec) + (double)(now.tv_nsec - l->start.tv_nsec) * 1e-9;
    if (l->opt->progress)
        l->opt->progress(l->opt->progress_ctx, p);
}

static void told_matrices(void *ctx, uint64_t bytes)
{
    struct load *l = ctx;
    told(l, l->m->weight_bytes + bytes);
}

static int read_matrices(struct load *l, const struct source *src, struct err *e)
{
    struct model *m = l->m;
    const struct loader_options lo = {l->opt->n_reader, told_matrices, l};
    struct loader_item *item = calloc(m->n_matrix + 1, sizeof *item);
    if (!item)
        return err_set(e, -ENOMEM, "no memory for a list of %zu matrices", m->n_matrix);
    size_t n = 0;
    for (size_t i = 0; i < l->x->n_item; i++) {
        struct bind_item *it = &l->x->item[i];
        if (it->kind == BIND_MATRIX)
            item[n++] = (struct loader_item){it->bytes.off, it->len, it->w->data, &it->crc};
    }
    int rc = loader_read(m->b, src, item, n, &lo, e);
    for (size_t i = 0; i < n; i++)
        m->weight_bytes += item[i].len;
    free(item);
    return rc;
}

/* Every tensor that was read, against what the file says of it. */
static int check_published(const struct load *l, const struct source *file, struct err *e)
{
    struct published *p;
    int rc = published_read(&p, file, e);
    for (size_t i = 0; rc == 0 && i < l->x->n_item; i++) {
        const struct bind_item *it = &l->x->item[i];
        if (it->published)
            rc = published_check(p, it->published, it->crc, e);
    }
    published_free(p);
    return rc;
}

int model_load(struct model *m, struct bind *x, const struct model_options *opt, struct err *e)
{
    static const char *const name[] = {
        [EXTENT_FILE] = "file", [EXTENT_MOUNT] = "mount", [EXTENT_PARTS] = "extents"};
    struct load l = {.m = m, .x = x, .opt = opt};
    struct source *parts, *file = apr_source(x->apr);
    enum extent_from from = extent_find(&parts, file, m->not_extents);
    const struct source *src = parts ? parts : file;
    m->loaded = (struct model_progress){.phase = "loading", .source = name[from]};
    for (size_t i = 0; i < x->n_item; i++)
        if (x->item[i].kind == BIND_MATRIX || x->item[i].kind == BIND_VECTOR)
            m->loaded.total += x->item[i].bytes.size;
    int rc = bind_alloc(x, e);
    clock_gettime(CLOCK_MONOTONIC, &l.start);
    if (rc == 0)
        rc = bind_fill(x, src, e);
    if (rc == 0)
        rc = read_matrices(&l, src, e);
    if (rc == 0)
        rc = check_published(&l, file, e);
    if (rc == 0)
        rc = footer_check(x->apr, x->item, x->n_item, e);
    if (rc == 0)
        rc = source_check(src, e); /* one file, from its first byte to its last */
    source_close(parts);
    for (size_t i = 0; rc == 0 && i < m->n_matrix; i++) {
        rc = m->b->ops->matrix_ready(m->b, m->matrix[i]);
        if (rc < 0)
            backend_fail(m->b, rc, e);
    }
    return rc == 0 ? digest_model(m->digest, &m->c, x->item, x->n_item, e) : rc;
}
