/* What a scan knows, as bytes: written to a file, it lets the next start parse nothing twice.
 *
 * It says what the headers of unchanged files say and nothing else: it is given to store_scan() as
 * prev, which believes a record only where every part's path and generation are still the same.
 * Little endian; the areas follow each other without gaps and fill the whole:
 *
 *   header, 64 bytes
 *     0  "APRFSIX1"
 *     8  u32 schema (STORE_INDEX_SCHEMA)
 *    12  u32 VAPR_BUILDER
 *    16  u64 digest of the options: the first 8 bytes of a SHA-256
 *    24  u32 records
 *    28  u32 CRC-32 of all that follows
 *    32  u32 parts          36  u32 bytes of texts
 *    40  i64 written, Unix seconds
 *    48  u32 checksums      52  zeros
 *   records, 152 bytes each
 *     0  u32 parts           4  u32 aliases        8  u32 enum store_kind   12  u32 enum store_role
 *    16  i32 rc             20  i32 tokenizer_rc  24  u64 n_params          32  u64 n_ctx_train
 *    40  u64 src_size       48  u64 size         56  i64 seen, Unix seconds
 *    64  head_sha256        96  sibling_sha256
 *   128  u64 head_len      136  u64 ino         144  u32 checksums         148  i32 generation_rc
 *   parts, 48 bytes each, in the records' order
 *     0  u64 dev   8  u64 ino   16  u64 size   24  i64 mtime_ns   32  i64 ctime_ns
 *    40  u32 enum store_how    44  u32 zero
 *   checksums, u32 each, in the records' order
 *   texts, each ending with a NUL: the root; then per record publisher, model, stem, wish, order,
 *     called, revision, params, why, warning, arch, quant, tokenizer_why, generation_why, its aliases,
 *     and per part path and sha256
 *
 * Texts have no offsets: they are taken one after the other, so that nothing can point outside or
 * make a small file large in memory. */
#ifndef APRFS_FORMAT_STORE_INDEX_H
#define APRFS_FORMAT_STORE_INDEX_H

#include "format/err.h"
#include "format/store.h"

#include <stddef.h>
#include <stdint.h>

#define STORE_INDEX_SCHEMA                                                                         \
    4 /* raised with this layout, and when the same header gives other facts */
#define STORE_INDEX_MAX    (64u << 20)          /* bytes */
#define STORE_INDEX_KEEP_S (30 * 24 * 60 * 60L) /* a record that no scan has met for so long goes */

struct store_index {
    struct store *store; /* only what a scan wants of prev: root, opt and entries, those that were
                          * merged into others among them; no problems, no folders */
    int64_t *seen_s;     /* per entry */
};

/* The records of s, and those of old (may be NULL; same root and options) that s does not have and
 * that were seen less than STORE_INDEX_KEEP_S before now_s. *out: *n bytes, the caller's to free.
 * -EFBIG past STORE_INDEX_MAX; -ENOMEM. */
int store_index_write(uint8_t **out, size_t *n, const struct store *s,
                      const struct store_index *old, int64_t now_s, struct err *e);

/* Reads it back; p is lent for the call. Which root it is of is out->store->root: store_scan() takes
 * nothing from a store with another. -ESTALE: made with other options or by another version.
 * -EUCLEAN: damaged, saying where. Either way it is to be made anew. -ENOMEM. */
int store_index_read(struct store_index *out, const void *p, size_t n,
                     const struct store_options *opt, struct err *e);

/* Records of what store_index_write() made. */
size_t store_index_count(const uint8_t *p);

void store_index_release(struct store_index *ix);

#endif
