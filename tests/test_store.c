/* Plain folders: each case of the design of stores, sections 2.3 and 6. Expected trees follow from the
 * rules there; sizes from the files the test wrote. */
#include "format/store.h"
#include "tests/store_build.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct store_options plain = {.kind = STORE_AUTO, .plan = true};

static struct store *scan(const char *root)
{
    return tree_scan(root, &plain);
}

static void expect(const char *root, const char *entries, const char *problems)
{
    tree_expect(root, &plain, entries, problems);
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
    struct store *probe = tree_scan(root, &opt);
    bool have = probe->n_entry > 0 && probe->entry[0].rc != -ENOSYS;
    store_free(probe);
    if (!have)
        skip_because("this kernel has no openat2");
    tree_expect(root, &opt,
                "model 0 local/a/in <- a/in.gguf\n"
                "model 0 local/b/inside <- b/inside.gguf\n"
                "unsupported EXDEV - <- b/outside.gguf\n",
                "ELOOP b/dir: a link to a directory: not followed; name the directory as a "
                "source\n"
                "EXDEV b/other: a link that leaves the store (resolve=beneath)\n"
                "EXDEV b/outside.gguf: a link that leaves the store (resolve=beneath)\n");
    /* The same when it is opened later. */
    struct store *s = tree_scan(root, &opt);
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

/* With few descriptors left a scan succeeds or fails; it never says that files are not readable, nor
 * takes a store for another or a file for another's. */
static void scan_with_few_descriptors(const char *root)
{
    struct rlimit was, few;
    struct store_options opt = {.kind = STORE_AUTO, .plan = true};
    struct store *want = tree_scan(root, &opt);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &was), 0);
    int first = next_fd(), n_failed = 0, n_whole = 0;
    for (int spare = 0; spare < 16; spare++) {
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
        assert_int_equal(s->kind, want->kind);
        assert_true(store_equal(s, want));
        store_free(s);
        n_whole++;
    }
    assert_true(n_failed > 2 && n_whole > 2);
    store_free(want);
}

static void store_scan_without_descriptors_fails(void **state)
{
    (void)state;
    char *plain_root = temp_dir(), *flat = temp_dir(), *hub = temp_dir();
    tree_model(plain_root, "a/b/one.gguf", 1);
    tree_model(plain_root, "two.gguf", 2);
    scan_with_few_descriptors(plain_root);
    tree_model(flat, "o_r_one.gguf", 1);
    tree_text(flat, "o_r_one.gguf.json",
              "{\"url\":\"https://huggingface.co/o/r/resolve/main/one.gguf\"}");
    tree_text(flat, "manifest=x=y=latest.json", "{\"ggufFile\":{\"rfilename\":\"two.gguf\"}}");
    tree_model(flat, "x_y_two.gguf", 2);
    scan_with_few_descriptors(flat);
    tree_hub_model(hub, "models--o--r", TREE_COMMIT_A, "m.gguf", 1);
    tree_dir(hub, "models--o--r/snapshots/" TREE_COMMIT_B "/a/b/c/d");
    tree_hub_ref(hub, "models--o--r", "main", TREE_COMMIT_B);
    scan_with_few_descriptors(hub);
    free(plain_root);
    free(flat);
    free(hub);
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

/* ---- a file replaced while it is read ---- */

struct replacer {
    char *from, *to; /* a good file beside the store; the name in it */
    char *spare;
    atomic_int scan;     /* the scan that runs; -1: no more */
    atomic_int ready;    /* the scan that a copy is ready for; -1: failed */
    atomic_long scan_us; /* how long the last one took */
    int n;
};

static int copy_small(const char *from, const char *to)
{
    static char buf[1 << 20];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    size_t n = in && out ? fread(buf, 1, sizeof buf, in) : 0;
    bool ok = n > 0 && n < sizeof buf && fwrite(buf, 1, n, out) == n;
    if (in)
        fclose(in);
    return out && fclose(out) == 0 && ok ? 0 : -1;
}

/* Renames a copy over one name once in each scan, at a moment of its own: there is a whole model at
 * every moment, and a scan that reads it anew finds it whole. */
static void *replace_again(void *ctx)
{
    struct replacer *r = ctx;
    unsigned seed = 1;
    int done = 0, scan;
    while ((scan = atomic_load(&r->scan)) >= 0) {
        if (scan == done) {
            usleep(20);
            continue;
        }
        done = scan;
        bool copied = copy_small(r->from, r->spare) == 0;
        atomic_store(&r->ready, copied ? scan : -1);
        if (!copied)
            return "cannot write";
        usleep((useconds_t)(rand_r(&seed) % (unsigned)(atomic_load(&r->scan_us) + 1)));
        if (rename(r->spare, r->to) < 0) {
            atomic_store(&r->ready, -1);
            return "cannot rename";
        }
        r->n++;
    }
    return NULL;
}

static long now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

static void store_shows_a_file_that_is_replaced_while_it_is_read(void **state)
{
    (void)state;
    char *root = temp_dir(), *beside = temp_dir();
    struct replacer r = {0};
    pthread_t t;
    void *why = NULL;
    tree_model(root, "m.gguf", 1);
    tree_model(beside, "m.gguf", 1);
    assert_true(asprintf(&r.from, "%s/m.gguf", beside) > 0);
    assert_true(asprintf(&r.to, "%s/m.gguf", root) > 0);
    assert_true(asprintf(&r.spare, "%s/new", beside) > 0);
    assert_int_equal(pthread_create(&t, NULL, replace_again, &r), 0);
    int hidden = 0;
    for (int i = 0; i < 400; i++) {
        atomic_store(&r.scan, i + 1);
        while (atomic_load(&r.ready) != i + 1 && atomic_load(&r.ready) >= 0)
            usleep(20);
        long from = now_us();
        struct store *s = scan(root);
        atomic_store(&r.scan_us, now_us() - from);
        hidden += s->n_entry != 1 || s->entry[0].rc != 0;
        store_free(s);
    }
    atomic_store(&r.scan, -1);
    pthread_join(t, &why);
    assert_null(why);
    assert_int_equal(r.n, 400);
    assert_int_equal(hidden, 0);
    free(r.from);
    free(r.to);
    free(r.spare);
    free(root);
    free(beside);
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
        cmocka_unit_test(store_shows_a_file_that_is_replaced_while_it_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
