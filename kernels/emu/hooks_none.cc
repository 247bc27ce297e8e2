/* Without access hooks: the other builds. */
#include "kernels/emu/sched.h"

bool emu_hooked()
{
    return false;
}

void emu_hook_alloc(char *, size_t)
{
}
void emu_hook_free(char *, size_t)
{
}
void emu_hook_host_write(const void *, size_t)
{
}
void emu_hook_host_read(const void *, size_t)
{
}
void emu_hook_grid_begin(const emu_grid &)
{
}
void emu_hook_grid_end()
{
}
void emu_hook_block_begin(char *, size_t)
{
}
void emu_hook_full_dependency()
{
}
void emu_atomic(void *, size_t)
{
}
