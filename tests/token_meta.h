/* The tokenizer's part of a .apr's metadata, straight from a GGUF: what tokenizer_new takes. */
#ifndef APRFS_TESTS_TOKEN_META_H
#define APRFS_TESTS_TOKEN_META_H

#include "format/gguf.h"
#include "format/json.h"

/* Every key "tokenizer.ggml.*" under the name that APR gives it (spec of APR v2, section 3.3), the
 * others under their own, and general.name. cJSON_Delete's to free; aborts without memory. */
cJSON *token_meta(const struct gguf *g);

#endif
