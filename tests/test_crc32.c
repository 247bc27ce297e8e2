/* crc32.h against published values and against itself by another route. */
#include "format/crc32.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Bit by bit from the definition: reflected polynomial 0xEDB88320, all ones in, all ones out. */
static uint32_t crc_by_bits(const uint8_t *p, size_t n)
{
    uint32_t c = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++)
            c = c >> 1 ^ (c & 1 ? 0xEDB88320u : 0);
    }
    return ~c;
}

static void crc32_update_gives_check_value(void **state)
{
    (void)state;
    /* The catalogue value of CRC-32/ISO-HDLC. */
    assert_int_equal(crc32_update(0, "123456789", 9), 0xCBF43926);
    assert_int_equal(crc32_update(crc32_update(0, "1234", 4), "56789", 5), 0xCBF43926);
    assert_int_equal(crc32_update(0x12345678, NULL, 0), 0x12345678);
}

static void crc32_update_equals_definition(void **state)
{
    (void)state;
    uint8_t buf[1031];
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * 31 + (i >> 3));
    for (size_t n = 0; n <= sizeof buf; n += 7)
        assert_int_equal(crc32_update(0, buf, n), crc_by_bits(buf, n));
}

static void crc32_join_equals_one_pass(void **state)
{
    (void)state;
    uint8_t buf[500];
    for (size_t i = 0; i < sizeof buf; i++)
        buf[i] = (uint8_t)(i * i);
    uint32_t whole = crc32_update(0, buf, sizeof buf);
    for (size_t cut = 0; cut <= sizeof buf; cut++)
        assert_int_equal(crc32_join(crc32_update(0, buf, cut),
                                    crc32_update(0, buf + cut, sizeof buf - cut), sizeof buf - cut),
                         whole);
}

static void crc32_zeros_equals_zeros(void **state)
{
    (void)state;
    static const uint8_t zero[70000];
    uint32_t crc = crc32_update(0, "abc", 3);
    for (size_t n = 0; n < sizeof zero; n += 4999)
        assert_int_equal(crc32_zeros(crc, n), crc32_update(crc, zero, n));
    /* Beyond what memory holds: in two halves. */
    assert_int_equal(crc32_zeros(crc, UINT64_C(5) << 33),
                     crc32_zeros(crc32_zeros(crc, UINT64_C(4) << 33), UINT64_C(1) << 33));
}

/* apr-format-v2 worked example: a 64-byte header written by the original aprender writer, and the
 * same header with flags 0x0420. */
static void crc32_apr_header_skips_its_own_field(void **state)
{
    (void)state;
    uint8_t h[64] = {0x41, 0x50, 0x52, 0x00, 0x02, 0x00, 0x00, 0x04, 0x01, 0x00, 0x00,
                     0x00, 0x40, 0,    0,    0,    0,    0,    0,    0,    0xf7, 0x01,
                     0,    0,    0x40, 0x02, 0,    0,    0,    0,    0,    0,    0x80,
                     0x02, 0,    0,    0,    0,    0,    0,    0xde, 0xb5, 0x49, 0x5e};
    assert_int_equal(crc32_apr_header(h), 0x5e49b5de);
    assert_int_equal(crc32_update(0, h, 40), 0x76063657);
    h[6] = 0x20;
    assert_int_equal(crc32_apr_header(h), 0x6afc831e);
}

static void crc32_source_reads_in_chunks(void **state)
{
    (void)state;
    size_t n = ((size_t)2 << 20) + 12345;
    uint8_t *p = malloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(i * 7 + (i >> 11));
    struct source *s = NULL;
    assert_int_equal(source_from_mem(&s, p, n, "mem", NULL), 0);
    uint32_t crc = 0;
    assert_int_equal(crc32_source(&crc, s, 5, n - 5, NULL), 0);
    assert_int_equal(crc, crc32_update(0, p + 5, n - 5));
    struct err e = {0};
    uint32_t before = crc;
    assert_int_equal(crc32_source(&crc, s, 5, n, &e), -ERANGE);
    assert_int_equal(crc, before);
    source_close(s);
    free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32_update_gives_check_value),
        cmocka_unit_test(crc32_update_equals_definition),
        cmocka_unit_test(crc32_join_equals_one_pass),
        cmocka_unit_test(crc32_zeros_equals_zeros),
        cmocka_unit_test(crc32_apr_header_skips_its_own_field),
        cmocka_unit_test(crc32_source_reads_in_chunks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
