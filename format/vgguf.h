/* The reverse view: the plan of a .gguf file over a .apr, ours or of the original writers.
 *
 * Layout:  head (GGUF header, keys, tensor directory) | zeros | the .apr's tensors | zeros
 * Tensors stand in the order in which the .apr holds them, each at the next multiple of
 * general.alignment behind the one before, for that is what llama.cpp's reader demands; so a .apr
 * that was made without moving anything is one extent, at virtual = source + shift. Quantised bytes
 * are never changed: where the .apr shows a tensor widened and carries the original too
 * ("aprfs.raw"), the original stands; names that are only a second view of other bytes
 * ("aprfs.alias") are left out.
 *
 * Files that carry "aprfs.gguf" (apr_meta.h) give the GGUF's keys back, in order and type. Of a GGUF
 * of one part the head then is the original's, byte for byte, and vgguf_same_head() says so; the
 * data start follows from that. Otherwise a key "aprfs.pad" makes the head so long that the shift is
 * a multiple of 64 KiB, and split.* are left out.
 *
 * Files of the original writers are no GGUFs in disguise: see vgguf_foreign.c for what is taken
 * from where; what had to be derived is listed in the key "aprfs.derived", what cannot be is
 * refused by name.
 *
 * The head is a pure function of the .apr's bytes and VGGUF_BUILDER. */
#ifndef APRFS_FORMAT_VGGUF_H
#define APRFS_FORMAT_VGGUF_H

#include "format/apr_read.h"
#include "format/err.h"
#include "format/gguf.h"
#include "format/vplan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VGGUF_BUILDER 2 /* raised whenever the bytes of a head change */

struct vgguf;

/* Plans the file. a is lent and must outlive v. -ENOTSUP: what no GGUF can say (APR's own Q8, ...),
 * an architecture or a name without a GGUF counterpart, a file of an earlier builder of ours; -ENOENT:
 * something that a reader of GGUFs needs and the file lacks; -EUCLEAN: it contradicts itself. */
int vgguf_new(struct vgguf **out, const struct apr *a, struct err *e);
void vgguf_free(struct vgguf *v);

/* What serving it needs; layout "congruent": every extent at a shift that is a multiple of 64 KiB,
 * else "shifted". Its one part is the .apr's source. */
const struct vplan *vgguf_plan(const struct vgguf *v);
const uint8_t *vgguf_head(const struct vgguf *v, size_t *len); /* without the padding behind it */
const struct gguf *vgguf_gguf(const struct vgguf *v);          /* the head, parsed */

/* The head is byte for byte that of the GGUF that the .apr was made from (by its SHA-256). */
bool vgguf_same_head(const struct vgguf *v);

/* What was derived although the file does not say it, a sentence each, its source named; of our own
 * files why the result is not byte for byte the GGUF that they were made from. */
size_t vgguf_n_note(const struct vgguf *v);
const char *vgguf_note(const struct vgguf *v, size_t i);

#endif
