/* Plain folders: every regular file with the magic "GGUF", at any depth up to STORE_MAX_DEPTH,
 * whatever its suffix; shards grouped by directory, prefix and count. */
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

/* One file of a directory that is a GGUF, or ought to be one. */
struct plain_file {
    const char *name; /* lent by the directory's names */
    struct source_id id;
    int rc;
    char why[ERR_MSG_MAX];
    bool shard;
    uint32_t no, count;
    size_t prefix_len;
};

struct plain_dir {
    struct store_build *b;
    const char *rel; /* "" = root */
    int depth;
    int fd;
    char **name;
    size_t n_name, cap_name;
    struct plain_file *file;
    size_t n_file, cap_file;
};

static int walk(struct store_build *b, int fd, const char *rel, int depth, struct err *e);

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

/* Does the name say that it is a model, so that saying nothing about it would hide something? */
static bool named_gguf(const char *name)
{
    const char *suffix = partial_suffix(name);
    size_t n = strlen(name) - (suffix ? strlen(suffix) : 0);
    return n >= 5 && strncasecmp(name + n - 5, ".gguf", 5) == 0;
}

static int cmp_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool has_name(const struct plain_dir *d, const char *name)
{
    return bsearch(&name, d->name, d->n_name, sizeof *d->name, cmp_name) != NULL;
}

static char *join(const char *rel, const char *name)
{
    char *s;
    return asprintf(&s, "%s%s%s", rel, *rel ? "/" : "", name) < 0 ? NULL : s;
}

static int problem_at(const struct plain_dir *d, const char *name, int rc, const char *why)
{
    char *rel = join(d->rel, name);
    int r = rel ? store_problem_add(d->b, rc, rel, "", why) : -ENOMEM;
    free(rel);
    return r;
}

static int file_add(struct plain_dir *d, const char *name, const struct source_id *id, int rc,
                    const char *why)
{
    if (d->n_file == d->cap_file) {
        size_t cap = d->cap_file ? 2 * d->cap_file : 8;
        struct plain_file *p = realloc(d->file, cap * sizeof *p);
        if (!p)
            return -ENOMEM;
        d->file = p;
        d->cap_file = cap;
    }
    struct plain_file *f = &d->file[d->n_file++];
    *f = (struct plain_file){.name = name, .id = *id, .rc = rc};
    snprintf(f->why, sizeof f->why, "%s", why);
    f->shard = gguf_shard_name(name, &f->no, &f->count, &f->prefix_len) && f->no < f->count;
    return 0;
}

/* What a file that is named like a model holds instead of one. */
static void no_magic_text(char *dst, size_t cap, const uint8_t *head, ssize_t n)
{
    if (n >= 4 && !memcmp(head, "vers", 4))
        snprintf(dst, cap, "a Git LFS pointer, not the file itself: run 'git lfs pull'");
    else if (n >= 4)
        snprintf(dst, cap, "no GGUF file: begins with bytes %02x %02x %02x %02x, expected \"GGUF\"",
                 head[0], head[1], head[2], head[3]);
    else
        snprintf(dst, cap, "needs at least 24 bytes, has %zd", n);
}

/* An opened file, size known: is it ours, and is it whole? */
static int look_at(struct plain_dir *d, const char *name, int fd, const struct source_id *id)
{
    uint8_t head[4] = {0};
    char why[ERR_MSG_MAX] = "";
    ssize_t n;
    do
        n = pread(fd, head, sizeof head, 0);
    while (n < 0 && errno == EINTR);
    int rc = n < 0 ? -errno : 0;
    bool magic = n == 4 && !memcmp(head, "GGUF", 4);
    if (rc == 0 && !magic && !named_gguf(name))
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
        no_magic_text(why, sizeof why, head, n);
    }
    free(aria);
    return file_add(d, name, id, rc, why);
}

static int visit_file(struct plain_dir *d, const char *name)
{
    struct source_id id = {0};
    struct err why = {0};
    char *rel = join(d->rel, name);
    if (!rel)
        return -ENOMEM;
    int fd = store_open_file(d->b->root_fd, d->b->how, rel, d->fd, name, &id, &why);
    free(rel);
    if (fd >= 0) {
        int rc = look_at(d, name, fd, &id);
        close(fd);
        return rc;
    }
    if (store_starved(fd))
        return fd;
    if (fd == -EISDIR)
        return problem_at(d, name, -ELOOP, why.msg);
    /* Unreadable or out of reach is told of any file, for any may be a model; the rest only of what
     * is named so. */
    if (named_gguf(name))
        return file_add(d, name, &id, fd, why.msg);
    return fd == -EACCES || fd == -EPERM || fd == -EXDEV ? problem_at(d, name, fd, why.msg) : 0;
}

static int visit_dir(struct plain_dir *d, const char *name)
{
    if (name[0] == '.' || !strcmp(name, "lost+found"))
        return 0;
    if (d->depth >= STORE_MAX_DEPTH)
        return problem_at(d, name, -ERANGE, "more than 16 directories deep: not searched");
    int fd = openat(d->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        char owner[256], why[ERR_MSG_MAX];
        if (store_starved(rc))
            return rc;
        store_owner_text(owner, sizeof owner, d->fd, name);
        snprintf(why, sizeof why, "directory not readable: %s%s%s", strerror(-rc),
                 *owner ? ": " : "", owner);
        return problem_at(d, name, rc, why);
    }
    char *rel = join(d->rel, name);
    int rc = rel ? walk(d->b, fd, rel, d->depth + 1, NULL) : -ENOMEM;
    if (!rel)
        close(fd);
    free(rel);
    return rc;
}

static int visit_link(struct plain_dir *d, const char *name)
{
    struct stat st;
    /* Where links may not leave the root, not even their target is looked at from here. */
    if (d->b->opt->resolve == STORE_RESOLVE_BENEATH)
        return visit_file(d, name);
    if (fstatat(d->fd, name, &st, 0) < 0) {
        int rc = -errno;
        if (!named_gguf(name))
            return 0;
        char why[ERR_MSG_MAX];
        snprintf(why, sizeof why, "a link whose target %s",
                 rc == -ENOENT ? "is gone" : "cannot be reached");
        return file_add(d, name, &(struct source_id){0}, rc, why);
    }
    if (S_ISDIR(st.st_mode))
        return problem_at(d, name, -ELOOP,
                          "a link to a directory: not followed; name the directory as a source");
    return visit_file(d, name);
}

static int visit(struct plain_dir *d, const char *name)
{
    struct stat st;
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : problem_at(d, name, -errno, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return visit_dir(d, name);
    if (S_ISLNK(st.st_mode))
        return visit_link(d, name);
    if (S_ISREG(st.st_mode))
        return visit_file(d, name);
    /* Not opened at all: opening a device may do things. */
    return named_gguf(name) ? problem_at(d, name, -EINVAL, "not a regular file") : 0;
}

static int cmp_file(const void *pa, const void *pb)
{
    const struct plain_file *a = pa, *b = pb;
    if (!a->shard || !b->shard)
        return a->shard != b->shard ? a->shard - b->shard : strcmp(a->name, b->name);
    size_t n = a->prefix_len < b->prefix_len ? a->prefix_len : b->prefix_len;
    int r = memcmp(a->name, b->name, n);
    r = r ? r : (a->prefix_len > b->prefix_len) - (a->prefix_len < b->prefix_len);
    r = r ? r : (a->count > b->count) - (a->count < b->count);
    return r ? r : (a->no > b->no) - (a->no < b->no);
}

static bool same_group(const struct plain_file *a, const struct plain_file *b)
{
    return a->shard && b->shard && a->count == b->count && a->prefix_len == b->prefix_len &&
           !memcmp(a->name, b->name, a->prefix_len);
}

/* f[0..n): one file, or shards of one model in order. */
static int add_candidate(struct plain_dir *d, const struct plain_file *f, size_t n)
{
    struct store_cand *c = store_cand_new(d->b);
    if (!c)
        return -ENOMEM;
    c->order = join(d->rel, f->name);
    c->dir = strdup(d->rel);
    c->file = strdup(f->name);
    if (!c->order || !c->dir || !c->file)
        return -ENOMEM;
    uint32_t missing = f->shard ? f->count : 0;
    for (size_t i = 0; i < n; i++) {
        char *rel = join(d->rel, f[i].name);
        int rc = rel ? store_cand_add_part(d->b, c, rel, &f[i].id, "") : -ENOMEM;
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

static int group(struct plain_dir *d)
{
    if (d->n_file)
        qsort(d->file, d->n_file, sizeof *d->file, cmp_file);
    for (size_t i = 0, end; i < d->n_file; i = end) {
        end = i + 1;
        while (end < d->n_file && same_group(&d->file[i], &d->file[end]))
            end++;
        int rc = add_candidate(d, &d->file[i], end - i);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int read_names(struct plain_dir *d, DIR *dir)
{
    struct dirent *de;
    while ((errno = 0, de = readdir(dir))) {
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

/* Takes fd. Fails only without memory; everything else is a problem line. */
static int walk(struct store_build *b, int fd, const char *rel, int depth, struct err *e)
{
    struct plain_dir d = {.b = b, .rel = rel, .depth = depth, .fd = fd};
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return err_set(e, -ENOMEM, "no memory to read a directory");
    }
    int rc = read_names(&d, dir);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++)
        rc = visit(&d, d.name[i]);
    if (rc == 0)
        rc = group(&d);
    if (rc < 0)
        err_set(e, rc, "%s, while a folder was scanned", strerror(-rc));
    for (size_t i = 0; i < d.n_name; i++)
        free(d.name[i]);
    free(d.name);
    free(d.file);
    closedir(dir);
    return rc;
}

int store_scan_plain(struct store_build *b, struct err *e)
{
    int fd = openat(b->root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: %s", b->root, strerror(-rc));
    }
    return walk(b, fd, "", 0, e);
}
