/* INIT's answer as libfuse before 3.17 sends it, and what is added to it. Numbers are those of Linux'
 * include/uapi/linux/fuse.h, written out: opcode 26, INIT_EXT bit 30, DIRECT_IO_ALLOW_MMAP bit 36,
 * PASSTHROUGH bit 37, max_stack_depth at byte 36 of fuse_init_out. And reading ahead. */
#include "fs/compat.h"
#include "tests/support.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define BOTH (COMPAT_MMAP_DIRECT | COMPAT_PASSTHROUGH)

static void put32(unsigned char *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

static uint32_t get32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* A request as Linux 6.18 sends it: header of 40 bytes, fuse_init_in of 64. */
static size_t request(unsigned char m[104], uint32_t flags2)
{
    memset(m, 0, 104);
    put32(m, 104);
    put32(m + 4, 26);
    put32(m + 8, 7); /* unique */
    put32(m + 40, 7);
    put32(m + 44, 45);
    put32(m + 52, UINT32_C(1) << 30 | 1);
    put32(m + 56, flags2);
    return 104;
}

struct answer {
    unsigned char head[16], body[64];
    struct iovec iov[2];
};

static void answer(struct answer *a)
{
    memset(a, 0, sizeof *a);
    put32(a->head, 80);
    put32(a->head + 8, 7);
    put32(a->body, 7);
    put32(a->body + 4, 38);
    put32(a->body + 12, 0x8a1);
    put32(a->body + 20, 1 << 20);
    a->iov[0] = (struct iovec){a->head, sizeof a->head};
    a->iov[1] = (struct iovec){a->body, sizeof a->body};
}

static void compat_adds_what_was_offered(void **state)
{
    (void)state;
    static const struct {
        uint32_t offered;
        unsigned want, granted;
    } row[] = {
        {3 << 4, BOTH, BOTH},
        {1 << 4, BOTH, COMPAT_MMAP_DIRECT}, /* Linux 6.6 to 6.8 */
        {3 << 4, COMPAT_MMAP_DIRECT, COMPAT_MMAP_DIRECT},
        {0, BOTH, 0}, /* Linux 6.1 */
        {3 << 4, 0, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        unsigned char m[104], out[80];
        struct compat_offer o;
        struct answer a;
        size_t n = request(m, row[i].offered);
        assert_true(compat_offer_read(&o, m, n));
        answer(&a);
        assert_int_equal(compat_answer_patch(&o, a.iov, 2, row[i].want, out), row[i].granted);
        if (!row[i].granted)
            continue;
        assert_memory_equal(out, a.head, 16);
        assert_int_equal(get32(out + 16 + 12), 0x8a1 | 1 << 30);
        assert_int_equal(get32(out + 16 + 32), row[i].granted << 4);
        assert_int_equal(get32(out + 16 + 36), row[i].granted & COMPAT_PASSTHROUGH ? 1 : 0);
        /* all else as libfuse has it */
        memcpy(out + 16 + 12, a.body + 12, 4);
        memcpy(out + 16 + 32, a.body + 32, 8);
        assert_memory_equal(out + 16, a.body, 64);
    }
}

static void compat_leaves_the_unexpected_alone(void **state)
{
    (void)state;
    unsigned char m[104], out[80];
    struct compat_offer o;
    struct answer a;
    size_t n = request(m, 3 << 4);
    assert_false(compat_offer_read(&o, m, n - 1));
    assert_false(compat_offer_read(&o, m, 40));
    put32(m + 4, 1); /* LOOKUP */
    assert_false(compat_offer_read(&o, m, n));
    request(m, 3 << 4);
    put32(m + 40, 8); /* another protocol */
    assert_false(compat_offer_read(&o, m, n));
    request(m, 3 << 4);
    put32(m + 52, 1); /* no flags2 in this kernel */
    assert_false(compat_offer_read(&o, m, n));
    request(m, 3 << 4);
    assert_true(compat_offer_read(&o, m, n));

    answer(&a);
    assert_int_equal(compat_answer_patch(&o, a.iov, 1, BOTH, out), 0);
    assert_int_equal(compat_answer_patch(&o, a.iov, 3, BOTH, out), 0);
    a.iov[1].iov_len = 24; /* FUSE_COMPAT_22_INIT_OUT_SIZE */
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), 0);
    answer(&a);
    put32(a.head, 96);
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), 0);
    answer(&a);
    put32(a.head + 4, (uint32_t)-71); /* EPROTO */
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), 0);
    answer(&a);
    put32(a.head + 8, 8); /* the answer to something else */
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), 0);
    answer(&a);
    put32(a.body, 8);
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), 0);
    answer(&a);
    assert_int_equal(compat_answer_patch(&o, a.iov, 2, BOTH, out), BOTH);
}

#define FILE_SIZE ((size_t)24 << 20)
#define ASKED     ((size_t)8 << 20)

/* Pages that come without anybody's reading them: those asked for, not the file's begin. */
static void compat_reads_ahead(void **state)
{
    (void)state;
    char name[] = "build/ahead.XXXXXX";
    int fd = mkstemp(name);
    assert_true(fd >= 0);
    unlink(name);
    char *mib = malloc(1 << 20);
    assert_non_null(mib);
    memset(mib, 'x', 1 << 20);
    for (size_t i = 0; i < FILE_SIZE >> 20; i++)
        assert_int_equal(write(fd, mib, 1 << 20), 1 << 20);
    free(mib);
    if (!pages_dropped(fd)) {
        close(fd);
        skip_because("this file system keeps the pages of %s", name);
    }
    errno = 7;
    compat_read_ahead(fd, ASKED);
    assert_int_equal(errno, 7);
    for (int i = 0; pages_cached(fd, ASKED, 128 << 10) < 32; i++) {
        assert_true(i < 5000);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(pages_cached(fd, 0, ASKED), 0);
    compat_read_ahead(-1, 0);
    assert_int_equal(errno, 7);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(compat_adds_what_was_offered),
        cmocka_unit_test(compat_leaves_the_unexpected_alone),
        cmocka_unit_test(compat_reads_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
