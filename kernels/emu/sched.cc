/* Blocks of fibers: who runs when, and barriers. Warp operations: warp.cc; shared memory: shared.cc;
 * the blocks of a launch: grid.cc.
 *
 * A block's threads are fibers on one OS thread; they give way at barriers, warp operations and
 * spins, never elsewhere, so a data race does not show as one here: the hooks build finds those.
 * Warps run in order, each until none of its lanes can go on; with EMU_SEED, threads are visited in
 * random order and each runs alone until it gives way. */
#include "kernels/emu/sched.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

__thread emu_block *emu_now;

void emu_fail(const char *kind, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fflush(stdout);
    if (emu_now && emu_now->cur)
        fprintf(stderr, "emu: %s: kernel %s, block %llu, thread %d: %s\n", kind,
                emu_now->grid->name.c_str(), (unsigned long long)emu_now->id, emu_now->cur->tid,
                text);
    else
        fprintf(stderr, "emu: %s: %s\n", kind, text);
    fflush(stderr);
    syscall(SYS_exit_group, EMU_EXIT); /* not _exit(), which is marked noreturn: see EMU_NORETURN */
#if !EMU_ASAN
    __builtin_unreachable();
#endif
}

uint64_t emu_seed()
{
    static const uint64_t seed = [] {
        const char *s = getenv("EMU_SEED");
        return s ? strtoull(s, nullptr, 10) : 0;
    }();
    return seed;
}

/* --- a block ----------------------------------------------------------------------------- */

static std::string where_text(const emu_block *b, int tid)
{
    char s[300];
    const emu_warp_state &w = b->warp[tid / 32];
    unsigned bit = 1u << tid % 32;
    emu_where at = w.waiting & bit ? emu_lane_where(w, tid % 32) : b->fiber[tid].at;
    const char *what = w.at_barrier & bit ? "barrier"
                       : w.waiting & bit  ? "warp operation"
                       : w.done & bit     ? "exit"
                                          : "running";
    snprintf(s, sizeof s, "%s %s:%d", what, at.file ? at.file : "", at.line);
    return s;
}

EMU_NORETURN static void deadlock(emu_block *b)
{
    /* Groups of threads by where they stand: "threads 0-31 at barrier x.cu:12". */
    std::string text;
    int n = b->n_thread;
    for (int i = 0; i < n;) {
        int j = i;
        std::string at = where_text(b, i);
        while (j + 1 < n && where_text(b, j + 1) == at)
            j++;
        text += (text.empty() ? "" : "; ") + std::string("threads ") + std::to_string(i) + "-" +
                std::to_string(j) + " at " + at;
        i = j + 1;
    }
    b->cur = nullptr;
    emu_fail("deadlock", "kernel %s, block %llu: no thread can run: %s", b->grid->name.c_str(),
             (unsigned long long)b->id, text.c_str());
}

emu_block::emu_block()
{
    size_t n = (size_t)EMU_MAX_THREADS * EMU_STACK;
    stacks = (char *)mmap(nullptr, n, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stacks == MAP_FAILED)
        emu_fail("limit", "no memory for %d stacks of %d bytes", (int)EMU_MAX_THREADS,
                 (int)EMU_STACK);
    shared.resize(EMU_SHARED_MAX + (64 << 10));
    for (int i = 0; i < EMU_MAX_THREADS; i++) {
        fiber[i].tid = i;
        fiber[i].lane = (unsigned)i % 32;
        fiber[i].warp = &warp[i / 32];
        warp[i / 32].fiber = &fiber[i / 32 * 32];
    }
    random = emu_seed() != 0;
    free_stack.reserve(EMU_MAX_THREADS);
}

emu_block::~emu_block()
{
    munmap(stacks, (size_t)EMU_MAX_THREADS * EMU_STACK);
}

void emu_block_shape(emu_block *b, const emu_grid *g)
{
    const dim3 &d = g->block;
    int n = (int)(d.x * d.y * d.z);
    b->grid = g;
    b->n_thread = n;
    b->n_warp = (n + 31) / 32;
    for (int i = 0; i < n; i++) {
        unsigned t = (unsigned)i;
        b->fiber[i].idx = dim3(t % d.x, t / d.x % d.y, t / d.x / d.y);
    }
    b->order.resize(b->random ? (size_t)n : 0);
}

static void block_begin(emu_block *b, uint64_t id)
{
    const dim3 &g = b->grid->grid;
    b->id = id;
    b->idx = dim3((unsigned)(id % g.x), (unsigned)(id / g.x % g.y), (unsigned)(id / g.x / g.y));
    for (int i = 0; i < b->n_thread; i++) {
        b->fiber[i].stack = nullptr;
        b->fiber[i].pdl_waited = !b->grid->pdl;
    }
    for (int i = 0; i < b->n_warp; i++) {
        emu_warp_state &w = b->warp[i];
        int n = b->n_thread - 32 * i;
        w.lanes = w.runs = n < 32 ? (1u << n) - 1 : 0xffffffffu;
        w.waiting = w.at_barrier = w.done = w.epoch = 0;
    }
    b->free_stack.clear();
    for (int i = b->n_thread; i-- > 0;)
        b->free_stack.push_back(b->stacks + (size_t)i * EMU_STACK);
    b->n_done = 0;
    b->at_barrier = 0;
    b->epoch = 0;
}

static bool can_run(const emu_block *b, int tid)
{
    return b->warp[tid / 32].runs >> tid % 32 & 1;
}

/* Every thread that can run is visited once, or has run since; false: there was none. */
static bool visit_in_order(emu_block *b)
{
    bool ran = false;
    for (int i = 0; i < b->n_thread; i++) {
        if (!b->warp[i / 32].runs)
            i |= 31;
        else if (can_run(b, i)) {
            emu_resume(b, &b->fiber[i]);
            ran = true;
        }
    }
    return ran;
}

static bool visit_at_random(emu_block *b, emu_rng *rng)
{
    bool ran = false;
    for (int i = b->n_thread - 1; i > 0; i--)
        std::swap(b->order[(size_t)i], b->order[rng->below((unsigned)i + 1)]);
    for (int i : b->order) {
        if (!can_run(b, i))
            continue;
        emu_resume(b, &b->fiber[i]);
        ran = true;
    }
    return ran;
}

void emu_block_run(emu_block *b, uint64_t id)
{
    block_begin(b, id);
    emu_shared_begin(b);
    for (size_t i = 0; i < b->order.size(); i++)
        b->order[i] = (int)i;
    emu_rng rng(emu_seed() + id * 7919 + b->grid->launch * 104729);
    while (b->n_done < b->n_thread)
        if (!(b->random ? visit_at_random(b, &rng) : visit_in_order(b)))
            deadlock(b);
    emu_shared_end(b);
}

static emu_fiber *at_barrier(emu_block *b, emu_fiber *f, const char *file, int line)
{
    emu_warp_state &mine = *f->warp;
    if (b->at_barrier > 0 && (b->barrier.line != line || b->barrier.file != file))
        emu_fail("barrier", "arrives at %s:%d while others wait at %s:%d", file, line,
                 b->barrier.file, b->barrier.line);
    if (b->n_done > 0)
        emu_fail("barrier", "arrives at %s:%d, but %d threads have exited", file, line, b->n_done);
    b->barrier = f->at = {file, line};
    if (++b->at_barrier < b->n_thread) {
        mine.runs &= ~(1u << f->lane);
        mine.at_barrier |= 1u << f->lane;
        return emu_next_lane(b, f);
    }
    b->at_barrier = 0;
    b->epoch++;
    for (int i = 0; i < b->n_warp; i++) {
        b->warp[i].runs |= b->warp[i].at_barrier;
        b->warp[i].at_barrier = 0;
    }
    return f;
}

emu_fiber *emu_arrive(emu_block *b, emu_fiber *f, int op, unsigned mask, const char *file, int line)
{
    if (op == EMU_BARRIER)
        return at_barrier(b, f, file, line);
    if (op != EMU_YIELD)
        return emu_warp_arrive(b, f, op, mask, file, line);
    f->at = {file, line};
    return nullptr; /* the scheduler: other warps too are to have their turn */
}

emu_fiber *emu_thread_done(emu_block *b, emu_fiber *f)
{
    if (b->grid->pdl && !f->pdl_waited)
        emu_fail("pdl", "ended without griddep_wait()");
    f->warp->runs &= ~(1u << f->lane);
    f->warp->done |= 1u << f->lane;
    f->at = {};
    b->n_done++;
    return emu_next_lane(b, f);
}

/* --- what runs now ----------------------------------------------------------------------- */

unsigned emu_index(int which, int axis)
{
    const emu_block *b = emu_now;
    if (!b || !b->cur)
        emu_fail("host", "a thread or block index is read outside a kernel");
    const dim3 *v = which == EMU_THREAD_IDX  ? &b->cur->idx
                    : which == EMU_BLOCK_IDX ? &b->idx
                    : which == EMU_BLOCK_DIM ? &b->grid->block
                                             : &b->grid->grid;
    return axis == 0 ? v->x : axis == 1 ? v->y : v->z;
}

unsigned emu_lane()
{
    return emu_now->cur->lane;
}

bool emu_in_kernel()
{
    return emu_now && emu_now->cur;
}

int emu_thread_id()
{
    return emu_now->cur->tid;
}

uint64_t emu_block_id()
{
    return emu_now->id;
}

uint64_t emu_launch_no()
{
    return emu_now->grid->launch;
}

unsigned emu_block_epoch()
{
    return emu_now->epoch;
}

unsigned emu_warp_epoch(int thread)
{
    return emu_now->warp[(size_t)thread / 32].epoch;
}

bool emu_pdl_waited()
{
    return emu_now->cur->pdl_waited;
}

void emu_set_pdl_waited()
{
    emu_now->cur->pdl_waited = true;
}
