/* Shared by the emulation's own files; kernels never see it. */
#ifndef APRFS_KERNELS_EMU_EMU_INTERNAL_H
#define APRFS_KERNELS_EMU_EMU_INTERNAL_H

#include "kernels/emu/cuda_emu.h"

#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
/* Before a call that does not return ASan tidies the thread's stack, and takes a fiber's for it. */
#define EMU_NORETURN
#else
#define EMU_ASAN     0
#define EMU_NORETURN [[noreturn]]
#endif

enum {
    EMU_MAX_THREADS = 1024,
    EMU_STACK = EMU_ASAN ? 256 << 10 : 64 << 10,
    EMU_GUARD = 256,               /* bytes of guard zone on either side of an array */
    EMU_SHARED_DEFAULT = 48 << 10, /* without the function attribute */
    EMU_SHARED_MAX = 227 << 10,
};

/* Prints "emu: <kind>: ..." and ends the process with EMU_EXIT. */
EMU_NORETURN void emu_fail(const char *kind, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* One launch, as queued. */
struct emu_grid {
    std::string name;
    dim3 grid, block;
    size_t dyn = 0;
    size_t shared_most = 0;                  /* static and dynamic together */
    bool pdl = false;                        /* programmatic stream serialisation asked for */
    void (*run)(const void *args) = nullptr; /* one thread */
    std::shared_ptr<void> args;              /* the copied arguments, which a kernel may read */
    size_t n_args = 0;
    uint64_t launch = 0; /* serial number, given when it runs */
};
void emu_run_grid(const emu_grid &g);

/* A place in a kernel's source. */
struct emu_where {
    const char *file = nullptr;
    int line = 0;
};

static inline bool emu_all_bytes(const char *p, size_t n, unsigned char v)
{
    return n == 0 || ((unsigned char)p[0] == v && memcmp(p, p + 1, n - 1) == 0);
}

uint64_t emu_seed(); /* 0: in order */
struct emu_rng {
    uint64_t s;
    explicit emu_rng(uint64_t seed) : s(seed * 0x9e3779b97f4a7c15u + 0x2545f4914f6cdd1du)
    {
    }
    uint64_t next()
    {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        return s;
    }
    unsigned below(unsigned n)
    {
        return (unsigned)(next() >> 33) % n;
    }
};

/* What runs now; NULL / -1 on the host. */
bool emu_in_kernel();
int emu_thread_id();     /* linear in the block */
uint64_t emu_block_id(); /* linear in the grid */
uint64_t emu_launch_no();
unsigned emu_block_epoch();          /* barriers the current block has passed */
unsigned emu_warp_epoch(int thread); /* __syncwarp() of all lanes that its warp has passed */
bool emu_pdl_waited(); /* the current thread has called griddep_wait (true without PDL) */
void emu_set_pdl_waited();

/* A device allocation that holds p; false: none. */
struct emu_alloc {
    char *base;
    size_t size;
};
bool emu_find_alloc(const void *p, emu_alloc *out);

/* Hooks (hooks.cc in the hooks build; empty otherwise). */
void emu_hook_alloc(char *base, size_t size);
void emu_hook_free(char *base, size_t size);
void emu_hook_host_write(const void *p, size_t n); /* memcpy, memset by the runtime */
void emu_hook_host_read(const void *p, size_t n);
void emu_hook_grid_begin(const emu_grid &g);
void emu_hook_grid_end();
void emu_hook_block_begin(char *shared, size_t n);
void emu_hook_full_dependency(); /* a launch without PDL, or the host synchronised */

#endif
