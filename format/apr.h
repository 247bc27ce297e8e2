/* APR v2: the bytes (spec: paiml/aprender contracts/apr-format-v2.yaml and what its four
 * generations of readers do). All little-endian, no alignment inside header and index.
 *
 *   0                    header, 64 bytes
 *   metadata_offset      JSON text, metadata_size bytes, zeros up to a multiple of 64
 *   tensor_index_offset  tensor_count entries back to back, zeros up to a multiple of 64
 *   data_offset          tensor bytes; offsets in the index count from here
 *   end - 4              optional footer: CRC-32 of everything before it
 *
 *   header  off size field                      entry   size      field
 *           0   4    magic "APR\0"                      2         u16 name_len
 *           4   1    u8 major = 2                       name_len  name, UTF-8
 *           5   1    u8 minor = 0                       1         u8 dtype
 *           6   2    u16 flags                          1         u8 ndim (<= 8)
 *           8   4    u32 tensor_count                   8*ndim    u64 dims, outermost first
 *           12  8    u64 metadata_offset = 64           8         u64 offset from data_offset
 *           20  4    u32 metadata_size, unpadded        8         u64 size, unpadded
 *           24  8    u64 tensor_index_offset
 *           32  8    u64 data_offset
 *           40  4    u32 CRC-32 of bytes 0-39 and 44-63
 *           44  20   zeros
 *
 * Entries are sorted by name in byte order. Two entries may name the same bytes. */
#ifndef APRFS_FORMAT_APR_H
#define APRFS_FORMAT_APR_H

#define APR_MAGIC       "APR\0"
#define APR_HEADER_SIZE 64
#define APR_ALIGN       64
#define APR_MAX_DIMS    8
#define APR_MAX_NAME    256

enum apr_flag {
    APR_FLAG_LZ4 = 0x0001,
    APR_FLAG_ZSTD = 0x0002,
    APR_FLAG_ENCRYPTED = 0x0004,
    APR_FLAG_SIGNED = 0x0008,
    APR_FLAG_SHARDED = 0x0010,
    APR_FLAG_QUANTIZED = 0x0020,
    APR_FLAG_HAS_VOCAB = 0x0200,
    APR_FLAG_ROW_MAJOR = 0x0400,
    APR_FLAG_COLUMN_MAJOR = 0x0800,
};

/* Codes with one meaning everywhere: 0 F32, 1 F16, 12 Q4_K, 14 Q6_K, 30 BF16 (the oldest reader
 * refuses 30). Of 2, 3, 6, 7, 8, 9 the meaning depends on who wrote the file: code and byte size
 * decide together (apr_read.h). These are APR's own: */
enum apr_dtype {
    APR_DTYPE_Q4_LEGACY = 8, /* 18 bytes per 32: f16 scale, 16 bytes, low nibble = even index */
    APR_DTYPE_Q8_LEGACY = 9, /* one f32 scale for the tensor, then one i8 per element */
    APR_DTYPE_Q4 = 128,
    APR_DTYPE_Q8 = 129,
};

#endif
