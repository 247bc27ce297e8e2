/* Cutting text at added tokens (user-defined; control and unknown ones too, if asked).
 *
 * Where occurrences overlap the longest token wins, then the leftmost: the reference goes through
 * its tokens from long to short, each over all the text that is left. Two tokens of one length that
 * overlap go by position here (there by the whim of its sort). */
#ifndef APRFS_INFER_TEXT_SPECIAL_H
#define APRFS_INFER_TEXT_SPECIAL_H

#include "infer/text/vocab.h"

struct special;

/* The tokens of v whose type has a bit of with and none of without. v is lent. */
int special_new(struct special **out, const struct vocab *v, unsigned with, unsigned without,
                struct err *e);
void special_free(struct special *s);

struct special_part {
    size_t off, len; /* of the text; blanks that a token takes with it are in no part */
    int32_t id;      /* VOCAB_NONE: text */
};

/* The parts of p[0..len) in order, none empty: *out is malloc'ed. Time len times the longest token,
 * and where occurrences overlap times the number of different lengths. */
int special_cut(const struct special *s, const char *p, size_t len, struct special_part **out,
                size_t *n_out, struct err *e);

#endif
