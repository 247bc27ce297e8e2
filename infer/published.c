#include "infer/published.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define ATTR     "user.aprfs.crc32"
#define ATTR_MAX (64 << 10) /* the kernel's limit of a value */

struct line {
    const char *name; /* in text */
    uint32_t crc;
};

struct published {
    char *text;
    struct line *line; /* sorted by name */
    size_t n;
};

static int by_name(const void *pa, const void *pb)
{
    const struct line *a = pa, *b = pb;
    return strcmp(a->name, b->name);
}

static bool parse_line(char *p, struct line *out)
{
    char digit[9] = "";
    if (strspn(p, "0123456789abcdefABCDEF") != 8 || p[8] != ' ' || !p[9])
        return false;
    memcpy(digit, p, 8);
    *out = (struct line){p + 9, (uint32_t)strtoul(digit, NULL, 16)};
    return true;
}

int published_parse(struct published **out, const char *text, size_t len, struct err *e)
{
    size_t n = 1, no = 0;
    for (size_t i = 0; i < len; i++)
        n += text[i] == '\n';
    struct published *p = calloc(1, sizeof *p);
    if (p) {
        p->text = malloc(len + 1);
        p->line = calloc(n, sizeof *p->line);
    }
    if (!p || !p->text || !p->line) {
        published_free(p);
        return err_set(e, -ENOMEM, "no memory for published checksums");
    }
    memcpy(p->text, text, len);
    p->text[len] = 0;
    bool bad = memchr(text, 0, len) != NULL;
    for (char *at = p->text, *nl; !bad && *at; at = nl) {
        nl = strchrnul(at, '\n');
        if (*nl)
            *nl++ = 0;
        no++;
        bad = !parse_line(at, &p->line[p->n++]);
    }
    if (!bad)
        qsort(p->line, p->n, sizeof *p->line, by_name);
    for (size_t i = 1; !bad && i < p->n; i++)
        bad = strcmp(p->line[i].name, p->line[i - 1].name) == 0;
    if (bad) {
        published_free(p);
        return err_set(e, -EUCLEAN, ATTR ": line %zu is malformed, or a name stands twice", no);
    }
    *out = p;
    return 0;
}

int published_read(struct published **out, const struct source *file, struct err *e)
{
    *out = NULL;
    if (source_fd(file) < 0)
        return 0;
    char *text = malloc(ATTR_MAX);
    if (!text)
        return err_set(e, -ENOMEM, "no memory for published checksums");
    ssize_t n = fgetxattr(source_fd(file), ATTR, text, ATTR_MAX);
    int rc = n < 0 ? -errno : 0;
    if (n > 0)
        rc = published_parse(out, text, (size_t)n, e);
    else if (rc == -ENODATA || rc == -ENOTSUP || rc == -E2BIG)
        rc = 0; /* E2BIG: a mount's list that no attribute can hold */
    else if (rc < 0)
        err_set(e, rc, ATTR ": %s", strerror(-rc));
    free(text);
    if (rc < 0)
        err_wrap(e, "%s", source_name(file));
    return rc;
}

void published_free(struct published *p)
{
    if (!p)
        return;
    free(p->text);
    free(p->line);
    free(p);
}

int published_check(const struct published *p, const char *name, uint32_t crc, struct err *e)
{
    const struct line key = {name, 0};
    const struct line *l = p ? bsearch(&key, p->line, p->n, sizeof *p->line, by_name) : NULL;
    if (!l || l->crc == crc)
        return 0;
    return err_set(e, -EUCLEAN,
                   "tensor '%s': CRC-32 of its bytes is %08" PRIx32 ", published is %08" PRIx32,
                   name, crc, l->crc);
}
