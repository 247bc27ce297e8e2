/* infer/text/unicode: the table against Debian's data, UTF-8 against the rules of its header. */
#include "infer/text/unicode.h"

#include "tests/support.h"

#include <unistd.h>

/* General categories by hand (Unicode 15.1 code charts), blanks from PropList.txt. */
static void unicode_kind_samples(void **state)
{
    (void)state;
    static const struct {
        uint32_t cp;
        enum unicode_kind kind;
    } t[] = {
        {'A', UNICODE_LETTER},     {'9', UNICODE_NUMBER},       {'_', UNICODE_PUNCT},
        {'+', UNICODE_SYMBOL},     {' ', UNICODE_SPACE},        {'\v', UNICODE_SPACE},
        {0x1C, UNICODE_OTHER},     {0x85, UNICODE_SPACE},       {0xA0, UNICODE_SPACE},
        {0xAA, UNICODE_LETTER},    {0xBD, UNICODE_NUMBER},      {0x301, UNICODE_MARK},
        {0x180E, UNICODE_OTHER},   {0x200B, UNICODE_OTHER},     {0x2028, UNICODE_SPACE},
        {0x3000, UNICODE_SPACE},   {0x4E00, UNICODE_LETTER},    {0x9FFF, UNICODE_LETTER},
        {0xD800, UNICODE_OTHER},   {0xFDD0, UNICODE_OTHER},     {0x1F600, UNICODE_SYMBOL},
        {0x2EBF0, UNICODE_LETTER}, /* 15.1, CJK extension I */
        {0x2FFC, UNICODE_SYMBOL},  /* 15.1 */
        {0x323AF, UNICODE_LETTER}, {0x323B0, UNICODE_OTHER},    {0x10FFFF, UNICODE_OTHER},
        {0x110000, UNICODE_OTHER}, {UINT32_MAX, UNICODE_OTHER},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++)
        if (unicode_kind(t[i].cp) != t[i].kind)
            fail_msg("U+%04X is %d, want %d", t[i].cp, unicode_kind(t[i].cp), t[i].kind);
}

static void unicode_kinds_agrees_with_kind(void **state)
{
    (void)state;
    uint8_t *k = malloc(UNICODE_END);
    assert_non_null(k);
    unicode_kinds(k);
    for (uint32_t cp = 0; cp < UNICODE_END; cp++)
        if (k[cp] != unicode_kind(cp))
            fail_msg("U+%04X", cp);
    free(k);
}

/* The checked-in table is what scripts/make_unicode makes of the package unicode-data. */
static void unicode_tables_are_made_from_unicode_data(void **state)
{
    (void)state;
    if (access("/usr/share/unicode/UnicodeData.txt", R_OK) != 0)
        skip_because("package unicode-data is not installed");
    FILE *p = popen("scripts/make_unicode | cmp - infer/text/unicode_tables.h", "r");
    assert_non_null(p);
    char line[256] = "";
    if (!fgets(line, sizeof line, p))
        line[0] = 0;
    if (pclose(p) != 0)
        fail_msg("%s", line);
}

static void unicode_decode_is_lax_where_the_reference_is(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        uint32_t cp;
        size_t n;
    } t[] = {
        {"a", 1, 'a', 1},
        {"\0", 1, 0, 1},
        {"\xC3\xA9", 2, 0xE9, 2},
        {"\xE4\xB8\xAD", 3, 0x4E2D, 3},
        {"\xF0\x9F\x98\x80", 4, 0x1F600, 4},
        {"\xC0\x80", 2, 0, 2},                   /* overlong */
        {"\xE0\x80\xA0", 3, 0x20, 3},            /* overlong */
        {"\xED\xA0\x80", 3, 0xD800, 3},          /* surrogate */
        {"\x80", 1, UNICODE_REPLACEMENT, 1},     /* continuation alone */
        {"\xC3", 1, UNICODE_REPLACEMENT, 1},     /* cut short */
        {"\xE4\xB8", 2, UNICODE_REPLACEMENT, 1}, /* cut short */
        {"\xE4\xB8x", 3, UNICODE_REPLACEMENT, 1},
        {"\xF4\x90\x80\x80", 4, UNICODE_REPLACEMENT, 1}, /* U+110000 */
        {"\xF8\x88\x80\x80\x80", 5, UNICODE_REPLACEMENT, 1},
        {"\xFF", 1, UNICODE_REPLACEMENT, 1},
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        uint8_t *p = guard_new(t[i].bytes, t[i].len);
        size_t n;
        assert_int_equal(unicode_decode(p, t[i].len, &n), t[i].cp);
        assert_int_equal(n, t[i].n);
        guard_free(p, t[i].len);
    }
}

static void unicode_encode_comes_back(void **state)
{
    (void)state;
    for (uint32_t cp = 0; cp < UNICODE_END; cp += cp < 0x3000 ? 1 : 17) {
        uint8_t b[4];
        size_t len = unicode_encode(cp, b), n;
        assert_int_equal(unicode_decode(b, len, &n), cp);
        assert_int_equal(n, len);
        assert_int_equal(unicode_len(b[0]), len);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unicode_kind_samples),
        cmocka_unit_test(unicode_kinds_agrees_with_kind),
        cmocka_unit_test(unicode_tables_are_made_from_unicode_data),
        cmocka_unit_test(unicode_decode_is_lax_where_the_reference_is),
        cmocka_unit_test(unicode_encode_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
