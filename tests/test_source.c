/* Read-at over files, memory and functions (format/source.h). */
#include "format/source.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char text[] = "0123456789abcdef";
#define LEN (sizeof text - 1)

static char *text_file(void)
{
    char *dir = temp_dir(), *path = path_join(dir, "text");
    file_write(path, text, LEN);
    free(dir);
    return path;
}

/* What every kind of source must do over the 16 bytes of text. */
static void check_reads(const struct source *s)
{
    struct err e;
    char got[LEN + 1];
    assert_int_equal(source_size(s), LEN);
    for (size_t off = 0; off <= LEN; off++) {
        for (size_t len = 0; len <= LEN - off; len++) {
            memset(got, 'x', sizeof got);
            assert_int_equal(source_read(s, got, off, len, &e), 0);
            assert_memory_equal(got, text + off, len);
            assert_int_equal(got[len], 'x'); /* nothing past what was asked for */
        }
        assert_int_equal(source_read(s, got, off, LEN - off + 1, &e), -ERANGE);
    }
    assert_int_equal(source_read(s, got, LEN + 1, 0, &e), -ERANGE);
    assert_int_equal(source_read(s, got, UINT64_MAX, 1, &e), -ERANGE);
    assert_int_equal(source_read(s, got, 8, SIZE_MAX, &e), -ERANGE); /* off + len wraps */
    assert_int_equal(source_read(s, got, 1, SIZE_MAX - 1, &e), -ERANGE);
    assert_int_equal(e.code, -ERANGE);
    assert_non_null(strstr(e.msg, source_name(s)));
    assert_non_null(strstr(e.msg, "file has 16"));
}

static void source_reads_a_file(void **state)
{
    (void)state;
    char *path = text_file();
    struct source *s = NULL;
    struct err e;
    assert_int_equal(source_open(&s, path, &e), 0);
    assert_string_equal(source_name(s), path);
    assert_true(source_fd(s) >= 0);
    check_reads(s);
    assert_int_equal(source_check(s, &e), 0);
    source_close(s);
    free(path);
}

static void source_reads_memory(void **state)
{
    (void)state;
    uint8_t *p = guard_new(text, LEN);
    struct source *s = mem_source(p, LEN, "memory");
    check_reads(s);
    assert_int_equal(source_fd(s), -1);
    assert_int_equal(source_check(s, NULL), 0);
    struct source_id id = source_id(s);
    assert_true(id.size == LEN && id.ino == 0 && id.mtime_ns == 0);
    source_close(s);
    guard_free(p, LEN);
}

static void count_release(void *ctx)
{
    ++*(int *)ctx;
}

static int read_nothing(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    (void)ctx;
    (void)dst;
    return err_set(e, -EIO, "at %d+%d", (int)off, (int)len);
}

static void source_releases_its_functions_once(void **state)
{
    (void)state;
    static const struct source_ops ops = {.read = read_nothing, .release = count_release};
    int n_release = 0;
    struct source *s = NULL;
    struct err e;
    assert_int_equal(source_from_ops(&s, &ops, &n_release, 100, "ops", &e), 0);
    char c[8];
    assert_int_equal(source_read(s, c, 3, 8, &e), -EIO);
    assert_string_equal(e.msg, "at 3+8");
    assert_int_equal(source_read(s, c, 100, 0, &e), 0); /* not asked for nothing */
    assert_int_equal(n_release, 0);
    source_close(s);
    assert_int_equal(n_release, 1);
    source_close(NULL);
}

static void source_fails_the_read_it_is_told_to(void **state)
{
    (void)state;
    char c[LEN];
    struct err e;
    for (int at = -1; at < 3; at++) {
        struct faulty f = {.p = (const uint8_t *)text, .len = 4, .fail_at = at, .rc = -EIO};
        struct source *s = faulty_source(&f, LEN, "faulty");
        for (int i = 0; i < 3; i++) {
            int rc = source_read(s, c, 2, 6, &e);
            assert_int_equal(rc, i == at ? -EIO : 0);
            if (rc == 0)
                assert_memory_equal(c, "23\0\0\0\0", 6); /* zeros past its four bytes */
        }
        assert_int_equal(f.n_read, 3);
        source_close(s);
    }
}

static void source_open_refuses_what_is_no_regular_file(void **state)
{
    (void)state;
    char *dir = temp_dir(), *fifo = path_join(dir, "fifo"), *absent = path_join(dir, "absent");
    struct source *s = NULL;
    struct err e;
    assert_int_equal(source_open(&s, dir, &e), -EINVAL);
    assert_non_null(strstr(e.msg, "not a regular file"));
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_int_equal(source_open(&s, fifo, &e), -EINVAL); /* and does not hang */
    assert_int_equal(source_open(&s, "/dev/null", &e), -EINVAL);
    assert_int_equal(source_open(&s, absent, &e), -ENOENT);
    assert_non_null(strstr(e.msg, absent));
    assert_null(s);
    int before = open("/dev/null", O_RDONLY); /* the lowest free number: nothing was left open */
    close(before);
    assert_int_equal(source_open(&s, dir, &e), -EINVAL);
    int after = open("/dev/null", O_RDONLY);
    close(after);
    assert_int_equal(before, after);
    free(absent);
    free(fifo);
    free(dir);
}

static void source_from_fd_takes_the_descriptor(void **state)
{
    (void)state;
    char *path = text_file();
    struct source *s = NULL;
    int fd = open(path, O_RDONLY);
    assert_int_equal(source_from_fd(&s, fd, "named", NULL), 0);
    assert_int_equal(source_fd(s), fd);
    assert_string_equal(source_name(s), "named");
    source_close(s);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
    fd = open("/dev/null", O_RDONLY);
    s = NULL;
    assert_int_equal(source_from_fd(&s, fd, "null", NULL), -EINVAL);
    assert_null(s);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* closed on failure too */
    assert_int_equal(source_from_fd(&s, -1, "none", NULL), -EBADF);
    free(path);
}

/* A file that shrank is an error for bytes it lost, never a short or invented read. */
static void source_reports_a_file_cut_since(void **state)
{
    (void)state;
    char *path = text_file(), got[LEN];
    struct source *s = NULL;
    struct err e;
    assert_int_equal(source_open(&s, path, &e), 0);
    assert_int_equal(truncate(path, 10), 0);
    assert_int_equal(source_read(s, got, 0, 10, &e), 0);
    assert_int_equal(source_read(s, got, 0, 11, &e), -EIO);
    assert_non_null(strstr(e.msg, "ended at byte 10, had 16"));
    assert_int_equal(source_read(s, got, 12, 1, &e), -EIO);
    assert_int_equal(source_size(s), LEN); /* as it was opened */
    assert_int_equal(source_check(s, &e), -ESTALE);
    assert_non_null(strstr(e.msg, path));
    source_close(s);
    free(path);
}

static void source_check_sees_a_new_time(void **state)
{
    (void)state;
    char *path = text_file();
    struct source *s = NULL;
    struct err e;
    assert_int_equal(source_open(&s, path, &e), 0);
    struct source_id before = source_id(s), other = before;
    assert_true(source_id_equal(&before, &other));
    other.ctime_ns++;
    assert_false(source_id_equal(&before, &other));
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000, .tv_nsec = 5}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    assert_int_equal(source_check(s, &e), -ESTALE);
    source_close(s);
    assert_int_equal(source_open(&s, path, &e), 0);
    assert_int_equal(source_id(s).mtime_ns, INT64_C(1000000000005)); /* 1000 s and 5 ns */
    assert_int_equal(source_check(s, &e), 0);
    source_close(s);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_reads_a_file),
        cmocka_unit_test(source_reads_memory),
        cmocka_unit_test(source_releases_its_functions_once),
        cmocka_unit_test(source_fails_the_read_it_is_told_to),
        cmocka_unit_test(source_open_refuses_what_is_no_regular_file),
        cmocka_unit_test(source_from_fd_takes_the_descriptor),
        cmocka_unit_test(source_reports_a_file_cut_since),
        cmocka_unit_test(source_check_sees_a_new_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
