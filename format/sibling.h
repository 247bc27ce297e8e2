/* Siblings: tokenizer.json, config.json and generation_config.json in Hugging Face's formats, written
 * from a GGUF. They are pure functions of the file's tokenizer and sampling keys, of the resolver's output
 * and of what the store sets besides; written twice they are equal byte for byte. Texts are malloc'ed,
 * the caller's to free.
 *
 * tokenizer.json: model BPE (vocabulary, merges), the pre-tokenizer of tokenizer.ggml.pre as Split
 * rules (format/pretok.h), ByteLevel, added tokens, for tokenizer.ggml.model "gpt2"; for "llama" the
 * merges that its scores stand for (sibling_spm.c), byte fallback, U+2581 for blanks. Others are
 * -ENOENT, with the reason. Nothing is written that would give other ids than llama.cpp's.
 *
 * generation_config.json: what general.sampling.* and params say, by the names of transformers'
 * GenerationConfig, and the ids that begin and end a text. params: Ollama's parameters, the text of a JSON
 * object ("" or NULL: none); where both say something, params count. Nothing said: no file. */
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

/* -ENODATA: nothing is said that has a key there. -EUCLEAN: a value that the setting cannot have; -ENOTSUP:
 * a way to sample (mirostat) that the keys cannot say; both with the reason. The first is cheap. */
int sibling_has_generation(const struct gguf *g, const char *params, struct err *e);
int sibling_generation(const struct gguf *g, enum arch_values values, const char *params,
                       char **out, size_t *len, struct err *e);

/* SHA-256 over the raw tokenizer.* keys and the texts of config.json and generation_config.json: equal
 * digests, equal siblings. Fails where arch_resolve() does. */
int sibling_digest(const struct gguf *g, enum arch_values values, const char *params,
                   uint8_t digest[32], struct err *e);

#endif
