/* Token ids and the flags of encoding: the file's keys; where it says nothing, the well-known
 * spellings in its vocabulary; then the defaults of its tokenizer type; then, for BOS and EOS, the
 * Rust table's id if the vocabulary reaches that far (arch-resolver.md §8.8). Flags default as
 * llama.cpp's vocabulary loader sets them by tokenizer model and pre-tokenizer. */
#include "format/arch_internal.h"
#include "format/pretok.h"

#include <stdio.h>
#include <string.h>

/* Spellings in order of preference within one kind. Source for EOT and EOM: the detection by text
 * in llama.cpp's src/llama-vocab.cpp; for BOS and EOS: the special tokens of the families' public
 * tokenizer configurations. */
static const struct {
    enum arch_fid id;
    const char *text;
} spellings[] = {
    {ARCH_F_BOS, "<|begin_of_text|>"},
    {ARCH_F_BOS, "<bos>"},
    {ARCH_F_BOS, "<s>"},
    {ARCH_F_BOS, "<\xef\xbd\x9c"
                 "begin\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"},
    {ARCH_F_BOS, "<|startoftext|>"},
    {ARCH_F_EOS, "<|end_of_text|>"},
    {ARCH_F_EOS, "<eos>"},
    {ARCH_F_EOS, "</s>"},
    {ARCH_F_EOS, "<\xef\xbd\x9c"
                 "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"},
    {ARCH_F_EOS, "<|im_end|>"},
    {ARCH_F_EOS, "<|endoftext|>"},
    {ARCH_F_EOT, "<|eot_id|>"},
    {ARCH_F_EOT, "<|im_end|>"},
    {ARCH_F_EOT, "<|end|>"},
    {ARCH_F_EOT, "<end_of_turn>"},
    {ARCH_F_EOT, "<|endoftext|>"},
    {ARCH_F_EOT, "<|end_of_text|>"},
    {ARCH_F_EOT, "<EOT>"},
    {ARCH_F_EOT, "_<EOT>"},
    {ARCH_F_EOT, "[EOT]"},
    {ARCH_F_EOT, "<\xef\xbd\x9c"
                 "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"},
    {ARCH_F_EOT, "<end_of_utterance>"},
    {ARCH_F_EOM, "<|eom_id|>"},
};
#define N_SPELLING (sizeof spellings / sizeof spellings[0])

/* Ids that a tokenizer model implies (llama.cpp, llama_vocab::impl::load); -1: none. Its 11 for
 * every byte-level BPE is left out: that is GPT-2's "," and Falcon's end of text. */
static const struct {
    const char *model;
    int32_t bos, eos, unk, pad;
    bool add_bos, add_eos, space_prefix;
} type_defaults[] = {
    {"llama", 1, 2, 0, -1, true, false, true},
    {"bert", 101, -1, 100, 0, true, false, false},
    {"t5", -1, 1, 2, 0, false, true, false},
    {"plamo2", 1, 2, 0, 3, false, false, false},
};

static const struct {
    enum arch_fid id;
    const char *key;
} id_keys[] = {
    {ARCH_F_BOS, "tokenizer.ggml.bos_token_id"},
    {ARCH_F_EOS, "tokenizer.ggml.eos_token_id"},
    {ARCH_F_EOT, "tokenizer.ggml.eot_token_id"},
    {ARCH_F_EOM, "tokenizer.ggml.eom_token_id"},
    {ARCH_F_UNK, "tokenizer.ggml.unknown_token_id"},
    {ARCH_F_PAD, "tokenizer.ggml.padding_token_id"},
};

static int32_t *id_at(struct arch_ctx *x, enum arch_fid f)
{
    return arch_field_at(&x->c, f);
}

static void ids_from_keys(struct arch_ctx *x, uint64_t n_token)
{
    for (size_t i = 0; i < sizeof id_keys / sizeof id_keys[0]; i++) {
        const struct gguf_key *k = gguf_find(x->g, id_keys[i].key);
        int64_t v;
        if (!k)
            continue;
        if (!gguf_as_i64(k, &v) || v < 0 || (n_token && (uint64_t)v >= n_token) || v > INT32_MAX) {
            arch_note(x, "key %s names no token of the vocabulary and is not obeyed",
                      id_keys[i].key);
            continue;
        }
        *id_at(x, id_keys[i].id) = (int32_t)v;
        arch_prov_set(x, id_keys[i].id, ARCH_FROM_KEY, "%s", id_keys[i].key);
    }
}

/* One walk over the vocabulary for all spellings that are still asked for. */
static void ids_from_spellings(struct arch_ctx *x, const struct gguf_key *tokens)
{
    bool want = false;
    int32_t at[N_SPELLING];
    for (size_t i = 0; i < N_SPELLING; i++) {
        at[i] = ARCH_NO_TOKEN;
        want = want || *id_at(x, spellings[i].id) == ARCH_NO_TOKEN;
    }
    struct gguf_key k;
    size_t pos = 0;
    for (int32_t id = 0; want && gguf_next_elem(tokens, &pos, &k); id++) {
        if (k.data_len < 3 || k.data_len > 32 ||
            (k.data[0] != '<' && k.data[0] != '[' && k.data[0] != '_'))
            continue;
        for (size_t i = 0; i < N_SPELLING; i++)
            if (at[i] == ARCH_NO_TOKEN && strlen(spellings[i].text) == k.data_len &&
                memcmp(spellings[i].text, k.data, k.data_len) == 0)
                at[i] = id;
    }
    for (size_t i = 0; i < N_SPELLING; i++) {
        enum arch_fid f = spellings[i].id;
        if (at[i] == ARCH_NO_TOKEN || *id_at(x, f) != ARCH_NO_TOKEN)
            continue;
        *id_at(x, f) = at[i];
        arch_prov_set(x, f, ARCH_FROM_DEFAULT, "token \"%s\" of the vocabulary", spellings[i].text);
    }
}

static void id_default(struct arch_ctx *x, enum arch_fid f, int32_t id, uint64_t n_token,
                       const char *why)
{
    if (id < 0 || (uint64_t)id >= n_token || *id_at(x, f) != ARCH_NO_TOKEN)
        return;
    *id_at(x, f) = id;
    arch_prov_set(x, f, ARCH_FROM_DEFAULT, "%s", why);
}

static void flag(struct arch_ctx *x, enum arch_fid f, const char *key, bool def, const char *why)
{
    bool *b = arch_field_at(&x->c, f);
    const struct gguf_key *k = gguf_find(x->g, key);
    *b = def;
    arch_prov_set(x, f, ARCH_FROM_DEFAULT, "%s", why);
    if (gguf_as_bool(k, b))
        arch_prov_set(x, f, ARCH_FROM_KEY, "%s", key);
    else if (k)
        arch_note(x, "key %s is no boolean and is not obeyed", key);
}

int arch_tokens_resolve(struct arch_ctx *x)
{
    struct gguf_str model = {0}, pre = {0};
    gguf_as_str(gguf_find(x->g, "tokenizer.ggml.model"), &model);
    gguf_as_str(gguf_find(x->g, "tokenizer.ggml.pre"), &pre);
    const struct gguf_key *tokens = gguf_find(x->g, "tokenizer.ggml.tokens");
    if (tokens && (tokens->type != GGUF_ARRAY || tokens->elem != GGUF_STRING))
        tokens = NULL;
    uint64_t n_token = tokens ? tokens->n : x->c.n_vocab;
    char why[160];
    snprintf(why, sizeof why, "tokenizer model %.*s", (int)(model.len < 32 ? model.len : 32),
             model.p ? model.p : "");

    ids_from_keys(x, n_token);
    if (tokens)
        ids_from_spellings(x, tokens);
    bool add_bos = false, add_eos = false, space = false, gemma4 = gguf_str_eq(model, "gemma4");
    for (size_t i = 0; i < sizeof type_defaults / sizeof type_defaults[0]; i++) {
        if (!gguf_str_eq(model, type_defaults[i].model))
            continue;
        id_default(x, ARCH_F_BOS, type_defaults[i].bos, n_token, why);
        id_default(x, ARCH_F_EOS, type_defaults[i].eos, n_token, why);
        id_default(x, ARCH_F_UNK, type_defaults[i].unk, n_token, why);
        id_default(x, ARCH_F_PAD, type_defaults[i].pad, n_token, why);
        add_bos = type_defaults[i].add_bos;
        add_eos = type_defaults[i].add_eos;
        space = type_defaults[i].space_prefix;
    }
    if (tokens && !gguf_str_eq(model, "test") && !gguf_str_eq(model, "rwkv")) {
        const struct arch_compat_row *row = arch_compat_find(x->c.arch);
        id_default(x, ARCH_F_BOS, row->bos, n_token, "the Rust table's id");
        id_default(x, ARCH_F_EOS, row->eos, n_token, "the Rust table's id");
    }
    char name[64];
    snprintf(name, sizeof name, "%.*s", (int)(pre.len < 63 ? pre.len : 63), pre.p ? pre.p : "");
    const struct pretok *rule = gguf_str_eq(model, "gpt2") ? pretok_find(name) : NULL;
    if (rule && (rule->flags & PRETOK_ADD_BOS)) {
        add_bos = true;
        snprintf(why, sizeof why, "pre-tokenizer %s", rule->name);
    }
    flag(x, ARCH_F_ADD_BOS, "tokenizer.ggml.add_bos_token", add_bos, why);
    flag(x, ARCH_F_ADD_EOS, "tokenizer.ggml.add_eos_token", add_eos, why);
    flag(x, ARCH_F_ADD_SPACE_PREFIX, "tokenizer.ggml.add_space_prefix", space, why);
    if ((gemma4 || gguf_str_eq(pre, "gemma4") || gguf_str_eq(pre, "granite-embed-multi-311m")) &&
        !x->c.add_bos) {
        x->c.add_bos = true; /* as llama.cpp, whatever the key says */
        arch_prov_set(x, ARCH_F_ADD_BOS, ARCH_FROM_DEFAULT, "pre-tokenizer gemma4");
    }
    return x->rc;
}
