/* Shared memory of a block: each array between guard zones, refilled with 0xFF for each block, which is
 * NaN in f32, f16 and bf16 and -1 in integers. */
#include "kernels/emu/sched.h"

#include <string.h>

#if EMU_ASAN
#include <sanitizer/asan_interface.h>
#endif

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
    if (!emu_all_bytes(p, n, GUARD_BYTE))
        emu_fail("shared", "a write outside shared array '%s' of kernel %s", name,
                 emu_now->grid->name.c_str());
}

static char *take(emu_block *b, size_t size, size_t align, const char *name, emu_where at)
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
    size_t n = b->array.size();
    if (b->next_array >= n)
        b->next_array = 0;
    if (n) { /* threads ask in turn for the same arrays in the same order */
        const emu_array &a = b->array[b->next_array];
        if (a.at.line == line && a.at.file == file && a.name == name) {
            b->next_array++;
            return a.p;
        }
    }
    for (size_t i = 0; i < n; i++) {
        const emu_array &a = b->array[i];
        if (a.at.line == line && a.at.file == file && strcmp(a.name, name) == 0) {
            b->next_array = i + 1;
            return a.p;
        }
    }
    b->shared_static += (size + 15) / 16 * 16;
    if (b->shared_static > EMU_SHARED_DEFAULT ||
        b->shared_static + b->grid->dyn > b->grid->shared_most)
        emu_fail("limit", "%zu bytes of static and %zu of dynamic shared memory, together at most %zu",
                 b->shared_static, b->grid->dyn, b->grid->shared_most);
    return take(b, size, align < 16 ? 16 : align, name, {file, line});
}

void *emu_shared_dyn()
{
    emu_block *b = emu_now;
    if (!b->dyn)
        b->dyn = take(b, b->grid->dyn, 16, "dynamic shared memory", {"", 0});
    return b->dyn;
}

void emu_shared_begin(emu_block *b)
{
    b->shared_used = b->shared_static = 0;
    b->dyn = nullptr;
    b->array.clear();
    b->next_array = 0;
    emu_hook_block_begin(b->shared.data(), b->shared.size());
}

void emu_shared_end(emu_block *b)
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
