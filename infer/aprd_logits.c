/* aprd logits: a row of f32 per token. */
#include "infer/aprd.h"
#include "infer/cli.h"
#include "infer/session.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int put_row(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    (void)ctx;
    int rc = cli_write(STDOUT_FILENO, logits, n_vocab * sizeof *logits);
    return rc < 0 ? err_set(e, rc, "stdout: %s", strerror(-rc)) : 0;
}

int aprd_logits(const struct aprd_args *a)
{
    struct err err = {0}, *e = &err;
    struct engine_options eo = {.parts = 0};
    struct engine g = {0};
    struct session *s = NULL;
    int32_t *id = NULL;
    size_t n;
    int rc = cli_read_ids(STDIN_FILENO, &id, &n, e);
    if (rc == 0) {
        eo.n_pos = n == 0 ? 1 : n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
        rc = engine_open(&g, a->path, &eo, e);
    }
    if (rc == 0)
        rc = aprd_load(&g, &eo, a, e);
    if (rc == 0)
        rc = session_new(&s, g.m, &(struct session_options){eo.n_pos, g.no_graph}, e);
    if (rc == 0)
        rc = session_eval_rows(s, id, n, put_row, NULL, e);
    if (rc == 0)
        aprd_say_unverified(&g);
    session_free(s);
    engine_close(&g);
    free(id);
    return rc < 0 ? aprd_fail(e) : 0;
}
