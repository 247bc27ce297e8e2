/* Holds back the first bytes of an unfinished UTF-8 character until the rest comes, so that whoever
 * reads a stream token by token never sees half a character. No byte is lost or changed: what can
 * no longer become a character passes at once, and flush gives the rest. */
#ifndef APRFS_INFER_TEXT_UTF8_HOLD_H
#define APRFS_INFER_TEXT_UTF8_HOLD_H

#include <stddef.h>

struct utf8_hold {
    char held[4];
    size_t n_held;
};

/* Of p[0..n): how many bytes from the front may pass; the rest, at most 3 bytes, are the start of a
 * character that is still whole so far. */
size_t utf8_complete(const char *p, size_t n);

/* Passes held bytes and p[0..n) on to put, in order, but for an unfinished end. put's failure (a
 * negative errno) is returned. */
int utf8_hold_put(struct utf8_hold *h, const char *p, size_t n,
                  int (*put)(void *ctx, const char *p, size_t n), void *ctx);
int utf8_hold_flush(struct utf8_hold *h, int (*put)(void *ctx, const char *p, size_t n), void *ctx);

#endif
