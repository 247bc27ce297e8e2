/* CRC-32: see crc32.h. */
#include "format/crc32.h"

#include <errno.h>
#include <libdeflate.h>
#include <stdlib.h>
#include <zlib.h>

#define CRC_CHUNK ((size_t)1 << 20)

_Static_assert(sizeof(z_off64_t) == 8, "crc32_combine64 takes 64-bit lengths");

uint32_t crc32_update(uint32_t crc, const void *p, size_t len)
{
    /* libdeflate takes NULL as "the CRC of nothing", whatever crc is. */
    return len ? libdeflate_crc32(crc, p, len) : crc;
}

uint32_t crc32_join(uint32_t crc_a, uint32_t crc_b, uint64_t len_b)
{
    return (uint32_t)crc32_combine64(crc_a, crc_b, (z_off64_t)len_b);
}

/* Doubling: the CRC of 2^k zeros is that of 2^(k-1) zeros joined with itself. */
uint32_t crc32_zeros(uint32_t crc, uint64_t len)
{
    static const uint8_t zero;
    uint32_t power = crc32_update(0, &zero, 1);
    for (int k = 0; k < 63 && len >> k; k++) {
        if (len >> k & 1)
            crc = crc32_join(crc, power, UINT64_C(1) << k);
        power = crc32_join(power, power, UINT64_C(1) << k);
    }
    return crc;
}

int crc32_source(uint32_t *crc, const struct source *s, uint64_t off, uint64_t len, struct err *e)
{
    size_t cap = len < CRC_CHUNK ? (size_t)len : CRC_CHUNK;
    uint8_t *buf = malloc(cap ? cap : 1);
    if (!buf)
        return err_set(e, -ENOMEM, "%s: no memory to take a checksum", source_name(s));
    int rc = 0;
    uint32_t c = *crc;
    while (len > 0) {
        size_t n = len < cap ? (size_t)len : cap;
        rc = source_read(s, buf, off, n, e);
        if (rc < 0)
            break;
        c = crc32_update(c, buf, n);
        off += n;
        len -= n;
    }
    free(buf);
    if (rc == 0)
        *crc = c;
    return rc;
}

uint32_t crc32_apr_header(const uint8_t *header)
{
    return crc32_update(crc32_update(0, header, 40), header + 44, 20);
}
