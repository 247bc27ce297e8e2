/* The bytes of an open file: read into a buffer, or as pieces of mappings to send. See vfile.h. */
#include "fs/vfile_internal.h"

#include "fs/compat.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define UNIT_BYTES    ((uint64_t)1 << 20) /* of converted output, rounded to blocks */
#define MAX_SEG_UNITS 40                  /* bits of a unit number below the segment's */
/* Pieces shorter than this leave their pages in the source's cache: their neighbours need the same ones,
 * and what the kernel read ahead. 2 KiB pieces of a cold file, one after the other (ext4): 1 ms for a MiB,
 * 80 where each drops its page again; of 64 KiB 2 ms and 11; of 1 MiB 1 and 1.6. */
#define SHORT_PIECE ((size_t)64 << 10)

/* --- reading ------------------------------------------------------------------------------ */

static int read_part(struct vfile *vf, int part, void *dst, uint64_t off, size_t len, bool keep,
                     struct err *e)
{
    int fd = pinned_fd(vf->pins, part);
    uint64_t dev = pinned_dev(vf->pins, part);
    const char *name = source_name(vf->part[part]);
    uint8_t *d = dst;
    while (len > 0) {
        ssize_t n = keep ? pread(fd, d, len, (off_t)off) : compat_pread_once(fd, dev, d, len, off);
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
                       n_src < SHORT_PIECE, e);
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

/* Bytes [at, at+len) of a segment; whole: nothing else is asked for together with them. */
static int read_seg(struct vfile *vf, const struct vseg *s, uint8_t *dst, uint64_t at, size_t len,
                    bool whole, struct err *e)
{
    switch (s->kind) {
    case VSEG_MEM:
        atomic_fetch_add_explicit(&vf->env->mem_bytes, len, memory_order_relaxed);
        return vcache_item_read(vf->head, dst, s->src_off + at, len, e);
    case VSEG_FILE:
        atomic_fetch_add_explicit(&vf->env->file_bytes, len, memory_order_relaxed);
        return read_part(vf, s->part, dst, s->src_off + at, len, !whole && len < SHORT_PIECE, e);
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

int vfile_read_range(struct vfile *vf, void *dst, uint64_t off, size_t len, bool whole,
                     struct err *e)
{
    uint8_t *d = dst;
    int rc = 0;
    for (size_t i = len ? vseg_find(vf->seg, vf->n_seg, off) : 0; len > 0 && rc == 0; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t n = s->len - at < len ? (size_t)(s->len - at) : len;
        whole = whole && n == len;
        rc = read_seg(vf, s, d, at, n, whole, e);
        d += n;
        off += n;
        len -= n;
    }
    return rc;
}

static int read_once(struct vfile *vf, void *dst, uint64_t off, size_t len, size_t *got,
                     struct err *e)
{
    *got = 0;
    int rc = pinned_enter(vf->pins, e);
    if (rc < 0)
        return rc;
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    rc = vfile_read_range(vf, dst, off, want, true, e);
    struct err late;
    int rc2 = pinned_leave(vf->pins, &late);
    if (rc == 0 && rc2 < 0)
        rc = err_set(e, rc2, "%s", late.msg);
    if (rc == 0)
        *got = want;
    return rc;
}

int vfile_read(struct vfile *vf, void *dst, uint64_t off, size_t len, size_t *got, struct err *e)
{
    struct err why;
    int rc = read_once(vf, dst, off, len, got, e);
    if (rc == -EIO && !vfile_stale(vf) && !pinned_leased(vf->pins) && vfile_renew(vf, &why) == 0)
        rc = read_once(vf, dst, off, len, got, e);
    return rc;
}

/* --- sending ------------------------------------------------------------------------------ */

static uint8_t zeros[64 << 10]; /* never written */

/* A reply in the making. */
struct reply {
    struct iovec *iov;
    int max, n;
    bool ahead;           /* what follows is wanted, too */
    size_t gather;        /* pieces shorter than this are copied into scratch */
    uint64_t file, mem;   /* bytes of parts, of the head */
    uint8_t *scratch_end; /* of the last piece in scratch */
};

enum { PUT_DONE, PUT_FULL, PUT_CANNOT }; /* or a negative errno */

static int put_piece(struct reply *r, const void *p, size_t len)
{
    if (r->n == r->max)
        return PUT_FULL;
    r->iov[r->n++] = (struct iovec){.iov_base = (void *)(uintptr_t)p, .iov_len = len};
    return PUT_DONE;
}

/* The same of bytes in scratch: what follows them there is one piece with them. */
static int put_scratch(struct reply *r, uint8_t *p, size_t len)
{
    int rc = PUT_DONE;
    if (r->scratch_end == p)
        r->iov[r->n - 1].iov_len += len;
    else
        rc = put_piece(r, p, len);
    if (rc == PUT_DONE)
        r->scratch_end = p + len;
    return rc;
}

static int put_zeros(struct reply *r, size_t len, uint8_t *scratch)
{
    int rc = PUT_DONE;
    for (size_t k; len > 0 && rc == PUT_DONE; len -= k, scratch += k) {
        k = len < sizeof zeros ? len : sizeof zeros;
        if (k < r->gather)
            memset(scratch, 0, k);
        rc = k < r->gather ? put_scratch(r, scratch, k) : put_piece(r, zeros, k);
    }
    return rc;
}

/* One segment's bytes [at, at+len); scratch: where they would be in a buffer for the whole reply. */
static int put_seg(struct vfile *vf, const struct vseg *s, uint64_t at, size_t len, struct reply *r,
                   uint8_t *scratch, struct err *e)
{
    const uint8_t *p;
    int rc;
    switch (s->kind) {
    case VSEG_MEM:
        r->mem += len;
        p = len < r->gather ? NULL : vcache_item_mem(vf->head);
        if (p)
            return put_piece(r, p + s->src_off + at, len);
        rc = vcache_item_read(vf->head, scratch, s->src_off + at, len, e);
        return rc < 0 ? rc : put_scratch(r, scratch, len);
    case VSEG_FILE:
        r->file += len;
        if (len < r->gather) {
            rc = read_part(vf, s->part, scratch, s->src_off + at, len, true, e);
            return rc < 0 ? rc : put_scratch(r, scratch, len);
        }
        p = pinned_map(vf->pins, s->part);
        if (p && r->ahead && len >= SHORT_PIECE)
            compat_read_ahead(pinned_fd(vf->pins, s->part), s->src_off + at);
        return p ? put_piece(r, p + s->src_off + at, len) : PUT_CANNOT;
    case VSEG_ZERO:
        return put_zeros(r, len, scratch);
    case VSEG_CONV:
    case VSEG_CRC:
        break;
    }
    return PUT_CANNOT;
}

/* [off, off+len), inside the file. */
static int put_range(struct vfile *vf, uint64_t off, size_t len, struct reply *r, uint8_t *scratch,
                     struct err *e)
{
    int rc = PUT_DONE;
    r->n = 0;
    r->file = r->mem = 0;
    r->scratch_end = NULL;
    for (size_t i = vseg_find(vf->seg, vf->n_seg, off); len > 0 && rc == PUT_DONE; i++) {
        const struct vseg *s = &vf->seg[i];
        uint64_t at = off - s->off;
        size_t k = s->len - at < len ? s->len - at : len;
        rc = put_seg(vf, s, at, k, r, scratch, e);
        scratch += k;
        off += k;
        len -= k;
    }
    return rc;
}

int vfile_send(struct vfile *vf, uint64_t off, size_t len, bool ahead, struct iovec *iov, int max,
               int *n, size_t *got, void *scratch, struct err *e)
{
    struct reply r = {.iov = iov, .max = max, .ahead = ahead};
    size_t want = off >= vf->size ? 0 : vf->size - off < len ? vf->size - off : len;
    *n = 0;
    *got = 0;
    if (want == 0)
        return 0;
    int rc = pinned_enter_sent(vf->pins, e);
    if (rc <= 0)
        return rc;
    rc = put_range(vf, off, want, &r, scratch, e);
    if (rc == PUT_FULL && max >= 3) {
        /* Of pieces this long there are (max-1)/2 at most, and as many runs of short ones between them
         * and one more. */
        r.gather = 2 * want / (size_t)(max - 1) + 1;
        rc = put_range(vf, off, want, &r, scratch, e);
    }
    /* What was copied on the way may have waited longer than a lease is waited for. */
    if (rc == PUT_DONE && !pinned_leased(vf->pins))
        rc = PUT_CANNOT;
    if (rc != PUT_DONE) {
        pinned_leave_sent(vf->pins, 0);
        return rc < 0 ? rc : 0;
    }
    atomic_fetch_add_explicit(&vf->env->mem_bytes, r.mem, memory_order_relaxed);
    atomic_fetch_add_explicit(&vf->env->file_bytes, r.file, memory_order_relaxed);
    *n = r.n;
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
