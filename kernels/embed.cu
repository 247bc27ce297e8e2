/* Rows of the token table, dequantised: gpu_embed, and which types the device can read. */
#include "kernels/dequant.cuh"

#define THREADS 128

template <uint32_t Type, uint32_t Len, uint32_t Bytes>
static __global__ void __launch_bounds__(THREADS)
    embed_kernel(float *y, const uint8_t *w, uint64_t row_bytes, uint32_t n_out, uint32_t n_in,
                 const int32_t *id, float scale)
{
    int32_t row = id[blockIdx.x];
    bool known = row >= 0 && (uint32_t)row < n_out;
    float *out = y + (uint64_t)blockIdx.x * n_in;
    for (uint32_t i = 16 * threadIdx.x; i < n_in; i += 16 * THREADS) {
        float v[16];
        if (known)
            dequant16<Type, Len, Bytes>(v, w + (uint64_t)row * row_bytes, i, n_in);
        for (uint32_t l = 0; l < 16 && i + l < n_in; l++) {
            float f = known ? v[l] : __int_as_float(0x7fc00000);
            out[i + l] = scale != 1.0f ? f * scale : f;
        }
    }
}

bool gpu_takes_type(uint32_t type)
{
    switch (type) {
#define X(t, l, b) case QUANT_##t:
        DEQUANT_TYPES(X)
#undef X
        return true;
    default:
        return false;
    }
}

int gpu_embed(struct gpu_stream *s, float *y, const struct gpu_matrix *w, const int32_t *id,
              uint32_t n_tok, float scale)
{
    uint64_t row_bytes = 0;
    int rc = dequant_check("embed", w, &row_bytes);
    if (rc < 0)
        return rc;
    if (n_tok == 0 || n_tok > GPU_MAX_GRID_X)
        return gpu_fail(-EINVAL, "embed: %u tokens", n_tok);
    cudaLaunchConfig_t cfg = gpu_shape(s, n_tok, 1, THREADS);
    const uint8_t *data = (const uint8_t *)w->data;
    switch (w->type) {
#define X(t, l, b)                                                                                 \
    case QUANT_##t:                                                                                \
        GPU_LAUNCH(&cfg, (embed_kernel<QUANT_##t, l, b>), y, data, row_bytes, w->n_out, w->n_in,   \
                   id, scale);                                                                     \
        break;
        DEQUANT_TYPES(X)
#undef X
    }
    return gpu_launched("embed");
}
