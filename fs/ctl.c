/* Control files and extended attributes: see ctl.h. */
#include "fs/ctl.h"

#include "format/store_text.h"
#include "fs/compat.h"
#include "fs/index.h"
#include "fs/log.h"
#include "fs/metrics.h"
#include "fs/pinned.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#define PREFIX   "user.aprfs."
#define MAX_TEXT STORE_TEXT_XATTR_MAX

static int text_printf(char **out, size_t *len, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
static int text_printf(char **out, size_t *len, struct err *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(out, fmt, ap);
    va_end(ap);
    if (n < 0) {
        *out = NULL; /* vasprintf leaves it undefined */
        return err_set(e, -ENOMEM, "no memory for a text");
    }
    *len = (size_t)n;
    return 0;
}

/* Appends b (freed) to a. */
static int text_join(char **a, size_t *a_len, char *b, size_t b_len, struct err *e)
{
    char *p = realloc(*a, *a_len + b_len + 1);
    if (p) {
        memcpy(p + *a_len, b, b_len);
        *a = p;
        *a_len += b_len;
        p[*a_len] = '\0';
    }
    free(b);
    return p ? 0 : err_set(e, -ENOMEM, "no memory for a text");
}

/* --- control files ------------------------------------------------------------------------ */

/* The scan's problems and the mount's own; dir NULL: all. */
static int problems(const struct tree *t, const char *dir, char **out, size_t *len, struct err *e)
{
    int rc = store_text_problems(t->scan->set, dir, out, len, e);
    for (size_t i = 0; i < t->n_problem && rc == 0; i++) {
        if (dir && strcmp(dir, t->problem[i].dir) != 0)
            continue;
        char *line = strdup(t->problem[i].line);
        rc = line ? text_join(out, len, line, strlen(line), e)
                  : err_set(e, -ENOMEM, "no memory for a text");
        if (rc < 0) {
            free(*out);
            *out = NULL; /* a handle keeps what it was given, and frees it */
        }
    }
    return rc;
}

/* A copy of s that shares all but the entries' array; NULL: no memory. */
static struct store *store_sketch(const struct store *s)
{
    struct store *copy = malloc(sizeof *copy);
    struct store_entry *en = malloc(s->n_entry ? s->n_entry * sizeof *en : 1);
    if (!copy || !en) {
        free(copy);
        free(en);
        return NULL;
    }
    *copy = *s;
    if (s->n_entry)
        memcpy(en, s->entry, s->n_entry * sizeof *en);
    copy->entry = en;
    return copy;
}

/* The scan's index, with the entries that the mount left out marked as what they are. */
static int index_json(const struct tree *t, bool parts, char **out, size_t *len, struct err *e)
{
    struct store_set set = *t->scan->set;
    int rc = 0;
    set.store = calloc(set.n ? set.n : 1, sizeof(struct store *));
    for (size_t i = 0; set.store && i < set.n && rc == 0; i++)
        rc = (set.store[i] = store_sketch(t->scan->set->store[i])) ? 0 : -ENOMEM;
    for (size_t i = 0; set.store && rc == 0 && i < t->n_problem; i++) {
        struct store_entry *en = &set.store[t->problem[i].store]->entry[t->problem[i].entry];
        en->rc = t->problem[i].rc;
        en->why = t->problem[i].why;
    }
    if (!set.store || rc < 0)
        rc = err_set(e, -ENOMEM, "no memory for an index");
    else
        rc = store_text_index(&set, t->generation, parts, out, len, e);
    for (size_t i = 0; set.store && i < set.n && set.store[i]; i++) {
        free(set.store[i]->entry);
        free(set.store[i]);
    }
    free(set.store);
    return rc;
}

static int stats(struct fs *fs, char **out, size_t *len, struct err *e)
{
    struct watch_stats w;
    struct tiers_stats t;
    watch_get_stats(fs->watch, &w);
    tiers_get_stats(fs->tiers, &t);
    return text_printf(
        out, len, e,
        "reads %" PRIu64 "\nread_bytes %" PRIu64 "\neio %" PRIu64 "\nstale %" PRIu64
        "\nlease_breaks %" PRIu64 "\nopen_files %" PRIu64 "\nopens %" PRIu64 "\nfile_bytes %" PRIu64
        "\nhead_bytes %" PRIu64 "\nconv_bytes %" PRIu64
        "\ncache_mem_bytes %zu\ncache_file_bytes %zu\nnodes %zu\nrss_anon_kib %" PRIu64
        "\nscans %" PRIu64 "\nlast_scan_ms %.0f\nheaders_parsed %" PRIu64 "\nevents %" PRIu64
        "\nevent_overflows %" PRIu64 "\nwatched_directories %u\n",
        atomic_load(&fs->n_read), atomic_load(&fs->n_read_bytes), atomic_load(&fs->n_eio),
        atomic_load(&fs->n_stale), pinned_n_breaks(),
        atomic_load(&fs->env.n_open) + t.open[TIER_1A], atomic_load(&fs->n_open_total),
        atomic_load(&fs->env.file_bytes), atomic_load(&fs->env.mem_bytes),
        atomic_load(&fs->env.conv_bytes), vcache_mem(fs->env.texts) + vcache_mem(fs->env.units),
        vcache_spilled(fs->env.texts), nodes_count(fs->nodes),
        (uint64_t)metrics_proc_kib("RssAnon"), w.n_scan, w.last_scan_ms, w.n_parsed, w.n_event,
        w.n_overflow, w.n_dir);
}

/* A line per store. */
static int stores_text(const struct store_set *set, char **out, size_t *len, struct err *e)
{
    *out = NULL;
    *len = 0;
    int rc = 0;
    for (size_t i = 0; i < set->n && rc == 0; i++) {
        const char *top = store_set_top(set, i);
        char *line = NULL, *root = name_escape(set->store[i]->root);
        size_t n = 0;
        rc = root
                 ? text_printf(&line, &n, e, "store %s, layout %s%s%s\n", root,
                               store_kind_name(set->store[i]->kind), *top ? ", shown in " : "", top)
                 : err_set(e, -ENOMEM, "no memory for a text");
        free(root);
        if (rc == 0)
            rc = text_join(out, len, line, n, e);
    }
    if (rc < 0) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

/* The options that decide what is shown and how, as -o takes them. */
static void options_text(const struct options *o, char *dst, size_t size)
{
    static const char *const cache[] = {
        [CACHE_AUTO] = "auto", [CACHE_ALWAYS] = "always", [CACHE_NEVER] = "never"};
    static const char *const gguf[] = {
        [GGUF_LINK] = "link", [GGUF_FILE] = "file", [GGUF_NONE] = "none"};
    snprintf(dst, size, "ttl=%u,gguf=%s,cache=%s,umask=%04o%s%s%s%s%s%s%s", o->ttl_s, gguf[o->gguf],
             cache[o->cache], (unsigned)o->umask, o->merge ? ",merge" : "",
             o->allow_other ? ",allow_other" : "", o->allow_root ? ",allow_root" : "",
             o->auto_unmount ? ",auto_unmount" : "",
             o->store.resolve == STORE_RESOLVE_BENEATH ? ",resolve=beneath" : "",
             o->store.all_revisions ? ",revisions=all" : "",
             o->store.chat_hint ? ",chat_hint" : "");
}

static int status(struct fs *fs, char **out, size_t *len, struct err *e)
{
    struct watch_stats w;
    char fuse[256], tier[TIERS_DESCRIBE_MAX], options[256], index[2 * 4096];
    struct utsname u;
    watch_get_stats(fs->watch, &w);
    compat_describe(fuse, sizeof fuse);
    tiers_describe(fs->tiers, tier, sizeof tier);
    index_describe(fs->index, index, sizeof index);
    options_text(&fs->opt, options, sizeof options);
    if (uname(&u) < 0)
        snprintf(u.release, sizeof u.release, "unknown");
    struct tree *t = nodes_tree(fs->nodes);
    char *stores = NULL, *cache = fs->cache_dir ? name_escape(fs->cache_dir) : strdup("none");
    size_t n_stores = 0;
    char view[80] = "as gguf";
    if (fs->opt.store.view == STORE_VIEW_APR)
        snprintf(view, sizeof view, "profile %s, values %s, footer %s",
                 vapr_profile_name(fs->opt.store.vapr.profile),
                 fs->opt.store.vapr.values == VAPR_VALUES_COMPAT ? "compat" : "reference",
                 fs->opt.store.vapr.footer == VAPR_FOOTER_CRC ? "crc" : "none");
    int rc = stores_text(t->scan->set, &stores, &n_stores, e);
    if (rc == 0)
        rc = text_printf(out, len, e,
                         "aprfs %s, pid %ld\n%s\nLinux %s\n%s%s\noptions %s\n"
                         "models %zu, generation %" PRIu64 "\nthreads %u\nwatching: %s\n%s\n%s"
                         "cache folder: %s\n%s\nlog lines lost: %" PRIu64 "\n",
                         APRFS_VERSION, (long)getpid(), fuse, u.release, stores ? stores : "", view,
                         options, t->n_model, atomic_load(&fs->generation),
                         fs->opt.single ? 1 : compat_n_threads(), w.how, index, tier,
                         cache ? cache : "?", fs->sandbox.text, log_n_lost());
    free(cache);
    free(stores);
    tree_put(fs->nodes, t);
    return rc;
}

int ctl_text(struct fs *fs, enum node_ctl which, char **out, size_t *len, struct err *e)
{
    struct tree *t;
    int rc = -ENOENT;
    switch (which) {
    case CTL_VERSION:
        return text_printf(out, len, e, "aprfs %s\n", APRFS_VERSION);
    case CTL_STATS:
        return stats(fs, out, len, e);
    case CTL_STATUS:
        return status(fs, out, len, e);
    case CTL_METRICS:
        return metrics_text(fs, out, len, e);
    case CTL_INDEX:
        t = nodes_tree(fs->nodes);
        rc = index_json(t, fs->tree_opt.gguf != GGUF_NONE, out, len, e);
        tree_put(fs->nodes, t);
        return rc;
    case CTL_PROBLEMS:
        t = nodes_tree(fs->nodes);
        rc = problems(t, NULL, out, len, e);
        tree_put(fs->nodes, t);
        return rc;
    case N_CTL:
        break;
    }
    return err_set(e, rc, "no such control file");
}

/* --- extended attributes ------------------------------------------------------------------ */

static int generation(struct fs *fs, char **out, size_t *len, struct err *e)
{
    return text_printf(out, len, e, "%" PRIu64, atomic_load(&fs->generation));
}

static int dir_xattr(struct fs *fs, struct node *n, const char *name, char **out, size_t *len,
                     struct err *e)
{
    if (strcmp(name, "version") == 0)
        return text_printf(out, len, e, "%s", APRFS_VERSION);
    if (strcmp(name, "generation") == 0)
        return generation(fs, out, len, e);
    if (strcmp(name, "problems") != 0)
        return err_set(e, -ENODATA, "no such attribute");
    struct tree *t = nodes_tree(fs->nodes);
    int rc = problems(t, *n->path ? n->path : NULL, out, len, e);
    tree_put(fs->nodes, t);
    if (rc < 0)
        return rc;
    while (*len > 0 && (*out)[*len - 1] == '\n')
        (*out)[--*len] = '\0';
    rc = *len == 0 ? -ENODATA : *len > MAX_TEXT ? -E2BIG : 0;
    if (rc < 0)
        free(*out);
    return rc < 0 ? err_set(e, rc, "problems: %zu bytes", *len) : 0;
}

/* A text of the cache as a value, without a newline at its end. */
static int cached_text(struct fs *fs, struct vfile *vf, enum vfile_text which, char **out,
                       size_t *len, struct err *e)
{
    struct vcache_item *it;
    int rc = vfile_text(vf, which, NULL, &it, e);
    if (rc < 0)
        return rc;
    size_t n = vcache_item_len(it);
    char *p = n > MAX_TEXT || n == 0 ? NULL : malloc(n + 1);
    if (p)
        rc = vcache_item_read(it, p, 0, n, e);
    else if (n == 0)
        rc = err_set(e, -ENODATA, "there is nothing to say");
    else
        rc = n > MAX_TEXT ? err_set(e, -E2BIG, "%zu bytes: whole under .aprfs/extents/", n)
                          : err_set(e, -ENOMEM, "no memory for a value");
    vcache_put(fs->env.texts, it);
    if (rc < 0) {
        free(p);
        return rc;
    }
    while (n > 0 && p[n - 1] == '\n')
        n--;
    p[n] = '\0';
    *out = p;
    *len = n;
    return 0;
}

static int file_xattr(struct fs *fs, struct vfile *vf, const char *name, char **out, size_t *len,
                      struct err *e)
{
    if (strcmp(name, "version") == 0)
        return text_printf(out, len, e, "%s", APRFS_VERSION);
    if (strcmp(name, "generation") == 0)
        return generation(fs, out, len, e);
    if (strcmp(name, "tier") == 0) {
        char tier[256];
        int rc = tiers_text(fs->tiers, vf, compat_granted(), tier, sizeof tier, e);
        return rc < 0 ? rc : text_printf(out, len, e, "%s", tier);
    }
    if (strcmp(name, "extents") == 0)
        return cached_text(fs, vf, VFILE_EXTENTS, out, len, e);
    if (strcmp(name, "layout") == 0)
        return cached_text(fs, vf, VFILE_LAYOUT, out, len, e);
    if (strcmp(name, "crc32") == 0)
        return cached_text(fs, vf, VFILE_CRC32, out, len, e);
    const struct store *st;
    const struct store_entry *en;
    struct scan *s = vfile_entry(vf, &st, &en);
    char full[128];
    snprintf(full, sizeof full, PREFIX "%s", name);
    int rc = store_text_xattr(st, en, NULL, full, out, len, e);
    scan_put(s);
    return rc;
}

int ctl_xattr(struct fs *fs, struct node *n, const char *name, char **out, size_t *len,
              struct err *e)
{
    /* ls -l asks for access lists and labels of every file; told so, it asks once per file system. */
    if (strncmp(name, "user.", 5) != 0)
        return err_set(e, -EOPNOTSUPP, "no attributes but user.*");
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0)
        return err_set(e, -ENODATA, "no such attribute");
    name += sizeof PREFIX - 1;
    if (n->kind == NODE_DIR)
        return dir_xattr(fs, n, name, out, len, e);
    if (n->kind != NODE_APR)
        return err_set(e, -ENODATA, "no such attribute");
    struct vfile *vf = nodes_vfile(fs->nodes, n);
    int rc = file_xattr(fs, vf, name, out, len, e);
    vfile_put(vf);
    return rc;
}

static int add_name(char **out, size_t *len, const char *name, struct err *e)
{
    char *p;
    int n = asprintf(&p, PREFIX "%s", name);
    return n < 0 ? err_set(e, -ENOMEM, "no memory for a list")
                 : text_join(out, len, p, (size_t)n + 1, e);
}

int ctl_xattr_list(struct fs *fs, struct node *n, char **out, size_t *len, struct err *e)
{
    static const char *const own[] = {"version", "generation", "tier", "layout", "extents"};
    *out = NULL;
    *len = 0;
    if (n->kind != NODE_DIR && n->kind != NODE_APR)
        return 0;
    int rc = 0;
    struct vfile *vf = n->kind == NODE_APR ? nodes_vfile(fs->nodes, n) : NULL;
    if (vf) {
        const struct store *st;
        const struct store_entry *en;
        struct scan *s = vfile_entry(vf, &st, &en);
        rc = store_text_xattr_list(st, en, NULL, out, len, e);
        scan_put(s);
        if (rc == 0 && vfile_crc_known(vf))
            rc = add_name(out, len, "crc32", e);
        vfile_put(vf);
    }
    for (size_t i = 0; i < (vf ? 5 : 2) && rc == 0; i++)
        rc = add_name(out, len, own[i], e);
    char *text;
    size_t text_len;
    struct err ignored;
    if (rc == 0 && n->kind == NODE_DIR &&
        dir_xattr(fs, n, "problems", &text, &text_len, &ignored) == 0) {
        free(text);
        rc = add_name(out, len, "problems", e);
    }
    if (rc < 0) {
        free(*out);
        *out = NULL;
    }
    return rc;
}
