/* aprtool explain: where each value of a .apr comes from, or would come from. */
#include "format/aprtool.h"

#include "format/apr_meta.h"
#include "format/sibling.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum arch_values values_of(const struct tool_options *opt)
{
    return opt->vapr.values == VAPR_VALUES_COMPAT ? ARCH_VALUES_COMPAT : ARCH_VALUES_REFERENCE;
}

/* KEY may be the value's own name or the GGUF key it comes from. */
static bool is_asked(const struct arch_field *d, const char *key)
{
    return !key || strcmp(key, d->name) == 0 || strcmp(key, d->source) == 0;
}

/* The report's texts are JSON values. Null: unknown, or (compat) nothing the Rust stack has. */
static void json_field(struct json_out *o, const struct arch_field *d)
{
    json_open(o, '{');
    json_add_cstr(o, "name", d->name);
    json_key(o, "stamped");
    json_put_raw(o, d->stamped);
    json_add_cstr(o, "origin", arch_origin_name(d->origin));
    json_add_cstr(o, "source", d->source);
    json_key(o, "reference");
    json_put_raw(o, d->reference);
    json_key(o, "compat");
    json_put_raw(o, d->compat[0] ? d->compat : "null");
    json_add_bool(o, "differs", d->differs);
    json_add_bool(o, "mapped", d->mapped);
    json_close(o, '}');
}

/* What generation_config.json would hold by the file alone: its text, or NULL and why (-ENODATA: nothing). */
static char *generation_text(const struct tool_options *opt, const struct gguf *g, struct err *why)
{
    char *text = NULL, *z;
    size_t len = 0;
    if (sibling_generation(g, values_of(opt), NULL, &text, &len, why) < 0)
        return NULL;
    z = strndup(text, len);
    free(text);
    return z;
}

static int print_report_json(const struct tool_options *opt, const struct tool_file *f,
                             const struct arch_report *r, const char *key, int rc,
                             const struct err *why, struct err *e)
{
    struct json_out o;
    tool_json_begin(&o);
    json_add_cstr(&o, "path", f->path);
    json_key(&o, "fields");
    json_open(&o, '[');
    for (size_t i = 0; i < r->n_field; i++)
        if (is_asked(&r->field[i], key))
            json_field(&o, &r->field[i]);
    json_close(&o, ']');
    json_key(&o, "notes");
    json_open(&o, '[');
    for (size_t i = 0; !key && i < r->n_note; i++)
        json_put_cstr(&o, r->note[i]);
    json_close(&o, ']');
    struct err none = {0};
    char *generation = generation_text(opt, f->gguf, &none);
    json_key(&o, "generation_config");
    json_put_raw(&o, generation ? generation : "null");
    free(generation);
    json_key(&o, "error");
    if (rc < 0)
        json_put_cstr(&o, why->msg);
    else
        json_put_null(&o);
    return tool_json_end(&o, e);
}

static void print_generation(const struct tool_options *opt, const struct gguf *g)
{
    struct err why = {0};
    char *text = generation_text(opt, g, &why);
    if (text)
        printf("note\tgeneration_config.json: %s\n", text);
    else if (why.code != -ENODATA)
        printf("note\t%s\n", why.msg);
    free(text);
}

static int print_report_text(const struct tool_options *opt, const struct tool_file *f,
                             const struct arch_report *r, const char *key, struct err *e)
{
    static const char *const head[] = {"FIELD",     "STAMPED", "FROM",   "SOURCE",
                                       "LLAMA.CPP", "RUST",    "DIFFERS"};
    struct table t;
    table_init(&t, head, 7, 0);
    for (size_t i = 0; i < r->n_field; i++) {
        const struct arch_field *d = &r->field[i];
        if (!is_asked(d, key))
            continue;
        const char *cell[] = {d->name,
                              d->stamped,
                              arch_origin_name(d->origin),
                              d->source,
                              d->reference,
                              d->compat[0] ? d->compat : "-",
                              d->differs ? "yes" : "no"};
        for (size_t k = 0; k < 7; k++)
            table_add_bytes(&t, (struct gguf_str){cell[k], strlen(cell[k])});
    }
    int rc = table_print(&t, e);
    for (size_t i = 0; rc == 0 && !key && i < r->n_note; i++) {
        char *s = tool_escape((struct gguf_str){r->note[i], strlen(r->note[i])});
        printf("note\t%s\n", s ? s : r->note[i]);
        free(s);
    }
    if (rc == 0 && !key)
        print_generation(opt, f->gguf);
    return rc;
}

static int explain_gguf(const struct tool_options *opt, const struct tool_file *f, const char *key,
                        struct err *e)
{
    struct arch_config c = {0};
    struct arch_report r = {0};
    struct err why = {0};
    int refused = arch_resolve(f->gguf, values_of(opt), &c, &r, &why);
    bool found = !key;
    for (size_t i = 0; key && i < r.n_field; i++)
        found |= is_asked(&r.field[i], key);
    int rc = opt->json ? print_report_json(opt, f, &r, key, refused, &why, e)
                       : print_report_text(opt, f, &r, key, e);
    if (rc == 0 && refused < 0)
        rc = err_set(e, refused, "%s: %s", f->path, why.msg);
    if (rc == 0 && !found)
        rc = err_set(e, -ENOENT,
                     gguf_find(f->gguf, key) ? "%s: no resolved value comes from the key '%s'"
                                             : "%s: no resolved value is called '%s'",
                     f->path, key);
    arch_report_release(&r);
    arch_config_release(&c);
    return rc;
}

/* Rows of one object of the metadata; a nested one (aprfs.config) is shown member by member. */
static size_t explain_object(struct table *t, struct json_out *o, const cJSON *obj,
                             const char *prefix, const char *key)
{
    size_t n = 0;
    for (const cJSON *m = obj->child; m; m = m->next) {
        char *name = NULL;
        if (asprintf(&name, "%s%s", prefix, m->string) < 0)
            continue;
        if (!*prefix && strcmp(m->string, "aprfs.config") == 0 && cJSON_IsObject(m)) {
            n += explain_object(t, o, m, "aprfs.config.", key);
        } else if (!key || strcmp(key, name) == 0) {
            char *text = tool_cjson_text(m);
            n++;
            table_add_bytes(t, (struct gguf_str){name, strlen(name)});
            table_add(t, "%s", text ? text : "");
            json_key(o, name);
            tool_json_cjson(o, m, 64);
            free(text);
        }
        free(name);
    }
    return n;
}

static int explain_apr(const struct tool_options *opt, const struct tool_file *f, const char *key,
                       struct err *e)
{
    static const char *const head[] = {"KEY", "VALUE"};
    struct table t;
    struct json_out o;
    struct arch_config c = {0};
    struct err why = {0};
    table_init(&t, head, 2, 0);
    tool_json_begin(&o);
    json_add_cstr(&o, "path", f->path);
    json_key(&o, "metadata");
    json_open(&o, '{');
    size_t n = explain_object(&t, &o, apr_meta(f->apr), "", key);
    json_close(&o, '}');
    int incomplete = apr_meta_read(apr_meta(f->apr), &c, &why);
    if (incomplete == 0)
        arch_config_release(&c);
    json_add_bool(&o, "configuration_complete", incomplete == 0);
    json_key(&o, "error");
    if (incomplete < 0)
        json_put_cstr(&o, why.msg);
    else
        json_put_null(&o);
    int rc;
    if (opt->json) {
        rc = tool_json_end(&o, e);
    } else {
        rc = table_print(&t, e);
        if (rc == 0 && incomplete < 0 && !key)
            printf("note\tthe configuration is incomplete: %s\n", why.msg);
    }
    json_out_release(&o);
    table_release(&t);
    if (rc == 0 && n == 0 && key)
        rc = err_set(e, -ENOENT, "%s: no metadata key '%s'", f->path, key);
    return rc;
}

static int explain_extents(const struct tool_options *opt, const struct tool_file *f, struct err *e)
{
    static const char *const head[] = {"OFFSET", "LENGTH", "FROM", "SOURCE OFFSET"};
    static const char *const kind[] = {"head", "part", "zeros", "converted", "checksum"};
    struct vapr *v;
    int rc = vapr_new(&v, f->gguf, &opt->vapr, e);
    if (rc < 0)
        return rc;
    struct table t;
    struct json_out o;
    table_init(&t, head, 4, 1 << 0 | 1 << 1 | 1 << 3);
    tool_json_begin(&o);
    json_add_u64(&o, "size", vapr_size(v));
    json_add_cstr(&o, "layout", vapr_layout(v));
    json_key(&o, "extents");
    json_open(&o, '[');
    for (size_t i = 0; i < vapr_n_seg(v); i++) {
        const struct vseg *s = vapr_seg(v, i);
        bool part = s->kind == VSEG_FILE || s->kind == VSEG_CONV;
        table_add(&t, "%" PRIu64, s->off);
        table_add(&t, "%" PRIu64, s->len);
        if (s->kind == VSEG_CONV)
            table_add(&t, "part %d, %s as F32", s->part, s->type->name);
        else if (s->kind == VSEG_FILE)
            table_add(&t, "part %d", s->part);
        else
            table_add(&t, "%s", kind[s->kind]);
        if (part)
            table_add(&t, "%" PRIu64, s->src_off);
        else
            table_add(&t, "-");
        json_open(&o, '{');
        json_add_cstr(&o, "kind", kind[s->kind]);
        json_add_u64(&o, "offset", s->off);
        json_add_u64(&o, "length", s->len);
        if (part) {
            json_key(&o, "part");
            json_put_i64(&o, s->part);
            json_add_u64(&o, "source_offset", s->src_off);
        }
        json_close(&o, '}');
    }
    json_close(&o, ']');
    rc = opt->json ? tool_json_end(&o, e) : table_print(&t, e);
    json_out_release(&o);
    table_release(&t);
    vapr_free(v);
    return rc;
}

int tool_explain(const struct tool_options *opt, int n_arg, char **arg)
{
    struct err e = {0};
    struct tool_file f;
    const char *key = n_arg > 1 ? arg[1] : NULL;
    if (opt->extents && key)
        return tool_usage("--extents is about the whole file: no KEY");
    int rc = tool_file_open(&f, arg[0], NULL, &e);
    if (rc == 0 && f.apr && (opt->extents || opt->layout_given)) {
        tool_file_close(&f);
        return tool_usage("%s is a .apr: --extents, --profile, --footer and --values are about how "
                          "a .gguf is laid out",
                          arg[0]);
    }
    if (rc == 0 && opt->extents)
        rc = explain_extents(opt, &f, &e);
    else if (rc == 0)
        rc = f.apr ? explain_apr(opt, &f, key, &e) : explain_gguf(opt, &f, key, &e);
    tool_file_close(&f);
    return rc < 0 ? tool_fail(&e) : TOOL_OK;
}
