/* One generation of one model as a file: its plan while it is open, and reading by that plan.
 *
 * A vfile is made from a scan's entry and costs little until it is opened. The first open pins the
 * parts and takes segments out of the plan; parser and planner are let go again, for a head can be
 * built again at any time, byte for byte (it is checked). The last close unpins. */
#ifndef APRFS_FS_VFILE_H
#define APRFS_FS_VFILE_H

#include "format/err.h"
#include "format/store_set.h"
#include "fs/vcache.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct iovec;
struct pinned;

/* A scan of all sources, shared by all that refer to its entries. */
struct scan {
    struct store_set *set;
    atomic_int refs;
};

struct scan *scan_new(struct store_set *takes); /* NULL: no memory, and the set is freed */
struct scan *scan_get(struct scan *s);
void scan_put(struct scan *s);

struct vfile;

/* What all files of a mount share. */
struct vfile_env {
    struct vcache *texts; /* heads and sibling texts */
    struct vcache *units; /* converted units */
    bool lease;
    /* A generation went stale: called once, from any thread, with no lock held. */
    void (*stale)(void *ctx, struct vfile *vf, const char *why);
    /* There is something for vfile_teach() to tell: from any thread, with no lock held; may be NULL. */
    void (*learnt)(void *ctx);
    void *ctx;
    atomic_uint_least64_t n_open, conv_bytes, file_bytes, mem_bytes, n_renewed;
};

/* A file over an entry of s, of the store with that number; refs 1. env is lent. */
int vfile_new(struct vfile **out, struct vfile_env *env, struct scan *s, size_t store, size_t entry,
              struct err *e);
/* The same of one part as it stands: a .gguf. What is said below of heads and texts does not hold for
 * it; leases, comparisons and what goes stale do. */
int vfile_new_part(struct vfile **out, struct vfile_env *env, struct scan *s, size_t store,
                   size_t entry, int part, struct err *e);
struct vfile *vfile_get(struct vfile *vf);
void vfile_put(struct vfile *vf);

/* The generation of an entry: SHA-256 over head, parts (dev, ino, size, mtime, ctime), options,
 * builder. Without dev, copies of one disk image would be taken for one file. */
void vfile_generation(uint8_t gen[32], const struct store *s, const struct store_entry *en);
/* The generation of one part alone, as a file of its own. */
void vfile_part_generation(uint8_t gen[32], const struct store *s, const struct store_entry *en,
                           int part);
/* The generation and where its parts lie: of the texts that name them. Links to one file share a
 * generation, and have a place each. */
void vfile_place(uint8_t id[32], const uint8_t gen[32], const struct store_entry *en);
const uint8_t *vfile_gen(const struct vfile *vf);
uint64_t vfile_size(const struct vfile *vf);
bool vfile_stale(const struct vfile *vf);
uint64_t vfile_ino(const struct vfile *vf); /* set once by the tree */
void vfile_set_ino(struct vfile *vf, uint64_t ino);

/* A later scan found the same generation: its entry replaces the one kept so far. */
void vfile_rebind(struct vfile *vf, struct scan *s, size_t store, size_t entry);
/* The entry it stands for now, and the store that has it (NULL: not asked for); scan_put of the
 * result ends the use of both. */
struct scan *vfile_entry(struct vfile *vf, const struct store **store,
                         const struct store_entry **en);

/* Where the tree shows it, below the mount: "[top/]publisher/model/stem.apr"; malloc'ed, NULL
 * without memory. Of a part: its source. */
char *vfile_path(struct vfile *vf);

/* -ESTALE: the source is another generation by now (look the name up again). */
int vfile_open(struct vfile *vf, struct err *e);
void vfile_close(struct vfile *vf);

/* [off, off+len) of an open file into dst; *got is len, or less only at the end. Complete or an
 * error: -EIO if the generation is not certain any more. What fails without a lease (a server went away
 * and came back) is read once more, through new descriptors of the same generation. Threads may read at
 * once. */
int vfile_read(struct vfile *vf, void *dst, uint64_t off, size_t len, size_t *got, struct err *e);

/* The same range as pieces for one reply, FILE ranges as addresses of mappings (pinned.h), the head
 * where it lies; scratch (of len bytes at least) takes what is in no memory, and, where these would be more
 * than max pieces, the short ones of them. 1: *n pieces of *got bytes in all; vfile_sent ends that once the
 * reply is out, and the file may be closed meanwhile. 0: not to be had that way (no lease, converted
 * bytes): vfile_read. Else as vfile_read. ahead: the reader goes on behind this range, most likely. */
int vfile_send(struct vfile *vf, uint64_t off, size_t len, bool ahead, struct iovec *iov, int max,
               int *n, size_t *got, void *scratch, struct err *e);
void vfile_sent(struct vfile *vf, size_t got);

/* Of an open file. */
const struct vseg *vfile_seg(const struct vfile *vf, size_t i); /* NULL: past the last */
bool vfile_converts(const struct vfile *vf); /* not every byte is one of head, parts or zeros */
int vfile_n_part(const struct vfile *vf);
struct pinned *vfile_pins(const struct vfile *vf);

/* Looks whether an open file's parts still are what they were. */
void vfile_check(struct vfile *vf);

enum vfile_text {
    VFILE_HEAD,
    VFILE_EXTENTS,
    VFILE_LAYOUT,
    VFILE_TOKENIZER,
    VFILE_CONFIG,
    VFILE_GENERATION,
    VFILE_CRC32, /* "XXXXXXXX NAME" per tensor in index order; -ENODATA until vfile_crc_known() */
};

/* Were the checksums computed, now or by an earlier mount? That is when the footer is first read. */
bool vfile_crc_known(struct vfile *vf);

/* Tells the entry of s that it stands for (if it stands for one of s) what was learnt: checksums, doubt,
 * and ino, the number of its node (struct store_learnt). Only by who scans. True: something new. */
bool vfile_teach(struct vfile *vf, struct scan *s, uint64_t ino);

/* A text made from the file, from the cache or built now; vcache_put(env->texts) ends the use. What its
 * store says of a file (parameters, paths) may change while its bytes do not: id is the identity that the
 * text must have, of a sibling the entry's sibling_sha256, of the extents vfile_place(). -ESTALE: a
 * later scan gave it another one. NULL: whatever it says now. */
int vfile_text(struct vfile *vf, enum vfile_text which, const uint8_t *id, struct vcache_item **out,
               struct err *e);

#endif
