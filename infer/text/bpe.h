/* Byte-level BPE: bytes -> 256 glyphs, then the file's merges, lowest rank first. */
#ifndef APRFS_INFER_TEXT_BPE_H
#define APRFS_INFER_TEXT_BPE_H

#include "infer/text/ids.h"
#include "infer/text/merge.h"
#include "infer/text/vocab.h"

struct bpe;

/* v is lent and outlives the handle. -EUCLEAN: tokenizer.merges missing or malformed. */
int bpe_new(struct bpe **out, const struct vocab *v, const cJSON *meta, struct err *e);
void bpe_free(struct bpe *b);

/* Appends the ids of one piece (see split.h). -ENOTSUP: a byte that the vocabulary cannot spell. */
int bpe_piece(const struct bpe *b, const uint8_t *p, size_t len, struct merge *m, struct ids *l,
              struct err *e);

/* The glyph that stands for a byte, as a code point, and back (-1: no glyph). GPT-2's own map:
 * printable Latin-1 for itself, the other 68 bytes as U+0100 onward, in order. */
uint32_t bpe_glyph(uint8_t byte);
int bpe_byte(uint32_t glyph);

#endif
