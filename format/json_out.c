/* Writing JSON: see json.h. */
#include "format/json.h"

#include "format/json_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_out_init(struct json_out *o)
{
    memset(o, 0, sizeof *o);
}

void json_out_release(struct json_out *o)
{
    if (!o)
        return;
    free(o->p);
    json_out_init(o);
}

/* Room for n more bytes; false, and rc set, if there is none. */
static bool out_room(struct json_out *o, size_t n)
{
    if (o->rc < 0)
        return false;
    if (o->max && n > o->max - o->len) {
        o->rc = -ERANGE;
        return false;
    }
    if (n <= o->cap - o->len)
        return true;
    size_t cap = o->cap ? o->cap : 256;
    while (cap - o->len < n) {
        if (cap > SIZE_MAX / 2) {
            o->rc = -ENOMEM;
            return false;
        }
        cap *= 2;
    }
    char *p = realloc(o->p, cap);
    if (!p) {
        o->rc = -ENOMEM;
        return false;
    }
    o->p = p;
    o->cap = cap;
    return true;
}

static void out_put(struct json_out *o, const char *p, size_t n)
{
    if (n == 0 || !out_room(o, n))
        return;
    memcpy(o->p + o->len, p, n);
    o->len += n;
}

static bool out_in_object(const struct json_out *o)
{
    return o->depth > 0 && o->object >> (o->depth - 1) & 1;
}

/* Before a value: the comma, or the refusal of a value that has no place here. */
static bool out_value(struct json_out *o)
{
    if (o->rc < 0)
        return false;
    if ((out_in_object(o) && !o->keyed) || (o->depth == 0 && o->len > 0)) {
        o->rc = -EINVAL;
        return false;
    }
    if (o->comma && !o->keyed)
        out_put(o, ",", 1);
    o->keyed = false;
    o->comma = true;
    return o->rc == 0;
}

void json_open(struct json_out *o, char bracket)
{
    if (!out_value(o))
        return;
    if (o->depth == JSON_MAX_DEPTH || (bracket != '{' && bracket != '[')) {
        o->rc = -EINVAL;
        return;
    }
    out_put(o, &bracket, 1);
    uint64_t bit = UINT64_C(1) << o->depth++;
    o->object = bracket == '{' ? o->object | bit : o->object & ~bit;
    o->comma = false;
}

void json_close(struct json_out *o, char bracket)
{
    if (o->rc < 0)
        return;
    if (o->depth == 0 || o->keyed || bracket != (out_in_object(o) ? '}' : ']')) {
        o->rc = -EINVAL;
        return;
    }
    out_put(o, &bracket, 1);
    o->depth--;
    o->comma = true;
}

/* The quoted text. Runs of bytes that stand as they are go out in one piece. */
static bool out_quoted(struct json_out *o, const char *p, size_t len)
{
    const uint8_t *s = (const uint8_t *)p;
    bool clean = true;
    size_t run = 0;
    out_put(o, "\"", 1);
    for (size_t i = 0; i < len;) {
        size_t n = s[i] < 0x80 ? 1 : json_utf8_len(s + i, len - i);
        if (n > 0 && s[i] >= 0x20 && s[i] != '"' && s[i] != '\\') {
            i += n;
            continue;
        }
        out_put(o, p + run, i - run);
        char esc[8];
        int m;
        if (n == 0) {
            m = snprintf(esc, sizeof esc, "\xef\xbf\xbd"); /* U+FFFD, one per bad byte */
            clean = false;
        } else if (s[i] >= 0x20) {
            m = snprintf(esc, sizeof esc, "\\%c", s[i]);
        } else {
            const char *at = strchr("\bb\ff\nn\rr\tt", s[i]);
            m = s[i] && at ? snprintf(esc, sizeof esc, "\\%c", at[1])
                           : snprintf(esc, sizeof esc, "\\u%04x", s[i]);
        }
        out_put(o, esc, (size_t)m);
        run = ++i;
    }
    out_put(o, p + run, len - run);
    out_put(o, "\"", 1);
    return clean;
}

void json_key(struct json_out *o, const char *key)
{
    if (o->rc < 0)
        return;
    if (!out_in_object(o) || o->keyed) {
        o->rc = -EINVAL;
        return;
    }
    if (o->comma)
        out_put(o, ",", 1);
    out_quoted(o, key, strlen(key));
    out_put(o, ":", 1);
    o->keyed = true;
}

bool json_put_str(struct json_out *o, const char *p, size_t len)
{
    return out_value(o) ? out_quoted(o, p, len) : json_utf8_valid(p, len);
}

void json_put_cstr(struct json_out *o, const char *s)
{
    json_put_str(o, s, strlen(s));
}

static void out_decimal(struct json_out *o, uint64_t v, bool minus)
{
    char buf[21];
    size_t at = sizeof buf;
    do
        buf[--at] = (char)('0' + v % 10);
    while (v /= 10);
    if (minus)
        buf[--at] = '-';
    if (out_value(o))
        out_put(o, buf + at, sizeof buf - at);
}

void json_put_u64(struct json_out *o, uint64_t v)
{
    out_decimal(o, v, false);
}

void json_put_i64(struct json_out *o, int64_t v)
{
    out_decimal(o, v < 0 ? -(uint64_t)v : (uint64_t)v, v < 0);
}

/* The text of v with as few digits as read back: directly as f32, and through f64 as readers do
 * that know only doubles. from..9 digits always suffice for f32, 17 for f64. */
static int out_shortest(char *buf, size_t cap, double v, bool f32)
{
    int n = 0;
    for (int digits = f32 ? 6 : 15; digits <= (f32 ? 9 : 17); digits++) {
        n = snprintf(buf, cap, "%.*g", digits, v);
        double back = strtod(buf, NULL);
        if (f32 ? (float)back == (float)v && strtof(buf, NULL) == (float)v : back == v)
            break;
    }
    return n;
}

static void out_float(struct json_out *o, double v, bool f32)
{
    if (!isfinite(v)) {
        json_put_null(o);
        return;
    }
    /* Scores of a SentencePiece vocabulary are 262,144 small integers: no printf for those. */
    if (fabs(v) < 1e6 && v == (double)(int64_t)v && !(v == 0 && signbit(v))) {
        json_put_i64(o, (int64_t)v);
        return;
    }
    char buf[40];
    locale_t old = uselocale(json_locale());
    int n = out_shortest(buf, sizeof buf, v, f32);
    uselocale(old);
    if (out_value(o))
        out_put(o, buf, (size_t)n);
}

void json_put_f32(struct json_out *o, float v)
{
    out_float(o, v, true);
}

void json_put_f64(struct json_out *o, double v)
{
    out_float(o, v, false);
}

void json_put_bool(struct json_out *o, bool v)
{
    if (out_value(o))
        out_put(o, v ? "true" : "false", v ? 4 : 5);
}

void json_put_null(struct json_out *o)
{
    if (out_value(o))
        out_put(o, "null", 4);
}

void json_put_raw(struct json_out *o, const char *json)
{
    if (out_value(o))
        out_put(o, json, strlen(json));
}

void json_add_cstr(struct json_out *o, const char *key, const char *s)
{
    json_key(o, key);
    json_put_cstr(o, s);
}

void json_add_u64(struct json_out *o, const char *key, uint64_t v)
{
    json_key(o, key);
    json_put_u64(o, v);
}

void json_add_bool(struct json_out *o, const char *key, bool v)
{
    json_key(o, key);
    json_put_bool(o, v);
}

void json_add_null(struct json_out *o, const char *key)
{
    json_key(o, key);
    json_put_null(o);
}
