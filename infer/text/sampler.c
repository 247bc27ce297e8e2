#include "infer/text/sampler.h"

#include <errno.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampler_params p;
    uint32_t n_vocab;
    float *logit;                 /* (n_vocab) after penalties */
    uint32_t *count;              /* (n_vocab) zeros between calls: occurrences in the window */
    struct candidate *cand, *tmp; /* (n_vocab) each */
    double *prob;                 /* (n_vocab) */
};

struct sampler_params sampler_defaults(void)
{
    return (struct sampler_params){.temp = 1, .top_p = 1, .repeat_penalty = 1, .repeat_last_n = 64};
}

static int meta_number(const cJSON *meta, const char *key, double *out, struct err *e)
{
    const cJSON *v = json_get(meta, key);
    double d;
    if (!v)
        return 0;
    if (!json_num(v, &d))
        return err_set(e, -EUCLEAN, "metadata %s is no number", key);
    *out = d;
    return 0;
}

static int meta_integer(const cJSON *meta, const char *key, int64_t *out, struct err *e)
{
    const cJSON *v = json_get(meta, key);
    int64_t i;
    if (!v)
        return 0;
    if (!json_int(v, &i))
        return err_set(e, -EUCLEAN, "metadata %s is no integer", key);
    *out = i;
    return 0;
}

int sampler_params_from_meta(struct sampler_params *p, const cJSON *meta, struct err *e)
{
    struct sampler_params q = *p;
    int rc = meta_number(meta, "general.sampling.temp", &q.temp, e);
    if (rc == 0)
        rc = meta_number(meta, "general.sampling.top_p", &q.top_p, e);
    if (rc == 0)
        rc = meta_number(meta, "general.sampling.min_p", &q.min_p, e);
    if (rc == 0)
        rc = meta_integer(meta, "general.sampling.top_k", &q.top_k, e);
    if (rc == 0)
        rc = meta_number(meta, "general.sampling.penalty_repeat", &q.repeat_penalty, e);
    if (rc == 0)
        rc = meta_integer(meta, "general.sampling.penalty_last_n", &q.repeat_last_n, e);
    if (rc == 0 && sampler_params_check(&q, e) < 0) {
        err_wrap(e, "metadata general.sampling");
        rc = -EUCLEAN;
        if (e)
            e->code = rc;
    }
    if (rc == 0)
        *p = q;
    return rc;
}

static int check_range(const char *name, double v, double lo, double hi, struct err *e)
{
    if (v >= lo && v <= hi)
        return 0;
    return err_set(e, -EINVAL, "%s is %.12g: from %.12g to %.12g", name, v, lo, hi);
}

int sampler_params_check(const struct sampler_params *p, struct err *e)
{
    int rc = check_range("temperature", p->temp, 0, 100, e);
    if (rc == 0)
        rc = check_range("top_p", p->top_p, 0, 1, e);
    if (rc == 0)
        rc = check_range("min_p", p->min_p, 0, 1, e);
    if (rc == 0)
        rc = check_range("top_k", (double)p->top_k, -1, INT32_MAX, e);
    if (rc == 0 && p->repeat_penalty == 0)
        rc = err_set(e, -EINVAL, "repeat penalty is 0: above 0, up to 2");
    if (rc == 0)
        rc = check_range("repeat penalty", p->repeat_penalty, 0, 2, e);
    if (rc == 0)
        rc = check_range("repeat window", (double)p->repeat_last_n, -1, INT32_MAX, e);
    if (rc == 0)
        rc = check_range("presence penalty", p->presence_penalty, -2, 2, e);
    if (rc == 0)
        rc = check_range("frequency penalty", p->frequency_penalty, -2, 2, e);
    if (rc == 0 && p->seed > UINT64_C(1) << 53)
        rc = err_set(e, -EINVAL, "seed is %" PRIu64 ": from 0 to 2^53", p->seed);
    return rc;
}

int sampler_new(struct sampler **out, const struct sampler_params *p, uint32_t n_vocab,
                struct err *e)
{
    int rc = sampler_params_check(p, e);
    if (rc < 0)
        return rc;
    struct sampler *s = calloc(1, sizeof *s);
    if (s) {
        s->p = *p;
        s->n_vocab = n_vocab;
        s->logit = calloc(n_vocab, sizeof *s->logit);
        s->count = calloc(n_vocab, sizeof *s->count);
        s->cand = calloc(n_vocab, sizeof *s->cand);
        s->tmp = calloc(n_vocab, sizeof *s->tmp);
        s->prob = calloc(n_vocab, sizeof *s->prob);
    }
    if (!s || !s->logit || !s->count || !s->cand || !s->tmp || !s->prob) {
        sampler_free(s);
        return err_set(e, -ENOMEM, "no memory for a sampler over %" PRIu32 " tokens", n_vocab);
    }
    *out = s;
    return 0;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->logit);
    free(s->count);
    free(s->cand);
    free(s->tmp);
    free(s->prob);
    free(s);
}

/* Philox4x32-10, Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011. */
void sampler_philox(uint32_t out[4], const uint32_t ctr[4], const uint32_t key[2])
{
    uint32_t c[4] = {ctr[0], ctr[1], ctr[2], ctr[3]}, k[2] = {key[0], key[1]};
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53 * c[0], p1 = (uint64_t)0xCD9E8D57 * c[2];
        uint32_t n[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                         (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
        memcpy(c, n, sizeof c);
        k[0] += 0x9E3779B9;
        k[1] += 0xBB67AE85;
    }
    memcpy(out, c, sizeof c);
}

/* 53 bits in [0, 1). */
static double draw(uint64_t seed, uint64_t position)
{
    uint32_t ctr[4] = {(uint32_t)position, (uint32_t)(position >> 32), 0 /* choice */, 0}, r[4];
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    sampler_philox(r, ctr, key);
    return (double)((((uint64_t)r[1] << 32) | r[0]) >> 11) * 0x1p-53;
}

/* The nearest finite float: infinite logits have no softmax. */
static float clamped(double v)
{
    return (float)fmax(-(double)FLT_MAX, fmin((double)FLT_MAX, v));
}

/* The id's count in the window is taken once: the first time it is met. */
static void penalties(struct sampler *s, const int32_t *prev, size_t n_prev, size_t n_prompt)
{
    const struct sampler_params *p = &s->p;
    size_t n_win = n_prev;
    if (p->repeat_last_n >= 0 && (uint64_t)p->repeat_last_n < n_win)
        n_win = (size_t)p->repeat_last_n;
    if (p->repeat_penalty != 1) {
        for (size_t i = n_prev - n_win; i < n_prev; i++) {
            float *l = &s->logit[prev[i]];
            if (s->count[prev[i]]++ == 0)
                *l = clamped(*l > 0 ? (double)*l / p->repeat_penalty
                                    : (double)*l * p->repeat_penalty);
        }
        for (size_t i = n_prev - n_win; i < n_prev; i++)
            s->count[prev[i]] = 0;
    }
    if (p->presence_penalty == 0 && p->frequency_penalty == 0)
        return;
    for (size_t i = n_prompt; i < n_prev; i++)
        s->count[prev[i]]++;
    for (size_t i = n_prompt; i < n_prev; i++) {
        uint32_t n = s->count[prev[i]];
        if (n)
            s->logit[prev[i]] -= (float)(p->presence_penalty + p->frequency_penalty * n);
        s->count[prev[i]] = 0;
    }
}

/* A key that sorts like falling logits: unsigned, smallest first. */
static uint32_t falling(float f)
{
    uint32_t u;
    if (f == 0)
        f = 0; /* -0 and 0 are a tie */
    memcpy(&u, &f, sizeof u);
    return u >> 31 ? u : ~u & 0x7fffffff;
}

/* cand by falling logit, ties by rising id: a stable radix sort, three passes of 11 bits, since
 * cand comes in rising id. */
static void sort(struct sampler *s)
{
    for (int pass = 0; pass < 3; pass++) {
        uint32_t start[2048] = {0}, at = 0;
        int shift = 11 * pass;
        for (uint32_t i = 0; i < s->n_vocab; i++)
            start[falling(s->cand[i].logit) >> shift & 2047]++;
        for (int b = 0; b < 2048; b++) {
            uint32_t n = start[b];
            start[b] = at;
            at += n;
        }
        for (uint32_t i = 0; i < s->n_vocab; i++)
            s->tmp[start[falling(s->cand[i].logit) >> shift & 2047]++] = s->cand[i];
        struct candidate *t = s->cand;
        s->cand = s->tmp;
        s->tmp = t;
    }
}

static int32_t greedy(const float *logit, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logit[i] > logit[best])
            best = i;
    return (int32_t)best;
}

bool sampler_is_greedy(const struct sampler *s)
{
    const struct sampler_params *p = &s->p;
    return p->temp == 0 && (p->repeat_penalty == 1 || p->repeat_last_n == 0) &&
           p->presence_penalty == 0 && p->frequency_penalty == 0;
}

int32_t sampler_next(struct sampler *s, const float *logits, uint64_t position, const int32_t *prev,
                     size_t n_prev, size_t n_prompt)
{
    const struct sampler_params *p = &s->p;
    memcpy(s->logit, logits, s->n_vocab * sizeof *s->logit);
    penalties(s, prev, n_prev, n_prompt);
    if (p->temp == 0)
        return greedy(s->logit, s->n_vocab);

    for (uint32_t i = 0; i < s->n_vocab; i++)
        s->cand[i] = (struct candidate){s->logit[i], (int32_t)i};
    sort(s);
    uint32_t n = s->n_vocab;
    if (p->top_k > 0 && (uint64_t)p->top_k < n)
        n = (uint32_t)p->top_k;
    double sum = 0, max = (double)s->cand[0].logit;
    for (uint32_t i = 0; i < n; i++) {
        s->prob[i] = exp(((double)s->cand[i].logit - max) / p->temp);
        sum += s->prob[i];
    }
    if (p->top_p < 1) {
        double run = 0, want = p->top_p * sum;
        uint32_t keep = 0;
        do
            run += s->prob[keep++];
        while (keep < n && run < want);
        n = keep;
        sum = run;
    }
    if (p->min_p > 0) {
        uint32_t keep = 1; /* prob[0] is 1 */
        sum = s->prob[0];
        while (keep < n && s->prob[keep] >= p->min_p)
            sum += s->prob[keep++];
        n = keep;
    }
    double u = draw(p->seed, position) * sum, run = 0;
    for (uint32_t i = 0; i < n; i++) {
        run += s->prob[i];
        if (u < run)
            return s->cand[i].id;
    }
    return s->cand[n - 1].id; /* rounding of the running sum */
}
