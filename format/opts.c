/* Option tables: see opts.h. */
#include "format/opts.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

static const struct opts_item *opts_find(const struct opts_item *table, size_t n_item, int id)
{
    for (size_t i = 0; i < n_item; i++)
        if (table[i].id == id)
            return &table[i];
    return NULL;
}

/* getopt_long has said '?' or ':' about the option before optind, or about the letter optopt. */
static int opts_complain(char **argv, int c, struct err *e)
{
    const char *last = argv[optind - 1];
    if (c == ':')
        return optopt > 0 && optopt < 256 && strncmp(last, "--", 2) != 0
                   ? err_set(e, -EINVAL, "option '-%c' needs an argument", optopt)
                   : err_set(e, -EINVAL, "option '%s' needs an argument", last);
    if (optopt > 0 && optopt < 256 && strncmp(last, "--", 2) != 0)
        return err_set(e, -EINVAL, "unknown option '-%c'", optopt);
    if (optopt)
        return err_set(e, -EINVAL, "option '%s' takes no argument", last);
    return err_set(e, -EINVAL, "unknown option '%s'", last);
}

int opts_parse(int argc, char **argv, const struct opts_item *table, size_t n_item,
               int (*on)(void *ctx, const struct opts_item *item, const char *arg, struct err *e),
               void *ctx, int *first, struct err *e)
{
    struct option *lopt = calloc(n_item + 1, sizeof *lopt);
    char *sopt = calloc(1, 2 * n_item + 2);
    int rc = lopt && sopt ? 0 : err_set(e, -ENOMEM, "no memory for options");
    if (rc < 0)
        goto out;

    char *s = sopt;
    *s++ = ':'; /* tell a missing argument from an unknown option, and print nothing */
    for (size_t i = 0; i < n_item; i++) {
        lopt[i] = (struct option){table[i].name, table[i].arg ? required_argument : no_argument,
                                  NULL, table[i].id};
        if (table[i].id < 256) {
            *s++ = (char)table[i].id;
            if (table[i].arg)
                *s++ = ':';
        }
    }
    optind = 0; /* glibc: start anew */
    int c;
    while (rc == 0 && (c = getopt_long(argc, argv, sopt, lopt, NULL)) != -1) {
        const struct opts_item *item = c == '?' || c == ':' ? NULL : opts_find(table, n_item, c);
        rc = item ? on(ctx, item, optarg, e) : opts_complain(argv, c, e);
    }
    *first = optind;
out:
    free(lopt);
    free(sopt);
    return rc;
}

void opts_print_help(FILE *f, const struct opts_item *table, size_t n_item, unsigned verbs)
{
    for (size_t i = 0; i < n_item; i++) {
        const struct opts_item *t = &table[i];
        if (!t->help || !(t->verbs & verbs))
            continue;
        char left[64];
        if (t->id < 256)
            snprintf(left, sizeof left, "-%c, --%s%s%s", t->id, t->name, t->arg ? " " : "",
                     t->arg ? t->arg : "");
        else
            snprintf(left, sizeof left, "    --%s%s%s", t->name, t->arg ? " " : "",
                     t->arg ? t->arg : "");
        fprintf(f, "  %-27s %s\n", left, t->help);
    }
}
