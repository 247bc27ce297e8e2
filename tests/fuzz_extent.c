/* libFuzzer target: the two texts that come as extended attributes with a model's file. What is taken
 * covers the file exactly and points into parts that were named. */
#include "infer/extent.h"
#include "infer/published.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

/* The first byte is the file's size, so that covering it is within reach. */
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
    struct extent_map m;
    struct published *list;
    struct err e;
    if (len == 0)
        return 0;
    uint64_t end = 0, size = p[0];
    if (extent_parse(&m, (const char *)p + 1, len - 1, size, &e) == 0) {
        for (size_t i = 0; i < m.n_range; i++) {
            const struct extent_range *r = &m.range[i];
            if (r->off != end || (r->part >= 0 && (size_t)r->part >= m.n_part))
                abort();
            if (r->part >= 0 && r->src_off + r->len > m.part[r->part].size)
                abort();
            end += r->len;
        }
        for (size_t i = 0; i < m.n_part; i++)
            if (m.part[i].path[0] != '/')
                abort();
        if (end != size)
            abort();
        extent_release(&m);
    }
    if (published_parse(&list, (const char *)p, len, &e) == 0) {
        published_check(list, "a", 0, &e);
        published_free(list);
    }
    return 0;
}
