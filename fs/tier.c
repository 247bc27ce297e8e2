/* Tiers: see tier.h. One lock; composing, registering and looking at programs happen without it. */
#include "fs/tier.h"

#include "format/name.h"
#include "fs/broker.h"
#include "fs/compat.h"
#include "fs/log.h"
#include "fs/pinned.h"
#include "fs/vfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define N_BUCKET   64
#define N_DEV      32 /* file systems remembered; further ones are tried at each first open */
#define MAX_FAILED 3
#define COMM_LEN   15 /* as the kernel cuts names */

enum file_state { FILE_NEW, FILE_BUSY, FILE_1A, FILE_2 };

struct tier_file {
    uint64_t ino;
    enum file_state state;
    int n_open;
    int32_t id;        /* FILE_1A */
    time_t idle_until; /* FILE_1A without an open */
    char why[200];     /* FILE_2 */
    struct tier_file *next;
};

struct tier_dev {
    uint64_t dev;
    bool used, told;
    int rc;
    char why[200];
};

struct tiers {
    struct tiers_options opt;
    struct broker *broker;
    pthread_mutex_t mu;
    pthread_cond_t changed; /* a file's state; for the reaper: something is idle, or the end */
    struct tier_file *bucket[N_BUCKET];
    struct tier_dev dev[N_DEV];
    int n_failed; /* in a row */
    bool off;
    bool stopping, reaper_runs;
    pthread_t reaper;
    struct tiers_stats stats;
};

static time_t now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec;
}

static int broker_open_cb(void *ctx, int fd, int32_t *id)
{
    return broker_backing_open(((struct tiers *)ctx)->broker, fd, id);
}

static int broker_close_cb(void *ctx, int32_t id)
{
    return broker_backing_close(((struct tiers *)ctx)->broker, id);
}

int tiers_new(struct tiers **out, const struct tiers_options *opt, struct err *e)
{
    struct tiers *t = calloc(1, sizeof *t);
    pthread_condattr_t attr;
    if (!t)
        return err_set(e, -ENOMEM, "no memory for the tiers");
    t->opt = *opt;
    t->opt.sys = opt->sys ? opt->sys : &compose_sys;
    if (!opt->backing_open) {
        t->opt.backing_open = broker_open_cb;
        t->opt.backing_close = broker_close_cb;
        t->opt.ctx = t;
    }
    pthread_mutex_init(&t->mu, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&t->changed, &attr);
    pthread_condattr_destroy(&attr);
    *out = t;
    return 0;
}

void tiers_set_broker(struct tiers *t, struct broker *b)
{
    t->broker = b;
}

void tiers_stop(struct tiers *t)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->mu);
    t->stopping = true;
    bool join = t->reaper_runs;
    t->reaper_runs = false;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->mu);
    if (join)
        pthread_join(t->reaper, NULL);
}

void tiers_free(struct tiers *t)
{
    if (!t)
        return;
    tiers_stop(t);
    /* The ids that are left end with the connection. */
    for (int i = 0; i < N_BUCKET; i++)
        while (t->bucket[i]) {
            struct tier_file *f = t->bucket[i];
            t->bucket[i] = f->next;
            free(f);
        }
    pthread_cond_destroy(&t->changed);
    pthread_mutex_destroy(&t->mu);
    free(t);
}

/* --- files, under mu ---------------------------------------------------------------------- */

static struct tier_file **file_slot(struct tiers *t, uint64_t ino)
{
    struct tier_file **p = &t->bucket[ino % N_BUCKET];
    while (*p && (*p)->ino != ino)
        p = &(*p)->next;
    return p;
}

static void file_drop(struct tiers *t, struct tier_file *f)
{
    struct tier_file **p = file_slot(t, f->ino);
    *p = f->next;
    free(f);
}

/* Closes the ids whose time is over; the next time one's is, or 0. */
static time_t reap(struct tiers *t)
{
    time_t next = 0;
    for (int i = 0; i < N_BUCKET; i++)
        for (struct tier_file **p = &t->bucket[i]; *p;) {
            struct tier_file *f = *p;
            bool idle = f->state == FILE_1A && f->n_open == 0;
            if (idle && f->idle_until <= now_s()) {
                /* Out of the table first: who comes now composes anew, the kernel has let go of this. */
                *p = f->next;
                int32_t id = f->id;
                t->stats.kept--;
                free(f);
                pthread_mutex_unlock(&t->mu);
                t->opt.backing_close(t->opt.ctx, id);
                pthread_mutex_lock(&t->mu);
                p = &t->bucket[i];
                continue;
            }
            if (idle && (next == 0 || f->idle_until < next))
                next = f->idle_until;
            p = &f->next;
        }
    return next;
}

static void *reaper_main(void *ctx)
{
    struct tiers *t = ctx;
    pthread_mutex_lock(&t->mu);
    while (!t->stopping) {
        time_t next = reap(t);
        if (t->stopping)
            break;
        if (next) {
            struct timespec until = {.tv_sec = next};
            pthread_cond_timedwait(&t->changed, &t->mu, &until);
        } else {
            pthread_cond_wait(&t->changed, &t->mu);
        }
    }
    pthread_mutex_unlock(&t->mu);
    return NULL;
}

static void reaper_start(struct tiers *t)
{
    if (!t->reaper_runs && !t->stopping)
        t->reaper_runs = pthread_create(&t->reaper, NULL, reaper_main, t) == 0;
}

/* --- file systems ------------------------------------------------------------------------- */

static struct tier_dev *dev_find(struct tiers *t, uint64_t dev)
{
    for (int i = 0; i < N_DEV; i++)
        if (t->dev[i].used && t->dev[i].dev == dev)
            return &t->dev[i];
    return NULL;
}

static struct tier_dev *dev_add(struct tiers *t, uint64_t dev)
{
    struct tier_dev *d = dev_find(t, dev);
    for (int i = 0; !d && i < N_DEV; i++)
        if (!t->dev[i].used)
            d = &t->dev[i];
    if (d && !d->used)
        *d = (struct tier_dev){.dev = dev, .used = true};
    return d;
}

static void say_why(char *why, size_t size, const char *dir, const char *step, int rc)
{
    if (strcmp(step, "clone") == 0 && (rc == -EOPNOTSUPP || rc == -ENOTTY || rc == -ENOSYS))
        snprintf(why, size, "source file system has no reflink");
    else if (strcmp(step, "clone") == 0 && rc == -EXDEV)
        snprintf(why, size, "%s is on another file system than the source (compose_dir=)", dir);
    else if (strcmp(step, "register") == 0 && rc == -ELOOP)
        snprintf(why, size, "source file system is stacked on another");
    else
        snprintf(why, size, "%s in %s: %s", step, dir, strerror(-rc));
}

/* Where composed files of vf go. */
static const char *dir_of(const struct tiers *t, const struct vfile *vf, char buf[PATH_MAX])
{
    if (!t->opt.dir || strcmp(t->opt.dir, TIERS_DIR_STORE) != 0)
        return t->opt.dir;
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", pinned_fd(vfile_pins(vf), 0));
    ssize_t n = readlink(link, buf, PATH_MAX - 1);
    if (n <= 0)
        return NULL;
    buf[n] = '\0';
    char *slash = strrchr(buf, '/');
    if (!slash || slash == buf)
        return NULL;
    *slash = '\0';
    return buf;
}

static int register_fd(struct tiers *t, int fd, int32_t *id, const char **step)
{
    int rc = t->opt.backing_open(t->opt.ctx, fd, id);
    *step = "register";
    return rc == 0 && *id <= 0 ? -EIO : rc;
}

/* Says nothing about the file system. */
static bool is_passing(int rc)
{
    return rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -EINTR;
}

/* Tries vf's file system, once; 0 or what it said, with why. *passed: it was tried now, and what it said is
 * not remembered. */
static int dev_probe(struct tiers *t, struct vfile *vf, const char *dir, bool *passed, char *why,
                     size_t size)
{
    uint64_t dev = pinned_dev(vfile_pins(vf), 0);
    pthread_mutex_lock(&t->mu);
    struct tier_dev *d = dev_find(t, dev);
    int rc = d ? d->rc : 1;
    if (d)
        snprintf(why, size, "%s", d->why);
    pthread_mutex_unlock(&t->mu);
    if (rc <= 0)
        return rc;
    const char *step = "";
    struct err e;
    int fd = -1;
    int32_t id = 0;
    rc = compose_probe(&fd, vf, dir, t->opt.sys, &step, &e);
    if (rc == 0)
        rc = register_fd(t, fd, &id, &step);
    if (fd >= 0)
        close(fd);
    if (rc == 0)
        t->opt.backing_close(t->opt.ctx, id);
    else
        say_why(why, size, dir, step, rc);
    *passed = is_passing(rc);
    if (*passed)
        return rc;
    pthread_mutex_lock(&t->mu);
    d = dev_add(t, dev);
    bool tell = d && !d->told && rc < 0;
    if (d) {
        d->rc = rc;
        d->told = d->told || rc < 0;
        snprintf(d->why, sizeof d->why, "%s", rc < 0 ? why : "");
    }
    pthread_mutex_unlock(&t->mu);
    if (tell)
        log_line(LOG_NOTE, "file system %u:%u: served through FUSE: %s", major(dev), minor(dev),
                 why);
    return rc;
}

/* --- 1a ----------------------------------------------------------------------------------- */

/* Whether vf may be tried: 0; else a negative errno, or 1 where it is the file's own layout; with why.
 * *passed: as dev_probe's. */
static int may_compose(struct tiers *t, struct vfile *vf, unsigned granted, const char **dir,
                       char buf[PATH_MAX], bool *passed, char *why, size_t size)
{
    pthread_mutex_lock(&t->mu);
    bool off = t->off;
    pthread_mutex_unlock(&t->mu);
    *dir = NULL;
    *passed = false;
    if (t->opt.why_not || !t->opt.compose) {
        snprintf(why, size, "%s", t->opt.why_not ? t->opt.why_not : "compose=never");
        return 1;
    }
    if (!(granted & COMPAT_PASSTHROUGH)) {
        snprintf(why, size, "no passthrough in this kernel (Linux 6.9)");
        return -EOPNOTSUPP;
    }
    if (off) {
        snprintf(why, size, "off after %d failures in a row; SIGHUP tries again", MAX_FAILED);
        return -ECANCELED;
    }
    if (!compose_fits(vf, why, size))
        return 1;
    *dir = dir_of(t, vf, buf);
    if (!*dir) {
        snprintf(why, size, "no folder for composed files (compose_dir=)");
        return -ENOENT;
    }
    return dev_probe(t, vf, *dir, passed, why, size);
}

/* 0 with an id; -ESTALE; else vf is tier 2's, with why. */
static int make_1a(struct tiers *t, struct vfile *vf, unsigned granted, int32_t *id, char *why,
                   size_t size, struct err *e)
{
    char buf[PATH_MAX];
    const char *dir, *step = "";
    bool passed;
    int fd = -1, rc = may_compose(t, vf, granted, &dir, buf, &passed, why, size);
    bool composing = rc == 0, tried = composing || passed;
    if (rc == 0)
        rc = compose_file(&fd, vf, dir, t->opt.sys, &step, e);
    if (rc == 0)
        rc = register_fd(t, fd, id, &step);
    if (fd >= 0)
        close(fd); /* the kernel holds it by the id */
    if (rc == -ESTALE)
        return rc;
    pthread_mutex_lock(&t->mu);
    bool tell = false, off = false;
    if (tried && rc < 0) {
        if (composing)
            say_why(why, size, dir, step, rc);
        struct tier_dev *d = dev_find(t, pinned_dev(vfile_pins(vf), 0));
        tell = d && !d->told;
        if (d)
            d->told = true;
        off = t->off = ++t->n_failed >= MAX_FAILED;
    } else if (tried) {
        t->n_failed = 0;
        t->stats.composed++;
        t->stats.kept++;
    }
    if (rc != 0 && !t->opt.why_not && t->opt.compose)
        t->stats.fallback[rc > 0 || -rc >= 134 ? 0 : -rc]++;
    pthread_mutex_unlock(&t->mu);
    if (tell)
        log_line(LOG_WARN, "served through FUSE: %s", why);
    if (off)
        log_line(LOG_WARN, "tier 1a is off after %d failures in a row; SIGHUP tries again",
                 MAX_FAILED);
    return rc > 0 ? -EOPNOTSUPP : rc;
}

/* --- tier 2 ------------------------------------------------------------------------------- */

static bool comm_listed(const char *list, const char *comm)
{
    size_t len = strlen(comm);
    while (list && *list) {
        size_t n = strcspn(list, ":"), cut = n > COMM_LEN ? COMM_LEN : n;
        if (cut == len && len > 0 && memcmp(list, comm, len) == 0)
            return true;
        list += n + (list[n] == ':');
    }
    return false;
}

/* pid 0 is a process of another name space: unknown. */
static bool copies(const struct tiers *t, pid_t pid)
{
    char path[40], comm[32];
    if (pid <= 0)
        return false;
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, comm, sizeof comm - 1);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return false;
    comm[n] = '\0';
    comm[strcspn(comm, "\n")] = '\0';
    return comm_listed(t->opt.direct_comms, comm);
}

static enum tier_mode pick_2(const struct tiers *t, const struct vfile *vf, unsigned granted,
                             pid_t pid)
{
    if (t->opt.cache == CACHE_NEVER)
        return TIER_DIRECT;
    /* Converted bytes are dear, and a shared map of a direct open needs the kernel's leave. */
    if (t->opt.cache == CACHE_ALWAYS || !(granted & COMPAT_MMAP_DIRECT) || vfile_converts(vf))
        return TIER_CACHED;
    return copies(t, pid) ? TIER_DIRECT : TIER_CACHED;
}

/* --- opens -------------------------------------------------------------------------------- */

/* The inode's file, counted, in FILE_1A or FILE_2, or in FILE_BUSY to be settled by the caller. NULL: no
 * memory. Under mu. */
static struct tier_file *file_get(struct tiers *t, uint64_t ino)
{
    struct tier_file **p = file_slot(t, ino);
    if (!*p) {
        *p = calloc(1, sizeof **p);
        if (!*p)
            return NULL;
        (*p)->ino = ino;
    }
    struct tier_file *f = *p;
    f->n_open++;
    while (f->state == FILE_BUSY)
        pthread_cond_wait(&t->changed, &t->mu);
    return f;
}

int tiers_open(struct tiers *t, struct vfile *vf, unsigned granted, pid_t pid,
               struct tier_open *out, struct err *e)
{
    *out = (struct tier_open){.ino = vfile_ino(vf)};
    pthread_mutex_lock(&t->mu);
    struct tier_file *f = file_get(t, out->ino);
    if (!f) {
        pthread_mutex_unlock(&t->mu);
        out->ino = 0;
        return err_set(e, -ENOMEM, "no memory for an open file");
    }
    int rc = 0;
    if (f->state == FILE_NEW) {
        char why[sizeof f->why] = "";
        int32_t id = 0;
        f->state = FILE_BUSY;
        pthread_mutex_unlock(&t->mu);
        rc = make_1a(t, vf, granted, &id, why, sizeof why, e);
        pthread_mutex_lock(&t->mu);
        f->state = rc == 0 ? FILE_1A : rc == -ESTALE ? FILE_NEW : FILE_2;
        f->id = id;
        memcpy(f->why, why, sizeof why);
        pthread_cond_broadcast(&t->changed);
        rc = rc == -ESTALE ? rc : 0;
    }
    if (f->state == FILE_1A) {
        out->mode = TIER_1A;
        out->backing_id = f->id;
        reaper_start(t);
    }
    if (rc < 0) {
        if (--f->n_open == 0)
            file_drop(t, f);
        out->ino = 0;
    }
    pthread_mutex_unlock(&t->mu);
    if (rc < 0)
        return rc;
    if (out->mode != TIER_1A)
        out->mode = pick_2(t, vf, granted, pid);
    pthread_mutex_lock(&t->mu);
    t->stats.open[out->mode]++;
    t->stats.opened[out->mode]++;
    pthread_mutex_unlock(&t->mu);
    return 0;
}

void tiers_close(struct tiers *t, struct tier_open *o)
{
    if (o->ino == 0)
        return;
    pthread_mutex_lock(&t->mu);
    struct tier_file *f = *file_slot(t, o->ino);
    t->stats.open[o->mode]--;
    if (--f->n_open == 0 && f->state == FILE_1A) {
        f->idle_until = now_s() + (time_t)t->opt.keep_s;
        pthread_cond_broadcast(&t->changed);
    } else if (f->n_open == 0) {
        file_drop(t, f);
    }
    pthread_mutex_unlock(&t->mu);
    o->ino = 0;
}

void tiers_rearm(struct tiers *t)
{
    pthread_mutex_lock(&t->mu);
    memset(t->dev, 0, sizeof t->dev);
    t->n_failed = 0;
    t->off = false;
    pthread_mutex_unlock(&t->mu);
}

/* --- what is told ------------------------------------------------------------------------- */

int tiers_text(struct tiers *t, struct vfile *vf, unsigned granted, char *dst, size_t size,
               struct err *e)
{
    char why[200] = "", buf[PATH_MAX];
    const char *dir;
    bool passed;
    pthread_mutex_lock(&t->mu);
    struct tier_file *f = *file_slot(t, vfile_ino(vf));
    enum file_state state = f && f->n_open > 0 ? f->state : FILE_NEW;
    if (state == FILE_2)
        memcpy(why, f->why, sizeof why);
    pthread_mutex_unlock(&t->mu);
    if (state == FILE_NEW || state == FILE_BUSY) {
        int rc = vfile_open(vf, e);
        if (rc < 0)
            return rc;
        state = may_compose(t, vf, granted, &dir, buf, &passed, why, sizeof why) == 0 ? FILE_1A
                                                                                      : FILE_2;
        vfile_close(vf);
    }
    snprintf(dst, size, "%s%s", state == FILE_1A ? "1a" : "2 ", state == FILE_1A ? "" : why);
    return 0;
}

bool tiers_is_1a(struct tiers *t, uint64_t ino)
{
    pthread_mutex_lock(&t->mu);
    const struct tier_file *f = *file_slot(t, ino);
    bool yes = f && f->state == FILE_1A && f->n_open > 0;
    pthread_mutex_unlock(&t->mu);
    return yes;
}

void tiers_describe(struct tiers *t, char *dst, size_t size)
{
    size_t n;
    char *dir = name_escape(t->opt.dir ? t->opt.dir : "no folder");
    pthread_mutex_lock(&t->mu);
    if (t->opt.why_not || !t->opt.compose)
        n = (size_t)snprintf(dst, size, "tier 2: %s\n",
                             t->opt.why_not ? t->opt.why_not : "compose=never");
    else
        n = (size_t)snprintf(dst, size, "tier 1a in %s, kept %u s%s\n", dir ? dir : "?",
                             t->opt.keep_s, t->off ? ", off after failures in a row" : "");
    for (int i = 0; i < N_DEV && n < size; i++)
        if (t->dev[i].used)
            n += (size_t)snprintf(dst + n, size - n, "file system %u:%u: tier %s%s\n",
                                  major(t->dev[i].dev), minor(t->dev[i].dev),
                                  t->dev[i].rc < 0 ? "2 " : "1a", t->dev[i].why);
    uint64_t fallen = 0;
    for (size_t i = 0; i < sizeof t->stats.fallback / sizeof t->stats.fallback[0]; i++)
        fallen += t->stats.fallback[i];
    if (n < size)
        snprintf(dst + n, size - n,
                 "opened: %" PRIu64 " as 1a, %" PRIu64 " direct, %" PRIu64 " cached; %" PRIu64
                 " composed, %" PRIu64 " kept, %" PRIu64 " not possible as 1a\n",
                 t->stats.opened[TIER_1A], t->stats.opened[TIER_DIRECT],
                 t->stats.opened[TIER_CACHED], t->stats.composed, t->stats.kept, fallen);
    pthread_mutex_unlock(&t->mu);
    free(dir);
}

void tiers_get_stats(struct tiers *t, struct tiers_stats *st)
{
    pthread_mutex_lock(&t->mu);
    *st = t->stats;
    pthread_mutex_unlock(&t->mu);
}
