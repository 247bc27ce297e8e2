/* Listings: places that hold in every tree, and how long the kernel may keep one. */
#include "tests/tree_world.h"

/* The names of a directory in the order of a listing, one after another's cookie. */
static void listing(struct world *w, struct tree *t, const char *path, char *out, size_t size)
{
    const struct tree_dir *d = tree_find_dir(t, walk(w, path)->ino);
    uint64_t cookie = TREE_COOKIE_MIN - 1;
    *out = '\0';
    for (size_t i; (i = tree_listed_after(d, cookie)) < d->n; cookie = d->listed[i]->cookie) {
        assert_true(d->listed[i]->cookie > cookie && d->listed[i]->cookie <= INT64_MAX);
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s\n", d->listed[i]->name);
    }
}

static uint64_t cookie_of(struct world *w, struct tree *t, const char *path, const char *name)
{
    return tree_find_entry(tree_find_dir(t, walk(w, path)->ino), name)->cookie;
}

static void tree_places_follow_from_names(void **state)
{
    (void)state;
    struct world *w = world_new();
    char before[512], after[512];
    tree_model(w->root, "p/b/x.gguf", 1);
    tree_model(w->root, "p/d/x.gguf", 2);
    rescan_and_forget(w);
    struct tree *t = nodes_tree(w->ns);
    uint64_t b = cookie_of(w, t, "p", "b"), d = cookie_of(w, t, "p", "d");
    listing(w, t, "p", before, sizeof before);
    assert_int_equal(strlen(before), 4);
    tree_put(w->ns, t);
    tree_model(w->root, "p/a/x.gguf", 3);
    tree_model(w->root, "p/c/x.gguf", 4);
    tree_remove(w->root, "p/d/x.gguf");
    rescan_and_forget(w);
    t = nodes_tree(w->ns);
    assert_int_equal(cookie_of(w, t, "p", "b"), b);
    /* Who came to d before it went goes on behind it. */
    const struct tree_dir *dir = tree_find_dir(t, walk(w, "p")->ino);
    size_t i = tree_listed_after(dir, d);
    assert_true(i == dir->n || dir->listed[i]->cookie > d);
    assert_true(i == 0 || dir->listed[i - 1]->cookie < d);
    listing(w, t, "p", after, sizeof after);
    assert_int_equal(strlen(after), 6);
    tree_put(w->ns, t);
    /* Two names of one hash (4eac0c95540867e4, a pair found by others): both, one behind the other. */
    tree_model(w->root, "p/8yn0iYCKYHlIj4-BwPqk/x.gguf", 5);
    tree_model(w->root, "p/GReLUrM4wMqfg9yzV3KQ/x.gguf", 6);
    rescan_and_forget(w);
    t = nodes_tree(w->ns);
    listing(w, t, "p", after, sizeof after);
    assert_non_null(strstr(after, "8yn0iYCKYHlIj4-BwPqk\nGReLUrM4wMqfg9yzV3KQ\n"));
    tree_put(w->ns, t);
    world_free(w);
}

static void tree_keeps_listings_until_a_change(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "p/a/x.gguf", 1);
    rescan_and_forget(w);
    struct node *p = walk(w, "p");
    enum { OPEN, CLOSE, CHANGE };
    static const struct {
        int what, ms;
        enum list_open how;
    } row[] = {
        {OPEN, 1000, LIST_BEGIN}, /* never listed */
        {OPEN, 1049, LIST_KEEP},
        {OPEN, 1050,
         LIST_BEGIN}, /* too old; nothing changed, so who else has it open is no matter */
        {OPEN, 1051, LIST_KEEP},
        {.what = CLOSE},
        {.what = CLOSE},
        {.what = CLOSE},
        {.what = CHANGE},
        {OPEN, 1052, LIST_NONE}, /* one of before the change is open */
        {OPEN, 1052, LIST_NONE},
        {.what = CLOSE},
        {OPEN, 1053, LIST_BEGIN},
        {OPEN, 1054, LIST_KEEP},
        {.what = CLOSE},
        {.what = CLOSE},
        {.what = CHANGE},
        {OPEN, 1055, LIST_BEGIN}, /* none was open */
        {.what = CLOSE},
    };
    for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
        if (row[i].what == OPEN)
            assert_int_equal(nodes_list_open(w->ns, p, (uint64_t)row[i].ms, 50), row[i].how);
        else if (row[i].what == CLOSE)
            nodes_list_close(w->ns, p);
        else
            nodes_list_changed(w->ns, p->ino);
    }
    nodes_list_changed(w->ns, UINT64_MAX); /* no such directory */
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_places_follow_from_names),
        cmocka_unit_test(tree_keeps_listings_until_a_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
