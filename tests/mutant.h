/* Devices that compute something else: an op table wrapped around a loaded model's, which plays one
 * mistake. Around "cpu" a mutant counts as a device to be judged. One at a time. */
#ifndef APRFS_TESTS_MUTANT_H
#define APRFS_TESTS_MUTANT_H

#include "infer/model.h"

enum mutant {
    MUTANT_NONE,         /* computes right */
    MUTANT_ROPE_PAIRS,   /* NORM rotated as NEOX and the other way round */
    MUTANT_NO_EPS,       /* norms without epsilon */
    MUTANT_SWAPPED_ROWS, /* the first two rows of layer 1's ffn_down change places */
    MUTANT_NO_BIAS,      /* layer 1's bias of q is dropped */
    MUTANT_WIDE_WINDOW,  /* local layers see one key more */
    MUTANT_CHUNK_BORDER, /* steps of many rows from 192 on do not see the keys of others */
    MUTANT_NAN,          /* layer 1's attention is NaN at MUTANT_NAN_POS */
    MUTANT_NAN_LATE,     /* layer 0's is at the first one-token step behind position 240 */
    MUTANT_NO_SOFTCAP,   /* of the final logits */
    MUTANT_ARGMAX,       /* one id beside the best */
    MUTANT_STALE_GRAPH,  /* a replay does nothing; backends that record only */
    MUTANT_LOGITS,       /* mutant_logits() */
};

#define MUTANT_NAN_POS 20

/* Puts the mutant between m and its backend until mutant_end(). */
void mutant_begin(struct model *m, enum mutant which);
void mutant_end(void);

/* For MUTANT_LOGITS, host memory only: what becomes of each row of n logits. */
extern void (*mutant_logits)(float *row, uint32_t n);

#endif
