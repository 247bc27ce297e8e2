/* What llama.cpp adds to a vocabulary's own word, by the spelling of tokens: which end generation,
 * which are control tokens after all, which take the blanks beside them. */
#ifndef APRFS_INFER_TEXT_VOCAB_FIX_H
#define APRFS_INFER_TEXT_VOCAB_FIX_H

#include "infer/text/vocab.h"

void vocab_fix(struct vocab *v, const cJSON *meta);

#endif
