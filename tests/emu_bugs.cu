/* Seeded bugs: one kernel (or piece of host code) per mistake that the emulation is there to find, and
 * the table of which build must report it. Each runs in a child process; caught means that the child
 * said so ("emu: <kind>:", or a report of ASan) or that its result was wrong. Prints TAP.
 *   emu_bugs          every bug that this build must catch, and that the sound twin of each passes
 *   emu_bugs NAME     that one alone, in this process */
#include "kernels/ptx.cuh"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PLAIN = 1, ASAN = 2, HOOKS = 4, GUARD = 8 };
#if defined(__SANITIZE_ADDRESS__)
static const int THIS_BUILD = ASAN;
#elif defined(__SANITIZE_THREAD__)
static const int THIS_BUILD = HOOKS;
#else
static const int THIS_BUILD = PLAIN;
#endif
enum { WRONG = 3 }; /* exit status: ran to its end with a wrong result */

static cudaStream_t stream;
static bool sound; /* run the twin without the bug */

static cudaLaunchConfig_t shape(unsigned blocks, unsigned threads)
{
    cudaLaunchConfig_t cfg = {};
    cfg.gridDim = dim3(blocks);
    cfg.blockDim = dim3(threads);
    cfg.stream = stream;
    return cfg;
}

static float *device_floats(size_t n, float v)
{
    float *p = nullptr, *h = (float *)malloc(n * sizeof *h);
    cudaMalloc((void **)&p, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        h[i] = v;
    cudaMemcpy(p, h, n * sizeof *p, cudaMemcpyHostToDevice);
    free(h);
    return p;
}

static int expect(const float *device, size_t n, float want)
{
    float *h = (float *)malloc(n * sizeof *h);
    int rc = 0;
    cudaStreamSynchronize(stream);
    cudaMemcpy(h, device, n * sizeof *h, cudaMemcpyDeviceToHost);
    for (size_t i = 0; i < n; i++)
        if (!(h[i] == want))
            rc = WRONG;
    free(h);
    return rc;
}

/* --- barriers --------------------------------------------------------------------------------- */

static __global__ void reverse_kernel(float *y, const float *x, int barrier)
{
    SHARED(float, t, [64]);
    int i = (int)threadIdx.x;
    t[i] = x[i];
    if (barrier)
        __syncthreads();
    y[i] = t[63 - i];
}

static int missing_barrier()
{
    float *x = device_floats(64, 1), *y = device_floats(64, 0);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, reverse_kernel, y, x, (int)sound);
    return expect(y, 64, 1);
}

/* The same without harm in the order that threads run in here: only the hooks see it. */
static __global__ void race_kernel(float *y, int barrier)
{
    SHARED(float, t, [64]);
    int i = (int)threadIdx.x;
    t[i] = 1;
    if (barrier)
        __syncthreads();
    y[i] = i > 0 ? t[i - 1] : 1;
}

static int benign_race()
{
    float *y = device_floats(64, 0);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, race_kernel, y, (int)sound);
    return expect(y, 64, 1);
}

static __global__ void divergent_kernel(float *y, int bug)
{
    if (bug && threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1;
}

static int divergent_barrier()
{
    float *y = device_floats(64, 0);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, divergent_kernel, y, (int)!sound);
    return expect(y, 64, 1);
}

static __global__ void early_kernel(float *y, int n)
{
    int i = (int)threadIdx.x;
    if (i >= n)
        return;
    y[i] = 1;
    __syncthreads();
}

static int early_return()
{
    float *y = device_floats(64, 1);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, early_kernel, y, sound ? 64 : 40);
    return expect(y, 64, 1);
}

static __global__ void half_warp_kernel(float *y, unsigned mask)
{
    float v = 1;
    if (threadIdx.x < 16)
        v = __shfl_sync(mask, v, 0);
    y[threadIdx.x] = v;
}

static int divergent_shuffle()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, half_warp_kernel, y, sound ? 0xffffu : 0xffffffffu);
    return expect(y, 32, 1);
}

static __global__ void inactive_kernel(float *y, int src)
{
    float v = 1;
    if (threadIdx.x < 16)
        v = __shfl_sync(0xffffu, v, src);
    y[threadIdx.x] = v;
}

static int inactive_source_lane()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, inactive_kernel, y, sound ? 3 : 20);
    return expect(y, 32, 1);
}

/* Even and odd lanes meet among themselves, at two places, while the others wait at theirs. */
static __global__ void two_groups_kernel(float *y, unsigned odd_mask)
{
    int lane = (int)threadIdx.x;
    float v = (float)lane;
    if (lane % 2 == 0)
        v = __shfl_sync(0x55555555u, v, 2);
    else
        v = __shfl_sync(odd_mask, v, 3);
    y[lane] = v - (float)(2 + lane % 2) + 1;
}

static int groups_overlap()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, two_groups_kernel, y, sound ? 0xaaaaaaaau : 0xaaaaaaabu);
    return expect(y, 32, 1);
}

static __global__ void warp_share_kernel(float *y, int sync)
{
    SHARED(float, t, [32]);
    int i = (int)threadIdx.x;
    t[i] = 1;
    if (sync)
        __syncwarp();
    y[i] = t[i ? i - 1 : 0];
}

static int missing_syncwarp()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, warp_share_kernel, y, (int)sound);
    return expect(y, 32, 1);
}

/* A shuffle brings lanes together and orders no memory. */
static __global__ void shuffle_share_kernel(float *y, int sync)
{
    SHARED(float, t, [32]);
    int i = (int)threadIdx.x;
    t[i] = 1;
    int before = __shfl_sync(0xffffffffu, i, i ? i - 1 : 0);
    if (sync)
        __syncwarp();
    y[i] = t[before];
}

static int shuffle_for_syncwarp()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, shuffle_share_kernel, y, (int)sound);
    return expect(y, 32, 1);
}

/* --- memory ----------------------------------------------------------------------------------- */

static __global__ void fill_kernel(float *y, int n, float v)
{
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < n)
        y[i] = v;
}

static int write_behind_global()
{
    float *y = device_floats(100, 0);
    cudaLaunchConfig_t cfg = shape(1, 128);
    GPU_LAUNCH(&cfg, fill_kernel, y, sound ? 100 : 101, 1.0f);
    return expect(y, 100, 1);
}

static __global__ void read_kernel(float *y, const float *x, int n)
{
    float s = 0;
    for (int i = 0; i < n; i++)
        s = fmaxf(s, x[i]);
    y[threadIdx.x] = s;
}

static int read_behind_global()
{
    float *x = device_floats(100, 1), *y = device_floats(32, 1);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, read_kernel, y, x, sound ? 100 : 101);
    return expect(y, 32, 1);
}

static __global__ void shared_write_kernel(float *y, int n)
{
    SHARED(float, t, [32]);
    int i = (int)threadIdx.x;
    if (i < n)
        t[i] = 1;
    __syncthreads();
    if (i < 32)
        y[i] = t[i];
}

static int write_behind_shared()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, shared_write_kernel, y, sound ? 32 : 33);
    return expect(y, 32, 1);
}

static __global__ void shared_unset_kernel(float *y, int set)
{
    SHARED(float, t, [32]);
    int i = (int)threadIdx.x;
    if (set)
        t[i] = 1;
    y[i] = t[i];
}

static int unset_shared()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, shared_unset_kernel, y, (int)sound);
    return expect(y, 32, 1);
}

static __global__ void copy_kernel(float *y, const float *x)
{
    y[threadIdx.x] = x[threadIdx.x];
}

static int unwritten_global()
{
    float *x = nullptr, *y = device_floats(32, 0);
    cudaMalloc((void **)&x, 32 * sizeof *x);
    cudaLaunchConfig_t cfg = shape(1, 32);
    if (sound)
        x = device_floats(32, 1);
    GPU_LAUNCH(&cfg, copy_kernel, y, (const float *)x);
    return expect(y, 32, 1);
}

static int host_pointer()
{
    static float host[32];
    float *x = device_floats(32, 0), *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, copy_kernel, y, (const float *)(sound ? x : host));
    return expect(y, 32, 0);
}

static int host_reads_device()
{
    float *y = device_floats(32, 1);
    float v = 0;
    if (sound)
        cudaMemcpy(&v, y, sizeof v, cudaMemcpyDeviceToHost);
    else
        v = *(volatile float *)y;
    return v == 1 ? 0 : WRONG;
}

static __global__ void vector_kernel(float *y, const char *x)
{
    uint4 v = ld_stream(x);
    y[threadIdx.x] = __uint_as_float(v.x);
}

static int misaligned_vector()
{
    float *x = device_floats(32, 1), *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, vector_kernel, y, (const char *)x + (sound ? 16 : 4));
    return expect(y, 32, 1);
}

static __global__ void neighbours_kernel(float *y, int bug)
{
    int b = (int)blockIdx.x;
    if (threadIdx.x == 0)
        y[bug ? 0 : b] = 1;
}

static int blocks_race()
{
    float *y = device_floats(4, 1);
    cudaLaunchConfig_t cfg = shape(4, 32);
    GPU_LAUNCH(&cfg, neighbours_kernel, y, (int)!sound);
    return expect(y, 4, 1);
}

/* --- host ------------------------------------------------------------------------------------- */

static int missing_host_sync()
{
    float *y = device_floats(32, 0), h[32] = {0};
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, fill_kernel, y, 32, 1.0f);
    cudaMemcpyAsync(h, y, sizeof h, cudaMemcpyDeviceToHost, stream);
    if (sound)
        cudaStreamSynchronize(stream);
    int rc = h[31] == 1 ? 0 : WRONG;
    cudaStreamSynchronize(stream);
    return rc;
}

static int buffer_reused_early()
{
    float *y = device_floats(32, 0), *h = nullptr;
    cudaHostAlloc((void **)&h, 32 * sizeof *h, cudaHostAllocDefault);
    for (int i = 0; i < 32; i++)
        h[i] = 1;
    cudaMemcpyAsync(y, h, 32 * sizeof *h, cudaMemcpyHostToDevice, stream);
    if (sound)
        cudaStreamSynchronize(stream);
    for (int i = 0; i < 32; i++)
        h[i] = 2;
    return expect(y, 32, 1);
}

static int missing_event()
{
    float *x = device_floats(32, 0), *y = device_floats(32, 0);
    cudaStream_t second;
    cudaEvent_t event;
    cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, fill_kernel, x, 32, 1.0f);
    cudaEventRecord(event, stream);
    if (sound)
        cudaStreamWaitEvent(second, event, 0);
    cfg.stream = second;
    GPU_LAUNCH(&cfg, copy_kernel, y, (const float *)x);
    cudaStreamSynchronize(second);
    return expect(y, 32, 1);
}

static int too_much_shared()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    cfg.dynamicSmemBytes = 64 << 10;
    if (sound)
        cudaFuncSetAttribute(fill_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10);
    return GPU_LAUNCH(&cfg, fill_kernel, y, 32, 1.0f) == cudaSuccess ? expect(y, 32, 1) : WRONG;
}

/* 48 KiB are for both kinds together, as long as nobody asked for more. */
static __global__ void both_shared_kernel(float *y)
{
    SHARED(float, t, [5 << 10]);
    SHARED_DYN(float, d);
    int i = (int)threadIdx.x;
    t[i] = 1;
    d[i] = t[i];
    y[i] = d[i];
}

static int static_and_dynamic_shared()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    cfg.dynamicSmemBytes = 40 << 10;
    if (sound)
        cudaFuncSetAttribute(both_shared_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             40 << 10);
    return GPU_LAUNCH(&cfg, both_shared_kernel, y) == cudaSuccess ? expect(y, 32, 1) : WRONG;
}

static int too_many_threads()
{
    float *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, sound ? 1024 : 1056);
    return GPU_LAUNCH(&cfg, fill_kernel, y, 32, 1.0f) == cudaSuccess ? expect(y, 32, 1) : WRONG;
}

static int malloc_in_capture()
{
    float *p = nullptr;
    cudaGraph_t g = nullptr;
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (!sound)
        cudaMalloc((void **)&p, 16);
    return cudaStreamEndCapture(stream, &g) == cudaSuccess && g ? 0 : WRONG;
}

static int wait_in_capture()
{
    cudaGraph_t g = nullptr;
    cudaEvent_t event;
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    cudaEventRecord(event, stream);
    cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
    if (!sound)
        cudaEventSynchronize(event);
    int rc = cudaStreamEndCapture(stream, &g) == cudaSuccess && g ? 0 : WRONG;
    cudaEventDestroy(event); /* which may happen while its place is still to come */
    cudaStreamSynchronize(stream);
    return rc;
}

/* --- programmatic dependent launch ------------------------------------------------------------ */

static __global__ void pdl_kernel(float *y, const float *x, int early, int wait)
{
    float v = early ? x[threadIdx.x] : 0;
    if (wait)
        griddep_wait();
    if (!early)
        v = x[threadIdx.x];
    y[threadIdx.x] = v;
}

static int pdl_run(int early, int wait)
{
    float *x = device_floats(32, 0), *y = device_floats(32, 0);
    cudaLaunchConfig_t cfg = shape(1, 32);
    GPU_LAUNCH(&cfg, fill_kernel, x, 32, 1.0f);
    cudaLaunchAttribute attr[1];
    attr[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attr[0].val.programmaticStreamSerializationAllowed = 1;
    cfg.attrs = attr;
    cfg.numAttrs = 1;
    GPU_LAUNCH(&cfg, pdl_kernel, y, (const float *)x, early, wait);
    return expect(y, 32, 1);
}

static int pdl_read_before_wait()
{
    return pdl_run(!sound, 1);
}

static int pdl_no_wait()
{
    return pdl_run(0, sound);
}

static __global__ void spin_kernel(unsigned *flag, float *y, int reverse)
{
    unsigned me = blockIdx.x * 0u + threadIdx.x / 32;
    if (me == (reverse ? 0u : 1u)) {
        if (threadIdx.x % 32 == 0)
            st_release(flag, 1);
    }
    __syncthreads();
    if (ld_acquire(flag) == 1)
        y[threadIdx.x] = 1;
    __syncwarp();
}

static int flag_is_seen() /* no bug at all: flags work */
{
    float *y = device_floats(64, 0);
    unsigned *flag = nullptr;
    cudaMalloc((void **)&flag, 4);
    cudaMemset(flag, 0, 4);
    cudaLaunchConfig_t cfg = shape(1, 64);
    GPU_LAUNCH(&cfg, spin_kernel, flag, y, 0);
    return expect(y, 64, 1);
}

/* --- order ------------------------------------------------------------------------------------ */

enum { ORDER_BLOCKS = 4, ORDER_THREADS = 64, ORDER = ORDER_BLOCKS * ORDER_THREADS };

static __global__ void order_kernel(unsigned *turn, unsigned *ticket)
{
    unsigned me = blockIdx.x * ORDER_THREADS + threadIdx.x;
    turn[atomicAdd(ticket, 1u)] = me;
}

/* Who ran when, in two launches. */
static void order_of(const char *seed, unsigned turn[2][ORDER])
{
    unsigned *d = nullptr, *ticket = nullptr;
    setenv("EMU_SEED", seed, 1); /* read at the first launch of this process */
    cudaMalloc((void **)&d, sizeof turn[0]);
    cudaMalloc((void **)&ticket, sizeof *ticket);
    cudaLaunchConfig_t cfg = shape(ORDER_BLOCKS, ORDER_THREADS);
    for (int i = 0; i < 2; i++) {
        cudaMemset(ticket, 0, sizeof *ticket);
        GPU_LAUNCH(&cfg, order_kernel, d, ticket);
        cudaStreamSynchronize(stream);
        cudaMemcpy(turn[i], d, sizeof turn[i], cudaMemcpyDeviceToHost);
    }
}

static int rising(const unsigned *v, int n)
{
    int ups = 0;
    for (int i = 1; i < n; i++)
        ups += v[i] == v[i - 1] + 1;
    return ups;
}

/* No bug either: a seed mixes threads and blocks, in each launch anew; none leaves them in order. */
static int seed_mixes()
{
    unsigned turn[2][ORDER];
    bool seen[ORDER] = {};
    order_of(sound ? "5" : "0", turn);
    if (!sound)
        return rising(turn[0], ORDER) == ORDER - 1 ? WRONG : 0;
    for (unsigned t : turn[0])
        seen[t % ORDER] = true;
    for (bool s : seen)
        if (!s)
            return WRONG;
    bool blocks_in_order = true, blocks_alike = true, threads_alike = true;
    unsigned at[2] = {};
    for (unsigned b = 0; b < ORDER_BLOCKS; b++) {
        unsigned first = turn[0][b * ORDER_THREADS] / ORDER_THREADS;
        blocks_in_order &= first == b;
        blocks_alike &= turn[1][b * ORDER_THREADS] / ORDER_THREADS == first;
        for (unsigned l = 0; l < 2; l++)
            if (turn[l][b * ORDER_THREADS] < ORDER_THREADS)
                at[l] = b * ORDER_THREADS; /* where block 0 ran */
    }
    for (unsigned i = 0; i < ORDER_THREADS; i++)
        threads_alike &= turn[0][at[0] + i] == turn[1][at[1] + i];
    /* In a random order one pair of neighbours is expected; more than 16 are none. */
    return rising(turn[0], ORDER) <= 16 && rising(turn[1], ORDER) <= 16 && !blocks_in_order &&
                   !blocks_alike && !threads_alike
               ? 0
               : WRONG;
}

/* Blocks dealt to several OS threads (where the build does that): atomics, fences and barriers hold;
 * 64 blocks of 128 threads are enough to be dealt. */
static __global__ void dealt_kernel(float *y, float *partial, unsigned *ticket, unsigned *most,
                                    int fault)
{
    SHARED(float, t, [128]);
    SHARED(unsigned, last, [1]);
    int i = (int)threadIdx.x;
    t[i] = (float)i;
    if (fault && blockIdx.x == 63 && i >= 96)
        return;
    __syncthreads();
    atomicMax(most, blockIdx.x * 128 + (unsigned)i);
    if (i == 0) {
        float sum = 0;
        for (int k = 0; k < 128; k++)
            sum += t[127 - k];
        partial[blockIdx.x] = sum;
        __threadfence();
        last[0] = atomicAdd(ticket, 1u) == gridDim.x - 1;
    }
    __syncthreads();
    if (last[0] && i == 0) {
        __threadfence();
        float all = 0;
        for (unsigned b = 0; b < gridDim.x; b++)
            all += partial[b];
        y[0] = all; /* 64 * 127 * 128 / 2: exact */
    }
}

static int os_threads()
{
    unsigned *word = nullptr, got[2];
    setenv("EMU_THREADS", "4", 1);
    float *y = device_floats(1, 0), *partial = device_floats(64, 0);
    cudaMalloc((void **)&word, sizeof got);
    for (int run = 0; run < 20; run++) {
        cudaMemset(word, 0, sizeof got);
        cudaLaunchConfig_t cfg = shape(64, 128);
        GPU_LAUNCH(&cfg, dealt_kernel, y, partial, word, word + 1, (int)!sound);
        cudaStreamSynchronize(stream);
        cudaMemcpy(got, word, sizeof got, cudaMemcpyDeviceToHost);
        if (expect(y, 1, 64 * 8128) || got[0] != 64 || got[1] != 64 * 128 - 1)
            return WRONG;
    }
    return 0;
}

static const struct bug {
    const char *name;
    int (*run)();
    int caught_by;    /* builds that must report it */
    const char *says; /* what the report holds; "" = a wrong result will do */
} bugs[] = {
    {"missing_barrier", missing_barrier, PLAIN | ASAN | HOOKS, ""},
    {"benign_race", benign_race, HOOKS, "emu: race"},
    {"divergent_barrier", divergent_barrier, PLAIN | ASAN | HOOKS, "emu: barrier"},
    {"early_return", early_return, PLAIN | ASAN | HOOKS, "emu: "},
    {"divergent_shuffle", divergent_shuffle, PLAIN | ASAN | HOOKS, "emu: "},
    {"inactive_source_lane", inactive_source_lane, PLAIN | ASAN | HOOKS, ""},
    {"groups_overlap", groups_overlap, PLAIN | ASAN | HOOKS, "emu: warp"},
    {"missing_syncwarp", missing_syncwarp, HOOKS, "emu: race"},
    {"shuffle_for_syncwarp", shuffle_for_syncwarp, HOOKS, "emu: race"},
    {"write_behind_global", write_behind_global, PLAIN | ASAN | HOOKS, ""},
    {"read_behind_global", read_behind_global, ASAN | HOOKS, ""},
    {"write_behind_shared", write_behind_shared, PLAIN | ASAN, ""},
    {"unset_shared", unset_shared, PLAIN | ASAN | HOOKS, ""},
    {"unwritten_global", unwritten_global, PLAIN | ASAN | HOOKS, ""},
    {"host_pointer", host_pointer, HOOKS, "emu: outside"},
    {"host_reads_device", host_reads_device, GUARD, ""},
    {"misaligned_vector", misaligned_vector, PLAIN | ASAN | HOOKS, "emu: aligned"},
    {"blocks_race", blocks_race, HOOKS, "emu: blocks"},
    {"missing_host_sync", missing_host_sync, PLAIN | ASAN | HOOKS, ""},
    {"buffer_reused_early", buffer_reused_early, PLAIN | ASAN | HOOKS, ""},
    {"missing_event", missing_event, PLAIN | ASAN | HOOKS, ""},
    {"too_much_shared", too_much_shared, PLAIN | ASAN | HOOKS, ""},
    {"static_and_dynamic_shared", static_and_dynamic_shared, PLAIN | ASAN | HOOKS, "emu: limit"},
    {"too_many_threads", too_many_threads, PLAIN | ASAN | HOOKS, ""},
    {"malloc_in_capture", malloc_in_capture, PLAIN | ASAN | HOOKS, ""},
    {"wait_in_capture", wait_in_capture, PLAIN | ASAN | HOOKS, ""},
    {"pdl_read_before_wait", pdl_read_before_wait, HOOKS, "emu: pdl"},
    {"pdl_no_wait", pdl_no_wait, PLAIN | ASAN | HOOKS, "emu: pdl"},
    {"seed_mixes", seed_mixes, PLAIN | ASAN | HOOKS, ""}, /* its "bug" is order without a seed */
    {"os_threads", os_threads, PLAIN | ASAN | HOOKS, "kernel dealt_kernel, block 63"},
    {"flag_is_seen", flag_is_seen, 0, ""},
};

/* Runs b in a child: its exit status (or 128 + signal), and what it wrote to stderr. */
static int child(const struct bug *b, bool twin, bool guard, char *text, size_t cap)
{
    int fd[2];
    if (pipe(fd) < 0)
        exit(2);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        alarm(60);
        if (guard)
            setenv("EMU_HOST_GUARD", "1", 1);
        sound = twin;
        cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
        _exit(b->run());
    }
    close(fd[1]);
    size_t n = 0;
    ssize_t got;
    char sink[256];
    while ((got = n < cap - 1 ? read(fd[0], text + n, cap - 1 - n)
                              : read(fd[0], sink, sizeof sink)) > 0)
        n += n < cap - 1 ? (size_t)got : 0;
    text[n] = 0;
    close(fd[0]);
    int st = 0;
    waitpid(pid, &st, 0);
    return WIFEXITED(st) ? WEXITSTATUS(st) : 128 + WTERMSIG(st);
}

int main(int argc, char **argv)
{
    static char text[65536];
    int n = 0, bad = 0;
    for (const struct bug &b : bugs) {
        if (argc > 1) {
            if (strcmp(argv[1], b.name) != 0)
                continue;
            cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
            return b.run();
        }
        int rc = child(&b, true, false, text, sizeof text);
        bad += rc != 0;
        printf("%s %d - emu_bugs_%s_sound_twin_passes\n", rc == 0 ? "ok" : "not ok", ++n, b.name);
        if (rc)
            printf("# exit %d: %.300s\n", rc, text);
        bool guard = b.caught_by == GUARD;
        if (!(b.caught_by & THIS_BUILD) && !(guard && THIS_BUILD == PLAIN))
            continue;
        rc = child(&b, false, guard, text, sizeof text);
        bool good = rc != 0 && strstr(text, b.says);
        bad += !good;
        printf("%s %d - emu_bugs_%s_is_caught\n", good ? "ok" : "not ok", ++n, b.name);
        text[strcspn(text, "\n")] = 0;
        printf("# exit %d: %.200s\n", rc, text);
    }
    printf("1..%d\n", n);
    return bad != 0;
}
