/* What aprtool prints: tables, sizes, values, JSON documents, the progress bar. See aprtool.h. */
#include "format/aprtool.h"

#include "format/name.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX 96 /* bytes of a string shown to people */

void table_init(struct table *t, const char *const *head, int n_col, unsigned right)
{
    *t = (struct table){.n_col = n_col, .head = head, .right = right};
}

/* Takes s. */
static void table_take(struct table *t, char *s)
{
    if (t->n_cell == t->cap && !t->failed) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        char **p = realloc(t->cell, cap * sizeof *p);
        if (p) {
            t->cell = p;
            t->cap = cap;
        }
    }
    if (!s || t->n_cell == t->cap) {
        free(s);
        t->failed = true;
        return;
    }
    t->cell[t->n_cell++] = s;
}

void table_add(struct table *t, const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    table_take(t, s);
}

void table_add_bytes(struct table *t, struct gguf_str s)
{
    table_take(t, tool_escape(s));
}

/* Columns on a terminal: bytes above 0x7f that continue a character take no room. */
static int text_width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void print_row(const struct table *t, const char *const *cell, const int *width)
{
    for (int c = 0; c < t->n_col; c++) {
        int pad = width ? width[c] - text_width(cell[c]) : 0;
        bool right = t->right >> c & 1, last = c == t->n_col - 1;
        if (c > 0)
            fputs(width ? "  " : "\t", stdout);
        if (right && width)
            printf("%*s", pad, "");
        fputs(cell[c], stdout);
        if (!right && width && !last)
            printf("%*s", pad, "");
    }
    putchar('\n');
}

int table_print(struct table *t, struct err *e)
{
    int *width = NULL;
    size_t n_row = t->n_cell / (size_t)t->n_col;
    const char *const *cell = (const char *const *)t->cell;
    if (isatty(STDOUT_FILENO) && !t->failed) {
        width = calloc((size_t)t->n_col, sizeof *width);
        t->failed = !width;
    }
    for (int c = 0; width && c < t->n_col; c++) {
        width[c] = t->head ? text_width(t->head[c]) : 0;
        for (size_t r = 0; r < n_row; r++) {
            int w = text_width(cell[r * (size_t)t->n_col + (size_t)c]);
            width[c] = w > width[c] ? w : width[c];
        }
    }
    int rc = t->failed ? err_set(e, -ENOMEM, "no memory for a table") : 0;
    if (rc == 0 && t->head)
        print_row(t, t->head, width);
    for (size_t r = 0; rc == 0 && r < n_row; r++)
        print_row(t, cell + r * (size_t)t->n_col, width);
    free(width);
    table_release(t);
    return rc;
}

void table_release(struct table *t)
{
    for (size_t i = 0; i < t->n_cell; i++)
        free(t->cell[i]);
    free(t->cell);
    table_init(t, t->head, t->n_col, t->right);
}

void tool_size_text(char dst[32], uint64_t n, bool exact)
{
    static const char unit[] = "BKMGTPE";
    int u = 0;
    double v = (double)n;
    for (; v >= 1024 && u < 6; u++)
        v /= 1024;
    if (exact || u == 0)
        snprintf(dst, 32, "%" PRIu64, n);
    else
        snprintf(dst, 32, v < 9.95 ? "%.1f%c" : "%.0f%c", v, unit[u]);
}

char *tool_dims_text(const struct tool_tensor *t, bool gguf_order)
{
    char text[APR_MAX_DIMS * 21 + 1] = "";
    size_t at = 0;
    for (uint32_t d = 0; d < t->n_dim; d++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s%" PRIu64, d ? "x" : "",
                               t->dim[gguf_order ? t->n_dim - 1 - d : d]);
    return strdup(t->n_dim ? text : "scalar");
}

char *tool_escape(struct gguf_str s)
{
    return name_escape_bytes(s.p, s.len);
}

/* s in quotes, cut at a character's border and then followed by how long it really is. */
static char *quoted(struct gguf_str s)
{
    size_t len = s.len;
    if (len > TEXT_MAX) {
        len = TEXT_MAX;
        while (len > 0 && ((unsigned char)s.p[len] & 0xc0) == 0x80)
            len--;
    }
    char *esc = tool_escape((struct gguf_str){s.p, len}), *out = NULL;
    int n = -1;
    if (esc && len < s.len)
        n = asprintf(&out, "\"%s\"... (%zu bytes)", esc, s.len);
    else if (esc)
        n = asprintf(&out, "\"%s\"", esc);
    free(esc);
    return n < 0 ? NULL : out;
}

static const char *gguf_type_text(enum gguf_type t)
{
    static const char *const name[] = {"u8",   "i8",  "u16",   "i16", "u32", "i32", "f32",
                                       "bool", "str", "array", "u64", "i64", "f64"};
    return (unsigned)t < sizeof name / sizeof name[0] ? name[t] : "?";
}

void tool_json_begin(struct json_out *o)
{
    json_out_init(o);
    json_open(o, '{');
    json_key(o, "schema");
    json_put_u64(o, 1);
}

int tool_json_end(struct json_out *o, struct err *e)
{
    json_close(o, '}');
    int rc = o->rc < 0 ? err_set(e, o->rc, "JSON output: %s", strerror(-o->rc)) : 0;
    if (rc == 0) {
        fwrite(o->p, 1, o->len, stdout);
        putchar('\n');
    }
    json_out_release(o);
    return rc;
}

void tool_json_gguf_value(struct json_out *o, const struct gguf_key *k, uint64_t max)
{
    uint64_t u;
    int64_t i;
    double d;
    bool b;
    struct gguf_str s;
    if (k->type == GGUF_ARRAY) {
        if (k->n > max) {
            json_open(o, '{');
            json_key(o, "n");
            json_put_u64(o, k->n);
            json_key(o, "type");
            json_put_cstr(o, gguf_type_text(k->elem));
            json_close(o, '}');
            return;
        }
        size_t pos = 0;
        struct gguf_key elem;
        json_open(o, '[');
        while (gguf_next_elem(k, &pos, &elem))
            tool_json_gguf_value(o, &elem, max);
        json_close(o, ']');
    } else if (gguf_as_str(k, &s)) {
        json_put_str(o, s.p, s.len);
    } else if (gguf_as_bool(k, &b)) {
        json_put_bool(o, b);
    } else if (gguf_as_u64(k, &u)) {
        json_put_u64(o, u);
    } else if (gguf_as_i64(k, &i)) {
        json_put_i64(o, i);
    } else if (k->type == GGUF_F32 && gguf_as_f64(k, &d)) {
        json_put_f32(o, (float)d);
    } else if (gguf_as_f64(k, &d)) {
        json_put_f64(o, d);
    } else {
        json_put_null(o);
    }
}

char *tool_gguf_value_text(const struct gguf_key *k)
{
    struct gguf_str s;
    char *text = NULL;
    if (gguf_as_str(k, &s))
        return quoted(s);
    if (k->type == GGUF_ARRAY && (k->n > 16 || k->elem == GGUF_STRING || k->elem == GGUF_ARRAY))
        return asprintf(&text, "[%" PRIu64 " %s]", k->n, gguf_type_text(k->elem)) < 0 ? NULL : text;
    struct json_out o;
    json_out_init(&o);
    tool_json_gguf_value(&o, k, 16);
    if (o.rc == 0)
        text = strndup(o.p, o.len);
    json_out_release(&o);
    return text;
}

void tool_json_cjson(struct json_out *o, const cJSON *v, int max)
{
    if (cJSON_IsArray(v) && cJSON_GetArraySize(v) > max) {
        json_open(o, '{');
        json_key(o, "n");
        json_put_u64(o, (uint64_t)cJSON_GetArraySize(v));
        json_key(o, "type");
        json_put_cstr(o, cJSON_IsString(v->child)   ? "str"
                         : cJSON_IsNumber(v->child) ? "num"
                                                    : "json");
        json_close(o, '}');
    } else if (cJSON_IsArray(v) || cJSON_IsObject(v)) {
        bool obj = cJSON_IsObject(v);
        json_open(o, obj ? '{' : '[');
        for (const cJSON *c = v->child; c; c = c->next) {
            if (obj)
                json_key(o, c->string);
            tool_json_cjson(o, c, max);
        }
        json_close(o, obj ? '}' : ']');
    } else if (cJSON_IsString(v)) {
        json_put_cstr(o, v->valuestring);
    } else if (cJSON_IsBool(v)) {
        json_put_bool(o, cJSON_IsTrue(v));
    } else if (cJSON_IsNumber(v)) {
        double d = v->valuedouble;
        if (d == floor(d) && fabs(d) <= 0x1p53)
            json_put_i64(o, (int64_t)d);
        else
            json_put_f64(o, d);
    } else {
        json_put_null(o);
    }
}

char *tool_cjson_text(const cJSON *v)
{
    char *text = NULL;
    if (cJSON_IsString(v))
        return quoted((struct gguf_str){v->valuestring, strlen(v->valuestring)});
    int n = cJSON_GetArraySize(v);
    if (cJSON_IsArray(v) && n > 16)
        return asprintf(&text, "[%d %s]", n, cJSON_IsString(v->child) ? "strings" : "values") < 0
                   ? NULL
                   : text;
    struct json_out o;
    json_out_init(&o);
    tool_json_cjson(&o, v, 16);
    if (o.rc == 0)
        text = tool_escape((struct gguf_str){o.p, o.len > 400 ? 400 : o.len});
    json_out_release(&o);
    return text;
}

void progress_init(struct progress *p, const char *what)
{
    const char *term = getenv("TERM");
    *p = (struct progress){.what = what, .last = -1};
    p->on = isatty(STDERR_FILENO) && !(term && strcmp(term, "dumb") == 0);
}

void progress_update(void *progress, uint64_t done, uint64_t total)
{
    struct progress *p = progress;
    int now = total ? (int)((double)done / (double)total * 1000) : 1000;
    if (!p->on || now == p->last)
        return;
    char bar[41], size[32];
    for (int i = 0; i < 40; i++)
        bar[i] = i * 25 < now ? '#' : '.';
    bar[40] = 0;
    tool_size_text(size, done, false);
    fprintf(stderr, "\r%s [%s] %3d%% %s \033[K", p->what, bar, now / 10, size);
    fflush(stderr);
    p->last = now;
}

void progress_end(struct progress *p)
{
    if (p->on && p->last >= 0)
        fputs("\r\033[K", stderr);
    p->last = -1;
}
