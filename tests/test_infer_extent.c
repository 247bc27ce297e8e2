/* Extents: the text, which anybody may have written; parts that are not what it says; a source that is
 * put together from parts and the mount. */
#include "infer/extent.h"

#include "infer/published.h"
#include "tests/support.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static char *dir;

static int parse(struct extent_map *m, const char *text, uint64_t size, struct err *e)
{
    size_t len = strlen(text);
    uint8_t *guarded = guard_new(text, len); /* a byte too far is a fault */
    int rc = extent_parse(m, (const char *)guarded, len, size, e);
    guard_free(guarded, len);
    return rc;
}

/* As stores.md section 9 and format/store_text.h have it. */
static void extent_reads_the_text(void **state)
{
    (void)state;
    struct extent_map m;
    struct err e;
    assert_int_equal(parse(&m,
                           "aprfs-extents 1\n"
                           "part 0 18446744073709551615 2 1000 -5 /a b/x\\012\\134.gguf\n"
                           "part 1 3 4 50 1700000000123456789 /y\n"
                           "map 0 64 mem 0\n"
                           "map 64 36 zero 0\n"
                           "map 100 900 0 100\n"
                           "map 1000 50 1 0",
                           1050, &e),
                     0);
    assert_int_equal(m.n_part, 2);
    assert_int_equal(m.n_range, 4);
    assert_true(m.part[0].dev == UINT64_MAX && m.part[0].ino == 2 && m.part[0].size == 1000);
    assert_true(m.part[0].mtime_ns == -5 && m.part[1].mtime_ns == INT64_C(1700000000123456789));
    assert_string_equal(m.part[0].path, "/a b/x\n\\.gguf");
    assert_true(m.range[1].part == -1 && m.range[1].off == 64 && m.range[1].len == 36);
    assert_true(m.range[2].part == 0 && m.range[2].src_off == 100 && m.range[2].len == 900);
    assert_true(m.range[3].part == 1 && m.range[3].off == 1000);
    extent_release(&m);
}

static void extent_refuses_what_is_not_that_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "aprfs-extents",
        "aprfs-extents 2\nmap 0 100 mem 0",
        "aprfs-extents 1 \nmap 0 100 mem 0",
        "aprfs-extents 1",                                     /* covers nothing */
        "aprfs-extents 1\nmap 0 99 mem 0",                     /* ends early */
        "aprfs-extents 1\nmap 0 101 mem 0",                    /* ends late */
        "aprfs-extents 1\nmap 0 50 mem 0\nmap 51 49 mem 0",    /* a hole */
        "aprfs-extents 1\nmap 0 60 mem 0\nmap 50 50 mem 0",    /* an overlap */
        "aprfs-extents 1\nmap 50 50 mem 0\nmap 0 50 mem 0",    /* out of order */
        "aprfs-extents 1\nmap 0 100 0 0",                      /* no such part */
        "aprfs-extents 1\nmap 0 100 -1 0",                     /* a sign */
        "aprfs-extents 1\nmap 0 100 mem",                      /* a word short */
        "aprfs-extents 1\nmap 0 100 mem 0 0",                  /* one too many */
        "aprfs-extents 1\nmap 0 100 mem 0 ",                   /* a space behind */
        "aprfs-extents 1\nmap 0  100 mem 0",                   /* two spaces */
        "aprfs-extents 1\nmap 0 100 memory 0",                 /* no such kind */
        "aprfs-extents 1\nmap 0 1e2 mem 0",                    /* no number */
        "aprfs-extents 1\nmap 0 0x64 mem 0",                   /* no number */
        "aprfs-extents 1\nmap 0 18446744073709551716 mem 0",   /* 2^64 + 100 */
        "aprfs-extents 1\nmap 0 100 mem 0\n\n",                /* an empty line */
        "aprfs-extents 1\nmapx 0 100 mem 0",                   /* no such line */
        "aprfs-extents 1\npart 1 1 1 100 1 /a\nmap 0 100 1 0", /* numbered from 0 */
        "aprfs-extents 1\npart 0 1 1 99 1 /a\nmap 0 100 0 0",  /* behind the part */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\nmap 0 100 0 1", /* behind the part */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\nmap 0 100 0 9223372036854775807",
        "aprfs-extents 1\npart 0 1 1 100 1 a\nmap 0 100 0 0",        /* not absolute */
        "aprfs-extents 1\npart 0 1 1 100 1 \nmap 0 100 0 0",         /* empty */
        "aprfs-extents 1\npart 0 1 1 100 1\nmap 0 100 0 0",          /* none */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\\000b\nmap 0 100 0 0", /* a NUL */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\\0\nmap 0 100 0 0",    /* half an escape */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\\777\nmap 0 100 0 0",  /* no byte */
        "aprfs-extents 1\npart 0 1 1 100 1 /a\\08x\nmap 0 100 0 0",  /* not octal */
        "aprfs-extents 1\npart 0 1 1 100 --1 /a\nmap 0 100 0 0",     /* two signs */
        "aprfs-extents 1\nmap 0 100 mem 0\npart 0 1 1 100 1 /a",     /* a part behind */
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct extent_map m;
        struct err e = {0};
        int rc = parse(&m, bad[i], 100, &e);
        if (rc != -EUCLEAN || !strstr(e.msg, "user.aprfs.extents"))
            fail_msg("case %zu: rc %d, '%s'", i, rc, e.msg);
    }
    struct extent_map m;
    struct err e = {0};
    const char nul[] = "aprfs-extents 1\npart 0 1 1 100 1 /a\0b\nmap 0 100 0 0";
    assert_int_equal(extent_parse(&m, nul, sizeof nul - 1, 100, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "line 2"));
}

/* --- parts ---------------------------------------------------------------------------------- */

/* Two parts of 1000 and 500 bytes and a "mount" file of 2000, of which 100..1100 are part 0 from byte
 * 0 and 1200..1600 are part 1 from byte 50. The mount's own bytes there are others on purpose. */
struct world {
    char *path[2], *mount;
    uint8_t part[2][1000], file[2000], want[2000];
    struct stat st[2];
    struct source *src;
};

static void world_new(struct world *w)
{
    *w = (struct world){.mount = path_join(dir, "mount")};
    for (int i = 0; i < 2000; i++)
        w->file[i] = w->want[i] = (uint8_t)(i % 50);
    for (int i = 0; i < 1000; i++) {
        w->part[0][i] = (uint8_t)(60 + i % 70);
        w->part[1][i] = (uint8_t)(140 + i % 90);
    }
    memcpy(w->want + 100, w->part[0], 1000);
    memcpy(w->want + 1200, w->part[1] + 50, 400);
    for (int i = 0; i < 2; i++) {
        w->path[i] = path_join(dir, i ? "part 1" : "part0");
        file_write(w->path[i], w->part[i], i ? 500 : 1000);
        assert_int_equal(stat(w->path[i], &w->st[i]), 0);
    }
    struct err e;
    file_write(w->mount, w->file, sizeof w->file);
    assert_int_equal(source_open(&w->src, w->mount, &e), 0);
}

static void world_free(struct world *w)
{
    source_close(w->src);
    free(w->mount);
    free(w->path[0]);
    free(w->path[1]);
}

/* off: added to dev, ino, size, mtime of part 1. */
static void world_map(const struct world *w, struct extent_map *m, const int off[4])
{
    char text[2000];
    size_t n = (size_t)snprintf(text, sizeof text, "aprfs-extents 1");
    for (int i = 0; i < 2; i++) {
        const struct stat *st = &w->st[i];
        int64_t mtime = st->st_mtim.tv_sec * INT64_C(1000000000) + st->st_mtim.tv_nsec;
        n += (size_t)snprintf(text + n, sizeof text - n,
                              "\npart %d %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRId64 " %s", i,
                              (uint64_t)st->st_dev + (uint64_t)(i * off[0]),
                              (uint64_t)st->st_ino + (uint64_t)(i * off[1]),
                              (uint64_t)st->st_size + (uint64_t)(i * off[2]), mtime + i * off[3],
                              w->path[i]);
    }
    snprintf(text + n, sizeof text - n, "%s",
             "\nmap 0 100 mem 0\nmap 100 1000 0 0\nmap 1100 100 zero 0\nmap 1200 400 1 50\n"
             "map 1600 400 mem 0");
    struct err e;
    if (parse(m, text, 2000, &e) < 0)
        fail_msg("%s", e.msg);
}

static const int same[4];

static void extent_source_reads_parts_and_mount(void **state)
{
    (void)state;
    struct world w;
    struct extent_map m;
    struct source *s;
    struct err e = {0};
    uint8_t got[2000];
    world_new(&w);
    world_map(&w, &m, same);
    assert_int_equal(extent_open_parts(&m, &e), 0);
    assert_int_equal(extent_source(&s, w.src, &m, &e), 0);
    assert_true(source_size(s) == 2000);
    for (uint64_t off = 0; off < 2000; off += 37)
        for (size_t len = 0; len <= 2000 - off; len += 89) {
            memset(got, 0xEE, sizeof got);
            assert_int_equal(source_read(s, got, off, len, &e), 0);
            assert_memory_equal(got, w.want + off, len);
            assert_true(len == sizeof got || got[len] == 0xEE);
        }
    assert_int_equal(source_read(s, got, 1999, 2, &e), -ERANGE);
    source_close(s);
    world_free(&w);
}

/* Any of the four that differs, or a part that is not there: named, and nothing is read. */
static void extent_parts_must_be_the_ones_meant(void **state)
{
    (void)state;
    struct world w;
    struct extent_map m;
    struct err e = {0};
    world_new(&w);
    for (int i = 0; i < 4; i++) {
        int off[4] = {0};
        off[i] = 1;
        world_map(&w, &m, off);
        assert_int_equal(extent_open_parts(&m, &e), -ESTALE);
        assert_non_null(strstr(e.msg, "part 1"));
        extent_release(&m);
    }
    world_map(&w, &m, same);
    unlink(w.path[1]);
    assert_int_equal(extent_open_parts(&m, &e), -ENOENT);
    extent_release(&m);
    world_map(&w, &m, same);
    assert_int_equal(mkfifo(w.path[1], 0600), 0); /* must not hang */
    assert_int_equal(extent_open_parts(&m, &e), -EINVAL);
    extent_release(&m);
    unlink(w.path[1]);
    world_free(&w);
}

/* After the last byte: a part that was written to meanwhile, or the mount's file, is -ESTALE. */
static void extent_source_notices_changes(void **state)
{
    (void)state;
    for (int which = 0; which < 3; which++) {
        struct world w;
        struct extent_map m;
        struct source *s;
        struct err e = {0};
        world_new(&w);
        world_map(&w, &m, same);
        assert_int_equal(extent_open_parts(&m, &e), 0);
        assert_int_equal(extent_source(&s, w.src, &m, &e), 0);
        assert_int_equal(source_check(s, &e), 0);
        const char *path = which < 2 ? w.path[which] : w.mount;
        FILE *f = fopen(path, "ab");
        assert_non_null(f);
        fputc(0, f);
        fclose(f);
        assert_int_equal(source_check(s, &e), -ESTALE);
        assert_non_null(strstr(e.msg, path));
        source_close(s);
        world_free(&w);
    }
}

/* --- which files are asked ------------------------------------------------------------------ */

static void extent_knows_a_mount_by_its_type(void **state)
{
    (void)state;
    char *root = path_join(dir, "root"), *proc = path_join(root, "proc");
    char *self = path_join(proc, "self"), *path = path_join(self, "mountinfo");
    static const char text[] =
        "22 28 0:21 / /proc rw,nosuid - proc proc rw\n"
        "28 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "36 28 0:45 / /mnt/a\\040b ro,nosuid shared:7 master:2 - fuse.aprfs /models ro,user_id=0\n"
        "37 28 0:46 / /mnt/s rw - fuse.sshfs host:/fuse.aprfs rw\n"
        "38 28 0:47 / /mnt/z rw - fuse.aprfsx /models rw\n";
    mkdir(root, 0700);
    mkdir(proc, 0700);
    mkdir(self, 0700);
    assert_false(extent_is_mount(root, makedev(0, 45))); /* no such file */
    file_write(path, text, sizeof text - 1);
    assert_true(extent_is_mount(root, makedev(0, 45)));
    assert_false(extent_is_mount(root, makedev(0, 46)));
    assert_false(extent_is_mount(root, makedev(0, 47)));
    assert_false(extent_is_mount(root, makedev(0, 4)));
    assert_false(extent_is_mount(root, makedev(254, 1)));
    free(path);
    free(self);
    free(proc);
    free(root);
}

/* An ordinary file is read as what it is, and nobody is told why. */
static void extent_leaves_ordinary_files_alone(void **state)
{
    (void)state;
    struct world w;
    struct source *s = NULL, *mem = mem_source("abc", 3, "memory");
    char why[EXTENT_WHY] = "x";
    world_new(&w);
    assert_int_equal(extent_find(&s, w.src, why), EXTENT_FILE);
    assert_null(s);
    assert_string_equal(why, "");
    assert_int_equal(extent_find(&s, mem, why), EXTENT_FILE);
    assert_null(s);
    source_close(mem);
    world_free(&w);
}

/* --- published checksums --------------------------------------------------------------------- */

static void published_crc_must_agree(void **state)
{
    (void)state;
    static const char text[] = "cbf43926 b.weight\n00000001 a weight\nDEADBEEF c";
    struct published *p;
    struct err e = {0};
    assert_int_equal(published_parse(&p, text, sizeof text - 1, &e), 0);
    assert_int_equal(published_check(p, "b.weight", 0xcbf43926, &e), 0);
    assert_int_equal(published_check(p, "a weight", 1, &e), 0);
    assert_int_equal(published_check(p, "c", 0xdeadbeef, &e), 0);
    assert_int_equal(published_check(p, "unlisted", 5, &e), 0);
    assert_int_equal(published_check(p, "b.weight", 0xcbf43927, &e), -EUCLEAN);
    assert_non_null(strstr(e.msg, "'b.weight'"));
    assert_non_null(strstr(e.msg, "cbf43927"));
    assert_non_null(strstr(e.msg, "cbf43926"));
    assert_int_equal(published_check(NULL, "b.weight", 0, &e), 0);
    published_free(p);
    published_free(NULL);
}

static void published_crc_refuses_what_is_no_list(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        size_t len;
    } bad[] = {{"cbf4392 b", 9},
               {"cbf439261 b", 11},
               {"cbf43926b", 9},
               {"cbf43926 ", 9},
               {"0xf43926 b", 10},
               {"cbf43926 b\n\ncbf43926 c", 22},
               {"cbf43926 b\ncbf43926 b", 21},
               {"cbf43926 b\0c", 12}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct published *p = NULL;
        struct err e = {0};
        uint8_t *text = guard_new(bad[i].text, bad[i].len);
        if (published_parse(&p, (const char *)text, bad[i].len, &e) != -EUCLEAN)
            fail_msg("case %zu: taken, '%s'", i, e.msg);
        guard_free(text, bad[i].len);
    }
}

/* A file that has none is fine; one that cannot be asked is not the same. */
static void published_crc_tells_none_from_unreadable(void **state)
{
    (void)state;
    struct world w;
    struct published *p = NULL;
    struct source *mute = NULL;
    struct err e = {0};
    world_new(&w);
    assert_int_equal(published_read(&p, w.src, &e), 0);
    assert_null(p);
    /* open(2): fgetxattr() on an O_PATH descriptor is EBADF */
    int fd = open(w.path[0], O_PATH | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(source_from_fd(&mute, fd, "mute", &e), 0);
    assert_int_equal(published_read(&p, mute, &e), -EBADF);
    assert_non_null(strstr(e.msg, "mute: user.aprfs.crc32: "));
    source_close(mute);
    world_free(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(extent_reads_the_text),
        cmocka_unit_test(extent_refuses_what_is_not_that_text),
        cmocka_unit_test(extent_source_reads_parts_and_mount),
        cmocka_unit_test(extent_parts_must_be_the_ones_meant),
        cmocka_unit_test(extent_source_notices_changes),
        cmocka_unit_test(extent_knows_a_mount_by_its_type),
        cmocka_unit_test(extent_leaves_ordinary_files_alone),
        cmocka_unit_test(published_crc_must_agree),
        cmocka_unit_test(published_crc_refuses_what_is_no_list),
        cmocka_unit_test(published_crc_tells_none_from_unreadable),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("extent", tests, NULL, NULL);
    free(dir);
    return rc;
}
