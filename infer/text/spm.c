/* The text is one run of characters to the rule; but where two neighbours stand together in no
 * token, nothing can ever join across them. So it is cut there first (in practice: at words), which
 * changes no token and makes the work local. */
#include "infer/text/spm.h"

#include "infer/text/unicode.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct spm {
    const struct vocab *v;
    uint64_t *joint; /* bit set by hashes of neighbouring characters; a false 1 costs time only */
    uint32_t joint_mask;
    int32_t byte_id[256]; /* VOCAB_NONE: no token */
};

static size_t char_len(const char *p, size_t left)
{
    size_t n = unicode_len((uint8_t)*p);
    return n < left ? n : left;
}

static uint32_t char_key(const char *p, size_t len)
{
    uint32_t k = 0;
    memcpy(&k, p, len);
    return k;
}

static uint32_t joint_bit(const struct spm *s, uint32_t a, uint32_t b)
{
    uint64_t h = ((uint64_t)a << 32 | b) * 0x9E3779B97F4A7C15;
    return (uint32_t)(h >> 40 ^ h >> 17) & s->joint_mask;
}

static void note_joints(struct spm *s)
{
    for (uint32_t id = 0; id < s->v->n; id++) {
        size_t len;
        const char *p = vocab_text(s->v, id, &len);
        uint32_t prev = 0;
        for (size_t i = 0, n; i < len; i += n) {
            n = char_len(p + i, len - i);
            uint32_t k = char_key(p + i, n);
            if (i > 0) {
                uint32_t bit = joint_bit(s, prev, k);
                s->joint[bit / 64] |= UINT64_C(1) << bit % 64;
            }
            prev = k;
        }
    }
}

int spm_new(struct spm **out, const struct vocab *v, struct err *e)
{
    struct spm *s = calloc(1, sizeof *s);
    uint32_t bits = 1 << 16;
    while (bits < 1 << 23 && bits < 16 * v->n)
        bits *= 2;
    if (s)
        s->joint = calloc(bits / 64, sizeof *s->joint);
    if (!s || !s->joint) {
        spm_free(s);
        return err_set(e, -ENOMEM, "no memory for a tokenizer");
    }
    s->v = v;
    s->joint_mask = bits - 1;
    note_joints(s);
    for (int i = 0; i < 256; i++) {
        char name[8], raw = (char)i;
        snprintf(name, sizeof name, "<0x%02X>", i);
        s->byte_id[i] = vocab_find(v, name, 6);
        if (s->byte_id[i] < 0)
            s->byte_id[i] = vocab_find(v, &raw, 1);
    }
    *out = s;
    return 0;
}

void spm_free(struct spm *s)
{
    if (!s)
        return;
    free(s->joint);
    free(s);
}

struct find_ctx {
    const struct vocab *v;
    const char *p;
};

/* Scores as numbers that fall while they rise. */
static uint32_t prio_of(float score)
{
    union {
        float f;
        uint32_t u;
    } x = {.f = score + 0.0f}; /* -0 and 0 are one score */
    uint32_t up = x.u & 0x80000000u ? ~x.u : x.u | 0x80000000u;
    return ~up; /* scores are finite: never UINT32_MAX */
}

static bool find_union(const void *ctx, const struct merge_sym *a, const struct merge_sym *b,
                       uint32_t *prio, uint32_t *id)
{
    const struct find_ctx *c = ctx;
    int32_t t = vocab_find(c->v, c->p + a->off, (size_t)a->len + b->len);
    if (t < 0)
        return false;
    *prio = prio_of(c->v->score[t]);
    *id = (uint32_t)t;
    return true;
}

static int spell(const struct spm *s, const char *p, size_t len, struct ids *l, struct err *e)
{
    for (size_t i = 0; i < len; i++) {
        int32_t id = s->byte_id[(uint8_t)p[i]];
        if (id < 0)
            id = s->v->unk;
        if (id < 0)
            return err_set(
                e, -ENOTSUP,
                "the text holds byte 0x%02X, for which the vocabulary has no token, nor an "
                "unknown token",
                (uint8_t)p[i]);
        int rc = ids_add(l, id, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int do_segment(const struct spm *s, const char *p, size_t len, size_t n_char,
                      struct merge *m, struct ids *l, struct err *e)
{
    int rc = merge_reserve(m, n_char, e);
    if (rc < 0)
        return rc;
    m->n = 0;
    for (size_t i = 0, n; i < len; i += n) {
        n = char_len(p + i, len - i);
        m->sym[m->n++] = (struct merge_sym){UINT32_MAX, (uint32_t)i, (uint32_t)n};
    }
    struct find_ctx ctx = {s->v, p};
    rc = merge_run(m, find_union, &ctx, e);
    for (size_t i = 0; rc == 0 && i < m->n; i++) {
        const struct merge_sym *y = &m->sym[i];
        int32_t id = y->id == UINT32_MAX ? vocab_find(s->v, p + y->off, y->len) : (int32_t)y->id;
        rc = id >= 0 ? ids_add(l, id, e) : spell(s, p + y->off, y->len, l, e);
    }
    return rc;
}

int spm_text(const struct spm *s, const char *p, size_t len, struct ids_cache *c, struct merge *m,
             struct ids *l, struct err *e)
{
    for (size_t i = 0; i < len;) {
        size_t end = i, n_char = 0;
        uint32_t prev = 0;
        while (end < len) {
            size_t n = char_len(p + end, len - end);
            uint32_t k = char_key(p + end, n);
            if (n_char > 0) {
                uint32_t bit = joint_bit(s, prev, k);
                if (!(s->joint[bit / 64] >> bit % 64 & 1))
                    break;
            }
            prev = k;
            end += n;
            n_char++;
        }
        struct ids_cached *slot;
        int rc = ids_cache_get(c, p + i, end - i, l, &slot, e);
        if (rc == 0) {
            size_t n0 = l->n;
            rc = do_segment(s, p + i, end - i, n_char, m, l, e);
            if (rc == 0)
                ids_cache_put(slot, p + i, end - i, l->p + n0, l->n - n0);
        }
        if (rc < 0)
            return rc;
        i = end;
    }
    return 0;
}
