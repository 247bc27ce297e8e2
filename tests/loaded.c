#include "tests/loaded.h"

#include "tests/support.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void loaded_need_gpu(const char *test)
{
    struct backend *b = NULL;
    struct err e = {0};
    int rc = backend_open(&b, "gpu", NULL, &e);
    backend_close(b);
    if (rc == -ENODEV)
        skip_because_in(test, "%s", e.msg);
    if (rc < 0)
        fail_msg("%s", e.msg);
}

void loaded_open(struct loaded *g, const char *path, const char *backend, int n_thread,
                 uint32_t n_ctx)
{
    const struct backend_options bo = {.n_thread = n_thread};
    const struct model_options mo = {.n_ctx = n_ctx};
    struct err e = {0};
    if (model_file_open(&g->file, path, &e) < 0 || backend_open(&g->b, backend, &bo, &e) < 0 ||
        model_open(&g->m, model_file_apr(g->file), g->b, &mo, &e) < 0)
        fail_msg("%s on %s: %s", path, backend, e.msg);
}

void loaded_close(struct loaded *g)
{
    model_close(g->m);
    backend_close(g->b);
    model_file_close(g->file);
}

char *loaded_tiny_path(const char *dir, const char *family)
{
    char name[64];
    snprintf(name, sizeof name, "tiny-%s.gguf", family);
    char *path = path_join(dir, name);
    if (access(path, F_OK) != 0) {
        struct gguf_build *b = tiny_model(family);
        gguf_build_file(b, path);
        gguf_build_free(b);
    }
    return path;
}

void loaded_open_tiny(struct loaded *g, const char *dir, const char *family, const char *backend,
                      int n_thread, uint32_t n_ctx)
{
    char *path = loaded_tiny_path(dir, family);
    loaded_open(g, path, backend, n_thread, n_ctx);
    free(path);
}

struct rows {
    float *p;
    size_t n;
};

static int keep_row(void *ctx, const float *logits, uint32_t n_vocab, struct err *e)
{
    (void)e;
    struct rows *r = ctx;
    memcpy(r->p + r->n * n_vocab, logits, n_vocab * sizeof *logits);
    r->n++;
    return 0;
}

void loaded_eval_rows(struct session *s, float *rows, const int32_t *id, size_t n, const int *step)
{
    struct rows r = {rows, 0};
    uint32_t past = session_n_past(s);
    size_t at = 0;
    for (int i = 0; at < n; i++) {
        size_t now = step && step[i] ? (size_t)step[i] : n - at;
        struct err e = {0};
        if (session_eval_rows(s, id + at, now, keep_row, &r, &e) < 0)
            fail_msg("%zu tokens at %zu: %s", now, at, e.msg);
        at += now;
        if (step && !step[i])
            break;
    }
    assert_int_equal(r.n, n);
    assert_int_equal(session_n_past(s), past + n);
}

float *loaded_rows(struct loaded *g, const struct session_options *opt, const int32_t *id, size_t n,
                   const int *step)
{
    struct session *s;
    struct err e = {0};
    if (session_new(&s, g->m, opt, &e) < 0)
        fail_msg("%s", e.msg);
    float *rows = calloc(n * g->m->c.n_vocab, sizeof *rows);
    loaded_eval_rows(s, rows, id, n, step);
    session_free(s);
    return rows;
}
