/* Texts about a store: see store_text.h. */
#include "format/store_text.h"

#include "format/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A growing text; the first failure sticks. */
struct text {
    char *p;
    size_t len, cap;
    int rc;
};

static void put(struct text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (t->rc < 0 || n < 0)
        return;
    if (t->cap - t->len <= (size_t)n) {
        size_t cap = 2 * t->cap + (size_t)n + 256;
        char *p = realloc(t->p, cap);
        if (!p) {
            t->rc = -ENOMEM;
            return;
        }
        t->p = p;
        t->cap = cap;
    }
    va_start(ap, fmt);
    vsnprintf(t->p + t->len, t->cap - t->len, fmt, ap);
    va_end(ap);
    t->len += (size_t)n;
}

static void put_escaped(struct text *t, const char *s)
{
    char *z = name_escape(s);
    if (z)
        put(t, "%s", z);
    else
        t->rc = -ENOMEM;
    free(z);
}

static int finish(struct text *t, char **out, size_t *len, struct err *e)
{
    put(t, "%s", ""); /* an empty text is "", not NULL */
    if (t->rc < 0) {
        free(t->p);
        return err_set(e, t->rc, "no memory for a text");
    }
    *out = t->p;
    *len = t->len;
    return 0;
}

/* ---- extended attributes ---- */

/* What a value is made from. */
struct view {
    const struct store *s;
    const struct store_entry *en;
    const struct store_plan *plan;
};

static void x_source(struct text *t, const struct view *v)
{
    for (int i = 0; i < v->en->n_part; i++) {
        put(t, "%s", i ? "\n" : "");
        put_escaped(t, v->en->part[i].path);
    }
}

/* How a segment looks to a reader of the parts: mem and conv bytes only exist in the mount. */
static bool same_map(const struct vseg *a, const struct vseg *b)
{
    bool fa = a->kind == VSEG_FILE, fb = b->kind == VSEG_FILE;
    if (fa && fb)
        return a->part == b->part && a->src_off + a->len == b->src_off;
    if (fa || fb)
        return false;
    return (a->kind == VSEG_ZERO) == (b->kind == VSEG_ZERO);
}

static void x_extents(struct text *t, const struct view *v)
{
    if (!v->plan)
        return;
    put(t, "aprfs-extents 1");
    for (int i = 0; i < v->en->n_part; i++) {
        const struct source_id *id = &v->en->part[i].id;
        put(t, "\npart %d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " ", i, id->dev, id->ino,
            id->size, id->mtime_ns);
        put_escaped(t, v->en->part[i].path);
    }
    const struct vplan *a = v->plan->plan;
    size_t n = a->n_seg;
    for (size_t i = 0, end; i < n && t->rc == 0; i = end) {
        const struct vseg *first = &a->seg[i];
        uint64_t len = first->len;
        for (end = i + 1; end < n && same_map(&a->seg[end - 1], &a->seg[end]); end++)
            len += a->seg[end].len;
        put(t, "\nmap %" PRIu64 " %" PRIu64 " ", first->off, len);
        if (first->kind == VSEG_FILE)
            put(t, "%d %" PRIu64, first->part, first->src_off);
        else
            put(t, "%s 0", first->kind == VSEG_ZERO ? "zero" : "mem");
    }
}

static void x_sha256(struct text *t, const struct view *v)
{
    for (int i = 0; i < v->en->n_part; i++)
        if (!*v->en->part[i].sha256)
            return; /* all parts or none: the lines are known by their number */
    for (int i = 0; i < v->en->n_part; i++)
        put(t, "%s%s", i ? "\n" : "", v->en->part[i].sha256);
}

static void x_head_sha256(struct text *t, const struct view *v)
{
    char hex[NAME_HEX];
    name_hex(hex, v->en->head_sha256);
    put(t, "%s", hex);
}

static void x_store(struct text *t, const struct view *v)
{
    put(t, "%s", store_kind_name(v->en->kind));
}

static void x_alias(struct text *t, const struct view *v)
{
    for (size_t i = 0; i < v->en->n_alias; i++) {
        put(t, "%s", i ? "\n" : "");
        put_escaped(t, v->en->alias[i]);
    }
}

static void x_revision(struct text *t, const struct view *v)
{
    put_escaped(t, v->en->revision);
}

static void x_arch(struct text *t, const struct view *v)
{
    put_escaped(t, v->en->arch);
}

static void x_quant(struct text *t, const struct view *v)
{
    put(t, "%s", v->en->quant);
}

static void x_n_params(struct text *t, const struct view *v)
{
    put(t, "%" PRIu64, v->en->n_params);
}

static void x_n_ctx_train(struct text *t, const struct view *v)
{
    if (v->en->n_ctx_train)
        put(t, "%" PRIu64, v->en->n_ctx_train);
}

static void x_profile(struct text *t, const struct view *v)
{
    if (v->s->opt.view == STORE_VIEW_APR)
        put(t, "%s", vapr_profile_name(v->s->opt.vapr.profile));
}

static void x_layout(struct text *t, const struct view *v)
{
    if (v->plan)
        put(t, "%s", v->plan->plan->layout);
}

static void x_part_generation(struct text *t, const struct view *v)
{
    for (int i = 0; i < v->en->n_part; i++) {
        const struct source_id *id = &v->en->part[i].id;
        put(t, "%s%" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%" PRId64 ":%" PRId64, i ? "\n" : "", id->dev,
            id->ino, id->size, id->mtime_ns, id->ctime_ns);
    }
}

/* An empty value means that there is nothing to say. */
static const struct {
    const char *name;
    void (*write)(struct text *t, const struct view *v);
} xattrs[] = {
    {"user.aprfs.alias", x_alias},       {"user.aprfs.arch", x_arch},
    {"user.aprfs.extents", x_extents},   {"user.aprfs.head_sha256", x_head_sha256},
    {"user.aprfs.layout", x_layout},     {"user.aprfs.n_ctx_train", x_n_ctx_train},
    {"user.aprfs.n_params", x_n_params}, {"user.aprfs.part_generation", x_part_generation},
    {"user.aprfs.profile", x_profile},   {"user.aprfs.quant", x_quant},
    {"user.aprfs.revision", x_revision}, {"user.aprfs.sha256", x_sha256},
    {"user.aprfs.source", x_source},     {"user.aprfs.store", x_store},
};
#define N_XATTR (sizeof xattrs / sizeof *xattrs)

int store_text_xattr(const struct store *s, const struct store_entry *en,
                     const struct store_plan *plan, const char *name, char **out, size_t *len,
                     struct err *e)
{
    struct view v = {s, en, plan};
    struct text t = {0};
    for (size_t i = 0; i < N_XATTR; i++)
        if (!strcmp(name, xattrs[i].name))
            xattrs[i].write(&t, &v);
    if (t.rc == 0 && t.len == 0) {
        free(t.p);
        return err_set(e, -ENODATA, "no attribute '%s'", name);
    }
    if (t.rc == 0 && t.len > STORE_TEXT_XATTR_MAX) {
        free(t.p);
        return err_set(e, -E2BIG, "'%s' has %zu bytes, an attribute takes %d", name, t.len,
                       STORE_TEXT_XATTR_MAX);
    }
    return finish(&t, out, len, e);
}

int store_text_xattr_list(const struct store *s, const struct store_entry *en,
                          const struct store_plan *plan, char **out, size_t *len, struct err *e)
{
    struct view v = {s, en, plan};
    struct text list = {0};
    for (size_t i = 0; i < N_XATTR && list.rc == 0; i++) {
        struct text t = {0};
        xattrs[i].write(&t, &v);
        if (t.rc < 0)
            list.rc = t.rc;
        if (t.len > 0)
            put(&list, "%s%c", xattrs[i].name, '\0');
        free(t.p);
    }
    return finish(&list, out, len, e);
}

int store_text_extents(const struct store_entry *en, const struct store_plan *plan, char **out,
                       size_t *len, struct err *e)
{
    struct view v = {NULL, en, plan};
    struct text t = {0};
    x_extents(&t, &v);
    put(&t, "\n");
    return finish(&t, out, len, e);
}

/* ---- the files of .aprfs/ ---- */

/* Does dir ("top/publisher/model") name the directory below of a store whose top is that? */
static bool is_dir_of(const char *dir, const char *top, const char *below)
{
    size_t n = strlen(top);
    if (n && (strncmp(dir, top, n) || dir[n] != '/'))
        return false;
    return !strcmp(dir + n + (n > 0), below);
}

static void problem_lines(struct text *t, const struct store_set *set, size_t which,
                          const char *dir)
{
    const struct store *s = set->store[which];
    for (size_t i = 0; i < s->n_problem; i++) {
        const struct store_problem *p = &s->problem[i];
        if (dir && !is_dir_of(dir, store_set_top(set, which), p->dir))
            continue;
        put(t, "%s\t%s%s", p->rc < 0 ? err_name(p->rc) : "WARN",
            set->n > 1 ? set->label[which] : "", set->n > 1 ? "/" : "");
        put_escaped(t, *p->path ? p->path : ".");
        put(t, "\t%s\n", p->why);
    }
}

int store_text_problems(const struct store_set *set, const char *dir, char **out, size_t *len,
                        struct err *e)
{
    struct text t = {0};
    for (size_t i = 0; i < set->n; i++)
        problem_lines(&t, set, i, dir);
    return finish(&t, out, len, e);
}

static void index_parts(struct json_out *o, const struct store_entry *en)
{
    json_key(o, "parts");
    json_open(o, '[');
    for (int i = 0; i < en->n_part; i++) {
        json_open(o, '{');
        json_add_cstr(o, "path", en->part[i].path);
        json_add_u64(o, "size", en->part[i].id.size);
        json_key(o, "sha256");
        if (*en->part[i].sha256)
            json_put_cstr(o, en->part[i].sha256);
        else
            json_put_null(o);
        json_close(o, '}');
    }
    json_close(o, ']');
}

static void index_entry(struct json_out *o, const char *top, const struct store *s,
                        const struct store_entry *en, bool parts)
{
    char path[4 * NAME_SIZE + 64], shard[32] = "";
    json_open(o, '{');
    json_key(o, "path");
    bool model = en->role == STORE_MODEL;
    bool shown = en->rc == 0 && (model || (en->role == STORE_PROJECTOR && parts));
    if (!model && en->n_part > 1) /* the first of its files, as the tree calls it */
        snprintf(shard, sizeof shard, "-%05d-of-%05d", 1, en->n_part);
    snprintf(path, sizeof path, "%s%s%s/%s/%s%s%s", top, *top ? "/" : "", en->publisher, en->model,
             en->stem, shard, model ? store_suffix(&s->opt) : ".gguf");
    if (shown)
        json_put_cstr(o, path);
    else
        json_put_null(o);
    json_key(o, "aliases");
    json_open(o, '[');
    for (size_t i = 0; i < en->n_alias; i++)
        json_put_cstr(o, en->alias[i]);
    json_close(o, ']');
    json_add_cstr(o, "role", store_role_name(en->role));
    json_add_cstr(o, "status", en->rc < 0 ? err_name(en->rc) : "ok");
    json_add_cstr(o, "why", en->why);
    json_add_cstr(o, "store", store_kind_name(en->kind));
    json_add_cstr(o, "arch", en->arch);
    json_add_cstr(o, "quant", en->quant);
    json_add_u64(o, "n_params", en->n_params);
    json_add_u64(o, "n_ctx_train", en->n_ctx_train);
    json_key(o, "size");
    if (en->size)
        json_put_u64(o, en->size);
    else
        json_put_null(o);
    index_parts(o, en);
    json_close(o, '}');
}

int store_text_index(const struct store_set *set, uint64_t generation, bool parts, char **out,
                     size_t *len, struct err *e)
{
    struct json_out o;
    json_out_init(&o);
    json_open(&o, '{');
    json_add_u64(&o, "schema", 1);
    json_add_u64(&o, "generation", generation);
    json_key(&o, "entries");
    json_open(&o, '[');
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->store[i]->n_entry; k++)
            index_entry(&o, store_set_top(set, i), set->store[i], &set->store[i]->entry[k], parts);
    json_close(&o, ']');
    json_close(&o, '}');
    struct text t = {.rc = o.rc};
    put(&t, "%.*s\n", (int)o.len, o.p ? o.p : "");
    json_out_release(&o);
    return finish(&t, out, len, e);
}
