/* Pinned parts: what a change of the source means to an open generation, with and without a lease.
 * The table below is the rule of fs/pinned.h, case by case. */
#include "fs/pinned.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char *dir;

static void do_nothing(const char *p)
{
    (void)p;
}

static void do_write(const char *p)
{
    int fd = open(p, O_WRONLY);
    assert_int_equal(pwrite(fd, "x", 1, 10), 1);
    close(fd);
}

static void do_truncate(const char *p)
{
    assert_int_equal(truncate(p, 50), 0);
}

static void do_append(const char *p)
{
    int fd = open(p, O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

static void do_touch(const char *p)
{
    struct timespec t[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, p, t, 0), 0);
}

/* A write whose mtime is put back: nothing but ctime tells. */
static void do_write_and_restore_mtime(const char *p)
{
    struct stat st;
    assert_int_equal(stat(p, &st), 0);
    do_write(p);
    struct timespec t[2] = {st.st_atim, st.st_mtim};
    assert_int_equal(utimensat(AT_FDCWD, p, t, 0), 0);
}

static void do_chmod(const char *p)
{
    assert_int_equal(chmod(p, 0640), 0);
}

static void do_link(const char *p)
{
    char *to = path_join(dir, "second-name");
    unlink(to);
    assert_int_equal(link(p, to), 0);
    free(to);
}

static void do_unlink(const char *p)
{
    assert_int_equal(unlink(p), 0);
}

static void do_replace(const char *p)
{
    char *tmp = path_join(dir, "replacement");
    file_write(tmp, "other bytes", 11);
    assert_int_equal(rename(tmp, p), 0);
    free(tmp);
}

static void do_rename_away(const char *p)
{
    char *to = path_join(dir, "moved");
    assert_int_equal(rename(p, to), 0);
    free(to);
}

static const struct {
    const char *name;
    void (*act)(const char *path);
    bool writes; /* opens for writing: breaks a lease, so only without one here */
    bool ok;     /* readable afterwards, without a lease */
    bool ok_lease;
} cases[] = {
    {"nothing", do_nothing, false, true, true},
    {"write", do_write, true, false, false},
    {"append", do_append, true, false, false},
    {"truncate", do_truncate, true, false, false},
    {"write, mtime put back", do_write_and_restore_mtime, true, false, false},
    {"touch", do_touch, false, false, false},
    {"chmod", do_chmod, false, false, true},
    {"link", do_link, false, true, true},
    {"unlink", do_unlink, false, true, true},
    {"replaced by rename", do_replace, false, true, true},
    {"renamed away", do_rename_away, false, false, true},
};

static atomic_int n_stale;

static void on_stale(void *ctx, const char *why)
{
    (void)ctx;
    assert_non_null(why);
    atomic_fetch_add(&n_stale, 1);
}

static struct pinned *pin(const char *path, bool lease, struct source **s)
{
    struct pinned *p;
    struct err e;
    assert_int_equal(source_open(s, path, &e), 0);
    assert_int_equal(pinned_new(&p, s, 1, lease, on_stale, NULL, &e), 0);
    return p;
}

static char *fresh_file(void)
{
    uint8_t bytes[100] = {1, 2, 3};
    char *path = path_join(dir, "source");
    unlink(path);
    file_write(path, bytes, sizeof bytes);
    /* Its ctime must differ from that of what follows: the clock of a file system ticks slowly. */
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    return path;
}

static bool readable(struct pinned *p)
{
    struct err e;
    if (pinned_enter(p, &e) < 0)
        return false;
    return pinned_leave(p, &e) == 0;
}

static void run_case(size_t i, bool lease)
{
    char *path = fresh_file();
    struct source *s;
    atomic_store(&n_stale, 0);
    struct pinned *p = pin(path, lease, &s);
    assert_true(readable(p));
    cases[i].act(path);
    bool want = lease ? cases[i].ok_lease : cases[i].ok;
    if (readable(p) != want)
        fail_msg("%s, %s lease: expected it to be %s", cases[i].name, lease ? "with" : "without",
                 want ? "readable" : "EIO");
    assert_int_equal(readable(p), want); /* for ever */
    assert_int_equal(atomic_load(&n_stale), !want);
    assert_int_equal(pinned_stale(p), !want);
    pinned_free(p);
    source_close(s);
    free(path);
}

static void pinned_change_without_lease_by_case(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_case(i, false);
}

static bool leases_work(void)
{
    char *path = fresh_file();
    int fd = open(path, O_RDONLY);
    bool ok = fcntl(fd, F_SETLEASE, F_RDLCK) == 0;
    close(fd);
    free(path);
    return ok;
}

static void pinned_change_under_lease_by_case(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (!cases[i].writes)
            run_case(i, true);
}

static void pinned_accepts_several_unlinks_one_by_one(void **state)
{
    (void)state;
    char *path = fresh_file(), *second = path_join(dir, "second-name");
    struct source *s;
    unlink(second);
    assert_int_equal(link(path, second), 0);
    struct pinned *p = pin(path, false, &s);
    unlink(path);
    assert_true(readable(p));
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    unlink(second);
    assert_true(readable(p));
    pinned_free(p);
    source_close(s);
    free(path);
    free(second);
}

static void pinned_in_the_middle_of_a_read_is_seen_by_leave(void **state)
{
    (void)state;
    char *path = fresh_file();
    struct source *s;
    struct err e;
    struct pinned *p = pin(path, false, &s);
    assert_int_equal(pinned_enter(p, &e), 0);
    do_write(path);
    assert_int_equal(pinned_leave(p, &e), -EIO);
    assert_non_null(strstr(e.msg, "source"));
    pinned_free(p);
    source_close(s);
    free(path);
}

static void pinned_refuses_what_changed_before(void **state)
{
    (void)state;
    char *path = fresh_file();
    struct source *s;
    struct pinned *p;
    struct err e;
    assert_int_equal(source_open(&s, path, &e), 0);
    do_touch(path);
    assert_int_equal(pinned_new(&p, &s, 1, false, on_stale, NULL, &e), -ESTALE);
    source_close(s);
    free(path);
}

static void pinned_refuses_what_a_writer_has_open(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    char *path = fresh_file();
    struct source *s;
    struct pinned *p;
    struct err e;
    int fd = open(path, O_RDWR);
    assert_int_equal(source_open(&s, path, &e), 0);
    assert_true(pinned_has_writer(source_fd(s)));
    assert_int_equal(pinned_new(&p, &s, 1, true, on_stale, NULL, &e), -EAGAIN);
    close(fd);
    assert_false(pinned_has_writer(source_fd(s)));
    source_close(s);
    free(path);
}

/* A writer waits until the break is answered; then the generation is stale and the writer goes on. */
static void break_lease(bool write)
{
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    char *path = fresh_file();
    struct source *s;
    struct err e;
    struct pinned *p = pin(path, true, &s);
    assert_true(pinned_leased(p));
    uint64_t before = pinned_n_breaks();
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_WRONLY);
        _exit(fd >= 0 && (!write || pwrite(fd, "y", 1, 0) == 1) ? 0 : 1);
    }
    siginfo_t si;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    struct timespec limit = {.tv_sec = 20};
    assert_int_equal(sigtimedwait(&set, &si, &limit), pinned_lease_signal());
    assert_int_equal(si.si_fd, source_fd(s));
    assert_true(readable(p)); /* the writer still waits: old bytes are right */
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    pinned_lease_broken(si.si_fd);
    assert_true(pinned_stale(p));
    assert_int_equal(pinned_enter(p, &e), -EIO);
    assert_int_equal(pinned_n_breaks(), before + 1);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(pinned_enter(p, &e), -EIO); /* also if the file looks as before */
    pinned_lease_broken(-1);                     /* nothing more to do; returns */
    pinned_free(p);
    source_close(s);
    free(path);
}

static void pinned_lease_break_marks_stale_and_lets_go(void **state)
{
    (void)state;
    break_lease(true);
}

/* A writer that maps the file changes it long before any time stamp tells. */
static void pinned_lease_break_is_for_ever(void **state)
{
    (void)state;
    break_lease(false);
}

/* Answers one break. */
struct breaker {
    atomic_int tid;
    atomic_bool done;
};

static void *break_thread(void *ctx)
{
    struct breaker *b = ctx;
    sigset_t set;
    siginfo_t si;
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    atomic_store(&b->tid, gettid());
    if (sigwaitinfo(&set, &si) == pinned_lease_signal())
        pinned_lease_broken(si.si_fd);
    atomic_store(&b->done, true);
    return NULL;
}

/* Until b waits for something or is through. */
static void until_it_waits(struct breaker *b)
{
    char path[64], state = 'R';
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&b->tid));
    while (state != 'S' && !atomic_load(&b->done)) {
        FILE *f = fopen(path, "r");
        if (f && fscanf(f, "%*d (%*[^)]) %c", &state) != 1)
            state = 'R';
        if (f)
            fclose(f);
    }
}

/* A reply from a mapping that lasts: the writer is not let in beside it, and it gets no more bytes. */
static void pinned_cuts_the_mapping_before_the_writer(void **state)
{
    (void)state;
    char *path = fresh_file();
    struct source *s;
    struct err e;
    struct pinned *p = pin(path, true, &s);
    if (!pinned_leased(p)) {
        pinned_free(p);
        source_close(s);
        free(path);
        skip();
    }
    int out[2], told[2];
    assert_int_equal(pipe(out), 0);
    assert_int_equal(pipe(told), 0);
    const uint8_t *m = pinned_map(p, 0);
    assert_non_null(m);
    assert_ptr_equal(pinned_map(p, 0), m);
    assert_int_equal(pinned_enter_sent(p, &e), 1);
    assert_int_equal(write(out[1], m, 3), 3); /* as the kernel copies a reply */
    pthread_t t;
    struct breaker breaker = {0};
    assert_int_equal(pthread_create(&t, NULL, break_thread, &breaker), 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(path, O_WRONLY); /* waits for the lease */
        _exit(fd < 0 || pwrite(fd, "x", 1, 0) != 1 || write(told[1], "w", 1) != 1);
    }
    while (write(out[1], m, 1) == 1) {
        char c;
        assert_int_equal(read(out[0], &c, 1), 1);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(errno, EFAULT);
    assert_true(pinned_stale(p));
    /* Cut, but the reply is not over: so who cut it waits, and the writer with it. */
    until_it_waits(&breaker);
    assert_false(atomic_load(&breaker.done));
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    pinned_leave_sent(p, 3);
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    pthread_join(t, NULL);
    assert_int_equal(pinned_enter_sent(p, &e), -EIO);
    pinned_free(p);
    source_close(s);
    for (int i = 0; i < 2; i++) {
        close(out[i]);
        close(told[i]);
    }
    free(path);
}

static void pinned_sends_only_under_a_lease(void **state)
{
    (void)state;
    char *path = fresh_file();
    struct source *s;
    struct err e;
    struct pinned *p = pin(path, false, &s);
    assert_int_equal(pinned_enter_sent(p, &e), 0);
    do_write(path);
    assert_int_equal(pinned_enter(p, &e), -EIO);
    assert_int_equal(pinned_enter_sent(p, &e), -EIO);
    pinned_free(p);
    source_close(s);
    free(path);
}

/* p over a fresh file, with a writer who waits for its lease, and the signal that tells of him. */
struct waiting {
    char *path;
    struct source *s;
    struct pinned *p;
    pid_t writer;
    int fd; /* as the signal names it */
};

static void waiting_begin(struct waiting *w)
{
    w->path = fresh_file();
    w->p = pin(w->path, true, &w->s);
    assert_true(pinned_leased(w->p));
}

static void waiting_writer(struct waiting *w)
{
    siginfo_t si;
    sigset_t set;
    struct timespec limit = {.tv_sec = 20};
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    w->writer = fork();
    if (w->writer == 0) {
        int fd = open(w->path, O_WRONLY);
        _exit(fd < 0 || pwrite(fd, "x", 1, 0) != 1);
    }
    assert_int_equal(sigtimedwait(&set, &si, &limit), pinned_lease_signal());
    w->fd = si.si_fd;
}

static void waiting_end(struct waiting *w)
{
    int status;
    assert_int_equal(waitpid(w->writer, &status, 0), w->writer);
    assert_int_equal(status, 0);
    pinned_free(w->p);
    source_close(w->s);
    free(w->path);
}

/* The signal may be late, or its thread be busy with another file: what the kernel says counts. */
static void pinned_sends_no_more_once_a_writer_waits(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    struct waiting w;
    struct err e;
    waiting_begin(&w);
    assert_int_equal(pinned_enter_sent(w.p, &e), 1);
    pinned_leave_sent(w.p, 1);
    waiting_writer(&w);
    assert_int_equal(pinned_enter_sent(w.p, &e), 0);
    assert_true(readable(w.p)); /* he is not in yet */
    pinned_lease_broken(w.fd);
    assert_int_equal(pinned_enter_sent(w.p, &e), -EIO);
    waiting_end(&w);
}

/* A read that lasts does not keep the writer out for ever: it is let in, and the read does not count. */
static void pinned_lets_the_writer_in_beside_a_long_read(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    struct waiting w;
    struct err e;
    waiting_begin(&w);
    assert_int_equal(pinned_enter(w.p, &e), 0);
    waiting_writer(&w);
    pinned_lease_broken(w.fd);
    assert_int_equal(fcntl(source_fd(w.s), F_GETLEASE), F_UNLCK);
    assert_int_equal(pinned_leave(w.p, &e), -EIO);
    waiting_end(&w);
}

/* Nor does a reply that never ends; it has no mapping any more, nor gets one. */
static void pinned_lets_the_writer_in_beside_a_stuck_reply(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    struct waiting w;
    struct err e;
    waiting_begin(&w);
    pinned_set_break_time(1);
    assert_int_equal(pinned_enter_sent(w.p, &e), 1); /* has not asked for its mapping yet */
    waiting_writer(&w);
    pinned_lease_broken(w.fd);
    pinned_set_break_time(0);
    assert_int_equal(fcntl(source_fd(w.s), F_GETLEASE), F_UNLCK);
    assert_null(pinned_map(w.p, 0));
    pinned_leave_sent(w.p, 0);
    assert_int_equal(pinned_enter_sent(w.p, &e), -EIO);
    waiting_end(&w);
}

/* Has the process a page table entry for the page at p? Linux, Documentation/admin-guide/mm/pagemap.rst:
 * 8 bytes a page, bit 63 "page present". */
static bool page_present(const void *p)
{
    uint64_t v = 0;
    long page = sysconf(_SC_PAGESIZE);
    int fd = open("/proc/self/pagemap", O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &v, sizeof v, (off_t)((uintptr_t)p / (size_t)page * sizeof v)),
                     sizeof v);
    close(fd);
    return v >> 63;
}

/* 1.75 MiB of page tables per GiB would stay otherwise: 700 MiB after one read of a model of 400 GiB. */
static void pinned_gives_page_tables_back_each_8_gib(void **state)
{
    (void)state;
    if (!leases_work())
        skip_because("no leases on the file system of %s", dir);
    const uint64_t gib = UINT64_C(1) << 30;
    /* Bytes sent, and whether the mapping is trimmed then: at each multiple of 8 GiB that is passed. */
    const struct {
        uint64_t n;
        bool trimmed;
    } row[] = {{gib, false}, {7 * gib - 1, false}, {1, true},      {1, false},
               {gib, false}, {7 * gib - 2, false}, {2 * gib, true}};
    struct source *s;
    struct err e;
    char *path = fresh_file();
    struct pinned *p = pin(path, true, &s);
    const uint8_t *m = pinned_map(p, 0);
    int out[2];
    assert_int_equal(pipe(out), 0);
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        assert_int_equal(pinned_enter_sent(p, &e), 1);
        assert_int_equal(write(out[1], m, 3), 3); /* as the kernel copies a reply */
        assert_true(page_present(m));
        pinned_leave_sent(p, row[i].n);
        if (page_present(m) == row[i].trimmed)
            fail_msg("row %zu: expected the pages to be %s", i, row[i].trimmed ? "gone" : "there");
    }
    assert_int_equal(write(out[1], m, 3), 3); /* and they come again */
    close(out[0]);
    close(out[1]);
    pinned_free(p);
    source_close(s);
    free(path);
}

int main(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, NULL);
    dir = temp_dir();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pinned_change_without_lease_by_case),
        cmocka_unit_test(pinned_change_under_lease_by_case),
        cmocka_unit_test(pinned_accepts_several_unlinks_one_by_one),
        cmocka_unit_test(pinned_in_the_middle_of_a_read_is_seen_by_leave),
        cmocka_unit_test(pinned_refuses_what_changed_before),
        cmocka_unit_test(pinned_refuses_what_a_writer_has_open),
        cmocka_unit_test(pinned_lease_break_marks_stale_and_lets_go),
        cmocka_unit_test(pinned_lease_break_is_for_ever),
        cmocka_unit_test(pinned_cuts_the_mapping_before_the_writer),
        cmocka_unit_test(pinned_sends_only_under_a_lease),
        cmocka_unit_test(pinned_sends_no_more_once_a_writer_waits),
        cmocka_unit_test(pinned_lets_the_writer_in_beside_a_long_read),
        cmocka_unit_test(pinned_lets_the_writer_in_beside_a_stuck_reply),
        cmocka_unit_test(pinned_gives_page_tables_back_each_8_gib),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(dir);
    return rc;
}
