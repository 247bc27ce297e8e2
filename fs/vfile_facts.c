/* What serving a file teaches about it: its checksums, once somebody read its footer, and that what was
 * recorded of it is wrong. See vfile.h. */
#include "fs/vfile_internal.h"

#include "format/apr_read.h"
#include "format/bytes.h"
#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CRC_PIECE ((size_t)1 << 20)

/* --- the pieces that checksums are made of ------------------------------------------------- */

/* [0, footer) cut at every tensor's ends: the bytes of a tensor, which another may share (a tied head,
 * rows of a fused QKV), are some neighbouring pieces. */
struct cuts {
    uint64_t *at; /* n + 1 of them, rising: 0, ..., the footer */
    uint32_t *crc;
    size_t n;
};

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void cuts_release(struct cuts *c)
{
    free(c->at);
    free(c->crc);
}

static int cuts_make(struct cuts *c, const struct apr *a, uint64_t end, struct err *e)
{
    size_t n_tensor = apr_n_tensor(a), n = 0;
    c->at = calloc(2 * n_tensor + 2, sizeof *c->at);
    c->crc = calloc(2 * n_tensor + 2, sizeof *c->crc);
    if (!c->at || !c->crc)
        return err_set(e, -ENOMEM, "no memory for checksums of %zu tensors", n_tensor);
    c->at[n++] = 0;
    c->at[n++] = end;
    for (size_t i = 0; i < n_tensor; i++) {
        const struct apr_tensor *t = apr_tensor(a, i);
        if (t->off > end || t->size > end - t->off)
            return err_set(e, -EIO, "tensor '%s' ends behind the footer", t->name);
        c->at[n++] = t->off;
        c->at[n++] = t->off + t->size;
    }
    qsort(c->at, n, sizeof *c->at, by_value);
    c->n = 0;
    for (size_t i = 1; i < n; i++)
        if (c->at[i] != c->at[c->n])
            c->at[++c->n] = c->at[i];
    return 0;
}

/* A generation that ends meanwhile ends it. */
static int cuts_read(struct cuts *c, struct vfile *vf, struct err *e)
{
    uint8_t *buf = malloc(CRC_PIECE);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "no memory for a checksum");
    for (size_t i = 0; i < c->n && rc == 0; i++)
        for (uint64_t at = c->at[i]; at < c->at[i + 1] && rc == 0; at += CRC_PIECE) {
            uint64_t left = c->at[i + 1] - at;
            size_t n = left < CRC_PIECE ? (size_t)left : CRC_PIECE;
            rc = vfile_stale(vf) ? err_set(e, -EIO, "its source changed")
                                 : vfile_read_range(vf, buf, at, n, false, e);
            if (rc == 0)
                c->crc[i] = crc32_update(c->crc[i], buf, n);
        }
    free(buf);
    return rc;
}

/* Of [from, to), both cuts. */
static uint32_t cuts_crc(const struct cuts *c, uint64_t from, uint64_t to)
{
    const uint64_t *at = bsearch(&from, c->at, c->n + 1, sizeof *c->at, by_value);
    uint32_t crc = 0;
    for (size_t i = (size_t)(at - c->at); i < c->n && c->at[i] < to; i++)
        crc = crc32_join(crc, c->crc[i], c->at[i + 1] - c->at[i]);
    return crc;
}

/* --- checksums ------------------------------------------------------------------------------ */

static int head_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    return vfile_read_range(ctx, dst, off, len, false, e);
}

/* The footer's, then every tensor's: *sum, malloc'ed. The tensors are asked of the file itself, since
 * its source may have no name any more. */
static int sums_make(struct vfile *vf, uint32_t **sum, size_t *n, struct err *e)
{
    static const struct source_ops ops = {.read = head_read};
    struct cuts c = {0};
    struct source *src = NULL;
    struct apr *a = NULL;
    uint64_t end = vf->size - 4; /* who asks has a footer */
    vfile_gate_enter();
    int rc = source_from_ops(&src, &ops, vf, vf->size, "the file", e);
    if (rc == 0)
        rc = apr_open(&a, src, e);
    if (rc == 0)
        rc = cuts_make(&c, a, end, e);
    *n = rc == 0 ? apr_n_tensor(a) + 1 : 0;
    uint64_t(*at)[2] = rc == 0 ? calloc(*n, sizeof *at) : NULL;
    for (size_t i = 1; at && i < *n; i++) {
        at[i][0] = apr_tensor(a, i - 1)->off;
        at[i][1] = at[i][0] + apr_tensor(a, i - 1)->size;
    }
    apr_close(a); /* it is large, and the rest takes long */
    source_close(src);
    vfile_gate_leave();
    *sum = at ? calloc(*n, sizeof **sum) : NULL;
    if (rc == 0 && !*sum)
        rc = err_set(e, -ENOMEM, "no memory for checksums of %zu tensors", *n);
    if (rc == 0)
        rc = cuts_read(&c, vf, e);
    for (size_t i = 0; i < *n && rc == 0; i++)
        (*sum)[i] = cuts_crc(&c, at[i][0], i ? at[i][1] : end);
    cuts_release(&c);
    free(at);
    if (rc < 0)
        free(*sum);
    return rc;
}

/* The footer depends on every byte before it: whoever reads it first computes it, others wait. It is
 * kept only if the generation was certain to the end. */
int vfile_read_footer(struct vfile *vf, uint8_t *dst, uint64_t at, size_t len, struct err *e)
{
    int rc = 0;
    bool first = false;
    uint8_t footer[4] = {0};
    pthread_mutex_lock(&vf->mu);
    while (vf->crc_state == CRC_COMPUTING)
        pthread_cond_wait(&vf->opened, &vf->mu);
    if (vf->crc_state == CRC_UNKNOWN) {
        uint32_t *sum;
        size_t n;
        vf->crc_state = CRC_COMPUTING;
        pthread_mutex_unlock(&vf->mu);
        rc = sums_make(vf, &sum, &n, e);
        if (rc == 0 && (rc = pinned_check(vf->pins, e)) < 0)
            free(sum);
        pthread_mutex_lock(&vf->mu);
        first = rc == 0;
        if (first) {
            vf->crc = sum;
            vf->n_crc = n;
        }
        vf->crc_state = first ? CRC_KNOWN : CRC_UNKNOWN;
        pthread_cond_broadcast(&vf->opened);
    }
    if (rc == 0)
        store_u32(footer, vf->crc[0]);
    pthread_mutex_unlock(&vf->mu);
    if (rc == 0)
        memcpy(dst, footer + at, len);
    if (first && vf->env->learnt)
        vf->env->learnt(vf->env->ctx);
    return rc;
}

bool vfile_crc_known(struct vfile *vf)
{
    pthread_mutex_lock(&vf->mu);
    bool known = vf->crc_state == CRC_KNOWN;
    pthread_mutex_unlock(&vf->mu);
    return known;
}

/* A name that would not stay one line is left out: who reads the list checks what it finds there. */
static bool fits_line(const char *name)
{
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return *name != '\0';
}

int vfile_crc_text(struct vfile *vf, const struct store_plan *plan, char **out, size_t *len,
                   struct err *e)
{
    pthread_mutex_lock(&vf->mu);
    bool known = vf->crc_state == CRC_KNOWN;
    const uint32_t *sum = vf->crc; /* once known it stays until the file goes */
    size_t n = vf->n_crc;
    pthread_mutex_unlock(&vf->mu);
    if (!known || !plan->vapr)
        return err_set(e, -ENODATA, "the checksums were not computed yet");
    if (n != vapr_n_tensor(plan->vapr) + 1) {
        vfile_doubt(vf, "as many checksums as it has tensors were not recorded");
        return err_set(e, -EIO, "%zu checksums of %zu tensors were recorded", n - 1,
                       vapr_n_tensor(plan->vapr));
    }
    FILE *f = open_memstream(out, len);
    if (!f)
        return err_set(e, -ENOMEM, "no memory for a text");
    for (size_t i = 1; i < n; i++) {
        const char *name = vapr_tensor(plan->vapr, i - 1)->name;
        if (fits_line(name))
            fprintf(f, "%08" PRIx32 " %s\n", sum[i], name);
    }
    bool bad = ferror(f) != 0;
    if (fclose(f) == 0 && !bad)
        return 0;
    free(*out);
    return err_set(e, -ENOMEM, "no memory for a text");
}

/* --- for the next scan ---------------------------------------------------------------------- */

bool vfile_teach(struct vfile *vf, struct scan *s, uint64_t ino)
{
    bool news = false;
    pthread_mutex_lock(&vf->mu);
    struct store_learnt *l =
        vf->scan == s ? s->set->store[vf->store]->entry[vf->entry].learnt : NULL;
    if (l && atomic_load(&vf->doubt) && !l->doubt)
        news = l->doubt = true;
    if (l && vf->crc_state == CRC_KNOWN && !l->n_crc)
        news = store_learnt_set_crc(l, vf->crc, vf->n_crc) == 0 || news;
    if (l && l->ino != ino) {
        l->ino = ino;
        news = true;
    }
    pthread_mutex_unlock(&vf->mu);
    return news;
}
