#include "tests/gpu_arrays.h"

#include "tests/gguf_build.h"

#include <errno.h>

struct gpu_stream *stream;

int stream_open(void **state)
{
    (void)state;
    int rc = gpu_stream_new(&stream);
    if (rc < 0 && rc != -ENODEV) {
        print_error("gpu_stream_new: %s\n", gpu_last_error());
        return -1;
    }
    return 0;
}

int stream_close(void **state)
{
    (void)state;
    gpu_stream_free(stream);
    return 0;
}

void must(int rc)
{
    if (rc < 0)
        fail_msg("%d: %s", rc, gpu_last_error());
}

void refused(int rc)
{
    if (rc != -EINVAL)
        fail_msg("%d instead of -EINVAL (last error: %s)", rc, gpu_last_error());
}

void *dev_new(const void *host, size_t n)
{
    void *p;
    must(gpu_alloc(&p, n));
    if (host) {
        must(gpu_upload(stream, p, host, n));
        must(gpu_stream_sync(stream));
    }
    return p;
}

float *dev_f32(const float *host, size_t n)
{
    return dev_new(host, n * sizeof *host);
}

void dev_get(void *host, const void *p, size_t n)
{
    must(gpu_download(stream, host, p, n));
    must(gpu_stream_sync(stream));
}

void *dev_take(void *p, size_t n)
{
    void *host = malloc(n);
    dev_get(host, p, n);
    gpu_free(p);
    return host;
}

float *random_f32(struct rng *r, size_t n, float size)
{
    float *p = malloc((n ? n : 1) * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = rng_f32(r) * size;
    return p;
}

void same_bits(const char *what, const float *got, const float *want, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0)
            fail_msg("%s: element %zu of %zu is %.9g, the twin's %.9g", what, i, n, (double)got[i],
                     (double)want[i]);
}

void weights_new(struct weights *w, uint32_t type, uint32_t n_out, uint32_t n_in, uint64_t seed)
{
    w->qt = quant_type(type);
    w->host = (struct backend_matrix){.type = type, .n_out = n_out, .n_in = n_in};
    assert_true(quant_row_bytes(w->qt, n_in, &w->host.row_bytes));
    size_t len = (size_t)w->host.row_bytes * n_out;
    w->host.data = malloc(len);
    gguf_build_random_blocks(w->host.data, type, (size_t)n_out * (n_in / w->qt->block_len), 0.05f,
                             seed);
    w->dev = (struct gpu_matrix){type, n_out, n_in, dev_new(w->host.data, len)};
}

void weights_free(struct weights *w)
{
    gpu_free((void *)(uintptr_t)w->dev.data);
    free(w->host.data);
}
