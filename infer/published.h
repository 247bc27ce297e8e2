/* CRCs of tensors that come with a file, as the extended attribute "user.aprfs.crc32": a line
 * "XXXXXXXX NAME" per tensor, eight hex digits, the name as the index has it. */
#ifndef APRFS_INFER_PUBLISHED_H
#define APRFS_INFER_PUBLISHED_H

#include "format/source.h"

struct published;

/* *out NULL: the file has none. -EUCLEAN: it has, and they are malformed; or what else reading them
 * answers: a check is not skipped because it failed. */
int published_read(struct published **out, const struct source *file, struct err *e);
/* The same of text[0..len). */
int published_parse(struct published **out, const char *text, size_t len, struct err *e);
void published_free(struct published *p); /* NULL is fine */

/* -EUCLEAN, with both values, if the tensor's published CRC is another; 0 too where there is none.
 * p may be NULL. */
int published_check(const struct published *p, const char *name, uint32_t crc, struct err *e);

#endif
