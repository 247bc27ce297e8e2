/* Verdicts of the gate that outlive the process: a device that computed a model right need not
 * prove it at every start. One small text file each, in $XDG_CACHE_HOME/aprd/verdicts (~/.cache
 * where that is not set), named by the SHA-256 of its key; the key's parts stand in the file again
 * and must match to the byte. Only passes are kept. Files are hostile input: anything not exactly
 * as written here is no verdict. */
#ifndef APRFS_INFER_VERDICT_H
#define APRFS_INFER_VERDICT_H

#include "infer/probe.h"

struct verdict_key {
    uint8_t model[32];    /* struct model's digest */
    uint8_t probe[32];    /* SHA-256 of the ids, little-endian */
    uint32_t n_pos;       /* how many ids: what a verdict must have compared */
    const char *device;   /* backend identity: name, capability, driver */
    const char *route;    /* what the device computes in, and how it is driven */
    const uint8_t *build; /* NT_GNU_BUILD_ID of this program */
    size_t build_len;
};

/* 0: found, and r says what was measured. -ENOENT: none is kept. Else there is something that is
 * not to be believed or not to be read, and e says what: -EUCLEAN, -EPERM (another user's), -EINVAL
 * (the key lacks a part: nothing can be kept under it), -ENOTDIR, ... */
int verdict_load(const struct verdict_key *k, struct probe_result *r, struct err *e);

/* Keeps a pass over all of k's positions; -EINVAL for anything else. The folders are made where they lack, mode 0700. */
int verdict_store(const struct verdict_key *k, const struct probe_result *r, struct err *e);

/* What was kept under k is kept no more: the device has been refused since. 0, also where nothing
 * was, or where nothing can be kept or believed (see verdict_load). */
int verdict_drop(const struct verdict_key *k, struct err *e);

#endif
