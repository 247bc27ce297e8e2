/* What apr_meta.c (writing) and apr_meta_read.c agree on: which field stands where. */
#ifndef APRFS_FORMAT_APR_META_INTERNAL_H
#define APRFS_FORMAT_APR_META_INTERNAL_H

#include "format/arch_internal.h"
#include "format/json.h"
#include "format/quant.h"

/* The largest of a per-layer count (0 without layers); whether all are equal. */
uint32_t apr_meta_largest(const struct arch_config *c, enum arch_fid f);
bool apr_meta_uniform(const struct arch_config *c, enum arch_fid f);

/* True if c's field is written under its canonical key: it has one, and the value is one that the
 * original readers can take (no zero counts, no absent tokens). */
bool apr_meta_is_canonical(const struct arch_config *c, enum arch_fid f);

/* True if "aprfs.config" must carry it: the canonical key is not there or does not say all. */
bool apr_meta_in_config(const struct arch_config *c, enum arch_fid f);

#endif
