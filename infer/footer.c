#include "infer/footer.h"

#include "format/bytes.h"
#include "format/crc32.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

/* A footer stands right after the padding of the last tensor: four bytes past a multiple of 64. */
static bool has_footer(const struct apr *apr)
{
    uint64_t size = source_size(apr_source(apr)), end = apr_header(apr)->data_off;
    if (source_fd(apr_source(apr)) < 0 || size % APR_ALIGN != 4)
        return false; /* a .gguf seen as an .apr has none */
    for (size_t i = 0; i < apr_n_tensor(apr); i++) {
        const struct apr_tensor *t = apr_tensor(apr, i);
        struct apr_tensor twin = *t;
        apr_raw_twin(apr, t, &twin);
        end = t->off + t->size > end ? t->off + t->size : end;
        end = twin.off + twin.size > end ? twin.off + twin.size : end;
    }
    return size - 4 >= end;
}

static int by_offset(const void *pa, const void *pb)
{
    const struct bind_item *const *a = pa, *const *b = pb;
    return (*a)->bytes.off < (*b)->bytes.off ? -1 : (*a)->bytes.off > (*b)->bytes.off;
}

/* What overlaps its neighbour is read again with the gap behind that. */
static int crc_all(const struct source *src, const struct bind_item **item, size_t n, uint64_t end,
                   uint32_t *crc, struct err *e)
{
    uint64_t at = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const struct apr_tensor *t = &item[i]->bytes;
        if (t->off < at)
            continue;
        rc = crc32_source(crc, src, at, t->off - at, e);
        *crc = crc32_join(*crc, item[i]->crc, t->size);
        at = t->off + t->size;
    }
    return rc == 0 ? crc32_source(crc, src, at, end - at, e) : rc;
}

int footer_check(const struct apr *apr, const struct bind_item *item, size_t n_item, struct err *e)
{
    if (!has_footer(apr))
        return 0;
    const struct source *src = apr_source(apr);
    const struct bind_item **sorted = calloc(n_item + 1, sizeof *sorted);
    uint64_t end = source_size(src) - 4;
    uint8_t foot[4];
    uint32_t crc = 0;
    size_t n = 0;
    if (!sorted)
        return err_set(e, -ENOMEM, "no memory to check the footer");
    for (size_t i = 0; i < n_item; i++)
        if (item[i].kind != BIND_TABLE)
            sorted[n++] = &item[i];
    qsort(sorted, n, sizeof(struct bind_item *), by_offset);
    int rc = crc_all(src, sorted, n, end, &crc, e);
    free(sorted);
    if (rc == 0)
        rc = source_read(src, foot, end, sizeof foot, e);
    if (rc == 0 && load_u32(foot) != crc)
        rc = err_set(e, -EUCLEAN,
                     "%s: footer CRC-32 is %08" PRIx32 ", the bytes before it have %08" PRIx32,
                     source_name(src), load_u32(foot), crc);
    return rc;
}
