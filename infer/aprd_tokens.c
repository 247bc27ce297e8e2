/* aprd tokenize, detokenize: no weights. */
#include "infer/aprd.h"
#include "infer/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int flush_out(struct err *e)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return 0;
    return err_set(e, -EIO, "stdout: %s", strerror(errno));
}

int aprd_tokenize(const struct aprd_args *a)
{
    struct err err = {0}, *e = &err;
    const struct engine_options eo = {.parts = ENGINE_TOKENIZER};
    struct engine g = {0};
    char *text = NULL;
    int32_t *id = NULL;
    size_t len, n = 0;
    unsigned flags = (aprd_given(a, OPT_NO_BOS) ? 0 : TOKENIZER_ADD_SPECIAL) |
                     (aprd_given(a, OPT_NO_PARSE) ? 0 : TOKENIZER_PARSE_SPECIAL);
    int rc = cli_read(STDIN_FILENO, &text, &len, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    if (rc == 0)
        rc = tokenizer_encode(g.tok, text, len, flags, &id, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t plen = 0;
        if (aprd_given(a, OPT_IDS)) {
            printf("%s%" PRId32, i ? " " : "", id[i]);
            continue;
        }
        const char *p = tokenizer_piece(g.tok, id[i], true, false, &plen);
        printf("%" PRId32 "\t", id[i]);
        cli_put_escaped(stdout, p ? p : "", plen);
        putchar('\n');
    }
    if (rc == 0 && aprd_given(a, OPT_IDS))
        putchar('\n');
    if (rc == 0)
        rc = flush_out(e);
    free(id);
    free(text);
    engine_close(&g);
    return rc < 0 ? aprd_fail(e) : 0;
}

int aprd_detokenize(const struct aprd_args *a)
{
    struct err err = {0}, *e = &err;
    const struct engine_options eo = {.parts = ENGINE_TOKENIZER};
    struct engine g = {0};
    int32_t *id = NULL;
    size_t n = 0;
    bool first = true;
    int rc = cli_read_ids(STDIN_FILENO, &id, &n, e);
    if (rc == 0)
        rc = engine_open(&g, a->path, &eo, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        size_t len;
        const char *p = tokenizer_piece(g.tok, id[i], aprd_given(a, OPT_SPECIAL), first, &len);
        if (!p)
            rc = err_set(e, -EINVAL, "token id %" PRId32 " is outside the vocabulary of %" PRIu32,
                         id[i], tokenizer_n_vocab(g.tok));
        else
            fwrite(p, 1, len, stdout);
        first = first && p && len == 0;
    }
    if (rc == 0)
        rc = flush_out(e);
    free(id);
    engine_close(&g);
    return rc < 0 ? aprd_fail(e) : 0;
}
