#include "tests/token_meta.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *gguf, *apr;
} names[] = {
    {"tokenizer.ggml.tokens", "tokenizer.vocabulary"},
    {"tokenizer.ggml.merges", "tokenizer.merges"},
    {"tokenizer.ggml.scores", "tokenizer.scores"},
    {"tokenizer.ggml.token_type", "tokenizer.token_type"},
    {"tokenizer.ggml.model", "tokenizer.model_type"},
    {"tokenizer.ggml.pre", "tokenizer.pre_type"},
    {"tokenizer.ggml.bos_token_id", "tokenizer.bos_token_id"},
    {"tokenizer.ggml.eos_token_id", "tokenizer.eos_token_id"},
    {"tokenizer.ggml.add_bos_token", "tokenizer.add_bos_token"},
};

static cJSON *value(const struct gguf_key *k)
{
    struct gguf_str s;
    double f;
    bool b;
    if (gguf_as_bool(k, &b))
        return cJSON_CreateBool(b);
    if (gguf_as_f64(k, &f))
        return cJSON_CreateNumber(f);
    if (gguf_as_str(k, &s)) {
        char *text = strndup(s.p, s.len);
        cJSON *v = text ? cJSON_CreateString(text) : NULL;
        free(text);
        return v;
    }
    cJSON *list = cJSON_CreateArray(), *last = NULL;
    struct gguf_key elem;
    for (size_t pos = 0; gguf_next_elem(k, &pos, &elem);) {
        cJSON *v = value(&elem);
        if (!v)
            abort();
        if (last) { /* cJSON_AddItemToArray is quick only since 1.7.13 */
            last->next = v;
            v->prev = last;
        } else {
            list->child = v;
        }
        last = v;
    }
    if (last)
        list->child->prev = last;
    return list;
}

cJSON *token_meta(const struct gguf *g)
{
    cJSON *meta = cJSON_CreateObject();
    for (size_t i = 0; i < gguf_n_key(g); i++) {
        const struct gguf_key *k = gguf_key(g, i);
        char name[128];
        snprintf(name, sizeof name, "%.*s", (int)(k->name.len < 127 ? k->name.len : 127),
                 k->name.p);
        if (strncmp(name, "tokenizer.ggml.", 15) && strcmp(name, "general.name"))
            continue;
        for (size_t n = 0; n < sizeof names / sizeof *names; n++)
            if (strcmp(name, names[n].gguf) == 0)
                snprintf(name, sizeof name, "%s", names[n].apr);
        cJSON *v = value(k);
        if (!meta || !v || !cJSON_AddItemToObject(meta, name, v))
            abort();
    }
    return meta;
}
