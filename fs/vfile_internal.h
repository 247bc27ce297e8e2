/* Between vfile.c (its life: plans, opening, texts), vfile_read.c (its bytes: reading, sending) and
 * vfile_facts.c (what that teaches: checksums, wrong records). */
#ifndef APRFS_FS_VFILE_INTERNAL_H
#define APRFS_FS_VFILE_INTERNAL_H

#include "fs/pinned.h"
#include "fs/vfile.h"

#include <pthread.h>

enum vfile_state {
    VFILE_CLOSED,
    VFILE_OPENING,
    VFILE_OPEN,
};

enum crc_state {
    CRC_UNKNOWN,
    CRC_COMPUTING,
    CRC_KNOWN,
};

struct vfile {
    atomic_int refs;
    struct vfile_env *env;
    uint8_t gen[32];
    uint64_t size, head_len; /* head_len 0: not recorded */
    atomic_uint_least64_t ino;
    atomic_bool stale, doubt;
    pthread_mutex_t mu;
    pthread_cond_t opened;
    struct scan *scan; /* under mu, with store and entry */
    size_t store, entry;
    int only;               /* the part that it shows as it stands; -1: the model */
    enum vfile_state state; /* under mu */
    int n_open;
    bool head_known; /* head_sha: of the head when it was first built */
    uint8_t head_sha[32];
    enum crc_state crc_state; /* under mu; opened tells of a change */
    uint32_t *crc;            /* once known, as struct store_learnt has them; never changed then */
    size_t n_crc;
    /* Made by the first open and kept (if few): the same generation has the same ones. */
    struct vseg *seg; /* VSEG_MEM: p is NULL, src_off counts in the head text, which holds the bytes
                       * of all such segments in order */
    size_t n_seg;
    /* Fixed while it is open. */
    struct source **part;
    int n_part;
    struct pinned *pins;
    struct vcache_item *head;
};

/* What was recorded of the file is wrong: the generation ends, and vfile_teach() tells the next scan.
 * Called with no lock held. */
void vfile_doubt(struct vfile *vf, const char *why);

/* New descriptors, by path, for the parts of an open file, in place of those that failed. */
int vfile_renew(struct vfile *vf, struct err *e);

/* Few plans at once: who makes one is inside. */
void vfile_gate_enter(void);
void vfile_gate_leave(void);

/* Of an open file, between pinned_enter and pinned_leave; off + len <= size. whole: what is around it is not
 * asked for as well. */
int vfile_read_range(struct vfile *vf, void *dst, uint64_t off, size_t len, bool whole,
                     struct err *e);
/* The same of the 4 bytes of a footer. */
int vfile_read_footer(struct vfile *vf, uint8_t *dst, uint64_t at, size_t len, struct err *e);
int vfile_crc_text(struct vfile *vf, const struct store_plan *plan, char **out, size_t *len,
                   struct err *e);

#endif
