/* gpu.h over the CUDA runtime. Kernels are elsewhere, one op per file. */
#include "kernels/common.cuh"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct gpu_event {
    cudaEvent_t cuda;
};

struct gpu_graph {
    cudaGraphExec_t exec;
};

static thread_local char last_error[512] = "no error";

const char *gpu_last_error(void)
{
    return last_error;
}

int gpu_fail(int rc, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(last_error, sizeof last_error, fmt, ap);
    va_end(ap);
    return rc;
}

static int told(cudaError_t e, const char *what)
{
    if (e == cudaSuccess)
        return 0;
    cudaGetLastError(); /* a refused call is told once; the next launch starts clean */
    return gpu_fail(e == cudaErrorMemoryAllocation ? -ENOMEM : -EIO, "%s: %s (%s)", what,
                    cudaGetErrorString(e), cudaGetErrorName(e));
}

int gpu_launched(const char *op)
{
    return told(cudaGetLastError(), op);
}

/* -ENODEV, and what is missing: CUDA calls an absent driver too old. A driver that is there and fails
 * is -EIO: a GPU may well be behind it, and nobody is to take its failure for its absence. */
static int no_device(cudaError_t e)
{
    int driver = 0, runtime = 0;
    cudaGetLastError();
    if (e == cudaSuccess || e == cudaErrorNoDevice)
        return gpu_fail(-ENODEV, "no CUDA device: %s",
                        e != cudaSuccess ? cudaGetErrorString(e) : "the driver shows none");
    if (e == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess &&
        cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
        if (driver == 0)
            return gpu_fail(-ENODEV, "no CUDA device: no NVIDIA driver is loaded");
        return gpu_fail(-EIO, "the driver is for CUDA %d.%d, needed is %d.%d", driver / 1000,
                        driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    }
    return gpu_fail(-EIO, "the driver cannot show its devices: %s (%s)", cudaGetErrorString(e),
                    cudaGetErrorName(e));
}

int gpu_device_info(struct gpu_info *out)
{
    int n = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n == 0)
        return no_device(e);
    cudaDeviceProp p;
    size_t mem_free = 0, mem_total = 0;
    int rc = told(cudaGetDeviceProperties(&p, 0), "device properties");
    if (rc == 0)
        rc = told(cudaMemGetInfo(&mem_free, &mem_total), "device memory");
    if (rc < 0)
        return rc;
    memset(out, 0, sizeof *out);
    snprintf(out->name, sizeof out->name, "%s", p.name);
    out->cc_major = p.major;
    out->cc_minor = p.minor;
    out->n_sm = p.multiProcessorCount;
    out->mem_total = mem_total;
    out->mem_free = mem_free;
#ifndef __CUDACC__
    out->emulated = true;
#endif
    rc = told(cudaDriverGetVersion(&out->driver), "driver version");
    return rc < 0 ? rc : told(cudaRuntimeGetVersion(&out->runtime), "runtime version");
}

/* --- memory ------------------------------------------------------------------------------ */

int gpu_alloc(void **p, uint64_t n)
{
    if (n == 0 || n > SIZE_MAX / 2)
        return gpu_fail(-EINVAL, "allocation of %llu bytes", (unsigned long long)n);
    void *mem = nullptr;
    int rc = told(cudaMalloc(&mem, (size_t)n), "device memory");
    if (rc < 0) {
        size_t mem_free = 0, mem_total = 0;
        if (rc == -ENOMEM && cudaMemGetInfo(&mem_free, &mem_total) == cudaSuccess)
            gpu_fail(rc, "%llu bytes of device memory asked for, %llu of %llu are free",
                     (unsigned long long)n, (unsigned long long)mem_free,
                     (unsigned long long)mem_total);
        return rc;
    }
    *p = mem;
    return 0;
}

void gpu_free(void *p)
{
    if (p)
        cudaFree(p);
}

int gpu_host_alloc(void **p, uint64_t n)
{
    if (n == 0 || n > SIZE_MAX / 2)
        return gpu_fail(-EINVAL, "pinned allocation of %llu bytes", (unsigned long long)n);
    void *mem = nullptr;
    int rc = told(cudaHostAlloc(&mem, (size_t)n, cudaHostAllocDefault), "pinned memory");
    if (rc == 0)
        *p = mem;
    return rc;
}

/* Copies that are queued still read or write it: CUDA promises to wait for them only in cudaFree. */
void gpu_host_free(void *p)
{
    if (!p)
        return;
    cudaDeviceSynchronize();
    cudaFreeHost(p);
}

/* --- streams ----------------------------------------------------------------------------- */

/* The oldest that CU_ARCHS in the Makefile names: below it there is no code to run. */
#define MIN_CC_MAJOR 8

int gpu_stream_new(struct gpu_stream **out)
{
    struct gpu_info info;
    int rc = gpu_device_info(&info);
    if (rc == 0 && info.cc_major < MIN_CC_MAJOR)
        rc = gpu_fail(-EIO, "%s has compute capability %d.%d, at least %d.0 is needed", info.name,
                      info.cc_major, info.cc_minor, MIN_CC_MAJOR);
    if (rc < 0)
        return rc;
    struct gpu_stream *s = (struct gpu_stream *)calloc(1, sizeof *s);
    if (!s)
        return gpu_fail(-ENOMEM, "no memory for a stream");
    rc = told(cudaStreamCreateWithFlags(&s->cuda, cudaStreamNonBlocking), "stream");
    if (rc < 0) {
        free(s);
        return rc;
    }
    *out = s;
    return 0;
}

void gpu_stream_free(struct gpu_stream *s)
{
    if (!s)
        return;
    cudaStreamSynchronize(s->cuda);
    cudaStreamDestroy(s->cuda);
    free(s);
}

int gpu_stream_sync(struct gpu_stream *s)
{
    return told(cudaStreamSynchronize(s->cuda), "waiting for the device");
}

int gpu_upload(struct gpu_stream *s, void *dst, const void *src, size_t n)
{
    return told(cudaMemcpyAsync(dst, src, n, cudaMemcpyHostToDevice, s->cuda), "upload");
}

int gpu_download(struct gpu_stream *s, void *dst, const void *src, size_t n)
{
    return told(cudaMemcpyAsync(dst, src, n, cudaMemcpyDeviceToHost, s->cuda), "download");
}

int gpu_zero(struct gpu_stream *s, void *p, size_t n)
{
    return told(cudaMemsetAsync(p, 0, n, s->cuda), "zeroing");
}

/* --- events ------------------------------------------------------------------------------ */

int gpu_event_new(struct gpu_event **out)
{
    struct gpu_event *e = (struct gpu_event *)calloc(1, sizeof *e);
    if (!e)
        return gpu_fail(-ENOMEM, "no memory for an event");
    int rc = told(cudaEventCreateWithFlags(&e->cuda, cudaEventDisableTiming), "event");
    if (rc < 0) {
        free(e);
        return rc;
    }
    *out = e;
    return 0;
}

void gpu_event_free(struct gpu_event *e)
{
    if (!e)
        return;
    cudaEventDestroy(e->cuda);
    free(e);
}

int gpu_event_record(struct gpu_event *e, struct gpu_stream *s)
{
    return told(cudaEventRecord(e->cuda, s->cuda), "event");
}

int gpu_event_wait(struct gpu_stream *s, struct gpu_event *e)
{
    return told(cudaStreamWaitEvent(s->cuda, e->cuda, 0), "event");
}

int gpu_event_sync(struct gpu_event *e)
{
    return told(cudaEventSynchronize(e->cuda), "waiting for an event");
}

/* --- graphs ------------------------------------------------------------------------------ */

/* Kernels are loaded when they are first met, which older drivers refuse while recording. */
#define LOADS_IN_CAPTURE 12030

int gpu_graph_begin(struct gpu_stream *s)
{
    int driver = 0, rc = told(cudaDriverGetVersion(&driver), "driver version");
    if (rc == 0 && driver < LOADS_IN_CAPTURE)
        rc = gpu_fail(-EIO, "recording a graph: the driver is for CUDA %d.%d, 12.3 is needed",
                      driver / 1000, driver % 1000 / 10);
    if (rc < 0)
        return rc;
    return told(cudaStreamBeginCapture(s->cuda, cudaStreamCaptureModeThreadLocal),
                "begin of a recording");
}

int gpu_graph_end(struct gpu_stream *s, struct gpu_graph **out)
{
    cudaGraph_t graph = nullptr;
    int rc = told(cudaStreamEndCapture(s->cuda, &graph), "end of a recording");
    if (rc < 0)
        return rc;
    struct gpu_graph *g = (struct gpu_graph *)calloc(1, sizeof *g);
    rc = g ? told(cudaGraphInstantiate(&g->exec, graph, 0), "graph")
           : gpu_fail(-ENOMEM, "no memory for a graph");
    cudaGraphDestroy(graph);
    if (rc < 0) {
        free(g);
        return rc;
    }
    *out = g;
    return 0;
}

int gpu_graph_launch(struct gpu_graph *g, struct gpu_stream *s)
{
    return told(cudaGraphLaunch(g->exec, s->cuda), "graph launch");
}

void gpu_graph_free(struct gpu_graph *g)
{
    if (!g)
        return;
    cudaGraphExecDestroy(g->exec);
    free(g);
}
