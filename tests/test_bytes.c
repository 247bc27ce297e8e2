/* The bounded cursor and the arithmetic of format/bytes.h. Expected values by hand. */
#include "format/bytes.h"
#include "tests/support.h"

static const uint8_t bytes[] = {0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x88, 0x00, 0x00,
                                0x80, 0x3f, 0,    0,    0,    0,    0,    0,    0xf8, 0xbf};

static void bytes_load_little_endian_at_any_address(void **state)
{
    (void)state;
    assert_int_equal(load_u16(bytes), 0x0201);
    assert_int_equal(load_u16(bytes + 1), 0x0302);
    assert_int_equal(load_u32(bytes), 0x04030201);
    assert_int_equal(load_u32(bytes + 3), 0x07060504);
    assert_int_equal(load_u64(bytes), UINT64_C(0x8807060504030201));
    assert_true(load_f32(bytes + 8) == 1.0f);  /* 3f800000 */
    assert_true(load_f64(bytes + 12) == -1.5); /* bff8000000000000 */
}

static void bytes_store_what_load_reads(void **state)
{
    (void)state;
    uint8_t b[11];
    memset(b, 0xaa, sizeof b);
    store_u16(b + 1, 0xf102);
    assert_memory_equal(b, "\xaa\x02\xf1\xaa", 4);
    store_u32(b + 1, 0xf1020304);
    assert_memory_equal(b, "\xaa\x04\x03\x02\xf1\xaa", 6);
    store_u64(b + 1, UINT64_C(0xf102030405060708));
    assert_memory_equal(b, "\xaa\x08\x07\x06\x05\x04\x03\x02\xf1\xaa\xaa", 11);
    assert_int_equal(load_u64(b + 1), UINT64_C(0xf102030405060708));
}

static void cursor_reads_to_the_last_byte_and_no_further(void **state)
{
    (void)state;
    uint8_t *p = guard_new(bytes, 15); /* 1 + 2 + 4 + 8 */
    struct cursor c = cursor_over(p, 15);
    assert_int_equal(cursor_u8(&c), 0x01);
    assert_int_equal(cursor_u16(&c), 0x0302);
    assert_int_equal(cursor_u32(&c), 0x07060504);
    assert_int_equal(cursor_left(&c), 8);
    assert_int_equal(cursor_u64(&c), UINT64_C(0x3f80000088));
    assert_int_equal(cursor_left(&c), 0);
    assert_non_null(cursor_take(&c, 0)); /* nothing more is still something */
    assert_false(c.bad);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.bad);
    assert_int_equal(c.bad_pos, 15);
    assert_int_equal(c.bad_need, 1);
    guard_free(p, 15);
}

/* After the first error every get is 0 and moves nothing, and the record of it stays. */
static void cursor_keeps_its_first_error(void **state)
{
    (void)state;
    struct cursor c = cursor_over(bytes, 5);
    cursor_u16(&c);
    assert_int_equal(cursor_u32(&c), 0);
    assert_true(c.bad && c.pos == 2 && c.bad_pos == 2 && c.bad_need == 4);
    assert_int_equal(cursor_u8(&c), 0); /* though a byte is there */
    assert_int_equal(cursor_u64(&c), 0);
    assert_null(cursor_take(&c, 0));
    assert_true(c.pos == 2 && c.bad_pos == 2 && c.bad_need == 4);
}

static void cursor_survives_huge_lengths(void **state)
{
    (void)state;
    static const uint64_t lens[] = {21, UINT32_MAX, INT64_MAX, UINT64_MAX - 19, UINT64_MAX};
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        struct cursor c = cursor_over(bytes, sizeof bytes);
        c.pos = i;
        assert_null(cursor_take(&c, lens[i]));
        assert_true(c.bad && c.pos == i && c.bad_pos == i);
        assert_true(c.bad_need == lens[i]);
    }
    struct cursor c = cursor_over(NULL, 0);
    assert_int_equal(cursor_left(&c), 0);
    assert_int_equal(cursor_u8(&c), 0);
    assert_true(c.bad);
}

static void arithmetic_reports_overflow(void **state)
{
    (void)state;
    uint64_t v;
    assert_true(add_u64(UINT64_MAX - 1, 1, &v) && v == UINT64_MAX);
    assert_false(add_u64(UINT64_MAX, 1, &v));
    assert_true(mul_u64(UINT32_MAX, UINT32_MAX, &v) && v == UINT64_C(0xfffffffe00000001));
    assert_false(mul_u64(UINT64_C(1) << 32, UINT64_C(1) << 32, &v));
    assert_true(mul_u64(0, UINT64_MAX, &v) && v == 0);
    assert_true(round_up_u64(0, 32, &v) && v == 0);
    assert_true(round_up_u64(1, 32, &v) && v == 32);
    assert_true(round_up_u64(32, 32, &v) && v == 32);
    assert_true(round_up_u64(33, 1, &v) && v == 33);
    assert_true(round_up_u64(UINT64_MAX - 31, 32, &v) && v == UINT64_MAX - 31);
    assert_false(round_up_u64(UINT64_MAX - 30, 32, &v));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_load_little_endian_at_any_address),
        cmocka_unit_test(bytes_store_what_load_reads),
        cmocka_unit_test(cursor_reads_to_the_last_byte_and_no_further),
        cmocka_unit_test(cursor_keeps_its_first_error),
        cmocka_unit_test(cursor_survives_huge_lengths),
        cmocka_unit_test(arithmetic_reports_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
