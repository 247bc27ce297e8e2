/* aprd: what the command line asks for. The verbs are in aprd_*.c. */
#include "infer/aprd.h"

#include <signal.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    struct aprd_args a;
    struct err e = {0};
    const struct aprd_verb_row *verb;
    signal(SIGPIPE, SIG_IGN); /* a reader that left is a write error: said, and exit 1 */
    if (aprd_args_parse(&a, argc, argv, &verb, &e) < 0)
        return aprd_usage(&e);
    if (aprd_given(&a, 'h')) {
        aprd_print_help(verb);
        return aprd_flushed();
    }
    if (aprd_given(&a, OPT_VERSION)) {
        printf("aprd %s\n", APRFS_VERSION);
        return aprd_flushed();
    }
    switch (verb->verb) {
    case APRD_RUN:
        return aprd_run(&a);
    case APRD_LOGITS:
        return aprd_logits(&a);
    case APRD_VERIFY:
        return aprd_verify(&a);
    case APRD_TOKENIZE:
        return aprd_tokenize(&a);
    case APRD_DETOKENIZE:
        return aprd_detokenize(&a);
    }
    return 2;
}
