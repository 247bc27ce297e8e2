/* Verdicts on disk: what is kept is found again under the same key only, and nothing that somebody
 * else could have put there is believed. */
#include "infer/build_id.h"
#include "infer/verdict.h"
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* printf 'aprd verdict 1\nmodel 1111(64 digits)\ndevice Card, sm_90\nbuild abcd\nroute r\n
 *   probe 2222(64 digits)\n' | sha256sum   (coreutils 9.1) */
#define KEY_NAME "01bc45c060c13744a7a41313e8a4357d72a2bfaeb1c26d186c216cf6c400ac0a"

static const uint8_t build[2] = {0xab, 0xcd};
static const uint8_t other_build[2] = {0xab, 0xce};

static struct verdict_key key(void)
{
    struct verdict_key k = {.device = "Card, sm_90",
                            .route = "r",
                            .n_pos = 256,
                            .build = build,
                            .build_len = sizeof build};
    memset(k.model, 0x11, sizeof k.model);
    memset(k.probe, 0x22, sizeof k.probe);
    return k;
}

static struct probe_result pass(void)
{
    struct probe_result r = {.n = 256, .n_done = 256, .n_equal = 255, .bad_layer = -1};
    r.metric[PROBE_NMSE] = (struct probe_value){.worst = 3.25e-13, .pos = 187};
    r.metric[PROBE_COSINE] = (struct probe_value){.worst = 1.0 / 3 * 1e-13, .pos = 12};
    r.metric[PROBE_GREEDY] = (struct probe_value){.worst = 1e-5, .pos = 255};
    return r;
}

/* A fresh cache folder for one test. */
struct cache {
    char *root, *folder, *file;
};

static struct cache cache_new(void)
{
    struct cache c = {.root = temp_dir()};
    c.folder = path_join(c.root, "aprd/verdicts");
    c.file = path_join(c.folder, KEY_NAME);
    setenv("XDG_CACHE_HOME", c.root, 1);
    return c;
}

static void cache_free(struct cache *c)
{
    free(c->root);
    free(c->folder);
    free(c->file);
}

static void store(const struct verdict_key *k)
{
    struct probe_result r = pass();
    struct err e = {0};
    if (verdict_store(k, &r, &e) < 0)
        fail_msg("store: %s", e.msg);
}

static int load(const struct verdict_key *k)
{
    struct probe_result r = {.n = 7};
    struct err e = {0};
    int rc = verdict_load(k, &r, &e);
    if (rc < 0) {
        assert_int_equal(r.n, 7); /* untouched */
        assert_true(e.msg[0]);
        assert_int_equal(e.code, rc);
    }
    return rc;
}

static void verdict_load_finds_what_was_stored(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    struct probe_result r, want = pass();
    struct err e = {0};
    assert_int_equal(load(&k), -ENOENT); /* not even a folder */
    store(&k);
    assert_int_equal(verdict_load(&k, &r, &e), 0);
    assert_int_equal(r.n, 256);
    assert_int_equal(r.n_done, 256);
    assert_int_equal(r.n_equal, 255);
    assert_int_equal(r.bad_layer, -1);
    for (int m = 0; m < PROBE_N_METRIC; m++) {
        assert_true(r.metric[m].worst == want.metric[m].worst);
        assert_int_equal(r.metric[m].pos, want.metric[m].pos);
        assert_int_equal(r.metric[m].n_bad, 0);
    }
    store(&k); /* over the old one */
    assert_int_equal(load(&k), 0);
    cache_free(&c);
}

static void verdict_store_names_the_file_by_its_key(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    struct stat st;
    store(&k);
    DIR *d = opendir(c.folder);
    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));)
        if (strcmp(f->d_name, ".") != 0 && strcmp(f->d_name, "..") != 0)
            assert_string_equal(f->d_name, KEY_NAME); /* and nothing half-written is left */
    closedir(d);
    assert_int_equal(stat(c.file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(stat(c.folder, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    cache_free(&c);
}

/* Every part of the key, one at a time: not found, and if its file is put there, not believed. */
static void verdict_load_refuses_the_verdict_of_another_key(void **state)
{
    (void)state;
    struct verdict_key other[5];
    for (int i = 0; i < 5; i++)
        other[i] = key();
    other[0].model[31] ^= 1;
    other[1].device = "Card, sm_89";
    other[2].build = other_build;
    other[3].route = "s";
    other[4].probe[0] ^= 1;
    for (int i = 0; i < 5; i++) {
        struct cache c = cache_new();
        struct verdict_key k = key();
        store(&other[i]);
        assert_int_equal(load(&k), -ENOENT);
        DIR *d = opendir(c.folder);
        char *name = NULL;
        for (struct dirent *f; (f = readdir(d));)
            if (f->d_name[0] != '.')
                name = path_join(c.folder, f->d_name);
        closedir(d);
        assert_non_null(name);
        assert_int_equal(rename(name, c.file), 0);
        assert_int_equal(load(&k), -EUCLEAN);
        free(name);
        cache_free(&c);
    }
}

static void verdict_load_refuses_every_changed_byte(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    store(&k);
    size_t n;
    uint8_t *p = file_read(c.file, &n);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) {
        p[i] ^= 0x20;
        file_write(c.file, p, n);
        int rc = load(&k);
        /* 1e-5 and 1E-5 are one number: the bytes must be the same all the same */
        if (rc != -EUCLEAN)
            fail_msg("byte %zu (0x%02x) of %zu: %d", i, p[i], n, rc);
        p[i] ^= 0x20;
    }
    for (size_t i = 0; i < n; i++) {
        file_write(c.file, p, i);
        assert_int_equal(load(&k), -EUCLEAN);
    }
    file_write(c.file, p, n);
    assert_int_equal(load(&k), 0);
    free(p);
    cache_free(&c);
}

/* The stored text with one piece replaced. */
static void store_with(const struct cache *c, const char *old, const char *new)
{
    struct verdict_key k = key();
    char text[8192];
    size_t n;
    unlink(c->file);
    store(&k);
    uint8_t *p = file_read(c->file, &n);
    char *at = memmem(p, n, old, strlen(old));
    assert_non_null(at);
    size_t head = (size_t)(at - (char *)p), tail = n - head - strlen(old);
    memcpy(text, p, head);
    memcpy(text + head, new, strlen(new));
    memcpy(text + head + strlen(new), at + strlen(old), tail);
    file_write(c->file, text, head + strlen(new) + tail);
    free(p);
}

static void verdict_load_refuses_what_is_no_pass(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"nmse ", "nmse +"},                              /* a number, but not as %.17g writes it */
        {"positions 256", "positions 0"},                 /* nothing was compared */
        {"positions 256", "positions 187"},               /* the worst one is outside */
        {"positions 256", "positions 257"},               /* the probe has fewer */
        {"equal 255", "equal 257"},                       /* more than all */
        {"kl 0 0", "kl nan 0"},                           /* no number */
        {"kl 0 0", "kl 1 0"},                             /* beyond the limit */
        {"kl 0 0", "kl -1 0"},                            /* cannot be */
        {"kl 0 0", "kl 0x0 0"},                           /* not as written */
        {"kl 0 0", "KL 0 0"},                             /* another word */
        {"kl 0 0\n", ""},                                 /* a metric less */
        {"greedy 1.0000000000000001e-05", "greedy 0.01"}, /* beyond the limit */
        {"\npassed\n", "\nrefused\n"},
        {"\npassed\n", "\npassed\npassed\n"},
    };
    struct cache c = cache_new();
    struct verdict_key k = key();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        store_with(&c, cases[i][0], cases[i][1]);
        int rc = load(&k);
        if (rc != -EUCLEAN)
            fail_msg("%s: %d", cases[i][1], rc);
    }
    store_with(&c, "kl 0 0", "kl 9e-09 0"); /* not %.17g of 9e-9 */
    assert_int_equal(load(&k), -EUCLEAN);
    store_with(&c, "kl 0 0", "kl 8.9999999999999995e-09 0"); /* %.17g of it, within the limit */
    assert_int_equal(load(&k), 0);
    cache_free(&c);
}

static void verdict_load_refuses_what_is_no_file_of_ours(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    char *aside = path_join(c.root, "aside");
    store(&k);
    assert_int_equal(rename(c.file, aside), 0);
    assert_int_equal(symlink(aside, c.file), 0);
    assert_int_equal(load(&k), -ELOOP);
    assert_int_equal(unlink(c.file), 0);
    assert_int_equal(mkfifo(c.file, 0600), 0);
    assert_int_equal(load(&k), -EUCLEAN); /* and did not wait for a writer */
    assert_int_equal(unlink(c.file), 0);
    assert_int_equal(mkdir(c.file, 0700), 0);
    assert_int_equal(load(&k), -EUCLEAN);
    assert_int_equal(rmdir(c.file), 0);
    assert_int_equal(rename(aside, c.file), 0);
    assert_int_equal(load(&k), 0);
    assert_int_equal(chmod(c.file, 0620), 0);
    assert_int_equal(load(&k), -EPERM);
    assert_int_equal(chmod(c.file, 0602), 0);
    assert_int_equal(load(&k), -EPERM);
    assert_int_equal(chmod(c.file, 0600), 0);
    assert_int_equal(truncate(c.file, 1 << 20), 0);
    assert_int_equal(load(&k), -EUCLEAN);
    free(aside);
    cache_free(&c);
}

static void verdict_load_refuses_another_users(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip_because("only root can give files away");
    struct cache c = cache_new();
    struct verdict_key k = key();
    store(&k);
    assert_int_equal(chown(c.file, 1, 1), 0);
    assert_int_equal(load(&k), -EPERM);
    assert_int_equal(chown(c.file, 0, 0), 0);
    assert_int_equal(chown(c.folder, 1, 1), 0);
    assert_int_equal(load(&k), -EPERM);
    cache_free(&c);
}

static void verdict_refuses_a_folder_that_others_can_write(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    struct probe_result r = pass();
    struct err e = {0};
    store(&k);
    assert_int_equal(chmod(c.folder, 0777), 0);
    assert_int_equal(load(&k), -EPERM);
    assert_int_equal(verdict_store(&k, &r, &e), -EPERM);
    assert_int_equal(chmod(c.folder, 0700), 0);
    assert_int_equal(load(&k), 0);
    char *aprd = path_join(c.root, "aprd"), *aside = path_join(c.root, "aside");
    assert_int_equal(rename(aprd, aside), 0);
    assert_int_equal(symlink(aside, aprd), 0);
    assert_true(load(&k) < 0);
    assert_true(verdict_store(&k, &r, &e) < 0);
    free(aprd);
    free(aside);
    cache_free(&c);
}

static void verdict_store_says_why_it_cannot(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    struct probe_result r = pass();
    struct err e = {0};
    char *file = path_join(c.root, "file");
    file_write(file, "x", 1);
    setenv("XDG_CACHE_HOME", file, 1);
    assert_int_equal(verdict_store(&k, &r, &e), -ENOTDIR);
    assert_non_null(strstr(e.msg, file));
    setenv("XDG_CACHE_HOME", "/proc/aprd-no-such-folder", 1); /* no folder can be made there */
    assert_true(verdict_store(&k, &r, &e) < 0);
    free(file);
    cache_free(&c);
}

/* XDG Base Directory Specification 0.8: unset or empty: $HOME/.cache; relative: ignored. */
static void verdict_folder_follows_xdg(void **state)
{
    (void)state;
    static const char *const unusable[] = {NULL, "", "cache", "./cache"};
    char *old_home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    struct verdict_key k = key();
    for (size_t i = 0; i < sizeof unusable / sizeof unusable[0]; i++) {
        struct cache c = cache_new();
        char *file = path_join(c.root, ".cache/aprd/verdicts/" KEY_NAME);
        setenv("HOME", c.root, 1);
        if (unusable[i])
            setenv("XDG_CACHE_HOME", unusable[i], 1);
        else
            unsetenv("XDG_CACHE_HOME");
        store(&k);
        assert_int_equal(access(file, F_OK), 0);
        assert_int_equal(load(&k), 0);
        free(file);
        cache_free(&c);
    }
    struct probe_result r = pass();
    struct err e = {0};
    unsetenv("HOME");
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    assert_int_equal(load(&k), -EINVAL);
    if (old_home)
        setenv("HOME", old_home, 1);
    free(old_home);
}

static void verdict_store_keeps_passes_only(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key();
    struct err e = {0};
    struct probe_result r = pass();
    r.metric[PROBE_KL].n_bad = 1;
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    r = pass();
    r.metric[PROBE_GREEDY].n_bad = 1;
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    r = pass();
    r.n_done = 255;
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    r = pass();
    r.n = r.n_done = 255; /* of k's 256 */
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    r = (struct probe_result){0};
    assert_int_equal(verdict_store(&k, &r, &e), -EINVAL);
    assert_int_equal(load(&k), -ENOENT);
    cache_free(&c);
}

static void verdict_drop_forgets_one_verdict(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key k = key(), other = key();
    struct err e = {0};
    other.route = "other";
    assert_int_equal(verdict_drop(&k, &e), 0); /* not even a folder */
    store(&k);
    store(&other);
    assert_int_equal(verdict_drop(&k, &e), 0);
    assert_int_equal(load(&k), -ENOENT);
    assert_int_equal(load(&other), 0);
    assert_int_equal(verdict_drop(&k, &e), 0);
    assert_int_equal(mkdir(c.file, 0700), 0); /* what cannot be unlinked is said */
    assert_int_not_equal(verdict_drop(&k, &e), 0);
    assert_non_null(strstr(e.msg, KEY_NAME));
    unsetenv("XDG_CACHE_HOME");
    char *home = getenv("HOME") ? strdup(getenv("HOME")) : NULL;
    unsetenv("HOME");
    assert_int_equal(verdict_drop(&k, &e), 0);
    if (home)
        setenv("HOME", home, 1);
    free(home);
    cache_free(&c);
}

static void verdict_needs_every_part_of_the_key(void **state)
{
    (void)state;
    struct cache c = cache_new();
    struct verdict_key bad[4];
    for (int i = 0; i < 4; i++)
        bad[i] = key();
    bad[0].build_len = 0;
    memset(bad[1].model, 0, sizeof bad[1].model);
    bad[2].device = "";
    bad[3].device = "Card\nbuild 00"; /* would read as two parts */
    for (int i = 0; i < 4; i++) {
        struct probe_result r = pass();
        struct err e = {0};
        assert_int_equal(verdict_store(&bad[i], &r, &e), -EINVAL);
        assert_int_equal(load(&bad[i]), -EINVAL);
    }
    char *folder = path_join(c.root, "aprd");
    assert_int_not_equal(access(folder, F_OK), 0);
    free(folder);
    cache_free(&c);
}

/* ELF notes, System V ABI: name size 4, description size 20 (--build-id=sha1), type 3, "GNU". */
static void build_id_is_the_note_of_this_program(void **state)
{
    (void)state;
    static const uint8_t head[16] = {4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, 'G', 'N', 'U', 0};
    uint8_t id[BUILD_ID_MAX];
    size_t len;
    uint8_t *exe = file_read("/proc/self/exe", &len);
    assert_non_null(exe);
    uint8_t *note = memmem(exe, len, head, sizeof head);
    assert_non_null(note);
    assert_int_equal(build_id(id), 20);
    assert_memory_equal(id, note + sizeof head, 20);
    free(exe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdict_load_finds_what_was_stored),
        cmocka_unit_test(verdict_store_names_the_file_by_its_key),
        cmocka_unit_test(verdict_load_refuses_the_verdict_of_another_key),
        cmocka_unit_test(verdict_load_refuses_every_changed_byte),
        cmocka_unit_test(verdict_load_refuses_what_is_no_pass),
        cmocka_unit_test(verdict_load_refuses_what_is_no_file_of_ours),
        cmocka_unit_test(verdict_load_refuses_another_users),
        cmocka_unit_test(verdict_refuses_a_folder_that_others_can_write),
        cmocka_unit_test(verdict_store_says_why_it_cannot),
        cmocka_unit_test(verdict_folder_follows_xdg),
        cmocka_unit_test(verdict_store_keeps_passes_only),
        cmocka_unit_test(verdict_drop_forgets_one_verdict),
        cmocka_unit_test(verdict_needs_every_part_of_the_key),
        cmocka_unit_test(build_id_is_the_note_of_this_program),
    };
    return cmocka_run_group_tests_name("verdict", tests, NULL, NULL);
}
