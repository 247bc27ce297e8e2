/* Files by their plan: every read equals vapr_read's bytes, whatever offset and length; a source that
 * changes is an error; texts are made once. */
#include "fs/pinned.h"
#include "tests/vfile_rig.h"

#include "format/quant.h"
#include "format/vapr.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_stale(void *ctx, struct vfile *vf, const char *why)
{
    struct rig *r = ctx;
    (void)vf;
    assert_non_null(why);
    r->n_stale++;
}

/* Takes b. */
static struct rig *rig_new(struct gguf_build *b, int n_shard, enum vapr_profile profile)
{
    struct rig *r = rig_build(b, n_shard, profile);
    r->env.stale = on_stale;
    r->env.ctx = r;
    struct store *s = rig_scan(r);
    struct err e = {0};
    assert_int_equal(store_plan_open(&r->plan, s, &s->entry[0], &e), 0);
    return r;
}

static void rig_free(struct rig *r)
{
    store_plan_close(r->plan);
    rig_release(r);
}

static struct gguf_build *model(const char *arch, uint32_t type, uint32_t n_vocab)
{
    struct gguf_build_opt o = gguf_build_defaults(arch);
    o.n_embd = 256;
    o.n_ff = 512;
    o.type = type;
    o.n_vocab = n_vocab;
    o.norm_type = QUANT_F16;
    return gguf_build_llama_like(arch, &o);
}

/* The whole file by vapr_read. */
static uint8_t *expected(struct rig *r, uint64_t *size)
{
    struct err e = {0};
    size_t got;
    *size = vapr_size(r->plan->vapr);
    uint8_t *p = malloc(*size);
    assert_non_null(p);
    if (vapr_read(r->plan->vapr, p, 0, *size, &got, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(got, *size);
    return p;
}

static void check_range(struct rig *r, const uint8_t *want, uint64_t size, uint64_t off, size_t len,
                        uint8_t *buf)
{
    struct err e = {0};
    size_t got, n = off >= size ? 0 : len > size - off ? size - off : len;
    if (vfile_read(r->vf, buf, off, len, &got, &e) < 0)
        fail_msg("%llu+%zu: %s", (unsigned long long)off, len, e.msg);
    assert_int_equal(got, n);
    assert_memory_equal(buf, want + (n ? off : 0), n);
}

static const struct {
    const char *arch;
    uint32_t type;
    int n_shard;
    enum vapr_profile profile;
    uint32_t n_vocab;
} files[] = {
    {"llama", QUANT_F32, 0, VAPR_ENGINE, 300},   {"llama", QUANT_Q8_0, 0, VAPR_ENGINE, 4096},
    {"llama", QUANT_Q8_0, 3, VAPR_ENGINE, 300},  {"qwen2", QUANT_Q5_0, 0, VAPR_STRICT, 4000},
    {"qwen2", QUANT_Q4_K, 0, VAPR_STRICT, 300},  {"gemma3", QUANT_Q6_K, 2, VAPR_STRICT, 300},
    {"llama", QUANT_BF16, 0, VAPR_STRICT, 4001}, {"llama", QUANT_IQ4_XS, 0, VAPR_NATIVE, 300},
};

static void vfile_reads_equal_the_plan(void **state)
{
    (void)state;
    skip_under_tsan("one thread");
    struct rng rng;
    rng_init(&rng, test_seed());
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct rig *r = rig_new(model(files[i].arch, files[i].type, files[i].n_vocab),
                                files[i].n_shard, files[i].profile);
        struct err e = {0};
        uint64_t size;
        uint8_t *want = expected(r, &size), *buf = malloc(size + 16);
        assert_int_equal(vfile_size(r->vf), size);
        assert_int_equal(vfile_open(r->vf, &e), 0);
        check_range(r, want, size, 0, size + 16, buf);
        check_range(r, want, size, size, 16, buf);
        check_range(r, want, size, size + 5, 16, buf);
        check_range(r, want, size, UINT64_MAX, 16, buf);
        check_range(r, want, size, 10, 0, buf);
        size_t n_seg = vapr_n_seg(r->plan->vapr);
        for (size_t k = 0; k < n_seg; k++) { /* across each seam */
            uint64_t off = vapr_seg(r->plan->vapr, k)->off;
            for (int d = -3; d <= 3; d++)
                if (d >= 0 || off >= (uint64_t)-d)
                    for (size_t len = 1; len < 200; len = len * 3 + 1)
                        check_range(r, want, size, off + (uint64_t)d, len, buf);
        }
        for (int k = 0; k < 300; k++)
            check_range(r, want, size, rng_below(&rng, size),
                        rng_below(&rng, (uint64_t)1 << rng_below(&rng, 21)), buf);
        vfile_close(r->vf);
        free(want);
        free(buf);
        rig_free(r);
    }
}

/* Bytes [off, off+n) of the file have a piece that is no file's, head's or zero. */
static bool has_made_bytes(const struct rig *r, uint64_t off, size_t n)
{
    for (size_t i = 0; i < vapr_n_seg(r->plan->vapr); i++) {
        const struct vseg *s = vapr_seg(r->plan->vapr, i);
        if ((s->kind == VSEG_CONV || s->kind == VSEG_CRC) && s->off < off + n &&
            off < s->off + s->len)
            return true;
    }
    return false;
}

/* The same bytes as pieces of a reply, of max at most; file is what the kernel copies them to. */
static void check_sent(struct rig *r, const uint8_t *want, uint64_t size, uint64_t off, size_t len,
                       int max, int file, uint8_t *buf)
{
    static struct iovec iov[1023];
    struct err e = {0};
    int n = 0;
    size_t got = 0, sum = 0, expect = size - off < len ? size - off : len;
    int rc = vfile_send(r->vf, off, len, off == 0, iov, max, &n, &got, buf, &e);
    if (rc < 0)
        fail_msg("%llu+%zu: %s", (unsigned long long)off, len, e.msg);
    if (rc == 0 && has_made_bytes(r, off, expect))
        return;
    if (rc == 0)
        fail_msg("%llu+%zu in %d pieces: not to be had", (unsigned long long)off, len, max);
    assert_in_range(n, 1, max);
    assert_int_equal(got, expect);
    assert_int_equal(lseek(file, 0, SEEK_SET), 0);
    for (int i = 0; i < n; i++) {
        assert_true(iov[i].iov_len > 0);
        assert_int_equal(write(file, iov[i].iov_base, iov[i].iov_len), iov[i].iov_len);
        sum += iov[i].iov_len;
    }
    vfile_sent(r->vf, got);
    assert_int_equal(sum, expect);
    uint8_t *sent = malloc(expect);
    assert_int_equal(pread(file, sent, expect, 0), expect);
    assert_memory_equal(sent, want + off, expect);
    free(sent);
}

static void vfile_sends_what_it_reads(void **state)
{
    (void)state;
    static const int max[] = {1023, 3, 4, 9, 64};
    struct rng rng;
    int file = memfd_create("sent", MFD_CLOEXEC);
    rng_init(&rng, test_seed());
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct rig *r = rig_new(model(files[i].arch, files[i].type, files[i].n_vocab),
                                files[i].n_shard, files[i].profile);
        struct err e = {0};
        uint64_t size;
        uint8_t *want = expected(r, &size), *buf = malloc((1 << 20) + 16);
        r->env.lease = true;
        assert_int_equal(vfile_open(r->vf, &e), 0);
        if (!pinned_leased(vfile_pins(r->vf)))
            skip_because("no leases on the file system of %s", r->root);
        for (size_t m = 0; m < 2; m++)
            for (uint64_t off = 0; off < size; off += 1 << 20)
                check_sent(r, want, size, off, 1 << 20, max[m], file, buf);
        for (int k = 0; k < 100; k++)
            check_sent(r, want, size, rng_below(&rng, size), 1 + rng_below(&rng, 1 << 20),
                       max[rng_below(&rng, sizeof max / sizeof *max)], file, buf);
        vfile_close(r->vf);
        assert_int_equal(atomic_load(&r->env.n_open), 0);
        free(want);
        free(buf);
        rig_free(r);
    }
    close(file);
}

/* 1024 is the kernel's limit for one writev (IOV_MAX), of which the reply's header takes one. */
static void vfile_sends_more_segments_than_a_reply_has_pieces(void **state)
{
    (void)state;
    struct gguf_build_opt o = gguf_build_defaults("llama");
    o.n_layer = 400;
    o.n_embd = o.n_ff = 8; /* norms of 32 bytes: strict places each anew, with zeros between */
    o.n_head = o.n_head_kv = 2;
    struct rig *r = rig_new(gguf_build_llama_like("llama", &o), 0, VAPR_STRICT);
    struct err e = {0};
    uint64_t size;
    uint8_t *want = expected(r, &size), *buf = malloc(1 << 20);
    int file = memfd_create("sent", MFD_CLOEXEC);
    r->env.lease = true;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    if (!pinned_leased(vfile_pins(r->vf)))
        skip_because("no leases on the file system of %s", r->root);
    size_t n = vapr_n_seg(r->plan->vapr);
    assert_true(n > 1500);
    uint64_t from = vapr_seg(r->plan->vapr, n - 1500)->off;
    assert_true(size - from <= 1 << 20); /* one request */
    check_sent(r, want, size, from, 1 << 20, 1023, file, buf);
    for (uint64_t off = 0; off < size; off += 1 << 20)
        check_sent(r, want, size, off, 1 << 20, 1023, file, buf);
    vfile_close(r->vf);
    close(file);
    free(want);
    free(buf);
    rig_free(r);
}

/* A cold range is read ahead for who goes on behind it, and for nobody else: no reply touches it here. */
static void vfile_reads_ahead_of_who_goes_on(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 4096), 0, VAPR_ENGINE);
    struct err e = {0};
    static struct iovec iov[1023];
    uint8_t *buf = malloc(1 << 20);
    r->env.lease = true;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    bool leased = pinned_leased(vfile_pins(r->vf));
    int n, fd = source_fd(r->plan->part[0]);
    size_t got, i = 0;
    while (vapr_seg(r->plan->vapr, i)->kind != VSEG_FILE ||
           vapr_seg(r->plan->vapr, i)->len < 2 << 20)
        i++; /* the embedding's 4 MiB */
    const struct vseg *s = vapr_seg(r->plan->vapr, i);
    bool cold = leased && pages_dropped(fd);
    for (int ahead = 0; cold && ahead < 2; ahead++) {
        assert_int_equal(vfile_send(r->vf, s->off, 1 << 20, ahead, iov, 1023, &n, &got, buf, &e),
                         1);
        vfile_sent(r->vf, got);
        size_t there = pages_cached(fd, s->src_off & ~(uint64_t)4095, 1 << 20);
        assert_int_equal(there > 0, ahead);
    }
    char *root = strdup(r->root);
    vfile_close(r->vf);
    free(buf);
    rig_free(r);
    if (!cold)
        skip_because("%s: no leases, or a file system that keeps a file's pages", root);
    free(root);
}

struct reader {
    struct rig *r;
    const uint8_t *want;
    uint64_t size, seed;
    int bad;
};

/* Threads may not use cmocka's asserts: they count. */
static void *reader_main(void *ctx)
{
    struct reader *rd = ctx;
    struct rng rng;
    struct err e;
    size_t got;
    uint8_t *buf = malloc(1 << 20);
    rng_init(&rng, rd->seed);
    for (int i = 0, n = UNDER_TSAN && !long_run() ? 40 : 150; buf && i < n; i++) {
        uint64_t off = rng_below(&rng, rd->size);
        size_t len = rng_below(&rng, 1 << 20);
        rd->bad += vfile_open(rd->r->vf, &e) < 0;
        rd->bad += vfile_read(rd->r->vf, buf, off, len, &got, &e) < 0 ||
                   memcmp(buf, rd->want + off, got) != 0;
        vfile_close(rd->r->vf);
    }
    rd->bad += !buf;
    free(buf);
    return NULL;
}

static void vfile_reads_from_many_threads(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_Q8_0, 4096), 0, VAPR_ENGINE);
    struct reader rd[8];
    pthread_t t[8];
    uint64_t size;
    uint8_t *want = expected(r, &size);
    for (int i = 0; i < 8; i++) {
        rd[i] =
            (struct reader){.r = r, .want = want, .size = size, .seed = test_seed() + (uint64_t)i};
        assert_int_equal(pthread_create(&t[i], NULL, reader_main, &rd[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(rd[i].bad, 0);
    }
    assert_int_equal(atomic_load(&r->env.n_open), 0);
    assert_true(vcache_mem(r->env.units) <= 3 << 20);
    free(want);
    rig_free(r);
}

static void vfile_changed_source_is_an_error_for_ever(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    uint8_t buf[4096];
    size_t got;
    char *path = path_join(r->root, "m.gguf");
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(vfile_read(r->vf, buf, 0, sizeof buf, &got, &e), 0);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
    assert_int_equal(vfile_read(r->vf, buf, 0, sizeof buf, &got, &e), -EIO);
    assert_int_equal(got, 0);
    assert_int_equal(r->n_stale, 1);
    assert_int_equal(truncate(path, st.st_size), 0); /* the old size again is not the old file */
    assert_int_equal(vfile_read(r->vf, buf, 0, sizeof buf, &got, &e), -EIO);
    assert_int_equal(vfile_open(r->vf, &e), -ESTALE);
    assert_int_equal(r->n_stale, 1);
    vfile_close(r->vf);
    assert_int_equal(vfile_open(r->vf, &e), -ESTALE);
    free(path);
    rig_free(r);
}

/* Somebody has it open, and has read nothing since it changed: who opens it now is sent to look again. */
static void vfile_open_of_what_changed_while_open_is_stale(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    char *path = path_join(r->root, "m.gguf");
    assert_int_equal(vfile_open(r->vf, &e), 0);
    assert_int_equal(vfile_open(r->vf, &e), 0);
    vfile_close(r->vf);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, st.st_size / 2), 0);
    assert_int_equal(vfile_open(r->vf, &e), -ESTALE);
    assert_int_equal(r->n_stale, 1);
    assert_int_equal(atomic_load(&r->env.n_open), 1);
    vfile_close(r->vf);
    free(path);
    rig_free(r);
}

/* A writer that maps the file changes it long before any time stamp tells: what was open while one came is
 * not opened again, though it looks as before; a model, and its GGUF as it stands. */
static void vfile_that_a_writer_opened_is_stale_for_ever(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    char *path = path_join(r->root, "m.gguf");
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, pinned_lease_signal());
    assert_int_equal(pthread_sigmask(SIG_BLOCK, &set, &old), 0);
    r->env.lease = true;
    for (int part = 0; part < 2; part++) {
        if (part) {
            vfile_put(r->vf);
            assert_int_equal(vfile_new_part(&r->vf, &r->env, r->scan, 0, 0, 0, &e), 0);
        }
        assert_int_equal(vfile_open(r->vf, &e), 0);
        if (!pinned_leased(vfile_pins(r->vf)))
            skip_because("no leases on the file system of %s", r->root);
        pid_t pid = fork();
        if (pid == 0)
            _exit(open(path, O_WRONLY) >= 0 ? 0 : 1); /* waits for what follows */
        struct timespec limit = {.tv_sec = 20};
        assert_int_equal(sigtimedwait(&set, NULL, &limit), pinned_lease_signal());
        pinned_lease_broken(-1);
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_true(vfile_stale(r->vf));
        vfile_close(r->vf);
        assert_int_equal(vfile_open(r->vf, &e), -ESTALE);
    }
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &old, NULL), 0);
    free(path);
    rig_free(r);
}

/* The page that a read fills first is closed; filling it lands here, in the middle of the read. */
static void *closed_page;
static const char *changed_path;

static void on_fault(int sig)
{
    int fd = open(changed_path, O_WRONLY);
    if (fd < 0 || pwrite(fd, "x", 1, 100) != 1 ||
        mprotect(closed_page, 4096, PROT_READ | PROT_WRITE) < 0)
        _exit(sig);
    close(fd);
}

static void vfile_change_in_the_middle_of_a_read_is_an_error(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    size_t got = 77, zero = 0;
    while (vapr_seg(r->plan->vapr, zero)->kind != VSEG_ZERO)
        zero++;
    const struct vseg *s = vapr_seg(r->plan->vapr, zero); /* filled by memset, in user space */
    char *path = path_join(r->root, "m.gguf");
    closed_page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(closed_page != MAP_FAILED && s->len > 0);
    changed_path = path;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    struct sigaction old, act = {.sa_handler = on_fault};
    assert_int_equal(sigaction(SIGSEGV, &act, &old), 0);
    int rc = vfile_read(r->vf, closed_page, s->off, s->len < 4096 ? s->len : 4096, &got, &e);
    sigaction(SIGSEGV, &old, NULL);
    assert_int_equal(rc, -EIO);
    assert_int_equal(got, 0);
    assert_int_equal(r->n_stale, 1);
    vfile_close(r->vf);
    munmap(closed_page, 4096);
    free(path);
    rig_free(r);
}

static void vfile_open_of_a_replaced_source_is_stale(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    for (int i = 0; i < 2; i++) { /* by a plan, then by what is remembered of it */
        assert_int_equal(vfile_open(r->vf, &e), 0);
        vfile_close(r->vf);
    }
    struct gguf_build *b = model("llama", QUANT_F32, 301);
    gguf_build_files(b, r->root, "m", 0);
    gguf_build_free(b);
    assert_int_equal(vfile_open(r->vf, &e), -ESTALE);
    char *path = path_join(r->root, "m.gguf");
    unlink(path);
    int rc = vfile_open(r->vf, &e);
    assert_true(rc == -ENOENT || rc == -ESTALE);
    assert_int_equal(atomic_load(&r->env.n_open), 0);
    free(path);
    rig_free(r);
}

static void vfile_deleted_source_is_read_to_its_end(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_Q8_0, 300), 2, VAPR_ENGINE);
    struct err e = {0};
    uint64_t size;
    uint8_t *want = expected(r, &size), *buf = malloc(size);
    assert_int_equal(vfile_open(r->vf, &e), 0);
    char *a = path_join(r->root, "m-00001-of-00002.gguf"),
         *b = path_join(r->root, "m-00002-of-00002.gguf");
    unlink(a);
    check_range(r, want, size, 0, size / 2, buf);
    unlink(b);
    check_range(r, want, size, 0, size, buf);
    assert_int_equal(r->n_stale, 0);
    vfile_close(r->vf);
    free(a);
    free(b);
    free(want);
    free(buf);
    rig_free(r);
}

/* The descriptor of a part, whose attributes can be asked, but no bytes: as of a server that forgot it. */
static void break_part(struct rig *r, int part)
{
    char way[40];
    int pinned = pinned_fd(vfile_pins(r->vf), part);
    snprintf(way, sizeof way, "/proc/self/fd/%d", pinned);
    int fd = open(way, O_PATH | O_CLOEXEC);
    assert_int_equal(dup2(fd, pinned), pinned);
    close(fd);
}

static void vfile_reads_once_more_through_new_descriptors(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_Q8_0, 300), 2, VAPR_ENGINE);
    struct err e = {0};
    uint64_t size;
    size_t got;
    uint8_t *want = expected(r, &size), *buf = malloc(size);
    assert_int_equal(vfile_open(r->vf, &e), 0);
    break_part(r, 0);
    break_part(r, 1);
    check_range(r, want, size, 0, size, buf);
    assert_int_equal(atomic_load(&r->env.n_renewed), 1);
    check_range(r, want, size, 0, size, buf);
    assert_int_equal(atomic_load(&r->env.n_renewed), 1);
    /* Not even attributes: for who reads, and for who opens what is open already. */
    close(pinned_fd(vfile_pins(r->vf), 0));
    check_range(r, want, size, 0, size, buf);
    assert_int_equal(atomic_load(&r->env.n_renewed), 2);
    close(pinned_fd(vfile_pins(r->vf), 1));
    assert_int_equal(vfile_open(r->vf, &e), 0);
    vfile_close(r->vf);
    assert_int_equal(atomic_load(&r->env.n_renewed), 3);
    check_range(r, want, size, 0, size, buf);
    /* Another file at that path is no help, nor is none. */
    char *path = path_join(r->root, "m-00002-of-00002.gguf"), *away = path_join(r->root, "away");
    break_part(r, 1);
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(vfile_read(r->vf, buf, 0, size, &got, &e), -EIO);
    struct gguf_build *b = model("llama", QUANT_Q8_0, 301);
    gguf_build_files(b, r->root, "m", 2);
    gguf_build_free(b);
    assert_int_equal(vfile_read(r->vf, buf, 0, size, &got, &e), -EIO);
    assert_int_equal(got, 0);
    assert_int_equal(atomic_load(&r->env.n_renewed), 3);
    vfile_close(r->vf);
    free(path);
    free(away);
    free(want);
    free(buf);
    rig_free(r);
}

/* Under a lease there is no server that comes back; and a new descriptor would have none. */
static void vfile_keeps_the_descriptors_of_its_leases(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_Q8_0, 300), 0, VAPR_ENGINE);
    struct err e = {0};
    size_t got;
    r->env.lease = true;
    assert_int_equal(vfile_open(r->vf, &e), 0);
    if (!pinned_leased(vfile_pins(r->vf)))
        skip_because("no leases on the file system of %s", r->root);
    uint64_t size = vfile_size(r->vf);
    uint8_t *buf = malloc(size);
    break_part(r, 0);
    assert_int_equal(vfile_read(r->vf, buf, 0, size, &got, &e), -EIO);
    assert_int_equal(atomic_load(&r->env.n_renewed), 0);
    vfile_close(r->vf);
    free(buf);
    rig_free(r);
}

static void vfile_texts_are_made_once(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("qwen2", QUANT_F32, 0), 0, VAPR_ENGINE);
    static const enum vfile_text which[] = {VFILE_EXTENTS, VFILE_LAYOUT, VFILE_TOKENIZER,
                                            VFILE_CONFIG};
    static const char *const begins[] = {"aprfs-extents 1\n", "congruent", "{", "{"};
    for (size_t i = 0; i < 4; i++) {
        struct vcache_item *a, *b;
        struct err e = {0};
        char head[32] = "";
        if (vfile_text(r->vf, which[i], NULL, &a, &e) < 0)
            fail_msg("text %zu: %s", i, e.msg);
        assert_int_equal(vfile_text(r->vf, which[i], NULL, &b, &e), 0);
        assert_ptr_equal(a, b);
        assert_int_equal(vcache_item_read(a, head, 0, strlen(begins[i]), &e), 0);
        assert_string_equal(head, begins[i]);
        vcache_put(r->env.texts, a);
        vcache_put(r->env.texts, b);
    }
    rig_free(r);
}

/* Whatever may tell two files apart is part of the generation. The device: two copies of one disk
 * image agree in all the rest, whatever was written into one of them since. */
static void vfile_generation_differs_in_every_field(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    uint8_t gen[32], other[32];
    struct store_entry en = r->scan->set->store[0]->entry[0];
    struct store_part part = en.part[0];
    en.part = &part;
    vfile_generation(gen, r->scan->set->store[0], &en);
    assert_memory_equal(gen, vfile_gen(r->vf), sizeof gen);
    uint64_t *const u[] = {&part.id.dev, &part.id.ino, &part.id.size};
    int64_t *const t[] = {&part.id.mtime_ns, &part.id.ctime_ns};
    for (size_t i = 0; i < 5; i++) {
        i < 3 ? (void)++*u[i] : (void)++*t[i - 3];
        vfile_generation(other, r->scan->set->store[0], &en);
        assert_memory_not_equal(gen, other, sizeof gen);
        i < 3 ? (void)--*u[i] : (void)--*t[i - 3];
    }
    en.head_sha256[0] ^= 1;
    vfile_generation(other, r->scan->set->store[0], &en);
    assert_memory_not_equal(gen, other, sizeof gen);
    rig_free(r);
}

/* One file under several names: folders a, b, ... with a link each. */
struct links {
    struct vfile_env env;
    struct scan *scan;
    struct vfile *vf[3];
};

static void links_scan(struct links *l)
{
    char *root = temp_dir(), *data = temp_dir(), *target = path_join(data, "m.gguf");
    struct gguf_build *b = model("llama", QUANT_F32, 300);
    struct store_options opt = {.kind = STORE_PLAIN, .plan = true};
    struct store *s;
    struct err e = {0};
    gguf_build_files(b, data, "m", 0);
    gguf_build_free(b);
    tree_link(root, "a/m.gguf", target);
    tree_link(root, "bb/m.gguf", target);
    tree_link(root, "ccc/m.gguf", target);
    assert_int_equal(store_scan(&s, root, &opt, NULL, &e), 0);
    assert_int_equal(s->n_entry, 3);
    *l = (struct links){.scan = scan_new(store_set_of(s))};
    assert_int_equal(vcache_new(&l->env.texts, 16 << 20, 0, 0, NULL), 0);
    assert_int_equal(vcache_new(&l->env.units, 1 << 20, 0, 0, NULL), 0);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(vfile_new(&l->vf[i], &l->env, l->scan, 0, i, &e), 0);
    free(root);
    free(data);
    free(target);
}

static void links_free(struct links *l)
{
    for (size_t i = 0; i < 3; i++)
        vfile_put(l->vf[i]);
    scan_put(l->scan);
    vcache_free(l->env.texts);
    vcache_free(l->env.units);
}

static void vfile_extents_name_the_own_path(void **state)
{
    (void)state;
    struct links l;
    links_scan(&l);
    assert_memory_equal(vfile_gen(l.vf[0]), vfile_gen(l.vf[1]), 32);
    for (size_t i = 0; i < 3; i++) {
        struct vcache_item *it;
        struct err e = {0};
        char text[4096] = "";
        assert_int_equal(vfile_text(l.vf[i], VFILE_EXTENTS, NULL, &it, &e), 0);
        assert_in_range(vcache_item_len(it), 1, sizeof text - 1);
        assert_int_equal(vcache_item_read(it, text, 0, vcache_item_len(it), &e), 0);
        assert_non_null(strstr(text, l.scan->set->store[0]->entry[i].part[0].path));
        vcache_put(l.env.texts, it);
    }
    links_free(&l);
}

/* Two stores, one below the other, show one file at one path. Who builds its head waits at the gate of plans,
 * and who is inside builds the other's: neither may wait for the other. */
static void vfile_heads_of_one_place_are_each_ones_own(void **state)
{
    (void)state;
    struct rig *r = rig_new(model("llama", QUANT_F32, 300), 0, VAPR_ENGINE);
    struct vfile *other;
    struct err e = {0};
    assert_int_equal(vfile_new(&other, &r->env, r->scan, 0, 0, &e), 0);
    vfile_set_ino(r->vf, 7);
    vfile_set_ino(other, 8);
    assert_int_equal(vfile_open(r->vf, &e), 0);
    size_t one = vcache_mem(r->env.texts) + vcache_spilled(r->env.texts);
    assert_true(one > 0);
    assert_int_equal(vfile_open(other, &e), 0);
    assert_int_equal(vcache_mem(r->env.texts) + vcache_spilled(r->env.texts), 2 * one);
    vfile_close(other);
    vfile_close(r->vf);
    vfile_put(other);
    rig_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vfile_reads_equal_the_plan),
        cmocka_unit_test(vfile_sends_what_it_reads),
        cmocka_unit_test(vfile_sends_more_segments_than_a_reply_has_pieces),
        cmocka_unit_test(vfile_reads_ahead_of_who_goes_on),
        cmocka_unit_test(vfile_reads_from_many_threads),
        cmocka_unit_test(vfile_changed_source_is_an_error_for_ever),
        cmocka_unit_test(vfile_open_of_what_changed_while_open_is_stale),
        cmocka_unit_test(vfile_that_a_writer_opened_is_stale_for_ever),
        cmocka_unit_test(vfile_change_in_the_middle_of_a_read_is_an_error),
        cmocka_unit_test(vfile_open_of_a_replaced_source_is_stale),
        cmocka_unit_test(vfile_deleted_source_is_read_to_its_end),
        cmocka_unit_test(vfile_reads_once_more_through_new_descriptors),
        cmocka_unit_test(vfile_keeps_the_descriptors_of_its_leases),
        cmocka_unit_test(vfile_texts_are_made_once),
        cmocka_unit_test(vfile_generation_differs_in_every_field),
        cmocka_unit_test(vfile_extents_name_the_own_path),
        cmocka_unit_test(vfile_heads_of_one_place_are_each_ones_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
