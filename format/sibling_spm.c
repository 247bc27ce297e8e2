/* SentencePiece's scores as merges. llama.cpp joins, again and again, the two neighbours whose joint
 * text is a token of the highest score, of equal ones the leftmost; tokenizers' BPE joins the pair that
 * stands first in a list. The two agree where the list has every pair of tokens that makes a token, by
 * falling score of what it makes, provided that no two tokens that can be made have the same score, and
 * that no single character is missing. Equal scores are taken in one case alone: runs of one character,
 * which the leftmost rule makes grow from the left, one by one. Everything else is refused. */
#include "format/sibling_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define BLANK "\xe2\x96\x81" /* what a blank is before the merging begins */

struct merge {
    double score;
    uint32_t left, right, made, left_len;
};

struct maker {
    struct bpe *b;
    struct merge *m;
    size_t n, cap;
};

static size_t char_len(char c)
{
    uint8_t u = (uint8_t)c;
    return u < 0x80 ? 1 : u < 0xe0 ? 2 : u < 0xf0 ? 3 : 4;
}

static bool has_blank(struct gguf_str s)
{
    return memmem(s.p, s.len, BLANK, strlen(BLANK)) != NULL;
}

/* Can the token's text stand in what is merged? Special ones are taken out before, by their spelling;
 * but a blank becomes U+2581 only after that. */
static bool can_be_made(const struct bpe *b, uint64_t id)
{
    int64_t type = 1;
    if (b->types && !gguf_elem_i64(b->types, id, &type))
        return true;
    bool special = type == TYPE_CONTROL || type == TYPE_USER_DEFINED || type == TYPE_UNKNOWN;
    return !special || has_blank(b->text[id]);
}

static int add_merge(struct maker *k, struct merge m)
{
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 1 << 16;
        struct merge *p = realloc(k->m, cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        k->m = p;
        k->cap = cap;
    }
    k->m[k->n++] = m;
    return 0;
}

/* Every way to make token id of two. */
static int add_splits(struct maker *k, uint32_t id, double score, struct err *e)
{
    struct gguf_str t = k->b->text[id];
    for (size_t i = t.len ? char_len(*t.p) : 0; i < t.len; i += char_len(t.p[i])) {
        struct gguf_str l = {t.p, i}, r = {t.p + i, t.len - i};
        int64_t left = sibling_find_text(k->b, l, NULL), right = sibling_find_text(k->b, r, NULL);
        bool one_l = i == char_len(*t.p), one_r = r.len == char_len(*r.p);
        if ((left >= 0 || one_l) && (right >= 0 || one_r) && (left < 0 || right < 0))
            return sibling_no_file(e, "token %" PRIu32 " is made of a character that is no token",
                                   id);
        if (left < 0 || right < 0)
            continue;
        if (add_merge(k, (struct merge){score, (uint32_t)left, (uint32_t)right, id, (uint32_t)i}) <
            0)
            return -ENOMEM;
    }
    return 0;
}

/* The character that t is a run of; its length in bytes, or 0. */
static size_t run_of(struct gguf_str t)
{
    size_t n = t.len ? char_len(*t.p) : 0;
    if (n == 0 || t.len % n)
        return 0;
    for (size_t i = n; i < t.len; i += n)
        if (memcmp(t.p, t.p + i, n))
            return 0;
    return n;
}

static int cmp_merge(const void *pa, const void *pb)
{
    const struct merge *a = pa, *b = pb;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    if (a->made != b->made)
        return a->made < b->made ? -1 : 1;
    return (a->left_len < b->left_len) - (a->left_len > b->left_len);
}

/* Longest first: what has begun to grow goes on before another begins. */
static int cmp_run(const void *pa, const void *pb)
{
    const struct merge *a = pa, *b = pb;
    return (a->left_len < b->left_len) - (a->left_len > b->left_len);
}

/* m[0..n) have one score and make more than one token: runs of one character, 2, 3, 4 ... long, by
 * steps of one; *kept of them stay. */
static int order_runs(const struct bpe *b, struct merge *m, size_t n, size_t *kept, struct err *e)
{
    struct gguf_str first = b->text[m[0].made];
    size_t len = run_of(first), longest = 0;
    *kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct gguf_str t = b->text[m[i].made];
        if (len == 0 || run_of(t) != len || memcmp(t.p, first.p, len))
            return sibling_no_file(e, "tokens %" PRIu32 " and %" PRIu32 " have the same score",
                                   m[0].made, m[n - 1].made);
        longest = t.len > longest ? t.len : longest;
        if (b->text[m[i].right].len == len)
            m[(*kept)++] = m[i];
    }
    if (*kept + 1 != longest / len)
        return sibling_no_file(e, "runs like token %" PRIu32 " have the same score and gaps",
                               m[0].made);
    qsort(m, *kept, sizeof *m, cmp_run);
    return 0;
}

static int settle_ties(struct maker *k, struct err *e)
{
    size_t n = 0;
    for (size_t i = 0, end; i < k->n; i = end) {
        bool one = true;
        for (end = i; end < k->n && k->m[end].score == k->m[i].score; end++)
            one &= k->m[end].made == k->m[i].made;
        size_t kept = end - i;
        int rc = one ? 0 : order_runs(k->b, k->m + i, end - i, &kept, e);
        if (rc < 0)
            return rc;
        memmove(k->m + n, k->m + i, kept * sizeof *k->m);
        n += kept;
    }
    k->n = n;
    return 0;
}

static int check_bytes(const struct bpe *b, struct err *e)
{
    for (int i = 0; i < 256; i++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", i);
        if (sibling_find_text(b, (struct gguf_str){text, 6}, NULL) < 0)
            return sibling_no_file(e, "there is no token %s", text);
    }
    return 0;
}

bool sibling_is_phi3(const struct gguf *g)
{
    struct gguf_str name = {"", 0};
    gguf_as_str(gguf_find(g, "general.name"), &name);
    for (size_t i = 0; i < name.len; i++)
        if ((name.len - i >= 5 && !strncasecmp(name.p + i, "phi-3", 5)) ||
            (name.len - i >= 4 && !strncasecmp(name.p + i, "phi3", 4)))
            return true;
    return false;
}

int sibling_spm_merges(struct bpe *b, const struct gguf *g, struct err *e)
{
    struct maker k = {.b = b};
    const struct gguf_key *scores = gguf_find(g, "tokenizer.ggml.scores");
    if (!scores || scores->type != GGUF_ARRAY || scores->n != b->n_token)
        return sibling_no_file(e, "tokenizer.ggml.scores is absent or not as long as the tokens");
    b->space_prefix = true;
    gguf_as_bool(gguf_find(g, "tokenizer.ggml.add_space_prefix"), &b->space_prefix);
    int rc = check_bytes(b, e);
    if (rc == 0 && sibling_is_phi3(g))
        rc =
            sibling_no_file(e, "special tokens of a Phi-3 take the ASCII blanks behind them, which "
                               "it cannot say");
    for (uint64_t i = 0; rc == 0 && i < b->n_token; i++) {
        double score;
        if (!gguf_elem_f64(scores, i, &score) || score != score)
            rc = sibling_no_file(e, "the score of token %" PRIu64 " is no number", i);
        else if (can_be_made(b, i))
            rc = add_splits(&k, (uint32_t)i, score, e);
    }
    if (rc == 0 && k.n)
        qsort(k.m, k.n, sizeof *k.m, cmp_merge);
    if (rc == 0)
        rc = settle_ties(&k, e);
    if (rc == 0) {
        b->n_merge = k.n;
        b->pair = calloc(k.n + 1, sizeof *b->pair);
        for (size_t i = 0; b->pair && i < k.n; i++)
            b->pair[i] = (uint64_t)k.m[i].left << 32 | k.m[i].right;
        rc = b->pair ? 0 : -ENOMEM;
    }
    free(k.m);
    return rc == -ENOMEM ? err_set(e, rc, "no memory for merges") : rc;
}
