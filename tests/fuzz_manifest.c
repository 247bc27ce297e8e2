/* Ollama's manifests and configs, names and digests, from any bytes: no crash, and what is taken
 * holds what the store relies on. */
#include "format/json.h"
#include "format/ollama_manifest.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_hex(const char *s)
{
    if (strlen(s) != 64 || strspn(s, "0123456789abcdef") != 64)
        abort();
}

static void check_body(const struct ollama_manifest *m)
{
    if (m->has_config)
        check_hex(m->config.sha256);
    for (size_t i = 0; i < m->n_layer; i++)
        check_hex(m->layer[i].sha256);
}

static void check_manifest(const struct ollama_manifest *m)
{
    check_body(m);
    for (size_t i = 0; i < m->n_child; i++) {
        if (*m->child[i].ref)
            check_hex(m->child[i].ref);
        if (m->child[i].is_list || m->child[i].n_child)
            abort();
        check_body(&m->child[i]);
    }
    const struct ollama_manifest *c = ollama_manifest_pick(m);
    for (size_t i = 0; c && i < m->n_child; i++)
        if (m->child[i].rank < c->rank)
            abort();
    if (c && c->rank == INT_MAX)
        abort();
}

static void check_config(const uint8_t *data, size_t size)
{
    struct ollama_config c;
    struct err e;
    if (ollama_config_parse(&c, (const char *)data, size, &e) < 0)
        return;
    cJSON *v = NULL;
    if (c.defaults && json_parse(&v, c.defaults, strlen(c.defaults), &e) < 0)
        abort();
    cJSON_Delete(v);
    ollama_config_release(&c);
}

/* The bytes as a name: nothing that walks out of a directory is ever right. */
static void check_part(const uint8_t *data, size_t size)
{
    char hex[OLLAMA_HEX_SIZE], *s = strndup((const char *)data, size < 512 ? size : 512);
    if (!s)
        return;
    for (int k = OLLAMA_HOST; k <= OLLAMA_TAG; k++)
        if (ollama_part_ok((enum ollama_part)k, s) &&
            (!*s || strchr(s, '/') || !strcmp(s, ".") || !strcmp(s, "..") || strlen(s) > 350))
            abort();
    if (ollama_digest(hex, s))
        check_hex(hex);
    free(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ollama_manifest *m = NULL;
    struct err e = {0};
    if (ollama_manifest_parse(&m, (const char *)data, size, &e) == 0)
        check_manifest(m);
    else if (m || !*e.msg)
        abort();
    ollama_manifest_free(m);
    check_config(data, size);
    check_part(data, size);
    return 0;
}
