/* Loading: what is counted and refused before the device is asked for anything; and the ring, over a
 * device that runs nothing before it is waited for. */
#include "infer/loader.h"

#include "format/crc32.h"
#include "format/model_file.h"
#include "infer/model.h"
#include "tests/support.h"
#include "tests/tiny_model.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

static char *dir;

static char *tiny_path(const char *family)
{
    char *path = path_join(dir, family);
    struct gguf_build *b = tiny_model(family);
    gguf_build_file(b, path);
    gguf_build_free(b);
    return path;
}

/* --- a backend that counts what it is asked for --------------------------------------------- */

static struct backend_ops counting;
static const struct backend_ops *real;
static uint64_t n_alloc, n_byte; /* as the backend itself counts them */

static int count_alloc(struct backend *b, void **p, uint64_t n, const char *what)
{
    n_alloc++;
    n_byte += real->alloc_bytes(b, n);
    return real->alloc(b, p, n, what);
}

static struct backend *counting_backend(uint64_t mem_limit)
{
    const struct backend_options bo = {.n_thread = 1, .mem_limit = mem_limit};
    struct backend *b;
    struct err e;
    assert_int_equal(backend_open(&b, "cpu", &bo, &e), 0);
    real = b->ops;
    counting = *real;
    counting.alloc = count_alloc;
    b->ops = &counting;
    n_alloc = n_byte = 0;
    return b;
}

/* Whatever is wrong with a model, the device has not been asked for a byte. */
static void loader_refuses_before_the_first_allocation(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct gguf_build *g = tiny_model("llama");
        char *path = path_join(dir, "refused.gguf");
        if (i == 0) /* bound last of all */
            gguf_build_tensor_1d(g, "blk.1.surplus.weight", 0, 4);
        gguf_build_file(g, path);
        gguf_build_free(g);
        struct backend *b = counting_backend(i == 0 ? 0 : 100000);
        struct model_file *file;
        struct model *m = NULL;
        struct err e;
        assert_int_equal(model_file_open(&file, path, &e), 0);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e),
                         i == 0 ? -ENOTSUP : -ERANGE);
        assert_int_equal(n_alloc, 0);
        model_file_close(file);
        backend_close(b);
        free(path);
    }
}

/* weights + vectors + rope tables of the message are what a load then takes, to the byte. */
static void loader_takes_what_was_counted(void **state)
{
    (void)state;
    for (int f = 0; f < 4; f++) {
        char *path = tiny_path(tiny_families[f]);
        struct model_file *file;
        struct model *m = NULL;
        struct err e;
        uint64_t term[3];
        assert_int_equal(model_file_open(&file, path, &e), 0);
        struct backend *b = counting_backend(1000);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e), -ERANGE);
        const char *at = strstr(e.msg, "weights ");
        assert_non_null(at);
        assert_int_equal(sscanf(at,
                                "weights %" SCNu64 " + vectors %" SCNu64 " + rope tables %" SCNu64,
                                &term[0], &term[1], &term[2]),
                         3);
        backend_close(b);
        b = counting_backend(0);
        assert_int_equal(model_open(&m, model_file_apr(file), b, NULL, &e), 0);
        assert_int_equal(n_byte, term[0] + term[1] + term[2]);
        model_close(m);
        backend_close(b);
        model_file_close(file);
        free(path);
    }
}

/* --- progress, and what may happen meanwhile ------------------------------------------------- */

struct watcher {
    struct model_progress last;
    int n;
    const char *spoil; /* a file to append a byte to */
};

static void watch(void *ctx, const struct model_progress *p)
{
    struct watcher *w = ctx;
    assert_string_equal(p->phase, "loading");
    assert_string_equal(p->source, "file");
    assert_true(p->bytes >= w->last.bytes && p->seconds >= w->last.seconds);
    w->last = *p;
    if (w->n++ > 0 || !w->spoil)
        return;
    FILE *f = fopen(w->spoil, "ab");
    assert_non_null(f);
    fputc(0, f);
    fclose(f);
}

static int load_watched(const char *path, struct watcher *w, struct model **m, struct backend **b,
                        struct err *e)
{
    const struct backend_options bo = {.n_thread = 1};
    const struct model_options mo = {.progress = watch, .progress_ctx = w};
    struct model_file *file;
    assert_int_equal(backend_open(b, "cpu", &bo, e), 0);
    assert_int_equal(model_file_open(&file, path, e), 0);
    int rc = model_open(m, model_file_apr(file), *b, &mo, e);
    model_file_close(file);
    return rc;
}

static void loader_tells_how_far_it_is(void **state)
{
    (void)state;
    char *path = tiny_path("gemma3");
    struct watcher w = {0};
    struct backend *b;
    struct model *m;
    struct err e = {0};
    assert_int_equal(load_watched(path, &w, &m, &b, &e), 0);
    assert_true(w.n >= 1 && w.last.bytes > 0);
    assert_int_equal(w.last.bytes, w.last.total); /* the last word is: all of it */
    assert_int_equal(w.last.bytes, m->weight_bytes);
    assert_int_equal(m->loaded.bytes, w.last.bytes);
    assert_string_equal(m->not_extents, "");
    model_close(m);
    backend_close(b);
    free(path);
}

/* Half of one file and half of another is no model. */
static void loader_refuses_a_file_that_changed_meanwhile(void **state)
{
    (void)state;
    char *path = tiny_path("qwen2");
    struct watcher w = {.spoil = path};
    struct backend *b;
    struct model *m = NULL;
    struct err e = {0};
    assert_int_equal(load_watched(path, &w, &m, &b, &e), -ESTALE);
    assert_null(m);
    assert_non_null(strstr(e.msg, path));
    backend_close(b);
    free(path);
}

/* --- a device that copies only when it is waited for ---------------------------------------- */

enum { MAX_COPY = 512 };

struct lazy {
    struct backend b;
    struct {
        unsigned char *dst;
        const unsigned char *src;
        size_t n;
    } copy[MAX_COPY];
    size_t n_queued, n_done;
    size_t n_stage, stage_bytes; /* staging buffers asked for */
    size_t n_call, fail_call;    /* the call that is refused, counted from 1; 0: none */
    int sync_rc;                 /* what a late error would be */
    int n_held;                  /* staging buffers and marks not given back */
};

struct backend_mark {
    size_t at;
};

static struct lazy *lazy(struct backend *b)
{
    return (struct lazy *)b;
}

static int call(struct backend *b)
{
    struct lazy *z = lazy(b);
    return ++z->n_call == z->fail_call ? err_set(&b->e, -EIO, "the device refuses") : 0;
}

static void lazy_run(struct lazy *z, size_t upto)
{
    for (; z->n_done < upto; z->n_done++)
        memcpy(z->copy[z->n_done].dst, z->copy[z->n_done].src, z->copy[z->n_done].n);
}

static void *lazy_view(struct backend *b, void *p)
{
    (void)b, (void)p;
    return NULL;
}

static int lazy_stage(struct backend *b, void **p, uint64_t n)
{
    int rc = call(b);
    if (rc < 0)
        return rc;
    lazy(b)->n_held++;
    lazy(b)->n_stage++;
    lazy(b)->stage_bytes += n;
    *p = malloc(n);
    return 0;
}

static void lazy_stage_free(struct backend *b, void *p)
{
    assert_int_equal(lazy(b)->n_done, lazy(b)->n_queued); /* nothing uses it any more */
    lazy(b)->n_held -= p != NULL;
    free(p);
}

static int lazy_upload(struct backend *b, void *dst, uint64_t off, const void *src, size_t n)
{
    struct lazy *z = lazy(b);
    assert_true(z->n_queued < MAX_COPY);
    int rc = call(b);
    if (rc < 0)
        return rc;
    z->copy[z->n_queued].dst = (unsigned char *)dst + off;
    z->copy[z->n_queued].src = src;
    z->copy[z->n_queued++].n = n;
    return 0;
}

static int lazy_mark_new(struct backend *b, struct backend_mark **m)
{
    int rc = call(b);
    if (rc < 0)
        return rc;
    lazy(b)->n_held++;
    *m = calloc(1, sizeof **m);
    return 0;
}

static void lazy_mark_free(struct backend *b, struct backend_mark *m)
{
    lazy(b)->n_held -= m != NULL;
    free(m);
}

static int lazy_mark_set(struct backend *b, struct backend_mark *m)
{
    m->at = lazy(b)->n_queued;
    return call(b);
}

static int lazy_mark_wait(struct backend *b, struct backend_mark *m)
{
    lazy_run(lazy(b), m->at);
    return call(b);
}

static int lazy_sync(struct backend *b)
{
    lazy_run(lazy(b), lazy(b)->n_queued);
    return lazy(b)->sync_rc ? err_set(&b->e, lazy(b)->sync_rc, "late news") : 0;
}

static const struct backend_ops lazy_ops = {
    .name = "lazy",
    .host_view = lazy_view,
    .sync = lazy_sync,
    .stage_alloc = lazy_stage,
    .stage_free = lazy_stage_free,
    .upload_queue = lazy_upload,
    .mark_new = lazy_mark_new,
    .mark_free = lazy_mark_free,
    .mark_set = lazy_mark_set,
    .mark_wait = lazy_mark_wait,
};

/* 100 small tensors and one of 9 MiB and a bit, in a file with gaps, listed backwards. */
enum { N_ITEM = 101, BIG = (9 << 20) + 77 };

struct world {
    struct lazy z;
    uint8_t *file, *dev;
    uint64_t size;
    struct loader_item item[N_ITEM];
    uint64_t at[N_ITEM]; /* of item i, before they are sorted: in file and in dev */
    uint64_t len[N_ITEM];
    uint32_t crc[N_ITEM];
};

static struct world *world_new(void)
{
    struct world *w = calloc(1, sizeof *w);
    uint64_t off = 100;
    w->z.b.ops = &lazy_ops;
    for (int i = 0; i < N_ITEM; i++) {
        w->len[i] = i == 50 ? BIG : 1 + (uint64_t)i * 97 % 5000;
        w->at[i] = off;
        off += w->len[i] + (uint64_t)i % 3;
    }
    w->size = off;
    w->file = malloc(off);
    w->dev = calloc(1, off);
    uint64_t x = test_seed();
    for (uint64_t i = 0; i < off; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407;
        w->file[i] = (uint8_t)(x >> 56);
    }
    for (int i = 0; i < N_ITEM; i++)
        w->item[N_ITEM - 1 - i] =
            (struct loader_item){w->at[i], w->len[i], w->dev + w->at[i], &w->crc[i]};
    return w;
}

static void world_free(struct world *w)
{
    free(w->file);
    free(w->dev);
    free(w);
}

static void keep_bytes(void *ctx, uint64_t bytes)
{
    uint64_t *last = ctx;
    assert_true(bytes >= *last);
    *last = bytes;
}

/* Every byte in its place and no other touched, every CRC that of the whole tensor, whatever the
 * number of readers: a slot that were filled again before its copy ran would show here. */
static void loader_ring_moves_every_byte(void **state)
{
    (void)state;
    static const int readers[] = {1, 2, 5, 12, 0};
    for (size_t r = 0; r < sizeof readers / sizeof readers[0]; r++) {
        struct world *w = world_new();
        struct source *src = mem_source(w->file, w->size, "file");
        uint64_t told = 0, sum = 0;
        const struct loader_options opt = {
            .n_reader = readers[r], .progress = keep_bytes, .ctx = &told};
        struct err e;
        assert_int_equal(loader_read(&w->z.b, src, w->item, N_ITEM, &opt, &e), 0);
        for (int i = 0; i < N_ITEM; i++) {
            uint64_t end = w->at[i] + w->len[i], next = i + 1 < N_ITEM ? w->at[i + 1] : w->size;
            assert_memory_equal(w->dev + w->at[i], w->file + w->at[i], w->len[i]);
            assert_int_equal(w->crc[i], crc32_update(0, w->file + w->at[i], w->len[i]));
            for (; end < next; end++)
                assert_int_equal(w->dev[end], 0);
            sum += w->len[i];
        }
        assert_int_equal(told, sum); /* the last report is of all */
        assert_int_equal(w->z.n_stage, LOADER_SLOT);
        assert_int_equal(w->z.stage_bytes, LOADER_SLOT * LOADER_PIECE);
        source_close(src);
        world_free(w);
    }
}

/* A small model takes small staging. */
static void loader_ring_is_no_larger_than_the_model(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct source *src = mem_source(w->file, w->size, "file");
    struct err e;
    struct loader_item three[3];
    uint64_t longest = 0;
    memcpy(three, w->item, sizeof three);
    for (int i = 0; i < 3; i++)
        longest = three[i].len > longest ? three[i].len : longest;
    assert_int_equal(loader_read(&w->z.b, src, three, 3, NULL, &e), 0);
    assert_int_equal(w->z.n_stage, 3);
    assert_int_equal(w->z.stage_bytes, 3 * longest);
    assert_int_equal(loader_read(&w->z.b, src, three, 0, NULL, &e), 0);
    source_close(src);
    world_free(w);
}

/* A source whose n-th read fails, for several readers. */
struct bad {
    const uint8_t *p;
    atomic_int n_read;
    int fail_at;
};

static int bad_read(void *ctx, void *dst, uint64_t off, size_t len, struct err *e)
{
    struct bad *f = ctx;
    if (atomic_fetch_add(&f->n_read, 1) == f->fail_at)
        return err_set(e, -EIO, "bad.gguf: injected");
    memcpy(dst, f->p + off, len);
    return 0;
}

/* Whichever read fails, with however many readers: that error, no hang, nothing in use behind it. */
static void loader_ends_at_a_read_that_fails(void **state)
{
    (void)state;
    for (int at = 0; at < 103; at += at < 4 ? 1 : 33)
        for (int n = 1; n <= 4; n += 3) {
            struct world *w = world_new();
            static const struct source_ops ops = {.read = bad_read};
            struct bad f = {.p = w->file, .fail_at = at};
            struct source *src;
            struct loader_options opt = {.n_reader = n};
            struct err e = {0};
            assert_int_equal(source_from_ops(&src, &ops, &f, w->size, "bad", &e), 0);
            assert_int_equal(loader_read(&w->z.b, src, w->item, N_ITEM, &opt, &e), -EIO);
            assert_string_equal(e.msg, "bad.gguf: injected");
            source_close(src);
            world_free(w);
        }
}

/* The ring takes 24 buffers with a mark each, 48 calls; then come 103 uploads, each with a mark that is
 * set and, at some time, waited for: 309 calls. */
static void loader_ends_at_a_device_that_refuses(void **state)
{
    (void)state;
    static const size_t at[] = {1, 2, 3, 24, 47, 48, 49, 50, 51, 52, 99, 150, 201, 302, 355, 357};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++) {
        struct world *w = world_new();
        struct source *src = mem_source(w->file, w->size, "file");
        struct loader_options opt = {.n_reader = 3};
        struct err e = {0};
        w->z.fail_call = at[i];
        assert_int_equal(loader_read(&w->z.b, src, w->item, N_ITEM, &opt, &e), -EIO);
        assert_string_equal(e.msg, "lazy: the device refuses");
        assert_int_equal(w->z.n_call, at[i]); /* nothing more is asked of it */
        assert_int_equal(w->z.n_held, 0);
        source_close(src);
        world_free(w);
    }
    struct world *w = world_new(); /* what only the last wait tells */
    struct source *src = mem_source(w->file, w->size, "file");
    struct err e = {0};
    w->z.sync_rc = -EIO;
    assert_int_equal(loader_read(&w->z.b, src, w->item, N_ITEM, NULL, &e), -EIO);
    assert_string_equal(e.msg, "lazy: late news");
    source_close(src);
    world_free(w);
}

/* Where the host sees the destination nothing is staged. */
static void loader_fills_host_memory_in_place(void **state)
{
    (void)state;
    struct world *w = world_new();
    struct source *src = mem_source(w->file, w->size, "file");
    struct backend *b;
    struct err e;
    void *dev;
    assert_int_equal(backend_open(&b, "cpu", NULL, &e), 0);
    assert_int_equal(b->ops->alloc(b, &dev, w->size, "all"), 0);
    for (int i = 0; i < N_ITEM; i++)
        w->item[i].dst = (uint8_t *)dev + w->item[i].off;
    assert_int_equal(loader_read(b, src, w->item, N_ITEM, NULL, &e), 0);
    for (int i = 0; i < N_ITEM; i++) {
        assert_memory_equal((uint8_t *)dev + w->at[i], w->file + w->at[i], w->len[i]);
        assert_int_equal(w->crc[i], crc32_update(0, w->file + w->at[i], w->len[i]));
    }
    b->ops->release(b, dev);
    backend_close(b);
    source_close(src);
    world_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loader_refuses_before_the_first_allocation),
        cmocka_unit_test(loader_takes_what_was_counted),
        cmocka_unit_test(loader_tells_how_far_it_is),
        cmocka_unit_test(loader_refuses_a_file_that_changed_meanwhile),
        cmocka_unit_test(loader_ring_moves_every_byte),
        cmocka_unit_test(loader_ring_is_no_larger_than_the_model),
        cmocka_unit_test(loader_ends_at_a_read_that_fails),
        cmocka_unit_test(loader_ends_at_a_device_that_refuses),
        cmocka_unit_test(loader_fills_host_memory_in_place),
    };
    dir = temp_dir();
    int rc = cmocka_run_group_tests_name("loader", tests, NULL, NULL);
    free(dir);
    return rc;
}
