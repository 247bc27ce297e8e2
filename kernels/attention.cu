/* Attention over an f32 cache: gpu_attention. One block per (token, q head); keys go by in chunks of
 * CHUNK from the window's first, one score per thread, then each thread mixes its own dimensions of the
 * values in rising order of keys. A running maximum rescales what came before, so no scratch grows with
 * the context. Sums and exp are f64, as cpu_attention_head() has them; no order depends on threads. */
#include "kernels/common.cuh"

#define CHUNK     128 /* = threads */
#define MAX_DIM_V 4096

struct attention_args {
    float *o;
    const float *q;
    struct gpu_kv kv;
    struct gpu_attn a;
    const int32_t *pos;
};

/* cpu_dot(), by one thread. Loops over lanes are unrolled: sums that are indexed would lie in local
 * memory (scripts/sass_table shows it). */
static __device__ __forceinline__ double dot_thread(const float *w, const float *x, uint32_t n)
{
    double sum[16];
#pragma unroll
    for (int j = 0; j < 16; j++)
        sum[j] = 0;
    for (uint32_t run = 0; run < n; run += 256) {
        uint32_t end = n - run < 256 ? n : run + 256;
        float lane[16];
#pragma unroll
        for (int j = 0; j < 16; j++)
            lane[j] = 0;
        for (uint32_t i = run; i < end; i += 16)
#pragma unroll
            for (uint32_t j = 0; j < 16; j++)
                if (j < end - i)
                    lane[j] += w[i + j] * x[i + j];
#pragma unroll
        for (int j = 0; j < 16; j++)
            sum[j] += (double)lane[j];
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        sum[j] += sum[j + 8];
#pragma unroll
    for (int j = 0; j < 4; j++)
        sum[j] += sum[j + 4];
    return sum[0] + sum[2] + (sum[1] + sum[3]);
}

static __device__ __forceinline__ float score(const struct attention_args &a, const float *q,
                                              const float *k)
{
    double s = (double)a.a.scale * dot_thread(q, k, a.kv.head_dim_k);
    if (a.a.softcap > 0)
        s = (double)a.a.softcap * tanh(s / (double)a.a.softcap);
    return (float)s;
}

static __global__ void __launch_bounds__(CHUNK) attention_kernel(struct attention_args a)
{
    SHARED(float, part, [CHUNK]);
    SHARED(double, prob, [CHUNK]);
    SHARED_DYN(double, mix);
    uint32_t t = blockIdx.x / a.a.n_head, h = blockIdx.x % a.a.n_head, tid = threadIdx.x;
    uint32_t g = (uint32_t)((uint64_t)h * a.kv.n_head_kv / a.a.n_head);
    uint32_t dk = a.kv.head_dim_k, dv = a.kv.head_dim_v;
    uint64_t nk = (uint64_t)a.kv.n_head_kv * dk, nv = (uint64_t)a.kv.n_head_kv * dv;
    int32_t p = a.pos[t];
    bool known = p >= 0 && (uint32_t)p < a.kv.n_ctx;
    uint32_t n = known ? (uint32_t)p + 1 : 0;
    uint32_t first = a.a.window && n > a.a.window ? n - a.a.window : 0;
    const float *q = a.q + (uint64_t)blockIdx.x * dk;
    float top = -INFINITY;
    double sum = 0; /* the same in every thread */
    for (uint32_t d = tid; d < dv; d += CHUNK)
        mix[d] = 0;
    /* Two barriers a chunk are enough: part is read between the first and the second, prob between the
     * second and the next chunk's first. */
    for (uint32_t j0 = first; j0 < n; j0 += CHUNK) {
        uint32_t n_key = n - j0 < CHUNK ? n - j0 : CHUNK;
        float s = -INFINITY;
        if (tid < n_key)
            s = score(a, q, a.kv.k + (j0 + tid) * nk + (uint64_t)g * dk);
        part[tid] = s;
        __syncthreads();
        float max = top;
        for (uint32_t j = 0; j < n_key; j++)
            max = part[j] > max ? part[j] : max;
        if (tid < n_key)
            prob[tid] = exp((double)s - (double)max);
        __syncthreads();
        double keep = j0 == first ? 0 : exp((double)top - (double)max);
        sum *= keep;
        for (uint32_t j = 0; j < n_key; j++)
            sum += prob[j];
        for (uint32_t d = tid; d < dv; d += CHUNK) {
            const float *v = a.kv.v + j0 * nv + (uint64_t)g * dv + d;
            double m = mix[d] * keep;
            for (uint32_t j = 0; j < n_key; j++)
                m += prob[j] * (double)v[j * nv];
            mix[d] = m;
        }
        top = max;
    }
    float *o = a.o + (uint64_t)blockIdx.x * dv;
    for (uint32_t d = tid; d < dv; d += CHUNK)
        o[d] = known ? (float)(mix[d] / sum) : __int_as_float(0x7fc00000);
}

int gpu_attention(struct gpu_stream *s, float *o, const float *q, const struct gpu_kv *kv,
                  const struct gpu_attn *a, const int32_t *pos, uint32_t n_tok)
{
    uint64_t blocks = (uint64_t)n_tok * a->n_head;
    if (blocks == 0 || blocks > GPU_MAX_GRID_X || kv->n_head_kv == 0 || kv->n_head_kv > a->n_head)
        return gpu_fail(-EINVAL, "attention: %u tokens, %u heads over %u", n_tok, a->n_head,
                        kv->n_head_kv);
    if (kv->n_ctx == 0 || kv->n_ctx > INT32_MAX || kv->head_dim_k == 0 ||
        kv->head_dim_k > GPU_MAX_ROW || kv->head_dim_v == 0 || kv->head_dim_v > MAX_DIM_V || !(a->softcap >= 0))
        return gpu_fail(-EINVAL, "attention: heads of %u and %u over %u positions, cap %g",
                        kv->head_dim_k, kv->head_dim_v, kv->n_ctx, (double)a->softcap);
    struct attention_args args = {o, q, *kv, *a, pos};
    cudaLaunchConfig_t cfg = gpu_shape(s, blocks, 1, CHUNK);
    cfg.dynamicSmemBytes = kv->head_dim_v * sizeof(double);
    GPU_LAUNCH(&cfg, attention_kernel, args);
    return gpu_launched("attention");
}
