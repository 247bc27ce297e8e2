/* The gate: no model runs on a device that was not seen to compute it right. Called once after a
 * model was loaded, before anybody gets a token of it. What it compares and by which limits is
 * probe.h's; what it remembers, verdict.h's. */
#ifndef APRFS_INFER_GATE_H
#define APRFS_INFER_GATE_H

#include "format/apr_read.h"
#include "infer/probe.h"

enum gate_state {
    GATE_NONE,       /* not asked */
    GATE_REFERENCE,  /* the backend "cpu" is what others are judged by */
    GATE_PASSED,     /* now */
    GATE_CACHED,     /* earlier: same model, device, driver, build and route */
    GATE_UNVERIFIED, /* SKIP_PARITY_GATE=1 */
    GATE_REFUSED,    /* with -EDOM */
};

struct gate_options {
    bool force;         /* measure, whatever is kept (aprd verify) */
    bool no_graph;      /* as the user's sessions will be: part of the route */
    int n_thread;       /* of the reference; 0: the CPUs this process may run on */
    uint64_t mem_limit; /* host bytes to be taken for all there are; 0: what the machine has */
    /* May be NULL. "reference": the CPU reference is being loaded (done, total 0); "gate":
     * positions compared. */
    void (*progress)(void *ctx, const char *phase, uint32_t done, uint32_t total);
    void *ctx;
};

struct gate {
    enum gate_state state;
    char device[384];          /* the backend's identity */
    bool from_text;            /* the probe was the text, not fixed ids */
    struct probe_result probe; /* PASSED, CACHED, REFUSED */
    struct err note; /* why a verdict was not found or not kept, or, refused, still is; code 0:
                        nothing */
};

/* Judges m, which was loaded from apr. tok is lent (NULL: the gate makes one from apr's metadata).
 * The reference is opened on the backend "cpu" from the same apr, and freed again; that takes host
 * memory for the whole model once more.
 *
 * 0 with out->state. -EDOM: refused; the message names gate, metric, position and layer, out->probe
 * holds all that was measured. -EINVAL: SKIP_PARITY_GATE is neither 0, 1 nor empty, or 1 with
 * force. -ERANGE, -ENOMEM: no room for the reference. -EUCLEAN: the file changed in between. */
int gate_check(struct gate *out, const struct model *m, const struct apr *apr,
               const struct tokenizer *tok, const struct gate_options *opt, struct err *e);

/* "passed", "passed (cached)", "unverified (SKIP_PARITY_GATE=1)", "refused", "is the reference". */
const char *gate_state_text(enum gate_state s);

#endif
