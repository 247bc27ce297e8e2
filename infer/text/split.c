#include "infer/text/split.h"

#include "infer/text/split_class.h"
#include "infer/text/unicode.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define MAX_TEXT ((size_t)1 << 30)

struct split {
    const struct pretok_split *rule;
    struct split_class class;
    pcre2_code *code[PRETOK_MAX_SPLIT];
    bool jit[PRETOK_MAX_SPLIT];
    pcre2_match_context *unbounded; /* the interpreter's: no limit that could end a match early */
};

static int compile(struct split *s, int i, struct err *e)
{
    int code;
    PCRE2_SIZE at;
    s->code[i] = pcre2_compile((PCRE2_SPTR)s->class.regex[i], PCRE2_ZERO_TERMINATED,
                               PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_UTF, &code, &at, NULL);
    if (!s->code[i]) {
        PCRE2_UCHAR msg[128] = "";
        pcre2_get_error_message(code, msg, sizeof msg);
        return err_set(e, -ENOTSUP, "split regex %d, byte %zu: %s", i, (size_t)at, (char *)msg);
    }
    s->jit[i] = pcre2_jit_compile(s->code[i], PCRE2_JIT_COMPLETE) == 0;
    return 0;
}

int split_new(struct split **out, const struct pretok *rule, struct err *e)
{
    struct split *s = calloc(1, sizeof *s);
    int rc = s ? 0 : err_set(e, -ENOMEM, "no memory for a split rule");
    if (rc < 0)
        goto out;
    s->rule = rule->split;
    s->unbounded = pcre2_match_context_create(NULL);
    rc = s->unbounded ? split_class_init(&s->class, rule->split, e)
                      : err_set(e, -ENOMEM, "no memory for a split rule");
    if (rc < 0)
        goto out;
    pcre2_set_match_limit(s->unbounded, UINT32_MAX);
    pcre2_set_depth_limit(s->unbounded, UINT32_MAX);
    pcre2_set_heap_limit(s->unbounded, UINT32_MAX);
    for (int i = 0; rc == 0 && i < PRETOK_MAX_SPLIT && s->rule[i].regex; i++)
        if (s->class.regex[i])
            rc = compile(s, i, e);
out:
    if (rc < 0) {
        err_wrap(e, "pre-tokenizer '%s'", rule->name);
        split_free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void split_free(struct split *s)
{
    if (!s)
        return;
    for (int i = 0; i < PRETOK_MAX_SPLIT; i++)
        pcre2_code_free(s->code[i]);
    pcre2_match_context_free(s->unbounded);
    split_class_release(&s->class);
    free(s);
}

void split_run_release(struct split_run *r)
{
    free(r->norm);
    free(r->row);
    free(r->end);
    free(r->other);
    pcre2_match_data_free(r->match);
    *r = (struct split_run){0};
}

static int grow(void **p, size_t *cap, size_t need, size_t item, struct err *e)
{
    if (need <= *cap)
        return 0;
    size_t n = need + need / 4;
    void *q = realloc(*p, n * item);
    if (!q)
        return err_set(e, -ENOMEM, "no memory to split a text (%zu bytes)", n * item);
    *p = q;
    *cap = n;
    return 0;
}

/* text with U+FFFD for what is no UTF-8 and with overlong forms made short, into r->norm. */
static int normalise(struct split_run *r, const uint8_t *p, size_t len, struct err *e)
{
    int rc = grow((void **)&r->norm, &r->cap_norm, 3 * len, 1, e);
    if (rc < 0)
        return rc;
    size_t n, at = 0;
    for (size_t i = 0; i < len; i += n)
        at += unicode_encode(unicode_decode(p + i, len - i, &n), r->norm + at);
    r->text = r->norm;
    r->len = at;
    return 0;
}

/* The class bytes of r->text; false if it holds what normalise() would change. */
static bool fill_row(const struct split *s, struct split_run *r)
{
    static const uint32_t shortest[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t *p = r->text, *of = s->class.of;
    uint8_t *row = r->row;
    size_t i = 0;
    while (i < r->len) {
        uint64_t eight;
        if (r->len - i >= 8) {
            memcpy(&eight, p + i, 8);
            if ((eight & 0x8080808080808080) == 0) {
                memcpy(row, &eight, 8);
                row += 8;
                i += 8;
                continue;
            }
        }
        size_t n;
        uint32_t cp = unicode_decode(p + i, r->len - i, &n);
        if (cp < shortest[n] || (cp == UNICODE_REPLACEMENT && n == 1))
            return false;
        *row++ = of[cp];
        i += n;
    }
    r->n_row = (size_t)(row - r->row);
    return true;
}

static int match(const struct split *s, int i, struct split_run *r, const uint8_t *p, size_t len,
                 size_t from)
{
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (s->jit[i])
        rc = pcre2_jit_match(s->code[i], p, len, from, 0, r->match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(s->code[i], p, len, from, PCRE2_NO_JIT, r->match, s->unbounded);
    return rc;
}

/* Cuts the piece [lo, hi) of the row; appends ends. */
static int cut_regex(const struct split *s, int i, struct split_run *r, uint32_t lo, uint32_t hi,
                     struct err *e)
{
    const PCRE2_SIZE *hit = pcre2_get_ovector_pointer(r->match);
    const uint8_t *p = r->row + lo;
    size_t len = hi - lo, done = 0;
    while (done < len) {
        int rc = match(s, i, r, p, len, done);
        if (rc == PCRE2_ERROR_NOMATCH)
            break;
        if (rc < 0)
            return err_set(e, -EIO, "split regex %d gave up at character %zu (PCRE2 says %d)", i,
                           lo + done, rc);
        if (hit[1] == hit[0])
            return err_set(e, -EIO, "split regex %d matched nothing at %zu", i, lo + done);
        if (hit[0] > done)
            r->end[r->n_piece++] = lo + (uint32_t)hit[0];
        r->end[r->n_piece++] = lo + (uint32_t)hit[1];
        done = hit[1];
    }
    if (done < len)
        r->end[r->n_piece++] = hi;
    return 0;
}

/* Groups of three from the right, in runs of \p{N} (ascii: of 0-9). What stands before a run stays
 * with its first group, and with \p{N} the run's end is a cut: as the reference does it. */
static void cut_digits(const struct split *s, bool ascii, struct split_run *r, uint32_t lo,
                       uint32_t hi)
{
    uint32_t done = lo;
    for (uint32_t at = lo; at < hi;) {
        uint32_t end = at;
        while (end < hi &&
               (ascii ? r->row[end] >= '0' && r->row[end] <= '9' : s->class.number[r->row[end]]))
            end++;
        uint32_t cut = at + (end - at) % 3;
        if (cut == at && !ascii)
            cut += 3;
        for (; end > at && (ascii ? cut < end : cut <= end); cut += 3)
            if (cut > done)
                r->end[r->n_piece++] = done = cut;
        at = end > at ? end : at + 1;
    }
    if (done < hi)
        r->end[r->n_piece++] = hi;
}

/* Ends counted in characters -> byte offsets in the text. */
static void ends_to_bytes(struct split_run *r)
{
    if (r->n_row == r->len)
        return;
    size_t at = 0, ch = 0;
    for (size_t i = 0; i < r->n_piece; i++) {
        for (; ch < r->end[i]; ch++)
            at += unicode_len(r->text[at]);
        r->end[i] = (uint32_t)at;
    }
}

static int prepare(const struct split *s, struct split_run *r, const char *text, size_t len,
                   struct err *e)
{
    if (len > MAX_TEXT)
        return err_set(e, -ERANGE, "text of %zu bytes: at most %zu", len, MAX_TEXT);
    if (!r->match)
        r->match = pcre2_match_data_create(1, NULL);
    if (!r->match)
        return err_set(e, -ENOMEM, "no memory to split a text");
    r->text = (const uint8_t *)text;
    r->len = len;
    r->n_piece = 0;
    /* A piece has a character at least, and bytes may turn into U+FFFD each: len bounds both. */
    int rc = grow((void **)&r->row, &r->cap_row, len, 1, e);
    if (rc == 0)
        rc = grow((void **)&r->end, &r->cap_end, len, sizeof *r->end, e);
    if (rc == 0)
        rc = grow((void **)&r->other, &r->cap_other, len, sizeof *r->other, e);
    if (rc < 0 || fill_row(s, r))
        return rc;
    rc = normalise(r, (const uint8_t *)text, len, e);
    if (rc < 0)
        return rc;
    size_t n = 0, at = 0;
    for (size_t i = 0; i < r->len; i += n)
        r->row[at++] = s->class.of[unicode_decode(r->text + i, r->len - i, &n)];
    r->n_row = at;
    return 0;
}

int split_text(const struct split *s, struct split_run *r, const char *text, size_t len,
               struct err *e)
{
    int rc = prepare(s, r, text, len, e);
    if (rc < 0 || len == 0)
        return rc;
    r->end[r->n_piece++] = (uint32_t)r->n_row;
    for (int i = 0; i < PRETOK_MAX_SPLIT && s->rule[i].regex; i++) {
        uint32_t *before = r->end;
        size_t n_before = r->n_piece, cap = r->cap_end;
        r->end = r->other;
        r->other = before;
        r->cap_end = r->cap_other;
        r->cap_other = cap;
        r->n_piece = 0;
        uint32_t lo = 0;
        for (size_t k = 0; k < n_before; lo = before[k++]) {
            if (s->rule[i].run == PRETOK_RUN_REGEX)
                rc = cut_regex(s, i, r, lo, before[k], e);
            else
                cut_digits(s, s->rule[i].run == PRETOK_RUN_ASCII_DIGITS, r, lo, before[k]);
            if (rc < 0)
                return rc;
        }
    }
    ends_to_bytes(r);
    return 0;
}
