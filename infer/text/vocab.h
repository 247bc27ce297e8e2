/* The vocabulary of a .apr's metadata: texts, types, scores, special ids and flags, with llama.cpp's
 * defaults and corrections. Shared by the parts of the tokenizer; immutable once made. */
#ifndef APRFS_INFER_TEXT_VOCAB_H
#define APRFS_INFER_TEXT_VOCAB_H

#include "format/err.h"
#include "format/json.h"
#include "format/pretok.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VOCAB_NONE (-1)

enum vocab_attr { /* a token's types; corrections may give it two */
                  VOCAB_NORMAL = 1,
                  VOCAB_UNKNOWN = 2,
                  VOCAB_CONTROL = 4,
                  VOCAB_USER = 8, /* user-defined: matched in text before anything else */
                  VOCAB_BYTE = 16,
                  VOCAB_LSTRIP = 32, /* takes the ASCII blanks before it, when cut out of text */
                  VOCAB_RSTRIP = 64, /* and those behind it */
                  VOCAB_END = 128,   /* ends generation */
};

enum vocab_model {
    VOCAB_BPE, /* "gpt2" */
    VOCAB_SPM, /* "llama" */
};

struct vocab {
    enum vocab_model model;
    const struct pretok *pre; /* VOCAB_BPE only */
    uint32_t n;
    char *bytes;   /* all texts */
    uint32_t *off; /* n + 1: token i is bytes[off[i]..off[i+1]) */
    uint8_t *attr;
    float *score;     /* zeros where the file has none */
    uint32_t max_len; /* of a text, in bytes */
    int32_t bos, eos, unk;
    bool add_bos, add_eos, add_space_prefix;

    struct vocab_slot {
        uint32_t tag, id1; /* hash and id + 1; 0: empty */
    } * slot;
    uint32_t mask;
};

/* pre: overrides the metadata's; NULL: none. On failure v is released. */
int vocab_init(struct vocab *v, const cJSON *meta, const char *pre, struct err *e);
void vocab_release(struct vocab *v);

/* The token spelt p[0..len), VOCAB_NONE if there is none. */
int32_t vocab_find(const struct vocab *v, const char *p, size_t len);

static inline const char *vocab_text(const struct vocab *v, uint32_t id, size_t *len)
{
    *len = v->off[id + 1] - v->off[id];
    return v->bytes + v->off[id];
}

/* "tokenizer.<name>" or, where APR has no name of its own, "tokenizer.ggml.<name>". */
const cJSON *vocab_key(const cJSON *meta, const char *name);

/* A quick hash of short byte strings, for tables built from files we do not trust: a bad case costs
 * time only. */
uint64_t vocab_hash(const char *p, size_t len);

#endif
