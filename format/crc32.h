/* CRC-32/ISO-HDLC (zlib, PNG, Ethernet; reflected 0xEDB88320, check value of "123456789" is
 * 0xCBF43926): libdeflate's over bytes in memory, zlib's combine for bytes that nobody has gathered
 * in one place. */
#ifndef APRFS_FORMAT_CRC32_H
#define APRFS_FORMAT_CRC32_H

#include "format/err.h"
#include "format/source.h"

#include <stddef.h>
#include <stdint.h>

/* The CRC of what crc covers followed by p[0..len); start with crc = 0. */
uint32_t crc32_update(uint32_t crc, const void *p, size_t len);

/* The CRC of a followed by b, from the two CRCs and b's length. */
uint32_t crc32_join(uint32_t crc_a, uint32_t crc_b, uint64_t len_b);

/* The CRC of len zero bytes after what crc covers, in O(log len). */
uint32_t crc32_zeros(uint32_t crc, uint64_t len);

/* The CRC of len bytes of s from off after what *crc covers; reads 1 MiB at a time. */
int crc32_source(uint32_t *crc, const struct source *s, uint64_t off, uint64_t len, struct err *e);

/* The checksum an APR header carries: bytes 0-39 and 44-63 of its 64. */
uint32_t crc32_apr_header(const uint8_t *header);

#endif
