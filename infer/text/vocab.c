/* Reading and checking; what llama.cpp adds to a file's own word is in vocab_fix.c. */
#include "infer/text/vocab.h"

#include "infer/text/vocab_fix.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TOKENS (1u << 24)

uint64_t vocab_hash(const char *p, size_t len)
{
    const uint64_t k = 0x9E3779B97F4A7C15;
    uint64_t h = len * k, w;
    for (; len >= 8; p += 8, len -= 8) {
        memcpy(&w, p, 8);
        h = (h ^ w) * k;
        h ^= h >> 32;
    }
    w = 0;
    for (size_t i = 0; i < len; i++)
        w |= (uint64_t)(uint8_t)p[i] << (8 * i);
    h = (h ^ w) * k;
    h ^= h >> 29;
    h *= 0xBF58476D1CE4E5B9;
    return h ^ h >> 32;
}

const cJSON *vocab_key(const cJSON *meta, const char *name)
{
    char key[96];
    snprintf(key, sizeof key, "tokenizer.%s", name);
    const cJSON *v = json_get(meta, key);
    if (v)
        return v;
    snprintf(key, sizeof key, "tokenizer.ggml.%s", name);
    return json_get(meta, key);
}

int32_t vocab_find(const struct vocab *v, const char *p, size_t len)
{
    if (len > v->max_len)
        return VOCAB_NONE;
    uint64_t h = vocab_hash(p, len);
    for (uint32_t i = (uint32_t)h & v->mask;; i = (i + 1) & v->mask) {
        const struct vocab_slot *s = &v->slot[i];
        if (s->id1 == 0)
            return VOCAB_NONE;
        size_t n;
        if (s->tag != (uint32_t)(h >> 32))
            continue;
        const char *text = vocab_text(v, s->id1 - 1, &n);
        if (n == len && memcmp(text, p, n) == 0)
            return (int32_t)(s->id1 - 1);
    }
}

/* A list of exactly or at least n items, or NULL where the file has none. */
static int find_list(const cJSON *meta, const char *name, uint32_t n, const cJSON **out,
                     struct err *e)
{
    const cJSON *a = vocab_key(meta, name);
    *out = a;
    if (!a)
        return 0;
    if (!cJSON_IsArray(a))
        return err_set(e, -EUCLEAN, "tokenizer.%s is no array", name);
    uint32_t have = 0;
    for (const cJSON *i = a->child; i && have < n; i = i->next)
        have++;
    if (have < n)
        return err_set(e, -EUCLEAN, "tokenizer.%s has %u items, the vocabulary %u", name, have, n);
    return 0;
}

static int read_texts(struct vocab *v, const cJSON *list, struct err *e)
{
    uint64_t bytes = 0;
    for (const cJSON *i = list->child; i; i = i->next) {
        if (!json_text(i))
            return err_set(e, -EUCLEAN, "tokenizer.vocabulary: item %u is no string", v->n);
        if (v->n == MAX_TOKENS)
            return err_set(e, -ERANGE, "tokenizer.vocabulary: more than %u tokens", MAX_TOKENS);
        size_t len = strlen(json_text(i));
        bytes += len ? len : sizeof "[EMPTY_16777216]";
        v->n++;
    }
    if (v->n == 0)
        return err_set(e, -EUCLEAN, "tokenizer.vocabulary is empty");
    if (bytes > UINT32_MAX)
        return err_set(e, -ERANGE, "tokenizer.vocabulary: more than 4 GiB of text");
    v->bytes = malloc(bytes);
    v->off = malloc((v->n + 1) * sizeof *v->off);
    v->attr = malloc(v->n);
    v->score = calloc(v->n, sizeof *v->score);
    if (!v->bytes || !v->off || !v->attr || !v->score)
        return err_set(e, -ENOMEM, "no memory for %u tokens", v->n);
    uint32_t id = 0, at = 0;
    for (const cJSON *i = list->child; i; i = i->next, id++) {
        const char *s = json_text(i);
        size_t len = strlen(s);
        v->off[id] = at;
        if (len > 0)
            memcpy(v->bytes + at, s, len);
        else /* llama.cpp's name for a token without text */
            len = (size_t)sprintf(v->bytes + at, "[EMPTY_%u]", id);
        at += (uint32_t)len;
        if (len > v->max_len)
            v->max_len = (uint32_t)len;
    }
    v->off[id] = at;
    return 0;
}

static int index_texts(struct vocab *v, struct err *e)
{
    uint32_t size = 16;
    while (size < 2 * v->n)
        size *= 2;
    v->slot = calloc(size, sizeof *v->slot);
    if (!v->slot)
        return err_set(e, -ENOMEM, "no memory to index %u tokens", v->n);
    v->mask = size - 1;
    for (uint32_t id = 0; id < v->n; id++) {
        size_t len;
        const char *text = vocab_text(v, id, &len);
        int32_t twin = vocab_find(v, text, len);
        if (twin != VOCAB_NONE)
            return err_set(e, -EUCLEAN, "tokenizer.vocabulary: token %u '%.*s' is token %d again",
                           id, (int)(len < 40 ? len : 40), text, twin);
        uint64_t h = vocab_hash(text, len);
        uint32_t i = (uint32_t)h & v->mask;
        while (v->slot[i].id1)
            i = (i + 1) & v->mask;
        v->slot[i] = (struct vocab_slot){(uint32_t)(h >> 32), id + 1};
    }
    return 0;
}

static int read_scores_and_types(struct vocab *v, const cJSON *meta, struct err *e)
{
    /* Types of GGUF: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. */
    static const uint8_t attr_of[] = {0, VOCAB_NORMAL, VOCAB_UNKNOWN, VOCAB_CONTROL, VOCAB_USER,
                                      0, VOCAB_BYTE};
    const cJSON *scores, *types;
    int rc = find_list(meta, "scores", v->n, &scores, e);
    if (rc == 0)
        rc = find_list(meta, "token_type", v->n, &types, e);
    if (rc < 0)
        return rc;
    if (!scores && v->model == VOCAB_SPM)
        return err_set(e, -EUCLEAN, "tokenizer.scores is missing: model 'llama' needs it");
    const cJSON *s = scores ? scores->child : NULL, *t = types ? types->child : NULL;
    for (uint32_t id = 0; id < v->n; id++) {
        double score = 0;
        int64_t type = 1;
        if (s && (!json_num(s, &score) || !isfinite((float)score)))
            return err_set(e, -EUCLEAN, "tokenizer.scores: item %u is no number", id);
        if (t && !json_int(t, &type))
            return err_set(e, -EUCLEAN, "tokenizer.token_type: item %u is no integer", id);
        v->score[id] = (float)score;
        v->attr[id] = type >= 0 && type < (int64_t)sizeof attr_of ? attr_of[type] : 0;
        s = s ? s->next : NULL;
        t = t ? t->next : NULL;
    }
    return 0;
}

/* An id key: absent or beyond the vocabulary leaves *id as it is. */
static int read_id(const struct vocab *v, const cJSON *meta, const char *name, bool must_fit,
                   int32_t *id, struct err *e)
{
    const cJSON *k = vocab_key(meta, name);
    int64_t n;
    if (!k || cJSON_IsNull(k))
        return 0;
    if (!json_int(k, &n))
        return err_set(e, -EUCLEAN, "tokenizer.%s is no integer", name);
    if (n >= 0 && n < v->n)
        *id = (int32_t)n;
    else if (must_fit)
        return err_set(e, -EUCLEAN, "tokenizer.%s is %" PRId64 ", the vocabulary has %u tokens",
                       name, n, v->n);
    return 0;
}

static int read_flag(const cJSON *meta, const char *name, bool *flag, struct err *e)
{
    const cJSON *k = vocab_key(meta, name);
    if (!k || cJSON_IsNull(k) || json_bool(k, flag))
        return 0;
    return err_set(e, -EUCLEAN, "tokenizer.%s is neither true nor false", name);
}

static int read_model(struct vocab *v, const cJSON *meta, const char *pre, struct err *e)
{
    const char *model = json_text(vocab_key(meta, "model_type"));
    if (!model)
        model = json_text(vocab_key(meta, "model"));
    if (!model)
        return err_set(e, -ENOENT, "tokenizer.model_type is missing: the file has no tokenizer");
    if (strcmp(model, "llama") == 0) {
        v->model = VOCAB_SPM;
        v->add_bos = v->add_space_prefix = true;
        return 0;
    }
    if (strcmp(model, "gpt2") != 0)
        return err_set(e, -ENOTSUP, "tokenizer model '%s' is not supported (gpt2 and llama are)",
                       model);
    v->model = VOCAB_BPE;
    if (!pre)
        pre = json_text(vocab_key(meta, "pre_type"));
    if (!pre)
        pre = json_text(vocab_key(meta, "pre"));
    if (!pre)
        return err_set(e, -ENOTSUP, "tokenizer.pre_type is missing: which pre-tokenizer?");
    v->pre = pretok_find(pre);
    if (!v->pre)
        return err_set(e, -ENOTSUP, "pre-tokenizer '%s' is not known", pre);
    v->add_bos = v->pre->flags & PRETOK_ADD_BOS;
    return 0;
}

/* BOS, EOS, unknown and the flags. Where a gpt2 file names no BOS or EOS the reference takes token
 * 11 (Falcon's): as BOS only if one is to be added, as EOS only if that token is a control one. */
static int read_special(struct vocab *v, const cJSON *meta, struct err *e)
{
    int32_t bos = VOCAB_NONE, eos = VOCAB_NONE;
    v->unk = v->model == VOCAB_SPM ? 0 : VOCAB_NONE;
    int rc = read_id(v, meta, "bos_token_id", true, &bos, e);
    if (rc == 0)
        rc = read_id(v, meta, "eos_token_id", true, &eos, e);
    if (rc == 0)
        rc = read_id(v, meta, "unknown_token_id", false, &v->unk, e);
    if (rc == 0)
        rc = read_flag(meta, "add_bos_token", &v->add_bos, e);
    if (rc == 0)
        rc = read_flag(meta, "add_eos_token", &v->add_eos, e);
    if (rc == 0)
        rc = read_flag(meta, "add_space_prefix", &v->add_space_prefix, e);
    if (rc < 0)
        return rc;
    uint32_t bos0 = v->model == VOCAB_SPM ? 1 : 11, eos0 = v->model == VOCAB_SPM ? 2 : 11;
    if (bos == VOCAB_NONE && bos0 < v->n && (v->model == VOCAB_SPM || v->add_bos) &&
        !(v->pre && v->pre->flags & PRETOK_NO_BOS))
        bos = (int32_t)bos0;
    if (eos == VOCAB_NONE && eos0 < v->n &&
        (v->model == VOCAB_SPM || v->add_eos || v->attr[eos0] == VOCAB_CONTROL))
        eos = (int32_t)eos0;
    if (v->add_bos && bos == VOCAB_NONE)
        return err_set(e, -EUCLEAN, "tokenizer.add_bos_token is set, tokenizer.bos_token_id not");
    if (v->add_eos && eos == VOCAB_NONE)
        return err_set(e, -EUCLEAN, "tokenizer.add_eos_token is set, tokenizer.eos_token_id not");
    v->bos = bos;
    v->eos = eos;
    return 0;
}

int vocab_init(struct vocab *v, const cJSON *meta, const char *pre, struct err *e)
{
    *v = (struct vocab){0};
    int rc = read_model(v, meta, pre, e);
    const cJSON *list = vocab_key(meta, "vocabulary");
    if (!list)
        list = vocab_key(meta, "tokens");
    if (rc == 0 && !cJSON_IsArray(list))
        rc = err_set(e, list ? -EUCLEAN : -ENOENT, "tokenizer.vocabulary is %s",
                     list ? "no array" : "missing");
    if (rc == 0)
        rc = read_texts(v, list, e);
    if (rc == 0)
        rc = index_texts(v, e);
    if (rc == 0)
        rc = read_scores_and_types(v, meta, e);
    if (rc == 0)
        rc = read_special(v, meta, e);
    if (rc == 0)
        vocab_fix(v, meta);
    if (rc < 0)
        vocab_release(v);
    return rc;
}

void vocab_release(struct vocab *v)
{
    free(v->bytes);
    free(v->off);
    free(v->attr);
    free(v->score);
    free(v->slot);
    *v = (struct vocab){0};
}
