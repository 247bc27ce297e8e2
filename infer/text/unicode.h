/* What the tokenizers need of Unicode: kinds of characters, and UTF-8 as llama.cpp reads it. */
#ifndef APRFS_INFER_TEXT_UNICODE_H
#define APRFS_INFER_TEXT_UNICODE_H

#include <stddef.h>
#include <stdint.h>

#define UNICODE_END         0x110000 /* one past the last code point */
#define UNICODE_REPLACEMENT 0xFFFD

/* General categories by their first letter; White_Space goes before them. Unicode 15.1. */
enum unicode_kind {
    UNICODE_OTHER, /* control, format, separator that is no blank, private, unassigned */
    UNICODE_LETTER,
    UNICODE_MARK,
    UNICODE_NUMBER,
    UNICODE_PUNCT,
    UNICODE_SYMBOL,
    UNICODE_SPACE,
};

/* UNICODE_OTHER for cp >= UNICODE_END. A bisection: for tables, not for inner loops. */
enum unicode_kind unicode_kind(uint32_t cp);

/* kind[cp] for every code point at once; kind has UNICODE_END elements. */
void unicode_kinds(uint8_t *kind);

/* One character of p[0..len), len > 0. Lax as the reference: overlong forms and surrogates count as
 * what they spell; what is no sequence of lead and continuation bytes, or beyond U+10FFFF, is
 * U+FFFD and one byte. *n: bytes taken, at least 1. */
uint32_t unicode_decode(const uint8_t *p, size_t len, size_t *n);

/* Writes cp < UNICODE_END (surrogates too) and returns the number of bytes. */
size_t unicode_encode(uint32_t cp, uint8_t out[4]);

/* Length that a first byte announces: 1 for ASCII and for continuation bytes, else 2, 3 or 4. */
static inline size_t unicode_len(uint8_t first)
{
    return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

#endif
