/* aprtool: looks at, checks and converts .apr and .gguf files. This file: the options and the way
 * from a verb's name to its function. */
#include "format/aprtool.h"

#include "format/opts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum verb {
    LS = 1 << 0,
    SHOW = 1 << 1,
    TENSORS = 1 << 2,
    EXPLAIN = 1 << 3,
    VERIFY = 1 << 4,
    CONVERT = 1 << 5,
    DIFF = 1 << 6,
    CAT = 1 << 7,
    EVERY = (1 << 8) - 1,
};

enum {
    OPT_VERSION = 256,
    OPT_JSON,
    OPT_BYTES,
    OPT_GGUF_ORDER,
    OPT_DEEP,
    OPT_READERS,
    OPT_EXTENTS,
    OPT_PROFILE,
    OPT_FOOTER,
    OPT_VALUES,
    OPT_FORCE,
    OPT_AS,
};

static const struct opts_item options[] = {
    {OPT_JSON, "json", NULL, "one JSON document on stdout",
     LS | SHOW | TENSORS | EXPLAIN | VERIFY | CONVERT | DIFF | CAT},
    {OPT_BYTES, "bytes", NULL, "sizes in bytes (default: powers of 1024)", LS | SHOW | TENSORS},
    {'a', "all", NULL, "what is no model too, with its role and the reason", LS},
    {OPT_GGUF_ORDER, "gguf-order", NULL, "shapes innermost first, as GGUF's ne[]", TENSORS},
    {OPT_DEEP, "deep", NULL,
     "read every weight: NaN and Inf fail; all-zero is said; CRC of the file", VERIFY},
    {OPT_READERS, "readers", NULL, "per APR reader: accepted or not, tensors it reads wrong",
     VERIFY},
    {OPT_EXTENTS, "extents", NULL, "where each range of the .apr comes from", EXPLAIN},
    {OPT_PROFILE, "profile", "P",
     "engine (default), native or strict: which types are carried as is", CONVERT | EXPLAIN},
    {OPT_FOOTER, "footer", "F", "none (default) or crc: four bytes of checksum at the end",
     CONVERT | EXPLAIN},
    {OPT_VALUES, "values", "V", "reference (default: llama.cpp's) or compat (the Rust table's)",
     CONVERT | EXPLAIN},
    {'f', "force", NULL, "replace DST if it exists", CONVERT},
    {OPT_AS, "as", "FORM", "raw (default: the bytes in the file), f32 (little-endian) or text",
     CAT},
    {'h', "help", NULL, "this text, or a verb's: aprtool VERB --help", EVERY},
    {OPT_VERSION, "version", NULL, "print the version", EVERY},
};
#define N_OPTION (sizeof options / sizeof options[0])

static const struct verb_row {
    const char *name, *alias;
    enum verb bit;
    int (*run)(const struct tool_options *opt, int n_arg, char **arg);
    int min_arg, max_arg; /* max < 0: any number */
    const char *args, *help;
} verbs[] = {
    {"ls", NULL, LS, tool_ls, 0, -1, "[PATH...]",
     "models in folders, mounts and files (default: the stores of known programs)"},
    {"show", "inspect", SHOW, tool_show, 1, 1, "FILE",
     "header, metadata, counts by type, tokenizer (also: inspect)"},
    {"tensors", NULL, TENSORS, tool_tensors, 1, 2, "FILE [GLOB]",
     "name, type, shape, offset and size of each tensor"},
    {"explain", NULL, EXPLAIN, tool_explain, 1, 2, "FILE [KEY]",
     "each resolved value: its source, what llama.cpp and the Rust table say"},
    {"verify", NULL, VERIFY, tool_verify, 1, -1, "FILE...",
     "structure, names, bounds, checksums; FILE: ok, or FILE: <reason>"},
    {"convert", NULL, CONVERT, tool_convert, 2, 2, "SRC DST",
     "write the file that the mount shows"},
    {"diff", NULL, DIFF, tool_diff, 2, 2, "A B",
     "metadata and tensors that differ, by name; exit 1 if any"},
    {"cat-tensor", NULL, CAT, tool_cat_tensor, 2, 2, "FILE NAME", "one tensor to stdout"},
};
#define N_VERB (sizeof verbs / sizeof verbs[0])

volatile sig_atomic_t tool_stop;

static void on_signal(int sig)
{
    tool_stop = sig;
}

int tool_fail(const struct err *e)
{
    fprintf(stderr, "aprtool: %s\n", e->msg);
    return TOOL_FAILED;
}

int tool_usage(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("aprtool: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputs("\naprtool: try 'aprtool --help'\n", stderr);
    va_end(ap);
    return TOOL_USAGE;
}

static const struct verb_row *verb_find(const char *name)
{
    for (size_t i = 0; i < N_VERB; i++)
        if (strcmp(verbs[i].name, name) == 0 || (verbs[i].alias && !strcmp(verbs[i].alias, name)))
            return &verbs[i];
    return NULL;
}

static void print_help(const struct verb_row *verb)
{
    if (verb) {
        printf("usage: aprtool %s [options] %s\n%s\n\n", verb->name, verb->args, verb->help);
        opts_print_help(stdout, options, N_OPTION, verb->bit);
        return;
    }
    printf("usage: aprtool VERB [options] ...\n"
           "Looks at, checks and converts .apr and .gguf model files.\n\n");
    for (size_t i = 0; i < N_VERB; i++)
        printf("  %-11s%-18s %s\n", verbs[i].name, verbs[i].args, verbs[i].help);
    printf("\n");
    opts_print_help(stdout, options, N_OPTION, EVERY);
    printf("\nExit: 0 good; 1 bad file, difference or failure; 2 usage.\n");
}

struct parse {
    struct tool_options opt;
    bool help, version;
    unsigned given; /* bit i: options[i] was given */
};

static int choice(const struct opts_item *item, const char *arg, const char *const *names, int n,
                  struct err *e)
{
    for (int i = 0; i < n; i++)
        if (strcmp(arg, names[i]) == 0)
            return i;
    return err_set(e, -EINVAL, "--%s %s: expected %s%s%s%s%s", item->name, arg, names[0],
                   n > 2 ? ", " : " or ", names[1], n > 2 ? " or " : "", n > 2 ? names[2] : "");
}

static int on_option(void *ctx, const struct opts_item *item, const char *arg, struct err *e)
{
    struct parse *p = ctx;
    int rc = 0;
    p->given |= 1U << (item - options);
    switch (item->id) {
    case 'h':
        p->help = true;
        break;
    case OPT_VERSION:
        p->version = true;
        break;
    case OPT_JSON:
        p->opt.json = true;
        break;
    case OPT_BYTES:
        p->opt.bytes = true;
        break;
    case 'a':
        p->opt.all = true;
        break;
    case OPT_GGUF_ORDER:
        p->opt.gguf_order = true;
        break;
    case OPT_DEEP:
        p->opt.deep = true;
        break;
    case OPT_READERS:
        p->opt.readers = true;
        break;
    case OPT_EXTENTS:
        p->opt.extents = true;
        break;
    case 'f':
        p->opt.force = true;
        break;
    case OPT_PROFILE:
        p->opt.layout_given = true;
        if (!vapr_profile_parse(arg, &p->opt.vapr.profile))
            rc = err_set(e, -EINVAL, "--profile %s: expected engine, native or strict", arg);
        break;
    case OPT_FOOTER:
        p->opt.layout_given = true;
        rc = choice(item, arg, (const char *const[]){"none", "crc"}, 2, e);
        p->opt.vapr.footer = rc == 1 ? VAPR_FOOTER_CRC : VAPR_FOOTER_NONE;
        break;
    case OPT_VALUES:
        p->opt.layout_given = true;
        rc = choice(item, arg, (const char *const[]){"reference", "compat"}, 2, e);
        p->opt.vapr.values = rc == 1 ? VAPR_VALUES_COMPAT : VAPR_VALUES_REFERENCE;
        break;
    case OPT_AS:
        p->opt.as_given = true;
        rc = choice(item, arg, (const char *const[]){"raw", "f32", "text"}, 3, e);
        p->opt.as = rc > 0 ? (enum tool_as)rc : TOOL_AS_RAW;
        break;
    }
    return rc < 0 ? rc : 0;
}

/* Every option given must be one the verb takes: none is ignored. */
static const struct opts_item *misplaced(unsigned given, const struct verb_row *verb)
{
    for (size_t i = 0; i < N_OPTION; i++)
        if (given >> i & 1 && !(options[i].verbs & verb->bit))
            return &options[i];
    return NULL;
}

static int flush_stdout(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return rc;
    if (errno != EPIPE) /* a reader that had enough is no failure worth words */
        fprintf(stderr, "aprtool: stdout: %s\n", strerror(errno));
    return rc ? rc : TOOL_FAILED;
}

int main(int argc, char **argv)
{
    struct parse p = {0};
    struct err e = {0};
    int first;
    if (opts_parse(argc, argv, options, N_OPTION, on_option, &p, &first, &e) < 0)
        return tool_usage("%s", e.msg);

    const char *name = first < argc ? argv[first] : NULL;
    const struct verb_row *verb = name ? verb_find(name) : NULL;
    if (p.version) {
        printf("aprtool %s\n", APRFS_VERSION);
        return flush_stdout(TOOL_OK);
    }
    if (name && strcmp(name, "validate") == 0)
        return tool_usage(
            "'validate' is not offered: it scores a layout that no file has; 'verify' "
            "checks the real one");
    if (name && !verb)
        return tool_usage("unknown verb '%s'", name);
    if (p.help) {
        print_help(verb);
        return flush_stdout(TOOL_OK);
    }
    if (!verb)
        return tool_usage("which verb?");

    const struct opts_item *bad = misplaced(p.given, verb);
    if (bad)
        return tool_usage("%s: takes no --%s", verb->name, bad->name);
    int n_arg = argc - first - 1;
    if (n_arg < verb->min_arg || (verb->max_arg >= 0 && n_arg > verb->max_arg))
        return tool_usage("%s: %d operands given; usage: aprtool %s [options] %s", verb->name,
                          n_arg, verb->name, verb->args);

    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
    sigaction(SIGINT, &sa, NULL); /* the second one ends us at once */
    sigaction(SIGTERM, &sa, NULL);
    sigaction(SIGHUP, &sa, NULL);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write(2), to clean up after */
    return flush_stdout(verb->run(&p.opt, n_arg, argv + first + 1));
}
