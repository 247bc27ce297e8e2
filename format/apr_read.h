/* APR v2 reader: opens the files of every writer (aprender's own, realizar's converter, ours) and
 * decides what each tensor's bytes are.
 *
 * A dtype byte of 2, 3, 6, 7, 8, 9 has two meanings. Decided in this order: the metadata's
 * "aprfs.profile" (ours: GGML ids); else the byte size, where the two readings differ in it
 * (e.g. 8: 34 bytes per 32 is Q8_0, 18 is APR's Q4; 2: 18 per 32 is Q4_0, 2 per 1 is BF16 of the
 * oldest writer); a size that fits neither is -EUCLEAN. */
#ifndef APRFS_FORMAT_APR_READ_H
#define APRFS_FORMAT_APR_READ_H

#include "format/apr.h"
#include "format/err.h"
#include "format/json.h"
#include "format/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define APR_TYPE_OWN_Q4 0x1000 /* apr_tensor.type for APR's own quantisations: no GGML id */
#define APR_TYPE_OWN_Q8 0x1001
#define APR_TYPE_OWN_U8 0x1002 /* code 7 of the first writer: unsigned bytes, which GGML lacks */

/* What aprender's own enumeration means by a dtype byte, where GGML's numbers mean something else by it
 * or nothing: an id as apr_tensor.type; UINT32_MAX: nothing. Source: apr-v2.md section 5. */
uint32_t apr_own_type(uint8_t dtype);

struct apr_tensor {
    const char *name; /* NUL-terminated, owned by the handle; -EUCLEAN if the file's holds a NUL */
    uint8_t dtype;    /* the byte in the file */
    uint32_t type;    /* GGML id the bytes are in (quant.h), or APR_TYPE_OWN_* */
    uint32_t n_dim;
    uint64_t dim[APR_MAX_DIMS]; /* outermost first */
    uint64_t off;               /* absolute in the file */
    uint64_t size;
};

struct apr_header {
    uint8_t major, minor;
    uint16_t flags;
    uint32_t n_tensor;
    uint64_t meta_off, index_off, data_off;
    uint32_t meta_size, crc, crc_computed;
};

struct apr;

/* Reads header, metadata and index; checks the header CRC (a stored 0 is reported by
 * apr_header()->crc and accepted: one original writer leaves it 0), flags, order of the index,
 * bounds of every tensor, sizes against shapes. src is lent and must outlive the handle. -EUCLEAN
 * malformed, -ENOTSUP compressed, encrypted, column-major or not version 2. */
int apr_open(struct apr **out, struct source *src, struct err *e);
void apr_close(struct apr *a);

const struct apr_header *apr_header(const struct apr *a);
const cJSON *apr_meta(const struct apr *a);     /* the metadata object, lent */
const char *apr_meta_text(const struct apr *a); /* its text, apr_header()->meta_size bytes */
size_t apr_n_tensor(const struct apr *a);
const struct apr_tensor *apr_tensor(const struct apr *a, size_t i);       /* in index order */
const struct apr_tensor *apr_find(const struct apr *a, const char *name); /* NULL: absent */

/* The original bytes of a tensor that the file also carries transcoded (metadata "aprfs.raw": an
 * array of {"name", "type": GGML id, "offset" from data_offset, "size"}): fills *out (name and shape
 * as t's) and returns true; false: t has no twin, *out is untouched. */
bool apr_raw_twin(const struct apr *a, const struct apr_tensor *t, struct apr_tensor *out);

struct source *apr_source(const struct apr *a); /* lent */

#endif
