/* Puts the parts together: added tokens are cut out first (special), what is left goes piece by
 * piece through BPE (split, bpe) or as a whole through SentencePiece (spm). */
#include "infer/text/tokenizer.h"

#include "infer/text/bpe.h"
#include "infer/text/special.h"
#include "infer/text/split.h"
#include "infer/text/spm.h"
#include "infer/text/unicode.h"
#include "infer/text/vocab.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT ((size_t)1 << 30)

struct tokenizer {
    struct vocab v;
    struct special *all, *user; /* added tokens with and without control ones */
    struct split *split;        /* VOCAB_BPE */
    struct bpe *bpe;
    struct spm *spm;     /* VOCAB_SPM */
    char *piece;         /* decoded texts of all tokens */
    uint32_t *piece_off; /* n + 1 */
};

/* The bytes that a token's glyphs stand for. What is no glyph keeps its own bytes. */
static size_t decode_glyphs(const char *p, size_t len, char *out)
{
    size_t at = 0;
    for (size_t i = 0, n; i < len; i += n) {
        int byte = bpe_byte(unicode_decode((const uint8_t *)p + i, len - i, &n));
        if (byte >= 0) {
            out[at++] = (char)byte;
        } else {
            memcpy(out + at, p + i, n);
            at += n;
        }
    }
    return at;
}

static size_t decode_blanks(const char *p, size_t len, char *out)
{
    size_t at = 0;
    for (size_t i = 0; i < len; at++) {
        bool blank = len - i >= 3 && memcmp(p + i, "\xE2\x96\x81", 3) == 0;
        out[at] = blank ? ' ' : p[i];
        i += blank ? 3 : 1;
    }
    return at;
}

static int hex(char c)
{
    return c >= '0' && c <= '9'                 ? c - '0'
           : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                : -1;
}

static size_t decode_token(const struct vocab *v, uint32_t id, char *out)
{
    size_t len;
    const char *p = vocab_text(v, id, &len);
    if (v->attr[id] & (VOCAB_UNKNOWN | VOCAB_CONTROL | VOCAB_USER)) {
        memcpy(out, p, len);
        return len;
    }
    if (v->attr[id] & VOCAB_NORMAL)
        return v->model == VOCAB_BPE ? decode_glyphs(p, len, out) : decode_blanks(p, len, out);
    if (!(v->attr[id] & VOCAB_BYTE)) /* unused ones print nothing */
        return 0;
    if (len == 6 && memcmp(p, "<0x", 3) == 0 && p[5] == '>' && hex(p[3]) >= 0 && hex(p[4]) >= 0) {
        out[0] = (char)(hex(p[3]) << 4 | hex(p[4]));
        return 1;
    }
    memcpy(out, p, len); /* a byte token without the usual spelling is its own text */
    return len;
}

static int make_pieces(struct tokenizer *t, struct err *e)
{
    const struct vocab *v = &t->v;
    t->piece = malloc((size_t)v->off[v->n] + 1);
    t->piece_off = malloc((v->n + 1) * sizeof *t->piece_off);
    if (!t->piece || !t->piece_off)
        return err_set(e, -ENOMEM, "no memory for %u tokens", v->n);
    uint32_t at = 0;
    for (uint32_t id = 0; id < v->n; id++) {
        t->piece_off[id] = at;
        at += (uint32_t)decode_token(v, id, t->piece + at);
    }
    t->piece_off[v->n] = at;
    return 0;
}

int tokenizer_new(struct tokenizer **out, const cJSON *meta, const char *pre, struct err *e)
{
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t)
        return err_set(e, -ENOMEM, "no memory for a tokenizer");
    int rc = vocab_init(&t->v, meta, pre, e);
    if (rc == 0 && t->v.model == VOCAB_BPE) {
        rc = split_new(&t->split, t->v.pre, e);
        if (rc == 0)
            rc = bpe_new(&t->bpe, &t->v, meta, e);
    } else if (rc == 0) {
        rc = spm_new(&t->spm, &t->v, e);
    }
    if (rc == 0)
        rc = special_new(&t->all, &t->v, VOCAB_CONTROL | VOCAB_USER | VOCAB_UNKNOWN, 0, e);
    if (rc == 0)
        rc = special_new(&t->user, &t->v, VOCAB_USER, VOCAB_CONTROL | VOCAB_UNKNOWN, e);
    if (rc == 0)
        rc = make_pieces(t, e);
    if (rc < 0) {
        tokenizer_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void tokenizer_free(struct tokenizer *t)
{
    if (!t)
        return;
    special_free(t->all);
    special_free(t->user);
    split_free(t->split);
    bpe_free(t->bpe);
    spm_free(t->spm);
    vocab_release(&t->v);
    free(t->piece);
    free(t->piece_off);
    free(t);
}

struct run { /* one call's scratch */
    const struct tokenizer *t;
    struct ids ids;
    struct ids_cache cache;
    struct merge merge;
    struct split_run split;
    char *escaped;
    size_t cap_escaped;
};

static void run_release(struct run *r)
{
    free(r->ids.p);
    ids_cache_release(&r->cache);
    merge_release(&r->merge);
    split_run_release(&r->split);
    free(r->escaped);
}

static int encode_bpe(struct run *r, const char *p, size_t len, struct err *e)
{
    int rc = split_text(r->t->split, &r->split, p, len, e);
    uint32_t lo = 0;
    for (size_t i = 0; rc >= 0 && i < r->split.n_piece; lo = r->split.end[i++]) {
        const uint8_t *piece = r->split.text + lo;
        size_t n = r->split.end[i] - lo, n0 = r->ids.n;
        struct ids_cached *slot;
        rc = ids_cache_get(&r->cache, (const char *)piece, n, &r->ids, &slot, e);
        if (rc != 0)
            continue;
        rc = bpe_piece(r->t->bpe, piece, n, &r->merge, &r->ids, e);
        if (rc == 0)
            ids_cache_put(slot, (const char *)piece, n, r->ids.p + n0, r->ids.n - n0);
    }
    return rc < 0 ? rc : 0;
}

/* Spaces become U+2581; prefix: one more goes in front. */
static int encode_spm(struct run *r, const char *p, size_t len, bool prefix, struct err *e)
{
    size_t need = 3 * len + 3;
    if (need > r->cap_escaped) {
        char *q = realloc(r->escaped, need);
        if (!q)
            return err_set(e, -ENOMEM, "no memory to tokenize (%zu bytes)", need);
        r->escaped = q;
        r->cap_escaped = need;
    }
    char *o = r->escaped;
    if (prefix)
        o = mempcpy(o, "\xE2\x96\x81", 3);
    for (size_t i = 0; i < len; i++) {
        if (p[i] == ' ')
            o = mempcpy(o, "\xE2\x96\x81", 3);
        else
            *o++ = p[i];
    }
    return spm_text(r->t->spm, r->escaped, (size_t)(o - r->escaped), &r->cache, &r->merge, &r->ids,
                    e);
}

static int encode_parts(struct run *r, const char *text, size_t len, unsigned flags, struct err *e)
{
    const struct tokenizer *t = r->t;
    struct special_part *part = NULL;
    size_t n_part = 0;
    bool all = flags & TOKENIZER_PARSE_SPECIAL;
    int rc = special_cut(all ? t->all : t->user, text, len, &part, &n_part, e);
    bool after_token = true; /* the text's start counts as one */
    /* A text that spells BOS out has it already. */
    bool bos = flags & TOKENIZER_ADD_SPECIAL && t->v.add_bos;
    if (rc == 0 && bos && !(n_part > 0 && part[0].id == t->v.bos))
        rc = ids_add(&r->ids, t->v.bos, e);
    for (size_t i = 0; rc == 0 && i < n_part; i++) {
        const char *p = text + part[i].off;
        if (part[i].id >= 0)
            rc = ids_add(&r->ids, part[i].id, e);
        else if (t->bpe)
            rc = encode_bpe(r, p, part[i].len, e);
        else
            rc = encode_spm(r, p, part[i].len, t->v.add_space_prefix && after_token, e);
        after_token = part[i].id >= 0;
    }
    free(part);
    return rc;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     int32_t **out, size_t *n_out, struct err *e)
{
    if (len > MAX_TEXT)
        return err_set(e, -ERANGE, "text of %zu bytes: at most %zu", len, MAX_TEXT);
    struct run r = {.t = t};
    bool add = flags & TOKENIZER_ADD_SPECIAL;
    int rc = ids_reserve(&r.ids, len / 4 + 2, e);
    if (rc == 0)
        rc = ids_cache_init(&r.cache, len, e);
    if (rc == 0)
        rc = encode_parts(&r, text, len, flags, e);
    if (rc == 0 && add && t->v.add_eos)
        rc = ids_add(&r.ids, t->v.eos, e);
    if (rc == 0) {
        *out = r.ids.p;
        *n_out = r.ids.n;
        r.ids.p = NULL;
    }
    run_release(&r);
    return rc;
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, bool first,
                            size_t *len)
{
    *len = 0;
    if (id < 0 || (uint32_t)id >= t->v.n)
        return NULL;
    const char *p = t->piece + t->piece_off[id];
    if (!special && t->v.attr[id] & (VOCAB_CONTROL | VOCAB_UNKNOWN))
        return p;
    *len = t->piece_off[id + 1] - t->piece_off[id];
    if (first && t->v.model == VOCAB_SPM && t->v.add_space_prefix && *len > 0 && *p == ' ') {
        p++;
        (*len)--;
    }
    return p;
}

uint32_t tokenizer_n_vocab(const struct tokenizer *t)
{
    return t->v.n;
}

int32_t tokenizer_bos(const struct tokenizer *t)
{
    return t->v.bos;
}

bool tokenizer_adds_bos(const struct tokenizer *t)
{
    return t->v.add_bos;
}

bool tokenizer_is_end(const struct tokenizer *t, int32_t id)
{
    return id >= 0 && (uint32_t)id < t->v.n && t->v.attr[id] & VOCAB_END;
}
