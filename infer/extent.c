#include "infer/extent.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define ATTR     "user.aprfs.extents"
#define ATTR_MAX (64 << 10) /* the kernel's limit of a value */

/* --- the text ------------------------------------------------------------------------------ */

/* One line of it, from p to end, and what is wrong with it. */
struct line {
    const char *p, *end;
    size_t no;
    bool bad;
};

static bool next_line(struct line *l, const char **at, const char *end)
{
    if (*at == end)
        return false;
    const char *nl = memchr(*at, '\n', (size_t)(end - *at));
    l->p = *at;
    l->end = nl ? nl : end;
    l->no++;
    *at = nl ? nl + 1 : end;
    return true;
}

/* Whether word comes next, and a space or the line's end behind it. */
static bool take_word(struct line *l, const char *word)
{
    size_t n = strlen(word);
    if ((size_t)(l->end - l->p) < n || memcmp(l->p, word, n) != 0 ||
        (l->p + n < l->end && l->p[n] != ' '))
        return false;
    l->p += n;
    return true;
}

/* A decimal number up to max, and a space or the line's end behind it. */
static uint64_t take_digits(struct line *l, uint64_t max)
{
    uint64_t v = 0;
    const char *first = l->p;
    for (; l->p < l->end && *l->p >= '0' && *l->p <= '9'; l->p++)
        if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
            __builtin_add_overflow(v, (uint64_t)(*l->p - '0'), &v))
            l->bad = true;
    l->bad |= l->p == first || v > max || (l->p < l->end && *l->p != ' ');
    return v;
}

static void take_space(struct line *l)
{
    if (l->p < l->end && *l->p == ' ')
        l->p++;
    else
        l->bad = true;
}

static uint64_t take_number(struct line *l, uint64_t max)
{
    take_space(l);
    return take_digits(l, max);
}

static int64_t take_signed(struct line *l)
{
    take_space(l);
    bool minus = l->p < l->end && *l->p == '-';
    l->p += minus;
    int64_t v = (int64_t)take_digits(l, INT64_MAX);
    return minus ? -v : v;
}

/* An absolute path with "\ooo" (three octal digits, no NUL) for bytes that no line may
 * hold. */
static char *take_path(struct line *l)
{
    char *path = malloc((size_t)(l->end - l->p) + 1), *q = path;
    if (!path)
        return NULL;
    take_space(l);
    for (const char *p = l->p; p < l->end && !l->bad; p++) {
        unsigned v = (unsigned char)*p;
        if (*p == '\\') {
            v = 0;
            for (int i = 0; i < 3; i++)
                if (++p < l->end && *p >= '0' && *p <= '7')
                    v = v * 8 + (unsigned)(*p - '0');
                else
                    v = 256;
        }
        if (v == 0 || v > 255) {
            l->bad = true;
            break;
        }
        *q++ = (char)v;
    }
    *q = 0;
    l->bad |= path[0] != '/';
    l->p = l->end;
    return path;
}

static int take_part(struct extent_map *m, struct line *l)
{
    struct extent_part *p = &m->part[m->n_part];
    l->bad |= take_number(l, INT32_MAX) != m->n_part;
    p->dev = take_number(l, UINT64_MAX);
    p->ino = take_number(l, UINT64_MAX);
    p->size = take_number(l, INT64_MAX);
    p->mtime_ns = take_signed(l);
    p->path = take_path(l);
    if (!p->path)
        return -ENOMEM;
    m->n_part++;
    return 0;
}

/* The range behind *end, which it moves. */
static void take_map(struct extent_map *m, struct line *l, uint64_t *end)
{
    struct extent_range *r = &m->range[m->n_range++];
    r->part = -1;
    l->bad |= take_number(l, UINT64_MAX) != *end;
    r->off = *end;
    r->len = take_number(l, INT64_MAX);
    bool mount = take_word(l, " mem") || take_word(l, " zero");
    if (!mount)
        r->part = (int32_t)take_number(l, INT32_MAX);
    r->src_off = take_number(l, INT64_MAX);
    if (!mount && !l->bad) {
        l->bad |= (size_t)r->part >= m->n_part;
        uint64_t size = l->bad ? 0 : m->part[r->part].size;
        l->bad |= r->src_off > size || r->len > size - r->src_off;
    }
    l->bad |= l->p != l->end || __builtin_add_overflow(*end, r->len, end);
}

int extent_parse(struct extent_map *out, const char *text, size_t len, uint64_t size, struct err *e)
{
    const char *at = text, *stop = text + len;
    struct extent_map m = {0};
    struct line l = {0};
    uint64_t end = 0;
    size_t n = 2;
    int rc = 0;
    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    m.part = calloc(n, sizeof *m.part);
    m.range = calloc(n, sizeof *m.range);
    if (!m.part || !m.range)
        rc = err_set(e, -ENOMEM, "no memory for extents");
    else if (!next_line(&l, &at, stop) || !take_word(&l, "aprfs-extents") ||
             take_number(&l, UINT64_MAX) != 1 || l.bad || l.p != l.end)
        rc = err_set(e, -EUCLEAN, ATTR ": does not begin with \"aprfs-extents 1\"");
    while (rc == 0 && next_line(&l, &at, stop)) {
        if (m.n_range == 0 && take_word(&l, "part"))
            rc = take_part(&m, &l);
        else if (take_word(&l, "map"))
            take_map(&m, &l, &end);
        else
            l.bad = true;
        if (rc < 0)
            err_set(e, rc, "no memory for extents");
        else if (l.bad)
            rc = err_set(e, -EUCLEAN, ATTR ": line %zu is malformed", l.no);
    }
    if (rc == 0 && end != size)
        rc = err_set(e, -EUCLEAN, ATTR ": ends at byte %" PRIu64 ", the file has %" PRIu64, end,
                     size);
    if (rc < 0)
        extent_release(&m);
    else
        *out = m;
    return rc;
}

void extent_release(struct extent_map *m)
{
    for (size_t i = 0; i < m->n_part; i++) {
        source_close(m->part[i].src);
        free(m->part[i].path);
    }
    free(m->part);
    free(m->range);
    *m = (struct extent_map){0};
}

/* --- the parts ----------------------------------------------------------------------------- */

int extent_open_parts(struct extent_map *m, struct err *e)
{
    for (size_t i = 0; i < m->n_part; i++) {
        struct extent_part *p = &m->part[i];
        int rc = source_open(&p->src, p->path, e);
        if (rc < 0)
            return rc;
        struct source_id id = source_id(p->src);
        if (id.dev != p->dev || id.ino != p->ino || id.size != p->size ||
            id.mtime_ns != p->mtime_ns)
            return err_set(e, -ESTALE, "%s: is another file here than the mount's", p->path);
    }
    return 0;
}

struct over {
    const struct source *file;
    struct extent_map m;
};

/* The range that holds byte off of the file. */
static const struct extent_range *find(const struct extent_map *m, uint64_t off)
{
    size_t lo = 0, hi = m->n_range; /* range[lo].off <= off < range[hi].off */
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->range[mid].off <= off)
            lo = mid;
        else
            hi = mid;
    }
    return &m->range[lo];
}

static int over_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    const struct over *o = ctx;
    const struct extent_range *r = find(&o->m, off);
    for (unsigned char *p = dst; len > 0; r++) {
        uint64_t in = off - r->off, left = r->len - in;
        size_t n = left < len ? (size_t)left : len;
        int rc = r->part < 0 ? source_read(o->file, p, off, n, e)
                             : source_read(o->m.part[r->part].src, p, r->src_off + in, n, e);
        if (rc < 0)
            return rc;
        p += n;
        off += n;
        len -= n;
    }
    return 0;
}

static int over_check(void *ctx, struct err *e)
{
    const struct over *o = ctx;
    int rc = source_check(o->file, e);
    for (size_t i = 0; rc == 0 && i < o->m.n_part; i++)
        rc = source_check(o->m.part[i].src, e);
    return rc;
}

static void over_release(void *ctx)
{
    struct over *o = ctx;
    extent_release(&o->m);
    free(o);
}

int extent_source(struct source **out, const struct source *file, struct extent_map *m,
                  struct err *e)
{
    static const struct source_ops ops = {over_read, over_check, over_release};
    struct over *o = calloc(1, sizeof *o);
    if (!o) {
        extent_release(m);
        return err_set(e, -ENOMEM, "no memory for extents");
    }
    *o = (struct over){file, *m};
    *m = (struct extent_map){0};
    return source_from_ops(out, &ops, o, source_size(file), source_name(file), e);
}

/* --- from an open file --------------------------------------------------------------------- */

bool extent_is_mount(const char *root, uint64_t dev)
{
    char path[4096], want[64], *line = NULL;
    size_t cap = 0;
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    snprintf(want, sizeof want, "%u:%u", major(dev), minor(dev));
    FILE *f = fopen(path, "re");
    /* "36 35 98:0 /root /point options [tags] - type source options" */
    while (f && !found && getline(&line, &cap, f) > 0) {
        char id[64], *type = strstr(line, " - ");
        found = sscanf(line, "%*s %*s %63s", id) == 1 && strcmp(id, want) == 0 && type &&
                strncmp(type, " - fuse.aprfs ", 14) == 0;
    }
    free(line);
    if (f)
        fclose(f);
    return found;
}

static int read_extents(struct source **out, const struct source *file, struct err *e)
{
    struct extent_map m;
    char *text = malloc(ATTR_MAX);
    if (!text)
        return err_set(e, -ENOMEM, "no memory for extents");
    ssize_t n = fgetxattr(source_fd(file), ATTR, text, ATTR_MAX);
    const char *whynot = errno == ENODATA ? "not offered"
                         : errno == E2BIG ? "longer than an attribute may be"
                                          : strerror(errno);
    int rc = n < 0 ? err_set(e, -errno, ATTR ": %s", whynot)
                   : extent_parse(&m, text, (size_t)n, source_size(file), e);
    free(text);
    if (rc < 0)
        return rc;
    rc = extent_open_parts(&m, e);
    if (rc == 0)
        return extent_source(out, file, &m, e);
    extent_release(&m);
    return rc;
}

enum extent_from extent_find(struct source **out, const struct source *file, char why[EXTENT_WHY])
{
    struct err e;
    *out = NULL;
    why[0] = 0;
    if (source_fd(file) < 0 || !extent_is_mount("", source_id(file).dev))
        return EXTENT_FILE;
    if (read_extents(out, file, &e) == 0)
        return EXTENT_PARTS;
    snprintf(why, EXTENT_WHY, "%s", e.msg);
    return EXTENT_MOUNT;
}
