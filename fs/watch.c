/* Watching and scanning: see watch.h. */
#define FUSE_USE_VERSION 312
#include "fs/watch.h"

#include "format/store_set.h"
#include "fs/clock.h"
#include "fs/fs.h"
#include "fs/index.h"
#include "fs/log.h"
#include "fs/mount.h"
#include "fs/watch_dirs.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

#define QUIET_ONE_MS 20
#define QUIET_MS     250
#define LATEST_MS    2000
#define RETRY_MS     1000 /* after a scan that failed; between two looks for a root that is gone */
#define MAX_LOGGED   20   /* problems of one scan that go to the log */
#define CHECK_MS     20   /* between two looks at open files while one is being written */

struct watch {
    struct fs *fs;
    int wake_fd;
    pthread_t thread;
    bool started;
    /* The watch thread's own. */
    struct watch_dirs dirs;
    int mounts_fd;    /* /proc/self/mountinfo: tells when something is mounted; -1: cannot be had */
    uint64_t *mounts; /* per source: mount_signature() */
    uint64_t first_ms, last_ms; /* of the events not yet answered by a scan; 0: none */
    uint64_t last_check_ms;
    uint64_t retry_ms;      /* when the scan that failed is repeated; 0: none did */
    uint64_t roots_ms;      /* when roots that could not be read are looked for; 0: all could */
    char said[ERR_MSG_MAX]; /* why it failed: told once */
    char one_name[256];     /* the name all of them concern */
    uint32_t one_cookie;
    bool many;
    /* Shared. */
    pthread_mutex_t mu;
    pthread_cond_t scanned;
    bool stop, disarmed, kicked, learnt;
    bool by_ttl;              /* inotify does not do for all */
    uint64_t n_begun, n_done; /* scans */
    uint64_t last_scan_at_ms;
    uint64_t *stale; /* inodes whose pages are to go */
    size_t n_stale, cap_stale;
    struct watch_stats stats;
};

/* --- scanning ----------------------------------------------------------------------------- */

static bool disarmed(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    bool off = w->disarmed;
    pthread_mutex_unlock(&w->mu);
    return off;
}

static void notify_changed(void *ctx, uint64_t dir, const char *name)
{
    struct watch *w = ctx;
    if (disarmed(w))
        return;
    /* -ENOENT: the kernel does not know it; anything else ends with the mount. */
    if (name) {
        fuse_lowlevel_notify_inval_entry(w->fs->se, dir, name, strlen(name));
    } else {
        nodes_list_changed(w->fs->nodes, dir);
        fuse_lowlevel_notify_inval_inode(w->fs->se, dir, 0, 0); /* attributes, and the listing */
    }
}

static void notify_attributes(void *ctx, uint64_t ino, const char *name)
{
    struct watch *w = ctx;
    (void)name;
    if (!disarmed(w))
        fuse_lowlevel_notify_inval_inode(w->fs->se, ino, -1, 0);
}

static void log_problems(const struct store_set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        const char *top = set->n > 1 ? set->label[i] : "";
        const struct store *s = set->store[i];
        for (size_t k = 0; k < s->n_problem; k++)
            if (n++ < MAX_LOGGED)
                log_line(LOG_WARN, "%s%s%s: %s", top, *top && *s->problem[k].path ? "/" : "",
                         s->problem[k].path, s->problem[k].why);
    }
    if (n > MAX_LOGGED)
        log_line(LOG_WARN, "%zu more lines in .aprfs/problems.txt", n - MAX_LOGGED);
}

/* The next tree from a scan of all sources. prev: what is shown now; if first, what an index knew. */
static int make_tree(struct fs *fs, const struct store_set *prev, bool first, struct tree **out,
                     struct err *e)
{
    struct store_set *set;
    struct sources *src = &fs->sources;
    int rc = first ? store_set_scan(&set, src->src, src->n, &fs->opt.store, prev, e)
                   : store_set_rescan(&set, src->src, src->n, &fs->opt.store, prev, e);
    if (rc == 0 && fs->opt.merge && (rc = store_set_merge(set, e)) < 0)
        store_set_free(set);
    if (rc < 0)
        return rc;
    struct scan *scan = scan_new(set);
    if (!scan)
        return err_set(e, -ENOMEM, "no memory for a scan");
    rc = tree_new(out, fs->nodes, &fs->env, scan, &fs->tree_opt, e);
    scan_put(scan);
    return rc;
}

static void show_tree(struct watch *w, struct tree *next, bool first)
{
    struct fs *fs = w->fs;
    struct tree *old = nodes_swap(fs->nodes, next);
    if (first) {
        atomic_store(&fs->generation, next->generation);
        return;
    }
    struct tree *now = nodes_tree(fs->nodes);
    pthread_mutex_lock(&w->mu);
    w->n_done = w->n_begun;
    pthread_cond_broadcast(&w->scanned);
    pthread_mutex_unlock(&w->mu);
    tree_diff(old, now, notify_changed, w);
    nodes_touched(fs->nodes, notify_attributes, w);
    atomic_store(&fs->generation, now->generation); /* who waits for it sees all of it */
    if (now->n_model != old->n_model)
        mount_notify_models(fs, "");
    tree_put(fs->nodes, now);
    tree_put(fs->nodes, old);
}

/* How long the kernel may keep names and attributes: a look that is due must not be missed for it. */
static void set_timeouts(struct watch *w, bool by_ttl)
{
    double ttl = w->fs->opt.ttl_s, s = FS_TIMEOUT_S;
    if (by_ttl && ttl > 0 && ttl < s)
        s = ttl;
    atomic_store(&w->fs->entry_timeout_s, s);
    atomic_store(&w->fs->attr_timeout_s, s);
}

static bool lacks_root(const struct store_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        if (set->store[i]->root_rc)
            return true;
    return false;
}

/* Is there a root that the last scan could not read, and that now is there, or lacks otherwise? */
static bool root_moved(struct watch *w)
{
    struct tree *t = nodes_tree(w->fs->nodes);
    bool moved = false;
    for (size_t i = 0; i < t->scan->set->n && !moved; i++) {
        const struct store *s = t->scan->set->store[i];
        int fd = s->root_rc ? open(s->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        moved = s->root_rc && (fd >= 0 || s->root_rc != -errno);
        if (fd >= 0)
            close(fd);
    }
    tree_put(w->fs->nodes, t);
    return moved;
}

/* The folders that the shown tree was made from. Behind it, because a new name need not wait for this; what
 * changed meanwhile in a folder not watched yet is found by the scan that its watch asks for, and by a look at
 * what is open. */
static int watch_folders(struct watch *w, const struct store_set *set, struct err *e)
{
    bool fresh;
    int rc = watch_dirs_renew(&w->dirs, set, &fresh, e);
    if (rc < 0)
        return rc;
    pthread_mutex_lock(&w->mu);
    w->stats.n_dir = (unsigned)w->dirs.n;
    w->kicked = w->kicked || fresh;
    w->by_ttl = watch_dirs_text(&w->dirs, set, w->stats.how, sizeof w->stats.how);
    pthread_mutex_unlock(&w->mu);
    set_timeouts(w, w->by_ttl);
    if (fresh)
        nodes_check_open(w->fs->nodes);
    return 0;
}

static int scan_once(struct watch *w, bool first, struct err *e)
{
    struct fs *fs = w->fs;
    uint64_t t0 = clock_ms();
    struct tree *cur = nodes_tree(fs->nodes), *next = NULL;
    const struct store_set *prev = cur ? cur->scan->set : NULL;
    struct store_set *known = first ? index_read(fs->index, &fs->sources, &fs->opt.store) : NULL;
    if (cur)
        tree_learn(fs->nodes, cur); /* the next scan takes over what this one's entries say */
    int rc = make_tree(fs, first ? known : prev, first, &next, e);
    store_set_free(known);
    bool changed = rc == 0 && (first || !store_set_equal(next->scan->set, prev));
    if (changed)
        log_problems(next->scan->set);
    tree_put(fs->nodes, cur);
    if (rc == 0) {
        const struct store_set *set = next->scan->set; /* lives until the next tree is shown */
        pthread_mutex_lock(&w->mu);
        w->stats.n_parsed += store_set_n_parsed(set);
        pthread_mutex_unlock(&w->mu);
        w->roots_ms = lacks_root(set) ? clock_ms() + RETRY_MS : 0;
        index_note(fs->index, set, changed);
        set_timeouts(w, true); /* until it is known whether all folders can be watched */
        show_tree(w, next, first);
        rc = watch_folders(w, set, e);
    }
    pthread_mutex_lock(&w->mu);
    w->stats.n_scan++;
    w->stats.last_scan_ms = (double)(clock_ms() - t0);
    w->last_scan_at_ms = clock_ms();
    pthread_mutex_unlock(&w->mu);
    return rc;
}

static void scan_again(struct watch *w)
{
    struct err e;
    pthread_mutex_lock(&w->mu);
    w->n_begun++;
    w->kicked = false;
    pthread_mutex_unlock(&w->mu);
    w->first_ms = w->last_ms = 0;
    w->many = false;
    w->one_name[0] = '\0';
    int rc = scan_once(w, false, &e);
    w->retry_ms = rc < 0 ? clock_ms() + RETRY_MS : 0;
    if (rc < 0 && strcmp(e.msg, w->said) != 0)
        log_line(LOG_ERROR, "scan: %s; once more each second until one succeeds", e.msg);
    snprintf(w->said, sizeof w->said, "%s", rc < 0 ? e.msg : "");
    pthread_mutex_lock(&w->mu);
    w->n_done = w->n_begun;
    pthread_cond_broadcast(&w->scanned);
    pthread_mutex_unlock(&w->mu);
}

/* --- events ------------------------------------------------------------------------------- */

static bool has_part(const struct store *st, const char *name)
{
    for (size_t i = 0; i < st->n_entry; i++)
        for (int k = 0; k < st->entry[i].n_part; k++) {
            const char *s = strrchr(st->entry[i].part[k].path, '/');
            if (s && strcmp(s + 1, name) == 0)
                return true;
        }
    return false;
}

/* Is a model served from a file of that name? */
static bool is_served(struct watch *w, const char *name)
{
    struct tree *t = nodes_tree(w->fs->nodes);
    bool yes = false;
    for (size_t i = 0; i < t->scan->set->n && !yes; i++)
        yes = has_part(t->scan->set->store[i], name);
    tree_put(w->fs->nodes, t);
    return yes;
}

static void note_event(struct watch *w, const struct inotify_event *ev)
{
    uint64_t now = clock_ms();
    const char *name = ev->len ? ev->name : "";
    if (ev->mask & IN_IGNORED)
        return;
    bool lost = ev->mask & IN_Q_OVERFLOW;
    if (lost || (ev->mask & (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB) &&
                 now - w->last_check_ms >= CHECK_MS)) {
        w->last_check_ms = now;
        nodes_check_open(w->fs->nodes);
    }
    /* A download writes for hours; only its end matters, and that is CLOSE_WRITE. */
    if ((ev->mask & IN_MODIFY) && !is_served(w, name))
        return;
    bool same = strcmp(w->one_name, name) == 0 || (ev->cookie && ev->cookie == w->one_cookie);
    if (w->first_ms == 0) {
        w->first_ms = now;
        snprintf(w->one_name, sizeof w->one_name, "%s", name);
        w->one_cookie = ev->cookie;
    } else if (!same) {
        w->many = true;
    } else if (ev->cookie) {
        w->one_cookie = ev->cookie; /* written as x.part, then renamed: still one file */
    }
    w->many = w->many || (ev->mask & (IN_ISDIR | IN_Q_OVERFLOW | IN_DELETE_SELF | IN_MOVE_SELF));
    w->last_ms = now;
    pthread_mutex_lock(&w->mu);
    w->stats.n_event++;
    w->stats.n_overflow += lost;
    pthread_mutex_unlock(&w->mu);
}

static void read_events(struct watch *w)
{
    _Alignas(struct inotify_event) char buf[64 << 10];
    ssize_t n = read(w->dirs.fd, buf, sizeof buf);
    for (char *p = buf; n > 0 && p < buf + n;) {
        const struct inotify_event *ev = (const struct inotify_event *)(void *)p;
        note_event(w, ev);
        p += sizeof *ev + ev->len;
    }
}

static void drop_stale_pages(struct watch *w)
{
    for (;;) {
        pthread_mutex_lock(&w->mu);
        uint64_t ino = w->n_stale && !w->disarmed ? w->stale[--w->n_stale] : 0;
        pthread_mutex_unlock(&w->mu);
        if (!ino)
            return;
        fuse_lowlevel_notify_inval_inode(w->fs->se, ino, 0, 0);
    }
}

/* Milliseconds until a scan is due: 0 now, -1 nothing is waiting. */
static int due_in(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    bool kicked = w->kicked;
    pthread_mutex_unlock(&w->mu);
    if (kicked)
        return 0;
    if (w->first_ms == 0 && w->retry_ms == 0)
        return -1;
    uint64_t quiet = w->last_ms + (w->many ? QUIET_MS : QUIET_ONE_MS);
    uint64_t latest = w->first_ms + LATEST_MS, now = clock_ms();
    uint64_t at = w->first_ms == 0 ? w->retry_ms : quiet < latest ? quiet : latest;
    return at > now ? (int)(at - now) : 0;
}

static int roots_due_in(const struct watch *w)
{
    uint64_t now = w->roots_ms ? clock_ms() : 0;
    return !w->roots_ms ? -1 : w->roots_ms > now ? (int)(w->roots_ms - now) : 0;
}

/* Cheaper than a scan of all sources each second because one is not there. */
static bool look_for_roots(struct watch *w)
{
    w->roots_ms = clock_ms() + RETRY_MS;
    return root_moved(w);
}

/* The earlier of two waits in ms; -1 is none. */
static int sooner(int a, int b)
{
    return a < 0 || (b >= 0 && b < a) ? b : a;
}

static void save_index(struct watch *w, bool last)
{
    struct tree *t = nodes_tree(w->fs->nodes);
    if (tree_learn(w->fs->nodes, t))
        index_touch(w->fs->index);
    index_write(w->fs->index, t->scan->set, last);
    tree_put(w->fs->nodes, t);
}

/* A disk that is mounted at a source, or below one, changes what is there, and inotify says nothing. */
static bool mounts_moved(struct watch *w)
{
    bool moved = false;
    for (size_t i = 0; i < w->fs->sources.n; i++) {
        uint64_t now = mount_signature(w->fs->sources.src[i].path);
        moved = moved || now != w->mounts[i];
        w->mounts[i] = now;
    }
    return moved;
}

static void learn(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    bool learnt = w->learnt;
    w->learnt = false;
    pthread_mutex_unlock(&w->mu);
    struct tree *t = learnt ? nodes_tree(w->fs->nodes) : NULL;
    if (t && tree_learn(w->fs->nodes, t))
        index_touch(w->fs->index);
    tree_put(w->fs->nodes, t);
}

static void *watch_main(void *ctx)
{
    struct watch *w = ctx;
    for (;;) {
        struct pollfd p[3] = {{.fd = w->wake_fd, .events = POLLIN},
                              {.fd = w->dirs.fd, .events = POLLIN},
                              {.fd = w->mounts_fd, .events = POLLPRI}};
        poll(p, 3, sooner(sooner(due_in(w), roots_due_in(w)), index_due_in(w->fs->index)));
        uint64_t n;
        if (p[0].revents && read(w->wake_fd, &n, sizeof n) < 0 && errno != EAGAIN)
            log_line(LOG_ERROR, "eventfd: %s", strerror(errno));
        pthread_mutex_lock(&w->mu);
        bool stop = w->stop;
        pthread_mutex_unlock(&w->mu);
        if (stop) {
            save_index(w, true);
            return NULL;
        }
        drop_stale_pages(w);
        learn(w);
        if (w->dirs.fd >= 0 && p[1].revents)
            read_events(w);
        if (p[2].revents && mounts_moved(w))
            watch_kick(w);
        if (due_in(w) == 0 || (roots_due_in(w) == 0 && look_for_roots(w)))
            scan_again(w);
        else if (index_due_in(w->fs->index) == 0)
            save_index(w, false);
    }
}

/* --- from other threads ------------------------------------------------------------------- */

static void wake(struct watch *w)
{
    uint64_t one = 1;
    if (write(w->wake_fd, &one, sizeof one) < 0 && errno != EAGAIN)
        log_line(LOG_ERROR, "eventfd: %s", strerror(errno));
}

void watch_kick(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    w->kicked = true;
    pthread_mutex_unlock(&w->mu);
    wake(w);
}

void watch_learnt(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    w->learnt = true;
    pthread_mutex_unlock(&w->mu);
    wake(w);
}

void watch_touch(struct watch *w)
{
    uint64_t ttl = w->fs->opt.ttl_s * UINT64_C(1000);
    pthread_mutex_lock(&w->mu);
    bool over = w->by_ttl && ttl && !w->kicked && clock_ms() - w->last_scan_at_ms >= ttl;
    w->kicked = w->kicked || over;
    pthread_mutex_unlock(&w->mu);
    if (over)
        wake(w);
}

void watch_stale(struct watch *w, uint64_t ino)
{
    pthread_mutex_lock(&w->mu);
    if (w->n_stale == w->cap_stale) {
        size_t cap = w->cap_stale ? 2 * w->cap_stale : 16;
        uint64_t *more = realloc(w->stale, cap * sizeof *more);
        if (more) {
            w->stale = more;
            w->cap_stale = cap;
        }
    }
    if (w->n_stale < w->cap_stale)
        w->stale[w->n_stale++] = ino;
    w->kicked = true;
    pthread_mutex_unlock(&w->mu);
    wake(w);
}

bool watch_rescan(struct watch *w, unsigned ms)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ms / 1000;
    until.tv_nsec += (long)(ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&w->mu);
    uint64_t want = w->n_begun + 1;
    w->kicked = true;
    pthread_mutex_unlock(&w->mu);
    wake(w);
    pthread_mutex_lock(&w->mu);
    while (w->n_done < want && !w->stop)
        if (pthread_cond_timedwait(&w->scanned, &w->mu, &until) == ETIMEDOUT)
            break;
    bool done = w->n_done >= want;
    pthread_mutex_unlock(&w->mu);
    return done;
}

void watch_get_stats(struct watch *w, struct watch_stats *out)
{
    pthread_mutex_lock(&w->mu);
    *out = w->stats;
    pthread_mutex_unlock(&w->mu);
}

/* --- life --------------------------------------------------------------------------------- */

int watch_new(struct watch **out, struct fs *fs, struct err *e)
{
    struct watch *w = calloc(1, sizeof *w);
    if (!w)
        return err_set(e, -ENOMEM, "no memory for the watch");
    w->fs = fs;
    pthread_mutex_init(&w->mu, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->scanned, &attr);
    pthread_condattr_destroy(&attr);
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    w->mounts_fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    w->mounts = calloc(fs->sources.n + 1, sizeof *w->mounts);
    int rc = watch_dirs_init(&w->dirs, fs->sources.n, e);
    if (rc == 0 && !w->mounts)
        rc = err_set(e, -ENOMEM, "no memory for the watch");
    if (rc == 0 && w->wake_fd < 0)
        rc = err_set(e, -errno, "eventfd: %s", strerror(errno));
    if (rc == 0) {
        mounts_moved(w);
        rc = scan_once(w, true, e);
    }
    if (rc < 0) {
        watch_free(w);
        return rc;
    }
    *out = w;
    return 0;
}

int watch_start(struct watch *w, struct err *e)
{
    int rc = pthread_create(&w->thread, NULL, watch_main, w);
    if (rc)
        return err_set(e, -rc, "watch thread: %s", strerror(rc));
    w->started = true;
    return 0;
}

void watch_disarm(struct watch *w)
{
    pthread_mutex_lock(&w->mu);
    w->disarmed = true;
    pthread_mutex_unlock(&w->mu);
}

bool watch_stop(struct watch *w, unsigned ms)
{
    pthread_mutex_lock(&w->mu);
    w->stop = w->disarmed = true;
    pthread_cond_broadcast(&w->scanned);
    pthread_mutex_unlock(&w->mu);
    if (!w->started)
        return true;
    wake(w);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000 + 1;
    if (pthread_timedjoin_np(w->thread, NULL, &until) != 0)
        return false;
    w->started = false;
    return true;
}

void watch_free(struct watch *w)
{
    if (!w)
        return;
    watch_dirs_release(&w->dirs);
    if (w->mounts_fd >= 0)
        close(w->mounts_fd);
    free(w->mounts);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    pthread_cond_destroy(&w->scanned);
    pthread_mutex_destroy(&w->mu);
    free(w->stale);
    free(w);
}
