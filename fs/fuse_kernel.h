/* The kernel's side of FUSE that Debian 12's <linux/fuse.h> (protocol 7.38) does not have, or that
 * libfuse 3.14 keeps to itself. Layouts as in Linux' include/uapi/linux/fuse.h, protocol 7.36 to 7.40;
 * all numbers in the machine's own byte order. Structs are our own names, so that both headers may be
 * included.
 *
 * request   struct fuse_kernel_in_header, then the operation's own
 * reply     struct fuse_kernel_out_header, then the operation's own
 *
 * INIT's request            INIT's reply
 *  0 u32 major               0 u32 major
 *  4 u32 minor               4 u32 minor
 *  8 u32 max_readahead       8 u32 max_readahead
 * 12 u32 flags              12 u32 flags
 * 16 u32 flags2 (7.36)      16 u16 max_background, u16 congestion_threshold
 * 20 u32 unused[11]         20 u32 max_write
 * 64                        24 u32 time_gran
 *                           28 u16 max_pages, u16 map_alignment
 *                           32 u32 flags2 (7.36)
 *                           36 u32 max_stack_depth (7.40)
 *                           40 u32 unused[6]
 *                           64 */
#ifndef APRFS_FS_FUSE_KERNEL_H
#define APRFS_FS_FUSE_KERNEL_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define FUSE_KERNEL_OP_INIT 26
#define FUSE_KERNEL_MAJOR   7

/* Bits of INIT's flags, and of flags2 (bits 32 and up of the 64). */
#define FUSE_KERNEL_INIT_EXT              (UINT32_C(1) << 30) /* 7.36: flags2 counts */
#define FUSE_KERNEL_DIRECT_IO_ALLOW_MMAP2 (UINT32_C(1) << 4)  /* 7.39, Linux 6.6 */
#define FUSE_KERNEL_PASSTHROUGH2          (UINT32_C(1) << 5)  /* 7.40, Linux 6.9 */

/* Bits of open_flags. */
#define FUSE_KERNEL_FOPEN_DIRECT_IO   (UINT32_C(1) << 0)
#define FUSE_KERNEL_FOPEN_KEEP_CACHE  (UINT32_C(1) << 1)
#define FUSE_KERNEL_FOPEN_NOFLUSH     (UINT32_C(1) << 5)
#define FUSE_KERNEL_FOPEN_PASSTHROUGH (UINT32_C(1) << 7)

struct fuse_kernel_in_header {
    uint32_t len;
    uint32_t opcode;
    uint64_t unique;
    uint64_t nodeid;
    uint32_t uid, gid, pid;
    uint16_t total_extlen, padding;
};

struct fuse_kernel_out_header {
    uint32_t len;
    int32_t error;
    uint64_t unique;
};

struct fuse_kernel_init_in {
    uint32_t major, minor;
    uint32_t max_readahead;
    uint32_t flags, flags2;
    uint32_t unused[11];
};

struct fuse_kernel_init_out {
    uint32_t major, minor;
    uint32_t max_readahead;
    uint32_t flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write;
    uint32_t time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2;
    uint32_t max_stack_depth;
    uint32_t unused[6];
};

struct fuse_kernel_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};

struct fuse_backing_map_v1 {
    int32_t fd;
    uint32_t flags; /* 0 */
    uint64_t padding;
};

static_assert(sizeof(struct fuse_kernel_in_header) == 40, "fuse_in_header");
static_assert(sizeof(struct fuse_kernel_out_header) == 16, "fuse_out_header");
static_assert(sizeof(struct fuse_kernel_init_in) == 64, "fuse_init_in");
static_assert(offsetof(struct fuse_kernel_init_in, flags2) == 16, "fuse_init_in.flags2");
static_assert(sizeof(struct fuse_kernel_init_out) == 64, "fuse_init_out");
static_assert(offsetof(struct fuse_kernel_init_out, flags2) == 32, "fuse_init_out.flags2");
static_assert(offsetof(struct fuse_kernel_init_out, max_stack_depth) == 36, "max_stack_depth");
static_assert(sizeof(struct fuse_kernel_open_out) == 16, "fuse_open_out");
static_assert(offsetof(struct fuse_kernel_open_out, backing_id) == 12, "backing_id");
static_assert(sizeof(struct fuse_backing_map_v1) == 16, "fuse_backing_map");

/* On the session's descriptor; each needs CAP_SYS_ADMIN. OPEN gives an id > 0 for a file that the
 * descriptor refers to; CLOSE ends it (open files keep it). */
#ifndef FUSE_DEV_IOC_BACKING_OPEN
#define FUSE_DEV_IOC_BACKING_OPEN  _IOW(229, 1, struct fuse_backing_map_v1)
#define FUSE_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
#endif

/* By hand from the macros of <asm-generic/ioctl.h>: write << 30 | size << 16 | 229 << 8 | number. */
static_assert(FUSE_DEV_IOC_BACKING_OPEN == 0x4010e501, "FUSE_DEV_IOC_BACKING_OPEN");
static_assert(FUSE_DEV_IOC_BACKING_CLOSE == 0x4004e502, "FUSE_DEV_IOC_BACKING_CLOSE");

#endif
