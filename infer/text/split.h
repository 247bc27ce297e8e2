/* Cuts text into pieces by a rule of format/pretok.h, exactly where llama.cpp cuts.
 *
 * The text is read as a row of class bytes, one per character: ASCII stands for itself, any other
 * blank for U+000B (the reference's own trick), any other character for the class of all characters
 * that the rule cannot tell apart. Over that row the rule's regexes are byte regexes, which PCRE2
 * compiles to machine code. */
#ifndef APRFS_INFER_TEXT_SPLIT_H
#define APRFS_INFER_TEXT_SPLIT_H

#include "format/err.h"
#include "format/pretok.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct split;

/* Immutable once made; safe from several threads. -ENOTSUP: a regex outside pretok.h's dialect. */
int split_new(struct split **out, const struct pretok *rule, struct err *e);
void split_free(struct split *s);

/* What one caller needs while cutting; zeroed by the caller, reused from text to text. */
struct split_run {
    const uint8_t *text; /* the text cut: the caller's, or norm where bytes had to be replaced */
    size_t len;
    uint32_t *end; /* n_piece byte offsets in text, ascending; the last is len */
    size_t n_piece;

    uint8_t *norm;
    uint8_t *row; /* class bytes */
    size_t n_row, cap_row, cap_norm;
    uint32_t *other; /* the pieces before the regex at hand */
    size_t cap_end, cap_other;
    void *match; /* pcre2_match_data */
};

/* text is lent until the next call; what is no UTF-8 becomes U+FFFD byte by byte, as the reference
 * has it. -ERANGE over 1 GiB, -ENOMEM, -EIO (PCRE2 gave up: text is never cut short). */
int split_text(const struct split *s, struct split_run *r, const char *text, size_t len,
               struct err *e);
void split_run_release(struct split_run *r);

#endif
