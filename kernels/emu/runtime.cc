/* The runtime: memory with guard zones, streams as queues, events, graphs by capture, launches.
 *
 * Nothing that is queued runs before the host synchronises: a host that forgets to, or reuses a
 * pinned buffer too early, reads wrong data here as on a device. */
#include "kernels/emu/emu_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <map>
#include <unordered_map>

static const unsigned char GUARD_BYTE = 0xA7;
enum { POISON = 0xFF, DEVICE_BYTES_SHIFT = 34 }; /* EMU_MEM: claims 16 GiB */

static thread_local cudaError_t last_error;

static cudaError_t fails(cudaError_t e)
{
    last_error = e;
    return e;
}

const char *cudaGetErrorName(cudaError_t e)
{
    switch (e) {
    case cudaSuccess:
        return "cudaSuccess";
    case cudaErrorInvalidValue:
        return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
        return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration:
        return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevicePointer:
        return "cudaErrorInvalidDevicePointer";
    case cudaErrorInsufficientDriver:
        return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
        return "cudaErrorNoDevice";
    case cudaErrorInvalidResourceHandle:
        return "cudaErrorInvalidResourceHandle";
    case cudaErrorNotReady:
        return "cudaErrorNotReady";
    case cudaErrorLaunchFailure:
        return "cudaErrorLaunchFailure";
    case cudaErrorNotSupported:
        return "cudaErrorNotSupported";
    case cudaErrorSystemNotReady:
        return "cudaErrorSystemNotReady";
    case cudaErrorStreamCaptureUnsupported:
        return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
        return "cudaErrorStreamCaptureInvalidated";
    }
    return "cudaErrorUnknown";
}

const char *cudaGetErrorString(cudaError_t e)
{
    return cudaGetErrorName(e);
}

cudaError_t cudaGetLastError()
{
    cudaError_t e = last_error;
    last_error = cudaSuccess;
    return e;
}

/* --- memory ------------------------------------------------------------------------------ */

struct allocation {
    size_t size;
    char *block; /* what was mapped or malloc'ed */
    size_t block_size;
};
static std::map<char *, allocation> &device()
{
    static std::map<char *, allocation> m;
    return m;
}
static size_t device_used;

static size_t device_bytes()
{
    static const char *const s = getenv("EMU_MEM");
    static const size_t n = s && atoll(s) > 0 ? (size_t)atoll(s) : (size_t)1 << DEVICE_BYTES_SHIFT;
    return n;
}

static bool host_guard()
{
    static const bool on = !EMU_ASAN && getenv("EMU_HOST_GUARD") != nullptr;
    return on;
}

static void protect_all(int prot)
{
    if (!host_guard())
        return;
    for (auto &a : device())
        mprotect(a.second.block, a.second.block_size, prot);
}

/* Device memory may be touched between these: a kernel runs, or the runtime copies. */
struct device_open {
    static int depth;
    device_open()
    {
        if (depth++ == 0)
            protect_all(PROT_READ | PROT_WRITE);
    }
    ~device_open()
    {
        if (--depth == 0)
            protect_all(PROT_NONE);
    }
};
int device_open::depth;

static void check_guards(const char *when)
{
    if (EMU_ASAN)
        return;
    for (auto &a : device()) {
        const char *p = a.first, *end = p + a.second.size;
        for (int i = 1; i <= EMU_GUARD; i++)
            if ((unsigned char)p[-i] != GUARD_BYTE || (unsigned char)end[i - 1] != GUARD_BYTE)
                emu_fail("memory", "a write %s an allocation of %zu bytes, seen at %s",
                         (unsigned char)p[-i] != GUARD_BYTE ? "before" : "behind", a.second.size,
                         when);
    }
}

bool emu_find_alloc(const void *p, emu_alloc *out)
{
    auto &m = device();
    auto it = m.upper_bound((char *)p);
    if (it == m.begin())
        return false;
    --it;
    if ((const char *)p >= it->first + it->second.size)
        return false;
    *out = {it->first, it->second.size};
    return true;
}

static bool capturing();

cudaError_t cudaMalloc(void **p, size_t n)
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    if (!p)
        return fails(cudaErrorInvalidValue);
    if (n > device_bytes() - device_used)
        return fails(cudaErrorMemoryAllocation);
    allocation a = {n, nullptr, 0};
    char *user;
    if (EMU_ASAN) {
        /* Exactly n bytes on the heap, so that ASan sees the first byte behind it. */
        if (posix_memalign((void **)&a.block, 256, n ? n : 1))
            return fails(cudaErrorMemoryAllocation);
        user = a.block;
    } else {
        a.block_size = (n + 2 * EMU_GUARD + 4095) / 4096 * 4096;
        a.block = (char *)mmap(nullptr, a.block_size, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (a.block == MAP_FAILED)
            return fails(cudaErrorMemoryAllocation);
        user = a.block + EMU_GUARD;
        memset(a.block, GUARD_BYTE, EMU_GUARD);
        memset(user + n, GUARD_BYTE, a.block_size - EMU_GUARD - n);
    }
    memset(user, POISON, n);
    emu_hook_alloc(user, n);
    device()[user] = a;
    device_used += n;
    if (host_guard() && device_open::depth == 0)
        mprotect(a.block, a.block_size, PROT_NONE);
    *p = user;
    return cudaSuccess;
}

static void run_everything();

cudaError_t cudaFree(void *p)
{
    if (!p)
        return cudaSuccess;
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    run_everything(); /* as on a device, freeing waits */
    auto it = device().find((char *)p);
    if (it == device().end())
        return fails(cudaErrorInvalidValue);
    device_open open;
    check_guards("cudaFree");
    emu_hook_free(it->first, it->second.size);
    device_used -= it->second.size;
    if (EMU_ASAN)
        free(it->second.block);
    else
        munmap(it->second.block, it->second.block_size);
    device().erase(it);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **p, size_t n, unsigned)
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    *p = nullptr;
    if (posix_memalign(p, 4096, n ? n : 1))
        return fails(cudaErrorMemoryAllocation);
    memset(*p, POISON, n);
    emu_hook_alloc((char *)*p, n);
    emu_hook_host_write(*p, n); /* the host fills it unseen */
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p)
{
    run_everything();
    if (p)
        emu_hook_free((char *)p, 0);
    free(p);
    return cudaSuccess;
}

/* --- streams, events, graphs ------------------------------------------------------------- */

typedef std::function<void()> work;

struct CUstream_st {
    std::deque<work> queue;
    uint64_t queued = 0, done = 0;
    CUgraph_st *capture = nullptr;
};
struct CUevent_st {
    CUstream_st *stream = nullptr;
    uint64_t at = 0; /* complete once stream->done >= at */
    CUgraph_st *capture = nullptr;
};
struct CUgraph_st {
    std::vector<work> work_list;
    CUstream_st *origin = nullptr;
    bool broken = false;
};
struct CUgraphExec_st {
    std::vector<work> work_list;
};

static CUstream_st null_stream;
static std::vector<CUstream_st *> &streams()
{
    static std::vector<CUstream_st *> v = {&null_stream};
    return v;
}
static CUgraph_st *capture_now; /* one at a time is enough for us */

static bool capturing()
{
    if (capture_now)
        capture_now->broken = true;
    return capture_now != nullptr;
}

static CUstream_st *of(cudaStream_t s)
{
    return s ? s : &null_stream;
}

static void drain(CUstream_st *s, uint64_t upto)
{
    device_open open;
    while (s->done < upto && !s->queue.empty()) {
        work w = std::move(s->queue.front());
        s->queue.pop_front();
        w();
        s->done++;
    }
}

static void run_everything()
{
    for (CUstream_st *s : streams())
        drain(s, s->queued);
}

static void enqueue(cudaStream_t stream, work w)
{
    CUstream_st *s = of(stream);
    if (s->capture) {
        s->capture->work_list.push_back(std::move(w));
        return;
    }
    s->queue.push_back(std::move(w));
    s->queued++;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned)
{
    *s = new CUstream_st;
    streams().push_back(*s);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s)
{
    if (!s)
        return fails(cudaErrorInvalidResourceHandle);
    drain(s, s->queued);
    auto &v = streams();
    v.erase(std::find(v.begin(), v.end(), s));
    delete s;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s)
{
    if (of(s)->capture)
        return capturing(), fails(cudaErrorStreamCaptureUnsupported);
    drain(of(s), of(s)->queued);
    device_open open;
    check_guards("cudaStreamSynchronize");
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    run_everything();
    device_open open;
    check_guards("cudaDeviceSynchronize");
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned)
{
    *e = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e)
{
    delete e;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream)
{
    CUstream_st *s = of(stream);
    e->stream = s;
    e->capture = s->capture;
    if (s->capture)
        return cudaSuccess; /* order within a capture is that of the calls */
    e->at = s->queued;
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned)
{
    CUstream_st *s = of(stream);
    if (!e->stream)
        return cudaSuccess; /* never recorded: no wait, as in CUDA */
    if (e->capture) {
        if (!s->capture)
            s->capture = e->capture;
        return s->capture == e->capture ? cudaSuccess : fails(cudaErrorStreamCaptureInvalidated);
    }
    CUstream_st *from = e->stream;
    uint64_t at = e->at;
    enqueue(stream, [from, at] { drain(from, at); });
    return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e)
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    if (e->stream)
        drain(e->stream, e->at);
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode)
{
    if (!s || s->capture || capture_now)
        return fails(cudaErrorStreamCaptureUnsupported);
    s->capture = capture_now = new CUgraph_st;
    capture_now->origin = s;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g)
{
    *g = nullptr;
    if (!s || !s->capture || s->capture->origin != s)
        return fails(cudaErrorInvalidValue);
    CUgraph_st *graph = s->capture;
    for (CUstream_st *other : streams())
        if (other->capture == graph)
            other->capture = nullptr;
    capture_now = nullptr;
    if (graph->broken) {
        delete graph;
        return fails(cudaErrorStreamCaptureInvalidated);
    }
    *g = graph;
    return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long)
{
    *x = new CUgraphExec_st{g->work_list};
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s)
{
    if (of(s)->capture)
        return fails(cudaErrorNotSupported);
    for (const work &w : x->work_list)
        enqueue(s, w);
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t g)
{
    delete g;
    return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x)
{
    delete x;
    return cudaSuccess;
}

/* --- copies ------------------------------------------------------------------------------ */

static void copy_now(void *dst, const void *src, size_t n)
{
    emu_hook_full_dependency();
    emu_hook_host_read(src, n);
    memcpy(dst, src, n);
    emu_hook_host_write(dst, n);
}

/* Both ends inside one allocation each, where they are device memory; else the call fails. */
static bool bounds_ok(const void *p, size_t n)
{
    emu_alloc a;
    return !emu_find_alloc(p, &a) || n <= a.size - (size_t)((const char *)p - a.base);
}

static bool side_ok(const void *p, bool want_device)
{
    emu_alloc a;
    return emu_find_alloc(p, &a) == want_device;
}

static bool copy_ok(const void *dst, const void *src, size_t n, cudaMemcpyKind kind)
{
    if (n == 0)
        return true;
    if (!bounds_ok(dst, n) || !bounds_ok(src, n))
        return false;
    if (kind == cudaMemcpyDefault)
        return true;
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return side_ok(dst, to_device) && side_ok(src, from_device);
}

/* EMU_BAD_COPY: a device whose memory does not hold what it was given, for who judges devices. */
static void copy_to(void *dst, const void *src, size_t n, bool to_device)
{
    static const char *const s = getenv("EMU_BAD_COPY");
    static const size_t least = s ? (size_t)atoll(s) : 0;
    copy_now(dst, src, n);
    if (least && to_device && n >= least)
        ((unsigned char *)dst)[n - 1] ^= 0x40;
}

cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t n, cudaMemcpyKind kind,
                            cudaStream_t s)
{
    if (!copy_ok(dst, src, n, kind))
        return fails(cudaErrorInvalidValue);
    enqueue(s, [=] { copy_to(dst, src, n, kind == cudaMemcpyHostToDevice); });
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *dst, const void *src, size_t n, cudaMemcpyKind kind)
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    if (!copy_ok(dst, src, n, kind))
        return fails(cudaErrorInvalidValue);
    run_everything();
    device_open open;
    copy_to(dst, src, n, kind == cudaMemcpyHostToDevice);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int v, size_t n, cudaStream_t s)
{
    if (!bounds_ok(p, n) || (n && !side_ok(p, true)))
        return fails(cudaErrorInvalidValue);
    enqueue(s, [=] {
        emu_hook_full_dependency();
        memset(p, v, n);
        emu_hook_host_write(p, n);
    });
    return cudaSuccess;
}

cudaError_t cudaMemset(void *p, int v, size_t n)
{
    if (capturing())
        return fails(cudaErrorStreamCaptureUnsupported);
    cudaError_t e = cudaMemsetAsync(p, v, n, nullptr);
    if (e == cudaSuccess)
        run_everything();
    return e;
}

/* --- device ------------------------------------------------------------------------------ */

cudaError_t cudaGetDeviceCount(int *n)
{
    const char *s = getenv("EMU_DEVICES");
    *n = s && (strcmp(s, "0") == 0 || strcmp(s, "broken") == 0) ? 0 : 1;
    if (*n)
        return cudaSuccess;
    return fails(strcmp(s, "0") == 0 ? cudaErrorNoDevice : cudaErrorSystemNotReady);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device)
{
    if (device != 0)
        return fails(cudaErrorInvalidValue);
    *p = {};
    snprintf(p->name, sizeof p->name, "CPU emulation");
    p->totalGlobalMem = device_bytes();
    p->sharedMemPerBlock = EMU_SHARED_DEFAULT;
    p->sharedMemPerBlockOptin = EMU_SHARED_MAX;
    const char *s = getenv("EMU_CC");
    int cc = s && atoi(s) > 0 ? atoi(s) : 90;
    p->major = cc / 10;
    p->minor = cc % 10;
    s = getenv("EMU_SMS");
    p->multiProcessorCount = s && atoi(s) > 0 ? atoi(s) : 6;
    p->maxThreadsPerBlock = EMU_MAX_THREADS;
    p->warpSize = 32;
    p->regsPerBlock = 65536;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *v)
{
    *v = 13000;
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    *total = device_bytes();
    *free_bytes = *total - device_used;
    return cudaSuccess;
}

/* --- launches ---------------------------------------------------------------------------- */

static std::unordered_map<const void *, int> &func_limits()
{
    static std::unordered_map<const void *, int> m;
    return m;
}

cudaError_t emu_func_limit(const void *func, int bytes)
{
    if (bytes < 0 || bytes > EMU_SHARED_MAX)
        return fails(cudaErrorInvalidValue);
    func_limits()[func] = bytes;
    return cudaSuccess;
}

static bool shape_ok(const dim3 &g, const dim3 &b)
{
    return g.x && g.y && g.z && b.x && b.y && b.z && g.x <= INT_MAX && g.y <= 65535 &&
           g.z <= 65535 && b.x <= 1024 && b.y <= 1024 && b.z <= 64 &&
           (uint64_t)b.x * b.y * b.z <= EMU_MAX_THREADS;
}

cudaError_t emu_launch_body(const cudaLaunchConfig_t *cfg, const char *name, const void *func,
                            void (*run)(const void *args), std::shared_ptr<void> args,
                            size_t n_args)
{
    static uint64_t serial;
    if (emu_in_kernel())
        emu_fail("launch", "a kernel launches %s", name);
    if (!shape_ok(cfg->gridDim, cfg->blockDim))
        return fails(cudaErrorInvalidConfiguration);
    auto limit = func_limits().find(func);
    bool asked = limit != func_limits().end();
    if (cfg->dynamicSmemBytes > (asked ? (size_t)limit->second : (size_t)EMU_SHARED_DEFAULT))
        return fails(cudaErrorInvalidValue);
    emu_grid g;
    g.name = name;
    g.grid = cfg->gridDim;
    g.block = cfg->blockDim;
    g.dyn = cfg->dynamicSmemBytes;
    g.shared_most = asked ? EMU_SHARED_MAX : EMU_SHARED_DEFAULT;
    g.run = run;
    g.args = std::move(args);
    g.n_args = n_args;
    for (unsigned i = 0; i < cfg->numAttrs; i++) {
        if (cfg->attrs[i].id == cudaLaunchAttributeProgrammaticStreamSerialization)
            g.pdl = cfg->attrs[i].val.programmaticStreamSerializationAllowed != 0;
        else
            return fails(
                cudaErrorNotSupported); /* clusters, cooperative: no kernel uses them yet */
    }
    enqueue(cfg->stream, [g]() mutable {
        g.launch = ++serial;
        if (!g.pdl)
            emu_hook_full_dependency();
        emu_run_grid(g);
    });
    return cudaSuccess;
}
