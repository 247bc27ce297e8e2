/* Blocks of fibers: who runs when, barriers, shared memory in guard zones. Warp operations: warp.cc.
 *
 * A block's threads are fibers on one OS thread; they give way at barriers, warp operations and
 * emu_yield(), never elsewhere, so a data race does not show as one here: the hooks build finds those.
 * Fibers are visited in order, or in random order with EMU_SEED. */
#include "kernels/emu/sched.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

thread_local emu_block *emu_now; /* the block this OS thread runs */

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

/* --- context switch ---------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Saves the callee-saved registers and the stack pointer, takes the other's. */
extern "C" void emu_switch(void **save, void *load);
__asm__(".text\n"
        ".p2align 4\n"
        ".globl emu_switch\n"
        ".type emu_switch,@function\n"
        "emu_switch:\n"
        "    pushq %rbp\n"
        "    pushq %rbx\n"
        "    pushq %r12\n"
        "    pushq %r13\n"
        "    pushq %r14\n"
        "    pushq %r15\n"
        "    movq %rsp, (%rdi)\n"
        "    movq %rsi, %rsp\n"
        "    popq %r15\n"
        "    popq %r14\n"
        "    popq %r13\n"
        "    popq %r12\n"
        "    popq %rbx\n"
        "    popq %rbp\n"
        "    ret\n"
        ".size emu_switch,.-emu_switch\n"
        ".section .note.GNU-stack,\"\",@progbits\n"
        ".text\n");

static void fiber_entry();

static void *fiber_prepare(char *stack, size_t size, unsigned stagger)
{
    /* Hot frames of all fibers would share cache sets if their stacks began alike. */
    uintptr_t top = ((uintptr_t)stack + size - stagger % 16 * 64) & ~(uintptr_t)15;
    void **sp = (void **)top;
    *--sp = nullptr;              /* as if called: rsp = 8 mod 16 at entry */
    *--sp = (void *)&fiber_entry; /* ret goes here */
    for (int i = 0; i < 6; i++)
        *--sp = nullptr;
    return sp;
}
static void ctx_switch(emu_ctx *from, emu_ctx *to)
{
    emu_switch(&from->sp, to->sp);
}
#else
static void fiber_entry();

static void ctx_switch(emu_ctx *from, emu_ctx *to)
{
    swapcontext(&from->uc, &to->uc);
}
#endif

/* To a fiber, and back when it gives way. */
static void resume(emu_block *b, emu_fiber *f)
{
    b->cur = f;
#if EMU_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, f->stack, EMU_STACK);
#endif
    ctx_switch(&b->main, &f->ctx);
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
    b->cur = nullptr;
}

void emu_give_way(emu_block *b)
{
    emu_fiber *f = b->cur;
#if EMU_ASAN
    void *fake = nullptr;
    __sanitizer_start_switch_fiber(f->state == EMU_DONE ? nullptr : &fake, b->main_stack,
                                   b->main_size);
#endif
    ctx_switch(&f->ctx, &b->main);
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(fake, &b->main_stack, &b->main_size);
#endif
}

static void fiber_entry()
{
    emu_block *b = emu_now;
#if EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &b->main_stack, &b->main_size);
#endif
    b->grid->run(b->grid->args.get());
    b = emu_now;
    if (b->grid->pdl && !b->cur->pdl_waited)
        emu_fail("pdl", "ended without griddep_wait()");
    b->cur->state = EMU_DONE;
    b->n_done++;
    for (;;)
        emu_give_way(b); /* never resumed */
}

/* --- shared memory ----------------------------------------------------------------------- */

/* Guard zones and the arrays' poison: 0xFF is NaN in f32, f16 and bf16, and -1 in integers. */
static const unsigned char GUARD_BYTE = 0xA7;

static void guard_make(char *p, size_t n)
{
#if EMU_ASAN
    __asan_unpoison_memory_region(p, n);
#endif
    memset(p, GUARD_BYTE, n);
#if EMU_ASAN
    __asan_poison_memory_region(p, n);
#endif
}

static void guard_check(const char *p, size_t n, const char *name)
{
#if EMU_ASAN
    __asan_unpoison_memory_region(p, n);
#endif
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] != GUARD_BYTE)
            emu_fail("shared", "a write outside shared array '%s' of kernel %s", name,
                     emu_now->grid->name.c_str());
}

static char *shared_take(emu_block *b, size_t size, size_t align, const char *name, emu_where at)
{
    size_t off = (b->shared_used + EMU_GUARD + align - 1) / align * align;
    if (off + size + EMU_GUARD > b->shared.size())
        emu_fail("limit", "shared array '%s' (%zu bytes) does not fit", name, size);
    char *p = b->shared.data() + off;
    guard_make(b->shared.data() + b->shared_used, off - b->shared_used);
    memset(p, 0xFF, size);
    /* Behind it too: an earlier launch, with larger arrays, may have used those bytes. */
    guard_make(p + size, EMU_GUARD);
    b->shared_used = off + size;
    b->array.push_back({p, size, name, at});
    return p;
}

void *emu_shared(size_t size, size_t align, const char *name, const char *file, int line)
{
    emu_block *b = emu_now;
    for (const emu_array &a : b->array)
        if (a.at.line == line && a.at.file == file && strcmp(a.name, name) == 0)
            return a.p;
    b->shared_static += (size + 15) / 16 * 16;
    if (b->shared_static > EMU_SHARED_DEFAULT || b->shared_static + b->grid->dyn > EMU_SHARED_MAX)
        emu_fail("limit", "%zu bytes of static and %zu of dynamic shared memory", b->shared_static,
                 b->grid->dyn);
    return shared_take(b, size, align < 16 ? 16 : align, name, {file, line});
}

void *emu_shared_dyn()
{
    emu_block *b = emu_now;
    if (!b->dyn)
        b->dyn = shared_take(b, b->grid->dyn, 16, "dynamic shared memory", {"", 0});
    return b->dyn;
}

static void shared_begin(emu_block *b)
{
    b->shared_used = b->shared_static = 0;
    b->dyn = nullptr;
    b->array.clear();
    emu_hook_block_begin(b->shared.data(), b->shared.size());
}

static void shared_end(emu_block *b)
{
    size_t at = 0;
    for (const emu_array &a : b->array) {
        size_t off = (size_t)(a.p - b->shared.data());
        guard_check(b->shared.data() + at, off - at, a.name);
        at = off + a.size;
    }
    if (at == 0)
        return;
    guard_check(b->shared.data() + at, EMU_GUARD, b->array.back().name);
}

/* --- a block ----------------------------------------------------------------------------- */

static std::string where_text(const emu_fiber &f)
{
    char s[300];
    const char *what = f.state == EMU_AT_BARRIER ? "barrier"
                       : f.state == EMU_AT_WARP  ? "warp operation"
                       : f.state == EMU_DONE     ? "exit"
                                                 : "running";
    snprintf(s, sizeof s, "%s %s:%d", what, f.at.file ? f.at.file : "", f.at.line);
    return s;
}

EMU_NORETURN static void deadlock(emu_block *b)
{
    /* Groups of threads by where they stand: "threads 0-31 at barrier x.cu:12". */
    std::string text;
    int n = (int)b->fiber.size();
    for (int i = 0; i < n;) {
        int j = i;
        std::string at = where_text(b->fiber[i]);
        while (j + 1 < n && where_text(b->fiber[j + 1]) == at)
            j++;
        text += (text.empty() ? "" : "; ") + std::string("threads ") + std::to_string(i) + "-" +
                std::to_string(j) + " at " + at;
        i = j + 1;
    }
    b->cur = nullptr;
    emu_fail("deadlock", "kernel %s, block %llu: no thread can run: %s", b->grid->name.c_str(),
             (unsigned long long)b->id, text.c_str());
}

static void fibers_begin(emu_block *b)
{
    for (emu_fiber &f : b->fiber) {
        f.state = EMU_RUNS;
        f.at = {};
        f.pdl_waited = !b->grid->pdl;
        f.pending = nullptr;
#if defined(__x86_64__)
        f.ctx.sp = fiber_prepare(f.stack, EMU_STACK, (unsigned)f.tid);
#else
        getcontext(&f.ctx.uc);
        f.ctx.uc.uc_stack.ss_sp = f.stack;
        f.ctx.uc.uc_stack.ss_size = EMU_STACK;
        f.ctx.uc.uc_link = nullptr;
        makecontext(&f.ctx.uc, fiber_entry, 0);
#endif
    }
    for (emu_warp_state &w : b->warp)
        w = {};
    b->n_done = 0;
    b->at_barrier = 0;
    b->epoch = 0;
}

static void block_run(emu_block *b, uint64_t id)
{
    const dim3 &g = b->grid->grid;
    b->id = id;
    b->idx = dim3((unsigned)(id % g.x), (unsigned)(id / g.x % g.y), (unsigned)(id / g.x / g.y));
    fibers_begin(b);
    shared_begin(b);
    int n = (int)b->fiber.size();
    std::vector<int> order(n);
    for (int i = 0; i < n; i++)
        order[i] = i;
    emu_rng rng(emu_seed() + id * 7919);
    while (b->n_done < n) {
        bool ran = false;
        if (emu_seed())
            for (int i = n - 1; i > 0; i--)
                std::swap(order[i], order[rng.below((unsigned)i + 1)]);
        for (int i : order) {
            if (b->fiber[i].state != EMU_RUNS)
                continue;
            resume(b, &b->fiber[i]);
            ran = true;
        }
        if (!ran)
            deadlock(b);
    }
    shared_end(b);
}

void emu_syncthreads(const char *file, int line)
{
    emu_block *b = emu_now;
    emu_fiber *f = b->cur;
    int n = (int)b->fiber.size();
    if (b->at_barrier > 0 && (b->barrier.line != line || b->barrier.file != file))
        emu_fail("barrier", "arrives at %s:%d while others wait at %s:%d", file, line,
                 b->barrier.file, b->barrier.line);
    if (b->n_done > 0)
        emu_fail("barrier", "arrives at %s:%d, but %d threads have exited", file, line, b->n_done);
    b->barrier = {file, line};
    f->at = {file, line};
    if (++b->at_barrier < n) {
        f->state = EMU_AT_BARRIER;
        emu_give_way(b);
        return;
    }
    b->at_barrier = 0;
    b->epoch++;
    for (emu_fiber &other : b->fiber)
        if (other.state == EMU_AT_BARRIER)
            other.state = EMU_RUNS;
}

void emu_yield(const char *file, int line)
{
    emu_now->cur->at = {file, line};
    emu_give_way(emu_now);
}

/* --- a grid ------------------------------------------------------------------------------ */

static std::unique_ptr<emu_block> block_new(const emu_grid &g)
{
    std::unique_ptr<emu_block> b(new emu_block);
    int n = (int)(g.block.x * g.block.y * g.block.z);
    b->grid = &g;
    b->fiber.resize((size_t)n);
    b->warp.resize((size_t)(n + 31) / 32);
    b->shared.assign(EMU_SHARED_MAX + (64 << 10), (char)GUARD_BYTE);
    b->stacks.reset(new char[(size_t)n * EMU_STACK]);
    for (int i = 0; i < n; i++) {
        b->fiber[i].tid = i;
        b->fiber[i].stack = b->stacks.get() + (size_t)i * EMU_STACK;
    }
    return b;
}

/* Blocks and their stacks are kept between launches: an allocation each costs more than a block. */
static thread_local std::unique_ptr<emu_block> emu_spare;

static void run_blocks(const emu_grid &g, std::atomic<uint64_t> *next,
                       const std::vector<uint64_t> *order, uint64_t n)
{
    size_t threads = (size_t)g.block.x * g.block.y * g.block.z;
    if (!emu_spare || emu_spare->fiber.size() != threads)
        emu_spare = block_new(g);
    emu_block *b = emu_spare.get();
    b->grid = &g;
    emu_now = b;
    for (uint64_t i; (i = (*next)++) < n;)
        block_run(b, order ? (*order)[i] : i);
    emu_now = nullptr;
}

static int os_threads()
{
    static const int n = [] {
        const char *s = getenv("EMU_THREADS");
        return s ? std::max(1, atoi(s)) : 1;
    }();
    return EMU_ASAN || emu_hooked() ? 1 : n;
}

void emu_run_grid(const emu_grid &g)
{
    uint64_t n = (uint64_t)g.grid.x * g.grid.y * g.grid.z;
    std::atomic<uint64_t> next{0};
    std::vector<uint64_t> order;
    if (emu_seed()) {
        emu_rng rng(emu_seed() ^ g.launch * 104729);
        order.resize(n);
        for (uint64_t i = 0; i < n; i++)
            order[i] = i;
        for (uint64_t i = n - 1; i > 0; i--)
            std::swap(order[i], order[rng.next() % (i + 1)]);
    }
    emu_hook_grid_begin(g);
    int extra = (int)std::min<uint64_t>((uint64_t)os_threads(), n) - 1;
    std::vector<std::thread> pool;
    for (int i = 0; i < extra; i++)
        pool.emplace_back([&] { run_blocks(g, &next, order.empty() ? nullptr : &order, n); });
    run_blocks(g, &next, order.empty() ? nullptr : &order, n);
    for (std::thread &t : pool)
        t.join();
    emu_hook_grid_end();
}

/* --- what runs now ----------------------------------------------------------------------- */

unsigned emu_index(int which, int axis)
{
    const emu_block *b = emu_now;
    if (!b || !b->cur)
        emu_fail("host", "a thread or block index is read outside a kernel");
    const dim3 &bd = b->grid->block;
    unsigned t = (unsigned)b->cur->tid;
    dim3 tid(t % bd.x, t / bd.x % bd.y, t / bd.x / bd.y);
    const dim3 *of[] = {&tid, &b->idx, &bd, &b->grid->grid};
    const dim3 *v = of[which];
    return axis == 0 ? v->x : axis == 1 ? v->y : v->z;
}

unsigned emu_lane()
{
    return (unsigned)emu_now->cur->tid % 32;
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

const char *emu_kernel_name()
{
    return emu_now->grid->name.c_str();
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
