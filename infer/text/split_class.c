/* A rule's sets ([..], \p{..}, \s, \S, \d) divide the code points into classes; each class gets a
 * byte, and each set is written again as the bytes of its classes. Two walks over the regexes: the
 * first collects the sets, the second writes. */
#include "infer/text/split_class.h"

#include "infer/text/unicode.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANGE  128 /* DeepSeek's letters are 95 */
#define MAX_SETS   40  /* of one rule, nested ones too */
#define MAX_RANGED 13  /* sets of one rule that name characters beyond ASCII: bits of a signature */
#define REGEX_MAX  16384

struct set {
    bool neg;
    uint8_t kinds; /* 1 << enum unicode_kind */
    int bit;       /* its bit in a signature, -1: it names ASCII only */
    int and;       /* intersected with this set, -1: with none */
    int n_range;
    struct {
        uint32_t lo, hi;
    } range[MAX_RANGE];
};

struct rep { /* a class by one of its members */
    uint32_t cp;
    uint16_t sig; /* kind, then the ranged sets' bits */
};

struct walk {
    const char *re;
    size_t pos;
    struct set *set;
    int n_set, n_ranged;
    bool writing;
    struct rep rep[256];
    int n_rep;
    char *out;
    size_t len;
    struct err *e;
};

static int walk_fail(struct walk *w, const char *what)
{
    return err_set(w->e, -ENOTSUP, "split regex, byte %zu: %s", w->pos, what);
}

/* The code point after a backslash for the escapes that name one; false if it names none. */
static bool escaped_char(struct walk *w, uint32_t *cp)
{
    char c = w->re[w->pos];
    if (c == 'x' && w->re[w->pos + 1] == '{') {
        char *end;
        unsigned long v = strtoul(w->re + w->pos + 2, &end, 16);
        if (*end != '}' || v >= UNICODE_END)
            return false;
        w->pos = (size_t)(end - w->re) + 1;
        *cp = (uint32_t)v;
        return true;
    }
    if ((c >= 'a' && c <= 'z' && c != 'r' && c != 'n' && c != 't') || (c >= 'A' && c <= 'Z') || !c)
        return false;
    w->pos++;
    *cp = c == 'r' ? '\r' : c == 'n' ? '\n' : c == 't' ? '\t' : (uint32_t)c;
    return true;
}

/* \p{L} and the like, \s, \S, \d after the backslash: false if it is none of them. */
static bool escaped_class(struct walk *w, struct set *s)
{
    const char *p = w->re + w->pos;
    if (*p == 's' || *p == 'S') {
        s->kinds |= 1 << UNICODE_SPACE;
        s->neg ^= *p == 'S'; /* not met inside [] */
        w->pos++;
        return true;
    }
    if (*p == 'd') {
        if (s->n_range >= MAX_RANGE)
            return false;
        s->range[s->n_range].lo = '0';
        s->range[s->n_range++].hi = '9';
        w->pos++;
        return true;
    }
    static const char letters[] = "LMNPS";
    const char *k =
        p[0] == 'p' && p[1] == '{' && p[2] && p[3] == '}' ? strchr(letters, p[2]) : NULL;
    if (!k)
        return false;
    s->kinds |= 1 << (UNICODE_LETTER + (k - letters));
    w->pos += 4;
    return true;
}

static int set_new(struct walk *w)
{
    if (w->n_set == MAX_SETS)
        return walk_fail(w, "too many character classes");
    struct set *s = &w->set[w->n_set];
    *s = (struct set){.bit = -1, .and = -1};
    return w->n_set++;
}

static int read_class(struct walk *w, int depth);

/* One item of a class: a character, a range, an escape. */
static int read_item(struct walk *w, struct set *s)
{
    uint32_t lo, hi;
    if (w->re[w->pos] == '\\') {
        w->pos++;
        if (w->re[w->pos] != 'S' && escaped_class(w, s))
            return 0;
        if (!escaped_char(w, &lo))
            return walk_fail(w, "unknown escape in a class");
    } else if ((uint8_t)w->re[w->pos] >= 0x80 || !w->re[w->pos]) {
        return walk_fail(w, "class not closed, or not ASCII");
    } else {
        lo = (uint8_t)w->re[w->pos++];
    }
    hi = lo;
    if (w->re[w->pos] == '-' && w->re[w->pos + 1] != ']') {
        w->pos++;
        if (w->re[w->pos] == '\\') {
            w->pos++;
            if (!escaped_char(w, &hi))
                return walk_fail(w, "range does not end in a character");
        } else {
            hi = (uint8_t)w->re[w->pos++];
        }
    }
    if (hi < lo || s->n_range == MAX_RANGE)
        return walk_fail(w, "range upside down, or too many");
    s->range[s->n_range].lo = lo;
    s->range[s->n_range++].hi = hi;
    if (hi >= 0x80 && s->bit < 0) {
        if (w->n_ranged == MAX_RANGED)
            return walk_fail(w, "too many classes beyond ASCII");
        s->bit = w->n_ranged++;
    }
    return 0;
}

/* A class after its '['; returns its number. */
static int read_class(struct walk *w, int depth)
{
    int id = set_new(w);
    if (id < 0)
        return id;
    struct set *s = &w->set[id];
    if (w->re[w->pos] == '^') {
        s->neg = true;
        w->pos++;
    }
    while (w->re[w->pos] != ']') {
        if (strncmp(w->re + w->pos, "&&[", 3) == 0) {
            if (depth > 0 || s->neg)
                return walk_fail(w, "nested intersection");
            w->pos += 3;
            int and = read_class(w, depth + 1);
            if (and < 0)
                return and;
            s->and = and;
            if (w->re[w->pos] != ']')
                return walk_fail(w, "class goes on after its intersection");
            break;
        }
        int rc = read_item(w, s);
        if (rc < 0)
            return rc;
    }
    w->pos++;
    return id;
}

static bool set_has(const struct walk *w, const struct set *s, const struct rep *r)
{
    bool in = s->kinds >> (r->sig & 7) & 1;
    if (r->cp < 0x80)
        for (int i = 0; i < s->n_range && !in; i++)
            in = s->range[i].lo <= r->cp && r->cp <= s->range[i].hi;
    else if (s->bit >= 0)
        in |= r->sig >> (3 + s->bit) & 1;
    in ^= s->neg;
    return in && s->and >= 0 ? set_has(w, &w->set[s->and ], r) : in;
}

static void put(struct walk *w, const char *text)
{
    w->len += (size_t)snprintf(w->out + w->len, REGEX_MAX - w->len, "%s", text);
    if (w->len >= REGEX_MAX)
        w->len = REGEX_MAX - 1; /* the caller looks for this */
}

static void put_set(struct walk *w, const struct set *s)
{
    bool any = false;
    for (int lo = 0; lo < w->n_rep; lo++) {
        if (!set_has(w, s, &w->rep[lo]))
            continue;
        int hi = lo;
        while (hi + 1 < w->n_rep && set_has(w, s, &w->rep[hi + 1]))
            hi++;
        char buf[32];
        snprintf(buf, sizeof buf, "%s\\x%02x-\\x%02x", any ? "" : "[", (unsigned)lo, (unsigned)hi);
        put(w, buf);
        any = true;
        lo = hi;
    }
    put(w, any ? "]" : "(?!)");
}

/* One atom or mark of syntax from w->pos. */
static int walk_step(struct walk *w)
{
    char c = w->re[w->pos];
    if (c != '[' && c != '\\') {
        char one[2] = {c, 0};
        if ((uint8_t)c >= 0x80)
            return walk_fail(w, "not ASCII");
        w->pos++;
        if (w->writing)
            put(w, one);
        return 0;
    }
    w->pos++;
    int id;
    if (c == '[') {
        id = read_class(w, 0);
    } else {
        uint32_t cp;
        id = set_new(w);
        if (id >= 0 && !escaped_class(w, &w->set[id])) {
            if (!escaped_char(w, &cp) || cp >= 0x80)
                return walk_fail(w, "unknown escape");
            w->set[id].range[0].lo = w->set[id].range[0].hi = cp;
            w->set[id].n_range = 1;
        }
    }
    if (id < 0)
        return id;
    if (w->writing)
        put_set(w, &w->set[id]);
    return 0;
}

static int walk_regex(struct walk *w, const char *re)
{
    w->re = re;
    w->pos = 0;
    while (w->re[w->pos]) {
        int rc = walk_step(w);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The signature of every code point, then a class byte for each signature beyond ASCII. */
static int divide(struct walk *w, uint8_t *of, struct err *e)
{
    uint16_t *sig = malloc(UNICODE_END * sizeof *sig);
    if (!sig)
        return err_set(e, -ENOMEM, "no memory for %d characters' classes", UNICODE_END);
    unicode_kinds(of); /* as a first use of the same bytes */
    for (uint32_t cp = 0; cp < UNICODE_END; cp++)
        sig[cp] = of[cp];
    for (int i = 0; i < w->n_set; i++) {
        const struct set *s = &w->set[i];
        for (int k = 0; s->bit >= 0 && k < s->n_range; k++)
            for (uint32_t cp = s->range[k].lo; cp <= s->range[k].hi; cp++)
                sig[cp] |= (uint16_t)(8u << s->bit);
    }
    uint8_t *byte_of = calloc(1 << 16, 1); /* by signature; 0: not met */
    int rc = byte_of ? 0 : err_set(e, -ENOMEM, "no memory for character classes");
    w->n_rep = 0x80;
    for (uint32_t cp = 0; rc == 0 && cp < UNICODE_END; cp++) {
        if (cp < 0x80) {
            w->rep[cp] = (struct rep){cp, sig[cp]};
            of[cp] = (uint8_t)cp;
        } else if ((sig[cp] & 7) == UNICODE_SPACE) {
            of[cp] = '\v';
        } else {
            uint8_t b = byte_of[sig[cp]];
            if (b == 0 && w->n_rep == 256) {
                rc = err_set(e, -ENOTSUP, "the rule tells more than 128 classes apart");
                break;
            }
            if (b == 0) {
                b = byte_of[sig[cp]] = (uint8_t)w->n_rep;
                w->rep[w->n_rep++] = (struct rep){cp, sig[cp]};
            }
            of[cp] = b;
        }
    }
    free(byte_of);
    free(sig);
    return rc;
}

static int write_regexes(struct walk *w, struct split_class *c, const struct pretok_split *rule)
{
    w->writing = true;
    w->n_set = w->n_ranged = 0; /* the same walk numbers the same sets alike */
    for (int i = 0; i < PRETOK_MAX_SPLIT && rule[i].regex; i++) {
        if (rule[i].run != PRETOK_RUN_REGEX)
            continue;
        w->out = malloc(REGEX_MAX);
        w->len = 0;
        if (!w->out)
            return err_set(w->e, -ENOMEM, "no memory for a split regex");
        c->regex[i] = w->out;
        w->out[0] = 0;
        int rc = walk_regex(w, rule[i].regex);
        if (rc < 0)
            return rc;
        if (w->len == REGEX_MAX - 1)
            return walk_fail(w, "regex too long");
    }
    return 0;
}

int split_class_init(struct split_class *c, const struct pretok_split *rule, struct err *e)
{
    *c = (struct split_class){0};
    struct walk *w = calloc(1, sizeof *w);
    struct set *sets = calloc(MAX_SETS, sizeof *sets);
    c->of = malloc(UNICODE_END);
    int rc = w && sets && c->of ? 0 : err_set(e, -ENOMEM, "no memory for a split rule");
    if (rc < 0)
        goto out;
    w->set = sets;
    w->e = e;
    for (int i = 0; rc == 0 && i < PRETOK_MAX_SPLIT && rule[i].regex; i++)
        if (rule[i].run == PRETOK_RUN_REGEX)
            rc = walk_regex(w, rule[i].regex);
    if (rc == 0)
        rc = divide(w, c->of, e);
    for (int i = 0; rc == 0 && i < w->n_rep; i++)
        c->number[i] = (w->rep[i].sig & 7) == UNICODE_NUMBER;
    if (rc == 0)
        rc = write_regexes(w, c, rule);
out:
    free(w);
    free(sets);
    if (rc < 0)
        split_class_release(c);
    return rc;
}

void split_class_release(struct split_class *c)
{
    free(c->of);
    for (int i = 0; i < PRETOK_MAX_SPLIT; i++)
        free(c->regex[i]);
    *c = (struct split_class){0};
}
