/* aprtool show, tensors. */
#include "format/aprtool.h"

#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_ARRAY_MAX 64 /* longer arrays are counted, not shown */

struct type_count {
    uint32_t type;
    uint64_t n, bytes, weights;
};

static size_t count_types(const struct tool_file *f, struct type_count *c, size_t cap)
{
    size_t n = 0;
    for (size_t i = 0; i < tool_n_tensor(f); i++) {
        struct tool_tensor t = tool_tensor(f, i);
        size_t k = 0;
        while (k < n && c[k].type != t.type)
            k++;
        if (k == n && n < cap)
            c[n++] = (struct type_count){.type = t.type};
        c[k].n++;
        c[k].bytes += t.size;
        c[k].weights += tool_n_weight(&t);
    }
    return n;
}

static const struct {
    uint16_t bit;
    const char *name;
} flag_names[] = {
    {APR_FLAG_LZ4, "lz4"},
    {APR_FLAG_ZSTD, "zstd"},
    {APR_FLAG_ENCRYPTED, "encrypted"},
    {APR_FLAG_SIGNED, "signed"},
    {APR_FLAG_SHARDED, "sharded"},
    {APR_FLAG_QUANTIZED, "quantized"},
    {0x0040, "filterbank"},
    {0x0080, "model-card"},
    {0x0100, "streaming"},
    {APR_FLAG_HAS_VOCAB, "vocab"},
    {APR_FLAG_ROW_MAJOR, "row-major"},
    {APR_FLAG_COLUMN_MAJOR, "column-major"},
};

static void flags_text(char *dst, size_t cap, uint16_t flags)
{
    size_t at = (size_t)snprintf(dst, cap, "0x%04x", flags);
    for (size_t i = 0; i < sizeof flag_names / sizeof flag_names[0]; i++)
        if (flags & flag_names[i].bit && at < cap)
            at += (size_t)snprintf(dst + at, cap - at, " %s", flag_names[i].name);
}

static uint64_t file_bytes(const struct tool_file *f)
{
    uint64_t n = 0;
    if (f->apr)
        return source_size(f->src);
    for (int k = 0; k < gguf_n_part(f->gguf); k++)
        n += source_size(gguf_part(f->gguf, k));
    return n;
}

/* Text: one table of two columns; metadata keys as they stand in the file. */
static void row(struct table *t, const char *key, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void row(struct table *t, const char *key, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    table_add(t, "%s", key);
    table_add(t, "%s", text);
}

static void show_apr_header(struct table *t, const struct tool_file *f)
{
    const struct apr_header *h = apr_header(f->apr);
    char flags[160];
    flags_text(flags, sizeof flags, h->flags);
    row(t, "format", "APR v%u.%u", h->major, h->minor);
    row(t, "flags", "%s", flags);
    if (h->crc == h->crc_computed)
        row(t, "header CRC", "%08x, right", h->crc);
    else
        row(t, "header CRC", "%08x, should be %08x%s", h->crc, h->crc_computed,
            h->crc ? "" : " (its writer leaves it 0)");
    row(t, "metadata", "%u bytes at %" PRIu64, h->meta_size, h->meta_off);
    row(t, "index", "%u tensor%s at %" PRIu64, h->n_tensor, h->n_tensor == 1 ? "" : "s",
        h->index_off);
    row(t, "data", "from %" PRIu64, h->data_off);
}

static void show_gguf_header(struct table *t, const struct tool_file *f)
{
    const struct gguf *g = f->gguf;
    row(t, "format", "GGUF v%u", gguf_version(g));
    row(t, "parts", "%d", gguf_n_part(g));
    row(t, "alignment", "%u", gguf_alignment(g));
    row(t, "keys", "%zu", gguf_n_key(g));
    row(t, "tensors", "%zu", gguf_n_tensor(g));
    row(t, "data", "from %" PRIu64, gguf_data_start(g, 0));
}

static void add_owned(struct table *t, char *s)
{
    table_add(t, "%s", s ? s : "");
    t->failed |= !s;
    free(s);
}

static int show_text(const struct tool_options *opt, const struct tool_file *f, struct err *e)
{
    struct table t;
    char size[32];
    table_init(&t, NULL, 2, 0);
    row(&t, "file", "%s", f->path);
    tool_size_text(size, file_bytes(f), opt->bytes);
    row(&t, "size", "%s", size);
    if (f->apr)
        show_apr_header(&t, f);
    else
        show_gguf_header(&t, f);

    struct type_count c[64];
    size_t n = count_types(f, c, 64);
    for (size_t i = 0; i < n; i++) {
        tool_size_text(size, c[i].bytes, opt->bytes);
        table_add(&t, "type %s", tool_type_name(c[i].type));
        table_add(&t, "%" PRIu64 " tensor%s, %" PRIu64 " weight%s, %s", c[i].n,
                  c[i].n == 1 ? "" : "s", c[i].weights, c[i].weights == 1 ? "" : "s", size);
    }
    if (f->apr)
        for (const cJSON *m = apr_meta(f->apr)->child; m; m = m->next) {
            table_add_bytes(&t, (struct gguf_str){m->string, strlen(m->string)});
            add_owned(&t, tool_cjson_text(m));
        }
    else
        for (size_t i = 0; i < gguf_n_key(f->gguf); i++) {
            table_add_bytes(&t, gguf_key(f->gguf, i)->name);
            add_owned(&t, tool_gguf_value_text(gguf_key(f->gguf, i)));
        }
    return table_print(&t, e);
}

static void json_apr_header(struct json_out *o, const struct apr_header *h)
{
    json_add_cstr(o, "format", "apr");
    json_key(o, "version");
    json_open(o, '[');
    json_put_u64(o, h->major);
    json_put_u64(o, h->minor);
    json_close(o, ']');
    json_add_u64(o, "flags", h->flags);
    json_key(o, "flag_names");
    json_open(o, '[');
    for (size_t i = 0; i < sizeof flag_names / sizeof flag_names[0]; i++)
        if (h->flags & flag_names[i].bit)
            json_put_cstr(o, flag_names[i].name);
    json_close(o, ']');
    json_add_u64(o, "header_crc", h->crc);
    json_add_bool(o, "header_crc_right", h->crc == h->crc_computed);
    json_add_u64(o, "metadata_offset", h->meta_off);
    json_add_u64(o, "metadata_size", h->meta_size);
    json_add_u64(o, "tensor_index_offset", h->index_off);
    json_add_u64(o, "data_offset", h->data_off);
}

static void json_gguf_header(struct json_out *o, const struct gguf *g)
{
    json_add_cstr(o, "format", "gguf");
    json_add_u64(o, "version", gguf_version(g));
    json_add_u64(o, "alignment", gguf_alignment(g));
    json_key(o, "parts");
    json_open(o, '[');
    for (int k = 0; k < gguf_n_part(g); k++) {
        json_open(o, '{');
        json_add_cstr(o, "path", source_name(gguf_part(g, k)));
        json_add_u64(o, "size", source_size(gguf_part(g, k)));
        json_add_u64(o, "data_offset", gguf_data_start(g, k));
        json_close(o, '}');
    }
    json_close(o, ']');
}

static int show_json(const struct tool_file *f, struct err *e)
{
    struct json_out o;
    tool_json_begin(&o);
    json_add_cstr(&o, "path", f->path);
    json_add_u64(&o, "size", file_bytes(f));
    if (f->apr)
        json_apr_header(&o, apr_header(f->apr));
    else
        json_gguf_header(&o, f->gguf);
    json_add_u64(&o, "n_tensor", tool_n_tensor(f));

    struct type_count c[64];
    size_t n = count_types(f, c, 64);
    json_key(&o, "types");
    json_open(&o, '[');
    for (size_t i = 0; i < n; i++) {
        json_open(&o, '{');
        json_add_cstr(&o, "type", tool_type_name(c[i].type));
        json_add_u64(&o, "tensors", c[i].n);
        json_add_u64(&o, "weights", c[i].weights);
        json_add_u64(&o, "bytes", c[i].bytes);
        json_close(&o, '}');
    }
    json_close(&o, ']');
    json_key(&o, "metadata");
    if (f->apr) {
        json_open(&o, '{');
        for (const cJSON *m = apr_meta(f->apr)->child; m; m = m->next) {
            json_key(&o, m->string);
            tool_json_cjson(&o, m, JSON_ARRAY_MAX);
        }
        json_close(&o, '}');
    } else {
        json_open(&o, '{');
        for (size_t i = 0; i < gguf_n_key(f->gguf); i++) {
            const struct gguf_key *k = gguf_key(f->gguf, i);
            char *name = tool_escape(k->name);
            json_key(&o, name ? name : "?");
            free(name);
            tool_json_gguf_value(&o, k, JSON_ARRAY_MAX);
        }
        json_close(&o, '}');
    }
    return tool_json_end(&o, e);
}

int tool_show(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    (void)n_arg;
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0)
        rc = opt->json ? show_json(&f, &e) : show_text(opt, &f, &e);
    tool_file_close(&f);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}

static void json_tensor(struct json_out *o, const struct tool_tensor *t, bool gguf_order)
{
    json_open(o, '{');
    json_key(o, "name");
    json_put_str(o, t->name.p, t->name.len);
    json_add_cstr(o, "type", tool_type_name(t->type));
    json_key(o, "shape");
    json_open(o, '[');
    for (uint32_t d = 0; d < t->n_dim; d++)
        json_put_u64(o, t->dim[gguf_order ? t->n_dim - 1 - d : d]);
    json_close(o, ']');
    json_key(o, "part");
    json_put_i64(o, t->part);
    json_add_u64(o, "offset", t->off);
    json_add_u64(o, "size", t->size);
    json_close(o, '}');
}

static void table_tensor(struct table *tab, const struct tool_options *opt,
                         const struct tool_tensor *t, bool parts)
{
    char size[32];
    tool_size_text(size, t->size, opt->bytes);
    char *dims = tool_dims_text(t, opt->gguf_order);
    table_add_bytes(tab, t->name);
    table_add(tab, "%s", tool_type_name(t->type));
    add_owned(tab, dims);
    table_add(tab, "%" PRIu64, t->off);
    table_add(tab, "%s", size);
    if (parts)
        table_add(tab, "%d", t->part);
}

int tool_tensors(const struct tool_options *opt, int n_arg, char **arg)
{
    static const char *const head[] = {"NAME", "TYPE", "SHAPE", "OFFSET", "SIZE", "PART"};
    struct err e = {0};
    struct tool_file f;
    if (tool_file_open(&f, arg[0], NULL, &e) < 0)
        return tool_fail(&e);

    bool parts = f.gguf && gguf_n_part(f.gguf) > 1;
    struct table tab;
    struct json_out o;
    table_init(&tab, head, parts ? 6 : 5, 1 << 3 | 1 << 4 | 1 << 5);
    tool_json_begin(&o);
    json_key(&o, "tensors");
    json_open(&o, '[');
    size_t n_shown = 0;
    for (size_t i = 0; i < tool_n_tensor(&f); i++) {
        struct tool_tensor t = tool_tensor(&f, i);
        char *name = strndup(t.name.p, t.name.len);
        bool shown = name && (n_arg < 2 || fnmatch(arg[1], name, 0) == 0);
        free(name);
        if (!shown)
            continue;
        n_shown++;
        if (opt->json)
            json_tensor(&o, &t, opt->gguf_order);
        else
            table_tensor(&tab, opt, &t, parts);
    }
    json_close(&o, ']');
    int rc = 0;
    if (opt->json) {
        rc = tool_json_end(&o, &e);
    } else {
        json_out_release(&o);
        rc = table_print(&tab, &e);
    }
    if (rc == 0 && n_shown == 0 && n_arg > 1)
        rc = err_set(&e, -ENOENT, "%s: no tensor fits '%s'", arg[0], arg[1]);
    tool_file_close(&f);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
