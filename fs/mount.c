/* Around the session: see mount.h. */
#include "fs/mount.h"

#include "format/bytes.h"
#include "fs/fs.h"
#include "fs/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_STALE 16 /* dead mounts on top of each other */

extern char **environ;

/* "\040" and the like, as the kernel writes blanks in mountinfo. */
static void unescape(char *s)
{
    char *d = s;
    for (; *s; s++) {
        if (s[0] == '\\' && s[1] >= '0' && s[1] <= '3' && s[2] >= '0' && s[2] <= '7' &&
            s[3] >= '0' && s[3] <= '7') {
            *d++ = (char)((s[1] - '0') << 6 | (s[2] - '0') << 3 | (s[3] - '0'));
            s += 3;
        } else {
            *d++ = *s;
        }
    }
    *d = '\0';
}

static FILE *kept_list;

void mount_keep_list(void)
{
    kept_list = fopen("/proc/self/mountinfo", "re");
}

struct mount_line {
    int id, parent;
    bool seen; /* what is mounted below it shows in the name space it came from, too */
    dev_t dev;
    const char *path; /* in the line */
    char type[64];
};

/* The next line of /proc/self/mountinfo that can be understood:
 * id parent major:minor root mountpoint options [fields] - type source super-options */
static bool next_line(FILE *f, char **line, size_t *cap, struct mount_line *m)
{
    while (f && getline(line, cap, f) > 0) {
        unsigned maj, min;
        int at = 0, end = 0;
        if (sscanf(*line, "%d %d %u:%u %*s %n%*s%n", &m->id, &m->parent, &maj, &min, &at, &end) <
                4 ||
            end <= at)
            continue;
        char *sep = strstr(*line + end, " - ");
        if (!sep)
            continue;
        *sep = '\0';
        m->seen = strstr(*line + end, " shared:") && !strstr(*line + end, " master:");
        (*line)[end] = '\0';
        unescape(*line + at);
        m->dev = makedev(maj, min);
        m->path = *line + at;
        if (sscanf(sep + 3, "%63s", m->type) != 1)
            m->type[0] = '\0';
        return true;
    }
    return false;
}

static FILE *list_open(void)
{
    if (!kept_list)
        return fopen("/proc/self/mountinfo", "re");
    rewind(kept_list);
    return kept_list;
}

static void list_close(FILE *f, char *line)
{
    free(line);
    if (f && f != kept_list)
        fclose(f);
}

bool mount_at(const char *dir, dev_t *dev, char type[64])
{
    FILE *f = list_open();
    char *line = NULL;
    size_t cap = 0;
    struct mount_line m;
    bool found = false;
    while (next_line(f, &line, &cap, &m)) {
        if (strcmp(m.path, dir) != 0)
            continue;
        found = true; /* the last one is the topmost */
        *dev = m.dev;
        memcpy(type, m.type, sizeof m.type);
    }
    list_close(f, line);
    return found;
}

bool mount_is_seen(const char *dir)
{
    struct mount_line m;
    int parent = -1;
    bool seen = false;
    for (int pass = 0; pass < 2; pass++) {
        FILE *f = list_open();
        char *line = NULL;
        size_t cap = 0;
        while (next_line(f, &line, &cap, &m)) {
            if (pass == 0 && strcmp(m.path, dir) == 0)
                parent = m.parent;
            if (pass == 1 && m.id == parent)
                seen = m.seen;
        }
        list_close(f, line);
    }
    return seen;
}

/* Where the mount of dev is now: at dir, or where a folder above it was renamed to. 1; 0: nowhere;
 * -EBUSY: something else is mounted over it. */
static int find_mount(const char *dir, dev_t dev, char at[PATH_MAX])
{
    FILE *f = list_open();
    char *line = NULL;
    size_t cap = 0;
    struct mount_line m;
    int found = 0;
    while (next_line(f, &line, &cap, &m)) {
        if (m.dev != dev && found && strcmp(m.path, at) == 0)
            found = -EBUSY;
        if (m.dev != dev || (found && strcmp(m.path, dir) != 0) || strlen(m.path) >= PATH_MAX)
            continue;
        found = 1;
        strcpy(at, m.path);
    }
    list_close(f, line);
    return found;
}

static bool is_inside(const char *path, const char *root)
{
    size_t n = strlen(root);
    if (strcmp(root, "/") == 0)
        return true;
    return strncmp(path, root, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

uint64_t mount_signature(const char *dir)
{
    FILE *f = fopen("/proc/self/mountinfo", "re"); /* any thread's: not the kept one */
    char *line = NULL;
    size_t cap = 0;
    struct mount_line m;
    struct stat st;
    uint64_t h = FNV1A_START;
    if (stat(dir, &st) == 0) {
        h = fnv1a(h, &st.st_dev, sizeof st.st_dev);
        h = fnv1a(h, &st.st_ino, sizeof st.st_ino);
    }
    while (next_line(f, &line, &cap, &m)) {
        if (!is_inside(m.path, dir))
            continue;
        h = fnv1a(h, &m.dev, sizeof m.dev);
        h = fnv1a(h, m.path, strlen(m.path));
    }
    free(line);
    if (f)
        fclose(f);
    return h;
}

static bool conf_allows_other(void)
{
    FILE *f = fopen("/etc/fuse.conf", "re");
    char line[256];
    bool yes = false;
    while (f && fgets(line, sizeof line, f)) {
        char word[32],
            more[2]; /* as fusermount3 reads it: blanks around it and a comment are fine */
        line[strcspn(line, "#")] = '\0';
        yes = yes ||
              (sscanf(line, "%31s %1s", word, more) == 1 && strcmp(word, "user_allow_other") == 0);
    }
    if (f)
        fclose(f);
    return yes;
}

static int say_dead(const char *path, struct err *e)
{
    return err_set(e, -ENOTCONN,
                   "%s: a dead mount is there: run fusermount3 -u %s, or add -o clean_stale", path,
                   path);
}

/* The real path of a mount point, without asking the file system that is mounted there. */
static int real_mountpoint(const char *path, char real[PATH_MAX], struct err *e)
{
    char dir[PATH_MAX];
    if (strlen(path) >= sizeof dir)
        return err_set(e, -ENAMETOOLONG, "%s: name too long", path);
    strcpy(dir, path);
    for (size_t n = strlen(dir); n > 1 && dir[n - 1] == '/'; n--)
        dir[n - 1] = '\0';
    char *slash = strrchr(dir, '/'), *name = slash ? slash + 1 : dir;
    if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_set(e, -EINVAL, "%s: clean_stale needs the folder's own name", path);
    char last[PATH_MAX];
    strcpy(last, name);
    *name = '\0';
    if (!realpath(*dir ? dir : ".", real))
        return err_set(e, -errno, "%s: %s", dir, strerror(errno));
    size_t n = strlen(real);
    if (snprintf(real + n, PATH_MAX - n, "%s%s", n > 1 ? "/" : "", last) >= (int)(PATH_MAX - n))
        return err_set(e, -ENAMETOOLONG, "%s: name too long", path);
    return 0;
}

/* clean_stale: unmounts what a dead aprfs has left at path, once or more, and nothing else. */
static int clean_stale(const char *path, struct err *e)
{
    char real[PATH_MAX], type[64];
    dev_t dev;
    int rc = real_mountpoint(path, real, e);
    for (int i = 0; rc == 0 && i < MAX_STALE; i++) {
        struct statfs sf;
        if (!mount_at(real, &dev, type) || strcmp(type, "fuse.aprfs") != 0 ||
            statfs(real, &sf) == 0 || errno != ENOTCONN)
            return 0;
        rc = mount_detach(real, dev, -1, e);
        if (rc == 0)
            log_line(LOG_NOTE, "%s: unmounted what a dead aprfs had left", path);
    }
    return rc;
}

static int check_dir(const char *path, char real[PATH_MAX], struct err *e)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        int rc = -errno;
        if (rc == -ENOTCONN)
            return say_dead(path, e);
        return err_set(e, rc, "%s: %s", path, strerror(-rc));
    }
    if (!S_ISDIR(st.st_mode))
        return err_set(e, -ENOTDIR, "%s: not a directory", path);
    if (!realpath(path, real))
        return err_set(e, -errno, "%s: %s", path, strerror(errno));
    return 0;
}

static int check_source(struct store_source *src, struct err *e)
{
    char real[PATH_MAX];
    int rc = check_dir(src->path, real, e);
    char *copy = rc == 0 ? strdup(real) : NULL;
    if (rc == 0 && !copy)
        rc = err_set(e, -ENOMEM, "no memory for a path");
    if (rc == 0) {
        free(src->path);
        src->path = copy;
    }
    return rc;
}

int mount_check(const struct options *o, struct sources *src, char dir[PATH_MAX], struct err *e)
{
    int rc = 0;
    for (size_t i = 0; i < src->n && rc == 0; i++)
        rc = check_source(&src->src[i], e);
    if (rc == 0)
        rc = sources_describe(src, e);
    if (rc == 0 && o->clean_stale)
        rc = clean_stale(o->mountpoint, e);
    if (rc == 0)
        rc = check_dir(o->mountpoint, dir, e);
    if (rc < 0)
        return rc;
    for (size_t i = 0; i < src->n; i++)
        if (is_inside(dir, src->src[i].path) || is_inside(src->src[i].path, dir))
            return err_set(e, -EINVAL,
                           "%s and %s: one is inside the other; the mount would show itself",
                           src->src[i].path, dir);
    dev_t dev;
    char type[64];
    struct statfs sf;
    bool mounted = mount_at(dir, &dev, type);
    /* stat(2) of a dead mount's root may still be answered from the kernel's memory; this is not. */
    if (mounted && strncmp(type, "fuse", 4) == 0 && statfs(dir, &sf) < 0 && errno == ENOTCONN)
        return say_dead(o->mountpoint, e);
    if (mounted && strcmp(type, "fuse.aprfs") == 0)
        return err_set(e, -EBUSY, "%s: an aprfs mount already", dir);
    if (access("/dev/fuse", F_OK) < 0)
        return err_set(e, -ENODEV,
                       "no /dev/fuse here; aprd and aprtool open the .gguf files of %s directly",
                       src->text);
    if (o->allow_other && geteuid() != 0 && !conf_allows_other())
        return err_set(e, -EPERM,
                       "allow_other needs the line 'user_allow_other' in /etc/fuse.conf");
    if (o->allow_root && geteuid() != 0 && !conf_allows_other())
        return err_set(e, -EPERM, "allow_root needs the line 'user_allow_other' in /etc/fuse.conf");
    return 0;
}

/* What setuid fusermount3 does for those who may not unmount themselves. */
static int spawn_fusermount(const char *dir, struct err *e)
{
    char *const argv[] = {(char *)"fusermount3", (char *)"-u",           (char *)"-z", (char *)"-q",
                          (char *)"--",          (char *)(uintptr_t)dir, NULL};
    posix_spawnattr_t attr;
    sigset_t none;
    pid_t pid;
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    int rc = posix_spawnp(&pid, argv[0], NULL, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    if (rc)
        return err_set(e, -rc, "fusermount3: %s", strerror(rc));
    int status;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_set(e, -errno, "fusermount3: %s", strerror(errno));
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(e, -EPERM, "fusermount3 -uz %s failed", dir);
    return 0;
}

/* Is the session over, by umount or an abort? fd: its /dev/fuse, -1: closed. */
static bool is_over(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return fd < 0 || (poll(&p, 1, 0) > 0 && p.revents & POLLERR);
}

/* Does nobody answer there? Whatever the error is: a session that ends while it is asked has several. */
static bool is_dead(const char *path)
{
    struct statfs sf;
    return statfs(path, &sf) < 0;
}

int mount_detach(const char *dir, dev_t dev, int session_fd, struct err *e)
{
    char at[PATH_MAX];
    int rc = find_mount(dir, dev, at);
    if (rc < 0)
        return err_set(e, rc, "%s: something else is mounted over it", dir);
    /* The kernel gives the number of a mount that is gone to the next one, which may be dead, too. */
    if (rc == 0 || (is_over(session_fd) && (strcmp(at, dir) != 0 || !is_dead(at))))
        return 0;
    if (umount2(at, MNT_DETACH | UMOUNT_NOFOLLOW) == 0)
        return 0;
    return errno == EPERM ? spawn_fusermount(at, e)
                          : err_set(e, -errno, "%s: umount: %s", at, strerror(errno));
}

static int notify_fd = -1;

void mount_notify_open(void)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof a.sun_path)
        return;
    strcpy(a.sun_path, path);
    if (path[0] == '@')
        a.sun_path[0] = '\0'; /* the abstract name space */
    notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const struct timeval patience = {.tv_sec = 5}; /* with one who does not read what it is told */
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (notify_fd >= 0)
        setsockopt(notify_fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (notify_fd >= 0 && connect(notify_fd, (struct sockaddr *)&a, len) < 0) {
        log_line(LOG_WARN, "NOTIFY_SOCKET %s: %s", path, strerror(errno));
        close(notify_fd);
        notify_fd = -1;
    }
}

void mount_notify(const char *s)
{
    if (notify_fd >= 0 && send(notify_fd, s, strlen(s), MSG_NOSIGNAL) < 0)
        log_line(LOG_WARN, "NOTIFY_SOCKET: %s", strerror(errno));
}

void mount_notify_models(struct fs *fs, const char *s)
{
    static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
    char text[512];
    pthread_mutex_lock(&mu);
    struct tree *t = nodes_tree(fs->nodes);
    snprintf(text, sizeof text, "%sSTATUS=%zu models of %.300s\n", s, t->n_model, fs->sources.text);
    tree_put(fs->nodes, t);
    mount_notify(text);
    pthread_mutex_unlock(&mu);
}
