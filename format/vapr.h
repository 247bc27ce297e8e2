/* The virtual APR: the plan of a .apr file over a GGUF's parts, and read-at over that plan.
 *
 * Layout:  head (header, JSON, index) | zeros | extent of part 0 | zeros | extent of part 1 | ... |
 *          side area (widened and transcoded tensors, each at a multiple of 64)
 * Each part is one unbroken extent, from its data start to the end of its last tensor, at
 * virtual = source + shift with shift a multiple of 64 KiB; so index offsets are the GGUF's own.
 * The side area starts at a multiple of 64 KiB; the file ends at a multiple of 64 and has no footer
 * unless asked. profile strict may place tensors apart (layouts "shifted32", "placed").
 * The head is a pure function of the source bytes, the options and VAPR_BUILDER: built twice it is
 * equal byte for byte, and the size is final once vapr_new returns. */
#ifndef APRFS_FORMAT_VAPR_H
#define APRFS_FORMAT_VAPR_H

#include "format/err.h"
#include "format/gguf.h"
#include "format/quant.h"
#include "format/source.h"
#include "format/vplan.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VAPR_BUILDER 2 /* raised whenever the bytes of a head change */
#define VAPR_SHIFT   VPLAN_SHIFT

enum vapr_profile {
    VAPR_ENGINE, /* default: what the Rust engine reads right; Q8_0 and what it lacks as F32 */
    VAPR_NATIVE, /* every GGML id as it is: what aprd reads */
    VAPR_STRICT, /* what every reader reads right: 0, 1, 12, 14, at multiples of 64 */
};

enum vapr_footer {
    VAPR_FOOTER_NONE,
    VAPR_FOOTER_CRC,
};

enum vapr_values {
    VAPR_VALUES_REFERENCE, /* llama.cpp's */
    VAPR_VALUES_COMPAT,    /* the Rust table's */
};

struct vapr_options {
    enum vapr_profile profile;
    enum vapr_footer footer;
    enum vapr_values values;
};

/* One index entry and where its bytes come from. */
struct vapr_tensor {
    const char *name;
    uint8_t dtype;
    uint32_t n_dim;
    uint64_t dim[8]; /* outermost first */
    uint64_t off;    /* virtual, absolute */
    uint64_t size;
    int part;
    uint64_t src_off, src_size;    /* the original bytes in that part */
    const struct quant_type *type; /* the original's type */
    bool conv;                     /* true: stored as F32, made from the original */
    bool alias;                    /* a second name for bytes of another entry (tied head, rows of
                                      a fused QKV); the GGUF has no tensor of this name */
};

struct vapr;

/* Plans the file. g is lent and must outlive v. -ENOTSUP names what the profile cannot carry (first
 * such tensor, its type, the profile), or what the resolver refuses. */
int vapr_new(struct vapr **out, const struct gguf *g, const struct vapr_options *opt,
             struct err *e);
void vapr_free(struct vapr *v);

/* All that serving it needs; the four below look into it. */
const struct vplan *vapr_plan(const struct vapr *v);

uint64_t vapr_size(const struct vapr *v);
const uint8_t *vapr_head(const struct vapr *v, size_t *len); /* header, metadata, index */
uint64_t vapr_data_offset(const struct vapr *v);
const char *vapr_layout(const struct vapr *v); /* "congruent", "shifted32", "placed" */
size_t vapr_n_seg(const struct vapr *v);
const struct vseg *vapr_seg(const struct vapr *v, size_t i);
size_t vapr_find_seg(const struct vapr *v, uint64_t off); /* the one holding byte off < size */
size_t vapr_n_tensor(const struct vapr *v);
const struct vapr_tensor *vapr_tensor(const struct vapr *v, size_t i); /* index order */
const struct gguf *vapr_gguf(const struct vapr *v);

/* The bytes [off, off+len) into dst; *got is len, or less only at the end of the file. Any failure
 * of a source is an error, never a short read. Thread-safe. */
int vapr_read(const struct vapr *v, void *dst, uint64_t off, size_t len, size_t *got,
              struct err *e);

/* n_block blocks from block_no of a VSEG_CONV segment, as F32, into dst: the whole of conversion.
 */
int vapr_convert(const struct vapr *v, const struct vseg *s, uint64_t block_no, size_t n_block,
                 float *dst, struct err *e);

/* A source over v: what apr_open takes. v is lent. source_check() on it asks every part. */
int vapr_source(struct source **out, const struct vapr *v, struct err *e);

const char *vapr_profile_name(enum vapr_profile p);
bool vapr_profile_parse(const char *s, enum vapr_profile *p);

#endif
