#include "infer/memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PATH_LEN 4600 /* root, mount point, and a cgroup's path of up to 4 KiB */

struct cgroup_files {
    const char *mount, *limit, *usage, *cache[2];
};

static const struct cgroup_files v2 = {
    "/sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};
static const struct cgroup_files v1 = {"/sys/fs/cgroup/memory",
                                       "memory.limit_in_bytes",
                                       "memory.usage_in_bytes",
                                       {"total_inactive_file", "total_active_file"}};

/* The number behind `key` (with what ends it) at the start of a line; "": the first line's. */
static bool number_in(const char *path, const char *key, uint64_t *out)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    char line[256];
    size_t n = strlen(key);
    bool found = false;
    while (!found && fgets(line, sizeof line, f))
        found = strncmp(line, key, n) == 0 && sscanf(line + n, " %" SCNu64, out) == 1;
    fclose(f);
    return found;
}

static bool cgroup_number(const char *root, const struct cgroup_files *c, const char *group,
                          const char *file, const char *key, uint64_t *out)
{
    char path[PATH_LEN];
    int n = snprintf(path, sizeof path, "%s%s%s/%s", root, c->mount, group, file);
    return n > 0 && (size_t)n < sizeof path && number_in(path, key, out);
}

/* What one group leaves; "max", or no such group here: no limit. */
static uint64_t group_left(const char *root, const struct cgroup_files *c, const char *group)
{
    uint64_t limit, usage, cache = 0, part;
    if (!cgroup_number(root, c, group, c->limit, "", &limit) ||
        !cgroup_number(root, c, group, c->usage, "", &usage))
        return UINT64_MAX;
    for (int i = 0; i < 2; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s ", c->cache[i]);
        if (cgroup_number(root, c, group, "memory.stat", key, &part))
            cache += part;
    }
    usage -= cache < usage ? cache : usage;
    return limit > usage ? limit - usage : 0;
}

/* The smallest of group and its parents. A container may see its own group as the mount's root. */
static uint64_t groups_left(const char *root, const struct cgroup_files *c, char *group)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        char *slash = strrchr(group, '/');
        if (slash && slash[1] == 0)
            *slash = 0; /* "/" is "" */
        uint64_t left = group_left(root, c, group);
        least = left < least ? left : least;
        slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = 0;
    }
}

/* Lines of /proc/self/cgroup: "0::/path" (v2), "4:memory:/path" (v1). */
static uint64_t cgroup_left(const char *root)
{
    char path[PATH_LEN], line[4200];
    uint64_t least = UINT64_MAX;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *name = strchr(line, ':'), *group = name ? strchr(name + 1, ':') : NULL;
        if (!group)
            continue;
        *group++ = 0;
        const struct cgroup_files *c = !name[1]                          ? &v2
                                       : strcmp(name + 1, "memory") == 0 ? &v1
                                                                         : NULL;
        uint64_t left = c ? groups_left(root, c, group) : UINT64_MAX;
        least = left < least ? left : least;
    }
    if (f)
        fclose(f);
    return least;
}

uint64_t memory_available(const char *root)
{
    char path[PATH_LEN];
    uint64_t kib, machine = UINT64_MAX, group = cgroup_left(root);
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    if (number_in(path, "MemAvailable:", &kib) && kib < UINT64_MAX / 1024)
        machine = kib * 1024;
    return group < machine ? group : machine;
}
