/* The index on disk: see index.h. */
#include "fs/index.h"

#include "format/name.h"
#include "format/store_index.h"
#include "fs/cache_dir.h"
#include "fs/clock.h"
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define EVERY_MS     5000
#define LOCK_POLL_MS 10
#define LOCK_LAST_MS 1000
#define NAME_LEN     21 /* 16 digits, ".idx", NUL */

struct index {
    char *dir;
    int fd;
    char (*name)[NAME_LEN]; /* per source */
    size_t n;
    bool dirty;        /* noted and not written */
    uint64_t wrote_ms; /* when it last was; 0: never */
    bool failed;       /* it could not be written: said once */
    /* For index_describe(). */
    pthread_mutex_t mu;
    char why_not[ERR_MSG_MAX]; /* nothing is kept, or it could not be written: why; "" */
    size_t n_known, n_record;  /* records read at the start, and in what was written last */
    unsigned n_write;
};

static void why_not(struct index *ix, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void why_not(struct index *ix, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    pthread_mutex_lock(&ix->mu);
    vsnprintf(ix->why_not, sizeof ix->why_not, fmt, ap);
    pthread_mutex_unlock(&ix->mu);
    va_end(ap);
}

/* ---- the folder ---- */

/* The file of one source. */
static bool name_of(char dst[NAME_LEN], const char *path)
{
    uint8_t md[EVP_MAX_MD_SIZE];
    char *real = realpath(path, NULL);
    bool ok = real && EVP_Digest(real, strlen(real), md, NULL, EVP_sha256(), NULL);
    for (int i = 0; ok && i < 8; i++)
        snprintf(dst + 2 * i, 3, "%02x", md[i]);
    if (ok)
        memcpy(dst + 16, ".idx", 5);
    free(real);
    return ok;
}

/* Finds, makes and opens the folder; -1: nothing is kept. */
static int find_dir(struct index *ix, const char *dir)
{
    if (dir && strcmp(dir, "none") == 0) {
        why_not(ix, "none");
        return -1;
    }
    ix->dir = dir ? strdup(dir) : cache_dir_path();
    if (!ix->dir) {
        why_not(ix, "no cache folder is known (no HOME)");
        log_line(LOG_NOTE, "index: %s; working without", ix->why_not);
        return -1;
    }
    struct err e = {0};
    int fd = cache_dir_open(ix->dir, &e);
    if (fd < 0) {
        why_not(ix, "%s", e.msg);
        log_line(LOG_WARN, "index: %s; working without", ix->why_not);
    }
    return fd;
}

struct index *index_new(const char *dir, const struct sources *sources)
{
    struct index *ix = calloc(1, sizeof *ix);
    if (!ix)
        return NULL;
    pthread_mutex_init(&ix->mu, NULL);
    ix->fd = -1;
    ix->name = calloc(sources->n, sizeof *ix->name);
    if (ix->name)
        ix->fd = find_dir(ix, dir);
    for (; ix->fd >= 0 && ix->n < sources->n; ix->n++)
        if (!name_of(ix->name[ix->n], sources->src[ix->n].path))
            ix->name[ix->n][0] = '\0'; /* the scan says what is wrong with it */
    return ix;
}

void index_free(struct index *ix)
{
    if (!ix)
        return;
    if (ix->fd >= 0)
        close(ix->fd);
    pthread_mutex_destroy(&ix->mu);
    free(ix->name);
    free(ix->dir);
    free(ix);
}

const char *index_dir(const struct index *ix)
{
    return ix && ix->fd >= 0 ? ix->dir : NULL;
}

/* ---- reading ---- */

/* All of the file, malloc'ed; NULL with *why (NULL: it is not there). */
static uint8_t *slurp(int dir_fd, const char *name, size_t *n, const char **why)
{
    struct stat st;
    uint8_t *p = NULL;
    *why = NULL;
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        *why = errno == ENOENT ? NULL : errno == ELOOP ? "is a link" : strerror(errno);
        return NULL;
    }
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        *why = "is no regular file";
    else if (cache_dir_not_ours(&st))
        *why = cache_dir_not_ours(&st);
    else if (st.st_size > STORE_INDEX_MAX)
        *why = "is larger than any index";
    else if (!(p = malloc((size_t)st.st_size + 1)))
        *why = "no memory";
    *n = 0;
    while (p && *n < (size_t)st.st_size) {
        ssize_t got = read(fd, p + *n, (size_t)st.st_size - *n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break; /* shorter now: the reader tells */
        *n += (size_t)got;
    }
    close(fd);
    return p;
}

/* One source's index; false: there is none to be used. Says why, unless quiet. */
static bool read_one(struct index *ix, size_t i, const struct store_options *opt,
                     struct store_index *out, bool quiet)
{
    const char *why;
    size_t n;
    struct err e = {0};
    if (!ix->name[i][0])
        return false;
    uint8_t *p = slurp(ix->fd, ix->name[i], &n, &why);
    if (!p) {
        if (why && !quiet)
            log_line(LOG_WARN, "index: %s/%s %s; working without it", ix->dir, ix->name[i], why);
        if (why)
            ix->name[i][0] = '\0'; /* not ours to replace */
        return false;
    }
    int rc = store_index_read(out, p, n, opt, &e);
    free(p);
    if (rc == -EUCLEAN || rc == -ESTALE) {
        unlinkat(ix->fd, ix->name[i], 0);
        if (!quiet)
            log_line(LOG_NOTE, "index: %s/%s: %s; removed, made anew", ix->dir, ix->name[i], e.msg);
    }
    return rc == 0;
}

struct store_set *index_read(struct index *ix, const struct sources *sources,
                             const struct store_options *opt)
{
    struct store_set *set = index_dir(ix) ? calloc(1, sizeof *set) : NULL;
    if (!set)
        return NULL;
    set->store = calloc(ix->n, sizeof(struct store *));
    set->label = calloc(ix->n, sizeof(char *));
    if (!set->store || !set->label) {
        store_set_free(set);
        return NULL;
    }
    for (set->n = 0; set->n < ix->n; set->n++) {
        struct store_index one = {0};
        struct store_options o = *opt; /* as store_set_scan() takes them */
        if (sources->src[set->n].kind != STORE_AUTO)
            o.kind = sources->src[set->n].kind;
        if (read_one(ix, set->n, &o, &one, false)) {
            set->store[set->n] = one.store;
            free(one.seen_s);
            pthread_mutex_lock(&ix->mu);
            ix->n_known += one.store->n_entry;
            pthread_mutex_unlock(&ix->mu);
        }
    }
    return set;
}

/* ---- writing ---- */

void index_note(struct index *ix, const struct store_set *set, bool changed)
{
    if (changed || store_set_n_parsed(set))
        index_touch(ix);
}

void index_touch(struct index *ix)
{
    if (index_dir(ix))
        ix->dirty = true;
}

int index_due_in(const struct index *ix)
{
    if (!ix || !ix->dirty)
        return -1;
    uint64_t now = clock_ms(), at = ix->wrote_ms ? ix->wrote_ms + EVERY_MS : 0;
    return at > now ? (int)(at - now) : 0;
}

static int write_all(int fd, const uint8_t *p, size_t n)
{
    while (n) {
        ssize_t put = write(fd, p, n);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return -errno;
        p += put;
        n -= (size_t)put;
    }
    return fsync(fd) < 0 ? -errno : 0;
}

/* Puts the bytes in the place of name, whole or not at all. The folder is locked, so the temporary name
 * is ours: what has it is what a crash left. */
static int replace(int dir_fd, const char *name, const uint8_t *p, size_t n)
{
    char temp[NAME_LEN + 4];
    snprintf(temp, sizeof temp, "%s.new", name);
    unlinkat(dir_fd, temp, 0);
    int fd = openat(dir_fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    int rc = write_all(fd, p, n);
    close(fd);
    if (rc == 0 && renameat(dir_fd, temp, dir_fd, name) < 0)
        rc = -errno;
    if (rc < 0)
        unlinkat(dir_fd, temp, 0);
    else
        fsync(dir_fd);
    return rc;
}

/* *n_record is counted up. */
static int write_one(struct index *ix, size_t i, const struct store *s, size_t *n_record,
                     struct err *e)
{
    /* As it is now: another mount of the same source may have written it meanwhile. */
    struct store_index old = {0};
    bool has_old = read_one(ix, i, &s->opt, &old, true);
    if (!ix->name[i][0] && !s->root_rc)
        return err_set(e, -EPERM,
                       "none is kept of %s: its file is not ours to replace, or the source was not "
                       "there at the start",
                       s->root);
    if (has_old && strcmp(old.store->root, s->root) != 0) {
        store_index_release(&old);
        has_old = false;
    }
    uint8_t *p = NULL;
    size_t n;
    int rc = 0;
    if (ix->name[i][0])
        rc = store_index_write(&p, &n, s, has_old ? &old : NULL, (int64_t)time(NULL), e);
    if (rc == 0 && p && (rc = replace(ix->fd, ix->name[i], p, n)) < 0)
        err_set(e, rc, "%s/%s: %s", ix->dir, ix->name[i], strerror(-rc));
    if (rc == 0 && p)
        *n_record += store_index_count(p);
    free(p);
    store_index_release(&old);
    return rc;
}

/* The folder for us alone; ms: to wait for it. */
static bool lock_dir(struct index *ix, unsigned ms)
{
    for (unsigned waited = 0; flock(ix->fd, LOCK_EX | LOCK_NB) < 0; waited += LOCK_POLL_MS) {
        if (errno != EINTR && (errno != EWOULDBLOCK || waited >= ms))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
    return true;
}

void index_write(struct index *ix, const struct store_set *set, bool last)
{
    if (!ix || !ix->dirty)
        return;
    ix->wrote_ms = clock_ms();
    if (!lock_dir(ix, last ? LOCK_LAST_MS : 0))
        return;
    struct err e = {0};
    size_t n = 0;
    bool failed = false;
    for (size_t i = 0; i < set->n && i < ix->n; i++) { /* each by itself */
        struct err one = {0};
        if (write_one(ix, i, set->store[i], &n, &one) == 0)
            continue;
        if (!ix->failed)
            log_line(LOG_WARN, "index: %s; the next start may parse again", one.msg);
        e = one;
        failed = true;
    }
    flock(ix->fd, LOCK_UN);
    ix->dirty = false;
    why_not(ix, "%s", e.msg);
    pthread_mutex_lock(&ix->mu);
    ix->n_write++;
    ix->n_record = n;
    pthread_mutex_unlock(&ix->mu);
    ix->failed = failed;
}

void index_describe(struct index *ix, char *dst, size_t size)
{
    if (!ix) {
        snprintf(dst, size, "index: none, no memory");
        return;
    }
    pthread_mutex_lock(&ix->mu);
    char *dir = index_dir(ix) ? name_escape(ix->dir) : NULL;
    if (!index_dir(ix))
        snprintf(dst, size, "index: %s%s", strcmp(ix->why_not, "none") ? "none, " : "",
                 ix->why_not);
    else
        snprintf(dst, size, "index: %s, %zu records known at the start, written %u times%s%s",
                 dir ? dir : "?", ix->n_known, ix->n_write, *ix->why_not ? ", not the last: " : "",
                 ix->why_not);
    size_t n = strlen(dst);
    if (index_dir(ix) && ix->n_write && n < size)
        snprintf(dst + n, size - n, ", now %zu records", ix->n_record);
    free(dir);
    pthread_mutex_unlock(&ix->mu);
}
