/* Two-layer models with fixed weights, one per family, every block type somewhere, and the logits
 * that llama.cpp computes for them (tests/data/tiny_<family>.f32, made by
 * scripts/make_tiny_vectors.py). Changing a model here means making the vectors again. */
#ifndef APRFS_TESTS_TINY_MODEL_H
#define APRFS_TESTS_TINY_MODEL_H

#include "tests/gguf_build.h"

#include <stddef.h>
#include <stdint.h>

#define TINY_N_TOK 24 /* longer than the local window of 8 */

extern const char *const tiny_families[4]; /* "llama", "qwen2", "qwen3", "gemma3" */

struct gguf_build *tiny_model(const char *family);

/* The ids whose logits are known: position i holds (7 + 31 i) mod 251 + 3. */
void tiny_ids(int32_t id[TINY_N_TOK]);

#endif
