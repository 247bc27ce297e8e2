/* The cache of built bytes: built once, bounded, never dropped in use, forgotten when it failed. */
#include "fs/vcache.h"
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct job {
    size_t len;
    uint8_t fill;
    int rc;
    unsigned sleep_us;
    atomic_int n_built;
};

static int build(void *ctx, uint8_t **p, size_t *len, struct err *e)
{
    struct job *j = ctx;
    atomic_fetch_add(&j->n_built, 1);
    if (j->sleep_us)
        usleep(j->sleep_us);
    if (j->rc < 0)
        return err_set(e, j->rc, "as asked");
    *p = malloc(j->len);
    assert_non_null(*p);
    memset(*p, j->fill, j->len);
    *len = j->len;
    return 0;
}

static struct vcache_key key(uint8_t id, uint64_t unit)
{
    struct vcache_key k = {.unit = unit};
    memset(k.id, id, sizeof k.id);
    return k;
}

static struct vcache *cache(size_t max_mem, size_t spill_from, size_t max_spill)
{
    struct vcache *c;
    assert_int_equal(vcache_new(&c, max_mem, spill_from, max_spill, NULL), 0);
    return c;
}

/* Gets and puts; the item must hold j->len bytes of j->fill. */
static void touch(struct vcache *c, uint8_t id, uint64_t unit, struct job *j)
{
    struct vcache_key k = key(id, unit);
    struct vcache_item *it;
    struct err e;
    assert_int_equal(vcache_get(c, &k, build, j, &it, &e), 0);
    assert_int_equal(vcache_item_len(it), j->len);
    uint8_t first, last;
    assert_int_equal(vcache_item_read(it, &first, 0, 1, &e), 0);
    assert_int_equal(vcache_item_read(it, &last, j->len - 1, 1, &e), 0);
    assert_int_equal(first, j->fill);
    assert_int_equal(last, j->fill);
    assert_int_equal(vcache_item_read(it, &last, j->len, 1, &e), -ERANGE);
    vcache_put(c, it);
}

/* A new folder for c's files; owned by the caller. */
static char *spill_to_new(struct vcache *c)
{
    char *dir = temp_dir();
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(fd >= 0);
    vcache_spill_to(c, fd);
    return dir;
}

/* Our descriptors of files below dir. */
static int n_open_below(const char *dir)
{
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    assert_non_null(d);
    for (struct dirent *de; (de = readdir(d));) {
        char to[4096] = "";
        if (readlinkat(dirfd(d), de->d_name, to, sizeof to - 1) > 0)
            n += strncmp(to, dir, strlen(dir)) == 0 && to[strlen(dir)] == '/';
    }
    closedir(d);
    return n;
}

static int n_names(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *de; (de = readdir(d));)
        n += strcmp(de->d_name, ".") != 0 && strcmp(de->d_name, "..") != 0;
    closedir(d);
    return n;
}

static void vcache_builds_once_and_remembers(void **state)
{
    (void)state;
    struct vcache *c = cache(1000, 0, 0);
    struct job j = {.len = 100, .fill = 7};
    for (int i = 0; i < 3; i++)
        touch(c, 1, 5, &j);
    assert_int_equal(j.n_built, 1);
    touch(c, 1, 6, &j); /* another unit of the same */
    touch(c, 2, 5, &j); /* the same unit of another */
    assert_int_equal(j.n_built, 3);
    assert_int_equal(vcache_mem(c), 300);
    vcache_free(c);
    c = cache(1000, 0, 0);
    struct job many = {.len = 1, .fill = 7};
    for (uint64_t unit = 0; unit < 1000; unit++) /* more than there are buckets */
        touch(c, 1, unit, &many);
    assert_int_equal(many.n_built, 1000);
    vcache_free(c);
}

static void vcache_drops_oldest_use_over_limit(void **state)
{
    (void)state;
    struct vcache *c = cache(300, 0, 0);
    struct job a = {.len = 100, .fill = 1}, b = a, d = a, x = a;
    touch(c, 1, 0, &a);
    touch(c, 2, 0, &b);
    touch(c, 3, 0, &d);
    touch(c, 1, 0, &a); /* now b is the oldest */
    touch(c, 4, 0, &x);
    assert_int_equal(vcache_mem(c), 300);
    touch(c, 1, 0, &a);
    touch(c, 3, 0, &d);
    assert_int_equal(a.n_built, 1);
    assert_int_equal(d.n_built, 1);
    touch(c, 2, 0, &b);
    assert_int_equal(b.n_built, 2);
    vcache_free(c);
}

static void vcache_keeps_what_is_in_use(void **state)
{
    (void)state;
    struct vcache *c = cache(150, 0, 0);
    struct job j[4];
    struct vcache_item *it[4];
    struct err e;
    for (int i = 0; i < 4; i++) {
        struct vcache_key k = key((uint8_t)i, 0);
        j[i] = (struct job){.len = 100, .fill = (uint8_t)i};
        assert_int_equal(vcache_get(c, &k, build, &j[i], &it[i], &e), 0);
    }
    assert_int_equal(vcache_mem(c), 400); /* over the limit, and all still there */
    for (int i = 0; i < 4; i++) {
        uint8_t b;
        assert_int_equal(vcache_item_read(it[i], &b, 50, 1, &e), 0);
        assert_int_equal(b, i);
        vcache_put(c, it[i]);
    }
    assert_true(vcache_mem(c) <= 150);
    vcache_free(c);
}

static void vcache_forgets_failed_build(void **state)
{
    (void)state;
    struct vcache *c = cache(1000, 0, 0);
    struct job j = {.len = 10, .rc = -EIO};
    struct vcache_key k = key(1, 1);
    struct vcache_item *it;
    struct err e;
    assert_int_equal(vcache_get(c, &k, build, &j, &it, &e), -EIO);
    assert_string_equal(e.msg, "as asked");
    j.rc = 0;
    touch(c, 1, 1, &j);
    assert_int_equal(j.n_built, 2);
    vcache_free(c);
}

static void vcache_spills_large_items_to_a_file(void **state)
{
    (void)state;
    struct vcache *c = cache(1000, 500, 1500);
    char *dir = spill_to_new(c);
    struct job big = {.len = 600, .fill = 9}, small = {.len = 499, .fill = 8};
    touch(c, 1, 0, &big);
    touch(c, 2, 0, &small);
    assert_int_equal(vcache_mem(c), 499);
    assert_int_equal(vcache_spilled(c), 600);
    touch(c, 3, 0, &big);
    assert_int_equal(n_open_below(dir), 2);
    assert_int_equal(n_names(dir), 0);
    touch(c, 4, 0, &big); /* 1800 in files: the oldest goes */
    assert_int_equal(vcache_spilled(c), 1200);
    touch(c, 2, 0, &small);
    assert_int_equal(small.n_built, 1); /* memory was not over its limit */
    vcache_free(c);
    assert_int_equal(n_open_below(dir), 0);
    free(dir);
}

/* As on NFS: open(2) with O_TMPFILE is EOPNOTSUPP. */
static void no_unnamed_files(void)
{
    struct sock_filter f[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, O_TMPFILE & ~O_DIRECTORY, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog p = {sizeof f / sizeof *f, f};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &p) < 0)
        _exit(77);
}

static void vcache_spills_where_files_have_names(void **state)
{
    (void)state;
    struct vcache *c = cache(1000, 500, 1500);
    char *dir = spill_to_new(c);
    int status;
    fflush(NULL);
    pid_t pid = fork(); /* a filter is for good */
    if (pid == 0) {
        char left[64];
        struct job big = {.len = 600, .fill = 9};
        no_unnamed_files();
        /* What a crash in the middle left is no obstacle. */
        snprintf(left, sizeof left, "text.%ld.0", (long)getpid());
        char *path = path_join(dir, left);
        file_write(path, "x", 1);
        touch(c, 1, 0, &big);
        touch(c, 2, 0, &big);
        _exit(vcache_spilled(c) == 1200 && n_open_below(dir) == 2 && n_names(dir) == 0 ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
        skip_because("no seccomp in this kernel");
    assert_int_equal(status, 0);
    vcache_free(c);
    free(dir);
}

/* No folder, one that is gone, no room: the bytes stay in memory and are right. */
static void vcache_keeps_in_memory_what_cannot_be_spilled(void **state)
{
    (void)state;
    struct job big = {.len = 600, .fill = 9};
    struct vcache *c = cache(1000, 500, 1500);
    touch(c, 1, 0, &big);
    assert_int_equal(vcache_mem(c), 600);
    assert_int_equal(vcache_spilled(c), 0);
    vcache_free(c);
    c = cache(1000, 500, 1500);
    char *dir = spill_to_new(c);
    assert_int_equal(rmdir(dir), 0);
    touch(c, 1, 0, &big);
    assert_int_equal(vcache_mem(c), 600);
    vcache_free(c);
    free(dir);
    c = cache(1000, 500, 1500);
    dir = spill_to_new(c);
    struct rlimit was, none = {0};
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    none.rlim_max = was.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    touch(c, 1, 0, &big);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_equal(vcache_mem(c), 600);
    assert_int_equal(n_open_below(dir), 0);
    vcache_free(c);
    free(dir);
}

static void vcache_drop_ends_an_id_even_in_use(void **state)
{
    (void)state;
    struct vcache *c = cache(1000, 0, 0);
    struct job j = {.len = 100, .fill = 3};
    struct vcache_key k = key(1, 0);
    struct vcache_item *it;
    struct err e;
    uint8_t b;
    touch(c, 2, 0, &j);
    assert_int_equal(vcache_get(c, &k, build, &j, &it, &e), 0);
    vcache_drop(c, k.id);
    assert_int_equal(vcache_item_read(it, &b, 0, 1, &e), 0); /* its user goes on */
    touch(c, 1, 0, &j);
    assert_int_equal(j.n_built, 3); /* others build anew */
    vcache_put(c, it);
    touch(c, 2, 0, &j);
    assert_int_equal(j.n_built, 3); /* another id is untouched */
    assert_int_equal(vcache_mem(c), 200);
    vcache_free(c);
}

struct racer {
    struct vcache *c;
    struct job *j;
};

static void *race(void *ctx)
{
    struct racer *r = ctx;
    for (uint64_t i = 0; i < 200; i++)
        touch(r->c, 1, i % 5, r->j);
    return NULL;
}

static void vcache_has_one_builder_per_item(void **state)
{
    (void)state;
    struct racer r = {.c = cache(1 << 20, 0, 0)};
    struct job j = {.len = 64, .fill = 5, .sleep_us = 20000};
    r.j = &j;
    pthread_t t[8];
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, race, &r), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(j.n_built, 5);
    vcache_free(r.c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vcache_builds_once_and_remembers),
        cmocka_unit_test(vcache_drops_oldest_use_over_limit),
        cmocka_unit_test(vcache_keeps_what_is_in_use),
        cmocka_unit_test(vcache_forgets_failed_build),
        cmocka_unit_test(vcache_spills_large_items_to_a_file),
        cmocka_unit_test(vcache_spills_where_files_have_names),
        cmocka_unit_test(vcache_keeps_in_memory_what_cannot_be_spilled),
        cmocka_unit_test(vcache_drop_ends_an_id_even_in_use),
        cmocka_unit_test(vcache_has_one_builder_per_item),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
