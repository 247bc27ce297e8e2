/* Several stores in one set: which is called what, and what one that changed means for the others. */
#include "format/name.h"
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

static struct store_set *merged(const struct store_source *src, size_t n)
{
    struct store_set *set = scan(src, n, NULL);
    struct err e = {0};
    if (store_set_merge(set, &e) < 0)
        fail_msg("%s", e.msg);
    return set;
}

/* All shown names, a line each, store by store. */
static void show(const struct store_set *set, char *out, size_t size)
{
    *out = '\0';
    for (size_t i = 0; i < set->n; i++)
        for (size_t k = 0; k < set->store[i]->n_entry; k++) {
            const struct store_entry *en = &set->store[i]->entry[k];
            size_t at = strlen(out);
            snprintf(out + at, size - at, "%zu %s/%s/%s %zu\n", i, en->publisher, en->model,
                     en->stem, en->n_alias);
        }
}

/* Source: stores.md 5: the later by (source index, path) gets "-<digest8>". */
static void store_set_merge_settles_names_by_source(void **state)
{
    (void)state;
    char *a = temp_dir(), *b = temp_dir(), text[1024], want[1024], hex[NAME_HEX];
    tree_model(a, "pub/m/x.gguf", 1);
    tree_model(b, "pub/M/X.gguf", 2); /* other weights under a name that differs in case alone */
    tree_model(b, "pub/m/y.gguf", 3);
    struct store_source src[] = {{.path = a}, {.path = b}}, turned[] = {{.path = b}, {.path = a}};
    struct store_set *set = merged(src, 2);
    assert_string_equal(store_set_top(set, 1), "");
    name_hex(hex, set->store[0]->entry[0].head_sha256);
    show(set, text, sizeof text);
    snprintf(want, sizeof want, "0 pub/M/x 1\n1 pub/M/X-%.8s 1\n1 pub/M/y 1\n", hex);
    assert_string_equal(text, want);
    store_set_free(set);
    set = merged(turned, 2);
    show(set, text, sizeof text);
    snprintf(want, sizeof want, "0 pub/M/X 1\n0 pub/M/y 1\n1 pub/M/x-%.8s 1\n", hex);
    assert_string_equal(text, want);
    store_set_free(set);
    free(a);
    free(b);
}

static void store_set_merge_joins_one_file_in_two_stores(void **state)
{
    (void)state;
    char *a = temp_dir(), *b = temp_dir(), text[1024];
    tree_model(a, "pub/m/x.gguf", 1);
    tree_model(a, "pub/m/z.gguf", 1);
    char *target = path_join(a, "pub/m/x.gguf");
    tree_link(b, "pub/m/x.gguf", target);
    tree_text(b, "pub/m/bad.gguf", "<html>");
    struct store_source src[] = {{.path = a}, {.path = b}};
    struct store_set *set = merged(src, 2);
    show(set, text, sizeof text);
    assert_string_equal(text, "0 pub/m/x 1\n0 pub/m/z 1\n1 pub/m/bad 1\n");
    assert_string_equal(set->store[0]->entry[0].alias[0], "pub/m/x.gguf");
    /* What was merged away helps the next scan no less: nothing is parsed twice. */
    struct store_set *next = scan(src, 2, set);
    assert_int_equal(store_set_n_parsed(next), 0);
    store_set_free(next);
    store_set_free(set);
    free(target);
    free(a);
    free(b);
}

static void store_set_merge_moves_problems_with_their_entries(void **state)
{
    (void)state;
    char *a = temp_dir(), *b = temp_dir();
    tree_model(a, "PUB/m/x.gguf", 1);
    /* A tokenizer that has no file: served, with a line that says so. */
    struct gguf_build *g = gguf_build_llama_like("llama", NULL);
    gguf_build_str(g, "tokenizer.ggml.model", "t5");
    tree_build(b, "pub/m/z.gguf", g);
    gguf_build_free(g);
    struct store_source src[] = {{.path = a}, {.path = b}};
    struct store_set *set = merged(src, 2);
    const struct store *s = set->store[1];
    assert_int_equal(s->n_entry, 1);
    assert_string_equal(s->entry[0].publisher, "PUB"); /* the first spelling in byte order */
    assert_int_equal(s->n_problem, 1);
    char dir[2 * NAME_SIZE];
    snprintf(dir, sizeof dir, "PUB/%s", s->entry[0].model);
    assert_string_equal(s->problem[0].dir, dir);
    store_set_free(set);
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_set_of_one_shows_it_at_the_root),
        cmocka_unit_test(store_set_calls_stores_by_layout_or_folder),
        cmocka_unit_test(store_set_parses_what_is_new_in_one_store),
        cmocka_unit_test(store_set_names_a_source_that_is_not_there),
        cmocka_unit_test(store_set_merge_settles_names_by_source),
        cmocka_unit_test(store_set_merge_joins_one_file_in_two_stores),
        cmocka_unit_test(store_set_merge_moves_problems_with_their_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
