/* What the verbs of aprd share: the parsed command line, and what is said on stderr. Only infer/main.c
 * and infer/aprd_*.c include this; none of it goes into libinfer. */
#ifndef APRFS_INFER_APRD_H
#define APRFS_INFER_APRD_H

#include "infer/engine.h"

#include <stdio.h>

enum aprd_verb {
    APRD_RUN = 1,
    APRD_LOGITS = 2,
    APRD_VERIFY = 4,
    APRD_TOKENIZE = 8,
    APRD_DETOKENIZE = 16,
};

/* Options that are no letters get numbers above 255. */
enum aprd_option {
    OPT_TEMP = 256,
    OPT_TOP_K,
    OPT_TOP_P,
    OPT_MIN_P,
    OPT_REPEAT,
    OPT_REPEAT_N,
    OPT_PRESENCE,
    OPT_FREQUENCY,
    OPT_DEVICE,
    OPT_NO_GRAPH,
    OPT_JSON,
    OPT_SPECIAL,
    OPT_IDS,
    OPT_NO_BOS,
    OPT_NO_PARSE,
    OPT_VERSION,
};

struct aprd_args {
    const char *path, *prompt;
    int64_t n_predict;
    int n_thread;
    uint32_t n_ctx;
    enum engine_device device;
    struct sampler_params given;
    bool random_seed;
    uint32_t given_mask; /* bit = index into the table of options */
};

struct aprd_verb_row {
    const char *name, *operands, *help;
    enum aprd_verb verb;
    int n_operand;
};

/* --- aprd_args.c --------------------------------------------------------------------------- */

/* Fills a from the command line; 0, or -EINVAL (usage). *verb is NULL where none is named: then help
 * or the version is asked for. */
int aprd_args_parse(struct aprd_args *a, int argc, char **argv, const struct aprd_verb_row **verb,
                    struct err *e);
bool aprd_given(const struct aprd_args *a, int id);     /* a letter or an enum aprd_option */
void aprd_print_help(const struct aprd_verb_row *only); /* NULL: every verb's */

/* --- aprd_say.c: the one place that complains ------------------------------------------------ */

/* "aprd: <message>" on stderr; 1. */
int aprd_fail(const struct err *e);
/* The same for a slip in how aprd was called; 2. */
int aprd_usage(const struct err *e);
/* What was printed to stdout is there, or the reason is said: the exit status. */
int aprd_flushed(void);
/* Loads what eo asks for, with a bar on a terminal's stderr; then one line there, always: what
 * computes, and what its results may be taken for. */
int aprd_load(struct engine *g, struct engine_options *eo, const struct aprd_args *a,
              struct err *e);
/* The gates by name, with what each found: a line each, behind lead. */
void aprd_print_probe(FILE *f, const char *lead, const struct probe_result *r);
/* Behind a result that no gate has covered, one more line. */
void aprd_say_unverified(const struct engine *g);

/* --- the verbs: each returns the exit status --------------------------------------------------- */

int aprd_run(const struct aprd_args *a);
int aprd_logits(const struct aprd_args *a);
int aprd_verify(const struct aprd_args *a);
int aprd_tokenize(const struct aprd_args *a);
int aprd_detokenize(const struct aprd_args *a);

#endif
