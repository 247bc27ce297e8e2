/* Writing a planned .apr to a file: see apr_write.h. */
#include "format/apr_write.h"

#include "format/bytes.h"
#include "format/crc32.h"
#include "format/quant.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_STEP ((uint64_t)8 << 20) /* bytes between two looks at stop */
#define CONV_STEP  ((size_t)1 << 20)   /* bytes of F32 made at a time */

struct writer {
    const struct vapr *v;     /* NULL: the file is all that plan says */
    const struct vplan *plan; /* v's, or the one */
    const struct apr_write_options *opt;
    int fd;
    char *tmp;
    bool made; /* tmp is ours, to be unlinked on failure */
    uint64_t done, total;
    uint8_t *buf; /* WRITE_STEP bytes */
};

/* A stretch of a part that appears unchanged in the file. */
struct extent {
    int part;
    uint64_t src, len, dst;
};

static int write_step(struct writer *w, uint64_t n, struct err *e)
{
    w->done += n;
    if (w->opt->progress)
        w->opt->progress(w->opt->ctx, w->done, w->total);
    if (w->opt->stop && *w->opt->stop)
        return err_set(e, -EINTR, "interrupted");
    return 0;
}

static int write_at(struct writer *w, const void *p, size_t len, uint64_t off, struct err *e)
{
    const uint8_t *b = p;
    while (len > 0) {
        ssize_t n = pwrite(w->fd, b, len, (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int rc = n < 0 ? -errno : -EIO;
            return err_set(e, rc, "%s: writing %zu bytes at %" PRIu64 ": %s", w->tmp, len, off,
                           strerror(-rc));
        }
        b += n;
        off += (uint64_t)n;
        len -= (size_t)n;
    }
    return 0;
}

/* Through memory: for sources without a descriptor, and where the kernel cannot copy by itself; s
 * NULL: what the plan says. */
static int copy_by_reads(struct writer *w, const struct source *s, const struct extent *x,
                         struct err *e)
{
    for (uint64_t at = 0; at < x->len;) {
        size_t n = (size_t)(x->len - at < WRITE_STEP ? x->len - at : WRITE_STEP), got = n;
        int rc = s ? source_read(s, w->buf, x->src + at, n, e)
                   : vplan_read(w->plan, w->buf, x->src + at, n, &got, e);
        if (rc == 0)
            rc = write_at(w, w->buf, got, x->dst + at, e);
        if (rc == 0)
            rc = write_step(w, n, e);
        if (rc < 0)
            return rc;
        at += n;
    }
    return 0;
}

/* copy_file_range as far as it goes; what it leaves is read and written. A short source ends in
 * source_read's error. */
static int copy_range(struct writer *w, struct extent x, struct err *e)
{
    int fd = source_fd(w->plan->part[x.part]);
    while (fd >= 0 && x.len > 0) {
        off_t in = (off_t)x.src, out = (off_t)x.dst;
        size_t want = (size_t)(x.len < WRITE_STEP ? x.len : WRITE_STEP);
        ssize_t n = copy_file_range(fd, &in, w->fd, &out, want, 0);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n <= 0)
            break;
        x.src += (uint64_t)n;
        x.dst += (uint64_t)n;
        x.len -= (uint64_t)n;
        int rc = write_step(w, (uint64_t)n, e);
        if (rc < 0)
            return rc;
    }
    return copy_by_reads(w, w->plan->part[x.part], &x, e);
}

/* Shares the whole 64 KiB blocks where source and file lie alike and the file system can; copies
 * the rest. */
static int copy_extent(struct writer *w, const struct extent *x, struct err *e)
{
    int fd = source_fd(w->plan->part[x->part]);
    uint64_t from = (x->dst + VAPR_SHIFT - 1) / VAPR_SHIFT * VAPR_SHIFT;
    uint64_t to = (x->dst + x->len) / VAPR_SHIFT * VAPR_SHIFT;
    if (fd < 0 || (x->dst - x->src) % VAPR_SHIFT != 0 || to <= from)
        return copy_range(w, *x, e);

    uint64_t lead = from - x->dst;
    struct file_clone_range clone = {
        .src_fd = fd, .src_offset = x->src + lead, .src_length = to - from, .dest_offset = from};
    if (ioctl(w->fd, FICLONERANGE, &clone) < 0)
        return copy_range(w, *x, e); /* another file system, or one that shares no blocks */

    int rc = write_step(w, to - from, e);
    if (rc == 0)
        rc = copy_range(w, (struct extent){x->part, x->src, lead, x->dst}, e);
    if (rc == 0)
        rc = copy_range(
            w, (struct extent){x->part, x->src + lead + (to - from), x->dst + x->len - to, to}, e);
    return rc;
}

/* The first offset from least on that has the residue of part k's data start (in the layout
 * "shifted32": of its data start + 32). */
static uint64_t part_start(const struct gguf *g, int k, uint64_t least, uint64_t extra)
{
    uint64_t residue = (gguf_data_start(g, k) + extra) % VAPR_SHIFT;
    uint64_t at = least / VAPR_SHIFT * VAPR_SHIFT + residue;
    return at < least ? at + VAPR_SHIFT : at;
}

/* Layouts "congruent" and "shifted32": one extent per part that has tensors, x[k] for part k. */
static int extents_of_parts(struct writer *w, struct extent *x, struct err *e)
{
    const struct gguf *g = vapr_gguf(w->v);
    uint64_t extra = strcmp(vapr_layout(w->v), "shifted32") == 0 ? 32 : 0;
    uint64_t end = vapr_data_offset(w->v);
    for (int k = 0; k < gguf_n_part(g); k++) {
        uint64_t start = gguf_data_start(g, k), len = gguf_data_end(g, k) - start;
        x[k] = (struct extent){k, start, len, len ? part_start(g, k, end, extra) : end};
        end = x[k].dst + len;
        if (end > vapr_size(w->v))
            return err_set(e, -EIO, "plan: part %d ends at byte %" PRIu64 " of a file of %" PRIu64,
                           k, end, vapr_size(w->v));
    }
    return 0;
}

/* The entries with bytes of their own in a part, by part and place there. */
static int cmp_source(const void *a, const void *b)
{
    const struct vapr_tensor *x = *(const struct vapr_tensor *const *)a;
    const struct vapr_tensor *y = *(const struct vapr_tensor *const *)b;
    if (x->part != y->part)
        return x->part < y->part ? -1 : 1;
    return x->src_off < y->src_off ? -1 : x->src_off > y->src_off;
}

/* Layout "placed": runs of tensors at the source's distances; one that would stand at no multiple
 * of 64 begins a new run at the next such. Bytes between runs are zeros. */
static size_t runs_of_tensors(const struct vapr *v, const struct vapr_tensor **t, size_t n,
                              struct extent *x)
{
    uint64_t end = vapr_data_offset(v);
    size_t n_run = 0;
    for (size_t i = 0; i < n; i++) {
        struct extent *run = n_run ? &x[n_run - 1] : NULL;
        bool joins = run && run->part == t[i]->part &&
                     (t[i]->conv || (run->dst + (t[i]->src_off - run->src)) % 64 == 0);
        if (!joins) {
            run = &x[n_run++];
            *run = (struct extent){t[i]->part, t[i]->src_off, 0, (end + 63) / 64 * 64};
        }
        uint64_t len = t[i]->src_off + t[i]->src_size - run->src;
        run->len = len > run->len ? len : run->len;
        end = run->dst + run->len;
    }
    return n_run;
}

/* The last of n extents, which are sorted by part and place there, that begins at t's bytes or
 * before; NULL: none. */
static const struct extent *extent_before(const struct extent *x, size_t n,
                                          const struct vapr_tensor *t)
{
    size_t lo = 0, hi = n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (x[mid].part < t->part || (x[mid].part == t->part && x[mid].src <= t->src_off))
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo > 0 ? &x[lo - 1] : NULL;
}

/* Every entry must lie where an extent puts its bytes; only further names of them (aliases) may have
 * a place of their own, which becomes an extent. */
static int place_entries(struct writer *w, struct extent *x, size_t *n, struct err *e)
{
    size_t n_extent = *n;
    for (size_t i = 0; i < vapr_n_tensor(w->v); i++) {
        const struct vapr_tensor *t = vapr_tensor(w->v, i);
        if (t->conv || t->size == 0)
            continue;
        const struct extent *in = extent_before(x, n_extent, t);
        uint64_t at = in ? t->src_off - in->src : 0;
        if (in && in->part == t->part && at <= in->len && t->size <= in->len - at &&
            t->off - in->dst == at)
            continue;
        if (!t->alias)
            return err_set(e, -EIO,
                           "plan: tensor '%s' at byte %" PRIu64 ", not where the layout puts it",
                           t->name, t->off);
        x[(*n)++] = (struct extent){t->part, t->src_off, t->size, t->off};
    }
    return 0;
}

static int write_extents(struct writer *w, struct err *e)
{
    size_t n_tensor = vapr_n_tensor(w->v), n = 0;
    int n_part = gguf_n_part(vapr_gguf(w->v));
    struct extent *x = calloc(n_tensor + (size_t)n_part + 1, sizeof *x);
    const struct vapr_tensor **t = calloc(n_tensor + 1, sizeof *t);
    int rc = x && t ? 0 : err_set(e, -ENOMEM, "no memory for %zu extents", n_tensor);
    if (rc == 0 && strcmp(vapr_layout(w->v), "placed") == 0) {
        size_t n_own = 0;
        for (size_t i = 0; i < n_tensor; i++)
            if (!vapr_tensor(w->v, i)->alias && vapr_tensor(w->v, i)->src_size > 0)
                t[n_own++] = vapr_tensor(w->v, i);
        qsort(t, n_own, sizeof *t, cmp_source);
        n = runs_of_tensors(w->v, t, n_own, x);
    } else if (rc == 0) {
        rc = extents_of_parts(w, x, e);
        n = (size_t)n_part;
    }
    if (rc == 0)
        rc = place_entries(w, x, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = copy_extent(w, &x[i], e);
    free(x);
    free(t);
    return rc;
}

/* One widened or transcoded tensor, whole, as little-endian F32. */
static int write_conv(struct writer *w, const struct vapr_tensor *t, struct err *e)
{
    const struct quant_type *q = t->type;
    const struct source *s = gguf_part(vapr_gguf(w->v), t->part);
    uint64_t n_block = t->src_size / q->block_bytes;
    if (!q->f32 || n_block * q->block_len * 4 != t->size)
        return err_set(
            e, -EIO, "plan: tensor '%s': %" PRIu64 " bytes of %s are not %" PRIu64 " bytes of F32",
            t->name, t->src_size, q->name, t->size);

    size_t step = CONV_STEP / 4 / q->block_len; /* blocks at a time: >= 1024 */
    uint8_t *src = malloc(step * q->block_bytes);
    float *dst = malloc(step * q->block_len * sizeof *dst);
    int rc = src && dst ? 0 : err_set(e, -ENOMEM, "no memory to convert '%s'", t->name);
    for (uint64_t b = 0; rc == 0 && b < n_block;) {
        size_t n = n_block - b < step ? (size_t)(n_block - b) : step;
        size_t n_val = n * q->block_len;
        rc = source_read(s, src, t->src_off + b * q->block_bytes, n * q->block_bytes, e);
        if (rc < 0)
            break;
        q->f32(dst, src, n);
        for (size_t i = 0; i < n_val; i++) { /* in place: the same four bytes */
            uint32_t u;
            memcpy(&u, &dst[i], 4);
            store_u32(&dst[i], u);
        }
        rc = write_at(w, dst, n_val * 4, t->off + b * q->block_len * 4, e);
        if (rc == 0)
            rc = write_step(w, n_val * 4, e);
        b += n;
    }
    free(src);
    free(dst);
    return rc;
}

/* A further name of converted bytes, or of some of their rows, that are written under the first. */
static bool is_second_name(const struct vapr *v, const struct vapr_tensor *t)
{
    for (size_t i = 0; t->alias && i < vapr_n_tensor(v); i++) {
        const struct vapr_tensor *of = vapr_tensor(v, i);
        if (of->conv && !of->alias && t->off >= of->off && t->off - of->off < of->size)
            return true;
    }
    return false;
}

static int write_convs(struct writer *w, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < vapr_n_tensor(w->v); i++) {
        const struct vapr_tensor *t = vapr_tensor(w->v, i);
        if (t->conv && !is_second_name(w->v, t))
            rc = write_conv(w, t, e);
    }
    return rc;
}

/* The footer covers the bytes as they stand in the file: read back, not taken from the plan. */
static int write_footer(struct writer *w, struct err *e)
{
    uint64_t end = vapr_size(w->v) - 4;
    uint32_t crc = 0;
    for (uint64_t at = 0; at < end;) {
        size_t want = (size_t)(end - at < WRITE_STEP ? end - at : WRITE_STEP);
        ssize_t n = pread(w->fd, w->buf, want, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_set(e, n < 0 ? -errno : -EIO, "%s: reading back at %" PRIu64, w->tmp, at);
        crc = crc32_update(crc, w->buf, (size_t)n);
        at += (uint64_t)n;
        int rc = write_step(w, (uint64_t)n, e);
        if (rc < 0)
            return rc;
    }
    uint8_t foot[4];
    store_u32(foot, crc);
    return write_at(w, foot, 4, end, e);
}

static int write_all(struct writer *w, struct err *e)
{
    size_t head_len;
    const uint8_t *head = vapr_head(w->v, &head_len);
    int rc = write_at(w, head, head_len, 0, e);
    if (rc == 0)
        rc = write_step(w, head_len, e);
    if (rc == 0)
        rc = write_extents(w, e);
    if (rc == 0)
        rc = write_convs(w, e);
    if (rc == 0 && w->opt->footer == VAPR_FOOTER_CRC)
        rc = write_footer(w, e);
    return rc;
}

/* A segment of a plan that needs no witness of its own: see vplan_write_file. */
static int write_seg(struct writer *w, const struct vseg *s, struct err *e)
{
    if (s->kind == VSEG_ZERO)
        return 0;
    if (s->kind == VSEG_FILE)
        return copy_extent(w, &(struct extent){s->part, s->src_off, s->len, s->off}, e);
    return copy_by_reads(w, NULL, &(struct extent){-1, s->off, s->len, s->off}, e);
}

static int write_plan(struct writer *w, struct err *e)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < w->plan->n_seg; i++)
        rc = write_seg(w, &w->plan->seg[i], e);
    return rc;
}

static int write_file(struct writer *w, struct err *e)
{
    w->buf = malloc(WRITE_STEP);
    if (!w->buf)
        return err_set(e, -ENOMEM, "no memory for a copy buffer");
    w->total = w->plan->size * (w->opt->footer == VAPR_FOOTER_CRC ? 2 : 1);
    if (ftruncate(w->fd, (off_t)w->plan->size) < 0)
        return err_set(e, -errno, "%s: %" PRIu64 " bytes: %s", w->tmp, w->plan->size,
                       strerror(errno));
    int rc = w->v ? write_all(w, e) : write_plan(w, e);
    for (int k = 0; rc == 0 && k < w->plan->n_part; k++)
        rc = source_check(w->plan->part[k], e);
    if (rc == 0)
        rc = write_step(w, w->total - w->done, e); /* the zeros, which nobody wrote */
    return rc;
}

/* What must never be truncated: a part of the source, or a file that has other names too. */
static bool is_precious(const struct writer *w, const struct stat *st)
{
    for (int k = 0; k < w->plan->n_part; k++) {
        struct source_id id = source_id(w->plan->part[k]);
        if (source_fd(w->plan->part[k]) >= 0 && id.dev == st->st_dev && id.ino == st->st_ino)
            return true;
    }
    return st->st_nlink > 1;
}

/* Begins as a writer left it: empty, sized and not yet written, or with a model's magic. */
static bool is_leftover(int fd)
{
    char p[4] = {0};
    ssize_t n = pread(fd, p, sizeof p, 0);
    return n == 0 || (n == sizeof p && (memcmp(p, "APR", 4) == 0 || memcmp(p, "GGUF", 4) == 0 ||
                                        memcmp(p, "\0\0\0", 4) == 0));
}

/* path.tmp, locked: a leftover of a killed writer is taken over, a living writer's is not touched.
 * The lock is on the inode, so after taking it the name must still be this inode. */
static int tmp_open(struct writer *w, struct err *e)
{
    for (int tries = 0; tries < 100; tries++) {
        w->fd = open(w->tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
        if (w->fd < 0)
            return err_set(e, -errno, "%s: %s", w->tmp, strerror(errno));
        struct stat st, now;
        if (fstat(w->fd, &st) < 0 || !S_ISREG(st.st_mode))
            return err_set(e, -EEXIST, "%s: exists and is no regular file", w->tmp);
        if (flock(w->fd, LOCK_EX | LOCK_NB) < 0)
            return err_set(e, -EBUSY, "%s: another writer is at work", w->tmp);
        if (is_precious(w, &st))
            return err_set(e, -EEXIST, "%s: is the source, or has other names: no leftover",
                           w->tmp);
        if (!is_leftover(w->fd))
            return err_set(e, -EEXIST, "%s: exists and is no leftover of a writer", w->tmp);
        if (lstat(w->tmp, &now) == 0 && now.st_dev == st.st_dev && now.st_ino == st.st_ino) {
            w->made = true;
            if (ftruncate(w->fd, 0) < 0)
                return err_set(e, -errno, "%s: %s", w->tmp, strerror(errno));
            return 0;
        }
        close(w->fd);
        w->fd = -1;
    }
    return err_set(e, -EBUSY, "%s: other writers keep replacing it", w->tmp);
}

/* Data first, then the name, then the folder that holds the name. */
static int tmp_publish(struct writer *w, const char *path, struct err *e)
{
    if (fsync(w->fd) < 0)
        return err_set(e, -errno, "%s: fsync: %s", w->tmp, strerror(errno));
    if (w->opt->force ? rename(w->tmp, path) < 0
                      : renameat2(AT_FDCWD, w->tmp, AT_FDCWD, path, RENAME_NOREPLACE) < 0) {
        int rc = -errno;
        if (rc == -EINVAL &&
            !w->opt->force) { /* a file system without NOREPLACE: link(2) refuses */
            rc = link(w->tmp, path) < 0 ? -errno : 0;
            if (rc == 0)
                unlink(w->tmp);
        }
        if (rc < 0)
            return err_set(e, rc, "%s: %s", path, strerror(-rc));
    }
    w->made = false;

    char *dir = strdup(path);
    if (!dir)
        return err_set(e, -ENOMEM, "no memory for a path");
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(dir);
    if (fd >= 0) { /* some file systems sync no directories: the rename stands all the same */
        fsync(fd);
        close(fd);
    }
    return 0;
}

static int write_path(const struct vapr *v, const struct vplan *plan, const char *path,
                      const struct apr_write_options *opt, struct err *e)
{
    struct writer w = {.v = v, .plan = plan, .opt = opt, .fd = -1};
    struct stat st;
    int rc = 0;
    if (asprintf(&w.tmp, "%s.tmp", path) < 0) {
        w.tmp = NULL;
        rc = err_set(e, -ENOMEM, "no memory for a path");
    }
    if (rc == 0 && !opt->force && lstat(path, &st) == 0)
        rc = err_set(e, -EEXIST, "%s: exists", path);
    if (rc == 0)
        rc = tmp_open(&w, e);
    if (rc == 0)
        rc = write_file(&w, e);
    if (rc == 0)
        rc = tmp_publish(&w, path, e);
    if (w.made)
        unlink(w.tmp);
    if (w.fd >= 0)
        close(w.fd);
    free(w.buf);
    free(w.tmp);
    return rc;
}

int apr_write_file(const struct vapr *v, const char *path, const struct apr_write_options *opt,
                   struct err *e)
{
    return write_path(v, vapr_plan(v), path, opt, e);
}

int vplan_write_file(const struct vplan *p, const char *path, const struct apr_write_options *opt,
                     struct err *e)
{
    return write_path(NULL, p, path, opt, e);
}
