/* Checks on every memory access of a kernel: kernels compiled with -fsanitize=thread, linked with this
 * file instead of the sanitizer's library. The compiler calls a function per access; the functions
 * here know the block, the thread and the memory behind the address. What is found:
 *   race       two threads of a block touch a byte of shared memory, one of them writing, with no
 *              barrier (or __syncwarp() of all lanes within a warp) between them
 *   blocks     two blocks of one launch touch a word of device memory, one of them writing, neither
 *              having used an atomic before
 *   unwritten  a read of device memory that nobody wrote
 *   outside    an access outside allocations, shared memory and the thread's own stack
 *   pdl        a launch with programmatic stream serialisation touches what an earlier launch still
 *              may be writing, or writes at all, before griddep_wait() */
#include "kernels/emu/sched.h"

#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <map>

bool emu_hooked()
{
    return true;
}

/* --- places in the source ---------------------------------------------------------------- */

static std::string place(const void *pc)
{
    Dl_info info;
    char cmd[512], line[512] = "";
    if (!dladdr(pc, &info) || !info.dli_fname)
        return "?";
    uintptr_t off = (uintptr_t)pc - (uintptr_t)info.dli_fbase - 1;
    snprintf(cmd, sizeof cmd, "addr2line -e '%s' 0x%zx 2>/dev/null", info.dli_fname, (size_t)off);
    FILE *f = popen(cmd, "r");
    if (f) {
        if (!fgets(line, sizeof line, f))
            line[0] = 0;
        pclose(f);
    }
    line[strcspn(line, "\n")] = 0;
    const char *slash = strrchr(line, '/');
    return slash ? slash + 1 : line[0] ? line : "?";
}

/* --- device memory ----------------------------------------------------------------------- */

struct word {            /* four bytes of device memory */
    uint64_t launch = 0; /* of the last writer; 0: the host or a copy */
    uint32_t block = 0;
    uint8_t written = 0; /* bit per byte */
    bool quiet = false;  /* its writer had used an atomic: its order is its own affair */
    uint64_t read_launch = 0;
    uint32_t read_block = 0;
    bool read_quiet = false;
    const void *pc = nullptr, *read_pc = nullptr;
};
struct region {
    size_t size;
    std::vector<word> words;
};
static std::map<char *, region> regions;
static char *last_base;
static region *last_region;
static uint64_t full_dependency; /* launches up to this one are complete for the next launch */
static uint64_t newest_launch;
static bool block_used_atomic;
static char *shared_base;
static size_t shared_size;

void emu_hook_alloc(char *base, size_t size)
{
    regions[base] = {size, std::vector<word>((size + 3) / 4)};
    last_region = nullptr;
}

void emu_hook_free(char *base, size_t)
{
    regions.erase(base);
    last_region = nullptr;
}

static region *find_region(const char *p, size_t n, char **base)
{
    if (last_region && p >= last_base && p + n <= last_base + last_region->size) {
        *base = last_base;
        return last_region;
    }
    auto it = regions.upper_bound((char *)p);
    if (it == regions.begin())
        return nullptr;
    --it;
    if (p + n > it->first + it->second.size)
        return nullptr;
    *base = last_base = it->first;
    return last_region = &it->second;
}

static uint8_t byte_mask(size_t off, size_t end, size_t w)
{
    size_t lo = std::max(off, w * 4) - w * 4, hi = std::min(end, w * 4 + 4) - w * 4;
    return (uint8_t)((1u << hi) - (1u << lo));
}

void emu_hook_host_write(const void *p, size_t n)
{
    char *base;
    region *r = find_region((const char *)p, n, &base);
    if (!r || n == 0)
        return;
    size_t off = (size_t)((const char *)p - base);
    for (size_t w = off / 4; w * 4 < off + n; w++) {
        uint8_t had = r->words[w].written;
        r->words[w] = word();
        r->words[w].written = had | byte_mask(off, off + n, w);
    }
}

void emu_hook_host_read(const void *p, size_t n)
{
    char *base;
    region *r = find_region((const char *)p, n, &base);
    if (!r)
        return;
    size_t off = (size_t)((const char *)p - base);
    for (size_t w = off / 4; w * 4 < off + n; w++) {
        uint8_t m = byte_mask(off, off + n, w);
        if ((r->words[w].written & m) != m)
            emu_fail("unwritten", "a copy reads byte %zu of an allocation of %zu that nobody wrote",
                     w * 4, r->size);
    }
}

static void pdl_check(const word &w, bool write, const void *pc)
{
    if (emu_pdl_waited())
        return;
    if (write)
        emu_fail("pdl", "writes device memory at %s before griddep_wait()", place(pc).c_str());
    if (w.launch > full_dependency)
        emu_fail("pdl", "at %s reads, before griddep_wait(), what the launch before it wrote at %s",
                 place(pc).c_str(), place(w.pc).c_str());
}

static void blocks_check(const word &w, bool write, const void *pc)
{
    uint64_t launch = emu_launch_no();
    uint32_t block = (uint32_t)emu_block_id();
    bool clash_write = w.launch == launch && w.block != block && !w.quiet && !block_used_atomic;
    bool clash_read = write && w.read_launch == launch && w.read_block != block && !w.read_quiet &&
                      !block_used_atomic;
    if (clash_write)
        emu_fail("blocks", "%s at %s what block %u wrote at %s in the same launch",
                 write ? "writes" : "reads", place(pc).c_str(), w.block, place(w.pc).c_str());
    if (clash_read)
        emu_fail("blocks", "writes at %s what block %u read at %s in the same launch",
                 place(pc).c_str(), w.read_block, place(w.read_pc).c_str());
}

static void device_access(region *r, size_t off, size_t n, bool write, const void *pc)
{
    uint64_t launch = emu_launch_no();
    uint32_t block = (uint32_t)emu_block_id();
    for (size_t i = off / 4; i * 4 < off + n; i++) {
        word &w = r->words[i];
        uint8_t m = byte_mask(off, off + n, i);
        if (!write && (w.written & m) != m)
            emu_fail("unwritten", "at %s reads byte %zu of an allocation of %zu that nobody wrote",
                     place(pc).c_str(), i * 4, r->size);
        pdl_check(w, write, pc);
        blocks_check(w, write, pc);
        if (write) {
            w.launch = launch;
            w.block = block;
            w.written |= m;
            w.quiet = block_used_atomic;
            w.pc = pc;
        } else {
            w.read_launch = launch;
            w.read_block = block;
            w.read_quiet = block_used_atomic;
            w.read_pc = pc;
        }
    }
}

/* --- shared memory ----------------------------------------------------------------------- */

struct stamp {
    int32_t tid = -1; /* -1: nobody yet */
    uint32_t epoch = 0, warp_epoch = 0;
    const void *pc = nullptr;
};
struct shared_byte {
    stamp write, read;
};
static std::vector<shared_byte> shadow;
static size_t shadow_used; /* bytes of shared memory that the block before has touched */

void emu_hook_block_begin(char *base, size_t n)
{
    shared_base = base;
    shared_size = n;
    shadow.resize(n);
    std::fill_n(shadow.begin(), shadow_used, shared_byte());
    shadow_used = 0;
    block_used_atomic = false;
}

/* Happened before what the current thread does now? */
static bool ordered(const stamp &s, const stamp &now)
{
    if (s.tid < 0 || s.tid == now.tid || s.epoch != now.epoch)
        return true;
    return s.tid / 32 == now.tid / 32 && s.warp_epoch != now.warp_epoch;
}

[[noreturn]] static void race(const stamp &a, bool a_writes, const stamp &b, bool b_writes)
{
    emu_fail("race", "%s shared memory at %s; thread %d %s it at %s with nothing between",
             b_writes ? "writes" : "reads", place(b.pc).c_str(), a.tid, a_writes ? "wrote" : "read",
             place(a.pc).c_str());
}

static void shared_access(size_t off, size_t n, bool write, const void *pc)
{
    stamp now;
    now.tid = emu_thread_id();
    now.epoch = emu_block_epoch();
    now.warp_epoch = emu_warp_epoch(now.tid);
    now.pc = pc;
    shadow_used = std::max(shadow_used, off + n);
    for (size_t i = off; i < off + n; i++) {
        shared_byte &s = shadow[i];
        if (!ordered(s.write, now))
            race(s.write, true, now, write);
        if (write && !ordered(s.read, now))
            race(s.read, false, now, true);
        (write ? s.write : s.read) = now;
    }
}

/* --- the compiler's calls ---------------------------------------------------------------- */

struct span {
    const char *lo, *hi;
};
static std::vector<span> read_only; /* segments of this program that kernels may read tables from */

static int add_segment(struct dl_phdr_info *info, size_t, void *)
{
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) &h = info->dlpi_phdr[i];
        if ((h.p_type == PT_LOAD && !(h.p_flags & PF_W)) || h.p_type == PT_GNU_RELRO) {
            const char *lo = (const char *)(info->dlpi_addr + h.p_vaddr);
            read_only.push_back({lo, lo + h.p_memsz});
        }
    }
    return 1; /* the program itself comes first; libraries are not ours */
}

void emu_hook_grid_begin(const emu_grid &g)
{
    if (read_only.empty())
        dl_iterate_phdr(add_segment, nullptr);
    newest_launch = g.launch;
}

void emu_hook_grid_end()
{
}

void emu_hook_full_dependency()
{
    full_dependency = newest_launch;
}

void emu_atomic(void *p, size_t n)
{
    char *base;
    if (!emu_in_kernel())
        return;
    block_used_atomic = true;
    region *r = find_region((const char *)p, n, &base);
    if (r)
        device_access(r, (size_t)((char *)p - base), n, true, __builtin_return_address(0));
}

static bool inside(const char *p, size_t n, const span &s)
{
    return p >= s.lo && p + n <= s.hi;
}

static void access_at(const void *addr, size_t n, bool write, const void *pc)
{
    if (!emu_in_kernel())
        return;
    const char *p = (const char *)addr;
    const emu_block *b = emu_now;
    if (p >= b->stacks && p < b->stacks + (size_t)b->n_thread * EMU_STACK)
        return;
    if (p >= shared_base && p + n <= shared_base + shared_size) {
        shared_access((size_t)(p - shared_base), n, write, pc);
        return;
    }
    char *base;
    region *r = find_region(p, n, &base);
    if (r) {
        device_access(r, (size_t)(p - base), n, write, pc);
        return;
    }
    const char *args = (const char *)b->grid->args.get();
    if (!write && inside(p, n, {args, args + b->grid->n_args}))
        return;
    for (const span &s : read_only)
        if (!write && inside(p, n, s))
            return;
    emu_fail("outside", "%s %zu bytes at %s that are no device memory", write ? "writes" : "reads",
             n, place(pc).c_str());
}

#define PC __builtin_return_address(0)
#define ACCESS(n)                                                                                  \
    void __tsan_read##n(void *p)                                                                   \
    {                                                                                              \
        access_at(p, n, false, PC);                                                                \
    }                                                                                              \
    void __tsan_write##n(void *p)                                                                  \
    {                                                                                              \
        access_at(p, n, true, PC);                                                                 \
    }                                                                                              \
    void __tsan_unaligned_read##n(void *p)                                                         \
    {                                                                                              \
        access_at(p, n, false, PC);                                                                \
    }                                                                                              \
    void __tsan_unaligned_write##n(void *p)                                                        \
    {                                                                                              \
        access_at(p, n, true, PC);                                                                 \
    }
extern "C" {
ACCESS(1)
ACCESS(2)
ACCESS(4)
ACCESS(8)
ACCESS(16)
void __tsan_read_range(void *p, size_t n)
{
    access_at(p, n, false, PC);
}
void __tsan_write_range(void *p, size_t n)
{
    access_at(p, n, true, PC);
}
void __tsan_init(void)
{
}
void __tsan_func_entry(void *)
{
}
void __tsan_func_exit(void)
{
}
void __tsan_vptr_update(void *, void *)
{
}
void __tsan_vptr_read(void *)
{
}
/* Atomics: emu_atomic() has told what they are; here they only happen. */
#define ATOMIC(bits, T)                                                                            \
    T __tsan_atomic##bits##_load(const volatile T *p, int)                                         \
    {                                                                                              \
        return *p;                                                                                 \
    }                                                                                              \
    void __tsan_atomic##bits##_store(volatile T *p, T v, int)                                      \
    {                                                                                              \
        *p = v;                                                                                    \
    }                                                                                              \
    T __tsan_atomic##bits##_exchange(volatile T *p, T v, int)                                      \
    {                                                                                              \
        T old = *p;                                                                                \
        *p = v;                                                                                    \
        return old;                                                                                \
    }                                                                                              \
    T __tsan_atomic##bits##_fetch_add(volatile T *p, T v, int)                                     \
    {                                                                                              \
        T old = *p;                                                                                \
        *p = old + v;                                                                              \
        return old;                                                                                \
    }                                                                                              \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile T *p, T *want, T v, int, int)       \
    {                                                                                              \
        if (*p == *want) {                                                                         \
            *p = v;                                                                                \
            return 1;                                                                              \
        }                                                                                          \
        *want = *p;                                                                                \
        return 0;                                                                                  \
    }                                                                                              \
    int __tsan_atomic##bits##_compare_exchange_weak(volatile T *p, T *want, T v, int a, int b)     \
    {                                                                                              \
        return __tsan_atomic##bits##_compare_exchange_strong(p, want, v, a, b);                    \
    }                                                                                              \
    T __tsan_atomic##bits##_compare_exchange_val(volatile T *p, T want, T v, int, int)             \
    {                                                                                              \
        T old = *p;                                                                                \
        if (old == want)                                                                           \
            *p = v;                                                                                \
        return old;                                                                                \
    }
ATOMIC(32, uint32_t)
ATOMIC(64, uint64_t)
void __tsan_atomic_thread_fence(int)
{
}
}
