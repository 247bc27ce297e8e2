/* aprtool cat-tensor: one tensor's bytes, its weights as f32, as text, or as a JSON document. */
#include "format/aprtool.h"

#include "format/bytes.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STEP ((size_t)1 << 20)

static int put(const void *p, size_t len, struct err *e)
{
    if (tool_stop)
        return err_set(e, -EINTR, "interrupted");
    if (fwrite(p, 1, len, stdout) != len)
        return err_set(e, -errno, "stdout: %s", strerror(errno));
    return 0;
}

/* Weights as decimals: one a line, or the elements of a JSON array. */
struct decimals {
    bool json, more;
};

/* JSON has no word for what is not finite: those are strings. */
static int put_decimal(struct decimals *d, const char *text, struct err *e)
{
    char line[48];
    const char *quote = strpbrk(text, "in") ? "\"" : "";
    int n = d->json
                ? snprintf(line, sizeof line, "%s%s%s%s", d->more ? "," : "", quote, text, quote)
                : snprintf(line, sizeof line, "%s\n", text);
    d->more = true;
    return put(line, (size_t)n, e);
}

static int cat_raw(const struct tool_tensor *t, struct err *e)
{
    uint8_t *buf = malloc(STEP);
    int rc = buf ? 0 : err_set(e, -ENOMEM, "no memory for a buffer");
    for (uint64_t at = 0; rc == 0 && at < t->size;) {
        size_t n = t->size - at < STEP ? (size_t)(t->size - at) : STEP;
        rc = source_read(t->src, buf, t->off + at, n, e);
        if (rc == 0)
            rc = put(buf, n, e);
        at += n;
    }
    free(buf);
    return rc;
}

/* Integers and F64 have no f32 form that holds them all: as text they are printed as they are. */
static int cat_plain_text(const struct tool_tensor *t, const struct quant_type *q,
                          struct decimals *d, struct err *e)
{
    uint8_t buf[8 * 512];
    for (uint64_t at = 0; at < t->size;) {
        size_t n = t->size - at < sizeof buf ? (size_t)(t->size - at) : sizeof buf;
        int rc = source_read(t->src, buf, t->off + at, n, e);
        if (rc < 0)
            return rc;
        for (size_t i = 0; i < n; i += q->block_bytes) {
            char line[40];
            if (q->id == QUANT_F64)
                snprintf(line, sizeof line, "%.17g", load_f64(buf + i));
            else if (q->id == QUANT_I8)
                snprintf(line, sizeof line, "%d", (int8_t)buf[i]);
            else if (q->id == QUANT_I16)
                snprintf(line, sizeof line, "%d", (int16_t)load_u16(buf + i));
            else if (q->id == QUANT_I32)
                snprintf(line, sizeof line, "%" PRId32, (int32_t)load_u32(buf + i));
            else
                snprintf(line, sizeof line, "%" PRId64, (int64_t)load_u64(buf + i));
            rc = put_decimal(d, line, e);
            if (rc < 0)
                return rc;
        }
        at += n;
    }
    return 0;
}

/* d is NULL for little-endian f32. */
static int cat_f32(const struct tool_tensor *t, struct decimals *d, struct err *e)
{
    struct tool_reader r;
    size_t cap = STEP / 4, n = 1;
    float *v = malloc(cap * sizeof *v);
    int rc = tool_reader_init(&r, t, e);
    if (rc == 0 && !v)
        rc = err_set(e, -ENOMEM, "no memory for a buffer");
    while (rc == 0 && n > 0) {
        rc = tool_reader_f32(&r, v, cap, &n, e);
        for (size_t i = 0; rc == 0 && i < n; i++) {
            if (d) { /* nine digits read back as the same f32 */
                char line[32];
                snprintf(line, sizeof line, "%.9g", (double)v[i]);
                rc = put_decimal(d, line, e);
            } else {
                uint32_t u;
                memcpy(&u, &v[i], 4);
                store_u32(&v[i], u);
            }
        }
        if (rc == 0 && !d)
            rc = put(v, n * 4, e);
    }
    tool_reader_release(&r);
    free(v);
    return rc;
}

static int cat_decimals(const struct tool_tensor *t, struct decimals *d, struct err *e)
{
    const struct quant_type *q = quant_type(t->type);
    if (q && (q->id == QUANT_F64 || (q->id >= QUANT_I8 && q->id <= QUANT_I64)))
        return cat_plain_text(t, q, d, e);
    return cat_f32(t, d, e);
}

/* The values are written as they are read: a document of any size takes no memory. */
static int cat_json(const char *path, const struct tool_tensor *t, struct err *e)
{
    struct decimals d = {.json = true};
    struct json_out o;
    tool_json_begin(&o);
    json_add_cstr(&o, "path", path);
    json_key(&o, "name");
    json_put_str(&o, t->name.p, t->name.len);
    json_add_cstr(&o, "type", tool_type_name(t->type));
    json_key(&o, "shape");
    json_open(&o, '[');
    for (uint32_t i = 0; i < t->n_dim; i++)
        json_put_u64(&o, t->dim[i]);
    json_close(&o, ']');
    json_key(&o, "values");
    json_open(&o, '[');
    int rc = o.rc < 0 ? err_set(e, o.rc, "JSON output: %s", strerror(-o.rc)) : put(o.p, o.len, e);
    json_out_release(&o);
    if (rc == 0)
        rc = cat_decimals(t, &d, e);
    return rc < 0 ? rc : put("]}\n", 3, e);
}

int tool_cat_tensor(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    struct tool_tensor t;
    struct decimals text = {0};
    (void)n_arg;
    if (opt->json && opt->as_given)
        return tool_usage("--json gives the weights as numbers: no --as");
    if (!opt->json && opt->as != TOOL_AS_TEXT && isatty(STDOUT_FILENO))
        return tool_usage("stdout is a terminal: binary goes to a file or a pipe; or --as text");
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0 && !tool_find_tensor(&f, arg[1], &t))
        rc = err_set(&e, -ENOENT, "%s: no tensor '%s'", arg[0], arg[1]);
    if (rc == 0) {
        if (opt->json)
            rc = cat_json(arg[0], &t, &e);
        else if (opt->as == TOOL_AS_RAW)
            rc = cat_raw(&t, &e);
        else if (opt->as == TOOL_AS_TEXT)
            rc = cat_decimals(&t, &text, &e);
        else
            rc = cat_f32(&t, NULL, &e);
        if (rc < 0)
            err_wrap(&e, "%s: tensor '%s'", arg[0], arg[1]);
    }
    tool_file_close(&f);
    if (rc == -EPIPE)
        return TOOL_FAILED;
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
