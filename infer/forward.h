/* The transformer, once, over the op table: one sequence, its KV cache, and the activations of a step.
 *
 * Two ways through the same ops. forward_run() queues any number of tokens. forward_step() is one
 * token and the greedy choice after it: token and position live on the device, which moves them on
 * itself, so the ops are recorded once and replayed for every further token, never recorded again and
 * never changed. Their results are the same, bit for bit. */
#ifndef APRFS_INFER_FORWARD_H
#define APRFS_INFER_FORWARD_H

#include "infer/model.h"

struct forward; /* one sequence; one thread drives it */

struct forward_options {
    uint32_t max_tok; /* rows of one forward_run at most */
    uint32_t n_pos;   /* positions that the KV cache holds */
    bool no_graph;    /* queue every step op by op, even where the backend records */
};

/* Looks into a pass. layer() is called after each layer with its residual: x (n_tok, n_embd), device,
 * valid during the call, which may download from it. A negative errno, with its story in e, ends the
 * step with that code. */
struct forward_tap {
    int (*layer)(void *ctx, uint32_t layer, const float *x, uint32_t n_tok, struct err *e);
    void *ctx;
};

/* m is lent for f's life. -ENOMEM, -ERANGE; everything a step needs is allocated here. */
int forward_new(struct forward **out, const struct model *m, const struct forward_options *opt,
                struct err *e);
void forward_free(struct forward *f); /* NULL is fine */

/* From the next step on, until NULL. *tap is copied. While there is one, no step is replayed: a
 * recording calls nobody. */
void forward_set_tap(struct forward *f, const struct forward_tap *tap);

/* Queues one step: n_tok tokens id[] at positions pos0 .. pos0 + n_tok - 1 (everything below pos0 was
 * run already), then the logits of the last n_out rows (0: none) and the greedy choice of the last.
 * id < n_vocab is the caller's to check. -EINVAL: more rows than max_tok; -ERANGE: positions beyond
 * n_pos; or what the backend answers. */
int forward_run(struct forward *f, const int32_t *id, uint32_t n_tok, uint32_t pos0, uint32_t n_out,
                struct err *e);

/* forward_run(f, &id, 1, pos, 1), by a recording where the backend has such and the session asked for
 * it. The first step is queued op by op (CUDA may load a kernel at its first launch, which no recording
 * allows), the second is recorded, all others are replayed. The id is uploaded only where it is not
 * what the device has chosen itself, the position only where it is not the next one. */
int forward_step(struct forward *f, int32_t id, uint32_t pos, struct err *e);

/* The greedy token after the last step (of its last row): the highest logit, the lowest id on a tie;
 * -1: a logit of that row is not finite. Waits; 4 bytes cross. -EINVAL: that step had no logits. */
int forward_best(struct forward *f, int32_t *best, struct err *e);

/* Logits (n_out, n_vocab) of the last step, device. */
const float *forward_logits(const struct forward *f);

/* What forward_new allocates beside the KV cache, padding included: activations, and the step's state. */
uint64_t forward_bytes(const struct model *m, uint32_t max_tok, uint32_t n_pos);
/* The KV cache; UINT64_MAX: more than can be counted. */
int forward_kv_bytes(const struct model *m, uint32_t n_pos, uint64_t *n, struct err *e);

#endif
