/* Siblings: tokenizer.json and config.json in Hugging Face's formats, written from a GGUF. Both are
 * pure functions of the file's tokenizer keys and of the resolver's output; written twice they are
 * equal byte for byte. Texts are malloc'ed, the caller's to free.
 *
 * tokenizer.json: model BPE (vocabulary, merges), the pre-tokenizer of tokenizer.ggml.pre as Split
 * rules (format/pretok.h), ByteLevel, added tokens, for tokenizer.ggml.model "gpt2"; for "llama" the
 * merges that its scores stand for (sibling_spm.c), byte fallback, U+2581 for blanks. Others are
 * -ENOENT, with the reason. Nothing is written that would give other ids than llama.cpp's. */
#ifndef APRFS_FORMAT_SIBLING_H
#define APRFS_FORMAT_SIBLING_H

#include "format/arch.h"
#include "format/err.h"
#include "format/gguf.h"

#include <stddef.h>
#include <stdint.h>

/* 0 if sibling_tokenizer() would write one; -ENOENT and the reason if not. Cheap. */
int sibling_has_tokenizer(const struct gguf *g, struct err *e);

int sibling_tokenizer(const struct gguf *g, char **out, size_t *len, struct err *e);
int sibling_config(const struct gguf *g, enum arch_values values, char **out, size_t *len,
                   struct err *e);

/* SHA-256 over the raw tokenizer.* keys and config.json's text: equal digests, equal siblings.
 * Fails where arch_resolve() does. */
int sibling_digest(const struct gguf *g, enum arch_values values, uint8_t digest[32],
                   struct err *e);

#endif
