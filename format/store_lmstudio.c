/* LM Studio's folder: <publisher>/<model>/<file>.gguf, projectors beside. The rule of two levels is
 * the plain folder's own; what is added is the name that its users type. */
#include "format/store_internal.h"

#include <string.h>

static bool ends_in(const char *path, const char *two)
{
    size_t n = strlen(path), m = strlen(two);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return n >= m && !strncmp(path + n - m, two, m) && (n == m || path[n - m - 1] == '/');
}

bool store_detect_lmstudio(int root_fd, const char *root)
{
    (void)root_fd;
    return ends_in(root, "lmstudio/models") || ends_in(root, ".lmstudio/models") ||
           ends_in(root, "lm-studio/models");
}

int store_scan_lmstudio(struct store_build *b, struct err *e)
{
    int rc = store_scan_plain(b, e);
    for (size_t i = 0; rc == 0 && i < b->n_cand; i++) {
        const char *slash = strchr(b->cand[i].dir, '/');
        if (slash && !strchr(slash + 1, '/') &&
            store_cand_add_alias(&b->cand[i], b->cand[i].dir) < 0)
            rc = err_set(e, -ENOMEM, "no memory for an alias");
    }
    return rc;
}
