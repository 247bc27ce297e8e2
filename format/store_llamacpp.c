/* llama.cpp's own cache, as its builds before March 2026 wrote it: one folder of
 *
 *   <org>_<repo>_<file>.gguf               '/' of org/repo and of the file's way became '_'
 *   <org>_<repo>_<file>.gguf.etag|.json    beside it
 *   manifest=<org>=<repo>=<tag>.json       what "-hf org/repo:tag" led to
 *   *.downloadInProgress
 *
 * Newer builds move these files into the hub cache, which may be the same folder. Where '_' once was
 * '/' a name does not tell: the url of the .json does, or a manifest. */
#include "format/json.h"
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define JSON_MAX (1 << 20)

/* What "-hf org/repo:tag" led to. */
struct manifest {
    char *org, *repo, *tag;
    char *file;   /* the GGUF's way in the repository, '/' as '_'; "" = it does not say */
    char *prefix; /* "org_repo_" */
};

struct flat {
    const struct store_folder *d;
    struct manifest *m;
    size_t n_m;
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcmp(s + n - m, suffix);
}

/* A small JSON file of d; NULL: none, or none that can be read. Both kinds only refine names, so
 * what is wrong with them leaves a name as it is. */
static cJSON *read_json(const struct store_folder *d, const char *name)
{
    struct source_id id;
    char *rel = store_join(d->rel, name), *text = NULL;
    int fd = rel ? store_open_file(d->b->root_fd, d->b->how, rel, d->fd, name, &id, NULL) : -1;
    cJSON *j = NULL;
    free(rel);
    if (fd >= 0 && id.size > 0 && id.size <= JSON_MAX && (text = malloc(id.size)) &&
        pread(fd, text, id.size, 0) == (ssize_t)id.size && json_parse(&j, text, id.size, NULL) < 0)
        j = NULL;
    if (fd >= 0)
        close(fd);
    free(text);
    return j;
}

static void slashes_out(char *s)
{
    for (; *s; s++)
        if (*s == '/' || *s == '\\')
            *s = '_';
}

static void manifest_release(struct manifest *m)
{
    free(m->org);
    free(m->repo);
    free(m->tag);
    free(m->file);
    free(m->prefix);
}

/* name is "manifest=org=repo=tag.json": 1; no such name: 0. */
static int manifest_read(struct manifest *m, const struct store_folder *d, const char *name)
{
    *m = (struct manifest){0};
    if (strncmp(name, "manifest=", 9) || !ends_with(name, ".json"))
        return 0;
    const char *org = name + 9, *repo = strchr(org, '='),
               *tag = repo ? strchr(repo + 1, '=') : NULL;
    const char *end = name + strlen(name) - 5;
    if (!tag || repo == org || tag == repo + 1 || end <= tag + 1 ||
        memchr(tag + 1, '=', (size_t)(end - tag - 1)))
        return 0;
    m->org = strndup(org, (size_t)(repo - org));
    m->repo = strndup(repo + 1, (size_t)(tag - repo - 1));
    m->tag = strndup(tag + 1, (size_t)(end - tag - 1));
    if (!m->org || !m->repo || asprintf(&m->prefix, "%s_%s_", m->org, m->repo) < 0)
        return -ENOMEM;
    cJSON *j = read_json(d, name);
    const char *file = json_text(json_get(json_get(j, "ggufFile"), "rfilename"));
    m->file = strdup(file ? file : "");
    cJSON_Delete(j);
    if (!m->tag || !m->file)
        return -ENOMEM;
    slashes_out(m->file);
    return 1;
}

static int read_manifests(struct flat *f)
{
    f->m = calloc(f->d->n_name + 1, sizeof *f->m);
    if (!f->m)
        return -ENOMEM;
    for (size_t i = 0; i < f->d->n_name; i++) {
        int rc = manifest_read(&f->m[f->n_m], f->d, f->d->name[i]);
        if (rc > 0)
            f->n_m++;
        else
            manifest_release(&f->m[f->n_m]);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool begins(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix)) && s[strlen(prefix)];
}

/* The manifest whose file this is; else that of the longest prefix that the name has. NULL: none, or
 * two repositories that cannot be told apart. */
static const struct manifest *manifest_of(const struct flat *f, const char *file)
{
    const struct manifest *best = NULL;
    size_t best_rank = 0;
    bool two = false;
    for (size_t i = 0; i < f->n_m; i++) {
        const struct manifest *m = &f->m[i];
        if (!begins(file, m->prefix))
            continue;
        bool exact = *m->file && !strcmp(file + strlen(m->prefix), m->file);
        size_t rank = exact ? SIZE_MAX : strlen(m->prefix);
        if (rank == best_rank && (strcmp(m->org, best->org) || strcmp(m->repo, best->repo)))
            two = true;
        if (rank > best_rank) {
            best = m;
            best_rank = rank;
            two = false;
        }
    }
    return two ? NULL : best;
}

/* c was org/repo's: names it so, if its file name begins with them. */
static int name_as(struct store_cand *c, const char *org, const char *repo, size_t prefix)
{
    char *alias, *file = strdup(c->file + prefix);
    if (!file || asprintf(&alias, "%s/%s", org, repo) < 0) {
        free(file);
        return -ENOMEM;
    }
    free(c->file);
    c->file = file;
    c->publisher = strdup(org);
    c->model = strdup(repo);
    int rc = store_cand_add_alias(c, alias);
    free(alias);
    return rc < 0 || !c->publisher || !c->model ? -ENOMEM : 0;
}

/* "<file>.json" beside says {"url": "https://host/org/repo/resolve/<revision>/<way>"}; it counts
 * only if it gives this very name. 1: named. */
static int name_by_url(struct store_cand *c, const struct flat *f)
{
    char *side, org[256], repo[256], *want = NULL;
    if (asprintf(&side, "%s.json", c->file) < 0)
        return -ENOMEM;
    cJSON *j = read_json(f->d, side);
    free(side);
    const char *url = json_text(json_get(j, "url"));
    const char *at = url ? strstr(url, "://") : NULL;
    at = at ? strchr(at + 3, '/') : NULL;
    const char *way = at ? strstr(at, "/resolve/") : NULL;
    way = way ? strchr(way + strlen("/resolve/"), '/') : NULL;
    int rc = 0;
    if (way && sscanf(at, "/%255[^/]/%255[^/]/resolve/", org, repo) == 2 &&
        (rc = asprintf(&want, "%s_%s_%.*s", org, repo, (int)strcspn(way + 1, "?"), way + 1)) >= 0) {
        slashes_out(want);
        rc = strcmp(want, c->file) ? 0 : name_as(c, org, repo, strlen(org) + strlen(repo) + 2);
        rc = rc < 0 ? rc : c->publisher != NULL;
        free(want);
    }
    cJSON_Delete(j);
    return rc < 0 ? -ENOMEM : rc;
}

static int name_candidate(struct store_cand *c, const void *arg)
{
    const struct flat *f = arg;
    const struct manifest *m = manifest_of(f, c->file);
    if (m) {
        char *alias = NULL;
        bool exact = *m->file && !strcmp(c->file + strlen(m->prefix), m->file);
        int rc = name_as(c, m->org, m->repo, strlen(m->prefix));
        if (rc == 0 && exact) {
            rc = asprintf(&alias, "%s/%s:%s", m->org, m->repo, m->tag) < 0
                     ? -ENOMEM
                     : store_cand_add_alias(c, alias);
            free(alias);
        }
        return rc;
    }
    int rc = name_by_url(c, f);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    c->publisher = strdup("llama.cpp"); /* and the model is the stem */
    return c->publisher ? 0 : -ENOMEM;
}

int store_scan_flat(struct store_build *b, int (*visit)(struct store_folder *d, const char *name),
                    struct err *e)
{
    struct store_folder d;
    int fd = openat(b->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: %s", b->root, strerror(-rc));
    }
    struct flat f = {.d = &d};
    int rc = store_folder_open(&d, b, fd, "", 0);
    enum store_kind kind = b->kind;
    for (size_t i = 0; rc == 0 && i < d.n_name; i++)
        rc = visit(&d, d.name[i]);
    if (rc == 0)
        rc = read_manifests(&f);
    b->kind = STORE_LLAMACPP;
    if (rc == 0)
        rc = store_folder_group(&d, name_candidate, &f);
    b->kind = kind;
    for (size_t i = 0; i < f.n_m; i++)
        manifest_release(&f.m[i]);
    free(f.m);
    store_folder_close(&d);
    return rc < 0 ? err_set(e, rc, "%s, while %s was scanned", strerror(-rc), b->root) : 0;
}

static bool is_mark(int root_fd, const char *name)
{
    (void)root_fd;
    return ends_with(name, ".gguf.etag") ||
           (!strncmp(name, "manifest=", 9) && ends_with(name, ".json"));
}

bool store_detect_llamacpp(int root_fd, const char *root)
{
    (void)root;
    return store_any_name(root_fd, is_mark);
}

/* Folders are read as a plain store's, so that none of their models is lost. */
static int visit(struct store_folder *d, const char *name)
{
    if (store_hub_is_shared(d->fd, name))
        return 0;
    return store_hub_is_repo(d->fd, name) ? store_hub_repo(d, name) : store_plain_visit(d, name);
}

int store_scan_llamacpp(struct store_build *b, struct err *e)
{
    return store_scan_flat(b, visit, e);
}
