/* Text <-> token ids, as llama.cpp does it, from a .apr's metadata alone (tokenizer.vocabulary,
 * .merges, .scores, .token_type, .model_type, .pre_type, ids and flags).
 *
 * Models: "gpt2" (byte-level BPE) and "llama" (SentencePiece with scores). Others, and unknown
 * pre-tokenizers, are refused by name. Immutable after tokenizer_new; safe from several threads. */
#ifndef APRFS_INFER_TEXT_TOKENIZER_H
#define APRFS_INFER_TEXT_TOKENIZER_H

#include "format/err.h"
#include "format/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

enum tokenizer_flag {
    TOKENIZER_ADD_SPECIAL = 1,   /* BOS/EOS as the model wants them; no BOS before a BOS */
    TOKENIZER_PARSE_SPECIAL = 2, /* control tokens' spelling in the text becomes the token */
};

/* meta is lent for this call only. pre overrides tokenizer.pre_type; NULL: the file's. */
int tokenizer_new(struct tokenizer **out, const cJSON *meta, const char *pre, struct err *e);
void tokenizer_free(struct tokenizer *t);

/* ids of text[0..len): *out is malloc'ed, the caller's to free. Bytes that are no UTF-8 are taken
 * as llama.cpp takes them (never dropped). */
int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, unsigned flags,
                     int32_t **out, size_t *n_out, struct err *e);

/* Bytes of one token when decoded (not NUL-terminated, may be half a character; lent while t
 * lives). Control tokens give *len = 0 unless special. first: the token opens the text
 * (SentencePiece drops its leading space). Unknown id: NULL. */
const char *tokenizer_piece(const struct tokenizer *t, int32_t id, bool special, bool first,
                            size_t *len);

uint32_t tokenizer_n_vocab(const struct tokenizer *t);
int32_t tokenizer_bos(const struct tokenizer *t); /* -1: none */
bool tokenizer_adds_bos(const struct tokenizer *t);
bool tokenizer_is_end(const struct tokenizer *t, int32_t id); /* stops generation */

#endif
