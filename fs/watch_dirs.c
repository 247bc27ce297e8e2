/* inotify's watches: see watch_dirs.h. */
#include "fs/watch_dirs.h"

#include "fs/compat.h"
#include "fs/log.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/vfs.h>
#include <unistd.h>

#define MAX_LINKS 40 /* one after the other, as the kernel follows them */
#define MASK                                                                                       \
    (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE | IN_MODIFY |            \
     IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)

int watch_dirs_init(struct watch_dirs *d, size_t n_source, struct err *e)
{
    *d = (struct watch_dirs){.fd = -1, .n_source = n_source};
    d->source = calloc(n_source + 1, sizeof *d->source);
    return d->source ? 0 : err_set(e, -ENOMEM, "no memory for the watch");
}

void watch_dirs_release(struct watch_dirs *d)
{
    if (d->fd >= 0)
        close(d->fd);
    free(d->wd);
    free(d->source);
    *d = (struct watch_dirs){.fd = -1};
}

/* Watches that a renewal wants; the kernel has one per folder, however often it is asked. */
struct list {
    int fd;
    int *wd;
    size_t n, cap;
    const int *held; /* those there were before, sorted */
    size_t n_held;
    bool no_memory, used_up;
    bool refused; /* some source was: used_up is of the one that is being added */
    char *why;    /* of the source that is being added */
};

static void note(char *why, const char *text)
{
    if (!*why)
        snprintf(why, sizeof((struct watch_source *)0)->why, "%s", text);
}

static void add(struct list *l, const char *path)
{
    struct statfs sf;
    if (l->no_memory || l->used_up || l->fd < 0)
        return;
    if (statfs(path, &sf) < 0) {
        if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
            note(l->why, strerror(errno));
        return; /* gone or not readable: the scan says so */
    }
    const char *remote = compat_remote_fs((unsigned)sf.f_type);
    if (remote) {
        note(l->why, remote);
        return;
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        int *more = realloc(l->wd, cap * sizeof *more);
        if (!more) {
            l->no_memory = true;
            return;
        }
        l->wd = more;
        l->cap = cap;
    }
    int wd = inotify_add_watch(l->fd, path, MASK);
    if (wd >= 0)
        l->wd[l->n++] = wd;
    l->used_up = wd < 0 && errno == ENOSPC;
    l->no_memory = wd < 0 && errno == ENOMEM;
}

/* The folders that a store told of when it was scanned. */
static void add_store(struct list *l, const struct store *st)
{
    char path[PATH_MAX];
    const char *root = strcmp(st->root, "/") ? st->root : "";
    for (size_t i = 0; i < st->n_dir; i++)
        if ((size_t)snprintf(path, sizeof path, "%s/%s", root, st->dir[i]) < sizeof path)
            add(l, path);
        else
            note(l->why, "a path too long for inotify");
}

/* Every folder that a link leads to, one after the other, for what changes there changes a model here;
 * also that of a target which is not there yet. Left to the kernel: what the links on the way are. */
static void add_targets(struct list *l, const char *link)
{
    char at[PATH_MAX], target[PATH_MAX];
    snprintf(at, sizeof at, "%s", link);
    for (int i = 0; i < MAX_LINKS; i++) {
        ssize_t n = readlink(at, target, sizeof target - 1);
        if (n < 0)
            return;
        target[n] = '\0';
        size_t folder = *target == '/' ? 0 : (size_t)(strrchr(at, '/') + 1 - at);
        if (folder + (size_t)n >= sizeof at)
            return;
        memcpy(at + folder, target, (size_t)n + 1);
        char *slash = strrchr(at, '/');
        *slash = '\0';
        add(l, slash == at ? "/" : at);
        *slash = '/';
    }
}

static int cmp_int(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return x < y ? -1 : x > y;
}

static bool has(const int *wd, size_t n, int want)
{
    return n && bsearch(&want, wd, n, sizeof *wd, cmp_int);
}

static size_t sort_once(int *wd, size_t n)
{
    size_t k = 0;
    if (n)
        qsort(wd, n, sizeof *wd, cmp_int);
    for (size_t i = 0; i < n; i++)
        if (k == 0 || wd[k - 1] != wd[i])
            wd[k++] = wd[i];
    return k;
}

/* Gives back what was added since there were n: half of a source's folders tell nothing that can be
 * relied on, and others want the watches. What was held before stays until all sources are through: one
 * that comes later may share it, and a watch made anew is another one, which asks for another scan. */
static void give_back(struct list *l, size_t n)
{
    if (n)
        qsort(l->wd, n, sizeof *l->wd, cmp_int);
    for (size_t i = n; i < l->n; i++)
        if (!has(l->wd, n, l->wd[i]) && !has(l->held, l->n_held, l->wd[i]))
            inotify_rm_watch(l->fd, l->wd[i]);
    l->n = n;
    l->refused = true;
}

static void add_source(struct list *l, const struct store *st)
{
    size_t before = l->n;
    add_store(l, st);
    for (size_t i = 0; i < st->n_entry; i++)
        for (int k = 0; k < st->entry[i].n_part; k++)
            add_targets(l, st->entry[i].part[k].path);
    if (l->used_up) {
        give_back(l, before);
        note(l->why, "all inotify watches of this user are in use: fs.inotify.max_user_watches");
    }
    l->used_up = false;
    if (store_unread(st) && !st->root_rc) /* a root is looked for anyway */
        note(l->why, "a part of it cannot be read");
    if (l->fd < 0)
        note(l->why, "inotify_init1 failed: fs.inotify.max_user_instances");
}

static void say(const char *label, const char *before, const char *now)
{
    if (strcmp(before, now) == 0)
        return;
    if (*now)
        log_line(LOG_WARN, "%s: not by inotify alone (%s): looked at every ttl= seconds, too",
                 label, now);
    else
        log_line(LOG_NOTE, "%s: by inotify again", label);
}

int watch_dirs_renew(struct watch_dirs *d, const struct store_set *set, bool *fresh, struct err *e)
{
    struct list l = {.held = d->wd, .n_held = d->n};
    struct watch_source *source = calloc(d->n_source + 1, sizeof *source);
    *fresh = false;
    if (!source)
        return err_set(e, -ENOMEM, "no memory to watch the sources");
    if (d->fd < 0)
        d->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    l.fd = d->fd;
    for (size_t i = 0; i < set->n && i < d->n_source; i++) {
        l.why = source[i].why;
        add_source(&l, set->store[i]);
    }
    if (l.no_memory) {
        free(l.wd);
        free(source);
        return err_set(e, -ENOMEM, "no memory to watch the sources");
    }
    l.n = sort_once(l.wd, l.n);
    for (size_t i = 0; i < d->n; i++)
        if (!has(l.wd, l.n, d->wd[i])) {
            inotify_rm_watch(d->fd, d->wd[i]);
            *fresh = *fresh || l.refused; /* now there is one for who came too late */
        }
    for (size_t i = 0; i < l.n && !*fresh; i++)
        *fresh = !has(d->wd, d->n, l.wd[i]);
    for (size_t i = 0; i < set->n && i < d->n_source; i++)
        say(set->n > 1 ? set->label[i] : set->store[i]->root, d->source[i].why, source[i].why);
    free(d->wd);
    free(d->source);
    d->wd = l.wd;
    d->n = l.n;
    d->source = source;
    return 0;
}

bool watch_dirs_text(const struct watch_dirs *d, const struct store_set *set, char *dst,
                     size_t size)
{
    size_t n_blind = 0, at;
    for (size_t i = 0; i < d->n_source; i++)
        n_blind += *d->source[i].why != '\0';
    snprintf(dst, size, "%s", n_blind < d->n_source || n_blind == 0 ? "inotify" : "");
    for (size_t i = 0; i < d->n_source && i < set->n; i++)
        if (*d->source[i].why && (at = strlen(dst)) < size)
            snprintf(dst + at, size - at, "%s%s%sby ttl (%s)", at ? "; " : "",
                     set->n > 1 ? set->label[i] : "", set->n > 1 ? " " : "", d->source[i].why);
    return n_blind > 0;
}
