/* What json.c and json_out.c share. */
#ifndef APRFS_FORMAT_JSON_INTERNAL_H
#define APRFS_FORMAT_JSON_INTERNAL_H

#include <locale.h>
#include <stddef.h>
#include <stdint.h>

/* Length of the well-formed UTF-8 sequence at p (1..4), 0 if there is none; left > 0. */
size_t json_utf8_len(const uint8_t *p, size_t left);

/* The C locale, so that a program's own never changes a number. Never allocates in glibc: a static
 * object there, not to be freed. */
locale_t json_locale(void);

#endif
