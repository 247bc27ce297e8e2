/* aprfs' options: one table, read as --name value and as -o name=value. */
#ifndef APRFS_FS_OPTIONS_H
#define APRFS_FS_OPTIONS_H

#include "format/err.h"
#include "format/store.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum option_gguf {
    GGUF_LINK, /* a link to the real file */
    GGUF_FILE, /* its bytes, through the mount: for those who do not follow links */
    GGUF_NONE,
};

enum option_cache {
    CACHE_AUTO,   /* as always, but for programs that copy: as never */
    CACHE_ALWAYS, /* the kernel keeps what was read */
    CACHE_NEVER,  /* every read comes to us; shared mmap since Linux 6.6 */
};

/* Capabilities that a daemon started as root keeps for its reads. */
#define OPTION_CAP_READ     1 /* CAP_DAC_READ_SEARCH: sources that root's own user may not read */
#define OPTION_CAP_LEASE    2 /* CAP_LEASE: leases on files of other users */

#define OPTION_DIRECT_COMMS "cp:dd:cat:rsync:tar:sha256sum:md5sum:b3sum:aprd"

struct options {
    const char *const *source; /* as given, lent from argv, as is mountpoint */
    size_t n_source;
    const char *mountpoint;
    struct store_options store;
    const char *index; /* absolute, or "none"; NULL: the default. Lent from argv */
    unsigned ttl_s;    /* 0: never */
    bool merge;        /* several stores in one tree */
    enum option_gguf gguf;
    enum option_cache cache;
    const char *direct_comms;          /* programs whose opens are direct */
    bool compose_never, compose_asked; /* compose=never, =reflink */
    const char *compose_dir;           /* NULL: the cache folder; "store": beside the source */
    unsigned compose_keep_s;
    bool uid_given, gid_given, umask_given;
    uid_t uid;
    gid_t gid;
    mode_t umask;
    bool allow_other, allow_root, auto_unmount, clean_stale;
    bool sandbox;
    unsigned caps; /* OPTION_CAP_* */
    const char *fsname, *subtype;
    bool foreground, debug, single;
    int ready_fd; /* -1: none */
    bool help, version;
    bool helper; /* called as mount.aprfs: mount(8)'s letters and exit status */
    bool fake;   /* its -f: everything is checked, nothing is mounted */
};

/* Fills *o from the command line; called as mount.aprfs, from mount(8)'s: SOURCE DIR [-fnsv] [-t type]
 * [-o list]. -EINVAL with a message for what is unknown, missing or wrong. o
 * lends from argv, which must stay, and owns nothing. argv's -o lists are cut up in place. */
int options_parse(struct options *o, int argc, char **argv, struct err *e);

void options_help(FILE *f);

#endif
