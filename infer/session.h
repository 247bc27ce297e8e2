/* One timeline: its tokens, its KV cache, and the logits after the last one. One thread drives it.
 */
#ifndef APRFS_INFER_SESSION_H
#define APRFS_INFER_SESSION_H

#include "infer/model.h"

struct session;

int session_new(struct session **out, const struct model *m, struct err *e);
void session_free(struct session *s); /* NULL is fine */

uint32_t session_n_ctx(const struct session *s);
uint32_t session_n_past(const struct session *s); /* tokens evaluated */

/* Evaluates n more tokens, in steps of up to SESSION_STEP; afterwards session_logits() is the row of
 * the last one. Nothing is cut: -ERANGE with both numbers if they do not fit into the context,
 * -EINVAL for an id outside the vocabulary; then nothing was evaluated. -EIO: the model computed
 * something that is no number. */
int session_eval(struct session *s, const int32_t *id, size_t n, struct err *e);

/* The same, handing out every token's row (n_vocab) in order. row < 0 from the callback ends the
 * evaluation with that code. */
int session_eval_rows(struct session *s, const int32_t *id, size_t n,
                      int (*row)(void *ctx, const float *logits, uint32_t n_vocab, struct err *e),
                      void *ctx, struct err *e);

/* n_vocab f32 on the host, valid until the next eval. */
const float *session_logits(const struct session *s);

#define SESSION_STEP 64

#endif
