/* Pre-tokenizers: tokenizer.ggml.pre -> the rule that cuts text into pieces before byte-level BPE,
 * and the defaults that hang on the name. One table for infer/'s tokenizer and for the
 * tokenizer.json beside a mounted model.
 *
 * A rule is a list of regular expressions, applied one after the other: each cuts every piece so
 * far at its matches; matches and what lies between them are the new pieces (Hugging Face's Split
 * with behaviour "Isolated", not inverted). Their dialect is what Oniguruma (tokenizer.json) and
 * pretok_run.c both read: literals, escapes, classes with ranges and one "&&[...]", groups (?:),
 * lookahead, greedy and possessive repeats. \s is White_Space, \p{..} the General_Category.
 *
 * Source: the names and rules of llama.cpp of 1 October 2026 (llama-vocab.cpp, unicode.cpp),
 * checked name by name against its tokens (scripts/check_tokens). Where it departs from the model's
 * own tokenizer.json (upper and lower case told apart in ASCII only; no case folding beyond ASCII)
 * this table follows it. */
#ifndef APRFS_FORMAT_PRETOK_H
#define APRFS_FORMAT_PRETOK_H

#include <stdbool.h>

#define PRETOK_MAX_SPLIT 6

/* A split whose lookahead would make it quadratic: run by code, not as a regex. */
enum pretok_run {
    PRETOK_RUN_REGEX,
    PRETOK_RUN_DIGITS,       /* runs of \p{N} in threes, counted from the right */
    PRETOK_RUN_ASCII_DIGITS, /* the same for runs of 0-9 */
};

struct pretok_split {
    const char *regex; /* NULL ends the list */
    enum pretok_run run;
};

enum pretok_flag {
    PRETOK_IGNORE_MERGES = 1, /* a piece that is a token is that token, whatever the merges say */
    PRETOK_ADD_BOS = 2,       /* BOS unless tokenizer.ggml.add_bos_token says no */
    PRETOK_NO_BOS = 4,        /* there is no default BOS id */
    PRETOK_CLEAN_SPACES = 8,  /* clean_up_tokenization_spaces; our own decoding never does it */
};

struct pretok {
    const char *name; /* as tokenizer.ggml.pre spells it */
    const struct pretok_split *split;
    unsigned flags;
};

/* The entry of a name; NULL: not known (the caller says `pre-tokenizer 'xyz' is not known`). */
const struct pretok *pretok_find(const char *name);

/* The table's i-th entry, NULL past its end: for listings and tests. */
const struct pretok *pretok_at(unsigned i);

#endif
