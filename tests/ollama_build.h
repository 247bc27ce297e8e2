/* An Ollama store in a temporary folder, as Ollama writes it: blobs by SHA-256, manifests and configs
 * with its keys in its order. Paths are below root. */
#ifndef APRFS_TESTS_OLLAMA_BUILD_H
#define APRFS_TESTS_OLLAMA_BUILD_H

#include <stddef.h>
#include <stdint.h>

/* A manifest's text, layer by layer. */
struct ollama_build {
    const char *root;
    char text[16384]; /* of its layers */
    char first[65];   /* digest of the first layer added */
};

/* The blob of p[0..len), by its SHA-256 (static, hex). */
const char *tree_blob(const char *root, const void *p, size_t len);
void ollama_layer(struct ollama_build *o, const char *type, const void *p, size_t len);
void ollama_model(struct ollama_build *o, const char *type, uint64_t seed);
/* Any digest and size, with no blob behind. */
void ollama_layer_raw(struct ollama_build *o, const char *type, const char *digest, uint64_t size);
/* Writes the manifest to way (below root) and returns its text (static). config: its JSON, NULL = that
 * of a GGUF. */
const char *ollama_manifest(struct ollama_build *o, const char *way, const char *config);
/* way: a link of manifests-v2 to the blob that holds text. */
void ollama_link(const char *root, const char *way, const char *text);

#endif
