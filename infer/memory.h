/* How much memory this process may still touch before the kernel would have to kill somebody. */
#ifndef APRFS_INFER_MEMORY_H
#define APRFS_INFER_MEMORY_H

#include <stdint.h>

/* Bytes: the machine's MemAvailable, or less where a memory cgroup (v2 or v1) of this process or of
 * a parent leaves less: its limit - usage + page cache. Swap is not counted: weights in swap are
 * read from disk for every token. UINT64_MAX: nothing here tells. root stands before /proc and
 * /sys; "" but for tests. */
uint64_t memory_available(const char *root);

#endif
