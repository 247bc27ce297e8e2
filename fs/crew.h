/* Threads that read headers for a scan (struct store_crew): up to 8, gone when it ends. Large headers,
 * which take tens of MiB while they are planned, two at once. */
#ifndef APRFS_FS_CREW_H
#define APRFS_FS_CREW_H

#include "format/store.h"

extern const struct store_crew crew_threads;

#endif
