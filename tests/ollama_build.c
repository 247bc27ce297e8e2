/* See ollama_build.h. */
#include "tests/ollama_build.h"

#include "format/name.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char gguf_config[] =
    "{\"model_format\":\"gguf\",\"model_family\":\"qwen2\",\"model_families\":[\"qwen2\"],"
    "\"model_type\":\"494.03M\",\"file_type\":\"Q4_K_M\",\"architecture\":\"amd64\",\"os\":"
    "\"linux\",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";

const char *tree_blob(const char *root, const void *p, size_t len)
{
    static char hash[NAME_HEX];
    uint8_t id[NAME_ID_SIZE];
    char rel[128];
    if (!EVP_Digest(p, len, id, NULL, EVP_sha256(), NULL))
        abort();
    name_hex(hash, id);
    snprintf(rel, sizeof rel, "blobs/sha256-%s", hash);
    char *path = path_join(root, rel);
    if (access(path, F_OK) < 0) /* Ollama does not write a blob twice, either */
        tree_bytes(root, rel, p, len);
    free(path);
    return hash;
}

void ollama_layer_raw(struct ollama_build *o, const char *type, const char *digest, uint64_t size)
{
    size_t n = strlen(o->text);
    snprintf(
        o->text + n, sizeof o->text - n,
        "%s{\"mediaType\":\"application/vnd.ollama.image.%s\",\"digest\":\"%s\",\"size\":%" PRIu64
        "}",
        n ? "," : "", type, digest, size);
}

void ollama_layer(struct ollama_build *o, const char *type, const void *p, size_t len)
{
    char digest[80];
    snprintf(digest, sizeof digest, "sha256:%s", tree_blob(o->root, p, len));
    if (!*o->text)
        memcpy(o->first, digest + 7, 65);
    ollama_layer_raw(o, type, digest, len);
}

void ollama_model(struct ollama_build *o, const char *type, uint64_t seed)
{
    size_t len;
    struct gguf_build *b = tree_model_new(seed);
    uint8_t *p = gguf_build_bytes(b, &len);
    ollama_layer(o, type, p, len);
    free(p);
    gguf_build_free(b);
}

const char *ollama_manifest(struct ollama_build *o, const char *way, const char *config)
{
    static char text[32768];
    config = config ? config : gguf_config;
    int n = snprintf(text, sizeof text,
                     "{\"schemaVersion\":2,\"mediaType\":\"application/"
                     "vnd.docker.distribution.manifest.v2+json\",\"config\":{\"mediaType\":"
                     "\"application/vnd.docker.container.image.v1+json\",\"digest\":\"sha256:%s\","
                     "\"size\":%zu},\"layers\":[%s]}\n",
                     tree_blob(o->root, config, strlen(config)), strlen(config), o->text);
    if (n < 0 || (size_t)n >= sizeof text)
        abort();
    if (way)
        tree_text(o->root, way, text);
    return text;
}

void ollama_link(const char *root, const char *way, const char *text)
{
    char target[128];
    snprintf(target, sizeof target, "../../../../blobs/sha256-%s",
             tree_blob(root, text, strlen(text)));
    tree_link(root, way, target);
}
