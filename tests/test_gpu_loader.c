/* Loading onto a device: every byte arrives through the ring, what was counted is enough, and a model
 * that does not fit is refused before the device is touched. */
#include "format/model_file.h"
#include "infer/loader.h"
#include "infer/model.h"
#include "infer/session.h"
#include "kernels/gpu.h"
#include "tests/gguf_build.h"
#include "tests/loaded.h"
#include "tests/support.h"

#include <errno.h>
#include <inttypes.h>

static char *dir;
static char *path; /* a model of more pieces than the ring has slots */

static int load(const char *backend, uint64_t mem_limit, struct backend **b, struct model **m,
                struct err *e)
{
    const struct backend_options bo = {.n_thread = 1, .mem_limit = mem_limit};
    const struct model_options mo = {.n_reader = 3};
    struct model_file *file;
    *m = NULL;
    int rc = backend_open(b, backend, &bo, e);
    assert_int_equal(rc, 0);
    assert_int_equal(model_file_open(&file, path, e), 0);
    rc = model_open(m, model_file_apr(file), *b, &mo, e);
    model_file_close(file);
    return rc;
}

static void gpu_loader_uploads_every_byte(void **state)
{
    NEED_GPU();
    struct backend *cb, *gb;
    struct model *c, *g;
    struct err e = {0};
    if (load("gpu", 0, &gb, &g, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(load("cpu", 0, &cb, &c, &e), 0);
    assert_true(g->n_matrix > LOADER_SLOT); /* slots were used again */
    assert_int_equal(g->n_matrix, c->n_matrix);
    for (size_t i = 0; i < g->n_matrix; i++) {
        size_t n = g->matrix[i]->n_out * g->matrix[i]->row_bytes;
        void *p = malloc(n);
        assert_int_equal(gb->ops->download(gb, p, g->matrix[i]->data, n), 0);
        assert_memory_equal(p, c->matrix[i]->data, n);
        free(p);
    }
    assert_memory_equal(g->digest, c->digest, sizeof g->digest);
    model_close(g);
    model_close(c);
    backend_close(gb);
    backend_close(cb);
}

static struct gpu_info device(void)
{
    struct gpu_info info;
    assert_int_equal(gpu_device_info(&info), 0);
    return info;
}

static void gpu_loader_counts_before_it_allocates(void **state)
{
    NEED_GPU();
    struct backend *b;
    struct model *m;
    struct err e = {0};
    uint64_t term[6], need;
    unsigned n_pos;
    int rc = load("gpu", 1000, &b, &m, &e);
    assert_int_equal(rc, -ERANGE);
    const char *at = strstr(e.msg, "weights ");
    assert_non_null(at);
    assert_int_equal(sscanf(at,
                            "weights %" SCNu64 " + vectors %" SCNu64 " + rope tables %" SCNu64
                            " + KV cache %" SCNu64 " (%u positions) + activations %" SCNu64
                            " + reserve %" SCNu64 " = %" SCNu64,
                            &term[0], &term[1], &term[2], &term[3], &n_pos, &term[4], &term[5],
                            &need),
                     8);
    backend_close(b);
    rc = load("gpu", need - 1, &b, &m, &e); /* one byte too few: nothing is left behind, or taken */
    struct gpu_info before = device();
    /* A real driver maps whole pages, and what it maps for itself is the reserve's. */
    uint64_t slack = before.emulated ? 0 : UINT64_C(256) << 20;
    assert_int_equal(rc, -ERANGE);
    backend_close(b);
    rc = load("gpu", need, &b, &m, &e);
    if (rc < 0)
        fail_msg("%s", e.msg);
    assert_true(before.mem_free <= device().mem_free + term[0] + term[1] + term[2] + slack);
    struct session *session; /* of the whole context, as counted */
    int32_t id = 3;
    assert_int_equal(session_new(&session, m, NULL, &e), 0);
    assert_int_equal(session_eval(session, &id, 1, &e), 0);
    assert_true(before.mem_free <= device().mem_free + need + slack);
    session_free(session);
    model_close(m);
    if (before.emulated)
        assert_int_equal(device().mem_free, before.mem_free);
    backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpu_loader_uploads_every_byte),
        cmocka_unit_test(gpu_loader_counts_before_it_allocates),
    };
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.n_layer = 5; /* 5 x 7 matrices and the embedding */
    o.type = o.type_embd = 8;
    struct gguf_build *b = gguf_build_llama_like("llama", &o);
    dir = temp_dir();
    path = path_join(dir, "many.gguf");
    gguf_build_file(b, path);
    gguf_build_free(b);
    int rc = cmocka_run_group_tests_name("gpu_loader", tests, NULL, NULL);
    free(path);
    free(dir);
    return rc;
}
