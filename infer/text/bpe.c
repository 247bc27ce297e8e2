/* Symbols are numbers: vocabulary ids below n, and from n on "ghosts": strings that merges make or
 * use but that are no token. A pair of numbers finds its merge in one hash table. */
#include "infer/text/bpe.h"

#include "infer/text/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NO_SYM UINT32_MAX

struct rule { /* of the table; left NO_SYM: empty */
    uint32_t left, right, rank, joined;
};

struct ghosts {
    char *bytes;
    uint32_t *off; /* n + 1 */
    uint32_t n, cap;
    size_t len, cap_bytes;
    uint32_t *slot; /* number + 1 by hash; 0: empty */
    uint32_t mask;
};

struct bpe {
    const struct vocab *v;
    struct rule *rule;
    uint32_t mask;
    uint32_t byte_sym[256];
    struct ghosts ghost;
};

uint32_t bpe_glyph(uint8_t byte)
{
    if ((byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD))
        return byte;
    /* 0x00-0x20 are the first 33, then 0x7F-0xA0, then 0xAD */
    return 0x100 + (byte <= 0x20 ? byte : byte == 0xAD ? 67u : byte - 0x7Fu + 33);
}

int bpe_byte(uint32_t glyph)
{
    if (glyph < 0x100)
        return bpe_glyph((uint8_t)glyph) == glyph ? (int)glyph : -1;
    uint32_t k = glyph - 0x100;
    return k <= 0x20 ? (int)k : k < 67 ? (int)(k - 33 + 0x7F) : k == 67 ? 0xAD : -1;
}

static int ghost_grow(struct ghosts *g, size_t len, struct err *e)
{
    if (g->n + 2 > g->cap) {
        uint32_t cap = g->cap * 2 + 512;
        uint32_t *off = realloc(g->off, cap * sizeof *off);
        if (!off)
            return err_set(e, -ENOMEM, "no memory for merges");
        if (!g->off)
            off[0] = 0;
        g->off = off;
        g->cap = cap;
    }
    if (len > g->cap_bytes - g->len) {
        size_t cap = g->cap_bytes * 2 + len + 4096;
        char *p = realloc(g->bytes, cap);
        if (!p)
            return err_set(e, -ENOMEM, "no memory for merges");
        g->bytes = p;
        g->cap_bytes = cap;
    }
    if (g->len + len > UINT32_MAX || g->n > 1u << 28)
        return err_set(e, -ERANGE, "tokenizer.merges: more than 4 GiB of text");
    if (2 * g->n < g->mask)
        return 0;
    uint32_t mask = g->mask * 2 + 1023;
    uint32_t *slot = calloc((size_t)mask + 1, sizeof *slot);
    if (!slot)
        return err_set(e, -ENOMEM, "no memory for merges");
    for (uint32_t i = 0; i < g->n; i++) {
        uint64_t at = vocab_hash(g->bytes + g->off[i], g->off[i + 1] - g->off[i]) & mask;
        while (slot[at])
            at = (at + 1) & mask;
        slot[at] = i + 1;
    }
    free(g->slot);
    g->slot = slot;
    g->mask = mask;
    return 0;
}

/* The number of a string: its token's, its ghost's, or a new ghost's. */
static int sym_of(struct bpe *b, const char *p, size_t len, uint32_t *sym, struct err *e)
{
    struct ghosts *g = &b->ghost;
    int32_t id = vocab_find(b->v, p, len);
    if (id >= 0) {
        *sym = (uint32_t)id;
        return 0;
    }
    int rc = ghost_grow(g, len, e);
    if (rc < 0)
        return rc;
    uint64_t at = vocab_hash(p, len) & g->mask;
    for (; g->slot[at]; at = (at + 1) & g->mask) {
        uint32_t i = g->slot[at] - 1;
        if (g->off[i + 1] - g->off[i] == len && memcmp(g->bytes + g->off[i], p, len) == 0) {
            *sym = b->v->n + i;
            return 0;
        }
    }
    memcpy(g->bytes + g->len, p, len);
    g->len += len;
    g->slot[at] = ++g->n;
    g->off[g->n] = (uint32_t)g->len;
    *sym = b->v->n + g->n - 1;
    return 0;
}

static uint32_t rule_hash(uint32_t left, uint32_t right)
{
    uint64_t h = ((uint64_t)left << 32 | right) * 0x9E3779B97F4A7C15;
    return (uint32_t)(h >> 32 ^ h >> 13);
}

static struct rule *rule_at(const struct bpe *b, uint32_t left, uint32_t right)
{
    uint32_t i = rule_hash(left, right) & b->mask;
    while (b->rule[i].left != NO_SYM && (b->rule[i].left != left || b->rule[i].right != right))
        i = (i + 1) & b->mask;
    return &b->rule[i];
}

/* "left right", cut at its first blank, but not before its first byte. */
static int add_merge(struct bpe *b, const char *s, uint32_t rank, char *joined, struct err *e)
{
    size_t len = strlen(s);
    const char *blank = len > 1 ? memchr(s + 1, ' ', len - 1) : NULL;
    if (!blank || blank[1] == 0)
        return err_set(e, -EUCLEAN, "tokenizer.merges: item %u '%.40s' is no pair", rank, s);
    size_t n_left = (size_t)(blank - s), n_right = len - n_left - 1;
    memcpy(joined, s, n_left);
    memcpy(joined + n_left, blank + 1, n_right);
    uint32_t left, right, both;
    int rc = sym_of(b, s, n_left, &left, e);
    if (rc == 0)
        rc = sym_of(b, blank + 1, n_right, &right, e);
    if (rc == 0)
        rc = sym_of(b, joined, n_left + n_right, &both, e);
    if (rc < 0)
        return rc;
    struct rule *r = rule_at(b, left, right);
    if (r->left == NO_SYM) /* of two equal merges the first counts */
        *r = (struct rule){left, right, rank, both};
    return 0;
}

static int read_merges(struct bpe *b, const cJSON *list, struct err *e)
{
    uint32_t n = 0, size = 16;
    size_t longest = 0;
    for (const cJSON *i = list->child; i; i = i->next, n++) {
        if (!json_text(i))
            return err_set(e, -EUCLEAN, "tokenizer.merges: item %u is no string", n);
        size_t len = strlen(json_text(i));
        longest = len > longest ? len : longest;
        if (n == 1u << 27)
            return err_set(e, -ERANGE, "tokenizer.merges: more than %u items", n);
    }
    while (size < n + n / 2)
        size *= 2;
    b->mask = size - 1;
    b->rule = malloc(size * sizeof *b->rule);
    char *joined = malloc(longest + 1);
    int rc = b->rule && joined ? 0 : err_set(e, -ENOMEM, "no memory for %u merges", n);
    for (uint32_t i = 0; rc == 0 && i < size; i++)
        b->rule[i].left = NO_SYM;
    uint32_t rank = 0;
    for (const cJSON *i = list->child; rc == 0 && i; i = i->next)
        rc = add_merge(b, json_text(i), rank++, joined, e);
    free(joined);
    return rc;
}

int bpe_new(struct bpe **out, const struct vocab *v, const cJSON *meta, struct err *e)
{
    const cJSON *list = vocab_key(meta, "merges");
    if (!list)
        return err_set(e, -ENOENT, "tokenizer.merges is missing: model 'gpt2' needs it");
    if (!cJSON_IsArray(list))
        return err_set(e, -EUCLEAN, "tokenizer.merges is no array");
    struct bpe *b = calloc(1, sizeof *b);
    if (!b)
        return err_set(e, -ENOMEM, "no memory for merges");
    b->v = v;
    int rc = read_merges(b, list, e);
    for (int i = 0; rc == 0 && i < 256; i++) {
        uint8_t glyph[4];
        size_t n = unicode_encode(bpe_glyph((uint8_t)i), glyph);
        rc = sym_of(b, (const char *)glyph, n, &b->byte_sym[i], e);
    }
    if (rc < 0) {
        bpe_free(b);
        return rc;
    }
    *out = b;
    return 0;
}

void bpe_free(struct bpe *b)
{
    if (!b)
        return;
    free(b->rule);
    free(b->ghost.bytes);
    free(b->ghost.off);
    free(b->ghost.slot);
    free(b);
}

static bool find_rule(const void *ctx, const struct merge_sym *a, const struct merge_sym *b,
                      uint32_t *prio, uint32_t *id)
{
    const struct rule *r = rule_at(ctx, a->id, b->id);
    *prio = r->rank;
    *id = r->joined;
    return r->left != NO_SYM;
}

/* A piece that is a token as a whole, by its glyphs: VOCAB_NONE if it is none. */
static int32_t whole_token(const struct vocab *v, const uint8_t *p, size_t len, struct merge *m)
{
    if (len > v->max_len)
        return VOCAB_NONE;
    uint8_t *glyphs = (uint8_t *)m->sym; /* 12 bytes a symbol are reserved, 4 needed */
    size_t at = 0;
    for (size_t i = 0; i < len; i++)
        at += unicode_encode(bpe_glyph(p[i]), glyphs + at);
    return vocab_find(v, (const char *)glyphs, at);
}

/* What joined to no token goes byte by byte. The reference drops a byte that has no token either:
 * we refuse, for no text may vanish. */
static int spell(const struct bpe *b, const uint8_t *p, size_t len, struct ids *l, struct err *e)
{
    for (size_t i = 0; i < len; i++) {
        if (b->byte_sym[p[i]] >= b->v->n)
            return err_set(e, -ENOTSUP,
                           "the text holds byte 0x%02X, for which the vocabulary has no token",
                           p[i]);
        int rc = ids_add(l, (int32_t)b->byte_sym[p[i]], e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int bpe_piece(const struct bpe *b, const uint8_t *p, size_t len, struct merge *m, struct ids *l,
              struct err *e)
{
    int rc = merge_reserve(m, len, e);
    if (rc < 0)
        return rc;
    if (b->v->pre->flags & PRETOK_IGNORE_MERGES) {
        int32_t id = whole_token(b->v, p, len, m);
        if (id >= 0)
            return ids_add(l, id, e);
    }
    for (size_t i = 0; i < len; i++)
        m->sym[i] = (struct merge_sym){b->byte_sym[p[i]], (uint32_t)i, 1};
    m->n = len;
    rc = merge_run(m, find_rule, b, e);
    for (size_t i = 0; rc == 0 && i < m->n; i++) {
        const struct merge_sym *s = &m->sym[i];
        rc = s->id < b->v->n ? ids_add(l, (int32_t)s->id, e) : spell(b, p + s->off, s->len, l, e);
    }
    return rc;
}
