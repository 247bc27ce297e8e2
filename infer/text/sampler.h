/* From a row of logits to a token id.
 *
 * In this order: repeat penalty (logit > 0: divided, else multiplied) over the last tokens of prompt
 * and output; minus presence once and frequency x count over generated tokens; temperature 0: the
 * highest logit, the lowest id on a tie, done; else divide by temperature; top_k: the k highest,
 * ties by id; top_p: the shortest leading run whose sum is >= p, at least one; min_p: those with p
 * >= min_p x the highest; draw. This is Hugging Face's order.
 *
 * The draw is u = Philox4x32-10(key = seed, counter = (position, choice)), 53 bits, against the
 * running sum in sorted order (falling probability, ties by rising id). It depends on nothing else:
 * the same seed, position and logits give the same token on every machine and in every batch. */
#ifndef APRFS_INFER_TEXT_SAMPLER_H
#define APRFS_INFER_TEXT_SAMPLER_H

#include "format/err.h"
#include "format/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampler_params {
    double temp;           /* 0..100; 0 = greedy */
    double top_p;          /* 0..1; 1 = off, 0 keeps one token */
    double min_p;          /* 0..1; 0 = off */
    int64_t top_k;         /* 0 or -1 = off */
    double repeat_penalty; /* above 0, up to 2; 1 = off */
    int64_t repeat_last_n; /* window of the repeat penalty; -1 = all, 0 = off */
    double presence_penalty, frequency_penalty; /* -2..2; 0 = off */
    uint64_t seed;                              /* 0..2^53 */
};

/* temperature 1, top_p 1, top_k off, min_p 0, no penalties (window 64), seed 0. */
struct sampler_params sampler_defaults(void);

/* Replaces what the model's metadata names (general.sampling.temp, .top_k, .top_p, .min_p,
 * .penalty_repeat, .penalty_last_n). -EUCLEAN: one of them is no number or out of range. */
int sampler_params_from_meta(struct sampler_params *p, const cJSON *meta, struct err *e);

/* -EINVAL names the parameter and its range. */
int sampler_params_check(const struct sampler_params *p, struct err *e);

struct sampler;

int sampler_new(struct sampler **out, const struct sampler_params *p, uint32_t n_vocab,
                struct err *e);
void sampler_free(struct sampler *s); /* NULL is fine */

/* The token for position `position` (number of tokens before it). prev: those tokens, of which the
 * first n_prompt were the prompt. logits (n_vocab) are lent and unchanged. */
int32_t sampler_next(struct sampler *s, const float *logits, uint64_t position, const int32_t *prev,
                     size_t n_prev, size_t n_prompt);

/* Is its choice the highest logit of the unchanged row, the lowest id on a tie? Then nobody needs the
 * row to know it. */
bool sampler_is_greedy(const struct sampler *s);

/* The generator itself: ctr and key as in Random123's known answers. */
void sampler_philox(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2]);

#endif
