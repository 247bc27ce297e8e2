/* Ollama's manifests: a name's JSON file -> which blobs are the model. Pure functions over bytes
 * that anyone may have written.
 *
 *   schemaVersion  2
 *   mediaType      of a list "application/vnd.ollama.manifest.list.v2+json"; others are not told
 *                  apart, as Ollama does not
 *   config         {mediaType, digest, size}: a blob with JSON, see ollama_config_parse()
 *   layers[]       {mediaType, digest, size, from?, name?}; null is none
 *   runner, format texts, optional ("ollama", "llamacpp", "mlx"; "gguf", "safetensors")
 *   manifests[]    of a list: manifests as above, or {mediaType, digest, runner?, format?} that
 *                  name a blob holding one
 *
 * Source: the store and the names that Ollama's packages manifest and types/model write and read
 * (github.com/ollama/ollama, October 2026). */
#ifndef APRFS_FORMAT_OLLAMA_MANIFEST_H
#define APRFS_FORMAT_OLLAMA_MANIFEST_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OLLAMA_MANIFEST_MAX (1 << 20) /* bytes of a manifest, of a config, of parameters */
#define OLLAMA_HEX_SIZE     65        /* a SHA-256 in hex, with its NUL */

enum ollama_layer_kind {
    OLLAMA_LAYER_OTHER, /* template, system, messages, license, prompt, embed, json and unknown */
    OLLAMA_LAYER_MODEL,
    OLLAMA_LAYER_PROJECTOR,
    OLLAMA_LAYER_ADAPTER,
    OLLAMA_LAYER_PARAMS,
    OLLAMA_LAYER_TENSOR, /* one tensor of a safetensors model */
    OLLAMA_LAYER_DRAFT,
};

struct ollama_layer {
    enum ollama_layer_kind kind;
    char sha256[OLLAMA_HEX_SIZE]; /* lower-case hex */
    uint64_t size;
};

struct ollama_manifest {
    bool has_config;
    struct ollama_layer config;
    struct ollama_layer *layer; /* in the manifest's order */
    size_t n_layer;
    bool safetensors; /* format says so, or there are tensor layers */
    bool mlx;         /* runner says so */
    /* A list: its children, each a manifest or, where ref is not "", the blob that holds it. */
    bool is_list;
    char ref[OLLAMA_HEX_SIZE];
    int rank; /* of a child: Ollama's order of runners, 0 first; INT_MAX: a runner it does not have */
    struct ollama_manifest *child;
    size_t n_child;
};

/* Parses a manifest's text. *out is ollama_manifest_free's to free. -ERANGE over 1 MiB, -EUCLEAN no
 * JSON or a field of another shape, -ENOTSUP another schemaVersion, -EINVAL a digest that is none. */
int ollama_manifest_parse(struct ollama_manifest **out, const char *p, size_t len, struct err *e);
void ollama_manifest_free(struct ollama_manifest *m);

/* The child of a list that Ollama would run here (ollama before llamacpp before mlx); NULL if there
 * is none, or m is no list. */
const struct ollama_manifest *ollama_manifest_pick(const struct ollama_manifest *m);

/* What of a config the store needs. defaults is sampler settings by Ollama's names, the JSON text of
 * an object, or NULL; malloc'ed. */
struct ollama_config {
    bool safetensors; /* model_format */
    bool remote;      /* remote_host or remote_model: the weights are on another machine */
    char *defaults;
};
int ollama_config_parse(struct ollama_config *c, const char *p, size_t len, struct err *e);
void ollama_config_release(struct ollama_config *c);

/* A params layer's text ((*p)[0..*len), malloc'ed, or NULL), checked to be a JSON object; settings of
 * defaults (an ollama_config's, may be NULL) that it does not have are added. *p is replaced where
 * that changes it. -EUCLEAN: no object; *p stays. */
int ollama_params(char **p, size_t *len, const char *defaults, struct err *e);

/* "sha256:<64 hex>" or "sha256-<64 hex>": the hex, in lower case, into dst; false if it is another
 * text. */
bool ollama_digest(char dst[OLLAMA_HEX_SIZE], const char *s);

/* A path component of a manifest's name, by Ollama's own grammar: a letter, digit or '_' first, then
 * '-' as well, '.' but in namespaces, ':' in hosts; at most 80 bytes, a host 350. */
enum ollama_part { OLLAMA_HOST, OLLAMA_NAMESPACE, OLLAMA_MODEL, OLLAMA_TAG };
bool ollama_part_ok(enum ollama_part kind, const char *s);

/* The two hosts that mean the public registry: "registry.ollama.ai", "ollama.com", in any case. */
bool ollama_public_host(const char *host);

#endif
