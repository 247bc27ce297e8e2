/* A block while it runs: sched.cc, fiber.cc, warp.cc, shared.cc, grid.cc. */
#ifndef APRFS_KERNELS_EMU_SCHED_H
#define APRFS_KERNELS_EMU_SCHED_H

#include "kernels/emu/emu_internal.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

struct emu_ctx {
#if defined(__x86_64__)
    void *sp = nullptr;
#else
    ucontext_t uc;
#endif
};

struct emu_warp_state;

struct emu_fiber {
    emu_ctx ctx;
    char *stack = nullptr; /* NULL: not yet begun, or done */
    emu_warp_state *warp = nullptr;
    unsigned lane = 0;
    int tid = 0;
    bool pdl_waited = true;
    dim3 idx;
    emu_where at; /* of a barrier or a yield; warp operations: emu_where_lane() */
};

/* What a lane says of the warp operation at which it waits. */
struct emu_meeting {
    int op; /* enum emu_op */
    unsigned mask;
    emu_where at;
};

/* Lanes as bits: each of a warp's lanes is in one of runs, waiting, at_barrier and done. */
struct emu_warp_state {
    unsigned runs = 0;    /* not begun, running or able to */
    unsigned waiting = 0; /* at a warp operation */
    unsigned done = 0;
    unsigned lanes = 0;      /* that the block has */
    unsigned at_barrier = 0; /* of the block */
    unsigned epoch = 0;      /* __syncwarp() of all lanes passed */
    emu_fiber *fiber = nullptr;
    emu_meeting all = {}; /* what every waiting lane says, as long as they agree */
    bool mixed = false;   /* they do not: see own */
    uint8_t src[32];      /* lanes that waiting lanes read */
    uint64_t value[32];   /* what waiting lanes brought; once all have met, what each gets */
    void (*collective)(void *const *arg) = nullptr;
    emu_meeting own[32];
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
    int n_thread = 0, n_warp = 0;
    emu_fiber fiber[EMU_MAX_THREADS];
    emu_warp_state warp[EMU_MAX_THREADS / 32];
    emu_fiber *cur = nullptr; /* NULL: the scheduler itself */
    emu_ctx main;
    const void *main_stack = nullptr; /* ASan only */
    size_t main_size = 0;
    bool from_main = false; /* who runs now was resumed by the scheduler, not by another fiber */

    /* Stacks are dealt when a thread begins and taken back when it ends, the warmest first: where
     * warps run one after the other, all of them use the same few. */
    char *stacks = nullptr; /* EMU_MAX_THREADS of EMU_STACK bytes, mapped */
    std::vector<char *> free_stack;
    bool random = false;    /* EMU_SEED */
    std::vector<int> order; /* of threads, then */

    int n_done = 0, at_barrier = 0;
    emu_where barrier; /* where the waiting ones stand */
    unsigned epoch = 0;

    std::vector<char> shared;
    std::vector<emu_array> array;
    size_t next_array = 0; /* the one that is asked for next, probably */
    size_t shared_used = 0, shared_static = 0;
    char *dyn = nullptr;

    emu_block();
    ~emu_block();
    emu_block(const emu_block &) = delete;
    emu_block &operator=(const emu_block &) = delete;
};

/* The block this OS thread runs. Not thread_local, which would check for a constructor each time. */
extern __thread emu_block *emu_now;

/* A new launch on b: as many threads, of these indices. */
void emu_block_shape(emu_block *b, const emu_grid *g);
void emu_block_run(emu_block *b, uint64_t id);
/* The running fiber f comes to an operation that waits for others: who runs next, f itself if it need
 * not wait, NULL: the scheduler's choice. emu_meet() then goes there. */
emu_fiber *emu_arrive(emu_block *b, emu_fiber *f, int op, unsigned mask, const char *file,
                      int line);
emu_fiber *emu_warp_arrive(emu_block *b, emu_fiber *f, int op, unsigned mask, const char *file,
                           int line);
emu_fiber *emu_thread_done(emu_block *b, emu_fiber *f);
/* From the scheduler to f; back once no lane of its warp can run, or one has yielded. */
void emu_resume(emu_block *b, emu_fiber *f);

/* Who runs after f: the next lane of its warp that can, without a detour through the scheduler, which
 * would cost a second switch. */
static inline emu_fiber *emu_next_lane(const emu_block *b, const emu_fiber *f)
{
    unsigned can = f->warp->runs, turn = f->lane + 1;
    if (!can || b->random)
        return nullptr;
    can = can >> turn % 32 | can << (32 - turn) % 32;
    return f->warp->fiber + ((unsigned)__builtin_ctz(can) + turn) % 32;
}

emu_where emu_lane_where(const emu_warp_state &w, unsigned lane); /* a waiting lane's */

void emu_shared_begin(emu_block *b);
void emu_shared_end(emu_block *b); /* looks at the guard zones */

bool emu_hooked(); /* built with the access hooks */

#endif
