#include "infer/verdict.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 4096 /* several times what a verdict takes */

struct text {
    char s[FILE_MAX];
    size_t n;
};

static const enum probe_metric kept[] = {PROBE_NMSE, PROBE_COSINE, PROBE_KL, PROBE_GREEDY};
static const char *const kept_name[] = {"nmse", "cosine", "kl", "greedy"};
#define N_KEPT (sizeof kept / sizeof kept[0])

__attribute__((format(printf, 2, 3))) static void put(struct text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(t->s + t->n, sizeof t->s - t->n, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof t->s - t->n)
        t->n = sizeof t->s - 1; /* full: key_text refuses */
    else
        t->n += (size_t)n;
}

static void put_hex(struct text *t, const char *name, const uint8_t *p, size_t n)
{
    put(t, "%s ", name);
    for (size_t i = 0; i < n; i++)
        put(t, "%02x", p[i]);
    put(t, "\n");
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* The key's lines: what the name is the hash of, and how every file begins. */
static int key_text(const struct verdict_key *k, struct text *t, struct err *e)
{
    t->n = 0;
    if (k->build_len == 0)
        return err_set(e, -EINVAL, "this program was linked without a build id");
    if (all_zero(k->model, sizeof k->model))
        return err_set(e, -EINVAL, "the model has no digest");
    if (!k->device[0] || strchr(k->device, '\n') || strchr(k->route, '\n'))
        return err_set(e, -EINVAL, "the device has no name of one line");
    put(t, "aprd verdict 1\n");
    put_hex(t, "model", k->model, sizeof k->model);
    put(t, "device %s\n", k->device);
    put_hex(t, "build", k->build, k->build_len);
    put(t, "route %s\n", k->route);
    put_hex(t, "probe", k->probe, sizeof k->probe);
    return t->n < FILE_MAX / 2 ? 0 : err_set(e, -EINVAL, "the device's name is too long");
}

static void put_result(struct text *t, const struct probe_result *r)
{
    put(t, "positions %" PRIu32 "\nequal %" PRIu32 "\n", r->n, r->n_equal);
    for (size_t i = 0; i < N_KEPT; i++)
        put(t, "%s %.17g %" PRIu32 "\n", kept_name[i], r->metric[kept[i]].worst,
            r->metric[kept[i]].pos);
    put(t, "passed\n");
}

static int name_of(const struct text *key, char name[65], struct err *e)
{
    uint8_t sum[EVP_MAX_MD_SIZE];
    if (EVP_Digest(key->s, key->n, sum, NULL, EVP_sha256(), NULL) != 1)
        return err_set(e, -EIO, "SHA-256 failed");
    for (int i = 0; i < 32; i++)
        snprintf(name + 2 * i, 3, "%02x", sum[i]);
    return 0;
}

/* --- the folder ---------------------------------------------------------------------------- */

/* Opens dir's folder name (made where it lacks, if make), which must be ours alone to write: who
 * can put files there can put verdicts there. follow: the user's own choice of a place may be a
 * link. */
static int open_ours(int dir, const char *name, bool make, bool follow, struct err *e)
{
    struct stat st;
    int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW);
    if (make && mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
        return err_set(e, -errno, "folder '%s': %s", name, strerror(errno));
    int fd = openat(dir, name, flags);
    if (fd < 0)
        return err_set(e, -errno, "folder '%s': %s", name, strerror(errno));
    int rc = 0;
    if (fstat(fd, &st) < 0)
        rc = err_set(e, -errno, "folder '%s': %s", name, strerror(errno));
    else if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        rc = err_set(e, -EPERM, "folder '%s': owner %u, mode %o: others can write there", name,
                     (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
    if (rc < 0) {
        close(fd);
        return rc;
    }
    return fd;
}

/* A file descriptor of the verdicts' folder. */
static int open_folder(bool make, struct err *e)
{
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char path[PATH_MAX];
    int n = 0;
    /* XDG Base Directory Specification 0.8: a path that is not absolute is to be ignored. */
    if (base && base[0] == '/')
        n = snprintf(path, sizeof path, "%s", base);
    else if (home && home[0] == '/')
        n = snprintf(path, sizeof path, "%s/.cache", home);
    else
        return err_set(e, -EINVAL, "neither XDG_CACHE_HOME nor HOME names a folder");
    if (n < 0 || (size_t)n >= sizeof path)
        return err_set(e, -ENAMETOOLONG, "the cache folder's path is too long");
    static const char *const below[] = {"aprd", "verdicts"};
    int fd = open_ours(AT_FDCWD, path, make, true, e);
    for (int i = 0; i < 2 && fd >= 0; i++) {
        int up = fd;
        fd = open_ours(up, below[i], make, false, e);
        close(up);
    }
    return fd;
}

/* --- reading ------------------------------------------------------------------------------- */

static int read_file(int dir, const char *name, struct text *t, struct err *e)
{
    struct stat st;
    /* O_NONBLOCK: a pipe of this name must not hold us up. */
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return err_set(e, -errno, "verdict %s: %s", name, strerror(errno));
    int rc = 0;
    ssize_t n = 0;
    t->n = 0;
    if (fstat(fd, &st) < 0)
        rc = err_set(e, -errno, "verdict %s: %s", name, strerror(errno));
    else if (!S_ISREG(st.st_mode) || st.st_size >= FILE_MAX)
        rc = err_set(e, -EUCLEAN, "verdict %s: no file of ours", name);
    else if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
        rc = err_set(e, -EPERM, "verdict %s: others can write it", name);
    while (rc == 0 && t->n < FILE_MAX - 1) {
        n = read(fd, t->s + t->n, FILE_MAX - 1 - t->n);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = err_set(e, -errno, "verdict %s: %s", name, strerror(errno));
        if (n <= 0)
            break;
        t->n += (size_t)n;
    }
    t->s[t->n] = 0;
    close(fd);
    return rc;
}

/* The lines behind the key. Loose by itself: verdict_load demands the very bytes that put_result()
 * makes of what was read. */
static bool parse_result(const char *s, struct probe_result *r)
{
    int n = 0;
    if (sscanf(s, "positions %" SCNu32 " equal %" SCNu32 "%n", &r->n, &r->n_equal, &n) != 2)
        return false;
    for (size_t i = 0; i < N_KEPT; i++) {
        struct probe_value *v = &r->metric[kept[i]];
        char word[16];
        s += n;
        if (sscanf(s, "%15s %lf %" SCNu32 "%n", word, &v->worst, &v->pos, &n) != 3 ||
            strcmp(word, kept_name[i]) != 0)
            return false;
        v->n_bad = !(v->worst >= 0 && v->worst <= probe_limit(kept[i])) || v->pos >= r->n;
    }
    r->n_done = r->n;
    r->bad_layer = -1;
    return r->n_equal <= r->n;
}

static bool passes(const struct verdict_key *k, const struct probe_result *r)
{
    return r->n == k->n_pos && probe_gate_passed(r, PROBE_PARITY) && probe_gate_passed(r, PROBE_F2);
}

int verdict_load(const struct verdict_key *k, struct probe_result *r, struct err *e)
{
    struct text want, file;
    struct probe_result found = {0};
    char name[65];
    int rc = key_text(k, &want, e);
    if (rc == 0)
        rc = name_of(&want, name, e);
    if (rc < 0)
        return rc;
    int dir = open_folder(false, e);
    if (dir < 0)
        return dir;
    rc = read_file(dir, name, &file, e);
    close(dir);
    if (rc < 0)
        return rc;
    if (file.n < want.n || memcmp(file.s, want.s, want.n) != 0)
        return err_set(e, -EUCLEAN, "verdict %s: is of another model, device, build or route",
                       name);
    if (parse_result(file.s + want.n, &found))
        put_result(&want, &found);
    if (file.n != want.n || memcmp(file.s, want.s, want.n) != 0 || !passes(k, &found))
        return err_set(e, -EUCLEAN, "verdict %s: is no verdict", name);
    *r = found;
    return 0;
}

/* --- writing ------------------------------------------------------------------------------- */

static int write_all(int fd, const struct text *t)
{
    for (size_t at = 0; at < t->n;) {
        ssize_t n = write(fd, t->s + at, t->n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        at += (size_t)n;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* Under another name first: who reads finds all of it or nothing. */
static int write_file(int dir, const char *name, const struct text *t, struct err *e)
{
    uint64_t no;
    char tmp[32];
    if (getrandom(&no, sizeof no, 0) != sizeof no)
        return err_set(e, -EIO, "no random name: %s", strerror(errno));
    snprintf(tmp, sizeof tmp, ".new-%016" PRIx64, no);
    int fd = openat(dir, tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_set(e, -errno, "verdict %s: %s", name, strerror(errno));
    int rc = write_all(fd, t);
    if (close(fd) < 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && renameat(dir, tmp, dir, name) < 0)
        rc = -errno;
    if (rc < 0)
        unlinkat(dir, tmp, 0);
    else if (fsync(dir) < 0)
        rc = -errno;
    return rc < 0 ? err_set(e, rc, "verdict %s: %s", name, strerror(-rc)) : 0;
}

int verdict_store(const struct verdict_key *k, const struct probe_result *r, struct err *e)
{
    struct text t;
    char name[65];
    if (!passes(k, r))
        return err_set(e, -EINVAL, "no pass: such a verdict is not kept");
    int rc = key_text(k, &t, e);
    if (rc == 0)
        rc = name_of(&t, name, e);
    if (rc < 0)
        return rc;
    put_result(&t, r);
    int dir = open_folder(true, e);
    if (dir < 0)
        return dir;
    rc = write_file(dir, name, &t, e);
    close(dir);
    return rc;
}

int verdict_drop(const struct verdict_key *k, struct err *e)
{
    struct text t;
    struct err nothing_there = {0};
    char name[65];
    if (key_text(k, &t, &nothing_there) < 0)
        return 0;
    int rc = name_of(&t, name, e);
    int dir = rc < 0 ? rc : open_folder(false, &nothing_there);
    if (dir < 0)
        return rc;
    if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
        rc = err_set(e, -errno, "verdict %s: %s", name, strerror(errno));
    close(dir);
    return rc;
}
