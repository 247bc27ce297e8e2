/* Plain folders: every regular file with the magic "GGUF", at any depth up to STORE_MAX_DEPTH,
 * whatever its suffix. */
#include "format/store_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int walk(struct store_build *b, int fd, const char *rel, int depth, struct err *e);

static int visit_dir(struct store_folder *d, const char *name)
{
    if (name[0] == '.' || !strcmp(name, "lost+found"))
        return 0;
    int fd;
    char *rel;
    int rc = store_folder_enter(d, name, &fd, &rel);
    if (rc == 0 && fd >= 0)
        rc = walk(d->b, fd, rel, d->depth + 1, NULL);
    free(rel);
    return rc;
}

static int visit_link(struct store_folder *d, const char *name)
{
    struct stat st;
    /* Where links may not leave the root, not even their target is looked at from here. */
    if (d->b->opt->resolve == STORE_RESOLVE_BENEATH)
        return store_folder_look(d, name);
    if (fstatat(d->fd, name, &st, 0) < 0) {
        int rc = -errno;
        if (!store_named_model(d->b, name))
            return 0;
        char why[ERR_MSG_MAX];
        snprintf(why, sizeof why, "a link whose target %s",
                 rc == -ENOENT ? "is gone" : "cannot be reached");
        return store_folder_add(d, name, &(struct source_id){0}, rc, why);
    }
    if (S_ISDIR(st.st_mode))
        return store_folder_problem(
            d, name, -ELOOP, "a link to a directory: not followed; name the directory as a source");
    return store_folder_look(d, name);
}

int store_plain_visit(struct store_folder *d, const char *name)
{
    struct stat st;
    if (fstatat(d->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : store_folder_problem(d, name, -errno, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return visit_dir(d, name);
    if (S_ISLNK(st.st_mode))
        return visit_link(d, name);
    if (S_ISREG(st.st_mode))
        return store_folder_look(d, name);
    /* Not opened at all: opening a device may do things. */
    return store_named_model(d->b, name)
               ? store_folder_problem(d, name, -EINVAL, "not a regular file")
               : 0;
}

/* Takes fd. Fails only without memory; everything else is a problem line. */
static int walk(struct store_build *b, int fd, const char *rel, int depth, struct err *e)
{
    struct store_folder d;
    int rc = store_folder_open(&d, b, fd, rel, depth);
    for (size_t i = 0; rc == 0 && i < d.n_name; i++)
        rc = store_plain_visit(&d, d.name[i]);
    if (rc == 0)
        rc = store_folder_group(&d, NULL, NULL);
    if (rc < 0)
        err_set(e, rc, "%s, while a folder was scanned", strerror(-rc));
    store_folder_close(&d);
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
