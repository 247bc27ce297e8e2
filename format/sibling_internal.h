/* Between the parts of the siblings. tokenizer.json: sibling_tokenizer.c reads a GGUF's vocabulary and
 * writes the text, sibling_spm.c finds the merges that SentencePiece's scores stand for. */
#ifndef APRFS_FORMAT_SIBLING_INTERNAL_H
#define APRFS_FORMAT_SIBLING_INTERNAL_H

#include "format/arch.h"
#include "format/err.h"
#include "format/gguf.h"
#include "format/json.h"
#include "format/pretok.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* GGUF's tokenizer.ggml.token_type (llama_token_type of llama.h). */
enum {
    TYPE_UNKNOWN = 2,
    TYPE_CONTROL = 3,
    TYPE_USER_DEFINED = 4,
};

/* Open addressing over u64 keys: slot = value + 1, 0 = free. The caller compares. */
struct table {
    uint32_t *slot;
    size_t mask;
    uint64_t seed; /* random: a file cannot choose texts that all meet in one place */
};

struct bpe {
    const struct gguf_key *tokens, *merges, *types; /* types may be NULL */
    const struct pretok *pre;
    struct gguf_str *text; /* [n_token], into the GGUF */
    uint64_t n_token;
    struct table by_text, by_pair;
    uint64_t *pair; /* [n_merge]: ids of left and right */
    uint64_t n_merge;
    char *joined; /* scratch of load_merges() */
    size_t cap_joined;
    bool add_bos, add_eos;
    bool spm;          /* tokenizer.ggml.model "llama": pre is NULL */
    bool space_prefix; /* spm: a blank before each text between special tokens */
    uint64_t bos, eos;
};

/* A member that readers which check types take for a float: "30.0", never "30". f32: the digits of one. */
void sibling_put_real(struct json_out *o, const char *key, double v, bool f32);

/* What rope_scaling says of factors that stand in tensors. PLAIN: there are none, or all are 1. */
enum sibling_rope_words {
    SIBLING_ROPE_PLAIN,
    SIBLING_ROPE_LLAMA3,  /* rope_freqs.weight, by the rule of Llama 3.1: factor, orig_ctx */
    SIBLING_ROPE_LONG,    /* rope_factors_short.weight and _long.weight, as they stand: Phi-3 */
    SIBLING_ROPE_UNKNOWN, /* no rule that has a name */
};
struct sibling_rope {
    enum sibling_rope_words words;
    double factor;
    uint32_t orig_ctx;
    float *short_factor, *long_factor; /* [n], owned */
    size_t n;
};
/* Reads the tensors. 0, or why they could not be read; to be released either way. */
int sibling_rope_find(struct sibling_rope *r, const struct gguf *g, const struct arch_config *c,
                      struct err *e);
void sibling_rope_release(struct sibling_rope *r);
void sibling_rope_put(struct json_out *o, const struct sibling_rope *r); /* not for PLAIN */

/* The token of that text, or -1; where free_at is given, also where it would go. */
int64_t sibling_find_text(const struct bpe *b, struct gguf_str s, size_t *free_at);

/* Is it named like a Phi-3? Then llama.cpp lets special tokens take the blanks behind them, ASCII's
 * alone; tokenizer.json can only say: all of Unicode's. */
bool sibling_is_phi3(const struct gguf *g);

/* -ENOENT, "no tokenizer.json: ..." */
int sibling_no_file(struct err *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Fills pair and n_merge so that merging pairs in their order gives the tokens that llama.cpp finds by
 * scores; -ENOENT where no order does, or none was proven to. Takes b with its tokens loaded. */
int sibling_spm_merges(struct bpe *b, const struct gguf *g, struct err *e);

#endif
