/* Prints what the resolver makes of a GGUF, as one JSON object: for scripts/compare_archs and for
 * looking at a file by hand. --meta prints the metadata it would have in a .apr instead; --rebuild
 * reads that back and names every field that is not the same.
 *   tool_explain [--compat | --meta | --rebuild] FILE */
#include "format/apr_meta.h"
#include "format/arch.h"
#include "format/json.h"

#include <stdio.h>
#include <string.h>

/* The field texts are JSON already; as a string they survive any reader unchanged. */
static void put_text(struct json_out *o, const char *text)
{
    if (*text)
        json_put_cstr(o, text);
    else
        json_put_null(o);
}

static void differs(void *ctx, const char *field, const char *a, const char *b)
{
    printf("%s: %s: %s from the GGUF, %s from the metadata\n", (const char *)ctx, field, a, b);
}

/* Prints the metadata, or compares the configuration rebuilt from it. */
static int meta(const struct gguf *g, const struct arch_config *c, const char *path, bool print,
                struct err *e)
{
    struct arch_config back;
    struct json_out o;
    cJSON *v = NULL;
    json_out_init(&o);
    json_open(&o, '{');
    int rc = apr_meta_write(&o, g, c, e);
    json_close(&o, '}');
    if (!rc && print)
        printf("%.*s\n", (int)o.len, o.p);
    if (!rc && !print)
        rc = json_parse(&v, o.p, o.len, e);
    if (!rc && !print)
        rc = apr_meta_read(v, &back, e);
    if (!rc && !print) {
        rc = arch_config_diff(c, &back, differs, (void *)(uintptr_t)path) ? 1 : 0;
        arch_config_release(&back);
    }
    if (rc < 0)
        fprintf(stderr, "tool_explain: %s: %s\n", path, e->msg);
    cJSON_Delete(v);
    json_out_release(&o);
    return rc;
}

int main(int argc, char **argv)
{
    bool compat = argc == 3 && strcmp(argv[1], "--compat") == 0;
    bool print = argc == 3 && strcmp(argv[1], "--meta") == 0;
    bool rebuild = argc == 3 && strcmp(argv[1], "--rebuild") == 0;
    bool option = compat || print || rebuild;
    struct gguf *g = NULL;
    struct arch_config c;
    struct arch_report r;
    struct err e = {0};
    if (argc != 2 + option) {
        fprintf(stderr, "usage: tool_explain [--compat | --meta | --rebuild] FILE\n");
        return 2;
    }
    if (gguf_open_path(&g, argv[1 + option], &e) < 0 ||
        arch_resolve(g, compat ? ARCH_VALUES_COMPAT : ARCH_VALUES_REFERENCE, &c, &r, &e) < 0) {
        fprintf(stderr, "tool_explain: %s\n", e.msg);
        gguf_close(g);
        return 1;
    }
    if (print || rebuild) {
        int rc = meta(g, &c, argv[2], print, &e);
        arch_report_release(&r);
        arch_config_release(&c);
        gguf_close(g);
        return rc != 0;
    }
    struct json_out o;
    json_out_init(&o);
    json_open(&o, '{');
    json_key(&o, "architecture");
    json_put_cstr(&o, c.arch);
    json_key(&o, "fields");
    json_open(&o, '{');
    for (size_t i = 0; i < r.n_field; i++) {
        struct arch_field *f = &r.field[i];
        json_key(&o, f->name);
        json_open(&o, '{');
        json_key(&o, "reference");
        put_text(&o, f->reference);
        json_key(&o, "compat");
        put_text(&o, f->compat);
        json_key(&o, "stamped");
        put_text(&o, f->stamped);
        json_key(&o, "origin");
        json_put_cstr(&o, arch_origin_name(f->origin));
        json_key(&o, "source");
        json_put_cstr(&o, f->source);
        json_key(&o, "differs");
        json_put_bool(&o, f->differs);
        json_close(&o, '}');
    }
    json_close(&o, '}');
    json_key(&o, "notes");
    json_open(&o, '[');
    for (size_t i = 0; i < r.n_note; i++)
        json_put_cstr(&o, r.note[i]);
    json_close(&o, ']');
    json_close(&o, '}');
    printf("%.*s\n", (int)o.len, o.p);
    int rc = o.rc;
    json_out_release(&o);
    arch_report_release(&r);
    arch_config_release(&c);
    gguf_close(g);
    return rc < 0;
}
