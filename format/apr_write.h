/* Writes the virtual file's bytes to a real one, gathered by code of its own: of vapr it takes the
 * plan (head, tensor entries, size), never vapr_read or its segments, so that a mount and a written
 * file are two witnesses of one plan.
 *
 *   head; per part the extent copied at its shift (mount.md 1.1, computed here once more from the
 *   parts' data starts and ends); widened and transcoded tensors dequantised whole by
 *   quant_type()->f32; zeros elsewhere; the footer, where asked, from the bytes written. */
#ifndef APRFS_FORMAT_APR_WRITE_H
#define APRFS_FORMAT_APR_WRITE_H

#include "format/err.h"
#include "format/vapr.h"

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

struct apr_write_options {
    bool force;                        /* replace an existing file */
    enum vapr_footer footer;           /* as vapr_new was told */
    const volatile sig_atomic_t *stop; /* not NULL: nonzero ends the work with -EINTR */
    void (*progress)(void *ctx, uint64_t done, uint64_t total); /* may be NULL; bytes */
    void *ctx;
};

/* Writes path: as "path.tmp" in the same folder, synced, then renamed. On any error, and on stop,
 * nothing is left behind and an existing path is untouched. Blocks are shared with the source where
 * the file system can (FICLONERANGE). -EEXIST without force, or where path.tmp is a part of the
 * source or has other names; -EBUSY if another writer holds path.tmp; -ESTALE if a part changed
 * meanwhile; -EIO if the plan contradicts itself. */
int apr_write_file(const struct vapr *v, const char *path, const struct apr_write_options *opt,
                   struct err *e);

/* The same of any plan, by what its segments say: for the reverse view (vgguf.h), whose witness is
 * the GGUF that the .apr was made from. opt->footer is VAPR_FOOTER_NONE. */
int vplan_write_file(const struct vplan *p, const char *path, const struct apr_write_options *opt,
                     struct err *e);

#endif
