/* Ollama's store.
 *
 *   manifests/<host>/<namespace>/<model>/<tag>      JSON: format/ollama_manifest.h
 *   manifests-v2/<host>/<namespace>/<model>/<tag>   since autumn 2026: a link to
 *                                                   ../../../../blobs/sha256-<hex>, or the text
 *   blobs/sha256-<hex>                              old stores: sha256:<hex>
 *   blobs/sha256-<hex>-partial[-<N>]                arriving; no name leads there
 *
 * A name in both trees is manifests-v2's, as for Ollama itself. Nothing here follows a link but that
 * one, and that one is read, not followed: every file is opened by STORE_HOW_STRICT. */
#include "format/ollama_manifest.h"
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define N_LEVEL  4
#define LINK_WAY "../../../../blobs/"

struct scan {
    struct store_build *b;
    const char *tree; /* "manifests-v2" or "manifests" */
    char *part[N_LEVEL];
    char **seen; /* names that manifests-v2 has: "host/namespace/model/tag", host folded */
    size_t n_seen, cap_seen;
};

/* A text read whole. */
struct text {
    char *p;
    size_t len;
    char sha256[OLLAMA_HEX_SIZE];
};

static bool is_dir(int fd, const char *name)
{
    struct stat st;
    return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
}

bool store_detect_ollama(int root_fd, const char *root)
{
    (void)root;
    return is_dir(root_fd, "blobs") &&
           (is_dir(root_fd, "manifests") || is_dir(root_fd, "manifests-v2"));
}

/* ---- reading ---- */

static int digest_text(struct text *t, struct err *e)
{
    uint8_t id[NAME_ID_SIZE];
    if (!EVP_Digest(t->p, t->len, id, NULL, EVP_sha256(), NULL))
        return err_set(e, -ENOMEM, "no memory for a digest");
    name_hex(t->sha256, id);
    return 0;
}

/* Takes fd. */
static int read_all(struct text *t, int fd, uint64_t size, struct err *e)
{
    int rc = 0;
    if (size > OLLAMA_MANIFEST_MAX)
        rc = err_set(e, -ERANGE, "%" PRIu64 " bytes, at most 1 MiB is read", size);
    else if (!(t->p = malloc((size_t)size + 1)))
        rc = err_set(e, -ENOMEM, "no memory for %" PRIu64 " bytes", size);
    while (rc == 0 && t->len < size) {
        ssize_t n = pread(fd, t->p + t->len, (size_t)size - t->len, (off_t)t->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_set(e, -errno, "read: %s", strerror(errno));
        else if (n == 0)
            rc = err_set(e, -EAGAIN, "became shorter while it was read");
        else
            t->len += (size_t)n;
    }
    close(fd);
    return rc < 0 ? rc : digest_text(t, e);
}

/* A blob's way below the root, whichever spelling is there; *fd is the caller's. */
static int open_blob(char rel[128], const struct store_build *b, const char *hex, int *fd,
                     struct source_id *id, struct err *e)
{
    struct stat st;
    for (const char *c = "-:"; *c; c++) {
        snprintf(rel, 128, "blobs/sha256%c%s", *c, hex);
        *fd = store_open_file(b->root_fd, STORE_HOW_STRICT, rel, -1, NULL, id, e);
        if (*fd != -ENOENT)
            return *fd < 0 ? *fd : 0;
    }
    snprintf(rel, 128, "blobs/sha256-%s-partial", hex);
    bool arriving = fstatat(b->root_fd, rel, &st, AT_SYMLINK_NOFOLLOW) == 0;
    snprintf(rel, 128, "blobs/sha256-%s", hex);
    return arriving ? err_set(e, -EAGAIN, "blob sha256-%s: download in progress", hex)
                    : err_set(e, -ENOENT, "blob sha256-%s is gone", hex);
}

/* A small blob, whose content must be what its name says. */
static int read_blob(struct text *t, const struct store_build *b, const char *hex, struct err *e)
{
    char rel[128];
    struct source_id id;
    int fd, rc = open_blob(rel, b, hex, &fd, &id, e);
    if (rc == 0)
        rc = read_all(t, fd, id.size, e);
    if (rc == 0 && strcmp(t->sha256, hex))
        rc = err_set(e, -EUCLEAN, "blob sha256-%s holds other bytes, their SHA-256 is %s", hex,
                     t->sha256);
    return rc;
}

/* The manifest itself, or the blob that a link in its place names. */
static int read_manifest(struct text *t, const struct store_build *b, const char *rel,
                         struct err *e)
{
    struct source_id id;
    char target[PATH_MAX], hex[OLLAMA_HEX_SIZE];
    int fd = store_open_file(b->root_fd, STORE_HOW_STRICT, rel, -1, NULL, &id, e);
    if (fd >= 0)
        return read_all(t, fd, id.size, e);
    if (fd != -ELOOP)
        return fd;
    /* All above it were opened as directories a moment ago; what the link says is only read. */
    ssize_t n = readlinkat(b->root_fd, rel, target, sizeof target - 1);
    if (n < 0)
        return fd;
    target[n] = '\0';
    if (strncmp(target, LINK_WAY, strlen(LINK_WAY)) ||
        !ollama_digest(hex, target + strlen(LINK_WAY)))
        return err_set(e, -EXDEV, "a link to '%.200s', not to a file of blobs/", target);
    return read_blob(t, b, hex, e);
}

/* ---- one name ---- */

/* A manifest while it becomes candidates. */
struct named {
    struct scan *s;
    const char *rel;   /* of the manifest */
    struct text text;  /* of the manifest */
    struct text param; /* of its params layer */
    struct ollama_config config;
};

static int new_candidate(struct store_cand **out, const struct named *m, const char *suffix)
{
    struct store_cand *c = store_cand_new(m->s->b);
    const char *host = m->s->part[0];
    *out = c;
    if (!c)
        return -ENOMEM;
    bool public = ollama_public_host(host);
    if (asprintf(&c->order, "%s%s", m->rel, suffix) < 0)
        c->order = NULL;
    if (asprintf(&c->publisher, "%s%s%s", public ? "" : host, public ? "" : "+", m->s->part[1]) < 0)
        c->publisher = NULL;
    c->dir = strdup("");
    c->model = strdup(m->s->part[2]);
    c->tag = strdup(m->s->part[3]);
    c->revision = strdup(m->text.sha256);
    return c->order && c->publisher && c->dir && c->model && c->tag && c->revision ? 0 : -ENOMEM;
}

/* As people type it: "qwen2.5:0.5b", "user/model:tag", "hf.co/user/model:tag"; without ":latest". */
static int add_aliases(struct store_cand *c, char *const *part)
{
    bool public = ollama_public_host(part[0]);
    bool library = public && !strcasecmp(part[1], "library");
    int tagged = strcasecmp(part[3], "latest") != 0;
    for (int with_tag = 1; with_tag >= tagged; with_tag--) {
        char *alias;
        if (asprintf(&alias, "%s%s%s%s%s%s%s", public ? "" : part[0], public ? "" : "/",
                     library ? "" : part[1], library ? "" : "/", part[2], with_tag ? ":" : "",
                     with_tag ? part[3] : "") < 0)
            return -ENOMEM;
        int rc = store_cand_add_alias(c, alias);
        free(alias);
        if (rc < 0 || !with_tag)
            return rc;
    }
    return 0;
}

/* A file of c, or why there is none. */
static int add_blob(const struct named *m, struct store_cand *c, const struct ollama_layer *l)
{
    char rel[128];
    struct err why = {0};
    struct source_id id;
    int fd, rc = open_blob(rel, m->s->b, l->sha256, &fd, &id, &why);
    if (store_starved(rc))
        return rc;
    if (rc < 0)
        return store_cand_refuse(c, rc, why.msg);
    close(fd);
    rc = store_cand_add_part(m->s->b, c, rel, &id, l->sha256);
    if (rc == 0 && id.size != l->size) {
        err_set(&why, -EAGAIN, "blob has %" PRIu64 " bytes, manifest says %" PRIu64, id.size,
                l->size);
        rc = store_cand_refuse(c, why.code, why.msg);
    }
    return rc;
}

struct shard {
    const struct ollama_layer *layer;
    uint64_t no, count;
};

static int cmp_shard(const void *pa, const void *pb)
{
    const struct shard *a = pa, *b = pb;
    return (a->no > b->no) - (a->no < b->no);
}

/* split.no and split.count of a layer; count 0: it says nothing, or cannot be read yet. */
static int shard_of(const struct named *m, const struct ollama_layer *l, struct shard *s)
{
    char rel[128];
    struct source_id id;
    struct source *src = NULL;
    int fd, rc = open_blob(rel, m->s->b, l->sha256, &fd, &id, NULL);
    *s = (struct shard){.layer = l};
    if (rc == 0)
        rc = source_from_fd(&src, fd, rel, NULL);
    if (rc == 0 && gguf_read_split(src, &s->no, &s->count, NULL) < 0)
        s->count = 0;
    source_close(src);
    return store_starved(rc) ? rc : 0;
}

/* The layers that are the model: the last, or all that say that they are shards of as many. */
static int model_layers(const struct named *m, const struct ollama_manifest *man, struct shard *s,
                        size_t *n)
{
    *n = 0;
    for (size_t i = 0; i < man->n_layer; i++)
        if (man->layer[i].kind == OLLAMA_LAYER_MODEL)
            s[(*n)++] = (struct shard){.layer = &man->layer[i]};
    if (*n < 2)
        return 0;
    for (size_t i = 0; i < *n; i++) {
        int rc = shard_of(m, s[i].layer, &s[i]);
        if (rc < 0)
            return rc;
    }
    struct shard last = s[*n - 1];
    size_t keep = 0;
    for (size_t i = 0; i < *n; i++)
        if (last.count > 1 && s[i].count == last.count)
            s[keep++] = s[i];
    if (keep == 0)
        s[keep++] = last;
    qsort(s, keep, sizeof *s, cmp_shard);
    *n = keep;
    return 0;
}

static int refuse_missing(struct store_cand *c, const struct shard *s, size_t n)
{
    char why[128];
    size_t missing = 0;
    while (missing < n && s[missing].no == missing)
        missing++;
    snprintf(why, sizeof why,
             "shard %zu of %" PRIu64 " is missing: no layer says that it is that one", missing + 1,
             s[0].count);
    return store_cand_refuse(c, -ENOENT, why);
}

static int add_model(const struct named *m, const struct ollama_manifest *man)
{
    struct store_cand *c;
    struct shard *s = calloc(man->n_layer + 1, sizeof *s);
    size_t n = 0;
    int rc = s ? new_candidate(&c, m, "") : -ENOMEM;
    if (rc == 0)
        rc = add_aliases(c, m->s->part);
    if (rc == 0 && m->param.p && !(c->params = strndup(m->param.p, m->param.len)))
        rc = -ENOMEM;
    if (rc == 0)
        rc = model_layers(m, man, s, &n);
    if (rc == 0 && m->config.remote && n == 0)
        rc = store_cand_refuse(c, -ENOTSUP, "runs on another machine: its weights are not here");
    else if (rc == 0 && (man->safetensors || m->config.safetensors))
        rc = store_cand_refuse(c, -ENOTSUP, "safetensors model, not GGUF");
    else if (rc == 0 && n == 0)
        rc = store_cand_refuse(c, -ENOTSUP, "no layer of the manifest is a model");
    if (rc == 0 && n < s[0].count)
        rc = refuse_missing(c, s, n);
    for (size_t i = 0; rc == 0 && (c->rc == 0 || n > 1) && i < n; i++)
        rc = add_blob(m, c, s[i].layer);
    free(s);
    return rc;
}

/* Projectors and adapters, each its own candidate. */
static int add_others(const struct named *m, const struct ollama_manifest *man)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < man->n_layer; i++) {
        bool projector = man->layer[i].kind == OLLAMA_LAYER_PROJECTOR;
        if (!projector && man->layer[i].kind != OLLAMA_LAYER_ADAPTER)
            continue;
        struct store_cand *c;
        char suffix[48];
        snprintf(suffix, sizeof suffix, "#layer%zu", i);
        rc = new_candidate(&c, m, suffix);
        if (rc == 0) {
            c->role_hint = projector ? STORE_PROJECTOR : STORE_ADAPTER;
            rc = add_blob(m, c, &man->layer[i]);
        }
    }
    return rc;
}

static int told(const struct named *m, int rc, const char *what, const char *why)
{
    char text[ERR_MSG_MAX + 32];
    snprintf(text, sizeof text, "%s%s", what, why);
    return store_problem_add(m->s->b, rc, m->rel, "", text);
}

/* Parameters of one layer more, of which those count that no later layer has set: as Ollama, which reads
 * all layers into one map. */
static int add_params(struct named *m, const struct ollama_layer *l, struct err *e)
{
    struct text t = {0};
    int rc = read_blob(&t, m->s->b, l->sha256, e);
    if (rc == 0 && m->param.p) {
        t.p[t.len] = '\0';
        rc = strlen(t.p) == t.len ? ollama_params(&m->param.p, &m->param.len, t.p, e)
                                  : err_set(e, -EUCLEAN, "a NUL in the parameters");
    } else if (rc == 0) {
        m->param = t;
        return 0;
    }
    free(t.p);
    return rc;
}

/* Config and params: what cannot be read of them is told and does not hide the model. */
static int read_extras(struct named *m, const struct ollama_manifest *man)
{
    struct text t = {0};
    struct err why = {0};
    int rc = man->has_config ? read_blob(&t, m->s->b, man->config.sha256, &why) : 0;
    if (rc == 0 && t.p)
        rc = ollama_config_parse(&m->config, t.p, t.len, &why);
    free(t.p);
    if (store_starved(rc))
        return rc;
    if (rc < 0 && (rc = told(m, rc, "config: ", why.msg)) < 0)
        return rc;
    rc = 0;
    for (size_t i = man->n_layer; rc == 0 && i-- > 0;)
        if (man->layer[i].kind == OLLAMA_LAYER_PARAMS)
            rc = add_params(m, &man->layer[i], &why);
    if (rc == 0)
        rc = ollama_params(&m->param.p, &m->param.len, m->config.defaults, &why);
    if (rc < 0) {
        free(m->param.p);
        m->param.p = NULL;
    }
    return rc == 0 || store_starved(rc) ? rc : told(m, rc, "params: ", why.msg);
}

/* A manifest that cannot be one model: an entry with the reason. */
static int add_refused(const struct named *m, int rc, const char *why)
{
    struct store_cand *c;
    if (store_starved(rc))
        return rc;
    int bad = new_candidate(&c, m, "");
    if (bad == 0)
        bad = add_aliases(c, m->s->part);
    return bad < 0 ? bad : store_cand_refuse(c, rc, why);
}

/* m->text's manifest, or the child of a list. *own: another that has to be freed. */
static int choose(const struct named *m, struct ollama_manifest **top, struct ollama_manifest **own,
                  const struct ollama_manifest **out, struct err *e)
{
    int rc = ollama_manifest_parse(top, m->text.p, m->text.len, e);
    if (rc < 0)
        return rc;
    *out = (*top)->is_list ? ollama_manifest_pick(*top) : *top;
    if (!*out)
        return err_set(e, -ENOTSUP, "no manifest of the list is for a runner that is known");
    if (!*(*out)->ref)
        return 0;
    struct text t = {0};
    bool mlx = (*out)->safetensors;
    rc = read_blob(&t, m->s->b, (*out)->ref, e);
    if (rc == 0)
        rc = ollama_manifest_parse(own, t.p, t.len, e);
    free(t.p);
    if (rc < 0)
        return rc;
    if ((*own)->is_list)
        return err_set(e, -EUCLEAN, "a list inside a list");
    (*own)->safetensors |= mlx;
    *out = *own;
    return 0;
}

static int add_named(struct named *m)
{
    struct ollama_manifest *top = NULL, *own = NULL;
    const struct ollama_manifest *man = NULL;
    struct err why = {0};
    int rc = choose(m, &top, &own, &man, &why);
    if (rc < 0) {
        rc = add_refused(m, rc, why.msg);
    } else {
        rc = read_extras(m, man);
        if (rc == 0)
            rc = add_model(m, man);
        if (rc == 0)
            rc = add_others(m, man);
    }
    ollama_manifest_free(top);
    ollama_manifest_free(own);
    return rc;
}

/* ---- the trees ---- */

static int cmp_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One spelling of a name, whichever public host it stands under. */
static char *logical(char *const *part)
{
    char *s;
    return asprintf(&s, "%s/%s/%s/%s", ollama_public_host(part[0]) ? "ollama.com" : part[0],
                    part[1], part[2], part[3]) < 0
               ? NULL
               : s;
}

/* Keeps name, which it takes. */
static int remember(struct scan *s, char *name)
{
    if (s->n_seen == s->cap_seen) {
        size_t cap = s->cap_seen ? 2 * s->cap_seen : 32;
        char **p = realloc(s->seen, cap * sizeof *p);
        if (!p) {
            free(name);
            return -ENOMEM;
        }
        s->seen = p;
        s->cap_seen = cap;
    }
    s->seen[s->n_seen++] = name;
    return 0;
}

/* Has manifests/ the name that is being looked at, under any of its hosts? */
static bool in_old_tree(const struct scan *s)
{
    const char *host[] = {s->part[0], "registry.ollama.ai", "ollama.com"};
    bool there = false;
    for (int i = 0; !there && i < (ollama_public_host(s->part[0]) ? 3 : 1); i++) {
        char *rel;
        struct stat st;
        if (asprintf(&rel, "manifests/%s/%s/%s/%s", host[i], s->part[1], s->part[2], s->part[3]) <
            0)
            return false;
        there = fstatat(s->b->root_fd, rel, &st, AT_SYMLINK_NOFOLLOW) == 0;
        free(rel);
    }
    return there;
}

static int visit_manifest(struct scan *s, const char *rel)
{
    bool v2 = strcmp(s->tree, "manifests") != 0;
    char *name = logical(s->part);
    if (!name)
        return -ENOMEM;
    if (!v2 && s->n_seen && bsearch(&name, s->seen, s->n_seen, sizeof *s->seen, cmp_name)) {
        free(name);
        return 0;
    }
    struct named m = {.s = s, .rel = rel};
    struct err why = {0};
    int rc = read_manifest(&m.text, s->b, rel, &why);
    /* A name of manifests-v2 whose blob is gone may still stand in the other tree. */
    if (rc == -ENOENT && v2 && in_old_tree(s)) {
        free(name);
        return 0;
    }
    if (v2)
        rc = remember(s, name) < 0 ? -ENOMEM : rc;
    else
        free(name);
    rc = rc < 0 ? add_refused(&m, rc, why.msg) : add_named(&m);
    free(m.text.p);
    free(m.param.p);
    ollama_config_release(&m.config);
    return rc;
}

static int walk(struct scan *s, int fd, const char *rel, int level);

static int visit(struct scan *s, struct store_folder *d, const char *name, int level)
{
    static const char *const what[N_LEVEL] = {"host", "namespace", "model", "tag"};
    struct stat st;
    char why[128];
    if (name[0] == '.') /* what programs leave, Ollama's own ".manifest-*" among them */
        return 0;
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : store_folder_problem(d, name, -errno, strerror(errno));
    if (!ollama_part_ok((enum ollama_part)level, name)) {
        snprintf(why, sizeof why, "not a %s's name as Ollama has them: skipped", what[level]);
        return store_folder_problem(d, name, -EINVAL, why);
    }
    bool last = level == N_LEVEL - 1;
    bool fits = last ? S_ISREG(st.st_mode) || S_ISLNK(st.st_mode) : S_ISDIR(st.st_mode);
    if (!fits) {
        snprintf(why, sizeof why, "a %s is expected to be a %s: skipped", what[level],
                 last ? "file" : "folder");
        return store_folder_problem(d, name, S_ISLNK(st.st_mode) ? -ELOOP : -EINVAL, why);
    }
    char *rel = NULL;
    int fd = -1, rc = 0;
    s->part[level] = (char *)name;
    if (last) {
        rel = store_join(d->rel, name);
        rc = rel ? visit_manifest(s, rel) : -ENOMEM;
    } else {
        rc = store_folder_enter(d, name, &fd, &rel);
        if (rc == 0 && fd >= 0)
            rc = walk(s, fd, rel, level + 1);
    }
    free(rel);
    return rc;
}

/* Takes fd, a folder whose names are parts of that level. */
static int walk(struct scan *s, int fd, const char *rel, int level)
{
    struct store_folder d;
    int rc = store_folder_open(&d, s->b, fd, rel, level + 1);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++)
        rc = visit(s, &d, d.name[i], level);
    store_folder_close(&d);
    return rc;
}

static int scan_tree(struct scan *s, struct store_folder *root, const char *tree)
{
    int fd;
    char *rel;
    if (!is_dir(root->fd, tree))
        return 0;
    s->tree = tree;
    int rc = store_folder_enter(root, tree, &fd, &rel);
    if (rc == 0 && fd >= 0)
        rc = walk(s, fd, rel, 0);
    free(rel);
    return rc;
}

/* What is on its way: no name leads there yet. */
static int tell_downloads(struct store_folder *root)
{
    static const char suffix[] = "-partial";
    struct store_folder d;
    int fd;
    char *rel;
    int rc = store_folder_enter(root, "blobs", &fd, &rel);
    if (rc == 0 && fd >= 0) {
        rc = store_folder_open(&d, root->b, fd, rel, 1);
        for (size_t i = 0; rc == 0 && i < d.n_name; i++) {
            size_t n = strlen(d.name[i]), m = sizeof suffix - 1;
            if (n > m && !strcmp(d.name[i] + n - m, suffix))
                rc = store_folder_problem(&d, d.name[i], -EAGAIN, "download in progress");
        }
        store_folder_close(&d);
    }
    free(rel);
    return rc;
}

int store_scan_ollama(struct store_build *b, struct err *e)
{
    struct scan s = {.b = b};
    struct store_folder root;
    b->how = STORE_HOW_STRICT;
    int fd = openat(b->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: %s", b->root, strerror(-rc));
    }
    int rc = store_folder_open(&root, b, fd, "", 0);
    if (rc == 0)
        rc = tell_downloads(&root);
    if (rc == 0)
        rc = scan_tree(&s, &root, "manifests-v2");
    if (s.n_seen)
        qsort(s.seen, s.n_seen, sizeof *s.seen, cmp_name);
    if (rc == 0)
        rc = scan_tree(&s, &root, "manifests");
    store_folder_close(&root);
    for (size_t i = 0; i < s.n_seen; i++)
        free(s.seen[i]);
    free(s.seen);
    return rc < 0 ? err_set(e, rc, "%s, while Ollama's store was scanned", strerror(-rc)) : 0;
}
