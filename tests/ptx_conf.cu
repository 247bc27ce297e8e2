/* Conformance of ptx.cuh and of the dialect: the same source under nvcc on a device and under g++ on
 * the emulation. Expectations are computed on the host from matrices by the manual's formulas; each
 * case also prints a digest of what the device gave and holds it against the emulation's, which
 * tests/ptx_conf.txt keeps. Prints TAP; a digest stands behind '#'. */
#include "kernels/ptx.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <vector>

static int n_test, n_bad;
static cudaStream_t stream;

static void must(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return;
    printf("Bail out! %s: %s\n", what, cudaGetErrorString(e));
    exit(1);
}

static uint64_t digest(const void *p, size_t n)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a, 64 bits */
    for (size_t i = 0; i < n; i++)
        h = (h ^ ((const unsigned char *)p)[i]) * 0x100000001b3u;
    return h;
}

static const struct {
    const char *name;
    uint64_t digest;
} committed[] = {
#include "tests/ptx_conf.txt"
};

static void result(const char *name, bool good, const void *got, size_t n)
{
    uint64_t d = digest(got, n), want = 0;
    for (const auto &c : committed)
        if (strcmp(c.name, name) == 0)
            want = c.digest;
    n_test++;
    n_bad += !(good && d == want);
    printf("%s %d - ptx_conf_%s\n# %s %016llx\n", good && d == want ? "ok" : "not ok", n_test, name,
           name, (unsigned long long)d);
    if (d != want)
        printf("# %s: tests/ptx_conf.txt has %016llx\n", name, (unsigned long long)want);
}

template <typename T> struct device_array {
    T *p = nullptr;
    size_t n;
    explicit device_array(size_t count) : n(count)
    {
        must(cudaMalloc((void **)&p, n * sizeof(T)), "cudaMalloc");
    }
    explicit device_array(const std::vector<T> &v) : device_array(v.size())
    {
        must(cudaMemcpyAsync(p, v.data(), n * sizeof(T), cudaMemcpyHostToDevice, stream),
             "copy in");
        must(cudaStreamSynchronize(stream), "copy in");
    }
    ~device_array()
    {
        cudaFree(p);
    }
    std::vector<T> get() const
    {
        std::vector<T> v(n);
        must(cudaMemcpyAsync(v.data(), p, n * sizeof(T), cudaMemcpyDeviceToHost, stream),
             "copy out");
        must(cudaStreamSynchronize(stream), "copy out");
        return v;
    }
};

static cudaLaunchConfig_t shape(unsigned blocks, unsigned threads)
{
    cudaLaunchConfig_t cfg = {};
    cfg.gridDim = dim3(blocks);
    cfg.blockDim = dim3(threads);
    cfg.stream = stream;
    return cfg;
}

static unsigned rng_state = 12345;
static unsigned rng()
{
    rng_state = rng_state * 1664525u + 1013904223u;
    return rng_state >> 8;
}

/* --- mma: fragments built from row-major matrices by the manual's formulas ------------------- */

enum mma_kind { MMA_U8S8, MMA_S8S8, MMA_F16, MMA_BF16 };

static __global__ void mma_kernel(unsigned *out, const unsigned *a, const unsigned *b,
                                  const unsigned *c, int kind)
{
    int l = (int)threadIdx.x;
    unsigned fa[4], fb[2];
    for (int i = 0; i < 4; i++)
        fa[i] = a[l * 4 + i];
    for (int i = 0; i < 2; i++)
        fb[i] = b[l * 2 + i];
    int ci[4];
    float cf[4];
    for (int i = 0; i < 4; i++) {
        ci[i] = (int)c[l * 4 + i];
        cf[i] = __uint_as_float(c[l * 4 + i]);
    }
    if (kind == MMA_U8S8)
        mma_u8s8_16832(ci, fa, fb);
    else if (kind == MMA_S8S8)
        mma_s8s8_16832(ci, fa, fb);
    else if (kind == MMA_F16)
        mma_f16_16816(cf, fa, fb);
    else
        mma_bf16_16816(cf, fa, fb);
    for (int i = 0; i < 4; i++)
        out[l * 4 + i] = kind <= MMA_S8S8 ? (unsigned)ci[i] : __float_as_uint(cf[i]);
}

static unsigned small_value(int kind, int v) /* v in -8..7 as a 16-bit float: exact in both */
{
    float f = (float)v;
    unsigned u;
    memcpy(&u, &f, 4);
    if (kind == MMA_BF16)
        return u >> 16;
    if (v == 0)
        return 0;
    return (u >> 16 & 0x8000) | (((u >> 23 & 255) - 112) << 10) | (u >> 13 & 0x3ff);
}

static void mma_case(const char *name, int kind)
{
    bool bytes = kind <= MMA_S8S8;
    int k_len = bytes ? 32 : 16, per = bytes ? 4 : 2, half = k_len / 2;
    std::vector<int> A(16 * k_len), B(k_len * 8), C(16 * 8);
    for (int &v : A)
        v = kind == MMA_U8S8   ? (int)(rng() & 255)
            : kind == MMA_S8S8 ? (int)(rng() & 255) - 128
                               : (int)(rng() & 15) - 8;
    for (int &v : B)
        v = bytes ? (int)(rng() & 255) - 128 : (int)(rng() & 15) - 8;
    for (int &v : C)
        v = (int)(rng() & 1023) - 512;
    std::vector<unsigned> a(32 * 4), b(32 * 2), c(32 * 4), want(32 * 4);
    for (int l = 0; l < 32; l++) {
        int g = l / 4, t = l % 4;
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < per; j++) {
                int v = A[(g + i % 2 * 8) * k_len + i / 2 * half + t * per + j];
                a[l * 4 + i] |= (bytes ? (unsigned)v & 255 : small_value(kind, v))
                                << (32 / per * j);
            }
        for (int i = 0; i < 2; i++)
            for (int j = 0; j < per; j++) {
                int v = B[(i * half + t * per + j) * 8 + g];
                b[l * 2 + i] |= (bytes ? (unsigned)v & 255 : small_value(kind, v))
                                << (32 / per * j);
            }
        for (int i = 0; i < 4; i++) {
            int row = g + i / 2 * 8, col = 2 * t + i % 2, sum = C[row * 8 + col];
            float fc = (float)C[row * 8 + col];
            for (int k = 0; k < k_len; k++)
                sum += A[row * k_len + k] * B[k * 8 + col];
            float fs = (float)sum; /* small integers: exact in any order */
            memcpy(&c[l * 4 + i], &fc, 4);
            memcpy(&want[l * 4 + i], &fs, 4);
            if (bytes) {
                c[l * 4 + i] = (unsigned)C[row * 8 + col];
                want[l * 4 + i] = (unsigned)sum;
            }
        }
    }
    device_array<unsigned> da(a), db(b), dc(c), out(128);
    cudaLaunchConfig_t cfg = shape(1, 32);
    must(GPU_LAUNCH(&cfg, mma_kernel, out.p, da.p, db.p, dc.p, kind), name);
    std::vector<unsigned> got = out.get();
    result(name, got == want, got.data(), got.size() * 4);
}

/* --- warp operations ---------------------------------------------------------------------- */

static __global__ void warp_kernel(unsigned *out, const unsigned *in)
{
    unsigned l = threadIdx.x, v = in[l];
    unsigned r[10];
    r[0] = __shfl_sync(0xffffffffu, v, 5);
    r[1] = __shfl_xor_sync(0xffffffffu, v, 3);
    r[2] = __shfl_down_sync(0xffffffffu, v, 7);
    r[3] = __shfl_up_sync(0xffffffffu, v, 7);
    r[4] = __shfl_sync(0xffffffffu, v, 5, 8);
    r[5] = __shfl_down_sync(0xffffffffu, v, 3, 8);
    r[6] = __shfl_up_sync(0xffffffffu, v, 3, 8);
    r[7] = __ballot_sync(0xffffffffu, (int)(v & 1));
    r[8] = __reduce_add_sync(0xffffffffu, v);
    r[9] = (unsigned)__reduce_max_sync(0xffffffffu, (int)v - 500) +
           (unsigned)__any_sync(0xffffffffu, v == 7);
    for (int i = 0; i < 10; i++)
        out[i * 32 + l] = r[i];
}

static void warp_case()
{
    std::vector<unsigned> in(32), want(320);
    unsigned ballot = 0, sum = 0;
    int most = -100000;
    bool any = false;
    for (unsigned l = 0; l < 32; l++) {
        in[l] = rng() % 1000;
        ballot |= (in[l] & 1) << l;
        sum += in[l];
        most = (int)in[l] - 500 > most ? (int)in[l] - 500 : most;
        any |= in[l] == 7;
    }
    for (unsigned l = 0; l < 32; l++) {
        unsigned base = l & ~7u;
        want[0 * 32 + l] = in[5];
        want[1 * 32 + l] = in[l ^ 3];
        want[2 * 32 + l] = in[l + 7 < 32 ? l + 7 : l];
        want[3 * 32 + l] = in[l >= 7 ? l - 7 : l];
        want[4 * 32 + l] = in[base + 5];
        want[5 * 32 + l] = in[l + 3 < base + 8 ? l + 3 : l];
        want[6 * 32 + l] = in[l >= base + 3 ? l - 3 : l];
        want[7 * 32 + l] = ballot;
        want[8 * 32 + l] = sum;
        want[9 * 32 + l] = (unsigned)most + any;
    }
    device_array<unsigned> din(in), out(320);
    cudaLaunchConfig_t cfg = shape(1, 32);
    must(GPU_LAUNCH(&cfg, warp_kernel, out.p, din.p), "warp");
    std::vector<unsigned> got = out.get();
    result("warp", got == want, got.data(), got.size() * 4);
}

/* --- integer and half arithmetic ------------------------------------------------------------ */

static __global__ void bits_kernel(int *out, const int *a, const int *b, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n)
        return;
    out[4 * i] = __dp4a(a[i], b[i], i);
    out[4 * i + 1] = (int)__byte_perm((unsigned)a[i], (unsigned)b[i], 0x6240 + (unsigned)(i & 7));
    out[4 * i + 2] = __popc((unsigned)a[i]) + 100 * __clz(b[i]) + 10000 * __ffs(a[i]);
    out[4 * i + 3] = (int)__umulhi((unsigned)a[i], (unsigned)b[i]);
}

static void bits_case()
{
    int n = 1000;
    std::vector<int> a(n), b(n), want(4 * n);
    for (int i = 0; i < n; i++) {
        unsigned x = rng() << 12 ^ rng(), y = i ? rng() << 12 ^ rng() : 0;
        a[i] = (int)x;
        b[i] = (int)y;
        int dot = i;
        for (int j = 0; j < 4; j++)
            dot += (int)(signed char)(x >> 8 * j) * (int)(signed char)(y >> 8 * j);
        unsigned sel = 0x6240 + (unsigned)(i & 7), perm = 0;
        unsigned char all[8];
        memcpy(all, &x, 4); /* little-endian hosts only, as the devices are */
        memcpy(all + 4, &y, 4);
        for (int j = 0; j < 4; j++)
            perm |= (unsigned)all[sel >> 4 * j & 7] << 8 * j;
        want[4 * i] = dot;
        want[4 * i + 1] = (int)perm;
        want[4 * i + 2] = __builtin_popcount(x) + 100 * (y ? __builtin_clz(y) : 32) +
                          10000 * __builtin_ffs((int)x);
        want[4 * i + 3] = (int)((uint64_t)x * y >> 32);
    }
    device_array<int> da(a), db(b), out(4 * n);
    cudaLaunchConfig_t cfg = shape((unsigned)(n + 127) / 128, 128);
    must(GPU_LAUNCH(&cfg, bits_kernel, out.p, da.p, db.p, n), "bits");
    std::vector<int> got = out.get();
    result("bits", got == want, got.data(), got.size() * 4);
}

static __global__ void half_kernel(unsigned *out)
{
    unsigned h = blockIdx.x * blockDim.x + threadIdx.x;
    out[h] = __float_as_uint(half_to_float(h));
}

static void half_case()
{
    device_array<unsigned> out(65536);
    cudaLaunchConfig_t cfg = shape(256, 256);
    must(GPU_LAUNCH(&cfg, half_kernel, out.p), "half");
    std::vector<unsigned> got = out.get();
    bool good = true;
    for (unsigned h = 0; h < 65536; h++) {
        unsigned exp = h >> 10 & 31, man = h & 0x3ff;
        double v = exp == 0 ? man * 0x1p-24 : (1024 + man) * __builtin_ldexp(1.0, (int)exp - 25);
        float f = (float)(h & 0x8000 ? -v : v), g;
        memcpy(&g, &got[h], 4);
        if (exp < 31)
            good = good && memcmp(&f, &g, 4) == 0;
        else if (man == 0)
            good = good && got[h] == ((h & 0x8000) << 16 | 0x7f800000u);
        else
            good = good && g != g;
        if (exp == 31 && man)
            got[h] = 0x7fffffff; /* payloads of NaN may differ */
    }
    result("half", good, got.data(), got.size() * 4);
}

/* --- shared memory, barriers, the last block ------------------------------------------------ */

enum { SUM_BLOCKS = 13, SUM_THREADS = 192 };

static __global__ void sum_kernel(float *total, float *partial, unsigned *ticket, const float *x,
                                  int n)
{
    SHARED(float, part, [SUM_THREADS]);
    SHARED_DYN(float, scratch);
    SHARED(unsigned, last, [1]);
    int t = (int)threadIdx.x;
    float s = 0;
    for (int i = (int)(blockIdx.x * blockDim.x) + t; i < n; i += (int)(gridDim.x * blockDim.x))
        s += x[i];
    part[t] = s;
    __syncthreads();
    if (t < 32) {
        s = 0;
        for (int i = t; i < SUM_THREADS; i += 32)
            s += part[i];
        for (int d = 16; d; d /= 2)
            s += __shfl_xor_sync(0xffffffffu, s, d);
    }
    if (t == 0) {
        partial[blockIdx.x] = s;
        __threadfence();
        last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last[0]) {
        __threadfence();
        scratch[t] = t < (int)gridDim.x ? partial[t] : 0;
    }
    __syncthreads();
    if (last[0] && t == 0) {
        float all = 0;
        for (int i = 0; i < (int)gridDim.x; i++)
            all += scratch[i];
        total[0] = all;
        ticket[0] = 0;
    }
}

static cudaError_t sum_launch(float *total, float *partial, unsigned *ticket, const float *x, int n)
{
    cudaLaunchConfig_t cfg = shape(SUM_BLOCKS, SUM_THREADS);
    cfg.dynamicSmemBytes = SUM_THREADS * sizeof(float);
    return GPU_LAUNCH(&cfg, sum_kernel, total, partial, ticket, x, n);
}

static void sum_case()
{
    int n = 10007;
    std::vector<float> x(n);
    double want = 0;
    for (float &v : x) {
        v = (float)(rng() & 255); /* small integers: any order gives the same sum */
        want += v;
    }
    device_array<float> dx(x), partial(SUM_BLOCKS), total(1);
    device_array<unsigned> ticket(std::vector<unsigned>(1));
    bool good = true;
    for (int run = 0; run < 3; run++) {
        must(sum_launch(total.p, partial.p, ticket.p, dx.p, n), "sum");
        good = good && total.get()[0] == (float)want;
    }
    std::vector<float> got = total.get();
    result("last_block_sum", good, got.data(), 4);
}

/* --- streams, events, graphs ----------------------------------------------------------------- */

static __global__ void step_kernel(unsigned *state, unsigned *history)
{
    griddep_launch();
    griddep_wait();
    if (threadIdx.x == 0) {
        unsigned at = state[0];
        state[1] = state[1] * 1664525u + 1013904223u;
        history[at] = state[1];
        state[0] = at + 1;
    }
}

static void graph_case()
{
    device_array<unsigned> state(std::vector<unsigned>(2)), history(std::vector<unsigned>(64));
    cudaLaunchConfig_t cfg = shape(1, 32);
    cudaDeviceProp prop;
    must(cudaGetDeviceProperties(&prop, 0), "properties");
    cudaLaunchAttribute attr[1];
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    cfg.attrs = attr;
    cfg.numAttrs = prop.major >= 9; /* no dependent launches before */
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    must(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "begin capture");
    for (int i = 0; i < 4; i++)
        must(GPU_LAUNCH(&cfg, step_kernel, state.p, history.p), "step");
    must(cudaStreamEndCapture(stream, &graph), "end capture");
    must(cudaGraphInstantiate(&exec, graph, 0), "instantiate");
    for (int i = 0; i < 10; i++)
        must(cudaGraphLaunch(exec, stream), "launch");
    std::vector<unsigned> got = history.get(), want(64);
    unsigned v = 0;
    for (int i = 0; i < 40; i++)
        want[i] = v = v * 1664525u + 1013904223u;
    result("graph", got == want && state.get()[0] == 40, got.data(), got.size() * 4);
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
}

static __global__ void copy_kernel(uint4 *out, const uint4 *in, int n)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        out[i] = ld_stream(&in[i]);
}

static void stream_case()
{
    int n = 999;
    std::vector<unsigned> in(4 * n);
    for (unsigned &v : in)
        v = rng();
    device_array<unsigned> din(in), mid(4 * n), out(4 * n);
    cudaStream_t second;
    cudaEvent_t event;
    must(cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking), "stream");
    must(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "event");
    cudaLaunchConfig_t cfg = shape(8, 128);
    must(GPU_LAUNCH(&cfg, copy_kernel, (uint4 *)mid.p, (const uint4 *)din.p, n), "copy");
    must(cudaEventRecord(event, stream), "record");
    must(cudaStreamWaitEvent(second, event, 0), "wait");
    cfg.stream = second;
    must(GPU_LAUNCH(&cfg, copy_kernel, (uint4 *)out.p, (const uint4 *)mid.p, n), "copy");
    must(cudaStreamSynchronize(second), "sync");
    std::vector<unsigned> got = out.get();
    result("streams", got == in, got.data(), got.size() * 4);
    cudaStreamDestroy(second);
    cudaEventDestroy(event);
}

int main()
{
    int n_dev = 0;
    if (cudaGetDeviceCount(&n_dev) != cudaSuccess || n_dev == 0) {
        printf("1..0 # SKIP no CUDA device\n");
        return 0;
    }
    must(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
    mma_case("mma_u8s8", MMA_U8S8);
    mma_case("mma_s8s8", MMA_S8S8);
    mma_case("mma_f16", MMA_F16);
    mma_case("mma_bf16", MMA_BF16);
    warp_case();
    bits_case();
    half_case();
    sum_case();
    graph_case();
    stream_case();
    cudaStreamDestroy(stream);
    printf("1..%d\n", n_test);
    return n_bad != 0;
}
