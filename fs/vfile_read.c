/* The bytes of an open file: read into a buffer, or as pieces of mappings to send. See vfile.h. */
#include "fs/vfile_internal.h"

#include "fs/compat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#define UNIT_BYTES    ((uint64_t)1 << 20) /* of converted output, rounded to blocks */
#define MAX_SEG_UNITS 40                  /* bits of a unit number below the segment's */

/* --- reading ------------------------------------------------------------------------------ */

static int read_part(struct vfile *vf, int part, void *dst, uint64_t off, size_t len, struct err *e)
{
    int fd = pinned_fd(vf->pins, part);
    uint64_t dev = pinned_dev(vf->pins, part);
    const char *name = source_name(vf->part[part]);
    uint8_t *d = dst;
    while (len > 0) {
        ssize_t n = compat_pread_once(fd, dev, d, len, off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set(e, errno == ENOMEM ? -ENOMEM : -EIO, "%s: read at byte %" PRIu64 ": %s",
                           name, off, strerror(errno));
        if (n == 0)
            return err_set(e, -EIO, "%s: ended at byte %" PRIu64, name, off);
        d += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

struct unit_job {
    struct vfile *vf;
    const struct vseg *seg;
    uint64_t first, n; /* blocks of the segment */
};

static int unit_build(void *ctx, uint8_t **p, size_t *len, struct err *e)
{
    const struct unit_job *j = ctx;
    const struct quant_type *t = j->seg->type;
    size_t n_src = j->n * t->block_bytes, n_out = j->n * t->block_len * sizeof(float);
    uint8_t *src = malloc(n_src);
    float *out = malloc(n_out);
    int rc = src && out ? 0 : err_set(e, -ENOMEM, "no memory for a converted unit");
    if (rc == 0)
        rc = read_part(j->vf, j->seg->part, src, j->seg->src_off + j->first * t->block_bytes, n_src,
                       e);
    if (rc == 0) {
        t->f32(out, src, j->n);
        atomic_fetch_add(&j->vf->env->conv_bytes, n_out);
        *p = (uint8_t *)out;
        *len = n_out;
        out = NULL;
    }
    free(src);
    free(out);
    return rc;
}

static int read_conv(struct vfile *vf, const struct vseg *s, uint8_t *dst, uint64_t off, size_t len,
                     struct err *e)
{
    uint64_t block = s->type->block_len * sizeof(float);
    uint64_t per_unit = UNIT_BYTES / block > 0 ? UNIT_BYTES / block : 1;
    uint64_t n_block = s->len / block;
    while (len > 0) {
        uint64_t unit = off / (per_unit * block), at = off % (per_unit * block);
        struct unit_job j = {.vf = vf, .seg = s, .first = unit * per_unit};
        j.n = n_block - j.first < per_unit ? n_block - j.first : per_unit;
        struct vcache_key k = {.unit = (uint64_t)(s - vf->seg) << MAX_SEG_UNITS | unit};
        memcpy(k.id, vf->gen, sizeof k.id);
        struct vcache_item *it;
        int rc = vcache_get(vf->env->units, &k, unit_build, &j, &it, e);
        if (rc < 0)
            return rc;
        size_t has = vcache_item_len(it), n = at < has && has - at < len ? has - at : len;
        rc = at < has ? vcache_item_read(it, dst, at, n, e)
                      : err_set(e, -EIO, "a converted unit has %zu bytes only", has);
        vcache_put(vf->env->units, it);
        if (rc < 0)
            return rc;
        dst += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int read_seg(struct vfile *vf, const struct vseg *s, uint8_t *dst, uint64_t at, size_t len,
                    struct err *e)
{
    switch (s->kind) {
    case VSEG_MEM:
        atomic_fetch_add_explicit(&vf->env->mem_bytes, len, memory_order_relaxed);
        return vcache_item_read(vf->head, dst, s->src_off + at, len, e);
    case VSEG_FILE:
        atomic_fetch_add_explicit(&vf->env->file_bytes, len, memory_order_relaxed);
        return read_part(vf, s->part, dst, s->src_off + at, len, e);
    case VSEG_ZERO:
        memset(dst, 0, len);
        return 0;
    case VSEG_CONV:
        return read_conv(vf, s, dst, at, len, e);
    case VSEG_CRC:
        return vfile_read_footer(vf, dst, at, len, e);
    }
    return err_set(e, -EIO, "segment of kind %d", (int)s->kind);
}

int vfile_read_range(struct vfile *vf, void *dst, uint64_t off, size_t len, struct err *e)
{
    uint8_t *d = dst;
    int rc = 0;
    for (size_t i = len ? vseg_find(vf->seg, vf->n_seg, off) : 0; len > 0 && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t n = s->len - at < len ? (size_t)(s->len - at) : len;
        rc = read_seg(vf, s, d, at, n, e);
        d += n;
        off += n;
        len -= n;
    }
    return rc;
}

int vfile_read(struct vfile *vf, void *dst, uint64_t off, size_t len, size_t *got, struct err *e)
{
    *got = 0;
    int rc = pinned_enter(vf->pins, e);
    if (rc < 0)
        return rc;
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    rc = vfile_read_range(vf, dst, off, want, e);
    struct err late;
    int rc2 = pinned_leave(vf->pins, &late);
    if (rc == 0 && rc2 < 0)
        rc = err_set(e, rc2, "%s", late.msg);
    if (rc == 0)
        *got = want;
    return rc;
}

/* --- sending ------------------------------------------------------------------------------ */

static uint8_t zeros[64 << 10]; /* never written */

/* Appends [p, p+len); false: no room. */
static bool put_piece(struct iovec *iov, int max, int *n, const void *p, size_t len)
{
    if (*n == max)
        return false;
    iov[(*n)++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    return true;
}

/* One segment's bytes [at, at+len); 0, 1: not to be had, or an error. */
static int put_seg(struct vfile *vf, const struct vseg *s, uint64_t at, size_t len,
                   struct iovec *iov, int max, int *n, uint8_t *scratch, struct err *e)
{
    const uint8_t *p;
    switch (s->kind) {
    case VSEG_MEM:
        p = vcache_item_mem(vf->head);
        if (p)
            return !put_piece(iov, max, n, p + s->src_off + at, len);
        int rc = vcache_item_read(vf->head, scratch, s->src_off + at, len, e);
        return rc < 0 ? rc : !put_piece(iov, max, n, scratch, len);
    case VSEG_FILE:
        p = pinned_map(vf->pins, s->part);
        return !p || !put_piece(iov, max, n, p + s->src_off + at, len);
    case VSEG_ZERO:
        for (size_t k; len > 0; len -= k) {
            k = len < sizeof zeros ? len : sizeof zeros;
            if (!put_piece(iov, max, n, zeros, k))
                return 1;
        }
        return 0;
    case VSEG_CONV:
    case VSEG_CRC:
        break;
    }
    return 1;
}

static void count_sent(struct vfile *vf, const struct iovec *iov, int n)
{
    size_t mem = 0, all = 0;
    const uint8_t *head = vcache_item_mem(vf->head);
    for (int i = 0; i < n; i++) {
        const uint8_t *p = iov[i].iov_base;
        bool from_head = head && p >= head && p < head + vcache_item_len(vf->head);
        mem += from_head ? iov[i].iov_len : 0;
        all += p == zeros ? 0 : iov[i].iov_len;
    }
    atomic_fetch_add_explicit(&vf->env->mem_bytes, mem, memory_order_relaxed);
    atomic_fetch_add_explicit(&vf->env->file_bytes, all - mem, memory_order_relaxed);
}

int vfile_send(struct vfile *vf, uint64_t off, size_t len, struct iovec *iov, int max, int *n,
               size_t *got, void *scratch, struct err *e)
{
    uint8_t *d = scratch;
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    *n = 0;
    *got = 0;
    if (want == 0)
        return 0;
    int rc = pinned_enter_sent(vf->pins, e);
    if (rc <= 0)
        return rc;
    rc = 0;
    for (size_t i = vseg_find(vf->seg, vf->n_seg, off), left = want; left > 0 && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t k = s->len - at < left ? s->len - at : left;
        rc = put_seg(vf, s, at, k, iov, max, n, d, e);
        d += k;
        off += k;
        left -= k;
    }
    if (rc != 0) {
        pinned_leave_sent(vf->pins, 0);
        return rc < 0 ? rc : 0;
    }
    count_sent(vf, iov, *n);
    *got = want;
    /* The reader may close the file as soon as it has the reply, before vfile_sent. */
    pthread_mutex_lock(&vf->mu);
    vf->n_open++;
    pthread_mutex_unlock(&vf->mu);
    atomic_fetch_add(&vf->env->n_open, 1);
    vfile_get(vf);
    return 1;
}

void vfile_sent(struct vfile *vf, size_t got)
{
    pinned_leave_sent(vf->pins, got);
    vfile_close(vf);
    vfile_put(vf);
}
