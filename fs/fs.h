/* What the parts of a running mount share. */
#ifndef APRFS_FS_FS_H
#define APRFS_FS_FS_H

#include "fs/counters.h"
#include "fs/options.h"
#include "fs/sandbox.h"
#include "fs/sources.h"
#include "fs/tier.h"
#include "fs/tree.h"
#include "fs/vfile.h"
#include "fs/watch.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

struct broker;
struct fuse_session;
struct handle;
struct index;

struct fs {
    struct options opt;
    struct tree_options tree_opt;
    struct vfile_env env;
    struct nodes *nodes;
    struct watch *watch;
    struct index *index; /* NULL: none; used by who scans */
    struct tiers *tiers;
    char *cache_dir;         /* cache_dir.h; NULL: none, large texts stay in memory */
    const char *compose_dir; /* where tier 1a puts its files; NULL: nowhere. Lent */
    struct fuse_session *se;
    struct sandbox sandbox; /* who writes to a folder, or reads one that is no source, names it by
                               sandbox_allow before the mount */
    struct broker *broker;  /* does what needs privilege (broker.h); NULL before the mount */
    _Atomic double entry_timeout_s, attr_timeout_s;
    atomic_uint_least64_t generation; /* of the last tree that the kernel was told of */
    struct sources sources;           /* real paths */
    pthread_mutex_t handles_mu;
    struct handle *handles; /* all that are open (ops.c) */
    struct counters count;
    /* Counters for stats.txt. */
    atomic_uint_least64_t n_read, n_read_bytes, n_eio, n_stale, n_open_total;
};

/* Entry and attribute timeouts of names that exist; those that do not are asked again after 1 s. */
#define FS_TIMEOUT_S          60.0
#define FS_NEGATIVE_TIMEOUT_S 1.0

#endif
