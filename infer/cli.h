/* Bytes in and out of the program's own descriptors. */
#ifndef APRFS_INFER_CLI_H
#define APRFS_INFER_CLI_H

#include "format/err.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* All of p[0..n) to the descriptor, whatever it takes per call; 0 or a negative errno. */
int cli_write(int fd, const void *p, size_t n);

/* All there is to read, malloc'ed. */
int cli_read(int fd, char **out, size_t *len, struct err *e);

/* Token ids separated by white space, malloc'ed; anything else is -EINVAL with its place. */
int cli_parse_ids(const char *p, size_t len, int32_t **out, size_t *n_out, struct err *e);

/* The same of all that the descriptor gives. */
int cli_read_ids(int fd, int32_t **out, size_t *n_out, struct err *e);

/* p[0..len) on one line, exact: backslash, newline, tab and return escaped, other control bytes and
 * bytes that are no UTF-8 as \xNN. */
void cli_put_escaped(FILE *f, const char *p, size_t len);

#endif
