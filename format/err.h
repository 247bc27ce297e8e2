/* Errors: a negative errno, and the story behind it in the last argument.
 *
 * Codes every module uses: -EUCLEAN malformed bytes, -ENOTSUP well-formed but not ours (version,
 * architecture, type), -EINVAL the caller's slip, -ENOENT absent, -ERANGE over a limit, -EIO read
 * or device, -ENODEV no GPU, -ENOMEM. A message names the thing, what was found and what was
 * expected. */
#ifndef APRFS_FORMAT_ERR_H
#define APRFS_FORMAT_ERR_H

#define ERR_MSG_MAX 512 /* longer messages are cut, with "..." at the end */

struct err {
    int code;              /* 0 or a negative errno */
    char msg[ERR_MSG_MAX]; /* one line, no newline; control bytes never occur in it */
};

/* Stores rc and the message; returns rc. e may be NULL. Control bytes that an argument brings in
 * (names come from hostile files) are shown as '?'. */
int err_set(struct err *e, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Prepends "<text>: " to the message; the code stays. */
void err_wrap(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Control characters, which names from files may hold, would command a terminal; U+0080 to U+009F are such,
 * too. Each of their bytes becomes '?'. */
void err_clean(char *s);

/* The errno's symbolic name ("EUCLEAN") for rc = -EUCLEAN; "E?" if unknown. Static storage. */
const char *err_name(int rc);

#endif
