/* Error records: see err.h. */
#include "format/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void err_clean(char *s)
{
    for (unsigned char *p = (unsigned char *)s; *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
            p[0] = p[1] = '?';
    }
}

/* A message of need bytes, which may be more than there was room for. */
static void clean_and_mark(char *msg, size_t need)
{
    err_clean(msg);
    if (need >= ERR_MSG_MAX)
        memcpy(msg + ERR_MSG_MAX - 4, "...", 4);
}

int err_set(struct err *e, int rc, const char *fmt, ...)
{
    if (!e)
        return rc;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->msg, sizeof e->msg, fmt, ap);
    va_end(ap);
    e->code = rc;
    clean_and_mark(e->msg, n < 0 ? 0 : (size_t)n);
    return rc;
}

void err_wrap(struct err *e, const char *fmt, ...)
{
    if (!e)
        return;
    char old[ERR_MSG_MAX], head[ERR_MSG_MAX];
    memcpy(old, e->msg, sizeof old);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    size_t n = strnlen(head, sizeof head), m = strnlen(old, sizeof old);
    size_t need = n + 2 + m;
    snprintf(e->msg, sizeof e->msg, "%.*s: %.*s", (int)n, head,
             (int)(need < sizeof e->msg ? m : (n + 3 < sizeof e->msg ? sizeof e->msg - n - 3 : 0)),
             old);
    clean_and_mark(e->msg, need);
}

const char *err_name(int rc)
{
    const char *name = strerrorname_np(-rc);
    return name ? name : "E?";
}
