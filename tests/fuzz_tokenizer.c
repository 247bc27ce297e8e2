/* Tokenizers from any metadata, over any text. The input is JSON, a NUL, and a text: what loads
 * must encode without a fault and every id must have a piece. Without a NUL the whole input is text
 * for three built-in tokenizers, and if it is UTF-8 it must come back whole. */
#include "infer/text/tokenizer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NEED(x)                                                                                    \
    do {                                                                                           \
        if (!(x))                                                                                  \
            abort();                                                                               \
    } while (0)

static void encode(const struct tokenizer *t, const char *text, size_t len, bool whole)
{
    for (unsigned flags = 0; flags < 4; flags++) {
        int32_t *ids;
        size_t n, total = 0;
        struct err e = {0};
        if (tokenizer_encode(t, text, len, flags, &ids, &n, &e) < 0)
            continue;
        for (size_t i = 0; i < n; i++) {
            size_t k;
            NEED(tokenizer_piece(t, ids[i], true, i == 0 && flags == 0, &k));
            total += k;
        }
        if (whole && flags == 0 && json_utf8_valid(text, len))
            NEED(total == len);
        free(ids);
    }
}

/* Every byte a token; added tokens that overlap; merges. */
static struct tokenizer *built_in(int which)
{
    static const char *const pres[] = {"deepseek-v3", "gpt-4o", "deepseek-llm"};
    cJSON *meta = cJSON_CreateObject(), *v = cJSON_AddArrayToObject(meta, "tokenizer.vocabulary"),
          *m = cJSON_AddArrayToObject(meta, "tokenizer.merges"),
          *k = cJSON_AddArrayToObject(meta, "tokenizer.token_type");
    cJSON_AddStringToObject(meta, "tokenizer.model_type", "gpt2");
    cJSON_AddStringToObject(meta, "general.name", which == 1 ? "phi3" : "x");
    for (int b = 0; b < 256; b++) { /* GPT-2's glyphs */
        static int next;
        next = b ? next : 0;
        int cp = (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD) ? b : 0x100 + next++;
        char s[3] = {(char)cp, 0, 0};
        if (cp >= 0x80) {
            s[0] = (char)(0xC0 | cp >> 6);
            s[1] = (char)(0x80 | (cp & 0x3F));
        }
        cJSON_AddItemToArray(v, cJSON_CreateString(s));
        cJSON_AddItemToArray(k, cJSON_CreateNumber(1));
    }
    static const char *const more[] = {"ab", "abc", "<a>", "a><", "<<<<", "\n\n\n", "\n\n"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) {
        cJSON_AddItemToArray(v, cJSON_CreateString(more[i]));
        cJSON_AddItemToArray(k, cJSON_CreateNumber(i < 2 ? 1 : i & 1 ? 4 : 3));
    }
    cJSON_AddItemToArray(m, cJSON_CreateString("a b"));
    cJSON_AddItemToArray(m, cJSON_CreateString("ab c"));
    cJSON_AddItemToArray(m, cJSON_CreateString("c c"));
    struct tokenizer *t = NULL;
    NEED(tokenizer_new(&t, meta, pres[which], NULL) == 0);
    cJSON_Delete(meta);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct tokenizer *fixed[3];
    const uint8_t *nul = memchr(data, 0, size);
    if (!nul) {
        int which = size ? data[0] % 3 : 0;
        if (!fixed[which])
            fixed[which] = built_in(which);
        encode(fixed[which], (const char *)data, size, which != 1); /* 1 takes blanks away */
        return 0;
    }
    cJSON *meta = NULL;
    struct err e = {0};
    struct tokenizer *t = NULL;
    if (json_parse(&meta, (const char *)data, (size_t)(nul - data), &e) == 0 &&
        tokenizer_new(&t, meta, NULL, &e) == 0) {
        encode(t, (const char *)nul + 1, size - (size_t)(nul - data) - 1, false);
        tokenizer_free(t);
    }
    cJSON_Delete(meta);
    return 0;
}
