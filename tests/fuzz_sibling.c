/* Siblings and role, facts from any GGUF that the reader takes: no crash, and what is written is
 * JSON under our own rules. */
#include "format/json.h"
#include "format/sibling.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int rc, char *text, size_t len)
{
    cJSON *v = NULL;
    struct err e;
    if (rc < 0)
        return;
    if (json_parse(&v, text, len, &e) < 0)
        abort();
    cJSON_Delete(v);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct source *src = NULL;
    struct gguf *g = NULL;
    struct err e = {0};
    char *text = NULL;
    size_t len = 0;
    uint8_t digest[32];
    if (source_from_mem(&src, data, size, "fuzz", &e) < 0)
        return 0;
    if (gguf_open(&g, &src, 1, &e) == 0) {
        int has = sibling_has_tokenizer(g, &e);
        int rc = sibling_tokenizer(g, &text, &len, &e);
        if (rc != has && rc != -ENOMEM)
            abort();
        check(rc, text, len);
        check(sibling_config(g, ARCH_VALUES_REFERENCE, &text, &len, &e), text, len);
        check(sibling_config(g, ARCH_VALUES_COMPAT, &text, &len, &e), text, len);
        /* What stands behind the tensors, if anything, is what a store sets. */
        uint64_t end = gguf_data_end(g, 0);
        char *params = end < size ? strndup((const char *)data + end, size - (size_t)end) : NULL;
        has = sibling_has_generation(g, params, &e);
        rc = sibling_generation(g, ARCH_VALUES_REFERENCE, params, &text, &len, &e);
        if (has < 0 && rc != has && rc != -ENOMEM)
            abort();
        check(rc, text, len);
        (void)sibling_digest(g, ARCH_VALUES_REFERENCE, params, digest, &e);
        free(params);
    }
    gguf_close(g);
    source_close(src);
    return 0;
}
