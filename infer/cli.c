#include "infer/cli.h"

#include "format/json.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int cli_write(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n) {
        ssize_t w = write(fd, at, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        at += w;
        n -= (size_t)w;
    }
    return 0;
}

int cli_read(int fd, char **out, size_t *len, struct err *e)
{
    char *p = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? cap * 2 : 65536;
            char *q = realloc(p, cap);
            if (!q) {
                free(p);
                return err_set(e, -ENOMEM, "input: no memory for %zu bytes", cap);
            }
            p = q;
        }
        ssize_t r = read(fd, p + n, cap - n);
        if (r < 0 && errno == EINTR)
            continue;
        if (r < 0) {
            int rc = -errno;
            free(p);
            return err_set(e, rc, "input: %s", strerror(-rc));
        }
        if (r == 0)
            break;
        n += (size_t)r;
    }
    *out = p;
    *len = n;
    return 0;
}

/* Digits alone, up to 2^31 - 1. */
static bool id_value(const char *word, long *v)
{
    char *end;
    errno = 0;
    *v = strtol(word, &end, 10);
    return !errno && word[0] >= '0' && word[0] <= '9' && !*end && *v <= INT32_MAX;
}

int cli_parse_ids(const char *p, size_t len, int32_t **out, size_t *n_out, struct err *e)
{
    int32_t *id = malloc((len / 2 + 1) * sizeof *id);
    size_t n = 0, at = 0;
    if (!id)
        return err_set(e, -ENOMEM, "no memory for token ids");
    while (at < len) {
        char word[16];
        size_t k = 0;
        if (strchr(" \t\r\n", p[at]) && p[at]) {
            at++;
            continue;
        }
        size_t start = at;
        while (at < len && !(p[at] && strchr(" \t\r\n", p[at]))) {
            if (k < sizeof word - 1)
                word[k++] = p[at];
            at++;
        }
        word[k] = 0;
        long v;
        if (at - start != strlen(word) || !id_value(word, &v)) {
            free(id);
            return err_set(e, -EINVAL, "input, byte %zu: '%s' is no token id", start, word);
        }
        id[n++] = (int32_t)v;
    }
    *out = id;
    *n_out = n;
    return 0;
}

int cli_read_ids(int fd, int32_t **out, size_t *n_out, struct err *e)
{
    char *text;
    size_t len;
    int rc = cli_read(fd, &text, &len, e);
    if (rc < 0)
        return rc;
    rc = cli_parse_ids(text, len, out, n_out, e);
    free(text);
    return rc;
}

void cli_put_escaped(FILE *f, const char *p, size_t len)
{
    for (size_t i = 0; i < len;) {
        unsigned char c = (unsigned char)p[i];
        size_t n = c < 0x80 ? 1 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : 4;
        if (c >= 0x80 && n <= len - i && json_utf8_valid(p + i, n)) {
            fwrite(p + i, 1, n, f);
            i += n;
            continue;
        }
        if (c == '\\')
            fputs("\\\\", f);
        else if (c == '\n')
            fputs("\\n", f);
        else if (c == '\t')
            fputs("\\t", f);
        else if (c == '\r')
            fputs("\\r", f);
        else if (c < 0x20 || c >= 0x7F)
            fprintf(f, "\\x%02X", c);
        else
            putc(c, f);
        i++;
    }
}
