#include "infer/text/utf8_hold.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Length of the character that byte c opens; 0: it opens none. */
static size_t utf8_len(unsigned char c)
{
    return c < 0x80                ? 1
           : c >= 0xC2 && c < 0xE0 ? 2
           : c >= 0xE0 && c < 0xF0 ? 3
           : c >= 0xF0 && c < 0xF5 ? 4
                                   : 0;
}

/* Can second byte d follow first byte c? (Unicode table 3-7: no overlong forms, no surrogates.) */
static bool utf8_second(unsigned char c, unsigned char d)
{
    unsigned lo = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80;
    unsigned hi = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    return d >= lo && d <= hi;
}

size_t utf8_complete(const char *p, size_t n)
{
    size_t back = 1;
    while (back <= 3 && back <= n) {
        unsigned char c = (unsigned char)p[n - back];
        if ((c & 0xC0) == 0x80) { /* a continuation: look further back for what it continues */
            back++;
            continue;
        }
        bool open =
            utf8_len(c) > back && (back < 2 || utf8_second(c, (unsigned char)p[n - back + 1]));
        return open ? n - back : n;
    }
    return n;
}

int utf8_hold_put(struct utf8_hold *h, const char *p, size_t n,
                  int (*put)(void *ctx, const char *p, size_t n), void *ctx)
{
    char small[64], *all = h->n_held + n <= sizeof small ? small : malloc(h->n_held + n);
    if (!all)
        return -ENOMEM;
    if (h->n_held)
        memcpy(all, h->held, h->n_held);
    if (n)
        memcpy(all + h->n_held, p, n);
    size_t len = h->n_held + n, pass = utf8_complete(all, len);
    int rc = pass ? put(ctx, all, pass) : 0;
    if (rc >= 0) {
        rc = 0;
        h->n_held = len - pass;
        memcpy(h->held, all + pass, h->n_held);
    }
    if (all != small)
        free(all);
    return rc;
}

int utf8_hold_flush(struct utf8_hold *h, int (*put)(void *ctx, const char *p, size_t n), void *ctx)
{
    int rc = h->n_held ? put(ctx, h->held, h->n_held) : 0;
    h->n_held = 0;
    return rc < 0 ? rc : 0;
}
