/* The plan of a virtual file: what stands at every byte of a file that nobody has written, and
 * read-at over it. The one face of both directions (vapr.h: a .apr over GGUF parts; vgguf.h: a
 * .gguf over a .apr), so that a mount need not know which it serves.
 *
 * Segments are sorted, touch, and cover the file exactly. A finished plan is read-only but for the
 * footer's value, which is remembered when it was first computed; reading is thread-safe. */
#ifndef APRFS_FORMAT_VPLAN_H
#define APRFS_FORMAT_VPLAN_H

#include "format/err.h"
#include "format/quant.h"
#include "format/source.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VPLAN_SHIFT    (UINT64_C(64) << 10)      /* extents stand at source + a multiple of this */
#define VPLAN_MAX_SIZE ((UINT64_C(1) << 53) - 1) /* offsets also stand in JSON numbers */

enum vseg_kind {
    VSEG_MEM,  /* p[0..len) */
    VSEG_FILE, /* len bytes of a part from src_off */
    VSEG_ZERO,
    VSEG_CONV, /* whole blocks of a part, from src_off, dequantised to F32 */
    VSEG_CRC,  /* the footer's 4 bytes; the first read of them reads the whole file */
};

struct vseg {
    enum vseg_kind kind;
    uint64_t off, len;             /* virtual */
    const uint8_t *p;              /* VSEG_MEM; owned by whoever made the plan */
    int part;                      /* VSEG_FILE, VSEG_CONV; else -1 */
    uint64_t src_off;              /* VSEG_FILE, VSEG_CONV: absolute in the part */
    const struct quant_type *type; /* VSEG_CONV: what the source bytes are */
};

struct vplan {
    uint64_t size;
    const char *layout; /* a word: "congruent", ... */
    struct vseg *seg;
    size_t n_seg, cap_seg;
    struct source **part; /* the sources are lent */
    int n_part;
    _Atomic uint64_t footer; /* vplan.c's: 0 until somebody asked */
};

/* An empty plan over lent sources. */
int vplan_init(struct vplan *p, int n_part, struct err *e);
void vplan_release(struct vplan *p);

/* Appends s, and zeros between the size so far and its start; before the first segment none, since
 * a planner may work in a frame that it moves later. Empty segments are left out. p->size is then
 * the end of s. -ERANGE past VPLAN_MAX_SIZE. */
int vplan_add(struct vplan *p, struct vseg s, struct err *e);

/* The number of the segment, of n > 0 that touch from byte 0 on, that holds byte off < their end. */
size_t vseg_find(const struct vseg *seg, size_t n, uint64_t off);
size_t vplan_find_seg(const struct vplan *p, uint64_t off);

/* The bytes [off, off+len) into dst; *got is len, or less only at the end of the file. Any failure
 * of a source is an error, never a short read. */
int vplan_read(const struct vplan *p, void *dst, uint64_t off, size_t len, size_t *got,
               struct err *e);

/* n_block blocks from block_no of a VSEG_CONV segment, as F32, into dst: the whole of conversion.
 */
int vplan_convert(const struct vplan *p, const struct vseg *s, uint64_t block_no, size_t n_block,
                  float *dst, struct err *e);

/* A source over p, which is lent. source_check() on it asks every part. Its name is part 0's. */
int vplan_source(struct source **out, const struct vplan *p, struct err *e);

#endif
