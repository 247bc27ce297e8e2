#include "infer/text/vocab_fix.h"

#include <string.h>
#include <strings.h>

/* Spellings that end a turn or a text (llama-vocab.cpp, October 2026), whatever the file's type. */
static const char *const ends[] = {
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\xEF\xBD\x9C"
    "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>",
    "[e~[",
    NULL,
};

/* Fill-in-the-middle tokens: the key that names one, else its first spelling found. They become
 * control tokens if found by spelling; the last three end generation. */
static const struct fim {
    const char *key, *old_key;
    bool end;
    const char *text[9];
} fims[] = {
    {"fim_pre_token_id",
     "prefix_token_id",
     false,
     {"<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>",
      "<\xEF\xBD\x9C"
      "fim\xE2\x96\x81"
      "begin\xEF\xBD\x9C>",
      "<PRE>", "\xE2\x96\x81<PRE>", "<|code_prefix|>", "<|prefix|>"}},
    {"fim_suf_token_id",
     "suffix_token_id",
     false,
     {"<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>",
      "<\xEF\xBD\x9C"
      "fim\xE2\x96\x81hole\xEF\xBD\x9C>",
      "<SUF>", "\xE2\x96\x81<SUF>", "<|code_suffix|>", "<|suffix|>"}},
    {"fim_mid_token_id",
     "middle_token_id",
     false,
     {"<|fim_middle|>", "<fim-middle>", "<fim_middle>",
      "<\xEF\xBD\x9C"
      "fim\xE2\x96\x81"
      "end\xEF\xBD\x9C>",
      "<MID>", "\xE2\x96\x81<MID>", "<|code_middle|>", "<|middle|>"}},
    {"fim_pad_token_id", NULL, true, {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"fim_rep_token_id",
     NULL,
     true,
     {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"fim_sep_token_id", NULL, true, {"<|file_sep|>"}},
};

static int32_t find(const struct vocab *v, const char *text)
{
    return vocab_find(v, text, strlen(text));
}

static bool is_end(const struct vocab *v, const char *text)
{
    int32_t id = find(v, text);
    return id >= 0 && v->attr[id] & VOCAB_END;
}

static int32_t key_id(const struct vocab *v, const cJSON *meta, const char *key)
{
    int64_t n;
    return key && json_int(vocab_key(meta, key), &n) && n >= 0 && n < v->n ? (int32_t)n
                                                                           : VOCAB_NONE;
}

static void fix_fim(struct vocab *v, const cJSON *meta)
{
    for (size_t i = 0; i < sizeof fims / sizeof *fims; i++) {
        int32_t id = key_id(v, meta, fims[i].old_key);
        if (id < 0)
            id = key_id(v, meta, fims[i].key);
        for (int k = 0; id < 0 && k < 9 && fims[i].text[k]; k++) {
            id = find(v, fims[i].text[k]);
            if (id >= 0)
                v->attr[id] |= VOCAB_CONTROL;
        }
        if (id >= 0 && fims[i].end)
            v->attr[id] |= VOCAB_END;
    }
}

static void fix_ends(struct vocab *v, const cJSON *meta)
{
    static const char *const shown[] = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"};
    for (int i = 0; ends[i]; i++) {
        int32_t id = find(v, ends[i]);
        if (id >= 0)
            v->attr[id] |= VOCAB_END | VOCAB_CONTROL;
    }
    for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
        int32_t id = find(v, shown[i]);
        if (id >= 0)
            v->attr[id] = VOCAB_USER | (v->attr[id] & VOCAB_END);
    }
    int32_t more[] = {v->eos, key_id(v, meta, "eot_token_id"), key_id(v, meta, "eom_token_id")};
    for (int i = 0; i < 3; i++)
        if (more[i] >= 0)
            v->attr[more[i]] |= VOCAB_END;
    /* Harmony and Solar: <|end|> closes a message, not the turn. */
    if (is_end(v, "<|end|>") && (is_end(v, "<|call|>") || is_end(v, "<|calls|>")) &&
        (is_end(v, "<|return|>") || is_end(v, "<|flush|>")))
        v->attr[find(v, "<|end|>")] = VOCAB_USER;
    /* Gemma 4 and PLaMo: </s> is plain text. */
    if (is_end(v, "</s>") && (is_end(v, "<|tool_response>") || is_end(v, "<|plamo:eos|>")))
        v->attr[find(v, "</s>")] = VOCAB_NORMAL;
}

static bool name_has(const cJSON *meta, const char *part)
{
    static const char *const keys[] = {"general.name", "name", "model_name",
                                       "tokenizer.model_name"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const char *s = json_text(json_get(meta, keys[i]));
        for (; s && *s; s++)
            if (strncasecmp(s, part, strlen(part)) == 0)
                return true;
    }
    return false;
}

/* The blanks beside a token: GGUF has no key for it, so the reference goes by the model's name. */
static void fix_strips(struct vocab *v, const cJSON *meta)
{
    const char *pre = v->pre ? v->pre->name : "";
    if (strncmp(pre, "jina-v2-", 8) == 0) {
        int32_t id = find(v, "<mask>");
        if (id >= 0)
            v->attr[id] |= VOCAB_LSTRIP;
    } else if (name_has(meta, "phi-3") || name_has(meta, "phi3")) {
        static const char *const plain[] = {"<unk>", "<s>", "<|endoftext|>"};
        for (uint32_t id = 0; id < v->n; id++)
            if (v->attr[id] & (VOCAB_CONTROL | VOCAB_USER | VOCAB_UNKNOWN))
                v->attr[id] |= VOCAB_RSTRIP;
        for (int i = 0; i < 3; i++) {
            int32_t id = find(v, plain[i]);
            if (id >= 0)
                v->attr[id] &= (uint8_t)~VOCAB_RSTRIP;
        }
    } else if (name_has(meta, "modern-bert")) {
        int32_t id = find(v, "[MASK]");
        if (id >= 0)
            v->attr[id] |= VOCAB_LSTRIP;
    }
}

void vocab_fix(struct vocab *v, const cJSON *meta)
{
    fix_fim(v, meta);
    fix_ends(v, meta);
    fix_strips(v, meta);
}
