/* aprfs' options: one table, read as --name value and as -o name=value. */
#ifndef APRFS_FS_OPTIONS_H
#define APRFS_FS_OPTIONS_H

#include "format/err.h"
#include "format/store.h"

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

enum option_cache {
    CACHE_AUTO,   /* as always, in this version */
    CACHE_ALWAYS, /* the kernel keeps what was read */
    CACHE_NEVER,  /* every read comes to us; no shared mmap */
};

struct options {
    const char *source, *mountpoint; /* as given, lent from argv */
    struct store_options store;
    unsigned ttl_s; /* 0: never */
    bool links;     /* gguf=link */
    enum option_cache cache;
    bool uid_given, gid_given, umask_given;
    uid_t uid;
    gid_t gid;
    mode_t umask;
    bool allow_other, allow_root, auto_unmount;
    const char *fsname, *subtype;
    bool foreground, debug, single;
    int ready_fd; /* -1: none */
    bool help, version;
};

/* Fills *o from the command line. -EINVAL with a message for what is unknown, missing or wrong. o
 * lends from argv, which must stay, and owns nothing. argv's -o lists are cut up in place. */
int options_parse(struct options *o, int argc, char **argv, struct err *e);

void options_help(FILE *f);

#endif
