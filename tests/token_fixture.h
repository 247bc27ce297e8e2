/* Tokenizers to test: from the vocabularies in tests/data, and small ones made of JSON. */
#ifndef APRFS_TESTS_TOKEN_FIXTURE_H
#define APRFS_TESTS_TOKEN_FIXTURE_H

#include "format/json.h"

#include <stddef.h>
#include <stdint.h>

/* A gzip file whole, with a NUL behind; aborts if it is not there. To be freed. */
char *gunzip_file(const char *path, size_t *len);

/* The metadata of tests/data/<name>.gz ("ggml-vocab-gpt-2.gguf"); cJSON_Delete's to free. */
cJSON *fixture_meta(const char *name);

/* JSON written with ' for ", parsed; aborts if it is malformed. */
cJSON *quick_json(const char *text);

#endif
