/* One timeline: its tokens, its KV cache, and the logits after the last one. One thread drives it.
 */
#ifndef APRFS_INFER_SESSION_H
#define APRFS_INFER_SESSION_H

#include "infer/forward.h"
#include "infer/model.h"

struct session;

struct session_options {
    uint32_t
        n_pos; /* positions that this session will hold: its KV cache is allotted for so many, on
                       a device from the first byte; 0, or more than the context: all of it */
    bool no_graph; /* struct forward_options */
};

/* opt NULL: defaults (zeros). m is lent for s's life. */
int session_new(struct session **out, const struct model *m, const struct session_options *opt,
                struct err *e);
void session_free(struct session *s); /* NULL is fine */

uint32_t session_n_ctx(const struct session *s);  /* the model's context */
uint32_t session_n_pos(const struct session *s);  /* positions this session holds, <= n_ctx */
uint32_t session_n_past(const struct session *s); /* tokens evaluated */

/* From the next eval on, until NULL; *tap is copied. Replayed steps are then queued op by op. */
void session_tap(struct session *s, const struct forward_tap *tap);

/* Evaluates n more tokens, in steps of up to SESSION_STEP; afterwards session_best() and
 * session_logits() speak of the last one. Nothing is cut: -ERANGE with both numbers if they do not fit
 * into the session's positions, -EINVAL for an id outside the vocabulary; then nothing was evaluated.
 * -EIO: the model computed something that is no number. */
int session_eval(struct session *s, const int32_t *id, size_t n, struct err *e);
/* Whether the last eval ended because a logit is no number, and not because a device failed. */
bool session_not_finite(const struct session *s);

/* The same, handing out every token's row (n_vocab) in order. row < 0 from the callback ends the
 * evaluation with that code. */
int session_eval_rows(struct session *s, const int32_t *id, size_t n,
                      int (*row)(void *ctx, const float *logits, uint32_t n_vocab, struct err *e),
                      void *ctx, struct err *e);

/* The greedy token after the last one evaluated: the highest logit, the lowest id on a tie, chosen
 * where the logits are. -1: nothing was evaluated, or the last eval failed. */
int32_t session_best(const struct session *s);

/* The row of the last token evaluated: n_vocab f32 on the host, all finite, valid until the next eval.
 * They cross from the device here, at the first call after an eval. -EINVAL: there is no such row
 * (nothing was evaluated, or the last eval failed). */
int session_logits(struct session *s, const float **row, struct err *e);

#define SESSION_STEP 64

#endif
