/* Error records: what err_set and err_wrap leave behind (format/err.h). */
#include "format/err.h"
#include "tests/support.h"

#include <errno.h>

static void err_set_stores_code_and_message(void **state)
{
    (void)state;
    struct err e = {0};
    assert_int_equal(err_set(&e, -EUCLEAN, "tensor '%s': %d", "x", 7), -EUCLEAN);
    assert_int_equal(e.code, -EUCLEAN);
    assert_string_equal(e.msg, "tensor 'x': 7");
    assert_int_equal(err_set(&e, -EIO, "%s", ""), -EIO); /* the last one stays */
    assert_int_equal(e.code, -EIO);
    assert_string_equal(e.msg, "");
}

static void err_accepts_null(void **state)
{
    (void)state;
    assert_int_equal(err_set(NULL, -ENOMEM, "x %d", 1), -ENOMEM);
    err_wrap(NULL, "y");
}

static void err_set_shows_control_bytes_as_question_marks(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, -EUCLEAN, "a\nb\tc\x1b[31m\x7f\r%s", "\x01z");
    assert_string_equal(e.msg, "a?b?c?[31m???z");
    err_set(&e, -EUCLEAN, "caf\xc3\xa9"); /* bytes from 0x80 are text */
    assert_string_equal(e.msg, "caf\xc3\xa9");
    err_set(&e, -EUCLEAN,
            "a\xc2\x9b"
            "31m\xc2\xa0z"); /* U+009B is the escape sequences' CSI */
    assert_string_equal(e.msg, "a??31m\xc2\xa0z");
    err_set(&e, -EUCLEAN, "\xc2");
    assert_string_equal(e.msg, "\xc2");
}

static void err_set_cuts_long_messages(void **state)
{
    (void)state;
    struct err e;
    char text[2 * ERR_MSG_MAX];
    memset(text, 'm', sizeof text);
    text[ERR_MSG_MAX - 1] = 0; /* the longest that fits */
    err_set(&e, -EUCLEAN, "%s", text);
    assert_string_equal(e.msg, text);
    text[ERR_MSG_MAX - 1] = 'm';
    for (size_t len = ERR_MSG_MAX; len < sizeof text; len += 100) {
        text[len] = 0;
        err_set(&e, -EUCLEAN, "%s", text);
        text[len] = 'm';
        assert_int_equal(strlen(e.msg), ERR_MSG_MAX - 1);
        assert_string_equal(e.msg + ERR_MSG_MAX - 6, "mm...");
    }
}

static void err_wrap_prepends(void **state)
{
    (void)state;
    struct err e;
    err_set(&e, -EAGAIN, "needs %d bytes", 9);
    err_wrap(&e, "%s", "m.gguf");
    assert_string_equal(e.msg, "m.gguf: needs 9 bytes");
    assert_int_equal(e.code, -EAGAIN);
    err_wrap(&e, "part %d\n", 2);
    assert_string_equal(e.msg, "part 2?: m.gguf: needs 9 bytes");
}

/* Every pair of lengths about the limit: always terminated, the head whole when it can be, "..." at
 * the end exactly when something was cut. */
static void err_wrap_cuts_at_the_limit(void **state)
{
    (void)state;
    char head[2 * ERR_MSG_MAX], tail[2 * ERR_MSG_MAX];
    for (size_t n = 0; n<ERR_MSG_MAX + 20; n += n> 480 ? 1 : 37) {
        for (size_t m = 0; m<ERR_MSG_MAX; m += m> 480 || m < 12 ? 1 : 37) {
            struct err e;
            memset(head, 'h', sizeof head);
            memset(tail, 't', sizeof tail);
            head[n] = tail[m] = 0;
            err_set(&e, -EIO, "%s", tail);
            err_wrap(&e, "%s", head);
            size_t len = strnlen(e.msg, ERR_MSG_MAX), full = n + 2 + m;
            assert_true(len < ERR_MSG_MAX);
            if (full < ERR_MSG_MAX) {
                assert_int_equal(len, full);
                assert_memory_equal(e.msg, head, n);
                assert_memory_equal(e.msg + n, ": ", 2);
                assert_string_equal(e.msg + n + 2, tail);
            } else {
                assert_int_equal(len, ERR_MSG_MAX - 1);
                assert_string_equal(e.msg + len - 3, "...");
                assert_memory_equal(e.msg, head, n < len - 3 ? n : len - 3);
            }
        }
    }
}

static void err_name_spells_the_errno(void **state)
{
    (void)state;
    assert_string_equal(err_name(-EUCLEAN), "EUCLEAN");
    assert_string_equal(err_name(-EAGAIN), "EAGAIN");
    assert_string_equal(err_name(-ESTALE), "ESTALE");
    assert_string_equal(err_name(-999999), "E?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_set_stores_code_and_message),
        cmocka_unit_test(err_accepts_null),
        cmocka_unit_test(err_set_shows_control_bytes_as_question_marks),
        cmocka_unit_test(err_set_cuts_long_messages),
        cmocka_unit_test(err_wrap_prepends),
        cmocka_unit_test(err_wrap_cuts_at_the_limit),
        cmocka_unit_test(err_name_spells_the_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
