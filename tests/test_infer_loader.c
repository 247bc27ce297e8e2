/* Loading: what is counted and refused before the device is asked for anything. */
#include "infer/loader.h"

#include "format/model_file.h"
#include "infer/model.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <inttypes.h>

static char *dir;

static char *tiny_path(const char *family)
{
    char *path = path_join(dir, family);
    struct gguf_build *b = tiny_model(family);
    gguf_build_file(b, path);
    gguf_build_free(b);
    return path;
}

/* --- a backend that counts what it is asked for --------------------------------------------- */

static struct backend_ops counting;
static const struct backend_ops *real;
static uint64_t n_alloc, n_byte; /* as the backend itself counts them */

static int count_alloc(struct backend *b, void **p, uint64_t n, const char *what)
{
    n_alloc++;
    n_byte += real->alloc_bytes(b, n);
    return real->alloc(b, p, n, what);
}

static struct backend *counting_backend(uint64_t mem_limit)
{
    const struct backend_options bo = {.n_thread = 1, .mem_limit = mem_limit};
    struct backend *b;
    struct err e;
    assert_int_equal(backend_open(&b, "cpu", &bo, &e), 0);
    real = b->ops;
    counting = *real;
    counting.alloc = count_alloc;
    b->ops = &counting;
    n_alloc = n_byte = 0;
    return b;
}

/* Whatever is wrong with a model, the device has not been asked for a byte. */
static void loader_refuses_before_the_first_allocation(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct gguf_build *g = tiny_model("llama");
        char *path = path_join(dir, "refused.gguf");
        if (i == 0) /* bound last of all */
            gguf_build_tensor_1d(g, "blk.1.surplus.weight", 0, 4);
        gguf_build_file(g, path);
        gguf_build_free(g);
        struct backend *b = counting_backend(i == 0 ? 0 : 100000);
        struct model_file *file;
        struct model *m = NULL;
        struct err e;
        assert_int_equal(model_file_open(&file, path, &e), 0);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e),
                         i == 0 ? -ENOTSUP : -ERANGE);
        assert_int_equal(n_alloc, 0);
        model_file_close(file);
        backend_close(b);
        free(path);
    }
}

/* weights + vectors + rope tables of the message are what a load then takes, to the byte. */
static void loader_takes_what_was_counted(void **state)
{
    (void)state;
    for (int f = 0; f < 4; f++) {
        char *path = tiny_path(tiny_families[f]);
        struct model_file *file;
        struct model *m = NULL;
        struct err e;
        uint64_t term[3];
        assert_int_equal(model_file_open(&file, path, &e), 0);
        struct backend *b = counting_backend(1000);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e), -ERANGE);
        const char *at = strstr(e.msg, "weights ");
        assert_non_null(at);
        assert_int_equal(sscanf(at,
                                "weights %" SCNu64 " + vectors %" SCNu64 " + rope tables %" SCNu64,
                                &term[0], &term[1], &term[2]),
                         3);
        backend_close(b);
        b = counting_backend(0);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e), 0);
        assert_int_equal(n_byte, term[0] + term[1] + term[2]);
        model_close(m);
        backend_close(b);
        model_file_close(file);
        free(path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loader_refuses_before_the_first_allocation),
        cmocka_unit_test(loader_takes_what_was_counted),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("loader", tests, NULL, NULL);
    free(dir);
    return rc;
}
