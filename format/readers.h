/* What each original reader of APR v2 makes of a file: accepted or not, and which tensors it takes for
 * something they are not. A model of those programs, one rule per thing that one of them does, each
 * with the source it was read from; docs/readers.md lists them, `aprtool verify --readers` applies
 * them. Files that our own reader refuses are judged, too: some of the others open them.
 *
 *   aprender-feb    aprender core of February 2026: AprV2Reader
 *   aprender-mid    the same since June 2026
 *   AprV2Model      realizar's container reader, April 2026; aprender-serve's alike
 *   MappedAprModel  the mapped one of the same
 *   quantized       OwnedQuantizedModel::from_apr over MappedAprModel: apr run and serve
 *   serve-mid       the same in aprender-serve, June 2026 and later
 *   cuda            AprV2ModelCuda over AprV2Model
 *   f32-loader      AprTransformer::from_apr_bytes
 *   aprd            ours
 * Not judged: what depends on the machine (the F32 path's memory gate) or on every weight (its check
 * for zeros and NaN; `verify --deep` counts those). */
#ifndef APRFS_FORMAT_READERS_H
#define APRFS_FORMAT_READERS_H

#include "format/apr_read.h"
#include "format/source.h"

#include <stdbool.h>
#include <stddef.h>

enum reader {
    READER_FEB,
    READER_MID,
    READER_V2MODEL,
    READER_MAPPED,
    READER_QUANTIZED,
    READER_SERVE_MID,
    READER_CUDA,
    READER_F32,
    READER_APRD,
    N_READER,
};

enum reader_effect {
    READER_REFUSES,  /* it does not open the file, or finds no model in it */
    READER_MISREADS, /* it takes tensors for something else, or cannot reach them */
    READER_DIFFERS,  /* it reads every tensor it binds right, and does something else with them */
    READER_WONT_RUN, /* it knows the architecture and refuses it, whatever the file */
};

struct reader_rule {
    const char *id;   /* "header-crc"; unique */
    unsigned readers; /* whom it concerns: bit 1 << enum reader */
    enum reader_effect effect;
    const char *what;   /* the rule in a sentence */
    const char *source; /* repository:path, as of the dates above */
};

struct reader_finding {
    const struct reader_rule *rule;
    char why[160]; /* what this file has, without control characters */
};

struct reader_verdict {
    const char *name;             /* static */
    struct reader_finding *found; /* broken rules in the table's order, each once */
    size_t n_found, cap_found;
    char **wrong; /* names of tensors that it reads wrong, escaped */
    size_t n_wrong, cap_wrong;
    bool no_memory; /* only until readers_judge() returns */
};

/* Fills v[0..N_READER) for the file behind src, well-formed or not; a is the opened file, NULL if
 * our own reader refuses it with the message refused. What is wrong in a tensor's bytes is only told
 * where a is there, since only our reader knows what they are. Fails, with all of v empty, where there
 * is nothing to judge by: -EIO and what else a source says, -ERANGE (over 256 MiB of metadata), -ENOMEM.
 */
int readers_judge(struct reader_verdict v[N_READER], struct source *src, const struct apr *a,
                  const char *refused, struct err *e);
void readers_release(struct reader_verdict v[N_READER]);

/* The first finding of that effect; NULL: none. */
const struct reader_finding *reader_find(const struct reader_verdict *v, enum reader_effect effect);

const char *reader_name(enum reader r);
const char *reader_effect_name(enum reader_effect e); /* "refuses", "misreads", ... */
const struct reader_rule *readers_rules(size_t *n);

#endif
