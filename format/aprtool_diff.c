/* aprtool diff: what differs between two model files, by name: metadata, then tensors. Two .gguf
 * are compared as they are, two .apr too; of a .gguf and a .apr, the .gguf is seen through the
 * layout that the .apr's metadata names (aprfs.profile, aprfs.values; native, reference if none). */
#include "format/aprtool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEP ((size_t)1 << 20)

struct diff {
    const struct tool_options *opt;
    struct tool_file a, b;
    size_t n_diff;
    struct table t;
    struct json_out o;
    struct progress bar;
    uint64_t done, total;
    uint8_t *buf_a, *buf_b; /* STEP bytes each */
};

/* One difference; what takes over text_a and text_b, NULL means absent on that side. */
static void differs(struct diff *d, const char *kind, struct gguf_str name, char *text_a,
                    char *text_b)
{
    d->n_diff++;
    if (d->opt->json) {
        json_open(&d->o, '{');
        json_add_cstr(&d->o, "kind", kind);
        json_key(&d->o, "name");
        json_put_str(&d->o, name.p, name.len);
        json_key(&d->o, "a");
        text_a ? json_put_cstr(&d->o, text_a) : json_put_null(&d->o);
        json_key(&d->o, "b");
        text_b ? json_put_cstr(&d->o, text_b) : json_put_null(&d->o);
        json_close(&d->o, '}');
    } else {
        table_add(&d->t, "%s", kind);
        table_add_bytes(&d->t, name);
        table_add(&d->t, "%s", text_a ? text_a : "-");
        table_add(&d->t, "%s", text_b ? text_b : "-");
    }
    free(text_a);
    free(text_b);
}

static char *text_of(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static char *text_of(const char *fmt, ...)
{
    char *s;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    return s ? s : strdup("?");
}

/* Puts "[i] " before an element's text, which it takes. */
static char *numbered(uint64_t i, char *text)
{
    char *s = text_of("[%" PRIu64 "] %s", i, text ? text : "?");
    free(text);
    return s;
}

/* --- metadata of two .gguf --------------------------------------------------------------------- */

static bool gguf_value_same(const struct gguf_key *a, const struct gguf_key *b)
{
    return a->type == b->type && a->n == b->n && (a->type != GGUF_ARRAY || a->elem == b->elem) &&
           a->data_len == b->data_len && memcmp(a->data, b->data, a->data_len) == 0;
}

/* Of two arrays alike in type and length, the first element that differs says more than both. */
static void gguf_key_differs(struct diff *d, const struct gguf_key *a, const struct gguf_key *b)
{
    struct gguf_key x, y;
    size_t pa = 0, pb = 0;
    if (a->type == GGUF_ARRAY && b->type == GGUF_ARRAY && a->n == b->n && a->elem == b->elem &&
        a->n > 16)
        for (uint64_t i = 0; gguf_next_elem(a, &pa, &x) && gguf_next_elem(b, &pb, &y); i++)
            if (!gguf_value_same(&x, &y)) {
                differs(d, "metadata", a->name, numbered(i, tool_gguf_value_text(&x)),
                        numbered(i, tool_gguf_value_text(&y)));
                return;
            }
    differs(d, "metadata", a->name, tool_gguf_value_text(a), tool_gguf_value_text(b));
}

static const struct gguf_key *gguf_key_named(const struct gguf *g, struct gguf_str name)
{
    char *s = strndup(name.p, name.len);
    const struct gguf_key *k = s ? gguf_find(g, s) : NULL;
    free(s);
    return k;
}

static void diff_gguf_keys(struct diff *d)
{
    const struct gguf *a = d->a.gguf, *b = d->b.gguf;
    for (size_t i = 0; i < gguf_n_key(a); i++) {
        const struct gguf_key *x = gguf_key(a, i), *y = gguf_key_named(b, x->name);
        if (!y)
            differs(d, "metadata", x->name, tool_gguf_value_text(x), NULL);
        else if (!gguf_value_same(x, y))
            gguf_key_differs(d, x, y);
    }
    for (size_t i = 0; i < gguf_n_key(b); i++) {
        const struct gguf_key *y = gguf_key(b, i);
        if (!gguf_key_named(a, y->name))
            differs(d, "metadata", y->name, NULL, tool_gguf_value_text(y));
    }
}

/* --- metadata of two .apr ---------------------------------------------------------------------- */

/* Exact: cJSON_Compare lets numbers differ by an epsilon. The order of an object's members is no
 * difference. */
static bool json_same(const cJSON *a, const cJSON *b)
{
    if ((a->type & 0xff) != (b->type & 0xff))
        return false;
    if (cJSON_IsNumber(a))
        return a->valuedouble == b->valuedouble;
    if (cJSON_IsString(a))
        return strcmp(a->valuestring, b->valuestring) == 0;
    const cJSON *x = a->child, *y = b->child;
    for (; x && y; x = x->next, y = y->next) {
        const cJSON *with = y;
        if (x->string && strcmp(x->string, y->string) != 0)
            with = json_get(b, x->string);
        if (!with || !json_same(x, with))
            return false;
    }
    return !x && !y; /* equal counts, and keys are unique: nothing in b was missed */
}

static void json_key_differs(struct diff *d, const cJSON *a, const cJSON *b)
{
    struct gguf_str name = {a->string, strlen(a->string)};
    if (cJSON_IsArray(a) && cJSON_IsArray(b) && cJSON_GetArraySize(a) == cJSON_GetArraySize(b)) {
        const cJSON *x = a->child, *y = b->child;
        for (uint64_t i = 0; x && y; i++, x = x->next, y = y->next)
            if (!json_same(x, y)) {
                differs(d, "metadata", name, numbered(i, tool_cjson_text(x)),
                        numbered(i, tool_cjson_text(y)));
                return;
            }
    }
    differs(d, "metadata", name, tool_cjson_text(a), tool_cjson_text(b));
}

static void diff_apr_keys(struct diff *d)
{
    const cJSON *a = apr_meta(d->a.apr), *b = apr_meta(d->b.apr);
    for (const cJSON *x = a->child; x; x = x->next) {
        const cJSON *y = json_get(b, x->string);
        if (!y)
            differs(d, "metadata", (struct gguf_str){x->string, strlen(x->string)},
                    tool_cjson_text(x), NULL);
        else if (!json_same(x, y))
            json_key_differs(d, x, y);
    }
    for (const cJSON *y = b->child; y; y = y->next)
        if (!json_get(a, y->string))
            differs(d, "metadata", (struct gguf_str){y->string, strlen(y->string)}, NULL,
                    tool_cjson_text(y));
    uint16_t fa = apr_header(d->a.apr)->flags, fb = apr_header(d->b.apr)->flags;
    if (fa != fb)
        differs(d, "header", (struct gguf_str){"flags", 5}, text_of("0x%04x", fa),
                text_of("0x%04x", fb));
}

/* --- tensors ----------------------------------------------------------------------------------- */

static int step(struct diff *d, uint64_t n, struct err *e)
{
    d->done += n;
    progress_update(&d->bar, d->done, d->total);
    return tool_stop ? err_set(e, -EINTR, "interrupted") : 0;
}

/* Number of bytes that differ, and the first of them. */
static int bytes_compare(struct diff *d, const struct tool_tensor *a, const struct tool_tensor *b,
                         uint64_t *n_diff, uint64_t *first, struct err *e)
{
    *n_diff = 0;
    for (uint64_t at = 0; at < a->size;) {
        size_t n = a->size - at < STEP ? (size_t)(a->size - at) : STEP;
        int rc = source_read(a->src, d->buf_a, a->off + at, n, e);
        if (rc == 0)
            rc = source_read(b->src, d->buf_b, b->off + at, n, e);
        if (rc == 0)
            rc = step(d, n, e);
        if (rc < 0)
            return rc;
        for (size_t i = 0; memcmp(d->buf_a, d->buf_b, n) != 0 && i < n; i++)
            if (d->buf_a[i] != d->buf_b[i] && !(*n_diff)++)
                *first = at + i;
        at += n;
    }
    return 0;
}

/* Stored in different types: are the weights the same numbers? *same stays false where a type's
 * numbers cannot be read. */
static int weights_compare(struct diff *d, const struct tool_tensor *a, const struct tool_tensor *b,
                           bool *same, struct err *e)
{
    struct tool_reader ra, rb;
    size_t na = 1, nb;
    int rc = tool_reader_init(&ra, a, e);
    if (rc < 0)
        return rc;
    rc = tool_reader_init(&rb, b, e);
    *same = rc == 0 && ra.f32 && rb.f32;
    while (rc == 0 && *same && na > 0) {
        rc = tool_reader_f32(&ra, (float *)d->buf_a, STEP / 4, &na, e);
        if (rc == 0)
            rc = tool_reader_f32(&rb, (float *)d->buf_b, STEP / 4, &nb, e);
        if (rc == 0)
            *same = na == nb && memcmp(d->buf_a, d->buf_b, na * 4) == 0;
        if (rc == 0)
            rc = step(d, 0, e);
    }
    tool_reader_release(&ra);
    tool_reader_release(&rb);
    return rc;
}

static int tensor_compare(struct diff *d, const struct tool_tensor *a, const struct tool_tensor *b,
                          struct err *e)
{
    bool shape = a->n_dim == b->n_dim && memcmp(a->dim, b->dim, sizeof a->dim[0] * a->n_dim) == 0;
    if (!shape)
        differs(d, "shape", a->name, tool_dims_text(a, false), tool_dims_text(b, false));
    int rc = 0;
    if (a->type != b->type) {
        bool same = false;
        if (shape)
            rc = weights_compare(d, a, b, &same, e);
        if (rc == 0)
            differs(d, "type", a->name, text_of("%s", tool_type_name(a->type)),
                    text_of("%s%s", tool_type_name(b->type), same ? ", the same weights" : ""));
    } else if (a->size != b->size) {
        differs(d, "size", a->name, text_of("%" PRIu64, a->size), text_of("%" PRIu64, b->size));
    } else {
        uint64_t n, first = 0;
        rc = bytes_compare(d, a, b, &n, &first, e);
        if (rc == 0 && n)
            differs(d, "bytes", a->name, text_of("first at byte %" PRIu64, first),
                    text_of("%" PRIu64 " of %" PRIu64, n, a->size));
    }
    if (rc < 0)
        err_wrap(e, "tensor '%.*s'", (int)a->name.len, a->name.p);
    return rc;
}

static void tensor_lone(struct diff *d, const struct tool_tensor *t, bool in_a)
{
    char *dims = tool_dims_text(t, false);
    char *text = text_of("%s %s", tool_type_name(t->type), dims ? dims : "");
    free(dims);
    differs(d, "tensor", t->name, in_a ? text : NULL, in_a ? NULL : text);
}

static int diff_tensors(struct diff *d, struct err *e)
{
    const size_t *oa = tool_file_sort(&d->a), *ob = tool_file_sort(&d->b);
    size_t na = tool_n_tensor(&d->a), nb = tool_n_tensor(&d->b), i = 0, k = 0;
    if (!oa || !ob)
        return err_set(e, -ENOMEM, "no memory to sort tensors");
    for (size_t n = 0; n < na; n++)
        d->total += tool_tensor(&d->a, n).size;
    int rc = 0;
    while (rc == 0 && (i < na || k < nb)) {
        struct tool_tensor ta = {0}, tb = {0};
        if (i < na)
            ta = tool_tensor(&d->a, oa[i]);
        if (k < nb)
            tb = tool_tensor(&d->b, ob[k]);
        int c = i == na ? 1 : k == nb ? -1 : tool_name_cmp(ta.name, tb.name);
        if (c == 0)
            rc = tensor_compare(d, &ta, &tb, e);
        else
            tensor_lone(d, c < 0 ? &ta : &tb, c < 0);
        i += c <= 0;
        k += c >= 0;
    }
    return rc;
}

/* The layout a .apr says it has. */
static struct vapr_options layout_of(const struct apr *a)
{
    struct vapr_options o = {.profile = VAPR_NATIVE};
    const char *profile = json_text(json_get(apr_meta(a), "aprfs.profile"));
    const char *values = json_text(json_get(apr_meta(a), "aprfs.values"));
    if (profile && !vapr_profile_parse(profile, &o.profile))
        o.profile = VAPR_NATIVE;
    if (values && strcmp(values, "compat") == 0)
        o.values = VAPR_VALUES_COMPAT;
    return o;
}

static int diff_open(struct diff *d, char **arg, struct err *e)
{
    int rc = tool_file_open(&d->a, arg[0], NULL, e);
    if (rc == 0)
        rc = tool_file_open(&d->b, arg[1], NULL, e);
    if (rc < 0 || !d->a.apr == !d->b.apr)
        return rc;
    struct tool_file *plain = d->a.apr ? &d->b : &d->a;
    struct vapr_options o = layout_of(d->a.apr ? d->a.apr : d->b.apr);
    const char *path = plain->path;
    tool_file_close(plain);
    return tool_file_open(plain, path, &o, e);
}

int tool_diff(const struct tool_options *opt, int n_arg, char **arg)
{
    static const char *const head[] = {"WHAT", "NAME", "A", "B"};
    struct err e = {0};
    struct diff d = {.opt = opt, .buf_a = malloc(STEP), .buf_b = malloc(STEP)};
    (void)n_arg;
    table_init(&d.t, head, 4, 0);
    tool_json_begin(&d.o);
    json_key(&d.o, "differences");
    json_open(&d.o, '[');
    progress_init(&d.bar, "diff");
    int rc = d.buf_a && d.buf_b ? diff_open(&d, arg, &e) : err_set(&e, -ENOMEM, "no memory");
    if (rc == 0) {
        if (d.a.apr)
            diff_apr_keys(&d);
        else
            diff_gguf_keys(&d);
        rc = diff_tensors(&d, &e);
    }
    progress_end(&d.bar);
    json_close(&d.o, ']');
    if (rc == 0 && opt->json)
        rc = tool_json_end(&d.o, &e);
    else if (rc == 0 && d.n_diff)
        rc = table_print(&d.t, &e);
    json_out_release(&d.o);
    table_release(&d.t);
    tool_file_close(&d.a);
    tool_file_close(&d.b);
    free(d.buf_a);
    free(d.buf_b);
    return rc < 0 ? tool_fail(&e) : d.n_diff ? TOOL_FAILED : TOOL_OK;
}
