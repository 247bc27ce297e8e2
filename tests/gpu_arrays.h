/* One stream, arrays and weights on the device: what tests of kernels/ share. Links kernels/. */
#ifndef APRFS_TESTS_GPU_ARRAYS_H
#define APRFS_TESTS_GPU_ARRAYS_H

#include "format/quant.h"
#include "infer/backend.h"
#include "kernels/gpu_ops.h"
#include "tests/support.h"

extern struct gpu_stream *stream; /* NULL: this build or machine has no GPU */

/* cmocka's group setup and teardown: a group runs without a GPU, but not with one that fails. */
int stream_open(void **state);
int stream_close(void **state);

#define NEED_STREAM()                                                                              \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!stream)                                                                               \
            skip_because("%s", gpu_last_error());                                                  \
    } while (0)

/* Fail the test with the device's story: must() unless rc >= 0, refused() unless rc is -EINVAL. */
void must(int rc);
void refused(int rc);

/* n bytes on the device, filled from host, or, NULL, with nothing; gpu_free() ends them. */
void *dev_new(const void *host, size_t n);
float *dev_f32(const float *host, size_t n);
/* n bytes of p to host; dev_take: malloc'ed, and p is freed. */
void dev_get(void *host, const void *p, size_t n);
void *dev_take(void *p, size_t n);

/* The same random blocks on the host and on the device. */
struct weights {
    struct backend_matrix host;
    struct gpu_matrix dev;
    const struct quant_type *qt;
};
void weights_new(struct weights *w, uint32_t type, uint32_t n_out, uint32_t n_in, uint64_t seed);
void weights_free(struct weights *w);

/* n numbers within +-size; to be freed. */
float *random_f32(struct rng *r, size_t n, float size);

/* Fails at the first element whose bits differ. */
void same_bits(const char *what, const float *got, const float *want, size_t n);

#endif
