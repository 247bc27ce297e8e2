/* A model file opened, loaded into a backend, and run: what tests of the engine share. Links infer/. */
#ifndef APRFS_TESTS_LOADED_H
#define APRFS_TESTS_LOADED_H

#include "format/model_file.h"
#include "infer/session.h"
#include "tests/tiny_model.h"

struct loaded {
    struct model_file *file;
    struct backend *b;
    struct model *m;
};

/* Skips the test, saying why, where there is no backend "gpu"; one that fails, fails it. */
#define NEED_GPU()                                                                                 \
    do {                                                                                           \
        (void)state;                                                                               \
        loaded_need_gpu(__func__);                                                                 \
    } while (0)
void loaded_need_gpu(const char *test);

/* n_ctx 0: the model's own. Fails the test with the story. */
void loaded_open(struct loaded *g, const char *path, const char *backend, int n_thread,
                 uint32_t n_ctx);
void loaded_close(struct loaded *g);

/* dir/tiny-<family>.gguf, written if it is not there yet; to be freed. */
char *loaded_tiny_path(const char *dir, const char *family);
/* That file, opened with a context of n_ctx. */
void loaded_open_tiny(struct loaded *g, const char *dir, const char *family, const char *backend,
                      int n_thread, uint32_t n_ctx);

/* All rows of n ids, in steps of the given sizes (0 ends the list; then the rest in one): (n, n_vocab),
 * to be freed. */
float *loaded_rows(struct loaded *g, const struct session_options *opt, const int32_t *id, size_t n,
                   const int *step);
/* The same into the caller's rows, on a session that may have a past. */
void loaded_eval_rows(struct session *s, float *rows, const int32_t *id, size_t n, const int *step);

#endif
