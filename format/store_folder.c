/* One folder of a store while it is scanned: its names, which of its files are models, the shards
 * that belong together. The same for every layout that keeps models under names. */
#include "format/store_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

/* One file that is a GGUF, or ought to be one. */
struct store_file {
    const char *name; /* lent by the folder's names */
    struct source_id id;
    char sha256[65];
    int rc;
    char why[ERR_MSG_MAX];
    bool shard;
    uint32_t no, count;
    size_t prefix_len;
};

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && strcasecmp(s + n - m, suffix) == 0;
}

/* Suffixes that programs give to a file while it arrives (wget-likes, curl, browsers, llama.cpp).
 */
static const char *partial_suffix(const char *name)
{
    static const char *const all[] = {".part", ".tmp", ".crdownload", ".downloadInProgress"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (ends_with(name, all[i]))
            return all[i];
    return NULL;
}

bool store_named_gguf(const char *name)
{
    const char *suffix = partial_suffix(name);
    size_t n = strlen(name) - (suffix ? strlen(suffix) : 0);
    return n >= 5 && strncasecmp(name + n - 5, ".gguf", 5) == 0;
}

bool store_named_model(const struct store_build *b, const char *name)
{
    if (b->opt->view == STORE_VIEW_APR)
        return store_named_gguf(name);
    const char *suffix = partial_suffix(name);
    size_t n = strlen(name) - (suffix ? strlen(suffix) : 0);
    return n >= 4 && strncasecmp(name + n - 4, ".apr", 4) == 0;
}

static int cmp_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_name(const struct store_folder *d, const char *name)
{
    return bsearch(&name, d->name, d->n_name, sizeof *d->name, cmp_name) != NULL;
}

char *store_join(const char *rel, const char *name)
{
    char *s;
    return asprintf(&s, "%s%s%s", rel, *rel ? "/" : "", name) < 0 ? NULL : s;
}

int store_folder_problem(const struct store_folder *d, const char *name, int rc, const char *why)
{
    char *rel = store_join(d->rel, name);
    int r = rel ? store_problem_add(d->b, rc, rel, "", why) : -ENOMEM;
    free(rel);
    return r;
}

int store_folder_add(struct store_folder *d, const char *name, const struct source_id *id, int rc,
                     const char *why)
{
    if (d->n_file == d->cap_file) {
        size_t cap = d->cap_file ? 2 * d->cap_file : 8;
        struct store_file *p = realloc(d->file, cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        d->file = p;
        d->cap_file = cap;
    }
    struct store_file *f = &d->file[d->n_file++];
    *f = (struct store_file){.name = name, .id = *id, .rc = rc};
    snprintf(f->why, sizeof f->why, "%s", why);
    f->shard = gguf_shard_name(name, &f->no, &f->count, &f->prefix_len) && f->no < f->count;
    return 0;
}

/* What a file that is named like a model holds instead of one. */
static void no_magic_text(char *dst, size_t cap, const uint8_t *head, ssize_t n, bool apr)
{
    if (n >= 4 && !memcmp(head, "vers", 4))
        snprintf(dst, cap, "a Git LFS pointer, not the file itself: run 'git lfs pull'");
    else if (n >= 4)
        snprintf(dst, cap, "no %s file: begins with bytes %02x %02x %02x %02x, expected \"%s\"",
                 apr ? "APR" : "GGUF", head[0], head[1], head[2], head[3], apr ? "APR" : "GGUF");
    else
        snprintf(dst, cap, "needs at least %d bytes, has %zd", apr ? 64 : 24, n);
}

#define OWN "in this mount itself: not shown again"

static bool is_own(const struct store_folder *d, uint64_t dev)
{
    return d->b->opt->own_dev && dev == d->b->opt->own_dev;
}

/* An opened file, size known: is it ours, and is it whole? */
static int look_at(struct store_folder *d, const char *name, int fd, const struct source_id *id)
{
    uint8_t head[4] = {0};
    char why[ERR_MSG_MAX] = "";
    ssize_t n;
    do
        n = pread(fd, head, sizeof head, 0);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    bool apr =
        d->b->opt->view == STORE_VIEW_GGUF; /* APR1, APRN too: the reader says what they are */
    bool magic = n == 4 && (apr ? !memcmp(head, "APR", 3) : !memcmp(head, "GGUF", 4));
    if (rc == 0 && !magic && !store_named_model(d->b, name))
        return 0; /* someone else's file */
    char *aria = NULL;
    if (asprintf(&aria, "%s.aria2", name) < 0)
        return -ENOMEM;
    if (rc < 0) {
        snprintf(why, sizeof why, "read: %s", strerror(-rc));
    } else if (partial_suffix(name) || has_name(d, aria)) {
        rc = -EAGAIN;
        snprintf(why, sizeof why, "download in progress");
    } else if (!magic) {
        rc = n < 4 ? -EAGAIN : -EUCLEAN;
        no_magic_text(why, sizeof why, head, n, apr);
    }
    free(aria);
    return store_folder_add(d, name, id, rc, why);
}

int store_folder_look(struct store_folder *d, const char *name)
{
    struct source_id id = {0};
    struct err why = {0};
    char sha256[65] = "", *rel = store_join(d->rel, name);
    if (!rel)
        return -ENOMEM;
    int fd = d->b->how == STORE_HOW_HUB
                 ? store_open_hub(d->b->root_fd, rel, &id, sha256, &why)
                 : store_open_file(d->b->root_fd, d->b->how, rel, d->fd, name, &id, &why);
    free(rel);
    if (fd >= 0 && is_own(d, id.dev)) {
        close(fd);
        return store_folder_problem(d, name, -ELOOP, OWN);
    }
    if (fd >= 0) {
        size_t before = d->n_file;
        int rc = look_at(d, name, fd, &id);
        if (d->n_file > before)
            memcpy(d->file[before].sha256, sha256, sizeof sha256);
        close(fd);
        return rc;
    }
    if (store_starved(fd))
        return fd;
    if (fd == -EISDIR)
        return store_folder_problem(d, name, -ELOOP, why.msg);
    /* Unreadable or out of reach is told of any file, for any may be a model; the rest only of what
     * is named so. */
    if (store_named_model(d->b, name))
        return store_folder_add(d, name, &id, fd, why.msg);
    return fd == -EACCES || fd == -EPERM || fd == -EXDEV
               ? store_folder_problem(d, name, fd, why.msg)
               : 0;
}

int store_folder_enter(struct store_folder *d, const char *name, int *fd, char **rel)
{
    *fd = -1;
    *rel = NULL;
    if (d->depth >= STORE_MAX_DEPTH)
        return store_folder_problem(d, name, -ERANGE,
                                    "more than 16 directories deep: not searched");
    int sub = openat(d->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (sub < 0) {
        int rc = -errno;
        char owner[256], why[ERR_MSG_MAX];
        if (store_starved(rc))
            return rc;
        *owner = '\0';
        if (rc == -EACCES)
            store_owner_text(owner, sizeof owner, d->fd, name);
        snprintf(why, sizeof why, "directory not readable: %s%s%s", strerror(-rc),
                 *owner ? ": " : "", owner);
        return store_folder_problem(d, name, rc, why);
    }
    struct stat st;
    bool own = fstat(sub, &st) == 0 && is_own(d, st.st_dev);
    *rel = own ? NULL : store_join(d->rel, name);
    if (!*rel) {
        close(sub);
        return own ? store_folder_problem(d, name, -ELOOP, OWN) : -ENOMEM;
    }
    *fd = sub;
    return 0;
}

static int cmp_file(const void *pa, const void *pb)
{
    const struct store_file *a = pa, *b = pb;
    if (!a->shard || !b->shard)
        return a->shard != b->shard ? a->shard - b->shard : strcmp(a->name, b->name);
    size_t n = a->prefix_len < b->prefix_len ? a->prefix_len : b->prefix_len;
    int r = memcmp(a->name, b->name, n);
    r = r ? r : (a->prefix_len > b->prefix_len) - (a->prefix_len < b->prefix_len);
    r = r ? r : (a->count > b->count) - (a->count < b->count);
    return r ? r : (a->no > b->no) - (a->no < b->no);
}

static bool same_group(const struct store_file *a, const struct store_file *b)
{
    return a->shard && b->shard && a->count == b->count && a->prefix_len == b->prefix_len &&
           !memcmp(a->name, b->name, a->prefix_len);
}

/* f[0..n): one file, or shards of one model in order. */
static int add_candidate(struct store_folder *d, const struct store_file *f, size_t n,
                         store_namer *namer, const void *arg)
{
    struct store_cand *c = store_cand_new(d->b);
    if (!c)
        return -ENOMEM;
    c->order = store_join(d->rel, f->name);
    c->dir = strdup(d->rel);
    c->file = strdup(f->name);
    if (!c->order || !c->dir || !c->file)
        return -ENOMEM;
    int bad = namer ? namer(c, arg) : 0;
    if (bad < 0)
        return bad;
    uint32_t missing = f->shard ? f->count : 0;
    for (size_t i = 0; i < n; i++) {
        char *rel = store_join(d->rel, f[i].name);
        int rc = rel ? store_cand_add_part(d->b, c, rel, &f[i].id, f[i].sha256) : -ENOMEM;
        free(rel);
        char why[2 * ERR_MSG_MAX];
        snprintf(why, sizeof why, "%s%s%s", n > 1 ? f[i].name : "", n > 1 ? ": " : "", f[i].why);
        if (rc == 0 && f[i].rc < 0)
            rc = store_cand_refuse(c, f[i].rc, why);
        if (rc < 0)
            return rc;
        if (f->shard && missing == f->count && f[i].no != i)
            missing = (uint32_t)i;
    }
    if (f->shard && missing == f->count && n < f->count)
        missing = (uint32_t)n;
    if (f->shard && missing < f->count) {
        char why[ERR_MSG_MAX];
        snprintf(why, sizeof why, "shard %u of %u is missing: %.*s-%05u-of-%05u.gguf", missing + 1,
                 f->count, (int)f->prefix_len, f->name, missing + 1, f->count);
        return store_cand_refuse(c, -ENOENT, why);
    }
    return 0;
}

int store_folder_group(struct store_folder *d, store_namer *namer, const void *arg)
{
    if (d->n_file)
        qsort(d->file, d->n_file, sizeof *d->file, cmp_file);
    for (size_t i = 0, end; i < d->n_file; i = end) {
        end = i + 1;
        while (end < d->n_file && same_group(&d->file[i], &d->file[end]))
            end++;
        int rc = add_candidate(d, &d->file[i], end - i, namer, arg);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_names(struct store_folder *d)
{
    struct dirent *de;
    while ((errno = 0, de = readdir(d->dir))) {
        if (!strcmp(de->d_name, ".") || !strcmp(de->d_name, ".."))
            continue;
        if (d->n_name == d->cap_name) {
            size_t cap = d->cap_name ? 2 * d->cap_name : 32;
            char **p = realloc(d->name, cap * sizeof *p);
            if (!p)
                return -ENOMEM;
            d->name = p;
            d->cap_name = cap;
        }
        if (!(d->name[d->n_name] = strdup(de->d_name)))
            return -ENOMEM;
        d->n_name++;
    }
    if (errno) {
        int rc = -errno;
        char why[ERR_MSG_MAX];
        snprintf(why, sizeof why, "directory not read to its end: %s", strerror(-rc));
        rc = store_problem_add(d->b, rc, d->rel, "", why);
        if (rc < 0)
            return rc;
    }
    if (d->n_name)
        qsort(d->name, d->n_name, sizeof *d->name, cmp_name);
    return 0;
}

int store_folder_open(struct store_folder *d, struct store_build *b, int fd, const char *rel,
                      int depth)
{
    *d = (struct store_folder){.b = b, .rel = rel, .depth = depth, .fd = fd};
    d->dir = fdopendir(fd);
    if (!d->dir) {
        close(fd);
        return -ENOMEM;
    }
    int rc = store_dir_add(b, rel);
    return rc < 0 ? rc : read_names(d);
}

void store_folder_close(struct store_folder *d)
{
    for (size_t i = 0; i < d->n_name; i++)
        free(d->name[i]);
    free(d->name);
    free(d->file);
    if (d->dir)
        closedir(d->dir);
}
