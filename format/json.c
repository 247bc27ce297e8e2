/* JSON: see json.h. Text from outside passes a scanner of our own before cJSON sees it: cJSON takes
 * control bytes for blanks, "01" and "1." for numbers, cuts a number after 63 characters, and its
 * 1.7.15 reads past the end of some incomplete texts. After the scan it only builds the tree, so
 * that its one way to fail is memory. The writer is json_out.c's. */
#include "format/json.h"

#include "format/json_internal.h"

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX_NUMBER 63                 /* characters; cJSON's own buffer */
#define JSON_MAX_INT    9007199254740992.0 /* 2^53: it is also what 2^53 + 1 reads as */
#define SERDE_MAX_DEPTH 127                /* serde_json refuses the 128th bracket */

/* --- UTF-8 --- */

/* Source: Unicode 15, table 3-7. */
size_t json_utf8_len(const uint8_t *p, size_t left)
{
    uint8_t c = p[0];
    if (c < 0x80)
        return 1;
    size_t n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || left < n)
        return 0;
    uint8_t lo = 0x80, hi = 0xbf;
    if (c == 0xe0)
        lo = 0xa0;
    else if (c == 0xed)
        hi = 0x9f;
    else if (c == 0xf0)
        lo = 0x90;
    else if (c == 0xf4)
        hi = 0x8f;
    if (p[1] < lo || p[1] > hi)
        return 0;
    for (size_t i = 2; i < n; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return n;
}

bool json_utf8_valid(const char *p, size_t len)
{
    const uint8_t *s = (const uint8_t *)p;
    for (size_t i = 0; i < len;) {
        size_t n = json_utf8_len(s + i, len - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

/* --- scanner --- */

struct scan {
    const uint8_t *p;
    size_t len, pos;
    struct err *e;
    uint64_t n_value;  /* values met so far, brackets included */
    uint64_t n_key;    /* keys met so far */
    uint64_t want_key; /* stop before this one (counted from 0); UINT64_MAX: never */
    bool found;
    bool serde; /* json_parse_serde()'s rules */
};

static int scan_fail(struct scan *s, size_t at, const char *what)
{
    return err_set(s->e, -EUCLEAN, "JSON, byte %zu: %s", at, what);
}

static void scan_blanks(struct scan *s)
{
    while (s->pos < s->len && (s->p[s->pos] == ' ' || s->p[s->pos] == '\t' ||
                               s->p[s->pos] == '\n' || s->p[s->pos] == '\r'))
        s->pos++;
}

/* Four hex digits at pos; -1 if they are not there. */
static int scan_hex4(const struct scan *s, size_t pos)
{
    if (s->len - pos < 4 || pos > s->len)
        return -1;
    int v = 0;
    for (size_t i = pos; i < pos + 4; i++) {
        uint8_t c = s->p[i];
        int d = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
        if (d < 0)
            return -1;
        v = v * 16 + d;
    }
    return v;
}

/* pos stands behind "\u". */
static int scan_unicode_escape(struct scan *s)
{
    size_t at = s->pos - 2;
    int v = scan_hex4(s, s->pos);
    if (v < 0)
        return scan_fail(s, at, "\\u without four hexadecimal digits");
    if (v == 0 && !s->serde)
        return scan_fail(s, at, "\\u0000 in a string");
    s->pos += 4;
    if (v < 0xd800 || v > 0xdfff)
        return 0;
    if (v > 0xdbff || s->len - s->pos < 6 || s->p[s->pos] != '\\' || s->p[s->pos + 1] != 'u')
        return scan_fail(s, at, "half a surrogate pair");
    v = scan_hex4(s, s->pos + 2);
    if (v < 0xdc00 || v > 0xdfff)
        return scan_fail(s, at, "half a surrogate pair");
    s->pos += 6;
    return 0;
}

static int scan_string(struct scan *s)
{
    size_t start = s->pos++;
    while (s->pos < s->len) {
        uint8_t c = s->p[s->pos];
        if (c == '"') {
            s->pos++;
            return 0;
        }
        if (c < 0x20)
            return scan_fail(s, s->pos, "control byte in a string");
        if (c == '\\') {
            if (s->len - s->pos < 2)
                break;
            uint8_t k = s->p[s->pos + 1];
            s->pos += 2;
            if (k == 'u') {
                int rc = scan_unicode_escape(s);
                if (rc < 0)
                    return rc;
            } else if (k == 0 || !strchr("\"\\/bfnrt", k)) {
                return scan_fail(s, s->pos - 2, "unknown escape");
            }
            continue;
        }
        size_t n = json_utf8_len(s->p + s->pos, s->len - s->pos);
        if (n == 0)
            return scan_fail(s, s->pos, "not UTF-8");
        s->pos += n;
    }
    return scan_fail(s, start, "string without an end");
}

static size_t scan_digits(struct scan *s)
{
    size_t n = 0;
    while (s->pos < s->len && s->p[s->pos] >= '0' && s->p[s->pos] <= '9') {
        s->pos++;
        n++;
    }
    return n;
}

static bool scan_is(const struct scan *s, char c)
{
    return s->pos < s->len && s->p[s->pos] == (uint8_t)c;
}

locale_t json_locale(void)
{
    return newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

static int scan_number(struct scan *s)
{
    size_t at = s->pos;
    bool exponent = false;
    if (scan_is(s, '-'))
        s->pos++;
    if (scan_is(s, '0'))
        s->pos++;
    else if (scan_digits(s) == 0)
        return scan_fail(s, at, "no value here");
    if (scan_is(s, '.')) {
        s->pos++;
        if (scan_digits(s) == 0)
            return scan_fail(s, at, "number without digits after its point");
    }
    if (scan_is(s, 'e') || scan_is(s, 'E')) {
        exponent = true;
        s->pos++;
        if (scan_is(s, '+') || scan_is(s, '-'))
            s->pos++;
        if (scan_digits(s) == 0)
            return scan_fail(s, at, "number without digits in its exponent");
    }
    size_t n = s->pos - at;
    if (n > JSON_MAX_NUMBER)
        return scan_fail(s, at, "number of more than 63 characters");
    if (exponent) {
        char buf[JSON_MAX_NUMBER + 1];
        memcpy(buf, s->p + at, n);
        buf[n] = 0;
        if (!isfinite(strtod_l(buf, NULL, json_locale())))
            return scan_fail(s, at, "number too large for a double");
    }
    return 0;
}

static int scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);
    if (s->len - s->pos < n || memcmp(s->p + s->pos, word, n) != 0)
        return scan_fail(s, s->pos, "no value here");
    s->pos += n;
    return 0;
}

/* A value that is no bracket. */
static int scan_scalar(struct scan *s)
{
    switch (s->p[s->pos]) {
    case '"':
        return scan_string(s);
    case 't':
        return scan_word(s, "true");
    case 'f':
        return scan_word(s, "false");
    case 'n':
        return scan_word(s, "null");
    default:
        return scan_number(s);
    }
}

/* A key and its colon; pos stands before the value afterwards. */
static int scan_key(struct scan *s)
{
    scan_blanks(s);
    if (!scan_is(s, '"'))
        return scan_fail(s, s->pos, "no key here");
    if (s->n_key++ == s->want_key) {
        s->found = true;
        return 0;
    }
    int rc = scan_string(s);
    if (rc < 0)
        return rc;
    scan_blanks(s);
    if (!scan_is(s, ':'))
        return scan_fail(s, s->pos, "no colon after a key");
    s->pos++;
    return 0;
}

/* Behind a value: closes brackets, or takes the comma. *done: the outermost value has ended. */
static int scan_after(struct scan *s, const char *stack, int *depth, bool *done)
{
    while (*depth > 0) {
        scan_blanks(s);
        char open = stack[*depth - 1];
        if (scan_is(s, ',')) {
            s->pos++;
            return open == '{' ? scan_key(s) : 0;
        }
        if (!scan_is(s, open == '{' ? '}' : ']'))
            return scan_fail(s, s->pos, open == '{' ? "no ',' or '}' here" : "no ',' or ']' here");
        s->pos++;
        --*depth;
    }
    *done = true;
    return 0;
}

/* One whole value and blanks around it; iterative, so that depth costs a byte and not a frame. */
static int scan_text(struct scan *s)
{
    char stack[SERDE_MAX_DEPTH];
    int depth = 0, most = s->serde ? SERDE_MAX_DEPTH : JSON_MAX_DEPTH;
    bool done = false;
    while (!done) {
        int rc = 0;
        bool empty = false;
        scan_blanks(s);
        if (s->pos == s->len)
            return scan_fail(s, s->pos, "ended where a value should stand");
        if (++s->n_value > JSON_MAX_VALUES)
            return err_set(s->e, -ERANGE, "JSON, byte %zu: more than %d values", s->pos,
                           JSON_MAX_VALUES);
        char c = (char)s->p[s->pos];
        if (c == '{' || c == '[') {
            if (depth == most)
                return scan_fail(
                    s, s->pos, s->serde ? "nested more than 127 deep" : "nested more than 64 deep");
            stack[depth++] = c;
            s->pos++;
            scan_blanks(s);
            empty = scan_is(s, c == '{' ? '}' : ']');
            if (!empty && c == '{')
                rc = scan_key(s);
            if (rc < 0 || s->found)
                return rc;
            if (!empty)
                continue;
        } else {
            rc = scan_scalar(s);
        }
        if (rc == 0)
            rc = scan_after(s, stack, &depth, &done);
        if (rc < 0 || s->found)
            return rc;
    }
    scan_blanks(s);
    return s->pos == s->len ? 0 : scan_fail(s, s->pos, "text after the value");
}

/* --- duplicate keys --- */

static int item_cmp(const void *a, const void *b)
{
    return strcmp((*(cJSON *const *)a)->string, (*(cJSON *const *)b)->string);
}

/* A member whose name another one of obj has too (*dup; NULL: none). Sorted, not compared pair by
 * pair: hostile objects have 150,000 members, and a hash can be made to collide. */
static int object_dup(const cJSON *obj, const cJSON **dup)
{
    size_t n = 0;
    for (const cJSON *m = obj->child; m; m = m->next)
        n++;
    *dup = NULL;
    if (n < 2)
        return 0;
    const cJSON **v = malloc(n * sizeof *v);
    if (!v)
        return -ENOMEM;
    n = 0;
    for (const cJSON *m = obj->child; m; m = m->next)
        v[n++] = m;
    qsort(v, n, sizeof *v, item_cmp);
    for (size_t i = 1; i < n && !*dup; i++)
        if (strcmp(v[i - 1]->string, v[i]->string) == 0)
            *dup = v[i];
    free(v);
    return 0;
}

/* Recursion is bounded by JSON_MAX_DEPTH. */
static int tree_dup(const cJSON *v, const cJSON **dup)
{
    int rc = cJSON_IsObject(v) ? object_dup(v, dup) : 0;
    for (const cJSON *m = v->child; m && rc == 0 && !*dup; m = m->next)
        if (m->child)
            rc = tree_dup(m, dup);
    return rc;
}

/* Keys stand in the text in the order of this walk: the number of the one that is item. */
static bool key_number(const cJSON *v, const cJSON *item, uint64_t *n)
{
    for (const cJSON *m = v->child; m; m = m->next) {
        if (m == item)
            return true;
        if (m->string)
            ++*n;
        if (key_number(m, item, n))
            return true;
    }
    return false;
}

static int fail_dup(const cJSON *root, const cJSON *dup, const char *p, size_t len, struct err *e)
{
    struct scan s = {.p = (const uint8_t *)p, .len = len};
    key_number(root, dup, &s.want_key);
    scan_text(&s);
    return err_set(e, -EUCLEAN, "JSON, byte %zu: key '%s' stands twice in one object", s.pos,
                   dup->string);
}

static int scan_and_build(cJSON **out, const char *p, size_t len, bool serde, struct err *e)
{
    struct scan s = {
        .p = (const uint8_t *)p, .len = len, .e = e, .want_key = UINT64_MAX, .serde = serde};
    int rc = scan_text(&s);
    if (rc < 0)
        return rc;
    *out = cJSON_ParseWithLengthOpts(p, len, NULL, 0);
    return *out ? 0 : err_set(e, -ENOMEM, "no memory for %zu bytes of JSON", len);
}

int json_parse_serde(cJSON **out, const char *p, size_t len, struct err *e)
{
    return scan_and_build(out, p, len, true, e);
}

int json_parse(cJSON **out, const char *p, size_t len, struct err *e)
{
    cJSON *v = NULL;
    int rc = scan_and_build(&v, p, len, false, e);
    if (rc < 0)
        return rc;
    const cJSON *dup = NULL;
    rc = tree_dup(v, &dup);
    if (rc < 0)
        err_set(e, rc, "no memory for the keys of a JSON object");
    else if (dup)
        rc = fail_dup(v, dup, p, len, e);
    if (rc < 0) {
        cJSON_Delete(v);
        return rc;
    }
    *out = v;
    return 0;
}

/* --- views --- */

const cJSON *json_get(const cJSON *obj, const char *key)
{
    return cJSON_IsObject(obj) ? cJSON_GetObjectItemCaseSensitive(obj, key) : NULL;
}

bool json_int(const cJSON *v, int64_t *out)
{
    double d;
    if (!json_num(v, &d) || d != floor(d) || fabs(d) >= JSON_MAX_INT)
        return false;
    *out = (int64_t)d;
    return true;
}

bool json_uint(const cJSON *v, uint64_t *out)
{
    int64_t i;
    if (!json_int(v, &i) || i < 0)
        return false;
    *out = (uint64_t)i;
    return true;
}

bool json_num(const cJSON *v, double *out)
{
    if (!cJSON_IsNumber(v))
        return false;
    *out = v->valuedouble;
    return true;
}

bool json_bool(const cJSON *v, bool *out)
{
    if (!cJSON_IsBool(v))
        return false;
    *out = cJSON_IsTrue(v);
    return true;
}

const char *json_text(const cJSON *v)
{
    return cJSON_IsString(v) ? v->valuestring : NULL;
}
