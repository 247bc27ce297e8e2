/* The next scan of a mount that runs: sources that go and come back, layouts that change under it, places
 * that cannot be read for a while. */
#include "format/store_internal.h"
#include "format/store_set.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <unistd.h>

static const struct store_options planned = {.kind = STORE_AUTO, .plan = true};

static struct store_set *scan(const struct store_source *src, size_t n)
{
    struct store_set *set = NULL;
    struct err e = {0};
    if (store_set_scan(&set, src, n, &planned, NULL, &e) < 0)
        fail_msg("%s", e.msg);
    return set;
}

/* In the place of *set. */
static void rescan(struct store_set **set, const struct store_source *src, size_t n)
{
    struct store_set *next = NULL;
    struct err e = {0};
    if (store_set_rescan(&next, src, n, &planned, *set, &e) < 0)
        fail_msg("%s", e.msg);
    if ((*set)->merged && store_set_merge(next, &e) < 0)
        fail_msg("%s", e.msg);
    store_set_free(*set);
    *set = next;
}

static void move(const char *from, const char *to)
{
    if (rename(from, to) < 0)
        fail_msg("rename %s: %s", from, strerror(errno));
}

static void store_set_rescan_goes_on_without_a_source(void **state)
{
    (void)state;
    char *top = temp_dir(), *a = path_join(top, "a"), *b = path_join(top, "b"),
         *away = path_join(top, "away");
    tree_dir(top, "a");
    tree_dir(top, "b");
    tree_model(a, "p/m/one.gguf", 1);
    tree_model(b, "p/m/two.gguf", 2);
    struct store_source src[] = {{.path = b}, {.path = a}};
    struct store_set *set = scan(src, 2);
    move(b, away);
    tree_model(a, "p/m/three.gguf", 3);
    for (int i = 0; i < 2; i++) { /* and what was said once is not lost or doubled */
        rescan(&set, src, 2);
        assert_int_equal(set->store[0]->root_rc, -ENOENT);
        assert_int_equal(set->store[0]->n_entry, 0);
        assert_int_equal(set->store[0]->n_problem, 1);
        assert_int_equal(set->store[0]->problem[0].rc, -ENOENT);
        assert_string_equal(set->store[0]->problem[0].path, "");
        assert_non_null(strstr(set->store[0]->problem[0].why, b));
        assert_string_equal(set->label[0], "b");
        assert_string_equal(set->label[1], "a");
        assert_int_equal(set->store[1]->n_entry, 2);
    }
    move(away, b);
    rescan(&set, src, 2);
    assert_int_equal(set->store[0]->root_rc, 0);
    assert_int_equal(set->store[0]->n_entry, 1);
    assert_int_equal(set->store[0]->n_problem, 0);
    store_set_free(set);
    free(away);
    free(a);
    free(b);
    free(top);
}

static void store_set_rescan_keeps_labels_and_layouts(void **state)
{
    (void)state;
    char *top = temp_dir(), *llama = path_join(top, "llama"), *ollama = path_join(top, "ollama"),
         *fresh = path_join(top, "fresh"), *flat = path_join(llama, "o_r_m.gguf"),
         *manifests = path_join(ollama, "manifests"), *away = path_join(top, "away");
    tree_dir(top, "llama");
    tree_dir(top, "ollama");
    tree_model(llama, "o_r_m.gguf", 1);
    tree_text(llama, "manifest=o=r=latest.json", "{\"ggufFile\":{\"rfilename\":\"m.gguf\"}}");
    tree_dir(ollama, "manifests");
    tree_model(ollama,
               "blobs/sha256-0000000000000000000000000000000000000000000000000000000000000000", 2);
    tree_dir(top, "fresh");
    struct store_source src[] = {{.path = llama}, {.path = ollama}, {.path = fresh}};
    struct store_set *set = scan(src, 3);
    assert_string_equal(set->label[0], "llamacpp");
    assert_string_equal(set->label[1], "ollama");
    assert_string_equal(set->label[2], "fresh");
    /* A new build moves what the old cache had; the last manifest goes, its blob not yet; the first
     * download makes a hub of a folder that was empty. */
    tree_hub_ref(llama, "models--o--r", "main", TREE_COMMIT_A);
    tree_dir(llama, "models--o--r/blobs");
    char *blob = path_join(llama, "models--o--r/blobs/c0ffee"),
         *manifest = path_join(llama, "manifest=o=r=latest.json");
    move(flat, blob);
    assert_int_equal(unlink(manifest), 0);
    tree_dir(llama, "models--o--r/snapshots/" TREE_COMMIT_A);
    tree_link(llama, "models--o--r/snapshots/" TREE_COMMIT_A "/m.gguf", "../../blobs/c0ffee");
    move(manifests, away);
    tree_hub_model(fresh, "models--o--r", TREE_COMMIT_A, "m.gguf", 3);
    tree_hub_ref(fresh, "models--o--r", "main", TREE_COMMIT_A);
    rescan(&set, src, 3);
    assert_string_equal(set->label[0], "llamacpp");
    assert_string_equal(set->label[1], "ollama");
    assert_string_equal(set->label[2], "fresh");
    assert_int_equal(set->store[0]->n_entry, 1);
    assert_string_equal(set->store[0]->entry[0].publisher, "o");
    assert_string_equal(set->store[0]->entry[0].model, "r");
    assert_int_equal(set->store[0]->entry[0].kind, STORE_HF);
    assert_int_equal(set->store[1]->kind, STORE_OLLAMA);
    assert_int_equal(set->store[1]->n_entry, 0);
    assert_int_equal(set->store[2]->kind, STORE_HF);
    assert_int_equal(set->store[2]->n_entry, 1);
    store_set_free(set);
    char *all[] = {top, llama, ollama, fresh, flat, manifests, away, blob, manifest};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]);
}

/* What one scan takes for a double of another store's model, the next may have to show by itself. */
static void store_set_rescan_parts_what_was_merged(void **state)
{
    (void)state;
    char *a = temp_dir(), *b = temp_dir(), *one = path_join(a, "p/m/x.gguf"),
         *two = path_join(b, "p/m/x.gguf");
    tree_model(a, "p/m/x.gguf", 1);
    tree_dir(b, "p/m");
    assert_int_equal(link(one, two), 0);
    struct store_source src[] = {{.path = a}, {.path = b}};
    struct store_set *set = scan(src, 2);
    struct err e = {0};
    assert_int_equal(store_set_merge(set, &e), 0);
    assert_int_equal(set->store[1]->n_entry, 0);
    tree_model(a, "p/m/y.gguf", 2);
    rescan(&set, src, 2);
    assert_int_equal(set->store[0]->n_entry, 2);
    assert_int_equal(set->store[1]->n_entry, 0);
    free(one);
    one = path_join(b, "away");
    move(a, one); /* its root is gone: the other one shows it */
    rescan(&set, src, 2);
    assert_int_equal(set->store[0]->n_entry, 0);
    bool found = false;
    for (size_t i = 0; i < set->store[1]->n_entry; i++)
        found = found || !strcmp(set->store[1]->entry[i].order, "p/m/x.gguf");
    assert_true(found);
    store_set_free(set);
    free(one);
    free(two);
    free(a);
    free(b);
}

/* prev's entries that stay where rc is what path says, as "order|order", in prev's order. */
static void kept(char *out, size_t size, const struct store *prev, int rc, const char *path)
{
    struct store *s = calloc(1, sizeof *s);
    struct store_build b = {.opt = &planned, .root_fd = -1};
    s->root = strdup(prev->root);
    s->entry = calloc(prev->n_entry + prev->n_merged + 1, sizeof *s->entry);
    assert_int_equal(store_problem_add(&b, rc, path, "", "for the test"), 0);
    assert_int_equal(store_keep(s, &b, prev), 0);
    assert_int_equal(s->n_kept, s->n_entry);
    *out = '\0';
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s%s", n ? "|" : "", en->order);
        assert_int_equal(en->rc, 0);
        assert_true(en->part[0].id.size > 0);
    }
    store_build_release(&b);
    store_free(s);
}

static void store_keep_takes_what_lies_below_a_failure(void **state)
{
    (void)state;
    char *root = temp_dir(), text[512];
    tree_model(root, "net/a/x.gguf", 1);
    tree_model(root, "net/b/y.gguf", 2);
    tree_model(root, "netto/z.gguf", 3);
    tree_shards(root, "net/a/s", 2);
    tree_text(root, "net/a/bad.gguf", "junk"); /* what was refused is not kept: it is no loss */
    struct store *prev = tree_scan(root, &planned);
    static const struct {
        int rc;
        const char *path, *want;
    } row[] = {
        {-EIO, "net", "net/a/s-00001-of-00002.gguf|net/a/x.gguf|net/b/y.gguf"},
        {-ESTALE, "net/b", "net/b/y.gguf"},
        {-ENOTCONN, "net/a/s-00002-of-00002.gguf", "net/a/s-00001-of-00002.gguf"},
        {-EIO, "", "netto/z.gguf|net/a/s-00001-of-00002.gguf|net/a/x.gguf|net/b/y.gguf"},
        {-EACCES, "net", ""}, /* closed, gone, no folder: that is how it is now */
        {-ENOENT, "net", ""},
        {-EIO, "ne", ""},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        kept(text, sizeof text, prev, row[i].rc, row[i].path);
        assert_string_equal(text, row[i].want);
    }
    store_free(prev);
    free(root);
}

/* A source that is a link, which leads elsewhere now: what the old place had is not the new one's, even
 * where that cannot be read; and no path of the old root is a way below the new one. */
static void store_keep_takes_nothing_from_another_root(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir();
    tree_model(root, "net/x.gguf", 1);
    struct store *prev = tree_scan(root, &planned), *s = calloc(1, sizeof *s);
    struct store_build b = {.opt = &planned, .root_fd = -1};
    s->root = strdup(other);
    s->entry = calloc(3, sizeof *s->entry);
    assert_int_equal(store_problem_add(&b, -EIO, "net", "", "for the test"), 0);
    assert_int_equal(store_keep(s, &b, prev), 0);
    assert_int_equal(s->n_entry, 0);
    assert_int_equal(s->n_kept, 0);
    assert_int_equal(b.n_dir, 0);
    store_build_release(&b);
    store_free(s);
    store_free(prev);
    free(other);
    free(root);
}

/* Also where nothing was known before, and so nothing is kept. */
static void store_unread_tells_of_what_passes(void **state)
{
    (void)state;
    static const struct {
        int problem, entry;
        bool want;
    } row[] = {{0, 0, false},        {-EACCES, -EINVAL, false}, {-EIO, 0, true},
               {0, -ENOTCONN, true}, {-EINVAL, -EIO, true},     {-ENOENT, -EUCLEAN, false}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct store_problem p = {.rc = row[i].problem};
        struct store_entry en = {.rc = row[i].entry};
        struct store s = {.problem = &p, .n_problem = 1, .entry = &en, .n_entry = 1};
        assert_int_equal(store_unread(&s), row[i].want);
    }
    struct store s = {.n_kept = 1};
    assert_true(store_unread(&s));
}

/* A file whose own reading failed: it stays, the reason is a line of this scan, and no fact of the file
 * that the next one takes over. */
static void store_keep_tells_of_a_file_for_one_scan(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/x.gguf", 1);
    struct store *prev = tree_scan(root, &planned), *s = calloc(1, sizeof *s);
    struct store_build b = {.opt = &planned, .root_fd = -1};
    s->root = strdup(prev->root);
    s->entry = calloc(3, sizeof *s->entry);
    s->n_entry = 1;
    s->entry[0].order = strdup("a/x.gguf");
    s->entry[0].why = strdup("read at byte 0: Input/output error");
    s->entry[0].rc = -EIO;
    assert_int_equal(store_keep(s, &b, prev), 0);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, 0);
    assert_string_equal(s->entry[0].warning, "");
    assert_int_equal(b.n_problem, 1);
    assert_int_equal(b.problem[0].rc, -EIO);
    assert_string_equal(b.problem[0].path, "a/x.gguf");
    assert_string_equal(b.problem[0].dir, "local/a");
    assert_string_equal(b.problem[0].why, "cannot be read now, shown as it was: read at byte 0: "
                                          "Input/output error");
    store_build_release(&b);
    store_free(s);
    store_free(prev);
    free(root);
}

/* Names of one file that were joined to a third's: where that is gone and they cannot be read, they are one
 * model still, by their own names. */
static void store_keep_gives_joined_names_back(void **state)
{
    (void)state;
    char *root = temp_dir(), *a = path_join(root, "a/d/x.gguf"), *b = path_join(root, "a/d/X.gguf");
    tree_model(root, "a/d/x.gguf", 1);
    assert_int_equal(link(a, b), 0);
    struct store *prev = tree_scan(root, &planned);
    assert_int_equal(prev->n_entry, 1);
    assert_int_equal(prev->n_merged, 1);
    assert_int_equal(prev->merged[0].n_alias, 0);
    store_entry_release(
        &prev->entry[0]); /* as a scan would have it that knows the joined one alone */
    prev->n_entry = 0;
    struct store *s = calloc(1, sizeof *s);
    struct store_build build = {.opt = &planned, .root_fd = -1};
    s->root = strdup(prev->root);
    s->entry = calloc(3, sizeof *s->entry);
    assert_int_equal(store_problem_add(&build, -EIO, "a", "", "for the test"), 0);
    assert_int_equal(store_keep(s, &build, prev), 0);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].n_alias, 1);
    assert_string_equal(s->entry[0].alias[0], s->entry[0].order);
    store_build_release(&build);
    store_free(s);
    store_free(prev);
    free(a);
    free(b);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_set_rescan_goes_on_without_a_source),
        cmocka_unit_test(store_set_rescan_keeps_labels_and_layouts),
        cmocka_unit_test(store_set_rescan_parts_what_was_merged),
        cmocka_unit_test(store_keep_takes_what_lies_below_a_failure),
        cmocka_unit_test(store_keep_takes_nothing_from_another_root),
        cmocka_unit_test(store_keep_gives_joined_names_back),
        cmocka_unit_test(store_keep_tells_of_a_file_for_one_scan),
        cmocka_unit_test(store_unread_tells_of_what_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
