/* Several stores in one set: which is called what, and what one that changed means for the others. */
#include "format/store_set.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct store_options planned = {.kind = STORE_AUTO, .plan = true};

static struct store_set *scan(const struct store_source *src, size_t n,
                              const struct store_set *prev)
{
    struct store_set *set = NULL;
    struct err e = {0};
    if (store_set_scan(&set, src, n, &planned, prev, &e) < 0)
        fail_msg("%s", e.msg);
    return set;
}

static void store_set_of_one_shows_it_at_the_root(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/m.gguf", 1);
    struct store_source src = {.path = root};
    struct store_set *set = scan(&src, 1, NULL);
    assert_int_equal(set->n, 1);
    assert_string_equal(store_set_top(set, 0), "");
    assert_int_equal(store_set_n_entry(set), 1);
    store_set_free(set);
    free(root);
}

/* Source: stores.md 4: the layouts' names, a plain root's own name, doubles "-2" in argument order. */
static void store_set_calls_stores_by_layout_or_folder(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_dir(root, "x/Models");
    tree_dir(root, "y/models");
    tree_dir(root, "my store");
    tree_dir(root, "hub/models--a--b/refs");
    tree_dir(root, "lmstudio/models");
    tree_dir(root, "hf");
    static const struct {
        const char *dir, *label;
    } row[] = {
        {"x/Models", "Models"},   {"hub", "hf"},  {"y/models", "models-2"},
        {"my store", "my_store"}, {"hf", "hf-2"}, {"lmstudio/models", "lmstudio"},
        {"x/Models", "Models-3"},
    };
    enum { N = sizeof row / sizeof *row };
    struct store_source src[N] = {0};
    for (size_t i = 0; i < N; i++)
        src[i].path = path_join(root, row[i].dir);
    struct store_set *set = scan(src, N, NULL);
    assert_int_equal(set->n, N);
    for (size_t i = 0; i < N; i++) {
        assert_string_equal(set->label[i], row[i].label);
        assert_string_equal(store_set_top(set, i), row[i].label);
        free(src[i].path);
    }
    store_set_free(set);
    free(root);
}

static void store_set_parses_what_is_new_in_one_store(void **state)
{
    (void)state;
    char *a = temp_dir(), *b = temp_dir();
    tree_model(a, "m/one.gguf", 1);
    tree_model(b, "m/two.gguf", 2);
    struct store_source src[] = {{.path = a}, {.path = b}};
    struct store_set *first = scan(src, 2, NULL), *same = scan(src, 2, first);
    assert_int_equal(store_set_n_parsed(first), 2);
    assert_int_equal(store_set_n_parsed(same), 0);
    assert_true(store_set_equal(first, same));
    tree_model(b, "m/three.gguf", 3);
    struct store_set *more = scan(src, 2, same);
    assert_int_equal(store_set_n_parsed(more), 1);
    assert_int_equal(store_set_n_entry(more), 3);
    assert_false(store_set_equal(same, more));
    store_set_free(first);
    store_set_free(same);
    store_set_free(more);
    free(a);
    free(b);
}

static void store_set_names_a_source_that_is_not_there(void **state)
{
    (void)state;
    char *a = temp_dir(), *gone = path_join(a, "gone");
    struct store_source src[] = {{.path = a}, {.path = gone}};
    struct store_set *set = NULL;
    struct err e = {0};
    assert_int_equal(store_set_scan(&set, src, 2, &planned, NULL, &e), -ENOENT);
    assert_non_null(strstr(e.msg, gone));
    assert_null(set);
    free(gone);
    free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_set_of_one_shows_it_at_the_root),
        cmocka_unit_test(store_set_calls_stores_by_layout_or_folder),
        cmocka_unit_test(store_set_parses_what_is_new_in_one_store),
        cmocka_unit_test(store_set_names_a_source_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
