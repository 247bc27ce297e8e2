/* The tokenizer of a .gguf over a .apr of the original writers: vocabulary, merges or scores, types,
 * special tokens, from the members of apr-v2.md §3.3. What is not there is derived and said, or
 * refused. */
#include "format/json.h"
#include "format/vgguf_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6,
};

/* What llama.cpp's converter from Hugging Face gives rows that no token stands for, beside their
 * name and TOKEN_UNUSED. (Source: convert_hf_to_gguf.py, "[PAD{i}]".) */
#define UNUSED_SCORE (-1000.0F)

/* A vocabulary of n tokens under an embedding of rows >= n. */
struct vocab {
    const cJSON *list;
    uint64_t n, rows;
};

static int put_array(struct vgguf *v, const char *name, enum gguf_type elem, const cJSON *list,
                     uint64_t n, struct err *e)
{
    vgguf_key_array(v, name, elem, n);
    return vgguf_put_items(v, name, strlen(name), elem, list, false, e);
}

static int put_tokens(struct vgguf *v, const struct vocab *t, struct err *e)
{
    char pad[32];
    int rc = put_array(v, "tokenizer.ggml.tokens", GGUF_STRING, t->list, t->rows, e);
    for (uint64_t i = t->n; i < t->rows && v->keys.rc == 0; i++) {
        int len = snprintf(pad, sizeof pad, "[PAD%" PRIu64 "]", i);
        vgguf_put_str(&v->keys, pad, (size_t)len);
    }
    if (rc < 0 || t->n == t->rows)
        return rc;
    return vgguf_note_add(v, e,
                          "tokenizer.ggml.tokens: the embedding has %" PRIu64
                          " rows more than the vocabulary has tokens: [PAD%" PRIu64
                          "] and so on, unused",
                          t->rows - t->n, t->n);
}

/* The readers of a .apr find tokens that must not be split by how they are spelled. (apr-v2.md §3.3:
 * "<|...|>", or "<word>" and "</word>" of at most 20 characters, lower-case letters and "_".) */
static uint32_t type_by_spelling(const char *s, bool spm)
{
    size_t n = strlen(s);
    if (strcmp(s, "<unk>") == 0)
        return TOKEN_UNKNOWN;
    if (spm && n == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>')
        return TOKEN_BYTE;
    if (n >= 4 && strncmp(s, "<|", 2) == 0 && strcmp(s + n - 2, "|>") == 0)
        return TOKEN_CONTROL;
    if (n < 3 || n > 20 || s[0] != '<' || s[n - 1] != '>')
        return TOKEN_NORMAL;
    size_t at = s[1] == '/' ? 2 : 1;
    if (at == n - 1)
        return TOKEN_NORMAL;
    for (; at < n - 1; at++)
        if (!((s[at] >= 'a' && s[at] <= 'z') || s[at] == '_'))
            return TOKEN_NORMAL;
    return TOKEN_CONTROL;
}

static int put_types(struct vgguf *v, const struct vocab *t, bool spm, struct err *e)
{
    const cJSON *types = json_get(apr_meta(v->a), "tokenizer.token_type"), *item;
    static const char name[] = "tokenizer.ggml.token_type";
    bool said = cJSON_IsArray(types);
    int rc = 0;
    if (said && (uint64_t)cJSON_GetArraySize(types) != t->n)
        return err_set(e, -EUCLEAN,
                       "metadata: tokenizer.token_type and the vocabulary differ in length");
    if (said) {
        rc = put_array(v, name, GGUF_I32, types, t->rows, e);
    } else {
        vgguf_key_array(v, name, GGUF_I32, t->rows);
        cJSON_ArrayForEach(item, t->list)
            vgguf_put_u32(&v->keys, type_by_spelling(json_text(item), spm));
    }
    for (uint64_t i = t->n; i < t->rows && v->keys.rc == 0; i++)
        vgguf_put_u32(&v->keys, TOKEN_UNUSED);
    return rc < 0 || said
               ? rc
               : vgguf_note_add(v, e,
                                "tokenizer.ggml.token_type: by the tokens' spelling, as the "
                                "readers of .apr find special tokens");
}

static const char *tokenizer_model(const cJSON *meta)
{
    const char *s = json_text(json_get(meta, "tokenizer.model"));
    if (!s || !*s)
        s = json_text(json_get(meta, "tokenizer.model_type"));
    return s && *s ? s : NULL;
}

static int put_pieces(struct vgguf *v, bool bpe, const struct vocab *t, struct err *e)
{
    const cJSON *m = json_get(apr_meta(v->a), "tokenizer.merges");
    const cJSON *s = json_get(apr_meta(v->a), "tokenizer.scores");
    int rc = 0;
    if (bpe && !cJSON_IsArray(m))
        return err_set(e, -ENOENT, "tokenizer.merges is missing: its vocabulary cannot be used");
    if (!bpe && !cJSON_IsArray(s))
        return err_set(e, -ENOENT, "tokenizer.scores is missing: its vocabulary cannot be used");
    if (cJSON_IsArray(s) && (uint64_t)cJSON_GetArraySize(s) != t->n)
        return err_set(e, -EUCLEAN,
                       "metadata: tokenizer.scores and the vocabulary differ in length");
    if (cJSON_IsArray(m))
        rc = put_array(v, "tokenizer.ggml.merges", GGUF_STRING, m, (uint64_t)cJSON_GetArraySize(m),
                       e);
    if (rc < 0 || !cJSON_IsArray(s))
        return rc;
    rc = put_array(v, "tokenizer.ggml.scores", GGUF_F32, s, t->rows, e);
    for (uint64_t i = t->n; i < t->rows && v->keys.rc == 0; i++)
        vgguf_put_f32(&v->keys, UNUSED_SCORE);
    return rc;
}

static int put_special(struct vgguf *v, const struct arch_config *c, bool bpe, struct err *e)
{
    const cJSON *meta = apr_meta(v->a);
    const char *pre = json_text(json_get(meta, "tokenizer.pre_type"));
    int rc = 0;
    if (pre && *pre) {
        vgguf_key_str(v, "tokenizer.ggml.pre", pre, strlen(pre));
    } else if (strncmp(c->arch, "qwen", 4) == 0) {
        vgguf_key_str(v, "tokenizer.ggml.pre", "qwen2", 5);
        rc = vgguf_note_add(v, e, "tokenizer.ggml.pre: qwen2, by the architecture '%s'", c->arch);
    } else if (bpe) {
        rc =
            vgguf_note_add(v, e,
                           "tokenizer.ggml.pre: the file does not say it; llama.cpp splits text by "
                           "its default rule");
    }
    if (c->bos != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.bos_token_id", (uint32_t)c->bos);
    if (c->eos != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.eos_token_id", (uint32_t)c->eos);
    if (c->pad != ARCH_NO_TOKEN)
        vgguf_key_u32(v, "tokenizer.ggml.padding_token_id", (uint32_t)c->pad);
    const cJSON *add = json_get(meta, "tokenizer.add_bos_token");
    if (cJSON_IsBool(add))
        vgguf_key_bool(v, "tokenizer.ggml.add_bos_token", cJSON_IsTrue(add));
    vgguf_put_text(v, "chat_template", "tokenizer.chat_template");
    return rc;
}

/* A reader of GGUFs refuses a vocabulary that has not one token per row of the embedding; without any,
 * "no_vocab" is what it calls a model that takes token ids only. */
int vgguf_put_tokenizer(struct vgguf *v, const struct arch_config *c, uint64_t rows, struct err *e)
{
    const cJSON *meta = apr_meta(v->a);
    struct vocab t = {.list = json_get(meta, "tokenizer.vocabulary"), .rows = rows};
    if (!cJSON_IsArray(t.list) || !t.list->child) {
        vgguf_key_str(v, "tokenizer.ggml.model", "no_vocab", 8);
        return vgguf_note_add(v, e, "tokenizer: the file has none; token ids only");
    }
    t.n = (uint64_t)cJSON_GetArraySize(t.list);
    if (t.n > rows)
        return err_set(e, -ENOTSUP,
                       "a vocabulary of %" PRIu64 " tokens over an embedding of %" PRIu64 " rows",
                       t.n, rows);
    const char *model = tokenizer_model(meta);
    bool derived = !model;
    if (!model)
        model = cJSON_IsArray(json_get(meta, "tokenizer.merges")) ? "gpt2" : "llama";
    bool spm = strcmp(model, "llama") == 0;
    vgguf_key_str(v, "tokenizer.ggml.model", model, strlen(model));
    int rc = derived ? vgguf_note_add(v, e,
                                      "tokenizer.ggml.model: %s, since the file has %s, as the "
                                      "readers of .apr choose",
                                      model, spm ? "scores and no merges" : "merges")
                     : 0;
    if (rc == 0)
        rc = put_tokens(v, &t, e);
    if (rc == 0)
        rc = put_pieces(v, strcmp(model, "gpt2") == 0, &t, e);
    if (rc == 0)
        rc = put_types(v, &t, spm, e);
    return rc == 0 ? put_special(v, c, strcmp(model, "gpt2") == 0, e) : rc;
}
