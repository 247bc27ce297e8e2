/* A block while it runs: sched.cc, warp.cc. */
#ifndef APRFS_KERNELS_EMU_SCHED_H
#define APRFS_KERNELS_EMU_SCHED_H

#include "kernels/emu/emu_internal.h"

#include <memory>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

enum emu_state {
    EMU_RUNS,
    EMU_AT_BARRIER,
    EMU_AT_WARP,
    EMU_DONE,
};

struct emu_ctx {
#if defined(__x86_64__)
    void *sp = nullptr;
#else
    ucontext_t uc;
#endif
};

/* What a lane brings to a warp operation. */
struct emu_lane_arg {
    int op; /* enum emu_warp_op */
    unsigned mask;
    uint64_t value;
    int src;
    void (*f)(void *const *arg); /* EMU_COLLECTIVE */
    void *arg;
    uint64_t result;
};

struct emu_fiber {
    emu_ctx ctx;
    char *stack = nullptr;
    int tid = 0;
    emu_state state = EMU_RUNS;
    emu_where at;
    bool pdl_waited = true;
    emu_lane_arg *pending = nullptr; /* on the fiber's stack while it waits at a warp operation */
};

struct emu_warp_state {
    unsigned epoch = 0; /* warp-wide synchronisations passed */
};

struct emu_array {
    char *p;
    size_t size;
    const char *name;
    emu_where at;
};

struct emu_block {
    const emu_grid *grid = nullptr;
    uint64_t id = 0;
    dim3 idx;
    std::vector<emu_fiber> fiber;
    std::vector<emu_warp_state> warp;
    std::unique_ptr<char[]> stacks;
    emu_fiber *cur = nullptr; /* NULL: the scheduler itself */
    emu_ctx main;
    const void *main_stack = nullptr; /* ASan only */
    size_t main_size = 0;

    int n_done = 0, at_barrier = 0;
    emu_where barrier; /* where the waiting ones stand */
    unsigned epoch = 0;

    std::vector<char> shared;
    std::vector<emu_array> array;
    size_t shared_used = 0, shared_static = 0;
    char *dyn = nullptr;
};

extern thread_local emu_block *emu_now;
void emu_give_way(emu_block *b);
bool emu_hooked(); /* built with the access hooks */

#endif
