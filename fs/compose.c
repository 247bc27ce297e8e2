/* Composition by reflink: see compose.h. */
#include "fs/compose.h"

#include "format/vplan.h"
#include "fs/pinned.h"
#include "fs/vfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BLOCK VPLAN_SHIFT /* a multiple of every file system's block */
#define CHUNK ((size_t)1 << 20)

static int sys_tmpfile(const char *dir)
{
    int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0400);
    return fd < 0 ? -errno : fd;
}

static int sys_clone(int to, uint64_t to_off, int from, uint64_t from_off, uint64_t len)
{
    struct file_clone_range r = {
        .src_fd = from, .src_offset = from_off, .src_length = len, .dest_offset = to_off};
    return ioctl(to, FICLONERANGE, &r) < 0 ? -errno : 0;
}

static int sys_reopen(int fd)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int ro = open(path, O_RDONLY | O_CLOEXEC);
    return ro < 0 ? -errno : ro;
}

const struct compose_sys compose_sys = {sys_tmpfile, sys_clone, sys_reopen};

/* The whole blocks inside a FILE segment, [*lo, *hi) of the virtual file; false: none. */
static bool whole_blocks(const struct vseg *s, uint64_t *lo, uint64_t *hi)
{
    *lo = (s->off + BLOCK - 1) / BLOCK * BLOCK;
    *hi = (s->off + s->len) / BLOCK * BLOCK;
    return s->kind == VSEG_FILE && *lo < *hi;
}

bool compose_fits(struct vfile *vf, char *why, size_t size)
{
    uint64_t conv = 0, cloned = 0, lo, hi;
    const struct vseg *s;
    *why = '\0';
    for (size_t i = 0; (s = vfile_seg(vf, i)) && !*why; i++) {
        conv += s->kind == VSEG_CONV ? s->len : 0;
        if (s->kind == VSEG_CRC && !vfile_crc_known(vf))
            snprintf(why, size, "the footer's checksum is not known before all was read");
        else if (s->kind == VSEG_FILE && s->off % BLOCK != s->src_off % BLOCK)
            snprintf(why, size, "layout places tensors apart from their blocks");
        else if (whole_blocks(s, &lo, &hi))
            cloned += hi - lo;
    }
    for (int i = 1; i < vfile_n_part(vf) && !*why; i++)
        if (pinned_dev(vfile_pins(vf), i) != pinned_dev(vfile_pins(vf), 0))
            snprintf(why, size, "its parts are on several file systems");
    if (!*why && conv > COMPOSE_MAX_CONV)
        snprintf(why, size, "%" PRIu64 " MiB of converted tensors", conv >> 20);
    if (!*why && cloned == 0)
        snprintf(why, size, "too small to share a block with its source");
    return !*why;
}

/* Bytes [off, off+len) of vf, by its ordinary read, with its checks. */
static int write_range(int fd, struct vfile *vf, uint64_t off, uint64_t len, uint8_t *buf,
                       struct err *e)
{
    while (len > 0) {
        size_t got, n = len < CHUNK ? (size_t)len : CHUNK;
        int rc = vfile_read(vf, buf, off, n, &got, e);
        if (rc == 0 && got != n)
            rc = err_set(e, -EIO, "ended at byte %" PRIu64, off + got);
        if (rc < 0)
            return rc;
        for (size_t at = 0; at < n;) {
            ssize_t k = pwrite(fd, buf + at, n - at, (off_t)(off + at));
            if (k < 0 && errno == EINTR)
                continue;
            if (k <= 0)
                return err_set(e, k < 0 ? -errno : -ENOSPC, "write: %s",
                               strerror(k < 0 ? errno : ENOSPC));
            at += (size_t)k;
        }
        off += n;
        len -= n;
    }
    return 0;
}

/* Everything but zeros, which a file of this size has by itself. */
static int fill(int fd, struct vfile *vf, const struct compose_sys *sys, const char **step,
                struct err *e)
{
    const struct vseg *s;
    int rc = ftruncate(fd, (off_t)vfile_size(vf)) < 0 ? -errno : 0;
    uint8_t *buf = malloc(CHUNK);
    *step = "write";
    if (rc < 0)
        err_set(e, rc, "size: %s", strerror(-rc));
    else if (!buf)
        rc = err_set(e, -ENOMEM, "no memory for a buffer");
    for (size_t i = 0; rc == 0 && (s = vfile_seg(vf, i)); i++) {
        uint64_t lo, hi, end = s->off + s->len;
        if (s->kind == VSEG_ZERO)
            continue;
        if (!whole_blocks(s, &lo, &hi))
            lo = hi = end;
        rc = write_range(fd, vf, s->off, lo - s->off, buf, e);
        if (rc == 0 && lo < hi) {
            int from = pinned_fd(vfile_pins(vf), s->part);
            rc = sys->clone(fd, lo, from, s->src_off + (lo - s->off), hi - lo);
            if (rc < 0) {
                *step = "clone";
                err_set(e, rc, "clone: %s", strerror(-rc));
            }
        }
        if (rc == 0)
            rc = write_range(fd, vf, hi, end - hi, buf, e);
    }
    free(buf);
    return rc;
}

/* The written file read-only instead of fd, which is closed in any case. */
static int finish(int *out, int fd, int rc, const struct compose_sys *sys, const char **step,
                  struct err *e)
{
    if (rc == 0) {
        rc = sys->reopen(fd);
        if (rc >= 0)
            *out = rc;
        else {
            *step = "reopen";
            err_set(e, rc, "reopen: %s", strerror(-rc));
        }
    }
    close(fd);
    return rc < 0 ? rc : 0;
}

static int tmpfile_in(const char *dir, const struct compose_sys *sys, const char **step,
                      struct err *e)
{
    int fd = sys->tmpfile(dir);
    *step = "unnamed file";
    return fd < 0 ? err_set(e, fd, "%s: unnamed file: %s", dir, strerror(-fd)) : fd;
}

int compose_file(int *out, struct vfile *vf, const char *dir, const struct compose_sys *sys,
                 const char **step, struct err *e)
{
    struct err late;
    int fd = tmpfile_in(dir, sys, step, e);
    if (fd < 0)
        return fd;
    int rc = pinned_enter(vfile_pins(vf), e);
    if (rc == 0) {
        rc = fill(fd, vf, sys, step, e);
        /* Cloned or copied, it counts only if no part is another generation now: never half of each. */
        int rc2 = pinned_leave(vfile_pins(vf), &late);
        if (rc2 < 0)
            rc = err_set(e, -ESTALE, "%s", late.msg);
    } else {
        rc = -ESTALE;
    }
    return finish(out, fd, rc, sys, step, e);
}

int compose_probe(int *out, struct vfile *vf, const char *dir, const struct compose_sys *sys,
                  const char **step, struct err *e)
{
    const struct vseg *s;
    uint64_t lo = 0, hi = 0;
    size_t i = 0;
    while ((s = vfile_seg(vf, i)) && !whole_blocks(s, &lo, &hi))
        i++;
    if (!s)
        return err_set(e, -EINVAL, "no block to try");
    int fd = tmpfile_in(dir, sys, step, e);
    if (fd < 0)
        return fd;
    int rc =
        sys->clone(fd, 0, pinned_fd(vfile_pins(vf), s->part), s->src_off + (lo - s->off), BLOCK);
    if (rc < 0) {
        *step = "clone";
        err_set(e, rc, "clone: %s", strerror(-rc));
    }
    return finish(out, fd, rc, sys, step, e);
}
