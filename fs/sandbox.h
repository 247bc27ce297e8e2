/* What the daemon takes from itself once it has mounted.
 *
 *   capabilities   none stay but those asked for (caps=): tier 2 needs none, and what needs
 *                  CAP_SYS_ADMIN at every call is the broker's (broker.h)
 *   no_new_privs   always with the rest: the setuid fusermount3 is run by the broker
 *   Landlock       writing only below the folders named here, and making files only where that is said; reading anywhere, or, where links may not
 *                  lead out of the sources (resolve=beneath), only there; no TCP, no abstract sockets
 *   seccomp        the system calls of seccomp.c and no others: no execve, no new process, no socket
 *
 * A refused system call returns EPERM and is logged, once per call. It does not kill: a reader would
 * lose its mount over a call that somebody's libc makes in a corner, and EPERM is handled as any other
 * failure; what must never happen does not happen either way. The tests treat the log line as a failure.
 *
 * Where the kernel or the build lacks a part, the rest is done and the text says what is missing. */
#ifndef APRFS_FS_SANDBOX_H
#define APRFS_FS_SANDBOX_H

#include "format/err.h"

#include <stdbool.h>
#include <stddef.h>

enum sandbox_use {
    SANDBOX_READ, /* a source, the mount itself */
    SANDBOX_TEMP, /* unnamed files (O_TMPFILE) may be made in it, no named ones; existing ones can be
                      written to: Landlock knows both as WRITE_FILE below a folder */
    SANDBOX_WRITE, /* files and folders may be made, written, renamed and removed below it */
};

struct sandbox_dir {
    char *path; /* owned */
    enum sandbox_use use;
};

struct sandbox {
    struct sandbox_dir *dir; /* owned; as many as there are SOURCEs and more */
    size_t n_dir;
    bool on;                 /* seccomp, Landlock, no_new_privs; capabilities go in any case */
    bool read_anywhere;      /* links may lead out of the sources */
    unsigned long long keep; /* capabilities that stay */
    char text[512];          /* what was done and what not, for status.txt and the log */
};

/* Names a folder for sandbox_enter, which passes over one that does not exist then. -ENOMEM. */
int sandbox_allow(struct sandbox *s, enum sandbox_use use, const char *dir);
void sandbox_release(struct sandbox *s);

/* Capabilities by number (CAP_*), as bits 1 << number. Takes all others out of the effective set, and,
 * if for_good, out of the permitted and inheritable ones (the bounding set matters to execve only, which
 * no_new_privs and the filter refuse). Those that are not there stay absent. */
int sandbox_keep_caps(unsigned long long keep, bool for_good, struct err *e);
bool sandbox_has_cap(int cap); /* effective */

/* Restricts the calling thread and all it starts from now on; call it while there is no other. Only what
 * fails in a way that the kernel does not promise is an error. */
int sandbox_enter(struct sandbox *s, struct err *e);

/* For the broker, which goes on with its two descriptors: a filter of its own. Without CAP_SYS_ADMIN it
 * runs a setuid program to unmount, so there is none. */
void sandbox_enter_broker(void);

/* --- seccomp.c --- */
bool seccomp_built_in(void); /* was libseccomp found by the build? */
/* The daemon's filter, the broker's. 0, -ENOTSUP (not built in, or not this kernel) or what the kernel
 * says. *n: system calls allowed. */
int seccomp_enter(int *n);
int seccomp_enter_broker(void);

#endif
