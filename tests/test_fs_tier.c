/* Tiers: the composed file's bytes, the choice, and that every failure on the way ends in tier 2, counted,
 * with the reader none the wiser. The file system's and the kernel's parts are replaced: a clone that copies,
 * a registration that keeps the descriptor. */
#include "fs/tier.h"

#include "format/quant.h"
#include "format/vplan.h"
#include "fs/compat.h"
#include "tests/vfile_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BOTH (COMPAT_MMAP_DIRECT | COMPAT_PASSTHROUGH)

/* What fails, at which call of it (1: the probe's). */
static enum { FAIL_NONE, FAIL_TMPFILE, FAIL_CLONE, FAIL_REOPEN, FAIL_REGISTER } failing;
static int fail_from, fail_rc;
static atomic_int n_call, n_registered, n_closed;
static int last_fd = -1;
static uint64_t cloned;
static void (*at_clone)(void);

static int faulty(int which)
{
    return failing == (unsigned)which && atomic_fetch_add(&n_call, 1) + 1 >= fail_from ? fail_rc
                                                                                       : 0;
}

static int fake_tmpfile(const char *dir)
{
    (void)dir;
    int rc = faulty(FAIL_TMPFILE), fd = rc ? rc : memfd_create("composed", MFD_CLOEXEC);
    return fd;
}

static int fake_clone(int to, uint64_t to_off, int from, uint64_t from_off, uint64_t len)
{
    int rc = faulty(FAIL_CLONE);
    assert_int_equal(to_off % VPLAN_SHIFT, 0);
    assert_int_equal(from_off % VPLAN_SHIFT, 0);
    assert_int_equal(len % VPLAN_SHIFT, 0);
    uint8_t *p = malloc(len);
    if (rc == 0 && (pread(from, p, len, (off_t)from_off) != (ssize_t)len ||
                    pwrite(to, p, len, (off_t)to_off) != (ssize_t)len))
        rc = -EIO;
    free(p);
    cloned += len;
    if (at_clone)
        at_clone();
    return rc;
}

static int fake_reopen(int fd)
{
    int rc = faulty(FAIL_REOPEN);
    return rc ? rc : compose_sys.reopen(fd);
}

static const struct compose_sys sys = {fake_tmpfile, fake_clone, fake_reopen};

static int fake_register(void *ctx, int fd, int32_t *id)
{
    (void)ctx;
    assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    int rc = faulty(FAIL_REGISTER);
    if (rc < 0)
        return rc;
    if (last_fd >= 0)
        close(last_fd);
    last_fd = dup(fd);
    *id = atomic_fetch_add(&n_registered, 1) + 1;
    return 0;
}

static int fake_unregister(void *ctx, int32_t id)
{
    (void)ctx;
    assert_true(id > 0);
    atomic_fetch_add(&n_closed, 1);
    return 0;
}

static struct rig *rig_new(uint32_t type, uint32_t norm_type, int n_shard,
                           const struct tiers_options *more)
{
    struct gguf_build_opt o = gguf_build_defaults("llama");
    struct err e = {0};
    o.n_embd = 256;
    o.n_ff = 512;
    o.type = type;
    o.norm_type = norm_type;
    struct rig *r = rig_build(gguf_build_llama_like("llama", &o), n_shard, VAPR_ENGINE);
    rig_scan(r);
    vfile_set_ino(r->vf, 42);
    struct tiers_options to = {.compose = true, .dir = "/tmp", .direct_comms = "cp:cat"};
    if (more)
        to = *more;
    to.sys = &sys;
    to.backing_open = fake_register;
    to.backing_close = fake_unregister;
    assert_int_equal(tiers_new(&r->t, &to, &e), 0);
    failing = FAIL_NONE;
    fail_from = 1;
    atomic_store(&n_call, 0);
    atomic_store(&n_registered, 0);
    atomic_store(&n_closed, 0);
    cloned = 0;
    return r;
}

static void rig_free(struct rig *r)
{
    tiers_free(r->t);
    rig_release(r);
}

static enum tier_mode open_once(struct rig *r, unsigned granted)
{
    struct err e = {0};
    struct tier_open o;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(tiers_open(r->t, r->vf, granted, getpid(), &o, &e), 0);
    enum tier_mode m = o.mode;
    tiers_close(r->t, &o);
    vfile_close(r->vf);
    return m;
}

static void text_is(struct rig *r, const char *want)
{
    struct err e = {0};
    char text[256];
    assert_int_equal(tiers_text(r->t, r->vf, BOTH, text, sizeof text, &e), 0);
    assert_string_equal(text, want);
}

/* The registered file has the bytes of vfile_read. */
static void same_bytes(struct rig *r)
{
    struct err e = {0};
    struct stat st;
    size_t got, size = vfile_size(r->vf);
    uint8_t *a = malloc(size), *b = malloc(size);
    assert_int_equal(fstat(last_fd, &st), 0);
    assert_int_equal(st.st_size, size);
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(vfile_read(r->vf, a, 0, size, &got, &e), 0);
    vfile_close(r->vf);
    assert_int_equal(pread(last_fd, b, size, 0), size);
    assert_memory_equal(a, b, size);
    free(a);
    free(b);
}

static void tier_composes_equal_bytes(void **state)
{
    (void)state;
    static const struct {
        uint32_t type, norm;
        int n_shard;
    } row[] = {{QUANT_F32, QUANT_F32, 0},
               {QUANT_F32, QUANT_F16, 0}, /* with a side area */
               {QUANT_F32, QUANT_F32, 3}};
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct rig *r = rig_new(row[i].type, row[i].norm, row[i].n_shard, NULL);
        assert_int_equal(open_once(r, BOTH), TIER_1A);
        assert_true(cloned >= 2 * VPLAN_SHIFT); /* the probe's block and more */
        same_bytes(r);
        text_is(r, "1a");
        rig_free(r);
    }
}

static void tier_failures_fall_back(void **state)
{
    (void)state;
    static const int rcs[] = {EOPNOTSUPP, EXDEV, EINVAL, EPERM, ELOOP, ENOSPC, EMFILE};
    for (int where = FAIL_TMPFILE; where <= FAIL_REGISTER; where++)
        for (size_t k = 0; k < sizeof rcs / sizeof *rcs; k++)
            for (int from = 1; from <= 2; from++) { /* in the probe; after it */
                struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
                struct tiers_stats st;
                failing = (unsigned)where;
                fail_rc = -rcs[k];
                fail_from = from;
                assert_int_equal(open_once(r, BOTH), TIER_CACHED);
                tiers_get_stats(r->t, &st);
                assert_int_equal(st.fallback[rcs[k]], 1);
                assert_int_equal(st.composed, 0);
                assert_int_equal(st.kept, 0);
                /* What was registered in vain is let go again. */
                assert_int_equal(atomic_load(&n_registered), atomic_load(&n_closed));
                rig_free(r);
            }
}

static void tier_is_off_after_three_failures(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    failing = FAIL_REGISTER;
    fail_rc = -EMFILE;
    fail_from = 2; /* the probe succeeds */
    for (int i = 0; i < 3; i++) {
        text_is(r, "1a");
        assert_int_equal(open_once(r, BOTH), TIER_CACHED);
    }
    int calls = atomic_load(&n_call);
    text_is(r, "2 off after 3 failures in a row; SIGHUP tries again");
    assert_int_equal(open_once(r, BOTH), TIER_CACHED);
    assert_int_equal(atomic_load(&n_call), calls);
    failing = FAIL_NONE;
    tiers_rearm(r->t);
    assert_int_equal(open_once(r, BOTH), TIER_1A);
    rig_free(r);
}

/* Being out of descriptors for a moment says nothing about the file system, for good. */
static void tier_probe_without_descriptors_is_repeated(void **state)
{
    (void)state;
    static const int passing[] = {EMFILE, ENFILE, ENOMEM}, lasting[] = {EOPNOTSUPP, ENOSPC, EPERM};
    for (size_t i = 0; i < 6; i++) {
        struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
        struct tiers_stats st;
        failing = FAIL_TMPFILE;
        fail_rc = i < 3 ? -passing[i] : -lasting[i - 3];
        assert_int_equal(open_once(r, BOTH), TIER_CACHED);
        failing = FAIL_NONE;
        assert_int_equal(open_once(r, BOTH), i < 3 ? TIER_1A : TIER_CACHED);
        tiers_get_stats(r->t, &st);
        assert_int_equal(st.fallback[-fail_rc], i < 3 ? 1 : 2);
        rig_free(r);
    }
    /* But three times in a row is enough, as of all failures. */
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    failing = FAIL_TMPFILE;
    fail_rc = -EMFILE;
    for (int i = 0; i < 3; i++)
        assert_int_equal(open_once(r, BOTH), TIER_CACHED);
    text_is(r, "2 off after 3 failures in a row; SIGHUP tries again");
    rig_free(r);
}

/* footer=crc: tier 2 until its checksum is known. */
static void tier_composes_a_known_footer(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    rig_forget(r);
    r->opt.vapr.footer = VAPR_FOOTER_CRC;
    rig_scan(r);
    vfile_set_ino(r->vf, 43);
    assert_int_equal(open_once(r, BOTH), TIER_CACHED);
    text_is(r, "2 the footer's checksum is not known before all was read");
    struct tiers_stats st;
    tiers_get_stats(r->t, &st);
    assert_int_equal(st.fallback[0], 1);
    struct err e = {0};
    uint8_t footer[4];
    size_t got;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(vfile_read(r->vf, footer, vfile_size(r->vf) - 4, 4, &got, &e), 0);
    vfile_close(r->vf);
    assert_int_equal(open_once(r, BOTH), TIER_1A);
    same_bytes(r);
    rig_free(r);
}

/* A part as it stands is one extent, shared whole. */
static void tier_composes_a_part(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 3, NULL);
    struct err e = {0};
    struct vfile *model = r->vf;
    assert_int_equal(vfile_new_part(&r->vf, &r->env, r->scan, 0, 0, 1, &e), 0);
    vfile_set_ino(r->vf, 44);
    uint64_t whole = vfile_size(r->vf) / VPLAN_SHIFT * VPLAN_SHIFT;
    assert_true(whole > 0);
    assert_int_equal(open_once(r, BOTH), TIER_1A);
    assert_int_equal(cloned, VPLAN_SHIFT + whole); /* the probe's block, then all whole blocks */
    same_bytes(r);
    vfile_put(model);
    rig_free(r);
}

static void tier_success_ends_the_row_of_failures(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL); /* keep_s 0: each open is a first one */
    for (int i = 0; i < 8; i++) {
        failing = i % 3 == 2 ? FAIL_NONE : FAIL_TMPFILE;
        fail_from = i == 0 ? 2 : 1;
        fail_rc = -ENOSPC;
        enum tier_mode m = open_once(r, BOTH);
        assert_int_equal(m, i % 3 == 2 ? TIER_1A : TIER_CACHED);
        struct tiers_stats st;
        do /* the reaper lets the id go */
            tiers_get_stats(r->t, &st);
        while (st.kept > 0);
    }
    rig_free(r);
}

static void tier_keeps_one_id_per_inode(void **state)
{
    (void)state;
    struct tiers_options to = {.compose = true, .dir = "/tmp", .keep_s = 60};
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, &to);
    struct tier_open a, b;
    struct err e = {0};
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &a, &e), 0);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &b, &e), 0);
    assert_int_equal(a.backing_id, b.backing_id);
    assert_true(tiers_is_1a(r->t, 42));
    tiers_close(r->t, &a);
    tiers_close(r->t, &b);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &a, &e), 0); /* within keep_s */
    assert_int_equal(a.backing_id, b.backing_id);
    tiers_close(r->t, &a);
    vfile_close(r->vf);
    assert_int_equal(atomic_load(&n_registered), 2); /* the probe's, the file's */
    rig_free(r);
}

static void tier_of_an_open_file_stays(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    struct tier_open a, b;
    struct err e = {0};
    failing = FAIL_CLONE;
    fail_from = 2;
    fail_rc = -EMFILE;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &a, &e), 0);
    assert_int_equal(a.mode, TIER_CACHED);
    failing = FAIL_NONE; /* the kernel would refuse a passthrough beside a cached open */
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &b, &e), 0);
    assert_int_equal(b.mode, TIER_CACHED);
    tiers_close(r->t, &a);
    tiers_close(r->t, &b);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &a, &e), 0);
    assert_int_equal(a.mode, TIER_1A);
    tiers_close(r->t, &a);
    vfile_close(r->vf);
    rig_free(r);
}

static char *victim;

static void touch_victim(void)
{
    struct timespec t[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    if (cloned > VPLAN_SHIFT) /* not yet while the file system is probed */
        assert_int_equal(utimensat(AT_FDCWD, victim, t, 0), 0);
}

static void tier_source_changed_while_composing_is_stale(void **state)
{
    (void)state;
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    struct tier_open o;
    struct err e = {0};
    assert_true(asprintf(&victim, "%s/m.gguf", r->root) > 0);
    at_clone = touch_victim;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(tiers_open(r->t, r->vf, BOTH, 0, &o, &e), -ESTALE);
    at_clone = NULL;
    tiers_close(r->t, &o); /* nothing: it never was open */
    vfile_close(r->vf);
    free(victim);
    rig_free(r);
}

static void *open_thread(void *ctx)
{
    struct rig *r = ctx;
    for (int i = 0; i < 20; i++)
        if (open_once(r, BOTH) != TIER_1A)
            return r;
    return NULL;
}

static void tier_opens_from_many_threads(void **state)
{
    (void)state;
    for (unsigned keep = 0; keep <= 60; keep += 60) {
        struct tiers_options to = {.compose = true, .dir = "/tmp", .keep_s = keep};
        struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, &to);
        pthread_t t[4];
        assert_int_equal(open_once(r, BOTH), TIER_1A); /* cmocka asserts in this thread alone */
        for (int i = 0; i < 4; i++)
            assert_int_equal(pthread_create(&t[i], NULL, open_thread, r), 0);
        for (int i = 0; i < 4; i++) {
            void *bad;
            pthread_join(t[i], &bad);
            assert_null(bad);
        }
        if (keep)
            assert_int_equal(atomic_load(&n_registered), 2);
        rig_free(r);
    }
}

static void tier_choices_without_1a(void **state)
{
    (void)state;
    char comm[32] = "";
    int fd = open("/proc/self/comm", O_RDONLY | O_CLOEXEC);
    assert_true(read(fd, comm, sizeof comm - 1) > 0);
    close(fd);
    comm[strcspn(comm, "\n")] = '\0';
    char list[64];
    snprintf(list, sizeof list, "cp:%s:cat", comm);
    const struct {
        enum option_cache cache;
        const char *comms;
        unsigned granted;
        uint32_t norm;
        enum tier_mode want;
    } row[] = {
        {CACHE_AUTO, "cp:cat", BOTH, QUANT_F32, TIER_CACHED},
        {CACHE_AUTO, list, BOTH, QUANT_F32, TIER_DIRECT},
        {CACHE_AUTO, list, BOTH, QUANT_F16, TIER_CACHED}, /* converted bytes are dear */
        {CACHE_AUTO, list, 0, QUANT_F32, TIER_CACHED},    /* shared maps would be ENODEV */
        {CACHE_AUTO, "", BOTH, QUANT_F32, TIER_CACHED},
        {CACHE_AUTO, NULL, BOTH, QUANT_F32, TIER_CACHED},
        {CACHE_ALWAYS, list, BOTH, QUANT_F32, TIER_CACHED},
        {CACHE_NEVER, "", 0, QUANT_F16, TIER_DIRECT},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct tiers_options to = {.cache = row[i].cache, .direct_comms = row[i].comms};
        struct rig *r = rig_new(QUANT_F32, row[i].norm, 0, &to);
        assert_int_equal(open_once(r, row[i].granted), row[i].want);
        text_is(r, "2 compose=never");
        rig_free(r);
    }
    struct rig *r = rig_new(QUANT_F32, QUANT_F32, 0, NULL);
    assert_int_equal(open_once(r, COMPAT_MMAP_DIRECT), TIER_CACHED); /* no passthrough */
    rig_free(r);
    struct tiers_options no = {.compose = true, .dir = "/tmp", .why_not = "for a reason"};
    r = rig_new(QUANT_F32, QUANT_F32, 0, &no);
    assert_int_equal(open_once(r, BOTH), TIER_CACHED);
    text_is(r, "2 for a reason");
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tier_composes_equal_bytes),
        cmocka_unit_test(tier_failures_fall_back),
        cmocka_unit_test(tier_is_off_after_three_failures),
        cmocka_unit_test(tier_probe_without_descriptors_is_repeated),
        cmocka_unit_test(tier_composes_a_known_footer),
        cmocka_unit_test(tier_composes_a_part),
        cmocka_unit_test(tier_success_ends_the_row_of_failures),
        cmocka_unit_test(tier_keeps_one_id_per_inode),
        cmocka_unit_test(tier_of_an_open_file_stays),
        cmocka_unit_test(tier_source_changed_while_composing_is_stale),
        cmocka_unit_test(tier_opens_from_many_threads),
        cmocka_unit_test(tier_choices_without_1a),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
