/* Options: see options.h. The table below is what -h prints and what both spellings are read by. */
#include "fs/options.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum option_id {
    OPT_AS = 256,
    OPT_PROFILE,
    OPT_FOOTER,
    OPT_VALUES,
    OPT_STORE,
    OPT_REVISIONS,
    OPT_RESOLVE,
    OPT_CHAT_HINT,
    OPT_MERGE,
    OPT_GGUF,
    OPT_TTL,
    OPT_INDEX,
    OPT_CACHE,
    OPT_DIRECT_COMMS,
    OPT_COMPOSE,
    OPT_COMPOSE_DIR,
    OPT_COMPOSE_KEEP,
    OPT_UID,
    OPT_GID,
    OPT_UMASK,
    OPT_ALLOW_OTHER,
    OPT_ALLOW_ROOT,
    OPT_AUTO_UNMOUNT,
    OPT_CLEAN_STALE,
    OPT_SANDBOX,
    OPT_CAPS,
    OPT_FSNAME,
    OPT_SUBTYPE,
    OPT_READY_FD,
    OPT_VERSION,
    OPT_IGNORED,
};

struct option_row {
    const char *name;
    const char *arg; /* NULL: takes no value */
    int id;
    const char *help;
    bool command_line_only;
};

static const struct option_row table[] = {
    {"as", "apr|gguf", OPT_AS, "apr: show .gguf files as .apr; gguf: a folder of .apr as .gguf",
     false},
    {"profile", "engine|native|strict", OPT_PROFILE,
     "engine: what the Rust engine reads right; native:\n"
     "every type as it is; strict: what all readers take",
     false},
    {"values", "reference|compat", OPT_VALUES,
     "reference: llama.cpp's values; compat: the Rust table's", false},
    {"footer", "none|crc", OPT_FOOTER,
     "crc: a checksum behind the tensors, as the original\n"
     "writers put there; the first read of it reads the\n"
     "whole file (tier 2 until then). No reader reads it",
     false},
    {"store", "auto|hf|ollama|lmstudio|llamacpp|plain", OPT_STORE, "layout of STORE", false},
    {"revisions", "main|all", OPT_REVISIONS, "hub cache: the snapshot of refs/main, or every one",
     false},
    {"resolve", "any|beneath", OPT_RESOLVE, "beneath: refuse links that leave STORE", false},
    {"chat_hint", NULL, OPT_CHAT_HINT, "append -Instruct to a stem that lacks it (off)", false},
    {"merge", NULL, OPT_MERGE, "several STOREs in one tree, without a folder of each (off)", false},
    {"gguf", "link|file|none", OPT_GGUF,
     "show a link to each real .gguf, its bytes as a file,\nor nothing", false},
    {"ttl", "30", OPT_TTL, "seconds between looks at a store without inotify; 0: never", false},
    {"index", "DIR|none", OPT_INDEX,
     "where it is kept what headers said, for the next\nstart ($CACHE_DIRECTORY, ~/.cache/aprfs)",
     false},
    {"cache", "auto|always|never", OPT_CACHE,
     "whether the kernel keeps what was read through us;\nauto: not for the programs of "
     "direct_comms",
     false},
    {"direct_comms", OPTION_DIRECT_COMMS, OPT_DIRECT_COMMS, "programs that only copy", false},
    {"compose", "auto|reflink|never", OPT_COMPOSE,
     "let the kernel read files composed by reflink (XFS,\nbtrfs; root, Linux 6.9); reflink: say "
     "if it cannot",
     false},
    {"compose_dir", "DIR|store", OPT_COMPOSE_DIR,
     "where those are made, unnamed (the cache folder);\nstore: beside each source", false},
    {"compose_keep", "60", OPT_COMPOSE_KEEP, "seconds that one stays after its last close", false},
    {"uid", "N", OPT_UID, "owner shown (the mounting user)", false},
    {"gid", "N", OPT_GID, "group shown (the mounting user's)", false},
    {"umask", "0222", OPT_UMASK, "permissions taken away, octal; writing always is", false},
    {"allow_other", NULL, OPT_ALLOW_OTHER, "other users may enter (off)", false},
    {"allow_root", NULL, OPT_ALLOW_ROOT, "root may enter (off)", false},
    {"auto_unmount", NULL, OPT_AUTO_UNMOUNT, "unmount when aprfs dies (off)", false},
    {"clean_stale", NULL, OPT_CLEAN_STALE, "first unmount what a dead aprfs left on DIR (off)",
     false},
    {"sandbox", "on|off", OPT_SANDBOX, "once mounted, refuse itself what it does not need", false},
    {"caps", "none|read|lease|read+lease", OPT_CAPS,
     "what root keeps: to read what others hide, to take\nleases on their files", false},
    {"fsname", "STORE", OPT_FSNAME, "first column of df", false},
    {"subtype", "aprfs", OPT_SUBTYPE, "type is fuse.<subtype>", false},
    {"foreground", NULL, 'f', "stay in the foreground, log to stderr", true},
    {"debug", NULL, 'd', "foreground, and print every request", true},
    {"single", NULL, 's', "one thread", true},
    {"ready-fd", "N", OPT_READY_FD, "write READY and a newline to descriptor N once mounted", true},
    {"help", NULL, 'h', "this text", true},
    {"version", NULL, OPT_VERSION, "name and version", true},
};

#define N_ROW (sizeof table / sizeof table[0])

/* mount(8) passes these; the mount is always ro,nosuid,nodev. */
static const char *const tolerated[] = {
    "defaults", "async",    "rw",         "ro",          "dev",   "suid",     "exec",
    "nodev",    "nosuid",   "noexec",     "noatime",     "atime", "relatime", "auto",
    "noauto",   "user",     "users",      "nouser",      "owner", "group",    "nofail",
    "_netdev",  "diratime", "nodiratime", "strictatime",
};

static const char *lookup_word(const char *const *words, size_t n, const char *v)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(words[i], v) == 0)
            return words[i];
    return NULL;
}

static int bad_value(const struct option_row *r, const char *v, struct err *e)
{
    return err_set(e, -EINVAL, "%s=%s: expected %s", r->name, v, r->arg);
}

static int parse_number(const struct option_row *r, const char *v, int base, unsigned long max,
                        unsigned long *out, struct err *e)
{
    char *end;
    errno = 0;
    *out = strtoul(v, &end, base);
    if (errno || end == v || *end || *v == '-' || *v == '+' || *out > max)
        return err_set(e, -EINVAL,
                       base == 8 ? "%s=%s: expected an octal number up to %04lo"
                                 : "%s=%s: expected a number up to %lu",
                       r->name, v, max);
    return 0;
}

/* One of two or three words: its number, or -EINVAL. */
static int parse_word(const struct option_row *r, const char *v, const char *const *words, size_t n,
                      struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(v, words[i]) == 0)
            return (int)i;
    return bad_value(r, v, e);
}

#define WORD(...)                                                                                  \
    parse_word(r, v, (const char *const[]){__VA_ARGS__},                                           \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *), e)

static int apply_layout(struct options *o, const struct option_row *r, const char *v, struct err *e)
{
    int rc = 0;
    switch (r->id) {
    case OPT_AS:
        rc = WORD("apr", "gguf");
        o->store.view = rc == 1 ? STORE_VIEW_GGUF : STORE_VIEW_APR;
        break;
    case OPT_PROFILE:
        return vapr_profile_parse(v, &o->store.vapr.profile) ? 0 : bad_value(r, v, e);
    case OPT_FOOTER:
        rc = WORD("none", "crc");
        o->store.vapr.footer = rc == 1 ? VAPR_FOOTER_CRC : VAPR_FOOTER_NONE;
        break;
    case OPT_VALUES:
        rc = WORD("reference", "compat");
        o->store.vapr.values = rc == 1 ? VAPR_VALUES_COMPAT : VAPR_VALUES_REFERENCE;
        break;
    case OPT_STORE:
        return store_kind_parse(v, &o->store.kind) ? 0 : bad_value(r, v, e);
    case OPT_REVISIONS:
        rc = WORD("main", "all");
        o->store.all_revisions = rc == 1;
        break;
    case OPT_RESOLVE:
        rc = WORD("any", "beneath");
        o->store.resolve = rc == 1 ? STORE_RESOLVE_BENEATH : STORE_RESOLVE_ANY;
        break;
    case OPT_CHAT_HINT:
        o->store.chat_hint = true;
        break;
    case OPT_MERGE:
        o->merge = true;
        break;
    case OPT_GGUF:
        rc = WORD("link", "file", "none");
        o->gguf = rc < 0 ? GGUF_LINK : (enum option_gguf)rc;
        break;
    case OPT_COMPOSE:
        if (strcmp(v, "erofs") == 0)
            return err_set(e, -EINVAL, "compose=erofs: not in this version");
        rc = WORD("auto", "reflink", "never");
        o->compose_asked = rc == 1;
        o->compose_never = rc == 2;
        break;
    case OPT_CACHE:
        rc = WORD("auto", "always", "never");
        o->cache = rc < 0 ? CACHE_AUTO : (enum option_cache)rc;
        break;
    }
    return rc < 0 ? rc : 0;
}

static int apply_mount(struct options *o, const struct option_row *r, const char *v, struct err *e)
{
    unsigned long n = 0;
    int rc = 0;
    switch (r->id) {
    case OPT_TTL:
        rc = parse_number(r, v, 10, 86400, &n, e);
        o->ttl_s = (unsigned)n;
        return rc;
    case OPT_COMPOSE_KEEP:
        rc = parse_number(r, v, 10, 86400, &n, e);
        o->compose_keep_s = (unsigned)n;
        return rc;
    case OPT_COMPOSE_DIR:
        if (*v != '/' && strcmp(v, "store") != 0)
            return bad_value(r, v, e);
        o->compose_dir = v;
        return 0;
    case OPT_DIRECT_COMMS:
        o->direct_comms = v;
        return 0;
    case OPT_INDEX:
        if (*v != '/' && strcmp(v, "none") != 0)
            return err_set(e, -EINVAL, "index=%s: expected an absolute path or none", v);
        o->index = v;
        return 0;
    case OPT_UID:
        rc = parse_number(r, v, 10, UINT_MAX - 1, &n, e);
        o->uid = (uid_t)n;
        o->uid_given = true;
        return rc;
    case OPT_GID:
        rc = parse_number(r, v, 10, UINT_MAX - 1, &n, e);
        o->gid = (gid_t)n;
        o->gid_given = true;
        return rc;
    case OPT_UMASK:
        rc = parse_number(r, v, 8, 0777, &n, e);
        o->umask = (mode_t)n;
        o->umask_given = true;
        return rc;
    case OPT_READY_FD:
        rc = parse_number(r, v, 10, INT_MAX, &n, e);
        o->ready_fd = (int)n;
        return rc;
    case OPT_ALLOW_OTHER:
        o->allow_other = true;
        return 0;
    case OPT_ALLOW_ROOT:
        o->allow_root = true;
        return 0;
    case OPT_AUTO_UNMOUNT:
        o->auto_unmount = true;
        return 0;
    case OPT_CLEAN_STALE:
        o->clean_stale = true;
        return 0;
    case OPT_SANDBOX:
        rc = WORD("on", "off");
        o->sandbox = rc == 0;
        return rc < 0 ? rc : 0;
    case OPT_CAPS:
        rc = WORD("none", "read", "lease", "read+lease");
        o->caps = rc < 0 ? 0 : (unsigned)rc; /* the words' order is the bits' */
        return rc < 0 ? rc : 0;
    case OPT_FSNAME:
        o->fsname = v;
        return 0;
    case OPT_SUBTYPE:
        o->subtype = v;
        return 0;
    }
    return apply_layout(o, r, v, e);
}

static int apply(struct options *o, int id, const char *v, struct err *e)
{
    switch (id) {
    case 'f':
        o->foreground = true;
        return 0;
    case 'd':
        o->debug = o->foreground = true;
        return 0;
    case 's':
        o->single = true;
        return 0;
    case 'h':
        o->help = true;
        return 0;
    case OPT_VERSION:
        o->version = true;
        return 0;
    }
    for (size_t i = 0; i < N_ROW; i++)
        if (table[i].id == id)
            return apply_mount(o, &table[i], v, e);
    return err_set(e, -EINVAL, "option %d", id);
}

/* One word of an -o list. */
static int apply_word(struct options *o, char *word, bool sloppy, struct err *e)
{
    char *v = strchr(word, '=');
    size_t n = v ? (size_t)(v - word) : strlen(word);
    if (strncmp(word, "x-", 2) == 0 || strncmp(word, "comment=", 8) == 0 ||
        lookup_word(tolerated, sizeof tolerated / sizeof tolerated[0], word))
        return 0;
    for (size_t i = 0; i < N_ROW; i++) {
        const struct option_row *r = &table[i];
        if (r->command_line_only || strlen(r->name) != n || strncmp(r->name, word, n) != 0)
            continue;
        if (r->arg && !v)
            return err_set(e, -EINVAL, "option '%s' needs a value: %s=%s", r->name, r->name,
                           r->arg);
        if (!r->arg && v)
            return err_set(e, -EINVAL, "option '%s' takes no value", r->name);
        return apply(o, r->id, v ? v + 1 : NULL, e);
    }
    if (n == 8 && strncmp(word, "io_uring", n) == 0)
        return err_set(e, -EINVAL, "io_uring: not in this version");
    return sloppy ? 0 : err_set(e, -EINVAL, "unknown option '%s'", word);
}

/* Cuts an -o list at commas that no backslash stands before, in place. */
static int apply_list(struct options *o, char *list, bool sloppy, struct err *e)
{
    while (list) {
        char *w = list, *d = list, *p = list;
        for (; *p && *p != ','; p++) {
            if (*p == '\\' && p[1])
                p++;
            *d++ = *p;
        }
        list = *p ? p + 1 : NULL;
        *d = '\0';
        int rc = *w ? apply_word(o, w, sloppy, e) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int check(struct options *o, int n_left, char **left, struct err *e)
{
    if (o->help || o->version)
        return 0;
    if (n_left < 2)
        return err_set(e, -EINVAL, "STORE and DIR are needed; usage: aprfs [options] STORE... DIR");
    if (n_left > 2 && o->helper)
        return err_set(e, -EINVAL, "one SOURCE and one DIR are taken as mount.aprfs");
    if (o->allow_other && o->allow_root)
        return err_set(e, -EINVAL, "allow_other and allow_root exclude each other");
    const struct vapr_options *v = &o->store.vapr;
    const char *idle = v->profile != VAPR_ENGINE            ? "profile="
                       : v->footer != VAPR_FOOTER_NONE      ? "footer="
                       : v->values != VAPR_VALUES_REFERENCE ? "values="
                       : o->gguf != GGUF_LINK               ? "gguf="
                                                            : NULL;
    if (o->store.view == STORE_VIEW_GGUF && idle)
        return err_set(e, -EINVAL, "%s is about .apr files and says nothing with as=gguf", idle);
    o->source = (const char *const *)left;
    o->n_source = (size_t)n_left - 1;
    o->mountpoint = left[n_left - 1];
    return 0;
}

/* mount(8)'s call of a helper: SOURCE DIR [-fnsv] [-N namespace] [-t type] [-o list]. -s may come after
 * the list that it is about, so the lists are looked at last. */
static int parse_helper(struct options *o, int argc, char **argv, struct err *e)
{
    char **list = calloc((size_t)argc, sizeof *list);
    int c, n_list = 0, rc = list ? 0 : err_set(e, -ENOMEM, "no memory for the options");
    bool sloppy = false;
    while (rc == 0 && (c = getopt(argc, argv, ":fnsvVhN:o:t:")) != -1) {
        switch (c) {
        case 'f':
            o->fake = true;
            break;
        case 's':
            sloppy = true;
            break;
        case 'o':
            list[n_list++] = optarg;
            break;
        case 'V':
            o->version = true;
            break;
        case 'h':
            o->help = true;
            break;
        case 'N':
            rc = err_set(e, -EINVAL, "-N %s: mounting in another name space is not possible",
                         optarg);
            break;
        case '?':
            rc = err_set(e, -EINVAL, "unknown option '-%c'", optopt);
            break;
        case ':':
            rc = err_set(e, -EINVAL, "option '-%c' needs a value", optopt);
            break;
        } /* -n, -v and -t say nothing to us */
    }
    for (int i = 0; rc == 0 && i < n_list; i++)
        rc = apply_list(o, list[i], sloppy, e);
    free(list);
    return rc;
}

static int parse_own(struct options *o, int argc, char **argv, struct err *e)
{
    struct option longs[N_ROW + 1];
    memset(longs, 0, sizeof longs);
    for (size_t i = 0; i < N_ROW; i++)
        longs[i] = (struct option){.name = table[i].name,
                                   .has_arg = table[i].arg ? required_argument : no_argument,
                                   .val = table[i].id};
    for (;;) {
        int c = getopt_long(argc, argv, ":fdsho:V", longs, NULL);
        int rc = 0;
        if (c == -1)
            break;
        if (c == '?')
            rc = optopt && optopt < 256
                     ? err_set(e, -EINVAL, "unknown option '-%c'", optopt)
                     : err_set(e, -EINVAL, "unknown option '%s'", argv[optind - 1]);
        else if (c == ':')
            rc = err_set(e, -EINVAL, "option '%s' needs a value", argv[optind - 1]);
        else if (c == 'o')
            rc = apply_list(o, optarg, false, e);
        else
            rc = apply(o, c == 'V' ? OPT_VERSION : c, optarg, e);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int options_parse(struct options *o, int argc, char **argv, struct err *e)
{
    *o = (struct options){
        .store = {.kind = STORE_AUTO, .plan = true},
        .ttl_s = 30,
        .uid = getuid(),
        .gid = getgid(),
        .umask = 0222,
        .subtype = "aprfs",
        .direct_comms = OPTION_DIRECT_COMMS,
        .compose_keep_s = 60,
        .ready_fd = -1,
        .sandbox = true,
    };
    const char *slash = argc > 0 ? strrchr(argv[0], '/') : NULL;
    o->helper = argc > 0 && strcmp(slash ? slash + 1 : argv[0], "mount.aprfs") == 0;
    /* mount(8) gives the options last: to whoever has this in the environment they would be folders. */
    unsetenv("POSIXLY_CORRECT");
    optind = 0;
    opterr = 0;
    int rc = o->helper ? parse_helper(o, argc, argv, e) : parse_own(o, argc, argv, e);
    return rc < 0 ? rc : check(o, argc - optind, argv + optind, e);
}

void options_help(FILE *f)
{
    fputs(
        "usage: aprfs [options] STORE... DIR\n"
        "Shows the GGUF models below STORE as APR files in DIR, read-only, without copying them.\n"
        "Of several STOREs each has a folder in DIR. STORE \"auto\": all that programs keep here.\n"
        "\n"
        "Each option may be given as --name value or in -o name=value,...\n",
        f);
    for (size_t i = 0; i < N_ROW; i++) {
        const struct option_row *r = &table[i];
        char left[128];
        if (r->id < 256)
            snprintf(left, sizeof left, "-%c, --%s", r->id, r->name);
        else
            snprintf(left, sizeof left, "--%s%s%s", r->name, r->arg ? " " : "",
                     r->arg ? r->arg : "");
        fprintf(f, "  %-30s ", left);
        if (strlen(left) > 30)
            fprintf(f, "\n  %-30s ", "");
        for (const char *p = r->help; *p; p++) {
            putc(*p, f);
            if (*p == '\n')
                fprintf(f, "  %-30s ", "");
        }
        putc('\n', f);
    }
    fputs("The first of several words is the default. Unmount: fusermount3 -u DIR, or SIGTERM.\n"
          "Exit: 0 mounted (or, in the foreground, unmounted); 1 failed; 2 usage.\n",
          f);
}
