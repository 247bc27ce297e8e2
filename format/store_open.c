/* Opening what a store holds: files below the root, parts as a scan saw them, plans. */
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define OPEN_FLAGS (O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* The name of a user or group by /etc/passwd, /etc/group; "" if it is not there. No more than these files are
 * asked: a directory service can be away, and a mount, which scans under a filter, may neither open a socket
 * nor load a module for one. */
static void name_of(char dst[64], const char *file, unsigned id)
{
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t cap = 0;
    *dst = '\0';
    while (f && !*dst && getline(&line, &cap, f) > 0) { /* name:password:id:... */
        char *end = strchr(line, ':'), *no = end ? strchr(end + 1, ':') : NULL;
        if (!no || end == line || no[1] < '0' || no[1] > '9' || strtoul(no + 1, NULL, 10) != id)
            continue;
        snprintf(dst, 64, "%.*s", (int)(end - line), line);
    }
    free(line);
    if (f)
        fclose(f);
}

void store_owner_text(char *dst, size_t cap, int dir_fd, const char *name)
{
    struct stat st;
    *dst = '\0';
    if (fstatat(dir_fd, name, &st, 0) < 0)
        return;
    char owner[64], group[64];
    name_of(owner, "/etc/passwd", st.st_uid);
    if (!*owner)
        snprintf(owner, sizeof owner, "uid %u", (unsigned)st.st_uid);
    int n = snprintf(dst, cap, "owned by %s, mode %04o", owner, (unsigned)(st.st_mode & 07777));
    /* Where its group may read, joining that group is the cure. */
    mode_t need = S_ISDIR(st.st_mode) ? S_IRGRP | S_IXGRP : S_IRGRP;
    name_of(group, "/etc/group", st.st_gid);
    if ((st.st_mode & need) == need && *group && n > 0 && (size_t)n < cap)
        snprintf(dst + n, cap - (size_t)n, "; 'usermod -aG %s $USER' and log in again", group);
}

/* more: RESOLVE_ flags beyond those that keep the way below the root. */
static int open_beneath(int root_fd, const char *rel, int flags, uint64_t more)
{
    struct open_how how = {.flags = (unsigned)flags,
                           .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | more};
    /* The kernel answers EAGAIN when a rename elsewhere made the walk uncertain: ask again. */
    for (int i = 0;; i++) {
        int fd = (int)syscall(SYS_openat2, root_fd, rel, &how, sizeof how);
        if (fd >= 0 || errno != EAGAIN || i == 16)
            return fd;
    }
}

static int open_error(int rc, int dir_fd, const char *name, struct err *e)
{
    char owner[256];
    switch (rc) {
    case -EACCES:
        store_owner_text(owner, sizeof owner, dir_fd, name);
        return err_set(e, rc, "not readable%s%s", *owner ? ": " : "", owner);
    case -EXDEV:
        return err_set(e, rc, "a link that leaves the store (resolve=beneath)");
    case -ENOENT:
        return err_set(e, rc, "gone, or a link whose target is gone");
    case -ELOOP:
        return err_set(
            e, rc, "links in a circle, or a link where this kind of store has none: not followed");
    case -ENOSYS:
        return err_set(e, rc, "links cannot be refused here: that needs openat2 (Linux 5.6)");
    default:
        return err_set(e, rc, "%s", strerror(-rc));
    }
}

static int check_regular(int fd, struct stat *st, struct err *e)
{
    if (fstat(fd, st) < 0) {
        int rc = -errno;
        return err_set(e, rc, "fstat: %s", strerror(-rc));
    }
    if (S_ISDIR(st->st_mode))
        return err_set(e, -EISDIR,
                       "a link to a directory: not followed; name the directory as a source");
    return S_ISREG(st->st_mode) ? 0 : err_set(e, -EINVAL, "not a regular file");
}

/* What the link rel leads to, in target; "" if it is no link. Its folder is reached without any. */
static int read_link(char target[PATH_MAX], int root_fd, const char *rel, struct err *e)
{
    const char *name = strrchr(rel, '/');
    *target = '\0';
    if (!name || strlen(rel) >= PATH_MAX)
        return err_set(e, -EINVAL, "no file of a snapshot");
    snprintf(target, PATH_MAX, "%.*s", (int)(name - rel), rel);
    int dir = open_beneath(root_fd, target, O_PATH | O_DIRECTORY | O_CLOEXEC, RESOLVE_NO_SYMLINKS);
    if (dir < 0)
        return open_error(-errno, root_fd, target, e);
    ssize_t n = readlinkat(dir, name + 1, target, PATH_MAX - 1);
    int rc = n < 0 ? -errno : 0;
    close(dir);
    target[n < 0 ? 0 : n] = '\0';
    return rc == 0 || rc == -EINVAL ? 0 : rc;
}

/* What follows one "../" per directory of rel below its first, and "blobs/"; NULL: target is another. */
static const char *behind_blobs(const char *target, const char *rel)
{
    for (const char *p = strchr(rel, '/'); p && (p = strchr(p + 1, '/')); target += 3)
        if (strncmp(target, "../", 3))
            return NULL;
    return strncmp(target, "blobs/", 6) ? NULL : target + 6;
}

/* The way of the blob that the last component of rel leads to, below the root, in dst; "" if it is
 * no link. rel is "<repo>/snapshots/<commit>/[sub/]<file>", and only "../../blobs/<hash>" (one more
 * "../" per sub) is a link of a hub cache. */
static int hub_blob(char dst[PATH_MAX], int root_fd, const char *rel, struct err *e)
{
    char target[PATH_MAX];
    int rc = read_link(target, root_fd, rel, e);
    *dst = '\0';
    if (rc < 0)
        return open_error(rc, root_fd, rel, e);
    if (!*target)
        return 0; /* a file: links were impossible when it was written */
    const char *hash = behind_blobs(target, rel);
    if (!hash || !name_part_ok(hash, strlen(hash)))
        return err_set(e, -EXDEV, "a link to '%.200s', not to a file of the repository's blobs/",
                       target);
    if (snprintf(dst, PATH_MAX, "%.*s/blobs/%s", (int)strcspn(rel, "/"), rel, hash) >= PATH_MAX)
        return err_set(e, -ENAMETOOLONG, "a link to a name that is too long");
    return 0;
}

static bool is_sha256(const char *s)
{
    return strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static int open_by(enum store_how how, int root_fd, const char *rel, int dir_fd, const char *name,
                   int flags)
{
    if (how == STORE_HOW_ANY)
        return openat(dir_fd, name, flags);
    return open_beneath(root_fd, rel, flags, how == STORE_HOW_BENEATH ? 0 : RESOLVE_NO_SYMLINKS);
}

/* The file behind rel (name in dir_fd), a regular one; blob: its name where it is a hub's. */
static int open_regular(enum store_how how, int root_fd, const char *rel, int dir_fd,
                        const char *name, const char *blob, struct source_id *id, struct err *e)
{
    /* First without opening: that alone may do things to a device, or let a pipe's writer go on. */
    static const int step[] = {O_PATH | O_CLOEXEC, OPEN_FLAGS};
    for (int i = 0;; i++) {
        int fd = open_by(how, root_fd, rel, dir_fd, name, step[i]);
        if (fd < 0 && errno == ENOENT && blob)
            return err_set(e, -ENOENT, "blob %.100s is gone", blob);
        if (fd < 0)
            return open_error(-errno, dir_fd, name, e);
        struct stat st;
        int rc = check_regular(fd, &st, e);
        if (rc == 0 && i == 1) {
            *id = source_id_of(&st);
            return fd;
        }
        close(fd);
        if (rc < 0)
            return rc;
    }
}

/* Since huggingface_hub 2 a blob may be a link into the cache's one store of blobs:
 * "../../blobs/<xx>/<xx...>", named by another hash (Xet's) of 64 digits. way, a link, becomes that. */
static int hub_shared(char way[PATH_MAX], int root_fd, struct err *e)
{
    char target[PATH_MAX];
    int rc = read_link(target, root_fd, way, e);
    if (rc == -ENOENT || (rc == 0 && !*target))
        return 0; /* what is there, or not, is seen when it is opened */
    if (rc < 0)
        return open_error(rc, root_fd, way, e);
    const char *p = strncmp(target, "../../blobs/", 12) ? NULL : target + 12;
    if (!p || strlen(p) != 67 || p[2] != '/' || !is_sha256(p + 3) || strncmp(p, p + 3, 2))
        return err_set(e, -EXDEV, "the blob is a link to '%.200s', not into the cache's blobs/",
                       target);
    snprintf(way, PATH_MAX, "blobs/%s", p);
    return 0;
}

int store_open_hub(int root_fd, const char *rel, struct source_id *id, char sha256[65],
                   struct err *e)
{
    char way[PATH_MAX], blob[256];
    *sha256 = '\0';
    int rc = hub_blob(way, root_fd, rel, e);
    if (rc == 0 && !*way)
        return open_regular(STORE_HOW_HUB, root_fd, rel, root_fd, rel, NULL, id, e);
    if (rc < 0)
        return rc;
    snprintf(blob, sizeof blob, "%s", strrchr(way, '/') + 1);
    if (is_sha256(blob))
        memcpy(sha256, blob, 65);
    int fd = open_regular(STORE_HOW_HUB, root_fd, way, root_fd, way, blob, id, e);
    if (fd != -ELOOP)
        return fd;
    rc = hub_shared(way, root_fd, e);
    return rc < 0 ? rc : open_regular(STORE_HOW_HUB, root_fd, way, root_fd, way, blob, id, e);
}

int store_open_file(int root_fd, enum store_how how, const char *rel, int dir_fd, const char *name,
                    struct source_id *id, struct err *e)
{
    char sha256[65];
    if (how == STORE_HOW_HUB)
        return store_open_hub(root_fd, rel, id, sha256, e);
    if (dir_fd < 0) {
        dir_fd = root_fd;
        name = rel;
    }
    return open_regular(how, root_fd, rel, dir_fd, name, NULL, id, e);
}

int store_part_open(struct source **out, const struct store *s, const struct store_part *p,
                    struct err *e)
{
    size_t n = strcmp(s->root, "/") ? strlen(s->root) : 0;
    int root = open(s->root, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0) {
        int rc = -errno;
        return err_set(e, rc, "%s: %s", s->root, strerror(-rc));
    }
    struct source_id now;
    int fd = store_open_file(root, p->how, p->path + n + 1, -1, NULL, &now, e);
    close(root);
    if (fd < 0) {
        err_wrap(e, "%s", p->path);
        return fd;
    }
    if (!source_id_equal(&now, &p->id)) {
        close(fd);
        return err_set(e, -ESTALE,
                       "%s: changed since the store was scanned (was %" PRIu64 " bytes, is %" PRIu64
                       ")",
                       p->path, p->id.size, now.size);
    }
    return source_from_fd(out, fd, p->path, e);
}

static int plan_apr(struct store_plan *p, const struct store *s, struct err *e)
{
    int rc = gguf_open(&p->gguf, p->part, p->n_part, e);
    if (rc == 0)
        rc = vapr_new(&p->vapr, p->gguf, &s->opt.vapr, e);
    if (rc == 0)
        p->plan = vapr_plan(p->vapr);
    return rc;
}

static int plan_gguf(struct store_plan *p, struct err *e)
{
    int rc = apr_open(&p->apr, p->part[0], e);
    if (rc == 0)
        rc = vgguf_new(&p->vgguf, p->apr, e);
    if (rc < 0)
        return rc;
    p->gguf = (struct gguf *)(uintptr_t)vgguf_gguf(p->vgguf);
    p->plan = vgguf_plan(p->vgguf);
    return 0;
}

static int plan_fill(struct store_plan *p, const struct store *s, const struct store_entry *en,
                     struct err *e)
{
    p->part = calloc((size_t)en->n_part + 1, sizeof(struct source *));
    if (!p->part)
        return err_set(e, -ENOMEM, "no memory for %d parts", en->n_part);
    for (; p->n_part < en->n_part; p->n_part++) {
        int rc = store_part_open(&p->part[p->n_part], s, &en->part[p->n_part], e);
        if (rc < 0)
            return rc;
    }
    int rc = s->opt.view == STORE_VIEW_GGUF ? plan_gguf(p, e) : plan_apr(p, s, e);
    /* A file that moved under the parser may look like anything: say what really happened. */
    for (int i = 0; i < p->n_part; i++) {
        int moved = source_check(p->part[i], e);
        if (moved < 0)
            return moved;
    }
    if (rc == 0 && en->size && p->plan->size != en->size)
        rc = err_set(e, -EIO, "%s: planned at %" PRIu64 " bytes, the scan said %" PRIu64,
                     en->part[0].path, p->plan->size, en->size);
    return rc;
}

int store_plan_open(struct store_plan **out, const struct store *s, const struct store_entry *en,
                    struct err *e)
{
    if (en->role != STORE_MODEL || en->n_part < 1)
        return err_set(e, -EINVAL, "%s: role %s has no plan",
                       en->n_part ? en->part[0].path : en->stem, store_role_name(en->role));
    struct store_plan *p = calloc(1, sizeof *p);
    int rc = p ? plan_fill(p, s, en, e) : err_set(e, -ENOMEM, "no memory for a plan");
    if (rc < 0) {
        store_plan_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void store_plan_close(struct store_plan *p)
{
    if (!p)
        return;
    vapr_free(p->vapr);
    if (!p->vgguf)
        gguf_close(p->gguf);
    vgguf_free(p->vgguf);
    apr_close(p->apr);
    for (int i = 0; i < p->n_part; i++)
        source_close(p->part[i]);
    free(p->part);
    free(p);
}

uint64_t store_head_len(const struct vplan *p)
{
    uint64_t n = 0;
    for (size_t i = 0; i < p->n_seg; i++)
        n += p->seg[i].kind == VSEG_MEM ? p->seg[i].len : 0;
    return n;
}

int64_t store_entry_mtime_ns(const struct store_entry *en)
{
    int64_t newest = en->n_part ? en->part[0].id.mtime_ns : 0;
    for (int i = 1; i < en->n_part; i++)
        if (en->part[i].id.mtime_ns > newest)
            newest = en->part[i].id.mtime_ns;
    return newest;
}
