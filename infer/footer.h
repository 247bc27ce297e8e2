/* The footer of an .apr file: CRC-32 of every byte before it, if somebody asked for one when the file
 * was written. */
#ifndef APRFS_INFER_FOOTER_H
#define APRFS_INFER_FOOTER_H

#include "infer/bind.h"

/* All of item have been read; their checksums are joined with those of the bytes between them, which
 * are read here. -EUCLEAN, with both values, if the footer says otherwise; 0 too where there is none. */
int footer_check(const struct apr *apr, const struct bind_item *item, size_t n_item, struct err *e);

#endif
