/* Pinned parts: the source files of one open generation, and the proof that they still are it.
 *
 * A generation is (dev, ino, size, mtime, ctime) of every part, as the plan was made from it. Two
 * guards keep a reader from ever seeing a mix of two contents:
 *   check  fstat of every part before and after each read
 *   lease  F_RDLCK where the kernel grants it: a writer's open or truncate blocks until this
 *          generation is marked stale and the reads in flight have ended
 * What a difference means:
 *   size or mtime differs                     stale
 *   only ctime differs, a lease stands        metadata only (chmod, rename, link, unlink): accepted,
 *                                             since no content can change under an unbroken lease
 *   only ctime differs, no lease, and the     link() or unlink() explains it (a file deleted, or
 *   link count differs too                    replaced by rename, reads on to its end): accepted
 *   only ctime differs, nothing explains it   stale: a write whose mtime was put back looks the same
 * What is accepted becomes the new record. Stale is for ever: every later read is -EIO. */
#ifndef APRFS_FS_PINNED_H
#define APRFS_FS_PINNED_H

#include "format/err.h"
#include "format/source.h"

#include <stdbool.h>
#include <stdint.h>

struct pinned;

/* Called once when a set goes stale, from whichever thread saw it, with no lock held. */
typedef void pinned_stale_fn(void *ctx, const char *why);

/* Pins n parts (sources over descriptors, lent until the last pinned_put). lease: try for leases;
 * -EAGAIN if some part is open for writing elsewhere. -ESTALE if a part is not what it was when the
 * source was opened. */
int pinned_new(struct pinned **out, struct source *const *part, int n, bool lease,
               pinned_stale_fn *stale, void *ctx, struct err *e);

/* Ends a set: no lease break refers to it once this returns. Nobody may be inside a read. */
void pinned_free(struct pinned *p);

/* Around each read: 0, or -EIO (stale, or a part cannot be asked). After a failed enter there is no
 * leave. What was read counts only if leave returned 0. */
int pinned_enter(struct pinned *p, struct err *e);
int pinned_leave(struct pinned *p, struct err *e);

/* Around a reply whose bytes the kernel copies out of pinned_map itself: they have left before they
 * could be checked, so only a lease will do. With one on every part no writer gets in before
 * pinned_leave_sent: a break marks the set stale, waits for these replies as for all reads, and, if
 * one lasts longer (a slow disk), takes the mapping from under it, so that it ends with EFAULT at
 * the next page and not with other bytes; only then is the writer let in. 1; 0: no lease stands, or a
 * writer waits already, use pinned_enter and copy; -EIO: stale. n: bytes sent; each 8 GiB of them, the
 * mappings' page tables are given back. */
int pinned_enter_sent(struct pinned *p, struct err *e);
void pinned_leave_sent(struct pinned *p, uint64_t n);
/* A part's bytes as the kernel sees them, made at the first call, gone with the set; NULL: none to be
 * had (any more). Not to be read here: a truncated file is SIGBUS in user space, EFAULT in the kernel. */
const uint8_t *pinned_map(struct pinned *p, int part);

/* Looks at every part now: the watch saw something happen. */
int pinned_check(struct pinned *p, struct err *e);

/* Puts fd, which stays the caller's, in place of a part's descriptor, whose server may have forgotten it.
 * -ESTALE: it is not what was pinned. -EBUSY: there are leases, so no server. Reads in flight go on with the
 * one they have. */
int pinned_renew(struct pinned *p, int part, int fd, struct err *e);

bool pinned_stale(const struct pinned *p);
bool pinned_leased(const struct pinned *p);
int pinned_fd(const struct pinned *p, int part);
uint64_t pinned_dev(const struct pinned *p, int part);

/* True if somebody has the file open for writing, as far as a lease can tell. */
bool pinned_has_writer(int fd);

/* Lease breaks. The signal pinned_lease_signal() and SIGIO are to be blocked in every thread and
 * read through a signalfd; each goes to pinned_lease_broken with ssi_fd (SIGIO, which says that
 * the queue overflowed: with -1, which looks at every lease). It marks the set stale, waits at most
 * 500 ms for the reads in flight (for replies from mappings until they have ended, see above, or the
 * kernel is about to let the writer in by itself: /proc/sys/fs/lease-break-time), and lets the writer
 * go. */
int pinned_lease_signal(void);
void pinned_lease_broken(int fd);
uint64_t pinned_n_breaks(void);
void pinned_set_break_time(unsigned seconds); /* for tests: instead of that file's */

#endif
