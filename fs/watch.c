/* Watching and scanning: see watch.h. */
#define FUSE_USE_VERSION 312
#include "fs/watch.h"

#include "format/store_set.h"
#include "fs/compat.h"
#include "fs/fs.h"
#include "fs/index.h"
#include "fs/log.h"

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
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define QUIET_ONE_MS 30
#define QUIET_MS     250
#define LATEST_MS    2000
#define RETRY_MS     1000 /* after a scan that failed */
#define MAX_LOGGED   20   /* problems of one scan that go to the log */
#define CHECK_MS     20   /* between two looks at open files while one is being written */
#define MASK                                                                                       \
    (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE | IN_MODIFY |            \
     IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

struct watch {
    struct fs *fs;
    int ino_fd, wake_fd;
    pthread_t thread;
    bool started;
    /* The watch thread's own. */
    int *wd; /* sorted */
    size_t n_wd;
    uint64_t first_ms, last_ms; /* of the events not yet answered by a scan; 0: none */
    uint64_t last_check_ms;
    uint64_t retry_ms;      /* when the scan that failed is repeated; 0: none did */
    char said[ERR_MSG_MAX]; /* why it failed: told once */
    char one_name[256];     /* the name all of them concern */
    uint32_t one_cookie;
    bool many;
    /* Shared. */
    pthread_mutex_t mu;
    pthread_cond_t scanned;
    bool stop, disarmed, kicked, learnt;
    uint64_t n_begun, n_done; /* scans */
    uint64_t last_scan_at_ms;
    uint64_t *stale; /* inodes whose pages are to go */
    size_t n_stale, cap_stale;
    struct watch_stats stats;
};

static uint64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- directories -------------------------------------------------------------------------- */

static void no_inotify(struct watch *w, const char *why)
{
    if (w->ino_fd >= 0)
        close(w->ino_fd);
    w->ino_fd = -1;
    pthread_mutex_lock(&w->mu);
    w->stats.inotify = false;
    snprintf(w->stats.why_not, sizeof w->stats.why_not, "%s", why);
    pthread_mutex_unlock(&w->mu);
    log_line(LOG_WARN, "no inotify (%s): the store is looked at every %u s when asked for a name",
             why, w->fs->opt.ttl_s);
}

static int cmp_int(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

struct wd_set {
    int *wd;
    size_t n, cap;
    int rc; /* -EMFILE and the like: not all could be walked */
};

static void wd_add(struct watch *w, struct wd_set *s, const char *path)
{
    if (w->ino_fd < 0)
        return;
    int wd = inotify_add_watch(w->ino_fd, path, MASK);
    if (wd < 0) {
        if (errno == ENOSPC)
            no_inotify(w,
                       "all inotify watches of this user are in use: fs.inotify.max_user_watches");
        return; /* gone or not readable: the scan says so */
    }
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        int *more = realloc(s->wd, cap * sizeof *more);
        if (!more) {
            s->rc = -ENOMEM;
            return;
        }
        s->wd = more;
        s->cap = cap;
    }
    s->wd[s->n++] = wd;
}

/* The folders that a store told of when it was scanned. */
static void wd_store(struct watch *w, struct wd_set *s, const struct store *st)
{
    for (size_t i = 0; i < st->n_dir && w->ino_fd >= 0; i++) {
        char *path;
        const char *root = strcmp(st->root, "/") ? st->root : "";
        if (asprintf(&path, "%s/%s", root, st->dir[i]) < 0) {
            s->rc = -ENOMEM;
            return;
        }
        wd_add(w, s, path);
        free(path);
    }
}

/* The directories that a link's target lies in, for what changes there changes a model here. */
static void wd_targets(struct watch *w, struct wd_set *s, const struct store *st)
{
    for (size_t i = 0; i < st->n_entry; i++)
        for (int k = 0; k < st->entry[i].n_part; k++) {
            struct stat ls;
            const char *path = st->entry[i].part[k].path;
            if (lstat(path, &ls) < 0 || !S_ISLNK(ls.st_mode))
                continue;
            char *real = realpath(path, NULL), *slash = real ? strrchr(real, '/') : NULL;
            if (slash) {
                slash[slash == real] = '\0';
                wd_add(w, s, real);
            }
            free(real);
        }
}

static void wd_scan(struct watch *w, struct wd_set *s, const struct store_set *set)
{
    for (size_t i = 0; i < set->n; i++) {
        wd_store(w, s, set->store[i]);
        wd_targets(w, s, set->store[i]);
    }
}

/* Watches what a scan said is worth it, and forgets what no longer is. *fresh: there was something
 * that nobody watched while it was scanned, so what happened there since is not known. If not all
 * could be watched for want of memory, what was watched stays watched. */
static int wd_renew(struct watch *w, const struct store_set *set, bool *fresh, struct err *e)
{
    *fresh = false;
    if (w->ino_fd < 0)
        return 0;
    struct wd_set s = {0};
    wd_scan(w, &s, set);
    if (s.rc < 0) {
        free(s.wd);
        return err_set(e, s.rc, "no memory to watch the sources");
    }
    if (w->ino_fd < 0) { /* there was one too many */
        free(s.wd);
        s = (struct wd_set){0};
    }
    if (s.n)
        qsort(s.wd, s.n, sizeof *s.wd, cmp_int);
    for (size_t i = 0; i < w->n_wd && w->ino_fd >= 0; i++)
        if (!s.n || !bsearch(&w->wd[i], s.wd, s.n, sizeof *s.wd, cmp_int))
            inotify_rm_watch(w->ino_fd, w->wd[i]);
    for (size_t i = 0; i < s.n && !*fresh; i++)
        *fresh = !w->n_wd || !bsearch(&s.wd[i], w->wd, w->n_wd, sizeof *s.wd, cmp_int);
    free(w->wd);
    w->wd = s.wd;
    w->n_wd = s.n;
    pthread_mutex_lock(&w->mu);
    w->stats.n_dir = (unsigned)s.n;
    pthread_mutex_unlock(&w->mu);
    return 0;
}

/* --- scanning ----------------------------------------------------------------------------- */

static void notify_changed(void *ctx, uint64_t dir, const char *name)
{
    struct watch *w = ctx;
    pthread_mutex_lock(&w->mu);
    bool off = w->disarmed;
    pthread_mutex_unlock(&w->mu);
    if (off)
        return;
    /* -ENOENT: the kernel does not know it; anything else ends with the mount. */
    if (name)
        fuse_lowlevel_notify_inval_entry(w->fs->se, dir, name, strlen(name));
    else
        fuse_lowlevel_notify_inval_inode(w->fs->se, dir, -1, 0);
}

static void log_problems(const struct store_set *set)
{
    size_t n = 0;
    for (size_t i = 0; i < set->n; i++) {
        const char *top = set->n > 1 ? set->label[i] : "";
        const struct store *s = set->store[i];
        for (size_t k = 0; k < s->n_problem; k++)
            if (n++ < MAX_LOGGED)
                log_line(LOG_WARN, "%s%s%s: %s", top, *top ? "/" : "", s->problem[k].path,
                         s->problem[k].why);
    }
    if (n > MAX_LOGGED)
        log_line(LOG_WARN, "%zu more lines in .aprfs/problems.txt", n - MAX_LOGGED);
}

/* The next tree from a scan of all sources. */
static int make_tree(struct fs *fs, const struct store_set *prev, struct tree **out, struct err *e)
{
    struct store_set *set;
    int rc = store_set_scan(&set, fs->sources.src, fs->sources.n, &fs->opt.store, prev, e);
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
    if (first)
        return;
    struct tree *now = nodes_tree(fs->nodes);
    pthread_mutex_lock(&w->mu);
    w->n_done = w->n_begun;
    pthread_cond_broadcast(&w->scanned);
    pthread_mutex_unlock(&w->mu);
    tree_diff(old, now, notify_changed, w);
    tree_put(fs->nodes, now);
    tree_put(fs->nodes, old);
}

static int scan_once(struct watch *w, bool first, struct err *e)
{
    struct fs *fs = w->fs;
    uint64_t t0 = clock_ms();
    struct tree *cur = nodes_tree(fs->nodes), *next = NULL;
    const struct store_set *prev = cur ? cur->scan->set : NULL;
    struct store_set *known = first ? index_read(fs->index, &fs->sources, &fs->opt.store) : NULL;
    bool again = false;
    if (cur)
        tree_learn(fs->nodes, cur); /* the next scan takes over what this one's entries say */
    int rc = make_tree(fs, first ? known : prev, &next, e);
    store_set_free(known);
    bool changed = rc == 0 && (first || !store_set_equal(next->scan->set, prev));
    if (changed)
        log_problems(next->scan->set);
    if (rc == 0 && (rc = wd_renew(w, next->scan->set, &again, e)) < 0)
        tree_put(fs->nodes, next);
    tree_put(fs->nodes, cur);
    if (rc == 0) {
        pthread_mutex_lock(&w->mu);
        w->stats.n_parsed += store_set_n_parsed(next->scan->set);
        w->kicked = w->kicked || again;
        pthread_mutex_unlock(&w->mu);
        index_note(fs->index, next->scan->set, changed);
        show_tree(w, next, first);
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
        log_line(LOG_ERROR, "scan: %s; the tree stays as it was until one succeeds", e.msg);
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
    if (ev->mask & (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB) && now - w->last_check_ms >= CHECK_MS) {
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
    w->stats.n_overflow += (ev->mask & IN_Q_OVERFLOW) != 0;
    pthread_mutex_unlock(&w->mu);
}

static void read_events(struct watch *w)
{
    _Alignas(struct inotify_event) char buf[64 << 10];
    ssize_t n = read(w->ino_fd, buf, sizeof buf);
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
        struct pollfd p[2] = {{.fd = w->wake_fd, .events = POLLIN},
                              {.fd = w->ino_fd, .events = POLLIN}};
        poll(p, 2, sooner(due_in(w), index_due_in(w->fs->index)));
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
        if (w->ino_fd >= 0 && p[1].revents)
            read_events(w);
        if (due_in(w) == 0)
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
    bool over = !w->stats.inotify && ttl && !w->kicked && clock_ms() - w->last_scan_at_ms >= ttl;
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
    w->stats.inotify = true;
    w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    w->ino_fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    int rc = 0;
    if (w->wake_fd < 0)
        rc = err_set(e, -errno, "eventfd: %s", strerror(errno));
    const char *blind = NULL; /* one store that cannot be watched makes all be looked at by TTL */
    for (size_t i = 0; i < fs->sources.n && !blind; i++) {
        struct statfs sf;
        if (statfs(fs->sources.src[i].path, &sf) == 0)
            blind = compat_remote_fs((unsigned)sf.f_type);
    }
    if (rc == 0 && (w->ino_fd < 0 || blind))
        no_inotify(w, blind ? blind : "inotify_init1 failed: fs.inotify.max_user_instances");
    if (rc == 0)
        rc = scan_once(w, true, e);
    if (rc < 0) {
        watch_free(w);
        return rc;
    }
    double ttl = fs->opt.ttl_s;
    fs->entry_timeout_s = fs->attr_timeout_s =
        w->stats.inotify || ttl == 0 || ttl > FS_TIMEOUT_S ? FS_TIMEOUT_S : ttl;
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
    if (w->ino_fd >= 0)
        close(w->ino_fd);
    if (w->wake_fd >= 0)
        close(w->wake_fd);
    pthread_cond_destroy(&w->scanned);
    pthread_mutex_destroy(&w->mu);
    free(w->stale);
    free(w->wd);
    free(w);
}
