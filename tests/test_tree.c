/* The tree: two levels, siblings, links, what is hidden; and what a later scan keeps or replaces. */
#include "fs/pinned.h"
#include "fs/tree.h"
#include "tests/ollama_build.h"
#include "tests/store_build.h"
#include "tests/support.h"
#include "tests/tree_world.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

static void show_dir(struct world *w, struct tree *t, uint64_t ino, char *out, size_t size)
{
    static const char *const kind[] = {"dir",  "apr",  "file", "link", "text",
                                       "text", "text", "text", "text", "ctl"};
    const struct tree_dir *d = tree_find_dir(t, ino);
    assert_non_null(d);
    for (size_t i = 0; i < d->n; i++) {
        const struct tree_entry *en = &d->entry[i];
        size_t n = strlen(out);
        snprintf(out + n, size - n, "%s %s%s\n", kind[en->node->kind], en->node->path,
                 en->hidden ? " (hidden)" : "");
        if (en->node->kind == NODE_DIR)
            show_dir(w, t, en->node->ino, out, size);
    }
}

static void tree_is_two_levels_with_siblings(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    tree_model(w->root, "acme/big/deep/er/two.gguf", 2);
    tree_shards(w->root, "acme/parts/three", 2);
    tree_projector(w->root, "acme/big/mmproj-x.gguf");
    rescan_and_forget(w);
    struct tree *t = nodes_tree(w->ns);
    char text[8192] = "";
    show_dir(w, t, NODE_ROOT, text, sizeof text);
    /* Source: stores.md 2.3 (paths to two levels) and 4 (names). */
    assert_string_equal(text, "dir .aprfs (hidden)\n"
                              "dir .aprfs/extents\n"
                              "dir .aprfs/extents/acme\n"
                              "dir .aprfs/extents/acme/big+deep+er\n"
                              "text .aprfs/extents/acme/big+deep+er/two.tsv\n"
                              "dir .aprfs/extents/acme/parts\n"
                              "text .aprfs/extents/acme/parts/three.tsv\n"
                              "dir .aprfs/extents/local\n"
                              "dir .aprfs/extents/local/one\n"
                              "text .aprfs/extents/local/one/one.tsv\n"
                              "ctl .aprfs/index.json\n"
                              "ctl .aprfs/metrics\n"
                              "ctl .aprfs/problems.txt\n"
                              "ctl .aprfs/stats.txt\n"
                              "ctl .aprfs/status.txt\n"
                              "ctl .aprfs/version\n"
                              "dir acme\n"
                              "dir acme/big\n"
                              "link acme/big/mmproj-x.gguf\n"
                              "dir acme/big+deep+er\n"
                              "text acme/big+deep+er/config.json\n"
                              "text acme/big+deep+er/tokenizer.json\n"
                              "apr acme/big+deep+er/two.apr\n"
                              "link acme/big+deep+er/two.gguf\n"
                              "text acme/big+deep+er/two.tokenizer.json\n"
                              "dir acme/parts\n"
                              "text acme/parts/config.json\n"
                              "link acme/parts/three-00001-of-00002.gguf\n"
                              "link acme/parts/three-00002-of-00002.gguf\n"
                              "apr acme/parts/three.apr\n"
                              "text acme/parts/three.tokenizer.json\n"
                              "text acme/parts/tokenizer.json\n"
                              "dir local\n"
                              "dir local/one\n"
                              "text local/one/config.json\n"
                              "apr local/one/one.apr\n"
                              "link local/one/one.gguf\n"
                              "text local/one/one.tokenizer.json\n"
                              "text local/one/tokenizer.json\n");
    assert_int_equal(t->n_model, 3);
    tree_put(w->ns, t);
    world_free(w);
}

static void tree_node_tells_the_truth(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *n = walk(w, "local/one/one.apr");
    struct tree *t = nodes_tree(w->ns);
    struct stat st, src;
    char *path = path_join(w->root, "one.gguf");
    assert_int_equal(stat(path, &src), 0);
    node_stat(n, &st);
    assert_int_equal(st.st_mode, S_IFREG | 0444);
    assert_int_equal(st.st_uid, 1);
    assert_int_equal(st.st_gid, 2);
    assert_int_equal(st.st_nlink, 1);
    assert_int_equal(st.st_size, t->scan->set->store[0]->entry[0].size);
    assert_int_equal(st.st_blocks, (st.st_size + 511) / 512);
    assert_int_equal(st.st_blksize, 1 << 20);
    assert_int_equal(st.st_mtim.tv_sec, src.st_mtim.tv_sec);
    assert_int_equal(st.st_mtim.tv_nsec, src.st_mtim.tv_nsec);
    assert_true(st.st_ino > 1 && st.st_ino <= INT64_MAX);
    node_stat(walk(w, "local/one"), &st);
    assert_int_equal(st.st_mode, S_IFDIR | 0555);
    struct node *l = walk(w, "local/one/one.gguf");
    char *real = realpath(path, NULL);
    assert_string_equal(l->target, real);
    assert_null(walk(w, "local/one/other.apr"));
    assert_null(walk(w, "local/one/one.apr/x"));
    tree_put(w->ns, t);
    free(real);
    free(path);
    world_free(w);
}

static void tree_without_links(void **state)
{
    (void)state;
    struct world *w = world_new();
    w->opt.gguf = GGUF_NONE;
    tree_model(w->root, "one.gguf", 1);
    tree_projector(w->root, "mmproj-x.gguf");
    rescan_and_forget(w);
    assert_non_null(walk(w, "local/one/one.apr"));
    assert_null(walk(w, "local/one/one.gguf"));
    assert_null(walk(w, "local/mmproj-x/mmproj-x.gguf"));
    world_free(w);
}

static void tree_of_nothing_is_empty(void **state)
{
    (void)state;
    struct world *w = world_new();
    rescan_and_forget(w);
    struct tree *t = nodes_tree(w->ns);
    assert_int_equal(tree_find_dir(t, NODE_ROOT)->n, 1); /* .aprfs */
    assert_int_equal(t->n_model, 0);
    tree_put(w->ns, t);
    world_free(w);
}

struct names {
    char text[1024];
    struct world *w;
    uint64_t told[32];
    size_t n_told;
};

static void note(void *ctx, uint64_t dir, const char *name)
{
    struct names *n = ctx;
    struct node *d = nodes_find(n->w->ns, dir);
    assert_non_null(d);
    size_t at = strlen(n->text);
    if (name && strncmp(d->path, ".aprfs", 6) != 0)
        snprintf(n->text + at, sizeof n->text - at, "%s/%s\n", d->path, name);
    for (size_t i = 0; i < n->n_told; i++)
        assert_int_not_equal(n->told[i], dir); /* a directory comes behind its names, once */
    if (!name)
        n->told[n->n_told++] = dir;
    nodes_put(n->w->ns, d);
}

static int cmp_line(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names that differ between the tree before (put here) and now, sorted. */
static void diff(struct world *w, struct tree *before, char *out, size_t size)
{
    struct names n = {.w = w};
    struct tree *now = nodes_tree(w->ns);
    tree_diff(before, now, note, &n);
    tree_put(w->ns, now);
    tree_put(w->ns, before);
    char *line[64];
    size_t k = 0;
    for (char *p = strtok(n.text, "\n"); p; p = strtok(NULL, "\n"))
        line[k++] = p;
    qsort(line, k, sizeof *line, cmp_line);
    out[0] = '\0';
    for (size_t i = 0; i < k; i++)
        snprintf(out + strlen(out), size - strlen(out), "%s\n", line[i]);
}

static void tree_keeps_what_did_not_change(void **state)
{
    (void)state;
    struct world *w = world_new();
    char text[1024];
    tree_model(w->root, "one.gguf", 1);
    tree_model(w->root, "two.gguf", 2);
    rescan_and_forget(w);
    struct node *one = walk(w, "local/one/one.apr"), *two = walk(w, "local/two/two.apr");
    struct tree *t = nodes_tree(w->ns);
    assert_int_equal(t->generation, 1);
    tree_put(w->ns, t);
    diff(w, rescan(w), text, sizeof text);
    assert_string_equal(text, "");
    t = nodes_tree(w->ns);
    assert_int_equal(t->generation, 1); /* nothing changed */
    tree_put(w->ns, t);
    tree_model(w->root, "two.gguf", 3); /* the same head, other weights */
    tree_model(w->root, "new.gguf", 4);
    diff(w, rescan(w), text, sizeof text);
    /* Inside a new directory every name is new: the kernel may know it from an earlier life. */
    assert_string_equal(text, "local/new\nlocal/new/config.json\nlocal/new/new.apr\n"
                              "local/new/new.gguf\nlocal/new/new.tokenizer.json\n"
                              "local/new/tokenizer.json\nlocal/two/two.apr\n");
    t = nodes_tree(w->ns);
    assert_int_equal(t->generation, 2);
    tree_put(w->ns, t);
    assert_ptr_equal(walk(w, "local/one/one.apr"), one);
    assert_ptr_not_equal(walk(w, "local/two/two.apr"), two);
    assert_int_not_equal(walk(w, "local/two/two.apr")->ino, two->ino);
    tree_remove(w->root, "one.gguf");
    diff(w, rescan(w), text, sizeof text);
    assert_string_equal(text, "local/one\nlocal/one/config.json\nlocal/one/one.apr\n"
                              "local/one/one.gguf\nlocal/one/one.tokenizer.json\n"
                              "local/one/tokenizer.json\n");
    world_free(w);
}

/* Source: stores.md 6, "same path, new content": old handles go on through their descriptor. */
static void tree_keeps_old_handle_after_replace(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct err e;
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *old = walk(w, "local/one/one.apr");
    struct vfile *vf = nodes_vfile(w->ns, old);
    size_t size = vfile_size(vf), got;
    uint8_t *before = malloc(size), *after = malloc(size);
    assert_int_equal(vfile_open(vf, &e), 0);
    assert_int_equal(vfile_read(vf, before, 0, size, &got, &e), 0);
    tree_model(w->root, "other/two.gguf", 2);
    char *from = path_join(w->root, "other/two.gguf"), *to = path_join(w->root, "one.gguf");
    assert_int_equal(rename(from, to), 0);
    rescan_and_forget(w);
    struct node *now = walk(w, "local/one/one.apr");
    assert_ptr_not_equal(now, old);
    assert_int_not_equal(now->ino, old->ino);
    assert_int_equal(vfile_read(vf, after, 0, size, &got, &e), 0);
    assert_int_equal(got, size);
    assert_memory_equal(before, after, size);
    assert_false(vfile_stale(vf));
    vfile_close(vf);
    vfile_put(vf);
    vf = nodes_vfile(w->ns, now);
    assert_int_equal(vfile_open(vf, &e), 0);
    assert_int_equal(vfile_read(vf, after, 0, size, &got, &e), 0);
    assert_memory_not_equal(before, after, size); /* other weights */
    vfile_close(vf);
    vfile_put(vf);
    free(before);
    free(after);
    free(from);
    free(to);
    world_free(w);
}

/* One of everything that has a .gguf, at every depth. */
static struct tree *tree_of_all_kinds(struct world *w)
{
    tree_model(w->root, "one.gguf", 1);
    tree_model(w->root, "acme/two.gguf", 2);
    tree_model(w->root, "acme/big/deep/er/three.gguf", 3);
    tree_shards(w->root, "acme/parts/four", 3);
    tree_model(w->root, "acme/eyes/five.gguf", 4);
    tree_projector(w->root, "acme/eyes/mmproj-five.gguf");
    rescan_and_forget(w);
    return nodes_tree(w->ns);
}

/* Source: LM Studio's rule, stores.md 2.3: <publisher>/<model>/<file>.gguf, projectors beside. */
static void tree_fits_lmstudio(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct tree *t = tree_of_all_kinds(w);
    size_t n = 0;
    for (size_t i = 0; i < t->n_dir; i++)
        for (size_t k = 0; k < t->dir[i].n; k++) {
            const char *path = t->dir[i].entry[k].node->path, *at = path;
            size_t len = strlen(path), n_slash = 0;
            while ((at = strchr(at, '/')))
                n_slash++, at++;
            if (len < 5 || strcmp(path + len - 5, ".gguf"))
                continue;
            assert_int_equal(n_slash, 2);
            n++;
        }
    assert_int_equal(n, 8); /* four models of one file, three shards, one projector */
    assert_non_null(walk(w, "acme/eyes/mmproj-five.gguf"));
    tree_put(w->ns, t);
    world_free(w);
}

/* What llama-server makes of a folder below its --models-dir: of its .gguf files the projector is the one
 * with "mmproj" in its name, the model the first shard or any other file.
 * Source: llama.cpp, common/preset.cpp, load_from_models_dir(). */
static void served(const struct tree_dir *d, const char **model, const char **mmproj)
{
    const char *first = NULL, *other = NULL;
    *mmproj = NULL;
    for (size_t i = 0; i < d->n; i++) {
        const char *name = d->entry[i].name;
        size_t len = strlen(name);
        if (len < 5 || strcmp(name + len - 5, ".gguf"))
            continue;
        if (strstr(name, "mmproj"))
            *mmproj = name;
        else if (strstr(name, "-00001-of-"))
            first = name;
        else
            other = name;
    }
    *model = first ? first : other;
}

static void tree_fits_models_dir(void **state)
{
    (void)state;
    static const struct {
        const char *dir, *model, *mmproj;
    } row[] = {
        {"acme/eyes", "five.gguf", "mmproj-five.gguf"},
        {"acme/parts", "four-00001-of-00003.gguf", NULL},
        {"acme/big+deep+er", "three.gguf", NULL},
        {"local/acme", "two.gguf", NULL},
        {"local/one", "one.gguf", NULL},
    };
    struct world *w = world_new();
    struct tree *t = tree_of_all_kinds(w);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct node *n = walk(w, row[i].dir);
        assert_non_null(n);
        const char *model, *mmproj;
        served(tree_find_dir(t, n->ino), &model, &mmproj);
        assert_string_equal(model, row[i].model);
        assert_int_equal(mmproj != NULL, row[i].mmproj != NULL);
        if (mmproj)
            assert_string_equal(mmproj, row[i].mmproj);
    }
    tree_put(w->ns, t);
    world_free(w);
}

struct told {
    uint64_t ino[64];
    size_t n;
};

static void take_told(void *ctx, uint64_t ino, const char *name)
{
    struct told *t = ctx;
    assert_null(name);
    assert_true(t->n < 64);
    t->ino[t->n++] = ino;
}

static bool was_told(const struct told *t, const struct node *n)
{
    for (size_t i = 0; i < t->n; i++)
        if (t->ino[i] == n->ino)
            return true;
    return false;
}

/* Of a node that stays and shows other attributes the kernel must hear: once, and it is a change. */
static void tree_tells_of_attributes_that_changed(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct told told = {.n = 0};
    char text[1024];
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *one = walk(w, "local/one/one.apr");
    nodes_touched(w->ns, take_told, &told);
    assert_int_equal(told.n, 0); /* nobody knew other ones */
    w->opt.umask = 0277;
    diff(w, rescan(w), text, sizeof text);
    assert_string_equal(text, ""); /* the nodes are the same */
    assert_ptr_equal(walk(w, "local/one/one.apr"), one);
    struct tree *t = nodes_tree(w->ns);
    assert_int_equal(t->generation, 2);
    tree_put(w->ns, t);
    nodes_touched(w->ns, take_told, &told);
    assert_true(was_told(&told, one));
    assert_true(was_told(&told, walk(w, "")));
    assert_true(was_told(&told, walk(w, "local")));
    assert_true(was_told(&told, walk(w, "local/one/config.json")));
    assert_false(
        was_told(&told, walk(w, "local/one/one.gguf"))); /* a link has no mode of its own */
    told.n = 0;
    nodes_touched(w->ns, take_told, &told);
    assert_int_equal(told.n, 0);
    world_free(w);
}

static void tree_numbers_survive_a_restart(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    uint64_t apr = walk(w, "local/one/one.apr")->ino, dir = walk(w, "local/one")->ino;
    uint64_t tok = walk(w, "local/one/tokenizer.json")->ino;
    struct err e;
    nodes_free(w->ns);
    assert_int_equal(nodes_new(&w->ns, &e), 0);
    tree_model(w->root, "before.gguf", 2); /* comes first in every listing */
    rescan_and_forget(w);
    assert_int_equal(walk(w, "local/one/one.apr")->ino, apr);
    assert_int_equal(walk(w, "local/one")->ino, dir);
    assert_int_equal(walk(w, "local/one/tokenizer.json")->ino, tok);
    world_free(w);
}

static void tree_nodes_live_as_long_as_the_kernel_counts_on_them(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *n = walk(w, "local/one/one.apr");
    uint64_t ino = n->ino;
    walk(w, "local/one/one.apr");
    walk(w, "local/one/one.apr"); /* a third lookup: three to forget */
    tree_remove(w->root, "one.gguf");
    rescan_and_forget(w);
    assert_null(walk(w, "local/one"));
    struct node *found = nodes_find(w->ns, ino);
    assert_ptr_equal(found, n);
    nodes_put(w->ns, found);
    nodes_forget(w->ns, ino, 1);
    found = nodes_find(w->ns, ino);
    assert_non_null(found);
    nodes_put(w->ns, found);
    nodes_forget(w->ns, ino, 2); /* as the kernel does: many in one message */
    assert_null(nodes_find(w->ns, ino));
    nodes_forget(w->ns, ino, 1); /* a forget too many is no harm */
    world_free(w);
}

static void ollama_says(struct world *w, const char *params)
{
    struct ollama_build o = {.root = w->root};
    ollama_model(&o, "model", 1);
    if (params)
        ollama_layer(&o, "params", params, strlen(params));
    ollama_manifest(&o, "manifests/h/n/m/t", NULL);
}

/* The text of a node, or the error's number. */
static const char *text_now(struct world *w, struct node *n, enum vfile_text which)
{
    static char text[512];
    struct vfile *vf = nodes_vfile(w->ns, n);
    struct vcache_item *it;
    struct err e;
    int rc = vfile_text(vf, which, n->id, &it, &e);
    vfile_put(vf);
    if (rc < 0)
        return err_name(rc);
    assert_in_range(vcache_item_len(it), 1, sizeof text - 1);
    assert_int_equal(vcache_item_read(it, text, 0, vcache_item_len(it), &e), 0);
    text[vcache_item_len(it)] = '\0';
    vcache_put(w->env.texts, it);
    return text;
}

/* What Ollama sets of a blob may change while the blob stays: the same .apr, another text beside it under
 * another number. The old number never gets the new text. */
static void tree_tells_new_parameters_under_another_number(void **state)
{
    (void)state;
    static const char file[] = "h+n/m/generation_config.json";
    struct world *w = world_new();
    w->store.kind = STORE_OLLAMA;
    ollama_says(w, NULL);
    rescan_and_forget(w);
    assert_non_null(walk(w, "h+n/m/config.json"));
    assert_null(walk(w, file));
    ollama_says(w, "{\"top_k\":5}");
    rescan_and_forget(w);
    struct node *five = walk(w, file);
    assert_non_null(strstr(text_now(w, five, VFILE_GENERATION), "\"top_k\":5}"));
    ollama_says(w, "{\"top_k\":6}");
    rescan_and_forget(w);
    struct node *six = walk(w, file);
    assert_int_not_equal(five->ino, six->ino);
    assert_non_null(strstr(text_now(w, five, VFILE_GENERATION), "\"top_k\":5}")); /* still kept */
    assert_non_null(strstr(text_now(w, six, VFILE_GENERATION), "\"top_k\":6}"));
    ollama_says(w, "{\"top_k\":7}");
    rescan_and_forget(w);
    struct node *seven = walk(w, file);
    vcache_drop(w->env.texts, six->id); /* as if others had needed the room */
    assert_string_equal(text_now(w, six, VFILE_GENERATION), "ESTALE");
    assert_non_null(strstr(text_now(w, seven, VFILE_GENERATION), "\"top_k\":7}"));
    world_free(w);
}

static void tree_leaves_out_what_is_being_written(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    tree_model(w->root, "two.gguf", 1);
    char *path = path_join(w->root, "two.gguf");
    int ro = open(path, O_RDONLY);
    bool leases = fcntl(ro, F_SETLEASE, F_RDLCK) == 0;
    close(ro);
    if (!leases) {
        free(path);
        world_free(w);
        skip_because("no leases here: a writer cannot be seen");
    }
    int fd = open(path, O_WRONLY);
    rescan_and_forget(w);
    struct tree *t = nodes_tree(w->ns);
    assert_int_equal(t->n_model, 1);
    assert_int_equal(t->n_problem, 1);
    assert_string_equal(t->problem[0].line,
                        "EAGAIN\ttwo.gguf\tstill being written: another process "
                        "has it open for writing\n");
    tree_put(w->ns, t);
    close(fd);
    rescan_and_forget(w);
    assert_non_null(walk(w, "local/two/two.apr"));
    free(path);
    world_free(w);
}

/* A writer that opened and wrote nothing leaves the generation as it was, but a stale file for good:
 * the name gets a node of another number. */
static void tree_gives_a_stale_file_another_number(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *n = walk(w, "local/one/one.apr");
    struct vfile *vf = nodes_vfile(w->ns, n);
    struct err e;
    char *path = path_join(w->root, "one.gguf");
    assert_int_equal(vfile_open(vf, &e), 0);
    int fd = open(path, O_RDWR | O_NONBLOCK); /* breaks the lease, if there is one */
    bool leased = fd < 0 && errno == EAGAIN;
    if (leased) {
        pinned_lease_broken(-1);
        assert_true(vfile_stale(vf));
        rescan_and_forget(w);
        struct node *again = walk(w, "local/one/one.apr");
        assert_ptr_not_equal(again, n);
        assert_int_equal(again->ino, n->ino + 1);
        assert_memory_equal(again->id, n->id, sizeof n->id);
        assert_int_equal(vfile_open(vf, &e), -ESTALE);
    }
    vfile_close(vf);
    vfile_put(vf);
    if (fd >= 0)
        close(fd);
    free(path);
    world_free(w);
    if (!leased)
        skip_because("no leases here");
}

/* The number that a collision led to stays the file's, when what was in the way is gone and over a
 * restart: it is part of what is learnt. */
static void tree_keeps_the_number_after_a_collision(void **state)
{
    (void)state;
    struct world *w = world_new();
    tree_model(w->root, "one.gguf", 1);
    rescan_and_forget(w);
    struct node *n = walk(w, "local/one/one.apr");
    uint64_t hashed = n->ino;
    assert_int_equal(hashed, name_inode(n->path, n->id));
    struct tree *t = nodes_tree(w->ns);
    assert_false(tree_learn(w->ns, t)); /* nothing yet */
    tree_put(w->ns, t);
    /* Another live node has the number. */
    n->id[0] ^= 1;
    rescan_and_forget(w);
    struct node *next = walk(w, "local/one/one.apr");
    assert_int_equal(next->ino, hashed + 1);
    t = nodes_tree(w->ns);
    assert_true(tree_learn(w->ns, t));
    assert_int_equal(t->scan->set->store[0]->entry[0].learnt->ino, hashed + 1);
    assert_false(tree_learn(w->ns, t)); /* once */
    nodes_forget(w->ns, hashed, 1);
    assert_null(nodes_find(w->ns, hashed));
    rescan_and_forget(w);
    assert_ptr_equal(walk(w, "local/one/one.apr"), next);
    /* The next daemon: the same scan's entries as prev, no node alive. */
    struct world *v = world_new();
    free(v->root);
    v->root = strdup(w->root);
    struct store_source src = {.path = v->root};
    struct store_set *set;
    struct tree *fresh;
    struct err e = {0};
    assert_int_equal(store_set_scan(&set, &src, 1, &v->store, t->scan->set, &e), 0);
    struct scan *scan = scan_new(set);
    assert_int_equal(tree_new(&fresh, v->ns, &v->env, scan, &v->opt, &e), 0);
    scan_put(scan);
    nodes_swap(v->ns, fresh);
    assert_int_equal(walk(v, "local/one/one.apr")->ino, hashed + 1);
    world_free(v);
    tree_put(w->ns, t);
    world_free(w);
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tree_is_two_levels_with_siblings),
        cmocka_unit_test(tree_node_tells_the_truth),
        cmocka_unit_test(tree_without_links),
        cmocka_unit_test(tree_of_nothing_is_empty),
        cmocka_unit_test(tree_keeps_what_did_not_change),
        cmocka_unit_test(tree_keeps_old_handle_after_replace),
        cmocka_unit_test(tree_fits_lmstudio),
        cmocka_unit_test(tree_fits_models_dir),
        cmocka_unit_test(tree_tells_of_attributes_that_changed),
        cmocka_unit_test(tree_numbers_survive_a_restart),
        cmocka_unit_test(tree_tells_new_parameters_under_another_number),
        cmocka_unit_test(tree_nodes_live_as_long_as_the_kernel_counts_on_them),
        cmocka_unit_test(tree_leaves_out_what_is_being_written),
        cmocka_unit_test(tree_gives_a_stale_file_another_number),
        cmocka_unit_test(tree_keeps_the_number_after_a_collision),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
