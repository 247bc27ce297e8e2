/* What layouts add to a scan: candidates with their parts and names, problems, folders to watch. */
#include "format/store_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct store_cand *store_cand_new(struct store_build *b)
{
    if (b->n_cand == b->cap_cand) {
        size_t cap = b->cap_cand ? 2 * b->cap_cand : 16;
        struct store_cand *p = realloc(b->cand, cap * sizeof *p);
        if (!p)
            return NULL;
        b->cand = p;
        b->cap_cand = cap;
    }
    struct store_cand *c = &b->cand[b->n_cand++];
    *c = (struct store_cand){.kind = b->kind};
    return c;
}

int store_cand_add_part(struct store_build *b, struct store_cand *c, const char *rel,
                        const struct source_id *id, const char *sha256)
{
    if (c->n_part == c->cap_part) {
        int cap = c->cap_part ? 2 * c->cap_part : 1;
        struct store_part *p = realloc(c->part, (size_t)cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        c->part = p;
        c->cap_part = cap;
    }
    struct store_part *p = &c->part[c->n_part];
    *p = (struct store_part){.id = *id};
    p->how = b->how;
    snprintf(p->sha256, sizeof p->sha256, "%s", sha256);
    if (asprintf(&p->path, "%s/%s", strcmp(b->root, "/") ? b->root : "", rel) < 0)
        return -ENOMEM;
    c->n_part++;
    return 0;
}

int store_cand_add_alias(struct store_cand *c, const char *alias)
{
    for (size_t i = 0; i < c->n_alias; i++)
        if (!strcmp(c->alias[i], alias))
            return 0;
    char **p = realloc(c->alias, (c->n_alias + 1) * sizeof *p);
    if (!p)
        return -ENOMEM;
    c->alias = p;
    p[c->n_alias] = strdup(alias);
    return p[c->n_alias] ? (c->n_alias++, 0) : -ENOMEM;
}

int store_cand_refuse(struct store_cand *c, int rc, const char *why)
{
    if (c->rc < 0)
        return 0;
    c->rc = rc;
    c->why = strdup(why);
    if (!c->why)
        return -ENOMEM;
    err_clean(c->why); /* names inside come from files */
    return 0;
}

static char *hinted(const char *why, const char *hint)
{
    char *p;
    if (!hint)
        return strdup(why);
    return asprintf(&p, "%s (%s)", why, hint) < 0 ? NULL : p;
}

int store_problem_add(struct store_build *b, int rc, const char *rel, const char *dir,
                      const char *why)
{
    if (b->n_problem == b->cap_problem) {
        size_t cap = b->cap_problem ? 2 * b->cap_problem : 16;
        struct store_problem *p = realloc(b->problem, cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        b->problem = p;
        b->cap_problem = cap;
    }
    const char *hint = rc == -EACCES ? b->opt->denied_hint : NULL;
    struct store_problem *p = &b->problem[b->n_problem++];
    *p = (struct store_problem){rc, strdup(rel), strdup(dir), hinted(why, hint)};
    if (!p->path || !p->dir || !p->why)
        return -ENOMEM;
    err_clean(p->why); /* one line each: names inside come from files */
    return 0;
}

int store_dir_add(struct store_build *b, const char *rel)
{
    if (b->n_dir == b->cap_dir) {
        size_t cap = b->cap_dir ? 2 * b->cap_dir : 16;
        char **p = realloc(b->dir, cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        b->dir = p;
        b->cap_dir = cap;
    }
    b->dir[b->n_dir] = strdup(rel);
    return b->dir[b->n_dir] ? (b->n_dir++, 0) : -ENOMEM;
}

void store_part_release(struct store_part *p)
{
    free(p->path);
    p->path = NULL;
}

static void cand_release(struct store_cand *c)
{
    for (int i = 0; i < c->n_part; i++)
        store_part_release(&c->part[i]);
    free(c->part);
    for (size_t i = 0; i < c->n_alias; i++)
        free(c->alias[i]);
    free(c->alias);
    char *text[] = {c->order, c->dir, c->file,     c->publisher, c->model,
                    c->tag,   c->why, c->revision, c->params};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        free(text[i]);
}

void store_problem_release(struct store_problem *p)
{
    free(p->path);
    free(p->dir);
    free(p->why);
}

void store_build_release(struct store_build *b)
{
    for (size_t i = 0; i < b->n_cand; i++)
        cand_release(&b->cand[i]);
    free(b->cand);
    for (size_t i = 0; i < b->n_problem; i++)
        store_problem_release(&b->problem[i]);
    free(b->problem);
    for (size_t i = 0; i < b->n_dir; i++)
        free(b->dir[i]);
    free(b->dir);
    if (b->root_fd >= 0)
        close(b->root_fd);
}
