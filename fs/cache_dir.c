/* The cache folder: see cache_dir.h. */
#include "fs/cache_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *cache_dir_path(void)
{
    const char *service = getenv("CACHE_DIRECTORY"), *xdg = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    char *dir = NULL;
    int n = -1;
    if (service && *service == '/')
        n = asprintf(&dir, "%.*s", (int)strcspn(service, ":"), service); /* may name several */
    else if (xdg && *xdg == '/')
        n = asprintf(&dir, "%s/aprfs", xdg);
    else if (home && *home == '/')
        n = asprintf(&dir, "%s/.cache/aprfs", home);
    return n < 0 ? NULL : dir;
}

/* dir and the folders above it; whether it worked shows when it is opened. */
static void make_dirs(const char *dir)
{
    char *copy = strdup(dir);
    for (char *p = copy; p && (p = strchr(p + 1, '/'));) {
        *p = '\0';
        mkdir(copy, 0700);
        *p = '/';
    }
    mkdir(dir, 0700);
    free(copy);
}

const char *cache_dir_not_ours(const struct stat *st)
{
    return st->st_uid != geteuid() ? "belongs to another user"
           : st->st_mode & 022     ? "may be written by others"
                                   : NULL;
}

int cache_dir_open(const char *dir, struct err *e)
{
    struct stat st;
    int rc = 0;
    make_dirs(dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        rc = -errno;
        err_set(e, rc, "%s: %s", dir, strerror(-rc));
    } else if (cache_dir_not_ours(&st)) {
        rc = err_set(e, -EPERM, "%s %s", dir, cache_dir_not_ours(&st));
    }
    if (rc == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return rc;
}
