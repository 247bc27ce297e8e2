/* Regexes over characters -> regexes over class bytes (see split.h). */
#ifndef APRFS_INFER_TEXT_SPLIT_CLASS_H
#define APRFS_INFER_TEXT_SPLIT_CLASS_H

#include "format/err.h"
#include "format/pretok.h"

#include <stddef.h>
#include <stdint.h>

struct split_class {
    uint8_t *of;                   /* class byte of a code point; UNICODE_END elements */
    char *regex[PRETOK_MAX_SPLIT]; /* for PCRE2 without UTF; NULL where run by code */
    uint8_t number[256];           /* 1: the class byte is \p{N} */
};

/* Fills c; on failure c is released. */
int split_class_init(struct split_class *c, const struct pretok_split *rule, struct err *e);
void split_class_release(struct split_class *c);

#endif
