/* Option tables: what is parsed, what is refused, and that help says what the table says. */
#include "format/opts.h"
#include "tests/support.h"

#include <errno.h>

enum {
    ID_LONG = 256,
    ID_ARG,
    ID_HIDDEN,
};

static const struct opts_item table[] = {
    {'a', "all", NULL, "everything (default: off)", 1},
    {'n', "number", "N", "how many (default: 1)", 1 | 2},
    {ID_LONG, "long", NULL, "no short form", 2},
    {ID_ARG, "argument", "FILE", "a file", 2},
    {ID_HIDDEN, "hidden", NULL, NULL, 1 | 2},
};
#define N_ITEM (sizeof table / sizeof table[0])

/* What on() was told: "a n=5 long ...". */
struct seen {
    char text[256];
    int fail_at; /* the call, counted from 0, that fails; < 0: none */
};

static int on(void *ctx, const struct opts_item *item, const char *arg, struct err *e)
{
    struct seen *s = ctx;
    if (s->fail_at-- == 0)
        return err_set(e, -ERANGE, "no good: %s", item->name);
    size_t at = strlen(s->text);
    snprintf(s->text + at, sizeof s->text - at, "%s%s%s%s", at ? " " : "", item->name,
             arg ? "=" : "", arg ? arg : "");
    return 0;
}

static int parse(const char *const *argv, struct seen *s, int *first, const char **rest,
                 struct err *e)
{
    char *copy[16];
    int n = 0;
    for (; argv[n]; n++)
        copy[n] = (char *)(uintptr_t)argv[n];
    copy[n] = NULL;
    memset(s->text, 0, sizeof s->text);
    int rc = opts_parse(n, copy, table, N_ITEM, on, s, first, e);
    *rest = copy[*first];
    return rc;
}

static void opts_parse_takes_all_forms(void **state)
{
    (void)state;
    static const struct {
        const char *argv[8];
        const char *seen;
        const char *rest; /* the first argument that is no option; NULL: none */
    } row[] = {
        {{"p", NULL}, "", NULL},
        {{"p", "verb", "file", NULL}, "", "verb"},
        {{"p", "-a", "-n", "5", "verb", NULL}, "all number=5", "verb"},
        {{"p", "-an5", NULL}, "all number=5", NULL},
        {{"p", "verb", "--number=7", "x", "--long", NULL}, "number=7 long", "verb"},
        {{"p", "--argument", "-a", "verb", NULL}, "argument=-a", "verb"},
        {{"p", "--num", "3", NULL}, "number=3", NULL}, /* an unambiguous beginning */
        {{"p", "--", "-a", NULL}, "", "-a"},
        {{"p", "-", "-a", NULL}, "all", "-"},
        {{"p", "--hidden", NULL}, "hidden", NULL},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct seen s = {.fail_at = -1};
        struct err e = {0};
        const char *rest;
        int first;
        assert_int_equal(parse(row[i].argv, &s, &first, &rest, &e), 0);
        assert_string_equal(s.text, row[i].seen);
        if (row[i].rest)
            assert_string_equal(rest, row[i].rest);
        else
            assert_null(rest);
    }
}

static void opts_parse_refuses_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *argv[8];
        const char *says;
    } row[] = {
        {{"p", "--frob", NULL}, "unknown option '--frob'"},
        {{"p", "-x", NULL}, "unknown option '-x'"},
        {{"p", "-ax", NULL}, "unknown option '-x'"},
        {{"p", "--number", NULL}, "option '--number' needs an argument"},
        {{"p", "-n", NULL}, "option '-n' needs an argument"},
        {{"p", "--argument", NULL}, "option '--argument' needs an argument"},
        {{"p", "--all=1", NULL}, "option '--all=1' takes no argument"},
        {{"p", "--long=1", NULL}, "option '--long=1' takes no argument"},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        struct seen s = {.fail_at = -1};
        struct err e = {0};
        const char *rest;
        int first;
        assert_int_equal(parse(row[i].argv, &s, &first, &rest, &e), -EINVAL);
        assert_string_equal(e.msg, row[i].says);
    }
}

static void opts_parse_stops_at_a_refused_value(void **state)
{
    (void)state;
    static const char *const argv[] = {"p", "-a", "-n", "9", "--long", NULL};
    struct seen s = {.fail_at = 1};
    struct err e = {0};
    const char *rest;
    int first;
    assert_int_equal(parse(argv, &s, &first, &rest, &e), -ERANGE);
    assert_string_equal(e.msg, "no good: number");
    assert_string_equal(s.text, "all");
}

static void opts_print_help_lists_the_verbs_options(void **state)
{
    (void)state;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    opts_print_help(f, table, N_ITEM, 2);
    fclose(f);
    assert_string_equal(text, "  -n, --number N              how many (default: 1)\n"
                              "      --long                  no short form\n"
                              "      --argument FILE         a file\n");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(opts_parse_takes_all_forms),
        cmocka_unit_test(opts_parse_refuses_by_name),
        cmocka_unit_test(opts_parse_stops_at_a_refused_value),
        cmocka_unit_test(opts_print_help_lists_the_verbs_options),
    };
    return cmocka_run_group_tests_name("opts", tests, NULL, NULL);
}
