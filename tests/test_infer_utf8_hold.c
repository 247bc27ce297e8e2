/* Half characters wait for their rest; every other byte passes at once; none is lost. */
#include "infer/text/utf8_hold.h"
#include "tests/support.h"

#include <errno.h>

struct sink {
    char p[4096];
    size_t n;
    int rc;
};

static int put(void *ctx, const char *p, size_t n)
{
    struct sink *s = ctx;
    if (s->rc < 0)
        return s->rc;
    memcpy(s->p + s->n, p, n);
    s->n += n;
    return 0;
}

static void utf8_complete_holds_back_only_open_characters(void **state)
{
    (void)state;
    static const struct {
        const char *p;
        size_t n, pass;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"\xC3", 1, 0},             /* first half of U+00E9 */
        {"a\xC3\xA9", 3, 3},        /* whole */
        {"\xE6\x97", 2, 0},         /* two thirds of U+65E5 */
        {"x\xE6", 2, 1},            /* one third */
        {"\xF0\x9F\x99", 3, 0},     /* three quarters of U+1F642 */
        {"\xF0\x9F\x99\x82", 4, 4}, /* whole */
        {"\x80", 1, 1},             /* a stray continuation: no character will come of it */
        {"\xFF", 1, 1},             /* never opens one */
        {"\xC0", 1, 1},             /* overlong: never opens one */
        {"\xED\xA0", 2, 2},         /* a surrogate: cannot become a character */
        {"\xED\x9F", 2, 0},         /* U+D7C0.. may */
        {"\xE0\x80", 2, 2},         /* overlong */
        {"\xF4\x90", 2, 2},         /* beyond U+10FFFF */
        {"\xF4\x8F\xBF", 3, 0},
        {"\xC3\xA9\x80\x80\x80", 5, 5},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        if (utf8_complete(cases[i].p, cases[i].n) != cases[i].pass)
            fail_msg("case %zu passes %zu", i, utf8_complete(cases[i].p, cases[i].n));
}

static void utf8_hold_loses_no_byte_however_it_is_cut(void **state)
{
    (void)state;
    const char *text = "a\xC3\xA9\xE6\x97\xA5\xF0\x9F\x99\x82\xFF\x80\xE6\x97z\xF0\x9F";
    size_t len = strlen(text);
    for (size_t a = 0; a <= len; a++)
        for (size_t b = a; b <= len; b++) {
            struct sink s = {.rc = 0};
            struct utf8_hold h = {.n_held = 0};
            assert_int_equal(utf8_hold_put(&h, text, a, put, &s), 0);
            assert_int_equal(utf8_hold_put(&h, text + a, b - a, put, &s), 0);
            assert_int_equal(utf8_hold_put(&h, text + b, len - b, put, &s), 0);
            assert_int_equal(s.n, len - 2); /* the open end waits */
            assert_int_equal(utf8_hold_flush(&h, put, &s), 0);
            assert_int_equal(s.n, len);
            assert_memory_equal(s.p, text, len);
            assert_int_equal(utf8_hold_flush(&h, put, &s), 0);
            assert_int_equal(s.n, len);
        }
}

static void utf8_hold_takes_long_pieces_and_reports_write_errors(void **state)
{
    (void)state;
    struct sink s = {.rc = 0};
    struct utf8_hold h = {.n_held = 0};
    char big[1000];
    memset(big, 'x', sizeof big);
    assert_int_equal(utf8_hold_put(&h, "\xC3", 1, put, &s), 0);
    big[0] = '\xA9';
    assert_int_equal(utf8_hold_put(&h, big, sizeof big, put, &s), 0);
    assert_int_equal(s.n, 1001);
    s.rc = -EPIPE;
    assert_int_equal(utf8_hold_put(&h, "a", 1, put, &s), -EPIPE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_complete_holds_back_only_open_characters),
        cmocka_unit_test(utf8_hold_loses_no_byte_however_it_is_cut),
        cmocka_unit_test(utf8_hold_takes_long_pieces_and_reports_write_errors),
    };
    return cmocka_run_group_tests_name("utf8_hold", tests, NULL, NULL);
}
