/* The probe: does a device compute what the CPU reference computes? Both run the same fixed tokens
 * along the routes a user gets; the logits of every position are compared, and the worst decides.
 *
 * One token at position 0 sees little: rotation by 0 is the identity, softmax over one key is 1,
 * and neither mask nor cache nor prefill takes part. So there are 256: a prefill in two chunks (192
 * and 48: a chunk border, and a start that is not 0), then 16 one-token steps. What shows only
 * further on (a window longer than the probe, positions in the thousands) is the op tests' to see.
 */
#ifndef APRFS_INFER_PROBE_H
#define APRFS_INFER_PROBE_H

#include "infer/model.h"
#include "infer/text/tokenizer.h"

#define PROBE_N_TOK 256

/* What is measured at each position; of each, larger is worse, and more than the limit is refused.
 */
enum probe_metric {
    PROBE_FINITE, /* 1 where a logit is no number */
    PROBE_NMSE,   /* sum (a - r)^2 / sum r^2, r the reference's logits, a the device's */
    PROBE_COSINE, /* 1 - cosine of a and r */
    PROBE_KL,     /* KL(softmax r || softmax a), nats */
    PROBE_GREEDY, /* how far below r's highest logit stands the one the device would take, in
                   * standard deviations of r: 0 where both take the same */
    PROBE_N_METRIC,
};

/* The two gates: PARITY-GATE is all metrics but the last, F2 the last. */
enum probe_gate { PROBE_PARITY, PROBE_F2 };

struct probe_value {
    double worst;
    uint32_t pos;       /* where */
    uint32_t n_bad;     /* positions beyond the limit */
    uint32_t first_bad; /* the first of them */
};

struct probe_result {
    uint32_t n;      /* positions asked for */
    uint32_t n_done; /* positions compared: fewer than n only behind a logit that is no number */
    struct probe_value metric[PROBE_N_METRIC];
    uint32_t n_equal;    /* positions with the same greedy token; the rest within the limit are ties
                            that rounding can turn */
    int32_t bad_layer;   /* after a refusal: the first whose residual differs; -1: none does */
    double bad_residual; /* its NMSE */
};

struct probe_options {
    bool no_graph; /* the device's one-token steps op by op, as the user asked */
    /* May be NULL; after every position. */
    void (*progress)(void *ctx, uint32_t done, uint32_t total);
    void *ctx;
};

/* How n tokens are fed: two chunks of prefill, then one-token steps; 192, 48 and 16 of 256. */
struct probe_split {
    uint32_t chunk[2], n_step;
};
struct probe_split probe_split(uint32_t n);

/* n ids of a fixed text of prose and code as tok has them (with the tokens the model wants around a
 * text), cut or repeated; tok NULL, or ids beyond n_vocab: fixed ids, *from_text false. */
int probe_ids(int32_t *id, uint32_t n, const struct tokenizer *tok, uint32_t n_vocab,
              bool *from_text, struct err *e);

/* Bytes on the host that probe_run takes beside what its two sessions do. */
uint64_t probe_bytes(const struct model *m);

/* Runs id[0..n) through dut and ref: the same model on two backends, n at most the context of both.
 * 0 whenever the comparison was made, whatever it says: see probe_refused(). A negative errno is a
 * failure to compare (memory, a device's or the reference's own error). */
int probe_run(struct probe_result *r, const struct model *dut, const struct model *ref,
              const int32_t *id, uint32_t n, const struct probe_options *opt, struct err *e);

/* The refused metric that is named first, or PROBE_N_METRIC: passed. */
enum probe_metric probe_refused(const struct probe_result *r);
bool probe_gate_passed(const struct probe_result *r, enum probe_gate g);
double probe_limit(enum probe_metric m);
const char *probe_metric_name(enum probe_metric m);

/* "PARITY-GATE: passed: 256 positions, worst NMSE 3e-13 at 187, ..." or "F2: refused: ...": what
 * one gate found, without a newline; cut to n bytes. */
void probe_line(const struct probe_result *r, enum probe_gate g, char *buf, size_t n);

#endif
