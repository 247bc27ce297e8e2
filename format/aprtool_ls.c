/* aprtool ls: the models of folders, mounts and files. GGUF files are found and named by the store
 * layer, as a mount would; .apr files (of a mount, or copied) by their suffix. */
#include "format/aprtool.h"

#include "format/name.h"
#include "format/store.h"
#include "format/store_roots.h"

#include <errno.h>
#include <fts.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

struct ls {
    const struct tool_options *opt;
    struct table t;
    struct json_out o;
    int n_bad;
};

struct ls_row {
    const char *name, *format, *arch, *quant, *role, *status, *why, *source;
    uint64_t size, n_ctx;
    const struct store_entry *entry; /* NULL: no store's */
};

static const char *or_dash(const char *s)
{
    return s && *s ? s : "-";
}

static void add_text(struct table *t, const char *s)
{
    table_add_bytes(t, (struct gguf_str){or_dash(s), strlen(or_dash(s))});
}

/* What only a store knows of a model. */
static void ls_add_entry(struct json_out *o, const struct store_entry *en)
{
    json_add_cstr(o, "store", store_kind_name(en->kind));
    json_add_cstr(o, "revision", en->revision);
    json_key(o, "aliases");
    json_open(o, '[');
    for (size_t i = 0; i < en->n_alias; i++)
        json_put_cstr(o, en->alias[i]);
    json_close(o, ']');
    json_key(o, "parts");
    json_open(o, '[');
    for (int i = 0; i < en->n_part; i++) {
        json_open(o, '{');
        json_add_cstr(o, "path", en->part[i].path);
        json_add_u64(o, "size", en->part[i].id.size);
        json_add_cstr(o, "sha256", en->part[i].sha256);
        json_close(o, '}');
    }
    json_close(o, ']');
}

static void ls_add(struct ls *l, const struct ls_row *r)
{
    if (l->opt->json) {
        const char *const text[][2] = {
            {"name", r->name}, {"format", r->format}, {"arch", r->arch}, {"quant", r->quant},
            {"role", r->role}, {"status", r->status}, {"why", r->why},   {"source", r->source}};
        json_open(&l->o, '{');
        for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
            json_add_cstr(&l->o, text[i][0], text[i][1] ? text[i][1] : "");
        }
        json_add_u64(&l->o, "size", r->size);
        json_add_u64(&l->o, "n_ctx_train", r->n_ctx);
        if (r->entry)
            ls_add_entry(&l->o, r->entry);
        json_close(&l->o, '}');
        return;
    }
    char size[32];
    tool_size_text(size, r->size, l->opt->bytes);
    add_text(&l->t, r->name);
    add_text(&l->t, r->format);
    add_text(&l->t, r->quant);
    table_add(&l->t, "%s", size);
    if (r->n_ctx)
        table_add(&l->t, "%" PRIu64, r->n_ctx);
    else
        table_add(&l->t, "-");
    if (l->opt->all) {
        add_text(&l->t, r->role);
        add_text(&l->t, *r->why ? r->why : r->status);
    }
    add_text(&l->t, r->source);
}

/* What a .apr is quantised to: by the name of general.file_type, which passes through from the GGUF,
 * else the type most of its weights have (a tied head, two names of one tensor, counts twice). */
static const char *apr_quant(const struct tool_file *f)
{
    uint64_t ftype, n[256] = {0};
    if (json_uint(json_get(apr_meta(f->apr), "general.file_type"), &ftype) && name_file_type(ftype))
        return name_file_type(ftype);
    uint32_t best = 0;
    for (size_t i = 0; i < tool_n_tensor(f); i++) {
        struct tool_tensor t = tool_tensor(f, i);
        uint32_t k = t.type == APR_TYPE_OWN_Q4 ? 254 : t.type == APR_TYPE_OWN_Q8 ? 255 : t.type;
        n[k & 255] += tool_n_weight(&t);
    }
    for (uint32_t k = 1; k < 256; k++)
        best = n[k] > n[best] ? k : best;
    return tool_type_name(best == 254 ? APR_TYPE_OWN_Q4 : best == 255 ? APR_TYPE_OWN_Q8 : best);
}

static void ls_apr(struct ls *l, const char *path, const char *name)
{
    struct err e = {0};
    struct tool_file f;
    struct ls_row r = {
        .name = name, .format = "apr", .role = "model", .status = "ok", .why = "", .source = path};
    int rc = tool_file_open(&f, path, NULL, &e);
    if (rc < 0) {
        l->n_bad++;
        fprintf(stderr, "aprtool: %s\n", e.msg);
        r.status = err_name(rc);
        r.why = e.msg;
        if (l->opt->all)
            ls_add(l, &r);
        return;
    }
    const cJSON *meta = f.apr ? apr_meta(f.apr) : NULL;
    if (f.apr) {
        r.size = source_size(f.src);
        r.arch = json_text(json_get(meta, "architecture"));
        r.quant = apr_quant(&f);
        json_uint(json_get(meta, "max_position_embeddings"), &r.n_ctx);
        ls_add(l, &r);
    }
    tool_file_close(&f);
}

/* Is it a mount of ours that shows apr? A copy may have the attribute, but lies on no FUSE. */
static bool is_mounted(const char *apr)
{
    struct statfs fs;
    return statfs(apr, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC &&
           getxattr(apr, "user.aprfs.part_generation", NULL, 0) > 0;
}

/* In a mount every model is a .apr with its .gguf beside it, as a link or (gguf=file) as a file: that is
 * one model. */
static bool is_gguf_of_apr(const struct store_entry *en)
{
    struct stat st;
    const char *path = en->n_part ? en->part[0].path : "";
    size_t n = strlen(path), prefix;
    uint32_t no, count;
    if (n < 5 || strcmp(path + n - 5, ".gguf") != 0 || lstat(path, &st) < 0)
        return false;
    const char *file = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    size_t stem = gguf_shard_name(file, &no, &count, &prefix) ? prefix : strlen(file) - 5;
    char *apr;
    if (asprintf(&apr, "%.*s%.*s.apr", (int)(file - path), path, (int)stem, file) < 0)
        return false;
    bool beside = S_ISLNK(st.st_mode) ? access(apr, F_OK) == 0 : is_mounted(apr);
    free(apr);
    return beside;
}

static void ls_store_entry(struct ls *l, const struct store_entry *en)
{
    char *name = NULL;
    bool model = en->role == STORE_MODEL && en->rc == 0 && !is_gguf_of_apr(en);
    if ((!model && !l->opt->all) ||
        asprintf(&name, "%s/%s/%s", en->publisher, en->model, en->stem) < 0)
        return;
    struct ls_row r = {.name = name,
                       .format = "gguf",
                       .arch = en->arch,
                       .quant = en->quant,
                       .role = store_role_name(en->role),
                       .status = en->rc ? err_name(en->rc) : "ok",
                       .why = en->why ? en->why : "",
                       .source = en->n_part ? en->part[0].path : "",
                       .size = en->src_size,
                       .n_ctx = en->n_ctx_train,
                       .entry = en};
    ls_add(l, &r);
    free(name);
}

static int cmp_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The problems of s on stderr; those of what is listed all the same (no tokenizer.json, a hole in
 * tensor data) with --all only. */
static int ls_problems(const struct ls *l, const struct store *s, const char *path)
{
    size_t n = 0;
    char **listed = calloc(s->n_entry + 1, sizeof *listed);
    if (!listed)
        return -ENOMEM;
    for (size_t i = 0; i < s->n_entry; i++)
        if (s->entry[i].rc == 0)
            listed[n++] = s->entry[i].order;
    if (n)
        qsort(listed, n, sizeof *listed, cmp_text);
    for (size_t i = 0; i < s->n_problem; i++) {
        const struct store_problem *p = &s->problem[i];
        if (!l->opt->all &&
            (p->rc == 0 || (n && bsearch(&p->path, listed, n, sizeof *listed, cmp_text))))
            continue;
        char *name = name_escape(p->path);
        fprintf(stderr, "aprtool: %s: %s\n", name && *name ? name : path, p->why);
        free(name);
    }
    free(listed);
    return 0;
}

static int ls_store(struct ls *l, const char *path, enum store_kind kind, struct err *e)
{
    struct store_options so = {.kind = kind};
    struct store *s;
    int rc = store_scan(&s, path, &so, NULL, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < s->n_entry; i++)
        ls_store_entry(l, &s->entry[i]);
    rc = ls_problems(l, s, path);
    store_free(s);
    return rc < 0 ? err_set(e, rc, "no memory to list problems") : 0;
}

static int fts_by_name(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

/* .apr files below a folder, links to folders not followed; name = the path below it. */
static int ls_aprs(struct ls *l, const char *path, struct err *e)
{
    char *const roots[] = {(char *)path, NULL};
    FTS *fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, fts_by_name);
    if (!fts)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    size_t root_len = strlen(path);
    for (FTSENT *p; (p = fts_read(fts)) && !tool_stop;) {
        size_t n = p->fts_namelen;
        bool hidden = p->fts_level > 0 && p->fts_name[0] == '.';
        if (p->fts_info == FTS_D && (hidden || p->fts_level > STORE_MAX_DEPTH))
            fts_set(fts, p, FTS_SKIP);
        if (p->fts_info == FTS_F && !hidden && n > 4 && strcmp(p->fts_name + n - 4, ".apr") == 0) {
            const char *below = p->fts_path + (p->fts_level > 0 ? root_len : 0);
            char *name = strdup(below + strspn(below, "/"));
            if (name) {
                name[strlen(name) - 4] = 0;
                ls_apr(l, p->fts_path, name);
            }
            free(name);
        }
    }
    fts_close(fts);
    return 0;
}

/* A single .gguf: as its own little store would show it, without scanning its folder. */
static int ls_gguf(struct ls *l, const char *path, struct tool_file *f)
{
    const char *slash = strrchr(path, '/');
    struct ls_row r = {.name = slash ? slash + 1 : path,
                       .format = "gguf",
                       .role = "model",
                       .status = "ok",
                       .why = "",
                       .source = path};
    struct gguf_str arch;
    uint64_t ftype;
    char *arch_text = NULL, *key = NULL;
    if (gguf_as_str(gguf_find(f->gguf, "general.architecture"), &arch)) {
        arch_text = strndup(arch.p, arch.len);
        if (arch_text && asprintf(&key, "%s.context_length", arch_text) >= 0)
            gguf_as_u64(gguf_find(f->gguf, key), &r.n_ctx);
    }
    r.arch = arch_text;
    if (gguf_as_u64(gguf_find(f->gguf, "general.file_type"), &ftype))
        r.quant = name_file_type(ftype);
    for (int k = 0; k < gguf_n_part(f->gguf); k++)
        r.size += source_size(gguf_part(f->gguf, k));
    ls_add(l, &r);
    free(arch_text);
    free(key);
    return 0;
}

static int ls_path(struct ls *l, const char *path, struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode)) {
        int rc = ls_store(l, path, STORE_AUTO, e);
        return rc < 0 ? rc : ls_aprs(l, path, e);
    }
    struct tool_file f;
    int rc = tool_file_open(&f, path, NULL, e);
    if (rc < 0)
        return rc;
    if (f.gguf) {
        rc = ls_gguf(l, path, &f);
        tool_file_close(&f);
        return rc;
    }
    tool_file_close(&f);
    const char *slash = strrchr(path, '/');
    ls_apr(l, path, slash ? slash + 1 : path);
    return 0;
}

/* No path: every store that programs of this user keep. */
static int ls_known(struct ls *l, struct err *e)
{
    struct store_root *r;
    size_t n;
    int rc = store_roots(&r, &n, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < n && !tool_stop; i++) {
        if (r[i].rc < 0)
            fprintf(stderr, "aprtool: %s\n", r[i].why);
        else if (ls_store(l, r[i].path, r[i].kind, e) < 0) {
            l->n_bad++;
            tool_fail(e);
        }
    }
    if (n == 0)
        fputs(
            "aprtool: no store of a program is here (Hugging Face, Ollama, LM Studio, llama.cpp); "
            "name a folder: aprtool ls DIR\n",
            stderr);
    store_roots_free(r, n);
    return 0;
}

int tool_ls(const struct tool_options *opt, int n_arg, char **arg)
{
    static const char *const head[] = {"NAME", "FORMAT", "QUANT", "SIZE", "CTX", "SOURCE"};
    static const char *const head_all[] = {"NAME", "FORMAT", "QUANT",  "SIZE",
                                           "CTX",  "ROLE",   "STATUS", "SOURCE"};
    struct err e = {0};
    struct ls l = {.opt = opt};
    table_init(&l.t, opt->all ? head_all : head, opt->all ? 8 : 6, 1 << 3 | 1 << 4);
    tool_json_begin(&l.o);
    json_key(&l.o, "models");
    json_open(&l.o, '[');
    if (n_arg == 0 && ls_known(&l, &e) < 0) {
        l.n_bad++;
        tool_fail(&e);
    }
    for (int i = 0; i < n_arg && !tool_stop; i++)
        if (ls_path(&l, arg[i], &e) < 0) {
            l.n_bad++;
            tool_fail(&e);
        }
    json_close(&l.o, ']');
    int rc = opt->json ? tool_json_end(&l.o, &e) : table_print(&l.t, &e);
    json_out_release(&l.o);
    if (rc < 0)
        return tool_fail(&e);
    return l.n_bad || tool_stop ? TOOL_FAILED : TOOL_OK;
}
