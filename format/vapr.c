/* The virtual APR: see vapr.h. This file owns the handle and reading; vapr_plan.c decides what
 * stands where, vapr_head.c writes the head. */
#include "format/vapr.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/vapr_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CONV_SRC 32768 /* stack bytes for blocks on their way; the largest block has 292 */
#define CONV_OUT 4096  /* stack weights where the reader's buffer cannot take whole blocks */

static const char *const profile_names[] = {
    [VAPR_ENGINE] = "engine", [VAPR_NATIVE] = "native", [VAPR_STRICT] = "strict"};

const char *vapr_profile_name(enum vapr_profile p)
{
    return profile_names[p];
}

bool vapr_profile_parse(const char *s, enum vapr_profile *p)
{
    for (int i = VAPR_ENGINE; i <= VAPR_STRICT; i++)
        if (strcmp(s, profile_names[i]) == 0) {
            *p = (enum vapr_profile)i;
            return true;
        }
    return false;
}

/* Rows of fused tensors go by what the file's forward pass uses, whatever values are stamped. */
static int plan_head(struct vapr *v, struct err *e)
{
    struct arch_config ref = {0}, compat = {0};
    bool use_compat = v->opt.values == VAPR_VALUES_COMPAT;
    int rc = arch_resolve(v->g, ARCH_VALUES_REFERENCE, &ref, NULL, e);
    if (rc < 0)
        return rc;
    if (use_compat)
        rc = arch_resolve(v->g, ARCH_VALUES_COMPAT, &compat, NULL, e);
    bool both = use_compat && rc == 0;
    if (rc == 0)
        rc = vapr_plan_aliases(v, &ref, e);
    if (rc == 0)
        rc = vapr_plan_layout(v, e);
    if (rc == 0)
        rc = vapr_head_build(v, use_compat ? &compat : &ref, e);
    arch_config_release(&ref);
    if (both)
        arch_config_release(&compat);
    return rc;
}

int vapr_new(struct vapr **out, const struct gguf *g, const struct vapr_options *opt, struct err *e)
{
    struct vapr *v = calloc(1, sizeof *v);
    int rc = v ? 0 : err_set(e, -ENOMEM, "no memory for a plan");
    if (rc < 0)
        goto out;
    v->g = g;
    v->opt = *opt;
    if ((rc = vapr_plan_entries(v, e)) < 0 || (rc = plan_head(v, e)) < 0 ||
        (rc = vapr_plan_move(v, e)) < 0)
        goto out;
    vapr_head_seal(v);
    *out = v;
    v = NULL;
out:
    if (rc < 0 && v)
        err_wrap(e, "%s", source_name(gguf_part(g, 0)));
    vapr_free(v);
    return rc;
}

void vapr_free(struct vapr *v)
{
    if (!v)
        return;
    for (size_t i = 0; i < v->n_entry; i++)
        free((char *)(uintptr_t)v->entry[i].t.name);
    free(v->entry);
    free(v->seg);
    free(v->head);
    free(v);
}

uint64_t vapr_size(const struct vapr *v)
{
    return v->size;
}

const uint8_t *vapr_head(const struct vapr *v, size_t *len)
{
    *len = v->head_len;
    return v->head;
}

uint64_t vapr_data_offset(const struct vapr *v)
{
    return v->data_off;
}

const char *vapr_layout(const struct vapr *v)
{
    return v->layout;
}

size_t vapr_n_seg(const struct vapr *v)
{
    return v->n_seg;
}

const struct vapr_seg *vapr_seg(const struct vapr *v, size_t i)
{
    return &v->seg[i];
}

size_t vapr_find_seg(const struct vapr *v, uint64_t off)
{
    size_t lo = 0, hi = v->n_seg; /* segments touch: the last one that starts at or before off */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (v->seg[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

size_t vapr_n_tensor(const struct vapr *v)
{
    return v->n_entry;
}

const struct vapr_tensor *vapr_tensor(const struct vapr *v, size_t i)
{
    return &v->entry[i].t;
}

const struct gguf *vapr_gguf(const struct vapr *v)
{
    return v->g;
}

/* --- reading --- */

int vapr_convert(const struct vapr *v, const struct vapr_seg *s, uint64_t block_no, size_t n_block,
                 float *dst, struct err *e)
{
    uint8_t src[CONV_SRC];
    const struct quant_type *q = s->type;
    size_t most = sizeof src / q->block_bytes;
    while (n_block > 0) {
        size_t n = n_block < most ? n_block : most;
        int rc = source_read(gguf_part(v->g, s->part), src, s->src_off + block_no * q->block_bytes,
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
static int read_conv(const struct vapr *v, const struct vapr_seg *s, uint8_t *dst, uint64_t at,
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
            rc = vapr_convert(v, s, block_no, whole, (float *)(void *)dst, e);
        } else {
            size_t want = (skip + len + block - 1) / block, room = sizeof out / block;
            want = want < room ? want : room;
            /* Once the front is cut off, the rest may go the direct way. */
            if (skip > 0)
                want = 1;
            n = want * block - skip;
            n = n < len ? n : len;
            rc = vapr_convert(v, s, block_no, want, out, e);
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
static int crc_conv(const struct vapr *v, const struct vapr_seg *s, uint32_t *crc, struct err *e)
{
    uint8_t buf[CONV_SRC];
    for (uint64_t at = 0; at < s->len;) {
        size_t n = s->len - at < sizeof buf ? (size_t)(s->len - at) : sizeof buf;
        int rc = read_conv(v, s, buf, at, n, e);
        if (rc < 0)
            return rc;
        *crc = crc32_update(*crc, buf, n);
        at += n;
    }
    return 0;
}

/* The footer depends on every byte before it, so it is computed when first asked for. Two threads
 * may do so at once; they store the same value. */
static int footer(const struct vapr *v, uint8_t out[4], struct err *e)
{
    uint64_t known = atomic_load(&v->footer);
    uint32_t crc = (uint32_t)known;
    if (!known) {
        int rc = 0;
        for (size_t i = 0; i < v->n_seg && rc == 0; i++) {
            const struct vapr_seg *s = &v->seg[i];
            if (s->kind == VAPR_MEM)
                crc = crc32_update(crc, s->p, (size_t)s->len);
            else if (s->kind == VAPR_ZERO)
                crc = crc32_zeros(crc, s->len);
            else if (s->kind == VAPR_FILE)
                rc = crc32_source(&crc, gguf_part(v->g, s->part), s->src_off, s->len, e);
            else if (s->kind == VAPR_CONV)
                rc = crc_conv(v, s, &crc, e);
        }
        if (rc < 0) {
            err_wrap(e, "footer");
            return rc;
        }
        /* The one thing about a plan that changes after vapr_new. */
        atomic_store(&((struct vapr *)(uintptr_t)v)->footer, VAPR_FOOTER_KNOWN | crc);
    }
    store_u32(out, crc);
    return 0;
}

static int read_seg(const struct vapr *v, const struct vapr_seg *s, uint8_t *dst, uint64_t at,
                    size_t len, struct err *e)
{
    uint8_t crc[4];
    int rc = 0;
    switch (s->kind) {
    case VAPR_MEM:
        memcpy(dst, s->p + at, len);
        return 0;
    case VAPR_ZERO:
        memset(dst, 0, len);
        return 0;
    case VAPR_FILE:
        return source_read(gguf_part(v->g, s->part), dst, s->src_off + at, len, e);
    case VAPR_CONV:
        return read_conv(v, s, dst, at, len, e);
    case VAPR_CRC:
        rc = footer(v, crc, e);
        if (rc == 0)
            memcpy(dst, crc + at, len);
        return rc;
    }
    return err_set(e, -EINVAL, "segment of unknown kind %d", s->kind);
}

int vapr_read(const struct vapr *v, void *dst, uint64_t off, size_t len, size_t *got, struct err *e)
{
    uint8_t *p = dst;
    *got = 0;
    if (off >= v->size)
        return 0;
    if (len > v->size - off)
        len = (size_t)(v->size - off);
    size_t i = vapr_find_seg(v, off);
    for (size_t done = 0; done < len; i++) {
        const struct vapr_seg *s = &v->seg[i];
        uint64_t at = off + done - s->off;
        size_t n = s->len - at < len - done ? (size_t)(s->len - at) : len - done;
        int rc = read_seg(v, s, p + done, at, n, e);
        if (rc < 0)
            return rc;
        done += n;
    }
    *got = len;
    return 0;
}

static int source_vapr_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    size_t got;
    int rc = vapr_read(ctx, dst, off, len, &got, e);
    return rc < 0 || got == len ? rc : err_set(e, -EIO, "the virtual file ended early");
}

static int source_vapr_check(void *ctx, struct err *e)
{
    const struct vapr *v = ctx;
    int rc = 0;
    for (int k = 0; k < gguf_n_part(v->g) && rc == 0; k++)
        rc = source_check(gguf_part(v->g, k), e);
    return rc;
}

int vapr_source(struct source **out, const struct vapr *v, struct err *e)
{
    static const struct source_ops ops = {.read = source_vapr_read, .check = source_vapr_check};
    return source_from_ops(out, &ops, (void *)(uintptr_t)v, v->size,
                           source_name(gguf_part(v->g, 0)), e);
}
