/* The writer against the plan's own reads: two ways to the same bytes; and what is left behind. */
#include "format/apr_write.h"
#include "format/quant.h"
#include "tests/gguf_build.h"
#include "tests/support.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static int n_files(const char *dir)
{
    DIR *d = opendir(dir);
    int n = 0;
    for (struct dirent *x; (x = readdir(d));)
        n += x->d_name[0] != '.';
    closedir(d);
    return n;
}

/* Bytes of the whole planned file, by vapr_read. */
static uint8_t *planned(const struct vapr *v)
{
    uint8_t *p = malloc(vapr_size(v) + 1);
    size_t got;
    struct err e = {0};
    if (vapr_read(v, p, 0, vapr_size(v) + 1, &got, &e) < 0)
        fail_msg("%s", e.msg);
    assert_int_equal(got, vapr_size(v));
    return p;
}

static void check_written(const struct vapr *v, const char *path)
{
    size_t len;
    uint8_t *want = planned(v), *got = file_read(path, &len);
    assert_non_null(got);
    assert_int_equal(len, vapr_size(v));
    for (size_t i = 0; i < len; i++)
        if (got[i] != want[i])
            fail_msg("%s (%s): byte %zu is %02x, the plan reads %02x", path, vapr_layout(v), i,
                     got[i], want[i]);
    free(want);
    free(got);
}

/* Never backwards, never past the total; ctx holds the last report. */
static void check_progress(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *last = ctx;
    assert_true(done >= *last);
    assert_true(done <= total);
    *last = done;
}

/* Every profile and footer of one model on disk; counts the layouts met. */
static void write_all_ways(const struct gguf *g, const char *dir, int layouts[3])
{
    static const char *const layout[] = {"congruent", "shifted32", "placed"};
    char *path = path_join(dir, "out.apr");
    for (int p = VAPR_ENGINE; p <= VAPR_STRICT; p++)
        for (int foot = VAPR_FOOTER_NONE; foot <= VAPR_FOOTER_CRC; foot++) {
            struct vapr_options o = {.profile = (enum vapr_profile)p,
                                     .footer = (enum vapr_footer)foot};
            uint64_t last = 0;
            struct apr_write_options w = {
                .footer = o.footer, .progress = check_progress, .ctx = &last};
            struct vapr *v;
            struct err e = {0};
            if (vapr_new(&v, g, &o, &e) < 0)
                fail_msg("%s", e.msg);
            for (int k = 0; k < 3; k++)
                layouts[k] += strcmp(vapr_layout(v), layout[k]) == 0;
            if (apr_write_file(v, path, &w, &e) < 0)
                fail_msg("%s", e.msg);
            assert_int_equal(last, vapr_size(v) * (o.footer == VAPR_FOOTER_CRC ? 2 : 1));
            check_written(v, path);
            unlink(path);
            vapr_free(v);
        }
    free(path);
}

/* Types, alignments (which decide the layout of profile strict), shards, fused and tied tensors. */
static void apr_write_equals_plan(void **state)
{
    (void)state;
    static const struct {
        const char *arch;
        uint32_t align, type, type_down;
        int n_part;
        bool fused;
        uint32_t norm_type;
    } model[] = {
        {"llama", 32, QUANT_Q8_0, QUANT_Q5_0, 0, false, QUANT_F32},
        {"llama", 64, QUANT_Q4_0, QUANT_Q4_1, 3, false, QUANT_F16},
        {"qwen2", 32, QUANT_Q8_0, QUANT_F16, 3, false, QUANT_F32},
        {"qwen3", 4096, QUANT_BF16, QUANT_Q5_1, 2, false, QUANT_F16},
        {"gemma3", 32, QUANT_Q8_0, QUANT_Q8_0, 0, false, QUANT_F32},
        {"phi3", 32, QUANT_Q5_0, QUANT_Q8_0, 0, true, QUANT_F32},
        {"phi3", 32, QUANT_Q8_0, QUANT_Q4_1, 2, true, QUANT_F32},
        {"llama", 8, QUANT_IQ4_NL, QUANT_MXFP4, 0, false, QUANT_F32},
        {"llama", 32, QUANT_F32, QUANT_F32, 0, false, QUANT_F32},
    };
    int layouts[3] = {0};
    for (size_t i = 0; i < sizeof model / sizeof model[0]; i++) {
        struct gguf_build_opt o = gguf_build_defaults(model[i].arch);
        o.alignment = model[i].align;
        o.type = model[i].type;
        o.type_down = model[i].type_down;
        o.norm_type = model[i].norm_type;
        o.fused_qkv = o.fused_gate_up = model[i].fused;
        struct gguf_build *b = gguf_build_llama_like(model[i].arch, &o);
        char *dir = temp_dir(), name[64];
        gguf_build_files(b, dir, "m", model[i].n_part);
        snprintf(name, sizeof name, model[i].n_part ? "m-00001-of-%05d.gguf" : "m.gguf",
                 model[i].n_part);
        char *path = path_join(dir, name);
        struct gguf *g;
        struct err e = {0};
        if (gguf_open_path(&g, path, &e) < 0)
            fail_msg("%s", e.msg);
        write_all_ways(g, dir, layouts);
        gguf_close(g);
        gguf_build_free(b);
        free(path);
        free(dir);
    }
    /* the three kinds of layout were all met, or this test tests less than it says */
    print_message("# congruent %d, shifted32 %d, placed %d\n", layouts[0], layouts[1], layouts[2]);
    assert_true(layouts[0] > 0 && layouts[1] > 0 && layouts[2] > 0);
}

struct model {
    struct gguf_build *b;
    uint8_t *p;
    size_t len;
    struct faulty faulty;
    struct source *src;
    struct gguf *g;
    struct vapr *v;
    char *dir, *path, *tmp;
};

/* A small model in memory: no descriptor, so the bytes go through reads that can be made to fail. */
static void model_open(struct model *m)
{
    struct gguf_build_opt o = gguf_build_defaults("llama");
    struct vapr_options vo = {.profile = VAPR_ENGINE};
    struct err e = {0};
    *m = (struct model){0};
    o.type = QUANT_Q8_0;
    m->b = gguf_build_llama_like("llama", &o);
    m->p = gguf_build_bytes(m->b, &m->len);
    m->faulty = (struct faulty){.p = m->p, .len = m->len, .fail_at = -1, .rc = -EIO};
    m->src = faulty_source(&m->faulty, m->len, "m.gguf");
    if (gguf_open(&m->g, &m->src, 1, &e) < 0 || vapr_new(&m->v, m->g, &vo, &e) < 0)
        fail_msg("%s", e.msg);
    m->dir = temp_dir();
    m->path = path_join(m->dir, "m.apr");
    m->tmp = path_join(m->dir, "m.apr.tmp");
}

static void model_close(struct model *m)
{
    vapr_free(m->v);
    gguf_close(m->g);
    source_close(m->src);
    gguf_build_free(m->b);
    free(m->p);
    free(m->dir);
    free(m->path);
    free(m->tmp);
}

static void apr_write_leaves_nothing_on_read_errors(void **state)
{
    (void)state;
    struct model m;
    model_open(&m);
    struct apr_write_options w = {0};
    struct err e = {0};
    m.faulty.n_read = 0;
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), 0);
    int n_read = m.faulty.n_read;
    unlink(m.path);
    assert_true(n_read > 3);
    for (int i = 0; i < n_read; i++) {
        m.faulty.n_read = 0;
        m.faulty.fail_at = i;
        assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -EIO);
        assert_int_equal(n_files(m.dir), 0);
    }
    model_close(&m);
}

struct stop_at {
    int left; /* steps until stop is set */
    volatile sig_atomic_t stop;
};

static void stop_after(void *ctx, uint64_t done, uint64_t total)
{
    struct stop_at *s = ctx;
    assert_true(done <= total);
    if (s->left-- == 0)
        s->stop = SIGINT;
}

static void apr_write_leaves_nothing_when_stopped(void **state)
{
    (void)state;
    struct model m;
    model_open(&m);
    /* Stop at each step in turn, until a run gets through; an older file stays as it was. */
    file_write(m.path, "old", 3);
    int rc = -EINTR, n_stop = 0;
    for (; rc == -EINTR; n_stop++) {
        struct stop_at at = {.left = n_stop};
        struct apr_write_options w = {
            .force = true, .stop = &at.stop, .progress = stop_after, .ctx = &at};
        struct err e = {0};
        rc = apr_write_file(m.v, m.path, &w, &e);
        size_t len;
        uint8_t *p = file_read(m.path, &len);
        if (rc == -EINTR)
            assert_true(len == 3 && memcmp(p, "old", 3) == 0);
        free(p);
        assert_int_equal(n_files(m.dir), 1);
    }
    assert_int_equal(rc, 0);
    assert_true(n_stop > 3);
    check_written(m.v, m.path);
    model_close(&m);
}

static void apr_write_refuses_existing_without_force(void **state)
{
    (void)state;
    struct model m;
    model_open(&m);
    struct apr_write_options w = {0};
    struct err e = {0};
    file_write(m.path, "old", 3);
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -EEXIST);
    size_t len;
    uint8_t *p = file_read(m.path, &len);
    assert_true(len == 3 && memcmp(p, "old", 3) == 0);
    free(p);
    w.force = true;
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), 0);
    check_written(m.v, m.path);
    assert_int_equal(n_files(m.dir), 1);
    model_close(&m);
}

/* Somebody makes the file while we write: NOREPLACE must see it. */
static void make_file(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    file_write(ctx, "theirs", 6);
}

static void apr_write_does_not_replace_a_newcomer(void **state)
{
    (void)state;
    struct model m;
    model_open(&m);
    struct apr_write_options w = {.progress = make_file, .ctx = m.path};
    struct err e = {0};
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -EEXIST);
    size_t len;
    uint8_t *p = file_read(m.path, &len);
    assert_true(len == 6 && memcmp(p, "theirs", 6) == 0);
    assert_int_equal(n_files(m.dir), 1);
    free(p);
    model_close(&m);
}

static void apr_write_knows_living_writers_from_dead(void **state)
{
    (void)state;
    struct model m;
    model_open(&m);
    struct apr_write_options w = {0};
    struct err e = {0};
    /* A leftover of a killed writer, longer than the file to come. */
    char *junk = calloc(1, vapr_size(m.v) + 4096);
    memset(junk, 0xa5, vapr_size(m.v) + 4096);
    memcpy(junk, "APR", 4);
    file_write(m.tmp, junk, vapr_size(m.v) + 4096);
    free(junk);
    int fd = open(m.tmp, O_RDWR | O_CLOEXEC);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* while another writer lives */
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -EBUSY);
    assert_int_equal(access(m.tmp, F_OK), 0);
    close(fd);
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), 0);
    check_written(m.v, m.path);
    assert_int_equal(n_files(m.dir), 1);

    file_write(m.tmp, "notes", 5); /* nobody's leftover: not ours to overwrite */
    w.force = true;
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -EEXIST);
    assert_non_null(strstr(e.msg, "m.apr.tmp: exists and is no leftover"));
    struct stat st;
    assert_int_equal(stat(m.tmp, &st), 0);
    assert_int_equal(st.st_size, 5);
    unlink(m.tmp);

    assert_int_equal(symlink("/dev/null", m.tmp), 0); /* a planted link is not followed */
    assert_int_equal(apr_write_file(m.v, m.path, &w, &e), -ELOOP);
    model_close(&m);
}

/* The GGUF grows while it is being copied: its generation is another, the copy is thrown away. */
static void touch_source(void *ctx, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    int fd = open(ctx, O_WRONLY | O_APPEND | O_CLOEXEC);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
}

static void apr_write_notices_a_changed_source(void **state)
{
    (void)state;
    char *dir = temp_dir(), *src = path_join(dir, "m.gguf"), *dst = path_join(dir, "m.apr");
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    gguf_build_file(b, src);
    struct gguf *g;
    struct vapr *v;
    struct vapr_options o = {.profile = VAPR_NATIVE};
    struct err e = {0};
    assert_int_equal(gguf_open_path(&g, src, &e), 0);
    assert_int_equal(vapr_new(&v, g, &o, &e), 0);
    struct apr_write_options w = {.progress = touch_source, .ctx = src};
    assert_int_equal(apr_write_file(v, dst, &w, &e), -ESTALE);
    assert_int_equal(n_files(dir), 1);
    vapr_free(v);
    gguf_close(g);
    gguf_build_free(b);
    free(dir);
    free(src);
    free(dst);
}

/* The name that the new file is written under may be the source's, or a second name of another
 * file: neither is a leftover. */
static void apr_write_never_takes_over_its_source(void **state)
{
    (void)state;
    char *dir = temp_dir(), *src = path_join(dir, "m.apr.tmp"), *dst = path_join(dir, "m.apr");
    char *second = path_join(dir, "second");
    struct gguf_build *b = gguf_build_llama_like("llama", NULL);
    size_t want_len, len;
    uint8_t *want = gguf_build_bytes(b, &want_len);
    gguf_build_file(b, src);
    struct gguf *g;
    struct vapr *v;
    struct vapr_options o = {.profile = VAPR_NATIVE};
    struct apr_write_options w = {.force = true};
    struct err e = {0};
    assert_int_equal(gguf_open_path(&g, src, &e), 0);
    assert_int_equal(vapr_new(&v, g, &o, &e), 0);
    assert_int_equal(apr_write_file(v, dst, &w, &e), -EEXIST);
    assert_non_null(strstr(e.msg, "m.apr.tmp"));
    uint8_t *got = file_read(src, &len);
    assert_non_null(got);
    assert_int_equal(len, want_len);
    assert_memory_equal(got, want, len);
    free(got);

    assert_int_equal(unlink(src), 0);
    file_write(second, "theirs", 6);
    assert_int_equal(link(second, src), 0);
    assert_int_equal(apr_write_file(v, dst, &w, &e), -EEXIST);
    got = file_read(second, &len);
    assert_true(len == 6 && memcmp(got, "theirs", 6) == 0);
    free(got);
    vapr_free(v);
    gguf_close(g);
    gguf_build_free(b);
    free(want);
    free(dir);
    free(src);
    free(dst);
    free(second);
}

static void apr_write_real_model(void **state)
{
    (void)state;
    char *model = real_model(REAL_SMOLLM2);
    if (!model)
        skip_because("%s is not there", REAL_SMOLLM2);
    char *dir = temp_dir(), *path = path_join(dir, "m.apr");
    struct gguf *g;
    struct vapr *v;
    struct vapr_options o = {.profile = VAPR_ENGINE};
    struct apr_write_options w = {0};
    struct err e = {0};
    if (gguf_open_path(&g, model, &e) < 0 || vapr_new(&v, g, &o, &e) < 0 ||
        apr_write_file(v, path, &w, &e) < 0)
        fail_msg("%s", e.msg);
    check_written(v, path);
    vapr_free(v);
    gguf_close(g);
    free(model);
    free(dir);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(apr_write_equals_plan),
        cmocka_unit_test(apr_write_leaves_nothing_on_read_errors),
        cmocka_unit_test(apr_write_leaves_nothing_when_stopped),
        cmocka_unit_test(apr_write_refuses_existing_without_force),
        cmocka_unit_test(apr_write_does_not_replace_a_newcomer),
        cmocka_unit_test(apr_write_knows_living_writers_from_dead),
        cmocka_unit_test(apr_write_notices_a_changed_source),
        cmocka_unit_test(apr_write_never_takes_over_its_source),
        cmocka_unit_test(apr_write_real_model),
    };
    return cmocka_run_group_tests_name("apr_write", tests, NULL, NULL);
}
