/* The GPU behind a C face: device, memory, streams, events, graphs. Implemented by gpu.cu over the
 * CUDA runtime (or over the emulation, kernels/emu), and by gpu_none.c where a build has neither:
 * there every function that can fail answers -ENODEV.
 *
 * One device: the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses). A stream belongs to one
 * thread at a time; gpu_last_error() is the calling thread's.
 *
 * Returns are 0 or: -ENODEV no device or no driver, -ENOMEM device memory, -EINVAL the caller's
 * slip, -EIO anything the device or the driver refused, a driver that fails or is too old included.
 * What is queued fails late: such an error comes from the next call that waits, and the stream is of
 * no more use. */
#ifndef APRFS_KERNELS_GPU_H
#define APRFS_KERNELS_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct gpu_stream; /* a queue of work in order */
struct gpu_event;  /* a place in a stream */
struct gpu_graph;  /* recorded work, replayed as one */

struct gpu_info {
    char name[256];
    int cc_major, cc_minor; /* compute capability */
    int n_sm;               /* multiprocessors */
    uint64_t mem_total, mem_free;
    int driver, runtime; /* CUDA versions: 1000 * major + 10 * minor */
    bool emulated;       /* kernels/emu stands in for a device */
};

/* What the last failed call of this thread failed with: "rmsnorm: n_row 0: ...". Never NULL. */
const char *gpu_last_error(void);

int gpu_device_info(struct gpu_info *out);

/* --- memory ------------------------------------------------------------------------------- */

/* n > 0 bytes of device memory, aligned to 256, of unknown content. */
int gpu_alloc(void **p, uint64_t n);
void gpu_free(void *p); /* waits for the device; NULL is fine */
/* Host memory that copies need no staging for. */
int gpu_host_alloc(void **p, uint64_t n);
void gpu_host_free(void *p); /* waits, as gpu_free() does */

/* --- streams ------------------------------------------------------------------------------ */

int gpu_stream_new(struct gpu_stream **out);
void gpu_stream_free(struct gpu_stream *s); /* waits; NULL is fine */
/* Waits for all that is queued; late errors of it come back here. */
int gpu_stream_sync(struct gpu_stream *s);

/* Queued copies: src (gpu_upload) and dst (gpu_download) are in use until a sync. */
int gpu_upload(struct gpu_stream *s, void *dst, const void *src, size_t n);
int gpu_download(struct gpu_stream *s, void *dst, const void *src, size_t n);
int gpu_zero(struct gpu_stream *s, void *p, size_t n);

/* --- events ------------------------------------------------------------------------------- */

int gpu_event_new(struct gpu_event **out);
void gpu_event_free(struct gpu_event *e); /* NULL is fine */
int gpu_event_record(struct gpu_event *e, struct gpu_stream *s);
/* What s is given from here on starts after e's place in its stream. */
int gpu_event_wait(struct gpu_stream *s, struct gpu_event *e);
int gpu_event_sync(struct gpu_event *e);

/* --- graphs ------------------------------------------------------------------------------- */

/* Between begin and end what s is given is recorded, not run; arguments are copied, device memory
 * they point to is read at each launch. Allocating, freeing or waiting in between is -EIO, and the
 * recording is lost. */
int gpu_graph_begin(struct gpu_stream *s);
int gpu_graph_end(struct gpu_stream *s, struct gpu_graph **out);
int gpu_graph_launch(struct gpu_graph *g, struct gpu_stream *s);
void gpu_graph_free(struct gpu_graph *g); /* NULL is fine */

#ifdef __cplusplus
}
#endif
#endif
