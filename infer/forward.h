/* The transformer, once, over the op table. */
#ifndef APRFS_INFER_FORWARD_H
#define APRFS_INFER_FORWARD_H

#include "infer/model.h"

struct forward; /* activations for steps of up to max_tok rows; belongs to one driver at a time */

int forward_new(struct forward **out, const struct model *m, uint32_t max_tok, struct err *e);
void forward_free(struct forward *f); /* NULL is fine */
uint32_t forward_max_tok(const struct forward *f);

/* Queues one step: n_tok tokens id[] at positions pos0 .. pos0 + n_tok - 1 of the sequence in kv
 * (which holds positions below pos0 already), then the logits of the last n_out rows (0: none).
 * id < n_vocab and pos0 + n_tok <= n_ctx are the caller's to check. 0 or a negative errno. */
int forward_run(struct forward *f, struct backend_kv *kv, const int32_t *id, uint32_t n_tok,
                uint32_t pos0, uint32_t n_out, struct err *e);

/* Logits (n_out, n_vocab) of the last forward_run, device. */
const float *forward_logits(const struct forward *f);
/* Greedy tokens of those rows, chosen on the device; waits. */
int forward_argmax(struct forward *f, int32_t *id, uint32_t n_out, struct err *e);

/* Bytes that forward_new takes for steps of max_tok rows. */
uint64_t forward_bytes(const struct model *m, uint32_t max_tok);

/* Bytes of forward_kv_new's cache with n_pos positions in it. */
int forward_kv_bytes(const struct model *m, uint32_t n_pos, uint64_t *n, struct err *e);

/* A KV cache for one sequence of m. */
int forward_kv_new(const struct model *m, struct backend_kv **kv, struct err *e);

#endif
