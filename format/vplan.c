/* Plans of virtual files: see vplan.h. */
#include "format/vplan.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONV_SRC     32768 /* stack bytes for blocks on their way; the largest block has 292 */
#define CONV_OUT     4096  /* stack weights where the reader's buffer cannot take whole blocks */
#define FOOTER_KNOWN (UINT64_C(1) << 32)

int vplan_init(struct vplan *p, int n_part, struct err *e)
{
    p->part = calloc((size_t)n_part + 1, sizeof(struct source *));
    p->n_part = p->part ? n_part : 0;
    return p->part ? 0 : err_set(e, -ENOMEM, "no memory for %d parts", n_part);
}

void vplan_release(struct vplan *p)
{
    free(p->seg);
    free(p->part);
    memset(p, 0, sizeof *p);
}

static int push(struct vplan *p, const struct vseg *s, struct err *e)
{
    if (p->n_seg == p->cap_seg) {
        size_t cap = p->cap_seg ? 2 * p->cap_seg : 16;
        struct vseg *n = realloc(p->seg, cap * sizeof *n);
        if (!n)
            return err_set(e, -ENOMEM, "no memory for %zu segments", cap);
        p->seg = n;
        p->cap_seg = cap;
    }
    p->seg[p->n_seg++] = *s;
    p->size = s->off + s->len;
    return 0;
}

int vplan_add(struct vplan *p, struct vseg s, struct err *e)
{
    if (s.len > VPLAN_MAX_SIZE || s.off > VPLAN_MAX_SIZE - s.len)
        return err_set(e, -ERANGE, "the file would be larger than 2^53 bytes");
    if (s.len == 0)
        return 0;
    int rc = 0;
    if (s.off > p->size && p->n_seg > 0)
        rc = push(p, &(struct vseg){VSEG_ZERO, p->size, s.off - p->size, .part = -1}, e);
    return rc < 0 ? rc : push(p, &s, e);
}

size_t vseg_find(const struct vseg *seg, size_t n, uint64_t off)
{
    size_t lo = 0, hi = n; /* segments touch: the last one that starts at or before off */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (seg[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

size_t vplan_find_seg(const struct vplan *p, uint64_t off)
{
    return vseg_find(p->seg, p->n_seg, off);
}

int vplan_convert(const struct vplan *p, const struct vseg *s, uint64_t block_no, size_t n_block,
                  float *dst, struct err *e)
{
    uint8_t src[CONV_SRC];
    const struct quant_type *q = s->type;
    size_t most = sizeof src / q->block_bytes;
    while (n_block > 0) {
        size_t n = n_block < most ? n_block : most;
        int rc = source_read(p->part[s->part], src, s->src_off + block_no * q->block_bytes,
                             n * q->block_bytes, e);
        if (rc < 0)
            return rc;
        q->f32(dst, src, n);
        dst += n * q->block_len;
        block_no += n;
        n_block -= n;
    }
    return 0;
}

/* len bytes from byte at of a converted segment. Whole blocks go straight into dst where it is
 * aligned for them; the rest through a buffer. */
static int read_conv(const struct vplan *p, const struct vseg *s, uint8_t *dst, uint64_t at,
                     size_t len, struct err *e)
{
    float out[CONV_OUT];
    const size_t block = s->type->block_len * sizeof(float);
    while (len > 0) {
        uint64_t block_no = at / block;
        size_t skip = (size_t)(at % block), n, whole = len / block;
        int rc;
        if (skip == 0 && whole > 0 && (uintptr_t)dst % _Alignof(float) == 0) {
            n = whole * block;
            rc = vplan_convert(p, s, block_no, whole, (float *)(void *)dst, e);
        } else {
            size_t want = (skip + len + block - 1) / block, room = sizeof out / block;
            want = want < room ? want : room;
            /* Once the front is cut off, the rest may go the direct way. */
            if (skip > 0)
                want = 1;
            n = want * block - skip;
            n = n < len ? n : len;
            rc = vplan_convert(p, s, block_no, want, out, e);
            if (rc == 0)
                memcpy(dst, (uint8_t *)out + skip, n);
        }
        if (rc < 0)
            return rc;
        dst += n;
        at += n;
        len -= n;
    }
    return 0;
}

/* The CRC of len converted bytes from the segment's start, in pieces. */
static int crc_conv(const struct vplan *p, const struct vseg *s, uint32_t *crc, struct err *e)
{
    uint8_t buf[CONV_SRC];
    for (uint64_t at = 0; at < s->len;) {
        size_t n = s->len - at < sizeof buf ? (size_t)(s->len - at) : sizeof buf;
        int rc = read_conv(p, s, buf, at, n, e);
        if (rc < 0)
            return rc;
        *crc = crc32_update(*crc, buf, n);
        at += n;
    }
    return 0;
}

/* The footer depends on every byte before it, so it is computed when first asked for. Two threads
 * may do so at once; they store the same value. */
static int footer(const struct vplan *p, uint8_t out[4], struct err *e)
{
    uint64_t known = atomic_load(&p->footer);
    uint32_t crc = (uint32_t)known;
    if (!known) {
        int rc = 0;
        for (size_t i = 0; i < p->n_seg && rc == 0; i++) {
            const struct vseg *s = &p->seg[i];
            if (s->kind == VSEG_MEM)
                crc = crc32_update(crc, s->p, (size_t)s->len);
            else if (s->kind == VSEG_ZERO)
                crc = crc32_zeros(crc, s->len);
            else if (s->kind == VSEG_FILE)
                rc = crc32_source(&crc, p->part[s->part], s->src_off, s->len, e);
            else if (s->kind == VSEG_CONV)
                rc = crc_conv(p, s, &crc, e);
        }
        if (rc < 0) {
            err_wrap(e, "footer");
            return rc;
        }
        /* The one thing about a plan that changes once it is made. */
        atomic_store(&((struct vplan *)(uintptr_t)p)->footer, FOOTER_KNOWN | crc);
    }
    store_u32(out, crc);
    return 0;
}

static int read_seg(const struct vplan *p, const struct vseg *s, uint8_t *dst, uint64_t at,
                    size_t len, struct err *e)
{
    uint8_t crc[4];
    int rc = 0;
    switch (s->kind) {
    case VSEG_MEM:
        memcpy(dst, s->p + at, len);
        return 0;
    case VSEG_ZERO:
        memset(dst, 0, len);
        return 0;
    case VSEG_FILE:
        return source_read(p->part[s->part], dst, s->src_off + at, len, e);
    case VSEG_CONV:
        return read_conv(p, s, dst, at, len, e);
    case VSEG_CRC:
        rc = footer(p, crc, e);
        if (rc == 0)
            memcpy(dst, crc + at, len);
        return rc;
    }
    return err_set(e, -EINVAL, "segment of unknown kind %d", s->kind);
}

int vplan_read(const struct vplan *p, void *dst, uint64_t off, size_t len, size_t *got,
               struct err *e)
{
    uint8_t *d = dst;
    *got = 0;
    if (off >= p->size)
        return 0;
    if (len > p->size - off)
        len = (size_t)(p->size - off);
    size_t i = vplan_find_seg(p, off);
    for (size_t done = 0; done < len; i++) {
        const struct vseg *s = &p->seg[i];
        uint64_t at = off + done - s->off;
        size_t n = s->len - at < len - done ? (size_t)(s->len - at) : len - done;
        int rc = read_seg(p, s, d + done, at, n, e);
        if (rc < 0)
            return rc;
        done += n;
    }
    *got = len;
    return 0;
}

static int source_plan_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    size_t got;
    int rc = vplan_read(ctx, dst, off, len, &got, e);
    return rc < 0 || got == len ? rc : err_set(e, -EIO, "the virtual file ended early");
}

static int source_plan_check(void *ctx, struct err *e)
{
    const struct vplan *p = ctx;
    int rc = 0;
    for (int k = 0; k < p->n_part && rc == 0; k++)
        rc = source_check(p->part[k], e);
    return rc;
}

int vplan_source(struct source **out, const struct vplan *p, struct err *e)
{
    static const struct source_ops ops = {.read = source_plan_read, .check = source_plan_check};
    return source_from_ops(out, &ops, (void *)(uintptr_t)p, p->size, source_name(p->part[0]), e);
}
