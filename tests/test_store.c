/* Plain folders: each case of the design of stores, sections 2.3 to 2.5, 5 and 6. Expected trees
 * follow from the rules there; sizes from the files the test wrote. */
#include "format/store.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct store_options plain = {.kind = STORE_AUTO, .plan = true};

static struct store *scan_with(const char *root, const struct store_options *opt)
{
    struct store *s = NULL;
    struct err e = {0};
    int rc = store_scan(&s, root, opt, NULL, &e);
    if (rc < 0)
        fail_msg("store_scan: %s", e.msg);
    return s;
}

static struct store *scan(const char *root)
{
    return scan_with(root, &plain);
}

/* Scans and compares with what tree_show() and tree_problems() should give. NULL: not compared. */
static void expect_with(const char *root, const struct store_options *opt, const char *entries,
                        const char *problems)
{
    struct store *s = scan_with(root, opt);
    char *show = tree_show(s), *told = tree_problems(s);
    if (entries)
        assert_string_equal(show, entries);
    if (problems)
        assert_string_equal(told, problems);
    free(show);
    free(told);
    store_free(s);
}

static void expect(const char *root, const char *entries, const char *problems)
{
    expect_with(root, &plain, entries, problems);
}

/* ---- 2.3: what is found, and where it appears ---- */

static void store_plain_maps_depth_to_two_levels(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "f.gguf", 1);
    tree_model(root, "a/f.gguf", 1);
    tree_model(root, "a/b/f.gguf", 1);
    tree_model(root, "a/b/c/f.gguf", 1);
    expect(root,
           "model 0 a/b/f <- a/b/f.gguf\n"
           "model 0 a/b+c/f <- a/b/c/f.gguf\n"
           "model 0 local/a/f <- a/f.gguf\n"
           "model 0 local/f/f <- f.gguf\n",
           "");
    free(root);
}

static void store_plain_takes_any_suffix_by_magic(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/weights.bin", 1);
    tree_model(root, "m/no_suffix", 1);
    tree_text(root, "m/README.md", "GGU is not enough");
    tree_text(root, "m/tiny", "GG");
    tree_text(root, "m/empty", "");
    expect(root,
           "model 0 local/m/no_suffix <- m/no_suffix\n"
           "model 0 local/m/weights.bin <- m/weights.bin\n",
           "");
    free(root);
}

static void store_plain_names_false_models(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_text(root, "a.gguf", "<html>");
    tree_text(root, "b.gguf", "version https://git-lfs.github.com/spec/v1\n");
    tree_text(root, "c.gguf", "");
    expect(root,
           "unsupported EUCLEAN - <- a.gguf\n"
           "unsupported EUCLEAN - <- b.gguf\n"
           "unsupported EAGAIN - <- c.gguf\n",
           "EUCLEAN a.gguf: no GGUF file: begins with bytes 3c 68 74 6d, expected \"GGUF\"\n"
           "EUCLEAN b.gguf: a Git LFS pointer, not the file itself: run 'git lfs pull'\n"
           "EAGAIN c.gguf: needs at least 24 bytes, has 0\n");
    free(root);
}

static void store_plain_stops_at_depth_16(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/in.gguf", 1);
    tree_model(root, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/out.gguf", 1);
    expect(root,
           "model 0 1/2+3+4+5+6+7+8+9+10+11+12+13+14+15+16/in <- "
           "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/in.gguf\n",
           "ERANGE 1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17: more than 16 directories deep: not "
           "searched\n");
    free(root);
}

static void store_plain_skips_dot_directories(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, ".cache/m.gguf", 1);
    tree_model(root, "lost+found/m.gguf", 1);
    tree_model(root, "a/.git/m.gguf", 1);
    tree_model(root, "a/.m.gguf", 1); /* a file may begin with a dot */
    expect(root, "model 0 local/a/_.m <- a/.m.gguf\n", "");
    free(root);
}

static void store_plain_follows_links_to_files(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir(), *target = path_join(other, "real.gguf");
    tree_model(other, "real.gguf", 1);
    tree_link(root, "m/link.gguf", target);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, 0);
    char *path = path_join(s->root, "m/link.gguf"); /* the store's name, not the target's */
    assert_string_equal(s->entry[0].part[0].path, path);
    free(path);
    store_free(s);
    free(target);
    free(root);
    free(other);
}

static void store_plain_names_links_to_directories(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/m.gguf", 1);
    tree_link(root, "a/loop", "..");
    tree_link(root, "b", "a");
    expect(root, "model 0 local/a/m <- a/m.gguf\n",
           "ELOOP a/loop: a link to a directory: not followed; name the directory as a source\n"
           "ELOOP b: a link to a directory: not followed; name the directory as a source\n");
    free(root);
}

static void store_plain_names_dangling_links(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_link(root, "gone.gguf", "/nonexistent/blob");
    tree_link(root, "self.gguf", "self.gguf");
    tree_link(root, "other.txt", "/nonexistent/blob");
    expect(root, "unsupported ENOENT - <- gone.gguf\nunsupported ELOOP - <- self.gguf\n",
           "ENOENT gone.gguf: a link whose target is gone\n"
           "ELOOP self.gguf: a link whose target cannot be reached\n");
    free(root);
}

static void store_plain_root_may_be_a_link(void **state)
{
    (void)state;
    char *root = temp_dir(), *real = temp_dir(), *link = path_join(root, "link");
    tree_model(real, "a/m.gguf", 1);
    tree_link(root, "link", real);
    expect(link, "model 0 local/a/m <- a/m.gguf\n", "");
    free(link);
    free(root);
    free(real);
}

/* The scan must end: opening a pipe without a writer blocks, unless asked not to. */
static void store_plain_pipe_does_not_hang(void **state)
{
    (void)state;
    char *root = temp_dir(), *a = path_join(root, "p.gguf"), *b = path_join(root, "pipe");
    assert_int_equal(mkfifo(a, 0644), 0);
    assert_int_equal(mkfifo(b, 0644), 0);
    tree_link(root, "q.gguf", b);
    expect(root, "unsupported EINVAL - <- q.gguf\n",
           "EINVAL p.gguf: not a regular file\nEINVAL q.gguf: not a regular file\n");
    free(a);
    free(b);
    free(root);
}

static void store_resolve_beneath_refuses_links_that_leave(void **state)
{
    (void)state;
    char *root = temp_dir(), *other = temp_dir(), *target = path_join(other, "real.gguf");
    struct store_options opt = plain;
    opt.resolve = STORE_RESOLVE_BENEATH;
    tree_model(other, "real.gguf", 1);
    tree_model(root, "a/in.gguf", 1);
    tree_link(root, "b/inside.gguf", "../a/in.gguf");
    tree_link(root, "b/outside.gguf", target);
    tree_link(root, "b/dir", "../a");
    tree_link(root, "b/other", other);
    struct store *probe = scan_with(root, &opt);
    bool have = probe->n_entry > 0 && probe->entry[0].rc != -ENOSYS;
    store_free(probe);
    if (!have)
        skip_because("this kernel has no openat2");
    expect_with(root, &opt,
                "model 0 local/a/in <- a/in.gguf\n"
                "model 0 local/b/inside <- b/inside.gguf\n"
                "unsupported EXDEV - <- b/outside.gguf\n",
                "ELOOP b/dir: a link to a directory: not followed; name the directory as a "
                "source\n"
                "EXDEV b/other: a link that leaves the store (resolve=beneath)\n"
                "EXDEV b/outside.gguf: a link that leaves the store (resolve=beneath)\n");
    /* The same when it is opened later. */
    struct store *s = scan_with(root, &opt);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, &s->entry[1], NULL), 0);
    store_plan_close(p);
    tree_remove(root, "b/inside.gguf");
    tree_link(root, "b/inside.gguf", target);
    struct err e;
    assert_int_equal(store_plan_open(&p, s, &s->entry[1], &e), -EXDEV);
    store_free(s);
    free(target);
    free(root);
    free(other);
}

/* Runs check(root) as nobody where we are root, since root reads everything. 0 = good. */
static int as_nobody(const char *root, int (*check)(const char *root))
{
    if (geteuid() != 0)
        return check(root);
    chmod(root, 0755);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0)
            _exit(90);
        _exit(check(root));
    }
    int status = 0;
    assert_true(pid > 0 && waitpid(pid, &status, 0) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 91;
}

static int check_unreadable(const char *root)
{
    struct store *s = NULL;
    if (access(root, R_OK | X_OK) < 0)
        return 92; /* the temporary folder itself is out of reach */
    if (store_scan(&s, root, &plain, NULL, NULL) < 0)
        return 1;
    char *show = tree_show(s), *told = tree_problems(s);
    int bad = 0;
    if (strcmp(show,
               "unsupported EACCES - <- secret.gguf\nmodel 0 local/m/open <- m/open.gguf\n") &&
        strcmp(show, "model 0 local/m/open <- m/open.gguf\nunsupported EACCES - <- secret.gguf\n"))
        bad = 2;
    const char *owner = geteuid() == 65534 ? "owned by root, mode 0600" : "mode 0000";
    if (!strstr(told, "EACCES secret.gguf: not readable: ") || !strstr(told, owner))
        bad = 3;
    if (!strstr(told, "EACCES closed: directory not readable: Permission denied: owned by "))
        bad = 4;
    if (!strstr(told, "EACCES secret.bin: not readable: ")) /* any file may be a model */
        bad = 5;
    if (bad)
        fprintf(stderr, "%s%s", show, told);
    free(show);
    free(told);
    store_free(s);
    return bad;
}

static void store_names_what_is_not_readable(void **state)
{
    (void)state;
    char *root = temp_dir();
    unsigned mode = geteuid() == 0 ? 0600 : 0;
    tree_model(root, "secret.gguf", 1);
    tree_model(root, "secret.bin", 1);
    tree_model(root, "m/open.gguf", 1);
    tree_model(root, "closed/x.gguf", 1);
    tree_mode(root, "secret.gguf", mode);
    tree_mode(root, "secret.bin", mode);
    tree_mode(root, "closed", geteuid() == 0 ? 0700 : 0);
    int rc = as_nobody(root, check_unreadable);
    tree_mode(root, "closed", 0755);
    if (rc == 90 || rc == 92)
        skip_because("cannot try as another user (%d)", rc);
    assert_int_equal(rc, 0);
    free(root);
}

static int check_root_unreadable(const char *root)
{
    struct store *s = NULL;
    struct err e = {0};
    char *closed = path_join(root, "closed");
    if (access(root, R_OK | X_OK) < 0)
        return 92;
    int rc = store_scan(&s, closed, &plain, NULL, &e);
    free(closed);
    if (rc != -EACCES)
        return 1;
    if (geteuid() != 65534)
        return 0;
    return strstr(e.msg, "cannot read ") && strstr(e.msg, "owned by root, mode 0750") &&
                   strstr(e.msg, "'usermod -aG root $USER' and log in again")
               ? 0
               : 2;
}

static void store_root_not_readable_names_its_owner(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_dir(root, "closed");
    tree_mode(root, "closed", geteuid() == 0 ? 0750 : 0);
    int rc = as_nobody(root, check_root_unreadable);
    tree_mode(root, "closed", 0755);
    if (rc == 90 || rc == 92)
        skip_because("cannot try as another user (%d)", rc);
    assert_int_equal(rc, 0);
    free(root);
}

static void store_root_must_be_a_directory(void **state)
{
    (void)state;
    char *root = temp_dir(), *file = path_join(root, "f"), *none = path_join(root, "none");
    struct store *s = NULL;
    struct err e;
    tree_text(root, "f", "x");
    assert_int_equal(store_scan(&s, file, &plain, NULL, &e), -ENOTDIR);
    assert_int_equal(store_scan(&s, none, &plain, NULL, &e), -ENOENT);
    assert_non_null(strstr(e.msg, none));
    assert_null(s);
    free(file);
    free(none);
    free(root);
}

static void store_empty_is_no_error(void **state)
{
    (void)state;
    char *root = temp_dir();
    expect(root, "", "");
    free(root);
}

/* ---- 2.4: shards ---- */

static void store_joins_shards(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "a/b/m", 3);
    tree_model(root, "a/b/single-00001-of-00001.gguf", 1);
    struct store *s = scan(root);
    char *show = tree_show(s);
    assert_string_equal(show, "model 0 a/b/m <- a/b/m-00001-of-00003.gguf\n"
                              "model 0 a/b/single <- a/b/single-00001-of-00001.gguf\n");
    free(show);
    assert_int_equal(s->entry[0].n_part, 3);
    for (int i = 0; i < 3; i++) {
        char suffix[40];
        snprintf(suffix, sizeof suffix, "/a/b/m-%05d-of-00003.gguf", i + 1);
        assert_non_null(strstr(s->entry[0].part[i].path, suffix));
    }
    uint64_t sum = 0;
    for (int i = 0; i < 3; i++)
        sum += s->entry[0].part[i].id.size;
    assert_int_equal(s->entry[0].src_size, sum);
    assert_int_equal(s->entry[0].n_params, s->entry[1].n_params);
    store_free(s);
    free(root);
}

static void store_names_missing_shard(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "x/m", 3);
    tree_shards(root, "y/m", 3);
    tree_shards(root, "z/m", 3);
    tree_remove(root, "x/m-00002-of-00003.gguf");
    tree_remove(root, "y/m-00001-of-00003.gguf");
    tree_remove(root, "z/m-00003-of-00003.gguf");
    expect(root,
           "unsupported ENOENT - <- x/m-00001-of-00003.gguf\n"
           "unsupported ENOENT - <- y/m-00002-of-00003.gguf\n"
           "unsupported ENOENT - <- z/m-00001-of-00003.gguf\n",
           "ENOENT x/m-00001-of-00003.gguf: shard 2 of 3 is missing: m-00002-of-00003.gguf\n"
           "ENOENT y/m-00002-of-00003.gguf: shard 1 of 3 is missing: m-00001-of-00003.gguf\n"
           "ENOENT z/m-00001-of-00003.gguf: shard 3 of 3 is missing: m-00003-of-00003.gguf\n");
    free(root);
}

static void store_keeps_sets_of_other_counts_apart(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "a/m", 2);
    tree_shards(root, "a/m", 3);
    tree_shards(root, "a/mm", 2);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 3);
    assert_string_equal(s->entry[0].stem, "m");
    assert_int_equal(s->entry[0].n_part, 2);
    /* The other gets its digest: the same stem in one directory, and it is another file. */
    assert_int_equal(strncmp(s->entry[1].stem, "m-", 2), 0);
    assert_int_equal(strlen(s->entry[1].stem), 10);
    assert_int_equal(s->entry[1].n_part, 3);
    assert_string_equal(s->entry[2].stem, "mm");
    assert_int_equal(s->entry[0].rc | s->entry[1].rc | s->entry[2].rc, 0);
    store_free(s);
    free(root);
}

/* n files that look like a whole set, made from a set of real_n. */
static int rc_of_renamed_set(int real_n, int n, const char *says)
{
    char *root = temp_dir();
    tree_shards(root, "src/w", real_n);
    tree_dir(root, "m");
    for (int i = 0; i < n; i++) {
        char from[40], to[40];
        snprintf(from, sizeof from, "src/w-%05d-of-%05d.gguf", i % real_n + 1, real_n);
        snprintf(to, sizeof to, "m/w-%05d-of-%05d.gguf", i + 1, n);
        char *a = path_join(root, from), *b = path_join(root, to);
        assert_int_equal(link(a, b), 0);
        free(a);
        free(b);
    }
    char *m = path_join(root, "m");
    struct store *s = scan(m);
    assert_int_equal(s->n_entry, 1);
    assert_non_null(strstr(s->entry[0].why, says));
    int rc = s->entry[0].rc;
    store_free(s);
    free(m);
    free(root);
    return rc;
}

static void store_refuses_shard_keys_that_disagree(void **state)
{
    (void)state;
    assert_int_equal(rc_of_renamed_set(2, 3, "split.count"), -EUCLEAN);
    /* The keys say that there is more: then that is what is missing. */
    assert_int_equal(rc_of_renamed_set(4, 3, "split.count"), -ENOENT);
}

static void store_shard_renamed_to_a_single_file(void **state)
{
    (void)state;
    char *root = temp_dir(), *a, *b;
    tree_shards(root, "m/w", 2);
    a = path_join(root, "m/w-00001-of-00002.gguf");
    b = path_join(root, "m/alone.gguf");
    assert_int_equal(rename(a, b), 0);
    tree_remove(root, "m/w-00002-of-00002.gguf");
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 1);
    assert_int_equal(s->entry[0].rc, -ENOENT);
    free(a);
    free(b);
    store_free(s);
    free(root);
}

static void store_shard_arriving_holds_the_model_back(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "m/w", 3);
    tree_text(root, "m/w-00002-of-00003.gguf.aria2", "state");
    expect(root, "unsupported EAGAIN - <- m/w-00001-of-00003.gguf\n",
           "EAGAIN m/w-00001-of-00003.gguf: w-00002-of-00003.gguf: download in progress\n");
    free(root);
}

/* ---- 2.5: what is not a model ---- */

static void store_tells_roles_by_keys(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "o/r/model-name.gguf", 1);
    tree_projector(root, "o/r/vision.gguf");
    tree_projector(root, "o/r/mmproj-f16.gguf");
    tree_model(root, "o/r/mmproj-not.gguf", 1); /* never by the name alone */
    tree_adapter(root, "o/r/lora.gguf");
    tree_vocab(root, "o/r/vocab.gguf");
    tree_imatrix(root, "o/r/imatrix.gguf");
    expect(root,
           "imatrix 0 o/r/imatrix <- o/r/imatrix.gguf\n"
           "adapter 0 o/r/lora <- o/r/lora.gguf\n"
           "projector 0 o/r/mmproj-f16 <- o/r/mmproj-f16.gguf\n"
           "model 0 o/r/mmproj-not <- o/r/mmproj-not.gguf\n"
           "projector 0 o/r/mmproj-vision <- o/r/vision.gguf\n"
           "model 0 o/r/model-name <- o/r/model-name.gguf\n"
           "vocab 0 o/r/vocab <- o/r/vocab.gguf\n",
           "");
    free(root);
}

/* Either sign is enough for a projector: old files have no general.type. */
static void store_tells_projectors_by_either_key(void **state)
{
    (void)state;
    static const char *const arch[] = {"clip", "other"}, *const type[] = {"model", "mmproj"};
    char *root = temp_dir();
    for (int i = 0; i < 2; i++) {
        struct gguf_build *b = gguf_build_new(3, 1);
        gguf_build_str(b, "general.architecture", arch[i]);
        gguf_build_str(b, "general.type", type[i]);
        gguf_build_tensor_2d(b, "v.patch_embd.weight", 0, 32, 2);
        tree_build(root, i ? "m/type.gguf" : "m/arch.gguf", b);
        gguf_build_free(b);
    }
    expect(root,
           "projector 0 local/m/mmproj-arch <- m/arch.gguf\n"
           "projector 0 local/m/mmproj-type <- m/type.gguf\n",
           "");
    free(root);
}

/* Each malformed file of the reader's corpus is an entry with the reader's code, and the good one
 * beside them is served. */
static void store_lists_every_malformed_file(void **state)
{
    (void)state;
    char *root = temp_dir(), rel[256];
    int n = 0;
    for (size_t i = 0; i < gguf_n_bad_cases; i++) {
        const struct gguf_bad *bad = &gguf_bad_cases[i];
        if (bad->n_part > 1)
            continue;
        struct buf bytes = {0};
        uint64_t size = 0;
        bad->build(&bytes, 0, &size);
        if (bytes.len >= 4 && !memcmp(bytes.p, "GGUF", 4) && size < UINT64_C(1) << 40) {
            snprintf(rel, sizeof rel, "m/bad-%s.gguf", bad->name);
            tree_bytes(root, rel, bytes.p, bytes.len);
            if (size)
                tree_cut(root, rel, size);
            n++;
        }
        buf_free(&bytes);
    }
    tree_model(root, "m/good.gguf", 1);
    struct store *s = scan(root);
    assert_true(n > 20);
    assert_int_equal(s->n_entry, n + 1);
    for (size_t i = 0; i < s->n_entry; i++) {
        const struct store_entry *en = &s->entry[i];
        const struct gguf_bad *bad = NULL;
        for (size_t k = 0; k < gguf_n_bad_cases; k++) {
            snprintf(rel, sizeof rel, "m/bad-%s.gguf", gguf_bad_cases[k].name);
            if (!strcmp(rel, en->alias[0]))
                bad = &gguf_bad_cases[k];
        }
        if (en->rc != (bad ? bad->rc : 0) || (bad && !strstr(en->why, bad->says)))
            fail_msg("%s: %s: %s", en->alias[0], err_name(en->rc), en->why);
    }
    store_free(s);
    free(root);
}

static void store_refuses_types_by_name(void **state)
{
    (void)state;
    char *root = temp_dir();
    size_t len;
    struct gguf_build *b = tree_model_new(1);
    uint8_t *p = gguf_build_bytes(b, &len);
    p[4] = 9; /* version 9 */
    tree_bytes(root, "m/v9.gguf", p, len);
    free(p);
    gguf_build_free(b);
    b = gguf_build_new(3, 1);
    gguf_build_str(b, "general.architecture", "llama");
    tree_build(root, "m/nothing.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 2);
    assert_string_equal(s->entry[0].alias[0], "m/nothing.gguf");
    assert_int_equal(s->entry[0].rc, -ENOTSUP);
    assert_string_equal(s->entry[0].why, "no tensors and no tokenizer");
    assert_int_equal(s->entry[1].rc, -ENOTSUP);
    assert_int_equal(s->entry[1].role, STORE_UNSUPPORTED);
    assert_non_null(strstr(s->entry[1].why, "version 9"));
    assert_null(strstr(s->entry[1].why, root)); /* the path has its own column */
    store_free(s);
    free(root);
}

/* What the profile cannot carry is refused by the mount's scan, and listed without a plan. */
static void store_plan_decides_what_is_served(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    gguf_build_tensor_retype(b, "blk.0.ffn_up.weight", 24); /* I8 */
    tree_build(root, "m/i8.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->entry[0].rc, -ENOTSUP);
    assert_int_equal(s->entry[0].role, STORE_UNSUPPORTED);
    assert_non_null(strstr(s->entry[0].why, "blk.0.ffn_up.weight"));
    assert_int_equal(s->n_problem, 1);
    store_free(s);
    struct store_options list = plain;
    list.plan = false;
    s = scan_with(root, &list);
    assert_int_equal(s->entry[0].rc, 0);
    assert_int_equal(s->entry[0].size, 0);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], NULL), -ENOTSUP);
    store_free(s);
    free(root);
}

static void store_entry_has_facts(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/a.gguf", 1);
    struct store *s = scan(root);
    const struct store_entry *en = &s->entry[0];
    struct stat st;
    assert_int_equal(stat(en->part[0].path, &st), 0);
    assert_string_equal(en->arch, "qwen2");
    assert_string_equal(en->quant, "F32"); /* general.file_type 0 */
    assert_int_equal(en->n_ctx_train, 256);
    assert_int_equal(en->src_size, st.st_size);
    assert_int_equal(en->part[0].id.ino, st.st_ino);
    assert_int_equal(store_entry_mtime_ns(en),
                     st.st_mtim.tv_sec * INT64_C(1000000000) + st.st_mtim.tv_nsec);
    assert_int_equal(en->tokenizer_rc, 0);
    assert_int_equal(en->shown_ino, name_inode("local/m/a.apr", en->head_sha256));
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, en, NULL), 0);
    assert_int_equal(vapr_size(p->vapr), en->size);
    assert_true(en->size > en->src_size / 2);
    uint64_t n = 0;
    for (size_t i = 0; i < gguf_n_tensor(p->gguf); i++) {
        const struct gguf_tensor *t = gguf_tensor(p->gguf, i);
        n += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    assert_int_equal(en->n_params, n);
    store_plan_close(p);
    store_free(s);
    free(root);
}

static void store_tells_why_there_is_no_tokenizer_json(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    tree_build(root, "m/spm.gguf", b);
    gguf_build_free(b);
    expect(root, "model 0 local/m/spm <- m/spm.gguf\n",
           "ENOENT m/spm.gguf: no tokenizer.json: not written for tokenizers of type 'llama', only "
           "for 'gpt2'\n");
    free(root);
}

/* ---- 5: names ---- */

static void store_names_generic_files_by_metadata(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    gguf_build_str(b, "general.basename", "Qwen2.5");
    gguf_build_str(b, "general.size_label", "0.5B");
    gguf_build_str(b, "general.finetune", "Instruct");
    gguf_build_u32(b, "general.file_type", 15);
    tree_build(root, "model.gguf", b);
    tree_build(root, "x/0123456789abcdef", b);
    gguf_build_remove(b, "general.basename");
    gguf_build_remove(b, "general.name");
    tree_build(root, "o/Repo/ggml-model-f32.gguf", b);
    gguf_build_free(b);
    expect(root,
           "model 0 local/Qwen2.5-0.5B-Instruct-Q4_K_M/Qwen2.5-0.5B-Instruct-Q4_K_M <- model.gguf\n"
           "model 0 local/x/Qwen2.5-0.5B-Instruct-Q4_K_M <- x/0123456789abcdef\n"
           "model 0 o/Repo/Repo-Q4_K_M <- o/Repo/ggml-model-f32.gguf\n",
           "");
    free(root);
}

static void store_one_file_twice_is_one_entry(void **state)
{
    (void)state;
    char *root = temp_dir(), *a, *b;
    tree_model(root, "m/Alpha.gguf", 1);
    a = path_join(root, "m/Alpha.gguf");
    b = path_join(root, "m/alpha.gguf");
    assert_int_equal(link(a, b), 0);
    tree_link(root, "m/ALPHA.bin.gguf", "Alpha.gguf"); /* another stem: its own entry */
    expect(root,
           "model 0 local/m/ALPHA.bin <- m/ALPHA.bin.gguf\n"
           "model 0 local/m/Alpha <- m/Alpha.gguf|m/alpha.gguf\n",
           "");
    free(a);
    free(b);
    free(root);
}

/* Equal headers, other weights: both must stay visible. */
static void store_equal_headers_are_two_entries(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/Alpha.gguf", 1);
    tree_model(root, "m/aLPHA.gguf", 2);
    struct store *s = scan(root);
    char hex[NAME_HEX], stem[NAME_SIZE];
    assert_int_equal(s->n_entry, 2);
    assert_memory_equal(s->entry[0].head_sha256, s->entry[1].head_sha256, NAME_ID_SIZE);
    name_hex(hex, s->entry[1].head_sha256);
    snprintf(stem, sizeof stem, "aLPHA-%.8s", hex);
    assert_string_equal(s->entry[0].stem, "Alpha");
    assert_string_equal(s->entry[1].stem, stem);
    assert_int_not_equal(s->entry[0].shown_ino, s->entry[1].shown_ino);
    store_free(s);
    free(root);
}

static void store_identity_has_the_size(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct gguf_build *b = tree_model_new(1);
    tree_build(root, "m/a.gguf", b);
    gguf_build_gap(b, 0, 32); /* bytes behind the last tensor: the same header, another size */
    tree_build(root, "m/b.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 2);
    assert_int_equal(s->entry[1].src_size - s->entry[0].src_size, 32);
    assert_memory_not_equal(s->entry[0].head_sha256, s->entry[1].head_sha256, NAME_ID_SIZE);
    store_free(s);
    free(root);
}

static void store_parts_models_with_other_siblings(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "o/r/b-1.gguf", 1);
    tree_model(root, "o/r/b-2.gguf", 2);
    struct gguf_build *b = tree_model_new(3);
    gguf_build_u32(b, "qwen2.context_length", 512);
    tree_build(root, "o/r/c.gguf", b);
    gguf_build_free(b);
    struct store *s = scan(root);
    char hex[NAME_HEX], dir[NAME_SIZE];
    assert_int_equal(s->n_entry, 3);
    assert_string_equal(s->entry[0].model, "r");
    assert_string_equal(s->entry[1].model, "r");
    assert_memory_equal(s->entry[0].sibling_sha256, s->entry[1].sibling_sha256, NAME_ID_SIZE);
    name_hex(hex, s->entry[2].sibling_sha256);
    snprintf(dir, sizeof dir, "r-%.8s", hex);
    assert_string_equal(s->entry[2].model, dir);
    assert_string_equal(s->entry[2].stem, "c");
    store_free(s);
    free(root);
}

static void store_cleans_hostile_names(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a\nb/c\td/-x \xff.gguf", 1);
    struct store *s = scan(root);
    assert_int_equal(s->n_entry, 1);
    assert_string_equal(s->entry[0].publisher, "a_b");
    assert_string_equal(s->entry[0].model, "c_d");
    assert_string_equal(s->entry[0].stem, "_-x_");
    store_free(s);
    free(root);
}

/* ---- 6: what is not whole, what changes ---- */

static void store_download_in_progress(void **state)
{
    (void)state;
    static const char *const rel[] = {"a.gguf.part", "b.gguf.tmp", "c.gguf.crdownload",
                                      "d.gguf.downloadInProgress"};
    char *root = temp_dir();
    for (size_t i = 0; i < 4; i++)
        tree_model(root, rel[i], 1);
    tree_model(root, "e.gguf", 1);
    tree_text(root, "e.gguf.aria2", "state");
    tree_text(root, "f.gguf.part", ""); /* not a byte yet */
    tree_model(root, "g.tmp", 1);
    tree_text(root, "unrelated.tmp", "not ours");
    tree_text(root, "unrelated.aria2", "not ours");
    expect(root, NULL,
           "EAGAIN a.gguf.part: download in progress\n"
           "EAGAIN b.gguf.tmp: download in progress\n"
           "EAGAIN c.gguf.crdownload: download in progress\n"
           "EAGAIN d.gguf.downloadInProgress: download in progress\n"
           "EAGAIN e.gguf: download in progress\n"
           "EAGAIN f.gguf.part: download in progress\n"
           "EAGAIN g.tmp: download in progress\n");
    free(root);
}

static void store_copy_in_progress_says_both_numbers(void **state)
{
    (void)state;
    char *root = temp_dir(), need[64];
    tree_model(root, "m/head.gguf", 1);
    tree_model(root, "m/data.gguf", 1);
    struct store *s = scan(root);
    uint64_t size = s->entry[0].src_size;
    store_free(s);
    tree_cut(root, "m/head.gguf", 100);
    tree_cut(root, "m/data.gguf", size - 1);
    s = scan(root);
    assert_int_equal(s->n_entry, 2);
    assert_string_equal(s->entry[0].alias[0], "m/data.gguf");
    for (int i = 0; i < 2; i++) {
        assert_int_equal(s->entry[i].rc, -EAGAIN);
        assert_non_null(strstr(s->entry[i].why, "needs "));
    }
    snprintf(need, sizeof need, "has %llu", (unsigned long long)size - 1);
    assert_non_null(strstr(s->entry[0].why, need));
    assert_non_null(strstr(s->entry[1].why, "has 100"));
    store_free(s);
    free(root);
}

static void store_warns_of_holes(void **state)
{
    (void)state;
    char *root = temp_dir(), *path = path_join(root, "m/hole.gguf");
    tree_dir(root, "m");
    size_t len;
    struct gguf_build *b = tree_model_new(1);
    uint8_t *p = gguf_build_bytes(b, &len);
    gguf_build_free(b);
    /* Full size, but all beyond the first 64 KiB never written. */
    int fd = open(path, O_RDWR | O_CREAT, 0644);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, 65536), 65536);
    assert_int_equal(ftruncate(fd, (off_t)len), 0);
    off_t hole = lseek(fd, 0, SEEK_HOLE);
    close(fd);
    free(p);
    if (hole < 0 || (size_t)hole >= len)
        skip_because("this file system does not tell holes");
    struct store *s = scan(root);
    assert_int_equal(s->entry[0].rc, 0);
    assert_int_equal(s->entry[0].role, STORE_MODEL);
    assert_int_equal(s->n_problem, 1);
    assert_int_equal(s->problem[0].rc, 0);
    assert_string_equal(s->problem[0].dir, "local/m");
    assert_non_null(strstr(s->problem[0].why, "a hole at byte "));
    /* A warning is remembered with the rest. */
    struct store *again = NULL;
    assert_int_equal(store_scan(&again, root, &plain, s, NULL), 0);
    assert_int_equal(again->n_parsed, 0);
    assert_true(store_equal(s, again));
    store_free(again);
    store_free(s);
    free(path);
    free(root);
}

static void store_scan_is_pure(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "b/x.gguf", 1);
    tree_model(root, "b/X.gguf", 2);
    tree_shards(root, "a/m", 2);
    tree_text(root, "z.gguf", "junk");
    struct store *a = scan(root), *b = scan(root);
    assert_true(store_equal(a, b));
    assert_int_equal(a->n_parsed, 3);
    store_free(a);
    store_free(b);
    free(root);
}

static void store_rescan_parses_only_what_changed(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/a.gguf", 1);
    tree_model(root, "m/b.gguf", 2);
    tree_cut(root, "m/b.gguf", 1000);
    struct store *first = scan(root), *same = NULL, *grown = NULL;
    assert_int_equal(first->n_parsed, 2);
    assert_int_equal(store_scan(&same, root, &plain, first, NULL), 0);
    assert_int_equal(same->n_parsed, 0);
    assert_true(store_equal(first, same));
    tree_model(root, "m/b.gguf", 2); /* the copy ends */
    tree_model(root, "m/c.gguf", 3);
    assert_int_equal(store_scan(&grown, root, &plain, same, NULL), 0);
    assert_int_equal(grown->n_parsed, 2);
    assert_false(store_equal(same, grown));
    char *show = tree_show(grown);
    assert_string_equal(show, "model 0 local/m/a <- m/a.gguf\nmodel 0 local/m/b <- m/b.gguf\n"
                              "model 0 local/m/c <- m/c.gguf\n");
    free(show);
    /* Other options: nothing of it counts. */
    struct store_options strict = plain;
    struct store *other = NULL;
    strict.vapr.profile = VAPR_STRICT;
    assert_int_equal(store_scan(&other, root, &strict, grown, NULL), 0);
    assert_int_equal(other->n_parsed, 3);
    store_free(other);
    store_free(grown);
    store_free(same);
    store_free(first);
    free(root);
}

/* The lowest free descriptor: the same before and after, or something was left open. */
static int next_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

/* Whoever waits for a reader of the pipe waits on: a scan does not open what a link leads to before
 * it knows what that is. */
static void store_plain_pipe_behind_a_link_is_not_opened(void **state)
{
    (void)state;
    char *root = temp_dir(), *data = temp_dir(), *pipe = path_join(data, "pipe");
    assert_int_equal(mkfifo(pipe, 0644), 0);
    tree_link(root, "q.gguf", pipe);
    int in = inotify_init1(IN_NONBLOCK);
    assert_true(in >= 0 && inotify_add_watch(in, data, IN_OPEN) >= 0);
    store_free(scan(root));
    char events[4096];
    assert_int_equal(read(in, events, sizeof events), -1);
    assert_int_equal(errno, EAGAIN);
    int fd = open(pipe, O_RDONLY | O_NONBLOCK); /* so it would have been seen */
    assert_true(read(in, events, sizeof events) > 0);
    close(fd);
    close(in);
    free(pipe);
    free(data);
    free(root);
}

/* With few descriptors left a scan succeeds or fails; it never says that files are not readable. */
static void store_scan_without_descriptors_fails(void **state)
{
    (void)state;
    char *root = temp_dir();
    struct rlimit was, few;
    tree_model(root, "a/b/one.gguf", 1);
    tree_model(root, "two.gguf", 2);
    struct store_options opt = {.kind = STORE_PLAIN, .plan = true};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    int first = next_fd(), n_failed = 0, n_whole = 0;
    for (int spare = 0; spare < 12; spare++) {
        struct store *s = NULL;
        struct err e = {0};
        few = was;
        few.rlim_cur = (rlim_t)(first + spare);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        int rc = store_scan(&s, root, &opt, NULL, &e);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
        if (rc < 0) {
            assert_int_equal(rc, -EMFILE);
            n_failed++;
            continue;
        }
        assert_int_equal(s->n_entry, 2);
        assert_true(s->entry[0].rc == 0 && s->entry[1].rc == 0);
        store_free(s);
        n_whole++;
    }
    assert_true(n_failed > 2 && n_whole > 2);
    free(root);
}

static void store_scan_leaves_no_descriptor_open(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "a/b/good.gguf", 1);
    tree_shards(root, "a/s", 3);
    tree_text(root, "a/bad.gguf", "GGUF and nothing else");
    tree_text(root, "junk", "x");
    tree_link(root, "loop", ".");
    tree_model(root, "1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/out.gguf", 1);
    int before = next_fd();
    struct store *s = scan(root);
    struct store_plan *p = NULL;
    assert_int_equal(next_fd(), before); /* and none while the store is held */
    for (size_t i = 0; i < s->n_entry; i++)
        if (store_plan_open(&p, s, &s->entry[i], NULL) == 0)
            store_plan_close(p);
    assert_int_equal(next_fd(), before);
    store_free(s);
    free(root);
}

static void store_plan_refuses_another_file(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_model(root, "m/a.gguf", 1);
    struct store *s = scan(root);
    struct store_plan *p = NULL;
    struct err e;
    tree_model(root, "m/new", 2); /* equal header and size, other weights */
    char *from = path_join(root, "m/new"), *to = path_join(root, "m/a.gguf");
    assert_int_equal(rename(from, to), 0);
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], &e), -ESTALE);
    assert_non_null(strstr(e.msg, "m/a.gguf: changed since the store was scanned"));
    assert_int_equal(unlink(to), 0);
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], &e), -ENOENT);
    assert_null(p);
    free(from);
    free(to);
    store_free(s);
    free(root);
}

static void store_plan_keeps_its_descriptors(void **state)
{
    (void)state;
    char *root = temp_dir();
    tree_shards(root, "m/w", 2);
    struct store *s = scan(root);
    struct store_plan *p = NULL;
    assert_int_equal(store_plan_open(&p, s, &s->entry[0], NULL), 0);
    assert_int_equal(p->n_part, 2);
    uint64_t size = vapr_size(p->vapr);
    store_free(s); /* the plan stands alone */
    tree_remove(root, "m/w-00001-of-00002.gguf");
    uint8_t *bytes = malloc(size);
    size_t got = 0;
    assert_int_equal(vapr_read(p->vapr, bytes, 0, size, &got, NULL), 0);
    assert_int_equal(got, size);
    assert_memory_equal(bytes, "APR", 3);
    free(bytes);
    store_plan_close(p);
    store_plan_close(NULL);
    free(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(store_plain_maps_depth_to_two_levels),
        cmocka_unit_test(store_plain_takes_any_suffix_by_magic),
        cmocka_unit_test(store_plain_names_false_models),
        cmocka_unit_test(store_plain_stops_at_depth_16),
        cmocka_unit_test(store_plain_skips_dot_directories),
        cmocka_unit_test(store_plain_follows_links_to_files),
        cmocka_unit_test(store_plain_names_links_to_directories),
        cmocka_unit_test(store_plain_names_dangling_links),
        cmocka_unit_test(store_plain_root_may_be_a_link),
        cmocka_unit_test(store_plain_pipe_does_not_hang),
        cmocka_unit_test(store_resolve_beneath_refuses_links_that_leave),
        cmocka_unit_test(store_names_what_is_not_readable),
        cmocka_unit_test(store_root_not_readable_names_its_owner),
        cmocka_unit_test(store_root_must_be_a_directory),
        cmocka_unit_test(store_empty_is_no_error),
        cmocka_unit_test(store_joins_shards),
        cmocka_unit_test(store_names_missing_shard),
        cmocka_unit_test(store_keeps_sets_of_other_counts_apart),
        cmocka_unit_test(store_refuses_shard_keys_that_disagree),
        cmocka_unit_test(store_shard_renamed_to_a_single_file),
        cmocka_unit_test(store_shard_arriving_holds_the_model_back),
        cmocka_unit_test(store_tells_roles_by_keys),
        cmocka_unit_test(store_tells_projectors_by_either_key),
        cmocka_unit_test(store_lists_every_malformed_file),
        cmocka_unit_test(store_refuses_types_by_name),
        cmocka_unit_test(store_plan_decides_what_is_served),
        cmocka_unit_test(store_entry_has_facts),
        cmocka_unit_test(store_tells_why_there_is_no_tokenizer_json),
        cmocka_unit_test(store_names_generic_files_by_metadata),
        cmocka_unit_test(store_one_file_twice_is_one_entry),
        cmocka_unit_test(store_equal_headers_are_two_entries),
        cmocka_unit_test(store_identity_has_the_size),
        cmocka_unit_test(store_parts_models_with_other_siblings),
        cmocka_unit_test(store_cleans_hostile_names),
        cmocka_unit_test(store_download_in_progress),
        cmocka_unit_test(store_copy_in_progress_says_both_numbers),
        cmocka_unit_test(store_warns_of_holes),
        cmocka_unit_test(store_scan_is_pure),
        cmocka_unit_test(store_rescan_parses_only_what_changed),
        cmocka_unit_test(store_plain_pipe_behind_a_link_is_not_opened),
        cmocka_unit_test(store_scan_without_descriptors_fails),
        cmocka_unit_test(store_scan_leaves_no_descriptor_open),
        cmocka_unit_test(store_plan_refuses_another_file),
        cmocka_unit_test(store_plan_keeps_its_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
