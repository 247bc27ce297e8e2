/* SentencePiece with scores: neighbours join if their union is a token, highest score first. */
#ifndef APRFS_INFER_TEXT_SPM_H
#define APRFS_INFER_TEXT_SPM_H

#include "infer/text/ids.h"
#include "infer/text/merge.h"
#include "infer/text/vocab.h"

struct spm;

/* v is lent and outlives the handle. */
int spm_new(struct spm **out, const struct vocab *v, struct err *e);
void spm_free(struct spm *s);

/* Appends the ids of a text whose spaces are U+2581 already. -ENOTSUP: a byte that has no token,
 * where there is no unknown token either. */
int spm_text(const struct spm *s, const char *p, size_t len, struct ids_cache *c, struct merge *m,
             struct ids *l, struct err *e);

#endif
