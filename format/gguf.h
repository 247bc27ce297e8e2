/* GGUF reader: header, keys, tensor directory; versions 2 and 3, little-endian; one file or shards.
 *
 *   offset  size  field            (source: ggml/docs/gguf.md; llama.cpp ggml/src/gguf.cpp)
 *   0       4     magic "GGUF"
 *   4       4     u32 version
 *   8       8     u64 n_tensors
 *   16      8     u64 n_kv
 *   24      ...   n_kv times: string key, u32 type, value
 *                 string = u64 length + bytes; array = u32 element type, u64 n, elements (may nest)
 *           ...   n_tensors times: string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset
 *           pad   to a multiple of general.alignment (u32, a power of two >= 8, default 32)
 *           ...   tensor data; offsets count from here
 *
 * Strings and arrays point into the head, which the handle holds in memory; tensor data is never
 * read here. Nothing is allocated from a count that the rest of the file could not hold. ne[0] is
 * the innermost dimension (a row's length): the reverse of APR's shapes.
 *
 * Errors: -EUCLEAN malformed; -ENOTSUP another version, byte order or an unknown tensor type;
 * -ERANGE over a limit below; -EAGAIN the file ends inside its head or before its last tensor does
 * ("needs N bytes, has M": it may still be arriving). Messages begin with the source's name and
 * name the key or tensor. */
#ifndef APRFS_FORMAT_GGUF_H
#define APRFS_FORMAT_GGUF_H

#include "format/err.h"
#include "format/source.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GGUF_MAX_DIMS    4
#define GGUF_MAX_HEAD    (UINT64_C(256) << 20) /* bytes before the tensor data, of all parts */
#define GGUF_MAX_KEYS    65536
#define GGUF_MAX_TENSORS (1 << 20) /* of all parts */
#define GGUF_MAX_NAME    65535     /* bytes of a key's or tensor's name */
#define GGUF_MAX_NESTING 8         /* arrays within arrays */
#define GGUF_MAX_ALIGN   (1 << 24)
#define GGUF_MAX_PARTS   1024

enum gguf_type {
    GGUF_U8 = 0,
    GGUF_I8 = 1,
    GGUF_U16 = 2,
    GGUF_I16 = 3,
    GGUF_U32 = 4,
    GGUF_I32 = 5,
    GGUF_F32 = 6,
    GGUF_BOOL = 7,
    GGUF_STRING = 8,
    GGUF_ARRAY = 9,
    GGUF_U64 = 10,
    GGUF_I64 = 11,
    GGUF_F64 = 12,
};

struct gguf_str {
    const char *p; /* not NUL-terminated; may hold any byte */
    size_t len;
};

/* A key's value in place. Scalars: data points at the little-endian value. Strings: data at the
 * bytes, data_len long. Arrays: data at the first element, data_len all elements' bytes. */
struct gguf_key {
    struct gguf_str name;
    enum gguf_type type;
    enum gguf_type elem; /* arrays: the elements' type */
    uint64_t n;          /* arrays: number of elements; else 1 */
    const uint8_t *data;
    size_t data_len;
};

struct gguf_tensor {
    struct gguf_str name;
    uint32_t n_dim;
    uint64_t ne[GGUF_MAX_DIMS]; /* unused ones are 1 */
    uint32_t type;              /* GGML id, known to quant_type() */
    int part;                   /* which file */
    uint64_t off;               /* absolute in its file */
    uint64_t size;              /* bytes, without padding */
};

struct gguf;

/* Parses parts[0..n_part). More than one: shards in order; keys come from shard 0; split.no,
 * split.count and split.tensors.count must agree with what is given, no tensor may come twice.
 * Fewer parts than split.count says is -ENOENT, naming the missing shard. The sources are lent and
 * must outlive the handle. Checked: names unique, not empty and without NUL, types known, no
 * dimension 0, every tensor inside its file, offsets multiples of the alignment, rows whole blocks,
 * no two tensors of a file sharing a byte (they may stand in any order, with gaps). */
int gguf_open(struct gguf **out, struct source *const *parts, int n_part, struct err *e);

/* Opens a path and, if its name ends in -0000K-of-0000N.gguf, all its siblings; owns the sources. */
int gguf_open_path(struct gguf **out, const char *path, struct err *e);

void gguf_close(struct gguf *g);

/* split.no and split.count of one file, which may be any shard; *count 0: it has no such keys. Fails
 * where its head is malformed. src is lent. */
int gguf_read_split(const struct source *src, uint64_t *no, uint64_t *count, struct err *e);

/* "dir/m-00002-of-00003.gguf": *no = 1 (from 0), *count = 3, *prefix_len = strlen("dir/m"); false if
 * the name's last path component is not a shard's (five digits each, 1 <= K <= N, m not empty). */
bool gguf_shard_name(const char *name, uint32_t *no, uint32_t *count, size_t *prefix_len);

uint32_t gguf_version(const struct gguf *g);
int gguf_n_part(const struct gguf *g);
struct source *gguf_part(const struct gguf *g, int part); /* lent */
uint64_t gguf_data_start(const struct gguf *g, int part); /* absolute, aligned */
/* End of its last tensor; = gguf_data_start if it has none, which may then lie past the file. */
uint64_t gguf_data_end(const struct gguf *g, int part);
uint32_t gguf_alignment(const struct gguf *g); /* of part 0 */
/* The file's first bytes up to the end of the tensor directory, without the padding behind it. */
const uint8_t *gguf_head(const struct gguf *g, int part, size_t *len);

size_t gguf_n_key(const struct gguf *g);
const struct gguf_key *gguf_key(const struct gguf *g, size_t i); /* in file order, part 0 */
const struct gguf_key *gguf_find(const struct gguf *g, const char *name); /* NULL: absent */

size_t gguf_n_tensor(const struct gguf *g);
const struct gguf_tensor *gguf_tensor(const struct gguf *g,
                                      size_t i); /* part by part, file order */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);

/* Typed views; false: absent (k NULL) or of another kind or out of range. Integers accept every
 * integer type (and no float, no bool); floats accept F32 and F64 and every integer type. */
bool gguf_as_u64(const struct gguf_key *k, uint64_t *v);
bool gguf_as_i64(const struct gguf_key *k, int64_t *v);
bool gguf_as_f64(const struct gguf_key *k, double *v);
bool gguf_as_bool(const struct gguf_key *k, bool *v);
bool gguf_as_str(const struct gguf_key *k, struct gguf_str *v);

/* Elements of an array of scalars by number, i < k->n; the same rules. */
bool gguf_elem_u64(const struct gguf_key *k, uint64_t i, uint64_t *v);
bool gguf_elem_i64(const struct gguf_key *k, uint64_t i, int64_t *v);
bool gguf_elem_f64(const struct gguf_key *k, uint64_t i, double *v);
bool gguf_elem_bool(const struct gguf_key *k, uint64_t i, bool *v);

/* "u8", "str", "arr", ...; by name: -1 if unknown. */
const char *gguf_type_name(enum gguf_type t);
int gguf_type_parse(const char *s);

/* Walks any array in order: start with *pos = 0; each call gives the next element as a key without
 * a name (nested arrays included) and returns true, or false at the end. */
bool gguf_next_elem(const struct gguf_key *array, size_t *pos, struct gguf_key *elem);

bool gguf_str_eq(struct gguf_str s, const char *lit);

#endif
