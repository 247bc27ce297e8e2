/* Which build this program is: the linker's hash over all it holds. */
#ifndef APRFS_INFER_BUILD_ID_H
#define APRFS_INFER_BUILD_ID_H

#include <stddef.h>
#include <stdint.h>

#define BUILD_ID_MAX 64

/* The NT_GNU_BUILD_ID note of the running program: its length, 0 if it was linked without. */
size_t build_id(uint8_t id[BUILD_ID_MAX]);

#endif
