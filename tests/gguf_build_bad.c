/* The malformed corpus: every way a GGUF can be wrong that has a name. Written byte by byte, since
 * the builder writes nothing wrong. Expected codes: format/gguf.h. */
#include "tests/gguf_build.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HUGE_COUNT UINT64_MAX

/* --- pieces ------------------------------------------------------------------------------ */

static void header(struct buf *b, uint64_t n_tensor, uint64_t n_key)
{
    buf_put(b, "GGUF", 4);
    buf_u32(b, 3);
    buf_u64(b, n_tensor);
    buf_u64(b, n_key);
}

static void key(struct buf *b, const char *name, uint32_t type)
{
    buf_str(b, name);
    buf_u32(b, type);
}

static void key_u32(struct buf *b, const char *name, uint32_t v)
{
    key(b, name, 4);
    buf_u32(b, v);
}

/* One whole key before the bad one, so that "key 1" is what a message must say. */
static void arch_and(struct buf *b, uint64_t n_tensor, uint64_t n_more)
{
    header(b, n_tensor, 1 + n_more);
    key(b, "general.architecture", 8);
    buf_str(b, "llama");
}

static void array(struct buf *b, const char *name, uint32_t elem, uint64_t n)
{
    key(b, name, 9);
    buf_u32(b, elem);
    buf_u64(b, n);
}

static void tensor(struct buf *b, const char *name, uint32_t type, uint64_t ne0, uint64_t ne1,
                   uint64_t off)
{
    buf_str(b, name);
    buf_u32(b, 2);
    buf_u64(b, ne0);
    buf_u64(b, ne1);
    buf_u32(b, type);
    buf_u64(b, off);
}

/* Zeros enough for any sane tensor here. */
static void data(struct buf *b)
{
    buf_pad(b, 32);
    for (int i = 0; i < 4096; i++)
        buf_u8(b, 0);
}

static void one_tensor(struct buf *b, uint32_t type, uint64_t ne0, uint64_t ne1, uint64_t off)
{
    arch_and(b, 1, 0);
    tensor(b, "blk.0.attn_q.weight", type, ne0, ne1, off);
    data(b);
}

/* A case is the statements that append its bytes. */
#define BAD(name, ...)                                                                             \
    static void name(struct buf *b, int part, uint64_t *size)                                      \
    {                                                                                              \
        (void)b;                                                                                   \
        (void)part;                                                                                \
        (void)size;                                                                                \
        __VA_ARGS__                                                                                \
    }

/* --- header ------------------------------------------------------------------------------ */

BAD(empty_file, )
BAD(magic_cut, buf_put(b, "GGU", 3);)
BAD(magic_wrong, buf_put(b, "GGUE", 4); buf_u32(b, 3); buf_u64(b, 0); buf_u64(b, 0);)
BAD(magic_short_wrong, buf_put(b, "PK", 2);)
BAD(magic_ggjt, buf_put(b, "tjgg", 4); buf_u32(b, 3); buf_u64(b, 0); buf_u64(b, 0);)
BAD(header_cut, header(b, 0, 0); b->len = 20;)
BAD(version_0, header(b, 0, 0); b->p[4] = 0;)
BAD(version_1, header(b, 0, 0); b->p[4] = 1;)
BAD(version_4, header(b, 0, 0); b->p[4] = 4;)
BAD(version_big_endian, header(b, 0, 0); b->p[4] = 0; b->p[7] = 3;)
BAD(key_count_max, header(b, 0, HUGE_COUNT);)
BAD(key_count_wraps, header(b, 0, HUGE_COUNT / 14 + 2);)
BAD(key_count_over_limit, header(b, 0, 65537); *size = 64 << 20;)
BAD(key_count_past_end, header(b, 0, 60000);)
BAD(tensor_count_max, header(b, HUGE_COUNT, 0);)
BAD(tensor_count_wraps, header(b, HUGE_COUNT / 33 + 2, 0);)
BAD(tensor_count_past_end, header(b, 1000000, 0);)
BAD(both_counts_half, header(b, UINT64_C(1) << 63, UINT64_C(1) << 63);)

/* --- keys -------------------------------------------------------------------------------- */

BAD(key_name_empty, arch_and(b, 0, 1); key_u32(b, "", 1);)
BAD(key_name_nul, arch_and(b, 0, 1); buf_u64(b, 9); buf_put(b, "llama.\0ab", 9); buf_u32(b, 4);
    buf_u32(b, 1);)
BAD(key_name_max, arch_and(b, 0, 1); buf_u64(b, HUGE_COUNT); buf_u64(b, 0);)
BAD(key_name_over_limit, arch_and(b, 0, 1); buf_u64(b, 65536); *size = 1 << 20;)
BAD(key_name_past_end, arch_and(b, 0, 1); buf_u64(b, 60000); buf_put(b, "llama.x", 7);)
BAD(key_type_13, arch_and(b, 0, 1); key(b, "llama.x", 13); buf_u64(b, 0);)
BAD(key_type_max, arch_and(b, 0, 1); key(b, "llama.x", UINT32_MAX); buf_u64(b, 0);)
BAD(key_twice, arch_and(b, 0, 3); key_u32(b, "llama.x", 1); key_u32(b, "llama.y", 1);
    key_u32(b, "llama.x", 2);)
BAD(key_value_cut, arch_and(b, 0, 1); key_u32(b, "llama.x", 1); b->len -= 1;)
BAD(string_max, arch_and(b, 0, 1); key(b, "llama.x", 8); buf_u64(b, HUGE_COUNT);)
BAD(string_past_end, arch_and(b, 0, 1); key(b, "llama.x", 8); buf_u64(b, 1000); buf_u64(b, 0);)
BAD(string_wraps, arch_and(b, 0, 1); key(b, "llama.x", 8); buf_u64(b, HUGE_COUNT - 60);)
BAD(bool_2, arch_and(b, 0, 1); key(b, "llama.x", 7); buf_u8(b, 2);)
BAD(bool_in_array, arch_and(b, 0, 1); array(b, "llama.x", 7, 3); buf_u8(b, 0); buf_u8(b, 1);
    buf_u8(b, 0xff);)

/* --- arrays ------------------------------------------------------------------------------ */

static void nested(struct buf *b, int depth)
{
    arch_and(b, 0, 1);
    array(b, "llama.x", 9, 1);
    for (int i = 2; i < depth; i++) {
        buf_u32(b, 9);
        buf_u64(b, 1);
    }
    buf_u32(b, 4);
    buf_u64(b, 1);
    buf_u32(b, 7);
}

BAD(array_elem_13, arch_and(b, 0, 1); array(b, "llama.x", 13, 1); buf_u64(b, 0);)
BAD(array_count_max, arch_and(b, 0, 1); array(b, "llama.x", 0, HUGE_COUNT);)
BAD(array_count_wraps, arch_and(b, 0, 1); array(b, "llama.x", 10, (UINT64_C(1) << 61) + 1);
    buf_u64(b, 1);)
BAD(array_past_end, arch_and(b, 0, 1); array(b, "llama.x", 5, 1000); buf_u64(b, 0);)
BAD(array_bools_past_end, arch_and(b, 0, 1); array(b, "llama.x", 7, 9); buf_u64(b, 0);)
BAD(array_strings_count_max, arch_and(b, 0, 1); array(b, "llama.x", 8, HUGE_COUNT);)
BAD(array_strings_count_wraps, arch_and(b, 0, 1); array(b, "llama.x", 8, (UINT64_C(1) << 61) + 1);
    buf_u64(b, 0);)
BAD(array_strings_past_end, arch_and(b, 0, 1); array(b, "llama.x", 8, 2); buf_str(b, "ab");
    buf_u64(b, 9); buf_put(b, "12345678", 8);)
BAD(array_nested_9, nested(b, 9);)
BAD(array_nested_100000, nested(b, 100000);)
BAD(array_nested_count_max, arch_and(b, 0, 1); array(b, "llama.x", 9, 1); buf_u32(b, 9);
    buf_u64(b, HUGE_COUNT);)
BAD(array_nested_elem_13, arch_and(b, 0, 1); array(b, "llama.x", 9, 1); buf_u32(b, 13);
    buf_u64(b, 1); buf_u64(b, 0);)

/* --- limits of a head -------------------------------------------------------------------- */

#define HEAD_MAX (UINT64_C(256) << 20)

BAD(head_over_limit_array, arch_and(b, 0, 1); array(b, "llama.x", 0, HEAD_MAX - 10);
    *size = HEAD_MAX * 2;)
BAD(head_over_limit_string, arch_and(b, 0, 1); key(b, "llama.x", 8); buf_u64(b, HEAD_MAX - 10);
    *size = HEAD_MAX * 2;)
BAD(head_over_limit_strings, arch_and(b, 0, 1); array(b, "llama.x", 8, HEAD_MAX / 8 + 1);
    *size = HEAD_MAX * 2;)

/* --- tensors ----------------------------------------------------------------------------- */

BAD(tensor_name_empty, arch_and(b, 1, 0); tensor(b, "", 0, 32, 1, 0); data(b);)
BAD(tensor_name_nul, arch_and(b, 1, 0); tensor(b, "a.b", 0, 32, 1, 0); data(b);
    ((char *)memmem(b->p, b->len, "a.b", 3))[1] = 0;)
BAD(tensor_name_over_limit, arch_and(b, 1, 0); buf_u64(b, 65536); *size = 1 << 20;)
BAD(tensor_twice, arch_and(b, 3, 0); tensor(b, "output.weight", 0, 32, 1, 0);
    tensor(b, "other.weight", 0, 32, 1, 128); tensor(b, "output.weight", 0, 32, 1, 256); data(b);)
BAD(tensor_cut, arch_and(b, 1, 0); tensor(b, "output.weight", 0, 32, 1, 0); b->len -= 1;)
BAD(n_dims_0, one_tensor(b, 0, 32, 1, 0); *((uint8_t *)memmem(b->p, b->len, "weight", 6) + 6) = 0;)
BAD(n_dims_5, one_tensor(b, 0, 32, 1, 0); *((uint8_t *)memmem(b->p, b->len, "weight", 6) + 6) = 5;)
BAD(n_dims_max, one_tensor(b, 0, 32, 1, 0);
    memset((uint8_t *)memmem(b->p, b->len, "weight", 6) + 6, 255, 4);)
BAD(dim_0, one_tensor(b, 0, 32, 0, 0);)
BAD(dim_0_hides_overflow, one_tensor(b, 0, 0, HUGE_COUNT, 0);)
BAD(dims_wrap, one_tensor(b, 0, UINT64_C(1) << 32, UINT64_C(1) << 32, 0);)
BAD(dim_negative, one_tensor(b, 0, HUGE_COUNT, 1, 0);)
BAD(size_wraps, one_tensor(b, 28, UINT64_C(1) << 61, 1, 0);)
BAD(size_negative, one_tensor(b, 28, UINT64_C(1) << 60, 1, 0);)
BAD(type_4, one_tensor(b, 4, 32, 1, 0);)
BAD(type_5, one_tensor(b, 5, 32, 1, 0);)
BAD(type_31, one_tensor(b, 31, 32, 1, 0);)
BAD(type_33, one_tensor(b, 33, 32, 1, 0);)
BAD(type_38, one_tensor(b, 38, 32, 1, 0);)
BAD(type_43, one_tensor(b, 43, 32, 1, 0);)
BAD(type_max, one_tensor(b, UINT32_MAX, 32, 1, 0);)
BAD(row_no_whole_block, one_tensor(b, 12, 128, 2, 0);)
BAD(offset_unaligned, one_tensor(b, 0, 32, 1, 16);)
BAD(offset_wraps, one_tensor(b, 0, 32, 1, HUGE_COUNT - 31);)
BAD(offset_negative, one_tensor(b, 0, 32, 1, UINT64_C(1) << 63);)
BAD(offset_past_end, one_tensor(b, 0, 32, 1, 1 << 20);)
BAD(tensor_past_end, one_tensor(b, 0, 32, 32, 0); b->len -= 1;)
BAD(no_padding, arch_and(b, 1, 0); tensor(b, "output.weight", 0, 8, 1, 0);)

/* --- tensors that share bytes ------------------------------------------------------------ */

/* 128 bytes each, but for the Q4_0 row of 18; offsets are the case's. */
static void two_tensors(struct buf *b, uint64_t first, uint64_t second, uint64_t ne1)
{
    arch_and(b, 2, 0);
    tensor(b, "a", 0, 32, ne1, first);
    tensor(b, "b", 2, 32, 1, second);
    data(b);
}

/* What makes a check of neighbours in file order, or of every pair, fail: the two that overlap are
 * the first and the last of 20,000. */
static void overlap_far_apart(struct buf *b, int part, uint64_t *size)
{
    enum { N = 20000 };
    (void)part;
    arch_and(b, N, 0);
    for (int i = 0; i < N; i++) {
        char name[16];
        snprintf(name, sizeof name, "t%d", i);
        tensor(b, name, 0, 8, 1, 32 * (i < N - 1 ? (uint64_t)i : 0));
    }
    *size = b->len + 32 * (N + 1);
}

BAD(overlap_same_offset, two_tensors(b, 0, 0, 1);)
BAD(overlap_tail, two_tensors(b, 0, 96, 1);)
BAD(overlap_inside, two_tensors(b, 0, 128, 4);)
BAD(overlap_unordered, arch_and(b, 2, 0); tensor(b, "a", 0, 32, 1, 128);
    tensor(b, "b", 0, 32, 1, 32); data(b);)
BAD(overlap_past_end, two_tensors(b, 1 << 20, 1 << 20, 1);)

/* --- alignment --------------------------------------------------------------------------- */

static void alignment(struct buf *b, uint32_t v)
{
    arch_and(b, 1, 1);
    key_u32(b, "general.alignment", v);
    tensor(b, "output.weight", 0, 32, 1, 0);
    data(b);
}

BAD(alignment_0, alignment(b, 0);)
BAD(alignment_3, alignment(b, 3);)
BAD(alignment_4, alignment(b, 4);)
BAD(alignment_48, alignment(b, 48);)
BAD(alignment_2_to_31, alignment(b, UINT32_C(1) << 31);)
BAD(alignment_u64, arch_and(b, 0, 1); key(b, "general.alignment", 10); buf_u64(b, 32);)
BAD(alignment_string, arch_and(b, 0, 1); key(b, "general.alignment", 8); buf_str(b, "32");)
BAD(alignment_array, arch_and(b, 0, 1); array(b, "general.alignment", 4, 1); buf_u32(b, 32);)
BAD(alignment_not_obeyed, arch_and(b, 2, 1); key_u32(b, "general.alignment", 64);
    tensor(b, "a", 0, 8, 1, 0); tensor(b, "b", 0, 8, 1, 32); data(b);)

/* --- shards ------------------------------------------------------------------------------ */

static void shard(struct buf *b, const char *name, uint32_t no, uint32_t count, uint32_t total)
{
    arch_and(b, 1, 3);
    key_u32(b, "split.no", no);
    key_u32(b, "split.count", count);
    key_u32(b, "split.tensors.count", total);
    tensor(b, name, 0, 32, 1, 0);
    data(b);
}

static const char *const part_name[] = {"a", "b", "c"};

BAD(split_first_alone, shard(b, "a", 0, 3, 3);)
BAD(split_second_alone, shard(b, "a", 1, 3, 3);)
BAD(split_last_missing, shard(b, part_name[part], (uint32_t)part, 3, 3);)
BAD(split_no_mismatch, shard(b, part_name[part], 0, 2, 2);)
BAD(split_swapped, shard(b, part_name[part], 1 - (uint32_t)part, 2, 2);)
BAD(split_no_alone, shard(b, "a", 1, 1, 1);)
BAD(split_count_small, shard(b, part_name[part], (uint32_t)part, part == 1 ? 1 : 2, 2);)
BAD(split_count_0, shard(b, part_name[part], (uint32_t)part, 0, 2);)
BAD(split_count_max, shard(b, "a", 0, UINT32_MAX, 1);)
BAD(split_tensors_count, shard(b, part_name[part], (uint32_t)part, 2, 3);)
BAD(split_tensor_twice, shard(b, "a", (uint32_t)part, 2, 2);)
BAD(split_keys_missing, if (part == 0) shard(b, "a", 0, 2, 2); else one_tensor(b, 0, 32, 1, 0);)
BAD(split_no_string, arch_and(b, 0, 2); key(b, "split.no", 8); buf_str(b, "0");
    key_u32(b, "split.count", 2);)
BAD(split_part_bad, shard(b, part_name[part], (uint32_t)part, 2, 2); if (part == 1) b->p[0] = 'g';)

/* --- the table --------------------------------------------------------------------------- */

#define CASE(name, rc, says)                                                                       \
    {                                                                                              \
#name, rc, says, 0, name                                                                   \
    }
#define CASE_PARTS(name, rc, says, n)                                                              \
    {                                                                                              \
#name, rc, says, n, name                                                                   \
    }

const struct gguf_bad gguf_bad_cases[] = {
    CASE(empty_file, -EAGAIN, "has 0: cut in the header"),
    CASE(magic_cut, -EAGAIN, "cut in the header"),
    CASE(magic_wrong, -EUCLEAN, "magic is 47 47 55 45"),
    CASE(magic_short_wrong, -EUCLEAN, "magic is 50 4b"),
    CASE(magic_ggjt, -EUCLEAN, "expected 'GGUF'"),
    CASE(header_cut, -EAGAIN, "has 20: cut in the header"),
    CASE(version_0, -ENOTSUP, "version 0, expected 2 or 3"),
    CASE(version_1, -ENOTSUP, "version 1, expected 2 or 3"),
    CASE(version_4, -ENOTSUP, "version 4, expected 2 or 3"),
    CASE(version_big_endian, -ENOTSUP, "big-endian"),
    CASE(key_count_max, -ERANGE, "18446744073709551615 keys"),
    CASE(key_count_wraps, -ERANGE, "1317624576693539403 keys"),
    CASE(key_count_over_limit, -ERANGE, "65537 keys"),
    CASE(key_count_past_end, -EAGAIN, "needs 840024 bytes"),
    CASE(tensor_count_max, -ERANGE, "18446744073709551615 tensors"),
    CASE(tensor_count_wraps, -ERANGE, "558992244657865202 tensors"),
    CASE(tensor_count_past_end, -EAGAIN, "needs 33000024 bytes"),
    CASE(both_counts_half, -ERANGE, "9223372036854775808 keys"),
    CASE(key_name_empty, -EUCLEAN, "key 1 at byte 69: empty name"),
    CASE(key_name_nul, -EUCLEAN, "NUL"),
    CASE(key_name_max, -ERANGE, "name of 18446744073709551615 bytes"),
    CASE(key_name_over_limit, -ERANGE, "name of 65536 bytes"),
    CASE(key_name_past_end, -EAGAIN, "cut in key 1"),
    CASE(key_type_13, -EUCLEAN, "key 'llama.x': unknown value type 13"),
    CASE(key_type_max, -EUCLEAN, "key 'llama.x': unknown value type 4294967295"),
    CASE(key_twice, -EUCLEAN, "key 'llama.x' comes twice"),
    CASE(key_value_cut, -EAGAIN, "cut in key 1 'llama.x'"),
    CASE(string_max, -ERANGE, "key 1 'llama.x'"),
    CASE(string_past_end, -EAGAIN, "cut in key 1 'llama.x'"),
    CASE(string_wraps, -ERANGE, "key 1 'llama.x'"),
    CASE(bool_2, -EUCLEAN, "key 'llama.x': boolean is 2"),
    CASE(bool_in_array, -EUCLEAN, "key 'llama.x': boolean is 255"),
    CASE(array_elem_13, -EUCLEAN, "key 'llama.x': array of unknown value type 13"),
    CASE(array_count_max, -ERANGE, "key 'llama.x': array of 18446744073709551615 elements"),
    CASE(array_count_wraps, -ERANGE, "key 'llama.x': array of 2305843009213693953 elements"),
    CASE(array_past_end, -EAGAIN, "cut in key 1 'llama.x'"),
    CASE(array_bools_past_end, -EAGAIN, "cut in key 1 'llama.x'"),
    CASE(array_strings_count_max, -ERANGE, "key 'llama.x': array of 18446744073709551615"),
    CASE(array_strings_count_wraps, -ERANGE, "key 'llama.x': array of 2305843009213693953"),
    CASE(array_strings_past_end, -EAGAIN, "cut in key 1 'llama.x'"),
    CASE(array_nested_9, -ERANGE, "key 'llama.x': arrays nested deeper than 8"),
    CASE(array_nested_100000, -ERANGE, "key 'llama.x': arrays nested deeper than 8"),
    CASE(array_nested_count_max, -ERANGE, "key 'llama.x': array of 18446744073709551615"),
    CASE(array_nested_elem_13, -EUCLEAN, "key 'llama.x': array of unknown value type 13"),
    CASE(head_over_limit_array, -ERANGE, "key 1 'llama.x'"),
    CASE(head_over_limit_string, -ERANGE, "key 1 'llama.x'"),
    CASE(head_over_limit_strings, -ERANGE, "key 'llama.x': array of 33554433 elements"),
    CASE(tensor_name_empty, -EUCLEAN, "tensor 0 at byte 69: empty name"),
    CASE(tensor_name_nul, -EUCLEAN, "NUL"),
    CASE(tensor_name_over_limit, -ERANGE, "tensor 0 at byte 69: name of 65536 bytes"),
    CASE(tensor_twice, -EUCLEAN, "tensor 'output.weight' comes twice"),
    CASE(tensor_cut, -EAGAIN, "cut in tensor 0 'output.weight'"),
    CASE(n_dims_0, -EUCLEAN, "tensor 'blk.0.attn_q.weight': 0 dimensions"),
    CASE(n_dims_5, -EUCLEAN, "tensor 'blk.0.attn_q.weight': 5 dimensions"),
    CASE(n_dims_max, -EUCLEAN, "tensor 'blk.0.attn_q.weight': 4294967295 dimensions"),
    CASE(dim_0, -EUCLEAN, "tensor 'blk.0.attn_q.weight': dimension 1 is 0"),
    CASE(dim_0_hides_overflow, -EUCLEAN, "tensor 'blk.0.attn_q.weight': dimension 0 is 0"),
    CASE(dims_wrap, -EUCLEAN, "tensor 'blk.0.attn_q.weight': dimensions 4294967296 x 4294967296"),
    CASE(dim_negative, -EUCLEAN, "tensor 'blk.0.attn_q.weight': dimensions 18446744073709551615"),
    CASE(size_wraps, -EUCLEAN, "tensor 'blk.0.attn_q.weight': size in bytes overflows"),
    CASE(size_negative, -EUCLEAN, "tensor 'blk.0.attn_q.weight': size in bytes overflows"),
    CASE(type_4, -ENOTSUP, "tensor 'blk.0.attn_q.weight': type 4 (Q4_2) was withdrawn"),
    CASE(type_5, -ENOTSUP, "type 5 (Q4_3) was withdrawn"),
    CASE(type_31, -ENOTSUP, "type 31 (Q4_0_4_4) was withdrawn"),
    CASE(type_33, -ENOTSUP, "type 33 (Q4_0_8_8) was withdrawn"),
    CASE(type_38, -ENOTSUP, "type 38 (IQ4_NL_8_8) was withdrawn"),
    CASE(type_43, -ENOTSUP, "tensor 'blk.0.attn_q.weight': unknown type 43"),
    CASE(type_max, -ENOTSUP, "tensor 'blk.0.attn_q.weight': unknown type 4294967295"),
    CASE(row_no_whole_block, -EUCLEAN, "row of 128 weights, Q4_K wants a multiple of 256"),
    CASE(offset_unaligned, -EUCLEAN, "tensor 'blk.0.attn_q.weight': offset 16"),
    CASE(offset_wraps, -EUCLEAN, "tensor 'blk.0.attn_q.weight': its end overflows"),
    CASE(offset_negative, -EUCLEAN, "tensor 'blk.0.attn_q.weight': its end overflows"),
    CASE(offset_past_end, -EAGAIN, "tensor 'blk.0.attn_q.weight' ends past the file"),
    CASE(tensor_past_end, -EAGAIN, "needs 4224 bytes, has 4223"),
    CASE(no_padding, -EAGAIN, "tensor 'output.weight' ends past the file"),
    CASE(overlap_same_offset, -EUCLEAN, "tensors 'a' and 'b' overlap"),
    CASE(overlap_tail, -EUCLEAN, "tensors 'a' and 'b' overlap"),
    CASE(overlap_inside, -EUCLEAN, "tensors 'a' and 'b' overlap"),
    CASE(overlap_unordered, -EUCLEAN, "tensors 'b' and 'a' overlap"),
    CASE(overlap_past_end, -EUCLEAN, "tensors 'a' and 'b' overlap"),
    CASE(overlap_far_apart, -EUCLEAN, "tensors 't0' and 't19999' overlap"),
    CASE(alignment_0, -EUCLEAN, "general.alignment is 0"),
    CASE(alignment_3, -EUCLEAN, "general.alignment is 3"),
    CASE(alignment_4, -EUCLEAN, "general.alignment is 4"),
    CASE(alignment_48, -EUCLEAN, "general.alignment is 48"),
    CASE(alignment_2_to_31, -ERANGE, "general.alignment is 2147483648"),
    CASE(alignment_u64, -EUCLEAN, "general.alignment has value type 10"),
    CASE(alignment_string, -EUCLEAN, "general.alignment has value type 8"),
    CASE(alignment_array, -EUCLEAN, "general.alignment has value type 9"),
    CASE(alignment_not_obeyed, -EUCLEAN,
         "tensor 'b': offset 32 is no multiple of the alignment 64"),
    CASE(split_first_alone, -ENOENT, "shard 00002-of-00003 is missing"),
    CASE(split_second_alone, -ENOENT, "shard 00001-of-00003 is missing"),
    CASE_PARTS(split_last_missing, -ENOENT, "shard 00003-of-00003 is missing", 2),
    CASE_PARTS(split_no_mismatch, -EUCLEAN, "split.no is 0, expected 1", 2),
    CASE_PARTS(split_swapped, -EUCLEAN, "split.no is 1, expected 0", 2),
    CASE(split_no_alone, -EUCLEAN, "split.no is 1, expected 0"),
    CASE_PARTS(split_count_small, -EUCLEAN, "split.count is 1, 2 parts", 2),
    CASE_PARTS(split_count_0, -EUCLEAN, "split.count is 0, 2 parts", 2),
    CASE(split_count_max, -ENOENT, "split.count is 4294967295"),
    CASE_PARTS(split_tensors_count, -EUCLEAN, "split.tensors.count is 3, the parts have 2", 2),
    CASE_PARTS(split_tensor_twice, -EUCLEAN, "tensor 'a' comes twice", 2),
    CASE_PARTS(split_keys_missing, -EUCLEAN, "no key 'split.count'", 2),
    CASE_PARTS(split_no_string, -EUCLEAN, "'split.no' is no whole number", 2),
    CASE_PARTS(split_part_bad, -EUCLEAN, "magic", 2),
};
const size_t gguf_n_bad_cases = sizeof gguf_bad_cases / sizeof *gguf_bad_cases;
