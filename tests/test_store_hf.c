/* Hugging Face's hub cache: each case of the design of stores, sections 2.1, 3 and 6. The layout is
 * that of huggingface.co/docs/hub/local-cache; scripts/check_hub compares with that library itself. */
#include "format/store.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define REPO "models--org--repo"
#define A    TREE_COMMIT_A
#define B    TREE_COMMIT_B
#define AT   REPO "/snapshots/" A "/"

static const struct store_options automatic = {.kind = STORE_AUTO, .plan = true};

static void expect(const char *root, const char *entries, const char *problems)
{
    tree_expect(root, &automatic, entries, problems);
}

static void store_hf_shows_the_main_revision(void **state)
{
    (void)state;
    char *root = temp_dir(), hash[NAME_HEX];
    snprintf(hash, sizeof hash, "%s", tree_hub_model(root, REPO, A, "Qwen-Q4_K_M.gguf", 1));
    tree_hub_model(root, REPO, B, "Qwen-Q8_0.gguf", 2);
    tree_hub_file(root, REPO, A, "README.md", "# words", 7, true);
    tree_hub_ref(root, REPO, "main", A "\n");
    tree_hub_ref(root, REPO, "pr/1", B);
    expect(root, "model 0 org/repo/Qwen-Q4_K_M <- org/repo|" AT "Qwen-Q4_K_M.gguf\n", "");
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->kind, STORE_HF);
    const struct store_entry *en = &s->entry[0];
    assert_int_equal(en->kind, STORE_HF);
    assert_string_equal(en->revision, A);
    assert_string_equal(en->part[0].sha256, hash); /* from the blob's name */
    char *path = path_join(s->root, AT "Qwen-Q4_K_M.gguf");
    assert_string_equal(en->part[0].path, path);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, en, NULL), 0);
    store_plan_close(p);
    free(path);
    store_free(s);
    free(root);
}

static void store_hf_shows_all_revisions_when_asked(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct store_options all = automatic;
    all.all_revisions = true;
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_model(root, REPO, B, "m.gguf", 2);
    tree_hub_ref(root, REPO, "main", A);
    tree_expect(root, &all,
                "model 0 org/repo/m <- org/repo|" AT "m.gguf\n"
                "model 0 org/repo@b2c3d4e5/m <- org/repo@b2c3d4e5|" REPO "/snapshots/" B
                "/m.gguf\n",
                "");
    free(root);
}

static void store_hf_without_main_takes_the_newest(void **state)
{
    (void)state;
    char *root = temp_dir(), *a = path_join(root, REPO "/snapshots/" A),
         *b = path_join(root, REPO "/snapshots/" B);
    tree_hub_model(root, REPO, A, "a.gguf", 1);
    tree_hub_model(root, REPO, B, "b.gguf", 2);
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}},
                    new[2] = {{.tv_sec = 2000}, {.tv_sec = 2000}};
    assert_int_equal(utimensat(AT_FDCWD, a, new, 0), 0);
    assert_int_equal(utimensat(AT_FDCWD, b, old, 0), 0);
    expect(root, "model 0 org/repo/a <- org/repo|" AT "a.gguf\n", "");
    assert_int_equal(utimensat(AT_FDCWD, b, new, 0), 0); /* equally old: by name */
    expect(root, "model 0 org/repo/b <- org/repo|" REPO "/snapshots/" B "/b.gguf\n", "");
    /* A ref that leads nowhere: the same, with a word. */
    tree_hub_ref(root, REPO, "main", "c0ffee");
    expect(root, "model 0 org/repo/b <- org/repo|" REPO "/snapshots/" B "/b.gguf\n",
           "WARN " REPO "/refs/main: names c0ffee, which is not here: " B
           " is shown, the newest that no other ref names\n");
    tree_hub_ref(root, REPO, "main", "../../../x");
    expect(root, "model 0 org/repo/b <- org/repo|" REPO "/snapshots/" B "/b.gguf\n",
           "EUCLEAN " REPO "/refs/main: no commit's id: the newest snapshot is shown\n");
    struct store *s = tree_scan(root, &automatic);
    bool watched = false; /* a file that comes to the other may make it the newest */
    for (size_t i = 0; i < s->n_dir; i++)
        watched |= !strcmp(s->dir[i], REPO "/snapshots/" A);
    assert_true(watched);
    store_free(s);
    free(a);
    free(b);
    free(root);
}

/* The only snapshot was a tag's, never main's: no word may say otherwise. */
static void store_hf_says_whose_the_only_snapshot_is(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_ref(root, REPO, "v1", A);
    tree_hub_ref(root, REPO, "main", "c0ffee");
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf\n",
           "WARN " REPO "/refs/main: names c0ffee, which is not here: " A
           " is shown, the newest here\n");
    free(root);
}

/* What a client does first of all when it fetches a new revision: the old one stays in sight. */
static void store_hf_keeps_the_old_revision_until_the_first_file(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_dir(root, REPO "/snapshots/" B "/sub/deep");
    tree_hub_ref(root, REPO, "main", B);
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf\n",
           "WARN " REPO "/refs/main: names " B ", which is empty yet: " A
           " is shown, the newest that no other ref names\n");
    /* A pull request's snapshot was not main's, newer as it is; it is where there is no other. */
    tree_hub_model(root, REPO, "c0ffee", "pr.gguf", 3);
    tree_hub_ref(root, REPO, "pr/1", "c0ffee");
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf\n",
           "WARN " REPO "/refs/main: names " B ", which is empty yet: " A
           " is shown, the newest that no other ref names\n");
    tree_hub_ref(root, REPO, "v1", A);
    expect(root, "model 0 org/repo/pr <- org/repo|" REPO "/snapshots/c0ffee/pr.gguf\n",
           "WARN " REPO "/refs/main: names " B
           ", which is empty yet: c0ffee is shown, the newest here\n");
    struct store *s = tree_scan(root, &automatic);
    bool watched = false; /* or nobody would see the first file come */
    for (size_t i = 0; i < s->n_dir; i++)
        watched |= !strcmp(s->dir[i], REPO "/snapshots/" B "/sub/deep");
    assert_true(watched);
    store_free(s);
    tree_hub_model(root, REPO, B, "sub/deep/n.gguf", 2);
    expect(root, "model 0 org/repo/n <- org/repo|" REPO "/snapshots/" B "/sub/deep/n.gguf\n", "");
    /* Nothing but an empty one is nothing, and no problem. */
    tree_dir(root, "models--a--b/snapshots/" A);
    tree_hub_ref(root, "models--a--b", "main", A);
    expect(root, "model 0 org/repo/n <- org/repo|" REPO "/snapshots/" B "/sub/deep/n.gguf\n", "");
    free(root);
}

static bool hf_watches(const char *root, const char *dir)
{
    struct store *s = tree_scan(root, &automatic);
    bool yes = false;
    for (size_t i = 0; i < s->n_dir; i++)
        yes |= !strcmp(s->dir[i], dir);
    store_free(s);
    return yes;
}

/* A README, a projector and half of the shards are here before the model is: nothing else is lost
 * meanwhile. Files that are no model, in a repository that has none, are no reason to say anything. */
static void store_hf_keeps_the_old_revision_until_the_first_model(void **state)
{
    (void)state;
    static const char old[] = "model 0 org/repo/m <- org/repo|" AT "m.gguf\n";
    static const char word[] =
        "WARN " REPO "/refs/main: names " B ", which has no whole model yet: " A
        " is shown, the newest that no other ref names\n";
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_file(root, REPO, B, "README.md", "# words", 7, true);
    tree_hub_ref(root, REPO, "main", B);
    expect(root, old, word);
    assert_true(hf_watches(root, REPO "/snapshots/" B));
    tree_projector(root, "p");
    char *path = path_join(root, "p");
    size_t len;
    uint8_t *p = file_read(path, &len);
    tree_hub_file(root, REPO, B, "mmproj-F16.gguf", p, len, false);
    free(p);
    tree_remove(root, "p");
    expect(root, old, word);
    struct gguf_build *b = tree_model_new(2);
    for (int i = 0; i < 2; i++) {
        char way[64];
        p = gguf_build_shard(b, i, 2, &len);
        snprintf(way, sizeof way, "Q4/m-%05d-of-00002.gguf", i + 1);
        tree_hub_file(root, REPO, B, way, p, len, false);
        free(p);
        if (i == 0)
            expect(root, old, word);
    }
    gguf_build_free(b);
    assert_true(hf_watches(root, REPO "/snapshots/" B "/Q4"));
    struct store *s = tree_scan(root, &automatic);
    for (size_t i = 0; i < s->n_entry; i++)
        assert_string_equal(s->entry[i].revision, B);
    assert_int_equal(s->n_entry, 2);
    assert_int_equal(s->n_problem, 0);
    store_free(s);
    tree_hub_file(root, "models--a--b", A, "model.safetensors", "x", 1, true);
    tree_hub_file(root, "models--a--b", B, "model.safetensors", "y", 1, true);
    tree_hub_ref(root, "models--a--b", "main", A);
    expect(root, NULL, "");
    free(path);
    free(root);
}

/* The suffix says nothing: a model under another name has arrived. */
static void store_hf_knows_a_model_by_its_bytes(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_model(root, REPO, B, "weights.bin", 2);
    tree_hub_ref(root, REPO, "main", B);
    expect(root, "model 0 org/repo/weights.bin <- org/repo|" REPO "/snapshots/" B "/weights.bin\n",
           "");
    free(root);
}

static void store_hf_flattens_sub_folders(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "BF16/deep/one.gguf", 1);
    tree_hub_model(root, REPO, A, "Q4/two.gguf", 2);
    tree_hub_model(root, REPO, A, "three.gguf", 3);
    tree_hub_model(root, REPO, A, ".cache/four.gguf", 4);
    expect(root,
           "model 0 org/repo/one <- org/repo|" AT "BF16/deep/one.gguf\n"
           "model 0 org/repo/three <- org/repo|" AT "three.gguf\n"
           "model 0 org/repo/two <- org/repo|" AT "Q4/two.gguf\n",
           "");
    free(root);
}

static void hub_shards(const char *root, const char *prefix, int n, int skip)
{
    struct gguf_build *b = tree_model_new(1);
    for (int i = n - 1; i >= 0; i--) { /* last first: the order of arrival is none */
        char way[256];
        size_t len;
        uint8_t *p = gguf_build_shard(b, i, n, &len);
        snprintf(way, sizeof way, "%s-%05d-of-%05d.gguf", prefix, i + 1, n);
        if (i != skip)
            tree_hub_file(root, REPO, A, way, p, len, false);
        free(p);
    }
    gguf_build_free(b);
}

static void store_hf_joins_shards_per_folder(void **state)
{
    (void)state;
    char *root = temp_dir();
    hub_shards(root, "Q4_K_M/m-Q4_K_M", 3, -1);
    hub_shards(root, "Q8_0/m-Q8_0", 2, -1);
    hub_shards(root, "Q2_K/m-Q2_K", 3, 1);
    expect(root,
           "unsupported ENOENT - <- org/repo|" AT "Q2_K/m-Q2_K-00001-of-00003.gguf\n"
           "model 0 org/repo/m-Q4_K_M <- org/repo|" AT "Q4_K_M/m-Q4_K_M-00001-of-00003.gguf\n"
           "model 0 org/repo/m-Q8_0 <- org/repo|" AT "Q8_0/m-Q8_0-00001-of-00002.gguf\n",
           "ENOENT " AT "Q2_K/m-Q2_K-00001-of-00003.gguf: shard 2 of 3 is missing: "
           "m-Q2_K-00002-of-00003.gguf\n");
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->entry[1].n_part, 3);
    for (int i = 0; i < 3; i++)
        assert_int_equal(strlen(s->entry[1].part[i].sha256), 64);
    store_free(s);
    free(root);
}

static void store_hf_takes_files_where_links_were_impossible(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, AT "m.gguf", 1);
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf\n", "");
    struct store *s = tree_scan(root, &automatic);
    assert_string_equal(s->entry[0].part[0].sha256, "");
    store_free(s);
    free(root);
}

/* A blob named by git's SHA-1, or in capitals, says nothing about the content's SHA-256. */
static void store_hf_hash_is_64_digits_only(void **state)
{
    (void)state;
    static const char *const blob[] = {
        "0123456789abcdef0123456789abcdef01234567",
        "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdefff",
    };
    char *root = temp_dir(), rel[256], target[256], way[256];
    for (int i = 0; i < 3; i++) {
        snprintf(rel, sizeof rel, REPO "/blobs/%s", blob[i]);
        tree_model(root, rel, (uint64_t)i + 1);
        snprintf(target, sizeof target, "../../blobs/%s", blob[i]);
        snprintf(way, sizeof way, AT "m%d.gguf", i);
        tree_link(root, way, target);
    }
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(s->entry[i].rc, 0);
        assert_string_equal(s->entry[i].part[0].sha256, "");
    }
    store_free(s);
    free(root);
}

static void store_hf_tells_repositories_by_two_parts(void **state)
{
    (void)state;
    static const char *const repo[] = {"models--gpt2",    "models--a--b--c", "models--..--x",
                                       "models--a--x..y", "models--",        "models----x",
                                       "models--x--"};
    char *root = temp_dir();
    for (size_t i = 0; i < sizeof repo / sizeof *repo; i++)
        tree_hub_model(root, repo[i], A, "m.gguf", i + 1);
    expect(root, "model 0 _/gpt2/m <- gpt2|models--gpt2/snapshots/" A "/m.gguf\n",
#define NO ": not the name of a repository: expected models--<org>--<repo>\n"
           "EINVAL models--" NO "EINVAL models----x" NO "EINVAL models--..--x" NO
           "EINVAL models--a--b--c" NO "EINVAL models--a--x..y" NO "EINVAL models--x--" NO);
    free(root);
}

static void store_hf_leaves_out_what_is_no_model(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_model(root, "datasets--org--data", A, "d.gguf", 2);
    tree_hub_model(root, "spaces--org--app", A, "s.gguf", 3);
    tree_text(root, ".locks/" REPO "/x.lock", "");
    tree_text(root, REPO "/.no_exist/" A "/adapter_config.json", "");
    tree_text(root, "version.txt", "1");
    tree_hub_model(root, "kernels--org--k", A, "k.gguf", 3);
    tree_model(root, "mine/x.gguf", 4);
    tree_model(root, "facts--mine/x.gguf", 4); /* no kind of repository that the hub has */
    tree_model(root, "models--a--b.gguf", 5);  /* a file is no repository, whatever its name */
    expect(root,
           "model 0 llama.cpp/models--a--b/models--a--b <- models--a--b.gguf\n"
           "model 0 org/repo/m <- org/repo|" AT "m.gguf\n",
           "EINVAL facts--mine: no folder of a hub cache: not searched; name it as a source\n"
           "EINVAL mine: no folder of a hub cache: not searched; name it as a source\n");
    free(root);
}

static void store_hf_tells_downloads_in_progress(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_text(root, REPO "/blobs/c0ffee.incomplete", "GGUF");
    tree_text(root, REPO "/blobs/beef.downloadInProgress", "GGUF");
    /* Nothing but a download yet. */
    tree_text(root, "models--a--b/blobs/c0ffee.7f3a.incomplete", "");
    tree_dir(root, "models--a--b/snapshots");
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf\n",
           "EAGAIN models--a--b/blobs/c0ffee.7f3a.incomplete: download in progress\n"
           "EAGAIN " REPO "/blobs/beef.downloadInProgress: download in progress\n"
           "EAGAIN " REPO "/blobs/c0ffee.incomplete: download in progress\n");
    struct store *s = tree_scan(root, &automatic);
    assert_string_equal(s->problem[0].dir, "a/b");
    store_free(s);
    free(root);
}

static void store_hf_names_pruned_blobs(void **state)
{
    (void)state;
    char *root = temp_dir(), rel[256], want[512];
    snprintf(rel, sizeof rel, REPO "/blobs/%s", tree_hub_model(root, REPO, A, "m.gguf", 1));
    struct store *s = tree_scan(root, &automatic);
    struct store_plan *p = NULL;
    struct err e;
    tree_remove(root, rel);
    snprintf(want, sizeof want, "ENOENT " AT "m.gguf: blob %s is gone\n",
             rel + strlen(REPO "/blobs/"));
    expect(root, "unsupported ENOENT - <- org/repo|" AT "m.gguf\n", want);
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], &e), -ENOENT);
    assert_non_null(strstr(e.msg, "is gone"));
    store_free(s);
    free(root);
}

/* Only "../../blobs/<hash>" is a link of this layout: all else may show files that are no part of
 * it, and a planted one must not. */
static void store_hf_refuses_links_elsewhere(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir(), *out = path_join(other, "x.gguf"),
         *inside = path_join(root, REPO "/blobs/real");
    static const char *const bad[] = {"../../blobs/../blobs/real",
                                      "../../blobs/sub/real",
                                      "../blobs/real",
                                      "../../../blobs/real",
                                      "../../blobs/..",
                                      "../../blobs/",
                                      "../../refs/real",
                                      "x0.gguf",
                                      "../../blobsreal",
                                      "../.././blobs/real",
                                      ".././../blobs/real"};
    enum { N = sizeof bad / sizeof *bad };
    char name[256];
    tree_model(other, "x.gguf", 1);
    tree_model(root, REPO "/blobs/real", 1);
    tree_model(root, REPO "/blobs/sub/real", 2);
    tree_model(root, REPO "/refs/real", 3);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, AT "x%d.gguf", i);
        tree_link(root, name, bad[i]);
    }
    tree_link(root, AT "out.gguf", out);
    tree_link(root, AT "abs.gguf", inside);
    tree_link(root, AT "README.md", "/etc/passwd");
    tree_link(root, AT "sub/short.gguf", "../../blobs/real"); /* one "../" too few */
    tree_link(root, AT "good.gguf", "../../blobs/real");
    struct store *s = tree_scan(root, &automatic);
    assert_int_equal(s->n_entry, N + 4);
    for (size_t i = 0; i < s->n_entry; i++) {
        bool good = strstr(s->entry[i].order, "good.gguf");
        assert_int_equal(s->entry[i].rc, good ? 0 : -EXDEV);
        assert_true(good || strstr(s->entry[i].why, "not to a file of the repository's blobs/"));
    }
    assert_int_equal(s->n_problem, N + 4); /* README.md has no entry */
    store_free(s);
    free(inside);
    free(out);
    free(other);
    free(root);
}

/* Not even a right link is followed through a folder that is a link, nor to a blob that is one; and
 * store_part_open() has the scan's rule. */
static void store_hf_follows_no_other_link(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir(), *target = path_join(other, "x.gguf"), rel[300];
    tree_model(other, "x.gguf", 1);
    tree_link(root, REPO "/blobs/c0ffee", target);
    tree_link(root, AT "m.gguf", "../../blobs/c0ffee");
    tree_hub_model(other, "models--l--l", A, "m.gguf", 2);
    char *whole = path_join(other, "models--l--l"), *snap = path_join(whole, "snapshots/" A);
    tree_link(root, "models--l--l", whole);
    tree_link(root, "models--s--s/snapshots/" A, snap);
    tree_link(root, "models--t--t/snapshots", snap);
    tree_dir(root, REPO "/blobs/folder");
    tree_link(root, REPO "/blobs/through", "folder/x"); /* by a link, then beyond */
    tree_link(root, AT "n.gguf", "../../blobs/through");
    char want[1024];
    snprintf(want, sizeof want,
             "ELOOP models--l--l: a link where a repository's folder is expected: not followed\n"
             "EXDEV " AT "m.gguf: the blob is a link to '%s', not into the cache's blobs/\n"
             "EXDEV " AT "n.gguf: the blob is a link to 'folder/x', not into the cache's blobs/\n"
             "ELOOP models--s--s/snapshots/" A
             ": a link where a snapshot's folder is expected: not followed\n"
             "ELOOP models--t--t/snapshots: not a folder of the repository's own: not followed\n",
             target);
    expect(root,
           "unsupported EXDEV - <- org/repo|" AT "m.gguf\n"
           "unsupported EXDEV - <- org/repo|" AT "n.gguf\n",
           want);
    const char *hash = tree_hub_model(root, REPO, A, "later.gguf", 3);
    struct store *s = tree_scan(root, &automatic);
    struct store_plan *p = NULL;
    const struct store_entry *en = NULL;
    for (size_t i = 0; i < s->n_entry; i++)
        en = s->entry[i].rc == 0 ? &s->entry[i] : en;
    assert_non_null(en);
    snprintf(rel, sizeof rel, REPO "/blobs/%s", hash);
    char *blob = path_join(root, rel), *moved = path_join(other, "moved");
    assert_int_equal(rename(blob, moved), 0);
    tree_link(root, rel, moved); /* the same file, by a link that is none of the layout's */
    assert_int_equal(store_plan_open(&p, s, en, NULL), -EXDEV);
    store_free(s);
    free(blob);
    free(moved);
    free(whole);
    free(snap);
    free(target);
    free(other);
    free(root);
}

/* huggingface_hub 2 keeps one copy of what several repositories hold (its utils/_shared_blobs.py):
 * blobs/<etag> is then a link to ../../blobs/<xx>/<xet hash>, and no other link will do. */
static void store_hf_follows_blobs_that_repositories_share(void **state)
{
    (void)state;
#define XET "ab0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd"
#define SHA "cd0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd"
    static const char *const bad[] = {"../../blobs/ac/" XET, "../../blobs/ab/real",
                                      "../../blobs/" XET,    "../blobs/ab/" XET,
                                      "../../other/ab/" XET, "real"};
    enum { N_BAD = sizeof bad / sizeof *bad };
    char *root = temp_dir(), rel[256], target[256];
    tree_model(root, "blobs/ab/" XET, 1);
    tree_text(root, "blobs/.huggingface-shared-blobs", "1\n");
    tree_model(root, "blobs/ac/" XET, 2);
    tree_model(root, "blobs/ab/real", 2);
    tree_model(root, "other/ab/" XET, 2);
    tree_model(root, REPO "/blobs/real", 2);
    tree_link(root, REPO "/blobs/" SHA, "../../blobs/ab/" XET);
    tree_link(root, AT "good.gguf", "../../blobs/" SHA);
    tree_link(root, "models--b--b/blobs/c0ffee", "../../blobs/ab/" XET);
    tree_link(root, "models--b--b/snapshots/" A "/sub/good.gguf", "../../../blobs/c0ffee");
    tree_link(root, REPO "/blobs/beef", "../../blobs/cd/" SHA);
    tree_link(root, AT "gone.gguf", "../../blobs/beef");
    for (int i = 0; i < N_BAD; i++) {
        snprintf(rel, sizeof rel, REPO "/blobs/x%d", i);
        tree_link(root, rel, bad[i]);
        snprintf(rel, sizeof rel, AT "x%d.gguf", i);
        snprintf(target, sizeof target, "../../blobs/x%d", i);
        tree_link(root, rel, target);
    }
    struct store *s = tree_scan(root, &automatic);
    struct store_plan *p = NULL;
    int n_good = 0, n_gone = 0, n_bad = 0;
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        n_gone += en->rc == -ENOENT && !strcmp(en->why, "blob beef is gone");
        n_bad += en->rc == -EXDEV && strstr(en->why, "not into the cache's blobs/");
        if (!strstr(en->order, "good.gguf"))
            continue;
        n_good += en->rc == 0;
        if (strstr(en->order, REPO))
            assert_string_equal(en->part[0].sha256, SHA);
        assert_int_equal(store_plan_open(&p, s, en, NULL), 0);
        store_plan_close(p);
    }
    assert_int_equal(n_good, 2);
    assert_int_equal(n_gone, 1);
    assert_int_equal(n_bad, N_BAD);
    assert_int_equal(s->n_entry, 3 + N_BAD);
    assert_int_equal(s->n_problem, 2 + N_BAD); /* with the folder "other" */
    store_free(s);
    /* The blobs are nobody's models, whatever the root is told to be; what is no store of blobs is. */
    struct store_options told = {.kind = STORE_LLAMACPP, .plan = true};
    s = tree_scan(root, &told);
    assert_int_equal(s->n_entry, 4 + N_BAD); /* with other/ab's */
    store_free(s);
    free(root);
}

static void store_hf_keeps_projectors_by_name(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_projector(root, AT "mmproj-model-f16.gguf");
    tree_adapter(root, AT "lora.gguf");
    tree_imatrix(root, AT "imatrix.gguf");
    tree_vocab(root, AT "vocab.gguf");
    tree_model(root, AT "ggml-model-q4.gguf", 1); /* generic: the next rule */
    expect(root,
           "model 0 org/repo/built-for-a-test-F32 <- org/repo|" AT "ggml-model-q4.gguf\n"
           "imatrix 0 org/repo/imatrix <- org/repo|" AT "imatrix.gguf\n"
           "adapter 0 org/repo/lora <- org/repo|" AT "lora.gguf\n"
           "projector 0 org/repo/mmproj-model-f16 <- org/repo|" AT "mmproj-model-f16.gguf\n"
           "vocab 0 org/repo/vocab <- org/repo|" AT "vocab.gguf\n",
           "");
    free(root);
}

static void store_hf_is_found_below_its_home(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, "hub/" REPO, A, "m.gguf", 1);
    tree_text(root, "token", "secret");
    struct store *s = tree_scan(root, &automatic);
    char *hub = path_join(root, "hub");
    assert_int_equal(s->kind, STORE_HF);
    assert_string_equal(strrchr(s->root, '/'), "/hub");
    assert_int_equal(s->n_entry, 1);
    struct store_options told = {.kind = STORE_HF};
    struct store *t = tree_scan(root, &told);
    assert_string_equal(t->root, s->root);
    /* Told otherwise, it is otherwise: a plain folder has a snapshot and a blob. */
    told.kind = STORE_PLAIN;
    struct store *p = tree_scan(root, &told);
    assert_int_equal(p->kind, STORE_PLAIN);
    assert_int_equal(p->n_entry, 2);
    store_free(p);
    store_free(t);
    store_free(s);
    /* A folder with models of its own is no program's home: none of them may be lost. */
    tree_model(root, "mine.gguf", 2);
    s = tree_scan(root, &automatic);
    assert_int_equal(s->kind, STORE_PLAIN);
    assert_int_equal(s->n_entry, 3);
    store_free(s);
    free(hub);
    free(root);
}

/* Two ways of one snapshot to one blob are one model: each name once, and read once for all. */
static void store_hf_merges_two_ways_to_one_blob(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "m.gguf", 1);
    tree_hub_model(root, REPO, A, "sub/m.gguf", 1);
    expect(root, "model 0 org/repo/m <- org/repo|" AT "m.gguf|" AT "sub/m.gguf\n", "");
    struct store *first = tree_scan(root, &automatic), *second = NULL;
    assert_int_equal(first->n_parsed, 2);
    assert_int_equal(store_scan(&second, root, &automatic, first, NULL), 0);
    assert_int_equal(second->n_parsed, 0);
    assert_true(store_equal(first, second));
    store_free(first);
    store_free(second);
    free(root);
}

static void store_hf_rescan_parses_only_what_changed(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct err e = {0};
    tree_hub_model(root, REPO, A, "a.gguf", 1);
    tree_hub_model(root, REPO, A, "b.gguf", 2);
    struct store *first = tree_scan(root, &automatic), *second = NULL, *third = NULL;
    assert_int_equal(first->n_parsed, 2);
    assert_int_equal(store_scan(&second, root, &automatic, first, &e), 0);
    assert_int_equal(second->n_parsed, 0);
    assert_true(store_equal(first, second));
    tree_hub_model(root, REPO, A, "c.gguf", 3);
    assert_int_equal(store_scan(&third, root, &automatic, second, &e), 0);
    assert_int_equal(third->n_parsed, 1);
    store_free(first);
    store_free(second);
    store_free(third);
    free(root);
}

static void expect_dirs(const struct store *s, const char *want)
{
    char got[4096] = "";
    for (size_t i = 0; i < s->n_dir; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "[%s]\n", s->dir[i]);
    assert_string_equal(got, want);
}

static void store_hf_says_what_to_watch(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "sub/m.gguf", 1);
    tree_hub_model(root, REPO, B, "m.gguf", 2);
    tree_hub_ref(root, REPO, "main", A);
    tree_dir(root, "datasets--o--d/snapshots");
    struct store *s = tree_scan(root, &automatic);
    expect_dirs(s, "[]\n[" REPO "]\n[" REPO "/blobs]\n[" REPO "/refs]\n[" REPO "/snapshots]\n[" REPO
                   "/snapshots/" A "]\n[" REPO "/snapshots/" A "/sub]\n");
    store_free(s);
    free(root);
}

/* A crew that points one.gguf at two's blob between the walk and the reading. */
static char *one_way, *two_blob;

static void relink_then_each(size_t n, void (*job)(void *arg, size_t i), void *arg)
{
    assert_int_equal(unlink(one_way), 0);
    assert_int_equal(symlink(two_blob, one_way), 0);
    for (size_t i = 0; i < n; i++)
        job(arg, i);
}

static void no_wait(void)
{
}

static void store_hf_hash_is_of_the_bytes_that_were_read(void **state)
{
    (void)state;
    const struct store_crew crew = {relink_then_each, no_wait, no_wait};
    struct store_options o = automatic;
    o.crew = &crew;
    char *root = temp_dir();
    tree_hub_model(root, REPO, A, "one.gguf", 1);
    const char *two = tree_hub_model(root, REPO, A, "two.gguf", 2);
    one_way = path_join(root, AT "one.gguf");
    assert_true(asprintf(&two_blob, "../../blobs/%s", two) > 0);
    tree_hub_ref(root, REPO, "main", A);
    struct store *s = tree_scan(root, &o);
    assert_int_equal(s->n_entry, 2);
    assert_int_equal(s->entry[0].rc, 0);
    assert_int_equal(s->entry[0].part[0].id.ino, s->entry[1].part[0].id.ino);
    assert_string_equal(s->entry[0].part[0].sha256, s->entry[1].part[0].sha256);
    store_free(s);
    free(one_way);
    free(two_blob);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_hf_shows_the_main_revision),
        cmocka_unit_test(store_hf_shows_all_revisions_when_asked),
        cmocka_unit_test(store_hf_without_main_takes_the_newest),
        cmocka_unit_test(store_hf_says_whose_the_only_snapshot_is),
        cmocka_unit_test(store_hf_keeps_the_old_revision_until_the_first_file),
        cmocka_unit_test(store_hf_keeps_the_old_revision_until_the_first_model),
        cmocka_unit_test(store_hf_knows_a_model_by_its_bytes),
        cmocka_unit_test(store_hf_flattens_sub_folders),
        cmocka_unit_test(store_hf_joins_shards_per_folder),
        cmocka_unit_test(store_hf_takes_files_where_links_were_impossible),
        cmocka_unit_test(store_hf_hash_is_64_digits_only),
        cmocka_unit_test(store_hf_hash_is_of_the_bytes_that_were_read),
        cmocka_unit_test(store_hf_tells_repositories_by_two_parts),
        cmocka_unit_test(store_hf_leaves_out_what_is_no_model),
        cmocka_unit_test(store_hf_tells_downloads_in_progress),
        cmocka_unit_test(store_hf_names_pruned_blobs),
        cmocka_unit_test(store_hf_refuses_links_elsewhere),
        cmocka_unit_test(store_hf_follows_no_other_link),
        cmocka_unit_test(store_hf_follows_blobs_that_repositories_share),
        cmocka_unit_test(store_hf_keeps_projectors_by_name),
        cmocka_unit_test(store_hf_is_found_below_its_home),
        cmocka_unit_test(store_hf_merges_two_ways_to_one_blob),
        cmocka_unit_test(store_hf_says_what_to_watch),
        cmocka_unit_test(store_hf_rescan_parses_only_what_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
