/* One table of options per program, over getopt_long: what is parsed and what --help prints come
 * from the same lines, so that neither can lie about the other. */
#ifndef APRFS_FORMAT_OPTS_H
#define APRFS_FORMAT_OPTS_H

#include "format/err.h"

#include <stddef.h>
#include <stdio.h>

struct opts_item {
    int id;           /* the short option's letter, or a number above 255 for none */
    const char *name; /* the long option, without dashes */
    const char *arg;  /* name of its argument ("FILE"); NULL: takes none */
    const char *help; /* states the default where there is one; NULL: not listed */
    unsigned verbs;   /* the program's own mask: which verbs take it */
};

/* Parses argv[1..argc), options anywhere before "--", calling on() for each in order (arg NULL
 * where there is none); on() returns 0 or an error that ends the parsing. argv is permuted; *first
 * is the index of the first argument that is no option. -EINVAL: unknown, ambiguous, or an argument
 * is missing. Not for several threads: getopt_long keeps static state. */
int opts_parse(int argc, char **argv, const struct opts_item *table, size_t n_item,
               int (*on)(void *ctx, const struct opts_item *item, const char *arg, struct err *e),
               void *ctx, int *first, struct err *e);

/* One line per option of the table whose verbs meet the mask, in the table's order. */
void opts_print_help(FILE *f, const struct opts_item *table, size_t n_item, unsigned verbs);

#endif
